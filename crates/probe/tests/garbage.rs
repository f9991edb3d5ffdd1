//! Nothing a disk holds makes the probe panic, fail or read without end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::cell::Cell;

use probe::{Partition, ReadAt, Table, limits};
use proptest::prelude::*;

/// A disk that counts what is read of it.
struct Counting<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
}

impl ReadAt for Counting<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read.set(self.read.get() + buf.len() as u64);
        self.bytes.read_at(buf, offset)
    }
}

fn survives(bytes: &[u8], sector: u32) -> Vec<Partition> {
    let disk = Counting { bytes, read: Cell::new(0) };
    let report = probe::probe(&disk, sector).unwrap();
    assert!(report.partitions.len() <= limits::MAX_PARTITIONS);
    assert!(report.efi_loaders.len() <= limits::MAX_LOADERS);
    assert!(report.efi_loaders.iter().all(|loader| report.partition_of(loader).is_some()));
    let per_partition = 512 << 10;
    assert!(
        disk.read.get() <= limits::MAX_VOLUME_READ + (report.partitions.len() as u64 + 32) * per_partition
    );
    report.partitions
}

/// A FAT16 volume of 8 MiB whose directories and table are left to the caller.
fn fat16(disk: &mut [u8], at: usize) {
    let boot = &mut disk[at..at + 512];
    boot[..3].copy_from_slice(b"\xeb\x3c\x90");
    boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
    boot[13] = 1;
    boot[14..16].copy_from_slice(&1_u16.to_le_bytes());
    boot[16] = 1;
    boot[17..19].copy_from_slice(&512_u16.to_le_bytes());
    boot[19..21].copy_from_slice(&16384_u16.to_le_bytes());
    boot[21] = 0xf8;
    boot[22..24].copy_from_slice(&64_u16.to_le_bytes());
    boot[510..512].copy_from_slice(b"\x55\xaa");
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; 32] {
    let mut raw = [0; 32];
    raw[..11].copy_from_slice(name);
    raw[11] = attributes;
    raw[26..28].copy_from_slice(&cluster.to_le_bytes());
    raw[28..32].copy_from_slice(&size.to_le_bytes());
    raw
}

#[test]
fn circles_in_fat_end() {
    let mut disk = vec![0; 8 << 20];
    fat16(&mut disk, 0);
    let (table, root, data) = (512, 512 * 65, 512 * 97);
    disk[root..root + 32].copy_from_slice(&entry(b"EFI        ", 0x10, 2, 0));
    // \EFI is its own only child, many times over, and its chain runs in a circle.
    for i in 0..16 {
        disk[data + i * 32..data + i * 32 + 32].copy_from_slice(&entry(b"BOOT       ", 0x10, 2, 0));
    }
    disk[table + 4..table + 6].copy_from_slice(&2_u16.to_le_bytes());
    let report = probe::probe(&disk, 512).unwrap();
    assert_eq!((report.table, report.partitions.len()), (Table::None, 1));
    assert!(report.efi_loaders.is_empty());
    survives(&disk, 512);

    // A loader whose chain leads nowhere is listed, cut short.
    disk[data..data + 512].fill(0);
    disk[data..data + 32].copy_from_slice(&entry(b"BOOT       ", 0x10, 3, 0));
    disk[table + 4..table + 8].copy_from_slice(b"\xff\xff\xff\xff");
    disk[data + 512..data + 544].copy_from_slice(&entry(b"BOOTX64 EFI", 0x20, 0x7fff, u32::MAX));
    let report = probe::probe(&disk, 512).unwrap();
    assert!(report.has_fallback_loader(), "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_metadata(seed in proptest::collection::vec(any::<u8>(), 4096), at in 0_usize..4, sector in 0..2) {
        let mut disk = vec![0; 2 << 20];
        for (i, byte) in disk.iter_mut().enumerate().take(256 << 10) {
            *byte = seed[(i * 31 + i / 4096) % seed.len()];
        }
        match at {
            0 => {}
            1 => fat16(&mut disk, 0),
            2 => {
                disk[446..510].iter_mut().step_by(16).for_each(|status| *status &= 0x80);
                disk[510..512].copy_from_slice(b"\x55\xaa");
            }
            _ => {
                disk[446] = 0;
                disk[450] = 0xee;
                disk[510..512].copy_from_slice(b"\x55\xaa");
                disk[512..520].copy_from_slice(b"EFI PART");
            }
        }
        survives(&disk, if sector == 0 { 512 } else { 4096 });
    }

    #[test]
    fn random_fat(table in proptest::collection::vec(0_u16..64, 64), names in proptest::collection::vec((0_usize..6, 0_u16..64), 1..64)) {
        let mut disk = vec![0; 8 << 20];
        fat16(&mut disk, 0);
        for (i, next) in table.iter().enumerate() {
            disk[512 + i * 2..514 + i * 2].copy_from_slice(&next.to_le_bytes());
        }
        let known: [&[u8; 11]; 6] =
            [b"EFI        ", b"BOOT       ", b"BOOTX64 EFI", b"MICROS~1   ", b"GRUBX64 EFI", b"DEBIAN     "];
        for (i, (name, cluster)) in names.iter().enumerate() {
            let attributes = if *name == 2 || *name == 4 { 0x20 } else { 0x10 };
            let raw = entry(known[*name], attributes, *cluster, 4096);
            disk[512 * 65 + i * 32..][..32].copy_from_slice(&raw);
            disk[512 * 97 + i * 32 * 7 % (1 << 14)..][..32].copy_from_slice(&raw);
        }
        survives(&disk, 512);
    }

    #[test]
    fn random_ext(inodes in proptest::collection::vec((2_u32..16, 0_u16..3, any::<[u8; 60]>()), 1..16), blocks in proptest::collection::vec((3_usize..64, proptest::collection::vec(0_u8..40, 512)), 1..32)) {
        let mut disk = vec![0_u8; 256 << 10];
        let block = &mut disk[1024..2048];
        for (at, value) in [(0, 64_u32), (4, 256), (20, 1), (32, 8192), (40, 64), (76, 1), (88, 128), (96, 0x42)] {
            block[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        block[56..58].copy_from_slice(&0xef53_u16.to_le_bytes());
        disk[2048 + 8] = 3;
        for (at, bytes) in blocks {
            disk[at * 1024..at * 1024 + bytes.len()].copy_from_slice(&bytes);
        }
        for (n, shape, map) in inodes {
            let inode = &mut disk[3072 + (n as usize - 1) * 128..][..128];
            inode[0..2].copy_from_slice(&[0xed, if n % 3 == 2 { 0x41 } else { 0x81 }]);
            inode[4..8].copy_from_slice(&[0, map[0], map[1] & 0x1f, 0]);
            inode[40..100].copy_from_slice(&map);
            if shape > 0 {
                // An extent tree of one level or none, whose blocks lie anywhere.
                inode[34] = 8;
                inode[40..48].copy_from_slice(&[0x0a, 0xf3, 4, 0, 4, 0, shape as u8 - 1, 0]);
                inode.iter_mut().skip(52).step_by(4).take(12).for_each(|byte| *byte &= 0x3f);
            }
        }
        survives(&disk, 512);
    }

    #[test]
    fn any_length(length in 0_usize..5000, byte in any::<u8>()) {
        survives(&vec![byte; length], 512);
    }
}
