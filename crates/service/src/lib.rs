//! The daemon: wiring, start and stop.
//!
//! ```text
//!  run ─▶ places (directories, socket) ─▶ store, locked ─▶ Host (finds guests, goes on with jobs) ─▶ rest::server
//!                                                                    signal: stop accepting, put jobs down, leave guests
//! ```
//!
//! [`Settings`] joins what the command line, the environment and the configuration file say; where that file is and what
//! the environment holds is the command line's part. The daemon ends
//! without ending anything: guests run on and are found again, jobs go on at the next start. No policy about machines
//! lives here.

#![forbid(unsafe_code)]

mod config;
mod error;
mod journal;
mod log;
mod notify;
mod peers;
mod places;
mod remote;
mod run;
mod simulation;

pub use config::{ConfigError, ConfigFile, Given, Origin, Setting, Settings};
pub use error::{ServeError, ServeErrorKind};
pub use log::{LogTarget, start_logging};
pub use places::{default_config, default_data, default_socket, system_config, system_socket};
pub use remote::{Addresses, Protocol, Remote};
pub use run::{EngineChoice, ServiceOptions, run, run_until};
pub use simulation::read as read_scenario;
