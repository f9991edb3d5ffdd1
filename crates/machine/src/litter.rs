//! Files that no record names, written down so that a death leaves none of them behind.
//!
//! A file and the record that names it cannot come or go at once. Whoever makes files first and the record after, or
//! removes the record first and the files after, writes the files down under `litter/<id>`: before the first is made, or
//! in the transaction that takes their record away. The transaction that names new files strikes them out. What is still
//! written down when a host opens is removed then.
//!
//! Files of jobs are not listed here: a job's own undo knows them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use store::{Condition, Operation};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::record;

/// Prefix of the keys.
const LITTER: &str = "litter/";

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Listed {
    /// Version of this record's shape; 1.
    version: u32,
    /// Files and whole directories to remove.
    paths: Vec<PathBuf>,
    /// Files below those directories that stay.
    #[serde(default)]
    kept: Vec<PathBuf>,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

/// The files that one change of records makes or takes away.
///
/// When this is dropped, files that were made for a change that did not come about are removed, and so are those whose
/// record is gone. Where nobody knows whether the change came about, that is left to the next start, which does.
pub(crate) struct Litter<'a> {
    host: &'a Host,
    made: List,
    doomed: List,
    committed: bool,
}

/// One line in the store.
struct List {
    key: String,
    listed: Listed,
}

impl List {
    fn new() -> Self {
        let listed = Listed { version: 1, ..Listed::default() };
        Self { key: format!("{LITTER}{}", Uuid::new_v4()), listed }
    }

    fn put(&self) -> Result<Operation> {
        record::put(self.key.clone(), &self.listed)
    }

    fn is_empty(&self) -> bool {
        self.listed.paths.is_empty()
    }
}

impl<'a> Litter<'a> {
    /// Nothing yet.
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, made: List::new(), doomed: List::new(), committed: false }
    }

    /// Writes `path` down, durably, before it is made. What lies in a directory that is listed needs no line of its own.
    ///
    /// # Errors
    /// The store fails; then nothing may be made.
    pub(crate) fn make(&mut self, path: &Path) -> Result<()> {
        if self.made.listed.paths.iter().any(|listed| path.starts_with(listed)) {
            return Ok(());
        }
        self.made.listed.paths.push(path.to_owned());
        record::commit(&*self.host.store, vec![], vec![self.made.put()?])?;
        Ok(())
    }

    /// Names files and whole directories whose record the change takes away, but for what lies below them and is `kept`.
    pub(crate) fn doom(&mut self, paths: Vec<PathBuf>, kept: Vec<PathBuf>) {
        self.doomed.listed.paths = paths;
        self.doomed.listed.kept = kept;
    }

    /// Runs `operations` if `conditions` hold, and with them what is to be known of the files; whether they held.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn commit(
        &mut self,
        conditions: Vec<Condition>,
        mut operations: Vec<Operation>,
    ) -> Result<bool> {
        if !self.made.is_empty() {
            operations.push(Operation::Delete(self.made.key.clone()));
        }
        if !self.doomed.is_empty() {
            operations.push(self.doomed.put()?);
        }
        let outcome = record::commit(&*self.host.store, conditions, operations);
        if !matches!(outcome, Ok(false)) {
            // Named by their record now, or perhaps: a failed commit may be on disk all the same.
            self.made.listed.paths.clear();
        }
        self.committed = matches!(outcome, Ok(true));
        outcome
    }
}

impl Drop for Litter<'_> {
    fn drop(&mut self) {
        if !self.made.is_empty() {
            remove(self.host, &self.made.key, &self.made.listed);
        }
        if self.committed && !self.doomed.is_empty() {
            remove(self.host, &self.doomed.key, &self.doomed.listed);
        }
    }
}

impl Host {
    /// Removes what an earlier process wrote down and did not come to remove.
    pub(crate) fn sweep(&self) -> Result<()> {
        for found in self.store.range(LITTER, None, MAX_AT_ONCE).map_err(record::failed)? {
            match serde_json::from_slice(&found.value) {
                Ok(listed) => remove(self, &found.key, &listed),
                Err(e) => tracing::warn!(key = found.key, "cannot be read: {e}"),
            }
        }
        Ok(())
    }
}

/// More than a dying process can leave; the rest goes at a later start.
const MAX_AT_ONCE: usize = 1000;

/// Removes the files, then the line about them. What cannot be removed stays written down.
fn remove(host: &Host, key: &str, listed: &Listed) {
    let gone = listed.paths.iter().try_for_each(|path| {
        remove_but(path, &listed.kept).map_err(|e| Error::io("remove", path, e))?;
        // The line must not be gone for good before the file is.
        match path.parent().map(|above| host.sync_directory(above)) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("sync directory", path, e)),
            _ => Ok(()),
        }
    });
    let struck =
        gone.and_then(|()| record::commit(&*host.store, vec![], vec![Operation::Delete(key.to_owned())]));
    if let Err(e) = struck {
        tracing::warn!("left for the next start: {}", e.chain());
    }
}

/// Removes `path` and what is below it, but for the `kept` files and the directories they are in.
fn remove_but(path: &Path, kept: &[PathBuf]) -> io::Result<()> {
    let absent = |e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) };
    if kept.iter().any(|k| k == path) {
        return Ok(());
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_dir() => fs::remove_file(path).or_else(absent),
        Ok(_) if kept.iter().any(|k| k.starts_with(path)) => {
            fs::read_dir(path)?.try_for_each(|entry| remove_but(&entry?.path(), kept))
        }
        Ok(_) => fs::remove_dir_all(path).or_else(absent),
        Err(e) => absent(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_with_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("disks/more")).unwrap();
        fs::create_dir_all(home.join("logs")).unwrap();
        for name in ["vars.fd", "disks/a.raw", "disks/b.raw", "logs/serial.log"] {
            fs::write(home.join(name), name).unwrap();
        }
        let kept = [home.join("disks/a.raw")];
        remove_but(&home, &kept).unwrap();
        assert!(kept[0].exists());
        for name in ["vars.fd", "disks/b.raw", "disks/more", "logs"] {
            assert!(!home.join(name).exists(), "{name}");
        }
        remove_but(&home, &[]).unwrap();
        assert!(!home.exists());
        remove_but(&home, &[]).unwrap();
    }
}
