//! A store that stops accepting: what a process that dies leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use store::{Error, Outcome, Store, Txn, Versioned, Watch};

/// Passes the first so many transactions on and refuses the rest.
pub(super) struct CutStore {
    inner: Arc<dyn Store>,
    limit: u64,
    asked: AtomicU64,
}

impl CutStore {
    pub(super) fn new(inner: Arc<dyn Store>, limit: u64) -> CutStore {
        CutStore { inner, limit, asked: AtomicU64::new(0) }
    }

    /// Transactions passed on.
    pub(super) fn written(&self) -> u64 {
        self.asked.load(Ordering::Acquire).min(self.limit)
    }
}

impl Store for CutStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        self.inner.get(key)
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        self.inner.range(prefix, after, limit)
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        if self.asked.fetch_add(1, Ordering::AcqRel) >= self.limit {
            return Err(Error::backend("write", "the process is dead, for a proof"));
        }
        self.inner.txn(txn)
    }

    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        self.inner.watch(prefix, from_revision)
    }

    fn revision(&self) -> Result<u64, Error> {
        self.inner.revision()
    }
}
