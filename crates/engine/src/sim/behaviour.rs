//! How a simulated guest behaves, in the simulator's time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest time of any part of a [`Behaviour`].
pub const MAX_BEHAVIOUR: Duration = Duration::from_secs(24 * 3600);
/// Shortest tick that is one.
pub const MIN_TICK: Duration = Duration::from_millis(10);
/// How a guest behaves, in the simulator's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// From power to `GUEST-READY`.
    pub boot: Duration,
    /// From being asked to shut down to having done so.
    pub shutdown: Duration,
    /// Whether it shuts down when asked, or never.
    pub obeys_shutdown: bool,
    /// Whether its agent answers.
    pub agent: bool,
    /// From one count to the next; zero never counts.
    pub tick: Duration,
}

impl Default for Behaviour {
    /// Ready at once, obedient, without an agent, counting seconds.
    fn default() -> Self {
        Self {
            boot: Duration::ZERO,
            shutdown: Duration::ZERO,
            obeys_shutdown: true,
            agent: false,
            tick: Duration::from_secs(1),
        }
    }
}

impl Behaviour {
    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<String> {
        let all = [("boot", self.boot), ("shutdown", self.shutdown), ("tick", self.tick)];
        if let Some((what, _)) = all.iter().find(|(_, time)| *time > MAX_BEHAVIOUR) {
            return Some(format!("{what} is longer than {} s", MAX_BEHAVIOUR.as_secs()));
        }
        (!self.tick.is_zero() && self.tick < MIN_TICK)
            .then(|| format!("a tick is at least {} ms, or 0 for none", MIN_TICK.as_millis()))
    }
}
