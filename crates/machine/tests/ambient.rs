//! The same requests make the same machines when ids and time do not come from chance, and a gate stops any kind of job.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::export::ExportRequest;
use machine::report::HostFacts;
use machine::settings::Generation;
use machine::switch::SwitchKind;
use machine::{Ambient, Host, HostOptions, Reason};
use support::{MIB, PATIENCE, blank, import_of};
use uuid::Uuid;

fn host(root: &Path, gate: Option<Arc<dyn job::Gate>>) -> Arc<Host> {
    let next = AtomicU64::new(0);
    let ids = move || Uuid::from_u128(u128::from(next.fetch_add(1, Ordering::Relaxed)) << 64);
    Host::open_in(
        HostOptions {
            data: root.join("data"),
            runtime: root.join("run"),
            store: Arc::new(store::MemoryStore::new()),
            engine: Arc::new(engine::SimEngine::new()),
            facts: Some(HostFacts { uefi: true, ..HostFacts::of_this_host() }),
            jobs: job::Options::default(),
            boot: None,
        },
        Ambient { ids: Arc::new(ids), clock: Arc::new(job::ManualClock::new()), gate, ..Ambient::default() },
    )
    .unwrap()
}

fn request(generation: Generation) -> DefineRequest {
    DefineRequest {
        disks: vec![NewDisk::Empty { size: MIB, sector: 0 }, NewDisk::Empty { size: 2 * MIB, sector: 0 }],
        dvd: Some(None),
        adapters: vec!["lab".into(), String::new()],
        ..blank("web", generation)
    }
}

#[test]
fn the_same_requests_make_the_same_machines_and_jobs() {
    let scratch = support::scratch();
    // One place for both: a package says where it lies.
    let root = scratch.path().join("root");
    let play = || {
        let host = host(&root, None);
        host.create_switch("lab", SwitchKind::Private).unwrap();
        for generation in [Generation::One, Generation::Two] {
            let id = host.define(&request(generation)).unwrap().record.id;
            let edit = MachineEdit {
                add_disks: vec![NewDisk::Empty { size: MIB, sector: 0 }],
                ..MachineEdit::default()
            };
            host.edit(id, &edit).unwrap();
            let package = root.join(id.to_string());
            let job = host.export(id, &ExportRequest::new(package.clone()), "me").unwrap();
            assert!(host.jobs().wait(job::JobId(job), PATIENCE).unwrap().state.is_success());
            let import = machine::planned::ImportRequest { new_id: true, ..import_of(package) };
            let planned = host.import(&import).unwrap().record.id;
            let job = host.realize(planned, "me").unwrap();
            assert!(host.jobs().wait(job::JobId(job), PATIENCE).unwrap().state.is_success());
        }
        let seen = (host.machines().unwrap(), host.switches().unwrap());
        let jobs: Vec<_> =
            host.jobs().list(&job::Filter::default()).iter().map(|j| (j.id, j.submitted)).collect();
        std::fs::remove_dir_all(&root).unwrap();
        serde_json::to_string_pretty(&(seen, jobs)).unwrap()
    };
    let first = play();
    assert!(first.contains("2025-01-01T00:00:00Z"), "{first}");
    let second = play();
    for (one, other) in first.lines().zip(second.lines()) {
        assert_eq!(one, other);
    }
    assert_eq!(first, second);
}

/// Fails whatever comes to half.
struct Half;

impl job::Gate for Half {
    fn stop(&self, _: &job::Passing<'_>, reached: u8, coming: u8) -> Option<u8> {
        (coming >= 50).then_some(50.max(reached))
    }

    fn stand(&self, job: &job::Passing<'_>, _: u8, _: &dyn Fn() -> bool) -> Result<(), job::Failure> {
        Err(job::Failure::new(
            Reason::NoSpace.id(),
            format!("{} of {}", job.kind, job.subject.unwrap_or("-")),
        ))
    }
}

#[test]
fn a_gate_stops_an_export_and_what_it_had_done_is_undone() {
    let root = support::scratch();
    let host = host(root.path(), Some(Arc::new(Half)));
    host.create_switch("lab", SwitchKind::Private).unwrap();
    let id = host.define(&request(Generation::Two)).unwrap().record.id;
    let target = root.path().join("out");
    let job = host.export(id, &ExportRequest::new(target.clone()), "me").unwrap();
    let status = host.jobs().wait(job::JobId(job), PATIENCE).unwrap();
    let error = status.error.unwrap();
    assert_eq!((error.id.as_str(), error.message), ("no-space", format!("export of {id}")));
    assert!(!target.exists(), "no package looks complete that is not");
    host.delete(id, false).unwrap();
}
