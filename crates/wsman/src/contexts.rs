//! Open enumerations, by the contexts that clients hold.
//!
//! A context is a random UUID: nobody guesses one, and it is good only for the user it was given to. One that nobody pulls
//! from for a while is closed. Each user may have so many, and all together so many.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::limits::{ENUMERATION_IDLE, MAX_ENUMERATIONS, MAX_ENUMERATIONS_PER_USER};

/// Enumerations of one protocol that wait for a pull.
#[derive(Debug)]
pub struct Contexts<T> {
    table: Mutex<HashMap<Uuid, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    user: String,
    idle: Duration,
    /// When it was last used.
    used: Instant,
    /// None while a pull is at it.
    enumeration: Option<T>,
}

/// Why there is no enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// There is none of that context, for that user.
    #[error("there is no such enumeration: it ended, was released, or nobody pulled from it for too long")]
    Gone,
    /// It is being pulled from.
    #[error("another pull from this enumeration is under way")]
    Busy,
    /// The user has too many.
    #[error(
        "this user has {MAX_ENUMERATIONS_PER_USER} enumerations open: pull them to their end, or release them"
    )]
    TooManyOfUser,
    /// There are too many.
    #[error("there are {MAX_ENUMERATIONS} enumerations open: pull them to their end, or release them")]
    TooMany,
}

impl<T> Default for Contexts<T> {
    fn default() -> Self {
        Self { table: Mutex::default() }
    }
}

impl<T> Contexts<T> {
    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, Entry<T>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.table().len()
    }

    /// Keeps an enumeration for its user's next pull, and gives its context.
    ///
    /// # Errors
    /// There are too many.
    pub fn keep(
        &self,
        user: &str,
        idle: Option<Duration>,
        enumeration: T,
        now: Instant,
    ) -> Result<Uuid, ContextError> {
        let mut table = self.table();
        // What is closed is dropped after the lock: an iterator may have much to put away.
        let closed: Vec<Entry<T>> = table
            .extract_if(|_, entry| entry.enumeration.is_some() && now.duration_since(entry.used) > entry.idle)
            .map(|(_, entry)| entry)
            .collect();
        let own = table.values().filter(|entry| entry.user == user).count();
        if own >= MAX_ENUMERATIONS_PER_USER {
            return Err(ContextError::TooManyOfUser);
        } else if table.len() >= MAX_ENUMERATIONS {
            return Err(ContextError::TooMany);
        }
        let id = Uuid::new_v4();
        let idle = idle.unwrap_or(ENUMERATION_IDLE).min(ENUMERATION_IDLE);
        table.insert(id, Entry { user: user.to_owned(), idle, used: now, enumeration: Some(enumeration) });
        drop(table);
        drop(closed);
        Ok(id)
    }

    /// Takes an enumeration for a pull. It is the caller's until it is given back or closed.
    ///
    /// # Errors
    /// There is none, or another pull has it.
    pub fn take(&self, user: &str, context: &str, now: Instant) -> Result<(Uuid, T), ContextError> {
        let id = parsed(context).ok_or(ContextError::Gone)?;
        let mut table = self.table();
        let entry = table.get_mut(&id).filter(|entry| entry.user == user).ok_or(ContextError::Gone)?;
        let enumeration = entry.enumeration.take().ok_or(ContextError::Busy)?;
        if now.duration_since(entry.used) > entry.idle {
            table.remove(&id);
            return Err(ContextError::Gone);
        }
        Ok((id, enumeration))
    }

    /// Gives an enumeration back for the next pull. One that was released meanwhile stays closed.
    pub fn give_back(&self, id: Uuid, enumeration: T, now: Instant) {
        if let Some(entry) = self.table().get_mut(&id) {
            entry.enumeration = Some(enumeration);
            entry.used = now;
        }
    }

    /// Closes one that is over.
    pub fn close(&self, id: Uuid) {
        let closed = self.table().remove(&id);
        drop(closed);
    }

    /// Closes one that its user does not want any more.
    ///
    /// # Errors
    /// There is none.
    pub fn release(&self, user: &str, context: &str) -> Result<(), ContextError> {
        let id = parsed(context).ok_or(ContextError::Gone)?;
        let mut table = self.table();
        table.get(&id).filter(|entry| entry.user == user).ok_or(ContextError::Gone)?;
        let released = table.remove(&id);
        drop(table);
        drop(released);
        Ok(())
    }
}

/// A context, as clients hold it.
pub fn spelled(id: Uuid) -> String {
    format!("uuid:{}", id.to_string().to_uppercase())
}

pub(crate) fn parsed(context: &str) -> Option<Uuid> {
    let context = context.trim();
    let scheme = context.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("uuid:"));
    Uuid::try_parse(if scheme { &context[5..] } else { context }).ok()
}
