//! `/v1/simulator`: what only a daemon on the simulator has. Any other refuses, and says so.
//!
//! A request that makes something happen answers when the domain has heard of it: whoever asks about the machine next sees
//! what came of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use engine::SimEngine;
use engine::sim::{RuleError, SimError};
use machine::{Host, Reason};

use super::{App, Refusal, blocking};
use crate::wire::{
    Advance, Behaviour, Cleared, EventList, Fault, FaultList, NewEvent, NewFault, Problem, Reset, Scenario,
    SetClock, SimulatedEvent, SimulatedGuest, Simulator, SimulatorClock,
};

type Body<T> = Result<Json<T>, JsonRejection>;

/// How long the domain may take to hear of what happened.
const HEARD: Duration = Duration::from_secs(10);

/// What makes a simulation begin anew; with that scenario, or with the one that it has.
pub type Restart = dyn Fn(&Arc<Host>, Option<Scenario>) -> Result<(), machine::Error> + Send + Sync;

/// The simulation behind the host.
#[derive(Clone)]
pub struct Simulation {
    /// The engine.
    pub engine: SimEngine,
    /// The time of day by its clock, RFC 3339.
    pub time: Arc<dyn Fn() -> String + Send + Sync>,
    /// Begins anew.
    pub restart: Arc<Restart>,
}

fn invalid(message: impl Into<String>) -> machine::Error {
    machine::Error::new(Reason::InvalidArgument, message)
}

fn refused(e: SimError) -> machine::Error {
    match e {
        SimError::NoGuest(_) => machine::Error::new(Reason::InvalidState, e.to_string())
            .hint("`slipway machine start` it first, or give the event a time"),
        _ => invalid(e.to_string()),
    }
}

fn wrong_rule(e: RuleError) -> machine::Error {
    invalid(e.to_string())
}

/// Runs `work` on the simulation, if there is one.
async fn with<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Arc<Host>, &Simulation) -> Result<T, machine::Error> + Send + 'static,
) -> Result<Json<T>, Refusal> {
    let Some(simulation) = app.simulation.clone() else {
        return Err(Refusal::not_found("this daemon runs real guests and has no simulator")
            .hint("`slipway serve --engine sim` has one"));
    };
    blocking(app, move |host| work(host, &simulation)).await.map(Json)
}

fn clock_of(simulation: &Simulation) -> SimulatorClock {
    let mode = match simulation.engine.clock_mode() {
        engine::sim::ClockMode::Real => "real",
        engine::sim::ClockMode::Manual => "manual",
    };
    let elapsed_ms = u64::try_from(simulation.engine.now().as_millis()).unwrap_or(u64::MAX);
    SimulatorClock { mode: mode.to_owned(), elapsed_ms, time: (simulation.time)() }
}

/// The machine's id, if the word names one: a scenario may speak of machines to come.
fn machine(host: &Host, word: &str) -> String {
    host.resolve(word).map_or_else(|_| word.to_owned(), |id| id.to_string())
}

/// The simulation: its seed, clock and guests.
#[utoipa::path(get, path = "/v1/simulator", tag = "simulator",
    responses((status = 200, body = Simulator), (status = 404, body = Problem)))]
pub(crate) async fn show(State(app): State<App>) -> Result<Json<Simulator>, Refusal> {
    with(&app, |_, s| {
        Ok(Simulator {
            seed: s.engine.seed().0,
            clock: clock_of(s),
            guests: s.engine.guests().into_iter().map(SimulatedGuest::from).collect(),
        })
    })
    .await
}

/// The clock.
#[utoipa::path(get, path = "/v1/simulator/clock", tag = "simulator",
    responses((status = 200, body = SimulatorClock), (status = 404, body = Problem)))]
pub(crate) async fn clock(State(app): State<App>) -> Result<Json<SimulatorClock>, Refusal> {
    with(&app, |_, s| Ok(clock_of(s))).await
}

/// Changes what moves the clock, or moves it to a moment.
#[utoipa::path(put, path = "/v1/simulator/clock", tag = "simulator", request_body = SetClock,
    responses((status = 200, body = SimulatorClock), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn set_clock(
    State(app): State<App>,
    body: Body<SetClock>,
) -> Result<Json<SimulatorClock>, Refusal> {
    let Json(set) = body?;
    with(&app, move |host, s| {
        let mode = crate::wire::clock_mode(set.mode.as_deref()).map_err(invalid)?;
        let by = set.elapsed_ms.map(|to| {
            let (to, now) = (Duration::from_millis(to), s.engine.now());
            to.checked_sub(now).ok_or_else(|| {
                invalid(format!("the clock shows {} ms already and never goes back", now.as_millis()))
            })
        });
        let by = by.transpose()?;
        if let Some(mode) = mode {
            s.engine.set_clock_mode(mode);
        }
        if let Some(by) = by {
            s.engine.advance(by).map_err(refused)?;
            host.settle(HEARD);
        }
        Ok(clock_of(s))
    })
    .await
}

/// Moves the clock on; answers when everything that was due has happened.
#[utoipa::path(post, path = "/v1/simulator/clock/advance", tag = "simulator", request_body = Advance,
    responses((status = 200, body = SimulatorClock), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn advance(
    State(app): State<App>,
    body: Body<Advance>,
) -> Result<Json<SimulatorClock>, Refusal> {
    let Json(Advance { ms }) = body?;
    with(&app, move |host, s| {
        s.engine.advance(Duration::from_millis(ms)).map_err(refused)?;
        host.settle(HEARD);
        Ok(clock_of(s))
    })
    .await
}

/// Every fault, spent ones too.
#[utoipa::path(get, path = "/v1/simulator/faults", tag = "simulator",
    responses((status = 200, body = FaultList), (status = 404, body = Problem)))]
pub(crate) async fn faults(State(app): State<App>) -> Result<Json<FaultList>, Refusal> {
    with(&app, |_, s| {
        Ok(FaultList { faults: s.engine.faults().list().into_iter().map(Fault::from).collect() })
    })
    .await
}

/// Lets something go wrong.
#[utoipa::path(post, path = "/v1/simulator/faults", tag = "simulator", request_body = NewFault,
    responses((status = 201, body = Fault), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn add_fault(
    State(app): State<App>,
    body: Body<NewFault>,
) -> Result<(StatusCode, Json<Fault>), Refusal> {
    let Json(mut fault) = body?;
    let added = with(&app, move |host, s| {
        fault.machine = fault.machine.map(|word| machine(host, &word));
        let rule = fault.try_into().map_err(invalid)?;
        s.engine.add_fault(rule).map(Fault::from).map_err(wrong_rule)
    });
    Ok((StatusCode::CREATED, added.await?))
}

/// Clears all faults and lets go of what hangs at them.
#[utoipa::path(delete, path = "/v1/simulator/faults", tag = "simulator",
    responses((status = 200, body = Cleared), (status = 404, body = Problem)))]
pub(crate) async fn clear_faults(State(app): State<App>) -> Result<Json<Cleared>, Refusal> {
    with(&app, |_, s| Ok(Cleared { cleared: s.engine.clear_faults() })).await
}

/// Clears one fault and lets go of what hangs at it.
#[utoipa::path(delete, path = "/v1/simulator/faults/{fault}", tag = "simulator", params(("fault" = u64, Path)),
    responses((status = 200, body = Cleared), (status = 404, body = Problem)))]
pub(crate) async fn clear_fault(
    State(app): State<App>,
    Path(id): Path<u64>,
) -> Result<Json<Cleared>, Refusal> {
    with(&app, move |_, s| {
        if s.engine.clear_fault(id) {
            return Ok(Cleared { cleared: 1 });
        }
        Err(machine::Error::new(Reason::NotFound, format!("there is no fault {id}"))
            .hint("`slipway simulator fault list` shows what there is"))
    })
    .await
}

/// Events that wait for their time.
#[utoipa::path(get, path = "/v1/simulator/events", tag = "simulator",
    responses((status = 200, body = EventList), (status = 404, body = Problem)))]
pub(crate) async fn events(State(app): State<App>) -> Result<Json<EventList>, Refusal> {
    with(&app, |_, s| {
        Ok(EventList { events: s.engine.events().into_iter().map(SimulatedEvent::from).collect() })
    })
    .await
}

/// Lets a guest do something, at once or after a time.
#[utoipa::path(post, path = "/v1/simulator/events", tag = "simulator", request_body = NewEvent,
    responses((status = 200, body = EventList, description = "what waits for its time now"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn add_event(
    State(app): State<App>,
    body: Body<NewEvent>,
) -> Result<Json<EventList>, Refusal> {
    let Json(event) = body?;
    with(&app, move |host, s| {
        let what = event.happening().map_err(invalid)?;
        match event.after_ms {
            None => {
                let id = host.resolve(&event.machine)?;
                s.engine.happen(&id.to_string(), &what).map_err(refused)?;
                host.settle(HEARD);
            }
            Some(ms) => {
                let at = s.engine.now().saturating_add(Duration::from_millis(ms));
                s.engine.plan(&machine(host, &event.machine), at, what).map_err(refused)?;
            }
        }
        Ok(EventList { events: s.engine.events().into_iter().map(SimulatedEvent::from).collect() })
    })
    .await
}

/// Takes back all events that wait.
#[utoipa::path(delete, path = "/v1/simulator/events", tag = "simulator",
    responses((status = 200, body = Cleared), (status = 404, body = Problem)))]
pub(crate) async fn cancel_events(State(app): State<App>) -> Result<Json<Cleared>, Refusal> {
    with(&app, |_, s| Ok(Cleared { cleared: s.engine.cancel_events(None) })).await
}

/// Lets a machine's guests behave so, the one that runs and those to come.
#[utoipa::path(patch, path = "/v1/simulator/guests/{machine}", tag = "simulator", params(("machine" = String, Path)),
    request_body = Behaviour,
    responses((status = 200, body = Behaviour), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn behave(
    State(app): State<App>,
    Path(word): Path<String>,
    body: Body<Behaviour>,
) -> Result<Json<Behaviour>, Refusal> {
    let Json(wanted) = body?;
    with(&app, move |host, s| {
        let id = host.resolve(&word)?;
        let behaviour = wanted.over(s.engine.behaviour(id));
        s.engine.set_behaviour(id, behaviour).map_err(refused)?;
        Ok(behaviour.into())
    })
    .await
}

/// Begins anew: every machine, job, fault and event goes, and what the scenario says comes.
#[utoipa::path(post, path = "/v1/simulator/reset", tag = "simulator", request_body = Reset,
    responses((status = 200, body = Simulator), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn reset(State(app): State<App>, body: Body<Reset>) -> Result<Json<Simulator>, Refusal> {
    let Json(Reset { scenario }) = body?;
    let _: Json<()> = with(&app, move |host, s| (s.restart)(host, scenario)).await?;
    show(State(app)).await
}
