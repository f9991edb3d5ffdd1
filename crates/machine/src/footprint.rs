//! What a machine takes besides its disks.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::record::Origin;

impl Host {
    /// What there is of machine or planned machine `id` besides its disks, in bytes: the configuration that it came with,
    /// firmware variables, memory that was saved.
    ///
    /// # Errors
    /// There is none, or its files cannot be looked at.
    pub fn size_without_disks(&self, id: Uuid) -> Result<u64> {
        let of_origin = |origin: &Origin| {
            let blobs =
                [Some(&origin.configuration), origin.runtime_state.as_ref(), origin.guest_state.as_ref()];
            blobs.into_iter().flatten().map(|blob| self.blobs.size(blob)).sum::<Result<u64>>()
        };
        let record = match self.record(id) {
            Ok((record, _)) => record,
            Err(e) if e.reason() == Reason::NotFound => {
                let (plan, _) = self.planned_record(id)?;
                return Ok(of_origin(&plan.origin)? + plan.state.map_or(0, |state| state.bytes));
            }
            Err(e) => return Err(e),
        };
        let mut size = record.origin.as_ref().map_or(Ok(0), of_origin)?;
        let disks = self.disks_of(&record)?;
        let layers = || disks.iter().flat_map(|disk| &disk.layers);
        let is_disk = |path: &Path| layers().any(|layer| layer.path == path);
        let look = |e| Error::io("look at", &record.home, e);
        for entry in fs::read_dir(&record.home).map_err(look)? {
            let entry = entry.map_err(look)?;
            let file = entry.metadata().map_err(look)?;
            if file.is_file() && !is_disk(&entry.path()) {
                size += file.len();
            }
        }
        Ok(size)
    }
}
