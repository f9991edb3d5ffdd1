//! A VHD file by anybody: opened strictly and leniently, mapped, read and checked.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vhdx::check::check_storage;
use vhdx::{CheckOptions, Image, ImageOptions, MemoryStorage, MissingParent};

/// The checksum at `field`, made right: without it no mutation would get past the first test.
fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if choice & 1 != 0 && bytes.len() >= 512 {
        let end = bytes.len() - 512;
        bytes[end..end + 8].copy_from_slice(b"conectix");
        seal(&mut bytes[end..], 64);
        if bytes.len() >= 2048 {
            seal(&mut bytes[512..1536], 36);
        }
    }
    for lenient in [false, true] {
        let options = ImageOptions { lenient, missing_parent: MissingParent::Zero, ..Default::default() };
        let storage = Arc::new(MemoryStorage::new(bytes.clone()));
        let Ok(image) = Image::open_storage(storage, "fuzz", &options) else { continue };
        let size = image.virtual_size();
        let mut buf = vec![0; size.min(64 << 10) as usize];
        let _ = image.read_at(&mut buf, 0);
        let last = size - buf.len() as u64;
        let _ = image.read_at(&mut buf, last);
        let mut at = 0;
        for extent in image.extents(0, size.min(1 << 32)).take(4096) {
            let Ok(extent) = extent else { break };
            assert_eq!(extent.offset, at);
            assert!(extent.length > 0);
            at = extent.end();
        }
    }
    let _ = check_storage(Arc::new(MemoryStorage::new(bytes)), "fuzz", &CheckOptions::default());
});
