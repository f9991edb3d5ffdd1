//! The region table: where the block allocation table and the metadata lie.
//!
//! Two equal copies; the first valid one counts. What is in the regions is for `bat` and `metadata`.

use std::io;

use zerocopy::{FromBytes, IntoBytes};

use crate::error::Fault;
use crate::format::{
    MAX_REGIONS, REGION_BAT, REGION_METADATA, REGION_SIGNATURE, REGION_TABLE_LENGTH, RegionEntry,
    RegionTableHeader, checksum, place, seal, stored_checksum,
};
use crate::limits::{MAX_FILE_OFFSET, MIB};
use crate::storage::Storage;

/// A region's place in the file, bounded and aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Region {
    /// First byte after it.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// The regions every file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Regions {
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    /// Which copy of the table was taken.
    pub(crate) copy: usize,
    /// Taken in spite of its checksum.
    pub(crate) checksum_ignored: bool,
}

/// What one copy of the table was found to be.
#[derive(Clone, Debug)]
pub(crate) enum TableCopy {
    /// Signature and checksum are right.
    Valid(Vec<u8>),
    /// The signature is right, the checksum is not.
    BadChecksum(Vec<u8>),
    /// Not a table, or beyond the end of the file.
    Absent,
}

/// Both copies as they are.
pub(crate) fn read_copies(storage: &dyn Storage) -> Result<[TableCopy; 2], Fault> {
    let mut copies = [TableCopy::Absent, TableCopy::Absent];
    for (copy, offset) in copies.iter_mut().zip(place::REGION_TABLES) {
        let mut bytes = vec![0; REGION_TABLE_LENGTH];
        match storage.read_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(source) => return Err(Fault::io("a region table", offset, source)),
        }
        if bytes.starts_with(&REGION_SIGNATURE) {
            *copy = if checksum(&bytes) == stored_checksum(&bytes) {
                TableCopy::Valid(bytes)
            } else {
                TableCopy::BadChecksum(bytes)
            };
        }
    }
    Ok(copies)
}

/// The entries of a table, as many as its count says and fit.
pub(crate) fn entries(table: &[u8], offset: u64) -> Result<Vec<RegionEntry>, Fault> {
    let (header, rest) = RegionTableHeader::ref_from_prefix(table)
        .map_err(|_| Fault::Truncated { what: "the region table", offset })?;
    let count = header.count.get();
    if count > MAX_REGIONS {
        return Err(Fault::invalid(
            "region table",
            offset,
            format!("{count} entries, at most {MAX_REGIONS}"),
        ));
    }
    <[RegionEntry]>::ref_from_prefix_with_elems(rest, count as usize)
        .map(|(entries, _)| entries.to_vec())
        .map_err(|_| Fault::Truncated { what: "the region table", offset })
}

/// Reads the table and finds the regions.
pub(crate) fn find(copies: &[TableCopy; 2], lenient: bool) -> Result<Regions, Fault> {
    let valid = copies.iter().position(|copy| matches!(copy, TableCopy::Valid(_)));
    let damaged = copies.iter().position(|copy| matches!(copy, TableCopy::BadChecksum(_)));
    let (copy, checksum_ignored) = match (valid, damaged) {
        (Some(copy), _) => (copy, false),
        (None, Some(copy)) if lenient => (copy, true),
        (None, Some(copy)) => {
            return Err(Fault::Checksum { what: "both region tables", offset: place::REGION_TABLES[copy] });
        }
        (None, None) => {
            return Err(Fault::invalid("region tables", place::REGION_TABLES[0], "neither copy is there"));
        }
    };
    let base = place::REGION_TABLES[copy];
    let (TableCopy::Valid(bytes) | TableCopy::BadChecksum(bytes)) = &copies[copy] else {
        return Err(Fault::invalid("region table", base, "not there"));
    };
    let mut bat = None;
    let mut metadata = None;
    for (index, entry) in entries(bytes, base)?.iter().enumerate() {
        let at = entry_offset(base, index);
        let slot = match entry.id {
            REGION_BAT => &mut bat,
            REGION_METADATA => &mut metadata,
            unknown if entry.required.get() & 1 != 0 => {
                let problem = format!("unknown required region {}", unknown.to_uuid());
                return Err(Fault::unsupported("region table entry", at, problem));
            }
            _ => continue,
        };
        let region = Region { offset: entry.offset.get(), length: entry.length.get() };
        let odd = !region.offset.is_multiple_of(MIB)
            || !u64::from(region.length).is_multiple_of(MIB)
            || region.length == 0;
        if odd || region.offset < place::HEADER_SECTION_END || region.offset > MAX_FILE_OFFSET {
            let problem = format!("a region of {} bytes at {}", region.length, region.offset);
            return Err(Fault::invalid("region table entry", at, problem));
        }
        if slot.replace(region).is_some() {
            return Err(Fault::invalid("region table entry", at, "the region is listed twice"));
        }
    }
    let missing = |what: &str| Fault::invalid("region table", base, format!("no {what} region"));
    Ok(Regions {
        bat: bat.ok_or_else(|| missing("block allocation table"))?,
        metadata: metadata.ok_or_else(|| missing("metadata"))?,
        copy,
        checksum_ignored,
    })
}

/// File offset of entry `index` of the table at `base`.
pub(crate) fn entry_offset(base: u64, index: usize) -> u64 {
    base + size_of::<RegionTableHeader>() as u64 + index as u64 * size_of::<RegionEntry>() as u64
}

/// The bytes of a table with the two regions.
pub(crate) fn encode(bat: Region, metadata: Region) -> Vec<u8> {
    let header = RegionTableHeader {
        signature: REGION_SIGNATURE,
        checksum: 0.into(),
        count: 2.into(),
        reserved: 0.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    for (id, region) in [(REGION_BAT, bat), (REGION_METADATA, metadata)] {
        let entry = RegionEntry {
            id,
            offset: region.offset.into(),
            length: region.length.into(),
            required: 1.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    bytes.resize(REGION_TABLE_LENGTH, 0);
    seal(&mut bytes);
    bytes
}
