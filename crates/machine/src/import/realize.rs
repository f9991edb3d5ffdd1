//! Realize: the job that makes a planned machine a machine.
//!
//! ```text
//!  claim      where each disk will be, and that nothing is there          (recorded; from here on those paths are ours)
//!  disks      copy into `.<name>.partial`, sync, rename; or an overlay    (again after a death: partial files start over)
//!  firmware   UEFI variables with the boot entries that the plan found
//!  commit     machine, disks and new switches in one transaction          (before it: no machine; after it: a whole one)
//!  forget     the planned machine
//! ```
//!
//! Undo removes what `claim` recorded and nothing else; a cancelled or failed realize leaves the planned machine as it
//! was. The package is only ever read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use job::{Context, Failure, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use store::{Condition, Operation};
use transfer::copy::{CopyOptions, NoJournal};
use transfer::sink::RawSink;
use transfer::source::OpenOptions;
use uuid::Uuid;
use vhdx::FileStorage;

use super::disk::image_options;
use super::hosted::planned_key;
use crate::blob::sync_directory;
use crate::disk::{DiskFormat, DiskRecord, Layer, with_extension};
use crate::error::{Error, Reason, chain};
use crate::host::{Host, machine_key};
use crate::jobs::{World, copy_failure, failure, io};
use crate::planned::{ImportMode, PlannedDisk};
use crate::record::{self, DISKS, MachineRecord, PlannedRecord, SWITCHES};
use crate::settings::Generation;

/// The job kind.
pub(crate) struct Realize;

/// What it is to realize.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RealizeParams {
    pub(crate) planned: Uuid,
}

/// Where everything will be. Once recorded, these paths are this job's to make and to remove.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    home: PathBuf,
    /// By planned disk, the file that the guest will write.
    files: Vec<PathBuf>,
}

impl Kind for Realize {
    const NAME: &'static str = "import";
    const VERSION: u32 = 1;
    type Params = RealizeParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new()
            .step_without_undo("claim", claim)
            .step("disks", disks, remove_files)
            .weight(50)
            .step("firmware", firmware, remove_home)
            .step("commit", commit, withdraw)
            .step_without_undo("forget", forget)
    }
}

type Cx<'a> = Context<'a, Realize>;

fn planned(cx: &Cx<'_>, host: &Host) -> Result<PlannedRecord, Failure> {
    Ok(host.planned_record(cx.params().planned).map_err(|e| failure(&e))?.0)
}

fn claim(cx: &mut Cx<'_>) -> Result<Claim, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    let home = host.home(plan.id);
    let dir = plan.request.to.clone().unwrap_or_else(|| home.join("disks"));
    let extension = match plan.request.mode {
        ImportMode::Copy => DiskFormat::Raw.extension(),
        ImportMode::Register => DiskFormat::Qcow2.extension(),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for disk in &plan.disks {
        let file = dir.join(with_extension(&disk.name, extension));
        let file =
            if files.contains(&file) { dir.join(format!("{}.{extension}", disk.id.simple())) } else { file };
        // In the machine's own directory whatever is there is litter of an earlier attempt.
        if plan.request.to.is_some() && file.exists() {
            let e = Error::new(Reason::AlreadyExists, format!("`{}` exists already", file.display()))
                .hint("`--to DIR` names another directory for the disks");
            return Err(failure(&e).path(&file));
        }
        files.push(file);
    }
    Ok(Claim { home, files })
}

fn disks(cx: &mut Cx<'_>) -> Result<Vec<String>, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    let claim: Claim = cx.output(claim)?;
    make_dir(&claim.home)?;
    for file in &claim.files {
        if let Some(dir) = file.parent() {
            make_dir(dir)?;
        }
    }
    let total: u64 = plan.disks.iter().map(|d| d.data_bytes).sum();
    let before = AtomicU64::new(0);
    let mut done: Vec<Uuid> = cx.restore()?.unwrap_or_default();
    let mut digests = Vec::new();
    for (disk, file) in plan.disks.iter().zip(&claim.files) {
        cx.check_cancel()?;
        if !done.contains(&disk.id) {
            match plan.request.mode {
                ImportMode::Copy => digests.push(copy(cx, &plan, disk, file, &before, total)?),
                ImportMode::Register => overlay(disk, file)?,
            }
            done.push(disk.id);
            cx.checkpoint(&done)?;
        }
        before.fetch_add(disk.data_bytes, Ordering::Relaxed);
    }
    Ok(digests)
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|e| io("create directory", dir, e))
}

fn partial(file: &Path) -> PathBuf {
    let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    file.with_file_name(format!(".{name}.partial"))
}

fn copy(
    cx: &Cx<'_>,
    plan: &PlannedRecord,
    disk: &PlannedDisk,
    file: &Path,
    before: &AtomicU64,
    total: u64,
) -> Result<String, Failure> {
    let path = disk
        .file
        .as_deref()
        .ok_or_else(|| Failure::new("not-found", format!("disk `{}` is missing", disk.name)))?;
    let options =
        OpenOptions { image: image_options(&plan.origin.source, &plan.request), ..OpenOptions::default() };
    let doing = format!("cannot copy disk `{}`", disk.name);
    let source = transfer::source::open(path, &options).map_err(|e| {
        Failure::new(crate::jobs::fault_reason(e.kind()).id(), format!("{doing}: {}", chain(&e))).path(path)
    })?;
    if source.size() != disk.virtual_size {
        return Err(
            Failure::new("bad-package", format!("{doing}: it changed since it was looked at")).path(path)
        );
    }
    let temporary = partial(file);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &temporary, e)),
        _ => {}
    }
    let storage = FileStorage::create_new(&temporary).map_err(|e| io("create", &temporary, e))?;
    let failed = |e: transfer::CopyError| copy_failure(&doing, &e);
    let sink =
        RawSink::new(Arc::new(storage), &temporary, disk.virtual_size).map_err(|e| failed(e.into()))?;
    let reporter = cx.reporter();
    let phase = format!("copying {}", disk.name);
    let copied = transfer::copy::copy(
        &*source,
        &sink,
        &CopyOptions {
            cancelled: &|| reporter.cancelled(),
            progress: &|p| reporter.progress(&phase, before.load(Ordering::Relaxed) + p.done, total),
            ..CopyOptions::default()
        },
        None,
        &mut NoJournal,
    )
    .map_err(failed)?;
    transfer::sink::Sink::finish(Box::new(sink)).map_err(|e| failed(e.into()))?;
    fs::rename(&temporary, file).map_err(|e| io("rename into", file, e))?;
    if let Some(dir) = file.parent() {
        sync_directory(dir).map_err(|e| io("sync directory", dir, e))?;
    }
    Ok(copied.root.to_string())
}

/// An empty overlay: what the guest writes goes here, the package's disk stays as it is.
fn overlay(disk: &PlannedDisk, file: &Path) -> Result<(), Failure> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", file, e)),
        _ => {}
    }
    engine::image::create_qcow2(file, disk.virtual_size, None).map_err(|e| {
        Failure::new("engine", format!("cannot create the overlay of `{}`: {}", disk.name, chain(&e)))
            .path(file)
    })
}

fn remove_files(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let Some(claim) = cx.try_output(claim)? else { return Ok(()) };
    for file in &claim.files {
        for path in [partial(file), file.clone()] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path, e)),
                _ => {}
            }
        }
    }
    remove_dir(&claim.home)
}

fn remove_dir(dir: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", dir, e)),
        _ => Ok(()),
    }
}

fn firmware(cx: &mut Cx<'_>) -> Result<usize, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    let claim: Claim = cx.output(claim)?;
    if plan.settings.generation == Generation::One {
        return Ok(0);
    }
    super::firmware::prepare(&host, &plan, &claim.home)
}

fn remove_home(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let Some(claim) = cx.try_output(claim)? else { return Ok(()) };
    match fs::remove_file(claim.home.join(crate::hardware::VARIABLES)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &claim.home, e)),
        _ => Ok(()),
    }
}

fn commit(cx: &mut Cx<'_>) -> Result<Uuid, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    let claim: Claim = cx.output(claim)?;
    let make = || -> crate::error::Result<Uuid> {
        if host.record(plan.id).is_ok_and(|(m, _)| m.home == claim.home && m.created == plan.created) {
            // Done before we died.
            return Ok(plan.id);
        }
        let mut operations = Vec::new();
        for switch in host.look(&plan.request)?.new_switches {
            operations.push(record::put(format!("{SWITCHES}{}", switch.id), &switch)?);
        }
        for (disk, file) in plan.disks.iter().zip(&claim.files) {
            let d = disk_record(&plan, disk, file);
            operations.push(record::put(format!("{DISKS}{}", d.id), &d)?);
        }
        let machine = MachineRecord {
            version: 1,
            id: plan.id,
            settings: plan.settings.clone(),
            created: plan.created,
            home: claim.home.clone(),
            origin: Some(plan.origin.clone()),
            resolved: None,
            run_generation: 0,
            wanted_running: false,
            extra: serde_json::Map::new(),
        };
        operations.push(record::put(machine_key(plan.id), &machine)?);
        if !record::commit(&*host.store, vec![Condition::Absent(machine_key(plan.id))], operations)? {
            return Err(Error::new(
                Reason::AlreadyExists,
                format!("a machine with the id {} is already here", plan.id),
            )
            .hint("import again with --new-id"));
        }
        host.tell(plan.id);
        Ok(plan.id)
    };
    make().map_err(|e| failure(&e))
}

fn disk_record(plan: &PlannedRecord, disk: &PlannedDisk, file: &Path) -> DiskRecord {
    let leaf = |format| Layer { path: file.to_owned(), format, owned: true };
    let layers = match plan.request.mode {
        ImportMode::Copy => vec![leaf(engine::ImageFormat::Raw)],
        ImportMode::Register => {
            let base = match disk.format {
                DiskFormat::Vhd => engine::ImageFormat::Vpc,
                DiskFormat::Qcow2 => engine::ImageFormat::Qcow2,
                DiskFormat::Raw => engine::ImageFormat::Raw,
                DiskFormat::Vhdx => engine::ImageFormat::Vhdx,
            };
            let package =
                disk.file.iter().map(|path| Layer { path: path.clone(), format: base, owned: false });
            std::iter::once(leaf(engine::ImageFormat::Qcow2)).chain(package).collect()
        }
    };
    DiskRecord {
        version: 1,
        id: disk.id,
        machine: plan.id,
        name: disk.name.clone(),
        virtual_size: disk.virtual_size,
        format: disk.format,
        block_size: disk.block_size,
        fixed: disk.fixed,
        logical_sector_size: disk.logical_sector_size,
        physical_sector_size: disk.physical_sector_size,
        virtual_disk_id: disk.virtual_disk_id,
        layers,
        source_path: Some(disk.source_path.clone()),
        extra: serde_json::Map::new(),
    }
}

fn withdraw(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let host = cx.world().host()?;
    let Some(claim) = cx.try_output(claim)? else { return Ok(()) };
    let take_back = || -> crate::error::Result<()> {
        let id = cx.params().planned;
        let Ok((machine, revision)) = host.record(id) else { return Ok(()) };
        // Another machine by the same id was there first: it is why we failed, and none of ours.
        if machine.home != claim.home
            || host.planned_record(id).is_ok_and(|(p, _)| p.created != machine.created)
        {
            return Ok(());
        }
        let mut operations = vec![Operation::Delete(machine_key(id))];
        operations.extend(machine.settings.disks().map(|(_, _, d)| Operation::Delete(format!("{DISKS}{d}"))));
        record::commit(&*host.store, vec![Condition::Revision(machine_key(id), revision)], operations)?;
        Ok(())
    };
    take_back().map_err(|e| failure(&e))
}

fn forget(cx: &mut Cx<'_>) -> Result<Uuid, Failure> {
    let host = cx.world().host()?;
    let id = cx.params().planned;
    record::commit(&*host.store, vec![], vec![Operation::Delete(planned_key(id))])
        .map_err(|e| failure(&e))?;
    Ok(id)
}
