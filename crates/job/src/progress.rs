//! How far a step is, how fast, and how long it will take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a step reported last; also what a durable checkpoint keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) phase: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// Longest name of a phase kept, in characters.
const MAX_PHASE: usize = 200;
/// Samples closer together than this are not used for the rate: they would make it jump.
const SAMPLE: Duration = Duration::from_millis(500);
/// The rate forgets what was longer ago than about this.
const MEMORY: Duration = Duration::from_secs(5);
/// Watchers are woken for progress no more often than this.
const PUBLISH: Duration = Duration::from_millis(200);

/// Measures progress: pure, driven by the times it is given.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) progress: Progress,
    /// Bytes per second; `None` until there were two samples.
    rate: Option<f64>,
    /// Time and bytes of the sample the rate reaches to.
    sample: Option<(Duration, u64)>,
    published: Option<Duration>,
    /// Percentage of the job shown so far.
    pub(crate) high: u8,
}

impl Meter {
    pub(crate) fn restored(progress: Progress) -> Meter {
        Meter { progress, ..Meter::default() }
    }

    /// Forgets all but the percentage shown: another step begins.
    pub(crate) fn reset(&mut self) {
        *self = Meter { high: self.high, ..Meter::default() };
    }

    /// Notes a report; true if watchers should be woken.
    pub(crate) fn report(&mut self, now: Duration, phase: &str, done: u64, total: u64) -> bool {
        let changed = self.progress.phase != phase;
        if changed {
            self.reset();
            self.progress.phase = phase.chars().take(MAX_PHASE).collect();
        }
        // Several threads report in any order: bytes done never fall within a phase.
        let done = if changed { done } else { done.max(self.progress.done) };
        self.progress.done = if total > 0 { done.min(total) } else { done };
        self.progress.total = total;
        match self.sample {
            None => self.sample = Some((now, self.progress.done)),
            Some((then, before)) if now >= then + SAMPLE => {
                let seconds = (now - then).as_secs_f64();
                let current = (self.progress.done - before.min(self.progress.done)) as f64 / seconds;
                let fresh = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
                self.rate = Some(self.rate.map_or(current, |rate| rate + (current - rate) * fresh));
                self.sample = Some((now, self.progress.done));
            }
            Some(_) => {}
        }
        let finished = total > 0 && self.progress.done == total;
        let publish = changed || finished || self.published.is_none_or(|then| now >= then + PUBLISH);
        if publish {
            self.published = Some(now);
        }
        publish
    }

    /// Bytes per second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate.unwrap_or(0.0) as u64
    }

    /// Seconds until the phase is done, if it can be told.
    pub(crate) fn eta_seconds(&self) -> Option<u64> {
        let rate = self.rate.filter(|rate| *rate >= 1.0)?;
        let Progress { done, total, .. } = self.progress;
        (total > 0).then(|| (total.saturating_sub(done) as f64 / rate).ceil() as u64)
    }

    /// Part of the phase done, 0 to 1; 0 if the total is unknown.
    pub(crate) fn fraction(&self) -> f64 {
        let Progress { done, total, .. } = self.progress;
        if total == 0 { 0.0 } else { done as f64 / total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_copy_has_its_rate_and_eta() {
        let mut meter = Meter::default();
        for second in 0..=10 {
            meter.report(SECOND * second, "copy", u64::from(second) * 100, 2000);
        }
        assert_eq!(meter.rate(), 100);
        assert_eq!(meter.eta_seconds(), Some(10));
        assert!((meter.fraction() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_rate_follows_but_does_not_jump() {
        let mut meter = Meter::default();
        for second in 0..=10 {
            meter.report(SECOND * second, "copy", u64::from(second) * 100, 0);
        }
        meter.report(SECOND * 11, "copy", 2000, 0);
        assert!((200..400).contains(&meter.rate()), "{}", meter.rate());
        assert_eq!(meter.eta_seconds(), None, "no total, no ETA");
    }

    #[test]
    fn a_new_phase_starts_over() {
        let mut meter = Meter::default();
        meter.report(SECOND, "copy", 100, 100);
        assert!(meter.report(SECOND, "verify", 3, 100), "a new phase is published at once");
        assert_eq!(meter.progress, Progress { phase: "verify".into(), done: 3, total: 100 });
        assert_eq!(meter.rate(), 0);
    }

    #[test]
    fn late_reports_do_not_turn_back_and_totals_bound() {
        let mut meter = Meter::default();
        meter.report(SECOND, "copy", 50, 100);
        meter.report(SECOND, "copy", 40, 100);
        assert_eq!(meter.progress.done, 50);
        meter.report(SECOND, "copy", 500, 100);
        assert_eq!(meter.progress.done, 100);
    }

    #[test]
    fn watchers_are_not_woken_for_every_block() {
        let mut meter = Meter::default();
        let mut woken = 0;
        for ms in 0..1000 {
            woken += u32::from(meter.report(Duration::from_millis(ms), "copy", ms, 10_000));
        }
        assert_eq!(woken, 5);
    }
}
