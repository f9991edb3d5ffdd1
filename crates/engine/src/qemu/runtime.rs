//! A guest's runtime directory: what lies in it, and the record that finds the guest again. How its sockets get names
//! that are short enough is [`crate::shortname`]'s part.
//!
//! ```text
//! guest.json   what was started, what was chosen, which process        qmp.sock  agent.sock  vnc.sock
//! qemu.log     QEMU's standard error                                   serial0.sock  nic0.sock  tpm.sock
//! serial0.log  all that came out of the console                        qemu.pid  tpm.pid  tpm.log
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(super) use crate::shortname::{default_short_dir, forget_socket_dir, private_dir, socket_dir};
use crate::spec::{GuestSpec, Resolved};

const RECORD: &str = "guest.json";
/// Largest record read; a specification at its limits is far below.
const MAX_RECORD: u64 = 4 * 1024 * 1024;

/// What finds a guest again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) spec: GuestSpec,
    pub(super) resolved: Resolved,
    /// Unknown between the moment before QEMU is started and the one after.
    #[serde(default)]
    pub(super) process: Option<ProcessName>,
    /// Its processors stand for a save or since a restore; and whether they are to run when it is thawed.
    #[serde(default)]
    pub(super) frozen: Option<bool>,
}

/// A process without doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessName {
    pub(super) pid: u32,
    pub(super) start_time: u64,
}

impl Record {
    pub(super) const VERSION: u32 = 1;

    /// Reads it; `None` when there is none.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Record>> {
        let path = dir.join(RECORD);
        let size = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if size > MAX_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is too large"));
        }
        let record: Record = serde_json::from_slice(&fs::read(&path)?)?;
        if record.version > Record::VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the record has version {}, this program knows {}", record.version, Record::VERSION),
            ));
        }
        Ok(Some(record))
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        replace(&dir.join(RECORD), &serde_json::to_vec_pretty(self)?)
    }

    /// Forgets it.
    pub(super) fn remove(dir: &Path) {
        let _ = fs::remove_file(dir.join(RECORD));
    }
}

/// Removes the sockets and process ids of a guest that is gone: one that was killed leaves all of them, and QEMU leaves its
/// VNC socket in any case. Logs stay.
pub(super) fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "sock" || e == "pid") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts `bytes` where `path` is, whole or not at all, for our eyes only.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Holds a lock file until the result is dropped or its process ends.
pub(super) fn lock(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_newer_program_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(Record::read(tmp.path()).unwrap().is_none());
        let mut record = Record {
            version: 1,
            spec: GuestSpec::new(uuid::Uuid::nil(), "m", "/run/m", crate::spec::Chipset::Pc),
            resolved: Resolved {
                machine_version: "pc-i440fx-10.0".into(),
                cpu_model: "max".into(),
                accel: crate::spec::Accel::Tcg,
            },
            process: None,
            frozen: None,
        };
        record.write(tmp.path()).unwrap();
        assert_eq!(Record::read(tmp.path()).unwrap().unwrap().spec, record.spec);
        record.version = 2;
        record.write(tmp.path()).unwrap();
        assert!(Record::read(tmp.path()).is_err());
    }
}
