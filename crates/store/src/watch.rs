//! Following changes: the blocking [`Watch`] and the bell that stores ring after each commit.
//!
//! An event says *which* key changed in which revision, not to what: a watcher wants the newest value and gets it with
//! `get`, and so the history kept for watchers stays small. The history itself is the store's ([`History`]).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was created or replaced.
    Put,
    /// It was removed.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: String,
    /// Revision that changed it. Events of one transaction share it.
    pub revision: u64,
    /// What happened.
    pub change: Change,
}

/// What a watch reads from; implemented by the stores.
pub(crate) trait History: Send + Sync {
    /// Events of keys with `prefix` after revision `after`, whole revisions only, and the revision up to which this
    /// answer is complete. Bounded; the caller asks again from there. Error `Compacted` if `after` is too old.
    fn events(&self, prefix: &str, after: u64) -> Result<(Vec<Event>, u64), Error>;
}

/// The latest revision, and a way to sleep until there is a later one.
#[derive(Default)]
pub(crate) struct Bell {
    revision: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self, revision: u64) {
        let mut latest = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = revision.max(*latest);
        self.rung.notify_all();
    }

    /// Waits until the revision is greater than `seen`; false when `timeout` passed first.
    fn wait(&self, seen: u64, timeout: Duration) -> bool {
        let latest = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        let (latest, _) = self
            .rung
            .wait_timeout_while(latest, timeout, |latest| *latest <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        *latest > seen
    }
}

/// A subscription to the changes under a prefix; see [`crate::Store::watch`]. Keeps nothing alive but the store's
/// memory, and costs nothing while nobody asks.
pub struct Watch {
    history: Arc<dyn History>,
    bell: Arc<Bell>,
    prefix: String,
    /// Complete up to this revision, `pending` included.
    seen: u64,
    pending: VecDeque<Event>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("prefix", &self.prefix)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(
        history: Arc<dyn History>,
        bell: Arc<Bell>,
        prefix: &str,
        from: u64,
    ) -> Result<Watch, Error> {
        crate::key::check_prefix(prefix)?;
        // No store counts further; SQLite cannot even express more.
        let from = from.min(i64::MAX as u64);
        let (events, seen) = history.events(prefix, from)?;
        Ok(Watch { history, bell, prefix: prefix.to_owned(), seen, pending: events.into() })
    }

    /// The next event, waiting up to `timeout` for one; `None` if there was none by then.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Compacted`] if the watcher fell so far behind that events were dropped.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        // A timeout too long for the clock is no timeout.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let (events, seen) = self.history.events(&self.prefix, self.seen)?;
            let moved = seen > self.seen;
            self.seen = seen;
            self.pending = events.into();
            if !self.pending.is_empty() || moved {
                continue;
            }
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            // Condvar waits take a bounded time.
            if !self.bell.wait(self.seen, left.min(Duration::from_secs(3600))) && left.is_zero() {
                return Ok(None);
            }
        }
    }
}

/// Blocks for each next event; ends only with an error (which is yielded once, then again on each call).
impl Iterator for Watch {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_timeout(Duration::MAX).transpose()
    }
}
