//! `root/virtualization`: the classes of 2008, over the same machines.
//!
//! There is no second set of makers and methods. What makes v2's instances makes these, and what does v2's methods does
//! these; the tables here say which, and the modules beside this one what v1 calls otherwise: numbers of states, types of
//! resources, names of parameters ([`words`]). A class of v1 that declares less than its maker says leaves the rest out.
//!
//! Planned machines are v2's alone. Of its own v1 has only the settings that it splits in two, its import in one call, and
//! a port for every adapter that is plugged in.

mod default;
mod package;
mod resource;
mod setting;
mod state;
mod summary;
mod switch;
mod words;

use std::sync::Arc;

use access::Action;
use cim::Schema;

use crate::association::{Association, all, end};
use crate::job_class;
use crate::method::{Method, method};
use crate::owner::Scope;
use crate::provider::{Namespace, Provider, Source, host, real, switch as of_switch};
use crate::{integration, service, setting as setting_v2};

/// Hyper-V's own classes of 2008.
pub(crate) const NAME: &str = "root/virtualization";

const SYSTEM: &str = "Msvm_ComputerSystem";
const JOB: &str = "Msvm_ConcreteJob";
const MANAGEMENT: &str = "Msvm_VirtualSystemManagementService";

/// The namespace, told in terms of `v2`.
pub(crate) fn namespace(schema: Schema, v2: Arc<Namespace>) -> Namespace {
    Namespace {
        name: NAME,
        schema,
        providers: PROVIDERS,
        associations: &[ASSOCIATIONS, crate::capabilities::LINKS, crate::pool::LINKS],
        methods: METHODS,
        behind: Some(v2),
        beside: None,
    }
}

const PROVIDERS: &[Provider] = &[
    host(SYSTEM, crate::system::host),
    real(SYSTEM, state::machine),
    real("Msvm_VirtualSystemSettingData", setting::current),
    real("Msvm_VirtualSystemGlobalSettingData", setting::global),
    real("Msvm_VirtualSystemExportSettingData", setting_v2::export),
    real("Msvm_ProcessorSettingData", resource::processor),
    real("Msvm_MemorySettingData", resource::memory),
    real("Msvm_ResourceAllocationSettingData", resource::allocations),
    real("Msvm_SyntheticEthernetPortSettingData", resource::synthetic),
    real("Msvm_EmulatedEthernetPortSettingData", resource::emulated),
    real("Msvm_ShutdownComponent", integration::shutdown),
    real("Msvm_ShutdownComponentSettingData", resource::shutdown),
    real("Msvm_HeartbeatComponentSettingData", resource::heartbeat),
    real("Msvm_TimeSyncComponentSettingData", resource::time),
    real("Msvm_KvpExchangeComponentSettingData", resource::kvp),
    real("Msvm_Processor", integration::processors),
    real("Msvm_Memory", integration::memory),
    real("Msvm_SwitchPort", switch::ports),
    of_switch("Msvm_VirtualSwitch", switch::switch),
    Provider { class: JOB, source: Source::Job(state::job) },
    host(MANAGEMENT, service::management),
    host("Msvm_VirtualSystemManagementServiceSettingData", service::setting),
    host("Msvm_ImageManagementService", service::image),
    host("Msvm_VirtualSwitchManagementService", switch::service),
    host("Msvm_ResourcePool", default::pools),
    host("Msvm_ProcessorPool", default::processor_pool),
    host("Msvm_AllocationCapabilities", default::capabilities),
    host("Msvm_ResourceAllocationSettingData", default::allocations),
    host("Msvm_ProcessorSettingData", default::processor),
    host("Msvm_MemorySettingData", default::memory),
    host("Msvm_SyntheticEthernetPortSettingData", default::synthetic),
];

const ASSOCIATIONS: &[Association] = &[
    all(
        "Msvm_SettingsDefineState",
        end("ManagedElement", SYSTEM, Scope::Machine),
        end("SettingData", "Msvm_VirtualSystemSettingData", Scope::Machine),
    ),
    all(
        "Msvm_ElementSettingData",
        end("ManagedElement", SYSTEM, Scope::Machine),
        end("SettingData", "Msvm_VirtualSystemGlobalSettingData", Scope::Machine),
    ),
    all(
        "Msvm_ElementSettingData",
        end("ManagedElement", MANAGEMENT, Scope::Host),
        end("SettingData", "Msvm_VirtualSystemManagementServiceSettingData", Scope::Host),
    ),
    all(
        "Msvm_VirtualSystemSettingDataComponent",
        end("GroupComponent", "Msvm_VirtualSystemSettingData", Scope::Machine),
        end("PartComponent", "CIM_ResourceAllocationSettingData", Scope::Machine),
    ),
    all(
        "Msvm_SystemExportSettingData",
        end("ManagedElement", SYSTEM, Scope::Machine),
        end("SettingData", "Msvm_VirtualSystemExportSettingData", Scope::Machine),
    ),
    all(
        "Msvm_SystemDevice",
        end("GroupComponent", SYSTEM, Scope::Machine),
        end("PartComponent", "CIM_LogicalDevice", Scope::Machine),
    ),
    all(
        "Msvm_HostedService",
        end("Antecedent", SYSTEM, Scope::Host),
        end("Dependent", "CIM_Service", Scope::Host),
    ),
    all(
        "Msvm_HostedDependency",
        end("Antecedent", SYSTEM, Scope::Host),
        end("Dependent", SYSTEM, Scope::Machine),
    ),
    all(
        "Msvm_HostedDependency",
        end("Antecedent", SYSTEM, Scope::Host),
        end("Dependent", "Msvm_VirtualSwitch", Scope::Switch),
    ),
    all(
        "Msvm_ServiceAffectsElement",
        end("AffectingElement", MANAGEMENT, Scope::Host),
        end("AffectedElement", SYSTEM, Scope::Machine),
    ),
    all(
        "Msvm_AffectedJobElement",
        end("AffectingElement", JOB, Scope::Job),
        end("AffectedElement", SYSTEM, Scope::Machine),
    )
    .saying(state::effect),
];

/// Everything that is served.
const METHODS: &[Method] = &[
    method(SYSTEM, "RequestStateChange", state::request_state_change).needs(Action::Operate),
    method("Msvm_ShutdownComponent", "InitiateShutdown", crate::state::initiate_shutdown)
        .needs(Action::Operate),
    method(JOB, "RequestStateChange", job_class::request_state_change).needs(Action::Operate),
    method(JOB, "GetError", job_class::get_error).needs(Action::See),
    method(JOB, "GetErrorEx", job_class::get_error_ex).needs(Action::See),
    method(MANAGEMENT, "GetSummaryInformation", summary::get_summary_information).needs(Action::See),
    method(MANAGEMENT, "GetVirtualSystemThumbnailImage", crate::console::thumbnail).needs(Action::Operate),
    method(MANAGEMENT, "FormatError", job_class::format_error).needs(Action::See),
    method(MANAGEMENT, "DefineVirtualSystem", setting::define),
    method(MANAGEMENT, "ModifyVirtualSystem", setting::modify),
    method(MANAGEMENT, "DestroyVirtualSystem", setting::destroy),
    method(MANAGEMENT, "ExportVirtualSystem", package::export).needs(Action::Export),
    method(MANAGEMENT, "ExportVirtualSystemEx", package::export_ex).needs(Action::Export),
    method(MANAGEMENT, "ImportVirtualSystem", package::import),
    method(MANAGEMENT, "ImportVirtualSystemEx", package::import_ex),
    method(MANAGEMENT, "GetVirtualSystemImportSettingData", package::import_settings),
    method(MANAGEMENT, "AddVirtualSystemResources", resource::add),
    method(MANAGEMENT, "ModifyVirtualSystemResources", resource::modify),
    method(MANAGEMENT, "RemoveVirtualSystemResources", resource::remove),
    method("Msvm_VirtualSwitchManagementService", "CreateSwitchPort", switch::create_port),
];
