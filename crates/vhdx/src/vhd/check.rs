//! The rules of VHD, each by a stable id.
//!
//! Where a reader stops at the first broken rule, this goes on: through the footers, the header with its locators, and
//! every entry of the table with its sector bitmap. Payload is not read, parents are not opened.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::bat::{ABSENT, Shape, Table, bit_run};
use super::footer::{self, Footer, Found, NO_OFFSET, Place, RawFooter, SECTOR};
use super::geometry::Geometry;
use super::header::{self, MAX_BLOCK, MAX_PATH, RawHeader};
use super::reader::Vhd;
use crate::check::{Report, Severity};
use crate::error::Fault;
use crate::info::DiskKind;
use crate::limits::MAX_VHD_SIZE;
use crate::storage::Storage;

/// Blocks in the file that are looked at: enough for 2040 GiB of the smallest blocks that Windows makes, and a bound
/// for sparse files full of zeros, each of which is a (wrong) entry. They take 64 MiB.
const MAX_BLOCKS: usize = 16 << 20;
/// Blocks that are wrong, after which the rest is not looked at.
const MAX_WRONG: usize = 10_000;
/// Creators for which QEMU takes the size from the geometry (measured with QEMU 10.0), unless that is the largest one.
const SIZE_BY_GEOMETRY: [[u8; 4]; 2] = [*b"vpc ", *b"qemu"];

/// Checks the file in `storage`.
pub(crate) fn check(storage: Arc<dyn Storage>, report: &mut Report) -> Result<(), Fault> {
    let len = storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
    if let Ok(vhd) = Vhd::open(Arc::clone(&storage), true) {
        report.info = Some(vhd.into_info());
    }
    let all = footer::find_all(storage.as_ref(), len)?;
    let Ok(chosen) = footer::choose(&all, true, &mut Vec::new()) else {
        report.error(
            "vhd.footer.missing",
            len.saturating_sub(512),
            "there is no footer, at the end or at the start",
        );
        return Ok(());
    };
    footers(&all, &chosen, len, report);
    if !fields(&chosen, report) {
        return Ok(());
    }
    let footer = match Footer::new(&chosen) {
        Ok(footer) => footer,
        Err(fault) => {
            report.error("vhd.footer.invalid", chosen.offset, fault.to_string());
            return Ok(());
        }
    };
    // The data ends where the footer begins, or with the file when the footer is lost.
    let data_end = if chosen.place == Place::Copy { len } else { chosen.offset };
    if footer.kind == DiskKind::Fixed {
        fixed(&footer, &chosen, data_end, report);
        return Ok(());
    }
    let mut occupied = Vec::from([Range { start: 0, end: footer::LENGTH as u64 }]);
    let Some(shape) = dynamic_header(storage.as_ref(), &footer, len, &mut occupied, report)? else {
        return Ok(());
    };
    blocks(&Table::new(storage, shape), &footer, data_end, &occupied, report)
}

/// The footers as a set.
fn footers(all: &[Found], chosen: &Found, len: u64, report: &mut Report) {
    let place = |wanted: Place| all.iter().find(|found| found.place == wanted);
    let end = place(Place::End).or(place(Place::ShortEnd));
    if !len.is_multiple_of(SECTOR) && place(Place::ShortEnd).is_none() {
        report.warning(
            "vhd.file.alignment",
            len,
            format!("the file's length {len} is no multiple of {SECTOR}"),
        );
    }
    match end {
        None => {
            report.warning("vhd.footer.missing", len.saturating_sub(512), "there is no footer at the end");
        }
        Some(end) => {
            if end.place == Place::ShortEnd {
                let message = "the footer has 511 bytes, as Virtual PC wrote it before 2004";
                report.note("vhd.footer.short", end.offset, message);
            }
            if !end.raw.checksum_is_right() {
                let message = checksum_message(&end.raw);
                if chosen.place == Place::Copy {
                    report.warning("vhd.footer.checksum", end.offset, message);
                } else {
                    report.error("vhd.footer.checksum", end.offset, message);
                }
            }
        }
    }
    if chosen.raw.kind.get() == footer::kind::FIXED {
        return;
    }
    match place(Place::Copy) {
        None => report.warning("vhd.footer.copy.missing", 0, "there is no copy of the footer at the start"),
        Some(copy) => {
            if !copy.raw.checksum_is_right() {
                report.warning("vhd.footer.copy.checksum", 0, checksum_message(&copy.raw));
            } else if let Some(end) = end
                && end.raw.checksum_is_right()
                && end.raw.as_bytes()[..footer::LENGTH - 1] != copy.raw.as_bytes()[..footer::LENGTH - 1]
            {
                report.warning("vhd.footer.copy.differs", 0, "the copy of the footer is not the footer");
            }
        }
    }
}

fn checksum_message(raw: &RawFooter) -> String {
    format!("the checksum is {:#010x} and should be {:#010x}", raw.checksum.get(), raw.right_checksum())
}

/// The fields of the footer that counts; false when nothing can be built on them.
fn fields(found: &Found, report: &mut Report) -> bool {
    let (raw, offset) = (&found.raw, found.offset);
    let mut usable = true;
    let mut fail = |report: &mut Report, rule, message: String| {
        report.error(rule, offset, message);
        usable = false;
    };
    if raw.version.get() != footer::VERSION {
        let message =
            format!("format version {:#010x} instead of {:#010x}", raw.version.get(), footer::VERSION);
        fail(report, "vhd.footer.version", message);
    }
    let kind = raw.kind.get();
    if ![footer::kind::FIXED, footer::kind::DYNAMIC, footer::kind::DIFFERENCING].contains(&kind) {
        let message = format!("disk type {kind} is none of 2 (fixed), 3 (dynamic), 4 (differencing)");
        fail(report, "vhd.footer.type", message);
    }
    let size = raw.current_size.get();
    if size == 0 || !size.is_multiple_of(SECTOR) || size > MAX_VHD_SIZE {
        let message =
            format!("a disk of {size} bytes is empty, no number of sectors, or above {MAX_VHD_SIZE}");
        fail(report, "vhd.footer.size", message);
    }
    if raw.features.get() & footer::FEATURE_RESERVED == 0 {
        let message =
            "the bit of the features that is always set is not; some readers look for a 511-byte footer then";
        report.warning("vhd.footer.features", offset, message);
    }
    if raw.saved_state != 0 {
        report.note("vhd.footer.saved-state", offset, "the disk belongs to a machine in saved state");
    }
    let geometry = Geometry { cylinders: raw.cylinders.get(), heads: raw.heads, sectors: raw.sectors };
    let by_geometry = SIZE_BY_GEOMETRY.contains(&raw.creator) && geometry != Geometry::LARGEST;
    if by_geometry && geometry.bytes() != size {
        let seen = geometry.bytes();
        let message =
            format!("the geometry makes {seen} bytes, the disk has {size}: QEMU goes by the geometry");
        report.note("vhd.footer.geometry", offset, message);
    }
    usable
}

fn fixed(footer: &Footer, found: &Found, data_end: u64, report: &mut Report) {
    if footer.data_offset != NO_OFFSET {
        let message =
            format!("the data offset of a fixed disk is {:#x} instead of all ones", footer.data_offset);
        report.note("vhd.footer.data-offset", found.offset, message);
    }
    let size = footer.size;
    if data_end < size {
        report.error(
            "vhd.fixed.truncated",
            data_end,
            format!("the data ends at {data_end}, the disk has {size} bytes"),
        );
    } else {
        if data_end > size {
            let message = format!("{} bytes lie between data and footer", data_end - size);
            report.note("vhd.fixed.surplus", size, message);
        }
        report.blocks.present = 1;
    }
}

/// The header, its locators and the place of the table; none when the blocks cannot be looked at.
fn dynamic_header(
    storage: &dyn Storage,
    footer: &Footer,
    len: u64,
    occupied: &mut Vec<Range<u64>>,
    report: &mut Report,
) -> Result<Option<Shape>, Fault> {
    let offset = footer.data_offset;
    let Some(end) = offset.checked_add(header::LENGTH as u64).filter(|&end| end <= len) else {
        report.error(
            "vhd.header.outside",
            offset,
            format!("the header lies behind the end of the file, {len}"),
        );
        return Ok(None);
    };
    let raw = RawHeader::read(storage, offset)?;
    if raw.cookie != header::COOKIE {
        report.error("vhd.header.signature", offset, "the signature \"cxsparse\" is missing");
        return Ok(None);
    }
    occupied.push(offset..end);
    let (right, stored) = (raw.right_checksum(), raw.checksum.get());
    if right != stored {
        let message = format!("the checksum is {stored:#010x} and should be {right:#010x}");
        report.error("vhd.header.checksum", offset, message);
    }
    let mut usable = true;
    let version = raw.version.get();
    if version != footer::VERSION {
        let message = format!("format version {version:#010x} instead of {:#010x}", footer::VERSION);
        report.error("vhd.header.version", offset, message);
        usable = false;
    }
    if footer.kind == DiskKind::Differencing {
        locators(&raw, footer, offset, len, occupied, report);
    }
    let block_size = raw.block_size.get();
    if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR || block_size > MAX_BLOCK {
        let message = format!("block size {block_size} is no power of two from {SECTOR} to {MAX_BLOCK}");
        report.error("vhd.header.block-size", offset, message);
        return Ok(None);
    }
    let (entries, table_offset) = (raw.entries.get(), raw.table_offset.get());
    let needed = footer.size.div_ceil(block_size.into());
    if u64::from(entries) < needed {
        let message = format!("the table has {entries} entries, the disk needs {needed}");
        report.error("vhd.bat.entries", offset, message);
        usable = false;
    }
    match table_offset.checked_add(needed * 4) {
        Some(end) if end <= len => occupied.push(table_offset..end),
        _ => {
            let message = format!("the table of {needed} entries goes beyond the end of the file, {len}");
            report.error("vhd.bat.outside", table_offset, message);
            usable = false;
        }
    }
    if !table_offset.is_multiple_of(SECTOR) {
        report.warning("vhd.bat.alignment", table_offset, "the table does not begin at a sector");
    }
    Ok(usable.then_some(Shape { table_offset, blocks: needed, block_size: block_size.into() }))
}

fn locators(
    raw: &RawHeader,
    footer: &Footer,
    offset: u64,
    len: u64,
    occupied: &mut Vec<Range<u64>>,
    report: &mut Report,
) {
    if raw.parent_id == [0; 16] {
        report.error("vhd.parent.id", offset, "a differencing disk without its parent's id");
    } else if raw.parent_id == *footer.id.as_bytes() {
        report.error("vhd.parent.id", offset, "a differencing disk that is its own parent");
    }
    let mut usable = raw.parent_name.iter().any(|&byte| byte != 0);
    for locator in raw.locators.iter().filter(|locator| locator.code != [0; 4]) {
        let code = String::from_utf8_lossy(&locator.code);
        let (at, length) = (locator.offset.get(), u64::from(locator.length.get()));
        match at.checked_add(length) {
            Some(end) if end <= len && length <= MAX_PATH.into() => {
                occupied.push(at..end);
                usable = true;
            }
            _ => {
                let message =
                    format!("the locator {code:?} names {length} bytes at {at}, the file has {len}");
                report.error("vhd.locator.outside", offset, message);
            }
        }
    }
    if !usable {
        report.error(
            "vhd.parent.name",
            offset,
            "a differencing disk that names no parent, by locator or by name",
        );
    }
}

/// Every entry of the table.
fn blocks(
    table: &Table,
    footer: &Footer,
    data_end: u64,
    occupied: &[Range<u64>],
    report: &mut Report,
) -> Result<(), Fault> {
    let shape = table.shape();
    let unreadable = |(at, source)| Fault::io("the block allocation table", at, source);
    let (bitmap_length, entry_at) = (shape.bitmap_length(), |block: u64| shape.table_offset + block * 4);
    let mut starts: Vec<u32> = Vec::new();
    let mut wrong = 0;
    let mut block = 0;
    while block < shape.blocks {
        let absent = table.absent_from(block, shape.blocks - block).map_err(unreadable)?;
        report.blocks.absent += absent;
        block += absent;
        if absent > 0 || block == shape.blocks {
            continue;
        }
        let sector = table.entry(block).map_err(unreadable)?;
        if sector == ABSENT {
            continue;
        }
        if starts.len() == MAX_BLOCKS || wrong == MAX_WRONG {
            let what = if wrong == MAX_WRONG { "wrong blocks" } else { "blocks in the file" };
            let message =
                format!("after {block} entries there are too many {what}; the rest was not checked");
            report.error("vhd.bat.too-many", entry_at(block), message);
            break;
        }
        starts.push(sector);
        let start = u64::from(sector) * SECTOR;
        let used = shape.block_size.min(footer.size - block * shape.block_size);
        let (used_end, end) = (start + bitmap_length + used, start + bitmap_length + shape.block_size);
        if used_end > data_end {
            report.error_with("vhd.block.outside", entry_at(block), || {
                format!(
                    "block {block} lies at {start} to {used_end}, the data of the file ends at {data_end}"
                )
            });
        } else {
            if end > data_end {
                report.add_with("vhd.block.short", Severity::Info, entry_at(block), || {
                    format!("the last block {block} is cut off behind the end of the disk, at {data_end}")
                });
            }
            sectors(table, sector, used, report);
        }
        let lies_over = occupied.iter().find(|other| start < other.end && other.start < used_end);
        wrong += usize::from(used_end > data_end || lies_over.is_some());
        if let Some(other) = lies_over {
            report.error_with("vhd.block.metadata", entry_at(block), || {
                format!("block {block} at {start} lies over structures at {} to {}", other.start, other.end)
            });
        }
        block += 1;
    }
    starts.sort_unstable();
    let stride = (bitmap_length + shape.block_size) / SECTOR;
    for pair in starts.windows(2) {
        if u64::from(pair[1] - pair[0]) < stride {
            let (first, second) = (u64::from(pair[0]) * SECTOR, u64::from(pair[1]) * SECTOR);
            report.error_with("vhd.block.overlap", second, || {
                format!("the blocks at {first} and {second} overlap: each has {} bytes", stride * SECTOR)
            });
        }
    }
    Ok(())
}

/// Whether a block is wholly in the file, by its sector bitmap.
fn sectors(table: &Table, sector: u32, used: u64, report: &mut Report) {
    let bits = used.div_ceil(SECTOR);
    match table.bitmap(sector) {
        Ok(bitmap) if bit_run(&bitmap, 0..bits) == (bits, true) => report.blocks.present += 1,
        Ok(_) => report.blocks.partial += 1,
        Err((at, error)) => {
            report.error("vhd.block.bitmap", at, format!("the sector bitmap cannot be read: {error}"));
        }
    }
}
