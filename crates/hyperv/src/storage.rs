//! Controllers, drives and disks of a machine: `Msvm_ResourceAllocationSettingData` and
//! `Msvm_StorageAllocationSettingData`.
//!
//! A drive's id says where it is plugged in (`…\controller\number\slot\D`); what is in it has the same id with `L`.

use cim::{Instance, ObjectPath};
use machine::position::EMPTY_DRIVE;
use machine::settings::{Controller, ControllerKind, Drive, Media};
use uuid::Uuid;

use crate::ids;
use crate::owner::Machine;
use crate::world::World;

/// `ResourceSubType`s.
pub(crate) mod sub_type {
    pub(crate) const IDE_CONTROLLER: &str = "Microsoft:Hyper-V:Emulated IDE Controller";
    pub(crate) const SCSI_CONTROLLER: &str = "Microsoft:Hyper-V:Synthetic SCSI Controller";
    pub(crate) const DISKETTE_CONTROLLER: &str = "Microsoft:Hyper-V:Virtual Diskette Controller";
    pub(crate) const DISK_DRIVE: &str = "Microsoft:Hyper-V:Synthetic Disk Drive";
    pub(crate) const DVD_DRIVE: &str = "Microsoft:Hyper-V:Synthetic DVD Drive";
    pub(crate) const DISKETTE_DRIVE: &str = "Microsoft:Hyper-V:Synthetic Diskette Drive";
    pub(crate) const HARD_DISK: &str = "Microsoft:Hyper-V:Virtual Hard Disk";
    pub(crate) const DVD_DISK: &str = "Microsoft:Hyper-V:Virtual CD/DVD Disk";
}

fn controller_id(machine: &Machine, controller: &Controller) -> String {
    let instance = ids::guid(controller.instance);
    ids::part(machine.id(), &format!(r"{instance}\{}", controller.number))
}

fn drive_id(machine: &Machine, controller: &Controller, drive: &Drive) -> String {
    format!(r"{}\{}\D", controller_id(machine, controller), drive.slot)
}

/// A place on a controller, as an id names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) controller: Uuid,
    pub(crate) number: u32,
    pub(crate) slot: u32,
}

impl Place {
    /// The place in the id of a drive, or of what is in it.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('\\').skip(1);
        let place = Self {
            controller: Uuid::try_parse(parts.next()?).ok()?,
            number: parts.next()?.parse().ok()?,
            slot: parts.next()?.parse().ok()?,
        };
        (matches!(parts.next(), Some("D" | "L" | "d" | "l")) && parts.next().is_none()).then_some(place)
    }

    /// What is there.
    fn media<'m>(&self, machine: &'m Machine) -> Option<&'m Media> {
        let mut controllers = machine.settings().controllers.iter();
        let controller = controllers.find(|c| c.instance == self.controller && c.number == self.number)?;
        controller.drives.iter().find(|d| d.slot == self.slot).map(|d| &d.media)
    }

    pub(crate) fn is_dvd(&self, machine: &Machine) -> bool {
        matches!(self.media(machine), Some(Media::Dvd { .. }))
    }
}

/// The disk that the settings of that id are of.
pub(crate) fn disk_at(machine: &Machine, id: &str) -> Option<Uuid> {
    if ids::owner(id) != Some(machine.id()) {
        return None;
    }
    match Place::parse(id)?.media(machine)? {
        Media::Disk { disk } => Some(*disk),
        _ => None,
    }
}

/// What a guest may do with a medium: read and write a disk, read an image.
pub(crate) fn access(sub_type: &str) -> u16 {
    if sub_type == sub_type::DVD_DISK { 1 } else { 3 }
}

fn settings_path(world: &World, class: &str, id: &str) -> ObjectPath {
    world.path(class).with("InstanceID", id)
}

/// What all of them say.
pub(crate) fn allocation(
    class: &str,
    id: String,
    kind: u16,
    sub_type: &str,
    name: impl Into<String>,
) -> Instance {
    let name = name.into();
    Instance::new(class)
        .with("InstanceID", id)
        .with("ElementName", name.clone())
        .with("Caption", name.clone())
        .with("Description", format!("Settings for the {name}."))
        .with("ResourceType", kind)
        .with("ResourceSubType", sub_type)
        .with("PoolID", "")
        .with("ConsumerVisibility", 3_u16)
        .with("AllocationUnits", "count")
        .with("VirtualQuantity", 1_u64)
        .with("Reservation", 1_u64)
        .with("Limit", 1_u64)
        .with("Weight", 0_u32)
        .with("AutomaticAllocation", true)
        .with("AutomaticDeallocation", true)
}

pub(crate) fn resources(world: &World, machine: &Machine) -> Vec<Instance> {
    const CLASS: &str = "Msvm_ResourceAllocationSettingData";
    let mut all = Vec::new();
    for controller in &machine.settings().controllers {
        let id = controller_id(machine, controller);
        let (kind, sub_type, name) = match controller.kind {
            ControllerKind::Ide => {
                (5, sub_type::IDE_CONTROLLER, format!("IDE Controller {}", controller.number))
            }
            ControllerKind::Scsi => (6, sub_type::SCSI_CONTROLLER, "SCSI Controller".to_owned()),
            ControllerKind::Floppy => (1, sub_type::DISKETTE_CONTROLLER, "Diskette Controller".to_owned()),
        };
        let mut instance = allocation(CLASS, id.clone(), kind, sub_type, name);
        if controller.kind == ControllerKind::Ide {
            instance.set("Address", Some(controller.number.to_string().into()));
        }
        if controller.kind == ControllerKind::Scsi {
            instance.set(
                "VirtualSystemIdentifiers",
                Some(vec![format!("{{{}}}", ids::guid(controller.instance))].into()),
            );
        }
        all.push(instance);
        for drive in &controller.drives {
            let (kind, sub_type, name) = match &drive.media {
                Media::Disk { .. } => (17, sub_type::DISK_DRIVE, "Hard Drive"),
                Media::Dvd { .. } => (16, sub_type::DVD_DRIVE, "DVD Drive"),
                Media::Other { kind } if kind.to_lowercase().contains("floppy") => {
                    (14, sub_type::DISKETTE_DRIVE, "Diskette Drive")
                }
                Media::Other { kind } if kind == EMPTY_DRIVE => (17, sub_type::DISK_DRIVE, "Hard Drive"),
                Media::Other { .. } => (17, "Microsoft:Hyper-V:Physical Disk Drive", "Hard Drive"),
            };
            let slot = drive.slot.to_string();
            all.push(
                allocation(CLASS, drive_id(machine, controller, drive), kind, sub_type, name)
                    .with("Parent", settings_path(world, CLASS, &id).to_string())
                    .with("Address", slot.clone())
                    .with("AddressOnParent", slot)
                    // What is in it is the host's; a drive that the host gives as a whole is a physical one.
                    .with("HostResource", Vec::<String>::new()),
            );
        }
    }
    all
}

pub(crate) fn storage(world: &World, machine: &Machine) -> Vec<Instance> {
    let mut all = Vec::new();
    for controller in &machine.settings().controllers {
        for drive in &controller.drives {
            let (sub_type, name, file) = match &drive.media {
                Media::Disk { disk } => {
                    let disk = machine.disk(*disk);
                    let file =
                        disk.as_ref().and_then(|d| d.file).map(|file| world.settings.paths.shown(file));
                    // One that is missing is known by the path that names it in its configuration.
                    let file = file.or_else(|| disk?.source.map(str::to_owned));
                    (sub_type::HARD_DISK, "Hard Disk Image", file)
                }
                Media::Dvd { image: Some(image) } => {
                    (sub_type::DVD_DISK, "ISO Disk Image", Some(world.settings.paths.shown(image)))
                }
                Media::Dvd { image: None } | Media::Other { .. } => continue,
            };
            let parent = drive_id(machine, controller, drive);
            let mut id = parent.clone();
            id.truncate(parent.len() - 1);
            id.push('L');
            let parent = settings_path(world, "Msvm_ResourceAllocationSettingData", &parent);
            all.push(
                allocation("Msvm_StorageAllocationSettingData", id, 31, sub_type, name)
                    .with("Parent", parent.to_string())
                    .with("HostResource", file.into_iter().collect::<Vec<_>>())
                    .with("Access", access(sub_type))
                    .with("IOPSLimit", 0_u64)
                    .with("IOPSReservation", 0_u64)
                    .with("IOPSAllocationUnits", "count")
                    .with("PersistentReservationsSupported", false)
                    .with("CachingMode", 2_u16)
                    .with("IgnoreFlushes", false)
                    .with("WriteHardeningMethod", 0_u16),
            );
        }
    }
    all
}
