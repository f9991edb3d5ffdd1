//! Places for connections: a bounded number, and who must leave when all of them are taken.
//!
//! A connection that is being answered keeps its place. One whose client has still to say what it wants keeps it only as long
//! as nobody else needs it: the one that has been silent longest goes first. So whoever opens connections and says nothing
//! takes room from nobody but themselves. What a connection does is [`super::listen`]'s part.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::Notify;

/// All places of one kind.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// Counts events, as a clock for who was silent longest.
    now: AtomicU64,
    taken: Mutex<BTreeMap<u64, Arc<Seat>>>,
    left: Notify,
}

/// One connection as the places see it.
#[derive(Debug)]
pub(super) struct Seat {
    /// Requests that were read and whose answers have not gone out.
    answering: AtomicUsize,
    silent_since: AtomicU64,
    leave: Notify,
    places: Arc<Places>,
}

/// A place taken, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    pub(super) seat: Arc<Seat>,
}

impl Places {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            most: most as usize,
            now: AtomicU64::new(0),
            taken: Mutex::default(),
            left: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a place, if need be that of the connection that has been silent longest. `None` when all are being answered.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let number = self.tick();
        let mut taken = self.lock();
        if taken.len() >= self.most {
            let silent = taken.iter().filter(|(_, seat)| seat.answering.load(Ordering::Acquire) == 0);
            let longest = silent.min_by_key(|(_, seat)| seat.silent_since.load(Ordering::Relaxed));
            let longest = longest.map(|(number, _)| *number)?;
            if let Some(seat) = taken.remove(&longest) {
                seat.leave.notify_one();
            }
        }
        let seat = Arc::new(Seat {
            answering: AtomicUsize::new(0),
            silent_since: AtomicU64::new(number),
            leave: Notify::new(),
            places: Arc::clone(self),
        });
        taken.insert(number, Arc::clone(&seat));
        Some(Place { number, seat })
    }

    /// Returns once every place is free.
    pub(super) async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.lock().is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Seat {
    /// Returns when the place is needed by somebody else.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// From now on until the answer has gone out, or is dropped, the place is kept.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::AcqRel);
        Answering(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = &self.seat.places;
        places.lock().remove(&self.number);
        places.left.notify_waiters();
    }
}

/// A request being answered.
#[derive(Debug)]
pub(super) struct Answering(Arc<Seat>);

impl Answering {
    /// The answer, which ends this when it has been sent.
    pub(super) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Sent { body, _answering: self }))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.silent_since.store(self.0.places.tick(), Ordering::Relaxed);
        self.0.answering.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that keeps its connection's place while it is being sent.
struct Sent {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_makes_room_and_the_answered_stay() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let second = places.take().unwrap();
        let answering = first.seat.answer();
        // The second is silent, so it goes.
        let third = places.take().unwrap();
        assert_eq!(places.lock().len(), 2);
        drop(second);
        assert_eq!(places.lock().len(), 2, "who left already frees no place of another's");
        let other = third.seat.answer();
        assert!(places.take().is_none(), "both are being answered");
        // Who was answered last is silent for the shortest time.
        drop(other);
        drop(answering);
        let fourth = places.take().unwrap();
        let left: Vec<u64> = places.lock().keys().copied().collect();
        assert_eq!(left, [first.number, fourth.number]);
    }
}
