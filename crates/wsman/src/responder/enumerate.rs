//! Enumerate, Pull and Release (DSP0226, 8).
//!
//! An enumeration holds an iterator and at most one instance that did not fit: what a client does not pull is not made. One
//! instance is looked at ahead, so that the reply with the last one says that it is.

use std::time::{Duration, Instant};

use cim::xml::{Xml, elements, text};
use cim::{Class, Instance, Name, ObjectPath};
use roxmltree::Node;

use super::{Done, Reply, Turn, unknown_uri};
use crate::contexts;
use crate::encode::Encoder;
use crate::envelope;
use crate::fault::{Code, Fault};
use crate::limits::MAX_BATCH;
use crate::operations::{Failure, Instances};
use crate::query::Found;
use crate::resource::{Form, Resource};
use crate::text::Encoding;
use crate::time;
use crate::uri;
use crate::xml::is;

/// What an enumeration gives for each instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Object,
    Reference,
    Both,
}

/// An enumeration between two pulls.
pub(super) struct Enumeration {
    items: Instances,
    /// Looked at, and not given yet.
    ahead: Option<Instance>,
    /// What the operations refused after instances that had to be given first.
    failed: Option<Failure>,
    over: bool,
    namespace: String,
    form: Form,
    mode: Mode,
    /// Instances are shown as of this class, one above theirs.
    shown_as: Option<Name>,
    /// Only these properties.
    selected: Option<Vec<Name>>,
    /// Only the keys.
    keys_only: bool,
}

/// How much a reply may hold.
pub(super) struct Batch {
    pub(super) most: usize,
    /// Bytes for the items, in the reply's encoding.
    pub(super) bytes: usize,
    pub(super) encoding: Encoding,
    pub(super) deadline: Instant,
}

impl Enumeration {
    /// Writes instances until the batch is full or all are given.
    fn fill(&mut self, encoder: &Encoder<'_>, batch: &Batch, xml: &mut Xml) -> Result<(), Fault> {
        let (mut count, mut used) = (0, 0);
        while count < batch.most {
            let Some(instance) = self.next(count > 0)? else { break };
            let mut item = Xml::new();
            self.write(encoder, &instance, &mut item);
            let size = batch.encoding.size(item.as_str());
            if used + size > batch.bytes {
                if count > 0 {
                    self.ahead = Some(instance);
                    return Ok(());
                }
                let reason = format!(
                    "an instance takes {size} bytes, and MaxEnvelopeSize leaves {}: ask again with more",
                    batch.bytes
                );
                return Err(Fault::new(Code::ReplyTooLarge, reason).detail("MaxEnvelopeSizeExceeded"));
            }
            xml.raw(item.as_str());
            used += size;
            count += 1;
            if Instant::now() >= batch.deadline {
                break;
            }
        }
        // With this, the last instance and the end go out together.
        self.ahead = self.next(true)?;
        Ok(())
    }

    /// The next instance. A refusal is kept for later where there is something to give before it.
    fn next(&mut self, later: bool) -> Result<Option<Instance>, Fault> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        if self.failed.is_none() && !self.over {
            match self.items.next() {
                Some(Ok(instance)) => return Ok(Some(instance)),
                Some(Err(failure)) => self.failed = Some(failure),
                None => self.over = true,
            }
        }
        if later {
            return Ok(None);
        }
        match self.failed.take() {
            Some(failure) => {
                self.over = true;
                Err(failure.into())
            }
            None => Ok(None),
        }
    }

    fn ended(&self) -> bool {
        self.over && self.ahead.is_none() && self.failed.is_none()
    }

    fn write(&self, encoder: &Encoder<'_>, instance: &Instance, xml: &mut Xml) {
        let class = |name: &Name| encoder.schema.class(name.as_str()).map(AsRef::as_ref);
        let own: Option<&Class> = class(&instance.class);
        let shown = self.shown_as.as_ref().and_then(class).or(own);
        let both = self.mode == Mode::Both;
        if both {
            xml.open("w:Item", &[]);
        }
        if self.mode != Mode::Reference {
            if self.keys_only {
                let keys: Vec<Name> =
                    own.into_iter().flat_map(Class::keys).map(|key| key.name.clone()).collect();
                encoder.instance(xml, instance, shown, Some(&keys));
            } else {
                encoder.instance(xml, instance, shown, self.selected.as_deref());
            }
        }
        if self.mode != Mode::Object {
            let path = match (&instance.path, own) {
                (Some(path), _) => path.clone(),
                (None, Some(class)) => ObjectPath::of(instance, class),
                (None, None) => ObjectPath::new(instance.class.clone()),
            };
            encoder.endpoint(xml, &path);
        }
        if both {
            xml.close("w:Item");
        }
    }
}

/// The elements of an Enumerate that matter.
struct Asked<'d> {
    optimized: bool,
    most: usize,
    mode: Mode,
    filter: Option<Node<'d, 'd>>,
    idle: Option<Duration>,
    polymorphism: Polymorphism,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Polymorphism {
    Include,
    Exclude,
    None,
}

impl<'d> Asked<'d> {
    fn read(body: Node<'d, 'd>) -> Result<Self, Fault> {
        let mut asked = Self {
            optimized: false,
            most: 1,
            mode: Mode::Object,
            filter: None,
            idle: None,
            polymorphism: Polymorphism::Include,
        };
        let unknown = |what: &str, word: &str, detail| {
            Err(Fault::new(Code::UnsupportedFeature, format!("there is no {what} {word}")).detail(detail))
        };
        for node in elements(body) {
            match node.tag_name().name() {
                "OptimizeEnumeration" => asked.optimized = true,
                "MaxElements" => asked.most = most(node)?,
                "EnumerationMode" => {
                    asked.mode = match text(node).trim() {
                        "" | "EnumerateObject" => Mode::Object,
                        "EnumerateEPR" => Mode::Reference,
                        "EnumerateObjectAndEPR" => Mode::Both,
                        word => return unknown("enumeration mode", word, "EnumerationMode"),
                    }
                }
                "PolymorphismMode" => {
                    asked.polymorphism = match text(node).trim() {
                        "" | "IncludeSubClassProperties" => Polymorphism::Include,
                        "ExcludeSubClassProperties" => Polymorphism::Exclude,
                        "None" => Polymorphism::None,
                        word => return unknown("polymorphism mode", word, "PolymorphismMode"),
                    }
                }
                "Filter" => asked.filter = Some(node),
                // A point in time is taken as the longest.
                "Expires" => asked.idle = time::duration(&text(node)),
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// A number of elements, as large as anybody may ask for.
fn most(node: Node<'_, '_>) -> Result<usize, Fault> {
    let number: Option<u64> = text(node).trim().parse().ok();
    let number = number.filter(|number| *number > 0);
    let number = number.ok_or_else(|| Fault::schema("MaxElements is no number of elements"))?;
    Ok(usize::try_from(number).unwrap_or(MAX_BATCH).min(MAX_BATCH))
}

impl Turn<'_> {
    pub(super) fn enumerate(&self, done: &mut Done) -> Result<Reply, Fault> {
        let (form, namespace, class) = match self.resource()? {
            Resource::Class { form, namespace, class } => (*form, namespace, Some(class.as_str())),
            Resource::All { form, namespace } => (*form, namespace, None),
            Resource::Config { .. } => return Err(self.configuration_is_one()),
            _ => return Err(unknown_uri()),
        };
        let asked = Asked::read(self.body("Enumerate")?)?;
        let Found { items, class, selected, keys_only } =
            self.source(namespace, class, asked.filter, done)?;
        let items: Instances = match (asked.polymorphism, class.clone()) {
            (Polymorphism::None, Some(class)) => {
                Box::new(items.filter(move |item| item.as_ref().map_or(true, |item| item.class == class)))
            }
            _ => items,
        };
        let mut enumeration = Enumeration {
            items,
            ahead: None,
            failed: None,
            over: false,
            namespace: namespace.clone(),
            form,
            mode: asked.mode,
            shown_as: class.filter(|_| asked.polymorphism == Polymorphism::Exclude),
            selected,
            keys_only,
        };
        let mut reply =
            Reply { action: format!("{}/EnumerateResponse", uri::ENUMERATION), ..Reply::default() };
        let mut items = Xml::new();
        if asked.optimized {
            let batch = self.batch(&reply, asked.most, None, None);
            self.fill(&mut enumeration, &batch, &mut items)?;
        }
        let over = asked.optimized && enumeration.ended();
        let mut xml = Xml::new();
        xml.open("n:EnumerateResponse", &[]);
        if over {
            xml.empty("n:EnumerationContext", &[]);
        } else {
            let (user, open) = (&self.call.principal.user, &self.responder.contexts);
            let context = open.keep(user, asked.idle, enumeration, Instant::now())?;
            xml.element("n:EnumerationContext", &contexts::spelled(context));
        }
        if asked.optimized {
            xml.open("w:Items", &[]);
            xml.raw(items.as_str());
            xml.close("w:Items");
            if over {
                xml.empty("w:EndOfSequence", &[]);
            }
        }
        xml.close("n:EnumerateResponse");
        reply.body = xml.into_string();
        Ok(reply)
    }

    fn configuration_is_one(&self) -> Fault {
        let mut inside = self.request.body.into_iter().flat_map(elements);
        if inside.any(|element| element.tag_name().name() == "Filter") {
            Fault::new(Code::FilteringNotSupported, "the configuration is not filtered")
        } else {
            Fault::new(Code::ActionNotSupported, "the configuration is one, and is not enumerated: get it")
        }
    }

    /// The context decides what is pulled, not the resource URI: clients repeat another one.
    pub(super) fn pull(&self) -> Result<Reply, Fault> {
        let body = self.body("Pull")?;
        let (mut most_items, mut characters, mut wait) = (1, None, None);
        for node in elements(body) {
            match node.tag_name().name() {
                "MaxElements" => most_items = most(node)?,
                "MaxCharacters" => characters = text(node).trim().parse().ok(),
                "MaxTime" => wait = time::duration(&text(node)),
                _ => {}
            }
        }
        let (user, context) = (&self.call.principal.user, context(body)?);
        let mut reply = Reply { action: format!("{}/PullResponse", uri::ENUMERATION), ..Reply::default() };
        let batch = self.batch(&reply, most_items, characters, wait);
        if let Some(subscription) = self.responder.subscriptions.get(user, &context, Instant::now()) {
            return self.pull_events(&subscription, &batch);
        }
        let open = &self.responder.contexts;
        let (id, mut enumeration) = open.take(user, &context, Instant::now())?;
        let mut items = Xml::new();
        let filled = self.fill(&mut enumeration, &batch, &mut items);
        let over = enumeration.ended();
        let context = if over {
            open.close(id);
            None
        } else {
            open.give_back(id, enumeration, Instant::now());
            Some(contexts::spelled(id))
        };
        filled?;
        let mut xml = Xml::new();
        xml.open("n:PullResponse", &[]);
        if let Some(context) = context {
            xml.element("n:EnumerationContext", &context);
        }
        xml.open("n:Items", &[]);
        xml.raw(items.as_str());
        xml.close("n:Items");
        if over {
            xml.empty("n:EndOfSequence", &[]);
        }
        xml.close("n:PullResponse");
        reply.body = xml.into_string();
        Ok(reply)
    }

    pub(super) fn release(&self) -> Result<Reply, Fault> {
        let (user, context) = (&self.call.principal.user, context(self.body("Release")?)?);
        match self.responder.subscriptions.get(user, &context, Instant::now()) {
            Some(subscription) => self.responder.subscriptions.end(&subscription),
            None => self.responder.contexts.release(user, &context)?,
        }
        Ok(Reply { action: format!("{}/ReleaseResponse", uri::ENUMERATION), ..Reply::default() })
    }

    fn fill(&self, enumeration: &mut Enumeration, batch: &Batch, items: &mut Xml) -> Result<(), Fault> {
        let namespace = enumeration.namespace.clone();
        let schema = self.schema(&namespace)?;
        let encoder = Encoder { schema, namespace: &namespace, form: enumeration.form };
        enumeration.fill(&encoder, batch, items)
    }

    /// What a reply leaves for items once its headers are in it.
    fn batch(&self, reply: &Reply, most: usize, characters: Option<usize>, wait: Option<Duration>) -> Batch {
        /// Characters around the items: the response, the context, the end of the sequence. Twice that in UTF-16.
        const AROUND: usize = 512;
        let around = self.encoding.size(&envelope::envelope(&self.head(reply), "")) + 2 * AROUND;
        let bytes = self.request.largest_reply.saturating_sub(around).min(characters.unwrap_or(usize::MAX));
        let wanted = wait.and_then(|wait| self.received.checked_add(wait));
        let deadline = wanted.map_or(self.call.deadline, |end| end.min(self.call.deadline));
        Batch { most, bytes, encoding: self.encoding, deadline }
    }

    fn body(&self, name: &str) -> Result<Node<'_, '_>, Fault> {
        let body = self.request.body.filter(|body| is(*body, uri::ENUMERATION, name));
        body.ok_or_else(|| Fault::schema(format!("the body of the request is no wsen:{name}")))
    }
}

fn context(body: Node<'_, '_>) -> Result<String, Fault> {
    body.children()
        .find(|node| is(*node, uri::ENUMERATION, "EnumerationContext"))
        .map(text)
        .ok_or_else(|| Fault::new(Code::InvalidContext, "the request names no enumeration"))
}
