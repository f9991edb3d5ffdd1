//! The daemon: configuration, wiring, start and stop.

#![forbid(unsafe_code)]
