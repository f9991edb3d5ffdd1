//! Telling systemd: `sd_notify`'s protocol, which is one datagram per message.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon accepts requests.
pub(crate) const READY: &str = "READY=1\nSTATUS=accepting requests";
/// The daemon is on its way out.
pub(crate) const STOPPING: &str = "STOPPING=1\nSTATUS=stopping; guests run on";

/// Sends `message` to `$NOTIFY_SOCKET`'s value. Nobody being told is no reason to fail.
pub(crate) fn notify(socket: Option<&OsStr>, message: &str) {
    let Some(socket) = socket.filter(|s| !s.is_empty()) else { return };
    if let Err(e) = send(socket, message) {
        tracing::warn!("systemd was not told `{}`: {e}", message.lines().next().unwrap_or_default());
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_gets_the_message_on_both_kinds_of_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        notify(Some(path.as_os_str()), READY);
        let name = format!("slipway-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify(Some(OsStr::new(&format!("@{name}"))), STOPPING);
        let mut buffer = [0; 256];
        let n = named.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], READY.as_bytes());
        let n = hidden.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], STOPPING.as_bytes());
        notify(None, READY);
    }
}
