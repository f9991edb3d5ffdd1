//! When each machine was last exported well: kept beside its record, so that a backup that stopped is noticed months
//! after its last job was pruned.
//!
//! An export counts when it holds the whole machine: with storage, and with no disk left out. It is noted when the package
//! is complete, in the export's own step:
//!
//! | if we die | then |
//! |---|---|
//! | before the package is renamed into place | nothing is noted; the step goes on with it |
//! | between the rename and the note | the step runs again, finds its package complete, and notes it |
//! | after the note, before the step is on record | the step runs again and notes the same |
//! | while a cancelled export is withdrawn | the withdrawal runs again; the note of before is back once |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::export::ExportRequest;
use crate::host::Host;
use crate::record;

/// Prefix of the notes, by machine.
const EXPORTED: &str = "exported/";
/// How often a change is tried anew when others change the note at the same time.
const MAX_ATTEMPTS: u32 = 16;

/// A machine's last good export. Stored under `exported/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The machine.
    pub(crate) machine: Uuid,
    /// The last one.
    pub(crate) last: Option<Good>,
    /// The one before it: what counts again when the last one is withdrawn.
    before: Option<Good>,
}

/// One good export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Good {
    /// When its package was complete.
    pub(crate) at: Timestamp,
    /// The job that made it.
    job: Uuid,
}

/// The key of a machine's note.
pub(crate) fn exported_key(machine: Uuid) -> String {
    format!("{EXPORTED}{machine}")
}

/// Whether an export so asked for holds the whole machine.
pub(crate) fn is_whole(request: &ExportRequest) -> bool {
    request.storage && request.saved_state && request.excluded_disks.is_empty()
}

impl Host {
    /// Notes that `job` has exported `machine` well.
    pub(crate) fn note_export(&self, machine: Uuid, job: Uuid) -> Result<()> {
        let now = self.now();
        self.change_note(machine, |note| {
            if note.last.is_none_or(|last| last.job != job) {
                note.before = note.last.replace(Good { at: now, job });
            }
        })
    }

    /// Takes back what `job` noted, if it did.
    pub(crate) fn withdraw_export(&self, machine: Uuid, job: Uuid) -> Result<()> {
        self.change_note(machine, |note| {
            if note.last.is_some_and(|last| last.job == job) {
                note.last = note.before.take();
            }
        })
    }

    fn change_note(&self, machine: Uuid, change: impl Fn(&mut Note)) -> Result<()> {
        let key = exported_key(machine);
        for _ in 0..MAX_ATTEMPTS {
            let found = record::get::<Note>(&*self.store, &key)?;
            let condition = match &found {
                Some((_, revision)) => store::Condition::Revision(key.clone(), *revision),
                None => store::Condition::Absent(key.clone()),
            };
            let before = found.map_or_else(|| Note { machine, ..Note::default() }, |(note, _)| note);
            let mut after = before.clone();
            change(&mut after);
            if after == before
                || record::commit(&*self.store, vec![condition], vec![record::put(key.clone(), &after)?])?
            {
                return Ok(());
            }
        }
        Err(Error::new(Reason::Busy, "the note of the last export is being changed by others all the time"))
    }

    /// Every note.
    pub(crate) fn export_notes(&self) -> Result<Vec<Note>> {
        record::list(&*self.store, EXPORTED)
    }
}
