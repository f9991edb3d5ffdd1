//! `root\cimv2`: the host, as clients look at it before they speak of machines.
//!
//! The host is a Linux one and says so where there is a property for it; sizes and counts are those that the domain
//! compares machines with.

use cim::{Instance, Value};

use crate::system::datetime;
use crate::world::World;
use crate::{ids, linux};

/// The version that clients compare with: that of Windows Server 2022, whose classes are served.
const VERSION: &str = "10.0.20348";
const BUILD: &str = "20348";

pub(crate) fn computer_system(world: &World) -> Vec<Instance> {
    let facts = world.host.facts();
    vec![
        Instance::new("Win32_ComputerSystem")
            .with("CreationClassName", "Win32_ComputerSystem")
            .with("Name", world.host_name())
            .with("Caption", world.host_name())
            .with("DNSHostName", world.host_name())
            .with("Description", "Slipway host")
            .with("Manufacturer", "Slipway")
            .with("Model", "Virtualization host")
            .with("Domain", "WORKGROUP")
            .with("Workgroup", "WORKGROUP")
            .with("DomainRole", 2_u16)
            .with("PartOfDomain", false)
            .with("HypervisorPresent", true)
            .with("Status", "OK")
            .with("BootupState", "Normal boot")
            .with("SystemType", "x64-based PC")
            .with("PCSystemType", 4_u16)
            .with("NetworkServerModeEnabled", true)
            .with("NumberOfProcessors", 1_u32)
            .with("NumberOfLogicalProcessors", facts.processors)
            .with("TotalPhysicalMemory", facts.memory_mib << 20),
    ]
}

pub(crate) fn operating_system(world: &World) -> Vec<Instance> {
    let kib = world.host.facts().memory_mib << 10;
    let memory = linux::memory();
    let mut instance = Instance::new("Win32_OperatingSystem")
        .with("CreationClassName", "Win32_OperatingSystem")
        .with("CSCreationClassName", "Win32_ComputerSystem")
        .with("CSName", world.host_name())
        .with("Name", "Slipway on Linux")
        .with("Caption", "Slipway on Linux")
        .with("Manufacturer", "Slipway")
        // 36 is Linux.
        .with("OSType", 36_u16)
        .with("OtherTypeDescription", "Linux")
        .with("Version", VERSION)
        .with("BuildNumber", BUILD)
        .with("OSArchitecture", "64-bit")
        // A server, of the kind that has Hyper-V.
        .with("ProductType", 3_u32)
        .with("OperatingSystemSKU", 7_u32)
        .with("ServicePackMajorVersion", 0_u16)
        .with("ServicePackMinorVersion", 0_u16)
        .with("Primary", true)
        .with("Debug", false)
        .with("Distributed", false)
        .with("PortableOperatingSystem", false)
        .with("Status", "OK")
        .with("Locale", "0409")
        .with("OSLanguage", 1033_u32)
        .with("CountryCode", "1")
        .with("CodeSet", "1252")
        .with("CurrentTimeZone", 0_i16)
        .with("LocalDateTime", datetime(jiff::Timestamp::now()))
        .with("TotalVisibleMemorySize", kib);
    let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
    for (property, value) in [
        ("FreePhysicalMemory", memory.available),
        ("SizeStoredInPagingFiles", memory.swap),
        ("FreeSpaceInPagingFiles", memory.swap_free),
        ("TotalVirtualMemorySize", sum(Some(kib), memory.swap)),
        ("FreeVirtualMemory", sum(memory.available, memory.swap_free)),
    ] {
        instance.set(property, value.map(Value::from));
    }
    instance.set("LastBootUpTime", linux::booted().map(|at| datetime(at).into()));
    vec![instance]
}

pub(crate) fn product(world: &World) -> Vec<Instance> {
    let mut instance = Instance::new("Win32_ComputerSystemProduct")
        .with("Name", "Virtualization host")
        .with("Caption", "Computer System Product")
        .with("Description", "Computer System Product")
        .with("Vendor", "Slipway")
        .with("Version", env!("CARGO_PKG_VERSION"))
        .with("IdentifyingNumber", world.host_name());
    // libvirt crashes where there is none.
    instance.set("UUID", linux::computer_id().map(|id| ids::guid(id).into()));
    vec![instance]
}

pub(crate) fn processor(world: &World) -> Vec<Instance> {
    let count = world.host.facts().processors;
    let mut instance = Instance::new("Win32_Processor")
        .with("DeviceID", "CPU0")
        .with("CreationClassName", "Win32_Processor")
        .with("SystemCreationClassName", "Win32_ComputerSystem")
        .with("SystemName", world.host_name())
        .with("Caption", "Processor")
        .with("SocketDesignation", "CPU0")
        .with("Role", "CPU")
        .with("ProcessorType", 3_u16)
        // 9 is x64.
        .with("Architecture", 9_u16)
        .with("AddressWidth", 64_u16)
        .with("DataWidth", 64_u16)
        .with("Availability", 3_u16)
        .with("CpuStatus", 1_u16)
        .with("StatusInfo", 3_u16)
        .with("Status", "OK")
        .with("NumberOfCores", count)
        .with("NumberOfEnabledCore", count)
        .with("NumberOfLogicalProcessors", count)
        .with("ThreadCount", count);
    let linux::Processor { model, maker, mhz } = linux::processor();
    instance.set("Name", Some(model.unwrap_or_else(|| "Processor".to_owned()).into()));
    instance.set("Manufacturer", maker.map(Value::from));
    instance.set("MaxClockSpeed", mhz.map(Value::from));
    let kvm = world.host.report().kvm.usable;
    for property in [
        "VirtualizationFirmwareEnabled",
        "VMMonitorModeExtensions",
        "SecondLevelAddressTranslationExtensions",
    ] {
        instance.set(property, Some(Value::from(kvm)));
    }
    vec![instance]
}
