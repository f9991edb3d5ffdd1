//! VHDX and VHD as sinks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx::{CreateOptions, Storage, Writer};

use super::{RawSink, Sink, SinkError};
use crate::fault::{Fault, FaultKind};

/// A VHDX being written.
#[derive(Debug)]
pub struct VhdxSink {
    path: PathBuf,
    writer: Writer,
    size: u64,
}

impl VhdxSink {
    /// Begins a VHDX in empty `storage`.
    ///
    /// # Errors
    /// When the options break a rule of the format, or the storage fails.
    pub fn create(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: &CreateOptions,
    ) -> Result<Self, SinkError> {
        let writer = Writer::create(storage, options)
            .map_err(|error| Fault::foreign(error, FaultKind::Unsupported, "create", path))?;
        Ok(Self { path: path.to_owned(), writer, size: options.virtual_size })
    }

    /// Goes on with a VHDX as it was at its last checkpoint.
    ///
    /// # Errors
    /// When what is there is not such a file.
    pub fn resume(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: &CreateOptions,
    ) -> Result<Self, SinkError> {
        let writer = Writer::resume(storage, options)
            .map_err(|error| Fault::foreign(error, FaultKind::Damaged, "go on with", path))?;
        Ok(Self { path: path.to_owned(), writer, size: options.virtual_size })
    }
}

impl Sink for VhdxSink {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError> {
        self.writer
            .write_at(buf, offset)
            .map_err(|error| Fault::foreign(error, FaultKind::Other, "write", &self.path).at(offset).into())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64) -> Result<(), SinkError> {
        Ok(()) // What was never written reads as zeros.
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        self.writer
            .checkpoint()
            .map_err(|error| Fault::foreign(error, FaultKind::Other, "sync", &self.path).into())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        let Self { path, writer, .. } = *self;
        writer.finish().map_err(|error| Fault::foreign(error, FaultKind::Other, "finish", &path).into())
    }
}

/// A VHD being written. It has no checkpoint: an interrupted one starts over.
#[derive(Debug)]
pub struct VhdSink(RawSink);

impl VhdSink {
    /// Begins a VHD in empty `storage`.
    ///
    /// # Errors
    /// When the options break a rule of the format, or the storage fails.
    pub fn create(_: Arc<dyn Storage>, path: &Path, _: &CreateOptions) -> Result<Self, SinkError> {
        Err(Fault::new(FaultKind::Unsupported, "create", path).detail("VHD cannot be written yet").into())
    }
}

impl Sink for VhdSink {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError> {
        self.0.write_at(buf, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), SinkError> {
        self.0.write_zeroes(offset, length)
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        self.0.checkpoint()
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.0.checkpoint()
    }
}
