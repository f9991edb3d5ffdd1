//! One VHDX file, read: from its structures to runs of virtual bytes.
//!
//! [`Parts`] is the file taken apart and judged, shared with `check`, `replay` and the writer's resume; [`Vhdx`] is the
//! layer that a chain reads. Parents are the chain's part.

use std::sync::Arc;

use crate::bat::{BITMAP_LENGTH, ENTRY, Entry, Geometry, bitmap, payload};
use crate::cache::{PAGE, Page, PageCache};
use crate::error::{Fault, ReadError};
use crate::format::place;
use crate::header::{self, Header};
use crate::info::{DiskKind, Format, Info};
use crate::layer::{LayerRead, Run, RunState, push_run};
use crate::limits::MIB;
use crate::log;
use crate::metadata::{self, Metadata};
use crate::overlay::Overlay;
use crate::region::{self, Regions};
use crate::storage::Storage;

/// Pages kept of the block allocation table: 4 MiB.
const BAT_PAGES: usize = 64;
/// Pages kept of sector bitmaps: 2 MiB.
const BITMAP_PAGES: usize = 32;
/// Pages that each layer of a long chain may keep of either.
const MIN_PAGES: usize = 4;
/// Runs and table entries after which one answer ends.
const MAX_RUNS: usize = 4096;
const MAX_ENTRIES: u64 = 4 << 20;

/// A VHDX file taken apart, every number bounded.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) creator: String,
    pub(crate) header: Header,
    pub(crate) regions: Regions,
    pub(crate) metadata: Metadata,
    pub(crate) geometry: Geometry,
    /// The file, seen through its pending log.
    pub(crate) storage: Arc<dyn Storage>,
    /// Length of the file itself.
    pub(crate) file_size: u64,
    /// A log waits to be replayed.
    pub(crate) log_pending: bool,
    pub(crate) tolerated: Vec<String>,
}

impl Parts {
    /// Reads everything but the block allocation table.
    pub(crate) fn read(file: Arc<dyn Storage>, lenient: bool) -> Result<Self, Fault> {
        let mut tolerated = Vec::new();
        let creator = header::read_identifier(file.as_ref())?;
        let file_size = file.len().map_err(|source| Fault::io("the file's length", 0, source))?;
        let header = header::current(&header::read_copies(file.as_ref())?, lenient)?;
        if header.checksum_ignored {
            tolerated.push(format!("wrong checksum of the header at {}", place::HEADERS[header.copy]));
        }
        let storage: Arc<dyn Storage> = match header.log {
            None => Arc::clone(&file),
            Some(id) => match log::scan(file.as_ref(), &header, id) {
                Ok(replay) => {
                    log::refuse_own(&replay, &header)?;
                    let overlay = Overlay::new(file, &replay);
                    Arc::new(overlay.map_err(|source| Fault::io("the log", header.log_offset, source))?)
                }
                Err(Fault::Log { offset }) if lenient => {
                    tolerated.push(format!("the log at {offset} is in use but has no valid entries"));
                    file
                }
                Err(fault) => return Err(fault),
            },
        };
        let regions = region::find(&region::read_copies(storage.as_ref())?, lenient)?;
        if regions.checksum_ignored {
            let at = place::REGION_TABLES[regions.copy];
            tolerated.push(format!("wrong checksum of the region table at {at}"));
        }
        let metadata = metadata::read(storage.as_ref(), regions.metadata)?;
        let geometry = Geometry {
            virtual_size: metadata.virtual_size,
            block_size: u64::from(metadata.block_size),
            sector_size: u64::from(metadata.logical_sector_size),
            kind: metadata.kind,
        };
        let needed = geometry.entries() * ENTRY;
        if needed > u64::from(regions.bat.length) {
            let problem = format!("{} bytes, the disk needs {needed}", regions.bat.length);
            return Err(Fault::invalid("block allocation table", regions.bat.offset, problem));
        }
        let length = storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
        if regions.bat.offset + needed > length {
            return Err(Fault::Truncated { what: "the block allocation table", offset: regions.bat.offset });
        }
        let log_pending = header.log.is_some();
        Ok(Self { creator, header, regions, metadata, geometry, storage, file_size, log_pending, tolerated })
    }

    /// What the parts say, in the crate's public words.
    pub(crate) fn info(&self) -> Info {
        Info {
            format: Format::Vhdx,
            kind: self.metadata.kind,
            virtual_size: self.metadata.virtual_size,
            block_size: self.metadata.block_size,
            logical_sector_size: self.metadata.logical_sector_size,
            physical_sector_size: self.metadata.physical_sector_size,
            disk_id: self.metadata.disk_id,
            data_write_id: Some(self.header.data_write),
            file_write_id: Some(self.header.file_write),
            creator: self.creator.clone(),
            parent: self.metadata.parent.clone(),
            log_pending: self.log_pending,
            file_size: self.file_size,
            tolerated: self.tolerated.clone(),
        }
    }
}

/// A VHDX file as a layer.
pub(crate) struct Vhdx {
    info: Info,
    geometry: Geometry,
    bat_offset: u64,
    storage: Arc<dyn Storage>,
    /// Length seen through the log.
    length: u64,
    bat: PageCache,
    bitmaps: PageCache,
}

impl Vhdx {
    pub(crate) fn open(file: Arc<dyn Storage>, lenient: bool) -> Result<Self, Fault> {
        let parts = Parts::read(file, lenient)?;
        let length = parts.storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
        Ok(Self {
            info: parts.info(),
            geometry: parts.geometry,
            bat_offset: parts.regions.bat.offset,
            storage: parts.storage,
            length,
            bat: PageCache::new(BAT_PAGES),
            bitmaps: PageCache::new(BITMAP_PAGES),
        })
    }

    /// File offset of an entry of the table.
    fn entry_offset(&self, entry: u64) -> u64 {
        self.bat_offset + entry * ENTRY
    }

    fn bat_page(&self, file_offset: u64, virtual_offset: u64) -> Result<Arc<Page>, ReadError> {
        self.bat.get(self.storage.as_ref(), file_offset / PAGE).map_err(|source| {
            ReadError::io(virtual_offset, "the block allocation table", file_offset, source)
        })
    }

    fn entry(&self, entry: u64, virtual_offset: u64) -> Result<Entry, ReadError> {
        let at = self.entry_offset(entry);
        let page = self.bat_page(at, virtual_offset)?;
        page.u64_at(at % PAGE).map(Entry).ok_or_else(|| {
            ReadError::corrupt(
                virtual_offset,
                format!("the file ends inside the block allocation table at {at}"),
            )
        })
    }

    /// Judges the place of `length` used bytes of a block.
    fn block_offset(
        &self,
        entry: Entry,
        length: u64,
        block: u64,
        virtual_offset: u64,
    ) -> Result<u64, ReadError> {
        let offset = entry.offset();
        let inside = offset >= MIB && offset.checked_add(length).is_some_and(|end| end <= self.length);
        if inside {
            Ok(offset)
        } else {
            let problem = format!("block {block} lies at file offset {offset}, outside the file");
            Err(ReadError::corrupt(virtual_offset, problem))
        }
    }

    /// Runs of a partially present block, `[from, to)` in it; at most [`MAX_RUNS`] are added.
    fn partial_runs(
        &self,
        block: u64,
        data: u64,
        from: u64,
        to: u64,
        runs: &mut Vec<Run>,
    ) -> Result<(), ReadError> {
        let g = &self.geometry;
        let base = block * g.block_size;
        let here = base + from;
        let chunk = block / g.ratio();
        let entry = self.entry(g.bitmap_entry(chunk), here)?;
        if entry.state() != bitmap::PRESENT {
            let problem = format!("block {block} is partially present but has no sector bitmap");
            return Err(ReadError::corrupt(here, problem));
        }
        let bitmap_offset = entry.offset();
        if bitmap_offset < MIB || bitmap_offset.checked_add(BITMAP_LENGTH).is_none_or(|end| end > self.length)
        {
            let problem =
                format!("the sector bitmap of chunk {chunk} lies at {bitmap_offset}, outside the file");
            return Err(ReadError::corrupt(here, problem));
        }
        // Bits count from the chunk's first sector.
        let first_bit = (block % g.ratio()) * (g.block_size / g.sector_size);
        let mut at = from;
        let added = runs.len();
        while at < to && runs.len() < added + MAX_RUNS {
            let bit = first_bit + at / g.sector_size;
            let byte_at = bitmap_offset + bit / 8;
            let page = self
                .bitmaps
                .get(self.storage.as_ref(), byte_at / PAGE)
                .map_err(|source| ReadError::io(base + at, "a sector bitmap", byte_at, source))?;
            let page_bits = PAGE * 8;
            let start = (byte_at % PAGE) * 8 + bit % 8;
            let sectors_left = to.div_ceil(g.sector_size) - at / g.sector_size;
            let stop = page_bits.min(start + sectors_left);
            let (set, until) = bit_run(&page.bytes, start, stop);
            if until <= start {
                return Err(ReadError::corrupt(
                    base + at,
                    format!("the file ends in a sector bitmap at {byte_at}"),
                ));
            }
            let end = ((at / g.sector_size + (until - start)) * g.sector_size).min(to);
            let state = if set { RunState::Data { file_offset: data + at } } else { RunState::Absent };
            push_run(runs, Run { offset: base + at, length: end - at, state });
            at = end;
        }
        Ok(())
    }
}

/// The value of bit `start` (LSB first) and the first bit after it, at most `stop`, with another value or without a
/// byte to be in.
fn bit_run(bytes: &[u8], start: u64, stop: u64) -> (bool, u64) {
    let byte = |bit: u64| usize::try_from(bit / 8).ok().and_then(|index| bytes.get(index)).copied();
    let Some(first) = byte(start) else { return (false, start) };
    let set = first >> (start % 8) & 1 == 1;
    let same = if set { 0xff } else { 0 };
    let mut bit = start;
    while bit < stop {
        let Some(value) = byte(bit) else { break };
        if bit.is_multiple_of(8) && value == same {
            bit += 8;
        } else if (value >> (bit % 8) & 1 == 1) == set {
            bit += 1;
        } else {
            break;
        }
    }
    (set, bit.min(stop))
}

impl LayerRead for Vhdx {
    fn info(&self) -> &Info {
        &self.info
    }

    fn share_memory(&mut self, layers: usize) {
        self.bat.resize((BAT_PAGES / layers.max(1)).max(MIN_PAGES));
        self.bitmaps.resize((BITMAP_PAGES / layers.max(1)).max(MIN_PAGES));
    }

    fn runs(&self, offset: u64, length: u64) -> Result<Vec<Run>, ReadError> {
        let g = &self.geometry;
        let end = match offset.checked_add(length) {
            Some(end) if end <= g.virtual_size => end,
            _ => return Err(ReadError::out_of_range(offset, length, g.virtual_size)),
        };
        let mut runs = Vec::new();
        let mut at = offset;
        let mut budget = MAX_ENTRIES;
        while at < end && runs.len() < MAX_RUNS && budget > 0 {
            let block = at / g.block_size;
            let entry_at = self.entry_offset(g.payload_entry(block));
            let page = match self.bat_page(entry_at, at) {
                Ok(page) => page,
                // What is known so far is an answer; the next call meets the error itself.
                Err(_) if !runs.is_empty() => break,
                Err(error) => return Err(error),
            };
            if page.zero {
                // Every entry of the page says "not present": go on at the first block of the next page.
                let page_end = (entry_at / PAGE + 1) * PAGE;
                let next = g.block_from_entry((page_end - self.bat_offset) / ENTRY);
                let until = (next * g.block_size).min(end);
                push_run(&mut runs, Run { offset: at, length: until - at, state: self.absent() });
                budget = budget.saturating_sub(PAGE / ENTRY);
                at = until;
                continue;
            }
            budget -= 1;
            let until = ((block + 1) * g.block_size).min(end);
            match self.block_runs(&page, entry_at, block, at, until, &mut runs) {
                Ok(()) => {}
                Err(_) if !runs.is_empty() => break,
                Err(error) => return Err(error),
            }
            at = runs.last().map_or(until, Run::end);
        }
        Ok(runs)
    }

    fn read_data(&self, buf: &mut [u8], file_offset: u64, virtual_offset: u64) -> Result<(), ReadError> {
        self.storage
            .read_at(buf, file_offset)
            .map_err(|source| ReadError::io(virtual_offset, "payload", file_offset, source))
    }

    fn host_file(&self) -> Option<&std::fs::File> {
        self.storage.host_file()
    }
}

impl Vhdx {
    /// What "not present" means here: a fixed disk has no holes, only zeros it did not need to store.
    fn absent(&self) -> RunState {
        if self.geometry.kind == DiskKind::Fixed { RunState::Zero } else { RunState::Absent }
    }

    /// Adds the runs of `[at, until)`, which lies in `block`, whose entry is at file offset `entry_at` in `page`.
    fn block_runs(
        &self,
        page: &Page,
        entry_at: u64,
        block: u64,
        at: u64,
        until: u64,
        runs: &mut Vec<Run>,
    ) -> Result<(), ReadError> {
        let g = &self.geometry;
        let entry = page.u64_at(entry_at % PAGE).map(Entry).ok_or_else(|| {
            ReadError::corrupt(at, format!("the file ends inside the block allocation table at {entry_at}"))
        })?;
        let base = block * g.block_size;
        let state = match entry.state() {
            payload::NOT_PRESENT => self.absent(),
            payload::UNDEFINED | payload::ZERO | payload::UNMAPPED => RunState::Zero,
            payload::FULLY_PRESENT => {
                let data = self.block_offset(entry, g.used_length(block), block, at)?;
                RunState::Data { file_offset: data + (at - base) }
            }
            payload::PARTIALLY_PRESENT if g.kind == DiskKind::Differencing => {
                let data = self.block_offset(entry, g.used_length(block), block, at)?;
                return self.partial_runs(block, data, at - base, until - base, runs);
            }
            state => {
                let problem =
                    format!("block {block} has state {state}, which this kind of disk does not have");
                return Err(ReadError::corrupt(at, problem));
            }
        };
        push_run(runs, Run { offset: at, length: until - at, state });
        Ok(())
    }
}
