//! What a machine is made of, in the domain's words.
//!
//! [`Settings`] is the typed part of a machine's configuration: what Slipway understands, edits and gives a guest.
//! It comes from a Hyper-V configuration tree through [`crate::config`] and goes back through it, where everything that
//! is *not* typed here is kept verbatim. Which virtual hardware serves these settings is decided in [`crate::hardware`].

use std::path::PathBuf;
use std::str::FromStr;

pub use engine::Mac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Largest number of virtual processors Hyper-V gives a machine (2,048 since Server 2025, generation 2).
pub const MAX_PROCESSORS: u32 = 2048;
/// Largest memory Hyper-V gives a machine, in MiB (240 TiB since Server 2025).
pub const MAX_MEMORY_MIB: u64 = 240 << 20;
/// Smallest memory Hyper-V accepts, in MiB.
pub const MIN_MEMORY_MIB: u64 = 32;
/// Longest machine name in bytes, so that `<name>.partial` stays a legal file name.
pub const MAX_NAME_BYTES: usize = 240;
/// Longest name of a port in bytes: as much as is read of one in a configuration.
pub const MAX_PORT_NAME_BYTES: usize = 1024;
/// Most storage controllers of one machine that are read from a configuration (2 IDE + 4 SCSI + floppy, with room).
pub const MAX_CONTROLLERS: usize = 64;
/// Most drives on one controller (a Hyper-V SCSI controller has 64).
pub const MAX_DRIVES: usize = 64;
/// Most network adapters of one machine (8 synthetic + 4 legacy, with room).
pub const MAX_ADAPTERS: usize = 64;

/// Hyper-V's machine generation: which firmware the guest was installed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// BIOS, IDE boot (`subtype` 0).
    One,
    /// UEFI, SCSI boot (`subtype` 1).
    Two,
}

impl Generation {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// Everything typed about a machine. Field groups follow Hyper-V's setting classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Name shown to people; not unique, 1 to [`MAX_NAME_BYTES`] bytes.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub notes: String,
    /// Firmware generation; fixed for the machine's life.
    pub generation: Generation,
    /// Hyper-V configuration version times 256 (2304 = 9.0).
    pub config_version: i64,
    /// Virtual processors.
    pub processors: Processors,
    /// Memory.
    pub memory: Memory,
    /// Firmware.
    pub firmware: Firmware,
    /// Storage controllers in slot order: IDE first, then SCSI.
    pub controllers: Vec<Controller>,
    /// Network adapters.
    pub adapters: Vec<Adapter>,
    /// A virtual TPM is present.
    #[serde(default)]
    pub tpm: bool,
    /// What happens when the host starts and stops.
    pub automatic: Automatic,
    /// Ours: the virtual hardware the guest is given, where somebody chose it.
    #[serde(default)]
    pub hardware: Hardware,
}

/// Virtual processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processors {
    /// How many, 1 to [`MAX_PROCESSORS`].
    pub count: u32,
    /// Nested virtualisation was asked for.
    #[serde(default)]
    pub nested: bool,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// At start, in MiB.
    pub startup_mib: u64,
    /// Hyper-V's dynamic memory was on. Slipway gives the startup amount.
    #[serde(default)]
    pub dynamic: bool,
    /// Dynamic memory's lower bound in MiB.
    #[serde(default)]
    pub minimum_mib: u64,
    /// Dynamic memory's upper bound in MiB.
    #[serde(default)]
    pub maximum_mib: u64,
}

/// Firmware settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Secure Boot (generation 2 only).
    #[serde(default)]
    pub secure_boot: bool,
    /// Hyper-V's Secure Boot template, upper-case GUID, when one is named.
    #[serde(default)]
    pub secure_boot_template: Option<String>,
    /// Device classes in boot order.
    #[serde(default)]
    pub boot_order: Vec<BootDevice>,
    /// SMBIOS system UUID shown to the guest.
    #[serde(default)]
    pub bios_id: Option<Uuid>,
    /// SMBIOS serial number shown to the guest.
    #[serde(default)]
    pub serial_number: Option<String>,
}

/// A class of boot device, spelled in a configuration as here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BootDevice {
    /// CD or DVD.
    Optical,
    /// A disk.
    HardDrive,
    /// PXE.
    Network,
    /// Diskette.
    Floppy,
}

impl BootDevice {
    /// The spelling in a configuration tree.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optical => "Optical",
            Self::HardDrive => "HardDrive",
            Self::Network => "Network",
            Self::Floppy => "Floppy",
        }
    }
}

impl FromStr for BootDevice {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Optical, Self::HardDrive, Self::Network, Self::Floppy]
            .into_iter()
            .find(|d| d.as_str().eq_ignore_ascii_case(s))
            .ok_or(())
    }
}

/// A storage controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Which kind.
    pub kind: ControllerKind,
    /// Device instance id in the configuration (fixed for IDE and floppy, random for SCSI).
    pub instance: Uuid,
    /// Number among the `controllerN` nodes of its instance (IDE has 0 and 1).
    pub number: u32,
    /// What is plugged in, by ascending slot.
    pub drives: Vec<Drive>,
}

/// Kind of a [`Controller`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControllerKind {
    /// Emulated IDE (generation 1).
    Ide,
    /// Synthetic SCSI.
    Scsi,
    /// Diskette (generation 1).
    Floppy,
}

/// One slot of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// Slot (`driveN`).
    pub slot: u32,
    /// What is in it.
    pub media: Media,
}

/// What a [`Drive`] holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Media {
    /// A virtual disk: the id of a [`crate::disk::DiskRecord`].
    Disk {
        /// The disk.
        disk: Uuid,
    },
    /// A DVD drive, perhaps with an image.
    Dvd {
        /// The image on this host.
        #[serde(default)]
        image: Option<PathBuf>,
    },
    /// Something that is kept in the configuration but that Slipway gives no guest (floppy, pass-through disk, …).
    Other {
        /// The configuration's own word for it.
        kind: String,
    },
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Device instance id in the configuration.
    pub instance: Uuid,
    /// Name shown to people.
    pub name: String,
    /// MAC address; `None` until the first start assigns one.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The address was set by hand and is kept on every move.
    #[serde(default)]
    pub mac_static: bool,
    /// Name of the switch of this host it is plugged into.
    #[serde(default)]
    pub switch: Option<String>,
    /// Name of the switch in the configuration it came with.
    #[serde(default)]
    pub source_switch: Option<String>,
    /// What its port at the switch is called, where somebody named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Access VLAN, 1 to 4094.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Hyper-V's emulated ("legacy") adapter.
    #[serde(default)]
    pub legacy: bool,
}

/// `00-15-5D-01-02-03`, the spelling of a Hyper-V configuration.
pub fn hyphenated(mac: Mac) -> String {
    mac.0.map(|b| format!("{b:02X}")).join("-")
}

/// What happens to the machine when its host starts or stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Automatic {
    /// At host start.
    pub start: AutomaticStart,
    /// Seconds to wait before an automatic start.
    #[serde(default)]
    pub start_delay_seconds: u32,
    /// At host shutdown.
    pub stop: AutomaticStop,
}

/// Action at host start; the numbers are Hyper-V's `power/host_startup/action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutomaticStart {
    /// Stay off (0).
    Nothing,
    /// Start if it was running when the host stopped (1).
    Restart,
    /// Always start (2).
    Always,
}

/// Action at host shutdown; the numbers are Hyper-V's `power/host_shutdown/action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutomaticStop {
    /// Turn off (0).
    TurnOff,
    /// Save the state (1).
    Save,
    /// Shut the guest down (2).
    Shutdown,
}

/// Virtual hardware chosen by somebody; `None` follows the guest and the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Which family of devices.
    #[serde(default)]
    pub profile: Profile,
    /// Disk bus for all disks.
    #[serde(default)]
    pub disk_bus: Option<engine::DiskBus>,
    /// Adapter model for all adapters.
    #[serde(default)]
    pub nic_model: Option<engine::NicModel>,
}

/// A family of virtual devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What a guest without added drivers can use: IDE or AHCI, e1000 or e1000e.
    #[default]
    Compat,
    /// Fast paravirtual devices, for guests that have the drivers.
    Virtio,
}

impl Settings {
    /// Settings of a new machine, as Hyper-V's own defaults are: one processor, 1,024 MiB, Secure Boot on generation 2.
    pub fn new(name: impl Into<String>, generation: Generation) -> Self {
        let two = generation == Generation::Two;
        Self {
            name: name.into(),
            notes: String::new(),
            generation,
            config_version: 0x0900,
            processors: Processors { count: 1, nested: false },
            memory: Memory { startup_mib: 1024, dynamic: false, minimum_mib: 512, maximum_mib: 1 << 20 },
            firmware: Firmware {
                secure_boot: two,
                secure_boot_template: two.then(|| "1734C6E8-3154-4DDA-BA5F-A874CC483422".to_owned()),
                boot_order: vec![
                    BootDevice::Optical,
                    BootDevice::HardDrive,
                    BootDevice::Network,
                    BootDevice::Floppy,
                ],
                bios_id: Some(Uuid::new_v4()),
                serial_number: None,
            },
            controllers: Vec::new(),
            adapters: Vec::new(),
            tpm: false,
            automatic: Automatic {
                start: AutomaticStart::Restart,
                start_delay_seconds: 0,
                stop: AutomaticStop::Save,
            },
            hardware: Hardware::default(),
        }
    }

    /// Every disk with the controller and slot it sits in, in boot order of the slots.
    pub fn disks(&self) -> impl Iterator<Item = (&Controller, u32, Uuid)> {
        self.controllers.iter().flat_map(|c| {
            c.drives.iter().filter_map(move |d| match d.media {
                Media::Disk { disk } => Some((c, d.slot, disk)),
                _ => None,
            })
        })
    }

    /// The first rule that the settings break, as a sentence; `None` when they are sound.
    pub fn problem(&self) -> Option<String> {
        if let Some(why) = name_problem(&self.name) {
            return Some(why);
        }
        if self.processors.count == 0 || self.processors.count > MAX_PROCESSORS {
            return Some(format!(
                "processor count {} is outside 1 to {MAX_PROCESSORS}",
                self.processors.count
            ));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory.startup_mib) {
            return Some(format!(
                "memory of {} MiB is outside {MIN_MEMORY_MIB} MiB to {MAX_MEMORY_MIB} MiB",
                self.memory.startup_mib
            ));
        }
        if let Some(a) = self.adapters.iter().find(|a| a.vlan.is_some_and(|v| v == 0 || v > 4094)) {
            return Some(format!("VLAN of adapter `{}` is outside 1 to 4094", a.name));
        }
        let too_long = |name: &str| name.len() > MAX_PORT_NAME_BYTES;
        if let Some(a) = self.adapters.iter().find(|a| a.port.as_deref().is_some_and(too_long)) {
            return Some(format!(
                "the port of adapter `{}` is called by more than {MAX_PORT_NAME_BYTES} bytes",
                a.name
            ));
        }
        if self.firmware.secure_boot && self.generation == Generation::One {
            return Some("Secure Boot needs generation 2".to_owned());
        }
        None
    }
}

/// Why `name` cannot name a machine; `None` when it can.
///
/// A name becomes a folder name in packages and appears in terminals: no path separators, no control characters, not
/// `.` or `..`. Anything else, in any script, is allowed.
pub fn name_problem(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        return Some("a machine name cannot be empty".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Some(format!("a machine name has at most {MAX_NAME_BYTES} bytes, this one {}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Some("a machine name cannot hold control characters".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_spelled_as_hyper_v_does() {
        assert_eq!(hyphenated(Mac([0, 0x15, 0x5d, 10, 11, 12])), "00-15-5D-0A-0B-0C");
    }

    #[test]
    fn new_settings_are_sound_and_broken_ones_are_named() {
        let good = Settings::new("a", Generation::Two);
        assert_eq!(good.problem(), None);
        for (change, word) in [
            ((|s: &mut Settings| s.name = " ".into()) as fn(&mut Settings), "name"),
            (|s| s.processors.count = 0, "processor"),
            (|s| s.memory.startup_mib = 1, "memory"),
            (|s| s.generation = Generation::One, "Secure Boot"),
        ] {
            let mut s = good.clone();
            change(&mut s);
            assert!(s.problem().is_some_and(|p| p.contains(word)), "{word}");
        }
    }
}
