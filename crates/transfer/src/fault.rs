//! What went wrong with a file or a peer, in words a caller can branch on.
//!
//! Every error of this crate answers `kind()` with a [`FaultKind`]; the private [`Fault`] is the shared body of those that
//! concern one path and offset. Exit codes, return codes and job states are the callers' business.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why an operation failed, as far as a caller may want to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The target's file system, or the user's quota on it, is full.
    NoSpace,
    /// The target is mounted or exported read-only.
    ReadOnly,
    /// The operating system does not let us.
    Denied,
    /// There is nothing at that path.
    NotFound,
    /// It was there when we began and is gone, or shorter.
    Vanished,
    /// The server that its bytes come from ended, or answers no more.
    ServerLost,
    /// It was changed by somebody while we read it.
    Changed,
    /// Its content breaks a rule of its format, or does not match its recorded digest.
    Damaged,
    /// It is sound but not something this operation can work with.
    Unsupported,
    /// The target exists already; nothing is ever overwritten.
    AlreadyExists,
    /// Somebody else is working on it.
    Busy,
    /// The caller asked to stop.
    Cancelled,
    /// A named limit was exceeded.
    Limit,
    /// A name leads outside the directory it is confined to.
    Escapes,
    /// Anything else the operating system reported.
    Other,
}

impl FaultKind {
    /// Classifies what the operating system said.
    pub fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Self::NoSpace,
            Some(Errno::ROFS) => return Self::ReadOnly,
            Some(Errno::STALE | Errno::NODEV | Errno::NXIO | Errno::SHUTDOWN | Errno::NOTCONN) => {
                return Self::Vanished;
            }
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => Self::AlreadyExists,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Vanished,
            io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock => Self::Busy,
            io::ErrorKind::InvalidData => Self::Damaged,
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Other,
        }
    }

    /// The kind of the first operating system error found in `error` and its causes.
    pub(crate) fn of_chain(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Some(Self::of(io));
            }
            at = error.source();
        }
        None
    }
}

/// A boxed cause.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// One thing that failed on one path.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// Completes "cannot …".
    pub(crate) doing: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) offset: Option<u64>,
    /// Said after the message when there is no cause, or in addition to it.
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) cause: Option<Cause>,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, doing: &'static str, path: &Path) -> Self {
        Self { kind, doing, path: path.to_owned(), offset: None, detail: None, hint: None, cause: None }
    }

    pub(crate) fn io(error: io::Error, doing: &'static str, path: &Path) -> Self {
        let mut fault = Self::new(FaultKind::of(&error), doing, path);
        fault.hint = match fault.kind {
            FaultKind::ReadOnly => Some("choose a target that can be written".into()),
            FaultKind::NoSpace => Some("free some space, or choose another target".into()),
            FaultKind::Vanished => {
                Some("see whether its file system is still there, and who changed it".into())
            }
            FaultKind::NotFound if doing.starts_with("create") => {
                Some("name a directory where new files can be made".into())
            }
            FaultKind::NotFound => {
                Some("see whether it was moved, and whether its file system is there".into())
            }
            FaultKind::Denied => Some("change who may (`ls -l` says who)".into()),
            _ => None,
        };
        if error.kind() == io::ErrorKind::UnexpectedEof {
            fault.detail = Some("it is shorter than it was".into());
            return fault;
        }
        fault.cause = Some(error.into());
        fault
    }

    /// A cause of another crate: its kind is that of the operating system error inside, else `otherwise`.
    pub(crate) fn foreign<E>(error: E, otherwise: FaultKind, doing: &'static str, path: &Path) -> Self
    where
        E: StdError + Send + Sync + 'static,
    {
        let kind = FaultKind::of_chain(&error).unwrap_or(otherwise);
        Self { cause: Some(error.into()), ..Self::new(kind, doing, path) }
    }

    /// What an NBD peer, or its absence, did.
    pub(crate) fn nbd(error: nbd::RequestError, doing: &'static str, path: &Path) -> Self {
        use nbd::{RequestErrorKind as Kind, ServerErrno as Errno};
        let kind = match error.kind() {
            Kind::Disconnected | Kind::Timeout | Kind::Server(Errno::SHUTDOWN) => FaultKind::ServerLost,
            Kind::ReadOnly | Kind::Server(Errno::PERM) => FaultKind::ReadOnly,
            Kind::Server(Errno::NOSPC) => FaultKind::NoSpace,
            Kind::Unsupported | Kind::Unaligned | Kind::UnknownContext => FaultKind::Unsupported,
            Kind::Protocol => FaultKind::Damaged,
            Kind::TooManyExtents => FaultKind::Limit,
            _ => FaultKind::Other,
        };
        let lost = "the program that served it ended; try again, and see what ended it: journalctl -k";
        let hint = (kind == FaultKind::ServerLost).then(|| lost.to_owned());
        Self { hint, cause: Some(error.into()), ..Self::new(kind, doing, path) }
    }

    /// What stopped a VHD or VHDX, with its parents, from being opened.
    pub(crate) fn image(error: vhdx::OpenError, path: &Path) -> Self {
        use vhdx::OpenErrorKind as Kind;
        let kind = match error.kind() {
            Kind::Io => FaultKind::of_chain(&error).unwrap_or(FaultKind::Other),
            Kind::Unsupported => FaultKind::Unsupported,
            Kind::ParentMissing => FaultKind::NotFound,
            Kind::OutsideConfinement => FaultKind::Escapes,
            Kind::TooDeep => FaultKind::Limit,
            _ => FaultKind::Damaged,
        };
        let hint = error.hint().map(ToOwned::to_owned);
        let offset = error.offset();
        Self { hint, offset, cause: Some(error.into()), ..Self::new(kind, "open", path) }
    }

    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`", self.doing, self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|c| &**c as &(dyn StdError + 'static))
    }
}

/// Gives an error type that wraps a [`Fault`] its four questions.
macro_rules! fault_error {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, thiserror::Error)]
        #[error(transparent)]
        pub struct $name(Box<crate::fault::Fault>);

        impl $name {
            /// What a caller may branch on.
            pub fn kind(&self) -> crate::fault::FaultKind {
                self.0.kind
            }

            /// The file or peer concerned.
            pub fn path(&self) -> &std::path::Path {
                &self.0.path
            }

            /// The byte concerned, where there is one.
            pub fn offset(&self) -> Option<u64> {
                self.0.offset
            }

            /// What the user may do about it.
            pub fn hint(&self) -> Option<&str> {
                self.0.hint.as_deref()
            }
        }

        impl From<crate::fault::Fault> for $name {
            fn from(fault: crate::fault::Fault) -> Self {
                Self(Box::new(fault))
            }
        }
    };
}
pub(crate) use fault_error;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_classified() {
        let of = |e: Errno| FaultKind::of(&io::Error::from(e));
        assert_eq!(of(Errno::NOSPC), FaultKind::NoSpace);
        assert_eq!(of(Errno::DQUOT), FaultKind::NoSpace);
        assert_eq!(of(Errno::ROFS), FaultKind::ReadOnly);
        assert_eq!(of(Errno::ACCESS), FaultKind::Denied);
        assert_eq!(of(Errno::STALE), FaultKind::Vanished);
        assert_eq!(FaultKind::of(&io::ErrorKind::UnexpectedEof.into()), FaultKind::Vanished);
    }

    #[test]
    fn the_message_has_path_and_offset_and_the_cause_is_not_repeated() {
        let fault = Fault::io(Errno::NOSPC.into(), "write", Path::new("/x/y")).at(4096);
        assert_eq!(fault.to_string(), "cannot write `/x/y` at byte 4096");
        assert!(StdError::source(&fault).is_some());
        assert!(fault.hint.is_some());
    }
}
