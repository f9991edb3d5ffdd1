//! One function per signature. Each takes the beginning (or the end) of a partition and believes nothing beyond it.

use super::Identified;
use crate::bytes::{be16, has, le16, le32, le64, text};
use crate::fat;
use crate::report::Content;

type Check = fn(&[u8]) -> Option<Identified>;

/// In the order they are asked.
const CHECKS: &[Check] =
    &[bitlocker, luks, lvm, xfs, ntfs_family, raid_head, ext, btrfs, fat_volume, swap, iso9660];

pub(super) fn in_head(head: &[u8]) -> Option<Identified> {
    CHECKS.iter().find_map(|check| check(head))
}

/// GUID of a BitLocker volume header, as stored.
const BITLOCKER_GUID: &[u8] =
    &[0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
/// The same for a volume of which only the used space was encrypted.
const BITLOCKER_USED_SPACE_GUID: &[u8] =
    &[0x3b, 0x4d, 0xa8, 0x92, 0x80, 0xdd, 0x0e, 0x4d, 0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8];

fn bitlocker(head: &[u8]) -> Option<Identified> {
    if has(head, 3, b"-FVE-FS-") {
        return Some(Identified::new(Content::BitLocker, None, None));
    }
    // BitLocker To Go poses as FAT so that old systems offer its reader; its GUID stands where FAT has boot code.
    let to_go = [BITLOCKER_GUID, BITLOCKER_USED_SPACE_GUID].into_iter().any(|guid| has(head, 424, guid));
    to_go.then(|| Identified::new(Content::BitLocker, Some("To Go"), None))
}

fn luks(head: &[u8]) -> Option<Identified> {
    /// Where the second header of LUKS2 can be when the first is damaged.
    const SECOND_AT: [usize; 3] = [0x4000, 0x8000, 0x1_0000];
    let version = |at| match be16(head, at + 6) {
        Some(1) => Some("LUKS1"),
        Some(2) => Some("LUKS2"),
        _ => None,
    };
    if has(head, 0, b"LUKS\xba\xbe") {
        let label = (version(0) == Some("LUKS2")).then(|| head.get(24..72).and_then(text)).flatten();
        return Some(Identified::new(Content::Luks, version(0), label));
    }
    let second = SECOND_AT.into_iter().find(|&at| has(head, at, b"SKUL\xba\xbe"))?;
    Some(Identified::new(Content::Luks, version(second), None))
}

fn lvm(head: &[u8]) -> Option<Identified> {
    // The label may be in any of the first four sectors; it knows its own.
    (0..4_usize)
        .map(|sector| (sector, sector * 512))
        .find(|&(sector, at)| {
            has(head, at, b"LABELONE")
                && le64(head, at + 8) == Some(sector as u64)
                && has(head, at + 24, b"LVM2 001")
        })
        .map(|_| Identified::new(Content::Lvm, Some("LVM2"), None))
}

fn xfs(head: &[u8]) -> Option<Identified> {
    has(head, 0, b"XFSB").then(|| Identified::new(Content::Xfs, None, head.get(108..120).and_then(text)))
}

fn ntfs_family(head: &[u8]) -> Option<Identified> {
    let content = match head.get(3..11)? {
        b"NTFS    " => Content::Ntfs,
        b"EXFAT   " => Content::ExFat,
        b"ReFS\0\0\0\0" => Content::Refs,
        _ => return None,
    };
    Some(Identified::new(content, None, None))
}

const RAID_MAGIC: u32 = 0xa92b_4efc;

fn raid_head(head: &[u8]) -> Option<Identified> {
    let at = [0, 4096]
        .into_iter()
        .find(|&at| le32(head, at) == Some(RAID_MAGIC) && le32(head, at + 4) == Some(1))?;
    let version = if at == 0 { "1.1" } else { "1.2" };
    Some(Identified::new(Content::LinuxRaid, Some(version), head.get(at + 32..at + 64).and_then(text)))
}

/// The RAID superblocks at a partition's end: version 1.0 within its last 12 KiB, 0.90 in its last whole 64 KiB.
pub(super) fn in_tail(tail: &[u8]) -> Option<Identified> {
    (0..tail.len()).step_by(512).find_map(|at| {
        if le32(tail, at) != Some(RAID_MAGIC) {
            return None;
        }
        let version = match le32(tail, at + 4)? {
            0 => "0.90",
            1 => "1.0",
            _ => return None,
        };
        Some(Identified::new(Content::LinuxRaid, Some(version), None))
    })
}

fn ext(head: &[u8]) -> Option<Identified> {
    const SUPERBLOCK: usize = 1024;
    const COMPAT_JOURNAL: u32 = 0x4;
    /// Incompatible features that ext3 knows: compression, file types, recovery, journal device, meta block groups.
    const INCOMPAT_EXT3: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10;
    /// Read-only features that ext3 knows: sparse superblocks, large files, B-tree directories.
    const RO_COMPAT_EXT3: u32 = 0x1 | 0x2 | 0x4;
    const INCOMPAT_JOURNAL_DEVICE: u32 = 0x8;
    let block = head.get(SUPERBLOCK..SUPERBLOCK + 1024)?;
    // Two bytes of magic are weak: the block size and the block count must make sense as well.
    if le16(block, 56)? != 0xef53 || le32(block, 24)? > 6 || le32(block, 4)? == 0 {
        return None;
    }
    let (compat, incompat, ro_compat) = (le32(block, 92)?, le32(block, 96)?, le32(block, 100)?);
    let version = if incompat & INCOMPAT_JOURNAL_DEVICE != 0 {
        "external journal"
    } else if incompat & !INCOMPAT_EXT3 != 0 || ro_compat & !RO_COMPAT_EXT3 != 0 {
        "ext4"
    } else if compat & COMPAT_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    Some(Identified::new(Content::Ext, Some(version), block.get(120..136).and_then(text)))
}

fn btrfs(head: &[u8]) -> Option<Identified> {
    const SUPERBLOCK: usize = 64 << 10;
    has(head, SUPERBLOCK + 64, b"_BHRfS_M").then(|| {
        let label = head.get(SUPERBLOCK + 299..SUPERBLOCK + 299 + 256).and_then(text);
        Identified::new(Content::Btrfs, None, label)
    })
}

fn fat_volume(head: &[u8]) -> Option<Identified> {
    let geometry = fat::Geometry::parse(head)?;
    Some(Identified::new(Content::Fat, Some(geometry.kind().name()), geometry.boot_label(head)))
}

fn swap(head: &[u8]) -> Option<Identified> {
    // The signature ends the first page, whatever a page is on the machine that made it.
    let page = [4096_usize, 8192, 16384, 32768, 65536]
        .into_iter()
        .find(|page| has(head, page - 10, b"SWAPSPACE2") || has(head, page - 10, b"SWAP-SPACE"))?;
    let label =
        has(head, page - 10, b"SWAPSPACE2").then(|| head.get(1024 + 28..1024 + 44).and_then(text)).flatten();
    Some(Identified::new(Content::Swap, None, label))
}

fn iso9660(head: &[u8]) -> Option<Identified> {
    has(head, 0x8001, b"CD001")
        .then(|| Identified::new(Content::Iso9660, None, head.get(0x8028..0x8048).and_then(text)))
}
