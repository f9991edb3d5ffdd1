//! A new VHDX being filled, by several threads at once, in bounded memory.
//!
//! Life of a file: [`Writer::create`] lays the structures down; [`Writer::write_at`] puts payload into blocks, which are
//! appended in the order of their first touch; [`Writer::checkpoint`] makes what was written so far survive;
//! [`Writer::finish`] gives the file its final identity. [`Writer::resume`] goes on after a crash.
//!
//! The rule that makes a crash harmless: **an entry of the block allocation table is written only after the block it
//! names, and the file's length, are durable.** So at every moment the file opens as a valid disk that holds at least
//! what the last checkpoint held. No log is needed, because tables only ever gain entries. Writing into existing disks
//! (with a log), differencing disks and resizing are not done here.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::bat::{ENTRY, Entry, Geometry, payload};
use crate::error::{CreateError, WriteError};
use crate::format::place;
use crate::header::{self, Header, NewHeader};
use crate::info::DiskKind;
use crate::length::Length;
use crate::limits::{MAX_VHDX_SIZE, MIB};
use crate::metadata::{self, BLOCK_SIZES, Metadata};
use crate::reader::Parts;
use crate::region::{self, Region};
use crate::storage::{FileRange, Storage};
use crate::table::Table;

/// Block size when the options say 0: what Windows makes for a dynamic disk.
pub const DEFAULT_BLOCK_SIZE: u32 = 32 << 20;
/// Block size when the options say 0 and the disk is fixed: what Windows makes for that.
pub const DEFAULT_FIXED_BLOCK_SIZE: u32 = 2 << 20;

/// Log, metadata and table lie where Windows puts them.
const LOG: Region = Region { offset: MIB, length: MIB as u32 };
const METADATA: Region = Region { offset: 2 * MIB, length: metadata::REGION_LENGTH };
const BAT_OFFSET: u64 = 3 * MIB;
/// Bytes per write of zeros or of table.
const CHUNK: usize = 1 << 20;

/// What a new disk is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes; more than 0, at most 64 TiB, a multiple of the logical sector size.
    pub virtual_size: u64,
    /// A power of two from 1 to 256 MiB; 0 for what Windows would choose.
    pub block_size: u32,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Fixed or dynamic.
    pub kind: DiskKind,
    /// Identity of the virtual disk (page 83).
    pub disk_id: Uuid,
}

impl CreateOptions {
    /// A dynamic disk as Windows makes one: 32 MiB blocks, 512-byte logical and 4096-byte physical sectors, a new id.
    pub fn dynamic(virtual_size: u64) -> Self {
        Self {
            virtual_size,
            block_size: 0,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            kind: DiskKind::Dynamic,
            disk_id: Uuid::new_v4(),
        }
    }

    fn metadata(&self) -> Result<Metadata, CreateError> {
        let block_size = match (self.block_size, self.kind) {
            (0, DiskKind::Fixed) => DEFAULT_FIXED_BLOCK_SIZE,
            (0, _) => DEFAULT_BLOCK_SIZE,
            (size, _) => size,
        };
        if !BLOCK_SIZES.contains(&block_size) || !block_size.is_power_of_two() {
            let problem = format!("block size {block_size} is not a power of two from 1 MiB to 256 MiB");
            return Err(CreateError::option(problem));
        }
        for (size, what) in [(self.logical_sector_size, "logical"), (self.physical_sector_size, "physical")] {
            if size != 512 && size != 4096 {
                return Err(CreateError::option(format!(
                    "{what} sector size {size} is neither 512 nor 4096"
                )));
            }
        }
        let size = self.virtual_size;
        if size == 0 || size > MAX_VHDX_SIZE {
            return Err(CreateError::option(format!(
                "a disk of {size} bytes, a VHDX holds 1 byte to 64 TiB"
            )));
        }
        if !size.is_multiple_of(u64::from(self.logical_sector_size)) {
            let sector = self.logical_sector_size;
            return Err(CreateError::option(format!(
                "{size} bytes are no multiple of the sector size {sector}"
            )));
        }
        if self.kind == DiskKind::Differencing {
            return Err(CreateError::option("differencing disks cannot be created yet"));
        }
        Ok(Metadata {
            kind: self.kind,
            block_size,
            virtual_size: size,
            logical_sector_size: self.logical_sector_size,
            physical_sector_size: self.physical_sector_size,
            disk_id: self.disk_id,
            parent: None,
        })
    }
}

/// Where everything lies in a file we make.
#[derive(Clone, Copy, Debug)]
struct Layout {
    geometry: Geometry,
    bat: Region,
}

impl Layout {
    fn new(metadata: &Metadata) -> Self {
        let geometry = Geometry {
            virtual_size: metadata.virtual_size,
            block_size: u64::from(metadata.block_size),
            sector_size: u64::from(metadata.logical_sector_size),
            kind: metadata.kind,
        };
        // At most half a GiB and a little: 64 TiB in blocks of 1 MiB.
        let length = (geometry.entries() * ENTRY).next_multiple_of(MIB) as u32;
        Self { geometry, bat: Region { offset: BAT_OFFSET, length } }
    }

    /// Where the first block goes.
    fn payload(&self) -> u64 {
        self.bat.end()
    }

    /// File offset of block `block` of a fixed disk.
    fn fixed_block(&self, block: u64) -> u64 {
        self.payload() + block * self.geometry.block_size
    }
}

/// What changes while blocks are added.
#[derive(Debug)]
struct State {
    table: Table,
    /// Where the next block goes.
    end: u64,
    /// How long the file has been made; never less than `end`.
    length: Length,
}

/// A new VHDX being filled. Threads share it by reference; writes that overlap leave either content.
#[derive(Debug)]
pub struct Writer {
    storage: Arc<dyn Storage>,
    layout: Layout,
    state: Mutex<State>,
    /// Held for the whole of a checkpoint: one at a time.
    flushing: Mutex<()>,
    header: Header,
}

impl Writer {
    /// Begins a disk in `storage`, which must be empty. Nothing is durable before the first checkpoint.
    ///
    /// # Errors
    /// An option no VHDX can have, a target that is not empty, or what the host says.
    pub fn create(storage: Arc<dyn Storage>, options: &CreateOptions) -> Result<Self, CreateError> {
        let metadata = options.metadata()?;
        let present =
            storage.len().map_err(|source| CreateError::io("finding the target's length", source))?;
        if present != 0 {
            return Err(CreateError::not_empty(present));
        }
        let layout = Layout::new(&metadata);
        let new = NewHeader {
            file_write: Uuid::new_v4(),
            data_write: Uuid::new_v4(),
            log: None,
            log_offset: LOG.offset,
            log_length: LOG.length,
        };
        let end = match metadata.kind {
            DiskKind::Fixed => layout.fixed_block(layout.geometry.blocks()),
            _ => layout.payload(),
        };
        let lay_down = || -> std::io::Result<()> {
            storage.set_len(end)?;
            storage.write_at(&metadata::encode(&metadata), METADATA.offset)?;
            if metadata.kind == DiskKind::Fixed {
                write_fixed_table(storage.as_ref(), &layout)?;
            }
            let table = region::encode(layout.bat, METADATA);
            for offset in place::REGION_TABLES {
                storage.write_at(&table, offset)?;
            }
            for (sequence, offset) in (0..).zip(place::HEADERS) {
                storage.write_at(&new.encode(sequence), offset)?;
            }
            let creator = concat!("Slipway ", env!("CARGO_PKG_VERSION"));
            storage.write_at(&header::encode_identifier(creator), place::IDENTIFIER)
        };
        lay_down().map_err(|source| CreateError::io("writing the new file's structures", source))?;
        Self::open(storage, layout, end)
    }

    /// Goes on with a disk that [`Writer::create`] began with the same options and that was checkpointed. What the
    /// last checkpoint covered is there; blocks written later may be absent, partly there or whole, so the caller
    /// writes again what came after its own record of that checkpoint.
    ///
    /// # Errors
    /// `NotResumable` when the file is not such a disk: begin again with an empty one.
    pub fn resume(storage: Arc<dyn Storage>, options: &CreateOptions) -> Result<Self, CreateError> {
        let wanted = options.metadata()?;
        let parts = Parts::read(Arc::clone(&storage), false)
            .map_err(|fault| CreateError::not_resumable(format!("what is there does not open: {fault}")))?;
        let layout = Layout::new(&wanted);
        let found = &parts.metadata;
        let same = found.kind == wanted.kind
            && found.block_size == wanted.block_size
            && found.virtual_size == wanted.virtual_size
            && found.logical_sector_size == wanted.logical_sector_size
            && found.physical_sector_size == wanted.physical_sector_size
            && found.disk_id == wanted.disk_id
            && parts.regions.bat == layout.bat
            && parts.regions.metadata == METADATA
            && !parts.log_pending;
        if !same {
            return Err(CreateError::not_resumable(
                "what is there was begun with other options or by another program",
            ));
        }
        let end = used_end(storage.as_ref(), &layout)?;
        let prepare = || -> std::io::Result<()> {
            // Blocks whose entries did not survive may have left bytes behind: cut them off, so that what is appended
            // from here on reads as zeros.
            storage.set_len(end)
        };
        prepare().map_err(|source| CreateError::io("cutting off what was not checkpointed", source))?;
        Self::open(storage, layout, end)
    }

    fn open(storage: Arc<dyn Storage>, layout: Layout, end: u64) -> Result<Self, CreateError> {
        let header = header::read_copies(storage.as_ref())
            .and_then(|copies| header::current(&copies, false))
            .map_err(|fault| CreateError::not_resumable(fault.to_string()))?;
        let state = State { table: Table::new(layout.bat.offset), end, length: Length::new(end) };
        Ok(Self { storage, layout, state: Mutex::new(state), flushing: Mutex::new(()), header })
    }

    /// Bytes of the disk.
    pub fn virtual_size(&self) -> u64 {
        self.layout.geometry.virtual_size
    }

    /// Bytes of a block: writes that are whole blocks, in order, are cheapest.
    pub fn block_size(&self) -> u32 {
        self.layout.geometry.block_size as u32
    }

    /// Writes `buf` at the virtual `offset`; no alignment is needed.
    ///
    /// # Errors
    /// A range outside the disk, or what the host says. After an error the same write may be tried again.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), WriteError> {
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (block, within) = self.locate(at);
            let length = (self.layout.geometry.block_size - within).min(rest.len() as u64) as usize;
            let (part, after) = rest.split_at(length);
            let file_offset = self.allocate(block)? + within;
            self.storage
                .write_at(part, file_offset)
                .map_err(|source| WriteError::io("writing payload", file_offset, source))?;
            at += length as u64;
            rest = after;
        }
        Ok(())
    }

    /// Puts the bytes of `from` at the virtual `offset` by sharing its blocks. `false`: the host cannot, or not these; they
    /// must be written.
    ///
    /// # Errors
    /// As for [`Writer::write_at`].
    pub fn clone_at(&self, from: FileRange<'_>, offset: u64) -> Result<bool, WriteError> {
        self.check_range(offset, from.length)?;
        let mut done = 0;
        while done < from.length {
            let (block, within) = self.locate(offset + done);
            let length = (self.layout.geometry.block_size - within).min(from.length - done);
            let file_offset = self.allocate(block)? + within;
            let part = FileRange { offset: from.offset + done, length, ..from };
            let cloned = self.storage.clone_range(part, file_offset);
            if !cloned.map_err(|source| WriteError::io("cloning payload", file_offset, source))? {
                return Ok(false);
            }
            done += length;
        }
        Ok(true)
    }

    /// Makes `[offset, offset + length)` zeros as cheaply as possible: untouched blocks wholly inside get the state
    /// ZERO, untouched blocks partly inside are zeros already, and only blocks that hold something are written to.
    ///
    /// # Errors
    /// As for [`Writer::write_at`].
    pub fn mark_zero(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        self.check_range(offset, length)?;
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let (block, within) = self.locate(at);
            let used = self.layout.geometry.used_length(block);
            let until = (at - within + used).min(end);
            let whole = within == 0 && until - at == used;
            if let Some(data) = self.zero_state(block, whole)? {
                self.write_zeros(data + within, until - at)?;
            }
            at = until;
        }
        Ok(())
    }

    /// Makes what was written so far survive power loss, as a file that opens as a valid disk. Writes of other
    /// threads that have not returned yet may or may not be covered.
    ///
    /// # Errors
    /// What the host says; a later checkpoint covers everything again.
    pub fn checkpoint(&self) -> Result<(), WriteError> {
        self.flush_table()?;
        self.sync()
    }

    /// Ends the file: cuts what was grown ahead, gives it its final identity, and makes all of it durable.
    ///
    /// # Errors
    /// What the host says; the file then is what the last checkpoint left.
    pub fn finish(self) -> Result<(), WriteError> {
        self.flush_table()?;
        let end = self.state().end;
        self.storage.set_len(end).map_err(|source| WriteError::io("setting the length", end, source))?;
        self.sync()?;
        let new = NewHeader {
            file_write: Uuid::new_v4(),
            data_write: Uuid::new_v4(),
            log: None,
            log_offset: LOG.offset,
            log_length: LOG.length,
        };
        new.update(self.storage.as_ref(), &self.header)
            .map_err(|source| WriteError::io("writing the headers", place::HEADERS[0], source))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.storage.sync().map_err(|source| WriteError::io("syncing", 0, source))
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        let size = self.virtual_size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(WriteError::out_of_range(offset, length, size)),
        }
    }

    /// Block and offset in it.
    fn locate(&self, at: u64) -> (u64, u64) {
        (at / self.layout.geometry.block_size, at % self.layout.geometry.block_size)
    }

    /// File offset of `block`, which is given a place if it has none.
    fn allocate(&self, block: u64) -> Result<u64, WriteError> {
        if self.layout.geometry.kind == DiskKind::Fixed {
            return Ok(self.layout.fixed_block(block));
        }
        let number = self.layout.geometry.payload_entry(block);
        loop {
            let mut state = self.state();
            let entry = state.table.get(self.storage.as_ref(), number)?;
            if entry.state() == payload::FULLY_PRESENT {
                return Ok(entry.offset());
            }
            if state.table.is_full() {
                drop(state);
                self.flush_table()?;
                continue;
            }
            let offset = state.end;
            let end = offset + self.layout.geometry.block_size;
            state
                .length
                .reach(self.storage.as_ref(), end)
                .map_err(|source| WriteError::io("growing the file", end, source))?;
            state.table.set(self.storage.as_ref(), number, Entry::new(payload::FULLY_PRESENT, offset))?;
            state.end = end;
            return Ok(offset);
        }
    }

    /// The file offset of `block` if it holds something; else, for a whole block, the state ZERO.
    fn zero_state(&self, block: u64, whole: bool) -> Result<Option<u64>, WriteError> {
        if self.layout.geometry.kind == DiskKind::Fixed {
            return Ok(Some(self.layout.fixed_block(block)));
        }
        let number = self.layout.geometry.payload_entry(block);
        loop {
            let mut state = self.state();
            let entry = state.table.get(self.storage.as_ref(), number)?;
            if entry.state() == payload::FULLY_PRESENT {
                return Ok(Some(entry.offset()));
            }
            if !whole || entry.state() == payload::ZERO {
                return Ok(None);
            }
            if state.table.is_full() {
                drop(state);
                self.flush_table()?;
                continue;
            }
            state.table.set(self.storage.as_ref(), number, Entry::new(payload::ZERO, 0))?;
            return Ok(None);
        }
    }

    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        let zeros = vec![0; CHUNK.min(length as usize)];
        let mut at = offset;
        while at < offset + length {
            let step = (offset + length - at).min(zeros.len() as u64);
            self.storage
                .write_at(&zeros[..step as usize], at)
                .map_err(|source| WriteError::io("writing zeros", at, source))?;
            at += step;
        }
        Ok(())
    }

    /// Writes the table's changed pages, after making durable what they will point to.
    fn flush_table(&self) -> Result<(), WriteError> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = self.state().table.begin_flush();
        if pages.is_empty() {
            return Ok(());
        }
        let written = self.sync().and_then(|()| {
            pages.iter().try_for_each(|(offset, bytes)| {
                self.storage
                    .write_at(bytes, *offset)
                    .map_err(|source| WriteError::io("writing the block allocation table", *offset, source))
            })
        });
        self.state().table.end_flush(written.is_ok());
        written
    }
}

/// The table of a fixed disk: every block present, one after another.
fn write_fixed_table(storage: &dyn Storage, layout: &Layout) -> std::io::Result<()> {
    let g = &layout.geometry;
    let per_chunk = g.ratio() + 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut at = layout.bat.offset;
    for number in 0..g.entries() {
        let entry = if number % per_chunk == g.ratio() {
            Entry(0)
        } else {
            Entry::new(payload::FULLY_PRESENT, layout.fixed_block(g.block_from_entry(number)))
        };
        bytes.extend_from_slice(&entry.0.to_le_bytes());
        if bytes.len() == CHUNK || number + 1 == g.entries() {
            storage.write_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    Ok(())
}

/// End of the last block that the table on disk names.
fn used_end(storage: &dyn Storage, layout: &Layout) -> Result<u64, CreateError> {
    let g = &layout.geometry;
    if g.kind == DiskKind::Fixed {
        return Ok(layout.fixed_block(g.blocks()));
    }
    let table_end = layout.bat.offset + g.entries() * ENTRY;
    let mut end = layout.payload();
    let mut at = layout.bat.offset;
    let mut bytes = vec![0; CHUNK];
    let length = storage.len().map_err(|source| CreateError::io("finding the length", source))?;
    while at < table_end {
        let step = (table_end - at).min(CHUNK as u64) as usize;
        storage
            .read_at(&mut bytes[..step], at)
            .map_err(|source| CreateError::io("reading the block allocation table", source))?;
        for raw in bytes[..step].chunks_exact(8) {
            let entry = Entry(raw.try_into().map_or(0, u64::from_le_bytes));
            if entry.state() != payload::FULLY_PRESENT {
                continue;
            }
            let block_end = entry.offset().saturating_add(g.block_size);
            if entry.offset() < layout.payload() || block_end > length {
                return Err(CreateError::not_resumable(format!(
                    "a block at {} lies outside",
                    entry.offset()
                )));
            }
            end = end.max(block_end);
        }
        at += step as u64;
    }
    Ok(end)
}
