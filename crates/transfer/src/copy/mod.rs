//! The copy engine: one loop for every pair of source and sink.
//!
//! ```text
//!  extents (metadata) ──> plan: items of whole chunks that hold data ──┐
//!                                                                      │ taken in ascending order
//!    worker 1  read ─ find zeros ─ BLAKE3 per chunk ─ write ─┐         │
//!    worker 2  read ─ find zeros ─ BLAKE3 per chunk ─ write ─┤ <───────┘
//!       …                                                    │ done, in any order
//!    caller's thread: back in order ──> root digest, journal, watermark, checkpoint, progress, cancel
//! ```
//!
//! * Holes and recorded zeros are never read. Zeros inside data are found at 64 KiB granularity and not written to a fresh
//!   sink.
//! * Every byte below the *watermark* has been written. A checkpoint makes that durable and tells the [`Journal`], from which
//!   a later copy of the same source goes on.
//! * Memory is `workers * io_size` plus some bookkeeping, whatever the disk: [`CopyOptions::default`] stays below 64 MiB.
//!   Twice the workers, or twice the size, were measured and gained nothing.
//! * Where the file systems can, what was read and hashed is not written but shares the source's blocks ([`Copied::cloned`]).
//! * Workers are plain threads in blocking calls: their number is the queue depth.
//!
//! It neither finishes the sink (the caller does, when it has what it wants) nor knows what the disk is for.

mod limiter;
mod plan;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub use plan::{Measure, measure};

use crate::digest::{CHUNK_SIZE, Digest, RootHasher};
use crate::fault::{Cause, FaultKind};
use crate::sink::{Sink, SinkError};
use crate::source::{Source, SourceError, SourceIdentity};
use limiter::Limiter;
use worker::{Done, Shared};

/// How finely zeros inside data are looked for.
pub const ZERO_GRANULE: usize = 64 * 1024;
/// Most workers that options may ask for.
pub const MAX_WORKERS: usize = 64;
/// Largest transfer that options may ask for.
pub const MAX_IO_SIZE: usize = 32 << 20;
/// How often the caller's thread looks at the cancel flag while nothing else happens.
const TICK: Duration = Duration::from_millis(20);
/// Least time between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How to copy.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Threads, each with one transfer under way.
    pub workers: usize,
    /// Bytes per transfer, rounded up to whole chunks. Below 2 MiB a buffer is no huge page, and slower for it.
    pub io_size: usize,
    /// Most bytes read per second.
    pub rate_limit: Option<NonZero<u64>>,
    /// Checkpoint after so many bytes of the disk …
    pub checkpoint_bytes: u64,
    /// … or so much time, whichever comes first.
    pub checkpoint_interval: Duration,
    /// Asked every few milliseconds; true ends the copy with `Cancelled`.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Told about progress, about ten times a second and once at the end.
    pub progress: &'a (dyn Fn(&Progress) + Sync),
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        Self {
            workers: 8,
            io_size: 2 << 20,
            rate_limit: None,
            checkpoint_bytes: 4 << 30,
            checkpoint_interval: Duration::from_secs(5),
            cancelled: &|| false,
            progress: &|_| {},
        }
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("workers", &self.workers)
            .field("io_size", &self.io_size)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}

/// What is being done with the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Copied.
    #[default]
    Copy,
    /// Read back, because an earlier run says that it wrote them.
    Prove,
    /// Hashed, to compare with a record.
    Verify,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of data done, including those an earlier run did.
    pub done: u64,
    /// Bytes of data of the whole source, from its metadata.
    pub total: u64,
    /// Bytes of data read by this run.
    pub read: u64,
    /// Bytes written to the sink by this run.
    pub written: u64,
    /// Everything below this byte of the disk is done.
    pub position: u64,
    /// Size of the disk.
    pub size: u64,
}

/// Where an interrupted copy goes on; made by who proved that part.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Everything below is in the sink already: a multiple of the chunk size, or the size.
    pub watermark: u64,
    /// Has been fed with all chunks below the watermark.
    pub root: RootHasher,
}

/// Keeps what a copy has done, so that it can go on later.
pub trait Journal {
    /// The next chunk that is not all zero, in ascending order.
    ///
    /// # Errors
    /// Ends the copy.
    fn chunk(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        let _ = (index, digest);
        Ok(())
    }

    /// Everything below `watermark`, and every chunk told so far, is durable in the sink.
    ///
    /// # Errors
    /// Ends the copy.
    fn checkpoint(&mut self, watermark: u64) -> io::Result<()> {
        let _ = watermark;
        Ok(())
    }
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;
impl Journal for NoJournal {}

/// A finished copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Root digest of the whole disk.
    pub root: Digest,
    /// Chunks that are not all zero.
    pub chunks: u64,
    /// Virtual size.
    pub size: u64,
    /// Bytes of data read by this run.
    pub read: u64,
    /// Bytes written by this run.
    pub written: u64,
    /// Bytes that share their blocks with the source instead: read and hashed like all, not written.
    pub cloned: u64,
}

/// A copy that did not finish.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CopyError(Box<CopyFailure>);

#[derive(Debug, thiserror::Error)]
enum CopyFailure {
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("no space left for `{}`: about {needed} more bytes are needed", path.display())]
    NoSpace { path: PathBuf, needed: u64, offset: Option<u64>, source: Cause },
    #[error("`{}` changed while it was being copied: {how}", path.display())]
    Changed { path: PathBuf, how: String },
    #[error("`{}` holds {source_size} bytes, more than the {sink_size} of `{}`", source_path.display(), sink_path.display())]
    TooSmall { source_path: PathBuf, source_size: u64, sink_path: PathBuf, sink_size: u64 },
    #[error("no thread can be started to copy to `{}`", path.display())]
    Threads { path: PathBuf, source: io::Error },
    #[error("cannot record the progress of `{}`", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("no memory for a buffer of {bytes} bytes")]
    Memory { bytes: usize, source: io::Error },
}

impl CopyError {
    fn cancelled() -> Self {
        CopyFailure::Cancelled.into()
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> FaultKind {
        match &*self.0 {
            CopyFailure::Cancelled => FaultKind::Cancelled,
            CopyFailure::Source(e) => e.kind(),
            CopyFailure::Sink(e) => e.kind(),
            CopyFailure::NoSpace { .. } => FaultKind::NoSpace,
            CopyFailure::Changed { .. } => FaultKind::Changed,
            CopyFailure::TooSmall { .. } => FaultKind::Unsupported,
            CopyFailure::Journal { source, .. }
            | CopyFailure::Memory { source, .. }
            | CopyFailure::Threads { source, .. } => FaultKind::of(source),
        }
    }

    /// The file or peer concerned.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            CopyFailure::Cancelled | CopyFailure::Memory { .. } => None,
            CopyFailure::Source(e) => Some(e.path()),
            CopyFailure::Sink(e) => Some(e.path()),
            CopyFailure::NoSpace { path, .. }
            | CopyFailure::Changed { path, .. }
            | CopyFailure::Threads { path, .. }
            | CopyFailure::Journal { path, .. } => Some(path),
            CopyFailure::TooSmall { sink_path, .. } => Some(sink_path),
        }
    }

    /// The byte concerned, where there is one.
    pub fn offset(&self) -> Option<u64> {
        match &*self.0 {
            CopyFailure::Source(e) => e.offset(),
            CopyFailure::Sink(e) => e.offset(),
            CopyFailure::NoSpace { offset, .. } => *offset,
            _ => None,
        }
    }

    /// How many more bytes the target needs at most, when it is full.
    pub fn needed(&self) -> Option<u64> {
        match &*self.0 {
            CopyFailure::NoSpace { needed, .. } => Some(*needed),
            _ => None,
        }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&str> {
        match &*self.0 {
            CopyFailure::Source(e) => e.hint(),
            CopyFailure::Sink(e) => e.hint(),
            CopyFailure::NoSpace { .. } => Some("free some space and run it again, or choose another target"),
            CopyFailure::Changed { .. } => {
                Some("make sure that nothing writes to the disk, then run it again")
            }
            _ => None,
        }
    }
}

impl From<CopyFailure> for CopyError {
    fn from(failure: CopyFailure) -> Self {
        Self(Box::new(failure))
    }
}

impl From<SourceError> for CopyError {
    fn from(error: SourceError) -> Self {
        CopyFailure::Source(error).into()
    }
}

impl From<SinkError> for CopyError {
    fn from(error: SinkError) -> Self {
        CopyFailure::Sink(error).into()
    }
}

/// Copies all of `source` into `sink` and hashes it. Where the sink is larger, the rest is zeros and hashed as such.
///
/// # Errors
/// The first thing that failed. The sink then holds an unspecified part; what the journal recorded is in it.
pub fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    options: &CopyOptions<'_>,
    resume: Option<Resume>,
    journal: &mut dyn Journal,
) -> Result<Copied, CopyError> {
    let end = sink.size();
    copy_until(source, sink, Phase::Copy, options, resume, journal, end)
}

/// Hashes `source` as a disk of `size` bytes, telling `journal` each chunk.
///
/// # Errors
/// The first thing that failed.
pub fn hash(
    source: &dyn Source,
    size: u64,
    options: &CopyOptions<'_>,
    journal: &mut dyn Journal,
) -> Result<Copied, CopyError> {
    hash_prefix(source, size, size, Phase::Verify, options, journal)
}

/// Hashes the part of `source` below `end`, telling `journal` each chunk.
///
/// # Errors
/// The first thing that failed.
pub(crate) fn hash_prefix(
    source: &dyn Source,
    size: u64,
    end: u64,
    phase: Phase,
    options: &CopyOptions<'_>,
    journal: &mut dyn Journal,
) -> Result<Copied, CopyError> {
    copy_until(source, &crate::sink::NullSink::new(size), phase, options, None, journal, end)
}

fn copy_until(
    source: &dyn Source,
    sink: &dyn Sink,
    phase: Phase,
    options: &CopyOptions<'_>,
    resume: Option<Resume>,
    journal: &mut dyn Journal,
    end: u64,
) -> Result<Copied, CopyError> {
    let size = sink.size();
    if source.size() > size {
        return Err(CopyFailure::TooSmall {
            source_path: source.path().to_owned(),
            source_size: source.size(),
            sink_path: sink.path().to_owned(),
            sink_size: size,
        }
        .into());
    }
    let before = source.identity()?;
    let resume = resume.unwrap_or_else(|| Resume { watermark: 0, root: RootHasher::new(size) });
    let start = resume.watermark.min(end);
    let amount = measure(source, start, end, options.cancelled)?;

    let io_size = options.io_size.clamp(1, MAX_IO_SIZE).next_multiple_of(CHUNK_SIZE as usize);
    let limiter = options.rate_limit.map(Limiter::new);
    let plan = plan::Plan::new(source, start, end, io_size as u64, !sink.is_fresh());
    let shared = Shared::new(source, sink, plan, limiter.as_ref());
    let (sender, receiver) = mpsc::channel();

    let mut keeper = Keeper {
        source,
        sink,
        options,
        journal,
        root: resume.root,
        waiting: BTreeMap::new(),
        next: 0,
        progress: Progress {
            phase,
            done: amount.before,
            total: amount.before + amount.data,
            read: 0,
            written: 0,
            position: start,
            size,
        },
        cloned: 0,
        reported: None,
        checkpointed: (start, Instant::now()),
    };
    let outcome = thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..options.workers.clamp(1, MAX_WORKERS) {
            let sender = sender.clone();
            let shared = &shared;
            let work = move || worker::run(shared, io_size, &sender);
            match thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => started += 1,
                // Fewer workers are slower and no less right; none would look like the end of the work.
                Err(error) if started == 0 => {
                    let path = sink.path().to_owned();
                    return Err(CopyFailure::Threads { path, source: error }.into());
                }
                Err(_) => break,
            }
        }
        drop(sender);
        let outcome = keeper.run(&shared, &receiver);
        // Whatever the reason for leaving: the workers must see it, or the scope never ends.
        shared.stop();
        outcome
    });
    outcome.map_err(|error| with_space_needed(error, &keeper.progress))?;

    if let Some(how) = changed(&before, source)? {
        return Err(CopyFailure::Changed { path: source.path().to_owned(), how }.into());
    }
    keeper.progress.position = end;
    keeper.progress.done = keeper.progress.total;
    (options.progress)(&keeper.progress);
    Ok(Copied {
        chunks: keeper.root.entries(),
        root: keeper.root.finish(),
        size,
        read: keeper.progress.read,
        written: keeper.progress.written,
        cloned: keeper.cloned,
    })
}

fn changed(before: &SourceIdentity, source: &dyn Source) -> Result<Option<String>, CopyError> {
    Ok(before.difference(&source.identity()?))
}

/// A full target is only worth a message that says how much is missing.
fn with_space_needed(error: CopyError, progress: &Progress) -> CopyError {
    if error.kind() != FaultKind::NoSpace {
        return error;
    }
    let path = error.path().map(Path::to_owned).unwrap_or_default();
    let offset = error.offset();
    let cause: Cause = match *error.0 {
        CopyFailure::Sink(source) => source.into(),
        CopyFailure::Journal { source, .. } => source.into(),
        other => return other.into(),
    };
    let needed = progress.total.saturating_sub(progress.done).max(1);
    CopyFailure::NoSpace { path, needed, offset, source: cause }.into()
}

/// The caller's thread: puts what workers did back in order and keeps the records.
struct Keeper<'a, 'b> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    options: &'a CopyOptions<'b>,
    journal: &'a mut dyn Journal,
    root: RootHasher,
    /// Done, but something below is not yet.
    waiting: BTreeMap<u64, Done>,
    next: u64,
    progress: Progress,
    cloned: u64,
    reported: Option<Instant>,
    checkpointed: (u64, Instant),
}

impl Keeper<'_, '_> {
    fn run(
        &mut self,
        shared: &Shared<'_>,
        receiver: &mpsc::Receiver<Result<Done, CopyError>>,
    ) -> Result<(), CopyError> {
        loop {
            if (self.options.cancelled)() {
                return Err(CopyError::cancelled());
            }
            match receiver.recv_timeout(TICK) {
                Ok(done) => self.take(done?, shared)?,
                Err(RecvTimeoutError::Timeout) => {}
                // All workers have left and nothing failed: the plan is exhausted.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.reported.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                self.reported = Some(Instant::now());
                (self.options.progress)(&self.progress);
            }
            self.maybe_checkpoint()?;
        }
    }

    fn take(&mut self, done: Done, shared: &Shared<'_>) -> Result<(), CopyError> {
        self.progress.done += done.data;
        self.progress.written += done.written;
        self.progress.read += done.data;
        self.cloned += done.cloned;
        self.waiting.insert(done.sequence, done);
        while let Some(done) = self.waiting.remove(&self.next) {
            self.next += 1;
            for (index, digest) in &done.digests {
                self.root.push(*index, digest);
                self.journal.chunk(*index, digest).map_err(|e| self.journal_failed(e))?;
            }
            self.progress.position = done.end;
        }
        shared.completed_below(self.next);
        Ok(())
    }

    fn maybe_checkpoint(&mut self) -> Result<(), CopyError> {
        let (position, at) = self.checkpointed;
        let watermark = self.progress.position;
        if watermark == position
            || (watermark - position < self.options.checkpoint_bytes
                && at.elapsed() < self.options.checkpoint_interval)
        {
            return Ok(());
        }
        // The workers write on meanwhile, above the watermark.
        self.sink.checkpoint()?;
        self.journal.checkpoint(watermark).map_err(|e| self.journal_failed(e))?;
        tracing::debug!(path = %self.source.path().display(), watermark, "copy checkpoint");
        self.checkpointed = (watermark, Instant::now());
        Ok(())
    }

    fn journal_failed(&self, source: io::Error) -> CopyError {
        CopyFailure::Journal { path: self.sink.path().to_owned(), source }.into()
    }
}

#[cfg(test)]
mod tests;
