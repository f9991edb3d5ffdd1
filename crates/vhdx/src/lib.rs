//! VHDX and VHD virtual disk files: read, check, create, chains.

#![forbid(unsafe_code)]

pub mod extent;
pub mod storage;

pub use extent::{Extent, ExtentKind};
pub use storage::{FileStorage, MemoryStorage, Storage};
