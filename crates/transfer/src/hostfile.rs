//! A file of the host, read and written past the page cache where the transfer allows it.
//!
//! Two descriptors of one file: a plain one that takes anything, and a direct one for the page-aligned bulk. Copying a
//! disk through the page cache costs a memory copy per byte and evicts what the guests beside us use, so bulk data goes
//! direct; tables, tails and file systems that refuse direct I/O go the plain way. The kernel keeps both views coherent.
//! Which bytes are worth copying is decided elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use vhdx::FileRange;

use crate::buffer::{ALIGN, is_aligned};

/// Whether bulk data goes past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Direct where the file system can, else through the page cache.
    #[default]
    Auto,
    /// Always through the page cache.
    Buffered,
}

/// Opens a pipe without waiting for its other end; what else is opened with it does not notice.
pub(crate) const DO_NOT_WAIT: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Smallest transfer worth going direct: below it one seek costs more than a copy.
const DIRECT_MIN: usize = 64 * 1024;

/// A file of the host; see the module.
#[derive(Debug)]
pub struct HostFile {
    file: File,
    direct: Option<File>,
    direct_works: AtomicBool,
    /// Cleared once the file system has said that it cannot share blocks at all.
    clone_works: AtomicBool,
}

impl HostFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open_read(path: &Path, access: Access) -> io::Result<Self> {
        Self::wrap(File::options().read(true).custom_flags(DO_NOT_WAIT).open(path)?, access, false)
    }

    /// Creates `path`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the operating system says.
    pub fn create_new(path: &Path, access: Access) -> io::Result<Self> {
        Self::wrap(File::options().read(true).write(true).create_new(true).open(path)?, access, true)
    }

    /// Opens an existing `path` for reading and writing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open_write(path: &Path, access: Access) -> io::Result<Self> {
        Self::wrap(File::options().read(true).write(true).open(path)?, access, true)
    }

    /// Takes a file that is open already; `writable` says how.
    fn wrap(file: File, access: Access, writable: bool) -> io::Result<Self> {
        let direct = match access {
            Access::Buffered => None,
            // Opened through the descriptor, not the path: it is certainly the same file.
            Access::Auto => File::options()
                .read(true)
                .write(writable)
                .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
                .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
                .ok(),
        };
        let direct_works = AtomicBool::new(direct.is_some());
        Ok(Self { file, direct_works, direct, clone_works: AtomicBool::new(true) })
    }

    /// The plain descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The direct descriptor and how many leading bytes of the transfer may go through it.
    fn direct_part(&self, buf: &[u8], offset: u64) -> Option<(&File, usize)> {
        let length = buf.len() & !(ALIGN - 1);
        let usable =
            length >= DIRECT_MIN && is_aligned(buf, offset) && self.direct_works.load(Ordering::Relaxed);
        if usable { self.direct.as_ref().map(|direct| (direct, length)) } else { None }
    }

    /// Direct I/O that is refused (`EINVAL`: finer rules than ours; `EOPNOTSUPP`) is not tried again.
    fn refused(&self, error: &io::Error) -> bool {
        let refused = matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP));
        if refused {
            self.direct_works.store(false, Ordering::Relaxed);
        }
        refused
    }
}

impl vhdx::Storage for HostFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        if let Some((direct, length)) = self.direct_part(buf, offset) {
            while done < length {
                match direct.read_at(&mut buf[done..length], offset + done as u64) {
                    Ok(0) => break,
                    Ok(count) => {
                        done += count;
                        if !done.is_multiple_of(ALIGN) {
                            break; // The end of the file, or an odd file system: the plain way decides.
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if self.refused(&error) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.file.read_exact_at(&mut buf[done..], offset + done as u64)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        if let Some((direct, length)) = self.direct_part(buf, offset) {
            while done < length {
                match direct.write_at(&buf[done..length], offset + done as u64) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        done += count;
                        if !done.is_multiple_of(ALIGN) {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if self.refused(&error) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.file.write_all_at(&buf[done..], offset + done as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn host_file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn clone_range(&self, from: FileRange<'_>, offset: u64) -> io::Result<bool> {
        // The end may be odd, where it is the end of both files: the kernel knows.
        let aligned = [from.offset, offset].iter().all(|at| at.is_multiple_of(ALIGN as u64));
        if !aligned || !self.clone_works.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match crate::clone::clone_range(&self.file, from, offset) {
            Ok(()) => Ok(true),
            Err(refusal) => {
                if matches!(refusal, Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) {
                    self.clone_works.store(false, Ordering::Relaxed);
                }
                // Whatever the reason (another file system, odd blocks, no room), writing the bytes meets and tells it.
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuf;
    use vhdx::Storage;

    #[test]
    fn direct_and_plain_transfers_see_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = HostFile::create_new(&path, Access::Auto).unwrap();
        let mut buf = AlignedBuf::new(256 * 1024 + 100).unwrap();
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        file.write_at(&buf, 8192).unwrap(); // Aligned with an odd tail.
        file.write_at(&buf[..1000], 3).unwrap(); // Not aligned at all.
        let mut back = AlignedBuf::new(buf.len()).unwrap();
        file.read_at(&mut back, 8192).unwrap();
        assert_eq!(&back[..], &buf[..]);
        let plain = std::fs::read(&path).unwrap();
        assert_eq!(plain.len(), 8192 + buf.len());
        assert_eq!(&plain[3..1003], &buf[..1000]);
        assert_eq!(&plain[8192..], &buf[..]);
        // Reading past the end says so instead of inventing bytes.
        let error = file.read_at(&mut AlignedBuf::new(1 << 20).unwrap(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            HostFile::create_new(&path, Access::Auto).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
