//! Findings: what does not fit between a machine's configuration and this host.
//!
//! A report is a list of findings, each with a stable id, a severity, the setting concerned and, where one exists, the
//! command or option that resolves it. What is checked, and when, is [`crate::report`]'s part.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The machine comes up, but something differs or may not work.
    Warning,
    /// The machine cannot be realized until it is resolved.
    Error,
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable id, kebab-case.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// The setting concerned: a path in the configuration tree, or an option's name.
    pub setting: String,
    /// One sentence.
    pub message: String,
    /// The option or command that resolves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Hyper-V's message id for the same thing, where it is known (33012).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperv_id: Option<u32>,
}

/// One word for a whole report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing stands in the way.
    Ready,
    /// Every error has a fix.
    Fixable,
    /// At least one error has none here.
    Blocked,
}

impl Verdict {
    /// The verdict on `findings`.
    pub fn of(findings: &[Finding]) -> Self {
        let mut errors = findings.iter().filter(|f| f.severity == Severity::Error).peekable();
        if errors.peek().is_none() {
            Self::Ready
        } else if errors.all(|f| f.fix.is_some()) {
            Self::Fixable
        } else {
            Self::Blocked
        }
    }

    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Fixable => "fixable",
            Self::Blocked => "blocked",
        }
    }
}

macro_rules! findings {
    ($($name:ident = $id:literal, $text:literal;)+) => {
        $(#[doc = $text] pub const $name: &str = $id;)+
        /// Every finding id. What to do about each is told by `slipway explain`.
        pub const ALL: &[&str] = &[$($id),+];
    };
}

findings! {
    SWITCH_NOT_FOUND = "switch-not-found", "A network adapter was connected to a switch that this host does not have (Hyper-V's 33012). Map its name to a switch or bridge, or import disconnected.";
    DISK_MISSING = "disk-missing", "A disk that the configuration names was found neither in the package nor in the directories given. Say where it is with `--disks DIR`.";
    DISK_PARENT_MISSING = "disk-parent-missing", "A differencing disk's parent is missing or is not the one it was made on. Without it the disk's content is incomplete.";
    DISK_UNREADABLE = "disk-unreadable", "A disk was found but cannot be read as a virtual disk. `slipway disk check FILE` says what is wrong with it and where; copying the package again often helps.";
    DISK_OUTSIDE = "disk-outside-package", "The configuration names a disk outside the package. Nothing outside it is opened unless its directory is given with `--disks DIR`.";
    DISK_OVERLAP = "disk-overlap", "Parts of the disk's file are used by two of its blocks at once, so that it shows more than it holds. A crash or a bad copy can do that; so can whoever wants to fill this host's disks. `slipway disk check FILE` lists the places, `--lenient` reads it all the same.";
    DISK_TWICE = "disk-twice", "Two drives of the configuration hold the same disk file, which no machine can run with.";
    DISK_SECTORS = "disk-sectors", "The disk has 4,096-byte logical sectors, which the emulated controller cannot present. Choose nvme or a virtio bus.";
    PROCESSORS_BEYOND_HOST = "processors-beyond-host", "The machine has more virtual processors than this host has logical ones.";
    MEMORY_BEYOND_HOST = "memory-beyond-host", "The machine's startup memory is more than this host has.";
    DEVICE_NOT_AVAILABLE = "device-not-available", "A device of the configuration does not exist here. It is kept in the configuration and leaves with the next export, but the guest does not see it.";
    SAVED_STATE = "saved-state", "The machine was saved while running. Hyper-V's memory state cannot be resumed on QEMU; discarding it is like a power cut for the guest.";
    STATE_COMES = "saved-state-comes-along", "The package holds the memory of a machine that Slipway saved, and it fits here. The machine comes in saved and goes on from there.";
    STATE_TWIN = "saved-state-twin", "The saved memory knows the addresses and identity of the machine it was saved from. A machine under a new id keeps them, so the two must not run on one network.";
    STATE_UNFIT = "saved-state-unfit", "The package holds the memory of a machine that Slipway saved, and this host or the chosen hardware cannot go on with it. Discarding it is like a power cut for the guest.";
    GUEST_STATE = "guest-state-unreadable", "The guest state file beside the configuration cannot be read, so boot entries in it are not carried over. It is kept and leaves with the next export as it came.";
    SNAPSHOTS_LEFT = "snapshots-left", "The package holds checkpoints. The machine comes in as its current state, flattened; the checkpoints stay behind in the package.";
    DUPLICATE_ID = "duplicate-id", "A machine with this id is already here. Import under a new id.";
    GUEST_UNKNOWN = "guest-unknown", "What the guest has drivers for is not known, so it gets hardware that any guest can boot. Once virtio drivers are installed, `--hardware virtio` is faster.";
    GUEST_KERNEL = "guest-kernel", "The drivers of the guest's Linux kernel are known, from its configuration in /boot or from its release, and the hardware was chosen by them. `--disk-bus` and `--nic-model` choose otherwise.";
    GUEST_DRIVERS = "guest-drivers", "The chosen hardware needs drivers that the guest may not have.";
    BOOT_ENTRY = "boot-entry-added", "The disk's boot loader was known only to the old firmware's variables; a boot entry for it is added to the new ones.";
    BOOT_LOADER = "boot-loader-not-found", "No boot loader that this machine's firmware starts was found on its disks.";
    BITLOCKER = "bitlocker", "A partition is encrypted by BitLocker. On new firmware and a new TPM it asks for its recovery key at first start.";
    LUKS = "luks", "A partition is encrypted by LUKS. A key sealed to the old TPM does not open it; a passphrase does.";
    SHIELDED = "shielded", "The machine is shielded: its state is encrypted to a key protector that only its guarded fabric can open.";
    TPM_STATE = "tpm-state", "The TPM's content is sealed to the old host. The machine gets a new, empty TPM; the old state is kept for the way back.";
    NO_SPACE = "no-space", "The disks need more room than the target file system has.";
    REGISTER_IMPOSSIBLE = "register-impossible", "QEMU cannot read this disk where it is (differencing, pending log, 4,096-byte sectors or wrong checksum). Import a copy.";
    PENDING_LOG = "pending-log", "The disk was not closed cleanly: its log holds updates that are applied in memory while it is copied.";
    VERSION_UNKNOWN = "version-unknown", "The configuration's version is newer than those known here. What is understood is used, everything else is kept verbatim.";
    DYNAMIC_MEMORY = "dynamic-memory", "Dynamic memory is on; the guest gets its startup memory and keeps it.";
    NESTED = "nested-virtualization", "The machine exposes virtualisation to its guest, which depends on this host's CPU.";
    TPM_MISSING = "tpm-missing", "The machine has a virtual TPM and this host has no swtpm.";
    FIRMWARE_MISSING = "firmware-missing", "A generation 2 machine needs UEFI firmware (OVMF), which this host does not have.";
    SECURE_BOOT_TEMPLATE = "secure-boot-template", "The machine names a Secure Boot template that has no counterpart here; Microsoft's own keys are used.";
    DVD_MISSING = "dvd-missing", "A DVD image that the configuration names was not found; the drive comes in empty.";
    DEFAULT_SWITCH = "default-switch", "An adapter on Hyper-V's Default Switch is connected to this host's NAT switch, which does the same.";
    VLAN_UNREAD = "vlan-unread", "The adapter's switch port carries VLAN settings whose binary form Microsoft has not published. They are kept for the way back; name the VLAN with `--switch SRC=br0:VLAN`.";
    SETTING_INVALID = "setting-invalid", "A setting of the configuration breaks a rule that every machine keeps, such as an empty name.";
    MORE_FINDINGS = "more-findings", "The report has more findings than are kept of one; those left out are no better than the worst shown. Resolve these and look again.";
    LEGACY_XML = "configuration-xml", "The configuration is in the older XML form; an export writes it in the same form again.";
}

/// Longest message of a finding that is kept, in characters.
const MAX_MESSAGE: usize = 1000;
/// Most bytes that the findings of one report take; with the machine's description they are one record of the store.
const MAX_REPORT: usize = 16 << 10;

/// As much of `findings` as is kept: long messages are cut, and what is too much is one finding of its own, as bad as the
/// worst it stands for. Names and paths in messages come from hostile files.
pub fn bounded(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    let mut room = MAX_REPORT;
    let mut rest = findings.into_iter();
    while let Some(mut next) = rest.next() {
        for text in [&mut next.message, &mut next.setting] {
            if let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE) {
                text.truncate(end);
                text.push('…');
            }
        }
        let size = serde_json::to_vec(&next).map_or(MAX_REPORT, |bytes| bytes.len());
        if size > room {
            let left: Vec<Finding> = std::iter::once(next).chain(rest).collect();
            let worst = left.iter().map(|f| f.severity).max().unwrap_or(Severity::Info);
            let message = format!("{} more findings are left out", left.len());
            let mut more = Finding::new(MORE_FINDINGS, worst, "report", message);
            // Whether they can be resolved is what the verdict needs to know.
            more.fix = match Verdict::of(&left) {
                Verdict::Fixable => {
                    left.into_iter().find(|f| f.severity == Severity::Error).and_then(|f| f.fix)
                }
                Verdict::Ready | Verdict::Blocked => None,
            };
            kept.push(more);
            break;
        }
        room -= size;
        kept.push(next);
    }
    kept
}

impl Finding {
    /// A finding with no fix.
    pub fn new(id: &str, severity: Severity, setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            severity,
            setting: setting.into(),
            message: message.into(),
            fix: None,
            hyperv_id: None,
        }
    }

    /// Adds the option or command that resolves it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds Hyper-V's message id.
    #[must_use]
    pub fn hyperv(mut self, id: u32) -> Self {
        self.hyperv_id = Some(id);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_the_worst_that_is_left() {
        let info = Finding::new(GUEST_UNKNOWN, Severity::Info, "hardware", "x");
        let fixable =
            Finding::new(SWITCH_NOT_FOUND, Severity::Error, "s", "x").fix("--disconnected").hyperv(33012);
        let blocked = Finding::new(SHIELDED, Severity::Error, "s", "x");
        assert_eq!(Verdict::of(std::slice::from_ref(&info)), Verdict::Ready);
        assert_eq!(Verdict::of(&[info.clone(), fixable.clone()]), Verdict::Fixable);
        assert_eq!(Verdict::of(&[info, fixable, blocked]), Verdict::Blocked);
    }

    #[test]
    fn a_report_that_would_not_end_is_cut_and_says_so() {
        let finding = |severity, length| Finding::new(DISK_MISSING, severity, "s", "é".repeat(length));
        let few = vec![finding(Severity::Error, 10), finding(Severity::Info, 10)];
        assert_eq!(bounded(few.clone()), few);
        let long = bounded(vec![finding(Severity::Error, 1 << 20)]);
        assert_eq!(long[0].message.chars().count(), MAX_MESSAGE + 1);
        let mut many = vec![finding(Severity::Info, 10); 1000];
        many.push(finding(Severity::Error, 10).fix("--disks DIR"));
        let cut = bounded(many.clone());
        assert!(serde_json::to_vec(&cut).unwrap().len() < MAX_REPORT + 512);
        assert_eq!(cut.last().unwrap().id, MORE_FINDINGS);
        assert_eq!(Verdict::of(&cut), Verdict::of(&many));
        many.push(finding(Severity::Error, 10));
        assert_eq!(Verdict::of(&bounded(many)), Verdict::Blocked);
    }

    #[test]
    fn no_id_is_given_twice() {
        let ids: std::collections::BTreeSet<_> = ALL.iter().collect();
        assert_eq!(ids.len(), ALL.len());
    }
}
