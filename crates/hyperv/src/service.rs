//! The services whose methods change machines, their settings and what they can.

use cim::{Instance, Value};
use machine::Reason;
use wsman::Output;

use crate::fill;
use crate::method::{Invocation, Refused, invalid};
use crate::world::World;

const SETTING: &str = "Msvm_VirtualSystemManagementServiceSettingData";

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
        Instance::new(SETTING)
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

/// `ModifyServiceSettings`: what the settings say comes from the daemon's configuration, so they are taken as they are and
/// not otherwise.
pub(crate) fn modify_settings(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const PARAMETER: &str = "SettingData";
    invocation.permit(None)?;
    let wanted = invocation.instance(PARAMETER, SETTING)?.ok_or_else(|| invalid(PARAMETER, "missing"))?;
    let class = invocation.schema().class(SETTING).ok_or_else(|| invalid(PARAMETER, "no class"))?;
    let now = setting(invocation.world).into_iter().next().map(|now| fill::whole(class, &now));
    let same = |name: &str, value: &Value| {
        now.as_ref().and_then(|now| now.get(name)).is_some_and(|now| now == value)
    };
    let other = wanted
        .properties
        .iter()
        .find(|(name, value)| value.as_ref().is_some_and(|v| !same(name.as_str(), v)));
    match other {
        None => Ok(Output::new(0_u32)),
        Some((name, _)) => {
            Err(Refused::new(Reason::NotSupported, format!("{name} is not changed by clients"))
                .hint("the daemon's configuration file says it: slipway help serve"))
        }
    }
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
