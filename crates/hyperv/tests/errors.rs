//! What every declared method answers to what it cannot do: a number that its own page lists, no fault, and nothing changed.
//!
//! Two tests. One calls every method of every class that has instances, in every state that a machine rests in, with
//! nothing, with values of other types, with references to what is not there, with garbage for instances, and as somebody
//! who may only look; the numbers are held against the value maps of the schema. The other is a table of states and numbers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use access::Action;
use cim::{Class, Instance, Method, Name, ObjectPath, Type, Value};
use machine::settings::Generation;
use support::{Lab, V2, ended, job_of, output, returned, settings, system};
use uuid::Uuid;
use wsman::Operations as _;

/// What a method is given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    Nothing,
    OtherTypes,
    Unknown,
    Garbage,
}

/// Methods that do something sensible with what the test gives them: without parameters, or where any text will do.
const CONTENT: &[(&str, Given)] = &[
    ("GetSummaryInformation", Given::Nothing),
    ("GetSummaryInformation", Given::Garbage),
    // One of many machines may go while its list is shown: it is left out of the summary, and the others are there.
    ("GetSummaryInformation", Given::Unknown),
    ("GetError", Given::Nothing),
    ("GetErrorEx", Given::Nothing),
    ("TypeCtrlAltDel", Given::Nothing),
    ("InitiateShutdown", Given::Nothing),
    ("InjectNonMaskableInterrupt", Given::Nothing),
    // Text that is typed.
    ("TypeText", Given::Unknown),
    ("TypeText", Given::Garbage),
    // A machine with nothing said of it is one with defaults, as with Hyper-V.
    ("DefineSystem", Given::Nothing),
    // Both of its parameters are for the guest to make something of, and nothing here reads them.
    ("InitiateShutdown", Given::OtherTypes),
    ("InitiateShutdown", Given::Unknown),
    ("InitiateShutdown", Given::Garbage),
];

/// Whether the value map of a method lists `code`, or its page is the short one of systems: it lists four numbers, of which
/// clients take 32775 for *is so already*, so other refusals have the numbers that the same service gives elsewhere.
fn listed(class: &Class, method: &Method, code: u64) -> bool {
    let map = method.qualifiers.iter().find(|q| q.name == "ValueMap");
    let Some(map) = map else { return code == 0 || (32768..=32778).contains(&code) };
    if class.name == "Msvm_ComputerSystem" && method.name == "RequestStateChange" {
        return (32768..=32778).contains(&code);
    }
    map.value.elements().iter().filter_map(Value::as_str).any(|entry| match entry.split_once("..") {
        None => entry.parse() == Ok(code),
        Some((from, to)) => match (from.parse::<u64>(), to.parse::<u64>()) {
            (Ok(from), Ok(to)) => (from..=to).contains(&code),
            _ => false,
        },
    })
}

/// A value for a parameter; none for one that the case leaves out.
fn value(ty: &Type, array: bool, embeds: Option<&str>, given: Given) -> Option<Value> {
    let unknown = Uuid::from_u128(0xdead).to_string().to_uppercase();
    let one: Value = match (given, ty) {
        (Given::Nothing, _) => return None,
        (Given::OtherTypes, Type::String | Type::Reference(_)) => true.into(),
        (Given::OtherTypes, _) => "x".into(),
        (_, Type::Reference(class)) => {
            let class =
                if class.as_str().starts_with("Msvm_") { class.as_str() } else { "Msvm_ComputerSystem" };
            let key = if class.ends_with("ComputerSystem") { "Name" } else { "InstanceID" };
            ObjectPath::new(class).with(key, unknown).into()
        }
        (Given::Unknown, Type::String) => match embeds {
            Some(class) => {
                Instance::new(class).with("InstanceID", format!(r"Microsoft:{unknown}\a\0\0\D")).into()
            }
            None => r"C:\nothing\here".into(),
        },
        (_, Type::String) => "<INSTANCE CLASSNAME=".into(),
        (_, Type::Boolean) => false.into(),
        (_, Type::Uint8) => 255_u8.into(),
        (_, Type::Uint16) => 999_u16.into(),
        (_, Type::Uint32) => 999_u32.into(),
        _ => return None,
    };
    Some(if array { Value::Array(vec![one]) } else { one })
}

/// Everything that a refusal must leave as it was.
fn everything(lab: &Lab) -> String {
    let machines: Vec<_> =
        lab.host.machines().unwrap().into_iter().map(|view| (view.record, view.power)).collect();
    let (planned, switches) = (lab.host.planned().unwrap(), lab.host.switches().unwrap());
    format!("{machines:?} {planned:?} {switches:?}")
}

/// One instance of each class that has methods and instances: of a machine, where there is one of a machine.
fn targets(lab: &Lab) -> Vec<(ObjectPath, Class)> {
    let schema = lab.hyperv.schema(V2).unwrap();
    let classes = schema.classes().filter(|class| !class.is_abstract() && !class.is_association());
    let mut found = Vec::new();
    for class in classes.filter(|class| !class.methods.is_empty()) {
        let mut all = lab.list(V2, class.name.as_str());
        all.retain(|one| one.class == class.name && one.text("Name") != Some("HOST"));
        if let Some(path) = all.into_iter().find_map(|one| one.path) {
            found.push((path, class.as_ref().clone()));
        }
    }
    found
}

/// A host with a machine, a plan of another, a switch, and a job that is over.
fn lab() -> (Lab, Uuid) {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let export = lab.manage(
        "ExportSystemDefinition",
        vec![("ComputerSystem", system(id).into()), ("ExportDirectory", r"C:\out".into())],
    );
    ended(&lab, &job_of(&export));
    let import = lab.manage(
        "ImportSystemDefinition",
        vec![("SystemDefinitionFile", r"C:\out".into()), ("GenerateNewSystemIdentifier", true.into())],
    );
    assert_eq!(returned(&import), 0);
    (lab, id)
}

#[test]
fn every_method_refuses_in_the_numbers_of_its_page_and_changes_nothing() {
    let (lab, id) = lab();
    let mut called = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for state in ["off", "running", "paused", "saved"] {
        match state {
            "running" => lab.host.start(id).unwrap(),
            "paused" => lab.host.pause(id).unwrap(),
            "saved" => {
                let job = lab.host.save(id, "ann").unwrap();
                assert!(lab.host.jobs().wait(job::JobId(job), support::PATIENCE).unwrap().state.is_success());
            }
            _ => {}
        }
        for (path, class) in targets(&lab) {
            for method in &class.methods {
                for given in [Given::Nothing, Given::OtherTypes, Given::Unknown, Given::Garbage] {
                    let input: Vec<_> = method.parameters.iter().filter(|p| p.input).collect();
                    if given != Given::Nothing && input.is_empty() {
                        continue;
                    }
                    let does = CONTENT.contains(&(method.name.as_str(), given));
                    if does && method.name.as_str().starts_with("Initiate") {
                        continue;
                    }
                    let parameters: Vec<(Name, Option<Value>)> = input
                        .iter()
                        .map(|p| (p.name.clone(), value(&p.ty, p.array, p.embedded(), given)))
                        .filter(|(_, value)| value.is_some())
                        .collect();
                    let before = everything(&lab);
                    let answer = lab.hyperv.invoke(&lab.call(), V2, &path, method.name.as_str(), parameters);
                    let what = format!("{}.{} given {given:?} while {state}", class.name, method.name);
                    called.insert(format!("{}.{}", class.name, method.name));
                    let code = match answer {
                        Ok(answer) => returned(&answer),
                        Err(fault) => {
                            wrong.push(format!("{what}: a fault: {fault}"));
                            continue;
                        }
                    };
                    if !listed(&class, method, code) {
                        wrong.push(format!("{what}: {code} is not on its page"));
                    }
                    if [0, 4096].contains(&code) {
                        if !does {
                            wrong.push(format!("{what}: done"));
                        }
                    } else if everything(&lab) != before {
                        wrong.push(format!("{what}: refused with {code}, and something has changed"));
                    }
                }
            }
        }
    }
    assert!(called.len() > 140, "{called:?}");
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// Somebody who may only look changes nothing, whatever they call.
#[test]
fn who_may_only_look_is_told_so_by_every_method() {
    let (lab, id) = lab();
    lab.host.start(id).unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&asked);
    *lab.rule.lock().unwrap() = Box::new(move |_, action, _| {
        told.lock().unwrap().push(action);
        action == Action::See
    });
    let before = everything(&lab);
    let mut wrong = Vec::new();
    for (path, class) in targets(&lab) {
        for method in &class.methods {
            asked.lock().unwrap().clear();
            let given = good(&lab, id, method);
            let code =
                returned(&lab.hyperv.invoke(&lab.call(), V2, &path, method.name.as_str(), given).unwrap());
            let what = format!("{}.{}", class.name, method.name);
            // What was asked of the policy is what the audit log says.
            let does = lab.hyperv.does(V2, class.name.as_str(), Some(method.name.as_str()));
            let asked = asked.lock().unwrap();
            let needed: Vec<_> = asked.iter().filter(|action| **action != Action::See).collect();
            if needed.iter().any(|action| action.word() != does) {
                wrong.push(format!("{what}: asked for {needed:?}, and the log would say {does}"));
            }
            if !needed.is_empty() && !listed(&class, method, code) {
                wrong.push(format!("{what}: {code} is not on its page"));
            }
            if needed.is_empty() && code == 0 && does != "see" {
                wrong.push(format!("{what}: done without being asked whether it may"));
            }
            if !needed.is_empty() && [0, 4096].contains(&code) {
                wrong.push(format!("{what}: done without permission"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(everything(&lab), before);
}

/// Parameters that would be taken, as far as that can be said without knowing the method.
fn good(lab: &Lab, id: Uuid, method: &Method) -> Vec<(Name, Option<Value>)> {
    let planned = lab.list(V2, "Msvm_PlannedComputerSystem").remove(0).path.unwrap();
    let input = method.parameters.iter().filter(|p| p.input);
    let given = input.filter_map(|p| {
        let one: Value = match (p.name.as_str(), &p.ty) {
            ("PlannedSystem", _) => planned.clone().into(),
            (_, Type::Reference(class)) if class.as_str().ends_with("SettingData") => settings(id).into(),
            (_, Type::Reference(_)) => system(id).into(),
            ("RequestedState", _) => 3_u16.into(),
            ("WidthPixels" | "HeightPixels", _) => 16_u16.into(),
            ("keyCode", _) => 0x41_u32.into(),
            (_, Type::String) => match p.embedded() {
                Some(class) => {
                    let instance = Instance::new(class);
                    let id = settings(id).text("InstanceID").unwrap().to_owned();
                    let has = lab.hyperv.schema(V2)?.class(class)?.property("InstanceID").is_some();
                    if has { instance.with("InstanceID", id) } else { instance }.into()
                }
                None if p.name == "asciiText" => "x".into(),
                None => r"C:\out".into(),
            },
            (_, Type::Boolean) => false.into(),
            (_, Type::Uint8) => 30_u8.into(),
            (_, Type::Uint32) => 0_u32.into(),
            _ => return None,
        };
        let one = if p.array { Value::Array(vec![one]) } else { one };
        Some((p.name.clone(), Some(one)))
    });
    given.collect()
}

/// A state, a method with what it is given, and what it returns: the table of refusals by state.
#[test]
fn what_a_state_does_not_allow_has_one_number_in_each_family() {
    let (lab, id) = lab();
    let me = || settings(id).text("InstanceID").unwrap().to_owned();
    let part = |class: &str, rest: &str| Instance::new(class).with("InstanceID", format!(r"{}\{rest}", me()));
    let processors = || part("Msvm_ProcessorSettingData", r"b637f346-6a0e-4dec-af52-bd70cb80a21d\0");
    let list = |instance: Instance| Value::Array(vec![instance.into()]);
    let manage = |method: &str, given: Vec<(&str, Value)>| returned(&lab.manage(method, given));
    let modify = || {
        let four = processors().with("VirtualQuantity", 4_u64);
        manage("ModifyResourceSettings", vec![("ResourceSettings", list(four))])
    };
    let add = || {
        let controller = Instance::new("Msvm_ResourceAllocationSettingData")
            .with("ResourceType", 6_u16)
            .with("ResourceSubType", "Microsoft:Hyper-V:Synthetic SCSI Controller");
        let given =
            vec![("AffectedConfiguration", settings(id).into()), ("ResourceSettings", list(controller))];
        manage("AddResourceSettings", given)
    };
    let secure = || {
        let other = part("Msvm_VirtualSystemSettingData", "").with("InstanceID", me());
        let other = other.with("SecureBootEnabled", false);
        manage("ModifySystemSettings", vec![("SystemSettings", other.into())])
    };
    let destroy = || manage("DestroySystem", vec![("AffectedSystem", system(id).into())]);
    let export = || {
        let given = vec![("ComputerSystem", system(id).into()), ("ExportDirectory", r"C:\again".into())];
        manage("ExportSystemDefinition", given)
    };
    let look = || {
        let given = vec![
            ("TargetSystem", settings(id).into()),
            ("WidthPixels", 8_u16.into()),
            ("HeightPixels", 8_u16.into()),
        ];
        manage("GetVirtualSystemThumbnailImage", given)
    };
    let ask = |state: u16| {
        returned(
            &lab.invoke(&system(id), "RequestStateChange", vec![("RequestedState", state.into())]).unwrap(),
        )
    };
    let states = |refused: &[u16]| refused.iter().map(|state| (*state, ask(*state))).collect::<Vec<_>>();
    let all = |refused: &[u16]| refused.iter().map(|state| (*state, 32775)).collect::<Vec<_>>();

    assert_eq!(look(), 32775);
    assert_eq!(states(&[3, 4, 6, 9, 11]), all(&[3, 4, 6, 9, 11]), "off");

    for state in ["running", "paused"] {
        if state == "running" {
            lab.host.start(id).unwrap();
        } else {
            lab.host.pause(id).unwrap();
        }
        // The list of this method ends at 4, and what is beyond is the vendor's.
        assert_eq!((modify(), add(), secure(), destroy()), (5, 32775, 5, 5), "{state}");
        assert_eq!(export(), 32775, "{state}");
    }
    assert_eq!(states(&[9]), all(&[9]), "paused");
    lab.host.resume(id).unwrap();
    assert_eq!(states(&[2]), all(&[2]), "running");
    ended(
        &lab,
        &job_of(
            &lab.invoke(&system(id), "RequestStateChange", vec![("RequestedState", 6_u16.into())]).unwrap(),
        ),
    );
    assert_eq!((modify(), add(), secure(), look()), (5, 32775, 5, 32775), "saved");
    assert_eq!(states(&[4, 6, 9, 11]), all(&[4, 6, 9, 11]), "saved");

    let size = lab.manage("GetSizeOfSystemFiles", vec![("Vssd", settings(id).into())]);
    assert_eq!(returned(&size), 0);
    assert!(output(&size, "Size").unwrap().as_u64().unwrap() > 0, "its memory is there");
}
