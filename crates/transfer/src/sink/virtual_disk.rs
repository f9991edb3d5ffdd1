//! VHDX and VHD as sinks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx::{CreateOptions, FileRange, Storage, VhdWriter, Writer};

use super::{Sink, SinkError};
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

    fn clone_range(&self, from: FileRange<'_>, offset: u64) -> Result<bool, SinkError> {
        self.writer.clone_at(from, offset).map_err(|error| {
            Fault::foreign(error, FaultKind::Other, "clone into", &self.path).at(offset).into()
        })
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
pub struct VhdSink {
    path: PathBuf,
    writer: VhdWriter,
    storage: Arc<dyn Storage>,
    size: u64,
}

impl VhdSink {
    /// Begins a VHD in empty `storage`.
    ///
    /// # Errors
    /// When the options break a rule of the format, or the storage fails.
    pub fn create(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: &CreateOptions,
    ) -> Result<Self, SinkError> {
        let writer = VhdWriter::create(Arc::clone(&storage), options)
            .map_err(|error| Fault::foreign(error, FaultKind::Unsupported, "create", path))?;
        Ok(Self { path: path.to_owned(), writer, storage, size: options.virtual_size })
    }
}

impl Sink for VhdSink {
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
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), SinkError> {
        self.storage.sync().map_err(|error| Fault::io(error, "sync", &self.path).into())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        let Self { path, writer, .. } = *self;
        writer.finish().map_err(|error| Fault::foreign(error, FaultKind::Other, "finish", &path).into())
    }
}
