//! The rules of the block allocation table: states, places, overlaps.
//!
//! The table is read once, front to back, a MiB at a time; parts of it that are all zero cost one look.

use super::super::{Report, Severity};
use super::occupancy::Occupancy;
use crate::bat::{BITMAP_LENGTH, ENTRY, Entry, Geometry, bitmap, payload};
use crate::cache::is_zero;
use crate::error::Fault;
use crate::info::DiskKind;
use crate::limits::MIB;
use crate::reader::Parts;

/// Bytes of table looked at together.
const CHUNK: u64 = MIB;

pub(super) fn check(parts: &Parts, space: &mut Occupancy, report: &mut Report) -> Result<(), Fault> {
    let length = parts.storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
    let mut walk =
        Walk { g: parts.geometry, length, space, report, chunk_is_partial: false, stale: None, bare: 0 };
    let g = parts.geometry;
    let start = parts.regions.bat.offset;
    let entries = g.entries();
    let per_chunk = g.ratio() + 1;
    let mut bytes = vec![0; CHUNK as usize];
    let mut number = 0;
    while number < entries {
        let count = (entries - number).min(CHUNK / ENTRY);
        let offset = start + number * ENTRY;
        let part = &mut bytes[..(count * ENTRY) as usize];
        parts
            .storage
            .read_at(part, offset)
            .map_err(|source| Fault::io("the block allocation table", offset, source))?;
        // Zeros are right everywhere except under a chunk that has partial blocks and needs its bitmap.
        if !walk.chunk_is_partial && is_zero(part) {
            let blocks = |number| g.block_from_entry(number).min(g.blocks());
            let absent = blocks(number + count) - blocks(number);
            walk.report.blocks.absent += absent;
            walk.bare += absent;
            number += count;
            continue;
        }
        let (mut chunk, mut place) = (number / per_chunk, number % per_chunk);
        for (index, raw) in part.as_chunks::<8>().0.iter().enumerate() {
            let entry = Entry(u64::from_le_bytes(*raw));
            let at = offset + index as u64 * ENTRY;
            if place == g.ratio() {
                walk.bitmap(chunk, entry, at);
                (chunk, place) = (chunk + 1, 0);
            } else {
                let block = chunk * g.ratio() + place;
                if block < g.blocks() {
                    walk.payload(block, entry, at);
                } else if entry != Entry(0) {
                    walk.report.note(
                        "vhdx.bat.surplus",
                        at,
                        "an entry beyond the disk's last block is in use",
                    );
                }
                place += 1;
            }
        }
        number += count;
    }
    walk.finish(start);
    Ok(())
}

struct Walk<'a> {
    g: Geometry,
    length: u64,
    space: &'a mut Occupancy,
    report: &'a mut Report,
    /// A block since the last bitmap entry is partially present.
    chunk_is_partial: bool,
    /// Offset of the first and number of entries that name a place they do not use.
    stale: Option<(u64, u64)>,
    /// Blocks of state "not present".
    bare: u64,
}

impl Walk<'_> {
    fn payload(&mut self, block: u64, entry: Entry, at: u64) {
        let differencing = self.g.kind == DiskKind::Differencing;
        if entry.reserved() != 0 {
            self.report.error_with("vhdx.bat.reserved", at, || {
                format!("block {block}: reserved bits are set: {:#x}", entry.0)
            });
        }
        match entry.state() {
            payload::NOT_PRESENT => {
                self.report.blocks.absent += 1;
                self.bare += 1;
                self.unused_place(entry, at);
            }
            payload::UNDEFINED | payload::ZERO | payload::UNMAPPED => {
                self.report.blocks.zero += 1;
                self.unused_place(entry, at);
            }
            payload::FULLY_PRESENT => {
                self.report.blocks.present += 1;
                self.place(block, entry, at);
            }
            payload::PARTIALLY_PRESENT => {
                self.report.blocks.partial += 1;
                if differencing {
                    self.chunk_is_partial = true;
                } else {
                    self.report.error_with("vhdx.bat.state-illegal", at, || {
                        format!("block {block} is partially present, but the disk has no parent")
                    });
                }
                self.place(block, entry, at);
            }
            state => {
                self.report.blocks.absent += 1;
                self.report
                    .error_with("vhdx.bat.state-unknown", at, || format!("block {block} has state {state}"));
            }
        }
    }

    fn unused_place(&mut self, entry: Entry, at: u64) {
        if entry.offset() != 0 {
            let (first, count) = self.stale.unwrap_or((at, 0));
            self.stale = Some((first, count + 1));
        }
    }

    fn place(&mut self, block: u64, entry: Entry, at: u64) {
        let (offset, size) = (entry.offset(), self.g.block_size);
        let used = self.g.used_length(block);
        let inside = |length: u64| offset.checked_add(length).is_some_and(|end| end <= self.length);
        if offset < MIB || !inside(used) {
            self.report.error_with("vhdx.bat.outside", at, || {
                format!("block {block} at {offset} is not inside the file of {} bytes", self.length)
            });
            return;
        }
        if !inside(size) {
            self.report.add_with("vhdx.bat.cut", Severity::Warning, at, || {
                format!("the file ends in the unused rest of block {block} at {offset}")
            });
        }
        if let Some(hit) = self.space.claim(offset, size) {
            self.report.error_with("vhdx.bat.overlap", at, || {
                format!("block {block} at {offset} overlaps something else at {hit}")
            });
        }
    }

    fn bitmap(&mut self, chunk: u64, entry: Entry, at: u64) {
        let partial = std::mem::take(&mut self.chunk_is_partial);
        if entry.reserved() != 0 {
            self.report.error_with("vhdx.bat.reserved", at, || {
                format!("the sector bitmap of chunk {chunk}: reserved bits are set: {:#x}", entry.0)
            });
        }
        match entry.state() {
            bitmap::NOT_PRESENT => {
                self.unused_place(entry, at);
                if partial {
                    self.report.error_with("vhdx.bat.bitmap-missing", at, || {
                        format!("chunk {chunk} has partially present blocks, but no sector bitmap")
                    });
                }
            }
            bitmap::PRESENT if self.g.kind != DiskKind::Differencing => {
                self.report.add_with("vhdx.bat.bitmap-unexpected", Severity::Warning, at, || {
                    format!("chunk {chunk} has a sector bitmap, but the disk has no parent")
                });
            }
            bitmap::PRESENT => {
                let offset = entry.offset();
                if offset < MIB || offset.checked_add(BITMAP_LENGTH).is_none_or(|end| end > self.length) {
                    self.report.error_with("vhdx.bat.outside", at, || {
                        format!("the sector bitmap of chunk {chunk} at {offset} is not inside the file")
                    });
                } else if let Some(hit) = self.space.claim(offset, BITMAP_LENGTH) {
                    self.report.error_with("vhdx.bat.overlap", at, || {
                        format!("the sector bitmap of chunk {chunk} overlaps something else at {hit}")
                    });
                }
            }
            state => {
                self.report.error_with("vhdx.bat.state-unknown", at, || {
                    format!("the sector bitmap of chunk {chunk} has state {state}")
                });
            }
        }
    }

    fn finish(self, start: u64) {
        if let Some((first, count)) = self.stale {
            let message = format!(
                "{count} entries of blocks that are not in the file still name a place; it is ignored"
            );
            self.report.note("vhdx.bat.stale", first, message);
        }
        if self.g.kind == DiskKind::Fixed && self.bare > 0 {
            let message = format!("{} blocks of a fixed disk are not allocated", self.bare);
            self.report.note("vhdx.bat.fixed-absent", start, message);
        }
    }
}
