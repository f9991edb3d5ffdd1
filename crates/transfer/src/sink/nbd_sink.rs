//! An NBD export as a sink: how content reaches qcow2 and anything else that QEMU writes.

use std::path::{Path, PathBuf};

use super::{Sink, SinkError};
use crate::fault::{Fault, FaultKind};

/// Longest range zeroed in one request.
const MAX_ZEROES: u64 = 1 << 30;

/// A writable NBD export.
#[derive(Debug)]
pub struct NbdSink {
    client: nbd::Client,
    name: PathBuf,
    fresh: bool,
}

impl NbdSink {
    /// Takes a connection; `name` is what messages call it; `fresh` promises that the image reads as zeros now.
    ///
    /// # Errors
    /// `ReadOnly` when the export cannot be written.
    pub fn new(client: nbd::Client, name: &Path, fresh: bool) -> Result<Self, SinkError> {
        if client.read_only() {
            return Err(Fault::new(FaultKind::ReadOnly, "write", name)
                .detail("the export is read-only")
                .into());
        }
        Ok(Self { client, name: name.to_owned(), fresh })
    }
}

impl Sink for NbdSink {
    fn path(&self) -> &Path {
        &self.name
    }

    fn size(&self) -> u64 {
        self.client.size()
    }

    fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError> {
        self.client
            .write_at(buf, offset)
            .map_err(|error| Fault::nbd(error, "write", &self.name).at(offset).into())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), SinkError> {
        let mut done = 0;
        while done < length {
            let count = (length - done).min(MAX_ZEROES);
            self.client.write_zeroes(offset + done, count, true).map_err(|error| {
                SinkError::from(Fault::nbd(error, "write zeros to", &self.name).at(offset + done))
            })?;
            done += count;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        self.client.flush().map_err(|error| Fault::nbd(error, "flush", &self.name).into())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.checkpoint()
    }
}
