//! `Msvm_ComputerSystem` (the host, and machines) and `Msvm_PlannedComputerSystem`.

use cim::{Datetime, Instance, Value};
use jiff::Timestamp;
use machine::power::PowerState;

use crate::ids;
use crate::owner::Machine;
use crate::world::World;

/// A point in time as CIM has it.
pub(crate) fn datetime(at: Timestamp) -> Datetime {
    Datetime::utc(at.as_microsecond())
}

/// Hyper-V's number for what a machine is doing, and the word where the number says only *other*.
pub(crate) fn enabled_state(power: PowerState) -> (u16, Option<&'static str>) {
    match power {
        PowerState::Running => (2, None),
        PowerState::Off => (3, None),
        PowerState::ShuttingDown => (4, None),
        PowerState::Saved => (6, None),
        PowerState::Paused => (9, None),
        PowerState::Starting | PowerState::Restoring => (10, None),
        PowerState::Stopping => (1, Some("Stopping")),
        PowerState::Saving => (1, Some("Saving")),
    }
}

/// `OperationalStatus` and `StatusDescriptions`: the second entry says what is being done to the machine.
pub(crate) fn status(world: &World, machine: &Machine) -> (Vec<u16>, Vec<&'static str>) {
    let job = machine.real().and_then(|view| view.job).and_then(|id| world.job(id));
    match job.map(|job| job.kind) {
        Some(crate::job_class::Kind::Export) => {
            (vec![11, 32773], vec!["In service", "Exporting Virtual Machine"])
        }
        _ => (vec![2], vec!["Operating normally"]),
    }
}

pub(crate) fn host(world: &World) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_ComputerSystem")
            .with("CreationClassName", "Msvm_ComputerSystem")
            .with("Name", world.host_name())
            .with("ElementName", world.host_name())
            .with("Caption", "Hosting Computer System")
            .with("Description", "Slipway Hosting Computer System")
            .with("OperationalStatus", vec![2_u16])
            .with("StatusDescriptions", vec!["Operating normally"])
            .with("EnabledState", 2_u16)
            .with("RequestedState", 12_u16)
            .with("EnabledDefault", 2_u16)
            .with("NumberOfNumaNodes", 1_u16),
    ]
}

/// What a machine's system and a planned one have in common.
fn system(world: &World, machine: &Machine, class: &'static str) -> Instance {
    let (status, described) = status(world, machine);
    Instance::new(class)
        .with("CreationClassName", class)
        .with("Name", ids::guid(machine.id()))
        .with("ElementName", machine.settings().name.clone())
        .with("Caption", "Virtual Machine")
        .with("InstallDate", datetime(machine.created()))
        .with("OperationalStatus", status)
        .with("StatusDescriptions", described)
        .with("HealthState", 5_u16)
        .with("RequestedState", 12_u16)
}

pub(crate) fn machine(world: &World, machine: &Machine) -> Vec<Instance> {
    let Some(view) = machine.real() else { return Vec::new() };
    let (state, other) = enabled_state(view.power);
    let mut instance = system(world, machine, "Msvm_ComputerSystem")
        .with("Description", "Slipway Virtual Machine")
        .with("EnabledState", state)
        .with("AvailableRequestedStates", requestable(view.power))
        .with("NumberOfNumaNodes", 1_u16)
        .with("ReplicationState", 0_u16)
        .with("ReplicationHealth", 0_u16)
        .with("ReplicationMode", 0_u16)
        .with("FailedOverReplicationType", 0_u16)
        .with("LastReplicationType", 0_u16)
        .with("EnhancedSessionModeState", 3_u16)
        .with("HwThreadsPerCoreRealized", 1_u32);
    instance.set("OtherEnabledState", other.map(Value::from));
    vec![instance]
}

pub(crate) fn planned(world: &World, machine: &Machine) -> Vec<Instance> {
    if machine.planned().is_none() {
        return Vec::new();
    }
    let state = if machine.saved() { 6_u16 } else { 3 };
    vec![
        system(world, machine, "Msvm_PlannedComputerSystem")
            .with("EnabledState", state)
            .with("EnabledDefault", state),
    ]
}

/// The states that `RequestStateChange` takes as things are.
fn requestable(power: PowerState) -> Vec<u16> {
    use machine::power::{Request, admits};
    let states = [
        (2, Request::Start),
        (3, Request::Stop),
        (4, Request::Shutdown),
        (6, Request::Save),
        (9, Request::Pause),
        (11, Request::Reset),
    ];
    states.into_iter().filter(|(_, request)| admits(power, *request)).map(|(state, _)| state).collect()
}
