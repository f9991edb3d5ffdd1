//! Faults: why a request was not answered, as SOAP and as Windows say it.
//!
//! A fault has a code of WS-Management or one of the protocols below it, a number of Windows' (`wsmerror.h`), a reason for people,
//! and often the URI of a detail. What the operations refuse carries the provider's number too, which clients show.

use crate::contexts::ContextError;
use crate::operations::{Failure, FailureKind};
use crate::query::QueryFailure;
use crate::resource::Form;
use crate::text::EncodingError;
use crate::uri;
use cim::xml::Xml;

/// The codes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    MustUnderstand,
    VersionMismatch,
    DestinationUnreachable,
    ActionNotSupported,
    InvalidHeader,
    HeaderRequired,
    InvalidSelectors,
    AmbiguousSelectors,
    InvalidParameter,
    InvalidOptions,
    SchemaValidation,
    UnsupportedEncoding,
    UnsupportedFeature,
    InvalidRepresentation,
    AccessDenied,
    EncodingLimit,
    ReplyTooLarge,
    UnreportableSuccess,
    ReplyTooSmall,
    TimedOut,
    Concurrency,
    QuotaLimit,
    Internal,
    CannotProcessFilter,
    FilteringNotSupported,
    DialectUnavailable,
    InvalidContext,
    DeliveryModeUnavailable,
    InvalidExpiration,
    EventFilterUnavailable,
    UnableToRenew,
    InvalidMessage,
    ShellNotServed,
}

/// How a code is written.
struct Spelling {
    prefix: &'static str,
    local: &'static str,
    sender: bool,
    number: u32,
}

impl Code {
    /// Senders, receivers and numbers as `wsmerror.h` has them.
    fn spelling(self) -> Spelling {
        let (prefix, local, sender, number) = match self {
            Self::MustUnderstand => ("s", "MustUnderstand", true, 0x8033_8010),
            Self::VersionMismatch => ("s", "VersionMismatch", true, 0x8033_800d),
            Self::DestinationUnreachable => ("a", "DestinationUnreachable", true, 0x8033_8000),
            Self::ActionNotSupported => ("a", "ActionNotSupported", true, 0x8033_8013),
            Self::InvalidHeader => ("a", "InvalidMessageInformationHeader", true, 0x8033_800f),
            Self::HeaderRequired => ("a", "MessageInformationHeaderRequired", true, 0x8033_8011),
            Self::InvalidSelectors => ("w", "InvalidSelectors", true, 0x8033_805b),
            Self::AmbiguousSelectors => ("w", "InvalidSelectors", true, 0x8033_805e),
            Self::InvalidParameter => ("w", "InvalidParameter", true, 0x8033_803a),
            Self::InvalidOptions => ("w", "InvalidOptions", true, 0x8033_8039),
            Self::SchemaValidation => ("w", "SchemaValidationError", true, 0x8033_8041),
            Self::UnsupportedEncoding => ("w", "EncodingLimit", true, 0x8033_804c),
            Self::UnsupportedFeature | Self::ShellNotServed => ("w", "UnsupportedFeature", true, 0x8033_8042),
            Self::InvalidRepresentation => ("x", "InvalidRepresentation", true, 0x8033_8015),
            Self::AccessDenied => ("w", "AccessDenied", true, 5),
            Self::EncodingLimit => ("w", "EncodingLimit", true, 0x8033_8035),
            Self::ReplyTooLarge => ("w", "EncodingLimit", true, 0x8033_8048),
            Self::UnreportableSuccess => ("w", "EncodingLimit", true, 0x8033_804d),
            Self::ReplyTooSmall => ("w", "EncodingLimit", true, 0x8033_807e),
            Self::TimedOut => ("w", "TimedOut", false, 0x8033_8029),
            Self::Concurrency => ("w", "Concurrency", true, 0x8033_8032),
            Self::QuotaLimit => ("w", "QuotaLimit", true, 0x8033_803f),
            Self::Internal => ("w", "InternalError", false, 0x8033_8003),
            Self::CannotProcessFilter => ("n", "CannotProcessFilter", true, 0x8033_801a),
            Self::FilteringNotSupported => ("n", "FilteringNotSupported", true, 0x8033_8018),
            Self::DialectUnavailable => ("n", "FilterDialectRequestedUnavailable", true, 0x8033_8019),
            Self::InvalidContext => ("n", "InvalidEnumerationContext", false, 0x8033_801b),
            Self::DeliveryModeUnavailable => ("e", "DeliveryModeRequestedUnavailable", true, 0x8033_801e),
            Self::InvalidExpiration => ("e", "InvalidExpirationTime", true, 0x8033_801f),
            Self::EventFilterUnavailable => ("e", "FilteringRequestedUnavailable", true, 0x8033_8022),
            Self::UnableToRenew => ("e", "UnableToRenew", false, 0x8033_8024),
            Self::InvalidMessage => ("e", "InvalidMessage", true, 0x8033_8025),
        };
        Spelling { prefix, local, sender, number }
    }
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    reason: String,
    /// The last part of the detail's URI.
    detail: Option<&'static str>,
    /// What WMI calls it, where it was the operations that refused.
    provider: Option<Provider>,
}

/// A refusal as WMI numbers it (`WBEM_E_…`), and as DSP0200 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Provider {
    wbem: u32,
    cim: u32,
}

impl Fault {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), detail: None, provider: None }
    }

    pub(crate) fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// A limit of the envelope reader.
    pub(crate) fn limit(what: &str, most: usize) -> Self {
        Self::new(Code::EncodingLimit, format!("the request has more than {most} {what}"))
    }

    /// Something that is no envelope.
    pub(crate) fn schema(reason: impl Into<String>) -> Self {
        Self::new(Code::SchemaValidation, reason)
    }

    /// `a:ActionNotSupported`, and so on: for logs.
    pub(crate) fn name(&self) -> String {
        let spelling = self.code.spelling();
        format!("{}:{}", spelling.prefix, spelling.local)
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    /// The action of the reply.
    pub(crate) fn action(&self) -> &'static str {
        match self.code.spelling().prefix {
            "w" => "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault",
            "n" => "http://schemas.xmlsoap.org/ws/2004/09/enumeration/fault",
            "e" => "http://schemas.xmlsoap.org/ws/2004/08/eventing/fault",
            "x" => "http://schemas.xmlsoap.org/ws/2004/09/transfer/fault",
            _ => "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
        }
    }

    /// Writes the body. `form` is how the client spells resources: those who spell them as DSP0230 does also read errors so.
    pub(crate) fn write(&self, xml: &mut Xml, machine: &str, form: Option<Form>) {
        let Spelling { prefix, local, sender, number } = self.code.spelling();
        xml.open("s:Fault", &[]);
        xml.open("s:Code", &[]);
        if prefix == "s" {
            xml.element("s:Value", &format!("s:{local}"));
        } else {
            xml.element("s:Value", if sender { "s:Sender" } else { "s:Receiver" });
            xml.open("s:Subcode", &[]);
            xml.element("s:Value", &format!("{prefix}:{local}"));
            xml.close("s:Subcode");
        }
        xml.close("s:Code");
        xml.open("s:Reason", &[]);
        xml.open("s:Text", &[("xml:lang", "en-US")]);
        xml.text(&self.reason);
        xml.close("s:Text");
        xml.close("s:Reason");
        xml.open("s:Detail", &[]);
        self.write_detail(xml, machine, number);
        if let Some(provider) = self.provider
            && form == Some(Form::Dmtf)
        {
            self.write_wmi_error(xml, provider);
        }
        if let Some(detail) = self.detail {
            xml.element("w:FaultDetail", &format!("{}{detail}", uri::FAULT_DETAIL));
        }
        xml.close("s:Detail");
        xml.close("s:Fault");
    }

    fn write_detail(&self, xml: &mut Xml, machine: &str, number: u32) {
        let open = |xml: &mut Xml, number: u32| {
            let code = number.to_string();
            xml.open("f:WSManFault", &[("xmlns:f", uri::FAULT), ("Code", &code), ("Machine", machine)]);
        };
        open(xml, number);
        xml.open("f:Message", &[]);
        match self.provider {
            None => xml.text(&self.reason),
            Some(provider) => {
                xml.open(
                    "f:ProviderFault",
                    &[("provider", "WMI Provider"), ("path", r"%systemroot%\system32\WsmWmiPl.dll")],
                );
                open(xml, provider.wbem);
                xml.element("f:Message", &self.reason);
                xml.close("f:WSManFault");
                xml.close("f:ProviderFault");
            }
        }
        xml.close("f:Message");
        xml.close("f:WSManFault");
    }

    fn write_wmi_error(&self, xml: &mut Xml, provider: Provider) {
        let class = format!("{}MSFT_WmiError", uri::CIM_SCHEMA);
        xml.open(
            "p:MSFT_WmiError",
            &[
                ("b:IsCIM_Error", "true"),
                ("xmlns:p", &class),
                ("xmlns:b", uri::BINDING),
                ("xmlns:xsi", uri::XSI),
                ("xsi:type", "p:MSFT_WmiError_Type"),
            ],
        );
        let status = provider.cim.to_string();
        for (name, value) in [
            ("CIMStatusCode", status.as_str()),
            ("CIMStatusCodeDescription", ""),
            ("ErrorSource", ""),
            ("ErrorType", "4"),
            ("Message", self.reason.as_str()),
            ("MessageID", &format!("HRESULT 0x{:08x}", provider.wbem)),
            ("OwningEntity", ""),
            ("PerceivedSeverity", "4"),
            ("ProbableCause", "0"),
            ("error_Category", "16"),
            ("error_Code", &provider.wbem.to_string()),
            ("error_Type", "HRESULT"),
            ("error_WindowsErrorMessage", self.reason.as_str()),
        ] {
            let tag = format!("p:{name}");
            if value.is_empty() {
                xml.empty(&tag, &[("xsi:nil", "true")]);
            } else {
                xml.element(&tag, value);
            }
        }
        xml.close("p:MSFT_WmiError");
    }
}

impl From<ContextError> for Fault {
    fn from(error: ContextError) -> Self {
        let code = match error {
            ContextError::Gone => Code::InvalidContext,
            ContextError::Busy => Code::Concurrency,
            ContextError::TooManyOfUser | ContextError::TooMany => Code::QuotaLimit,
        };
        Self::new(code, error.to_string())
    }
}

impl From<QueryFailure> for Fault {
    fn from(failure: QueryFailure) -> Self {
        match failure {
            QueryFailure::Refused(failure) => failure.into(),
            other => Self::new(Code::CannotProcessFilter, other.to_string()),
        }
    }
}

impl From<EncodingError> for Fault {
    fn from(error: EncodingError) -> Self {
        Self::new(Code::UnsupportedEncoding, error.to_string()).detail("CharacterSet")
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let cim = failure.kind.status().into();
        let (code, detail, wbem) = match &failure.kind {
            FailureKind::NoSuchNamespace => {
                (Code::DestinationUnreachable, Some("InvalidResourceURI"), 0x8004_100e)
            }
            FailureKind::NoSuchClass => {
                (Code::DestinationUnreachable, Some("InvalidResourceURI"), 0x8004_1010)
            }
            FailureKind::NotFound => (Code::DestinationUnreachable, None, 0x8004_1002),
            FailureKind::Ambiguous => (Code::AmbiguousSelectors, Some("AmbiguousSelectors"), 0x8004_1008),
            FailureKind::InvalidKeys => (Code::InvalidSelectors, Some("UnexpectedSelectors"), 0x8004_1008),
            FailureKind::MethodNotFound => (Code::ActionNotSupported, None, 0x8004_102e),
            FailureKind::InvalidParameter(_) => (Code::InvalidParameter, None, 0x8004_1008),
            FailureKind::NotSupported => (Code::ActionNotSupported, None, 0x8004_100c),
            FailureKind::AccessDenied => (Code::AccessDenied, None, 0x8004_1003),
            FailureKind::Busy => (Code::QuotaLimit, None, 0x8004_1045),
            FailureKind::TimedOut => (Code::TimedOut, None, 0x8004_1069),
            FailureKind::Failed => (Code::Internal, None, 0x8004_1001),
        };
        Self { code, reason: failure.message, detail, provider: Some(Provider { wbem, cim }) }
    }
}
