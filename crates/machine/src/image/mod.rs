//! Virtual disk files (VHD, VHDX) that lie where somebody wants them: what they are, making them, changing them.
//!
//! ```text
//!  look ── settings, state                                     asked at once
//!  work ── create, convert, resize, compact, floppy            jobs: `.NAME.ID.partial` beside it, synced, renamed
//!  check ─ every rule of the format, and the chain             a job that writes nothing
//! ```
//!
//! No file is changed in place: a change is a new file that takes the name of the old one when it is whole. A file that is
//! there is never overwritten by what is *new*. Which machine has a file as its disk is told by the records of disks
//! ([`crate::disk`]); such a file is not changed here. Formats are `vhdx`'s part, copying is `transfer`'s.

pub(crate) mod file;
pub(crate) mod look;
pub(crate) mod work;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vhdx::limits::{MAX_VHD_SIZE, MAX_VHDX_SIZE, MIB};

use crate::disk::{DiskFormat, DiskRecord};
use crate::error::{Error, Reason, Result};
use crate::host::Host;
pub use look::{Image, ImageKind, ImageParent, ImageState};
use work::{Begin, Content, Work};

/// What a virtual disk file is to be: a file that is whole in itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// VHD or VHDX.
    pub format: DiskFormat,
    /// All of it laid out from the start.
    pub fixed: bool,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes of a block; 0 is what Windows would choose.
    pub block_size: u32,
    /// 512 or 4096; a VHD has 512.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Identity of the virtual disk; nil is a new one.
    pub disk_id: Uuid,
}

/// Bytes of a 3.5-inch floppy disk.
pub const FLOPPY: u64 = 1440 << 10;

impl Shape {
    /// Refuses what the format cannot be.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] says which number is wrong.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(Reason::InvalidArgument, why));
        let (most, smallest, name) = match self.format {
            DiskFormat::Vhdx => (MAX_VHDX_SIZE, MIB, "VHDX"),
            DiskFormat::Vhd => (MAX_VHD_SIZE, 512 << 10, "VHD"),
            other => return wrong(format!("{} is no format of virtual hard disks", other.extension())),
        };
        let sector = self.logical_sector_size;
        if !matches!(sector, 512 | 4096) || !matches!(self.physical_sector_size, 512 | 4096) {
            let physical = self.physical_sector_size;
            return wrong(format!("sectors of {sector} and {physical} bytes: expected 512 or 4096"));
        }
        if self.format == DiskFormat::Vhd && sector != 512 {
            return wrong("a VHD has sectors of 512 bytes; a VHDX may have 4096".to_owned());
        }
        let size = self.virtual_size;
        if size == 0 || size > most || !size.is_multiple_of(u64::from(sector)) {
            return wrong(format!(
                "a {name} of {size} bytes: expected a multiple of {sector}, at most {} GiB",
                most >> 30
            ));
        }
        let block = self.block_size;
        let allowed = smallest..=256 * MIB;
        if block != 0 && (!allowed.contains(&u64::from(block)) || !block.is_power_of_two()) {
            let least = smallest >> 10;
            return wrong(format!(
                "blocks of {block} bytes: expected a power of two from {least} KiB to 256 MiB"
            ));
        }
        Ok(())
    }

    /// The options that the formats' writers take.
    pub(crate) fn options(&self) -> vhdx::CreateOptions {
        vhdx::CreateOptions {
            virtual_size: self.virtual_size,
            block_size: self.block_size,
            logical_sector_size: self.logical_sector_size,
            physical_sector_size: self.physical_sector_size,
            kind: if self.fixed { vhdx::DiskKind::Fixed } else { vhdx::DiskKind::Dynamic },
            disk_id: self.disk_id,
        }
    }
}

/// A change of a file that keeps what it holds; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEdit {
    /// Another size in bytes. A smaller one cuts off only zeros.
    #[serde(default)]
    pub size: Option<u64>,
    /// Another physical sector size, of a VHDX.
    #[serde(default)]
    pub physical_sector_size: Option<u32>,
    /// Another identity.
    #[serde(default)]
    pub disk_id: Option<Uuid>,
}

impl Host {
    /// What the virtual disk file at `path` is.
    ///
    /// # Errors
    /// It is not there, or neither VHD nor VHDX.
    pub fn image(&self, path: &Path) -> Result<Image> {
        let path = real(path)?;
        match self.disk_on(&path)?.filter(|disk| disk.brought.is_some()) {
            Some(disk) => Ok(look::of_disk(&path, &disk)),
            None => look::look(&path),
        }
    }

    /// How the virtual disk file at `path` is now.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub fn image_state(&self, path: &Path) -> Result<ImageState> {
        let path = real(path)?;
        match self.disk_on(&path)? {
            Some(disk) if self.is_stale(&disk) => look::state_of_disk(&disk),
            disk => look::state(&path, disk.is_some()),
        }
    }

    /// Makes an empty virtual disk: a job.
    ///
    /// # Errors
    /// No such disk can be, or something is at `path` already.
    pub fn create_image(&self, path: &Path, shape: &Shape, owner: &str) -> Result<Uuid> {
        shape.check()?;
        let work =
            Work { file: new_file(path)?, content: Content::Nothing, shape: Some(shape.clone()), new: true };
        self.begin_image::<work::Create>(work, owner)
    }

    /// Makes an empty floppy disk: a job.
    ///
    /// # Errors
    /// Something is at `path` already.
    pub fn create_floppy(&self, path: &Path, owner: &str) -> Result<Uuid> {
        let work = Work { file: new_file(path)?, content: Content::Nothing, shape: None, new: true };
        self.begin_image::<work::Floppy>(work, owner)
    }

    /// Copies what the virtual disk at `from` holds, parents included, into a new one at `path`: a job. The size of
    /// `shape` does not count.
    ///
    /// # Errors
    /// `from` cannot be read or is not what its machine's disk holds, or something is at `path` already.
    pub fn convert_image(&self, from: &Path, path: &Path, shape: &Shape, owner: &str) -> Result<Uuid> {
        let from = real(from)?;
        self.refuse_stale(&from)?;
        let image = look::look(&from)?;
        let shape = Shape {
            virtual_size: image.virtual_size,
            // Sectors are what the guest on it was made for.
            logical_sector_size: image.logical_sector_size,
            ..shape.clone()
        };
        shape.check()?;
        let work =
            Work { file: new_file(path)?, content: Content::Image(from), shape: Some(shape), new: true };
        self.begin_image::<work::Convert>(work, owner)
    }

    /// Changes the virtual disk at `path`: a job that writes it anew.
    ///
    /// # Errors
    /// A machine has it, it has a parent, or it cannot become that.
    pub fn edit_image(&self, path: &Path, edit: &ImageEdit, owner: &str) -> Result<Uuid> {
        let (file, mut shape) = self.changeable(path)?;
        if let Some(size) = edit.size {
            shape.virtual_size = size;
        }
        if let Some(bytes) = edit.physical_sector_size {
            if shape.format != DiskFormat::Vhdx {
                return Err(Error::new(Reason::InvalidArgument, "a VHD keeps no physical sector size"));
            }
            shape.physical_sector_size = bytes;
        }
        shape.disk_id = edit.disk_id.unwrap_or(shape.disk_id);
        shape.check()?;
        let content = Content::Image(file.clone());
        let work = Work { file, content, shape: Some(shape), new: false };
        if edit.size.is_some() {
            self.begin_image::<work::Resize>(work, owner)
        } else {
            self.begin_image::<work::Identify>(work, owner)
        }
    }

    /// Writes the dynamic virtual disk at `path` anew without blocks of zeros: a job.
    ///
    /// # Errors
    /// A machine has it, it has a parent, or it is fixed.
    pub fn compact_image(&self, path: &Path, owner: &str) -> Result<Uuid> {
        let (file, shape) = self.changeable(path)?;
        if shape.fixed {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("`{}` is of fixed size: there is nothing to give up", file.display()),
            ));
        }
        let content = Content::Image(file.clone());
        let work = Work { file, content, shape: Some(shape), new: false };
        self.begin_image::<work::Compact>(work, owner)
    }

    /// Compares the virtual disk at `path`, and its parents, with every rule of their format: a job that fails with the
    /// first that is broken.
    ///
    /// # Errors
    /// There is no such file, or it is not what its machine's disk holds.
    pub fn check_image(&self, path: &Path, owner: &str) -> Result<Uuid> {
        let file = real(path)?;
        self.refuse_stale(&file)?;
        let submission = job::Submission::<work::Validate>::new(work::ValidateParams { file: file.clone() })
            .subject(subject(&file))
            .owner(owner);
        crate::jobs::submit(self, submission)
    }

    /// The file at `path`, which may be replaced, and what it is.
    fn changeable(&self, path: &Path) -> Result<(PathBuf, Shape)> {
        let file = real(path)?;
        self.refuse_used(&file)?;
        let image = look::look(&file)?;
        if image.kind == ImageKind::Differencing {
            return Err(Error::new(
                Reason::NotSupported,
                format!("`{}` is a differencing disk, which is not changed here", file.display()),
            )
            .hint("convert it into a disk of its own first"));
        }
        Ok((file, image.shape()))
    }

    fn begin_image<B: Begin>(&self, mut work: Work, owner: &str) -> Result<Uuid> {
        if let Some(shape) = work.shape.as_mut().filter(|shape| shape.disk_id.is_nil()) {
            shape.disk_id = self.fresh_id();
        }
        // Held until the job is on record: nobody makes the file a disk in between.
        let _files = self.disk_files();
        if !work.new {
            self.refuse_used(&work.file)?;
        }
        let subject = subject(&work.file);
        let submission = job::Submission::<work::Making<B>>::new(work).subject(subject).owner(owner);
        crate::jobs::submit(self, submission)
    }

    /// The disk whose file `path` is.
    pub(crate) fn disk_on(&self, path: &Path) -> Result<Option<DiskRecord>> {
        Ok(self.disks()?.into_iter().find(|disk| crate::define::uses(disk, path)))
    }

    /// Refuses a file that is a machine's, or open elsewhere.
    fn refuse_used(&self, path: &Path) -> Result<()> {
        if let Some(disk) = self.disk_on(path)? {
            return Err(self.is_disk_of(path, &disk));
        }
        match crate::inuse::opened_by(path) {
            None => Ok(()),
            Some(pid) => {
                Err(Error::new(Reason::InUse, format!("`{}` is open in process {pid}", path.display()))
                    .hint("stop what uses it first"))
            }
        }
    }

    /// Whether a guest may have written to the disk since its file had the same.
    fn is_stale(&self, disk: &DiskRecord) -> bool {
        let runs = self.record(disk.machine).map_or(0, |(record, _)| record.run_generation);
        disk.brought.as_ref().is_some_and(|brought| !brought.is_current(runs))
    }

    /// Refuses to read a file that is not what its disk holds.
    fn refuse_stale(&self, path: &Path) -> Result<()> {
        match self.disk_on(path)? {
            Some(disk) if self.is_stale(&disk) => Err(self.is_disk_of(path, &disk)),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_disk_of(&self, path: &Path, disk: &DiskRecord) -> Error {
        let name = self.record(disk.machine).map(|(record, _)| record.settings.name);
        let name = name.unwrap_or_else(|_| disk.machine.to_string());
        Error::new(Reason::InUse, format!("`{}` is a disk of machine `{name}`", path.display()))
            .hint("take it out of the machine first")
    }
}

/// What jobs about a file are about.
pub(crate) fn subject(file: &Path) -> String {
    format!("file:{}", file.display())
}

/// The file that `path` leads to.
pub(crate) fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("open", path, e))
}

/// The place of a file that is to be made at `path`, where nothing is.
fn new_file(path: &Path) -> Result<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Reason::InvalidArgument, format!("`{}` is no file", path.display())));
    };
    let file = fs::canonicalize(dir).map_err(|e| Error::io("create files in", dir, e))?.join(name);
    file::refuse_existing(&file)?;
    file::partial(&file, Uuid::nil())?;
    Ok(file)
}

#[cfg(test)]
mod tests;
