//! The daemon: wiring, start and stop.
//!
//! ```text
//!  run ─▶ places (directories, socket) ─▶ store, locked ─▶ Host (finds guests, goes on with jobs) ─▶ rest::server
//!                                                                    signal: stop accepting, put jobs down, leave guests
//! ```
//!
//! [`run`] is told where everything is: which file or variable said so is the command line's part. The daemon ends
//! without ending anything: guests run on and are found again, jobs go on at the next start. No policy about machines
//! lives here.

#![forbid(unsafe_code)]

mod access;
mod error;
mod log;
mod notify;
mod places;
mod run;

pub use error::{ServeError, ServeErrorKind};
pub use log::start_logging;
pub use places::{default_data, default_socket, system_socket};
pub use run::{EngineChoice, ServiceOptions, run, run_until};
