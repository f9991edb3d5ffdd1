//! `GetSummaryInformation`: what a list of machines shows, in one call.

use access::Action;
use cim::{Instance, Value};
use wsman::Output;

use crate::fill;
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, Owner, Scope};
use crate::setting;
use crate::system::{datetime, enabled_state, status};
use crate::world::World;

const CLASS: &str = "Msvm_SummaryInformation";
/// Most settings that one call names.
const MAX_SETTINGS: usize = 10_000;

/// The numbers by which clients ask for properties; what is not here is not known of any machine and stays null.
const REQUESTED: &[(u64, &[&str])] = &[
    (0, &["Name"]),
    (1, &["ElementName"]),
    (2, &["CreationTime"]),
    (3, &["Notes"]),
    (4, &["NumberOfProcessors"]),
    (9, &["VirtualSwitchNames"]),
    (11, &["Shielded"]),
    (100, &["EnabledState", "OtherEnabledState"]),
    (103, &["MemoryUsage"]),
    (109, &["HealthState"]),
    (110, &["OperationalStatus"]),
    (111, &["StatusDescriptions"]),
    (114, &["ReplicationMode"]),
    (115, &["ReplicationState"]),
    (116, &["ReplicationHealth"]),
    (120, &["SwapFilesInUse"]),
];

/// What is told whether or not somebody asks: what the instance is about, and which machine of it.
const ALWAYS: &[&str] = &["InstanceID", "Version", "VirtualSystemSubType", "HostComputerSystemName"];

fn summary(world: &World, machine: &Machine) -> Instance {
    let settings = machine.settings();
    let (state, other) = match machine {
        Machine::Real(view) => enabled_state(view.power),
        Machine::Planned(_) => (if machine.saved() { 6 } else { 3 }, None),
    };
    let (status, described) = status(world, machine);
    let mut switches: Vec<String> = settings.adapters.iter().filter_map(|a| a.switch.clone()).collect();
    switches.dedup();
    let mut instance = Instance::new(CLASS)
        .with("InstanceID", ids::of(machine.id()))
        .with("Name", ids::guid(machine.id()))
        .with("ElementName", settings.name.clone())
        .with("CreationTime", datetime(machine.created()))
        .with("Notes", settings.notes.clone())
        .with("NumberOfProcessors", settings.processors.count.min(u16::MAX.into()))
        .with("VirtualSwitchNames", switches)
        .with("Shielded", false)
        .with("EnabledState", state)
        .with("HealthState", 5_u16)
        .with("OperationalStatus", status)
        .with("StatusDescriptions", described)
        .with("ReplicationMode", 0_u16)
        .with("ReplicationState", 0_u16)
        .with("ReplicationHealth", 0_u16)
        .with("SwapFilesInUse", false)
        .with("Version", setting::version(settings))
        .with("VirtualSystemSubType", setting::sub_type(settings.generation))
        .with("HostComputerSystemName", world.host_name());
    instance.set("OtherEnabledState", other.map(Value::from));
    if machine.alive() {
        instance.set("MemoryUsage", Some(settings.memory.startup_mib.into()));
    }
    instance
}

pub(crate) fn get_summary_information(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let world = invocation.world;
    let class = invocation.schema().class(CLASS).ok_or_else(|| invalid("SummaryInformation", "no class"))?;
    let requested = invocation.given("RequestedInformation").map_or(&[][..], Value::elements);
    let wanted: Vec<&str> = requested
        .iter()
        .filter_map(Value::as_u64)
        .filter_map(|number| REQUESTED.iter().find(|(known, _)| *known == number))
        .flat_map(|(_, properties)| properties.iter().copied())
        .chain(ALWAYS.iter().copied())
        .collect();
    let owners = match invocation.given("SettingData").map(Value::elements) {
        // None means all of them.
        None | Some([]) => world.owners(Scope::Machine).collect::<Result<_, _>>()?,
        Some(settings) if settings.len() > MAX_SETTINGS => {
            return Err(invalid("SettingData", format!("more than {MAX_SETTINGS}")));
        }
        Some(settings) => {
            let mut owners = Vec::new();
            for setting in settings {
                let id = invocation.machine_of("SettingData", setting)?;
                owners.extend(World::candidates(Scope::Machine, id));
            }
            owners
        }
    };
    let mut all = Vec::new();
    for id in owners {
        let Some(Owner::Machine(machine)) = world.load(id)? else { continue };
        if !world.may(invocation.call, Action::See, Some(machine.id())) {
            continue;
        }
        let mut made = summary(world, &machine);
        if !requested.is_empty() {
            made.properties.retain(|(name, _)| wanted.iter().any(|wanted| *name == *wanted));
        }
        all.push(fill::whole(class, &made));
    }
    Ok(Output::new(0_u32).with("SummaryInformation", Some(all.into())))
}
