//! What a request is about: resource URIs in both forms, selectors, and references made of them (DSP0230, 5 and 8.3).

use cim::xml::{elements, text};
use cim::{Name, ObjectPath, Value};
use roxmltree::Node;

use crate::fault::{Code, Fault};
use crate::limits::{MAX_NESTED_REFERENCES, MAX_SELECTORS, MAX_URI};
use crate::uri;
use crate::xml::{child, is};

/// The selector that carries a namespace.
pub(crate) const NAMESPACE_SELECTOR: &str = "__cimnamespace";

/// How a client spells classes. A reply uses its request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `…/wmi/root/virtualization/v2/Msvm_ComputerSystem`.
    Wmi,
    /// `…/cim-schema/2/Msvm_ComputerSystem`, with the namespace in a selector.
    Dmtf,
}

impl Form {
    /// The URI of a class.
    pub(crate) fn uri(self, namespace: &str, class: &str) -> String {
        match self {
            Self::Wmi => format!("{}{namespace}/{class}", uri::WMI),
            Self::Dmtf => format!("{}{class}", uri::CIM_SCHEMA),
        }
    }
}

/// What a resource URI names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A class.
    Class { form: Form, namespace: String, class: String },
    /// All classes of a namespace, for queries.
    All { form: Form, namespace: String },
    /// The configuration of the service, or a part of it.
    Config { part: String },
    /// A shell, which is not served.
    Shell,
    /// Anything else.
    Unknown,
}

impl Resource {
    /// Reads a URI. `selected` is the namespace that the selectors give, `default` the one for those that give none.
    pub(crate) fn parse(uri: &str, selected: Option<&str>, default: &str) -> Self {
        let uri = uri.trim();
        let (form, namespace, class) = if let Some(rest) = after(uri, uri::WMI) {
            match rest.trim_end_matches('/').replace('\\', "/").rsplit_once('/') {
                Some((namespace, class)) => (Form::Wmi, namespace.to_owned(), class.to_owned()),
                None => return Self::Unknown,
            }
        } else if let Some(class) = after(uri, uri::CIM_SCHEMA) {
            (Form::Dmtf, selected.unwrap_or(default).replace('\\', "/"), class.to_owned())
        } else if let Some(part) = after(uri, uri::CONFIG) {
            return Self::Config { part: part.trim_start_matches('/').to_owned() };
        } else if after(uri, uri::SHELL).is_some() || after(uri, uri::POWERSHELL).is_some() {
            return Self::Shell;
        } else {
            return Self::Unknown;
        };
        let namespace = namespace.trim_matches('/').to_owned();
        match class.as_str() {
            "" => Self::Unknown,
            "*" => Self::All { form, namespace },
            _ => Self::Class { form, namespace, class },
        }
    }

    /// How its client spells classes, where it names any.
    pub(crate) fn form(&self) -> Option<Form> {
        match self {
            Self::Class { form, .. } | Self::All { form, .. } => Some(*form),
            _ => None,
        }
    }
}

/// What follows a prefix, whose case does not count.
fn after<'u>(uri: &'u str, prefix: &str) -> Option<&'u str> {
    let head = uri.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &uri[prefix.len()..])
}

/// The selectors of a request or a reference, the namespace apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selectors {
    pub(crate) namespace: Option<String>,
    /// Texts, and references where a selector holds one.
    pub(crate) keys: Vec<(Name, Value)>,
}

impl Selectors {
    /// Reads a `w:SelectorSet`.
    pub(crate) fn read(set: Node<'_, '_>, depth: usize, default: &str) -> Result<Self, Fault> {
        let mut read = Self::default();
        for selector in elements(set).filter(|node| is(*node, uri::WSMAN, "Selector")) {
            if read.keys.len() >= MAX_SELECTORS {
                return Err(Fault::limit("selectors", MAX_SELECTORS));
            }
            let name = selector
                .attribute("Name")
                .or_else(|| selector.attribute((uri::WSMAN, "Name")))
                .ok_or_else(|| Fault::new(Code::InvalidSelectors, "a selector has no name"))?;
            if name.eq_ignore_ascii_case(NAMESPACE_SELECTOR) {
                read.namespace = Some(text(selector).trim().to_owned());
                continue;
            }
            if read.keys.iter().any(|(there, _)| *there == name) {
                return Err(Fault::new(Code::InvalidSelectors, format!("the selector {name} comes twice"))
                    .detail("DuplicateSelectors"));
            }
            let value = match child(selector, uri::ADDRESSING, "EndpointReference") {
                Some(reference) => reference_content(reference, depth + 1, default)?.into(),
                None => text(selector).into(),
            };
            read.keys.push((name.into(), value));
        }
        Ok(read)
    }
}

/// The instance or class that the content of an endpoint reference names: `a:Address` and `a:ReferenceParameters`.
pub(crate) fn reference_content(
    node: Node<'_, '_>,
    depth: usize,
    default: &str,
) -> Result<ObjectPath, Fault> {
    if depth > MAX_NESTED_REFERENCES {
        return Err(Fault::limit("references inside one another", MAX_NESTED_REFERENCES));
    }
    let wrong = |why: &str| Fault::new(Code::InvalidSelectors, format!("an endpoint reference {why}"));
    let parameters = child(node, uri::ADDRESSING, "ReferenceParameters")
        .ok_or_else(|| wrong("has no ReferenceParameters"))?;
    let uri = child(parameters, uri::WSMAN, "ResourceURI").ok_or_else(|| wrong("has no ResourceURI"))?;
    let selectors = match child(parameters, uri::WSMAN, "SelectorSet") {
        Some(set) => Selectors::read(set, depth, default)?,
        None => Selectors::default(),
    };
    let uri = text(uri);
    if uri.len() > MAX_URI {
        return Err(Fault::limit("bytes in a URI", MAX_URI));
    }
    match Resource::parse(&uri, selectors.namespace.as_deref(), default) {
        Resource::Class { namespace, class, .. } => {
            let mut path = ObjectPath::new(class).within(namespace);
            path.keys = selectors.keys;
            Ok(path)
        }
        _ => Err(wrong("names no class")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Resource};

    #[test]
    fn both_forms_name_the_same_class() {
        let class = |form| Resource::Class {
            form,
            namespace: "root/virtualization/v2".into(),
            class: "Msvm_ComputerSystem".into(),
        };
        for uri in [
            "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ComputerSystem",
            " HTTP://schemas.microsoft.com/wbem/wsman/1/WMI/root\\virtualization\\v2/Msvm_ComputerSystem ",
        ] {
            assert_eq!(Resource::parse(uri, None, "root/cimv2"), class(Form::Wmi), "{uri}");
        }
        let uri = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/Msvm_ComputerSystem";
        assert_eq!(Resource::parse(uri, Some(r"root\virtualization\v2"), "root/cimv2"), class(Form::Dmtf));
        assert_eq!(
            Resource::parse("http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/*", None, "root/cimv2"),
            Resource::All { form: Form::Dmtf, namespace: "root/cimv2".into() }
        );
        for nothing in ["", "http://", "http://schemas.microsoft.com/wbem/wsman/1/wmi/x", "é"] {
            assert_eq!(Resource::parse(nothing, None, "root/cimv2"), Resource::Unknown);
        }
    }
}
