//! What a disk file says about itself, in words both formats share.
//!
//! Plain values with public fields, for callers to print, store or compare. The readers fill them; nothing here does I/O.

use uuid::Uuid;

/// Which of the two file formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The older format, big-endian, with a footer ([MS-VHD]).
    Vhd,
    /// The newer format, little-endian, with regions ([MS-VHDX]); AVHDX is the same format.
    Vhdx,
}

impl Format {
    /// `"VHD"` or `"VHDX"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vhd => "VHD",
            Self::Vhdx => "VHDX",
        }
    }
}

/// How a disk file allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskKind {
    /// All space is in the file from the start.
    Fixed,
    /// Blocks are added when first written.
    Dynamic,
    /// Like dynamic, and what is absent is in the parent.
    Differencing,
}

/// Everything one file says about the disk (or the layer of a disk) in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// File format.
    pub format: Format,
    /// Allocation kind.
    pub kind: DiskKind,
    /// Bytes the guest sees.
    pub virtual_size: u64,
    /// Allocation unit in bytes; 0 for a fixed VHD, which has none.
    pub block_size: u32,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Identity of the virtual disk: VHDX page-83 data, VHD unique id.
    pub disk_id: Uuid,
    /// Changes whenever visible content changes; what a VHDX child's linkage names. `None` for VHD.
    pub data_write_id: Option<Uuid>,
    /// Changes at the first modification of the file after an open. `None` for VHD.
    pub file_write_id: Option<Uuid>,
    /// Who wrote the file, as it says itself; control characters removed.
    pub creator: String,
    /// The parent, when the kind is [`DiskKind::Differencing`].
    pub parent: Option<ParentRef>,
    /// A log waits to be replayed: readers see its effect, the file does not have it yet.
    pub log_pending: bool,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// What was wrong and overlooked because the caller asked for leniency; empty otherwise.
    pub tolerated: Vec<String>,
}

/// What a differencing disk says about its parent. The text comes from the file: never a path to open as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// VHDX: the parent's data write id when the link was made. VHD: the parent's unique id.
    pub linkage: Uuid,
    /// A second accepted parent id (VHDX `parent_linkage2`), `None` when absent or zero.
    pub linkage2: Option<Uuid>,
    /// Key and value in the order in which they are tried: VHDX `relative_path`, `volume_path`, `absolute_win32_path`; VHD maps `W2ru` to
    /// `relative_path`, `W2ku` to `absolute_win32_path`, and its parent name field to `parent_name`.
    pub paths: Vec<(String, String)>,
}

impl ParentRef {
    /// The value recorded under `key`, first one wins.
    pub fn path(&self, key: &str) -> Option<&str> {
        self.paths.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether a parent with this identity is the one meant.
    pub fn accepts(&self, id: Uuid) -> bool {
        id == self.linkage || self.linkage2 == Some(id)
    }
}
