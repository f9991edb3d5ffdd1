//! The REST interface over a simulated engine and a store in memory: by router, and by client over a socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail as tests do")]

mod jobs;
mod machines;
mod metrics;
mod openapi;
mod simulator;
mod socket;
mod support;
