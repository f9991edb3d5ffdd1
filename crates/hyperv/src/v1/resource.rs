//! The parts of a machine. Disks have no class of their own here, and an adapter says itself which switch it is in.

use cim::{Instance, ObjectPath, Value};
use machine::define::{AdapterEdit, MachineEdit};
use wsman::Output;

use super::{switch, words};
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::world::World;
use crate::{ethernet, integration, resource, setting, storage};

const PARAMETER: &str = "ResourceSettingData";
/// Adapters of either kind, by the end of their class's name.
const ADAPTER: &str = "EthernetPortSettingData";

/// Those of a class that says itself in which units it counts.
fn counted(made: Vec<Instance>) -> Vec<Instance> {
    let mut made = told(made);
    for one in &mut made {
        one.properties.retain(|(name, _)| *name != "AllocationUnits");
    }
    made
}

pub(super) fn told(made: Vec<Instance>) -> Vec<Instance> {
    made.into_iter().map(words::allocation).collect()
}

pub(super) fn processor(world: &World, machine: &Machine) -> Vec<Instance> {
    counted(setting::processor(world, machine))
}

pub(super) fn memory(world: &World, machine: &Machine) -> Vec<Instance> {
    counted(setting::memory(world, machine))
}

/// Controllers, drives, and what is in them.
pub(super) fn allocations(world: &World, machine: &Machine) -> Vec<Instance> {
    let mut all = told(storage::resources(world, machine));
    all.extend(told(storage::storage(world, machine)));
    all
}

pub(super) fn synthetic(world: &World, machine: &Machine) -> Vec<Instance> {
    plugged(world, machine, told(ethernet::synthetic(world, machine)))
}

pub(super) fn emulated(world: &World, machine: &Machine) -> Vec<Instance> {
    plugged(world, machine, told(ethernet::emulated(world, machine)))
}

/// Adapters, with the ports that they are in.
fn plugged(world: &World, machine: &Machine, mut adapters: Vec<Instance>) -> Vec<Instance> {
    for one in &mut adapters {
        let adapter = one.text("InstanceID").and_then(|id| resource::adapter(machine, id));
        let port = adapter.and_then(|n| switch::port_of(world, machine, &machine.settings().adapters[n]));
        one.set("Connection", Some(Vec::from_iter(port.map(|port| port.to_string())).into()));
    }
    adapters
}

pub(super) fn shutdown(world: &World, machine: &Machine) -> Vec<Instance> {
    told(integration::shutdown_setting(world, machine))
}

pub(super) fn heartbeat(world: &World, machine: &Machine) -> Vec<Instance> {
    told(integration::heartbeat_setting(world, machine))
}

pub(super) fn time(world: &World, machine: &Machine) -> Vec<Instance> {
    told(integration::time_setting(world, machine))
}

pub(super) fn kvp(world: &World, machine: &Machine) -> Vec<Instance> {
    told(integration::kvp_setting(world, machine))
}

fn is_adapter(instance: &Instance) -> bool {
    instance.class.as_str().ends_with(ADAPTER)
}

/// The switch that an adapter says it is in: `None` when it says nothing, none when it is in none.
fn connection(world: &World, adapter: &Instance) -> Result<Option<Option<String>>, Refused> {
    let Some(Some(connection)) = adapter.property("Connection") else { return Ok(None) };
    let first = connection.elements().first().and_then(Value::as_str).filter(|text| !text.is_empty());
    first.map(|text| switch::named(world, text)).transpose().map(Some)
}

/// What plugs in the adapters among the resources of a new machine.
pub(super) fn connections(world: &World, resources: &[Instance]) -> Result<Vec<AdapterEdit>, Refused> {
    let mut edits = Vec::new();
    for (index, adapter) in resources.iter().filter(|one| is_adapter(one)).enumerate() {
        if let Some(switch) = connection(world, adapter)? {
            edits.push(AdapterEdit { index, switch: Some(switch), ..AdapterEdit::default() });
        }
    }
    Ok(edits)
}

fn resources(invocation: &Invocation<'_>) -> Result<Vec<Instance>, Refused> {
    let resources = invocation.instances(PARAMETER)?;
    if resources.is_empty() { Err(invalid(PARAMETER, "missing")) } else { Ok(resources) }
}

/// The paths of a machine's parts, as they are here.
fn parts(invocation: &Invocation<'_>, machine: &Machine) -> Vec<ObjectPath> {
    let parts = invocation.namespace.made_of(invocation.world, machine, "CIM_ResourceAllocationSettingData");
    parts.into_iter().filter_map(|part| part.path).collect()
}

/// `AddVirtualSystemResources`: all of them, or none.
pub(super) fn add(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let world = invocation.world;
    let machine = words::machine(invocation, "TargetSystem")?;
    invocation.permit(Some(machine.id()))?;
    let resources = resources(invocation)?;
    let mut edit = MachineEdit::default();
    let before = machine.settings().adapters.len();
    let plugged = connections(world, &resources)?;
    let understood: Vec<_> = resources.iter().cloned().map(words::understood).collect();
    resource::add_all(world, &machine, &understood, &mut edit)?;
    edit.adapters.extend(plugged.into_iter().map(|a| AdapterEdit { index: a.index + before, ..a }));
    let there = parts(invocation, &machine);
    let after = Machine::Real(world.host.edit(machine.id(), &edit)?);
    // What is new, in the order in which it is told; for what was changed instead, the thing itself.
    let mut new: Vec<_> =
        parts(invocation, &after).into_iter().filter(|path| !there.contains(path)).collect();
    let mut results = Vec::new();
    for resource in &resources {
        if let Some(at) = new.iter().position(|path| path.class == resource.class) {
            results.push(new.remove(at));
        } else if let Some(same) = there.iter().find(|path| path.class == resource.class) {
            results.push(same.clone());
        }
    }
    Ok(Output::new(0_u32).with("NewResources", Some(results.into())))
}

/// `ModifyVirtualSystemResources`: all of them, or none.
pub(super) fn modify(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let world = invocation.world;
    let machine = words::machine(invocation, "ComputerSystem")?;
    invocation.permit(Some(machine.id()))?;
    let mut edit = MachineEdit::default();
    for instance in resources(invocation)? {
        let id = instance.text("InstanceID").unwrap_or_default().to_owned();
        if ids::owner(&id) != Some(machine.id()) {
            return Err(invalid(PARAMETER, format!("`{id}` is no resource of this machine")));
        }
        let plugged = if is_adapter(&instance) { connection(world, &instance)? } else { None };
        resource::change(world, &machine, &words::understood(instance), &mut edit)?;
        if let (Some(switch), Some(index)) = (plugged, resource::adapter(&machine, &id)) {
            edit.adapters.push(AdapterEdit { index, switch: Some(switch), ..AdapterEdit::default() });
        }
    }
    world.host.edit(machine.id(), &edit)?;
    Ok(Output::new(0_u32))
}

/// `RemoveVirtualSystemResources`. Files of disks stay.
pub(super) fn remove(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    words::machine(invocation, "TargetSystem")?;
    words::through(invocation, resource::remove, &[(PARAMETER, "ResourceSettings")], Vec::new())
}
