//! A guest's runtime directory: who may look into it, how its sockets get short names, and the record that finds the
//! guest again.
//!
//! ```text
//! guest.json   what was started, what was chosen, which process        qmp.sock  agent.sock  vnc.sock
//! qemu.log     QEMU's standard error                                   serial0.sock  nic0.sock  tpm.sock
//! serial0.log  all that came out of the console                        qemu.pid  tpm.pid  tpm.log
//! ```
//!
//! The name of a Unix socket has at most 107 bytes, and a runtime directory may be deeper than that. Then its sockets
//! are reached through a symbolic link: `SHORT/<hash of the directory>`, where `SHORT` is a directory of ours, mode
//! 0700 and checked to be so, under `/run/user/UID` or else `/tmp`. The link follows from the directory's name, so it
//! can be made again at any time (a cleaner of `/tmp` does no harm); the sockets themselves stay where they belong.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::LONGEST_SOCKET_NAME;
use crate::spec::{GuestSpec, Resolved};

const RECORD: &str = "guest.json";
/// Largest record read; a specification at its limits is far below.
const MAX_RECORD: u64 = 4 * 1024 * 1024;
/// `sun_path` without its terminating zero.
const MAX_SOCKET_PATH: usize = 107;

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

/// Makes a directory that only we may enter; one that is there already is left as it is.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Holds a lock file until the result is dropped or its process ends.
pub(super) fn lock(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Our directory for short names.
pub(super) fn default_short_dir() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if run.is_dir() { run.join("slipway-s") } else { PathBuf::from(format!("/tmp/slipway-s-{uid}")) }
}

/// A name of `dir` short enough for every socket in it: itself, or a symbolic link to it in `short_dir`.
pub(super) fn socket_dir(dir: &Path, short_dir: &Path) -> io::Result<PathBuf> {
    if dir.as_os_str().len() + 1 + LONGEST_SOCKET_NAME <= MAX_SOCKET_PATH {
        return Ok(dir.to_owned());
    }
    private_dir(short_dir)?;
    let meta = fs::symlink_metadata(short_dir)?;
    if !meta.is_dir()
        || meta.uid() != rustix::process::geteuid().as_raw()
        || meta.permissions().mode() & 0o077 != 0
    {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a directory of ours alone; remove it", short_dir.display()),
        ));
    }
    let link = short_dir.join(format!("{:016x}", fnv1a(dir.as_os_str().as_encoded_bytes())));
    if link.as_os_str().len() + 1 + LONGEST_SOCKET_NAME > MAX_SOCKET_PATH {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is itself too long for a socket", short_dir.display()),
        ));
    }
    match symlink(dir, &link) {
        Ok(()) => Ok(link),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_link(&link)? == dir {
                Ok(link)
            } else {
                Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} belongs to another directory; remove it", link.display()),
                ))
            }
        }
        Err(e) => Err(e),
    }
}

/// Takes the short name away again, if there is one.
pub(super) fn forget_socket_dir(dir: &Path, sockets: &Path) {
    if dir != sockets {
        let _ = fs::remove_file(sockets);
    }
}

/// FNV-1a, 64 bits: a name that every build of ours agrees on. Nothing rests on it being hard to invert.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn deep_directories_get_a_short_name_and_keep_their_sockets() {
        let tmp = tempfile::tempdir().unwrap();
        let short = tmp.path().join("s");
        let shallow = tmp.path().join("a");
        private_dir(&shallow).unwrap();
        assert_eq!(socket_dir(&shallow, &short).unwrap(), shallow);

        let deep = tmp.path().join("d".repeat(60)).join("e".repeat(60));
        private_dir(&deep).unwrap();
        let sockets = socket_dir(&deep, &short).unwrap();
        let _listener = UnixListener::bind(sockets.join("serial0.sock")).unwrap();
        assert!(deep.join("serial0.sock").exists());
        assert_eq!(socket_dir(&deep, &short).unwrap(), sockets, "found again");
        forget_socket_dir(&deep, &sockets);
        assert!(!sockets.exists() && deep.exists());
    }

    #[test]
    fn a_short_directory_open_to_others_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let short = tmp.path().join("s");
        private_dir(&short).unwrap();
        fs::set_permissions(&short, fs::Permissions::from_mode(0o777)).unwrap();
        let deep = tmp.path().join("d".repeat(120));
        assert_eq!(socket_dir(&deep, &short).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

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
