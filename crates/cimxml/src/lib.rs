//! CIM-XML: the operations of DSP0200 in the elements of DSP0201, over whatever implements [`wsman::Operations`].
//!
//! ```text
//!  bytes ── encoding ── tree within bounds ── message ── headers compared ── an operation ──▶ objects, one at a time
//!                                                                                                    │
//!  bytes ◀── whole, or as they are made ◀── IMETHODRESPONSE / METHODRESPONSE, or ERROR with its code ┘
//! ```
//!
//! What an instance is, is said by `wsman::Operations`; how one is spelled, by `cim::xml`; who is there, by
//! `wsman::server`, whose handler the [`Responder`] is. Here are the messages between them. Nothing here waits for sockets.

#![forbid(unsafe_code)]

mod associations;
mod classes;
mod declare;
mod error;
mod headers;
mod instances;
pub mod limits;
mod message;
mod methods;
mod parameters;
mod pulls;
mod responder;

pub use error::{CimError, ProtocolError, Status};
pub use message::{Request, Target};
pub use responder::Responder;
