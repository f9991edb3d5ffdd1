//! How many guesses somebody has: after [`FREE`] wrong passwords for a name within [`WINDOW`], that name waits, twice as
//! long with each further one up to [`LONGEST`].
//!
//! Kept in memory: a restart forgives, which a guesser cannot cause. Names that do not exist are counted like those
//! that do, else the answer would tell them apart. The names of the last [`MAX_NAMES`] guesses are remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong passwords that cost nothing.
pub const FREE: u32 = 5;
/// How long a wrong password counts.
pub const WINDOW: Duration = Duration::from_secs(15 * 60);
/// The wait after the first one too many.
pub const FIRST: Duration = Duration::from_secs(2);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Most names that are remembered at a time.
pub const MAX_NAMES: usize = 4096;

/// Wrong guesses by name.
#[derive(Debug, Default)]
pub struct Lockout {
    names: Mutex<HashMap<String, Guesses>>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    wrong: u32,
    last: Instant,
}

impl Guesses {
    fn wait(&self) -> Duration {
        match self.wrong.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(over) => FIRST.saturating_mul(1 << over.min(16)).min(LONGEST),
        }
    }
}

impl Lockout {
    /// How long `name` must still wait at `now`, when it must.
    #[must_use]
    pub fn waits(&self, name: &str, now: Instant) -> Option<Duration> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let guesses = names.get(name)?;
        guesses.wait().checked_sub(now.saturating_duration_since(guesses.last)).filter(|left| !left.is_zero())
    }

    /// Counts a wrong password.
    pub fn wrong(&self, name: &str, now: Instant) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MAX_NAMES && !names.contains_key(name) {
            names.retain(|_, guesses| now.saturating_duration_since(guesses.last) < WINDOW);
            // A flood of names: the oldest gives way, so that the table stays what it is.
            if names.len() >= MAX_NAMES
                && let Some(oldest) = names.iter().min_by_key(|(_, g)| g.last).map(|(name, _)| name.clone())
            {
                names.remove(&oldest);
            }
        }
        let guesses = names.entry(name.to_owned()).or_insert(Guesses { wrong: 0, last: now });
        if now.saturating_duration_since(guesses.last) >= WINDOW {
            guesses.wrong = 0;
        }
        *guesses = Guesses { wrong: guesses.wrong.saturating_add(1), last: now };
    }

    /// Forgets what `name` got wrong.
    pub fn right(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, FREE, LONGEST, Lockout, MAX_NAMES, WINDOW};
    use std::time::{Duration, Instant};

    #[test]
    fn waiting_doubles_and_ends() {
        let (lockout, mut now) = (Lockout::default(), Instant::now());
        for _ in 1..FREE {
            lockout.wrong("ada", now);
            assert_eq!(lockout.waits("ada", now), None);
        }
        lockout.wrong("ada", now);
        assert_eq!(lockout.waits("ada", now), Some(FIRST));
        assert_eq!(lockout.waits("bob", now), None);
        now += FIRST;
        assert_eq!(lockout.waits("ada", now), None);
        lockout.wrong("ada", now);
        assert_eq!(lockout.waits("ada", now), Some(FIRST * 2));
        for _ in 0..40 {
            lockout.wrong("ada", now);
        }
        assert_eq!(lockout.waits("ada", now), Some(LONGEST));
        lockout.wrong("ada", now + WINDOW);
        assert_eq!(lockout.waits("ada", now + WINDOW), None, "old guesses are forgiven");
        lockout.right("ada");
        assert_eq!(lockout.waits("ada", now), None);
    }

    #[test]
    fn a_flood_of_names_does_not_grow_it() {
        let (lockout, now) = (Lockout::default(), Instant::now());
        for _ in 0..=FREE {
            lockout.wrong("ada", now + Duration::from_secs(1));
        }
        for n in 0..MAX_NAMES + 100 {
            lockout.wrong(&n.to_string(), now);
        }
        assert_eq!(lockout.names.lock().unwrap().len(), MAX_NAMES);
        assert!(lockout.waits("ada", now).is_some(), "the newest stay");
    }
}
