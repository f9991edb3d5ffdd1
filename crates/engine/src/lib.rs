//! A running guest, and any QEMU image as NBD.

#![forbid(unsafe_code)]
