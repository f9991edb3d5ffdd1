//! States, jobs, screen and keyboard.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use access::Action;
use cim::{Instance, ObjectPath, Value, embedded};
use machine::power::PowerState;
use machine::settings::Generation;
use support::{Lab, PATIENCE, V2, ended, job_of, output, over, returned, settings, system};
use wsman::{FailureKind, Operations as _};

fn ask(lab: &Lab, path: &ObjectPath, state: u16) -> wsman::Output {
    lab.invoke(path, "RequestStateChange", vec![("RequestedState", state.into())]).unwrap()
}

#[test]
fn a_machine_is_started_by_a_job_that_says_how_it_went() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let started = ask(&lab, &system(id), 2);
    assert_eq!(returned(&started), 4096);
    let job = ended(&lab, &job_of(&started));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(7)));
    assert_eq!(job.get("JobType"), Some(&Value::Uint16(11)));
    assert_eq!(job.get("PercentComplete"), Some(&Value::Uint16(100)));
    assert_eq!(job.get("TimeBeforeRemoval").unwrap().to_string(), "00000000000500.000000:000");
    let affected = lab.associators(job.path.as_ref().unwrap(), &over("Msvm_AffectedJobElement"));
    assert_eq!(affected[0].text("ElementName"), Some("web"));
    assert_eq!(affected[0].get("EnabledState"), Some(&Value::Uint16(2)));
    let jobs = lab.associators(&system(id), &over("Msvm_AffectedJobElement"));
    assert_eq!(jobs.len(), 1);

    for (state, then) in [(9, 9), (2, 2), (11, 2), (6, 6), (2, 2), (3, 3)] {
        let asked = ask(&lab, &system(id), state);
        assert!([0, 4096].contains(&returned(&asked)), "{state}: {}", returned(&asked));
        if returned(&asked) == 4096 {
            let job = ended(&lab, &job_of(&asked));
            assert_eq!(job.get("ErrorCode"), Some(&Value::Uint16(0)), "{job:?}");
        }
        let now = lab.hyperv.get(&lab.call(), V2, &system(id)).unwrap();
        assert_eq!(now.get("EnabledState"), Some(&Value::Uint16(then)), "after {state}");
    }
}

#[test]
fn what_a_state_does_not_allow_is_said_in_the_return_value() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    for (state, code) in [
        (3, 32775),
        (4, 32775),
        (6, 32775),
        (9, 32775),
        (11, 32775),
        (8, 32770),
        (32779, 32770),
        (5, 32773),
        (99, 32773),
    ] {
        assert_eq!(returned(&ask(&lab, &system(id), state)), code, "state {state}");
    }
    let nothing = lab.invoke(&system(id), "RequestStateChange", vec![]).unwrap();
    assert_eq!(returned(&nothing), 32773);
    let host = ObjectPath::new("Msvm_ComputerSystem").with("Name", "HOST");
    assert_eq!(returned(&ask(&lab, &host, 2)), 32773);
    let interrupt = || returned(&lab.invoke(&system(id), "InjectNonMaskableInterrupt", vec![]).unwrap());
    assert_eq!(interrupt(), 32775, "it is off");
    let custom = lab.invoke(&system(id), "RequestCustomRestore", vec![]).unwrap();
    assert_eq!(returned(&custom), 32770, "declared and not built");
    assert_eq!(output(&custom, "Job"), None);
    let failure = lab.invoke(&system(id), "NoSuchMethod", vec![]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::MethodNotFound);
    let failure = lab.invoke(&system(id), "RequestStateChange", vec![("State", 2_u16.into())]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidParameter("State".into()));
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == Action::See);
    assert_eq!(returned(&ask(&lab, &system(id), 2)), 32769);
    assert_eq!(lab.host.machine(id).unwrap().power, PowerState::Off);
}

#[test]
fn a_job_that_failed_gives_its_errors_as_texts() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::Two);
    std::fs::remove_file(&machine.disks[0].layers[0].path).unwrap();
    let started = ask(&lab, &system(machine.record.id), 2);
    let job = ended(&lab, &job_of(&started));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(10)));
    assert_ne!(job.get("ErrorCode"), Some(&Value::Uint16(0)));
    assert_eq!(job.get("OperationalStatus"), Some(&Value::from(vec![6_u16])));
    let path = job.path.clone().unwrap();
    let schema = lab.hyperv.schema(V2).unwrap().clone();
    let errors = lab.invoke(&path, "GetErrorEx", vec![]).unwrap();
    let texts = output(&errors, "Errors").unwrap().clone();
    let error = embedded::read(texts.elements()[0].as_str().unwrap(), &schema).unwrap();
    assert_eq!(error.class.as_str(), "Msvm_Error");
    assert_eq!(error.text("Message"), job.text("ErrorDescription"));
    let one = lab.invoke(&path, "GetError", vec![]).unwrap();
    assert_eq!(output(&one, "Error"), Some(&texts.elements()[0]));
    let said = lab.manage("FormatError", vec![("Errors", texts)]);
    assert_eq!(output(&said, "ErrorMessage").unwrap().as_str(), job.text("ErrorDescription"));
    assert_eq!(returned(&ask(&lab, &path, 4)), 4097, "it is over");
    assert_eq!(returned(&ask(&lab, &path, 3)), 1);
    assert_eq!(returned(&ask(&lab, &path, 9)), 5);
    let missing = ObjectPath::new("Msvm_ConcreteJob").with("InstanceID", "7");
    assert_eq!(lab.invoke(&missing, "GetError", vec![]).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn a_guest_is_interrupted_and_asked_to_reboot() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.host.start(id).unwrap();
    let interrupt = lab.invoke(&system(id), "InjectNonMaskableInterrupt", vec![]).unwrap();
    assert_eq!(returned(&interrupt), 0);
    assert_eq!(lab.sim.control(id).unwrap().interrupts(), 1);
    let component = lab.list(V2, "Msvm_ShutdownComponent").remove(0).path.unwrap();
    let reboot = || {
        let given = vec![("Force", false.into()), ("Reason", "test".into())];
        returned(&lab.invoke(&component, "InitiateReboot", given).unwrap())
    };
    assert_eq!(reboot(), 32770, "nobody in it takes the order");
    let listens = engine::sim::Behaviour { agent: true, ..lab.sim.behaviour(id) };
    lab.sim.set_behaviour(id, listens).unwrap();
    assert_eq!(reboot(), 0);
    assert_eq!(lab.host.machine(id).unwrap().power, PowerState::Running);
    assert_eq!(returned(&lab.invoke(&component, "InitiateHibernate", vec![]).unwrap()), 32770);
}

#[test]
fn a_guest_is_asked_to_shut_down() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    assert!(lab.list(V2, "Msvm_ShutdownComponent").is_empty(), "no guest, nobody to ask");
    lab.host.start(id).unwrap();
    let component = lab.list(V2, "Msvm_ShutdownComponent").remove(0).path.unwrap();
    let asked = lab
        .invoke(&component, "InitiateShutdown", vec![("Force", true.into()), ("Reason", "test".into())])
        .unwrap();
    assert_eq!(returned(&asked), 0);
    assert!(lab.host.wait_for(id, PowerState::Off, PATIENCE));
}

#[test]
fn a_screen_is_looked_at_and_a_keyboard_typed_on() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let look = |width: u16, height: u16| {
        lab.manage(
            "GetVirtualSystemThumbnailImage",
            vec![
                ("TargetSystem", settings(id).into()),
                ("WidthPixels", width.into()),
                ("HeightPixels", height.into()),
            ],
        )
    };
    assert_eq!(returned(&look(80, 60)), 32775, "no guest");
    lab.host.start(id).unwrap();
    let seen = look(320, 200);
    assert_eq!(returned(&seen), 0);
    let image = output(&seen, "ImageData").unwrap().elements();
    assert_eq!(image.len(), 320 * 200 * 2);
    assert!(image.iter().any(|byte| *byte != Value::Uint8(0)), "what the simulator shows is not black");
    assert_eq!(returned(&look(0, 60)), 32773);
    assert_eq!(returned(&look(80, 4000)), 32773);

    let keyboard = lab.list(V2, "Msvm_Keyboard").remove(0).path.unwrap();
    let press = |method: &str, parameters| returned(&lab.invoke(&keyboard, method, parameters).unwrap());
    assert_eq!(press("TypeText", vec![("asciiText", "Hello".into())]), 0);
    assert_eq!(press("TypeText", vec![("asciiText", "é".into())]), 32773);
    assert_eq!(press("TypeKey", vec![("keyCode", 0x41_u32.into())]), 0);
    assert_eq!(press("TypeKey", vec![("keyCode", 0xff_u32.into())]), 32770);
    assert_eq!(press("TypeCtrlAltDel", vec![]), 0);
    let pressed = |code: u32| {
        let asked = lab.invoke(&keyboard, "IsKeyPressed", vec![("keyCode", code.into())]).unwrap();
        output(&asked, "keyState").and_then(Value::as_bool)
    };
    assert_eq!(press("PressKey", vec![("keyCode", 0x10_u32.into())]), 0);
    assert_eq!(press("PressKey", vec![("keyCode", 0xbd_u32.into())]), 0, "minus");
    assert_eq!((pressed(0x10), pressed(0x11)), (Some(true), Some(false)));
    assert_eq!(press("ReleaseKey", vec![("keyCode", 0x10_u32.into())]), 0);
    assert_eq!(pressed(0x10), Some(false));
    assert_eq!(press("PressKey", vec![("keyCode", 0xff_u32.into())]), 32770);
    assert_eq!(press("TypeScancodes", vec![("Scancodes", vec![0x1e_u8, 0x9e].into())]), 0);
    assert_eq!(press("TypeScancodes", vec![("Scancodes", vec![0x7f_u8].into())]), 32773);
    lab.host.pause(id).unwrap();
    assert_eq!(press("PressKey", vec![("keyCode", 0x41_u32.into())]), 32775, "its processors stand");
    let strokes = lab.sim.control(id).unwrap().strokes();
    let strokes: Vec<_> =
        strokes.iter().map(|s| format!("{}{}", if s.down { '+' } else { '-' }, s.key)).collect();
    assert_eq!(strokes, ["+shift", "+-", "-shift", "+a", "-a"]);
    let _: Instance = lab.list(V2, "Msvm_VideoHead").remove(0);
}
