//! Open enumerations, by the contexts that clients hold.
//!
//! A context is a random UUID: nobody guesses one, and it is good only for the user it was given to. One that nobody pulls
//! from for a while is closed. Each user may have so many, and all together so many.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::enumerate::Enumeration;
use crate::fault::{Code, Fault};
use crate::limits::{ENUMERATION_IDLE, MAX_ENUMERATIONS, MAX_ENUMERATIONS_PER_USER};

#[derive(Default)]
pub(super) struct Contexts {
    table: Mutex<HashMap<Uuid, Entry>>,
}

struct Entry {
    user: String,
    idle: Duration,
    /// When it was last used.
    used: Instant,
    /// None while a pull is at it.
    enumeration: Option<Enumeration>,
}

impl Contexts {
    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.table().len()
    }

    /// Keeps an enumeration for its user's next pull, and gives the context for it.
    pub(super) fn keep(
        &self,
        user: &str,
        idle: Option<Duration>,
        enumeration: Enumeration,
        now: Instant,
    ) -> Result<String, Fault> {
        let mut table = self.table();
        // What is closed is dropped after the lock: an iterator may have much to put away.
        let closed: Vec<Entry> = table
            .extract_if(|_, entry| entry.enumeration.is_some() && now.duration_since(entry.used) > entry.idle)
            .map(|(_, entry)| entry)
            .collect();
        let own = table.values().filter(|entry| entry.user == user).count();
        let full = if own >= MAX_ENUMERATIONS_PER_USER {
            Some(("this user has", MAX_ENUMERATIONS_PER_USER))
        } else if table.len() >= MAX_ENUMERATIONS {
            Some(("there are", MAX_ENUMERATIONS))
        } else {
            None
        };
        if let Some((who, most)) = full {
            return Err(Fault::new(
                Code::QuotaLimit,
                format!("{who} {most} enumerations open: pull them to their end, or release them"),
            ));
        }
        let id = Uuid::new_v4();
        let idle = idle.unwrap_or(ENUMERATION_IDLE).min(ENUMERATION_IDLE);
        table.insert(id, Entry { user: user.to_owned(), idle, used: now, enumeration: Some(enumeration) });
        drop(table);
        drop(closed);
        Ok(spelled(id))
    }

    /// Takes an enumeration for a pull. It is the caller's until it is given back or closed.
    pub(super) fn take(&self, user: &str, context: &str, now: Instant) -> Result<(Uuid, Enumeration), Fault> {
        let id = parsed(context).ok_or_else(gone)?;
        let mut table = self.table();
        let entry = table.get_mut(&id).filter(|entry| entry.user == user).ok_or_else(gone)?;
        let Some(enumeration) = entry.enumeration.take() else {
            return Err(Fault::new(Code::Concurrency, "another pull from this enumeration is under way"));
        };
        if now.duration_since(entry.used) > entry.idle {
            table.remove(&id);
            return Err(gone());
        }
        Ok((id, enumeration))
    }

    /// Gives an enumeration back for the next pull, and its context. One that was released meanwhile stays closed.
    pub(super) fn give_back(&self, id: Uuid, enumeration: Enumeration, now: Instant) -> String {
        if let Some(entry) = self.table().get_mut(&id) {
            entry.enumeration = Some(enumeration);
            entry.used = now;
        }
        spelled(id)
    }

    /// Closes one that is over.
    pub(super) fn close(&self, id: Uuid) {
        let closed = self.table().remove(&id);
        drop(closed);
    }

    /// Closes one that its user does not want any more.
    pub(super) fn release(&self, user: &str, context: &str) -> Result<(), Fault> {
        let id = parsed(context).ok_or_else(gone)?;
        let mut table = self.table();
        table.get(&id).filter(|entry| entry.user == user).ok_or_else(gone)?;
        let released = table.remove(&id);
        drop(table);
        drop(released);
        Ok(())
    }
}

fn gone() -> Fault {
    Fault::new(
        Code::InvalidContext,
        "there is no such enumeration: it ended, was released, or nobody pulled from it for too long",
    )
}

fn spelled(id: Uuid) -> String {
    format!("uuid:{}", id.to_string().to_uppercase())
}

fn parsed(context: &str) -> Option<Uuid> {
    let context = context.trim();
    let scheme = context.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("uuid:"));
    Uuid::try_parse(if scheme { &context[5..] } else { context }).ok()
}
