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

/// The context that a reply gives.
fn context(reply: &str) -> String {
    let (_, rest) = reply.split_once("<n:EnumerationContext>").unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}

fn enumerate(class: &str, body: &str) -> String {
    envelope(&format!("{ENUMERATION}/Enumerate"), class, "", &format!("<n:Enumerate>{body}</n:Enumerate>"))
}

fn pull(context: &str) -> String {
    let body = format!(
        "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext><n:MaxElements>9</n:MaxElements></n:Pull>"
    );
    envelope(&format!("{ENUMERATION}/Pull"), "Msvm_ComputerSystem", "", &body)
}

#[test]
fn classes_below_are_shown_as_asked() {
    let (_, responder) = Memory::new().responder();
    let all = "<w:OptimizeEnumeration/><w:MaxElements>99</w:MaxElements>";
    let mode = |word: &str| {
        format!(
            r#"{all}<b:PolymorphismMode xmlns:b="http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd">{word}</b:PolymorphismMode>"#
        )
    };
    // Of each: the class that its five instances are shown as, and whether they have what only the class below has.
    for (word, class, below) in [
        ("IncludeSubClassProperties", Some("Msvm_ComputerSystem"), true),
        ("ExcludeSubClassProperties", Some("CIM_ComputerSystem"), false),
        ("None", None, false),
    ] {
        let (status, reply) = ask(&responder, "one", &enumerate("CIM_ComputerSystem", &mode(word)));
        assert_eq!(status, 200, "{reply}");
        let count = class.map_or(0, |class| reply.matches(&format!("<p:{class} ")).count());
        assert_eq!(count, if class.is_some() { 5 } else { 0 }, "{word}: {reply}");
        assert_eq!(reply.matches("ComputerSystem ").count(), count, "{word}: of no other class");
        assert_eq!(reply.contains("OnTimeInMilliseconds"), below, "{word}");
    }
    // None is all of a class that has instances of its own.
    let (_, reply) = ask(&responder, "one", &enumerate("Msvm_ComputerSystem", &mode("None")));
    assert_eq!(reply.matches("<p:Msvm_ComputerSystem ").count(), 5);
    let (status, reply) = ask(&responder, "one", &enumerate("CIM_ComputerSystem", &mode("Some")));
    assert!(status == 500 && reply.contains("faultDetail/PolymorphismMode"), "{reply}");
}

#[test]
fn one_pull_at_a_time() {
    let mut memory = Memory::new();
    memory.more = 1;
    let held = std::sync::Arc::new(std::sync::Barrier::new(2));
    memory.held = Some(std::sync::Arc::clone(&held));
    let (_, responder) = memory.responder();
    let context = context(&ask(&responder, "one", &enumerate("Msvm_ComputerSystem", "")).1);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&responder, "one", &pull(&context)));
        held.wait();
        let (status, reply) = ask(&responder, "one", &pull(&context));
        assert!(status == 500 && reply.contains("<s:Value>w:Concurrency</s:Value>"), "{reply}");
        held.wait();
        let (status, reply) = first.join().unwrap();
        assert!(status == 200 && reply.contains("EndOfSequence"), "the first is not disturbed: {reply}");
    });
    assert_eq!(responder.open_enumerations(), 0);
}

#[test]
fn an_enumeration_that_is_released_under_a_pull_stays_closed() {
    let mut memory = Memory::new();
    memory.more = 20;
    let held = std::sync::Arc::new(std::sync::Barrier::new(2));
    memory.held = Some(std::sync::Arc::clone(&held));
    let (_, responder) = memory.responder();
    let context = context(&ask(&responder, "one", &enumerate("Msvm_ComputerSystem", "")).1);
    let body = format!("<n:Release><n:EnumerationContext>{context}</n:EnumerationContext></n:Release>");
    let release = envelope(&format!("{ENUMERATION}/Release"), "Msvm_ComputerSystem", "", &body);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&responder, "one", &pull(&context)));
        held.wait();
        assert_eq!(ask(&responder, "one", &release).0, 200);
        held.wait();
        // Four of the nine are made, and one is looked at ahead.
        for _ in 0..4 {
            held.wait();
            held.wait();
        }
        assert_eq!(first.join().unwrap().0, 200);
    });
    assert_eq!(responder.open_enumerations(), 0);
    assert!(ask(&responder, "one", &pull(&context)).1.contains("n:InvalidEnumerationContext"));
}

#[test]
fn an_enumeration_waits_no_longer_than_its_client_says() {
    let (_, responder) = Memory::new().responder();
    let brief = enumerate("Msvm_ComputerSystem", "<n:Expires>PT0S</n:Expires>");
    let over = context(&ask(&responder, "one", &brief).1);
    let (status, reply) = ask(&responder, "one", &pull(&over));
    assert!(status == 500 && reply.contains("n:InvalidEnumerationContext"), "{reply}");
    // One that nobody pulls from goes when somebody opens another.
    let _ = ask(&responder, "one", &brief);
    let _ = ask(&responder, "one", &enumerate("Msvm_ComputerSystem", "<n:Expires>PT1H</n:Expires>"));
    assert_eq!(responder.open_enumerations(), 1);
}

#[test]
fn one_user_does_not_take_all_enumerations() {
    let (_, responder) = Memory::new().responder();
    let open = |user: &str| ask(&responder, user, &enumerate("Msvm_ComputerSystem", ""));
    for user in ["one", "two", "three", "four"] {
        for _ in 0..1000 {
            assert_eq!(open(user).0, 200);
        }
        let (status, reply) = open(user);
        assert!(status == 500 && reply.contains("<s:Value>w:QuotaLimit</s:Value>"), "{reply}");
    }
    let (status, reply) = open("five");
    assert!(status == 500 && reply.contains("there are 4000 enumerations open"), "{reply}");
    // What is answered at once needs no place.
    let all = "<w:OptimizeEnumeration/><w:MaxElements>99</w:MaxElements>";
    assert_eq!(ask(&responder, "five", &enumerate("Msvm_ComputerSystem", all)).0, 200);
}

#[test]
fn a_part_is_put_alone() {
    let (_, responder) = Memory::new().responder();
    let put = |expression: &str, body: &str| {
        let header = format!(
            r#"<w:FragmentTransfer Dialect="http://www.w3.org/TR/1999/REC-xpath-19991116">{expression}</w:FragmentTransfer><w:SelectorSet><w:Selector Name="InstanceID">Microsoft:{WEB}</w:Selector></w:SelectorSet>"#
        );
        let class = "Msvm_VirtualSystemSettingData";
        let body = format!(r#"<w:XmlFragment xmlns:p="{WMI}/{class}">{body}</w:XmlFragment>"#);
        let action = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Put";
        ask(&responder, "one", &envelope(action, class, &header, &body))
    };
    let (status, reply) = put("ElementName", "<p:ElementName>anew</p:ElementName>");
    assert!(status == 200 && reply.contains("<p:ElementName>anew</p:ElementName>"), "{reply}");
    assert!(!reply.contains("VirtualSystemType"), "only the part: {reply}");
    let (status, reply) = put("ElementName/text()", "again");
    assert!(status == 200 && reply.contains(">again</w:XmlFragment>"), "{reply}");
    let (_, reply) = put("BootOrder", "<p:BootOrder>1</p:BootOrder><p:BootOrder>2</p:BootOrder>");
    assert_eq!(reply.matches("<p:BootOrder>").count(), 2, "{reply}");
    for (expression, body) in
        [("BootOrder[1]", "<p:BootOrder>3</p:BootOrder>"), ("Nothing", "<p:Nothing/>"), ("//*", "x")]
    {
        let (status, reply) = put(expression, body);
        assert!(status == 500 && reply.contains("faultDetail/FragmentLevelAccess"), "{expression}: {reply}");
    }
    let (status, reply) =
        put("AutomaticStartupAction", "<p:AutomaticStartupAction>x</p:AutomaticStartupAction>");
    assert!(status == 500 && reply.contains("<s:Value>x:InvalidRepresentation</s:Value>"), "{reply}");
}

#[test]
fn identify_lists_what_is_offered() {
    let (_, responder) = Memory::new().responder();
    let identify = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#;
    let (_, reply) = ask(&responder, "one", identify);
    assert!(reply.contains("/secprofile/https/basic<") && !reply.contains("mutual"), "{reply}");
}
