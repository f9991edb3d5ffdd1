//! What machines and jobs are doing, in v1's numbers, and `RequestStateChange`.

use cim::{Instance, Name, Value};
use machine::Reason;
use machine::power::PowerState;
use wsman::Output;

use super::words;
use crate::job_class::{self, JobView, Kind};
use crate::method::{Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::system;
use crate::world::World;

/// What an import is called, which for the domain is a planned machine that is realized.
const IMPORTING: &str = "Importing Virtual Machine";

/// `EnabledState` (`hyperv-semantics` §10). There is no *shutting down* apart from the guest's.
pub(super) fn enabled_state(power: PowerState) -> u16 {
    match power {
        PowerState::Running => 2,
        PowerState::Off => 3,
        PowerState::ShuttingDown => 4,
        PowerState::Paused => 32768,
        PowerState::Saved => 32769,
        PowerState::Starting | PowerState::Restoring => 32770,
        PowerState::Saving => 32773,
        PowerState::Stopping => 32774,
    }
}

pub(super) fn machine(world: &World, machine: &Machine) -> Vec<Instance> {
    let Some(view) = machine.real() else { return Vec::new() };
    let mut made = system::machine(world, machine);
    for one in &mut made {
        one.set("EnabledState", Some(enabled_state(view.power).into()));
        one.set("OtherEnabledState", None);
    }
    made
}

pub(super) fn job(world: &World, job: &JobView) -> Vec<Instance> {
    let mut made = job_class::concrete_job(world, job);
    if job.kind == Kind::Realize {
        for one in &mut made {
            for property in ["Caption", "Description", "ElementName", "Name"] {
                one.set(property, Some(IMPORTING.into()));
            }
        }
    }
    made
}

/// What a job does to its machine: 5 is *create*, 0 *unknown*.
pub(super) fn effect(job: &Instance, _machine: &Instance, association: &mut Instance) {
    let effect = if job.text("Caption") == Some(IMPORTING) { 5_u16 } else { 0 };
    association.set("ElementEffects", Some(vec![effect].into()));
}

/// `RequestStateChange`: 2 start, 3 turn off, 10 and 11 reset, 32768 pause, 32769 save.
pub(super) fn request_state_change(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let state = match invocation.number("RequestedState")? {
        state @ (2 | 3) => state,
        10 | 11 => 11,
        32768 => 9,
        32769 => 6,
        state @ (1 | 4..=9) => {
            return Err(Refused::new(
                Reason::NotSupported,
                format!("state {state} cannot be asked for here"),
            ));
        }
        other => return Err(invalid("RequestedState", format!("{other} is no state"))),
    };
    let state = u16::try_from(state).ok().map(Value::from);
    let parameters = vec![(Name::from("RequestedState"), state)];
    words::through(invocation, crate::state::request_state_change, &[], parameters)
}
