//! The footer: what it holds, where it may lie, which one counts.
//!
//! Looked for in this order, the first with a right checksum counts: the last 512 bytes; the last 511 (Virtual PC
//! before 2004 left the last byte out); the copy at the start, which dynamic and differencing disks have. The copy is
//! there for a damaged end, so using it needs no leniency.

use uuid::Uuid;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::geometry::Geometry;
use crate::error::Fault;
use crate::info::DiskKind;
use crate::limits::MAX_VHD_SIZE;
use crate::storage::Storage;

/// Bytes of a footer.
pub(super) const LENGTH: usize = 512;
/// Bytes of a sector, the unit of the block allocation table.
pub(super) const SECTOR: u64 = 512;
/// First bytes of every footer.
pub(super) const COOKIE: [u8; 8] = *b"conectix";
/// A data offset that leads nowhere: fixed disks have no header.
pub(super) const NO_OFFSET: u64 = u64::MAX;
/// Version 1.0, of the footer and of the header.
pub(super) const VERSION: u32 = 0x0001_0000;
/// The bit of `features` that is always set.
pub(super) const FEATURE_RESERVED: u32 = 2;
/// Seconds from 1970 to 2000, the epoch of the footer's time.
const EPOCH_2000: u64 = 946_684_800;

/// The footer as it lies in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawFooter {
    pub(super) cookie: [u8; 8],
    pub(super) features: U32,
    pub(super) version: U32,
    /// Where the header of a dynamic disk is.
    pub(super) data_offset: U64,
    /// Seconds since 2000-01-01 UTC.
    pub(super) timestamp: U32,
    pub(super) creator: [u8; 4],
    /// Major version in the upper half, minor in the lower.
    pub(super) creator_version: U32,
    pub(super) creator_os: [u8; 4],
    /// The size at creation.
    pub(super) original_size: U64,
    /// The size of the disk.
    pub(super) current_size: U64,
    pub(super) cylinders: U16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
    pub(super) kind: U32,
    pub(super) checksum: U32,
    pub(super) unique_id: [u8; 16],
    pub(super) saved_state: u8,
    pub(super) reserved: [u8; 427],
}

const _: () = assert!(size_of::<RawFooter>() == LENGTH);

/// Numbers of the footer's disk type.
pub(super) mod kind {
    pub(in crate::vhd) const FIXED: u32 = 2;
    pub(in crate::vhd) const DYNAMIC: u32 = 3;
    pub(in crate::vhd) const DIFFERENCING: u32 = 4;
}

/// The complement of the sum of all bytes; the checksum's own four, at `field`, count as zero.
pub(super) fn checksum(bytes: &[u8], field: usize) -> u32 {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !(field..field + 4).contains(at))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

impl RawFooter {
    pub(super) fn checksum_is_right(&self) -> bool {
        self.right_checksum() == self.checksum.get()
    }

    pub(super) fn right_checksum(&self) -> u32 {
        checksum(self.as_bytes(), std::mem::offset_of!(Self, checksum))
    }

    /// A footer of ours; `data_offset` is [`NO_OFFSET`] for a fixed disk.
    pub(super) fn new(size: u64, kind: u32, data_offset: u64, id: Uuid) -> Self {
        let geometry = Geometry::of(size);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().saturating_sub(EPOCH_2000));
        let mut footer = Self {
            cookie: COOKIE,
            features: FEATURE_RESERVED.into(),
            version: VERSION.into(),
            data_offset: data_offset.into(),
            timestamp: u32::try_from(now).unwrap_or(u32::MAX).into(),
            // Not vanity: readers that take the size from the geometry, which is too small, decide by the creator, and
            // this is the one for which none of them does.
            creator: *b"win ",
            creator_version: 0x000a_0000.into(),
            creator_os: *b"Wi2k",
            original_size: size.into(),
            current_size: size.into(),
            cylinders: geometry.cylinders.into(),
            heads: geometry.heads,
            sectors: geometry.sectors,
            kind: kind.into(),
            checksum: 0.into(),
            unique_id: *id.as_bytes(),
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = footer.right_checksum().into();
        footer
    }
}

/// Where a footer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The last 512 bytes.
    End,
    /// The last 511 bytes.
    ShortEnd,
    /// The copy at the start.
    Copy,
}

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::End | Self::ShortEnd => "the footer",
            Self::Copy => "the copy of the footer",
        }
    }
}

/// A footer with its place, not judged yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) raw: RawFooter,
    pub(super) place: Place,
    pub(super) offset: u64,
}

/// Every place with a footer's cookie, in the order in which they count.
pub(super) fn find_all(storage: &dyn Storage, len: u64) -> Result<Vec<Found>, Fault> {
    let mut found = Vec::new();
    let places = [
        (Place::End, len.checked_sub(512), LENGTH),
        (Place::ShortEnd, len.checked_sub(511), LENGTH - 1),
        (Place::Copy, (len > 512).then_some(0), LENGTH),
    ];
    for (place, offset, length) in places {
        let Some(offset) = offset else { continue };
        let mut bytes = [0; LENGTH];
        storage
            .read_at(&mut bytes[..length], offset)
            .map_err(|source| Fault::io(place.name(), offset, source))?;
        if !bytes.starts_with(&COOKIE) {
            continue;
        }
        let raw: RawFooter = zerocopy::transmute!(bytes);
        // The start of a fixed disk is the guest's: whatever looks like a footer there is none.
        if place == Place::Copy && raw.kind.get() == kind::FIXED {
            continue;
        }
        found.push(Found { raw, place, offset });
    }
    Ok(found)
}

/// The footer that counts; what had to be overlooked is added to `tolerated`.
pub(super) fn choose(found: &[Found], lenient: bool, tolerated: &mut Vec<String>) -> Result<Found, Fault> {
    let Some(first) = found.first() else { return Err(Fault::NotADisk) };
    if let Some(good) = found.iter().find(|found| found.raw.checksum_is_right()) {
        if good.place == Place::Copy {
            tolerated.push(
                "the footer at the end is damaged or missing; its copy at the start is used".to_owned(),
            );
        }
        return Ok(*good);
    }
    if lenient {
        let (right, stored) = (first.raw.right_checksum(), first.raw.checksum.get());
        let what = first.place.name();
        tolerated.push(format!(
            "wrong checksum of {what} at offset {}: {stored:#010x} instead of {right:#010x}",
            first.offset
        ));
        return Ok(*first);
    }
    Err(Fault::Checksum { what: first.place.name(), offset: first.offset })
}

/// A footer whose numbers can be used.
#[derive(Clone, Debug)]
pub(super) struct Footer {
    pub(super) kind: DiskKind,
    /// Bytes of the disk: more than 0, a multiple of 512, at most [`MAX_VHD_SIZE`].
    pub(super) size: u64,
    pub(super) data_offset: u64,
    pub(super) id: Uuid,
    pub(super) creator: String,
}

impl Footer {
    /// Judges a footer's fields one by one.
    pub(super) fn new(found: &Found) -> Result<Self, Fault> {
        let (raw, what, offset) = (&found.raw, found.place.name(), found.offset);
        let version = raw.version.get();
        if version >> 16 != VERSION >> 16 {
            return Err(Fault::unsupported(what, offset, format!("format version {version:#010x}")));
        }
        let kind = match raw.kind.get() {
            kind::FIXED => DiskKind::Fixed,
            kind::DYNAMIC => DiskKind::Dynamic,
            kind::DIFFERENCING => DiskKind::Differencing,
            other => return Err(Fault::unsupported(what, offset, format!("disk type {other}"))),
        };
        let size = raw.current_size.get();
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(Fault::invalid(
                what,
                offset,
                format!("a disk of {size} bytes, which is no number of sectors"),
            ));
        }
        if size > MAX_VHD_SIZE {
            let problem = format!("a disk of {size} bytes, a VHD holds at most {MAX_VHD_SIZE}");
            return Err(Fault::invalid(what, offset, problem));
        }
        Ok(Self {
            kind,
            size,
            data_offset: raw.data_offset.get(),
            id: Uuid::from_bytes(raw.unique_id),
            creator: creator(raw),
        })
    }
}

/// The creator's code and version, fit to be shown.
fn creator(raw: &RawFooter) -> String {
    let code: String =
        raw.creator.iter().map(|&byte| char::from(byte)).filter(char::is_ascii_graphic).collect();
    let version = raw.creator_version.get();
    format!("{code} {}.{}", version >> 16, version & 0xffff).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn dynamic(size: u64) -> RawFooter {
        RawFooter::new(size, kind::DYNAMIC, 512, Uuid::from_u128(7))
    }

    fn choose_in(bytes: Vec<u8>, lenient: bool) -> Result<(Found, Vec<String>), Fault> {
        let mut tolerated = Vec::new();
        let len = bytes.len() as u64;
        let found = find_all(&MemoryStorage::new(bytes), len)?;
        choose(&found, lenient, &mut tolerated).map(|found| (found, tolerated))
    }

    #[test]
    fn the_end_counts_before_the_copy_and_the_copy_before_nothing() {
        let (start, mut end) = (dynamic(512), dynamic(1024));
        let file = |end: &RawFooter| [start.as_bytes(), &[0; 700], end.as_bytes()].concat();
        let (found, tolerated) = choose_in(file(&end), false).unwrap();
        assert_eq!((found.place, found.raw.current_size.get(), tolerated.len()), (Place::End, 1024, 0));
        end.heads ^= 1;
        let (found, tolerated) = choose_in(file(&end), false).unwrap();
        assert_eq!((found.place, found.raw.current_size.get(), tolerated.len()), (Place::Copy, 512, 1));
        assert!(matches!(choose_in(vec![0; 2000], true), Err(Fault::NotADisk)));
        assert!(matches!(choose_in(vec![0; 3], true), Err(Fault::NotADisk)));
    }

    #[test]
    fn a_wrong_checksum_is_refused_with_its_place_and_read_leniently() {
        let mut end = dynamic(1024);
        end.heads ^= 1;
        let file = [&[0; 700], end.as_bytes()].concat();
        assert!(matches!(choose_in(file.clone(), false), Err(Fault::Checksum { offset: 700, .. })));
        let (found, tolerated) = choose_in(file, true).unwrap();
        assert_eq!((found.place, tolerated.len()), (Place::End, 1));
    }

    #[test]
    fn a_footer_of_511_bytes_is_found() {
        let file = [&[0; 100], &dynamic(1024).as_bytes()[..511]].concat();
        assert_eq!(choose_in(file, false).unwrap().0.place, Place::ShortEnd);
    }

    #[test]
    fn a_fixed_disk_that_begins_with_a_footer_does_not_open_by_it() {
        let inner = RawFooter::new(1024, kind::FIXED, NO_OFFSET, Uuid::nil());
        let file = [inner.as_bytes(), &[0; 700]].concat();
        assert!(matches!(choose_in(file, true), Err(Fault::NotADisk)));
    }
}
