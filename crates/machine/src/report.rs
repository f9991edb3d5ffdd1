//! The compatibility report: everything about a configuration that does not fit this host.
//!
//! Pure: facts in, findings out. Facts about disks come from [`crate::import`], which looked at them; facts about the
//! host from [`HostFacts`]. The order of findings is the order of checks, errors not first: a reader sees the machine top
//! down.

use transfer::shell;

use crate::config::{Configuration, SavedState};
use crate::finding::{self, Finding, Severity};
use crate::planned::{ImportMode, ImportRequest, Plug};
use crate::settings::{Generation, MAX_MEMORY_MIB, MAX_PROCESSORS, MIN_MEMORY_MIB, Settings, name_problem};
use crate::switch::{
    DEFAULT_SWITCH, HYPERV_DEFAULT_SWITCH, HYPERV_DEFAULT_SWITCH_ID, SwitchKind, SwitchRecord,
};

/// Microsoft's Secure Boot templates whose keys OVMF's enrolled variables hold: Windows, and the UEFI CA.
const KNOWN_TEMPLATES: [&str; 2] =
    ["1734C6E8-3154-4DDA-BA5F-A874CC483422", "272E7447-90A4-4563-A4B9-8E4AB00526CE"];

/// What the report needs to know of the host.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Logical processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// UEFI firmware is there.
    pub uefi: bool,
    /// A TPM emulator is there.
    pub tpm: bool,
    /// Bridges of the host.
    pub bridges: Vec<String>,
}

impl HostFacts {
    /// What the operating system tells of this host at once. Firmware and TPM emulator are taken to be there: asking for
    /// them is the engine's part.
    pub fn of_this_host() -> Self {
        let processors =
            std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Self {
            processors,
            memory_mib: memory_mib(std::path::Path::new("/proc/meminfo")).unwrap_or(0),
            uefi: true,
            tpm: true,
            bridges: Vec::new(),
        }
    }
}

fn memory_mib(meminfo: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Applies what the request changes, so that the report is about the machine as it would come up.
pub fn refine(settings: &mut Settings, request: &ImportRequest) {
    if let Some(name) = &request.name {
        settings.name.clone_from(name);
    }
    if let Some(count) = request.processors {
        settings.processors.count = count;
    }
    if let Some(mib) = request.memory_mib {
        settings.memory.startup_mib = mib;
    }
    if let Some(profile) = request.profile {
        settings.hardware.profile = profile;
    }
    let parts = &request.parts;
    if let Some(notes) = &parts.notes {
        settings.notes.clone_from(notes);
    }
    settings.automatic = parts.automatic.unwrap_or(settings.automatic);
    settings.firmware.secure_boot = parts.secure_boot.unwrap_or(settings.firmware.secure_boot);
    settings.adapters.retain(|adapter| parts.adapter(adapter.instance) != Some(&Plug::Gone));
    settings.hardware.disk_bus = request.disk_bus.or(settings.hardware.disk_bus);
    settings.hardware.nic_model = request.nic_model.or(settings.hardware.nic_model);
}

/// Findings about everything but the disks' content.
pub fn machine(
    c: &Configuration,
    settings: &Settings,
    request: &ImportRequest,
    host: &HostFacts,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if c.version_unknown {
        found.push(Finding::new(
            finding::VERSION_UNKNOWN,
            Severity::Warning,
            "properties/version",
            format!(
                "configuration version {}.{} is newer than those known",
                c.settings.config_version >> 8,
                c.settings.config_version & 0xff
            ),
        ));
    }
    if c.shielded {
        found.push(Finding::new(
            finding::SHIELDED,
            Severity::Error,
            "settings/security",
            "the machine is shielded; only its guarded fabric can open its state",
        ));
    }
    if settings.processors.count > host.processors && host.processors > 0 {
        found.push(
            Finding::new(
                finding::PROCESSORS_BEYOND_HOST,
                Severity::Error,
                "settings/processors/count",
                format!(
                    "{} virtual processors, and this host has {}",
                    settings.processors.count, host.processors
                ),
            )
            .fix(format!("--processors {}", host.processors)),
        );
    }
    if settings.memory.startup_mib > host.memory_mib && host.memory_mib > 0 {
        found.push(
            Finding::new(
                finding::MEMORY_BEYOND_HOST,
                Severity::Error,
                "settings/memory/bank/size",
                format!(
                    "{} MiB of startup memory, and this host has {} MiB",
                    settings.memory.startup_mib, host.memory_mib
                ),
            )
            .fix(format!("--memory {}", (host.memory_mib / 2).max(MIN_MEMORY_MIB))),
        );
    }
    if settings.memory.dynamic {
        found.push(Finding::new(
            finding::DYNAMIC_MEMORY,
            Severity::Info,
            "settings/memory/bank/dynamic_memory_enabled",
            format!("dynamic memory is on; the guest gets {} MiB and keeps it", settings.memory.startup_mib),
        ));
    }
    if settings.processors.nested {
        found.push(Finding::new(
            finding::NESTED,
            Severity::Warning,
            "settings/processors/nested_virtualization",
            "the guest may use virtualisation itself, which this host may not offer",
        ));
    }
    firmware(settings, host, &mut found);
    for (kind, name) in &c.unavailable {
        found.push(Finding::new(
            finding::DEVICE_NOT_AVAILABLE,
            Severity::Warning,
            format!("manifest/{kind}"),
            format!("`{name}` is not available here; it is kept in the configuration only"),
        ));
    }
    for adapter in &c.vlan_unread {
        found.push(Finding::new(
            finding::VLAN_UNREAD,
            Severity::Warning,
            format!("_{adapter}_/Connection"),
            "the adapter's port has VLAN settings in a form that is not public; name the VLAN with `--switch SRC=br0:VLAN`",
        ));
    }
    if c.saved == SavedState::Present && !request.discard_saved_state {
        found.push(
            Finding::new(
                finding::SAVED_STATE,
                Severity::Error,
                "savedstate",
                "the machine was saved while running, and Hyper-V's memory state cannot be resumed here",
            )
            .fix("--discard-saved-state"),
        );
    }
    found
}

fn firmware(settings: &Settings, host: &HostFacts, found: &mut Vec<Finding>) {
    if settings.generation == Generation::Two && !host.uefi {
        found.push(
            Finding::new(
                finding::FIRMWARE_MISSING,
                Severity::Error,
                "properties/subtype",
                "this host has no UEFI firmware",
            )
            .fix("apt-get install ovmf"),
        );
    }
    if let Some(template) = &settings.firmware.secure_boot_template
        && settings.firmware.secure_boot
        && !KNOWN_TEMPLATES.iter().any(|t| t.eq_ignore_ascii_case(template))
    {
        found.push(Finding::new(
            finding::SECURE_BOOT_TEMPLATE,
            Severity::Warning,
            "secure_boot_template_id",
            format!("Secure Boot template {template} has no counterpart here; Microsoft's keys are used"),
        ));
    }
    if settings.tpm && !host.tpm {
        found.push(
            Finding::new(
                finding::TPM_MISSING,
                Severity::Error,
                "tpm",
                "the machine has a TPM and this host has no swtpm",
            )
            .fix("apt-get install swtpm"),
        );
    }
}

/// The option that leads `source`, a switch of the package, to this host's NAT.
fn nat(source: &str) -> String {
    format!("--switch {}", shell::word(format!("{source}={DEFAULT_SWITCH}")))
}

/// Plugs the adapters into this host's switches and says what could not be plugged.
///
/// `switches` are this host's; a bridge named by the request becomes a switch when the plan is realized, and is listed in
/// the second result until then.
pub fn connect(
    settings: &mut Settings,
    request: &ImportRequest,
    switches: &[SwitchRecord],
    host: &HostFacts,
) -> (Vec<Finding>, Vec<SwitchRecord>) {
    let mut found = Vec::new();
    let mut new: Vec<SwitchRecord> = Vec::new();
    for adapter in &mut settings.adapters {
        adapter.switch = None;
        let own = match request.parts.adapter(adapter.instance) {
            Some(Plug::Into(target)) => Some(target),
            Some(Plug::Out | Plug::Gone) => continue,
            None => None,
        };
        let source = match (adapter.source_switch.clone(), own) {
            (Some(source), _) => source,
            (None, Some(target)) => target.target.clone(),
            (None, None) => continue,
        };
        if request.disconnected && own.is_none() {
            continue;
        }
        let setting = format!("_{}_/Connection/AltSwitchName", adapter.instance);
        let mapped = || request.switches.get(&source).or_else(|| request.switches.get("*"));
        if let Some(target) = own.or_else(mapped) {
            let known = switches.iter().chain(&new).any(|s| s.name == target.target);
            if !known && host.bridges.contains(&target.target) {
                new.push(SwitchRecord::new(
                    uuid::Uuid::new_v4(),
                    target.target.clone(),
                    SwitchKind::External { bridge: target.target.clone() },
                ));
            } else if !known {
                found.push(
                    Finding::new(
                        finding::SWITCH_NOT_FOUND,
                        Severity::Error,
                        setting,
                        format!(
                            "`{}` is neither a switch of Slipway nor a bridge of this host",
                            target.target
                        ),
                    )
                    .fix(nat(&source))
                    .hyperv(33012),
                );
                continue;
            }
            adapter.switch = Some(target.target.clone());
            adapter.vlan = target.vlan.or(adapter.vlan);
            continue;
        }
        if let Some((switch, vlan)) = switches.iter().find_map(|s| s.answers_to(&source).map(|v| (s, v))) {
            adapter.switch = Some(switch.name.clone());
            adapter.vlan = vlan.or(adapter.vlan);
            continue;
        }
        let is_default = source.eq_ignore_ascii_case(HYPERV_DEFAULT_SWITCH)
            || source.eq_ignore_ascii_case(HYPERV_DEFAULT_SWITCH_ID);
        if let Some(nat) = switches.iter().find(|s| is_default && s.kind == SwitchKind::Nat) {
            found.push(Finding::new(
                finding::DEFAULT_SWITCH,
                Severity::Info,
                setting,
                format!("`{source}` is Hyper-V's NAT switch; the adapter is plugged into `{}`", nat.name),
            ));
            adapter.switch = Some(nat.name.clone());
            continue;
        }
        found.push(
            Finding::new(
                finding::SWITCH_NOT_FOUND,
                Severity::Error,
                setting,
                format!(
                    "adapter `{}` was connected to switch `{source}`, which this host does not have (`--disconnected` leaves it unplugged)",
                    adapter.name
                ),
            )
            .fix(nat(&source))
            .hyperv(33012),
        );
    }
    (found, new)
}

/// The finding for settings that no machine can have.
pub fn unsound(settings: &Settings) -> Option<Finding> {
    let why = settings.problem()?;
    let finding = Finding::new(finding::SETTING_INVALID, Severity::Error, "settings", why);
    Some(if name_problem(&settings.name).is_some() {
        finding.fix("--name NAME")
    } else if !(1..=MAX_PROCESSORS).contains(&settings.processors.count) {
        finding.fix("--processors N")
    } else if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&settings.memory.startup_mib) {
        finding.fix("--memory MIB")
    } else {
        finding
    })
}

/// Findings about checkpoints.
pub fn snapshots(names: &[String], listed: u64, request: &ImportRequest) -> Option<Finding> {
    let count = (names.len() as u64).max(listed);
    if count == 0 {
        return None;
    }
    let list = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let message = format!(
        "{count} checkpoint(s) stay behind; the machine comes in as its current state, flattened{list}"
    );
    Some(if request.without_snapshots {
        Finding::new(finding::SNAPSHOTS_LEFT, Severity::Info, "global_settings/snapshots", message)
    } else {
        Finding::new(finding::SNAPSHOTS_LEFT, Severity::Error, "global_settings/snapshots", message)
            .fix("--without-snapshots")
    })
}

/// The finding for a file system without room, if it has none.
pub fn space(request: &ImportRequest, target: &std::path::Path, needed: u64, free: u64) -> Option<Finding> {
    if request.mode == ImportMode::Register || needed <= free {
        return None;
    }
    Some(
        Finding::new(
            finding::NO_SPACE,
            Severity::Error,
            "disks",
            format!("the disks hold {needed} bytes of data and `{}` has {free} bytes free", target.display()),
        )
        .fix("--to DIR"),
    )
}
