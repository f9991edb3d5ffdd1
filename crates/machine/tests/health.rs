//! A host that cannot do its work says so.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{QemuConfig, QemuEngine};
use machine::{Host, HostOptions, Reason};
use store::{Error, MemoryStore, Outcome, Store, Txn, Versioned, Watch};

fn host(dir: &std::path::Path, engine: Arc<dyn engine::Engine>, store: Arc<dyn Store>) -> Arc<Host> {
    Host::open(HostOptions {
        data: dir.join("data"),
        runtime: dir.join("run"),
        store,
        engine,
        facts: None,
        jobs: job::Options::default(),
        boot: None,
    })
    .unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// A store that cannot be written while told so.
#[derive(Default)]
struct Stuck(MemoryStore, AtomicBool);

impl Store for Stuck {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        self.0.get(key)
    }
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, Error> {
        self.0.range(prefix, after, limit)
    }
    fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        if self.1.load(Ordering::Acquire) {
            return Err(Error::backend("write", "input/output error"));
        }
        self.0.txn(txn)
    }
    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, Error> {
        self.0.watch(prefix, from_revision)
    }
    fn revision(&self) -> Result<u64, Error> {
        self.0.revision()
    }
}

#[test]
fn a_host_whose_store_cannot_be_written_is_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Stuck::default());
    let host = host(dir.path(), Arc::new(engine::SimEngine::new()), Arc::clone(&store) as Arc<dyn Store>);
    store.1.store(true, Ordering::Release);
    let error = host.health().unwrap_err();
    assert_eq!(error.reason(), Reason::Store);
    assert!(error.to_string().contains("input/output error"), "{error}");
    assert!(host.machines().is_ok(), "reading goes on");
}

#[test]
fn a_host_without_qemu_is_not_healthy_and_says_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let config = QemuConfig { program: Some(dir.path().join("no-qemu")), ..QemuConfig::default() };
    let error = host(dir.path(), Arc::new(QemuEngine::new(config)), memory()).health().unwrap_err();
    assert_eq!(error.reason(), Reason::HostLacks);
    assert!(error.hint_text().is_some());
}

#[test]
fn a_look_is_shared_by_all_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), Arc::new(engine::SimEngine::new()), memory());
    let written = || host.statistics().unwrap().store.transactions;
    host.health().unwrap();
    let before = written();
    for _ in 0..100 {
        host.health().unwrap();
    }
    // A loaded machine may take longer than a look is fresh; it does not take a hundred times as long.
    assert!(written() < before + 100);
}
