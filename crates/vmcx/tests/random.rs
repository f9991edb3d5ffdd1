//! Random trees through both forms, and random damage to both: the same tree, or an error; never a panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test's helpers are tests too")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::{audit, rich_tree};
use vmcx::{Entry, Text, Tree, Value, diff};

fn text(xml: bool) -> BoxedStrategy<Text> {
    if xml {
        // Everything XML 1.0 can spell.
        let r = proptest::char::range;
        let controls = prop_oneof![Just('\t'), Just('\n'), Just('\r')];
        let c = prop_oneof![controls, r(' ', '~'), r('\u{80}', '\u{d7ff}'), r('\u{10000}', '\u{10ffff}')];
        return vec(c, 0..40).prop_map(|c| Text::from(c.into_iter().collect::<String>())).boxed();
    }
    prop_oneof![
        8 => vec(any::<u16>(), 0..40).prop_map(Text::from_units),
        1 => vec(any::<u16>(), 1000..1100).prop_map(Text::from_units),
    ]
    .boxed()
}

fn leaf(xml: bool) -> BoxedStrategy<Value> {
    let known = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        text(xml).prop_map(Value::String),
        prop_oneof![6 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 2000..2100)].prop_map(Value::Array),
    ];
    if xml {
        let finite = any::<f64>().prop_filter("NaN has one spelling", |v| !v.is_nan());
        return prop_oneof![4 => known, 1 => finite.prop_map(Value::Double)].boxed();
    }
    let unknown = (prop_oneof![Just(0_u8), Just(2), 10..=255_u8], vec(any::<u8>(), 0..300));
    prop_oneof![
        6 => known,
        1 => any::<u64>().prop_map(Value::Uint),
        1 => any::<u64>().prop_map(|v| Value::Double(f64::from_bits(v))),
        1 => unknown.prop_map(|(type_id, data)| Value::Unknown { type_id, data }),
    ]
    .boxed()
}

fn entry(xml: bool) -> BoxedStrategy<Entry> {
    let name = if xml { "[A-Za-z_é][A-Za-z0-9_.é-]{0,12}" } else { "[ -~é]{0,12}|[a-c]|[x-z]{250,254}" };
    let make = |(name, flags, value): (String, u8, Value)| Entry { name, flags, value };
    // Bit 0 says where a value is stored: the writer's business.
    let flags = if xml { Just(0).boxed() } else { any::<u8>().prop_map(|f| f & !Entry::FILE_OBJECT).boxed() };
    let leaf = (name, flags.clone(), leaf(xml)).prop_map(make);
    leaf.prop_recursive(5, 120, 10, move |inner| {
        (name, flags.clone(), vec(inner, 0..10).prop_map(Value::Node)).prop_map(make)
    })
    .boxed()
}

fn tree(xml: bool) -> BoxedStrategy<Tree> {
    if xml {
        let root =
            vec(entry(true), 0..12).prop_map(|c| Tree { entries: vec![Entry::node("configuration", c)] });
        return root.boxed();
    }
    vec(entry(false), 0..12).prop_map(|entries| Tree { entries }).boxed()
}

/// Names in document order: what `diff` does not compare.
fn order(tree: &Tree) -> Vec<String> {
    tree.walk().map(|(path, _)| path).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees_pass_through_containers(tree in tree(false)) {
        let bytes = vmcx::write_container(&tree).unwrap();
        let back = vmcx::read(&bytes).unwrap();
        prop_assert_eq!(diff(&tree, &back.tree), vec![]);
        prop_assert_eq!(order(&tree), order(&back.tree));
        prop_assert_eq!(back.notes, vec![]);
        prop_assert_eq!(vmcx::write_container(&back.tree).unwrap(), bytes);
    }

    #[test]
    fn trees_pass_through_xml(tree in tree(true)) {
        let bytes = vmcx::write_xml(&tree).unwrap();
        let back = vmcx::read(&bytes).unwrap();
        prop_assert_eq!(&back.tree, &tree);
        prop_assert_eq!(back.write().unwrap(), bytes);
    }

    #[test]
    fn any_tree_is_written_as_xml_or_refused(tree in tree(false)) {
        if let Ok(bytes) = vmcx::write_xml(&tree) {
            prop_assert_eq!(vmcx::read(&bytes).unwrap().tree.len(), tree.len());
        }
    }

    #[test]
    fn garbage_is_refused(mut bytes in vec(any::<u8>(), 0..20_000), start in 0..4) {
        let head: &[u8] = [&b""[..], b"\x14\x20\x28\x01", b"<?xml?><c>", b"\xff\xfe<\0c\0"][start as usize];
        let n = head.len().min(bytes.len());
        bytes[..n].copy_from_slice(&head[..n]);
        let _ = vmcx::read(&bytes);
        let _ = vmcx::read_lenient(&bytes);
        let _ = vmcx::vmgs::parse(&bytes);
    }

    /// The lenient reader gets past the checksums, so that damage reaches what lies behind them. What it makes of it
    /// must be a tree like any other.
    #[test]
    fn what_is_left_of_a_damaged_file_can_be_written(edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = vmcx::write_container(&rich_tree()).unwrap();
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, byte) in edits {
            bytes[*at.get(&used)] = byte;
        }
        if let Ok(left) = vmcx::read_lenient(&bytes) && let Ok(written) = left.write() {
            prop_assert_eq!(diff(&left.tree, &vmcx::read(&written).unwrap().tree), vec![]);
        }
    }

    #[test]
    fn set_finds_what_it_set(mut tree in tree(false), steps in vec("[a-z]{1,3}", 1..5), v in any::<i64>()) {
        let path = steps.join("/");
        let before = tree.clone();
        match tree.set(&path, v) {
            Ok(old) => {
                prop_assert_eq!(tree.get_i64(&path), Some(v));
                prop_assert_eq!(before.get(&path).cloned(), old);
            }
            Err(_) => prop_assert!(before.get(&path).is_none()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_passes_the_audit(tree in tree(false)) {
        prop_assert_eq!(audit(&vmcx::write_container(&tree).unwrap()), Vec::<String>::new());
    }
}

/// Every structure is under a checksum, save values in file objects and bytes that mean nothing.
#[test]
fn a_flipped_bit_is_an_error_or_means_nothing() {
    let mut tree = rich_tree();
    for name in ["large", "larger", "long"] {
        tree.remove(&format!("configuration/{name}")).unwrap();
    }
    let bytes = vmcx::write_container(&tree).unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        // All of what is used, and some of the empty rest.
        if bytes[at] == 0 && at % 16 != 0 {
            continue;
        }
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        match vmcx::read(&bent) {
            Ok(document) => assert!(document.tree == tree, "a bit at {at} changed the tree unnoticed"),
            Err(_) => refused += 1,
        }
        let _ = vmcx::read_lenient(&bent);
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_truncated_file_is_refused_unless_only_the_logs_room_is_missing() {
    let bytes = vmcx::write_container(&rich_tree()).unwrap();
    let log = support::log_offset(&bytes);
    for len in (0..bytes.len()).step_by(97).chain([log, log + 33, log + 34, log + 4096]) {
        match vmcx::read(&bytes[..len]) {
            Ok(document) => {
                assert!(len >= log + 34 && diff(&document.tree, &rich_tree()).is_empty(), "{len}");
            }
            Err(e) => assert!(len < log + 34, "{len}: {e}"),
        }
    }
    let xml =
        vmcx::write_xml(&Tree { entries: vec![Entry::node("c", vec![Entry::new("v", "text")])] }).unwrap();
    for len in 0..xml.len() {
        assert!(vmcx::read(&xml[..len]).is_err(), "{len}");
    }
}

#[test]
fn damaged_samples_never_panic() {
    for (_, bytes) in support::sample_containers() {
        let tree = vmcx::read(&bytes).unwrap().tree;
        for at in (0..bytes.len()).step_by(37) {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            if let Ok(document) = vmcx::read(&bent) {
                assert!(document.tree == tree, "a bit at {at} changed the tree unnoticed");
            }
            let _ = vmcx::read_lenient(&bent);
            let _ = vmcx::read(&bytes[..at]);
        }
    }
}
