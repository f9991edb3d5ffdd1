//! A machine's life on the simulated engine: what each state admits, what guests do by themselves, and a daemon that
//! comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::num::NonZero;
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::Duration;

use engine::{Guest, GuestEvent, HostReport};
use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::export::ExportRequest;
use machine::power::PowerState;
use machine::report::HostFacts;
use machine::settings::Generation;
use machine::{Host, HostOptions, Reason};
use support::{Lab, MIB, PATIENCE, Package, blank, content, leaf};
use uuid::Uuid;

fn lab_with_machine() -> (Lab, Uuid) {
    let lab = Lab::new();
    let request = DefineRequest {
        disks: vec![NewDisk::Empty { size: MIB, sector: 0 }],
        dvd: Some(None),
        ..blank("web", Generation::Two)
    };
    let id = lab.host().define(&request).unwrap().record.id;
    (lab, id)
}

fn power(lab: &Lab, id: Uuid) -> PowerState {
    lab.host().machine(id).unwrap().power
}

type Ask = fn(&Arc<Host>, Uuid) -> machine::Result<()>;

const SHORT: Duration = Duration::from_millis(1);

const ASKS: [(&str, Ask); 10] = [
    ("start", |host, id| host.start(id)),
    ("stop", |host, id| host.stop(id)),
    ("shutdown", |host, id| host.shutdown(id, SHORT)),
    ("save", |host, id| host.save(id, "test").map(drop)),
    ("pause", |host, id| host.pause(id)),
    ("resume", |host, id| host.resume(id)),
    ("reset", |host, id| host.reset(id)),
    ("edit", |host, id| {
        host.edit(id, &MachineEdit { processors: Some(2), ..MachineEdit::default() }).map(drop)
    }),
    ("export", |host, id| {
        let dir = host.machine(id)?.record.home.join("out");
        host.export(id, &ExportRequest::new(dir), "test").map(drop)
    }),
    ("delete", |host, id| host.delete(id, false).map(drop)),
];

#[test]
fn a_whole_life() {
    let (lab, id) = lab_with_machine();
    let host = lab.host();
    for round in 1..=20_u64 {
        host.start(id).unwrap();
        let view = host.machine(id).unwrap();
        assert_eq!((view.power, view.record.run_generation), (PowerState::Running, round));
        assert_eq!(view.accelerator.as_deref(), Some("tcg"));
        assert!(view.record.wanted_running && view.record.resolved.is_some());
        // At once after each other: a late event must not undo what was just done.
        host.pause(id).unwrap();
        host.resume(id).unwrap();
        host.pause(id).unwrap();
        host.resume(id).unwrap();
        host.reset(id).unwrap();
        if round % 2 == 0 {
            host.stop(id).unwrap();
        } else {
            host.shutdown(id, PATIENCE).unwrap();
        }
        let view = host.machine(id).unwrap();
        assert_eq!((view.power, view.note, view.accelerator), (PowerState::Off, None, None));
        assert!(!view.record.wanted_running, "round {round}");
    }
    host.delete(id, false).unwrap();
    assert_eq!(host.machine(id).unwrap_err().reason(), Reason::NotFound);
    assert!(support::listing(&lab.path("data/machines")).is_empty());
    assert!(host.disks().unwrap().is_empty());
}

#[test]
fn hardware_versions_are_fixed_at_the_first_start() {
    let (lab, id) = lab_with_machine();
    lab.host().start(id).unwrap();
    let first = lab.host().machine(id).unwrap().record.resolved.unwrap();
    lab.host().edit(id, &MachineEdit { name: Some("other".into()), ..MachineEdit::default() }).unwrap();
    lab.host().stop(id).unwrap();
    lab.host().start(id).unwrap();
    let record = lab.host().machine(id).unwrap().record;
    assert_eq!(record.resolved.unwrap(), first);
    assert_eq!(lab.host().guest(id).unwrap().spec().machine_version.as_ref(), Some(&first.machine_version));
    assert_eq!(record.settings.name, "other");
}

#[test]
fn a_guest_that_does_not_obey_runs_on_and_says_so() {
    let (lab, id) = lab_with_machine();
    lab.host().start(id).unwrap();
    lab.sim.control(id).unwrap().obeys_shutdown(false);
    let error = lab.host().shutdown(id, SHORT).unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
    assert!(error.hint_text().unwrap().contains("stop"));
    assert_eq!(power(&lab, id), PowerState::Running);
    lab.host().pause(id).unwrap();
    lab.host().resume(id).unwrap();
    lab.host().stop(id).unwrap();
}

#[test]
fn what_a_guest_does_by_itself_is_noticed() {
    let (lab, id) = lab_with_machine();
    let host = lab.host();
    let start = || {
        host.start(id).unwrap();
        lab.sim.control(id).unwrap()
    };
    let off = || {
        assert!(host.wait_for(id, PowerState::Off, PATIENCE));
        let view = host.machine(id).unwrap();
        assert_eq!(host.guest(id).err().map(|e| e.reason()), Some(Reason::InvalidState));
        (view.note, view.record.wanted_running)
    };
    start().shut_down();
    assert_eq!(off(), (Some("the guest shut down by itself".into()), false), "it wanted to be off");
    start().kernel_panic();
    assert_eq!(off(), (Some("the guest panicked".into()), true));
    start().crash("killed by signal 9");
    assert_eq!(off(), (Some("killed by signal 9".into()), true));
    start().disk_error("disk0", "No space left on device");
    assert!(host.wait_for(id, PowerState::Paused, PATIENCE));
    let mut seen = 0;
    let note = loop {
        if let Some(note) = host.machine(id).unwrap().note {
            break note;
        }
        seen = host.machine_changes(seen, PATIENCE).generation;
    };
    assert!(note.contains("disk0") && note.contains("No space left"), "{note}");
    host.resume(id).unwrap();
    host.stop(id).unwrap();
    start();
    assert_eq!(host.machine(id).unwrap().note, None, "old notes do not stay");
}

#[test]
fn watchers_are_told() {
    let (lab, id) = lab_with_machine();
    let mut seen = lab.host().machine_changes(0, Duration::ZERO).generation;
    let mut next = |state: Option<PowerState>| loop {
        let changes = lab.host().machine_changes(seen, PATIENCE);
        seen = changes.generation;
        let change = changes.machines.iter().find(|c| c.id == id).expect("told in time");
        if change.power == state {
            return;
        }
    };
    lab.host().start(id).unwrap();
    next(Some(PowerState::Running));
    lab.sim.control(id).unwrap().crash("gone");
    next(Some(PowerState::Off));
    lab.host().wait_for(id, PowerState::Off, PATIENCE);
    lab.host().delete(id, false).unwrap();
    next(None);
}

#[test]
fn a_start_that_fails_leaves_the_machine_off() {
    let (lab, id) = lab_with_machine();
    let disk = leaf(&lab.host().machine(id).unwrap(), 0).to_owned();
    fs::rename(&disk, lab.path("aside")).unwrap();
    let error = lab.host().start(id).unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(error.chain().contains(&*disk.to_string_lossy()));
    let view = lab.host().machine(id).unwrap();
    assert_eq!((view.power, view.record.run_generation), (PowerState::Off, 0));
    fs::rename(lab.path("aside"), &disk).unwrap();
    lab.host().start(id).unwrap();
}

#[test]
fn a_machine_is_busy_while_it_is_exported() {
    let lab = Lab::new();
    let package =
        Package::new(lab.path("package"), Generation::Two).vhdx("d.vhdx", &content(1, 4 * MIB)).write();
    let id = lab.import(&package.request()).record.id;
    let request = ExportRequest { rate_limit: NonZero::new(64 << 10), ..ExportRequest::new(lab.path("out")) };
    let job = lab.host().export(id, &request, "test").unwrap();
    assert_eq!(lab.host().machine(id).unwrap().job, Some(job));
    for (name, ask) in ASKS {
        let error = ask(lab.host(), id).unwrap_err();
        let changes = ["start", "edit", "export", "delete"].contains(&name);
        let expected = if changes { Reason::Busy } else { Reason::InvalidState };
        assert_eq!(error.reason(), expected, "{name}: {}", error.chain());
        assert!(!changes || error.hint_text().unwrap().contains(&job.to_string()));
    }
    lab.host().jobs().cancel(job::JobId(job)).unwrap();
    lab.job(job);
    assert_eq!(lab.host().machine(id).unwrap().job, None);
    lab.host().start(id).unwrap();
}

#[test]
fn many_at_once_get_one_guest() {
    let (lab, id) = lab_with_machine();
    for _ in 0..20 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| lab.host().start(id))).collect();
            asked.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        for e in results.into_iter().filter_map(Result::err) {
            assert!(matches!(e.reason(), Reason::InvalidState | Reason::Busy), "{}", e.chain());
        }
        assert_eq!(power(&lab, id), PowerState::Running);
        std::thread::scope(|scope| {
            let stops: Vec<_> = (0..4).map(|_| scope.spawn(|| lab.host().stop(id))).collect();
            assert_eq!(stops.into_iter().map(|t| t.join().unwrap()).filter(Result::is_ok).count(), 1);
        });
        assert_eq!(power(&lab, id), PowerState::Off);
    }
}

#[test]
fn a_start_and_an_export_at_once_never_both_happen() {
    let (lab, id) = lab_with_machine();
    for round in 0..30 {
        let target = lab.path(&format!("out{round}"));
        let (started, exported) = std::thread::scope(|scope| {
            let start = scope.spawn(|| lab.host().start(id));
            let export = scope.spawn(|| lab.host().export(id, &ExportRequest::new(target), "test"));
            (start.join().unwrap(), export.join().unwrap())
        });
        assert!(started.is_ok() || exported.is_ok());
        if let Ok(job) = exported {
            // The start came after the export, if at all.
            assert!(lab.job(job).state.is_success());
        }
        if started.is_ok() {
            lab.host().stop(id).unwrap();
        }
    }
}

#[test]
fn a_daemon_that_comes_back_finds_its_guests() {
    let (mut lab, running) = lab_with_machine();
    let define = |name| lab.host().define(&blank(name, Generation::One)).unwrap().record.id;
    let (paused, off, gone) = (define("paused"), define("off"), define("gone"));
    for id in [running, paused, gone] {
        lab.host().start(id).unwrap();
    }
    lab.host().pause(paused).unwrap();
    let before = lab.host().machine(running).unwrap().record;
    lab.reopen();
    assert_eq!(power(&lab, off), PowerState::Off);
    assert_eq!(power(&lab, running), PowerState::Running);
    assert_eq!(lab.host().machine(running).unwrap().record, before);
    // The engine's first word after an attach does not make a paused guest run.
    for _ in 0..100 {
        assert_eq!(power(&lab, paused), PowerState::Paused);
        std::thread::yield_now();
    }
    lab.host().resume(paused).unwrap();
    let twice = lab.host().start(running).unwrap_err();
    assert_eq!(twice.reason(), Reason::InvalidState);
    // It hears of what happens from now on.
    lab.sim.control(gone).unwrap().crash("later");
    assert!(lab.host().wait_for(gone, PowerState::Off, PATIENCE));
    lab.host().shutdown(running, PATIENCE).unwrap();
    lab.host().stop(paused).unwrap();
    lab.reopen();
    for id in [running, paused, off] {
        assert_eq!(power(&lab, id), PowerState::Off);
        lab.host().start(id).unwrap();
    }
    // Nobody wanted it off.
    assert!(lab.host().wait_for(gone, PowerState::Running, PATIENCE));
}

#[test]
fn a_daemon_that_comes_back_knows_its_jobs() {
    let mut lab = Lab::new();
    let package =
        Package::new(lab.path("package"), Generation::Two).vhdx("d.vhdx", &content(1, 10 * MIB)).write();
    let id = lab.import(&package.request()).record.id;
    let done = lab.host().export(id, &ExportRequest::new(lab.path("done")), "me").unwrap();
    let before = lab.job(done);
    // The first piece that is copied costs nothing; the disk has several.
    let slow = ExportRequest { rate_limit: NonZero::new(4 << 20), ..ExportRequest::new(lab.path("slow")) };
    let slow = lab.host().export(id, &slow, "me").unwrap();
    while !transfer::writer::partial_path(&lab.path("slow")).exists() {
        assert!(!lab.path("slow").exists(), "it is over already");
        std::thread::yield_now();
    }
    // As at a restart of the daemon: told to stop, waited for, opened again.
    assert!(lab.host().jobs().shutdown(PATIENCE).is_empty());
    lab.reopen();
    assert_eq!(lab.host().start(id).unwrap_err().reason(), Reason::Busy);
    let after = lab.job(done);
    assert_eq!((after.state, after.output, after.owner), (before.state, before.output, before.owner));
    assert!(lab.job(slow).state.is_success(), "it went on");
    assert!(transfer::verify::verify(&lab.path("slow"), &Default::default()).unwrap().is_good());
    lab.host().start(id).unwrap();
}

/// What came of a guest's events, and where they go.
type Held = (mpsc::Receiver<GuestEvent>, Box<dyn engine::Listener>);

/// An engine in which the last of one guest is heard only while the next one is being made.
#[derive(Default)]
struct Late {
    sim: engine::sim::SimEngine,
    host: OnceLock<Weak<Host>>,
    /// Events of the last guest: what came in, and where it goes.
    held: Mutex<Option<Held>>,
    /// What the machine was doing when the earlier guest's end had been heard.
    seen: Mutex<Vec<PowerState>>,
}

impl Late {
    /// Lets through what the guest said so far, but not that there will be no more.
    fn pass(&self) {
        if let Some((inbox, out)) = &*self.held.lock().unwrap() {
            inbox.try_iter().for_each(|event| out.hear(event));
        }
    }
}

impl engine::Engine for Late {
    fn start(
        &self,
        spec: &engine::GuestSpec,
        events: Box<dyn engine::Listener>,
    ) -> Result<Box<dyn Guest>, engine::StartError> {
        let host = self.host.get().unwrap();
        let had = host.weak_count();
        if self.held.lock().unwrap().take().is_some() {
            // Whoever hears it holds the host weakly until it has heard the end.
            while host.weak_count() == had {
                std::thread::yield_now();
            }
            let power = host.upgrade().unwrap().machine(spec.id).unwrap().power;
            self.seen.lock().unwrap().push(power);
        }
        let (sender, inbox) = mpsc::channel();
        *self.held.lock().unwrap() = Some((inbox, events));
        self.sim.start(spec, Box::new(sender))
    }

    fn restore(
        &self,
        spec: &engine::GuestSpec,
        state: &std::path::Path,
        events: Box<dyn engine::Listener>,
    ) -> Result<Box<dyn Guest>, engine::StartError> {
        self.sim.restore(spec, state, events)
    }

    fn attach(
        &self,
        runtime_dir: &std::path::Path,
        events: Box<dyn engine::Listener>,
    ) -> Result<Option<Box<dyn Guest>>, engine::AttachError> {
        self.sim.attach(runtime_dir, events)
    }

    fn probe(&self) -> HostReport {
        self.sim.probe()
    }
}

#[test]
fn the_end_of_an_earlier_guest_does_not_end_a_later_one() {
    let root = support::scratch();
    let engine = Arc::new(Late::default());
    let host = Host::open(HostOptions {
        data: root.path().join("data"),
        runtime: root.path().join("run"),
        store: Arc::new(store::MemoryStore::new()),
        engine: Arc::clone(&engine) as Arc<dyn engine::Engine>,
        facts: Some(HostFacts::default()),
        jobs: job::Options::default(),
        boot: None,
    })
    .unwrap();
    engine.host.set(Arc::downgrade(&host)).unwrap();
    let id = host.define(&blank("web", Generation::One)).unwrap().record.id;
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        host.start(id).unwrap();
        let stopping = std::thread::spawn({
            let host = Arc::clone(&host);
            move || host.stop(id)
        });
        while !stopping.is_finished() {
            engine.pass();
            std::thread::yield_now();
        }
        stopping.join().unwrap().unwrap();
    }
    assert_eq!(*engine.seen.lock().unwrap(), [PowerState::Starting; ROUNDS - 1]);
}
