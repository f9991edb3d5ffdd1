//! From pools to settings, and from settings to machines: what a client takes as a default is taken back as it came.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::panic, reason = "as above")]

mod support;

use cim::{Instance, ObjectPath, Value};
use machine::settings::{ControllerKind, Generation, Media};
use support::{Lab, MIB, V2, output, over, returned, settings};
use uuid::Uuid;
use wsman::Operations as _;

/// The pool, its capabilities, and the settings that define them: default, least, most, step.
fn defined(lab: &Lab, pool: &Instance) -> [Instance; 4] {
    let path = pool.path.as_ref().unwrap();
    let mut capabilities = lab.associators(path, &over("Msvm_ElementCapabilities"));
    capabilities.retain(|one| one.class == "Msvm_AllocationCapabilities");
    assert_eq!(capabilities.len(), 1, "{path}");
    assert_eq!(capabilities[0].get("ResourceSubType"), pool.get("ResourceSubType"));
    let capabilities = capabilities.remove(0).path.unwrap();
    let associations = lab.references(&capabilities, &over("Msvm_SettingsDefineCapabilities"));
    assert_eq!(associations.len(), 4, "{path}");
    [(0_u16, 0_u16), (3, 1), (3, 2), (3, 3)].map(|(role, range)| {
        let fits = |one: &&Instance| {
            one.get("ValueRole") == Some(&Value::from(role))
                && one.get("ValueRange") == Some(&Value::from(range))
        };
        let association = associations.iter().find(fits).unwrap();
        let part = association.get("PartComponent").and_then(Value::as_path).unwrap();
        lab.hyperv.get(&lab.call(), V2, part).unwrap()
    })
}

/// The default of the pool with that subtype.
fn default(lab: &Lab, sub_type: &str) -> Instance {
    let wanted = format!("Microsoft:Hyper-V:{sub_type}");
    let pools = lab.list(V2, "CIM_ResourcePool");
    let pool = pools.iter().find(|pool| pool.text("ResourceSubType") == Some(&wanted));
    let [default, ..] = defined(lab, pool.unwrap_or_else(|| panic!("no pool of {sub_type}")));
    assert_eq!(default.text("ResourceSubType"), Some(wanted.as_str()));
    default
}

#[test]
fn every_pool_has_its_capabilities_and_bounds() {
    let lab = Lab::new();
    lab.machine("web", Generation::One);
    let pools = lab.list(V2, "CIM_ResourcePool");
    assert_eq!(pools.iter().filter(|pool| pool.class == "Msvm_ProcessorPool").count(), 1);
    let mut types = std::collections::HashSet::new();
    for pool in &pools {
        assert_eq!(pool.get("Primordial"), Some(&Value::Boolean(true)));
        assert!(types.insert(pool.text("ResourceSubType").unwrap().to_owned()), "{pool:?}");
        let bounds = defined(&lab, pool);
        for (bound, word) in bounds.iter().zip(["Default", "Minimum", "Maximum", "Increment"]) {
            let id = bound.text("InstanceID").unwrap();
            assert!(id.starts_with(r"Microsoft:Definition\") && id.ends_with(word), "{id}");
            assert_eq!(bound.get("ResourceType"), pool.get("ResourceType"), "{id}");
        }
        let quantities = bounds.map(|bound| bound.get("VirtualQuantity").and_then(Value::as_u64).unwrap());
        let [default, least, most, step] = quantities;
        assert!(least <= default && default <= most && step > 0, "{quantities:?}");
        let path = pool.path.as_ref().unwrap();
        let hosts = lab.associators(path, &over("Msvm_HostedResourcePool"));
        assert_eq!(hosts[0].text("Name"), Some("HOST"));
        let of_pool = lab.associators(path, &over("Msvm_SettingsDefineState"));
        assert_eq!(of_pool[0].class.as_str(), "Msvm_ResourcePoolSettingData");
    }
    // What the machine has is from pools: all but what nobody can add.
    for part in lab.associators(
        &settings(lab.host.machine_ids(None, 1).unwrap()[0]),
        &over("Msvm_VirtualSystemSettingDataComponent"),
    ) {
        let from = lab.associators(part.path.as_ref().unwrap(), &over("Msvm_ResourceAllocationFromPool"));
        let known = part.text("ResourceSubType").is_some_and(|sub| types.contains(sub));
        assert_eq!(from.len(), usize::from(known), "{part:?}");
    }
    let processors = pools.iter().find(|pool| pool.class == "Msvm_ProcessorPool").unwrap();
    assert_eq!(processors.get("Capacity"), Some(&Value::Uint64(64 * 100_000)), "of the host's 64");
}

/// Two kinds that a machine of ours cannot be given are not offered.
#[test]
fn what_cannot_be_added_has_no_pool() {
    let lab = Lab::new();
    let pools = lab.list(V2, "Msvm_ResourcePool");
    for absent in
        ["Emulated Ethernet Port", "Synthetic Diskette Drive", "Physical Disk Drive", "Virtual Floppy Disk"]
    {
        let wanted = format!("Microsoft:Hyper-V:{absent}");
        assert!(pools.iter().all(|pool| pool.text("ResourceSubType") != Some(&wanted)), "{absent}");
    }
}

fn add(lab: &Lab, id: Uuid, resource: Instance) -> ObjectPath {
    let class = resource.class.clone();
    let added = lab.manage(
        "AddResourceSettings",
        vec![
            ("AffectedConfiguration", settings(id).into()),
            ("ResourceSettings", Value::Array(vec![resource.into()])),
        ],
    );
    assert_eq!(returned(&added), 0, "{class}");
    output(&added, "ResultingResourceSettings").unwrap().elements()[0].as_path().unwrap().clone()
}

#[test]
fn each_default_can_be_added_as_it_came() {
    for generation in [Generation::One, Generation::Two] {
        let lab = Lab::new();
        for (name, size) in [("disk.raw", 8 * MIB), ("image.iso", MIB)] {
            std::fs::File::create(lab.path("c").join(name)).unwrap().set_len(size).unwrap();
        }
        let wanted = format!("Microsoft:Hyper-V:SubType:{}", generation.number());
        let services = lab.list(V2, "Msvm_VirtualSystemManagementCapabilities");
        let systems =
            lab.associators(services[0].path.as_ref().unwrap(), &over("Msvm_SettingsDefineCapabilities"));
        let system =
            systems.into_iter().find(|one| one.text("VirtualSystemSubType") == Some(&wanted)).unwrap();
        let made =
            lab.manage("DefineSystem", vec![("SystemSettings", system.with("ElementName", "made").into())]);
        assert_eq!(returned(&made), 0);
        let id = lab.host.resolve("made").unwrap();

        let controller = match generation {
            // Both IDE controllers are there from the start.
            Generation::One => {
                let mut all = lab.associators(&settings(id), &over("Msvm_VirtualSystemSettingDataComponent"));
                all.retain(|one| {
                    one.text("ResourceSubType") == Some("Microsoft:Hyper-V:Emulated IDE Controller")
                });
                add(&lab, id, default(&lab, "Synthetic SCSI Controller"));
                all.remove(0).path.unwrap()
            }
            Generation::Two => add(&lab, id, default(&lab, "Synthetic SCSI Controller")),
        };
        let drive = |sub_type: &str, slot: &str| {
            let drive =
                default(&lab, sub_type).with("Parent", controller.to_string()).with("AddressOnParent", slot);
            add(&lab, id, drive)
        };
        let medium = |sub_type: &str, drive: &ObjectPath, file: &str| {
            let medium =
                default(&lab, sub_type).with("Parent", drive.to_string()).with("HostResource", vec![file]);
            add(&lab, id, medium)
        };
        let disk = drive("Synthetic Disk Drive", "0");
        medium("Virtual Hard Disk", &disk, r"C:\disk.raw");
        let dvd = drive("Synthetic DVD Drive", "1");
        medium("Virtual CD/DVD Disk", &dvd, r"C:\image.iso");
        let adapter = add(&lab, id, default(&lab, "Synthetic Ethernet Port"));
        let switch = lab.list(V2, "Msvm_VirtualEthernetSwitch").remove(0).path.unwrap();
        let connection = default(&lab, "Ethernet Connection")
            .with("Parent", adapter.to_string())
            .with("HostResource", vec![switch.to_string()]);
        add(&lab, id, connection);
        for (sub_type, quantity) in [("Processor", 2_u64), ("Memory", 2048)] {
            let before = default(&lab, sub_type);
            add(&lab, id, before.with("VirtualQuantity", quantity));
        }

        let now = lab.host.machine(id).unwrap().record.settings;
        assert_eq!((now.processors.count, now.memory.startup_mib), (2, 2048));
        assert_eq!(now.adapters[0].switch.as_deref(), Some("nat"));
        let controllers = now.controllers.iter();
        let filled: Vec<_> = controllers.filter(|controller| !controller.drives.is_empty()).collect();
        let kind = if generation == Generation::One { ControllerKind::Ide } else { ControllerKind::Scsi };
        assert_eq!((filled.len(), filled[0].kind), (1, kind));
        assert!(matches!(filled[0].drives[0].media, Media::Disk { .. }));
        assert!(matches!(filled[0].drives[1].media, Media::Dvd { image: Some(_) }));
        lab.host.start(id).unwrap();
    }
}

/// An IDE controller is a resource too: of a machine that has fewer than two.
#[test]
fn an_ide_controller_is_added_where_there_is_room() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    let before = lab.host.machine(id).unwrap().record.settings.controllers.len();
    assert_eq!(before, 1, "the one that has the disk");
    add(&lab, id, default(&lab, "Emulated IDE Controller"));
    assert_eq!(lab.host.machine(id).unwrap().record.settings.controllers.len(), 2);
}

/// What scripts ask for in the language of queries.
#[test]
fn queries_find_pools_and_defaults() {
    let lab = Lab::new();
    lab.machine("web", Generation::Two);
    let ask = |text: &str| -> Vec<Instance> {
        let cim::Query::Select(select) = text.parse().unwrap() else { panic!("{text}") };
        let place =
            cim::query::Place { schema: lab.hyperv.schema(V2).unwrap(), server: "HOST", namespace: V2 };
        let mut found = lab.list(V2, select.class.as_str());
        found.retain(|one| select.matches(one, &place));
        found
    };
    let one = "SELECT * FROM Msvm_ResourcePool WHERE ResourceSubType='Microsoft:Hyper-V:Synthetic Disk Drive' AND Primordial=True";
    assert_eq!(ask(one).len(), 1);
    let most = "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:Definition%Maximum'";
    assert_eq!(ask(most)[0].get("VirtualQuantity"), Some(&Value::Uint64(2048)));
    let disk = r"SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE '%\\Default' AND ResourceSubType = 'Microsoft:Hyper-V:Virtual Hard Disk'";
    assert_eq!(ask(disk).len(), 1);
    let capabilities = ask("SELECT * FROM Msvm_AllocationCapabilities WHERE ResourceType = 10");
    let path = capabilities[0].path.as_ref().unwrap().to_string().replace('\\', r"\\");
    let of = format!(
        "SELECT * FROM Msvm_SettingsDefineCapabilities WHERE ValueRange=0 AND GroupComponent = '{path}'"
    );
    let found = ask(&of);
    assert_eq!(found.len(), 1, "{of}");
}
