//! A store that tells how long its transactions take: a slow disk shows here first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Durability, Error, Outcome, Store, Txn, Versioned, Watch};

/// Measures another store. Reads go straight through.
pub struct Timed {
    inner: Arc<dyn Store>,
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What a [`Timed`] has measured since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Transactions, failed ones included.
    pub transactions: u64,
    /// How long they took together, waiting for each other included.
    pub total: Duration,
}

impl Timed {
    /// Measures `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Timed {
        Timed { inner, count: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }

    /// What was measured so far.
    pub fn timing(&self) -> Timing {
        Timing {
            transactions: self.count.load(Ordering::Relaxed),
            total: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

impl Store for Timed {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        self.inner.get(key)
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        self.inner.range(prefix, after, limit)
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        let began = Instant::now();
        let outcome = self.inner.txn(txn);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        self.inner.watch(prefix, from_revision)
    }

    fn revision(&self) -> Result<u64, Error> {
        self.inner.revision()
    }

    fn set_durability(&self, durability: Durability) -> Result<(), Error> {
        self.inner.set_durability(durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn transactions_are_counted_and_everything_goes_through() {
        let store = Timed::new(Arc::new(MemoryStore::new()));
        assert_eq!(store.timing(), Timing::default());
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        let _ = store.txn(&Txn::new().absent("a")).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
        assert_eq!(store.range("", None, 9).unwrap().len(), 1);
        assert_eq!(store.revision().unwrap(), 1);
        assert_eq!(store.timing().transactions, 2);
        assert!(store.timing().total > Duration::ZERO);
    }
}
