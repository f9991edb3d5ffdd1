//! Planned machines, part by part: what a client mends before it realizes one.
//!
//! A plan is made of a package and of what was said since, so a change is kept and the plan made anew. What was said of one
//! drive or adapter is kept by its place in the configuration; parts that the package does not have are not given to a plan,
//! but to the machine once there is one.

use cim::Instance;
use machine::define::MachineEdit;
use machine::planned::{AdapterChange, DriveChange, Holds, PlannedEdit, Plug};
use machine::switch::SwitchTarget;

use crate::method::{Refused, invalid};
use crate::owner::Machine;
use crate::resource::{
    Part, Removed, file, known_adapter, mac, not_here, part, processors, quantity, referred, switch, wrong,
};
use crate::storage::Place;
use crate::world::World;

/// What a drive holds, by an id of the drive or of what is in it.
fn drive(id: &str, holds: Holds) -> Result<DriveChange, Refused> {
    let place = Place::parse(id).ok_or_else(|| wrong(format!("`{id}` is no place on a controller")))?;
    Ok(DriveChange { controller: place.controller, number: place.number, slot: place.slot, holds })
}

/// Writes into `edit` the file that `instance` names for the drive `id`.
fn medium(world: &World, id: &str, instance: &Instance, edit: &mut PlannedEdit) -> Result<(), Refused> {
    let holds = match file(world, instance)? {
        Some(path) => {
            // A differencing disk may have its parents beside it.
            edit.disk_dirs.extend(path.parent().map(Into::into));
            Holds::File(path)
        }
        None => Holds::Nothing,
    };
    edit.parts.drives.push(drive(id, holds)?);
    Ok(())
}

/// Writes into `edit` where the adapter `id` is to lead.
fn plug(
    world: &World,
    machine: &Machine,
    id: &str,
    instance: &Instance,
    edit: &mut PlannedEdit,
) -> Result<(), Refused> {
    let adapter = &machine.settings().adapters[known_adapter(machine, id)?];
    let becomes = match switch(world, instance)? {
        Some(target) => Plug::Into(SwitchTarget { target, vlan: None }),
        None => Plug::Out,
    };
    edit.parts.adapters.push(AdapterChange { instance: adapter.instance, becomes });
    Ok(())
}

/// Writes into `edit` what `instance` changes of a part of the plan.
pub(crate) fn change(
    world: &World,
    machine: &Machine,
    instance: &Instance,
    edit: &mut PlannedEdit,
) -> Result<(), Refused> {
    let id = instance.text("InstanceID").unwrap_or_default();
    match part(instance)? {
        Part::Processor => edit.processors = processors(instance)?,
        Part::Memory => edit.memory_mib = quantity(instance),
        Part::Disk | Part::Image => medium(world, id, instance, edit)?,
        Part::Connection => plug(world, machine, id, instance, edit)?,
        Part::Adapter { .. } => {
            // Sent back as it is, it is as it is.
            let now = &machine.settings().adapters[known_adapter(machine, id)?];
            let named = instance.text("ElementName").is_none_or(|name| name == now.name);
            if !named || mac(instance)?.is_some_and(|mac| mac != now.mac) {
                return Err(not_here("another name or address of an adapter that is only planned"));
            }
        }
        Part::Controller(_) | Part::DiskDrive | Part::DvdDrive => {
            return Err(not_here("another place of a controller or a drive"));
        }
    }
    Ok(())
}

/// Writes into `edit` what `instance` adds: something into a drive that is there, a switch to an adapter that is there.
pub(crate) fn add(
    world: &World,
    machine: &Machine,
    instance: &Instance,
    edit: &mut PlannedEdit,
) -> Result<(), Refused> {
    match part(instance)? {
        Part::Processor | Part::Memory => change(world, machine, instance, edit),
        Part::Disk | Part::Image => medium(world, &referred(instance, "Parent")?, instance, edit),
        Part::Connection => plug(world, machine, &referred(instance, "Parent")?, instance, edit),
        Part::Adapter { .. } | Part::Controller(_) | Part::DiskDrive | Part::DvdDrive => {
            Err(not_here("a part that its package does not have, while it is only planned,"))
        }
    }
}

/// The change of a plan that takes `removed` away.
pub(crate) fn without(removed: &[Removed<'_>]) -> Result<PlannedEdit, Refused> {
    let mut edit = PlannedEdit::default();
    for part in removed {
        match part {
            Removed::Drive(id) => edit.parts.drives.push(drive(id, Holds::Gone)?),
            Removed::Medium(id) => edit.parts.drives.push(drive(id, Holds::Nothing)?),
            Removed::Adapter(_, instance) => {
                edit.parts.adapters.push(AdapterChange { instance: *instance, becomes: Plug::Gone });
            }
            Removed::Connection(_, instance) => {
                edit.parts.adapters.push(AdapterChange { instance: *instance, becomes: Plug::Out });
            }
        }
    }
    Ok(edit)
}

/// What a change of a machine's own settings is of a plan.
///
/// # Errors
/// The boot order is the package's.
pub(crate) fn settings(change: MachineEdit) -> Result<PlannedEdit, Refused> {
    if change.boot_order.is_some() {
        let why = "BootOrder: it is the package's until the machine is realized";
        return Err(Refused::new(machine::Reason::NotSupported, invalid("SystemSettings", why).chain()));
    }
    let mut edit = PlannedEdit { name: change.name, ..PlannedEdit::default() };
    edit.parts.notes = change.notes;
    edit.parts.automatic = change.automatic;
    edit.parts.secure_boot = change.secure_boot;
    Ok(edit)
}
