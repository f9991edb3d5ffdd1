//! Packages: whole machines on disk, moved, proven, and never half there.
//!
//! ```text
//!   source ──────────┐                                  ┌── sink
//!   raw, VHD, VHDX,  │  extents: data, zero, hole       │  raw, VHD, VHDX,
//!   NBD (any QEMU ───┼──> copy: parallel, sparse, ──────┼─> NBD (any QEMU image)
//!   image, live)     │    hashed, resumable, cancelled  │
//!                    └───────────────┬──────────────────┘
//!                                 digest
//!   package: Hyper-V's layout,       │        writer: absent, `.partial`, or complete
//!   found and fenced ────────────────┴──────> manifest, written last ──> verify
//! ```
//!
//! * [`source`] and [`sink`] are the two narrow interfaces; [`mod@copy`] is the only loop between them.
//! * [`digest`] says what a disk's content is, in proportion to its data.
//! * [`package`] finds a machine's files in what people point at, and lets no name lead out of it.
//! * [`manifest`] is our record of a package; [`writer`] makes packages crash-safe; [`mod@verify`] proves them.
//! * [`shell`] quotes names and paths in the commands that hints print, here and above.
//!
//! The crate knows no machine states and interprets no configuration (the domain does), starts no processes (the engine
//! does: QEMU's formats arrive over NBD), and has no async: every call blocks, asks a cancel flag, and reports progress to
//! a callback. Formats and their reasons: `docs/formats/package.md`.

#![deny(unsafe_code)]

mod buffer;
mod clone;
pub mod copy;
pub mod digest;
mod fault;
mod hostfile;
pub mod manifest;
pub mod package;
pub mod shell;
pub mod sink;
pub mod source;
#[cfg(test)]
mod testing;
pub mod verify;
pub mod writer;

pub use copy::{
    Copied, CopyError, CopyOptions, Journal, NoJournal, Phase, Progress, Resume, copy, hash, measure,
};
pub use digest::Digest;
pub use fault::FaultKind;
pub use hostfile::{Access, HostFile};
pub use manifest::{Manifest, ManifestError};
pub use package::{OpenError, Package};
pub use sink::{NbdSink, NullSink, RawSink, Sink, SinkError, VhdSink, VhdxSink};
pub use source::{
    Extent, ExtentKind, ImageSource, LayerIdentity, NbdSource, RawSource, Source, SourceError, SourceIdentity,
};
pub use verify::{Report, VerifyError, verify};
pub use writer::{
    Beginning, DiskPlan, DiskWritten, PackagePlan, PackageWriter, TargetFormat, WriterError, free_space,
};
