//! Planned machines and their reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use machine::import::PlannedView;
use machine::planned::{self, ImportMode, ImportRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::machine::parse_option;

/// What to import, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Package directory or configuration file on the host.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Leave the disks where they are, read-only, under overlays.
    #[serde(default)]
    pub register: bool,
    /// Only report; keep nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Everything that can be edited later too.
    #[serde(default)]
    pub options: PlannedEdit,
    /// Read disks whose checksums are wrong.
    #[serde(default)]
    pub lenient: bool,
}

/// Choices of an import; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedEdit {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_id: Option<bool>,
    /// This id. An import with an id can be asked for again when its answer got lost: there will be one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Directory for the disks of a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub to: Option<PathBuf>,
    /// Directories where disks that moved may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub disk_dirs: Vec<PathBuf>,
    /// Switch names of the package, and where they lead here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub switches: BTreeMap<String, SwitchTarget>,
    /// Plug no adapter in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnected: Option<bool>,
    /// Leave checkpoints behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_snapshots: Option<bool>,
    /// Discard saved state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_saved_state: Option<bool>,
    /// Virtual processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// `compat` or `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// A disk bus for all disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bus: Option<String>,
    /// A model for all adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_model: Option<String>,
}

/// Where a switch name leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchTarget {
    /// A switch or bridge here.
    pub target: String,
    /// Access VLAN.
    #[serde(default)]
    pub vlan: Option<u16>,
}

/// A planned machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Planned {
    /// The id the machine will have.
    pub id: Uuid,
    /// The id in the package.
    pub source_id: Uuid,
    /// Name.
    pub name: String,
    /// 1 or 2.
    pub generation: u8,
    /// Virtual processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// `ready`, `fixable` or `blocked`.
    pub verdict: String,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// Disks.
    pub disks: Vec<PlannedDisk>,
    /// The package.
    #[schema(value_type = String)]
    pub source: PathBuf,
    /// `copy` or `register`.
    pub mode: String,
    /// When it was imported.
    pub created: String,
}

/// Planned machines, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedList {
    /// The planned machines.
    pub planned: Vec<Planned>,
}

/// A disk of a planned machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedDisk {
    /// The name it will have.
    pub name: String,
    /// Path in the configuration.
    pub source_path: String,
    /// File found for it.
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// Bytes.
    pub virtual_size: u64,
    /// Bytes that a copy takes.
    pub data_bytes: u64,
    /// Format.
    pub format: String,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Stable id.
    pub id: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// The setting concerned.
    pub setting: String,
    /// One sentence.
    pub message: String,
    /// The option that resolves it.
    pub fix: Option<String>,
    /// Hyper-V's message id for the same.
    pub hyperv_id: Option<u32>,
}

impl From<machine::finding::Finding> for Finding {
    fn from(f: machine::finding::Finding) -> Self {
        let severity = match f.severity {
            machine::finding::Severity::Info => "info",
            machine::finding::Severity::Warning => "warning",
            machine::finding::Severity::Error => "error",
        };
        Self {
            id: f.id,
            severity: severity.to_owned(),
            setting: f.setting,
            message: f.message,
            fix: f.fix,
            hyperv_id: f.hyperv_id,
        }
    }
}

impl From<PlannedView> for Planned {
    fn from(view: PlannedView) -> Self {
        let r = view.record;
        Self {
            id: r.id,
            source_id: r.source_id,
            name: r.settings.name,
            generation: r.settings.generation.number(),
            processors: r.settings.processors.count,
            memory_mib: r.settings.memory.startup_mib,
            verdict: view.verdict.as_str().to_owned(),
            findings: r.findings.into_iter().map(Finding::from).collect(),
            disks: r
                .disks
                .into_iter()
                .map(|d| PlannedDisk {
                    name: d.name,
                    source_path: d.source_path,
                    file: d.file,
                    virtual_size: d.virtual_size,
                    data_bytes: d.data_bytes,
                    format: d.format.extension().to_owned(),
                })
                .collect(),
            source: r.origin.source,
            mode: match r.request.mode {
                ImportMode::Copy => "copy",
                ImportMode::Register => "register",
            }
            .to_owned(),
            created: r.created.to_string(),
        }
    }
}

impl TryFrom<PlannedEdit> for planned::PlannedEdit {
    type Error = String;

    fn try_from(e: PlannedEdit) -> Result<Self, String> {
        let switches = e
            .switches
            .into_iter()
            .map(|(source, t)| (source, machine::switch::SwitchTarget { target: t.target, vlan: t.vlan }))
            .collect();
        Ok(Self {
            name: e.name,
            processors: e.processors,
            memory_mib: e.memory_mib,
            switches,
            disconnected: e.disconnected,
            disk_dirs: e.disk_dirs,
            without_snapshots: e.without_snapshots,
            discard_saved_state: e.discard_saved_state,
            new_id: e.new_id,
            id: e.id,
            profile: parse_option("hardware", e.hardware.as_deref())?,
            disk_bus: parse_option("disk bus", e.disk_bus.as_deref())?,
            nic_model: parse_option("adapter model", e.nic_model.as_deref())?,
            to: e.to,
            parts: planned::Parts::default(),
        })
    }
}

impl TryFrom<Import> for ImportRequest {
    type Error = String;

    fn try_from(i: Import) -> Result<Self, String> {
        let mut request = Self {
            path: i.path,
            mode: if i.register { ImportMode::Register } else { ImportMode::Copy },
            lenient: i.lenient,
            ..Self::default()
        };
        planned::PlannedEdit::try_from(i.options)?.apply(&mut request);
        Ok(request)
    }
}
