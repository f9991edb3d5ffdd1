//! One disk of a package: new, gone on with, or found complete.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Map;
use vhdx::{CreateOptions, DiskKind};

use super::journal::create_over;
use super::{DiskPlan, Failure, Fs, PackageWriter, TargetFormat, WriterError};
use crate::copy::{self, Copied, CopyError, CopyOptions, Journal as CopyJournal, Phase, Resume};
use crate::digest::{self, Digest, RootHasher, SidecarWriter};
use crate::fault::{Fault, FaultKind};
use crate::manifest::{ContentDigest, DIRECTORY, DiskEntry, MAX_NAME};
use crate::sink::{RawSink, Sink, SinkError, VhdSink, VhdxSink};
use crate::source::{ImageSource, Source, StorageSource};

/// How a disk came to be complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOutcome {
    /// Copied from start to end.
    Copied,
    /// The part below this byte was there from an earlier run, and proven.
    Resumed {
        /// Bytes of the disk.
        from: u64,
    },
    /// An earlier run had finished it; it was proven.
    Kept,
    /// An earlier run's part did not prove itself; copied anew.
    StartedOver {
        /// What was wrong.
        reason: String,
    },
}

/// A disk of a package, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskWritten {
    /// How.
    pub outcome: DiskOutcome,
    /// Its manifest entry.
    pub entry: DiskEntry,
    /// Bytes of data read from the source by this run.
    pub read: u64,
    /// Bytes written by this run.
    pub written: u64,
}

pub(super) fn add(
    writer: &mut PackageWriter,
    path: &str,
    source: &dyn Source,
    options: &CopyOptions<'_>,
) -> Result<DiskWritten, WriterError> {
    let number = writer.plan.disks.iter().position(|disk| disk.path == path);
    let number = number.ok_or_else(|| writer.bad_path(path, "it is not a disk of this package"))?;
    let plan = writer.plan.disks[number].clone();
    let identity = source.identity().map_err(|error| copy_failed(path, error.into()))?;
    if let Some(how) = plan.source.difference(&identity) {
        return Err(Fault::new(FaultKind::Changed, "export", source.path())
            .detail(how)
            .hint("run the export again")
            .into());
    }
    let place = Place::new(writer, &plan)?;
    let progress = writer.journal.disks[number].clone();
    let mut outcome = DiskOutcome::Copied;

    // What an earlier run left is proven before it is relied on.
    let mut resume = None;
    if progress.watermark > 0 {
        match prove(
            &*writer.fs,
            &place,
            &plan,
            progress.watermark,
            progress.prefix,
            progress.complete,
            options,
        ) {
            Ok(proven) => resume = Some(proven),
            Err(Unproven::Stop(error)) => return Err(error),
            Err(Unproven::Because(reason)) => {
                tracing::warn!(disk = path, reason, "an earlier run's part is not used");
                outcome = DiskOutcome::StartedOver { reason };
            }
        }
    }
    if let Some(resume) = &resume {
        if progress.complete {
            let copied = Copied {
                root: resume.root.clone().finish(),
                chunks: resume.root.entries(),
                size: plan.virtual_size,
                read: 0,
                written: 0,
                cloned: 0,
            };
            return complete(writer, number, &place, DiskOutcome::Kept, copied);
        }
        outcome = DiskOutcome::Resumed { from: resume.watermark };
    }

    let (sink, resume) = match resume {
        Some(resume) => match open_sink(&*writer.fs, &place, &plan) {
            Ok(sink) => (sink, Some(resume)),
            // Proven and yet not writable as what it is: start over rather than give up.
            Err(error) if error.kind() == FaultKind::Damaged => {
                outcome = DiskOutcome::StartedOver { reason: error.to_string() };
                (create_sink(writer, number, &place, &plan)?, None)
            }
            Err(error) => return Err(copy_failed(path, error.into())),
        },
        None => (create_sink(writer, number, &place, &plan)?, None),
    };

    let list = match &resume {
        Some(_) => writer.fs.open(&place.list),
        None => create_over(&*writer.fs, &place.list),
    };
    let list = list.map_err(|error| WriterError::io(error, "write", &place.list))?;
    let sidecar = match &resume {
        Some(resume) => SidecarWriter::resume(&*list, resume.root.entries()),
        None => SidecarWriter::create(&*list, plan.virtual_size),
    };
    let sidecar = sidecar.map_err(|error| WriterError::io(error, "write", &place.list))?;
    writer.sync_dir(&writer.partial.join(DIRECTORY))?;

    let root = resume.as_ref().map_or_else(|| RootHasher::new(plan.virtual_size), |r| r.root.clone());
    let mut keeper = Keeper { writer, number, sidecar, root, resumable: plan.format != TargetFormat::Vhd };
    let copied = copy::copy(source, &*sink, options, resume, &mut keeper);
    let copied = copied.map_err(|error| copy_failed(path, error))?;
    keeper.sidecar.sync().map_err(|error| WriterError::io(error, "write", &place.list))?;
    sink.finish().map_err(|error| copy_failed(path, error.into()))?;
    complete(writer, number, &place, outcome, copied)
}

fn copy_failed(disk: &str, source: CopyError) -> WriterError {
    WriterError(Box::new(Failure::Copy { disk: disk.to_owned(), source }))
}

/// Where a disk and its digest list go.
struct Place {
    disk: PathBuf,
    list: PathBuf,
    /// The list's path inside the package.
    list_name: String,
}

impl Place {
    fn new(writer: &mut PackageWriter, plan: &DiskPlan) -> Result<Self, WriterError> {
        let path = Path::new(&plan.path);
        if let Some(parent) = path.parent() {
            writer.ensure_dir(parent)?;
        }
        let mut name = format!("{}.b3", plan.path.rsplit('/').next().unwrap_or_default());
        if name.len() > MAX_NAME {
            name = format!("{}.b3", plan.disk_id);
        }
        let list_name = format!("{DIRECTORY}/{name}");
        Ok(Self { disk: writer.partial.join(path), list: writer.partial.join(&list_name), list_name })
    }
}

fn create_options(plan: &DiskPlan) -> CreateOptions {
    CreateOptions {
        virtual_size: plan.virtual_size,
        block_size: plan.block_size,
        logical_sector_size: plan.logical_sector_size,
        physical_sector_size: plan.physical_sector_size,
        kind: if plan.fixed { DiskKind::Fixed } else { DiskKind::Dynamic },
        disk_id: plan.disk_id,
    }
}

/// Creates the disk's file; what an earlier run left, and what the journal said of it, is dropped first.
fn create_sink(
    writer: &mut PackageWriter,
    number: usize,
    place: &Place,
    plan: &DiskPlan,
) -> Result<Box<dyn Sink>, WriterError> {
    let progress = &mut writer.journal.disks[number];
    if progress.watermark > 0 {
        (progress.watermark, progress.prefix, progress.complete) = (0, None, false);
        writer.save_journal()?;
    }
    let unwritable = |error| WriterError::io(error, "create", &place.disk);
    let storage = create_over(&*writer.fs, &place.disk).map_err(unwritable)?;
    // The name must be durable before the journal speaks of the content.
    let directory = place.disk.parent().unwrap_or(&writer.partial);
    writer.sync_dir(directory)?;
    writer.sync_dir(&writer.partial)?;
    let sink: Result<Box<dyn Sink>, SinkError> = match plan.format {
        TargetFormat::Vhdx => {
            VhdxSink::create(storage, &place.disk, &create_options(plan)).map(|sink| Box::new(sink) as _)
        }
        TargetFormat::Vhd => {
            VhdSink::create(storage, &place.disk, &create_options(plan)).map(|sink| Box::new(sink) as _)
        }
        TargetFormat::Raw => {
            RawSink::new(storage, &place.disk, plan.virtual_size).map(|sink| Box::new(sink) as _)
        }
    };
    sink.map_err(|error| copy_failed(&plan.path, error.into()))
}

fn open_sink(fs: &dyn Fs, place: &Place, plan: &DiskPlan) -> Result<Box<dyn Sink>, SinkError> {
    let storage = fs.open(&place.disk).map_err(|error| Fault::io(error, "open", &place.disk))?;
    match plan.format {
        TargetFormat::Vhdx => Ok(Box::new(VhdxSink::resume(storage, &place.disk, &create_options(plan))?)),
        TargetFormat::Raw => Ok(Box::new(RawSink::new(storage, &place.disk, plan.virtual_size)?)),
        TargetFormat::Vhd => Err(Fault::new(FaultKind::Damaged, "go on with", &place.disk)
            .detail("a VHD has no checkpoints")
            .into()),
    }
}

enum Unproven {
    /// Not what was written: start over.
    Because(String),
    /// Cannot be told now (cancelled, target full, I/O error): what is there stays for another try.
    Stop(WriterError),
}

/// Reads back what is below the watermark, hashes it, and writes its digest list anew.
fn prove(
    fs: &dyn Fs,
    place: &Place,
    plan: &DiskPlan,
    watermark: u64,
    prefix: Option<Digest>,
    complete: bool,
    options: &CopyOptions<'_>,
) -> Result<Resume, Unproven> {
    let because = |error: &dyn std::error::Error| {
        Unproven::Because(format!("cannot read `{}`: {error}", place.disk.display()))
    };
    let unlisted = |error| Unproven::Stop(WriterError::io(error, "write", &place.list));
    let storage = match fs.open(&place.disk) {
        Ok(storage) => storage,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(because(&error)),
        Err(error) => return Err(Unproven::Stop(WriterError::io(error, "open", &place.disk))),
    };
    let source: Box<dyn Source> = match plan.format {
        TargetFormat::Raw => {
            let source = StorageSource::new(storage, &place.disk);
            Box::new(source.map_err(|e| Unproven::Stop(WriterError::io(e, "read", &place.disk)))?)
        }
        TargetFormat::Vhd | TargetFormat::Vhdx => {
            let name = place.disk.to_string_lossy();
            let image = match vhdx::Image::open_storage(storage, &name, &Default::default()) {
                Ok(image) => image,
                Err(error) if error.kind() == vhdx::OpenErrorKind::Io => {
                    return Err(Unproven::Stop(Fault::image(error, &place.disk).into()));
                }
                Err(error) => return Err(because(&error)),
            };
            Box::new(ImageSource::new(image, &place.disk, Vec::new(), ""))
        }
    };
    if complete && source.size() != plan.virtual_size {
        return Err(Unproven::Because(format!("`{}` has another size", place.disk.display())));
    }
    let list = create_over(fs, &place.list).map_err(unlisted)?;
    let sidecar = SidecarWriter::create(&*list, plan.virtual_size).map_err(unlisted)?;
    let mut relist = Relist { sidecar, root: RootHasher::new(plan.virtual_size) };
    let checked =
        copy::hash_prefix(&*source, plan.virtual_size, watermark, Phase::Prove, options, &mut relist);
    if let Err(error) = checked {
        return Err(match error.kind() {
            // The file is shorter, or its tables lead nowhere.
            FaultKind::Damaged | FaultKind::Vanished | FaultKind::Unsupported => because(&error),
            _ => Unproven::Stop(copy_failed(&plan.path, error)),
        });
    }
    relist.sidecar.sync().map_err(unlisted)?;
    if Some(relist.root.clone().finish()) != prefix {
        return Err(Unproven::Because(format!(
            "the first {watermark} bytes of `{}` are not what was written",
            place.disk.display()
        )));
    }
    Ok(Resume { watermark, root: relist.root })
}

struct Relist<'a> {
    sidecar: SidecarWriter<'a>,
    root: RootHasher,
}

impl CopyJournal for Relist<'_> {
    fn chunk(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        self.root.push(index, digest);
        self.sidecar.push(index, digest)
    }
}

/// Records what a copy has done: digests in the list, the watermark in the journal.
struct Keeper<'a, 'b> {
    writer: &'a mut PackageWriter,
    number: usize,
    sidecar: SidecarWriter<'b>,
    root: RootHasher,
    resumable: bool,
}

impl CopyJournal for Keeper<'_, '_> {
    fn chunk(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        self.root.push(index, digest);
        self.sidecar.push(index, digest)
    }

    fn checkpoint(&mut self, watermark: u64) -> io::Result<()> {
        if !self.resumable {
            return Ok(());
        }
        let progress = &mut self.writer.journal.disks[self.number];
        progress.watermark = watermark;
        progress.prefix = Some(self.root.clone().finish());
        self.writer.journal.save(&*self.writer.fs, &self.writer.partial)
    }
}

fn complete(
    writer: &mut PackageWriter,
    number: usize,
    place: &Place,
    outcome: DiskOutcome,
    copied: Copied,
) -> Result<DiskWritten, WriterError> {
    let plan = &writer.plan.disks[number];
    let unreadable = |error| WriterError::io(error, "read", &place.disk);
    let storage = writer.fs.open(&place.disk).map_err(unreadable)?;
    let file_size = storage.len().map_err(unreadable)?;
    // What the file itself says: formats differ in what they can hold (a VHD has no physical sector size).
    let (block_size, logical_sector_size, physical_sector_size) = match plan.format {
        TargetFormat::Raw => (0, plan.logical_sector_size, plan.physical_sector_size),
        TargetFormat::Vhd | TargetFormat::Vhdx => {
            let name = place.disk.to_string_lossy();
            let image = vhdx::Image::open_storage(storage, &name, &Default::default())
                .map_err(|error| Fault::foreign(error, FaultKind::Damaged, "read back", &place.disk))?;
            let block_size = image.layers().first().map_or(0, |layer| layer.info.block_size);
            (block_size, image.logical_sector_size(), image.physical_sector_size())
        }
    };
    let entry = DiskEntry {
        path: plan.path.clone(),
        format: plan.format.name().to_owned(),
        virtual_size: plan.virtual_size,
        block_size,
        logical_sector_size,
        physical_sector_size,
        disk_id: plan.disk_id,
        file_size,
        digest: ContentDigest {
            algorithm: digest::ALGORITHM.to_owned(),
            chunk_size: digest::CHUNK_SIZE,
            root: copied.root,
            chunks: Some(place.list_name.clone()),
            extra: Map::new(),
        },
        extra: Map::new(),
    };
    let progress = &mut writer.journal.disks[number];
    if !progress.complete {
        progress.watermark = plan.virtual_size;
        progress.prefix = Some(copied.root);
        progress.complete = true;
        writer.save_journal()?;
    }
    writer.disks[number] = Some(entry.clone());
    Ok(DiskWritten { outcome, entry, read: copied.read, written: copied.written })
}
