//! The simulator behind the daemon: its scenario read, applied and begun anew, and how it meets the domain.
//!
//! A scenario is applied once, and again by a reset; a daemon that is started again goes on with what it finds. That it is
//! being applied is on record in the store before the first machine is made, so that a death in the middle begins anew.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use engine::SimEngine;
use engine::sim::{ClockMode, Named, Seed, SimOptions};
use jiff::Timestamp;
use machine::power::PowerState;
use machine::switch::{DEFAULT_SWITCH, SwitchKind};
use machine::{Ambient, Host, Reason};
use rest::server::Simulation;
use rest::wire::{Define, Scenario, ScenarioMachine};
use store::{Outcome, Store, Txn};
use uuid::Uuid;

use crate::error::{ServeError, ServeErrorKind as Kind};

/// Largest scenario file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Most machines of one scenario.
const MAX_MACHINES: usize = 10_000;
/// The store's key under which it says how far the scenario is.
const KEY: &str = "simulator/scenario";
/// What the store says while a scenario is being applied, and when it is.
const APPLYING: &[u8] = b"applying";
const APPLIED: &[u8] = b"applied";
/// The scenario that the data was made from, beside the store.
const COPY: &str = "scenario.json";
/// Bytes of a scenario's disk that the seed fills unless told otherwise.
const SEEDED: u64 = 64 << 10;
/// When a scenario begins unless told otherwise.
const START: &str = "2025-01-01T00:00:00Z";
/// Who asks for the jobs that bring a scenario's machines to their beginning.
const OWNER: &str = "scenario";
/// How long jobs and guests may take to be gone when a scenario begins anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a scenario: TOML, or JSON when the name ends so.
///
/// # Errors
/// The file cannot be read, or says something that no scenario has; the message says where.
pub fn read(path: &Path) -> Result<Scenario, ServeError> {
    let failed = |message: String| ServeError::new(Kind::Scenario, message);
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|e| failed(format!("cannot read scenario `{}`", path.display())).caused_by(e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(format!("scenario `{}` is larger than {MAX_FILE} bytes", path.display())));
    }
    let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let read: Result<Scenario, String> = if json {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        // Its message says line and column, and shows the line.
        toml::from_str(&text).map_err(|e| e.to_string().trim_end().to_owned())
    };
    let checked = read.and_then(|scenario| validate(&scenario).map(|()| scenario));
    checked.map_err(|why| failed(format!("scenario `{}`: {why}", path.display())))
}

/// The simulation as the daemon holds it.
pub(crate) struct Simulated {
    pub(crate) engine: SimEngine,
    /// The scenario that a reset goes back to.
    first: Scenario,
    start: Arc<Mutex<Timestamp>>,
    store: Arc<dyn Store>,
    data: PathBuf,
    host: Arc<OnceLock<Weak<Host>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(scenario: &Scenario, record: Option<PathBuf>) -> Result<SimOptions, String> {
    let behaviour = scenario.guests.over(engine::sim::Behaviour::default());
    if let Some(problem) = behaviour.problem() {
        return Err(format!("guests: {problem}"));
    }
    let clock = rest::wire::clock_mode(scenario.clock.mode.as_deref())?.unwrap_or(ClockMode::Manual);
    Ok(SimOptions { seed: Seed(scenario.seed), clock, behaviour, record })
}

fn start_of(scenario: &Scenario) -> Result<Timestamp, String> {
    let text = scenario.clock.start.as_deref().unwrap_or(START);
    text.parse().map_err(|e| format!("clock.start: `{text}` is no time: {e}"))
}

/// Every machine of a scenario, by name and id.
fn machines(scenario: &Scenario) -> Result<Vec<(String, Uuid, &ScenarioMachine)>, String> {
    let mut all = Vec::new();
    for machine in &scenario.machines {
        let count = machine.count.unwrap_or(1) as usize;
        if all.len() + count > MAX_MACHINES {
            return Err(format!("a scenario has at most {MAX_MACHINES} machines"));
        }
        if machine.count.is_some() && machine.id.is_some() {
            return Err(format!("machine `{}`: `count` machines cannot have one `id`", machine.name));
        }
        let width = count.to_string().len();
        for number in 1..=count {
            let name = match machine.count {
                Some(_) => format!("{}-{number:0width$}", machine.name),
                None => machine.name.clone(),
            };
            let derived = || Seed(scenario.seed).id(&format!("machine/{name}"));
            all.push((name.clone(), machine.id.unwrap_or_else(derived), machine));
        }
    }
    let mut ids: Vec<Uuid> = all.iter().map(|(_, id, _)| *id).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two machines have the id {} (the same name gives the same id)", pair[0]));
    }
    Ok(all)
}

/// Everything that can be found wrong before anything is done.
fn validate(scenario: &Scenario) -> Result<(), String> {
    options(scenario, None)?;
    start_of(scenario)?;
    for (name, id, machine) in machines(scenario)? {
        let at = |why: String| format!("machine `{name}`: {why}");
        machine::define::DefineRequest::try_from(machine.define(&name, id)).map_err(at)?;
        if !matches!(machine.state.as_deref(), None | Some("off" | "running" | "paused" | "saved")) {
            return Err(at("`state` is off, running, paused or saved".to_owned()));
        }
        if let Some(behaviour) = machine.guest
            && let Some(problem) = behaviour.over(engine::sim::Behaviour::default()).problem()
        {
            return Err(at(problem));
        }
    }
    for (n, fault) in scenario.faults.iter().enumerate() {
        engine::sim::Rule::try_from(fault.clone()).map_err(|why| format!("fault {}: {why}", n + 1))?;
    }
    for (n, event) in scenario.events.iter().enumerate() {
        event.happening().map_err(|why| format!("event {}: {why}", n + 1))?;
    }
    Ok(())
}

fn invalid(why: impl Into<String>) -> machine::Error {
    machine::Error::new(Reason::InvalidArgument, why)
}

impl Simulated {
    /// The simulation whose record lies in `runtime`, as it was left; else a new one. Without a scenario its time is real.
    pub(crate) fn open(
        scenario: Option<Scenario>,
        runtime: &Path,
        data: &Path,
        store: Arc<dyn Store>,
    ) -> Result<Self, ServeError> {
        let wrong = |why: String| ServeError::new(Kind::Scenario, format!("the scenario cannot be: {why}"));
        let (first, start) = match scenario {
            Some(scenario) => {
                let start = start_of(&scenario).map_err(wrong)?;
                (scenario, start)
            }
            None => {
                let clock = rest::wire::ScenarioClock { mode: Some("real".to_owned()), start: None };
                (Scenario { clock, ..Scenario::default() }, Timestamp::now())
            }
        };
        let record = runtime.join("simulator.json");
        let options = options(&first, Some(record.clone())).map_err(wrong)?;
        let engine = SimEngine::open(options).map_err(|e| {
            ServeError::new(Kind::Host, format!("cannot read `{}`", record.display()))
                .caused_by(e)
                .hint("remove it, and with it what is left of simulated guests")
        })?;
        // Real time that went on while no daemon ran is in the record; the beginning stays where it was.
        let start = if engine.clock_mode() == ClockMode::Real && first.clock.start.is_none() {
            start.saturating_sub(engine.now()).unwrap_or(start)
        } else {
            start
        };
        Ok(Self {
            engine,
            first,
            start: Arc::new(Mutex::new(start)),
            store,
            data: data.to_owned(),
            host: Arc::default(),
        })
    }

    /// What the host takes from the simulation.
    pub(crate) fn ambient(&self) -> Ambient {
        let engine = self.engine.clone();
        Ambient {
            ids: Arc::new(move || engine.fresh_id()),
            clock: Arc::new(SimulatedClock {
                engine: self.engine.clone(),
                start: Arc::clone(&self.start),
                monotonic: job::SystemClock::new(),
            }),
            gate: Some(Arc::new(FaultGate { engine: self.engine.clone(), host: Arc::clone(&self.host) })),
            ..Ambient::default()
        }
    }

    /// What clients get to control it with.
    pub(crate) fn control(self: &Arc<Self>) -> Simulation {
        let (me, engine, start) = (Arc::clone(self), self.engine.clone(), Arc::clone(&self.start));
        Simulation {
            engine: self.engine.clone(),
            time: Arc::new(move || time_of(&engine, &start).to_string()),
            restart: Arc::new(move |host, scenario| me.restart(host, scenario)),
        }
    }

    /// Lets `host` be asked for the names of machines.
    pub(crate) fn serve(&self, host: &Arc<Host>) {
        let _ = self.host.set(Arc::downgrade(host));
    }

    /// Applies the scenario unless that was done before; `given` says whether there is one.
    pub(crate) fn begin(&self, host: &Arc<Host>, given: bool) -> Result<(), machine::Error> {
        if !given {
            return Ok(());
        }
        let copy = self.data.join(COPY);
        let text = serde_json::to_string_pretty(&self.first).map_err(|e| invalid(e.to_string()))?;
        let known = self.store.get(KEY).map_err(store_failed)?;
        match known {
            Some(state) if state.value == APPLIED && fs::read_to_string(&copy).is_ok_and(|t| t == text) => {
                Ok(())
            }
            Some(state) if state.value == APPLIED => Err(machine::Error::new(
                Reason::AlreadyExists,
                format!("the data in `{}` was made from another scenario", self.data.display()),
            )
            .hint("name other data with --data; or leave --scenario out, and give the new one to `slipway simulator reset --scenario`")),
            None if !host.machines()?.is_empty() => Err(machine::Error::new(
                Reason::AlreadyExists,
                format!("the data in `{}` holds machines that no scenario made", self.data.display()),
            )
            .hint("name other data with --data")),
            _ => {
                fs::write(&copy, &text).map_err(|e| machine::Error::io("write", &copy, e))?;
                self.restart(host, None)
            }
        }
    }

    /// Removes everything and applies `scenario`, or the one of the beginning.
    fn restart(&self, host: &Arc<Host>, scenario: Option<Scenario>) -> Result<(), machine::Error> {
        let scenario = scenario.as_ref().unwrap_or(&self.first);
        validate(scenario).map_err(invalid)?;
        self.mark(APPLYING)?;
        self.engine.restart(&options(scenario, None).map_err(invalid)?);
        *lock(&self.start) = start_of(scenario).map_err(invalid)?;
        // What is half made when the machine dies is made anew, so nothing of it is waited for until all is there.
        host.in_bulk(|| {
            clear(host)?;
            // Once more: what was under way may have drawn ids meanwhile.
            self.engine.restart(&options(scenario, None).map_err(invalid)?);
            self.apply(host, scenario)
        })?;
        self.mark(APPLIED)
    }

    fn mark(&self, state: &[u8]) -> Result<(), machine::Error> {
        match self.store.txn(&Txn::new().put(KEY, state)).map_err(store_failed)? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { key } => Err(machine::Error::new(Reason::Busy, format!("`{key}` changed"))),
        }
    }

    fn apply(&self, host: &Arc<Host>, scenario: &Scenario) -> Result<(), machine::Error> {
        // The first id is this one's, as in a host that was opened for the first time.
        host.create_switch(DEFAULT_SWITCH, SwitchKind::Nat)?;
        for switch in &scenario.switches {
            let kind = switch.domain_kind().map_err(invalid)?;
            host.create_switch(&switch.name, kind)?;
        }
        for (name, id, machine) in machines(scenario).map_err(invalid)? {
            let define: Define = machine.define(&name, id);
            let view = host.define(&define.try_into().map_err(invalid)?)?;
            for (n, (disk, record)) in machine.disks.iter().zip(&view.disks).enumerate() {
                let Some(leaf) = record.leaf() else { continue };
                let label = format!("disk/{name}/{n}");
                let bytes = disk.seeded_bytes.unwrap_or(SEEDED).min(disk.size);
                fill(Seed(scenario.seed), &label, &leaf.path, bytes)
                    .map_err(|e| machine::Error::io("fill disk", &leaf.path, e))?;
            }
            if let Some(behaviour) = machine.guest {
                let behaviour = behaviour.over(self.engine.behaviour(id));
                self.engine.set_behaviour(id, behaviour).map_err(|e| invalid(e.to_string()))?;
            }
            bring(host, id, machine.state.as_deref())?;
        }
        // Last: what the scenario does itself meets no fault.
        for fault in &scenario.faults {
            let mut fault = fault.clone();
            fault.machine = fault.machine.map(|word| id_of(host, word));
            let rule = fault.try_into().map_err(invalid)?;
            self.engine.add_fault(rule).map_err(|e| invalid(e.to_string()))?;
        }
        for event in &scenario.events {
            let what = event.happening().map_err(invalid)?;
            let at = Duration::from_millis(event.after_ms.unwrap_or(0));
            let machine = id_of(host, event.machine.clone());
            self.engine.plan(&machine, at, what).map_err(|e| invalid(e.to_string()))?;
        }
        Ok(())
    }
}

/// Brings a machine that is off to what a scenario says that it is in the beginning.
fn bring(host: &Arc<Host>, id: Uuid, state: Option<&str>) -> Result<(), machine::Error> {
    if !matches!(state, Some("running" | "paused" | "saved")) {
        return Ok(());
    }
    host.start(id)?;
    match state {
        Some("paused") => host.pause(id),
        Some("saved") => {
            let job = host.save(id, OWNER)?;
            let ended = host.jobs().wait(job::JobId(job), PATIENCE);
            if ended.as_ref().is_some_and(|status| status.state.is_success()) {
                return Ok(());
            }
            let why = ended.and_then(|status| status.error).map_or_else(String::new, |e| e.to_string());
            Err(machine::Error::new(Reason::Engine, format!("machine {id} cannot be saved: {why}")))
        }
        _ => Ok(()),
    }
}

fn id_of(host: &Host, word: String) -> String {
    host.resolve(&word).map_or(word, |id| id.to_string())
}

fn store_failed(e: store::Error) -> machine::Error {
    machine::Error::new(Reason::Store, "the store failed").caused_by(e)
}

/// Writes what the seed gives to the beginning of a disk.
fn fill(seed: Seed, label: &str, path: &Path, bytes: u64) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let file = fs::File::options().write(true).open(path)?;
    let mut piece = vec![0; usize::try_from(bytes.min(PIECE)).unwrap_or(0)];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from((bytes - at).min(PIECE)).unwrap_or(0);
        seed.fill(label, at, &mut piece[..length]);
        file.write_all_at(&piece[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Removes every job, machine, planned machine and switch.
fn clear(host: &Arc<Host>) -> Result<(), machine::Error> {
    host.settle(PATIENCE);
    let unfinished = job::Filter { finished: Some(false), ..job::Filter::default() };
    for job in host.jobs().list(&unfinished) {
        // One that is over by now, or parked and discarded, is as good.
        let _ = host.jobs().cancel(job.id);
        let _ = host.jobs().discard(job.id);
        host.jobs().wait(job.id, PATIENCE);
    }
    for machine in host.machines()? {
        let id = machine.record.id;
        if machine.power != PowerState::Off {
            // A start that was under way may have come to its end.
            let _ = host.stop(id);
        }
        host.delete(id, false)?;
    }
    for planned in host.planned()? {
        host.abandon_planned(planned.record.id)?;
    }
    for switch in host.switches()? {
        host.delete_switch(&switch.name)?;
    }
    host.jobs().prune(Duration::ZERO).map_err(store_failed)?;
    Ok(())
}

/// The time of day by the simulation's clock.
fn time_of(engine: &SimEngine, start: &Mutex<Timestamp>) -> Timestamp {
    let start = *lock(start);
    start.saturating_add(engine.now()).unwrap_or(Timestamp::MAX)
}

/// The simulation's time of day. Intervals are the machine's own: a job's progress is told while the clock stands.
struct SimulatedClock {
    engine: SimEngine,
    start: Arc<Mutex<Timestamp>>,
    monotonic: job::SystemClock,
}

impl job::Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        time_of(&self.engine, &self.start)
    }

    fn monotonic(&self) -> Duration {
        job::Clock::monotonic(&self.monotonic)
    }
}

/// Faults of the simulator on the way of jobs.
struct FaultGate {
    engine: SimEngine,
    host: Arc<OnceLock<Weak<Host>>>,
}

impl FaultGate {
    fn stop_of(&self, job: &job::Passing<'_>, reached: u8, coming: u8) -> Option<engine::sim::JobStop> {
        let faults = self.engine.faults();
        if !faults.concern_jobs() {
            return None;
        }
        let id = job.subject.and_then(|s| Uuid::try_parse(s).ok()).unwrap_or_default();
        let name = self.host.get().and_then(Weak::upgrade).and_then(|host| {
            let machine = host.machine(id).map(|m| m.record.settings.name);
            machine.or_else(|_| host.planned_machine(id).map(|p| p.record.settings.name)).ok()
        });
        let machine = Named { id, name: name.as_deref().unwrap_or_default() };
        faults.job_stop(job.kind, &machine, reached, coming)
    }
}

impl job::Gate for FaultGate {
    fn stop(&self, job: &job::Passing<'_>, reached: u8, coming: u8) -> Option<u8> {
        self.stop_of(job, reached, coming).map(|stop| stop.percent)
    }

    fn stand(
        &self,
        job: &job::Passing<'_>,
        percent: u8,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), job::Failure> {
        // It may have been cleared since.
        let Some(stop) = self.stop_of(job, percent, percent) else { return Ok(()) };
        self.engine.stand(stop.fault, interrupted).map_err(|met| job::Failure::new(&met.kind, met.message))
    }
}
