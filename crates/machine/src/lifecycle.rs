//! A machine's guest: start, stop, shut down, pause, resume, reset, and what happens to it by itself.
//!
//! Every machine has a [`Cell`]: its power state and, while one lives, its guest, under one lock. Requests are admitted by
//! [`crate::power`]'s table under that lock; events of the guest arrive on a thread per guest and change the same cell.
//! Nothing else changes a machine's state. How a guest is made is the engine's part.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::{Guest, GuestEvent, RunState};
use uuid::Uuid;

use crate::again::{Lost, refuse_lost};
use crate::error::{Error, Reason, Result};
use crate::hardware;
use crate::host::Host;
use crate::power::{self, PowerState, Request};
use crate::record::{self, MachineRecord, Resolved, SWITCHES, machine_key};

/// How long an ended guest may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(30);
/// How often a change of a record is tried anew when others change it at the same time.
const MAX_ATTEMPTS: u32 = 16;

/// The running side of one machine.
#[derive(Default)]
pub(crate) struct Cell {
    running: Mutex<Running>,
    changed: Condvar,
}

/// What a cell guards.
pub(crate) struct Running {
    pub(crate) power: PowerState,
    pub(crate) guest: Option<Arc<dyn Guest>>,
    pub(crate) note: Option<String>,
    pub(crate) accelerator: Option<String>,
    /// Set while a guest of an earlier process cannot be reached; [`PowerState::Running`] without a guest.
    pub(crate) lost: Option<Lost>,
    /// What the first serial port of the last guest said.
    pub(crate) last_log: Option<std::path::PathBuf>,
    /// Grows with every guest: an event of an earlier guest must not end a later one.
    incarnation: u64,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            power: PowerState::Off,
            guest: None,
            note: None,
            accelerator: None,
            lost: None,
            last_log: None,
            incarnation: 0,
        }
    }
}

impl Cell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits `request` to the machine of `record` under the lock.
    fn admit(
        &self,
        host: &Host,
        request: Request,
        record: &MachineRecord,
    ) -> Result<MutexGuard<'_, Running>> {
        let running = self.lock();
        refuse_lost(&running, &record.settings.name)?;
        host.admit(running.power, request, record)?;
        Ok(running)
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits until `done` holds; false when `limit` passes first.
    pub(crate) fn wait(&self, limit: Duration, done: impl Fn(&Running) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut running = self.lock();
        while !done(&running) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            running = self.changed.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Host {
    /// Refuses `request` to the machine of `record` in `state` by the power table.
    pub(crate) fn admit(&self, state: PowerState, request: Request, record: &MachineRecord) -> Result<()> {
        if power::admits(state, request) {
            return Ok(());
        }
        let mut refusal =
            Error::new(Reason::InvalidState, format!("cannot {} a machine that is {state}", request.verb()));
        if let Some(way) = power::way_to(state, request) {
            refusal = refusal.hint(format!("`slipway machine {way} {}` first", self.word(record)));
        }
        Err(refusal)
    }

    /// Puts `guest` into the cell and listens to it.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        id: Uuid,
        guest: Box<dyn Guest>,
        power: PowerState,
        inbox: mpsc::Receiver<GuestEvent>,
    ) {
        let cell = self.cell(id);
        let incarnation = {
            let mut running = cell.lock();
            running.incarnation += 1;
            running.power = power;
            running.note = None;
            running.lost = None;
            running.accelerator = Some(accel_name(guest.resolved().accel).to_owned());
            running.guest = Some(Arc::from(guest));
            running.incarnation
        };
        cell.changed.notify_all();
        self.tell(id);
        let host = Arc::downgrade(self);
        let listener = move || {
            for event in inbox {
                let Some(host) = host.upgrade() else { return };
                host.on_event(id, incarnation, &event);
            }
            // The engine dropped its end: whatever happened, the guest is not there any more.
            if let Some(host) = host.upgrade() {
                host.ended(id, incarnation, Some("its guest is gone".to_owned()));
            }
        };
        let name = format!("guest-{}", &id.simple().to_string()[..8]);
        if let Err(e) = std::thread::Builder::new().name(name).spawn(listener) {
            tracing::error!(machine = %id, "no thread to listen to the guest: {e}");
        }
    }

    fn on_event(&self, id: Uuid, incarnation: u64, event: &GuestEvent) {
        tracing::info!(machine = %id, ?event, "guest");
        match event {
            GuestEvent::Started
            | GuestEvent::Paused
            | GuestEvent::Resumed
            | GuestEvent::ShutdownRequested
            | GuestEvent::DiskError { .. } => {}
            GuestEvent::Stopped { by } => {
                let note = match by {
                    engine::StoppedBy::Panic => Some("the guest panicked".to_owned()),
                    // Somebody, inside or outside, wanted it off.
                    _ => {
                        self.not_wanted(id, incarnation);
                        None
                    }
                };
                return self.ended(id, incarnation, note);
            }
            GuestEvent::Died { message } => return self.ended(id, incarnation, Some(message.clone())),
            _ => return,
        }
        let cell = self.cell(id);
        let mut running = cell.lock();
        let Some(guest) = running.guest.clone().filter(|_| running.incarnation == incarnation) else {
            return;
        };
        match event {
            GuestEvent::DiskError { disk, message } => {
                let disk = disk.as_deref().unwrap_or("a disk");
                running.note = Some(format!("paused because {disk} failed: {message}"));
            }
            GuestEvent::Resumed => running.note = None,
            _ => {}
        }
        // Events come late: what counts is what the guest is doing by now. One that runs on while it shuts down or is
        // being stopped is still doing that.
        match (running.power, guest.state()) {
            (PowerState::Stopping, _) | (_, RunState::Stopped | RunState::Frozen) => {}
            (_, RunState::Paused) => running.power = PowerState::Paused,
            (PowerState::ShuttingDown, _) => {}
            (_, RunState::Starting | RunState::Running | RunState::ShuttingDown) => {
                running.power = PowerState::Running;
            }
        }
        drop(running);
        cell.changed.notify_all();
        self.tell(id);
    }

    fn ended(&self, id: Uuid, incarnation: u64, note: Option<String>) {
        let cell = self.cell(id);
        let mut running = cell.lock();
        if running.incarnation != incarnation || running.power == PowerState::Off {
            return;
        }
        if running.power != PowerState::Stopping {
            running.note = note;
        }
        running.power = PowerState::Off;
        running.accelerator = None;
        let guest = running.guest.take();
        running.last_log = guest.as_ref().and_then(|g| g.serial_log(0));
        drop(running);
        cell.changed.notify_all();
        self.tell(id);
        drop(guest);
    }

    /// Starts machine `id`; returns when its guest runs.
    ///
    /// # Errors
    /// Its state or a job does not allow it, the host lacks what it takes, a file is missing or in use.
    pub fn start(self: &Arc<Self>, id: Uuid) -> Result<()> {
        let (mut record, revision) = self.record(id)?;
        let cell = self.cell(id);
        {
            let mut running = cell.admit(self, Request::Start, &record)?;
            // Under the lock: jobs that need the machine off are submitted under it too.
            self.refuse_busy(id, "start")?;
            running.power = PowerState::Starting;
            // What an earlier guest still has to say is not about this one.
            running.incarnation += 1;
        }
        self.tell(id);
        let made = self.make_guest(&mut record, revision);
        match made {
            Ok((guest, inbox)) => {
                self.adopt(id, guest, PowerState::Running, inbox);
                Ok(())
            }
            Err(e) => {
                cell.lock().power = PowerState::Off;
                cell.changed.notify_all();
                self.tell(id);
                Err(e)
            }
        }
    }

    fn make_guest(
        &self,
        record: &mut MachineRecord,
        revision: u64,
    ) -> Result<(Box<dyn Guest>, mpsc::Receiver<GuestEvent>)> {
        let disks = self.disks_of(record)?;
        let switches = record::list(&*self.store, SWITCHES)?;
        let places = self.places(record);
        for disk in &disks {
            for layer in &disk.layers {
                if let Err(e) = std::fs::metadata(&layer.path) {
                    return Err(Error::io("open disk", &layer.path, e));
                }
            }
        }
        let spec = hardware::guest(record, &disks, &switches, &places).map_err(|e| {
            Error::new(Reason::InvalidArgument, "the machine's settings cannot become a guest").caused_by(e)
        })?;
        // Before the guest can write a byte: whoever resumes an export compares this number.
        record.run_generation += 1;
        record.wanted_running = true;
        let put = record::put(machine_key(record.id), record)?;
        let unchanged = store::Condition::Revision(machine_key(record.id), revision);
        if !record::commit(&*self.store, vec![unchanged], vec![put])? {
            return Err(Error::new(Reason::Busy, "the machine was changed while it was being started"));
        }
        let (events, inbox) = mpsc::channel();
        let guest = self.engine.start(&spec, events).map_err(|e| start_failed(record, e))?;
        if record.resolved.is_none() {
            let engine::Resolved { machine_version, cpu_model, .. } = guest.resolved().clone();
            let resolved = Resolved { machine_version, cpu_model };
            // The guest runs, so this cannot fail the start any more.
            if let Err(e) = self.update(record.id, |r| r.resolved = Some(resolved.clone())) {
                tracing::warn!(machine = %record.id, "hardware versions not kept: {}", e.chain());
            }
        }
        Ok((guest, inbox))
    }

    /// Changes the record of machine `id`, whoever else changes it meanwhile.
    fn update(&self, id: Uuid, change: impl Fn(&mut MachineRecord)) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut record, revision) = self.record(id)?;
            change(&mut record);
            let put = record::put(machine_key(id), &record)?;
            let unchanged = store::Condition::Revision(machine_key(id), revision);
            if record::commit(&*self.store, vec![unchanged], vec![put])? {
                return Ok(());
            }
        }
        Err(Error::new(Reason::Busy, "the machine is being changed by others all the time"))
    }

    /// Ends the guest of machine `id` at once, as pulling the plug would.
    ///
    /// # Errors
    /// No guest runs, or it does not go away.
    pub fn stop(&self, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let (guest, before, incarnation) = {
            let mut running = cell.admit(self, Request::Stop, &record)?;
            let before = running.power;
            running.power = PowerState::Stopping;
            (running.guest.clone(), before, running.incarnation)
        };
        self.tell(id);
        if let Some(guest) = guest
            && let Err(e) = guest.power_off()
        {
            let mut running = cell.lock();
            if running.power == PowerState::Stopping && running.incarnation == incarnation {
                running.power = before;
                drop(running);
                self.tell(id);
                return Err(failed(&record, "stop", e));
            }
        }
        if cell.wait(GONE_LIMIT, |r| r.power == PowerState::Off || r.incarnation != incarnation) {
            return Ok(());
        }
        Err(Error::new(
            Reason::Timeout,
            format!(
                "the guest of `{}` was ended but is not gone after {} s",
                record.settings.name,
                GONE_LIMIT.as_secs()
            ),
        ))
    }

    /// Asks the guest of machine `id` to shut down and waits for it, `limit` at most.
    ///
    /// # Errors
    /// No guest runs, or it did not shut down in time (it runs on).
    pub fn shutdown(&self, id: Uuid, limit: Duration) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let (guest, incarnation) = {
            let mut running = cell.admit(self, Request::Shutdown, &record)?;
            running.power = PowerState::ShuttingDown;
            (running.guest.clone(), running.incarnation)
        };
        self.tell(id);
        let over = |r: &Running| r.power == PowerState::Off || r.incarnation != incarnation;
        let back = |e: Error| {
            let mut running = cell.lock();
            if running.power == PowerState::ShuttingDown && running.incarnation == incarnation {
                running.power = PowerState::Running;
            }
            drop(running);
            self.tell(id);
            e
        };
        if let Some(guest) = guest
            && let Err(e) = guest.shutdown()
            && e.kind() != engine::GuestErrorKind::Gone
        {
            return Err(back(failed(&record, "shut down", e)));
        }
        if !cell.wait(limit, over) {
            return Err(back(
                Error::new(
                    Reason::Timeout,
                    format!(
                        "`{}` did not shut down within {} s; it runs on",
                        record.settings.name,
                        limit.as_secs()
                    ),
                )
                .hint(format!("`slipway machine stop {}` ends it at once", self.word(&record))),
            ));
        }
        Ok(())
    }

    /// Freezes the guest.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, id: Uuid) -> Result<()> {
        self.ask(id, Request::Pause, PowerState::Paused, |g| g.pause())
    }

    /// Lets a frozen guest go on.
    ///
    /// # Errors
    /// It is not paused.
    pub fn resume(&self, id: Uuid) -> Result<()> {
        self.ask(id, Request::Resume, PowerState::Running, |g| g.resume())
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// No guest runs.
    pub fn reset(&self, id: Uuid) -> Result<()> {
        self.ask(id, Request::Reset, PowerState::Running, |g| {
            g.reset()?;
            g.resume()
        })
    }

    fn ask(
        &self,
        id: Uuid,
        request: Request,
        then: PowerState,
        act: impl FnOnce(&dyn Guest) -> std::result::Result<(), engine::GuestError>,
    ) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let guest = cell.admit(self, request, &record)?.guest.clone();
        let guest = guest.ok_or_else(|| self.no_guest(&record))?;
        act(&*guest).map_err(|e| failed(&record, request.verb(), e))?;
        let mut running = cell.lock();
        if running.guest.as_ref().is_some_and(|now| Arc::ptr_eq(now, &guest)) {
            running.power = then;
        }
        drop(running);
        cell.changed.notify_all();
        self.tell(id);
        Ok(())
    }

    /// The guest of machine `id`, for its console, screen, keyboard, drives and agent.
    ///
    /// # Errors
    /// No guest runs.
    pub fn guest(&self, id: Uuid) -> Result<Arc<dyn Guest>> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let running = cell.lock();
        refuse_lost(&running, &record.settings.name)?;
        running.guest.clone().ok_or_else(|| self.no_guest(&record))
    }

    fn no_guest(&self, record: &MachineRecord) -> Error {
        Error::new(Reason::InvalidState, format!("`{}` is off", record.settings.name))
            .hint(format!("`slipway machine start {}` first", self.word(record)))
    }

    /// Waits until machine `id` is in `state`; false when `limit` passes first.
    pub fn wait_for(&self, id: Uuid, state: PowerState, limit: Duration) -> bool {
        self.cell(id).wait(limit, |r| r.power == state)
    }

    /// Keeps that machine `id` is off because it was meant to be; before a waiter can start it anew.
    fn not_wanted(&self, id: Uuid, incarnation: u64) {
        if self.cell(id).lock().incarnation != incarnation {
            return;
        }
        if let Err(e) = self.update(id, |r| r.wanted_running = false) {
            tracing::warn!(machine = %id, "that it was stopped is not kept: {}", e.chain());
        }
    }
}

fn accel_name(accel: engine::Accel) -> &'static str {
    match accel {
        engine::Accel::Kvm => "kvm",
        engine::Accel::Tcg => "tcg",
        engine::Accel::Auto => "auto",
    }
}

fn failed(record: &MachineRecord, verb: &str, e: engine::GuestError) -> Error {
    Error::new(Reason::Engine, format!("cannot {verb} `{}`", record.settings.name)).caused_by(e)
}

fn start_failed(record: &MachineRecord, e: engine::StartError) -> Error {
    use engine::StartErrorKind as K;
    let reason = match e.kind() {
        K::InUse => Reason::InUse,
        K::NotFound => Reason::NotFound,
        K::Denied => Reason::AccessDenied,
        K::NotInstalled | K::NoAccel | K::NoFirmware | K::NoTpm | K::NoNetwork | K::NoResources => {
            Reason::HostLacks
        }
        K::InvalidSpec => Reason::InvalidArgument,
        K::AlreadyRunning => Reason::InvalidState,
        K::TimedOut => Reason::Timeout,
        _ => Reason::Engine,
    };
    let mut error = Error::new(reason, format!("cannot start `{}`", record.settings.name));
    if let Some(hint) = e.hint() {
        error = error.hint(hint);
    }
    error.caused_by(e)
}
