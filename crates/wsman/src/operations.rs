//! What a protocol asks of whoever has the instances: the operations of DSP0200 and DSP0227 without their spelling.
//!
//! `hyperv` implements [`Operations`]; the protocols of this crate call it. It blocks, so servers call it on threads that
//! may. Who may call at all is decided before (authentication), what a caller may do is decided behind it.

use std::sync::Arc;
use std::time::Instant;

use cim::query::Select;
use cim::{Class, Instance, Name, ObjectPath, Property, Schema, Value};

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

/// Events that wait for whoever subscribed.
pub trait Events: Send {
    /// What happened and was not fetched yet, oldest first, `most` at most. Never waits.
    fn fetch(&mut self, most: usize) -> Fetched;

    /// Has `wake` called whenever there is something to fetch, at once if there is already. It must not block.
    fn wake(&mut self, wake: Box<dyn Fn() + Send + Sync>);
}

/// Events, as they were fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    /// How many were dropped before these, because nobody fetched them in time.
    pub dropped: u64,
    /// Instances of classes of indications, oldest first.
    pub events: Vec<Arc<Instance>>,
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

    /// A word for what calling `method` of `class` does, for the audit log; without a method, for changing an instance.
    fn does(&self, namespace: &str, class: &str, method: Option<&str>) -> &'static str;

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

    /// What happens from now on that `select` means, to what the caller may see. Dropping it ends it.
    ///
    /// # Errors
    /// [`FailureKind::NotSupported`]: the class is none of events that are told of. [`FailureKind::Busy`]: there are too many
    /// subscriptions.
    fn subscribe(&self, _: &Call, namespace: &str, select: Select) -> Result<Box<dyn Events>, Failure> {
        let message = format!("nothing in {namespace} is told of as {}", select.class);
        Err(Failure::new(FailureKind::NotSupported, message))
    }

    /// Makes an instance, and gives its path.
    ///
    /// # Errors
    /// [`FailureKind::NotSupported`] for most classes, whose instances are made by methods.
    fn create(&self, _: &Call, namespace: &str, instance: &Instance) -> Result<ObjectPath, Failure> {
        let message = format!("instances of {} in {namespace} are made by methods", instance.class);
        Err(Failure::new(FailureKind::NotSupported, message))
    }

    /// Removes an instance.
    ///
    /// # Errors
    /// It is not there; [`FailureKind::NotSupported`] for most classes, whose instances are removed by methods.
    fn delete(&self, call: &Call, namespace: &str, path: &ObjectPath) -> Result<(), Failure> {
        let there = self.get(call, namespace, path)?;
        let message = format!("instances of {} in {namespace} are removed by methods", there.class);
        Err(Failure::new(FailureKind::NotSupported, message))
    }
}

/// What of `sent` differs from `current`, as [`Operations::modify`] takes it: a client may send back all that it was given,
/// with what cannot be changed in it.
///
/// # Errors
/// The name of a key that has another value.
pub fn changes(
    current: &Instance,
    class: &Class,
    sent: Vec<(Name, Option<Value>)>,
) -> Result<Instance, Name> {
    let mut changed = Instance::new(current.class.clone());
    changed.path.clone_from(&current.path);
    for (name, value) in sent {
        if same(current.get(name.as_str()), value.as_ref()) {
            continue;
        }
        if class.property(name.as_str()).is_some_and(Property::is_key) {
            return Err(name);
        }
        changed.properties.push((name, value));
    }
    Ok(changed)
}

/// True for values that say the same: references by what they name, and an empty array is none.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let nothing = |value: Option<&Value>| value.is_none_or(|value| value.elements().is_empty());
    let bare = |path: &ObjectPath| {
        let keys = path.keys.iter().map(|(key, value)| (key.clone(), value.to_string().to_ascii_lowercase()));
        (path.class.clone(), keys.collect::<Vec<(Name, String)>>())
    };
    match (one, other) {
        (Some(Value::Reference(one)), Some(Value::Reference(other))) => bare(one) == bare(other),
        (one, other) => one == other || nothing(one) && nothing(other),
    }
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

impl FailureKind {
    /// The CIM status code (DSP0200, 5.2).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::TimedOut | Self::Failed => 1,
            Self::AccessDenied => 2,
            Self::NoSuchNamespace => 3,
            Self::Ambiguous | Self::InvalidKeys | Self::InvalidParameter(_) => 4,
            Self::NoSuchClass => 5,
            Self::NotFound => 6,
            Self::NotSupported => 7,
            Self::MethodNotFound => 17,
            Self::Busy => 27,
        }
    }
}
