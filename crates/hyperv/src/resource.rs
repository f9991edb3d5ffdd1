//! `AddResourceSettings`, `ModifyResourceSettings`, `RemoveResourceSettings`: the parts of a machine.
//!
//! Each call is one change of the domain: all of its resources are taken, or none. Ids say where a part is (`crate::storage`,
//! `crate::ethernet`), so what is to be changed is found without looking it up.

use std::path::PathBuf;

use cim::{Instance, ObjectPath, Value};
use machine::Reason;
use machine::change::Begun;
use machine::define::{AdapterEdit, MachineEdit, NewDisk};
use machine::planned::PlannedEdit;
use machine::position::{PositionEdit, Put};
use machine::settings::ControllerKind;
use uuid::Uuid;
use wsman::Output;

use crate::define::owner_of_setting;
use crate::ethernet::named_port;
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::planned;
use crate::storage::{Place, disk_at, sub_type};
use crate::world::World;

const PARAMETER: &str = "ResourceSettings";

pub(crate) fn wrong(why: impl std::fmt::Display) -> Refused {
    invalid(PARAMETER, why)
}

/// A kind of part, by its class and subtype.
pub(crate) enum Part {
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

pub(crate) fn part(instance: &Instance) -> Result<Part, Refused> {
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

pub(crate) fn not_here(what: &str) -> Refused {
    Refused::new(Reason::NotSupported, format!("{what} cannot be given to a machine, or taken from it, here"))
}

/// The instance id that a property refers to.
pub(crate) fn referred(instance: &Instance, property: &str) -> Result<String, Refused> {
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

pub(crate) fn file(world: &World, instance: &Instance) -> Result<Option<PathBuf>, Refused> {
    host_resource(instance).map(|text| world.settings.paths.resolve(text)).transpose()
}

/// The switch that a connection names; none for one that is not plugged in.
pub(crate) fn switch(world: &World, instance: &Instance) -> Result<Option<String>, Refused> {
    let off = instance.get("EnabledState").and_then(Value::as_u64) == Some(3);
    let Some(text) = host_resource(instance).filter(|_| !off) else { return Ok(None) };
    let path: ObjectPath = text.parse().map_err(|e| wrong(format!("HostResource: {e}")))?;
    let id = ids::owner_of(&path).ok_or_else(|| wrong(format!("HostResource: `{text}` is no switch")))?;
    Ok(Some(world.host.switch(&id.to_string())?.name))
}

/// What a part says of its quantity.
pub(crate) fn quantity(instance: &Instance) -> Option<u64> {
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

pub(crate) fn known_adapter(machine: &Machine, id: &str) -> Result<usize, Refused> {
    adapter(machine, id).ok_or_else(|| wrong(format!("no adapter has the id `{id}`")))
}

/// The address that an adapter's settings fix, if they do: `Some(None)` lets it be derived.
pub(crate) fn mac(instance: &Instance) -> Result<Option<Option<machine::settings::Mac>>, Refused> {
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
                let index = known_adapter(machine, &id)?;
                let switch = Some(switch(world, instance)?);
                let port = named_port(instance);
                edit.adapters.push(AdapterEdit { index, switch, port, ..AdapterEdit::default() });
            }
        }
    }
    Ok(())
}

pub(crate) fn processors(instance: &Instance) -> Result<Option<u32>, Refused> {
    let count = quantity(instance).map(u32::try_from).transpose();
    count.map_err(|_| wrong("VirtualQuantity: too many processors"))
}

/// `AddResourceSettings`.
pub(crate) fn add(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given("AffectedConfiguration");
    let value = value.ok_or_else(|| invalid("AffectedConfiguration", "missing"))?;
    let path = invocation.path("AffectedConfiguration", value)?;
    let machine = owner_of_setting(invocation, "AffectedConfiguration", path.text("InstanceID"))?;
    let resources = invocation.instances(PARAMETER)?;
    if resources.is_empty() {
        return Err(wrong("missing"));
    }
    let before = ids_of(invocation, &machine);
    let world = invocation.world;
    let after = match &machine {
        Machine::Real(view) => {
            let mut edit = MachineEdit::default();
            add_all(world, &machine, &resources, &mut edit)?;
            match world.host.begin_edit(view.record.id, &edit, &invocation.call.principal.user)? {
                Begun::Done(view) => Machine::Real(view),
                Begun::Job(job) => {
                    // An id names a place: what will be there can be told before it is.
                    let places: Vec<_> = resources.iter().filter_map(|r| will_be(world, r)).collect();
                    let started = invocation.started(job);
                    return Ok(started.with("ResultingResourceSettings", Some(places.into())));
                }
            }
        }
        Machine::Planned(view) => {
            let mut edit = PlannedEdit::default();
            for resource in &resources {
                planned::add(world, &machine, resource, &mut edit)?;
            }
            Machine::Planned(world.host.edit_planned(view.record.id, &edit)?)
        }
    };
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

/// Where the settings of a disk will be found that is being copied.
fn will_be(world: &World, instance: &Instance) -> Option<ObjectPath> {
    let drive = referred(instance, "Parent").ok().filter(|_| matches!(part(instance), Ok(Part::Disk)))?;
    let place = drive.strip_suffix(['D', 'd'])?;
    Some(world.path(instance.class.as_str()).with("InstanceID", format!("{place}L")))
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
            let user = &invocation.call.principal.user;
            if let Begun::Job(job) = invocation.world.host.begin_edit(view.record.id, &edit, user)? {
                let started = invocation.started(job);
                return Ok(started.with("ResultingResourceSettings", Some(results.into())));
            }
        }
        Machine::Planned(view) => {
            let mut edit = PlannedEdit::default();
            for resource in &resources {
                planned::change(invocation.world, &machine, resource, &mut edit)?;
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
    let known = |id: &str| known_adapter(machine, id);
    match part(instance)? {
        Part::Processor => edit.processors = processors(instance)?,
        Part::Memory => edit.memory_mib = quantity(instance),
        Part::Image => edit.positions.push(place(id, Put::Dvd(file(world, instance)?))?),
        Part::Disk => {
            let path = file(world, instance)?.ok_or_else(|| wrong("HostResource is missing"))?;
            // Clients send back what they were given: the disk that is there is not another one.
            let there = disk_at(machine, id).and_then(|disk| machine.disk(disk)?.file);
            let same = there.is_some_and(|there| path.canonicalize().is_ok_and(|path| path == *there));
            if !same {
                edit.positions.push(place(id, Put::Disk(NewDisk::File { path, format: None }))?);
            }
        }
        Part::Adapter { .. } => edit.adapters.push(AdapterEdit {
            index: known(id)?,
            mac: mac(instance)?,
            name: instance.text("ElementName").map(str::to_owned),
            ..AdapterEdit::default()
        }),
        Part::Connection => {
            let switch = Some(switch(world, instance)?);
            let port = named_port(instance);
            edit.adapters.push(AdapterEdit { index: known(id)?, switch, port, ..AdapterEdit::default() });
        }
        Part::Controller(_) | Part::DiskDrive | Part::DvdDrive => {
            return Err(not_here("another place of a controller or a drive"));
        }
    }
    Ok(())
}

/// `RemoveResourceSettings`. Files of disks stay; what was taken in is given back, by a job if it was written.
pub(crate) fn remove(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given(PARAMETER).ok_or_else(|| wrong("missing"))?;
    let mut of: Option<Machine> = None;
    let mut paths = Vec::new();
    for reference in value.elements() {
        let path = invocation.path(PARAMETER, reference)?;
        let id = path.text("InstanceID").unwrap_or_default().to_owned();
        of = match of.take() {
            Some(machine) if ids::owner(&id) == Some(machine.id()) => Some(machine),
            Some(_) => return Err(wrong("resources of one machine at a time")),
            None => Some(owner_of_setting(invocation, PARAMETER, Some(&id))?),
        };
        paths.push((path.class, id));
    }
    let machine = of.ok_or_else(|| wrong("missing"))?;
    let removed: Vec<_> =
        paths.iter().map(|(class, id)| removed(&machine, class.as_str(), id)).collect::<Result<_, _>>()?;
    let host = &invocation.world.host;
    match &machine {
        Machine::Real(view) => {
            let edit = without(&machine, &removed)?;
            let user = &invocation.call.principal.user;
            if let Begun::Job(job) = host.begin_edit(view.record.id, &edit, user)? {
                return Ok(invocation.started(job));
            }
        }
        Machine::Planned(view) => {
            host.edit_planned(view.record.id, &planned::without(&removed)?).map(|_| ())?;
        }
    }
    Ok(Output::new(0_u32))
}

/// A part to take away.
pub(crate) enum Removed<'r> {
    /// A drive, by its id.
    Drive(&'r str),
    /// What is in the drive of that id.
    Medium(&'r str),
    /// An adapter: its number in the machine's settings, and its device instance id.
    Adapter(usize, Uuid),
    /// What it is plugged into.
    Connection(usize, Uuid),
}

fn removed<'r>(machine: &Machine, class: &str, id: &'r str) -> Result<Removed<'r>, Refused> {
    let adapter = || {
        let index = known_adapter(machine, id)?;
        Ok((index, machine.settings().adapters[index].instance))
    };
    Ok(match class {
        "Msvm_ResourceAllocationSettingData" => Removed::Drive(id),
        "Msvm_StorageAllocationSettingData" => Removed::Medium(id),
        "Msvm_SyntheticEthernetPortSettingData" | "Msvm_EmulatedEthernetPortSettingData" => {
            let (index, instance) = adapter()?;
            Removed::Adapter(index, instance)
        }
        "Msvm_EthernetPortAllocationSettingData" => {
            let (index, instance) = adapter()?;
            Removed::Connection(index, instance)
        }
        other => return Err(not_here(other)),
    })
}

/// The change of a machine that takes `removed` away.
fn without(machine: &Machine, removed: &[Removed<'_>]) -> Result<MachineEdit, Refused> {
    let mut edit = MachineEdit::default();
    let mut gone = Vec::new();
    for part in removed {
        match part {
            Removed::Drive(id) => edit.positions.push(place(id, Put::Nothing)?),
            Removed::Medium(id) => {
                let dvd = Place::parse(id).is_some_and(|place| place.is_dvd(machine));
                let left = if dvd { Put::Dvd(None) } else { Put::Drive };
                edit.positions.push(place(id, left)?);
            }
            Removed::Adapter(index, _) => gone.push(*index),
            Removed::Connection(index, _) => {
                // Its name and its features are parts of it.
                edit.adapters.push(AdapterEdit {
                    index: *index,
                    switch: Some(None),
                    port: Some(None),
                    vlan: Some(None),
                    ..AdapterEdit::default()
                });
            }
        }
    }
    // Numbers shift when one goes: the last first.
    gone.sort_unstable_by(|one, other| other.cmp(one));
    gone.dedup();
    edit.adapters.extend(gone.into_iter().map(|index| AdapterEdit {
        index,
        remove: true,
        ..AdapterEdit::default()
    }));
    Ok(edit)
}
