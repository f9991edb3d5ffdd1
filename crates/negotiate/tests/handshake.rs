//! Handshakes, right and wrong, byte by byte, with a client that was written from the specifications.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod client;

use client::{Client, KERBEROS_OID, Keys, Mic, NT_HASH, NTLM_OID, init, inner, list, response};
use negotiate::{Accepted, Acceptor, Attempt, Binding, Fresh, Refused, Settings, Tampered, Turn, Wrong};

fn settings() -> Settings {
    Settings { computer: "VMS".to_owned(), host: "vms.example".to_owned(), sealing: true, binding: None }
}

fn fresh(nonce: u8) -> Fresh {
    Fresh { nonce: [nonce; 8], time: 0x01dd_79bb_0000_0000 }
}

fn replied(turn: Turn) -> Vec<u8> {
    let Turn::Reply(token) = turn else { panic!("{turn:?}") };
    token
}

fn attempted(turn: Turn) -> Box<Attempt> {
    let Turn::Attempt(attempt) = turn else { panic!("{turn:?}") };
    attempt
}

/// NTLM without SPNEGO around it: the attempt, and the client's key.
fn raw(settings: Settings, client: &Client) -> Result<(Box<Attempt>, [u8; 16]), Refused> {
    let mut acceptor = Acceptor::new(settings);
    let negotiate = client.negotiate();
    let challenge = replied(acceptor.step(&negotiate, fresh(1))?);
    let (last, exported) = client.authenticate(&negotiate, &challenge);
    Ok((attempted(acceptor.step(&last, fresh(2))?), exported))
}

fn wrong(settings: Settings, client: &Client) -> Wrong {
    raw(settings, client).unwrap().0.prove(&NT_HASH).unwrap_err()
}

#[test]
fn whoever_knows_the_password_is_let_in_and_speaks_sealed() {
    let (attempt, exported) = raw(settings(), &Client::new("ada")).unwrap();
    assert_eq!((attempt.user(), attempt.domain()), ("ada", "LAB"));
    let Accepted { token, session } = attempt.prove(&NT_HASH).unwrap();
    assert_eq!(token, None, "nothing of SPNEGO was said");
    let (mut session, mut keys) = (session.unwrap(), Keys::new(&exported));
    for text in [&b"<s:Envelope/>"[..], b"", b"again"] {
        let (signature, mut data) = keys.seal(text);
        session.unseal(&mut data, &signature).unwrap();
        assert_eq!(data, text);
        let signature = session.seal(&mut data);
        assert_eq!(keys.unseal(&signature, &data), text);
    }
}

#[test]
fn the_challenge_says_who_is_here_and_when() {
    let mut acceptor = Acceptor::new(settings());
    let challenge = replied(acceptor.step(&Client::new("ada").negotiate(), fresh(1)).unwrap());
    assert_eq!(challenge[24..32], [1; 8]);
    let info = client::target_info(&challenge);
    let pair = |id: u8, value: &[u8]| [&[id, 0, value.len() as u8, 0], value].concat();
    let time = 0x01dd_79bb_0000_0000_u64.to_le_bytes();
    let (computer, host) = (client::wide("VMS"), client::wide("vms.example"));
    let whole =
        [pair(2, &computer), pair(1, &computer), pair(3, &host), pair(7, &time), pair(0, &[])].concat();
    assert_eq!(info, whole);
}

#[test]
fn forged_proofs_and_codes_are_refused() {
    let ada = Client::new("ada");
    let with_proof = |proof| Client { proof: Some(proof), ..ada.clone() };
    assert_eq!(wrong(settings(), &with_proof([0; 16])), Wrong::Proof);
    // The hole of another implementation: nothing announced, no code, any proof.
    let hole = Client { mic: Mic::Unannounced, ..with_proof([7; 16]) };
    assert_eq!(wrong(settings(), &hole), Wrong::Proof);
    let other = Client { nt_hash: [3; 16], ..ada.clone() };
    assert_eq!(wrong(settings(), &other), Wrong::Proof);
    let with_mic = |mic| Client { mic, ..ada.clone() };
    assert_eq!(wrong(settings(), &with_mic(Mic::Altered)), Wrong::Mic);
    assert_eq!(wrong(settings(), &with_mic(Mic::Zero)), Wrong::NoMic);
    assert_eq!(wrong(settings(), &with_mic(Mic::NoPlace)), Wrong::NoMic);
    assert!(
        raw(settings(), &with_mic(Mic::Unannounced)).unwrap().0.prove(&NT_HASH).is_ok(),
        "as old clients do"
    );
}

/// Every byte of the last message is covered by the proof or by the code.
#[test]
fn a_message_of_which_one_bit_was_altered_proves_nothing() {
    let ada = Client::new("ada");
    let negotiate = ada.negotiate();
    let reached = |last: &[u8]| {
        let mut acceptor = Acceptor::new(settings());
        let challenge = replied(acceptor.step(&negotiate, fresh(1)).unwrap());
        let last = if last.is_empty() { ada.authenticate(&negotiate, &challenge).0 } else { last.to_vec() };
        let proven = match acceptor.step(&last, fresh(2)) {
            Ok(Turn::Attempt(attempt)) => attempt.prove(&NT_HASH).is_ok(),
            _ => false,
        };
        (proven, last)
    };
    let (proven, right) = reached(&[]);
    assert!(proven);
    for bit in 0..right.len() * 8 {
        let mut altered = right.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!reached(&altered).0, "bit {bit}");
    }
    for cut in 0..right.len() {
        assert!(cut == 0 || !reached(&right[..cut]).0, "cut at {cut}");
    }
}

#[test]
fn a_leg_that_was_altered_on_its_way_shows_in_the_code() {
    let ada = Client::new("ada");
    let mut acceptor = Acceptor::new(settings());
    let sent = ada.negotiate();
    let mut received = sent.clone();
    received[30] ^= 1;
    let challenge = replied(acceptor.step(&received, fresh(1)).unwrap());
    let (last, _) = ada.authenticate(&sent, &challenge);
    assert_eq!(attempted(acceptor.step(&last, fresh(2)).unwrap()).prove(&NT_HASH).unwrap_err(), Wrong::Mic);
}

#[test]
fn a_handshake_is_good_once() {
    let ada = Client::new("ada");
    let negotiate = ada.negotiate();
    let mut acceptor = Acceptor::new(settings());
    let challenge = replied(acceptor.step(&negotiate, fresh(1)).unwrap());
    let (last, _) = ada.authenticate(&negotiate, &challenge);
    attempted(acceptor.step(&last, fresh(2)).unwrap());
    assert_eq!(acceptor.step(&last, fresh(3)).unwrap_err(), Refused::OutOfTurn, "on the same connection");
    let mut another = Acceptor::new(settings());
    assert_eq!(another.step(&last, fresh(1)).unwrap_err(), Refused::OutOfTurn, "on another");
    replied(another.step(&negotiate, fresh(4)).unwrap());
    let replayed = attempted(another.step(&last, fresh(5)).unwrap());
    assert_eq!(replayed.prove(&NT_HASH).unwrap_err(), Wrong::Proof, "to another challenge");
}

#[test]
fn what_is_weaker_than_demanded_is_refused() {
    let weaker =
        |bits: u32| Client { asks: client::ALL & !bits, agrees: client::ALL & !bits, ..Client::new("ada") };
    for bits in [client::SIGN, client::SEAL, client::KEY_128, client::KEY_EXCHANGE, client::EXTENDED] {
        assert!(matches!(raw(settings(), &weaker(bits)), Err(Refused::Weak(_))), "{bits:x}");
        // Asked for and then dropped.
        let dropped = Client { asks: client::ALL, ..weaker(bits) };
        assert!(matches!(raw(settings(), &dropped), Err(Refused::Weak(_))), "{bits:x}");
    }
    let private = Settings { sealing: false, ..settings() };
    for bits in [client::SIGN, client::SEAL, client::KEY_128, client::KEY_EXCHANGE] {
        let (attempt, _) = raw(private.clone(), &weaker(bits)).unwrap();
        assert!(attempt.prove(&NT_HASH).unwrap().session.is_none(), "{bits:x}: no keys, no sealing");
    }
    let mut ancient = Client::new("ada");
    (ancient.asks, ancient.agrees) = (client::EXTENDED | client::OEM, client::EXTENDED | client::OEM);
    ancient.mic = Mic::Unannounced;
    assert!(raw(private, &ancient).unwrap().0.prove(&NT_HASH).is_ok(), "letters of one byte");
    assert_eq!(
        raw(settings(), &Client { user: String::new(), ..Client::new("") }).unwrap_err(),
        Refused::Anonymous
    );
}

#[test]
fn a_channel_binding_holds_for_its_own_connection_only() {
    let (here, there) = (Binding::to_server(b"here"), Binding::to_server(b"there"));
    let over_tls = Settings { sealing: false, binding: Some(here), ..settings() };
    let bound = |binding| Client { binding, ..Client::new("ada") };
    let proves = |settings: &Settings, binding| {
        raw(settings.clone(), &bound(binding)).unwrap().0.prove(&NT_HASH).map(|_| ())
    };
    assert_eq!(proves(&over_tls, Some(here.bytes())), Ok(()));
    assert_eq!(proves(&over_tls, None), Ok(()), "clients that know of none");
    assert_eq!(proves(&over_tls, Some([0; 16])), Ok(()), "the same, said otherwise");
    assert_eq!(proves(&over_tls, Some(there.bytes())), Err(Wrong::Binding), "handed on from elsewhere");
    assert_eq!(
        proves(&settings(), Some(here.bytes())),
        Err(Wrong::Binding),
        "handed on to where there is no TLS"
    );
}

/// A handshake inside SPNEGO with these mechanisms; `sign` gives the signature of the list.
fn listed(
    oids: &[&[u8]],
    sign: impl Fn(&mut Keys, &[u8]) -> Option<Vec<u8>>,
) -> Result<(Accepted, Keys, Vec<u8>), Wrong> {
    let ada = Client::new("ada");
    let (list, negotiate) = (list(oids), ada.negotiate());
    let mut acceptor = Acceptor::new(settings());
    let first = oids[0] == NTLM_OID;
    let ahead = if first { negotiate.clone() } else { b"a ticket".to_vec() };
    let mut reply = replied(acceptor.step(&init(&list, Some(&ahead)), fresh(1)).unwrap());
    if !first {
        assert_eq!(reply[4..9], [0xa0, 3, 0x0a, 1, 3], "request-mic");
        reply = replied(acceptor.step(&response(&negotiate, None), fresh(1)).unwrap());
    }
    let (last, exported) = ada.authenticate(&negotiate, inner(&reply));
    let mut keys = Keys::new(&exported);
    let mic = sign(&mut keys, &list);
    let attempt = attempted(acceptor.step(&response(&last, mic.as_deref()), fresh(2)).unwrap());
    Ok((attempt.prove(&NT_HASH)?, keys, list))
}

#[test]
fn the_list_of_mechanisms_is_signed_both_ways_and_the_streams_begin_anew() {
    for oids in [&[NTLM_OID][..], &[KERBEROS_OID, NTLM_OID]] {
        let (accepted, mut keys, list) =
            listed(oids, |keys, list| Some(keys.sign_list(list).to_vec())).unwrap();
        let (token, mut session) = (accepted.token.unwrap(), accepted.session.unwrap());
        keys.check_list(&list, &token[token.len() - 16..]);
        let (signature, mut data) = keys.seal(b"first");
        assert_eq!(signature[12..], [1, 0, 0, 0], "the list was number 0");
        session.unseal(&mut data, &signature).unwrap();
        let signature = session.seal(&mut data);
        assert_eq!(keys.unseal(&signature, &data), b"first");
    }
}

#[test]
fn a_list_that_is_not_signed_is_good_where_ntlm_was_the_clients_first_choice() {
    let (accepted, mut keys, _) = listed(&[NTLM_OID], |_, _| None).unwrap();
    assert_eq!(accepted.token.unwrap(), [0xa1, 7, 0x30, 5, 0xa0, 3, 0x0a, 1, 0]);
    let (signature, mut data) = keys.seal(b"first");
    assert_eq!(signature[12..], [0; 4]);
    accepted.session.unwrap().unseal(&mut data, &signature).unwrap();
    assert_eq!(listed(&[KERBEROS_OID, NTLM_OID], |_, _| None).unwrap_err(), Wrong::NoListMic);
}

#[test]
fn a_list_that_was_altered_is_refused() {
    let of_another = |keys: &mut Keys, _: &[u8]| Some(keys.sign_list(&list(&[KERBEROS_OID])).to_vec());
    assert_eq!(listed(&[NTLM_OID], of_another).unwrap_err(), Wrong::ListMic);
    assert_eq!(listed(&[NTLM_OID], |_, _| Some(vec![])).unwrap_err(), Wrong::ListMic);
}

#[test]
fn what_is_out_of_turn_or_of_no_use_is_refused_and_the_next_token_is_a_first_one() {
    let ada = Client::new("ada");
    let negotiate = ada.negotiate();
    let mut acceptor = Acceptor::new(settings());
    let no_ntlm = init(&list(&[KERBEROS_OID]), Some(b"a ticket"));
    for (token, why) in [
        (no_ntlm, Refused::NoMechanism),
        (response(&negotiate, None), Refused::OutOfTurn),
        (b"NTLMSSP\0\x02\0\0\0".to_vec(), Refused::OutOfTurn),
        (init(&list(&[NTLM_OID]), Some(b"NTLMSSP\0\x03\0\0\0")), Refused::OutOfTurn),
        (vec![0; negotiate::MAX_TOKEN + 1], Refused::Malformed("it is too long")),
    ] {
        assert_eq!(acceptor.step(&token, fresh(1)).unwrap_err(), why);
    }
    // Begun with SPNEGO, gone on without.
    let reply = replied(acceptor.step(&init(&list(&[NTLM_OID]), Some(&negotiate)), fresh(1)).unwrap());
    let (last, _) = ada.authenticate(&negotiate, inner(&reply));
    assert_eq!(acceptor.step(&last, fresh(2)).unwrap_err(), Refused::OutOfTurn);
    let challenge = replied(acceptor.step(&negotiate, fresh(3)).unwrap());
    let (last, _) = ada.authenticate(&negotiate, &challenge);
    assert!(attempted(acceptor.step(&last, fresh(4)).unwrap()).prove(&NT_HASH).is_ok());
}

#[test]
fn what_others_sealed_is_not_opened() {
    let (attempt, _) = raw(settings(), &Client::new("ada")).unwrap();
    let mut session = attempt.prove(&NT_HASH).unwrap().session.unwrap();
    let (signature, mut data) = Keys::new(&[1; 16]).seal(b"stop everything");
    assert_eq!(session.unseal(&mut data, &signature), Err(Tampered::Checksum));
}
