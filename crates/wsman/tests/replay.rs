//! What real clients sent, sent again: each recorded request gets the reply that its client was happy with.
//!
//! `requests/` holds our own recordings, one file per client and operation, as the wire had them: openwsman, pypsrp, pywinrm,
//! python-dracclient and curl. A recorded pull names the context of its own day; here it gets the one of ours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod memory;

use std::path::Path;

use cim::Value;
use memory::{Memory, WEB};
use roxmltree::{Document, Node};
use wsman::{Principal, Responder};

const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";

/// The bodies of a file's requests.
fn requests(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(name);
    let text = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let sections = text.split("\n### ").skip(1).filter(|section| section.contains("-req-"));
    sections.map(|section| section.split_once("\n\n").unwrap().1.trim().to_owned()).collect()
}

fn somebody() -> Principal {
    Principal { user: "administrator".into(), from: "127.0.0.1:1".into() }
}

/// All elements of that local name.
fn named<'d>(document: &'d Document<'d>, name: &str) -> Vec<Node<'d, 'd>> {
    document.descendants().filter(|node| node.is_element() && node.tag_name().name() == name).collect()
}

fn text_of<'d>(document: &'d Document<'d>, name: &str) -> Option<&'d str> {
    named(document, name).first().and_then(Node::text)
}

/// Sends what a file has and gives the replies, having looked at what all replies have in common.
fn replay(responder: &Responder, name: &str) -> Vec<String> {
    let mut context: Option<String> = None;
    let mut replies = Vec::new();
    for mut request in requests(name) {
        let recorded = Document::parse(&request).unwrap();
        let header = |name: &str| text_of(&recorded, name).map(str::to_owned);
        let (id, action) = (header("MessageID"), header("Action"));
        if let (Some(context), Some(old)) = (&context, header("EnumerationContext")) {
            request = request.replace(&old, context);
        }
        let answer =
            responder.answer(&somebody(), request.as_bytes(), Some("application/soap+xml;charset=UTF-8"));
        let reply = String::from_utf8(answer.body).unwrap();
        let document = Document::parse(&reply).unwrap_or_else(|e| panic!("{name}: {e}\n{reply}"));
        let root = document.root_element();
        assert_eq!(root.tag_name().namespace(), Some(SOAP), "{name}");
        assert!(reply.starts_with("<s:Envelope xml:lang=\"en-US\" xmlns:s="), "{name}: {reply}");
        assert_eq!(text_of(&document, "RelatesTo"), id.as_deref(), "{name}");
        let fault = !named(&document, "Fault").is_empty();
        assert_eq!(answer.status, if fault { 500 } else { 200 }, "{name}: {reply}");
        if let Some(action) = action.filter(|_| !fault) {
            assert_eq!(text_of(&document, "Action"), Some(format!("{action}Response").as_str()), "{name}");
        }
        context = text_of(&document, "EnumerationContext").map(str::to_owned).or(context);
        replies.push(reply);
    }
    replies
}

/// The local names of all elements that are instances, over all replies.
fn instances(replies: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for reply in replies {
        let document = Document::parse(reply).unwrap();
        let typed = document
            .descendants()
            .filter(|node| node.attributes().any(|attribute| attribute.name() == "type"));
        all.extend(typed.map(|node| node.tag_name().name().to_owned()));
    }
    all
}

fn subcode(reply: &str) -> String {
    let document = Document::parse(reply).unwrap();
    let subcode = named(&document, "Subcode").first().copied().unwrap();
    assert!(named(&document, "WSManFault")[0].attribute("Code").unwrap().parse::<u32>().is_ok());
    subcode.descendants().find_map(|node| node.text()).unwrap().to_owned()
}

#[test]
fn every_recording_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let source = include_str!("replay.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn identify_says_who_is_here() {
    let (_, responder) = Memory::new().responder();
    for name in ["wsman-cli_identify.http", "curl_basic.http"] {
        let reply = &replay(&responder, name)[0];
        let document = Document::parse(reply).unwrap();
        assert_eq!(text_of(&document, "ProductVersion"), Some("OS: 10.0.20348 SP: 0.0 Stack: 3.0"));
        assert!(reply.contains("<wsmid:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd<"));
    }
    let request = &requests("curl_unauth_identify.http")[0];
    let answer = responder.identify(request.as_bytes(), None);
    let reply = String::from_utf8(answer.body).unwrap();
    assert!(
        answer.status == 200 && reply.contains("OS: 0.0.0 "),
        "strangers are not told the version: {reply}"
    );
    let get = &requests("pypsrp-basic_get.http")[0];
    let answer = responder.identify(get.as_bytes(), None);
    assert_eq!(answer.done.fault.unwrap(), "w:AccessDenied: without a user there is only Identify");
}

#[test]
fn an_instance_has_all_its_properties_in_the_namespace_asked_for() {
    let (_, responder) = Memory::new().responder();
    for name in [
        "wsman-cli_get.http",
        "pypsrp-basic_get.http",
        "pywinrm-basic_get.http",
        "wsman-cli_get_cimnamespace.http",
    ] {
        let reply = &replay(&responder, name)[0];
        let document = Document::parse(reply).unwrap();
        let instance = named(&document, "Msvm_ComputerSystem")[0];
        let properties: Vec<_> = instance.children().filter(Node::is_element).collect();
        assert_eq!(properties.len(), 10, "nine properties, one of them with two values");
        assert!(properties.iter().all(|node| node.tag_name().namespace() == instance.tag_name().namespace()));
        assert_eq!(text_of(&document, "Datetime"), Some("2026-01-02T03:04:05Z"));
        assert!(reply.contains("<p:TimeOfLastStateChange xsi:nil=\"true\"/>"));
        assert!(reply.contains(
            "<p:OperationalStatus>2</p:OperationalStatus><p:OperationalStatus>32768</p:OperationalStatus>"
        ));
        let uri = match name.contains("cimnamespace") {
            true => "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/Msvm_ComputerSystem",
            false => {
                "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ComputerSystem"
            }
        };
        assert_eq!(instance.tag_name().namespace(), Some(uri));
        assert!(reply.contains("xsi:type=\"p:Msvm_ComputerSystem_Type\""));
    }
}

#[test]
fn a_fragment_is_the_property_alone() {
    let (_, responder) = Memory::new().responder();
    let reply = &replay(&responder, "wsman-cli_get_fragment.http")[0];
    assert!(reply.contains(
        "<w:FragmentTransfer s:mustUnderstand=\"true\">ElementName</w:FragmentTransfer></s:Header>"
    ));
    let document = Document::parse(reply).unwrap();
    let fragment = named(&document, "XmlFragment")[0];
    assert_eq!(fragment.children().count(), 1);
    assert_eq!(text_of(&document, "ElementName"), Some("web01"));
}

#[test]
fn a_put_changes_what_differs() {
    for name in ["wsman-cli_put.http", "pypsrp-basic_put.http"] {
        let (_, responder) = Memory::new().responder();
        let replies = replay(&responder, name);
        let document = Document::parse(replies.last().unwrap()).unwrap();
        let expected = if name.starts_with("wsman") { "newname" } else { "x" };
        assert_eq!(text_of(&document, "ElementName"), Some(expected), "{name}");
        assert_eq!(text_of(&document, "ConfigurationID"), Some(WEB), "the rest is as it was");
    }
}

#[test]
fn what_is_not_there_is_unreachable() {
    let (_, responder) = Memory::new().responder();
    for name in ["wsman-cli_get_fault.http", "pypsrp-basic_fault.http", "pywinrm-basic_fault.http"] {
        let reply = &replay(&responder, name)[0];
        assert_eq!(subcode(reply), "a:DestinationUnreachable");
        assert!(reply.contains("<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"2150858752\" Machine=\"HOST\">"));
        assert!(reply.contains("<f:ProviderFault provider=\"WMI Provider\""));
    }
}

#[test]
fn a_shell_is_refused_with_what_there_is_instead() {
    let (_, responder) = Memory::new().responder();
    let reply = &replay(&responder, "pywinrm-basic_shell.http")[0];
    assert_eq!(subcode(reply), "w:UnsupportedFeature");
    assert!(reply.contains("there is no remote shell") && reply.contains("Msvm_ComputerSystem"));
}

#[test]
fn the_configuration_tells_the_largest_envelope() {
    let (_, responder) = Memory::new().responder();
    let reply = &replay(&responder, "pypsrp-basic_config.http")[0];
    let document = Document::parse(reply).unwrap();
    let size = named(&document, "MaxEnvelopeSizekb")[0];
    assert_eq!(size.tag_name().namespace(), Some("http://schemas.microsoft.com/wbem/wsman/1/config"));
    assert_eq!(size.text(), Some("500"));
}

#[test]
fn enumerations_come_in_the_portions_asked_for() {
    let (_, responder) = Memory::new().responder();
    // How many pulls a recording has decides how far each of them gets; some go on after the end, which was elsewhere then.
    for (name, systems, ends) in [
        ("wsman-cli_enumerate.http", 4, false),
        ("wsman-cli_enumerate_max.http", 5, true),
        ("wsman-cli_enumerate_optimized.http", 4, false),
        ("wsman-cli_enumerate_wql.http", 3, false),
        ("wsman-cli_enumerate_cql.http", 1, true),
        ("wsman-cli_enumerate_selectorfilter.http", 1, true),
        ("wsman-cli_enumerate_objepr.http", 4, false),
        ("pypsrp-basic_enumerate.http", 5, true),
        ("pypsrp-basic_enumerate_objepr.http", 5, true),
        ("pypsrp-basic_enumerate_wql.http", 2, true),
        ("pywinrm-basic_wql.http", 5, true),
        ("dracclient_enumerate.http", 5, true),
        ("dracclient_enumerate_wql.http", 5, true),
        ("dracclient_enumerate_nooptim.http", 2, false),
    ] {
        let replies = replay(&responder, name);
        assert_eq!(instances(&replies), vec!["Msvm_ComputerSystem"; systems], "{name}: {replies:#?}");
        assert_eq!(replies.iter().any(|reply| reply.contains("EndOfSequence/>")), ends, "{name}");
        if name.contains("objepr") {
            let items: usize = replies.iter().map(|reply| reply.matches("<w:Item><p:Msvm").count()).sum();
            assert_eq!(items, systems, "each object with its reference");
        }
    }
}

#[test]
fn references_of_instances_carry_namespace_and_keys() {
    let (_, responder) = Memory::new().responder();
    let replies = replay(&responder, "wsman-cli_enumerate_epr.http");
    assert!(instances(&replies).is_empty());
    assert!(replies[1].contains(&format!(
        "<n:Items><a:EndpointReference><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address>\
         <a:ReferenceParameters><w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ComputerSystem</w:ResourceURI>\
         <w:SelectorSet><w:Selector Name=\"__cimnamespace\">root/virtualization/v2</w:Selector>\
         <w:Selector Name=\"CreationClassName\">Msvm_ComputerSystem</w:Selector><w:Selector Name=\"Name\">{WEB}</w:Selector></w:SelectorSet>"
    )), "{}", replies[1]);
}

#[test]
fn associations_are_walked_both_ways() {
    let (_, responder) = Memory::new().responder();
    let replies = replay(&responder, "wsman-cli_associators.http");
    assert_eq!(instances(&replies[..2]), ["Msvm_VirtualSystemSettingData"]);
    assert!(replies[1].contains("EndOfSequence"));
    let replies = replay(&responder, "wsman-cli_references.http");
    assert_eq!(instances(&replies[..2]), ["Msvm_SettingsDefineState"]);
    let document = Document::parse(&replies[1]).unwrap();
    let end = named(&document, "ManagedElement")[0];
    assert!(end.children().any(|node| node.tag_name().name() == "ReferenceParameters"));
}

#[test]
fn a_context_that_is_none_is_refused() {
    let (_, responder) = Memory::new().responder();
    for name in ["wsman-cli_pull.http", "wsman-cli_release.http"] {
        assert_eq!(subcode(&replay(&responder, name)[0]), "n:InvalidEnumerationContext");
    }
}

#[test]
fn a_method_is_called_and_its_job_is_a_reference() {
    for name in [
        "wsman-cli_invoke_simple.http",
        "pypsrp-basic_invoke_simple.http",
        "pywinrm-basic_invoke.http",
        "dracclient_invoke.http",
    ] {
        let (memory, responder) = Memory::new().responder();
        let reply = &replay(&responder, name)[0];
        let called = memory.called.lock().unwrap();
        let (method, on, parameters) = &called[0];
        assert_eq!(method, "RequestStateChange");
        assert_eq!(*on, memory::system_path(WEB), "whether or not all keys were given");
        let state = if name.starts_with("pywinrm") { 2 } else { 3 };
        assert_eq!(*parameters, [("RequestedState".into(), Some(Value::Uint16(state)))]);
        assert!(reply.contains("<p:Job><a:Address>"), "{reply}");
        assert!(reply.contains("<w:Selector Name=\"InstanceID\">job-1</w:Selector>"));
        assert!(reply.contains("</p:Job><p:ReturnValue>4096</p:ReturnValue></p:RequestStateChange_OUTPUT>"));
    }
}

#[test]
fn arrays_references_and_embedded_instances_reach_the_method() {
    let (memory, responder) = Memory::new().responder();
    for name in [
        "dracclient_invoke_array.http",
        "wsman-cli_invoke_optionset.http",
        "wsman-cli_invoke_file.http",
        "pypsrp-basic_invoke_embedded_epr_array.http",
    ] {
        let reply = &replay(&responder, name)[0];
        let (method, on, parameters) = memory.called.lock().unwrap().remove(0);
        assert_eq!(on.text("Name"), Some("vmms"), "a class with one instance needs no selectors");
        let value = |name: &str| {
            let found = parameters.iter().find(|(there, _)| *there == name);
            found.and_then(|(_, value)| value.clone())
        };
        match method.as_str() {
            "GetSummaryInformation" => {
                let numbers = if name.starts_with("drac") { vec![0u32, 1] } else { vec![0] };
                assert_eq!(value("RequestedInformation"), Some(numbers.into()));
                assert_eq!(reply.matches("xsi:type=\"q:Msvm_SummaryInformation_Type\"").count(), 2);
                assert!(
                    reply.contains("<q:ThumbnailImage>0</q:ThumbnailImage><q:ThumbnailImage>255<"),
                    "{reply}"
                );
            }
            "DefineSystem" => {
                let settings = value("SystemSettings").unwrap();
                assert!(
                    settings
                        .as_str()
                        .unwrap()
                        .starts_with("<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\">")
                );
            }
            "AddResourceSettings" => {
                let configuration = value("AffectedConfiguration").unwrap();
                assert_eq!(*configuration.as_path().unwrap(), memory::settings_path(WEB));
                let resources = value("ResourceSettings").unwrap();
                assert_eq!(resources.elements().len(), 2);
            }
            other => panic!("{other}"),
        }
    }
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
    let (_, responder) = Memory::new().responder();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let interesting: [&[u8]; 8] =
        [b"<", b">", b"\"", b"&#0;", b"<![CDATA[", b"\xff\xfe", b"xmlns:s=\"\"", b"</s:Body>"];
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        for request in requests(&name) {
            for _ in 0..60 {
                let mut bytes = request.clone().into_bytes();
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
                let answer = responder.answer(&somebody(), &bytes, None);
                let reply = if answer.body.starts_with(b"<") {
                    String::from_utf8(answer.body).unwrap()
                } else {
                    let units = answer.body[2..].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                    char::decode_utf16(units).collect::<Result<_, _>>().unwrap()
                };
                Document::parse(&reply).unwrap();
            }
        }
    }
}
