//! Where the status of every job hangs, with a number on each change: readers ask for what is newer than what they saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::live::{Live, lock};
use crate::{JobId, Status};

/// Jobs that changed, and the number to ask with next time.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Ask for changes since this next.
    pub generation: u64,
    /// The changed jobs as they are now, least recently changed first. Jobs that were pruned are not told.
    pub jobs: Vec<Status>,
}

#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<Posted>,
    changed: Condvar,
}

#[derive(Default)]
struct Posted {
    generation: u64,
    jobs: BTreeMap<JobId, Notice>,
}

pub(crate) struct Notice {
    pub(crate) status: Status,
    /// Of a job that is not finished: what its step reports at this moment.
    pub(crate) live: Option<Arc<Live>>,
    /// Percentage reached when the current step began, and the part of 100 that the step is.
    pub(crate) percent: (f64, f64),
}

impl Notice {
    fn read(&self) -> Status {
        let mut status = self.status.clone();
        let Some(live) = &self.live else { return status };
        status.warnings.extend(live.warnings());
        let mut meter = live.meter();
        status.phase.clone_from(&meter.progress.phase);
        status.done_bytes = meter.progress.done;
        status.total_bytes = meter.progress.total;
        status.rate = meter.rate();
        status.eta_seconds = meter.eta_seconds();
        let (before, step) = self.percent;
        let percent = (before + step * meter.fraction()).clamp(0.0, 99.0) as u8;
        // An undo goes back; the percentage stays where it was.
        meter.high = meter.high.max(percent);
        status.percent = meter.high;
        status
    }
}

impl Board {
    /// Hangs up or replaces a job's status.
    pub(crate) fn post(&self, mut notice: Notice) {
        let mut state = lock(&self.state);
        state.generation += 1;
        notice.status.generation = state.generation;
        state.jobs.insert(notice.status.id, notice);
        self.changed.notify_all();
    }

    /// Marks a job as changed: its step reported something.
    pub(crate) fn touch(&self, id: JobId) {
        let mut state = lock(&self.state);
        let generation = state.generation + 1;
        if let Some(notice) = state.jobs.get_mut(&id) {
            notice.status.generation = generation;
            state.generation = generation;
            self.changed.notify_all();
        }
    }

    pub(crate) fn remove(&self, id: JobId) {
        lock(&self.state).jobs.remove(&id);
        self.changed.notify_all();
    }

    pub(crate) fn get(&self, id: JobId) -> Option<Status> {
        lock(&self.state).jobs.get(&id).map(Notice::read)
    }

    /// All that `admits` lets through, judged by the status without what is in memory only; oldest first.
    pub(crate) fn list(&self, admits: impl Fn(&Status) -> bool) -> Vec<Status> {
        let state = lock(&self.state);
        let mut list: Vec<_> =
            state.jobs.values().filter(|notice| admits(&notice.status)).map(Notice::read).collect();
        list.sort_by_key(|status| (status.submitted, status.id));
        list
    }

    /// Waits until `ready` says yes to a job's status, the job is gone (`None`) or `timeout` has passed.
    pub(crate) fn wait(
        &self,
        id: JobId,
        timeout: Duration,
        ready: impl Fn(&Status) -> bool,
    ) -> Option<Status> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        loop {
            let notice = state.jobs.get(&id)?;
            let left = left(deadline);
            if left.is_zero() || ready(&notice.status) {
                return Some(notice.read());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn changes(&self, since: u64, timeout: Duration) -> Changes {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        loop {
            let left = left(deadline);
            if state.generation > since || left.is_zero() {
                let newer = |notice: &&Notice| notice.status.generation > since;
                let mut jobs: Vec<_> = state.jobs.values().filter(newer).map(Notice::read).collect();
                jobs.sort_by_key(|status| status.generation);
                return Changes { generation: state.generation, jobs };
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Time until the deadline; none means never, in bounded naps.
fn left(deadline: Option<Instant>) -> Duration {
    deadline
        .map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
        .min(Duration::from_secs(3600))
}

/// Follows one job: each call gives a status newer than the last one.
pub struct Watcher<'a> {
    pub(crate) board: &'a Board,
    pub(crate) id: JobId,
    pub(crate) seen: u64,
}

impl Watcher<'_> {
    /// The job's status as soon as it is newer than the last one given, the first time at once. `None` if `timeout`
    /// passed first, or the job was pruned.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Status> {
        let status = self.board.wait(self.id, timeout, |status| status.generation > self.seen)?;
        if status.generation <= self.seen {
            return None;
        }
        self.seen = status.generation;
        Some(status)
    }
}
