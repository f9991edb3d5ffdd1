//! Subscriptions: events that are pulled, over sockets and in the responder.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod memory;
mod serve;

use std::sync::Arc;

use cim::{Instance, Value};
use memory::{Memory, WEB};
use serve::{Client, Served};
use wsman::server::Limits;
use wsman::{Answer, Principal, Responder};

const PASSWORD: &str = "Passw0rd!";
const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";
const QUERY: &str =
    "SELECT * FROM __InstanceModificationEvent WITHIN 2 WHERE TargetInstance ISA 'Msvm_ComputerSystem'";

fn envelope(action: &str, header: &str, body: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="{ENUMERATION}" xmlns:e="{EVENTING}"><s:Header><a:To>http://here/wsman</a:To><a:Action>{action}</a:Action><a:MessageID>uuid:1</a:MessageID><w:ResourceURI>{WMI}/*</w:ResourceURI>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

fn subscribe(expires: &str, mode: &str, query: &str) -> String {
    let expires =
        if expires.is_empty() { String::new() } else { format!("<e:Expires>{expires}</e:Expires>") };
    let body = format!(
        r#"<e:Subscribe><e:Delivery Mode="{mode}"/>{expires}<w:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">{query}</w:Filter></e:Subscribe>"#
    );
    envelope(&format!("{EVENTING}/Subscribe"), "", &body)
}

fn pull(context: &str, timeout: &str) -> String {
    let header = format!("<w:OperationTimeout>{timeout}</w:OperationTimeout>");
    let body = format!(
        "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext><n:MaxElements>10</n:MaxElements></n:Pull>"
    );
    envelope(&format!("{ENUMERATION}/Pull"), &header, &body)
}

/// An action about a subscription, which its header names.
fn about(action: &str, id: &str, body: &str) -> String {
    let header = format!("<e:Identifier>{id}</e:Identifier>");
    envelope(&format!("{EVENTING}/{action}"), &header, &format!("<e:{action}>{body}</e:{action}>"))
}

/// What stands in the first element of that name.
fn inside<'r>(reply: &'r str, tag: &str) -> &'r str {
    let (_, rest) = reply.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag}: {reply}"));
    rest.split_once('<').unwrap().0
}

fn modification(state: u16) -> Instance {
    let system = |state: u16| {
        Instance::new("Msvm_ComputerSystem")
            .with("CreationClassName", "Msvm_ComputerSystem")
            .with("Name", WEB)
            .with("EnabledState", state)
    };
    let mut event = Instance::new("__InstanceModificationEvent");
    event.set("TargetInstance", Some(Value::Object(Box::new(system(state)))));
    event.set("PreviousInstance", Some(Value::Object(Box::new(system(3)))));
    event
}

fn ask(responder: &Responder, user: &str, request: &str) -> (u16, String) {
    let who = Principal { user: user.into(), from: "127.0.0.1".into() };
    let Answer { status, body, .. } = responder.answer(&who, request.as_bytes(), None);
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn an_event_reaches_every_pull_that_waits_and_nobody_else_waits_for_them() {
    const SUBSCRIBERS: usize = 200;
    let (memory, responder) = Memory::new().responder();
    let limits = Limits { requests: 4, ..Limits::default() };
    let served = Arc::new(Served::start(responder, limits));
    let waiting: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut client = Client::connect(served.plain);
            let heard = client.post(PASSWORD, &subscribe("PT60S", PULL, QUERY));
            assert_eq!(heard.status, 200, "{}", heard.body);
            assert_eq!(inside(&heard.body, "e:Expires"), "PT60S");
            assert_eq!(inside(&heard.body, "a:Address"), "http://here/wsman");
            let context = inside(&heard.body, "n:EnumerationContext").to_owned();
            client.send(&serve::posted(
                Some(PASSWORD),
                pull(&context, "PT60S").len(),
                &pull(&context, "PT60S"),
            ));
            client
        })
        .collect();
    // One that subscribed and never pulls.
    let mut dead = Client::connect(served.plain);
    assert_eq!(dead.post(PASSWORD, &subscribe("", PULL, QUERY)).status, 200);
    // With four requests at a time and two hundred that wait, others are answered.
    let asked = Client::connect(served.plain).post(PASSWORD, &subscribe("", PULL, QUERY));
    assert_eq!(asked.status, 200);
    memory.happens(modification(2), 0);
    for mut client in waiting {
        let heard = client.hear().unwrap();
        assert_eq!(heard.status, 200, "{}", heard.body);
        let event = r#"xsi:type="p:__InstanceModificationEvent_Type""#;
        assert!(heard.body.contains(event), "{}", heard.body);
        assert_eq!(inside(&heard.body, "q:EnabledState"), "2");
    }
}

#[test]
fn a_pull_without_an_event_times_out_and_the_next_one_gets_it() {
    let (memory, responder) = Memory::new().responder();
    let served = Served::start(responder, Limits::default());
    let mut client = Client::connect(served.plain);
    let heard = client.post(PASSWORD, &subscribe("", PULL, QUERY));
    let context = inside(&heard.body, "n:EnumerationContext").to_owned();
    let heard = client.post(PASSWORD, &pull(&context, "PT0.05S"));
    assert!(heard.status == 500 && heard.body.contains("w:TimedOut"), "{}", heard.body);
    memory.happens(modification(2), 7);
    memory.happens(modification(3), 0);
    let heard = client.post(PASSWORD, &pull(&context, "PT60S"));
    assert_eq!(heard.status, 200, "{}", heard.body);
    assert!(heard.body.contains(">7</w:DroppedEvents>"), "{}", heard.body);
    assert_eq!(heard.body.matches("</p:__InstanceModificationEvent>").count(), 2);
    assert_eq!(inside(&heard.body, "n:EnumerationContext"), context, "there is no end to events");
}

#[test]
fn the_server_stops_though_pulls_wait() {
    let (_, responder) = Memory::new().responder();
    let served = Served::start(responder, Limits::default());
    let mut client = Client::connect(served.plain);
    let heard = client.post(PASSWORD, &subscribe("", PULL, QUERY));
    let request = pull(inside(&heard.body, "n:EnumerationContext"), "PT600S");
    client.send(&serve::posted(Some(PASSWORD), request.len(), &request));
    drop(served);
    assert!(client.hear().is_none_or(|heard| heard.status == 503));
}

#[test]
fn a_subscription_is_its_users_is_renewed_and_ends() {
    let (memory, responder) = Memory::new().responder();
    let (status, reply) = ask(&responder, "one", &subscribe("PT600.000000S", PULL, QUERY));
    assert_eq!(status, 200, "{reply}");
    let id = inside(&reply, "e:Identifier").to_owned();
    assert_eq!(memory.subscribed(), 1);
    let refused = |user: &str, request: &str, fault: &str| {
        let (status, reply) = ask(&responder, user, request);
        assert!(status == 500 && reply.contains(fault), "{reply}");
    };
    refused("two", &about("Unsubscribe", &id, ""), "e:InvalidMessage");
    refused("two", &about("Renew", &id, ""), "e:UnableToRenew");
    refused("two", &pull(&id, "PT1S"), "n:InvalidEnumerationContext");
    let (status, reply) = ask(&responder, "one", &about("Renew", &id, "<e:Expires>PT100000S</e:Expires>"));
    assert_eq!((status, inside(&reply, "e:Expires")), (200, "PT86400S"), "no longer than a day");
    let (status, reply) = ask(&responder, "one", &about("GetStatus", &id, ""));
    assert!(status == 200 && inside(&reply, "e:Expires").starts_with("PT86"), "{reply}");
    assert_eq!(ask(&responder, "one", &about("Unsubscribe", &id, "")).0, 200);
    assert_eq!(memory.subscribed(), 0);
    refused("one", &about("Unsubscribe", &id, ""), "e:InvalidMessage");

    let (_, reply) = ask(&responder, "one", &subscribe("PT0.000001S", PULL, QUERY));
    let id = inside(&reply, "e:Identifier").to_owned();
    refused("one", &pull(&id, "PT1S"), "n:InvalidEnumerationContext");
    assert_eq!(memory.subscribed(), 0, "its time is over");

    let (_, reply) = ask(&responder, "one", &subscribe("", PULL, QUERY));
    let release = format!(
        "<n:Release><n:EnumerationContext>{}</n:EnumerationContext></n:Release>",
        inside(&reply, "n:EnumerationContext")
    );
    assert_eq!(ask(&responder, "one", &envelope(&format!("{ENUMERATION}/Release"), "", &release)).0, 200);
    assert_eq!(memory.subscribed(), 0);
}

#[test]
fn what_cannot_be_subscribed_is_told_why() {
    let (memory, responder) = Memory::new().responder();
    for (request, fault) in [
        (
            subscribe("", "http://schemas.xmlsoap.org/ws/2004/08/eventing/DeliveryModes/Push", QUERY),
            "e:DeliveryModeRequestedUnavailable",
        ),
        (subscribe("PT0S", PULL, QUERY), "e:InvalidExpirationTime"),
        (subscribe("2001-01-01T00:00:00Z", PULL, QUERY), "e:InvalidExpirationTime"),
        (subscribe("soon", PULL, QUERY), "e:InvalidExpirationTime"),
        (subscribe("", PULL, "SELECT"), "e:FilteringRequestedUnavailable"),
        (subscribe("", PULL, "SELECT * FROM Nothing"), "e:FilteringRequestedUnavailable"),
        (
            subscribe("", PULL, "ASSOCIATORS OF {Msvm_ComputerSystem.Name='x'}"),
            "e:FilteringRequestedUnavailable",
        ),
        (envelope(&format!("{EVENTING}/Subscribe"), "", ""), "e:InvalidMessage"),
        (
            envelope(&format!("{EVENTING}/Subscribe"), "", "<e:Subscribe/>"),
            "e:DeliveryModeRequestedUnavailable",
        ),
    ] {
        let (status, reply) = ask(&responder, "one", &request);
        assert!(status == 500 && reply.contains(fault), "{fault}: {reply}");
    }
    assert_eq!(memory.subscribed(), 0);
    let (status, reply) = ask(&responder, "one", &subscribe("2999-01-01T00:00:00Z", PULL, QUERY));
    assert_eq!((status, inside(&reply, "e:Expires")), (200, "PT86400S"));
}
