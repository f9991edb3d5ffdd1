//! Where a disk file's bytes live: the one seam between the formats and the world.
//!
//! Everything in this crate reads and writes through [`Storage`], so that a file, a memory image, a file that forgets
//! what was not synced, and a file whose n-th write fails are interchangeable. This module knows no disk format.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

/// Random-access bytes with an explicit durability point.
///
/// Methods take `&self`: implementations are shared between threads that touch different ranges. Overlapping
/// concurrent writes are the caller's error and leave either content.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the storage holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`; `UnexpectedEof` when the storage ends before the buffer is full.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, extending the storage when it ends sooner.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Sets the length; a grown part reads as zeros and takes no space where the storage can be sparse.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns once every earlier write and length change would survive power loss.
    fn sync(&self) -> io::Result<()>;
    /// The file of the host that has exactly these bytes at these offsets, where there is one.
    fn host_file(&self) -> Option<&File> {
        None
    }
    /// Makes the bytes from `offset` those of `from` by sharing its blocks, as some file systems can. `false`: not here, or
    /// not these; the range then holds what it held or a part of `from`, and the bytes must be written.
    fn clone_range(&self, from: FileRange<'_>, offset: u64) -> io::Result<bool> {
        let _ = (from, offset);
        Ok(false)
    }
}

/// Bytes of a file of the host.
#[derive(Clone, Copy, Debug)]
pub struct FileRange<'a> {
    /// The file.
    pub file: &'a File,
    /// Its first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A file of the host.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
}

impl FileStorage {
    /// Opens `path` for reading only.
    ///
    /// # Errors
    /// What the operating system says; the path is not part of the message.
    pub fn open_read(path: &Path) -> io::Result<Self> {
        // Never waits for the other end of a pipe: reading from one fails instead.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        File::options().read(true).custom_flags(flags).open(path).map(Self::from)
    }

    /// Creates `path`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the operating system says.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        File::options().read(true).write(true).create_new(true).open(path).map(Self::from)
    }

    /// Opens an existing `path` for reading and writing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open_write(path: &Path) -> io::Result<Self> {
        File::options().read(true).write(true).open(path).map(Self::from)
    }

    /// The file itself, for what the trait does not offer (cloning, punching, locking).
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl From<File> for FileStorage {
    fn from(file: File) -> Self {
        Self { file }
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
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
}

/// Bytes in memory, for tests, fuzzing and small files.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryStorage {
    /// Holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Mutex::new(bytes) }
    }

    /// A copy of what is held now.
    pub fn snapshot(&self) -> Vec<u8> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let source = start
            .checked_add(buf.len())
            .and_then(|end| bytes.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(source);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.lock().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
