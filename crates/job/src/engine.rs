//! The engine: accepts jobs, runs them on its threads, answers about them.
//!
//! Three structures, each with its own lock: the schedule (what is not finished, who waits, who owns which subject),
//! one journal per unfinished job (held while an event is written), and the board (what is told to readers). Locks are
//! taken in the order journal, schedule, board, and none is held while a step runs.

mod error;
mod recover;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use store::Store;

pub use error::{CancelError, CancelErrorKind, StartError, SubmitError, SubmitErrorKind};

use crate::board::{Board, Changes, Notice, Watcher};
use crate::clock::{Clock, SystemClock};
use crate::fold::{Event, Next};
use crate::gate::Gate;
use crate::journal::{self, AppendError, Checkpoint, Journal, Meta};
use crate::kind::{KindError, Registered, Runnable};
use crate::live::{Faults, Live, Shared, lock};
use crate::status::{Filter, JobId, State, Status, Stuck};
use crate::tally::{Ended, Tally};
use crate::{Failure, Kind, MAX_UNFINISHED};

/// How an engine works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that run jobs, so how many run at once; at least 1.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { workers: 4 }
    }
}

/// What to do, for whom, about what.
#[derive(Debug, Clone)]
pub struct Submission<K: Kind> {
    /// What the job is to do.
    pub params: K::Params,
    /// What it is about, such as a machine's id; see [`Kind::EXCLUSIVE`].
    pub subject: Option<String>,
    /// Who asks; shown, not judged here.
    pub owner: String,
}

impl<K: Kind> Submission<K> {
    /// A job about nothing in particular, for nobody in particular.
    pub fn new(params: K::Params) -> Submission<K> {
        Submission { params, subject: None, owner: String::new() }
    }

    /// Says what it is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Submission<K> {
        self.subject = Some(subject.into());
        self
    }

    /// Says who asks.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Submission<K> {
        self.owner = owner.into();
        self
    }
}

/// Where the ids of jobs come from.
type Ids = Arc<dyn Fn() -> uuid::Uuid + Send + Sync>;

type Registry = BTreeMap<(String, u32), Arc<dyn Runnable>>;

/// An engine being set up: register all kinds, then [`Builder::start`].
pub struct Builder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    options: Options,
    gate: Option<Arc<dyn Gate>>,
    ids: Ids,
    faults: Faults,
    registry: Registry,
    wrong: Option<(&'static str, KindError)>,
}

impl Builder {
    /// Adds a kind and what its steps act on.
    #[must_use]
    pub fn register<K: Kind>(mut self, world: Arc<K::World>) -> Builder {
        let added = Registered::<K>::new(world).and_then(|kind| {
            match self.registry.insert((K::NAME.to_owned(), K::VERSION), Arc::new(kind)) {
                Some(_) => Err(KindError::Twice(K::VERSION)),
                None => Ok(()),
            }
        });
        if let Err(error) = added {
            self.wrong.get_or_insert((K::NAME, error));
        }
        self
    }

    /// Replaces the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder {
        self.clock = clock;
        self
    }

    /// Replaces the default options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Puts a gate on the way of every job.
    #[must_use]
    pub fn gate(mut self, gate: Arc<dyn Gate>) -> Builder {
        self.gate = Some(gate);
        self
    }

    /// Takes the ids of jobs from `ids`, which gives none twice, instead of from chance.
    #[must_use]
    pub fn ids(mut self, ids: impl Fn() -> uuid::Uuid + Send + Sync + 'static) -> Builder {
        self.ids = Arc::new(ids);
        self
    }

    pub(crate) fn faults(mut self, faults: Faults) -> Builder {
        self.faults = faults;
        self
    }

    /// Reads all jobs from the store and starts the workers. What an earlier engine left unfinished is shown, can be
    /// cancelled and keeps its subjects, but waits for [`Engine::recover`]: the world may need the engine to be whole.
    ///
    /// # Errors
    /// A kind is wrong (a bug), the store cannot be read, or no thread could be started. A single job that cannot be
    /// read is no error: it is parked.
    pub fn start(self) -> Result<Engine, StartError> {
        if let Some((name, error)) = self.wrong {
            return Err(StartError::kind(name, error));
        }
        let shared = Shared {
            store: self.store,
            clock: self.clock,
            board: Board::default(),
            stopping: self.faults.stopped.into(),
            faults: self.faults,
            gate: self.gate,
        };
        let inner = Arc::new(Inner {
            shared: Arc::new(shared),
            ids: self.ids,
            tally: Mutex::new(Tally::of(self.registry.keys().map(|(kind, _)| kind.as_str()))),
            registry: self.registry,
            schedule: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        inner.load().map_err(StartError::store)?;
        // From here on dropping the engine stops the threads that did start.
        let mut engine = Engine { inner, threads: Vec::new() };
        for number in 1..=self.options.workers.max(1) {
            let inner = Arc::clone(&engine.inner);
            let thread = std::thread::Builder::new().name(format!("job-{number}"));
            engine.threads.push(thread.spawn(move || worker::work(&inner)).map_err(StartError::thread)?);
        }
        Ok(engine)
    }
}

/// Runs jobs. Shared behind an `Arc` by those who submit and those who look.
///
/// Dropping it tells running steps to stop and does not wait for them; [`Engine::shutdown`] does.
pub struct Engine {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    shared: Arc<Shared>,
    ids: Ids,
    registry: Registry,
    tally: Mutex<Tally>,
    schedule: Mutex<Schedule>,
    /// There is something in the queue, or the engine stops.
    work: Condvar,
    /// A worker put its job down.
    idle: Condvar,
}

#[derive(Default)]
struct Schedule {
    /// All jobs that are not finished and can be read.
    entries: HashMap<JobId, Arc<Entry>>,
    /// Those waiting for a worker, first come first.
    queue: VecDeque<JobId>,
    /// Those of an earlier engine, in the order they will be queued.
    inherited: Vec<JobId>,
    /// Who has which subject to itself.
    subjects: HashMap<String, JobId>,
    /// Jobs in the hands of a worker.
    running: Vec<JobId>,
    /// Accepted, but not written to the store yet; counted against the limit.
    arriving: usize,
}

/// A job that is not finished.
struct Entry {
    id: JobId,
    meta: Arc<Meta>,
    /// `None` if this program does not know the kind in this version.
    kind: Option<Arc<dyn Runnable>>,
    live: Arc<Live>,
    journal: Mutex<Journal>,
    /// Why this engine does not run it.
    parked: Mutex<Option<Failure>>,
}

impl Entry {
    /// The part of 100 that the step after `done` others is: where it begins, and how long.
    fn span(&self, done: usize) -> (f64, f64) {
        let weights: Vec<u32> = match &self.kind {
            Some(kind) => kind.steps().iter().map(|(_, weight)| *weight).collect(),
            None => vec![1; self.meta.steps.len()],
        };
        let part = |weights: &[u32]| weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        let all = part(&weights).max(1.0);
        let current = weights.get(done).map_or(0.0, |weight| f64::from(*weight));
        (100.0 * part(&weights[..done]) / all, 100.0 * current / all)
    }

    fn exclusive(&self) -> bool {
        // What is not known is assumed to be touching its subject.
        self.kind.as_ref().is_none_or(|kind| kind.exclusive())
    }
}

impl Engine {
    /// An engine on this store, to be given its kinds. One engine per store at a time.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder {
            store,
            clock: Arc::new(SystemClock::new()),
            options: Options::default(),
            gate: None,
            ids: Arc::new(|| JobId::random().0),
            faults: Faults::default(),
            registry: BTreeMap::new(),
            wrong: None,
        }
    }

    /// Accepts a job: it is durable when this returns, and will run, be cancelled or be parked, never forgotten.
    ///
    /// # Errors
    /// See [`SubmitErrorKind`]. After [`SubmitErrorKind::Store`] the job may exist after the next start.
    pub fn submit<K: Kind>(&self, submission: Submission<K>) -> Result<JobId, SubmitError> {
        let inner = &self.inner;
        let kind = inner.registry.get(&(K::NAME.to_owned(), K::VERSION));
        let kind = kind.ok_or_else(|| SubmitError::unknown(K::NAME, K::VERSION))?;
        let Submission { params, subject, owner } = submission;
        let meta = Meta {
            format: journal::FORMAT,
            kind: K::NAME.to_owned(),
            version: K::VERSION,
            steps: kind.steps().iter().map(|(name, _)| (*name).to_owned()).collect(),
            params: serde_json::to_value(params).map_err(SubmitError::params)?,
            subject,
            owner,
            submitted: inner.shared.clock.now(),
        };
        let id = JobId((inner.ids)());
        let owned = meta.subject.clone().filter(|_| K::EXCLUSIVE);
        inner.admit(id, owned.as_deref())?;
        let created = Journal::create(&*inner.shared.store, id, meta);
        let created = created.map(|journal| {
            let entry = inner.entry(journal, Checkpoint::default());
            inner.post(&entry, &lock(&entry.journal));
            entry
        });
        let mut schedule = lock(&inner.schedule);
        schedule.arriving -= 1;
        match created {
            Ok(entry) => {
                schedule.entries.insert(id, entry);
                schedule.queue.push_back(id);
                inner.work.notify_one();
                tracing::info!(job = %id, kind = K::NAME, subject = owned, "accepted");
                Ok(id)
            }
            Err(error) => {
                if let Some(subject) = owned {
                    schedule.subjects.remove(&subject);
                }
                Err(SubmitError::create(error))
            }
        }
    }

    /// Cancels a job. When this returns the wish is durable; the job's step stops at its next look, what was done is
    /// undone, and the job ends as cancelled. Cancelling twice is fine.
    ///
    /// # Errors
    /// See [`CancelErrorKind`].
    pub fn cancel(&self, id: JobId) -> Result<(), CancelError> {
        self.inner.cancel(id)
    }

    /// Gives up a parked job: it ends as failed, nothing is undone, its subject is free again.
    ///
    /// # Errors
    /// [`CancelErrorKind::NotParked`] for a job that is not parked; otherwise see [`CancelErrorKind`].
    pub fn discard(&self, id: JobId) -> Result<(), CancelError> {
        let entry = self.inner.find(id)?;
        let mut journal = lock(&entry.journal);
        if lock(&entry.parked).is_none() {
            return Err(CancelError::new(id, CancelErrorKind::NotParked));
        }
        self.inner.append(&mut journal, Event::Discarded).map_err(|error| CancelError::store(id, error))?;
        self.inner.retire(&entry, &journal);
        Ok(())
    }

    /// Goes on with the jobs that an earlier engine left unfinished, and with those that this one had to park because
    /// the store failed. To be called once after [`Builder::start`], and again when the store works again.
    ///
    /// # Errors
    /// The store cannot be read. Jobs left by an earlier engine were taken up all the same.
    pub fn recover(&self) -> Result<(), store::Error> {
        self.inner.take_up();
        self.inner.unpark()
    }

    /// A job's status now; `None` if there is no such job (any more).
    pub fn get(&self, id: JobId) -> Option<Status> {
        self.inner.shared.board.get(id)
    }

    /// The jobs that `filter` lets through, oldest first.
    pub fn list(&self, filter: &Filter) -> Vec<Status> {
        self.inner.shared.board.list(|status| filter.admits(status))
    }

    /// The kinds of jobs that this engine runs, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.inner.registry.keys().map(|(name, _)| name.as_str())
    }

    /// How jobs ended since this engine was started: every known kind with every end, those without any job too.
    pub fn ended(&self) -> Vec<Ended> {
        lock(&self.inner.tally).list()
    }

    /// The unfinished job that has this subject to itself, if any.
    pub fn busy(&self, subject: &str) -> Option<JobId> {
        lock(&self.inner.schedule).subjects.get(subject).copied()
    }

    /// Whether no more jobs are run here: [`Engine::shutdown`] was called.
    pub fn is_stopping(&self) -> bool {
        self.inner.shared.stopping.load(Ordering::Acquire)
    }

    /// Waits until a job is finished or parked, at most `timeout`; its status then, whatever it is. `None` if there is
    /// no such job.
    pub fn wait(&self, id: JobId, timeout: Duration) -> Option<Status> {
        let settled = |status: &Status| status.state.is_finished() || status.state == State::Parked;
        self.inner.shared.board.wait(id, timeout, settled)
    }

    /// Follows one job.
    pub fn watch(&self, id: JobId) -> Watcher<'_> {
        Watcher { board: &self.inner.shared.board, id, seen: 0 }
    }

    /// Follows all jobs: waits until one has changed since `since` (0: ever), at most `timeout`.
    pub fn changes(&self, since: u64, timeout: Duration) -> Changes {
        self.inner.shared.board.changes(since, timeout)
    }

    /// Forgets jobs that finished longer ago than `older_than`; how many.
    ///
    /// # Errors
    /// The store failed; those already removed are.
    pub fn prune(&self, older_than: Duration) -> Result<usize, store::Error> {
        let shared = &self.inner.shared;
        let now = shared.clock.now();
        let old = |status: &Status| {
            status.finished.is_some_and(|at| {
                // A clock that was turned back makes jobs look young, not old.
                Duration::try_from(now.duration_since(at)).is_ok_and(|age| age >= older_than)
            })
        };
        let old = shared.board.list(old);
        for status in &old {
            journal::remove(&*shared.store, status.id)?;
            shared.board.remove(status.id);
        }
        Ok(old.len())
    }

    /// Stops: no more jobs are accepted, running steps are told to stop at their next look, nothing is undone, and at
    /// the next start every job goes on where it was. Waits at most `timeout` for the steps; the jobs whose steps have
    /// not stopped by then are returned, and it is safe to end the process all the same.
    pub fn shutdown(&self, timeout: Duration) -> Vec<JobId> {
        self.inner.stop();
        let deadline = Instant::now().checked_add(timeout);
        let mut schedule = lock(&self.inner.schedule);
        loop {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if schedule.running.is_empty() || left.is_zero() {
                return schedule.running.clone();
            }
            let nap = left.min(Duration::from_secs(3600));
            schedule = self.inner.idle.wait_timeout(schedule, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For the proofs: waits until the job is finished, parked, or put down by an engine that is shutting down.
    pub(crate) fn settled(&self, id: JobId, patience: Duration) -> Option<Status> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.wait(id, Duration::from_millis(5))?;
            let stopping = self.inner.shared.stopping.load(Ordering::Acquire);
            if status.state.is_finished() || status.state == State::Parked {
                return Some(status);
            }
            if stopping && self.shutdown(deadline.saturating_duration_since(Instant::now())).is_empty() {
                return self.get(id);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// For the proofs: the number of moments so far at which a step looked whether to stop.
    pub(crate) fn points(&self) -> &std::sync::atomic::AtomicU64 {
        &self.inner.shared.faults.points
    }

    /// For the proofs: calls `at_point` with the number of each moment at which a step looks whether to stop.
    pub(crate) fn on_point(&self, at_point: impl Fn(&Points<'_>, u64, JobId) + Send + Sync + 'static) {
        // Weak: the hook hangs in what it refers to.
        let inner = Arc::downgrade(&self.inner);
        let hook = move |number, id| {
            if let Some(inner) = inner.upgrade() {
                at_point(&Points { inner: &inner }, number, id);
            }
        };
        let _ = self.inner.shared.faults.at_point.set(Box::new(hook));
    }
}

/// What a proof can do at a point.
pub(crate) struct Points<'a> {
    inner: &'a Arc<Inner>,
}

impl Points<'_> {
    pub(crate) fn cancel(&self, id: JobId) {
        // Refusals (already undoing) are part of the game.
        let _ = self.inner.cancel(id);
    }

    pub(crate) fn stop(&self) {
        self.inner.stop();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inner.stop();
        // Idle threads end at once, and so do their handles on the store; a step that runs is not waited for.
        if lock(&self.inner.schedule).running.is_empty() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl Inner {
    /// Takes a place and the subject for a job about to be written.
    fn admit(&self, id: JobId, subject: Option<&str>) -> Result<(), SubmitError> {
        let mut schedule = lock(&self.schedule);
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(SubmitError::stopping());
        }
        if schedule.entries.len() + schedule.arriving >= MAX_UNFINISHED {
            return Err(SubmitError::full());
        }
        if let Some(subject) = subject {
            if let Some(other) = schedule.subjects.get(subject) {
                return Err(SubmitError::busy(subject, *other));
            }
            schedule.subjects.insert(subject.to_owned(), id);
        }
        schedule.arriving += 1;
        Ok(())
    }

    fn find(&self, id: JobId) -> Result<Arc<Entry>, CancelError> {
        if let Some(entry) = lock(&self.schedule).entries.get(&id) {
            return Ok(Arc::clone(entry));
        }
        Err(CancelError::new(
            id,
            match self.shared.board.get(id) {
                Some(status) if status.state.is_finished() => CancelErrorKind::Finished,
                // It could not even be read.
                Some(status) if status.state == State::Parked => CancelErrorKind::Parked,
                _ => CancelErrorKind::NotFound,
            },
        ))
    }

    fn cancel(&self, id: JobId) -> Result<(), CancelError> {
        let entry = self.find(id)?;
        let mut journal = lock(&entry.journal);
        let kind = match journal.fold.next() {
            _ if journal.fold.cancel_requested() => return Ok(()),
            Next::Finished(_) => CancelErrorKind::Finished,
            Next::Undo(..) => CancelErrorKind::Undoing,
            // Without its kind nothing can be undone; a job that did nothing needs no undo.
            Next::Run(_) if entry.kind.is_none() && !journal.fold.untouched() => CancelErrorKind::Parked,
            Next::Run(_) => {
                self.append(&mut journal, Event::CancelRequested)
                    .map_err(|error| CancelError::store(id, error))?;
                entry.live.cancel();
                tracing::info!(job = %id, subject = entry.meta.subject, "cancel requested");
                if let Next::Finished(_) = journal.fold.next() {
                    self.retire(&entry, &journal);
                } else {
                    self.post(&entry, &journal);
                }
                return Ok(());
            }
        };
        Err(CancelError::new(id, kind))
    }

    fn append(&self, journal: &mut Journal, event: Event) -> Result<(), AppendError> {
        journal.append(&*self.shared.store, &*self.shared.clock, event)
    }

    fn entry(&self, journal: Journal, checkpoint: Checkpoint) -> Arc<Entry> {
        let meta = Arc::clone(&journal.meta);
        let known = self.registry.get(&(meta.kind.clone(), meta.version));
        // Indices in the log mean these names: other steps under the same version are another, unknown kind.
        let same = |kind: &&Arc<dyn Runnable>| {
            kind.steps().iter().map(|(name, _)| *name).eq(meta.steps.iter().map(String::as_str))
        };
        let kind = known.filter(same).cloned();
        let parked = kind.is_none().then(|| {
            let message =
                format!("this program does not know jobs of kind {} version {}", meta.kind, meta.version);
            Failure::new(crate::ids::KIND_UNKNOWN, message)
                .hint("start the program that submitted the job, or give the job up with discard")
        });
        let cancelled = journal.fold.cancel_requested();
        Arc::new(Entry {
            id: journal.id,
            live: Arc::new(Live::new(
                journal.id,
                Arc::clone(&self.shared),
                Arc::clone(&meta),
                checkpoint,
                cancelled,
            )),
            meta,
            kind,
            journal: Mutex::new(journal),
            parked: Mutex::new(parked),
        })
    }

    /// Hangs the job's status on the board.
    fn post(&self, entry: &Entry, journal: &Journal) {
        let mut status = status_of(journal);
        let finished = status.state.is_finished();
        let percent = entry.span(journal.fold.done());
        if finished && !status.state.is_success() {
            status.percent = entry.live.meter().high;
        }
        if let Some(failure) = lock(&entry.parked).as_ref().filter(|_| !finished) {
            status.state = State::Parked;
            status.error = Some(failure.clone());
        }
        let live = (!finished).then(|| Arc::clone(&entry.live));
        self.shared.board.post(Notice { status, live, percent });
    }

    /// Lets go of a job that is over.
    fn retire(&self, entry: &Entry, journal: &Journal) {
        let mut schedule = lock(&self.schedule);
        if schedule.entries.remove(&entry.id).is_some() {
            lock(&self.tally).note(&status_of(journal));
        }
        schedule.queue.retain(|id| *id != entry.id);
        schedule.inherited.retain(|id| *id != entry.id);
        if let Some(subject) = &entry.meta.subject
            && schedule.subjects.get(subject) == Some(&entry.id)
        {
            schedule.subjects.remove(subject);
        }
        // Under the lock: whoever sees the job finished can submit the next one for its subject.
        self.post(entry, journal);
        drop(schedule);
        let Meta { kind, subject, .. } = &*entry.meta;
        tracing::info!(job = %entry.id, kind, subject, state = ?journal.fold.state(), "over");
    }

    fn stop(&self) {
        // Under the lock, so that no worker misses it between looking and sleeping.
        let _schedule = lock(&self.schedule);
        self.shared.stopping.store(true, Ordering::Release);
        self.work.notify_all();
    }
}

/// What a journal says about its job; all that does not depend on the running process.
fn status_of(journal: &Journal) -> Status {
    let Journal { id, meta, fold, .. } = journal;
    let name = |step: usize| meta.steps.get(step).cloned().unwrap_or_default();
    let state = fold.state();
    let step = match fold.next() {
        Next::Run(step) | Next::Undo(step, _) => Some(name(step)),
        Next::Finished(_) => None,
    };
    Status {
        id: *id,
        kind: meta.kind.clone(),
        version: meta.version,
        subject: meta.subject.clone(),
        owner: meta.owner.clone(),
        state,
        cancel_requested: fold.cancel_requested(),
        step,
        phase: String::new(),
        done_bytes: 0,
        total_bytes: 0,
        rate: 0,
        eta_seconds: None,
        percent: if state.is_success() { 100 } else { 0 },
        error: fold.error(),
        stuck: fold.stuck().map(|(step, failure)| Stuck { step: name(step), failure: failure.clone() }),
        warnings: fold.warnings().to_vec(),
        submitted: meta.submitted,
        started: fold.started(),
        finished: fold.finished(),
        output: if state.is_success() { fold.outputs().last().cloned().flatten() } else { None },
        generation: 0,
    }
}
