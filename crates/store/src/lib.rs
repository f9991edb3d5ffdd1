//! Durable keys: get, range, conditional transaction, watch.
//!
//! ```text
//!   reader ── get / range ──►┐                   ┌─► MemoryStore   (tests, the simulator)
//!   writer ── txn ──────────►│   trait Store     │
//!   watcher ◄─ watch ────────┘                   └─► SqliteStore   (the daemon's data directory)
//! ```
//!
//! A store maps keys (`machine/<id>`, `job/<id>/meta`) to small values. Every committed [`Txn`] that changes something
//! advances one global revision by one, and every key it touched carries that revision, so an optimistic writer
//! conditions its transaction on the revisions it read ([`Condition::Revision`]) and a watcher resumes from the
//! revision it has seen.
//!
//! The trait is the part that etcd can also keep: nothing here depends on SQL. One suite, `store::conformance`
//! (feature `conformance`), is run on every implementation.
//!
//! Left to others: what values mean (they are bytes here; the callers version their documents), large data (files
//! beside the store, content-addressed), and leases, which come with the cluster.

#![forbid(unsafe_code)]

mod error;
mod key;
mod memory;
mod scan;
mod sqlite;
mod timed;
mod watch;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use error::{Error, ErrorKind, OpenError, OpenErrorKind};
pub use key::{check_key, escape_segment};
pub use memory::MemoryStore;
pub use scan::{Scan, scan};
pub use sqlite::{SCHEMA_VERSION, SqliteOptions, SqliteStore};
pub use timed::{Timed, Timing};
pub use watch::{Change, Event, Watch};

/// Largest value of one key, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// Most operations, and most conditions, in one transaction.
pub const MAX_OPERATIONS: usize = 64;
/// Most entries one [`Store::range`] returns, whatever limit is asked for.
pub const MAX_PAGE: usize = 1000;
/// How many revisions of history a store keeps for watchers, unless told otherwise.
pub const CHANGE_LOG_REVISIONS: u64 = 8192;

/// One key with its value and the revision that last changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The full key.
    pub key: String,
    /// The value, at most [`MAX_VALUE`] bytes.
    pub value: Vec<u8>,
    /// Revision of the transaction that wrote this value; never 0.
    pub revision: u64,
}

/// What must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key exists and was last written by exactly this revision.
    Revision(String, u64),
    /// The key exists, at whatever revision.
    Exists(String),
}

impl Condition {
    /// The key the condition is about.
    pub fn key(&self) -> &str {
        match self {
            Condition::Absent(key) | Condition::Revision(key, _) | Condition::Exists(key) => key,
        }
    }

    /// Whether the condition holds for a key whose current revision is `current` (`None`: the key is absent).
    pub(crate) fn holds(&self, current: Option<u64>) -> bool {
        match self {
            Condition::Absent(_) => current.is_none(),
            Condition::Revision(_, wanted) => current == Some(*wanted),
            Condition::Exists(_) => current.is_some(),
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Create or replace the key. The value may have at most [`MAX_VALUE`] bytes.
    Put(String, Vec<u8>),
    /// Remove the key; removing an absent key changes nothing.
    Delete(String),
}

impl Operation {
    /// The key the operation changes.
    pub fn key(&self) -> &str {
        match self {
            Operation::Put(key, _) | Operation::Delete(key) => key,
        }
    }
}

/// A conditional, atomic change of several keys: either all conditions hold and all operations are applied under one
/// new revision, or nothing happens.
///
/// ```
/// use store::{MemoryStore, Outcome, Store, Txn};
/// let store = MemoryStore::new();
/// let create = Txn::new().absent("machine/a").put("machine/a", "{}");
/// assert_eq!(store.txn(&create).unwrap(), Outcome::Committed { revision: 1 });
/// assert_eq!(store.txn(&create).unwrap(), Outcome::Conflict { key: "machine/a".into() });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold; checked in order, the first that does not is reported.
    pub conditions: Vec<Condition>,
    /// Applied together. No key may appear twice.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// An empty transaction: no conditions, no operations.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds the condition that `key` does not exist.
    #[must_use]
    pub fn absent(mut self, key: impl Into<String>) -> Txn {
        self.conditions.push(Condition::Absent(key.into()));
        self
    }

    /// Adds the condition that `key` was last written by `revision`.
    #[must_use]
    pub fn revision(mut self, key: impl Into<String>, revision: u64) -> Txn {
        self.conditions.push(Condition::Revision(key.into(), revision));
        self
    }

    /// Adds the condition that `key` exists.
    #[must_use]
    pub fn exists(mut self, key: impl Into<String>) -> Txn {
        self.conditions.push(Condition::Exists(key.into()));
        self
    }

    /// Adds an operation that writes `value` under `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Txn {
        self.operations.push(Operation::Put(key.into(), value.into()));
        self
    }

    /// Adds an operation that removes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Txn {
        self.operations.push(Operation::Delete(key.into()));
        self
    }

    /// Checks keys, sizes, counts and that no key is changed twice. Every implementation calls this first.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for count in [self.conditions.len(), self.operations.len()] {
            if count > MAX_OPERATIONS {
                return Err(Error::too_many(count));
            }
        }
        for condition in &self.conditions {
            check_key(condition.key())?;
        }
        let mut changed = std::collections::BTreeSet::new();
        for operation in &self.operations {
            check_key(operation.key())?;
            if let Operation::Put(key, value) = operation
                && value.len() > MAX_VALUE
            {
                return Err(Error::too_large(key, value.len()));
            }
            if !changed.insert(operation.key()) {
                return Err(Error::twice(operation.key()));
            }
        }
        Ok(())
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Applied and, where the store is durable, on disk. `revision` is the store's revision afterwards; it has not
    /// advanced if the transaction changed nothing.
    Committed {
        /// The store's revision after the transaction.
        revision: u64,
    },
    /// Not applied: the first condition that did not hold was about this key.
    Conflict {
        /// Key of that condition.
        key: String,
    },
}

/// When a committed transaction is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    #[default]
    EachCommit,
    /// Some time later, in the order of commits: until then it survives the death of the process, not that of the
    /// machine.
    Deferred,
}

/// A map of keys to values with one global revision. All calls block and may be made from any thread.
///
/// A call that returned is seen by every later call from any thread. A transaction that returned
/// [`Outcome::Committed`] survives the death of the process and, for durable stores, of the machine.
pub trait Store: Send + Sync + 'static {
    /// The current value of `key`, or `None` if there is none.
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error>;

    /// Keys that start with `prefix`, in byte order, those after `after` (exclusive) if given; at most `limit`, and
    /// never more than [`MAX_PAGE`]. A page is one consistent state; two pages need not be of the same one. An empty
    /// page is the end; [`scan`] walks all pages.
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error>;

    /// Applies `txn` as a whole or not at all. An `Err` of kind [`ErrorKind::Backend`] leaves open whether it was
    /// applied; the caller reads to find out.
    fn txn(&self, txn: &Txn) -> Result<Outcome, Error>;

    /// Changes to keys that start with `prefix`, made by revisions later than `from_revision`, in order, none left
    /// out, and then those to come. To miss nothing: take [`Store::revision`], read, then watch from that revision.
    ///
    /// # Errors
    /// [`ErrorKind::Compacted`] if changes after `from_revision` are no longer kept: read everything anew.
    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error>;

    /// Revision of the latest transaction that changed something; 0 for a store never written to.
    fn revision(&self) -> Result<u64, Error>;

    /// Says when transactions are to be on disk from now on, whoever makes them; [`Durability::EachCommit`] unless told
    /// otherwise. When that is set again, all that was committed before is on disk as this returns. A store that is not
    /// durable, or cannot defer, does nothing.
    fn set_durability(&self, durability: Durability) -> Result<(), Error> {
        let _ = durability;
        Ok(())
    }
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        (**self).get(key)
    }
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        (**self).range(prefix, after, limit)
    }
    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        (**self).txn(txn)
    }
    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        (**self).watch(prefix, from_revision)
    }
    fn revision(&self) -> Result<u64, Error> {
        (**self).revision()
    }
    fn set_durability(&self, durability: Durability) -> Result<(), Error> {
        (**self).set_durability(durability)
    }
}
