//! Parameters of the operations of CIM itself (`IPARAMVALUE`): by name, each once, each of its type.

use cim::xml::{Reader, elements, text};
use cim::{Instance, Name, ObjectPath, Schema, Type, Value};
use roxmltree::Node;

use crate::error::{CimError, Status};
use crate::limits::MAX_PROPERTIES;

/// The parameters of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters<'p> {
    given: &'p [(Name, Node<'p, 'p>)],
    schema: &'p Schema,
    used: &'static [&'static str],
}

impl<'p> Parameters<'p> {
    /// Those `given`, of which an operation knows `known`.
    pub(crate) fn new(
        given: &'p [(Name, Node<'p, 'p>)],
        schema: &'p Schema,
        known: &[&str],
    ) -> Result<Self, CimError> {
        for (place, (name, _)) in given.iter().enumerate() {
            if !known.iter().any(|known| name == known) {
                return Err(CimError::parameter(format!("the operation has no parameter {name}")));
            }
            if given[..place].iter().any(|(before, _)| before == name) {
                return Err(CimError::parameter(format!("the parameter {name} is given twice")));
            }
        }
        Ok(Self { given, schema, used: &[] })
    }

    /// The same without some that the operation has used.
    pub(crate) fn without(&self, used: &'static [&'static str]) -> Self {
        Self { used, ..*self }
    }

    fn node(&self, name: &str) -> Option<Node<'p, 'p>> {
        let found = self.given.iter().find(|(given, _)| *given == name && !self.used.contains(&name));
        found.map(|(_, node)| *node)
    }

    /// The element inside a parameter; none where it is not given, or null.
    fn inside(&self, name: &str) -> Option<Node<'p, 'p>> {
        self.node(name).and_then(|node| elements(node).next())
    }

    fn value(&self, name: &str, ty: &Type) -> Result<Option<Value>, CimError> {
        let Some(node) = self.node(name) else { return Ok(None) };
        Reader::new(self.schema).value_in(node, name, ty, false).map_err(|e| wrong(name, e.problem))
    }

    pub(crate) fn boolean(&self, name: &str, absent: bool) -> Result<bool, CimError> {
        Ok(self.value(name, &Type::Boolean)?.and_then(|value| value.as_bool()).unwrap_or(absent))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u32>, CimError> {
        let value = self.value(name, &Type::Uint32)?;
        Ok(value.and_then(|value| value.as_u64()).and_then(|number| number.try_into().ok()))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, CimError> {
        Ok(self.inside(name).map(text))
    }

    pub(crate) fn required_text(&self, name: &str) -> Result<String, CimError> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// A class by its name, as `CLASSNAME` or as text.
    pub(crate) fn class_name(&self, name: &str) -> Result<Option<Name>, CimError> {
        let Some(node) = self.inside(name) else { return Ok(None) };
        match node.tag_name().name() {
            "CLASSNAME" => {
                let class = node.attribute("NAME").ok_or_else(|| wrong(name, "has no NAME"))?;
                Ok(Some(class.into()))
            }
            "VALUE" => Ok(Some(text(node).trim().into())),
            other => Err(wrong(name, format!("is a {other}, and no CLASSNAME"))),
        }
    }

    pub(crate) fn required_class(&self, name: &str) -> Result<Name, CimError> {
        self.class_name(name)?.ok_or_else(|| missing(name))
    }

    /// A property list: none for all properties.
    pub(crate) fn properties(&self, name: &str) -> Result<Option<Vec<Name>>, CimError> {
        let Some(node) = self.inside(name) else { return Ok(None) };
        let mut names = Vec::new();
        let values = if node.tag_name().name() == "VALUE" { vec![node] } else { elements(node).collect() };
        for value in values {
            if names.len() >= MAX_PROPERTIES {
                return Err(wrong(name, format!("has more than {MAX_PROPERTIES} properties")));
            }
            names.push(text(value).trim().into());
        }
        Ok(Some(names))
    }

    /// The path of an instance, or of a class, which has no keys then.
    pub(crate) fn object(&self, name: &str) -> Result<(ObjectPath, bool), CimError> {
        let node = self.inside(name).ok_or_else(|| missing(name))?;
        let class = node.tag_name().name() == "CLASSNAME";
        let path = Reader::new(self.schema).path(node).map_err(|e| wrong(name, e.problem))?;
        Ok((path, class))
    }

    /// The path of an instance.
    pub(crate) fn instance_name(&self, name: &str) -> Result<ObjectPath, CimError> {
        match self.object(name)? {
            (path, false) => Ok(path),
            _ => Err(wrong(name, "is a class, and no instance")),
        }
    }

    /// An instance, with the path around it where there is one.
    pub(crate) fn instance(&self, name: &str) -> Result<Instance, CimError> {
        let node = self.inside(name).ok_or_else(|| missing(name))?;
        let declared = node.descendants().find(|inside| inside.tag_name().name() == "INSTANCE");
        let class = declared.and_then(|instance| instance.attribute("CLASSNAME")).unwrap_or_default();
        if self.schema.class(class).is_none() {
            return Err(CimError::new(Status::InvalidClass, format!("there is no class `{class}`")));
        }
        Reader::new(self.schema).instance(node).map_err(|e| wrong(name, e.problem))
    }

    /// The value of a property that a parameter carries.
    pub(crate) fn value_of(&self, name: &str, ty: &Type, array: bool) -> Result<Option<Value>, CimError> {
        let Some(node) = self.node(name) else { return Ok(None) };
        let value = Reader::new(self.schema).value_in(node, name, ty, array);
        value.map_err(|e| CimError::new(Status::TypeMismatch, format!("the parameter {name}: {}", e.problem)))
    }
}

fn wrong(name: &str, problem: impl std::fmt::Display) -> CimError {
    CimError::parameter(format!("the parameter {name}: {problem}"))
}

fn missing(name: &str) -> CimError {
    CimError::parameter(format!("the parameter {name} is missing"))
}
