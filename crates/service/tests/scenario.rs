//! A daemon with a scenario: made once, gone on with after a death, begun anew by a reset; and refused with its reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail as tests do")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rest::client::{Client, ClientError};
use rest::wire::{Advance, Export, Machine, NewFault, Reset, Scenario};
use service::{EngineChoice, ServeError, ServeErrorKind, ServiceOptions, read_scenario, run_until};
use tokio::sync::oneshot;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/lab.toml")
}

fn options(dir: &Path, scenario: Option<PathBuf>) -> ServiceOptions {
    ServiceOptions {
        data: dir.join("data"),
        temporary: false,
        socket: dir.join("s.sock"),
        group: None,
        engine: EngineChoice::Sim,
        ready_file: Some(dir.join("ready")),
        scenario,
        notify_socket: None,
        job_workers: 2,
        job_retention: Duration::from_secs(3600),
        remote: service::Remote::default(),
    }
}

struct Daemon {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ServeError>>,
    client: Client,
    tokio: tokio::runtime::Runtime,
}

impl Daemon {
    fn start(mut options: ServiceOptions) -> Self {
        let notify = options.socket.with_extension("notify");
        let _ = std::fs::remove_file(&notify);
        let told = UnixDatagram::bind(&notify).unwrap();
        options.notify_socket = Some(notify.into());
        let client = Client::new(&options.socket);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            run_until(&options, || async {
                let _ = stopped.await;
            })
        });
        let mut buffer = [0; 256];
        let n = told.recv(&mut buffer).unwrap();
        assert!(buffer[..n].starts_with(b"READY=1"));
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { stop, thread, client, tokio }
    }

    fn ask<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> T {
        self.tokio.block_on(work(&self.client)).unwrap()
    }

    fn machines(&self) -> Vec<Machine> {
        self.ask(async |c| c.machines().await)
    }

    fn advance(&self, ms: u64) {
        self.ask(async |c| c.advance(&Advance { ms }).await);
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn the_example_comes_up_the_same_each_time_and_behaves_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let play = || {
        let daemon = Daemon::start(options(dir.path(), Some(example())));
        let names: Vec<_> = daemon.machines().into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["db", "web", "worker-1", "worker-2", "worker-3"]);
        daemon.advance(5000);
        let log = daemon.ask(async |c| c.console("web").await).serial_log.unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.starts_with("GUEST-READY up=2.00") && log.ends_with("COUNTER 3\r\n"), "{log}");
        daemon.ask(async |c| c.act("db", "start").await);
        daemon.ask(async |c| c.act("db", "stop").await);
        let refused = daemon.tokio.block_on(daemon.client.act("db", "start")).unwrap_err();
        assert!(refused.to_string().contains("cannot set up guest memory"), "{refused}");
        daemon.advance(55_000);
        let web = daemon.ask(async |c| c.machine("web").await);
        assert_eq!((web.state.as_str(), web.note.as_deref()), ("off", Some("killed by signal 9")));
        assert!(web.created.starts_with("2025-01-01T00:00:00"), "{}", web.created);
        let seen = (daemon.machines(), daemon.ask(async |c| c.switches().await), log);
        let simulator = daemon.ask(async |c| c.reset_simulator(&Reset::default()).await);
        assert_eq!((simulator.clock.elapsed_ms, simulator.guests.len()), (0, 1));
        let anew = (daemon.machines(), daemon.ask(async |c| c.switches().await));
        daemon.stop();
        std::fs::remove_dir_all(dir.path().join("data")).unwrap();
        std::fs::remove_dir_all(dir.path().join("s.guests")).unwrap();
        (seen, anew)
    };
    let first = play();
    assert_eq!(first, play());
    // A reset makes the very machines of the beginning: all but what the clock and the guests have done since.
    let ids = |machines: &[Machine]| -> Vec<_> {
        machines.iter().map(|m| (m.id, m.disks.clone(), m.adapters.clone())).collect()
    };
    assert_eq!(ids(&first.0.0), ids(&first.1.0));
    assert_eq!(first.0.1, first.1.1, "the switches too");
}

#[test]
fn a_daemon_that_comes_back_goes_on_and_another_scenario_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(options(dir.path(), Some(example())));
    daemon.advance(3000);
    daemon.ask(async |c| c.delete_machine("worker-2", false).await);
    daemon.stop();
    let daemon = Daemon::start(options(dir.path(), Some(example())));
    assert_eq!(daemon.machines().len(), 4, "what was deleted stays so");
    let simulator = daemon.ask(async |c| c.simulator().await);
    assert_eq!((simulator.clock.elapsed_ms, simulator.guests[0].counter), (3000, 1));
    daemon.stop();
    let other = dir.path().join("other.json");
    std::fs::write(&other, r#"{"seed": 7, "machines": [{"name": "x"}]}"#).unwrap();
    let error = run_until(&options(dir.path(), Some(other.clone())), std::future::pending::<()>).unwrap_err();
    assert!(machine::chain(&error).contains("another scenario") && error.hint_text().is_some());
    // Without one it serves what is there, and takes the other by a reset.
    let daemon = Daemon::start(options(dir.path(), None));
    let scenario: Scenario = read_scenario(&other).unwrap();
    daemon.ask(async |c| c.reset_simulator(&Reset { scenario: Some(scenario) }).await);
    assert_eq!(daemon.machines()[0].name, "x");
    daemon.stop();
}

#[test]
fn a_stalled_export_goes_on_and_verifies_when_the_fault_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(options(dir.path(), Some(example())));
    daemon.ask(async |c| c.act("web", "stop").await);
    let directory = dir.path().join("out");
    let export = Export { directory: directory.clone(), ..Export::default() };
    let id = daemon.ask(async |c| c.export("web", &export).await).to_string();
    let mut job = daemon.ask(async |c| c.job(&id).await);
    while job.percent < 40 {
        job = daemon.ask(async |c| c.job_after(&id, job.generation, 60).await);
    }
    assert_eq!((job.percent, job.finished), (40, false));
    assert!(!directory.exists());
    daemon.ask(async |c| c.clear_faults(None).await);
    while !job.finished {
        job = daemon.ask(async |c| c.job_after(&id, job.generation, 60).await);
    }
    assert!(job.success, "{job:?}");
    let manifest = std::fs::read_to_string(directory.join("Slipway/manifest.json")).unwrap();
    assert!(manifest.contains("\"created\": \"2025-01-01T00:00:00Z\""), "{manifest}");
    // And one that fails, and one that hangs while everything is begun anew.
    let fail = rest::wire::FaultFailure { kind: "no-space".into(), message: "on purpose".into() };
    let fault =
        NewFault { job: Some("export".into()), percent: Some(70), fail: Some(fail), ..NewFault::default() };
    daemon.ask(async |c| c.add_fault(&fault).await);
    let export = Export { directory: dir.path().join("second"), ..Export::default() };
    let id = daemon.ask(async |c| c.export("web", &export).await).to_string();
    let mut job = daemon.ask(async |c| c.job(&id).await);
    while !job.finished {
        job = daemon.ask(async |c| c.job_after(&id, job.generation, 60).await);
    }
    assert_eq!(job.error.unwrap().id, "no-space");
    let stall = NewFault { job: Some("any".into()), stall: true, ..NewFault::default() };
    daemon.ask(async |c| c.add_fault(&stall).await);
    let export = Export { directory: dir.path().join("third"), ..Export::default() };
    daemon.ask(async |c| c.export("web", &export).await);
    daemon.ask(async |c| c.reset_simulator(&Reset::default()).await);
    assert!(daemon.ask(async |c| c.jobs(&Default::default()).await).is_empty());
    daemon.stop();
}

#[test]
fn a_machine_that_begins_saved_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.toml");
    std::fs::write(&file, "[[machines]]\nname = \"web\"\nstate = \"saved\"\n").unwrap();
    let daemon = Daemon::start(options(dir.path(), Some(file)));
    assert_eq!(daemon.machines()[0].state, "saved");
    assert_eq!(daemon.ask(async |c| c.simulator().await).guests.len(), 0);
    let web = daemon.ask(async |c| c.act("web", "start").await);
    assert_eq!(web.state, "running");
    // It was ready before it was saved, so it does not say so again.
    daemon.advance(2000);
    let log = daemon.ask(async |c| c.console("web").await).serial_log.unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.ends_with("COUNTER 2\r\n") && !log.contains("GUEST-READY"), "{log}");
    daemon.stop();
}

#[test]
fn a_scenario_with_a_mistake_is_refused_with_its_place_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, said) in [
        ("a.toml", "seed = 1\n[[machines]]\nname = \"a\"\ncolour = 1\n", "line 4"),
        ("a.json", "{\n \"machines\": [{\"name\": \"a\", \"colour\": 1}]}", "line 2"),
        ("b.toml", "[[machines]]\nname = \"a\"\ngeneration = 3\n", "machine `a`"),
        ("c.toml", "[[machines]]\nname = \"a\"\n[[machines]]\nname = \"a\"\n", "two machines"),
        ("d.toml", "[[machines]]\nname = \"a\"\ncount = 20000\n", "at most"),
        ("e.toml", "[[faults]]\noperation = \"start\"\n", "fault 1"),
        ("f.toml", "[[events]]\nmachine = \"a\"\nevent = \"melt\"\n", "event 1"),
        ("g.toml", "[clock]\nstart = \"yesterday\"\n", "clock.start"),
        ("i.toml", "[[machines]]\nname = \"a\"\nstate = \"asleep\"\n", "`state`"),
        ("h.toml", "[guests]\ntick_ms = 1\n", "tick"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let error = run_until(&options(dir.path(), Some(path)), std::future::pending::<()>).unwrap_err();
        let message = machine::chain(&error);
        assert_eq!(error.kind(), ServeErrorKind::Scenario, "{name}: {message}");
        assert!(message.contains(said), "{name}: {message}");
        assert!(!dir.path().join("data").exists(), "{name}");
    }
    let missing = options(dir.path(), Some(dir.path().join("none.toml")));
    assert_eq!(run_until(&missing, std::future::pending::<()>).unwrap_err().kind(), ServeErrorKind::Scenario);
    let qemu = ServiceOptions { engine: EngineChoice::Qemu, ..options(dir.path(), Some(example())) };
    assert_eq!(run_until(&qemu, std::future::pending::<()>).unwrap_err().kind(), ServeErrorKind::Scenario);
}
