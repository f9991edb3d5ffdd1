//! What a guest is made of, in the engine's own words.
//!
//! [`GuestSpec`] is the whole hardware of one guest: plain data, serialisable, so that the domain can keep the one
//! it started with. [`GuestSpec::validate`] refuses what no engine could build; it looks at the values only, never
//! at files or at the host (the engine that starts the guest does).
//!
//! What this leaves to others: which bus or NIC a guest *should* get (the domain decides that from what is on the
//! disk), and every word of QEMU's (those live in `qemu/`).

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most virtual processors a guest may have; the pinned PC machine types stop at 255.
pub const MAX_CPUS: u32 = 255;
/// Least memory that firmware of either kind comes up with, in MiB.
pub const MIN_MEMORY_MIB: u64 = 16;
/// Most memory a guest may have, in MiB (12 TiB, Hyper-V's own limit for generation 2).
pub const MAX_MEMORY_MIB: u64 = 12 * 1024 * 1024;
/// Most layers in a disk's chain.
pub const MAX_LAYERS: usize = 256;
/// Devices on the two IDE channels together.
pub const IDE_SLOTS: u32 = 4;
/// Ports over all AHCI controllers (four controllers of six ports).
pub const AHCI_SLOTS: u32 = 24;
/// NVMe disks of one guest.
pub const NVME_SLOTS: u32 = 6;
/// virtio-blk disks of one guest.
pub const VIRTIO_BLK_SLOTS: u32 = 8;
/// Targets on the virtio SCSI controller.
pub const VIRTIO_SCSI_SLOTS: u32 = 256;
/// Network adapters of one guest.
pub const MAX_NICS: usize = 8;
/// Serial ports of a PC (COM1 to COM4).
pub const MAX_SERIAL_PORTS: u32 = 4;
/// Longest serial number every disk bus can show, in bytes.
pub const MAX_SERIAL: usize = 20;
/// Longest serial number of a system, in bytes.
pub const MAX_SYSTEM_SERIAL: usize = 64;
/// Longest guest, disk, drive or adapter name, in bytes.
pub const MAX_NAME: usize = 1024;

/// The whole hardware of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Identity; the guest's firmware shows it as the system UUID.
    pub id: Uuid,
    /// What people call it. Shows up in process lists and on the display, nowhere else.
    pub name: String,
    /// A directory of this guest's own for sockets, logs and the record that finds it again. Made when absent.
    pub runtime_dir: PathBuf,
    /// The board.
    pub chipset: Chipset,
    /// The firmware.
    pub firmware: Firmware,
    /// Virtual processors, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The pinned machine version of an earlier start ([`Resolved::machine_version`]); `None` takes the newest.
    #[serde(default)]
    pub machine_version: Option<String>,
    /// The CPU model of an earlier start ([`Resolved::cpu_model`]); `None` takes the best the host offers.
    #[serde(default)]
    pub cpu_model: Option<String>,
    /// Hard disks.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// DVD drives.
    #[serde(default)]
    pub drives: Vec<DvdSpec>,
    /// Network adapters, in the order the guest meets them.
    #[serde(default)]
    pub nics: Vec<NicSpec>,
    /// A TPM 2.0, when the guest has one.
    #[serde(default)]
    pub tpm: Option<TpmSpec>,
    /// Serial ports, 0 to [`MAX_SERIAL_PORTS`]. The first is the console.
    #[serde(default = "one")]
    pub serial_ports: u32,
    /// How instructions are run.
    #[serde(default)]
    pub accel: Accel,
    /// Whether the guest agent's channel is there.
    #[serde(default)]
    pub agent: bool,
    /// Whether a VNC server listens on the guest's own Unix socket.
    #[serde(default)]
    pub vnc: bool,
    /// Whether a memory balloon is there.
    #[serde(default)]
    pub balloon: bool,
    /// What the hardware clock shows. Windows expects local time unless told otherwise.
    #[serde(default)]
    pub clock: Clock,
    /// What the firmware tells the guest about the machine it runs on.
    #[serde(default)]
    pub identity: Identity,
}

/// What the firmware tells a guest about its machine (SMBIOS type 1). Licences and management tools in the guest go by
/// it, so it must not change when a machine moves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// System UUID; the machine's own id where there is none.
    #[serde(default)]
    pub uuid: Option<Uuid>,
    /// System serial number, printable ASCII, at most [`MAX_SYSTEM_SERIAL`] bytes.
    #[serde(default)]
    pub serial: Option<String>,
}

fn one() -> u32 {
    1
}

/// The board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chipset {
    /// i440FX: IDE and conventional PCI. What generation 1 maps to.
    Pc,
    /// Q35: AHCI and PCI Express. What generation 2 maps to.
    Q35,
}

/// The firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi {
        /// Secure Boot with Microsoft's keys enrolled. Needs [`Chipset::Q35`].
        secure_boot: bool,
        /// This machine's own variable store; created from the host's template when absent.
        vars: PathBuf,
    },
}

/// How instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM where a probe proved that it works, else emulation.
    #[default]
    Auto,
    /// KVM or refuse.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What the hardware clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// Coordinated universal time.
    #[default]
    Utc,
    /// The host's local time.
    Local,
}

/// A hard disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// The caller's name for it, unique among disks and drives of the guest.
    pub id: String,
    /// Files, leaf first. Only the leaf is ever written.
    pub layers: Vec<LayerSpec>,
    /// Where it is attached.
    pub bus: DiskBus,
    /// Position on that bus, from 0, shared with DVD drives.
    pub slot: u32,
    /// Logical sector in bytes: 512 or 4096.
    #[serde(default = "sector_512")]
    pub logical_sector: u32,
    /// Physical sector in bytes: 512 or 4096, never below the logical one.
    #[serde(default = "sector_512")]
    pub physical_sector: u32,
    /// Whether the guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Serial number the guest sees, printable ASCII, at most [`MAX_SERIAL`] bytes.
    #[serde(default)]
    pub serial: Option<String>,
    /// Position in the boot order, lowest first, unique; `None` is never booted from.
    #[serde(default)]
    pub boot_index: Option<u32>,
}

fn sector_512() -> u32 {
    512
}

/// One file of a disk's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// The file.
    pub path: PathBuf,
    /// What is in it. Never guessed from the content: a guest could write another format's header into a raw disk.
    pub format: ImageFormat,
    /// Whether the file may not be written. Every layer under the leaf is held read-only whatever this says.
    #[serde(default)]
    pub read_only: bool,
}

/// What a disk image file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// The bytes themselves.
    Raw,
    /// QEMU's copy-on-write format, the only one that may lie over another layer.
    Qcow2,
    /// Hyper-V's VHDX, without a parent.
    Vhdx,
    /// VHD, without a parent.
    Vpc,
}

/// Where a disk or drive is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// Parallel ATA, [`IDE_SLOTS`] positions, only on [`Chipset::Pc`].
    Ide,
    /// Serial ATA, [`AHCI_SLOTS`] positions.
    Ahci,
    /// NVMe, [`NVME_SLOTS`] positions.
    Nvme,
    /// virtio-blk, [`VIRTIO_BLK_SLOTS`] positions.
    VirtioBlk,
    /// virtio SCSI, [`VIRTIO_SCSI_SLOTS`] positions.
    VirtioScsi,
}

impl DiskBus {
    /// How many positions the bus has.
    pub fn slots(self) -> u32 {
        match self {
            DiskBus::Ide => IDE_SLOTS,
            DiskBus::Ahci => AHCI_SLOTS,
            DiskBus::Nvme => NVME_SLOTS,
            DiskBus::VirtioBlk => VIRTIO_BLK_SLOTS,
            DiskBus::VirtioScsi => VIRTIO_SCSI_SLOTS,
        }
    }
}

/// A DVD drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DvdSpec {
    /// The caller's name for it, unique among disks and drives of the guest.
    pub id: String,
    /// Where it is attached: IDE, AHCI or virtio SCSI.
    pub bus: DiskBus,
    /// Position on that bus, shared with the disks.
    pub slot: u32,
    /// The ISO image in it.
    #[serde(default)]
    pub media: Option<PathBuf>,
    /// Position in the boot order, as for a disk.
    #[serde(default)]
    pub boot_index: Option<u32>,
}

/// A network adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// The caller's name for it, unique among adapters.
    pub id: String,
    /// What the guest sees.
    pub model: NicModel,
    /// The guest's address on the wire.
    pub mac: Mac,
    /// What the other end of the cable is.
    pub backend: NicBackend,
    /// Position in the boot order (network boot), as for a disk.
    #[serde(default)]
    pub boot_index: Option<u32>,
}

/// What the guest sees as its network adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek 8139.
    Rtl8139,
    /// virtio.
    VirtioNet,
}

/// What the other end of the cable is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicBackend {
    /// Nothing: the adapter is there and its link is down.
    None,
    /// NAT through the host, no privilege needed; the guest sees the host as 10.0.2.2.
    User,
    /// A bridge of the host.
    Bridge {
        /// Its interface name.
        name: String,
        /// The VLAN whose untagged port this is; `None` leaves the bridge's default.
        #[serde(default)]
        vlan: Option<u16>,
    },
    /// Other guests of this host on the same private switch, and nothing else.
    Private {
        /// The switch: guests that name the same directory share it.
        socket_dir: PathBuf,
    },
}

/// A MAC address, written `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Text that is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a MAC address: six hex bytes, like 00:15:5d:01:02:03")]
pub struct MacError {
    text: String,
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = MacError;

    /// Takes `00:15:5d:01:02:03`, `00-15-5D-01-02-03` and Hyper-V's `00155D010203`.
    fn from_str(text: &str) -> Result<Mac, MacError> {
        let bad = || MacError { text: text.chars().take(40).collect() };
        let hex: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        let separators = text.len() - hex.len();
        if hex.len() != 12 || !hex.is_ascii() || !(separators == 0 || separators == 5) {
            return Err(bad());
        }
        let mut mac = [0u8; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            let pair = hex.get(2 * i..2 * i + 2).ok_or_else(bad)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Mac(mac))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;
    fn try_from(text: String) -> Result<Mac, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// A TPM 2.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmSpec {
    /// Where its state lives; made when absent.
    pub state_dir: PathBuf,
}

/// What an engine chose where the specification left it open. Keep it and put it back into the next
/// [`GuestSpec`], so that the guest meets the same machine after an upgrade of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// For [`GuestSpec::machine_version`].
    pub machine_version: String,
    /// For [`GuestSpec::cpu_model`].
    pub cpu_model: String,
    /// What runs the instructions; never [`Accel::Auto`].
    pub accel: Accel,
}

/// A specification that no engine can build. Each names the field, so that an edge can point at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// The field, as a path: `disks[ide0].logical_sector`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

fn bad<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError { field: field.into(), problem: problem.into() })
}

impl GuestSpec {
    /// The UUID that the guest sees as its machine's, and QEMU as its own.
    pub fn system_uuid(&self) -> Uuid {
        self.identity.uuid.unwrap_or(self.id)
    }

    /// A guest with nothing but a board, a serial port and an agent channel.
    pub fn new(id: Uuid, name: impl Into<String>, runtime_dir: impl Into<PathBuf>, chipset: Chipset) -> Self {
        GuestSpec {
            id,
            name: name.into(),
            runtime_dir: runtime_dir.into(),
            chipset,
            firmware: Firmware::Bios,
            cpus: 1,
            memory_mib: 512,
            machine_version: None,
            cpu_model: None,
            disks: Vec::new(),
            drives: Vec::new(),
            nics: Vec::new(),
            tpm: None,
            serial_ports: 1,
            accel: Accel::Auto,
            agent: true,
            vnc: false,
            balloon: false,
            clock: Clock::Utc,
            identity: Identity::default(),
        }
    }

    /// Refuses what no engine could build.
    ///
    /// # Errors
    /// The first thing found wrong, in the order of the fields.
    pub fn validate(&self) -> Result<(), SpecError> {
        check_name("name", &self.name)?;
        if !self.runtime_dir.is_absolute() {
            return bad("runtime_dir", format!("{} is not an absolute path", self.runtime_dir.display()));
        }
        if let Firmware::Uefi { secure_boot, vars } = &self.firmware {
            if *secure_boot && self.chipset != Chipset::Q35 {
                return bad("firmware", "Secure Boot needs the q35 chipset");
            }
            if !vars.is_absolute() {
                return bad("firmware.vars", format!("{} is not an absolute path", vars.display()));
            }
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return bad("cpus", format!("{} is not between 1 and {MAX_CPUS}", self.cpus));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return bad(
                "memory_mib",
                format!("{} is not between {MIN_MEMORY_MIB} and {MAX_MEMORY_MIB}", self.memory_mib),
            );
        }
        // Both end up inside one comma-separated option, so their alphabet is a matter of safety.
        check_word("machine_version", self.machine_version.as_deref(), "")?;
        check_word("cpu_model", self.cpu_model.as_deref(), ",=+")?;
        if self.serial_ports > MAX_SERIAL_PORTS {
            return bad("serial_ports", format!("{} is more than {MAX_SERIAL_PORTS}", self.serial_ports));
        }
        if let Some(serial) = &self.identity.serial
            && (serial.len() > MAX_SYSTEM_SERIAL || !serial.bytes().all(|b| (b' '..=b'~').contains(&b)))
        {
            return bad(
                "identity.serial",
                format!("{serial:?} is not at most {MAX_SYSTEM_SERIAL} printable ASCII bytes"),
            );
        }
        self.validate_storage()?;
        self.validate_nics()?;
        self.validate_boot_order()?;
        if let Some(tpm) = &self.tpm
            && !tpm.state_dir.is_absolute()
        {
            return bad("tpm.state_dir", format!("{} is not an absolute path", tpm.state_dir.display()));
        }
        Ok(())
    }

    fn validate_storage(&self) -> Result<(), SpecError> {
        let mut ids = HashSet::new();
        let mut places = HashSet::new();
        let disks = self.disks.iter().map(|d| ("disks", &d.id, d.bus, d.slot));
        let drives = self.drives.iter().map(|d| ("drives", &d.id, d.bus, d.slot));
        for (list, id, bus, slot) in disks.chain(drives) {
            let at = |field: &str| format!("{list}[{id}].{field}");
            check_name(&at("id"), id)?;
            if !ids.insert(id) {
                return bad(at("id"), "another disk or drive has this id");
            }
            if bus == DiskBus::Ide && self.chipset != Chipset::Pc {
                return bad(at("bus"), "IDE exists only on the pc chipset; use ahci on q35");
            }
            if slot >= bus.slots() {
                return bad(
                    at("slot"),
                    format!("{slot} is beyond the {} positions of this bus", bus.slots()),
                );
            }
            if !places.insert((bus, slot)) {
                return bad(at("slot"), format!("position {slot} of this bus is already taken"));
            }
        }
        for disk in &self.disks {
            disk.validate()?;
        }
        for drive in &self.drives {
            let at = |field: &str| format!("drives[{}].{field}", drive.id);
            if matches!(drive.bus, DiskBus::Nvme | DiskBus::VirtioBlk) {
                return bad(at("bus"), "a DVD drive is on ide, ahci or virtio-scsi");
            }
            if let Some(media) = &drive.media
                && !media.is_absolute()
            {
                return bad(at("media"), format!("{} is not an absolute path", media.display()));
            }
        }
        Ok(())
    }

    fn validate_nics(&self) -> Result<(), SpecError> {
        if self.nics.len() > MAX_NICS {
            return bad("nics", format!("{} adapters are more than {MAX_NICS}", self.nics.len()));
        }
        let mut ids = HashSet::new();
        for nic in &self.nics {
            let at = |field: &str| format!("nics[{}].{field}", nic.id);
            check_name(&at("id"), &nic.id)?;
            if !ids.insert(&nic.id) {
                return bad(at("id"), "another adapter has this id");
            }
            if nic.mac.0[0] & 1 != 0 || nic.mac.0 == [0; 6] {
                return bad(at("mac"), format!("{} is not the address of a single adapter", nic.mac));
            }
            match &nic.backend {
                NicBackend::Bridge { name, vlan } => {
                    // IFNAMSIZ is 16 with the terminating zero; the kernel refuses '/', ':' and blanks.
                    if name.is_empty()
                        || name.len() > 15
                        || name == "."
                        || name == ".."
                        || !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b','))
                    {
                        return bad(at("backend"), format!("{name:?} cannot be the name of a bridge"));
                    }
                    if vlan.is_some_and(|v| !(1..=4094).contains(&v)) {
                        return bad(at("backend"), "a VLAN is between 1 and 4094");
                    }
                }
                NicBackend::Private { socket_dir } if !socket_dir.is_absolute() => {
                    return bad(at("backend"), format!("{} is not an absolute path", socket_dir.display()));
                }
                NicBackend::None | NicBackend::User | NicBackend::Private { .. } => {}
            }
        }
        Ok(())
    }

    fn validate_boot_order(&self) -> Result<(), SpecError> {
        let mut seen = HashSet::new();
        let all = (self.disks.iter().map(|d| ("disks", &d.id, d.boot_index)))
            .chain(self.drives.iter().map(|d| ("drives", &d.id, d.boot_index)))
            .chain(self.nics.iter().map(|n| ("nics", &n.id, n.boot_index)));
        for (list, id, index) in all {
            if let Some(index) = index
                && !seen.insert(index)
            {
                return bad(format!("{list}[{id}].boot_index"), format!("{index} is used twice"));
            }
        }
        Ok(())
    }
}

impl DiskSpec {
    /// Whether the guest may not write, by its own setting or by its leaf's.
    pub fn is_read_only(&self) -> bool {
        self.read_only || self.layers.first().is_some_and(|leaf| leaf.read_only)
    }

    fn validate(&self) -> Result<(), SpecError> {
        let at = |field: &str| format!("disks[{}].{field}", self.id);
        if self.layers.is_empty() {
            return bad(at("layers"), "a disk needs at least one file");
        }
        if self.layers.len() > MAX_LAYERS {
            return bad(at("layers"), format!("{} layers are more than {MAX_LAYERS}", self.layers.len()));
        }
        let mut paths = HashSet::new();
        for (i, layer) in self.layers.iter().enumerate() {
            if !layer.path.is_absolute() {
                return bad(at("layers"), format!("{} is not an absolute path", layer.path.display()));
            }
            if !paths.insert(&layer.path) {
                return bad(at("layers"), format!("{} is in the chain twice", layer.path.display()));
            }
            if i + 1 < self.layers.len() && layer.format != ImageFormat::Qcow2 {
                return bad(
                    at("layers"),
                    format!("{}: only a qcow2 file may lie over another layer", layer.path.display()),
                );
            }
        }
        for (field, sector) in
            [("logical_sector", self.logical_sector), ("physical_sector", self.physical_sector)]
        {
            if !matches!(sector, 512 | 4096) {
                return bad(at(field), format!("{sector} is neither 512 nor 4096"));
            }
        }
        if self.physical_sector < self.logical_sector {
            return bad(at("physical_sector"), "is smaller than the logical sector");
        }
        if self.logical_sector != 512 && matches!(self.bus, DiskBus::Ide | DiskBus::Ahci) {
            return bad(
                at("logical_sector"),
                "IDE and AHCI disks have 512-byte logical sectors; use nvme, virtio-blk or virtio-scsi",
            );
        }
        // An NVMe namespace and an ATA disk cannot be write-protected for the guest.
        if self.is_read_only() && matches!(self.bus, DiskBus::Ide | DiskBus::Ahci) {
            return bad(at("read_only"), "IDE and AHCI disks cannot be write-protected; use virtio-scsi");
        }
        if let Some(serial) = &self.serial
            && (serial.is_empty()
                || serial.len() > MAX_SERIAL
                || !serial.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
        {
            return bad(at("serial"), format!("{serial:?} is not 1 to {MAX_SERIAL} printable ASCII bytes"));
        }
        Ok(())
    }
}

fn check_name(field: &str, name: &str) -> Result<(), SpecError> {
    if name.is_empty() {
        return bad(field, "is empty");
    }
    if name.len() > MAX_NAME {
        return bad(field, format!("is longer than {MAX_NAME} bytes"));
    }
    if name.chars().any(char::is_control) {
        return bad(field, "holds control characters");
    }
    Ok(())
}

fn check_word(field: &str, word: Option<&str>, also: &str) -> Result<(), SpecError> {
    let Some(word) = word else { return Ok(()) };
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || also.contains(c);
    if word.is_empty() || word.len() > MAX_NAME || !word.chars().all(fine) {
        return bad(field, format!("{word:?} has characters that do not belong there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(chipset: Chipset) -> GuestSpec {
        GuestSpec::new(Uuid::nil(), "m", "/run/m", chipset)
    }

    fn disk(id: &str, bus: DiskBus, slot: u32) -> DiskSpec {
        DiskSpec {
            id: id.into(),
            layers: vec![LayerSpec {
                path: format!("/d/{id}.raw").into(),
                format: ImageFormat::Raw,
                read_only: false,
            }],
            bus,
            slot,
            logical_sector: 512,
            physical_sector: 4096,
            read_only: false,
            serial: None,
            boot_index: None,
        }
    }

    fn field(spec: &GuestSpec) -> String {
        spec.validate().expect_err("should be refused").field
    }

    #[test]
    fn buses_follow_the_chipset() {
        let mut s = spec(Chipset::Q35);
        s.disks.push(disk("a", DiskBus::Ide, 0));
        assert_eq!(field(&s), "disks[a].bus");
        s.chipset = Chipset::Pc;
        s.validate().unwrap();
        s.disks.push(disk("b", DiskBus::Ahci, 0));
        s.validate().unwrap();
    }

    #[test]
    fn ide_has_four_places_shared_with_drives() {
        let mut s = spec(Chipset::Pc);
        for slot in 0..3 {
            s.disks.push(disk(&format!("d{slot}"), DiskBus::Ide, slot));
        }
        s.drives.push(DvdSpec {
            id: "dvd".into(),
            bus: DiskBus::Ide,
            slot: 3,
            media: None,
            boot_index: None,
        });
        s.validate().unwrap();
        s.disks.push(disk("d4", DiskBus::Ide, 4));
        assert_eq!(field(&s), "disks[d4].slot");
        s.disks[3].slot = 3;
        assert_eq!(field(&s), "drives[dvd].slot");
    }

    #[test]
    fn four_kilobyte_sectors_need_a_bus_that_has_them() {
        for (bus, fine) in [
            (DiskBus::Ide, false),
            (DiskBus::Ahci, false),
            (DiskBus::Nvme, true),
            (DiskBus::VirtioBlk, true),
            (DiskBus::VirtioScsi, true),
        ] {
            let mut s = spec(Chipset::Pc);
            let mut d = disk("a", bus, 0);
            d.logical_sector = 4096;
            s.disks.push(d);
            assert_eq!(s.validate().is_ok(), fine, "{bus:?}");
        }
    }

    #[test]
    fn only_qcow2_lies_over_another_layer() {
        let mut s = spec(Chipset::Pc);
        let mut d = disk("a", DiskBus::Ide, 0);
        d.layers.push(LayerSpec { path: "/d/base".into(), format: ImageFormat::Raw, read_only: true });
        s.disks.push(d);
        assert_eq!(field(&s), "disks[a].layers");
        s.disks[0].layers[0].format = ImageFormat::Qcow2;
        s.validate().unwrap();
    }

    #[test]
    fn boot_order_is_unique_and_secure_boot_needs_q35() {
        let mut s = spec(Chipset::Pc);
        s.firmware = Firmware::Uefi { secure_boot: true, vars: "/v".into() };
        assert_eq!(field(&s), "firmware");
        s.chipset = Chipset::Q35;
        for (i, id) in ["a", "b"].into_iter().enumerate() {
            let mut d = disk(id, DiskBus::Ahci, i as u32);
            d.boot_index = Some(0);
            s.disks.push(d);
        }
        assert_eq!(field(&s), "disks[b].boot_index");
    }

    #[test]
    fn words_that_reach_a_command_line_are_plain() {
        let mut s = spec(Chipset::Pc);
        s.machine_version = Some("pc-i440fx-10.0,kernel=/etc/shadow".into());
        assert_eq!(field(&s), "machine_version");
    }

    #[test]
    fn macs_in_the_forms_people_write() {
        for text in ["00:15:5d:01:02:03", "00-15-5D-01-02-03", "00155D010203"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "00:15:5d:01:02:03");
        }
        for text in ["", "00155D0102", "00155D01020g", "+0155D010203", "00:155D010203", "日本日本"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_spec_survives_json_and_old_records_without_new_fields() {
        let mut s = spec(Chipset::Q35);
        s.disks.push(disk("a", DiskBus::VirtioScsi, 0));
        s.nics.push(NicSpec {
            id: "n".into(),
            model: NicModel::E1000e,
            mac: Mac([0, 0x15, 0x5d, 1, 2, 3]),
            backend: NicBackend::Bridge { name: "br0".into(), vlan: Some(5) },
            boot_index: None,
        });
        s.validate().unwrap();
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<GuestSpec>(&text).unwrap(), s);
        let old = r#"{"id":"00000000-0000-0000-0000-000000000000","name":"m","runtime_dir":"/run/m",
            "chipset":"pc","firmware":"bios","cpus":1,"memory_mib":512}"#;
        assert_eq!(serde_json::from_str::<GuestSpec>(old).unwrap().serial_ports, 1);
    }
}
