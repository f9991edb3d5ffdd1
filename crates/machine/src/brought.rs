//! Disks whose users know them as a VHD or VHDX file: taken in when they are attached, given back when they are detached.
//!
//! A guest does not write these formats (docs/design/disks.md), so what the file holds is copied into a raw file of ours,
//! which is the disk's layer, and goes back into a new file under the old name before the disk is nobody's any more. The
//! record says which file, and up to which run of the machine both hold the same: a machine that did not run since has
//! written nothing. What is copied when, and how a death is survived, is [`crate::change`]'s part.

use std::fs;
use std::path::{Path, PathBuf};

use job::Failure;
use serde::{Deserialize, Serialize};
use store::Condition;
use transfer::copy::CopyOptions;
use transfer::source::ImageSource;
use transfer::{LayerIdentity, Source};
use uuid::Uuid;

use crate::define::NewDisk;
use crate::disk::{DiskFormat, DiskRecord, Layer};
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::image::{self, ImageKind, Shape, file, look};
use crate::jobs::{failure, io};
use crate::record::{self, DISKS, MachineRecord};

/// The file that the users of a disk know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The file, links followed.
    pub file: PathBuf,
    /// The machine's run counter when the file and the disk last held the same.
    pub run_generation: u64,
    /// What the file was then, and what it is if a later return was not noted any more. Anything else is somebody else's.
    pub known: Vec<LayerIdentity>,
    /// The job that takes it in: until it is done, no machine's settings name the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<Uuid>,
}

impl Brought {
    /// Whether the disk, of a machine that has run so often, holds what the file holds.
    pub(crate) fn is_current(&self, run_generation: u64) -> bool {
        self.run_generation == run_generation && self.is_known()
    }

    /// Whether the file is one that this disk was taken from, or given back as.
    fn is_known(&self) -> bool {
        LayerIdentity::of(&self.file).is_ok_and(|now| self.known.contains(&now))
    }
}

impl DiskRecord {
    /// What it is as a virtual disk file.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            format: self.format,
            fixed: self.fixed,
            virtual_size: self.virtual_size,
            block_size: self.block_size,
            logical_sector_size: self.logical_sector_size,
            physical_sector_size: self.physical_sector_size,
            disk_id: self.virtual_disk_id,
        }
    }
}

/// The file of a new disk that is to be taken in; none for one that is used in place. A file is a VHD or VHDX when its name
/// and its content say so: those of a raw disk are its guest's to write.
pub(crate) fn to_take_in(disk: &NewDisk) -> Option<&Path> {
    let NewDisk::File { path, format } = disk else { return None };
    let named = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let named = matches!(named.as_deref(), Some("vhd" | "vhdx" | "avhdx"));
    let wanted = match format {
        Some(DiskFormat::Vhd | DiskFormat::Vhdx) => true,
        Some(DiskFormat::Raw | DiskFormat::Qcow2) => false,
        None => named,
    };
    // What cannot be read is told by whoever takes it in.
    let is_image = !matches!(vhdx::Image::is_vhd_or_vhdx(path), Ok(None));
    (wanted && is_image).then_some(path)
}

/// A disk to be taken in, and whether there is anything to copy.
pub(crate) struct Arrival {
    pub(crate) disk: DiskRecord,
    pub(crate) empty: bool,
}

impl Host {
    /// The record that the file at `path` gets as a disk of `machine`, whose files are in `home`. The caller holds
    /// [`Host::disk_files`].
    pub(crate) fn arrival(
        &self,
        (machine, run_generation): (Uuid, u64),
        home: &Path,
        path: &Path,
    ) -> Result<Arrival> {
        let path = image::real(path)?;
        self.refuse_used_disk(&path)?;
        // Before it is looked at: what is written meanwhile is noticed when it is copied.
        let known = LayerIdentity::of(&path).map_err(|e| Error::io("look at", &path, e))?;
        let (opened, image) = look::open(&path)?;
        if image.kind == ImageKind::Differencing {
            return Err(Error::new(
                Reason::NotSupported,
                format!("`{}` is a differencing disk, which cannot be given back as one", path.display()),
            )
            .hint(format!(
                "`slipway disk convert {} NEW.vhdx` makes a disk of its own",
                transfer::shell::word(&path)
            )));
        }
        let source = ImageSource::new(opened, &path, vec![path.clone()], "");
        let measured = transfer::measure(&source, 0, source.size(), &|| false).map_err(|e| {
            Error::new(Reason::BadPackage, format!("cannot read `{}` as a virtual disk", path.display()))
                .caused_by(e)
        })?;
        let id = self.fresh_id();
        let name = path.file_name().map_or_else(|| "disk".to_owned(), |n| n.to_string_lossy().into_owned());
        let layer = home.join("disks").join(format!("{}.raw", id.simple()));
        let brought = Brought { file: path, run_generation, known: vec![known], arriving: None };
        let disk = DiskRecord {
            version: 1,
            id,
            machine,
            name,
            virtual_size: image.virtual_size,
            format: image.format,
            block_size: image.block_size,
            fixed: image.kind == ImageKind::Fixed,
            logical_sector_size: image.logical_sector_size,
            physical_sector_size: image.physical_sector_size,
            virtual_disk_id: image.disk_id,
            serial: None,
            layers: vec![Layer { path: layer, format: engine::ImageFormat::Raw, owned: true }],
            source_path: None,
            brought: Some(brought),
            extra: serde_json::Map::new(),
        };
        Ok(Arrival { disk, empty: measured.data == 0 })
    }

    /// Copies what the disk's file holds into its layer, and makes that durable with its name.
    pub(crate) fn take_in(
        &self,
        disk: &DiskRecord,
        options: &CopyOptions<'_>,
    ) -> std::result::Result<(), Failure> {
        let (Some(brought), Some(layer)) = (&disk.brought, disk.leaf()) else { return Ok(()) };
        let doing = format!("cannot take in `{}`", brought.file.display());
        let (opened, image) = look::open(&brought.file).map_err(|e| failure(&e).path(&brought.file))?;
        if !brought.is_known() || image.shape() != disk.shape() {
            return Err(changed(&brought.file));
        }
        let source = ImageSource::new(opened, &brought.file, vec![brought.file.clone()], "");
        if let Some(dir) = layer.path.parent() {
            fs::create_dir_all(dir).map_err(|e| io("create directory", dir, e))?;
        }
        file::remove(&layer.path)?;
        file::write(Some(&source), &layer.path, (None, disk.virtual_size), &doing, options)?;
        for dir in layer.path.ancestors().skip(1).take(3) {
            self.sync_directory(dir).map_err(|e| io("sync directory", dir, e))?;
        }
        Ok(())
    }

    /// Writes what disk `id` of `machine` holds into its file anew, if it may have changed.
    ///
    /// The file is at every moment the old one or the whole new one. What the new one is stands in the record before it
    /// takes the name, so that whoever goes on after a death knows it for ours.
    pub(crate) fn give_back(
        &self,
        machine: &MachineRecord,
        id: Uuid,
        cancelled: &dyn Fn() -> std::result::Result<(), Failure>,
        options: &CopyOptions<'_>,
    ) -> std::result::Result<(), Failure> {
        let (mut disk, mut revision) = self.disk_record(id).map_err(|e| failure(&e))?;
        let Some(brought) = disk.brought.clone() else { return Ok(()) };
        if brought.is_current(machine.run_generation) {
            return Ok(());
        }
        let target = brought.file.clone();
        let new = file::refuse_existing(&target).is_ok();
        if !new && !brought.is_known() {
            return Err(changed(&target));
        }
        let doing = format!("cannot give back `{}`", target.display());
        let partial = file::partial(&target, id).map_err(|e| failure(&e))?;
        file::remove(&partial)?;
        let opened =
            self.open_disk(&disk, &format!("run {}", machine.run_generation)).map_err(|e| failure(&e))?;
        let shape = disk.shape();
        file::write(Some(&*opened.source), &partial, (Some(&shape), disk.virtual_size), &doing, options)?;
        let now = LayerIdentity::of(&partial).map_err(|e| io("look at", &partial, e))?;
        let now = LayerIdentity { path: target.clone(), ..now };
        let mut note = |change: &dyn Fn(&mut Brought)| {
            if let Some(brought) = &mut disk.brought {
                change(brought);
            }
            revision = self.put_disk(&disk, revision)?;
            Ok(())
        };
        note(&|brought| brought.known.push(now.clone())).map_err(|e: Error| failure(&e))?;
        cancelled()?;
        file::publish(&partial, &target, new)?;
        note(&|brought| {
            brought.known = vec![now.clone()];
            brought.run_generation = machine.run_generation;
        })
        .map_err(|e: Error| failure(&e))
    }

    pub(crate) fn disk_record(&self, id: Uuid) -> Result<(DiskRecord, u64)> {
        record::get(&*self.store, &format!("{DISKS}{id}"))?
            .ok_or_else(|| Error::new(Reason::NotFound, format!("there is no disk {id}")))
    }

    /// Writes a disk's record over the one of that revision; its new revision.
    fn put_disk(&self, disk: &DiskRecord, revision: u64) -> Result<u64> {
        let key = format!("{DISKS}{}", disk.id);
        let put = record::put(key.clone(), disk)?;
        if !record::commit(&*self.store, vec![Condition::Revision(key, revision)], vec![put])? {
            return Err(Error::new(Reason::Busy, "the disk was changed by somebody else meanwhile"));
        }
        Ok(self.disk_record(disk.id)?.1)
    }
}

fn changed(path: &Path) -> Failure {
    Failure::new(Reason::InUse.id(), format!("`{}` was changed by somebody else meanwhile", path.display()))
        .path(path)
        .hint("move it out of the way: what the disk holds is then written anew under its name")
}
