//! Which MiB of a file are taken: one bit each, 8 MiB of memory for a full 64 TiB disk.

use crate::limits::{MAX_FILE_OFFSET, MIB};

/// A map of the file in units of 1 MiB.
#[derive(Debug)]
pub(super) struct Occupancy {
    bits: Vec<u64>,
    units: u64,
}

impl Occupancy {
    /// For a file of `length` bytes; what lies beyond [`MAX_FILE_OFFSET`] is not tracked.
    pub(super) fn new(length: u64) -> Self {
        let units = length.min(MAX_FILE_OFFSET).div_ceil(MIB);
        Self { bits: vec![0; units.div_ceil(64) as usize], units }
    }

    /// Takes `length` bytes from `offset`; gives the offset of the first MiB that was taken already. What lies outside
    /// the file is not tracked.
    pub(super) fn claim(&mut self, offset: u64, length: u64) -> Option<u64> {
        let mut hit = None;
        let end = offset.saturating_add(length).div_ceil(MIB).min(self.units);
        let mut unit = offset / MIB;
        while unit < end {
            let (word, bit) = ((unit / 64) as usize, unit % 64);
            // As many units as one word holds at once: a large block is a few words, not hundreds of bits.
            let count = (64 - bit).min(end - unit);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let Some(word) = self.bits.get_mut(word) else { break };
            if *word & mask != 0 && hit.is_none() {
                hit = Some((unit - bit + u64::from((*word & mask).trailing_zeros())) * MIB);
            }
            *word |= mask;
            unit += count;
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_found() {
        let mut space = Occupancy::new(200 * MIB);
        assert_eq!(space.claim(0, MIB), None);
        assert_eq!(space.claim(10 * MIB, 100 * MIB), None);
        assert_eq!(space.claim(MIB, 9 * MIB), None);
        assert_eq!(space.claim(0, 200 * MIB), Some(0));
        let mut space = Occupancy::new(200 * MIB);
        assert_eq!(space.claim(70 * MIB, MIB), None);
        assert_eq!(space.claim(3 * MIB, 190 * MIB), Some(70 * MIB));
        assert_eq!(space.claim(500 * MIB, MIB), None, "outside the file nothing is tracked");
    }
}
