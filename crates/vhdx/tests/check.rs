//! Check names each broken rule, with its offset; and no file, however broken, makes anything panic or hang.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::build::{
    BAT, BLOCKS, Block, HEADERS, ID_BAT, ID_METADATA, METADATA, MIB, Spec, TABLES, build, region_table, seal,
};
use support::storage::CrashStorage;
use uuid::Uuid;
use vhdx::check::check_storage;
use vhdx::{
    CheckOptions, CreateOptions, Image, ImageOptions, MissingParent, OpenErrorKind, Report, Severity,
    Storage, Writer,
};

fn made(spec: &Spec) -> Arc<CrashStorage> {
    let storage = CrashStorage::new();
    build(spec, storage.as_ref());
    storage
}

fn dynamic() -> Spec {
    let blocks = vec![Block::Full(1), Block::State(0, 5), Block::State(2, 0), Block::Full(2)];
    Spec { blocks, ..Spec::dynamic(4 * MIB) }
}

fn child() -> Spec {
    let blocks = vec![Block::Partial(1, vec![true; 3]), Block::State(2, 0), Block::Full(2)];
    Spec { blocks, ..Spec::child(4 * MIB, Uuid::from_u128(4), ".\\parent.vhdx") }
}

fn checked(storage: &Arc<CrashStorage>) -> Report {
    check_storage(storage.clone() as Arc<dyn Storage>, "test", &CheckOptions::default()).unwrap()
}

/// After `change`, check finds `rule` at `offset` with this severity.
fn breaks(spec: &Spec, rule: &str, severity: Severity, offset: u64, change: impl Fn(&CrashStorage)) {
    let storage = made(spec);
    let before = checked(&storage);
    assert!(!before.findings.iter().any(|finding| finding.rule == rule), "{rule}: {:?}", before.findings);
    change(&storage);
    let report = checked(&storage);
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.rule == rule && finding.severity == severity && finding.offset == offset),
        "{rule} at {offset}: {:#?}",
        report.findings
    );
}

fn bat(number: u64, entry: u64) -> impl Fn(&CrashStorage) {
    move |storage| storage.patch(BAT + number * 8, &entry.to_le_bytes())
}

/// Patches a table of 64 KiB or a header of 4 KiB and makes its checksum right again.
fn resealed(storage: &CrashStorage, base: u64, length: usize, at: usize, bytes: &[u8]) {
    let mut whole = storage.get(base, length);
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut whole);
    storage.patch(base, &whole);
}

#[test]
fn sound_files_have_no_errors() {
    for spec in [dynamic(), child()] {
        let report = checked(&made(&spec));
        assert!(report.worst() <= Some(Severity::Info), "{:?}", report.findings);
    }
    let report = checked(&made(&dynamic()));
    assert_eq!(report.blocks.present, 2);
    assert_eq!((report.blocks.absent, report.blocks.zero), (1, 1));
    assert_eq!(report.findings[0].rule, "vhdx.bat.stale");
}

#[test]
fn header_rules() {
    use Severity::{Error, Warning};
    let spec = dynamic();
    breaks(&spec, "vhdx.header.checksum", Warning, HEADERS[0], |s| s.patch(HEADERS[0] + 20, &[0xee]));
    breaks(&spec, "vhdx.header.checksum", Error, HEADERS[1], |s| {
        s.patch(HEADERS[0] + 20, &[0xee]);
        s.patch(HEADERS[1] + 20, &[0xee]);
    });
    breaks(&spec, "vhdx.header.missing", Warning, HEADERS[1], |s| s.patch(HEADERS[1], b"dead"));
    breaks(&spec, "vhdx.header.version", Error, HEADERS[1], |s| resealed(s, HEADERS[1], 4096, 66, &[2]));
    breaks(&spec, "vhdx.header.reserved", Warning, HEADERS[0], |s| resealed(s, HEADERS[0], 4096, 1000, &[2]));
    breaks(&spec, "vhdx.header.sequence", Warning, HEADERS[1], |s| resealed(s, HEADERS[1], 4096, 8, &[7]));
    breaks(&spec, "vhdx.header.log-place", Error, HEADERS[1], |s| resealed(s, HEADERS[1], 4096, 72, &[1]));
    // The log where the block allocation table is: the region that comes second is named.
    breaks(&spec, "vhdx.region.overlap", Error, TABLES[0] + 16, |s| {
        resealed(s, HEADERS[1], 4096, 72, &BAT.to_le_bytes());
    });
}

#[test]
fn region_rules() {
    use Severity::{Error, Warning};
    let spec = dynamic();
    let tables = |s: &CrashStorage, entries: &[(&str, u64, u32, u32)]| {
        for base in TABLES {
            s.patch(base, &region_table(entries));
        }
    };
    let (good_bat, good_metadata) = ((ID_BAT, BAT, 2 << 20, 1), (ID_METADATA, METADATA, 1 << 20, 1));
    breaks(&spec, "vhdx.region.checksum", Warning, TABLES[0], |s| s.patch(TABLES[0] + 9000, &[1]));
    breaks(&spec, "vhdx.region.missing", Warning, TABLES[1], |s| s.patch(TABLES[1], b"iger"));
    breaks(&spec, "vhdx.region.differ", Warning, TABLES[1], |s| {
        resealed(s, TABLES[1], 65536, 60000, &[1]);
    });
    breaks(&spec, "vhdx.region.unknown", Error, TABLES[0] + 80, |s| {
        tables(s, &[good_bat, good_metadata, ("00000000-0000-0000-0000-000000000001", 20 << 20, 1 << 20, 1)]);
    });
    breaks(&spec, "vhdx.region.duplicate", Error, TABLES[0] + 80, |s| {
        tables(s, &[good_bat, good_metadata, good_bat]);
    });
    breaks(&spec, "vhdx.region.required", Warning, TABLES[0] + 16, |s| {
        tables(s, &[(ID_BAT, BAT, 2 << 20, 0), good_metadata]);
    });
    breaks(&spec, "vhdx.region.reserved", Warning, TABLES[0] + 16, |s| {
        tables(s, &[(ID_BAT, BAT, 2 << 20, 3), good_metadata]);
    });
    breaks(&spec, "vhdx.region.place", Error, TABLES[0] + 16, |s| {
        tables(s, &[(ID_BAT, BAT + 4096, 2 << 20, 1), good_metadata]);
    });
    breaks(&spec, "vhdx.region.outside", Error, TABLES[0] + 48, |s| {
        tables(s, &[good_bat, (ID_METADATA, 900 * MIB, 1 << 20, 1)]);
    });
    breaks(&spec, "vhdx.region.overlap", Error, TABLES[0] + 48, |s| {
        tables(s, &[good_bat, (ID_METADATA, BAT + MIB, 1 << 20, 1)]);
    });
    breaks(&spec, "vhdx.region.absent", Error, TABLES[0], |s| tables(s, &[good_metadata]));
    breaks(&spec, "vhdx.region.count", Error, TABLES[0], |s| {
        resealed(s, TABLES[0], 65536, 8, &2048_u32.to_le_bytes());
    });
    breaks(&spec, "vhdx.unreadable", Error, TABLES[0], |s| tables(s, &[good_metadata]));
}

#[test]
fn metadata_and_locator_rules() {
    use Severity::{Error, Warning};
    let spec = dynamic();
    let entry = |index: u64| METADATA + 32 + index * 32;
    let items = METADATA + 65536;
    breaks(&spec, "vhdx.metadata.table", Error, METADATA, |s| s.patch(METADATA, b"nonsense"));
    breaks(&spec, "vhdx.metadata.table", Error, METADATA, |s| {
        s.patch(METADATA + 10, &3000_u16.to_le_bytes());
    });
    breaks(&spec, "vhdx.metadata.missing", Error, METADATA, |s| s.patch(METADATA + 10, &[4, 0]));
    breaks(&spec, "vhdx.metadata.duplicate", Error, entry(4), |s| {
        let first = s.get(entry(0), 32);
        s.patch(entry(4), &first);
    });
    breaks(&spec, "vhdx.metadata.unknown", Error, entry(4), |s| s.patch(entry(4), &[1]));
    breaks(&spec, "vhdx.metadata.flags", Warning, entry(2), |s| s.patch(entry(2) + 24, &[4]));
    breaks(&spec, "vhdx.metadata.reserved", Warning, entry(2), |s| s.patch(entry(2) + 28, &[4]));
    breaks(&spec, "vhdx.metadata.length", Error, entry(2), |s| s.patch(entry(2) + 20, &[9]));
    breaks(&spec, "vhdx.metadata.item-place", Error, entry(2), |s| s.patch(entry(2) + 16, &[0, 0, 0x10, 0]));
    breaks(&spec, "vhdx.metadata.item-place", Error, entry(2), |s| s.patch(entry(2) + 16, &[0, 1, 0, 0]));
    breaks(&spec, "vhdx.metadata.item-overlap", Error, entry(1), |s| s.patch(entry(1) + 16, &[4, 0, 1, 0]));
    breaks(&spec, "vhdx.metadata.block-size", Error, items + 16, |s| s.patch(items + 16, &[1]));
    breaks(&spec, "vhdx.metadata.virtual-size", Error, items + 24, |s| s.patch(items + 24, &[1]));
    breaks(&spec, "vhdx.metadata.virtual-size", Error, items + 24, |s| s.patch(items + 31, &[1]));
    breaks(&spec, "vhdx.metadata.sector-size", Error, items + 32, |s| s.patch(items + 32, &[1]));
    breaks(&spec, "vhdx.locator.missing", Error, METADATA, |s| s.patch(items + 20, &[2]));
    let with = |change: fn(&mut Vec<(String, String)>)| {
        let mut spec = child();
        change(&mut spec.pairs);
        spec
    };
    let finds = |spec: &Spec, rule: &str| {
        let report = checked(&made(spec));
        assert!(
            report.findings.iter().any(|finding| finding.rule == rule && finding.offset == items + 40),
            "{rule}: {:#?}",
            report.findings
        );
    };
    finds(&with(|pairs| drop(pairs.remove(0))), "vhdx.locator.linkage");
    finds(&with(|pairs| pairs[0].1 = "parent".to_owned()), "vhdx.locator.linkage");
    finds(&with(|pairs| pairs[4].1 = "{}".to_owned()), "vhdx.locator.linkage");
    finds(&with(|pairs| drop(pairs.drain(1..4))), "vhdx.locator.path");
    finds(&with(|pairs| pairs.push(pairs[2].clone())), "vhdx.locator.duplicate");
    finds(&with(|pairs| pairs[1].1.clear()), "vhdx.locator.malformed");
    finds(&Spec { flags: 0, ..child() }, "vhdx.locator.unexpected");
}

#[test]
fn block_rules() {
    use Severity::{Error, Info, Warning};
    let spec = dynamic();
    let (first, second) = (6 | BLOCKS, 6 | (BLOCKS + MIB));
    breaks(&spec, "vhdx.bat.overlap", Error, BAT + 24, bat(3, first));
    breaks(&spec, "vhdx.bat.overlap", Error, BAT + 24, bat(3, 6 | METADATA));
    breaks(&spec, "vhdx.bat.outside", Error, BAT + 8, bat(1, 6 | (900 * MIB)));
    breaks(&spec, "vhdx.bat.outside", Error, BAT + 8, bat(1, 6));
    breaks(&spec, "vhdx.bat.outside", Error, BAT + 8, bat(1, u64::MAX << 20 | 6));
    breaks(&spec, "vhdx.bat.reserved", Error, BAT + 24, bat(3, second | 8));
    breaks(&spec, "vhdx.bat.state-unknown", Error, BAT + 8, bat(1, 4));
    breaks(&spec, "vhdx.bat.state-unknown", Error, BAT, bat(0, 5 | BLOCKS));
    breaks(&spec, "vhdx.bat.state-illegal", Error, BAT, bat(0, 7 | BLOCKS));
    let fixed = checked(&made(&Spec { flags: 1, ..spec }));
    assert!(fixed.findings.iter().any(|finding| finding.rule == "vhdx.bat.fixed-absent"));
    let spec = child();
    let bitmap = 4096;
    breaks(&spec, "vhdx.bat.bitmap-missing", Error, BAT + bitmap * 8, bat(bitmap, 0));
    breaks(&spec, "vhdx.bat.overlap", Error, BAT + bitmap * 8, bat(bitmap, 6 | METADATA));
    breaks(&spec, "vhdx.bat.outside", Error, BAT + bitmap * 8, bat(bitmap, 6 | (900 * MIB)));
    breaks(&spec, "vhdx.bat.state-unknown", Error, BAT + bitmap * 8, bat(bitmap, 3));
    breaks(&spec, "vhdx.file.length", Info, 8 * MIB + 5, |s| s.set_len(8 * MIB + 5).unwrap());
    breaks(&spec, "vhdx.bat.outside", Error, BAT + 16, |s| s.set_len(s.len().unwrap() - MIB).unwrap());
    let odd = Spec { blocks: vec![Block::Full(1), Block::Full(1)], ..Spec::dynamic(MIB + 512) };
    breaks(&odd, "vhdx.bat.cut", Warning, BAT + 8, |s| s.set_len(s.len().unwrap() - 4096).unwrap());
}

#[test]
fn a_disk_that_uses_a_part_of_its_file_twice_is_told_from_one_that_is_only_broken() {
    let overlap = |change: &dyn Fn(&CrashStorage)| {
        let storage = made(&dynamic());
        change(&storage);
        checked(&storage).overlap().map(|finding| finding.rule)
    };
    assert_eq!(overlap(&|_| {}), None);
    assert_eq!(overlap(&bat(1, 6 | (900 * MIB))), None);
    assert_eq!(overlap(&bat(3, 6 | BLOCKS)), Some("vhdx.bat.overlap"));
}

#[test]
fn findings_are_bounded_but_every_rule_is_named() {
    let spec = Spec { blocks: vec![Block::State(4, 0); 3000], ..Spec::dynamic(3000 * MIB) };
    let storage = made(&Spec {
        blocks: [spec.blocks.clone(), vec![Block::State(5, 1)]].concat(),
        size: 3001 * MIB,
        ..spec
    });
    bat(3000, 6 | (9000 * MIB))(&storage);
    let options = CheckOptions { max_findings: 10 };
    let report = check_storage(storage as Arc<dyn Storage>, "test", &options).unwrap();
    assert_eq!(report.findings.len(), 11);
    assert_eq!(report.suppressed, 2990);
    assert_eq!(report.findings[10].rule, "vhdx.bat.outside");
}

#[test]
fn wrong_checksums_are_refused_with_the_reason_and_read_leniently() {
    let lenient = ImageOptions { lenient: true, ..ImageOptions::default() };
    for places in [HEADERS.map(|at| at + 4), TABLES.map(|at| at + 4)] {
        let storage = made(&dynamic());
        let want = {
            let image = Image::open_storage(storage.clone(), "test", &ImageOptions::default()).unwrap();
            let mut bytes = vec![0; 4 << 20];
            image.read_at(&mut bytes, 0).unwrap();
            bytes
        };
        storage.patch(places[0], &[0x11; 4]);
        Image::open_storage(storage.clone(), "test", &ImageOptions::default())
            .expect("the other copy serves");
        storage.patch(places[1], &[0x11; 4]);
        let error = Image::open_storage(storage.clone(), "test", &ImageOptions::default()).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::Checksum);
        assert!(error.offset().is_some() && error.hint().is_some());
        let image = Image::open_storage(storage, "test", &lenient).unwrap();
        assert_eq!(image.layers()[0].info.tolerated.len(), 1);
        let mut got = vec![0; 4 << 20];
        image.read_at(&mut got, 0).unwrap();
        assert!(got == want);
    }
}

#[test]
fn headers_of_equal_sequence_open() {
    let storage = made(&Spec { sequences: [3, 3], ..dynamic() });
    Image::open_storage(storage, "test", &ImageOptions::default()).unwrap();
}

/// Opens, maps, reads and checks whatever `storage` holds: nothing may panic, and it must end.
fn exercise(storage: &Arc<CrashStorage>) {
    for lenient in [false, true] {
        let options =
            ImageOptions { lenient, missing_parent: MissingParent::Zero, ..ImageOptions::default() };
        if let Ok(image) = Image::open_storage(storage.clone(), "test", &options) {
            let size = image.virtual_size();
            for extent in image.extents(0, size).take(100_000) {
                let Ok(extent) = extent else { break };
                assert!(extent.length > 0 && extent.end() <= size);
                let mut buf = vec![0; extent.length.min(5000) as usize];
                let _ = image.read_at(&mut buf, extent.offset);
            }
            let mut buf = vec![0; 4096.min(size) as usize];
            let last = size - buf.len() as u64;
            let _ = image.read_at(&mut buf, last);
        }
    }
    if let Ok(report) = check_storage(storage.clone() as Arc<dyn Storage>, "test", &CheckOptions::default()) {
        assert!(report.findings.len() < 1100);
    }
}

/// Offsets where the structures are, so that damage hits something.
fn damaged() -> impl Strategy<Value = Vec<(u64, u8)>> {
    let place = prop_oneof![
        0..600_u64,
        (0..2_usize, 0..80_u64).prop_map(|(copy, at)| HEADERS[copy] + at),
        (0..2_usize, 0..120_u64).prop_map(|(copy, at)| TABLES[copy] + at),
        (0..260_u64).prop_map(|at| METADATA + at),
        (0..1100_u64).prop_map(|at| METADATA + 65536 + at),
        (0..64_u64).prop_map(|at| BAT + at),
        (4096..4100_u64).prop_map(|at| BAT + at * 8),
        0..12 * MIB,
    ];
    prop::collection::vec((place, any::<u8>()), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(parent in any::<bool>(), damage in damaged(), reseal in any::<bool>(), cut in 0..40 * MIB) {
        let storage = made(&if parent { child() } else { dynamic() });
        for (at, byte) in &damage {
            storage.patch(*at, &[*byte]);
        }
        if reseal {
            for base in HEADERS {
                resealed(&storage, base, 4096, 0, &[]);
            }
            for base in TABLES {
                resealed(&storage, base, 65536, 0, &[]);
            }
        }
        if cut < storage.len().unwrap() {
            storage.set_len(cut).unwrap();
        }
        exercise(&storage);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000), sign in any::<bool>()) {
        let storage = CrashStorage::new();
        storage.patch(0, &bytes);
        if sign {
            storage.patch(0, b"vhdxfile");
        }
        exercise(&storage);
    }
}

#[test]
fn every_length_of_a_cut_file_is_handled() {
    let storage = made(&child());
    let mut length = storage.len().unwrap();
    while length > 0 {
        let cut = storage.copy();
        cut.set_len(length).unwrap();
        exercise(&cut);
        length = length.saturating_sub(if length > 5 * MIB { 300_000 } else { 33_333 });
    }
}

#[test]
fn what_the_writer_makes_is_checked_at_any_moment() {
    let storage = CrashStorage::new();
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::dynamic(9 * MIB) };
    let writer = Writer::create(storage.clone(), &options).unwrap();
    for block in 0..9 {
        writer.write_at(&[1; 10], block * MIB).unwrap();
        if block % 3 == 0 {
            writer.checkpoint().unwrap();
        }
        assert!(checked(&storage).findings.is_empty());
    }
}
