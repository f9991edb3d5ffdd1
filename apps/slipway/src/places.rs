//! Where things are by default: the only reader of the environment.
//!
//! | variable         | meaning                                             |
//! |------------------|-----------------------------------------------------|
//! | `SLIPWAY_SOCKET` | the daemon's socket                                 |
//! | `SLIPWAY_DATA`   | the daemon's data directory                         |
//! | `SLIPWAY_LOG`    | what the daemon logs, as in `info,job=debug`        |
//! | `SLIPWAY_CONFIG` | the daemon's configuration file                     |
//! | `XDG_RUNTIME_DIR`, `XDG_DATA_HOME`, `XDG_CONFIG_HOME`, `HOME` | where the defaults are |
//! | `NOTIFY_SOCKET`, `JOURNAL_STREAM` | set by systemd                     |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rest::client::Client;
use service::{ConfigFile, LogTarget};

use crate::failure::{Failure, Result};

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The socket that a daemon of this user listens at unless told otherwise.
pub(crate) fn own_default_socket() -> PathBuf {
    service::default_socket(uid(), variable("XDG_RUNTIME_DIR"))
}

/// The configuration file of this user's daemon, by default.
pub(crate) fn config() -> Option<PathBuf> {
    service::default_config(uid(), variable("XDG_CONFIG_HOME"), variable("HOME"))
}

/// The socket that a configuration file names. What is wrong with the file is for `serve --check-config` to say.
fn configured_socket(file: &Path) -> Option<PathBuf> {
    ConfigFile::read(file, true).ok()?.socket().map(Path::to_owned)
}

/// The socket that a client connects to: the one named, else this user's own, else the system's if only that exists.
fn client_socket(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(named) = named {
        return absolute(&named);
    }
    let own = config().and_then(|file| configured_socket(&file)).unwrap_or_else(own_default_socket);
    let system = || configured_socket(&service::system_config()).unwrap_or_else(service::system_socket);
    Ok(if own.exists() { own } else { Some(system()).filter(|s| s.exists()).unwrap_or(own) })
}

/// A client of the daemon at `socket`. Only root talks to daemons of other users than itself and root.
pub(crate) fn client(socket: Option<PathBuf>) -> Result<Client> {
    let client = Client::new(client_socket(socket)?);
    let me = uid();
    Ok(if me == 0 { client } else { client.trusting(&[me, 0]) })
}

/// The data directory by default; none without a home.
pub(crate) fn data() -> Option<PathBuf> {
    service::default_data(uid(), variable("XDG_DATA_HOME"), variable("HOME"))
}

/// systemd's socket for notifications.
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

/// Where stderr leads. The variable alone does not tell: it is inherited by whatever the service starts, and stderr may
/// have been redirected since.
pub(crate) fn log_target() -> LogTarget {
    let journal = std::env::var("JOURNAL_STREAM").ok();
    let stderr = rustix::fs::fstat(std::io::stderr()).ok().map(|s| format!("{}:{}", s.st_dev, s.st_ino));
    if journal.is_some() && journal == stderr { LogTarget::Journal } else { LogTarget::Stderr }
}

/// `path` as the daemon must get it: its working directory is another one.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::at("find", path, &e))
}
