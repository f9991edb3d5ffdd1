//! A machine's guest: start, stop, shut down, pause, resume, reset, and what happens to it by itself.
//!
//! Requests are admitted under the lock of the machine's [`crate::cell`]; events of the guest come out of its
//! [`crate::inbox`] and change the same cell. Saving is a job ([`crate::save`]), going on from there is in [`crate::saved`]. How a guest is
//! made is the engine's part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Guest, GuestErrorKind, GuestEvent, RunState, ShutdownVia};
use uuid::Uuid;

use crate::again::refuse_lost;
use crate::cancel::Cancel;
use crate::cell::Running;
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::inbox::Inbox;
use crate::power::{PowerState, Request};
use crate::record::{self, MachineRecord, Resolved, machine_key};

/// How long an ended guest may take to be gone.
pub(crate) const GONE_LIMIT: Duration = Duration::from_secs(30);
/// How often a change of a record is tried anew when others change it at the same time.
const MAX_ATTEMPTS: u32 = 16;
/// When the power button is pressed again: firmware does not hear it, and a guest that still boots has nobody who does.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

impl Host {
    /// Puts `guest` into the cell and listens to it.
    pub(crate) fn adopt(self: &Arc<Self>, id: Uuid, guest: Box<dyn Guest>, power: PowerState, inbox: Inbox) {
        let cell = self.cell(id);
        let incarnation = {
            let mut running = cell.lock();
            running.incarnation += 1;
            running.power = power;
            running.note = None;
            running.lost = None;
            running.reboots = 0;
            running.held.clear();
            running.host_stops = false;
            running.accelerator = Some(accel_name(guest.resolved().accel).to_owned());
            running.guest = Some(Arc::from(guest));
            running.incarnation
        };
        self.tell(id);
        let host = Arc::downgrade(self);
        inbox.open(move |event| {
            let Some(host) = host.upgrade() else { return };
            match event {
                Some(event) => host.on_event(id, incarnation, &event),
                // The engine says no more: whatever happened, the guest is not there any more.
                None => host.ended(id, incarnation, Some("its guest is gone".to_owned())),
            }
        });
    }

    fn on_event(&self, id: Uuid, incarnation: u64, event: &GuestEvent) {
        tracing::info!(machine = %id, ?event, "guest");
        match event {
            GuestEvent::Started
            | GuestEvent::Paused
            | GuestEvent::Resumed
            | GuestEvent::ShutdownRequested
            | GuestEvent::Reset { .. }
            | GuestEvent::DiskError { .. } => {}
            GuestEvent::Stopped { by } => {
                let note = match by {
                    engine::StoppedBy::Panic => Some("the guest panicked".to_owned()),
                    // Somebody, inside or outside, wanted it off.
                    by => {
                        self.not_wanted(id, incarnation);
                        let asked = self.cell(id).lock().power == PowerState::ShuttingDown;
                        let itself = *by == engine::StoppedBy::Guest && !asked;
                        itself.then(|| "the guest shut down by itself".to_owned())
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
        if matches!(event, GuestEvent::Reset { .. }) {
            running.held.clear();
        }
        match event {
            GuestEvent::DiskError { disk, message } => {
                let disk = disk.as_deref().unwrap_or("a disk");
                running.note = Some(format!("paused because {disk} failed: {message}"));
            }
            GuestEvent::Resumed => running.note = None,
            GuestEvent::Reset { by_guest: true } => running.reboots = running.reboots.saturating_add(1),
            _ => {}
        }
        // Events come late: what counts is what the guest is doing by now. One that runs on while it shuts down, or to
        // which something is being done, is still doing that.
        match (running.power, guest.state()) {
            (PowerState::Stopping | PowerState::Saving | PowerState::Restoring, _)
            | (_, RunState::Stopped | RunState::Frozen) => {}
            (_, RunState::Paused) => running.power = PowerState::Paused,
            (PowerState::ShuttingDown, _) => {}
            (_, RunState::Starting | RunState::Running | RunState::ShuttingDown) => {
                running.power = PowerState::Running;
            }
        }
        drop(running);
        self.tell(id);
    }

    fn ended(&self, id: Uuid, incarnation: u64, note: Option<String>) {
        let rest = self.rest_state(id);
        let cell = self.cell(id);
        let mut running = cell.lock();
        if running.incarnation != incarnation || running.power.at_rest() {
            return;
        }
        if running.power != PowerState::Stopping {
            running.note = note;
        }
        running.power = rest;
        running.accelerator = None;
        let guest = running.guest.take();
        running.last_log = guest.as_ref().and_then(|g| g.serial_log(0));
        drop(running);
        self.tell(id);
        drop(guest);
    }

    /// Starts machine `id`; returns when its guest runs. One that is saved goes on where it was, one that is paused is
    /// resumed.
    ///
    /// # Errors
    /// Its state or a job does not allow it, the host lacks what it takes, a file is missing or in use, or what was saved
    /// cannot be gone on with: the machine is then saved as before.
    pub fn start(self: &Arc<Self>, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let from = {
            let mut running = self.admitted(&cell, Request::Start, &record)?;
            let from = running.power;
            if from.at_rest() {
                // Under the lock: jobs that need the machine at rest are submitted under it too.
                self.refuse_busy(id, "start")?;
                running.power =
                    if from == PowerState::Saved { PowerState::Restoring } else { PowerState::Starting };
                // What an earlier guest still has to say is not about this one.
                running.incarnation += 1;
            }
            from
        };
        self.automatic.forget(id);
        if from == PowerState::Paused {
            return self.resume(id);
        }
        self.tell(id);
        let made = if from == PowerState::Saved {
            self.restore(id)
        } else {
            let made = self.make_guest(id);
            made.map(|(guest, inbox)| self.adopt(id, guest, PowerState::Running, inbox))
        };
        if made.is_err() {
            self.show_as_is(id);
        }
        made
    }

    fn make_guest(&self, id: Uuid) -> Result<(Box<dyn Guest>, Inbox)> {
        // Read now that the machine is shown as starting: from here on only what no guest sees can change.
        let (record, _) = self.record(id)?;
        let (spec, _) = self.spec(&record)?;
        // Before the guest can write a byte: whoever resumes an export compares this number.
        self.update(id, |r| {
            r.run_generation += 1;
            r.wanted_running = true;
            r.turned_off_in = None;
        })?;
        let (events, inbox) = self.inboxes.new_inbox();
        let guest = self.engine.start(&spec, events).map_err(|e| start_failed(&record, e))?;
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
    pub(crate) fn update(&self, id: Uuid, change: impl Fn(&mut MachineRecord)) -> Result<()> {
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

    /// Ends the guest of machine `id` at once, as pulling the plug would; of one that is saved, discards the state. One
    /// that waits for its automatic start is not started.
    ///
    /// # Errors
    /// No guest runs and nothing is saved, or the guest does not go away.
    pub fn stop(&self, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let waited = self.automatic.forget(id);
        let (guest, before, incarnation) = {
            let mut running = cell.lock();
            if waited && running.power == PowerState::Off {
                running.note = None;
                drop(running);
                self.turned_off(id);
                self.tell(id);
                return Ok(());
            }
            self.admit(&running, Request::Stop, &record)?;
            if running.power == PowerState::Saved {
                drop(running);
                return self.discard(id);
            }
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

    /// Asks the guest of machine `id` to shut down and waits for it, `limit` at most. One whose agent does not take the
    /// order has its power button pressed, again and again: firmware and a guest that still boots do not hear it.
    ///
    /// # Errors
    /// No guest runs, or it did not shut down in time (it runs on).
    pub fn shutdown(&self, id: Uuid, limit: Duration) -> Result<()> {
        self.shutdown_until(id, limit, &Cancel::default())
    }

    /// The same, until `cancel` is told: nobody waits any longer then, and the machine is shown as running again. The guest
    /// was asked all the same, and may yet do it.
    ///
    /// # Errors
    /// As [`Self::shutdown`]; [`Reason::Timeout`] also when it was told.
    pub fn shutdown_until(&self, id: Uuid, limit: Duration, cancel: &Cancel) -> Result<()> {
        let deadline = Instant::now() + limit;
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let (guest, incarnation) = {
            let mut running = self.admitted(&cell, Request::Shutdown, &record)?;
            running.power = PowerState::ShuttingDown;
            (running.guest.clone(), running.incarnation)
        };
        self.tell(id);
        cancel.wakes(&cell);
        let over = |r: &Running| r.power.at_rest() || r.incarnation != incarnation;
        let back = |e: Error| {
            let mut running = cell.lock();
            if running.power == PowerState::ShuttingDown && running.incarnation == incarnation {
                running.power = PowerState::Running;
            }
            drop(running);
            self.tell(id);
            e
        };
        loop {
            let asked = guest.as_ref().map_or(Ok(ShutdownVia::Agent), |g| g.shutdown());
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = match asked {
                Ok(ShutdownVia::PowerButton) => left.min(PRESS_AGAIN),
                Ok(ShutdownVia::Agent) => left,
                Err(e) if e.kind() == GuestErrorKind::Gone => left,
                Err(e) => return Err(back(failed(&record, "shut down", e))),
            };
            cell.wait(patience, |r| over(r) || cancel.told());
            if over(&cell.lock()) {
                return Ok(());
            }
            if cancel.told() {
                let what = format!("nobody waits any longer for `{}` to shut down", record.settings.name);
                return Err(back(Error::new(Reason::Timeout, what)));
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(back(
            Error::new(
                Reason::Timeout,
                format!(
                    "`{}` did not shut down within {} s; it runs on",
                    record.settings.name,
                    limit.as_secs()
                ),
            )
            .hint(format!("`slipway machine stop {}` ends it at once", self.word(&record))),
        ))
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
        let guest = self.admitted(&cell, request, &record)?.guest.clone();
        let guest = guest.ok_or_else(|| self.no_guest(&record))?;
        act(&*guest).map_err(|e| failed(&record, request.verb(), e))?;
        let mut running = cell.lock();
        if running.guest.as_ref().is_some_and(|now| Arc::ptr_eq(now, &guest)) {
            running.power = then;
        }
        drop(running);
        self.tell(id);
        Ok(())
    }

    /// Interrupts the processors of machine `id` in a way that they cannot mask.
    ///
    /// # Errors
    /// No guest runs, or it cannot be interrupted.
    pub fn interrupt(&self, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        self.guest(id)?.interrupt().map_err(|e| failed(&record, "interrupt", e))
    }

    /// Has the agent of the guest of machine `id` reboot it; returns once it has taken the order.
    ///
    /// # Errors
    /// The guest does not run, or nobody in it takes the order.
    pub fn reboot(&self, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let guest = self.admitted(&cell, Request::Shutdown, &record)?.guest.clone();
        let guest = guest.ok_or_else(|| self.no_guest(&record))?;
        guest.reboot().map_err(|e| match e.kind() {
            GuestErrorKind::NoAgent => {
                let what = format!("nobody in `{}` takes the order to reboot", record.settings.name);
                Error::new(Reason::NotSupported, what)
                    .hint("install qemu-guest-agent in the guest")
                    .caused_by(e)
            }
            _ => failed(&record, "reboot", e),
        })
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

    pub(crate) fn no_guest(&self, record: &MachineRecord) -> Error {
        let rest = if record.saved.is_some() { PowerState::Saved } else { PowerState::Off };
        Error::new(Reason::InvalidState, format!("`{}` is {rest}", record.settings.name))
            .hint(format!("`slipway machine start {}` first", self.word(record)))
    }

    /// Waits until machine `id` is in `state`; false when `limit` passes first.
    pub fn wait_for(&self, id: Uuid, state: PowerState, limit: Duration) -> bool {
        self.cell(id).wait(limit, |r| r.power == state)
    }

    /// Keeps that machine `id` is off because it was meant to be; before a waiter can start it anew.
    fn not_wanted(&self, id: Uuid, incarnation: u64) {
        {
            let cell = self.cell(id);
            let running = cell.lock();
            // One that is saved is so on record already, with what is wanted of it.
            let decided = running.host_stops || running.power == PowerState::Saving;
            if running.incarnation != incarnation || decided {
                return;
            }
        }
        self.turned_off(id);
    }

    /// Keeps that machine `id` is to stay off.
    pub(crate) fn turned_off(&self, id: Uuid) {
        let off = |r: &mut MachineRecord| {
            r.wanted_running = false;
            r.turned_off_in.clone_from(&self.boot);
        };
        if let Err(e) = self.update(id, off) {
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

/// The domain's error for an order that a guest did not carry out.
pub(crate) fn failed(record: &MachineRecord, verb: &str, e: engine::GuestError) -> Error {
    use GuestErrorKind as K;
    let reason = match e.kind() {
        K::Gone | K::WrongState => Reason::InvalidState,
        K::TimedOut => Reason::Timeout,
        K::Unsupported => Reason::NotSupported,
        K::NoSpace => Reason::NoSpace,
        K::NotFound => Reason::NotFound,
        K::Io => Reason::Io,
        _ => Reason::Engine,
    };
    let error = Error::new(reason, format!("cannot {verb} `{}`", record.settings.name));
    match e.hint() {
        Some(hint) => error.hint(hint.to_owned()),
        None => error,
    }
    .caused_by(e)
}

pub(crate) fn start_failed(record: &MachineRecord, e: engine::StartError) -> Error {
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
        K::BadState => Reason::BadState,
        _ => Reason::Engine,
    };
    let mut error = Error::new(reason, format!("cannot start `{}`", record.settings.name));
    if let Some(hint) = e.hint() {
        error = error.hint(hint);
    }
    error.caused_by(e)
}
