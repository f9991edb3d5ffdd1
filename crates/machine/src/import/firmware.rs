//! UEFI variables of a machine that comes in: the firmware's own template, with the boot entries that lead to its disks.
//!
//! Entries that the old firmware knew (in the guest state file, or in the configuration of older versions) are carried
//! over in short form; where it knew none, those that the plan found on the EFI partition are added. How variables are
//! stored is the engine's part.

use std::path::Path;

use engine::varstore::VarStore;
use engine::varstore::boot::{BootEntry, ForeignVariable, PartitionIdentity, portable_entries, shorten};
use job::Failure;
use vmcx::vmgs::{self, Variable};

use crate::config;
use crate::error::{Error, Reason, Result, chain};
use crate::host::Host;
use crate::jobs::failure;
use crate::planned::PlannedBootEntry;
use crate::record::PlannedRecord;

/// Boot entries of an old firmware's variables that can be carried over, in boot order.
fn carried(variables: &[Variable]) -> Vec<Vec<u8>> {
    let foreign: Vec<_> = variables
        .iter()
        .map(|v| ForeignVariable { vendor: v.vendor, name: &v.name, data: &v.data })
        .collect();
    portable_entries(&foreign)
}

/// How many boot entries of an old firmware's variables can be carried over.
pub(super) fn carried_entries(variables: &[Variable]) -> usize {
    carried(variables).len()
}

/// How many values of a configuration's `nvram` node are boot entries that can be carried over.
pub(super) fn configured_entries(nvram: &[Vec<u8>]) -> usize {
    nvram.iter().filter(|v| shorten(v).is_some()).count()
}

/// Makes the machine's variables in `home`; how many boot entries were added.
pub(super) fn prepare(host: &Host, plan: &PlannedRecord, home: &Path) -> std::result::Result<usize, Failure> {
    make(host, plan, home).map_err(|e| failure(&e))
}

fn make(host: &Host, plan: &PlannedRecord, home: &Path) -> Result<usize> {
    let wanted = plan.settings.firmware.secure_boot;
    let report = host.engine.probe();
    // An engine without firmware files (the simulator) has no variables to prepare.
    let Some(firmware) = report.firmware.iter().find(|f| f.secure_boot == wanted).or(report.firmware.first())
    else {
        return Ok(0);
    };
    let broken = |e: engine::varstore::VarStoreError| {
        Error::new(Reason::HostLacks, format!("cannot prepare UEFI variables: {}", chain(&e)))
    };
    let mut store = VarStore::read(&firmware.vars).map_err(broken)?;
    let mut options = Vec::new();
    if let Some(blob) = &plan.origin.guest_state {
        let bytes = host.blobs.get(blob)?;
        if let Ok(variables) = vmgs::parse(&bytes).and_then(|state| state.nvram()) {
            options = carried(&variables);
        }
    }
    if options.is_empty() {
        let bytes = host.blobs.get(&plan.origin.configuration)?;
        let configuration = vmcx::read(&bytes).ok().and_then(|d| config::read(&d.tree).ok());
        options = configuration.iter().flat_map(|c| &c.nvram).filter_map(|v| shorten(v)).collect();
    }
    let mut added = options.len();
    for option in options {
        store.add_load_option(option);
    }
    for entry in plan.disks.iter().flat_map(|d| &d.boot_entries) {
        if let Some(entry) = boot_entry(entry) {
            store.add_boot_entry(&entry);
            added += 1;
        }
    }
    store.write(&home.join(crate::hardware::VARIABLES)).map_err(broken)?;
    Ok(added)
}

fn boot_entry(planned: &PlannedBootEntry) -> Option<BootEntry> {
    let identity = match (planned.partition_id, planned.mbr_signature) {
        (Some(id), _) => PartitionIdentity::Gpt(id),
        (None, Some(signature)) => PartitionIdentity::Mbr(signature),
        (None, None) => return None,
    };
    Some(BootEntry {
        description: planned.description.clone(),
        partition: planned.partition,
        start_sector: planned.start_sector,
        sectors: planned.sectors,
        identity,
        loader: planned.loader.clone(),
    })
}
