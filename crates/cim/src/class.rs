//! Classes as they are declared, and a schema of them: inheritance, keys, associations, value maps.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Name, Type, Value};

/// A qualifier of a class, property, method or parameter (DSP0004, 5.6.12), without its flavours.
#[derive(Clone, Debug, PartialEq)]
pub struct Qualifier {
    /// Its name: `Key`, `Description`, `ValueMap`…
    pub name: Name,
    /// Its value; `true` where MOF gives none.
    pub value: Value,
}

/// A property of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: Name,
    /// The type of it, or of its elements.
    pub ty: Type,
    /// Whether it is an array.
    pub array: bool,
    /// What an instance has that says nothing else.
    pub default: Option<Value>,
    /// Its qualifiers, inherited ones included.
    pub qualifiers: Vec<Qualifier>,
    /// The class that introduced or last redefined it.
    pub origin: Name,
}

/// A parameter of a method.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// The type of it, or of its elements.
    pub ty: Type,
    /// Whether it is an array.
    pub array: bool,
    /// Whether a caller gives it.
    pub input: bool,
    /// Whether a caller is given it.
    pub output: bool,
    /// Its qualifiers.
    pub qualifiers: Vec<Qualifier>,
}

/// A method of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub name: Name,
    /// The type of its return value.
    pub returns: Type,
    /// Its parameters in the order of the declaration. Callers bind them by name.
    pub parameters: Vec<Parameter>,
    /// Its qualifiers.
    pub qualifiers: Vec<Qualifier>,
    /// The class that introduced or last redefined it.
    pub origin: Name,
}

/// A class with everything it inherits.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: Name,
    /// The class it derives from.
    pub superclass: Option<Name>,
    /// Its own qualifiers.
    pub qualifiers: Vec<Qualifier>,
    /// All properties: the superclass's in its order, redefined ones in their place, then its own.
    pub properties: Vec<Property>,
    /// All methods, in the same order.
    pub methods: Vec<Method>,
}

/// Looks up a qualifier among those of one declaration.
fn find<'q>(qualifiers: &'q [Qualifier], name: &str) -> Option<&'q Value> {
    qualifiers.iter().find(|qualifier| qualifier.name == name).map(|qualifier| &qualifier.value)
}

impl Property {
    /// The value of a qualifier.
    #[must_use]
    pub fn qualifier(&self, name: &str) -> Option<&Value> {
        find(&self.qualifiers, name)
    }

    /// True for a key of the class.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.qualifier("Key").and_then(Value::as_bool) == Some(true)
    }
}

impl Parameter {
    /// The value of a qualifier.
    #[must_use]
    pub fn qualifier(&self, name: &str) -> Option<&Value> {
        find(&self.qualifiers, name)
    }

    /// The class of the instance that a string carries as text; empty where the declaration does not say which; none
    /// where it carries none.
    #[must_use]
    pub fn embedded(&self) -> Option<&str> {
        self.qualifier("EmbeddedInstance").and_then(Value::as_str)
    }
}

impl Method {
    /// A parameter by name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

impl Class {
    /// The value of a qualifier.
    #[must_use]
    pub fn qualifier(&self, name: &str) -> Option<&Value> {
        find(&self.qualifiers, name)
    }

    /// A property by name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// A method by name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// The properties that tell one instance from another.
    pub fn keys(&self) -> impl Iterator<Item = &Property> {
        self.properties.iter().filter(|property| property.is_key())
    }

    /// True for an association.
    #[must_use]
    pub fn is_association(&self) -> bool {
        self.qualifier("Association").and_then(Value::as_bool) == Some(true)
    }

    /// True when only classes below it have instances.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.qualifier("Abstract").and_then(Value::as_bool) == Some(true)
    }
}

/// The classes of one namespace. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    classes: Vec<Arc<Class>>,
    by_name: HashMap<Name, usize>,
    /// Direct subclasses by the place of their superclass.
    below: Vec<Vec<usize>>,
}

impl Schema {
    /// A schema of `classes`, each after its superclass, each with what it inherits.
    ///
    /// # Errors
    /// A class is there twice, or comes before its superclass.
    pub fn new(classes: Vec<Class>) -> Result<Self, SchemaError> {
        let mut inner = Inner::default();
        for class in classes {
            let place = inner.classes.len();
            if let Some(superclass) = &class.superclass {
                let Some(above) = inner.by_name.get(superclass) else {
                    return Err(SchemaError::Superclass {
                        class: class.name.clone(),
                        superclass: superclass.clone(),
                    });
                };
                inner.below[*above].push(place);
            }
            if inner.by_name.insert(class.name.clone(), place).is_some() {
                return Err(SchemaError::Twice(class.name));
            }
            inner.below.push(Vec::new());
            inner.classes.push(Arc::new(class));
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A class by name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Arc<Class>> {
        self.inner.by_name.get(&Name::from(name)).map(|place| &self.inner.classes[*place])
    }

    /// All classes, superclasses first.
    pub fn classes(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.inner.classes.iter()
    }

    /// True when `class` is `ancestor` or derives from it. False for classes that are not here.
    #[must_use]
    pub fn is_a(&self, class: &str, ancestor: &str) -> bool {
        let mut at = self.class(class);
        while let Some(class) = at {
            if class.name == ancestor {
                return true;
            }
            at = class.superclass.as_ref().and_then(|above| self.class(above.as_str()));
        }
        false
    }

    /// `class` and all classes below it, superclasses first; nothing for one that is not here.
    #[must_use]
    pub fn family(&self, class: &str) -> Vec<&Arc<Class>> {
        let mut places: Vec<usize> =
            self.inner.by_name.get(&Name::from(class)).copied().into_iter().collect();
        let mut next = 0;
        while let Some(place) = places.get(next).copied() {
            places.extend(&self.inner.below[place]);
            next += 1;
        }
        places.into_iter().map(|place| &self.inner.classes[place]).collect()
    }
}

/// Classes that make no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Two classes of one name.
    #[error("class {0} is declared twice")]
    Twice(Name),
    /// A superclass that is not there yet.
    #[error("class {class} derives from {superclass}, which is not declared before it")]
    Superclass {
        /// The class.
        class: Name,
        /// What it derives from.
        superclass: Name,
    },
}
