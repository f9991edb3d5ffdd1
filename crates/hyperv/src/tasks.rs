//! Work that a method begins and that is no job of the domain: starts, stops, shutdowns, validations.
//!
//! The domain does these in one blocking call. Clients are told of a job, as Hyper-V does, so a thread makes the call and
//! the job shows how it goes. It lives as long as this process: what a start had done when the process died is told by the
//! machine's state, not by the job. Those whose call can be told to go no further can be cancelled.
//!
//! What fails before there is anything to do, and what clients look for in a job all the same, is a job that has failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use machine::{Cancel, Error, Host, Reason};
use uuid::Uuid;

use crate::bell::Bell;
use crate::job_class::{JobView, Kind, Problem, expired, state};

/// Most that run at once.
const MAX_RUNNING: usize = 256;
/// Most that are told of.
const MAX_KEPT: usize = 10_000;

/// What there is of them. Cheap to share.
#[derive(Clone)]
pub(crate) struct Tasks {
    /// For its clock.
    host: Arc<Host>,
    all: Arc<Mutex<HashMap<Uuid, Task>>>,
    bell: Arc<Bell>,
}

struct Task {
    view: JobView,
    /// Tells its call to go no further, if that can be told.
    cancel: Option<Cancel>,
}

/// A task to begin.
pub(crate) struct Begin<'b> {
    pub(crate) kind: Kind,
    /// The machine it is about.
    pub(crate) subject: Uuid,
    /// Who began it.
    pub(crate) owner: &'b str,
    /// Tells the work to go no further, where it listens.
    pub(crate) cancel: Option<Cancel>,
}

impl Tasks {
    /// None yet; they live by the clock of `host`.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host, all: Arc::default(), bell: Arc::default() }
    }

    /// Begins `work` in a thread of its own. What it gives back is the job's problems.
    ///
    /// # Errors
    /// [`Reason::Busy`]: too many run already.
    pub(crate) fn begin(
        &self,
        begin: Begin<'_>,
        work: impl FnOnce() -> Result<Vec<Problem>, Error> + Send + 'static,
    ) -> Result<Uuid, Error> {
        let kind = begin.kind;
        let id = self.keep(begin)?;
        let this = self.clone();
        let spawned = std::thread::Builder::new().name(format!("task-{}", kind.number())).spawn(move || {
            let end = work();
            this.end(id, end);
        });
        if let Err(e) = spawned {
            self.lock().remove(&id);
            return Err(Error::new(Reason::Busy, "no thread can be had").caused_by(e));
        }
        Ok(id)
    }

    /// Those that changed since number `since`, and the number to ask with next time; waits `timeout` at most for one.
    pub(crate) fn changes(&self, since: u64, timeout: Duration) -> (u64, Vec<Uuid>) {
        self.bell.changes(since, timeout)
    }

    /// A job that failed with `why` as soon as it began.
    ///
    /// # Errors
    /// [`Reason::Busy`]: too many run already.
    pub(crate) fn failed(&self, begin: Begin<'_>, why: Error) -> Result<Uuid, Error> {
        let id = self.keep(begin)?;
        self.end(id, Err(why));
        Ok(id)
    }

    fn keep(&self, begin: Begin<'_>) -> Result<Uuid, Error> {
        let (id, now) = (Uuid::new_v4(), self.host.now());
        let mut all = self.lock();
        all.retain(|_, task| !task.view.finished.is_some_and(|at| expired(at, now)));
        let running = all.values().filter(|task| task.view.finished.is_none()).count();
        if running >= MAX_RUNNING || all.len() >= MAX_KEPT {
            return Err(Error::new(Reason::Busy, "too many requests are under way").hint("try again later"));
        }
        let view = JobView::begun(id, &begin, now);
        all.insert(id, Task { view, cancel: begin.cancel });
        drop(all);
        self.bell.ring(id);
        Ok(id)
    }

    fn end(&self, id: Uuid, end: Result<Vec<Problem>, Error>) {
        let now = self.host.now();
        if let Some(task) = self.lock().get_mut(&id) {
            let told = task.cancel.take().is_some_and(|cancel| cancel.told());
            match end {
                // It stopped because it was told to.
                Err(_) if told => task.view.kill(now),
                end => task.view.end(end, now),
            }
        }
        self.bell.ring(id);
    }

    /// Tells task `id` to go no further; `None` when there is no such task.
    ///
    /// # Errors
    /// It is over ([`Reason::InvalidState`]), it was told already ([`Reason::Busy`]), or it cannot be told
    /// ([`Reason::NotSupported`]).
    pub(crate) fn cancel(&self, id: Uuid) -> Option<Result<(), Error>> {
        let mut all = self.lock();
        let task = all.get_mut(&id)?;
        if task.view.finished.is_some() {
            return Some(Err(Error::new(Reason::InvalidState, "the job is over")));
        }
        let Some(cancel) = task.cancel.clone() else {
            return Some(Err(Error::new(
                Reason::NotSupported,
                "this job cannot be ended; it ends by itself",
            )));
        };
        if cancel.told() {
            return Some(Err(Error::new(Reason::Busy, "the job is being ended")));
        }
        task.view.state = state::SHUTTING_DOWN;
        task.view.cancellable = false;
        drop(all);
        self.bell.ring(id);
        cancel.tell();
        Some(Ok(()))
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<JobView> {
        let now = self.host.now();
        let all = self.lock();
        all.get(&id)
            .map(|task| &task.view)
            .filter(|view| !view.finished.is_some_and(|at| expired(at, now)))
            .cloned()
    }

    /// All of them, or those about one machine.
    pub(crate) fn ids(&self, subject: Option<Uuid>) -> Vec<Uuid> {
        let now = self.host.now();
        let all = self.lock();
        let mut known: Vec<_> = all
            .values()
            .map(|task| &task.view)
            .filter(|view| subject.is_none() || view.subject == subject)
            .filter(|view| !view.finished.is_some_and(|at| expired(at, now)))
            .map(|view| (view.submitted, view.id))
            .collect();
        known.sort_unstable();
        known.into_iter().map(|(_, id)| id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Task>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobView {
    /// One that begins at `now`.
    fn begun(id: Uuid, begin: &Begin<'_>, now: Timestamp) -> Self {
        Self {
            id,
            kind: begin.kind,
            state: state::RUNNING,
            status: begin.kind.doing().to_owned(),
            percent: 0,
            error_code: 0,
            problems: Vec::new(),
            cancellable: begin.cancel.is_some(),
            owner: begin.owner.to_owned(),
            subject: Some(begin.subject),
            submitted: now,
            started: Some(now),
            finished: None,
        }
    }
}
