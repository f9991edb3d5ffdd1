//! The simulator: the engine without guest systems, deterministic, with a clock to drive and faults to inject.
//!
//! It is the test bed of what is built on the engine, and what tool authors run in the place of a host. It refuses what
//! a real engine refuses for reasons it can see (a wrong specification, a missing file, a disk in use, a second guest in
//! one place) and has the same states and events in the same order.
//!
//! ```text
//!   SimEngine ─ Engine ──▶ Guest            what any engine offers
//!      │
//!      ├─ clock     real or driven: boot times, counters, delays and events go by it
//!      ├─ faults    which operation, the how-manieth time, what then
//!      ├─ events    what guests do by themselves, now or at a time
//!      └─ seed      every choice that the simulator makes
//! ```
//!
//! Guests live in the engine, not in their handles: dropping one and attaching again works as with processes. They also
//! outlive the engine's own process, by a record in their runtime directory, so that a daemon that was killed finds
//! them again as it would find real ones. What a guest does is in [`guest`], and why, in `docs/design/simulator.md`.
//!
//! What it is not: it runs no instruction, has no VNC, and touches a disk only when told to on the guest's console.

mod behaviour;
mod clock;
mod disk;
mod event;
mod faults;
mod guest;
mod handle;
mod record;
mod screen;
mod seed;
mod serial;
mod shell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use uuid::Uuid;

pub use behaviour::{Behaviour, MAX_BEHAVIOUR, MIN_TICK};
pub use clock::{ClockMode, MAX_ACTIONS, MAX_ADVANCE};
pub use event::{Event, Happening, MAX_EVENTS};
pub use faults::{
    Effect, Fault, Faults, JobStop, MAX_DELAY, MAX_RULES, Met, Named, Operation, Place, Rule, RuleError,
};
pub use guest::GuestView;
pub use seed::{Random, Seed};

use crate::error::{AttachError, AttachErrorKind, StartError, StartErrorKind};
use crate::guest::{Engine, Guest, GuestEvent, Listener};
use crate::host::{Check, HostReport, KvmVerdict, Program, Verdict};
use crate::keys::{Chord, Stroke};
use crate::spec::{Accel, Chipset, GuestSpec, Resolved};
use clock::{Slot, Timeline};
use faults::Rules;
use guest::Core;
use record::{GuestRecord, SavedState, WorldRecord};
use serial::Hub;

/// Ids that are put on record ahead of those that are given, so that not each of them costs a write.
const ID_BLOCK: u64 = 256;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
    changed.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}

/// How a simulation begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SimOptions {
    /// What all its choices are made from.
    pub seed: Seed,
    /// What moves its time.
    pub clock: ClockMode,
    /// How guests behave that nothing else is said of.
    pub behaviour: Behaviour,
    /// Where the simulation is kept, so that it outlives the process; `None` keeps it in memory.
    pub record: Option<PathBuf>,
}

/// The simulator. Clones share the simulation.
#[derive(Clone)]
pub struct SimEngine {
    world: Arc<World>,
}

impl std::fmt::Debug for SimEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimEngine")
            .field("guests", &lock(&self.world.guests).by_dir.len())
            .finish_non_exhaustive()
    }
}

impl Default for SimEngine {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything that the simulation is.
struct World {
    time: Arc<Timeline>,
    faults: Faults,
    hub: Arc<Hub>,
    guests: Mutex<Guests>,
    settings: Mutex<Settings>,
    events: Mutex<Events>,
    record: Option<PathBuf>,
    /// Held while the record is written, so that an older one never replaces a newer.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Guests {
    by_dir: HashMap<PathBuf, Arc<Core>>,
    /// Files in use: whether somebody writes, and how many use them.
    files: HashMap<PathBuf, (bool, usize)>,
}

struct Settings {
    seed: Seed,
    ordinary: Behaviour,
    behaviours: BTreeMap<Uuid, Behaviour>,
    /// Ids given so far, and up to which they are on record.
    ids: (u64, u64),
}

#[derive(Default)]
struct Events {
    given: u64,
    waiting: BTreeMap<u64, (Event, Slot)>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.time.stop();
        self.hub.stop();
    }
}

/// Files that a guest uses, and whether it writes them.
fn files(spec: &GuestSpec) -> impl Iterator<Item = (&PathBuf, bool)> {
    spec.disks.iter().flat_map(|disk| {
        let written = !disk.is_read_only();
        disk.layers.iter().enumerate().map(move |(depth, layer)| (&layer.path, written && depth == 0))
    })
}

impl Guests {
    /// A file that one of the guests writes and the other uses at all.
    fn conflict(&self, spec: &GuestSpec) -> Option<PathBuf> {
        files(spec)
            .find(|(path, write)| self.files.get(*path).is_some_and(|(wrote, _)| *write || *wrote))
            .map(|(path, _)| path.clone())
    }

    fn insert(&mut self, core: &Arc<Core>) {
        for (path, write) in files(&core.spec) {
            let users = self.files.entry(path.clone()).or_default();
            *users = (users.0 || write, users.1 + 1);
        }
        self.by_dir.insert(core.spec.runtime_dir.clone(), Arc::clone(core));
    }

    fn remove(&mut self, core: &Core) {
        if !self.by_dir.get(&core.spec.runtime_dir).is_some_and(|there| std::ptr::eq(&**there, core)) {
            return;
        }
        self.by_dir.remove(&core.spec.runtime_dir);
        for (path, _) in files(&core.spec) {
            if let Some((_, users)) = self.files.get_mut(path) {
                *users -= 1;
                if *users == 0 {
                    self.files.remove(path);
                }
            }
        }
    }

    fn find(&self, word: &str) -> Option<Arc<Core>> {
        let id = Uuid::try_parse(word).ok();
        self.by_dir.values().find(|c| Some(c.spec.id) == id || c.spec.name == word).cloned()
    }
}

impl World {
    fn behaviour(&self, id: Uuid) -> Behaviour {
        let settings = lock(&self.settings);
        settings.behaviours.get(&id).copied().unwrap_or(settings.ordinary)
    }

    fn forget(&self, core: &Core) {
        lock(&self.guests).remove(core);
    }

    fn meet(&self, operation: Operation, who: &Named<'_>, gone: &dyn Fn() -> bool) -> Result<(), Met> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let met = self.faults.meet(operation, who, gone);
        self.keep();
        met
    }

    /// Puts the simulation on record.
    fn keep(&self) {
        let Some(path) = &self.record else { return };
        let _writing = lock(&self.writing);
        let clock = (self.time.mode(), self.time.now());
        let (events, given) = {
            let events = lock(&self.events);
            (events.waiting.values().map(|(event, _)| event.clone()).collect(), events.given)
        };
        let record = {
            let s = lock(&self.settings);
            let rules = self.faults.rules();
            WorldRecord::new(s.seed.0, clock, s.ordinary, s.behaviours.clone(), rules, events, given, s.ids.1)
        };
        if let Err(e) = record.write(path) {
            tracing::warn!(record = %path.display(), "the simulation is not kept: {e}");
        }
    }

    fn schedule(self: &Arc<Self>, event: Event) {
        let (world, id) = (Arc::downgrade(self), event.id);
        let action = move |_| {
            if let Some(world) = Weak::upgrade(&world) {
                world.occur(id);
            }
        };
        let slot = self.time.schedule(event.at, Box::new(action));
        lock(&self.events).waiting.insert(event.id, (event, slot));
    }

    /// The time of an event has come.
    fn occur(&self, id: u64) {
        let Some((event, _)) = lock(&self.events).waiting.remove(&id) else { return };
        let guest = lock(&self.guests).find(&event.machine);
        match guest {
            Some(guest) => guest.happen(&event.what),
            None => {
                tracing::info!(machine = event.machine, event = id, "it does not run, so nothing happened");
            }
        }
        self.keep();
    }
}

/// Why the simulation was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// No guest of that machine runs.
    #[error("no simulated guest of `{0}` runs")]
    NoGuest(String),
    /// A value means nothing.
    #[error("{0}")]
    Invalid(String),
}

impl SimEngine {
    /// A simulation in memory whose clock is driven, with nothing in it.
    pub fn new() -> Self {
        Self::build(SimOptions::default(), None)
    }

    /// The simulation that `options` name a record of, as it was left; else a new one.
    ///
    /// # Errors
    /// There is a record and it cannot be read.
    pub fn open(options: SimOptions) -> io::Result<Self> {
        let kept = match &options.record {
            Some(path) => WorldRecord::read(path)?,
            None => None,
        };
        let engine = Self::build(options, kept);
        engine.world.keep();
        Ok(engine)
    }

    fn build(options: SimOptions, kept: Option<WorldRecord>) -> Self {
        let SimOptions { seed, clock, behaviour, record } = options;
        let kept = kept.unwrap_or_else(|| {
            let clock = (clock, Duration::ZERO);
            WorldRecord::new(seed.0, clock, behaviour, BTreeMap::new(), Rules::default(), Vec::new(), 0, 0)
        });
        let time = Timeline::new(kept.mode, kept.elapsed_by_now());
        let world = Arc::new(World {
            faults: Faults::new(Arc::clone(&time), kept.rules),
            time,
            hub: Hub::new(),
            guests: Mutex::default(),
            settings: Mutex::new(Settings {
                seed: Seed(kept.seed),
                ordinary: kept.ordinary,
                behaviours: kept.behaviours,
                ids: (kept.ids, kept.ids),
            }),
            events: Mutex::new(Events { given: kept.events_given, waiting: BTreeMap::new() }),
            record,
            writing: Mutex::new(()),
        });
        kept.events.into_iter().for_each(|event| world.schedule(event));
        Self { world }
    }

    /// Begins anew: every guest dies, and clock, faults, events and ids are as `options` say. The record stays where
    /// it is.
    pub fn restart(&self, options: &SimOptions) {
        let guests: Vec<Arc<Core>> = lock(&self.world.guests).by_dir.values().cloned().collect();
        for guest in guests {
            guest.end(GuestEvent::Died { message: "the simulation began anew".into() });
        }
        self.world.time.restart(options.clock, Duration::ZERO);
        self.world.faults.restart();
        *lock(&self.world.events) = Events::default();
        *lock(&self.world.settings) = Settings {
            seed: options.seed,
            ordinary: options.behaviour,
            behaviours: BTreeMap::new(),
            ids: (0, 0),
        };
        self.world.keep();
    }

    /// What everything is chosen from.
    pub fn seed(&self) -> Seed {
        lock(&self.world.settings).seed
    }

    /// An id that was not given before.
    pub fn fresh_id(&self) -> Uuid {
        let (id, keep) = {
            let mut settings = lock(&self.world.settings);
            settings.ids.0 += 1;
            let keep = settings.ids.0 > settings.ids.1;
            if keep {
                settings.ids.1 = settings.ids.0 + ID_BLOCK - 1;
            }
            (settings.seed.id(&format!("id/{}", settings.ids.0)), keep)
        };
        // On record before it is used: one that was given may be in a store that outlives us.
        if keep {
            self.world.keep();
        }
        id
    }

    /// What moves the time.
    pub fn clock_mode(&self) -> ClockMode {
        self.world.time.mode()
    }

    /// Time since the simulation began.
    pub fn now(&self) -> Duration {
        self.world.time.now()
    }

    /// Lets something else move the time.
    pub fn set_clock_mode(&self, mode: ClockMode) {
        self.world.time.set_mode(mode);
        self.world.keep();
    }

    /// Moves the time on. When this returns, all that was due has happened and its events have been sent.
    ///
    /// # Errors
    /// Too far, or too much would happen on the way.
    pub fn advance(&self, by: Duration) -> Result<Duration, SimError> {
        if by > MAX_ADVANCE {
            let days = MAX_ADVANCE.as_secs() / (24 * 3600);
            return Err(SimError::Invalid(format!("time is advanced by {days} days at most")));
        }
        let cores: Vec<Arc<Core>> = lock(&self.world.guests).by_dir.values().cloned().collect();
        let ticks = cores.iter().map(|core| core.behaviour().tick).filter(|tick| !tick.is_zero());
        let due: u64 = ticks.map(|t| u64::try_from(by.as_nanos() / t.as_nanos()).unwrap_or(u64::MAX)).sum();
        if due > MAX_ACTIONS {
            let message = format!("guests would count {due} times on the way, more than {MAX_ACTIONS}");
            return Err(SimError::Invalid(format!("{message}: advance by less, or let them tick slower")));
        }
        let now = self.world.time.advance(by);
        self.world.keep();
        Ok(now)
    }

    /// The rules that operations meet.
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// It cannot mean anything, or there are too many.
    pub fn add_fault(&self, rule: Rule) -> Result<Fault, RuleError> {
        let fault = self.world.faults.add(rule)?;
        self.world.keep();
        Ok(fault)
    }

    /// Takes a rule away and lets go of what hangs at it; whether there was one.
    pub fn clear_fault(&self, id: u64) -> bool {
        let there = self.world.faults.clear(id);
        self.world.keep();
        there
    }

    /// Takes all rules away; how many there were.
    pub fn clear_faults(&self) -> usize {
        let count = self.world.faults.clear_all();
        self.world.keep();
        count
    }

    /// A job stands at a stop; see [`Faults::stand`].
    ///
    /// # Errors
    /// The failure that it is to have.
    pub fn stand(&self, fault: u64, interrupted: &dyn Fn() -> bool) -> Result<(), Met> {
        let met = self.world.faults.stand(fault, interrupted);
        self.world.keep();
        met
    }

    /// Lets a guest do something now.
    ///
    /// # Errors
    /// It does not run, or its words cannot be told.
    pub fn happen(&self, machine: &str, what: &Happening) -> Result<(), SimError> {
        if let Some(problem) = what.problem() {
            return Err(SimError::Invalid(problem));
        }
        let guest = lock(&self.world.guests).find(machine);
        guest.ok_or_else(|| SimError::NoGuest(machine.to_owned()))?.happen(what);
        Ok(())
    }

    /// Lets a machine's guest do something when the clock comes to `at`.
    ///
    /// # Errors
    /// Its words cannot be told, or too many events wait already.
    pub fn plan(&self, machine: &str, at: Duration, what: Happening) -> Result<Event, SimError> {
        if let Some(problem) = what.problem() {
            return Err(SimError::Invalid(problem));
        }
        let event = {
            let mut events = lock(&self.world.events);
            if events.waiting.len() >= MAX_EVENTS {
                return Err(SimError::Invalid(format!("{MAX_EVENTS} events wait already")));
            }
            events.given += 1;
            Event { id: events.given, machine: machine.to_owned(), at, what }
        };
        self.world.schedule(event.clone());
        self.world.keep();
        Ok(event)
    }

    /// What guests will do, in the order it was planned.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.world.events).waiting.values().map(|(event, _)| event.clone()).collect()
    }

    /// Takes back an event, or all of them; how many there were.
    pub fn cancel_events(&self, id: Option<u64>) -> usize {
        let gone: Vec<(Event, Slot)> = {
            let mut events = lock(&self.world.events);
            match id {
                Some(id) => events.waiting.remove(&id).into_iter().collect(),
                None => std::mem::take(&mut events.waiting).into_values().collect(),
            }
        };
        for (_, slot) in &gone {
            self.world.time.cancel(*slot);
        }
        self.world.keep();
        gone.len()
    }

    /// Every guest that runs, by name.
    pub fn guests(&self) -> Vec<GuestView> {
        let cores: Vec<Arc<Core>> = lock(&self.world.guests).by_dir.values().cloned().collect();
        let now = self.now();
        let mut views: Vec<GuestView> = cores.iter().map(|core| core.view(now)).collect();
        views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        views
    }

    /// How the guests of machine `id` behave.
    pub fn behaviour(&self, id: Uuid) -> Behaviour {
        self.world.behaviour(id)
    }

    /// Lets the guests of machine `id` behave so: the one that runs, and those to come.
    ///
    /// # Errors
    /// No guest can behave so.
    pub fn set_behaviour(&self, id: Uuid, behaviour: Behaviour) -> Result<(), SimError> {
        if let Some(problem) = behaviour.problem() {
            return Err(SimError::Invalid(problem));
        }
        lock(&self.world.settings).behaviours.insert(id, behaviour);
        let guest = lock(&self.world.guests).by_dir.values().find(|c| c.spec.id == id).cloned();
        if let Some(guest) = guest {
            guest.behave(&self.world, behaviour);
        }
        self.world.keep();
        Ok(())
    }

    /// The inside of a running guest, for a test to play.
    pub fn control(&self, id: Uuid) -> Option<SimGuestControl> {
        let core = lock(&self.world.guests).by_dir.values().find(|c| c.spec.id == id).cloned()?;
        Some(SimGuestControl { engine: self.clone(), core })
    }
}

/// Machine versions that simulated guests can be given, by chipset.
fn machine_version(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::Pc => "sim-pc-1",
        Chipset::Q35 => "sim-q35-1",
    }
}

impl SimEngine {
    /// What lies in wait for a start comes before anything is looked at, and holds nobody else up.
    fn begin(&self, operation: Operation, spec: &GuestSpec) -> Result<(), StartError> {
        let who = Named { id: spec.id, name: &spec.name };
        self.world.meet(operation, &who, &|| false).map_err(|Met { kind, message }| {
            StartError::new(faults::named(&kind).unwrap_or(StartErrorKind::Failed), message)
        })
    }

    /// Starts a guest, from a saved state if there is one.
    fn launch(
        &self,
        spec: &GuestSpec,
        saved: Option<SavedState>,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError> {
        spec.validate().map_err(|e| {
            StartError::new(StartErrorKind::InvalidSpec, "the guest's specification is wrong").with_source(e)
        })?;
        if spec.accel == Accel::Kvm {
            return Err(StartError::new(StartErrorKind::NoAccel, "the simulator has no KVM"));
        }
        let media = spec.drives.iter().filter_map(|d| d.media.as_ref());
        for path in files(spec).map(|(path, _)| path).chain(media) {
            fs::metadata(path).map_err(|e| {
                StartError::new(StartErrorKind::NotFound, format!("{} cannot be opened", path.display()))
                    .with_source(e)
            })?;
        }
        let resolved = Resolved {
            machine_version: spec
                .machine_version
                .clone()
                .unwrap_or_else(|| machine_version(spec.chipset).into()),
            cpu_model: spec.cpu_model.clone().unwrap_or_else(|| "sim".into()),
            accel: Accel::Tcg,
        };
        let core = Core::new(&self.world, spec.clone(), resolved, None);
        {
            let mut guests = lock(&self.world.guests);
            if guests.by_dir.contains_key(&spec.runtime_dir) {
                let message = format!("a guest already runs in {}", spec.runtime_dir.display());
                return Err(StartError::new(StartErrorKind::AlreadyRunning, message));
            }
            if let Some(path) = guests.conflict(spec) {
                let message = format!("{} is in use by another guest", path.display());
                return Err(StartError::new(StartErrorKind::InUse, message));
            }
            guests.insert(&core);
        }
        if let Err(e) = core.power_on(&self.world, saved, events) {
            self.world.forget(&core);
            let message = format!("{} cannot be written to", spec.runtime_dir.display());
            return Err(StartError::new(StartErrorKind::Failed, message).with_source(e));
        }
        Ok(core.handle())
    }
}

impl Engine for SimEngine {
    fn start(&self, spec: &GuestSpec, events: Box<dyn Listener>) -> Result<Box<dyn Guest>, StartError> {
        self.begin(Operation::Start, spec)?;
        self.launch(spec, None, events)
    }

    fn restore(
        &self,
        spec: &GuestSpec,
        state: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError> {
        self.begin(Operation::Restore, spec)?;
        let saved = SavedState::read(state).map_err(|e| {
            let (kind, what) = match e.kind() {
                io::ErrorKind::NotFound => (StartErrorKind::NotFound, "cannot be opened"),
                _ => (StartErrorKind::BadState, "is no state that can be loaded"),
            };
            StartError::new(kind, format!("{} {what}", state.display())).with_source(e)
        })?;
        if spec.machine_version.as_ref() != Some(&saved.machine_version) {
            let message = format!("it was saved as a {}", saved.machine_version);
            return Err(StartError::new(StartErrorKind::BadState, message));
        }
        self.launch(spec, Some(saved), events)
    }

    fn attach(
        &self,
        runtime_dir: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Option<Box<dyn Guest>>, AttachError> {
        let there = lock(&self.world.guests).by_dir.get(runtime_dir).cloned();
        let core = match there {
            Some(core) => core,
            None => {
                let kept = GuestRecord::read(runtime_dir).map_err(|e| {
                    let message = format!("the record in {} cannot be read", runtime_dir.display());
                    AttachError::new(AttachErrorKind::BadRecord, message).with_source(e)
                })?;
                let Some(GuestRecord { spec, resolved, life, .. }) = kept else { return Ok(None) };
                let core = Core::new(&self.world, spec, resolved, Some(life));
                lock(&self.world.guests).insert(&core);
                core.revive(&self.world);
                core
            }
        };
        core.listen(events);
        Ok(Some(core.handle()))
    }

    fn probe(&self) -> HostReport {
        HostReport {
            engine: "sim".into(),
            program: Some(Program { path: PathBuf::from("sim"), version: env!("CARGO_PKG_VERSION").into() }),
            kvm: KvmVerdict { usable: false, reason: "the simulator runs no instructions".into(), fix: None },
            machine_versions: [Chipset::Pc, Chipset::Q35].map(|c| machine_version(c).to_owned()).into(),
            firmware: Vec::new(),
            tpm: None,
            bridges: Vec::new(),
            bridge_helper: None,
            checks: vec![Check {
                id: "sim".into(),
                verdict: Verdict::Ok,
                found: "guests are simulated; nothing runs in them".into(),
                fix: None,
            }],
        }
    }
}

/// Plays the inside of a guest.
#[derive(Clone)]
pub struct SimGuestControl {
    engine: SimEngine,
    core: Arc<Core>,
}

impl std::fmt::Debug for SimGuestControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimGuestControl").field("id", &self.core.spec.id).finish_non_exhaustive()
    }
}

impl SimGuestControl {
    /// The guest's process dies.
    pub fn crash(&self, message: &str) {
        self.core.happen(&Happening::Kill { message: message.into() });
    }

    /// The guest shuts itself down.
    pub fn shut_down(&self) {
        self.core.happen(&Happening::PowerOff);
    }

    /// The guest's kernel panics.
    pub fn kernel_panic(&self) {
        self.core.happen(&Happening::Panic);
    }

    /// The guest restarts itself.
    pub fn reboot(&self) {
        self.core.happen(&Happening::Reboot);
    }

    /// A disk fails: the guest is paused and says so.
    pub fn disk_error(&self, disk: &str, message: &str) {
        self.core.happen(&Happening::DiskError { disk: Some(disk.into()), message: message.into() });
    }

    /// Whether the guest shuts down when asked (so it is at first) or never.
    pub fn obeys_shutdown(&self, obeys: bool) {
        let behaviour = Behaviour { obeys_shutdown: obeys, ..self.core.behaviour() };
        // A behaviour that was in force is none that cannot be.
        let _ = self.engine.set_behaviour(self.core.spec.id, behaviour);
    }

    /// What the guest remembers.
    pub fn memory(&self) -> String {
        self.core.memory()
    }

    /// The guest remembers something else, until it restarts.
    pub fn remember(&self, text: &str) {
        self.core.remember(text);
    }

    /// What is in a drive.
    pub fn media(&self, drive: &str) -> Option<PathBuf> {
        self.core.media(drive)
    }

    /// Whether an adapter's cable is in.
    pub fn link(&self, nic: &str) -> Option<bool> {
        self.core.link(nic)
    }

    /// Every key that went down or up so far, beside those that were typed.
    pub fn strokes(&self) -> Vec<Stroke> {
        self.core.strokes()
    }

    /// How often it was interrupted.
    pub fn interrupts(&self) -> u32 {
        self.core.interrupts()
    }

    /// Every chord typed so far.
    pub fn typed(&self) -> Vec<Chord> {
        self.core.typed()
    }
}
