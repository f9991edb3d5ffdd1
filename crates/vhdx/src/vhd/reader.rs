//! One VHD file as a layer of a chain.
//!
//! The size is the footer's current size, whatever the geometry says: that is Hyper-V's rule, and the only one under
//! which a disk of 127 GiB is not two MiB short. In a block that is there, the sector bitmap decides sector by sector:
//! a clear bit asks the parent, or is a hole when there is none. What the chain makes of that is `image`'s part.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::bat::{ABSENT, Shape, Table, bit_run};
use super::footer::{self, Footer, SECTOR};
use super::header::Header;
use crate::error::{Fault, ReadError};
use crate::info::{DiskKind, Format, Info};
use crate::layer::{LayerRead, Run, RunState, push_run};
use crate::storage::Storage;

/// Blocks with a sector bitmap looked at in one call of `runs`.
const BLOCKS_PER_CALL: u32 = 64;
/// Entries looked at in one call of `runs` while all are absent.
const ENTRIES_PER_CALL: u64 = 1 << 18;
/// Runs after which a call of `runs` returns: a bitmap may change with every sector.
const RUNS_PER_CALL: usize = 1 << 16;

/// A VHD file: fixed, dynamic or differencing, without its parents.
pub struct Vhd {
    storage: Arc<dyn Storage>,
    info: Info,
    /// None for a fixed disk.
    table: Option<Table>,
}

impl fmt::Debug for Vhd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vhd").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Vhd {
    /// Opens the file in `storage`. `lenient` reads on where a checksum is wrong, a locator cannot be read or a fixed
    /// disk's data is cut off, and says so in `Info::tolerated`.
    pub(crate) fn open(storage: Arc<dyn Storage>, lenient: bool) -> Result<Self, Fault> {
        let len = storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
        let mut tolerated = Vec::new();
        let found = footer::choose(&footer::find_all(storage.as_ref(), len)?, lenient, &mut tolerated)?;
        let footer = Footer::new(&found)?;
        let mut info = Info {
            format: Format::Vhd,
            kind: footer.kind,
            virtual_size: footer.size,
            block_size: 0,
            logical_sector_size: 512,
            physical_sector_size: 512,
            disk_id: footer.id,
            data_write_id: None,
            file_write_id: None,
            creator: footer.creator.clone(),
            parent: None,
            log_pending: false,
            file_size: len,
            tolerated,
        };
        let table = if footer.kind == DiskKind::Fixed {
            // The footer is no part of the data.
            if found.offset < footer.size {
                let fault = Fault::Truncated { what: "the data of a fixed disk", offset: found.offset };
                if !lenient {
                    return Err(fault);
                }
                info.tolerated.push(format!("{fault}: the disk has {} bytes", footer.size));
            }
            None
        } else {
            let header = Header::open(storage.as_ref(), len, &footer, lenient, &mut info.tolerated)?;
            info.block_size = header.block_size;
            info.parent = header.parent;
            let block_size = u64::from(header.block_size);
            let shape = Shape {
                table_offset: header.table_offset,
                blocks: footer.size.div_ceil(block_size),
                block_size,
            };
            Some(Table::new(Arc::clone(&storage), shape))
        };
        Ok(Self { storage, info, table })
    }

    /// What the file says about itself, without the file.
    pub(super) fn into_info(self) -> Info {
        self.info
    }

    /// The runs of one block that is in the file, from virtual `offset` to `end`.
    fn block_runs(
        &self,
        table: &Table,
        sector: u32,
        offset: u64,
        end: u64,
        runs: &mut Vec<Run>,
    ) -> Result<(), ReadError> {
        let shape = table.shape();
        let block_start = offset / shape.block_size * shape.block_size;
        let data = u64::from(sector) * SECTOR + shape.bitmap_length();
        let used = shape.block_size.min(self.info.virtual_size - block_start);
        if data + used > self.info.file_size {
            let block = block_start / shape.block_size;
            let problem = format!("block {block} lies at file offset {data}, behind the end of the file");
            return Err(ReadError::corrupt(offset, problem));
        }
        let bitmap = table
            .bitmap(sector)
            .map_err(|(at, source)| ReadError::io(offset, "cannot read a sector bitmap", at, source))?;
        let mut at = offset;
        while at < end {
            let within = at - block_start;
            let last = (end - block_start).div_ceil(SECTOR);
            let (count, here) = bit_run(&bitmap, within / SECTOR..last);
            // The range may begin and end within a sector.
            let run_end = (block_start + (within / SECTOR + count) * SECTOR).min(end);
            let state = if here { RunState::Data { file_offset: data + within } } else { RunState::Absent };
            push_run(runs, Run { offset: at, length: run_end - at, state });
            at = run_end;
        }
        Ok(())
    }
}

impl LayerRead for Vhd {
    fn info(&self) -> &Info {
        &self.info
    }

    fn share_memory(&mut self, layers: usize) {
        if let Some(table) = &mut self.table {
            table.share_memory(layers);
        }
    }

    fn runs(&self, offset: u64, length: u64) -> Result<Vec<Run>, ReadError> {
        let size = self.info.virtual_size;
        let end = match offset.checked_add(length) {
            Some(end) if end <= size && length > 0 => end,
            _ => return Err(ReadError::out_of_range(offset, length, size)),
        };
        let Some(table) = &self.table else {
            return Ok(vec![Run { offset, length, state: RunState::Data { file_offset: offset } }]);
        };
        let block_size = table.shape().block_size;
        let unreadable = |(at, source): (u64, io::Error)| {
            ReadError::io(offset, "cannot read the block allocation table", at, source)
        };
        let mut runs = Vec::new();
        let (mut blocks, mut entries) = (0, 0);
        let mut at = offset;
        while at < end && blocks < BLOCKS_PER_CALL && entries < ENTRIES_PER_CALL && runs.len() < RUNS_PER_CALL
        {
            let block = at / block_size;
            let absent = table.absent_from(block, end.div_ceil(block_size) - block).map_err(unreadable)?;
            let stop = if absent > 0 {
                entries += absent;
                let stop = ((block + absent) * block_size).min(end);
                push_run(&mut runs, Run { offset: at, length: stop - at, state: RunState::Absent });
                stop
            } else {
                blocks += 1;
                let stop = ((block + 1) * block_size).min(end);
                match table.entry(block).map_err(unreadable)? {
                    ABSENT => return Err(ReadError::corrupt(at, "the table changed while it was read")),
                    sector => self.block_runs(table, sector, at, stop, &mut runs)?,
                }
                stop
            };
            at = stop;
        }
        Ok(runs)
    }

    fn read_data(&self, buf: &mut [u8], file_offset: u64, virtual_offset: u64) -> Result<(), ReadError> {
        self.storage
            .read_at(buf, file_offset)
            .map_err(|source| ReadError::io(virtual_offset, "cannot read data", file_offset, source))
    }

    fn host_file(&self) -> Option<&std::fs::File> {
        self.storage.host_file()
    }
}
