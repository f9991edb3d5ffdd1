//! `Msvm_VirtualSystemSettingData` and the settings that are no devices of their own: processors, memory, security, export.

use std::time::Duration;

use cim::{Datetime, Instance, Value};
use machine::settings::{AutomaticStart, AutomaticStop, BootDevice, Generation, Settings};

use crate::owner::Machine;
use crate::system::datetime;
use crate::world::World;
use crate::{boot, ids};

pub(crate) fn virtual_system(world: &World, machine: &Machine) -> Vec<Instance> {
    let realized = machine.real().is_some();
    let mut instance = of(machine.settings())
        .with("InstanceID", ids::of(machine.id()))
        .with("Description", "Active settings for the virtual machine.")
        .with("VirtualSystemIdentifier", ids::guid(machine.id()))
        .with("VirtualSystemType", virtual_system_type(realized))
        .with("CreationTime", datetime(machine.created()))
        .with("ConfigurationID", ids::guid(machine.id()))
        .with("IsSaved", machine.saved());
    instance.set("BootSourceOrder", boot::source_order(world, machine));
    if let Some(home) = machine.home() {
        let root = world.settings.paths.shown(home);
        for property in [
            "ConfigurationDataRoot",
            "SnapshotDataRoot",
            "SuspendDataRoot",
            "SwapFileDataRoot",
            "LogDataRoot",
            "GuestStateDataRoot",
        ] {
            instance.set(property, Some(root.clone().into()));
        }
    }
    vec![instance]
}

/// What settings say, whoever's they are.
pub(crate) fn of(settings: &Settings) -> Instance {
    let firmware = &settings.firmware;
    let mut instance = Instance::new("Msvm_VirtualSystemSettingData")
        .with("ElementName", settings.name.clone())
        .with("VirtualSystemSubType", sub_type(settings.generation))
        .with("Notes", vec![settings.notes.clone()])
        .with("Version", version(settings))
        .with("AutomaticStartupAction", startup(settings.automatic.start))
        .with("AutomaticStartupActionDelay", delay(settings))
        .with("AutomaticShutdownAction", shutdown(settings.automatic.stop))
        // A guest that dies stays down until somebody, or its automatic start, starts it.
        .with("AutomaticRecoveryAction", 2_u16)
        .with("AutomaticCriticalErrorAction", 0_u16)
        .with("BIOSNumLock", false)
        .with("BootOrder", settings.firmware.boot_order.iter().map(|d| boot(*d)).collect::<Vec<_>>())
        // No snapshots are made here.
        .with("UserSnapshotType", 2_u16)
        .with("AutomaticSnapshotsEnabled", false)
        .with("IsAutomaticSnapshot", false)
        .with("IncrementalBackupEnabled", false)
        .with("AllowFullSCSICommandSet", false)
        .with("DebugPortEnabled", 0_u16)
        .with("VirtualNumaEnabled", false)
        .with("PauseAfterBootFailure", false)
        .with("NetworkBootPreferredProtocol", 4096_u16)
        .with("GuestControlledCacheTypes", false)
        .with("LockOnDisconnect", false)
        .with("ConsoleMode", 0_u16)
        .with("SecureBootEnabled", settings.firmware.secure_boot)
        .with("EnhancedSessionTransportType", 0_u16)
        .with("EnableHibernation", false)
        .with("GuestStateIsolationEnabled", false)
        .with("TurnOffOnGuestRestart", false);
    instance.set("BIOSGUID", firmware.bios_id.map(|id| format!("{{{}}}", ids::guid(id)).into()));
    let serial = firmware.serial_number.clone().map(Value::from);
    for property in ["BIOSSerialNumber", "BaseBoardSerialNumber", "ChassisSerialNumber"] {
        instance.set(property, serial.clone());
    }
    instance.set("SecureBootTemplateId", firmware.secure_boot_template.clone().map(Value::from));
    instance
}

/// The kind of settings that clients select by.
fn virtual_system_type(realized: bool) -> &'static str {
    if realized { "Microsoft:Hyper-V:System:Realized" } else { "Microsoft:Hyper-V:System:Planned" }
}

/// The generation, as Hyper-V spells it.
pub(crate) fn sub_type(generation: Generation) -> String {
    format!("Microsoft:Hyper-V:SubType:{}", generation.number())
}

/// The configuration's version, `9.0`.
pub(crate) fn version(settings: &Settings) -> String {
    format!("{}.{}", settings.config_version >> 8, settings.config_version & 0xff)
}

fn delay(settings: &Settings) -> Datetime {
    Datetime::interval(Duration::from_secs(settings.automatic.start_delay_seconds.into()))
}

fn startup(action: AutomaticStart) -> u16 {
    match action {
        AutomaticStart::Nothing => 2,
        AutomaticStart::Restart => 3,
        AutomaticStart::Always => 4,
    }
}

fn shutdown(action: AutomaticStop) -> u16 {
    match action {
        AutomaticStop::TurnOff => 2,
        AutomaticStop::Save => 3,
        AutomaticStop::Shutdown => 4,
    }
}

fn boot(device: BootDevice) -> u16 {
    match device {
        BootDevice::Floppy => 0,
        BootDevice::Optical => 1,
        BootDevice::HardDrive => 2,
        BootDevice::Network => 3,
    }
}

pub(crate) fn processor(_: &World, machine: &Machine) -> Vec<Instance> {
    let processors = machine.settings().processors;
    vec![
        Instance::new("Msvm_ProcessorSettingData")
            .with("InstanceID", ids::part(machine.id(), &format!(r"{}\0", ids::PROCESSOR)))
            .with("ElementName", "Processor")
            .with("VirtualQuantity", u64::from(processors.count))
            .with("VirtualQuantityUnits", "count")
            .with("PoolID", "")
            .with("LimitCPUID", false)
            .with("HwThreadsPerCore", 1_u64)
            .with("LimitProcessorFeatures", false)
            .with("EnableHostResourceProtection", false)
            .with("HideHypervisorPresent", false)
            .with("ExposeVirtualizationExtensions", processors.nested),
    ]
}

pub(crate) fn memory(_: &World, machine: &Machine) -> Vec<Instance> {
    let memory = machine.settings().memory;
    let (least, most) = if memory.dynamic {
        (memory.minimum_mib, memory.maximum_mib)
    } else {
        (memory.startup_mib, memory.startup_mib)
    };
    vec![
        Instance::new("Msvm_MemorySettingData")
            .with("InstanceID", ids::part(machine.id(), &ids::MEMORY.to_string()))
            .with("ElementName", "Memory")
            .with("VirtualQuantity", memory.startup_mib)
            .with("Reservation", least)
            .with("Limit", most)
            .with("Weight", 5000_u32)
            .with("PoolID", "")
            .with("DynamicMemoryEnabled", memory.dynamic)
            .with("TargetMemoryBuffer", 20_u32)
            .with("SwapFilesInUse", false)
            .with("HugePagesEnabled", false)
            .with("SgxEnabled", false)
            .with("SgxSize", 0_u64),
    ]
}

pub(crate) fn security(_: &World, machine: &Machine) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_SecuritySettingData")
            .with("InstanceID", ids::part(machine.id(), "Security"))
            .with("Caption", "Security Settings")
            .with("ElementName", "Security Settings")
            .with("TpmEnabled", machine.settings().tpm)
            .with("KsdEnabled", false)
            .with("ShieldingRequested", false)
            .with("DataProtectionRequested", false)
            .with("EncryptStateAndVmMigrationTraffic", false)
            .with("VirtualizationBasedSecurityOptOut", false)
            .with("AppContainerLaunchOptOut", false)
            .with("BindToHostTpm", false),
    ]
}

/// What an export does when nothing else is said (`hyperv-semantics` §2).
pub(crate) fn export(_: &World, machine: &Machine) -> Vec<Instance> {
    if machine.real().is_none() {
        return Vec::new();
    }
    vec![
        Instance::new("Msvm_VirtualSystemExportSettingData")
            .with("InstanceID", ids::of(machine.id()))
            .with("Caption", "Virtual System Export Setting Data")
            .with("ElementName", "Virtual System Export Setting Data")
            .with("CopySnapshotConfiguration", 0_u8)
            .with("CopyVmRuntimeInformation", true)
            .with("CopyVmStorage", true)
            .with("CreateVmExportSubdirectory", false)
            .with("CaptureLiveState", 1_u8)
            .with("BackupIntent", 0_u8)
            .with("ExportForLiveMigration", false)
            .with("DisableDifferentialOfIgnoredStorage", false)
            .with("ExcludedVirtualHardDisks", Vec::<String>::new()),
    ]
}
