//! One error type for each thing a caller does: start, attach, operate.
//!
//! Each is opaque outside, carries a [`kind`](StartError::kind) to branch on and, where a person can act, a
//! [`hint`](StartError::hint). Messages never repeat their source; the edge prints the chain.

use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

type Source = Box<dyn StdError + Send + Sync>;

macro_rules! opaque_error {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, thiserror::Error)]
        #[error("{message}")]
        pub struct $name {
            kind: $kind,
            message: String,
            hint: Option<String>,
            #[source]
            source: Option<Source>,
        }

        impl $name {
            /// An error that says `message`.
            pub fn new(kind: $kind, message: impl Into<String>) -> Self {
                $name { kind, message: message.into(), hint: None, source: None }
            }

            /// With the next command or step for a person.
            #[must_use]
            pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
                self.hint = Some(hint.into());
                self
            }

            /// With what caused it.
            #[must_use]
            pub fn with_source(mut self, source: impl Into<Source>) -> Self {
                self.source = Some(source.into());
                self
            }

            /// What to branch on.
            pub fn kind(&self) -> $kind {
                self.kind
            }

            /// What a person can do about it.
            pub fn hint(&self) -> Option<&str> {
                self.hint.as_deref()
            }
        }
    };
}

opaque_error!(
    /// Why a guest did not start. Nothing of it is left running.
    StartError, StartErrorKind
);
opaque_error!(
    /// Why a guest that may be running could not be taken over.
    AttachError, AttachErrorKind
);
opaque_error!(
    /// Why an operation on a guest failed.
    GuestError, GuestErrorKind
);

/// What to branch on when a start fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StartErrorKind {
    /// The specification itself is wrong.
    InvalidSpec,
    /// A guest already runs in this runtime directory.
    AlreadyRunning,
    /// Another process holds a disk image.
    InUse,
    /// A file the guest needs is not there.
    NotFound,
    /// A file or device may not be opened by this user.
    Denied,
    /// The engine's own program is missing or too old.
    NotInstalled,
    /// KVM was demanded and does not work here.
    NoAccel,
    /// No fitting firmware on this host.
    NoFirmware,
    /// The TPM could not be started.
    NoTpm,
    /// The network backend could not be set up.
    NoNetwork,
    /// The host lacks memory or another resource.
    NoResources,
    /// It did not come up within the limit.
    TimedOut,
    /// The saved state cannot be loaded: damaged, of other hardware, or of an engine too different.
    BadState,
    /// Anything else; the message carries the engine's last words.
    Failed,
}

/// What to branch on when attaching fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachErrorKind {
    /// The process lives but does not answer on its control socket.
    NotAnswering,
    /// What is recorded in the runtime directory cannot be read.
    BadRecord,
    /// Something else answers there.
    WrongGuest,
    /// Anything else.
    Failed,
}

/// What to branch on when an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GuestErrorKind {
    /// The guest is no longer there.
    Gone,
    /// Not possible in the state it is in.
    WrongState,
    /// No answer within the limit.
    TimedOut,
    /// The guest has no agent, or it does not answer.
    NoAgent,
    /// No such drive, adapter or file.
    NotFound,
    /// The guest holds the drive's door locked.
    Locked,
    /// Not something this guest or engine can do.
    Unsupported,
    /// The caller broke it off.
    Cancelled,
    /// No room for what was to be written.
    NoSpace,
    /// The engine refused; the message carries its words.
    Refused,
    /// A file or socket of ours failed.
    Io,
}
