//! Errors of steps as data: what is written into the journal, read back after a crash, and shown.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bounds on what a failure or warning may put into the journal, in bytes: it must always fit, whatever a path or a
/// foreign error message contains.
const MAX_ID: usize = 128;
const MAX_TEXT: usize = 2048;

/// Why a step, or its undo, failed. The program that reads it may be a later one: it is data, not a Rust error type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable id that programs and `slipway explain` know, such as `export-target-full`.
    pub id: String,
    /// What failed and why, one sentence, for people.
    pub message: String,
    /// What to do about it, where a person can act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file or directory concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Something the owner of a finished job should know; the job went on. Same shape as [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable id.
    pub id: String,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file or directory concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Failure {
    /// A failure with a stable id and a message.
    pub fn new(id: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure {
            id: bounded(id.into(), MAX_ID),
            message: bounded(message.into(), MAX_TEXT),
            hint: None,
            path: None,
        }
    }

    /// A failure whose message is `error` with all its sources, joined with ": ".
    pub fn from_error(id: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message.push_str(": ");
            message.push_str(&error.to_string());
            source = error.source();
        }
        Failure::new(id, message)
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(bounded(hint.into(), MAX_TEXT));
        self
    }

    /// Adds the file or directory concerned. A name that is not Unicode is shown as well as it can be.
    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Failure {
        self.path = Some(bounded(path.as_ref().to_string_lossy().into_owned(), MAX_TEXT));
        self
    }

    pub(crate) fn interrupted() -> Failure {
        Failure::new(crate::ids::INTERRUPTED, "the step was asked to stop")
    }

    /// The fields are public, so they are cut once more where they enter the journal.
    pub(crate) fn cut(self) -> Failure {
        let Failure { id, message, hint, path } = self;
        Failure {
            id: bounded(id, MAX_ID),
            message: bounded(message, MAX_TEXT),
            hint: hint.map(|hint| bounded(hint, MAX_TEXT)),
            path: path.map(|path| bounded(path, MAX_TEXT)),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Warning {
    /// A warning with a stable id and a message.
    pub fn new(id: impl Into<String>, message: impl Into<String>) -> Warning {
        Warning::from(Failure::new(id, message))
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Warning {
        Warning::from(Failure::from(self).hint(hint))
    }

    /// Adds the file or directory concerned.
    #[must_use]
    pub fn path(self, path: impl AsRef<Path>) -> Warning {
        Warning::from(Failure::from(self).path(path))
    }

    pub(crate) fn cut(self) -> Warning {
        Warning::from(Failure::from(self).cut())
    }
}

/// What would have been a failure, reported while going on.
impl From<Failure> for Warning {
    fn from(Failure { id, message, hint, path }: Failure) -> Warning {
        Warning { id, message, hint, path }
    }
}

impl From<Warning> for Failure {
    fn from(Warning { id, message, hint, path }: Warning) -> Failure {
        Failure { id, message, hint, path }
    }
}

/// Cuts at a character boundary, marking the cut.
fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        let long = Failure::new("x", "ä".repeat(MAX_TEXT));
        assert!(long.message.len() <= MAX_TEXT && long.message.ends_with("ä…"), "{}", long.message.len());
        let short = Failure::new("x", "ä".repeat(10));
        assert_eq!(short.message.chars().count(), 10);
    }

    #[test]
    fn the_whole_chain_is_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let error = store::Error::backend("read a key", inner);
        let failure = Failure::from_error("store", &error);
        assert_eq!(failure.message, "the store failed to read a key: disk on fire");
    }
}
