//! What guests say, until it is heard: an inbox per guest, and a few threads for all of them.
//!
//! ```text
//!   engine ── Slot ──► Inbox ──┐
//!   engine ── Slot ──► Inbox ──┼──► queue of inboxes with something in them ──► at most THREADS threads ──► the machine
//!   engine ── Slot ──► Inbox ──┘
//! ```
//!
//! One guest's events are heard in their order, one after the other; those of different guests beside each other, and
//! each inbox gets its turn. So 2,000 guests that say nothing cost no thread, and one that says much keeps nobody waiting.
//! What an event does to a machine is [`crate::lifecycle`]'s part.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use engine::{GuestEvent, Listener};

/// Threads that hear guests, at most. More than one, because hearing takes the machine's lock, and whoever holds that may
/// wait for a disk or for a QEMU that does not answer: the other guests are heard meanwhile.
const THREADS: usize = 8;

/// Hears one guest's events in turn, and at last `None`: there will be no more.
type Hear = Box<dyn FnMut(Option<GuestEvent>) + Send>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All inboxes of a host, and the threads that go through them. They end when this is dropped.
#[derive(Default)]
pub(crate) struct Inboxes {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Inboxes with something in them that no thread has in hand.
    ready: VecDeque<Arc<Letters>>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    closed: bool,
}

/// The end of an inbox that hears. What is said before [`Inbox::open`] waits.
pub(crate) struct Inbox(Arc<Letters>);

/// The end of an inbox that an engine gets.
struct Slot(Arc<Letters>);

struct Letters {
    content: Mutex<Content>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Content {
    waiting: VecDeque<GuestEvent>,
    /// The engine says no more.
    ended: bool,
    hear: Option<Hear>,
    /// It is in the queue, or a thread has it in hand.
    taken: bool,
}

impl Inboxes {
    /// An inbox for a guest to be made, and what its engine is to tell.
    pub(crate) fn new_inbox(&self) -> (Box<dyn Listener>, Inbox) {
        let letters = Arc::new(Letters { content: Mutex::default(), shared: Arc::clone(&self.shared) });
        (Box::new(Slot(Arc::clone(&letters))), Inbox(letters))
    }
}

impl Drop for Inboxes {
    fn drop(&mut self) {
        let unheard = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        self.shared.work.notify_all();
        drop(unheard);
    }
}

impl Inbox {
    /// Lets `hear` hear what was said and what will be said.
    pub(crate) fn open(self, hear: impl FnMut(Option<GuestEvent>) + Send + 'static) {
        self.0.change(|content| content.hear = Some(Box::new(hear)));
    }
}

impl Listener for Slot {
    fn hear(&self, event: GuestEvent) {
        self.0.change(|content| content.waiting.push_back(event));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.change(|content| content.ended = true);
    }
}

impl Content {
    fn wants_a_turn(&self) -> bool {
        !self.taken && self.hear.is_some() && (self.ended || !self.waiting.is_empty())
    }
}

impl Letters {
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Content)) {
        let mut content = lock(&self.content);
        change(&mut content);
        if content.wants_a_turn() {
            content.taken = true;
            drop(content);
            self.shared.queue(Arc::clone(self));
        }
    }

    /// Has one thing heard; whether it is to have another turn.
    fn turn(&self) -> bool {
        let (event, hear) = {
            let mut content = lock(&self.content);
            (content.waiting.pop_front(), content.hear.take())
        };
        let Some(mut hear) = hear else { return false };
        let over = event.is_none();
        if catch_unwind(AssertUnwindSafe(|| hear(event))).is_err() {
            tracing::error!("hearing a guest panicked, which is a bug; it is heard on");
        }
        if over {
            return false;
        }
        let mut content = lock(&self.content);
        content.hear = Some(hear);
        content.taken = false;
        content.taken = content.wants_a_turn();
        content.taken
    }
}

impl Shared {
    fn queue(self: &Arc<Self>, letters: Arc<Letters>) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        state.ready.push_back(letters);
        if state.ready.len() <= state.idle || state.threads == THREADS {
            self.work.notify_one();
            return;
        }
        state.threads += 1;
        let name = format!("guests-{}", state.threads);
        drop(state);
        let shared = Arc::clone(self);
        if let Err(e) = std::thread::Builder::new().name(name).spawn(move || shared.work()) {
            lock(&self.state).threads -= 1;
            tracing::error!("no thread to hear guests: {e}");
        }
    }

    fn work(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        while !state.closed {
            let Some(letters) = state.ready.pop_front() else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let again = letters.turn();
            state = lock(&self.state);
            if again && !state.closed {
                // Behind the others, and by this thread if nobody else is free.
                state.ready.push_back(letters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn other(n: usize) -> GuestEvent {
        GuestEvent::Other { name: n.to_string() }
    }

    #[test]
    fn each_guest_is_heard_in_order_to_its_end_also_when_it_spoke_before_anybody_listened() {
        const GUESTS: usize = 100;
        const EVENTS: usize = 20;
        let inboxes = Inboxes::default();
        let (sender, heard) = mpsc::channel();
        let (mut slots, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..GUESTS {
            let (slot, inbox) = inboxes.new_inbox();
            slot.hear(other(0));
            slots.push(slot);
            waiting.push(inbox);
        }
        for (guest, inbox) in waiting.into_iter().enumerate() {
            let sender = sender.clone();
            inbox.open(move |event| drop(sender.send((guest, event))));
        }
        drop(sender);
        for n in 1..EVENTS {
            slots.iter().for_each(|slot| slot.hear(other(n)));
        }
        drop(slots);
        // The channel ends when every guest was heard to its end, and its ear dropped.
        let mut each = vec![Vec::new(); GUESTS];
        heard.iter().for_each(|(guest, event)| each[guest].push(event));
        let expected: Vec<_> = (0..EVENTS).map(|n| Some(other(n))).chain([None]).collect();
        assert!(each.iter().all(|events| *events == expected), "{each:?}");
        assert!(lock(&inboxes.shared.state).threads <= THREADS);
    }

    #[test]
    fn a_guest_whose_machine_is_held_keeps_no_other_waiting() {
        let inboxes = Inboxes::default();
        let (hold, held) = mpsc::channel::<()>();
        let (stuck, inbox) = inboxes.new_inbox();
        inbox.open(move |_| {
            let _ = held.recv();
        });
        stuck.hear(other(1));
        let (sender, heard) = mpsc::channel();
        let (slot, inbox) = inboxes.new_inbox();
        inbox.open(move |event| drop(sender.send(event)));
        for n in 0..100 {
            slot.hear(other(n));
            assert_eq!(heard.recv_timeout(Duration::from_secs(60)).unwrap(), Some(other(n)));
        }
        drop((hold, stuck));
    }

    #[test]
    fn a_panic_makes_nobody_deaf() {
        let inboxes = Inboxes::default();
        let (sender, heard) = mpsc::channel();
        let (slot, inbox) = inboxes.new_inbox();
        inbox.open(move |event| {
            assert!(event != Some(other(1)), "on purpose");
            drop(sender.send(event));
        });
        (0..3).for_each(|n| slot.hear(other(n)));
        drop(slot);
        assert_eq!(heard.iter().collect::<Vec<_>>(), [Some(other(0)), Some(other(2)), None]);
    }
}
