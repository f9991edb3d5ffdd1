//! Import: a package becomes a planned machine, and a planned machine a machine.
//!
//! ```text
//!  package ── plan ──▶ Plan: settings, disks found, findings      (pure look; nothing is written)
//!                        │ Host::import keeps it
//!                        ▼
//!                  planned machine ── edit, validate (plan again) ── abandon
//!                        │ Host::realize: a job
//!                        ▼
//!        disks copied or overlaid ─ firmware variables ─ records in one transaction ──▶ machine, off
//! ```
//!
//! [`plan`] needs no host process and serves `inspect` too. Reading the package's layout is `transfer`'s part, its
//! configuration [`crate::config`]'s.

mod disk;
mod drivers;
mod firmware;
mod hosted;
mod plan;
mod realize;
mod state;

pub use hosted::PlannedView;
pub(crate) use hosted::planned_key;
pub use plan::{Plan, Surroundings, plan};
pub(crate) use realize::Realize;
pub(crate) use state::Details;
