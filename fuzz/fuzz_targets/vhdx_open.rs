//! A VHDX file by anybody: opened strictly and leniently, mapped, read and checked.
//!
//! A whole file is megabytes of nothing, so the input is either a file (when it begins with the signature) or a list of
//! patches (place, offset, length, bytes) to a small sound disk, dynamic or differencing. The checksums of headers and
//! log entry are made right again, or no patch to them would be looked at.

#![no_main]

use std::io;
use std::sync::{Arc, OnceLock};

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

/// A sound file of three blocks, two of them there; with a log entry's frame for patches to fill.
fn sound() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let storage = Arc::new(MemoryStorage::default());
        let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::dynamic(5 << 19) };
        let writer = Writer::create(storage.clone(), &options).expect("these options are legal");
        writer.write_at(b"block 0", 0).expect("memory takes it");
        writer.write_at(b"block 2", 2 << 20).expect("memory takes it");
        writer.finish().expect("memory takes it");
        storage.snapshot()
    })
}

/// The patches that make the sound file a child with one partially present block.
fn child() -> Vec<(usize, Vec<u8>)> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let texts =
        ["parent_linkage", "{00000000-0000-0000-0000-000000000001}", "relative_path", ".\\p.vhdx"].map(utf16);
    let mut locator =
        vec![0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13];
    locator.extend([0, 0, 2, 0]);
    let mut at = 20 + 24_u32;
    for pair in texts.chunks(2) {
        let (key, value) = (pair[0].len() as u32, pair[1].len() as u32);
        locator.extend(at.to_le_bytes());
        locator.extend((at + key).to_le_bytes());
        locator.extend((key as u16).to_le_bytes());
        locator.extend((value as u16).to_le_bytes());
        at += key + value;
    }
    locator.extend(texts.concat());
    let mut entry =
        vec![0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c];
    entry.extend((65536 + 40_u32).to_le_bytes());
    entry.extend((locator.len() as u32).to_le_bytes());
    entry.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        (2 * MIB + 10, vec![6]),
        (2 * MIB + 32 + 5 * 32, entry),
        (2 * MIB + 65536 + 4, vec![2]),
        (2 * MIB + 65536 + 40, locator),
        // Block 0 is partial, block 2's place is the bitmap.
        (3 * MIB, vec![7]),
        (3 * MIB + 16, vec![0; 8]),
        (3 * MIB + 4096 * 8, vec![6, 0, 0x50]),
        (5 * MIB, vec![0b1010_0110, 0xff, 0, 0xff]),
    ]
}

/// The sound file as changed.
#[derive(Debug, Clone)]
struct Patched {
    patches: Vec<(usize, Vec<u8>)>,
}

impl Patched {
    fn new(data: &[u8]) -> Self {
        let Some((&choice, mut data)) = data.split_first() else { return Self { patches: Vec::new() } };
        let mut file = Self { patches: if choice & 1 == 1 { child() } else { Vec::new() } };
        while let [place, low, high, length, rest @ ..] = data {
            let within = usize::from(u16::from_le_bytes([*low, *high]) & 0x1fff);
            let (patch, after) = rest.split_at(usize::from(*length).min(rest.len()));
            file.patches.push((PLACES[usize::from(*place) % PLACES.len()] + within, patch.to_vec()));
            data = after;
        }
        for start in &PLACES[..2] {
            file.seal(*start, 4096);
        }
        let entry = file.get(MIB, 12);
        let length = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]) as usize;
        if entry.starts_with(b"loge") && (4096..=32768).contains(&length) {
            file.seal(MIB, length);
        }
        file
    }

    fn get(&self, start: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, start as u64).expect("inside the file");
        bytes
    }

    fn seal(&mut self, start: usize, length: usize) {
        let mut bytes = self.get(start, length);
        bytes[4..8].fill(0);
        let crc = !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(
                crc ^ u32::from(*byte),
                |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
            )
        });
        self.patches.push((start + 4, crc.to_le_bytes().to_vec()));
    }
}

impl Storage for Patched {
    fn len(&self) -> io::Result<u64> {
        Ok(sound().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(sound().get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, bytes) in &self.patches {
            let (from, to) = ((*at).max(start), (at + bytes.len()).min(end));
            if from < to {
                buf[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
            }
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("readers do not write")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("readers do not write")
    }

    fn sync(&self) -> io::Result<()> {
        unreachable!("readers do not write")
    }
}

fuzz_target!(|data: &[u8]| {
    let storage: Arc<dyn Storage> = if data.starts_with(b"vhdxfile") {
        Arc::new(MemoryStorage::new(data.to_vec()))
    } else {
        Arc::new(Patched::new(data))
    };
    for lenient in [false, true] {
        let options = ImageOptions { lenient, missing_parent: MissingParent::Zero, ..Default::default() };
        let Ok(image) = Image::open_storage(Arc::clone(&storage), "fuzz", &options) else { continue };
        let size = image.virtual_size();
        let mut buf = vec![0; size.min(64 << 10) as usize];
        let mut at = 0;
        for extent in image.extents(0, size).take(4096) {
            let Ok(extent) = extent else { break };
            assert_eq!(extent.offset, at);
            assert!(extent.length > 0 && extent.end() <= size);
            at = extent.end();
            let length = buf.len().min((size - extent.offset) as usize).min(4096);
            let _ = image.read_at(&mut buf[..length], extent.offset);
        }
        let _ = image.read_at(&mut buf, 0);
        let last = size - buf.len() as u64;
        let _ = image.read_at(&mut buf, last);
    }
    let _ = check_storage(storage, "fuzz", &CheckOptions::default());
});
