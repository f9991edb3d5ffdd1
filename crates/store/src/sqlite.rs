//! The store in one SQLite file: the daemon's data directory.
//!
//! WAL with `synchronous=FULL`, so a committed transaction is on disk when the call returns. One connection writes,
//! under a mutex; another reads beside it. A lock file next to the database refuses a second process, which SQLite
//! itself would let in. Opening, locking and migrating is `open.rs`; why it is like this, and what a crash leaves, is
//! in `docs/design/store.md`.

mod open;
mod schema;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::watch::{Bell, Change, Event, History, Watch};
use crate::{
    CHANGE_LOG_REVISIONS, Durability, Error, MAX_OPERATIONS, MAX_PAGE, OpenError, Operation, Outcome, Store,
    Txn, Versioned, key,
};
pub use schema::SCHEMA_VERSION;

/// How many changes one look into the history reads: more than one transaction can have, so that each look gets on.
const HISTORY_PAGE: usize = 1024;
const _: () = assert!(HISTORY_PAGE > MAX_OPERATIONS);

/// How a store file is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// How many revisions of history are kept for watchers.
    pub change_log_revisions: u64,
}

impl Default for SqliteOptions {
    fn default() -> SqliteOptions {
        SqliteOptions { change_log_revisions: CHANGE_LOG_REVISIONS }
    }
}

/// A [`Store`] in a SQLite file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
}

struct Shared {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// A commit failed in a way that leaves its outcome open: no more writes.
    stopped: AtomicBool,
    keep: u64,
    /// The write-ahead log, which holds every commit that is not in the database yet.
    wal: PathBuf,
    /// Last field, dropped last: the lock must outlive the connections.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store at `path`, creating it (readable by its owner only) if there is none; the directory must exist.
    /// An older schema is migrated, after a backup named `<path>.schema-<version>.backup` was made beside it.
    ///
    /// # Errors
    /// See [`crate::OpenErrorKind`]: in use by another process, written by a newer program, not a store, I/O.
    pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_with(path, &SqliteOptions::default())
    }

    /// As [`SqliteStore::open`], with options.
    pub fn open_with(path: &Path, options: &SqliteOptions) -> Result<SqliteStore, OpenError> {
        let opened = open::open(path, schema::MIGRATIONS)?;
        let shared = Shared {
            writer: Mutex::new(opened.writer),
            reader: Mutex::new(opened.reader),
            stopped: AtomicBool::new(false),
            keep: options.change_log_revisions,
            wal: open::suffixed(path, "-wal"),
            _lock: opened.lock,
        };
        Ok(SqliteStore { shared: Arc::new(shared), bell: Arc::default() })
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl Shared {
    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conditions and changes of a transaction, inside an open SQL transaction.
    fn apply(&self, db: &Connection, txn: &Txn) -> rusqlite::Result<(Outcome, bool)> {
        let mut current = db.prepare_cached("SELECT revision FROM entry WHERE key = ?1")?;
        for condition in &txn.conditions {
            let revision = current.query_row([condition.key()], |row| row.get(0)).optional()?;
            if !condition.holds(revision) {
                return Ok((Outcome::Conflict { key: condition.key().to_owned() }, false));
            }
        }
        let (before, compacted) = db
            .prepare_cached("SELECT revision, compacted FROM head")?
            .query_row([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)))?;
        let revision = before + 1;
        let mut put = db.prepare_cached(
            "INSERT INTO entry (key, value, revision) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
        )?;
        let mut delete = db.prepare_cached("DELETE FROM entry WHERE key = ?1")?;
        let mut log = db
            .prepare_cached("INSERT INTO change (revision, ordinal, key, deleted) VALUES (?1, ?2, ?3, ?4)")?;
        let mut changes = 0u32;
        for operation in &txn.operations {
            let deleted = match operation {
                Operation::Put(key, value) => {
                    put.execute(params![key, value, revision])?;
                    false
                }
                Operation::Delete(key) => {
                    if delete.execute([key])? == 0 {
                        continue;
                    }
                    true
                }
            };
            log.execute(params![revision, changes, operation.key(), deleted])?;
            changes += 1;
        }
        if changes == 0 {
            return Ok((Outcome::Committed { revision: before }, false));
        }
        let compacted = compacted.max(revision.saturating_sub(self.keep));
        db.prepare_cached("DELETE FROM change WHERE revision <= ?1")?.execute([compacted])?;
        db.prepare_cached("UPDATE head SET revision = ?1, compacted = ?2")?.execute([revision, compacted])?;
        Ok((Outcome::Committed { revision }, true))
    }
}

impl Store for SqliteStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        key::check_key(key)?;
        let reader = self.shared.reader();
        let find = || {
            reader
                .prepare_cached("SELECT key, value, revision FROM entry WHERE key = ?1")?
                .query_row([key], versioned)
                .optional()
        };
        find().map_err(|error| Error::sqlite("read a key", error))
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        key::check_prefix(prefix)?;
        // Every key is greater than the empty string, so "after nothing" needs no second statement.
        let after = after.unwrap_or("");
        let end = key::prefix_end(prefix);
        let limit = limit.min(MAX_PAGE);
        let reader = self.shared.reader();
        let page = || -> rusqlite::Result<Vec<Versioned>> {
            reader
                .prepare_cached(
                    "SELECT key, value, revision FROM entry
                     WHERE key >= ?1 AND key > ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4",
                )?
                .query_map(params![prefix, after, end, limit], versioned)?
                .collect()
        };
        page().map_err(|error| Error::sqlite("read a range of keys", error))
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        txn.validate()?;
        let mut writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a writer that waited for a failing one must not go on.
        if self.shared.stopped.load(Ordering::Acquire) {
            return Err(Error::stopped());
        }
        let sql = writer
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(|error| Error::sqlite("begin a transaction", error))?;
        let (outcome, changed) = match self.shared.apply(&sql, txn) {
            Ok(applied) => applied,
            // Dropping `sql` rolls back; if even that fails, the next `begin` does too.
            Err(error) => return Err(Error::sqlite("write", error)),
        };
        if !changed {
            return Ok(outcome);
        }
        if let Err(source) = sql.commit() {
            let error = Error::sqlite("commit a transaction", source);
            // A failed sync says nothing about what is on disk. A full disk is known to have written no commit record.
            if error.kind() != crate::ErrorKind::Full {
                self.shared.stopped.store(true, Ordering::Release);
            }
            return Err(error);
        }
        drop(writer);
        if let Outcome::Committed { revision } = outcome {
            self.bell.ring(revision);
        }
        Ok(outcome)
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
        let reader = self.shared.reader();
        let read = || reader.prepare_cached("SELECT revision FROM head")?.query_row([], |row| row.get(0));
        read().map_err(|error| Error::sqlite("read the revision", error))
    }

    fn set_durability(&self, durability: Durability) -> Result<(), Error> {
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.stopped.load(Ordering::Acquire) {
            return Err(Error::stopped());
        }
        // NORMAL syncs before and after a checkpoint and not at commits, so what is in the file was in the log first.
        let mode = match durability {
            Durability::EachCommit => "PRAGMA synchronous = FULL",
            Durability::Deferred => "PRAGMA synchronous = NORMAL",
        };
        writer.execute_batch(mode).map_err(|error| Error::sqlite("change its durability", error))?;
        if durability == Durability::EachCommit {
            // SQLite locks the database and the shared memory, never the log: closing it here lets go of nothing.
            let synced = File::open(&self.shared.wal).and_then(|wal| wal.sync_data());
            if let Err(error) = synced {
                // As after a commit: nobody knows what is on disk.
                self.shared.stopped.store(true, Ordering::Release);
                return Err(Error::backend("sync the log", error));
            }
        }
        Ok(())
    }
}

impl History for Shared {
    fn events(&self, prefix: &str, after: u64) -> Result<(Vec<Event>, u64), Error> {
        let mut reader = self.reader();
        let mut read = || -> rusqlite::Result<(u64, u64, Vec<Event>)> {
            // One snapshot for the head and the changes.
            let snapshot = reader.transaction()?;
            let (revision, compacted) = snapshot
                .prepare_cached("SELECT revision, compacted FROM head")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let changes = snapshot
                .prepare_cached(
                    "SELECT revision, key, deleted FROM change WHERE revision > ?1 AND key >= ?2
                     AND (?3 IS NULL OR key < ?3) ORDER BY revision, ordinal LIMIT ?4",
                )?
                .query_map(params![after, prefix, key::prefix_end(prefix), HISTORY_PAGE], |row| {
                    let change = if row.get(2)? { Change::Delete } else { Change::Put };
                    Ok(Event { revision: row.get(0)?, key: row.get(1)?, change })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok((revision, compacted, changes))
        };
        let (revision, compacted, mut changes) =
            read().map_err(|error| Error::sqlite("read the change log", error))?;
        if after < compacted {
            return Err(Error::compacted(after, compacted));
        }
        let mut seen = revision.max(after);
        if changes.len() == HISTORY_PAGE {
            // The last revision of a full page may be cut: leave it for the next look.
            let cut = changes.last().map_or(0, |event| event.revision);
            changes.retain(|event| event.revision < cut);
            seen = cut - 1;
        }
        Ok((changes, seen))
    }
}

fn versioned(row: &rusqlite::Row<'_>) -> rusqlite::Result<Versioned> {
    Ok(Versioned { key: row.get(0)?, value: row.get(1)?, revision: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let next = std::cell::Cell::new(0);
        crate::conformance::run(&|revisions| {
            next.set(next.get() + 1);
            let path = dir.path().join(format!("{}.db", next.get()));
            let options = SqliteOptions { change_log_revisions: revisions };
            Box::new(SqliteStore::open_with(&path, &options).unwrap())
        });
    }

    #[test]
    fn contents_and_revisions_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        let _ = store.txn(&Txn::new().put("b", "2").delete("a")).unwrap();
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.revision().unwrap(), 2);
        assert_eq!(store.get("a").unwrap(), None);
        assert_eq!(store.get("b").unwrap().unwrap().value, b"2");
        let mut watch = store.watch("", 0).unwrap();
        let seen: Vec<_> =
            std::iter::from_fn(|| watch.next_timeout(std::time::Duration::ZERO).unwrap()).collect();
        assert_eq!(seen.len(), 3, "the change log survives too: {seen:?}");
    }

    /// A history longer than one page, with whole transactions on the page boundary.
    #[test]
    fn a_long_history_is_read_in_pages_of_whole_revisions() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        for round in 0..HISTORY_PAGE / 10 {
            let mut txn = Txn::new();
            for n in 0..30 {
                txn = txn.put(format!("k/{n}"), format!("{round}"));
            }
            let _ = store.txn(&txn).unwrap();
        }
        let mut watch = store.watch("k/", 0).unwrap();
        let mut seen = 0;
        let mut last = 0;
        while let Some(event) = watch.next_timeout(std::time::Duration::ZERO).unwrap() {
            assert!(event.revision >= last);
            last = event.revision;
            seen += 1;
        }
        assert_eq!(seen, HISTORY_PAGE / 10 * 30);
    }

    #[test]
    fn a_full_disk_loses_nothing_and_is_got_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        let limit = |pages: u32| {
            let writer = store.shared.writer.lock().unwrap();
            let _: u32 =
                writer.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0)).unwrap();
        };
        limit(1);
        let big = Txn::new().put("a", "2").put("b", vec![0; 60_000]);
        assert_eq!(store.txn(&big).unwrap_err().kind(), crate::ErrorKind::Full);
        assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
        assert_eq!(store.revision().unwrap(), 1);
        limit(100_000);
        assert_eq!(store.txn(&big).unwrap(), Outcome::Committed { revision: 2 });
    }

    #[test]
    fn deferred_commits_are_synced_when_each_is_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        let mode = |store: &SqliteStore| -> u32 {
            let writer = store.shared.writer.lock().unwrap();
            writer.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(mode(&store), 2, "FULL");
        store.set_durability(Durability::Deferred).unwrap();
        assert_eq!(mode(&store), 1, "NORMAL");
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        // The log is what is to be synced.
        let wal = std::fs::read(&store.shared.wal).unwrap();
        assert!(wal.len() > 4096);
        store.set_durability(Durability::EachCommit).unwrap();
        assert_eq!(mode(&store), 2);
        let _ = store.txn(&Txn::new().put("b", "2")).unwrap();
        // One that cannot be synced must not be written to: what was said to be committed may be lost.
        store.set_durability(Durability::Deferred).unwrap();
        drop(store);
        let mut store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.revision().unwrap(), 2);
        Arc::get_mut(&mut store.shared).unwrap().wal = dir.path().join("none");
        assert_eq!(
            store.set_durability(Durability::EachCommit).unwrap_err().kind(),
            crate::ErrorKind::Backend
        );
        assert_eq!(store.txn(&Txn::new().put("a", "1")).unwrap_err().kind(), crate::ErrorKind::Stopped);
    }

    #[test]
    fn after_a_failed_commit_nothing_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        store.shared.stopped.store(true, Ordering::Release);
        assert_eq!(store.txn(&Txn::new().put("a", "1")).unwrap_err().kind(), crate::ErrorKind::Stopped);
        assert_eq!(store.get("a").unwrap(), None, "reading goes on");
    }
}
