//! One QMP connection: requests from any thread, replies matched by id, events to every subscriber.
//!
//! A reader thread owns the receiving side. When the connection ends, for whatever reason, every waiting request
//! fails at once and every subscriber's channel closes: that is how the death of a guest is first noticed.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::codec::{self, CommandError, Event, Lines, Message};

/// Longest a request may take to be written. QEMU reads at once unless its main loop hangs.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the greeting and for leaving negotiation mode.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the control connection is closed")]
    Disconnected,
    #[error("no answer to {command} within {} s", limit.as_secs_f32())]
    TimedOut { command: String, limit: Duration },
    #[error("{command} was refused")]
    Refused { command: String, source: CommandError },
    #[error("the control socket failed")]
    Io(#[from] std::io::Error),
}

type Waiting = HashMap<u64, SyncSender<Result<Value, CommandError>>>;

#[derive(Default)]
struct Shared {
    waiting: Mutex<Option<Waiting>>,
    subscribers: Mutex<Option<Vec<Sender<Event>>>>,
}

/// A connection past its greeting.
pub(crate) struct Client {
    shared: Arc<Shared>,
    writer: Mutex<UnixStream>,
    /// The same socket, to close it while another thread is stuck writing.
    closer: UnixStream,
    next_id: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects and leaves negotiation mode. Events from then on go to the channel given.
    pub(crate) fn connect(path: &Path) -> Result<(Client, Receiver<Event>), QmpError> {
        Client::over(UnixStream::connect(path)?)
    }

    /// The same over a socket that is already connected.
    pub(crate) fn over(stream: UnixStream) -> Result<(Client, Receiver<Event>), QmpError> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let reader = stream.try_clone()?;
        let closer = stream.try_clone()?;
        let (events_in, events) = mpsc::channel();
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            subscribers: Mutex::new(Some(vec![events_in])),
        });
        let (greeted, greeting) = mpsc::sync_channel(1);
        let for_reader = Arc::clone(&shared);
        // What it says is about the guest that whoever connects is busy with.
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("qmp".into())
            .spawn(move || span.in_scope(|| read_until_end(reader, &for_reader, &greeted)))?;
        let client = Client { shared, writer: Mutex::new(stream), closer, next_id: AtomicU64::new(1) };
        match greeting.recv_timeout(HELLO_LIMIT) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(QmpError::TimedOut { command: "the greeting".into(), limit: HELLO_LIMIT });
            }
            Err(RecvTimeoutError::Disconnected) => return Err(QmpError::Disconnected),
        }
        client.execute("qmp_capabilities", Value::Null, HELLO_LIMIT)?;
        Ok((client, events))
    }

    /// One more channel that gets every event from now on; it closes with the connection.
    pub(crate) fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel();
        if let Some(all) = lock(&self.shared.subscribers).as_mut() {
            all.push(sender);
        }
        receiver
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn execute(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::sync_channel(1);
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(QmpError::Disconnected),
        };
        let line = codec::request(Some(id), command, arguments);
        tracing::trace!(target: "engine::qmp", "> {}", String::from_utf8_lossy(&line).trim_end());
        let forget = || {
            if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
                waiting.remove(&id);
            }
        };
        let written = lock(&self.writer).write_all(&line);
        if let Err(error) = written {
            forget();
            // Half a line may be out: this connection can carry nothing more.
            self.close();
            return Err(match error.kind() {
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                    QmpError::Disconnected
                }
                _ => QmpError::Io(error),
            });
        }
        match receiver.recv_timeout(limit) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(QmpError::Refused { command: command.into(), source }),
            Err(RecvTimeoutError::Timeout) => {
                forget();
                Err(QmpError::TimedOut { command: command.into(), limit })
            }
            Err(RecvTimeoutError::Disconnected) => Err(QmpError::Disconnected),
        }
    }

    /// `query-status`: the peer's own word for the state it is in.
    pub(crate) fn status(&self, limit: Duration) -> Result<String, QmpError> {
        let status = self.execute("query-status", json!({}), limit)?;
        Ok(status.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Ends the connection; the peer goes on.
    pub(crate) fn close(&self) {
        // A failure means that it is closed already.
        let _ = self.closer.shutdown(Shutdown::Both);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

fn read_until_end(mut stream: UnixStream, shared: &Shared, greeted: &SyncSender<()>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0u8; 64 * 1024];
    'connection: loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::debug!(target: "engine::qmp", %error, "connection failed");
                break;
            }
        };
        lines.feed(buffer.get(..n).unwrap_or_default());
        loop {
            let message = match lines.next().and_then(|line| line.map(|l| codec::parse(&l)).transpose()) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(target: "engine::qmp", %error, "peer does not speak QMP; closing");
                    break 'connection;
                }
            };
            tracing::trace!(target: "engine::qmp", ?message, "<");
            deliver(message, shared, greeted);
        }
    }
    // Taking the maps away drops every sender: all that wait wake up.
    drop(lock(&shared.waiting).take());
    drop(lock(&shared.subscribers).take());
    let _ = stream.shutdown(Shutdown::Both);
}

fn deliver(message: Message, shared: &Shared, greeted: &SyncSender<()>) {
    match message {
        Message::Greeting => {
            let _ = greeted.try_send(());
        }
        Message::Reply { id: Some(id), outcome } => {
            let waiter = lock(&shared.waiting).as_mut().and_then(|w| w.remove(&id));
            // A reply nobody waits for any more is one that came after its limit.
            if let Some(waiter) = waiter {
                let _ = waiter.try_send(outcome);
            }
        }
        Message::Event(event) => {
            if let Some(all) = lock(&shared.subscribers).as_mut() {
                all.retain(|s| s.send(event.clone()).is_ok());
            }
        }
        Message::Reply { id: None, .. } | Message::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread::JoinHandle;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A peer that greets, answers the negotiation and then follows `script`.
    fn peer(
        script: impl FnOnce(&mut BufReader<UnixStream>, &mut UnixStream) + Send + 'static,
    ) -> (UnixStream, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs);
            out.write_all(b"{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n").unwrap();
            let hello = request(&mut lines);
            assert_eq!(hello["execute"], "qmp_capabilities");
            writeln!(out, "{}", json!({"return": {}, "id": hello["id"]})).unwrap();
            script(&mut lines, &mut out);
        });
        (ours, thread)
    }

    fn request(lines: &mut BufReader<UnixStream>) -> Value {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn replies_find_their_request_in_any_order() {
        let (stream, thread) = peer(|lines, out| {
            let a = request(lines);
            let b = request(lines);
            out.write_all(b"{\"event\":\"SOME_NEW_THING\",\"data\":{\"k\":\"v\"}}\n{\"what\":1}\n").unwrap();
            for r in [b, a] {
                writeln!(out, "{}", json!({"return": r["execute"], "id": r["id"], "new": 1})).unwrap();
            }
        });
        let (client, events) = Client::over(stream).unwrap();
        let more = client.subscribe();
        std::thread::scope(|s| {
            for name in ["query-a", "query-b"] {
                let client = &client;
                s.spawn(move || {
                    assert_eq!(client.execute(name, Value::Null, LIMIT).unwrap(), name);
                });
            }
        });
        for events in [events, more] {
            assert_eq!(events.recv_timeout(LIMIT).unwrap().text("k"), Some("v"));
        }
        thread.join().unwrap();
    }

    #[test]
    fn refusals_carry_the_words_and_silence_times_out() {
        let (stream, thread) = peer(|lines, out| {
            let a = request(lines);
            writeln!(out, "{}", json!({"error": {"class": "Brand New", "desc": "no"}, "id": a["id"]}))
                .unwrap();
            let late = request(lines);
            let next = request(lines);
            writeln!(out, "{}", json!({"return": 1, "id": late["id"]})).unwrap();
            writeln!(out, "{}", json!({"return": 2, "id": next["id"]})).unwrap();
        });
        let (client, _events) = Client::over(stream).unwrap();
        match client.execute("x", Value::Null, LIMIT) {
            Err(QmpError::Refused { source, .. }) => assert_eq!(source.class, "Brand New"),
            other => panic!("{other:?}"),
        }
        let short = Duration::from_millis(20);
        assert!(matches!(client.execute("late", Value::Null, short), Err(QmpError::TimedOut { .. })));
        assert_eq!(client.execute("next", Value::Null, LIMIT).unwrap(), 2);
        thread.join().unwrap();
    }

    #[test]
    fn a_dead_peer_wakes_everyone() {
        let (stream, thread) = peer(|lines, _out| {
            request(lines);
        });
        let (client, events) = Client::over(stream).unwrap();
        assert!(matches!(client.execute("x", Value::Null, LIMIT), Err(QmpError::Disconnected)));
        assert!(events.recv().is_err());
        assert!(matches!(client.execute("y", Value::Null, LIMIT), Err(QmpError::Disconnected)));
        assert!(client.subscribe().recv().is_err());
        thread.join().unwrap();
    }

    #[test]
    fn a_request_that_cannot_be_written_fails_at_once_and_ends_the_connection() {
        let (stream, thread) = peer(|lines, _out| {
            let mut rest = String::new();
            assert_eq!(lines.read_line(&mut rest).unwrap(), 0, "closed by the client");
        });
        let (client, events) = Client::over(stream).unwrap();
        client.closer.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(client.execute("x", Value::Null, LIMIT), Err(QmpError::Disconnected)));
        assert!(events.recv().is_err());
        thread.join().unwrap();
    }

    #[test]
    fn garbage_ends_the_connection() {
        let (stream, thread) = peer(|lines, out| {
            request(lines);
            out.write_all(b"SSH-2.0-OpenSSH\n").unwrap();
            let mut rest = String::new();
            assert_eq!(lines.read_line(&mut rest).unwrap(), 0, "closed by the client");
        });
        let (client, _events) = Client::over(stream).unwrap();
        assert!(matches!(client.execute("x", Value::Null, LIMIT), Err(QmpError::Disconnected)));
        thread.join().unwrap();
    }
}
