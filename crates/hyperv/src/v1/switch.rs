//! Virtual switches and their ports, as far as an adapter is plugged in by them.
//!
//! The domain has no ports of their own: there is one for each adapter that is plugged in, and it has that adapter's id as
//! its name.

use cim::{Instance, ObjectPath, Value};
use machine::settings::Adapter;
use machine::switch::SwitchRecord;
use uuid::Uuid;
use wsman::Output;

use super::words;
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::world::World;

const SWITCH: &str = "Msvm_VirtualSwitch";
const PORT: &str = "Msvm_SwitchPort";

pub(super) fn switch(world: &World, switch: &SwitchRecord) -> Vec<Instance> {
    let made = crate::switch::switch(world, switch).into_iter();
    made.map(|one| one.with("CreationClassName", SWITCH)).collect()
}

pub(super) fn service(world: &World) -> Vec<Instance> {
    let made = crate::service::switches(world).into_iter();
    made.map(|one| one.with("CreationClassName", "Msvm_VirtualSwitchManagementService")).collect()
}

fn port_name(machine: &Machine, adapter: &Adapter) -> String {
    ids::part(machine.id(), &ids::guid(adapter.instance))
}

fn port_path(world: &World, switch: Uuid, name: impl Into<Value>) -> ObjectPath {
    words::path(world, PORT)
        .with("SystemCreationClassName", SWITCH)
        .with("SystemName", ids::guid(switch))
        .with("CreationClassName", PORT)
        .with("Name", name)
}

/// The path of the port that an adapter is in.
pub(super) fn port_of(world: &World, machine: &Machine, adapter: &Adapter) -> Option<ObjectPath> {
    let switch = world.switch_id(adapter.switch.as_deref()?)?;
    Some(port_path(world, switch, port_name(machine, adapter)))
}

pub(super) fn ports(world: &World, machine: &Machine) -> Vec<Instance> {
    let all = machine.settings().adapters.iter();
    all.filter_map(|adapter| {
        let switch = world.switch_id(adapter.switch.as_deref()?)?;
        Some(
            Instance::new(PORT)
                .with("SystemName", ids::guid(switch))
                .with("Name", port_name(machine, adapter))
                .with("ElementName", adapter.name.clone()),
        )
    })
    .collect()
}

/// The name of the switch that a `Connection` of an adapter leads to, by one of its ports or by itself.
pub(super) fn named(world: &World, text: &str) -> Result<String, Refused> {
    let wrong = |why: String| invalid("Connection", why);
    let path: ObjectPath = text.parse().map_err(|e: cim::SyntaxError| wrong(e.to_string()))?;
    let key = if path.class == PORT { "SystemName" } else { "Name" };
    let id = path.text(key).and_then(ids::owner);
    let id = id.ok_or_else(|| wrong(format!("`{text}` is no port of a switch")))?;
    Ok(world.host.switch(&id.to_string())?.name)
}

/// `CreateSwitchPort`: the path by which an adapter is plugged into the switch. Only then is there a port to be asked for.
pub(super) fn create_port(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let value = invocation.given("VirtualSwitch").ok_or_else(|| invalid("VirtualSwitch", "missing"))?;
    let path = invocation.path("VirtualSwitch", value)?;
    let id =
        ids::owner_of(&path).ok_or_else(|| invalid("VirtualSwitch", format!("`{path}` is no switch")))?;
    let switch = invocation.world.host.switch(&id.to_string())?;
    let port = port_path(invocation.world, switch.id, invocation.text("Name")?);
    Ok(Output::new(0_u32).with("CreatedSwitchPort", Some(port.into())))
}
