//! Virtual disk files on their way to being whole: a partial file beside the place, then a rename.
//!
//! A partial file is called `.NAME.ID.partial` after the job or disk that writes it, so it is nobody else's and no reader
//! takes it for a disk. What is copied into it, and when it is given its name, is decided above.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use job::Failure;
use serde::{Deserialize, Serialize};
use transfer::copy::{CopyOptions, NoJournal};
use transfer::sink::{RawSink, Sink, VhdSink, VhdxSink};
use transfer::{Access, HostFile, Source};
use uuid::Uuid;

use super::Shape;
use crate::blob::sync_directory;
use crate::disk::DiskFormat;
use crate::error::{Error, Reason, Result};
use crate::jobs::{copy_failure, io};

/// Longest file name in bytes.
const MAX_NAME: usize = 255;

/// Which file of the host something is, under whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    device: u64,
    inode: u64,
}

impl Inode {
    /// That of the file at `path`.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// Whether that file is at `path`.
    pub(crate) fn is_at(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|there| there == self)
    }
}

/// Where the file that becomes `file` is written by `id`.
///
/// # Errors
/// The name would be longer than a file system takes.
pub(crate) fn partial(file: &Path, id: Uuid) -> Result<PathBuf> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = format!(".{name}.{}.partial", id.simple());
    if name.len() > MAX_NAME {
        return Err(Error::new(
            Reason::InvalidArgument,
            format!("`{}` has too long a name for a file that is written beside it", file.display()),
        )
        .hint("give it a shorter one"));
    }
    Ok(file.with_file_name(name))
}

/// Refuses when something is at `path`.
pub(crate) fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at", path, e)),
        Ok(_) => Err(Error::new(Reason::AlreadyExists, format!("`{}` exists already", path.display()))
            .hint("nothing is overwritten: name another file, or move it away")),
    }
}

/// Removes `path`, if it is there.
pub(crate) fn remove(path: &Path) -> std::result::Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Writes what `source` holds, or zeros, into a new file at `path`, and makes it durable. `None` is flat bytes.
pub(crate) fn write(
    source: Option<&dyn Source>,
    path: &Path,
    (shape, size): (Option<&Shape>, u64),
    doing: &str,
    options: &CopyOptions<'_>,
) -> std::result::Result<(), Failure> {
    let failed = |e: transfer::CopyError| copy_failure(doing, &e);
    let storage = Arc::new(HostFile::create_new(path, Access::Auto).map_err(|e| io("create", path, e))?);
    let sink: std::result::Result<Box<dyn Sink>, transfer::SinkError> = match shape {
        None => RawSink::new(storage, path, size).map(|sink| Box::new(sink) as _),
        Some(shape) => match shape.format {
            DiskFormat::Vhd => {
                VhdSink::create(storage, path, &shape.options()).map(|sink| Box::new(sink) as _)
            }
            _ => VhdxSink::create(storage, path, &shape.options()).map(|sink| Box::new(sink) as _),
        },
    };
    let sink = sink.map_err(|e| failed(e.into()))?;
    if let Some(source) = source {
        transfer::copy::copy(source, &*sink, options, None, &mut NoJournal).map_err(failed)?;
    }
    sink.finish().map_err(|e| failed(e.into()))
}

/// Gives the file at `partial` the place of `file`: of nothing, when it is `new`, or of the file that is there.
pub(crate) fn publish(partial: &Path, file: &Path, new: bool) -> std::result::Result<(), Failure> {
    if new {
        // In one call: whoever makes the file meanwhile keeps it.
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, partial, cwd, file, flags) {
            // A file system that cannot: its own way to make a name once.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(partial, file).map_err(|e| io("create", file, e))?;
                remove(partial)?;
            }
            done => done.map_err(|e| io("create", file, e.into()))?,
        }
    } else {
        like(partial, file).map_err(|e| io("protect", partial, e))?;
        fs::rename(partial, file).map_err(|e| io("rename into", file, e))?;
    }
    match file.parent() {
        Some(dir) => sync_directory(dir).map_err(|e| io("sync directory", dir, e)),
        None => Ok(()),
    }
}

/// Gives the file at `path` the owner and the permissions of `of`, if that is there.
fn like(path: &Path, of: &Path) -> std::io::Result<()> {
    let meta = match fs::metadata(of) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    match std::os::unix::fs::chown(path, Some(meta.uid()), Some(meta.gid())) {
        // Only root gives files away; the daemon's user then owns what it wrote.
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => return Err(e),
        _ => {}
    }
    fs::set_permissions(path, meta.permissions())
}
