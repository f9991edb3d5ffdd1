//! Firmware: `Msvm_BIOSElement`, and what a machine of generation 2 boots from, source by source.
//!
//! A machine boots by kinds of devices, in an order of its settings, and within a kind by place. Hyper-V's order is one of
//! single sources; an order of those is taken where it says the same.

use cim::{Instance, ObjectPath, Value};
use machine::Reason;
use machine::settings::{BootDevice, Generation, Media};

use crate::association::{Association, all, end};
use crate::ids;
use crate::method::{Refused, invalid};
use crate::owner::{Machine, Scope};
use crate::setting;
use crate::world::World;

const SOURCE: &str = "Msvm_BootSourceSettingData";
/// How the id of a source ends; before it stands that of the settings of its device.
const END: &str = r"\Boot";

/// Something that firmware boots from: its kind, and the id of its device's settings.
struct Source {
    kind: BootDevice,
    settings: String,
}

/// The sources of a machine, first to last.
fn sources(machine: &Machine) -> Vec<Source> {
    let settings = machine.settings();
    let part = |tail: &str| ids::part(machine.id(), tail);
    let mut all = Vec::new();
    if settings.generation != Generation::Two {
        return all;
    }
    for kind in &settings.firmware.boot_order {
        let mut found = |tail: &str| all.push(Source { kind: *kind, settings: part(tail) });
        if *kind == BootDevice::Network {
            settings.adapters.iter().for_each(|adapter| found(&ids::guid(adapter.instance)));
            continue;
        }
        for controller in &settings.controllers {
            let boots = |media: &Media| match media {
                Media::Disk { .. } => *kind == BootDevice::HardDrive,
                Media::Dvd { .. } => *kind == BootDevice::Optical,
                Media::Other { .. } => false,
            };
            for drive in controller.drives.iter().filter(|drive| boots(&drive.media)) {
                let instance = ids::guid(controller.instance);
                found(&format!(r"{instance}\{}\{}\D", controller.number, drive.slot));
            }
        }
    }
    all
}

fn id(source: &Source) -> String {
    format!("{}{END}", source.settings)
}

pub(crate) fn boot_sources(_: &World, machine: &Machine) -> Vec<Instance> {
    let one = |source: Source| {
        let (kind, described) = match source.kind {
            BootDevice::Network => (2_u32, "EFI Network"),
            _ => (1, "EFI SCSI Device"),
        };
        Instance::new(SOURCE)
            .with("InstanceID", id(&source))
            .with("ElementName", "Boot Entry")
            .with("Caption", "Boot Source")
            .with("BootSourceType", kind)
            .with("BootSourceDescription", described)
    };
    sources(machine).into_iter().map(one).collect()
}

/// `BootSourceOrder`: the paths of a machine's sources.
pub(crate) fn source_order(world: &World, machine: &Machine) -> Option<Value> {
    let all = sources(machine);
    let path = |source: &Source| world.path(SOURCE).with("InstanceID", id(source)).to_string();
    (machine.settings().generation == Generation::Two)
        .then(|| all.iter().map(path).collect::<Vec<_>>().into())
}

/// The order of kinds that an order of sources says; none where it is the one that there is.
pub(crate) fn kinds(machine: &Machine, order: &Value) -> Result<Option<Vec<BootDevice>>, Refused> {
    let there = sources(machine);
    let wrong = |why: String| invalid("SystemSettings", format!("BootSourceOrder: {why}"));
    let mut wanted = Vec::new();
    for text in order.elements().iter().filter_map(Value::as_str) {
        let path: ObjectPath = text.parse().map_err(|e| wrong(format!("{e}")))?;
        let named = path.text("InstanceID").unwrap_or_default();
        let at = there.iter().position(|source| id(source).eq_ignore_ascii_case(named));
        wanted.push(at.ok_or_else(|| wrong(format!("`{text}` is no source of the machine")))?);
    }
    if wanted.iter().copied().eq(0..there.len()) {
        return Ok(None);
    }
    let mut kinds: Vec<BootDevice> = wanted.iter().map(|at| there[*at].kind).collect();
    kinds.dedup();
    // What the machine would make of these kinds: their sources, each kind in its own order.
    let made = kinds.iter().flat_map(|kind| {
        there.iter().enumerate().filter(move |(_, source)| source.kind == *kind).map(|(at, _)| at)
    });
    if !made.eq(wanted.iter().copied()) {
        let why = "a machine boots by kinds of devices here, each kind by its places";
        return Err(Refused::new(Reason::NotSupported, why));
    }
    // Kinds that the machine has nothing of keep their place at the end.
    let absent = machine.settings().firmware.boot_order.iter();
    kinds.extend(absent.filter(|kind| there.iter().all(|source| source.kind != **kind)));
    Ok(Some(kinds))
}

pub(crate) fn bios(_: &World, machine: &Machine) -> Vec<Instance> {
    let settings = machine.settings();
    let named = if settings.generation == Generation::One { "BIOS" } else { "UEFI" };
    let system = setting::of(settings);
    let mut bios = Instance::new("Msvm_BIOSElement")
        .with("InstanceID", ids::part(machine.id(), "BIOS"))
        .with("SoftwareElementID", ids::of(machine.id()))
        // 3 is *running*, 2 *executable*.
        .with("SoftwareElementState", if machine.alive() { 3_u16 } else { 2 })
        .with("Name", named)
        .with("ElementName", named)
        .with("Version", "")
        .with("OperationalStatus", vec![2_u16]);
    // The schema's are of another firmware.
    for property in [
        "Manufacturer",
        "BuildNumber",
        "LoadedStartingAddress",
        "LoadedEndingAddress",
        "ListOfLanguages",
        "CurrentLanguage",
    ] {
        bios.set(property, None);
    }
    for property in [
        "BIOSGUID",
        "BIOSSerialNumber",
        "BaseBoardSerialNumber",
        "ChassisSerialNumber",
        "BIOSNumLock",
        "BootOrder",
    ] {
        bios.set(property, system.get(property).cloned());
    }
    vec![bios]
}

/// Whether a source is of the device with those settings.
fn boots(settings: &Instance, source: &Instance) -> bool {
    let id = source.text("InstanceID").and_then(|id| id.strip_suffix(END));
    id.is_some() && id == settings.text("InstanceID")
}

/// Whose firmware it is, and what it boots from.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_SystemBIOS",
        end("GroupComponent", "CIM_ComputerSystem", Scope::Machine),
        end("PartComponent", "Msvm_BIOSElement", Scope::Machine),
    ),
    all(
        "Msvm_BootSourceComponent",
        end("GroupComponent", "Msvm_VirtualSystemSettingData", Scope::Machine),
        end("PartComponent", SOURCE, Scope::Machine),
    ),
    all(
        "Msvm_LogicalIdentity",
        end("SystemElement", "CIM_ResourceAllocationSettingData", Scope::Machine),
        end("SameElement", SOURCE, Scope::Machine),
    )
    .when(boots),
];
