//! `root/interop`: what this server is, which namespaces and profiles it has, and how it is spoken to.
//!
//! Profiles are told with their central instances, which lie in `root/virtualization/v2`; so a client that knows a profile
//! finds the host and the machines without knowing a class of Hyper-V. Hyper-V's classes are those of the profiles, with
//! Microsoft's names and additions; what of a profile Hyper-V has not, is not here either.

use std::sync::Arc;

use cim::{Instance, Schema, Value};

use crate::association::{Association, all, elsewhere, end};
use crate::owner::Scope;
use crate::provider::{CIMV2, Namespace, Provider, VIRTUALIZATION, host};
use crate::v1;
use crate::world::World;

/// Its name.
pub(crate) const INTEROP: &str = "root/interop";
/// The name that DSP1033 prefers, which it answers to as well.
pub(crate) const ALIAS: &str = "interop";

const SYSTEM: &str = "CIM_ComputerSystem";
const MANAGER: &str = "CIM_ObjectManager";
/// The manager's name, and what it calls itself.
const CALLED: &str = "Slipway";

const PROFILE_REGISTRATION: &str = "Profile Registration";
const SYSTEM_VIRTUALIZATION: &str = "System Virtualization";
const VIRTUAL_SYSTEM: &str = "Virtual System";

/// Name and version of each profile, as DSP1033, DSP1042 and DSP1057 have them.
const PROFILES: [(&str, &str); 3] =
    [(PROFILE_REGISTRATION, "1.0.0"), (SYSTEM_VIRTUALIZATION, "1.0.0"), (VIRTUAL_SYSTEM, "1.0.0")];

const PROVIDERS: &[Provider] = &[
    host(MANAGER, manager),
    host("CIM_CIMXMLCommunicationMechanism", cimxml),
    host("CIM_ObjectManagerCommunicationMechanism", wsman),
    host("CIM_Namespace", namespaces),
    host("CIM_RegisteredProfile", profiles),
];

fn is(profile: &Instance, name: &str) -> bool {
    profile.text("RegisteredName") == Some(name)
}

const LINKS: &[Association] = &[
    all(
        "CIM_NamespaceInManager",
        end("Antecedent", MANAGER, Scope::Host),
        end("Dependent", "CIM_Namespace", Scope::Host),
    ),
    all(
        "CIM_CommMechanismForManager",
        end("Antecedent", MANAGER, Scope::Host),
        end("Dependent", "CIM_ObjectManagerCommunicationMechanism", Scope::Host),
    ),
    all(
        "CIM_ElementConformsToProfile",
        end("ConformantStandard", "CIM_RegisteredProfile", Scope::Host),
        end("ManagedElement", "CIM_RegisteredProfile", Scope::Host),
    )
    .when(|profile, _| is(profile, PROFILE_REGISTRATION)),
    all(
        "CIM_ElementConformsToProfile",
        end("ConformantStandard", "CIM_RegisteredProfile", Scope::Host),
        elsewhere("ManagedElement", "Msvm_ComputerSystem", Scope::Host),
    )
    .when(|profile, _| is(profile, SYSTEM_VIRTUALIZATION)),
    all(
        "CIM_ElementConformsToProfile",
        end("ConformantStandard", "CIM_RegisteredProfile", Scope::Host),
        elsewhere("ManagedElement", "Msvm_ComputerSystem", Scope::Machine),
    )
    .when(|profile, _| is(profile, VIRTUAL_SYSTEM)),
    // Each refers to how it is registered, and the one of the host to that of the machines.
    all(
        "CIM_ReferencedProfile",
        end("Antecedent", "CIM_RegisteredProfile", Scope::Host),
        end("Dependent", "CIM_RegisteredProfile", Scope::Host),
    )
    .when(|referenced, referring| {
        is(referenced, PROFILE_REGISTRATION)
            || is(referenced, VIRTUAL_SYSTEM) && is(referring, SYSTEM_VIRTUALIZATION)
    }),
];

/// The namespace, beside the one where machines are.
pub(crate) fn namespace(schema: Schema, virtualization: Arc<Namespace>) -> Namespace {
    Namespace {
        name: INTEROP,
        schema,
        providers: PROVIDERS,
        associations: &[LINKS],
        methods: &[],
        behind: None,
        beside: Some(virtualization),
    }
}

/// What services and access points of the server have in common.
fn part(world: &World, class: &'static str, name: &str) -> Instance {
    Instance::new(class)
        .with("SystemCreationClassName", SYSTEM)
        .with("SystemName", world.host_name())
        .with("CreationClassName", class)
        .with("Name", name)
        .with("OperationalStatus", vec![2_u16])
        .with("StatusDescriptions", vec!["OK"])
        .with("HealthState", 5_u16)
        .with("EnabledState", 2_u16)
        .with("RequestedState", 12_u16)
        .with("EnabledDefault", 2_u16)
}

fn manager(world: &World) -> Vec<Instance> {
    let version = env!("CARGO_PKG_VERSION");
    vec![
        part(world, MANAGER, CALLED)
            .with("ElementName", CALLED)
            .with("Caption", "Slipway CIM server")
            .with("Description", format!("Slipway CIM server version {version}"))
            .with("Version", version)
            .with("GatherStatisticalData", false)
            .with("StartMode", "Automatic")
            .with("Started", true),
    ]
}

/// What can be done by each protocol: read, walk associations, query. Methods change things.
fn mechanism(world: &World, class: &'static str, called: &str, number: u16, version: &str) -> Instance {
    part(world, class, called)
        .with("ElementName", called)
        .with("CommunicationMechanism", number)
        .with("FunctionalProfilesSupported", vec![2_u16, 6, 7])
        .with("MultipleOperationsSupported", false)
        .with("Version", version)
}

fn cimxml(world: &World) -> Vec<Instance> {
    vec![
        mechanism(world, "CIM_CIMXMLCommunicationMechanism", "CIM-XML", 2, "1.0")
            .with("AuthenticationMechanismsSupported", vec![3_u16])
            .with("CIMXMLProtocolVersion", 1_u16)
            .with("CIMValidated", false),
    ]
}

fn wsman(world: &World) -> Vec<Instance> {
    vec![
        mechanism(world, "CIM_ObjectManagerCommunicationMechanism", "WS-Management", 4, "1.1")
            .with("AuthenticationMechanismsSupported", vec![3_u16]),
    ]
}

fn namespaces(world: &World) -> Vec<Instance> {
    [INTEROP, ALIAS, VIRTUALIZATION, v1::NAME, CIMV2]
        .iter()
        .map(|name| {
            Instance::new("CIM_Namespace")
                .with("SystemCreationClassName", SYSTEM)
                .with("SystemName", world.host_name())
                .with("ObjectManagerCreationClassName", MANAGER)
                .with("ObjectManagerName", CALLED)
                .with("CreationClassName", "CIM_Namespace")
                .with("Name", *name)
                .with("ElementName", *name)
                .with("ClassType", 2_u16)
        })
        .collect()
}

fn profiles(_: &World) -> Vec<Instance> {
    PROFILES
        .iter()
        .map(|(name, version)| {
            Instance::new("CIM_RegisteredProfile")
                .with("InstanceID", format!("DMTF:{name}:{version}"))
                .with("ElementName", *name)
                .with("SpecificationType", 2_u16)
                .with("RegisteredOrganization", 2_u16)
                .with("RegisteredName", *name)
                .with("RegisteredVersion", *version)
                .with("AdvertiseTypes", Value::from(vec![2_u16]))
        })
        .collect()
}
