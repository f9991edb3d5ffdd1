//! Controllers, drives and what is in them, as devices of a machine that has a guest.
//!
//! They are told in Hyper-V's terms: that a guest may see another controller ([`machine::hardware`]) is not. A place that no
//! guest sees, as one without a disk, is no device.

use cim::Instance;
use machine::settings::{Controller, ControllerKind, Media};

use crate::association::{Association, all, end};
use crate::ids;
use crate::integration::device;
use crate::owner::{Machine, Scope};
use crate::storage;
use crate::world::World;

/// What is in a place that a guest sees.
enum Seen<'m> {
    Disk(uuid::Uuid),
    Dvd(Option<&'m std::path::Path>),
}

/// The places that a guest sees, each with the end of its id, which a drive and its medium follow with a letter.
fn places(machine: &Machine) -> Vec<(String, Seen<'_>)> {
    let mut all = Vec::new();
    if !machine.alive() {
        return all;
    }
    for controller in &machine.settings().controllers {
        for drive in &controller.drives {
            let seen = match &drive.media {
                Media::Disk { disk } => Seen::Disk(*disk),
                Media::Dvd { image } => Seen::Dvd(image.as_deref()),
                Media::Other { .. } => continue,
            };
            all.push((format!(r"{}\{}", controller_id(controller), drive.slot), seen));
        }
    }
    all
}

fn controller_id(controller: &Controller) -> String {
    format!(r"{}\{}", ids::guid(controller.instance), controller.number)
}

fn controllers(machine: &Machine, class: &'static str, kind: ControllerKind) -> Vec<Instance> {
    let all = machine.settings().controllers.iter().filter(|c| machine.alive() && c.kind == kind);
    all.map(|controller| {
        let name = match kind {
            ControllerKind::Ide => format!("IDE Controller {}", controller.number),
            _ => "SCSI Controller".to_owned(),
        };
        device(machine, class, &controller_id(controller), &name).with("EnabledState", 2_u16)
    })
    .collect()
}

pub(crate) fn ide_controllers(_: &World, machine: &Machine) -> Vec<Instance> {
    controllers(machine, "Msvm_IDEController", ControllerKind::Ide)
}

pub(crate) fn scsi_controllers(_: &World, machine: &Machine) -> Vec<Instance> {
    let all = controllers(machine, "Msvm_SCSIProtocolController", ControllerKind::Scsi).into_iter();
    // The slots that it has.
    all.map(|one| one.with("MaxUnitsControlled", 64_u32)).collect()
}

fn drive(machine: &Machine, class: &'static str, place: &str, name: &str) -> Instance {
    device(machine, class, &format!(r"{place}\D"), name).with("EnabledState", 2_u16)
}

pub(crate) fn disk_drives(_: &World, machine: &Machine) -> Vec<Instance> {
    // In KiB.
    const MAX_DISK: u64 = machine::define::MAX_DISK >> 10;
    let places = places(machine).into_iter().filter(|(_, seen)| matches!(seen, Seen::Disk(_)));
    let one =
        |place: String| drive(machine, "Msvm_DiskDrive", &place, "Hard Drive").with("MaxMediaSize", MAX_DISK);
    places.map(|(place, _)| one(place)).collect()
}

pub(crate) fn dvd_drives(_: &World, machine: &Machine) -> Vec<Instance> {
    let places = places(machine).into_iter().filter(|(_, seen)| matches!(seen, Seen::Dvd(_)));
    places.map(|(place, _)| drive(machine, "Msvm_DVDDrive", &place, "DVD Drive")).collect()
}

/// What is in the drives: disks, and images of discs.
pub(crate) fn logical_disks(_: &World, machine: &Machine) -> Vec<Instance> {
    let one = |(place, seen): (String, Seen<'_>)| {
        let (name, sub_type, block, size) = match seen {
            Seen::Disk(id) => {
                let disk = machine.real()?.disks.iter().find(|disk| disk.id == id)?;
                let sector = u64::from(disk.logical_sector_size);
                ("Hard Disk Image", storage::sub_type::HARD_DISK, sector, Some(disk.virtual_size))
            }
            Seen::Dvd(image) => {
                let size = std::fs::metadata(image?).ok().map(|file| file.len());
                ("ISO Disk Image", storage::sub_type::DVD_DISK, 2048, size)
            }
        };
        let mut disk = device(machine, "Msvm_LogicalDisk", &format!(r"{place}\L"), name)
            .with("EnabledState", 2_u16)
            .with("Access", storage::access(sub_type))
            .with("BlockSize", block);
        for property in ["NumberOfBlocks", "ConsumableBlocks"] {
            disk.set(property, size.map(|size| size.div_ceil(block.max(1)).into()));
        }
        Some(disk)
    };
    places(machine).into_iter().filter_map(one).collect()
}

fn device_id(device: &Instance) -> &str {
    device.text("DeviceID").unwrap_or_default()
}

/// Whether a drive is at a controller.
fn controls(controller: &Instance, drive: &Instance) -> bool {
    device_id(drive).strip_prefix(device_id(controller)).is_some_and(|rest| rest.starts_with('\\'))
}

/// Which slot of its controller a drive is in.
fn slot(_: &Instance, drive: &Instance, association: &mut Instance) {
    let slot = device_id(drive).rsplit('\\').nth(1).map(str::to_owned);
    association.set("DeviceNumber", slot.map(Into::into));
}

/// Which drives are at which controllers, and what is in them.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_ControlledBy",
        end("Antecedent", "Msvm_IDEController", Scope::Machine),
        end("Dependent", "CIM_MediaAccessDevice", Scope::Machine),
    )
    .when(controls)
    .saying(slot),
    all(
        "Msvm_ProtocolControllerForUnit",
        end("Antecedent", "Msvm_SCSIProtocolController", Scope::Machine),
        end("Dependent", "CIM_MediaAccessDevice", Scope::Machine),
    )
    .when(controls)
    .saying(slot),
    all(
        "Msvm_MediaPresent",
        end("Antecedent", "CIM_MediaAccessDevice", Scope::Machine),
        end("Dependent", "Msvm_LogicalDisk", Scope::Machine),
    )
    .when(|drive, disk| device_id(drive).strip_suffix('D') == device_id(disk).strip_suffix('L')),
];
