//! Work that a method begins and that is no job of the domain: starts, stops, shutdowns, validations.
//!
//! The domain does these in one blocking call. Clients are told of a job, as Hyper-V does, so a thread makes the call and
//! the job shows how it goes. It lives as long as this process: what a start had done when the process died is told by the
//! machine's state, not by the job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use machine::{Error, Reason};
use uuid::Uuid;

use crate::bell::Bell;
use crate::job_class::{JobView, Kind, Problem, expired};

/// Most that run at once.
const MAX_RUNNING: usize = 256;
/// Most that are told of.
const MAX_KEPT: usize = 10_000;

/// What there is of them. Cheap to share.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    all: Arc<Mutex<HashMap<Uuid, JobView>>>,
    bell: Arc<Bell>,
}

impl Tasks {
    /// Begins `work` in a thread of its own, for `owner`, about machine `subject`. What it gives back is the job's problems.
    ///
    /// # Errors
    /// [`Reason::Busy`]: too many run already.
    pub(crate) fn begin(
        &self,
        kind: Kind,
        subject: Uuid,
        owner: &str,
        work: impl FnOnce() -> Result<Vec<Problem>, Error> + Send + 'static,
    ) -> Result<Uuid, Error> {
        let id = Uuid::new_v4();
        {
            let mut all = self.lock();
            all.retain(|_, task| !task.finished.is_some_and(expired));
            let running = all.values().filter(|task| task.finished.is_none()).count();
            if running >= MAX_RUNNING || all.len() >= MAX_KEPT {
                return Err(
                    Error::new(Reason::Busy, "too many requests are under way").hint("try again later")
                );
            }
            all.insert(id, JobView::begun(id, kind, subject, owner));
        }
        self.bell.ring(id);
        let this = self.clone();
        let spawned = std::thread::Builder::new().name(format!("task-{}", kind.number())).spawn(move || {
            let end = work();
            if let Some(task) = this.lock().get_mut(&id) {
                task.end(end);
            }
            this.bell.ring(id);
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

    pub(crate) fn get(&self, id: Uuid) -> Option<JobView> {
        self.lock().get(&id).filter(|task| !task.finished.is_some_and(expired)).cloned()
    }

    /// All of them, or those about one machine.
    pub(crate) fn ids(&self, subject: Option<Uuid>) -> Vec<Uuid> {
        let all = self.lock();
        let mut known: Vec<_> = all
            .values()
            .filter(|task| subject.is_none() || task.subject == subject)
            .filter(|task| !task.finished.is_some_and(expired))
            .map(|task| (task.submitted, task.id))
            .collect();
        known.sort_unstable();
        known.into_iter().map(|(_, id)| id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, JobView>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobView {
    /// One that begins now.
    fn begun(id: Uuid, kind: Kind, subject: Uuid, owner: &str) -> Self {
        let now = Timestamp::now();
        Self {
            id,
            kind,
            state: crate::job_class::state::RUNNING,
            status: String::new(),
            percent: 0,
            error_code: 0,
            problems: Vec::new(),
            cancellable: false,
            owner: owner.to_owned(),
            subject: Some(subject),
            submitted: now,
            started: Some(now),
            finished: None,
        }
    }
}
