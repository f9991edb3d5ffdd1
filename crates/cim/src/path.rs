//! Paths to instances and classes, and their text as WMI writes it:
//! `\\HOST\root\virtualization\v2:Class.Key="value",Other=7`.

use std::fmt;
use std::str::FromStr;

use crate::syntax::{Fault, shown};
use crate::{Class, Instance, Name, Schema, SyntaxError, Type, Value, ValueError};

/// Where a class or an instance is.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectPath {
    /// The host it is on; none for this one.
    pub host: Option<String>,
    /// The namespace, with slashes (`root/virtualization/v2`); none for the one at hand.
    pub namespace: Option<String>,
    /// The class.
    pub class: Name,
    /// The keys that tell the instance, in the order they came; empty for a class, and for the one instance of a class
    /// that has no keys (`Class=@`). A client may give fewer keys than the class has, and leave the name of an only key
    /// out (`Class="v"`): it is empty then, until the path is [resolved](Self::resolved).
    pub keys: Vec<(Name, Value)>,
}

impl ObjectPath {
    /// The path of a class, or of an instance once keys are added.
    #[must_use]
    pub fn new(class: impl Into<Name>) -> Self {
        Self { host: None, namespace: None, class: class.into(), keys: Vec::new() }
    }

    /// With one key more.
    #[must_use]
    pub fn with(mut self, key: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.keys.push((key.into(), value.into()));
        self
    }

    /// In `namespace`.
    #[must_use]
    pub fn within(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The value of a key.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Value> {
        self.keys.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The text of a key.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.key(name)?.as_str()
    }

    /// The path of an instance of `class`, as far as it has its keys, in the order in which WMI prints them.
    #[must_use]
    pub fn of(instance: &Instance, class: &Class) -> Self {
        let mut path = Self::new(class.name.clone());
        for key in class.keys_by_name() {
            if let Some(value) = instance.get(key.name.as_str()) {
                path.keys.push((key.name.clone(), value.clone()));
            }
        }
        path
    }

    /// The path as the schema has it: names in its spelling, keys of its types and in the order in which WMI prints them,
    /// the name of an only key filled in. A text does not tell a number's width, nor a reference from a text. Fewer keys than the class has are
    /// fewer afterwards.
    ///
    /// # Errors
    /// There is no such class, it has no such key, a key comes twice, or its value is not of the key's type.
    pub fn resolved(&self, schema: &Schema) -> Result<Self, PathError> {
        self.resolved_within(schema, 0)
    }

    fn resolved_within(&self, schema: &Schema, depth: usize) -> Result<Self, PathError> {
        let class = schema.class(self.class.as_str()).ok_or_else(|| PathError::Class(self.class.clone()))?;
        let mut path = Self {
            host: self.host.clone(),
            namespace: self.namespace.clone(),
            class: class.name.clone(),
            keys: Vec::with_capacity(self.keys.len()),
        };
        let named: Vec<(&Name, &Value)> = match self.keys.as_slice() {
            [(unnamed, value)] if *unnamed == "" => match class.keys().collect::<Vec<_>>().as_slice() {
                [only] => vec![(&only.name, value)],
                _ => return Err(PathError::Unnamed(class.name.clone())),
            },
            keys => keys.iter().map(|(name, value)| (name, value)).collect(),
        };
        for key in class.keys_by_name() {
            let mut given = named.iter().filter(|(name, _)| **name == key.name);
            let Some((_, value)) = given.next() else { continue };
            if given.next().is_some() {
                return Err(PathError::Twice { class: class.name.clone(), key: key.name.clone() });
            }
            let wrong =
                |source| PathError::Value { class: class.name.clone(), key: key.name.clone(), source };
            let value = match (&key.ty, value) {
                // One into another namespace, whose classes are not at hand.
                (Type::Reference(_), Value::Reference(path))
                    if path.namespace.is_some() && schema.class(path.class.as_str()).is_none() =>
                {
                    Value::Reference(path.clone())
                }
                (Type::Reference(_), Value::Reference(path)) if depth < Self::MAX_DEPTH => {
                    path.resolved_within(schema, depth + 1)?.into()
                }
                (Type::Reference(_), Value::String(text)) if depth < Self::MAX_DEPTH => {
                    let inner: Self = text.parse().map_err(|_| wrong(ValueError::of(&key.ty, text)))?;
                    inner.resolved_within(schema, depth + 1)?.into()
                }
                (ty, Value::Boolean(_) | Value::String(_) | Value::Datetime(_)) => {
                    Value::parse(ty, &value.to_string()).map_err(wrong)?
                }
                (ty, value) => value
                    .as_integer()
                    .and_then(|number| Value::integer(ty, number))
                    .ok_or_else(|| wrong(ValueError::of(ty, &value.to_string())))?,
            };
            path.keys.push((key.name.clone(), value));
        }
        if let Some((unknown, _)) = named.iter().find(|(name, _)| path.key(name.as_str()).is_none()) {
            return Err(PathError::Key { class: class.name.clone(), key: (*unknown).clone() });
        }
        Ok(path)
    }

    /// Longest text of a path, in bytes.
    pub const MAX_TEXT: usize = 64 << 10;
    /// Most keys of a path.
    pub const MAX_KEYS: usize = 64;
    /// Most paths inside one another, as an association's keys have them.
    pub const MAX_DEPTH: usize = 4;
}

/// A path that a schema does not bear out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No such class.
    #[error("there is no class {0}")]
    Class(Name),
    /// No such key.
    #[error("{class} has no key {key}")]
    Key {
        /// The class.
        class: Name,
        /// The name given.
        key: Name,
    },
    /// The form `Class="value"` for a class that has not one key.
    #[error("the keys of {0} must be named: it has not just one")]
    Unnamed(Name),
    /// One key, two values.
    #[error("key {key} of {class} is given twice")]
    Twice {
        /// The class.
        class: Name,
        /// The key.
        key: Name,
    },
    /// A value of another type.
    #[error("key {key} of {class} has a value that it cannot have")]
    Value {
        /// The class.
        class: Name,
        /// The key.
        key: Name,
        /// The type and the value.
        source: ValueError,
    },
}

impl FromStr for ObjectPath {
    type Err = SyntaxError;

    /// Reads `\\\\HOST\\root\\ns:Class.Key="value",Other=7`, with slashes of either kind, with or without host and namespace;
    /// `Class=@`; `Class="value"`. Texts stand in quotes of either kind, with `\` before a quote or another `\`.
    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        read(text).map_err(|fault| fault.within(text))
    }
}

/// Reads a path, for those who have the text around it.
pub(crate) fn read(text: &str) -> Result<ObjectPath, Fault> {
    if text.len() > ObjectPath::MAX_TEXT {
        return Err(Fault::new(0, format!("a path has at most {} bytes", ObjectPath::MAX_TEXT)));
    }
    let slash = ['\\', '/'];
    let mut at = text.len() - text.trim_start().len();
    let mut path = ObjectPath::new("");
    if text[at..].starts_with(r"\\") || text[at..].starts_with("//") {
        at += 2;
        let length = text[at..].find(slash).filter(|length| *length > 0);
        let length = length.ok_or_else(|| Fault::new(at, "expected a host, and a namespace behind it"))?;
        path.host = Some(text[at..at + length].to_owned());
        at += length + 1;
    }
    // Host names and texts may have colons and points, namespaces neither.
    let head = text[at..].find(['"', '\'', '.', '=']).map_or(text.len(), |length| at + length);
    match text[at..head].find(':') {
        Some(length) => {
            let namespace = text[at..at + length].trim_matches(slash).replace('\\', "/");
            let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '/');
            if namespace.is_empty() || !namespace.chars().all(allowed) {
                return Err(Fault::new(at, "expected a namespace before the colon"));
            }
            path.namespace = Some(namespace);
            at += length + 1;
        }
        None if path.host.is_some() => {
            return Err(Fault::new(at, "expected a namespace and a colon behind the host"));
        }
        None => {}
    }
    let mut keys = Keys { text, at };
    path.class = keys.name("the name of a class")?;
    match keys.mark() {
        None => {}
        Some('=') if keys.rest().trim_end() == "@" => {}
        Some('=') => {
            let value = keys.value()?;
            path.keys.push((Name::from(""), value));
            keys.end()?;
        }
        Some('.') => loop {
            if path.keys.len() >= ObjectPath::MAX_KEYS {
                return Err(Fault::new(keys.at, format!("a path has at most {} keys", ObjectPath::MAX_KEYS)));
            }
            let name = keys.name("the name of a key")?;
            if keys.mark() != Some('=') {
                return Err(Fault::new(keys.at, format!("expected `=` and the value of {name}")));
            }
            let value = keys.value()?;
            path.keys.push((name, value));
            match keys.mark() {
                Some(',') => {}
                None => break,
                Some(_) => return Err(Fault::new(keys.at - 1, "expected `,` or the end")),
            }
        },
        Some(_) => return Err(Fault::new(keys.at - 1, "expected `.`, `=` or the end")),
    }
    Ok(path)
}

/// The part of a path's text that names class and keys.
struct Keys<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Keys<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn name(&mut self, what: &str) -> Result<Name, Fault> {
        self.skip();
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if length == 0 {
            let found = if rest.is_empty() { "the end".to_owned() } else { format!("`{}`", shown(rest)) };
            return Err(Fault::new(self.at, format!("expected {what}, found {found}")));
        }
        self.at += length;
        Ok(rest[..length].into())
    }

    /// The next character that is no space, and past it.
    fn mark(&mut self) -> Option<char> {
        self.skip();
        let mark = self.rest().chars().next()?;
        self.at += mark.len_utf8();
        Some(mark)
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.mark() {
            None => Ok(()),
            Some(mark) => Err(Fault::new(self.at - mark.len_utf8(), "expected the end")),
        }
    }

    fn value(&mut self) -> Result<Value, Fault> {
        self.skip();
        let start = self.at;
        let rest = self.rest();
        if rest.starts_with(['"', '\'']) {
            return self.quoted().map(Value::String);
        }
        let length = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let word = &rest[..length];
        self.at += length;
        for ty in [Type::Boolean, Type::Uint64, Type::Sint64] {
            let digit = word.starts_with(|c: char| c.is_ascii_digit());
            if let (Ok(value), false) = (Value::parse(&ty, word), digit && ty == Type::Boolean) {
                return Ok(value);
            }
        }
        Err(Fault::new(
            start,
            format!("expected a text in quotes, a number, TRUE or FALSE, found `{}`", shown(word)),
        ))
    }

    fn quoted(&mut self) -> Result<String, Fault> {
        let start = self.at;
        let mut text = String::new();
        let mut rest = self.rest().char_indices();
        let quote = rest.next().map(|(_, quote)| quote);
        while let Some((n, c)) = rest.next() {
            if Some(c) == quote {
                self.at += n + 1;
                return Ok(text);
            }
            // A backslash that escapes nothing is one that a client forgot to escape.
            let escaped = self.text[self.at + n + c.len_utf8()..].chars().next();
            match escaped {
                Some(escaped @ ('\\' | '"' | '\'')) if c == '\\' => {
                    text.push(escaped);
                    rest.next();
                }
                _ => text.push(c),
            }
        }
        Err(Fault::new(start, "the text has no closing quote"))
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, r"\\{host}\")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{}:", namespace.replace('/', r"\"))?;
        }
        write!(f, "{}", self.class)?;
        for (n, (key, value)) in self.keys.iter().enumerate() {
            match n {
                0 if *key == "" => {}
                0 => write!(f, ".{key}")?,
                _ => write!(f, ",{key}")?,
            }
            f.write_str("=")?;
            match value {
                Value::String(text) => quoted(f, text)?,
                Value::Datetime(time) => quoted(f, time.as_str())?,
                Value::Reference(path) => quoted(f, &path.to_string())?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}

#[cfg(test)]
mod tests {
    use super::ObjectPath;
    use crate::{Class, Name, Property, Qualifier, Schema, Type, Value};

    #[test]
    fn paths_are_read_in_every_form() {
        let system = ObjectPath::new("Msvm_ComputerSystem")
            .with("CreationClassName", "Msvm_ComputerSystem")
            .with("Name", "a\\b\"c");
        let within = system.clone().within("root/virtualization/v2");
        let mut at_host = within.clone();
        at_host.host = Some("node.example.org".to_owned());
        let keys = r#"Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="a\\b\"c""#;
        for (text, path) in [
            (keys.to_owned(), &system),
            (format!(r"\\node.example.org\root\virtualization\v2:{keys}"), &at_host),
            (format!("//node.example.org/root/virtualization/v2:{keys}"), &at_host),
            (format!(r"root\virtualization/v2:{keys}"), &within),
            (format!("  /root/virtualization/v2:{keys} "), &within),
            (
                r#"Msvm_ComputerSystem . CreationClassName = 'Msvm_ComputerSystem' , Name = 'a\b"c' "#
                    .to_owned(),
                &system,
            ),
            ("C=@".to_owned(), &ObjectPath::new("C")),
            ("C".to_owned(), &ObjectPath::new("C")),
            ("C=\"v\"".to_owned(), &ObjectPath::new("C").with("", "v")),
            (
                "C.K=7,L=-7,M=TRUE,N=0x1f".to_owned(),
                &ObjectPath::new("C").with("K", 7_u64).with("L", -7_i64).with("M", true).with("N", 31_u64),
            ),
        ] {
            assert_eq!(text.parse::<ObjectPath>().as_ref(), Ok(path), "{text}");
            assert_eq!(path.to_string().parse::<ObjectPath>().as_ref(), Ok(path), "{path}");
        }
    }

    #[test]
    fn a_text_that_is_no_path_is_refused_with_the_place() {
        for (text, message) in [
            ("", "column 1: expected the name of a class, found the end"),
            (r"\\host", "column 3: expected a host, and a namespace"),
            (r"\\host\Class", "column 8: expected a namespace and a colon"),
            (":C", "column 1: expected a namespace before the colon"),
            ("C.", "column 3: expected the name of a key, found the end"),
            ("C.K", "expected `=` and the value of K"),
            ("C.K=", "column 5: expected a text in quotes"),
            ("C.K=\"v", "column 5: the text has no closing quote"),
            ("C.K=\"v\" L=1", "column 9: expected `,` or the end"),
            ("C=\"v\",", "column 6: expected the end"),
            ("C.K=1x", "column 5: expected a text in quotes, a number, TRUE or FALSE, found `1x`"),
            ("C?", "column 2: expected `.`, `=` or the end"),
        ] {
            let error = text.parse::<ObjectPath>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn the_schema_gives_keys_their_types() {
        let key = |class: &str, name: &str, ty: Type| Property {
            name: name.into(),
            ty,
            array: false,
            default: None,
            qualifiers: vec![Qualifier { name: "Key".into(), value: true.into() }],
            origin: class.into(),
        };
        let class = |name: &str, properties| Class {
            name: name.into(),
            superclass: None::<Name>,
            qualifiers: Vec::new(),
            properties,
            methods: Vec::new(),
        };
        let schema = Schema::new(vec![
            class("Part", vec![key("Part", "Slot", Type::Uint16)]),
            class(
                "Link",
                vec![
                    key("Link", "One", Type::Reference("Part".into())),
                    key("Link", "Other", Type::Reference("Part".into())),
                ],
            ),
        ])
        .unwrap();
        let resolved = |text: &str| text.parse::<ObjectPath>().unwrap().resolved(&schema);
        let part = ObjectPath::new("Part").with("Slot", 7_u16);
        assert_eq!(resolved("PART=7"), Ok(part.clone()));
        assert_eq!(resolved("part.SLOT='7'"), Ok(part.clone()));
        let link = resolved(r#"Link.Other="\\\\H\\root:Part.Slot=7",One="Part=7""#).unwrap();
        assert_eq!(link.keys[0], (Name::from("One"), Value::from(part)));
        assert_eq!(link.key("Other").unwrap().as_path().unwrap().host.as_deref(), Some("H"));
        for (text, message) in [
            ("None=1", "there is no class None"),
            ("Part.Slot=1,Slot=2", "key Slot of Part is given twice"),
            ("Part.Slot=70000", "key Slot of Part has a value that it cannot have"),
            ("Part.Place=1", "Part has no key Place"),
            ("Link=1", "the keys of Link must be named"),
            ("Link.One=\"Link=\"", "key One of Link has a value that it cannot have"),
        ] {
            let error = resolved(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_is_written_as_wmi_writes_it() {
        let mut path = ObjectPath::new("Msvm_StorageAllocationSettingData")
            .with("InstanceID", r#"Microsoft:1\2\"x""#)
            .within("root/virtualization/v2");
        path.host = Some("HOST".to_owned());
        assert_eq!(
            path.to_string(),
            r#"\\HOST\root\virtualization\v2:Msvm_StorageAllocationSettingData.InstanceID="Microsoft:1\\2\\\"x\"""#
        );
    }
}
