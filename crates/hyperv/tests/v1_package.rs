//! Packages by the methods of 2008: what they are told, what they answer, and what comes of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::panic, reason = "as above")]

mod support;

use cim::{Instance, Name, ObjectPath, Value};
use machine::settings::Generation;
use support::{Lab, job_of, output, returned, system};
use uuid::Uuid;
use wsman::{Operations as _, Output};

const V1: &str = "root/virtualization";

fn manage(lab: &Lab, method: &str, parameters: Vec<(&str, Value)>) -> Output {
    let service = ObjectPath::new("Msvm_VirtualSystemManagementService").with("Name", "vmms");
    let parameters = parameters.into_iter().map(|(name, value)| (Name::from(name), Some(value))).collect();
    lab.hyperv.invoke(&lab.call(), V1, &service, method, parameters).unwrap()
}

/// The job's state once it is over, and what it is called.
fn ended(lab: &Lab, answer: &Output) -> (u64, String) {
    let job = job_of(answer);
    assert_eq!(job.namespace.as_deref(), Some(V1));
    let seen = support::ended(lab, &job.within(support::V2));
    let here = lab.list(V1, "Msvm_ConcreteJob");
    let here = here.iter().find(|one| one.text("InstanceID") == seen.text("InstanceID")).unwrap();
    let state = here.get("JobState").and_then(Value::as_u64).unwrap();
    (state, here.text("Caption").unwrap().to_owned())
}

fn exported(lab: &Lab, id: Uuid, directory: &str) {
    let answer = manage(
        lab,
        "ExportVirtualSystem",
        vec![
            ("ComputerSystem", system(id).into()),
            ("CopyVmState", true.into()),
            ("ExportDirectory", directory.into()),
        ],
    );
    assert_eq!(ended(lab, &answer), (7, "Exporting Virtual Machine".to_owned()));
}

fn texts(instance: &Instance, name: &str) -> Vec<String> {
    instance.get(name).unwrap().elements().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_an_import_would_do_is_told_and_done_otherwise() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    exported(&lab, id, r"C:\out");
    assert!(lab.path("c/out/web/config.xml").exists(), "always a folder of the machine's name");

    let directory = Value::from(r"C:\out\web");
    let answer =
        manage(&lab, "GetVirtualSystemImportSettingData", vec![("ImportDirectory", directory.clone())]);
    assert_eq!(returned(&answer), 0);
    let Some(Value::Object(settings)) = output(&answer, "ImportSettingData") else { panic!("no settings") };
    for (flag, text) in [("GenerateNewId", "Name"), ("CreateCopy", "ElementName")] {
        assert_eq!(settings.get(flag).and_then(Value::as_bool), Some(true));
        assert_eq!(settings.text(text), Some("web"));
    }
    assert_eq!(settings.text("SourceVmDataRoot"), Some(r"C:\out\web"));
    assert_eq!(settings.text("SourceVhdDataRoot"), Some(r"C:\out\web\Virtual Hard Disks"));
    let (current, source) = (texts(settings, "CurrentResourcePaths"), texts(settings, "SourceResourcePaths"));
    assert_eq!((current.len(), source.len()), (1, 1), "they stand beside one another");
    assert!(source[0].starts_with(r"C:\out\web\Virtual Hard Disks\"), "{source:?}");
    assert_eq!(texts(settings, "SourceNetworkConnections"), ["nat"]);

    // Sent back as it came, it is a copy under a new id.
    let import = |settings: &Instance| {
        manage(
            &lab,
            "ImportVirtualSystemEx",
            vec![("ImportDirectory", directory.clone()), ("ImportSettingData", settings.clone().into())],
        )
    };
    let answer = import(settings);
    assert_eq!(ended(&lab, &answer), (7, "Importing Virtual Machine".to_owned()));
    let affected = lab
        .hyperv
        .associators(&lab.call(), V1, &job_of(&answer), &support::over("Msvm_AffectedJobElement"))
        .unwrap();
    let affected: Vec<_> = affected.map(Result::unwrap).collect();
    assert_eq!(affected.len(), 1);
    assert_ne!(affected[0].text("Name"), Some(id.to_string().to_uppercase().as_str()));

    let told = settings
        .as_ref()
        .clone()
        .with("Name", "moved")
        .with("TargetVhdDataRoot", r"C:\disks")
        .with("TargetVmDataRoot", r"C:\machines")
        .with("TargetNetworkConnections", vec![""]);
    assert_eq!(ended(&lab, &import(&told)).0, 7);
    let machines = lab.host.machines().unwrap();
    let moved = machines.iter().find(|m| m.record.settings.name == "moved").unwrap();
    assert!(moved.record.home.starts_with(lab.path("c/machines")));
    assert!(moved.disks[0].leaf().unwrap().path.starts_with(lab.path("c/disks")));
    assert_eq!(moved.record.settings.adapters[0].switch, None, "an empty name is no switch");
    assert!(lab.path(&format!("c/out/web/Virtual Machines/{}.exp", id.to_string().to_uppercase())).exists());
    assert!(lab.host.planned().unwrap().is_empty());

    // With the id of a machine that is here it fails, and the job says why.
    let answer = import(&settings.as_ref().clone().with("GenerateNewId", false));
    let job = job_of(&answer);
    assert_eq!(ended(&lab, &answer).0, 10);
    let errors = lab.hyperv.invoke(&lab.call(), V1, &job, "GetErrorEx", Vec::new()).unwrap();
    let errors = format!("{:?}", output(&errors, "Errors"));
    assert!(errors.contains("duplicate-id"), "{errors}");
    assert_eq!(lab.host.machines().unwrap().len(), 3);
}

#[test]
fn arguments_are_looked_at_before_there_is_a_job() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    let new = lab.machine("new", Generation::Two).record.id;
    exported(&lab, id, r"C:\out");
    let import = |name: &str, value: Value| {
        let settings = Instance::new("Msvm_VirtualSystemImportSettingData").with(name, value);
        vec![("ImportDirectory", r"C:\out\web".into()), ("ImportSettingData", settings.into())]
    };
    let export = |id: Uuid, to: &str| {
        vec![
            ("ComputerSystem", Value::from(system(id))),
            ("CopyVmState", true.into()),
            ("ExportDirectory", to.into()),
        ]
    };
    for (method, parameters, code) in [
        ("ExportVirtualSystem", export(Uuid::nil(), r"C:\x"), 32773),
        ("ExportVirtualSystem", export(id, "relative"), 32773),
        ("ExportVirtualSystem", export(id, r"D:\x"), 32769),
        ("ExportVirtualSystem", export(new, r"C:\new"), 32770),
        ("ExportVirtualSystem", vec![("ComputerSystem", system(id).into())], 32773),
        ("ImportVirtualSystem", vec![("ImportDirectory", r"C:\nothing".into())], 32773),
        ("ImportVirtualSystem", vec![], 32773),
        ("GetVirtualSystemImportSettingData", vec![("ImportDirectory", r"C:\out\..\..".into())], 32769),
        ("ImportVirtualSystemEx", import("SourceResourcePaths", vec!["", ""].into()), 32773),
        ("ImportVirtualSystemEx", import("TargetResourcePaths", vec![r"D:\a.vhd"].into()), 32769),
        ("ImportVirtualSystemEx", import("TargetVhdDataRoot", "disks".into()), 32773),
        ("ImportVirtualSystemEx", import("SourceVmDataRoot", r"C:\nothing".into()), 32773),
    ] {
        assert_eq!(returned(&manage(&lab, method, parameters.clone())), code, "{method} {parameters:?}");
    }
    // That something is in the way there the job says.
    let over = manage(&lab, "ExportVirtualSystem", export(id, r"C:\out"));
    assert_eq!(ended(&lab, &over).0, 10);
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == access::Action::See);
    for (method, parameters) in
        [("ExportVirtualSystem", export(id, r"C:\x")), ("ImportVirtualSystemEx", import("Name", "x".into()))]
    {
        assert_eq!(returned(&manage(&lab, method, parameters)), 32769, "{method}");
    }
    assert_eq!(lab.host.machines().unwrap().len(), 2);
}
