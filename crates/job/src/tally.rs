//! How jobs ended, counted since the engine started: for whoever watches a host over months, long after the jobs
//! themselves are pruned.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{State, Status};

/// Upper ends of the classes that durations are counted in, in seconds: from a register in place to a day's copy.
pub const DURATION_SECONDS: [u64; 11] = [1, 5, 15, 60, 300, 900, 3600, 7200, 14_400, 43_200, 86_400];

/// The states that a job ends in.
const ENDS: [State; 4] = [State::Completed, State::CompletedWithWarnings, State::Failed, State::Cancelled];

/// Jobs of one kind that ended in one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// [`crate::Kind::NAME`].
    pub kind: String,
    /// How.
    pub end: State,
    /// How many.
    pub count: u64,
    /// Seconds they took together, from the first step's start to the end. Time in which no engine ran is counted too.
    pub seconds: f64,
    /// How many took at most so long, by [`DURATION_SECONDS`]: each class holds those before it.
    pub within: [u64; DURATION_SECONDS.len()],
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    by_kind: BTreeMap<String, [Count; ENDS.len()]>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    count: u64,
    seconds: f64,
    within: [u64; DURATION_SECONDS.len()],
}

impl Tally {
    /// A tally that shows these kinds from the start, with nothing ended yet.
    pub(crate) fn of<'a>(kinds: impl Iterator<Item = &'a str>) -> Tally {
        Tally { by_kind: kinds.map(|kind| (kind.to_owned(), Default::default())).collect() }
    }

    /// Counts a job that ended just now.
    pub(crate) fn note(&mut self, status: &Status) {
        let Some(end) = ENDS.iter().position(|end| *end == status.state) else { return };
        // One that was cancelled while it waited took no time; a clock that was set back makes none either.
        let took = match (status.started, status.finished) {
            (Some(started), Some(finished)) => Duration::try_from(finished.duration_since(started)),
            _ => Ok(Duration::ZERO),
        };
        let seconds = took.unwrap_or_default().as_secs_f64();
        let count = &mut self.by_kind.entry(status.kind.clone()).or_default()[end];
        count.count += 1;
        count.seconds += seconds;
        for (class, limit) in count.within.iter_mut().zip(DURATION_SECONDS) {
            *class += u64::from(seconds <= limit as f64);
        }
    }

    pub(crate) fn list(&self) -> Vec<Ended> {
        let rows =
            self.by_kind.iter().flat_map(|(kind, counts)| ENDS.iter().zip(counts).map(move |c| (kind, c)));
        rows.map(|(kind, (end, count))| {
            let Count { count, seconds, within } = *count;
            Ended { kind: kind.clone(), end: *end, count, seconds, within }
        })
        .collect()
    }
}
