//! Waiting until what is known of guests is what they are.
//!
//! Events of guests arrive on threads of their own, a moment after they happened. Whoever *made* something happen (the
//! simulator's clock was advanced, a guest was killed on purpose) and answers a client about it waits here first: the
//! client's next question must not be answered with the past.

use std::time::{Duration, Instant};

use engine::RunState;

use crate::cell::Running;
use crate::host::Host;
use crate::power::PowerState;

/// Whether the cell has heard of what its guest is doing.
fn heard(running: &Running) -> bool {
    let Some(guest) = &running.guest else { return true };
    match guest.state() {
        RunState::Stopped => false,
        // Whoever froze it knows, and says what its machine is doing meanwhile.
        RunState::Frozen => true,
        RunState::Paused => running.power != PowerState::Running,
        _ => running.power != PowerState::Paused,
    }
}

impl Host {
    /// Waits, `limit` at most, until every event that guests have sent by now is reflected in their machines; false when
    /// it passes first.
    pub fn settle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.all_cells()
            .iter()
            .all(|cell| cell.wait(deadline.saturating_duration_since(Instant::now()), heard))
    }
}
