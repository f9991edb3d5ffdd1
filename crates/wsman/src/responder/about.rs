//! What a responder says of itself: Identify, and the configuration that clients read.

use super::{Reply, Responder, Turn};
use crate::fault::{Code, Fault};
use crate::limits::{DEFAULT_REPLY, DEFAULT_TIMEOUT, MAX_BATCH};
use crate::uri;
use cim::xml::Xml;

impl Responder {
    /// The reply to Identify. Strangers are not told which version this is.
    pub(super) fn identity(&self, known: bool) -> String {
        let mut xml = Xml::new();
        xml.open("s:Envelope", &[("xml:lang", "en-US"), ("xmlns:s", uri::SOAP)]);
        xml.empty("s:Header", &[]);
        xml.open("s:Body", &[]);
        xml.open("wsmid:IdentifyResponse", &[("xmlns:wsmid", uri::IDENTITY)]);
        xml.element("wsmid:ProtocolVersion", uri::WSMAN);
        xml.element("wsmid:ProductVendor", &self.settings.vendor);
        let version = if known { self.settings.version.as_str() } else { "OS: 0.0.0 SP: 0.0 Stack: 3.0" };
        xml.element("wsmid:ProductVersion", version);
        xml.open("wsmid:SecurityProfiles", &[]);
        for profile in &self.settings.profiles {
            let uri = format!("http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/{profile}");
            xml.element("wsmid:SecurityProfileName", &uri);
        }
        xml.close("wsmid:SecurityProfiles");
        xml.close("wsmid:IdentifyResponse");
        xml.close("s:Body");
        xml.close("s:Envelope");
        xml.into_string()
    }
}

impl Turn<'_> {
    /// The configuration, as far as clients read it ([MS-WSMV] 2.2.4.10). It is not changed this way.
    pub(super) fn configuration(&self, part: &str) -> Result<Reply, Fault> {
        if !part.is_empty() {
            return Err(Fault::new(
                Code::DestinationUnreachable,
                format!("the configuration has no part {part} here: there is {}", uri::CONFIG),
            ));
        }
        let mut xml = Xml::new();
        xml.open("cfg:Config", &[("xmlns:cfg", uri::CONFIG), ("xml:lang", "en-US")]);
        for (name, value) in [
            ("MaxEnvelopeSizekb", (DEFAULT_REPLY / 1024) as u128),
            ("MaxTimeoutms", DEFAULT_TIMEOUT.as_millis()),
            ("MaxBatchItems", MAX_BATCH as u128),
            ("MaxProviderRequests", u128::from(u32::MAX)),
        ] {
            xml.element(&format!("cfg:{name}"), &value.to_string());
        }
        xml.close("cfg:Config");
        let action = format!("{}/GetResponse", uri::TRANSFER);
        Ok(Reply { action, body: xml.into_string(), ..Reply::default() })
    }
}
