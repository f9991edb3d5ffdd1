//! The block allocation table of a disk being written: the pages in use, a bounded number of them.
//!
//! A page is clean (as in the file), dirty (newer), or flushing (newer, being written right now). Only clean pages are
//! dropped when space is needed, and a page changed while it is flushing is simply dirty again. When and in which
//! order pages may be written is the writer's rule, not ours.

use std::collections::BTreeMap;

use crate::bat::{ENTRY, Entry};
use crate::error::WriteError;
use crate::storage::Storage;

/// Bytes of a page: small, because scattered writes touch one each.
const PAGE: u64 = 4096;
/// Dirty pages at which the writer must flush: 16 MiB.
const SPILL_PAGES: usize = 4096;
/// Clean pages kept on top: 4 MiB.
const CLEAN_PAGES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Clean,
    Dirty,
    Flushing,
}

#[derive(Debug)]
struct Page {
    entries: Vec<u8>,
    condition: Condition,
}

/// The pages in memory, by number.
#[derive(Debug)]
pub(crate) struct Table {
    offset: u64,
    pages: BTreeMap<u64, Page>,
    /// Pages that are not clean.
    busy: usize,
}

impl Table {
    /// The table at file offset `offset`; its region is a multiple of pages long.
    pub(crate) fn new(offset: u64) -> Self {
        Self { offset, pages: BTreeMap::new(), busy: 0 }
    }

    /// No further page may be changed before a flush.
    pub(crate) fn is_full(&self) -> bool {
        self.busy >= SPILL_PAGES
    }

    fn page(&mut self, storage: &dyn Storage, number: u64) -> Result<(&mut Page, usize), WriteError> {
        let at = number * ENTRY;
        let (index, within) = (at / PAGE, (at % PAGE) as usize);
        if !self.pages.contains_key(&index) {
            if self.pages.len() - self.busy >= CLEAN_PAGES {
                self.pages.retain(|_, page| page.condition != Condition::Clean);
            }
            let offset = self.offset + index * PAGE;
            let mut entries = vec![0; PAGE as usize];
            storage
                .read_at(&mut entries, offset)
                .map_err(|source| WriteError::io("reading the block allocation table", offset, source))?;
            self.pages.insert(index, Page { entries, condition: Condition::Clean });
        }
        match self.pages.get_mut(&index) {
            Some(page) => Ok((page, within)),
            None => Err(WriteError::io("finding a table page", at, std::io::ErrorKind::NotFound.into())),
        }
    }

    /// Entry `number`.
    pub(crate) fn get(&mut self, storage: &dyn Storage, number: u64) -> Result<Entry, WriteError> {
        let (page, within) = self.page(storage, number)?;
        let bytes = &page.entries[within..within + ENTRY as usize];
        Ok(Entry(bytes.try_into().map_or(0, u64::from_le_bytes)))
    }

    /// Changes entry `number` in memory.
    pub(crate) fn set(&mut self, storage: &dyn Storage, number: u64, entry: Entry) -> Result<(), WriteError> {
        let (page, within) = self.page(storage, number)?;
        page.entries[within..within + ENTRY as usize].copy_from_slice(&entry.0.to_le_bytes());
        let was = std::mem::replace(&mut page.condition, Condition::Dirty);
        if was == Condition::Clean {
            self.busy += 1;
        }
        Ok(())
    }

    /// Copies of the dirty pages with their file offsets, in file order; they are flushing from now on.
    pub(crate) fn begin_flush(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut out: Vec<(u64, Vec<u8>)> = Vec::new();
        for (index, page) in &mut self.pages {
            if page.condition != Condition::Dirty {
                continue;
            }
            page.condition = Condition::Flushing;
            let offset = self.offset + index * PAGE;
            match out.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == offset => {
                    bytes.extend_from_slice(&page.entries);
                }
                _ => out.push((offset, page.entries.clone())),
            }
        }
        out
    }

    /// Ends what [`Table::begin_flush`] began: the pages are clean, or dirty again when writing failed.
    pub(crate) fn end_flush(&mut self, written: bool) {
        for page in self.pages.values_mut().filter(|page| page.condition == Condition::Flushing) {
            if written {
                page.condition = Condition::Clean;
                self.busy -= 1;
            } else {
                page.condition = Condition::Dirty;
            }
        }
    }
}
