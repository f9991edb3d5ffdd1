//! Many changes with one wait for the disk at their end.
//!
//! Ordinarily a change is on disk when it is answered, and a file before the record that names it: some six waits for a
//! machine that is made. Whoever makes hundreds that are worth nothing before the last one is there, a scenario, waits
//! once ([`Host::in_bulk`]); and for data that is gone with the daemon nobody waits at all
//! ([`crate::Ambient::durability`]).
//!
//! What others are answered meanwhile waits no more either. Files that jobs write, and every package, are synced all the
//! same.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use store::Durability;

use crate::blob::sync_directory;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::record;

/// Whether many changes are being made at once.
#[derive(Default)]
pub(crate) struct Bulk {
    /// Held by whoever makes them.
    hand: Mutex<()>,
    under_way: AtomicBool,
}

/// Ends it, however the work ended.
struct End<'a>(&'a Host);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.bulk.under_way.store(false, Ordering::Release);
    }
}

impl Host {
    /// Does `work` without a wait for the disk at each change. When this returns, everything is on disk, also when the
    /// work failed.
    ///
    /// The death of the process loses nothing. That of the machine before the end leaves records of the first changes
    /// and not of the last, and files that are empty or missing: only for work that is known to have been begun, and is
    /// begun anew then.
    ///
    /// # Errors
    /// Those of `work`; or the disk failed.
    pub fn in_bulk<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.ambient.durability == Durability::Deferred {
            return work();
        }
        let _hand = self.bulk.hand.lock().unwrap_or_else(PoisonError::into_inner);
        let done = {
            let _end = End(self);
            self.bulk.under_way.store(true, Ordering::Release);
            self.store.set_durability(Durability::Deferred).map_err(record::failed)?;
            work()
        };
        let synced = File::open(&self.data).and_then(|data| Ok(rustix::fs::syncfs(data)?));
        self.store.set_durability(Durability::EachCommit).map_err(record::failed)?;
        synced.map_err(|e| Error::io("sync", &self.data, e))?;
        done
    }

    fn hasty(&self) -> bool {
        self.ambient.durability == Durability::Deferred || self.bulk.under_way.load(Ordering::Acquire)
    }

    /// Makes `file` durable, unless that comes later for all.
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.hasty() { Ok(()) } else { file.sync_all() }
    }

    /// Makes what was created and renamed in `path` durable, unless that comes later for all.
    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.hasty() { Ok(()) } else { sync_directory(path) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::*;
    use crate::ambient::Ambient;
    use crate::define::{DefineRequest, NewDisk};
    use crate::error::Reason;
    use crate::host::HostOptions;
    use crate::settings::Generation;
    use crate::support::blank;

    fn open(root: &Path, durability: Durability) -> Arc<Host> {
        let options = HostOptions {
            data: root.join("data"),
            runtime: root.join("run"),
            store: Arc::new(store::SqliteStore::open(&root.join("store.db")).unwrap()),
            engine: Arc::new(engine::SimEngine::new()),
            facts: Some(crate::report::HostFacts::default()),
            jobs: job::Options::default(),
            boot: None,
        };
        Host::open_in(options, Ambient { durability, ..Ambient::default() }).unwrap()
    }

    fn define(host: &Host, name: &str) -> Result<()> {
        let disks = vec![NewDisk::Empty { size: 1 << 20, sector: 0 }];
        host.define(&DefineRequest { disks, ..blank(name, Generation::Two) }).map(drop)
    }

    #[test]
    fn the_disk_is_waited_for_again_however_the_work_ended() {
        let root = tempfile::tempdir().unwrap();
        let host = open(root.path(), Durability::EachCommit);
        host.in_bulk(|| {
            assert!(host.hasty());
            define(&host, "a")
        })
        .unwrap();
        assert!(!host.hasty());
        let failed: Result<()> = host.in_bulk(|| {
            define(&host, "b")?;
            Err(Error::new(Reason::Busy, "on purpose"))
        });
        assert_eq!((failed.unwrap_err().reason(), host.hasty()), (Reason::Busy, false));
        let panicked =
            catch_unwind(AssertUnwindSafe(|| host.in_bulk::<()>(|| std::panic::resume_unwind(Box::new(())))));
        assert!(panicked.is_err() && !host.hasty());
        host.in_bulk(|| define(&host, "c")).unwrap();
        // As after the death of the process.
        let gone = Arc::downgrade(&host);
        drop(host);
        while gone.strong_count() > 0 {
            std::thread::yield_now();
        }
        let host = open(root.path(), Durability::Deferred);
        let names: Vec<_> = host.machines().unwrap().into_iter().map(|m| m.record.settings.name).collect();
        assert_eq!(names, ["a", "b", "c"], "what was made before something failed is kept");
        assert!(host.hasty());
        host.in_bulk(|| define(&host, "d")).unwrap();
        assert!(host.hasty(), "for good");
    }
}
