//! One simulated guest: its life by the simulator's clock, and what can be asked of it.
//!
//! A guest boots for a while, says that it is ready, and then counts: one tick after the other, each said on its console,
//! for as long as its processors run. Whatever stops them stops the count, and whatever keeps the guest keeps it, so that
//! a test can see that it is the same guest that goes on. Every change of state is on record before its event is sent,
//! and every event has been sent when the call that caused it returns.
//!
//! The rules that operations meet are [`super::faults`]'s, the console is [`super::serial`]'s.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Duration;

use super::behaviour::Behaviour;
use super::event::Happening;
use super::faults::{Met, Named, Operation, named};
use super::handle::SimGuest;
use super::record::{GuestRecord, LifeRecord, SavedState};
use super::serial::Port;
use super::shell::{self, Facts, Reply};
use super::{World, disk, lock};
use crate::error::{GuestError, GuestErrorKind};
use crate::guest::{Guest, GuestEvent, Listener, RunState, StoppedBy};
use crate::keys::{Chord, Stroke};
use crate::spec::{Firmware, GuestSpec, NicBackend, Resolved};

/// Most lines that wait for a guest whose processors stand.
const MAX_INBOX: usize = 64;

/// A simulated guest.
pub(super) struct Core {
    pub(super) spec: GuestSpec,
    pub(super) resolved: Resolved,
    pub(super) world: Weak<World>,
    pub(super) port: Arc<Port>,
    pub(super) live: Mutex<Live>,
    pub(super) changed: Condvar,
}

pub(super) struct Live {
    pub(super) run: RunState,
    pub(super) booted: bool,
    pub(super) counter: u64,
    pub(super) ran: Duration,
    pub(super) since: Option<Duration>,
    pub(super) shut_at: Option<Duration>,
    /// Where it goes when it is thawed.
    pub(super) thawed: RunState,
    /// What it remembers until it begins anew.
    pub(super) memory: String,
    /// What was scheduled in an earlier turn is void.
    pub(super) turn: u64,
    pub(super) behaviour: Behaviour,
    pub(super) media: HashMap<String, Option<PathBuf>>,
    pub(super) links: HashMap<String, bool>,
    pub(super) typed: Vec<Chord>,
    pub(super) strokes: Vec<Stroke>,
    /// How often it was interrupted.
    pub(super) interrupts: u32,
    /// Lines for a guest whose processors stand.
    pub(super) inbox: Vec<String>,
    pub(super) events: Option<Box<dyn Listener>>,
    /// Which handle hears the events.
    pub(super) audience: u64,
}

impl Live {
    fn new(spec: &GuestSpec, behaviour: Behaviour) -> Self {
        Self {
            run: RunState::Running,
            booted: false,
            counter: 0,
            ran: Duration::ZERO,
            since: None,
            shut_at: None,
            thawed: RunState::Running,
            memory: String::new(),
            turn: 0,
            behaviour,
            media: spec.drives.iter().map(|d| (d.id.clone(), d.media.clone())).collect(),
            links: spec.nics.iter().map(|n| (n.id.clone(), n.backend != NicBackend::None)).collect(),
            typed: Vec::new(),
            strokes: Vec::new(),
            interrupts: 0,
            inbox: Vec::new(),
            events: None,
            audience: 0,
        }
    }

    fn of(record: LifeRecord, behaviour: Behaviour) -> Self {
        Self {
            run: record.run,
            booted: record.booted,
            counter: record.counter,
            ran: record.ran,
            since: record.since,
            shut_at: record.shut_at,
            thawed: record.thawed,
            memory: record.memory,
            turn: 0,
            behaviour,
            media: record.media,
            links: record.links,
            typed: Vec::new(),
            strokes: Vec::new(),
            interrupts: 0,
            inbox: Vec::new(),
            events: None,
            audience: 0,
        }
    }

    fn record(&self) -> LifeRecord {
        LifeRecord {
            run: self.run,
            booted: self.booted,
            counter: self.counter,
            ran: self.ran,
            since: self.since,
            shut_at: self.shut_at,
            thawed: self.thawed,
            memory: self.memory.clone(),
            media: self.media.clone(),
            links: self.links.clone(),
        }
    }

    fn tell(&self, event: GuestEvent) {
        if let Some(events) = &self.events {
            events.hear(event);
        }
    }

    /// How long its processors have run at `now`.
    fn uptime(&self, now: Duration) -> Duration {
        self.ran + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Its processors stand from now on.
    fn halt(&mut self, now: Duration) {
        self.ran = self.uptime(now);
        self.since = None;
        self.turn += 1;
    }

    /// Begins anew, as after power or reset.
    fn begin(&mut self) {
        (self.booted, self.counter, self.ran, self.shut_at) = (false, 0, Duration::ZERO, None);
        self.inbox.clear();
        self.memory.clear();
        self.turn += 1;
    }

    /// As a state says that it was, and frozen.
    fn load(&mut self, saved: SavedState) {
        self.run = RunState::Frozen;
        (self.booted, self.counter, self.ran) = (saved.booted, saved.counter, saved.ran);
        self.memory = saved.memory;
    }

    /// At what uptime it does something by itself next.
    fn next(&self) -> Option<Duration> {
        let Behaviour { boot, tick, .. } = self.behaviour;
        if !self.booted {
            return Some(boot);
        }
        (!tick.is_zero()).then(|| boot + ticks(tick, self.counter + 1))
    }
}

/// The time that `count` ticks take.
fn ticks(tick: Duration, count: u64) -> Duration {
    let nanoseconds = tick.as_nanos() * u128::from(count);
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0))
}

/// Uptime as Linux writes it.
pub(super) fn seconds(time: Duration) -> String {
    format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10)
}

impl Core {
    /// A guest that has not begun.
    pub(super) fn new(
        world: &Arc<World>,
        spec: GuestSpec,
        resolved: Resolved,
        kept: Option<LifeRecord>,
    ) -> Arc<Self> {
        let behaviour = world.behaviour(spec.id);
        Arc::new_cyclic(|me: &Weak<Self>| {
            let me = me.clone();
            let ear = Box::new(move |line: &str| {
                if let Some(core) = me.upgrade() {
                    core.hear(line);
                }
            });
            let live = match kept {
                Some(kept) => Live::of(kept, behaviour),
                None => Live::new(&spec, behaviour),
            };
            Self {
                port: Port::new(&spec.runtime_dir, &world.hub, ear),
                world: Arc::downgrade(world),
                spec,
                resolved,
                live: Mutex::new(live),
                changed: Condvar::new(),
            }
        })
    }

    /// Its processors run for the first time; or it stands frozen as it was saved.
    ///
    /// # Errors
    /// Its directory cannot be written.
    pub(super) fn power_on(
        self: &Arc<Self>,
        world: &World,
        saved: Option<SavedState>,
        events: Box<dyn Listener>,
    ) -> io::Result<()> {
        self.port.begin()?;
        let now = world.time.now();
        let mut live = lock(&self.live);
        live.events = Some(events);
        match saved {
            Some(saved) => live.load(saved),
            None => live.since = Some(now),
        }
        GuestRecord::new(&self.spec, &self.resolved, live.record()).write()?;
        live.tell(GuestEvent::Started);
        self.go_on(world, &mut live, now);
        Ok(())
    }

    /// Goes on after the process that kept it has died.
    pub(super) fn revive(self: &Arc<Self>, world: &World) {
        let now = world.time.now();
        let mut live = lock(&self.live);
        // Nobody wrote down what it said meanwhile; it is as far as it would be.
        let Behaviour { boot, tick, .. } = live.behaviour;
        let uptime = live.uptime(now);
        if live.booted && !tick.is_zero() && live.since.is_some() {
            let counted = uptime.saturating_sub(boot).as_nanos() / tick.as_nanos();
            live.counter = live.counter.max(u64::try_from(counted).unwrap_or(u64::MAX - 1));
        }
        self.go_on(world, &mut live, now);
        if let Some(at) = live.shut_at {
            self.shut_down_at(world, at);
        }
    }

    /// Tells somebody else from now on.
    pub(super) fn listen(&self, events: Box<dyn Listener>) {
        let mut live = lock(&self.live);
        live.events = Some(events);
        live.audience += 1;
        live.tell(GuestEvent::Started);
    }

    /// A handle for whoever is told now.
    pub(super) fn handle(self: &Arc<Self>) -> Box<dyn Guest> {
        let audience = lock(&self.live).audience;
        Box::new(SimGuest { core: Arc::clone(self), audience })
    }

    /// Does what it does at once, and schedules what comes next.
    fn go_on(self: &Arc<Self>, world: &World, live: &mut Live, now: Duration) {
        if live.since.is_none() {
            return;
        }
        while let Some(next) = live.next() {
            let uptime = live.uptime(now);
            if next > uptime {
                let (me, turn) = (Arc::downgrade(self), live.turn);
                let wake = move |at| {
                    if let Some(core) = me.upgrade() {
                        core.live_on(turn, at);
                    }
                };
                world.time.schedule(now + (next - uptime), Box::new(wake));
                return;
            }
            if live.booted {
                live.counter += 1;
                self.port.say(&format!("COUNTER {}", live.counter));
            } else {
                live.booted = true;
                self.port.say(&self.ready(live));
            }
        }
    }

    /// Its moment has come.
    fn live_on(self: &Arc<Self>, turn: u64, now: Duration) {
        let Some(world) = self.world.upgrade() else { return };
        let mut live = lock(&self.live);
        if live.turn == turn {
            self.go_on(&world, &mut live, now);
        }
    }

    /// What our real test guest says when it is up.
    fn ready(&self, live: &Live) -> String {
        let (efi, sb) = match &self.spec.firmware {
            Firmware::Bios => (0, "-"),
            Firmware::Uefi { secure_boot, .. } => (1, if *secure_boot { "1" } else { "0" }),
        };
        let names = disk::names(&self.spec);
        let disks = names.iter().zip(&self.spec.disks);
        let disks: String = disks.map(|(name, d)| format!("{name}:{},", disk::size(d) / 1024)).collect();
        let nics: String = (0..self.spec.nics.len()).map(|n| format!("eth{n},")).collect();
        let tpm = if self.spec.tpm.is_some() { "/dev/tpm0" } else { "" };
        let up = seconds(live.behaviour.boot);
        format!("GUEST-READY up={up} efi={efi} sb={sb} tpm={tpm} clk=sim disks={disks} net={nics}lo, hyp=sim")
    }

    /// Puts its state on record.
    pub(super) fn keep(&self, live: &Live) {
        if let Err(e) = GuestRecord::new(&self.spec, &self.resolved, live.record()).write() {
            tracing::warn!(machine = %self.spec.id, "a simulated guest's state is not kept: {e}");
        }
    }

    /// Goes to a state and tells, if that is news.
    pub(super) fn go(
        self: &Arc<Self>,
        world: &World,
        live: &mut Live,
        to: RunState,
        event: Option<GuestEvent>,
    ) {
        if live.run == to || live.run == RunState::Stopped {
            return;
        }
        let now = world.time.now();
        let stood = live.since.is_none();
        match to {
            RunState::Paused | RunState::Frozen => live.halt(now),
            _ if stood => live.since = Some(now),
            _ => {}
        }
        live.run = to;
        self.keep(live);
        if let Some(event) = event {
            live.tell(event);
        }
        if stood && live.since.is_some() {
            self.go_on(world, live, now);
            if let Some(at) = live.shut_at {
                self.shut_down_at(world, at.max(now));
            }
        }
        self.changed.notify_all();
    }

    /// Freezes it for a save, or for good.
    pub(super) fn freeze(self: &Arc<Self>, world: &World) -> Result<SavedState, GuestError> {
        let mut live = self.alive()?;
        live.thawed = live.run;
        // Whoever is paused or on its way down says nothing new by standing still.
        let event = (live.run == RunState::Running).then_some(GuestEvent::Paused);
        self.go(world, &mut live, RunState::Frozen, event);
        Ok(SavedState::of(&self.resolved, &live.record()))
    }

    /// Lets it go on where it was frozen.
    pub(super) fn unfreeze(self: &Arc<Self>, world: &World) -> Result<(), GuestError> {
        let mut live = self.alive()?;
        if live.run == RunState::Frozen {
            let to = live.thawed;
            let event = (to == RunState::Running).then_some(GuestEvent::Resumed);
            self.go(world, &mut live, to, event);
        }
        drop(live);
        self.catch_up();
        Ok(())
    }

    /// Does what was typed while its processors stood.
    pub(super) fn catch_up(self: &Arc<Self>) {
        let waiting = {
            let mut live = lock(&self.live);
            if live.since.is_none() {
                return;
            }
            std::mem::take(&mut live.inbox)
        };
        waiting.iter().for_each(|line| self.hear(line));
    }

    /// Begins anew, for whatever reason.
    pub(super) fn restart(self: &Arc<Self>, by_guest: bool) {
        let Some(world) = self.world.upgrade() else { return };
        let now = world.time.now();
        let mut live = lock(&self.live);
        if live.run == RunState::Stopped {
            return;
        }
        live.begin();
        if live.run == RunState::ShuttingDown {
            live.run = RunState::Running;
        }
        live.since = live.since.map(|_| now);
        self.keep(&live);
        live.tell(GuestEvent::Reset { by_guest });
        self.go_on(&world, &mut live, now);
        self.changed.notify_all();
    }

    /// It is no more.
    pub(super) fn end(&self, last: GuestEvent) {
        // Out of the engine first: who hears the last event may start the next guest at once.
        if let Some(world) = self.world.upgrade() {
            world.forget(self);
        }
        let mut live = lock(&self.live);
        if live.run != RunState::Stopped {
            live.run = RunState::Stopped;
            live.turn += 1;
            live.since = None;
            GuestRecord::remove(&self.spec.runtime_dir);
            self.port.close();
            live.tell(last);
            live.events = None;
            self.changed.notify_all();
        }
    }

    /// It will have shut down then, unless it is restarted, or its processors stand, until that.
    pub(super) fn shut_down_at(self: &Arc<Self>, world: &World, at: Duration) {
        let me = Arc::downgrade(self);
        let action = move |_| {
            let Some(core) = me.upgrade() else { return };
            let due = {
                let live = lock(&core.live);
                live.shut_at.is_some_and(|due| due <= at) && live.since.is_some()
            };
            if due {
                core.end(GuestEvent::Stopped { by: StoppedBy::Guest });
            }
        };
        world.time.schedule(at, Box::new(action));
    }

    /// Does what was decided for it.
    pub(super) fn happen(self: &Arc<Self>, what: &Happening) {
        match what {
            Happening::Kill { message } => self.end(GuestEvent::Died { message: message.clone() }),
            Happening::Panic => self.end(GuestEvent::Stopped { by: StoppedBy::Panic }),
            Happening::PowerOff => self.end(GuestEvent::Stopped { by: StoppedBy::Guest }),
            Happening::Reboot => self.restart(true),
            Happening::Say { text } => {
                if lock(&self.live).run != RunState::Stopped {
                    self.port.say(text);
                }
            }
            Happening::DiskError { disk, message } => {
                let Some(world) = self.world.upgrade() else { return };
                let mut live = lock(&self.live);
                if live.run == RunState::Stopped {
                    return;
                }
                let first = || self.spec.disks.first().map(|d| d.id.clone());
                let event =
                    GuestEvent::DiskError { disk: disk.clone().or_else(first), message: message.clone() };
                live.tell(event);
                self.go(&world, &mut live, RunState::Paused, Some(GuestEvent::Paused));
            }
        }
    }

    /// A line from the console.
    fn hear(self: &Arc<Self>, line: &str) {
        let Some(world) = self.world.upgrade() else { return };
        let reply = {
            let mut live = lock(&self.live);
            if live.run == RunState::Stopped || !live.booted {
                return;
            }
            if live.since.is_none() {
                if live.inbox.len() < MAX_INBOX {
                    live.inbox.push(line.to_owned());
                }
                return;
            }
            shell::obey(line, &self.facts(&live, world.time.now()))
        };
        match reply {
            Reply::Say(text) => self.port.say(&text),
            Reply::PowerOff => self.end(GuestEvent::Stopped { by: StoppedBy::Guest }),
            Reply::Reboot => self.restart(true),
            Reply::Panic => self.end(GuestEvent::Stopped { by: StoppedBy::Panic }),
            Reply::Pattern { disk, seed, offset, count, command } => {
                let done = disk::write_pattern(&self.spec.disks[disk], &seed, offset, count);
                self.port.say(&match done {
                    Ok(()) => format!("PAT-OK {command}"),
                    Err(e) => format!("PAT-FAILED {command}: {e}"),
                });
            }
            Reply::Sum { disk, offset, count, command } => {
                self.port.say(&match disk::sum(&self.spec.disks[disk], offset, count) {
                    Ok(sum) => format!("SUM {sum} {command}"),
                    Err(e) => format!("SUM-FAILED {command}: {e}"),
                });
            }
        }
    }

    fn facts(&self, live: &Live, now: Duration) -> Facts {
        let plugged = |n: &crate::spec::NicSpec| live.links.get(&n.id).copied().unwrap_or(false);
        Facts {
            name: self.spec.name.clone(),
            uptime: seconds(live.uptime(now)),
            counter: live.counter,
            disks: disk::names(&self.spec),
            address: self.spec.nics.iter().find(|n| plugged(n)).map(|n| {
                let (ip, prefix) = address(n);
                format!("{ip}/{prefix}")
            }),
        }
    }

    /// What it is doing, for people who look at the simulator.
    pub(super) fn view(&self, now: Duration) -> GuestView {
        let live = lock(&self.live);
        GuestView {
            id: self.spec.id,
            name: self.spec.name.clone(),
            state: live.run,
            ready: live.booted,
            counter: live.counter,
            uptime: live.uptime(now),
            behaviour: live.behaviour,
        }
    }

    pub(super) fn behave(self: &Arc<Self>, world: &World, behaviour: Behaviour) {
        let now = world.time.now();
        let mut live = lock(&self.live);
        if live.run == RunState::Stopped {
            return;
        }
        // It goes on counting from where it is, at its new pace.
        if live.booted && live.since.is_some() {
            live.ran = behaviour.boot + ticks(behaviour.tick, live.counter);
            live.since = Some(now);
        }
        live.behaviour = behaviour;
        live.turn += 1;
        self.keep(&live);
        self.go_on(world, &mut live, now);
    }

    /// The inside of it, for those who play it.
    pub(super) fn strokes(&self) -> Vec<Stroke> {
        lock(&self.live).strokes.clone()
    }

    pub(super) fn interrupts(&self) -> u32 {
        lock(&self.live).interrupts
    }

    pub(super) fn typed(&self) -> Vec<Chord> {
        lock(&self.live).typed.clone()
    }

    pub(super) fn memory(&self) -> String {
        lock(&self.live).memory.clone()
    }

    pub(super) fn remember(&self, text: &str) {
        let mut live = lock(&self.live);
        live.memory = text.to_owned();
        self.keep(&live);
    }

    /// Lines that wait until its processors go on.
    #[cfg(test)]
    pub(super) fn inbox(&self) -> usize {
        lock(&self.live).inbox.len()
    }

    pub(super) fn media(&self, drive: &str) -> Option<PathBuf> {
        lock(&self.live).media.get(drive).cloned().flatten()
    }

    pub(super) fn link(&self, nic: &str) -> Option<bool> {
        lock(&self.live).links.get(nic).copied()
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        lock(&self.live).behaviour
    }

    pub(super) fn alive(&self) -> Result<MutexGuard<'_, Live>, GuestError> {
        let live = lock(&self.live);
        if live.run == RunState::Stopped { Err(gone()) } else { Ok(live) }
    }

    pub(super) fn gone(&self) -> bool {
        lock(&self.live).run == RunState::Stopped
    }

    /// Begins an operation: what lies in wait for it comes first.
    pub(super) fn enter(&self, operation: Operation) -> Result<Arc<World>, GuestError> {
        let world = self.world.upgrade().ok_or_else(gone)?;
        self.meet(&world, operation, &|| self.gone())?;
        Ok(world)
    }

    pub(super) fn meet(
        &self,
        world: &World,
        operation: Operation,
        over: &dyn Fn() -> bool,
    ) -> Result<(), GuestError> {
        let me = Named { id: self.spec.id, name: &self.spec.name };
        world.meet(operation, &me, over).map_err(|Met { kind, message }| {
            // Rules are validated when they are added.
            GuestError::new(named(&kind).unwrap_or(GuestErrorKind::Refused), message)
        })
    }
}

pub(super) fn gone() -> GuestError {
    GuestError::new(GuestErrorKind::Gone, "the guest is gone")
}

/// The address that a guest has by an adapter: NAT's usual one, else one that follows from the adapter's own.
pub(super) fn address(nic: &crate::spec::NicSpec) -> (IpAddr, u8) {
    let ip = match nic.backend {
        NicBackend::User => Ipv4Addr::new(10, 0, 2, 15),
        _ => Ipv4Addr::new(192, 168, nic.mac.0[4], nic.mac.0[5].clamp(2, 254)),
    };
    (ip.into(), 24)
}

/// A guest as the simulator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestView {
    /// The machine.
    pub id: uuid::Uuid,
    /// Its name when it was started.
    pub name: String,
    /// What it is doing.
    pub state: RunState,
    /// Whether it has said `GUEST-READY`.
    pub ready: bool,
    /// What it has counted to.
    pub counter: u64,
    /// How long its processors have run since power or reset.
    pub uptime: Duration,
    /// How it behaves.
    pub behaviour: Behaviour,
}
