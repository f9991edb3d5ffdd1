//! UEFI variables of a machine that comes in: the firmware's own template, with the boot entries that lead to its disks.
//!
//! Entries that the old firmware knew (in the guest state file, or in the configuration of older versions) are carried
//! over; where it knew none, those that the plan found on the EFI partition are added. How variables are stored is the
//! engine's part.

use std::path::Path;

use engine::varstore::{
    self, BootEntry, Imported, LoadOption, PartitionRef, PartitionSignature, Place, VarStore, Variable,
};
use job::Failure;
use vmcx::vmgs;

use crate::config;
use crate::error::{Error, Reason, Result, chain};
use crate::host::Host;
use crate::jobs::failure;
use crate::planned::PlannedBootEntry;
use crate::record::PlannedRecord;

/// The variables of a guest state file.
fn from_guest_state(variables: Vec<vmgs::Variable>) -> Vec<Variable> {
    variables.into_iter().map(|v| Variable::new(v.vendor, v.name, v.attributes, v.data)).collect()
}

/// The boot entries among the values of a configuration's `nvram` node. Their names there are not public, so a value that
/// reads as a load option is taken for one, and their order is that of the tree.
fn from_configuration(nvram: &[Vec<u8>]) -> Vec<Variable> {
    let options = nvram.iter().filter(|v| LoadOption::parse(v).is_some());
    options
        .zip(0u16..)
        .map(|(data, n)| {
            let name = format!("Boot{n:04X}");
            Variable::new(varstore::GLOBAL, name, varstore::attributes::BOOT, data.clone())
        })
        .collect()
}

/// How many boot entries of a guest state file's variables can be carried over.
pub(super) fn carried_entries(variables: Vec<vmgs::Variable>) -> usize {
    Imported::count(&from_guest_state(variables))
}

/// How many values of a configuration's `nvram` node are boot entries that can be carried over.
pub(super) fn configured_entries(nvram: &[Vec<u8>]) -> usize {
    Imported::count(&from_configuration(nvram))
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
    let broken = |e: varstore::VarStoreError| {
        Error::new(Reason::HostLacks, format!("cannot prepare UEFI variables: {}", chain(&e)))
    };
    let mut store = VarStore::open(&firmware.vars).map_err(broken)?;
    let mut added =
        store.import_boot_entries(&known_to_old_firmware(host, plan)?).map_err(broken)?.entries.len();
    for entry in plan.disks.iter().flat_map(|d| &d.boot_entries).filter_map(boot_entry) {
        store.add_boot_entry(&entry, Place::Last).map_err(broken)?;
        added += 1;
    }
    store.save(&home.join(crate::hardware::VARIABLES)).map_err(broken)?;
    Ok(added)
}

fn known_to_old_firmware(host: &Host, plan: &PlannedRecord) -> Result<Vec<Variable>> {
    if let Some(blob) = &plan.origin.guest_state {
        let bytes = host.blobs.get(blob)?;
        if let Ok(variables) = vmgs::parse(&bytes).and_then(|state| state.nvram()) {
            let variables = from_guest_state(variables);
            if Imported::count(&variables) > 0 {
                return Ok(variables);
            }
        }
    }
    let bytes = host.blobs.get(&plan.origin.configuration)?;
    let configuration = vmcx::read(&bytes).ok().and_then(|d| config::read(&d.tree).ok());
    Ok(configuration.map(|c| from_configuration(&c.nvram)).unwrap_or_default())
}

fn boot_entry(planned: &PlannedBootEntry) -> Option<BootEntry> {
    let signature = match (planned.partition_id, planned.mbr_signature) {
        (Some(id), _) => PartitionSignature::Gpt(id),
        (None, Some(signature)) => PartitionSignature::Mbr(signature),
        (None, None) => return None,
    };
    Some(BootEntry {
        description: planned.description.clone(),
        partition: PartitionRef {
            number: planned.partition,
            start_lba: planned.start_sector,
            size_lba: planned.sectors,
            signature,
        },
        path: planned.loader.clone(),
    })
}
