//! A FAT volume's dimensions, from its boot sector.

use crate::bytes::{has, le16, le32, text};

/// Width of the allocation table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FatKind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 28 of 32 bits.
    Fat32,
}

impl FatKind {
    /// `FAT12`, `FAT16` or `FAT32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }
}

/// Dimensions of a volume, checked for sense. Offsets are in bytes from the volume's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    kind: FatKind,
    cluster_size: u32,
    table_at: u64,
    root_at: u64,
    root_length: u32,
    root_cluster: u32,
    data_at: u64,
    /// Clusters there are; they count from 2.
    clusters: u32,
}

impl Geometry {
    /// How much of the volume [`Self::parse`] wants to see.
    pub(crate) const SECTOR: usize = 512;
    /// Where FAT12 and FAT16 end; FAT32 is told by its 16-bit table size of zero, as firmware and Linux do, since small
    /// FAT32 volumes exist.
    const MAX_FAT12: u32 = 4084;
    const MAX_FAT16: u32 = 65524;
    const MAX_FAT32: u32 = 0x0fff_fff5;

    /// `None` when the bytes are not a FAT volume's beginning.
    pub(crate) fn parse(sector: &[u8]) -> Option<Self> {
        if !has(sector, 510, &[0x55, 0xaa]) || !matches!(sector.first()?, 0xeb | 0xe9) {
            return None;
        }
        let sector_size = u32::from(le16(sector, 11)?);
        let sectors_per_cluster = u32::from(*sector.get(13)?);
        let reserved = u32::from(le16(sector, 14)?);
        let tables = u32::from(*sector.get(16)?);
        let root_entries = u32::from(le16(sector, 17)?);
        let media = *sector.get(21)?;
        let small_table = u32::from(le16(sector, 22)?);
        let total = match le16(sector, 19)? {
            0 => le32(sector, 32)?,
            small => u32::from(small),
        };
        let table = if small_table == 0 { le32(sector, 36)? } else { small_table };
        let sensible = matches!(sector_size, 512 | 1024 | 2048 | 4096)
            && sectors_per_cluster.is_power_of_two()
            && reserved >= 1
            && matches!(tables, 1..=4)
            && (media == 0xf0 || media >= 0xf8)
            && table >= 1;
        if !sensible {
            return None;
        }
        let root_length = root_entries * 32;
        let root_sector = reserved.checked_add(tables.checked_mul(table)?)?;
        let data_sector = root_sector.checked_add(root_length.div_ceil(sector_size))?;
        let room = total.checked_sub(data_sector)? / sectors_per_cluster;
        let root_cluster = le32(sector, 44)?;
        let kind = match (small_table, room) {
            (0, _) if root_entries == 0 && root_cluster >= 2 => FatKind::Fat32,
            (0, _) => return None,
            (_, ..=Self::MAX_FAT12) => FatKind::Fat12,
            (_, ..=Self::MAX_FAT16) => FatKind::Fat16,
            _ => return None,
        };
        if kind != FatKind::Fat32 && root_entries == 0 {
            return None;
        }
        // A cluster without an entry in the table does not exist either.
        let bits = u64::from(table) * u64::from(sector_size) * 8;
        let entries = match kind {
            FatKind::Fat12 => bits / 12,
            FatKind::Fat16 => bits / 16,
            FatKind::Fat32 => bits / 32,
        };
        let clusters =
            room.min(u32::try_from(entries.saturating_sub(2)).unwrap_or(u32::MAX)).min(Self::MAX_FAT32);
        let bytes = |sectors: u32| u64::from(sectors) * u64::from(sector_size);
        (clusters > 0).then_some(Self {
            kind,
            cluster_size: sectors_per_cluster * sector_size,
            table_at: bytes(reserved),
            root_at: bytes(root_sector),
            root_length,
            root_cluster,
            data_at: bytes(data_sector),
            clusters,
        })
    }

    /// Which FAT.
    pub fn kind(&self) -> FatKind {
        self.kind
    }

    /// Bytes of a cluster, 512 to 512 KiB.
    pub(crate) fn cluster_size(&self) -> usize {
        self.cluster_size as usize
    }

    /// Where the root directory's chain begins (FAT32).
    pub(crate) fn root_cluster(&self) -> Option<u32> {
        (self.kind == FatKind::Fat32).then_some(self.root_cluster)
    }

    /// Where the root directory lies and how long it is (FAT12, FAT16).
    pub(crate) fn fixed_root(&self) -> (u64, usize) {
        (self.root_at, self.root_length as usize)
    }

    /// Where a cluster lies; `None` when there is none of that number.
    pub(crate) fn cluster_offset(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2).filter(|&index| index < self.clusters)?;
        Some(self.data_at + u64::from(index) * u64::from(self.cluster_size))
    }

    /// Where a cluster's entry begins in the first table, and in how many bytes it lies.
    pub(crate) fn entry_position(&self, cluster: u32) -> (u64, u64) {
        let cluster = u64::from(cluster);
        match self.kind {
            FatKind::Fat12 => (self.table_at + cluster + cluster / 2, 2),
            FatKind::Fat16 => (self.table_at + cluster * 2, 2),
            FatKind::Fat32 => (self.table_at + cluster * 4, 4),
        }
    }

    /// The label in the boot sector. The one in the root directory, which counts where they differ, is not looked for.
    pub(crate) fn boot_label(&self, sector: &[u8]) -> Option<String> {
        let at = if self.kind == FatKind::Fat32 { 66 } else { 38 };
        if *sector.get(at)? != 0x29 {
            return None;
        }
        sector.get(at + 5..at + 16).and_then(text).filter(|label| label != "NO NAME")
    }
}
