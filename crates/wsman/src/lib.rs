//! The protocols that clients of Windows' CIM services speak, over whatever implements [`Operations`].
//!
//! This crate knows CIM values and the wire, not machines. Reading and writing envelopes is plain code over bytes
//! ([`Responder`]); only the [`server`] on top of it waits for sockets.

#![forbid(unsafe_code)]

pub mod contexts;
mod decode;
mod encode;
mod envelope;
mod fault;
pub mod limits;
mod operations;
pub mod query;
mod resource;
mod responder;
pub mod server;
pub mod text;
mod time;
mod uri;
mod xml;

pub use operations::{
    Call, Events, Failure, FailureKind, Fetched, Instances, Operations, Output, Principal, Walk, changes,
};
pub use responder::{Answer, Audit, Done, Responder, Settings};
pub use text::Encoding;
