//! What of a guest's hardware a saved memory depends on, and how two of those differ.
//!
//! An engine loads a state into other hardware without noticing (QEMU does: more memory, one more device), and the guest
//! goes wrong later. So the hardware is written down when a state is saved, and compared before it is restored, here and
//! where a package with a state comes in. What may change beside a saved state is not in it: files, switches, names, the
//! boot order.

use engine::{Chipset, DiskBus, Firmware, GuestSpec, Mac, NicModel};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The hardware of a guest as its memory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The board.
    pub chipset: Chipset,
    /// `bios`, `uefi` or `uefi-secure-boot`.
    pub firmware: String,
    /// Virtual processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Hard disks, in order.
    #[serde(default)]
    pub disks: Vec<DiskLayout>,
    /// DVD drives, in order: bus and position.
    #[serde(default)]
    pub drives: Vec<(DiskBus, u32)>,
    /// Network adapters, in order: model and address.
    #[serde(default)]
    pub adapters: Vec<(NicModel, Mac)>,
    /// A TPM is there.
    #[serde(default)]
    pub tpm: bool,
    /// Serial ports.
    pub serial_ports: u32,
    /// Other devices that are there or not: `agent`, `balloon`, `vnc`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// System UUID that the firmware shows.
    pub uuid: Uuid,
}

/// A hard disk as a guest's memory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayout {
    /// Where it is attached.
    pub bus: DiskBus,
    /// Position on that bus.
    pub slot: u32,
    /// Bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub logical_sector: u32,
    /// Physical sector size in bytes.
    pub physical_sector: u32,
    /// Serial number.
    #[serde(default)]
    pub serial: Option<String>,
}

impl Layout {
    /// The layout of `spec`, whose disks have `sizes` bytes each.
    pub fn of(spec: &GuestSpec, sizes: &[u64]) -> Self {
        let devices = [("agent", spec.agent), ("balloon", spec.balloon), ("vnc", spec.vnc)];
        Self {
            chipset: spec.chipset,
            firmware: match spec.firmware {
                Firmware::Bios => "bios",
                Firmware::Uefi { secure_boot: false, .. } => "uefi",
                Firmware::Uefi { secure_boot: true, .. } => "uefi-secure-boot",
            }
            .to_owned(),
            processors: spec.cpus,
            memory_mib: spec.memory_mib,
            disks: (spec.disks.iter().zip(sizes))
                .map(|(d, size)| DiskLayout {
                    bus: d.bus,
                    slot: d.slot,
                    size: *size,
                    logical_sector: d.logical_sector,
                    physical_sector: d.physical_sector,
                    serial: d.serial.clone(),
                })
                .collect(),
            drives: spec.drives.iter().map(|d| (d.bus, d.slot)).collect(),
            adapters: spec.nics.iter().map(|n| (n.model, n.mac)).collect(),
            tpm: spec.tpm.is_some(),
            serial_ports: spec.serial_ports,
            devices: devices.iter().filter(|(_, there)| *there).map(|(name, _)| (*name).to_owned()).collect(),
            uuid: spec.system_uuid(),
        }
    }

    /// In what `now` differs from this, the layout of a saved state; `None` when the state fits.
    pub fn difference(&self, now: &Self) -> Option<String> {
        fn differ<T: PartialEq + std::fmt::Debug>(what: &str, was: &T, now: &T) -> Option<String> {
            (was != now).then(|| format!("{what}: {was:?} when it was saved, {now:?} now"))
        }
        let was = self;
        differ("chipset", &was.chipset, &now.chipset)
            .or_else(|| differ("firmware", &was.firmware, &now.firmware))
            .or_else(|| differ("processors", &was.processors, &now.processors))
            .or_else(|| differ("memory in MiB", &was.memory_mib, &now.memory_mib))
            .or_else(|| differ("number of disks", &was.disks.len(), &now.disks.len()))
            .or_else(|| {
                let mut pairs = was.disks.iter().zip(&now.disks).enumerate();
                pairs.find_map(|(n, (was, now))| differ(&format!("disk {n}"), was, now))
            })
            .or_else(|| differ("DVD drives", &was.drives, &now.drives))
            .or_else(|| differ("network adapters", &was.adapters, &now.adapters))
            .or_else(|| differ("TPM", &was.tpm, &now.tpm))
            .or_else(|| differ("serial ports", &was.serial_ports, &now.serial_ports))
            .or_else(|| differ("devices", &was.devices, &now.devices))
            .or_else(|| differ("system UUID", &was.uuid, &now.uuid))
    }
}

#[cfg(test)]
mod tests {
    use engine::{DiskSpec, TpmSpec};

    use super::*;

    type Change = fn(&mut GuestSpec);

    #[test]
    fn what_the_guest_would_notice_is_a_difference_and_nothing_else_is() {
        let mut spec = GuestSpec::new(Uuid::nil(), "m", "/run/m", Chipset::Q35);
        spec.disks.push(DiskSpec {
            id: "disk0".into(),
            layers: Vec::new(),
            bus: DiskBus::Ahci,
            slot: 0,
            logical_sector: 512,
            physical_sector: 4096,
            read_only: false,
            serial: None,
            boot_index: None,
        });
        let saved = Layout::of(&spec, &[1 << 30]);
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), saved);
        let noticed: [(Change, &str); 6] = [
            (|s| s.memory_mib *= 2, "memory"),
            (|s| s.cpus += 1, "processors"),
            (|s| s.disks[0].slot = 1, "disk 0"),
            (|s| s.disks.clear(), "number of disks"),
            (|s| s.tpm = Some(TpmSpec { state_dir: "/t".into() }), "TPM"),
            (|s| s.balloon = true, "devices"),
        ];
        for (change, word) in noticed {
            let mut now = spec.clone();
            change(&mut now);
            let said = saved.difference(&Layout::of(&now, &[1 << 30])).expect("noticed");
            assert!(said.starts_with(word), "{said}");
        }
        assert!(saved.difference(&Layout::of(&spec, &[2 << 30])).is_some_and(|d| d.contains("size")));
        spec.name = "other".into();
        spec.disks[0].boot_index = Some(1);
        assert_eq!(saved.difference(&Layout::of(&spec, &[1 << 30])), None);
    }
}
