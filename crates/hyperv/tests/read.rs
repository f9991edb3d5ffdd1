//! Reading: every class that has instances, the associations between them, and who sees what.

mod support;

use access::Action;
use cim::{ObjectPath, Type, Value};
use machine::settings::Generation;
use support::{Lab, V2, output, over, returned, settings, system};
use wsman::{FailureKind, Operations as _, Walk};

#[test]
fn a_client_finds_its_machine_and_what_it_is_made_of() {
    let lab = Lab::new();
    let one = lab.machine("web", Generation::Two);
    lab.machine("db", Generation::One);
    let systems = lab.list(V2, "Msvm_ComputerSystem");
    let mut names: Vec<_> = systems.iter().map(|s| s.text("ElementName").unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOST", "db", "web"]);

    let found = lab.get(V2, &format!("Msvm_ComputerSystem.Name=\"{}\"", one.record.id)).unwrap();
    assert_eq!(found.get("EnabledState"), Some(&Value::Uint16(3)));
    let path = found.path.clone().unwrap();
    assert_eq!(path.host.as_deref(), Some("HOST"));

    let found = lab.associators(&path, &over("Msvm_SettingsDefineState"));
    assert_eq!(found.len(), 1);
    let setting = &found[0];
    assert_eq!(setting.text("VirtualSystemType"), Some("Microsoft:Hyper-V:System:Realized"));
    assert_eq!(setting.text("VirtualSystemSubType"), Some("Microsoft:Hyper-V:SubType:2"));

    let parts =
        lab.associators(setting.path.as_ref().unwrap(), &over("Msvm_VirtualSystemSettingDataComponent"));
    let of = |class: &str| parts.iter().filter(|part| part.class == class).collect::<Vec<_>>();
    assert_eq!(of("Msvm_ProcessorSettingData")[0].get("VirtualQuantity"), Some(&Value::Uint64(2)));
    assert_eq!(of("Msvm_MemorySettingData")[0].get("VirtualQuantity"), Some(&Value::Uint64(512)));
    assert_eq!(of("Msvm_ResourceAllocationSettingData").len(), 3, "a controller, a disk drive, a DVD drive");
    let disk = of("Msvm_StorageAllocationSettingData")[0];
    let drive: ObjectPath = disk.text("Parent").unwrap().parse().unwrap();
    assert_eq!(
        lab.get(V2, &drive.to_string()).unwrap().text("ResourceSubType"),
        Some("Microsoft:Hyper-V:Synthetic Disk Drive")
    );
    let port = of("Msvm_EthernetPortAllocationSettingData")[0];
    let Some(Value::Array(switches)) = port.get("HostResource") else { panic!("{port:?}") };
    let switch = lab.get(V2, switches[0].as_str().unwrap()).unwrap();
    assert_eq!(switch.text("ElementName"), Some("nat"));
}

/// Whether a value is of a declared type, an element of an array at a time.
fn is_of(value: &Value, ty: &Type) -> bool {
    match (value, ty) {
        (Value::Array(elements), ty) => elements.iter().all(|one| is_of(one, ty)),
        (Value::String(_), Type::String)
        | (Value::Boolean(_), Type::Boolean)
        | (Value::Datetime(_), Type::Datetime)
        | (Value::Reference(_), Type::Reference(_))
        | (Value::Object(_), Type::Object(_)) => true,
        // The same number in the declared width is the same value.
        (value, ty) => {
            value.as_integer().and_then(|number| Value::integer(ty, number)).as_ref() == Some(value)
        }
    }
}

/// Every class of the schema can be asked for. Every instance that is listed has exactly the properties of its class, of
/// the declared types, and keys that no other has; it is got by its path; every association leads from each of its ends to
/// the other.
#[test]
fn what_is_listed_is_found_by_its_path_and_by_its_associations() {
    let lab = Lab::new();
    let machine = lab.machine("web", Generation::One);
    lab.host.start(machine.record.id).unwrap();
    let other = lab.machine("db", Generation::Two);
    lab.host.start(other.record.id).unwrap();
    let mut served = 0;
    for namespace in [V2, "root/cimv2"] {
        let schema = lab.hyperv.schema(namespace).unwrap().clone();
        let mut paths = std::collections::HashSet::new();
        for class in schema.classes() {
            for listed in lab.list(namespace, class.name.as_str()) {
                assert!(schema.is_a(listed.class.as_str(), class.name.as_str()));
                if listed.class != class.name {
                    continue;
                }
                served += 1;
                let path = listed.path.clone().unwrap();
                assert_eq!(listed.properties.len(), class.properties.len());
                assert_eq!(path.keys.len(), class.keys().count(), "{path}");
                assert!(paths.insert(path.to_string().to_lowercase()), "{path} twice");
                for (property, (name, value)) in class.properties.iter().zip(&listed.properties) {
                    assert_eq!(property.name.as_str(), name.as_str());
                    let Some(value) = value else { continue };
                    assert_eq!(matches!(value, Value::Array(_)), property.array, "{path} {name}");
                    assert!(
                        is_of(value, &property.ty),
                        "{path} {name}: {value} is no {}",
                        property.ty.keyword()
                    );
                }
                let got = lab.hyperv.get(&lab.call(), namespace, &path).unwrap();
                // The clock goes on, and guests say who they are when they like.
                let lives = ["Win32_OperatingSystem", "Msvm_HeartbeatComponent", "Msvm_KvpExchangeComponent"];
                if !lives.contains(&listed.class.as_str()) {
                    assert_eq!(got, listed);
                }
                if !class.is_association() {
                    continue;
                }
                let ends: Vec<_> = path.keys.iter().filter_map(|(_, end)| end.as_path().cloned()).collect();
                for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
                    let walk = over(class.name.as_str());
                    let mut far = lab.hyperv.associators(&lab.call(), namespace, from, &walk).unwrap();
                    assert!(far.any(|far| far.unwrap().path.as_ref() == Some(to)), "{from} to {to}");
                }
            }
        }
    }
    assert!(served > 300, "{served}");
}

#[test]
fn walks_take_only_what_is_asked_for() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let walk = |walk: Walk| lab.associators(&system(id), &walk).len();
    let result = |class: &str| Walk { result: Some(class.into()), ..Walk::default() };
    assert_eq!(walk(result("Msvm_VirtualSystemSettingData")), 1);
    assert_eq!(walk(result("CIM_SettingData")), 2, "its settings and its export settings");
    assert_eq!(walk(result("CIM_Service")), 1);
    assert_eq!(walk(result("Msvm_ConcreteJob")), 0);
    let role = |role: &str| Walk { role: Some(role.into()), ..Walk::default() };
    assert_eq!(walk(role("SettingData")), 0);
    assert_eq!(walk(role("ManagedElement")), 3, "those and what it can");
    let far = |role: &str| Walk { result_role: Some(role.into()), ..Walk::default() };
    assert_eq!(walk(far("SettingData")), 2);
    assert_eq!(lab.references(&system(id), &result("Msvm_SettingsDefineState")).len(), 1);
    assert_eq!(lab.references(&system(id), &role("Dependent")).len(), 1, "the host's");
    let machines = lab.associators(
        &ObjectPath::new("Msvm_VirtualSystemManagementService").with("Name", "vmms"),
        &over("Msvm_ServiceAffectsElement"),
    );
    assert_eq!(machines.len(), 1);
}

#[test]
fn what_cannot_be_found_is_said_plainly() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.machine("db", Generation::Two);
    let kind = |namespace: &str, path: &str| lab.get(namespace, path).unwrap_err().kind;
    assert_eq!(kind("root/hypervcluster/v2", "Msvm_ComputerSystem.Name=\"x\""), FailureKind::NoSuchNamespace);
    assert_eq!(kind(V2, "Msvm_NoSystem.Name=\"x\""), FailureKind::NoSuchClass);
    assert_eq!(kind(V2, "Msvm_ComputerSystem.Id=\"x\""), FailureKind::InvalidKeys);
    assert_eq!(kind(V2, "Msvm_ComputerSystem.Name=\"web\""), FailureKind::NotFound);
    assert_eq!(kind(V2, "Msvm_PlannedComputerSystem.Name=\"web\""), FailureKind::NotFound);
    let system = "Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\"";
    assert_eq!(kind(V2, system), FailureKind::Ambiguous);
    assert_eq!(
        kind(V2, &format!("Msvm_ProcessorSettingData.InstanceID=\"Microsoft:{id}\"")),
        FailureKind::NotFound
    );
    let found = lab.get(r"ROOT\Virtualization\V2", &format!("msvm_computersystem.name='{id}'")).unwrap();
    assert_eq!(found.class.as_str(), "Msvm_ComputerSystem");
    assert!(lab.hyperv.schema("root/nothing").is_none());
}

#[test]
fn nobody_sees_a_machine_that_is_not_theirs() {
    let lab = Lab::new();
    let (mine, other) =
        (lab.machine("mine", Generation::Two).record.id, lab.machine("other", Generation::Two).record.id);
    *lab.rule.lock().unwrap() =
        Box::new(move |_, action, machine| action == Action::See && machine.is_none_or(|id| id == mine));
    let mut machines = lab.list(V2, "Msvm_VirtualSystemSettingData");
    machines.retain(|one| one.text("VirtualSystemIdentifier").is_some());
    assert_eq!(machines.len(), 1);
    let mut defined = lab.list(V2, "Msvm_SettingsDefineState");
    defined.retain(|one| !one.get("ManagedElement").unwrap().to_string().contains("Pool"));
    assert_eq!(defined.len(), 4, "one machine and its port, one switch and its own");
    let hidden = lab.hyperv.get(&lab.call(), V2, &system(other)).unwrap_err();
    assert_eq!(hidden.kind, FailureKind::NotFound);
    let walk = lab.hyperv.associators(&lab.call(), V2, &settings(other), &Walk::default());
    assert_eq!(walk.err().unwrap().kind, FailureKind::NotFound);
    let summary = lab.manage("GetSummaryInformation", vec![("RequestedInformation", vec![0_u32, 1].into())]);
    assert_eq!(output(&summary, "SummaryInformation").unwrap().elements().len(), 1);
}

#[test]
fn a_summary_has_what_was_asked_for() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.machine("db", Generation::Two);
    let asked: Value = vec![1_u32, 4, 100].into();
    let summary = lab.manage(
        "GetSummaryInformation",
        vec![("SettingData", vec![settings(id)].into()), ("RequestedInformation", asked.clone())],
    );
    assert_eq!(returned(&summary), 0);
    let all = output(&summary, "SummaryInformation").unwrap().elements();
    let one = all[0].as_instance().unwrap();
    assert_eq!((all.len(), one.text("ElementName")), (1, Some("web")));
    assert_eq!(one.get("NumberOfProcessors"), Some(&Value::Uint16(2)));
    assert_eq!(one.get("EnabledState"), Some(&Value::Uint16(3)));
    assert_eq!(one.property("Notes"), Some(None), "not asked for");
    let all = lab.manage("GetSummaryInformation", vec![("RequestedInformation", asked)]);
    assert_eq!(output(&all, "SummaryInformation").unwrap().elements().len(), 2);
    let wrong = lab.manage(
        "GetSummaryInformation",
        vec![(
            "SettingData",
            vec![ObjectPath::new("Msvm_VirtualSystemSettingData").with("InstanceID", "x")].into(),
        )],
    );
    assert_eq!(returned(&wrong), 32773);
}

#[test]
fn the_host_says_what_it_is() {
    let lab = Lab::new();
    let list = |class: &str| lab.list("root/cimv2", class).remove(0);
    assert_eq!(list("Win32_ComputerSystem").get("NumberOfLogicalProcessors"), Some(&Value::Uint32(64)));
    assert_eq!(list("Win32_OperatingSystem").text("Version"), Some("10.0.20348"));
    assert_eq!(list("Win32_ComputerSystemProduct").text("Vendor"), Some("Slipway"));
    assert_eq!(list("Win32_ComputerSystemProcessor").class.as_str(), "Win32_ComputerSystemProcessor");
}
