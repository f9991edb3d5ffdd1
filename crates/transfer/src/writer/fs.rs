//! The file system as the package writer sees it: one seam, so that tests can die at any operation and lose what was not
//! synced.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use vhdx::Storage;

use crate::hostfile::{Access, HostFile};

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing.
    Absent,
    /// A directory with nothing in it.
    EmptyDirectory,
    /// A directory with something in it.
    Directory,
    /// Anything else.
    File,
}

/// Keeps a directory locked until dropped.
pub trait Lock: Send + Sync + fmt::Debug {}

/// The operations that the writer's safety rests on. Each may be the last one before power fails: a name is durable after
/// `sync_dir` of its directory, a file's bytes after [`Storage::sync`].
pub trait Fs: Send + Sync + fmt::Debug {
    /// What is at `path`; a link is a file.
    ///
    /// # Errors
    /// What the system says, except that nothing is there.
    fn entry(&self, path: &Path) -> io::Result<EntryKind>;
    /// The names in a directory.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Makes a directory.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a new empty file for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn Storage>>;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn Storage>>;
    /// Renames, over an existing file or empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty` or `AlreadyExists` over a directory with something in it, or what the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it, following no links.
    ///
    /// # Errors
    /// What the system says.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names in `path` would survive power loss.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks a directory against other writers.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else has it.
    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// True when both paths are on one file system, so that a rename between them can work.
    ///
    /// # Errors
    /// What the system says.
    fn same_file_system(&self, a: &Path, b: &Path) -> io::Result<bool>;
}

/// The host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFs {
    /// Page cache or not, for disks.
    pub access: Access,
}

#[derive(Debug)]
struct HostLock {
    dir: File,
}
impl Lock for HostLock {}

impl Drop for HostLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting has the descriptor too until it execs.
        let _ = rustix::fs::flock(&self.dir, rustix::fs::FlockOperation::Unlock);
    }
}

impl Fs for HostFs {
    fn entry(&self, path: &Path) -> io::Result<EntryKind> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(EntryKind::Absent),
            Err(error) => Err(error),
            Ok(meta) if !meta.is_dir() => Ok(EntryKind::File),
            Ok(_) if fs::read_dir(path)?.next().is_none() => Ok(EntryKind::EmptyDirectory),
            Ok(_) => Ok(EntryKind::Directory),
        }
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(HostFile::create_new(path, self.access)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(HostFile::open_write(path, self.access)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match File::open(path)?.sync_all() {
            // Some network file systems cannot; they make names durable on their own.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let dir = File::open(path)?;
        let locked = rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        // Any other refusal means no locks here, as on some network file systems: two writers of one target at once are
        // then the users' to avoid.
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(HostLock { dir }))
    }

    fn same_file_system(&self, a: &Path, b: &Path) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(fs::metadata(a)?.dev() == fs::metadata(b)?.dev())
    }
}

/// Bytes that may still be written to the file system that holds `path`, for an unprivileged user.
///
/// # Errors
/// What the operating system says.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
