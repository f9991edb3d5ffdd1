//! Export: the job that writes a machine that is off as a Hyper-V package.
//!
//! ```text
//!  prepare   what goes where, under which names, and that nothing is there     (recorded)
//!  write     disks (hashed, checkpointed), configuration, runtime and guest state, manifest, rename
//! ```
//!
//! How a package is absent, `.partial` or complete is [`transfer::writer`]'s part; what is in it is decided here. A
//! configuration that came from Hyper-V and was not changed goes out as the very bytes that came. A failed or killed
//! export keeps its `.partial`, and the next one goes on with it if every source is still the same; a cancelled one
//! deletes it.

mod first;

use std::path::{Path, PathBuf};

use job::{Context, Failure, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use serde_json::json;
use transfer::copy::CopyOptions;
use transfer::writer::{self, Beginning, DiskPlan, PackagePlan, PackageWriter, TargetFormat};
use uuid::Uuid;

use crate::config::{self, Identity};
use crate::disk::{DiskFormat, DiskRecord, with_extension};
use crate::error::{Error, Reason, Result, chain};
use crate::exported::is_whole;
use crate::host::Host;
use crate::import::Details;
use crate::jobs::{World, failure, fault_reason, writer_failure};
use crate::names::safe_file_name;
use crate::power::Request;
use crate::record::MachineRecord;
use crate::saved::Saved;
use crate::settings::Generation;

/// Hyper-V's folder of configurations.
const MACHINES_DIR: &str = "Virtual Machines";
/// Hyper-V's folder of disks.
const DISKS_DIR: &str = "Virtual Hard Disks";
/// Hyper-V's folder of checkpoints, which it makes even when there are none.
const SNAPSHOTS_DIR: &str = "Snapshots";
/// Longest file name in bytes.
const MAX_NAME: usize = 255;
/// Configurations of at least this version have a runtime state file beside them (6.2, Windows Server 2016).
const FIRST_WITH_RUNTIME_STATE: i64 = 0x0602;

/// Whose exports the package looks like. Disks and what Slipway keeps of its own are the same in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Those of 2012 R2 and later: VMCX with its companions, or XML where it came so.
    #[default]
    Current,
    /// Those of 2008 to 2012: `config.xml` and an `.exp`, which can be imported in place once. For machines of generation 1.
    First,
}

/// What to export, and how: the settings of `Msvm_VirtualSystemExportSettingData` that need no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// The package's directory; absolute. It must not exist, or be empty.
    pub directory: PathBuf,
    /// Make a directory named after the machine inside `directory` (`CreateVmExportSubdirectory`).
    #[serde(default)]
    pub subdirectory: bool,
    /// Copy the disks (`CopyVmStorage`); without it the configuration keeps its paths.
    #[serde(default = "yes")]
    pub storage: bool,
    /// Copy the memory of a saved machine (`CopyVmRuntimeInformation`).
    #[serde(default = "yes")]
    pub saved_state: bool,
    /// Disks to leave out, by id (`ExcludedVirtualHardDisks`).
    #[serde(default)]
    pub excluded_disks: Vec<Uuid>,
    /// Another format than the one each disk came in.
    #[serde(default)]
    pub format: Option<DiskFormat>,
    /// Another block size in bytes.
    #[serde(default)]
    pub block_size: Option<u32>,
    /// Bytes read per second at most.
    #[serde(default)]
    pub rate_limit: Option<std::num::NonZero<u64>>,
    /// Whose exports it looks like.
    #[serde(default)]
    pub layout: Layout,
}

fn yes() -> bool {
    true
}

impl ExportRequest {
    /// Everything, into `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            subdirectory: false,
            storage: true,
            saved_state: true,
            excluded_disks: Vec::new(),
            format: None,
            block_size: None,
            rate_limit: None,
            layout: Layout::Current,
        }
    }
}

impl Host {
    /// Exports machine `id`: a job.
    ///
    /// # Errors
    /// It is not off, a job holds it, an argument breaks a rule, or something is at the target already.
    pub fn export(&self, id: Uuid, request: &ExportRequest, owner: &str) -> Result<Uuid> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let running = cell.lock();
        self.admit(&running, Request::Export, &record)?;
        self.refuse_busy(id, "export")?;
        let target = target(&record, request)?;
        for disk in &request.excluded_disks {
            if !record.settings.disks().any(|(_, _, d)| d == *disk) {
                return Err(Error::new(
                    Reason::InvalidArgument,
                    format!("the machine has no disk {disk} to leave out"),
                ));
            }
        }
        if request.format == Some(DiskFormat::Qcow2) {
            return Err(Error::new(Reason::InvalidArgument, "a Hyper-V package holds no qcow2 disks"));
        }
        if request.layout == Layout::First && record.settings.generation == Generation::Two {
            let name = &record.settings.name;
            let message = format!("`{name}` is of generation 2, which exports of 2008 to 2012 cannot hold");
            return Err(Error::new(Reason::NotSupported, message).hint("export it in the current layout"));
        }
        refuse_existing(&target)?;
        let submission =
            job::Submission::<Export>::new(ExportParams { machine: id, request: request.clone(), target })
                .subject(id.to_string())
                .owner(owner);
        // The cell stays locked until the job is on record: nobody starts the machine in between.
        let job = crate::jobs::submit(self, submission);
        drop(running);
        job
    }

    /// Opens what disk `record` holds now, for reading.
    pub(crate) fn open_disk(&self, disk: &DiskRecord, generation: &str) -> Result<OpenDisk> {
        let sectors = (disk.logical_sector_size, disk.physical_sector_size);
        let options = transfer::source::OpenOptions {
            generation: generation.to_owned(),
            raw_sectors: Some(sectors),
            ..transfer::source::OpenOptions::default()
        };
        let unreadable = |e: &(dyn std::error::Error + 'static), reason: Reason| {
            Error::new(reason, format!("cannot read disk `{}`: {}", disk.name, chain(e)))
        };
        let leaf = disk
            .leaf()
            .ok_or_else(|| Error::new(Reason::Store, format!("disk `{}` has no file", disk.name)))?;
        if disk.layers.len() == 1 && leaf.format == engine::ImageFormat::Raw {
            let source = transfer::source::open_as(&leaf.path, transfer::source::DiskFormat::Raw, &options)
                .map_err(|e| {
                let error = unreadable(&e, fault_reason(e.kind()));
                e.hint().map(str::to_owned).into_iter().fold(error, Error::hint)
            })?;
            return Ok(OpenDisk { source, _served: None });
        }
        let layers: Vec<_> = disk
            .layers
            .iter()
            .map(|l| engine::LayerSpec { path: l.path.clone(), format: l.format, read_only: true })
            .collect();
        let served = engine::image::serve_chain(&layers).map_err(|e| unreadable(&e, Reason::Engine))?;
        let client = nbd::Client::connect_unix(served.socket(), served.export(), &["base:allocation"])
            .map_err(|e| unreadable(&e, Reason::Engine))?;
        let files = disk.layers.iter().map(|l| l.path.as_path());
        let identity = transfer::SourceIdentity::of_files(generation, files)
            .map_err(|e| unreadable(&e, fault_reason(e.kind())))?;
        let source = transfer::NbdSource::new(client, &leaf.path, sectors, identity);
        Ok(OpenDisk { source: Box::new(source), _served: Some(served) })
    }
}

/// A disk opened for reading, and the process that serves it if one must.
pub(crate) struct OpenDisk {
    pub(crate) source: Box<dyn transfer::Source>,
    _served: Option<engine::image::ServedImage>,
}

fn target(record: &MachineRecord, request: &ExportRequest) -> Result<PathBuf> {
    if !request.directory.is_absolute() {
        return Err(Error::new(
            Reason::InvalidArgument,
            format!("`{}` is not absolute", request.directory.display()),
        ));
    }
    Ok(if request.subdirectory {
        request.directory.join(safe_file_name(&record.settings.name))
    } else {
        request.directory.clone()
    })
}

fn refuse_existing(target: &Path) -> Result<()> {
    let mut entries = match std::fs::read_dir(target) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            let message = format!("`{}` is a file, or lies below one", target.display());
            return Err(
                Error::new(Reason::AlreadyExists, message).hint("name a directory that does not exist")
            );
        }
        Err(e) => return Err(Error::io("look at", target, e)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let error = Error::new(Reason::AlreadyExists, format!("`{}` is not empty", target.display()));
    Err(if transfer::Package::open(target).is_ok() {
        error.hint("a package is there, and none is ever overwritten: name another directory")
    } else {
        error.hint("`--subdirectory` exports into a folder of its own inside it")
    })
}

/// The job kind.
pub(crate) struct Export;

/// What it is to export.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExportParams {
    machine: Uuid,
    request: ExportRequest,
    target: PathBuf,
}

/// What the finished job tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The package.
    pub directory: PathBuf,
    /// Disks in it.
    pub disks: usize,
    /// Bytes of data read.
    pub bytes: u64,
}

impl Kind for Export {
    const NAME: &'static str = "export";
    const VERSION: u32 = 1;
    type Params = ExportParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new().step_without_undo("prepare", prepare).step("write", write, withdraw).weight(50)
    }
}

type Cx<'a> = Context<'a, Export>;

/// One disk of the package.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    disk: Uuid,
    /// File name in the package.
    name: String,
    format: TargetFormat,
    block_size: u32,
}

/// What goes where.
#[derive(Debug, Serialize, Deserialize)]
struct Prepared {
    parts: Vec<Part>,
    generation: String,
}

fn prepare(cx: &mut Cx<'_>) -> std::result::Result<Prepared, Failure> {
    let host = cx.world().host()?;
    let params = cx.params();
    let work = || -> Result<Prepared> {
        let (record, _) = host.record(params.machine)?;
        let mut parts: Vec<Part> = Vec::new();
        if params.request.storage {
            for disk in host.disks_of(&record)? {
                if params.request.excluded_disks.contains(&disk.id) {
                    continue;
                }
                parts.push(part(&disk, &params.request, &parts));
            }
        }
        if let Some(parent) = params.target.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::io("create directory", parent, e))?;
        }
        let run = format!("run {}", record.run_generation);
        // A `.partial` of one layout is not gone on with in another: its small files would be left.
        let generation = match params.request.layout {
            Layout::Current => run,
            Layout::First => format!("{run}, as of 2008"),
        };
        Ok(Prepared { parts, generation })
    };
    work().map_err(|e| failure(&e))
}

fn part(disk: &DiskRecord, request: &ExportRequest, earlier: &[Part]) -> Part {
    let wanted = request.format.unwrap_or(disk.format);
    let format = match wanted {
        DiskFormat::Vhd => TargetFormat::Vhd,
        DiskFormat::Raw => TargetFormat::Raw,
        DiskFormat::Vhdx | DiskFormat::Qcow2 => TargetFormat::Vhdx,
    };
    let keeps_name = wanted == disk.format
        && disk.name.rsplit_once('.').is_some_and(|(_, e)| {
            e.eq_ignore_ascii_case(format.name())
                || (e.eq_ignore_ascii_case("avhdx") && format == TargetFormat::Vhdx)
        });
    let name = if keeps_name { disk.name.clone() } else { with_extension(&disk.name, format.name()) };
    // A disk that the user brought may be called anything that Linux allows.
    let name = safe_file_name(&name);
    let taken = earlier.iter().any(|p| p.name.to_lowercase() == name.to_lowercase());
    let name =
        if taken || name.len() > MAX_NAME { format!("{}.{}", disk.id.simple(), format.name()) } else { name };
    // A block size means something only in the format that it came in.
    let kept = if wanted == disk.format { disk.block_size } else { 0 };
    Part { disk: disk.id, name, format, block_size: request.block_size.unwrap_or(kept) }
}

fn write(cx: &mut Cx<'_>) -> std::result::Result<Exported, Failure> {
    let host = cx.world().host()?;
    let prepared: Prepared = cx.output(prepare)?;
    let params = cx.params();
    let run = cx.id().0.to_string();
    let target = &params.target;
    if let Some(manifest) =
        writer::find_completed(target, &run).map_err(|e| writer_failure("cannot export", &e))?
    {
        // Renamed, but we died before that was on record.
        note(cx, &host);
        return Ok(Exported { directory: target.clone(), disks: manifest.disks.len(), bytes: 0 });
    }
    let (record, disks, mut open, plan) = plan(&host, params, &prepared, run).map_err(|e| failure(&e))?;
    let (mut package, beginning) =
        PackageWriter::begin(target, plan).map_err(|e| writer_failure("cannot export", &e))?;
    match &beginning {
        Beginning::Fresh => {}
        Beginning::Resumed { done } => {
            tracing::info!(machine = %record.id, job = %cx.id().0, done, "export goes on from an earlier run");
        }
        Beginning::StartedOver { reason } => cx.warn(job::Warning::new(
            "export-started-over",
            format!("an unfinished export was there and could not be used: {reason}"),
        )),
    }
    if let Some(raw) = prepared.parts.iter().find(|part| part.format == TargetFormat::Raw) {
        cx.warn(job::Warning::new(
            "export-raw",
            format!("`{}` is raw: Slipway reads such a package, Hyper-V does not", raw.name),
        ));
    }
    let mut total = 0;
    for disk in &open {
        let m = transfer::measure(&*disk.source, 0, disk.source.size(), &|| cx.cancelled())
            .map_err(|e| crate::jobs::copy_failure("cannot export", &e))?;
        total += m.data;
    }
    let reporter = cx.reporter();
    let meter = host.counters.export.meter();
    let mut before = 0;
    let mut bytes = 0;
    for (part, disk) in prepared.parts.iter().zip(open.drain(..)) {
        let phase = format!("exporting {}", part.name);
        let options = CopyOptions {
            rate_limit: params.request.rate_limit,
            cancelled: &|| reporter.cancelled(),
            progress: &|p| {
                meter.saw(p);
                reporter.progress(&phase, before + p.done, total);
            },
            ..CopyOptions::default()
        };
        let written = package
            .add_disk(&disk_path(&part.name), &*disk.source, &options)
            .map_err(|e| writer_failure("cannot export", &e))?;
        before += written.read;
        bytes += written.read;
    }
    if let Some(saved) = record.saved.as_ref().filter(|_| params.request.saved_state) {
        let options = CopyOptions {
            rate_limit: params.request.rate_limit,
            cancelled: &|| reporter.cancelled(),
            progress: &|p| reporter.progress("exporting memory", p.done, p.total),
            ..CopyOptions::default()
        };
        let details = details(&record, saved).map_err(|e| failure(&e))?;
        package
            .add_state(&record.home.join(&saved.file), details, &options)
            .map_err(|e| writer_failure("cannot export", &e))?;
    }
    reporter.progress("writing configuration", total, total);
    describe(&host, &record, &disks, params, &prepared, &mut package)?;
    cx.check_cancel()?;
    package.date(host.now());
    let manifest = package.finish().map_err(|e| writer_failure("cannot export", &e))?;
    note(cx, &host);
    Ok(Exported { directory: target.clone(), disks: manifest.disks.len(), bytes })
}

/// What the manifest says of a saved memory, so that another host can tell whether it may go on with it.
fn details(record: &MachineRecord, saved: &Saved) -> Result<serde_json::Map<String, serde_json::Value>> {
    let details =
        Details { when: saved.when, hardware: record.settings.hardware, needs: saved.needs.clone() };
    match serde_json::to_value(details) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        _ => Err(Error::new(Reason::Store, "what a saved memory needs cannot be written")),
    }
}

/// Keeps that the machine was exported whole. The package is complete already: nothing that fails here unmakes it.
fn note(cx: &Cx<'_>, host: &Host) {
    let params = cx.params();
    if is_whole(&params.request)
        && let Err(e) = host.note_export(params.machine, cx.id().0)
    {
        cx.warn(job::Warning::new(
            "export-not-noted",
            format!("when it was exported is not kept: {}", e.chain()),
        ));
    }
}

fn disk_path(name: &str) -> String {
    format!("{DISKS_DIR}/{name}")
}

type Planned = (MachineRecord, Vec<DiskRecord>, Vec<OpenDisk>, PackagePlan);

/// Opens every disk and says what the package will hold.
fn plan(host: &Host, params: &ExportParams, prepared: &Prepared, run: String) -> Result<Planned> {
    let (record, _) = host.record(params.machine)?;
    let disks = host.disks_of(&record)?;
    let mut open = Vec::new();
    let mut plans = Vec::new();
    for part in &prepared.parts {
        let disk = disks
            .iter()
            .find(|d| d.id == part.disk)
            .ok_or_else(|| Error::new(Reason::NotFound, format!("disk {} is gone", part.disk)))?;
        let opened = host.open_disk(disk, &prepared.generation)?;
        // QEMU rounds a flat file up to whole sectors; anything else is not the disk that this record is about.
        let size = opened.source.size();
        if size.next_multiple_of(u64::from(disk.logical_sector_size)) != disk.virtual_size {
            let path = opened.source.path().display().to_string();
            let message =
                format!("`{path}` has {size} bytes and had {}: somebody changed it", disk.virtual_size);
            return Err(Error::new(Reason::Io, message)
                .hint("put the disk back as it was, or leave it out with --exclude"));
        }
        let identity = opened.source.identity().map_err(|e| {
            Error::new(fault_reason(e.kind()), format!("cannot read disk `{}`", disk.name)).caused_by(e)
        })?;
        plans.push(DiskPlan {
            path: disk_path(&part.name),
            format: part.format,
            fixed: disk.fixed && part.format != TargetFormat::Raw,
            virtual_size: disk.virtual_size,
            block_size: part.block_size,
            logical_sector_size: disk.logical_sector_size,
            physical_sector_size: disk.physical_sector_size,
            disk_id: disk.virtual_disk_id,
            source: identity,
        });
        open.push(opened);
    }
    let plan = PackagePlan {
        machine_id: record.id,
        machine_name: record.settings.name.clone(),
        tool: format!("slipway {}", env!("CARGO_PKG_VERSION")),
        generation: prepared.generation.clone(),
        run: Some(run),
        disks: plans,
    };
    Ok((record, disks, open, plan))
}

/// Writes everything that is not a disk.
fn describe(
    host: &Host,
    record: &MachineRecord,
    disks: &[DiskRecord],
    params: &ExportParams,
    prepared: &Prepared,
    package: &mut PackageWriter,
) -> std::result::Result<(), Failure> {
    let files = configuration(host, record, disks, params, prepared).map_err(|e| failure(&e))?;
    let failed = |e: transfer::WriterError| writer_failure("cannot export", &e);
    for dir in [MACHINES_DIR, DISKS_DIR, SNAPSHOTS_DIR] {
        package.add_directory(dir).map_err(failed)?;
    }
    for (path, bytes) in &files {
        package.add_file(path, bytes).map_err(failed)?;
    }
    if params.request.layout == Layout::First
        && let Some(origin) = &record.origin
        && origin.guest_state.is_some()
    {
        package.exclude("guest-state", "guest state", "exports of 2008 to 2012 have none");
    }
    for disk in disks.iter().filter(|d| !prepared.parts.iter().any(|p| p.disk == d.id)) {
        let reason = if params.request.storage { "excluded on request" } else { "configuration only" };
        package.exclude("disk", &disk.name, reason);
    }
    if let Some(saved) = record.saved.as_ref().filter(|_| !params.request.saved_state) {
        package.exclude("saved-state", &saved.file, "left out on request");
    }
    package.annotate("run_generation", json!(record.run_generation));
    Ok(())
}

/// The configuration and its companions: path in the package, and bytes.
fn configuration(
    host: &Host,
    record: &MachineRecord,
    disks: &[DiskRecord],
    params: &ExportParams,
    prepared: &Prepared,
) -> Result<Vec<(String, Vec<u8>)>> {
    let id = record.id.hyphenated().to_string().to_ascii_uppercase();
    let broken = |e: &(dyn std::error::Error + 'static)| {
        Error::new(
            Reason::Store,
            format!("the configuration of `{}` cannot be written: {}", record.settings.name, chain(e)),
        )
    };
    let name_of = |disk: Uuid| {
        let exported = prepared.parts.iter().find(|p| p.disk == disk).map(|p| p.name.clone());
        exported.or_else(|| {
            // Not in the package: a disk that came with a path keeps it, another says what it is called.
            let d = disks.iter().find(|d| d.id == disk)?;
            Some(d.source_path.as_deref().map_or(d.name.as_str(), crate::disk::file_name).to_owned())
        })
    };
    let who = Identity { id: record.id, disk_name: &name_of };
    let (mut document, came) = match &record.origin {
        Some(origin) => {
            let bytes = host.blobs.get(&origin.configuration)?;
            (vmcx::read(&bytes).map_err(|e| broken(&e))?, Some(bytes))
        }
        None => {
            let tree = config::fresh(record.id, record.created, &record.settings);
            (vmcx::Document::new(tree, vmcx::Form::Container), None)
        }
    };
    let before = document.tree.clone();
    config::apply(&mut document.tree, &record.settings, &who).map_err(|e| broken(&e))?;
    let first = params.request.layout == Layout::First;
    let converted = first && document.form != vmcx::Form::Xml;
    if converted {
        document = vmcx::Document::new(document.tree, vmcx::Form::Xml);
    }
    let extension = match document.form {
        _ if first => "exp",
        vmcx::Form::Xml => "xml",
        vmcx::Form::Container => "vmcx",
    };
    // What was not changed goes out as the very bytes that came.
    let bytes = match came.filter(|_| document.tree == before && !converted) {
        Some(bytes) => bytes,
        None => document.write().map_err(|e| broken(&e))?,
    };
    let path = |extension: &str| format!("{MACHINES_DIR}/{id}.{extension}");
    let mut files = vec![(path(extension), bytes)];
    if first {
        let description = first::description(record, &params.request, &files[0].0, &prepared.parts);
        files.push((first::DESCRIPTION.to_owned(), description.map_err(|e| broken(&e))?));
        return Ok(files);
    }
    let version = record.settings.config_version;
    let origin = record.origin.as_ref();
    let state = origin.and_then(|o| o.runtime_state.as_ref()).map(|b| host.blobs.get(b)).transpose()?;
    match state {
        Some(bytes) => files.push((path("VMRS"), bytes)),
        None if version >= FIRST_WITH_RUNTIME_STATE => files.push((path("VMRS"), empty_state(version)?)),
        None => {}
    }
    if let Some(blob) = origin.and_then(|o| o.guest_state.as_ref()) {
        files.push((path("vmgs"), host.blobs.get(blob)?));
    }
    Ok(files)
}

fn empty_state(version: i64) -> Result<Vec<u8>> {
    vmcx::write_container(&vmcx::empty_runtime_state(version))
        .map_err(|e| Error::new(Reason::Store, "the runtime state cannot be written").caused_by(e))
}

fn withdraw(cx: &mut Cx<'_>, why: UndoReason) -> std::result::Result<(), Failure> {
    if why == UndoReason::Failed {
        return Ok(());
    }
    let params = cx.params();
    // First: a package that is gone must not count.
    cx.world().host()?.withdraw_export(params.machine, cx.id().0).map_err(|e| failure(&e))?;
    let failed = |e: transfer::WriterError| writer_failure("cannot remove the cancelled export", &e);
    let run = cx.id().0.to_string();
    if writer::find_completed(&params.target, &run).is_ok_and(|m| m.is_some()) {
        // By way of its earlier name: a death on the way leaves nothing that looks complete.
        let partial = writer::partial_path(&params.target);
        std::fs::rename(&params.target, &partial)
            .map_err(|e| crate::jobs::io("remove the cancelled export", &params.target, e))?;
    }
    writer::discard(&params.target).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests;
