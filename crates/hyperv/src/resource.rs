//! `AddResourceSettings`, `ModifyResourceSettings`, `RemoveResourceSettings`: the parts of a machine.
//!
//! Each call is one change of the domain: all of its resources are taken, or none. Ids say where a part is (`crate::storage`,
//! `crate::ethernet`), so what is to be changed is found without looking it up.

use std::path::PathBuf;

use cim::{Instance, ObjectPath, Value};
use machine::Reason;
use machine::define::{AdapterEdit, MachineEdit, NewDisk};
use machine::planned::PlannedEdit;
use machine::position::{PositionEdit, Put};
use machine::settings::ControllerKind;
use machine::switch::SwitchTarget;
use wsman::Output;

use crate::define::owner_of_setting;
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, OwnerId};
use crate::storage::{Place, sub_type};
use crate::world::World;

const PARAMETER: &str = "ResourceSettings";

fn wrong(why: impl std::fmt::Display) -> Refused {
    invalid(PARAMETER, why)
}

/// A kind of part, by its class and subtype.
enum Part {
    Processor,
    Memory,
    Controller(ControllerKind),
    DiskDrive,
    DvdDrive,
    Disk,
    Image,
    Adapter { legacy: bool },
    Connection,
}

fn part(instance: &Instance) -> Result<Part, Refused> {
    let sub = instance.text("ResourceSubType").unwrap_or_default();
    Ok(match instance.class.as_str() {
        "Msvm_ProcessorSettingData" => Part::Processor,
        "Msvm_MemorySettingData" => Part::Memory,
        "Msvm_SyntheticEthernetPortSettingData" => Part::Adapter { legacy: false },
        "Msvm_EmulatedEthernetPortSettingData" => Part::Adapter { legacy: true },
        "Msvm_EthernetPortAllocationSettingData" => Part::Connection,
        "Msvm_ResourceAllocationSettingData" | "Msvm_StorageAllocationSettingData" => match sub {
            sub_type::IDE_CONTROLLER => Part::Controller(ControllerKind::Ide),
            sub_type::SCSI_CONTROLLER => Part::Controller(ControllerKind::Scsi),
            sub_type::DISK_DRIVE => Part::DiskDrive,
            sub_type::DVD_DRIVE => Part::DvdDrive,
            sub_type::HARD_DISK => Part::Disk,
            sub_type::DVD_DISK => Part::Image,
            other => return Err(not_here(&format!("{} of type `{other}`", instance.class))),
        },
        other => return Err(not_here(other)),
    })
}

fn not_here(what: &str) -> Refused {
    Refused::new(Reason::NotSupported, format!("{what} cannot be given to a machine, or taken from it, here"))
}

/// The instance id that a property refers to.
fn referred(instance: &Instance, property: &str) -> Result<String, Refused> {
    let text = instance.text(property).ok_or_else(|| wrong(format!("{property} is missing")))?;
    let path: ObjectPath = text.parse().map_err(|e| wrong(format!("{property}: {e}")))?;
    let id = path.text("InstanceID");
    id.map(str::to_owned).ok_or_else(|| wrong(format!("{property}: `{text}` has no InstanceID")))
}

/// The first file or instance that the host gives to a part.
fn host_resource(instance: &Instance) -> Option<&str> {
    let first = instance.get("HostResource")?.elements().first()?;
    first.as_str().filter(|text| !text.is_empty())
}

fn file(world: &World, instance: &Instance) -> Result<Option<PathBuf>, Refused> {
    host_resource(instance).map(|text| world.settings.paths.resolve(text)).transpose()
}

/// The switch that a connection names; none for one that is not plugged in.
fn switch(world: &World, instance: &Instance) -> Result<Option<String>, Refused> {
    let off = instance.get("EnabledState").and_then(Value::as_u64) == Some(3);
    let Some(text) = host_resource(instance).filter(|_| !off) else { return Ok(None) };
    let path: ObjectPath = text.parse().map_err(|e| wrong(format!("HostResource: {e}")))?;
    let id = ids::owner_of(&path).ok_or_else(|| wrong(format!("HostResource: `{text}` is no switch")))?;
    Ok(Some(world.host.switch(&id.to_string())?.name))
}

/// What a part says of its quantity.
fn quantity(instance: &Instance) -> Option<u64> {
    instance.get("VirtualQuantity").and_then(Value::as_u64)
}

fn place(text: &str, put: Put) -> Result<PositionEdit, Refused> {
    let place = Place::parse(text).ok_or_else(|| wrong(format!("`{text}` is no place on a controller")))?;
    Ok(PositionEdit { controller: place.controller, number: place.number, slot: place.slot, put })
}

/// The place that a drive is to have: a slot of the controller that is its parent.
fn new_place(instance: &Instance, put: Put) -> Result<PositionEdit, Refused> {
    let parent = referred(instance, "Parent")?;
    let slot = instance.text("AddressOnParent").or_else(|| instance.text("Address"));
    let slot = slot.and_then(|text| text.parse::<u32>().ok());
    let slot = slot.ok_or_else(|| wrong("AddressOnParent is missing, or no number"))?;
    place(&format!(r"{parent}\{slot}\D"), put)
}

/// The adapter that an id names: its number in the machine's settings.
pub(crate) fn adapter(machine: &Machine, id: &str) -> Option<usize> {
    let id = id.split('\\').nth(1)?;
    machine.settings().adapters.iter().position(|a| ids::guid(a.instance).eq_ignore_ascii_case(id))
}

/// The address that an adapter's settings fix, if they do: `Some(None)` lets it be derived.
fn mac(instance: &Instance) -> Result<Option<Option<machine::settings::Mac>>, Refused> {
    match instance.get("StaticMacAddress").and_then(Value::as_bool) {
        None => Ok(None),
        Some(false) => Ok(Some(None)),
        Some(true) => {
            let text = instance.text("Address").unwrap_or_default();
            let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
            let byte = |n: usize| u8::from_str_radix(digits.get(n * 2..n * 2 + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..6).map(byte).collect();
            let bytes = bytes.filter(|_| digits.len() == 12).and_then(|bytes| bytes.try_into().ok());
            let bytes = bytes.ok_or_else(|| wrong(format!("Address: `{text}` is no address")))?;
            Ok(Some(Some(machine::settings::Mac(bytes))))
        }
    }
}

/// Writes into `edit` what adds `resources` to the machine.
pub(crate) fn add_all(
    world: &World,
    machine: &Machine,
    resources: &[Instance],
    edit: &mut MachineEdit,
) -> Result<(), Refused> {
    let mut adapters = machine.settings().adapters.len();
    for instance in resources {
        match part(instance)? {
            Part::Processor => edit.processors = processors(instance)?,
            Part::Memory => edit.memory_mib = quantity(instance),
            Part::Controller(kind) => edit.add_controllers.push(kind),
            Part::DiskDrive => edit.positions.push(new_place(instance, Put::Drive)?),
            Part::DvdDrive => edit.positions.push(new_place(instance, Put::Dvd(None))?),
            Part::Disk => {
                let path = file(world, instance)?.ok_or_else(|| wrong("HostResource is missing"))?;
                let disk = NewDisk::File { path, format: None };
                edit.positions.push(place(&referred(instance, "Parent")?, Put::Disk(disk))?);
            }
            Part::Image => {
                let image = file(world, instance)?;
                edit.positions.push(place(&referred(instance, "Parent")?, Put::Dvd(image))?);
            }
            Part::Adapter { legacy: true } => return Err(not_here("an emulated adapter")),
            Part::Adapter { legacy: false } => {
                edit.adapters.push(AdapterEdit {
                    index: adapters,
                    mac: mac(instance)?,
                    name: instance.text("ElementName").map(str::to_owned),
                    ..AdapterEdit::default()
                });
                adapters += 1;
            }
            Part::Connection => {
                let id = referred(instance, "Parent")?;
                let index =
                    adapter(machine, &id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")))?;
                let switch = Some(switch(world, instance)?);
                edit.adapters.push(AdapterEdit { index, switch, ..AdapterEdit::default() });
            }
        }
    }
    Ok(())
}

fn processors(instance: &Instance) -> Result<Option<u32>, Refused> {
    let count = quantity(instance).map(u32::try_from).transpose();
    count.map_err(|_| wrong("VirtualQuantity: too many processors"))
}

/// `AddResourceSettings`.
pub(crate) fn add(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given("AffectedConfiguration");
    let value = value.ok_or_else(|| invalid("AffectedConfiguration", "missing"))?;
    let path = invocation.path("AffectedConfiguration", value)?;
    let machine = owner_of_setting(invocation, "AffectedConfiguration", path.text("InstanceID"))?;
    let Machine::Real(view) = &machine else {
        return Err(not_here("a resource of a planned machine"));
    };
    let resources = invocation.instances(PARAMETER)?;
    if resources.is_empty() {
        return Err(wrong("missing"));
    }
    let mut edit = MachineEdit::default();
    add_all(invocation.world, &machine, &resources, &mut edit)?;
    let before = ids_of(invocation, &machine);
    let after = Machine::Real(invocation.world.host.edit(view.record.id, &edit)?);
    // What is new, in the order in which it is told; for what was changed instead, the thing itself.
    let mut new: Vec<ObjectPath> =
        ids_of(invocation, &after).into_iter().filter(|path| !before.contains(path)).collect();
    let mut results = Vec::new();
    for resource in &resources {
        if let Some(at) = new.iter().position(|path| path.class == resource.class) {
            results.push(new.remove(at));
        } else if let Some(same) = before.iter().find(|path| path.class == resource.class) {
            results.push(same.clone());
        }
    }
    Ok(Output::new(0_u32).with("ResultingResourceSettings", Some(results.into())))
}

/// The paths of a machine's parts. A connection is there as soon as its adapter is.
fn ids_of(invocation: &Invocation<'_>, machine: &Machine) -> Vec<ObjectPath> {
    let parts = invocation.namespace.made_of(invocation.world, machine, "CIM_ResourceAllocationSettingData");
    parts.into_iter().filter_map(|part| part.path).collect()
}

/// `ModifyResourceSettings`.
pub(crate) fn modify(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let resources = invocation.instances(PARAMETER)?;
    let first = resources.first().ok_or_else(|| wrong("missing"))?;
    let machine = owner_of_setting(invocation, PARAMETER, first.text("InstanceID"))?;
    let mut results = Vec::new();
    for resource in &resources {
        let id = resource.text("InstanceID").unwrap_or_default();
        if ids::owner(id) != Some(machine.id()) {
            return Err(wrong("resources of one machine at a time"));
        }
        results.push(invocation.world.path(resource.class.as_str()).with("InstanceID", id));
    }
    match &machine {
        Machine::Real(view) => {
            let mut edit = MachineEdit::default();
            for resource in &resources {
                change(invocation.world, &machine, resource, &mut edit)?;
            }
            invocation.world.host.edit(view.record.id, &edit)?;
        }
        Machine::Planned(view) => {
            let mut edit = PlannedEdit::default();
            for resource in &resources {
                change_planned(invocation.world, &machine, resource, &mut edit)?;
            }
            invocation.world.host.edit_planned(view.record.id, &edit)?;
        }
    }
    Ok(Output::new(0_u32).with("ResultingResourceSettings", Some(results.into())))
}

/// Writes into `edit` what changes a part of the machine.
pub(crate) fn change(
    world: &World,
    machine: &Machine,
    instance: &Instance,
    edit: &mut MachineEdit,
) -> Result<(), Refused> {
    let id = instance.text("InstanceID").unwrap_or_default();
    let known = |id: &str| adapter(machine, id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")));
    match part(instance)? {
        Part::Processor => edit.processors = processors(instance)?,
        Part::Memory => edit.memory_mib = quantity(instance),
        Part::Image => edit.positions.push(place(id, Put::Dvd(file(world, instance)?))?),
        Part::Disk => {
            let path = file(world, instance)?.ok_or_else(|| wrong("HostResource is missing"))?;
            edit.positions.push(place(id, Put::Disk(NewDisk::File { path, format: None }))?);
        }
        Part::Adapter { .. } => edit.adapters.push(AdapterEdit {
            index: known(id)?,
            mac: mac(instance)?,
            name: instance.text("ElementName").map(str::to_owned),
            ..AdapterEdit::default()
        }),
        Part::Connection => {
            let switch = Some(switch(world, instance)?);
            edit.adapters.push(AdapterEdit { index: known(id)?, switch, ..AdapterEdit::default() });
        }
        Part::Controller(_) | Part::DiskDrive | Part::DvdDrive => {
            return Err(not_here("another place of a controller or a drive"));
        }
    }
    Ok(())
}

/// What can be changed of a plan: how many processors and how much memory, where disks are found, where adapters lead.
fn change_planned(
    world: &World,
    machine: &Machine,
    instance: &Instance,
    edit: &mut PlannedEdit,
) -> Result<(), Refused> {
    let id = instance.text("InstanceID").unwrap_or_default();
    match part(instance)? {
        Part::Processor => edit.processors = processors(instance)?,
        Part::Memory => edit.memory_mib = quantity(instance),
        Part::Disk => {
            let path = file(world, instance)?.ok_or_else(|| wrong("HostResource is missing"))?;
            edit.disk_dirs.extend(path.parent().map(PathBuf::from));
        }
        Part::Connection => {
            let index = adapter(machine, id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")))?;
            let source = machine.settings().adapters[index].source_switch.clone();
            match (source, switch(world, instance)?) {
                (Some(source), Some(target)) => {
                    edit.switches.insert(source, SwitchTarget { target, vlan: None });
                }
                (None, None) => {}
                (Some(_), None) => edit.disconnected = Some(true),
                (None, Some(_)) => return Err(not_here("a switch for an adapter that came without one")),
            }
        }
        _ => return Err(not_here("another resource of a planned machine")),
    }
    Ok(())
}

/// `RemoveResourceSettings`. Files of disks stay.
pub(crate) fn remove(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given(PARAMETER).ok_or_else(|| wrong("missing"))?;
    let mut edit = MachineEdit::default();
    let mut of: Option<Machine> = None;
    let mut gone = Vec::new();
    for reference in value.elements() {
        let path = invocation.path(PARAMETER, reference)?;
        let id = path.text("InstanceID").unwrap_or_default().to_owned();
        let machine = match of.take() {
            Some(machine) if ids::owner(&id) == Some(machine.id()) => machine,
            Some(_) => return Err(wrong("resources of one machine at a time")),
            None => owner_of_setting(invocation, PARAMETER, Some(&id))?,
        };
        match path.class.as_str() {
            "Msvm_ResourceAllocationSettingData" => edit.positions.push(place(&id, Put::Nothing)?),
            "Msvm_StorageAllocationSettingData" => {
                let dvd = Place::parse(&id).is_some_and(|place| place.is_dvd(&machine));
                let left = if dvd { Put::Dvd(None) } else { Put::Drive };
                edit.positions.push(place(&id, left)?);
            }
            "Msvm_SyntheticEthernetPortSettingData" | "Msvm_EmulatedEthernetPortSettingData" => {
                gone.push(
                    adapter(&machine, &id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")))?,
                );
            }
            "Msvm_EthernetPortAllocationSettingData" => {
                let index =
                    adapter(&machine, &id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")))?;
                edit.adapters.push(AdapterEdit { index, switch: Some(None), ..AdapterEdit::default() });
            }
            other => return Err(not_here(other)),
        }
        of = Some(machine);
    }
    // Numbers shift when one goes: the last first.
    gone.sort_unstable_by(|one, other| other.cmp(one));
    gone.dedup();
    edit.adapters.extend(gone.into_iter().map(|index| AdapterEdit {
        index,
        remove: true,
        ..AdapterEdit::default()
    }));
    let machine = of.ok_or_else(|| wrong("missing"))?;
    match machine.owner() {
        OwnerId::Machine(id) => invocation.world.host.edit(id, &edit)?,
        _ => return Err(not_here("a resource of a planned machine")),
    };
    Ok(Output::new(0_u32))
}
