//! Names for sockets in directories that are deeper than a socket's name may be long.
//!
//! The name of a Unix socket has at most 107 bytes, and a guest's runtime directory may be deeper than that. Then its
//! sockets are reached through a symbolic link: `SHORT/<hash of the directory>`, where `SHORT` is a directory of ours,
//! mode 0700 and checked to be so, under `/run/user/UID` or else `/tmp`. The link follows from the directory's name, so
//! it can be made again at any time (a cleaner of `/tmp` does no harm); the sockets themselves stay where they belong.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// `sun_path` without its terminating zero.
const MAX_SOCKET_PATH: usize = 107;
/// Longest name of a socket in a guest's runtime directory, in bytes.
const LONGEST_SOCKET_NAME: usize = "serial0.sock".len();

/// Makes a directory that only we may enter; one that is there already is left as it is.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Our directory for short names.
pub(crate) fn default_short_dir() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if run.is_dir() { run.join("slipway-s") } else { PathBuf::from(format!("/tmp/slipway-s-{uid}")) }
}

/// A name of `dir` short enough for every socket in it: itself, or a symbolic link to it in `short_dir`.
pub(crate) fn socket_dir(dir: &Path, short_dir: &Path) -> io::Result<PathBuf> {
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
pub(crate) fn forget_socket_dir(dir: &Path, sockets: &Path) {
    if dir != sockets {
        let _ = fs::remove_file(sockets);
    }
}

/// FNV-1a, 64 bits: a name that every build of ours agrees on. Nothing rests on it being hard to invert.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
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
}
