//! The host: the one door to the domain.
//!
//! [`Host`] owns the store, the blobs, the engine, the job runner and the guests that run now. This file opens it, finds
//! things in it and says what they are; what is *done* to machines is in the files beside it, one noun each
//! ([`crate::lifecycle`], [`crate::define`], [`crate::import`], [`crate::export`], [`crate::network`]). No edge's words
//! (CIM, HTTP, arguments) occur below this crate's surface.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use store::Store;
use uuid::Uuid;

use crate::ambient::Ambient;
use crate::automatic::Automatic;
use crate::blob::Blobs;
use crate::bulk::Bulk;
use crate::cell::Cell;
use crate::disk::DiskRecord;
use crate::error::{Error, Reason, Result};
use crate::hardware::Places;
use crate::inbox::Inboxes;
use crate::lookup::Lookup;
use crate::power::PowerState;
use crate::record::{self, DISKS, MACHINES, MachineRecord, PLANNED, SWITCHES, machine_key};
use crate::report::HostFacts;
use crate::saved::Offers;
use crate::switch::{DEFAULT_SWITCH, SwitchKind, SwitchRecord};

/// Where a host keeps things, and what it works with.
pub struct HostOptions {
    /// Kept data: machines' files and blobs. Absolute.
    pub data: PathBuf,
    /// Sockets and logs of running guests; may vanish with a reboot. Absolute.
    pub runtime: PathBuf,
    /// Records.
    pub store: Arc<dyn Store>,
    /// Guests.
    pub engine: Arc<dyn engine::Engine>,
    /// Facts that the report compares with; `None` asks the engine and the operating system.
    pub facts: Option<HostFacts>,
    /// How jobs are run.
    pub jobs: job::Options,
    /// Names this boot of the operating system (Linux: `/proc/sys/kernel/random/boot_id`); `None` when nobody knows, and
    /// then every opening counts as a boot.
    pub boot: Option<String>,
}

/// The domain's single entry. Cheap to share; every method blocks.
pub struct Host {
    pub(crate) data: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) engine: Arc<dyn engine::Engine>,
    pub(crate) jobs: OnceLock<job::Engine>,
    pub(crate) facts: HostFacts,
    pub(crate) ambient: Ambient,
    pub(crate) boot: Option<String>,
    pub(crate) offers: OnceLock<Offers>,
    pub(crate) automatic: Automatic,
    cells: Mutex<HashMap<Uuid, Arc<Cell>>>,
    pub(crate) inboxes: Inboxes,
    pub(crate) bulk: Bulk,
    names: Lookup,
    planned_names: Lookup,
    disk_files: Mutex<()>,
    switch_names: Mutex<()>,
    pub(crate) board: crate::events::Board,
    /// The same as `store`, to be asked how long it takes.
    pub(crate) timed: Arc<store::Timed>,
    pub(crate) counters: crate::statistics::Counters,
    pub(crate) looked: Mutex<Option<crate::health::Look>>,
}

/// A machine as seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its record.
    pub record: MachineRecord,
    /// What it is doing.
    pub power: PowerState,
    /// Its disks.
    pub disks: Vec<DiskRecord>,
    /// Why it last stopped, when it did not stop because somebody asked; or what else there is to know.
    pub note: Option<String>,
    /// How often its guest rebooted by itself since it was started, or found again by this process.
    pub reboots: u32,
    /// The job that holds it, if one does.
    pub job: Option<Uuid>,
    /// Address of each adapter, in the settings' order.
    pub macs: Vec<String>,
    /// Accelerator of the running guest (`kvm`, `tcg`).
    pub accelerator: Option<String>,
}

impl Host {
    /// Opens the host: makes its directories, finds guests that outlived an earlier process, continues or undoes the jobs
    /// that one left behind, and starts the machines whose automatic action says so.
    ///
    /// # Errors
    /// A directory cannot be made, or the store fails.
    pub fn open(options: HostOptions) -> Result<Arc<Self>> {
        Self::open_in(options, Ambient::default())
    }

    /// As [`Self::open`], with ids, time and jobs' gate from elsewhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(options: HostOptions, ambient: Ambient) -> Result<Arc<Self>> {
        let HostOptions { data, runtime, store, engine, facts, jobs, boot } = options;
        for dir in [data.join("machines"), runtime.clone()] {
            fs::create_dir_all(&dir).map_err(|e| Error::io("create directory", &dir, e))?;
        }
        let facts = facts.unwrap_or_else(|| facts_of(&*engine));
        let timed = Arc::new(store::Timed::new(store));
        let host = Arc::new(Self {
            blobs: Blobs::open(data.join("blobs"))?,
            data,
            runtime,
            store: Arc::clone(&timed) as Arc<dyn Store>,
            timed,
            engine,
            jobs: OnceLock::new(),
            facts,
            ambient,
            boot,
            offers: OnceLock::new(),
            automatic: Automatic::default(),
            cells: Mutex::new(HashMap::new()),
            inboxes: Inboxes::default(),
            bulk: Bulk::default(),
            names: Lookup::new(MACHINES, "machine", "slipway machine list"),
            planned_names: Lookup::new(PLANNED, "planned machine", "slipway planned list"),
            disk_files: Mutex::new(()),
            switch_names: Mutex::new(()),
            board: crate::events::Board::default(),
            counters: crate::statistics::Counters::default(),
            looked: Mutex::new(None),
        });
        host.store.set_durability(host.ambient.durability).map_err(record::failed)?;
        host.ensure_default_switch()?;
        host.sweep()?;
        host.find_guests_again()?;
        let jobs = crate::jobs::open(&host, jobs)?;
        let _ = host.jobs.set(jobs);
        host.jobs().recover().map_err(crate::jobs::failed)?;
        host.drop_unbegun()?;
        host.start_automatically()?;
        Ok(host)
    }

    /// The job runner.
    pub fn jobs(&self) -> &job::Engine {
        self.jobs.get().unwrap_or_else(|| unreachable!("set before `open` returns"))
    }

    /// What the report knows of this host.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Where the files of machines go when nobody says where.
    pub fn default_root(&self) -> PathBuf {
        self.data.join("machines")
    }

    fn ensure_default_switch(&self) -> Result<()> {
        if record::list::<SwitchRecord>(&*self.store, SWITCHES)?.is_empty() {
            let nat = SwitchRecord::new(self.fresh_id(), DEFAULT_SWITCH, SwitchKind::Nat);
            let put = record::put(format!("{SWITCHES}{}", nat.id), &nat)?;
            record::commit(&*self.store, vec![], vec![put])?;
        }
        Ok(())
    }

    /// The cell that holds the running side of machine `id`.
    pub(crate) fn cell(&self, id: Uuid) -> Arc<Cell> {
        Arc::clone(self.cells().entry(id).or_default())
    }

    /// Every cell there is.
    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        self.cells().values().cloned().collect()
    }

    pub(crate) fn forget_cell(&self, id: Uuid) {
        self.cells().remove(&id);
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory for the files of machine `id` that does not exist yet: disks of an earlier machine of that id may
    /// have been kept. The caller holds the id's cell, or a job on it, until the directory is made.
    pub(crate) fn new_home(&self, id: Uuid) -> PathBuf {
        Self::new_home_in(&self.default_root(), id)
    }

    /// The same below another directory.
    pub(crate) fn new_home_in(root: &Path, id: Uuid) -> PathBuf {
        let first = root.join(id.hyphenated().to_string());
        let taken = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        let more = (2_u64..).map(|n| root.join(format!("{}-{n}", id.hyphenated())));
        std::iter::once(first.clone()).chain(more).find(|path| !taken(path)).unwrap_or(first)
    }

    /// Held from the check that nobody uses a disk file until the record that claims it is committed.
    pub(crate) fn disk_files(&self) -> MutexGuard<'_, ()> {
        self.disk_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held from the look at a switch, or for its users, until the record that names it, or is it, is committed. Whoever
    /// holds a cell too has taken that first.
    pub(crate) fn switch_names(&self) -> MutexGuard<'_, ()> {
        self.switch_names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn places(&self, record: &MachineRecord) -> Places {
        Places {
            home: record.home.clone(),
            runtime: self.runtime.join(record.id.hyphenated().to_string()),
            switches: self.runtime.join("switches"),
        }
    }

    /// Machine `id` and the revision of its record.
    pub(crate) fn record(&self, id: Uuid) -> Result<(MachineRecord, u64)> {
        record::get(&*self.store, &machine_key(id))?
            .ok_or_else(|| Error::new(Reason::NotFound, format!("no machine has the id {id}")))
    }

    /// Every machine, by name.
    ///
    /// # Errors
    /// The store fails or a record cannot be read.
    pub fn machines(&self) -> Result<Vec<MachineView>> {
        let mut disks: HashMap<Uuid, Vec<DiskRecord>> = HashMap::new();
        let here = |disk: &DiskRecord| disk.brought.as_ref().is_none_or(|b| b.arriving.is_none());
        for d in record::list::<DiskRecord>(&*self.store, DISKS)?.into_iter().filter(here) {
            disks.entry(d.machine).or_default().push(d);
        }
        let mut views: Vec<_> = record::list::<MachineRecord>(&*self.store, MACHINES)?
            .into_iter()
            .map(|r| {
                let disks = disks.remove(&r.id).unwrap_or_default();
                self.view(r, disks)
            })
            .collect();
        views.sort_by(|a, b| {
            (&a.record.settings.name, a.record.id).cmp(&(&b.record.settings.name, b.record.id))
        });
        Ok(views)
    }

    /// The first `most` ids of machines that come after `after`, in order: for whoever goes through them a page at a time.
    ///
    /// # Errors
    /// The store fails.
    pub fn machine_ids(&self, after: Option<Uuid>, most: usize) -> Result<Vec<Uuid>> {
        self.names.ids(&*self.store, after, most)
    }

    /// The same of planned machines.
    ///
    /// # Errors
    /// The store fails.
    pub fn planned_ids(&self, after: Option<Uuid>, most: usize) -> Result<Vec<Uuid>> {
        self.planned_names.ids(&*self.store, after, most)
    }

    /// The id of every machine with an adapter that is plugged into the switch called `switch`, in order. Costs what it
    /// finds.
    ///
    /// # Errors
    /// The store fails.
    pub fn machines_on(&self, switch: &str) -> Result<Vec<Uuid>> {
        self.names.plugged(&*self.store, switch)
    }

    /// The same of planned machines.
    ///
    /// # Errors
    /// The store fails.
    pub fn planned_on(&self, switch: &str) -> Result<Vec<Uuid>> {
        self.planned_names.plugged(&*self.store, switch)
    }

    /// Machine `id`.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub fn machine(&self, id: Uuid) -> Result<MachineView> {
        let (record, _) = self.record(id)?;
        let disks = self.disks_of(&record)?;
        Ok(self.view(record, disks))
    }

    fn view(&self, record: MachineRecord, mut disks: Vec<DiskRecord>) -> MachineView {
        let order: Vec<_> = record.settings.disks().map(|(_, _, id)| id).collect();
        disks.sort_by_key(|d| order.iter().position(|id| *id == d.id).unwrap_or(usize::MAX));
        let cell = self.cell(record.id);
        let running = cell.lock();
        let macs =
            record.settings.adapters.iter().map(|a| crate::hardware::mac(record.id, a).to_string()).collect();
        MachineView {
            power: running.power,
            note: running.note.clone(),
            reboots: running.reboots,
            accelerator: running.accelerator.clone(),
            job: self.jobs.get().and_then(|j| crate::jobs::holding(j, record.id)),
            disks,
            macs,
            record,
        }
    }

    /// The disk records that a machine's settings name, in their order.
    pub(crate) fn disks_of(&self, record: &MachineRecord) -> Result<Vec<DiskRecord>> {
        record
            .settings
            .disks()
            .map(|(_, _, id)| {
                record::get::<DiskRecord>(&*self.store, &format!("{DISKS}{id}"))?.map(|(d, _)| d).ok_or_else(
                    || Error::new(Reason::Store, format!("disk {id} of the machine has no record")),
                )
            })
            .collect()
    }

    /// Every disk of the host.
    ///
    /// # Errors
    /// The store fails.
    pub fn disks(&self) -> Result<Vec<DiskRecord>> {
        record::list(&*self.store, DISKS)
    }

    /// The machine that `word` names: a name, an id, or the unique beginning of either.
    ///
    /// # Errors
    /// Nothing fits, or several do: the message lists them.
    pub fn resolve(&self, word: &str) -> Result<Uuid> {
        self.names.find(&*self.store, word)
    }

    /// The word by which a command names the machine of `record`, quoted: its name, or its id where the name would
    /// name another one as well, or none.
    pub(crate) fn word(&self, record: &MachineRecord) -> String {
        let name = &record.settings.name;
        let is_option = name.starts_with('-');
        let named = !is_option && self.resolve(name).is_ok_and(|id| id == record.id);
        if named { transfer::shell::word(name) } else { record.id.to_string() }
    }

    /// The planned machine that `word` names.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_planned(&self, word: &str) -> Result<Uuid> {
        self.planned_names.find(&*self.store, word)
    }

    /// Refuses when a job holds machine `id`.
    pub(crate) fn refuse_busy(&self, id: Uuid, doing: &str) -> Result<()> {
        match self.jobs.get().and_then(|j| crate::jobs::holding(j, id)) {
            None => Ok(()),
            Some(job) => Err(Error::new(
                Reason::Busy,
                format!("cannot {doing} the machine while job {job} works on it"),
            )
            .hint(format!(
                "watch it with `slipway job watch {job}`, or end it with `slipway job cancel {job}`"
            ))),
        }
    }
}

/// Asks the engine and the operating system.
fn facts_of(engine: &dyn engine::Engine) -> HostFacts {
    let report = engine.probe();
    HostFacts {
        uefi: !report.firmware.is_empty(),
        tpm: report.tpm.is_some(),
        bridges: report.bridges,
        ..HostFacts::of_this_host()
    }
}
