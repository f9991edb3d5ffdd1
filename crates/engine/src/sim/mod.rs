//! A double of the engine for tests of what is built on it: deterministic, in this process, no guest system.
//!
//! It refuses what a real engine refuses for reasons it can see (a wrong specification, a missing file, a disk in use,
//! a second guest in one place) and keeps the same states and events in the same order; every event has been sent
//! when the call that caused it returns. Guests live in the engine, not in their handles, so that dropping a handle
//! and attaching again works as with processes; clones of a [`SimEngine`] share their guests.
//!
//! A guest's memory is one text, which a save keeps and a restore brings back.
//!
//! What it is not: it never reads or writes a disk, has no serial socket, display or clock, and boots in no time.
//! What happens inside a guest, a test says itself through [`SimGuestControl`].

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{AttachError, GuestError, GuestErrorKind, StartError, StartErrorKind};
use crate::guest::{
    AgentInterface, AgentOs, Engine, Guest, GuestEvent, PictureFormat, RunState, SaveProgress, ShutdownVia,
    StoppedBy,
};
use crate::host::{Check, HostReport, KvmVerdict, Program, Verdict};
use crate::keys::Chord;
use crate::spec::{Accel, Chipset, GuestSpec, NicBackend, Resolved};

/// The smallest PNG: one black pixel.
const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\
    \0\0\0\nIDAT\x78\xda\x63\x60\0\0\0\x02\0\x01\xe5\x27\xde\xfc\0\0\0\0IEND\xae\x42\x60\x82";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pretends to run guests.
#[derive(Debug, Clone, Default)]
pub struct SimEngine {
    guests: Arc<Mutex<HashMap<PathBuf, Arc<Core>>>>,
}

/// One pretended guest.
#[derive(Debug)]
struct Core {
    spec: GuestSpec,
    resolved: Resolved,
    live: Mutex<Live>,
    changed: Condvar,
    guests: Arc<Mutex<HashMap<PathBuf, Arc<Core>>>>,
}

#[derive(Debug)]
struct Live {
    run: RunState,
    /// Where it goes when it is thawed.
    thawed: RunState,
    memory: String,
    obeys_shutdown: bool,
    media: HashMap<String, Option<PathBuf>>,
    links: HashMap<String, bool>,
    typed: Vec<Chord>,
    events: Option<Sender<GuestEvent>>,
    log: Option<fs::File>,
}

/// What a save writes.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Version of this file; 1.
    simulator: u32,
    machine_version: String,
    memory: String,
}

/// Machine versions that simulated guests can be given, by chipset.
fn machine_version(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::Pc => "sim-pc-1",
        Chipset::Q35 => "sim-q35-1",
    }
}

impl Live {
    fn tell(&mut self, event: GuestEvent) {
        self.write(&format!("sim: {event:?}"));
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }

    fn write(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{line}");
        }
    }
}

impl SimEngine {
    /// An engine without guests.
    pub fn new() -> Self {
        SimEngine::default()
    }

    /// The inside of a running guest, for a test to play.
    pub fn control(&self, id: Uuid) -> Option<SimGuestControl> {
        let core = lock(&self.guests).values().find(|c| c.spec.id == id).cloned()?;
        Some(SimGuestControl { core })
    }
}

impl SimEngine {
    /// Starts a guest, from a saved state if there is one.
    fn launch(
        &self,
        spec: &GuestSpec,
        saved: Option<Saved>,
        events: Sender<GuestEvent>,
    ) -> Result<Box<dyn Guest>, StartError> {
        spec.validate().map_err(|e| {
            StartError::new(StartErrorKind::InvalidSpec, "the guest's specification is wrong").with_source(e)
        })?;
        if spec.accel == Accel::Kvm {
            return Err(StartError::new(StartErrorKind::NoAccel, "the simulator has no KVM"));
        }
        let files = spec.disks.iter().flat_map(|d| d.layers.iter().map(|l| &l.path));
        for path in files.chain(spec.drives.iter().filter_map(|d| d.media.as_ref())) {
            fs::metadata(path).map_err(|e| {
                StartError::new(StartErrorKind::NotFound, format!("{} cannot be opened", path.display()))
                    .with_source(e)
            })?;
        }
        let mut guests = lock(&self.guests);
        if guests.contains_key(&spec.runtime_dir) {
            let message = format!("a guest already runs in {}", spec.runtime_dir.display());
            return Err(StartError::new(StartErrorKind::AlreadyRunning, message));
        }
        if let Some(path) = conflict(spec, guests.values().map(|c| &c.spec)) {
            let message = format!("{} is in use by another guest", path.display());
            return Err(StartError::new(StartErrorKind::InUse, message));
        }
        let log = (fs::create_dir_all(&spec.runtime_dir))
            .and_then(|()| fs::File::create(spec.runtime_dir.join("serial0.log")))
            .map_err(|e| {
                let message = format!("{} cannot be written to", spec.runtime_dir.display());
                StartError::new(StartErrorKind::Failed, message).with_source(e)
            })?;
        let newest = machine_version(spec.chipset);
        let core = Arc::new(Core {
            spec: spec.clone(),
            resolved: Resolved {
                machine_version: spec.machine_version.clone().unwrap_or_else(|| newest.into()),
                cpu_model: spec.cpu_model.clone().unwrap_or_else(|| "sim".into()),
                accel: Accel::Tcg,
            },
            live: Mutex::new(Live {
                run: if saved.is_some() { RunState::Frozen } else { RunState::Running },
                thawed: RunState::Running,
                memory: saved.map(|s| s.memory).unwrap_or_default(),
                obeys_shutdown: true,
                media: spec.drives.iter().map(|d| (d.id.clone(), d.media.clone())).collect(),
                links: spec.nics.iter().map(|n| (n.id.clone(), n.backend != NicBackend::None)).collect(),
                typed: Vec::new(),
                events: Some(events),
                log: (spec.serial_ports > 0).then_some(log),
            }),
            changed: Condvar::new(),
            guests: Arc::clone(&self.guests),
        });
        {
            let mut live = lock(&core.live);
            live.tell(GuestEvent::Started);
            let disks: Vec<&str> = spec.disks.iter().map(|d| d.id.as_str()).collect();
            live.write(&format!("GUEST-READY sim disks={}", disks.join(",")));
        }
        guests.insert(spec.runtime_dir.clone(), Arc::clone(&core));
        Ok(Box::new(SimGuest { core }))
    }
}

impl Engine for SimEngine {
    fn start(&self, spec: &GuestSpec, events: Sender<GuestEvent>) -> Result<Box<dyn Guest>, StartError> {
        self.launch(spec, None, events)
    }

    fn restore(
        &self,
        spec: &GuestSpec,
        state: &Path,
        events: Sender<GuestEvent>,
    ) -> Result<Box<dyn Guest>, StartError> {
        let bad = |message: String| StartError::new(StartErrorKind::BadState, message);
        let bytes = fs::read(state).map_err(|e| {
            StartError::new(StartErrorKind::NotFound, format!("{} cannot be opened", state.display()))
                .with_source(e)
        })?;
        let saved: Saved = serde_json::from_slice(&bytes)
            .map_err(|e| bad(format!("{} is no saved state", state.display())).with_source(e))?;
        if spec.machine_version.as_ref() != Some(&saved.machine_version) {
            return Err(bad(format!("it was saved as a {}", saved.machine_version)));
        }
        self.launch(spec, Some(saved), events)
    }

    fn attach(
        &self,
        runtime_dir: &Path,
        events: Sender<GuestEvent>,
    ) -> Result<Option<Box<dyn Guest>>, AttachError> {
        let Some(core) = lock(&self.guests).get(runtime_dir).cloned() else { return Ok(None) };
        {
            let mut live = lock(&core.live);
            live.events = Some(events);
            live.tell(GuestEvent::Started);
        }
        Ok(Some(Box::new(SimGuest { core })))
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

/// A file that one of the guests writes and the other uses at all.
fn conflict<'a>(new: &'a GuestSpec, running: impl Iterator<Item = &'a GuestSpec>) -> Option<PathBuf> {
    let uses = |spec: &'a GuestSpec| {
        spec.disks.iter().flat_map(|disk| {
            let written = !disk.is_read_only();
            disk.layers.iter().enumerate().map(move |(depth, layer)| (&layer.path, written && depth == 0))
        })
    };
    let taken: Vec<(&PathBuf, bool)> = running.flat_map(uses).collect();
    uses(new)
        .find(|(path, write)| taken.iter().any(|(other, wrote)| other == path && (*write || *wrote)))
        .map(|(path, _)| path.clone())
}

/// Plays the inside of a guest.
#[derive(Debug, Clone)]
pub struct SimGuestControl {
    core: Arc<Core>,
}

impl SimGuestControl {
    /// The guest's process dies.
    pub fn crash(&self, message: &str) {
        self.core.end(GuestEvent::Died { message: message.into() });
    }

    /// The guest shuts itself down.
    pub fn shut_down(&self) {
        self.core.end(GuestEvent::Stopped { by: StoppedBy::Guest });
    }

    /// The guest's kernel panics.
    pub fn kernel_panic(&self) {
        self.core.end(GuestEvent::Stopped { by: StoppedBy::Panic });
    }

    /// A disk fails: the guest is paused and says so.
    pub fn disk_error(&self, disk: &str, message: &str) {
        let event = GuestEvent::DiskError { disk: Some(disk.into()), message: message.into() };
        lock(&self.core.live).tell(event);
        self.core.go(RunState::Paused, GuestEvent::Paused);
    }

    /// Whether the guest shuts down at once when asked (so it is at first) or never.
    pub fn obeys_shutdown(&self, obeys: bool) {
        lock(&self.core.live).obeys_shutdown = obeys;
    }

    /// What the guest remembers.
    pub fn memory(&self) -> String {
        lock(&self.core.live).memory.clone()
    }

    /// The guest remembers something else.
    pub fn remember(&self, text: &str) {
        lock(&self.core.live).memory = text.to_owned();
    }

    /// The guest reboots, which it does with its memory lost.
    pub fn reboot(&self) {
        let mut live = lock(&self.core.live);
        live.memory.clear();
        live.tell(GuestEvent::Reset { by_guest: true });
    }

    /// What is in a drive.
    pub fn media(&self, drive: &str) -> Option<PathBuf> {
        lock(&self.core.live).media.get(drive).cloned().flatten()
    }

    /// Whether an adapter's cable is in.
    pub fn link(&self, nic: &str) -> Option<bool> {
        lock(&self.core.live).links.get(nic).copied()
    }

    /// Every chord typed so far.
    pub fn typed(&self) -> Vec<Chord> {
        lock(&self.core.live).typed.clone()
    }
}

impl Core {
    /// Goes to a state and tells, if that is news.
    fn go(&self, to: RunState, event: GuestEvent) {
        let mut live = lock(&self.live);
        if live.run != to && live.run != RunState::Stopped {
            live.run = to;
            live.tell(event);
            self.changed.notify_all();
        }
    }

    fn end(&self, last: GuestEvent) {
        // Out of the engine first: who hears the last event may start the next guest at once.
        lock(&self.guests).remove(&self.spec.runtime_dir);
        let mut live = lock(&self.live);
        if live.run != RunState::Stopped {
            live.run = RunState::Stopped;
            live.tell(last);
            live.events = None;
            self.changed.notify_all();
        }
    }

    fn alive(&self) -> Result<MutexGuard<'_, Live>, GuestError> {
        let live = lock(&self.live);
        if live.run == RunState::Stopped {
            return Err(GuestError::new(GuestErrorKind::Gone, "the guest is gone"));
        }
        Ok(live)
    }
}

struct SimGuest {
    core: Arc<Core>,
}

impl Drop for SimGuest {
    fn drop(&mut self) {
        lock(&self.core.live).events = None;
    }
}

fn no_agent() -> GuestError {
    GuestError::new(GuestErrorKind::NoAgent, "simulated guests have no agent")
}

impl Guest for SimGuest {
    fn spec(&self) -> &GuestSpec {
        &self.core.spec
    }

    fn resolved(&self) -> &Resolved {
        &self.core.resolved
    }

    fn state(&self) -> RunState {
        lock(&self.core.live).run
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn pause(&self) -> Result<(), GuestError> {
        drop(self.core.alive()?);
        self.core.go(RunState::Paused, GuestEvent::Paused);
        Ok(())
    }

    fn resume(&self) -> Result<(), GuestError> {
        drop(self.core.alive()?);
        if self.state() == RunState::Paused {
            self.core.go(RunState::Running, GuestEvent::Resumed);
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), GuestError> {
        let mut live = self.core.alive()?;
        live.memory.clear();
        live.tell(GuestEvent::Reset { by_guest: false });
        Ok(())
    }

    fn can_save(&self) -> Result<(), GuestError> {
        self.core.alive().map(drop)
    }

    fn save(
        &self,
        state: &Path,
        watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>,
    ) -> Result<(), GuestError> {
        self.thaw()?;
        let (was, saved) = {
            let mut live = self.core.alive()?;
            live.thawed = live.run;
            let machine_version = self.core.resolved.machine_version.clone();
            (live.run, Saved { simulator: 1, machine_version, memory: live.memory.clone() })
        };
        match was {
            RunState::Running => self.core.go(RunState::Frozen, GuestEvent::Paused),
            _ => lock(&self.core.live).run = RunState::Frozen,
        }
        let total = saved.memory.len() as u64;
        let write = |watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>| {
            if watch(SaveProgress { done: 0, total }).is_break() {
                return Err(GuestError::new(GuestErrorKind::Cancelled, "the save was broken off"));
            }
            serde_json::to_vec(&saved)
                .map_err(std::io::Error::from)
                .and_then(|b| fs::write(state, b))
                .map_err(|e| {
                    let full = e.kind() == std::io::ErrorKind::StorageFull;
                    let kind = if full { GuestErrorKind::NoSpace } else { GuestErrorKind::Io };
                    GuestError::new(kind, format!("{}: cannot be written", state.display())).with_source(e)
                })
        };
        let written = write(watch);
        if written.is_err() {
            let _ = fs::remove_file(state);
            self.thaw()?;
        }
        written
    }

    fn thaw(&self) -> Result<(), GuestError> {
        let thawed = {
            let mut live = self.core.alive()?;
            if live.run != RunState::Frozen {
                return Ok(());
            }
            if live.thawed != RunState::Running {
                live.run = live.thawed;
                return Ok(());
            }
            live.thawed
        };
        self.core.go(thawed, GuestEvent::Resumed);
        Ok(())
    }

    fn power_off(&self) -> Result<(), GuestError> {
        self.core.end(GuestEvent::Stopped { by: StoppedBy::Host });
        Ok(())
    }

    fn shutdown(&self) -> Result<ShutdownVia, GuestError> {
        let obeys = {
            let live = self.core.alive()?;
            if matches!(live.run, RunState::Paused | RunState::Frozen) {
                return Err(GuestError::new(
                    GuestErrorKind::WrongState,
                    "a guest whose processors stand cannot shut down; resume it first",
                ));
            }
            live.obeys_shutdown
        };
        self.core.go(RunState::ShuttingDown, GuestEvent::ShutdownRequested);
        if obeys {
            self.core.end(GuestEvent::Stopped { by: StoppedBy::Guest });
        }
        Ok(ShutdownVia::PowerButton)
    }

    fn wait_stopped(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut live = lock(&self.core.live);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if live.run == RunState::Stopped || left.is_zero() {
                return live.run == RunState::Stopped;
            }
            live = self.core.changed.wait_timeout(live, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn screenshot(&self, path: &Path) -> Result<PictureFormat, GuestError> {
        drop(self.core.alive()?);
        fs::write(path, PIXEL).map_err(|e| {
            GuestError::new(GuestErrorKind::Io, format!("{}: cannot be written", path.display()))
                .with_source(e)
        })?;
        Ok(PictureFormat::Png)
    }

    fn send_keys(&self, chords: &[Chord]) -> Result<(), GuestError> {
        self.core.alive()?.typed.extend_from_slice(chords);
        Ok(())
    }

    fn change_media(&self, drive: &str, media: Option<&Path>, _force: bool) -> Result<(), GuestError> {
        let mut live = self.core.alive()?;
        let Some(inside) = live.media.get_mut(drive) else {
            return Err(GuestError::new(GuestErrorKind::NotFound, format!("the guest has no drive {drive}")));
        };
        if let Some(media) = media {
            fs::metadata(media).map_err(|e| {
                GuestError::new(GuestErrorKind::NotFound, format!("{}: cannot be opened", media.display()))
                    .with_source(e)
            })?;
        }
        *inside = media.map(ToOwned::to_owned);
        Ok(())
    }

    fn eject(&self, drive: &str, force: bool) -> Result<(), GuestError> {
        self.change_media(drive, None, force)
    }

    fn set_link(&self, nic: &str, up: bool) -> Result<(), GuestError> {
        let mut live = self.core.alive()?;
        let Some(spec) = self.core.spec.nics.iter().find(|n| n.id == nic) else {
            return Err(GuestError::new(GuestErrorKind::NotFound, format!("the guest has no adapter {nic}")));
        };
        if up && spec.backend == NicBackend::None {
            let message = format!("adapter {nic} was started without a cable");
            return Err(GuestError::new(GuestErrorKind::Unsupported, message));
        }
        live.links.insert(nic.into(), up);
        Ok(())
    }

    fn agent_ping(&self, _limit: Duration) -> Result<(), GuestError> {
        Err(no_agent())
    }

    fn agent_interfaces(&self, _limit: Duration) -> Result<Vec<AgentInterface>, GuestError> {
        Err(no_agent())
    }

    fn agent_os(&self, _limit: Duration) -> Result<AgentOs, GuestError> {
        Err(no_agent())
    }

    fn serial_socket(&self, _port: u32) -> Option<PathBuf> {
        None
    }

    fn serial_log(&self, port: u32) -> Option<PathBuf> {
        (port == 0 && self.core.spec.serial_ports > 0).then(|| self.core.spec.runtime_dir.join("serial0.log"))
    }

    fn vnc_socket(&self) -> Option<PathBuf> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::spec::{DiskBus, DiskSpec, ImageFormat, LayerSpec};

    fn spec(dir: &Path, name: &str) -> GuestSpec {
        let mut spec = GuestSpec::new(Uuid::new_v4(), name, dir.join(name), Chipset::Pc);
        fs::write(dir.join("disk.raw"), b"").unwrap();
        spec.disks.push(DiskSpec {
            id: "d".into(),
            layers: vec![LayerSpec {
                path: dir.join("disk.raw"),
                format: ImageFormat::Raw,
                read_only: false,
            }],
            bus: DiskBus::Ide,
            slot: 0,
            logical_sector: 512,
            physical_sector: 512,
            read_only: false,
            serial: None,
            boot_index: None,
        });
        spec
    }

    #[test]
    fn a_life_in_order() {
        let tmp = tempfile::tempdir().unwrap();
        let engine = SimEngine::new();
        let (sender, events) = mpsc::channel();
        let spec = spec(tmp.path(), "a");
        let guest = engine.start(&spec, sender).unwrap();
        guest.pause().unwrap();
        guest.pause().unwrap();
        assert_eq!(guest.shutdown().unwrap_err().kind(), GuestErrorKind::WrongState);
        guest.resume().unwrap();
        guest.shutdown().unwrap();
        assert!(guest.wait_stopped(Duration::ZERO));
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(
            seen,
            [
                GuestEvent::Started,
                GuestEvent::Paused,
                GuestEvent::Resumed,
                GuestEvent::ShutdownRequested,
                GuestEvent::Stopped { by: StoppedBy::Guest }
            ]
        );
        let log = fs::read_to_string(guest.serial_log(0).unwrap()).unwrap();
        assert!(log.contains("GUEST-READY sim disks=d"), "{log}");
        assert_eq!(guest.pause().unwrap_err().kind(), GuestErrorKind::Gone);
    }

    #[test]
    fn a_saved_guest_remembers_and_one_that_is_not_saved_goes_on() {
        let tmp = tempfile::tempdir().unwrap();
        let engine = SimEngine::new();
        let mut spec = spec(tmp.path(), "a");
        let guest = engine.start(&spec, mpsc::channel().0).unwrap();
        spec.machine_version = Some(guest.resolved().machine_version.clone());
        engine.control(spec.id).unwrap().remember("42");
        let state = tmp.path().join("state");
        let mut go_on = |_| ControlFlow::Continue(());
        let error = guest.save(&state, &mut |_| ControlFlow::Break(())).unwrap_err();
        assert_eq!((error.kind(), guest.state()), (GuestErrorKind::Cancelled, RunState::Running));
        assert!(!state.exists());
        let error = guest.save(&tmp.path().join("no/where"), &mut go_on).unwrap_err();
        assert_eq!((error.kind(), guest.state()), (GuestErrorKind::Io, RunState::Running));
        guest.pause().unwrap();
        guest.save(&state, &mut go_on).unwrap();
        assert_eq!(guest.state(), RunState::Frozen);
        drop(guest);
        let guest = engine.attach(&spec.runtime_dir, mpsc::channel().0).unwrap().unwrap();
        assert_eq!(guest.state(), RunState::Frozen);
        guest.thaw().unwrap();
        assert_eq!(guest.state(), RunState::Paused, "as it was before");
        guest.power_off().unwrap();

        let (sender, events) = mpsc::channel();
        let guest = engine.restore(&spec, &state, sender).unwrap();
        assert_eq!(guest.state(), RunState::Frozen);
        guest.thaw().unwrap();
        assert_eq!((guest.state(), &*engine.control(spec.id).unwrap().memory()), (RunState::Running, "42"));
        engine.control(spec.id).unwrap().reboot();
        guest.power_off().unwrap();
        let seen: Vec<_> = events.iter().collect();
        let stopped = GuestEvent::Stopped { by: StoppedBy::Host };
        assert_eq!(
            seen,
            [GuestEvent::Started, GuestEvent::Resumed, GuestEvent::Reset { by_guest: true }, stopped]
        );
        fs::write(&state, "{").unwrap();
        let refused = engine.restore(&spec, &state, mpsc::channel().0).err().unwrap();
        assert_eq!(refused.kind(), StartErrorKind::BadState);
    }

    #[test]
    fn it_refuses_what_a_real_engine_refuses_and_guests_outlive_handles() {
        let tmp = tempfile::tempdir().unwrap();
        let engine = SimEngine::new();
        let a = spec(tmp.path(), "a");
        let guest = engine.start(&a, mpsc::channel().0).unwrap();
        let start = |spec: &GuestSpec| engine.start(spec, mpsc::channel().0).err().map(|e| e.kind());
        assert_eq!(start(&a), Some(StartErrorKind::AlreadyRunning));
        let mut b = spec(tmp.path(), "b");
        assert_eq!(start(&b), Some(StartErrorKind::InUse));
        b.disks[0].layers[0].path = tmp.path().join("none");
        assert_eq!(start(&b), Some(StartErrorKind::NotFound));
        drop(guest);
        let (sender, events) = mpsc::channel();
        let guest = engine.clone().attach(&a.runtime_dir, sender).unwrap().unwrap();
        engine.control(a.id).unwrap().crash("struck by lightning");
        assert_eq!(guest.state(), RunState::Stopped);
        assert!(matches!(events.iter().last(), Some(GuestEvent::Died { .. })));
        assert!(engine.attach(&a.runtime_dir, mpsc::channel().0).unwrap().is_none());
    }
}
