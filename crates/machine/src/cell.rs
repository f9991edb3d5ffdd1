//! A machine's running side: its power state and, while one lives, its guest, under one lock.
//!
//! Requests are admitted by [`crate::power`]'s table under that lock, and events of the guest change the same cell;
//! nothing else changes a machine's state. What is *done* then is [`crate::lifecycle`]'s part and that of the jobs.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::{Guest, RunState};

use crate::again::{Lost, refuse_lost};
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::power::{self, PowerState, Request};
use crate::record::MachineRecord;

/// The running side of one machine.
#[derive(Default)]
pub(crate) struct Cell {
    running: Mutex<Running>,
    changed: Condvar,
}

/// What a cell guards.
pub(crate) struct Running {
    pub(crate) power: PowerState,
    pub(crate) guest: Option<Arc<dyn Guest>>,
    pub(crate) note: Option<String>,
    pub(crate) accelerator: Option<String>,
    /// How often the guest rebooted by itself since it was started, or found again.
    pub(crate) reboots: u32,
    /// The host is stopping: that the guest ends is not because somebody wants it off.
    pub(crate) host_stops: bool,
    /// Set while a guest of an earlier process cannot be reached; [`PowerState::Running`] without a guest.
    pub(crate) lost: Option<Lost>,
    /// Keys that somebody pressed and did not let go, since the guest was started, found again or reset.
    pub(crate) held: Vec<engine::keys::Key>,
    /// What the first serial port of the last guest said.
    pub(crate) last_log: Option<PathBuf>,
    /// Grows with every guest: an event of an earlier guest must not end a later one.
    pub(crate) incarnation: u64,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            power: PowerState::Off,
            guest: None,
            note: None,
            accelerator: None,
            reboots: 0,
            host_stops: false,
            lost: None,
            held: Vec::new(),
            last_log: None,
            incarnation: 0,
        }
    }
}

impl Cell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits until `done` holds; false when `limit` passes first.
    pub(crate) fn wait(&self, limit: Duration, done: impl Fn(&Running) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut running = self.lock();
        while !done(&running) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            running = self.changed.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The power state that a living guest's own state stands for, when nobody is doing anything to it.
pub(crate) fn power_of(guest: RunState) -> PowerState {
    match guest {
        RunState::Paused | RunState::Frozen => PowerState::Paused,
        RunState::Starting | RunState::Running | RunState::ShuttingDown => PowerState::Running,
        RunState::Stopped => PowerState::Off,
    }
}

impl Host {
    /// Refuses `request` to the machine of `record` by the power table, with the way to where it is admitted.
    pub(crate) fn admit(&self, running: &Running, request: Request, record: &MachineRecord) -> Result<()> {
        refuse_lost(running, &record.settings.name)?;
        let state = running.power;
        if power::admits(state, request) {
            return Ok(());
        }
        let refusal =
            Error::new(Reason::InvalidState, format!("cannot {} a machine that is {state}", request.verb()));
        let job = self.jobs.get().and_then(|jobs| crate::jobs::holding(jobs, record.id));
        Err(match (power::way_to(state, request), job) {
            (Some(way), _) => {
                let also = way.also.map_or_else(String::new, |also| format!(", which {also}"));
                refusal.hint(format!("`slipway machine {} {}` first{also}", way.command, self.word(record)))
            }
            (None, Some(job)) if state.in_transition() => refusal.hint(format!(
                "watch it with `slipway job watch {job}`, or end it with `slipway job cancel {job}`"
            )),
            (None, _) => refusal,
        })
    }

    /// `cell`, of the machine of `record`, locked with `request` admitted.
    pub(crate) fn admitted<'a>(
        &self,
        cell: &'a Cell,
        request: Request,
        record: &MachineRecord,
    ) -> Result<MutexGuard<'a, Running>> {
        let running = cell.lock();
        self.admit(&running, request, record)?;
        Ok(running)
    }
}
