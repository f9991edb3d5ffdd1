//! The part of a running job that is shared with its step: signals in, reports out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use store::Store;

use crate::board::Board;
use crate::clock::Clock;
use crate::gate::{Gate, Passing};
use crate::journal::{self, Checkpoint, Meta};
use crate::progress::Meter;
use crate::{Failure, JobId, MAX_WARNINGS, Warning};

/// At most one durable checkpoint of progress in this time.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Most that a job shows before it is finished, in percent.
const UNFINISHED: f64 = 99.0;

/// What all jobs of an engine share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Board,
    /// The engine is shutting down: steps stop, nothing is undone.
    pub(crate) stopping: AtomicBool,
    pub(crate) faults: Faults,
    /// Where jobs are stopped on purpose.
    pub(crate) gate: Option<Arc<dyn Gate>>,
}

/// What the proofs make go wrong; all off in a real engine.
#[derive(Default)]
pub(crate) struct Faults {
    /// Every step and every undo is run twice.
    pub(crate) twice: bool,
    /// The step that fails, and whether it does so before or after it did its work.
    pub(crate) fail: Option<(usize, FailWhen)>,
    /// The engine is shut down from the start: it reads and can be told things, and runs nothing.
    pub(crate) stopped: bool,
    /// When true the process counts as dead: steps unwind at once wherever they meet the engine.
    pub(crate) dead: Option<Arc<AtomicBool>>,
    /// Counts the moments at which a step looks whether it should stop.
    pub(crate) points: AtomicU64,
    /// Called with the number of each such moment.
    pub(crate) at_point: std::sync::OnceLock<Box<dyn Fn(u64, JobId) + Send + Sync>>,
}

/// What unwinds a step of a process that is dead for a proof.
struct Died;

impl Faults {
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.as_ref().is_some_and(|dead| dead.load(Ordering::Acquire))
    }

    /// The nearest thing to a kill in the middle of a step.
    fn die_if_dead(&self) {
        if self.is_dead() {
            std::panic::resume_unwind(Box::new(Died));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailWhen {
    /// The step started and did nothing.
    Before,
    /// The step did everything and then failed.
    After,
}

pub(crate) struct Live {
    pub(crate) id: JobId,
    pub(crate) shared: Arc<Shared>,
    meta: Arc<Meta>,
    cancelled: AtomicBool,
    undoing: AtomicBool,
    meter: Mutex<Meter>,
    /// The part of 100 that the step is: where it begins, and how long.
    span: Mutex<(f64, f64)>,
    /// What a gate wants the step to fail with.
    doomed: Mutex<Option<Failure>>,
    warnings: Mutex<Warnings>,
    checkpoint: Mutex<Last>,
}

#[derive(Default)]
struct Warnings {
    kept: Vec<Warning>,
    dropped: usize,
}

/// The last durable checkpoint.
struct Last {
    at: Option<Duration>,
    checkpoint: Checkpoint,
}

impl Live {
    pub(crate) fn new(
        id: JobId,
        shared: Arc<Shared>,
        meta: Arc<Meta>,
        checkpoint: Checkpoint,
        cancelled: bool,
    ) -> Live {
        let meter = Meter::restored(checkpoint.progress.clone());
        Live {
            id,
            shared,
            meta,
            cancelled: AtomicBool::new(cancelled),
            undoing: AtomicBool::new(false),
            meter: Mutex::new(meter),
            span: Mutex::default(),
            doomed: Mutex::default(),
            warnings: Mutex::default(),
            checkpoint: Mutex::new(Last { at: None, checkpoint }),
        }
    }

    /// Prepares for running or undoing a step, which is that part of 100.
    pub(crate) fn enter(&self, step: usize, undoing: bool, span: (f64, f64)) {
        self.undoing.store(undoing, Ordering::Release);
        *lock(&self.span) = span;
        *lock(&self.doomed) = None;
        let mut last = lock(&self.checkpoint);
        if last.checkpoint.step != step {
            last.checkpoint = Checkpoint { step, ..Checkpoint::default() };
            lock(&self.meter).reset();
        }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.shared.faults.die_if_dead();
        if let Some(at_point) = self.shared.faults.at_point.get() {
            at_point(self.shared.faults.points.fetch_add(1, Ordering::AcqRel), self.id);
        }
        self.shared.stopping.load(Ordering::Acquire)
            || (!self.undoing.load(Ordering::Acquire)
                && (self.cancelled.load(Ordering::Acquire) || lock(&self.doomed).is_some()))
    }

    /// Passes the gate, if there is one, on the way to having done that fraction of the step; `show` is told the fraction
    /// at which the step stands meanwhile. A job is at 100 % when its last step has done its work, not before.
    fn pass(&self, fraction: f64, most: f64, show: &dyn Fn(f64)) {
        let Some(gate) = self.shared.gate.as_ref().filter(|_| !self.undoing.load(Ordering::Acquire)) else {
            return;
        };
        let job = Passing { id: self.id, kind: &self.meta.kind, subject: self.meta.subject.as_deref() };
        let (before, step) = *lock(&self.span);
        let coming = (before + step * fraction).clamp(0.0, most) as u8;
        loop {
            let reached = lock(&self.meter).high;
            let Some(percent) = gate.stop(&job, reached, coming) else { return };
            show(if step > 0.0 { ((f64::from(percent) - before) / step).clamp(0.0, fraction) } else { 0.0 });
            {
                let mut meter = lock(&self.meter);
                meter.high = meter.high.max(percent.min(UNFINISHED as u8));
            }
            self.shared.board.touch(self.id);
            if let Err(failure) = gate.stand(&job, percent, &|| self.interrupted()) {
                *lock(&self.doomed) = Some(failure);
            }
            if self.interrupted() {
                return;
            }
        }
    }

    /// The step begins.
    pub(crate) fn begin(&self) {
        self.pass(0.0, UNFINISHED, &|_| {});
    }

    /// The step has done its work.
    ///
    /// # Errors
    /// What a gate wants it to fail with.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        self.pass(1.0, 100.0, &|_| {});
        self.doom().map_or(Ok(()), Err)
    }

    /// What a gate wants the step to fail with, whatever it says itself.
    pub(crate) fn doom(&self) -> Option<Failure> {
        lock(&self.doomed).clone()
    }

    pub(crate) fn progress(&self, phase: &str, done: u64, total: u64) {
        if self.shared.gate.is_some() {
            // A step that cannot tell how far it is comes to all of its stops at once: it may be over at its next word.
            let fraction = if total == 0 { 1.0 } else { done as f64 / total as f64 };
            let show = |stands: f64| self.note(phase, (total as f64 * stands).ceil() as u64, total);
            self.pass(fraction.min(1.0), UNFINISHED, &show);
        }
        self.note(phase, done, total);
    }

    fn note(&self, phase: &str, done: u64, total: u64) {
        let now = self.shared.clock.monotonic();
        let mut meter = lock(&self.meter);
        let publish = meter.report(now, phase, done, total);
        let progress = meter.progress.clone();
        drop(meter);
        if publish {
            self.shared.board.touch(self.id);
        }
        // Whoever finds it due writes; the other threads do not wait for the disk.
        let Ok(mut last) = self.checkpoint.try_lock() else { return };
        if last.due(now) {
            last.at = Some(now);
            last.checkpoint.progress = progress;
            if let Err(failure) = journal::write_checkpoint(&*self.shared.store, self.id, &last.checkpoint) {
                tracing::debug!(job = %self.id, %failure, "progress was not recorded");
            }
            drop(last);
            self.shared.faults.die_if_dead();
        }
    }

    pub(crate) fn checkpoint_due(&self) -> bool {
        lock(&self.checkpoint).due(self.shared.clock.monotonic())
    }

    pub(crate) fn checkpoint(&self, resume: Value) -> Result<(), Failure> {
        let now = self.shared.clock.monotonic();
        let progress = lock(&self.meter).progress.clone();
        let mut last = lock(&self.checkpoint);
        let checkpoint = Checkpoint { step: last.checkpoint.step, progress, resume: Some(resume) };
        journal::write_checkpoint(&*self.shared.store, self.id, &checkpoint)?;
        *last = Last { at: Some(now), checkpoint };
        drop(last);
        self.shared.faults.die_if_dead();
        Ok(())
    }

    pub(crate) fn resume_state(&self) -> Option<Value> {
        lock(&self.checkpoint).checkpoint.resume.clone()
    }

    pub(crate) fn warn(&self, warning: Warning) {
        let mut warnings = lock(&self.warnings);
        // A step that runs again says the same again.
        if warnings.kept.contains(&warning) {
            return;
        }
        if warnings.kept.len() < MAX_WARNINGS {
            warnings.kept.push(warning.cut());
        } else {
            warnings.dropped += 1;
        }
        drop(warnings);
        self.shared.board.touch(self.id);
    }

    /// The warnings of the step so far.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let warnings = lock(&self.warnings);
        let mut all = warnings.kept.clone();
        if warnings.dropped > 0 {
            let message = format!("{} more warnings of this step were not kept", warnings.dropped);
            all.push(Warning::new("job-more-warnings", message));
        }
        all
    }

    /// The warnings of the step, at its end: at most `room` bytes of them, the rest only counted.
    pub(crate) fn take_warnings(&self, room: usize) -> Vec<Warning> {
        let mut used = 0;
        let mut warnings = lock(&self.warnings);
        let fits = |warning: &Warning| {
            used += serde_json::to_vec(warning).map_or(room, |json| json.len() + 1);
            used <= room
        };
        let fitting = warnings.kept.iter().map(fits).take_while(|fits| *fits).count();
        warnings.dropped += warnings.kept.len() - fitting;
        warnings.kept.truncate(fitting);
        drop(warnings);
        let all = self.warnings();
        *lock(&self.warnings) = Warnings::default();
        all
    }

    pub(crate) fn meter(&self) -> MutexGuard<'_, Meter> {
        lock(&self.meter)
    }
}

impl Last {
    fn due(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now >= at + CHECKPOINT_INTERVAL)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Steps run under catch_unwind and never inside one of our locks, so a poisoned one is still consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
