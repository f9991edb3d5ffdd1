//! Writing a package so that it is absent, `.partial`, or complete, and nothing else.
//!
//! ```text
//!  begin ──> <final>.partial/Slipway/progress.json ──> disks, checkpoint by checkpoint ──> small files
//!    ──> Slipway/manifest.json ──> sync of every directory ──> rename to <final> ──> sync of the parent
//! ```
//!
//! # What a crash leaves, and why that is right
//!
//! 1. *Before the journal exists*: an empty `.partial`, or one with an empty `Slipway`. `begin` removes it and starts over.
//! 2. *While the journal is replaced*: the old or the new one is there, whole (temporary file, sync, rename, sync). Both
//!    describe disks whose content below the watermark was synced before the journal was written.
//! 3. *While a disk is copied*: data above the watermark is anything. It is written again: from an identical source (identities
//!    are compared), so that also the zeros that are not written were zeros, or never written, before.
//! 4. *After a checkpoint, on storage that lied*: what the journal says is synced is read back and hashed before it is relied
//!    on. A disk that fails is copied anew.
//! 5. *While small files or the manifest are written*: they are written again; the journal still leads.
//! 6. *Between manifest and rename*: the same; a `.partial` with a manifest is still a `.partial`.
//! 7. *At the rename*: it is atomic, and everything below was synced before: old name or new name, complete either way.
//!    Until the parent is synced the old name may come back after power loss; then case 6.
//! 8. *While starting over, abandoning or discarding*: our directory goes last, so what is left is known as ours, and its
//!    journal, if still there, speaks of disks that are gone or fail to prove themselves: cases 1 and 4.
//! 9. *After the rename*: the journal inside a complete package means nothing and is removed; a left-over is ignored.
//!
//! The rename cannot replace anything but an empty directory (POSIX), so no earlier package is ever overwritten, not even in a
//! race. Two writers of one target are kept apart by a lock on the `.partial`.
//!
//! A `.partial` goes on only when machine, generation, disks, their geometry and the identity of every source file are the
//! same: a package never mixes two instants. What the machine is, and when to cancel, the caller knows.

mod disk;
pub mod fs;
pub(crate) mod journal;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

pub use disk::{DiskOutcome, DiskWritten};
pub use fs::{EntryKind, Fs, HostFs, free_space};
pub use journal::{DiskPlan, TargetFormat};

use crate::copy::{self, CopyError, CopyOptions, NoJournal};
use crate::digest::{self, Digest};
use crate::fault::{Cause, Fault, FaultKind};
use crate::manifest::{
    self, ContentDigest, ExcludedEntry, FileEntry, MachineEntry, Manifest, check_path, fold_case,
};
use crate::package::PARTIAL;
use crate::sink::{RawSink, Sink};
use crate::source::{OpenOptions, RawSource, Source};
use journal::{Journal, create_over, replace};

pub(crate) use journal::PATH as JOURNAL_PATH;

/// Field of a manifest that names the run which wrote it.
const RUN: &str = "run";
/// Largest file taken by [`PackageWriter::add_file_from`], in bytes: saved states go to tens of gigabytes.
const MAX_FILE: u64 = 1 << 42;
/// Bytes moved at a time when a file is carried over.
const COPY_BLOCK: usize = 1 << 20;

/// What a package will hold, as far as it must be known before the first byte is copied.
#[derive(Clone, Debug)]
pub struct PackagePlan {
    /// The machine.
    pub machine_id: Uuid,
    /// Its name.
    pub machine_name: String,
    /// Name and version of the program.
    pub tool: String,
    /// The instant that all disks show, such as the machine's run counter.
    pub generation: String,
    /// Names this run, such as a job id; see [`find_completed`].
    pub run: Option<String>,
    /// The disks.
    pub disks: Vec<DiskPlan>,
}

/// How an export began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing was there.
    Fresh,
    /// It goes on from an earlier run.
    Resumed {
        /// Bytes of disks that the earlier run had finished.
        done: u64,
    },
    /// An earlier run's work was dropped.
    StartedOver {
        /// Why it could not be used.
        reason: String,
    },
}

/// Why a package could not be written. The `.partial` is still there, unless it could not even begin.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WriterError(Box<Failure>);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("cannot copy disk `{disk}`")]
    Copy { disk: String, source: CopyError },
    #[error("cannot copy the saved memory")]
    State { source: CopyError },
}

impl WriterError {
    /// What a caller may branch on.
    pub fn kind(&self) -> FaultKind {
        match &*self.0 {
            Failure::Fault(fault) => fault.kind,
            Failure::Copy { source, .. } | Failure::State { source } => source.kind(),
        }
    }

    /// The file concerned.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Failure::Fault(fault) => Some(&fault.path),
            Failure::Copy { source, .. } | Failure::State { source } => source.path(),
        }
    }

    /// The byte concerned, where there is one.
    pub fn offset(&self) -> Option<u64> {
        match &*self.0 {
            Failure::Fault(fault) => fault.offset,
            Failure::Copy { source, .. } | Failure::State { source } => source.offset(),
        }
    }

    /// How many more bytes the target needs, when it is full and that is known.
    pub fn needed(&self) -> Option<u64> {
        match &*self.0 {
            Failure::Fault(_) => None,
            Failure::Copy { source, .. } | Failure::State { source } => source.needed(),
        }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&str> {
        match &*self.0 {
            Failure::Fault(fault) => fault.hint.as_deref(),
            Failure::Copy { source, .. } | Failure::State { source } => source.hint(),
        }
    }

    fn io(error: io::Error, doing: &'static str, path: &Path) -> Self {
        Fault::io(error, doing, path).into()
    }
}

impl From<Fault> for WriterError {
    fn from(fault: Fault) -> Self {
        Self(Box::new(Failure::Fault(fault)))
    }
}

/// A package being written; see the module. Dropped without `finish` or `abandon`, it leaves its `.partial`.
#[derive(Debug)]
pub struct PackageWriter {
    fs: Arc<dyn Fs>,
    target: PathBuf,
    partial: PathBuf,
    plan: PackagePlan,
    journal: Journal,
    /// Directories made or found, relative; synced before the rename.
    directories: BTreeSet<PathBuf>,
    files: Vec<FileEntry>,
    state: Option<manifest::StateEntry>,
    disks: Vec<Option<manifest::DiskEntry>>,
    excluded: Vec<ExcludedEntry>,
    extra: Map<String, Value>,
    /// When it is finished, by another clock than the system's.
    date: Option<jiff::Timestamp>,
    /// Held until the end.
    _lock: Box<dyn fs::Lock>,
}

/// The `.partial` of a package that will be at `target`.
pub fn partial_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".");
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// The manifest of the complete package at `target`, if `run` wrote it: a job that died after its last step finds that it
/// had succeeded.
///
/// # Errors
/// When the manifest is there and cannot be read.
pub fn find_completed(target: &Path, run: &str) -> Result<Option<Manifest>, WriterError> {
    let path = target.join(manifest::PATH);
    match HostFs::default().entry(&path) {
        Ok(EntryKind::File) => {}
        Ok(_) => return Ok(None),
        Err(error) => return Err(WriterError::io(error, "look at", &path)),
    }
    let bytes = crate::verify::read_bounded(&path, manifest::MAX_SIZE)
        .map_err(|error| WriterError::io(error, "read", &path))?;
    let parsed = Manifest::parse(&bytes);
    let manifest = parsed.map_err(|error| damaged(error.into(), "read", &path))?;
    Ok((manifest.extra.get(RUN).and_then(Value::as_str) == Some(run)).then_some(manifest))
}

/// Deletes the `.partial` of `target`, when there is one and it is ours. Says whether there was.
///
/// # Errors
/// `Busy` when it is being written, or what the operating system says.
pub fn discard(target: &Path) -> Result<bool, WriterError> {
    discard_on(&HostFs::default(), target)
}

fn discard_on(fs: &dyn Fs, target: &Path) -> Result<bool, WriterError> {
    let partial = partial_path(target);
    let entry = fs.entry(&partial).map_err(|error| WriterError::io(error, "look at", &partial))?;
    if entry == EntryKind::Absent {
        return Ok(false);
    }
    refuse_foreign(fs, &partial, entry)?;
    let _lock = lock(fs, &partial)?;
    clear(fs, &partial).map_err(|error| WriterError::io(error, "remove", &partial))?;
    fs.remove_tree(&partial).map_err(|error| WriterError::io(error, "remove", &partial))?;
    sync_parent(fs, target)?;
    Ok(true)
}

/// Empties a `.partial`; our directory goes last, so that whatever a crash leaves is still known as ours.
fn clear(fs: &dyn Fs, partial: &Path) -> io::Result<()> {
    let (own, others): (Vec<_>, Vec<_>) =
        fs.names(partial)?.into_iter().partition(|name| name == manifest::DIRECTORY);
    for name in others {
        let path = partial.join(name);
        match fs.entry(&path)? {
            EntryKind::Absent => {}
            EntryKind::File => fs.remove_file(&path)?,
            EntryKind::Directory | EntryKind::EmptyDirectory => fs.remove_tree(&path)?,
        }
    }
    fs.sync_dir(partial)?;
    own.into_iter().try_for_each(|name| fs.remove_tree(&partial.join(name)))
}

fn damaged(cause: Cause, doing: &'static str, path: &Path) -> WriterError {
    let mut fault = Fault::new(FaultKind::Damaged, doing, path);
    fault.cause = Some(cause);
    fault.into()
}

/// A `.partial` that holds anything without our directory is somebody's own.
fn refuse_foreign(fs: &dyn Fs, partial: &Path, entry: EntryKind) -> Result<(), WriterError> {
    let ours = match entry {
        EntryKind::Absent | EntryKind::EmptyDirectory => true,
        EntryKind::File => false,
        EntryKind::Directory => {
            let own = partial.join(manifest::DIRECTORY);
            matches!(fs.entry(&own), Ok(EntryKind::Directory | EntryKind::EmptyDirectory))
        }
    };
    if ours {
        return Ok(());
    }
    Err(Fault::new(FaultKind::AlreadyExists, "export to", partial)
        .detail("it exists and is not an unfinished export")
        .hint("move it away, or choose another target")
        .into())
}

fn lock(fs: &dyn Fs, partial: &Path) -> Result<Box<dyn fs::Lock>, WriterError> {
    fs.lock_dir(partial).map_err(|error| {
        let mut fault = Fault::io(error, "lock", partial);
        if fault.kind == FaultKind::Busy {
            fault = fault.detail("another export is writing it");
        }
        fault.into()
    })
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_parent(fs: &dyn Fs, target: &Path) -> Result<(), WriterError> {
    let parent = parent_of(target);
    fs.sync_dir(parent).map_err(|error| WriterError::io(error, "sync", parent))
}

impl PackageWriter {
    /// Begins a package at `target`, or goes on with its `.partial`. The directory above must exist.
    ///
    /// # Errors
    /// `AlreadyExists` when `target` is there and not an empty directory; `Busy` when another export writes it; `NotFound`,
    /// `ReadOnly`, `Denied`, `NoSpace` about the directory above.
    pub fn begin(target: &Path, plan: PackagePlan) -> Result<(Self, Beginning), WriterError> {
        Self::begin_on(Arc::new(HostFs::default()), target, plan)
    }

    /// [`Self::begin`] on another file system.
    ///
    /// # Errors
    /// As there.
    pub fn begin_on(
        fs: Arc<dyn Fs>,
        target: &Path,
        plan: PackagePlan,
    ) -> Result<(Self, Beginning), WriterError> {
        check_plan(&plan, target)?;
        if target.file_name().is_none() {
            return Err(Fault::new(FaultKind::Unsupported, "export to", target)
                .detail("it has no name of its own")
                .hint("name a new folder")
                .into());
        }
        refuse_existing(&*fs, target)?;
        let partial = partial_path(target);
        let failed = |doing, error| WriterError::io(error, doing, &partial);

        let entry = fs.entry(&partial).map_err(|error| failed("look at", error))?;
        refuse_foreign(&*fs, &partial, entry)?;
        if entry == EntryKind::Absent {
            fs.create_dir(&partial).map_err(|error| failed("create", error))?;
        }
        let held = lock(&*fs, &partial)?;
        let mut beginning = Beginning::Fresh;
        let mut journal = None;
        if matches!(entry, EntryKind::Directory) {
            let reason = match Journal::load(&*fs, &partial) {
                Ok(found) => match found.difference(plan.machine_id, &plan.generation, &plan.disks) {
                    None => {
                        beginning = Beginning::Resumed { done: found.done() };
                        journal = Some(found);
                        None
                    }
                    Some(difference) => Some(difference),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Some("it has no record of its progress".to_owned())
                }
                Err(error) => Some(format!("its record of progress cannot be used: {error}")),
            };
            if let Some(reason) = reason {
                clear(&*fs, &partial).map_err(|error| failed("clear", error))?;
                beginning = Beginning::StartedOver { reason };
            }
        }
        let fresh = journal.is_none();
        let journal = journal.unwrap_or_else(|| Journal::new(plan.machine_id, &plan.generation, &plan.disks));
        let mut writer = Self {
            fs,
            target: target.to_owned(),
            disks: vec![None; plan.disks.len()],
            partial,
            plan,
            journal,
            directories: BTreeSet::from([PathBuf::new()]),
            files: Vec::new(),
            state: None,
            excluded: Vec::new(),
            extra: Map::new(),
            date: None,
            _lock: held,
        };
        writer.ensure_dir(Path::new(manifest::DIRECTORY))?;
        if fresh {
            writer.save_journal()?;
            writer.sync_dir(&writer.partial)?;
            sync_parent(&*writer.fs, &writer.target)?;
        }
        Ok((writer, beginning))
    }

    /// Where the package is being built.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Copies the content of planned disk `path` from `source`, or the part of it that is still missing.
    ///
    /// # Errors
    /// `Changed` when `source` is not the one planned; else as the copy says. What was synced stays for the next run.
    pub fn add_disk(
        &mut self,
        path: &str,
        source: &dyn Source,
        options: &CopyOptions<'_>,
    ) -> Result<DiskWritten, WriterError> {
        disk::add(self, path, source, options)
    }

    /// Writes a small file at `path` inside the package.
    ///
    /// # Errors
    /// When the path is not a good one, or the target fails.
    pub fn add_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), WriterError> {
        let host = self.claim(path)?;
        journal::write_new(&*self.fs, &host, bytes).map_err(|e| WriterError::io(e, "write", &host))?;
        self.files.push(FileEntry {
            path: path.to_owned(),
            size: bytes.len() as u64,
            blake3: Digest::of(bytes),
            extra: Map::new(),
        });
        Ok(())
    }

    /// Carries the file at `from` over, byte for byte, to `path` inside the package.
    ///
    /// # Errors
    /// As [`Self::add_file`]; or `from` cannot be read; or `cancelled` said so.
    pub fn add_file_from(
        &mut self,
        path: &str,
        from: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), WriterError> {
        use std::io::Read;
        let host = self.claim(path)?;
        let unreadable = |error| WriterError::io(error, "read", from);
        let file = std::fs::File::open(from).map_err(unreadable)?;
        let unwritable = |error| WriterError::io(error, "write", &host);
        let storage = create_over(&*self.fs, &host).map_err(unwritable)?;
        let mut reader = file;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; COPY_BLOCK];
        let mut size = 0;
        loop {
            if cancelled() {
                return Err(Fault::new(FaultKind::Cancelled, "copy", from).detail("cancelled").into());
            }
            let count = match reader.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            if size >= MAX_FILE {
                return Err(Fault::new(FaultKind::Limit, "copy", from)
                    .detail(format!("it has more than {MAX_FILE} bytes"))
                    .into());
            }
            hasher.update(&block[..count]);
            storage.write_at(&block[..count], size).map_err(unwritable)?;
            size += count as u64;
        }
        storage.sync().map_err(unwritable)?;
        let blake3 = Digest(*hasher.finalize().as_bytes());
        self.files.push(FileEntry { path: path.to_owned(), size, blake3, extra: Map::new() });
        Ok(())
    }

    /// Copies a machine's saved memory from the file at `from`; `details` say what it takes to go on with it. It is
    /// copied anew by a run that goes on from an earlier one.
    ///
    /// # Errors
    /// As the copy says.
    pub fn add_state(
        &mut self,
        from: &Path,
        details: Map<String, Value>,
        options: &CopyOptions<'_>,
    ) -> Result<(), WriterError> {
        let failed = |source: CopyError| WriterError(Box::new(Failure::State { source }));
        let source = RawSource::open(from, &OpenOptions::default()).map_err(|e| failed(e.into()))?;
        let host = self.partial.join(manifest::STATE);
        let storage =
            create_over(&*self.fs, &host).map_err(|error| WriterError::io(error, "create", &host))?;
        let sink = RawSink::new(storage, &host, source.size()).map_err(|e| failed(e.into()))?;
        let copied = copy::copy(&source, &sink, options, None, &mut NoJournal).map_err(failed)?;
        Sink::finish(Box::new(sink)).map_err(|e| failed(e.into()))?;
        self.state = Some(manifest::StateEntry {
            path: manifest::STATE.to_owned(),
            size: copied.size,
            digest: ContentDigest {
                algorithm: digest::ALGORITHM.to_owned(),
                chunk_size: digest::CHUNK_SIZE,
                root: copied.root,
                chunks: None,
                extra: Map::new(),
            },
            details,
        });
        Ok(())
    }

    /// Makes a directory that stays empty if nothing is added to it, as Hyper-V leaves `Snapshots`.
    ///
    /// # Errors
    /// When the path is not a good one, or the target fails.
    pub fn add_directory(&mut self, path: &str) -> Result<(), WriterError> {
        check_path(path).map_err(|why| self.bad_path(path, why))?;
        self.ensure_dir(Path::new(path))
    }

    /// Notes in the manifest what was left out on purpose.
    pub fn exclude(&mut self, what: &str, name: &str, reason: &str) {
        self.excluded.push(ExcludedEntry {
            what: what.to_owned(),
            name: name.to_owned(),
            reason: reason.to_owned(),
            extra: Map::new(),
        });
    }

    /// Adds a field of the caller's own to the manifest.
    pub fn annotate(&mut self, field: &str, value: Value) {
        self.extra.insert(field.to_owned(), value);
    }

    /// Dates the package by another clock than the system's: the manifest says that it was finished then.
    pub fn date(&mut self, finished: jiff::Timestamp) {
        self.date = Some(finished);
    }

    /// Writes the manifest and puts the package in its place.
    ///
    /// # Errors
    /// `Unsupported` when a planned disk was not added; `AlreadyExists` when somebody made `target` meanwhile; else what the
    /// target says. The `.partial` stays.
    pub fn finish(mut self) -> Result<Manifest, WriterError> {
        let mut disks = Vec::with_capacity(self.disks.len());
        for (disk, plan) in self.disks.iter().zip(&self.plan.disks) {
            disks.push(disk.clone().ok_or_else(|| {
                WriterError::from(
                    Fault::new(FaultKind::Unsupported, "finish", &self.partial)
                        .detail(format!("disk `{}` has not been copied", plan.path)),
                )
            })?);
        }
        let saved_state = self.state.take();
        let state = self.partial.join(manifest::STATE);
        // Of an earlier run, of a machine that was saved then.
        if saved_state.is_none()
            && self.fs.entry(&state).map_err(|error| WriterError::io(error, "look at", &state))?
                != EntryKind::Absent
        {
            self.fs.remove_file(&state).map_err(|error| WriterError::io(error, "remove", &state))?;
        }
        let mut extra = std::mem::take(&mut self.extra);
        if let Some(run) = &self.plan.run {
            extra.insert(RUN.to_owned(), run.clone().into());
        }
        let manifest = Manifest {
            format: manifest::FORMAT.into(),
            version: manifest::VERSION,
            tool: self.plan.tool.clone(),
            created: self
                .date
                .unwrap_or_else(jiff::Timestamp::now)
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            machine: MachineEntry {
                id: self.plan.machine_id,
                name: self.plan.machine_name.clone(),
                extra: Map::new(),
            },
            files: std::mem::take(&mut self.files),
            disks,
            saved_state,
            excluded: std::mem::take(&mut self.excluded),
            extra,
        };
        let path = self.partial.join(manifest::PATH);
        let bytes = manifest.to_bytes().map_err(|error| damaged(error.into(), "write", &path))?;
        replace(&*self.fs, &path, &bytes).map_err(|error| WriterError::io(error, "write", &path))?;
        // Deepest first, the package itself last.
        for directory in self.directories.iter().rev() {
            self.sync_dir(&self.partial.join(directory))?;
        }
        self.fs.rename(&self.partial, &self.target).map_err(|error| {
            let mut fault = Fault::io(error, "put the package in place as", &self.target);
            if fault.kind == FaultKind::Other && self.target.exists() {
                fault.kind = FaultKind::AlreadyExists;
            }
            WriterError::from(fault)
        })?;
        sync_parent(&*self.fs, &self.target)?;
        // From here on the package is complete: what fails now changes nothing about that.
        if let Err(error) = self.fs.remove_file(&self.target.join(JOURNAL_PATH)) {
            tracing::warn!(%error, package = %self.target.display(), "the record of progress stays behind");
        }
        Ok(manifest)
    }

    /// Deletes what was written so far.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn abandon(self) -> Result<(), WriterError> {
        let failed = |error| WriterError::io(error, "remove", &self.partial);
        clear(&*self.fs, &self.partial).map_err(failed)?;
        self.fs.remove_tree(&self.partial).map_err(failed)?;
        sync_parent(&*self.fs, &self.target)
    }

    fn bad_path(&self, path: &str, why: &str) -> WriterError {
        Fault::new(FaultKind::Unsupported, "add", &self.partial.join(path)).detail(why).into()
    }

    /// Checks a new file's path, makes its directories, and returns it on the host.
    fn claim(&mut self, path: &str) -> Result<PathBuf, WriterError> {
        check_path(path).map_err(|why| self.bad_path(path, why))?;
        let folded = fold_case(path);
        let taken = self.files.iter().map(|f| &f.path).chain(self.plan.disks.iter().map(|d| &d.path));
        if taken.into_iter().any(|other| fold_case(other) == folded) {
            return Err(self.bad_path(path, "it is there already"));
        }
        let own = fold_case(manifest::DIRECTORY) + "/";
        if folded.starts_with(&own) {
            return Err(self.bad_path(path, "the directory `Slipway` is the program's own"));
        }
        if let Some(parent) = Path::new(path).parent() {
            self.ensure_dir(parent)?;
        }
        Ok(self.partial.join(path))
    }

    /// Makes `relative` and all above it.
    fn ensure_dir(&mut self, relative: &Path) -> Result<(), WriterError> {
        let mut at = PathBuf::new();
        for name in relative {
            at.push(name);
            if self.directories.contains(&at) {
                continue;
            }
            let host = self.partial.join(&at);
            match self.fs.create_dir(&host) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(WriterError::io(error, "create", &host));
                }
                _ => {}
            }
            self.directories.insert(at.clone());
        }
        Ok(())
    }

    fn save_journal(&self) -> Result<(), WriterError> {
        self.journal
            .save(&*self.fs, &self.partial)
            .map_err(|error| WriterError::io(error, "record progress in", &self.partial))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), WriterError> {
        self.fs.sync_dir(dir).map_err(|error| WriterError::io(error, "sync", dir))
    }
}

fn check_plan(plan: &PackagePlan, target: &Path) -> Result<(), WriterError> {
    let bad = |path: &str, why: &str| {
        Err(Fault::new(FaultKind::Unsupported, "export", &target.join(path)).detail(why).into())
    };
    let mut names = BTreeSet::new();
    for disk in &plan.disks {
        if let Err(why) = check_path(&disk.path) {
            return bad(&disk.path, why);
        }
        // By name, not path: the digest lists of all disks share one directory.
        let name = disk.path.rsplit('/').next().unwrap_or_default();
        if !names.insert(fold_case(name)) {
            return bad(&disk.path, "two disks have this name");
        }
    }
    Ok(())
}

/// Nothing but an empty directory may be where the package will be.
fn refuse_existing(fs: &dyn Fs, target: &Path) -> Result<(), WriterError> {
    let parent = parent_of(target);
    match fs.entry(target).map_err(|error| WriterError::io(error, "look at", target))? {
        EntryKind::Absent => {
            if matches!(fs.entry(parent), Ok(EntryKind::Absent)) {
                return Err(Fault::new(FaultKind::NotFound, "export to", target)
                    .detail(format!("there is no directory `{}`", parent.display()))
                    .hint(format!("mkdir -p {}", crate::shell::path(parent)))
                    .into());
            }
            Ok(())
        }
        EntryKind::EmptyDirectory => {
            let one = fs.same_file_system(target, parent);
            if !one.map_err(|error| WriterError::io(error, "look at", target))? {
                return Err(Fault::new(FaultKind::Unsupported, "export to", target)
                    .detail("it is the top of a file system")
                    .hint("name a new folder inside it")
                    .into());
            }
            Ok(())
        }
        EntryKind::Directory | EntryKind::File => {
            Err(Fault::new(FaultKind::AlreadyExists, "export to", target)
                .detail("it exists already; nothing is ever overwritten")
                .hint("choose another target, or move it away")
                .into())
        }
    }
}

#[cfg(test)]
mod tests;
