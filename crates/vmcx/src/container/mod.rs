//! The binary container of VMCX and VMRS files ("HyperV Storage").
//!
//! ```text
//!  headers ─▶ replay log (pending writes are laid over the file in memory)
//!     └─▶ object tables ─▶ key tables ─▶ entries, linked by parent ─▶ tree
//!                     └──▶ file objects: values of 2048 bytes and more
//! ```
//!
//! [`read()`] takes any [`Source`]; [`write()`] gives a new file. Neither edits a file in place: a configuration is small,
//! and a new file renamed over the old one is atomic.

mod format;
mod log;
mod read;
mod source;
mod write;

pub(crate) use read::{Checksums, Options, read};
pub(crate) use source::Source;
pub(crate) use write::write;

/// What a new container takes over from the one that a tree was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerOrigin {
    /// Sequence of the current header; the other copy gets the one before.
    pub sequence: u16,
    /// Data version field of the header, meaning unknown, zero in real files.
    pub data_version: u32,
    /// Flags field of the header, meaning unknown, zero in real files.
    pub flags: u32,
    /// Alignment of objects in bytes, a power of two from 4096 to 65536.
    pub alignment: u32,
    /// Size of the replay log in bytes, its header of 4096 included.
    pub log_size: u64,
}

impl Default for ContainerOrigin {
    fn default() -> ContainerOrigin {
        let log_size = 7 * 4096; // as in a fresh VMCX of Windows Server 2019
        ContainerOrigin { sequence: 2, data_version: 0, flags: 0, alignment: format::MIN_ALIGNMENT, log_size }
    }
}

/// Tells by the first bytes, at least 4100 where the file has them: either header's signature will do.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let signature = format::HEADER_SIGNATURE.to_le_bytes();
    bytes.starts_with(&signature) || bytes.get(4096..4100) == Some(&signature)
}
