//! Save: the job that writes a guest's memory to a file, records it, and ends the guest.
//!
//! ```text
//!  prepare   which file, and what the machine was doing                       (recorded)
//!  save      freeze ─ memory to a partial file ─ sync, hash, rename ─ the record ─ end the guest
//! ```
//!
//! The second step is one because only together are its parts safe to repeat: a guest that went on after its memory was
//! written makes that file worthless. Until the record says that the machine is saved, undo is to let the guest go on;
//! afterwards it is that too, but for a guest that was ended already, which is then made of the file again, exactly where
//! it was.
//!
//! | If we die | Then |
//! |---|---|
//! | before the guest is frozen | it runs, and the step runs again |
//! | while its memory is written | the next daemon lets it go on at once, and the step runs again |
//! | between rename and record | the same; the file is swept, as no record names it |
//! | after the record, the guest not ended | the next daemon ends it: it has not run since |
//! | after the guest was ended | the machine is saved, and the step has nothing left to do |

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Guest, GuestErrorKind};
use job::{Context, Failure, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::again::refuse_lost;
use crate::blob::sync_directory;
use crate::cell::power_of;
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::jobs::{World, copy_failure, failure, io};
use crate::layout::Layout;
use crate::lifecycle::{GONE_LIMIT, failed};
use crate::power::{PowerState, Request};
use crate::record::MachineRecord;
use crate::saved::{Needs, Saved, digest, file_name, partial, remove};

impl Host {
    /// Saves machine `id`: a job that writes its guest's memory to a file and ends it. A start goes on from there.
    ///
    /// # Errors
    /// No guest runs, a job holds the machine, or something in the guest cannot be saved.
    pub fn save(self: &Arc<Self>, id: Uuid, owner: &str) -> Result<Uuid> {
        self.submit_save(id, owner, false)
    }

    pub(crate) fn submit_save(self: &Arc<Self>, id: Uuid, owner: &str, host_stops: bool) -> Result<Uuid> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let guest = self.admitted(&cell, Request::Save, &record)?.guest.clone();
        // Asked without the lock: a guest that does not answer must not hold up who only looks.
        let guest = guest.ok_or_else(|| self.no_guest(&record))?;
        guest.can_save().map_err(|e| failed(&record, "save", e))?;
        let running = self.admitted(&cell, Request::Save, &record)?;
        self.refuse_busy(id, "save")?;
        let submission = job::Submission::<Save>::new(SaveParams { machine: id, host_stops })
            .subject(id.to_string())
            .owner(owner);
        let job = crate::jobs::submit(self, submission);
        drop(running);
        job
    }
}

/// The job kind.
pub(crate) struct Save;

/// What it is to save.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SaveParams {
    pub(crate) machine: Uuid,
    /// The host is stopping: the machine is still wanted running.
    #[serde(default)]
    pub(crate) host_stops: bool,
}

/// Where to, and from what.
#[derive(Debug, Serialize, Deserialize)]
struct Prepared {
    /// Name of the state file.
    file: String,
    /// The guest was paused.
    paused: bool,
    /// The machine was wanted running.
    wanted_running: bool,
}

/// What the finished job tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMachine {
    /// The state file.
    pub file: PathBuf,
    /// Its bytes, holes included.
    pub bytes: u64,
}

impl Kind for Save {
    const NAME: &'static str = "save";
    const VERSION: u32 = 1;
    type Params = SaveParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new().step("prepare", prepare, settle).step("save", save, take_back).weight(50)
    }
}

type Cx<'a> = Context<'a, Save>;

fn record(cx: &Cx<'_>, host: &Host) -> std::result::Result<MachineRecord, Failure> {
    Ok(host.record(cx.params().machine).map_err(|e| failure(&e))?.0)
}

fn prepare(cx: &mut Cx<'_>) -> std::result::Result<Prepared, Failure> {
    let host = cx.world().host()?;
    let record = record(cx, &host)?;
    let id = record.id;
    let cell = host.cell(id);
    let guest = {
        let mut running = cell.lock();
        refuse_lost(&running, &record.settings.name).map_err(|e| failure(&e))?;
        // Again, since it was only asked for before it waited in the queue; unless this step ran before.
        if running.power != PowerState::Saving {
            host.admit(&running, Request::Save, &record).map_err(|e| failure(&e))?;
        }
        let guest = running.guest.clone().ok_or_else(|| failure(&host.no_guest(&record)))?;
        running.power = PowerState::Saving;
        guest
    };
    host.tell(id);
    Ok(Prepared {
        file: file_name(cx.id().0),
        paused: guest.state() == engine::RunState::Paused,
        wanted_running: record.wanted_running,
    })
}

fn settle(cx: &mut Cx<'_>, _why: UndoReason) -> std::result::Result<(), Failure> {
    cx.world().host()?.show_as_is(cx.params().machine);
    Ok(())
}

fn save(cx: &mut Cx<'_>) -> std::result::Result<SavedMachine, Failure> {
    let host = cx.world().host()?;
    let prepared: Prepared = cx.output(prepare)?;
    let record = record(cx, &host)?;
    let file = record.home.join(&prepared.file);
    if let Some(saved) = record.saved.as_ref().filter(|s| s.file == prepared.file) {
        end(&host, &record)?;
        return Ok(SavedMachine { file, bytes: saved.bytes });
    }
    let guest = hold(&host, &record)?;
    let (hash, bytes) = write(cx, &record, &*guest, &file)?;
    let committed = note(&host, cx.params(), &guest, &prepared, hash, bytes);
    // Whether it is on record, only the record knows: undo asks it.
    committed.map_err(|e| failure(&e))?;
    end(&host, &record)?;
    Ok(SavedMachine { file, bytes })
}

/// The guest, with its machine shown as being saved.
fn hold(host: &Host, record: &MachineRecord) -> std::result::Result<Arc<dyn Guest>, Failure> {
    let cell = host.cell(record.id);
    let guest = {
        let mut running = cell.lock();
        refuse_lost(&running, &record.settings.name).map_err(|e| failure(&e))?;
        let guest = running.guest.clone().ok_or_else(|| failure(&host.no_guest(record)))?;
        running.power = PowerState::Saving;
        guest
    };
    host.tell(record.id);
    Ok(guest)
}

/// Writes the guest's memory to `file`, whole and durable, and returns its digest and size. If that fails, the guest goes
/// on and there is no file.
fn write(
    cx: &Cx<'_>,
    record: &MachineRecord,
    guest: &dyn Guest,
    file: &Path,
) -> std::result::Result<(String, u64), Failure> {
    let temporary = partial(file);
    for path in [&temporary, file] {
        remove(path).map_err(|e| io("remove", path, e))?;
    }
    let reporter = cx.reporter();
    let mut watch = |p: engine::SaveProgress| {
        reporter.progress("saving memory", p.done, p.total);
        if reporter.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    guest.save(&temporary, &mut watch).map_err(|e| match e.kind() {
        GuestErrorKind::Cancelled => Failure::new(job::ids::INTERRUPTED, "told to stop"),
        // A guest that stands does not end by itself: this is no state that somebody should have waited for.
        GuestErrorKind::Gone => {
            let message = format!("the guest of `{}` ended while it was saved", record.settings.name);
            failure(
                &Error::new(Reason::Engine, message).hint("what it left is said by `slipway machine show`"),
            )
        }
        _ => failure(&failed(record, "save", e)),
    })?;
    let keep = || {
        let open = std::fs::File::open(&temporary).and_then(|f| f.sync_all());
        open.map_err(|e| io("sync", &temporary, e))?;
        cx.progress("hashing memory", 0, 0);
        let hashed = digest(&temporary, &|| reporter.cancelled())
            .map_err(|e| copy_failure(&format!("cannot save `{}`", record.settings.name), &e))?;
        cx.check_cancel()?;
        std::fs::rename(&temporary, file).map_err(|e| io("rename into", file, e))?;
        sync_directory(&record.home).map_err(|e| io("sync directory", &record.home, e))?;
        Ok(hashed)
    };
    let kept = keep();
    if kept.is_err() {
        for path in [&temporary, file] {
            let _ = remove(path);
        }
        // Now, not when undo comes to it: told to stop, we may be gone by then.
        if let Err(e) = guest.thaw() {
            tracing::error!(machine = %record.id, "it is not saved and does not go on: {}", crate::error::chain(&e));
        }
    }
    kept
}

/// Puts on record that the machine is saved.
fn note(
    host: &Host,
    params: &SaveParams,
    guest: &Arc<dyn Guest>,
    prepared: &Prepared,
    digest: String,
    bytes: u64,
) -> Result<()> {
    let (record, _) = host.record(params.machine)?;
    let sizes: Vec<u64> = host.disks_of(&record)?.iter().map(|d| d.virtual_size).collect();
    let resolved = guest.resolved();
    let offers = host.offers();
    let needs = Needs {
        engine: offers.engine.clone(),
        engine_version: offers.engine_version.clone(),
        machine_version: resolved.machine_version.clone(),
        cpu_model: resolved.cpu_model.clone(),
        accelerator: resolved.accel,
        // What it was started with, perhaps by an earlier program than this.
        layout: Layout::of(guest.spec(), &sizes),
    };
    let when = host.now();
    host.update(params.machine, |r| {
        r.saved = Some(Saved {
            file: prepared.file.clone(),
            bytes,
            digest: digest.clone(),
            when,
            run_generation: r.run_generation,
            needs: needs.clone(),
        });
        if !params.host_stops {
            r.wanted_running = false;
            r.turned_off_in.clone_from(&host.boot);
        }
    })
}

/// Ends the guest of a machine that is saved on record.
fn end(host: &Host, record: &MachineRecord) -> std::result::Result<(), Failure> {
    let cell = host.cell(record.id);
    let guest = cell.lock().guest.clone();
    if let Some(guest) = guest {
        guest.power_off().map_err(|e| failure(&failed(record, "save", e)))?;
        cell.wait(GONE_LIMIT, |r| r.guest.is_none());
    }
    // However it ended: nothing of it is lost.
    cell.lock().note = None;
    host.show_as_is(record.id);
    Ok(())
}

fn take_back(cx: &mut Cx<'_>, _why: UndoReason) -> std::result::Result<(), Failure> {
    let host = cx.world().host()?;
    let id = cx.params().machine;
    let Some(prepared) = cx.try_output(prepare)? else { return Ok(()) };
    let record = match host.record(id) {
        Ok((record, _)) => record,
        Err(e) if e.reason() == Reason::NotFound => return Ok(()),
        Err(e) => return Err(failure(&e)),
    };
    let ours = record.saved.as_ref().is_some_and(|s| s.file == prepared.file);
    let guest = host.cell(id).lock().guest.clone();
    match (ours, guest) {
        (false, None) => {}
        (false, Some(guest)) => thaw(&host, &record, &*guest)?,
        (true, Some(guest)) => {
            host.update(id, |r| {
                r.saved = None;
                r.wanted_running = prepared.wanted_running;
                r.turned_off_in = None;
            })
            .map_err(|e| failure(&e))?;
            thaw(&host, &record, &*guest)?;
        }
        (true, None) => match again(&host, &record, prepared.paused) {
            Ok(()) => {}
            Err(e) => {
                // Nothing is lost: it is saved, as it was to be.
                cx.warn(job::Warning::new(
                    e.reason().id(),
                    format!(
                        "`{}` was saved before it could be taken back, and stays so: {}",
                        record.settings.name,
                        e.chain()
                    ),
                ));
                return Ok(());
            }
        },
    }
    let file = record.home.join(&prepared.file);
    for path in [partial(&file), file] {
        remove(&path).map_err(|e| io("remove", &path, e))?;
    }
    Ok(())
}

fn thaw(host: &Host, record: &MachineRecord, guest: &dyn Guest) -> std::result::Result<(), Failure> {
    match guest.thaw() {
        Err(e) if e.kind() != GuestErrorKind::Gone => {
            // Shown as paused, so that a person can resume or stop it.
            host.show_as_is(record.id);
            Err(failure(&failed(record, "resume", e)))
        }
        _ => Ok(()),
    }
}

/// Makes a guest of what was saved, and pauses it where it was paused.
fn again(host: &Arc<Host>, record: &MachineRecord, paused: bool) -> std::result::Result<(), Error> {
    let cell = host.cell(record.id);
    {
        let mut running = cell.lock();
        refuse_lost(&running, &record.settings.name)?;
        running.power = PowerState::Restoring;
        running.incarnation += 1;
    }
    host.tell(record.id);
    let restored = host.restore(record.id);
    host.show_as_is(record.id);
    restored?;
    if paused { host.pause(record.id) } else { Ok(()) }
}

impl Host {
    /// Shows machine `id` as what it is, now that nobody does anything to it: as its guest is, or as its record says.
    pub(crate) fn show_as_is(&self, id: Uuid) {
        let cell = self.cell(id);
        let rest = self.rest_state(id);
        {
            let mut running = cell.lock();
            match running.guest.as_ref().map(|g| g.state()) {
                // Whether it has one is not known.
                None if running.lost.is_some() => {}
                None => running.power = rest,
                // Its last word is on its way.
                Some(engine::RunState::Stopped) => {}
                Some(state) => running.power = power_of(state),
            }
        }
        self.tell(id);
    }

    /// What machine `id` is without a guest.
    pub(crate) fn rest_state(&self, id: Uuid) -> PowerState {
        match self.record(id) {
            Ok((record, _)) if record.saved.is_some() => PowerState::Saved,
            _ => PowerState::Off,
        }
    }
}

#[cfg(test)]
mod tests;
