//! What a virtual disk file is, and how it is now, from its own words; of one that a machine has, from the disk's record.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vhdx::{CheckOptions, DiskKind, ExtentKind, ImageOptions, MissingParent, OpenErrorKind};

use super::Shape;
use crate::disk::{DiskFormat, DiskRecord};
use crate::error::{Error, Reason, Result, chain};

/// How a file allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// All of it laid out from the start.
    Fixed,
    /// Blocks are added when first written.
    Dynamic,
    /// Like dynamic, and what is absent is in the parent.
    Differencing,
}

/// The parent of a differencing disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageParent {
    /// Where it is; `None` when it is not found.
    pub file: Option<PathBuf>,
    /// Where the child says that it is, a path of Windows.
    pub recorded: Option<String>,
    /// Its identity as the child knows it.
    pub id: Uuid,
}

/// What a virtual disk file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// VHD or VHDX.
    pub format: DiskFormat,
    /// How it allocates.
    pub kind: ImageKind,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes of a block; 0 where there are none.
    pub block_size: u32,
    /// Bytes.
    pub logical_sector_size: u32,
    /// Bytes.
    pub physical_sector_size: u32,
    /// Identity of the virtual disk.
    pub disk_id: Uuid,
    /// The parent of a differencing disk.
    pub parent: Option<ImageParent>,
}

impl Image {
    /// The same, to be made anew as a file of its own.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            format: self.format,
            fixed: self.kind == ImageKind::Fixed,
            virtual_size: self.virtual_size,
            block_size: self.block_size,
            logical_sector_size: self.logical_sector_size,
            physical_sector_size: self.physical_sector_size,
            disk_id: self.disk_id,
        }
    }
}

/// How a virtual disk file is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageState {
    /// Bytes of the file; of a disk whose guest has left it behind, what the content takes.
    pub file_size: u64,
    /// A machine has it.
    pub in_use: bool,
    /// Smallest size in bytes that is known to lose nothing; `None` where only reading all of it would tell.
    pub smallest: Option<u64>,
    /// Bytes of a physical sector.
    pub physical_sector_size: u32,
    /// Blocks begin at multiples of 4 KiB; `None` while there are none.
    pub aligned: Option<bool>,
}

/// The domain's error for a disk file that cannot be opened.
pub(crate) fn refusal(path: &Path, e: vhdx::OpenError) -> Error {
    let message = format!("cannot read `{}` as a virtual disk", path.display());
    match e.kind() {
        OpenErrorKind::Io => {
            match std::error::Error::source(&e).and_then(|s| s.downcast_ref::<std::io::Error>()) {
                Some(cause) => Error::io("open", path, std::io::Error::new(cause.kind(), chain(&e))),
                None => Error::new(Reason::Io, message).caused_by(e),
            }
        }
        OpenErrorKind::NotADisk => Error::new(Reason::InvalidArgument, message).caused_by(e),
        OpenErrorKind::Unsupported => Error::new(Reason::NotSupported, message).caused_by(e),
        OpenErrorKind::ParentMissing => {
            Error::new(Reason::NotFound, message).hint("put its parent beside it").caused_by(e)
        }
        _ => Error::new(Reason::BadPackage, message).caused_by(e),
    }
}

/// Looks at the file at `path`; a parent need not be there.
pub(crate) fn look(path: &Path) -> Result<Image> {
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    Ok(describe(path, &vhdx::Image::open(path, &options).map_err(|e| refusal(path, e))?))
}

/// The file at `path` with all its parents, to be read.
pub(crate) fn open(path: &Path) -> Result<(vhdx::Image, Image)> {
    let image = vhdx::Image::open(path, &ImageOptions::default()).map_err(|e| refusal(path, e))?;
    // Such a file can show more than it holds, and fill a file system with it.
    let files = image.layers().iter().filter_map(|layer| layer.path.as_deref());
    for file in files {
        let report = vhdx::check(file, &CheckOptions { max_findings: 0 }).map_err(|e| refusal(file, e))?;
        if let Some(found) = report.overlap() {
            let (file, offset) = (file.display(), found.offset);
            return Err(Error::new(
                Reason::BadPackage,
                format!("`{file}` uses a part of itself twice, at byte {offset}: {}", found.message),
            ));
        }
    }
    let described = describe(path, &image);
    Ok((image, described))
}

fn describe(path: &Path, image: &vhdx::Image) -> Image {
    let info = &image.layers()[0].info;
    Image {
        path: path.to_owned(),
        format: match info.format {
            vhdx::Format::Vhd => DiskFormat::Vhd,
            vhdx::Format::Vhdx => DiskFormat::Vhdx,
        },
        kind: match info.kind {
            DiskKind::Fixed => ImageKind::Fixed,
            DiskKind::Dynamic => ImageKind::Dynamic,
            DiskKind::Differencing => ImageKind::Differencing,
        },
        virtual_size: info.virtual_size,
        block_size: info.block_size,
        logical_sector_size: info.logical_sector_size,
        physical_sector_size: info.physical_sector_size,
        disk_id: info.disk_id,
        parent: info.parent.as_ref().map(|parent| ImageParent {
            file: image.layers().get(1).and_then(|layer| layer.path.clone()),
            recorded: ["absolute_win32_path", "relative_path", "parent_name"]
                .iter()
                .find_map(|key| parent.path(key))
                .map(str::to_owned),
            id: parent.linkage,
        }),
    }
}

/// What `disk` is as the file at `path`, which its guest may have left behind.
pub(crate) fn of_disk(path: &Path, disk: &DiskRecord) -> Image {
    Image {
        path: path.to_owned(),
        format: disk.format,
        kind: if disk.fixed { ImageKind::Fixed } else { ImageKind::Dynamic },
        virtual_size: disk.virtual_size,
        block_size: disk.block_size,
        logical_sector_size: disk.logical_sector_size,
        physical_sector_size: disk.physical_sector_size,
        disk_id: disk.virtual_disk_id,
        parent: None,
    }
}

/// How `disk` is now, whose file was left behind: its size is what the content takes.
pub(crate) fn state_of_disk(disk: &DiskRecord) -> Result<ImageState> {
    const STAT_BLOCK: u64 = 512;
    let layer = disk.leaf().map(|leaf| leaf.path.as_path()).unwrap_or(Path::new(""));
    let meta = fs::metadata(layer).map_err(|e| Error::io("look at", layer, e))?;
    Ok(ImageState {
        file_size: if disk.fixed { disk.virtual_size } else { meta.blocks() * STAT_BLOCK },
        in_use: true,
        smallest: None,
        physical_sector_size: disk.physical_sector_size,
        aligned: (disk.format == DiskFormat::Vhdx).then_some(true),
    })
}

/// How the file at `path` is now.
pub(crate) fn state(path: &Path, in_use: bool) -> Result<ImageState> {
    let meta = fs::metadata(path).map_err(|e| Error::io("look at", path, e))?;
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    let image = vhdx::Image::open(path, &options).map_err(|e| refusal(path, e))?;
    let info = &image.layers()[0].info;
    let unreadable = |e: vhdx::ReadError| {
        Error::new(Reason::BadPackage, format!("cannot read `{}`", path.display())).caused_by(e)
    };
    let (mut last, mut aligned) = (0, (info.format == vhdx::Format::Vhdx).then_some(true));
    for location in image.locations(0, image.virtual_size()) {
        let location = location.map_err(unreadable)?;
        if location.extent.kind == ExtentKind::Data {
            last = location.extent.end();
            if aligned.is_none() && location.extent.layer == 0 {
                aligned = location.file_offset.map(|at| at % 4096 == location.extent.offset % 4096);
            }
        }
    }
    let sector = u64::from(info.logical_sector_size);
    Ok(ImageState {
        file_size: meta.size(),
        in_use,
        // A fixed disk has all of it in the file, zeros and all.
        smallest: (info.kind != DiskKind::Fixed).then(|| last.next_multiple_of(sector).max(sector)),
        physical_sector_size: info.physical_sector_size,
        aligned,
    })
}
