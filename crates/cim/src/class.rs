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

/// The declaration of a qualifier.
#[derive(Clone, Debug, PartialEq)]
pub struct QualifierType {
    /// Its name.
    pub name: Name,
    /// The type of its value, or of the elements.
    pub ty: Type,
    /// Whether the value is an array.
    pub array: bool,
    /// What it is where it does not stand.
    pub default: Option<Value>,
    /// What it may stand at, in lower case: `class`, `property`, `any`…
    pub scopes: Vec<String>,
    /// Whether subclasses inherit it.
    pub inherited: bool,
    /// Whether they may change it.
    pub overridable: bool,
    /// Whether the value is one for people of a language.
    pub translatable: bool,
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

/// The class of the instance that a value carries.
fn embedded(qualifiers: &[Qualifier]) -> Option<&str> {
    match find(qualifiers, "EmbeddedInstance") {
        Some(class) => class.as_str(),
        None => find(qualifiers, "EmbeddedObject").filter(|is| is.as_bool() == Some(true)).map(|_| ""),
    }
}

fn octets(qualifiers: &[Qualifier]) -> bool {
    find(qualifiers, "OctetString").and_then(Value::as_bool) == Some(true)
}

/// What the qualifiers `ValueMap` and `Values` call a value (DSP0004, 5.6.3.60): the entry that is the value, else the
/// range that holds it (`7..4095`, `..9`, `32768..`), else the entry for all others (`..`).
fn meaning<'q>(qualifiers: &'q [Qualifier], value: &Value) -> Option<&'q str> {
    let (map, names) = (find(qualifiers, "ValueMap")?.elements(), find(qualifiers, "Values")?.elements());
    let pairs = || map.iter().zip(names).filter_map(|(entry, name)| Some((entry.as_str()?, name.as_str()?)));
    let Some(number) = value.as_integer() else {
        let text = value.as_str()?;
        return pairs().find(|(entry, _)| *entry == text).map(|(_, name)| name);
    };
    let bound = |bound: &str, open| if bound.is_empty() { Some(open) } else { bound.parse::<i128>().ok() };
    let holds = |entry: &str| {
        let Some((low, high)) = entry.split_once("..") else { return false };
        entry != ".."
            && bound(low, i128::MIN).is_some_and(|low| low <= number)
            && bound(high, i128::MAX).is_some_and(|high| number <= high)
    };
    pairs()
        .find(|(entry, _)| entry.parse() == Ok(number))
        .or_else(|| pairs().find(|(entry, _)| holds(entry)))
        .or_else(|| pairs().find(|(entry, _)| *entry == ".."))
        .map(|(_, name)| name)
}

impl Property {
    /// The value of a qualifier.
    #[must_use]
    pub fn qualifier(&self, name: &str) -> Option<&Value> {
        find(&self.qualifiers, name)
    }

    /// The class of the instance that the value carries, as [`Parameter::embedded`] says it.
    #[must_use]
    pub fn embedded(&self) -> Option<&str> {
        embedded(&self.qualifiers)
    }

    /// True for bytes that belong together (`OctetString`), and not numbers that happen to be small.
    #[must_use]
    pub fn is_octets(&self) -> bool {
        octets(&self.qualifiers)
    }

    /// What a value means by the declaration's value map.
    #[must_use]
    pub fn meaning(&self, value: &Value) -> Option<&str> {
        meaning(&self.qualifiers, value)
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

    /// The class of the instance that the value carries; empty where the declaration does not say which; none where it
    /// carries none. With [`Type::String`] the instance is a text, with [`Type::Object`] it is there as such.
    #[must_use]
    pub fn embedded(&self) -> Option<&str> {
        embedded(&self.qualifiers)
    }

    /// True for bytes that belong together, as [`Property::is_octets`] says it.
    #[must_use]
    pub fn is_octets(&self) -> bool {
        octets(&self.qualifiers)
    }

    /// What a value means by the declaration's value map.
    #[must_use]
    pub fn meaning(&self, value: &Value) -> Option<&str> {
        meaning(&self.qualifiers, value)
    }
}

impl Method {
    /// What a return value means by the declaration's value map.
    #[must_use]
    pub fn meaning(&self, value: &Value) -> Option<&str> {
        meaning(&self.qualifiers, value)
    }

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

    /// The same by name, which is how WMI orders them in paths.
    pub(crate) fn keys_by_name(&self) -> Vec<&Property> {
        let mut keys: Vec<_> = self.keys().collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        keys
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
    qualifiers: Vec<QualifierType>,
}

impl Schema {
    /// A schema of `classes`, each after its superclass, each with what it inherits.
    ///
    /// # Errors
    /// A class is there twice, or comes before its superclass.
    pub fn new(classes: Vec<Class>) -> Result<Self, SchemaError> {
        Self::with_qualifiers(classes, Vec::new())
    }

    /// The same with the qualifiers that they use.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_qualifiers(classes: Vec<Class>, qualifiers: Vec<QualifierType>) -> Result<Self, SchemaError> {
        let mut inner = Inner { qualifiers, ..Inner::default() };
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

    /// The declarations of qualifiers, by name.
    #[must_use]
    pub fn qualifiers(&self) -> &[QualifierType] {
        &self.inner.qualifiers
    }

    /// The declaration of a qualifier.
    #[must_use]
    pub fn qualifier(&self, name: &str) -> Option<&QualifierType> {
        self.inner.qualifiers.iter().find(|qualifier| qualifier.name == name)
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

    /// Whether every class is here that another one names, as the target of a reference or as what a value carries.
    pub(crate) fn check_references(&self) -> Result<(), SchemaError> {
        for class in self.classes() {
            let properties = class.properties.iter().map(|one| (&one.name, &one.ty, one.embedded()));
            let parameters = class.methods.iter().flat_map(|method| &method.parameters);
            let parameters = parameters.map(|one| (&one.name, &one.ty, one.embedded()));
            for (member, ty, embedded) in properties.chain(parameters) {
                let named = match ty {
                    Type::Reference(named) => Some(named.as_str()),
                    _ => embedded,
                };
                if let Some(missing) = named.filter(|named| !named.is_empty() && self.class(named).is_none())
                {
                    return Err(SchemaError::Missing {
                        class: class.name.clone(),
                        member: member.clone(),
                        missing: missing.into(),
                    });
                }
            }
        }
        Ok(())
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
    /// A class that another one names, and that is not there.
    #[error("{class}.{member} refers to class {missing}, which is not declared")]
    Missing {
        /// The class that names it.
        class: Name,
        /// Its property or parameter.
        member: Name,
        /// The class that is not there.
        missing: Name,
    },
}

#[cfg(test)]
mod tests {
    use super::{Qualifier, meaning};
    use crate::Value;

    #[test]
    fn a_value_means_its_entry_or_its_range_or_what_is_left() {
        let list = |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::from(*text)).collect());
        let map = [
            Qualifier {
                name: "ValueMap".into(),
                value: list(&["..", "7..4095", "9", "32768..", "..-1", "on"]),
            },
            Qualifier {
                name: "Values".into(),
                value: list(&["Rest", "Reserved", "Nine", "Vendor", "Below", "On"]),
            },
        ];
        for (value, expected) in [
            (Value::Uint16(9), Some("Nine")),
            (Value::Uint16(7), Some("Reserved")),
            (Value::Uint32(4095), Some("Reserved")),
            (Value::Uint32(4096), Some("Rest")),
            (Value::Uint64(u64::MAX), Some("Vendor")),
            (Value::Sint8(-5), Some("Below")),
            (Value::from("on"), Some("On")),
            (Value::from("off"), None),
            (Value::Boolean(true), None),
        ] {
            assert_eq!(meaning(&map, &value), expected, "{value}");
        }
        assert_eq!(meaning(&map[..1], &Value::Uint16(9)), None);
    }
}
