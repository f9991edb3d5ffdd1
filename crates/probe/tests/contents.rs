//! What `mkfs` and its kin make is recognised, and so are signatures put down by hand where no program is at hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "each test file uses its part of the support")]
mod support;

use std::path::Path;

use probe::{Content, FileDisk, GuestGuess, Partition, PartitionKind};
use support::{lacks, run, sparse, text};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// The whole disk as one partition, and the guess.
fn look(path: &Path) -> (Partition, GuestGuess) {
    let report = probe::probe(&FileDisk::open(path).unwrap(), 512).unwrap();
    assert_eq!(report.partitions.len(), 1, "{report:?}");
    assert_eq!(report.partitions[0].kind, PartitionKind::WholeDisk);
    (report.partitions[0].clone(), report.guest)
}

fn made(size: u64, program: &str, options: &[&str]) -> Option<(Partition, GuestGuess)> {
    if lacks(&[program]) {
        return None;
    }
    let directory = TempDir::new().unwrap();
    let disk = directory.path().join("disk.raw");
    sparse(&disk, size);
    run(program, &[options, &[text(&disk)]].concat(), "");
    Some(look(&disk))
}

fn expect(
    found: Option<(Partition, GuestGuess)>,
    content: Content,
    version: Option<&str>,
    label: Option<&str>,
) {
    let Some((partition, _)) = found else { return };
    assert_eq!((partition.content, partition.version, partition.label.as_deref()), (content, version, label));
}

#[test]
fn ext() {
    for version in ["ext2", "ext3", "ext4"] {
        let found = made(16 * MIB, "mke2fs", &["-q", "-F", "-t", version, "-L", "my root"]);
        expect(found, Content::Ext, Some(version), Some("my root"));
    }
}

#[test]
fn fat() {
    for (width, size) in [("12", 4), ("16", 32), ("32", 64)] {
        let found = made(size * MIB, "mkfs.vfat", &["-F", width, "-n", "MYDISK"]);
        expect(found, Content::Fat, Some(&format!("FAT{width}")), Some("MYDISK"));
    }
    // Fewer clusters than the rule asks of FAT32, as small system partitions have.
    expect(made(8 * MIB, "mkfs.vfat", &["-F", "32"]), Content::Fat, Some("FAT32"), None);
}

#[test]
fn others() {
    expect(made(320 * MIB, "mkfs.xfs", &["-q", "-L", "data"]), Content::Xfs, None, Some("data"));
    expect(made(128 * MIB, "mkfs.btrfs", &["-q", "-L", "data"]), Content::Btrfs, None, Some("data"));
    expect(made(16 * MIB, "mkfs.ntfs", &["-q", "-F", "-f"]), Content::Ntfs, None, None);
    expect(made(16 * MIB, "mkswap", &["-q", "-L", "swap1"]), Content::Swap, None, Some("swap1"));
}

#[test]
fn luks() {
    if lacks(&["cryptsetup"]) {
        return;
    }
    for version in ["luks1", "luks2"] {
        let directory = TempDir::new().unwrap();
        let disk = directory.path().join("disk.raw");
        sparse(&disk, 32 * MIB);
        let kind = ["--type", version];
        let cheap = if version == "luks1" {
            ["--iter-time", "1", "--hash", "sha256"].as_slice()
        } else {
            ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"].as_slice()
        };
        let format = ["luksFormat", "-q", "--key-file", "-", text(&disk)];
        run("cryptsetup", &[&format[..1], &kind, cheap, &format[1..]].concat(), "secret");
        let (partition, guest) = look(&disk);
        assert_eq!(partition.content, Content::Luks);
        assert_eq!(partition.version.map(str::to_lowercase).as_deref(), Some(version));
        assert_eq!(guest, GuestGuess::Linux);
        if version == "luks2" {
            // The second header stands in.
            support::write_at(&disk, 0, &[0; 4096]);
            assert_eq!(look(&disk).0.content, Content::Luks);
        }
    }
}

#[test]
fn by_signature() {
    let put = |pieces: &[(usize, &[u8])]| {
        let mut disk = vec![0; 2 << 20];
        for (at, bytes) in pieces {
            disk[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let report = probe::probe(&disk, 512).unwrap();
        report.partitions.first().map(|p| (p.content, p.version, report.guest))
    };
    let guid =
        [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
    let windows = GuestGuess::Windows;
    let linux = GuestGuess::Linux;
    assert_eq!(put(&[(0, b"\xeb\x58\x90-FVE-FS-")]), Some((Content::BitLocker, None, windows)));
    assert_eq!(
        put(&[(0, b"\xeb\x58\x90MSWIN4.1"), (424, &guid), (510, b"\x55\xaa")]),
        Some((Content::BitLocker, Some("To Go"), windows))
    );
    assert_eq!(put(&[(3, b"ReFS\0\0\0\0")]), Some((Content::Refs, None, windows)));
    assert_eq!(put(&[(3, b"EXFAT   ")]), Some((Content::ExFat, None, GuestGuess::Unknown)));
    let label = [b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice(), b"LVM2 001"].concat();
    assert_eq!(put(&[(512, &label)]), Some((Content::Lvm, Some("LVM2"), linux)));
    assert_eq!(put(&[(1024, &label)]), None, "a label that belongs to another sector");
    assert_eq!(put(&[(0x1_0040, b"_BHRfS_M")]), Some((Content::Btrfs, None, linux)));
    assert_eq!(put(&[(0x8001, b"CD001")]), Some((Content::Iso9660, None, GuestGuess::Unknown)));
    assert_eq!(put(&[(4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0")]), Some((Content::LinuxRaid, Some("1.2"), linux)));
    assert_eq!(
        put(&[((2 << 20) - 65536, b"\xfc\x4e\x2b\xa9\0\0\0\0")]),
        Some((Content::LinuxRaid, Some("0.90"), linux))
    );
    assert_eq!(put(&[]), None);
    assert_eq!(put(&[(7, b"something")]), None);
}
