//! A VHDX file by anybody: opened strictly and leniently, mapped, read and checked.
//!
//! A whole file is megabytes of nothing, so the input is either a file (when it begins with the signature) or a list of
//! patches to a small sound one: place, offset, length, bytes. Checksums are made right again, or no patch would be
//! looked at.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vhdx::check::check_storage;
use vhdx::{CheckOptions, CreateOptions, Image, ImageOptions, MemoryStorage, MissingParent, Storage, Writer};

const MIB: usize = 1 << 20;
/// Header copies, region tables, log, metadata table and items, block allocation table, its first bitmap entry.
const PLACES: [usize; 10] = [
    64 << 10,
    128 << 10,
    192 << 10,
    256 << 10,
    MIB,
    MIB + 4096,
    2 * MIB,
    2 * MIB + (64 << 10),
    3 * MIB,
    3 * MIB + 4096 * 8,
];

/// A sound file of three blocks, two of them there.
fn sound() -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::default());
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::dynamic(5 << 19) };
    let writer = Writer::create(storage.clone(), &options).expect("these options are legal");
    writer.write_at(b"block 0", 0).expect("memory takes it");
    writer.write_at(b"block 2", 2 << 20).expect("memory takes it");
    writer.finish().expect("memory takes it");
    let mut bytes = storage.snapshot();
    // The log entry's frame, for patches to fill.
    bytes[MIB..MIB + 4].copy_from_slice(b"loge");
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

fn seal(bytes: &mut [u8], start: usize, length: usize) {
    if let Some(part) = bytes.get_mut(start..start + length) {
        part[4..8].fill(0);
        let crc = crc32c(part);
        part[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn patched(mut data: &[u8]) -> Vec<u8> {
    let mut bytes = sound();
    while let [place, low, high, length, rest @ ..] = data {
        let start = PLACES[usize::from(*place) % PLACES.len()] + usize::from(u16::from_le_bytes([*low, *high]) & 0x1fff);
        let (patch, after) = rest.split_at(usize::from(*length).min(rest.len()));
        if let Some(target) = bytes.get_mut(start..start + patch.len()) {
            target.copy_from_slice(patch);
        }
        data = after;
    }
    for start in &PLACES[..2] {
        seal(&mut bytes, *start, 4096);
    }
    // The region tables are read in spite of their checksums when lenient; sealing 128 KiB each time is slow.
    let entry = MIB + 8;
    let length = u32::from_le_bytes([bytes[entry], bytes[entry + 1], bytes[entry + 2], bytes[entry + 3]]) as usize;
    if (4096..=32768).contains(&length) {
        seal(&mut bytes, MIB, length);
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let bytes = if data.starts_with(b"vhdxfile") { data.to_vec() } else { patched(data) };
    for lenient in [false, true] {
        let options = ImageOptions { lenient, missing_parent: MissingParent::Zero, ..Default::default() };
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes.clone()));
        let Ok(image) = Image::open_storage(storage, "fuzz", &options) else { continue };
        let size = image.virtual_size();
        let mut buf = vec![0; size.min(MIB as u64) as usize];
        let _ = image.read_at(&mut buf, 0);
        let last = size - buf.len() as u64;
        let _ = image.read_at(&mut buf, last);
        let mut at = 0;
        for extent in image.extents(0, size).take(4096) {
            let Ok(extent) = extent else { break };
            assert_eq!(extent.offset, at);
            assert!(extent.length > 0 && extent.end() <= size);
            at = extent.end();
        }
    }
    let _ = check_storage(Arc::new(MemoryStorage::new(bytes)), "fuzz", &CheckOptions::default());
});
