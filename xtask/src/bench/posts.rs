//! Just enough of a client of WS-Management to measure a server: envelopes over one kept connection of TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::outside::Outcome;

/// Name and password of whoever measures.
pub(super) const USER: &str = "bench";
pub(super) const PASSWORD: &str = "bench-bench-bench";
/// The two as Basic sends them.
const BASIC: &str = "YmVuY2g6YmVuY2gtYmVuY2gtYmVuY2g=";

/// Largest reply in bytes that is taken.
const MAX_REPLY: usize = 16 << 20;

/// A connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// To `http://ADDRESS…`.
    pub(super) fn to(url: &str) -> Outcome<Self> {
        let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| format!("{address}: {e}"))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Posts `body` to `path`; the reply, which must be a good one.
    pub(super) fn post(&mut self, path: &str, body: &str) -> Outcome<String> {
        let broken = |e: std::io::Error| format!("{path}: {e}");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {BASIC}\r\n\
             Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).map_err(broken)?;
        let (mut status, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line).map_err(broken)? == 0 {
                return Err(format!("{path}: the server hung up"));
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if status.is_empty() {
                text.clone_into(&mut status);
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        if length > MAX_REPLY {
            return Err(format!("{path}: a reply of {length} bytes"));
        }
        let mut reply = vec![0; length];
        self.stream.read_exact(&mut reply).map_err(broken)?;
        let reply = String::from_utf8(reply).map_err(|e| format!("{path}: {e}"))?;
        if status.starts_with("HTTP/1.1 200") { Ok(reply) } else { Err(format!("{path}: {status} {reply}")) }
    }
}

const V2: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";

/// What a request is about.
pub(super) struct About<'a> {
    /// The class, or `*`.
    pub(super) class: &'a str,
    /// Its keys.
    pub(super) selectors: &'a [(&'a str, &'a str)],
}

fn envelope(about: &About<'_>, action: &str, body: &str) -> String {
    let selectors: String = about
        .selectors
        .iter()
        .map(|(name, value)| format!(r#"<w:Selector Name="{name}">{value}</w:Selector>"#))
        .collect();
    let class = about.class;
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:n="{ENUMERATION}" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Header><a:To>http://localhost/wsman</a:To><a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo><a:Action s:mustUnderstand="true">{action}</a:Action><a:MessageID>uuid:00000000-0000-4000-8000-000000000001</a:MessageID><w:MaxEnvelopeSize s:mustUnderstand="true">512000</w:MaxEnvelopeSize><w:OperationTimeout>PT60S</w:OperationTimeout><w:ResourceURI s:mustUnderstand="true">{V2}/{class}</w:ResourceURI><w:SelectorSet>{selectors}</w:SelectorSet></s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

/// A Get.
pub(super) fn get(class: &str, selectors: &[(&str, &str)]) -> String {
    envelope(&About { class, selectors }, &format!("{TRANSFER}/Get"), "")
}

/// The beginning of an enumeration of `class`, with as many instances as a reply takes where `optimized`.
pub(super) fn enumerate(class: &str, optimized: bool) -> String {
    let more = if optimized { "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>" } else { "" };
    let body = format!("<n:Enumerate>{more}</n:Enumerate>");
    envelope(&About { class, selectors: &[] }, &format!("{ENUMERATION}/Enumerate"), &body)
}

/// A query in WQL.
pub(super) fn query(text: &str) -> String {
    let body = format!(
        r#"<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements><w:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">{text}</w:Filter></n:Enumerate>"#
    );
    envelope(&About { class: "*", selectors: &[] }, &format!("{ENUMERATION}/Enumerate"), &body)
}

/// The next `most` instances.
pub(super) fn pull(class: &str, context: &str, most: usize) -> String {
    let body = format!(
        "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext><n:MaxElements>{most}</n:MaxElements></n:Pull>"
    );
    envelope(&About { class, selectors: &[] }, &format!("{ENUMERATION}/Pull"), &body)
}

/// A call of a method; `body` is what its parameters are.
pub(super) fn invoke(class: &str, selectors: &[(&str, &str)], method: &str, body: &str) -> String {
    let body = format!(r#"<p:{method}_INPUT xmlns:p="{V2}/{class}">{body}</p:{method}_INPUT>"#);
    envelope(&About { class, selectors }, &format!("{V2}/{class}/{method}"), &body)
}

/// What stands between the first `<NAME…>` of a reply and the `<` after it.
pub(super) fn text_of<'r>(reply: &'r str, name: &str) -> Option<&'r str> {
    let begin = reply.find(&format!("<{name}>"))? + name.len() + 2;
    reply[begin..].split('<').next().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_its_element() {
        let reply = "<n:Pull><n:EnumerationContext>uuid:1</n:EnumerationContext><w:Items/></n:Pull>";
        assert_eq!(text_of(reply, "n:EnumerationContext"), Some("uuid:1"));
        assert_eq!(text_of("<n:EnumerationContext></n:EnumerationContext>", "n:EnumerationContext"), None);
        assert_eq!(text_of(reply, "n:Items"), None);
    }
}
