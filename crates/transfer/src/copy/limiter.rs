//! A rate limit shared by all workers: each takes its turn in time before it reads.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest sleep between two looks at the stop flag.
const SLICE: Duration = Duration::from_millis(5);

/// Spreads bytes evenly over time.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: NonZero<u64>,
    /// When the bytes given out so far will have been used up.
    free_at: Mutex<Instant>,
}

impl Limiter {
    pub(super) fn new(per_second: NonZero<u64>) -> Self {
        Self { per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may be moved, or `stopped` says so.
    pub(super) fn take(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*free_at).max(Instant::now());
            *free_at = start.checked_add(cost).unwrap_or(start);
            start
        };
        while !stopped() {
            let left = start.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(SLICE));
        }
    }
}
