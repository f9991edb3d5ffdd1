//! UEFI variables of a machine that comes in: the firmware's own set, with the boot entries that lead to its disks.

use std::path::Path;

use job::Failure;
use vmcx::vmgs::Variable;

use crate::host::Host;
use crate::record::PlannedRecord;

/// How many boot entries of an old firmware's variables can be carried over.
pub(super) fn carried_entries(variables: &[Variable]) -> usize {
    let _ = variables;
    0
}

/// Makes the machine's variables in `home`; how many boot entries were added.
pub(super) fn prepare(host: &Host, plan: &PlannedRecord, home: &Path) -> Result<usize, Failure> {
    let _ = (host, plan, home);
    Ok(0)
}
