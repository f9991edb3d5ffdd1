//! A file as it would be after its log's replay, without writing to it.
//!
//! Only the places of the changes are kept; their bytes stay in the log and are read when asked for, so that a long
//! log costs little memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::format::LOG_SECTOR;
use crate::log::{Change, Replay, sector_bytes};
use crate::storage::Storage;

/// Reads through to `base` except where the log has something newer.
#[derive(Debug)]
pub(crate) struct Overlay {
    base: Arc<dyn Storage>,
    /// Start to end and content, disjoint; sectors are whole, zeros may be cut.
    changes: BTreeMap<u64, (u64, Change)>,
    len: u64,
}

impl Overlay {
    pub(crate) fn new(base: Arc<dyn Storage>, replay: &Replay) -> io::Result<Self> {
        let len = base.len()?.max(replay.last_offset);
        let mut overlay = Self { base, changes: BTreeMap::new(), len };
        for change in &replay.changes {
            overlay.insert(change.offset(), change.end(), *change);
        }
        Ok(overlay)
    }

    /// Later changes replace what they cover. All bounds are multiples of 4 KiB, so only zeros are ever cut.
    fn insert(&mut self, start: u64, end: u64, change: Change) {
        if let Some((&before, &(before_end, old))) = self.changes.range(..start).next_back()
            && before_end > start
        {
            self.changes.insert(before, (start, old));
            if before_end > end {
                self.changes.insert(end, (before_end, old));
            }
        }
        while let Some((&inner, &(inner_end, old))) = self.changes.range(start..end).next() {
            self.changes.remove(&inner);
            if inner_end > end {
                self.changes.insert(end, (inner_end, old));
            }
        }
        self.changes.insert(start, (end, change));
    }
}

impl Storage for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        // What the replay adds to the file's length is zero unless the log says otherwise.
        let stored = self.base.len()?.saturating_sub(offset).min(buf.len() as u64) as usize;
        if stored > 0 {
            self.base.read_at(&mut buf[..stored], offset)?;
        }
        buf[stored..].fill(0);
        let first = self.changes.range(..=offset).next_back().map_or(offset, |(start, _)| *start);
        for (&start, &(change_end, change)) in self.changes.range(first..end) {
            let (from, to) = (start.max(offset), change_end.min(end));
            if from >= to {
                continue;
            }
            let target = &mut buf[(from - offset) as usize..(to - offset) as usize];
            match change {
                Change::Zero { .. } => target.fill(0),
                Change::Sector { source, leading, trailing, .. } => {
                    let bytes = sector_bytes(self.base.as_ref(), source, leading, trailing)?;
                    debug_assert_eq!(change_end - start, LOG_SECTOR);
                    target.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
