//! What a guest offers its host: shutdown, heartbeat, time, key-value pairs. The components are there while a guest is; their
//! settings always.

use cim::Instance;
use machine::power::PowerState;
use uuid::{Uuid, uuid};

use crate::ids;
use crate::owner::Machine;
use crate::world::World;

const SHUTDOWN: Uuid = uuid!("9f8233ac-be49-4c79-8ee3-e7e1985b2077");
const TIME: Uuid = uuid!("2497f4de-e9fa-4204-80e4-4b75c46419c0");
const HEARTBEAT: Uuid = uuid!("84eaae65-2f2e-45f5-9bb5-0e857dc8eb47");
const KVP: Uuid = uuid!("2a34b1c2-fd73-4043-8a5b-dd2159bc743f");

/// A device of a machine's running guest.
pub(crate) fn device(machine: &Machine, class: &'static str, id: &str, name: &str) -> Instance {
    Instance::new(class)
        .with("SystemCreationClassName", "Msvm_ComputerSystem")
        .with("SystemName", ids::guid(machine.id()))
        .with("CreationClassName", class)
        .with("DeviceID", ids::part(machine.id(), id))
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

pub(crate) fn keyboard(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    let keyboard = device(machine, "Msvm_Keyboard", "keyboard", "Keyboard");
    vec![keyboard.with("EnabledState", 2_u16).with("UnicodeSupported", false)]
}

pub(crate) fn video_head(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.alive() {
        return Vec::new();
    }
    vec![device(machine, "Msvm_VideoHead", "video", "Video Head").with("EnabledState", 2_u16)]
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
    let memory = device(machine, "Msvm_Memory", &ids::MEMORY.to_string(), "Memory");
    vec![memory.with("NumberOfBlocks", mib).with("ConsumableBlocks", mib)]
}
