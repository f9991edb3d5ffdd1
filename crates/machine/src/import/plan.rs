//! The plan: everything that an import would do, found out without doing any of it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use transfer::package::{DiskNotFound, Package, Resolver};
use uuid::Uuid;
use vmcx::vmgs;

use super::{disk, drivers, state};
use crate::cancel::Cancel;
use crate::config::{self, Configuration, ConfiguredDrive, SavedState};
use crate::disk::DiskFormat;
use crate::error::{Error, Reason, Result, chain};
use crate::finding::{self, Finding, Severity, Verdict};
use crate::planned::{
    DriveChange, Holds, ImportMode, ImportRequest, MAX_CHANGES, Parts, PlannedDisk, PlannedState,
};
use crate::position::EMPTY_DRIVE;
use crate::report::{self, HostFacts};
use crate::saved::Offers;
use crate::settings::{Generation, Media, Settings};
use crate::switch::SwitchRecord;

/// Largest configuration that is read, in bytes (real ones: 100 KiB).
const MAX_CONFIGURATION: u64 = 16 << 20;
/// Largest runtime state file that is read, in bytes (real ones of a machine that is off: 64 KiB). A larger one holds memory.
const MAX_RUNTIME_STATE: u64 = 16 << 20;
/// Largest guest state file that is read, in bytes (real ones: 4 MiB).
const MAX_GUEST_STATE: u64 = crate::blob::MAX_BLOB;
/// Most disks of one machine: all of them become records in one transaction of the store.
const MAX_DISKS: usize = 56;
/// Most bytes that the description of a machine and its disks takes; with the report it is one record of the store.
const MAX_DESCRIPTION: usize = 40 << 10;

/// What a plan is made against.
pub struct Surroundings<'a> {
    /// This host.
    pub facts: &'a HostFacts,
    /// Its switches.
    pub switches: &'a [SwitchRecord],
    /// What this host offers to saved memories; `None` when that is not known.
    pub offers: &'a dyn Fn() -> Option<Offers>,
    /// Whether a machine with this id is here.
    pub exists: &'a dyn Fn(Uuid) -> bool,
    /// Gives an id that nothing has.
    pub ids: &'a dyn Fn() -> Uuid,
    /// Where disks of a copy go, and how many bytes are free there; `None` skips the check.
    pub target: Option<(PathBuf, u64)>,
    /// Breaks off the look at the disks, which may be large.
    pub cancel: &'a Cancel,
}

/// A package, looked at.
pub struct Plan {
    /// The package.
    pub package: Package,
    /// Its configuration.
    pub configuration: Configuration,
    /// Form of the configuration file.
    pub form: vmcx::Form,
    /// The configuration file's bytes.
    pub configuration_bytes: Vec<u8>,
    /// Runtime state to carry along: that of a powered-off machine.
    pub runtime_state: Option<Vec<u8>>,
    /// Guest state to carry along.
    pub guest_state: Option<Vec<u8>>,
    /// Memory that comes along.
    pub state: Option<PlannedState>,
    /// The id the machine would have.
    pub id: Uuid,
    /// Settings as they would be.
    pub settings: Settings,
    /// Disks.
    pub disks: Vec<PlannedDisk>,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// Switches that would be made.
    pub new_switches: Vec<SwitchRecord>,
}

impl Plan {
    /// One word for the findings.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.findings)
    }
}

/// Looks at the package that `request` names. Nothing is written anywhere.
///
/// # Errors
/// There is no package, its configuration is not one, or the look was broken off. What is wrong with the *machine* is in the findings.
pub fn plan(request: &ImportRequest, around: &Surroundings<'_>) -> Result<Plan> {
    let package = Package::open(&request.path).map_err(|e| {
        let hint = e.advice().map(str::to_owned);
        let reason = match e.kind() {
            transfer::FaultKind::NotFound => Reason::NotFound,
            transfer::FaultKind::Denied => Reason::AccessDenied,
            _ => Reason::BadPackage,
        };
        let error = Error::new(reason, chain(&e));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    let path = package.configuration.path.clone();
    let bad = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(
            Reason::BadPackage,
            format!("`{}` cannot be read as a machine's configuration", path.display()),
        )
        .hint("it is damaged or no machine's: fetch it again, or export the machine again")
        .caused_by(e)
    };
    let configuration_bytes = read_small(&path, MAX_CONFIGURATION)?;
    let document = vmcx::read(&configuration_bytes).map_err(|e| bad(e.into()))?;
    let mut configuration = config::read(&document.tree).map_err(|e| bad(e.into()))?;
    let runtime = match &package.configuration.runtime_state {
        // Saved memory can be huge; that it is there is all that matters of it.
        Some(state) if state.size > MAX_RUNTIME_STATE => None,
        Some(state) => Some(read_small(&state.path, MAX_RUNTIME_STATE)?),
        None => None,
    };
    let mut findings = Vec::new();
    let memory = memory_in(runtime.as_deref(), &package);
    match &memory {
        Memory::Saved => configuration.saved = SavedState::Present,
        // Memory in there is lost either way; whoever imports it says that it may be.
        Memory::Unknown(why) if !request.discard_saved_state => {
            let message =
                format!("the runtime state cannot be read, so memory saved in it would be lost: {why}");
            let unreadable = Finding::new(finding::SAVED_STATE, Severity::Error, "runtime state", message);
            findings.push(unreadable.fix("--discard-saved-state"));
        }
        Memory::None | Memory::Unknown(_) => {}
    }
    let guest_state = match &package.configuration.guest_state {
        Some(state) => Some(read_small(&state.path, MAX_GUEST_STATE)?),
        None => None,
    };

    renew_disks(&mut configuration, around.ids);
    put_into_drives(&mut configuration, &request.parts)?;
    let mut settings = configuration.settings.clone();
    report::refine(&mut settings, request);
    let id = request.id.unwrap_or_else(|| if request.new_id { (around.ids)() } else { configuration.id });
    // An id made just now is nobody's.
    if (request.id.is_some() || !request.new_id) && (around.exists)(id) {
        findings.push(
            Finding::new(
                finding::DUPLICATE_ID,
                Severity::Error,
                "properties/global_id",
                format!("a machine with the id {id} is already here"),
            )
            .fix("--new-id"),
        );
    }
    if document.form == vmcx::Form::Xml {
        findings.push(Finding::new(
            finding::LEGACY_XML,
            Severity::Info,
            "configuration",
            "the configuration is in the older XML form, and an export writes that form again",
        ));
    }
    findings.extend(report::machine(&configuration, &settings, request, around.facts));
    let names: Vec<String> = package.snapshots.iter().map(|s| snapshot_name(&s.path)).collect();
    findings.extend(report::snapshots(&names, configuration.snapshots, request));
    let (plugged, mut new_switches) = report::connect(&mut settings, request, around.switches, around.facts);
    findings.extend(plugged);
    new_switches.iter_mut().for_each(|switch| switch.id = (around.ids)());
    let old_firmware = guest_state_findings(&configuration, &settings, guest_state.as_deref(), &mut findings);
    let known = old_firmware || super::firmware::configured_entries(&configuration.nvram) > 0;
    let mut resolver = package.resolver(&request.disk_dirs);
    let place = disk::Place::new(&package, request, around.ids, around.cancel);
    let saved = if request.discard_saved_state { state::Found::Nothing } else { state::find(&package) };
    if let state::Found::State(saved) = &saved {
        saved.prepare(&mut settings, request);
    }
    let (mut disks, contents) =
        look_at_disks(&configuration, &place, &mut resolver, &mut settings, &mut findings, known);
    if around.cancel.told() {
        return Err(Error::new(Reason::Timeout, "the look at the package was broken off"));
    }
    dvds(&configuration, &mut resolver, request, &mut settings, &mut findings);
    let seen = drivers::Seen { disks: &disks, contents: &contents };
    let kept = settings.hardware;
    findings.extend(drivers::choose(&mut settings, request, seen));
    let state = match &saved {
        state::Found::Nothing => None,
        state::Found::Unusable(why) => {
            findings.push(state::unfit(why));
            None
        }
        state::Found::State(saved) => {
            // What the guest runs on is known better than by its drivers.
            settings.hardware = kept;
            let all: Vec<SwitchRecord> = around.switches.iter().chain(&new_switches).cloned().collect();
            let offers = (around.offers)();
            let (state, found) = saved.fit(id, &mut settings, &mut disks, &all, offers.as_ref());
            findings.extend(found);
            state
        }
    };
    if let Some((target, free)) = &around.target {
        let memory = state.as_ref().map_or(0, |s| s.bytes);
        let needed = disks.iter().map(|d| d.data_bytes).sum::<u64>() + memory;
        findings.extend(report::space(request, target, needed, *free));
    }
    findings.extend(report::unsound(&settings));
    findings.extend(too_much(&settings, &disks));
    let findings = finding::bounded(findings);
    let off = configuration.saved == SavedState::None && matches!(memory, Memory::None);
    let runtime_state = runtime.filter(|_| off);
    Ok(Plan {
        package,
        configuration,
        form: document.form,
        configuration_bytes,
        runtime_state,
        guest_state,
        state,
        id,
        settings,
        disks,
        findings,
        new_switches,
    })
}

/// Gives the disks of a configuration, which has no ids for them, ids from `ids`.
fn renew_disks(configuration: &mut Configuration, ids: &dyn Fn() -> Uuid) {
    for drive in &mut configuration.drives {
        let Some(old) = drive.disk else { continue };
        let new = ids();
        drive.disk = Some(new);
        for plugged in configuration.settings.controllers.iter_mut().flat_map(|c| &mut c.drives) {
            if plugged.media == (Media::Disk { disk: old }) {
                plugged.media = Media::Disk { disk: new };
            }
        }
    }
}

/// What drives hold instead of what the configuration says.
fn put_into_drives(configuration: &mut Configuration, parts: &Parts) -> Result<()> {
    if parts.drives.len() + parts.adapters.len() > MAX_CHANGES {
        let what = format!("more than {MAX_CHANGES} changes of single parts");
        return Err(Error::new(Reason::InvalidArgument, what));
    }
    for DriveChange { controller, number, slot, holds } in &parts.drives {
        let controllers = &mut configuration.settings.controllers;
        let plugged = controllers.iter_mut().find(|c| c.instance == *controller && c.number == *number);
        let drive = plugged.and_then(|c| {
            let at = c.drives.iter().position(|d| d.slot == *slot)?;
            Some((c, at))
        });
        let Some((plugged, at)) = drive else {
            let what =
                format!("the configuration has no drive {slot} on controller {number} of {controller}");
            return Err(Error::new(Reason::InvalidArgument, what));
        };
        let drives = &mut configuration.drives;
        let there = |d: &ConfiguredDrive| (d.controller, d.number, d.slot) == (*controller, *number, *slot);
        match holds {
            Holds::Gone => {
                plugged.drives.remove(at);
                drives.retain(|d| !there(d));
            }
            Holds::Nothing => {
                let media = &mut plugged.drives[at].media;
                *media = match media {
                    Media::Dvd { .. } => Media::Dvd { image: None },
                    _ => Media::Other { kind: EMPTY_DRIVE.to_owned() },
                };
                drives.retain(|d| !there(d));
            }
            Holds::File(file) => match (&plugged.drives[at].media, drives.iter_mut().find(|d| there(d))) {
                (Media::Disk { .. } | Media::Dvd { .. }, Some(drive)) => drive.file = Some(file.clone()),
                (Media::Dvd { .. }, None) => drives.push(ConfiguredDrive {
                    key: format!("_{controller}_/controller{number}/drive{slot}"),
                    kind: plugged.kind,
                    controller: *controller,
                    number: *number,
                    slot: *slot,
                    disk: None,
                    media: "ISO".to_owned(),
                    path: file.display().to_string(),
                    file: Some(file.clone()),
                }),
                _ => {
                    let what =
                        format!("drive {slot} on controller {number} of {controller} came without a disk");
                    return Err(Error::new(Reason::NotSupported, what)
                        .hint("give it one once the machine is realized"));
                }
            },
        }
    }
    Ok(())
}

/// The file of a drive: the one that was named for it, else the one that its path leads to.
fn file_of(drive: &ConfiguredDrive, resolver: &mut Resolver) -> std::result::Result<PathBuf, DiskNotFound> {
    drive.file.clone().map_or_else(|| resolver.find(&drive.path), Ok)
}

/// What no record could hold: said before anything is copied, not after.
fn too_much(settings: &Settings, disks: &[PlannedDisk]) -> Option<Finding> {
    let size = serde_json::to_vec(&(settings, disks)).map_or(0, |bytes| bytes.len());
    let message = if disks.len() > MAX_DISKS {
        format!("the machine has {} disks, and {MAX_DISKS} are the most that are imported", disks.len())
    } else if size > MAX_DESCRIPTION {
        format!("the machine's description takes {size} bytes, more than the {MAX_DESCRIPTION} kept of one")
    } else {
        return None;
    };
    Some(Finding::new(finding::SETTING_INVALID, Severity::Error, "settings", message))
}

/// Reads a file that has at most `limit` bytes, also should it grow meanwhile.
fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || {
        // A pipe that has taken the file's place is not waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = fs::File::options().read(true).custom_flags(flags).open(path)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(
            Reason::BadPackage,
            format!("`{}` has more than the {limit} bytes that are read of such a file", path.display()),
        )
        .hint("no machine's file of this kind is that large: fetch the package again"));
    }
    Ok(bytes)
}

/// Whether memory was saved with the machine.
enum Memory {
    None,
    Saved,
    /// It cannot be told, and why.
    Unknown(String),
}

/// The runtime state says that memory was saved, is too large to say anything else, or the older files are there.
fn memory_in(runtime: Option<&[u8]>, package: &Package) -> Memory {
    if !package.configuration.saved_state.is_empty() {
        return Memory::Saved;
    }
    match (runtime, &package.configuration.runtime_state) {
        (Some(bytes), _) => match vmcx::read(bytes) {
            Ok(d) => {
                let keys = ["savedstate", "configuration/savedstate", "savedVM", "configuration/savedVM"];
                if keys.iter().any(|k| d.tree.contains(k)) { Memory::Saved } else { Memory::None }
            }
            Err(e) => Memory::Unknown(chain(&e)),
        },
        (None, Some(_)) => Memory::Saved,
        (None, None) => Memory::None,
    }
}

fn snapshot_name(path: &Path) -> String {
    let stem = || path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    vmcx::read_file(path)
        .ok()
        .and_then(|d| d.tree.get_str("configuration/properties/name"))
        .filter(|n| !n.is_empty())
        .map_or_else(stem, |n| format!("`{n}`"))
}

/// Findings about the guest state file; whether it holds boot entries that can be carried over.
fn guest_state_findings(
    configuration: &Configuration,
    settings: &Settings,
    guest_state: Option<&[u8]>,
    findings: &mut Vec<Finding>,
) -> bool {
    let Some(bytes) = guest_state else { return false };
    let state = match vmgs::parse(bytes) {
        Ok(state) => state,
        Err(e) => {
            findings.push(Finding::new(
                finding::GUEST_STATE,
                Severity::Warning,
                "guest state",
                format!("the guest state file cannot be read: {}", chain(&e)),
            ));
            return false;
        }
    };
    if state.encrypted() && !configuration.shielded {
        findings.push(Finding::new(
            finding::SHIELDED,
            Severity::Error,
            "guest state",
            "the guest state file is encrypted; only the fabric that holds its key can open it",
        ));
    }
    if settings.tpm && state.tpm_state_present() {
        findings.push(Finding::new(
            finding::TPM_STATE,
            Severity::Warning,
            "guest state",
            "the TPM's content stays sealed to the old host: the machine gets a new, empty TPM (recovery keys at hand?)",
        ));
    }
    settings.generation == Generation::Two
        && state.nvram().is_ok_and(|vars| super::firmware::carried_entries(&vars) > 0)
}

fn look_at_disks(
    configuration: &Configuration,
    place: &disk::Place<'_>,
    resolver: &mut Resolver,
    settings: &mut Settings,
    findings: &mut Vec<Finding>,
    known_to_firmware: bool,
) -> (Vec<PlannedDisk>, Vec<Option<probe::DiskReport>>) {
    let mut disks: Vec<PlannedDisk> = Vec::new();
    let mut contents = Vec::new();
    for drive in &configuration.drives {
        let Some(id) = drive.disk else { continue };
        if drive.path.is_empty() && drive.file.is_none() {
            // A drive without a file: hand-made templates have them. Nothing is plugged in.
            for d in settings.controllers.iter_mut().flat_map(|c| &mut c.drives) {
                if d.media == (Media::Disk { disk: id }) {
                    d.media = Media::Other { kind: drive.media.clone() };
                }
            }
            continue;
        }
        // What is beyond that is counted, but not looked at.
        if disks.len() > MAX_DISKS || place.cancel.told() {
            disks.push(disk::unseen(drive, id, place));
            contents.push(None);
            continue;
        }
        let look = disk::look(drive, id, file_of(drive, resolver), place);
        findings.extend(look.findings);
        let mut disk = look.disk;
        if let Some(other) = disks.iter().find(|other| same(&disk, other)) {
            findings.push(Finding::new(
                finding::DISK_TWICE,
                Severity::Error,
                drive.key.clone(),
                format!(
                    "disk `{}` is in two drives, the other time as `{}`",
                    disk.source_path, other.source_path
                ),
            ));
        }
        unique_name(&mut disk, &disks);
        disks.push(disk);
        contents.push(look.content);
    }
    findings.extend(disk::content(settings.generation, &mut disks, &contents, known_to_firmware));
    (disks, contents)
}

/// Whether both were found to be one file, under whatever names.
fn same(a: &PlannedDisk, b: &PlannedDisk) -> bool {
    a.file.as_deref().zip(b.file.as_deref()).is_some_and(|(a, b)| crate::inuse::same_file(a, b))
}

/// Two disks of one machine may have the same file name in different folders; here they share one.
fn unique_name(disk: &mut PlannedDisk, earlier: &[PlannedDisk]) {
    let taken = |name: &str| earlier.iter().any(|d| d.name.eq_ignore_ascii_case(name));
    if !taken(&disk.name) {
        return;
    }
    let (stem, extension) = match disk.name.rsplit_once('.') {
        Some((s, e)) => (s.to_owned(), e.to_owned()),
        None => (disk.name.clone(), DiskFormat::Vhdx.extension().to_owned()),
    };
    let mut n = 2;
    while taken(&disk.name) {
        disk.name = format!("{stem} ({n}).{extension}");
        n += 1;
    }
}

/// Finds the images in DVD drives; one that is not found leaves the drive empty.
fn dvds(
    configuration: &Configuration,
    resolver: &mut Resolver,
    request: &ImportRequest,
    settings: &mut Settings,
    findings: &mut Vec<Finding>,
) {
    for drive in configuration.drives.iter().filter(|d| d.media == "ISO" && !d.path.is_empty()) {
        let Ok(path) = file_of(drive, resolver) else {
            findings.push(Finding::new(
                finding::DVD_MISSING,
                Severity::Info,
                drive.key.clone(),
                format!("DVD image `{}` was not found: the drive comes in empty", drive.path),
            ));
            continue;
        };
        let place = settings
            .controllers
            .iter_mut()
            .filter(|c| c.instance == drive.controller && c.number == drive.number)
            .flat_map(|c| &mut c.drives)
            .find(|d| d.slot == drive.slot);
        if let Some(place) = place
            && request.mode == ImportMode::Register
        {
            place.media = Media::Dvd { image: Some(path) };
        } else {
            findings.push(Finding::new(
                finding::DVD_MISSING,
                Severity::Info,
                drive.key.clone(),
                format!("DVD image `{}` is not copied: the drive comes in empty", path.display()),
            ));
        }
    }
}
