//! The devices of machines: there with the guest, made of its settings, and honest about what is inside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Instant;

use cim::{Instance, ObjectPath, Value, embedded};
use engine::sim::{Behaviour, Effect, Operation, Place, Rule};
use machine::define::MachineEdit;
use machine::position::{PositionEdit, Put};
use machine::settings::{BootDevice, Generation};
use support::{Lab, MIB, PATIENCE, V2, over, returned, settings, system};
use uuid::Uuid;
use wsman::Operations as _;

fn devices(lab: &Lab, id: Uuid) -> Vec<Instance> {
    lab.associators(&system(id), &over("Msvm_SystemDevice"))
}

fn ids(devices: &[Instance], class: &str) -> Vec<String> {
    let of_class = devices.iter().filter(|device| device.class == class);
    of_class.map(|device| device.text("DeviceID").unwrap().to_owned()).collect()
}

fn far(lab: &Lab, from: &Instance, association: &str) -> Vec<Instance> {
    lab.associators(from.path.as_ref().unwrap(), &over(association))
}

#[test]
fn devices_come_and_go_with_the_guest() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::One).record.id;
    assert!(devices(&lab, id).is_empty());
    std::fs::write(lab.path("c/disc.iso"), vec![0; 5000]).unwrap();
    let image = Some(Some(lab.path("c/disc.iso")));
    lab.host.edit(id, &MachineEdit { dvd: image, ..MachineEdit::default() }).unwrap();
    lab.host.start(id).unwrap();
    let all = devices(&lab, id);
    // Ids are those of the devices, as hosts of Hyper-V have them; the machine is in the other key.
    const IDE: &str = "Microsoft:83F8638B-8DCA-4152-9EDA-2CA8B33039B4";
    assert_eq!(ids(&all, "Msvm_IDEController")[0], format!(r"{IDE}\0"));
    assert_eq!(ids(&all, "Msvm_DiskDrive"), [format!(r"{IDE}\0\0\D")]);
    assert_eq!(ids(&all, "Msvm_DVDDrive").len(), 1);
    assert_eq!(ids(&all, "Msvm_LogicalDisk").len(), 2);
    assert_eq!(ids(&all, "Msvm_SerialPort"), [r"Microsoft:8E3A359F-559A-4B6A-98A9-1690A6100ED7\0"]);
    for one in
        ["Msvm_SyntheticDisplayController", "Msvm_SyntheticMouse", "Msvm_SerialController", "Msvm_Keyboard"]
    {
        assert_eq!(ids(&all, one).len(), 1, "{one}");
    }
    assert!(ids(&all, "Msvm_TPM").is_empty());
    assert!(ids(&all, "Msvm_DisketteDrive").is_empty(), "no guest has one");

    // What each is made of, and where it came from.
    let with_settings = [
        ("Msvm_IDEController", "Msvm_ResourceAllocationSettingData"),
        ("Msvm_DiskDrive", "Msvm_ResourceAllocationSettingData"),
        ("Msvm_DVDDrive", "Msvm_ResourceAllocationSettingData"),
        ("Msvm_LogicalDisk", "Msvm_StorageAllocationSettingData"),
        ("Msvm_Processor", "Msvm_ProcessorSettingData"),
        ("Msvm_Memory", "Msvm_MemorySettingData"),
        ("Msvm_SerialPort", "Msvm_SerialPortSettingData"),
        ("Msvm_SyntheticDisplayController", "Msvm_SyntheticDisplayControllerSettingData"),
        ("Msvm_HeartbeatComponent", "Msvm_HeartbeatComponentSettingData"),
    ];
    for (class, made_of) in with_settings {
        for device in all.iter().filter(|device| device.class == class) {
            let found = far(&lab, device, "Msvm_SettingsDefineState");
            assert_eq!(found.len(), 1, "{device:?}");
            assert_eq!(found[0].class.as_str(), made_of);
        }
    }
    let only = |class: &str| all.iter().find(|device| device.class == class).unwrap();
    let pool = far(&lab, only("Msvm_DiskDrive"), "Msvm_ElementAllocatedFromPool");
    assert_eq!(pool[0].text("ResourceSubType"), Some("Microsoft:Hyper-V:Synthetic Disk Drive"));

    // From a controller to what is in its drives.
    let drives = far(&lab, only("Msvm_IDEController"), "Msvm_ControlledBy");
    assert_eq!(drives.len(), 2);
    let disk = far(&lab, only("Msvm_DiskDrive"), "Msvm_MediaPresent").remove(0);
    assert_eq!(disk.get("NumberOfBlocks"), Some(&Value::Uint64(16 * MIB / 512)));
    let image = far(&lab, only("Msvm_DVDDrive"), "Msvm_MediaPresent").remove(0);
    assert_eq!(image.get("NumberOfBlocks"), Some(&Value::Uint64(3)), "of 2,048 bytes");
    assert_eq!(image.get("Access"), Some(&Value::Uint16(1)));
    let head = far(&lab, only("Msvm_SyntheticDisplayController"), "Msvm_VideoHeadOnController");
    assert_eq!(head[0].class.as_str(), "Msvm_VideoHead");

    lab.host.stop(id).unwrap();
    assert!(devices(&lab, id).is_empty());
}

#[test]
fn two_machines_have_the_same_devices_under_their_own_names() {
    let lab = Lab::new();
    let [one, two] = ["one", "two"].map(|name| lab.machine(name, Generation::Two).record.id);
    for id in [one, two] {
        lab.host.start(id).unwrap();
    }
    let keyboards = lab.list(V2, "Msvm_Keyboard");
    assert_eq!(keyboards.len(), 2);
    assert_eq!(keyboards[0].text("DeviceID"), keyboards[1].text("DeviceID"));
    for keyboard in &keyboards {
        let found = lab.hyperv.get(&lab.call(), V2, keyboard.path.as_ref().unwrap()).unwrap();
        assert_eq!(found.text("SystemName"), keyboard.text("SystemName"));
    }
    let scsi = devices(&lab, one).into_iter().find(|d| d.class == "Msvm_SCSIProtocolController").unwrap();
    let links = lab.references(scsi.path.as_ref().unwrap(), &over("Msvm_ProtocolControllerForUnit"));
    let mut slots: Vec<_> = links.iter().map(|link| link.text("DeviceNumber").unwrap()).collect();
    slots.sort_unstable();
    assert_eq!(slots, ["0", "1"]);
}

fn component(lab: &Lab, id: Uuid, class: &str) -> Instance {
    devices(lab, id).into_iter().find(|device| device.class == class).unwrap()
}

fn pairs(lab: &Lab, component: &Instance) -> Vec<(String, String)> {
    let items = component.get("GuestIntrinsicExchangeItems").map(Value::elements).unwrap_or_default();
    let schema = lab.hyperv.schema(V2).unwrap();
    let read = items.iter().map(|item| embedded::read(item.as_str().unwrap(), schema).unwrap());
    let pair =
        |item: Instance| (item.text("Name").unwrap().to_owned(), item.text("Data").unwrap().to_owned());
    read.map(pair).collect()
}

#[test]
fn a_guest_is_what_its_agent_says() {
    let lab = Lab::new();
    let id = lab.machine("Web", Generation::Two).record.id;
    lab.sim.set_behaviour(id, Behaviour { agent: true, ..Behaviour::default() }).unwrap();
    lab.host.start(id).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let kvp = loop {
        let kvp = component(&lab, id, "Msvm_KvpExchangeComponent");
        if kvp.get("OperationalStatus") == Some(&Value::from(vec![2_u16])) {
            break kvp;
        }
        assert!(Instant::now() < deadline, "{kvp:?}");
        std::thread::yield_now();
    };
    let pairs = pairs(&lab, &kvp);
    let of = |name: &str| pairs.iter().find(|(there, _)| there == name).map(|(_, data)| data.as_str());
    assert_eq!(of("FullyQualifiedDomainName"), Some("web"));
    assert_eq!(of("OSName"), Some("Slipway simulated guest"));
    assert!(of("NetworkAddressIPv4").unwrap().parse::<std::net::Ipv4Addr>().is_ok(), "{pairs:?}");
    assert_eq!(of("NetworkAddressIPv6"), None);
    let heart = component(&lab, id, "Msvm_HeartbeatComponent");
    assert_eq!(heart.get("OperationalStatus"), Some(&Value::from(vec![2_u16])));
}

/// Agents that say nothing at all keep nobody waiting: what is not known is left out.
#[test]
fn silent_agents_hold_up_nobody() {
    let lab = Lab::new();
    let place = Place::Operation(Operation::Agent);
    let stall = Rule { machine: None, place, nth: 1, times: None, effect: Effect::Stall };
    lab.sim.add_fault(stall).unwrap();
    let machines: Vec<_> =
        ["a", "b", "c", "d"].map(|name| lab.machine(name, Generation::Two).record.id).into();
    for id in &machines {
        lab.sim.set_behaviour(*id, Behaviour { agent: true, ..Behaviour::default() }).unwrap();
        lab.host.start(*id).unwrap();
    }
    // Nothing lets the agents go on, and all the same this returns.
    let components = lab.list(V2, "Msvm_KvpExchangeComponent");
    assert_eq!(components.len(), machines.len());
    assert!(components.iter().all(|one| pairs(&lab, one).is_empty()));
    assert!(
        components.iter().all(|one| one.get("OperationalStatus") == Some(&Value::from(Vec::<u16>::new())))
    );
    lab.sim.clear_faults();
    let deadline = Instant::now() + PATIENCE;
    while lab.list(V2, "Msvm_KvpExchangeComponent").iter().any(|one| pairs(&lab, one).is_empty()) {
        assert!(Instant::now() < deadline, "nobody spoke");
        std::thread::yield_now();
    }
}

#[test]
fn a_guest_without_an_agent_is_out_of_contact() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    lab.host.start(id).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let heart = component(&lab, id, "Msvm_HeartbeatComponent");
        if heart.get("OperationalStatus") == Some(&Value::from(vec![12_u16])) {
            break;
        }
        assert!(Instant::now() < deadline, "{heart:?}");
        std::thread::yield_now();
    }
    lab.host.pause(id).unwrap();
    assert!(!devices(&lab, id).iter().any(|device| device.class == "Msvm_HeartbeatComponent"));
}

#[test]
fn firmware_boots_from_sources_in_an_order_that_can_be_changed() {
    let lab = Lab::new();
    let id = lab.machine("web", Generation::Two).record.id;
    let mine = || lab.hyperv.get(&lab.call(), V2, &settings(id)).unwrap();
    let order = || -> Vec<ObjectPath> {
        let order = mine().get("BootSourceOrder").unwrap().elements().to_vec();
        order.iter().map(|path| path.as_str().unwrap().parse().unwrap()).collect()
    };
    let kinds = || -> Vec<(String, u64)> {
        let get = |path: &ObjectPath| lab.hyperv.get(&lab.call(), V2, path).unwrap();
        let kind = |source: Instance| {
            let device = far(&lab, &source, "Msvm_LogicalIdentity").remove(0);
            let sub = device.text("ResourceSubType").unwrap().rsplit(':').next().unwrap().to_owned();
            (sub, source.get("BootSourceType").and_then(Value::as_u64).unwrap())
        };
        order().iter().map(|path| kind(get(path))).collect()
    };
    let named = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        list.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
    };
    let (dvd, disk) = (("Synthetic DVD Drive", 1), ("Synthetic Disk Drive", 1));
    let net = ("Synthetic Ethernet Port", 2);
    assert_eq!(kinds(), named(&[dvd, disk, net]));
    assert_eq!(far(&lab, &mine(), "Msvm_BootSourceComponent").len(), 3);

    let change = |order: Vec<String>| {
        let changed = mine().with("BootSourceOrder", order);
        returned(&lab.manage("ModifySystemSettings", vec![("SystemSettings", changed.into())]))
    };
    let texts = || order().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(change(texts()), 0, "as it is");
    let mut other = texts();
    other.rotate_left(2);
    assert_eq!(change(other), 0);
    assert_eq!(kinds(), named(&[net, dvd, disk]));
    let boots = lab.host.machine(id).unwrap().record.settings.firmware.boot_order;
    assert_eq!(boots, [BootDevice::Network, BootDevice::Optical, BootDevice::HardDrive, BootDevice::Floppy]);
    assert_eq!(change(vec!["Msvm_BootSourceSettingData.InstanceID=\"x\"".to_owned()]), 4);
    // A second disk before the first would be an order that the machine does not have.
    let controller = lab.host.machine(id).unwrap().record.settings.controllers[0].clone();
    let disk = Put::Disk(machine::define::NewDisk::Empty { size: MIB, sector: 0 });
    let put = PositionEdit { controller: controller.instance, number: controller.number, slot: 5, put: disk };
    lab.host.edit(id, &MachineEdit { positions: vec![put], ..MachineEdit::default() }).unwrap();
    let mut swapped = texts();
    assert_eq!(swapped.len(), 4);
    swapped.swap(2, 3);
    assert_eq!(change(swapped), 1);

    let old = lab.machine("old", Generation::One).record.id;
    let old = lab.hyperv.get(&lab.call(), V2, &settings(old)).unwrap();
    assert_eq!(old.get("BootSourceOrder"), None);
    assert_eq!(old.get("BootOrder"), Some(&Value::from(vec![1_u16, 2, 3, 0])));
    let bios = lab.associators(&system(id), &over("Msvm_SystemBIOS")).remove(0);
    assert_eq!(bios.text("Name"), Some("UEFI"));
    assert_eq!(bios.get("BIOSGUID"), mine().get("BIOSGUID"));
}
