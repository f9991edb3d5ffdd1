//! Methods: from a class and a name to what it does, and from what the domain says to a return value.
//!
//! A method that the schema declares and that nothing here does answers *not supported* in its own codes.

use std::sync::Arc;

use cim::{Class, Instance, Method as Declared, Name, ObjectPath, Schema, Value};
use machine::Reason;
use uuid::Uuid;
use wsman::{Call, Failure, FailureKind, Output};

use crate::codes::{self, Family};
use crate::ids;
use crate::owner::Owner;
use crate::provider::Namespace;
use crate::world::World;

/// A call of a method, on its way to the domain.
pub(crate) struct Invocation<'c> {
    pub(crate) world: &'c Arc<World>,
    pub(crate) namespace: &'c Arc<Namespace>,
    pub(crate) call: &'c Call,
    /// The instance it was called on.
    #[expect(dead_code, reason = "used by methods of the next change")]
    pub(crate) target: Instance,
    /// What that is part of.
    #[expect(dead_code, reason = "used by methods of the next change")]
    pub(crate) owner: Owner,
    parameters: Vec<(Name, Option<Value>)>,
}

/// Why a method does not do it: a reason that becomes a number, and a sentence for the log.
pub(crate) type Refused = machine::Error;

/// What a method does.
type Does = fn(&Invocation<'_>) -> Result<Output, Refused>;

/// A method that is served.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    does: Does,
}

const fn method(class: &'static str, name: &'static str, does: Does) -> Method {
    Method { class, name, does }
}

const MANAGEMENT: &str = "Msvm_VirtualSystemManagementService";

/// Everything that is served.
pub(crate) const METHODS: &[Method] =
    &[method(MANAGEMENT, "GetSummaryInformation", crate::summary::get_summary_information)];

/// The codes that a declared method answers in, as its value map tells.
pub(crate) fn family(class: &Class, method: &Declared) -> Family {
    let map = method.qualifiers.iter().find(|q| q.name == "ValueMap");
    let has = |code: &str| {
        map.is_some_and(|map| map.value.elements().iter().any(|value| value.as_str() == Some(code)))
    };
    if class.name == "Msvm_ImageManagementService" {
        Family::Image
    } else if method.name == "RequestStateChange" && class.name == "Msvm_ConcreteJob" {
        Family::JobState
    } else if has("32775") || has("32770") || map.is_none() {
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
    let served = METHODS.iter().find(|m| target.class == m.class && declared.name == m.name);
    let done = match served {
        Some(method) => {
            let invocation = Invocation { world, namespace, call, target, owner, parameters };
            (method.does)(&invocation)
        }
        None => Err(Refused::new(
            Reason::NotSupported,
            format!("{}.{} is declared, and nothing here does it yet", class.name, declared.name),
        )),
    };
    Ok(match done {
        Ok(output) => whole(declared, output),
        Err(refused) => {
            tracing::info!(
                user = call.principal.user,
                method = %declared.name,
                reason = refused.reason().id(),
                "{}",
                refused.chain()
            );
            whole(declared, Output::new(codes::code(family, refused.reason())))
        }
    })
}

/// `output` with every output parameter there, in the declared order and spelling.
fn whole(declared: &Declared, mut output: Output) -> Output {
    let parameters = declared.parameters.iter().filter(|p| p.output).map(|p| {
        let at = output.parameters.iter().position(|(name, _)| *name == p.name);
        (p.name.clone(), at.and_then(|at| output.parameters.swap_remove(at).1))
    });
    let parameters = parameters.collect();
    debug_assert!(output.parameters.is_empty(), "{} returns {:?}", declared.name, output.parameters);
    Output { returned: output.returned, parameters }
}

impl Invocation<'_> {
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
