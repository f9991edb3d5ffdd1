//! Methods: from a class and a name to what it does, and from what the domain says to a return value.
//!
//! A method that the schema declares and that nothing here does answers *not supported* in its own codes.

use std::path::PathBuf;
use std::sync::Arc;

use access::Action;
use cim::{Instance, Method as Declared, Name, ObjectPath, Schema, Value, embedded};
use machine::Reason;
use uuid::Uuid;
use wsman::{Call, Failure, FailureKind, Output};

use crate::codes::{self, Codes};
use crate::ids;
use crate::job_class::Kind;
use crate::owner::Owner;
use crate::provider::Namespace;
use crate::tasks::Begin;
use crate::world::World;
use crate::{console, define, feature, image, job_class, package, resource, service, state, summary, switch};

/// A call of a method, on its way to the domain.
pub(crate) struct Invocation<'c> {
    pub(crate) world: &'c Arc<World>,
    pub(crate) namespace: &'c Arc<Namespace>,
    pub(crate) call: &'c Call,
    /// What its caller must be allowed, as [`METHODS`] says.
    needs: Action,
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
    /// What its caller must be allowed: [`Invocation::permit`] asks for it, and the audit log says it.
    pub(crate) needs: Action,
    does: Does,
}

/// A method that changes what there is, unless [`Method::needs`] says otherwise.
pub(crate) const fn method(class: &'static str, name: &'static str, does: Does) -> Method {
    Method { class, name, needs: Action::Configure, does }
}

impl Method {
    /// One that takes another permission.
    pub(crate) const fn needs(self, needs: Action) -> Self {
        Self { needs, ..self }
    }
}

const SYSTEM: &str = "Msvm_ComputerSystem";
const PLANNED: &str = "Msvm_PlannedComputerSystem";
const JOB: &str = "Msvm_ConcreteJob";
const KEYBOARD: &str = "Msvm_Keyboard";
const SHUTDOWN: &str = "Msvm_ShutdownComponent";
const MANAGEMENT: &str = "Msvm_VirtualSystemManagementService";
const STORAGE_JOB: &str = "Msvm_StorageJob";
const IMAGES: &str = "Msvm_ImageManagementService";
const SWITCHES: &str = "Msvm_VirtualEthernetSwitchManagementService";

/// Everything that is served of `root/virtualization/v2`.
pub(crate) const METHODS: &[Method] = &[
    method(SYSTEM, "RequestStateChange", state::request_state_change).needs(Action::Operate),
    method(PLANNED, "RequestStateChange", state::request_state_change).needs(Action::Operate),
    method(SHUTDOWN, "InitiateShutdown", state::initiate_shutdown).needs(Action::Operate),
    method(JOB, "RequestStateChange", job_class::request_state_change).needs(Action::Operate),
    method(JOB, "KillJob", job_class::kill).needs(Action::Operate),
    method(JOB, "GetError", job_class::get_error).needs(Action::See),
    method(JOB, "GetErrorEx", job_class::get_error_ex).needs(Action::See),
    method(SHUTDOWN, "InitiateReboot", state::initiate_reboot).needs(Action::Operate),
    method(SYSTEM, "InjectNonMaskableInterrupt", state::interrupt).needs(Action::Operate),
    method(KEYBOARD, "PressKey", console::press_key).needs(Action::Operate),
    method(KEYBOARD, "ReleaseKey", console::release_key).needs(Action::Operate),
    method(KEYBOARD, "IsKeyPressed", console::is_key_pressed).needs(Action::Operate),
    method(KEYBOARD, "TypeScancodes", console::type_scan_codes).needs(Action::Operate),
    method(KEYBOARD, "TypeText", console::type_text).needs(Action::Operate),
    method(KEYBOARD, "TypeKey", console::type_key).needs(Action::Operate),
    method(KEYBOARD, "TypeCtrlAltDel", console::type_ctrl_alt_del).needs(Action::Operate),
    method(MANAGEMENT, "GetSummaryInformation", summary::get_summary_information).needs(Action::See),
    method(MANAGEMENT, "GetVirtualSystemThumbnailImage", console::thumbnail).needs(Action::Operate),
    method(MANAGEMENT, "FormatError", job_class::format_error).needs(Action::See),
    method(MANAGEMENT, "ExportSystemDefinition", package::export).needs(Action::Export),
    method(MANAGEMENT, "ImportSystemDefinition", package::import),
    method(MANAGEMENT, "ImportSnapshotDefinitions", package::import_snapshots),
    method(MANAGEMENT, "ValidatePlannedSystem", package::validate),
    method(MANAGEMENT, "RealizePlannedSystem", package::realize),
    method(MANAGEMENT, "GetDefinitionFileSummaryInformation", package::summaries),
    method(MANAGEMENT, "GetSizeOfSystemFiles", package::size_of_system_files).needs(Action::See),
    method(MANAGEMENT, "ModifyServiceSettings", service::modify_settings),
    method(MANAGEMENT, "DefineSystem", define::define_system),
    method(MANAGEMENT, "DestroySystem", define::destroy_system),
    method(MANAGEMENT, "ModifySystemSettings", define::modify_system_settings),
    method(MANAGEMENT, "AddResourceSettings", resource::add),
    method(MANAGEMENT, "ModifyResourceSettings", resource::modify),
    method(MANAGEMENT, "RemoveResourceSettings", resource::remove),
    method(STORAGE_JOB, "RequestStateChange", job_class::request_state_change).needs(Action::Operate),
    method(STORAGE_JOB, "KillJob", job_class::kill).needs(Action::Operate),
    method(STORAGE_JOB, "GetError", job_class::get_error).needs(Action::See),
    method(STORAGE_JOB, "GetErrorEx", job_class::get_error_ex).needs(Action::See),
    method(IMAGES, "CreateVirtualHardDisk", image::create),
    method(IMAGES, "CreateVirtualFloppyDisk", image::create_floppy),
    method(IMAGES, "ConvertVirtualHardDisk", image::convert),
    method(IMAGES, "ResizeVirtualHardDisk", image::resize),
    method(IMAGES, "CompactVirtualHardDisk", image::compact),
    method(IMAGES, "ValidateVirtualHardDisk", image::validate),
    method(IMAGES, "GetVirtualHardDiskSettingData", image::get_settings).needs(Action::See),
    method(IMAGES, "GetVirtualHardDiskState", image::get_state).needs(Action::See),
    method(IMAGES, "SetVirtualHardDiskSettingData", image::set_settings),
    method(MANAGEMENT, "AddFeatureSettings", feature::add),
    method(MANAGEMENT, "ModifyFeatureSettings", feature::modify),
    method(MANAGEMENT, "RemoveFeatureSettings", feature::remove),
    method(SWITCHES, "DefineSystem", switch::define),
    method(SWITCHES, "DestroySystem", switch::destroy),
    method(SWITCHES, "ModifySystemSettings", switch::modify),
    method(SWITCHES, "AddResourceSettings", switch::add_resources),
    method(SWITCHES, "ModifyResourceSettings", switch::modify_resources),
    method(SWITCHES, "RemoveResourceSettings", switch::remove_resources),
];

/// What a caller of `method` of `class`, or of one below it, must be allowed. What nothing here does would change something,
/// as far as anybody knows.
pub(crate) fn needs(namespace: &Namespace, class: &str, method: &str) -> Action {
    let named = namespace.methods.iter().filter(|m| m.name == method);
    let served = named.into_iter().find(|m| namespace.schema.is_a(m.class, class));
    served.map_or(Action::Configure, |m| m.needs)
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
    let codes = Codes::of(class, declared);
    let served = namespace.methods.iter().find(|m| target.class == m.class && declared.name == m.name);
    let done = match served {
        Some(method) => {
            let invocation = Invocation { world, namespace, call, needs: method.needs, owner, parameters };
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
            whole(&namespace.schema, declared, Output::new(codes.code(refused.reason())))
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
        Ok(Invocation { world: self.world, namespace, call: self.call, needs: self.needs, owner, parameters })
    }
}

impl Invocation<'_> {
    /// Refuses a caller who may not do what the method needs, to `machine` or, without one, on the host as a whole.
    pub(crate) fn permit(&self, machine: Option<Uuid>) -> Result<(), Refused> {
        if self.world.may(self.call, self.needs, machine) {
            return Ok(());
        }
        let user = &self.call.principal.user;
        Err(Refused::new(Reason::AccessDenied, format!("`{user}` may not {} here", self.needs.word()))
            .hint("an administrator grants it: slipway user set"))
    }

    /// The answer for what a job does.
    pub(crate) fn started(&self, job: Uuid) -> Output {
        let path = self.world.path("Msvm_ConcreteJob").with("InstanceID", ids::guid(job));
        Output::new(codes::STARTED).with("Job", Some(path.into()))
    }

    /// A task of the caller's, about machine `subject`.
    pub(crate) fn begin(&self, kind: Kind, subject: Uuid) -> Begin<'_> {
        Begin { kind, subject, owner: &self.call.principal.user, cancel: None }
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
