//! A machine's own settings, which v1 has in two instances, and the methods that make, change and remove machines.

use cim::{Instance, Name, Value};
use machine::define::MachineEdit;
use wsman::Output;

use super::{resource, words};
use crate::define;
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::setting;
use crate::world::World;

const SETTINGS: &str = "CIM_VirtualSystemSettingData";
const OF_V2: &str = "Msvm_VirtualSystemSettingData";
/// How much v2's numbers of automatic actions are above v1's.
const ACTIONS: [&str; 3] = ["AutomaticStartupAction", "AutomaticShutdownAction", "AutomaticRecoveryAction"];
const SHIFT: u64 = 2;

/// v2's settings, as both of v1's have them.
fn settings(world: &World, machine: &Machine) -> impl Iterator<Item = Instance> {
    let made = setting::virtual_system(world, machine).into_iter();
    let name = ids::guid(machine.id());
    made.map(move |mut one| {
        // A number here, and always the same.
        one.properties.retain(|(name, _)| *name != "VirtualSystemType");
        let notes = one.get("Notes").map(|notes| {
            let lines = notes.elements().iter().filter_map(Value::as_str);
            lines.collect::<Vec<_>>().join("\r\n").into()
        });
        one.set("Notes", notes);
        one.with("SystemName", name.clone())
    })
}

/// `Msvm_VirtualSystemSettingData`: what a snapshot would keep.
pub(super) fn current(world: &World, machine: &Machine) -> Vec<Instance> {
    settings(world, machine).map(|one| one.with("SettingType", 3_u16)).collect()
}

/// `Msvm_VirtualSystemGlobalSettingData`: what the machine has once.
pub(super) fn global(world: &World, machine: &Machine) -> Vec<Instance> {
    let made = settings(world, machine).map(|mut one| {
        for action in ACTIONS {
            let here = one.get(action).and_then(Value::as_u64).and_then(|n| n.checked_sub(SHIFT));
            one.set(action, here.and_then(|n| u16::try_from(n).ok()).map(Value::from));
        }
        let root = one.get("ConfigurationDataRoot").cloned();
        one.set("ExternalDataRoot", root);
        one.set("Description", Some("Global settings for the virtual machine".into()));
        one.with("InstanceID", ids::part(machine.id(), "Global"))
    });
    made.collect()
}

/// Either of v1's settings as v2 has them, of machine `id`.
fn understood(settings: &Instance, id: Option<uuid::Uuid>) -> Result<Instance, Refused> {
    let mut told = Instance::new(OF_V2);
    for (name, value) in &settings.properties {
        let value = match (name.as_str(), value) {
            ("InstanceID" | "VirtualSystemType" | "SettingType" | "SystemName", _) => continue,
            (action, Some(value)) if ACTIONS.iter().any(|a| a.eq_ignore_ascii_case(action)) => {
                let number = value.as_u64().filter(|n| *n <= SHIFT);
                let number = number.and_then(|n| u16::try_from(n + SHIFT).ok());
                Some(number.ok_or_else(|| invalid(action, format!("{value} is no action")))?.into())
            }
            ("Notes", Some(Value::String(notes))) => Some(vec![notes.replace("\r\n", "\n")].into()),
            (_, value) => value.clone(),
        };
        told.set(name.clone(), value);
    }
    if let Some(id) = id {
        told.set("InstanceID", Some(ids::of(id).into()));
    }
    Ok(told)
}

/// `instance` with no property that v2's class does not have, as the value of a parameter.
fn parameter(invocation: &Invocation<'_>, instance: Instance) -> Value {
    let v2 = invocation.namespace.behind.as_ref();
    match v2.and_then(|v2| v2.schema.class(instance.class.as_str())) {
        Some(class) => crate::fill::declared(class, instance).into(),
        None => instance.into(),
    }
}

/// `DefineVirtualSystem`. Adapters are plugged in once there is a machine; what fails takes it away again.
pub(super) fn define(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let settings = invocation.instance("SystemSettingData", SETTINGS)?;
    let settings = settings.map(|settings| understood(&settings, None)).transpose()?;
    let resources = invocation.instances("ResourceSettingData")?;
    let plugged = resource::connections(invocation.world, &resources)?;
    let resources = resources.into_iter().map(words::understood);
    let resources = Value::Array(resources.map(|one| parameter(invocation, one)).collect());
    let mut parameters = vec![(Name::from("ResourceSettings"), Some(resources))];
    if let Some(settings) = settings {
        parameters.push((Name::from("SystemSettings"), Some(parameter(invocation, settings))));
    }
    let names = &[("SourceSetting", "ReferenceConfiguration")];
    let mut output = words::through(invocation, define::define_system, names, parameters)?;
    for (name, _) in &mut output.parameters {
        if *name == "ResultingSystem" {
            *name = "DefinedSystem".into();
        }
    }
    let id = output.parameters.iter().find_map(|(_, value)| ids::owner_of(value.as_ref()?.as_path()?));
    if let (Some(id), false) = (id, plugged.is_empty()) {
        let host = &invocation.world.host;
        let edit = MachineEdit { adapters: plugged, ..MachineEdit::default() };
        if let Err(e) = host.edit(id, &edit) {
            if let Err(left) = host.delete(id, false) {
                tracing::warn!(machine = %id, "a machine that could not be defined is left: {}", left.chain());
            }
            return Err(e);
        }
    }
    Ok(output)
}

/// `ModifyVirtualSystem`, with either of the two.
pub(super) fn modify(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let machine = words::machine(invocation, "ComputerSystem")?;
    let settings = invocation.instance("SystemSettingData", SETTINGS)?;
    let settings = settings.ok_or_else(|| invalid("SystemSettingData", "missing"))?;
    let of = settings.text("InstanceID").filter(|id| !id.is_empty());
    if of.is_some_and(|of| ids::owner(of) != Some(machine.id())) {
        return Err(invalid("SystemSettingData", "it is of another machine"));
    }
    let mut modified = words::path(invocation.world, settings.class.as_str());
    modified = match settings.class.as_str() {
        OF_V2 => modified.with("InstanceID", ids::of(machine.id())),
        _ => modified.with("InstanceID", ids::part(machine.id(), "Global")),
    };
    let settings = parameter(invocation, understood(&settings, Some(machine.id()))?);
    let parameters = vec![(Name::from("SystemSettings"), Some(settings))];
    let output = words::through(invocation, define::modify_system_settings, &[], parameters)?;
    Ok(output.with("ModifiedSettingData", Some(modified.into())))
}

/// `DestroyVirtualSystem`.
pub(super) fn destroy(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    words::through(invocation, define::destroy_system, &[("ComputerSystem", "AffectedSystem")], Vec::new())
}
