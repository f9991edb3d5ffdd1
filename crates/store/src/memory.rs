//! The store in memory: for tests and the simulator. Nothing survives it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::watch::{Bell, Change, Event, History, Watch};
use crate::{CHANGE_LOG_REVISIONS, Error, MAX_PAGE, Operation, Outcome, Store, Txn, Versioned, key};

/// A [`Store`] in memory.
pub struct MemoryStore {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
}

struct Shared {
    state: Mutex<State>,
    keep: u64,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// Changes up to and including this revision are gone from `changes`.
    compacted: u64,
    keys: BTreeMap<String, (Vec<u8>, u64)>,
    changes: VecDeque<Event>,
}

impl MemoryStore {
    /// An empty store at revision 0.
    pub fn new() -> MemoryStore {
        MemoryStore::with_change_log(CHANGE_LOG_REVISIONS)
    }

    /// An empty store that keeps the history of `revisions` revisions for watchers.
    pub fn with_change_log(revisions: u64) -> MemoryStore {
        let shared = Shared { state: Mutex::default(), keep: revisions };
        MemoryStore { shared: Arc::new(shared), bell: Arc::default() }
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed: nothing below panics between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        key::check_key(key)?;
        let state = self.shared.lock();
        Ok(state.keys.get(key).map(|(value, revision)| Versioned {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        key::check_prefix(prefix)?;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.shared.lock();
        let keys = state.keys.range::<str, _>((from, Bound::Unbounded));
        Ok(keys
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit.min(MAX_PAGE))
            .map(|(key, (value, revision))| Versioned {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect())
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        txn.validate()?;
        let mut state = self.shared.lock();
        for condition in &txn.conditions {
            let current = state.keys.get(condition.key()).map(|(_, revision)| *revision);
            if !condition.holds(current) {
                return Ok(Outcome::Conflict { key: condition.key().to_owned() });
            }
        }
        let revision = state.revision + 1;
        let mut changed = false;
        for operation in &txn.operations {
            let change = match operation {
                Operation::Put(key, value) => {
                    state.keys.insert(key.clone(), (value.clone(), revision));
                    Change::Put
                }
                Operation::Delete(key) => match state.keys.remove(key) {
                    Some(_) => Change::Delete,
                    None => continue,
                },
            };
            changed = true;
            state.changes.push_back(Event { key: operation.key().to_owned(), revision, change });
        }
        if changed {
            state.revision = revision;
            state.compacted = state.compacted.max(revision.saturating_sub(self.shared.keep));
            let compacted = state.compacted;
            while state.changes.front().is_some_and(|event| event.revision <= compacted) {
                state.changes.pop_front();
            }
        }
        let revision = state.revision;
        drop(state);
        self.bell.ring(revision);
        Ok(Outcome::Committed { revision })
    }

    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        Watch::new(
            Arc::clone(&self.shared) as Arc<dyn History>,
            Arc::clone(&self.bell),
            prefix,
            from_revision,
        )
    }

    fn revision(&self) -> Result<u64, Error> {
        Ok(self.shared.lock().revision)
    }
}

impl History for Shared {
    fn events(&self, prefix: &str, after: u64) -> Result<(Vec<Event>, u64), Error> {
        let state = self.lock();
        if after < state.compacted {
            return Err(Error::compacted(after, state.compacted));
        }
        let first = state.changes.partition_point(|event| event.revision <= after);
        let events = state.changes.range(first..).filter(|event| event.key.starts_with(prefix)).cloned();
        // A watch from a revision that does not exist yet stays where it is.
        Ok((events.collect(), state.revision.max(after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::run(&|revisions| Box::new(MemoryStore::with_change_log(revisions)));
    }
}
