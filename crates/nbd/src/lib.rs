//! The NBD protocol, blocking, with block status.

#![forbid(unsafe_code)]
