//! Serial ports: a log that keeps all that was said, and a socket that is made when somebody asks for it.
//!
//! One thread waits for the clients of all ports, and there is none before the first port is asked for: two thousand
//! guests that nobody talks to cost neither threads nor descriptors. As with a real guest's port, one client is served at a
//! time and a client that does not read loses what it could not take; the log has it all.
//!
//! What a line means to the guest is `shell`'s part.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustix::event::{PollFd, PollFlags, poll};

use super::lock;
use crate::shortname;

/// Most bytes that wait for a client that does not read.
const MAX_PENDING: usize = 256 << 10;
/// Longest line that a client sends, in bytes; what is more is dropped.
const MAX_LINE: usize = 4096;
/// Bytes read at a time.
const PIECE: usize = 4096;
/// Bytes at the end of a log that are looked at for its last lines.
const TAIL: u64 = 8 << 10;
/// The log's name in the guest's directory.
pub(super) const LOG: &str = "serial0.log";
const SOCKET: &str = "serial0.sock";

/// Who gets the lines that clients send.
pub(super) type Ear = Box<dyn Fn(&str) + Send + Sync>;

/// A guest's first serial port.
pub(super) struct Port {
    dir: PathBuf,
    hub: Arc<Hub>,
    ear: Ear,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The directory that the socket is reached through, once there is one.
    sockets: Option<PathBuf>,
    listener: Option<Arc<UnixListener>>,
    client: Option<Arc<UnixStream>>,
    /// Said, and not taken by the client yet.
    pending: Vec<u8>,
    /// Heard, and no line yet.
    heard: Vec<u8>,
}

impl Port {
    /// A port whose log is in `dir`.
    pub(super) fn new(dir: &Path, hub: &Arc<Hub>, ear: Ear) -> Arc<Self> {
        let open = Mutex::new(Open::default());
        Arc::new(Self { dir: dir.to_owned(), hub: Arc::clone(hub), ear, open })
    }

    /// Where everything it said is kept.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// Begins an empty log.
    pub(super) fn begin(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::File::create(self.log()).map(drop)
    }

    /// Says a line.
    pub(super) fn say(&self, line: &str) {
        let text = format!("{line}\r\n");
        let mut open = lock(&self.open);
        // Opened for each line: a descriptor for each of thousands of guests would be too many.
        let kept = fs::OpenOptions::new().append(true).create(true).open(self.log());
        if let Err(e) = kept.and_then(|mut log| log.write_all(text.as_bytes())) {
            tracing::debug!(log = %self.log().display(), "a simulated guest was not heard: {e}");
        }
        if open.client.is_some() && open.pending.len() + text.len() <= MAX_PENDING {
            open.pending.extend(text.bytes());
            if open.flush() {
                self.hub.wake();
            }
        }
    }

    /// The last lines that it said.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let tail = || -> io::Result<Vec<u8>> {
            use std::io::{Seek, SeekFrom};
            let mut log = fs::File::open(self.log())?;
            let size = log.metadata()?.len();
            log.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            log.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|l| (*l).to_owned()).collect()
    }

    /// The socket, made now if there was none.
    pub(super) fn socket(self: &Arc<Self>) -> io::Result<PathBuf> {
        let mut open = lock(&self.open);
        if let Some(sockets) = &open.sockets {
            return Ok(sockets.join(SOCKET));
        }
        let sockets = shortname::socket_dir(&self.dir, &shortname::default_short_dir())?;
        let path = sockets.join(SOCKET);
        // One of an earlier process that nobody listens at any more.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        open.listener = Some(Arc::new(listener));
        open.sockets = Some(sockets);
        drop(open);
        self.hub.serve(self)?;
        Ok(path)
    }

    /// Hangs up.
    pub(super) fn close(&self) {
        let mut open = lock(&self.open);
        open.flush();
        let was = std::mem::take(&mut *open);
        drop(open);
        if let Some(client) = &was.client {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        if let Some(sockets) = was.sockets {
            let _ = fs::remove_file(sockets.join(SOCKET));
            shortname::forget_socket_dir(&self.dir, &sockets);
            self.hub.wake();
        }
    }

    /// Takes a client that waits.
    fn accept(&self, listener: &UnixListener) {
        let Ok((stream, _)) = listener.accept() else { return };
        if stream.set_nonblocking(true).is_ok() {
            let mut open = lock(&self.open);
            open.client = Some(Arc::new(stream));
            open.pending.clear();
            open.heard.clear();
        }
    }

    /// Hears what the client sent, and whether it is still there.
    fn listen(&self, client: &UnixStream) {
        let mut piece = [0; PIECE];
        let there = match (&mut &*client).read(&mut piece) {
            Ok(0) => false,
            Ok(length) => {
                let lines = lock(&self.open).hear(&piece[..length]);
                // Without the lock: the guest answers through it.
                lines.iter().for_each(|line| (self.ear)(line));
                true
            }
            Err(e) => matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        if !there {
            let mut open = lock(&self.open);
            (open.client, open.pending) = (None, Vec::new());
        }
    }
}

impl Open {
    /// Gives the client what it takes; whether something is left.
    fn flush(&mut self) -> bool {
        let Some(client) = self.client.clone() else { return false };
        while !self.pending.is_empty() {
            match (&mut &*client).write(&self.pending) {
                Ok(taken) => drop(self.pending.drain(..taken)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                // It is gone; whoever reads from it will notice.
                Err(_) => self.pending.clear(),
            }
        }
        false
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.heard);
                    if !line.is_empty() {
                        lines.push(String::from_utf8_lossy(&line).into_owned());
                    }
                }
                0x08 | 0x7f => drop(self.heard.pop()),
                byte if self.heard.len() < MAX_LINE => self.heard.push(*byte),
                _ => {}
            }
        }
        lines
    }
}

/// The thread that waits for all clients.
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ports: Vec<Weak<Port>>,
    /// Our end of the pair that wakes the thread.
    bell: Option<UnixStream>,
    stopped: bool,
}

impl Hub {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()) })
    }

    fn serve(self: &Arc<Self>, port: &Arc<Port>) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.ports.retain(|p| p.strong_count() > 0);
        state.ports.push(Arc::downgrade(port));
        if state.bell.is_none() {
            let (bell, ear) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            ear.set_nonblocking(true)?;
            let hub = Arc::clone(self);
            std::thread::Builder::new().name("sim-serial".into()).spawn(move || hub.wait(&ear))?;
            state.bell = Some(bell);
        }
        drop(state);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(mut bell) = lock(&self.state).bell.as_ref() {
            // A full pipe wakes too.
            let _ = bell.write(&[0]);
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.wake();
    }

    fn wait(&self, bell: &UnixStream) {
        loop {
            let ports: Vec<Arc<Port>> = {
                let state = lock(&self.state);
                if state.stopped {
                    return;
                }
                state.ports.iter().filter_map(Weak::upgrade).collect()
            };
            let ends: Vec<(Arc<Port>, End)> = ports
                .into_iter()
                .filter_map(|port| {
                    let open = lock(&port.open);
                    let end = match (&open.client, &open.listener) {
                        (Some(client), _) => End::Client(Arc::clone(client), !open.pending.is_empty()),
                        (None, Some(listener)) => End::Listener(Arc::clone(listener)),
                        (None, None) => return None,
                    };
                    drop(open);
                    Some((port, end))
                })
                .collect();
            let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
            fds.extend(ends.iter().map(|(_, end)| match end {
                End::Client(client, true) => PollFd::new(&**client, PollFlags::IN | PollFlags::OUT),
                End::Client(client, false) => PollFd::new(&**client, PollFlags::IN),
                End::Listener(listener) => PollFd::new(&**listener, PollFlags::IN),
            }));
            if let Err(e) = poll(&mut fds, None)
                && e != rustix::io::Errno::INTR
            {
                tracing::error!("the simulator's serial ports are closed: {e}");
                return;
            }
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            if !ready[0].is_empty() {
                let mut rings = [0; 64];
                while matches!((&mut &*bell).read(&mut rings), Ok(n) if n > 0) {}
            }
            for ((port, end), ready) in ends.iter().zip(&ready[1..]) {
                match end {
                    End::Listener(listener) if !ready.is_empty() => port.accept(listener),
                    End::Client(client, _) => {
                        if ready.contains(PollFlags::OUT) {
                            lock(&port.open).flush();
                        }
                        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                            port.listen(client);
                        }
                    }
                    End::Listener(_) => {}
                }
            }
        }
    }
}

enum End {
    Listener(Arc<UnixListener>),
    /// Whether something waits for it.
    Client(Arc<UnixStream>, bool),
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;

    use super::*;

    fn port(dir: &Path) -> (Arc<Hub>, Arc<Port>, mpsc::Receiver<String>) {
        let hub = Hub::new();
        let (sender, heard) = mpsc::channel();
        let port = Port::new(dir, &hub, Box::new(move |line| drop(sender.send(line.to_owned()))));
        port.begin().unwrap();
        (hub, port, heard)
    }

    #[test]
    fn what_is_said_reaches_log_and_client_and_what_is_typed_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        let (hub, port, heard) = port(&dir.path().join("d".repeat(120)));
        port.say("before anybody listens");
        let path = port.socket().unwrap();
        assert_eq!(port.socket().unwrap(), path);
        let mut first = UnixStream::connect(&path).unwrap();
        first.write_all(b"hel\x7flo\rsecond\n\r").unwrap();
        assert_eq!(heard.recv().unwrap(), "helo");
        assert_eq!(heard.recv().unwrap(), "second");
        port.say("answer");
        let mut lines = BufReader::new(first).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "answer");
        drop(lines);
        // The next client is served when the first is gone.
        let mut second = UnixStream::connect(&path).unwrap();
        second.write_all(b"again\r").unwrap();
        assert_eq!(heard.recv().unwrap(), "again");
        assert_eq!(port.last_lines(9), ["before anybody listens", "answer"]);
        port.close();
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "hung up");
        assert!(UnixStream::connect(&path).is_err());
        hub.stop();
    }

    #[test]
    fn a_client_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let (hub, port, heard) = port(dir.path());
        let mut client = UnixStream::connect(port.socket().unwrap()).unwrap();
        client.write_all(b"x\n").unwrap();
        heard.recv().unwrap();
        let line = "y".repeat(1022);
        for _ in 0..4096 {
            port.say(&line);
        }
        assert!(lock(&port.open).pending.len() <= MAX_PENDING);
        assert_eq!(fs::metadata(port.log()).unwrap().len(), 4096 * 1024);
        hub.stop();
    }

    #[test]
    fn a_line_without_end_is_held_in_bounded_memory() {
        let mut open = Open::default();
        for _ in 0..100 {
            assert!(open.hear(&[b'x'; PIECE]).is_empty());
        }
        assert_eq!(open.hear(b"\n")[0].len(), MAX_LINE);
    }
}
