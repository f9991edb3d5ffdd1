//! Time, as a value that tests can drive.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Where the engine reads the time.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, for what is recorded and shown. May jump.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment, for rates and intervals. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> SystemClock {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that moves only when told to, and optionally by a fixed tick each time its monotonic time is read.
#[derive(Debug)]
pub struct ManualClock {
    elapsed: Mutex<Duration>,
    tick: Duration,
}

impl ManualClock {
    /// A clock that stands still at 2025-01-01T00:00:00Z.
    pub fn new() -> ManualClock {
        ManualClock::ticking(Duration::ZERO)
    }

    /// A clock that moves on by `tick` whenever its monotonic time is read.
    pub fn ticking(tick: Duration) -> ManualClock {
        ManualClock { elapsed: Mutex::default(), tick }
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new()
    }
}

/// 2025-01-01T00:00:00Z in seconds since 1970.
const MANUAL_START: i64 = 1_735_689_600;

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let elapsed = *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        let nanoseconds = i32::try_from(elapsed.subsec_nanos()).unwrap_or(0);
        Timestamp::new(MANUAL_START.saturating_add(seconds), nanoseconds).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        let mut elapsed = self.elapsed.lock().unwrap_or_else(PoisonError::into_inner);
        *elapsed += self.tick;
        *elapsed
    }
}
