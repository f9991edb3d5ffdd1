//! Events: what happens to instances, as subscribers are told of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use access::Action;
use cim::query::{Query, Select};
use cim::{Instance, Value};
use machine::define::MachineEdit;
use machine::settings::Generation;
use support::{Lab, PATIENCE, V2, ended, job_of, system};
use wsman::{Call, Events, FailureKind, Operations, Principal};

/// A subscriber that is woken.
struct Ear {
    events: Box<dyn Events>,
    woken: Receiver<()>,
}

fn select(text: &str) -> Select {
    match text.parse().unwrap() {
        Query::Select(select) => select,
        Query::Related(_) => panic!("{text}"),
    }
}

impl Ear {
    fn of(lab: &Lab, query: &str) -> Self {
        Self::of_user(lab, "ann", query)
    }

    fn of_user(lab: &Lab, user: &str, query: &str) -> Self {
        let principal = Principal { user: user.to_owned(), from: "127.0.0.1:1".to_owned() };
        let call = Call { principal, ..lab.call() };
        let mut events = lab.hyperv.subscribe(&call, V2, select(query)).unwrap();
        let (wake, woken) = mpsc::channel();
        events.wake(Box::new(move || {
            let _ = wake.send(());
        }));
        Self { events, woken }
    }

    /// The next event that `wanted` lets through.
    fn hear(&mut self, wanted: impl Fn(&Instance) -> bool) -> Arc<Instance> {
        loop {
            for event in self.events.fetch(1).events {
                if wanted(&event) {
                    return event;
                }
            }
            self.woken.recv_timeout(PATIENCE).unwrap();
        }
    }
}

/// What a property of the instance inside says.
fn inside<'e>(event: &'e Instance, about: &str, property: &str) -> Option<&'e Value> {
    event.get(about)?.as_instance()?.get(property)
}

fn number(event: &Instance, about: &str, property: &str) -> Option<u64> {
    inside(event, about, property).and_then(Value::as_u64)
}

#[test]
fn a_machine_comes_to_be_changes_and_goes() {
    let lab = Lab::new();
    let mut ear = Ear::of(
        &lab,
        "SELECT * FROM __InstanceOperationEvent WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem'",
    );
    let machine = lab.machine("web", Generation::Two);
    let made = ear.hear(|_| true);
    assert_eq!(made.class, "__InstanceCreationEvent");
    assert_eq!(inside(&made, "TargetInstance", "ElementName").and_then(Value::as_str), Some("web"));
    assert!(made.get("TIME_CREATED").and_then(Value::as_u64).unwrap() > 0);

    lab.host.start(machine.record.id).unwrap();
    let running = ear.hear(|event| number(event, "TargetInstance", "EnabledState") == Some(2));
    assert_eq!(running.class, "__InstanceModificationEvent");
    assert_ne!(number(&running, "PreviousInstance", "EnabledState"), Some(2));

    lab.host.stop(machine.record.id).unwrap();
    ear.hear(|event| number(event, "TargetInstance", "EnabledState") == Some(3));
    lab.host.delete(machine.record.id, false).unwrap();
    let gone = ear.hear(|event| event.class == "__InstanceDeletionEvent");
    assert_eq!(inside(&gone, "TargetInstance", "ElementName").and_then(Value::as_str), Some("web"));
}

#[test]
fn a_condition_compares_what_is_with_what_was() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::One);
    let mut ear = Ear::of(
        &lab,
        "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA 'Msvm_VirtualSystemSettingData' AND \
         SourceInstance.ElementName <> PreviousInstance.ElementName",
    );
    let notes = MachineEdit { notes: Some("changed".to_owned()), ..MachineEdit::default() };
    lab.host.edit(machine.record.id, &notes).unwrap();
    let name = MachineEdit { name: Some("www".to_owned()), ..MachineEdit::default() };
    lab.host.edit(machine.record.id, &name).unwrap();
    let renamed = ear.hear(|_| true);
    assert_eq!(inside(&renamed, "PreviousInstance", "ElementName").and_then(Value::as_str), Some("web"));
    assert_eq!(inside(&renamed, "SourceInstance", "ElementName").and_then(Value::as_str), Some("www"));
    assert!(renamed.text("SourceInstanceModelPath").unwrap().contains("Msvm_VirtualSystemSettingData"));
}

#[test]
fn a_job_is_told_of_from_its_beginning_to_its_end() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::Two);
    let mut ear =
        Ear::of(&lab, "select * from CIM_InstIndication where SourceInstance isa 'Msvm_ConcreteJob'");
    let start = vec![("RequestedState", Value::from(2_u16))];
    let answer = lab.invoke(&system(machine.record.id), "RequestStateChange", start).unwrap();
    let job = job_of(&answer);
    let id = job.text("InstanceID").unwrap();
    let ours =
        |event: &Instance| inside(event, "SourceInstance", "InstanceID").and_then(Value::as_str) == Some(id);
    let made = ear.hear(ours);
    assert_eq!(made.class, "CIM_InstCreation");
    // One that is over before anybody looked is told of once.
    if number(&made, "SourceInstance", "JobState") != Some(7) {
        ear.hear(|event| ours(event) && number(event, "SourceInstance", "JobState") == Some(7));
    }
    ended(&lab, &job);
}

#[test]
fn who_may_not_see_a_machine_hears_nothing_of_it() {
    let lab = Lab::new();
    let query = "SELECT * FROM __InstanceCreationEvent WHERE TargetInstance ISA 'Msvm_ComputerSystem'";
    // Who subscribed first is asked about first: when ann has heard, it was judged what eve may hear.
    let mut deaf = Ear::of_user(&lab, "eve", query);
    let mut ear = Ear::of(&lab, query);
    *lab.rule.lock().unwrap() = Box::new(|user, action, _| user == "ann" || action != Action::See);
    lab.machine("web", Generation::Two);
    ear.hear(|_| true);
    *lab.rule.lock().unwrap() = Box::new(|_, _, _| true);
    lab.machine("open", Generation::Two);
    let heard = deaf.hear(|_| true);
    assert_eq!(inside(&heard, "TargetInstance", "ElementName").and_then(Value::as_str), Some("open"));
}

#[test]
fn who_fetches_nothing_is_told_how_much_it_missed() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::Two);
    let query =
        "SELECT * FROM __InstanceModificationEvent WHERE TargetInstance ISA 'Msvm_VirtualSystemSettingData'";
    let mut slow = Ear::of(&lab, query);
    let mut ear = Ear::of(&lab, query);
    for n in 0..1100 {
        let edit = MachineEdit { notes: Some(format!("note {n}")), ..MachineEdit::default() };
        lab.host.edit(machine.record.id, &edit).unwrap();
        // Whoever fetches is told of each.
        ear.hear(|event| {
            let notes = inside(event, "TargetInstance", "Notes");
            notes.is_some_and(|notes| notes.to_string().contains(&format!("note {n}")))
        });
    }
    let fetched = slow.events.fetch(5000);
    assert_eq!(fetched.events.len(), 1000);
    assert_eq!(fetched.dropped, 100);
    assert_eq!(slow.events.fetch(1).dropped, 0);
}

#[test]
fn what_is_never_told_of_is_refused() {
    let lab = Lab::new();
    let refused = |namespace: &str, text: &str| {
        lab.hyperv.subscribe(&lab.call(), namespace, select(text)).err().map(|failure| failure.kind)
    };
    let unsupported = Some(FailureKind::NotSupported);
    assert_eq!(refused(V2, "SELECT * FROM Msvm_ComputerSystem"), unsupported);
    assert_eq!(refused(V2, "SELECT * FROM CIM_AlertIndication"), unsupported);
    let never =
        "SELECT * FROM __InstanceCreationEvent WHERE TargetInstance ISA 'Msvm_ReplicationRelationship'";
    assert_eq!(refused(V2, never), unsupported);
    assert_eq!(refused("root/cimv2", "SELECT * FROM __InstanceCreationEvent"), unsupported);
    assert_eq!(refused(V2, "SELECT * FROM __InstanceCreationEvent"), None);
}
