//! The block allocation table and the sector bitmaps, read piece by piece.
//!
//! The table of a 2040 GiB disk has a million entries or, with tiny blocks, thousands of millions; a bounded number of
//! its pages is in memory. A sector bitmap lies before each block's data, most significant bit first.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::cache::Cache;
use super::footer::SECTOR;
use crate::storage::Storage;

/// An entry of a block that is not in the file.
pub(super) const ABSENT: u32 = u32::MAX;
/// Bytes of a page of the table.
const PAGE: u64 = 64 << 10;
/// Pages of the table in memory: 1 MiB.
const PAGES: usize = 16;
/// Sector bitmaps in memory: 64 KiB at 2 MiB blocks, 8 MiB at the largest.
const BITMAPS: usize = 128;
/// Pages and bitmaps that each layer of a long chain may keep.
const MIN_PAGES: usize = 2;

/// The shape of a table and its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) table_offset: u64,
    /// Entries that the disk needs; the table may have more.
    pub(super) blocks: u64,
    pub(super) block_size: u64,
}

impl Shape {
    /// Bytes of a sector bitmap: one bit for a sector, padded to whole sectors.
    pub(super) fn bitmap_length(&self) -> u64 {
        (self.block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
    }
}

/// The table of one file.
#[derive(Debug)]
pub(super) struct Table {
    storage: Arc<dyn Storage>,
    shape: Shape,
    pages: Cache,
    bitmaps: Cache,
}

impl Table {
    pub(super) fn new(storage: Arc<dyn Storage>, shape: Shape) -> Self {
        Self { storage, shape, pages: Cache::new(PAGES), bitmaps: Cache::new(BITMAPS) }
    }

    /// Told how many layers the chain has.
    pub(super) fn share_memory(&mut self, layers: usize) {
        self.pages.resize((PAGES / layers.max(1)).max(MIN_PAGES));
        self.bitmaps.resize((BITMAPS / layers.max(1)).max(MIN_PAGES));
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The entry of `block`: a sector number, or [`ABSENT`]. On failure also where the table was to be read.
    pub(super) fn entry(&self, block: u64) -> Result<u32, (u64, io::Error)> {
        let at = block * 4;
        let page = self.page(at / PAGE)?;
        let start = (at % PAGE) as usize;
        match page.get(start..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
            None => Err((self.shape.table_offset + at, io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// How many blocks from `block` on, `most` at the most, are absent by entries of one page. 0 when `block` is there.
    pub(super) fn absent_from(&self, block: u64, most: u64) -> Result<u64, (u64, io::Error)> {
        let at = block * 4;
        let page = self.page(at / PAGE)?;
        let rest = page.get((at % PAGE) as usize..).unwrap_or_default();
        let count =
            rest.as_chunks::<4>().0.iter().take_while(|entry| **entry == ABSENT.to_be_bytes()).count();
        Ok((count as u64).min(most))
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>, (u64, io::Error)> {
        let start = number * PAGE;
        let length = (self.shape.blocks * 4).saturating_sub(start).min(PAGE);
        let offset = self.shape.table_offset + start;
        self.pages.get(number, || {
            let mut bytes = vec![0; length as usize];
            self.storage.read_at(&mut bytes, offset).map_err(|error| (offset, error))?;
            Ok(bytes)
        })
    }

    /// The sector bitmap of the block whose entry is `sector`.
    pub(super) fn bitmap(&self, sector: u32) -> Result<Arc<[u8]>, (u64, io::Error)> {
        let offset = u64::from(sector) * SECTOR;
        self.bitmaps.get(sector.into(), || {
            let mut bytes = vec![0; self.shape.bitmap_length() as usize];
            self.storage.read_at(&mut bytes, offset).map_err(|error| (offset, error))?;
            Ok(bytes)
        })
    }
}

/// The length of the run of equal bits that begins at bit `from` and ends at `range.end` at the latest, and whether
/// they are set. `range` must not be empty and must lie in the bitmap.
pub(super) fn bit_run(bitmap: &[u8], range: Range<u64>) -> (u64, bool) {
    let bit = |at: u64| bitmap.get((at / 8) as usize).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
    let set = bit(range.start);
    let same = if set { 0xff } else { 0 };
    let mut at = range.start + 1;
    while at < range.end {
        if at.is_multiple_of(8) {
            // Whole bytes at once: most bitmaps are all ones.
            let rest = bitmap.get((at / 8) as usize..).unwrap_or_default();
            at += 8 * rest.iter().take_while(|byte| **byte == same).count() as u64;
            if at >= range.end {
                break;
            }
        }
        if bit(at) != set {
            break;
        }
        at += 1;
    }
    (at.min(range.end) - range.start, set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_sector_is_the_most_significant_bit() {
        assert_eq!(bit_run(&[0x80, 0], 0..16), (1, true));
        assert_eq!(bit_run(&[0x80, 0], 1..16), (15, false));
    }

    proptest! {
        #[test]
        fn runs_are_those_of_the_bits_one_by_one(
            bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 0xff, 0x0f, 0x81, 0x7e]), 1..12),
            from: prop::sample::Index, to: prop::sample::Index,
        ) {
            let bits: Vec<bool> = bytes.iter().flat_map(|b| (0..8).map(move |i| b >> (7 - i) & 1 == 1)).collect();
            let from = from.index(bits.len());
            let to = from + 1 + to.index(bits.len() - from);
            let count = bits[from..to].iter().take_while(|bit| **bit == bits[from]).count();
            prop_assert_eq!(bit_run(&bytes, from as u64..to as u64), (count as u64, bits[from]));
        }
    }
}
