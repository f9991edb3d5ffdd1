//! Guests that outlived the process that started them: found again when ours begins, or looked for until they are.
//!
//! A guest that is there and does not answer is not gone: it may write to its disks at any moment. Its machine counts as
//! running, with the reason in its note, and refuses everything until the guest answers or its process has ended.
//!
//! One that is frozen was being saved or restored when the earlier process ended. If its machine's record says that it is
//! saved, it has not run since and is ended; if not, it goes on at once, whatever becomes of the job that froze it.

use std::sync::Arc;
use std::time::Duration;

use engine::{AttachError, Guest, RunState};
use transfer::shell;
use uuid::Uuid;

use crate::cell::{Running, power_of};
use crate::error::{self, Error, Reason, Result};
use crate::host::Host;
use crate::inbox::Inbox;
use crate::power::PowerState;
use crate::record::{self, MACHINES, MachineRecord};

/// How long until a guest that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// A guest that may run and cannot be reached.
pub(crate) struct Lost {
    why: String,
    hint: String,
}

/// Refuses whatever needs the guest, or needs it gone, while nobody can tell.
pub(crate) fn refuse_lost(running: &Running, name: &str) -> Result<()> {
    match &running.lost {
        None => Ok(()),
        Some(lost) => Err(Error::new(
            Reason::InvalidState,
            format!("the guest of `{name}` may be running and cannot be reached: {}", lost.why),
        )
        .hint(lost.hint.clone())),
    }
}

/// What is at a runtime directory.
enum Found {
    Guest(Box<dyn Guest>, PowerState, Inbox),
    Nothing,
    Lost(AttachError),
}

fn stuck(what: &str, e: engine::GuestError) -> AttachError {
    AttachError::new(engine::AttachErrorKind::Failed, what).with_source(e)
}

impl Host {
    /// Finds the guests that an earlier process of ours left running, and shows as saved what is.
    pub(crate) fn find_guests_again(self: &Arc<Self>) -> Result<()> {
        for record in record::list::<MachineRecord>(&*self.store, MACHINES)? {
            match self.seek_guest(&record) {
                Found::Guest(guest, power, inbox) => {
                    tracing::info!(machine = %record.id, name = record.settings.name, "found its guest running");
                    self.adopt(record.id, guest, power, inbox);
                }
                Found::Nothing => self.cell(record.id).lock().power = self.rest_state(record.id),
                Found::Lost(e) => self.lose(record.clone(), &e),
            }
            // By now the record alone decides what counts.
            match self.record(record.id) {
                Ok((now, _)) => self.sweep_states(&now),
                Err(e) => tracing::warn!(machine = %record.id, "not swept: {}", e.chain()),
            }
        }
        Ok(())
    }

    fn seek_guest(&self, record: &MachineRecord) -> Found {
        let (events, inbox) = self.inboxes.new_inbox();
        let guest = match self.engine.attach(&self.places(record).runtime, events) {
            Ok(Some(guest)) => guest,
            Ok(None) => return Found::Nothing,
            Err(e) => return Found::Lost(e),
        };
        match (guest.state(), record.saved.is_some()) {
            (RunState::Stopped, _) => return Found::Nothing,
            (RunState::Frozen, true) => match guest.power_off() {
                Ok(()) => return Found::Nothing,
                Err(e) => return Found::Lost(stuck("it is saved and does not end", e)),
            },
            (RunState::Frozen, false) => match guest.thaw() {
                Err(e) if e.kind() == engine::GuestErrorKind::Gone => return Found::Nothing,
                Err(e) => return Found::Lost(stuck("it is frozen and does not go on", e)),
                Ok(()) => {}
            },
            // Cannot be: it runs only once the record says so. If it is, its disks are being written.
            (_, true) => {
                tracing::error!(machine = %record.id, "its guest runs: what was saved of it counts no more");
                if let Err(e) = self.update(record.id, |r| r.saved = None) {
                    tracing::error!(machine = %record.id, "its saved state is still on record: {}", e.chain());
                }
            }
            (_, false) => {}
        }
        let power = power_of(guest.state());
        Found::Guest(guest, power, inbox)
    }

    fn lose(self: &Arc<Self>, record: MachineRecord, e: &AttachError) {
        let id = record.id;
        let why = error::chain(e);
        tracing::warn!(machine = %id, "its guest cannot be reached: {why}");
        {
            let cell = self.cell(id);
            let mut running = cell.lock();
            running.power = PowerState::Running;
            running.note = Some(format!("its guest cannot be reached: {why}"));
            let hint = e.hint().map_or_else(
                || {
                    let runtime = self.places(&record).runtime;
                    format!("if no QEMU of it runs: rm -r {}", shell::path(&runtime))
                },
                str::to_owned,
            );
            running.lost = Some(Lost { why, hint });
        }
        let host = Arc::downgrade(self);
        let watch = move || {
            loop {
                std::thread::sleep(AGAIN);
                let Some(host) = host.upgrade() else { return };
                match host.seek_guest(&record) {
                    Found::Lost(_) => {}
                    Found::Guest(guest, power, inbox) => {
                        tracing::info!(machine = %id, "its guest answers again");
                        return host.adopt(id, guest, power, inbox);
                    }
                    Found::Nothing => {
                        tracing::info!(machine = %id, "its guest is gone");
                        return host.not_lost(id);
                    }
                }
            }
        };
        let name = format!("lost-{}", &id.simple().to_string()[..8]);
        if let Err(e) = std::thread::Builder::new().name(name).spawn(watch) {
            tracing::error!(machine = %id, "no thread to look for its guest: {e}");
        }
    }

    fn not_lost(&self, id: Uuid) {
        let rest = self.rest_state(id);
        let cell = self.cell(id);
        let mut running = cell.lock();
        running.power = rest;
        running.note = None;
        running.lost = None;
        drop(running);
        self.tell(id);
    }
}
