//! Partition tables that `sfdisk` wrote, compared with what `sfdisk` itself reads back, whole and damaged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "each test file uses its part of the support")]
mod support;

use std::path::Path;

use probe::{DiskId, DiskReport, FileDisk, PartitionKind, Table, TypeId};
use support::{lacks, run, sparse, text, write_at};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn probe(path: &Path, sector: u32) -> DiskReport {
    probe::probe(&FileDisk::open(path).unwrap(), sector).unwrap()
}

fn ids(report: &DiskReport) -> Vec<&'static str> {
    report.notes.iter().map(|note| note.id).collect()
}

/// Number, first byte and length of each partition, as `sfdisk --dump` tells them.
fn sfdisk_says(path: &Path) -> Vec<(u32, u64, u64)> {
    let field = |line: &str, name: &str| -> u64 {
        line.split_once(name).unwrap().1.trim_start().split(',').next().unwrap().trim().parse().unwrap()
    };
    run("sfdisk", &["--dump", text(path)], "")
        .lines()
        .filter(|line| line.starts_with(text(path)))
        .map(|line| {
            let number = line[text(path).len()..].split_whitespace().next().unwrap().parse().unwrap();
            (number, field(line, "start=") * 512, field(line, "size=") * 512)
        })
        .collect()
}

fn ours(report: &DiskReport) -> Vec<(u32, u64, u64)> {
    let mut all: Vec<_> = report.partitions.iter().map(|p| (p.index, p.offset, p.length)).collect();
    all.sort_unstable();
    all
}

fn gpt_disk(directory: &TempDir) -> std::path::PathBuf {
    let disk = directory.path().join("disk.raw");
    sparse(&disk, 64 * MIB);
    run(
        "sfdisk",
        &["-q", text(&disk)],
        "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n\
         size=8MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI \u{fc}\", uuid=AAAAAAAA-0000-0000-0000-000000000001\n\
         size=1MiB, type=21686148-6449-6E6F-744E-656564454649, attrs=LegacyBIOSBootable\n\
         size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n\
         type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n",
    );
    disk
}

#[test]
fn gpt_is_read_as_sfdisk_reads_it() {
    if lacks(&["sfdisk"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = gpt_disk(&directory);
    let report = probe(&disk, 512);
    assert_eq!(report.table, Table::Gpt);
    assert_eq!(ours(&report), sfdisk_says(&disk));
    assert_eq!(report.disk_id, Some(DiskId::Gpt("11111111-2222-3333-4444-555555555555".parse().unwrap())));
    assert_eq!(
        report.partitions.iter().map(|p| p.kind).collect::<Vec<_>>(),
        [
            PartitionKind::EfiSystem,
            PartitionKind::BiosBoot,
            PartitionKind::MicrosoftReserved,
            PartitionKind::Linux
        ]
    );
    let esp = &report.partitions[0];
    assert_eq!(esp.name.as_deref(), Some("EFI \u{fc}"));
    assert_eq!(esp.partition_id, Some("aaaaaaaa-0000-0000-0000-000000000001".parse().unwrap()));
    assert_eq!(report.bios.active, Some(2));
    assert_eq!(ids(&report), ["esp-not-fat"]);
}

#[test]
fn backup_gpt_stands_in() {
    if lacks(&["sfdisk"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = gpt_disk(&directory);
    let whole = probe(&disk, 512);
    for (what, offset) in [("header", 512 + 57), ("entries", 1024 + 3)] {
        let original = std::fs::read(&disk).unwrap();
        write_at(&disk, offset, &[original[usize::try_from(offset).unwrap()] ^ 1]);
        let report = probe(&disk, 512);
        assert_eq!(report.partitions, whole.partitions, "{what}");
        assert_eq!(ids(&report), ["gpt-backup-used", "esp-not-fat"], "{what}");
        std::fs::write(&disk, original).unwrap();
    }
    // The primary is gone altogether, and the disk grew since.
    write_at(&disk, 512, &[0; 512]);
    assert_eq!(ids(&probe(&disk, 512)), ["gpt-backup-used", "esp-not-fat"]);
    // Both are damaged: no table is made up.
    write_at(&disk, 64 * MIB - 512 + 20, b"x");
    let report = probe(&disk, 512);
    assert_eq!((report.table, report.partitions.len()), (Table::Gpt, 0));
    assert!(ids(&report).contains(&"gpt-damaged"), "{:?}", report.notes);
}

#[test]
fn gpt_of_a_disk_that_grew_or_shrank() {
    if lacks(&["sfdisk"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = gpt_disk(&directory);
    let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.set_len(80 * MIB).unwrap();
    assert!(ids(&probe(&disk, 512)).contains(&"gpt-backup-not-at-end"));
    // With a damaged primary the backup is found where the primary points.
    write_at(&disk, 512 + 100, b"");
    write_at(&disk, 512 + 56, b"\xff");
    assert!(ids(&probe(&disk, 512)).contains(&"gpt-backup-used"));
    write_at(&disk, 512 + 56, b"\x11");
    file.set_len(60 * MIB).unwrap();
    let report = probe(&disk, 512);
    assert!(ids(&report).contains(&"gpt-backup-outside"), "{:?}", report.notes);
    assert!(ids(&report).contains(&"partition-past-end"), "{:?}", report.notes);
}

#[test]
fn table_for_the_other_sector_size_is_told() {
    if lacks(&["sfdisk"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = gpt_disk(&directory);
    let report = probe(&disk, 4096);
    assert_eq!((report.table, report.sector_size), (Table::Gpt, 512));
    assert!(ids(&report).contains(&"sector-size"));
    assert_eq!(report.partitions, probe(&disk, 512).partitions);
}

#[test]
fn mbr_with_logical_partitions() {
    if lacks(&["sfdisk"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let disk = directory.path().join("disk.raw");
    sparse(&disk, 64 * MIB);
    run(
        "sfdisk",
        &["-q", text(&disk)],
        "label: dos\nlabel-id: 0x51ab0001\nsize=8MiB, type=7, bootable\nsize=8MiB, type=ef\nsize=40MiB, type=5\n\
         5: size=2MiB, type=82\n6: size=3MiB, type=83\n7: size=4MiB, type=8e\n",
    );
    let report = probe(&disk, 512);
    assert_eq!((report.table, report.disk_id), (Table::Mbr, Some(DiskId::Mbr(0x51ab_0001))));
    let mut expected = sfdisk_says(&disk);
    // The extended partition is only a frame.
    expected.retain(|(number, _, _)| *number != 3);
    assert_eq!(expected.len(), 5);
    assert_eq!(ours(&report), expected);
    assert_eq!(report.partitions[0].type_id, TypeId::Mbr(7));
    assert_eq!(report.bios.active, Some(1));
    assert!(!report.bios_bootable, "no boot code: {}", report.bios.reason);

    // A chain of boot records that runs in a circle ends: the second's link points back to the first.
    let second = report.partitions[3].offset - MIB;
    write_at(&disk, second + 446 + 16 + 8, &[0; 4]);
    let report = probe(&disk, 512);
    assert!(ids(&report).contains(&"ebr-loop"), "{:?}", report.notes);
}

/// A GPT written by hand: `sfdisk` has no option for the sector size of a file.
fn hand_made_gpt(sector: usize, entry_size: usize) -> Vec<u8> {
    let mut disk = vec![0; 16 << 20];
    let last = disk.len() / sector - 1;
    disk[446 + 4] = 0xee;
    disk[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    disk[510..512].copy_from_slice(b"\x55\xaa");
    let mut table = vec![0; 4 * entry_size];
    // The third of four slots.
    let entry = &mut table[2 * entry_size..][..128];
    let linux = uuid::uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
    entry[..16].copy_from_slice(&linux.to_bytes_le());
    entry[16..32].fill(7);
    entry[32..40].copy_from_slice(&256_u64.to_le_bytes());
    entry[40..48].copy_from_slice(&511_u64.to_le_bytes());
    for (at, other, entries) in [(1, last, 2), (last, 1, last - 32)] {
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (field, value) in [(24, at), (32, other), (40, 34), (48, last - 33), (72, entries)] {
            header[field..field + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        header[80] = 4;
        header[84..88].copy_from_slice(&u32::try_from(entry_size).unwrap().to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[at * sector..][..92].copy_from_slice(&header);
        disk[entries * sector..][..table.len()].copy_from_slice(&table);
    }
    disk
}

#[test]
fn gpt_of_both_sector_sizes_and_of_larger_entries() {
    for (sector, entry_size) in [(512, 128), (4096, 128), (4096, 256)] {
        let mut disk = hand_made_gpt(sector, entry_size);
        let asked = u32::try_from(sector).unwrap();
        for damaged in [false, true] {
            if damaged {
                disk[sector + 60] ^= 1;
            }
            let report = probe::probe(&disk, asked).unwrap();
            assert_eq!((report.table, report.sector_size), (Table::Gpt, asked));
            let sector = sector as u64;
            assert_eq!(ours(&report), [(3, 256 * sector, 256 * sector)]);
            assert_eq!(ids(&report), if damaged { vec!["gpt-backup-used"] } else { vec![] });
        }
    }
    // Sizes beyond all measure are damage, not allocations.
    let mut disk = hand_made_gpt(512, 128);
    for at in [512, disk.len() - 512] {
        disk[at + 80..at + 88].fill(0xff);
        disk[at + 16..at + 20].fill(0);
        let crc = crc32fast::hash(&disk[at..at + 92]);
        disk[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
    }
    assert_eq!(ids(&probe::probe(&disk, 512).unwrap()), ["gpt-crc", "gpt-damaged"]);
}
