//! Proofs that every kind of job passes: run twice, fail, cancel, stop and kill at every moment there is.
//!
//! A kind's author gives a fresh world and a check, and calls [`all`] in a test:
//!
//! ```
//! # use job::{Context, Failure, Kind, Steps, UndoReason};
//! # use std::sync::{Arc, Mutex};
//! # #[derive(Default)] struct Shelf(Mutex<bool>);
//! # struct Shelve;
//! # impl Kind for Shelve {
//! #     const NAME: &'static str = "shelve"; const VERSION: u32 = 1; type Params = (); type World = Shelf;
//! #     fn steps() -> Steps<Self> { Steps::new().step("put", Self::put, Self::take_away) }
//! # }
//! # impl Shelve {
//! #     fn put(cx: &mut Context<'_, Self>) -> Result<(), Failure> { *cx.world().0.lock().unwrap() = true; Ok(()) }
//! #     fn take_away(cx: &mut Context<'_, Self>, _: UndoReason) -> Result<(), Failure> {
//! #         *cx.world().0.lock().unwrap() = false; Ok(()) }
//! # }
//! use job::proofs::{self, Proof};
//!
//! let proof = Proof::<Shelve>::new(
//!     || (Arc::new(Shelf::default()), ()),
//!     |shelf, status| match (*shelf.0.lock().unwrap(), status.state.is_success()) {
//!         (true, true) | (false, false) => Ok(()),
//!         (true, false) => Err("the book is still there".into()),
//!         (false, true) => Err("there is no book".into()),
//!     },
//! );
//! proofs::all(&proof)?;
//! # Ok::<(), proofs::Violation>(())
//! ```
//!
//! A kill is simulated: from some write on, the store refuses all of them, the engine is thrown away, and a fresh one
//! on the same store takes over. What a dying process loses beyond that (memory of the world) is what
//! [`Proof::reopen`] is for. Real kills are the business of the daemon's own tests.

pub(crate) mod double;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use store::{MemoryStore, Store};

use crate::clock::ManualClock;
use crate::engine::{Engine, Options, Submission, SubmitErrorKind};
use crate::live::{FailWhen, Faults};
use crate::status::{JobId, State, Status};
use crate::{CancelErrorKind, Kind};
use double::CutStore;

type Fresh<'a, K> = Box<dyn Fn() -> (Arc<<K as Kind>::World>, <K as Kind>::Params) + 'a>;
type Reopen<'a, K> = Box<dyn Fn(Arc<<K as Kind>::World>) -> Arc<<K as Kind>::World> + 'a>;
type Check<'a, K> = Box<dyn Fn(&<K as Kind>::World, &Status) -> Result<(), String> + 'a>;

/// What a kind's author gives to the proofs.
pub struct Proof<'a, K: Kind> {
    fresh: Fresh<'a, K>,
    reopen: Reopen<'a, K>,
    check: Check<'a, K>,
    patience: Duration,
    tick: Duration,
    moments: u64,
}

impl<'a, K: Kind> Proof<'a, K> {
    /// `fresh` makes a world in which a job with these parameters succeeds, new for each run. `check` is called when
    /// the job is over: the world must have all of the result if [`State::is_success`], and must be clean (as far as
    /// the kind promises) if the job failed or was cancelled.
    pub fn new(
        fresh: impl Fn() -> (Arc<K::World>, K::Params) + 'a,
        check: impl Fn(&K::World, &Status) -> Result<(), String> + 'a,
    ) -> Proof<'a, K> {
        Proof {
            fresh: Box::new(fresh),
            reopen: Box::new(|world| world),
            check: Box::new(check),
            patience: Duration::from_secs(60),
            tick: Duration::from_millis(250),
            moments: 64,
        }
    }

    /// What the world is after the process died and was started again: drop what was only in memory. By default it is
    /// the same.
    #[must_use]
    pub fn reopen(mut self, reopen: impl Fn(Arc<K::World>) -> Arc<K::World> + 'a) -> Self {
        self.reopen = Box::new(reopen);
        self
    }

    /// How long, in real time, one run may take before it counts as hanging; 60 seconds if not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How far the job's clock moves each time it is read; 250 ms if not said, so that a checkpoint is due at every
    /// fourth report of progress.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// How many moments of each sort are tried at most, 64 if not said; if there are more, they are spread evenly over
    /// the run, first and last included.
    #[must_use]
    pub fn moments(mut self, moments: u64) -> Self {
        self.moments = moments.max(2);
        self
    }
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs of the job, each with something else going wrong.
    pub runs: usize,
}

/// A run that did not end as it must: the kind is wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{moment}: {message}")]
pub struct Violation {
    /// What was done to the job.
    pub moment: String,
    /// What was wrong then.
    pub message: String,
}

/// All proofs of this module.
///
/// # Errors
/// The first violation.
pub fn all<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = 0;
    for prove in
        [each_step_twice, fail_at_each_step, cancel_at_each_point, stop_at_each_point, kill_at_each_step]
    {
        runs += prove(proof)?.runs;
    }
    Ok(Report { runs })
}

/// Each step is run twice in a row, and the job must succeed as if it were once.
///
/// # Errors
/// The violation, if it does not.
pub fn each_step_twice<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = Runs::new(proof);
    runs.run(Plan::new("undisturbed", Expect::Success))?;
    runs.run(Plan { twice: true, ..Plan::new("each step run twice", Expect::Success) })?;
    Ok(runs.report)
}

/// Each step fails, once before it did anything and once after it did everything; the job must fail and be undone. Each
/// is done again with every step and undo run twice.
///
/// # Errors
/// The first violation.
pub fn fail_at_each_step<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = Runs::new(proof);
    for step in 0..runs.steps.len() {
        for when in [FailWhen::Before, FailWhen::After] {
            for twice in [false, true] {
                let name = &runs.steps[step];
                let again = if twice { ", everything run twice" } else { "" };
                let moment = format!("step {name:?} fails {}{again}", when_text(when));
                runs.run(Plan { fail: Some((step, when)), twice, ..Plan::new(&moment, Expect::Failed) })?;
            }
        }
    }
    Ok(runs.report)
}

/// The job is cancelled at each moment at which a step asks whether it should stop; it must end cancelled and be undone.
///
/// # Errors
/// The first violation.
pub fn cancel_at_each_point<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = Runs::new(proof);
    let points = runs.run(Plan::new("undisturbed", Expect::Success))?.points;
    for point in runs.spread(0, points) {
        let moment = format!("cancelled at look {point}");
        runs.run(Plan { at_point: Some((point, Act::Cancel)), ..Plan::new(&moment, Expect::Cancelled) })?;
    }
    Ok(runs.report)
}

/// The engine is shut down at each moment at which a step asks whether it should stop, and a new one takes over; the
/// job must succeed. Then the same, but the job is cancelled before the new one takes over; it must be undone.
///
/// # Errors
/// The first violation.
pub fn stop_at_each_point<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = Runs::new(proof);
    let points = runs.run(Plan::new("undisturbed", Expect::Success))?.points;
    for point in runs.spread(0, points) {
        let moment = format!("stopped at look {point} and resumed");
        let at_point = Some((point, Act::Stop));
        runs.run(Plan { at_point, ..Plan::new(&moment, Expect::Success) })?;
        let moment = format!("stopped at look {point}, then cancelled");
        runs.run(Plan { at_point, then_cancel: true, ..Plan::new(&moment, Expect::Cancelled) })?;
    }
    Ok(runs.report)
}

/// The process dies at each write to the journal, checkpoints included: right after it, and right before the next one,
/// when all that happens between the two has happened. It does so while the job runs, while it is undone after each
/// step's failure, and while it runs with a cancel as the first thing after the restart. A fresh engine must bring the
/// job to its end.
///
/// # Errors
/// The first violation.
pub fn kill_at_each_step<K: Kind>(proof: &Proof<'_, K>) -> Result<Report, Violation> {
    let mut runs = Runs::new(proof);
    // The first write is the submission: without it there is no job.
    let writes = runs.run(Plan::new("undisturbed", Expect::Success))?.writes;
    for write in runs.spread(1, writes) {
        for death in [Death::After, Death::BeforeNext] {
            let cut = Some((write, death));
            let moment = format!("killed {} {write}", death.text());
            runs.run(Plan { cut, ..Plan::new(&moment, Expect::Success) })?;
            let moment = format!("killed {} {write}, then cancelled", death.text());
            runs.run(Plan { cut, then_cancel: true, ..Plan::new(&moment, Expect::Cancelled) })?;
        }
    }
    for step in 0..runs.steps.len() {
        let name = runs.steps[step].clone();
        let fail = Some((step, FailWhen::After));
        let moment = format!("step {name:?} fails");
        let writes = runs.run(Plan { fail, ..Plan::new(&moment, Expect::Failed) })?.writes;
        for write in runs.spread(1, writes) {
            for death in [Death::After, Death::BeforeNext] {
                let moment = format!("step {name:?} fails, killed {} {write}", death.text());
                runs.run(Plan { fail, cut: Some((write, death)), ..Plan::new(&moment, Expect::Failed) })?;
            }
        }
    }
    Ok(runs.report)
}

fn when_text(when: FailWhen) -> &'static str {
    match when {
        FailWhen::Before => "before it did anything",
        FailWhen::After => "after it did everything",
    }
}

/// What goes wrong in one run, and how the job must end.
struct Plan<'a> {
    moment: &'a str,
    expect: Expect,
    twice: bool,
    fail: Option<(usize, FailWhen)>,
    at_point: Option<(u64, Act)>,
    /// The process dies at this write.
    cut: Option<(u64, Death)>,
    /// The job is cancelled before the second engine runs it.
    then_cancel: bool,
}

#[derive(Clone, Copy)]
enum Expect {
    Success,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy)]
enum Act {
    Cancel,
    Stop,
}

/// When, relative to the last write that the store still took.
#[derive(Clone, Copy, PartialEq)]
enum Death {
    After,
    BeforeNext,
}

impl Death {
    fn text(self) -> &'static str {
        match self {
            Death::After => "right after write",
            Death::BeforeNext => "before the write after",
        }
    }
}

impl<'a> Plan<'a> {
    fn new(moment: &'a str, expect: Expect) -> Plan<'a> {
        Plan { moment, expect, twice: false, fail: None, at_point: None, cut: None, then_cancel: false }
    }

    fn violation(&self, message: impl Into<String>) -> Violation {
        Violation { moment: self.moment.to_owned(), message: message.into() }
    }

    fn faults(&self) -> Faults {
        Faults { twice: self.twice, fail: self.fail, ..Faults::default() }
    }
}

/// How many moments of each sort a run had.
struct Counted {
    points: u64,
    writes: u64,
}

struct Runs<'a, 'b, K: Kind> {
    proof: &'a Proof<'b, K>,
    steps: Vec<String>,
    report: Report,
}

impl<'a, 'b, K: Kind> Runs<'a, 'b, K> {
    fn new(proof: &'a Proof<'b, K>) -> Runs<'a, 'b, K> {
        Runs { proof, steps: K::steps().names(), report: Report::default() }
    }

    /// All of `first..end`, or as many as wanted, spread evenly.
    fn spread(&self, first: u64, end: u64) -> Vec<u64> {
        let (count, most) = (end.saturating_sub(first), self.proof.moments);
        if count <= most {
            return (first..end).collect();
        }
        (0..most).map(|n| first + n * (count - 1) / (most - 1)).collect()
    }

    /// One job, from a fresh world to its end and through the check.
    fn run(&mut self, plan: Plan<'_>) -> Result<Counted, Violation> {
        self.report.runs += 1;
        let (mut world, params) = (self.proof.fresh)();
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let limit = plan.cut.map_or(u64::MAX, |(write, _)| write);
        let cut = Arc::new(CutStore::new(Arc::clone(&inner), limit));
        let dead = plan.cut.filter(|(_, death)| *death == Death::After).map(|_| cut.dead());
        let faults = Faults { dead, ..plan.faults() };
        let engine = self.engine(Arc::clone(&cut) as Arc<dyn Store>, &world, faults, &plan)?;
        let at_point = plan.at_point;
        engine.on_point(move |points, number, id| match at_point {
            Some((point, act)) if point == number => match act {
                Act::Cancel => points.cancel(id),
                Act::Stop => points.stop(),
            },
            _ => {}
        });
        let id = match engine.submit(Submission::<K>::new(params)) {
            Ok(id) => id,
            Err(error) if error.kind() == SubmitErrorKind::Store => {
                return Err(plan.violation("the proof cut off the submission itself"));
            }
            Err(error) => return Err(plan.violation(format!("not accepted: {error}"))),
        };
        let mut status = self.settle(&engine, id, &plan)?;
        let counted = Counted { points: engine.points().load(Ordering::Acquire), writes: cut.written() };
        if !engine.shutdown(self.proof.patience).is_empty() {
            return Err(plan.violation("a step did not stop when told to"));
        }
        drop(engine);
        let interrupted = !status.state.is_finished();
        if interrupted {
            world = (self.proof.reopen)(world);
            let cancelled = plan.then_cancel && self.cancel_offline(&inner, &world, id, &plan)?;
            let engine = self.engine(Arc::clone(&inner), &world, plan.faults(), &plan)?;
            status = self.settle(&engine, id, &plan)?;
            if !status.state.is_finished() {
                return Err(plan.violation(format!("the job did not end after the restart: {status:?}")));
            }
            let expect = if plan.then_cancel && !cancelled { Expect::Success } else { plan.expect };
            self.judge(&world, &status, expect, &plan)?;
        } else {
            // A moment that was not reached this time, because threads of the step raced, is an undisturbed run.
            let missed = plan.at_point.is_some()
                && status.state.is_success()
                && counted.points <= plan.at_point.map_or(0, |(point, _)| point);
            let survived = plan.then_cancel || missed;
            self.judge(&world, &status, if survived { Expect::Success } else { plan.expect }, &plan)?;
        }
        self.same_after_restart(inner, world, &status, &plan)?;
        Ok(counted)
    }

    fn engine(
        &self,
        store: Arc<dyn Store>,
        world: &Arc<K::World>,
        faults: Faults,
        plan: &Plan<'_>,
    ) -> Result<Engine, Violation> {
        let stopped = faults.stopped;
        let engine = Engine::builder(store)
            .register::<K>(Arc::clone(world))
            .clock(Arc::new(ManualClock::ticking(self.proof.tick)))
            .options(Options { workers: 1 })
            .faults(faults)
            .start()
            .map_err(|error| plan.violation(crate::Failure::from_error("", &error).message))?;
        if !stopped {
            engine.recover().map_err(|error| plan.violation(error.to_string()))?;
        }
        Ok(engine)
    }

    /// Waits for the job to be over, parked by the cut store, or put down by a stop.
    fn settle(&self, engine: &Engine, id: JobId, plan: &Plan<'_>) -> Result<Status, Violation> {
        engine
            .settled(id, self.proof.patience)
            .ok_or_else(|| plan.violation("the job neither ended nor stopped in time"))
    }

    /// Cancels the job in an engine that runs nothing; false if there was nothing to cancel any more.
    fn cancel_offline(
        &self,
        store: &Arc<dyn Store>,
        world: &Arc<K::World>,
        id: JobId,
        plan: &Plan<'_>,
    ) -> Result<bool, Violation> {
        let faults = Faults { stopped: true, ..Faults::default() };
        let engine = self.engine(Arc::clone(store), world, faults, plan)?;
        match engine.cancel(id) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == CancelErrorKind::Finished => Ok(false),
            Err(error) => Err(plan.violation(format!("cannot be cancelled after the restart: {error}"))),
        }
    }

    fn judge(
        &self,
        world: &K::World,
        status: &Status,
        expect: Expect,
        plan: &Plan<'_>,
    ) -> Result<(), Violation> {
        let as_expected = match expect {
            Expect::Success => status.state.is_success(),
            Expect::Failed => status.state == State::Failed && status.stuck.is_none(),
            Expect::Cancelled => status.state == State::Cancelled,
        };
        if !as_expected {
            let error = status.error.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
            let stuck = status
                .stuck
                .as_ref()
                .map(|stuck| format!("; {:?} cannot be undone: {}", stuck.step, stuck.failure));
            let stuck = stuck.unwrap_or_default();
            return Err(plan.violation(format!("the job ended as {:?}{error}{stuck}", status.state)));
        }
        (self.proof.check)(world, status)
            .map_err(|message| plan.violation(format!("{message} (the job ended as {:?})", status.state)))
    }

    /// What was told while the job ran is what the journal tells.
    fn same_after_restart(
        &self,
        store: Arc<dyn Store>,
        world: Arc<K::World>,
        told: &Status,
        plan: &Plan<'_>,
    ) -> Result<(), Violation> {
        let engine = self.engine(store, &world, Faults { stopped: true, ..Faults::default() }, plan)?;
        let Some(read) = engine.get(told.id) else {
            return Err(plan.violation("the job is gone after a restart"));
        };
        let durable = |status: &Status| {
            let Status { state, error, stuck, warnings, started, finished, output, .. } = status.clone();
            (state, error, stuck, warnings, started, finished, output)
        };
        if durable(&read) != durable(told) {
            return Err(
                plan.violation(format!("its status changed with a restart: {told:?} became {read:?}"))
            );
        }
        Ok(())
    }
}
