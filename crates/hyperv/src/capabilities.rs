//! What can be asked of each kind of resource, and of machines: capabilities, and the settings that define them.
//!
//! From a pool of [`crate::pool`] a client goes to its `Msvm_AllocationCapabilities` and from there over
//! `Msvm_SettingsDefineCapabilities` to four settings: the default, the least, the most and the step. The default is whole:
//! with a place and a file it can be handed to `AddResourceSettings` as it came.

use cim::{Instance, Value};
use machine::settings::{Generation, MAX_MEMORY_MIB, MAX_PROCESSORS, MIN_MEMORY_MIB, Settings};
use uuid::{Uuid, uuid};

use crate::association::{Association, all, end};
use crate::ids::{self, Bound};
use crate::owner::{Machine, Scope};
use crate::pool::{POOLS, Pool};
use crate::world::World;
use crate::{setting, storage};

pub(crate) fn allocation(_: &World) -> Vec<Instance> {
    let one = |pool: &Pool| {
        Instance::new("Msvm_AllocationCapabilities")
            .with("InstanceID", ids::of(pool.id))
            .with("ElementName", format!("{} capabilities", pool.name))
            .with("Caption", format!("{} capabilities", pool.name))
            .with("ResourceType", pool.kind)
            .with("ResourceSubType", pool.sub_type)
            // Both particular resources and any of the kind can be asked for.
            .with("RequestTypesSupported", 4_u16)
            .with("SharingMode", if pool.kind == 3 { 3_u16 } else { 2 })
    };
    POOLS.iter().map(one).collect()
}

/// Quantities of the settings of `pool` at each bound. A machine that nobody says anything of is as [`Settings::new`] makes it.
fn quantity(pool: &Pool, bound: Bound) -> u64 {
    let fresh = Settings::new("", Generation::Two);
    match (pool.kind, bound) {
        (_, Bound::Increment) => 1,
        (3, Bound::Default) => fresh.processors.count.into(),
        (3, Bound::Minimum) => 1,
        (3, Bound::Maximum) => MAX_PROCESSORS.into(),
        (4, Bound::Default) => fresh.memory.startup_mib,
        (4, Bound::Minimum) => MIN_MEMORY_MIB,
        (4, Bound::Maximum) => MAX_MEMORY_MIB,
        (_, Bound::Default) => 1,
        (_, Bound::Minimum) => 0,
        (_, Bound::Maximum) => pool.most.unwrap_or(1),
    }
}

fn define(pool: &Pool, bound: Bound) -> Instance {
    let id = ids::definition(pool.id, bound);
    let quantity = quantity(pool, bound);
    let counted = |instance: Instance| {
        instance.with("VirtualQuantity", quantity).with("Reservation", quantity).with("Limit", quantity)
    };
    let named = || {
        Instance::new(pool.settings)
            .with("InstanceID", id.clone())
            .with("ElementName", pool.name)
            .with("ResourceSubType", pool.sub_type)
            .with("PoolID", "")
    };
    match pool.settings {
        // Its reservation and limit are shares of the processors, which the schema has defaults for.
        "Msvm_ProcessorSettingData" => {
            named().with("VirtualQuantity", quantity).with("VirtualQuantityUnits", "count")
        }
        "Msvm_MemorySettingData" => counted(named()).with("DynamicMemoryEnabled", false),
        "Msvm_SyntheticEthernetPortSettingData" => counted(named()),
        "Msvm_EthernetPortAllocationSettingData" => counted(named())
            .with("AllocationUnits", "count")
            .with("AutomaticAllocation", true)
            .with("AutomaticDeallocation", true)
            .with("HostResource", Vec::<String>::new())
            .with("EnabledState", 2_u16),
        class => {
            let mut instance =
                counted(storage::allocation(class, id.clone(), pool.kind, pool.sub_type, pool.name));
            if class == "Msvm_StorageAllocationSettingData" {
                instance.set("HostResource", Some(Vec::<String>::new().into()));
                instance.set("Access", Some(storage::access(pool.sub_type).into()));
            }
            instance
        }
    }
}

/// The definitions whose settings are of `class`.
fn definitions(class: &str) -> Vec<Instance> {
    let pools = POOLS.iter().filter(|pool| pool.settings == class);
    pools.flat_map(|pool| Bound::ALL.map(|bound| define(pool, bound))).collect()
}

pub(crate) fn resources(_: &World) -> Vec<Instance> {
    definitions("Msvm_ResourceAllocationSettingData")
}

pub(crate) fn storage(_: &World) -> Vec<Instance> {
    definitions("Msvm_StorageAllocationSettingData")
}

pub(crate) fn processor(_: &World) -> Vec<Instance> {
    definitions("Msvm_ProcessorSettingData")
}

pub(crate) fn memory(_: &World) -> Vec<Instance> {
    definitions("Msvm_MemorySettingData")
}

pub(crate) fn synthetic(_: &World) -> Vec<Instance> {
    definitions("Msvm_SyntheticEthernetPortSettingData")
}

pub(crate) fn connection(_: &World) -> Vec<Instance> {
    definitions("Msvm_EthernetPortAllocationSettingData")
}

/// What a machine can be asked for.
pub(crate) fn system(_: &World, machine: &Machine) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_VirtualSystemCapabilities")
            .with("InstanceID", ids::of(machine.id()))
            .with("ElementNameEditSupported", true)
            .with("RequestedStatesSupported", vec![2_u16, 3, 4, 6, 9, 10, 11]),
    ]
}

/// The ids of the settings of a new machine of each generation; ours.
const GENERATIONS: [(Uuid, Generation); 2] = [
    (uuid!("0d0e6a5b-2a64-4b5f-9c5d-6f1c0a0e0001"), Generation::One),
    (uuid!("0d0e6a5b-2a64-4b5f-9c5d-6f1c0a0e0002"), Generation::Two),
];

/// What a new machine of each generation is when nobody says more.
pub(crate) fn systems(_: &World) -> Vec<Instance> {
    let one = |(id, generation)| {
        let settings = Settings::new("New Virtual Machine", generation);
        let mut instance = setting::of(&settings).with("InstanceID", ids::definition(id, Bound::Default));
        // It has none before it is made.
        instance.set("BIOSGUID", None);
        instance
    };
    GENERATIONS.into_iter().map(one).collect()
}

/// Whether a definition is of those capabilities, or of that pool.
fn defines(capabilities: &Instance, definition: &Instance) -> bool {
    let id = definition.text("InstanceID").and_then(ids::defined);
    id.is_some_and(|(id, _)| capabilities.text("InstanceID").and_then(ids::owner) == Some(id))
}

fn same_id(one: &Instance, other: &Instance) -> bool {
    one.text("InstanceID") == other.text("InstanceID")
}

/// What the definition says of the capabilities: a default, or one of the bounds of what is supported.
fn role(_: &Instance, definition: &Instance, association: &mut Instance) {
    let bound = definition.text("InstanceID").and_then(ids::defined).map(|(_, bound)| bound);
    let (role, range) = match bound {
        None | Some(Bound::Default) => (0_u16, 0_u16),
        Some(Bound::Minimum) => (3, 1),
        Some(Bound::Maximum) => (3, 2),
        Some(Bound::Increment) => (3, 3),
    };
    for (property, value) in [("PropertyPolicy", 0), ("ValueRole", role), ("ValueRange", range)] {
        association.set(property, Some(Value::from(value)));
    }
}

/// Which capabilities are whose, and which settings define them.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_ElementCapabilities",
        end("ManagedElement", "CIM_ResourcePool", Scope::Host),
        end("Capabilities", "Msvm_AllocationCapabilities", Scope::Host),
    )
    .when(same_id),
    all(
        "Msvm_SettingsDefineCapabilities",
        end("GroupComponent", "Msvm_AllocationCapabilities", Scope::Host),
        end("PartComponent", "CIM_ResourceAllocationSettingData", Scope::Host),
    )
    .when(defines)
    .saying(role),
    all(
        "Msvm_ElementCapabilities",
        end("ManagedElement", "Msvm_ComputerSystem", Scope::Machine),
        end("Capabilities", "Msvm_VirtualSystemCapabilities", Scope::Machine),
    ),
    all(
        "Msvm_SettingsDefineCapabilities",
        end("GroupComponent", "Msvm_VirtualSystemCapabilities", Scope::Machine),
        end("PartComponent", "Msvm_VirtualSystemSettingData", Scope::Host),
    )
    .saying(role),
    all(
        "Msvm_SettingsDefineCapabilities",
        end("GroupComponent", "Msvm_VirtualSystemManagementCapabilities", Scope::Host),
        end("PartComponent", "Msvm_VirtualSystemSettingData", Scope::Host),
    )
    .saying(role),
];
