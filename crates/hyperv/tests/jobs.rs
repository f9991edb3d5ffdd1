//! Jobs as clients see them: what ends them, what they say, how long they are told of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cim::{Instance, ObjectPath, Value, embedded};
use machine::Ambient;
use machine::power::PowerState;
use machine::settings::Generation;
use support::{Lab, PATIENCE, V2, ended, job_of, output, over, returned, system};
use wsman::{FailureKind, Operations as _};

fn ask(lab: &Lab, path: &ObjectPath, state: u16) -> wsman::Output {
    lab.invoke(path, "RequestStateChange", vec![("RequestedState", state.into())]).unwrap()
}

fn seen(lab: &Lab, path: &ObjectPath) -> Instance {
    lab.hyperv.get(&lab.call(), V2, path).unwrap()
}

/// Five minutes after its end a job is forgotten, and not before: by a clock that the test moves.
#[test]
fn a_job_is_told_of_for_five_minutes_after_its_end() {
    let clock = Arc::new(job::ManualClock::new());
    let lab = Lab::within(Ambient { clock: Arc::clone(&clock) as _, ..Ambient::default() });
    let id = lab.machine("web", Generation::Two).record.id;
    let start = job_of(&ask(&lab, &system(id), 2));
    ended(&lab, &start);
    // A job of the domain beside one that lives in this process.
    let save = job_of(&ask(&lab, &system(id), 6));
    ended(&lab, &save);
    for job in [&start, &save] {
        assert_eq!(seen(&lab, job).get("ElapsedTime").unwrap().to_string(), "00000000000000.000000:000");
    }
    clock.advance(Duration::from_secs(299));
    assert_eq!(lab.list(V2, "Msvm_ConcreteJob").len(), 2);
    for job in [&start, &save] {
        assert_eq!(seen(&lab, job).get("JobState"), Some(&Value::Uint16(7)));
    }
    clock.advance(Duration::from_secs(1));
    assert!(lab.list(V2, "Msvm_ConcreteJob").is_empty());
    for job in [&start, &save] {
        let gone = lab.hyperv.get(&lab.call(), V2, job).unwrap_err();
        assert_eq!(gone.kind, FailureKind::NotFound);
    }
    assert!(lab.associators(&system(id), &over("Msvm_AffectedJobElement")).is_empty());
}

#[test]
fn waiting_for_a_guest_that_does_not_listen_can_be_ended() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.host.start(id).unwrap();
    lab.sim.control(id).unwrap().obeys_shutdown(false);
    for end in [5_u16, 4] {
        let job = job_of(&ask(&lab, &system(id), 4));
        let under_way = seen(&lab, &job);
        assert_eq!(under_way.get("JobState"), Some(&Value::Uint16(4)));
        assert_eq!(under_way.get("Cancellable"), Some(&Value::Boolean(true)));
        assert_eq!(under_way.get("PercentComplete"), Some(&Value::Uint16(0)));
        assert!(under_way.text("JobStatus").unwrap().contains("shut down"));
        assert!(lab.host.wait_for(id, PowerState::ShuttingDown, PATIENCE));
        assert_eq!(seen(&lab, &system(id)).get("EnabledState"), Some(&Value::Uint16(4)));
        assert_eq!(returned(&ask(&lab, &job, end)), 0);
        let over = ended(&lab, &job);
        assert_eq!(over.get("JobState"), Some(&Value::Uint16(9)));
        assert_eq!(over.get("ErrorCode"), Some(&Value::Uint16(0)));
        assert_eq!(over.get("Cancellable"), Some(&Value::Boolean(false)));
        assert_eq!(returned(&ask(&lab, &job, end)), 4097, "it is over");
        let kill = lab.invoke(&job, "KillJob", vec![("DeleteOnKill", true.into())]).unwrap();
        assert_eq!(returned(&kill), 4);
        assert_eq!(lab.host.machine(id).unwrap().power, PowerState::Running);
    }
    let job = job_of(&ask(&lab, &system(id), 4));
    let kill = lab.invoke(&job, "KillJob", vec![("DeleteOnKill", false.into())]).unwrap();
    assert_eq!(returned(&kill), 0);
    assert_eq!(ended(&lab, &job).get("JobState"), Some(&Value::Uint16(9)));
}

/// Only who may operate, and who began it, ends a job.
#[test]
fn a_job_is_ended_by_whoever_began_it_or_may_operate() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.host.start(id).unwrap();
    lab.sim.control(id).unwrap().obeys_shutdown(false);
    let job = job_of(&ask(&lab, &system(id), 4));
    *lab.rule.lock().unwrap() = Box::new(|who, action, _| who == "ann" || action == access::Action::See);
    let other = |method: &str, parameters: Vec<(&str, Value)>| {
        let mut call = lab.call();
        call.principal.user = "eve".to_owned();
        let parameters = parameters.into_iter().map(|(name, value)| (name.into(), Some(value))).collect();
        returned(&lab.hyperv.invoke(&call, V2, &job, method, parameters).unwrap())
    };
    assert_eq!(other("RequestStateChange", vec![("RequestedState", 5_u16.into())]), 32769);
    assert_eq!(other("KillJob", vec![("DeleteOnKill", false.into())]), 6);
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == access::Action::See);
    assert_eq!(returned(&ask(&lab, &job, 5)), 0, "who began it ends it");
    assert_eq!(ended(&lab, &job).get("JobState"), Some(&Value::Uint16(9)));
}

/// An export that is in the way is told by the job, with its errors, and what is there stays.
#[test]
fn an_export_over_an_existing_one_is_a_job_that_failed() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let export = || {
        lab.manage(
            "ExportSystemDefinition",
            vec![("ComputerSystem", system(id).into()), ("ExportDirectory", r"C:\out".into())],
        )
    };
    assert_eq!(ended(&lab, &job_of(&export())).get("JobState"), Some(&Value::Uint16(7)));
    let manifest = std::fs::read(lab.path("c/out/Slipway/manifest.json")).unwrap();
    let job = ended(&lab, &job_of(&export()));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(10)));
    assert_eq!(job.get("JobType"), Some(&Value::Uint16(62)));
    assert_eq!(job.get("ErrorCode"), Some(&Value::Uint16(32768)));
    let path = job.path.clone().unwrap();
    let errors = lab.invoke(&path, "GetErrorEx", vec![]).unwrap();
    let texts = output(&errors, "Errors").unwrap();
    let schema = lab.hyperv.schema(V2).unwrap().clone();
    let error = embedded::read(texts.elements()[0].as_str().unwrap(), &schema).unwrap();
    assert!(error.text("Message").unwrap().contains("not empty"), "{error:?}");
    assert_eq!(lab.associators(&path, &over("Msvm_AffectedJobElement"))[0].text("ElementName"), Some("web"));
    assert_eq!(std::fs::read(lab.path("c/out/Slipway/manifest.json")).unwrap(), manifest);
    assert!(lab.host.wait_for(id, PowerState::Off, PATIENCE));
}
