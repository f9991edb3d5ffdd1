//! The block allocation table: how blocks and entries are counted, and what an entry says.
//!
//! Payload entries and sector bitmap entries are interleaved: after every `ratio` payload entries comes the entry of
//! the bitmap that covers them (a chunk). Pure arithmetic; reading pages is `cache`'s part, judging is `reader`'s and
//! `check`'s.

use crate::info::DiskKind;
use crate::limits::MIB;

/// Bytes of one entry.
pub(crate) const ENTRY: u64 = 8;
/// Bytes of a sector bitmap block: 2^23 bits.
pub(crate) const BITMAP_LENGTH: u64 = MIB;

/// How a disk is cut into blocks and chunks; all numbers bounded by the metadata's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) virtual_size: u64,
    pub(crate) block_size: u64,
    pub(crate) sector_size: u64,
    pub(crate) kind: DiskKind,
}

impl Geometry {
    /// Payload blocks per sector bitmap block ([MS-VHDX] 2.5).
    pub(crate) fn ratio(&self) -> u64 {
        ((1 << 23) * self.sector_size) / self.block_size
    }

    /// Payload blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size)
    }

    /// Chunks, the last perhaps not full.
    pub(crate) fn chunks(&self) -> u64 {
        self.blocks().div_ceil(self.ratio())
    }

    /// Entries of the table.
    pub(crate) fn entries(&self) -> u64 {
        let blocks = self.blocks();
        match self.kind {
            DiskKind::Differencing => self.chunks() * (self.ratio() + 1),
            DiskKind::Fixed | DiskKind::Dynamic => blocks + blocks.saturating_sub(1) / self.ratio(),
        }
    }

    /// Entry number of a payload block.
    pub(crate) fn payload_entry(&self, block: u64) -> u64 {
        block + block / self.ratio()
    }

    /// Entry number of a chunk's sector bitmap block.
    pub(crate) fn bitmap_entry(&self, chunk: u64) -> u64 {
        chunk * (self.ratio() + 1) + self.ratio()
    }

    /// The first payload block whose entry number is at least `entry`.
    pub(crate) fn block_from_entry(&self, entry: u64) -> u64 {
        let per_chunk = self.ratio() + 1;
        let (chunk, place) = (entry / per_chunk, entry % per_chunk);
        chunk * self.ratio() + place.min(self.ratio())
    }

    /// Bytes of a block that are part of the disk: fewer for the last.
    pub(crate) fn used_length(&self, block: u64) -> u64 {
        self.block_size.min(self.virtual_size.saturating_sub(block * self.block_size))
    }
}

/// States of a payload block ([MS-VHDX] 2.5.1.1).
pub(crate) mod payload {
    /// Zeros, or the parent's.
    pub(crate) const NOT_PRESENT: u8 = 0;
    /// Anything; we read zeros.
    pub(crate) const UNDEFINED: u8 = 1;
    /// Zeros, the parent not asked.
    pub(crate) const ZERO: u8 = 2;
    /// Trimmed: anything; we read zeros, the parent not asked.
    pub(crate) const UNMAPPED: u8 = 3;
    /// All in this file.
    pub(crate) const FULLY_PRESENT: u8 = 6;
    /// The sector bitmap decides, sector by sector.
    pub(crate) const PARTIALLY_PRESENT: u8 = 7;
}

/// States of a sector bitmap block ([MS-VHDX] 2.5.1.2).
pub(crate) mod bitmap {
    /// None of the chunk's blocks is partially present.
    pub(crate) const NOT_PRESENT: u8 = 0;
    /// In the file.
    pub(crate) const PRESENT: u8 = 6;
}

/// One entry as it lies in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    /// `offset` must be a multiple of 1 MiB.
    pub(crate) fn new(state: u8, offset: u64) -> Self {
        Self(u64::from(state) | (offset / MIB) << 20)
    }

    pub(crate) fn state(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Bits that must be zero.
    pub(crate) fn reserved(self) -> u64 {
        (self.0 >> 3) & 0x1_ffff
    }

    /// File offset in bytes, a multiple of 1 MiB; means something in states 6 and 7 only. At most 2^64 - 1 MiB.
    pub(crate) fn offset(self) -> u64 {
        (self.0 >> 20) * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_formulas() {
        let disk =
            |virtual_size, block_size, kind| Geometry { virtual_size, block_size, sector_size: 512, kind };
        let g = disk(64 << 40, 1 << 20, DiskKind::Dynamic);
        assert_eq!((g.ratio(), g.blocks()), (4096, 1 << 26));
        assert_eq!(g.entries(), (1 << 26) + ((1 << 26) - 1) / 4096);
        let g = disk(10 << 40, 2 << 20, DiskKind::Differencing);
        assert_eq!(g.ratio(), 2048);
        assert_eq!(g.entries(), g.chunks() * 2049);
        assert_eq!(disk(0, 1 << 20, DiskKind::Dynamic).entries(), 0);
        assert_eq!(disk(1, 1 << 20, DiskKind::Dynamic).entries(), 1);
    }

    #[test]
    fn entry_numbers_and_blocks_agree() {
        let g = Geometry {
            virtual_size: 1 << 40,
            block_size: 256 << 20,
            sector_size: 512,
            kind: DiskKind::Dynamic,
        };
        for block in 0..g.blocks() {
            assert_eq!(g.block_from_entry(g.payload_entry(block)), block);
        }
        assert_eq!(g.bitmap_entry(0), 16);
        assert_eq!(g.block_from_entry(16), 16, "a bitmap entry leads to the next chunk's first block");
        assert_eq!(g.block_from_entry(17), 16);
    }
}
