//! Reading the elements that carry instances, paths and values.

use roxmltree::Node;

use super::{elements, text};
use crate::embedded::{MAX_DEPTH, nested};
use crate::syntax::{Fault, shown};
use crate::{Instance, Name, ObjectPath, Schema, SyntaxError, Type, Value};

/// Reads elements by what a schema declares: half of the clients leave types out or have them wrong.
///
/// Unknown attributes and qualifiers are ignored, unknown classes and properties are errors.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'s> {
    schema: &'s Schema,
}

fn fault(node: Node<'_, '_>, problem: impl Into<String>) -> Fault {
    Fault::new(node.range().start, problem)
}

fn child<'a, 'i>(node: Node<'a, 'i>, names: &[&str]) -> Option<Node<'a, 'i>> {
    elements(node).find(|child| names.contains(&child.tag_name().name()))
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, Fault> {
    node.attribute(name).ok_or_else(|| fault(node, format!("{} has no {name}", node.tag_name().name())))
}

/// The error for a caller who has the node and no longer the text.
fn placed(node: Node<'_, '_>) -> impl Fn(Fault) -> SyntaxError {
    let text = node.document().input_text();
    move |fault| fault.within(text)
}

impl<'s> Reader<'s> {
    /// One that reads what `schema` declares.
    #[must_use]
    pub fn new(schema: &'s Schema) -> Self {
        Self { schema }
    }

    /// The instance in an `INSTANCE` or in a wrapper of one (`VALUE.NAMEDINSTANCE`, `VALUE.OBJECT`…), with the path that
    /// the wrapper has.
    ///
    /// # Errors
    /// The element is another one, or does not fit the schema.
    pub fn instance(&self, node: Node<'_, '_>) -> Result<Instance, SyntaxError> {
        self.wrapped(node, 0).map_err(placed(node))
    }

    /// The path in an `INSTANCENAME`, `CLASSNAME`, or in one of those with their namespace. Keys have the types of the
    /// schema where it has the class.
    ///
    /// # Errors
    /// The element is another one, or has keys of no type.
    pub fn path(&self, node: Node<'_, '_>) -> Result<ObjectPath, SyntaxError> {
        self.located(node, 0).map_err(placed(node))
    }

    /// The value of type `ty` that the elements inside `node` make, as inside a `PROPERTY`, `PARAMVALUE` or
    /// `IPARAMVALUE`; none for null. `what` names it in errors.
    ///
    /// # Errors
    /// It is of another type, or several where one is asked for.
    pub fn value_in(
        &self,
        node: Node<'_, '_>,
        what: &str,
        ty: &Type,
        array: bool,
    ) -> Result<Option<Value>, SyntaxError> {
        self.values(node, what, ty, array, 0).map_err(placed(node))
    }

    /// The instance in an element, which may be a wrapper of one.
    pub(crate) fn wrapped(&self, mut node: Node<'_, '_>, depth: usize) -> Result<Instance, Fault> {
        let mut path = None;
        loop {
            match node.tag_name().name() {
                "INSTANCE" => {
                    let mut instance = self.declared(node, depth)?;
                    instance.path = path.or(instance.path);
                    return Ok(instance);
                }
                "CIM"
                | "DECLARATION"
                | "DECLGROUP"
                | "DECLGROUP.WITHNAME"
                | "DECLGROUP.WITHPATH"
                | "VALUE.OBJECT"
                | "VALUE.OBJECTWITHPATH"
                | "VALUE.OBJECTWITHLOCALPATH"
                | "VALUE.NAMEDOBJECT"
                | "VALUE.NAMEDINSTANCE"
                | "VALUE.INSTANCEWITHPATH" => {
                    if let Some(located) = elements(node).find(|child| is_path(*child)) {
                        path = Some(self.located(located, depth)?);
                    }
                    let mut inside = elements(node).filter(|child| !is_path(*child));
                    let next = inside.next();
                    node = next.ok_or_else(|| fault(node, "there is no INSTANCE in it"))?;
                    if let Some(more) = inside.next() {
                        return Err(fault(more, "one instance is expected, not several"));
                    }
                }
                other => return Err(fault(node, format!("expected INSTANCE, found `{}`", shown(other)))),
            }
        }
    }

    fn declared(&self, node: Node<'_, '_>, depth: usize) -> Result<Instance, Fault> {
        if depth > MAX_DEPTH {
            return Err(fault(node, format!("instances are nested more than {MAX_DEPTH} deep")));
        }
        let class = attribute(node, "CLASSNAME")?;
        let class = self
            .schema
            .class(class)
            .ok_or_else(|| fault(node, format!("there is no class {}", shown(class))))?;
        let mut instance = Instance::new(class.name.clone());
        for member in elements(node) {
            if !member.tag_name().name().starts_with("PROPERTY") {
                continue;
            }
            let name = attribute(member, "NAME")?;
            if name.starts_with("__") {
                // What WMI knows of an instance besides its properties: it says where it comes from.
                if name.eq_ignore_ascii_case("__PATH") {
                    instance.path = child(member, &["VALUE"]).and_then(|value| text(value).parse().ok());
                }
                continue;
            }
            let Some(property) = class.property(name) else {
                return Err(fault(member, format!("{} has no property {}", class.name, shown(name))));
            };
            if instance.property(name).is_some() {
                return Err(fault(member, format!("{} is set twice", property.name)));
            }
            let what = format!("{}.{}", class.name, property.name);
            let value = self.values(member, &what, &property.ty, property.array, depth)?;
            instance.properties.push((property.name.clone(), value));
        }
        Ok(instance)
    }

    fn values(
        &self,
        member: Node<'_, '_>,
        what: &str,
        ty: &Type,
        array: bool,
        depth: usize,
    ) -> Result<Option<Value>, Fault> {
        let mut values = Vec::new();
        let mut given = false;
        for value in elements(member) {
            match value.tag_name().name() {
                "VALUE.ARRAY" | "VALUE.REFARRAY" | "VALUE.OBJECTARRAY" => {
                    given = true;
                    for element in elements(value) {
                        values.extend(self.value(element, ty, depth)?);
                    }
                }
                // A class as a parameter or a value.
                "CLASSNAME" | "INSTANCENAME" if matches!(ty, Type::Reference(_)) => {
                    given = true;
                    values.push(self.located(value, depth)?.into());
                }
                name if name.starts_with("VALUE") => {
                    given = true;
                    values.extend(self.value(value, ty, depth)?);
                }
                // Qualifiers say nothing that the class does not.
                _ => {}
            }
        }
        match (array, values.len()) {
            (true, _) => Ok(given.then_some(Value::Array(values))),
            (false, 0 | 1) => Ok(values.pop()),
            (false, found) => Err(fault(member, format!("{what} has one value, not {found}"))),
        }
    }

    /// The value of one element; none for null.
    fn value(&self, node: Node<'_, '_>, ty: &Type, depth: usize) -> Result<Option<Value>, Fault> {
        if node.tag_name().name() == "VALUE.NULL" {
            return Ok(None);
        }
        match ty {
            Type::Reference(_) => self.reference(node, depth),
            Type::Object(_) | Type::String if elements(node).next().is_some() => {
                // An instance as such; a VALUE around it that is not escaped is taken for one.
                let inside = match node.tag_name().name() {
                    "VALUE" => elements(node).next().unwrap_or(node),
                    _ => node,
                };
                self.wrapped(inside, depth + 1).map(|instance| Some(instance.into()))
            }
            Type::Object(_) => {
                let inner = text(node);
                if inner.trim().is_empty() {
                    return Ok(None);
                }
                let instance = nested(&inner, self.schema, depth + 1)
                    .map_err(|error| fault(node, format!("the instance inside is wrong: {error}")))?;
                Ok(Some(instance.into()))
            }
            Type::String => Ok(Some(Value::String(text(node)))),
            simple => {
                let spelled = text(node);
                if spelled.trim().is_empty() {
                    return Ok(None);
                }
                let value = Value::parse(simple, &spelled);
                value.map(Some).map_err(|error| fault(node, error.to_string()))
            }
        }
    }

    fn reference(&self, node: Node<'_, '_>, depth: usize) -> Result<Option<Value>, Fault> {
        if let Some(located) = elements(node).find(|child| is_path(*child)) {
            return self.located(located, depth).map(|path| Some(path.into()));
        }
        let spelled = text(node);
        if spelled.trim().is_empty() {
            return Ok(None);
        }
        let path: ObjectPath = spelled
            .parse()
            .map_err(|error: SyntaxError| fault(node, format!("the path is wrong: {}", error.problem)))?;
        Ok(Some(self.typed(path).into()))
    }

    /// A path with the types of the class's keys, where the class is of this namespace.
    fn typed(&self, path: ObjectPath) -> ObjectPath {
        path.resolved(self.schema).unwrap_or(path)
    }

    fn located(&self, node: Node<'_, '_>, depth: usize) -> Result<ObjectPath, Fault> {
        if depth > MAX_DEPTH {
            return Err(fault(node, format!("paths are nested more than {MAX_DEPTH} deep")));
        }
        let named = match node.tag_name().name() {
            "INSTANCENAME" | "CLASSNAME" => node,
            _ => child(node, &["INSTANCENAME", "CLASSNAME"])
                .ok_or_else(|| fault(node, "there is no INSTANCENAME in it"))?,
        };
        let mut path = if named.tag_name().name() == "CLASSNAME" {
            ObjectPath::new(attribute(named, "NAME")?)
        } else {
            self.keys(named, depth)?
        };
        let space = child(node, &["NAMESPACEPATH"]).unwrap_or(node);
        path.host = child(space, &["HOST"]).map(text).filter(|host| !host.is_empty());
        if let Some(local) = child(space, &["LOCALNAMESPACEPATH"]) {
            let parts: Result<Vec<&str>, Fault> =
                elements(local).map(|part| attribute(part, "NAME")).collect();
            path.namespace = Some(parts?.join("/"));
        }
        Ok(self.typed(path))
    }

    fn keys(&self, node: Node<'_, '_>, depth: usize) -> Result<ObjectPath, Fault> {
        let mut path = ObjectPath::new(attribute(node, "CLASSNAME")?);
        for binding in elements(node) {
            if path.keys.len() >= ObjectPath::MAX_KEYS {
                return Err(fault(binding, format!("a path has at most {} keys", ObjectPath::MAX_KEYS)));
            }
            let (name, value) = match binding.tag_name().name() {
                "KEYBINDING" => {
                    let value = elements(binding).next();
                    (attribute(binding, "NAME")?, value.ok_or_else(|| fault(binding, "a key has no value"))?)
                }
                _ => ("", binding),
            };
            let value = match (value.tag_name().name(), value.attribute("VALUETYPE")) {
                ("VALUE.REFERENCE", _) => {
                    let reference = self.reference(value, depth + 1)?;
                    reference.ok_or_else(|| fault(value, "a key refers to nothing"))?
                }
                ("KEYVALUE", Some("numeric")) => {
                    let number = Value::parse(&Type::Uint64, &text(value));
                    let number = number.or_else(|_| Value::parse(&Type::Sint64, &text(value)));
                    number.map_err(|error| fault(value, error.to_string()))?
                }
                ("KEYVALUE", Some("boolean")) => Value::parse(&Type::Boolean, &text(value))
                    .map_err(|error| fault(value, error.to_string()))?,
                ("KEYVALUE", _) => Value::String(text(value)),
                (other, _) => {
                    return Err(fault(value, format!("expected KEYVALUE, found `{}`", shown(other))));
                }
            };
            path.keys.push((Name::from(name), value));
        }
        Ok(path)
    }
}

fn is_path(node: Node<'_, '_>) -> bool {
    matches!(
        node.tag_name().name(),
        "INSTANCEPATH" | "LOCALINSTANCEPATH" | "INSTANCENAME" | "CLASSPATH" | "LOCALCLASSPATH" | "CLASSNAME"
    )
}
