//! Hyper-V's classes, filled with the machines of the domain.
//!
//! * [`schema`]: the classes of each namespace, from the MOF files beside this crate's sources.

#![forbid(unsafe_code)]

pub mod schema;
