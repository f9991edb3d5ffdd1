//! REST `/v1`: wire types, server and client.
//!
//! ```text
//!  CLI ── client ── Unix socket ── server ── spawn_blocking ──▶ machine::Host
//!                                     └─ /v1/events: server-sent events from the host's own streams
//! ```
//!
//! The edge is thin: a handler checks and converts its arguments, calls the host on a blocking thread, and converts the
//! answer. Refusals keep their reason's id; [`server`] maps it to a status in one table. What the daemon listens on and
//! who may connect is `service`'s part.

#![forbid(unsafe_code)]

pub mod client;
pub mod openapi;
pub mod server;
pub mod wire;
