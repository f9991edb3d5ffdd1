//! What the host has to give to machines: `Msvm_ResourcePool` and `Msvm_ProcessorPool`, one for each kind of resource that
//! can be added to a machine here.
//!
//! A kind that machines cannot be given has no pool: a client that looks for it finds nothing, rather than settings that
//! are refused later. What can be asked of each kind is said by [`crate::capabilities`], which has the same ids.

use cim::Instance;
use uuid::{Uuid, uuid};

use crate::association::{Association, all, end};
use crate::ids;
use crate::owner::Scope;
use crate::service::service;
use crate::storage::sub_type;
use crate::world::World;

/// A kind of resource.
pub(crate) struct Pool {
    /// As hosts of Hyper-V have it, where that is public; else the id of the device.
    pub(crate) id: Uuid,
    /// The class of its settings.
    pub(crate) settings: &'static str,
    /// `ResourceType`.
    pub(crate) kind: u16,
    pub(crate) sub_type: &'static str,
    /// What one of it is called.
    pub(crate) name: &'static str,
    /// How many one machine can have; `None` where the settings are a quantity ([`crate::capabilities`]).
    pub(crate) most: Option<u64>,
}

const RASD: &str = "Msvm_ResourceAllocationSettingData";
const SASD: &str = "Msvm_StorageAllocationSettingData";
/// Two IDE controllers with two places, four SCSI controllers with 64.
const PLACES: u64 = 2 * 2 + 4 * 64;
/// Most adapters of a machine, as its configuration can hold.
const ADAPTERS: u64 = machine::settings::MAX_ADAPTERS as u64;

/// The kind of the settings that the table's second column names.
const fn pool(
    id: Uuid,
    settings: &'static str,
    (kind, sub_type): (u16, &'static str),
    name: &'static str,
    most: Option<u64>,
) -> Pool {
    Pool { id, settings, kind, sub_type, name, most }
}

/// Every kind that a machine can be given.
pub(crate) const POOLS: &[Pool] = &[
    pool(
        uuid!("b637f347-6a0e-4dec-af52-bd70cb80a21d"),
        "Msvm_ProcessorSettingData",
        (3, "Microsoft:Hyper-V:Processor"),
        "Processor",
        None,
    ),
    pool(
        uuid!("4764334e-e001-4176-82ee-5594ec9b530e"),
        "Msvm_MemorySettingData",
        (4, "Microsoft:Hyper-V:Memory"),
        "Memory",
        None,
    ),
    pool(
        uuid!("83f8638b-8dca-4152-9eda-2ca8b33039b4"),
        RASD,
        (5, sub_type::IDE_CONTROLLER),
        "IDE Controller",
        Some(2),
    ),
    pool(
        uuid!("bde5d4d6-e450-46d2-b925-976ca3e989b4"),
        RASD,
        (6, sub_type::SCSI_CONTROLLER),
        "SCSI Controller",
        Some(4),
    ),
    pool(
        uuid!("118c3be5-0d31-4804-85f0-5c6074abea8f"),
        RASD,
        (17, sub_type::DISK_DRIVE),
        "Hard Drive",
        Some(PLACES),
    ),
    pool(
        uuid!("7951a5ed-8dc5-42d7-aa8c-9f14c54ceb84"),
        RASD,
        (16, sub_type::DVD_DRIVE),
        "DVD Drive",
        Some(PLACES),
    ),
    pool(
        uuid!("70bb60d2-a9d3-46aa-b654-3de53004b4f8"),
        SASD,
        (31, sub_type::HARD_DISK),
        "Hard Disk Image",
        Some(PLACES),
    ),
    pool(
        uuid!("d92d268e-9aa8-49dd-8c7d-821cefb5f597"),
        SASD,
        (31, sub_type::DVD_DISK),
        "ISO Disk Image",
        Some(PLACES),
    ),
    pool(
        uuid!("6a45335d-4c3a-44b7-b61f-c9808bbdf8ed"),
        "Msvm_SyntheticEthernetPortSettingData",
        (10, "Microsoft:Hyper-V:Synthetic Ethernet Port"),
        "Network Adapter",
        Some(ADAPTERS),
    ),
    pool(
        uuid!("72027ece-e44a-446e-af2b-8d8c4b8a2279"),
        "Msvm_EthernetPortAllocationSettingData",
        (33, "Microsoft:Hyper-V:Ethernet Connection"),
        crate::ethernet::DEFAULT_CONNECTION,
        Some(ADAPTERS),
    ),
];

/// What both classes of pools say.
fn made(world: &World, pool: &Pool, class: &str) -> Instance {
    let facts = world.host.facts();
    let mut instance = Instance::new(class)
        .with("InstanceID", ids::of(pool.id))
        // What everything else would be a part of has no name of its own in settings.
        .with("PoolID", "")
        .with("ElementName", "Primordial")
        .with("Name", pool.name)
        .with("Caption", format!("{} resources", pool.name))
        .with("Primordial", true)
        .with("ResourceType", pool.kind)
        .with("ResourceSubType", pool.sub_type)
        .with("OperationalStatus", vec![2_u16])
        .with("StatusDescriptions", vec!["OK"])
        .with("HealthState", 5_u16)
        .with("AllocationUnits", "count");
    match pool.kind {
        3 => {
            instance.set("AllocationUnits", Some("percent / 1000".into()));
            instance.set("Capacity", Some((u64::from(facts.processors) * 100_000).into()));
        }
        4 => {
            instance.set("AllocationUnits", Some("byte * 2^20".into()));
            instance.set("ConsumedResourceUnits", Some("byte * 2^20".into()));
            instance.set("Capacity", Some(facts.memory_mib.into()));
        }
        _ => {}
    }
    instance
}

pub(crate) fn pools(world: &World) -> Vec<Instance> {
    let pools = POOLS.iter().filter(|pool| pool.kind != 3);
    pools.map(|pool| made(world, pool, "Msvm_ResourcePool")).collect()
}

pub(crate) fn processors(world: &World) -> Vec<Instance> {
    let pools = POOLS.iter().filter(|pool| pool.kind == 3);
    pools.map(|pool| made(world, pool, "Msvm_ProcessorPool")).collect()
}

pub(crate) fn settings(_: &World) -> Vec<Instance> {
    let one = |pool: &Pool| {
        Instance::new("Msvm_ResourcePoolSettingData")
            .with("InstanceID", ids::pool(pool.id))
            .with("ElementName", "Primordial")
            .with("PoolID", "")
            .with("ResourceType", pool.kind)
            .with("ResourceSubType", pool.sub_type)
    };
    POOLS.iter().map(one).collect()
}

/// The service that would make pools of parts of others. It makes none here, and its methods say so.
pub(crate) fn configuration(world: &World) -> Vec<Instance> {
    const CALLED: &str = "Hyper-V Resource Pool Configuration Service";
    vec![service(world, "Msvm_ResourcePoolConfigurationService", "poolcfgsvc", CALLED)]
}

pub(crate) fn configuration_capabilities(_: &World) -> Vec<Instance> {
    vec![
        Instance::new("Msvm_ResourcePoolConfigurationCapabilities")
            .with("InstanceID", "Microsoft:ResourcePoolConfigurationCapabilities")
            .with("SynchronousMethodsSupported", Vec::<u32>::new())
            .with("AsynchronousMethodsSupported", Vec::<u32>::new()),
    ]
}

/// Whether a pool and its settings are of the same kind.
fn of_pool(pool: &Instance, settings: &Instance) -> bool {
    pool.get("ResourceType") == settings.get("ResourceType")
        && pool.get("ResourceSubType") == settings.get("ResourceSubType")
}

/// What pools belong to, and what is taken from them.
pub(crate) const LINKS: &[Association] = &[
    all(
        "Msvm_HostedResourcePool",
        end("GroupComponent", "Msvm_ComputerSystem", Scope::Host),
        end("PartComponent", "CIM_ResourcePool", Scope::Host),
    ),
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", "CIM_ResourcePool", Scope::Host),
        end("SettingData", "Msvm_ResourcePoolSettingData", Scope::Host),
    )
    .when(of_pool),
    all(
        "Msvm_ResourceAllocationFromPool",
        end("Dependent", "CIM_ResourceAllocationSettingData", Scope::Machine),
        end("Antecedent", "CIM_ResourcePool", Scope::Host),
    )
    .when(|settings, pool| of_pool(pool, settings)),
    all(
        "Msvm_ElementCapabilities",
        end("ManagedElement", "Msvm_ResourcePoolConfigurationService", Scope::Host),
        end("Capabilities", "Msvm_ResourcePoolConfigurationCapabilities", Scope::Host),
    ),
    all(
        "Msvm_ServiceAffectsElement",
        end("AffectingElement", "Msvm_ResourcePoolConfigurationService", Scope::Host),
        end("AffectedElement", "CIM_ResourcePool", Scope::Host),
    ),
];
