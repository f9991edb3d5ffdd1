//! `root/virtualization`: the same machines in the words of 2008.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use cim::{Instance, Name, ObjectPath, Value};
use machine::power::PowerState;
use machine::settings::{AutomaticStart, AutomaticStop, Generation};
use support::{Lab, MIB, V2, ended, output, over, returned, settings, system};
use uuid::Uuid;
use wsman::{Operations, Output};

const V1: &str = "root/virtualization";

fn invoke(lab: &Lab, path: &ObjectPath, method: &str, parameters: Vec<(&str, Value)>) -> Output {
    let parameters = parameters.into_iter().map(|(name, value)| (Name::from(name), Some(value))).collect();
    lab.hyperv.invoke(&lab.call(), V1, path, method, parameters).unwrap()
}

fn manage(lab: &Lab, method: &str, parameters: Vec<(&str, Value)>) -> Output {
    let service = ObjectPath::new("Msvm_VirtualSystemManagementService").with("Name", "vmms");
    invoke(lab, &service, method, parameters)
}

fn associators(lab: &Lab, from: &ObjectPath, association: &str) -> Vec<Instance> {
    let found = lab.hyperv.associators(&lab.call(), V1, from, &over(association)).unwrap();
    found.map(Result::unwrap).collect()
}

fn guid(id: Uuid) -> String {
    id.to_string().to_uppercase()
}

fn state(lab: &Lab, id: Uuid) -> u64 {
    let path = format!(r#"Msvm_ComputerSystem.Name="{}""#, guid(id));
    lab.get(V1, &path).unwrap().get("EnabledState").and_then(Value::as_u64).unwrap()
}

#[test]
fn the_same_machine_is_there_in_other_words() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    let systems = lab.list(V1, "Msvm_ComputerSystem");
    assert_eq!(systems.len(), 2, "the host and the machine");
    let path = systems[1].path.clone().unwrap();
    assert_eq!(path.namespace.as_deref(), Some(V1));

    let current = &associators(&lab, &system(id), "Msvm_SettingsDefineState")[0];
    assert_eq!(current.class, "Msvm_VirtualSystemSettingData");
    assert_eq!(current.get("SettingType").and_then(Value::as_u64), Some(3));
    assert_eq!(current.get("VirtualSystemType").and_then(Value::as_u64), Some(301));
    assert_eq!(current.text("SystemName"), Some(guid(id).as_str()));
    let global = &associators(&lab, &system(id), "Msvm_ElementSettingData")[0];
    assert_eq!(global.text("InstanceID"), Some(format!(r"Microsoft:{}\Global", guid(id)).as_str()));
    assert_eq!(global.text("ElementName"), Some("web"));

    let parts = associators(&lab, &settings(id), "Msvm_VirtualSystemSettingDataComponent");
    let of = |kind: &str| parts.iter().find(|p| p.text("ResourceSubType") == Some(kind)).unwrap();
    let disk = of("Microsoft Virtual Hard Disk");
    assert_eq!(disk.class, "Msvm_ResourceAllocationSettingData", "disks have no class of their own");
    assert_eq!(disk.get("ResourceType").and_then(Value::as_u64), Some(21));
    assert!(disk.get("Connection").unwrap().elements()[0].as_str().unwrap().ends_with(".raw"));
    assert!(disk.text("Parent").unwrap().contains(r"root\virtualization:Msvm_ResourceAllocationSettingData"));
    assert_eq!(of("Microsoft Synthetic Disk Drive").get("ResourceType").and_then(Value::as_u64), Some(22));
    assert_eq!(of("Microsoft Processor").get("VirtualQuantity").and_then(Value::as_u64), Some(2));
    let adapter = of("Microsoft Synthetic Ethernet Port");
    let port = adapter.get("Connection").unwrap().elements()[0].as_str().unwrap();
    let port = lab.get(V1, port).unwrap();
    let switch = lab.list(V1, "Msvm_VirtualSwitch");
    assert_eq!(port.text("SystemName"), switch[0].text("Name"));

    // Every instance is found again by its path, in this namespace.
    for one in parts.iter().chain([current, global]) {
        let path = one.path.clone().unwrap();
        assert_eq!(lab.hyperv.get(&lab.call(), V1, &path).unwrap().class, one.class, "{path}");
    }
}

#[test]
fn states_have_the_numbers_of_2008() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    let ask = |state: u16| {
        returned(&invoke(&lab, &system(id), "RequestStateChange", vec![("RequestedState", state.into())]))
    };
    let end = |state: u16| {
        let answer = invoke(&lab, &system(id), "RequestStateChange", vec![("RequestedState", state.into())]);
        if returned(&answer) == 4096 {
            let job = output(&answer, "Job").unwrap().as_path().unwrap().clone();
            assert_eq!(job.namespace.as_deref(), Some(V1));
            let job = lab.hyperv.get(&lab.call(), V1, &job).unwrap().path.unwrap();
            assert_eq!(ended(&lab, &job.within(V2)).get("JobState").and_then(Value::as_u64), Some(7));
        } else {
            assert_eq!(returned(&answer), 0);
        }
    };
    assert_eq!(state(&lab, id), 3);
    assert_eq!((ask(3), ask(10), ask(32768), ask(32769)), (32775, 32775, 32775, 32775));
    assert_eq!((ask(4), ask(12345)), (32770, 32773));
    end(2);
    assert_eq!((state(&lab, id), ask(2)), (2, 32775));
    end(32768);
    assert_eq!(state(&lab, id), 32768);
    end(2);
    end(10);
    assert_eq!(state(&lab, id), 2);
    end(32769);
    assert_eq!(state(&lab, id), 32769);
    end(2);
    end(3);
    assert_eq!(lab.host.machine(id).unwrap().power, PowerState::Off);
}

#[test]
fn a_machine_is_made_changed_and_removed() {
    let lab = Lab::new();
    let port = {
        let switch = lab.list(V1, "Msvm_VirtualSwitch").remove(0).path.unwrap();
        let service = ObjectPath::new("Msvm_VirtualSwitchManagementService");
        let made = invoke(
            &lab,
            &service,
            "CreateSwitchPort",
            vec![("VirtualSwitch", switch.into()), ("Name", "p".into())],
        );
        output(&made, "CreatedSwitchPort").unwrap().as_path().unwrap().to_string()
    };
    let text = |class: &str, properties: &str| format!("instance of {class} {{ {properties} }};");
    let global = text(
        "Msvm_VirtualSystemGlobalSettingData",
        r#"ElementName = "old"; AutomaticStartupAction = 2; AutomaticShutdownAction = 0;"#,
    );
    let memory = text("Msvm_MemorySettingData", "VirtualQuantity = 256;");
    let adapter = text(
        "Msvm_SyntheticEthernetPortSettingData",
        &format!("Connection = {{\"{}\"}};", port.replace('\\', r"\\").replace('"', "\\\"")),
    );
    let defined = manage(
        &lab,
        "DefineVirtualSystem",
        vec![("SystemSettingData", global.into()), ("ResourceSettingData", vec![memory, adapter].into())],
    );
    assert_eq!(returned(&defined), 0);
    let path = output(&defined, "DefinedSystem").unwrap().as_path().unwrap().clone();
    assert_eq!(path.namespace.as_deref(), Some(V1));
    let id: Uuid = path.text("Name").unwrap().parse().unwrap();
    let now = || lab.host.machine(id).unwrap().record.settings;
    assert_eq!((now().name.as_str(), now().memory.startup_mib), ("old", 256));
    assert_eq!(
        (now().automatic.start, now().automatic.stop),
        (AutomaticStart::Always, AutomaticStop::TurnOff)
    );
    assert_eq!(now().adapters[0].switch.as_deref(), Some("nat"));

    let renamed = text("Msvm_VirtualSystemSettingData", r#"ElementName = "new"; Notes = "two\r\nlines";"#);
    let answer = manage(
        &lab,
        "ModifyVirtualSystem",
        vec![("ComputerSystem", path.clone().into()), ("SystemSettingData", renamed.into())],
    );
    assert_eq!(returned(&answer), 0);
    assert_eq!((now().name.as_str(), now().notes.as_str()), ("new", "two\nlines"));

    // A drive on the first IDE controller, a disk in it.
    std::fs::write(lab.path("c/a.raw"), vec![0; MIB as usize]).unwrap();
    let controller = lab
        .list(V1, "Msvm_ResourceAllocationSettingData")
        .into_iter()
        .find(|r| {
            r.text("ResourceSubType") == Some("Microsoft Emulated IDE Controller")
                && r.text("InstanceID").unwrap().contains(&guid(id))
        })
        .unwrap();
    let quoted = |path: &ObjectPath| path.to_string().replace('\\', r"\\").replace('"', "\\\"");
    let add = |resource: String| {
        let answer = manage(
            &lab,
            "AddVirtualSystemResources",
            vec![("TargetSystem", path.clone().into()), ("ResourceSettingData", vec![resource].into())],
        );
        assert_eq!(returned(&answer), 0);
        output(&answer, "NewResources").unwrap().elements()[0].as_path().unwrap().clone()
    };
    let drive = add(text(
        "Msvm_ResourceAllocationSettingData",
        &format!(
            r#"ResourceSubType = "Microsoft Synthetic Disk Drive"; ResourceType = 22; Parent = "{}"; Address = "0";"#,
            quoted(controller.path.as_ref().unwrap())
        ),
    ));
    let disk = add(text(
        "Msvm_ResourceAllocationSettingData",
        &format!(
            r#"ResourceSubType = "Microsoft Virtual Hard Disk"; ResourceType = 21; Parent = "{}"; Connection = {{"C:\\a.raw"}};"#,
            quoted(&drive)
        ),
    ));
    assert_eq!(now().disks().count(), 1);
    let shown = lab.hyperv.get(&lab.call(), V1, &disk).unwrap();
    assert_eq!(shown.get("Connection").unwrap().elements()[0].as_str(), Some(r"C:\a.raw"));

    let processors = text(
        "Msvm_ProcessorSettingData",
        &format!(r#"InstanceID = "Microsoft:{}\\p\\0"; VirtualQuantity = 3;"#, guid(id)),
    );
    let answer = manage(
        &lab,
        "ModifyVirtualSystemResources",
        vec![("ComputerSystem", path.clone().into()), ("ResourceSettingData", vec![processors].into())],
    );
    assert_eq!((returned(&answer), now().processors.count), (0, 3));

    let answer = manage(
        &lab,
        "RemoveVirtualSystemResources",
        vec![("TargetSystem", path.clone().into()), ("ResourceSettingData", vec![disk].into())],
    );
    assert_eq!((returned(&answer), now().disks().count()), (0, 0));

    let summary =
        manage(&lab, "GetSummaryInformation", vec![("RequestedInformation", vec![1_u32, 100].into())]);
    let Value::Object(summary) = &output(&summary, "SummaryInformation").unwrap().elements()[0] else {
        panic!()
    };
    assert_eq!(
        (summary.text("ElementName"), summary.get("EnabledState").and_then(Value::as_u64)),
        (Some("new"), Some(3))
    );

    assert_eq!(returned(&manage(&lab, "DestroyVirtualSystem", vec![("ComputerSystem", path.into())])), 0);
    assert!(lab.host.machine(id).is_err());
    assert!(lab.path("c/a.raw").exists(), "files of disks stay");
}

/// As clients of the time did it: the default of a kind is looked for, given a place, and handed back.
#[test]
fn defaults_are_there_to_be_copied() {
    let lab = Lab::new();
    for class in ["Msvm_ResourceAllocationSettingData", "Msvm_SyntheticEthernetPortSettingData"] {
        let all = lab.list(V1, class);
        assert!(all.iter().any(|one| one.text("InstanceID").unwrap().ends_with("Default")), "{class}");
    }
    let pools = lab.list(V1, "Msvm_ResourcePool");
    let kinds: Vec<_> = pools.iter().filter_map(|pool| pool.text("ResourceSubType")).collect();
    assert!(kinds.contains(&"Microsoft Virtual Hard Disk"), "{kinds:?}");
    assert!(kinds.contains(&"Microsoft Virtual Machine Memory"), "{kinds:?}");
    assert!(kinds.iter().all(|kind| !kind.contains("Connection") && !kind.contains(':')), "{kinds:?}");
    let pool =
        pools.into_iter().find(|p| p.text("ResourceSubType") == Some("Microsoft Virtual Hard Disk")).unwrap();
    let capabilities = associators(&lab, &pool.path.unwrap(), "Msvm_ElementCapabilities").remove(0);
    let settings = associators(&lab, &capabilities.path.unwrap(), "Msvm_SettingsDefineCapabilities");
    assert_eq!(settings.len(), 4, "default, least, most, step");
    assert!(settings.iter().all(|one| one.class == "Msvm_ResourceAllocationSettingData"));
}

#[test]
fn what_is_wrong_is_told_in_the_codes_of_the_page() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    let missing = system(Uuid::nil());
    let settings = "instance of Msvm_VirtualSystemSettingData { ElementName = \"x\"; };";
    let other = format!(
        "instance of Msvm_VirtualSystemSettingData {{ InstanceID = \"Microsoft:{}\"; }};",
        Uuid::nil()
    );
    for (method, parameters, code) in [
        ("DestroyVirtualSystem", vec![("ComputerSystem", Value::from(missing.clone()))], 32773),
        ("DestroyVirtualSystem", vec![], 32773),
        ("ModifyVirtualSystem", vec![("ComputerSystem", system(id).into())], 32773),
        (
            "ModifyVirtualSystem",
            vec![("ComputerSystem", system(id).into()), ("SystemSettingData", other.into())],
            32773,
        ),
        (
            "ModifyVirtualSystem",
            vec![("ComputerSystem", missing.into()), ("SystemSettingData", settings.into())],
            32773,
        ),
        ("AddVirtualSystemResources", vec![("TargetSystem", system(id).into())], 32773),
        ("CreateVirtualSystemSnapshot", vec![("SourceSystem", system(id).into())], 32770),
        ("DefineVirtualSystem", vec![("SourceSetting", support::settings(id).into())], 32770),
    ] {
        assert_eq!(returned(&manage(&lab, method, parameters)), code, "{method}");
    }
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == access::Action::See);
    let destroy = manage(&lab, "DestroyVirtualSystem", vec![("ComputerSystem", system(id).into())]);
    assert_eq!(returned(&destroy), 32769);
}
