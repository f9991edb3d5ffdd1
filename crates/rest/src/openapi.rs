//! The OpenAPI document of `/v1`, made from the handlers themselves.
//!
//! `docs/openapi.json` is this document, checked in; a test compares the two.

use utoipa::OpenApi;

use crate::server::{events, jobs, machines, planned, simulator, switches, system, users};

#[derive(OpenApi)]
#[openapi(
    info(title = "Slipway", description = "Virtual machines on QEMU/KVM that move in and out of Hyper-V. Served over \
        a Unix socket; every response that is not 2xx carries a Problem.", license(name = "MIT OR Apache-2.0")),
    paths(
        system::version, system::doctor, events::events,
        machines::list, machines::show, machines::define, machines::edit, machines::delete,
        machines::start, machines::stop, machines::shutdown, machines::save, machines::pause, machines::resume,
        machines::reset, machines::autostop,
        machines::console, machines::screenshot, machines::keys, machines::export,
        planned::list, planned::show, planned::import, planned::edit, planned::validate, planned::realize,
        planned::abandon,
        switches::list, switches::show, switches::create, switches::map, switches::delete,
        jobs::list, jobs::show, jobs::cancel, jobs::discard,
        users::list, users::show, users::add, users::edit, users::remove,
        simulator::show, simulator::clock, simulator::set_clock, simulator::advance, simulator::faults,
        simulator::add_fault, simulator::clear_faults, simulator::clear_fault, simulator::events, simulator::add_event,
        simulator::cancel_events, simulator::behave, simulator::reset,
    ),
    components(schemas(crate::wire::Job, crate::wire::MachineEvent)),
    tags(
        (name = "host", description = "the daemon and its host"),
        (name = "machines", description = "machines"),
        (name = "import", description = "packages on their way in"),
        (name = "switches", description = "virtual switches"),
        (name = "jobs", description = "work that takes time and outlives the daemon"),
        (name = "users", description = "who may come in beyond the socket"),
        (name = "events", description = "what happens"),
        (name = "simulator", description = "what only a daemon with `--engine sim` has"),
    )
)]
struct Document;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
