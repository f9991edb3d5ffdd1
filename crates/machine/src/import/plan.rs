//! The plan: everything that an import would do, found out without doing any of it.

use std::fs;
use std::path::{Path, PathBuf};

use transfer::package::Package;
use uuid::Uuid;
use vmcx::vmgs;

use super::{disk, drivers};
use crate::config::{self, Configuration, SavedState};
use crate::disk::DiskFormat;
use crate::error::{Error, Reason, Result, chain};
use crate::finding::{self, Finding, Severity, Verdict};
use crate::planned::{ImportMode, ImportRequest, PlannedDisk};
use crate::report::{self, HostFacts};
use crate::settings::{Generation, Media, Settings};
use crate::switch::SwitchRecord;

/// Largest guest state or runtime state file that is read, in bytes (real ones: 4 MiB and 64 KiB).
const MAX_STATE_FILE: u64 = crate::blob::MAX_BLOB;

/// What a plan is made against.
pub struct Surroundings<'a> {
    /// This host.
    pub facts: &'a HostFacts,
    /// Its switches.
    pub switches: &'a [SwitchRecord],
    /// Whether a machine with this id is here.
    pub exists: &'a dyn Fn(Uuid) -> bool,
    /// Gives an id that nothing has.
    pub ids: &'a dyn Fn() -> Uuid,
    /// Where disks of a copy go, and how many bytes are free there; `None` skips the check.
    pub target: Option<(PathBuf, u64)>,
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
/// There is no package, or its configuration is not one. What is wrong with the *machine* is in the findings.
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
    let configuration_bytes = read_small(&path)?;
    let document = vmcx::read(&configuration_bytes).map_err(|e| bad(e.into()))?;
    let mut configuration = config::read(&document.tree).map_err(|e| bad(e.into()))?;
    let runtime = read_member(package.configuration.runtime_state.as_ref().map(|m| m.path.as_path()))?;
    if has_saved_state(runtime.as_deref(), &package) {
        configuration.saved = SavedState::Present;
    }
    let guest_state = read_member(package.configuration.guest_state.as_ref().map(|m| m.path.as_path()))?;

    renew_disks(&mut configuration, around.ids);
    let mut settings = configuration.settings.clone();
    report::refine(&mut settings, request);
    let id = request.id.unwrap_or_else(|| if request.new_id { (around.ids)() } else { configuration.id });
    let mut findings = Vec::new();
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
    let (disks, contents) =
        look_at_disks(&configuration, &package, (request, around.ids), &mut settings, &mut findings, known);
    dvds(&configuration, &package, request, &mut settings, &mut findings);
    let seen = drivers::Seen { disks: &disks, contents: &contents };
    findings.extend(drivers::choose(&mut settings, request, seen));
    if let Some((target, free)) = &around.target {
        let needed = disks.iter().map(|d| d.data_bytes).sum();
        findings.extend(report::space(request, target, needed, *free));
    }
    findings.extend(report::unsound(&settings));
    let runtime_state = if configuration.saved == SavedState::None { runtime } else { None };
    Ok(Plan {
        package,
        configuration,
        form: document.form,
        configuration_bytes,
        runtime_state,
        guest_state,
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

/// Reads a configuration-sized file.
fn read_small(path: &Path) -> Result<Vec<u8>> {
    let length = fs::metadata(path).map_err(|e| Error::io("open", path, e))?.len();
    if length > MAX_STATE_FILE {
        return Err(Error::new(
            Reason::BadPackage,
            format!(
                "`{}` has {length} bytes, more than the {MAX_STATE_FILE} that are read of such a file",
                path.display()
            ),
        )
        .hint("no machine's configuration is that large: fetch the package again"));
    }
    fs::read(path).map_err(|e| Error::io("read", path, e))
}

fn read_member(path: Option<&Path>) -> Result<Option<Vec<u8>>> {
    match path {
        // Saved memory can be huge; that it is there is all that matters of it.
        Some(p) if fs::metadata(p).is_ok_and(|m| m.len() > MAX_STATE_FILE) => Ok(None),
        Some(p) => read_small(p).map(Some),
        None => Ok(None),
    }
}

/// Whether memory was saved: the runtime state says so, is too large to say anything else, or the older files are there.
fn has_saved_state(runtime: Option<&[u8]>, package: &Package) -> bool {
    if !package.configuration.saved_state.is_empty() {
        return true;
    }
    match (runtime, &package.configuration.runtime_state) {
        (Some(bytes), _) => vmcx::read(bytes).is_ok_and(|d| {
            ["savedstate", "configuration/savedstate", "savedVM", "configuration/savedVM"]
                .iter()
                .any(|k| d.tree.contains(k))
        }),
        (None, Some(_)) => true,
        (None, None) => false,
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
    let Ok(state) = vmgs::parse(bytes) else { return false };
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
    package: &Package,
    (request, ids): (&ImportRequest, &dyn Fn() -> Uuid),
    settings: &mut Settings,
    findings: &mut Vec<Finding>,
    known_to_firmware: bool,
) -> (Vec<PlannedDisk>, Vec<Option<probe::DiskReport>>) {
    let place = disk::Place::new(package, request, ids);
    let mut disks: Vec<PlannedDisk> = Vec::new();
    let mut contents = Vec::new();
    for drive in &configuration.drives {
        let Some(id) = drive.disk else { continue };
        if drive.path.is_empty() {
            // A drive without a file: hand-made templates have them. Nothing is plugged in.
            for d in settings.controllers.iter_mut().flat_map(|c| &mut c.drives) {
                if d.media == (Media::Disk { disk: id }) {
                    d.media = Media::Other { kind: drive.media.clone() };
                }
            }
            continue;
        }
        let look = disk::look(drive, id, &place);
        findings.extend(look.findings);
        let mut disk = look.disk;
        unique_name(&mut disk, &disks);
        disks.push(disk);
        contents.push(look.content);
    }
    findings.extend(disk::content(settings.generation, &mut disks, &contents, known_to_firmware));
    (disks, contents)
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
    package: &Package,
    request: &ImportRequest,
    settings: &mut Settings,
    findings: &mut Vec<Finding>,
) {
    for drive in configuration.drives.iter().filter(|d| d.media == "ISO" && !d.path.is_empty()) {
        let Ok(path) = package.resolve_disk(&drive.path, &request.disk_dirs) else {
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
