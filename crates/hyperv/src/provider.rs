//! Which class is made of what, and finding instances by it.
//!
//! A provider makes all instances of one class that one owner has. That is enough for everything: one instance is among
//! those of the owner that its keys name; a listing goes through the owners, one at a time.

use std::sync::Arc;

use cim::{Class, Instance, ObjectPath, Schema};
use machine::switch::SwitchRecord;
use wsman::{Call, Failure, FailureKind, Instances};

use crate::job_class::{self, JobView};
use crate::owner::{Machine, Owner, OwnerId, Scope};
use crate::owners::Owners;
use crate::world::{World, failed};
use crate::{
    boot, capabilities, cimv2, drive, ethernet, feature, fill, ids, integration, peripheral, pool, port,
    service, setting, storage, switch, system,
};

/// Hyper-V's own classes.
pub(crate) const VIRTUALIZATION: &str = "root/virtualization/v2";
/// The host's.
pub(crate) const CIMV2: &str = "root/cimv2";

/// Makes the instances of a class.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Host(fn(&World) -> Vec<Instance>),
    Machine(fn(&World, &Machine) -> Vec<Instance>),
    /// Of machines, and not of planned ones.
    Real(fn(&World, &Machine) -> Vec<Instance>),
    Switch(fn(&World, &SwitchRecord) -> Vec<Instance>),
    Job(fn(&World, &JobView) -> Vec<Instance>),
}

/// A class and its source. A class may have several.
#[derive(Clone, Copy)]
pub(crate) struct Provider {
    pub(crate) class: &'static str,
    pub(crate) source: Source,
}

pub(crate) const fn host(class: &'static str, make: fn(&World) -> Vec<Instance>) -> Provider {
    Provider { class, source: Source::Host(make) }
}

pub(crate) const fn machine(class: &'static str, make: fn(&World, &Machine) -> Vec<Instance>) -> Provider {
    Provider { class, source: Source::Machine(make) }
}

/// Of machines, and not of planned ones.
pub(crate) const fn real(class: &'static str, make: fn(&World, &Machine) -> Vec<Instance>) -> Provider {
    Provider { class, source: Source::Real(make) }
}

pub(crate) const fn switch(
    class: &'static str,
    make: fn(&World, &SwitchRecord) -> Vec<Instance>,
) -> Provider {
    Provider { class, source: Source::Switch(make) }
}

/// Everything in `root/virtualization/v2` that has instances and is no association.
const VIRTUALIZATION_PROVIDERS: &[Provider] = &[
    host("Msvm_ComputerSystem", system::host),
    machine("Msvm_ComputerSystem", system::machine),
    machine("Msvm_PlannedComputerSystem", system::planned),
    machine("Msvm_VirtualSystemSettingData", setting::virtual_system),
    machine("Msvm_ProcessorSettingData", setting::processor),
    machine("Msvm_MemorySettingData", setting::memory),
    machine("Msvm_SecuritySettingData", setting::security),
    machine("Msvm_VirtualSystemExportSettingData", setting::export),
    machine("Msvm_ResourceAllocationSettingData", storage::resources),
    machine("Msvm_StorageAllocationSettingData", storage::storage),
    machine("Msvm_SyntheticEthernetPortSettingData", ethernet::synthetic),
    machine("Msvm_EmulatedEthernetPortSettingData", ethernet::emulated),
    machine("Msvm_EthernetPortAllocationSettingData", ethernet::connection),
    machine("Msvm_EthernetSwitchPortVlanSettingData", feature::vlan),
    machine("Msvm_EthernetSwitchPortSecuritySettingData", feature::security),
    machine("Msvm_SyntheticEthernetPort", port::synthetic),
    machine("Msvm_EmulatedEthernetPort", port::emulated),
    machine("Msvm_EthernetSwitchPort", port::of_machine),
    machine("Msvm_LANEndpoint", port::endpoints),
    machine("Msvm_ShutdownComponent", integration::shutdown),
    machine("Msvm_ShutdownComponentSettingData", integration::shutdown_setting),
    machine("Msvm_HeartbeatComponentSettingData", integration::heartbeat_setting),
    machine("Msvm_TimeSyncComponentSettingData", integration::time_setting),
    machine("Msvm_KvpExchangeComponentSettingData", integration::kvp_setting),
    machine("Msvm_Keyboard", integration::keyboard),
    machine("Msvm_VideoHead", integration::video_head),
    machine("Msvm_Processor", integration::processors),
    machine("Msvm_Memory", integration::memory),
    switch("Msvm_VirtualEthernetSwitch", switch::switch),
    switch("Msvm_VirtualEthernetSwitchSettingData", switch::setting),
    switch("Msvm_EthernetPortAllocationSettingData", switch::connection),
    switch("Msvm_EthernetSwitchPort", port::of_switch),
    switch("Msvm_LANEndpoint", port::switch_endpoints),
    host("Msvm_ExternalEthernetPort", port::external),
    host("Msvm_LANEndpoint", port::external_endpoints),
    host("Msvm_VirtualEthernetSwitchManagementCapabilities", switch::capabilities),
    host("Msvm_EthernetSwitchFeatureCapabilities", feature::capabilities),
    host("Msvm_EthernetSwitchPortVlanSettingData", feature::default_vlan),
    host("Msvm_EthernetSwitchPortSecuritySettingData", feature::default_security),
    host("Msvm_EthernetSwitchPortBandwidthSettingData", feature::default_bandwidth),
    Provider { class: "Msvm_ConcreteJob", source: Source::Job(job_class::concrete_job) },
    Provider { class: "Msvm_StorageJob", source: Source::Job(job_class::storage_job) },
    host("Msvm_VirtualSystemManagementService", service::management),
    host("Msvm_VirtualSystemManagementServiceSettingData", service::setting),
    host("Msvm_VirtualSystemManagementCapabilities", service::capabilities),
    host("Msvm_ImageManagementService", service::image),
    host("Msvm_VirtualEthernetSwitchManagementService", service::switches),
    host("Msvm_VirtualSystemSnapshotService", service::snapshots),
    host("Msvm_SecurityService", service::security),
    host("Msvm_ResourcePool", pool::pools),
    host("Msvm_ProcessorPool", pool::processors),
    host("Msvm_ResourcePoolSettingData", pool::settings),
    host("Msvm_ResourcePoolConfigurationService", pool::configuration),
    host("Msvm_ResourcePoolConfigurationCapabilities", pool::configuration_capabilities),
    host("Msvm_AllocationCapabilities", capabilities::allocation),
    host("Msvm_ResourceAllocationSettingData", capabilities::resources),
    host("Msvm_StorageAllocationSettingData", capabilities::storage),
    host("Msvm_ProcessorSettingData", capabilities::processor),
    host("Msvm_MemorySettingData", capabilities::memory),
    host("Msvm_SyntheticEthernetPortSettingData", capabilities::synthetic),
    host("Msvm_EthernetPortAllocationSettingData", capabilities::connection),
    host("Msvm_VirtualSystemSettingData", capabilities::systems),
    machine("Msvm_VirtualSystemCapabilities", capabilities::system),
    machine("Msvm_IDEController", drive::ide_controllers),
    machine("Msvm_SCSIProtocolController", drive::scsi_controllers),
    machine("Msvm_DiskDrive", drive::disk_drives),
    machine("Msvm_DVDDrive", drive::dvd_drives),
    machine("Msvm_LogicalDisk", drive::logical_disks),
    machine("Msvm_SyntheticDisplayController", peripheral::display),
    machine("Msvm_SyntheticDisplayControllerSettingData", peripheral::display_setting),
    machine("Msvm_SyntheticMouse", peripheral::mouse),
    machine("Msvm_SerialController", peripheral::serial_controller),
    machine("Msvm_SerialPort", peripheral::serial_port),
    machine("Msvm_SerialPortSettingData", peripheral::serial_setting),
    machine("Msvm_TPM", peripheral::tpm),
    machine("Msvm_HeartbeatComponent", integration::heartbeat),
    machine("Msvm_KvpExchangeComponent", integration::kvp),
    machine("Msvm_VssComponentSettingData", integration::vss_setting),
    machine("Msvm_GuestServiceInterfaceComponentSettingData", integration::guest_interface_setting),
    machine("Msvm_BIOSElement", boot::bios),
    machine("Msvm_BootSourceSettingData", boot::boot_sources),
];

/// The same of `root/cimv2`.
const CIMV2_PROVIDERS: &[Provider] = &[
    host("Win32_ComputerSystem", cimv2::computer_system),
    host("Win32_OperatingSystem", cimv2::operating_system),
    host("Win32_ComputerSystemProduct", cimv2::product),
    host("Win32_Processor", cimv2::processor),
];

impl Provider {
    pub(crate) fn scope(&self) -> Scope {
        match self.source {
            Source::Host(_) => Scope::Host,
            Source::Machine(_) | Source::Real(_) => Scope::Machine,
            Source::Switch(_) => Scope::Switch,
            Source::Job(_) => Scope::Job,
        }
    }

    fn make(&self, world: &World, owner: &Owner) -> Vec<Instance> {
        match (self.source, owner) {
            (Source::Host(make), Owner::Host) => make(world),
            (Source::Machine(make), Owner::Machine(machine)) => make(world, machine),
            (Source::Real(make), Owner::Machine(machine)) if machine.real().is_some() => make(world, machine),
            (Source::Switch(make), Owner::Switch(switch)) => make(world, switch),
            (Source::Job(make), Owner::Job(job)) => make(world, job),
            _ => Vec::new(),
        }
    }
}

/// A namespace: its classes, and what fills them.
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    pub(crate) schema: Schema,
    pub(crate) providers: &'static [Provider],
    /// The tables of what belongs together, one of each part.
    pub(crate) associations: &'static [&'static [crate::association::Association]],
    pub(crate) methods: &'static [crate::method::Method],
    /// The namespace in whose words this one's makers speak, where it is not their own: what they say beyond its classes is
    /// left out.
    pub(crate) behind: Option<Arc<Namespace>>,
    /// The namespace where ends of its associations lie that are elsewhere.
    pub(crate) beside: Option<Arc<Namespace>>,
}

impl Namespace {
    pub(crate) fn virtualization(schema: Schema) -> Self {
        Self {
            name: VIRTUALIZATION,
            schema,
            providers: VIRTUALIZATION_PROVIDERS,
            associations: &[
                crate::association::VIRTUALIZATION,
                pool::LINKS,
                capabilities::LINKS,
                drive::LINKS,
                peripheral::LINKS,
                boot::LINKS,
                port::LINKS,
                feature::LINKS,
            ],
            methods: crate::method::METHODS,
            behind: None,
            beside: None,
        }
    }

    pub(crate) fn cimv2(schema: Schema) -> Self {
        Self {
            name: CIMV2,
            schema,
            providers: CIMV2_PROVIDERS,
            associations: &[crate::association::CIMV2],
            methods: &[],
            behind: None,
            beside: None,
        }
    }

    /// Every association.
    pub(crate) fn associations(
        &self,
    ) -> impl Iterator<Item = &'static crate::association::Association> + use<> {
        self.associations.iter().copied().flatten()
    }

    /// The providers of `class` and of those below it.
    pub(crate) fn of(&self, class: &str) -> impl Iterator<Item = (&'static Provider, &Arc<Class>)> {
        let all = self.providers.iter().filter(move |p| self.schema.is_a(p.class, class));
        all.filter_map(|p| self.schema.class(p.class).map(|class| (p, class)))
    }

    /// The instances of `class` and of those below it that `owner` has.
    pub(crate) fn made(&self, world: &World, owner: &Owner, class: &str) -> Vec<Instance> {
        let providers = self.of(class).filter(|(provider, _)| provider.scope() == owner.scope());
        providers
            .flat_map(|(provider, class)| {
                let made = provider.make(world, owner).into_iter();
                made.map(|one| self.placed(world, class, one))
            })
            .collect()
    }

    fn placed(&self, world: &World, class: &Class, made: Instance) -> Instance {
        let made = if self.behind.is_some() { fill::declared(class, made) } else { made };
        fill::placed(class, &made, world.host_name(), self.name)
    }

    /// The same of a machine at hand.
    pub(crate) fn made_of(&self, world: &World, machine: &Machine, class: &str) -> Vec<Instance> {
        let providers = self.of(class).filter_map(|(provider, class)| match provider.source {
            Source::Machine(make) => Some((make, class)),
            Source::Real(make) if machine.real().is_some() => Some((make, class)),
            _ => None,
        });
        let placed = |class: &Class, one: Instance| self.placed(world, class, one);
        providers
            .flat_map(|(make, class)| make(world, machine).into_iter().map(move |one| placed(class, one)))
            .collect()
    }

    /// Every instance of `class` and of those below it that the caller may see, made as they are taken.
    pub(crate) fn list(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        class: &str,
    ) -> Result<Instances, Failure> {
        let scopes = Scope::ALL.into_iter();
        let scopes = scopes.filter(|scope| self.of(class).any(|(provider, _)| provider.scope() == *scope));
        let owners = Owners::all(world, scopes);
        Ok(self.from_owners(world, call, owners, class.to_owned(), |_, _| true))
    }

    /// The instances of `class` that `owners` have, that the caller may see, and that `wanted` lets through.
    pub(crate) fn from_owners(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        owners: Owners,
        class: String,
        wanted: impl Fn(&World, &Instance) -> bool + Send + 'static,
    ) -> Instances {
        let (this, world, call) = (Arc::clone(self), Arc::clone(world), call.clone());
        let made = owners.flat_map(move |id| {
            let made: Vec<_> = match id.and_then(|id| world.load(id)) {
                Ok(Some(owner)) if world.sees(&call, &owner) => {
                    let made = this.made(&world, &owner, &class).into_iter();
                    made.filter(|one| wanted(&world, one)).map(Ok).collect()
                }
                Ok(_) => Vec::new(),
                Err(e) => vec![Err(failed(&e))],
            };
            made
        });
        Box::new(made)
    }

    /// The one instance at `path`, whose class may be above its own, with what it is part of.
    pub(crate) fn find(
        self: &Arc<Self>,
        world: &Arc<World>,
        call: &Call,
        path: &ObjectPath,
    ) -> Result<(Instance, Owner), Failure> {
        let class = path.class.as_str();
        let named = ids::owner_of(path);
        let mut found: Option<(Instance, Owner)> = None;
        for scope in Scope::ALL {
            if !self.of(class).any(|(provider, _)| provider.scope() == scope) {
                continue;
            }
            let owners = match (scope, named) {
                (Scope::Host, _) => vec![OwnerId::Host],
                (scope, Some(id)) => World::candidates(scope, id),
                // Keys that name no owner: those given may tell it from all others all the same.
                (scope, None) if path.keys.is_empty() || !names_host(world, path) => {
                    world.owners(scope).collect::<machine::Result<_>>().map_err(|e| failed(&e))?
                }
                _ => Vec::new(),
            };
            for id in owners {
                let Some(owner) = world.load(id).map_err(|e| failed(&e))? else { continue };
                if !world.sees(call, &owner) {
                    continue;
                }
                let fits = self.made(world, &owner, class).into_iter();
                let fits: Vec<_> = fits.filter(|one| fits_keys(one, path)).collect();
                if fits.len() + usize::from(found.is_some()) > 1 {
                    return Err(Failure::new(
                        FailureKind::Ambiguous,
                        format!("the keys of `{path}` fit several instances"),
                    ));
                }
                if let Some(one) = fits.into_iter().next() {
                    found = Some((one, owner));
                    // A machine and a planned one may have the same id: what is there comes before what is planned.
                    if named.is_some() {
                        break;
                    }
                }
            }
        }
        found.ok_or_else(|| Failure::new(FailureKind::NotFound, format!("there is no `{path}`")))
    }
}

/// Whether a key names the host, or something of its own, so that no machine, switch or job can be meant.
fn names_host(world: &World, path: &ObjectPath) -> bool {
    ["SystemName", "Name"]
        .iter()
        .any(|key| path.text(key).is_some_and(|name| name.eq_ignore_ascii_case(world.host_name())))
        || path.text("InstanceID").is_some_and(ids::of_host)
}

/// Whether an instance has the keys of `path`. Texts are compared as WMI does, without regard to case.
fn fits_keys(instance: &Instance, path: &ObjectPath) -> bool {
    path.keys.iter().all(|(name, value)| match (instance.get(name.as_str()), value.as_str()) {
        (Some(has), Some(text)) => has.as_str().is_some_and(|has| has.eq_ignore_ascii_case(text)),
        (Some(has), None) => has == value,
        (None, _) => false,
    })
}

/// Whether two paths lead to the same instance, whatever hosts and namespaces they name.
pub(crate) fn same(one: &ObjectPath, other: &ObjectPath) -> bool {
    one.class == other.class
        && one.keys.len() == other.keys.len()
        && one.keys.iter().all(|(name, value)| {
            other.key(name.as_str()).is_some_and(|there| match (value.as_str(), there.as_str()) {
                (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
                _ => value == there,
            })
        })
}
