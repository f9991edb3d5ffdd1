//! What outlives the process: a record in each guest's runtime directory, and one of the simulation.
//!
//! Written whole or not at all, and not synced: like the processes of real guests, simulated ones outlive the daemon and
//! not the host. A record of another boot of the host is of a guest that is gone.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::behaviour::Behaviour;
use super::clock::ClockMode;
use super::event::Event;
use super::faults::Rules;
use crate::guest::RunState;
use crate::spec::{GuestSpec, Resolved};

const RECORD: &str = "guest.json";
/// Largest record read, in bytes.
const MAX_RECORD: u64 = 16 << 20;
const VERSION: u32 = 1;

/// A guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GuestRecord {
    version: u32,
    /// Which boot of the host it belongs to.
    boot: String,
    pub(super) spec: GuestSpec,
    pub(super) resolved: Resolved,
    pub(super) life: LifeRecord,
}

/// What a guest has come to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LifeRecord {
    pub(super) run: RunState,
    pub(super) booted: bool,
    pub(super) counter: u64,
    /// How long its processors had run ...
    pub(super) ran: Duration,
    /// ... when they began to run last; `None` while they stand.
    pub(super) since: Option<Duration>,
    /// When it will have shut down.
    pub(super) shut_at: Option<Duration>,
    /// Where it goes when it is thawed.
    pub(super) thawed: RunState,
    pub(super) memory: String,
    pub(super) media: HashMap<String, Option<PathBuf>>,
    pub(super) links: HashMap<String, bool>,
}

impl GuestRecord {
    pub(super) fn new(spec: &GuestSpec, resolved: &Resolved, life: LifeRecord) -> Self {
        Self { version: VERSION, boot: boot_id(), spec: spec.clone(), resolved: resolved.clone(), life }
    }

    /// The record in `dir`; `None` when there is none, or none of this boot.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let record: Option<Self> = read(&dir.join(RECORD))?;
        if let Some(record) = &record {
            known(record.version)?;
        }
        Ok(record.filter(|r| r.boot == boot_id()))
    }

    pub(super) fn write(&self) -> io::Result<()> {
        replace(&self.spec.runtime_dir.join(RECORD), self)
    }

    pub(super) fn remove(dir: &Path) {
        let _ = fs::remove_file(dir.join(RECORD));
    }
}

/// What a save writes: all that a guest knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedState {
    /// Version of this file.
    simulator: u32,
    pub(super) machine_version: String,
    pub(super) booted: bool,
    pub(super) counter: u64,
    pub(super) ran: Duration,
    pub(super) memory: String,
}

impl SavedState {
    pub(super) fn of(resolved: &Resolved, life: &LifeRecord) -> Self {
        Self {
            simulator: VERSION,
            machine_version: resolved.machine_version.clone(),
            booted: life.booted,
            counter: life.counter,
            ran: life.ran,
            memory: life.memory.clone(),
        }
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let saved: Option<Self> = read(path)?;
        let saved = saved.ok_or(io::ErrorKind::NotFound)?;
        known(saved.simulator)?;
        Ok(saved)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }
}

/// The simulation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WorldRecord {
    version: u32,
    boot: String,
    pub(super) seed: u64,
    pub(super) mode: ClockMode,
    pub(super) elapsed: Duration,
    /// What the host's clock showed then, since 1970: real time passes while nobody keeps it.
    pub(super) written: Duration,
    pub(super) ordinary: Behaviour,
    pub(super) behaviours: BTreeMap<Uuid, Behaviour>,
    pub(super) rules: Rules,
    pub(super) events: Vec<Event>,
    pub(super) events_given: u64,
    /// Ids up to this one may have been given.
    pub(super) ids: u64,
}

impl WorldRecord {
    #[expect(clippy::too_many_arguments, reason = "a record is made in one place")]
    pub(super) fn new(
        seed: u64,
        (mode, elapsed): (ClockMode, Duration),
        ordinary: Behaviour,
        behaviours: BTreeMap<Uuid, Behaviour>,
        rules: Rules,
        events: Vec<Event>,
        events_given: u64,
        ids: u64,
    ) -> Self {
        Self {
            version: VERSION,
            boot: boot_id(),
            seed,
            mode,
            elapsed,
            written: wall(),
            ordinary,
            behaviours,
            rules,
            events,
            events_given,
            ids,
        }
    }

    /// The record at `path`; `None` when there is none.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let record: Option<Self> = read(path)?;
        if let Some(record) = &record {
            known(record.version)?;
        }
        Ok(record)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, self)
    }

    /// The simulation's time by now.
    pub(super) fn elapsed_by_now(&self) -> Duration {
        match self.mode {
            ClockMode::Manual => self.elapsed,
            ClockMode::Real => self.elapsed + wall().saturating_sub(self.written),
        }
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Names this boot of the host.
fn boot_id() -> String {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
    .clone()
}

fn known(version: u32) -> io::Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let message = format!("the record has version {version}, this program knows {VERSION}");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_RECORD => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is too large"));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    }
    Ok(Some(serde_json::from_slice(&fs::read(path)?)?))
}

fn replace<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, serde_json::to_vec(record)?)?;
    fs::rename(&partial, path)
}
