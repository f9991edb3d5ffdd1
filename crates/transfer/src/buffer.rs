//! Buffers that direct I/O accepts and the host moves in few pieces, and the question whether bytes are all zero.
//!
//! A transfer from scattered 4 KiB pages reaches the disk as a list of as many addresses, and devices bound that list: a
//! virtio disk of 254 segments gets 2 MiB as four requests, two of them of 8 KiB, and the kernel splits them one by one.
//! From a huge page it is one address. That halved the time of a copy (docs/benchmarks/export.md), so large buffers are
//! mapped on the boundary of huge pages and the host is asked for them. Where it has none to give they are made of small
//! ones, and nothing else changes.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Alignment of buffers, offsets and lengths that direct I/O accepts on every device we know (4 KiB sectors).
pub(crate) const ALIGN: usize = 4096;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Bytes that start on a page boundary, all zero at first. Given back to the system when dropped.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    bytes: NonNull<u8>,
    len: usize,
    mapping: NonNull<u8>,
    mapped: usize,
}

#[expect(
    unsafe_code,
    reason = "the mapping belongs to one buffer, which lends it only by its own borrow rules"
)]
// SAFETY: nothing else has the mapping's address, so it may move between threads with its owner.
unsafe impl Send for AlignedBuf {}

#[expect(
    unsafe_code,
    reason = "anonymous memory of a known size, mapped, lent as slices, unmapped; see each block"
)]
impl AlignedBuf {
    /// A buffer of `len` bytes.
    ///
    /// # Errors
    /// The host has no memory.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // Never touched beyond what is used, the room for alignment costs addresses and no memory.
        let mapped = len.max(1).next_multiple_of(ALIGN) + HUGE;
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous private mapping, at no address that anybody else knows of.
        let mapping =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), mapped, flags, MapFlags::PRIVATE) }?;
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = mapping.as_ptr().align_offset(HUGE);
        // SAFETY: the mapping has `HUGE` bytes more than are used, and `skip` is below that.
        let bytes = unsafe { mapping.add(skip) };
        let whole = len - len % HUGE;
        if whole > 0 {
            // SAFETY: inside the mapping; the advice changes no byte.
            let _refused =
                unsafe { rustix::mm::madvise(bytes.as_ptr().cast(), whole, Advice::LinuxHugepage) };
        }
        Ok(Self { bytes, len, mapping, mapped })
    }
}

#[expect(unsafe_code, reason = "what was mapped is unmapped, once")]
impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: the very mapping of `new`; no slice of it outlives the buffer.
        let _never_fails = unsafe { rustix::mm::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

#[expect(unsafe_code, reason = "the buffer is `len` initialised bytes for as long as it lives")]
impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `bytes` are mapped and zeroed by the kernel; borrowed as long as the buffer is.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

#[expect(unsafe_code, reason = "as for Deref")]
impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

/// True when direct I/O accepts a transfer of `buf` at `offset`.
pub(crate) fn is_aligned(buf: &[u8], offset: u64) -> bool {
    buf.as_ptr().align_offset(ALIGN) == 0 && offset.is_multiple_of(ALIGN as u64)
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// True when every byte is zero. Compares against a block of zeros, which is a vectorised `memcmp` that stops at once on
/// the usual non-zero data.
pub(crate) fn is_zero(buf: &[u8]) -> bool {
    buf.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 4096, 2 << 20, (3 << 20) + 5] {
            let mut buf = AlignedBuf::new(len).unwrap();
            assert_eq!(buf.len(), len);
            assert!(is_aligned(&buf, 0) && is_zero(&buf));
            buf.fill(1);
        }
        let buf = AlignedBuf::new(8).unwrap();
        assert!(!is_aligned(&buf[1..], 0));
        assert!(!is_aligned(&buf, 512));
    }

    #[test]
    fn zero_is_zero() {
        assert!(is_zero(&[]));
        let mut bytes = vec![0; 200_001];
        assert!(is_zero(&bytes));
        for at in [0, 65_535, 65_536, 200_000] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
            bytes[at] = 0;
        }
    }
}
