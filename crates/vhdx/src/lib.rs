//! VHDX and VHD virtual disk files: read, check, create, chains.
//!
//! ```text
//!            Image ── chain ──┬── Vhdx (reader) ── bat, metadata, region, header ──┐
//!  reads,      │              └── Vhd                                              ├── Storage
//!  extents     └ layers, leaf first          log ── overlay (pending log) ─────────┘
//!  check ──── every rule, by id and offset
//!  Writer ─── create → write_at… → checkpoint… → finish  (resume after a crash)
//!  replay_log_on_disk ── the only thing that changes somebody else's file
//! ```
//!
//! Files are hostile until proven otherwise ([`limits`]); payload is never read to learn where data is; tables are
//! paged, so memory does not grow with the disk. Not here yet: writing into existing disks, merge, resize.

#![forbid(unsafe_code)]

mod bat;
mod cache;
mod chain;
pub mod check;
pub mod error;
pub mod extent;
mod format;
mod header;
pub mod image;
pub mod info;
mod layer;
mod length;
pub mod limits;
mod locator;
mod log;
mod metadata;
mod overlay;
mod reader;
mod region;
mod replay;
pub mod storage;
mod table;
pub mod vhd;
pub mod writer;

pub use check::{CheckOptions, Finding, Report, Severity, check};
pub use error::{
    CreateError, CreateErrorKind, OpenError, OpenErrorKind, ReadError, ReadErrorKind, WriteError,
    WriteErrorKind,
};
pub use extent::{Extent, ExtentKind};
pub use image::{Extents, FencedDir, Image, ImageOptions, Layer, Location, Locations, MissingParent};
pub use info::{DiskKind, Format, Info, ParentRef};
pub use replay::replay_log_on_disk;
pub use storage::{FileRange, FileStorage, MemoryStorage, Storage};
pub use vhd::{Vhd, VhdWriter};
pub use writer::{CreateOptions, Writer};
