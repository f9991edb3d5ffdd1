//! Page-aligned buffers, as direct I/O wants them, and the question whether bytes are all zero.

use std::ops::{Deref, DerefMut};

/// Alignment of buffers, offsets and lengths that direct I/O accepts on every device we know (4 KiB sectors).
pub(crate) const ALIGN: usize = 4096;

/// Bytes that start on a page boundary.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        // A heap block never moves while the vector is not resized, so the offset stays right.
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { bytes, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
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
    fn buffers_are_aligned() {
        for len in [0, 1, 4096, 2 << 20] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.len(), len);
            assert!(is_aligned(&buf, 0));
            buf.fill(1);
        }
        assert!(!is_aligned(&AlignedBuf::new(8)[1..], 0));
        assert!(!is_aligned(&AlignedBuf::new(8), 512));
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
