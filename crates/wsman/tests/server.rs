//! Over real sockets: clients that others wrote, and clients that mean no good.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is test code")]

mod memory;
mod serve;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memory::Memory;
use serve::{Client, Served, posted};
use wsman::server::Limits;

const PASSWORD: &str = "Passw0rd!";
const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";

fn served(limits: Limits) -> Served {
    Served::start(Memory::new().responder().1, limits)
}

/// An envelope of an action of WS-Enumeration.
fn enumeration(action: &str, body: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration"><s:Header><a:Action>http://schemas.xmlsoap.org/ws/2004/09/enumeration/{action}</a:Action><a:MessageID>uuid:1</a:MessageID><w:ResourceURI>{WMI}/Msvm_ComputerSystem</w:ResourceURI></s:Header><s:Body><n:{action}>{body}</n:{action}></s:Body></s:Envelope>"#
    )
}

fn identify() -> String {
    r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#.to_owned()
}

/// The service answers.
fn alive(served: &Served) {
    let heard = Client::connect(served.plain).post(PASSWORD, &identify());
    assert!(heard.status == 200 && heard.body.contains("IdentifyResponse"), "{}", heard.body);
}

fn context(reply: &str) -> &str {
    let (_, rest) = reply.split_once("<n:EnumerationContext>").unwrap();
    rest.split_once('<').unwrap().0
}

/// Runs a client of `clients.py` over both kinds of connection.
fn python(client: &str, module: &str) {
    let python = std::env::var("SLIPWAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: {python} has no {module} (tests/requirements.txt)");
        return;
    }
    let served = served(Limits::default());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients.py");
    for (scheme, address) in [("http", served.plain), ("https", served.tls)] {
        let port = address.port().to_string();
        let ran = Command::new(&python).args([script, client, "127.0.0.1", &port, scheme]).output().unwrap();
        assert!(ran.status.success(), "{client} {scheme}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn pypsrp_works() {
    python("pypsrp", "pypsrp.wsman");
}

#[test]
fn pywinrm_works() {
    python("pywinrm", "winrm.protocol");
}

#[test]
fn python_dracclient_works() {
    python("dracclient", "dracclient.wsman");
}

#[test]
fn curl_asks_who_is_here_with_and_without_a_user() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl");
        return;
    }
    let served = served(Limits::default());
    let curl = |arguments: &[&str], url: &str| {
        let ran = Command::new("curl")
            .args([
                "-s",
                "-S",
                "-k",
                "-w",
                "\n%{http_code}",
                "-H",
                "Content-Type: application/soap+xml;charset=UTF-8",
            ])
            .args(["-d", &identify()])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let (http, https) = (format!("http://{}", served.plain), format!("https://{}", served.tls));
    for base in [&http, &https] {
        let known = curl(&["--user", "administrator:Passw0rd!", "--basic"], &format!("{base}/wsman/"));
        assert!(known.contains("OS: 10.0.20348") && known.ends_with("200"), "{known}");
        let stranger = curl(&[], &format!("{base}/wsman-anon/identify"));
        assert!(stranger.contains("OS: 0.0.0") && stranger.ends_with("200"), "{stranger}");
        let unauthenticated = curl(&["-H", "WSMANIDENTIFY: unauthenticated"], &format!("{base}/wsman"));
        assert!(unauthenticated.contains("OS: 0.0.0"), "{unauthenticated}");
        assert_eq!(curl(&[], &format!("{base}/wsman")), "\n401", "an empty body");
        assert_eq!(curl(&[], &format!("{base}/elsewhere")), "\n404");
        // The challenge is answered on the same connection.
        let later = curl(&["--anyauth", "--user", "administrator:Passw0rd!"], &format!("{base}/wsman"));
        assert!(later.contains("OS: 10.0.20348"), "{later}");
    }
}

#[test]
fn a_wrong_password_is_refused_and_told() {
    let served = served(Limits::default());
    let mut client = Client::connect(served.plain);
    let heard = client.post("wrong", &identify());
    assert_eq!((heard.status, heard.body.as_str()), (401, ""));
    assert!(heard.head.contains("Www-Authenticate: Basic realm=\"WSMAN\"\r\n"), "{}", heard.head);
    assert_eq!(*served.gate.refused.lock().unwrap(), [("administrator".into(), "wrong password".into())]);
    assert_eq!(client.post(PASSWORD, &identify()).status, 200, "on the same connection");
}

#[test]
fn five_hundred_enumerations_hold_what_is_pulled_and_no_more() {
    let mut memory = Memory::new();
    memory.more = 10_000;
    let made = std::sync::Arc::clone(&memory.made);
    let served = Served::start(memory.responder().1, Limits::default());
    let one = |client: &mut Client| {
        let reply = client.post(PASSWORD, &enumeration("Enumerate", ""));
        assert_eq!(reply.status, 200, "{}", reply.body);
        let body = format!(
            "<n:EnumerationContext>{}</n:EnumerationContext><n:MaxElements>7</n:MaxElements>",
            context(&reply.body)
        );
        let reply = client.post(PASSWORD, &enumeration("Pull", &body));
        assert_eq!(reply.body.matches("<p:Msvm_ComputerSystem ").count(), 7);
        context(&reply.body).to_owned()
    };
    let open: Vec<String> = std::thread::scope(|scope| {
        let one = &one;
        let address = served.plain;
        let many = (0..20).map(|_| {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                (0..25).map(|_| one(&mut client)).collect::<Vec<_>>()
            })
        });
        many.collect::<Vec<_>>().into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(open.len(), 500);
    // Five are there, two of seven were made, and one was looked at ahead.
    assert_eq!(made.load(Ordering::Relaxed), 500 * 3);
    let mut client = Client::connect(served.plain);
    let body = format!(
        "<n:EnumerationContext>{}</n:EnumerationContext><n:MaxElements>32000</n:MaxElements>",
        open[0]
    );
    let mut count = 7;
    loop {
        let reply = client.post(PASSWORD, &enumeration("Pull", &body));
        count += reply.body.matches("<p:Msvm_ComputerSystem ").count();
        assert!(reply.body.len() <= 512_000, "{}", reply.body.len());
        if reply.body.contains("EndOfSequence") {
            break;
        }
    }
    assert_eq!(count, 10_005, "the largest envelope makes portions of any number");
}

#[test]
fn slow_and_silent_clients_lose_their_connection() {
    let patience = Duration::from_millis(200);
    let served = served(Limits { head: patience, body: patience, tls: patience, ..Limits::default() });
    let mut silent = Client::connect(served.plain);
    let mut half_a_head = Client::connect(served.plain);
    half_a_head.send(b"POST /wsman HTTP/1.1\r\nHost: lo");
    let mut no_handshake = Client::connect(served.tls);
    let mut not_tls = Client::connect(served.tls);
    not_tls.send(b"POST /wsman HTTP/1.1\r\n\r\n");
    let mut half_a_body = Client::connect(served.plain);
    half_a_body.send(&posted(Some(PASSWORD), 1000, "<s:Env"));
    assert_eq!(half_a_body.hear().unwrap().status, 408);
    for client in [&mut silent, &mut half_a_head, &mut no_handshake, &mut not_tls, &mut half_a_body] {
        assert!(client.hung_up());
    }
    drop(half_a_head);
    alive(&served);
}

#[test]
fn connections_that_are_cut_leave_nothing_behind() {
    let served = served(Limits { connections: 4, from_one_address: 4, requests: 2, ..Limits::default() });
    for round in 0..50 {
        let mut cut = Client::connect(served.plain);
        let request = posted(Some(PASSWORD), 5000, &identify());
        cut.send(&request[..request.len() * round / 50]);
        drop(cut);
    }
    // Those places are free again once the server noticed; until then it hangs up at once.
    let heard = std::iter::repeat_with(|| {
        let mut client = Client::connect(served.plain);
        client.send(&posted(Some(PASSWORD), identify().len(), &identify()));
        client.hear()
    });
    assert_eq!(heard.take(10_000).flatten().next().unwrap().status, 200);
}

#[test]
fn what_is_too_large_or_no_envelope_is_refused() {
    let served = served(Limits::default());
    let mut large = Client::connect(served.plain);
    large.send(&posted(Some(PASSWORD), 5 << 20, ""));
    assert_eq!(large.hear().unwrap().status, 413, "before it is read");
    let mut stranger = Client::connect(served.plain);
    stranger.send(&posted(None, 5 << 20, ""));
    assert_eq!(stranger.hear().unwrap().status, 401);
    let laughs = r#"<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><s>&b;</s>"#;
    let deep = "<e>".repeat(200_000);
    let wide = format!("<e{}/>", " a='1'".repeat(100_000));
    let mut client = Client::connect(served.plain);
    for (body, code) in [
        ("", "w:SchemaValidationError"),
        ("<s>", "w:SchemaValidationError"),
        ("\u{0}\u{1}", "w:SchemaValidationError"),
        (laughs, "w:SchemaValidationError"),
        (deep.as_str(), "w:EncodingLimit"),
        (wide.as_str(), "w:EncodingLimit"),
    ] {
        let heard = client.post(PASSWORD, body);
        assert_eq!(heard.status, 500, "{}", heard.body);
        assert!(heard.body.contains(&format!("<s:Value>{code}</s:Value>")), "{code}: {}", heard.body);
    }
    alive(&served);
}
