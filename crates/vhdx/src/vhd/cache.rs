//! A bounded number of byte strings from a file, by key: pages of the table, sector bitmaps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// At most `capacity` strings; the least recently used goes first.
#[derive(Debug)]
pub(super) struct Cache {
    inner: Mutex<Inner>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<u64, (u64, Arc<[u8]>)>,
    clock: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Keeps at most so many strings from now on.
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
    }

    /// What is kept under `key`, or what `load` brings. Loading happens outside the lock: two threads may load the
    /// same string once each, none waits for another's disk.
    pub(super) fn get<E>(&self, key: u64, load: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Arc<[u8]>, E> {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.clock += 1;
            let now = inner.clock;
            if let Some((used, bytes)) = inner.entries.get_mut(&key) {
                *used = now;
                return Ok(Arc::clone(bytes));
            }
        }
        let bytes: Arc<[u8]> = load()?.into();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.clock;
        if inner.entries.len() >= self.capacity
            && let Some(oldest) = inner.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            inner.entries.remove(&oldest);
        }
        inner.entries.insert(key, (now, Arc::clone(&bytes)));
        Ok(bytes)
    }
}
