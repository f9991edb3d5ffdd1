//! Bytes to messages and back, without a socket.
//!
//! Tolerant where the protocol grows (unknown members, unknown kinds of message), strict where a peer could hurt us
//! (a line longer than [`MAX_LINE`], text that is no JSON).

use serde_json::{Map, Value};

/// Longest line taken, in bytes. The longest honest one is the reply to `query-qmp-schema`, about 300 KiB.
pub(crate) const MAX_LINE: usize = 8 * 1024 * 1024;

/// What a peer said in one line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// The first line of a QMP server.
    Greeting,
    /// An answer.
    Reply {
        /// The request's id, when the peer gave one back that is ours.
        id: Option<u64>,
        /// What came of it.
        outcome: Result<Value, CommandError>,
    },
    /// Something happened.
    Event(Event),
    /// A line that is JSON but nothing we know; to be skipped.
    Unknown,
}

/// An asynchronous message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// `SHUTDOWN`, `STOP`, ...
    pub(crate) name: String,
    /// Its data, `Null` when it has none.
    pub(crate) data: Value,
}

impl Event {
    /// A string member of the data.
    pub(crate) fn text(&self, member: &str) -> Option<&str> {
        self.data.get(member).and_then(Value::as_str)
    }
}

/// A peer's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub(crate) struct CommandError {
    /// `GenericError`, `CommandNotFound`, `DeviceNotActive`, ...
    pub(crate) class: String,
    /// In the peer's words.
    pub(crate) description: String,
}

/// Bytes that are no message. The connection is of no use after that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("a line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("a line is no JSON object")]
    NotAnObject,
    #[error("a line is no JSON")]
    NotJson(#[source] serde_json::Error),
}

/// Splits what arrives into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    // Where to look for the next line feed, so that a long line is not searched again and again.
    searched: usize,
}

impl Lines {
    /// Takes bytes as they come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Throws away everything up to and including the last `byte`, if it is there. Whether it was.
    pub(crate) fn drop_through(&mut self, byte: u8) -> bool {
        let Some(at) = self.buffer.iter().rposition(|b| *b == byte) else { return false };
        self.buffer.drain(..=at);
        self.searched = 0;
        true
    }

    /// The next whole line without its end; empty ones are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, CodecError> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(found) = unsearched.iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return if self.buffer.len() > MAX_LINE { Err(CodecError::LineTooLong) } else { Ok(None) };
            };
            let end = self.searched + found;
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.searched = 0;
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() > MAX_LINE {
                return Err(CodecError::LineTooLong);
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Result<Message, CodecError> {
    let value: Value = serde_json::from_slice(line).map_err(CodecError::NotJson)?;
    let Value::Object(mut object) = value else { return Err(CodecError::NotAnObject) };
    if object.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    let id = object.get("id").and_then(Value::as_u64);
    if let Some(result) = object.remove("return") {
        return Ok(Message::Reply { id, outcome: Ok(result) });
    }
    if let Some(error) = object.remove("error") {
        let member = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
        let error = CommandError {
            class: member("class").unwrap_or_else(|| "GenericError".into()),
            description: member("desc").unwrap_or_else(|| "refused without a reason".into()),
        };
        return Ok(Message::Reply { id, outcome: Err(error) });
    }
    if let Some(Value::String(name)) = object.remove("event") {
        return Ok(Message::Event(Event { name, data: object.remove("data").unwrap_or(Value::Null) }));
    }
    Ok(Message::Unknown)
}

/// A request as a line; `Null` arguments are left out.
pub(crate) fn request(id: Option<u64>, command: &str, arguments: Value) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("execute".into(), command.into());
    if !arguments.is_null() {
        object.insert("arguments".into(), arguments);
    }
    if let Some(id) = id {
        object.insert("id".into(), id.into());
    }
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_a_newer_peer_are_taken() {
        assert_eq!(
            parse(br#"{"QMP":{"version":{"qemu":{"major":99}},"capabilities":["oob","x"]}}"#).unwrap(),
            Message::Greeting
        );
        let event = parse(br#"{"event":"NEVER_HEARD_OF","data":{"a":[1]},"timestamp":{},"more":1}"#).unwrap();
        assert_eq!(event, Message::Event(Event { name: "NEVER_HEARD_OF".into(), data: json!({"a":[1]}) }));
        assert_eq!(
            parse(br#"{"return":{},"id":7,"x":0}"#).unwrap(),
            Message::Reply { id: Some(7), outcome: Ok(json!({})) }
        );
        let Message::Reply { id: None, outcome: Err(error) } = parse(br#"{"error":{}}"#).unwrap() else {
            panic!("an error reply")
        };
        assert_eq!(error.class, "GenericError");
        assert_eq!(parse(br#"{"hello":1}"#).unwrap(), Message::Unknown);
        assert!(parse(b"[]").is_err());
        assert!(parse(b"nonsense").is_err());
    }

    #[test]
    fn requests_are_one_line() {
        let line = request(Some(3), "screendump", json!({"filename": "a\nb"}));
        assert_eq!(line, b"{\"execute\":\"screendump\",\"arguments\":{\"filename\":\"a\\nb\"},\"id\":3}\n");
        assert_eq!(request(None, "stop", Value::Null), b"{\"execute\":\"stop\"}\n");
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..MAX_LINE / piece.len() {
            lines.feed(&piece);
            assert!(lines.next().unwrap().is_none());
        }
        lines.feed(b"x");
        assert!(matches!(lines.next(), Err(CodecError::LineTooLong)));
    }

    #[test]
    fn what_came_before_the_sentinel_is_dropped() {
        let mut lines = Lines::default();
        lines.feed(b"{\"stale\":1}\n\xff{\"return\":5}\n");
        assert!(lines.drop_through(0xff));
        assert_eq!(lines.next().unwrap().unwrap(), b"{\"return\":5}");
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_bytes_arrive(
            lines in proptest::collection::vec("[a-z{}]{1,20}", 0..10), cut in 1usize..7,
        ) {
            let bytes: Vec<u8> = lines.iter().flat_map(|l| format!("{l}\r\n").into_bytes()).collect();
            let mut splitter = Lines::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                splitter.feed(piece);
                while let Some(line) = splitter.next().unwrap() {
                    got.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(got, lines);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
