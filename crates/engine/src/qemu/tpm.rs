//! The TPM: one swtpm beside each QEMU that needs one.
//!
//! It runs in a session of its own, lives as long as QEMU holds its control connection and ends by itself when that
//! closes (`--terminate`), so a QEMU that is killed leaves no swtpm behind and a daemon that dies takes none along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::args::TPM_SOCKET;
use super::install::FIX_SWTPM;
use super::process::{self, Process};
use super::runtime;
use crate::error::{StartError, StartErrorKind};
use crate::spec::TpmSpec;

const LIMIT: Duration = Duration::from_secs(10);
const PID_FILE: &str = "tpm.pid";
const LOG: &str = "tpm.log";

/// A swtpm that waits for its QEMU.
pub(super) struct Tpm {
    runtime_dir: PathBuf,
}

/// Starts it; when this returns its socket listens.
pub(super) fn start(spec: &TpmSpec, runtime_dir: &Path, sockets: &Path) -> Result<Tpm, StartError> {
    let failed = |message: String| StartError::new(StartErrorKind::NoTpm, message);
    let program = process::find_program("swtpm")
        .ok_or_else(|| failed("swtpm is not installed".into()).with_hint(FIX_SWTPM))?;
    runtime::private_dir(&spec.state_dir).map_err(|e| {
        failed(format!("{}: cannot be made for the TPM's state", spec.state_dir.display())).with_source(e)
    })?;
    let pid_file = runtime_dir.join(PID_FILE);
    let log = runtime_dir.join(LOG);
    // swtpm has no way to write a comma inside an option.
    let plain = |path: &Path| -> Result<String, StartError> {
        match path.to_str() {
            Some(text) if !text.contains(',') => Ok(text.to_owned()),
            _ => Err(failed(format!("{}: swtpm takes no comma in a path", path.display()))),
        }
    };
    let socket = sockets.join(TPM_SOCKET);
    let _ = fs::remove_file(&socket);
    let mut command = Command::new(program);
    command.arg("socket").arg("--tpm2").arg("--terminate").arg("--daemon");
    command.arg("--tpmstate").arg(format!("dir={},mode=0600", plain(&spec.state_dir)?));
    command.arg("--ctrl").arg(format!("type=unixio,path={},mode=0600", plain(&socket)?));
    command.arg("--pid").arg(format!("file={}", plain(&pid_file)?));
    command.arg("--log").arg(format!("file={},level=1,truncate", plain(&log)?));
    let (status, words) = process::run(&mut command, LIMIT)
        .map_err(|e| failed("swtpm could not be started".into()).with_source(e))?;
    if !status.success() {
        let last = process::last_lines(&log, 3);
        return Err(failed(format!("swtpm did not start: {} {last}", words.trim())));
    }
    Ok(Tpm { runtime_dir: runtime_dir.to_owned() })
}

impl Tpm {
    /// Ends one whose QEMU never came.
    pub(super) fn abandon(self) {
        if let Some(process) = running(&self.runtime_dir) {
            process.kill(Signal::TERM);
            process.ended(Duration::from_secs(2));
        }
    }
}

/// The swtpm of the guest in a runtime directory. The id in its file may be another's by now, so its name is looked at.
pub(super) fn running(runtime_dir: &Path) -> Option<Process> {
    let pid = fs::read_to_string(runtime_dir.join(PID_FILE)).ok()?.trim().parse().ok()?;
    let process = Process::open(pid).ok().flatten()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim_end() == "swtpm").then_some(process)
}
