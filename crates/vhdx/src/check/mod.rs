//! Checking a file against the rules of its format, naming each broken one and its offset.
//!
//! A check goes on where a reader would stop, and reads tables and logs only, never payload. Memory stays bounded:
//! two bits per MiB of file at most, tables in pages. Parents are not opened; a chain is checked by opening it.

mod report;
mod vhdx;

use std::path::Path;
use std::sync::Arc;

pub use report::{BlockCounts, Finding, Report, Severity};

use crate::chain;
use crate::error::{Fault, OpenError};
use crate::info::Format;
use crate::storage::Storage;

/// How to check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Findings kept; more are counted only. The first of each rule is kept always.
    pub max_findings: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { max_findings: 1000 }
    }
}

/// Checks the file at `path`.
///
/// # Errors
/// Only when there is nothing to check: the host refuses, or the file is neither VHDX nor VHD. A broken file is a
/// report, not an error.
pub fn check(path: &Path, options: &CheckOptions) -> Result<Report, OpenError> {
    let storage = chain::open_file(path)?;
    check_storage(storage, &path.display().to_string(), options)
}

/// Checks what is in `storage`; `name` is for messages.
///
/// # Errors
/// As for [`check`].
pub fn check_storage(
    storage: Arc<dyn Storage>,
    name: &str,
    options: &CheckOptions,
) -> Result<Report, OpenError> {
    let mut report = Report::new(options.max_findings);
    let format = chain::sniff(storage.as_ref())
        .map_err(|source| Fault::io("the file's signature", 0, source).named(name))?
        .ok_or_else(|| Fault::NotADisk.named(name))?;
    report.format = Some(format);
    match format {
        Format::Vhdx => vhdx::check(storage, &mut report),
        Format::Vhd => crate::vhd::check(storage, &mut report),
    }
    .map_err(|fault| fault.named(name))?;
    Ok(report)
}
