//! The simulator's time, real or driven by hand, and what is due when.
//!
//! Time is counted from the simulation's beginning. Everything that happens by itself in the simulator is an [`Action`]
//! on one timeline and happens in the order of time, then of scheduling: on a thread when the time is real, on the
//! caller's when it is driven. So a driven simulation of the same requests does the same, event by event.
//!
//! What is scheduled is the guests' part; what the beginning is called on a calendar is the callers'.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lock;

/// Furthest that time is driven in one go.
pub const MAX_ADVANCE: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most things that may happen while time is driven in one go.
pub const MAX_ACTIONS: u64 = 1_000_000;
/// How often somebody who waits for a moment looks whether it is still worth waiting.
const LOOK: Duration = Duration::from_millis(20);

/// What moves the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockMode {
    /// It passes as it does for everybody.
    Real,
    /// It stands until somebody advances it.
    #[default]
    Manual,
}

/// Something that happens at a moment, which it is told.
pub(super) type Action = Box<dyn FnOnce(Duration) + Send>;

/// The place of an action on the timeline: its moment, then its number.
pub(super) type Slot = (Duration, u64);

/// The time and everything that is due.
pub(super) struct Timeline {
    state: Mutex<State>,
    changed: Condvar,
    /// Held by whoever makes things happen, so that they happen one after the other.
    hand: Mutex<()>,
}

struct State {
    mode: ClockMode,
    /// The time when `since` was; all of it while the time is driven.
    base: Duration,
    since: Instant,
    due: BTreeMap<Slot, Action>,
    scheduled: u64,
    /// Whether a thread makes things happen.
    served: bool,
    stopped: bool,
}

impl State {
    fn now(&self) -> Duration {
        match self.mode {
            ClockMode::Manual => self.base,
            ClockMode::Real => self.base + self.since.elapsed(),
        }
    }

    /// Makes this moment the base.
    fn settle(&mut self) {
        (self.base, self.since) = (self.now(), Instant::now());
    }
}

impl Timeline {
    /// A time that has come to `elapsed`.
    pub(super) fn new(mode: ClockMode, elapsed: Duration) -> Arc<Self> {
        let state = State {
            mode,
            base: elapsed,
            since: Instant::now(),
            due: BTreeMap::new(),
            scheduled: 0,
            served: false,
            stopped: false,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), hand: Mutex::new(()) })
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        lock(&self.state).now()
    }

    /// What moves it.
    pub(super) fn mode(&self) -> ClockMode {
        lock(&self.state).mode
    }

    /// Lets something else move it from now on.
    pub(super) fn set_mode(self: &Arc<Self>, mode: ClockMode) {
        let _hand = lock(&self.hand);
        let mut state = lock(&self.state);
        state.settle();
        state.mode = mode;
        self.serve(&mut state);
        self.changed.notify_all();
    }

    /// Puts an action where it is due; one that is overdue happens as soon as time moves on.
    pub(super) fn schedule(self: &Arc<Self>, at: Duration, action: Action) -> Slot {
        let mut state = lock(&self.state);
        state.scheduled += 1;
        let slot = (at, state.scheduled);
        state.due.insert(slot, action);
        self.serve(&mut state);
        self.changed.notify_all();
        slot
    }

    /// Takes an action away; whether it had not happened yet.
    pub(super) fn cancel(&self, slot: Slot) -> bool {
        // Dropped after the lock: an action may hold the last handle on something.
        let action = lock(&self.state).due.remove(&slot);
        action.is_some()
    }

    /// Moves the time on and makes happen what is due on the way. When this returns it has happened.
    pub(super) fn advance(self: &Arc<Self>, by: Duration) -> Duration {
        let _hand = lock(&self.hand);
        let until = {
            let mut state = lock(&self.state);
            if state.mode == ClockMode::Real {
                state.base += by;
            }
            match state.mode {
                ClockMode::Manual => state.base + by,
                ClockMode::Real => state.now(),
            }
        };
        self.run(until);
        let mut state = lock(&self.state);
        if state.mode == ClockMode::Manual {
            state.base = until;
        }
        self.changed.notify_all();
        until
    }

    /// Forgets everything that is due and begins anew.
    pub(super) fn restart(self: &Arc<Self>, mode: ClockMode, elapsed: Duration) {
        let _hand = lock(&self.hand);
        let mut state = lock(&self.state);
        let forgotten = std::mem::take(&mut state.due);
        (state.mode, state.base, state.since) = (mode, elapsed, Instant::now());
        self.serve(&mut state);
        self.changed.notify_all();
        drop(state);
        drop(forgotten);
    }

    /// Waits until `at`; false when `give_up` said so first.
    pub(super) fn wait_until(&self, at: Duration, give_up: &dyn Fn() -> bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            let now = state.now();
            if now >= at {
                return true;
            }
            if state.stopped {
                return false;
            }
            let nap = match state.mode {
                ClockMode::Manual => LOOK,
                ClockMode::Real => LOOK.min(at - now),
            };
            state = super::wait(&self.changed, state, nap);
            drop(state);
            // Asked without the lock: the answer may take another.
            if give_up() {
                return false;
            }
            state = lock(&self.state);
        }
    }

    /// Ends the thread. Nothing more happens.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// Makes happen what is due until then. The caller has the hand.
    fn run(&self, until: Duration) {
        loop {
            let mut state = lock(&self.state);
            let Some(entry) = state.due.first_entry().filter(|e| e.key().0 <= until) else { return };
            let ((at, _), action) = entry.remove_entry();
            if state.mode == ClockMode::Manual && state.base < at {
                state.base = at;
                self.changed.notify_all();
            }
            drop(state);
            action(at);
        }
    }

    /// Starts the thread that real time needs, once there is something for it to do.
    fn serve(self: &Arc<Self>, state: &mut State) {
        if state.served || state.mode != ClockMode::Real || state.due.is_empty() {
            return;
        }
        let timeline = Arc::clone(self);
        let thread = std::thread::Builder::new().name("sim-clock".into());
        match thread.spawn(move || timeline.keep_time()) {
            Ok(_) => state.served = true,
            Err(e) => tracing::error!("no thread for the simulator's clock: {e}"),
        }
    }

    fn keep_time(&self) {
        let mut state = lock(&self.state);
        while !state.stopped {
            let now = state.now();
            let first = state.due.first_key_value().map(|((at, _), _)| *at);
            state = match first {
                Some(at) if state.mode == ClockMode::Real && at <= now => {
                    drop(state);
                    let hand = lock(&self.hand);
                    self.run(now);
                    drop(hand);
                    lock(&self.state)
                }
                Some(at) if state.mode == ClockMode::Real => super::wait(&self.changed, state, at - now),
                _ => self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn note(log: &mpsc::Sender<(u32, Duration)>, what: u32) -> Action {
        let log = log.clone();
        Box::new(move |at| log.send((what, at)).unwrap_or(()))
    }

    #[test]
    fn driven_time_happens_in_order_and_stands_otherwise() {
        let time = Timeline::new(ClockMode::Manual, Duration::ZERO);
        let (log, seen) = mpsc::channel();
        time.schedule(3 * SECOND, note(&log, 3));
        time.schedule(SECOND, note(&log, 1));
        time.schedule(SECOND, note(&log, 2));
        let gone = time.schedule(2 * SECOND, note(&log, 9));
        assert!(time.cancel(gone) && !time.cancel(gone));
        // What happens may cause what happens later, within the same advance.
        let (again, onward) = (Arc::clone(&time), log.clone());
        let chain = move |at: Duration| {
            again.schedule(at + SECOND, note(&onward, 4));
        };
        time.schedule(3 * SECOND, Box::new(chain));
        assert_eq!(time.advance(4 * SECOND), 4 * SECOND);
        let happened: Vec<_> = seen.try_iter().collect();
        assert_eq!(happened, [(1, SECOND), (2, SECOND), (3, 3 * SECOND), (4, 4 * SECOND)]);
        assert_eq!(time.now(), 4 * SECOND);
    }

    #[test]
    fn real_time_passes_by_itself_and_can_jump() {
        let time = Timeline::new(ClockMode::Real, Duration::ZERO);
        let (log, seen) = mpsc::channel();
        time.schedule(Duration::from_millis(1), note(&log, 1));
        assert_eq!(seen.recv().unwrap().0, 1);
        time.schedule(3600 * SECOND, note(&log, 2));
        time.advance(3600 * SECOND);
        assert_eq!(seen.recv().unwrap(), (2, 3600 * SECOND));
        assert!(time.now() > 3600 * SECOND);
        time.stop();
    }

    #[test]
    fn whoever_waits_is_let_go_by_the_hand_that_drives() {
        let time = Timeline::new(ClockMode::Manual, Duration::ZERO);
        let waiting = Arc::clone(&time);
        let waiter = std::thread::spawn(move || waiting.wait_until(SECOND, &|| false));
        time.advance(SECOND);
        assert!(waiter.join().unwrap());
        assert!(!time.wait_until(2 * SECOND, &|| true));
    }

    #[test]
    fn time_goes_on_from_where_the_mode_changed() {
        let time = Timeline::new(ClockMode::Manual, 5 * SECOND);
        time.set_mode(ClockMode::Real);
        let real = time.now();
        assert!((5 * SECOND..60 * SECOND).contains(&real));
        time.set_mode(ClockMode::Manual);
        let stopped = time.now();
        assert!(stopped >= real);
        assert_eq!(time.now(), stopped);
        time.restart(ClockMode::Manual, SECOND);
        assert_eq!(time.now(), SECOND);
    }
}
