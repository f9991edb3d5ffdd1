//! What happens to machines, for whoever watches: published, not polled.
//!
//! The board holds the latest state of each machine with the number of the change that made it. A watcher asks for what
//! is newer than what it saw and gets one [`MachineChange`] per machine, however many changes it missed: it can fall
//! behind, never go wrong. Jobs have a board of the same shape in [`job`]. Who is told over which wire is the edges' part.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::error::Result;
use crate::host::Host;
use crate::power::PowerState;
use crate::record::{self, MACHINES, PLANNED, SWITCHES};

/// Deleted machines that are still told of.
const MAX_DELETED: usize = 1024;

/// A machine that changed, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineChange {
    /// The machine.
    pub id: Uuid,
    /// What it is doing; `None` when it was deleted.
    pub power: Option<PowerState>,
    /// Why it last stopped by itself, or what else there is to know.
    pub note: Option<String>,
    /// How often its guest rebooted by itself.
    pub reboots: u32,
    /// The number of this change.
    pub generation: u64,
}

/// Machines that changed, and the number to ask with next time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineChanges {
    /// Ask for changes since this next.
    pub generation: u64,
    /// The changed machines, least recently changed first.
    pub machines: Vec<MachineChange>,
}

/// The latest change of every machine.
#[derive(Debug, Default)]
pub(crate) struct Board {
    posted: Mutex<Posted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Posted {
    generation: u64,
    machines: BTreeMap<Uuid, MachineChange>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts what `look` sees. It is called under the board's lock, so that two posts of one machine cannot overtake
    /// each other.
    fn post(&self, id: Uuid, look: impl FnOnce() -> (Option<PowerState>, Option<String>, u32)) {
        let mut posted = self.lock();
        let (power, note, reboots) = look();
        posted.generation += 1;
        let generation = posted.generation;
        posted.machines.insert(id, MachineChange { id, power, note, reboots, generation });
        if power.is_none() {
            let deleted = posted.machines.values().filter(|c| c.power.is_none());
            if deleted.clone().count() > MAX_DELETED
                && let Some(oldest) = deleted.min_by_key(|c| c.generation).map(|c| c.id)
            {
                posted.machines.remove(&oldest);
            }
        }
        drop(posted);
        self.changed.notify_all();
    }

    fn changes(&self, since: u64, timeout: Duration) -> MachineChanges {
        let deadline = Instant::now() + timeout;
        let mut posted = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if posted.generation > since || left.is_zero() {
                let mut machines: Vec<_> =
                    posted.machines.values().filter(|c| c.generation > since).cloned().collect();
                machines.sort_by_key(|c| c.generation);
                return MachineChanges { generation: posted.generation, machines };
            }
            posted = self.changed.wait_timeout(posted, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A record that was written or removed; what it is now, whoever cares reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// A machine's.
    Machine(Uuid),
    /// A planned machine's.
    Planned(Uuid),
    /// A switch's.
    Switch(Uuid),
}

/// Changes of records from one moment on. Costs nothing while nobody asks.
#[derive(Debug)]
pub struct RecordChanges {
    watch: store::Watch,
}

impl RecordChanges {
    /// The next change, waiting `timeout` at most; `None` when there was none by then.
    ///
    /// # Errors
    /// The store fails, or it has forgotten what came since the last call: begin anew and look at everything.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<RecordChange>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.watch.next_timeout(left).map_err(record::failed)? else { return Ok(None) };
            let of = |prefix| event.key.strip_prefix(prefix).and_then(|id| Uuid::try_parse(id).ok());
            let change = of(MACHINES).map(RecordChange::Machine);
            let change = change.or_else(|| of(PLANNED).map(RecordChange::Planned));
            if let Some(change) = change.or_else(|| of(SWITCHES).map(RecordChange::Switch)) {
                return Ok(Some(change));
            }
        }
    }
}

impl Host {
    /// Changes of records from now on.
    ///
    /// # Errors
    /// The store fails.
    pub fn record_changes(&self) -> Result<RecordChanges> {
        let now = self.store.revision().map_err(record::failed)?;
        Ok(RecordChanges { watch: self.store.watch("", now).map_err(record::failed)? })
    }

    /// Machines that changed since `since` (0: since this process began), waiting `timeout` at most for one.
    pub fn machine_changes(&self, since: u64, timeout: Duration) -> MachineChanges {
        self.board.changes(since, timeout)
    }

    /// Tells watchers what machine `id` is doing now, and wakes who waits for it. Its cell must not be locked by the
    /// caller.
    pub(crate) fn tell(&self, id: Uuid) {
        let cell = self.cell(id);
        cell.changed();
        self.board.post(id, || {
            let running = cell.lock();
            (Some(running.power), running.note.clone(), running.reboots)
        });
    }

    /// Tells watchers that machine `id` is no more.
    pub(crate) fn tell_deleted(&self, id: Uuid) {
        self.board.post(id, || (None, None, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_the_latest_state_of_each_machine_once() {
        let board = Board::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        board.post(a, || (Some(PowerState::Starting), None, 0));
        board.post(b, || (Some(PowerState::Off), None, 0));
        board.post(a, || (Some(PowerState::Running), None, 0));
        let seen = board.changes(0, Duration::ZERO);
        let ids: Vec<_> = seen.machines.iter().map(|c| (c.id, c.power)).collect();
        assert_eq!(ids, [(b, Some(PowerState::Off)), (a, Some(PowerState::Running))]);
        assert!(board.changes(seen.generation, Duration::ZERO).machines.is_empty());
        board.post(b, || (None, None, 0));
        let then = board.changes(seen.generation, Duration::from_secs(60));
        assert_eq!(then.machines.len(), 1);
        assert_eq!(then.machines[0].power, None);
    }

    #[test]
    fn a_waiting_watcher_is_woken() {
        let board = std::sync::Arc::new(Board::default());
        let other = std::sync::Arc::clone(&board);
        let watcher = std::thread::spawn(move || other.changes(0, Duration::from_secs(60)));
        board.post(Uuid::from_u128(1), || (Some(PowerState::Off), None, 0));
        assert_eq!(watcher.join().unwrap().machines.len(), 1);
    }

    #[test]
    fn deleted_machines_do_not_pile_up() {
        let board = Board::default();
        for n in 0..2 * MAX_DELETED as u128 {
            board.post(Uuid::from_u128(n), || (None, None, 0));
        }
        assert_eq!(board.changes(0, Duration::ZERO).machines.len(), MAX_DELETED);
    }
}
