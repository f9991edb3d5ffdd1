//! The guest agent: JSON lines over a virtio serial port, with a guest at the other end that may be absent, slow or
//! hostile.
//!
//! Each call connects, synchronises (an old answer may still be in the channel), asks and hangs up, all within one
//! limit. Every size is bounded and nothing the guest says is acted upon.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{GuestError, GuestErrorKind};
use crate::guest::{AgentInterface, AgentOs};
use crate::qmp::codec::{self, Lines, Message};

/// What separates old answers from ours (`guest-sync-delimited`); no JSON text in UTF-8 holds this byte.
const SENTINEL: u8 = 0xff;
/// Most interfaces, and addresses of one, that are taken from a guest.
const MAX_LISTED: usize = 256;
/// Longest text taken from a guest, in characters.
const MAX_TEXT: usize = 256;
/// Longest answer taken from a guest, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

fn silent(limit: Duration) -> GuestError {
    GuestError::new(
        GuestErrorKind::NoAgent,
        format!("the guest agent did not answer within {} s", limit.as_secs_f32()),
    )
    .with_hint("install and start qemu-guest-agent inside the guest")
}

/// A synchronised conversation.
struct Session {
    stream: UnixStream,
    lines: Lines,
    received: usize,
    deadline: Instant,
    limit: Duration,
}

impl Session {
    fn open(socket: &Path, limit: Duration) -> Result<Session, GuestError> {
        let stream = UnixStream::connect(socket).map_err(|e| {
            GuestError::new(GuestErrorKind::NoAgent, "the agent's channel is closed").with_source(e)
        })?;
        Session::over(stream, limit)
    }

    fn over(stream: UnixStream, limit: Duration) -> Result<Session, GuestError> {
        let deadline = Instant::now() + limit;
        let mut session = Session { stream, lines: Lines::default(), received: 0, deadline, limit };
        let id = u64::from(uuid::Uuid::new_v4().as_fields().0);
        // The leading byte makes the guest's parser forget a request that a predecessor left half sent.
        let mut hello = vec![SENTINEL];
        hello.extend(codec::request(None, "guest-sync-delimited", json!({"id": id})));
        session.send(&hello)?;
        let mut synced = false;
        loop {
            // Only what comes after the last sentinel can be the answer to our own id.
            synced |= session.lines.drop_through(SENTINEL);
            if synced && let Some(line) = session.line()? {
                if let Ok(Message::Reply { outcome: Ok(value), .. }) = codec::parse(&line)
                    && value.as_u64() == Some(id)
                {
                    return Ok(session);
                }
                synced = false;
            }
            session.receive()?;
        }
    }

    fn call(&mut self, command: &str, arguments: Value) -> Result<Value, GuestError> {
        self.send(&codec::request(None, command, arguments))?;
        loop {
            while let Some(line) = self.line()? {
                match codec::parse(&line) {
                    Ok(Message::Reply { outcome: Ok(value), .. }) => return Ok(value),
                    Ok(Message::Reply { outcome: Err(error), .. }) => {
                        return Err(GuestError::new(
                            GuestErrorKind::Refused,
                            format!("the guest agent refused {command}"),
                        )
                        .with_source(error));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        return Err(GuestError::new(
                            GuestErrorKind::NoAgent,
                            "what answers in the guest is no agent",
                        )
                        .with_source(error));
                    }
                }
            }
            self.receive()?;
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, GuestError> {
        self.lines.next().map_err(|e| {
            GuestError::new(GuestErrorKind::NoAgent, "what answers in the guest is no agent").with_source(e)
        })
    }

    fn left(&self) -> Result<Duration, GuestError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(silent(self.limit)) } else { Ok(left) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        let left = self.left()?;
        (self.stream.set_write_timeout(Some(left)))
            .and_then(|()| self.stream.write_all(bytes))
            .map_err(|e| self.broken(e))
    }

    fn receive(&mut self) -> Result<(), GuestError> {
        let left = self.left()?;
        let mut buffer = [0u8; 16 * 1024];
        let n = (self.stream.set_read_timeout(Some(left)))
            .and_then(|()| self.stream.read(&mut buffer))
            .map_err(|e| self.broken(e))?;
        self.received += n;
        if n == 0 || self.received > MAX_ANSWER {
            return Err(GuestError::new(GuestErrorKind::NoAgent, "the agent's channel closed"));
        }
        self.lines.feed(buffer.get(..n).unwrap_or_default());
        Ok(())
    }

    fn broken(&self, error: io::Error) -> GuestError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(self.limit),
            _ => GuestError::new(GuestErrorKind::NoAgent, "the agent's channel failed").with_source(error),
        }
    }
}

/// One question and its answer.
pub(super) fn call(
    socket: &Path,
    command: &str,
    arguments: Value,
    limit: Duration,
) -> Result<Value, GuestError> {
    Session::open(socket, limit)?.call(command, arguments)
}

/// Orders a shutdown. The agent answers only when it cannot, so silence after the order means that it was taken.
pub(super) fn shutdown(socket: &Path, limit: Duration) -> Result<(), GuestError> {
    order(socket, "powerdown", limit)
}

/// Orders a reboot, in the same way.
pub(super) fn reboot(socket: &Path, limit: Duration) -> Result<(), GuestError> {
    order(socket, "reboot", limit)
}

fn order(socket: &Path, mode: &str, limit: Duration) -> Result<(), GuestError> {
    let mut session = Session::open(socket, limit)?;
    match session.call("guest-shutdown", json!({"mode": mode})) {
        Err(error) if error.kind() == GuestErrorKind::Refused => Err(error),
        _ => Ok(()),
    }
}

/// Reads the answer to `guest-network-get-interfaces`.
pub(super) fn interfaces(answer: &Value) -> Vec<AgentInterface> {
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    list(Some(answer))
        .into_iter()
        .take(MAX_LISTED)
        .filter_map(|one| {
            let addresses = list(one.get("ip-addresses")).into_iter().take(MAX_LISTED).filter_map(|a| {
                let address: IpAddr = a.get("ip-address")?.as_str()?.parse().ok()?;
                let prefix = u8::try_from(a.get("prefix")?.as_u64()?).ok()?;
                Some((address, prefix))
            });
            Some(AgentInterface {
                name: short(one.get("name")?)?,
                mac: one.get("hardware-address").and_then(Value::as_str).and_then(|m| m.parse().ok()),
                addresses: addresses.collect(),
            })
        })
        .collect()
}

/// Reads the answer to `guest-get-osinfo`.
pub(super) fn os(answer: &Value) -> AgentOs {
    let member = |name: &str| answer.get(name).and_then(short);
    AgentOs {
        id: member("id"),
        pretty_name: member("pretty-name"),
        version: member("version"),
        kernel: member("kernel-release"),
    }
}

/// Reads the answer to `guest-get-host-name`.
pub(super) fn host_name(answer: &Value) -> Result<String, GuestError> {
    let name = answer.get("host-name").and_then(short).filter(|name| !name.is_empty());
    name.ok_or_else(|| GuestError::new(GuestErrorKind::NoAgent, "the guest agent knows no name"))
}

/// A guest's text as text: bounded, no control characters.
fn short(value: &Value) -> Option<String> {
    Some(value.as_str()?.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn guest(answer: impl FnOnce(Value, &mut UnixStream) + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            // Left over from an earlier client.
            out.write_all(b"{\"return\": 1}\n{\"retu").unwrap();
            let mut lines = BufReader::new(theirs);
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line).unwrap();
            assert_eq!(line[0], SENTINEL);
            let sync: Value = serde_json::from_slice(&line[1..]).unwrap();
            let id = &sync["arguments"]["id"];
            out.write_all(&[SENTINEL]).unwrap();
            writeln!(out, "{}", json!({"return": id})).unwrap();
            line.clear();
            lines.read_until(b'\n', &mut line).unwrap();
            answer(serde_json::from_slice(&line).unwrap(), &mut out);
        });
        ours
    }

    #[test]
    fn stale_answers_are_skipped() {
        let stream = guest(|request, out| {
            assert_eq!(request["execute"], "guest-ping");
            out.write_all(b"{\"return\": {}}\n").unwrap();
        });
        let mut session = Session::over(stream, LIMIT).unwrap();
        assert_eq!(session.call("guest-ping", Value::Null).unwrap(), json!({}));
    }

    #[test]
    fn refusals_and_silence_are_told_apart() {
        let stream = guest(|_, out| {
            out.write_all(b"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"disabled\"}}\n")
                .unwrap();
        });
        let error = Session::over(stream, LIMIT).unwrap().call("guest-shutdown", Value::Null).unwrap_err();
        assert_eq!(error.kind(), GuestErrorKind::Refused);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Session::over(ours, Duration::from_millis(30)).err().unwrap();
        assert_eq!(error.kind(), GuestErrorKind::NoAgent);
    }

    #[test]
    fn a_guest_that_floods_is_cut_off() {
        let stream = guest(|_, out| while out.write_all(&[b'x'; 4096]).is_ok() {});
        let error = Session::over(stream, LIMIT).unwrap().call("guest-ping", Value::Null).unwrap_err();
        assert_eq!(error.kind(), GuestErrorKind::NoAgent);
    }

    #[test]
    fn what_a_guest_says_of_itself_is_bounded() {
        let answer = json!([
            {"name": "eth0\u{1b}[2J", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [
                {"ip-address": "10.0.2.15", "prefix": 24, "ip-address-type": "ipv4"},
                {"ip-address": "not an address", "prefix": 24},
                {"ip-address": "fe80::1", "prefix": 64}]},
            {"no": "name"}, 5
        ]);
        let all = interfaces(&answer);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name, "eth0[2J");
        assert_eq!(all[0].addresses.len(), 2);
        assert_eq!(os(&json!({"id": "debian", "pretty-name": 5})).id.as_deref(), Some("debian"));
    }
}
