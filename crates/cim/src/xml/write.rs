//! Writing the elements that carry instances, paths and values.

use super::{Xml, fits};
use crate::{Instance, Name, ObjectPath, Property, Schema, Type, Value, embedded};

/// Writes what belongs to one schema.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'s> {
    schema: &'s Schema,
    origins: bool,
}

/// The type of a value that no class declares; none for an array without elements.
#[must_use]
pub fn type_of(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Boolean(_) => Type::Boolean,
        Value::Uint8(_) => Type::Uint8,
        Value::Sint8(_) => Type::Sint8,
        Value::Uint16(_) => Type::Uint16,
        Value::Sint16(_) => Type::Sint16,
        Value::Uint32(_) => Type::Uint32,
        Value::Sint32(_) => Type::Sint32,
        Value::Uint64(_) => Type::Uint64,
        Value::Sint64(_) => Type::Sint64,
        Value::Real32(_) => Type::Real32,
        Value::Real64(_) => Type::Real64,
        Value::Char16(_) => Type::Char16,
        Value::String(_) => Type::String,
        Value::Datetime(_) => Type::Datetime,
        Value::Reference(path) => Type::Reference(path.class.clone()),
        Value::Object(instance) => Type::Object(Some(instance.class.clone())),
        Value::Array(elements) => return elements.first().and_then(type_of),
    })
}

impl<'s> Writer<'s> {
    /// One that writes what `schema` declares.
    #[must_use]
    pub fn new(schema: &'s Schema) -> Self {
        Self { schema, origins: false }
    }

    /// The same, which says of each property where it comes from.
    #[must_use]
    pub fn with_origins(self, origins: bool) -> Self {
        Self { origins, ..self }
    }

    /// `INSTANCE`, with the properties that it has and `wanted` lets through. Those that are null have no value in it.
    pub fn instance(&self, xml: &mut Xml, instance: &Instance, wanted: impl Fn(&Name) -> bool) {
        let class = self.schema.class(instance.class.as_str());
        xml.open("INSTANCE", &[("CLASSNAME", instance.class.as_str())]);
        for (name, value) in instance.properties.iter().filter(|(name, _)| wanted(name)) {
            let declared = class.and_then(|class| class.property(name.as_str()));
            self.property(xml, name, declared, value.as_ref());
        }
        xml.close("INSTANCE");
    }

    fn property(&self, xml: &mut Xml, name: &Name, declared: Option<&Property>, value: Option<&Value>) {
        let array = match value {
            Some(value) => matches!(value, Value::Array(_)),
            None => declared.is_some_and(|property| property.array),
        };
        let ty = declared.map(|property| property.ty.clone()).or_else(|| value.and_then(type_of));
        let ty = ty.unwrap_or(Type::String);
        let mut attributes = vec![("NAME", name.as_str())];
        let tag = match (&ty, array) {
            (Type::Reference(class), false) => {
                attributes.push(("REFERENCECLASS", class.as_str()));
                "PROPERTY.REFERENCE"
            }
            // There is no element for a property of several references: they are texts then.
            (Type::Reference(_), true) => {
                attributes.push(("TYPE", Type::String.keyword()));
                "PROPERTY.ARRAY"
            }
            (ty, array) => {
                attributes.push(("TYPE", keyword(ty)));
                if array { "PROPERTY.ARRAY" } else { "PROPERTY" }
            }
        };
        let text = declared.is_some_and(|property| property.embedded().is_some()) && is_instances(value);
        if text || matches!(ty, Type::Object(_)) {
            attributes.push(("EmbeddedObject", "instance"));
        }
        if let Some(property) = declared.filter(|_| self.origins) {
            attributes.push(("CLASSORIGIN", property.origin.as_str()));
        }
        xml.open(tag, &attributes);
        match value {
            Some(Value::Array(elements)) => {
                xml.open("VALUE.ARRAY", &[]);
                for element in elements {
                    match element {
                        Value::Reference(path) => xml.element("VALUE", &path.to_string()),
                        other => self.value(xml, other),
                    }
                }
                xml.close("VALUE.ARRAY");
            }
            Some(value) => self.value(xml, value),
            None => {}
        }
        xml.close(tag);
    }

    /// `VALUE`, or `VALUE.REFERENCE`; of an array `VALUE.ARRAY` or `VALUE.REFARRAY`.
    pub fn value(&self, xml: &mut Xml, value: &Value) {
        match value {
            Value::Array(elements) => {
                let references = matches!(elements.first(), Some(Value::Reference(_)));
                let tag = if references { "VALUE.REFARRAY" } else { "VALUE.ARRAY" };
                xml.open(tag, &[]);
                elements.iter().for_each(|element| self.value(xml, element));
                xml.close(tag);
            }
            Value::Reference(path) => self.reference(xml, path),
            Value::Object(instance) => xml.element("VALUE", &embedded::write(instance, self.schema)),
            Value::Boolean(truth) => xml.element("VALUE", if *truth { "TRUE" } else { "FALSE" }),
            // A digit alone would be read as the number, and white space as nothing.
            Value::Char16(unit) => match char::from_u32((*unit).into()) {
                Some(c) if !(c.is_ascii_digit() || c.is_whitespace()) && fits(c) => {
                    xml.element("VALUE", c.encode_utf8(&mut [0; 4]));
                }
                _ => xml.element("VALUE", &unit.to_string()),
            },
            other => xml.element("VALUE", &other.to_string()),
        }
    }

    /// `VALUE.REFERENCE` with as much of a path as there is.
    pub fn reference(&self, xml: &mut Xml, path: &ObjectPath) {
        xml.open("VALUE.REFERENCE", &[]);
        match (&path.host, &path.namespace) {
            (Some(_), Some(_)) => self.instance_path(xml, path),
            (None, Some(namespace)) => {
                xml.open("LOCALINSTANCEPATH", &[]);
                local_namespace(xml, namespace);
                self.instance_name(xml, path);
                xml.close("LOCALINSTANCEPATH");
            }
            _ => self.instance_name(xml, path),
        }
        xml.close("VALUE.REFERENCE");
    }

    /// `INSTANCEPATH`, of a path that has host and namespace.
    pub fn instance_path(&self, xml: &mut Xml, path: &ObjectPath) {
        xml.open("INSTANCEPATH", &[]);
        namespace(
            xml,
            path.host.as_deref().unwrap_or_default(),
            path.namespace.as_deref().unwrap_or_default(),
        );
        self.instance_name(xml, path);
        xml.close("INSTANCEPATH");
    }

    /// `INSTANCENAME`.
    pub fn instance_name(&self, xml: &mut Xml, path: &ObjectPath) {
        xml.open("INSTANCENAME", &[("CLASSNAME", path.class.as_str())]);
        for (name, value) in &path.keys {
            xml.open("KEYBINDING", &[("NAME", name.as_str())]);
            let mut simple = |kind, ty| {
                xml.open("KEYVALUE", &[("VALUETYPE", kind), ("TYPE", ty)]);
                xml.text(&value.to_string());
                xml.close("KEYVALUE");
            };
            match value {
                Value::Reference(path) => self.reference(xml, path),
                Value::Boolean(_) => simple("boolean", Type::Boolean.keyword()),
                value => {
                    let number = value.as_integer().is_some();
                    let ty = type_of(value).unwrap_or(Type::String);
                    simple(if number { "numeric" } else { "string" }, keyword(&ty));
                }
            }
            xml.close("KEYBINDING");
        }
        xml.close("INSTANCENAME");
    }
}

/// What `TYPE` says of a type that a `VALUE` carries.
fn keyword(ty: &Type) -> &'static str {
    match ty {
        Type::Object(_) => Type::String.keyword(),
        ty => ty.keyword(),
    }
}

/// True for values that are texts of instances, and for none at all.
fn is_instances(value: Option<&Value>) -> bool {
    value.map(Value::elements).unwrap_or_default().iter().all(|one| match one {
        Value::String(text) => text.starts_with("<INSTANCE"),
        other => matches!(other, Value::Object(_)),
    })
}

/// `NAMESPACEPATH`.
pub fn namespace(xml: &mut Xml, host: &str, namespace: &str) {
    xml.open("NAMESPACEPATH", &[]);
    xml.element("HOST", host);
    local_namespace(xml, namespace);
    xml.close("NAMESPACEPATH");
}

/// `LOCALNAMESPACEPATH`.
pub fn local_namespace(xml: &mut Xml, namespace: &str) {
    xml.open("LOCALNAMESPACEPATH", &[]);
    for part in namespace.split(['/', '\\']).filter(|part| !part.is_empty()) {
        xml.empty("NAMESPACE", &[("NAME", part)]);
    }
    xml.close("LOCALNAMESPACEPATH");
}
