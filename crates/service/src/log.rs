//! What the daemon says while it works: one event at a time, with the ids of the machine and job concerned.
//!
//! Whoever emits an event names things in its own words: a job has a *subject*, the engine a *guest*. Both are the id of
//! a machine, and are shown as `machine=`, so that one word finds everything about it.

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::prelude::*;

use crate::journal::Journal;

/// What is logged unless somebody asks for more or less.
pub(crate) const DEFAULT_FILTER: &str = "info";

/// Where the daemon's stderr leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To a person or a file: lines with their time.
    Stderr,
    /// To the journal: fields (`SLIPWAY_MACHINE`, `SLIPWAY_JOB`), or plain lines when it does not take them.
    Journal,
}

/// Whether `filter` can be read.
pub(crate) fn check_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|e| format!("`{filter}` is no log filter: {e}"))
}

/// The name under which a field is shown.
pub(crate) fn shown(field: &str) -> &str {
    match field {
        "subject" | "guest" => "machine",
        other => other,
    }
}

/// Starts logging. `filter` is as in `info,job=debug`.
///
/// # Errors
/// The filter cannot be read.
pub fn start_logging(filter: &str, target: LogTarget) -> Result<(), String> {
    let registry = tracing_subscriber::registry().with(check_filter(filter)?);
    let fields = debug_fn(|to: &mut Writer<'_>, field: &Field, value| match shown(field.name()) {
        "message" => write!(to, "{value:?}"),
        // An id looks the same whoever tells it, as text or as itself.
        id @ ("machine" | "job") => write!(to, "{id}={}", format!("{value:?}").trim_matches('"')),
        name => write!(to, "{name}={value:?}"),
    });
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // A second start in one process (a test) keeps the first one's logging.
    let _ = match (target, Journal::connect()) {
        (LogTarget::Journal, Ok(journal)) => registry.with(journal).try_init(),
        // It adds the time itself.
        (LogTarget::Journal, Err(_)) => registry.with(lines.without_time()).try_init(),
        (LogTarget::Stderr, _) => registry.with(lines.with_timer(SystemTime)).try_init(),
    };
    Ok(())
}
