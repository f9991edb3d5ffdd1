//! Where a disk's content comes from: one narrow interface, so that every pair of source and sink is the same copy loop.
//!
//! A source has a size, answers from metadata which ranges hold data, and reads. It also says what it *is*
//! ([`SourceIdentity`]): an interrupted copy goes on only from exactly the same source. Formats are `vhdx`'s and QEMU's
//! (through [`NbdSource`]) business; copying is `copy`'s.

mod image;
mod nbd_source;
mod raw;
mod storage;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vhdx::FileRange;
pub use vhdx::{Extent, ExtentKind};

pub use image::ImageSource;
pub use nbd_source::NbdSource;
pub use raw::RawSource;
pub(crate) use storage::StorageSource;

use crate::fault::{Fault, FaultKind, fault_error};
use crate::hostfile::Access;

fault_error! {
    /// A source that cannot be opened or read; path, offset and kind are told.
    SourceError
}

/// A disk's content, read only.
pub trait Source: Send + Sync + fmt::Debug {
    /// What messages call it: a path or an export.
    fn path(&self) -> &Path;
    /// Virtual size in bytes.
    fn size(&self) -> u64;
    /// Bytes per logical sector: 512 or 4096.
    fn logical_sector_size(&self) -> u32 {
        512
    }
    /// Bytes per physical sector: 512 or 4096.
    fn physical_sector_size(&self) -> u32 {
        4096
    }
    /// Fills `buf` from `offset`; the range must lie inside the disk.
    ///
    /// # Errors
    /// With path and offset; `Vanished` when the source ended or went away, `ServerLost` when whoever served it did.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError>;
    /// What the range holds, from metadata alone: consecutive extents from `offset`, at least one, together a *prefix* of
    /// the range (bounded in number; ask again from where they end).
    ///
    /// # Errors
    /// With path and offset.
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError>;
    /// Where the bytes from `offset` lie as they are in a file of the host: at most `length` of them, as many as lie in one
    /// piece. `None` where they do not, or where nobody can tell.
    fn file_range(&self, offset: u64, length: u64) -> Option<FileRange<'_>> {
        let _ = (offset, length);
        None
    }
    /// What the source is at this moment. The copy asks before and after: if the answers differ, somebody wrote to it.
    ///
    /// # Errors
    /// `Vanished` when one of its files is gone.
    fn identity(&self) -> Result<SourceIdentity, SourceError>;
}

/// Extents answered per call at most.
pub(crate) const MAX_EXTENTS: usize = 1024;

/// What a source is: equal identities mean equal content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The caller's word for the instant, such as a machine's run counter: a disk that ran in between differs even where
    /// its file looks the same.
    pub generation: String,
    /// The files, leaf first.
    pub layers: Vec<LayerIdentity>,
}

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerIdentity {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl LayerIdentity {
    /// What the file at `path` is now.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: meta.len(),
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

impl SourceIdentity {
    /// The identity of a source that consists of `paths`, leaf first.
    ///
    /// # Errors
    /// `Vanished` when one is gone.
    pub fn of_files<'a>(
        generation: &str,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self, SourceError> {
        let layers = paths
            .into_iter()
            .map(|path| {
                LayerIdentity::of(path).map_err(|error| {
                    let mut fault = Fault::io(error, "look at", path);
                    if fault.kind == FaultKind::NotFound {
                        fault.kind = FaultKind::Vanished;
                    }
                    SourceError::from(fault)
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { generation: generation.to_owned(), layers })
    }

    /// In what way `other` is not this source, or `None` when it is.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.generation != other.generation {
            return Some("the machine has run since".into());
        }
        if self.layers.len() != other.layers.len() {
            return Some(format!("it had {} files and has {}", self.layers.len(), other.layers.len()));
        }
        let (a, b) = self.layers.iter().zip(&other.layers).find(|(a, b)| a != b)?;
        let what = if a.path != b.path {
            format!("it was `{}` and is `{}`", a.path.display(), b.path.display())
        } else if (a.device, a.inode) != (b.device, b.inode) {
            format!("`{}` is another file", a.path.display())
        } else if a.size != b.size {
            format!("`{}` had {} bytes and has {}", a.path.display(), a.size, b.size)
        } else {
            format!("`{}` was written since", a.path.display())
        };
        Some(what)
    }
}

/// What a disk file is, by its first and last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskFormat {
    /// Flat bytes, or nothing we know.
    Raw,
    /// Virtual PC's and old Hyper-V's format.
    Vhd,
    /// Hyper-V's format.
    Vhdx,
    /// A format that only QEMU reads here, by QEMU's name for it.
    Engine(&'static str),
}

/// How to open a source.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The caller's word for the instant; see [`SourceIdentity`].
    pub generation: String,
    /// Page cache or not.
    pub access: Access,
    /// Parents, linkage and leniency of VHD and VHDX.
    pub image: vhdx::ImageOptions,
    /// Sector sizes of a raw disk, which has no place to say: logical and physical. Default 512 and 4096.
    pub raw_sectors: Option<(u32, u32)>,
}

/// What the file at `path` is. A raw disk's first bytes are its guest's to choose: where the format is recorded, do not ask.
///
/// # Errors
/// When the file cannot be read.
pub fn sniff(path: &Path) -> Result<DiskFormat, SourceError> {
    let failed = |error| SourceError::from(Fault::io(error, "read", path));
    let meta = fs::metadata(path).map_err(failed)?;
    if let Some(what) = no_disk(&meta) {
        return Err(Fault::new(FaultKind::Unsupported, "read", path).detail(what).into());
    }
    match vhdx::Image::is_vhd_or_vhdx(path).map_err(failed)? {
        Some(vhdx::Format::Vhd) => return Ok(DiskFormat::Vhd),
        Some(vhdx::Format::Vhdx) => return Ok(DiskFormat::Vhdx),
        None => {}
    }
    let file = fs::File::open(path).map_err(failed)?;
    let mut head = [0; 512];
    let mut have = 0;
    while have < head.len() {
        match file.read_at(&mut head[have..], have as u64).map_err(failed)? {
            0 => break,
            count => have += count,
        }
    }
    let head = &head[..have];
    let engine = [
        (0, &b"QFI\xfb"[..], "qcow2"),
        (0, b"KDMV", "vmdk"),
        (0, b"COWD", "vmdk"),
        (0, b"# Disk DescriptorFile", "vmdk"),
        (64, b"\x7f\x10\xda\xbe", "vdi"),
        (0, b"QED\0", "qed"),
        (0, b"WithoutFreeSpace", "parallels"),
        (0, b"WithouFreSpacExt", "parallels"),
    ];
    let known = engine.iter().find(|(at, magic, _)| head.get(*at..*at + magic.len()) == Some(*magic));
    Ok(known.map_or(DiskFormat::Raw, |(_, _, name)| DiskFormat::Engine(name)))
}

/// Why nothing of that kind is a disk. To be asked before opening: a pipe would block the open itself.
fn no_disk(meta: &fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = meta.file_type();
    if kind.is_dir() {
        Some("it is a directory")
    } else if kind.is_file() || kind.is_block_device() {
        None
    } else {
        Some("it is neither a file nor a block device")
    }
}

/// Opens the disk at `path`, whatever it is.
///
/// # Errors
/// `Unsupported` for what only the engine reads (qcow2 and others): serve it over NBD and use [`NbdSource`].
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>, SourceError> {
    open_as(path, sniff(path)?, options)
}

/// Opens the disk at `path` as `format`.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    path: &Path,
    format: DiskFormat,
    options: &OpenOptions,
) -> Result<Box<dyn Source>, SourceError> {
    match format {
        DiskFormat::Raw => Ok(Box::new(RawSource::open(path, options)?)),
        DiskFormat::Vhd | DiskFormat::Vhdx => Ok(Box::new(ImageSource::open(path, options)?)),
        DiskFormat::Engine(name) => Err(Fault::new(FaultKind::Unsupported, "read", path)
            .detail(format!("{name} images are read by the engine, which must serve this one over NBD"))
            .into()),
    }
}
