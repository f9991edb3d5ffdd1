//! Reading jobs back from the store: all at start, parked ones again when asked; and taking them up.

use std::collections::BTreeMap;

use super::{Inner, status_of};
use crate::board::Notice;
use crate::journal::{self, LoadError};
use crate::live::lock;
use crate::status::{JobId, State, Status};
use crate::{Failure, ids};

impl Inner {
    /// Reads every job in the store. Called once, before any worker runs; those that can run wait for `take_up`.
    pub(super) fn load(&self) -> Result<(), store::Error> {
        let mut jobs: Vec<(JobId, Vec<store::Versioned>)> = Vec::new();
        for entry in store::scan(&*self.shared.store, journal::PREFIX) {
            let entry = entry?;
            match journal::id_of(&entry.key) {
                // Keys come in order, so those of one job come together.
                Ok(id) => match jobs.last_mut() {
                    Some((last, entries)) if *last == id => entries.push(entry),
                    _ => jobs.push((id, vec![entry])),
                },
                Err(error) => tracing::warn!("left alone: {error}"),
            }
        }
        let mut ready = BTreeMap::new();
        for (id, entries) in jobs {
            match journal::load(id, &entries) {
                Ok(Some((journal, _))) if journal.fold.finished().is_some() => {
                    let status = status_of(&journal);
                    self.shared.board.post(Notice { status, live: None, percent: (0.0, 0.0) });
                }
                Ok(Some((journal, checkpoint))) => {
                    // Those that had begun go first, each sort in the order they were accepted.
                    let order = (journal.fold.untouched(), journal.accepted);
                    ready.insert(order, self.entry(journal, checkpoint));
                }
                Ok(None) => journal::remove(&*self.shared.store, id)?,
                Err(error) => self.park_unreadable(id, &error),
            }
        }
        for entry in ready.into_values() {
            let id = entry.id;
            self.post(&entry, &lock(&entry.journal));
            let mut schedule = lock(&self.schedule);
            if let Some(subject) = entry.meta.subject.clone().filter(|_| entry.exclusive()) {
                schedule.subjects.entry(subject).or_insert(id);
            }
            if lock(&entry.parked).is_none() {
                schedule.inherited.push(id);
            }
            tracing::info!(job = %id, kind = entry.meta.kind, subject = entry.meta.subject, "found unfinished");
            schedule.entries.insert(id, entry);
        }
        Ok(())
    }

    /// Queues the jobs of an earlier engine, before any that were submitted meanwhile.
    pub(super) fn take_up(&self) {
        let mut schedule = lock(&self.schedule);
        for id in std::mem::take(&mut schedule.inherited).into_iter().rev() {
            schedule.queue.push_front(id);
        }
        self.work.notify_all();
    }

    /// Reads parked jobs of known kinds again, since memory may be behind the store, and queues them.
    pub(super) fn unpark(&self) -> Result<(), store::Error> {
        let schedule = lock(&self.schedule);
        // One that is still on its way out of its worker is left for the next time.
        let waiting = schedule.entries.values().filter(|entry| !schedule.running.contains(&entry.id));
        let mut waiting: Vec<_> = waiting.cloned().collect();
        drop(schedule);
        waiting.sort_by_key(|entry| (entry.meta.submitted, entry.id));
        for entry in waiting {
            // Held throughout: a cancel or discard comes before or after, not between.
            let mut journal = lock(&entry.journal);
            if entry.kind.is_none() || lock(&entry.parked).is_none() {
                continue;
            }
            let keys =
                store::scan(&*self.shared.store, &journal::key(entry.id)).collect::<Result<Vec<_>, _>>()?;
            match journal::load(entry.id, &keys) {
                Ok(Some((read, _))) => *journal = read,
                Ok(None) => continue,
                Err(error) => {
                    self.park_unreadable(entry.id, &error);
                    continue;
                }
            }
            *lock(&entry.parked) = None;
            if journal.fold.cancel_requested() {
                entry.live.cancel();
            }
            if journal.fold.finished().is_some() {
                self.retire(&entry, &journal);
                continue;
            }
            self.post(&entry, &journal);
            lock(&self.schedule).queue.push_back(entry.id);
            self.work.notify_one();
        }
        Ok(())
    }

    /// Shows a job that cannot be read: it exists, nothing is done about it, nothing is guessed.
    fn park_unreadable(&self, id: JobId, error: &LoadError) {
        let failure = Failure::from_error(ids::UNREADABLE, error)
            .hint("start the program that wrote it, or restore the store from a backup");
        tracing::error!(job = %id, "parked: {failure}");
        let status = Status {
            id,
            kind: String::new(),
            version: 0,
            subject: None,
            owner: String::new(),
            state: State::Parked,
            cancel_requested: false,
            step: None,
            phase: String::new(),
            done_bytes: 0,
            total_bytes: 0,
            rate: 0,
            eta_seconds: None,
            percent: 0,
            error: Some(failure),
            stuck: None,
            warnings: Vec::new(),
            submitted: jiff::Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            output: None,
            generation: 0,
        };
        self.shared.board.post(Notice { status, live: None, percent: (0.0, 0.0) });
    }
}
