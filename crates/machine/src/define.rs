//! Machines made here: define, change, rename, delete.
//!
//! Disks of a new machine are created empty or are files that the user has already: raw and qcow2 are used in place, VHD and
//! VHDX are taken in ([`crate::brought`]), by a job where there is something to copy ([`crate::change`]). A file that the user
//! has is never deleted by Slipway and never shared: it is refused when another machine or another process has it open.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use serde::{Deserialize, Serialize};
use store::{Condition, Operation};
use uuid::Uuid;

pub use crate::adapter::AdapterEdit;
use crate::adapter::new_adapter;
use crate::brought::{Arrival, to_take_in};
use crate::cell::Running;
use crate::change::{Begun, Change, Defining, Deleting, Editing, Prepared, coming, leaving};
use crate::config::device_ids;
use crate::disk::{DiskFormat, DiskRecord, Layer};
use crate::error::{Error, Reason, Result};
use crate::exported::exported_key;
use crate::host::{Host, MachineView};
use crate::litter::Litter;
use crate::names::safe_file_name;
use crate::position::{PositionEdit, Put, add_controller};
use crate::power::{PowerState, Request};
use crate::record::{self, DISKS, MachineRecord, REALIZED, machine_key};
use crate::settings::{
    Automatic, BootDevice, Controller, ControllerKind, Drive, Generation, Hardware, Media, Settings,
};

/// Largest disk in bytes: VHDX's own limit.
pub const MAX_DISK: u64 = 64 << 40;

/// A machine to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefineRequest {
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: Generation,
    /// Its id; `None` makes one.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// Virtual processors.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Secure Boot; `None` is on for generation 2.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// A virtual TPM.
    #[serde(default)]
    pub tpm: bool,
    /// Disks in slot order.
    #[serde(default)]
    pub disks: Vec<NewDisk>,
    /// A DVD drive with this image (`Some(None)`: empty).
    #[serde(default)]
    pub dvd: Option<Option<PathBuf>>,
    /// One adapter for each switch named here; an empty string is an adapter that is not plugged in.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// Virtual hardware.
    #[serde(default)]
    pub hardware: Hardware,
}

/// A disk of a machine that is made here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum NewDisk {
    /// An empty one.
    Empty {
        /// Size in bytes, a multiple of 512.
        size: u64,
        /// Logical sector size in bytes; 0 is 512.
        #[serde(default)]
        sector: u32,
    },
    /// A file that exists, used in place.
    File {
        /// The file.
        path: PathBuf,
        /// Its format; `None` looks.
        #[serde(default)]
        format: Option<DiskFormat>,
    },
}

/// A change of a machine; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineEdit {
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Other notes.
    #[serde(default)]
    pub notes: Option<String>,
    /// Virtual processors.
    #[serde(default)]
    pub processors: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Secure Boot.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// A virtual TPM.
    #[serde(default)]
    pub tpm: Option<bool>,
    /// Boot order.
    #[serde(default)]
    pub boot_order: Option<Vec<BootDevice>>,
    /// Automatic actions.
    #[serde(default)]
    pub automatic: Option<Automatic>,
    /// Virtual hardware.
    #[serde(default)]
    pub hardware: Option<Hardware>,
    /// Changes of adapters.
    #[serde(default)]
    pub adapters: Vec<AdapterEdit>,
    /// Disks to add.
    #[serde(default)]
    pub add_disks: Vec<NewDisk>,
    /// Disks to detach, by id; owned files are deleted.
    #[serde(default)]
    pub remove_disks: Vec<Uuid>,
    /// Controllers to add.
    #[serde(default)]
    pub add_controllers: Vec<ControllerKind>,
    /// What is put into positions of controllers, in this order, after everything else.
    #[serde(default)]
    pub positions: Vec<PositionEdit>,
    /// Adds a DVD drive when there is none, and puts this image in (`Some(None)` ejects). Works on a running guest too.
    #[serde(default)]
    pub dvd: Option<Option<PathBuf>>,
}

impl Host {
    /// Makes a machine; it is off.
    ///
    /// The record is committed last: it never names a file that is not there. Files that a death leaves without a record
    /// are removed at the next start.
    ///
    /// # Errors
    /// An argument breaks a rule, the id exists, a disk file is missing or in use, no room.
    pub fn define(&self, request: &DefineRequest) -> Result<MachineView> {
        let id = request.id.unwrap_or_else(|| self.fresh_id());
        let request = DefineRequest { id: Some(id), ..request.clone() };
        match self.begin_define(&request, "")? {
            Begun::Done(view) => Ok(view),
            Begun::Job(job) => {
                self.finish(job)?;
                self.machine(id)
            }
        }
    }

    /// As [`Self::define`], without a wait for disks that must be copied.
    ///
    /// # Errors
    /// As [`Self::define`], as far as it can be told beforehand.
    pub fn begin_define(&self, request: &DefineRequest, owner: &str) -> Result<Begun<MachineView>> {
        let id = request.id.unwrap_or_else(|| self.fresh_id());
        {
            // An import under the same id looks for the machine under this lock too.
            let cell = self.cell(id);
            let _held = cell.lock();
            self.refuse_busy(id, "define")?;
            if self.must_take_in((id, 0), &request.disks)? {
                refuse_defined(self, id)?;
                let change = Change::Define(Box::new(request.clone()));
                return self.submit_change::<Defining>(id, change, owner).map(Begun::Job);
            }
            self.define_held(id, request, &Prepared::default())?;
        }
        self.tell(id);
        self.machine(id).map(Begun::Done)
    }

    pub(crate) fn define_held(&self, id: Uuid, request: &DefineRequest, prepared: &Prepared) -> Result<()> {
        let mut settings = Settings::new(request.name.clone(), request.generation);
        settings.processors.count = request.processors.unwrap_or(1);
        settings.memory.startup_mib = request.memory_mib.unwrap_or(1024);
        if let Some(on) = request.secure_boot {
            settings.firmware.secure_boot = on;
        }
        settings.firmware.bios_id = Some(self.fresh_id());
        settings.tpm = request.tpm;
        settings.hardware = request.hardware;
        let _names = self.switch_names();
        for name in &request.adapters {
            let switch = if name.is_empty() { None } else { Some(self.switch(name)?.name) };
            settings.adapters.push(new_adapter(self.fresh_id(), switch));
        }
        check(&settings)?;
        refuse_defined(self, id)?;
        let mut litter = Litter::new(self);
        let home = match &prepared.home {
            // The job's own undo knows it, and what it copied there must outlive a death here.
            Some(home) => home.clone(),
            None => {
                let home = self.new_home(id);
                litter.make(&home)?;
                home
            }
        };
        fs::create_dir_all(&home).map_err(|e| Error::io("create directory", &home, e))?;
        let _files = self.disk_files();
        let place = Place { machine: id, run_generation: 0, home: &home, name: &settings.name };
        let disks = self.make_disks(&place, &request.disks, &[], prepared, &mut litter)?;
        for disk in &disks {
            plug(&mut settings, Media::Disk { disk: disk.id }, &|| self.fresh_id())?;
        }
        if let Some(image) = &request.dvd {
            insert_dvd(&mut settings, image.clone(), None, &|| self.fresh_id())?;
        }
        check_sectors(&settings, &disks)?;
        let record = MachineRecord {
            version: 1,
            id,
            settings,
            created: self.now(),
            home,
            origin: None,
            resolved: None,
            run_generation: 0,
            wanted_running: false,
            turned_off_in: None,
            changed_by: prepared.by,
            saved: None,
            extra: serde_json::Map::new(),
        };
        let mut operations = vec![record::put(machine_key(id), &record)?];
        for disk in &disks {
            operations.push(record::put(format!("{DISKS}{}", disk.id), disk)?);
        }
        if !litter.commit(vec![Condition::Absent(machine_key(id))], operations)? {
            return Err(Error::new(
                Reason::AlreadyExists,
                format!("a machine with the id {id} exists already"),
            ));
        }
        Ok(())
    }

    fn make_disks(
        &self,
        place: &Place<'_>,
        requests: &[NewDisk],
        others: &[DiskRecord],
        prepared: &Prepared,
        litter: &mut Litter<'_>,
    ) -> Result<Vec<DiskRecord>> {
        let Place { machine, home, name, .. } = *place;
        let mut made: Vec<DiskRecord> = Vec::new();
        for request in requests {
            let disk = match request {
                NewDisk::Empty { size, sector } => {
                    let taken = |name: &str| {
                        others.iter().chain(&made).any(|d| d.name.to_lowercase() == name.to_lowercase())
                    };
                    let name = new_disk_name(name, &taken);
                    self.empty_disk(machine, home, name, (*size, *sector), litter)?
                }
                NewDisk::File { path, format } => match to_take_in(request) {
                    Some(path) => self.taken_in(place, path, prepared, litter)?,
                    None => self.file_disk(machine, path, *format)?,
                },
            };
            if let Some(file) = disk.file()
                && made.iter().any(|d| uses(d, file))
            {
                return Err(Error::new(
                    Reason::InvalidArgument,
                    format!("`{}` is given twice", file.display()),
                ));
            }
            made.push(disk);
        }
        Ok(made)
    }

    /// A new file, all of it a hole.
    fn empty_disk(
        &self,
        machine: Uuid,
        home: &Path,
        name: String,
        (size, sector): (u64, u32),
        litter: &mut Litter<'_>,
    ) -> Result<DiskRecord> {
        let sector = if sector == 0 { 512 } else { sector };
        if !matches!(sector, 512 | 4096) {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("a sector of {sector} bytes: expected 512 or 4096"),
            ));
        }
        if size == 0 || size > MAX_DISK || !size.is_multiple_of(u64::from(sector)) {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("a disk of {size} bytes: expected a multiple of {sector}, at most 64 TiB"),
            ));
        }
        let id = self.fresh_id();
        let path = home.join("disks").join(format!("{}.raw", id.simple()));
        self.hole(&path, size, litter)?;
        Ok(DiskRecord {
            version: 1,
            id,
            machine,
            name,
            virtual_size: size,
            format: DiskFormat::Vhdx,
            block_size: 32 << 20,
            fixed: false,
            logical_sector_size: sector,
            physical_sector_size: 4096,
            virtual_disk_id: self.fresh_id(),
            serial: None,
            layers: vec![Layer { path, format: engine::ImageFormat::Raw, owned: true }],
            source_path: None,
            brought: None,
            extra: serde_json::Map::new(),
        })
    }

    /// A new file `disks/…` in a machine's home, of `size` bytes that are one hole.
    fn hole(&self, path: &Path, size: u64, litter: &mut Litter<'_>) -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::io("create directory", dir, e))?;
        }
        litter.make(path)?;
        let file = fs::File::create_new(path).map_err(|e| Error::io("create disk", path, e))?;
        file.set_len(size)
            .and_then(|()| self.sync_file(&file))
            .map_err(|e| Error::io("create disk", path, e))?;
        // `disks`, the home, and where that is.
        for dir in path.ancestors().skip(1).take(3) {
            self.sync_directory(dir).map_err(|e| Error::io("sync directory", dir, e))?;
        }
        Ok(())
    }

    /// The disk that was taken in from the file at `path`; one that holds nothing is taken in now.
    fn taken_in(
        &self,
        place: &Place<'_>,
        path: &Path,
        prepared: &Prepared,
        litter: &mut Litter<'_>,
    ) -> Result<DiskRecord> {
        if let Some(disk) = prepared.of(path) {
            return Ok(disk.clone());
        }
        let Arrival { disk, empty } =
            self.arrival((place.machine, place.run_generation), place.home, path)?;
        if !empty {
            return Err(Error::new(Reason::Busy, format!("`{}` was changed just now", path.display()))
                .hint("try again"));
        }
        if let Some(layer) = disk.leaf() {
            self.hole(&layer.path, disk.virtual_size, litter)?;
        }
        Ok(disk)
    }

    /// Refuses a file that is a disk already, that a job is making or changing, or that another process has open.
    pub(crate) fn refuse_used_disk(&self, path: &Path) -> Result<()> {
        if let Some(user) = self.disks()?.iter().find(|d| uses(d, path)) {
            let name = self.record(user.machine).map(|(r, _)| r.settings.name);
            return Err(Error::new(
                Reason::InUse,
                format!(
                    "`{}` is a disk of machine `{}` already",
                    path.display(),
                    name.unwrap_or_else(|_| user.machine.to_string())
                ),
            )
            .hint("a disk can have one user: give the machine a copy"));
        }
        if let Some(job) = self.jobs.get().and_then(|jobs| jobs.busy(&crate::image::subject(path))) {
            return Err(Error::new(Reason::InUse, format!("job {job} works on `{}`", path.display()))
                .hint(format!("`slipway job watch {job}`")));
        }
        if let Some(pid) = crate::inuse::opened_by(path) {
            return Err(Error::new(Reason::InUse, format!("`{}` is open in process {pid}", path.display()))
                .hint("a disk can have one user: stop what uses it first"));
        }
        Ok(())
    }

    /// A disk on a file that the user has.
    fn file_disk(&self, machine: Uuid, path: &Path, format: Option<DiskFormat>) -> Result<DiskRecord> {
        let path = fs::canonicalize(path).map_err(|e| Error::io("open disk", path, e))?;
        self.refuse_used_disk(&path)?;
        let info = engine::image::info(&path).map_err(|e| {
            // Who may not read it is told so; whatever else is wrong is wrong with the file.
            if is_denied(&e) {
                return Error::new(Reason::AccessDenied, format!("cannot open `{}`", path.display()))
                    .hint("the user that runs the daemon must be allowed to")
                    .caused_by(e);
            }
            Error::new(Reason::InvalidArgument, format!("`{}` cannot be read as a disk", path.display()))
                .hint("name a raw or qcow2 disk; `slipway disk convert` makes one of a VHDX or VHD")
                .caused_by(e)
        })?;
        let found = match info.format {
            engine::image::Format::Raw => DiskFormat::Raw,
            engine::image::Format::Qcow2 => DiskFormat::Qcow2,
            _ => {
                return Err(Error::new(
                    Reason::InvalidArgument,
                    format!(
                        "`{}` is neither raw nor qcow2, and a guest writes only those in place",
                        path.display()
                    ),
                )
                .hint("a VHD or VHDX is taken in when its name ends in .vhd or .vhdx; `slipway disk convert SRC DST.raw` makes a copy of any other"));
            }
        };
        let found = match format {
            Some(DiskFormat::Raw) => DiskFormat::Raw,
            Some(wanted) if wanted != found => {
                return Err(Error::new(
                    Reason::InvalidArgument,
                    format!("`{}` is {}, not {}", path.display(), found.extension(), wanted.extension()),
                ));
            }
            _ => found,
        };
        if let Some(backing) = &info.backing {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!(
                    "`{}` has a backing file (`{}`), which is not followed",
                    path.display(),
                    backing.display()
                ),
            )
            .hint("flatten it with `qemu-img convert` first"));
        }
        let raw = found == DiskFormat::Raw;
        let meta = fs::metadata(&path).map_err(|e| Error::io("open disk", &path, e))?;
        let size = if raw && meta.is_file() {
            // The engine gives a guest whole sectors, the last one padded.
            meta.len().next_multiple_of(512)
        } else {
            info.virtual_size
        };
        if size == 0 || size > MAX_DISK {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("`{}` is a disk of {size} bytes: expected 1 byte to 64 TiB", path.display()),
            ));
        }
        let name = path.file_name().map_or_else(|| "disk".to_owned(), |n| n.to_string_lossy().into_owned());
        Ok(DiskRecord {
            version: 1,
            id: self.fresh_id(),
            machine,
            name,
            virtual_size: size,
            format: DiskFormat::Vhdx,
            block_size: 32 << 20,
            fixed: false,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            virtual_disk_id: self.fresh_id(),
            serial: None,
            layers: vec![Layer {
                path,
                format: if raw { engine::ImageFormat::Raw } else { engine::ImageFormat::Qcow2 },
                owned: false,
            }],
            source_path: None,
            brought: None,
            extra: serde_json::Map::new(),
        })
    }

    /// Changes machine `id`. What a running guest cannot take needs it off.
    ///
    /// # Errors
    /// An argument breaks a rule, the state does not allow it, or somebody else changed it meanwhile.
    pub fn edit(&self, id: Uuid, edit: &MachineEdit) -> Result<MachineView> {
        match self.begin_edit(id, edit, "")? {
            Begun::Done(view) => Ok(view),
            Begun::Job(job) => {
                self.finish(job)?;
                self.machine(id)
            }
        }
    }

    /// As [`Self::edit`], without a wait for disks that must be copied.
    ///
    /// # Errors
    /// As [`Self::edit`], as far as it can be told beforehand.
    pub fn begin_edit(&self, id: Uuid, edit: &MachineEdit, owner: &str) -> Result<Begun<MachineView>> {
        let (record, revision) = self.record(id)?;
        let cell = self.cell(id);
        let running = cell.lock();
        // What no guest sees may change at any time; the disc in the drive where there is nobody who holds it, or a guest
        // that can be told.
        let told = running.power == PowerState::Off || running.guest.is_some();
        let dvd = edit.dvd.clone().filter(|_| !told || running.power.in_transition());
        let soft = MachineEdit { name: None, notes: None, automatic: None, dvd, ..edit.clone() };
        if soft != MachineEdit::default() {
            self.admit(&running, Request::Edit, &record)?;
        }
        // Under the lock: jobs that need the machine as it is are submitted under it too.
        self.refuse_busy(id, "change")?;
        let generation = record.run_generation;
        if self.must_take_in((id, generation), coming(edit))?
            || self.must_give_back(generation, &leaving(&record.settings, edit))?
        {
            let change = Change::Edit(Box::new(edit.clone()));
            return self.submit_change::<Editing>(id, change, owner).map(Begun::Job);
        }
        self.edit_held((record, revision), running, edit, &Prepared::default())?;
        self.machine(id).map(Begun::Done)
    }

    /// Makes the change in one transaction. The caller has admitted it.
    pub(crate) fn edit_held(
        &self,
        (mut record, revision): (MachineRecord, u64),
        running: MutexGuard<'_, Running>,
        edit: &MachineEdit,
        prepared: &Prepared,
    ) -> Result<()> {
        let id = record.id;
        let guest = running.guest.clone();
        let generation = record.run_generation;
        record.changed_by = prepared.by.or(record.changed_by);
        let settings = &mut record.settings;
        apply(settings, edit);
        let _names = self.switch_names();
        for a in &edit.adapters {
            self.edit_adapter(settings, a)?;
        }
        let mut operations = Vec::new();
        let mut doomed = Vec::new();
        let untouched = edit.add_disks.is_empty() && edit.positions.is_empty() && edit.hardware.is_none();
        let mut disks: Vec<DiskRecord> = if untouched {
            Vec::new()
        } else {
            settings
                .disks()
                .map(|(_, _, disk)| record::get(&*self.store, &format!("{DISKS}{disk}")))
                .filter_map(|found| found.map(|d| d.map(|(d, _)| d)).transpose())
                .collect::<Result<_>>()?
        };
        for disk in &edit.remove_disks {
            if !settings.disks().any(|(_, _, d)| d == *disk) {
                return Err(Error::new(Reason::NotFound, format!("the machine has no disk {disk}")));
            }
            unplug(settings, *disk);
            if let Some((gone, _)) = record::get::<DiskRecord>(&*self.store, &format!("{DISKS}{disk}"))? {
                refuse_loss(&gone, generation)?;
                doomed.extend(gone.layers.into_iter().filter(|l| l.owned).map(|l| l.path));
            }
            operations.push(Operation::Delete(format!("{DISKS}{disk}")));
        }
        disks.retain(|d| !edit.remove_disks.contains(&d.id));
        let mut litter = Litter::new(self);
        let _files = self.disk_files();
        for kind in &edit.add_controllers {
            add_controller(settings, *kind, &|| self.fresh_id())?;
        }
        let wanted: Vec<NewDisk> = coming(edit).cloned().collect();
        let place =
            Place { machine: id, run_generation: generation, home: &record.home, name: &settings.name };
        let mut made = self.make_disks(&place, &wanted, &disks, prepared, &mut litter)?.into_iter();
        for disk in made.by_ref().take(edit.add_disks.len()) {
            plug(settings, Media::Disk { disk: disk.id }, &|| self.fresh_id())?;
            operations.push(record::put(format!("{DISKS}{}", disk.id), &disk)?);
            disks.push(disk);
        }
        for position in &edit.positions {
            let disk = matches!(position.put, Put::Disk(_)).then(|| made.next()).flatten();
            if let Some(gone) = position.apply(settings, disk.as_ref().map(|d| d.id))? {
                if let Some((gone, _)) = record::get::<DiskRecord>(&*self.store, &format!("{DISKS}{gone}"))?
                    && gone.brought.is_some()
                {
                    // Its file has what the layer has; the layer is nobody's.
                    refuse_loss(&gone, generation)?;
                    doomed.extend(gone.layers.into_iter().map(|l| l.path));
                }
                operations.push(Operation::Delete(format!("{DISKS}{gone}")));
                disks.retain(|d| d.id != gone);
            }
            if let Some(disk) = disk {
                operations.push(record::put(format!("{DISKS}{}", disk.id), &disk)?);
                disks.push(disk);
            }
        }
        check_sectors(settings, &disks)?;
        if let Some(image) = &edit.dvd {
            insert_dvd(settings, image.clone(), guest.as_deref(), &|| self.fresh_id())?;
        }
        check(settings)?;
        operations.push(record::put(machine_key(id), &record)?);
        litter.doom(doomed, Vec::new());
        if !litter.commit(vec![Condition::Revision(machine_key(id), revision)], operations)? {
            return Err(Error::new(Reason::Busy, "the machine was changed by somebody else meanwhile")
                .hint("look at it again and repeat the change"));
        }
        drop(running);
        drop(litter);
        Ok(())
    }

    /// Deletes machine `id`: its record, its own files and, unless `keep_disks`, the disk files that Slipway made.
    ///
    /// The records go first, in one transaction that writes down the files; a death after that leaves them to the next
    /// start.
    ///
    /// # Errors
    /// A guest runs, or a job holds it.
    pub fn delete(&self, id: Uuid, keep_disks: bool) -> Result<Vec<PathBuf>> {
        match self.begin_delete(id, keep_disks, "")? {
            Begun::Done(kept) => Ok(kept),
            Begun::Job(job) => {
                let kept = self.finish(job)?.unwrap_or_default();
                Ok(serde_json::from_value(kept).unwrap_or_default())
            }
        }
    }

    /// As [`Self::delete`], without a wait for disks that must be given back.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn begin_delete(&self, id: Uuid, keep_disks: bool, owner: &str) -> Result<Begun<Vec<PathBuf>>> {
        let (record, revision) = self.record(id)?;
        let cell = self.cell(id);
        let running = cell.lock();
        self.admit(&running, Request::Delete, &record)?;
        self.refuse_busy(id, "delete")?;
        let disks: Vec<Uuid> = record.settings.disks().map(|(_, _, disk)| disk).collect();
        if self.must_give_back(record.run_generation, &disks)? {
            let change = Change::Delete { keep_disks };
            return self.submit_change::<Deleting>(id, change, owner).map(Begun::Job);
        }
        self.delete_held((record, revision), running, keep_disks).map(Begun::Done)
    }

    /// Deletes it in one transaction. The caller has admitted it.
    pub(crate) fn delete_held(
        &self,
        (record, revision): (MachineRecord, u64),
        running: MutexGuard<'_, Running>,
        keep_disks: bool,
    ) -> Result<Vec<PathBuf>> {
        let id = record.id;
        let disks = self.disks_of(&record).unwrap_or_default();
        for disk in &disks {
            refuse_loss(disk, record.run_generation)?;
        }
        // The layers of what was taken in are nobody's once it is given back; its file is the user's.
        let (owned, kept): (Vec<_>, Vec<_>) = disks
            .iter()
            .flat_map(|d| d.layers.iter().map(move |l| (l, l.owned && (!keep_disks || d.brought.is_some()))))
            .partition(|(_, goes)| *goes);
        let (owned, kept) =
            (owned.into_iter().map(|(l, _)| l), kept.into_iter().map(|(l, _)| l.path.clone()));
        let brought = disks.iter().filter_map(|d| d.brought.as_ref()).map(|b| b.file.clone());
        let kept: Vec<PathBuf> = kept.chain(brought).collect();
        let mut gone: Vec<PathBuf> = owned.map(|l| l.path.clone()).collect();
        gone.extend([record.home.clone(), self.places(&record).runtime]);
        let mut litter = Litter::new(self);
        litter.doom(gone, kept.clone());
        let keys = [machine_key(id), format!("{REALIZED}{id}"), exported_key(id)];
        let mut operations: Vec<Operation> = keys.into_iter().map(Operation::Delete).collect();
        operations.extend(disks.iter().map(|d| Operation::Delete(format!("{DISKS}{}", d.id))));
        if !litter.commit(vec![Condition::Revision(machine_key(id), revision)], operations)? {
            return Err(Error::new(Reason::Busy, "the machine was changed by somebody else meanwhile"));
        }
        drop(running);
        self.automatic.forget(id);
        self.forget_cell(id);
        self.tell_deleted(id);
        drop(litter);
        Ok(kept)
    }
}

/// Whether `path` is one of the disk's files, under whatever name.
pub(crate) fn uses(disk: &DiskRecord, path: &Path) -> bool {
    let known = disk.brought.iter().map(|b| &b.file);
    let mut files = disk.layers.iter().map(|l| &l.path).chain(known);
    files.any(|file| file == path || crate::inuse::same_file(file, path))
}

/// Where disks of a machine are made.
struct Place<'a> {
    machine: Uuid,
    run_generation: u64,
    home: &'a Path,
    name: &'a str,
}

/// Refuses when machine `id` is there already.
pub(crate) fn refuse_defined(host: &Host, id: Uuid) -> Result<()> {
    match record::get::<MachineRecord>(&*host.store, &machine_key(id))? {
        None => Ok(()),
        Some(_) => {
            Err(Error::new(Reason::AlreadyExists, format!("a machine with the id {id} exists already")))
        }
    }
}

/// Refuses to let a disk go whose file does not have what it holds; whoever wants that has it given back first.
fn refuse_loss(disk: &DiskRecord, run_generation: u64) -> Result<()> {
    match &disk.brought {
        Some(brought) if !brought.is_current(run_generation) => {
            let file = brought.file.display();
            Err(Error::new(Reason::InUse, format!("`{file}` is not what its disk `{}` holds", disk.name))
                .hint("see whether somebody changed it, and try again"))
        }
        _ => Ok(()),
    }
}

/// Refuses disks whose sectors the emulated controllers cannot present.
fn check_sectors(settings: &Settings, disks: &[DiskRecord]) -> Result<()> {
    let bus = crate::hardware::disk_bus(settings.generation, settings.hardware);
    match disks.iter().find(|d| d.logical_sector_size != 512) {
        Some(disk) if matches!(bus, engine::DiskBus::Ide | engine::DiskBus::Ahci) => Err(Error::new(
            Reason::InvalidArgument,
            format!("disk `{}` has 4,096-byte logical sectors, which IDE and AHCI cannot present", disk.name),
        )
        .hint("`--disk-bus nvme` can")),
        _ => Ok(()),
    }
}

pub(crate) fn check(settings: &Settings) -> Result<()> {
    match settings.problem() {
        None => Ok(()),
        Some(why) => Err(Error::new(Reason::InvalidArgument, why)),
    }
}

/// What a new disk of machine `machine` is called.
fn new_disk_name(machine: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let stem = safe_file_name(machine);
    let mut name = format!("{stem}.vhdx");
    let mut n = 2;
    while taken(&name) {
        name = format!("{stem} {n}.vhdx");
        n += 1;
    }
    name
}

/// Puts `media` into the first free position that the generation boots from; a controller made for it gets its id from
/// `ids`.
pub(crate) fn plug(settings: &mut Settings, media: Media, ids: &dyn Fn() -> Uuid) -> Result<()> {
    let (kind, controllers, slots) = match settings.generation {
        Generation::One => (ControllerKind::Ide, 2, 2),
        Generation::Two => (ControllerKind::Scsi, 1, 64),
    };
    for number in 0..controllers {
        let at = match settings.controllers.iter().position(|c| c.kind == kind && c.number == number) {
            Some(at) => at,
            None => {
                let instance = match kind {
                    ControllerKind::Ide => device_ids::IDE,
                    _ => ids(),
                };
                settings.controllers.push(Controller { kind, instance, number, drives: Vec::new() });
                settings.controllers.len() - 1
            }
        };
        let drives = &mut settings.controllers[at].drives;
        if let Some(slot) = (0..slots).find(|s| drives.iter().all(|d| d.slot != *s)) {
            drives.push(Drive { slot, media });
            drives.sort_by_key(|d| d.slot);
            return Ok(());
        }
    }
    Err(Error::new(Reason::InvalidArgument, "no free position is left on the machine's controllers"))
}

fn unplug(settings: &mut Settings, disk: Uuid) {
    for c in &mut settings.controllers {
        c.drives.retain(|d| d.media != Media::Disk { disk });
    }
}

/// Puts an image into the first DVD drive, of the settings and of a running guest.
fn insert_dvd(
    settings: &mut Settings,
    image: Option<PathBuf>,
    guest: Option<&dyn engine::Guest>,
    ids: &dyn Fn() -> Uuid,
) -> Result<()> {
    if let Some(path) = &image {
        fs::metadata(path).map_err(|e| Error::io("open DVD image", path, e))?;
    }
    let drive =
        settings.controllers.iter_mut().flat_map(|c| &mut c.drives).find_map(|d| match &mut d.media {
            Media::Dvd { image } => Some(image),
            _ => None,
        });
    match (drive, guest) {
        (Some(slot), guest) => {
            if let Some(guest) = guest {
                // The engine names drives `dvd0`, `dvd1`, … in the settings' order.
                guest.change_media("dvd0", image.as_deref(), true).map_err(|e| {
                    Error::new(Reason::Engine, "the guest's drive did not take the image").caused_by(e)
                })?;
            }
            *slot = image;
            Ok(())
        }
        (None, Some(_)) => Err(Error::new(
            Reason::InvalidState,
            "the machine has no DVD drive, and a running guest gets none",
        )
        .hint("stop it first; `slipway machine set MACHINE --dvd FILE` then adds one")),
        (None, None) => plug(settings, Media::Dvd { image }, ids),
    }
}

fn apply(settings: &mut Settings, edit: &MachineEdit) {
    if let Some(name) = &edit.name {
        settings.name.clone_from(name);
    }
    if let Some(notes) = &edit.notes {
        settings.notes.clone_from(notes);
    }
    if let Some(count) = edit.processors {
        settings.processors.count = count;
    }
    if let Some(mib) = edit.memory_mib {
        settings.memory.startup_mib = mib;
    }
    if let Some(on) = edit.secure_boot {
        settings.firmware.secure_boot = on;
    }
    if let Some(on) = edit.tpm {
        settings.tpm = on;
    }
    if let Some(order) = &edit.boot_order {
        settings.firmware.boot_order.clone_from(order);
    }
    if let Some(automatic) = edit.automatic {
        settings.automatic = automatic;
    }
    if let Some(hardware) = edit.hardware {
        settings.hardware = hardware;
    }
}

/// Whether the operating system did not permit it.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let denied = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    };
    std::iter::successors(Some(error), |e| e.source()).any(denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_1_has_four_positions_and_says_when_they_are_full() {
        let mut s = Settings::new("a", Generation::One);
        for _ in 0..4 {
            plug(&mut s, Media::Dvd { image: None }, &Uuid::new_v4).unwrap();
        }
        assert!(plug(&mut s, Media::Dvd { image: None }, &Uuid::new_v4).is_err());
        assert_eq!(s.controllers.len(), 2);
    }
}
