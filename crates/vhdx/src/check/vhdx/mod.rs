//! The rules of VHDX ([MS-VHDX] 2.2 to 2.6), each judged where it stands.
//!
//! The structures are judged one by one, so that a broken one does not hide the next. The tables of blocks need the
//! file to be readable (leniently); where it is not, the report says why.

mod blocks;
mod metadata;
mod occupancy;

use std::sync::Arc;

use zerocopy::FromBytes;

use self::occupancy::Occupancy;
use super::{Report, Severity};
use crate::error::{Fault, OpenErrorKind};
use crate::format::{
    Guid, HEADER_LENGTH, LOG_VERSION, MAX_REGIONS, REGION_BAT, REGION_METADATA, RawHeader, RegionTableHeader,
    VERSION, place,
};
use crate::header::{self, Copy};
use crate::limits::{MAX_FILE_OFFSET, MIB};
use crate::log;
use crate::overlay::Overlay;
use crate::reader::Parts;
use crate::region::{self, Region, TableCopy};
use crate::storage::Storage;

/// Adds what breaks the rules to the report.
pub(crate) fn check(file: Arc<dyn Storage>, report: &mut Report) -> Result<(), Fault> {
    let length = file.len().map_err(|source| Fault::io("the file's length", 0, source))?;
    if !length.is_multiple_of(MIB) {
        report.note("vhdx.file.length", length, "the file's length is no multiple of 1 MiB");
    }
    let copies = header::read_copies(file.as_ref())?;
    headers(file.as_ref(), &copies, report)?;
    let seen = through_log(&file, &copies, report)?;
    let length = seen.len().map_err(|source| Fault::io("the file's length", 0, source))?;

    let mut space = Occupancy::new(length);
    space.claim(0, place::HEADER_SECTION_END);
    if let Ok(header) = header::current(&copies, true) {
        log_place(&header, length, &mut space, report);
    }
    let tables = region::read_copies(seen.as_ref())?;
    let metadata = regions(&tables, length, &mut space, report)?;
    if let Some(region) = metadata {
        metadata::check(seen.as_ref(), region, report)?;
    }
    match Parts::read(file, true) {
        Ok(parts) => {
            report.info = Some(parts.info());
            blocks::check(&parts, &mut space, report)?;
        }
        Err(fault) if fault.kind() == OpenErrorKind::Io => return Err(fault),
        Err(fault) => {
            let offset = fault.offset().unwrap_or(0);
            report.error("vhdx.unreadable", offset, format!("the blocks could not be checked: {fault}"));
        }
    }
    Ok(())
}

/// What was wrong with one of two copies: only both together make the file unreadable.
fn severity(other_is_good: bool) -> Severity {
    if other_is_good { Severity::Warning } else { Severity::Error }
}

fn headers(file: &dyn Storage, copies: &[Copy; 2], report: &mut Report) -> Result<(), Fault> {
    for (index, copy) in copies.iter().enumerate() {
        let offset = place::HEADERS[index];
        let worst = severity(matches!(copies[1 - index], Copy::Valid(_)));
        let raw = match copy {
            Copy::Absent => {
                report.add("vhdx.header.missing", worst, offset, "no header with the signature \"head\"");
                continue;
            }
            Copy::BadChecksum(raw) => {
                report.add("vhdx.header.checksum", worst, offset, "the header's CRC-32C is wrong");
                raw
            }
            Copy::Valid(raw) => {
                let mut bytes = [0; HEADER_LENGTH];
                file.read_at(&mut bytes, offset).map_err(|source| Fault::io("a header", offset, source))?;
                if bytes[size_of::<RawHeader>()..].iter().any(|byte| *byte != 0) {
                    report.warning(
                        "vhdx.header.reserved",
                        offset,
                        "reserved bytes of the header are not zero",
                    );
                }
                raw
            }
        };
        if raw.version.get() != VERSION {
            let message = format!("format version {} instead of {VERSION}", raw.version.get());
            report.error("vhdx.header.version", offset, message);
        }
        if raw.log_version.get() != LOG_VERSION && raw.log != Guid::NIL {
            let message = format!("log version {} instead of {LOG_VERSION}", raw.log_version.get());
            report.error("vhdx.header.log-version", offset, message);
        }
    }
    if let [Copy::Valid(a), Copy::Valid(b)] = copies
        && a.sequence.get() == b.sequence.get()
    {
        let message =
            format!("both headers have sequence number {}: which is newer cannot be told", a.sequence);
        report.warning("vhdx.header.sequence", place::HEADERS[1], message);
        if a != b {
            report.warning("vhdx.header.differ", place::HEADERS[1], "headers of equal sequence differ");
        }
    }
    Ok(())
}

/// The file as it is after its log's replay, when that is possible.
fn through_log(
    file: &Arc<dyn Storage>,
    copies: &[Copy; 2],
    report: &mut Report,
) -> Result<Arc<dyn Storage>, Fault> {
    let Ok(header) = header::current(copies, true) else { return Ok(Arc::clone(file)) };
    let Some(id) = header.log else { return Ok(Arc::clone(file)) };
    let at = header.log_offset;
    match log::scan(file.as_ref(), &header, id) {
        Ok(replay) => {
            let (entries, changes) = (replay.entries, replay.changes.len());
            let message = format!(
                "a log waits to be replayed ({entries} entries, {changes} changes); checked as if it were"
            );
            report.note("vhdx.log.pending", at, message);
            for change in &replay.changes {
                if change.offset() < place::REGION_TABLES[0] {
                    let message = format!("a log entry would overwrite the headers at {}", change.offset());
                    report.error("vhdx.log.target", at, message);
                }
            }
            let overlay = Overlay::new(Arc::clone(file), &replay);
            Ok(Arc::new(overlay.map_err(|source| Fault::io("the log", at, source))?))
        }
        Err(fault) if fault.kind() == OpenErrorKind::Io => Err(fault),
        Err(fault) => {
            let rule = match fault.kind() {
                OpenErrorKind::Log => "vhdx.log.sequence",
                OpenErrorKind::Truncated => "vhdx.log.truncated",
                _ => "vhdx.log.invalid",
            };
            report.error(rule, at, fault.to_string());
            Ok(Arc::clone(file))
        }
    }
}

fn log_place(header: &header::Header, length: u64, space: &mut Occupancy, report: &mut Report) {
    let offset = place::HEADERS[header.copy];
    let (at, log_length) = (header.log_offset, u64::from(header.log_length));
    if log_length == 0 && header.log.is_none() {
        report.warning("vhdx.header.log-place", offset, "there is no room for a log");
        return;
    }
    if !at.is_multiple_of(MIB) || !log_length.is_multiple_of(MIB) || at < MIB {
        report.error("vhdx.header.log-place", offset, format!("a log of {log_length} bytes at {at}"));
    } else if at.checked_add(log_length).is_none_or(|end| end > length) {
        report.error(
            "vhdx.header.log-place",
            offset,
            format!("the log of {log_length} bytes at {at} leaves the file"),
        );
    } else if let Some(hit) = space.claim(at, log_length) {
        report.error("vhdx.region.overlap", offset, format!("the log overlaps something else at {hit}"));
    }
}

/// Judges both tables; gives the metadata region when it can be read.
fn regions(
    tables: &[TableCopy; 2],
    length: u64,
    space: &mut Occupancy,
    report: &mut Report,
) -> Result<Option<Region>, Fault> {
    for (index, copy) in tables.iter().enumerate() {
        let offset = place::REGION_TABLES[index];
        let worst = severity(matches!(tables[1 - index], TableCopy::Valid(_)));
        match copy {
            TableCopy::Valid(_) => {}
            TableCopy::BadChecksum(_) => {
                report.add("vhdx.region.checksum", worst, offset, "the region table's CRC-32C is wrong");
            }
            TableCopy::Absent => {
                report.add(
                    "vhdx.region.missing",
                    worst,
                    offset,
                    "no region table with the signature \"regi\"",
                );
            }
        }
    }
    if let [TableCopy::Valid(a), TableCopy::Valid(b)] = tables
        && a != b
    {
        report.warning("vhdx.region.differ", place::REGION_TABLES[1], "the two region tables differ");
    }
    let chosen = tables
        .iter()
        .position(|copy| matches!(copy, TableCopy::Valid(_)))
        .or_else(|| tables.iter().position(|copy| matches!(copy, TableCopy::BadChecksum(_))));
    let Some(index) = chosen else { return Ok(None) };
    let (TableCopy::Valid(bytes) | TableCopy::BadChecksum(bytes)) = &tables[index] else { return Ok(None) };
    let base = place::REGION_TABLES[index];
    let Ok((raw, _)) = RegionTableHeader::ref_from_prefix(bytes) else { return Ok(None) };
    if raw.reserved.get() != 0 {
        report.warning("vhdx.region.reserved", base, "the reserved field is not zero");
    }
    if raw.count.get() > MAX_REGIONS {
        let message = format!("{} entries, at most {MAX_REGIONS}", raw.count);
        report.error("vhdx.region.count", base, message);
        return Ok(None);
    }
    let mut seen = Vec::new();
    let mut metadata = None;
    for (number, entry) in region::entries(bytes, base)?.iter().enumerate() {
        let at = region::entry_offset(base, number);
        let known = entry.id == REGION_BAT || entry.id == REGION_METADATA;
        let required = entry.required.get();
        if !known && required & 1 != 0 {
            let message = format!("region {} is required and unknown", entry.id.to_uuid());
            report.error("vhdx.region.unknown", at, message);
        }
        if required > 1 {
            report.warning("vhdx.region.reserved", at, format!("reserved bits are set: {required:#x}"));
        }
        if known && required & 1 == 0 {
            report.warning("vhdx.region.required", at, "a region that must be required is not marked so");
        }
        if seen.contains(&entry.id) {
            report.error(
                "vhdx.region.duplicate",
                at,
                format!("region {} is listed twice", entry.id.to_uuid()),
            );
            continue;
        }
        seen.push(entry.id);
        let (start, size) = (entry.offset.get(), u64::from(entry.length.get()));
        let aligned = start.is_multiple_of(MIB) && size.is_multiple_of(MIB);
        if !aligned || size == 0 || !(MIB..=MAX_FILE_OFFSET).contains(&start) {
            report.error("vhdx.region.place", at, format!("a region of {size} bytes at {start}"));
            continue;
        }
        if start + size > length {
            let message = format!("the region of {size} bytes at {start} leaves the file of {length} bytes");
            report.error("vhdx.region.outside", at, message);
            continue;
        }
        if let Some(hit) = space.claim(start, size) {
            report.error("vhdx.region.overlap", at, format!("the region overlaps something else at {hit}"));
        }
        if entry.id == REGION_METADATA {
            metadata = Some(Region { offset: start, length: entry.length.get() });
        }
    }
    for (id, name) in [(REGION_BAT, "block allocation table"), (REGION_METADATA, "metadata")] {
        if !seen.contains(&id) {
            report.error("vhdx.region.absent", base, format!("no {name} region"));
        }
    }
    Ok(metadata)
}
