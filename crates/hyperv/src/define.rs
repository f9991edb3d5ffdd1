//! Making, changing and removing whole machines.

use cim::{Instance, Value};
use machine::Reason;
use machine::change::Begun;
use machine::define::{DefineRequest, MachineEdit};
use machine::settings::{
    Automatic, AutomaticStart, AutomaticStop, BootDevice, ControllerKind, Generation, Hardware,
};
use wsman::Output;

use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Machine, Owner, OwnerId};
use crate::planned;
use crate::resource;
use crate::world::World;
use crate::{boot, ids};

const SETTINGS: &str = "Msvm_VirtualSystemSettingData";
/// What a machine is called when nobody says, as with Hyper-V.
const DEFAULT_NAME: &str = "New Virtual Machine";

/// `DefineSystem`: a machine with these settings and resources, off.
pub(crate) fn define_system(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    if invocation.given("ReferenceConfiguration").is_some() {
        return Err(Refused::new(Reason::NotSupported, "a machine is not made after another one here"));
    }
    let settings =
        invocation.instance("SystemSettings", SETTINGS)?.unwrap_or_else(|| Instance::new(SETTINGS));
    let generation = match settings.text("VirtualSystemSubType") {
        None | Some("" | "Microsoft:Hyper-V:SubType:1") => Generation::One,
        Some("Microsoft:Hyper-V:SubType:2") => Generation::Two,
        Some(other) => {
            return Err(invalid("SystemSettings", format!("VirtualSystemSubType `{other}` is none")));
        }
    };
    let resources = invocation.instances("ResourceSettings")?;
    let host = &invocation.world.host;
    let name = settings.text("ElementName").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAME);
    let defined = host.define(&DefineRequest {
        name: name.to_owned(),
        generation,
        id: settings.text("VirtualSystemIdentifier").and_then(ids::owner),
        processors: None,
        memory_mib: None,
        secure_boot: None,
        tpm: false,
        disks: Vec::new(),
        dvd: None,
        adapters: Vec::new(),
        hardware: Hardware::default(),
    })?;
    let id = defined.record.id;
    // A machine of generation 1 has both its IDE controllers from the start.
    let controllers = if generation == Generation::One { vec![ControllerKind::Ide; 2] } else { Vec::new() };
    let rest = || {
        host.edit(id, &MachineEdit { add_controllers: controllers, ..MachineEdit::default() })?;
        let machine = Machine::Real(host.machine(id)?);
        let mut edit = system_edit(&machine, &settings)?;
        edit.name = None;
        resource::add_all(invocation.world, &machine, &resources, &mut edit)?;
        host.begin_edit(id, &edit, &invocation.call.principal.user)
    };
    let begun = match rest() {
        Ok(begun) => begun,
        Err(e) => {
            // Whole or not at all.
            if let Err(left) = host.delete(id, false) {
                tracing::warn!(machine = %id, "a machine that could not be defined is left: {}", left.chain());
            }
            return Err(e);
        }
    };
    let answer = match begun {
        Begun::Done(_) => Output::new(0_u32),
        Begun::Job(job) => invocation.started(job),
    };
    Ok(answer.with("ResultingSystem", Some(invocation.world.system_path(id).into())))
}

/// `DestroySystem`. Files of disks stay, as with Hyper-V; what was taken in is given back, by a job if it was written.
pub(crate) fn destroy_system(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let value = invocation.given("AffectedSystem").ok_or_else(|| invalid("AffectedSystem", "missing"))?;
    let path = invocation.path("AffectedSystem", value)?;
    let id = ids::owner_of(&path).ok_or_else(|| invalid("AffectedSystem", "no machine"))?;
    invocation.permit(Some(id))?;
    let host = &invocation.world.host;
    if path.class == "Msvm_PlannedComputerSystem" {
        host.abandon_planned(id)?;
    } else {
        let user = &invocation.call.principal.user;
        if let Begun::Job(job) = host.begin_delete(id, true, user)? {
            return Ok(invocation.started(job));
        }
    }
    Ok(Output::new(0_u32))
}

/// The machine whose settings have that id: the real one, else the planned one.
pub(crate) fn owner_of_setting(
    invocation: &Invocation<'_>,
    parameter: &str,
    instance_id: Option<&str>,
) -> Result<Machine, Refused> {
    let id = instance_id.and_then(ids::owner);
    let id = id.ok_or_else(|| invalid(parameter, "InstanceID is missing, or names no machine"))?;
    invocation.permit(Some(id))?;
    for candidate in [OwnerId::Machine(id), OwnerId::Planned(id)] {
        if let Some(Owner::Machine(machine)) = invocation.world.load(candidate)? {
            return Ok(*machine);
        }
    }
    Err(invalid(parameter, format!("no machine has the id {id}")))
}

/// `ModifySystemSettings`.
pub(crate) fn modify_system_settings(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let settings = invocation.instance("SystemSettings", SETTINGS)?;
    let settings = settings.ok_or_else(|| invalid("SystemSettings", "missing"))?;
    let machine = owner_of_setting(invocation, "SystemSettings", settings.text("InstanceID"))?;
    match &machine {
        Machine::Real(view) => {
            let edit = system_edit(&machine, &settings)?;
            invocation.world.host.edit(view.record.id, &edit)?;
        }
        Machine::Planned(view) => {
            let edit = planned::settings(system_edit(&machine, &settings)?)?;
            invocation.world.host.edit_planned(view.record.id, &edit)?;
        }
    }
    Ok(Output::new(0_u32))
}

/// The change that `instance` makes of a machine's own settings. What it does not say, or says as it is, stays; properties
/// that mean nothing here are taken and not kept, since clients send back whatever they were given.
fn system_edit(machine: &Machine, instance: &Instance) -> Result<MachineEdit, Refused> {
    let now = machine.settings();
    let mut edit = MachineEdit::default();
    let number = |name: &str| instance.get(name).and_then(Value::as_u64);
    let wrong = |name: &str, value: u64| invalid("SystemSettings", format!("{name}: {value} is none"));
    if let Some(name) = instance.text("ElementName").filter(|name| *name != now.name) {
        edit.name = Some(name.to_owned());
    }
    if let Some(notes) = instance.get("Notes") {
        let lines: Vec<_> = notes.elements().iter().filter_map(Value::as_str).collect();
        edit.notes = Some(lines.join("\n")).filter(|notes| *notes != now.notes);
    }
    let mut automatic = now.automatic;
    if let Some(action) = number("AutomaticStartupAction") {
        automatic.start = match action {
            2 => AutomaticStart::Nothing,
            3 => AutomaticStart::Restart,
            4 => AutomaticStart::Always,
            other => return Err(wrong("AutomaticStartupAction", other)),
        };
    }
    if let Some(action) = number("AutomaticShutdownAction") {
        automatic.stop = match action {
            2 => AutomaticStop::TurnOff,
            3 => AutomaticStop::Save,
            4 => AutomaticStop::Shutdown,
            other => return Err(wrong("AutomaticShutdownAction", other)),
        };
    }
    if let Some(Value::Datetime(delay)) = instance.get("AutomaticStartupActionDelay") {
        let seconds = delay.micros().filter(|_| delay.is_interval()).map(|micros| micros / 1_000_000);
        automatic.start_delay_seconds = seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .ok_or_else(|| invalid("SystemSettings", "AutomaticStartupActionDelay is no interval"))?;
    }
    edit.automatic = Some(automatic).filter(|automatic: &Automatic| *automatic != now.automatic);
    if let Some(secure) = instance.get("SecureBootEnabled").and_then(Value::as_bool) {
        edit.secure_boot = Some(secure).filter(|secure| *secure != now.firmware.secure_boot);
    }
    let sources =
        instance.get("BootSourceOrder").map(|order| boot::kinds(machine, order)).transpose()?.flatten();
    if sources.is_some() {
        edit.boot_order = sources;
    } else if let Some(order) = instance.get("BootOrder") {
        let mut devices = Vec::new();
        for device in order.elements().iter().filter_map(Value::as_u64) {
            devices.push(match device {
                0 => BootDevice::Floppy,
                1 => BootDevice::Optical,
                2 | 4 => BootDevice::HardDrive,
                3 => BootDevice::Network,
                other => return Err(wrong("BootOrder", other)),
            });
        }
        devices.dedup();
        edit.boot_order = Some(devices).filter(|order| *order != now.firmware.boot_order);
    }
    Ok(edit)
}

impl World {
    /// The path of the system of machine `id`.
    fn system_path(&self, id: uuid::Uuid) -> cim::ObjectPath {
        self.path("Msvm_ComputerSystem")
            .with("CreationClassName", "Msvm_ComputerSystem")
            .with("Name", ids::guid(id))
    }
}
