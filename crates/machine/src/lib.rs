//! The domain: machines, disks, switches, planned machines, import and export.

#![forbid(unsafe_code)]
