//! What the store holds of machines: versioned documents, and how they are read and written.
//!
//! A record is at most 64 KiB of JSON (the store's limit). Anything larger (configuration trees, guest state files) is a
//! content-addressed file, see [`crate::blob`]. Unknown fields survive a rewrite.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{Condition, Operation, Outcome, Store, Txn, Versioned};
use uuid::Uuid;

use crate::blob::BlobId;
use crate::error::{Error, Reason, Result};
use crate::finding::Finding;
use crate::planned::PlannedDisk;
use crate::settings::Settings;
use crate::switch::SwitchRecord;

/// Prefix of machine records.
pub const MACHINES: &str = "machine/";
/// Prefix of planned machine records.
pub const PLANNED: &str = "planned/";
/// Prefix of planned machines that were realized, kept as long as the machine.
pub const REALIZED: &str = "realized/";
/// Prefix of disk records.
pub const DISKS: &str = "disk/";
/// Prefix of switch records.
pub const SWITCHES: &str = "switch/";

/// The key of a machine's record.
pub(crate) fn machine_key(id: Uuid) -> String {
    format!("{MACHINES}{id}")
}

/// A machine. Stored under `machine/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Version of this record's shape; 1.
    pub version: u32,
    /// The machine's id, which is Hyper-V's too.
    pub id: Uuid,
    /// Its settings.
    pub settings: Settings,
    /// When it was defined or realized here.
    pub created: Timestamp,
    /// Directory of its own files.
    pub home: PathBuf,
    /// Where it came from, when it came in a package.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Hardware versions fixed at first start.
    #[serde(default)]
    pub resolved: Option<Resolved>,
    /// How often a guest was started: part of the identity of what a disk holds.
    #[serde(default)]
    pub run_generation: u64,
    /// Somebody wants it running; the automatic start action reads it.
    #[serde(default)]
    pub wanted_running: bool,
    /// The boot of the host in which it was last turned off, by somebody or from within.
    #[serde(default)]
    pub turned_off_in: Option<String>,
    /// The job that last changed it: one that dies just then knows that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<Uuid>,
    /// Its guest's memory, when it is saved.
    #[serde(default)]
    pub saved: Option<crate::saved::Saved>,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What a machine brought along from a package and takes back out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The configuration file's bytes, as they came.
    pub configuration: BlobId,
    /// Its form: `container` or `xml`.
    pub form: String,
    /// The runtime state file's bytes (VMRS), when there was one without saved state.
    #[serde(default)]
    pub runtime_state: Option<BlobId>,
    /// The guest state file's bytes (VMGS).
    #[serde(default)]
    pub guest_state: Option<BlobId>,
    /// The package.
    pub source: PathBuf,
}

/// Versions resolved by the engine at first start and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Versioned machine type.
    pub machine_version: String,
    /// CPU model.
    pub cpu_model: String,
}

/// A planned machine: imported, not yet realized. Stored under `planned/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedRecord {
    /// Version of this record's shape; 1.
    pub version: u32,
    /// The id the machine will have.
    pub id: Uuid,
    /// The id in the package.
    pub source_id: Uuid,
    /// Settings, as edited.
    pub settings: Settings,
    /// Its disks and where their content is.
    pub disks: Vec<PlannedDisk>,
    /// What it brings along.
    pub origin: Origin,
    /// Its memory, when it comes in saved.
    #[serde(default)]
    pub state: Option<crate::planned::PlannedState>,
    /// Switches that come with it.
    #[serde(default)]
    pub new_switches: Vec<SwitchRecord>,
    /// How it was asked for.
    pub request: crate::planned::ImportRequest,
    /// The last report.
    pub findings: Vec<Finding>,
    /// When it was imported.
    pub created: Timestamp,
    /// The job that realizes it, while one does.
    #[serde(default)]
    pub job: Option<Uuid>,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Most records read of one kind in one go; more are paged.
const PAGE: usize = 500;

/// Reads the record under `key`.
pub fn get<T: DeserializeOwned>(store: &dyn Store, key: &str) -> Result<Option<(T, u64)>> {
    match store.get(key).map_err(failed)? {
        Some(v) => Ok(Some((decode(&v)?, v.revision))),
        None => Ok(None),
    }
}

/// Every record under `prefix`.
pub fn list<T: DeserializeOwned>(store: &dyn Store, prefix: &str) -> Result<Vec<T>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.range(prefix, after.as_deref(), PAGE).map_err(failed)?;
        let full = page.len() == PAGE;
        after = page.last().map(|v| v.key.clone());
        for v in &page {
            found.push(decode(v)?);
        }
        if !full {
            return Ok(found);
        }
    }
}

fn decode<T: DeserializeOwned>(v: &Versioned) -> Result<T> {
    serde_json::from_slice(&v.value)
        .map_err(|e| Error::new(Reason::Store, format!("record `{}` cannot be read", v.key)).caused_by(e))
}

/// A write of `record` under `key`.
pub fn put<T: Serialize>(key: String, record: &T) -> Result<Operation> {
    let bytes = serde_json::to_vec(record)
        .map_err(|e| Error::new(Reason::Store, format!("record `{key}` cannot be written")).caused_by(e))?;
    Ok(Operation::Put(key, bytes))
}

/// Runs `operations` if `conditions` hold; whether they did.
pub fn commit(store: &dyn Store, conditions: Vec<Condition>, operations: Vec<Operation>) -> Result<bool> {
    match store.txn(&Txn { conditions, operations }).map_err(failed)? {
        Outcome::Committed { .. } => Ok(true),
        Outcome::Conflict { .. } => Ok(false),
    }
}

/// The domain's error for a failure of the store.
pub fn failed(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    if has_kind(&e, store::ErrorKind::TooLarge) {
        return Error::new(Reason::InvalidArgument, "it is more than one record of the store can hold")
            .hint("shorten its names, notes, or lists")
            .caused_by(e);
    }
    if has_kind(&e, store::ErrorKind::Full) {
        return Error::new(Reason::NoSpace, "the store cannot grow")
            .hint("free some space in the file system of the data directory, and try again")
            .caused_by(e);
    }
    Error::new(Reason::Store, "the store failed")
        .hint("the daemon's log says more; restarting it opens the store anew")
        .caused_by(e)
}

fn has_kind(e: &(dyn std::error::Error + 'static), kind: store::ErrorKind) -> bool {
    let mut at = Some(e);
    while let Some(e) = at {
        if e.downcast_ref::<store::Error>().is_some_and(|e| e.kind() == kind) {
            return true;
        }
        at = e.source();
    }
    false
}
