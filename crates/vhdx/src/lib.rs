//! VHDX and VHD virtual disk files: read, check, create, chains.

#![forbid(unsafe_code)]

pub mod error;
pub mod extent;
pub mod info;
mod layer;
pub mod limits;
pub mod storage;
pub mod vhd;

pub use error::{
    CreateError, CreateErrorKind, OpenError, OpenErrorKind, ReadError, ReadErrorKind, WriteError,
    WriteErrorKind,
};
pub use extent::{Extent, ExtentKind};
pub use info::{DiskKind, Format, Info, ParentRef};
pub use storage::{FileStorage, MemoryStorage, Storage};
