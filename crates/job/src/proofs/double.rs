//! A store that stops accepting: what a process that dies leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use store::{Error, Outcome, Store, Txn, Versioned, Watch};

/// Passes the first so many transactions on and refuses the rest.
pub(crate) struct CutStore {
    inner: Arc<dyn Store>,
    limit: u64,
    asked: AtomicU64,
    dead: Arc<AtomicBool>,
}

impl CutStore {
    pub(crate) fn new(inner: Arc<dyn Store>, limit: u64) -> CutStore {
        CutStore { inner, limit, asked: AtomicU64::new(0), dead: Arc::default() }
    }

    /// Becomes true when the last transaction that is passed on has been.
    pub(crate) fn dead(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.dead)
    }

    /// Transactions passed on.
    pub(crate) fn written(&self) -> u64 {
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
        let outcome = self.inner.txn(txn);
        if self.asked.load(Ordering::Acquire) >= self.limit {
            self.dead.store(true, Ordering::Release);
        }
        outcome
    }

    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        self.inner.watch(prefix, from_revision)
    }

    fn revision(&self) -> Result<u64, Error> {
        self.inner.revision()
    }
}
