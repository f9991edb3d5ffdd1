//! From a configuration tree to typed settings.
//!
//! Tolerant where real files vary (older versions lack keys, hand-made templates lack whole branches), strict where a
//! wrong guess would give the guest another machine (no id, no `configuration` root).

use std::collections::BTreeMap;
use std::path::PathBuf;

use uuid::Uuid;
use vmcx::{Entry, Tree, Value};

use super::{VLAN_FEATURE, device};
use crate::settings::{
    Adapter, Automatic, AutomaticStart, AutomaticStop, BootDevice, Controller, ControllerKind, Drive,
    Firmware, Generation, Hardware, MAX_ADAPTERS, MAX_CONTROLLERS, MAX_DRIVES, Media, Memory, Processors,
    Settings,
};

/// Longest path that Windows takes, in characters.
const MAX_PATH: usize = 32_767;
/// Most bytes of a name or word that become a setting: more than any may have. What is beyond stays in the configuration.
const MAX_WORD: usize = 1024;
/// The same for a machine's notes.
const MAX_NOTES: usize = 8 << 10;

/// Newest configuration version whose keys are known here (12.0, Server 2025), times 256.
pub(crate) const NEWEST_VERSION: i64 = 12 << 8;

/// A configuration as read: the typed settings and what else an import needs to know of it.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The machine's id.
    pub id: Uuid,
    /// Typed settings. Disks carry ids minted by [`read`]; [`Self::drives`] says which file each one was.
    pub settings: Settings,
    /// Files that the configuration puts into drives, by disk id (disks) or in order (DVD images).
    pub drives: Vec<ConfiguredDrive>,
    /// Devices of the manifest that Slipway gives no guest: type id and name.
    pub unavailable: Vec<(Uuid, String)>,
    /// Path of the guest state file (VMGS) as the configuration has it.
    pub guest_state_path: Option<String>,
    /// How many checkpoints the configuration lists.
    pub snapshots: u64,
    /// The machine was saved with its memory.
    pub saved: SavedState,
    /// The machine's state is encrypted to a key protector.
    pub shielded: bool,
    /// Adapter instances whose switch port carries VLAN settings in a form that is not public.
    pub vlan_unread: Vec<Uuid>,
    /// Arrays below the firmware's `nvram` node: variables of older generation 2 machines, as they are.
    pub nvram: Vec<Vec<u8>>,
    /// The version is newer than [`NEWEST_VERSION`].
    pub version_unknown: bool,
}

/// Whether a configuration says that the machine was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedState {
    /// Powered off.
    None,
    /// Saved: memory and device state lie beside the configuration.
    Present,
}

/// A file in a drive of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredDrive {
    /// Key path of the drive in the tree.
    pub key: String,
    /// Controller kind.
    pub kind: ControllerKind,
    /// Controller instance.
    pub controller: Uuid,
    /// `controllerN`.
    pub number: u32,
    /// `driveN`.
    pub slot: u32,
    /// The id minted for it, when it is a disk.
    pub disk: Option<Uuid>,
    /// `VHD`, `ISO`, or another word of the configuration.
    pub media: String,
    /// The path as the configuration has it.
    pub path: String,
    /// The file that was named for it since, wherever the path leads.
    pub file: Option<PathBuf>,
}

/// Why a tree is not a machine's configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The root node is missing: another kind of file in the same container.
    #[error("no `configuration` at the root: this is not a machine's configuration (found {found})")]
    NotAConfiguration {
        /// Names at the root.
        found: String,
    },
    /// No usable id.
    #[error("`{key}` is not a GUID: `{value}`")]
    BadId {
        /// Key path.
        key: &'static str,
        /// What is there.
        value: String,
    },
    /// A path that Windows could not have written.
    #[error("`{key}` has {length} characters, more than the {MAX_PATH} of the longest path")]
    LongPath {
        /// Key path.
        key: String,
        /// Its length.
        length: usize,
    },
    /// More of something than a machine can have.
    #[error("{what}: more than {limit}")]
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// Children of a node found by name, first match.
pub(super) struct Node<'a>(&'a [Entry]);

impl<'a> Node<'a> {
    pub(super) fn at(tree: &'a Tree, path: &str) -> Option<Self> {
        let mut entries: &[Entry] = &tree.entries;
        for name in path.split('/') {
            match &entries.iter().find(|e| e.name == name)?.value {
                Value::Node(children) => entries = children,
                _ => return None,
            }
        }
        Some(Self(entries))
    }

    fn value(&self, path: &str) -> Option<&'a Value> {
        let mut entries = self.0;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let value = &entries.iter().find(|e| e.name == name)?.value;
            match value {
                _ if names.peek().is_none() => return Some(value),
                Value::Node(children) => entries = children,
                _ => return None,
            }
        }
        None
    }

    pub(super) fn int(&self, path: &str) -> Option<i64> {
        match self.value(path)? {
            Value::Int(v) => Some(*v),
            Value::Uint(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::String(t) => Some(t.to_string_lossy()),
            _ => None,
        }
    }

    /// A text that is shown and kept, cut where no such text goes on.
    pub(super) fn word(&self, path: &str) -> Option<String> {
        self.text(path).map(|text| cut(text, MAX_WORD))
    }

    pub(super) fn bool(&self, path: &str) -> Option<bool> {
        match self.value(path)? {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub(super) fn node(&self, path: &str) -> Option<Node<'a>> {
        match self.value(path)? {
            Value::Node(children) => Some(Node(children)),
            _ => None,
        }
    }

    /// Child nodes named `<prefix><number>`, by ascending number.
    fn numbered(&self, prefix: &str) -> Vec<(u32, Node<'a>)> {
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter_map(|e| match &e.value {
                Value::Node(children) => Some((e.name.strip_prefix(prefix)?.parse().ok()?, Node(children))),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(n, _)| *n);
        found
    }

    fn arrays(&self, into: &mut Vec<Vec<u8>>) {
        for e in self.0 {
            match &e.value {
                Value::Array(bytes) => into.push(bytes.clone()),
                Value::Node(children) => Node(children).arrays(into),
                _ => {}
            }
        }
    }
}

fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// A GUID in any of the spellings a configuration uses (with or without braces, either case).
pub(super) fn guid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.trim().trim_start_matches('{').trim_end_matches('}')).ok()
}

/// Reads the typed settings of `tree`.
///
/// # Errors
/// The tree is no machine configuration, has no usable id, or holds more devices than any machine can have.
pub fn read(tree: &Tree) -> Result<Configuration, ReadError> {
    let root = Node::at(tree, "configuration").ok_or_else(|| ReadError::NotAConfiguration {
        found: tree.entries.iter().take(4).map(|e| format!("`{}`", e.name)).collect::<Vec<_>>().join(", "),
    })?;
    let id_text = root
        .word("properties/global_id")
        .or_else(|| root.word("settings/global/logical_id"))
        .unwrap_or_default();
    let id = guid(&id_text)
        .ok_or(ReadError::BadId { key: "configuration/properties/global_id", value: id_text })?;
    let manifest = manifest(&root);
    let generation = match root.int("properties/subtype") {
        Some(1) => Generation::Two,
        _ => Generation::One,
    };
    let bios = root.node(&device::node(device::BIOS));
    let mut drives = Vec::new();
    let controllers = controllers(&root, &manifest, &mut drives)?;
    let mut vlan_unread = Vec::new();
    let adapters = adapters(&root, &manifest, &mut vlan_unread)?;
    let version = root.int("properties/version").unwrap_or(0);
    let mut nvram = Vec::new();
    if let Some(node) = bios.as_ref().and_then(|b| b.node("nvram")) {
        node.arrays(&mut nvram);
    }
    let settings = Settings {
        name: root.word("properties/name").unwrap_or_default(),
        notes: notes(&root),
        generation,
        config_version: version,
        processors: Processors {
            count: root.int("settings/processors/count").and_then(|v| u32::try_from(v).ok()).unwrap_or(1),
            nested: root.bool("settings/processors/nested_virtualization/enabled").unwrap_or(false),
        },
        memory: memory(&root),
        firmware: firmware(bios.as_ref(), generation),
        controllers,
        adapters,
        tpm: tpm_enabled(&root),
        automatic: automatic(&root),
        hardware: Hardware::default(),
    };
    Ok(Configuration {
        id,
        drives,
        unavailable: unavailable(&manifest),
        guest_state_path: root
            .text(&format!("{}/StateFilePath", device::node(device::GUEST_STATE)))
            .filter(|p| !p.is_empty()),
        snapshots: root
            .int("global_settings/snapshots/list/size")
            .and_then(|v| u64::try_from(v).ok())
            .unwrap_or(0),
        saved: if root.node("savedstate").is_some() { SavedState::Present } else { SavedState::None },
        shielded: root
            .bool("settings/security/shielded")
            .or_else(|| root.bool("security/shielding_requested"))
            .unwrap_or(false),
        vlan_unread,
        nvram,
        version_unknown: version > NEWEST_VERSION,
        settings,
    })
}

fn notes(root: &Node<'_>) -> String {
    cut(root.text("properties/notes").unwrap_or_default(), MAX_NOTES)
}

fn quantity(root: &Node<'_>, path: &str, otherwise: u64) -> u64 {
    root.int(path).and_then(|v| u64::try_from(v).ok()).unwrap_or(otherwise)
}

fn memory(root: &Node<'_>) -> Memory {
    Memory {
        startup_mib: quantity(root, "settings/memory/bank/size", 1024),
        dynamic: root.bool("settings/memory/bank/dynamic_memory_enabled").unwrap_or(false),
        minimum_mib: quantity(root, "settings/memory/bank/reservation", 0),
        maximum_mib: quantity(root, "settings/memory/bank/limit", 0),
    }
}

fn firmware(bios: Option<&Node<'_>>, generation: Generation) -> Firmware {
    let text = |key: &str| bios.and_then(|b| b.word(key)).filter(|t| !t.is_empty());
    let boot_order = bios
        .and_then(|b| b.node("boot"))
        .map(|boot| {
            (0..16)
                .map_while(|n| boot.text(&format!("device{n}")))
                .filter_map(|d| d.parse::<BootDevice>().ok())
                .collect()
        })
        .unwrap_or_default();
    Firmware {
        secure_boot: generation == Generation::Two
            && bios.and_then(|b| b.bool("secure_boot_enabled")).unwrap_or(false),
        secure_boot_template: text("secure_boot_template_id"),
        boot_order,
        bios_id: text("bios_guid").and_then(|t| guid(&t)),
        serial_number: text("bios_serial_number"),
    }
}

/// The TPM device stands in every generation 2 manifest; whether the guest has one is a switch of its own.
fn tpm_enabled(root: &Node<'_>) -> bool {
    let node = device::node(device::TPM);
    ["Enabled", "enabled", "TpmEnabled"]
        .iter()
        .any(|key| root.bool(&format!("{node}/{key}")).unwrap_or(false))
        || root.bool("settings/security/tpm_enabled").unwrap_or(false)
}

fn automatic(root: &Node<'_>) -> Automatic {
    Automatic {
        start: match root.int("global_settings/power/host_startup/action") {
            Some(0) => AutomaticStart::Nothing,
            Some(2) => AutomaticStart::Always,
            _ => AutomaticStart::Restart,
        },
        start_delay_seconds: root
            .int("global_settings/power/host_startup/delay")
            .and_then(|v| u32::try_from(v).ok())
            .unwrap_or(0),
        stop: match root.int("global_settings/power/host_shutdown/action") {
            Some(0) => AutomaticStop::TurnOff,
            Some(2) => AutomaticStop::Shutdown,
            _ => AutomaticStop::Save,
        },
    }
}

/// Device instances of the manifest: instance id to type id and name.
fn manifest(root: &Node<'_>) -> BTreeMap<Uuid, (Uuid, String)> {
    let Some(node) = root.node("manifest") else { return BTreeMap::new() };
    node.numbered("vdev")
        .into_iter()
        .filter_map(|(_, dev)| {
            let kind = guid(&dev.text("device")?)?;
            let instance = guid(&dev.text("instance")?)?;
            Some((instance, (kind, dev.word("name").unwrap_or_default())))
        })
        .collect()
}

/// The device's type: what the manifest says, else what the instance id itself is (fixed instances).
fn kind_of(instance: Uuid, manifest: &BTreeMap<Uuid, (Uuid, String)>) -> Uuid {
    manifest.get(&instance).map_or(instance, |(kind, _)| *kind)
}

fn controllers(
    root: &Node<'_>,
    manifest: &BTreeMap<Uuid, (Uuid, String)>,
    drives: &mut Vec<ConfiguredDrive>,
) -> Result<Vec<Controller>, ReadError> {
    let mut found = Vec::new();
    for entry in root.0 {
        let (Some(instance), Value::Node(children)) = (device::instance(&entry.name), &entry.value) else {
            continue;
        };
        let kind = match kind_of(instance, manifest) {
            device::IDE => ControllerKind::Ide,
            device::SCSI => ControllerKind::Scsi,
            device::FLOPPY => ControllerKind::Floppy,
            _ => continue,
        };
        for (number, controller) in Node(children).numbered("controller") {
            let mut plugged = Vec::new();
            for (slot, drive) in controller.numbered("drive") {
                let media = drive.word("type").unwrap_or_default();
                let path = drive.text("pathname").unwrap_or_default();
                let key = format!("configuration/{}/controller{number}/drive{slot}", entry.name);
                if path.len() > MAX_PATH && path.chars().count() > MAX_PATH {
                    return Err(ReadError::LongPath { key, length: path.chars().count() });
                }
                let mut disk = None;
                let media_of = match media.as_str() {
                    "NONE" | "" => continue,
                    "VHD" => {
                        let id = Uuid::new_v4();
                        disk = Some(id);
                        Media::Disk { disk: id }
                    }
                    "ISO" => Media::Dvd { image: None },
                    other => Media::Other { kind: other.to_owned() },
                };
                plugged.push(Drive { slot, media: media_of });
                if !path.is_empty() || disk.is_some() {
                    drives.push(ConfiguredDrive {
                        key,
                        kind,
                        controller: instance,
                        number,
                        slot,
                        disk,
                        media,
                        path,
                        file: None,
                    });
                }
                if plugged.len() > MAX_DRIVES {
                    return Err(ReadError::TooMany { what: "drives of one controller", limit: MAX_DRIVES });
                }
            }
            found.push(Controller { kind, instance, number, drives: plugged });
            if found.len() > MAX_CONTROLLERS {
                return Err(ReadError::TooMany { what: "storage controllers", limit: MAX_CONTROLLERS });
            }
        }
    }
    found.sort_by_key(|c| match c.kind {
        ControllerKind::Ide => 0,
        ControllerKind::Scsi => 1,
        ControllerKind::Floppy => 2,
    });
    Ok(found)
}

fn adapters(
    root: &Node<'_>,
    manifest: &BTreeMap<Uuid, (Uuid, String)>,
    vlan_unread: &mut Vec<Uuid>,
) -> Result<Vec<Adapter>, ReadError> {
    let mut found = Vec::new();
    for entry in root.0 {
        let (Some(instance), Value::Node(children)) = (device::instance(&entry.name), &entry.value) else {
            continue;
        };
        let node = Node(children);
        let kind = kind_of(instance, manifest);
        // The emulated adapter's type id is not public and a hand-made template may lack the manifest: any device with
        // a MAC address is an adapter.
        if node.text("MacAddress").is_none() {
            continue;
        }
        let legacy = kind != device::ADAPTER
            && manifest
                .get(&instance)
                .is_some_and(|(_, name)| name.to_ascii_lowercase().contains("emulated"));
        let connected = node.bool("IsConnected").unwrap_or(false);
        let source_switch = node
            .word("Connection/AltSwitchName")
            .filter(|n| !n.is_empty())
            .or_else(|| node.word("SwitchName").filter(|n| !n.is_empty()));
        if node.node(&format!("Connection/Feature_{VLAN_FEATURE}")).is_some() {
            vlan_unread.push(instance);
        }
        found.push(Adapter {
            instance,
            name: node
                .word("FriendlyName")
                .filter(|n| !n.is_empty())
                .unwrap_or_else(|| "Network Adapter".to_owned()),
            mac: node
                .text("MacAddress")
                .and_then(|t| t.parse().ok())
                .filter(|m: &crate::settings::Mac| m.0 != [0; 6]),
            mac_static: node.bool("MacAddressIsStatic").unwrap_or(false),
            switch: None,
            source_switch: if connected { source_switch } else { None },
            port: node.word("Connection/AltPortName").filter(|n| !n.is_empty() && n != super::PORT_NAME),
            vlan: None,
            legacy,
        });
        if found.len() > MAX_ADAPTERS {
            return Err(ReadError::TooMany { what: "network adapters", limit: MAX_ADAPTERS });
        }
    }
    Ok(found)
}

/// Words in a manifest's device names that stand for hardware a guest may use and that is not made here. The names are
/// used because only some of the type ids are public.
const UNAVAILABLE: &[&str] = &["fibre channel", "remotefx", "gpu", "pci express", "flexio", "virtual pci"];

fn unavailable(manifest: &BTreeMap<Uuid, (Uuid, String)>) -> Vec<(Uuid, String)> {
    manifest
        .values()
        .filter(|(_, name)| {
            let name = name.to_ascii_lowercase();
            UNAVAILABLE.iter().any(|word| name.contains(word))
        })
        .cloned()
        .collect()
}
