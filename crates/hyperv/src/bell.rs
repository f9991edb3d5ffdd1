//! Changes with numbers, for whoever waits for the next: which ids changed since a number, each once.
//!
//! Boards of the domain have this built in; here it is for what lives in this crate only.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Most ids that are remembered. Whoever missed more than these looks at what there is.
const MAX_KEPT: usize = 10_000;

/// The latest change of each id.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    number: u64,
    /// Ids by the number of their latest change.
    by_number: BTreeMap<u64, Uuid>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that `id` changed.
    pub(crate) fn ring(&self, id: Uuid) {
        let mut rung = self.lock();
        rung.number += 1;
        let number = rung.number;
        rung.by_number.retain(|_, known| *known != id);
        rung.by_number.insert(number, id);
        if rung.by_number.len() > MAX_KEPT {
            rung.by_number.pop_first();
        }
        drop(rung);
        self.changed.notify_all();
    }

    /// What changed since number `since`, and the number to ask with next time; waits `timeout` at most for one.
    pub(crate) fn changes(&self, since: u64, timeout: Duration) -> (u64, Vec<Uuid>) {
        let deadline = Instant::now() + timeout;
        let mut rung = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if rung.number > since || left.is_zero() {
                return (rung.number, rung.by_number.range(since + 1..).map(|(_, id)| *id).collect());
            }
            rung = self.changed.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_told_of_once_and_whoever_waits_is_woken() {
        let bell = Bell::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for id in [a, b, a] {
            bell.ring(id);
        }
        assert_eq!(bell.changes(0, Duration::ZERO), (3, vec![b, a]));
        assert_eq!(bell.changes(3, Duration::ZERO), (3, vec![]));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| bell.changes(3, Duration::from_secs(60)));
            bell.ring(b);
            assert_eq!(waits.join().unwrap(), (4, vec![b]));
        });
    }
}
