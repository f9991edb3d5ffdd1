//! `/v1/events`: what happens, as server-sent events.
//!
//! Each event is the latest state of one machine (`machine`) or job (`job`), never a difference, so a client that was
//! away misses steps but not the outcome. An event's id says how far the stream has come; a client that sends it back
//! as `Last-Event-ID` goes on from there, and one from another process's stream starts over with everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{App, Refusal};
use crate::wire::{Job, MachineEvent, Problem};

/// Streams at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// Events that wait for a slow client; more are not made until it has read some.
const BACKLOG: usize = 64;
/// Silence after which a comment is sent, so that a dead client is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens to machines and jobs, as it happens; first everything as it is.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "go on behind this event")),
    responses((status = 200, content_type = "text/event-stream", body = MachineEvent,
        description = "events `machine` (MachineEvent) and `job` (Job)"),
        (status = 503, body = Problem)))]
pub(crate) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let Ok(permit) = Arc::clone(&app.streams).try_acquire_owned() else {
        return Err(Refusal::busy(format!("{MAX_STREAMS} event streams are open already")));
    };
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let from = last.and_then(|id| Position::parse(id, &app.pulse.epoch)).unwrap_or_default();
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(follow(app, from, sender, permit));
    let stream = ReceiverStream::new(receiver);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    machines: u64,
    jobs: u64,
}

impl Position {
    fn print(self, epoch: &str) -> String {
        format!("{epoch}-{}-{}", self.machines, self.jobs)
    }

    fn parse(text: &str, epoch: &str) -> Option<Self> {
        let (machines, jobs) = text.strip_prefix(epoch)?.strip_prefix('-')?.split_once('-')?;
        Some(Self { machines: machines.parse().ok()?, jobs: jobs.parse().ok()? })
    }
}

/// Sends what changed until the client is gone or the server ends.
async fn follow(
    app: App,
    from: Position,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    _permit: OwnedSemaphorePermit,
) {
    let mut at = from;
    let (mut machines, mut jobs) = (app.pulse.machines.clone(), app.pulse.jobs.clone());
    loop {
        machines.mark_unchanged();
        jobs.mark_unchanged();
        for change in app.host.machine_changes(at.machines, Duration::ZERO).machines {
            at.machines = change.generation;
            let event = MachineEvent::from(change);
            if send(&sender, "machine", &at.print(&app.pulse.epoch), &event).await.is_none() {
                return;
            }
        }
        for status in app.host.jobs().changes(at.jobs, Duration::ZERO).jobs {
            at.jobs = status.generation;
            let event = Job::from(status);
            if send(&sender, "job", &at.print(&app.pulse.epoch), &event).await.is_none() {
                return;
            }
        }
        tokio::select! {
            changed = machines.changed() => if changed.is_err() { return },
            changed = jobs.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

async fn send<T: serde::Serialize>(
    sender: &mpsc::Sender<Result<Event, Infallible>>,
    name: &str,
    id: &str,
    data: &T,
) -> Option<()> {
    let event = Event::default().event(name).id(id).json_data(data).ok()?;
    sender.send(Ok(event)).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_another_process_is_none_of_ours() {
        let at = Position { machines: 3, jobs: 14 };
        assert_eq!(Position::parse(&at.print("aaaa"), "aaaa"), Some(at));
        assert_eq!(Position::parse(&at.print("aaaa"), "bbbb"), None);
        for bad in ["", "aaaa", "aaaa-", "aaaa-1", "aaaa-x-1", "aaaa-1-1-1"] {
            assert_eq!(Position::parse(bad, "aaaa"), None, "{bad}");
        }
    }
}
