//! The writer against a model: every block and sector size, crashes, failures, threads, the largest disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::storage::{CrashStorage, Model};
use uuid::Uuid;
use vhdx::{
    CheckOptions, CreateErrorKind, CreateOptions, DiskKind, ExtentKind, Image, ImageOptions, Storage,
    WriteErrorKind, Writer,
};

const MIB: u64 = 1 << 20;

fn open(storage: &Arc<CrashStorage>) -> Image {
    let storage: Arc<dyn Storage> = storage.clone();
    Image::open_storage(storage, "test", &ImageOptions::default()).unwrap()
}

fn assert_sound(storage: &Arc<CrashStorage>) {
    let storage: Arc<dyn Storage> = storage.clone();
    let report = vhdx::check::check_storage(storage, "test", &CheckOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

fn options(virtual_size: u64, block_size: u32, kind: DiskKind, sector: u32) -> CreateOptions {
    CreateOptions {
        virtual_size,
        block_size,
        logical_sector_size: sector,
        physical_sector_size: 4096,
        kind,
        disk_id: Uuid::from_u128(0x1234),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write { offset: u64, length: usize, byte: u8 },
    Zero { offset: u64, length: u64 },
    Checkpoint,
}

impl Op {
    fn apply(&self, writer: &Writer, model: &mut Model) {
        match self {
            Self::Write { offset, length, byte } => {
                let bytes = content(*byte, *length);
                writer.write_at(&bytes, *offset).unwrap();
                model.write(&bytes, *offset);
            }
            Self::Zero { offset, length } => {
                writer.mark_zero(*offset, *length).unwrap();
                model.zero(*offset, *length);
            }
            Self::Checkpoint => writer.checkpoint().unwrap(),
        }
    }
}

fn content(byte: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| byte.wrapping_add((index / 7) as u8) | 1).collect()
}

/// Operations that cross block borders as often as not.
fn ops(virtual_size: u64, block: u64, count: usize) -> impl Strategy<Value = Vec<Op>> {
    let blocks = virtual_size.div_ceil(block);
    let near = move |at: u64, shift: i64| at.saturating_add_signed(shift).min(virtual_size - 1);
    let offset = (0..blocks, prop_oneof![Just(0), -9000_i64..9000, 0..block as i64])
        .prop_map(move |(number, shift)| near(number * block, shift));
    let write = (offset.clone(), 1_usize..20_000, any::<u8>()).prop_map(move |(offset, length, byte)| {
        Op::Write { offset, length: length.min((virtual_size - offset) as usize), byte }
    });
    let zero = (offset, 1..3 * block)
        .prop_map(move |(offset, length)| Op::Zero { offset, length: length.min(virtual_size - offset) });
    let aligned = (0..blocks, 1..4_u64).prop_map(move |(number, count)| Op::Zero {
        offset: number * block,
        length: (count * block).min(virtual_size - number * block),
    });
    prop::collection::vec(
        prop_oneof![5 => write, 1 => zero, 1 => aligned, 1 => Just(Op::Checkpoint)],
        1..count,
    )
}

fn shape() -> impl Strategy<Value = (CreateOptions, Vec<Op>)> {
    let block = prop_oneof![4 => Just(1_u32), 2 => Just(2), 1 => Just(8)].prop_map(|mib| mib << 20);
    let kind = prop_oneof![3 => Just(DiskKind::Dynamic), 1 => Just(DiskKind::Fixed)];
    (block, kind, prop_oneof![Just(512_u32), Just(4096)], 1..9_u64, 0..64_u64).prop_flat_map(
        |(block, kind, sector, blocks, rest)| {
            let size =
                (u64::from(block) * blocks).saturating_sub(rest * u64::from(sector)).max(u64::from(sector));
            ops(size, u64::from(block), 24).prop_map(move |ops| (options(size, block, kind, sector), ops))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read((options, ops) in shape()) {
        let storage = CrashStorage::new();
        let writer = Writer::create(storage.clone(), &options).unwrap();
        let mut model = Model::default();
        for op in &ops {
            op.apply(&writer, &mut model);
        }
        writer.finish().unwrap();
        assert_sound(&storage);
        let left = storage.after_crash(|| false);
        let image = open(&left);
        prop_assert_eq!(image.virtual_size(), options.virtual_size);
        prop_assert_eq!(image.logical_sector_size(), options.logical_sector_size);
        prop_assert_eq!(image.layers()[0].info.disk_id, options.disk_id);
        prop_assert_eq!(image.layers()[0].info.kind, options.kind);
        model.assert_is(&image);
    }

    #[test]
    fn a_crash_keeps_the_checkpoint_and_resumes(
        (options, ops) in shape(),
        at in 0..24_usize,
        survivors in prop::collection::vec(any::<bool>(), 64),
    ) {
        let storage = CrashStorage::new();
        let writer = Writer::create(storage.clone(), &options).unwrap();
        writer.checkpoint().unwrap();
        let mut model = Model::default();
        let mut safe = model.clone();
        let mut since: Vec<Op> = Vec::new();
        for op in &ops[..at.min(ops.len())] {
            op.apply(&writer, &mut model);
            since.push(op.clone());
            if matches!(op, Op::Checkpoint) {
                safe = model.clone();
                since.clear();
            }
        }
        let mut picks = survivors.iter().copied().cycle();
        let left = storage.after_crash(|| picks.next().unwrap_or(false));
        drop(writer);
        assert_sound(&left);
        // What the checkpoint covered and nobody touched since is there.
        let image = open(&left);
        let (mut got, mut want) = (vec![0; options.virtual_size as usize], vec![0; options.virtual_size as usize]);
        image.read_at(&mut got, 0).unwrap();
        safe.read(&mut want, 0);
        for op in &since {
            let (offset, length) = match op {
                Op::Write { offset, length, .. } => (*offset, *length as u64),
                Op::Zero { offset, length } => (*offset, *length),
                Op::Checkpoint => continue,
            };
            let range = offset as usize..(offset + length) as usize;
            got[range.clone()].fill(0);
            want[range].fill(0);
        }
        prop_assert!(got == want, "the checkpointed content is not there");
        // And the rest can be done again.
        let writer = Writer::resume(left.clone(), &options).unwrap();
        for op in since.iter().chain(&ops[at.min(ops.len())..]) {
            op.apply(&writer, &mut model);
        }
        writer.finish().unwrap();
        assert_sound(&left);
        model.assert_is(&open(&left.after_crash(|| false)));
    }
}

#[test]
fn every_legal_block_size() {
    for mib in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        for sector in [512, 4096] {
            let block = u64::from(mib) * MIB;
            let size = 2 * block + 3 * u64::from(sector);
            let storage = CrashStorage::new();
            let options = options(size, mib << 20, DiskKind::Dynamic, sector);
            let writer = Writer::create(storage.clone(), &options).unwrap();
            let mut model = Model::default();
            for (offset, byte) in [(size - 700, 3), (block - 300, 5), (0, 7)] {
                let bytes = content(byte, 700);
                writer.write_at(&bytes, offset).unwrap();
                model.write(&bytes, offset);
            }
            writer.finish().unwrap();
            assert_sound(&storage);
            let image = open(&storage);
            assert_eq!(image.layers()[0].info.block_size, mib << 20);
            // Blocks lie in the order of their first touch.
            let first = image.locations(2 * block, 1).next().unwrap().unwrap().file_offset.unwrap();
            let second = image.locations(0, 1).next().unwrap().unwrap().file_offset.unwrap();
            assert_eq!(second, first + block);
            let mut bytes = vec![0; 700];
            for offset in [size - 700, block - 300, 0, 5000] {
                image.read_at(&mut bytes, offset).unwrap();
                let mut want = vec![0; 700];
                model.read(&mut want, offset);
                assert_eq!(bytes, want, "{mib} MiB, {sector}, {offset}");
            }
            for extent in image.extents(0, size) {
                extent.unwrap();
            }
        }
    }
}

#[test]
fn options_no_disk_can_have_are_refused() {
    let bad = [
        options(0, 0, DiskKind::Dynamic, 512),
        options((64 << 40) + 512, 0, DiskKind::Dynamic, 512),
        options(1000, 0, DiskKind::Dynamic, 512),
        options(5 * 512, 0, DiskKind::Dynamic, 4096),
        options(MIB, 3 << 20, DiskKind::Dynamic, 512),
        options(MIB, 512 << 10, DiskKind::Dynamic, 512),
        options(MIB, 512 << 20, DiskKind::Dynamic, 512),
        options(MIB, 0, DiskKind::Dynamic, 1024),
        options(MIB, 0, DiskKind::Differencing, 512),
    ];
    for options in bad {
        let error = Writer::create(CrashStorage::new(), &options).unwrap_err();
        assert_eq!(error.kind(), CreateErrorKind::Option, "{options:?}: {error}");
    }
    let storage = CrashStorage::new();
    storage.patch(0, b"something");
    let error = Writer::create(storage, &CreateOptions::dynamic(MIB)).unwrap_err();
    assert_eq!(error.kind(), CreateErrorKind::NotEmpty);
}

#[test]
fn writes_outside_the_disk_are_refused() {
    let writer = Writer::create(CrashStorage::new(), &CreateOptions::dynamic(MIB)).unwrap();
    for (offset, length) in [(MIB, 1), (MIB - 1, 2), (u64::MAX, 2)] {
        let error = writer.write_at(&vec![1; length], offset).unwrap_err();
        assert_eq!(error.kind(), WriteErrorKind::OutOfRange);
        assert!(writer.mark_zero(offset, length as u64).is_err());
    }
    writer.write_at(&[], MIB).unwrap();
}

#[test]
fn resume_takes_only_what_it_left() {
    let options = options(10 * MIB, 1 << 20, DiskKind::Dynamic, 512);
    let storage = CrashStorage::new();
    Writer::create(storage.clone(), &options).unwrap().checkpoint().unwrap();
    for other in [
        CreateOptions { virtual_size: 11 * MIB, ..options.clone() },
        CreateOptions { block_size: 2 << 20, ..options.clone() },
        CreateOptions { disk_id: Uuid::from_u128(9), ..options.clone() },
        CreateOptions { kind: DiskKind::Fixed, ..options.clone() },
    ] {
        let error = Writer::resume(storage.clone(), &other).unwrap_err();
        assert_eq!(error.kind(), CreateErrorKind::NotResumable);
    }
    let error = Writer::resume(CrashStorage::new(), &options).unwrap_err();
    assert_eq!(error.kind(), CreateErrorKind::NotResumable);
    Writer::resume(storage, &options).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_keeps_the_checkpoint() {
    let options = options(64 * MIB, 1 << 20, DiskKind::Dynamic, 512);
    for fuse in 0..40 {
        let storage = CrashStorage::new();
        let writer = Writer::create(storage.clone(), &options).unwrap();
        writer.write_at(&content(1, 3000), 5 * MIB).unwrap();
        writer.checkpoint().unwrap();
        storage.fail_after(Some(fuse));
        let result = (6..64)
            .try_for_each(|block| {
                writer.write_at(&content(2, 3000), block * MIB)?;
                if block % 8 == 0 { writer.checkpoint() } else { Ok(()) }
            })
            .and_then(|()| writer.finish());
        let error = result.expect_err("the disk is full");
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
        storage.fail_after(None);
        let left = storage.after_crash(|| false);
        assert_sound(&left);
        let mut bytes = vec![0; 3000];
        open(&left).read_at(&mut bytes, 5 * MIB).unwrap();
        assert_eq!(bytes, content(1, 3000));
    }
}

#[test]
fn threads_share_a_writer() {
    let size = 64 * MIB + 512;
    let options = options(size, 1 << 20, DiskKind::Dynamic, 512);
    let storage = CrashStorage::new();
    let writer = Writer::create(storage.clone(), &options).unwrap();
    // Pieces of 96 KiB: neighbours in a block come from different threads.
    const PIECE: u64 = 96 << 10;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let writer = &writer;
            scope.spawn(move || {
                for piece in (thread..size / PIECE).step_by(4) {
                    writer.write_at(&content(piece as u8, PIECE as usize), piece * PIECE).unwrap();
                    if piece % 97 == 0 {
                        writer.checkpoint().unwrap();
                    }
                }
            });
        }
    });
    writer.finish().unwrap();
    assert_sound(&storage);
    let image = open(&storage);
    let mut bytes = vec![0; PIECE as usize];
    for piece in 0..size / PIECE {
        image.read_at(&mut bytes, piece * PIECE).unwrap();
        assert!(bytes == content(piece as u8, PIECE as usize), "piece {piece}");
    }
}

#[test]
fn the_largest_disk_is_cheap_where_it_is_empty() {
    let size = 64 << 40;
    for (block_mib, kind) in [(1_u64, DiskKind::Dynamic), (256, DiskKind::Dynamic), (256, DiskKind::Fixed)] {
        let block = block_mib * MIB;
        let ratio = (512 << 23) / block;
        let options = options(size, (block) as u32, kind, 512);
        let storage = CrashStorage::new();
        let writer = Writer::create(storage.clone(), &options).unwrap();
        let mut model = Model::default();
        let last = size / block - 1;
        let blocks = [0, ratio - 1, ratio, ratio + 1, last / 2, last - 1, last];
        for (byte, number) in (1..).zip(blocks) {
            let bytes = content(byte, 4000);
            writer.write_at(&bytes, number * block + 96).unwrap();
            model.write(&bytes, number * block + 96);
        }
        writer.checkpoint().unwrap();
        drop(writer);
        let writer = Writer::resume(storage.clone(), &options).unwrap();
        writer.finish().unwrap();
        assert!(storage.stored() < 32 * MIB, "{} bytes", storage.stored());
        assert_sound(&storage);
        let image = open(&storage);
        let data: u64 = image
            .extents(0, size)
            .map(Result::unwrap)
            .filter(|extent| extent.kind == ExtentKind::Data)
            .map(|extent| extent.length)
            .sum();
        assert_eq!(data, if kind == DiskKind::Fixed { size } else { 7 * block });
        for number in blocks {
            let (mut got, mut want) = (vec![0; 8000], vec![0; 8000]);
            let offset = (number * block).min(size - 8000);
            image.read_at(&mut got, offset).unwrap();
            model.read(&mut want, offset);
            assert_eq!(got, want, "block {number}");
        }
    }
}

#[test]
fn scattered_writes_spill_the_table_in_order() {
    // More table pages than the writer keeps: it must flush on its own, and a crash must leave a valid file.
    let size = 64 << 40;
    let options = options(size, 1 << 20, DiskKind::Dynamic, 512);
    let storage = CrashStorage::new();
    let writer = Writer::create(storage.clone(), &options).unwrap();
    writer.checkpoint().unwrap();
    let before = storage.syncs();
    let step = 1100 * MIB;
    for number in 0..9000 {
        writer.write_at(&[number as u8 | 1], number * step).unwrap();
    }
    assert!(storage.syncs() > before, "it flushed");
    let mut pick = 0_u32;
    let left = storage.after_crash(|| {
        pick = pick.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        pick >> 31 == 0
    });
    assert_sound(&left);
    writer.finish().unwrap();
    let image = open(&storage);
    for number in 0..9000 {
        let mut byte = [0];
        image.read_at(&mut byte, number * step).unwrap();
        assert_eq!(byte[0], number as u8 | 1);
    }
}
