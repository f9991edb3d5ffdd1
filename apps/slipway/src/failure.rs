//! How a command fails: a message with its causes, a stable id, a hint, and one of a fixed set of exit codes.
//!
//! Every command returns a [`Failure`]; `main` prints it once, on stderr. Exit codes are part of the interface and are
//! listed in `slipway help`.

use std::error::Error as StdError;
use std::path::Path;

use machine::Reason;

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

    /// A failure of `doing` something with `path`, with every cause.
    pub(crate) fn at(doing: &str, path: &Path, error: &(dyn StdError + 'static)) -> Self {
        let missing =
            error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        let cause = machine::chain(error);
        let shown = path.display().to_string();
        let message = if cause.contains(&shown) {
            format!("cannot {doing}: {cause}")
        } else {
            format!("cannot {doing} `{shown}`: {cause}")
        };
        let failure = Self::new(if missing { "not-found" } else { "io" }, message);
        if missing { failure.code(Code::NotFound) } else { failure }
    }
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
