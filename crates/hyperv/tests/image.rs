//! Virtual disk files by the methods of `Msvm_ImageManagementService`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use cim::{Instance, ObjectPath, Value};
use support::{Lab, MIB, V2, ended, job_of, output, over, returned};
use wsman::{Operations as _, Output};

fn call(lab: &Lab, method: &str, parameters: Vec<(&str, Value)>) -> Output {
    let service = ObjectPath::new("Msvm_ImageManagementService").with("Name", "vhdsvc");
    lab.invoke(&service, method, parameters).unwrap()
}

fn wanted(path: &str) -> Instance {
    Instance::new("Msvm_VirtualHardDiskSettingData")
        .with("Path", path)
        .with("Type", 3_u16)
        .with("Format", 3_u16)
        .with("MaxInternalSize", 8 * MIB)
}

fn create(lab: &Lab, settings: Instance) -> Output {
    call(lab, "CreateVirtualHardDisk", vec![("VirtualDiskSettingData", settings.into())])
}

fn at(path: &str) -> Vec<(&'static str, Value)> {
    vec![("Path", path.into())]
}

fn embedded(lab: &Lab, answer: &Output, name: &str) -> Instance {
    assert_eq!(returned(answer), 0);
    let text = output(answer, name).unwrap().clone();
    cim::embedded::read_all(&text, lab.hyperv.schema(V2).unwrap()).unwrap().remove(0)
}

fn number(instance: &Instance, name: &str) -> Option<u64> {
    instance.get(name).and_then(Value::as_u64)
}

#[test]
fn a_disk_is_made_looked_at_changed_and_checked() {
    let lab = Lab::new();
    let made = create(&lab, wanted(r"C:\a.vhdx"));
    let job = job_of(&made);
    assert_eq!(job.class, "Msvm_StorageJob");
    let job = ended(&lab, &job);
    assert_eq!(
        (number(&job, "JobState"), number(&job, "JobType"), number(&job, "ErrorCode")),
        (Some(7), Some(1), Some(0))
    );
    assert!(lab.list(V2, "CIM_ConcreteJob").iter().any(|one| one.path == job.path));
    assert!(lab.list(V2, "Msvm_ConcreteJob").is_empty());
    let service = lab.associators(job.path.as_ref().unwrap(), &over("Msvm_OwningJobElement"));
    assert_eq!(service[0].class, "Msvm_ImageManagementService");

    let shown =
        || embedded(&lab, &call(&lab, "GetVirtualHardDiskSettingData", at(r"C:\a.vhdx")), "SettingData");
    let settings = shown();
    assert_eq!(settings.text("Path"), Some(r"C:\a.vhdx"));
    for (name, value) in [
        ("Type", 3),
        ("Format", 3),
        ("MaxInternalSize", 8 * MIB),
        ("BlockSize", 32 * MIB),
        ("LogicalSectorSize", 512),
        ("PhysicalSectorSize", 4096),
    ] {
        assert_eq!(number(&settings, name), Some(value), "{name}");
    }
    assert_eq!(settings.get("ParentPath"), None);
    let state = embedded(&lab, &call(&lab, "GetVirtualHardDiskState", at(r"C:\a.vhdx")), "State");
    let length = std::fs::metadata(lab.path("c/a.vhdx")).unwrap().len();
    assert_eq!((number(&state, "FileSize"), number(&state, "Alignment")), (Some(length), Some(1)));
    assert_eq!(state.get("InUse"), Some(&Value::from(false)));
    assert_eq!(state.get("FragmentationPercentage"), None);

    let done = |method: &str, parameters: Vec<(&str, Value)>, kind: u64| {
        let job = ended(&lab, &job_of(&call(&lab, method, parameters)));
        assert_eq!((number(&job, "JobState"), number(&job, "JobType")), (Some(7), Some(kind)), "{job:?}");
    };
    done(
        "ResizeVirtualHardDisk",
        vec![("Path", r"C:\a.vhdx".into()), ("MaxInternalSize", (12 * MIB).into())],
        4,
    );
    assert_eq!(number(&shown(), "MaxInternalSize"), Some(12 * MIB));
    done("CompactVirtualHardDisk", vec![("Path", r"C:\a.vhdx".into()), ("Mode", 0_u16.into())], 3);
    done("ValidateVirtualHardDisk", at(r"C:\a.vhdx"), 9);
    let target = wanted(r"C:\b.vhd").with("Format", 2_u16).with("Type", 2_u16);
    done(
        "ConvertVirtualHardDisk",
        vec![("SourcePath", r"C:\a.vhdx".into()), ("VirtualDiskSettingData", target.into())],
        6,
    );
    assert_eq!(std::fs::metadata(lab.path("c/b.vhd")).unwrap().len(), 12 * MIB + 512);
    done("CreateVirtualFloppyDisk", at(r"C:\a.vfd"), 2);

    // What was given comes back with one thing changed.
    let set = |settings: &Instance| {
        call(&lab, "SetVirtualHardDiskSettingData", vec![("VirtualDiskSettingData", settings.clone().into())])
    };
    let mut edited = shown();
    assert_eq!(returned(&set(&edited)), 0);
    edited.set("VirtualDiskId", Some("{8F3A5C1E-0000-4000-8000-00000000002A}".into()));
    done("SetVirtualHardDiskSettingData", vec![("VirtualDiskSettingData", edited.clone().into())], 0);
    assert_eq!(shown().text("VirtualDiskId"), Some("8F3A5C1E-0000-4000-8000-00000000002A"));
    edited.set("VirtualDiskId", Some("8F3A5C1E-0000-4000-8000-00000000002B".into()));
    edited.set("PhysicalSectorSize", Some(512_u32.into()));
    assert_eq!(returned(&set(&edited)), 32773, "one at a time");
}

#[test]
fn what_cannot_be_is_refused_in_the_familys_own_numbers() {
    let lab = Lab::new();
    let refused = |settings: Instance| returned(&create(&lab, settings));
    assert_eq!(refused(wanted(r"C:\a.vhdx").with("Type", 4_u16)), 32770);
    assert_eq!(refused(wanted(r"C:\a.vhds").with("Format", 4_u16)), 32770);
    assert_eq!(refused(wanted(r"C:\a.vhd")), 32773, "the name says VHD");
    assert_eq!(refused(wanted(r"C:\a.vhdx").with("MaxInternalSize", 0_u64)), 32773);
    assert_eq!(refused(wanted(r"C:\a.vhdx").with("BlockSize", 12345_u32)), 32773);
    assert_eq!(refused(wanted(r"D:\a.vhdx")), 32769, "no root");
    assert_eq!(refused(wanted(r"C:\..\a.vhdx")), 32769);
    assert_eq!(refused(wanted(r"C:\none\a.vhdx")), 32779);
    ended(&lab, &job_of(&create(&lab, wanted(r"C:\a.vhdx"))));
    assert_eq!(refused(wanted(r"C:\a.vhdx")), 32768, "nothing is overwritten");
    for method in ["GetVirtualHardDiskSettingData", "GetVirtualHardDiskState", "ValidateVirtualHardDisk"] {
        assert_eq!(returned(&call(&lab, method, at(r"C:\none.vhdx"))), 32779, "{method}");
        assert_eq!(returned(&call(&lab, method, vec![])), 32773, "{method}");
    }
    std::fs::write(lab.path("c/noise.vhdx"), vec![7; 1 << 20]).unwrap();
    assert_eq!(returned(&call(&lab, "GetVirtualHardDiskSettingData", at(r"C:\noise.vhdx"))), 32773);
    let attach =
        vec![("Path", r"C:\a.vhdx".into()), ("AssignDriveLetter", false.into()), ("ReadOnly", true.into())];
    assert_eq!(returned(&call(&lab, "AttachVirtualHardDisk", attach)), 32770);

    // A broken one is told by the job, and in the words of image management.
    let file = std::fs::File::options().write(true).open(lab.path("c/a.vhdx")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[9; 8], 3 * MIB).unwrap();
    let job = ended(&lab, &job_of(&call(&lab, "ValidateVirtualHardDisk", at(r"C:\a.vhdx"))));
    assert_eq!((number(&job, "JobState"), number(&job, "ErrorCode")), (Some(10), Some(32773)));
    let told = lab.invoke(job.path.as_ref().unwrap(), "GetErrorEx", vec![]).unwrap();
    assert!(output(&told, "Errors").is_some());

    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == access::Action::See);
    assert_eq!(refused(wanted(r"C:\c.vhdx")), 32769);
    assert_eq!(returned(&call(&lab, "GetVirtualHardDiskState", at(r"C:\a.vhdx"))), 0);
}
