//! What happens to machines when their host starts and stops.
//!
//! *Start.* The host starts when the daemon does. Machines at rest are started after their delays, which run beside each
//! other: those whose action is `restart` if they were wanted running, those with `always` unless somebody turned them off
//! in this same boot of the operating system (a restarted daemon must not bring back what a person just ended). A request
//! for the machine takes it off the list; a stop of one that waits is just that.
//!
//! *Stop.* [`Host::autostop`] does to each machine what its action says, all at once, each within a limit, and what it can
//! when that fails: see [`ladder`]. Machines are still wanted running afterwards, so that the next start brings them back.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use job::JobId;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::lifecycle::GONE_LIMIT;
use crate::power::PowerState;
use crate::record::{self, MACHINES, MachineRecord};
use crate::settings::{AutomaticStart, AutomaticStop};

/// Most machines that are started at the same moment; more wait for one of these.
const AT_ONCE: usize = 4;
/// When a machine that a job holds is tried again.
const BUSY_AGAIN: Duration = Duration::from_secs(5);
/// Most machines that are stopped at the same moment.
const STOPPED_AT_ONCE: usize = 32;

/// Machines that wait for their automatic start.
#[derive(Default)]
pub(crate) struct Automatic(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Default)]
struct List {
    due: BTreeMap<Uuid, Instant>,
    /// Starts under way.
    under_way: usize,
    closed: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next machine to start, when its time has come; `None` when nothing is left to wait for.
    fn next(&self) -> Option<Uuid> {
        let mut list = self.lock();
        loop {
            let first = list.due.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (*id, *at));
            let (id, at) = match first {
                _ if list.closed => return None,
                None if list.under_way == 0 => return None,
                // One that is under way may come back to the list.
                None => {
                    list = self.changed.wait(list).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(first) => first,
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() && list.under_way < AT_ONCE {
                list.due.remove(&id);
                list.under_way += 1;
                return Some(id);
            }
            list = if left.is_zero() {
                self.changed.wait(list).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// One start is over; `again` puts the machine back.
    fn over(&self, id: Uuid, again: Option<Duration>) {
        let mut list = self.lock();
        list.under_way -= 1;
        if let Some(delay) = again {
            list.due.insert(id, Instant::now() + delay);
        }
        drop(list);
        self.changed.notify_all();
    }
}

impl Automatic {
    /// Takes a machine off the list; whether it was on it.
    pub(crate) fn forget(&self, id: Uuid) -> bool {
        let waited = self.0.lock().due.remove(&id).is_some();
        if waited {
            self.0.changed.notify_all();
        }
        waited
    }

    /// Nothing is started any more; the machines that waited.
    fn close(&self) -> Vec<Uuid> {
        let mut list = self.0.lock();
        list.closed = true;
        let waited = std::mem::take(&mut list.due).into_keys().collect();
        drop(list);
        self.0.changed.notify_all();
        waited
    }

    fn begin(&self, host: &Arc<Host>, due: BTreeMap<Uuid, Instant>) {
        if due.is_empty() {
            return;
        }
        self.0.lock().due = due;
        let (waiting, host) = (Arc::clone(&self.0), Arc::downgrade(host));
        let watch = move || {
            while let Some(id) = waiting.next() {
                let (for_thread, host) = (Arc::clone(&waiting), Weak::clone(&host));
                let start = move || {
                    let again = host.upgrade().and_then(|host| host.start_by_itself(id));
                    for_thread.over(id, again);
                };
                if let Err(e) = std::thread::Builder::new().name(thread_name("start", id)).spawn(start) {
                    tracing::error!(machine = %id, "no thread for its automatic start: {e}");
                    waiting.over(id, Some(BUSY_AGAIN));
                }
            }
        };
        if let Err(e) = std::thread::Builder::new().name("automatic".into()).spawn(watch) {
            tracing::error!("no thread for automatic starts: {e}");
        }
    }
}

impl Drop for Automatic {
    fn drop(&mut self) {
        self.close();
    }
}

fn thread_name(doing: &str, id: Uuid) -> String {
    format!("{doing}-{}", &id.simple().to_string()[..8])
}

/// Whether a machine at rest is started by itself in `boot` of the host.
fn starts(record: &MachineRecord, boot: Option<&str>) -> bool {
    match record.settings.automatic.start {
        AutomaticStart::Nothing => false,
        AutomaticStart::Restart => record.wanted_running,
        AutomaticStart::Always => boot.is_none() || record.turned_off_in.as_deref() != boot,
    }
}

/// How a machine came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Its memory was saved.
    Saved,
    /// Its guest shut down.
    ShutDown,
    /// It was turned off.
    TurnedOff,
}

impl Rest {
    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::ShutDown => "shut-down",
            Self::TurnedOff => "turned-off",
        }
    }
}

/// What is tried, in order, for a stop action: what it says, then what loses least, and at last what always works.
pub fn ladder(action: AutomaticStop) -> &'static [Rest] {
    match action {
        AutomaticStop::TurnOff => &[Rest::TurnedOff],
        AutomaticStop::Save => &[Rest::Saved, Rest::ShutDown, Rest::TurnedOff],
        AutomaticStop::Shutdown => &[Rest::ShutDown, Rest::Saved, Rest::TurnedOff],
    }
}

/// What became of a machine when its host stopped.
#[derive(Debug)]
pub struct Stopped {
    /// The machine.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its stop action.
    pub action: AutomaticStop,
    /// How it came to rest; `None` when it still runs.
    pub rest: Option<Rest>,
    /// Why what comes before that in the [`ladder`] did not do.
    pub failed: Vec<Error>,
}

impl Host {
    /// Puts the machines that start by themselves on the list.
    pub(crate) fn start_automatically(self: &Arc<Self>) -> Result<()> {
        let now = Instant::now();
        let mut due = BTreeMap::new();
        for record in record::list::<MachineRecord>(&*self.store, MACHINES)? {
            let cell = self.cell(record.id);
            let mut running = cell.lock();
            if !running.power.at_rest() || !starts(&record, self.boot.as_deref()) {
                continue;
            }
            let seconds = record.settings.automatic.start_delay_seconds;
            if seconds > 0 {
                running.note = Some(format!("starts by itself after {seconds} s"));
            }
            due.insert(record.id, now + Duration::from_secs(seconds.into()));
        }
        if !due.is_empty() {
            tracing::info!(machines = due.len(), "start by themselves");
        }
        self.automatic.begin(self, due);
        Ok(())
    }

    /// Starts nothing by itself any more.
    pub fn stop_starting(&self) {
        self.automatic.close();
    }

    /// When to try again, if at all.
    fn start_by_itself(self: &Arc<Self>, id: Uuid) -> Option<Duration> {
        let Err(e) = self.start(id) else {
            tracing::info!(machine = %id, "started by itself");
            return None;
        };
        match e.reason() {
            // An import or export goes on from before; the machine's time comes when it is over.
            Reason::Busy => return Some(BUSY_AGAIN),
            // Somebody was faster, or it is gone.
            Reason::InvalidState | Reason::NotFound => return None,
            _ => {}
        }
        tracing::warn!(machine = %id, "its automatic start failed: {}", e.chain());
        self.cell(id).lock().note = Some(format!("its automatic start failed: {}", e.chain()));
        self.tell(id);
        None
    }

    /// Does to every machine with a guest what its action for the host's stop says, all at once, each step of each
    /// [`ladder`] within `limit`. They stay wanted running: the next start of the host brings them back. Machines that
    /// wait for their automatic start are not started any more.
    ///
    /// # Errors
    /// The store fails. What fails for one machine is in its [`Stopped`].
    pub fn autostop(self: &Arc<Self>, limit: Duration, owner: &str) -> Result<Vec<Stopped>> {
        for id in self.automatic.close() {
            self.cell(id).lock().note = None;
            self.tell(id);
        }
        let machines: Vec<MachineRecord> = record::list::<MachineRecord>(&*self.store, MACHINES)?
            .into_iter()
            .filter(|r| !self.cell(r.id).lock().power.at_rest())
            .collect();
        let (todo, done) = (Mutex::new(machines.iter()), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(record) = next else { return };
                let stopped = self.stop_for_host(record, limit, owner);
                done.lock().unwrap_or_else(PoisonError::into_inner).push(stopped);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..machines.len().min(STOPPED_AT_ONCE) {
                scope.spawn(work);
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by(|a: &Stopped, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(done)
    }

    fn stop_for_host(self: &Arc<Self>, record: &MachineRecord, limit: Duration, owner: &str) -> Stopped {
        let id = record.id;
        let action = record.settings.automatic.stop;
        let mut stopped =
            Stopped { id, name: record.settings.name.clone(), action, rest: None, failed: Vec::new() };
        let cell = self.cell(id);
        // What is on its way somewhere arrives first; one that was asked to shut down may well do so.
        cell.wait(limit, |r| !r.power.in_transition());
        cell.lock().host_stops = true;
        for step in ladder(action) {
            stopped.rest = match cell.lock().power {
                PowerState::Off => Some(Rest::ShutDown),
                PowerState::Saved => Some(Rest::Saved),
                _ => None,
            };
            if stopped.rest.is_some() {
                break;
            }
            let did = match step {
                Rest::Saved => self.save_for_host(id, limit, owner),
                Rest::ShutDown => self.shutdown(id, limit),
                Rest::TurnedOff => self.stop(id),
            };
            match did {
                Ok(()) => {
                    stopped.rest = Some(*step);
                    break;
                }
                Err(e) => {
                    tracing::warn!(machine = %id, "not {} for the host: {}", step.as_str(), e.chain());
                    stopped.failed.push(e);
                }
            }
        }
        let mut running = cell.lock();
        if !running.power.at_rest() {
            // It goes on: what ends it later is somebody's wish again.
            running.host_stops = false;
        }
        stopped
    }

    fn save_for_host(self: &Arc<Self>, id: Uuid, limit: Duration, owner: &str) -> Result<()> {
        let job = JobId(self.submit_save(id, owner, true)?);
        let status = self.jobs().wait(job, limit);
        if status.as_ref().is_some_and(|s| s.state.is_finished()) {
            return saved(status.as_ref());
        }
        // Cancelled, it may still have come to its end.
        let _ = self.jobs().cancel(job);
        saved(self.jobs().wait(job, GONE_LIMIT).as_ref())
    }
}

fn saved(status: Option<&job::Status>) -> Result<()> {
    match status {
        Some(s) if s.state.is_success() => Ok(()),
        Some(job::Status { error: Some(e), .. }) => {
            let reason = Reason::ALL.into_iter().find(|r| r.id() == e.id).unwrap_or(Reason::Engine);
            let error = Error::new(reason, e.message.clone());
            Err(e.hint.iter().fold(error, |error, hint| error.hint(hint.clone())))
        }
        Some(s) if s.state == job::State::Cancelled => {
            Err(Error::new(Reason::Timeout, "saving it took longer than the limit"))
        }
        _ => Err(Error::new(Reason::Timeout, "saving it does not come to an end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Generation, Settings};

    fn machine(start: AutomaticStart, wanted_running: bool, turned_off_in: Option<&str>) -> MachineRecord {
        let mut settings = Settings::new("m", Generation::One);
        settings.automatic.start = start;
        MachineRecord {
            version: 1,
            id: Uuid::nil(),
            settings,
            created: jiff::Timestamp::UNIX_EPOCH,
            home: "/m".into(),
            origin: None,
            resolved: None,
            run_generation: 0,
            wanted_running,
            turned_off_in: turned_off_in.map(str::to_owned),
            changed_by: None,
            saved: None,
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn who_starts_by_itself() {
        use AutomaticStart::{Always, Nothing, Restart};
        for (start, wanted, off_in, boot, does) in [
            (Nothing, true, None, Some("b"), false),
            (Restart, true, None, Some("b"), true),
            (Restart, false, None, Some("b"), false),
            (Always, true, None, Some("b"), true),
            (Always, false, None, Some("b"), true),
            (Always, false, Some("a"), Some("b"), true),
            (Always, false, Some("b"), Some("b"), false),
            // Nobody can tell the boots apart.
            (Always, false, Some("b"), None, true),
            (Always, false, None, None, true),
        ] {
            let record = machine(start, wanted, off_in);
            assert_eq!(
                starts(&record, boot),
                does,
                "{start:?} wanted {wanted} off in {off_in:?} now {boot:?}"
            );
        }
    }

    #[test]
    fn every_ladder_begins_with_what_was_asked_for_and_ends_with_what_always_works() {
        for (action, first) in [
            (AutomaticStop::TurnOff, Rest::TurnedOff),
            (AutomaticStop::Save, Rest::Saved),
            (AutomaticStop::Shutdown, Rest::ShutDown),
        ] {
            assert_eq!(ladder(action).first(), Some(&first));
            assert_eq!(ladder(action).last(), Some(&Rest::TurnedOff));
        }
    }
}
