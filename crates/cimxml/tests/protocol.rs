//! The protocol where clients do not go by themselves: headers that contradict, versions, encodings, limits, broken messages.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod host;

use cimxml::Responder;
use host::memory::{Memory, NAMESPACE};
use host::{ask, message, request, responder, text};
use wsman::server::Reply;

const CLASS: &str = "<IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"Msvm_ComputerSystem\"/></IPARAMVALUE>";

fn some() -> Responder {
    responder(Memory::new()).1
}

/// The status of HTTP and the word in `CIMError`.
fn refusal(reply: &Reply) -> (u16, &str) {
    let word = reply.headers.iter().find(|(name, _)| *name == "cimerror");
    (reply.status, word.map_or("", |(_, word)| word.as_str()))
}

fn code(reply: &str) -> &str {
    let Some((_, rest)) = reply.split_once("<ERROR CODE=\"") else { return "" };
    rest.split_once('"').unwrap().0
}

#[test]
fn headers_that_say_otherwise_than_the_body_are_refused() {
    let responder = some();
    let names = message("EnumerateInstanceNames", CLASS);
    let headers = |operation, method, object| {
        [("cimoperation", operation), ("cimmethod", method), ("cimobject", object)]
    };
    let right = headers("MethodCall", "EnumerateInstanceNames", "root%2Fvirtualization%2Fv2");
    assert_eq!(refusal(&responder.respond(&request(&right, names.as_str()))), (200, ""));
    for (wrong, status, word) in [
        (headers("MethodCall", "EnumerateInstances", NAMESPACE), 400, "header-mismatch"),
        (headers("MethodCall", "EnumerateInstanceNames", "root/cimv2"), 400, "header-mismatch"),
        (headers("ExportMethodCall", "EnumerateInstanceNames", NAMESPACE), 400, "unsupported-operation"),
    ] {
        assert_eq!(refusal(&responder.respond(&request(&wrong, names.as_str()))), (status, word));
    }
    for left_out in 0..3 {
        let some: Vec<_> =
            right.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, h)| *h).collect();
        let reply = responder.respond(&request(&some, names.as_str()));
        assert_eq!(refusal(&reply), (400, "header-mismatch"), "without {}", right[left_out].0);
    }
    let many = [&right[..], &[("cimbatch", "")]].concat();
    let reply = responder.respond(&request(&many, names.as_str()));
    assert_eq!(refusal(&reply), (501, "multiple-requests-unsupported"));
    let other = [&right[..], &[("cimprotocolversion", "2.0")]].concat();
    let reply = responder.respond(&request(&other, names.as_str()));
    assert_eq!(refusal(&reply), (501, "unsupported-protocol-version"));
}

#[test]
fn a_request_by_m_post_names_its_headers_with_a_prefix() {
    let responder = some();
    let body = message("EnumerateInstanceNames", CLASS);
    let man = "\"http://www.dmtf.org/cim/mapping/http/v1.0\" ; ns=73";
    let mut asked = request(
        &[
            ("man", man),
            ("73-cimoperation", "MethodCall"),
            ("73-cimmethod", "EnumerateInstanceNames"),
            ("73-cimobject", NAMESPACE),
        ],
        body.as_str(),
    );
    asked.method = "M-POST".into();
    let reply = responder.respond(&asked);
    assert!(reply.headers.iter().any(|(name, _)| *name == "ext"));
    assert!(text(reply).contains("<INSTANCENAME "));
    let headers = [("cimoperation", "MethodCall"), ("cimmethod", "x"), ("cimobject", NAMESPACE)];
    let mut bare = request(&headers, body.as_str());
    bare.method = "M-POST".into();
    assert_eq!(refusal(&responder.respond(&bare)), (400, "header-mismatch"));
}

#[test]
fn what_is_no_message_is_refused_with_its_word() {
    let responder = some();
    let headers =
        [("cimoperation", "MethodCall"), ("cimmethod", "EnumerateInstanceNames"), ("cimobject", NAMESPACE)];
    let right = message("EnumerateInstanceNames", CLASS);
    let deep = format!("{}{}", "<a>".repeat(70), "</a>".repeat(70));
    for (body, status, word) in [
        (String::new(), 400, "request-not-well-formed"),
        ("<CIM".to_owned(), 400, "request-not-well-formed"),
        ("<a/>".to_owned(), 400, "request-not-loosely-valid"),
        (right.replace("CIMVERSION=\"2.0\"", "CIMVERSION=\"3.0\""), 501, "unsupported-cim-version"),
        (right.replace("DTDVERSION=\"2.0\"", "DTDVERSION=\"1.0\""), 501, "unsupported-dtd-version"),
        (
            right.replace("PROTOCOLVERSION=\"1.0\"", "PROTOCOLVERSION=\"2.0\""),
            501,
            "unsupported-protocol-version",
        ),
        (right.replace("SIMPLEREQ", "MULTIREQ"), 501, "multiple-requests-unsupported"),
        (right.replace("SIMPLEREQ", "SIMPLEEXPREQ"), 400, "unsupported-operation"),
        (right.replace("LOCALNAMESPACEPATH", "NAMESPACEPATH"), 400, "request-not-loosely-valid"),
        (right.replace("<CIM ", "<!DOCTYPE CIM [<!ENTITY a \"b\">]><CIM "), 400, "request-not-valid"),
        (deep, 400, "request-not-valid"),
        (format!("<a>{}</a>", "<b/>".repeat(40_000)), 400, "request-not-valid"),
    ] {
        let reply = responder.respond(&request(&headers, body.as_str()));
        assert_eq!(refusal(&reply), (status, word), "{}", body.chars().take(300).collect::<String>());
        assert!(reply.body.is_empty());
    }
}

#[test]
fn a_reply_has_its_requests_encoding() {
    let responder = some();
    let body = message("EnumerateInstanceNames", CLASS).replace("utf-8", "utf-16");
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(body.encode_utf16().flat_map(u16::to_le_bytes));
    let headers =
        [("cimoperation", "MethodCall"), ("cimmethod", "EnumerateInstanceNames"), ("cimobject", NAMESPACE)];
    let reply = responder.respond(&request(&headers, bytes));
    assert_eq!((reply.status, &reply.body[..2]), (200, &[0xff, 0xfe][..]));
    let units: Vec<u16> =
        reply.body[2..].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(&units).unwrap();
    assert!(text.contains("encoding=\"utf-16\"") && text.contains("<INSTANCENAME "), "{text}");
}

#[test]
fn parameters_are_known_once_and_of_their_type() {
    let responder = some();
    let list = |operation: &str, more: &str| ask(&responder, operation, &format!("{CLASS}{more}"));
    let boolean = |name: &str, value: &str| {
        format!("<IPARAMVALUE NAME=\"{name}\"><VALUE>{value}</VALUE></IPARAMVALUE>")
    };
    assert_eq!(code(&list("EnumerateInstances", &boolean("deepinheritance", "false"))), "");
    assert_eq!(code(&list("EnumerateInstances", "<IPARAMVALUE NAME=\"PropertyList\"/>")), "");
    assert_eq!(code(&list("EnumerateInstances", &boolean("LocalOnly", "maybe"))), "4");
    assert_eq!(code(&list("EnumerateInstances", &boolean("Unknown", "true"))), "4");
    assert_eq!(code(&list("EnumerateInstances", CLASS)), "4", "twice");
    assert_eq!(code(&ask(&responder, "EnumerateInstances", "")), "4");
    assert_eq!(code(&ask(&responder, "EnumerateInstances", &CLASS.replace("Msvm_C", "No_C"))), "5");
    assert_eq!(code(&ask(&responder, "GetClass", &CLASS.replace("Msvm_C", "No_C"))), "6");
    for none in ["CreateClass", "DeleteClass", "ModifyClass", "SetQualifier", "Nonsense"] {
        assert_eq!(code(&ask(&responder, none, "")), "7", "{none}");
    }
    let empty = "<IPARAMVALUE NAME=\"PropertyList\"><VALUE.ARRAY/></IPARAMVALUE>";
    assert!(!list("EnumerateInstances", empty).contains("<PROPERTY"), "an empty list is no property");
    let shallow = ask(
        &responder,
        "EnumerateInstances",
        &format!("{}{}", CLASS.replace("Msvm_C", "CIM_C"), boolean("DeepInheritance", "false")),
    );
    assert!(shallow.contains("\"ElementName\"") && !shallow.contains("OnTimeInMilliseconds"), "{shallow}");
}

#[test]
fn an_enumeration_is_kept_within_bounds_and_for_its_own_kind_of_pull() {
    let responder = some();
    let number =
        |name: &str, value: u64| format!("<IPARAMVALUE NAME=\"{name}\"><VALUE>{value}</VALUE></IPARAMVALUE>");
    let open = |more: String| ask(&responder, "OpenEnumerateInstances", &format!("{CLASS}{more}"));
    assert_eq!(code(&open(number("OperationTimeout", 0))), "22");
    assert_eq!(code(&open(number("OperationTimeout", 601))), "22");
    assert_eq!(code(&open(number("MaxObjectCount", 1 << 40))), "4", "no uint32");
    let on_error = "<IPARAMVALUE NAME=\"ContinueOnError\"><VALUE>TRUE</VALUE></IPARAMVALUE>";
    assert_eq!(code(&open(on_error.to_owned())), "26");
    let filter = "<IPARAMVALUE NAME=\"FilterQueryLanguage\"><VALUE>DMTF:FQL</VALUE></IPARAMVALUE>";
    assert_eq!(code(&open(filter.to_owned())), "25");
    // Without a number nothing is given yet, and nothing is made.
    let opened = open(number("OperationTimeout", 600));
    assert!(!opened.contains("<INSTANCE ") && opened.contains("<VALUE>FALSE</VALUE>"), "{opened}");
    let (_, rest) = opened.split_once("\"EnumerationContext\" PARAMTYPE=\"string\"><VALUE>").unwrap();
    let context = rest.split_once('<').unwrap().0;
    let pull = |operation: &str, most: u64| {
        let context =
            format!("<IPARAMVALUE NAME=\"EnumerationContext\"><VALUE>{context}</VALUE></IPARAMVALUE>");
        ask(&responder, operation, &format!("{context}{}", number("MaxObjectCount", most)))
    };
    assert_eq!(code(&pull("PullInstancePaths", 1)), "21");
    assert_eq!(pull("PullInstancesWithPath", 3).matches("<VALUE.INSTANCEWITHPATH>").count(), 3);
    assert_eq!(pull("PullInstancesWithPath", 0).matches("<VALUE.INSTANCEWITHPATH>").count(), 0);
    let last = pull("PullInstancesWithPath", u64::from(u32::MAX));
    assert!(last.matches("<VALUE.INSTANCEWITHPATH>").count() == 2 && last.contains("<VALUE>TRUE</VALUE>"));
    assert_eq!(code(&pull("PullInstancesWithPath", 1)), "21");
    assert_eq!(responder.open_enumerations(), 0);
}

#[test]
fn an_instance_of_a_class_without_keys_and_partial_keys_are_found() {
    let responder = some();
    let name = |keys: &str| {
        let path =
            format!("<INSTANCENAME CLASSNAME=\"Msvm_VirtualSystemManagementService\">{keys}</INSTANCENAME>");
        ask(&responder, "GetInstance", &format!("<IPARAMVALUE NAME=\"InstanceName\">{path}</IPARAMVALUE>"))
    };
    assert_eq!(code(&name("")), "");
    let key = |name: &str, value: &str| {
        format!("<KEYBINDING NAME=\"{name}\"><KEYVALUE>{value}</KEYVALUE></KEYBINDING>")
    };
    assert_eq!(code(&name(&key("Name", "VMMS"))), "");
    assert_eq!(code(&name(&key("Name", "other"))), "6");
}
