//! Messages (DSP0201, 5.2): what is asked, of which namespace or object, with which parameters.

use cim::xml::{BoundsError, elements};
use cim::{Name, ObjectPath};
use roxmltree::{Document, Node};

use crate::error::ProtocolError;
use crate::limits::{BOUNDS, MAX_NAMESPACE};

/// What a request is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// An operation of CIM itself, on a namespace.
    Intrinsic,
    /// A method of the class or instance at that path, which has no namespace.
    Extrinsic(ObjectPath),
}

/// A request.
#[derive(Debug)]
pub struct Request<'d> {
    /// The message's id, which the reply repeats.
    pub id: &'d str,
    /// The operation or method.
    pub name: &'d str,
    /// The namespace, with slashes.
    pub namespace: String,
    /// What it is about.
    pub target: Target,
    /// `IPARAMVALUE` and `PARAMVALUE` elements by name.
    pub parameters: Vec<(Name, Node<'d, 'd>)>,
}

/// The tree of a text within [`BOUNDS`].
///
/// # Errors
/// It is beyond them, or no XML.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, ProtocolError> {
    BOUNDS.parse(text).map_err(|e| match e {
        BoundsError::Malformed(_) => ProtocolError::malformed(e.to_string()),
        other => ProtocolError::invalid(other.to_string()),
    })
}

fn loose(why: impl Into<String>) -> ProtocolError {
    ProtocolError::loose(why)
}

fn attribute<'d>(node: Node<'d, 'd>, name: &str) -> Result<&'d str, ProtocolError> {
    node.attribute(name).ok_or_else(|| loose(format!("{} has no {name}", node.tag_name().name())))
}

/// The one element inside, of any of those names.
fn only<'d>(node: Node<'d, 'd>, names: &[&str]) -> Result<Node<'d, 'd>, ProtocolError> {
    let mut inside = elements(node);
    match (inside.next(), inside.next()) {
        (Some(one), None) if names.contains(&one.tag_name().name()) => Ok(one),
        _ => Err(loose(format!("{} holds one of {}", node.tag_name().name(), names.join(", ")))),
    }
}

/// Whether a version is of a generation that is understood; one that is not given is.
fn generation(given: Option<&str>, major: &str) -> bool {
    given.is_none_or(|given| given.split_once('.').is_some_and(|(first, _)| first.trim() == major))
}

impl<'d> Request<'d> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is none that a server answers, or of another version.
    pub fn read(document: &'d Document<'d>) -> Result<Self, ProtocolError> {
        let root = document.root_element();
        if root.tag_name().name() != "CIM" {
            return Err(loose(format!("the request is a {}, and no CIM", root.tag_name().name())));
        }
        let unsupported = ProtocolError::unsupported;
        if !generation(root.attribute("CIMVERSION"), "2") {
            return Err(unsupported("unsupported-cim-version", "CIMVERSION is 2.x here"));
        }
        if !generation(root.attribute("DTDVERSION"), "2") {
            return Err(unsupported("unsupported-dtd-version", "DTDVERSION is 2.x here"));
        }
        let message = only(root, &["MESSAGE"])?;
        if !generation(message.attribute("PROTOCOLVERSION"), "1") {
            return Err(unsupported("unsupported-protocol-version", "PROTOCOLVERSION is 1.x here"));
        }
        let id = attribute(message, "ID")?;
        let request = only(message, &["SIMPLEREQ", "MULTIREQ", "SIMPLEEXPREQ", "MULTIEXPREQ"])?;
        match request.tag_name().name() {
            "SIMPLEREQ" => {}
            "MULTIREQ" => {
                let why = "several operations in one message are not taken: send one";
                return Err(unsupported("multiple-requests-unsupported", why));
            }
            _ => return Err(ProtocolError::operation("this is a server, and no listener for indications")),
        }
        let call = only(request, &["IMETHODCALL", "METHODCALL"])?;
        let name = attribute(call, "NAME")?;
        let intrinsic = call.tag_name().name() == "IMETHODCALL";
        let mut inside = elements(call);
        let about = inside.next().ok_or_else(|| loose("the call says nothing of what it is about"))?;
        let (namespace, target) = if intrinsic {
            (namespace(about)?, Target::Intrinsic)
        } else {
            let (space, path) = object(about)?;
            (space, Target::Extrinsic(path))
        };
        let tag = if intrinsic { "IPARAMVALUE" } else { "PARAMVALUE" };
        let mut parameters: Vec<(Name, Node<'_, '_>)> = Vec::new();
        for node in inside {
            if node.tag_name().name() != tag {
                return Err(loose(format!("expected {tag}, found {}", node.tag_name().name())));
            }
            parameters.push((attribute(node, "NAME")?.into(), node));
        }
        Ok(Self { id, name, namespace, target, parameters })
    }

    /// The value of the header `CIMObject` that goes with it: the namespace, or the path.
    pub(crate) fn object(&self) -> ObjectPath {
        match &self.target {
            Target::Intrinsic => ObjectPath::new("").within(self.namespace.clone()),
            Target::Extrinsic(path) => path.clone().within(self.namespace.clone()),
        }
    }
}

/// The namespace in a `LOCALNAMESPACEPATH`.
fn namespace(node: Node<'_, '_>) -> Result<String, ProtocolError> {
    if node.tag_name().name() != "LOCALNAMESPACEPATH" {
        let found = node.tag_name().name();
        return Err(loose(format!("expected LOCALNAMESPACEPATH, found {found}")));
    }
    let mut name = String::new();
    for part in elements(node) {
        if part.tag_name().name() != "NAMESPACE" {
            return Err(loose("a LOCALNAMESPACEPATH holds NAMESPACEs"));
        }
        let part = part.attribute("NAME").ok_or_else(|| loose("a NAMESPACE has no NAME"))?;
        if name.len() + part.len() >= MAX_NAMESPACE {
            return Err(ProtocolError::invalid(format!("a namespace has at most {MAX_NAMESPACE} bytes")));
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part);
    }
    if name.is_empty() {
        return Err(loose("the namespace has no name"));
    }
    Ok(name)
}

/// Namespace and path of what a method is called on.
fn object(node: Node<'_, '_>) -> Result<(String, ObjectPath), ProtocolError> {
    let name = node.tag_name().name();
    if !matches!(name, "LOCALINSTANCEPATH" | "LOCALCLASSPATH") {
        return Err(loose(format!("expected LOCALINSTANCEPATH or LOCALCLASSPATH, found {name}")));
    }
    let space = elements(node).find(|inside| inside.tag_name().name() == "LOCALNAMESPACEPATH");
    let space = namespace(space.ok_or_else(|| loose(format!("{name} has no LOCALNAMESPACEPATH")))?)?;
    // Types of keys are the schema's business, which is known once the namespace is.
    let nothing = cim::Schema::default();
    let path = cim::xml::Reader::new(&nothing).path(node).map_err(|e| loose(e.to_string()))?;
    Ok((space, ObjectPath { host: None, namespace: None, ..path }))
}
