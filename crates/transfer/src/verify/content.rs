//! Proof by digests: every file and disk that the manifest lists, and nothing that it does not.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vhdx::FileStorage;

use super::{
    Finding, Proof, Report, Severity, VerifyError, VerifyOptions, chain, chain_of, shifted, structure,
};
use crate::copy::{self, CopyOptions, Journal, NoJournal};
use crate::digest::{CHUNK_SIZE, Digest, Sidecar};
use crate::fault::{Cause, FaultKind};
use crate::hostfile::Access;
use crate::manifest::{self, DiskEntry, FileEntry, Manifest, StateEntry, fold_case};
use crate::package::image_options;
use crate::source::{self, DiskFormat, OpenOptions, RawSource, Source};
use crate::writer::JOURNAL_PATH;

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;
/// Entries of the package walked through when looking for extra files.
const MAX_WALK: usize = 100_000;
/// Chunks that differ, reported one by one.
const MAX_CHUNKS: usize = 16;

pub(super) fn verify(
    root: &Path,
    mut manifest: Manifest,
    options: &VerifyOptions<'_>,
) -> Result<Report, VerifyError> {
    let mut report = Report::new(root, Proof::Content);
    follow_live(&mut report, &mut manifest);
    for entry in &manifest.files {
        if (options.copy.cancelled)() {
            return Err(VerifyError::Cancelled);
        }
        report.files += 1;
        let Some(path) = locate(&mut report, &entry.path) else { continue };
        file(&mut report, entry, &path, options)?;
    }
    // All data of all disks, so that progress has one end.
    let mut open = Vec::new();
    let mut total = 0;
    for entry in &manifest.disks {
        report.disks += 1;
        let Some(path) = locate(&mut report, &entry.path) else { continue };
        let Some(source) = open_disk(&mut report, entry, &path) else { continue };
        match copy::measure(&*source, 0, u64::MAX, options.copy.cancelled) {
            Ok(measure) => total += measure.data,
            Err(error) if error.kind() == FaultKind::Cancelled => return Err(VerifyError::Cancelled),
            Err(error) => report.add("disk.unreadable", Severity::Error, &path, chain(&error)),
        }
        open.push((entry, path, source));
    }
    let mut before = 0;
    for (entry, path, source) in open {
        let progress = |p: &copy::Progress| (options.copy.progress)(&shifted(p, before, total));
        let copy = CopyOptions { progress: &progress, ..options.copy };
        before += disk(&mut report, entry, &path, &*source, &copy)?;
    }
    if let Some(entry) = &manifest.saved_state
        && let Some(path) = locate(&mut report, &entry.path)
    {
        report.files += 1;
        state(&mut report, entry, &path, options)?;
    }
    report.bytes = before;
    extras(&mut report, &manifest);
    report.manifest = Some(manifest);
    Ok(report)
}

/// An export that was imported in place has another name for its configuration, and is otherwise what it was.
fn follow_live(report: &mut Report, manifest: &mut Manifest) {
    for entry in &mut manifest.files {
        let Some(stem) = entry.path.strip_suffix(".exp") else { continue };
        let live = format!("{stem}.xml");
        let there = |path: &str| report.root.join(path).symlink_metadata().is_ok();
        if !there(&entry.path) && there(&live) {
            let path = report.root.join(&live);
            report.add(
                "package.live",
                Severity::Note,
                &path,
                "was imported in place: it is a machine's own now",
            );
            entry.path = live;
        }
    }
}

/// The file a manifest names, inside the package; a finding when there is none.
fn locate(report: &mut Report, relative: &str) -> Option<PathBuf> {
    let path = report.root.join(relative);
    let (id, message) = match fs::canonicalize(&path) {
        Ok(resolved) if !resolved.starts_with(&report.root) => {
            ("package.escapes", "is a link that leads outside the package".to_owned())
        }
        Ok(resolved) if resolved.is_file() => return Some(resolved),
        Ok(_) => ("package.not-a-file", "is not a file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ("package.missing", "is missing".to_owned()),
        Err(error) => ("package.unreadable", error.to_string()),
    };
    report.add(id, Severity::Error, &path, message);
    None
}

fn file(
    report: &mut Report,
    entry: &FileEntry,
    path: &Path,
    options: &VerifyOptions<'_>,
) -> Result<(), VerifyError> {
    match hash_file(path, entry.size, options.copy.cancelled) {
        Ok(None) => return Err(VerifyError::Cancelled),
        Ok(Some((size, _))) if size != entry.size => report.add(
            "package.size",
            Severity::Error,
            path,
            format!("has {} bytes and had {}", fs::metadata(path).map_or(size, |m| m.len()), entry.size),
        ),
        Ok(Some((_, digest))) if digest != entry.blake3 => {
            report.add(
                "package.digest",
                Severity::Error,
                path,
                "is not what was written: its digest differs",
            );
        }
        Ok(Some(_)) => {}
        Err(error) => report.add("package.unreadable", Severity::Error, path, error.to_string()),
    }
    Ok(())
}

/// A machine's saved memory, hashed by content as a disk is.
fn state(
    report: &mut Report,
    entry: &StateEntry,
    path: &Path,
    options: &VerifyOptions<'_>,
) -> Result<(), VerifyError> {
    let hashed = RawSource::open(path, &OpenOptions::default()).map_err(Into::into).and_then(|source| {
        let size = source.size();
        copy::hash(&source, size, &options.copy, &mut NoJournal)
    });
    match hashed {
        Err(error) if error.kind() == FaultKind::Cancelled => return Err(VerifyError::Cancelled),
        Err(error) => report.add("package.unreadable", Severity::Error, path, chain(&error)),
        Ok(found) if found.size != entry.size => report.add(
            "package.size",
            Severity::Error,
            path,
            format!("has {} bytes and had {}", found.size, entry.size),
        ),
        Ok(found) if found.root != entry.digest.root => {
            report.add(
                "package.digest",
                Severity::Error,
                path,
                "is not what was written: its digest differs",
            );
        }
        Ok(_) => {}
    }
    Ok(())
}

/// Size and digest, reading no more than one byte beyond `expected`; `None` when cancelled.
fn hash_file(path: &Path, expected: u64, cancelled: &dyn Fn() -> bool) -> io::Result<Option<(u64, Digest)>> {
    let mut reader = super::open_file(path)?.take(expected.saturating_add(1));
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        if cancelled() {
            return Ok(None);
        }
        match reader.read(&mut block) {
            Ok(0) => return Ok(Some((size, Digest(*hasher.finalize().as_bytes())))),
            Ok(count) => {
                hasher.update(&block[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens a disk and compares what its file says with what the manifest says.
fn open_disk(report: &mut Report, entry: &DiskEntry, path: &Path) -> Option<Box<dyn Source>> {
    let format = match entry.format.as_str() {
        "vhdx" => DiskFormat::Vhdx,
        "vhd" => DiskFormat::Vhd,
        _ => DiskFormat::Raw,
    };
    if format != DiskFormat::Raw {
        structure::check_disk(report, path);
    }
    let options = OpenOptions {
        access: Access::Auto,
        image: image_options(&report.root, &[]),
        raw_sectors: Some((entry.logical_sector_size, entry.physical_sector_size)),
        ..OpenOptions::default()
    };
    let source = match source::open_as(path, format, &options) {
        Ok(source) => source,
        Err(error) => {
            report.add("disk.unreadable", Severity::Error, path, chain(&error));
            return None;
        }
    };
    let expected = [
        ("virtual size", source.size(), entry.virtual_size),
        ("logical sector size", source.logical_sector_size().into(), entry.logical_sector_size.into()),
        ("physical sector size", source.physical_sector_size().into(), entry.physical_sector_size.into()),
    ];
    for (what, is, was) in expected {
        if is != was {
            report.add("disk.geometry", Severity::Error, path, format!("its {what} is {is} and was {was}"));
        }
    }
    // The digest covers what the guest sees; the id, by which a child knows its parent, is beside it.
    let image = vhdx::Image::open(path, &options.image).ok().filter(|_| format != DiskFormat::Raw);
    if let Some(id) = image.as_ref().and_then(|i| i.layers().first()).map(|leaf| leaf.info.disk_id)
        && id != entry.disk_id
    {
        report.add("disk.id", Severity::Error, path, format!("its id is {id} and was {}", entry.disk_id));
    }
    (source.size() == entry.virtual_size).then_some(source)
}

/// Hashes a disk; returns the bytes of data read.
fn disk(
    report: &mut Report,
    entry: &DiskEntry,
    path: &Path,
    source: &dyn Source,
    options: &CopyOptions<'_>,
) -> Result<u64, VerifyError> {
    let list = open_list(report, entry);
    let mut sidecar = list.as_ref().and_then(|storage| Sidecar::open(storage).ok());
    let mut compare =
        Compare { list: sidecar.as_mut(), pending: None, broken: false, different: Vec::new(), count: 0 };
    match copy::hash(source, entry.virtual_size, options, &mut compare) {
        Err(error) if error.kind() == FaultKind::Cancelled => Err(VerifyError::Cancelled),
        Err(error) => {
            let mut finding = Finding {
                id: "disk.unreadable",
                severity: Severity::Error,
                path: PathBuf::from(&entry.path),
                offset: error.offset(),
                message: chain(&error),
                hint: None,
            };
            finding.hint = error.hint().map(ToOwned::to_owned);
            report.push(finding);
            Ok(0)
        }
        Ok(hashed) if hashed.root == entry.digest.root => Ok(hashed.read),
        Ok(hashed) => {
            let _ = compare.finish(u64::MAX);
            let (count, different) = (compare.count, compare.different);
            let message = match count {
                0 => "its content is not what was written: its digest differs".to_owned(),
                _ => format!(
                    "its content is not what was written: {count} of {} chunks of 1 MiB differ",
                    entry.virtual_size.div_ceil(CHUNK_SIZE)
                ),
            };
            report.push(Finding {
                id: "disk.digest",
                severity: Severity::Error,
                path: PathBuf::from(&entry.path),
                offset: different.first().map(|index| index * CHUNK_SIZE),
                message,
                hint: None,
            });
            for index in different.iter().skip(1) {
                report.push(Finding {
                    id: "disk.chunk",
                    severity: Severity::Note,
                    path: PathBuf::from(&entry.path),
                    offset: Some(index * CHUNK_SIZE),
                    message: "this chunk differs, too".to_owned(),
                    hint: None,
                });
            }
            let _ = path;
            Ok(hashed.read)
        }
    }
}

/// The list of chunk digests of a disk, if it is itself proven by the root.
fn open_list(report: &mut Report, entry: &DiskEntry) -> Option<FileStorage> {
    let path = locate(report, entry.digest.chunks.as_deref()?)?;
    let proven = || -> Result<FileStorage, Cause> {
        let storage = FileStorage::open_read(&path)?;
        let list = Sidecar::open(&storage)?;
        if list.size() != entry.virtual_size || list.root()? != entry.digest.root {
            return Err("its digests do not add up to the disk's".into());
        }
        Ok(storage)
    };
    match proven() {
        Ok(storage) => Some(storage),
        Err(error) => {
            report.add("package.digest-list", Severity::Error, &path, chain_of(&error));
            None
        }
    }
}

/// Holds what is read against the list, to say where they differ.
struct Compare<'a, 'b> {
    list: Option<&'a mut Sidecar<'b>>,
    pending: Option<(u64, Digest)>,
    broken: bool,
    different: Vec<u64>,
    count: u64,
}

impl Compare<'_, '_> {
    fn differs(&mut self, index: u64) {
        self.count += 1;
        if self.different.len() < MAX_CHUNKS {
            self.different.push(index);
        }
    }

    /// Everything the list has below `index` was not read: it is zeros now.
    fn finish(&mut self, index: u64) -> io::Result<()> {
        loop {
            if self.pending.is_none() {
                let Some(list) = &mut self.list else { return Ok(()) };
                self.pending = list.read_next()?;
            }
            match self.pending {
                Some((listed, _)) if listed < index => {
                    self.pending = None;
                    self.differs(listed);
                }
                _ => return Ok(()),
            }
        }
    }
}

impl Journal for Compare<'_, '_> {
    fn chunk(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        if self.list.is_none() || self.broken {
            return Ok(());
        }
        // The list proved itself before; should it break now, the root still decides.
        if self.finish(index).is_err() {
            self.broken = true;
            return Ok(());
        }
        match self.pending {
            Some((listed, expected)) if listed == index => {
                self.pending = None;
                if expected != *digest {
                    self.differs(index);
                }
            }
            _ => self.differs(index),
        }
        Ok(())
    }
}

/// Files that no manifest entry accounts for.
fn extras(report: &mut Report, manifest: &Manifest) {
    let known: std::collections::HashSet<String> =
        manifest.paths().map(fold_case).chain([manifest::PATH, JOURNAL_PATH].map(fold_case)).collect();
    let mut open = vec![report.root.clone()];
    let mut seen = 0;
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_WALK {
                let root = report.root.clone();
                let message = format!("has more than {MAX_WALK} entries; the rest was not looked at");
                report.add("package.too-many-files", Severity::Warning, &root, message);
                return;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
                continue;
            }
            let relative = path.strip_prefix(&report.root).unwrap_or(&path).to_string_lossy().into_owned();
            if !known.contains(&fold_case(&relative)) {
                report.add("package.extra", Severity::Warning, &path, "is not in the manifest");
            }
        }
    }
}
