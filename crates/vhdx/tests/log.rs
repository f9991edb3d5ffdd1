//! The log: which entries count, what they do, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use support::build::{BAT, BLOCKS, Block, Entry, HEADERS, LOG, MIB, Spec, build, byte, header, put_log};
use support::storage::CrashStorage;
use uuid::Uuid;
use vhdx::{CheckOptions, Image, ImageOptions, OpenErrorKind, Severity, Storage};

const ID: Uuid = Uuid::from_u128(0x106);

/// A disk of two blocks whose table says that nothing is there, with block 0's payload in place: the log must say so.
fn disk() -> Arc<CrashStorage> {
    let storage = CrashStorage::new();
    let spec = Spec { log: ID, blocks: vec![Block::Full(9)], ..Spec::dynamic(2 * MIB) };
    build(&spec, storage.as_ref());
    storage.patch(BAT, &[0; 4096]);
    storage
}

/// A table sector that says block 0 is at `place`.
fn table(place: u64) -> Vec<u8> {
    let mut sector = (6 | place).to_le_bytes().to_vec();
    sector.resize(4096, 0);
    sector
}

fn entry(sequence: u64, tail: u32, place: u64) -> Entry {
    let last = BLOCKS + MIB;
    Entry { sequence, tail, sectors: vec![(BAT, table(place))], zeros: vec![], flushed: last, last }
}

fn open(storage: &Arc<CrashStorage>, lenient: bool) -> Result<Image, vhdx::OpenError> {
    let storage: Arc<dyn Storage> = storage.clone();
    Image::open_storage(storage, "test", &ImageOptions { lenient, ..ImageOptions::default() })
}

/// The first byte of the disk, and whether the log was pending.
fn first(storage: &Arc<CrashStorage>) -> u8 {
    let image = open(storage, false).unwrap();
    assert!(image.layers()[0].info.log_pending);
    let mut got = vec![0; 2 << 20];
    image.read_at(&mut got, 0).unwrap();
    got[0]
}

fn refused(storage: &Arc<CrashStorage>) -> OpenErrorKind {
    let storage_dyn: Arc<dyn Storage> = storage.clone();
    let report = vhdx::check::check_storage(storage_dyn, "test", &CheckOptions::default()).unwrap();
    assert_eq!(report.worst(), Some(Severity::Error), "check says so too");
    open(storage, false).unwrap_err().kind()
}

#[test]
fn one_entry() {
    let storage = disk();
    put_log(storage.as_ref(), 0, &entry(1, 0, BLOCKS).encode(ID));
    assert_eq!(first(&storage), byte(9, 0));
    let report = vhdx::check::check_storage(storage, "test", &CheckOptions::default()).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.blocks.present, 1);
}

#[test]
fn the_last_of_several_wins_and_zeros_count() {
    let storage = disk();
    storage.patch(BLOCKS + MIB, &[0; 4096]);
    storage.set_len(BLOCKS + 3 * MIB).unwrap();
    storage.patch(BLOCKS + MIB, &[77; 4096]);
    let mut at = 0;
    for (sequence, place) in [(40, BLOCKS), (41, BLOCKS + 2 * MIB), (42, BLOCKS + MIB)] {
        let bytes = entry(sequence, 0, place).encode(ID);
        put_log(storage.as_ref(), at, &bytes);
        at += bytes.len() as u64;
    }
    assert_eq!(first(&storage), 77);
    let zeros = Entry { zeros: vec![(BAT, 8192)], sectors: vec![], ..entry(43, 0, 0) };
    put_log(storage.as_ref(), at, &zeros.encode(ID));
    assert_eq!(first(&storage), 0);
    // Within one entry, later descriptors replace earlier ones.
    let both = Entry { zeros: vec![(BAT, 1 << 20)], ..entry(44, 0, BLOCKS) };
    put_log(storage.as_ref(), at + 4096, &both.encode(ID));
    assert_eq!(first(&storage), byte(9, 0));
}

#[test]
fn a_sequence_wraps_round_the_end() {
    let storage = disk();
    let old = entry(5, 0, BLOCKS + 50 * MIB).encode(ID);
    put_log(storage.as_ref(), 16384, &old);
    // Tail three sectors before the end, so the second entry's data sector lies at the start.
    let tail = (MIB - 3 * 4096) as u32;
    put_log(storage.as_ref(), u64::from(tail), &entry(10, tail, BLOCKS + MIB).encode(ID));
    put_log(storage.as_ref(), u64::from(tail) + 8192, &entry(11, tail, BLOCKS).encode(ID));
    assert_eq!(first(&storage), byte(9, 0));
}

#[test]
fn the_highest_valid_sequence_counts_and_torn_entries_end_it() {
    let storage = disk();
    let torn = |sequence, place| {
        let mut bytes = entry(sequence, 0, place).encode(ID);
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
        bytes
    };
    put_log(storage.as_ref(), 0, &entry(5, 0, BLOCKS).encode(ID));
    put_log(storage.as_ref(), 8192, &torn(6, BLOCKS + 9 * MIB));
    // Of another life of the log, with higher numbers.
    put_log(storage.as_ref(), 65536, &entry(900, 65536, BLOCKS + 9 * MIB).encode(Uuid::from_u128(99)));
    // A sequence whose tail is gone does not count, however high.
    put_log(storage.as_ref(), 131072, &entry(800, 40960, BLOCKS + 9 * MIB).encode(ID));
    assert_eq!(first(&storage), byte(9, 0));
}

#[test]
fn a_log_in_use_without_valid_entries_is_refused_and_read_leniently() {
    let storage = disk();
    assert_eq!(refused(&storage), OpenErrorKind::Log);
    let image = open(&storage, true).unwrap();
    assert_eq!(image.layers()[0].info.tolerated.len(), 1);
    put_log(storage.as_ref(), 0, &entry(5, 4096, BLOCKS).encode(ID));
    assert_eq!(refused(&storage), OpenErrorKind::Log, "the tail leads nowhere");
}

#[test]
fn a_file_shorter_than_the_log_knew_is_refused() {
    let storage = disk();
    put_log(storage.as_ref(), 0, &Entry { flushed: BLOCKS + 2 * MIB, ..entry(1, 0, BLOCKS) }.encode(ID));
    assert_eq!(refused(&storage), OpenErrorKind::Truncated);
}

#[test]
fn replay_extends_the_file() {
    let storage = disk();
    let last = BLOCKS + 5 * MIB;
    put_log(storage.as_ref(), 0, &Entry { last, ..entry(1, 0, BLOCKS + 4 * MIB) }.encode(ID));
    assert_eq!(first(&storage), 0, "what replay adds is zero");
    // A change beyond what the log itself says is no change.
    put_log(
        storage.as_ref(),
        0,
        &Entry { zeros: vec![(last, 4096)], last, ..entry(1, 0, BLOCKS) }.encode(ID),
    );
    assert_eq!(refused(&storage), OpenErrorKind::Invalid);
    let far = Entry { last: 1 << 50, zeros: vec![(1 << 49, 4096)], ..entry(1, 0, BLOCKS) };
    put_log(storage.as_ref(), 0, &far.encode(ID));
    assert!(open(&storage, false).is_err());
}

#[test]
fn long_entries_have_more_than_one_descriptor_sector() {
    let storage = disk();
    let mut sectors: Vec<(u64, Vec<u8>)> =
        (0..200).map(|index| (BAT + 4096 * (200 - index), vec![0; 4096])).collect();
    sectors.push((BAT, table(BLOCKS)));
    put_log(storage.as_ref(), 0, &Entry { sectors, ..entry(1, 0, BLOCKS) }.encode(ID));
    assert_eq!(first(&storage), byte(9, 0));
}

#[test]
fn a_ring_full_of_lies_ends_soon() {
    // Every sector claims to be an entry as long as the log.
    let storage = disk();
    let mut lie = entry(1, 0, BLOCKS).encode(ID)[..4096].to_vec();
    lie[8..12].copy_from_slice(&(MIB as u32).to_le_bytes());
    for sector in 0..256 {
        put_log(storage.as_ref(), sector * 4096, &lie);
    }
    assert!(open(&storage, false).is_err());
}

#[test]
fn on_disk_the_headers_and_the_log_are_never_targets() {
    let dir = tempfile::tempdir().unwrap();
    for (name, target) in [("header", HEADERS[0]), ("log", LOG + 40960)] {
        let path = dir.path().join(name);
        let file = vhdx::FileStorage::create_new(&path).unwrap();
        let spec = Spec { log: ID, blocks: vec![Block::Full(9)], ..Spec::dynamic(2 * MIB) };
        build(&spec, &file);
        let bad = Entry { zeros: vec![(target, 4096)], ..entry(1, 0, BLOCKS) };
        put_log(&file, 0, &bad.encode(ID));
        let before = std::fs::read(&path).unwrap();
        let error = vhdx::replay_log_on_disk(&path).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::Invalid);
        assert!(std::fs::read(&path).unwrap() == before, "nothing was written");
        // Nor does anybody read what such a log would make of the file.
        assert_eq!(Image::open(&path, &ImageOptions::default()).unwrap_err().kind(), OpenErrorKind::Invalid);
    }
}

#[test]
fn a_log_of_more_changes_than_anybody_makes_is_not_kept_in_memory() {
    let storage = disk();
    let zeros = |count: usize| Entry { zeros: vec![(BLOCKS, 4096); count], ..entry(1, 0, BLOCKS) };
    // 1 MiB of log has room for half of what is taken, so a longer one is made.
    let long = zeros(vhdx::limits::MAX_LOG_CHANGES + 1).encode(ID);
    let length = (long.len() as u64).next_multiple_of(MIB);
    let place = storage.len().unwrap();
    storage.set_len(place + length).unwrap();
    storage.patch(place, &long);
    let spec = Spec { log: ID, blocks: vec![Block::Full(9)], ..Spec::dynamic(2 * MIB) };
    let mut head = header(&spec, 9);
    head[68..72].copy_from_slice(&(length as u32).to_le_bytes());
    head[72..80].copy_from_slice(&place.to_le_bytes());
    support::build::seal(&mut head);
    storage.patch(HEADERS[0], &head);
    assert_eq!(refused(&storage), OpenErrorKind::Unsupported);
}

#[test]
fn the_newer_header_decides_whether_there_is_a_log() {
    let storage = disk();
    put_log(storage.as_ref(), 0, &entry(1, 0, BLOCKS).encode(ID));
    let clean = Spec { log: Uuid::nil(), ..Spec::dynamic(2 * MIB) };
    storage.patch(HEADERS[0], &header(&clean, 9));
    let image = open(&storage, false).unwrap();
    assert!(!image.layers()[0].info.log_pending);
    // With a wrong checksum the newer one does not count.
    storage.patch(HEADERS[0] + 100, &[1]);
    assert!(open(&storage, false).unwrap().layers()[0].info.log_pending);
}
