//! The replay log: writes that were promised to the file but may not have reached it.
//!
//! Hyper-V puts each transaction into the log, sets the count of pending entries, applies the entries and sets the count
//! back to zero, leaving the old entries in place. A file whose count is not zero was torn in between; applying the
//! entries, which may have happened already, makes it whole. This module verifies them and lays them over the image in
//! memory; the file itself is never written.

use zerocopy::{FromBytes, IntoBytes};

use super::format::{Checksummed, FileHeader, LOG_SIGNATURE, LogEntry, LogEntryAlternative, LogHeader};
use super::read::Reader;
use super::source::Patch;
use crate::error::{ReadError, ReadErrorKind};

/// Largest room for log header and entries that is looked at, in bytes: sixteen times what Hyper-V uses.
const MAX_LOG_HEADER: u32 = 16 * super::format::LOG_HEADER_SIZE;
/// Most bytes that a log may write.
const MAX_LOG_DATA: u64 = 64 << 20;

/// Verifies the log header and applies what is pending to the reader's image.
pub(super) fn replay(r: &mut Reader<'_>, file: &FileHeader) -> Result<(), ReadError> {
    let at = file.log_offset.get();
    let bytes = r.image.read(at, size_of::<LogHeader>(), "the replay log header")?;
    let Ok(header) = LogHeader::read_from_bytes(&bytes) else {
        return Err(ReadError::truncated(at, "the replay log header is cut off"));
    };
    if header.signature.get() != LOG_SIGNATURE {
        return Err(ReadError::corrupt(at, "the replay log has a wrong signature"));
    }
    let trusted = r.verify(at, "the replay log header", &header)?;
    let pending = header.pending.get();
    if pending == 0 || !trusted {
        return Ok(());
    }
    match collect(r, file, &header, at) {
        Ok(patches) => {
            r.note(at, format!("{pending} pending writes of the replay log were applied in memory"));
            r.image.apply(patches);
            Ok(())
        }
        Err(e) if e.kind() == ReadErrorKind::Checksum && r.tolerant() => {
            let offset = e.offset().unwrap_or(at);
            r.note(offset, format!("the replay log was left unapplied: {e}"));
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Every pending write, or an error: a log is applied as a whole or not at all.
fn collect(r: &Reader<'_>, file: &FileHeader, header: &LogHeader, at: u64) -> Result<Vec<Patch>, ReadError> {
    let pending = header.pending.get();
    let room = file.log_header_size.get().min(MAX_LOG_HEADER) as usize;
    let fits = room.saturating_sub(size_of::<LogHeader>()) / size_of::<LogEntry>();
    if pending > header.max_entries.get() || pending as usize > fits {
        return Err(ReadError::corrupt(
            at,
            format!("the replay log claims {pending} entries, more than fit"),
        ));
    }
    let start = at + size_of::<LogHeader>() as u64;
    let size = pending as usize * size_of::<LogEntry>();
    let table = r.image.read(start, size, "the replay log's entries")?;
    let entries = entries(&table, start)?;
    let log_size = file.log_size.get();
    let log_end = at.saturating_add(log_size);
    let mut total = 0;
    let mut patches = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let entry_at = start + (i * size_of::<LogEntry>()) as u64;
        let (destination, size, source) = (entry.destination.get(), entry.size.get(), entry.source.get());
        let what = format!("the data of replay log entry {i}");
        total += u64::from(size);
        if total > MAX_LOG_DATA {
            return Err(ReadError::limit(
                entry_at,
                format!("the replay log writes more than {MAX_LOG_DATA} bytes"),
            ));
        }
        if source.checked_add(size.into()).is_none_or(|end| end > log_size) {
            return Err(ReadError::corrupt(entry_at, format!("{what} lies outside the log")));
        }
        let end = destination.checked_add(size.into()).filter(|end| *end <= r.max_len());
        let Some(end) = end else {
            return Err(ReadError::limit(
                entry_at,
                format!("replay log entry {i} writes far beyond the file"),
            ));
        };
        if destination < log_end && end > at {
            return Err(ReadError::corrupt(
                entry_at,
                format!("replay log entry {i} writes into the log itself"),
            ));
        }
        let data = r.image.read(at + source, size as usize, &what)?;
        let computed = crc32fast::hash(&data);
        if computed != entry.data_checksum.get() {
            return Err(super::read::checksum_error(at + source, &what, entry.data_checksum.get(), computed));
        }
        patches.push(Patch { offset: destination, data: data.into_owned() });
    }
    Ok(patches)
}

/// The entries in whichever of the two published orders of fields makes every checksum right.
fn entries(table: &[u8], start: u64) -> Result<Vec<LogEntry>, ReadError> {
    let chunks = || table.chunks_exact(size_of::<LogEntry>());
    let hyperv: Vec<LogEntry> = chunks().filter_map(|c| LogEntry::read_from_bytes(c).ok()).collect();
    let Some(bad) = hyperv.iter().position(|e| e.stored() != e.computed()) else {
        return Ok(hyperv);
    };
    let other: Vec<LogEntryAlternative> =
        chunks().filter_map(|c| LogEntryAlternative::read_from_bytes(c).ok()).collect();
    if other.iter().all(|e| e.stored() == e.computed()) {
        let same = |e: LogEntryAlternative| LogEntry {
            destination: e.destination,
            size: e.size,
            source: e.source,
            checksum: e.checksum,
            data_checksum: e.data_checksum,
        };
        return Ok(other.into_iter().map(same).collect());
    }
    let entry = &hyperv[bad];
    let at = start + (bad * entry.as_bytes().len()) as u64;
    Err(super::read::checksum_error(at, &format!("replay log entry {bad}"), entry.stored(), entry.computed()))
}
