//! Saved machines: what is kept of a guest's memory, how it goes on from it, how it is discarded.
//!
//! ```text
//!  <home>/saved-<job>.state      memory and devices, the engine's own format     (content hashed in the record)
//!  record.saved                  that it counts, and what it takes to go on with it
//! ```
//!
//! The record alone says whether a machine is saved. It is written after the file is whole and before the guest is ended
//! ([`crate::save`]), and it says so no more before the first instruction of the restored guest: a state never meets
//! disks that were written since. A file that no record names is litter, swept at the next opening.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Accel, Guest, GuestErrorKind, RunState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Reason, Result, chain};
use crate::hardware;
use crate::host::Host;
use crate::inbox::Inbox;
use crate::layout::Layout;
use crate::lifecycle::{failed, start_failed};
use crate::power::{PowerState, Request};
use crate::record::{self, MachineRecord, Resolved, SWITCHES};

/// How the names of state files begin and end.
const PREFIX: &str = "saved-";
const SUFFIX: &str = ".state";
/// Ending of one that is being written.
const PARTIAL: &str = ".partial";

/// A guest's memory, kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Name of the file in the machine's directory.
    pub file: String,
    /// Bytes of the file, holes included.
    pub bytes: u64,
    /// Digest of the content ([`transfer::digest`]).
    pub digest: String,
    /// When it was saved.
    pub when: Timestamp,
    /// The machine's run counter then: another means that the disks are not those of this memory.
    pub run_generation: u64,
    /// What it takes to go on with it.
    #[serde(flatten)]
    pub needs: Needs,
}

/// What it takes to go on with a saved memory. Travels in a package's manifest too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The engine that wrote it: `qemu` or `sim`.
    pub engine: String,
    /// The engine's own version, for people.
    #[serde(default)]
    pub engine_version: String,
    /// Versioned machine type.
    pub machine_version: String,
    /// CPU model.
    pub cpu_model: String,
    /// How instructions were run.
    pub accelerator: Accel,
    /// The guest's hardware.
    pub layout: Layout,
}

impl Needs {
    /// Why a host that offers `here` cannot go on with it; `None` when it can, as far as can be told beforehand.
    pub fn unmet(&self, here: &Offers) -> Option<String> {
        if self.engine != here.engine {
            return Some(format!(
                "it was written by the engine `{}`, and this is `{}`",
                self.engine, here.engine
            ));
        }
        if !here.machine_versions.contains(&self.machine_version) {
            return Some(format!(
                "it needs the machine type {}, which {} does not have",
                self.machine_version, here.engine_version
            ));
        }
        if self.accelerator == Accel::Kvm && !here.kvm {
            return Some("it ran under KVM, which cannot be used here".to_owned());
        }
        None
    }
}

/// What a host offers to saved memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The engine.
    pub engine: String,
    /// What it says of itself.
    pub engine_version: String,
    /// Versioned machine types.
    pub machine_versions: Vec<String>,
    /// KVM can be used.
    pub kvm: bool,
}

impl From<engine::HostReport> for Offers {
    fn from(report: engine::HostReport) -> Self {
        Self {
            engine: report.engine,
            engine_version: report.program.map(|p| p.version).unwrap_or_default(),
            machine_versions: report.machine_versions,
            kvm: report.kvm.usable,
        }
    }
}

/// Name of the file that job `job` makes.
pub(crate) fn file_name(job: Uuid) -> String {
    format!("{PREFIX}{}{SUFFIX}", job.simple())
}

/// The same while it is being written.
pub(crate) fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// Removes a state file; one that is not there is as good.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Digest of the state in the file at `path`, and its size.
///
/// # Errors
/// It cannot be read, or `cancelled` said so.
pub(crate) fn digest(
    path: &Path,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> std::result::Result<(String, u64), transfer::CopyError> {
    let source = transfer::RawSource::open(path, &transfer::source::OpenOptions::default())?;
    let options = transfer::CopyOptions { cancelled, ..transfer::CopyOptions::default() };
    let size = transfer::Source::size(&source);
    let hashed = transfer::hash(&source, size, &options, &mut transfer::NoJournal)?;
    Ok((hashed.root.to_string(), hashed.size))
}

impl Host {
    /// What this host offers to saved memories. Takes a few seconds the first time (KVM is tried for real).
    pub(crate) fn offers(&self) -> &Offers {
        self.offers.get_or_init(|| self.engine.probe().into())
    }

    /// The hardware that the guest of `record` would have now.
    pub(crate) fn spec(&self, record: &MachineRecord) -> Result<(engine::GuestSpec, Layout)> {
        let disks = self.disks_of(record)?;
        let switches = record::list(&*self.store, SWITCHES)?;
        for layer in disks.iter().flat_map(|d| &d.layers) {
            if let Err(e) = fs::metadata(&layer.path) {
                return Err(Error::io("open disk", &layer.path, e));
            }
        }
        let spec = hardware::guest(record, &disks, &switches, &self.places(record)).map_err(|e| {
            Error::new(Reason::InvalidArgument, "the machine's settings cannot become a guest").caused_by(e)
        })?;
        let sizes: Vec<u64> = disks.iter().map(|d| d.virtual_size).collect();
        let layout = Layout::of(&spec, &sizes);
        Ok((spec, layout))
    }

    /// Makes a guest of what was saved of machine `id`, whose power is [`PowerState::Restoring`], and lets it run.
    ///
    /// When this fails the machine is saved as before: until the record says otherwise no instruction has run, and if
    /// the very first one cannot, the record is put back. Only of a guest that ends while it is let go nobody can tell
    /// whether it ran; its machine is off.
    pub(crate) fn restore(self: &Arc<Self>, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let saved = record.saved.clone().ok_or_else(|| no_state(&record))?;
        let file = record.home.join(&saved.file);
        let (guest, inbox) = self.load(&record, &saved, &file).map_err(|e| self.discardable(&record, e))?;
        let counts_no_more = self.update(id, |r| {
            r.saved = None;
            r.run_generation += 1;
            r.wanted_running = true;
            r.turned_off_in = None;
            r.resolved.get_or_insert_with(|| Resolved {
                machine_version: saved.needs.machine_version.clone(),
                cpu_model: saved.needs.cpu_model.clone(),
            });
        });
        if let Err(e) = counts_no_more {
            end(&*guest);
            return Err(e);
        }
        self.adopt(id, guest, PowerState::Restoring, inbox);
        let guest = self.cell(id).lock().guest.clone();
        let Some(guest) = guest.filter(|g| g.state() != RunState::Stopped) else {
            // It ended before anybody let it go: no instruction has run.
            self.put_back(id, &record, &saved, None);
            self.show_as_is(id);
            return Err(gone(&record));
        };
        let went = guest.thaw();
        // Only what was refused has surely not happened.
        let refused = went.as_ref().is_err_and(|e| e.kind() == GuestErrorKind::Refused);
        if refused {
            self.put_back(id, &record, &saved, Some(&*guest));
        }
        self.show_as_is(id);
        // A death here leaves a file that no record names.
        if !refused && let Err(e) = remove(&file) {
            tracing::warn!(machine = %id, "the file of its saved state stays behind: {e}");
        }
        went.map_err(|e| match e.kind() {
            GuestErrorKind::Gone => gone(&record).hint(format!(
                "it may have run, so what was saved counts no more: `slipway machine start {}` boots it",
                self.word(&record)
            )),
            _ => failed(&record, "start", e),
        })
    }

    /// The state, in a guest that has not run yet.
    fn load(&self, record: &MachineRecord, saved: &Saved, file: &Path) -> Result<(Box<dyn Guest>, Inbox)> {
        let bad = |message: String| Error::new(Reason::BadState, message);
        let (mut spec, layout) = self.spec(record)?;
        if saved.run_generation != record.run_generation {
            return Err(bad("its disks were written since it was saved".to_owned()));
        }
        if let Some(why) = saved.needs.layout.difference(&layout) {
            return Err(bad(format!("its hardware is not what it was: {why}")));
        }
        if let Some(why) = saved.needs.unmet(self.offers()) {
            return Err(bad(why));
        }
        let (found, bytes) = digest(file, &|| false).map_err(|e| {
            bad(format!("its saved state `{}` cannot be read: {}", file.display(), chain(&e)))
        })?;
        if (&found, bytes) != (&saved.digest, saved.bytes) {
            return Err(bad(format!("its saved state `{}` is damaged", file.display())));
        }
        spec.machine_version = Some(saved.needs.machine_version.clone());
        spec.cpu_model = Some(saved.needs.cpu_model.clone());
        spec.accel = saved.needs.accelerator;
        let (events, inbox) = self.inboxes.new_inbox();
        let guest = self.engine.restore(&spec, file, events).map_err(|e| start_failed(record, e))?;
        Ok((guest, inbox))
    }

    /// Makes machine `id` saved again: its guest was made and could not run one instruction.
    fn put_back(&self, id: Uuid, before: &MachineRecord, saved: &Saved, guest: Option<&dyn Guest>) {
        let back = self.update(id, |r| {
            r.saved = Some(Saved { run_generation: r.run_generation, ..saved.clone() });
            r.wanted_running = before.wanted_running;
            r.turned_off_in.clone_from(&before.turned_off_in);
        });
        if let Err(e) = back {
            tracing::error!(machine = %id, "its saved state is lost: {}", e.chain());
        }
        if let Some(guest) = guest {
            end(guest);
        }
        let cell = self.cell(id);
        cell.wait(crate::lifecycle::GONE_LIMIT, |r| r.guest.is_none());
    }

    /// Discards what was saved of machine `id`; it is off.
    pub(crate) fn discard(&self, id: Uuid) -> Result<()> {
        let (record, _) = self.record(id)?;
        let cell = self.cell(id);
        let mut running = self.admitted(&cell, Request::Stop, &record)?;
        // An export reads the file.
        self.refuse_busy(id, "stop")?;
        let boot = self.boot.clone();
        self.update(id, |r| {
            r.saved = None;
            r.wanted_running = false;
            r.turned_off_in.clone_from(&boot);
        })?;
        running.power = PowerState::Off;
        running.note = None;
        drop(running);
        self.tell(id);
        if let Some(saved) = &record.saved
            && let Err(e) = remove(&record.home.join(&saved.file))
        {
            tracing::warn!(machine = %id, "the file of its discarded state stays behind: {e}");
        }
        Ok(())
    }

    /// Removes state files of `record`'s machine that count no more: a death left them.
    pub(crate) fn sweep_states(&self, record: &MachineRecord) {
        for entry in fs::read_dir(&record.home).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.strip_suffix(PARTIAL).unwrap_or(name);
            let ours = ours.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(SUFFIX));
            let ours = ours.is_some_and(|id| Uuid::try_parse(id).is_ok());
            if ours && record.saved.as_ref().is_none_or(|s| s.file != name) {
                tracing::info!(machine = %record.id, file = name, "removed what is left of a save");
                let _ = remove(&entry.path());
            }
        }
    }

    /// With the way out that always exists, where the error has no better one.
    fn discardable(&self, record: &MachineRecord, e: Error) -> Error {
        if e.reason() != Reason::BadState {
            return e;
        }
        let (name, cause) = (&record.settings.name, e.chain());
        Error::new(Reason::BadState, format!("`{name}` cannot go on where it was saved: {cause}")).hint(
            format!(
                "`slipway machine stop {}` discards the saved state, as a power cut would; start it then",
                self.word(record)
            ),
        )
    }
}

fn end(guest: &dyn Guest) {
    if let Err(e) = guest.power_off() {
        tracing::warn!("a guest that was not to run does not end: {}", chain(&e));
    }
}

fn no_state(record: &MachineRecord) -> Error {
    Error::new(Reason::InvalidState, format!("`{}` is not saved", record.settings.name))
}

fn gone(record: &MachineRecord) -> Error {
    Error::new(Reason::Engine, format!("the guest of `{}` ended while it was restored", record.settings.name))
}
