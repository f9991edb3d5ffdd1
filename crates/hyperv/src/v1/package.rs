//! Export and import as of 2008: one call each, without a planned machine between.
//!
//! `ImportVirtualSystem` uses an export where it is, once; `ImportVirtualSystemEx` says what is copied, from where to where.
//! What keeps a package from becoming a machine is told by the job, where clients look for it.

use cim::{Instance, Value};
use machine::Reason;
use machine::export::{ExportRequest, Layout};
use machine::import::Plan;
use machine::planned::{AdapterChange, DriveChange, Holds, ImportMode, ImportRequest, Plug};
use machine::switch::SwitchTarget;
use uuid::Uuid;
use wsman::Output;

use super::words;
use crate::job_class::{Kind, Problem};
use crate::method::{Invocation, Refused, invalid};
use crate::world::World;
use crate::{fill, ids, package};

const EXPORT_SETTINGS: &str = "Msvm_VirtualSystemExportSettingData";
const IMPORT_SETTINGS: &str = "Msvm_VirtualSystemImportSettingData";
const PARAMETER: &str = "ImportSettingData";

/// `ExportVirtualSystem`: into a folder of the machine's name. Without its state goes the configuration alone.
pub(super) fn export(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let whole = invocation.given("CopyVmState").and_then(Value::as_bool);
    let whole = whole.ok_or_else(|| invalid("CopyVmState", "missing, or no boolean"))?;
    begin_export(invocation, |request| {
        (request.subdirectory, request.storage, request.saved_state) = (true, whole, whole);
    })
}

/// `ExportVirtualSystemEx`.
pub(super) fn export_ex(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let settings = invocation.instance("ExportSettingData", EXPORT_SETTINGS)?;
    let machine = words::machine(invocation, "ComputerSystem")?;
    let mut told = ExportRequest::new(std::path::PathBuf::new());
    if let Some(settings) = settings {
        package::apply(&machine, &settings, &mut told)?;
    }
    begin_export(invocation, |request| {
        (request.subdirectory, request.storage, request.saved_state) =
            (told.subdirectory, told.storage, told.saved_state);
    })
}

fn begin_export(
    invocation: &Invocation<'_>,
    set: impl FnOnce(&mut ExportRequest),
) -> Result<Output, Refused> {
    let machine = words::machine(invocation, "ComputerSystem")?;
    invocation.permit(Some(machine.id()))?;
    let mut request = ExportRequest::new(invocation.file("ExportDirectory")?);
    request.layout = Layout::First;
    set(&mut request);
    package::begin_export(invocation, &machine, &request).map(words::output)
}

/// `ImportVirtualSystem`: in place, and once, unless it gets a new id.
pub(super) fn import(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let new_id = invocation.given("GenerateNewID").and_then(Value::as_bool).unwrap_or(false);
    begin_import(
        invocation,
        &ImportRequest {
            path: invocation.file("ImportDirectory")?,
            mode: ImportMode::Register,
            adopt: true,
            new_id,
            ..request()
        },
    )
}

/// What all imports of v1 have in common. There are no snapshots here: they stay behind.
fn request() -> ImportRequest {
    ImportRequest { without_snapshots: true, ..ImportRequest::default() }
}

fn begin_import(invocation: &Invocation<'_>, request: &ImportRequest) -> Result<Output, Refused> {
    let (host, user) = (&invocation.world.host, &invocation.call.principal.user);
    let job = match host.import_at_once(request, user) {
        Ok(job) => job,
        Err(e) if e.reason() == Reason::NotCompatible => {
            let plan = host.look(request)?;
            let mut findings: Vec<_> = plan.findings.iter().collect();
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            let problems: Vec<_> = findings.into_iter().map(Problem::from).collect();
            invocation.world.tasks.begin(invocation.begin(Kind::Realize, plan.id), move || Ok(problems))?
        }
        Err(e) => return Err(e),
    };
    Ok(words::output(invocation.started(job)))
}

/// `GetVirtualSystemImportSettingData`: what an import of that folder would do unless told otherwise.
pub(super) fn import_settings(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let path = invocation.file("ImportDirectory")?;
    let plan = invocation.world.host.look(&ImportRequest { path, ..request() })?;
    let class = invocation.schema().class(IMPORT_SETTINGS);
    let class = class.ok_or_else(|| invalid(PARAMETER, "no class"))?;
    let told = Defaults::of(invocation.world, &plan).instance(&plan);
    Ok(Output::new(0_u32).with(PARAMETER, Some(fill::whole(class, &told).into())))
}

/// What is said of a package before anybody chooses. Whoever sends it back as it came has chosen nothing.
struct Defaults {
    machine: String,
    snapshots: String,
    disks: String,
    /// In the configuration's order.
    files: Vec<File>,
    /// In the configuration's order.
    switches: Vec<Switch>,
    target: String,
}

/// A switch that the package names.
struct Switch {
    name: String,
    /// The same, where there is one of that name here.
    here: String,
    /// The adapters on it.
    adapters: Vec<Uuid>,
}

/// A disk of the package.
struct File {
    /// Its path in the configuration.
    current: String,
    /// Where it is.
    source: String,
    /// Controller, its number, and the slot.
    place: (Uuid, u32, u32),
}

impl Defaults {
    fn of(world: &World, plan: &Plan) -> Self {
        let root = world.settings.paths.shown(&plan.package.root);
        let below = |name: &str| format!(r"{}\{name}", root.trim_end_matches('\\'));
        let drives = plan.configuration.drives.iter();
        let files = drives.filter_map(|drive| {
            let disk = plan.disks.iter().find(|disk| drive.disk == Some(disk.id))?;
            let there = disk.file.as_ref().map(|file| world.settings.paths.shown(file));
            Some(File {
                source: there.unwrap_or_else(|| disk.source_path.clone()),
                current: disk.source_path.clone(),
                place: (drive.controller, drive.number, drive.slot),
            })
        });
        let files = files.collect();
        let mut switches: Vec<Switch> = Vec::new();
        for adapter in &plan.configuration.settings.adapters {
            let Some(name) = &adapter.source_switch else { continue };
            match switches.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.adapters.push(adapter.instance),
                None => switches.push(Switch {
                    here: world.switch_id(name).map(|_| name.clone()).unwrap_or_default(),
                    name: name.clone(),
                    adapters: vec![adapter.instance],
                }),
            }
        }
        Self {
            snapshots: below("Snapshots"),
            disks: below("Virtual Hard Disks"),
            files,
            target: world.settings.paths.shown(&world.host.default_root()),
            machine: root,
            switches,
        }
    }

    fn instance(&self, plan: &Plan) -> Instance {
        Instance::new(IMPORT_SETTINGS)
            .with("InstanceID", ids::of(plan.configuration.id))
            .with("ElementName", plan.configuration.settings.name.clone())
            .with("Name", plan.configuration.settings.name.clone())
            .with("GenerateNewId", true)
            .with("CreateCopy", true)
            .with("SourceVmDataRoot", self.machine.clone())
            .with("SourceSnapshotDataRoot", self.snapshots.clone())
            .with("SourceVhdDataRoot", self.disks.clone())
            .with("TargetVmDataRoot", self.target.clone())
            .with("TargetSnapshotDataRoot", self.target.clone())
            .with("TargetVhdDataRoot", self.target.clone())
            .with("SecurityScope", "")
            .with(
                "CurrentResourcePaths",
                self.files.iter().map(|file| file.current.clone()).collect::<Vec<_>>(),
            )
            .with(
                "SourceResourcePaths",
                self.files.iter().map(|file| file.source.clone()).collect::<Vec<_>>(),
            )
            .with("TargetResourcePaths", Vec::<String>::new())
            .with(
                "SourceNetworkConnections",
                self.switches.iter().map(|switch| switch.name.clone()).collect::<Vec<_>>(),
            )
            .with(
                "TargetNetworkConnections",
                self.switches.iter().map(|switch| switch.here.clone()).collect::<Vec<_>>(),
            )
    }
}

/// `ImportVirtualSystemEx`.
pub(super) fn import_ex(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let path = invocation.file("ImportDirectory")?;
    let settings = invocation.instance(PARAMETER, IMPORT_SETTINGS)?;
    let settings = settings.unwrap_or_else(|| Instance::new(IMPORT_SETTINGS));
    let plan = invocation.world.host.look(&ImportRequest { path: path.clone(), ..request() })?;
    let mut request = ImportRequest { path, ..request() };
    Choices { world: invocation.world, settings: &settings, defaults: Defaults::of(invocation.world, &plan) }
        .apply(&mut request)?;
    request.name = settings.text("Name").filter(|name| !name.is_empty()).map(str::to_owned);
    begin_import(invocation, &request)
}

/// The settings of an import, next to what they are by default.
struct Choices<'a> {
    world: &'a World,
    settings: &'a Instance,
    defaults: Defaults,
}

impl Choices<'_> {
    fn apply(&self, request: &mut ImportRequest) -> Result<(), Refused> {
        let flag = |name: &str| self.settings.get(name).and_then(Value::as_bool).unwrap_or(true);
        request.new_id = flag("GenerateNewId");
        let copy = flag("CreateCopy");
        request.mode = if copy { ImportMode::Copy } else { ImportMode::Register };
        request.adopt = !copy;
        let files = &self.defaults.files;
        for (named, file) in self.list("SourceResourcePaths", files.len())?.into_iter().zip(files) {
            if !named.is_empty() && named != file.source {
                let (controller, number, slot) = file.place;
                let holds = Holds::File(self.resolve("SourceResourcePaths", named)?);
                request.parts.drives.push(DriveChange { controller, number, slot, holds });
            }
        }
        request.disk_dirs.extend(self.folder("SourceVhdDataRoot", &self.defaults.disks)?);
        // Saved memory comes with the package or not at all; a folder that is named must be one all the same.
        for (name, default) in [
            ("SourceVmDataRoot", &self.defaults.machine),
            ("SourceSnapshotDataRoot", &self.defaults.snapshots),
        ] {
            if self.folder(name, default)?.is_some_and(|folder| !folder.is_dir()) {
                return Err(invalid(PARAMETER, format!("{name}: there is no such folder")));
            }
        }
        if copy {
            self.targets(request)?;
        }
        Ok(())
    }

    /// Where copies go, and which switches stand for those of the package.
    fn targets(&self, request: &mut ImportRequest) -> Result<(), Refused> {
        let files = &self.defaults.files;
        for (named, file) in self.list("TargetResourcePaths", files.len())?.into_iter().zip(files) {
            if !named.is_empty() {
                let target = self.resolve("TargetResourcePaths", named)?;
                request.disk_targets.insert(file.current.clone(), target);
            }
        }
        request.root = self.folder("TargetVmDataRoot", &self.defaults.target)?;
        request.to = self.folder("TargetVhdDataRoot", &self.defaults.target)?;
        let switches = &self.defaults.switches;
        for (target, switch) in
            self.list("TargetNetworkConnections", switches.len())?.into_iter().zip(switches)
        {
            let becomes = match target {
                // An empty name is no switch.
                "" => Plug::Out,
                target => Plug::Into(SwitchTarget { target: target.to_owned(), vlan: None }),
            };
            let adapters = switch.adapters.iter();
            let changes =
                adapters.map(|adapter| AdapterChange { instance: *adapter, becomes: becomes.clone() });
            request.parts.adapters.extend(changes);
        }
        Ok(())
    }

    /// A list that stands beside another one of `length`.
    fn list(&self, name: &str, length: usize) -> Result<Vec<&str>, Refused> {
        let elements = self.settings.get(name).map_or(&[][..], Value::elements);
        if elements.len() > length {
            return Err(invalid(PARAMETER, format!("{name}: there are only {length} to be named")));
        }
        Ok(elements.iter().map(|one| one.as_str().unwrap_or_default()).collect())
    }

    fn resolve(&self, name: &str, text: &str) -> Result<std::path::PathBuf, Refused> {
        self.world
            .settings
            .paths
            .resolve(text)
            .map_err(|e| Refused::new(e.reason(), format!("{PARAMETER}: {name}: {e}")))
    }

    /// The folder that is named and is not the default.
    fn folder(&self, name: &str, default: &str) -> Result<Option<std::path::PathBuf>, Refused> {
        let text = self.settings.text(name).filter(|text| !text.is_empty() && *text != default);
        text.map(|text| self.resolve(name, text)).transpose()
    }
}
