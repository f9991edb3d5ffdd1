//! A job in the store: what is written under which key, and in what order.
//!
//! ```text
//! job/<id>/meta              what was submitted; written once
//! job/<id>/event/<00000000>  the log; each written once, on condition that it is absent
//! job/<id>/checkpoint        the last durable progress and resume state; overwritten, may be missing
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{MAX_OPERATIONS, MAX_VALUE, Outcome, Store, Txn, Versioned};

use crate::clock::Clock;
use crate::fold::{Event, Fold, Illegal};
use crate::progress::Progress;
use crate::{Failure, JobId, MAX_STEPS, ids};

/// Prefix of all keys of this crate.
pub(crate) const PREFIX: &str = "job/";
/// Version of the documents below. A document of a later one is not read.
pub(crate) const FORMAT: u32 = 1;

/// What was submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) kind: String,
    pub(crate) version: u32,
    /// Names of the steps: the indices in events mean these.
    pub(crate) steps: Vec<String>,
    pub(crate) params: Value,
    pub(crate) subject: Option<String>,
    pub(crate) owner: String,
    pub(crate) submitted: Timestamp,
}

/// Progress and resume state of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) step: usize,
    pub(crate) progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resume: Option<Value>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    at: Timestamp,
    #[serde(flatten)]
    event: Event,
}

/// Why an event could not be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error("the event has {0} bytes; at most {MAX_VALUE} fit")]
    TooLarge(usize),
    #[error("another engine writes to the journal of this job")]
    NotAlone,
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the event cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Why a job in the store cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{key} cannot be read")]
    Json { key: String, source: serde_json::Error },
    #[error("{key} has format {found}, this program knows up to {FORMAT}")]
    Newer { key: String, found: u32 },
    #[error("{key} is not what comes next; event {wanted} is missing")]
    Gap { key: String, wanted: u64 },
    #[error("{key} lists {count} steps; 1 to {MAX_STEPS} are allowed")]
    Steps { key: String, count: usize },
    #[error("{key} is not a key of a job")]
    Key { key: String },
    #[error("{key} does not fit")]
    Illegal { key: String, source: Illegal },
}

/// The log of one job, in memory and in the store.
pub(crate) struct Journal {
    pub(crate) id: JobId,
    pub(crate) meta: Arc<Meta>,
    pub(crate) fold: Fold,
    /// The store's revision that wrote the metadata: orders jobs by when they were accepted.
    pub(crate) accepted: u64,
    next: u64,
}

/// Cuts the keys of one job into a [`Journal`]. `entries` are all keys of the job, in order.
pub(crate) fn load(id: JobId, entries: &[Versioned]) -> Result<Option<(Journal, Checkpoint)>, LoadError> {
    let root = key(id);
    let find = |name: &str| entries.iter().find(|entry| entry.key.strip_prefix(&root) == Some(name));
    // Events without metadata are the rest of a removal that was interrupted.
    let Some(meta) = find("meta") else { return Ok(None) };
    let read = |source| LoadError::Json { key: meta.key.clone(), source };
    // The format first: a later one may not have the fields below.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&meta.value).map_err(read)?;
    if format > FORMAT {
        return Err(LoadError::Newer { key: meta.key.clone(), found: format });
    }
    let (key_of_meta, accepted) = (meta.key.clone(), meta.revision);
    let meta: Meta = serde_json::from_slice(&meta.value).map_err(read)?;
    if meta.steps.is_empty() || meta.steps.len() > MAX_STEPS {
        return Err(LoadError::Steps { key: key_of_meta, count: meta.steps.len() });
    }
    // A checkpoint that cannot be read costs time, not the job.
    let checkpoint = find("checkpoint").and_then(|entry| serde_json::from_slice(&entry.value).ok());
    let mut fold = Fold::new(meta.steps.len());
    let mut next = 0;
    for entry in entries {
        let Some(number) = entry.key.strip_prefix(&root).and_then(|rest| rest.strip_prefix("event/")) else {
            continue;
        };
        let key = || entry.key.clone();
        if number != event_number(next) {
            return Err(LoadError::Gap { key: key(), wanted: next });
        }
        let record: Record =
            serde_json::from_slice(&entry.value).map_err(|source| LoadError::Json { key: key(), source })?;
        fold.apply(record.at, &record.event).map_err(|source| LoadError::Illegal { key: key(), source })?;
        next += 1;
    }
    let journal = Journal { id, meta: Arc::new(meta), fold, accepted, next };
    Ok(Some((journal, checkpoint.unwrap_or_default())))
}

/// The id in a key such as `job/<id>/meta`.
pub(crate) fn id_of(key: &str) -> Result<JobId, LoadError> {
    key.strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('/'))
        .and_then(|(id, _)| id.parse().ok())
        .ok_or_else(|| LoadError::Key { key: key.to_owned() })
}

/// `job/<id>/`.
pub(crate) fn key(id: JobId) -> String {
    format!("{PREFIX}{id}/")
}

/// Eight digits sort as numbers; a job has at most a few hundred events.
fn event_number(number: u64) -> String {
    format!("{number:08}")
}

impl Journal {
    /// Writes a new job. The store's error leaves open whether it exists.
    pub(crate) fn create(store: &dyn Store, id: JobId, meta: Meta) -> Result<Journal, AppendError> {
        let document = serde_json::to_vec(&meta)?;
        if document.len() > MAX_VALUE {
            return Err(AppendError::TooLarge(document.len()));
        }
        let key = format!("{}meta", key(id));
        match store.txn(&Txn::new().absent(&key).put(&key, document))? {
            Outcome::Committed { revision: accepted } => {
                let fold = Fold::new(meta.steps.len());
                Ok(Journal { id, meta: Arc::new(meta), fold, accepted, next: 0 })
            }
            Outcome::Conflict { .. } => Err(AppendError::NotAlone),
        }
    }

    /// Adds one event: checked against the fold, made durable, then folded. After an error from the store the journal
    /// in memory may be behind the one in the store and must be read again.
    pub(crate) fn append(
        &mut self,
        store: &dyn Store,
        clock: &dyn Clock,
        event: Event,
    ) -> Result<(), AppendError> {
        let at = clock.now();
        let mut fold = self.fold.clone();
        fold.apply(at, &event)?;
        let document = serde_json::to_vec(&Record { at, event })?;
        if document.len() > MAX_VALUE {
            return Err(AppendError::TooLarge(document.len()));
        }
        let root = key(self.id);
        let event_key = format!("{root}event/{}", event_number(self.next));
        let txn = Txn::new().exists(format!("{root}meta")).absent(&event_key).put(&event_key, document);
        match store.txn(&txn)? {
            Outcome::Committed { .. } => {
                self.fold = fold;
                self.next += 1;
                Ok(())
            }
            Outcome::Conflict { .. } => Err(AppendError::NotAlone),
        }
    }
}

/// Overwrites the checkpoint of a job.
pub(crate) fn write_checkpoint(store: &dyn Store, id: JobId, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::from_error(ids::STORE_FAILED, error);
    let document = serde_json::to_vec(checkpoint).map_err(|error| failed(&error))?;
    let root = key(id);
    // Only for a job that exists: it must not come back as a lone checkpoint after it was pruned.
    let txn = Txn::new().exists(format!("{root}meta")).put(format!("{root}checkpoint"), document);
    match store.txn(&txn).map_err(|error| failed(&error))? {
        Outcome::Committed { .. } => Ok(()),
        Outcome::Conflict { .. } => Err(Failure::new(ids::STORE_FAILED, "the job is no longer in the store")),
    }
}

/// Removes a job, the metadata in the first transaction: a rest left by a crash is then known as such.
pub(crate) fn remove(store: &dyn Store, id: JobId) -> Result<(), store::Error> {
    let root = key(id);
    let mut keys = vec![format!("{root}meta")];
    for entry in store::scan(store, &root) {
        keys.push(entry?.key);
    }
    keys.dedup();
    let meta = keys[0].clone();
    let (mut first, mut rest): (Vec<_>, Vec<_>) = (vec![meta.clone()], Vec::new());
    for key in keys.into_iter().filter(|key| *key != meta) {
        if first.len() < MAX_OPERATIONS { first.push(key) } else { rest.push(key) }
    }
    for chunk in std::iter::once(first.as_slice()).chain(rest.chunks(MAX_OPERATIONS)) {
        let txn = chunk.iter().fold(Txn::new(), Txn::delete);
        let _ = store.txn(&txn)?;
    }
    Ok(())
}
