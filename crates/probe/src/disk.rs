//! The seam to whatever holds the disk: a size and a positioned read.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::ProbeError;

/// A disk to look at.
///
/// Implementations over chains, NBD exports and the like belong to their callers.
pub trait ReadAt {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`; the caller stays within [`Self::size`].
    ///
    /// # Errors
    /// Whatever the disk underneath says; a range that is not all there is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buf.len())?))
            .and_then(|range| self.get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(range);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_at(buf, offset)
    }
}

/// A raw image or a block device, opened read-only.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened, or its end cannot be found.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // The end by seeking, since a block device's metadata tells no length.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl ReadAt for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// Reads `length` bytes at `offset`, or what there is of them before `end`: the result may be shorter, even empty.
pub(crate) fn read_up_to(
    disk: &dyn ReadAt,
    offset: u64,
    length: usize,
    end: u64,
) -> Result<Vec<u8>, ProbeError> {
    let available = end.min(disk.size()).saturating_sub(offset);
    let length = usize::try_from(available).map_or(length, |available| length.min(available));
    let mut buf = vec![0; length];
    if !buf.is_empty() {
        disk.read_at(&mut buf, offset).map_err(|source| ProbeError::read(offset, length, source))?;
    }
    Ok(buf)
}
