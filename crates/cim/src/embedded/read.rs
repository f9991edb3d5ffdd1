//! Reading embedded instances.

use roxmltree::{Document, Node, ParsingOptions};

use super::{MAX_DEPTH, MAX_NODES, MAX_TEXT};
use crate::syntax::{Fault, shown};
use crate::{Class, Instance, Name, ObjectPath, Property, Schema, SyntaxError, Type, Value, mof};

/// The instance that a text declares, with the properties that the text gives it; those without a value are null.
///
/// # Errors
/// The text is neither XML nor MOF, or not of one instance, or does not fit the schema.
pub fn read(text: &str, schema: &Schema) -> Result<Instance, SyntaxError> {
    nested(text, schema, 0)
}

/// The instances that a value carries, be it one or an array, as texts or as such.
///
/// # Errors
/// One of them cannot be [`read`], or is neither a text nor an instance.
pub fn read_all(value: &Value, schema: &Schema) -> Result<Vec<Instance>, SyntaxError> {
    let one = |value: &Value| match value {
        Value::String(text) => read(text, schema),
        Value::Object(instance) => Ok((**instance).clone()),
        _ => Err(Fault::new(0, "an instance is expected, as text or as such").within("")),
    };
    value.elements().iter().map(one).collect()
}

fn nested(text: &str, schema: &Schema, depth: usize) -> Result<Instance, SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(Fault::new(0, format!("the text has more than {MAX_TEXT} bytes")).within(text));
    }
    if depth > MAX_DEPTH {
        return Err(Fault::new(0, format!("instances are nested more than {MAX_DEPTH} deep")).within(text));
    }
    // Some clients count the NUL that ends their buffer.
    let text = text.trim_start_matches('\u{feff}').trim_end_matches('\0').trim();
    if !text.starts_with('<') {
        let mut instances = mof::instances(text, schema)?;
        return match instances.len() {
            1 => Ok(instances.remove(0)),
            found => Err(Fault::new(0, format!("one instance is expected, found {found}")).within(text)),
        };
    }
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        let place = error.pos();
        SyntaxError {
            file: None,
            line: place.row as usize,
            column: place.col as usize,
            problem: format!("this is no XML: {error}"),
        }
    })?;
    let reader = Reader { schema };
    reader.wrapped(document.root_element(), depth).map_err(|fault| fault.within(text))
}

struct Reader<'s> {
    schema: &'s Schema,
}

fn fault(node: Node<'_, '_>, problem: impl Into<String>) -> Fault {
    Fault::new(node.range().start, problem)
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn child<'a, 'i>(node: Node<'a, 'i>, names: &[&str]) -> Option<Node<'a, 'i>> {
    elements(node).find(|child| names.contains(&child.tag_name().name()))
}

/// All text of an element, in whatever pieces.
fn text(node: Node<'_, '_>) -> String {
    node.children().filter(Node::is_text).filter_map(|piece| piece.text()).collect()
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, Fault> {
    node.attribute(name).ok_or_else(|| fault(node, format!("{} has no {name}", node.tag_name().name())))
}

impl Reader<'_> {
    /// The instance in an element, which may be a wrapper of one.
    fn wrapped(&self, mut node: Node<'_, '_>, depth: usize) -> Result<Instance, Fault> {
        let mut path = None;
        loop {
            match node.tag_name().name() {
                "INSTANCE" => {
                    let mut instance = self.instance(node, depth)?;
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
                        path = Some(self.path(located, depth)?);
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

    fn instance(&self, node: Node<'_, '_>, depth: usize) -> Result<Instance, Fault> {
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
            let value = self.property(member, class, property, depth)?;
            instance.properties.push((property.name.clone(), value));
        }
        Ok(instance)
    }

    fn property(
        &self,
        member: Node<'_, '_>,
        class: &Class,
        property: &Property,
        depth: usize,
    ) -> Result<Option<Value>, Fault> {
        let mut values = Vec::new();
        let mut given = false;
        for value in elements(member) {
            match value.tag_name().name() {
                "VALUE.ARRAY" | "VALUE.REFARRAY" | "VALUE.OBJECTARRAY" => {
                    given = true;
                    for element in elements(value) {
                        values.extend(self.value(element, &property.ty, depth)?);
                    }
                }
                name if name.starts_with("VALUE") => {
                    given = true;
                    values.extend(self.value(value, &property.ty, depth)?);
                }
                // Qualifiers say nothing that the class does not.
                _ => {}
            }
        }
        match (property.array, values.len()) {
            (true, _) => Ok(given.then_some(Value::Array(values))),
            (false, 0 | 1) => Ok(values.pop()),
            (false, found) => {
                let problem = format!("{}.{} has one value, not {found}", class.name, property.name);
                Err(fault(member, problem))
            }
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
            return self.path(located, depth).map(|path| Some(path.into()));
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

    fn path(&self, node: Node<'_, '_>, depth: usize) -> Result<ObjectPath, Fault> {
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
