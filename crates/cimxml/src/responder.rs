//! The responder: a request of HTTP in, a reply out.
//!
//! It blocks where its operations do, and knows no socket; the server calls it on threads that may block.

use std::sync::Arc;
use std::time::Instant;

use cim::Schema;
use cim::xml::Xml;
use wsman::contexts::Contexts;
use wsman::text::{self, Encoding};
use wsman::{Audit, Call, Done, Operations, Principal, server};

use crate::error::{CimError, ProtocolError, Status};
use crate::headers::Prefix;
use crate::limits::{MAX_REPLY, MAX_REQUEST, MAX_TIME};
use crate::message::{self, Request, Target};
use crate::parameters::Parameters;
use crate::pulls::Enumeration;

/// Where requests are posted.
const PATH: &str = "/cimom";

/// Objects as elements, as they are made.
pub(crate) type Objects = Box<dyn Iterator<Item = Result<String, CimError>> + Send>;

/// What an operation gives.
pub(crate) struct Outcome {
    /// What it returns; none where it returns nothing.
    pub(crate) objects: Option<Objects>,
    /// `PARAMVALUE`s behind it.
    pub(crate) more: String,
}

impl Outcome {
    pub(crate) fn objects(objects: Objects) -> Self {
        Self { objects: Some(objects), more: String::new() }
    }

    pub(crate) fn one(xml: Xml) -> Self {
        Self::objects(Box::new(std::iter::once(Ok(xml.into_string()))))
    }

    pub(crate) fn nothing() -> Self {
        Self { objects: None, more: String::new() }
    }
}

/// One request being answered.
pub(crate) struct Turn<'t> {
    pub(crate) operations: &'t Arc<dyn Operations>,
    pub(crate) contexts: &'t Contexts<Enumeration>,
    pub(crate) host: &'t str,
    pub(crate) call: &'t Call,
    pub(crate) namespace: &'t str,
    pub(crate) schema: &'t Schema,
}

type Does = fn(&Turn<'_>, &Parameters<'_>, &mut Done) -> Result<Outcome, CimError>;

/// An operation of CIM itself: its name, its parameters, what it does.
struct Operation {
    name: &'static str,
    parameters: &'static [&'static str],
    does: Does,
}

macro_rules! operations {
    ($($name:literal ($($parameter:literal),*) $does:ident;)*) => {
        &[$(Operation { name: $name, parameters: &[$($parameter),*], does: |turn, given, done| turn.$does(given, done) }),*]
    };
}

/// All that are served. Those of DSP0200 that are not here are not supported.
#[rustfmt::skip]
const OPERATIONS: &[Operation] = operations! {
    "GetInstance" ("InstanceName", "LocalOnly", "IncludeQualifiers", "IncludeClassOrigin", "PropertyList") get_instance;
    "EnumerateInstances" ("ClassName", "LocalOnly", "DeepInheritance", "IncludeQualifiers", "IncludeClassOrigin", "PropertyList") enumerate_instances;
    "EnumerateInstanceNames" ("ClassName") enumerate_instance_names;
    "CreateInstance" ("NewInstance") create_instance;
    "ModifyInstance" ("ModifiedInstance", "IncludeQualifiers", "PropertyList") modify_instance;
    "DeleteInstance" ("InstanceName") delete_instance;
    "GetProperty" ("InstanceName", "PropertyName") get_property;
    "SetProperty" ("InstanceName", "PropertyName", "NewValue") set_property;
    "ExecQuery" ("QueryLanguage", "Query") exec_query;
    "Associators" ("ObjectName", "AssocClass", "ResultClass", "Role", "ResultRole", "IncludeQualifiers", "IncludeClassOrigin", "PropertyList") associators;
    "AssociatorNames" ("ObjectName", "AssocClass", "ResultClass", "Role", "ResultRole") associator_names;
    "References" ("ObjectName", "ResultClass", "Role", "IncludeQualifiers", "IncludeClassOrigin", "PropertyList") references;
    "ReferenceNames" ("ObjectName", "ResultClass", "Role") reference_names;
    "GetClass" ("ClassName", "LocalOnly", "IncludeQualifiers", "IncludeClassOrigin", "PropertyList") get_class;
    "EnumerateClasses" ("ClassName", "DeepInheritance", "LocalOnly", "IncludeQualifiers", "IncludeClassOrigin") enumerate_classes;
    "EnumerateClassNames" ("ClassName", "DeepInheritance") enumerate_class_names;
    "EnumerateQualifiers" () enumerate_qualifiers;
    "GetQualifier" ("QualifierName") get_qualifier;
    "OpenEnumerateInstances" ("ClassName", "DeepInheritance", "IncludeClassOrigin", "PropertyList", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_instances;
    "OpenEnumerateInstancePaths" ("ClassName", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_paths;
    "OpenAssociatorInstances" ("InstanceName", "AssocClass", "ResultClass", "Role", "ResultRole", "IncludeClassOrigin", "PropertyList", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_associators;
    "OpenAssociatorInstancePaths" ("InstanceName", "AssocClass", "ResultClass", "Role", "ResultRole", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_associator_paths;
    "OpenReferenceInstances" ("InstanceName", "ResultClass", "Role", "IncludeClassOrigin", "PropertyList", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_references;
    "OpenReferenceInstancePaths" ("InstanceName", "ResultClass", "Role", "FilterQueryLanguage", "FilterQuery", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_reference_paths;
    "OpenQueryInstances" ("FilterQuery", "FilterQueryLanguage", "ReturnQueryResultClass", "OperationTimeout", "ContinueOnError", "MaxObjectCount") open_query;
    "PullInstancesWithPath" ("EnumerationContext", "MaxObjectCount") pull_instances_with_path;
    "PullInstancePaths" ("EnumerationContext", "MaxObjectCount") pull_paths;
    "PullInstances" ("EnumerationContext", "MaxObjectCount") pull_instances;
    "CloseEnumeration" ("EnumerationContext") close_enumeration;
    "EnumerationCount" ("EnumerationContext") enumeration_count;
};

/// Operations, as CIM-XML offers them.
pub struct Responder {
    operations: Arc<dyn Operations>,
    audit: Arc<dyn Audit>,
    host: String,
    contexts: Contexts<Enumeration>,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Responder {
    /// One that answers out of `operations` as `host`, and tells `audit` of each request.
    #[must_use]
    pub fn new(operations: Arc<dyn Operations>, audit: Arc<dyn Audit>, host: impl Into<String>) -> Self {
        Self { operations, audit, host: host.into(), contexts: Contexts::default() }
    }

    /// Enumerations that wait for a pull.
    #[must_use]
    pub fn open_enumerations(&self) -> usize {
        self.contexts.open()
    }

    /// The reply to a message, in its encoding.
    fn message(
        &self,
        principal: &Principal,
        prefix: &Prefix,
        request: &server::Request,
    ) -> Result<(String, Encoding), ProtocolError> {
        if request.body.len() > MAX_REQUEST {
            return Err(ProtocolError::invalid(format!("the request is larger than {MAX_REQUEST} bytes")));
        }
        let content_type = Some(request.content_type.as_str()).filter(|text| !text.is_empty());
        let (text, encoding) =
            text::decode(&request.body, content_type).map_err(|e| ProtocolError::malformed(e.to_string()))?;
        let document = message::parse(&text)?;
        let message = Request::read(&document)?;
        prefix.agree(request, &message)?;
        let mut done = Done {
            operation: message.name.chars().take(100).collect(),
            target: message.namespace.clone(),
            ..Done::default()
        };
        let call = Call { principal: principal.clone(), deadline: Instant::now() + MAX_TIME };
        let reply = self.reply(&call, &message, encoding, &mut done);
        self.audit.done(principal, &done);
        Ok((reply, encoding))
    }

    fn reply(&self, call: &Call, message: &Request<'_>, encoding: Encoding, done: &mut Done) -> String {
        let mut xml = Xml::new();
        xml.raw(match encoding {
            Encoding::Utf8 => "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n",
            Encoding::Utf16Little | Encoding::Utf16Big => "<?xml version=\"1.0\" encoding=\"utf-16\"?>\n",
        });
        xml.open("CIM", &[("CIMVERSION", "2.0"), ("DTDVERSION", "2.0")]);
        xml.open("MESSAGE", &[("ID", message.id), ("PROTOCOLVERSION", "1.0")]);
        xml.open("SIMPLERSP", &[]);
        let tag = match message.target {
            Target::Intrinsic => "IMETHODRESPONSE",
            Target::Extrinsic(_) => "METHODRESPONSE",
        };
        xml.open(tag, &[("NAME", message.name)]);
        match self.content(call, message, done) {
            Ok(content) => xml.raw(&content),
            Err(error) => {
                done.fault = Some(format!("{}: {}", error.code, error.description));
                let code = error.code.to_string();
                xml.empty("ERROR", &[("CODE", &code), ("DESCRIPTION", &error.description)]);
            }
        }
        xml.close(tag);
        xml.close("SIMPLERSP");
        xml.close("MESSAGE");
        xml.close("CIM");
        xml.into_string()
    }

    fn content(&self, call: &Call, message: &Request<'_>, done: &mut Done) -> Result<String, CimError> {
        let namespace = message.namespace.as_str();
        let schema = self.operations.schema(namespace).ok_or_else(|| {
            CimError::new(Status::InvalidNamespace, format!("there is no namespace {namespace}"))
        })?;
        let turn = Turn {
            operations: &self.operations,
            contexts: &self.contexts,
            host: &self.host,
            call,
            namespace,
            schema,
        };
        if let Target::Extrinsic(path) = &message.target {
            return turn.invoke(path, message.name, &message.parameters, done);
        }
        let named = |operation: &&Operation| operation.name.eq_ignore_ascii_case(message.name);
        let operation = OPERATIONS.iter().find(named).ok_or_else(|| {
            CimError::new(Status::NotSupported, format!("the operation {} is not supported", message.name))
        })?;
        let given = Parameters::new(&message.parameters, schema, operation.parameters)?;
        let outcome = (operation.does)(&turn, &given, done)?;
        let mut content = String::new();
        if let Some(objects) = outcome.objects {
            content.push_str("<IRETURNVALUE>");
            for object in objects {
                content.push_str(&object?);
                if content.len() > MAX_REPLY {
                    let why = format!(
                        "the reply is larger than {MAX_REPLY} bytes: open an enumeration, and pull from it"
                    );
                    return Err(CimError::new(Status::ServerLimitsExceeded, why));
                }
            }
            content.push_str("</IRETURNVALUE>");
        }
        content.push_str(&outcome.more);
        Ok(content)
    }
}

impl Responder {
    /// The reply to a request; always at once.
    #[must_use]
    pub fn respond(&self, request: &server::Request) -> server::Reply {
        let Some(principal) = &request.principal else { return server::Reply::empty(401) };
        let answer = Prefix::of(request).and_then(|prefix| {
            prefix.check(request)?;
            let (text, encoding) = self.message(principal, &prefix, request)?;
            Ok((prefix, text, encoding))
        });
        match answer {
            Ok((prefix, text, encoding)) => {
                let mut headers = prefix.answered();
                headers.push(("cimoperation", "MethodResponse".to_owned()));
                let content_type = match encoding {
                    Encoding::Utf8 => "application/xml; charset=\"utf-8\"",
                    Encoding::Utf16Little | Encoding::Utf16Big => "application/xml; charset=\"utf-16\"",
                };
                let body = encoding.encode(text);
                server::Reply { status: 200, content_type: Some(content_type), headers, body }
            }
            Err(error) => server::Reply {
                headers: vec![("cimerror", error.word.to_owned())],
                ..server::Reply::empty(error.status)
            },
        }
    }
}

impl server::Handler for Responder {
    fn serves(&self, path: &str) -> bool {
        path.strip_suffix('/').unwrap_or(path).eq_ignore_ascii_case(PATH)
    }

    fn takes(&self, method: &str) -> bool {
        matches!(method, "POST" | "M-POST")
    }

    fn anonymous(&self, _: &str, _: bool) -> bool {
        false
    }

    fn answer(&self, request: &server::Request) -> server::Attempt {
        self.respond(request).into()
    }
}
