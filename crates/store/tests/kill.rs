//! kill -9 in the middle of writing: everything acknowledged is there, nothing is there by half.
//!
//! The writer is this test binary itself, started again with [`DIR`] in its environment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use store::{Durability, Outcome, SqliteStore, Store, Txn};

const DIR: &str = "SLIPWAY_TEST_STORE_DIR";
/// Keys written by every transaction, besides the log.
const KEYS: u64 = 20;

fn number(store: &SqliteStore, key: &str) -> u64 {
    let entry = store.get(key).unwrap();
    entry.map_or(0, |entry| String::from_utf8(entry.value).unwrap().trim_end_matches('.').parse().unwrap())
}

/// The child: writes until it is killed, saying so after each commit.
#[test]
fn child_writes_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = SqliteStore::open(&Path::new(&dir).join("store.db")).unwrap();
    let mut out = std::io::stdout();
    // A kill is no power cut: what is not synced survives it as well.
    if number(&store, "key/0") % 2 == 1 {
        store.set_durability(Durability::Deferred).unwrap();
    }
    for n in number(&store, "key/0") + 1.. {
        // Several pages, so that a commit is many writes.
        let value = format!("{n}{}", ".".repeat(3000));
        let mut txn = Txn::new().absent(format!("log/{n:08}")).put(format!("log/{n:08}"), "");
        for key in 0..KEYS {
            txn = txn.put(format!("key/{key}"), value.as_str());
        }
        assert!(matches!(store.txn(&txn).unwrap(), Outcome::Committed { revision } if revision == n));
        writeln!(out, "\nacknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn acknowledged_transactions_survive_a_kill_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acknowledged = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let goal = acknowledged + 1 + round * 7 % 23;
        let ack = |line: String| line.strip_prefix("acknowledged ").map(|n| n.parse::<u64>().unwrap());
        while acknowledged < goal {
            let line = lines.next().expect("the child writes until it is killed").unwrap();
            acknowledged = ack(line).unwrap_or(acknowledged);
        }
        // SIGKILL, while the child is somewhere in its next transactions.
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it died counts.
        acknowledged = lines.filter_map(|line| ack(line.unwrap_or_default())).last().unwrap_or(acknowledged);

        let store = SqliteStore::open(&path).expect("the dead hold no lock");
        let held = number(&store, "key/0");
        assert!((acknowledged..=acknowledged + 1).contains(&held), "{held} of {acknowledged}");
        for key in 1..KEYS {
            assert_eq!(number(&store, &format!("key/{key}")), held, "a transaction by half");
        }
        assert_eq!(store::scan(&store, "log/").count() as u64, held);
        assert_eq!(store.revision().unwrap(), held);
        acknowledged = held;
    }
}

/// Two daemons on one data directory: the second is told who is there.
#[test]
fn another_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_killed", "--nocapture"])
        .env(DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("acknowledged")).unwrap().unwrap();
    let error = SqliteStore::open(&dir.path().join("store.db")).unwrap_err();
    assert_eq!(error.kind(), store::OpenErrorKind::InUse);
    assert!(error.to_string().contains(&format!("pid {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
}
