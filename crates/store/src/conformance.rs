//! What every [`Store`] must do, as one suite: `run` it from a test of each implementation.
//!
//! Durability is not here: it takes a process that dies, and each durable store tests that itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, built only for tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Change, ErrorKind, Event, MAX_OPERATIONS, MAX_PAGE, MAX_VALUE, Operation, Outcome, Store, Txn};

/// Makes an empty store that keeps at least so many revisions for watchers, and exactly so many if it can.
pub type Make<'a> = dyn Fn(u64) -> Box<dyn Store> + 'a;

/// Runs the whole suite; panics at the first rule that does not hold.
pub fn run(make: &Make<'_>) {
    starts_empty(&*make(100));
    revisions_count_changes(&*make(100));
    conditions_guard_everything(&*make(100));
    bad_transactions_are_refused(&*make(100));
    ranges_are_paged(&*make(100));
    behaves_like_a_map(&*make(100));
    watches_see_every_change_once(&*make(1000));
    old_history_is_refused(&*make(10));
    watchers_wake_up(Arc::from(make(1000)));
    writers_do_not_lose_updates(Arc::from(make(1000)));
}

fn committed(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { revision } => revision,
        Outcome::Conflict { key } => panic!("conflict on {key}"),
    }
}

fn conflict(key: &str) -> Outcome {
    Outcome::Conflict { key: key.to_owned() }
}

fn starts_empty(store: &dyn Store) {
    assert_eq!(store.revision().unwrap(), 0);
    assert_eq!(store.get("a").unwrap(), None);
    assert!(store.range("", None, 10).unwrap().is_empty());
}

fn revisions_count_changes(store: &dyn Store) {
    assert_eq!(committed(store.txn(&Txn::new().put("a", "1").put("b", "2")).unwrap()), 1);
    assert_eq!(
        committed(store.txn(&Txn::new().put("a", "1")).unwrap()),
        2,
        "the same value again is a change"
    );
    assert_eq!(committed(store.txn(&Txn::new()).unwrap()), 2, "nothing is no change");
    assert_eq!(committed(store.txn(&Txn::new().delete("none")).unwrap()), 2, "nor is removing nothing");
    assert_eq!(store.get("a").unwrap().unwrap().revision, 2);
    assert_eq!(store.get("b").unwrap().unwrap().revision, 1);
    assert_eq!(committed(store.txn(&Txn::new().delete("a")).unwrap()), 3);
    assert_eq!(store.get("a").unwrap(), None);
    assert_eq!(committed(store.txn(&Txn::new().put("a", "")).unwrap()), 4);
    let back = store.get("a").unwrap().unwrap();
    assert_eq!((back.value.as_slice(), back.revision), (&b""[..], 4), "an empty value is a value");
    assert_eq!(store.revision().unwrap(), 4);
}

fn conditions_guard_everything(store: &dyn Store) {
    let write = |txn: Txn| store.txn(&txn.put("x", "new").delete("y")).unwrap();
    let _ = store.txn(&Txn::new().put("y", "old").put("a", "1")).unwrap();
    assert_eq!(write(Txn::new().absent("a")), conflict("a"));
    assert_eq!(write(Txn::new().exists("b")), conflict("b"));
    assert_eq!(write(Txn::new().revision("a", 7)), conflict("a"));
    assert_eq!(write(Txn::new().revision("b", 1)), conflict("b"), "an absent key has no revision");
    assert_eq!(write(Txn::new().revision("b", 0)), conflict("b"), "not even 0");
    assert_eq!(
        write(Txn::new().exists("a").absent("b").absent("a").exists("b")),
        conflict("a"),
        "the first is told"
    );
    assert_eq!(store.get("x").unwrap(), None, "nothing was written");
    assert!(store.get("y").unwrap().is_some(), "nothing was removed");
    assert_eq!(store.revision().unwrap(), 1);
    assert_eq!(committed(write(Txn::new().revision("a", 1).absent("b").exists("y"))), 2);
    assert!(store.get("x").unwrap().is_some());
    assert_eq!(store.get("y").unwrap(), None);
    assert_eq!(
        store.txn(&Txn::new().absent("x")).unwrap(),
        conflict("x"),
        "conditions alone are checked too"
    );
}

fn bad_transactions_are_refused(store: &dyn Store) {
    let kind = |txn: Txn| store.txn(&txn).unwrap_err().kind();
    assert_eq!(kind(Txn::new().put("", "")), ErrorKind::InvalidKey);
    assert_eq!(kind(Txn::new().put("a b", "")), ErrorKind::InvalidKey);
    assert_eq!(kind(Txn::new().delete("a//b")), ErrorKind::InvalidKey);
    assert_eq!(kind(Txn::new().exists("a/")), ErrorKind::InvalidKey);
    assert_eq!(kind(Txn::new().put("a", vec![0; MAX_VALUE + 1])), ErrorKind::TooLarge);
    assert_eq!(kind(Txn::new().put("a", "").delete("a")), ErrorKind::InvalidTxn);
    let mut many = Txn::new();
    for n in 0..=MAX_OPERATIONS {
        many = many.put(format!("k{n}"), "");
    }
    assert_eq!(kind(many.clone()), ErrorKind::InvalidTxn);
    assert_eq!(store.get("").unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(store.range("ä", None, 1).unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(store.watch("\n", 0).unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(store.revision().unwrap(), 0, "nothing was written");
    many.operations.pop();
    many.operations[0] = Operation::Put("k0".into(), vec![7; MAX_VALUE]);
    assert_eq!(committed(store.txn(&many).unwrap()), 1, "the limits themselves are fine");
    assert_eq!(store.get("k0").unwrap().unwrap().value.len(), MAX_VALUE);
}

fn ranges_are_paged(store: &dyn Store) {
    for chunk in (0..MAX_PAGE + 5).collect::<Vec<_>>().chunks(MAX_OPERATIONS) {
        let mut txn = Txn::new();
        for n in chunk {
            txn = txn.put(format!("k/{n:06}"), "v");
        }
        let _ = store.txn(&txn).unwrap();
    }
    let _ =
        store.txn(&Txn::new().put("j", "").put("k", "").put("k.", "").put("k0", "").put("l/1", "")).unwrap();
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        store.range(prefix, after, limit).unwrap().into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys("k/", None, 2), ["k/000000", "k/000001"]);
    assert_eq!(keys("k/", Some("k/000001"), 2), ["k/000002", "k/000003"]);
    assert_eq!(keys("k/", Some("k/000001x"), 1), ["k/000002"], "the key after need not exist");
    assert_eq!(keys("k/", Some("a"), 1), ["k/000000"], "nor be inside the prefix");
    assert!(keys("k/", Some("z"), 1).is_empty());
    assert_eq!(keys("k/", None, usize::MAX).len(), MAX_PAGE);
    assert!(keys("k/", None, 0).is_empty());
    assert_eq!(
        keys("k", None, 3),
        ["k", "k.", "k/000000"],
        "a prefix may end inside a segment; order is by bytes"
    );
    assert_eq!(keys("", None, 2), ["j", "k"]);
    assert_eq!(crate::scan(store, "k/").count(), MAX_PAGE + 5);
    assert_eq!(crate::scan(store, "").map(|entry| entry.unwrap().key).last().unwrap(), "l/1");
}

/// A thousand seeded transactions against a `BTreeMap`.
fn behaves_like_a_map(store: &dyn Store) {
    let mut model: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
    let mut revision = 0;
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: u64| {
        // splitmix64: any numbers do, as long as they are the same each time.
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    };
    for round in 0..300 {
        let mut txn = Txn::new();
        let mut wanted = true;
        for _ in 0..random(3) {
            let key = format!("key/{}", random(8));
            let current = model.get(&key).map(|(_, revision)| *revision);
            txn = match random(3) {
                0 => {
                    wanted &= current.is_none();
                    txn.absent(key)
                }
                1 => {
                    wanted &= current.is_some();
                    txn.exists(key)
                }
                _ => {
                    let guess = current.unwrap_or(1) + random(5) / 4;
                    wanted &= current == Some(guess);
                    txn.revision(key, guess)
                }
            };
        }
        let first = random(8);
        for n in 0..random(4) {
            let key = format!("key/{}", (first + n) % 8);
            txn = if random(3) == 0 { txn.delete(key) } else { txn.put(key, format!("{round}.{n}")) };
        }
        let outcome = store.txn(&txn).unwrap();
        assert_eq!(matches!(outcome, Outcome::Committed { .. }), wanted, "{txn:?}");
        if wanted {
            let changes = |operation: &Operation| match operation {
                Operation::Put(..) => true,
                Operation::Delete(key) => model.contains_key(key),
            };
            revision += u64::from(txn.operations.iter().any(changes));
            for operation in txn.operations {
                match operation {
                    Operation::Put(key, value) => model.insert(key, (value, revision)),
                    Operation::Delete(key) => model.remove(&key),
                };
            }
            assert_eq!(committed(outcome), revision);
        }
        let held: BTreeMap<_, _> = crate::scan(store, "")
            .map(|entry| entry.map(|entry| (entry.key, (entry.value, entry.revision))).unwrap())
            .collect();
        assert_eq!(held, model);
    }
}

fn drain(watch: &mut crate::Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.next_timeout(Duration::ZERO).unwrap()).collect()
}

fn event(key: &str, revision: u64, change: Change) -> Event {
    Event { key: key.to_owned(), revision, change }
}

fn watches_see_every_change_once(store: &dyn Store) {
    let _ = store.txn(&Txn::new().put("m/1", "a").put("n/1", "a")).unwrap();
    let _ = store.txn(&Txn::new().put("m/1", "b").put("m/2", "b").delete("none")).unwrap();
    let mut all = store.watch("m/", 0).unwrap();
    let mut late = store.watch("m/", 1).unwrap();
    let mut now = store.watch("m/", store.revision().unwrap()).unwrap();
    let second = [event("m/1", 2, Change::Put), event("m/2", 2, Change::Put)];
    assert_eq!(drain(&mut all), [&[event("m/1", 1, Change::Put)][..], &second].concat());
    assert_eq!(drain(&mut late), second);
    assert_eq!(drain(&mut now), []);
    let _ = store.txn(&Txn::new().put("other", "")).unwrap();
    let _ = store.txn(&Txn::new().absent("m/1").put("m/3", "")).unwrap();
    let _ = store.txn(&Txn::new().delete("m/1")).unwrap();
    for watch in [&mut all, &mut late, &mut now] {
        assert_eq!(drain(watch), [event("m/1", 4, Change::Delete)]);
    }
    assert_eq!(drain(&mut store.watch("m/", u64::MAX).unwrap()), [], "a revision to come has no events yet");
}

fn old_history_is_refused(store: &dyn Store) {
    let mut idle = store.watch("a", 0).unwrap();
    for n in 0..100 {
        let _ = store.txn(&Txn::new().put("a", format!("{n}"))).unwrap();
    }
    assert_eq!(store.watch("a", 0).unwrap_err().kind(), ErrorKind::Compacted);
    assert_eq!(idle.next_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::Compacted);
    assert_eq!(drain(&mut store.watch("a", 90).unwrap()).len(), 10);
    let kept = store.watch("a", 89).is_ok();
    assert!(!kept, "exactly as many revisions as asked are kept");
}

fn watchers_wake_up(store: Arc<dyn Store>) {
    let mut watch = store.watch("w/", 0).unwrap();
    let writer = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            for n in 0..50 {
                let _ = store.txn(&Txn::new().put(format!("w/{n}"), "")).unwrap();
            }
        })
    };
    for n in 0..50 {
        let event = watch.next_timeout(Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!(event.key, format!("w/{n}"));
    }
    writer.join().unwrap();
    assert_eq!(watch.next_timeout(Duration::from_millis(1)).unwrap(), None);
}

/// Read, add one, write back on condition: four threads, no update lost.
fn writers_do_not_lose_updates(store: Arc<dyn Store>) {
    let _ = store.txn(&Txn::new().put("count", "0")).unwrap();
    let add = |store: Arc<dyn Store>| {
        for _ in 0..25 {
            loop {
                let now = store.get("count").unwrap().unwrap();
                let next = String::from_utf8(now.value).unwrap().parse::<u32>().unwrap() + 1;
                let txn = Txn::new().revision("count", now.revision).put("count", next.to_string());
                if let Outcome::Committed { .. } = store.txn(&txn).unwrap() {
                    break;
                }
            }
        }
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || add(store))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.get("count").unwrap().unwrap().value, b"100");
    assert_eq!(store.revision().unwrap(), 101);
}
