//! Private switches: guests of one host that see each other and nothing else, without privilege.
//!
//! A switch is a directory. In it one small process forwards every frame to every other port: a QEMU without a
//! machine, whose `hub` does just that. It runs in a session of its own like a guest, so that traffic goes on while the
//! daemon does not, and ends with its last port.
//!
//! ```text
//!   guest A ── nic0.sock ──┐
//!                          ├── hub (switch.sock: QMP, switch.log)      port-GUEST-NIC   who holds a port
//!   guest B ── nic0.sock ──┘                                           switch.lock      one change at a time
//! ```
//!
//! Multicast on the loopback interface would need no process, but any user of the host could join it and guests would
//! hear their own frames (which breaks IPv6's duplicate address detection). Unix sockets in a directory of mode 0700
//! are as private as the guest itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{self, SANDBOX};
use super::process::{self, Process};
use super::runtime::{self, ProcessName};
use super::scope::Scopes;
use super::{QemuConfig, launch};
use crate::error::{StartError, StartErrorKind};
use crate::qmp::{Client, QmpError};
use crate::shortname;
use crate::spec::{GuestSpec, NicBackend};

const SOCKET: &str = "switch.sock";
const LOCK: &str = "switch.lock";
const LOG: &str = "switch.log";
const PORT: &str = "port-";
const LIMIT: Duration = Duration::from_secs(10);

fn failed(dir: &Path, message: &str) -> StartError {
    StartError::new(StartErrorKind::NoNetwork, format!("private switch {}: {message}", dir.display()))
}

/// The adapters of a guest that are on private switches: place in the list, and the switch.
fn ports(spec: &GuestSpec) -> impl Iterator<Item = (usize, &Path)> {
    spec.nics.iter().enumerate().filter_map(|(i, nic)| match &nic.backend {
        NicBackend::Private { socket_dir } => Some((i, socket_dir.as_path())),
        NicBackend::None | NicBackend::User | NicBackend::Bridge { .. } => None,
    })
}

fn port_name(spec: &GuestSpec, nic: usize) -> String {
    format!("{PORT}{}-{nic}", spec.id.simple())
}

/// Plugs a guest's adapters into their switches; those that are in stay as they are.
pub(super) fn join(
    spec: &GuestSpec,
    guest: &Process,
    sockets: &Path,
    config: &QemuConfig,
    qemu: &Path,
    scopes: &Scopes,
) -> Result<(), StartError> {
    for (nic, dir) in ports(spec) {
        let io_failed = |what: &str, e: io::Error| failed(dir, what).with_source(e);
        runtime::private_dir(dir).map_err(|e| io_failed("cannot be made", e))?;
        let _lock = runtime::lock(&dir.join(LOCK)).map_err(|e| io_failed("cannot be locked", e))?;
        let hub = hub(dir, config, qemu, scopes)?;
        sweep(dir, &hub);
        let name = port_name(spec, nic);
        let holder = ProcessName { pid: guest.pid(), start_time: guest.start_time() };
        if held_by(&dir.join(&name)) == Some(holder) && has(&hub, &name) {
            continue;
        }
        unplug(&hub, &name);
        let text = serde_json::to_vec(&holder).map_err(|e| io_failed("cannot be written to", e.into()))?;
        runtime::replace(&dir.join(&name), &text).map_err(|e| io_failed("cannot be written to", e))?;
        let path = sockets.join(args::nic_socket(nic));
        let stream = json!({
            "type": "stream", "id": name, "server": false,
            "addr": {"type": "unix", "path": path.to_string_lossy()},
        });
        let hubport = json!({"type": "hubport", "id": hub_end(&name), "hubid": 0, "netdev": name});
        for netdev in [stream, hubport] {
            hub.execute("netdev_add", netdev, LIMIT)
                .map_err(|e| failed(dir, "a port cannot be added").with_source(e))?;
        }
    }
    Ok(())
}

/// Takes a guest that has ended off its switches; `None` where its process is not known any more.
/// Best effort: the next guest that joins sweeps up.
pub(super) fn leave(spec: &GuestSpec, guest: Option<&Process>, short_dir: &Path) {
    for (nic, dir) in ports(spec) {
        let Ok(_lock) = runtime::lock(&dir.join(LOCK)) else { continue };
        let Ok(sockets) = runtime::socket_dir(dir, short_dir) else { continue };
        let Ok((hub, _events)) = Client::connect(&sockets.join(SOCKET)) else { continue };
        let name = port_name(spec, nic);
        let mine = guest.map(|g| ProcessName { pid: g.pid(), start_time: g.start_time() });
        if mine.is_some() && held_by(&dir.join(&name)) == mine {
            let _ = fs::remove_file(dir.join(&name));
            unplug(&hub, &name);
        }
        sweep(dir, &hub);
        if port_files(dir).is_empty() {
            let _ = hub.execute("quit", Value::Null, LIMIT);
            let _ = fs::remove_file(dir.join(SOCKET));
            runtime::forget_socket_dir(dir, &sockets);
        }
    }
}

fn hub_end(port: &str) -> String {
    format!("hub-{port}")
}

fn port_files(dir: &Path) -> Vec<PathBuf> {
    (fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|e| e.file_name().to_string_lossy().starts_with(PORT))
        .map(|e| e.path())
        .collect()
}

fn held_by(file: &Path) -> Option<ProcessName> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Unplugs ports whose guests are gone without anyone to say so.
fn sweep(dir: &Path, hub: &Client) {
    for file in port_files(dir) {
        let alive = held_by(&file)
            .is_some_and(|name| matches!(Process::open_exact(name.pid, name.start_time), Ok(Some(_))));
        if !alive && let Some(name) = file.file_name().and_then(|n| n.to_str()) {
            unplug(hub, name);
            let _ = fs::remove_file(&file);
        }
    }
}

fn unplug(hub: &Client, port: &str) {
    for id in [port.to_owned(), hub_end(port)] {
        // Mostly not there, which is what is wanted.
        let _ = hub.execute("netdev_del", json!({"id": id}), LIMIT);
    }
}

/// Whether the hub has a port. There is no query for network ends but the one for people.
fn has(hub: &Client, port: &str) -> bool {
    let asked = hub.execute("human-monitor-command", json!({"command-line": "info network"}), LIMIT);
    asked.is_ok_and(|text| text.as_str().is_some_and(|t| t.contains(&format!("{port}:"))))
}

/// The scope of a hub: by its directory, which no other daemon has.
fn scope(dir: &Path) -> String {
    format!("slipway-switch-{:016x}.scope", shortname::fnv1a(dir.as_os_str().as_encoded_bytes()))
}

/// The switch's hub, started if need be. The caller holds the lock.
fn hub(dir: &Path, config: &QemuConfig, qemu: &Path, scopes: &Scopes) -> Result<Client, StartError> {
    let sockets = runtime::socket_dir(dir, &config.short_dir)
        .map_err(|e| failed(dir, "has no short name for its socket").with_source(e))?;
    let socket = sockets.join(SOCKET);
    if let Ok((client, _events)) = Client::connect(&socket) {
        return Ok(client);
    }
    // Whoever listened there is gone, and all ports with it; running guests rejoin when they are attached.
    let _ = fs::remove_file(&socket);
    let log_path = dir.join(LOG);
    let log = File::create(&log_path).map_err(|e| failed(dir, "cannot be written to").with_source(e))?;
    let mut command: Command = launch::detached(qemu)?;
    command.args(["-name", "slipway-switch,debug-threads=on", "-nodefaults", "-no-user-config"]);
    command.args(["-machine", "none", "-display", "none"]);
    if config.sandbox {
        command.args(["-sandbox", SANDBOX]);
    }
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", args::comma(&socket.to_string_lossy()))]);
    let out = log.try_clone().map_err(|e| failed(dir, "its log cannot be shared").with_source(e))?;
    command.stdin(Stdio::null()).stdout(out).stderr(log);
    let started = |e: io::Error| failed(dir, "its hub could not be started").with_source(e);
    let child = process::spawn(&mut command, &[]).map_err(started)?;
    let process = Process::open(child.id()).map_err(started)?;
    process::reap(child).map_err(started)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match Client::connect(&socket) {
            Ok((client, _events)) => {
                if let Some(process) = &process {
                    scopes.enclose(
                        &scope(dir),
                        &format!("Slipway private switch {}", dir.display()),
                        &[process],
                    );
                }
                return Ok(client);
            }
            Err(QmpError::Io(_) | QmpError::Disconnected)
                if Instant::now() < deadline
                    && process.as_ref().is_some_and(|p| !p.ended(Duration::from_millis(5))) => {}
            Err(error) => {
                let words = process::last_lines(&log_path, 3);
                return Err(failed(dir, &format!("its hub did not start: {words}")).with_source(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Child;

    use uuid::Uuid;

    use super::*;
    use crate::spec::{Chipset, Mac, NicModel, NicSpec};

    const SOON: Duration = Duration::from_secs(10);

    /// A process that holds a port, and the socket its QEMU would listen on.
    struct Guest {
        spec: GuestSpec,
        child: Child,
        process: Process,
        listener: UnixListener,
    }

    impl Guest {
        fn new(tmp: &Path, name: &str, switch: &Path) -> Guest {
            let dir = tmp.join(name);
            runtime::private_dir(&dir).unwrap();
            let mut spec = GuestSpec::new(Uuid::new_v4(), name, &dir, Chipset::Pc);
            spec.nics.push(NicSpec {
                id: "n".into(),
                model: NicModel::E1000,
                mac: Mac([0, 0x15, 0x5d, 0, 0, 1]),
                backend: NicBackend::Private { socket_dir: switch.into() },
                boot_index: None,
            });
            let child = process::spawn(Command::new("sleep").arg("60"), &[]).unwrap();
            let process = Process::open(child.id()).unwrap().unwrap();
            let listener = UnixListener::bind(dir.join(args::nic_socket(0))).unwrap();
            Guest { spec, child, process, listener }
        }

        fn join(&self, config: &QemuConfig, qemu: &Path) -> UnixStream {
            join(&self.spec, &self.process, &self.spec.runtime_dir, config, qemu, &Scopes::none()).unwrap();
            let (stream, _) = self.listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream
        }
    }

    impl Drop for Guest {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn frame(last: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 60];
        bytes.extend([0xff; 6]);
        bytes.extend([0, 0x15, 0x5d, 0, 0, last]);
        bytes.extend([last; 48]);
        bytes
    }

    fn receives(stream: &mut UnixStream, sent: &[u8]) {
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, sent);
    }

    #[test]
    fn guests_of_a_switch_hear_each_other_and_nobody_else_and_the_hub_ends_with_the_last() {
        let Some(qemu) = process::find_program("qemu-system-x86_64") else {
            println!("skipped: no qemu-system-x86_64");
            return;
        };
        let tmp = tempfile::tempdir().unwrap();
        let config = QemuConfig { short_dir: tmp.path().join("s"), ..QemuConfig::default() };
        let (one, two) = (tmp.path().join("one"), tmp.path().join("two"));
        let [a, b, c] = ["a", "b", "c"].map(|name| Guest::new(tmp.path(), name, &one));
        let stranger = Guest::new(tmp.path(), "stranger", &two);
        let mut streams = [&a, &b, &c].map(|g| g.join(&config, &qemu));
        let mut outside = stranger.join(&config, &qemu);

        streams[0].write_all(&frame(1)).unwrap();
        receives(&mut streams[1], &frame(1));
        receives(&mut streams[2], &frame(1));
        // Nobody hears himself: the first that A gets is what B sends.
        streams[1].write_all(&frame(2)).unwrap();
        receives(&mut streams[0], &frame(2));
        receives(&mut streams[2], &frame(2));
        outside.set_nonblocking(true).unwrap();
        assert_eq!(outside.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        // Joining again changes nothing; a guest that died without a word is swept out by the next change.
        join(&a.spec, &a.process, &a.spec.runtime_dir, &config, &qemu, &Scopes::none()).unwrap();
        drop(c);
        let hub = launch::listener(&one.join(SOCKET)).unwrap();
        leave(&b.spec, Some(&b.process), &config.short_dir);
        assert_eq!(port_files(&one).len(), 1);
        assert_eq!(streams[1].read(&mut [0; 1]).unwrap(), 0, "unplugged");
        // A stale handle of a guest that was started again does not unplug the new one.
        leave(&a.spec, Some(&b.process), &config.short_dir);
        assert_eq!(port_files(&one).len(), 1);
        leave(&a.spec, Some(&a.process), &config.short_dir);
        assert!(hub.ended(SOON));

        // A guest of which only the record is left.
        let hub = launch::listener(&two.join(SOCKET)).unwrap();
        let spec = stranger.spec.clone();
        drop(stranger);
        leave(&spec, None, &config.short_dir);
        assert!(hub.ended(SOON));
    }
}
