//! Whatever the engine serves over NBD, as a source: qcow2, snapshots, running machines.

use std::path::{Path, PathBuf};

use nbd::allocation;
use vhdx::{Extent, ExtentKind};

use super::{MAX_EXTENTS, Source, SourceError, SourceIdentity};
use crate::fault::Fault;

/// Longest range asked about in one block status request: the protocol's length field has 32 bits.
const MAX_STATUS: u64 = 1 << 30;

/// An NBD export.
#[derive(Debug)]
pub struct NbdSource {
    client: nbd::Client,
    name: PathBuf,
    sectors: (u32, u32),
    identity: SourceIdentity,
}

impl NbdSource {
    /// Takes a connection. `name` is what messages call it; `identity` is what the *caller* knows about the content (the
    /// files served and the instant), since a socket says nothing; `sectors` are logical and physical sector sizes.
    pub fn new(client: nbd::Client, name: &Path, sectors: (u32, u32), identity: SourceIdentity) -> Self {
        Self { client, name: name.to_owned(), sectors, identity }
    }

    /// The connection.
    pub fn client(&self) -> &nbd::Client {
        &self.client
    }

    fn has_status(&self) -> bool {
        self.client.contexts().iter().any(|context| context == allocation::CONTEXT)
    }
}

impl Source for NbdSource {
    fn path(&self) -> &Path {
        &self.name
    }

    fn size(&self) -> u64 {
        self.client.size()
    }

    fn logical_sector_size(&self) -> u32 {
        self.sectors.0
    }

    fn physical_sector_size(&self) -> u32 {
        self.sectors.1
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.client
            .read_at(buf, offset)
            .map_err(|error| Fault::nbd(error, "read", &self.name).at(offset).into())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        let end = offset.saturating_add(length).min(self.size());
        if !self.has_status() {
            return Ok(vec![Extent { offset, length: end - offset, kind: ExtentKind::Data, layer: 0 }]);
        }
        let status = self
            .client
            .block_status(allocation::CONTEXT, offset, (end - offset).min(MAX_STATUS))
            .map_err(|error| SourceError::from(Fault::nbd(error, "map", &self.name).at(offset)))?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = offset;
        for run in status.into_iter().take(MAX_EXTENTS) {
            let kind = if run.flags & allocation::ZERO == 0 {
                ExtentKind::Data // A hole that does not promise zeros must be read.
            } else if run.flags & allocation::HOLE == 0 {
                ExtentKind::Zero
            } else {
                ExtentKind::Hole
            };
            let length = run.length.min(end - at);
            if length == 0 {
                break;
            }
            match extents.last_mut() {
                Some(last) if last.kind == kind => last.length += length,
                _ => extents.push(Extent { offset: at, length, kind, layer: 0 }),
            }
            at += length;
        }
        Ok(extents)
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        Ok(self.identity.clone())
    }
}
