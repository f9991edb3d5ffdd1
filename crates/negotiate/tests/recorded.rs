//! What real clients were recorded to send: our own recordings, which are also the seeds of the fuzzer. Without the password
//! of that day nothing of it can be opened; that it is read is what can be shown.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use negotiate::spnego::{self, Mechanism, Token};
use negotiate::{Acceptor, Fresh, Settings, Turn, framing};

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn sealed_bodies_of_real_clients_are_taken_apart() {
    for (name, length, signature) in [("pypsrp", 1347, 16), ("pywinrm", 1643, 16), ("kerberos", 1347, 60)] {
        let seed = seed(&format!("negotiate_framing/{name}"));
        let (content_type, body) = seed.split_at(seed.iter().position(|byte| *byte == b'\n').unwrap());
        let read = framing::read(std::str::from_utf8(content_type).unwrap(), &body[1..]).unwrap();
        assert_eq!(read.content_type, "application/soap+xml;charset=UTF-8", "{name}");
        assert_eq!((read.length, read.signature.len()), (length, signature), "{name}");
    }
}

#[test]
fn handshakes_of_real_clients_are_read_to_their_end() {
    for (name, user, sealing) in
        [("spnego", "administrator", true), ("ntlm", "administrator", true), ("curl", "administrator", false)]
    {
        let seed = seed(&format!("negotiate_token/{name}"));
        let (first, last) = seed[1..].split_at(usize::from(seed[0]));
        let settings = Settings { computer: "VM".into(), host: "vm".into(), sealing, binding: None };
        let mut acceptor = Acceptor::new(settings);
        let fresh = Fresh { nonce: [1; 8], time: 0 };
        assert!(matches!(acceptor.step(first, fresh), Ok(Turn::Reply(_))), "{name}");
        let Turn::Attempt(attempt) = acceptor.step(last, fresh).unwrap() else { panic!("{name}") };
        assert_eq!((attempt.user(), attempt.domain()), (user, "LAB"), "{name}");
    }
    let kerberos = seed("negotiate_token/kerberos");
    let Token::Init { mechanisms, token, .. } = spnego::read(&kerberos[1..]).unwrap() else { panic!() };
    assert!(mechanisms == [Some(Mechanism::Kerberos)] && token.is_some());
}
