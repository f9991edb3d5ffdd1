//! Cylinders, heads, sectors: what a footer claims for the sake of BIOSes of the 1990s.
//!
//! Nothing in this crate derives a size from them: they cannot tell sizes that are no product of three numbers. They are
//! written because some readers do (QEMU, for files of Virtual PC and its own).

/// A disk's geometry as the footer holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) cylinders: u16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
}

impl Geometry {
    /// What every larger disk has.
    pub(super) const LARGEST: Self = Self { cylinders: 65_535, heads: 16, sectors: 255 };

    /// The specification's own algorithm (appendix "CHS Calculation"), for a disk of `size` bytes.
    pub(super) fn of(size: u64) -> Self {
        const MOST: u64 = 65_535 * 16 * 255;
        let total = (size / 512).min(MOST);
        let (heads, sectors) = if total >= 65_535 * 16 * 63 {
            (16, 255)
        } else {
            let tracks = total / 17;
            let heads = tracks.div_ceil(1024).max(4);
            if heads <= 16 && tracks < heads * 1024 {
                (heads, 17)
            } else if total / 31 < 16 * 1024 {
                (16, 31)
            } else {
                (16, 63)
            }
        };
        let cylinders = total / sectors / heads;
        Self {
            cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX),
            // Both are at most 255 by the branches above.
            heads: heads as u8,
            sectors: sectors as u8,
        }
    }

    /// Bytes that the three numbers can address.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's pseudo-code, statement by statement: an oracle for the reshaped code above.
    fn by_the_book(size: u64) -> (u64, u64, u64) {
        let mut total = size / 512;
        if total > 65_535 * 16 * 255 {
            total = 65_535 * 16 * 255;
        }
        let (mut sectors, mut heads, mut tracks);
        if total >= 65_535 * 16 * 63 {
            sectors = 255;
            heads = 16;
            tracks = total / sectors;
        } else {
            sectors = 17;
            tracks = total / sectors;
            heads = tracks.div_ceil(1024);
            if heads < 4 {
                heads = 4;
            }
            if tracks >= heads * 1024 || heads > 16 {
                sectors = 31;
                heads = 16;
                tracks = total / sectors;
            }
            if tracks >= heads * 1024 {
                sectors = 63;
                heads = 16;
                tracks = total / sectors;
            }
        }
        (tracks / heads, heads, sectors)
    }

    #[test]
    fn it_is_the_algorithm_of_the_specification() {
        let mut size = 512;
        while size < 3 << 40 {
            let Geometry { cylinders, heads, sectors } = Geometry::of(size);
            assert_eq!((cylinders.into(), heads.into(), sectors.into()), by_the_book(size), "{size}");
            size += size / 97 / 512 * 512 + 512;
        }
    }

    #[test]
    fn real_files_have_these() {
        // win10-fixed.vhd, hyperv2012r2-dynamic.vhd, win10-fat-differential.vhd.
        for (size, chs) in
            [(10_485_760, (301, 4, 17)), (136_365_211_648, (65_278, 16, 255)), (4_194_304, (120, 4, 17))]
        {
            let found = Geometry::of(size);
            assert_eq!((found.cylinders, found.heads, found.sectors), chs);
            assert!(found.bytes() < size, "none of them is a product of three numbers");
        }
    }
}
