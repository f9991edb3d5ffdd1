//! What a host takes from chance, from the clock and from the disk, in one place: so that a simulation of the same requests
//! makes the same machines again, can stop jobs where it likes, and need not wait for a disk that nobody will read again.

use std::sync::Arc;

use jiff::Timestamp;
use store::Durability;
use uuid::Uuid;

use crate::host::Host;

/// Where new ids and the time come from, what may stop jobs, and what is waited for.
#[derive(Clone)]
pub struct Ambient {
    /// Gives an id that nothing has.
    pub ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// The time, for what is recorded and for intervals.
    pub clock: Arc<dyn job::Clock>,
    /// What jobs pass; usually nothing.
    pub gate: Option<Arc<dyn job::Gate>>,
    /// When what is answered is on disk; [`Durability::Deferred`] for data that nobody needs after a power cut.
    pub durability: Durability,
}

impl Default for Ambient {
    /// Chance, the machine's clock, no gate, and a disk that is waited for.
    fn default() -> Self {
        Self {
            ids: Arc::new(Uuid::new_v4),
            clock: Arc::new(job::SystemClock::new()),
            gate: None,
            durability: Durability::EachCommit,
        }
    }
}

impl std::fmt::Debug for Ambient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ambient").field("gate", &self.gate.is_some()).finish_non_exhaustive()
    }
}

impl Host {
    /// An id that nothing has.
    pub(crate) fn fresh_id(&self) -> Uuid {
        (self.ambient.ids)()
    }

    /// The time of day, for what is recorded.
    pub fn now(&self) -> Timestamp {
        self.ambient.clock.now()
    }
}
