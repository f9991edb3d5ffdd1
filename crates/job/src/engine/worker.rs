//! A worker thread: takes a job, does what its fold says comes next, writes down what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use store::MAX_VALUE;

use super::{Entry, Inner};
use crate::context::Attempt;
use crate::fold::{Event, Next, StepState};
use crate::journal::{AppendError, Journal};
use crate::kind::Runnable;
use crate::live::{FailWhen, lock};
use crate::{Failure, UndoReason, ids};

/// Of an event, kept free for its time, tag and failure.
const EVENT_OVERHEAD: usize = 24 * 1024;

/// Why a job cannot go on here, though it has not failed.
enum Halt {
    /// Its journal cannot be written: what it does next could not be recorded, so it does nothing.
    Journal(AppendError),
    /// A step says that it was told to stop, and this engine did not tell it: its world is closing.
    Step(Failure),
}

impl From<AppendError> for Halt {
    fn from(error: AppendError) -> Halt {
        Halt::Journal(error)
    }
}

impl From<store::Error> for Halt {
    fn from(error: store::Error) -> Halt {
        Halt::Journal(error.into())
    }
}

/// What becomes of a job after one of its steps.
enum Then {
    /// Look at the fold again.
    GoOn,
    /// The engine is shutting down; the job stays as it is.
    PutDown,
}

/// Takes jobs until the engine stops.
pub(super) fn work(inner: &Arc<Inner>) {
    let mut schedule = lock(&inner.schedule);
    loop {
        if inner.shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let Some(id) = schedule.queue.pop_front() else {
            schedule = inner.work.wait(schedule).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        // Cancelled jobs leave the queue with the schedule, so what is queued is there.
        let Some(entry) = schedule.entries.get(&id).cloned() else { continue };
        schedule.running.push(id);
        drop(schedule);
        inner.run(&entry);
        drop(entry);
        schedule = lock(&inner.schedule);
        schedule.running.retain(|running| *running != id);
        inner.idle.notify_all();
    }
}

impl Inner {
    /// Runs a job until it is over, put down or parked.
    fn run(&self, entry: &Entry) {
        let span =
            tracing::info_span!("job", job = %entry.id, kind = entry.meta.kind, subject = entry.meta.subject);
        let _entered = span.enter();
        // Parked ones are never queued.
        let Some(kind) = &entry.kind else { return };
        loop {
            let mut journal = lock(&entry.journal);
            let next = journal.fold.next();
            if let Next::Finished(_) = next {
                // A cancel of a job that had done nothing has retired it already.
                if lock(&self.schedule).entries.contains_key(&entry.id) {
                    self.retire(entry, &journal);
                }
                return;
            }
            if self.shared.stopping.load(Ordering::Acquire) {
                return;
            }
            let done = match next {
                Next::Run(step) => self.run_step(entry, &**kind, journal, step),
                Next::Undo(step, reason) => self.undo_step(entry, &**kind, journal, step, reason),
                Next::Finished(_) => return,
            };
            match done {
                Ok(Then::GoOn) => {}
                Ok(Then::PutDown) => return,
                Err(halt) => {
                    journal = lock(&entry.journal);
                    self.park(entry, &journal, halt);
                    return;
                }
            }
        }
    }

    /// Posts where a job stands between steps. The last word is `retire`'s, which frees the subject before it speaks:
    /// whoever hears that a job is over may submit the next one.
    fn post_unless_over(&self, entry: &Entry, journal: &Journal) {
        if !matches!(journal.fold.next(), Next::Finished(_)) {
            self.post(entry, journal);
        }
    }

    fn run_step(
        &self,
        entry: &Entry,
        kind: &dyn Runnable,
        mut journal: std::sync::MutexGuard<'_, Journal>,
        step: usize,
    ) -> Result<Then, Halt> {
        if journal.fold.step_state(step) == StepState::Fresh {
            self.append(&mut journal, Event::StepStarted { step })?;
        }
        self.shared.alive()?;
        entry.live.enter(step, false, entry.span(journal.fold.done()));
        self.post(entry, &journal);
        let outputs = journal.fold.outputs().to_vec();
        // Not while the step runs: a cancel needs the journal.
        drop(journal);
        tracing::debug!(step = entry.meta.steps[step], "runs");
        let attempt = attempt(entry, &outputs, step);
        let faults = &self.shared.faults;
        let fail = faults.fail.filter(|(failing, _)| *failing == step).map(|(_, when)| when);
        let injected = || Failure::new("proof-injected", "failed on purpose");
        let run = || {
            if fail == Some(FailWhen::Before) {
                return Err(injected());
            }
            entry.live.begin();
            let mut output = kind.run(&attempt)?;
            if faults.twice {
                output = kind.run(&attempt)?;
            }
            entry.live.end()?;
            if fail == Some(FailWhen::After) { Err(injected()) } else { Ok(output) }
        };
        // A step that was doomed stops as if it were told to: what it says then is not the reason.
        let ran = guarded(run).map_err(|failure| entry.live.doom().unwrap_or(failure));
        let result = ran.and_then(|output| match serde_json::to_vec(&output) {
            Ok(json) if json.len() <= MAX_VALUE - EVENT_OVERHEAD => Ok((output, json.len())),
            Ok(json) => Err(Failure::new(
                ids::OUTPUT_TOO_LARGE,
                format!("the output of the step has {} bytes, too many to record", json.len()),
            )),
            Err(error) => Err(Failure::from_error(ids::UNREADABLE, &error)),
        });
        let mut journal = lock(&entry.journal);
        let event = match result {
            Ok((output, size)) => {
                let warnings = entry.live.take_warnings(MAX_VALUE - EVENT_OVERHEAD - size);
                Event::StepSucceeded { step, output, warnings }
            }
            // It stopped because it was told to, or failed in consequence; either way it is undone.
            Err(failure) if journal.fold.cancel_requested() => {
                tracing::debug!(step = entry.meta.steps[step], %failure, "stopped");
                return Ok(Then::GoOn);
            }
            // Told to stop, and will be run again: if this is a failure of its own it will fail again.
            Err(failure) if self.shared.stopping.load(Ordering::Acquire) => {
                tracing::debug!(step = entry.meta.steps[step], %failure, "put down");
                return Ok(Then::PutDown);
            }
            Err(failure) if failure.id == ids::INTERRUPTED => return Err(Halt::Step(failure)),
            Err(failure) => {
                let failure = failure.cut();
                tracing::warn!(step = entry.meta.steps[step], error = failure.id, "failed: {failure}");
                let warnings = entry.live.take_warnings(MAX_VALUE - EVENT_OVERHEAD);
                Event::StepFailed { step, failure, warnings }
            }
        };
        self.append(&mut journal, event)?;
        self.post_unless_over(entry, &journal);
        Ok(Then::GoOn)
    }

    fn undo_step(
        &self,
        entry: &Entry,
        kind: &dyn Runnable,
        mut journal: std::sync::MutexGuard<'_, Journal>,
        step: usize,
        reason: UndoReason,
    ) -> Result<Then, Halt> {
        if journal.fold.step_state(step) != StepState::Undoing {
            self.append(&mut journal, Event::UndoStarted { step })?;
        }
        self.shared.alive()?;
        entry.live.enter(step, true, entry.span(journal.fold.done()));
        self.post(entry, &journal);
        let outputs = journal.fold.outputs().to_vec();
        drop(journal);
        let mut result = Ok(());
        if kind.has_undo(step) {
            tracing::debug!(step = entry.meta.steps[step], ?reason, "is undone");
            let attempt = attempt(entry, &outputs, step);
            let undo = || {
                kind.undo(&attempt, reason)?;
                if self.shared.faults.twice { kind.undo(&attempt, reason) } else { Ok(()) }
            };
            result = guarded(undo);
        }
        let mut journal = lock(&entry.journal);
        if result.is_err() && self.shared.stopping.load(Ordering::Acquire) {
            return Ok(Then::PutDown);
        }
        let warnings = entry.live.take_warnings(MAX_VALUE - EVENT_OVERHEAD);
        let event = match result {
            Ok(()) => Event::UndoSucceeded { step, warnings },
            Err(failure) if failure.id == ids::INTERRUPTED => return Err(Halt::Step(failure)),
            Err(failure) => {
                let failure = failure.cut();
                tracing::error!(
                    step = entry.meta.steps[step],
                    error = failure.id,
                    "cannot be undone: {failure}"
                );
                Event::UndoFailed { step, failure, warnings }
            }
        };
        self.append(&mut journal, event)?;
        self.post_unless_over(entry, &journal);
        Ok(Then::GoOn)
    }

    fn park(&self, entry: &Entry, journal: &Journal, halt: Halt) {
        let failure = match halt {
            Halt::Journal(error) => Failure::from_error(ids::STORE_FAILED, &error)
                .hint("the job goes on when the daemon is started again, once the store can be written"),
            Halt::Step(failure) => failure.hint("the job goes on when the daemon is started again"),
        };
        tracing::error!("parked: {failure}");
        *lock(&entry.parked) = Some(failure);
        self.post(entry, journal);
    }
}

impl crate::live::Shared {
    /// For the proofs: an error once the process counts as dead.
    fn alive(&self) -> Result<(), store::Error> {
        if self.faults.is_dead() {
            Err(store::Error::backend("write", "the process is dead"))
        } else {
            Ok(())
        }
    }
}

fn attempt<'a>(entry: &'a Entry, outputs: &'a [Option<serde_json::Value>], step: usize) -> Attempt<'a> {
    let meta = &entry.meta;
    Attempt {
        id: entry.id,
        subject: meta.subject.as_deref(),
        owner: &meta.owner,
        params: &meta.params,
        outputs,
        step,
        live: &entry.live,
    }
}

/// A panic of a step is its failure; the worker lives on.
fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Failure::new(ids::PANICKED, format!("a step of the job panicked, which is a bug: {text}")))
    })
}
