//! Conditions, and whether an instance meets them.
//!
//! A comparison with nothing is neither true nor false, and a negation of it is not true either (DSP0202, 6.4.2).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::{compare, like};
use crate::{Instance, Name, ObjectPath, Schema, Value};

/// What a condition may ask of the surroundings of an instance.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The classes of the namespace.
    pub schema: &'a Schema,
    /// The name of the host (`__SERVER`).
    pub server: &'a str,
    /// The namespace, with slashes of either kind (`__NAMESPACE`).
    pub namespace: &'a str,
}

/// What a `WHERE` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// All of several; there are at least two.
    All(Vec<Condition>),
    /// One of several; there are at least two.
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparison, Operand),
    Like(Operand, String),
    Null(Operand),
    /// What the property refers to or carries is of the class or one below it.
    Isa(Vec<Name>, Name),
}

/// A side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A property, or one of an instance inside it.
    Property(Vec<Name>),
    Value(Value),
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn of(mark: &str) -> Option<Self> {
        Some(match mark {
            "=" => Self::Equal,
            "<>" | "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Condition {
    /// Whether it holds; none where that depends on what is not there.
    pub(super) fn holds(&self, instance: &Instance, place: &Place<'_>) -> Option<bool> {
        match self {
            Self::All(conditions) => {
                let mut unknown = false;
                for condition in conditions {
                    match condition.holds(instance, place) {
                        Some(false) => return Some(false),
                        None => unknown = true,
                        Some(true) => {}
                    }
                }
                (!unknown).then_some(true)
            }
            Self::Any(conditions) => {
                let mut unknown = false;
                for condition in conditions {
                    match condition.holds(instance, place) {
                        Some(true) => return Some(true),
                        None => unknown = true,
                        Some(false) => {}
                    }
                }
                (!unknown).then_some(false)
            }
            Self::Not(condition) => condition.holds(instance, place).map(|holds| !holds),
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.value(instance, place)?, right.value(instance, place)?);
                compare::order(&left, &right, place.schema).map(|order| comparison.holds(order))
            }
            Self::Like(operand, pattern) => {
                let value = operand.value(instance, place)?;
                Some(like::matches(pattern, &value.to_string()))
            }
            Self::Null(operand) => Some(operand.value(instance, place).is_none()),
            Self::Isa(names, class) => {
                let found = match names.as_slice() {
                    [only] if *only == "__THIS" => Some(Cow::Borrowed(&instance.class)),
                    names => match property(names, instance, place)?.as_ref() {
                        Value::Object(inside) => Some(Cow::Owned(inside.class.clone())),
                        Value::Reference(path) => Some(Cow::Owned(path.class.clone())),
                        _ => None,
                    },
                };
                found.map(|found| *found == *class || place.schema.is_a(found.as_str(), class.as_str()))
            }
        }
    }

    /// The properties of the instance itself that it names.
    pub(super) fn properties(&self) -> Vec<&Name> {
        let mut names = Vec::new();
        self.name_properties(&mut names);
        names
    }

    fn name_properties<'c>(&'c self, names: &mut Vec<&'c Name>) {
        let mut add = |operand: &'c Operand| {
            if let Operand::Property(property) = operand {
                names.extend(property.first());
            }
        };
        match self {
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().for_each(|condition| condition.name_properties(names));
            }
            Self::Not(condition) => condition.name_properties(names),
            Self::Compare(left, _, right) => {
                add(left);
                add(right);
            }
            Self::Like(operand, _) | Self::Null(operand) => add(operand),
            Self::Isa(property, _) => names.extend(property.first()),
        }
    }

    /// The class that the instance in a property must be of.
    pub(super) fn required_class(&self, property: &str) -> Option<&Name> {
        match self {
            Self::All(conditions) => {
                conditions.iter().find_map(|condition| condition.required_class(property))
            }
            Self::Isa(names, class) if names.len() == 1 && names[0] == property => Some(class),
            _ => None,
        }
    }

    /// The value that a property must have.
    pub(super) fn required(&self, property: &str) -> Option<&Value> {
        match self {
            Self::All(conditions) => conditions.iter().find_map(|condition| condition.required(property)),
            Self::Compare(left, Comparison::Equal, right) => match (left, right) {
                (Operand::Property(names), Operand::Value(value))
                | (Operand::Value(value), Operand::Property(names))
                    if names.len() == 1 && names[0] == property =>
                {
                    Some(value)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl Operand {
    /// The value; none for null.
    fn value<'v>(&'v self, instance: &'v Instance, place: &Place<'_>) -> Option<Cow<'v, Value>> {
        match self {
            Self::Value(value) => Some(Cow::Borrowed(value)),
            Self::Null => None,
            Self::Property(names) => property(names, instance, place),
        }
    }
}

/// The value of a property of an instance, or of instances inside it.
fn property<'v>(names: &[Name], instance: &'v Instance, place: &Place<'_>) -> Option<Cow<'v, Value>> {
    let (last, inside) = names.split_last()?;
    let mut at = instance;
    for name in inside {
        at = at.get(name.as_str())?.as_instance()?;
    }
    if last.as_str().starts_with("__") {
        return system(last, at, place).map(|text| Cow::Owned(Value::String(text)));
    }
    at.get(last.as_str()).map(Cow::Borrowed)
}

/// The properties that every instance has by being where it is.
fn system(name: &Name, instance: &Instance, place: &Place<'_>) -> Option<String> {
    let path = || match (&instance.path, place.schema.class(instance.class.as_str())) {
        (Some(path), _) => Some(path.clone()),
        (None, class) => class.map(|class| ObjectPath::of(instance, class)),
    };
    match name.as_str().to_ascii_uppercase().as_str() {
        "__CLASS" => Some(instance.class.to_string()),
        "__SERVER" => Some(place.server.to_owned()),
        "__NAMESPACE" => Some(place.namespace.replace('/', r"\")),
        "__PATH" => Some(
            ObjectPath {
                host: Some(place.server.to_owned()),
                namespace: Some(place.namespace.to_owned()),
                ..path()?
            }
            .to_string(),
        ),
        "__RELPATH" => Some(ObjectPath { host: None, namespace: None, ..path()? }.to_string()),
        "__SUPERCLASS" => {
            place.schema.class(instance.class.as_str())?.superclass.as_ref().map(Name::to_string)
        }
        "__GENUS" => Some("2".to_owned()),
        _ => None,
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, conditions: &[Self], join: &str| {
            for (n, condition) in conditions.iter().enumerate() {
                f.write_str(if n == 0 { "" } else { join })?;
                match condition {
                    Self::All(_) | Self::Any(_) => write!(f, "({condition})")?,
                    plain => plain.fmt(f)?,
                }
            }
            Ok(())
        };
        match self {
            Self::All(conditions) => several(f, conditions, " AND "),
            Self::Any(conditions) => several(f, conditions, " OR "),
            Self::Not(condition) => match &**condition {
                Self::All(_) | Self::Any(_) => write!(f, "NOT ({condition})"),
                Self::Null(operand) => write!(f, "{operand} IS NOT NULL"),
                Self::Like(operand, pattern) => {
                    write!(f, "{operand} NOT LIKE {}", Operand::Value(pattern.as_str().into()))
                }
                plain => write!(f, "NOT {plain}"),
            },
            Self::Compare(left, comparison, right) => write!(f, "{left} {} {right}", comparison.mark()),
            Self::Like(operand, pattern) => {
                write!(f, "{operand} LIKE {}", Operand::Value(pattern.as_str().into()))
            }
            Self::Null(operand) => write!(f, "{operand} IS NULL"),
            Self::Isa(names, class) => write!(f, "{} ISA {class}", Operand::Property(names.clone())),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Property(names) => {
                for (n, name) in names.iter().enumerate() {
                    write!(f, "{}{name}", if n == 0 { "" } else { "." })?;
                }
                Ok(())
            }
            Self::Value(Value::String(text)) => {
                write!(f, "'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
            }
            // With a point even where there is nothing behind it, as the other numbers have none.
            Self::Value(Value::Real64(number)) => write!(f, "{number:?}"),
            Self::Value(value) => value.fmt(f),
            Self::Null => f.write_str("NULL"),
        }
    }
}
