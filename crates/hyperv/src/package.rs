//! Export, import, and planned machines on their way to machines.

use std::sync::Arc;

use cim::{Instance, Value};
use machine::export::ExportRequest;
use machine::finding::Severity;
use machine::planned::{ImportMode, ImportRequest};
use machine::{Cancel, Reason};
use uuid::Uuid;
use wsman::Output;

use crate::fill;
use crate::ids;
use crate::job_class::{Kind, Problem};
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, Owner, OwnerId};
use crate::storage;
use crate::tasks::Begin;

const EXPORT_SETTINGS: &str = "Msvm_VirtualSystemExportSettingData";

/// The machine that the parameter `name` refers to, real or planned.
pub(crate) fn machine(invocation: &Invocation<'_>, name: &str, planned: bool) -> Result<Machine, Refused> {
    let value = invocation.given(name).ok_or_else(|| invalid(name, "missing"))?;
    let path = invocation.path(name, value)?;
    let id = ids::owner_of(&path).ok_or_else(|| invalid(name, format!("`{path}` is no machine")))?;
    let id = if planned { OwnerId::Planned(id) } else { OwnerId::Machine(id) };
    match invocation.world.load(id)? {
        Some(owner) if !invocation.world.sees(invocation.call, &owner) => {}
        Some(Owner::Machine(machine)) => return Ok(*machine),
        _ => {}
    }
    Err(invalid(name, format!("there is no `{path}`")))
}

/// `ExportSystemDefinition`.
pub(crate) fn export(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let machine = machine(invocation, "ComputerSystem", false)?;
    invocation.permit(Some(machine.id()))?;
    let mut request = ExportRequest::new(invocation.file("ExportDirectory")?);
    if let Some(settings) = invocation.instance("ExportSettingData", EXPORT_SETTINGS)? {
        apply(&machine, &settings, &mut request)?;
    }
    begin_export(invocation, &machine, &request)
}

/// Begins an export.
pub(crate) fn begin_export(
    invocation: &Invocation<'_>,
    machine: &Machine,
    request: &ExportRequest,
) -> Result<Output, Refused> {
    let world = invocation.world;
    let job = match world.host.export(machine.id(), request, &invocation.call.principal.user) {
        // That something is in the way there is not said by the return value, but by the job, as with Hyper-V.
        Err(e) if e.reason() == Reason::AlreadyExists => {
            world.tasks.failed(invocation.begin(Kind::Export, machine.id()), e)?
        }
        begun => begun?,
    };
    Ok(invocation.started(job))
}

/// Writes what the settings say into the request; what they leave out stays as it is by default.
pub(crate) fn apply(
    machine: &Machine,
    settings: &Instance,
    request: &mut ExportRequest,
) -> Result<(), Refused> {
    let wrong = |why: String| invalid("ExportSettingData", why);
    let flag = |name: &str| settings.get(name).and_then(Value::as_bool);
    let number = |name: &str| settings.get(name).and_then(Value::as_u64);
    let snapshots = number("CopySnapshotConfiguration").unwrap_or(0);
    match snapshots {
        // There are no snapshots, so all of them is none of them.
        0 | 1 => {}
        2 | 3 => return Err(wrong("SnapshotVirtualSystem: this machine has no snapshots".to_owned())),
        other => return Err(wrong(format!("CopySnapshotConfiguration: {other} is outside 0 to 3"))),
    }
    if let Some(live @ 3..) = number("CaptureLiveState") {
        return Err(wrong(format!("CaptureLiveState: {live} is outside 0 to 2")));
    }
    if let Some(intent @ 2..) = number("BackupIntent") {
        return Err(wrong(format!("BackupIntent: {intent} is outside 0 to 1")));
    }
    request.storage = flag("CopyVmStorage").unwrap_or(request.storage);
    request.saved_state = flag("CopyVmRuntimeInformation").unwrap_or(request.saved_state);
    request.subdirectory = flag("CreateVmExportSubdirectory").unwrap_or(request.subdirectory);
    let excluded = settings.get("ExcludedVirtualHardDisks").map_or(&[][..], Value::elements);
    if !excluded.is_empty() && snapshots == 0 {
        return Err(wrong(
            "ExcludedVirtualHardDisks: not with all snapshots (CopySnapshotConfiguration 0)".to_owned(),
        ));
    }
    for id in excluded.iter().filter_map(Value::as_str) {
        let disk = storage::disk_at(machine, id)
            .ok_or_else(|| wrong(format!("ExcludedVirtualHardDisks: `{id}` is no disk of this machine")))?;
        request.excluded_disks.push(disk);
    }
    Ok(())
}

/// `ImportSystemDefinition`: reads the package, and makes a planned machine of it.
///
/// Disks stay where they are, as with Hyper-V: the machine uses them in place, read-only under an overlay.
pub(crate) fn import(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let path = invocation.file("SystemDefinitionFile")?;
    if invocation.given("SnapshotFolder").and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
        // Looked at for what it may be; snapshots are left behind, and the report says so.
        invocation.file("SnapshotFolder")?;
    }
    let new_id = invocation.given("GenerateNewSystemIdentifier").and_then(Value::as_bool).unwrap_or(false);
    let planned = invocation.world.host.import(&ImportRequest {
        path,
        mode: ImportMode::Register,
        new_id,
        without_snapshots: true,
        ..ImportRequest::default()
    })?;
    let id = planned.record.id;
    let system = invocation
        .world
        .path("Msvm_PlannedComputerSystem")
        .with("CreationClassName", "Msvm_PlannedComputerSystem")
        .with("Name", ids::guid(id));
    Ok(Output::new(0_u32).with("ImportedSystem", Some(system.into())))
}

/// `ImportSnapshotDefinitions`. Snapshots stay behind when a package comes in, so that none is found is the one thing that
/// can be done with a folder.
pub(crate) fn import_snapshots(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let machine = machine(invocation, "PlannedSystem", true)?;
    invocation.permit(Some(machine.id()))?;
    let folder = invocation.file("SnapshotFolder")?;
    let listed = std::fs::read_dir(&folder);
    let listed = listed.map_err(|e| invalid("SnapshotFolder", "cannot be read").caused_by(e))?;
    let definition = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        [".vmcx", ".xml", ".exp"].iter().any(|ending| name.ends_with(ending))
    };
    if listed.filter_map(Result::ok).any(|entry| definition(&entry)) {
        return Err(Refused::new(
            Reason::NotSupported,
            "snapshots are not imported here; the machine comes in as it is now",
        ));
    }
    Ok(Output::new(0_u32).with("ImportedSnapshots", Some(Value::Array(Vec::new()))))
}

/// `GetSizeOfSystemFiles`: what there is of a machine besides its disks, in bytes.
pub(crate) fn size_of_system_files(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given("Vssd").ok_or_else(|| invalid("Vssd", "missing"))?;
    let id = invocation.machine_of("Vssd", value)?;
    invocation.permit(Some(id))?;
    let size = invocation.world.host.size_without_disks(id).map_err(|e| match e.reason() {
        Reason::NotFound => invalid("Vssd", e.chain()),
        _ => e,
    })?;
    Ok(Output::new(0_u32).with("Size", Some(size.into())))
}

/// Validates in a job whose problems are the findings.
fn check(invocation: &Invocation<'_>, id: Uuid, kind: Kind) -> Result<Output, Refused> {
    let host = Arc::clone(&invocation.world.host);
    let cancel = Cancel::default();
    let begin = Begin { cancel: Some(cancel.clone()), ..invocation.begin(kind, id) };
    let job = invocation.world.tasks.begin(begin, move || {
        let view = host.validate_planned_until(id, &cancel)?;
        let mut findings: Vec<_> = view.record.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(findings.into_iter().map(Problem::from).collect())
    })?;
    Ok(invocation.started(job))
}

/// `ValidatePlannedSystem`.
pub(crate) fn validate(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let machine = machine(invocation, "PlannedSystem", true)?;
    invocation.permit(Some(machine.id()))?;
    check(invocation, machine.id(), Kind::Validate)
}

/// `RealizePlannedSystem`. What stands in the way is told by the job, where clients look for it.
pub(crate) fn realize(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let machine = machine(invocation, "PlannedSystem", true)?;
    let id = machine.id();
    invocation.permit(Some(id))?;
    let view = invocation.world.host.validate_planned(id)?;
    if view.record.findings.iter().any(|finding| finding.severity == Severity::Error) {
        return check(invocation, id, Kind::Realize);
    }
    match invocation.world.host.realize(id, &invocation.call.principal.user) {
        Ok(job) => Ok(invocation.started(job)),
        Err(e) if e.reason() == Reason::NotCompatible => check(invocation, id, Kind::Realize),
        Err(e) => Err(e),
    }
}

/// `GetDefinitionFileSummaryInformation`: what configuration files are about, before they are imported.
pub(crate) fn summaries(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const MAX_FILES: usize = 64;
    let files = invocation.given("DefinitionFiles").ok_or_else(|| invalid("DefinitionFiles", "missing"))?;
    if files.elements().len() > MAX_FILES {
        return Err(invalid("DefinitionFiles", format!("more than {MAX_FILES}")));
    }
    invocation.permit(None)?;
    let class = invocation.schema().class("Msvm_SummaryInformation");
    let class = class.ok_or_else(|| invalid("SummaryInformation", "no class"))?;
    let mut all = Vec::new();
    for file in files.elements() {
        let file = file.as_str().ok_or_else(|| invalid("DefinitionFiles", "a path is expected"))?;
        let path = invocation.world.settings.paths.resolve(file)?;
        let plan = invocation.world.host.look(&ImportRequest { path, ..ImportRequest::default() })?;
        let summary = Instance::new("Msvm_SummaryInformation")
            .with("Name", ids::guid(plan.id))
            .with("ElementName", plan.settings.name.clone())
            .with("Notes", plan.settings.notes.clone());
        all.push(fill::whole(class, &summary));
    }
    Ok(Output::new(0_u32).with("SummaryInformation", Some(all.into())))
}
