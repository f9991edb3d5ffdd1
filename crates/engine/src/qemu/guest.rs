//! A running QEMU as a [`Guest`].
//!
//! One supervisor thread per guest turns QMP events into states and [`GuestEvent`]s. It is the only one that changes
//! the state, so the order of events is QEMU's own; an operation that changes the state gives its order and then waits
//! until the supervisor has seen the effect. When the QMP connection ends, the process decides: if it is gone the
//! guest has stopped or died, if it lives the connection is made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::{self, Process};
use super::runtime::{self, Record};
use super::{agent, args, keymap, launch, layout, state, switch};
use crate::error::{GuestError, GuestErrorKind};
use crate::guest::{
    AgentInterface, AgentOs, Guest, GuestEvent, Listener, PictureFormat, RunState, SaveProgress, ShutdownVia,
    StoppedBy,
};
use crate::keys::{Chord, Stroke};
use crate::qmp::{Client, Event, QmpError};
use crate::spec::{GuestSpec, NicBackend, Resolved};

/// Longest an order to QEMU may take.
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// Longest a disc or a picture may take: both touch files.
const FILE_LIMIT: Duration = Duration::from_secs(30);
/// How long a QEMU that was told to quit may take before it is killed: it flushes its disks.
const QUIT_LIMIT: Duration = Duration::from_secs(10);
/// How long the agent has to answer before a shutdown falls back on the power button.
const AGENT_SHUTDOWN_LIMIT: Duration = Duration::from_millis(1500);
/// How long a key is held. Guests poll the keyboard far more often.
const KEY_HOLD_MS: u64 = 20;
/// Between chords: longer than the hold, so that the keyboard's queue of 16 bytes never overflows.
const KEY_PAUSE: Duration = Duration::from_millis(30);
/// Between single strokes, of one to three bytes each: for the same queue.
const STROKE_PAUSE: Duration = Duration::from_millis(10);
/// How long a process may outlive its control connection before we look for a new one.
const LINGER: Duration = Duration::from_secs(1);

/// What handle and supervisor share.
pub(super) struct Inner {
    spec: GuestSpec,
    resolved: Resolved,
    sockets: PathBuf,
    short_dir: PathBuf,
    process: Process,
    status: Mutex<Status>,
    changed: Condvar,
    client: Mutex<Arc<Client>>,
    detached: AtomicBool,
    /// We killed it: its end is no accident.
    killed: AtomicBool,
    pictures: AtomicU64,
    /// Held by a save or a thaw.
    freezing: Mutex<()>,
}

struct Status {
    /// As QEMU has it, which knows nothing of frozen guests.
    run: RunState,
    /// Frozen, and whether it is to run when it is thawed.
    frozen: Option<bool>,
    /// Why QEMU said it is ending.
    ending: Option<StoppedBy>,
    panicked: bool,
    events: Option<Box<dyn Listener>>,
}

impl Status {
    fn tell(&mut self, event: GuestEvent) {
        if let Some(events) = &self.events {
            events.hear(event);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle.
pub(super) struct QemuGuest {
    inner: Arc<Inner>,
}

/// What a guest is made of when it is taken charge of.
pub(super) struct Parts {
    pub(super) spec: GuestSpec,
    pub(super) resolved: Resolved,
    pub(super) sockets: PathBuf,
    pub(super) short_dir: PathBuf,
    pub(super) process: Process,
    /// Frozen, and whether it is to run when it is thawed.
    pub(super) frozen: Option<bool>,
    /// Its exit status, where it is our own child.
    pub(super) exit: Option<Receiver<ExitStatus>>,
    pub(super) client: Client,
    pub(super) events: Receiver<Event>,
}

impl QemuGuest {
    /// Takes charge of a guest that has just been told to go, or that was found running.
    pub(super) fn supervise(parts: Parts, listener: Box<dyn Listener>) -> std::io::Result<QemuGuest> {
        let Parts { spec, resolved, sockets, short_dir, process, frozen, exit, client, events } = parts;
        let run = client.status(ORDER_LIMIT).map_or(RunState::Running, |word| run_state(&word));
        // Thawed, and we died before that was on record.
        let frozen = frozen.filter(|_| run != RunState::Running);
        let mut status = Status { run, frozen, ending: None, panicked: false, events: Some(listener) };
        status.tell(GuestEvent::Started);
        let inner = Arc::new(Inner {
            spec,
            resolved,
            sockets,
            short_dir,
            process,
            status: Mutex::new(status),
            changed: Condvar::new(),
            client: Mutex::new(Arc::new(client)),
            detached: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            pictures: AtomicU64::new(0),
            freezing: Mutex::new(()),
        });
        let for_thread = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("guest".into())
            .spawn(move || supervise(&for_thread, events, exit.as_ref()))?;
        Ok(QemuGuest { inner })
    }
}

/// QEMU's word for its state in ours.
fn run_state(word: &str) -> RunState {
    match word {
        "running" => RunState::Running,
        "prelaunch" | "inmigrate" | "preconfig" => RunState::Starting,
        "shutdown" => RunState::ShuttingDown,
        // paused, io-error, watchdog, debug, suspended, guest-panicked, postmigrate, and what is to come:
        // its processors stand.
        _ => RunState::Paused,
    }
}

fn supervise(inner: &Inner, mut events: Receiver<Event>, exit: Option<&Receiver<ExitStatus>>) {
    let _about = tracing::info_span!("supervisor", guest = %inner.spec.id).entered();
    loop {
        while let Ok(event) = events.recv() {
            inner.apply(&event);
        }
        loop {
            if inner.detached.load(Ordering::Acquire) {
                return;
            }
            if inner.process.ended(LINGER) {
                inner.end(exit);
                return;
            }
            tracing::warn!(pid = inner.process.pid(), "control connection lost; reconnecting");
            if let Ok((client, fresh)) = Client::connect(&inner.sockets.join(args::QMP_SOCKET)) {
                let word = client.status(ORDER_LIMIT).unwrap_or_default();
                *lock(&inner.client) = Arc::new(client);
                events = fresh;
                inner.transition(run_state(&word));
                break;
            }
        }
    }
}

impl Inner {
    /// Goes to a state and tells, if that is news.
    fn transition(&self, to: RunState) {
        let mut status = lock(&self.status);
        let from = status.run;
        if from == to || from == RunState::Stopped {
            return;
        }
        status.run = to;
        match (from, to) {
            (_, RunState::Paused) => status.tell(GuestEvent::Paused),
            (RunState::Starting | RunState::Paused, RunState::Running) => status.tell(GuestEvent::Resumed),
            (_, RunState::ShuttingDown) => status.tell(GuestEvent::ShutdownRequested),
            _ => {}
        }
        drop(status);
        self.changed.notify_all();
    }

    fn apply(&self, event: &Event) {
        let tell = |event: GuestEvent| lock(&self.status).tell(event);
        match event.name.as_str() {
            // A QEMU that is ending stops its processors too; that is no pause.
            "STOP" if lock(&self.status).ending.is_none() => self.transition(RunState::Paused),
            "STOP" => {}
            "RESUME" => self.transition(RunState::Running),
            "RESET" => {
                let by_guest = event.data.get("guest").and_then(Value::as_bool).unwrap_or(false);
                tell(GuestEvent::Reset { by_guest });
                // Asked to shut down, it chose to boot again.
                if lock(&self.status).run == RunState::ShuttingDown {
                    self.transition(RunState::Running);
                }
            }
            "POWERDOWN" => self.transition(RunState::ShuttingDown),
            "GUEST_PANICKED" => {
                lock(&self.status).panicked = true;
                tell(GuestEvent::Other { name: event.name.clone() });
            }
            "SHUTDOWN" => {
                let by_guest = event.data.get("guest").and_then(Value::as_bool).unwrap_or(false);
                let mut status = lock(&self.status);
                let panic = status.panicked || event.text("reason") == Some("guest-panic");
                status.ending = Some(match (panic, by_guest) {
                    (true, _) => StoppedBy::Panic,
                    (false, true) => StoppedBy::Guest,
                    (false, false) => StoppedBy::Host,
                });
            }
            "BLOCK_IO_ERROR" => tell(GuestEvent::DiskError {
                disk: self.disk_of(event),
                message: event.text("reason").unwrap_or("input/output error").to_owned(),
            }),
            // `state` listens to these itself.
            "MIGRATION" | "MIGRATION_PASS" => {}
            _ => tell(GuestEvent::Other { name: event.name.clone() }),
        }
    }

    pub(super) fn id(&self) -> uuid::Uuid {
        self.spec.id
    }

    pub(super) fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Its state as QEMU has it.
    pub(super) fn run(&self) -> RunState {
        lock(&self.status).run
    }

    /// Whether it is frozen, and is to run when it is thawed.
    pub(super) fn frozen(&self) -> Option<bool> {
        lock(&self.status).frozen
    }

    pub(super) fn note_frozen(&self, frozen: Option<bool>) {
        lock(&self.status).frozen = frozen;
    }

    /// One save or thaw at a time.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.freezing)
    }

    /// Everything that QEMU tells from now on.
    pub(super) fn news(&self) -> Receiver<Event> {
        lock(&self.client).subscribe()
    }

    /// QEMU's own word for its state.
    pub(super) fn word(&self) -> Result<String, GuestError> {
        let status = self.execute("query-status", Value::Null, ORDER_LIMIT)?;
        Ok(status.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The caller's name of the disk an event is about.
    fn disk_of(&self, event: &Event) -> Option<String> {
        let device = event.text("qom-path").and_then(|p| p.strip_prefix("/machine/peripheral/"));
        let device = device.or_else(|| event.text("node-name").and_then(|n| n.split('-').next()))?;
        let disks = self.spec.disks.iter().map(|d| (&d.id, d.bus, d.slot));
        let drives = self.spec.drives.iter().map(|d| (&d.id, d.bus, d.slot));
        (disks.chain(drives))
            .find(|(_, bus, slot)| device.split('/').next() == Some(&layout::storage_id(*bus, *slot)))
            .map(|(id, ..)| id.clone())
    }

    /// The process is gone.
    fn end(&self, exit: Option<&Receiver<ExitStatus>>) {
        let code = exit.and_then(|e| e.recv_timeout(Duration::from_secs(1)).ok());
        let dir = &self.spec.runtime_dir;
        switch::leave(&self.spec, Some(&self.process), &self.short_dir);
        let last = {
            let status = lock(&self.status);
            match status.ending {
                Some(by) => GuestEvent::Stopped { by },
                None if self.killed.load(Ordering::Acquire) => GuestEvent::Stopped { by: StoppedBy::Host },
                None => {
                    let mut message = match code {
                        Some(code) => format!("QEMU ended unexpectedly ({code})"),
                        None => "QEMU ended unexpectedly".to_owned(),
                    };
                    let words = process::last_lines(&dir.join(args::STDERR_LOG), 5);
                    if !words.is_empty() {
                        message = format!("{message}: {words}");
                    }
                    GuestEvent::Died { message }
                }
            }
        };
        Record::remove(dir);
        runtime::sweep(dir);
        runtime::forget_socket_dir(dir, &self.sockets);
        let mut status = lock(&self.status);
        status.run = RunState::Stopped;
        status.tell(last);
        status.events = None;
        drop(status);
        self.changed.notify_all();
    }

    /// Waits until the state is as wanted; the state at the end.
    fn wait_until(&self, limit: Duration, wanted: impl Fn(RunState) -> bool) -> RunState {
        let deadline = Instant::now() + limit;
        let mut status = lock(&self.status);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if wanted(status.run) || left.is_zero() {
                return status.run;
            }
            status = self.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn execute(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, GuestError> {
        let client = Arc::clone(&lock(&self.client));
        client.execute(command, arguments, limit).map_err(|error| match error {
            QmpError::Refused { command, source } => {
                GuestError::new(refusal_kind(&source.description), format!("QEMU refused {command}"))
                    .with_source(source)
            }
            QmpError::TimedOut { .. } => {
                GuestError::new(GuestErrorKind::TimedOut, "QEMU does not answer").with_source(error)
            }
            QmpError::Disconnected => GuestError::new(GuestErrorKind::Gone, "the guest is gone"),
            QmpError::Io(source) => {
                GuestError::new(GuestErrorKind::Io, "the control socket failed").with_source(source)
            }
        })
    }

    /// Gives an order and waits for the state it leads to.
    pub(super) fn order(&self, command: &str, wanted: RunState) -> Result<(), GuestError> {
        self.execute(command, Value::Null, ORDER_LIMIT)?;
        match self.wait_until(ORDER_LIMIT, |s| s == wanted || s == RunState::Stopped) {
            state if state == wanted => Ok(()),
            RunState::Stopped => Err(GuestError::new(GuestErrorKind::Gone, "the guest is gone")),
            _ => Err(GuestError::new(GuestErrorKind::TimedOut, format!("{command} had no effect"))),
        }
    }

    fn drive(&self, id: &str) -> Result<String, GuestError> {
        (self.spec.drives.iter().find(|d| d.id == id))
            .map(|d| layout::storage_id(d.bus, d.slot))
            .ok_or_else(|| GuestError::new(GuestErrorKind::NotFound, format!("the guest has no drive {id}")))
    }

    fn agent(&self, command: &str, limit: Duration) -> Result<Value, GuestError> {
        agent::call(&self.agent_socket()?, command, Value::Null, limit)
    }

    fn agent_socket(&self) -> Result<PathBuf, GuestError> {
        if self.spec.agent {
            Ok(self.sockets.join(args::AGENT_SOCKET))
        } else {
            Err(GuestError::new(GuestErrorKind::NoAgent, "the guest was started without an agent channel"))
        }
    }
}

fn refusal_kind(words: &str) -> GuestErrorKind {
    if words.contains("is locked") {
        GuestErrorKind::Locked
    } else if words.contains("No such file") || words.contains("not found") {
        GuestErrorKind::NotFound
    } else if words.contains("in state")
        || words.contains("not running")
        || words.contains("Resetting the Virtual")
    {
        GuestErrorKind::WrongState
    } else {
        GuestErrorKind::Refused
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        self.inner.detached.store(true, Ordering::Release);
        lock(&self.inner.status).events = None;
        lock(&self.inner.client).close();
    }
}

impl Guest for QemuGuest {
    fn spec(&self) -> &GuestSpec {
        &self.inner.spec
    }

    fn resolved(&self) -> &Resolved {
        &self.inner.resolved
    }

    fn state(&self) -> RunState {
        let status = lock(&self.inner.status);
        match (status.run, status.frozen) {
            (RunState::Paused | RunState::Starting, Some(_)) => RunState::Frozen,
            (run, _) => run,
        }
    }

    fn pid(&self) -> Option<u32> {
        (self.state() != RunState::Stopped).then(|| self.inner.process.pid())
    }

    fn pause(&self) -> Result<(), GuestError> {
        self.inner.order("stop", RunState::Paused)
    }

    fn resume(&self) -> Result<(), GuestError> {
        if matches!(self.state(), RunState::ShuttingDown) {
            return Ok(());
        }
        self.thaw()?;
        self.inner.order("cont", RunState::Running)
    }

    fn reset(&self) -> Result<(), GuestError> {
        self.inner.execute("system_reset", Value::Null, ORDER_LIMIT).map(|_| ())
    }

    fn can_save(&self) -> Result<(), GuestError> {
        state::can_save(&self.inner)
    }

    fn save(
        &self,
        file: &Path,
        watch: &mut dyn FnMut(SaveProgress) -> std::ops::ControlFlow<()>,
    ) -> Result<(), GuestError> {
        state::save(&self.inner, file, watch)
    }

    fn thaw(&self) -> Result<(), GuestError> {
        state::thaw(&self.inner)
    }

    fn power_off(&self) -> Result<(), GuestError> {
        let inner = &self.inner;
        if self.state() == RunState::Stopped {
            return Ok(());
        }
        // The reply is lost as often as not, because QEMU is busy ending; but one that takes no order is killed.
        let asked = inner.execute("quit", Value::Null, QUIT_LIMIT);
        let deaf = asked.is_err_and(|e| e.kind() == GuestErrorKind::TimedOut);
        if deaf || !inner.process.ended(QUIT_LIMIT) {
            inner.killed.store(true, Ordering::Release);
            inner.process.kill(Signal::KILL);
            if !inner.process.ended(QUIT_LIMIT) {
                return Err(GuestError::new(
                    GuestErrorKind::TimedOut,
                    format!("process {} does not die; it hangs in the kernel", inner.process.pid()),
                ));
            }
        }
        inner.killed.store(true, Ordering::Release);
        inner.wait_until(QUIT_LIMIT, |s| s == RunState::Stopped);
        Ok(())
    }

    fn shutdown(&self) -> Result<ShutdownVia, GuestError> {
        let inner = &self.inner;
        match self.state() {
            RunState::Stopped => {
                return Err(GuestError::new(GuestErrorKind::Gone, "the guest is gone"));
            }
            RunState::Paused | RunState::Frozen | RunState::Starting => {
                return Err(GuestError::new(
                    GuestErrorKind::WrongState,
                    "a guest whose processors stand cannot shut down; resume it first",
                ));
            }
            RunState::Running | RunState::ShuttingDown => {}
        }
        if let Ok(socket) = inner.agent_socket() {
            match agent::shutdown(&socket, AGENT_SHUTDOWN_LIMIT) {
                Ok(()) => {
                    inner.transition(RunState::ShuttingDown);
                    return Ok(ShutdownVia::Agent);
                }
                Err(error) => {
                    tracing::debug!(guest = %inner.spec.id, %error, "no agent; pressing the power button");
                }
            }
        }
        inner.execute("system_powerdown", Value::Null, ORDER_LIMIT)?;
        Ok(ShutdownVia::PowerButton)
    }

    fn wait_stopped(&self, limit: Duration) -> bool {
        self.inner.wait_until(limit, |s| s == RunState::Stopped) == RunState::Stopped
    }

    fn screenshot(&self, path: &Path, wanted: PictureFormat) -> Result<PictureFormat, GuestError> {
        let inner = &self.inner;
        let number = inner.pictures.fetch_add(1, Ordering::Relaxed);
        // QEMU writes where it surely may; we then put the picture where it was asked for.
        let taken = inner.spec.runtime_dir.join(format!("screen-{number}"));
        let shoot = |more: Value| {
            let mut arguments = json!({"filename": taken.to_string_lossy()});
            if let (Value::Object(a), Value::Object(m)) = (&mut arguments, more) {
                a.extend(m);
            }
            inner.execute("screendump", arguments, FILE_LIMIT)
        };
        let plain = || shoot(json!({})).map(|_| PictureFormat::Ppm);
        let format = match wanted {
            PictureFormat::Ppm => plain()?,
            PictureFormat::Png => match shoot(json!({"format": "png"})) {
                Ok(_) => PictureFormat::Png,
                Err(error) if error.kind() == GuestErrorKind::Refused => plain()?,
                Err(error) => return Err(error),
            },
        };
        let placed = fs::read(&taken).and_then(|bytes| runtime::replace(path, &bytes));
        let _ = fs::remove_file(&taken);
        placed.map_err(|e| {
            GuestError::new(GuestErrorKind::Io, format!("{}: cannot be written", path.display()))
                .with_source(e)
        })?;
        Ok(format)
    }

    fn send_keys(&self, chords: &[Chord]) -> Result<(), GuestError> {
        for (i, chord) in chords.iter().enumerate() {
            if i > 0 {
                std::thread::sleep(KEY_PAUSE);
            }
            let keys: Vec<Value> = (chord.keys().iter())
                .map(|key| json!({"type": "qcode", "data": keymap::qcode(*key)}))
                .collect();
            self.inner.execute("send-key", json!({"keys": keys, "hold-time": KEY_HOLD_MS}), ORDER_LIMIT)?;
        }
        Ok(())
    }

    fn strokes(&self, strokes: &[Stroke]) -> Result<(), GuestError> {
        for (i, stroke) in strokes.iter().enumerate() {
            if i > 0 {
                std::thread::sleep(STROKE_PAUSE);
            }
            let key = json!({"type": "qcode", "data": keymap::qcode(stroke.key)});
            let event = json!({"type": "key", "data": {"down": stroke.down, "key": key}});
            self.inner.execute("input-send-event", json!({"events": [event]}), ORDER_LIMIT)?;
        }
        Ok(())
    }

    fn interrupt(&self) -> Result<(), GuestError> {
        self.inner.execute("inject-nmi", Value::Null, ORDER_LIMIT).map(|_| ())
    }

    fn reboot(&self) -> Result<(), GuestError> {
        agent::reboot(&self.inner.agent_socket()?, AGENT_SHUTDOWN_LIMIT)
    }

    fn change_media(&self, drive: &str, media: Option<&Path>, force: bool) -> Result<(), GuestError> {
        let inner = &self.inner;
        let device = inner.drive(drive)?;
        match media {
            Some(media) => {
                if !media.is_absolute() || media.to_str().is_none() {
                    return Err(GuestError::new(
                        GuestErrorKind::NotFound,
                        format!("{}: not an absolute path in UTF-8", media.display()),
                    ));
                }
                fs::File::open(media).map_err(|e| {
                    GuestError::new(
                        GuestErrorKind::NotFound,
                        format!("{}: cannot be opened", media.display()),
                    )
                    .with_source(e)
                })?;
                inner
                    .execute("blockdev-change-medium", launch::insert(&device, media, force), FILE_LIMIT)
                    .map(|_| ())
            }
            None => {
                self.eject(drive, force)?;
                inner.execute("blockdev-close-tray", json!({"id": device}), ORDER_LIMIT).map(|_| ())
            }
        }
    }

    fn eject(&self, drive: &str, force: bool) -> Result<(), GuestError> {
        let device = self.inner.drive(drive)?;
        self.inner.execute("eject", json!({"id": device, "force": force}), FILE_LIMIT).map(|_| ())
    }

    fn set_link(&self, nic: &str, up: bool) -> Result<(), GuestError> {
        let found = self.inner.spec.nics.iter().enumerate().find(|(_, n)| n.id == nic);
        let Some((index, nic)) = found else {
            return Err(GuestError::new(GuestErrorKind::NotFound, format!("the guest has no adapter {nic}")));
        };
        if up && nic.backend == NicBackend::None {
            return Err(GuestError::new(
                GuestErrorKind::Unsupported,
                format!("adapter {} was started without a cable", nic.id),
            )
            .with_hint("connect it to a switch while the machine is off"));
        }
        (self.inner.execute("set_link", json!({"name": layout::nic_id(index), "up": up}), ORDER_LIMIT))
            .map(|_| ())
    }

    fn agent_ping(&self, limit: Duration) -> Result<(), GuestError> {
        self.inner.agent("guest-ping", limit).map(|_| ())
    }

    fn agent_interfaces(&self, limit: Duration) -> Result<Vec<AgentInterface>, GuestError> {
        Ok(agent::interfaces(&self.inner.agent("guest-network-get-interfaces", limit)?))
    }

    fn agent_os(&self, limit: Duration) -> Result<AgentOs, GuestError> {
        Ok(agent::os(&self.inner.agent("guest-get-osinfo", limit)?))
    }

    fn agent_host_name(&self, limit: Duration) -> Result<String, GuestError> {
        agent::host_name(&self.inner.agent("guest-get-host-name", limit)?)
    }

    fn serial_socket(&self, port: u32) -> Option<PathBuf> {
        (port < self.inner.spec.serial_ports).then(|| self.inner.sockets.join(args::serial_socket(port)))
    }

    fn serial_log(&self, port: u32) -> Option<PathBuf> {
        (port < self.inner.spec.serial_ports)
            .then(|| self.inner.spec.runtime_dir.join(args::serial_log(port)))
    }

    fn vnc_socket(&self) -> Option<PathBuf> {
        self.inner.spec.vnc.then(|| self.inner.sockets.join(args::VNC_SOCKET))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::guest::Engine;
    use crate::spec::{Accel, Chipset};
    use crate::{QemuConfig, QemuEngine};

    #[test]
    fn a_lost_control_connection_is_made_anew() {
        if process::find_program("qemu-system-x86_64").is_none() {
            println!("skipped: no qemu-system-x86_64");
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let engine = QemuEngine::new(QemuConfig::default());
        let mut spec = GuestSpec::new(uuid::Uuid::new_v4(), "m", tmp.path().join("run"), Chipset::Pc);
        spec.accel = Accel::Tcg;
        spec.memory_mib = 32;
        drop(engine.start(&spec, Box::new(mpsc::channel().0)).unwrap());

        let record = Record::read(&spec.runtime_dir).unwrap().unwrap();
        let name = record.process.unwrap();
        let process = Process::open_exact(name.pid, name.start_time).unwrap().unwrap();
        let (client, events) = Client::connect(&spec.runtime_dir.join(args::QMP_SOCKET)).unwrap();
        let parts = Parts {
            spec: spec.clone(),
            resolved: record.resolved,
            sockets: spec.runtime_dir.clone(),
            short_dir: tmp.path().join("s"),
            process,
            frozen: None,
            exit: None,
            client,
            events,
        };
        let (sender, told) = mpsc::channel();
        let guest = QemuGuest::supervise(parts, Box::new(sender)).unwrap();
        lock(&guest.inner.client).close();
        assert_eq!(guest.reset().unwrap_err().kind(), GuestErrorKind::Gone);
        let deadline = Instant::now() + Duration::from_secs(10);
        while guest.pause().is_err() {
            assert!(Instant::now() < deadline, "no new connection");
            std::thread::yield_now();
        }
        guest.power_off().unwrap();
        let told: Vec<_> = told.iter().collect();
        assert_eq!(
            told,
            [GuestEvent::Started, GuestEvent::Paused, GuestEvent::Stopped { by: StoppedBy::Host }]
        );
    }
}
