//! Envelopes: reading a request within its limits, and writing a reply around a body.
//!
//! The tree is built within [`BOUNDS`]; the headers are read from it.

use std::time::Duration;

use cim::xml::{Bounds, BoundsError, Xml, elements, text};
use roxmltree::{Document, Node};

use crate::fault::{Code, Fault};
use crate::limits::{
    DEFAULT_REPLY, DEFAULT_TIMEOUT, MAX_ATTRIBUTES, MAX_DECLARATIONS, MAX_DEPTH, MAX_ELEMENTS, MAX_REPLY,
    MAX_TIMEOUT, MAX_URI, MIN_REPLY,
};
use crate::resource::Selectors;
use crate::time;
use crate::uri;
use crate::xml::{child, is};

/// A part of an instance that a client asks for (DSP0226, 7.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) dialect: Option<String>,
    pub(crate) expression: String,
}

/// A request as its headers say, and its body.
#[derive(Debug)]
pub(crate) struct Request<'d> {
    pub(crate) action: String,
    pub(crate) message_id: Option<String>,
    pub(crate) resource: Option<String>,
    /// The address that the client has of this service.
    pub(crate) to: Option<String>,
    /// The subscription that it is about (WS-Eventing, 4).
    pub(crate) subscription: Option<String>,
    pub(crate) selectors: Selectors,
    pub(crate) timeout: Duration,
    /// Largest reply that the client takes, in bytes.
    pub(crate) largest_reply: usize,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) operation_id: Option<String>,
    pub(crate) sequence_id: Option<String>,
    /// An option that must be complied with, though none is known.
    pub(crate) must_comply: Option<String>,
    /// The element in the body.
    pub(crate) body: Option<Node<'d, 'd>>,
}

/// Headers that are understood, or need no understanding.
const KNOWN: &[(&str, &[&str])] = &[
    (uri::ADDRESSING, &["Action", "To", "ReplyTo", "FaultTo", "From", "MessageID", "RelatesTo"]),
    (uri::EVENTING, &["Identifier"]),
    (
        uri::WSMAN,
        &[
            "ResourceURI",
            "SelectorSet",
            "OptionSet",
            "OperationTimeout",
            "MaxEnvelopeSize",
            "Locale",
            "FragmentTransfer",
            "RequestEPR",
            "RequestTotalItemsCountEstimate",
        ],
    ),
    (
        uri::MS_WSMAN,
        &[
            "DataLocale",
            "SessionId",
            "OperationID",
            "SequenceId",
            "FillArray",
            "ActivityId",
            "CompressionType",
        ],
    ),
];

/// What bounds a request.
const BOUNDS: Bounds = Bounds {
    depth: MAX_DEPTH,
    elements: MAX_ELEMENTS,
    attributes: MAX_ATTRIBUTES,
    declarations: MAX_DECLARATIONS,
};

/// Builds the tree of a text that is within the limits.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, Fault> {
    BOUNDS.parse(text).map_err(|e| match e {
        BoundsError::Limit { what, most } => Fault::limit(what, most),
        other => Fault::schema(format!("the request is refused: {other}")),
    })
}

impl<'d> Request<'d> {
    /// Reads headers and body of a tree.
    pub(crate) fn read(document: &'d Document<'d>, default_namespace: &str) -> Result<Self, Fault> {
        let root = document.root_element();
        if root.tag_name().name() != "Envelope" {
            return Err(Fault::schema("the request is no SOAP envelope"));
        }
        if root.tag_name().namespace() != Some(uri::SOAP) {
            return Err(Fault::new(Code::VersionMismatch, "the envelope is not one of SOAP 1.2"));
        }
        let body = child(root, uri::SOAP, "Body").ok_or_else(|| Fault::schema("the envelope has no body"))?;
        let mut request = Self {
            action: String::new(),
            message_id: None,
            resource: None,
            to: None,
            subscription: None,
            selectors: Selectors::default(),
            timeout: DEFAULT_TIMEOUT,
            largest_reply: DEFAULT_REPLY,
            fragment: None,
            operation_id: None,
            sequence_id: None,
            must_comply: None,
            body: elements(body).next(),
        };
        // All of the headers, so that a refusal knows what it answers.
        let mut refused = None;
        if let Some(header) = child(root, uri::SOAP, "Header") {
            for node in elements(header) {
                if let Err(fault) = request.header(node, default_namespace) {
                    refused.get_or_insert(fault);
                }
            }
        }
        match refused {
            Some(fault) => Err(fault),
            None => Ok(request),
        }
    }

    /// Only what a fault needs: which message it answers.
    pub(crate) fn message_id_of(document: &Document<'_>) -> Option<String> {
        let header = document.root_element().children().find(|node| is(*node, uri::SOAP, "Header"))?;
        header.children().find(|node| is(*node, uri::ADDRESSING, "MessageID")).map(text)
    }

    /// True for a request that only asks who is here.
    pub(crate) fn is_identify(&self) -> bool {
        self.body.is_some_and(|body| is(body, uri::IDENTITY, "Identify"))
    }

    fn header(&mut self, node: Node<'d, 'd>, default_namespace: &str) -> Result<(), Fault> {
        let (namespace, name) = (node.tag_name().namespace().unwrap_or_default(), node.tag_name().name());
        let known = KNOWN.iter().any(|(uri, names)| *uri == namespace && names.contains(&name));
        if !known {
            let must = node.attribute((uri::SOAP, "mustUnderstand"));
            return match must.map(str::trim) {
                Some("true" | "1") => Err(Fault::new(
                    Code::MustUnderstand,
                    format!("the header {name} must be understood, and is not"),
                )),
                _ => Ok(()),
            };
        }
        let invalid = |why: &str| Fault::new(Code::InvalidHeader, format!("the header {name} {why}"));
        let short = |node| -> Result<String, Fault> {
            let text = text(node);
            if text.len() > MAX_URI { Err(Fault::limit("bytes in a header", MAX_URI)) } else { Ok(text) }
        };
        match (namespace, name) {
            (uri::ADDRESSING, "Action") => self.action = short(node)?.trim().to_owned(),
            (uri::ADDRESSING, "To") => self.to = Some(short(node)?.trim().to_owned()),
            (uri::EVENTING, "Identifier") => self.subscription = Some(short(node)?),
            (uri::ADDRESSING, "MessageID") => self.message_id = Some(short(node)?),
            (uri::WSMAN, "ResourceURI") => self.resource = Some(short(node)?.trim().to_owned()),
            (uri::WSMAN, "SelectorSet") => self.selectors = Selectors::read(node, 0, default_namespace)?,
            (uri::WSMAN, "OperationTimeout") => {
                let timeout = time::duration(&text(node)).ok_or_else(|| invalid("is no duration"))?;
                self.timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
            }
            (uri::WSMAN, "MaxEnvelopeSize") => {
                let size: u64 = text(node).trim().parse().map_err(|_| invalid("is no number of bytes"))?;
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if size < MIN_REPLY {
                    return Err(Fault::new(
                        Code::ReplyTooSmall,
                        format!(
                            "MaxEnvelopeSize is less than {MIN_REPLY} bytes, the least that may be asked for"
                        ),
                    )
                    .detail("MinimumEnvelopeLimit"));
                }
                self.largest_reply = size.min(MAX_REPLY);
            }
            (uri::WSMAN, "FragmentTransfer") => {
                self.fragment = Some(Fragment {
                    dialect: node.attribute("Dialect").map(str::to_owned),
                    expression: short(node)?.trim().to_owned(),
                });
            }
            (uri::WSMAN, "OptionSet") => {
                let must = elements(node).find(|option| {
                    option.attribute("MustComply").is_some_and(|word| word == "true" || word == "1")
                });
                self.must_comply = must.map(|option| option.attribute("Name").unwrap_or_default().to_owned());
            }
            (uri::MS_WSMAN, "OperationID") => self.operation_id = Some(short(node)?),
            (uri::MS_WSMAN, "SequenceId") => self.sequence_id = Some(short(node)?),
            _ => {}
        }
        Ok(())
    }
}

/// The headers of a reply.
#[derive(Debug, Default)]
pub(crate) struct Head<'h> {
    pub(crate) action: &'h str,
    pub(crate) relates_to: Option<&'h str>,
    pub(crate) operation_id: Option<&'h str>,
    pub(crate) sequence_id: Option<&'h str>,
    /// A header more, written.
    pub(crate) more: &'h str,
}

/// A reply around its body, with the headers in Windows' order.
pub(crate) fn envelope(head: &Head<'_>, body: &str) -> String {
    let mut xml = Xml::new();
    xml.open(
        "s:Envelope",
        &[
            ("xml:lang", "en-US"),
            ("xmlns:s", uri::SOAP),
            ("xmlns:a", uri::ADDRESSING),
            ("xmlns:x", uri::TRANSFER),
            ("xmlns:n", uri::ENUMERATION),
            ("xmlns:w", uri::WSMAN),
            ("xmlns:e", uri::EVENTING),
            ("xmlns:p", uri::MS_WSMAN),
            ("xmlns:xsi", uri::XSI),
        ],
    );
    xml.open("s:Header", &[]);
    xml.element("a:Action", head.action);
    xml.element("a:MessageID", &format!("uuid:{}", uuid::Uuid::new_v4().to_string().to_uppercase()));
    if let Some(id) = head.operation_id {
        xml.open("p:OperationID", &[("s:mustUnderstand", "false")]);
        xml.text(id);
        xml.close("p:OperationID");
    }
    if let Some(id) = head.sequence_id {
        xml.element("p:SequenceId", id);
    }
    xml.element("a:To", uri::ANONYMOUS);
    if let Some(id) = head.relates_to {
        xml.element("a:RelatesTo", id);
    }
    xml.raw(head.more);
    xml.close("s:Header");
    xml.open("s:Body", &[]);
    xml.raw(body);
    xml.close("s:Body");
    xml.close("s:Envelope");
    xml.into_string()
}

#[cfg(test)]
mod tests {
    use super::{Code, MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS, Request, parse};
    use std::time::Duration;

    fn soap(header: &str, body: &str) -> String {
        format!(
            r#"<q:Envelope xmlns:q="http://www.w3.org/2003/05/soap-envelope" xmlns:j="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:k="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><q:Header>{header}</q:Header><q:Body>{body}</q:Body></q:Envelope>"#
        )
    }

    fn refusal(text: &str) -> Code {
        match parse(text) {
            Err(fault) => fault.code,
            Ok(document) => Request::read(&document, "root/cimv2").unwrap_err().code,
        }
    }

    #[test]
    fn headers_are_read_by_uri_whatever_the_prefix() {
        let text = soap(
            r#"<j:Action q:mustUnderstand="true"> urn:x </j:Action><j:MessageID> uuid:1 </j:MessageID>
               <k:OperationTimeout>PT1M30S</k:OperationTimeout><k:MaxEnvelopeSize>153600</k:MaxEnvelopeSize>
               <k:SelectorSet><k:Selector Name="__CIMNamespace">root/a</k:Selector><k:Selector Name="K"> v </k:Selector></k:SelectorSet>
               <unknown mustUnderstand="true"/><unknown q:mustUnderstand="0"/>"#,
            "<b/>",
        );
        let document = parse(&text).unwrap();
        let request = Request::read(&document, "root/cimv2").unwrap();
        assert_eq!(request.action, "urn:x");
        assert_eq!(request.message_id.as_deref(), Some(" uuid:1 "), "byte for byte");
        assert_eq!(request.timeout, Duration::from_secs(90));
        assert_eq!(request.largest_reply, 153_600);
        assert_eq!(request.selectors.namespace.as_deref(), Some("root/a"));
        assert_eq!(request.selectors.keys, [("K".into(), " v ".into())]);
        assert_eq!(request.body.unwrap().tag_name().name(), "b");
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        for (header, code) in [
            (r#"<unknown q:mustUnderstand="1"/>"#, Code::MustUnderstand),
            ("<k:OperationTimeout>soon</k:OperationTimeout>", Code::InvalidHeader),
            ("<k:MaxEnvelopeSize>-1</k:MaxEnvelopeSize>", Code::InvalidHeader),
            ("<k:MaxEnvelopeSize>8191</k:MaxEnvelopeSize>", Code::ReplyTooSmall),
            ("<k:SelectorSet><k:Selector>v</k:Selector></k:SelectorSet>", Code::InvalidSelectors),
        ] {
            assert_eq!(refusal(&soap(header, "")), code, "{header}");
        }
        assert_eq!(refusal("<Envelope/>"), Code::VersionMismatch);
        assert_eq!(refusal("<s/>"), Code::SchemaValidation);
        assert_eq!(refusal("<s>"), Code::SchemaValidation);
        assert_eq!(refusal(""), Code::SchemaValidation);
    }

    #[test]
    fn bombs_are_refused_before_anything_is_built() {
        let deep = "<e>".repeat(MAX_DEPTH + 1);
        let many = format!("<e>{}</e>", "<e/>".repeat(MAX_ELEMENTS));
        let wide: String = (0..=MAX_ATTRIBUTES).map(|n| format!(" a{n} = '>'")).collect();
        let declared: String = (0..2100)
            .map(|n| {
                if n % 50 == 0 {
                    format!("{}<e", if n == 0 { "" } else { "/>" })
                } else {
                    format!(" xmlns:n{n}='u{n}'")
                }
            })
            .collect();
        for bomb in [deep, many, format!("<e{wide}/>"), format!("<r>{declared}/></r>")] {
            assert_eq!(refusal(&bomb), Code::EncodingLimit, "{}", &bomb[..40]);
        }
        let laughs = r#"<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>"#;
        assert_eq!(refusal(laughs), Code::SchemaValidation);
        // Limits count elements, not what looks like them.
        let quoted =
            format!("<!--{0}--><e a=\"{1}\"><![CDATA[{0}]]></e>", "<e>".repeat(100), "/>".repeat(100));
        assert!(parse(&quoted).is_ok());
    }
}
