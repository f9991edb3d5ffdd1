//! Sharing blocks between files, as XFS and btrfs can: one call of the kernel that no library offers for a part of a file.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};
use vhdx::FileRange;

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct Request {
    source: i64,
    source_offset: u64,
    source_length: u64,
    target_offset: u64,
}

/// Makes the bytes of `target` from `offset` share the blocks of `from` (`FICLONERANGE`).
///
/// The kernel writes what of the source is only in memory first, and does nothing unless both ranges are whole blocks of one
/// file system that can share them.
#[expect(unsafe_code, reason = "the ioctl reads this very structure and writes none of our memory")]
pub(crate) fn clone_range(target: &File, from: FileRange<'_>, offset: u64) -> Result<(), Errno> {
    let request = Request {
        source: from.file.as_raw_fd().into(),
        source_offset: from.offset,
        source_length: from.length,
        target_offset: offset,
    };
    // SAFETY: FICLONERANGE is _IOW(0x94, 13, struct file_clone_range), which is what `Request` is.
    unsafe { ioctl(target, Setter::<{ opcode::write::<Request>(0x94, 13) }, Request>::new(request)) }
}
