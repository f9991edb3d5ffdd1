//! `GetSummaryInformation`, of machines alone, with v1's states.

use cim::{Instance, Name, Value};
use machine::power::PowerState;
use wsman::Output;

use super::state::enabled_state;
use super::words;
use crate::method::{Invocation, Refused};
use crate::owner::{Machine, Owner, OwnerId};
use crate::{fill, ids};

pub(super) fn get_summary_information(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let world = invocation.world;
    let asked = invocation.given("SettingData").filter(|value| !value.elements().is_empty()).cloned();
    let settings = match asked {
        Some(settings) => settings,
        None => {
            let path =
                |id| words::path(world, "Msvm_VirtualSystemSettingData").with("InstanceID", ids::of(id));
            world.host.machine_ids(None, usize::MAX)?.into_iter().map(path).collect::<Vec<_>>().into()
        }
    };
    if settings.elements().is_empty() {
        return Ok(Output::new(0_u32).with("SummaryInformation", Some(Value::Array(Vec::new()))));
    }
    let mut requested = invocation.given("RequestedInformation").cloned();
    // Its name tells which machine a summary is of, whether or not it is asked for.
    if let Some(Value::Array(numbers)) = &mut requested
        && !numbers.is_empty()
    {
        numbers.push(0_u32.into());
    }
    let parameters =
        vec![(Name::from("SettingData"), Some(settings)), (Name::from("RequestedInformation"), requested)];
    let mut output = words::through(invocation, crate::summary::get_summary_information, &[], parameters)?;
    let class = invocation.schema().class("Msvm_SummaryInformation");
    for (_, value) in &mut output.parameters {
        let (Some(Value::Array(all)), Some(class)) = (value, class) else { continue };
        let mut seen = std::collections::HashSet::new();
        // A planned machine may have the same id: machines come first.
        all.retain(|one| seen.insert(one.as_instance().and_then(|i| i.text("Name")).map(str::to_owned)));
        all.retain_mut(|one| match one {
            Value::Object(instance) => match power(invocation, instance) {
                Some(power) => {
                    let mut told = fill::declared(class, (**instance).clone());
                    if told.get("EnabledState").is_some() {
                        told.set("EnabledState", Some(enabled_state(power).into()));
                    }
                    **instance = fill::whole(class, &told);
                    true
                }
                None => false,
            },
            _ => false,
        });
    }
    Ok(output)
}

/// What the machine of a summary is doing; `None` of a planned one.
fn power(invocation: &Invocation<'_>, summary: &Instance) -> Option<PowerState> {
    let id = ids::owner(summary.text("Name")?)?;
    match invocation.world.load(OwnerId::Machine(id)).ok()?? {
        Owner::Machine(machine) => match *machine {
            Machine::Real(view) => Some(view.power),
            Machine::Planned(_) => None,
        },
        _ => None,
    }
}
