//! What a protocol asks of whoever has the instances: the operations of DSP0200 and DSP0227 without their spelling.
//!
//! `hyperv` implements [`Operations`]; the protocols of this crate call it. It blocks, so servers call it on threads that
//! may. Who may call at all is decided before (authentication), what a caller may do is decided behind it.

use std::time::Instant;

use cim::{Instance, Name, ObjectPath, Schema, Value};

/// Who asks, as the authenticator found out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The user's name, as it is in the list of users.
    pub user: String,
    /// Where the request came from, for the audit log: an address, or the name of a socket.
    pub from: String,
}

/// One request's circumstances.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub principal: Principal,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Instances as they are made: a listing of ten thousand is never whole in memory.
pub type Instances = Box<dyn Iterator<Item = Result<Instance, Failure>> + Send>;

/// Which associations to walk from an instance (DSP0200, 5.3.2.14 and 5.3.2.16). All conditions hold together; `None`
/// sets no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Only over associations of this class or one below it.
    pub association: Option<Name>,
    /// Only to instances of this class or one below it. For references: associations of it.
    pub result: Option<Name>,
    /// Only where the association refers to the instance at hand by this property.
    pub role: Option<Name>,
    /// Only where the association refers to the result by this property. Not for references.
    pub result_role: Option<Name>,
}

/// What a method gave back.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The return value, which for most methods is a code and not a failure of the call.
    pub returned: Value,
    /// Output parameters by name; `None` is null.
    pub parameters: Vec<(Name, Option<Value>)>,
}

impl Output {
    /// A return value without parameters.
    #[must_use]
    pub fn new(returned: impl Into<Value>) -> Self {
        Self { returned: returned.into(), parameters: Vec::new() }
    }

    /// With an output parameter more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, value: Option<Value>) -> Self {
        self.parameters.push((name.into(), value));
        self
    }
}

/// Everything that is served. Namespaces are given with slashes, names in any case; instances come back with all
/// properties of their class, in the schema's spelling, and with their whole path.
pub trait Operations: Send + Sync + 'static {
    /// The classes of a namespace; none when there is no such namespace.
    fn schema(&self, namespace: &str) -> Option<&Schema>;

    /// One instance. Keys may be missing where the others tell it from all others.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`], [`FailureKind::Ambiguous`], and what a call can always meet.
    fn get(&self, call: &Call, namespace: &str, path: &ObjectPath) -> Result<Instance, Failure>;

    /// The instances of a class and of those below it.
    ///
    /// # Errors
    /// What a call can always meet; a class without instances is no error.
    fn instances(&self, call: &Call, namespace: &str, class: &str) -> Result<Instances, Failure>;

    /// The instances that `from` is associated with.
    ///
    /// # Errors
    /// `from` is not found; what a call can always meet.
    fn associators(
        &self,
        call: &Call,
        namespace: &str,
        from: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure>;

    /// The associations that refer to `from`.
    ///
    /// # Errors
    /// As [`Self::associators`].
    fn references(
        &self,
        call: &Call,
        namespace: &str,
        from: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure>;

    /// Calls a method. Parameters have the types of the declaration: a string that carries an instance comes as the text
    /// that the client sent, or as [`Value::Object`] where it sent elements.
    ///
    /// # Errors
    /// [`FailureKind::MethodNotFound`], [`FailureKind::InvalidParameter`], `path` is not found; refusals of the method
    /// itself are return values.
    fn invoke(
        &self,
        call: &Call,
        namespace: &str,
        path: &ObjectPath,
        method: &str,
        parameters: Vec<(Name, Option<Value>)>,
    ) -> Result<Output, Failure>;

    /// Changes the properties that `changed` has, and gives the instance as it is then.
    ///
    /// # Errors
    /// [`FailureKind::NotSupported`] for most classes, whose settings are changed by methods.
    fn modify(
        &self,
        call: &Call,
        namespace: &str,
        path: &ObjectPath,
        changed: &Instance,
    ) -> Result<Instance, Failure>;
}

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong, for the protocol to spell.
    pub kind: FailureKind,
    /// What went wrong, for people: what was meant, why, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of that kind.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What can go wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// There is no such namespace.
    NoSuchNamespace,
    /// There is no such class in it.
    NoSuchClass,
    /// There is no such instance.
    NotFound,
    /// The keys given fit several instances.
    Ambiguous,
    /// The class has no such key, or the value is of another type.
    InvalidKeys,
    /// The class has no such method.
    MethodNotFound,
    /// The parameter of that name is unknown, missing, or has a value of another type.
    InvalidParameter(Name),
    /// The class does not do that.
    NotSupported,
    /// The caller may not do that.
    AccessDenied,
    /// There are too many of something just now.
    Busy,
    /// The deadline passed.
    TimedOut,
    /// Anything else, which is on us.
    Failed,
}
