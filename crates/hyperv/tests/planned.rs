//! Planned machines mended part by part, as a client does that brings in a package from elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use cim::{Instance, ObjectPath, Value, embedded};
use machine::settings::{Generation, Media};
use machine::switch::SwitchKind;
use support::{Lab, V2, ended, job_of, output, over, returned, system};
use uuid::Uuid;
use wsman::Operations as _;

/// A machine that was exported and is here no more, on a switch that is here no more, with its disk moved since.
fn brought() -> (Lab, ObjectPath) {
    let lab = Lab::new();
    lab.host.create_switch("lan", SwitchKind::Private).unwrap();
    let machine = lab.machine("web", Generation::Two);
    let id = machine.record.id;
    let edit = machine::define::MachineEdit {
        adapters: vec![
            machine::define::AdapterEdit {
                index: 0,
                switch: Some(Some("lan".to_owned())),
                ..Default::default()
            },
            machine::define::AdapterEdit { index: 1, name: Some("second".to_owned()), ..Default::default() },
        ],
        ..Default::default()
    };
    lab.host.edit(id, &edit).unwrap();
    let export = lab.manage(
        "ExportSystemDefinition",
        vec![("ComputerSystem", system(id).into()), ("ExportDirectory", r"C:\in".into())],
    );
    assert_eq!(ended(&lab, &job_of(&export)).get("JobState"), Some(&Value::Uint16(7)));
    lab.host.delete(id, false).unwrap();
    lab.host.delete_switch("lan").unwrap();
    std::fs::rename(lab.path("c/in/Virtual Hard Disks"), lab.path("c/moved")).unwrap();
    let import = lab.manage(
        "ImportSystemDefinition",
        vec![
            ("SystemDefinitionFile", r"C:\in".into()),
            ("SnapshotFolder", r"C:\in\Snapshots".into()),
            ("GenerateNewSystemIdentifier", false.into()),
        ],
    );
    assert_eq!(returned(&import), 0);
    let planned = output(&import, "ImportedSystem").unwrap().as_path().unwrap().clone();
    (lab, planned)
}

/// How a validation ended, and the ids of the findings that stand in the way.
fn findings(lab: &Lab, planned: &ObjectPath) -> (u64, Vec<String>) {
    let started = lab.manage("ValidatePlannedSystem", vec![("PlannedSystem", planned.clone().into())]);
    let job = ended(lab, &job_of(&started));
    let affected = lab.associators(job.path.as_ref().unwrap(), &over("Msvm_AffectedJobElement"));
    assert_eq!(affected.len(), 1);
    assert_eq!(affected[0].class.as_str(), "Msvm_PlannedComputerSystem");
    let errors = lab.invoke(job.path.as_ref().unwrap(), "GetErrorEx", vec![]).unwrap();
    let schema = lab.hyperv.schema(V2).unwrap();
    let ids = output(&errors, "Errors").map_or(&[][..], Value::elements).iter().filter_map(|text| {
        let error = embedded::read(text.as_str().unwrap(), schema).unwrap();
        let stops = error.get("PerceivedSeverity").and_then(Value::as_u64) == Some(6);
        stops.then(|| error.text("MessageID").unwrap().to_owned())
    });
    let state = job.get("JobState").and_then(Value::as_u64).unwrap();
    // Warnings (an empty disk has no boot loader) end in a state of their own.
    assert!([10, 32768].contains(&state));
    (state, ids.collect())
}

fn parts(lab: &Lab, planned: &ObjectPath, class: &str) -> Vec<Instance> {
    let settings = lab.associators(planned, &over("Msvm_SettingsDefineState")).remove(0);
    let all = lab.associators(&settings.path.unwrap(), &over("Msvm_VirtualSystemSettingDataComponent"));
    all.into_iter().filter(|part| part.class == class).collect()
}

fn modify(lab: &Lab, resource: Instance) -> u64 {
    returned(
        &lab.manage(
            "ModifyResourceSettings",
            vec![("ResourceSettings", Value::Array(vec![resource.into()]))],
        ),
    )
}

fn remove(lab: &Lab, resource: &Instance) -> u64 {
    let path: Value = resource.path.clone().unwrap().into();
    returned(&lab.manage("RemoveResourceSettings", vec![("ResourceSettings", Value::Array(vec![path]))]))
}

#[test]
fn a_plan_is_mended_by_its_findings_and_becomes_a_machine() {
    let (lab, planned) = brought();
    let (state, ids) = findings(&lab, &planned);
    assert_eq!(state, 10);
    assert!(ids.contains(&"33012".to_owned()), "the switch is not here: {ids:?}");
    assert_eq!(ids.len(), 2, "and neither is the disk: {ids:?}");
    let refused = lab.manage("RealizePlannedSystem", vec![("PlannedSystem", planned.clone().into())]);
    assert_eq!(ended(&lab, &job_of(&refused)).get("JobState"), Some(&Value::Uint16(10)));

    // The disk, where it is now.
    let disk = parts(&lab, &planned, "Msvm_StorageAllocationSettingData");
    let disk = disk.into_iter().find(|d| d.text("ResourceSubType").unwrap().contains("Hard Disk")).unwrap();
    let file = std::fs::read_dir(lab.path("c/moved")).unwrap().next().unwrap().unwrap().file_name();
    let here = format!(r"C:\moved\{}", file.to_str().unwrap());
    let mended = disk.with("HostResource", vec![here.clone()]);
    assert_eq!(modify(&lab, mended), 0);
    assert_eq!(findings(&lab, &planned).1, ["33012"]);
    let disk = parts(&lab, &planned, "Msvm_StorageAllocationSettingData").remove(0);
    assert_eq!(disk.get("HostResource").unwrap().elements()[0].as_str(), Some(here.as_str()));

    // The first adapter into another switch, the second away.
    let switch = lab.list(V2, "Msvm_VirtualEthernetSwitch").remove(0);
    let connections = parts(&lab, &planned, "Msvm_EthernetPortAllocationSettingData");
    assert_eq!(connections.len(), 2);
    let plugged = connections[0].clone().with("HostResource", vec![switch.path.unwrap().to_string()]);
    assert_eq!(modify(&lab, plugged), 0);
    assert_eq!(findings(&lab, &planned), (32768, vec![]));
    let adapters = parts(&lab, &planned, "Msvm_SyntheticEthernetPortSettingData");
    assert_eq!(remove(&lab, &adapters[1]), 0);
    assert_eq!(parts(&lab, &planned, "Msvm_SyntheticEthernetPortSettingData").len(), 1);
    assert_eq!(remove(&lab, &adapters[1]), 4, "it is gone");

    // The DVD drive away, more of this and less of that, another name.
    let drives = parts(&lab, &planned, "Msvm_ResourceAllocationSettingData");
    let dvd = drives.into_iter().find(|d| d.text("ResourceSubType").unwrap().contains("DVD Drive")).unwrap();
    assert_eq!(remove(&lab, &dvd), 0);
    let processors = parts(&lab, &planned, "Msvm_ProcessorSettingData").remove(0);
    assert_eq!(modify(&lab, processors.with("VirtualQuantity", 3_u64)), 0);
    let memory = parts(&lab, &planned, "Msvm_MemorySettingData").remove(0);
    assert_eq!(modify(&lab, memory.with("VirtualQuantity", 256_u64)), 0);
    let settings = lab.associators(&planned, &over("Msvm_SettingsDefineState")).remove(0);
    let settings = settings
        .with("ElementName", "db")
        .with("Notes", vec!["brought in"])
        .with("SecureBootEnabled", false)
        .with("AutomaticShutdownAction", 4_u16);
    assert_eq!(returned(&lab.manage("ModifySystemSettings", vec![("SystemSettings", settings.into())])), 0);
    assert_eq!(findings(&lab, &planned), (32768, vec![]), "what was mended stays so");

    let realized = lab.manage("RealizePlannedSystem", vec![("PlannedSystem", planned.clone().into())]);
    let job = ended(&lab, &job_of(&realized));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(7)), "{job:?}");
    let made = lab.associators(job.path.as_ref().unwrap(), &over("Msvm_AffectedJobElement")).remove(0);
    assert_eq!(made.class.as_str(), "Msvm_ComputerSystem");
    let id: Uuid = made.text("Name").unwrap().parse().unwrap();
    let machine = lab.host.machine(id).unwrap();
    let settings = &machine.record.settings;
    assert_eq!((settings.name.as_str(), settings.notes.as_str()), ("db", "brought in"));
    assert_eq!((settings.processors.count, settings.memory.startup_mib), (3, 256));
    assert!(!settings.firmware.secure_boot);
    assert_eq!(settings.adapters.len(), 1);
    assert_eq!(settings.adapters[0].switch.as_deref(), Some("nat"));
    let drives: Vec<_> = settings.controllers.iter().flat_map(|c| &c.drives).collect();
    assert!(matches!(drives[..], [machine::settings::Drive { media: Media::Disk { .. }, .. }]), "{drives:?}");

    // It starts, saves and comes back: what it writes goes into a layer of its own, and what came in stays as it came.
    let base = std::fs::read(lab.path("c/moved").join(&file)).unwrap();
    for state in [2_u16, 6, 2, 3] {
        let asked =
            lab.invoke(&system(id), "RequestStateChange", vec![("RequestedState", state.into())]).unwrap();
        assert_eq!(ended(&lab, &job_of(&asked)).get("JobState"), Some(&Value::Uint16(7)), "{state}");
    }
    assert_eq!(std::fs::read(lab.path("c/moved").join(&file)).unwrap(), base);
    // And leaves again without what was taken away.
    let export = lab.manage(
        "ExportSystemDefinition",
        vec![("ComputerSystem", system(id).into()), ("ExportDirectory", r"C:\out".into())],
    );
    assert_eq!(ended(&lab, &job_of(&export)).get("JobState"), Some(&Value::Uint16(7)));
    let import = lab.manage(
        "ImportSystemDefinition",
        vec![("SystemDefinitionFile", r"C:\out".into()), ("GenerateNewSystemIdentifier", true.into())],
    );
    let again = output(&import, "ImportedSystem").unwrap().as_path().unwrap().clone();
    assert_eq!(parts(&lab, &again, "Msvm_SyntheticEthernetPortSettingData").len(), 1);
    let all = parts(&lab, &again, "Msvm_ResourceAllocationSettingData");
    assert!(!all.iter().any(|d| d.text("ResourceSubType").unwrap().contains("DVD")), "{all:?}");
}

#[test]
fn what_a_plan_cannot_have_is_refused_and_changes_nothing() {
    let (lab, planned) = brought();
    let before = lab.host.planned().unwrap();
    let disk = parts(&lab, &planned, "Msvm_StorageAllocationSettingData").remove(0);
    let id = disk.text("InstanceID").unwrap().to_owned();
    let elsewhere = id.replace(r"\0\0\L", r"\0\9\L");
    assert_ne!(id, elsewhere);
    let outside = disk.clone().with("HostResource", vec![r"D:\x.vhdx"]);
    assert_eq!(modify(&lab, outside), 32769);
    let nowhere = disk.with("InstanceID", elsewhere).with("HostResource", vec![r"C:\x.vhdx"]);
    assert_eq!(modify(&lab, nowhere), 4);
    let adapter = parts(&lab, &planned, "Msvm_SyntheticEthernetPortSettingData").remove(0);
    let other = adapter.clone().with("StaticMacAddress", true).with("Address", "020000000001");
    assert_eq!(modify(&lab, other), 1, "while it is planned");
    assert_eq!(modify(&lab, adapter), 0, "sent back as it is");
    let after = lab.host.planned().unwrap();
    assert_eq!(before[0].record.request, after[0].record.request);
}
