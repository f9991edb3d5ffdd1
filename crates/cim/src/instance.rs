//! An instance of a class: its properties, and what a client may have left out of them.

use crate::{Name, ObjectPath, Value};

/// An instance, or a part of one: a client that asks for few properties gets few, and one that sends an instance to
/// change something sends what it likes.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The most derived class.
    pub class: Name,
    /// Where it is; none for one inside a value, which is nowhere.
    pub path: Option<ObjectPath>,
    /// The properties in the order of the class or of the text they came in. `None` is null.
    pub properties: Vec<(Name, Option<Value>)>,
}

impl Instance {
    /// One of `class` without properties.
    #[must_use]
    pub fn new(class: impl Into<Name>) -> Self {
        Self { class: class.into(), path: None, properties: Vec::new() }
    }

    /// With a property set. Setting it again replaces it.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.set(name, Some(value.into()));
        self
    }

    /// Sets a property, where it stands or at the end.
    pub fn set(&mut self, name: impl Into<Name>, value: Option<Value>) {
        let name = name.into();
        match self.properties.iter_mut().find(|(there, _)| *there == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name, value)),
        }
    }

    /// A property that is there and not null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.property(name).flatten()
    }

    /// A property: the outer `None` when the instance does not have it, the inner one when it is null.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<Option<&Value>> {
        self.properties.iter().find(|(there, _)| *there == name).map(|(_, value)| value.as_ref())
    }

    /// The text of a property that is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}
