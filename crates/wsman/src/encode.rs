//! Instances, values and references as elements of a reply (DSP0230, 7 and 8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cim::xml::Xml;
use cim::{Class, Instance, Name, ObjectPath, Parameter, Property, Schema, Value};

use crate::resource::{Form, NAMESPACE_SELECTOR};
use crate::time;
use crate::uri;

/// Writes what belongs to one namespace, in the spelling of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoder<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) namespace: &'s str,
    pub(crate) form: Form,
}

impl Encoder<'_> {
    /// The URI of a class of the namespace.
    pub(crate) fn uri(&self, class: &str) -> String {
        self.form.uri(self.namespace, class)
    }

    /// An instance with every property of `class`, which is its own or one above; only those of `selected` where given.
    pub(crate) fn instance(
        &self,
        xml: &mut Xml,
        instance: &Instance,
        class: Option<&Class>,
        selected: Option<&[Name]>,
    ) {
        let class = class.or_else(|| self.schema.class(instance.class.as_str()).map(AsRef::as_ref));
        let name = class.map_or(&instance.class, |class| &class.name);
        let tag = format!("p:{name}");
        xml.open(
            &tag,
            &[
                ("xmlns:p", &self.uri(name.as_str())),
                ("xmlns:cim", uri::CIM),
                ("xmlns:xsi", uri::XSI),
                ("xsi:type", &format!("p:{name}_Type")),
            ],
        );
        self.properties(xml, "p", instance, class, selected);
        xml.close(&tag);
    }

    fn properties(
        &self,
        xml: &mut Xml,
        prefix: &str,
        instance: &Instance,
        class: Option<&Class>,
        selected: Option<&[Name]>,
    ) {
        let wanted = |name: &Name| selected.is_none_or(|selected| selected.contains(name));
        match class {
            Some(class) => {
                for property in class.properties.iter().filter(|property| wanted(&property.name)) {
                    self.property(xml, prefix, property, instance.get(property.name.as_str()));
                }
            }
            None => {
                for (name, value) in instance.properties.iter().filter(|(name, _)| wanted(name)) {
                    self.value(xml, prefix, name, value.as_ref());
                }
            }
        }
    }

    /// A property as its class declares it.
    pub(crate) fn property(&self, xml: &mut Xml, prefix: &str, declared: &Property, value: Option<&Value>) {
        match value.filter(|_| declared.is_octets()) {
            Some(octets) => xml.element(&format!("{prefix}:{}", declared.name), &base64(octets)),
            None => self.value(xml, prefix, &declared.name, value),
        }
    }

    /// A parameter that a method gives, as it declares it.
    pub(crate) fn parameter(&self, xml: &mut Xml, prefix: &str, declared: &Parameter, value: Option<&Value>) {
        match value.filter(|_| declared.is_octets()) {
            Some(octets) => xml.element(&format!("{prefix}:{}", declared.name), &base64(octets)),
            None => self.value(xml, prefix, &declared.name, value),
        }
    }

    /// An element per value, and one that says nil where there is none. An array of nothing is no element at all: libvirt
    /// takes one that says nil for a value, and crashes over it.
    pub(crate) fn value(&self, xml: &mut Xml, prefix: &str, name: &Name, value: Option<&Value>) {
        let tag = format!("{prefix}:{name}");
        match value.map(Value::elements) {
            None => xml.empty(&tag, &[("xsi:nil", "true")]),
            Some(values) => {
                for value in values {
                    self.single(xml, &tag, value);
                }
            }
        }
    }

    fn single(&self, xml: &mut Xml, tag: &str, value: &Value) {
        match value {
            Value::Object(instance) => {
                let class = self.schema.class(instance.class.as_str()).map(AsRef::as_ref);
                let name = class.map_or(&instance.class, |class| &class.name);
                xml.open(
                    tag,
                    &[("xmlns:q", &self.uri(name.as_str())), ("xsi:type", &format!("q:{name}_Type"))],
                );
                self.properties(xml, "q", instance, class, None);
                xml.close(tag);
            }
            Value::Reference(path) => {
                xml.open(tag, &[]);
                self.reference(xml, path);
                xml.close(tag);
            }
            Value::Datetime(datetime) => {
                let (element, text) = time::spelled(datetime);
                xml.open(tag, &[]);
                xml.element(element, &text);
                xml.close(tag);
            }
            Value::Array(values) => {
                // No type of CIM is an array of arrays.
                for value in values {
                    self.single(xml, tag, value);
                }
            }
            Value::Real32(number) => xml.element(tag, &real(f64::from(*number), number.to_string())),
            Value::Real64(number) => xml.element(tag, &real(*number, number.to_string())),
            simple => xml.element(tag, &simple.to_string()),
        }
    }

    /// The content of an endpoint reference.
    pub(crate) fn reference(&self, xml: &mut Xml, path: &ObjectPath) {
        let namespace = path.namespace.as_deref().unwrap_or(self.namespace);
        xml.element("a:Address", uri::ANONYMOUS);
        xml.open("a:ReferenceParameters", &[]);
        xml.element("w:ResourceURI", &self.form.uri(namespace, path.class.as_str()));
        xml.open("w:SelectorSet", &[]);
        xml.open("w:Selector", &[("Name", NAMESPACE_SELECTOR)]);
        xml.text(namespace);
        xml.close("w:Selector");
        for (key, value) in &path.keys {
            xml.open("w:Selector", &[("Name", key.as_str())]);
            match value {
                Value::Reference(inner) => {
                    xml.open("a:EndpointReference", &[]);
                    self.reference(xml, inner);
                    xml.close("a:EndpointReference");
                }
                simple => xml.text(&simple.to_string()),
            }
            xml.close("w:Selector");
        }
        xml.close("w:SelectorSet");
        xml.close("a:ReferenceParameters");
    }

    /// An endpoint reference.
    pub(crate) fn endpoint(&self, xml: &mut Xml, path: &ObjectPath) {
        xml.open("a:EndpointReference", &[]);
        self.reference(xml, path);
        xml.close("a:EndpointReference");
    }
}

/// Bytes that belong together: clients read a picture this way.
fn base64(octets: &Value) -> String {
    let bytes = octets.elements().iter().filter_map(|octet| u8::try_from(octet.as_u64()?).ok());
    STANDARD.encode(bytes.collect::<Vec<u8>>())
}

/// XML spells what is no number in its own way.
fn real(number: f64, text: String) -> String {
    match number {
        n if n == f64::INFINITY => "INF".to_owned(),
        n if n == f64::NEG_INFINITY => "-INF".to_owned(),
        _ => text,
    }
}
