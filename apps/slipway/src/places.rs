//! Where things are by default: the only reader of the environment.
//!
//! | variable         | meaning                                             |
//! |------------------|-----------------------------------------------------|
//! | `SLIPWAY_SOCKET` | the daemon's socket                                 |
//! | `SLIPWAY_DATA`   | the daemon's data directory                         |
//! | `SLIPWAY_LOG`    | what the daemon logs, as in `info,job=debug`        |
//! | `XDG_RUNTIME_DIR`, `XDG_DATA_HOME`, `HOME` | where the defaults are    |
//! | `NOTIFY_SOCKET`, `JOURNAL_STREAM` | set by systemd                     |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rest::client::Client;

use crate::failure::{Failure, Result};

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The socket that a daemon of this user listens at.
pub(crate) fn own_socket() -> PathBuf {
    service::default_socket(uid(), variable("XDG_RUNTIME_DIR"))
}

/// The socket that a client connects to: the one named, else this user's own, else the system's if only that exists.
fn client_socket(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(named) = named {
        return absolute(&named);
    }
    let own = own_socket();
    let system = service::system_socket();
    Ok(if !own.exists() && system.exists() { system } else { own })
}

/// A client of the daemon at `socket`. Only root talks to daemons of other users than itself and root.
pub(crate) fn client(socket: Option<PathBuf>) -> Result<Client> {
    let client = Client::new(client_socket(socket)?);
    let me = uid();
    Ok(if me == 0 { client } else { client.trusting(&[me, 0]) })
}

/// The data directory by default.
pub(crate) fn data() -> Result<PathBuf> {
    service::default_data(uid(), variable("XDG_DATA_HOME"), variable("HOME")).ok_or_else(|| {
        Failure::new("invalid-argument", "there is no home directory to keep data in")
            .hint("name one with --data")
    })
}

/// systemd's socket for notifications.
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

/// Whether stderr goes to the journal, which adds times itself.
pub(crate) fn journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// `path` as the daemon must get it: its working directory is another one.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::at("find", path, &e))
}
