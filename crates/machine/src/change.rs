//! Changes of a machine that have to copy a disk first: jobs that take files in and give them back.
//!
//! ```text
//!  claim    a record for each file that comes; from here on it is in use      (`arriving`: no settings name it yet)
//!  carry    what comes is copied into its layer; what goes is written into its file   (again after a death)
//!  commit   the change itself, as it would have been made at once
//! ```
//!
//! The change is one transaction, and the last thing that happens. Undo takes back what the first two steps made; a file that
//! was given back stays so, for it holds what its disk holds. A cancel that comes after the commit takes nothing back.

use std::fs;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use job::{Context, Failure, JobId, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use store::Operation;
use transfer::copy::CopyOptions;
use uuid::Uuid;

use crate::brought::{Brought, to_take_in};
use crate::define::{DefineRequest, MachineEdit, NewDisk};
use crate::disk::DiskRecord;
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::image::file;
use crate::jobs::{World, failure, io};
use crate::position::Put;
use crate::power::Request;
use crate::record::{self, DISKS};
use crate::settings::{Media, Settings};

/// How a change was begun.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun<T> {
    /// It is done.
    Done(T),
    /// A disk must be copied first: a job does all of it.
    Job(Uuid),
}

/// A change that a job makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// A machine is made.
    Define(Box<DefineRequest>),
    /// One is changed.
    Edit(Box<MachineEdit>),
    /// One is deleted.
    Delete {
        /// Keep the files of its disks.
        keep_disks: bool,
    },
}

/// What the job is to do, to which machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChangeParams {
    pub(crate) machine: Uuid,
    pub(crate) change: Change,
}

/// What a job has prepared for a change.
#[derive(Default)]
pub(crate) struct Prepared {
    /// The machine's directory, of one that is made.
    pub(crate) home: Option<PathBuf>,
    /// Disks that were taken in.
    pub(crate) disks: Vec<DiskRecord>,
    /// The job.
    pub(crate) by: Option<Uuid>,
}

impl Prepared {
    /// The disk that was taken in from `path`.
    pub(crate) fn of(&self, path: &std::path::Path) -> Option<&DiskRecord> {
        self.disks
            .iter()
            .find(|disk| disk.brought.as_ref().is_some_and(|b| crate::inuse::same_file(&b.file, path)))
    }
}

/// What such a job is called: they do the same, and are told apart by those who watch.
pub(crate) trait Word: Send + Sync + 'static {
    const NAME: &'static str;
}

/// A job that changes a machine.
pub(crate) struct Changing<W>(PhantomData<W>);
pub(crate) struct Defining;
pub(crate) struct Editing;
pub(crate) struct Deleting;

impl Word for Defining {
    const NAME: &'static str = "define";
}
impl Word for Editing {
    const NAME: &'static str = "change";
}
impl Word for Deleting {
    const NAME: &'static str = "delete";
}

impl<W: Word> Kind for Changing<W> {
    const NAME: &'static str = W::NAME;
    const VERSION: u32 = 1;
    type Params = ChangeParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new()
            .step("claim", claim::<W>, unclaim::<W>)
            .step("carry", carry::<W>, drop_partial::<W>)
            .weight(50)
            .step_without_undo("commit", commit::<W>)
    }
}

type Cx<'a, W> = Context<'a, Changing<W>>;
type Done<T> = std::result::Result<T, Failure>;

/// What comes and goes.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    home: PathBuf,
    arriving: Vec<DiskRecord>,
    leaving: Vec<Uuid>,
}

/// How long a wait for a job lasts before it is asked whether anybody still runs jobs.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Host {
    /// Submits a change as a job. The caller holds the machine's cell.
    pub(crate) fn submit_change<W: Word>(&self, machine: Uuid, change: Change, owner: &str) -> Result<Uuid> {
        let submission = job::Submission::<Changing<W>>::new(ChangeParams { machine, change });
        crate::jobs::submit(self, submission.subject(machine.to_string()).owner(owner))
    }

    /// Waits for the end of a change; what the job gives back.
    pub(crate) fn finish(&self, job: Uuid) -> Result<Option<serde_json::Value>> {
        loop {
            let status = self.jobs().wait(JobId(job), LOOK_AGAIN);
            let status = status.ok_or_else(|| Error::new(Reason::NotFound, format!("no job {job}")))?;
            if status.state.is_success() {
                return Ok(status.output);
            }
            if status.state.is_finished() || status.state == job::State::Parked {
                let Some(failed) = status.error else {
                    return Err(Error::new(Reason::InvalidState, format!("job {job} was cancelled")));
                };
                let reason = Reason::ALL.into_iter().find(|reason| reason.id() == failed.id);
                let error = Error::new(reason.unwrap_or(Reason::Store), failed.message);
                return Err(failed.hint.into_iter().fold(error, Error::hint));
            }
            if self.jobs().is_stopping() {
                return Err(Error::new(
                    Reason::Busy,
                    format!("the host is closing; job {job} goes on when it opens"),
                )
                .hint(format!("`slipway job watch {job}` once it is back")));
            }
        }
    }

    /// Whether one of the files must be copied before it is a disk. What cannot be is refused now.
    pub(crate) fn must_take_in<'d>(
        &self,
        machine: (Uuid, u64),
        disks: impl IntoIterator<Item = &'d NewDisk>,
    ) -> Result<bool> {
        let _files = self.disk_files();
        let mut any = false;
        for path in disks.into_iter().filter_map(to_take_in) {
            any |= !self.arrival(machine, std::path::Path::new(""), path)?.empty;
        }
        Ok(any)
    }

    /// Whether one of the disks must be written into its file before it is nobody's.
    pub(crate) fn must_give_back(&self, run_generation: u64, disks: &[Uuid]) -> Result<bool> {
        for id in disks {
            let found = record::get::<DiskRecord>(&*self.store, &format!("{DISKS}{id}"))?;
            let brought = found.and_then(|(disk, _)| disk.brought);
            if brought.is_some_and(|brought| !brought.is_current(run_generation)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The disks that an edit takes out of the machine.
pub(crate) fn leaving(settings: &Settings, edit: &MachineEdit) -> Vec<Uuid> {
    let at = |position: &crate::position::PositionEdit| {
        let mut controllers = settings.controllers.iter();
        let controller =
            controllers.find(|c| c.instance == position.controller && c.number == position.number)?;
        match controller.drives.iter().find(|drive| drive.slot == position.slot)?.media {
            Media::Disk { disk } => Some(disk),
            _ => None,
        }
    };
    edit.remove_disks.iter().copied().chain(edit.positions.iter().filter_map(at)).collect()
}

/// The disks that an edit puts into the machine.
pub(crate) fn coming(edit: &MachineEdit) -> impl Iterator<Item = &NewDisk> {
    let placed = edit.positions.iter().filter_map(|position| match &position.put {
        Put::Disk(disk) => Some(disk),
        _ => None,
    });
    edit.add_disks.iter().chain(placed)
}

fn claim<W: Word>(cx: &mut Cx<'_, W>) -> Done<Claim> {
    let host = cx.world().host()?;
    // Of an earlier run of this step.
    forget(&host, cx.id().0).map_err(|e| failure(&e))?;
    let ChangeParams { machine: id, change } = cx.params();
    let work = || -> Result<Claim> {
        let cell = host.cell(*id);
        let running = cell.lock();
        let (home, generation, wanted, leaving): (_, _, Vec<&NewDisk>, _) = match change {
            Change::Define(request) => {
                crate::define::refuse_defined(&host, *id)?;
                (host.new_home(*id), 0, request.disks.iter().collect(), Vec::new())
            }
            Change::Edit(edit) => {
                let (record, _) = host.record(*id)?;
                host.admit(&running, Request::Edit, &record)?;
                let leaving = leaving(&record.settings, edit);
                (record.home, record.run_generation, coming(edit).collect(), leaving)
            }
            Change::Delete { .. } => {
                let (record, _) = host.record(*id)?;
                host.admit(&running, Request::Delete, &record)?;
                let disks = record.settings.disks().map(|(_, _, disk)| disk).collect();
                (record.home, record.run_generation, Vec::new(), disks)
            }
        };
        let _files = host.disk_files();
        let mut arriving: Vec<DiskRecord> = Vec::new();
        let mut operations = Vec::new();
        for path in wanted.into_iter().filter_map(to_take_in) {
            let mut disk = host.arrival((*id, generation), &home, path)?.disk;
            let file = disk.brought.as_ref().map(|brought| brought.file.clone());
            if arriving.iter().any(|other| other.brought.as_ref().map(|b| b.file.clone()) == file) {
                let message = format!("`{}` is given twice", path.display());
                return Err(Error::new(Reason::InvalidArgument, message));
            }
            if let Some(brought) = &mut disk.brought {
                brought.arriving = Some(cx.id().0);
            }
            operations.push(record::put(format!("{DISKS}{}", disk.id), &disk)?);
            arriving.push(disk);
        }
        record::commit(&*host.store, Vec::new(), operations)?;
        Ok(Claim { home, arriving, leaving })
    };
    work().map_err(|e| failure(&e))
}

/// Removes what a job has claimed and not committed: files first, so that whoever dies here finds them again.
fn forget(host: &Host, job: Uuid) -> Result<()> {
    let ours = |disk: &DiskRecord| disk.brought.as_ref().and_then(|b| b.arriving) == Some(job);
    let mut operations = Vec::new();
    for disk in host.disks()?.into_iter().filter(ours) {
        for layer in &disk.layers {
            match fs::remove_file(&layer.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &layer.path, e));
                }
                _ => {}
            }
        }
        operations.push(Operation::Delete(format!("{DISKS}{}", disk.id)));
    }
    if !operations.is_empty() {
        record::commit(&*host.store, Vec::new(), operations)?;
    }
    Ok(())
}

fn unclaim<W: Word>(cx: &mut Cx<'_, W>, _why: UndoReason) -> Done<()> {
    let host = cx.world().host()?;
    forget(&host, cx.id().0).map_err(|e| failure(&e))?;
    if let (Change::Define(_), Some(claim)) = (&cx.params().change, cx.try_output(claim::<W>)?)
        && !host.record(cx.params().machine).is_ok_and(|(record, _)| record.home == claim.home)
    {
        match fs::remove_dir_all(&claim.home) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &claim.home, e)),
            _ => {}
        }
    }
    Ok(())
}

fn carry<W: Word>(cx: &mut Cx<'_, W>) -> Done<()> {
    let host = cx.world().host()?;
    let claim: Claim = cx.output(claim::<W>)?;
    let mut done: Vec<Uuid> = cx.restore()?.unwrap_or_default();
    let reporter = cx.reporter();
    for disk in &claim.arriving {
        cx.check_cancel()?;
        if !done.contains(&disk.id) {
            let phase = format!("taking in {}", disk.name);
            let options = CopyOptions {
                cancelled: &|| reporter.cancelled(),
                progress: &|p| reporter.progress(&phase, p.done, p.total),
                ..CopyOptions::default()
            };
            host.take_in(disk, &options)?;
            done.push(disk.id);
            cx.checkpoint(&done)?;
        }
    }
    if claim.leaving.is_empty() {
        return Ok(());
    }
    let (record, _) = match host.record(cx.params().machine) {
        Ok(found) => found,
        Err(e) => return Err(failure(&e)),
    };
    for id in &claim.leaving {
        cx.check_cancel()?;
        let options = CopyOptions {
            cancelled: &|| reporter.cancelled(),
            progress: &|p| reporter.progress("giving back", p.done, p.total),
            ..CopyOptions::default()
        };
        host.give_back(&record, *id, &|| reporter.check_cancel(), &options)?;
    }
    Ok(())
}

/// Removes what was being written beside the files that go.
fn drop_partial<W: Word>(cx: &mut Cx<'_, W>, _why: UndoReason) -> Done<()> {
    let host = cx.world().host()?;
    let Some(claim) = cx.try_output(claim::<W>)? else { return Ok(()) };
    for id in &claim.leaving {
        // Of one that is gone with its record, nothing is being written.
        let Ok((disk, _)) = host.disk_record(*id) else { continue };
        if let Some(Brought { file, .. }) = &disk.brought {
            file::remove(&file::partial(file, *id).map_err(|e| failure(&e))?)?;
        }
    }
    Ok(())
}

fn commit<W: Word>(cx: &mut Cx<'_, W>) -> Done<Vec<PathBuf>> {
    let host = cx.world().host()?;
    let Claim { home, mut arriving, leaving: _ } = cx.output(claim::<W>)?;
    for brought in arriving.iter_mut().filter_map(|disk| disk.brought.as_mut()) {
        brought.arriving = None;
    }
    let by = Some(cx.id().0);
    let prepared = Prepared { home: Some(home), disks: arriving, by };
    let ChangeParams { machine: id, change } = cx.params();
    let found = host.record(*id);
    if found.as_ref().is_ok_and(|(record, _)| record.changed_by == by) {
        // Done before we died.
        host.tell(*id);
        return Ok(Vec::new());
    }
    cx.check_cancel()?;
    let work = || -> Result<Vec<PathBuf>> {
        let cell = host.cell(*id);
        match change {
            Change::Define(request) => {
                let held = cell.lock();
                host.define_held(*id, request, &prepared)?;
                drop(held);
                host.tell(*id);
                Ok(Vec::new())
            }
            Change::Edit(edit) => {
                let running = cell.lock();
                let (record, revision) = host.record(*id)?;
                host.admit(&running, Request::Edit, &record)?;
                host.edit_held((record, revision), running, edit, &prepared)?;
                host.tell(*id);
                Ok(Vec::new())
            }
            Change::Delete { keep_disks } => match found {
                // Done before we died, by nobody but us: the machine is ours until the end.
                Err(e) if e.reason() == Reason::NotFound => Ok(Vec::new()),
                Err(e) => Err(e),
                Ok((record, revision)) => {
                    let running = cell.lock();
                    host.admit(&running, Request::Delete, &record)?;
                    host.delete_held((record, revision), running, *keep_disks)
                }
            },
        }
    };
    work().map_err(|e| failure(&e))
}

#[cfg(test)]
mod tests;
