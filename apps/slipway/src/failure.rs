//! How a command fails: a message with its causes, a stable id, a hint, and one of a fixed set of exit codes.
//!
//! Every command returns a [`Failure`]; `main` prints it once, on stderr. Exit codes are part of the interface and are
//! listed in `slipway help`.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::Path;

use machine::Reason;
use transfer::shell;

/// Exit codes. 0 is success and 2 is wrong usage (clap's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed.
    Failed = 1,
    /// What was named does not exist.
    NotFound = 3,
    /// Something is there, and something is wrong with it: findings, a failed check.
    Findings = 4,
    /// Not now: state, another job, a file in use.
    NotNow = 5,
    /// The daemon cannot be reached.
    NoDaemon = 6,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) id: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What commands return.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(id: &str, message: impl Into<String>) -> Self {
        Self { code: Code::Failed, id: id.to_owned(), message: message.into(), hint: None }
    }

    pub(crate) fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure of `doing` something with `path`, with every cause, and the hint that its kind stands for.
    pub(crate) fn at(doing: &str, path: &Path, error: &(dyn StdError + 'static)) -> Self {
        let cause = machine::chain(error);
        let shown = path.display().to_string();
        // A cause that begins with the path leaves it to this sentence.
        let cause = cause.strip_prefix(&format!("{shown}: ")).map_or(cause.clone(), str::to_owned);
        let message = if cause.contains(&shown) && cause.starts_with("cannot ") {
            // The cause tells the whole of it already.
            cause
        } else if cause.contains(&shown) {
            format!("cannot {doing}: {cause}")
        } else {
            format!("cannot {doing} `{shown}`: {cause}")
        };
        let (id, code, hint) = match io_kind(error) {
            Some(ErrorKind::NotFound) => {
                ("not-found", Code::NotFound, "check the path; every directory in it must exist")
            }
            Some(ErrorKind::PermissionDenied) => (
                "access-denied",
                Code::Failed,
                "run it as a user who may, or change who may (`ls -l` says who)",
            ),
            Some(ErrorKind::ReadOnlyFilesystem) => {
                ("access-denied", Code::Failed, "name a target on a file system that can be written")
            }
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                ("no-space", Code::Failed, "free some space, or name another target")
            }
            Some(ErrorKind::InvalidFilename) => ("invalid-argument", Code::Failed, "choose a shorter name"),
            Some(_) => {
                let hint = format!("look at it: ls -ld {}", shell::path(path));
                return Self::new("io", message).hint(hint);
            }
            None => return Self::new("io", message),
        };
        Self::new(id, message).code(code).hint(hint)
    }

    /// Adds a hint where there is none yet.
    pub(crate) fn or_hint(mut self, hint: impl FnOnce() -> String) -> Self {
        self.hint.get_or_insert_with(hint);
        self
    }
}

/// What the operating system said, if it is among the causes.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let telling = matches!(
                io.kind(),
                ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::InvalidFilename
            );
            if telling || io.raw_os_error().is_some() {
                return Some(io.kind());
            }
        }
        at = error.source();
    }
    None
}

impl From<machine::Error> for Failure {
    fn from(e: machine::Error) -> Self {
        let failure = Self::new(e.reason().id(), e.chain()).code(code_of(e.reason()));
        match e.hint_text() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The exit code of a refusal.
pub(crate) fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::NotFound => Code::NotFound,
        Reason::NotCompatible | Reason::BadPackage => Code::Findings,
        Reason::Busy | Reason::InvalidState | Reason::InUse => Code::NotNow,
        _ => Code::Failed,
    }
}
