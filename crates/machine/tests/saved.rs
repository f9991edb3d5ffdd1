//! Saved machines: they go on where they were, also under another daemon; what cannot be gone on with stays saved and says
//! so; and what happens to machines when their host starts and stops.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use machine::MachineView;
use machine::Reason;
use machine::automatic::Rest;
use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::power::PowerState;
use machine::settings::{Automatic, AutomaticStart, AutomaticStop, Generation};
use support::{Lab, MIB, PATIENCE, blank};
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
    let mut seen = lab.host().machine_changes(0, Duration::ZERO).generation;
    lab.sim.control(id).unwrap().reboot();
    let reboots = loop {
        let changes = lab.host().machine_changes(seen, PATIENCE);
        seen = changes.generation;
        if let Some(change) = changes.machines.iter().find(|c| c.id == id && c.reboots > 0) {
            break change.reboots;
        }
    };
    assert_eq!((reboots, view(&lab, id).reboots), (1, 1));
    lab.host().reset(id).unwrap();
    assert_eq!(view(&lab, id).reboots, 1, "a reset that was asked for is none");
}
