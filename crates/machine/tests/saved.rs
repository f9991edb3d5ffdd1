//! Saved machines: they go on where they were, also under another daemon; what cannot be gone on with stays saved and says
//! so; and what happens to machines when their host starts and stops.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use machine::automatic::Rest;
use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::export::ExportRequest;
use machine::finding;
use machine::planned::ImportRequest;
use machine::power::PowerState;
use machine::settings::{Automatic, AutomaticStart, AutomaticStop, Generation};
use machine::{MachineView, Reason};
use support::{Lab, MIB, PATIENCE, blank, errors, has, import_of, member};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_millis(50);

fn define(lab: &Lab, name: &str) -> Uuid {
    let disks = vec![NewDisk::Empty { size: MIB, sector: 0 }];
    let request = DefineRequest { disks, dvd: Some(None), ..blank(name, Generation::Two) };
    lab.host().define(&request).unwrap().record.id
}

fn started(lab: &Lab, name: &str) -> Uuid {
    let id = define(lab, name);
    lab.host().start(id).unwrap();
    lab.sim.control(id).unwrap().remember(name);
    id
}

fn view(lab: &Lab, id: Uuid) -> MachineView {
    lab.host().machine(id).unwrap()
}

fn save(lab: &Lab, id: Uuid) -> MachineView {
    let job = lab.host().save(id, "test").unwrap();
    let status = lab.job(job);
    assert!(status.state.is_success(), "{status:?}");
    assert_eq!(view(lab, id).power, PowerState::Saved);
    view(lab, id)
}

fn state_file(view: &MachineView) -> PathBuf {
    view.record.home.join(&view.record.saved.as_ref().unwrap().file)
}

fn states(view: &MachineView) -> usize {
    support::files(&view.record.home).iter().filter(|f| f.to_string_lossy().contains("saved-")).count()
}

#[test]
fn a_saved_machine_goes_on_where_it_was_also_under_another_daemon() {
    let mut lab = Lab::new();
    let id = started(&lab, "web");
    let saved = save(&lab, id);
    assert!(lab.sim.control(id).is_none() && state_file(&saved).is_file());
    lab.reopen();
    assert_eq!(view(&lab, id).power, PowerState::Saved);
    lab.host().start(id).unwrap();
    assert_eq!(lab.sim.control(id).unwrap().memory(), "web");
    let after = view(&lab, id);
    assert_eq!((after.power, after.record.saved.is_none(), states(&after)), (PowerState::Running, true, 0));
    assert_eq!(after.record.run_generation, saved.record.run_generation + 1, "its disks may change again");
    // A state is good once.
    lab.host().stop(id).unwrap();
    lab.host().start(id).unwrap();
    assert_eq!(lab.sim.control(id).unwrap().memory(), "");
}

#[test]
fn what_breaks_a_saved_state_is_refused_and_stopping_discards_it() {
    let lab = Lab::new();
    let id = started(&lab, "web");
    save(&lab, id);
    for edit in [
        MachineEdit { memory_mib: Some(2048), ..MachineEdit::default() },
        MachineEdit { dvd: Some(None), ..MachineEdit::default() },
        MachineEdit { add_disks: vec![NewDisk::Empty { size: MIB, sector: 0 }], ..MachineEdit::default() },
    ] {
        let error = lab.host().edit(id, &edit).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidState, "{edit:?}");
        assert!(error.hint_text().unwrap().contains("slipway machine stop web"), "{error:?}");
    }
    let edit = MachineEdit { name: Some("www".into()), notes: Some("n".into()), ..MachineEdit::default() };
    lab.host().edit(id, &edit).unwrap();
    lab.host().stop(id).unwrap();
    let after = view(&lab, id);
    assert_eq!((after.power, after.record.saved.is_none(), states(&after)), (PowerState::Off, true, 0));
    lab.host().edit(id, &MachineEdit { memory_mib: Some(2048), ..MachineEdit::default() }).unwrap();
    // One that is saved may be deleted, with all that was kept of it.
    lab.host().start(id).unwrap();
    let home = save(&lab, id).record.home;
    lab.host().delete(id, false).unwrap();
    assert!(!home.exists());
}

#[test]
fn a_state_that_cannot_be_gone_on_with_stays_and_says_how_to_discard_it() {
    let lab = Lab::new();
    let id = started(&lab, "web");
    let saved = save(&lab, id);
    let file = state_file(&saved);
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[10] ^= 1;
    let breakages: [(&str, Option<&[u8]>); 3] =
        [("damaged", Some(&damaged)), ("damaged", Some(&whole[..whole.len() - 1])), ("cannot be read", None)];
    for (word, bytes) in breakages {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let error = lab.host().start(id).unwrap_err();
        assert_eq!(error.reason(), Reason::BadState);
        assert!(error.chain().contains(word), "{}", error.chain());
        assert!(error.hint_text().unwrap().contains("slipway machine stop web"), "{error:?}");
        let after = view(&lab, id);
        assert_eq!(
            (after.power, after.record.saved.as_ref()),
            (PowerState::Saved, saved.record.saved.as_ref())
        );
        assert!(lab.sim.control(id).is_none(), "nothing runs");
    }
    fs::write(&file, &whole).unwrap();
    lab.host().start(id).unwrap();
    assert_eq!(lab.sim.control(id).unwrap().memory(), "web");
}

#[test]
fn what_an_earlier_save_left_behind_is_swept() {
    let mut lab = Lab::new();
    let id = started(&lab, "web");
    let saved = save(&lab, id);
    let home = saved.record.home.clone();
    let stale = [format!("saved-{}.state", Uuid::new_v4().simple()), "saved-x.state".to_owned()];
    fs::write(home.join(&stale[0]), "old").unwrap();
    fs::write(home.join(format!("{}.partial", stale[0])), "old").unwrap();
    fs::write(home.join(&stale[1]), "not ours by its name").unwrap();
    lab.reopen();
    assert!(!home.join(&stale[0]).exists() && !home.join(format!("{}.partial", stale[0])).exists());
    assert!(home.join(&stale[1]).exists() && state_file(&saved).exists());
}

fn automatic(lab: &Lab, id: Uuid, start: AutomaticStart, delay: u32, stop: AutomaticStop) {
    let automatic = Some(Automatic { start, start_delay_seconds: delay, stop });
    lab.host().edit(id, &MachineEdit { automatic, ..MachineEdit::default() }).unwrap();
}

#[test]
fn the_host_brings_back_what_it_stopped_each_in_its_own_way() {
    use AutomaticStart::{Always, Nothing, Restart};
    let mut lab = Lab::new();
    let [saves, shuts, turns, stubborn, stays] =
        ["saves", "shuts", "turns", "stubborn", "stays"].map(|name| started(&lab, name));
    let off = define(&lab, "off");
    automatic(&lab, saves, Restart, 0, AutomaticStop::Save);
    automatic(&lab, shuts, Restart, 0, AutomaticStop::Shutdown);
    automatic(&lab, turns, Always, 0, AutomaticStop::TurnOff);
    automatic(&lab, stubborn, Restart, 0, AutomaticStop::Shutdown);
    automatic(&lab, stays, Nothing, 0, AutomaticStop::Save);
    lab.sim.control(stubborn).unwrap().obeys_shutdown(false);
    let stopped = lab.host().autostop(LIMIT.max(Duration::from_secs(1)), "test").unwrap();
    let how: Vec<_> = stopped.iter().map(|s| (s.name.as_str(), s.rest.unwrap(), s.failed.len())).collect();
    assert_eq!(
        how,
        [
            ("saves", Rest::Saved, 0),
            ("shuts", Rest::ShutDown, 0),
            ("stays", Rest::Saved, 0),
            ("stubborn", Rest::Saved, 1),
            ("turns", Rest::TurnedOff, 0),
        ]
    );
    assert!(view(&lab, saves).record.wanted_running && view(&lab, shuts).record.wanted_running);
    lab.boot = "second boot".into();
    lab.reopen();
    for id in [saves, shuts, turns, stubborn] {
        assert!(
            lab.host().wait_for(id, PowerState::Running, PATIENCE),
            "{}",
            view(&lab, id).record.settings.name
        );
    }
    assert_eq!(lab.sim.control(saves).unwrap().memory(), "saves");
    assert_eq!(lab.sim.control(stubborn).unwrap().memory(), "stubborn", "nothing of it was lost");
    assert_eq!(view(&lab, stays).power, PowerState::Saved);
    assert_eq!(view(&lab, off).power, PowerState::Off);
}

#[test]
fn what_somebody_turned_off_stays_off_until_the_next_boot() {
    let mut lab = Lab::new();
    let id = started(&lab, "web");
    automatic(&lab, id, AutomaticStart::Always, 0, AutomaticStop::Save);
    lab.host().stop(id).unwrap();
    lab.reopen();
    assert_eq!(view(&lab, id).power, PowerState::Off, "the daemon was restarted, not the host");
    lab.boot = "second boot".into();
    lab.reopen();
    assert!(lab.host().wait_for(id, PowerState::Running, PATIENCE));
}

#[test]
fn a_delayed_start_gives_way_to_whoever_asks() {
    let mut lab = Lab::new();
    let [now, later, never] = ["now", "later", "never"].map(|name| started(&lab, name));
    for id in [later, never] {
        automatic(&lab, id, AutomaticStart::Restart, 3600, AutomaticStop::TurnOff);
    }
    automatic(&lab, now, AutomaticStart::Restart, 0, AutomaticStop::TurnOff);
    lab.host().autostop(LIMIT, "test").unwrap();
    lab.reopen();
    assert!(lab.host().wait_for(now, PowerState::Running, PATIENCE), "delays run beside each other");
    assert!(view(&lab, later).note.unwrap().contains("3600 s"));
    lab.host().start(later).unwrap();
    assert_eq!(view(&lab, later).note, None);
    // Off it is already; what is stopped is its start.
    lab.host().stop(never).unwrap();
    assert_eq!((view(&lab, never).note, view(&lab, never).record.wanted_running), (None, false));
    assert_eq!(lab.host().stop(never).unwrap_err().reason(), Reason::InvalidState);
}

#[test]
fn reboots_are_counted_and_told() {
    let lab = Lab::new();
    let id = started(&lab, "web");
    lab.host().hold(id, "shift", true).unwrap();
    assert!(lab.host().is_held(id, "shift").unwrap());
    let mut seen = lab.host().machine_changes(0, Duration::ZERO).generation;
    lab.host().reboot(id).unwrap_err();
    lab.sim.set_behaviour(id, engine::sim::Behaviour { agent: true, ..lab.sim.behaviour(id) }).unwrap();
    lab.host().reboot(id).unwrap();
    let reboots = loop {
        let changes = lab.host().machine_changes(seen, PATIENCE);
        seen = changes.generation;
        if let Some(change) = changes.machines.iter().find(|c| c.id == id && c.reboots > 0) {
            break change.reboots;
        }
    };
    assert_eq!((reboots, view(&lab, id).reboots), (1, 1));
    assert!(!lab.host().is_held(id, "shift").unwrap(), "its keyboard was reset as well");
    lab.host().reset(id).unwrap();
    assert_eq!(view(&lab, id).reboots, 1, "a reset that was asked for is none");
}

/// A package of a saved machine whose guest remembers "web".
fn exported() -> (Lab, MachineView, PathBuf) {
    let lab = Lab::new();
    let id = started(&lab, "web");
    let saved = save(&lab, id);
    let package = lab.export(id, "out");
    (lab, saved, package)
}

#[test]
fn a_saved_machine_leaves_with_its_memory_and_goes_on_elsewhere() {
    let (_first, saved, package) = exported();
    let report = transfer::verify::verify(&package, &Default::default()).unwrap();
    assert!(report.is_good(), "{:?}", report.findings);
    let entry = report.manifest.unwrap().saved_state.unwrap();
    assert_eq!(entry.path, "Slipway/saved-state");
    assert_eq!(entry.details["machine_version"], saved.record.saved.as_ref().unwrap().needs.machine_version);
    // For Hyper-V the machine is off, with nothing in its runtime state.
    let id = saved.record.id;
    let configuration = vmcx::read(&fs::read(member(&package, id, "vmcx")).unwrap()).unwrap();
    assert!(!configuration.tree.contains("configuration/savedstate"));
    let runtime = vmcx::read(&fs::read(member(&package, id, "VMRS")).unwrap()).unwrap();
    assert_eq!(runtime.tree, vmcx::empty_runtime_state(saved.record.settings.config_version));

    let second = Lab::new();
    let machine = second.import(&import_of(&package));
    assert_eq!((machine.power, states(&machine)), (PowerState::Saved, 1));
    second.host().start(id).unwrap();
    assert_eq!(second.sim.control(id).unwrap().memory(), "web");
    assert_eq!(states(&view(&second, id)), 0);
}

#[test]
fn memory_that_does_not_fit_stays_behind_only_when_asked() {
    let (_first, _, package) = exported();
    let lab = Lab::new();
    let unfit = |request: &ImportRequest, word: &str| {
        let found = lab.host().import_dry_run(request).unwrap().record.findings;
        assert_eq!(errors(&found), [finding::STATE_UNFIT], "{found:?}");
        let found = support::finding(&found, finding::STATE_UNFIT);
        assert_eq!(found.fix.as_deref(), Some("--discard-saved-state"));
        assert!(found.message.contains(word), "{}", found.message);
    };
    unfit(&ImportRequest { memory_mib: Some(2048), ..import_of(&package) }, "memory");
    unfit(&ImportRequest { disk_bus: Some(engine::DiskBus::Nvme), ..import_of(&package) }, "disk 0");
    let manifest = package.join(transfer::manifest::PATH);
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("sim-q35-1", "sim-q35-99")).unwrap();
    unfit(&import_of(&package), "sim-q35-99");
    fs::write(&manifest, text.replace("saved_state", "of_a_later_version")).unwrap();
    unfit(&import_of(&package), "does not speak of it");
    fs::write(&manifest, &text).unwrap();

    let machine = lab.import(&ImportRequest { discard_saved_state: true, ..import_of(&package) });
    assert_eq!((machine.power, states(&machine)), (PowerState::Off, 0));
}

#[test]
fn damaged_memory_is_found_by_verify_and_makes_no_machine() {
    let (_first, saved, package) = exported();
    let state = package.join(transfer::manifest::STATE);
    let mut bytes = fs::read(&state).unwrap();
    bytes[20] ^= 1;
    fs::write(&state, bytes).unwrap();
    let report = transfer::verify::verify(&package, &Default::default()).unwrap();
    assert!(report.findings.iter().any(|f| f.id == "package.digest"), "{:?}", report.findings);
    let lab = Lab::new();
    lab.host().import(&import_of(&package)).unwrap();
    let status = lab.job(lab.host().realize(saved.record.id, "test").unwrap());
    assert_eq!(status.error.map(|e| e.id).as_deref(), Some("bad-package"));
    assert!(support::listing(&lab.path("data/machines")).is_empty(), "nothing is left");
}

#[test]
fn a_machine_under_a_new_id_keeps_what_its_memory_knows() {
    let (lab, saved, package) = exported();
    let request = ImportRequest { new_id: true, name: Some("twin".into()), ..import_of(&package) };
    let planned = lab.host().import_dry_run(&request).unwrap().record;
    assert!(has(&planned.findings, finding::STATE_TWIN) && has(&planned.findings, finding::STATE_COMES));
    let twin = lab.import(&request);
    assert_ne!(twin.record.id, saved.record.id);
    assert_eq!(twin.power, PowerState::Saved);
    lab.host().start(twin.record.id).unwrap();
    assert_eq!(lab.sim.control(twin.record.id).unwrap().memory(), "web");
}

#[test]
fn an_export_may_leave_the_memory_out_also_one_that_goes_on() {
    let lab = Lab::new();
    let id = started(&lab, "web");
    save(&lab, id);
    let request = ExportRequest { saved_state: false, ..ExportRequest::new(lab.path("out")) };
    support::exported(&lab.export_as(id, &request));
    assert!(!lab.path("out").join(transfer::manifest::STATE).exists());
    let report = transfer::verify::verify(&lab.path("out"), &Default::default()).unwrap();
    assert!(report.is_good() && report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.manifest.unwrap().excluded[0].what, "saved-state");
    let second = Lab::new();
    assert_eq!(second.import(&import_of(lab.path("out"))).power, PowerState::Off);
}

#[test]
fn a_guest_that_stays_frozen_is_shown_as_paused_and_waited_for_by_nobody() {
    use engine::sim::{Effect, Operation, Place, Rule};

    let lab = Lab::new();
    let id = started(&lab, "web");
    save(&lab, id);
    let effect = Effect::Fail { kind: "timed-out".into(), message: "on purpose".into() };
    let place = Place::Operation(Operation::Thaw);
    lab.sim.add_fault(Rule { machine: None, place, nth: 1, times: None, effect }).unwrap();
    assert_eq!(lab.host().start(id).unwrap_err().reason(), Reason::Timeout);
    assert_eq!(lab.sim.guests()[0].state, engine::RunState::Frozen);
    assert_eq!(view(&lab, id).power, PowerState::Paused);
    assert!(lab.host().settle(Duration::ZERO), "all that its guest said was heard");
}
