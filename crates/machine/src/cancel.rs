//! Telling a call that blocks to go no further.
//!
//! Jobs have cancelling of their own; this is for the few calls that take long and are no jobs: waiting for a guest to shut
//! down, looking through a package.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cell::Cell;

/// A word to a call under way, from another thread. Clones are the same one; it is said once and not taken back.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Said>);

#[derive(Default)]
struct Said {
    told: AtomicBool,
    /// Where the call waits, when it does.
    waits_at: Mutex<Option<Arc<Cell>>>,
}

impl Cancel {
    /// Tells the call to go no further. It ends soon, and undoes what it says that it undoes.
    pub fn tell(&self) {
        self.0.told.store(true, Ordering::Release);
        let cell = self.0.waits_at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(cell) = cell {
            // Under the cell's lock: whoever is about to wait has not looked yet, or will be woken.
            drop(cell.lock());
            cell.changed();
        }
    }

    /// Whether it was told.
    #[must_use]
    pub fn told(&self) -> bool {
        self.0.told.load(Ordering::Acquire)
    }

    /// From here on the call may wait at `cell`.
    pub(crate) fn wakes(&self, cell: &Arc<Cell>) {
        *self.0.waits_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(cell));
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("told", &self.told()).finish_non_exhaustive()
    }
}
