//! Any disk: the input is a list of pieces put down on a disk of a few MiB, so that few bytes reach every structure.

#![no_main]

use libfuzzer_sys::fuzz_target;

const SIZE: usize = 4 << 20;
/// Where structures are: boot records, GPT copies, superblocks, and FAT's tables and directories.
const PLACES: [usize; 16] = [
    0,
    446,
    512,
    1024,
    4096,
    8192,
    0x8000,
    0x1_0000,
    1 << 20,
    (1 << 20) + 512,
    (1 << 20) + 0x1000,
    (1 << 20) + 0x4000,
    SIZE - 512,
    SIZE - 4096,
    SIZE - 33 * 512,
    SIZE - (64 << 10),
];

fuzz_target!(|data: &[u8]| {
    let Some((&flags, mut data)) = data.split_first() else { return };
    let mut disk = vec![0_u8; SIZE];
    while let Some((&[place, step, length, more], rest)) = data.split_first_chunk() {
        let at = PLACES[usize::from(place) % PLACES.len()] + usize::from(step) * 32;
        let length = (usize::from(length) | usize::from(more & 0xf) << 8).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        let end = (at + length).min(SIZE);
        if at < end {
            disk[at..end].copy_from_slice(&piece[..end - at]);
        }
        data = rest;
    }
    if flags & 2 != 0 {
        // Checksums are no obstacle to whoever makes a disk.
        seal_gpt(&mut disk);
    }
    let sector = if flags & 1 == 0 { 512 } else { 4096 };
    let report = probe::probe(&disk, sector).expect("content never makes a probe fail");
    assert!(report.efi_loaders.iter().all(|loader| report.partition_of(loader).is_some()));
    let _ = report.best_loader();
});

fn seal_gpt(disk: &mut [u8]) {
    for at in [512, 4096, SIZE - 512, SIZE - 4096] {
        let field = |disk: &[u8], at: usize, length: usize| {
            disk[at..at + length].iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
                as usize
        };
        let sector = if at == 512 || at == SIZE - 512 { 512 } else { 4096 };
        let (size, table) = (field(disk, at + 12, 4), field(disk, at + 72, 8));
        let length = field(disk, at + 80, 4).saturating_mul(field(disk, at + 84, 4));
        let start = table.saturating_mul(sector);
        if let Some(entries) = start.checked_add(length).and_then(|end| disk.get(start..end)) {
            let crc = crc32(entries);
            disk[at + 88..at + 92].copy_from_slice(&crc.to_le_bytes());
        }
        disk[at + 16..at + 20].fill(0);
        if let Some(header) = disk.get(at..at + size.min(sector)) {
            let crc = crc32(header);
            disk[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}
