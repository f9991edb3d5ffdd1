//! What v1 calls otherwise than v2, both ways: types of resources, paths, parameters.

use cim::{Instance, Name, ObjectPath, Value};
use wsman::Output;

use super::NAME;
use crate::method::{Does, Invocation, Refused, invalid};
use crate::owner::Machine;
use crate::world::World;
use crate::{ids, provider};

/// A parameter's names: v1's, and v2's.
pub(super) type Names = &'static [(&'static str, &'static str)];

/// What the types of resources begin with.
const SUB_TYPE: (&str, &str) = ("Microsoft ", "Microsoft:Hyper-V:");
/// The one type that has another name behind that, too.
const MEMORY: (&str, &str) = ("Microsoft Virtual Machine Memory", "Microsoft:Hyper-V:Memory");

/// `ResourceType`s that have another number. They are those of the documentation's samples; the list on its class pages
/// lacks an entry, so that its numbers are one less from there on.
const TYPES: &[(u16, u16)] = &[
    // A disk drive.
    (22, 17),
    // What is in a drive.
    (21, 31),
];

/// The path of an instance of v1, to which keys are added.
pub(super) fn path(world: &World, class: &str) -> ObjectPath {
    world.path(class).within(NAME)
}

/// A resource's settings as v1 has them, made of v2's.
pub(super) fn allocation(mut instance: Instance) -> Instance {
    if instance.text("ResourceSubType") == Some(MEMORY.1) {
        instance.set("ResourceSubType", Some(MEMORY.0.into()));
    } else if let Some(kind) = instance.text("ResourceSubType").and_then(|t| t.strip_prefix(SUB_TYPE.1)) {
        let kind = format!("{}{kind}", SUB_TYPE.0);
        instance.set("ResourceSubType", Some(kind.into()));
    }
    let number = instance.get("ResourceType").and_then(Value::as_u64);
    if let Some((here, _)) = TYPES.iter().find(|(_, v2)| number == Some(u64::from(*v2))) {
        instance.set("ResourceType", Some((*here).into()));
    }
    if let Some(Ok(parent)) = instance.text("Parent").map(str::parse::<ObjectPath>) {
        instance.set("Parent", Some(told_path(parent).to_string().into()));
    }
    // What is behind a disk has another place here.
    if instance.class == "Msvm_StorageAllocationSettingData" {
        let files = instance.get("HostResource").cloned();
        instance.set("Connection", files);
        instance.set("HostResource", None);
    }
    instance
}

/// A resource's settings as v2 has them, made of v1's.
pub(super) fn understood(mut instance: Instance) -> Instance {
    if instance.text("ResourceSubType") == Some(MEMORY.0) {
        instance.set("ResourceSubType", Some(MEMORY.1.into()));
    } else if let Some(kind) = instance.text("ResourceSubType").and_then(|t| t.strip_prefix(SUB_TYPE.0)) {
        let (kind, disk) =
            (format!("{}{kind}", SUB_TYPE.1), kind.starts_with("Virtual ") && kind.ends_with("Disk"));
        instance.set("ResourceSubType", Some(kind.into()));
        if disk {
            instance.class = "Msvm_StorageAllocationSettingData".into();
            let files = instance.get("Connection").or_else(|| instance.get("HostResource")).cloned();
            instance.set("HostResource", files);
        }
    }
    let number = instance.get("ResourceType").and_then(Value::as_u64);
    if let Some((_, v2)) = TYPES.iter().find(|(here, _)| number == Some(u64::from(*here))) {
        instance.set("ResourceType", Some((*v2).into()));
    }
    instance
}

/// A path of v2 as v1 has it.
fn told_path(path: ObjectPath) -> ObjectPath {
    let mut path = path.within(NAME);
    if path.class == "Msvm_StorageAllocationSettingData" {
        path.class = "Msvm_ResourceAllocationSettingData".into();
    }
    path
}

/// A path of v1 as v2 has it. What is in a drive is told by its id.
fn understood_path(path: ObjectPath) -> ObjectPath {
    let mut path = path.within(provider::VIRTUALIZATION);
    let in_drive = path.text("InstanceID").is_some_and(|id| id.ends_with(r"\L") || id.ends_with(r"\l"));
    if in_drive && path.class == "Msvm_ResourceAllocationSettingData" {
        path.class = "Msvm_StorageAllocationSettingData".into();
    }
    path
}

fn each(value: Value, change: fn(ObjectPath) -> ObjectPath) -> Value {
    match value {
        Value::Array(all) => Value::Array(all.into_iter().map(|one| each(one, change)).collect()),
        Value::Reference(path) => change(*path).into(),
        Value::String(text) => match text.parse() {
            Ok(path) => change(path).into(),
            Err(_) => Value::String(text),
        },
        other => other,
    }
}

/// What v1 says of a job or another instance that a method of v2 gives.
pub(super) fn output(mut output: Output) -> Output {
    for (_, value) in &mut output.parameters {
        if let Some(Value::Reference(_) | Value::Array(_)) = value {
            *value = value.take().map(|value| match value {
                Value::Array(all) if !all.iter().all(|one| one.as_path().is_some()) => Value::Array(all),
                other => each(other, told_path),
            });
        }
    }
    output
}

/// Has a method of v2 do it: with the parameters `names`, which are references, under v2's names, and `more`.
pub(super) fn through(
    invocation: &Invocation<'_>,
    does: Does,
    names: Names,
    more: Vec<(Name, Option<Value>)>,
) -> Result<Output, Refused> {
    let Some(v2) = &invocation.namespace.behind else {
        return Err(invalid("path", "it is no namespace of v1"));
    };
    let mut parameters = more;
    for (here, there) in names {
        let value = invocation.given(here).cloned();
        parameters.push(((*there).into(), value.map(|value| each(value, understood_path))));
    }
    does(&invocation.within(v2, parameters)?).map(output)
}

/// The machine that a parameter refers to, by its system or by its settings.
pub(super) fn machine(invocation: &Invocation<'_>, name: &str) -> Result<Machine, Refused> {
    let value = invocation.given(name).ok_or_else(|| invalid(name, "missing"))?;
    let path = invocation.path(name, value)?;
    let id = ids::owner_of(&path).ok_or_else(|| invalid(name, format!("`{path}` is no machine")))?;
    match invocation.world.load(crate::owner::OwnerId::Machine(id))? {
        Some(owner) if !invocation.world.sees(invocation.call, &owner) => {}
        Some(crate::owner::Owner::Machine(machine)) => return Ok(*machine),
        _ => {}
    }
    Err(invalid(name, format!("there is no `{path}`")))
}
