//! Get and Put, of whole instances and of parts.

use cim::xml::Xml;
use cim::{Instance, Property, Value};

use super::{Done, Reply, Subject, Turn};
use crate::encode::Encoder;
use crate::envelope::Fragment;
use crate::fault::{Code, Fault};
use crate::operations::changes;
use crate::resource::Resource;
use crate::uri;
use crate::xml::is;

/// How fragments are named, beside XPath 1.0.
const XPATH_LEVEL_1: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/xpath-level-1";

impl Turn<'_> {
    pub(super) fn get(&self, done: &mut Done) -> Result<Reply, Fault> {
        if let Resource::Config { part } = self.resource()? {
            return self.configuration(part);
        }
        let subject = self.subject()?;
        let path = self.path(&subject, false)?;
        done.target = path.to_string();
        let instance = self.responder.operations.get(self.call, subject.namespace, &path)?;
        self.represented(&subject, &instance, "GetResponse")
    }

    /// Changes what differs from what is there. So a client may send back all that it was given, as some do, with what
    /// cannot be changed in it.
    pub(super) fn put(&self, done: &mut Done) -> Result<Reply, Fault> {
        if matches!(self.resource()?, Resource::Config { .. }) {
            let reason = "the configuration is changed in the daemon's own file";
            return Err(Fault::new(Code::ActionNotSupported, reason));
        }
        let subject = self.subject()?;
        let path = self.path(&subject, true)?;
        done.target = path.to_string();
        let sent = match &self.request.fragment {
            Some(fragment) => self.sent_fragment(&subject, fragment)?,
            None => self.sent_instance(&subject)?,
        };
        let operations = &self.responder.operations;
        let current = operations.get(self.call, subject.namespace, &path)?;
        let changed = changes(&current, subject.class, sent.properties).map_err(|name| {
            let reason = format!("the property {name} is a key, and has another value");
            Fault::new(Code::InvalidRepresentation, reason).detail("InvalidValues")
        })?;
        let now = if changed.properties.is_empty() {
            current
        } else {
            done.changes = true;
            done.does = operations.does(subject.namespace, path.class.as_str(), None);
            operations.modify(self.call, subject.namespace, &path, &changed)?
        };
        self.represented(&subject, &now, "PutResponse")
    }

    fn sent_instance(&self, subject: &Subject<'_>) -> Result<Instance, Fault> {
        let body =
            self.request.body.ok_or_else(|| Fault::schema("the request has no instance in its body"))?;
        let (name, class) = (body.tag_name().name(), subject.class.name.as_str());
        // The element is of the instance's class, which may be above or below that of the URI.
        if !subject.schema.is_a(name, class) && !subject.schema.is_a(class, name) {
            let reason = format!("the body is a {name}, and not a {class}");
            return Err(Fault::new(Code::InvalidRepresentation, reason).detail("InvalidNamespace"));
        }
        subject.decoder(self.responder).instance(body, name).map_err(|problem| {
            Fault::new(Code::InvalidRepresentation, format!("the instance {problem}")).detail("InvalidValues")
        })
    }

    fn sent_fragment(&self, subject: &Subject<'_>, fragment: &Fragment) -> Result<Instance, Fault> {
        let part = Part::parse(fragment, subject)?;
        let body =
            self.request.body.filter(|body| is(*body, uri::WSMAN, "XmlFragment")).ok_or_else(|| {
                Fault::schema("the body of a request about a fragment is a wsman:XmlFragment")
            })?;
        if part.place.is_some() {
            return Err(unsupported("an element of an array is not changed alone: send all of them"));
        }
        let Property { name, ty, array, .. } = part.property;
        let decoder = subject.decoder(self.responder);
        let value = if part.text && !array {
            decoder.value(body, ty)
        } else {
            decoder.collected(body, name.as_str(), ty, *array)
        };
        let value = value.map_err(|problem| {
            Fault::new(Code::InvalidRepresentation, format!("the property {name} {problem}"))
                .detail("InvalidValues")
        })?;
        let mut instance = Instance::new(subject.class.name.clone());
        instance.set(name.clone(), value);
        Ok(instance)
    }

    fn represented(&self, subject: &Subject<'_>, instance: &Instance, name: &str) -> Result<Reply, Fault> {
        let mut reply = Reply { action: format!("{}/{name}", uri::TRANSFER), ..Reply::default() };
        let encoder = subject.encoder();
        let mut xml = Xml::new();
        if let Some(fragment) = &self.request.fragment {
            let part = Part::parse(fragment, subject)?;
            let class = encoder.uri(subject.class.name.as_str());
            xml.open("w:XmlFragment", &[("xmlns:p", &class), ("xmlns:cim", uri::CIM)]);
            part.write(&mut xml, &encoder, instance.get(part.property.name.as_str()));
            xml.close("w:XmlFragment");
            let mut attributes = vec![("s:mustUnderstand", "true")];
            attributes.extend(fragment.dialect.as_deref().map(|dialect| ("Dialect", dialect)));
            let mut header = Xml::new();
            header.open("w:FragmentTransfer", &attributes);
            header.text(&fragment.expression);
            header.close("w:FragmentTransfer");
            reply.header = header.into_string();
        } else {
            encoder.instance(&mut xml, instance, None, None);
        }
        reply.body = xml.into_string();
        Ok(reply)
    }
}

/// A part of an instance: `Property`, `Property[2]`, either with `/text()` behind it.
struct Part<'s> {
    property: &'s Property,
    /// The element of an array, counted from one.
    place: Option<usize>,
    text: bool,
}

impl<'s> Part<'s> {
    fn parse(fragment: &Fragment, subject: &Subject<'s>) -> Result<Self, Fault> {
        let dialect = fragment.dialect.as_deref().unwrap_or(uri::XPATH);
        if !dialect.eq_ignore_ascii_case(uri::XPATH) && !dialect.eq_ignore_ascii_case(XPATH_LEVEL_1) {
            return Err(unsupported(&format!("fragments are named in XPath 1.0, not in {dialect}")));
        }
        let expression = fragment.expression.as_str();
        let (rest, text) = match expression.strip_suffix("/text()") {
            Some(rest) => (rest, true),
            None => (expression, false),
        };
        let (rest, place) = match rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((rest, place)) => {
                let place = place.trim().parse().ok().filter(|place| *place > 0);
                (rest, Some(place.ok_or_else(|| wrong(expression))?))
            }
            None => (rest, None),
        };
        // A prefix and the name of the class in front of it change nothing.
        let local = rest.rsplit(['/', ':']).next().unwrap_or_default();
        let property = subject.class.property(local).ok_or_else(|| wrong(expression))?;
        Ok(Self { property, place, text })
    }

    fn write(&self, xml: &mut Xml, encoder: &Encoder<'_>, value: Option<&Value>) {
        let value = match self.place {
            Some(place) => value.and_then(|value| value.elements().get(place - 1)),
            None => value,
        };
        if self.text {
            for value in value.map(Value::elements).unwrap_or_default() {
                xml.text(&value.to_string());
            }
        } else if self.place.is_none() || value.is_some() {
            encoder.property(xml, "p", self.property, value);
        }
    }
}

fn wrong(expression: &str) -> Fault {
    unsupported(&format!(
        "the fragment {expression} names no property: write Property, Property[2] or Property/text()"
    ))
}

fn unsupported(why: &str) -> Fault {
    Fault::new(Code::UnsupportedFeature, why).detail("FragmentLevelAccess")
}
