//! What a host takes from chance and from the clock, in one place: so that a simulation of the same requests makes the same
//! machines again, and can stop jobs where it likes.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::host::Host;

/// Where new ids and the time come from, and what may stop jobs.
#[derive(Clone)]
pub struct Ambient {
    /// Gives an id that nothing has.
    pub ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// The time, for what is recorded and for intervals.
    pub clock: Arc<dyn job::Clock>,
    /// What jobs pass; usually nothing.
    pub gate: Option<Arc<dyn job::Gate>>,
}

impl Default for Ambient {
    /// Chance, the machine's clock, and no gate.
    fn default() -> Self {
        Self { ids: Arc::new(Uuid::new_v4), clock: Arc::new(job::SystemClock::new()), gate: None }
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
    pub(crate) fn now(&self) -> Timestamp {
        self.ambient.clock.now()
    }
}
