//! Where the daemon keeps things: data, socket, and what running guests need.
//!
//! Directories are made for their owner only, and refused when another user owns them: in `/tmp` anybody could have made
//! one first. The guests' runtime directory is found again through a link in the data directory, so that a daemon
//! started with another socket still finds the guests of the one before.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{ServeError, ServeErrorKind as Kind};
use crate::peers::Peers;

/// Longest path of a socket, by the kernel.
const MAX_SOCKET: usize = 107;
/// The link in the data directory to the runtime directory.
const RUNTIME_LINK: &str = "runtime";

/// Data directory of user `uid`; `xdg_data_home` and `home` are those variables' values.
pub fn default_data(uid: u32, xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if uid == 0 {
        return Some(PathBuf::from("/var/lib/slipway"));
    }
    let usable = |p: Option<PathBuf>| p.filter(|p| p.is_absolute());
    usable(xdg_data_home).or_else(|| usable(home).map(|h| h.join(".local/share"))).map(|d| d.join("slipway"))
}

/// The configuration file of root's daemon.
pub fn system_config() -> PathBuf {
    PathBuf::from("/etc/slipway/config.toml")
}

/// Configuration file of user `uid`'s daemon; `xdg_config_home` and `home` are those variables' values.
pub fn default_config(uid: u32, xdg_config_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if uid == 0 {
        return Some(system_config());
    }
    let usable = |p: Option<PathBuf>| p.filter(|p| p.is_absolute());
    let dir = usable(xdg_config_home).or_else(|| usable(home).map(|h| h.join(".config")))?;
    Some(dir.join("slipway/config.toml"))
}

/// The socket of root's daemon.
pub fn system_socket() -> PathBuf {
    PathBuf::from("/run/slipway/slipway.sock")
}

/// Socket of user `uid`'s daemon; `xdg_runtime_dir` is that variable's value.
pub fn default_socket(uid: u32, xdg_runtime_dir: Option<PathBuf>) -> PathBuf {
    if uid == 0 {
        return system_socket();
    }
    let dir = xdg_runtime_dir
        .filter(|p| p.is_absolute())
        .map_or_else(|| PathBuf::from(format!("/tmp/slipway-{uid}")), |d| d.join("slipway"));
    dir.join("slipway.sock")
}

fn failed(doing: &str, path: &Path, e: io::Error) -> ServeError {
    let hint = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or name another directory with --data"
        }
        _ => "name directories of your own, where files can be made, with --data and --socket",
    };
    ServeError::new(Kind::Places, format!("cannot {doing} `{}`", path.display())).caused_by(e).hint(hint)
}

/// Makes `dir` for its owner only, unless it is there; then it must be ours.
pub(crate) fn own_dir(dir: &Path, mode: u32) -> Result<(), ServeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|e| failed("make directory", dir, e))?;
    let owner = fs::metadata(dir).map_err(|e| failed("look at", dir, e))?.uid();
    let me = rustix::process::geteuid().as_raw();
    if owner == me || me == 0 {
        return Ok(());
    }
    Err(ServeError::new(Kind::Places, format!("`{}` belongs to another user (uid {owner})", dir.display()))
        .hint("name a directory of your own"))
}

/// Refuses a directory of another user but root: that user could put another socket in our socket's place.
fn not_anothers(dir: &Path) -> Result<(), ServeError> {
    let owner = fs::metadata(dir).map_err(|e| failed("look at", dir, e))?.uid();
    let me = rustix::process::geteuid().as_raw();
    if owner == me || owner == 0 || me == 0 {
        return Ok(());
    }
    Err(ServeError::new(Kind::Places, format!("`{}` belongs to another user (uid {owner})", dir.display()))
        .hint("name a socket in a directory of your own with --socket"))
}

/// Where running guests keep their sockets: where they were before, else next to the socket.
pub(crate) fn runtime(data: &Path, socket: &Path) -> Result<PathBuf, ServeError> {
    let link = data.join(RUNTIME_LINK);
    if let Ok(before) = fs::read_link(&link)
        && before.is_dir()
    {
        own_dir(&before, 0o700)?;
        return Ok(before);
    }
    let stem = socket.file_stem().map_or_else(|| "slipway".into(), |s| s.to_string_lossy().into_owned());
    let dir = socket.with_file_name(format!("{stem}.guests"));
    own_dir(&dir, 0o700)?;
    match fs::remove_file(&link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace link", &link, e)),
        _ => {}
    }
    std::os::unix::fs::symlink(&dir, &link).map_err(|e| failed("make link", &link, e))?;
    Ok(dir)
}

/// Listens at `socket`: a stale one is replaced, one that somebody answers at is not.
pub(crate) fn listen(socket: &Path, peers: &Peers) -> Result<UnixListener, ServeError> {
    if socket.as_os_str().len() > MAX_SOCKET {
        return Err(ServeError::new(
            Kind::Places,
            format!(
                "`{}` is longer than the {MAX_SOCKET} bytes that a socket's path may have",
                socket.display()
            ),
        )
        .hint("name a shorter one with --socket"));
    }
    if let Some(dir) = socket.parent() {
        // Root's directory lets the group through to the socket.
        let mode = if peers.gid().is_some() { 0o755 } else { 0o700 };
        if dir.exists() { not_anothers(dir)? } else { own_dir(dir, mode)? }
    }
    match fs::symlink_metadata(socket) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("look at", socket, e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::new(
                Kind::Places,
                format!("`{}` is there and no socket", socket.display()),
            )
            .hint("name another with --socket"));
        }
        Ok(_) => {
            if UnixStream::connect(socket).is_ok() {
                return Err(ServeError::new(
                    Kind::Running,
                    format!("a daemon answers at `{}` already", socket.display()),
                )
                .hint("stop that one first, or name another socket with --socket"));
            }
            fs::remove_file(socket).map_err(|e| failed("replace stale socket", socket, e))?;
        }
    }
    // Whoever connects before the mode is set is still refused by the peer check.
    let listener = UnixListener::bind(socket).map_err(|e| failed("listen at", socket, e))?;
    let mode = match peers.gid() {
        None => Ok(0o600),
        Some(gid) => std::os::unix::fs::chown(socket, None, Some(gid)).map(|()| 0o660),
    };
    mode.and_then(|mode| fs::set_permissions(socket, fs::Permissions::from_mode(mode)))
        .map_err(|e| failed("set the mode of", socket, e))?;
    listener.set_nonblocking(true).map_err(|e| failed("listen at", socket, e))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine() -> Peers {
        Peers::of_host(rustix::process::geteuid().as_raw().max(1), None)
    }

    #[test]
    fn defaults_follow_the_user_and_refuse_relative_directories() {
        let p = |s: &str| Some(PathBuf::from(s));
        assert_eq!(default_data(0, p("/x"), p("/root")), p("/var/lib/slipway"));
        assert_eq!(default_data(7, p("/x"), p("/home/a")), p("/x/slipway"));
        assert_eq!(default_data(7, p("rel"), p("/home/a")), p("/home/a/.local/share/slipway"));
        assert_eq!(default_data(7, None, None), None);
        assert_eq!(default_config(0, p("/x"), p("/root")), p("/etc/slipway/config.toml"));
        assert_eq!(default_config(7, p("/x"), p("/home/a")), p("/x/slipway/config.toml"));
        assert_eq!(default_config(7, p("rel"), p("/home/a")), p("/home/a/.config/slipway/config.toml"));
        assert_eq!(default_config(7, None, None), None);
        assert_eq!(default_socket(0, p("/x")), PathBuf::from("/run/slipway/slipway.sock"));
        assert_eq!(default_socket(7, p("/run/user/7")), PathBuf::from("/run/user/7/slipway/slipway.sock"));
        assert_eq!(default_socket(7, None), PathBuf::from("/tmp/slipway-7/slipway.sock"));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("new/s.sock");
        let first = listen(&socket, &mine()).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        let refused = listen(&socket, &mine()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Running);
        drop(first);
        let _second = listen(&socket, &mine()).unwrap();
    }

    #[test]
    fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("precious");
        fs::write(&socket, "x").unwrap();
        assert_eq!(listen(&socket, &mine()).unwrap_err().kind(), Kind::Places);
        assert_eq!(fs::read(&socket).unwrap(), b"x");
        let long = dir.path().join("x".repeat(120));
        assert!(listen(&long, &mine()).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn the_guests_directory_is_found_again_under_another_socket() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let first = runtime(&data, &dir.path().join("a.sock")).unwrap();
        assert_eq!(first, dir.path().join("a.guests"));
        assert_eq!(runtime(&data, &dir.path().join("b.sock")).unwrap(), first);
        fs::remove_dir(&first).unwrap();
        assert_eq!(runtime(&data, &dir.path().join("b.sock")).unwrap(), dir.path().join("b.guests"));
    }
}
