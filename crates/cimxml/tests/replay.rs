//! What real clients sent, sent again: each recorded request gets the reply that its client was happy with.
//!
//! `requests/` holds our own recordings of pywbem and wbemcli, one file per client and operation, as the wire had them, with the
//! machine's id and the host's name of the host in memory. A recorded pull names the context of its own day; here it gets
//! the one of ours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod host;

use cim::Value;
use cimxml::Responder;
use host::memory::{self, Memory, WEB};
use host::{recorded, recordings, responder, text};
use roxmltree::Document;
use wsman::server::Request;

/// What a reply says of its enumeration: the context, and whether it is over.
fn enumeration(reply: &str) -> Option<(String, bool)> {
    let value = |name: &str| {
        let (_, rest) = reply.split_once(&format!("<PARAMVALUE NAME=\"{name}\""))?;
        let (_, rest) = rest.split_once("<VALUE>")?;
        Some(rest.split_once("</VALUE>")?.0.to_owned())
    };
    Some((value("EnumerationContext")?, value("EndOfSequence")? == "TRUE"))
}

/// A request with the context of ours in it.
fn with_context(mut request: Request, context: &str) -> Request {
    let body = String::from_utf8(request.body).unwrap();
    request.body = match body.split_once("NAME=\"EnumerationContext\"><VALUE>") {
        Some((before, rest)) => {
            let (_, after) = rest.split_once("</VALUE>").unwrap();
            format!("{before}NAME=\"EnumerationContext\"><VALUE>{context}</VALUE>{after}").into_bytes()
        }
        None => body.into_bytes(),
    };
    request
}

/// Sends what a file has, a last pull as often as there is something to pull, and gives the replies.
fn replay(responder: &Responder, name: &str) -> Vec<String> {
    let mut open: Option<(String, bool)> = None;
    let mut replies = Vec::new();
    let requests = recorded(name);
    let mut sent = requests.iter().chain(requests.last().into_iter().cycle());
    while replies.len() < requests.len() || open.as_ref().is_some_and(|(_, over)| !over) {
        let request = sent.next().unwrap();
        let request = match &open {
            // There are fewer here than there were.
            Some((_, true)) => break,
            Some((context, false)) => with_context(request.clone(), context),
            None => request.clone(),
        };
        let body = String::from_utf8(request.body.clone()).unwrap();
        let reply = text(responder.respond(&request));
        let document = Document::parse(&reply).unwrap_or_else(|e| panic!("{name}: {e}\n{reply}"));
        let asked = Document::parse(&body).unwrap();
        let id = |document: &Document<'_>| {
            let message = document.descendants().find(|node| node.tag_name().name() == "MESSAGE").unwrap();
            message.attribute("ID").map(str::to_owned)
        };
        assert_eq!(id(&document), id(&asked), "{name}");
        open = enumeration(&reply);
        replies.push(reply);
    }
    replies
}

fn one(name: &str) -> String {
    let (_, responder) = responder(Memory::new());
    replay(&responder, name).pop().unwrap()
}

fn error(reply: &str) -> &str {
    let Some((_, rest)) = reply.split_once("<ERROR CODE=\"") else { return "" };
    rest.split_once('"').unwrap().0
}

#[test]
fn every_recording_is_answered_and_only_those_that_ask_for_it_are_refused() {
    for name in recordings() {
        let (_, responder) = responder(Memory::new());
        let replies = replay(&responder, &name);
        let expected = match name.as_str() {
            "pywbem_CreateInstance.http" | "pywbem_DeleteInstance.http" | "wbemcli_di.http" => "7",
            "pywbem_ExecQuery_language.http" => "14",
            "pywbem_InvokeMethod_none.http" => "17",
            "pywbem_no_namespace.http" => "3",
            // It sends all that it was given, and the class had more properties where it was recorded.
            "wbemcli_mi.http" => "4",
            _ => "",
        };
        let last = replies.last().unwrap();
        assert_eq!(error(last), expected, "{name}: {last}");
        assert_eq!(responder.open_enumerations(), 0, "{name}");
    }
}

#[test]
fn instances_come_whole_with_types_and_paths() {
    let reply = one("pywbem_EnumerateInstances.http");
    assert_eq!(reply.matches("<VALUE.NAMEDINSTANCE>").count(), 5);
    assert!(reply.contains(&format!(
        "<KEYBINDING NAME=\"Name\"><KEYVALUE VALUETYPE=\"string\" TYPE=\"string\">{WEB}</KEYVALUE></KEYBINDING>"
    )));
    assert!(reply.contains(
        "<PROPERTY.ARRAY NAME=\"OperationalStatus\" TYPE=\"uint16\"><VALUE.ARRAY><VALUE>2</VALUE><VALUE>32768</VALUE>\
         </VALUE.ARRAY></PROPERTY.ARRAY>"
    ));
    assert!(reply.contains("<VALUE>20260102030405.000000+000</VALUE>"));
    let names = one("pywbem_EnumerateInstanceNames.http");
    assert!(names.matches("<INSTANCENAME ").count() == 5 && !names.contains("<INSTANCE "));
    let queried = one("pywbem_ExecQuery_CQL.http");
    assert_eq!(queried.matches("<VALUE.OBJECTWITHPATH>").count(), 2, "{queried}");
}

#[test]
fn a_property_list_leaves_the_rest_out_and_origins_are_told() {
    let reply = one("pywbem_GetInstance.http");
    assert_eq!(reply.matches("<PROPERTY").count(), 2, "{reply}");
    assert!(reply.contains(
        "<PROPERTY NAME=\"ElementName\" TYPE=\"string\" CLASSORIGIN=\"CIM_ComputerSystem\"><VALUE>web01</VALUE></PROPERTY>"
    ));
}

#[test]
fn a_modified_instance_changes_what_differs() {
    let (_, responder) = responder(Memory::new());
    replay(&responder, "pywbem_ModifyInstance.http");
    let reply = replay(&responder, "pywbem_GetInstance.http").pop().unwrap();
    assert!(reply.contains("<VALUE>x</VALUE>"), "{reply}");
}

#[test]
fn associations_are_walked_from_instances_and_from_classes() {
    let found = one("pywbem_Associators.http");
    assert!(found.contains("<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\">"), "{found}");
    assert!(found.contains("<HOST>HOST</HOST>"));
    let references = one("pywbem_References.http");
    assert!(references.contains("<PROPERTY.REFERENCE NAME=\"ManagedElement\""), "{references}");
    let class = one("pywbem_Associators_class.http");
    assert!(class.contains("<CLASSPATH>") && class.contains("<CLASS NAME="), "{class}");
}

#[test]
fn classes_have_what_clients_need_to_call_methods() {
    let class = one("wbemcli_gc.http");
    assert!(class.contains("<CLASS NAME=\"Msvm_ComputerSystem\" SUPERCLASS=\"CIM_ComputerSystem\">"));
    assert!(class.contains("<PARAMETER NAME=\"RequestedState\" TYPE=\"uint16\">"), "{class}");
    assert!(class.contains("<PARAMETER.REFERENCE NAME=\"Job\" REFERENCECLASS=\"CIM_ConcreteJob\">"));
    assert!(
        one("pywbem_GetQualifier.http")
            .contains("<QUALIFIER.DECLARATION NAME=\"Key\" TYPE=\"boolean\" ISARRAY=\"false\"")
    );
}

#[test]
fn enumerations_are_pulled_to_their_end() {
    for (name, tag, count) in [
        ("pywbem_Pull_instances.http", "<VALUE.INSTANCEWITHPATH>", 5),
        ("pywbem_Pull_paths.http", "<INSTANCEPATH>", 5),
        ("pywbem_Pull_associators.http", "<VALUE.INSTANCEWITHPATH>", 1),
        ("pywbem_Pull_references.http", "<INSTANCEPATH>", 1),
        ("pywbem_Pull_query.http", "<INSTANCE ", 5),
    ] {
        let (_, responder) = responder(Memory::new());
        let replies = replay(&responder, name);
        let found: usize = replies.iter().map(|reply| reply.matches(tag).count()).sum();
        assert_eq!(found, count, "{name}: {replies:#?}");
        assert_eq!(responder.open_enumerations(), 0, "{name}");
    }
}

#[test]
fn a_method_is_called_with_what_it_was_given() {
    for name in
        ["pywbem_InvokeMethod.http", "pywbem_InvokeMethod_embedded.http", "pywbem_InvokeMethod_text.http"]
    {
        let (memory, responder) = responder(Memory::new());
        let reply = replay(&responder, name).pop().unwrap();
        let (method, on, parameters) = memory.called.lock().unwrap().remove(0);
        let value = |name: &str| {
            let found = parameters.iter().find(|(there, _)| *there == name);
            found.and_then(|(_, value)| value.clone())
        };
        assert!(
            reply.contains("<RETURNVALUE PARAMTYPE=\"uint32\"><VALUE>4096</VALUE></RETURNVALUE>"),
            "{reply}"
        );
        assert!(reply.contains("<PARAMVALUE NAME=\"Job\" PARAMTYPE=\"reference\"><VALUE.REFERENCE>"));
        match method.as_str() {
            "RequestStateChange" => {
                assert_eq!(on, memory::system_path(WEB));
                assert_eq!(value("RequestedState"), Some(Value::Uint16(3)));
            }
            "DefineSystem" => {
                let settings = value("SystemSettings").unwrap();
                assert!(settings.as_str().unwrap().contains("<INSTANCE CLASSNAME="), "{settings}");
                if name.contains("embedded") {
                    assert_eq!(value("ResourceSettings").unwrap().elements().len(), 2);
                    let configuration = value("ReferenceConfiguration").unwrap();
                    assert_eq!(configuration.as_path().unwrap().keys, memory::settings_path(WEB).keys);
                }
            }
            other => panic!("{other}"),
        }
    }
    let summaries = one("pywbem_InvokeMethod_array.http");
    assert!(summaries.contains("<PARAMVALUE NAME=\"SummaryInformation\" PARAMTYPE=\"string\" EmbeddedObject=\"instance\"><VALUE.ARRAY><VALUE>&lt;INSTANCE"), "{summaries}");
}

/// Numbers that look random and are the same each time (xorshift).
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

#[test]
fn damaged_recordings_get_a_reply_all_the_same() {
    let (_, responder) = responder(Memory::new());
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let interesting: [&[u8]; 8] =
        [b"<", b">", b"\"", b"&#0;", b"<![CDATA[", b"\xff\xfe", b"NAME=\"\"", b"</IMETHODCALL>"];
    for name in recordings() {
        for request in recorded(&name) {
            for _ in 0..60 {
                let mut request = request.clone();
                let bytes = &mut request.body;
                for _ in 0..=random(&mut state) % 3 {
                    let at = random(&mut state) % bytes.len();
                    match random(&mut state) % 4 {
                        0 => bytes[at] ^= 1 << (random(&mut state) % 8),
                        1 => bytes.truncate(at.max(1)),
                        2 => drop(bytes.drain(at..(at + random(&mut state) % 40).min(bytes.len()))),
                        _ => drop(bytes.splice(at..at, interesting[random(&mut state) % 8].iter().copied())),
                    }
                    if bytes.is_empty() {
                        break;
                    }
                }
                let reply = responder.respond(&request);
                match reply.status {
                    200 if reply.body.starts_with(b"<") => {
                        Document::parse(std::str::from_utf8(&reply.body).unwrap()).unwrap();
                    }
                    200 => {}
                    400 | 501 => assert!(reply.headers.iter().any(|(name, _)| *name == "cimerror")),
                    other => panic!("{other}"),
                }
            }
        }
    }
}
