//! The domain: machines, disks, switches, planned machines, import and export.
//!
//! ```text
//!  package ─ import::plan ─▶ planned machine ─ report, edit ─▶ import::realize (job) ─▶ machine, off
//!                                                                                        │ start … stop
//!  package ◀─ export (job) ─────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Host`] is the one door. [`settings`] says what a machine is made of, [`config`] carries it to and from Hyper-V's
//! configuration tree, [`hardware`] gives it to the engine, [`power`] is the policy of its states, [`lifecycle`] and
//! [`saved`] the machinery, [`automatic`] what happens when the host starts and stops. Refusals are [`Error`]s with a
//! closed set of [`Reason`]s; what does not fit is a [`finding::Finding`].
//!
//! This crate blocks: callers bring the threads. It names no protocol (CIM, HTTP, QMP), starts no process and reads no
//! environment.

#![forbid(unsafe_code)]

mod adapter;
mod again;
pub mod ambient;
pub mod automatic;
pub mod blob;
mod brought;
mod bulk;
mod cancel;
mod cell;
pub mod change;
pub mod config;
pub mod console;
pub mod define;
pub mod disk;
mod error;
pub mod events;
pub mod export;
mod exported;
pub mod finding;
mod footprint;
pub mod hardware;
mod health;
pub mod host;
pub mod image;
pub mod import;
mod inbox;
pub mod inside;
mod inuse;
mod jobs;
pub mod layout;
pub mod lifecycle;
mod litter;
mod lookup;
pub mod names;
pub mod network;
pub mod planned;
pub mod position;
pub mod power;
pub mod record;
pub mod report;
pub mod save;
pub mod saved;
pub mod settings;
mod settle;
pub mod statistics;
pub mod switch;

pub use ambient::Ambient;
pub use cancel::Cancel;
pub use engine::{HostReport, Verdict};
pub use error::{Error, Reason, Result, chain};
pub use host::{Host, HostOptions, MachineView};

#[cfg(test)]
extern crate self as machine;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
