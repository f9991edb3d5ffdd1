//! Why the domain refuses: one closed set of reasons with stable ids.
//!
//! Every edge (command line, REST, CIM) maps a [`Reason`] to its own codes in one table of its own; no edge invents a
//! reason. Findings of a compatibility report are a different thing and live in [`crate::finding`].

use std::error::Error as StdError;
use std::fmt;

/// The closed set of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No such machine, disk, switch, job or planned machine.
    NotFound,
    /// A name or prefix fits more than one.
    Ambiguous,
    /// An argument breaks a rule.
    InvalidArgument,
    /// The machine's state does not allow it.
    InvalidState,
    /// Another job or request holds the machine.
    Busy,
    /// It exists already.
    AlreadyExists,
    /// A file is open elsewhere.
    InUse,
    /// A finding of the report stands in the way.
    NotCompatible,
    /// A package or file cannot be read as what it should be.
    BadPackage,
    /// What was saved of a guest's memory cannot be gone on with.
    BadState,
    /// The host lacks what it takes (QEMU, firmware, a TPM emulator, a bridge).
    HostLacks,
    /// The operating system does not permit it.
    AccessDenied,
    /// No room.
    NoSpace,
    /// The guest did not do what it was asked in time.
    Timeout,
    /// Known, but not built.
    NotSupported,
    /// Reading or writing failed.
    Io,
    /// The store, or a record in it, is not as it must be.
    Store,
    /// The engine failed.
    Engine,
}

impl Reason {
    /// Every reason, for tables that must be complete.
    pub const ALL: [Self; 18] = [
        Self::NotFound,
        Self::Ambiguous,
        Self::InvalidArgument,
        Self::InvalidState,
        Self::Busy,
        Self::AlreadyExists,
        Self::InUse,
        Self::NotCompatible,
        Self::BadPackage,
        Self::BadState,
        Self::HostLacks,
        Self::AccessDenied,
        Self::NoSpace,
        Self::Timeout,
        Self::NotSupported,
        Self::Io,
        Self::Store,
        Self::Engine,
    ];

    /// The stable id, as printed and as sent over the wire.
    pub fn id(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Ambiguous => "ambiguous",
            Self::InvalidArgument => "invalid-argument",
            Self::InvalidState => "invalid-state",
            Self::Busy => "busy",
            Self::AlreadyExists => "already-exists",
            Self::InUse => "in-use",
            Self::NotCompatible => "not-compatible",
            Self::BadPackage => "bad-package",
            Self::BadState => "bad-saved-state",
            Self::HostLacks => "host-lacks",
            Self::AccessDenied => "access-denied",
            Self::NoSpace => "no-space",
            Self::Timeout => "timeout",
            Self::NotSupported => "not-supported",
            Self::Io => "io",
            Self::Store => "store",
            Self::Engine => "engine",
        }
    }
}

/// A refusal or failure of the domain.
#[derive(Debug)]
pub struct Error {
    reason: Reason,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the domain's methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refusal that says `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hint: None, source: None }
    }

    /// Adds the next step a person can take.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O failure on `path`, with the reason that its kind stands for.
    pub fn io(doing: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let reason = match source.kind() {
            K::NotFound => Reason::NotFound,
            K::PermissionDenied | K::ReadOnlyFilesystem => Reason::AccessDenied,
            K::StorageFull | K::QuotaExceeded => Reason::NoSpace,
            K::AlreadyExists => Reason::AlreadyExists,
            _ => Reason::Io,
        };
        let error = Self::new(reason, format!("cannot {doing} `{}`", path.display())).caused_by(source);
        match reason {
            Reason::NotFound if doing.starts_with("create") => {
                error.hint("name a directory where new files can be made")
            }
            Reason::NotFound => error.hint("see whether it was moved, and whether its file system is there"),
            Reason::AccessDenied => error.hint("the user that runs the daemon must be allowed to"),
            Reason::NoSpace => error.hint("free some space, or name another directory"),
            Reason::AlreadyExists => error.hint("name another directory"),
            _ => error.hint("look at it: ls -l; what the kernel says: journalctl -k"),
        }
    }

    /// Which refusal it is.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The next step, if one is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message and every cause below it, joined by `: `.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// `error` and every cause below it, joined by `: `; a cause that only repeats what was said is left out.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let said = c.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = c.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_reason_is_listed() {
        let ids: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.id()).collect();
        assert_eq!(ids.len(), Reason::ALL.len());
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let said = io.to_string();
        let e = Error::io("open", std::path::Path::new("/x"), io);
        assert_eq!(e.reason(), Reason::NotFound);
        assert_eq!(e.chain(), format!("cannot open `/x`: {said}"));
    }
}
