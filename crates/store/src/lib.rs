//! Durable keys: get, range, conditional transaction, watch.

#![forbid(unsafe_code)]
