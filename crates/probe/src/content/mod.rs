//! What a partition holds, told by the signatures that file systems, volume managers and encryption leave.
//!
//! Encryption and volume managers are asked first, since what they contain can shine through; file systems with a weak
//! signature last.

mod signatures;

use crate::bytes::all_zero;
use crate::disk::{ReadAt, read_up_to};
use crate::error::ProbeError;
use crate::report::Content;

/// How much of a partition's beginning is looked at: up to the end of the btrfs superblock.
const HEAD: usize = (64 << 10) + 4096;
/// How much of its end: Linux RAID's old superblocks lie within the last 128 KiB.
const TAIL: u64 = 128 << 10;

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) content: Content,
    pub(crate) version: Option<&'static str>,
    pub(crate) label: Option<String>,
}

impl Identified {
    fn new(content: Content, version: Option<&'static str>, label: Option<String>) -> Self {
        Self { content, version, label }
    }
}

/// Looks at the `length` bytes at `offset`.
pub(crate) fn identify(disk: &dyn ReadAt, offset: u64, length: u64) -> Result<Identified, ProbeError> {
    let end = offset.saturating_add(length).min(disk.size());
    let head = read_up_to(disk, offset, HEAD, end)?;
    if let Some(found) = signatures::in_head(&head) {
        return Ok(found);
    }
    let tail_at = end.saturating_sub(TAIL).max(offset);
    let tail = read_up_to(disk, tail_at, usize::try_from(TAIL).unwrap_or(0), end)?;
    if let Some(found) = signatures::in_tail(&tail) {
        return Ok(found);
    }
    let content = if all_zero(&head) && all_zero(&tail) { Content::Empty } else { Content::Unknown };
    Ok(Identified::new(content, None, None))
}
