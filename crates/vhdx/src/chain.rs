//! From a path to the layers of a chain: which files, in which order, and whether they belong together.
//!
//! Parent names come from hostile files. A name is only ever followed to a regular file inside the directory the
//! caller allows, or to one the caller named; every file appears once; the depth is bounded. Reading what the layers
//! hold is `image`'s part.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Fault, OpenError};
use crate::image::{FencedDir, ImageOptions, MissingParent};
use crate::info::{DiskKind, Format, Info, ParentRef};
use crate::layer::LayerRead;
use crate::limits::{MAX_CHAIN, MAX_DIRECTORY_ENTRIES, MAX_FILE_NAME, MAX_PENDING_LOGS};
use crate::storage::{FileStorage, Storage};

/// A layer with the path it came from.
pub(crate) type Opened = (Option<PathBuf>, Box<dyn LayerRead>);

/// Opens one file's content as whichever format it is.
pub(crate) fn open_layer(storage: Arc<dyn Storage>, lenient: bool) -> Result<Box<dyn LayerRead>, Fault> {
    match sniff(storage.as_ref()).map_err(|source| Fault::io("the file's signature", 0, source))? {
        Some(Format::Vhdx) => Ok(Box::new(crate::reader::Vhdx::open(storage, lenient)?)),
        Some(Format::Vhd) => Ok(Box::new(crate::vhd::Vhd::open(storage, lenient)?)),
        None => Err(Fault::NotADisk),
    }
}

/// Which format, by the signatures: VHDX at the start; VHD in a footer at the end (511 bytes long when written by
/// Virtual PC before 2004) or, when the end was lost, in its copy at the start.
pub(crate) fn sniff(storage: &dyn Storage) -> io::Result<Option<Format>> {
    let len = storage.len()?;
    let at = |offset: u64| -> io::Result<[u8; 8]> {
        let mut bytes = [0; 8];
        if offset.checked_add(8).is_some_and(|end| end <= len) {
            storage.read_at(&mut bytes, offset)?;
        }
        Ok(bytes)
    };
    let start = at(0)?;
    if &start == b"vhdxfile" {
        return Ok(Some(Format::Vhdx));
    }
    const FOOTER: &[u8; 8] = b"conectix";
    let is_vhd = &start == FOOTER
        || (len >= 512 && &at(len - 512)? == FOOTER)
        || (len >= 511 && &at(len - 511)? == FOOTER);
    Ok(is_vhd.then_some(Format::Vhd))
}

/// [`sniff`] for a path; `None` for what is not a regular file.
pub(crate) fn sniff_path(path: &Path) -> io::Result<Option<Format>> {
    match open_regular(path, true)? {
        Some(file) => sniff(&FileStorage::from(file)),
        None => Ok(None),
    }
}

/// Opens a regular file without ever waiting for a pipe's other end; `None` for anything else.
fn open_regular(path: &Path, follow: bool) -> io::Result<Option<File>> {
    let mut flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    if !follow {
        flags |= rustix::fs::OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        // A socket, or a device that is not there.
        Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of the host opened as a layer, with what tells it from every other file.
struct Candidate {
    path: PathBuf,
    inode: (u64, u64),
    layer: Box<dyn LayerRead>,
}

/// The regular file at `path`; anything else is an error that says what it is.
fn open_or_say(path: &Path, follow: bool) -> Result<File, Fault> {
    open_regular(path, follow).map_err(|source| Fault::Open { source })?.ok_or_else(|| {
        let problem = if path.is_dir() { "it is a directory" } else { "it is not a regular file" };
        Fault::Open { source: io::Error::other(problem) }
    })
}

/// The file at `path`, named by the user, for reading.
pub(crate) fn open_file(path: &Path) -> Result<Arc<dyn Storage>, OpenError> {
    let file = open_or_say(path, true).map_err(|fault| fault.named(path.display().to_string()))?;
    Ok(Arc::new(FileStorage::from(file)))
}

fn open_candidate(path: &Path, follow: bool, lenient: bool) -> Result<Candidate, OpenError> {
    let open = || {
        let file = open_or_say(path, follow)?;
        let meta = file.metadata().map_err(|source| Fault::Open { source })?;
        let layer = open_layer(Arc::new(FileStorage::from(file)), lenient)?;
        Ok(Candidate { path: path.to_owned(), inode: (meta.dev(), meta.ino()), layer })
    };
    open().map_err(|fault: Fault| fault.named(path.display().to_string()))
}

/// The layers of the disk at `path`, leaf first.
pub(crate) fn open_chain(path: &Path, options: &ImageOptions) -> Result<Vec<Opened>, OpenError> {
    let mut current = open_candidate(path, true, options.lenient)?;
    let mut seen = vec![current.inode];
    let mut chain = Vec::new();
    let mut logs = 0;
    loop {
        let info = current.layer.info().clone();
        let here = current.path.clone();
        logs += usize::from(info.log_pending);
        if logs > MAX_PENDING_LOGS {
            let problem = format!("more than {MAX_PENDING_LOGS} files of the chain have one to be replayed");
            return Err(Fault::unsupported("log", 0, problem).named(here.display().to_string()));
        }
        chain.push((Some(current.path), current.layer));
        if info.kind != DiskKind::Differencing {
            return Ok(chain);
        }
        let name = here.display().to_string();
        let Some(link) = info.parent.clone() else {
            // The readers refuse this; said again so that no later change opens half a chain silently.
            return Err(Fault::invalid("parent locator", 0, "missing").named(name));
        };
        if chain.len() >= MAX_CHAIN {
            return Err(Fault::TooDeep { limit: MAX_CHAIN }.named(name));
        }
        match find_parent(&here, &info, &link, chain.len() - 1, options)? {
            Some(parent) if seen.contains(&parent.inode) => {
                return Err(Fault::Cycle { parent: parent.path }.named(name));
            }
            Some(parent) => {
                seen.push(parent.inode);
                current = parent;
            }
            None => return Ok(chain),
        }
    }
}

/// Whether `parent` is the disk that `link` means, by the id that format is linked with.
fn judge(child: &Info, link: &ParentRef, parent: &Info, path: &Path) -> Result<(), Fault> {
    if parent.format != child.format {
        return Err(Fault::unsupported(
            "parent locator",
            0,
            format!(
                "a {} parent of a {} child ({})",
                parent.format.name(),
                child.format.name(),
                path.display()
            ),
        ));
    }
    if parent.logical_sector_size != child.logical_sector_size {
        return Err(Fault::invalid(
            "logical sector size",
            0,
            format!(
                "{} here, {} in parent {}",
                child.logical_sector_size,
                parent.logical_sector_size,
                path.display()
            ),
        ));
    }
    let found = parent.data_write_id.unwrap_or(parent.disk_id);
    if link.accepts(found) {
        Ok(())
    } else {
        Err(Fault::Linkage { parent: path.to_owned(), expected: link.linkage, found })
    }
}

/// Looks for the parent of the layer `child_path`, which is number `depth` from the leaf.
///
/// Order: the user's explicit files (by place, by name, then any that fits), the file's own words (relative, volume,
/// absolute path) inside the confinement, then the bare names in the fenced directories, then in the user's. The first
/// that exists and fits wins. When some exist and none fits, the first misfit is the error.
fn find_parent(
    child_path: &Path,
    child: &Info,
    link: &ParentRef,
    depth: usize,
    options: &ImageOptions,
) -> Result<Option<Candidate>, OpenError> {
    let name = child_path.display().to_string();
    let candidates = Candidates::collect(child_path, link, depth, options);
    let mut tried = Vec::new();
    let mut misfit: Option<OpenError> = None;
    for (path, follow) in candidates.paths {
        let parent = match open_candidate(&path, follow, options.lenient) {
            Ok(parent) => parent,
            Err(error) if is_absent(&error) => {
                tried.push(path);
                continue;
            }
            Err(error) => {
                misfit.get_or_insert(error);
                continue;
            }
        };
        match judge(child, link, parent.layer.info(), &path) {
            Ok(()) => return Ok(Some(parent)),
            Err(_) if options.ignore_linkage => return Ok(Some(parent)),
            Err(fault) => {
                misfit.get_or_insert(fault.named(name.clone()));
            }
        }
    }
    if let Some(error) = misfit {
        return Err(error);
    }
    match options.missing_parent {
        MissingParent::Zero => Ok(None),
        MissingParent::Refuse => Err(match candidates.outside {
            Some(fault) => fault.named(name),
            None => {
                tried.extend(candidates.expected);
                Fault::ParentMissing { tried }.named(name)
            }
        }),
    }
}

fn is_absent(error: &OpenError) -> bool {
    use std::error::Error;
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// Paths worth trying, in order, each with whether its last component may be a symlink.
#[derive(Default)]
struct Candidates {
    paths: Vec<(PathBuf, bool)>,
    /// Where the file's own words expect it, for the message when it is not found.
    expected: Vec<PathBuf>,
    /// Set when the file's own words led out of the confinement.
    outside: Option<Fault>,
}

impl Candidates {
    fn collect(child_path: &Path, link: &ParentRef, depth: usize, options: &ImageOptions) -> Self {
        let mut found = Self::default();
        let names = file_names(link);
        if let Some(path) = options.parents.get(depth) {
            found.add(path.clone(), true);
        }
        for path in options.parents.iter().filter(|path| {
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            names.iter().any(|name| name.eq_ignore_ascii_case(&own))
        }) {
            found.add(path.clone(), true);
        }
        // Any explicit file may fit by identity; but under ignored linkage anything fits, so only place and name count.
        if !options.ignore_linkage {
            for path in &options.parents {
                found.add(path.clone(), true);
            }
        }

        let own_dir = match child_path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let confine = options.confine.as_deref().unwrap_or(own_dir);
        if let Some(relative) = link.path("relative_path").and_then(host_relative) {
            found.add_confined(&own_dir.join(relative), confine);
        }
        for name in &names {
            if let Some(path) = in_directory(own_dir, name) {
                found.add_confined(&path, confine);
            }
        }
        for FencedDir { dir, fence } in &options.fenced_dirs {
            for name in &names {
                if let Some(path) = in_directory(dir, name) {
                    found.add_confined(&path, fence);
                }
            }
        }
        for dir in &options.parent_dirs {
            for name in &names {
                if let Some(path) = in_directory(dir, name) {
                    found.add(path, true);
                }
            }
        }
        found.expected = names.iter().map(|name| own_dir.join(name)).collect();
        found
    }

    fn add(&mut self, path: PathBuf, follow: bool) {
        if !self.paths.iter().any(|(known, _)| *known == path) {
            self.paths.push((path, follow));
        }
    }

    /// Adds `path` if it exists and its real place is inside `confine`.
    fn add_confined(&mut self, path: &Path, confine: &Path) {
        let (Ok(real), Ok(real_confine)) = (path.canonicalize(), confine.canonicalize()) else { return };
        if real.starts_with(&real_confine) {
            // Resolved already: a symlink put there in between is not followed.
            self.add(real, false);
        } else {
            self.outside.get_or_insert(Fault::Outside { parent: real, confine: real_confine });
        }
    }
}

/// The last components of the recorded paths, in search order, without repeats.
fn file_names(link: &ParentRef) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in ["relative_path", "volume_path", "absolute_win32_path", "parent_name"] {
        let Some(value) = link.path(key) else { continue };
        let name = value.rsplit(['\\', '/']).next().unwrap_or_default();
        let plain = !name.is_empty()
            && name.len() <= MAX_FILE_NAME
            && name != "."
            && name != ".."
            && !name.contains(['\0', ':']);
        if plain && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A Windows relative path as one of this host; `None` when it is not relative after all.
fn host_relative(value: &str) -> Option<PathBuf> {
    if value.contains(['\0', ':']) {
        return None;
    }
    let path = PathBuf::from(value.replace('\\', "/"));
    let relative = path.components().all(|c| !matches!(c, Component::RootDir | Component::Prefix(_)));
    (relative && path.file_name().is_some()).then_some(path)
}

/// The file `name` of `dir`, letter case ignored when no file has it exactly: Windows does not tell them apart.
fn in_directory(dir: &Path, name: &str) -> Option<PathBuf> {
    let exact = dir.join(name);
    if exact.symlink_metadata().is_ok() {
        return Some(exact);
    }
    std::fs::read_dir(dir)
        .ok()?
        .take(MAX_DIRECTORY_ENTRIES)
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_str().is_some_and(|found| same_letters(found, name)))
        .map(|entry| entry.path())
}

fn same_letters(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
