//! What is on a disk: partitions, file systems, encryption, boot files.

#![forbid(unsafe_code)]
