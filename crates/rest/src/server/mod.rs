//! The server: routes, errors, limits.
//!
//! Handlers are grouped by noun. Each runs its host call with [`blocking`], so that a slow disk never holds up another
//! request.

mod audited;
mod error;
pub(crate) mod events;
pub(crate) mod jobs;
mod listen;
pub(crate) mod machines;
mod metrics;
mod patience;
mod places;
pub(crate) mod planned;
mod pulse;
pub(crate) mod simulator;
pub(crate) mod switches;
pub(crate) mod system;
pub(crate) mod users;

use std::path::PathBuf;
use std::sync::Arc;

use access::{Audit, Users};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, patch, post};
use machine::Host;
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use error::Refusal;
pub use jobs::MAX_WAIT;
pub use listen::{Limits, MAX_HEAD, MAX_HEADERS, serve};
use pulse::Pulse;
pub use simulator::{Restart, Simulation};

/// Largest request body in bytes: the longest legal one is a list of disks and switches.
pub const MAX_BODY: usize = 256 << 10;

/// Who is at the other end of a connection, as the listener found out.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Name for the journal of jobs.
    pub name: String,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    host: Arc<Host>,
    users: Arc<Users>,
    audit: Arc<Audit>,
    pulse: Arc<Pulse>,
    streams: Arc<Semaphore>,
    simulation: Option<Simulation>,
}

/// What the interface is an interface to.
#[derive(Clone)]
pub struct Parts {
    /// Machines and all that belongs to them.
    pub host: Arc<Host>,
    /// Who may come in beyond the socket.
    pub users: Arc<Users>,
    /// Where it is written who changed what.
    pub audit: Arc<Audit>,
    /// What controls the simulation behind the host, if it is one.
    pub simulation: Option<Simulation>,
}

/// The whole interface. A request needs a [`Peer`] extension, which [`serve`] gives it.
pub fn router(parts: Parts) -> Router {
    let Parts { host, users, audit, simulation } = parts;
    let pulse = Arc::new(Pulse::start(&host));
    let streams = Arc::new(Semaphore::new(events::MAX_STREAMS));
    let app = App { host, users, audit, pulse, streams, simulation };
    Router::new()
        .route("/healthz", get(system::health))
        .route("/metrics", get(system::metrics))
        .route("/v1", get(system::version))
        .route("/v1/openapi.json", get(system::openapi))
        .route("/v1/doctor", get(system::doctor))
        .route("/v1/events", get(events::events))
        .route("/v1/machines", get(machines::list).post(machines::define))
        .route("/v1/machines/{machine}", get(machines::show).patch(machines::edit).delete(machines::delete))
        .route("/v1/machines/{machine}/start", post(machines::start))
        .route("/v1/machines/{machine}/stop", post(machines::stop))
        .route("/v1/machines/{machine}/shutdown", post(machines::shutdown))
        .route("/v1/machines/{machine}/save", post(machines::save))
        .route("/v1/machines/{machine}/pause", post(machines::pause))
        .route("/v1/machines/{machine}/resume", post(machines::resume))
        .route("/v1/machines/{machine}/reset", post(machines::reset))
        .route("/v1/machines/{machine}/console", get(machines::console))
        .route("/v1/machines/{machine}/screenshot", get(machines::screenshot))
        .route("/v1/machines/{machine}/keys", post(machines::keys))
        .route("/v1/machines/{machine}/export", post(machines::export))
        .route("/v1/autostop", post(machines::autostop))
        .route("/v1/planned", get(planned::list).post(planned::import))
        .route("/v1/planned/{planned}", get(planned::show).patch(planned::edit).delete(planned::abandon))
        .route("/v1/planned/{planned}/validate", post(planned::validate))
        .route("/v1/planned/{planned}/realize", post(planned::realize))
        .route("/v1/switches", get(switches::list).post(switches::create))
        .route("/v1/switches/{switch}", get(switches::show).delete(switches::delete))
        .route("/v1/switches/{switch}/map", post(switches::map))
        .route("/v1/users", get(users::list).post(users::add))
        .route("/v1/users/{user}", get(users::show).patch(users::edit).delete(users::remove))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{job}", get(jobs::show))
        .route("/v1/jobs/{job}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{job}/discard", post(jobs::discard))
        .route("/v1/simulator", get(simulator::show))
        .route("/v1/simulator/clock", get(simulator::clock).put(simulator::set_clock))
        .route("/v1/simulator/clock/advance", post(simulator::advance))
        .route(
            "/v1/simulator/faults",
            get(simulator::faults).post(simulator::add_fault).delete(simulator::clear_faults),
        )
        .route("/v1/simulator/faults/{fault}", delete(simulator::clear_fault))
        .route(
            "/v1/simulator/events",
            get(simulator::events).post(simulator::add_event).delete(simulator::cancel_events),
        )
        .route("/v1/simulator/guests/{machine}", patch(simulator::behave))
        .route("/v1/simulator/reset", post(simulator::reset))
        .fallback(system::no_such_route)
        .method_not_allowed_fallback(system::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), audited::audited))
        .with_state(app)
}

/// Runs `work` on a blocking thread, within its request's span.
pub(crate) async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Arc<Host>) -> Result<T, machine::Error> + Send + 'static,
) -> Result<T, Refusal> {
    let host = Arc::clone(&app.host);
    let request = tracing::Span::current();
    match tokio::task::spawn_blocking(move || request.in_scope(|| work(&host))).await {
        Ok(result) => result.map_err(Refusal::from),
        Err(_) => Err(Refusal::internal("the request's worker ended unexpectedly")),
    }
}

/// The machine that a request's `word` names; the request's log lines are about it from here on.
pub(crate) fn named(host: &Host, word: &str) -> Result<Uuid, machine::Error> {
    host.resolve(word).inspect(about)
}

/// As [`named`], of a planned machine.
pub(crate) fn planned_named(host: &Host, word: &str) -> Result<Uuid, machine::Error> {
    host.resolve_planned(word).inspect(about)
}

fn about(machine: &Uuid) {
    tracing::Span::current().record("machine", tracing::field::display(machine));
}

/// A path from a client must be absolute: the daemon's working directory is nobody's.
pub(crate) fn absolute(path: PathBuf, what: &str) -> Result<PathBuf, Refusal> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Refusal::invalid(format!("{what} `{}` is not absolute", path.display())))
    }
}
