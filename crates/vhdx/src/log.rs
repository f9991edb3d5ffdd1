//! The log: which entries count, and what they change.
//!
//! A VHDX whose header names a log GUID was not closed: the changes in the log must be applied before the tables mean
//! anything ([MS-VHDX] 2.3). [`scan`] finds the active sequence and turns it into a list of [`Change`]s; `overlay`
//! shows them without touching the file, `replay` writes them. Writing new entries belongs here when it comes.

use std::io;

use zerocopy::FromBytes;

use crate::error::Fault;
use crate::format::{
    DATA_SECTOR, DESCRIPTOR_DATA, DESCRIPTOR_ZERO, Guid, LOG_SECTOR, LOG_SIGNATURE, LogDescriptor,
    LogEntryHeader, place,
};
use crate::header::Header;
use crate::limits::{MAX_FILE_OFFSET, MAX_LOG_CHANGES, MAX_LOG_LENGTH};
use crate::storage::Storage;

/// One change the log wants made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A sector of 4 KiB.
    Sector {
        /// Where it goes.
        offset: u64,
        /// File offset of the data sector in the log.
        source: u64,
        /// Its first eight bytes, which the data sector has no room for.
        leading: [u8; 8],
        /// Its last four.
        trailing: [u8; 4],
    },
    /// Zeros.
    Zero { offset: u64, length: u64 },
}

impl Change {
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Sector { offset, .. } | Self::Zero { offset, .. } => *offset,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        match self {
            Self::Sector { offset, .. } => offset + LOG_SECTOR,
            Self::Zero { offset, length } => offset + length,
        }
    }
}

/// The active sequence of a log, ready to apply in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) changes: Vec<Change>,
    /// The file must be at least this long afterwards.
    pub(crate) last_offset: u64,
    /// Entries in the sequence.
    pub(crate) entries: usize,
}

/// A valid entry: where the next one must be and what it needs.
#[derive(Clone, Copy, Debug)]
struct EntryPlace {
    /// Sectors of the entry.
    sectors: usize,
    tail: usize,
    sequence: u64,
    flushed: u64,
    last: u64,
}

/// The log in memory, seen as a ring of sectors.
struct Ring {
    bytes: Vec<u8>,
    sectors: usize,
}

impl Ring {
    /// `count` sectors from `start`, in one piece.
    fn take(&self, start: usize, count: usize) -> Vec<u8> {
        let size = LOG_SECTOR as usize;
        let mut out = Vec::with_capacity(count * size);
        for sector in start..start + count {
            let at = (sector % self.sectors) * size;
            out.extend_from_slice(&self.bytes[at..at + size]);
        }
        out
    }

    fn sector(&self, index: usize) -> &[u8] {
        let size = LOG_SECTOR as usize;
        let at = (index % self.sectors) * size;
        &self.bytes[at..at + size]
    }

    /// CRC-32C of an entry, its own checksum counted as zero, without copying it.
    fn checksum(&self, start: usize, count: usize) -> u32 {
        let first = self.sector(start);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&first[..4]), &[0; 4]);
        let crc = crc32c::crc32c_append(crc, &first[8..]);
        (start + 1..start + count).fold(crc, |crc, sector| crc32c::crc32c_append(crc, self.sector(sector)))
    }
}

/// Finds the active sequence of the log that `header` names.
///
/// # Errors
/// [`Fault::Log`] when no valid sequence exists, `Truncated` when the file is shorter than the log knew it to be.
pub(crate) fn scan(storage: &dyn Storage, header: &Header, log: Guid) -> Result<Replay, Fault> {
    let at = header.log_offset;
    if header.log_length > MAX_LOG_LENGTH {
        let problem = format!("{} bytes, at most {MAX_LOG_LENGTH} are replayed", header.log_length);
        return Err(Fault::unsupported("log", at, problem));
    }
    let file_length = storage.len().map_err(|source| Fault::io("the log", at, source))?;
    if at.checked_add(u64::from(header.log_length)).is_none_or(|end| end > file_length) {
        return Err(Fault::Truncated { what: "the log", offset: at });
    }
    let mut bytes = vec![0; header.log_length as usize];
    storage.read_at(&mut bytes, at).map_err(|source| Fault::io("the log", at, source))?;
    let sectors = bytes.len() / LOG_SECTOR as usize;
    let ring = Ring { bytes, sectors };

    // Honest leftovers overlap little; this bounds what a crafted log can make us sum up.
    let mut budget = ring.bytes.len() as u64 * 16;
    let mut places: Vec<Option<EntryPlace>> = Vec::with_capacity(sectors);
    for start in 0..sectors {
        let place = parse(&ring, start, log, &mut budget);
        if budget == 0 {
            return Err(Fault::invalid("log", at, "its entries overlap beyond reason"));
        }
        places.push(place);
    }

    let next = |start: usize| -> Option<usize> {
        let place = places[start]?;
        let follower = (start + place.sectors) % sectors;
        (places[follower]?.sequence == place.sequence.checked_add(1)?).then_some(follower)
    };
    // Sequence numbers only grow along `next`, so no walk returns to where it was. The head is where a walk ends; the
    // sequence is valid when the entry that the head calls the tail leads to it without lapping the ring.
    let mut best: Option<(u64, Vec<usize>)> = None;
    for head in (0..sectors).filter(|start| places[*start].is_some() && next(*start).is_none()) {
        let Some(place) = places[head] else { continue };
        if best.as_ref().is_some_and(|(sequence, _)| *sequence >= place.sequence) {
            continue;
        }
        let mut walk = vec![place.tail];
        let mut used = places[place.tail].map_or(0, |entry| entry.sectors);
        while let Some(follower) = walk.last().copied().filter(|last| *last != head).and_then(next) {
            used += places[follower].map_or(0, |entry| entry.sectors);
            if used > sectors {
                break;
            }
            walk.push(follower);
        }
        if walk.last() == Some(&head) && used <= sectors {
            best = Some((place.sequence, walk));
        }
    }
    let Some((_, walk)) = best else { return Err(Fault::Log { offset: at }) };

    let mut replay = Replay { entries: walk.len(), ..Replay::default() };
    for start in &walk {
        let Some(place) = places[*start] else { continue };
        replay.last_offset = replay.last_offset.max(place.last);
        if place.flushed > file_length && Some(start) == walk.last() {
            return Err(Fault::Truncated { what: "the part the log has seen on disk", offset: file_length });
        }
        changes(&ring, *start, place, at, &mut replay.changes);
        if replay.changes.len() > MAX_LOG_CHANGES {
            let problem = format!("more than {MAX_LOG_CHANGES} changes");
            return Err(Fault::unsupported("log", at, problem));
        }
    }
    if replay.last_offset > MAX_FILE_OFFSET {
        return Err(Fault::invalid("log", at, format!("a file of {} bytes", replay.last_offset)));
    }
    let limit = file_length.max(replay.last_offset);
    if let Some(change) = replay.changes.iter().find(|change| change.end() > limit) {
        return Err(Fault::invalid(
            "log",
            at,
            format!("a change at {} beyond the file's end", change.offset()),
        ));
    }
    Ok(replay)
}

/// Refuses changes to what a log has no business with: the headers, which say where it is, and itself.
pub(crate) fn refuse_own(replay: &Replay, header: &Header) -> Result<(), Fault> {
    let end = header.log_offset.saturating_add(u64::from(header.log_length));
    let own = [(place::IDENTIFIER, place::REGION_TABLES[0]), (header.log_offset, end)];
    let hits = |change: &&Change| own.iter().any(|(from, to)| change.offset() < *to && *from < change.end());
    match replay.changes.iter().find(hits) {
        None => Ok(()),
        Some(change) => {
            let problem =
                format!("a change at {} would overwrite the headers or the log itself", change.offset());
            Err(Fault::invalid("log", header.log_offset, problem))
        }
    }
}

/// Judges the entry that starts at sector `start`, in the order cheap to costly.
fn parse(ring: &Ring, start: usize, log: Guid, budget: &mut u64) -> Option<EntryPlace> {
    let first = ring.sector(start);
    let (header, _) = LogEntryHeader::ref_from_prefix(first).ok()?;
    let length = u64::from(header.length.get());
    let tail = u64::from(header.tail.get());
    let ring_length = ring.bytes.len() as u64;
    let count = u64::from(header.descriptors.get());
    let plain = header.signature == LOG_SIGNATURE
        && header.log == log
        && length >= LOG_SECTOR
        && length % LOG_SECTOR == 0
        && length <= ring_length
        && tail % LOG_SECTOR == 0
        && tail < ring_length
        && header.sequence.get() > 0
        && descriptor_sectors(count) * LOG_SECTOR <= length;
    if !plain {
        return None;
    }
    *budget = budget.saturating_sub(length);
    let sectors = (length / LOG_SECTOR) as usize;
    if *budget == 0 || ring.checksum(start, sectors) != header.checksum.get() {
        return None;
    }
    let place = EntryPlace {
        sectors,
        tail: (tail / LOG_SECTOR) as usize,
        sequence: header.sequence.get(),
        flushed: header.flushed_offset.get(),
        last: header.last_offset.get(),
    };
    let mut data = descriptor_sectors(count) as usize;
    for descriptor in descriptors(ring, start, count as usize) {
        let offset = descriptor.offset.get();
        if descriptor.sequence.get() != place.sequence || offset % LOG_SECTOR != 0 || offset > MAX_FILE_OFFSET
        {
            return None;
        }
        match descriptor.signature {
            DESCRIPTOR_DATA => {
                if data >= sectors || !is_data_sector(ring.sector(start + data), place.sequence) {
                    return None;
                }
                data += 1;
            }
            DESCRIPTOR_ZERO => {
                let length = u64::from_le_bytes(descriptor.leading);
                if length % LOG_SECTOR != 0 || length > MAX_FILE_OFFSET {
                    return None;
                }
            }
            _ => return None,
        }
    }
    (data == sectors).then_some(place)
}

/// Sectors that the entry header and `count` descriptors take.
fn descriptor_sectors(count: u64) -> u64 {
    (size_of::<LogEntryHeader>() as u64 + count * size_of::<LogDescriptor>() as u64).div_ceil(LOG_SECTOR)
}

fn descriptors(ring: &Ring, start: usize, count: usize) -> Vec<LogDescriptor> {
    let bytes = ring.take(start, descriptor_sectors(count as u64) as usize);
    bytes
        .get(size_of::<LogEntryHeader>()..)
        .and_then(|rest| <[LogDescriptor]>::ref_from_prefix_with_elems(rest, count).ok())
        .map(|(descriptors, _)| descriptors.to_vec())
        .unwrap_or_default()
}

fn is_data_sector(sector: &[u8], sequence: u64) -> bool {
    let high = (sequence >> 32) as u32;
    let low = sequence as u32;
    sector.starts_with(&DATA_SECTOR)
        && sector.get(4..8) == Some(&high.to_le_bytes())
        && sector.get(4092..) == Some(&low.to_le_bytes())
}

/// What a valid entry changes; the log lies at file offset `log_offset`.
fn changes(ring: &Ring, start: usize, place: EntryPlace, log_offset: u64, out: &mut Vec<Change>) {
    let Ok((header, _)) = LogEntryHeader::ref_from_prefix(ring.sector(start)) else { return };
    let count = header.descriptors.get() as usize;
    debug_assert!(place.sectors > 0);
    let mut data = descriptor_sectors(count as u64) as usize;
    for descriptor in descriptors(ring, start, count) {
        let offset = descriptor.offset.get();
        if descriptor.signature == DESCRIPTOR_DATA {
            let source = log_offset + ((start + data) % ring.sectors) as u64 * LOG_SECTOR;
            data += 1;
            out.push(Change::Sector {
                offset,
                source,
                leading: descriptor.leading,
                trailing: descriptor.trailing,
            });
        } else {
            let length = u64::from_le_bytes(descriptor.leading);
            if length > 0 {
                out.push(Change::Zero { offset, length });
            }
        }
    }
}

/// The 4 KiB that a [`Change::Sector`] stands for.
pub(crate) fn sector_bytes(
    storage: &dyn Storage,
    source: u64,
    leading: [u8; 8],
    trailing: [u8; 4],
) -> io::Result<[u8; LOG_SECTOR as usize]> {
    let mut bytes = [0; LOG_SECTOR as usize];
    storage.read_at(&mut bytes, source)?;
    bytes[..8].copy_from_slice(&leading);
    bytes[LOG_SECTOR as usize - 4..].copy_from_slice(&trailing);
    Ok(bytes)
}
