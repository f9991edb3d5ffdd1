//! Planned machines: a package read, its machine described, nothing yet made of it.
//!
//! These are the words of an import: what was asked ([`ImportRequest`]), where each disk's content is
//! ([`PlannedDisk`]), and what may be edited before the machine is realized. Making a plan is [`crate::import`]'s part.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::DiskFormat;
use crate::settings::{Automatic, Profile};
use crate::switch::SwitchTarget;

/// How a package's disks become the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Their content is copied; the package is not needed afterwards.
    #[default]
    Copy,
    /// They stay where they are, read-only, under an overlay of ours. Nothing in the package is ever written.
    Register,
}

/// What an import was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Package directory or configuration file.
    pub path: PathBuf,
    /// What happens to the disks.
    #[serde(default)]
    pub mode: ImportMode,
    /// Directory for the disks of a copy; `None` is the machine's own.
    #[serde(default)]
    pub to: Option<PathBuf>,
    /// Give the machine a new id.
    #[serde(default)]
    pub new_id: bool,
    /// Give the machine this id. Whoever chooses it can ask again after an answer that got lost: there is one machine.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// Give the machine another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Directories outside the package where disks that moved may be.
    #[serde(default)]
    pub disk_dirs: Vec<PathBuf>,
    /// Switch names of the package and where they lead here.
    #[serde(default)]
    pub switches: BTreeMap<String, SwitchTarget>,
    /// Plug no adapter into any switch.
    #[serde(default)]
    pub disconnected: bool,
    /// Leave checkpoints behind.
    #[serde(default)]
    pub without_snapshots: bool,
    /// Discard saved memory: Hyper-V's, or ours.
    #[serde(default)]
    pub discard_saved_state: bool,
    /// Another number of processors.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Another amount of memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// A family of virtual hardware.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// A disk bus for all disks.
    #[serde(default)]
    pub disk_bus: Option<engine::DiskBus>,
    /// A model for all adapters.
    #[serde(default)]
    pub nic_model: Option<engine::NicModel>,
    /// Read disks whose checksums are wrong.
    #[serde(default)]
    pub lenient: bool,
    /// What was said of single parts.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub parts: Parts,
    /// The files that single disks of a copy become, by their path in the configuration. The ending is ours to choose.
    #[serde(default)]
    pub disk_targets: BTreeMap<String, PathBuf>,
    /// Directory in which the machine's own directory is made; `None` is the host's.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// A machine in one go: nobody sees a planned one, and none is left when it fails.
    #[serde(default)]
    pub at_once: bool,
    /// The package becomes the machine's, once: an `.exp` in it is called `.xml` from then on, as a Hyper-V of 2008 does.
    #[serde(default)]
    pub adopt: bool,
}

/// What is said of single parts of a planned machine, by where they are in its configuration. It outweighs what holds for
/// all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Other notes.
    #[serde(default)]
    pub notes: Option<String>,
    /// Other automatic actions.
    #[serde(default)]
    pub automatic: Option<Automatic>,
    /// Secure Boot, on or off.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// What drives hold instead. A place that the configuration does not have is refused.
    #[serde(default)]
    pub drives: Vec<DriveChange>,
    /// Where adapters lead instead, or that they go.
    #[serde(default)]
    pub adapters: Vec<AdapterChange>,
}

/// What a drive of a planned machine holds instead of what its configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveChange {
    /// The controller's device instance id.
    pub controller: Uuid,
    /// Its number among those of that id.
    pub number: u32,
    /// The slot.
    pub slot: u32,
    /// What it is about.
    pub holds: Holds,
}

/// What a drive of a planned machine holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// This file, wherever the configuration says that it is.
    File(PathBuf),
    /// Nothing; the drive stays.
    Nothing,
    /// The drive itself goes.
    Gone,
}

/// What becomes of one adapter of a planned machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterChange {
    /// Its device instance id.
    pub instance: Uuid,
    /// What becomes of it.
    pub becomes: Plug,
}

/// Where an adapter leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plug {
    /// Into a switch of this host, or a bridge that becomes one.
    Into(SwitchTarget),
    /// Nowhere.
    Out,
    /// The adapter itself goes.
    Gone,
}

/// Most changes of single parts that are kept of one plan.
pub const MAX_CHANGES: usize = 256;

impl Parts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what `later` says; of each part the last word counts.
    fn take(&mut self, later: &Self) {
        over(&mut self.notes, &later.notes);
        over(&mut self.automatic, &later.automatic);
        over(&mut self.secure_boot, &later.secure_boot);
        for change in &later.drives {
            self.drives.retain(|c| {
                (c.controller, c.number, c.slot) != (change.controller, change.number, change.slot)
            });
            self.drives.push(change.clone());
        }
        for change in &later.adapters {
            self.adapters.retain(|c| c.instance != change.instance);
            self.adapters.push(change.clone());
        }
    }

    /// What becomes of the adapter `instance`, where something was said of it.
    #[must_use]
    pub fn adapter(&self, instance: Uuid) -> Option<&Plug> {
        self.adapters.iter().find(|change| change.instance == instance).map(|change| &change.becomes)
    }

    /// Every file that it names.
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.drives.iter_mut().filter_map(|change| match &mut change.holds {
            Holds::File(path) => Some(path),
            Holds::Nothing | Holds::Gone => None,
        })
    }
}

fn over<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
    if from.is_some() {
        into.clone_from(from);
    }
}

/// A disk of a planned machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDisk {
    /// The id its record will have.
    pub id: Uuid,
    /// Path in the configuration.
    pub source_path: String,
    /// File name it goes by: the base's name when a checkpoint's chain is flattened.
    pub name: String,
    /// The file found for it; `None` when it is missing.
    pub file: Option<PathBuf>,
    /// Every file of its chain, leaf first.
    #[serde(default)]
    pub chain: Vec<PathBuf>,
    /// Size in bytes; 0 while it cannot be read.
    #[serde(default)]
    pub virtual_size: u64,
    /// Bytes that hold data, from metadata: what a copy needs.
    #[serde(default)]
    pub data_bytes: u64,
    /// Format it came in.
    pub format: DiskFormat,
    /// Block size in bytes; 0 where the format has none.
    #[serde(default)]
    pub block_size: u32,
    /// Fixed in its format.
    #[serde(default)]
    pub fixed: bool,
    /// Logical sector size in bytes.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// Virtual disk id.
    #[serde(default)]
    pub virtual_disk_id: Uuid,
    /// Serial number that a saved memory knows it by.
    #[serde(default)]
    pub serial: Option<String>,
    /// Boot loaders found on it, to be entered into new UEFI variables.
    #[serde(default)]
    pub boot_entries: Vec<PlannedBootEntry>,
}

/// The memory of a saved machine, which the package brings along and which fits here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedState {
    /// The file in the package.
    pub file: PathBuf,
    /// Its bytes, holes included.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: String,
    /// When it was saved.
    pub when: jiff::Timestamp,
    /// What it takes to go on with it.
    pub needs: crate::saved::Needs,
}

/// A boot entry that new UEFI variables get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBootEntry {
    /// What the firmware's menu shows.
    pub description: String,
    /// Partition number, from 1.
    pub partition: u32,
    /// First sector.
    pub start_sector: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// GPT partition id, if the table is GPT.
    #[serde(default)]
    pub partition_id: Option<Uuid>,
    /// MBR disk signature, if the table is MBR.
    #[serde(default)]
    pub mbr_signature: Option<u32>,
    /// `\EFI\debian\shimx64.efi`.
    pub loader: String,
}

/// An edit of a planned machine; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedEdit {
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Another number of processors.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Another amount of memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Further switch mappings.
    #[serde(default)]
    pub switches: BTreeMap<String, SwitchTarget>,
    /// Plug no adapter in.
    #[serde(default)]
    pub disconnected: Option<bool>,
    /// Further directories for disks.
    #[serde(default)]
    pub disk_dirs: Vec<PathBuf>,
    /// Leave checkpoints behind.
    #[serde(default)]
    pub without_snapshots: Option<bool>,
    /// Discard saved state.
    #[serde(default)]
    pub discard_saved_state: Option<bool>,
    /// Give it a new id.
    #[serde(default)]
    pub new_id: Option<bool>,
    /// Give it this id.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// A family of virtual hardware.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// A disk bus for all disks.
    #[serde(default)]
    pub disk_bus: Option<engine::DiskBus>,
    /// A model for all adapters.
    #[serde(default)]
    pub nic_model: Option<engine::NicModel>,
    /// Directory for the disks of a copy.
    #[serde(default)]
    pub to: Option<PathBuf>,
    /// What is said of single parts.
    #[serde(default)]
    pub parts: Parts,
}

impl PlannedEdit {
    /// Writes the edit into the request it refines, from which the plan is made anew.
    pub fn apply(&self, request: &mut ImportRequest) {
        request.parts.take(&self.parts);
        over(&mut request.name, &self.name);
        over(&mut request.processors, &self.processors);
        over(&mut request.memory_mib, &self.memory_mib);
        over(&mut request.profile, &self.profile);
        over(&mut request.disk_bus, &self.disk_bus);
        over(&mut request.nic_model, &self.nic_model);
        over(&mut request.to, &self.to);
        over(&mut request.id, &self.id);
        if self.new_id == Some(true) {
            request.id = self.id;
        }
        request.switches.extend(self.switches.clone());
        request.disk_dirs.extend(self.disk_dirs.iter().cloned());
        for (flag, edit) in [
            (&mut request.disconnected, self.disconnected),
            (&mut request.without_snapshots, self.without_snapshots),
            (&mut request.discard_saved_state, self.discard_saved_state),
            (&mut request.new_id, self.new_id),
        ] {
            if let Some(value) = edit {
                *flag = value;
            }
        }
    }
}
