//! Switches, ports, connections and features, as clients go through them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use access::Action;
use cim::{Instance, ObjectPath, Value};
use machine::settings::Generation;
use machine::switch::SwitchKind;
use support::{Lab, V2, output, over, returned, settings, system};
use wsman::{Operations as _, Output, Walk};

const SETTINGS: &str = "Msvm_VirtualEthernetSwitchSettingData";
const CONNECTION: &str = "Msvm_EthernetPortAllocationSettingData";
const VLAN: &str = "Msvm_EthernetSwitchPortVlanSettingData";
const SECURITY: &str = "Msvm_EthernetSwitchPortSecuritySettingData";
const BANDWIDTH: &str = "Msvm_EthernetSwitchPortBandwidthSettingData";

impl Lab {
    /// Calls a method of the service of switches.
    fn switching(&self, method: &str, parameters: Vec<(&str, Value)>) -> Output {
        let service = ObjectPath::new("Msvm_VirtualEthernetSwitchManagementService");
        self.invoke(&service.with("Name", "nvspwmi"), method, parameters).unwrap()
    }

    fn define(&self, settings: Instance, connections: Vec<Instance>) -> Output {
        self.switching(
            "DefineSystem",
            vec![("SystemSettings", settings.into()), ("ResourceSettings", all(connections))],
        )
    }

    /// The path of a switch that was defined.
    fn defined(&self, name: &str, connections: Vec<Instance>) -> ObjectPath {
        let made = self.define(named(name), connections);
        assert_eq!(returned(&made), 0);
        output(&made, "ResultingSystem").unwrap().as_path().unwrap().clone()
    }

    fn one(&self, from: &ObjectPath, association: &str, class: &str) -> Instance {
        let walk = Walk { result: Some(class.into()), ..over(association) };
        let mut found = self.associators(from, &walk);
        assert_eq!(found.len(), 1, "{from} over {association} to {class}: {found:?}");
        found.remove(0)
    }

    fn kind(&self, name: &str) -> SwitchKind {
        self.host.switch(name).unwrap().kind
    }

    /// The connection of a machine's first adapter.
    fn connection(&self, id: uuid::Uuid) -> Instance {
        let of = settings(id).text("InstanceID").unwrap().to_owned();
        let all = self.list(V2, CONNECTION).into_iter();
        all.into_iter().find(|one| one.text("InstanceID").unwrap().starts_with(&of)).unwrap()
    }
}

fn named(name: &str) -> Instance {
    Instance::new(SETTINGS).with("ElementName", name)
}

fn all(instances: Vec<Instance>) -> Value {
    Value::Array(instances.into_iter().map(Value::from).collect())
}

fn to(path: &ObjectPath) -> Instance {
    Instance::new(CONNECTION).with("HostResource", vec![path.to_string()])
}

fn path(instance: &Instance) -> ObjectPath {
    instance.path.clone().unwrap()
}

fn host() -> ObjectPath {
    ObjectPath::new("Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .with("Name", "HOST")
}

fn bridge(lab: &Lab) -> ObjectPath {
    let ports = lab.list(V2, "Msvm_ExternalEthernetPort");
    path(ports.iter().find(|port| port.text("ElementName") == Some("br0")).unwrap())
}

#[test]
fn what_a_switch_connects_to_makes_its_kind() {
    let lab = Lab::new();
    let bridge = bridge(&lab);
    lab.defined("alone", vec![]);
    assert_eq!(lab.kind("alone"), SwitchKind::Private);
    lab.defined("in", vec![to(&host())]);
    assert_eq!(lab.kind("in"), SwitchKind::Nat);
    let made = lab.defined("out", vec![to(&bridge), to(&host())]);
    assert_eq!(lab.kind("out"), SwitchKind::External { bridge: "br0".to_owned() });

    // From the switch to the bridge, by the walk that clients follow, and back.
    let port = lab.one(&made, "Msvm_SystemDevice", "Msvm_EthernetSwitchPort");
    let near = lab.one(&path(&port), "Msvm_EthernetDeviceSAPImplementation", "Msvm_LANEndpoint");
    let far = lab.one(&path(&near), "Msvm_ActiveConnection", "Msvm_LANEndpoint");
    let external = lab.one(&path(&far), "Msvm_EthernetDeviceSAPImplementation", "Msvm_ExternalEthernetPort");
    assert_eq!(path(&external), bridge);
    assert_eq!(external.get("IsBound"), Some(&true.into()));
    let back = lab.one(&path(&far), "Msvm_ActiveConnection", "Msvm_LANEndpoint");
    assert_eq!(back.text("SystemName"), made.text("Name"));
    let connection = lab.one(&path(&port), "Msvm_ElementSettingData", CONNECTION);
    let resource = connection.get("HostResource").unwrap().elements()[0].as_str().unwrap().to_owned();
    assert!(resource.contains("Msvm_ExternalEthernetPort"), "{resource}");
    let set = lab.one(&made, "Msvm_SettingsDefineState", SETTINGS);
    assert_eq!(
        path(&lab.one(&path(&set), "Msvm_VirtualSystemSettingDataComponent", CONNECTION)),
        path(&connection)
    );
    assert!(lab.list(V2, "Msvm_InternalEthernetPort").is_empty(), "the host has none");

    // One kind becomes another by its connection.
    let remove = |connection: &ObjectPath| {
        let which = vec![connection.clone()].into();
        returned(&lab.switching("RemoveResourceSettings", vec![("ResourceSettings", which)]))
    };
    assert_eq!((remove(&path(&connection)), lab.kind("out")), (0, SwitchKind::Private));
    assert_eq!(remove(&path(&connection)), 4, "it has none now");
    let add = |to: Vec<Instance>| {
        let affected = path(&set).into();
        let parameters = vec![("AffectedConfiguration", affected), ("ResourceSettings", all(to))];
        lab.switching("AddResourceSettings", parameters)
    };
    let added = add(vec![to(&host())]);
    assert_eq!((returned(&added), lab.kind("out")), (0, SwitchKind::Nat));
    let results = output(&added, "ResultingResourceSettings").unwrap();
    let connection = lab.hyperv.get(&lab.call(), V2, results.elements()[0].as_path().unwrap()).unwrap();
    assert_eq!(returned(&add(vec![to(&host())])), 4, "it is there");
    assert_eq!(returned(&add(vec![])), 4);
    let change = |connection: Instance| {
        let parameters = vec![("ResourceSettings", all(vec![connection]))];
        returned(&lab.switching("ModifyResourceSettings", parameters))
    };
    let outside = connection.clone().with("HostResource", vec![bridge.to_string()]);
    assert_eq!((change(outside), lab.kind("out")), (0, SwitchKind::External { bridge: "br0".to_owned() }));
    assert_eq!(returned(&add(vec![to(&bridge)])), 1, "one bridge");
    assert_eq!(change(connection.clone().with("InstanceID", "Microsoft:x")), 4);
    assert_eq!(change(connection.with("HostResource", Vec::<String>::new())), 4);
}

#[test]
fn a_switch_that_cannot_be_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let before = lab.host.switches().unwrap();
    let elsewhere = ObjectPath::new("Msvm_ComputerSystem").with("Name", "OTHER");
    let nowhere = ObjectPath::new("Msvm_ExternalEthernetPort").with("DeviceID", "Microsoft:br9");
    let bridge = bridge(&lab);
    for (settings, connections, code) in [
        (named("nat"), vec![], 2),
        (named("a\nb"), vec![], 4),
        (named("x").with("IOVPreferred", true), vec![], 1),
        (named("x").with("BandwidthReservationMode", 1_u32), vec![], 1),
        (named("x").with("BandwidthReservationMode", 9_u32), vec![], 4),
        (named("x").with("Notes", vec!["n".repeat(9000)]), vec![], 4),
        (named("x"), vec![to(&elsewhere)], 4),
        (named("x"), vec![to(&nowhere)], 4),
        (named("x"), vec![to(&bridge), to(&bridge)], 1),
        (named("x"), vec![to(&host()), to(&host())], 4),
        (named("x"), vec![Instance::new(CONNECTION)], 4),
        (named("x"), vec![Instance::new("Msvm_MemorySettingData")], 1),
        (Instance::new("Msvm_MemorySettingData"), vec![], 4),
    ] {
        let refused = lab.define(settings.clone(), connections);
        assert_eq!(returned(&refused), code, "{settings:?}");
        assert_eq!(output(&refused, "ResultingSystem"), None);
    }
    assert_eq!(lab.host.switches().unwrap(), before);
    for (method, parameter, value) in [
        ("DestroySystem", "AffectedSystem", Value::from(system(uuid::Uuid::nil()))),
        ("ModifySystemSettings", "SystemSettings", named("x").into()),
        ("RemoveResourceSettings", "ResourceSettings", vec![bridge.clone()].into()),
        ("ModifyResourceSettings", "ResourceSettings", all(vec![to(&bridge)])),
        ("AddResourceSettings", "AffectedConfiguration", settings(uuid::Uuid::nil()).into()),
    ] {
        assert_eq!(returned(&lab.switching(method, vec![(parameter, value)])), 4, "{method}");
        assert_eq!(returned(&lab.switching(method, vec![])), 4, "{method} without anything");
    }
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == Action::See);
    assert_eq!(returned(&lab.define(named("x"), vec![])), 32769);
    let parameters =
        vec![("AffectedSystem", lab.list(V2, "Msvm_VirtualEthernetSwitch")[0].path.clone().unwrap().into())];
    assert_eq!(returned(&lab.switching("DestroySystem", parameters)), 32769);
}

#[test]
fn an_adapter_is_found_at_its_switch_and_the_switch_from_it() {
    let lab = Lab::new();
    let switch = lab.defined("LAN", vec![]);
    let (web, other) = (lab.machine("web", Generation::Two), lab.machine("db", Generation::One));
    let id = web.record.id;
    let connection = lab.connection(id);
    assert_eq!(connection.text("ElementName"), Some("Dynamic Ethernet Switch Port"));
    let plugged = connection.with("HostResource", vec![switch.to_string()]).with("ElementName", "port 7");
    let modify = |connection: &Instance| {
        let parameters = vec![("ResourceSettings", all(vec![connection.clone()]))];
        returned(&lab.manage("ModifyResourceSettings", parameters))
    };
    assert_eq!(modify(&plugged), 0);
    assert!(lab.associators(&system(id), &over("Msvm_SystemDevice")).is_empty(), "there is no guest");
    let port = lab.one(&switch, "Msvm_SystemDevice", "Msvm_EthernetSwitchPort");
    assert_eq!(port.get("EnabledState"), Some(&3_u16.into()));
    lab.host.start(id).unwrap();
    lab.host.start(other.record.id).unwrap();

    let port = lab.one(&switch, "Msvm_SystemDevice", "Msvm_EthernetSwitchPort");
    assert_eq!(port.get("EnabledState"), Some(&2_u16.into()));
    assert_eq!(port.text("ElementName"), Some("port 7"));
    assert_eq!(path(&lab.one(&path(&port), "Msvm_SystemDevice", "Msvm_VirtualEthernetSwitch")), switch);
    let near = lab.one(&path(&port), "Msvm_EthernetDeviceSAPImplementation", "Msvm_LANEndpoint");
    let far = lab.one(&path(&near), "Msvm_ActiveConnection", "Msvm_LANEndpoint");
    assert_eq!(far.text("MACAddress").unwrap().len(), 12);
    let adapter = lab.one(&path(&far), "Msvm_DeviceSAPImplementation", "Msvm_SyntheticEthernetPort");
    assert_eq!(adapter.text("PermanentAddress"), far.text("MACAddress"));
    assert_eq!(
        path(&lab.one(&path(&adapter), "Msvm_SystemDevice", "Msvm_ComputerSystem")).text("Name"),
        system(id).text("Name")
    );
    // And back, on the other side of each.
    let of = lab.one(&path(&adapter), "Msvm_SettingsDefineState", "Msvm_SyntheticEthernetPortSettingData");
    assert!(
        plugged
            .text("Parent")
            .unwrap()
            .ends_with(&path(&of).to_string().split(':').next_back().unwrap().to_owned())
            || plugged.text("Parent") == Some(path(&of).to_string().as_str())
    );
    let back = lab.one(
        &path(&lab.one(&path(&adapter), "Msvm_DeviceSAPImplementation", "Msvm_LANEndpoint")),
        "Msvm_ActiveConnection",
        "Msvm_LANEndpoint",
    );
    assert_eq!(path(&back), path(&near));
    assert_eq!(path(&lab.one(&path(&port), "Msvm_SettingsDefineState", CONNECTION)), path(&plugged));
    for class in ["Msvm_EthernetSwitchPort", "Msvm_LANEndpoint", "Msvm_SyntheticEthernetPort"] {
        for one in lab.list(V2, class) {
            assert_eq!(
                lab.hyperv.get(&lab.call(), V2, &path(&one)).unwrap(),
                one,
                "each is found by its keys"
            );
        }
    }
    let devices = lab.associators(&system(id), &over("Msvm_SystemDevice"));
    assert!(devices.iter().all(|device| device.text("SystemName") == system(id).text("Name")), "{devices:?}");

    // A port of a machine that one may not see is not there.
    *lab.rule.lock().unwrap() = Box::new(move |_, _, machine| machine != Some(id));
    assert!(lab.associators(&switch, &over("Msvm_SystemDevice")).is_empty());
    *lab.rule.lock().unwrap() = Box::new(|_, _, _| true);

    // The name follows; a switch in use stays; what runs keeps its connection.
    let set = lab.one(&switch, "Msvm_SettingsDefineState", SETTINGS);
    let rename = set.with("ElementName", "office").with("Notes", vec!["first", "floor"]);
    let renamed = lab.switching("ModifySystemSettings", vec![("SystemSettings", rename.into())]);
    assert_eq!(returned(&renamed), 0);
    let now = lab.host.switch("office").unwrap();
    assert_eq!(now.notes, "first\nfloor");
    assert_eq!(lab.host.machine(id).unwrap().record.settings.adapters[0].switch.as_deref(), Some("office"));
    let destroy =
        || returned(&lab.switching("DestroySystem", vec![("AffectedSystem", switch.clone().into())]));
    assert_eq!(destroy(), 5);
    let outside =
        vec![("AffectedConfiguration", switch.clone().into()), ("ResourceSettings", all(vec![to(&host())]))];
    assert_eq!(returned(&lab.switching("AddResourceSettings", outside.clone())), 32775, "a guest is on it");
    assert_eq!(modify(&plugged.clone().with("HostResource", Vec::<String>::new())), 5, "it runs");
    lab.host.stop(id).unwrap();
    let unplug = vec![("ResourceSettings", vec![path(&plugged)].into())];
    assert_eq!(returned(&lab.manage("RemoveResourceSettings", unplug)), 0);
    let adapter = lab.host.machine(id).unwrap().record.settings.adapters.remove(0);
    assert_eq!((adapter.switch, adapter.port), (None, None));
    assert_eq!(destroy(), 0);
    assert_eq!(destroy(), 4);
}

#[test]
fn a_vlan_is_a_feature_of_a_connection() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let connection = path(&lab.connection(id));
    let vlan_now = || lab.host.machine(id).unwrap().record.settings.adapters[0].vlan;
    // The default, by the walk of Microsoft's samples.
    let features = lab.list(V2, "Msvm_EthernetSwitchFeatureCapabilities").into_iter();
    let mut features =
        features.filter(|f| f.text("FeatureId") == Some("952C5004-4465-451C-8CB8-FA9AB382B773"));
    let feature = features.next().unwrap();
    let defaults = lab.references(&path(&feature), &over("Msvm_FeatureSettingsDefineCapabilities"));
    assert_eq!(defaults.len(), 1);
    assert_eq!(defaults[0].get("ValueRole"), Some(&0_u16.into()));
    let default = defaults[0].get("PartComponent").unwrap().as_path().unwrap();
    let default = lab.hyperv.get(&lab.call(), V2, default).unwrap();
    let mode =
        |mode: u32, access: u16| default.clone().with("OperationMode", mode).with("AccessVlanId", access);
    let add_to = |to: &ObjectPath, features: Vec<Instance>| {
        let parameters =
            vec![("AffectedConfiguration", to.clone().into()), ("FeatureSettings", all(features))];
        lab.manage("AddFeatureSettings", parameters)
    };
    let add = |feature: Instance| returned(&add_to(&connection, vec![feature]));
    for (what, code) in [
        (mode(2, 0), 1),
        (mode(3, 0), 1),
        (mode(1, 0), 4),
        (mode(1, 4095), 4),
        (mode(0, 7), 4),
        (mode(9, 0), 4),
        (Instance::new("Msvm_EthernetSwitchPortAclSettingData"), 1),
        (Instance::new("Msvm_EthernetSwitchPortOffloadSettingData"), 1),
        (Instance::new(BANDWIDTH).with("Limit", 1_000_000_u64), 1),
        (Instance::new(BANDWIDTH).with("Limit", 0_u64), 0),
        (Instance::new(SECURITY).with("AllowMacSpoofing", false), 1),
        (Instance::new(SECURITY).with("EnableDhcpGuard", true), 1),
        (Instance::new(SECURITY).with("AllowMacSpoofing", true).with("EnableDhcpGuard", false), 0),
    ] {
        assert_eq!(add(what.clone()), code, "{what:?}");
        assert_eq!(vlan_now(), None);
    }
    assert_eq!(returned(&add_to(&connection, vec![])), 4);
    assert_eq!(returned(&add_to(&settings(id), vec![mode(1, 7)])), 4, "no connection");
    assert_eq!(returned(&add_to(&connection, vec![mode(1, 7), mode(2, 0)])), 1, "all or none");
    assert_eq!(vlan_now(), None);

    let added = add_to(&connection, vec![mode(1, 7)]);
    assert_eq!((returned(&added), vlan_now()), (0, Some(7)));
    let made = output(&added, "ResultingFeatureSettings").unwrap().elements()[0].as_path().unwrap().clone();
    let made = lab.hyperv.get(&lab.call(), V2, &made).unwrap();
    assert_eq!(
        (made.get("OperationMode"), made.get("AccessVlanId")),
        (Some(&1_u32.into()), Some(&7_u16.into()))
    );
    assert_eq!(lab.one(&connection, "Msvm_EthernetPortSettingDataComponent", VLAN), made);
    let change = |feature: Instance| {
        returned(&lab.manage("ModifyFeatureSettings", vec![("FeatureSettings", all(vec![feature]))]))
    };
    assert_eq!((change(made.clone().with("AccessVlanId", 8_u16)), vlan_now()), (0, Some(8)));
    let security = lab.one(&connection, "Msvm_EthernetPortSettingDataComponent", SECURITY);
    assert_eq!(change(security.clone()), 0, "as it is");
    assert_eq!(change(security.with("AllowMacSpoofing", false)), 1);
    lab.host.start(id).unwrap();
    assert_eq!(change(made.clone()), 5, "it runs");
    lab.host.stop(id).unwrap();
    let remove = || {
        let which = vec![path(&made)].into();
        returned(&lab.manage("RemoveFeatureSettings", vec![("FeatureSettings", which)]))
    };
    assert_eq!((remove(), vlan_now()), (0, None));
    assert_eq!((remove(), change(made.clone())), (4, 4), "it has none");
    *lab.rule.lock().unwrap() = Box::new(|_, action, _| action == Action::See);
    assert_eq!(add(mode(1, 7)), 32769);
}
