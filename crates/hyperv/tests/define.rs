//! Machines made, changed, exported, imported and removed by methods.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use cim::{Instance, ObjectPath, Value};
use machine::settings::{Generation, Media};
use support::{Lab, MIB, V2, ended, job_of, output, over, returned, settings, system};
use uuid::Uuid;
use wsman::Operations as _;

fn vssd() -> Instance {
    Instance::new("Msvm_VirtualSystemSettingData")
}

fn path_of(value: Option<&Value>) -> ObjectPath {
    value.unwrap().elements()[0].as_path().unwrap().clone()
}

fn id_of(path: &ObjectPath) -> Uuid {
    path.text("Name").unwrap().parse().unwrap()
}

fn add(lab: &Lab, id: Uuid, resource: Instance) -> wsman::Output {
    let resources: Value = vec![Value::from(resource)].into_value();
    lab.manage(
        "AddResourceSettings",
        vec![("AffectedConfiguration", settings(id).into()), ("ResourceSettings", resources)],
    )
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for Vec<Value> {
    fn into_value(self) -> Value {
        Value::Array(self)
    }
}

/// As a client of Hyper-V's makes one: settings, a controller, a drive in it, a disk in that, an adapter, its connection.
#[test]
fn a_machine_is_made_piece_by_piece() {
    let lab = Lab::new();
    let disk = lab.path("c/disk.raw");
    std::fs::File::create(&disk).unwrap().set_len(8 * MIB).unwrap();
    let made = lab.manage(
        "DefineSystem",
        vec![(
            "SystemSettings",
            vssd()
                .with("ElementName", "web")
                .with("VirtualSystemSubType", "Microsoft:Hyper-V:SubType:2")
                .with("Notes", vec!["by hand"])
                .with("AutomaticShutdownAction", 4_u16)
                .with("SecureBootEnabled", false)
                .into(),
        )],
    );
    assert_eq!(returned(&made), 0);
    let id = id_of(&path_of(output(&made, "ResultingSystem")));
    let record = lab.host.machine(id).unwrap().record;
    assert_eq!((record.settings.name.as_str(), record.settings.notes.as_str()), ("web", "by hand"));
    assert!(!record.settings.firmware.secure_boot);

    let rasd = |sub: &str| {
        Instance::new("Msvm_ResourceAllocationSettingData")
            .with("ResourceSubType", format!("Microsoft:Hyper-V:{sub}"))
    };
    let controller = add(&lab, id, rasd("Synthetic SCSI Controller"));
    assert_eq!(returned(&controller), 0);
    let controller = path_of(output(&controller, "ResultingResourceSettings"));
    let drive =
        rasd("Synthetic Disk Drive").with("Parent", controller.to_string()).with("AddressOnParent", "0");
    let drive = add(&lab, id, drive);
    assert_eq!(returned(&drive), 0);
    let drive = path_of(output(&drive, "ResultingResourceSettings"));
    let in_it = Instance::new("Msvm_StorageAllocationSettingData")
        .with("ResourceSubType", "Microsoft:Hyper-V:Virtual Hard Disk")
        .with("Parent", drive.to_string());
    let at = |path: &str| in_it.clone().with("HostResource", vec![path]);
    assert_eq!(returned(&add(&lab, id, at(r"C:\none.raw"))), 4);
    assert_eq!(returned(&add(&lab, id, at(r"D:\disk.raw"))), 32769, "no root");
    let attached = add(&lab, id, at(r"C:\disk.raw"));
    assert_eq!(returned(&attached), 0);
    let attached = path_of(output(&attached, "ResultingResourceSettings"));
    let shown = lab.hyperv.get(&lab.call(), V2, &attached).unwrap();
    assert_eq!(shown.get("HostResource"), Some(&Value::from(vec![r"C:\disk.raw"])));
    assert_eq!(shown.text("Parent"), Some(drive.to_string().as_str()));

    let adapter =
        add(&lab, id, Instance::new("Msvm_SyntheticEthernetPortSettingData").with("ElementName", "front"));
    let adapter = path_of(output(&adapter, "ResultingResourceSettings"));
    let switch = lab.list(V2, "Msvm_VirtualEthernetSwitch").remove(0).path.unwrap();
    let port = Instance::new("Msvm_EthernetPortAllocationSettingData")
        .with("Parent", adapter.to_string())
        .with("HostResource", vec![switch.to_string()]);
    let port = add(&lab, id, port);
    assert_eq!(returned(&port), 0);
    assert_eq!(lab.host.machine(id).unwrap().record.settings.adapters[0].switch.as_deref(), Some("nat"));

    let modify = |resource: Instance| {
        let resources = vec![Value::from(resource)].into_value();
        returned(&lab.manage("ModifyResourceSettings", vec![("ResourceSettings", resources)]))
    };
    let part = |class: &str| {
        let parts = lab.associators(&settings(id), &over("Msvm_VirtualSystemSettingDataComponent"));
        parts.into_iter().find(|part| part.class == class).unwrap()
    };
    assert_eq!(modify(part("Msvm_ProcessorSettingData").with("VirtualQuantity", 3_u64)), 0);
    assert_eq!(modify(part("Msvm_MemorySettingData").with("VirtualQuantity", 256_u64)), 0);
    assert_eq!(modify(part("Msvm_MemorySettingData").with("VirtualQuantity", 1_u64)), 4);
    assert_eq!(modify(part("Msvm_HeartbeatComponentSettingData")), 1);
    let now = lab.host.machine(id).unwrap().record.settings;
    assert_eq!((now.processors.count, now.memory.startup_mib), (3, 256));

    let remove = |path: &ObjectPath| {
        returned(&lab.manage("RemoveResourceSettings", vec![("ResourceSettings", vec![path.clone()].into())]))
    };
    assert_eq!(remove(&attached), 0);
    assert!(disk.exists(), "files of disks stay");
    let now = lab.host.machine(id).unwrap();
    assert!(matches!(now.record.settings.controllers[0].drives[0].media, Media::Other { .. }));
    assert!(now.disks.is_empty());
    assert_eq!(remove(&drive), 0);
    assert_eq!(remove(&adapter), 0);
    assert_eq!(remove(&adapter), 4);

    let rename = lab.manage(
        "ModifySystemSettings",
        vec![(
            "SystemSettings",
            vssd()
                .with("InstanceID", settings(id).text("InstanceID").unwrap())
                .with("ElementName", "db")
                .into(),
        )],
    );
    assert_eq!(returned(&rename), 0);
    assert_eq!(lab.host.machine(id).unwrap().record.settings.name, "db");
    let destroy = || returned(&lab.manage("DestroySystem", vec![("AffectedSystem", system(id).into())]));
    lab.host.start(id).unwrap();
    assert_eq!(destroy(), 5, "it runs");
    lab.host.stop(id).unwrap();
    assert_eq!(destroy(), 0);
    assert!(lab.host.machine(id).is_err());
    assert_eq!(destroy(), 4);
}

#[test]
fn a_machine_that_cannot_be_made_whole_is_not_made() {
    let lab = Lab::new();
    let define = |settings: Instance, resources: Vec<Instance>| {
        let resources = resources.into_iter().map(Value::from).collect::<Vec<_>>().into_value();
        let made = lab.manage(
            "DefineSystem",
            vec![("SystemSettings", settings.into()), ("ResourceSettings", resources)],
        );
        (returned(&made), lab.host.machines().unwrap().len())
    };
    let one = Instance::new("Msvm_ProcessorSettingData").with("VirtualQuantity", 2_u64);
    let none = Instance::new("Msvm_ProcessorSettingData").with("VirtualQuantity", 0_u64);
    assert_eq!(define(vssd(), vec![one.clone()]), (0, 1));
    assert_eq!(define(vssd(), vec![one, none]), (4, 1));
    assert_eq!(define(vssd().with("VirtualSystemSubType", "x"), vec![]), (4, 1));
    assert_eq!(define(vssd().with("ElementName", "x".repeat(300)), vec![]), (4, 1));
    assert_eq!(define(vssd(), vec![Instance::new("Msvm_BatterySettingData")]), (1, 1));
    let machine = lab.host.machines().unwrap().remove(0);
    assert_eq!(machine.record.settings.generation, Generation::One);
    assert_eq!(machine.record.settings.controllers.len(), 2, "both IDE controllers");
}

#[test]
fn a_machine_leaves_as_a_package_and_comes_back_through_a_plan() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::Two);
    let id = machine.record.id;
    let export = |directory: &str, settings: Option<Instance>| {
        let mut parameters: Vec<(&str, Value)> =
            vec![("ComputerSystem", system(id).into()), ("ExportDirectory", directory.into())];
        if let Some(settings) = settings {
            parameters.push(("ExportSettingData", settings.into()));
        }
        lab.manage("ExportSystemDefinition", parameters)
    };
    let of = |property: &str, value: Value| {
        let mut settings = Instance::new("Msvm_VirtualSystemExportSettingData");
        settings.set(property, Some(value));
        Some(settings)
    };
    for (directory, settings, code) in [
        ("relative", None, 32773),
        (r"D:\out", None, 32769),
        (r"C:\..\out", None, 32769),
        (r"C:\out", of("CopySnapshotConfiguration", 2_u8.into()), 32773),
        (r"C:\out", of("CaptureLiveState", 3_u8.into()), 32773),
        (r"C:\out", of("ExcludedVirtualHardDisks", vec!["x"].into()), 32773),
        (r"C:\out", Some(Instance::new("Msvm_ProcessorSettingData")), 32773),
    ] {
        let refused = export(directory, settings.clone());
        assert_eq!(returned(&refused), code, "{directory} {settings:?}");
        assert_eq!(output(&refused, "Job"), None);
    }
    let default = lab.associators(&system(id), &over("Msvm_SystemExportSettingData")).remove(0);
    let done = export(r"C:\out", Some(default.with("CreateVmExportSubdirectory", true)));
    assert_eq!(returned(&done), 4096);
    let job = ended(&lab, &job_of(&done));
    assert_eq!(job.get("JobType"), Some(&Value::Uint16(62)));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(7)), "{job:?}");
    let job = ended(&lab, &job_of(&export(r"C:\out", None)));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(10)), "something is there");

    let file = format!(r"C:\out\web\Virtual Machines\{}.vmcx", id.to_string().to_uppercase());
    let about = lab
        .manage("GetDefinitionFileSummaryInformation", vec![("DefinitionFiles", vec![file.as_str()].into())]);
    let about = output(&about, "SummaryInformation").unwrap().elements()[0].as_instance().unwrap().clone();
    assert_eq!(about.text("ElementName"), Some("web"));
    let import = |new_id: bool| {
        lab.manage(
            "ImportSystemDefinition",
            vec![
                ("SystemDefinitionFile", file.as_str().into()),
                ("GenerateNewSystemIdentifier", new_id.into()),
            ],
        )
    };
    let imported = import(true);
    assert_eq!(returned(&imported), 0);
    let planned = path_of(output(&imported, "ImportedSystem"));
    let seen = lab.hyperv.get(&lab.call(), V2, &planned).unwrap();
    assert_eq!(seen.text("ElementName"), Some("web"));
    assert_eq!(lab.list(V2, "Msvm_ComputerSystem").len(), 2, "a plan is no machine");
    let plan = lab.associators(&planned, &over("Msvm_SettingsDefineState")).remove(0);
    assert_eq!(plan.text("VirtualSystemType"), Some("Microsoft:Hyper-V:System:Planned"));
    let start = lab.invoke(&planned, "RequestStateChange", vec![("RequestedState", 2_u16.into())]).unwrap();
    assert_eq!(returned(&start), 32775);
    let rename =
        lab.manage("ModifySystemSettings", vec![("SystemSettings", plan.with("ElementName", "copy").into())]);
    assert_eq!(returned(&rename), 0);

    let validated = lab.manage("ValidatePlannedSystem", vec![("PlannedSystem", planned.clone().into())]);
    let job = ended(&lab, &job_of(&validated));
    assert_eq!(job.get("JobType"), Some(&Value::Uint16(140)));
    assert_eq!(job.get("ErrorCode"), Some(&Value::Uint16(0)), "{job:?}");
    let realized = lab.manage("RealizePlannedSystem", vec![("PlannedSystem", planned.clone().into())]);
    let job = ended(&lab, &job_of(&realized));
    assert_eq!(job.get("ErrorCode"), Some(&Value::Uint16(0)), "{job:?}");
    let affected = lab.associators(job.path.as_ref().unwrap(), &over("Msvm_AffectedJobElement"));
    assert_eq!(affected.len(), 1);
    assert_eq!(affected[0].text("ElementName"), Some("copy"));
    assert_eq!(affected[0].class.as_str(), "Msvm_ComputerSystem");
    let effects = lab.references(job.path.as_ref().unwrap(), &over("Msvm_AffectedJobElement"));
    let effects: Vec<_> = effects.iter().filter(|e| e.class == "Msvm_AffectedJobElement").collect();
    assert_eq!(effects[0].get("ElementEffects"), Some(&Value::from(vec![5_u16])));

    // One that has the id of a machine cannot be realized, and the job says why.
    let twin = path_of(output(&import(false), "ImportedSystem"));
    let refused = lab.manage("RealizePlannedSystem", vec![("PlannedSystem", twin.clone().into())]);
    let job = ended(&lab, &job_of(&refused));
    assert_eq!(job.get("JobState"), Some(&Value::Uint16(10)));
    let errors = lab.invoke(job.path.as_ref().unwrap(), "GetErrorEx", vec![]).unwrap();
    assert!(!output(&errors, "Errors").unwrap().elements().is_empty());
    let gone = lab.manage("DestroySystem", vec![("AffectedSystem", twin.into())]);
    assert_eq!(returned(&gone), 0);
    assert!(lab.list(V2, "Msvm_PlannedComputerSystem").is_empty());
    assert!(lab.host.machine(id).is_ok(), "the machine of that id stays");
}
