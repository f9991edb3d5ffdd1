//! The protocols that clients of Windows' CIM services speak, over whatever implements [`Operations`].
//!
//! This crate knows CIM values and the wire, not machines. Reading and writing envelopes is plain code over bytes; only
//! the servers on top of it wait for sockets.

#![forbid(unsafe_code)]

mod operations;
pub mod server;

pub use operations::{Call, Failure, FailureKind, Instances, Operations, Output, Principal, Walk};
