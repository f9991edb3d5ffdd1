//! Queries: the WQL of WMI as its clients send it, and of CQL (DSP0202) what is the same.
//!
//! `SELECT … FROM class WHERE …` is a [`Select`], which says of an instance whether it is meant; `ASSOCIATORS OF {path}` and
//! `REFERENCES OF {path}` are a [`Related`], which whoever has the instances walks. A query for events is a
//! [`Select`] over their classes that may say how soon (`WITHIN`); queries for classes (`FROM meta_class`) are refused.

mod compare;
mod condition;
mod lex;
mod like;
mod parse;

use std::fmt;
use std::str::FromStr;

pub use condition::Place;

use crate::{Instance, Name, ObjectPath, Schema, SyntaxError, Value};
use condition::Condition;

/// Longest query that is read, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// Most parentheses and `NOT`s inside one another.
pub const MAX_DEPTH: usize = 64;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// For instances of a class.
    Select(Select),
    /// For what an instance is associated with.
    Related(Related),
}

/// `SELECT columns FROM class WHERE condition`.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The class; instances of classes below it are meant too.
    pub class: Name,
    /// The properties asked for; none for all (`*`). Names of the system (`__PATH`) may be among them.
    pub columns: Option<Vec<Name>>,
    /// `WITHIN`: how soon events are wanted, in seconds. Only a query for events has it.
    pub within: Option<f64>,
    condition: Option<Condition>,
}

/// `ASSOCIATORS OF {path} WHERE …` or `REFERENCES OF {path} WHERE …`. All conditions hold together; those that are none
/// demand nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Related {
    /// The instance in the middle, as the text has it: see [`ObjectPath::resolved`].
    pub path: ObjectPath,
    /// True for the associations themselves (`REFERENCES OF`), false for what lies at their other end.
    pub references: bool,
    /// `AssocClass`: only over associations of this class or one below it.
    pub association: Option<Name>,
    /// `ResultClass`: only results of this class or one below it.
    pub result: Option<Name>,
    /// `Role`: only where the association refers to the instance by this property.
    pub role: Option<Name>,
    /// `ResultRole`: only where the association refers to the result by this property.
    pub result_role: Option<Name>,
    /// `RequiredQualifier`: only results whose class has this qualifier.
    pub required_qualifier: Option<Name>,
    /// `RequiredAssocQualifier`: only over associations whose class has this qualifier.
    pub required_association_qualifier: Option<Name>,
    /// `ClassDefsOnly`: the classes of the results, not the results.
    pub classes_only: bool,
    /// `KeysOnly`: of results only their keys.
    pub keys_only: bool,
}

impl Related {
    /// The associators of an instance, or its references, all of them.
    #[must_use]
    pub fn new(path: ObjectPath, references: bool) -> Self {
        Self {
            path,
            references,
            association: None,
            result: None,
            role: None,
            result_role: None,
            required_qualifier: None,
            required_association_qualifier: None,
            classes_only: false,
            keys_only: false,
        }
    }

    /// The conditions that name something, as the text spells them.
    fn named(&self) -> [(&'static str, &Option<Name>); 6] {
        [
            ("AssocClass", &self.association),
            ("ResultClass", &self.result),
            ("Role", &self.role),
            ("ResultRole", &self.result_role),
            ("RequiredQualifier", &self.required_qualifier),
            ("RequiredAssocQualifier", &self.required_association_qualifier),
        ]
    }
}

impl Select {
    /// All instances of a class with all properties.
    #[must_use]
    pub fn all(class: impl Into<Name>) -> Self {
        Self { class: class.into(), columns: None, within: None, condition: None }
    }

    /// Whether the schema has the class and every property that the query names.
    ///
    /// # Errors
    /// It has not; the error says which.
    pub fn check(&self, schema: &Schema) -> Result<(), QueryError> {
        let class = schema.class(self.class.as_str()).ok_or_else(|| QueryError::Class(self.class.clone()))?;
        let columns = self.columns.iter().flatten();
        let named = self.condition.iter().flat_map(Condition::properties);
        for name in columns.chain(named) {
            if !name.as_str().starts_with("__") && class.property(name.as_str()).is_none() {
                return Err(QueryError::Property { class: class.name.clone(), property: name.clone() });
            }
        }
        Ok(())
    }

    /// Whether an instance is meant: it is of the class or one below it, and meets the condition.
    #[must_use]
    pub fn matches(&self, instance: &Instance, place: &Place<'_>) -> bool {
        (instance.class == self.class || place.schema.is_a(instance.class.as_str(), self.class.as_str()))
            && self.condition.as_ref().is_none_or(|condition| condition.holds(instance, place) == Some(true))
    }

    /// The value that a property has in every instance that matches, where the query says so plainly, as
    /// `WHERE InstanceID = 'x' AND …` does. Whoever finds instances by that property need not look at others.
    #[must_use]
    pub fn required(&self, property: &str) -> Option<&Value> {
        self.condition.as_ref()?.required(property)
    }

    /// The class of which, or below which, the instance in a property is in everything that matches, where the query says
    /// so plainly, as `WHERE TargetInstance ISA 'x' AND …` does.
    #[must_use]
    pub fn required_class(&self, property: &str) -> Option<&Name> {
        self.condition.as_ref()?.required_class(property)
    }

    /// The instance with the columns asked for, in the query's order. Those that it does not have are left out.
    #[must_use]
    pub fn projected(&self, mut instance: Instance) -> Instance {
        if let Some(columns) = &self.columns {
            let mut all = std::mem::take(&mut instance.properties);
            for column in columns {
                if let Some(place) = all.iter().position(|(name, _)| name == column) {
                    instance.properties.push(all.swap_remove(place));
                }
            }
        }
        instance
    }
}

impl FromStr for Query {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        parse::query(text).map_err(|fault| fault.within(text))
    }
}

impl fmt::Display for Query {
    /// The query in WQL, spelled out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(select) => select.fmt(f),
            Self::Related(related) => related.fmt(f),
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        match &self.columns {
            None => f.write_str("*")?,
            Some(columns) => {
                for (n, column) in columns.iter().enumerate() {
                    write!(f, "{}{column}", if n == 0 { "" } else { ", " })?;
                }
            }
        }
        write!(f, " FROM {}", self.class)?;
        if let Some(seconds) = self.within {
            write!(f, " WITHIN {seconds}")?;
        }
        match &self.condition {
            None => Ok(()),
            Some(condition) => write!(f, " WHERE {condition}"),
        }
    }
}

impl fmt::Display for Related {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} OF {{{}}}", if self.references { "REFERENCES" } else { "ASSOCIATORS" }, self.path)?;
        let mut join = " WHERE ";
        for (keyword, name) in self.named() {
            if let Some(name) = name {
                write!(f, "{join}{keyword}={name}")?;
                join = " ";
            }
        }
        for (keyword, set) in [("ClassDefsOnly", self.classes_only), ("KeysOnly", self.keys_only)] {
            if set {
                write!(f, "{join}{keyword}")?;
                join = " ";
            }
        }
        Ok(())
    }
}

/// A query that a schema does not bear out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No such class.
    #[error("there is no class {0}")]
    Class(Name),
    /// The class has no such property.
    #[error("{class} has no property {property}")]
    Property {
        /// The class of the query.
        class: Name,
        /// The name that is no property.
        property: Name,
    },
}

#[cfg(test)]
mod tests;
