//! Flat bytes of any storage as a source; everything counts as data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx::{Extent, ExtentKind, Storage};

use super::{Source, SourceError, SourceIdentity};
use crate::fault::Fault;

/// Flat bytes.
#[derive(Debug)]
pub(crate) struct StorageSource {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    size: u64,
}

impl StorageSource {
    pub(crate) fn new(storage: Arc<dyn Storage>, path: &Path) -> io::Result<Self> {
        Ok(Self { size: storage.len()?, storage, path: path.to_owned() })
    }
}

impl Source for StorageSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.storage
            .read_at(buf, offset)
            .map_err(|error| Fault::io(error, "read", &self.path).at(offset).into())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        Ok(vec![Extent { offset, length, kind: ExtentKind::Data, layer: 0 }])
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        Ok(SourceIdentity::default())
    }
}
