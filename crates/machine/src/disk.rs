//! Disks as records: the identity and geometry of a virtual disk apart from the files that hold its bytes.
//!
//! A machine's settings name a disk by id; the record says which layers on the host hold it, leaf first, and everything
//! that must survive an export and an import (name, format, block and sector sizes, the page-83 id). Reading and
//! writing the files is left to `transfer`, `vhdx` and the engine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A disk of this host. Stored under `disk/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Version of this record's shape; 1.
    pub version: u32,
    /// Our id.
    pub id: Uuid,
    /// The machine that owns it.
    pub machine: Uuid,
    /// File name its users see, e.g. `Default Generation 2.vhdx`; the name it is exported under.
    pub name: String,
    /// Size in bytes.
    pub virtual_size: u64,
    /// Format it came in, which an export writes again.
    pub format: DiskFormat,
    /// Block size of that format in bytes; 0 where it has none.
    pub block_size: u32,
    /// Fixed (fully allocated) in that format.
    #[serde(default)]
    pub fixed: bool,
    /// Logical sector size in bytes: 512 or 4096.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes: 512 or 4096.
    pub physical_sector_size: u32,
    /// Virtual disk id (VHDX page-83 GUID, VHD unique id).
    pub virtual_disk_id: Uuid,
    /// Serial number that the guest sees; `None` derives it from the id. Kept from where a saved memory came.
    #[serde(default)]
    pub serial: Option<String>,
    /// Files that hold the bytes, leaf first. Only the leaf is ever written.
    pub layers: Vec<Layer>,
    /// The path the configuration gave it, if it came with one.
    #[serde(default)]
    pub source_path: Option<String>,
    /// The VHD or VHDX file that its users know, when its layer holds what was taken in from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought: Option<Brought>,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

pub use crate::brought::Brought;

/// One file of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Absolute path on this host.
    pub path: PathBuf,
    /// How its bytes are laid out.
    pub format: engine::ImageFormat,
    /// Slipway made it and deletes it with the machine. A file that the user brought is never deleted.
    pub owned: bool,
}

/// A format disks travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// VHDX.
    Vhdx,
    /// VHD.
    Vhd,
    /// Flat bytes.
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl DiskFormat {
    /// The usual file name extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl DiskRecord {
    /// The layer that a running guest writes.
    pub fn leaf(&self) -> Option<&Layer> {
        self.layers.first()
    }

    /// The file that its users know it by.
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.brought {
            Some(brought) => Some(&brought.file),
            None => self.leaf().map(|leaf| &leaf.path),
        }
    }

    /// True when `path` is one of the disk's files.
    pub fn uses(&self, path: &Path) -> bool {
        self.layers.iter().any(|l| l.path == path)
            || self.brought.as_ref().is_some_and(|brought| brought.file == path)
    }
}

/// The last component of a Windows or Unix path.
pub fn file_name(path: &str) -> &str {
    path.rsplit(['\\', '/']).next().unwrap_or(path)
}

/// `name` with its extension replaced.
pub fn with_extension(name: &str, extension: &str) -> String {
    let stem = match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    };
    format!("{stem}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_paths_of_both_worlds() {
        assert_eq!(file_name(r"C:\Disks\Default Generation 2.vhdx"), "Default Generation 2.vhdx");
        assert_eq!(file_name("/srv/a.raw"), "a.raw");
        assert_eq!(file_name("plain"), "plain");
        assert_eq!(with_extension("a.b.vhd", "vhdx"), "a.b.vhdx");
        assert_eq!(with_extension("none", "vhdx"), "none.vhdx");
        assert_eq!(with_extension(".hidden", "vhdx"), ".hidden.vhdx");
    }
}
