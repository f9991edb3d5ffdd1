//! Paths to instances and classes, and their text as WMI writes it:
//! `\\HOST\root\virtualization\v2:Class.Key="value",Other=7`.

use std::fmt;

use crate::{Name, Value};

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
    /// that has no keys (`Class=@`). A client may give fewer keys than the class has.
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
            write!(f, "{}{key}=", if n == 0 { '.' } else { ',' })?;
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
