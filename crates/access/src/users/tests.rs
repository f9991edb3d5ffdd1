use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use store::{MemoryStore, Store as _};
use uuid::Uuid;

use super::{Change, Refusal, Users};
use crate::error::ErrorKind;
use crate::lockout::FREE;
use crate::policy::{Action, Grant};

const PASSWORD: &str = "correct horse";

fn users() -> Users {
    Users::new(Arc::new(MemoryStore::new()))
}

fn with_password(grant: &str) -> Change {
    Change { password: Some(PASSWORD.to_owned()), grant: Some(grant.parse().unwrap()), ..Change::default() }
}

#[test]
fn a_user_is_added_changed_and_removed() {
    let users = users();
    users.add("Ada", &with_password("reader"), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(
        users.add("ada", &with_password("reader"), Timestamp::UNIX_EPOCH).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let now = Instant::now();
    let who = users.authenticate(r"HOST\ADA", PASSWORD, now).unwrap();
    assert_eq!(who.name(), "Ada");
    assert!(who.may(Action::See, None) && !who.may(Action::Export, None));

    let machine = Uuid::from_u128(7);
    let change = Change { machines: vec![(machine, "export".parse().unwrap())], ..Change::default() };
    assert_eq!(users.set("ADA", &change).unwrap().name, "Ada");
    assert!(users.authenticate("ada", PASSWORD, now).unwrap().may(Action::Export, Some(machine)));
    let change = Change { machines: vec![(machine, Grant::default())], ..Change::default() };
    assert!(users.set("ada", &change).unwrap().machines.is_empty());

    users.remove("ada").unwrap();
    assert_eq!(users.get("Ada").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(users.remove("ada").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(matches!(users.authenticate("ada", PASSWORD, now), Err(Refusal::Wrong)));
}

#[test]
fn a_password_that_was_right_is_not_right_for_ever() {
    let users = users();
    users.add("ada", &with_password("operator"), Timestamp::UNIX_EPOCH).unwrap();
    let now = Instant::now();
    users.authenticate("ada", PASSWORD, now).unwrap();
    assert!(users.table().contains_key("ada"));
    assert!(matches!(users.authenticate("ada", "correct horsf", now), Err(Refusal::Wrong)));
    users.set("ada", &Change { password: Some("another horse".to_owned()), ..Change::default() }).unwrap();
    assert!(matches!(users.authenticate("ada", PASSWORD, now), Err(Refusal::Wrong)));
    users.authenticate("ada", "another horse", now).unwrap();
    users.set("ada", &Change { disabled: Some(true), ..Change::default() }).unwrap();
    assert!(matches!(users.authenticate("ada", "another horse", now), Err(Refusal::Wrong)));
}

#[test]
fn guessing_is_slowed_down_whether_there_is_such_a_user_or_not() {
    let users = users();
    users.add("ada", &with_password("operator"), Timestamp::UNIX_EPOCH).unwrap();
    let now = Instant::now();
    for name in ["ada", "nobody", "no:body"] {
        for _ in 0..FREE {
            assert!(matches!(users.authenticate(name, "wrong password", now), Err(Refusal::Wrong)), "{name}");
        }
        assert!(matches!(users.authenticate(name, PASSWORD, now), Err(Refusal::Wait(_))), "{name}");
    }
    users.authenticate("ada", PASSWORD, now + Duration::from_secs(3)).unwrap();
}

#[test]
fn a_certificate_is_one_user() {
    let users = users();
    let thumbprint = "abcd".to_owned() + &"0".repeat(60);
    let shown = "AB:CD".to_owned() + &"0".repeat(60);
    let change = Change { add_certificates: vec![shown], ..Change::default() };
    users.add("ada", &change, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(users.by_certificate(&thumbprint).unwrap().name(), "ada");
    assert!(users.by_certificate("").is_err());
    assert!(
        matches!(users.authenticate("ada", "", Instant::now()), Err(Refusal::Wrong)),
        "there is no password"
    );
    let twice = Change { add_certificates: vec![thumbprint.clone()], ..Change::default() };
    users.add("eve", &twice, Timestamp::UNIX_EPOCH).unwrap();
    assert!(users.by_certificate(&thumbprint).is_err(), "nobody, rather than one of two");
    users.remove("eve").unwrap();
    assert!(users.identity("ADA").unwrap().is_some());
    users.set("ada", &Change { disabled: Some(true), ..Change::default() }).unwrap();
    assert!(users.by_certificate(&thumbprint).is_err());
    assert!(users.identity("ada").unwrap().is_none());
}

#[test]
fn what_breaks_a_rule_is_refused_and_nothing_is_kept() {
    let users = users();
    let long = "x".repeat(65);
    for name in ["", "a b", "a:b", "a/b", "-a", "ä", &long] {
        assert_eq!(
            users.add(name, &with_password("reader"), Timestamp::UNIX_EPOCH).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{name}"
        );
    }
    let short = Change { password: Some("short".to_owned()), ..Change::default() };
    assert!(users.add("ada", &short, Timestamp::UNIX_EPOCH).is_err());
    assert!(users.add("ada", &Change::default(), Timestamp::UNIX_EPOCH).is_err());
    for certificate in ["", "abcd", &"0".repeat(40), &"g".repeat(64)] {
        let change = Change { add_certificates: vec![certificate.to_string()], ..Change::default() };
        assert!(users.add("ada", &change, Timestamp::UNIX_EPOCH).is_err(), "{certificate}");
    }
    assert!(users.list().unwrap().is_empty());
    assert_eq!(users.store.revision().unwrap(), 0);
}

fn with_keys() -> (Users, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let users = users().with_key_file(dir.path().join("ntlm.key"));
    (users, dir)
}

fn with_ntlm() -> Change {
    Change { ntlm: Some(true), ..with_password("operator") }
}

#[test]
fn an_nt_hash_is_kept_of_those_only_who_were_enabled() {
    let (users, dir) = with_keys();
    let now = Instant::now();
    let is = |password: &str| {
        let right = crate::nt_hash::of(password);
        move |there: &[u8; 16]| *there == right
    };
    users.add("ada", &with_password("operator"), Timestamp::UNIX_EPOCH).unwrap();
    assert!(matches!(users.by_nt_hash("ada", is(PASSWORD), now), Err(Refusal::Wrong)));
    assert!(
        matches!(users.by_nt_hash("ada", |_| true, now), Err(Refusal::Wrong)),
        "there is no hash to prove"
    );
    assert!(!users.any_nt_hash().unwrap() && !dir.path().join("ntlm.key").exists());
    let without = users.set("ada", &Change { ntlm: Some(true), ..Change::default() }).unwrap_err();
    assert!(without.kind() == ErrorKind::Invalid && without.hint_text().unwrap().contains("--ntlm"));

    users.set("ada", &with_ntlm()).unwrap();
    assert!(users.any_nt_hash().unwrap());
    assert_eq!(users.by_nt_hash("LAB\\ADA", is(PASSWORD), now).unwrap().name(), "ada");
    assert!(matches!(users.by_nt_hash("ada", is("another horse"), now), Err(Refusal::Wrong)));
    // A new password renews it.
    users.set("ada", &Change { password: Some("another horse".to_owned()), ..Change::default() }).unwrap();
    assert!(matches!(users.by_nt_hash("ada", is(PASSWORD), now), Err(Refusal::Wrong)));
    users.by_nt_hash("ada", is("another horse"), now).unwrap();
    users.set("ada", &Change { disabled: Some(true), ..Change::default() }).unwrap();
    assert!(matches!(users.by_nt_hash("ada", is("another horse"), now), Err(Refusal::Wrong)));
    let off = Change { ntlm: Some(false), disabled: Some(false), ..Change::default() };
    assert_eq!(users.set("ada", &off).unwrap().nt_hash, None);
    assert!(matches!(users.by_nt_hash("ada", is("another horse"), now), Err(Refusal::Wrong)));
    users.authenticate("ada", "another horse", now).unwrap();
}

#[test]
fn guessing_by_nt_hash_is_slowed_down_as_any() {
    let (users, _dir) = with_keys();
    users.add("ada", &with_ntlm(), Timestamp::UNIX_EPOCH).unwrap();
    let now = Instant::now();
    for name in ["ada", "nobody"] {
        for _ in 0..FREE {
            assert!(matches!(users.by_nt_hash(name, |_| false, now), Err(Refusal::Wrong)), "{name}");
        }
        assert!(matches!(users.by_nt_hash(name, |_| true, now), Err(Refusal::Wait(_))), "{name}");
        assert!(
            matches!(users.authenticate(name, PASSWORD, now), Err(Refusal::Wait(_))),
            "one count for all proofs"
        );
    }
}

#[test]
fn a_hash_whose_key_or_password_is_another_is_refused_with_the_way_on() {
    let (users, dir) = with_keys();
    users.add("ada", &with_ntlm(), Timestamp::UNIX_EPOCH).unwrap();
    let now = Instant::now();
    let failed = |users: &Users| match users.by_nt_hash("ada", |_| true, now) {
        Err(Refusal::Failed(e)) => format!("{e}; {}", e.hint_text().unwrap()),
        other => panic!("{other:?}"),
    };
    // The password was changed by a program that keeps what it does not know.
    let key = "user/ada";
    let record = users.store.get(key).unwrap().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    json["password"] = serde_json::Value::from(crate::password::hash("another horse").unwrap());
    let txn = store::Txn::new().put(key, serde_json::to_vec(&json).unwrap());
    let _ = users.store.txn(&txn).unwrap();
    assert!(
        failed(&users).contains("for another password")
            && failed(&users).contains("slipway user set ada --ntlm")
    );
    users.set("ada", &with_ntlm()).unwrap();
    std::fs::remove_file(dir.path().join("ntlm.key")).unwrap();
    assert!(
        failed(&users).contains("not there any more")
            && failed(&users).contains("slipway user set ada --ntlm")
    );
    users.set("ada", &with_ntlm()).unwrap();
    users.by_nt_hash("ada", |_| true, now).unwrap();
}

/// A record as yesterday's program wrote it.
#[test]
fn a_record_without_nt_hash_is_read() {
    let users = users();
    let record = r#"{"version":1,"name":"ada","password":null,"certificates":[],"grant":{"role":"reader"},"machines":{},"disabled":false,"created":"1970-01-01T00:00:00Z"}"#;
    let _ = users.store.txn(&store::Txn::new().put("user/ada", record.as_bytes().to_vec())).unwrap();
    let ada = users.get("ada").unwrap();
    assert!(ada.nt_hash.is_none() && ada.extra.is_empty());
    assert!(!serde_json::to_string(&ada).unwrap().contains("nt_hash"), "and written as it was");
}
