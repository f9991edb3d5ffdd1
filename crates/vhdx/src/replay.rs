//! Writing a pending log into its file: the one thing here that changes a disk somebody else made.
//!
//! Only when asked. The order keeps every moment valid: grow, apply, sync, and only then say in both headers that the
//! log is empty. Applying twice gives the same bytes, so a crash in between costs nothing.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Fault, OpenError};
use crate::format::{LOG_SECTOR, place};
use crate::header::{self, NewHeader};
use crate::log::{self, Change};
use crate::reader::Parts;
use crate::storage::{FileStorage, Storage};

/// Zeros written per call.
const ZEROS: usize = 1 << 20;

/// Replays the pending log of the VHDX at `path` into the file. `false`: there was none, nothing was written.
///
/// # Errors
/// As for opening the file; nothing is written unless the file with its log replayed reads as a valid disk.
pub fn replay_log_on_disk(path: &Path) -> Result<bool, OpenError> {
    let name = path.display().to_string();
    let storage =
        FileStorage::open_write(path).map_err(|source| Fault::Open { source }.named(name.clone()))?;
    replay_log(Arc::new(storage)).map_err(|fault| fault.named(name))
}

pub(crate) fn replay_log(storage: Arc<dyn Storage>) -> Result<bool, Fault> {
    header::read_identifier(storage.as_ref())?;
    let header = header::current(&header::read_copies(storage.as_ref())?, false)?;
    let Some(id) = header.log else { return Ok(false) };
    let replay = log::scan(storage.as_ref(), &header, id)?;
    // Reading it through the overlay first proves that the result is a disk.
    Parts::read(Arc::clone(&storage), false)?;
    log::refuse_own(&replay, &header)?;

    let write = |offset| move |source| Fault::Write { what: "the replayed log", offset, source };
    let length = storage.len().map_err(|source| Fault::io("the file's length", 0, source))?;
    if length < replay.last_offset {
        storage.set_len(replay.last_offset).map_err(write(length))?;
    }
    let zeros = vec![0; ZEROS];
    for change in &replay.changes {
        match *change {
            Change::Sector { offset, source, leading, trailing } => {
                let bytes = log::sector_bytes(storage.as_ref(), source, leading, trailing)
                    .map_err(|error| Fault::io("the log", source, error))?;
                debug_assert_eq!(bytes.len() as u64, LOG_SECTOR);
                storage.write_at(&bytes, offset).map_err(write(offset))?;
            }
            Change::Zero { offset, length } => {
                let mut at = offset;
                while at < offset + length {
                    let step = (offset + length - at).min(ZEROS as u64);
                    storage.write_at(&zeros[..step as usize], at).map_err(write(at))?;
                    at += step;
                }
            }
        }
    }
    storage.sync().map_err(write(0))?;
    let new = NewHeader {
        file_write: header.file_write,
        data_write: header.data_write,
        log: None,
        log_offset: header.log_offset,
        log_length: header.log_length,
    };
    new.update(storage.as_ref(), &header).map_err(write(place::HEADERS[0]))?;
    Ok(true)
}
