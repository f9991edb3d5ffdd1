//! Methods: from a class and a name to what it does, and from what the domain says to a return value.
//!
//! A method that the schema declares and that nothing here does answers *not supported* in its own codes.

use std::path::PathBuf;
use std::sync::Arc;

use access::Action;
use cim::{Class, Instance, Method as Declared, Name, ObjectPath, Schema, Value, embedded};
use machine::Reason;
use uuid::Uuid;
use wsman::{Call, Failure, FailureKind, Output};

use crate::codes::{self, Family};
use crate::ids;
use crate::owner::Owner;
use crate::provider::Namespace;
use crate::world::World;
use crate::{console, define, image, job_class, package, resource, state, summary};

/// A call of a method, on its way to the domain.
pub(crate) struct Invocation<'c> {
    pub(crate) world: &'c Arc<World>,
    pub(crate) namespace: &'c Arc<Namespace>,
    pub(crate) call: &'c Call,
    /// What the instance that it was called on is part of.
    pub(crate) owner: Owner,
    parameters: Vec<(Name, Option<Value>)>,
}

/// Why a method does not do it: a reason that becomes a number, and a sentence for the log.
pub(crate) type Refused = machine::Error;

/// Most instances that one parameter carries.
const MAX_INSTANCES: usize = 256;

/// What a method does.
pub(crate) type Does = fn(&Invocation<'_>) -> Result<Output, Refused>;

/// A method that is served.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    does: Does,
}

pub(crate) const fn method(class: &'static str, name: &'static str, does: Does) -> Method {
    Method { class, name, does }
}

const SYSTEM: &str = "Msvm_ComputerSystem";
const PLANNED: &str = "Msvm_PlannedComputerSystem";
const JOB: &str = "Msvm_ConcreteJob";
const KEYBOARD: &str = "Msvm_Keyboard";
const SHUTDOWN: &str = "Msvm_ShutdownComponent";
const MANAGEMENT: &str = "Msvm_VirtualSystemManagementService";
const STORAGE_JOB: &str = "Msvm_StorageJob";
const IMAGES: &str = "Msvm_ImageManagementService";

/// Everything that is served of `root/virtualization/v2`.
pub(crate) const METHODS: &[Method] = &[
    method(SYSTEM, "RequestStateChange", state::request_state_change),
    method(PLANNED, "RequestStateChange", state::request_state_change),
    method(SHUTDOWN, "InitiateShutdown", state::initiate_shutdown),
    method(JOB, "RequestStateChange", job_class::request_state_change),
    method(JOB, "GetError", job_class::get_error),
    method(JOB, "GetErrorEx", job_class::get_error_ex),
    method(KEYBOARD, "TypeText", console::type_text),
    method(KEYBOARD, "TypeKey", console::type_key),
    method(KEYBOARD, "TypeCtrlAltDel", console::type_ctrl_alt_del),
    method(MANAGEMENT, "GetSummaryInformation", summary::get_summary_information),
    method(MANAGEMENT, "GetVirtualSystemThumbnailImage", console::thumbnail),
    method(MANAGEMENT, "FormatError", job_class::format_error),
    method(MANAGEMENT, "ExportSystemDefinition", package::export),
    method(MANAGEMENT, "ImportSystemDefinition", package::import),
    method(MANAGEMENT, "ValidatePlannedSystem", package::validate),
    method(MANAGEMENT, "RealizePlannedSystem", package::realize),
    method(MANAGEMENT, "GetDefinitionFileSummaryInformation", package::summaries),
    method(MANAGEMENT, "DefineSystem", define::define_system),
    method(MANAGEMENT, "DestroySystem", define::destroy_system),
    method(MANAGEMENT, "ModifySystemSettings", define::modify_system_settings),
    method(MANAGEMENT, "AddResourceSettings", resource::add),
    method(MANAGEMENT, "ModifyResourceSettings", resource::modify),
    method(MANAGEMENT, "RemoveResourceSettings", resource::remove),
    method(STORAGE_JOB, "RequestStateChange", job_class::request_state_change),
    method(STORAGE_JOB, "GetError", job_class::get_error),
    method(STORAGE_JOB, "GetErrorEx", job_class::get_error_ex),
    method(IMAGES, "CreateVirtualHardDisk", image::create),
    method(IMAGES, "CreateVirtualFloppyDisk", image::create_floppy),
    method(IMAGES, "ConvertVirtualHardDisk", image::convert),
    method(IMAGES, "ResizeVirtualHardDisk", image::resize),
    method(IMAGES, "CompactVirtualHardDisk", image::compact),
    method(IMAGES, "ValidateVirtualHardDisk", image::validate),
    method(IMAGES, "GetVirtualHardDiskSettingData", image::get_settings),
    method(IMAGES, "GetVirtualHardDiskState", image::get_state),
    method(IMAGES, "SetVirtualHardDiskSettingData", image::set_settings),
];

/// The codes that a declared method answers in, as its value map tells.
pub(crate) fn family(class: &Class, method: &Declared) -> Family {
    let map = method.qualifiers.iter().find(|q| q.name == "ValueMap");
    let has = |code: &str| {
        map.is_some_and(|map| map.value.elements().iter().any(|value| value.as_str() == Some(code)))
    };
    if class.name == "Msvm_ImageManagementService" {
        Family::Image
    } else if method.name == "RequestStateChange" && (class.name == JOB || class.name == STORAGE_JOB) {
        Family::JobState
    // A planned system inherits its page from CIM, and is asked by the same clients as a machine.
    } else if has("32775") || has("32770") || map.is_none() || method.name == "RequestStateChange" {
        Family::Vendor
    } else {
        Family::Dmtf
    }
}

pub(crate) fn invoke(
    namespace: &Arc<Namespace>,
    world: &Arc<World>,
    call: &Call,
    path: &ObjectPath,
    name: &str,
    parameters: Vec<(Name, Option<Value>)>,
) -> Result<Output, Failure> {
    let (target, owner) = namespace.find(world, call, path)?;
    let no_method =
        || Failure::new(FailureKind::MethodNotFound, format!("{} has no method `{name}`", target.class));
    let class = namespace.schema.class(target.class.as_str()).ok_or_else(no_method)?;
    let declared = class.method(name).ok_or_else(no_method)?;
    for (given, _) in &parameters {
        if !declared.parameter(given.as_str()).is_some_and(|p| p.input) {
            return Err(Failure::new(
                FailureKind::InvalidParameter(given.clone()),
                format!("{}.{} takes no parameter `{given}`", class.name, declared.name),
            ));
        }
    }
    let family = family(class, declared);
    let served = namespace.methods.iter().find(|m| target.class == m.class && declared.name == m.name);
    let done = match served {
        Some(method) => {
            let invocation = Invocation { world, namespace, call, owner, parameters };
            (method.does)(&invocation)
        }
        None => Err(Refused::new(
            Reason::NotSupported,
            format!("{}.{} is declared, and nothing here does it yet", class.name, declared.name),
        )),
    };
    Ok(match done {
        Ok(output) => whole(&namespace.schema, declared, output),
        Err(refused) => {
            tracing::info!(
                user = call.principal.user,
                method = %declared.name,
                reason = refused.reason().id(),
                "{}",
                refused.chain()
            );
            whole(&namespace.schema, declared, Output::new(codes::code(family, refused.reason())))
        }
    })
}

/// `output` with every output parameter there, in the declared order and spelling. Instances are texts where the declaration
/// wants a string that carries one, and not an object.
fn whole(schema: &Schema, declared: &Declared, mut output: Output) -> Output {
    let parameters = declared.parameters.iter().filter(|p| p.output).map(|p| {
        let at = output.parameters.iter().position(|(name, _)| *name == p.name);
        let value = at.and_then(|at| output.parameters.swap_remove(at).1);
        let as_text = p.embedded().is_some() && p.qualifier("CIMType").is_none();
        (p.name.clone(), value.map(|value| if as_text { texts(schema, value) } else { value }))
    });
    let parameters = parameters.collect();
    debug_assert!(output.parameters.is_empty(), "{} returns {:?}", declared.name, output.parameters);
    Output { returned: output.returned, parameters }
}

fn texts(schema: &Schema, value: Value) -> Value {
    match value {
        Value::Array(all) => Value::Array(all.into_iter().map(|one| texts(schema, one)).collect()),
        Value::Object(instance) => embedded::write(&instance, schema).into(),
        other => other,
    }
}

impl<'c> Invocation<'c> {
    /// The same call as one of another namespace, with other parameters.
    pub(crate) fn within(
        &self,
        namespace: &'c Arc<Namespace>,
        parameters: Vec<(Name, Option<Value>)>,
    ) -> Result<Self, Refused> {
        let gone = || Refused::new(Reason::NotFound, "what the method was called on is gone");
        let owner = self.world.load(self.owner.id())?.ok_or_else(gone)?;
        Ok(Invocation { world: self.world, namespace, call: self.call, owner, parameters })
    }
}

impl Invocation<'_> {
    /// Refuses what the caller may not do.
    pub(crate) fn permit(&self, action: Action, machine: Option<Uuid>) -> Result<(), Refused> {
        if self.world.may(self.call, action, machine) {
            return Ok(());
        }
        let user = &self.call.principal.user;
        Err(Refused::new(Reason::AccessDenied, format!("`{user}` may not {} here", action.word()))
            .hint("an administrator grants it: slipway user set"))
    }

    /// The answer for what a job does.
    pub(crate) fn started(&self, job: Uuid) -> Output {
        let path = self.world.path("Msvm_ConcreteJob").with("InstanceID", ids::guid(job));
        Output::new(codes::STARTED).with("Job", Some(path.into()))
    }

    /// A number that must be there.
    pub(crate) fn number(&self, name: &str) -> Result<u64, Refused> {
        self.given(name).and_then(Value::as_u64).ok_or_else(|| invalid(name, "missing, or no number"))
    }

    /// A text that must be there and not empty.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Refused> {
        let text = self.given(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| invalid(name, "missing, or empty"))
    }

    /// A file or folder of this host that a parameter names as Windows does.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, Refused> {
        self.world.settings.paths.resolve(self.text(name)?)
    }

    /// The instances that a parameter carries; none when it is missing.
    pub(crate) fn instances(&self, name: &str) -> Result<Vec<Instance>, Refused> {
        let Some(value) = self.given(name) else { return Ok(Vec::new()) };
        if value.elements().len() > MAX_INSTANCES {
            return Err(invalid(name, format!("more than {MAX_INSTANCES} instances")));
        }
        embedded::read_all(value, self.schema()).map_err(|e| invalid(name, e))
    }

    /// The one instance that a parameter carries, of `class` or one below it; none when the parameter is missing or empty.
    pub(crate) fn instance(&self, name: &str, class: &str) -> Result<Option<Instance>, Refused> {
        if self.given(name).and_then(Value::as_str).is_some_and(|text| text.trim().is_empty()) {
            return Ok(None);
        }
        let Some(instance) = self.instances(name)?.into_iter().next() else { return Ok(None) };
        if !self.schema().is_a(instance.class.as_str(), class) {
            return Err(invalid(name, format!("expected {class}, not {}", instance.class)));
        }
        Ok(Some(instance))
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.namespace.schema
    }

    /// A parameter that is there and not null.
    pub(crate) fn given(&self, name: &str) -> Option<&Value> {
        self.parameters.iter().find(|(there, _)| *there == name).and_then(|(_, value)| value.as_ref())
    }

    /// The path that a value is, or spells.
    pub(crate) fn path(&self, name: &str, value: &Value) -> Result<ObjectPath, Refused> {
        let wrong = |why: String| invalid(name, why);
        let path = match value {
            Value::Reference(path) => (**path).clone(),
            Value::String(text) => text.parse().map_err(|e: cim::SyntaxError| wrong(e.to_string()))?,
            _ => return Err(wrong("expected a path to an instance".to_owned())),
        };
        path.resolved(self.schema()).map_err(|e| wrong(e.to_string()))
    }

    /// The machine, or planned one, that a parameter leads to: by its system, or by its settings.
    pub(crate) fn machine_of(&self, name: &str, value: &Value) -> Result<Uuid, Refused> {
        let path = self.path(name, value)?;
        ids::owner_of(&path).ok_or_else(|| invalid(name, format!("`{path}` is no machine")))
    }
}

/// A parameter that is not what it must be.
pub(crate) fn invalid(parameter: &str, why: impl std::fmt::Display) -> Refused {
    Refused::new(Reason::InvalidArgument, format!("{parameter}: {why}"))
}
