//! Hyper-V's classes, filled with the machines of the domain.
//!
//! ```text
//!  wsman ── Operations ──▶ Hyperv ─┬─ providers: which class is made of what (a machine, a switch, a job, the host)
//!                                  ├─ associations: which instances belong together, and how to get from one to the other
//!                                  └─ methods: what each does to the domain, and in whose codes it answers
//! ```
//!
//! The only place where `Msvm_` names, Hyper-V's numbers and Windows paths meet machines. Everything is found by owner:
//! ids of instances begin with the id of the machine, switch or job that they are part of, so one instance costs one
//! record, and a walk costs the records it leads to. A provider says what it knows; what it leaves out gets the schema's
//! default, or null, so every property of a class is there.
//!
//! Protocols are left to `wsman`, rules about machines to `machine`, who may do what to `access`.

#![forbid(unsafe_code)]

mod agents;
mod association;
mod bell;
mod boot;
mod capabilities;
mod cimv2;
mod codes;
mod console;
#[cfg(test)]
mod coverage;
mod define;
mod drive;
mod ethernet;
mod events;
mod feature;
mod fill;
mod ids;
mod image;
mod integration;
mod interop;
mod job_class;
mod kvp;
mod linux;
mod method;
mod operations;
mod owner;
mod owners;
mod package;
mod paths;
mod peripheral;
mod planned;
mod pool;
mod port;
mod provider;
mod resource;
pub mod schema;
mod service;
mod setting;
mod settings;
mod state;
mod storage;
mod summary;
mod switch;
mod system;
mod tasks;
mod v1;
mod world;

pub use operations::Hyperv;
pub use paths::{PathMap, Root, SETTING as PATHS_SETTING};
pub use settings::{Policy, Settings};
