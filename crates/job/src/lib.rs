//! Jobs that outlive the process.

#![forbid(unsafe_code)]
