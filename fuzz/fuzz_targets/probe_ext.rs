//! Any ext volume: the input's first bytes choose the superblock's numbers, the rest is laid down as blocks, so that few
//! bytes reach inodes, extent trees and directories.

#![no_main]

use libfuzzer_sys::fuzz_target;

const SIZE: usize = 256 << 10;
const BLOCK: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((head, mut data)) = data.split_first_chunk::<4>() else { return };
    let mut disk = vec![0_u8; SIZE];
    let superblock = &mut disk[1024..2048];
    superblock[0..4].copy_from_slice(&64_u32.to_le_bytes());
    superblock[4..8].copy_from_slice(&256_u32.to_le_bytes());
    superblock[20] = 1;
    superblock[32..36].copy_from_slice(&8192_u32.to_le_bytes());
    superblock[40..44].copy_from_slice(&64_u32.to_le_bytes());
    superblock[56..58].copy_from_slice(&0xef53_u16.to_le_bytes());
    superblock[76] = 1;
    superblock[88] = 128;
    superblock[96] = 0x42 ^ head[0];
    superblock[24] = head[1] & 7;
    superblock[254] = head[2];
    superblock[4] ^= head[3];
    // The table of inodes begins at block 3.
    disk[2 * BLOCK + 8] = 3;
    while let Some((&[block, step, length, more], rest)) = data.split_first_chunk() {
        let at = (usize::from(block) * BLOCK + usize::from(step) * 4).min(SIZE);
        let length = (usize::from(length) | usize::from(more & 3) << 8).min(rest.len()).min(SIZE - at);
        let (piece, rest) = rest.split_at(length);
        disk[at..at + length].copy_from_slice(piece);
        data = rest;
    }
    let report = probe::probe(&disk, 512).expect("content never makes a probe fail");
    assert!(report.kernels.len() <= probe::limits::MAX_KERNELS);
    let budget = probe::Budget::new(4 << 20);
    if let Ok(Some(volume)) = probe::ext::Volume::open(&disk, 0, SIZE as u64, &budget) {
        for entry in volume.root().unwrap_or_default() {
            let _ = volume.read_file(&entry, 100_000);
            let _ = volume.directory(&entry);
        }
    }
});
