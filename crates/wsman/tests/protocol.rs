//! What the recordings do not show: encodings, whose a context is, the shapes of a reference, what is refused.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod memory;

use cim::Value;
use memory::{Memory, WEB};
use wsman::{Answer, Principal, Responder};

const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";

fn envelope(action: &str, class: &str, header: &str, body: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="{ENUMERATION}"><s:Header><a:Action>{action}</a:Action><a:MessageID>uuid:1</a:MessageID><w:ResourceURI>{WMI}/{class}</w:ResourceURI>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

fn ask(responder: &Responder, user: &str, request: &str) -> (u16, String) {
    let who = Principal { user: user.into(), from: "127.0.0.1".into() };
    let Answer { status, body, .. } = responder.answer(&who, request.as_bytes(), None);
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn a_reply_has_its_requests_encoding() {
    let (_, responder) = Memory::new().responder();
    let request = envelope(
        "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get",
        "Msvm_ComputerSystem",
        &format!(
            r#"<w:SelectorSet><w:Selector Name="Name">{}</w:Selector></w:SelectorSet>"#,
            WEB.to_lowercase()
        ),
        "",
    );
    let bytes: Vec<u8> =
        std::iter::once(0xfeff).chain(request.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let who = Principal { user: "one".into(), from: "127.0.0.1".into() };
    let answer = responder.answer(&who, &bytes, Some("application/soap+xml;charset=UTF-16"));
    assert_eq!((answer.status, answer.content_type), (200, "application/soap+xml;charset=UTF-16"));
    let units: Vec<u16> = answer.body.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert!(String::from_utf16(&units).unwrap().contains("<p:ElementName>web01</p:ElementName>"));
}

#[test]
fn a_context_is_its_users_and_ends_with_release() {
    let (_, responder) = Memory::new().responder();
    let action = |name: &str| format!("{ENUMERATION}/{name}");
    let class = "Msvm_ComputerSystem";
    let (_, reply) = ask(&responder, "one", &envelope(&action("Enumerate"), class, "", "<n:Enumerate/>"));
    let (_, rest) = reply.split_once("<n:EnumerationContext>").unwrap();
    let context = rest.split_once('<').unwrap().0;
    let with = |name: &str| {
        let body = format!("<n:{name}><n:EnumerationContext>{context}</n:EnumerationContext></n:{name}>");
        envelope(&action(name), class, "", &body)
    };
    for request in [with("Pull"), with("Release")] {
        let (status, reply) = ask(&responder, "two", &request);
        assert!(status == 500 && reply.contains("n:InvalidEnumerationContext"), "{reply}");
    }
    assert_eq!(ask(&responder, "one", &with("Pull")).0, 200);
    assert_eq!(ask(&responder, "one", &with("Release")).0, 200);
    assert_eq!(responder.open_enumerations(), 0);
    assert!(ask(&responder, "one", &with("Pull")).1.contains("n:InvalidEnumerationContext"));
}

#[test]
fn a_reference_is_taken_in_each_of_its_shapes() {
    let (memory, responder) = Memory::new().responder();
    let class = format!("{WMI}/Msvm_VirtualSystemSettingData");
    let content = format!(
        r#"<a:Address>x</a:Address><a:ReferenceParameters><w:ResourceURI>{class}</w:ResourceURI><w:SelectorSet><w:Selector Name="InstanceID">Microsoft:{WEB}</w:Selector></w:SelectorSet></a:ReferenceParameters>"#
    );
    let service = "Msvm_VirtualSystemManagementService";
    let mut shapes = vec![
        content.clone(),
        format!("<a:EndpointReference>{content}</a:EndpointReference>"),
        format!(r#"<q:InstanceID xmlns:q="{class}">Microsoft:{WEB}</q:InstanceID>"#),
        format!(
            r#"\\HOST\root\virtualization\v2:Msvm_VirtualSystemSettingData.InstanceID="Microsoft:{WEB}""#
        ),
    ];
    for shape in shapes.drain(..) {
        let body = format!(
            r#"<p:AddResourceSettings_INPUT xmlns:p="{WMI}/{service}"><p:AffectedConfiguration>{shape}</p:AffectedConfiguration></p:AddResourceSettings_INPUT>"#
        );
        let request = envelope(&format!("{WMI}/{service}/AddResourceSettings"), service, "", &body);
        let (status, reply) = ask(&responder, "one", &request);
        assert_eq!(status, 200, "{shape}: {reply}");
        let (_, _, parameters) = memory.called.lock().unwrap().remove(0);
        let path = parameters[0].1.as_ref().and_then(Value::as_path).unwrap();
        assert_eq!(path.text("InstanceID"), Some(format!("Microsoft:{WEB}").as_str()), "{shape}");
    }
    for (input, problem) in [
        ("<p:Nothing>1</p:Nothing>", "no input parameter Nothing"),
        ("<p:AffectedConfiguration>nothing at all</p:AffectedConfiguration>", "AffectedConfiguration"),
    ] {
        let body = format!(
            r#"<p:AddResourceSettings_INPUT xmlns:p="{WMI}/{service}">{input}</p:AddResourceSettings_INPUT>"#
        );
        let request = envelope(&format!("{WMI}/{service}/AddResourceSettings"), service, "", &body);
        let (status, reply) = ask(&responder, "one", &request);
        assert!(status == 500 && reply.contains("w:InvalidParameter") && reply.contains(problem), "{reply}");
    }
    assert!(memory.called.lock().unwrap().is_empty(), "nothing was called");
}
