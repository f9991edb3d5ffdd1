//! Flat bytes in sparse storage, and a sink that takes everything and keeps nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx::{FileRange, Storage};

use super::{Sink, SinkError};
use crate::fault::Fault;

/// A sparse raw disk.
#[derive(Debug)]
pub struct RawSink {
    path: PathBuf,
    storage: Arc<dyn Storage>,
    size: u64,
}

impl RawSink {
    /// Takes empty `storage`, or storage of an interrupted copy to the same disk; `path` is for messages.
    ///
    /// # Errors
    /// When the storage cannot have that size.
    pub fn new(storage: Arc<dyn Storage>, path: &Path, size: u64) -> Result<Self, SinkError> {
        storage.set_len(size).map_err(|error| Fault::io(error, "size", path))?;
        Ok(Self { path: path.to_owned(), storage, size })
    }

    #[cfg(test)]
    pub(crate) fn read_back(&self, buf: &mut [u8]) {
        self.storage.read_at(buf, 0).unwrap();
    }
}

impl Sink for RawSink {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError> {
        self.storage
            .write_at(buf, offset)
            .map_err(|error| Fault::io(error, "write", &self.path).at(offset).into())
    }

    fn clone_range(&self, from: FileRange<'_>, offset: u64) -> Result<bool, SinkError> {
        self.storage
            .clone_range(from, offset)
            .map_err(|error| Fault::io(error, "clone into", &self.path).at(offset).into())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), SinkError> {
        let zeros = [0; 64 * 1024];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(zeros.len() as u64);
            self.write_at(&zeros[..count as usize], offset + done)?;
            done += count;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        self.storage.sync().map_err(|error| Fault::io(error, "sync", &self.path).into())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.checkpoint()
    }
}

/// Keeps nothing: copying into it hashes the source.
#[derive(Debug)]
pub struct NullSink {
    size: u64,
}

impl NullSink {
    /// For a disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

impl Sink for NullSink {
    fn path(&self) -> &Path {
        Path::new("nowhere")
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
