//! Packages: layout, manifest, source, sink, copy, verify.

#![forbid(unsafe_code)]
