//! A new VHD being filled, by several threads at once.
//!
//! Life of a file: [`VhdWriter::create`] takes an empty storage; [`VhdWriter::write_at`] puts payload where it belongs,
//! in a dynamic disk into blocks that are appended in the order of their first touch; [`VhdWriter::finish`] writes the
//! table, the header and last the footers. Until then the file has no footer and no reader takes it for a disk, so a
//! crash leaves something that is obviously unfinished. There is no checkpoint and no resuming: VHDX has both.
//!
//! A dynamic file of ours lies like Windows' own: footer copy at 0, header at 512, table at 1536, then the blocks, each
//! data area at a multiple of 4 KiB with its sector bitmap in the sector before. The bitmap is all ones: the file is
//! fresh, so a sector nobody wrote is zeros all the same. Differencing disks are not made here.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::IntoBytes;

use super::bat::{ABSENT, Shape};
use super::footer::{self, NO_OFFSET, RawFooter, SECTOR};
use super::header::{MAX_BLOCK, RawHeader};
use crate::error::{CreateError, WriteError};
use crate::info::DiskKind;
use crate::length::Length;
use crate::limits::MAX_VHD_SIZE;
use crate::storage::Storage;
use crate::writer::CreateOptions;

/// Block size when the options say 0: what Windows makes.
pub const DEFAULT_BLOCK_SIZE: u32 = 2 << 20;
/// Smallest block made, and the smaller of the two that Windows makes. It keeps the table, which is held in memory while
/// the disk is written, within 16 MiB.
pub const MIN_BLOCK_SIZE: u32 = 512 << 10;
/// Where the header of a dynamic disk goes: behind the copy of the footer.
const HEADER_OFFSET: u64 = 512;
/// Where the table goes: behind the header.
const TABLE_OFFSET: u64 = 1536;
/// What a block's data is aligned to, so that it can be cloned to and from files without copying.
const ALIGNMENT: u64 = 4096;
/// First sector that a table entry cannot name.
const SECTORS: u64 = ABSENT as u64;
/// Bytes of zeros written at a time.
const ZEROS: usize = 64 << 10;

/// A new VHD being filled. Threads share it by reference; writes that overlap leave either content.
#[derive(Debug)]
pub struct VhdWriter {
    storage: Arc<dyn Storage>,
    size: u64,
    footer: RawFooter,
    blocks: Option<Blocks>,
}

/// What a dynamic disk has besides.
#[derive(Debug)]
struct Blocks {
    shape: Shape,
    /// Distance between the starts of neighbouring blocks.
    stride: u64,
    /// Where the first block's bitmap goes.
    first: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Sector numbers of the bitmaps.
    entries: Vec<u32>,
    /// Blocks in the file.
    count: u64,
    length: Length,
}

impl VhdWriter {
    /// Begins a disk in `storage`, which must be empty. Of the options, the sector sizes must be 512 (the format knows
    /// no other; a physical size of 4096 is accepted and lost), the size a multiple of 512 up to 2040 GiB, and the block
    /// size 0 (2 MiB) or a power of two from 512 KiB to 256 MiB, of which Windows itself makes 512 KiB and 2 MiB.
    ///
    /// # Errors
    /// An option no VHD can have, a target that is not empty, or what the host says.
    pub fn create(storage: Arc<dyn Storage>, options: &CreateOptions) -> Result<Self, CreateError> {
        let size = options.virtual_size;
        if size == 0 || size > MAX_VHD_SIZE {
            return Err(CreateError::option(format!(
                "a disk of {size} bytes, a VHD holds 512 bytes to 2040 GiB; VHDX holds up to 64 TiB"
            )));
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(CreateError::option(format!("{size} bytes are no multiple of the sector size 512")));
        }
        if options.logical_sector_size != 512 {
            let sector = options.logical_sector_size;
            return Err(CreateError::option(format!(
                "logical sector size {sector}, a VHD has 512; VHDX has both"
            )));
        }
        let present =
            storage.len().map_err(|source| CreateError::io("finding the target's length", source))?;
        if present != 0 {
            return Err(CreateError::not_empty(present));
        }
        let new = |kind, data_offset| RawFooter::new(size, kind, data_offset, options.disk_id);
        let (footer, blocks) = match options.kind {
            DiskKind::Fixed => {
                storage.set_len(size).map_err(|source| CreateError::io("setting the length", source))?;
                (new(footer::kind::FIXED, NO_OFFSET), None)
            }
            DiskKind::Dynamic => {
                let blocks = Blocks::new(size, options.block_size)?;
                (new(footer::kind::DYNAMIC, HEADER_OFFSET), Some(blocks))
            }
            DiskKind::Differencing => {
                return Err(CreateError::option("differencing VHD disks cannot be created"));
            }
        };
        Ok(Self { storage, size, footer, blocks })
    }

    /// Bytes of the disk.
    pub fn virtual_size(&self) -> u64 {
        self.size
    }

    /// Bytes of a block; 0 for a fixed disk, which has none.
    pub fn block_size(&self) -> u32 {
        self.blocks.as_ref().map_or(0, |blocks| blocks.shape.block_size as u32)
    }

    /// Writes all of `buf` at the virtual `offset`. Not durable before [`Self::finish`].
    ///
    /// # Errors
    /// The range leaves the disk, or the host refuses.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), WriteError> {
        self.check_range(offset, buf.len() as u64)?;
        let Some(blocks) = &self.blocks else {
            return self.put(buf, offset);
        };
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let block_size = blocks.shape.block_size;
            let (block, within) = (at / block_size, at % block_size);
            // Never longer than the buffer.
            let count = (block_size - within).min(rest.len() as u64) as usize;
            let (part, after) = rest.split_at(count);
            let data = self.touch(blocks, block)?;
            self.put(part, data + within)?;
            rest = after;
            at += count as u64;
        }
        Ok(())
    }

    /// Makes a range read as zeros. Costs nothing where nobody wrote: the file is fresh.
    ///
    /// # Errors
    /// The range leaves the disk, or the host refuses.
    pub fn mark_zero(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        self.check_range(offset, length)?;
        let end = offset + length;
        let Some(blocks) = &self.blocks else {
            return self.put_zeros(offset, length);
        };
        let mut at = offset;
        while at < end {
            let block_size = blocks.shape.block_size;
            let (block, within) = (at / block_size, at % block_size);
            let count = (block_size - within).min(end - at);
            let sector = blocks.state().entries[block as usize];
            if sector != ABSENT {
                self.put_zeros(blocks.data_of(sector) + within, count)?;
            }
            at += count;
        }
        Ok(())
    }

    /// Completes the file and waits until it is durable.
    ///
    /// # Errors
    /// The host refuses. The file is then still no disk to any reader, or a whole one.
    pub fn finish(self) -> Result<(), WriteError> {
        let sync = |what| self.storage.sync().map_err(|source| WriteError::io(what, 0, source));
        let end = match &self.blocks {
            None => self.size,
            Some(blocks) => {
                let state = blocks.state();
                let mut table: Vec<u8> = Vec::with_capacity(state.entries.len() * 4);
                table.extend(state.entries.iter().flat_map(|entry| entry.to_be_bytes()));
                // Entries of the last sector that no block has.
                table.resize(table.len().next_multiple_of(SECTOR as usize), 0xff);
                self.put(&table, TABLE_OFFSET)?;
                // At most 4 Mi entries by the limits on sizes.
                let header =
                    RawHeader::new(TABLE_OFFSET, state.entries.len() as u32, blocks.shape.block_size as u32);
                self.put(header.as_bytes(), HEADER_OFFSET)?;
                let end = blocks.first + state.count * blocks.stride;
                // Grown ahead, and the last block may not have been written to its end.
                self.storage
                    .set_len(end)
                    .map_err(|source| WriteError::io("setting the length", end, source))?;
                end
            }
        };
        // Blocks before the footers that vouch for them, whatever order the host writes in.
        sync("making the data durable")?;
        self.put(self.footer.as_bytes(), end)?;
        if self.blocks.is_some() {
            self.put(self.footer.as_bytes(), 0)?;
        }
        sync("making the footer durable")
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(WriteError::out_of_range(offset, length, self.size)),
        }
    }

    fn put(&self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.storage.write_at(bytes, offset).map_err(|source| WriteError::io("writing", offset, source))
    }

    fn put_zeros(&self, offset: u64, length: u64) -> Result<(), WriteError> {
        let zeros = vec![0; length.min(ZEROS as u64) as usize];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(ZEROS as u64) as usize;
            self.put(&zeros[..count], offset + done)?;
            done += count as u64;
        }
        Ok(())
    }

    /// Where the data of `block` lies; gives it a place when it has none.
    fn touch(&self, blocks: &Blocks, block: u64) -> Result<u64, WriteError> {
        let mut state = blocks.state();
        let entry = state.entries[block as usize];
        if entry != ABSENT {
            return Ok(blocks.data_of(entry));
        }
        let start = blocks.first + state.count * blocks.stride;
        // Under the lock, and before the block counts as there: when this fails and the caller tries again, no block
        // is left whose bitmap says that its data is not. It is one sector at the usual block size.
        state
            .length
            .reach(self.storage.as_ref(), start + blocks.stride)
            .map_err(|source| WriteError::io("growing the file", start, source))?;
        let bitmap = vec![0xff; blocks.shape.bitmap_length() as usize];
        self.put(&bitmap, start)?;
        // `Blocks::new` saw to it that every block has a sector number.
        let sector = (start / SECTOR) as u32;
        state.entries[block as usize] = sector;
        state.count += 1;
        Ok(blocks.data_of(sector))
    }
}

impl Blocks {
    fn new(size: u64, block_size: u32) -> Result<Self, CreateError> {
        let block_size = if block_size == 0 { DEFAULT_BLOCK_SIZE } else { block_size };
        if !block_size.is_power_of_two() || !(MIN_BLOCK_SIZE..=MAX_BLOCK).contains(&block_size) {
            let problem = format!("block size {block_size} is not a power of two from 512 KiB to 256 MiB");
            return Err(CreateError::option(problem));
        }
        let block_size = u64::from(block_size);
        let shape = Shape { table_offset: TABLE_OFFSET, blocks: size.div_ceil(block_size), block_size };
        let bitmap = shape.bitmap_length();
        let table_end = (TABLE_OFFSET + shape.blocks * 4).next_multiple_of(SECTOR);
        // Data, not bitmap, at the alignment. A disk near the limit in small blocks has no room for that.
        let (first, stride) = [ALIGNMENT, SECTOR]
            .map(|unit| {
                (
                    (table_end + bitmap).next_multiple_of(unit) - bitmap,
                    (bitmap + block_size).next_multiple_of(unit),
                )
            })
            .into_iter()
            .find(|(first, stride)| (first + shape.blocks * stride) / SECTOR < SECTORS)
            .ok_or_else(|| {
                CreateError::option(format!(
                    "{size} bytes in blocks of {block_size} do not fit the format's 2 TiB files"
                ))
            })?;
        // At most 4 Mi entries of 4 bytes.
        let entries = vec![ABSENT; shape.blocks as usize];
        Ok(Self {
            shape,
            stride,
            first,
            state: Mutex::new(State { entries, count: 0, length: Length::new(0) }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data_of(&self, sector: u32) -> u64 {
        u64::from(sector) * SECTOR + self.shape.bitmap_length()
    }
}
