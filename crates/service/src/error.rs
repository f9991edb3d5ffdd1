//! Why the daemon did not start or did not stop well.

use std::error::Error as StdError;

/// What a caller can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeErrorKind {
    /// Another daemon has the data or answers at the socket.
    Running,
    /// A directory or socket is not as it must be, or cannot be made.
    Places,
    /// The store cannot be opened.
    Store,
    /// The domain cannot be opened.
    Host,
    /// The simulator's scenario cannot be read, or cannot be.
    Scenario,
}

/// A daemon that did not start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServeError {
    kind: ServeErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ServeError {
    pub(crate) fn new(kind: ServeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to branch on.
    pub fn kind(&self) -> ServeErrorKind {
        self.kind
    }

    /// What to do next, if something is known to help.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}
