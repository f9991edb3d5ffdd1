//! The rest of a guest's devices: display, mouse, serial port, TPM.

use cim::Instance;

use crate::association::{Association, all, end};
use crate::ids;
use crate::integration::device;
use crate::owner::{Machine, Scope};
use crate::pool::POOLS;
use crate::storage::sub_type;
use crate::world::World;

pub(crate) const DISPLAY: &str = "F3CF6965-E8D3-44A9-9B7D-A04245EA7525";
const MOUSE: &str = "58F75A6D-D949-4320-99E1-A2A2576D581C";
const SERIAL: &str = "8E3A359F-559A-4B6A-98A9-1690A6100ED7";
const TPM: &str = "736E6AA9-A3F8-49C0-9550-A963214D259A";

/// One device of a machine that has a guest.
fn one(machine: &Machine, class: &'static str, id: &str, name: &str) -> Vec<Instance> {
    if machine.alive() {
        vec![device(machine, class, id, name).with("EnabledState", 2_u16)]
    } else {
        Vec::new()
    }
}

pub(crate) fn display(_: &World, machine: &Machine) -> Vec<Instance> {
    let display = one(machine, "Msvm_SyntheticDisplayController", DISPLAY, "Display Controller");
    let plain = |mut display: Instance| {
        // The schema's are of another adapter.
        for property in ["VideoProcessor", "MaxMemorySupported", "NumberOfVideoPages"] {
            display.set(property, None);
        }
        display
    };
    display.into_iter().map(plain).collect()
}

pub(crate) fn display_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_SyntheticDisplayControllerSettingData")
            .with("InstanceID", ids::part(machine.id(), DISPLAY))
            .with("ElementName", "Display Controller")
            .with("ResourceType", 24_u16)
            .with("ResourceSubType", "Microsoft:Hyper-V:Synthetic Display Controller")
            .with("PoolID", "")
            .with("VirtualQuantity", 1_u64),
    ]
}

/// The pointer is a tablet's, in absolute places.
pub(crate) fn mouse(_: &World, machine: &Machine) -> Vec<Instance> {
    one(machine, "Msvm_SyntheticMouse", MOUSE, "Mouse")
}

pub(crate) fn serial_controller(_: &World, machine: &Machine) -> Vec<Instance> {
    let all = one(machine, "Msvm_SerialController", SERIAL, "Serial Controller").into_iter();
    all.map(|one| one.with("MaxNumberControlled", 1_u32)).collect()
}

/// Every guest has one port.
pub(crate) fn serial_port(_: &World, machine: &Machine) -> Vec<Instance> {
    one(machine, "Msvm_SerialPort", &format!(r"{SERIAL}\0"), "COM 1")
}

/// The port's other end is the machine's console, which is no named pipe: there is no `Connection`.
pub(crate) fn serial_setting(_: &World, machine: &Machine) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_SerialPortSettingData")
            .with("InstanceID", ids::part(machine.id(), &format!(r"{SERIAL}\0")))
            .with("ElementName", "COM 1")
            .with("ResourceType", 21_u16)
            .with("ResourceSubType", "Microsoft:Hyper-V:Serial Port")
            .with("PoolID", "")
            .with("VirtualQuantity", 1_u64)
            .with("AddressOnParent", "0")
            .with("Connection", Vec::<String>::new())
            .with("DebuggerMode", false),
    ]
}

pub(crate) fn tpm(_: &World, machine: &Machine) -> Vec<Instance> {
    if !machine.settings().tpm {
        return Vec::new();
    }
    let tpm = one(machine, "Msvm_TPM", TPM, "Trusted Platform Module").into_iter();
    tpm.map(|tpm| tpm.with("TPMSpecMajorVersion", 2_u32).with("TPMSpecMinorVersion", 0_u32)).collect()
}

/// Whether a device is what the settings make: what follows the machine in their id is the device's.
fn realizes(device: &Instance, setting: &Instance) -> bool {
    match (device.class.as_str(), setting.class.as_str()) {
        // One of the settings stands for all processors, and for all memory.
        ("Msvm_Processor", "Msvm_ProcessorSettingData") | ("Msvm_Memory", "Msvm_MemorySettingData") => true,
        _ => {
            let tail = setting.text("InstanceID").and_then(ids::tail).map(ids::device);
            tail.is_some_and(|tail| {
                device.text("DeviceID").is_some_and(|device| device.eq_ignore_ascii_case(&tail))
            })
        }
    }
}

/// Whether a device is of the kind that a pool has.
fn allocated(device: &Instance, pool: &Instance) -> bool {
    let sub = match device.class.as_str() {
        "Msvm_Processor" => "Microsoft:Hyper-V:Processor",
        "Msvm_Memory" => "Microsoft:Hyper-V:Memory",
        "Msvm_IDEController" => sub_type::IDE_CONTROLLER,
        "Msvm_SCSIProtocolController" => sub_type::SCSI_CONTROLLER,
        "Msvm_DiskDrive" => sub_type::DISK_DRIVE,
        "Msvm_DVDDrive" => sub_type::DVD_DRIVE,
        "Msvm_LogicalDisk" => {
            let name = device.text("ElementName");
            match POOLS.iter().find(|pool| pool.kind == 31 && Some(pool.name) == name) {
                Some(pool) => pool.sub_type,
                None => return false,
            }
        }
        "Msvm_SyntheticEthernetPort" => "Microsoft:Hyper-V:Synthetic Ethernet Port",
        _ => return false,
    };
    pool.text("ResourceSubType") == Some(sub)
}

/// What devices are made of, and which belong together.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", "CIM_LogicalDevice", Scope::Machine),
        end("SettingData", "CIM_ResourceAllocationSettingData", Scope::Machine),
    )
    .when(realizes),
    all(
        "Msvm_ElementAllocatedFromPool",
        end("Dependent", "CIM_LogicalDevice", Scope::Machine),
        end("Antecedent", "CIM_ResourcePool", Scope::Host),
    )
    .when(allocated),
    all(
        "Msvm_VideoHeadOnController",
        end("Antecedent", "CIM_DisplayController", Scope::Machine),
        end("Dependent", "Msvm_VideoHead", Scope::Machine),
    ),
    all(
        "Msvm_SerialPortOnSerialController",
        end("Antecedent", "Msvm_SerialController", Scope::Machine),
        end("Dependent", "Msvm_SerialPort", Scope::Machine),
    ),
];
