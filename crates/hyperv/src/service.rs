//! The services whose methods change machines, their settings and what they can.

use cim::Instance;

use crate::world::World;

/// The keys that every service has, and that it is well.
pub(crate) fn service(world: &World, class: &'static str, name: &str, called: &str) -> Instance {
    Instance::new(class)
        .with("SystemCreationClassName", "Msvm_ComputerSystem")
        .with("SystemName", world.host_name())
        .with("CreationClassName", class)
        .with("Name", name)
        .with("ElementName", called)
        .with("Caption", called)
        .with("OperationalStatus", vec![2_u16])
        .with("StatusDescriptions", vec!["OK"])
        .with("HealthState", 5_u16)
        .with("EnabledState", 2_u16)
        .with("RequestedState", 12_u16)
        .with("StartMode", "Automatic")
        .with("Started", true)
}

pub(crate) fn management(world: &World) -> Vec<Instance> {
    const CALLED: &str = "Hyper-V Virtual System Management Service";
    vec![service(world, "Msvm_VirtualSystemManagementService", "vmms", CALLED)]
}

pub(crate) fn image(world: &World) -> Vec<Instance> {
    const CALLED: &str = "Hyper-V Image Management Service";
    vec![service(world, "Msvm_ImageManagementService", "vhdsvc", CALLED)]
}

pub(crate) fn switches(world: &World) -> Vec<Instance> {
    const CALLED: &str = "Hyper-V Networking Management Service";
    vec![service(world, "Msvm_VirtualEthernetSwitchManagementService", "nvspwmi", CALLED)]
}

pub(crate) fn security(world: &World) -> Vec<Instance> {
    vec![service(world, "Msvm_SecurityService", "vmsecsvc", "Hyper-V Security Management Service")]
}

pub(crate) fn snapshots(world: &World) -> Vec<Instance> {
    const CALLED: &str = "Hyper-V Virtual System Snapshot Service";
    vec![service(world, "Msvm_VirtualSystemSnapshotService", "vmms", CALLED)]
}

pub(crate) fn setting(world: &World) -> Vec<Instance> {
    let root = world.settings.paths.shown(&world.host.default_root());
    vec![
        Instance::new("Msvm_VirtualSystemManagementServiceSettingData")
            .with("InstanceID", format!("Microsoft:{}", world.host_name()))
            .with("ElementName", "Hyper-V Virtual System Management Service")
            .with("DefaultExternalDataRoot", root.clone())
            .with("DefaultVirtualHardDiskPath", root)
            .with("MinimumMacAddress", "00155D000000")
            .with("MaximumMacAddress", "00155DFFFFFF")
            .with("NumaSpanningEnabled", true)
            .with("EnhancedSessionModeEnabled", false)
            .with("HypervisorRootSchedulerEnabled", false),
    ]
}

pub(crate) fn capabilities(_: &World) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_VirtualSystemManagementCapabilities")
            .with("InstanceID", "Microsoft:VirtualSystemManagementCapabilities")
            .with("ElementName", "Virtual System Management Capabilities")
            .with(
                "VirtualSystemTypesSupported",
                vec!["Microsoft:Hyper-V:SubType:1", "Microsoft:Hyper-V:SubType:2"],
            ),
    ]
}
