//! What an unfinished package knows about itself: `Slipway/progress.json`.
//!
//! Replaced as a whole (temporary file, sync, rename, sync of the directory), so a reader finds the old one or the new one.
//! Written by us and read by us, yet read with the same care as any file: somebody may have edited it.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fs::Fs;
use crate::digest::{CHUNK_SIZE, Digest};
use crate::source::SourceIdentity;

/// Value of `format`.
const FORMAT: &str = "slipway-progress";
const VERSION: u32 = 1;
/// Largest journal read, in bytes.
const MAX_SIZE: u64 = 8 << 20;
/// Its path inside the package.
pub(crate) const PATH: &str = "Slipway/progress.json";

/// Format of a disk in a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetFormat {
    /// Hyper-V's own.
    Vhdx,
    /// Up to 2040 GiB, 512-byte sectors.
    Vhd,
    /// Flat bytes.
    Raw,
}

impl TargetFormat {
    /// As manifests spell it; also the usual file extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Raw => "raw",
        }
    }
}

/// A disk that a package will hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// Path inside the package, with `/`: `Virtual Hard Disks/NAME`.
    pub path: String,
    /// Format of the file.
    pub format: TargetFormat,
    /// All blocks allocated from the start (VHD and VHDX).
    pub fixed: bool,
    /// Bytes the guest sees: at least the source's size, a multiple of the logical sector.
    pub virtual_size: u64,
    /// Bytes per block, 0 for the format's default.
    pub block_size: u32,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// The id that the format keeps in the file. Part of the plan, so that an interrupted export goes on with the same.
    pub disk_id: Uuid,
    /// What the content is taken from.
    pub source: SourceIdentity,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    format: String,
    version: u32,
    pub(super) machine: Uuid,
    /// The instant that all disks show.
    pub(super) generation: String,
    pub(super) disks: Vec<DiskProgress>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DiskProgress {
    pub(super) plan: DiskPlan,
    /// Everything below is durable.
    pub(super) watermark: u64,
    /// Root digest of a disk of this size whose content ends at the watermark.
    pub(super) prefix: Option<Digest>,
    /// Finished: the watermark is the size, and the file is final.
    pub(super) complete: bool,
}

impl Journal {
    pub(super) fn new(machine: Uuid, generation: &str, plans: &[DiskPlan]) -> Self {
        let disks = plans
            .iter()
            .map(|plan| DiskProgress { plan: plan.clone(), watermark: 0, prefix: None, complete: false })
            .collect();
        Self { format: FORMAT.into(), version: VERSION, machine, generation: generation.to_owned(), disks }
    }

    /// Why an export of `machine` at `generation` with `plans` cannot go on from here; `None` when it can.
    pub(super) fn difference(&self, machine: Uuid, generation: &str, plans: &[DiskPlan]) -> Option<String> {
        if self.machine != machine {
            return Some("it is of another machine".into());
        }
        if self.generation != generation {
            return Some("the machine has run since".into());
        }
        if self.disks.len() != plans.len() {
            return Some("the machine had other disks".into());
        }
        for (old, new) in self.disks.iter().zip(plans) {
            let old = &old.plan;
            if let Some(how) = old.source.difference(&new.source) {
                return Some(format!("the source of `{}` differs: {how}", new.path));
            }
            if old != new {
                return Some(format!("`{}` was to have other properties", new.path));
            }
        }
        None
    }

    /// Bytes of disks that are done.
    pub(super) fn done(&self) -> u64 {
        self.disks.iter().map(|disk| disk.watermark).fold(0, u64::saturating_add)
    }

    pub(super) fn load(fs: &dyn Fs, package: &Path) -> io::Result<Self> {
        let bytes = read_small(fs, &package.join(PATH), MAX_SIZE)?;
        let invalid = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
        let journal: Self =
            serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if journal.format != FORMAT || journal.version != VERSION {
            return Err(invalid("not a progress record of this version"));
        }
        for disk in &journal.disks {
            let size = disk.plan.virtual_size;
            let aligned = disk.watermark.is_multiple_of(CHUNK_SIZE) || disk.watermark == size;
            if disk.watermark > size || !aligned || (disk.complete && disk.watermark != size) {
                return Err(invalid("a watermark contradicts the size of its disk"));
            }
            if disk.prefix.is_none() && disk.watermark != 0 {
                return Err(invalid("a watermark has no digest"));
            }
        }
        Ok(journal)
    }

    pub(super) fn save(&self, fs: &dyn Fs, package: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        replace(fs, &package.join(PATH), &bytes)
    }
}

/// Reads all of a file of at most `limit` bytes.
pub(super) fn read_small(fs: &dyn Fs, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let storage = fs.open(path)?;
    let length = storage.len()?;
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than it can be"));
    }
    let mut bytes = vec![0; length as usize];
    storage.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Makes `path` hold `bytes`, durably, with no instant at which it holds anything but the old or the new content.
pub(super) fn replace(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    write_new(fs, temporary, bytes)?;
    fs.rename(temporary, path)?;
    path.parent().map_or(Ok(()), |dir| fs.sync_dir(dir))
}

/// Writes a file and its bytes durably; the name is the caller's to sync. A left-over of an earlier run is replaced.
pub(super) fn write_new(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let storage = create_over(fs, path)?;
    storage.write_at(bytes, 0)?;
    storage.sync()
}

/// Creates a file, removing a left-over of an earlier run.
pub(super) fn create_over(fs: &dyn Fs, path: &Path) -> io::Result<std::sync::Arc<dyn vhdx::Storage>> {
    match fs.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs.remove_file(path)?;
            fs.create(path)
        }
        other => other,
    }
}
