//! What a guest offers its host: shutdown, heartbeat, time, key-value pairs. The components are there while a guest is; their
//! settings always. What the guest's agent does not do has settings that say that it is off, and no component.

use cim::Instance;
use machine::power::PowerState;
use uuid::{Uuid, uuid};

use crate::agents::Heard;
use crate::owner::Machine;
use crate::world::World;
use crate::{ids, kvp, peripheral};

const SHUTDOWN: Uuid = uuid!("9f8233ac-be49-4c79-8ee3-e7e1985b2077");
const TIME: Uuid = uuid!("2497f4de-e9fa-4204-80e4-4b75c46419c0");
const HEARTBEAT: Uuid = uuid!("84eaae65-2f2e-45f5-9bb5-0e857dc8eb47");
const KVP: Uuid = uuid!("2a34b1c2-fd73-4043-8a5b-dd2159bc743f");
const VSS: Uuid = uuid!("5ced1297-4598-4915-a5fc-ad21bb4d02a4");
const GUEST_INTERFACE: Uuid = uuid!("6c09bb55-d683-4da0-8931-c9bf705f6480");
const KEYBOARD: &str = "197F74E3-B84B-46DE-8AE6-82F1CD181CDC";

/// A device of a machine's running guest.
pub(crate) fn device(machine: &Machine, class: &'static str, id: &str, name: &str) -> Instance {
    Instance::new(class)
        .with("SystemCreationClassName", "Msvm_ComputerSystem")
        .with("SystemName", ids::guid(machine.id()))
        .with("CreationClassName", class)
        .with("DeviceID", ids::device(id))
        .with("ElementName", name)
        .with("Name", name)
        .with("Caption", name)
        .with("OperationalStatus", vec![2_u16])
}

/// The setting of such a device.
fn setting(machine: &Machine, class: &'static str, id: Uuid, name: &str) -> Vec<Instance> {
    vec![
        Instance::new(class)
            .with("InstanceID", ids::part(machine.id(), &ids::guid(id)))
            .with("ElementName", name)
            .with("Caption", name)
            .with("PoolID", "")
            .with("ResourceSubType", format!("Microsoft:Hyper-V:{name} Component")),
    ]
}

fn component(machine: &Machine, class: &'static str, id: Uuid, name: &str) -> Vec<Instance> {
    let running = machine.real().is_some_and(|view| view.power == PowerState::Running);
    if running { vec![device(machine, class, &ids::guid(id), name)] } else { Vec::new() }
}

pub(crate) fn shutdown(_: &World, machine: &Machine) -> Vec<Instance> {
    component(machine, "Msvm_ShutdownComponent", SHUTDOWN, "Shutdown")
}

pub(crate) fn shutdown_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    setting(machine, "Msvm_ShutdownComponentSettingData", SHUTDOWN, "Shutdown")
}

pub(crate) fn heartbeat_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    setting(machine, "Msvm_HeartbeatComponentSettingData", HEARTBEAT, "Heartbeat")
}

pub(crate) fn time_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    setting(machine, "Msvm_TimeSyncComponentSettingData", TIME, "Time Synchronization")
}

pub(crate) fn kvp_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    setting(machine, "Msvm_KvpExchangeComponentSettingData", KVP, "Key-Value Pair Exchange")
}

pub(crate) fn vss_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    off(setting(machine, "Msvm_VssComponentSettingData", VSS, "VSS"))
}

pub(crate) fn guest_interface_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    const CLASS: &str = "Msvm_GuestServiceInterfaceComponentSettingData";
    off(setting(machine, CLASS, GUEST_INTERFACE, "Guest Service Interface"))
}

/// Settings of what no guest is asked for here.
fn off(settings: Vec<Instance>) -> Vec<Instance> {
    settings.into_iter().map(|one| one.with("EnabledState", 3_u16)).collect()
}

/// Says of a component that needs the guest's agent how it is: well, out of contact, or not known yet.
fn heard(component: Instance, heard: &Heard) -> Instance {
    let (status, described) = match heard {
        Heard::Said(_) => (vec![2_u16], vec!["OK"]),
        Heard::Silent => (vec![12], vec!["No Contact"]),
        Heard::Unknown => (Vec::new(), Vec::new()),
    };
    component.with("OperationalStatus", status).with("StatusDescriptions", described)
}

pub(crate) fn heartbeat(world: &World, machine: &Machine) -> Vec<Instance> {
    let made = component(machine, "Msvm_HeartbeatComponent", HEARTBEAT, "Heartbeat");
    made.into_iter().map(|one| heard(one, &world.hear(machine))).collect()
}

pub(crate) fn kvp(world: &World, machine: &Machine) -> Vec<Instance> {
    let made = component(machine, "Msvm_KvpExchangeComponent", KVP, "Key-Value Pair Exchange");
    let whole = |one| {
        let said = world.hear(machine);
        let items = match &said {
            Heard::Said(report) => kvp::intrinsic(&world.schema, report),
            Heard::Silent | Heard::Unknown => Vec::new(),
        };
        heard(one, &said).with("EnabledState", 2_u16).with("GuestIntrinsicExchangeItems", items)
    };
    made.into_iter().map(whole).collect()
}

pub(crate) fn keyboard(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    let keyboard = device(machine, "Msvm_Keyboard", KEYBOARD, "Keyboard");
    vec![keyboard.with("EnabledState", 2_u16).with("UnicodeSupported", false)]
}

pub(crate) fn video_head(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    let id = format!(r"{}\0", peripheral::DISPLAY);
    vec![device(machine, "Msvm_VideoHead", &id, "Video Head").with("EnabledState", 2_u16)]
}

pub(crate) fn processors(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    let one = |n| device(machine, "Msvm_Processor", &format!(r"{}\{n}", ids::PROCESSOR), "Processor");
    let named = |n: u32| one(n).with("Role", "Virtual Processor").with("HealthState", 5_u16);
    (0..machine.settings().processors.count).map(named).collect()
}

pub(crate) fn memory(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    let mib = machine.settings().memory.startup_mib;
    let memory = device(machine, "Msvm_Memory", &format!(r"{}\0", ids::guid(ids::MEMORY)), "Memory");
    vec![memory.with("NumberOfBlocks", mib).with("ConsumableBlocks", mib)]
}
