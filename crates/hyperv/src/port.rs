//! Ports: a guest's network adapters, the ports of switches, the host's bridges, and how each is connected to which.
//!
//! ```text
//!  Msvm_SyntheticEthernetPort ── Msvm_LANEndpoint ══ Msvm_LANEndpoint ── Msvm_EthernetSwitchPort ── Msvm_VirtualEthernetSwitch
//!        (of a machine)             (…\ADAPTER)        (…\ADAPTER\C)                                        │
//!  Msvm_ExternalEthernetPort ─── Msvm_LANEndpoint ══ Msvm_LANEndpoint ── Msvm_EthernetSwitchPort ───────────┘
//!        (a bridge of the host)     (bridge)           (SWITCH\C)              ══ Msvm_ActiveConnection
//! ```
//!
//! An access point has the id of the port that it is of, and a port of a switch that of the connection that it comes from, so a
//! walk needs no table. A guest's own adapters are there while it is; ports of switches always, enabled while it is.

use cim::{Instance, ObjectPath, Value};
use machine::settings::Adapter;
use machine::switch::{Bridge, SwitchKind, SwitchRecord};

use crate::association::{Association, all, end};
use crate::integration::device;
use crate::owner::{Machine, Scope};
use crate::switch::{connection_id, connection_name};
use crate::world::World;
use crate::{ethernet, ids};

const EXTERNAL: &str = "Msvm_ExternalEthernetPort";
const PORT: &str = "Msvm_EthernetSwitchPort";
const ENDPOINT: &str = "Msvm_LANEndpoint";

/// A connection, of an adapter or of a switch.
pub(crate) fn allocation(id: String, name: String) -> Instance {
    Instance::new("Msvm_EthernetPortAllocationSettingData")
        .with("InstanceID", id)
        .with("ElementName", name)
        .with("ResourceSubType", "Microsoft:Hyper-V:Ethernet Connection")
        .with("PoolID", "")
        .with("AutomaticAllocation", true)
        .with("AutomaticDeallocation", true)
        .with("VirtualQuantity", 1_u64)
        .with("Reservation", 1_u64)
        .with("Limit", 1_u64)
        .with("AllocationUnits", "count")
}

/// The id of a bridge as a port of the host.
pub(crate) fn external_id(bridge: &str) -> String {
    format!("Microsoft:{bridge}")
}

pub(crate) fn external_path(world: &World, bridge: &str) -> ObjectPath {
    world
        .path(EXTERNAL)
        .with("CreationClassName", EXTERNAL)
        .with("DeviceID", external_id(bridge))
        .with("SystemCreationClassName", "Msvm_ComputerSystem")
        .with("SystemName", world.host_name())
}

/// The host's bridges, which external switches are made of.
pub(crate) fn external(world: &World) -> Vec<Instance> {
    let switches = world.host.switches().unwrap_or_default();
    let bound = |bridge: &Bridge| {
        let kind = SwitchKind::External { bridge: bridge.name.clone() };
        switches.iter().any(|switch| switch.kind == kind)
    };
    let one = |bridge: Bridge| {
        let mut instance = Instance::new(EXTERNAL)
            .with("SystemCreationClassName", "Msvm_ComputerSystem")
            .with("SystemName", world.host_name())
            .with("CreationClassName", EXTERNAL)
            .with("DeviceID", external_id(&bridge.name))
            .with("Name", bridge.name.clone())
            .with("ElementName", bridge.name.clone())
            .with("LinkTechnology", 2_u16)
            .with("IsBound", bound(&bridge));
        instance.set("EnabledState", bridge.up.map(|up| Value::from(if up { 2_u16 } else { 3 })));
        if let Some(mac) = bridge.mac.map(|mac| ids::mac(&mac.to_string())) {
            instance.set("PermanentAddress", Some(mac.clone().into()));
            instance.set("NetworkAddresses", Some(vec![mac].into()));
        }
        instance.set("ActiveMaximumTransmissionUnit", bridge.mtu.map(|mtu| Value::from(u64::from(mtu))));
        instance
    };
    world.host.bridges().into_iter().map(one).collect()
}

/// Where a port can be reached at.
fn endpoint(system: (&'static str, String), id: String, name: String, connected: bool) -> Instance {
    Instance::new(ENDPOINT)
        .with("SystemCreationClassName", system.0)
        .with("SystemName", system.1)
        .with("CreationClassName", ENDPOINT)
        .with("Name", id)
        .with("ElementName", name)
        .with("ProtocolType", 14_u16)
        .with("LANType", 2_u16)
        .with("Connected", connected)
        .with("EnabledState", if connected { 2_u16 } else { 3 })
}

/// The access points of the host's bridges; a bridge is its own segment.
pub(crate) fn external_endpoints(world: &World) -> Vec<Instance> {
    let ports = external(world).into_iter();
    ports
        .filter_map(|port| {
            let name = port.text("Name")?.to_owned();
            let bound = port.get("IsBound").and_then(Value::as_bool) == Some(true);
            let system = ("Msvm_ComputerSystem", world.host_name().to_owned());
            let mut made = endpoint(system, external_id(&name), name.clone(), bound).with("LANID", name);
            made.set("MACAddress", port.get("PermanentAddress").cloned());
            Some(made)
        })
        .collect()
}

/// A guest's own adapters of a kind.
fn adapters(machine: &Machine, legacy: bool) -> Vec<Instance> {
    let class = if legacy { "Msvm_EmulatedEthernetPort" } else { "Msvm_SyntheticEthernetPort" };
    if !machine.alive() {
        return Vec::new();
    }
    let all = machine.settings().adapters.iter().enumerate();
    all.filter(|(_, adapter)| adapter.legacy == legacy)
        .map(|(n, adapter)| {
            let mut port = device(machine, class, &ids::guid(adapter.instance), &adapter.name)
                .with("Name", "Ethernet Port")
                .with("Caption", "Ethernet Port")
                .with("EnabledState", 2_u16)
                .with("LinkTechnology", 2_u16);
            if let Some(mac) = machine.mac(n) {
                port.set("PermanentAddress", Some(mac.clone().into()));
                port.set("NetworkAddresses", Some(vec![mac].into()));
            }
            port
        })
        .collect()
}

pub(crate) fn synthetic(_: &World, machine: &Machine) -> Vec<Instance> {
    adapters(machine, false)
}

pub(crate) fn emulated(_: &World, machine: &Machine) -> Vec<Instance> {
    adapters(machine, true)
}

/// The adapters of a machine that are plugged in, each with its number and its switch.
fn plugged<'m>(
    world: &World,
    machine: &'m Machine,
) -> impl Iterator<Item = (usize, &'m Adapter, SwitchRecord)> {
    let adapters = machine.real().map(|view| &view.record.settings.adapters);
    let adapters = adapters.into_iter().flatten().enumerate();
    let switches = world.host.switches().unwrap_or_default();
    adapters.filter_map(move |(n, adapter)| {
        let switch = switches.iter().find(|s| adapter.switch.as_ref() == Some(&s.name))?;
        Some((n, adapter, switch.clone()))
    })
}

fn switch_port(switch: &SwitchRecord, id: String, name: String, called: String, on: bool) -> Instance {
    Instance::new(PORT)
        .with("SystemName", ids::guid(switch.id))
        .with("DeviceID", id)
        .with("Name", name)
        .with("ElementName", called)
        .with("StatusDescriptions", vec!["OK"])
        .with("LinkTechnology", 2_u16)
        .with("EnabledState", if on { 2_u16 } else { 3 })
}

/// The ports that a machine is plugged into.
pub(crate) fn of_machine(world: &World, machine: &Machine) -> Vec<Instance> {
    let port = |(_, adapter, switch): (usize, &Adapter, SwitchRecord)| {
        let id = ethernet::connection_id(machine, adapter);
        let called = ethernet::port_name(adapter).to_owned();
        switch_port(&switch, id, ids::guid(adapter.instance), called, machine.alive())
    };
    plugged(world, machine).map(port).collect()
}

/// The port of a switch's own connection.
pub(crate) fn of_switch(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    let name = connection_name(switch).into_iter();
    name.map(|called| switch_port(switch, connection_id(switch), ids::guid(switch.id), called, true))
        .collect()
}

/// The access points of a machine's adapters, and those of the ports that they are plugged into.
pub(crate) fn endpoints(world: &World, machine: &Machine) -> Vec<Instance> {
    let mut all = Vec::new();
    let on = machine.alive();
    if on {
        for (n, adapter) in machine.settings().adapters.iter().enumerate() {
            let system = ("Msvm_ComputerSystem", ids::guid(machine.id()));
            let (id, name) = (ethernet::adapter_id(machine, adapter), adapter.name.clone());
            let mut made = endpoint(system, id, name, adapter.switch.is_some());
            made.set("MACAddress", machine.mac(n).map(Value::from));
            all.push(made);
        }
    }
    for (_, adapter, switch) in plugged(world, machine) {
        let system = ("Msvm_VirtualEthernetSwitch", ids::guid(switch.id));
        let name = ethernet::port_name(adapter).to_owned();
        all.push(endpoint(system, ethernet::connection_id(machine, adapter), name, on));
    }
    all
}

/// The access point of a switch's own port.
pub(crate) fn switch_endpoints(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    let Some(name) = connection_name(switch) else { return Vec::new() };
    let system = ("Msvm_VirtualEthernetSwitch", ids::guid(switch.id));
    let mut made = endpoint(system, connection_id(switch), name, true);
    if let SwitchKind::External { bridge } = &switch.kind {
        made.set("LANID", Some(bridge.clone().into()));
    }
    vec![made]
}

/// Whether two texts are there and the same.
fn same(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

fn of_system(system: &Instance, part: &Instance) -> bool {
    same(system.text("Name"), part.text("SystemName"))
}

/// The id of what a port comes from: that of a guest's adapter says in its system which machine it is of.
fn id_of(port: &Instance) -> Option<String> {
    let id = port.text("DeviceID")?;
    if port.class == PORT || port.class == EXTERNAL {
        return Some(id.to_owned());
    }
    let adapter = id.strip_prefix(ids::PREFIX)?;
    Some(ids::part(ids::owner(port.text("SystemName")?)?, adapter))
}

fn of_port(port: &Instance, endpoint: &Instance) -> bool {
    same(id_of(port).as_deref(), endpoint.text("Name"))
}

fn set_by(port: &Instance, setting: &Instance) -> bool {
    same(id_of(port).as_deref(), setting.text("InstanceID"))
}

/// The settings are those that are in force.
fn current(_: &Instance, _: &Instance, association: &mut Instance) {
    association.set("IsCurrent", Some(1_u16.into()));
}

/// A port of a switch with the connection that it comes from.
const fn settings(scope: Scope) -> Association {
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", PORT, scope),
        end("SettingData", "Msvm_EthernetPortAllocationSettingData", scope),
    )
    .when(set_by)
}

const fn element_settings(scope: Scope) -> Association {
    all(
        "Msvm_ElementSettingData",
        end("ManagedElement", PORT, scope),
        end("SettingData", "Msvm_EthernetPortAllocationSettingData", scope),
    )
    .when(set_by)
    .saying(current)
}

const fn access(class: &'static str, port: &'static str, scope: Scope) -> Association {
    all(class, end("Antecedent", port, scope), end("Dependent", ENDPOINT, scope)).when(of_port)
}

/// How ports, switches, machines and the host belong together.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_SystemDevice",
        end("GroupComponent", "Msvm_ComputerSystem", Scope::Machine),
        end("PartComponent", "CIM_LogicalDevice", Scope::Machine),
    )
    .when(of_system),
    all(
        "Msvm_SystemDevice",
        end("GroupComponent", "Msvm_ComputerSystem", Scope::Host),
        end("PartComponent", EXTERNAL, Scope::Host),
    ),
    all(
        "Msvm_SystemDevice",
        end("GroupComponent", "Msvm_VirtualEthernetSwitch", Scope::Switch),
        end("PartComponent", PORT, Scope::Switch),
    ),
    all(
        "Msvm_SystemDevice",
        end("GroupComponent", "Msvm_VirtualEthernetSwitch", Scope::Switch),
        end("PartComponent", PORT, Scope::Machine),
    )
    .when(of_system),
    settings(Scope::Machine),
    settings(Scope::Switch),
    element_settings(Scope::Machine),
    element_settings(Scope::Switch),
    access("Msvm_DeviceSAPImplementation", "Msvm_SyntheticEthernetPort", Scope::Machine),
    access("Msvm_DeviceSAPImplementation", "Msvm_EmulatedEthernetPort", Scope::Machine),
    access("Msvm_EthernetDeviceSAPImplementation", PORT, Scope::Machine),
    access("Msvm_EthernetDeviceSAPImplementation", PORT, Scope::Switch),
    access("Msvm_EthernetDeviceSAPImplementation", EXTERNAL, Scope::Host),
    all(
        "Msvm_ActiveConnection",
        end("Antecedent", ENDPOINT, Scope::Machine),
        end("Dependent", ENDPOINT, Scope::Machine),
    )
    .when(|port, adapter| {
        let (Some(port), Some(adapter)) = (port.text("Name"), adapter.text("Name")) else { return false };
        port.strip_suffix(ethernet::CONNECTION) == Some(adapter)
    }),
    all(
        "Msvm_ActiveConnection",
        end("Antecedent", ENDPOINT, Scope::Switch),
        end("Dependent", ENDPOINT, Scope::Host),
    )
    .when(|port, bridge| same(port.text("LANID"), bridge.text("LANID"))),
    all(
        "Msvm_VirtualSystemSettingDataComponent",
        end("GroupComponent", "Msvm_VirtualEthernetSwitchSettingData", Scope::Switch),
        end("PartComponent", "Msvm_EthernetPortAllocationSettingData", Scope::Switch),
    ),
    all(
        "Msvm_ElementCapabilities",
        end("ManagedElement", "Msvm_VirtualEthernetSwitchManagementService", Scope::Host),
        end("Capabilities", "Msvm_VirtualEthernetSwitchManagementCapabilities", Scope::Host),
    ),
];
