//! Negotiate over real sockets: clients that others wrote, and forgeries made byte by byte by one that was written from the
//! specifications. The plain listener takes its clients for such that come over a network.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is test code")]

mod memory;
#[path = "../../negotiate/tests/client/mod.rs"]
mod ntlm;
mod serve;

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memory::Memory;
use ntlm::{Keys, Mic, NTLM_OID};
use serve::{Client, Heard, Served, posted};

const PASSWORD: &str = "Passw0rd!";
const SOAP: &str = "application/soap+xml;charset=UTF-8";
const SEALED: &str = r#"multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary""#;
const IDENTIFY: &str = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#;

fn served() -> Served {
    Served::negotiating(Memory::new().responder().1)
}

/// What was refused last, and of whom.
fn refused(served: &Served) -> (String, String) {
    served.gate.refused.lock().unwrap().last().cloned().unwrap_or_default()
}

/// A request of any kind.
fn request(client: &mut Client, authorization: Option<&str>, content_type: &str, body: &[u8]) -> Heard {
    let authorization = authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    let head = format!(
        "POST /wsman HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(&[head.as_bytes(), body].concat());
    client.hear().unwrap()
}

fn leg(client: &mut Client, scheme: &str, token: &[u8]) -> Heard {
    request(client, Some(&format!("{scheme} {}", STANDARD.encode(token))), SOAP, b"")
}

/// The token of a reply.
fn token(heard: &Heard) -> Vec<u8> {
    let value = heard.head.lines().find_map(|line| line.strip_prefix("Www-Authenticate: ")).unwrap();
    STANDARD.decode(value.split_once(' ').map_or("", |(_, token)| token)).unwrap()
}

/// What a client sends and what the server makes of it: the first two legs of plain NTLM.
fn sign_in(client: &mut Client, who: &ntlm::Client) -> (Heard, Keys) {
    let negotiate = who.negotiate();
    let challenge = leg(client, "Negotiate", &negotiate);
    assert_eq!(challenge.status, 401);
    let (last, exported) = who.authenticate(&negotiate, &token(&challenge));
    (leg(client, "Negotiate", &last), Keys::new(&exported))
}

/// A connection of an administrator, and its keys.
fn connected(served: &Served) -> (Client, Keys) {
    let mut client = Client::connect(served.plain);
    let (heard, keys) = sign_in(&mut client, &ntlm::Client::new("administrator"));
    assert_eq!((heard.status, heard.body.as_str()), (200, ""), "{}", heard.head);
    (client, keys)
}

/// A sealed body as clients write it.
fn framed(text: &[u8], signature: &[u8], data: &[u8]) -> Vec<u8> {
    let head = format!(
        "--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\
         \tOriginalContent: type={SOAP};Length={}\r\n--Encrypted Boundary\r\n\
         \tContent-Type: application/octet-stream\r\n",
        text.len()
    );
    let length = (signature.len() as u32).to_le_bytes();
    [head.as_bytes(), &length, signature, data, b"--Encrypted Boundary--\r\n"].concat()
}

fn sealed(keys: &mut Keys, text: &[u8]) -> Vec<u8> {
    let (signature, data) = keys.seal(text);
    framed(text, &signature, &data)
}

/// What a sealed reply says.
fn opened(keys: &mut Keys, heard: &Heard) -> String {
    assert!(heard.head.contains(&format!("Content-Type: {SEALED}\r\n")), "{}", heard.head);
    let mark = b"\tContent-Type: application/octet-stream\r\n";
    let at = heard.bytes.windows(mark.len()).position(|part| part == mark).unwrap() + mark.len();
    let rest = heard.bytes[at..].strip_suffix(b"--Encrypted Boundary--\r\n").unwrap();
    assert_eq!(rest[..4], [16, 0, 0, 0]);
    String::from_utf8(keys.unseal(&rest[4..20], &rest[20..])).unwrap()
}

#[test]
fn after_two_legs_everything_is_sealed_both_ways() {
    let served = served();
    let (mut client, mut keys) = connected(&served);
    for _ in 0..3 {
        let body = sealed(&mut keys, IDENTIFY.as_bytes());
        let heard = request(&mut client, None, SEALED, &body);
        assert_eq!(heard.status, 200);
        assert!(opened(&mut keys, &heard).contains("IdentifyResponse"));
    }
    let fault = sealed(&mut keys, b"<s>");
    let heard = request(&mut client, None, SEALED, &fault);
    assert_eq!(heard.status, 500);
    assert!(opened(&mut keys, &heard).contains("w:SchemaValidationError"), "faults too");
    // As omicli writes: no tabs, zero bytes at the end.
    let text = [IDENTIFY.as_bytes(), &[0; 7]].concat();
    let (signature, data) = keys.seal(&text);
    let mut body = framed(&text, &signature, &data);
    let tab = |body: &[u8]| body.windows(3).position(|part| part == b"\n\tO" || part == b"\n\tC");
    while let Some(at) = tab(&body) {
        body.remove(at + 1);
    }
    let heard = request(&mut client, None, SEALED, &body);
    assert!(opened(&mut keys, &heard).contains("IdentifyResponse"));
}

#[test]
fn spnego_signs_its_list_and_begins_the_streams_anew() {
    let served = served();
    let mut client = Client::connect(served.plain);
    let (list, who) = (ntlm::list(&[NTLM_OID]), ntlm::Client::new("administrator"));
    let negotiate = who.negotiate();
    let challenge = leg(&mut client, "Negotiate", &ntlm::init(&list, Some(&negotiate)));
    let challenge = token(&challenge);
    let (last, exported) = who.authenticate(&negotiate, ntlm::inner(&challenge));
    let mut keys = Keys::new(&exported);
    let mic = keys.sign_list(&list);
    let heard = leg(&mut client, "Negotiate", &ntlm::response(&last, Some(&mic)));
    assert_eq!(heard.status, 200);
    let end = token(&heard);
    keys.check_list(&list, &end[end.len() - 16..]);
    let body = sealed(&mut keys, IDENTIFY.as_bytes());
    let heard = request(&mut client, None, SEALED, &body);
    assert!(opened(&mut keys, &heard).contains("IdentifyResponse"));
}

#[test]
fn forged_handshakes_are_refused_and_told_apart_in_the_log() {
    let served = served();
    let right = ntlm::Client::new("administrator");
    let hole = ntlm::Client { proof: Some([7; 16]), mic: Mic::Unannounced, ..right.clone() };
    let with_mic = |mic| ntlm::Client { mic, ..right.clone() };
    let unsealed = ntlm::Client { agrees: ntlm::ALL & !ntlm::SEAL, ..right.clone() };
    let bound = ntlm::Client { binding: Some([9; 16]), ..right.clone() };
    for (who, why) in [
        (ntlm::Client { proof: Some([7; 16]), ..right.clone() }, "wrong password"),
        (hole, "wrong password"),
        (ntlm::Client { nt_hash: [1; 16], ..right.clone() }, "wrong password"),
        (ntlm::Client::new("nobody"), "wrong password"),
        (with_mic(Mic::Altered), "(MIC) is wrong"),
        (with_mic(Mic::Zero), "(MIC) is left out"),
        (with_mic(Mic::NoPlace), "(MIC) is left out"),
        (unsealed, "does not negotiate sealing"),
        (bound, "channel binding"),
    ] {
        let mut client = Client::connect(served.plain);
        let (heard, _) = sign_in(&mut client, &who);
        assert_eq!((heard.status, heard.body.as_str()), (401, ""), "{why}");
        let (user, told) = refused(&served);
        assert!(told.contains(why) && (user == who.user || user.is_empty()), "{user}: {told}");
        let heard = request(&mut client, None, SOAP, IDENTIFY.as_bytes());
        assert_eq!(heard.status, 401, "{why}: nothing was proven");
        assert!(heard.head.contains("Www-Authenticate: Negotiate\r\n"), "{}", heard.head);
    }
}

#[test]
fn a_handshake_that_was_listened_to_is_good_nowhere() {
    let served = served();
    let who = ntlm::Client::new("administrator");
    let mut client = Client::connect(served.plain);
    let negotiate = who.negotiate();
    let challenge = token(&leg(&mut client, "Negotiate", &negotiate));
    let (last, _) = who.authenticate(&negotiate, &challenge);
    assert_eq!(leg(&mut client, "Negotiate", &last).status, 200);
    let mut eavesdropper = Client::connect(served.plain);
    assert_eq!(leg(&mut eavesdropper, "Negotiate", &last).status, 401, "without a challenge");
    assert_eq!(leg(&mut eavesdropper, "Negotiate", &negotiate).status, 401);
    assert_eq!(leg(&mut eavesdropper, "Negotiate", &last).status, 401, "to another challenge");
    assert_eq!(refused(&served).1, "wrong password");
    assert_eq!(leg(&mut client, "Negotiate", &last).status, 401, "twice on its own connection");
}

/// Each on a connection of its own that was proven: what comes, and what is answered. The connection ends with it.
#[test]
fn forged_bodies_end_the_connection() {
    let served = served();
    let attempt =
        |what: &str, status: u16, why: &str, forge: &dyn Fn(&mut Keys) -> (&'static str, Vec<u8>)| {
            let (mut client, mut keys) = connected(&served);
            let (content_type, body) = forge(&mut keys);
            let heard = request(&mut client, None, content_type, &body);
            assert_eq!((heard.status, heard.body.as_str()), (status, ""), "{what}");
            assert!(heard.head.to_ascii_lowercase().contains("connection: close"), "{what}: {}", heard.head);
            let (user, told) = refused(&served);
            assert!(user == "administrator" && told.contains(why), "{what}: {told}");
            assert!(client.hung_up(), "{what}");
        };
    let text = IDENTIFY.as_bytes();
    attempt("unsealed", 500, "unsealed", &|_| (SOAP, text.to_vec()));
    attempt("altered", 401, "altered", &|keys| {
        let (signature, mut data) = keys.seal(text);
        data[20] ^= 1;
        (SEALED, framed(text, &signature, &data))
    });
    attempt("another signature", 401, "altered", &|keys| {
        let (mut signature, data) = keys.seal(text);
        signature[5] ^= 1;
        (SEALED, framed(text, &signature, &data))
    });
    attempt("another number", 401, "out of order", &|keys| {
        let (mut signature, data) = keys.seal(text);
        signature[12] = 1;
        (SEALED, framed(text, &signature, &data))
    });
    attempt("one left out", 401, "out of order", &|keys| {
        keys.seal(text);
        (SEALED, sealed(keys, text))
    });
    attempt("other keys", 401, "sealed with other keys", &|_| {
        (SEALED, sealed(&mut Keys::new(&[1; 16]), text))
    });
    attempt("no signature", 401, "none of NTLM's", &|_| (SEALED, framed(text, b"", text)));
    attempt("another length", 400, "another length", &|keys| {
        let (signature, data) = keys.seal(text);
        (SEALED, framed(&text[1..], &signature, &data))
    });
    attempt("no frame", 400, "cannot be read", &|_| (SEALED, text.to_vec()));
}

#[test]
fn a_body_is_good_once() {
    let served = served();
    let (mut client, mut keys) = connected(&served);
    let body = sealed(&mut keys, IDENTIFY.as_bytes());
    assert_eq!(request(&mut client, None, SEALED, &body).status, 200);
    // On another connection of the same user, and on one of nobody.
    let (mut another, _) = connected(&served);
    assert_eq!(request(&mut another, None, SEALED, &body).status, 401);
    let mut stranger = Client::connect(served.plain);
    assert_eq!(request(&mut stranger, None, SEALED, &body).status, 401);
    assert_eq!(request(&mut client, None, SEALED, &body).status, 401, "again");
    assert!(refused(&served).1.contains("out of order") && client.hung_up());
}

#[test]
fn a_connection_has_one_user() {
    let served = served();
    let (mut client, mut keys) = connected(&served);
    // The same one may prove it anew, and gets new keys.
    let (heard, mut new) = sign_in(&mut client, &ntlm::Client::new("administrator"));
    assert_eq!(heard.status, 200);
    let body = sealed(&mut new, IDENTIFY.as_bytes());
    assert_eq!(request(&mut client, None, SEALED, &body).status, 200);
    let (heard, _) = sign_in(&mut client, &ntlm::Client::new("eve"));
    assert_eq!(heard.status, 401);
    assert_eq!(refused(&served), ("eve".into(), "the connection is another user's".into()));
    let body = sealed(&mut keys, IDENTIFY.as_bytes());
    assert_eq!(request(&mut client, None, SEALED, &body).status, 401, "and what was proven is forgotten");
    let (mut client, _) = connected(&served);
    let basic = format!("Basic {}", STANDARD.encode(format!("administrator:{PASSWORD}")));
    assert_eq!(request(&mut client, Some(&basic), SOAP, IDENTIFY.as_bytes()).status, 401);
    assert!(refused(&served).1.contains("another proof"));
}

#[test]
fn a_password_is_not_taken_from_a_network_and_the_offers_say_so() {
    let served = served();
    let mut client = Client::connect(served.plain);
    client.send(&posted(Some(PASSWORD), IDENTIFY.len(), IDENTIFY));
    let heard = client.hear().unwrap();
    assert_eq!(heard.status, 401);
    assert!(
        heard.head.contains("Www-Authenticate: Negotiate\r\n") && !heard.head.contains("Basic"),
        "{}",
        heard.head
    );
}

/// Runs a client of `sealed.py` over both kinds of connection.
fn python(client: &str, module: &str) {
    let python = std::env::var("SLIPWAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: {python} has no {module} (tests/requirements.txt)");
        return;
    }
    let served = served();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sealed.py");
    for (scheme, address) in [("http", served.plain), ("https", served.tls)] {
        let port = address.port().to_string();
        let ran = Command::new(&python).args([script, client, "127.0.0.1", &port, scheme]).output().unwrap();
        assert!(ran.status.success(), "{client} {scheme}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn pypsrp_works_sealed() {
    python("pypsrp", "pypsrp.wsman");
}

#[test]
fn pywinrm_works_sealed() {
    python("pywinrm", "winrm.protocol");
}

#[test]
fn pyspnego_is_bound_to_its_tls_connection() {
    python("binding", "pypsrp.wsman");
}

#[test]
fn curl_signs_in_over_tls_and_is_refused_where_it_would_speak_in_clear() {
    let version = Command::new("curl").arg("--version").output();
    let Some(version) = version.ok().and_then(|ran| String::from_utf8(ran.stdout).ok()) else {
        println!("skipped: there is no curl");
        return;
    };
    if !version.contains(" NTLM") {
        println!("skipped: this curl speaks no NTLM");
        return;
    }
    let served = served();
    let curl = |user: &str, url: &str| {
        let header = format!("Content-Type: {SOAP}");
        let ran = Command::new("curl")
            .args(["-s", "-S", "-k", "--ntlm", "--user", user, "-w", "\n%{http_code}", "-H", &header])
            .args(["-d", IDENTIFY, url])
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let (http, https) = (format!("http://{}/wsman", served.plain), format!("https://{}/wsman", served.tls));
    let known = curl("LAB\\administrator:Passw0rd!", &https);
    assert!(known.contains("OS: 10.0.20348") && known.ends_with("\n200"), "{known}");
    assert_eq!(curl("administrator:wrong", &https), "\n401");
    assert_eq!(curl("administrator:Passw0rd!", &http), "\n401");
    assert!(refused(&served).1.contains("does not negotiate"), "{:?}", refused(&served));
}
