//! Realize: the job that makes a planned machine a machine.
//!
//! ```text
//!  claim      where each disk will be, and that nothing is there          (recorded; from here on those paths are ours)
//!  disks      copy into `.<name>.partial`, sync, rename; or an overlay    (again after a death: partial files start over);
//!             before them the saved memory, when it comes along
//!  firmware   UEFI variables with the boot entries that the plan found
//!  commit     machine, disks, new switches, and the plan set aside, in one transaction
//!  adopt      a package that becomes the machine's is called so; most do not, and this does nothing
//! ```
//!
//! Before that transaction there is a planned machine and no machine, after it the machine and no plan. The plan is
//! only set aside ([`REALIZED`]) until the machine is deleted, so that undo can put it back. Undo removes what `claim`
//! recorded and nothing else; a cancelled or failed realize leaves the planned machine as it was. The package is only
//! ever read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use job::{Context, Failure, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use store::{Condition, Operation};
use transfer::copy::{CopyOptions, NoJournal};
use transfer::package::{ConfigKind, Package};
use transfer::sink::RawSink;
use transfer::{Access, HostFile};
use uuid::Uuid;

use super::disk::{image_options, open_source};
use super::hosted::planned_key;
use crate::blob::sync_directory;
use crate::disk::{DiskFormat, DiskRecord, Layer, with_extension};
use crate::error::{Error, Reason, chain};
use crate::host::Host;
use crate::jobs::{World, copy_failure, failure, io};
use crate::planned::{ImportMode, PlannedDisk, PlannedState};
use crate::record::{
    self, DISKS, MACHINES, MachineRecord, PlannedRecord, REALIZED, Resolved, SWITCHES, machine_key,
};
use crate::saved::{self, Saved};
use crate::settings::Generation;
use crate::switch::SwitchRecord;

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
    /// The file of the memory that comes along.
    #[serde(default)]
    state: Option<PathBuf>,
}

impl Kind for Realize {
    const NAME: &'static str = "import";
    const VERSION: u32 = 1;
    type Params = RealizeParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new()
            .step("claim", claim, unclaim)
            .step("disks", disks, remove_files)
            .weight(50)
            .step("firmware", firmware, remove_home)
            .step("commit", commit, withdraw)
            .step("adopt", adopt, give_back)
    }
}

type Cx<'a> = Context<'a, Realize>;

/// Ending of a file that is not complete.
const PARTIAL: &str = ".partial";
/// Longest name of a disk's file in bytes, so that the incomplete one has a legal name too.
const MAX_FILE_NAME: usize = 255 - PARTIAL.len() - 1;

fn planned(cx: &Cx<'_>, host: &Host) -> Result<PlannedRecord, Failure> {
    Ok(host.planned_record(cx.params().planned).map_err(|e| failure(&e))?.0)
}

fn claim(cx: &mut Cx<'_>) -> Result<Claim, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    // Who defines a machine holds its cell all the while.
    let cell = host.cell(plan.id);
    let _held = cell.lock();
    if host.record(plan.id).is_ok() {
        return Err(failure(&exists(plan.id)));
    }
    let home = match &plan.request.root {
        Some(root) => Host::new_home_in(root, plan.id),
        None => host.new_home(plan.id),
    };
    let dir = plan.request.to.clone().unwrap_or_else(|| home.join("disks"));
    let extension = match plan.request.mode {
        ImportMode::Copy => DiskFormat::Raw.extension(),
        ImportMode::Register => DiskFormat::Qcow2.extension(),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for disk in &plan.disks {
        let (dir, name) = match plan.request.disk_targets.get(&disk.source_path) {
            Some(target) => (
                target.parent().unwrap_or(&dir),
                target.file_name().map_or_else(|| disk.name.clone(), |n| n.to_string_lossy().into_owned()),
            ),
            None => (dir.as_path(), disk.name.clone()),
        };
        let name = with_extension(&name, extension);
        let file = dir.join(&name);
        let file = if files.contains(&file) || name.len() > MAX_FILE_NAME {
            dir.join(format!("{}.{extension}", disk.id.simple()))
        } else {
            file
        };
        if file.symlink_metadata().is_ok() {
            let e = Error::new(Reason::AlreadyExists, format!("`{}` exists already", file.display()))
                .hint("`--to DIR` names another directory for the disks");
            return Err(failure(&e).path(&file));
        }
        files.push(file);
    }
    let state = plan.state.as_ref().map(|_| home.join(saved::file_name(cx.id().0)));
    Ok(Claim { home, files, state })
}

/// An import in one go leaves no planned machine behind.
fn unclaim(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let host = cx.world().host()?;
    let key = planned_key(cx.params().planned);
    let drop_it = || -> crate::error::Result<()> {
        match record::get::<PlannedRecord>(&*host.store, &key)? {
            Some((plan, revision)) if plan.request.at_once => {
                let unchanged = vec![Condition::Revision(key.clone(), revision)];
                record::commit(&*host.store, unchanged, vec![Operation::Delete(key.clone())]).map(drop)
            }
            _ => Ok(()),
        }
    };
    drop_it().map_err(|e| failure(&e))
}

fn disks(cx: &mut Cx<'_>) -> Result<Vec<String>, Failure> {
    let host = cx.world().host()?;
    let plan = planned(cx, &host)?;
    let claim: Claim = cx.output(claim)?;
    make_dir(&claim.home)?;
    for dir in claim.files.iter().filter_map(|file| file.parent()) {
        make_dir(dir)?;
    }
    if let (Some(state), Some(file)) = (&plan.state, &claim.state) {
        memory(cx, state, file)?;
    }
    let total: u64 = plan.disks.iter().map(|d| d.data_bytes).sum();
    let before = AtomicU64::new(0);
    let mut done: Vec<Uuid> = cx.restore()?.unwrap_or_default();
    let mut digests = Vec::new();
    for (disk, file) in plan.disks.iter().zip(&claim.files) {
        cx.check_cancel()?;
        if !done.contains(&disk.id) {
            match plan.request.mode {
                ImportMode::Copy => digests.push(copy(cx, &host, &plan, disk, file, &before, total)?),
                ImportMode::Register => overlay(disk, file)?,
            }
            done.push(disk.id);
            cx.checkpoint(&done)?;
        }
        before.fetch_add(disk.data_bytes, Ordering::Relaxed);
    }
    Ok(digests)
}

/// Makes a directory whose name survives power loss.
fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|e| io("create directory", dir, e))?;
    match dir.parent() {
        Some(above) => sync_directory(above).map_err(|e| io("sync directory", above, e)),
        None => Ok(()),
    }
}

fn partial(file: &Path) -> PathBuf {
    let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    file.with_file_name(format!(".{name}{PARTIAL}"))
}

fn copy(
    cx: &Cx<'_>,
    host: &Host,
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
    let image = image_options(path, &plan.origin.source, &plan.request);
    let doing = format!("cannot copy disk `{}`", disk.name);
    let source = open_source(path, disk, image).map_err(|e| {
        let reason = crate::jobs::fault_reason(e.kind()).id();
        let failure = Failure::new(reason, format!("{doing}: {}", chain(&e))).path(path);
        e.hint().map(str::to_owned).into_iter().fold(failure, Failure::hint)
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
    let storage = HostFile::create_new(&temporary, Access::Auto).map_err(|e| io("create", &temporary, e))?;
    let failed = |e: transfer::CopyError| copy_failure(&doing, &e);
    let sink =
        RawSink::new(Arc::new(storage), &temporary, disk.virtual_size).map_err(|e| failed(e.into()))?;
    let reporter = cx.reporter();
    let meter = host.counters.import.meter();
    let phase = format!("copying {}", disk.name);
    let copied = transfer::copy::copy(
        &*source,
        &sink,
        &CopyOptions {
            cancelled: &|| reporter.cancelled(),
            progress: &|p| {
                meter.saw(p);
                reporter.progress(&phase, before.load(Ordering::Relaxed) + p.done, total);
            },
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

/// Copies the memory that comes along, and proves on the way that it is what was written.
fn memory(cx: &Cx<'_>, state: &PlannedState, file: &Path) -> Result<(), Failure> {
    const DOING: &str = "cannot copy the saved memory";
    let failed = |e: transfer::CopyError| copy_failure(DOING, &e);
    let temporary = saved::partial(file);
    for path in [&temporary, file] {
        saved::remove(path).map_err(|e| io("remove", path, e))?;
    }
    let source = transfer::RawSource::open(&state.file, &Default::default()).map_err(|e| failed(e.into()))?;
    let size = transfer::Source::size(&source);
    let storage = HostFile::create_new(&temporary, Access::Auto).map_err(|e| io("create", &temporary, e))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&temporary, private).map_err(|e| io("protect", &temporary, e))?;
    let sink = RawSink::new(Arc::new(storage), &temporary, size).map_err(|e| failed(e.into()))?;
    let reporter = cx.reporter();
    let options = CopyOptions {
        cancelled: &|| reporter.cancelled(),
        progress: &|p| reporter.progress("copying memory", p.done, p.total),
        ..CopyOptions::default()
    };
    let copied = transfer::copy::copy(&source, &sink, &options, None, &mut NoJournal).map_err(failed)?;
    transfer::sink::Sink::finish(Box::new(sink)).map_err(|e| failed(e.into()))?;
    if (copied.root.to_string(), size) != (state.digest.clone(), state.bytes) {
        saved::remove(&temporary).map_err(|e| io("remove", &temporary, e))?;
        let failure = Failure::new(Reason::BadPackage.id(), format!("{DOING}: it is not what was written"));
        let hint = "copy the package again, or import with --discard-saved-state";
        return Err(failure.path(&state.file).hint(hint));
    }
    fs::rename(&temporary, file).map_err(|e| io("rename into", file, e))?;
    match file.parent() {
        Some(dir) => sync_directory(dir).map_err(|e| io("sync directory", dir, e)),
        None => Ok(()),
    }
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
    })?;
    fs::File::open(file).and_then(|f| f.sync_all()).map_err(|e| io("sync", file, e))?;
    match file.parent() {
        Some(dir) => sync_directory(dir).map_err(|e| io("sync directory", dir, e)),
        None => Ok(()),
    }
}

fn remove_files(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let Some(claim) = cx.try_output(claim)? else { return Ok(()) };
    let states = claim.state.iter().flat_map(|file| [saved::partial(file), file.clone()]);
    for path in states {
        saved::remove(&path).map_err(|e| io("remove", &path, e))?;
    }
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

fn exists(id: Uuid) -> Error {
    Error::new(Reason::AlreadyExists, format!("a machine with the id {id} is already here"))
        .hint("import again with --new-id")
}

fn realized_key(id: Uuid) -> String {
    format!("{REALIZED}{id}")
}

fn commit(cx: &mut Cx<'_>) -> Result<Uuid, Failure> {
    let host = cx.world().host()?;
    let claim: Claim = cx.output(claim)?;
    let id = cx.params().planned;
    let make = || -> crate::error::Result<Uuid> {
        if host.record(id).is_ok_and(|(machine, _)| machine.home == claim.home) {
            // Done before we died.
            return Ok(id);
        }
        let (plan, revision) = host.planned_record(id)?;
        let mut operations = Vec::new();
        let names = host.switch_names();
        let here = host.switches()?;
        for switch in plan.new_switches.iter().filter(|new| here.iter().all(|s| s.name != new.name)) {
            operations.push(record::put(format!("{SWITCHES}{}", switch.id), switch)?);
        }
        for (disk, file) in plan.disks.iter().zip(&claim.files) {
            let d = disk_record(&plan, disk, file);
            operations.push(record::put(format!("{DISKS}{}", d.id), &d)?);
        }
        let machine = MachineRecord {
            version: 1,
            id,
            settings: plan.settings.clone(),
            created: plan.created,
            home: claim.home.clone(),
            origin: Some(plan.origin.clone()),
            resolved: plan.state.as_ref().map(|state| Resolved {
                machine_version: state.needs.machine_version.clone(),
                cpu_model: state.needs.cpu_model.clone(),
            }),
            run_generation: 0,
            wanted_running: false,
            turned_off_in: None,
            changed_by: None,
            saved: saved_of(&plan, &claim),
            extra: serde_json::Map::new(),
        };
        operations.push(record::put(machine_key(id), &machine)?);
        operations.push(Operation::Delete(planned_key(id)));
        operations.push(record::put(realized_key(id), &plan)?);
        let conditions =
            vec![Condition::Absent(machine_key(id)), Condition::Revision(planned_key(id), revision)];
        if !record::commit(&*host.store, conditions, operations)? {
            return Err(exists(id));
        }
        drop(names);
        // Off, or saved.
        host.show_as_is(id);
        Ok(id)
    };
    make().map_err(|e| failure(&e))
}

/// The export that the machine was made of, if it becomes the machine's.
fn adopted(cx: &Cx<'_>) -> Result<Option<PathBuf>, Failure> {
    let host = cx.world().host()?;
    let plan = record::get::<PlannedRecord>(&*host.store, &realized_key(cx.params().planned));
    let plan = plan.map_err(|e| failure(&e))?;
    Ok(plan.filter(|(plan, _)| plan.request.adopt).map(|(plan, _)| plan.request.path))
}

fn adopt(cx: &mut Cx<'_>) -> Result<Uuid, Failure> {
    if let Some(path) = adopted(cx)? {
        let failed = |e| io("adopt the export at", &path, e);
        let package = Package::open(&path).map_err(|e| {
            Failure::new(Reason::BadPackage.id(), format!("cannot adopt the export: {}", chain(&e)))
                .path(&path)
        })?;
        if package.configuration.kind == ConfigKind::Exp {
            // From here on undo knows that the name is ours to change back.
            cx.checkpoint(&package.configuration.path)?;
            transfer::package::make_live(&package.configuration.path).map_err(failed)?;
        }
    }
    cx.output(commit)
}

fn give_back(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let Some(exported) = cx.restore::<PathBuf>()? else { return Ok(()) };
    transfer::package::make_export(&exported).map_err(|e| io("give back", &exported, e))
}

/// What the machine's record says of the memory that came along.
fn saved_of(plan: &PlannedRecord, claim: &Claim) -> Option<Saved> {
    let state = plan.state.as_ref()?;
    let file = claim.state.as_ref()?.file_name()?.to_string_lossy().into_owned();
    Some(Saved {
        file,
        bytes: state.bytes,
        digest: state.digest.clone(),
        when: state.when,
        run_generation: 0,
        needs: state.needs.clone(),
    })
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
    record_of(plan.id, disk, layers)
}

/// The one layer of a disk whose content is in the raw file at `path`.
pub(super) fn raw_layer(path: &Path) -> Vec<Layer> {
    vec![Layer { path: path.to_owned(), format: engine::ImageFormat::Raw, owned: true }]
}

/// The record of planned disk `disk`, of machine `machine`, in `layers`.
pub(super) fn record_of(machine: Uuid, disk: &PlannedDisk, layers: Vec<Layer>) -> DiskRecord {
    DiskRecord {
        version: 1,
        id: disk.id,
        machine,
        name: disk.name.clone(),
        virtual_size: disk.virtual_size,
        format: disk.format,
        block_size: disk.block_size,
        fixed: disk.fixed,
        logical_sector_size: disk.logical_sector_size,
        physical_sector_size: disk.physical_sector_size,
        virtual_disk_id: disk.virtual_disk_id,
        serial: disk.serial.clone(),
        layers,
        source_path: Some(disk.source_path.clone()),
        brought: None,
        extra: serde_json::Map::new(),
    }
}

fn withdraw(cx: &mut Cx<'_>, _why: UndoReason) -> Result<(), Failure> {
    let host = cx.world().host()?;
    let Some(claim) = cx.try_output(claim)? else { return Ok(()) };
    let id = cx.params().planned;
    let take_back = || -> crate::error::Result<()> {
        let Ok((machine, revision)) = host.record(id) else { return Ok(()) };
        // Another machine by the same id was there first: it is why we failed, and none of ours.
        if machine.home != claim.home {
            return Ok(());
        }
        let mut operations = vec![Operation::Delete(machine_key(id)), Operation::Delete(realized_key(id))];
        operations.extend(machine.settings.disks().map(|(_, _, d)| Operation::Delete(format!("{DISKS}{d}"))));
        if let Some((plan, _)) = record::get::<PlannedRecord>(&*host.store, &realized_key(id))? {
            operations.push(record::put(planned_key(id), &plan)?);
            for switch in made_switches(&host, &plan)? {
                operations.push(Operation::Delete(format!("{SWITCHES}{}", switch.id)));
            }
        }
        if !record::commit(&*host.store, vec![Condition::Revision(machine_key(id), revision)], operations)? {
            return Err(Error::new(Reason::Busy, "the machine was changed by somebody else meanwhile"));
        }
        host.forget_cell(id);
        host.tell_deleted(id);
        Ok(())
    };
    take_back().map_err(|e| failure(&e))
}

/// Switches that came with the plan's machine and that no other machine uses by now.
fn made_switches(host: &Host, plan: &PlannedRecord) -> crate::error::Result<Vec<SwitchRecord>> {
    let others: Vec<MachineRecord> = record::list(&*host.store, MACHINES)?;
    let used = |name: &str| {
        let mut others = others.iter().filter(|m| m.id != plan.id).flat_map(|m| &m.settings.adapters);
        others.any(|a| a.switch.as_deref() == Some(name))
    };
    let here = host.switches()?;
    Ok(here
        .into_iter()
        .filter(|s| plan.new_switches.iter().any(|n| n.id == s.id) && !used(&s.name))
        .collect())
}

#[cfg(test)]
mod tests;
