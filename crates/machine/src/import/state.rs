//! The memory that a package of ours may bring along: whether it can be gone on with here, and what the machine must look
//! like for that.
//!
//! Everything the guest's memory knows of its hardware is compared with what the plan would give it. What an import leaves
//! to chance (addresses, serial numbers, virtual hardware) is taken from the saved layout first, so that only what
//! somebody chose can differ. Copying and recording it is [`super::realize`]'s part.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use transfer::manifest;
use transfer::package::Package;
use uuid::Uuid;

use crate::error::chain;
use crate::finding::{self, Finding, Severity};
use crate::hardware::{self, Places};
use crate::layout::Layout;
use crate::planned::{ImportRequest, PlannedDisk, PlannedState};
use crate::record::MachineRecord;
use crate::saved::{Needs, Offers};
use crate::settings::{Hardware, Settings};
use crate::switch::SwitchRecord;

/// What our exports say of a saved memory in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Details {
    /// When it was saved.
    pub(crate) when: Timestamp,
    /// The virtual hardware that somebody chose: no Hyper-V configuration says it.
    pub(crate) hardware: Hardware,
    /// What it takes to go on with it.
    #[serde(flatten)]
    pub(crate) needs: Needs,
}

/// A package's memory as found.
pub(super) enum Found {
    /// None.
    Nothing,
    /// There is one that cannot be used, and why.
    Unusable(String),
    /// This.
    State(Box<State>),
}

pub(super) struct State {
    file: PathBuf,
    bytes: u64,
    digest: String,
    details: Details,
    /// The machine's id in the package.
    machine: Uuid,
}

/// Looks for a memory in `package`.
pub(super) fn find(package: &Package) -> Found {
    let file = package.root.join(manifest::STATE);
    let there = fs::symlink_metadata(&file).is_ok();
    let unusable = |why: String| if there { Found::Unusable(why) } else { Found::Nothing };
    let parsed = match package.read_manifest() {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return unusable("no manifest speaks of it".to_owned()),
        Err(error) => return unusable(chain(&error)),
    };
    let Some(entry) = parsed.saved_state else {
        return unusable("the manifest does not speak of it".to_owned());
    };
    let inside = fs::canonicalize(&file).is_ok_and(|real| real.starts_with(&package.root) && real.is_file());
    if !inside {
        return Found::Unusable("the manifest speaks of it, and it is not there".to_owned());
    }
    let details = serde_json::Value::Object(entry.details);
    match serde_json::from_value::<Details>(details) {
        Ok(details) => Found::State(Box::new(State {
            file,
            bytes: entry.size,
            digest: entry.digest.root.to_string(),
            details,
            machine: parsed.machine.id,
        })),
        Err(e) => Found::Unusable(format!("what it needs is not understood: {e}")),
    }
}

impl State {
    /// Takes from the saved hardware what the request leaves open. Before drivers are looked for on the disks.
    pub(super) fn prepare(&self, settings: &mut Settings, request: &ImportRequest) {
        let chosen = self.details.hardware;
        if request.profile.is_none() {
            settings.hardware.profile = chosen.profile;
        }
        settings.hardware.disk_bus = request.disk_bus.or(chosen.disk_bus);
        settings.hardware.nic_model = request.nic_model.or(chosen.nic_model);
    }

    /// Gives the machine the addresses, identity and serial numbers that the memory knows.
    fn pin(&self, id: Uuid, settings: &mut Settings, disks: &mut [PlannedDisk]) {
        let layout = &self.details.needs.layout;
        for (adapter, (_, mac)) in settings.adapters.iter_mut().zip(&layout.adapters) {
            if hardware::mac(id, adapter) != *mac {
                adapter.mac = Some(*mac);
            }
        }
        if settings.firmware.bios_id.unwrap_or(id) != layout.uuid {
            settings.firmware.bios_id = Some(layout.uuid);
        }
        let places: Vec<Uuid> = settings.disks().map(|(_, _, disk)| disk).collect();
        for (disk, saved) in places.iter().zip(&layout.disks) {
            if let Some(planned) = disks.iter_mut().find(|d| d.id == *disk) {
                planned.serial.clone_from(&saved.serial);
            }
        }
    }

    /// The memory as part of a plan, when it fits; else the finding that says why not.
    pub(super) fn fit(
        &self,
        id: Uuid,
        settings: &mut Settings,
        disks: &mut [PlannedDisk],
        switches: &[SwitchRecord],
        offers: Option<&Offers>,
    ) -> (Option<PlannedState>, Vec<Finding>) {
        let before = settings.clone();
        self.pin(id, settings, disks);
        let needs = &self.details.needs;
        let hardware = layout(id, settings, disks, switches);
        let why = match hardware {
            Err(why) => Some(why),
            Ok(now) => needs.layout.difference(&now).or_else(|| offers.and_then(|here| needs.unmet(here))),
        };
        if let Some(why) = why {
            *settings = before;
            disks.iter_mut().for_each(|d| d.serial = None);
            return (None, vec![unfit(&why)]);
        }
        let mut found = vec![Finding::new(
            finding::STATE_COMES,
            Severity::Info,
            "saved state",
            format!(
                "the machine comes in saved, as it was on {}, and goes on from there when it is started",
                self.details.when
            ),
        )];
        if id != self.machine {
            found.push(Finding::new(
                finding::STATE_TWIN,
                Severity::Warning,
                "saved state",
                "the memory knows the original's network addresses and identity: the machine keeps them, so do not run both on one network",
            ));
        }
        let state = PlannedState {
            file: self.file.clone(),
            bytes: self.bytes,
            digest: self.digest.clone(),
            when: self.details.when,
            needs: needs.clone(),
        };
        (Some(state), found)
    }
}

/// The finding for a memory that stays behind unless somebody gives it up.
pub(super) fn unfit(why: &str) -> Finding {
    Finding::new(
        finding::STATE_UNFIT,
        Severity::Error,
        "saved state",
        format!("the package holds the memory of a saved machine, which cannot be gone on with here: {why}"),
    )
    .fix("--discard-saved-state")
}

/// The hardware that the planned machine's guest would have.
fn layout(
    id: Uuid,
    settings: &Settings,
    disks: &[PlannedDisk],
    switches: &[SwitchRecord],
) -> Result<Layout, String> {
    let machine = MachineRecord {
        version: 1,
        id,
        settings: settings.clone(),
        created: Timestamp::UNIX_EPOCH,
        home: PathBuf::from("/"),
        origin: None,
        resolved: None,
        run_generation: 0,
        wanted_running: false,
        turned_off_in: None,
        changed_by: None,
        saved: None,
        extra: serde_json::Map::new(),
    };
    let records: Vec<_> = disks
        .iter()
        .map(|d| super::realize::record_of(id, d, super::realize::raw_layer(&PathBuf::from("/"))))
        .collect();
    let nowhere = PathBuf::from("/");
    let places = Places { home: nowhere.clone(), runtime: nowhere.clone(), switches: nowhere };
    let spec = hardware::guest(&machine, &records, switches, &places).map_err(|e| chain(&e))?;
    let sizes: Vec<u64> = settings
        .disks()
        .map(|(_, _, disk)| disks.iter().find(|d| d.id == disk).map_or(0, |d| d.virtual_size))
        .collect();
    Ok(Layout::of(&spec, &sizes))
}
