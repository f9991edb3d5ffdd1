//! Events as entries of systemd's journal, in its native protocol: one datagram of `FIELD=value` lines per entry.
//!
//! `journalctl SLIPWAY_MACHINE=<id>` and `SLIPWAY_JOB=<id>` find what concerns one machine or job. `MESSAGE` is what a
//! person reads, with the fields behind it as the plain log has them. Written here because fields are shown under other
//! names than they are emitted with ([`shown`]), which the ready-made layer cannot do, and because it is this short.
//!
//! The protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::fmt::{Debug, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::log::shown;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Most bytes of one field that are sent: a datagram has an end, and nobody reads on.
const MAX_FIELD: usize = 16 << 10;

/// Sends every event to the journal.
pub(crate) struct Journal {
    socket: UnixDatagram,
}

/// Fields by the name they are shown under, in order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.push((shown(field.name()), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl Journal {
    pub(crate) fn connect() -> io::Result<Self> {
        Self::connect_to(Path::new(SOCKET))
    }

    fn connect_to(socket: &Path) -> io::Result<Self> {
        let journal = UnixDatagram::unbound()?;
        journal.connect(socket)?;
        // A journal that does not keep up loses lines; it never holds up a job.
        journal.set_nonblocking(true)?;
        Ok(Self { socket: journal })
    }

    fn entry(event: &Event<'_>, spans: Vec<(&'static str, String)>) -> Vec<u8> {
        let mut fields = Fields { message: String::new(), others: spans };
        event.record(&mut fields);
        let mut message = fields.message;
        for (n, (name, value)) in fields.others.iter().enumerate() {
            // The event may say again what its span said.
            if fields.others[..n].iter().all(|earlier| earlier.0 != *name || earlier.1 != *value) {
                let _ = write!(message, " {name}={value}");
            }
        }
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let mut entry = Vec::with_capacity(256 + message.len());
        put(&mut entry, "PRIORITY", priority);
        put(&mut entry, "SYSLOG_IDENTIFIER", "slipway");
        put(&mut entry, "MESSAGE", &message);
        put(&mut entry, "SLIPWAY_PART", event.metadata().target());
        for (name, value) in &fields.others {
            put(&mut entry, &format!("SLIPWAY_{}", name.to_ascii_uppercase().replace('.', "_")), value);
        }
        entry
    }
}

/// Adds a field: `NAME=value`, or with a length in front where the value has lines.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(MAX_FIELD)];
    entry.extend(name.bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.bytes());
    entry.push(b'\n');
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut spans = Vec::new();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                spans.extend(fields.others.iter().cloned());
            }
        }
        // Nobody is left to tell that this could not be told.
        let _ = self.socket.send(&Self::entry(event, spans));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tracing_subscriber::prelude::*;

    /// Reads one entry as the protocol says.
    fn parse(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| matches!(b, b'=' | b'\n')).unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            let (start, length) = if bytes[end] == b'=' {
                (end + 1, bytes[end + 1..].iter().position(|b| *b == b'\n').unwrap())
            } else {
                (end + 9, u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize)
            };
            let value = String::from_utf8(bytes[start..start + length].to_vec()).unwrap();
            assert_eq!(bytes[start + length], b'\n');
            fields.insert(name, value);
            bytes = &bytes[start + length + 1..];
        }
        fields
    }

    #[test]
    fn an_entry_has_the_ids_of_its_span_and_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect_to(&path).unwrap();
        let next = || {
            let mut buffer = vec![0; 64 << 10];
            let n = listener.recv(&mut buffer).unwrap();
            parse(&buffer[..n])
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let span =
                tracing::info_span!("job", job = %"j-1", subject = "m-1", late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", 7);
            tracing::warn!(machine = %"m-1", error = "io", "failed:\nno room");
            let entry = next();
            assert_eq!(entry["PRIORITY"], "4");
            assert_eq!(entry["SLIPWAY_JOB"], "j-1");
            assert_eq!(entry["SLIPWAY_MACHINE"], "m-1");
            assert_eq!(entry["SLIPWAY_ERROR"], "io");
            assert_eq!(entry["SLIPWAY_LATE"], "7");
            assert_eq!(entry["MESSAGE"], "failed:\nno room job=j-1 machine=m-1 late=7 error=io");
            tracing::info!("{}", "x".repeat(1 << 20));
            assert!(next()["MESSAGE"].len() <= MAX_FIELD, "cut, not lost");
        });
    }
}
