//! Writing embedded instances as CIM-XML (DSP0201).

use crate::{Instance, ObjectPath, Schema, Type, Value};

/// The instance as a text that clients of every kind read: `<INSTANCE CLASSNAME="…">` with all properties that it has.
/// Properties that are null have no value in it.
#[must_use]
pub fn write(instance: &Instance, schema: &Schema) -> String {
    let class = schema.class(instance.class.as_str());
    let mut xml = Xml { text: String::with_capacity(512) };
    xml.open("INSTANCE", &[("CLASSNAME", instance.class.as_str())]);
    for (name, value) in &instance.properties {
        let declared = class.and_then(|class| class.property(name.as_str()));
        let array = match value {
            Some(value) => matches!(value, Value::Array(_)),
            None => declared.is_some_and(|property| property.array),
        };
        let of_value = || value.as_ref().and_then(|value| value.elements().first()).and_then(type_of);
        let ty = declared.map(|property| property.ty.clone()).or_else(of_value).unwrap_or(Type::String);
        xml.property(name.as_str(), &ty, array, value.as_ref(), schema);
    }
    xml.close("INSTANCE");
    xml.text
}

/// The type of a simple value that no class declares.
fn type_of(value: &Value) -> Option<Type> {
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
        Value::Array(_) => return None,
    })
}

/// What XML 1.0 has no way to say.
fn unfit(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

struct Xml {
    text: String,
}

impl Xml {
    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.text.push('<');
        self.text.push_str(name);
        for (name, value) in attributes {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escaped(value);
            self.text.push('"');
        }
        self.text.push('>');
    }

    fn close(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.escaped(text);
        self.close(name);
    }

    /// Text and attributes alike. What XML cannot carry at all is U+FFFD; a return would come back as a line feed.
    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\r' => self.text.push_str("&#13;"),
                '\n' | '\t' => self.text.push(c),
                c if unfit(c) => self.text.push(char::REPLACEMENT_CHARACTER),
                c => self.text.push(c),
            }
        }
    }

    fn property(&mut self, name: &str, ty: &Type, array: bool, value: Option<&Value>, schema: &Schema) {
        let mut attributes = vec![("NAME", name)];
        let (element, list) = match (ty, array) {
            (Type::Reference(class), _) => {
                attributes.push(("REFERENCECLASS", class.as_str()));
                (if array { "PROPERTY.REFARRAY" } else { "PROPERTY.REFERENCE" }, "VALUE.REFARRAY")
            }
            (Type::Object(_), _) => {
                attributes.extend([("TYPE", "string"), ("EmbeddedObject", "instance")]);
                (if array { "PROPERTY.ARRAY" } else { "PROPERTY" }, "VALUE.ARRAY")
            }
            (ty, _) => {
                attributes.push(("TYPE", ty.keyword()));
                (if array { "PROPERTY.ARRAY" } else { "PROPERTY" }, "VALUE.ARRAY")
            }
        };
        self.open(element, &attributes);
        match value {
            Some(Value::Array(elements)) => {
                self.open(list, &[]);
                elements.iter().for_each(|element| self.value(element, schema));
                self.close(list);
            }
            Some(value) => self.value(value, schema),
            None => {}
        }
        self.close(element);
    }

    fn value(&mut self, value: &Value, schema: &Schema) {
        match value {
            Value::Reference(path) => self.reference(path),
            Value::Object(instance) => self.leaf("VALUE", &[], &write(instance, schema)),
            Value::Boolean(truth) => self.leaf("VALUE", &[], if *truth { "TRUE" } else { "FALSE" }),
            // A digit alone would be read as the number, and white space as nothing.
            Value::Char16(unit) => match char::from_u32((*unit).into()) {
                Some(c) if !(c.is_ascii_digit() || c.is_whitespace() || unfit(c)) => {
                    self.leaf("VALUE", &[], c.encode_utf8(&mut [0; 4]));
                }
                _ => self.leaf("VALUE", &[], &unit.to_string()),
            },
            other => self.leaf("VALUE", &[], &other.to_string()),
        }
    }

    fn reference(&mut self, path: &ObjectPath) {
        self.open("VALUE.REFERENCE", &[]);
        let wrapper = match (&path.host, &path.namespace) {
            (Some(_), Some(_)) => Some("INSTANCEPATH"),
            (None, Some(_)) => Some("LOCALINSTANCEPATH"),
            _ => None,
        };
        if let Some(wrapper) = wrapper {
            self.open(wrapper, &[]);
            if let Some(host) = &path.host {
                self.open("NAMESPACEPATH", &[]);
                self.leaf("HOST", &[], host);
            }
            self.open("LOCALNAMESPACEPATH", &[]);
            let parts = path.namespace.as_deref().unwrap_or_default().split(['/', '\\']);
            for part in parts.filter(|part| !part.is_empty()) {
                self.open("NAMESPACE", &[("NAME", part)]);
                self.close("NAMESPACE");
            }
            self.close("LOCALNAMESPACEPATH");
            if path.host.is_some() {
                self.close("NAMESPACEPATH");
            }
        }
        self.open("INSTANCENAME", &[("CLASSNAME", path.class.as_str())]);
        for (name, value) in &path.keys {
            self.open("KEYBINDING", &[("NAME", name.as_str())]);
            match value {
                Value::Reference(path) => self.reference(path),
                Value::Boolean(_) => self.leaf("KEYVALUE", &[("VALUETYPE", "boolean")], &value.to_string()),
                value if value.as_integer().is_some() => {
                    self.leaf("KEYVALUE", &[("VALUETYPE", "numeric")], &value.to_string());
                }
                value => self.leaf("KEYVALUE", &[("VALUETYPE", "string")], &value.to_string()),
            }
            self.close("KEYBINDING");
        }
        self.close("INSTANCENAME");
        if let Some(wrapper) = wrapper {
            self.close(wrapper);
        }
        self.close("VALUE.REFERENCE");
    }
}
