//! Containers made here, some bent by hand: what the reader takes, what it refuses, and what the writer promises.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test's helpers are tests too")]

mod support;

use support::{
    audit, dissect, key_at, log_offset, objects, oracle_ordered, ordered, put, rich_tree, seal, seal_key,
    set_object, set_pending, u32_at, u64_at,
};
use vmcx::{
    ContainerOrigin, Document, Entry, Form, Origin, ReadErrorKind, Text, Tree, Value, WriteErrorKind, diff,
};

fn node(entries: Vec<Entry>) -> Tree {
    Tree { entries: vec![Entry::node("configuration", entries)] }
}

fn read(bytes: &[u8]) -> Tree {
    vmcx::read(bytes).unwrap_or_else(|e| panic!("{e}")).tree
}

/// Writes, audits, reads back, compares with the oracle.
fn through_a_file(tree: &Tree) -> Vec<u8> {
    let bytes = vmcx::write_container(tree).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(audit(&bytes), Vec::<String>::new());
    let back = read(&bytes);
    assert_eq!(diff(tree, &back), []);
    assert_eq!(back.len(), tree.len());
    if let Some(theirs) = oracle_ordered(&bytes) {
        assert!(theirs == ordered(&back), "the oracle reads another tree");
    }
    bytes
}

#[test]
fn every_type_passes_through_a_file() {
    let bytes = through_a_file(&rich_tree());
    let back = read(&bytes);
    let flags = |path: &str| back.entry(path).unwrap().flags;
    assert_eq!(flags("configuration/small"), 0);
    assert_eq!(flags("configuration/large"), Entry::FILE_OBJECT);
    assert_eq!(flags("configuration/long"), Entry::FILE_OBJECT);
    assert_eq!(flags("configuration/tracked"), Entry::CHANGE_TRACKING);
    assert_eq!(flags("configuration/odd flags"), 0xf8);
    assert_eq!(vmcx::write_container(&back).unwrap(), bytes, "written again, the same bytes");
    let headers = [0, 4096].map(|at| u16::from_le_bytes([bytes[at + 8], bytes[at + 9]]));
    assert_eq!(headers, [2, 1]);
    // Names are not unique in this tree, and dissect keeps the last of each.
    if let Some(theirs) = dissect(&bytes) {
        assert_eq!(theirs["configuration"]["large"]["$len"], 2048);
        assert_eq!(theirs["configuration"]["string"], "Zwölf \u{1f600}");
        assert_eq!(theirs["configuration"]["metrics"]["metric"]["value"], 3);
    }
}

#[test]
fn an_empty_tree_and_empty_values_pass() {
    assert_eq!(read(&through_a_file(&Tree::new())), Tree::new());
    through_a_file(&vmcx::empty_runtime_state(2304));
    through_a_file(&node(vec![
        Entry::new("", ""),
        Entry::new("a", Vec::<u8>::new()),
        Entry::node("n", vec![]),
    ]));
}

#[test]
fn names_have_up_to_254_bytes() {
    through_a_file(&node(vec![Entry::new("é".repeat(127), 1), Entry::node("n".repeat(254), vec![])]));
    for name in ["n".repeat(255), "a\0b".to_owned()] {
        let e = vmcx::write_container(&node(vec![Entry::new(name, 1)])).unwrap_err();
        assert_eq!(e.kind(), WriteErrorKind::Name);
    }
}

#[test]
fn text_with_unpaired_surrogates_and_counted_nul_is_kept() {
    for units in [vec![0xd800], vec![0xdc00, 0x41, 0xd83d], vec![0x41, 0]] {
        let tree = node(vec![Entry::new("t", Text::from_units(units.clone()))]);
        let bytes = vmcx::write_container(&tree).unwrap();
        assert_eq!(read(&bytes).get_text("configuration/t").unwrap().units(), units);
        assert_eq!(audit(&bytes), Vec::<String>::new());
    }
    let nul = node(vec![Entry::new("t", "name\0")]);
    assert_eq!(nul.get_str("configuration/t").as_deref(), Some("name"));
}

#[test]
fn ten_mebibytes_in_one_value_and_many_file_objects() {
    let big: Vec<u8> = (0..10 << 20).map(|i: u32| ((i * 31) >> 7) as u8).collect();
    through_a_file(&node(vec![Entry::new("before", 1), Entry::new("big", big), Entry::new("after", 2)]));
    // More objects than one table names: 226 + 227 are in the first two, with two key tables and more.
    for count in [200, 226, 227, 460, 700] {
        let values =
            (0..count).map(|i| Entry::new(format!("RamBlock{i}"), vec![i as u8; 2048 + i])).collect();
        through_a_file(&node(values));
    }
}

#[test]
fn the_chain_of_object_tables_starts_exactly_when_needed() {
    let mut seen = [0, 0];
    for count in 215..240 {
        let values = (0..count).map(|i| Entry::new(format!("v{i}"), vec![1; 2048])).collect();
        let bytes = vmcx::write_container(&node(values)).unwrap();
        // Key tables are listed first, so all of them are in the root table.
        let key_tables = objects(&bytes).iter().filter(|o| o.1 == 2).count();
        let chained = bytes[8200 + 18 * 226] == 1;
        assert_eq!(chained, key_tables + count > 227, "{count}");
        assert_eq!(objects(&bytes).len(), 227.min(key_tables + count));
        assert_eq!(read(&bytes).len(), count + 1);
        seen[usize::from(chained)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_hundred_thousand_keys() {
    let leaf = |i: usize| Entry::new(format!("key {i}"), i as i64);
    let nodes =
        (0..1000).map(|n| Entry::node("node", (0..100).map(|i| leaf(n * 100 + i)).collect())).collect();
    let tree = node(nodes);
    assert_eq!(tree.len(), 101_001);
    let bytes = vmcx::write_container(&tree).unwrap();
    assert_eq!(read(&bytes), tree);
    assert_eq!(audit(&bytes), Vec::<String>::new());
    let wide = node((0..100_000).map(leaf).collect());
    assert_eq!(read(&vmcx::write_container(&wide).unwrap()), wide);
    assert_eq!(diff(&wide, &wide), []);
}

#[test]
fn nesting_is_bounded_alike_for_reading_and_writing() {
    let nested = |depth: usize| {
        let mut entry = Entry::new("leaf", 1);
        for _ in 1..depth {
            entry = Entry::node("n", vec![entry]);
        }
        Tree { entries: vec![entry] }
    };
    let deepest = nested(vmcx::MAX_DEPTH);
    let bytes = vmcx::write_container(&deepest).unwrap();
    assert_eq!(read(&bytes), deepest);
    assert_eq!(audit(&bytes), Vec::<String>::new());
    let e = vmcx::write_container(&nested(vmcx::MAX_DEPTH + 1)).unwrap_err();
    assert_eq!(e.kind(), WriteErrorKind::Shape);
    assert!(vmcx::write_xml(&nested(vmcx::MAX_DEPTH)).is_ok());
    assert!(vmcx::write_xml(&nested(vmcx::MAX_DEPTH + 1)).is_err());
}

#[test]
fn details_of_the_origin_are_written_again() {
    for alignment in [4096, 8192, 65536] {
        let origin =
            ContainerOrigin { sequence: 0xffff, data_version: 3, flags: 9, alignment, log_size: 131_072 };
        let document =
            Document { origin: Origin::Container(origin), ..Document::new(rich_tree(), Form::Container) };
        let bytes = document.write().unwrap();
        let back = vmcx::read(&bytes).unwrap();
        assert_eq!(back.origin, document.origin);
        assert_eq!(diff(&back.tree, &document.tree), []);
        assert_eq!(audit(&bytes), Vec::<String>::new(), "{alignment}");
    }
    // Nonsense from whoever built the origin does not become a broken file.
    for alignment in [0, 3, 1 << 31] {
        let origin = ContainerOrigin { alignment, log_size: 0, sequence: 0, ..ContainerOrigin::default() };
        let document =
            Document { origin: Origin::Container(origin), ..Document::new(rich_tree(), Form::Container) };
        assert_eq!(audit(&document.write().unwrap()), Vec::<String>::new());
    }
}

#[test]
fn unknown_types_are_kept_byte_for_byte() {
    let unknown = |name: &str, type_id, flags, data: &[u8]| {
        let data = data.to_vec();
        Entry { name: name.to_owned(), flags, value: Value::Unknown { type_id, data } }
    };
    let tree = node(vec![
        unknown("two", 2, 0, b"data"),
        unknown("zeros at the end", 200, 4, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        unknown("nothing", 10, 0, b""),
        unknown("inline and large", 77, 0, &[5; 3000]),
        unknown("in a file", 77, Entry::FILE_OBJECT, &[6; 3]),
    ]);
    let bytes = vmcx::write_container(&tree).unwrap();
    assert_eq!(read(&bytes), tree);
    assert_eq!(audit(&bytes), Vec::<String>::new());
    assert_eq!(tree.entry("configuration/two").unwrap().value.type_name(), "unknown:2");
    for (type_id, flags, size) in [(1, 0, 1), (3, 0, 8), (9, 0, 12), (77, 0, 5000)] {
        let e = vmcx::write_container(&node(vec![unknown("x", type_id, flags, &vec![0; size])])).unwrap_err();
        assert_eq!(e.kind(), WriteErrorKind::Value, "{type_id} {size}");
    }
    // No slack at all behind the data.
    let mut tight = bytes.clone();
    let at = key_at(&tight, "two");
    let size = u32_at(&tight, at + 2) as usize;
    let data = size - 21 - 4;
    seal_key(&mut tight, at, data);
    assert_eq!(
        read(&tight).get("configuration/two"),
        Some(&Value::Unknown { type_id: 2, data: [&b"data"[..], &[0; 12]].concat() })
    );
}

#[test]
fn the_valid_header_with_the_higher_sequence_counts() {
    let bytes = vmcx::write_container(&rich_tree()).unwrap();
    let tree = read(&bytes);
    // The later header torn: the spare one serves, and that is told.
    let mut torn = bytes.clone();
    torn[20] ^= 1;
    let document = vmcx::read(&torn).unwrap();
    assert_eq!((document.tree, document.notes.len()), (tree.clone(), 1));
    let mut zeroed = bytes.clone();
    zeroed[..4096].fill(0);
    assert_eq!(read(&zeroed), tree);
    // Both torn.
    torn[4096 + 20] ^= 1;
    let e = vmcx::read(&torn).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ReadErrorKind::Checksum, Some(0)));
    // Another version.
    let mut old = bytes.clone();
    for at in [0, 4096] {
        put(&mut old, at + 10, &0x0301_u32.to_le_bytes());
        seal(&mut old, at, at + 46, at + 4);
    }
    let e = vmcx::read(&old).unwrap_err();
    assert_eq!(e.kind(), ReadErrorKind::Version);
    assert!(e.to_string().contains("3.1"), "{e}");
}

#[test]
fn of_key_tables_with_one_index_the_highest_sequence_counts() {
    let old = vmcx::write_container(&node(vec![Entry::new("which", "old")])).unwrap();
    let new = vmcx::write_container(&node(vec![Entry::new("which", "new")])).unwrap();
    let (_, _, table, size) = objects(&new)[0];
    // A second table of index 1 behind the log, listed after or before the first.
    for (old_sequence, new_sequence, slot) in [(1_u16, 2_u16, 1), (5, 9, 1), (2, 1, 1)] {
        let mut both = old.clone();
        let at = both.len();
        both.extend_from_slice(&new[table..table + size]);
        for (table, sequence) in [(table, old_sequence), (at, new_sequence)] {
            put(&mut both, table + 4, &sequence.to_le_bytes());
            seal(&mut both, table, table + 10, table + 6);
        }
        for flags in [0, 1] {
            set_object(&mut both, slot, 2, at as u64, size as u32, flags);
            let wins = if new_sequence > old_sequence { "new" } else { "old" };
            assert_eq!(read(&both).get_str("configuration/which").as_deref(), Some(wins));
        }
    }
}

#[test]
fn file_objects_may_be_flagged_either_way() {
    let tree = node(vec![Entry::new("big", vec![3; 5000])]);
    let mut bytes = vmcx::write_container(&tree).unwrap();
    let (slot, kind, offset, size) = objects(&bytes).into_iter().find(|o| o.1 == 3).unwrap();
    set_object(&mut bytes, slot, kind, offset as u64, size as u32, 0);
    assert_eq!(diff(&read(&bytes), &tree), []);
    // Pointing where no object is, or beyond it.
    for (offset, size) in [(offset as u64 + 4096, size as u32), (offset as u64, 4096)] {
        let mut bent = bytes.clone();
        set_object(&mut bent, slot, kind, offset, size, 1);
        assert_eq!(vmcx::read(&bent).unwrap_err().kind(), ReadErrorKind::Corrupt);
    }
}

#[test]
fn many_keys_on_one_file_object_do_not_multiply_it() {
    let count = 400;
    let values = (0..count).map(|i| Entry::new(format!("v{i:03}"), vec![0; 4096 * 5])).collect();
    let mut bytes = vmcx::write_container(&node(values)).unwrap();
    let first = key_at(&bytes, "v000");
    let shared = u64_at(&bytes, first + 21 + 5 + 4);
    // All point to the first object, in a file that is mostly cut away behind the tables.
    for i in 1..count {
        let at = key_at(&bytes, &format!("v{i:03}"));
        put(&mut bytes, at + 21 + 5 + 4, &shared.to_le_bytes());
        seal_key(&mut bytes, at, 12);
    }
    let whole = vmcx::read(&bytes).unwrap();
    assert_eq!(whole.tree.len(), count + 1, "as long as they are not larger than the file");
    put(&mut bytes, first + 21 + 5, &(4096 * 5_u32).to_le_bytes());
    let (slot, kind, offset, _) = objects(&bytes).into_iter().find(|o| o.1 == 3).unwrap();
    let size = (bytes.len() - offset) as u32 / 4096 * 4096;
    set_object(&mut bytes, slot, kind, offset as u64, size, 1);
    for i in 0..count {
        let at = key_at(&bytes, &format!("v{i:03}"));
        put(&mut bytes, at + 21 + 5, &size.to_le_bytes());
        seal_key(&mut bytes, at, 12);
    }
    assert_eq!(vmcx::read(&bytes).unwrap_err().kind(), ReadErrorKind::Limit);
}

/// Appends entries to the log: (destination, data), in either order of fields.
fn fill_log(bytes: &mut [u8], writes: &[(u64, Vec<u8>)], alternative: bool) {
    let log = log_offset(bytes);
    let mut at = 4096;
    for (i, (destination, data)) in writes.iter().enumerate() {
        put(bytes, log + at, data);
        let place =
            [&destination.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), &(at as u64).to_le_bytes()];
        let data_checksum = crc32fast::hash(data).to_le_bytes();
        let entry = log + 34 + 28 * i;
        let (field, whole) = if alternative {
            (entry, [&[0; 4], &place.concat()[..], &data_checksum].concat())
        } else {
            (entry + 20, [&place.concat()[..], &[0; 4], &data_checksum].concat())
        };
        put(bytes, entry, &whole);
        seal(bytes, entry, entry + 28, field);
        at += data.len();
    }
    set_pending(bytes, writes.len() as u32);
}

#[test]
fn a_dirty_log_is_replayed_in_either_order_of_fields() {
    let before = node(vec![Entry::new("which", "old"), Entry::new("n", 1)]);
    let after = node(vec![Entry::new("which", "new"), Entry::new("n", 2)]);
    let clean = vmcx::write_container(&before).unwrap();
    let new = vmcx::write_container(&after).unwrap();
    let (_, _, table, size) = objects(&new)[0];
    // In two pieces, the second laid partly over the first; and a piece beyond the end of the file.
    let mut first = new[table..table + 1000].to_vec();
    first[500..].fill(0xee);
    let beyond = clean.len() as u64 + 8192;
    let writes = [
        (table as u64, first),
        (table as u64 + 500, new[table + 500..table + size].to_vec()),
        (beyond, vec![1; 10]),
    ];
    for alternative in [false, true] {
        let mut dirty = clean.clone();
        fill_log(&mut dirty, &writes, alternative);
        let document = vmcx::read(&dirty).unwrap();
        assert_eq!(document.tree, after);
        assert!(document.notes[0].message.contains("3 pending writes"), "{:?}", document.notes);
        if !alternative && let Some(theirs) = oracle_ordered(&dirty) {
            assert!(theirs == ordered(&after));
        }
        // A short log: the file ends where the log's data do.
        dirty.truncate(log_offset(&dirty) + 4096 + writes.iter().map(|w| w.1.len()).sum::<usize>());
        assert_eq!(read(&dirty), after);
        // One byte less, and what was promised is not there.
        dirty.pop();
        assert_eq!(vmcx::read(&dirty).unwrap_err().kind(), ReadErrorKind::Truncated);
    }
}

#[test]
fn a_log_that_does_not_verify_is_refused_whole() {
    let tree = node(vec![Entry::new("n", 1)]);
    let clean = vmcx::write_container(&tree).unwrap();
    let (_, _, table, _) = objects(&clean)[0];
    let log = log_offset(&clean) as u64;
    let mut dirty = clean.clone();
    fill_log(&mut dirty, &[(table as u64, vec![0; 100]), (table as u64 + 100, vec![0; 100])], false);
    for (at, offset) in [(34 + 28, 34 + 28), (4096 + 150, 4096 + 100)] {
        let mut bent = dirty.clone();
        bent[log as usize + at] ^= 0x10;
        let e = vmcx::read(&bent).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ReadErrorKind::Checksum, Some(log + offset)));
        let lenient = vmcx::read_lenient(&bent).unwrap();
        assert_eq!(lenient.tree, tree, "as on disk: half a transaction is worse than none");
        assert!(lenient.notes[0].message.contains("left unapplied"));
    }
    // Into the log, from outside the log, absurdly far: refused even by the lenient reader.
    for (destination, kind) in [
        (log + 50, ReadErrorKind::Corrupt),
        (u64::MAX - 5, ReadErrorKind::Limit),
        (1 << 50, ReadErrorKind::Limit),
    ] {
        let mut bent = clean.clone();
        fill_log(&mut bent, &[(destination, vec![0; 10])], false);
        assert_eq!(vmcx::read(&bent).unwrap_err().kind(), kind);
        assert_eq!(vmcx::read_lenient(&bent).unwrap_err().kind(), kind);
    }
    for pending in [146, u32::MAX] {
        let mut bent = clean.clone();
        set_pending(&mut bent, pending);
        assert_eq!(vmcx::read(&bent).unwrap_err().kind(), ReadErrorKind::Corrupt);
    }
}

#[test]
fn wrong_checksums_are_named_with_their_offset_and_passed_over_when_asked() {
    let tree = rich_tree();
    let bytes = vmcx::write_container(&tree).unwrap();
    let (_, _, table, _) = objects(&bytes)[0];
    let key = key_at(&bytes, "int");
    let log = log_offset(&bytes);
    for (at, offset, what) in [
        (key + 30, key, "key \"int\""),
        (table + 7, table, "key table 1"),
        (8200 + 18 * 100 + 2, 8200 + 18 * 100, "object table entry"),
        (log + 30, log, "replay log header"),
    ] {
        let mut bent = bytes.clone();
        bent[at] ^= 0x40;
        let e = vmcx::read(&bent).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ReadErrorKind::Checksum, Some(offset as u64)), "{e}");
        assert!(e.to_string().contains(what), "{e}");
        let lenient = vmcx::read_lenient(&bent).unwrap();
        assert_eq!(lenient.notes.len(), 1);
        assert_eq!(lenient.tree.len(), tree.len());
    }
}

#[test]
fn wrong_links_are_refused() {
    let bytes = vmcx::write_container(&rich_tree()).unwrap();
    let bend = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut bent = bytes.clone();
        f(&mut bent);
        vmcx::read(&bent).unwrap_err()
    };
    let leaf = key_at(&bytes, "int");
    // A parent that is not there, one that is a leaf, a key that is its own ancestor.
    let e = bend(&|b| {
        put(b, leaf + 8, &9999_u32.to_le_bytes());
        seal_key(b, leaf, 8);
    });
    assert!(e.to_string().contains("\"int\" has a parent that is no node"), "{e}");
    let (_, _, table, _) = objects(&bytes)[0];
    bend(&|b| {
        let other = key_at(b, "uint") - table;
        put(b, leaf + 8, &(other as u32).to_le_bytes());
        seal_key(b, leaf, 8);
    });
    let root = key_at(&bytes, "configuration");
    let e = bend(&|b| {
        put(b, root + 6, &1_u16.to_le_bytes());
        put(b, root + 8, &((root - table) as u32).to_le_bytes());
        seal_key(b, root, 12);
    });
    assert!(e.to_string().contains("its own ancestor"), "{e}");
    // A chain of object tables that leads back.
    let e = bend(&|b| set_object(b, 226, 1, 8192, 4096, 1));
    assert!(e.to_string().contains("leads back"), "{e}");
    bend(&|b| set_object(b, 100, 1, 8192, 4096, 1));
    // Key tables outside the file, or larger than anybody makes them.
    assert_eq!(bend(&|b| set_object(b, 0, 2, 1 << 60, 4096, 1)).kind(), ReadErrorKind::Truncated);
    assert_eq!(bend(&|b| set_object(b, 0, 2, table as u64, u32::MAX, 1)).kind(), ReadErrorKind::Limit);
    // Counts beyond the file.
    assert_eq!(bend(&|b| put(b, 8196, &u32::MAX.to_le_bytes())).kind(), ReadErrorKind::Limit);
    assert_eq!(bend(&|b| put(b, 8196, &1_000_000_u32.to_le_bytes())).kind(), ReadErrorKind::Truncated);
}

#[test]
fn an_outline_leaves_large_values_out_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.vmrs");
    let blocks = (0..5).map(|_| Entry::new("RamBlock", vec![1; 1 << 20])).collect();
    let tree = Tree {
        entries: vec![Entry::node("savedstate", vec![Entry::new("type", 1), Entry::node("savedVM", blocks)])],
    };
    std::fs::write(&path, vmcx::write_container(&tree).unwrap()).unwrap();
    let outline = vmcx::outline_file(&path, 4096).unwrap();
    assert_eq!(outline.tree.get_i64("savedstate/type"), Some(1));
    assert_eq!(outline.tree.len(), tree.len());
    assert_eq!(outline.omitted.len(), 5);
    assert_eq!(outline.omitted[3].path, "savedstate/savedVM/RamBlock[3]");
    assert_eq!(outline.omitted[3].size, 1 << 20);
    assert_eq!(diff(&vmcx::outline_file(&path, u32::MAX).unwrap().tree, &tree), []);
}

#[test]
fn what_is_no_configuration_is_called_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for (bytes, part) in [
        (&b""[..], "empty"),
        (b"vhdxfile........", "a VHDX disk image"),
        (b"GUESTRTS", "a VMGS"),
        (b"\0\0\0\0\0\0", "starts with zeros"),
        (b"hello", "neither"),
        (b"\x14\x20\x28\x01", "beyond the end"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let e = vmcx::read_file(&path).unwrap_err();
        assert!(e.to_string().starts_with(&format!("{}: ", path.display())), "{e}");
        assert!(e.to_string().contains(part), "{e}");
        assert_eq!(vmcx::read(bytes).unwrap_err().kind(), e.kind());
    }
    assert!(vmcx::read_file(dir.path()).unwrap_err().to_string().contains("is a directory"));
    let absent = vmcx::read_file(&dir.path().join("absent")).unwrap_err();
    assert_eq!(absent.kind(), ReadErrorKind::Io);
    assert!(std::error::Error::source(&absent).is_some());
}

/// Key tables laid over each other: each claims what follows it to the end of the file, as free room.
#[test]
fn key_tables_that_overlap_are_refused_before_they_are_read() {
    let mut bytes = vmcx::write_container(&node(vec![])).unwrap();
    let (slot, _, table, _) = objects(&bytes).into_iter().find(|o| o.1 == 2).unwrap();
    let free = objects(&bytes).len();
    const TABLES: usize = 100;
    let first = bytes.len();
    bytes.resize(first + TABLES * 4096, 0);
    let end = bytes.len();
    for n in 0..TABLES {
        let at = first + n * 4096;
        // Signature, index, sequence, checksum; then one free entry for all the rest.
        let header = [&2_u16.to_le_bytes()[..], &(n as u16 + 2).to_le_bytes(), &[1, 0], &[0; 4]].concat();
        put(&mut bytes, at, &header);
        seal(&mut bytes, at, at + 10, at + 6);
        put(&mut bytes, at + 10, &[1, 0]);
        put(&mut bytes, at + 12, &((end - at - 10) as u32).to_le_bytes());
        set_object(&mut bytes, slot + free + n, 2, at as u64, (end - at) as u32, 1);
    }
    let error = vmcx::read(&bytes).unwrap_err();
    assert_eq!(error.kind(), ReadErrorKind::Limit, "{error}");
    // One after the other they are only strange.
    for n in 0..TABLES {
        let at = first + n * 4096;
        put(&mut bytes, at + 12, &(4096_u32 - 10).to_le_bytes());
        set_object(&mut bytes, slot + free + n, 2, at as u64, 4096, 1);
    }
    assert_eq!(table % 4096, 0);
    assert_eq!(read(&bytes), node(vec![]));
}
