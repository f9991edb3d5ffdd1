//! Network adapters: their own settings, and the connection of each (`…\C`).

use cim::{Instance, Value};
use machine::config::PORT_NAME;
use machine::planned::Plug;
use machine::settings::Adapter;

use crate::ids;
use crate::owner::Machine;
use crate::port::allocation;
use crate::world::World;

/// The end of a connection's id, after the adapter's.
pub(crate) const CONNECTION: &str = r"\C";
/// What the default settings of a connection are called.
pub(crate) const DEFAULT_CONNECTION: &str = "Ethernet Connection";

pub(crate) fn adapter_id(machine: &Machine, adapter: &Adapter) -> String {
    ids::part(machine.id(), &ids::guid(adapter.instance))
}

pub(crate) fn connection_id(machine: &Machine, adapter: &Adapter) -> String {
    format!("{}{CONNECTION}", adapter_id(machine, adapter))
}

/// What the port is called that an adapter is plugged into.
pub(crate) fn port_name(adapter: &Adapter) -> &str {
    adapter.port.as_deref().unwrap_or(PORT_NAME)
}

pub(crate) fn synthetic(_: &World, machine: &Machine) -> Vec<Instance> {
    adapters(machine, false).collect()
}

pub(crate) fn emulated(_: &World, machine: &Machine) -> Vec<Instance> {
    adapters(machine, true).collect()
}

fn adapters(machine: &Machine, legacy: bool) -> impl Iterator<Item = Instance> {
    let (class, sub_type) = if legacy {
        ("Msvm_EmulatedEthernetPortSettingData", "Microsoft:Hyper-V:Emulated Ethernet Port")
    } else {
        ("Msvm_SyntheticEthernetPortSettingData", "Microsoft:Hyper-V:Synthetic Ethernet Port")
    };
    let all = machine.settings().adapters.iter().enumerate();
    all.filter(move |(_, adapter)| adapter.legacy == legacy).map(move |(n, adapter)| {
        let mut instance = Instance::new(class)
            .with("InstanceID", adapter_id(machine, adapter))
            .with("ElementName", adapter.name.clone())
            .with("ResourceSubType", sub_type)
            .with("PoolID", "")
            .with("StaticMacAddress", adapter.mac_static);
        if !legacy {
            let id = format!("{{{}}}", ids::guid(adapter.instance));
            instance.set("VirtualSystemIdentifiers", Some(vec![id].into()));
        }
        instance.set("Address", machine.mac(n).map(Value::from));
        instance
    })
}

/// Whether the adapter leads somewhere. One that is planned does so while nobody took it off, though the switch it led to is
/// not here: what is missing then is the switch, and a client that names another does not also say that it is connected.
fn connected(machine: &Machine, adapter: &Adapter) -> bool {
    let planned = || {
        let request = &machine.planned()?.record.request;
        let out = request.disconnected || request.parts.adapter(adapter.instance) == Some(&Plug::Out);
        Some(adapter.source_switch.is_some() && !out)
    };
    adapter.switch.is_some() || planned() == Some(true)
}

pub(crate) fn connection(world: &World, machine: &Machine) -> Vec<Instance> {
    let all = machine.settings().adapters.iter();
    all.map(|adapter| {
        let class = if adapter.legacy {
            "Msvm_EmulatedEthernetPortSettingData"
        } else {
            "Msvm_SyntheticEthernetPortSettingData"
        };
        let parent = world.path(class).with("InstanceID", adapter_id(machine, adapter));
        let switch = adapter.switch.as_deref().and_then(|name| world.switch_id(name));
        let mut instance = allocation(connection_id(machine, adapter), port_name(adapter).to_owned())
            .with("Parent", parent.to_string())
            .with("EnabledState", if connected(machine, adapter) { 2_u16 } else { 3 })
            .with(
                "HostResource",
                Vec::from_iter(switch.map(|id| crate::switch::path(world, id).to_string())),
            );
        let last = adapter.switch.clone().or_else(|| adapter.source_switch.clone());
        instance.set("LastKnownSwitchName", last.map(Value::from));
        instance.set("Address", None);
        instance
    })
    .collect()
}

/// The name that a connection's settings give its port: `Some(None)` for what is called so by default.
pub(crate) fn named_port(instance: &Instance) -> Option<Option<String>> {
    let name = instance.text("ElementName")?;
    let default = [PORT_NAME, DEFAULT_CONNECTION, ""].contains(&name);
    Some((!default).then(|| name.to_owned()))
}
