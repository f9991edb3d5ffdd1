//! Switches that change while machines are plugged into them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use machine::Reason;
use machine::define::{AdapterEdit, DefineRequest, MachineEdit};
use machine::network::MAX_RENAMED;
use machine::planned::ImportRequest;
use machine::settings::Generation;
use machine::switch::{SwitchEdit, SwitchKind, SwitchTarget};
use support::{Lab, Package, blank};
use uuid::Uuid;

fn named(name: &str) -> SwitchEdit {
    SwitchEdit { name: Some(name.to_owned()), ..SwitchEdit::default() }
}

fn kind(kind: SwitchKind) -> SwitchEdit {
    SwitchEdit { kind: Some(kind), ..SwitchEdit::default() }
}

fn plug(switch: &str) -> MachineEdit {
    let adapter = AdapterEdit { switch: Some(Some(switch.to_owned())), ..AdapterEdit::default() };
    MachineEdit { adapters: vec![adapter], ..MachineEdit::default() }
}

impl Lab {
    fn on(&self, name: &str, switch: &str) -> Uuid {
        let request = DefineRequest { adapters: vec![switch.to_owned()], ..blank(name, Generation::Two) };
        self.host().define(&request).unwrap().record.id
    }

    fn switch_of(&self, machine: Uuid) -> Option<String> {
        self.host().machine(machine).unwrap().record.settings.adapters[0].switch.clone()
    }
}

#[test]
fn who_is_plugged_in_follows_a_switch_to_its_new_name() {
    let lab = Lab::new();
    let host = lab.host();
    let lan = host.create_switch("LAN", SwitchKind::Private).unwrap();
    let (a, b, other) = (lab.on("a", "LAN"), lab.on("b", "LAN"), lab.on("c", "nat"));
    let package =
        Package::new(lab.path("package"), Generation::Two).adapter("LAN").adapter("Outside").write();
    let mut request = package.request();
    request.switches.insert("Outside".to_owned(), SwitchTarget { target: "LAN".to_owned(), vlan: Some(9) });
    let plan = host.import(&request).unwrap().record.id;
    host.start(b).unwrap();

    for taken in ["nat", "", "a\nb"] {
        assert!(host.edit_switch("LAN", &named(taken)).is_err(), "{taken:?}");
    }
    let notes = SwitchEdit { notes: Some("first floor".to_owned()), ..named("office") };
    let renamed = host.edit_switch("LAN", &notes).unwrap();
    assert_eq!(
        (renamed.id, renamed.name.as_str(), renamed.notes.as_str()),
        (lan.id, "office", "first floor")
    );
    assert_eq!(host.switch("LAN").unwrap_err().reason(), Reason::NotFound);
    assert_eq!([a, b, other].map(|id| lab.switch_of(id).unwrap()), ["office", "office", "nat"]);
    assert_eq!(host.machines_on("office").unwrap().len(), 2);
    assert!(host.machines_on("LAN").unwrap().is_empty());
    assert_eq!(host.planned_on("office").unwrap(), [plan]);
    // The plan still leads there when it is made anew, and becomes a machine.
    let view = host.validate_planned(plan).unwrap();
    let adapters = view.record.settings.adapters.iter();
    let adapters: Vec<_> = adapters.map(|a| (a.switch.clone().unwrap(), a.vlan)).collect();
    assert_eq!(adapters, [("office".to_owned(), None), ("office".to_owned(), Some(9))]);
    assert!(lab.job(host.realize(plan, "test").unwrap()).state.is_success());
    host.stop(b).unwrap();
    host.start(a).unwrap();
}

#[test]
fn more_than_one_transaction_holds_are_not_renamed() {
    let lab = Lab::new();
    let host = lab.host();
    host.create_switch("LAN", SwitchKind::Private).unwrap();
    let ids: Vec<Uuid> = (0..=MAX_RENAMED).map(|n| lab.on(&format!("m{n}"), "LAN")).collect();
    let before = lab.revision();
    let refused = host.edit_switch("LAN", &named("office")).unwrap_err();
    assert_eq!(refused.reason(), Reason::InUse);
    assert!(refused.to_string().contains("64 machines"), "{refused}");
    assert_eq!(lab.revision(), before);
    host.edit(ids[0], &plug("nat")).unwrap();
    host.edit_switch("LAN", &named("office")).unwrap();
    assert!(ids[1..].iter().all(|id| lab.switch_of(*id).as_deref() == Some("office")));
}

#[test]
fn what_a_switch_connects_to_changes_while_no_guest_is_on_it() {
    let lab = Lab::new();
    let host = lab.host();
    host.create_switch("LAN", SwitchKind::Private).unwrap();
    let id = lab.on("web", "LAN");
    let outside = SwitchKind::External { bridge: "br0".to_owned() };
    host.start(id).unwrap();
    let refused = host.edit_switch("LAN", &kind(outside.clone())).unwrap_err();
    assert_eq!(refused.reason(), Reason::InvalidState);
    assert!(refused.hint_text().is_some_and(|hint| hint.contains("web")), "{refused:?}");
    host.stop(id).unwrap();
    let nowhere = SwitchKind::External { bridge: "br7".to_owned() };
    assert_eq!(host.edit_switch("LAN", &kind(nowhere)).unwrap_err().reason(), Reason::NotFound);
    assert_eq!(host.edit_switch("LAN", &kind(outside.clone())).unwrap().kind, outside);
    let revision = lab.revision();
    host.edit_switch("LAN", &SwitchEdit { kind: Some(outside), ..named("LAN") }).unwrap();
    assert_eq!(lab.revision(), revision, "nothing changes");
    assert_eq!(host.delete_switch("LAN").unwrap_err().reason(), Reason::InUse);
    assert!(host.bridges().iter().any(|bridge| bridge.name == "br0"));
}

/// A name that machines call a switch by is one that a switch has, whoever changes what at the same time.
#[test]
fn nobody_is_plugged_into_a_switch_that_is_gone() {
    let lab = Lab::new();
    let host = lab.host();
    let id = host.create_switch("one", SwitchKind::Private).unwrap().id.to_string();
    let machines: Vec<Uuid> = (0..4).map(|n| lab.on(&format!("m{n}"), "nat")).collect();
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| {
                for n in 0..60 {
                    let switch = if n % 3 == 0 { "nat" } else { id.as_str() };
                    // Read before the rename and written after it: told to look again, as with any change.
                    if let Err(e) = host.edit(*machine, &plug(switch)) {
                        assert_eq!(e.reason(), Reason::Busy);
                    }
                }
            });
        }
        scope.spawn(|| {
            for name in ["two", "three", "one"].into_iter().cycle().take(60) {
                host.edit_switch(&id, &named(name)).unwrap();
            }
        });
    });
    let there: Vec<String> = host.switches().unwrap().into_iter().map(|s| s.name).collect();
    assert!(machines.iter().all(|id| there.contains(&lab.switch_of(*id).unwrap())), "{there:?}");
}

#[test]
fn a_plan_that_nobody_mapped_keeps_its_switch_too() {
    let lab = Lab::new();
    let host = lab.host();
    host.create_switch("LAN", SwitchKind::Private).unwrap();
    let package = Package::new(lab.path("package"), Generation::Two).adapter("LAN").write();
    let plan = host.import(&ImportRequest { new_id: true, ..package.request() }).unwrap().record.id;
    host.edit_switch("LAN", &named("office")).unwrap();
    let view = host.validate_planned(plan).unwrap();
    assert_eq!(view.record.settings.adapters[0].switch.as_deref(), Some("office"));
}
