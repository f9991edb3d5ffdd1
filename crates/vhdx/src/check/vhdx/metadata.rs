//! The rules of the metadata region and the parent locator in it.

use super::super::Report;
use crate::error::Fault;
use crate::format::{
    Guid, ITEM_DISK_ID, ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR,
    ITEM_VIRTUAL_SIZE, METADATA_TABLE_LENGTH, MetadataEntry, file_parameter, metadata_flag,
};
use crate::limits::{MAX_LOCATOR_LENGTH, MAX_VHDX_SIZE};
use crate::locator::{self, LINKAGE, LINKAGE2, Locator, PATHS};
use crate::metadata::{self, BLOCK_SIZES};
use crate::region::Region;
use crate::storage::Storage;

/// A known item: its name, its length when fixed, the flags it must have.
struct Known {
    id: Guid,
    name: &'static str,
    length: Option<u32>,
    flags: u32,
    mandatory: bool,
}

const DISK: u32 = metadata_flag::REQUIRED | metadata_flag::VIRTUAL_DISK;

const KNOWN: [Known; 6] = [
    Known {
        id: ITEM_FILE_PARAMETERS,
        name: "file parameters",
        length: Some(8),
        flags: metadata_flag::REQUIRED,
        mandatory: true,
    },
    Known { id: ITEM_VIRTUAL_SIZE, name: "virtual disk size", length: Some(8), flags: DISK, mandatory: true },
    Known { id: ITEM_DISK_ID, name: "disk id", length: Some(16), flags: DISK, mandatory: true },
    Known {
        id: ITEM_LOGICAL_SECTOR,
        name: "logical sector size",
        length: Some(4),
        flags: DISK,
        mandatory: true,
    },
    Known {
        id: ITEM_PHYSICAL_SECTOR,
        name: "physical sector size",
        length: Some(4),
        flags: DISK,
        mandatory: true,
    },
    Known {
        id: ITEM_PARENT_LOCATOR,
        name: "parent locator",
        length: None,
        flags: metadata_flag::REQUIRED,
        mandatory: false,
    },
];

pub(super) fn check(storage: &dyn Storage, region: Region, report: &mut Report) -> Result<(), Fault> {
    let entries = match metadata::entries(storage, region) {
        Ok(entries) => entries,
        Err(Fault::Io { what, offset, source }) => return Err(Fault::Io { what, offset, source }),
        Err(fault) => {
            report.error("vhdx.metadata.table", region.offset, fault.to_string());
            return Ok(());
        }
    };
    let mut items: Vec<(Guid, Vec<u8>, u64)> = Vec::new();
    let mut places: Vec<(u32, u32)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = metadata::entry_offset(region, index);
        if let Some(bytes) = one(storage, region, entry, at, &mut places, report)? {
            if items.iter().any(|(id, ..)| *id == entry.id) {
                report.error(
                    "vhdx.metadata.duplicate",
                    at,
                    format!("item {} is listed twice", entry.id.to_uuid()),
                );
            } else {
                items.push((entry.id, bytes, region.offset + u64::from(entry.offset.get())));
            }
        }
    }
    for known in KNOWN.iter().filter(|known| known.mandatory) {
        if !items.iter().any(|(id, ..)| *id == known.id) {
            report.error("vhdx.metadata.missing", region.offset, format!("no {}", known.name));
        }
    }
    values(&items, region, report);
    Ok(())
}

/// Judges an entry; gives the bytes of a known item.
fn one(
    storage: &dyn Storage,
    region: Region,
    entry: &MetadataEntry,
    at: u64,
    places: &mut Vec<(u32, u32)>,
    report: &mut Report,
) -> Result<Option<Vec<u8>>, Fault> {
    let (start, length, flags) = (entry.offset.get(), entry.length.get(), entry.flags.get());
    let all = metadata_flag::USER | metadata_flag::VIRTUAL_DISK | metadata_flag::REQUIRED;
    if entry.reserved.get() != 0 || flags & !all != 0 {
        report.warning("vhdx.metadata.reserved", at, format!("reserved bits are set: flags {flags:#x}"));
    }
    let end = start.checked_add(length).filter(|end| *end <= region.length);
    if end.is_none() || (length > 0 && (start as usize) < METADATA_TABLE_LENGTH) {
        let message =
            format!("an item of {length} bytes at {start} is not inside the region of {}", region.length);
        report.error("vhdx.metadata.item-place", at, message);
        return Ok(None);
    }
    // Compared in order of the table: a few thousand entries at most.
    let end = start + length;
    if length > 0 && places.iter().any(|(a, b)| start < *b && *a < end) {
        report.error("vhdx.metadata.item-overlap", at, format!("the item at {start} overlaps another"));
    }
    places.push((start, end));
    let known = KNOWN.iter().find(|known| known.id == entry.id && flags & metadata_flag::USER == 0);
    let Some(known) = known else {
        if flags & metadata_flag::REQUIRED != 0 {
            let message = format!("item {} is required and unknown", entry.id.to_uuid());
            report.error("vhdx.metadata.unknown", at, message);
        }
        return Ok(None);
    };
    if flags & all != known.flags {
        let message = format!("{} has flags {flags:#x} instead of {:#x}", known.name, known.flags);
        report.warning("vhdx.metadata.flags", at, message);
    }
    let fits = match known.length {
        Some(want) => length == want,
        None => length <= MAX_LOCATOR_LENGTH,
    };
    if !fits {
        report.error("vhdx.metadata.length", at, format!("{} has {length} bytes", known.name));
        return Ok(None);
    }
    let offset = region.offset + u64::from(start);
    let mut bytes = vec![0; length as usize];
    storage.read_at(&mut bytes, offset).map_err(|source| Fault::io("a metadata item", offset, source))?;
    Ok(Some(bytes))
}

fn values(items: &[(Guid, Vec<u8>, u64)], region: Region, report: &mut Report) {
    let number = |id: Guid| {
        items.iter().find(|(known, ..)| *known == id).map(|(_, bytes, offset)| {
            let mut wide = [0; 8];
            let length = bytes.len().min(8);
            wide[..length].copy_from_slice(&bytes[..length]);
            (u64::from_le_bytes(wide), *offset)
        })
    };
    let mut has_parent = false;
    if let Some((parameters, offset)) = number(ITEM_FILE_PARAMETERS) {
        let (size, flags) = ((parameters & 0xffff_ffff) as u32, (parameters >> 32) as u32);
        if !size.is_power_of_two() || !BLOCK_SIZES.contains(&size) {
            let message = format!("block size {size} is not a power of two from 1 to 256 MiB");
            report.error("vhdx.metadata.block-size", offset, message);
        }
        has_parent = flags & file_parameter::HAS_PARENT != 0;
        if flags & !(file_parameter::HAS_PARENT | file_parameter::LEAVE_ALLOCATED) != 0 {
            report.warning("vhdx.metadata.reserved", offset, format!("reserved file parameters: {flags:#x}"));
        }
    }
    for id in [ITEM_LOGICAL_SECTOR, ITEM_PHYSICAL_SECTOR] {
        if let Some((size, offset)) = number(id)
            && size != 512
            && size != 4096
        {
            report.error("vhdx.metadata.sector-size", offset, format!("{size} is neither 512 nor 4096"));
        }
    }
    if let Some((size, offset)) = number(ITEM_VIRTUAL_SIZE) {
        if size == 0 || size > MAX_VHDX_SIZE {
            report.error("vhdx.metadata.virtual-size", offset, format!("a disk of {size} bytes"));
        }
        if let Some((sector @ (512 | 4096), _)) = number(ITEM_LOGICAL_SECTOR)
            && !size.is_multiple_of(sector)
        {
            let message = format!("{size} is no multiple of the logical sector size {sector}");
            report.error("vhdx.metadata.virtual-size", offset, message);
        }
    }
    let item = items.iter().find(|(id, ..)| *id == ITEM_PARENT_LOCATOR);
    match (item, has_parent) {
        (Some((_, bytes, offset)), true) => match locator::parse(bytes, *offset) {
            Ok(locator) => pairs(&locator, *offset, report),
            Err(fault) => report.error("vhdx.locator.malformed", *offset, fault.to_string()),
        },
        (Some((.., offset)), false) => {
            report.warning(
                "vhdx.locator.unexpected",
                *offset,
                "a parent locator, but the disk has no parent",
            );
        }
        (None, true) => {
            report.error(
                "vhdx.locator.missing",
                region.offset,
                "the disk has a parent, but no parent locator",
            );
        }
        (None, false) => {}
    }
}

fn pairs(locator: &Locator, offset: u64, report: &mut Report) {
    match locator.id(LINKAGE) {
        None => report.error("vhdx.locator.linkage", offset, format!("no {LINKAGE}")),
        Some(Err(_)) => report.error("vhdx.locator.linkage", offset, format!("{LINKAGE} is no GUID")),
        Some(Ok(_)) => {}
    }
    if let Some(Err(_)) = locator.id(LINKAGE2) {
        report.error("vhdx.locator.linkage", offset, format!("{LINKAGE2} is no GUID"));
    }
    if !PATHS.iter().any(|key| locator.get(key).is_some()) {
        report.error("vhdx.locator.path", offset, format!("none of {} is there", PATHS.join(", ")));
    }
    for (index, (key, _)) in locator.pairs.iter().enumerate() {
        if locator.pairs[..index].iter().any(|(known, _)| known == key) {
            report.error("vhdx.locator.duplicate", offset, format!("{key} is there twice"));
        }
    }
}
