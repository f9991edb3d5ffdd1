//! Values, references and instances out of a request's elements, by what the schema declares.
//!
//! Clients disagree about how a reference is written: its content under the parameter, an `a:EndpointReference` around it, an
//! embedded instance that has the keys, or a path as text. All four are taken, as is every spelling of a datetime.

use cim::xml::{elements, text};
use cim::{Instance, Name, ObjectPath, Parameter, Schema, Type, Value};
use roxmltree::Node;

use crate::fault::{Code, Fault};
use crate::resource::reference_content;
use crate::time;
use crate::uri;
use crate::xml::child;

/// Reads what belongs to one namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) namespace: &'s str,
    pub(crate) default_namespace: &'s str,
}

impl Decoder<'_> {
    /// The parameters of a method's `…_INPUT` element: types are the declaration's, names are spelled as it spells them.
    pub(crate) fn parameters(
        &self,
        input: Option<Node<'_, '_>>,
        declared: &[Parameter],
    ) -> Result<Vec<(Name, Option<Value>)>, Fault> {
        let mut read: Vec<(Name, Option<Value>)> = Vec::new();
        let Some(input) = input else { return Ok(read) };
        for node in elements(input) {
            let name = node.tag_name().name();
            let parameter = declared
                .iter()
                .find(|parameter| parameter.input && parameter.name == name)
                .ok_or_else(|| {
                    Fault::new(Code::InvalidParameter, format!("the method has no input parameter {name}"))
                        .detail("InvalidName")
                })?;
            if read.iter().any(|(there, _)| *there == parameter.name) {
                if parameter.array {
                    // The first of them collected all.
                    continue;
                }
                return Err(invalid(&parameter.name, "is given twice"));
            }
            let value = self.collected(input, name, &parameter.ty, parameter.array);
            read.push((parameter.name.clone(), value.map_err(|problem| invalid(&parameter.name, &problem))?));
        }
        Ok(read)
    }

    /// An instance as elements, as Put sends it. Properties that the class does not have are refused.
    pub(crate) fn instance(&self, node: Node<'_, '_>, class: &str) -> Result<Instance, String> {
        let class =
            self.schema.class(class).ok_or_else(|| format!("is of the class {class}, which there is not"))?;
        let mut instance = Instance::new(class.name.clone());
        for element in elements(node) {
            let name = element.tag_name().name();
            let property = class
                .property(name)
                .ok_or_else(|| format!("has a property {name}, which {} has not", class.name))?;
            if instance.property(name).is_none() {
                let value = self
                    .collected(node, name, &property.ty, property.array)
                    .map_err(|problem| format!("has a property {name} that {problem}"))?;
                instance.properties.push((property.name.clone(), value));
            }
        }
        Ok(instance)
    }

    /// The value that all elements of a name inside `parent` make.
    pub(crate) fn collected(
        &self,
        parent: Node<'_, '_>,
        name: &str,
        ty: &Type,
        array: bool,
    ) -> Result<Option<Value>, String> {
        let mut nodes = parent
            .children()
            .filter(|node| node.is_element() && node.tag_name().name().eq_ignore_ascii_case(name));
        if !array {
            return match (nodes.next(), nodes.next()) {
                (None, _) => Ok(None),
                (Some(node), None) => self.value(node, ty),
                _ => Err("is there more than once, and is no array".to_owned()),
            };
        }
        let mut values = Vec::new();
        for node in nodes {
            values.extend(self.value(node, ty)?);
        }
        Ok((!values.is_empty()).then_some(Value::Array(values)))
    }

    /// The value of one element, or of one of an array.
    pub(crate) fn value(&self, node: Node<'_, '_>, ty: &Type) -> Result<Option<Value>, String> {
        if nil(node) {
            return Ok(None);
        }
        let has_elements = elements(node).next().is_some();
        Ok(Some(match ty {
            Type::Reference(class) => match self.reference(node, class)? {
                Some(path) => path.into(),
                None => return Ok(None),
            },
            // An instance as text is the text; sent as elements it is the instance.
            Type::String if has_elements => self.embedded(node, None)?.into(),
            Type::String => Value::String(text(node)),
            Type::Object(class) if has_elements => self.embedded(node, class.as_ref())?.into(),
            Type::Object(_) => Value::String(text(node)),
            Type::Datetime => {
                let inner = elements(node).next().unwrap_or(node);
                let text = text(inner);
                Value::Datetime(
                    time::datetime(&text).ok_or_else(|| format!("is no datetime: {}", shown(&text)))?,
                )
            }
            _ if has_elements => return Err(format!("is no {}, but has elements inside", ty.keyword())),
            Type::Real32 | Type::Real64 if matches!(text(node).trim(), "INF" | "-INF") => {
                let sign = if text(node).trim().starts_with('-') { "-inf" } else { "inf" };
                Value::parse(ty, sign).map_err(|e| e.to_string())?
            }
            simple => {
                let text = text(node);
                // An empty number is what some write for none.
                if text.trim().is_empty() && *simple != Type::Char16 {
                    return Ok(None);
                }
                Value::parse(simple, &text).map_err(|e| e.to_string())?
            }
        }))
    }

    /// A reference in any of its shapes.
    fn reference(&self, node: Node<'_, '_>, class: &Name) -> Result<Option<ObjectPath>, String> {
        let path = if child(node, uri::ADDRESSING, "ReferenceParameters").is_some() {
            self.content(node)?
        } else if let Some(reference) = child(node, uri::ADDRESSING, "EndpointReference") {
            self.content(reference)?
        } else if elements(node).next().is_some() {
            let instance = self.embedded(node, Some(class))?;
            match self.schema.class(instance.class.as_str()) {
                Some(class) => ObjectPath::of(&instance, class),
                None => return Err(format!("refers to the class {}, which there is not", instance.class)),
            }
        } else {
            let text = text(node);
            if text.trim().is_empty() {
                return Ok(None);
            }
            text.trim().parse().map_err(|e| format!("is no reference: {e}"))?
        };
        self.resolved(&path).map(Some)
    }

    fn content(&self, node: Node<'_, '_>) -> Result<ObjectPath, String> {
        reference_content(node, 0, self.default_namespace)
            .map_err(|fault| format!("is no reference: {}", fault.reason()))
    }

    /// A path with keys of the schema's types. One into another namespace is left as it is.
    pub(crate) fn resolved(&self, path: &ObjectPath) -> Result<ObjectPath, String> {
        let elsewhere = path.namespace.as_ref().is_some_and(|other| !same_namespace(other, self.namespace));
        if elsewhere {
            return Ok(path.clone());
        }
        path.resolved(self.schema).map_err(|e| format!("is no reference: {e}"))
    }

    /// An instance inside a value: its class is told by `xsi:type`, by its namespace, or by the declaration.
    fn embedded(&self, node: Node<'_, '_>, declared: Option<&Name>) -> Result<Instance, String> {
        // `type` is looked for in any namespace: a client binds the wrong one.
        let typed = node.attributes().find(|attribute| attribute.name() == "type").map(|attribute| {
            let name = attribute.value().rsplit(':').next().unwrap_or_default();
            name.strip_suffix("_Type").unwrap_or(name)
        });
        let inner: Vec<_> = elements(node).collect();
        // One element that is a class holds the instance.
        if typed.is_none()
            && let [only] = inner.as_slice()
            && self.schema.class(only.tag_name().name()).is_some()
        {
            return self.instance(*only, only.tag_name().name());
        }
        let spaced = || inner.first()?.tag_name().namespace()?.rsplit('/').next();
        let class = typed
            .filter(|class| self.schema.class(class).is_some())
            .or_else(|| spaced().filter(|class| self.schema.class(class).is_some()))
            .or(declared.map(Name::as_str))
            .ok_or("is an instance that does not say of which class")?;
        self.instance(node, class)
    }
}

/// True for the same namespace, however it is spelled.
pub(crate) fn same_namespace(one: &str, other: &str) -> bool {
    one.replace('\\', "/").trim_matches('/').eq_ignore_ascii_case(&other.replace('\\', "/"))
}

fn nil(node: Node<'_, '_>) -> bool {
    node.attributes()
        .any(|attribute| attribute.name() == "nil" && matches!(attribute.value().trim(), "true" | "1"))
}

/// A text that is refused, as far as it is shown.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn invalid(name: &Name, problem: &str) -> Fault {
    Fault::new(Code::InvalidParameter, format!("the parameter {name} {problem}")).detail("TypeMismatch")
}
