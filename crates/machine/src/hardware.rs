//! Which virtual hardware serves a machine's settings.
//!
//! Firmware and chipset follow the generation; disk bus and network adapter follow the *guest*: what it was prepared
//! for, or, where that is not known, what any guest can boot (IDE or AHCI, e1000 or e1000e). The result is in the
//! engine's words ([`engine::GuestSpec`]); how QEMU spells it is the engine's part.

use std::path::{Path, PathBuf};

use engine::{
    Accel, Chipset, Clock, DiskBus, DiskSpec, DvdSpec, Firmware, GuestSpec, Identity, LayerSpec, NicBackend,
    NicModel, NicSpec, TpmSpec,
};
use uuid::Uuid;

use crate::disk::DiskRecord;
use crate::record::MachineRecord;
use crate::settings::{
    Adapter, BootDevice, ControllerKind, Generation, Hardware, Mac, Media, Profile, Settings,
};
use crate::switch::{SwitchKind, SwitchRecord};

/// Where a machine's own files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Kept files: firmware variables, TPM state.
    pub home: PathBuf,
    /// Sockets and logs of the running guest.
    pub runtime: PathBuf,
    /// Root under which private switches have their sockets.
    pub switches: PathBuf,
}

/// File name of a machine's UEFI variables in its home.
pub(crate) const VARIABLES: &str = "uefi-vars.fd";

impl Places {
    /// The machine's UEFI variables.
    pub fn variables(&self) -> PathBuf {
        self.home.join(VARIABLES)
    }

    /// The machine's TPM state.
    pub fn tpm(&self) -> PathBuf {
        self.home.join("tpm")
    }
}

/// Why settings cannot become hardware.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardwareError {
    /// A disk that the settings name has no record.
    #[error("disk {0} of the machine has no record")]
    NoDisk(Uuid),
    /// A disk has no file.
    #[error("disk `{0}` has no file")]
    NoLayer(String),
    /// A switch is gone.
    #[error("switch `{name}` of adapter `{adapter}` does not exist")]
    NoSwitch {
        /// The switch.
        name: String,
        /// The adapter.
        adapter: String,
    },
}

/// The bus for a machine's disks: what was chosen, else what the profile and the generation give.
pub fn disk_bus(generation: Generation, hardware: Hardware) -> DiskBus {
    hardware.disk_bus.unwrap_or(match (hardware.profile, generation) {
        (Profile::Virtio, _) => DiskBus::VirtioScsi,
        (Profile::Compat, Generation::One) => DiskBus::Ide,
        (Profile::Compat, Generation::Two) => DiskBus::Ahci,
    })
}

/// The model for a machine's adapters.
pub fn nic_model(generation: Generation, hardware: Hardware) -> NicModel {
    hardware.nic_model.unwrap_or(match (hardware.profile, generation) {
        (Profile::Virtio, _) => NicModel::VirtioNet,
        (Profile::Compat, Generation::One) => NicModel::E1000,
        (Profile::Compat, Generation::Two) => NicModel::E1000e,
    })
}

/// The address of an adapter: its own, or one derived from the two ids in Hyper-V's range (00-15-5D), so that it is the
/// same at every start and another after an import under a new id.
pub fn mac(machine: Uuid, adapter: &Adapter) -> Mac {
    adapter.mac.unwrap_or_else(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(machine.as_bytes()).update(adapter.instance.as_bytes());
        let hash = hasher.finalize();
        let [a, b, c, ..] = *hash.as_bytes();
        Mac([0x00, 0x15, 0x5d, a, b, c])
    })
}

/// Most devices on QEMU's two IDE channels.
const IDE_POSITIONS: u32 = 4;

/// The guest for `record`.
///
/// # Errors
/// A disk or switch that the settings name does not exist.
pub fn guest(
    record: &MachineRecord,
    disks: &[DiskRecord],
    switches: &[SwitchRecord],
    places: &Places,
) -> Result<GuestSpec, HardwareError> {
    let settings = &record.settings;
    let (disk_specs, dvds) = drives(settings, disks)?;
    Ok(GuestSpec {
        id: record.id,
        name: settings.name.clone(),
        runtime_dir: places.runtime.clone(),
        chipset: match settings.generation {
            Generation::One => Chipset::Pc,
            Generation::Two => Chipset::Q35,
        },
        firmware: match settings.generation {
            Generation::One => Firmware::Bios,
            Generation::Two => {
                Firmware::Uefi { secure_boot: settings.firmware.secure_boot, vars: places.variables() }
            }
        },
        cpus: settings.processors.count,
        memory_mib: settings.memory.startup_mib,
        machine_version: record.resolved.as_ref().map(|r| r.machine_version.clone()),
        cpu_model: record.resolved.as_ref().map(|r| r.cpu_model.clone()),
        disks: disk_specs,
        drives: dvds,
        nics: nics(record.id, settings, switches, &places.switches)?,
        tpm: settings.tpm.then(|| TpmSpec { state_dir: places.tpm() }),
        serial_ports: 1,
        accel: Accel::Auto,
        agent: true,
        vnc: true,
        balloon: false,
        clock: Clock::Utc,
        identity: Identity {
            uuid: settings.firmware.bios_id,
            // Hyper-V's serial numbers are plain digits; anything else is kept in the configuration only.
            serial: settings.firmware.serial_number.clone().filter(|s| {
                s.len() <= engine::spec::MAX_SYSTEM_SERIAL && s.bytes().all(|b| b.is_ascii_graphic())
            }),
        },
    })
}

/// Boot index of a device of class `class`: classes in the settings' order, a hundred apart, then the slot.
fn boot_index(settings: &Settings, class: BootDevice, nth: u32) -> Option<u32> {
    let at = settings.firmware.boot_order.iter().position(|d| *d == class)?;
    Some(u32::try_from(at).ok()? * 100 + nth + 1)
}

fn drives(settings: &Settings, disks: &[DiskRecord]) -> Result<(Vec<DiskSpec>, Vec<DvdSpec>), HardwareError> {
    let bus = disk_bus(settings.generation, settings.hardware);
    // An emulated controller of the chipset carries the DVD drives whatever the disks sit on: every guest reads those.
    let dvd_bus = match settings.generation {
        Generation::One => DiskBus::Ide,
        Generation::Two => DiskBus::Ahci,
    };
    let mut disk_specs: Vec<DiskSpec> = Vec::new();
    let mut dvds: Vec<DvdSpec> = Vec::new();
    // IDE positions are scarce and mean something (generation 1 boots from 0:0): keep the configuration's own first.
    let mut ide_taken = vec![false; IDE_POSITIONS as usize];
    let take = |taken: &mut Vec<bool>, wanted: Option<u32>| -> Option<u32> {
        let free = |taken: &Vec<bool>, n: u32| taken.get(n as usize) == Some(&false);
        let n =
            wanted.filter(|n| free(taken, *n)).or_else(|| (0..IDE_POSITIONS).find(|n| free(taken, *n)))?;
        taken[n as usize] = true;
        Some(n)
    };
    for controller in settings.controllers.iter().filter(|c| c.kind != ControllerKind::Floppy) {
        for drive in &controller.drives {
            let wanted =
                (controller.kind == ControllerKind::Ide).then_some(controller.number * 2 + drive.slot);
            match &drive.media {
                Media::Disk { disk } => {
                    let record = disks.iter().find(|d| d.id == *disk).ok_or(HardwareError::NoDisk(*disk))?;
                    if record.layers.is_empty() {
                        return Err(HardwareError::NoLayer(record.name.clone()));
                    }
                    let nth = disk_specs.len() as u32;
                    let (bus, slot) = match bus {
                        DiskBus::Ide => match take(&mut ide_taken, wanted) {
                            Some(n) => (DiskBus::Ide, n),
                            // More disks than IDE has room for: an AHCI controller beside it.
                            None => (DiskBus::Ahci, ahci_slot(&disk_specs, &dvds)),
                        },
                        DiskBus::Ahci => (DiskBus::Ahci, ahci_slot(&disk_specs, &dvds)),
                        other => (other, nth),
                    };
                    disk_specs.push(DiskSpec {
                        id: format!("disk{nth}"),
                        layers: record
                            .layers
                            .iter()
                            .enumerate()
                            .map(|(n, l)| LayerSpec {
                                path: l.path.clone(),
                                format: l.format,
                                read_only: n > 0,
                            })
                            .collect(),
                        bus,
                        slot,
                        logical_sector: record.logical_sector_size,
                        physical_sector: record.physical_sector_size,
                        read_only: false,
                        serial: record
                            .serial
                            .clone()
                            .or_else(|| Some(record.id.simple().to_string()[..20].to_owned())),
                        boot_index: boot_index(settings, BootDevice::HardDrive, nth),
                    });
                }
                Media::Dvd { image } => {
                    let nth = dvds.len() as u32;
                    let slot = match dvd_bus {
                        DiskBus::Ide => match take(&mut ide_taken, wanted) {
                            Some(n) => n,
                            None => continue,
                        },
                        _ => ahci_slot(&disk_specs, &dvds),
                    };
                    dvds.push(DvdSpec {
                        id: format!("dvd{nth}"),
                        bus: dvd_bus,
                        slot,
                        media: image.clone(),
                        boot_index: boot_index(settings, BootDevice::Optical, nth),
                    });
                }
                Media::Other { .. } => {}
            }
        }
    }
    Ok((disk_specs, dvds))
}

fn ahci_slot(disks: &[DiskSpec], dvds: &[DvdSpec]) -> u32 {
    let ahci = |b: DiskBus| u32::from(b == DiskBus::Ahci);
    disks.iter().map(|d| ahci(d.bus)).sum::<u32>() + dvds.iter().map(|d| ahci(d.bus)).sum::<u32>()
}

fn nics(
    machine: Uuid,
    settings: &Settings,
    switches: &[SwitchRecord],
    sockets: &Path,
) -> Result<Vec<NicSpec>, HardwareError> {
    let model = nic_model(settings.generation, settings.hardware);
    settings
        .adapters
        .iter()
        .enumerate()
        .map(|(n, adapter)| {
            let backend = match &adapter.switch {
                None => NicBackend::None,
                Some(name) => {
                    let switch = switches.iter().find(|s| s.name == *name).ok_or_else(|| {
                        HardwareError::NoSwitch { name: name.clone(), adapter: adapter.name.clone() }
                    })?;
                    match &switch.kind {
                        SwitchKind::External { bridge } => {
                            NicBackend::Bridge { name: bridge.clone(), vlan: adapter.vlan }
                        }
                        SwitchKind::Nat => NicBackend::User,
                        SwitchKind::Private => {
                            NicBackend::Private { socket_dir: sockets.join(switch.id.simple().to_string()) }
                        }
                    }
                }
            };
            Ok(NicSpec {
                id: format!("nic{n}"),
                // Hyper-V's emulated adapter is there for guests without drivers: it keeps the plainest model.
                model: if adapter.legacy && settings.hardware.nic_model.is_none() {
                    NicModel::Rtl8139
                } else {
                    model
                },
                mac: mac(machine, adapter),
                backend,
                boot_index: boot_index(settings, BootDevice::Network, n as u32),
            })
        })
        .collect()
}
