//! From changed settings back into a configuration tree.
//!
//! Only differences are written. A key keeps its place, its flags and its spelling unless its value had to change; that
//! is what lets a machine leave for Hyper-V as it came.

use uuid::Uuid;
use vmcx::{Entry, Text, Tree, Value};

use super::read::{ReadError, guid, read};
use super::{device, fresh};
use crate::disk::file_name;
use crate::settings::{Adapter, AutomaticStart, AutomaticStop, Controller, ControllerKind, Media, Settings};

/// Directory that Hyper-V itself proposes for disks; used for disks that never had a Windows path.
const DEFAULT_DISK_DIRECTORY: &str = r"C:\Users\Public\Documents\Hyper-V\Virtual Hard Disks";
/// Directory that Hyper-V itself proposes for machine files.
const DEFAULT_STATE_DIRECTORY: &str = r"C:\ProgramData\Microsoft\Windows\Hyper-V\Virtual Machines";

/// Who the machine is in the written configuration.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// Its id.
    pub id: Uuid,
    /// File name under which a disk is exported, by disk id; `None` when the disk is excluded.
    pub disk_name: &'a dyn Fn(Uuid) -> Option<String>,
}

/// Why settings could not be written into a tree.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The tree is no machine's configuration.
    #[error("the earlier configuration cannot be read")]
    Read(#[from] ReadError),
    /// A key that must be a node is a value.
    #[error("the configuration cannot take the change")]
    Edit(#[source] vmcx::EditError),
}

/// Writes `after` into `tree`, which holds an earlier configuration of the same machine.
///
/// # Errors
/// `tree` is not a machine's configuration, or a key that must be a node is a value.
pub fn apply(tree: &mut Tree, after: &Settings, who: &Identity<'_>) -> Result<(), ApplyError> {
    let before = read(tree)?;
    let mut edit = Edit { tree, failed: None };
    identity(&mut edit, before.id, who.id, before.guest_state_path.as_deref());
    let b = &before.settings;
    edit.text("properties/name", &b.name, &after.name);
    edit.text("properties/notes", &b.notes, &after.notes);
    edit.int("settings/processors/count", b.processors.count.into(), after.processors.count.into());
    edit.bool(
        "settings/processors/nested_virtualization/enabled",
        b.processors.nested,
        after.processors.nested,
    );
    edit.mib("settings/memory/bank/size", b.memory.startup_mib, after.memory.startup_mib);
    edit.bool("settings/memory/bank/dynamic_memory_enabled", b.memory.dynamic, after.memory.dynamic);
    edit.mib("settings/memory/bank/reservation", b.memory.minimum_mib, after.memory.minimum_mib);
    edit.mib("settings/memory/bank/limit", b.memory.maximum_mib, after.memory.maximum_mib);
    firmware(&mut edit, b, after);
    automatic(&mut edit, b, after);
    adapters(&mut edit, &b.adapters, &after.adapters);
    drives(&mut edit, &b.controllers, &after.controllers, who);
    at_rest(&mut edit, before.snapshots);
    match edit.failed {
        None => Ok(()),
        Some(e) => Err(ApplyError::Edit(e)),
    }
}

/// The tree being edited, with paths below `configuration`; the first edit that fails is kept.
struct Edit<'a> {
    tree: &'a mut Tree,
    failed: Option<vmcx::EditError>,
}

impl Edit<'_> {
    /// Sets `path`, keeping place and flags of an existing key and creating what is missing at the end.
    fn set(&mut self, path: &str, value: Value) {
        if let Err(e) = self.tree.set(&format!("configuration/{path}"), value) {
            self.failed.get_or_insert(e);
        }
    }

    fn remove(&mut self, path: &str) {
        self.tree.remove(&format!("configuration/{path}"));
    }

    fn get_text(&self, path: &str) -> Option<String> {
        self.tree.get_str(&format!("configuration/{path}"))
    }

    fn text(&mut self, path: &str, before: &str, after: &str) {
        if before != after {
            self.set(path, string(after));
        }
    }

    fn int(&mut self, path: &str, before: i64, after: i64) {
        if before != after {
            self.set(path, Value::Int(after));
        }
    }

    fn mib(&mut self, path: &str, before: u64, after: u64) {
        self.int(path, i64::try_from(before).unwrap_or(i64::MAX), i64::try_from(after).unwrap_or(i64::MAX));
    }

    fn bool(&mut self, path: &str, before: bool, after: bool) {
        if before != after {
            self.set(path, Value::Bool(after));
        }
    }
}

pub(super) fn string(text: &str) -> Value {
    Value::String(Text::from(text))
}

/// A GUID as a configuration spells a machine's id: upper case, no braces.
pub(super) fn upper(id: Uuid) -> String {
    id.hyphenated().to_string().to_ascii_uppercase()
}

fn identity(edit: &mut Edit<'_>, before: Uuid, after: Uuid, state_path: Option<&str>) {
    if before == after {
        return;
    }
    edit.set("properties/global_id", string(&upper(after)));
    if edit.get_text("settings/global/logical_id").is_some() {
        edit.set("settings/global/logical_id", string(&upper(after)));
    }
    if let Some(path) = state_path {
        // The guest state file is named after the machine: `<dir>\<id>.vmgs`.
        let path = match path.rsplit_once('\\') {
            Some((dir, _)) => format!(r"{dir}\{}.vmgs", upper(after)),
            None => format!(r"{DEFAULT_STATE_DIRECTORY}\{}.vmgs", upper(after)),
        };
        edit.set(&format!("{}/StateFilePath", device::node(device::GUEST_STATE)), string(&path));
    }
}

fn firmware(edit: &mut Edit<'_>, before: &Settings, after: &Settings) {
    let bios = device::node(device::BIOS);
    let (b, a) = (&before.firmware, &after.firmware);
    edit.bool(&format!("{bios}/secure_boot_enabled"), b.secure_boot, a.secure_boot);
    if b.secure_boot_template != a.secure_boot_template {
        let text = a.secure_boot_template.as_deref().unwrap_or_default();
        edit.set(&format!("{bios}/secure_boot_template_id"), string(text));
    }
    if b.boot_order != a.boot_order {
        for (n, boot) in a.boot_order.iter().enumerate() {
            edit.set(&format!("{bios}/boot/device{n}"), string(boot.as_str()));
        }
    }
    if b.bios_id != a.bios_id
        && let Some(id) = a.bios_id
    {
        edit.set(&format!("{bios}/bios_guid"), string(&format!("{{{}}}", id.hyphenated())));
    }
    if b.serial_number != a.serial_number {
        edit.set(
            &format!("{bios}/bios_serial_number"),
            string(a.serial_number.as_deref().unwrap_or_default()),
        );
    }
}

fn automatic(edit: &mut Edit<'_>, before: &Settings, after: &Settings) {
    let (b, a) = (before.automatic, after.automatic);
    edit.int("global_settings/power/host_startup/action", start_number(b.start), start_number(a.start));
    edit.int(
        "global_settings/power/host_startup/delay",
        b.start_delay_seconds.into(),
        a.start_delay_seconds.into(),
    );
    edit.int("global_settings/power/host_shutdown/action", stop_number(b.stop), stop_number(a.stop));
}

pub(super) fn start_number(action: AutomaticStart) -> i64 {
    match action {
        AutomaticStart::Nothing => 0,
        AutomaticStart::Restart => 1,
        AutomaticStart::Always => 2,
    }
}

pub(super) fn stop_number(action: AutomaticStop) -> i64 {
    match action {
        AutomaticStop::TurnOff => 0,
        AutomaticStop::Save => 1,
        AutomaticStop::Shutdown => 2,
    }
}

/// A machine leaves off and without checkpoints: what the tree says of those that stayed behind is not true any more.
fn at_rest(edit: &mut Edit<'_>, snapshots: u64) {
    edit.remove("savedstate");
    if snapshots > 0
        && let Some(list) = edit.tree.children_mut("configuration/global_settings/snapshots/list")
    {
        list.retain(|e| e.name == "size");
        edit.set("global_settings/snapshots/list/size", Value::Int(0));
    }
}

fn adapters(edit: &mut Edit<'_>, before: &[Adapter], after: &[Adapter]) {
    for gone in before.iter().filter(|b| !after.iter().any(|a| a.instance == b.instance)) {
        edit.remove(&device::node(gone.instance));
        unlist(edit, gone.instance);
    }
    for a in after {
        let node = device::node(a.instance);
        let Some(b) = before.iter().find(|b| b.instance == a.instance) else {
            edit.set(&node, Value::Node(fresh::adapter(a)));
            list(edit, device::ADAPTER, a.instance, "Synthetic Ethernet Port");
            continue;
        };
        edit.text(&format!("{node}/FriendlyName"), &b.name, &a.name);
        edit.bool(&format!("{node}/MacAddressIsStatic"), b.mac_static, a.mac_static);
        if b.mac != a.mac
            && let Some(mac) = a.mac
        {
            edit.set(&format!("{node}/MacAddress"), string(&crate::settings::hyphenated(mac)));
        }
        let port = |of: &Adapter| of.port.clone().unwrap_or_else(|| super::PORT_NAME.to_owned());
        edit.text(&format!("{node}/Connection/AltPortName"), &port(b), &port(a));
        // The switch here is this host's affair: a configuration goes back with the switch it came with.
    }
}

fn drives(edit: &mut Edit<'_>, before: &[Controller], after: &[Controller], who: &Identity<'_>) {
    for a in after {
        let known = before.iter().any(|b| b.instance == a.instance);
        if !known && a.kind == ControllerKind::Scsi {
            edit.set(&device::node(a.instance), Value::Node(fresh::scsi_controller(a.instance)));
            list(edit, device::SCSI, a.instance, "Synthetic SCSI Controller");
        }
        for drive in &a.drives {
            let key = drive_key(a, drive.slot);
            let word = match &drive.media {
                Media::Disk { .. } => "VHD",
                Media::Dvd { .. } => "ISO",
                Media::Other { .. } => continue,
            };
            if edit.get_text(&format!("{key}/type")).as_deref() != Some(word) {
                edit.set(&key, Value::Node(fresh::drive(word, "")));
            }
            if let Media::Disk { disk } = drive.media
                && let Some(name) = (who.disk_name)(disk)
            {
                let was = edit.get_text(&format!("{key}/pathname")).unwrap_or_default();
                edit.text(&format!("{key}/pathname"), &was, &renamed(&was, &name));
            }
        }
    }
    for b in before {
        for drive in b.drives.iter().filter(|d| !matches!(d.media, Media::Other { .. })) {
            let kept = after.iter().any(|a| {
                a.instance == b.instance
                    && a.number == b.number
                    && a.drives.iter().any(|d| d.slot == drive.slot)
            });
            if kept {
                continue;
            }
            let key = drive_key(b, drive.slot);
            match b.kind {
                // An empty IDE position is spelled out, an empty SCSI one is absent (real files).
                ControllerKind::Ide => edit.set(&key, Value::Node(fresh::empty_drive())),
                _ => edit.remove(&key),
            }
        }
    }
}

fn drive_key(controller: &Controller, slot: u32) -> String {
    format!("{}/controller{}/drive{slot}", device::node(controller.instance), controller.number)
}

/// `path` with its file name replaced by `name`; unchanged when it has that name already.
fn renamed(path: &str, name: &str) -> String {
    let old = file_name(path);
    if old == name {
        return path.to_owned();
    }
    match path.strip_suffix(old) {
        Some(directory) if !directory.is_empty() => format!("{directory}{name}"),
        _ => format!(r"{DEFAULT_DISK_DIRECTORY}\{name}"),
    }
}

/// Adds a device to the manifest.
fn list(edit: &mut Edit<'_>, kind: Uuid, instance: Uuid, name: &str) {
    let mut devices = manifest(edit);
    devices.push(fresh::manifest_entry(kind, instance, name));
    set_manifest(edit, devices);
}

/// Removes a device from the manifest.
fn unlist(edit: &mut Edit<'_>, instance: Uuid) {
    let mut devices = manifest(edit);
    devices.retain(|d| {
        let spelled = d.iter().find(|e| e.name == "instance").map(|e| &e.value);
        !matches!(spelled, Some(Value::String(t)) if guid(&t.to_string_lossy()) == Some(instance))
    });
    set_manifest(edit, devices);
}

/// The manifest's devices, in their order.
fn manifest(edit: &Edit<'_>) -> Vec<Vec<Entry>> {
    edit.tree
        .children("configuration/manifest")
        .iter()
        .filter(|e| e.name.starts_with("vdev") && e.value.is_node())
        .map(|e| e.children().to_vec())
        .collect()
}

/// Writes the manifest's devices, numbered from 1, and their count.
fn set_manifest(edit: &mut Edit<'_>, devices: Vec<Vec<Entry>>) {
    edit.set("manifest/size", Value::Int(devices.len() as i64));
    if let Some(entries) = edit.tree.children_mut("configuration/manifest") {
        entries.retain(|e| !e.name.starts_with("vdev"));
        entries.extend(
            devices.into_iter().enumerate().map(|(n, d)| Entry::node(format!("vdev{:03}", n + 1), d)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_path_keeps_its_directory_and_changes_only_its_name() {
        assert_eq!(renamed(r"C:\Disks\a.vhdx", "a.vhdx"), r"C:\Disks\a.vhdx");
        assert_eq!(renamed(r"C:\Disks\a_{1}.avhdx", "a.vhdx"), r"C:\Disks\a.vhdx");
        assert_eq!(renamed("", "a.vhdx"), format!(r"{DEFAULT_DISK_DIRECTORY}\a.vhdx"));
    }
}
