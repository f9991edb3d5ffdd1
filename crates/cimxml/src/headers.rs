//! Headers (DSP0200, 7.2): they say again what the body says, so that somebody between can look without reading it. What
//! they say otherwise is refused.

use cim::ObjectPath;

use crate::error::ProtocolError;
use crate::message::{Request, Target};

/// The extension that a request by M-POST declares.
const MAPPING: &str = "http://www.dmtf.org/cim/mapping/http/v1.0";

/// What prefix the headers of CIM have: none, or `nn-` where an extension is declared (RFC 2774).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// The prefix that a request declares.
    pub(crate) fn of(request: &wsman::server::Request) -> Result<Self, ProtocolError> {
        let declared = request.header("man").or_else(|| request.header("opt"));
        let mandatory = request.method != "POST";
        let Some(declared) = declared else {
            return if mandatory {
                Err(ProtocolError::headers("a request by M-POST has a header Man"))
            } else {
                Ok(Self(String::new()))
            };
        };
        let mut parts = declared.split(';');
        let uri = parts.next().unwrap_or_default().trim().trim_matches('"');
        if !uri.eq_ignore_ascii_case(MAPPING) {
            if !mandatory {
                // Somebody else's extension.
                return Ok(Self(String::new()));
            }
            return Err(ProtocolError::headers(format!("the only extension here is {MAPPING}")));
        }
        let number = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("ns").then(|| value.trim().trim_matches('"').to_owned())
        });
        let number = number.unwrap_or_default();
        if !number.bytes().all(|digit| digit.is_ascii_digit()) || number.len() > 8 {
            return Err(ProtocolError::headers("the namespace of the extension is no number"));
        }
        Ok(Self(if number.is_empty() { number } else { format!("{number}-") }))
    }

    fn get<'r>(&self, request: &'r wsman::server::Request, name: &str) -> Option<&'r str> {
        request.header(&format!("{}{name}", self.0)).map(str::trim)
    }

    /// The headers of a reply besides its own, which is `CIMOperation` unless it failed.
    pub(crate) fn answered(&self) -> Vec<(&'static str, String)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        vec![("ext", String::new()), ("cache-control", "no-cache".to_owned())]
    }

    /// Compares what headers say before the body is looked at.
    pub(crate) fn check(&self, request: &wsman::server::Request) -> Result<(), ProtocolError> {
        if self.get(request, "cimbatch").is_some() {
            let why = "several operations in one message are not taken: send one";
            return Err(ProtocolError::unsupported("multiple-requests-unsupported", why));
        }
        let version = self.get(request, "cimprotocolversion").unwrap_or("1.0");
        if !version.starts_with("1.") {
            let why = format!("CIMProtocolVersion is 1.x here, and not {version}");
            return Err(ProtocolError::unsupported("unsupported-protocol-version", why));
        }
        match self.get(request, "cimoperation") {
            Some(operation) if operation.eq_ignore_ascii_case("MethodCall") => Ok(()),
            Some(other) => Err(ProtocolError::operation(format!("there is no CIMOperation {other}"))),
            None => Err(ProtocolError::headers("there is no header CIMOperation")),
        }
    }

    /// Compares what headers say with a message.
    pub(crate) fn agree(
        &self,
        request: &wsman::server::Request,
        message: &Request<'_>,
    ) -> Result<(), ProtocolError> {
        let missing = |name: &str| ProtocolError::headers(format!("there is no header {name}"));
        let method = self.get(request, "cimmethod").ok_or_else(|| missing("CIMMethod"))?;
        if !message.name.eq_ignore_ascii_case(&decoded(method)) {
            let why = format!("CIMMethod is not {}", message.name);
            return Err(ProtocolError::headers(why));
        }
        let object = self.get(request, "cimobject").ok_or_else(|| missing("CIMObject"))?;
        let meant = message.object();
        // Some clients encode what they must, some all, some nothing.
        let same = [decoded(object), object.to_owned()].iter().any(|text| match &message.target {
            Target::Intrinsic => {
                Some(namespace(text)) == meant.namespace.as_deref().map(str::to_ascii_lowercase)
            }
            Target::Extrinsic(_) => same_object(text, &meant),
        });
        if same { Ok(()) } else { Err(ProtocolError::headers("CIMObject is not what the message is about")) }
    }
}

fn namespace(text: &str) -> String {
    text.trim_matches('/').to_ascii_lowercase()
}

/// Whether a path as text, in whatever quoting, names what a message does.
fn same_object(text: &str, meant: &ObjectPath) -> bool {
    let Some((space, object)) = text.split_once(':') else { return false };
    if Some(namespace(space)) != meant.namespace.as_deref().map(str::to_ascii_lowercase) {
        return false;
    }
    let bare = |text: &str| -> String { text.chars().filter(|c| !matches!(c, '\\' | '"' | '\'')).collect() };
    let class = object.split(['.', '=']).next().unwrap_or_default().trim();
    if meant.class != class {
        return false;
    }
    let keys = bare(&object[class.len().min(object.len())..]);
    // Clients quote what is inside quotes each in their own way; references inside are compared with the body's own.
    meant.keys.iter().all(|(name, value)| {
        value.as_path().is_some()
            || keys
                .to_ascii_lowercase()
                .contains(&format!("{}={}", name.as_str(), bare(&value.to_string())).to_ascii_lowercase())
    }) && meant.keys.is_empty() == keys.trim_matches(['.', '=', '@']).is_empty()
}

/// `%41` is `A`; what is no such thing stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match (byte, code.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{decoded, same_object};
    use cim::ObjectPath;

    #[test]
    fn an_object_is_the_same_however_it_is_quoted() {
        let meant = ObjectPath::new("Msvm_ConcreteJob").with("InstanceID", r"a\b").within("root/x");
        for same in
            [r#"root/x:Msvm_ConcreteJob.InstanceID="a\\b""#, r#"/ROOT/x:msvm_concretejob.instanceid="a\b""#]
        {
            assert!(same_object(same, &meant), "{same}");
        }
        for other in [
            r#"root/y:Msvm_ConcreteJob.InstanceID="a\\b""#,
            r#"root/x:Msvm_Other.InstanceID="a\\b""#,
            r#"root/x:Msvm_ConcreteJob.InstanceID="c""#,
            "root/x:Msvm_ConcreteJob",
            "root/x",
            "",
        ] {
            assert!(!same_object(other, &meant), "{other}");
        }
        assert!(same_object("root/x:A", &ObjectPath::new("A").within("root/x")));
        assert_eq!(decoded("root%2Fx%3aA%%4"), "root/x:A%%4");
        assert_eq!(decoded("%C3%A4%zz%"), "ä%zz%");
    }
}
