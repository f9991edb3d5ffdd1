use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;
use crate::guest::{RunState, ShutdownVia, StoppedBy};
use crate::spec::{DiskBus, DiskSpec, DvdSpec, ImageFormat, LayerSpec, Mac, NicBackend, NicModel, NicSpec};
use crate::{GuestError, GuestErrorKind, PictureFormat};

const SECOND: Duration = Duration::from_secs(1);
const DISK: u64 = 1 << 20;

fn spec(dir: &Path, name: &str) -> GuestSpec {
    let mut spec = GuestSpec::new(Seed(0).id(name), name, dir.join(name), Chipset::Pc);
    let path = dir.join(format!("{name}.raw"));
    fs::File::create(&path).unwrap().set_len(DISK).unwrap();
    spec.disks.push(DiskSpec {
        id: "disk0".into(),
        layers: vec![LayerSpec { path, format: ImageFormat::Raw, read_only: false }],
        bus: DiskBus::Ide,
        slot: 0,
        logical_sector: 512,
        physical_sector: 512,
        read_only: false,
        serial: None,
        boot_index: None,
    });
    spec.drives.push(DvdSpec {
        id: "dvd0".into(),
        bus: DiskBus::Ide,
        slot: 1,
        media: None,
        boot_index: None,
    });
    spec.nics.push(NicSpec {
        id: "nic0".into(),
        model: NicModel::E1000,
        mac: Mac([0, 0x15, 0x5d, 1, 2, 3]),
        backend: NicBackend::User,
        boot_index: None,
    });
    spec
}

fn start(engine: &SimEngine, spec: &GuestSpec) -> (Box<dyn Guest>, mpsc::Receiver<GuestEvent>) {
    let (sender, events) = mpsc::channel();
    (engine.start(spec, Box::new(sender)).unwrap(), events)
}

fn log(spec: &GuestSpec) -> String {
    fs::read_to_string(spec.runtime_dir.join("serial0.log")).unwrap()
}

fn counts(spec: &GuestSpec) -> Vec<u64> {
    log(spec).lines().filter_map(|l| l.strip_prefix("COUNTER ")?.parse().ok()).collect()
}

#[test]
fn a_life_in_order() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let (guest, events) = start(&engine, &spec);
    guest.pause().unwrap();
    guest.pause().unwrap();
    assert_eq!(guest.shutdown().unwrap_err().kind(), GuestErrorKind::WrongState);
    guest.resume().unwrap();
    guest.reset().unwrap();
    assert_eq!(guest.shutdown().unwrap(), ShutdownVia::PowerButton);
    assert!(guest.wait_stopped(Duration::ZERO));
    let seen: Vec<_> = events.iter().collect();
    assert_eq!(
        seen,
        [
            GuestEvent::Started,
            GuestEvent::Paused,
            GuestEvent::Resumed,
            GuestEvent::Reset { by_guest: false },
            GuestEvent::ShutdownRequested,
            GuestEvent::Stopped { by: StoppedBy::Guest }
        ]
    );
    let ready = "GUEST-READY up=0.00 efi=0 sb=- tpm= clk=sim disks=sda:1024, net=eth0,lo, hyp=sim";
    assert_eq!(log(&spec).matches(ready).count(), 2, "once more after the reset: {}", log(&spec));
    assert_eq!(guest.pause().unwrap_err().kind(), GuestErrorKind::Gone);
    guest.power_off().unwrap();
}

#[test]
fn it_refuses_what_a_real_engine_refuses_and_guests_outlive_handles() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let a = spec(tmp.path(), "a");
    let (guest, _) = start(&engine, &a);
    let refused = |spec: &GuestSpec| engine.start(spec, Box::new(mpsc::channel().0)).err().map(|e| e.kind());
    assert_eq!(refused(&a), Some(StartErrorKind::AlreadyRunning));
    let mut b = spec(tmp.path(), "b");
    b.disks[0].layers[0].path.clone_from(&a.disks[0].layers[0].path);
    assert_eq!(refused(&b), Some(StartErrorKind::InUse));
    b.disks[0].layers[0].path = tmp.path().join("none");
    assert_eq!(refused(&b), Some(StartErrorKind::NotFound));
    b.disks.clear();
    b.cpus = 0;
    assert_eq!(refused(&b), Some(StartErrorKind::InvalidSpec));
    let (sender, events) = mpsc::channel();
    let again = engine.clone().attach(&a.runtime_dir, Box::new(sender)).unwrap().unwrap();
    // The handle of before hears nothing any more and cannot silence the one of now.
    drop(guest);
    engine.control(a.id).unwrap().crash("struck by lightning");
    assert_eq!(again.state(), RunState::Stopped);
    assert!(matches!(events.iter().last(), Some(GuestEvent::Died { .. })));
    assert!(engine.attach(&a.runtime_dir, Box::new(mpsc::channel().0)).unwrap().is_none());
    // Its disk is free again.
    start(&engine, &a).0.power_off().unwrap();
}

#[test]
fn a_guest_boots_counts_stands_and_goes_on_by_the_clock() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let behaviour = Behaviour { boot: 2 * SECOND, shutdown: 3 * SECOND, ..Behaviour::default() };
    engine.set_behaviour(spec.id, behaviour).unwrap();
    let (guest, events) = start(&engine, &spec);
    engine.advance(SECOND).unwrap();
    assert_eq!(log(&spec), "", "still booting");
    engine.advance(3 * SECOND).unwrap();
    assert!(log(&spec).starts_with("GUEST-READY up=2.00"));
    assert_eq!(counts(&spec), [1, 2]);
    engine.advance(SECOND / 2).unwrap();
    guest.pause().unwrap();
    engine.advance(60 * SECOND).unwrap();
    assert_eq!(counts(&spec), [1, 2]);
    guest.resume().unwrap();
    engine.advance(SECOND / 2).unwrap();
    assert_eq!(counts(&spec), [1, 2, 3], "half a tick before, half after");
    let view = &engine.guests()[0];
    assert_eq!((view.ready, view.counter, view.uptime), (true, 3, 5 * SECOND));

    engine.set_behaviour(spec.id, Behaviour { tick: SECOND / 4, ..behaviour }).unwrap();
    engine.advance(SECOND).unwrap();
    assert_eq!(counts(&spec).last(), Some(&7));

    guest.shutdown().unwrap();
    engine.advance(2 * SECOND).unwrap();
    assert_eq!(guest.state(), RunState::ShuttingDown);
    engine.advance(SECOND).unwrap();
    assert_eq!(events.iter().last(), Some(GuestEvent::Stopped { by: StoppedBy::Guest }));
}

#[test]
fn a_guest_that_stands_while_it_shuts_down_ends_when_it_goes_on() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    engine.set_behaviour(spec.id, Behaviour { shutdown: SECOND, ..Behaviour::default() }).unwrap();
    let (guest, _events) = start(&engine, &spec);
    guest.shutdown().unwrap();
    guest.pause().unwrap();
    engine.advance(5 * SECOND).unwrap();
    assert_eq!(guest.state(), RunState::Paused);
    guest.resume().unwrap();
    engine.advance(Duration::ZERO).unwrap();
    assert_eq!(guest.state(), RunState::Stopped);
}

#[test]
fn the_same_requests_do_the_same_again() {
    let play = || {
        let tmp = tempfile::tempdir().unwrap();
        let engine = SimEngine::open(SimOptions { seed: Seed(42), ..SimOptions::default() }).unwrap();
        let ids: Vec<Uuid> = (0..3).map(|_| engine.fresh_id()).collect();
        let specs: Vec<GuestSpec> = ["a", "b", "c"].map(|name| spec(tmp.path(), name)).into();
        let guests: Vec<_> = specs.iter().map(|spec| start(&engine, spec)).collect();
        engine.plan("b", 3 * SECOND, Happening::Panic).unwrap();
        engine.plan(&specs[2].id.to_string(), 2 * SECOND, Happening::Reboot).unwrap();
        engine.plan("nobody", SECOND, Happening::PowerOff).unwrap();
        engine.advance(2 * SECOND).unwrap();
        guests[0].0.pause().unwrap();
        engine.advance(10 * SECOND).unwrap();
        let picture = tmp.path().join("screen");
        guests[2].0.screenshot(&picture, PictureFormat::Png).unwrap();
        let logs: Vec<String> = specs.iter().map(log).collect();
        let seen: Vec<Vec<GuestEvent>> = guests.iter().map(|(_, e)| e.try_iter().collect()).collect();
        assert!(engine.events().is_empty());
        (ids, logs, seen, fs::read(picture).unwrap())
    };
    let first = play();
    assert_eq!(first, play());
    let b = &first.2[1];
    assert_eq!(*b, [GuestEvent::Started, GuestEvent::Stopped { by: StoppedBy::Panic }]);
    assert!(first.2[2].contains(&GuestEvent::Reset { by_guest: true }));
}

#[test]
fn the_console_takes_commands_and_the_disk_keeps_what_they_write() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let (guest, events) = start(&engine, &spec);
    let socket = guest.serial_socket(0).unwrap();
    assert_eq!(guest.serial_socket(1), None);
    let mut port = UnixStream::connect(socket).unwrap();
    let mut lines = BufReader::new(port.try_clone().unwrap()).lines();
    let mut ask = |line: &str| {
        port.write_all(format!("{line}\r").as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    };
    assert!(ask("help").contains("pat DEV"));
    assert_eq!(ask("net"), "NET-UP 10.0.2.15/24");
    assert_eq!(ask("pat /dev/sda demo 1 2"), "PAT-OK /dev/sda demo 1 2");
    let disk = fs::read(&spec.disks[0].layers[0].path).unwrap();
    assert!(disk[64 << 10..].starts_with(b"seed-demo\nseed-demo\n"));
    assert!(ask("sum /dev/sda 1 2").ends_with(" /dev/sda 1 2"));
    assert!(ask("pat /dev/sda demo 16 1").starts_with("PAT-FAILED"));
    assert_eq!(ask("reboot").split(' ').next(), Some("GUEST-READY"));
    // What is typed while the processors stand is heard when they go on.
    guest.pause().unwrap();
    port.write_all(b"echo late\r").unwrap();
    engine.advance(SECOND).unwrap();
    while lock(&engine.world.guests).by_dir[&spec.runtime_dir].inbox() == 0 {
        std::thread::yield_now();
    }
    guest.resume().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "late");
    port.write_all(b"poweroff\r").unwrap();
    assert_eq!(events.iter().last(), Some(GuestEvent::Stopped { by: StoppedBy::Guest }));
    assert!(lines.next().is_none_or(|l| l.is_err()), "hung up");
}

#[test]
fn every_operation_meets_its_faults() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let rule = |operation, kind: &str| Rule {
        machine: Some("a".into()),
        place: Place::Operation(operation),
        nth: 1,
        times: Some(1),
        effect: Effect::Fail { kind: kind.into(), message: "on purpose".into() },
    };
    engine.add_fault(rule(Operation::Start, "no-resources")).unwrap();
    let refused = engine.start(&spec, Box::new(mpsc::channel().0)).err().unwrap();
    assert_eq!((refused.kind(), refused.to_string().as_str()), (StartErrorKind::NoResources, "on purpose"));
    let (guest, _events) = start(&engine, &spec);
    type Ask = fn(&dyn Guest) -> Result<(), GuestError>;
    let asks: [(Operation, Ask); 15] = [
        (Operation::Pause, |g| g.pause()),
        (Operation::Resume, |g| g.resume()),
        (Operation::Reset, |g| g.reset()),
        (Operation::CanSave, |g| g.can_save()),
        (Operation::Save, |g| g.save(&g.spec().runtime_dir.join("s"), &mut |_| ControlFlow::Continue(()))),
        (Operation::Thaw, |g| g.thaw()),
        (Operation::Screenshot, |g| {
            g.screenshot(&g.spec().runtime_dir.join("p"), PictureFormat::Ppm).map(drop)
        }),
        (Operation::SendKeys, |g| g.send_keys(&[])),
        (Operation::Interrupt, |g| g.interrupt()),
        (Operation::ChangeMedia, |g| g.change_media("dvd0", None, false)),
        (Operation::Eject, |g| g.eject("dvd0", false)),
        (Operation::SetLink, |g| g.set_link("nic0", true)),
        (Operation::Agent, |g| g.agent_ping(SECOND)),
        (Operation::Shutdown, |g| g.shutdown().map(drop)),
        (Operation::PowerOff, |g| g.power_off()),
    ];
    engine
        .set_behaviour(spec.id, Behaviour { agent: true, obeys_shutdown: false, ..Behaviour::default() })
        .unwrap();
    for (operation, ask) in asks {
        engine.add_fault(rule(operation, "refused")).unwrap();
        let met = ask(&*guest).unwrap_err();
        assert_eq!((met.kind(), met.to_string().as_str()), (GuestErrorKind::Refused, "on purpose"));
        ask(&*guest).unwrap();
    }
    assert!(engine.faults().list().iter().all(Fault::spent));
    assert_eq!(engine.clear_faults(), 16);
}

#[test]
fn a_saved_guest_goes_on_counting_where_it_was() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let mut spec = spec(tmp.path(), "a");
    let (guest, events) = start(&engine, &spec);
    spec.machine_version = Some(guest.resolved().machine_version.clone());
    engine.control(spec.id).unwrap().remember("42");
    engine.advance(5 * SECOND / 2).unwrap();
    let state = tmp.path().join("state");
    let mut go_on = |_| ControlFlow::Continue(());
    let error = guest.save(&state, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert_eq!((error.kind(), guest.state()), (GuestErrorKind::Cancelled, RunState::Running));
    assert!(!state.exists());
    let error = guest.save(&tmp.path().join("no/where"), &mut go_on).unwrap_err();
    assert_eq!((error.kind(), guest.state()), (GuestErrorKind::Io, RunState::Running));
    guest.pause().unwrap();
    guest.save(&state, &mut go_on).unwrap();
    assert_eq!(guest.state(), RunState::Frozen);
    engine.advance(60 * SECOND).unwrap();
    // Found frozen by whoever comes next, and thawed as it was.
    let (sender, _later) = mpsc::channel();
    let again = engine.attach(&spec.runtime_dir, Box::new(sender)).unwrap().unwrap();
    assert_eq!(again.state(), RunState::Frozen);
    again.thaw().unwrap();
    assert_eq!(again.state(), RunState::Paused, "as it was before");
    again.power_off().unwrap();
    drop((guest, events));

    let (sender, events) = mpsc::channel();
    let guest = engine.restore(&spec, &state, Box::new(sender)).unwrap();
    assert_eq!((guest.state(), log(&spec).as_str()), (RunState::Frozen, ""), "not one instruction");
    guest.thaw().unwrap();
    engine.advance(SECOND / 2).unwrap();
    assert_eq!(counts(&spec), [3]);
    assert!(!log(&spec).contains("GUEST-READY"));
    assert_eq!((guest.state(), &*engine.control(spec.id).unwrap().memory()), (RunState::Running, "42"));
    engine.control(spec.id).unwrap().reboot();
    assert_eq!(engine.control(spec.id).unwrap().memory(), "");
    guest.power_off().unwrap();
    let seen: Vec<_> = events.iter().collect();
    let stopped = GuestEvent::Stopped { by: StoppedBy::Host };
    assert_eq!(
        seen,
        [GuestEvent::Started, GuestEvent::Resumed, GuestEvent::Reset { by_guest: true }, stopped]
    );
    spec.machine_version = Some("other".into());
    let refused = |spec: &GuestSpec, state: &Path| {
        engine.restore(spec, state, Box::new(mpsc::channel().0)).err().map(|e| e.kind())
    };
    assert_eq!(refused(&spec, &state), Some(StartErrorKind::BadState));
    assert_eq!(refused(&spec, &tmp.path().join("none")), Some(StartErrorKind::NotFound));
    fs::write(&state, "{").unwrap();
    assert_eq!(refused(&spec, &state), Some(StartErrorKind::BadState));
}

#[test]
fn a_save_that_hangs_can_be_broken_off() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let (guest, _events) = start(&engine, &spec);
    let place = Place::Operation(Operation::Save);
    engine.add_fault(Rule { machine: None, place, nth: 1, times: None, effect: Effect::Stall }).unwrap();
    let mut looks = 0;
    let error = guest.save(&tmp.path().join("state"), &mut |progress| {
        looks += 1;
        assert_eq!((progress.done, progress.total, guest.state()), (0, 512 << 20, RunState::Frozen));
        if looks > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(error.unwrap_err().kind(), GuestErrorKind::Cancelled);
    assert_eq!(guest.state(), RunState::Running);
}

#[test]
fn an_agent_answers_when_there_is_one() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    let (guest, _events) = start(&engine, &spec);
    assert_eq!(guest.agent_ping(SECOND).unwrap_err().kind(), GuestErrorKind::NoAgent);
    engine.set_behaviour(spec.id, Behaviour { agent: true, ..Behaviour::default() }).unwrap();
    guest.agent_ping(SECOND).unwrap();
    assert_eq!(guest.agent_interfaces(SECOND).unwrap()[0].addresses.len(), 1);
    guest.set_link("nic0", false).unwrap();
    assert!(guest.agent_interfaces(SECOND).unwrap()[0].addresses.is_empty());
    assert_eq!(guest.agent_os(SECOND).unwrap().id.as_deref(), Some("simulated"));
    assert_eq!(guest.shutdown().unwrap(), ShutdownVia::Agent);
}

#[test]
fn guests_faults_and_clock_outlive_the_process() {
    let tmp = tempfile::tempdir().unwrap();
    let options = SimOptions {
        seed: Seed(3),
        behaviour: Behaviour { boot: SECOND, ..Behaviour::default() },
        record: Some(tmp.path().join("simulator.json")),
        ..SimOptions::default()
    };
    let (a, b) = (spec(tmp.path(), "a"), spec(tmp.path(), "b"));
    let first = SimEngine::open(options.clone()).unwrap();
    let given = first.fresh_id();
    let (guest, _) = start(&first, &a);
    start(&first, &b);
    first.advance(4 * SECOND).unwrap();
    guest.pause().unwrap();
    let rule = Rule {
        machine: None,
        place: Place::Operation(Operation::Pause),
        nth: 2,
        times: Some(1),
        effect: Effect::Fail { kind: "io".into(), message: "later".into() },
    };
    first.add_fault(rule).unwrap();
    first.plan("b", 6 * SECOND, Happening::Kill { message: "planned".into() }).unwrap();
    // As after a kill: nobody says goodbye.
    std::mem::forget(guest);
    let second = SimEngine::open(SimOptions { seed: Seed(9), ..options.clone() }).unwrap();
    assert_eq!((second.seed(), second.now()), (Seed(3), 4 * SECOND), "the record says, not the options");
    assert_ne!(second.fresh_id(), given);
    let attach = |spec: &GuestSpec| {
        let (sender, events) = mpsc::channel();
        second.attach(&spec.runtime_dir, Box::new(sender)).unwrap().map(|guest| (guest, events))
    };
    let (guest, events) = attach(&a).unwrap();
    let (_other, theirs) = attach(&b).unwrap();
    assert_eq!(events.recv().unwrap(), GuestEvent::Started);
    assert_eq!(guest.state(), RunState::Paused);
    guest.resume().unwrap();
    second.advance(SECOND).unwrap();
    assert_eq!(counts(&a), [1, 2, 3, 4], "it goes on where it stood");
    guest.pause().unwrap();
    assert_eq!(guest.pause().unwrap_err().kind(), GuestErrorKind::Io);
    second.advance(SECOND).unwrap();
    assert_eq!(theirs.iter().last(), Some(GuestEvent::Died { message: "planned".into() }));
    // A record of another boot of the host is of a guest that is gone.
    let record = a.runtime_dir.join("guest.json");
    let text = fs::read_to_string(&record).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&record, text.replace(boot.trim(), "another")).unwrap();
    let third = SimEngine::open(options.clone()).unwrap();
    assert!(third.attach(&a.runtime_dir, Box::new(mpsc::channel().0)).unwrap().is_none());
    fs::write(&record, "{").unwrap();
    let error = third.attach(&a.runtime_dir, Box::new(mpsc::channel().0)).err().unwrap();
    assert_eq!(error.kind(), AttachErrorKind::BadRecord);
    fs::write(options.record.as_ref().unwrap(), "{").unwrap();
    assert!(SimEngine::open(options).is_err());
}

#[test]
fn in_real_time_a_guest_counts_by_itself_also_while_nobody_keeps_it() {
    let tmp = tempfile::tempdir().unwrap();
    let options = SimOptions {
        clock: ClockMode::Real,
        behaviour: Behaviour { tick: MIN_TICK, ..Behaviour::default() },
        record: Some(tmp.path().join("simulator.json")),
        ..SimOptions::default()
    };
    let spec = spec(tmp.path(), "a");
    let first = SimEngine::open(options.clone()).unwrap();
    let (guest, _events) = start(&first, &spec);
    while counts(&spec).len() < 3 {
        std::thread::yield_now();
    }
    drop((guest, first));
    let second = SimEngine::open(options).unwrap();
    let (sender, _events) = mpsc::channel();
    let guest = second.attach(&spec.runtime_dir, Box::new(sender)).unwrap().unwrap();
    let before = second.guests()[0].counter;
    assert!(before >= 3);
    while second.guests()[0].counter == before {
        std::thread::yield_now();
    }
    guest.power_off().unwrap();
}

#[test]
fn time_is_driven_within_bounds() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = SimEngine::new();
    let spec = spec(tmp.path(), "a");
    engine.set_behaviour(spec.id, Behaviour { tick: MIN_TICK, ..Behaviour::default() }).unwrap();
    let _guest = start(&engine, &spec);
    assert!(engine.advance(MAX_ADVANCE + SECOND).is_err());
    assert!(engine.advance(MAX_ADVANCE).unwrap_err().to_string().contains("tick slower"));
    assert_eq!(engine.now(), Duration::ZERO, "nothing happened");
    for wrong in [
        Behaviour { tick: MIN_TICK / 2, ..Behaviour::default() },
        Behaviour { boot: MAX_BEHAVIOUR + SECOND, ..Behaviour::default() },
    ] {
        assert!(engine.set_behaviour(spec.id, wrong).is_err());
    }
}

#[test]
fn a_simulation_begins_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let options = SimOptions { seed: Seed(5), ..SimOptions::default() };
    let engine = SimEngine::open(options.clone()).unwrap();
    let first = engine.fresh_id();
    let spec = spec(tmp.path(), "a");
    let (_guest, events) = start(&engine, &spec);
    engine.advance(SECOND).unwrap();
    engine.plan("a", 9 * SECOND, Happening::Panic).unwrap();
    engine.restart(&options);
    assert!(matches!(events.iter().last(), Some(GuestEvent::Died { .. })));
    assert_eq!((engine.now(), engine.events().len(), engine.guests().len()), (Duration::ZERO, 0, 0));
    assert_eq!(engine.fresh_id(), first, "the same again");
}
