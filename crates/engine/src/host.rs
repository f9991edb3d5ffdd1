//! What a host can do for guests: the verdicts behind `slipway doctor`.
//!
//! A [`HostReport`] is plain data. Who fills it is the engine's matter; who prints it, the edge's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What this host offers, and what to do about what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The engine: `qemu` or `sim`.
    pub engine: String,
    /// The program that runs guests.
    pub program: Option<Program>,
    /// Whether KVM can be used, and why not.
    pub kvm: KvmVerdict,
    /// Machine versions that guests can be given ([`Resolved::machine_version`](crate::Resolved)): a state saved with
    /// another cannot be restored.
    pub machine_versions: Vec<String>,
    /// UEFI firmware found.
    pub firmware: Vec<FirmwareFound>,
    /// The TPM emulator.
    pub tpm: Option<Program>,
    /// Bridges of the host.
    pub bridges: Vec<String>,
    /// The program through which unprivileged users reach bridges.
    pub bridge_helper: Option<PathBuf>,
    /// Every check made, in the order to be read.
    pub checks: Vec<Check>,
}

impl HostReport {
    /// Whether guests can be started at all.
    pub fn usable(&self) -> bool {
        self.checks.iter().all(|c| c.verdict != Verdict::Fail)
    }
}

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Where.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: String,
}

/// Whether KVM can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmVerdict {
    /// Whether guests run under it.
    pub usable: bool,
    /// What was found, in one sentence.
    pub reason: String,
    /// What a person can do to have it, if anything.
    pub fix: Option<String>,
}

/// A pair of UEFI firmware files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFound {
    /// The code.
    pub code: PathBuf,
    /// The template of a machine's variable store.
    pub vars: PathBuf,
    /// Whether it enforces Secure Boot with Microsoft's keys.
    pub secure_boot: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but something is missing or slow.
    Warn,
    /// Guests cannot run.
    Fail,
}

/// Every id that a [`Check`] may have. What each means is told by `slipway explain`.
pub const CHECKS: [&str; 9] =
    ["qemu", "qemu-img", "kvm", "uefi", "uefi-secure-boot", "tpm", "bridge", "scopes", "sim"];

/// One check of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, for programs: one of [`CHECKS`].
    pub id: String,
    /// Its outcome.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// The command or step that helps, on Debian.
    pub fix: Option<String>,
}
