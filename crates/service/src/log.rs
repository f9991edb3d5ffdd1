//! What the daemon says while it works: one line per event on stderr, with the ids of the machine or job concerned.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// What is logged unless somebody asks for more or less.
const DEFAULT_FILTER: &str = "info";

/// Starts logging to stderr. `filter` is as in `info,job=debug`; `times` is off where whoever reads adds them.
///
/// # Errors
/// The filter cannot be read.
pub fn start_logging(filter: Option<&str>, times: bool) -> Result<(), String> {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("`{filter}` is no log filter: {e}"))?;
    let layer =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second start in one process (a test) keeps the first one's logging.
    let _ = if times { layer.with_timer(SystemTime).try_init() } else { layer.without_time().try_init() };
    Ok(())
}
