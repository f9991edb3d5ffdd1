//! A host in numbers, for whoever watches it over months. How they are written down is the edges' part.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::host::Host;
use crate::power::PowerState;
use crate::record::{self, MACHINES, MachineRecord};

/// What a host counted since this process began, and what it has now.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Machines in each power state; every state is there.
    pub machines: Vec<(PowerState, usize)>,
    /// Each machine's last good export, by name of the machine.
    pub exports: Vec<LastExport>,
    /// Unfinished jobs, by kind and state; those there are.
    pub unfinished: Vec<(String, job::State, usize)>,
    /// Finished jobs, by kind and end; every kind and end is there.
    pub ended: Vec<job::Ended>,
    /// Bytes of disks moved, by kind of job; every kind that moves any is there.
    pub traffic: Vec<Traffic>,
    /// The store's transactions.
    pub store: store::Timing,
}

/// When a machine was last exported whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExport {
    /// The machine.
    pub machine: Uuid,
    /// Its name.
    pub name: String,
    /// When the package was complete; `None` for never.
    pub at: Option<Timestamp>,
}

/// Bytes that jobs of one kind moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The kind.
    pub kind: &'static str,
    /// Bytes of data read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// Counts the bytes that one kind of job moves, while it moves them.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    read: AtomicU64,
    written: AtomicU64,
}

/// Follows one copy after the other into a [`Counter`].
pub(crate) struct Meter<'a> {
    counter: &'a Counter,
    /// What the copy had read and written when it was last looked at.
    seen: Mutex<(u64, u64)>,
}

impl Counter {
    pub(crate) fn meter(&self) -> Meter<'_> {
        Meter { counter: self, seen: Mutex::default() }
    }

    fn traffic(&self, kind: &'static str) -> Traffic {
        let (read, written) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        Traffic { kind, read, written }
    }
}

impl Meter<'_> {
    /// Counts what is new in a copy's progress; one that shows less than before is that of the next copy.
    pub(crate) fn saw(&self, progress: &transfer::copy::Progress) {
        let now = (progress.read, progress.written);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if now.0 < seen.0 || now.1 < seen.1 { (0, 0) } else { *seen };
        self.counter.read.fetch_add(now.0 - before.0, Ordering::Relaxed);
        self.counter.written.fetch_add(now.1 - before.1, Ordering::Relaxed);
        *seen = now;
    }
}

/// The counters of a host.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) import: Counter,
    pub(crate) export: Counter,
}

impl Host {
    /// The host in numbers, now.
    ///
    /// # Errors
    /// The store fails or a record cannot be read.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut machines: Vec<_> = PowerState::ALL.iter().map(|state| (*state, 0)).collect();
        let notes: BTreeMap<Uuid, Timestamp> =
            self.export_notes()?.into_iter().filter_map(|note| Some((note.machine, note.last?.at))).collect();
        let mut exports = Vec::new();
        for record in record::list::<MachineRecord>(&*self.store, MACHINES)? {
            let power = self.cell(record.id).lock().power;
            machines.iter_mut().filter(|(state, _)| *state == power).for_each(|(_, count)| *count += 1);
            let at = notes.get(&record.id).copied();
            exports.push(LastExport { machine: record.id, name: record.settings.name, at });
        }
        exports.sort_by(|a, b| (&a.name, a.machine).cmp(&(&b.name, b.machine)));
        let mut unfinished: Vec<(String, job::State, usize)> = Vec::new();
        for status in self.jobs().list(&job::Filter { finished: Some(false), ..job::Filter::default() }) {
            match unfinished
                .iter_mut()
                .find(|(kind, state, _)| *kind == status.kind && *state == status.state)
            {
                Some((_, _, count)) => *count += 1,
                None => unfinished.push((status.kind, status.state, 1)),
            }
        }
        Ok(Statistics {
            machines,
            exports,
            unfinished,
            ended: self.jobs().ended(),
            traffic: vec![
                self.counters.import.traffic(<crate::import::Realize as job::Kind>::NAME),
                self.counters.export.traffic(<crate::export::Export as job::Kind>::NAME),
            ],
            store: self.timed.timing(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use transfer::copy::{Phase, Progress};

    #[test]
    fn bytes_are_counted_once_across_looks_and_copies() {
        let counter = Counter::default();
        let meter = counter.meter();
        let at = |read, written| Progress {
            phase: Phase::Copy,
            done: 0,
            total: 0,
            read,
            written,
            position: 0,
            size: 0,
        };
        for (read, written) in [(0, 0), (10, 5), (10, 5), (30, 20), (4, 4), (6, 4)] {
            meter.saw(&at(read, written));
        }
        assert_eq!(counter.traffic("x"), Traffic { kind: "x", read: 36, written: 24 });
    }
}
