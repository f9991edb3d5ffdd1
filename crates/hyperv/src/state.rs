//! `RequestStateChange` of machines and planned machines, and shutting down by the guest.

use std::sync::Arc;
use std::time::Duration;

use machine::Reason;
use machine::power::{Request, admits};
use machine::{Cancel, Host, MachineView};
use uuid::Uuid;
use wsman::Output;

use crate::job_class::Kind;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, Owner};
use crate::tasks::Begin;

/// How long a guest may take to shut down before the job says that it did not.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(300);

/// The machine that a method was called on, by its system or by one of its devices.
pub(crate) fn called<'i>(invocation: &'i Invocation<'_>) -> Result<&'i MachineView, Refused> {
    match &invocation.owner {
        Owner::Machine(machine) => match &**machine {
            Machine::Real(view) => Ok(view),
            Machine::Planned(_) => Err(Refused::new(
                Reason::InvalidState,
                "a planned machine has no power state: realize it first",
            )),
        },
        _ => Err(invalid("path", "the host is no machine that is started and stopped")),
    }
}

/// Refuses what the machine's state or a job on it does not let happen, before a job is made of it.
fn admit(view: &MachineView, request: Request) -> Result<(), Refused> {
    if !admits(view.power, request) {
        let what = format!("cannot {} `{}`: it is {}", request.verb(), view.record.settings.name, view.power);
        return Err(Refused::new(Reason::InvalidState, what));
    }
    match view.job {
        Some(job) if view.power.at_rest() => {
            let what = format!("cannot {} the machine while job {job} works on it", request.verb());
            Err(Refused::new(Reason::Busy, what))
        }
        _ => Ok(()),
    }
}

pub(crate) fn request_state_change(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    if let Owner::Machine(machine) = &invocation.owner {
        invocation.permit(Some(machine.id()))?;
    }
    let view = called(invocation)?;
    let id = view.record.id;
    let host = &invocation.world.host;
    let request = match invocation.number("RequestedState")? {
        2 => Request::Start,
        3 => Request::Stop,
        4 => Request::Shutdown,
        6 => Request::Save,
        9 => Request::Pause,
        // Documented as the way from off to running, and used as a reset of what runs.
        10 if view.power.at_rest() => Request::Start,
        10 | 11 => Request::Reset,
        state @ (1 | 7 | 8 | 32773..=32792) => {
            return Err(Refused::new(
                Reason::NotSupported,
                format!("state {state} cannot be asked for here"),
            ));
        }
        other => return Err(invalid("RequestedState", format!("{other} is no state"))),
    };
    admit(view, request)?;
    match request {
        Request::Pause => host.pause(id).map(|()| Output::new(0_u32)),
        Request::Reset => host.reset(id).map(|()| Output::new(0_u32)),
        Request::Save => {
            let job = host.save(id, &invocation.call.principal.user)?;
            Ok(invocation.started(job))
        }
        Request::Start => begin(invocation, id, Kind::Start, Host::start),
        Request::Stop => begin(invocation, id, Kind::Stop, |host, id| host.stop(id)),
        _ => shut_down(invocation, id),
    }
}

/// Does it in a job.
fn begin(
    invocation: &Invocation<'_>,
    id: Uuid,
    kind: Kind,
    does: fn(&Arc<Host>, Uuid) -> machine::Result<()>,
) -> Result<Output, Refused> {
    let host = Arc::clone(&invocation.world.host);
    let begin = invocation.begin(kind, id);
    let job = invocation.world.tasks.begin(begin, move || does(&host, id).map(|()| Vec::new()))?;
    Ok(invocation.started(job))
}

/// Asks the guest to shut down, and waits for it in a job. Whoever ends the job ends the waiting: the guest was asked.
fn shut_down(invocation: &Invocation<'_>, id: Uuid) -> Result<Output, Refused> {
    let host = Arc::clone(&invocation.world.host);
    let cancel = Cancel::default();
    let begin = Begin { cancel: Some(cancel.clone()), ..invocation.begin(Kind::Shutdown, id) };
    let job = invocation
        .world
        .tasks
        .begin(begin, move || host.shutdown_until(id, SHUTDOWN_LIMIT, &cancel).map(|()| Vec::new()))?;
    Ok(invocation.started(job))
}

/// `InjectNonMaskableInterrupt`: done when it returns, so there is no job.
pub(crate) fn interrupt(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    invocation.world.host.interrupt(id)?;
    Ok(Output::new(0_u32))
}

/// `InitiateReboot`: returns when the guest's agent has taken the order; a machine has no button that only reboots.
pub(crate) fn initiate_reboot(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    invocation.world.host.reboot(id)?;
    Ok(Output::new(0_u32))
}

/// `InitiateShutdown`: returns when the guest was asked. With `Force` the guest is not asked twice: what Hyper-V forces is
/// the guest's programs, and that is the guest's to decide here.
pub(crate) fn initiate_shutdown(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let view = called(invocation)?;
    let id = view.record.id;
    invocation.permit(Some(id))?;
    admit(view, Request::Shutdown)?;
    // The method has no job to give; the one that is made is found by the machine it affects.
    shut_down(invocation, id)?;
    Ok(Output::new(0_u32))
}
