//! The responder: bytes of a request in, bytes of a reply out.
//!
//! It blocks where its operations do, and knows no socket; the server calls it on threads that may block. Every request gets
//! a reply: what cannot be answered is a fault.

mod about;
mod enumerate;
mod eventing;
mod filter;
mod invoke;
mod transfer;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use cim::xml::Xml;
use cim::{Class, ObjectPath, PathError, Property, Schema};

use crate::contexts::Contexts;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::envelope::{self, Head, Request};
use crate::fault::{Code, Fault};
use crate::limits::{MAX_ENVELOPE, MAX_FILTER};
use crate::operations::{Call, Failure, FailureKind, Operations, Principal};
use crate::resource::{Form, Resource};
use crate::server::{self, Attempt, Later};
use crate::text::{self, Encoding};
use crate::uri;

use enumerate::Enumeration;
use eventing::Subscriptions;

// A filter that is read at all is one that the parser takes.
const _: () = assert!(MAX_FILTER <= cim::query::MAX_TEXT);

/// What a responder says of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's name, as faults and queries (`__SERVER`) give it.
    pub host: String,
    /// `ProductVendor` of Identify.
    pub vendor: String,
    /// `ProductVersion` of Identify, for those who proved who they are.
    pub version: String,
    /// The namespace of requests that name none.
    pub default_namespace: String,
    /// How clients may prove who they are, as Identify lists it: `https/basic` (DSP0226, annex C).
    pub profiles: Vec<&'static str>,
}

/// A reply, and what was done for it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status of HTTP: 200, or 500 with a fault.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// The envelope.
    pub body: Vec<u8>,
    /// For the audit log.
    pub done: Done,
}

/// What was asked and how it ended, in words for a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// `Get`, `Enumerate`, the name of a method…
    pub operation: String,
    /// The instance or class concerned, as a path; what the request called it where that is none.
    pub target: String,
    /// True for what may have changed something.
    pub changes: bool,
    /// What kind of thing that is, in the word of whoever has the instances; empty where nothing may have changed.
    pub does: &'static str,
    /// What a method returned, where one was called.
    pub returned: Option<i64>,
    /// The code and reason of the fault, where it ended in one.
    pub fault: Option<String>,
}

/// Who is told what was done, for the audit log.
pub trait Audit: Send + Sync + 'static {
    /// Somebody's request was answered.
    fn done(&self, principal: &Principal, done: &Done);
}

/// Operations, as WS-Management offers them.
pub struct Responder {
    operations: Arc<dyn Operations>,
    audit: Arc<dyn Audit>,
    settings: Settings,
    contexts: Contexts<Enumeration>,
    subscriptions: Subscriptions,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A body, and what goes around it.
#[derive(Default)]
struct Reply {
    action: String,
    body: String,
    /// A header more, written.
    header: String,
}

/// What a fault answers, as far as that was read.
#[derive(Default)]
struct Asked<'a> {
    form: Option<Form>,
    relates_to: Option<String>,
    request: Option<&'a Request<'a>>,
}

impl Responder {
    /// One that answers out of `operations`, and tells `audit` of each request that came from a user.
    #[must_use]
    pub fn new(operations: Arc<dyn Operations>, audit: Arc<dyn Audit>, settings: Settings) -> Self {
        Self {
            operations,
            audit,
            settings,
            contexts: Contexts::default(),
            subscriptions: Subscriptions::default(),
        }
    }

    /// Answers a request from somebody who proved who they are.
    #[must_use]
    pub fn answer(&self, principal: &Principal, bytes: &[u8], content_type: Option<&str>) -> Answer {
        let (answer, _) = self.respond(Some(principal), bytes, content_type, Instant::now());
        self.audit.done(principal, &answer.done);
        answer
    }

    /// Answers somebody who did not: Identify, and nothing else.
    #[must_use]
    pub fn identify(&self, bytes: &[u8], content_type: Option<&str>) -> Answer {
        self.respond(None, bytes, content_type, Instant::now()).0
    }

    /// Enumerations that wait for a pull.
    #[must_use]
    pub fn open_enumerations(&self) -> usize {
        self.contexts.open()
    }

    /// The answer, and what it had better wait for, if it is one that says that nothing is there yet.
    fn respond(
        &self,
        principal: Option<&Principal>,
        bytes: &[u8],
        content_type: Option<&str>,
        received: Instant,
    ) -> (Answer, Option<Later>) {
        let mut done = Done::default();
        let decoded = if bytes.len() > MAX_ENVELOPE {
            let reason = format!("the request is larger than {MAX_ENVELOPE} bytes");
            Err(Fault::new(Code::EncodingLimit, reason).detail("MaxEnvelopeSize"))
        } else {
            text::decode(bytes, content_type).map_err(Fault::from)
        };
        let (text, encoding) = match decoded {
            Ok(decoded) => decoded,
            Err(fault) => return (self.faulted(&fault, &Asked::default(), Encoding::Utf8, done), None),
        };
        let document = match envelope::parse(&text) {
            Ok(document) => document,
            Err(fault) => return (self.faulted(&fault, &Asked::default(), encoding, done), None),
        };
        let request = match Request::read(&document, &self.settings.default_namespace) {
            Ok(request) => request,
            Err(fault) => {
                let asked = Asked { relates_to: Request::message_id_of(&document), ..Asked::default() };
                return (self.faulted(&fault, &asked, encoding, done), None);
            }
        };
        if request.is_identify() {
            done.operation = "Identify".to_owned();
            let body = encoding.encode(self.identity(principal.is_some()));
            return (Answer { status: 200, content_type: encoding.content_type(), body, done }, None);
        }
        let resource = request.resource.as_deref().map(|uri| {
            Resource::parse(uri, request.selectors.namespace.as_deref(), &self.settings.default_namespace)
        });
        let asked = Asked {
            form: resource.as_ref().and_then(Resource::form),
            relates_to: request.message_id.clone(),
            request: Some(&request),
        };
        let Some(principal) = principal else {
            let fault = Fault::new(Code::AccessDenied, "without a user there is only Identify");
            return (self.faulted(&fault, &asked, encoding, done), None);
        };
        let call = Call { principal: principal.clone(), deadline: received + request.timeout };
        let later = Cell::new(None);
        let turn =
            Turn { responder: self, request: &request, resource, call: &call, encoding, received, later };
        let answer = match turn.dispatch(&mut done).and_then(|reply| turn.finish(&reply, &done)) {
            Ok(text) => {
                let body = encoding.encode(text);
                Answer { status: 200, content_type: encoding.content_type(), body, done }
            }
            Err(fault) => self.faulted(&fault, &asked, encoding, done),
        };
        (answer, turn.later.take())
    }

    fn faulted(&self, fault: &Fault, asked: &Asked<'_>, encoding: Encoding, mut done: Done) -> Answer {
        done.fault = Some(format!("{}: {}", fault.name(), fault.reason()));
        let mut body = Xml::new();
        fault.write(&mut body, &self.settings.host, asked.form);
        let head = Head {
            action: fault.action(),
            relates_to: asked.relates_to.as_deref(),
            operation_id: asked.request.and_then(|request| request.operation_id.as_deref()),
            sequence_id: asked.request.and_then(|request| request.sequence_id.as_deref()),
            more: "",
        };
        let text = envelope::envelope(&head, body.as_str());
        Answer { status: 500, content_type: encoding.content_type(), body: encoding.encode(text), done }
    }
}

/// Where requests are posted.
const PATH: &str = "/wsman";
/// Where anybody may ask who is here.
const IDENTIFY: &str = "/wsman-anon/identify";

impl server::Handler for Responder {
    fn serves(&self, path: &str) -> bool {
        // A client adds a slash.
        let path = path.strip_suffix('/').unwrap_or(path);
        path.eq_ignore_ascii_case(PATH) || path.eq_ignore_ascii_case(IDENTIFY)
    }

    fn anonymous(&self, path: &str, unauthenticated: bool) -> bool {
        unauthenticated || path.trim_end_matches('/').eq_ignore_ascii_case(IDENTIFY)
    }

    fn answer(&self, request: &server::Request) -> Attempt {
        let content_type = Some(request.content_type.as_str()).filter(|text| !text.is_empty());
        let principal = request.principal.as_ref();
        let (answer, later) = self.respond(principal, &request.body, content_type, request.received);
        if let Some(later) = later.filter(|later| Instant::now() < later.until) {
            return Attempt::Later(later);
        }
        if let Some(principal) = principal {
            self.audit.done(principal, &answer.done);
        }
        Attempt::Reply(server::Reply {
            status: answer.status,
            content_type: Some(answer.content_type),
            headers: Vec::new(),
            body: answer.body,
        })
    }
}

/// One request being answered.
struct Turn<'t> {
    responder: &'t Responder,
    request: &'t Request<'t>,
    resource: Option<Resource>,
    call: &'t Call,
    encoding: Encoding,
    /// When the request came.
    received: Instant,
    /// What to wait for, where there is nothing to answer yet.
    later: Cell<Option<Later>>,
}

/// A class that a request is about, and what reads and writes values of it.
struct Subject<'t> {
    form: Form,
    namespace: &'t str,
    schema: &'t Schema,
    class: &'t Class,
}

impl<'t> Turn<'t> {
    fn dispatch(&self, done: &mut Done) -> Result<Reply, Fault> {
        let action = self.request.action.as_str();
        let name = action.rsplit('/').next().unwrap_or_default();
        done.operation = name.chars().take(100).collect();
        done.target = self.request.resource.clone().unwrap_or_default();
        if action.is_empty() {
            return Err(Fault::new(Code::HeaderRequired, "the request has no wsa:Action header"));
        }
        if matches!(self.resource, Some(Resource::Shell)) || action.starts_with(uri::SHELL) {
            return Err(Fault::new(
                Code::ShellNotServed,
                format!(
                    "there is no remote shell and no PowerShell here: this service offers CIM classes over \
                     WS-Management, such as {}root/virtualization/v2/Msvm_ComputerSystem",
                    uri::WMI
                ),
            ));
        }
        if let Some(option) = &self.request.must_comply {
            return Err(Fault::new(Code::InvalidOptions, format!("the option {option} is not known"))
                .detail("NotSupported"));
        }
        let base = action.strip_suffix(name).unwrap_or_default().trim_end_matches('/');
        match (base, name) {
            (uri::TRANSFER, "Get") => self.get(done),
            (uri::TRANSFER, "Put") => self.put(done),
            (uri::ENUMERATION, "Enumerate") => self.enumerate(done),
            (uri::ENUMERATION, "Pull") => self.pull(),
            (uri::ENUMERATION, "Release") => self.release(),
            (uri::EVENTING, "Subscribe") => self.subscribe(done),
            (uri::EVENTING, "Renew") => self.renew(),
            (uri::EVENTING, "GetStatus") => self.subscription_status(),
            (uri::EVENTING, "Unsubscribe") => self.unsubscribe(),
            (uri::TRANSFER | uri::ENUMERATION | uri::EVENTING, _) => Err(Fault::new(
                Code::ActionNotSupported,
                format!("the action {name} is not supported: methods make, change and remove what there is"),
            )),
            _ => self.invoke(name, done),
        }
    }

    /// The reply around its body, unless it is larger than the client takes.
    fn finish(&self, reply: &Reply, done: &Done) -> Result<String, Fault> {
        let text = envelope::envelope(&self.head(reply), &reply.body);
        let (size, most) = (self.encoding.size(&text), self.request.largest_reply);
        if size <= most {
            return Ok(text);
        }
        let (code, what) = if done.changes {
            (Code::UnreportableSuccess, "it was done, but the reply")
        } else {
            (Code::ReplyTooLarge, "the reply")
        };
        let reason =
            format!("{what} takes {size} bytes, and MaxEnvelopeSize allows {most}: ask again with more");
        Err(Fault::new(code, reason).detail("MaxEnvelopeSizeExceeded"))
    }

    fn head<'r>(&'r self, reply: &'r Reply) -> Head<'r> {
        Head {
            action: &reply.action,
            relates_to: self.request.message_id.as_deref(),
            operation_id: self.request.operation_id.as_deref(),
            sequence_id: self.request.sequence_id.as_deref(),
            more: &reply.header,
        }
    }

    /// The class that the resource URI names.
    fn subject(&self) -> Result<Subject<'_>, Fault> {
        match self.resource()? {
            Resource::Class { form, namespace, class } => {
                let schema = self.schema(namespace)?;
                let class = known_class(schema, class, namespace)?;
                Ok(Subject { form: *form, namespace, schema, class })
            }
            Resource::All { .. } => Err(invalid_uri("the resource URI names no class, but all of them")),
            _ => Err(unknown_uri()),
        }
    }

    fn resource(&self) -> Result<&Resource, Fault> {
        match &self.resource {
            Some(Resource::Unknown) => Err(unknown_uri()),
            Some(resource) => Ok(resource),
            None => Err(Fault::new(Code::HeaderRequired, "the request has no wsman:ResourceURI header")),
        }
    }

    fn schema(&self, namespace: &str) -> Result<&'t Schema, Fault> {
        let responder: &'t Responder = self.responder;
        responder.operations.schema(namespace).ok_or_else(|| {
            Failure::new(FailureKind::NoSuchNamespace, format!("there is no namespace {namespace}")).into()
        })
    }

    /// The instance that the selectors name. Some clients add properties that are no keys: `lenient` leaves those out.
    fn path(&self, subject: &Subject<'_>, lenient: bool) -> Result<ObjectPath, Fault> {
        let class = subject.class;
        let mut path = ObjectPath::new(class.name.clone()).within(subject.namespace);
        path.keys.clone_from(&self.request.selectors.keys);
        if lenient {
            path.keys.retain(|(name, _)| class.property(name.as_str()).is_none_or(Property::is_key));
        }
        path.resolved(subject.schema).map_err(|e| {
            let detail = match e {
                PathError::Value { .. } => "TypeMismatch",
                PathError::Twice { .. } => "DuplicateSelectors",
                _ => "UnexpectedSelectors",
            };
            Fault::new(Code::InvalidSelectors, format!("the selectors fit no instance: {e}")).detail(detail)
        })
    }
}

impl<'t> Subject<'t> {
    fn encoder(&self) -> Encoder<'t> {
        Encoder { schema: self.schema, namespace: self.namespace, form: self.form }
    }

    fn decoder(&self, responder: &'t Responder) -> Decoder<'t> {
        Decoder {
            schema: self.schema,
            namespace: self.namespace,
            default_namespace: &responder.settings.default_namespace,
        }
    }
}

fn known_class<'s>(schema: &'s Schema, class: &str, namespace: &str) -> Result<&'s Class, Fault> {
    schema.class(class).map(AsRef::as_ref).ok_or_else(|| {
        let reason = format!("there is no class {class} in the namespace {namespace}");
        Failure::new(FailureKind::NoSuchClass, reason).into()
    })
}

fn unknown_uri() -> Fault {
    invalid_uri("the resource URI names nothing that is served here")
}

fn invalid_uri(why: &str) -> Fault {
    Fault::new(Code::DestinationUnreachable, why).detail("InvalidResourceURI")
}
