//! Virtual switches: `Msvm_VirtualEthernetSwitch` and its settings.

use cim::{Instance, ObjectPath};
use machine::switch::SwitchRecord;
use uuid::Uuid;

use crate::ids;
use crate::world::{World, switch_kind};

const CLASS: &str = "Msvm_VirtualEthernetSwitch";

/// The path of a switch, as connections name it.
pub(crate) fn path(world: &World, id: Uuid) -> ObjectPath {
    world.path(CLASS).with("CreationClassName", CLASS).with("Name", ids::guid(id))
}

pub(crate) fn switch(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    vec![
        Instance::new(CLASS)
            .with("CreationClassName", CLASS)
            .with("Name", ids::guid(switch.id))
            .with("ElementName", switch.name.clone())
            .with("OperationalStatus", vec![2_u16])
            .with("StatusDescriptions", vec!["OK"])
            .with("EnabledState", 2_u16)
            .with("RequestedState", 12_u16)
            .with("MaxVMQOffloads", 0_u32)
            .with("MaxIOVOffloads", 0_u32),
    ]
}

pub(crate) fn setting(_: &World, switch: &SwitchRecord) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_VirtualEthernetSwitchSettingData")
            .with("InstanceID", ids::of(switch.id))
            .with("ElementName", switch.name.clone())
            .with("VirtualSystemIdentifier", ids::guid(switch.id))
            .with("VirtualSystemType", "DMTF:Virtual Ethernet Switch")
            .with("Notes", vec![switch_kind(&switch.kind)])
            .with("AssociatedResourcePool", Vec::<String>::new())
            .with("MaxNumMACAddress", 1024_u32),
    ]
}
