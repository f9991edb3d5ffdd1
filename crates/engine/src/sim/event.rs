//! What guests do by themselves: die, panic, switch themselves off, restart, lose a disk, say something; now or at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::MAX_TEXT;

/// Most events that wait for their time.
pub const MAX_EVENTS: usize = 1000;

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// Its process dies without a word.
    Kill {
        /// What is known of why.
        message: String,
    },
    /// Its kernel panics.
    Panic,
    /// It switches itself off.
    PowerOff,
    /// It restarts itself.
    Reboot,
    /// A disk fails it, and it is paused.
    DiskError {
        /// The disk's id in the guest's specification; `None` is the first.
        disk: Option<String>,
        /// The engine's words.
        message: String,
    },
    /// It says a line on its console.
    Say {
        /// The line.
        text: String,
    },
}

impl Happening {
    /// Whether its words are such as can be told: what is wrong if not.
    pub(super) fn problem(&self) -> Option<String> {
        let text = match self {
            Self::Kill { message } | Self::DiskError { message, .. } => message,
            Self::Say { text } => text,
            _ => return None,
        };
        (text.len() > MAX_TEXT || text.contains(char::is_control))
            .then(|| format!("expected at most {MAX_TEXT} bytes without control characters"))
    }
}

/// Something that a guest will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, from 1, never given twice.
    pub id: u64,
    /// Name or id of the machine.
    pub machine: String,
    /// When, by the simulation's clock. A machine that does not run then does nothing.
    pub at: Duration,
    /// What.
    pub what: Happening,
}
