//! How a command fails: a message with its causes, a stable id, a hint, and one of a fixed set of exit codes.
//!
//! Every command returns a [`Failure`]; `main` prints it once, on stderr. Exit codes are part of the interface and are
//! listed in `slipway help`.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::Path;

use machine::Reason;
use transfer::shell;

/// Exit codes. 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
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
        } else if let Some(why) = cause.strip_prefix(&shown).and_then(|rest| rest.strip_prefix(": ")) {
            format!("cannot {doing} `{shown}`: {why}")
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

/// A command line that was not understood, from what clap says of it: the message, and the tips and usage below it.
pub(crate) fn usage(said: &str) -> Failure {
    let (message, rest) = said.split_once("\n\n").unwrap_or((said, ""));
    let message = message.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = rest.lines().map(str::trim).filter(|line| !line.is_empty());
    let hint = lines.collect::<Vec<_>>().join("; ");
    Failure::new("usage", message).code(Code::Usage).hint(if hint.is_empty() {
        "slipway --help"
    } else {
        &hint
    })
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
        Reason::NotCompatible | Reason::BadPackage | Reason::BadState => Code::Findings,
        Reason::Busy | Reason::InvalidState | Reason::InUse => Code::NotNow,
        _ => Code::Failed,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn wrong_usage_is_a_failure_like_others() {
        let said = |words: &[&str]| usage(&Cli::try_parse_from(words).unwrap_err().to_string());
        let failure = said(&["slipway", "machine", "lst"]);
        assert_eq!((failure.id.as_str(), failure.code), ("usage", Code::Usage));
        assert_eq!(failure.message, "unrecognized subcommand 'lst'");
        assert!(failure.hint.unwrap().contains("'list'"));
        let failure = said(&["slipway", "inspect"]);
        assert!(failure.message.contains("<PATH>") && !failure.message.contains('\n'), "{}", failure.message);
    }

    #[test]
    fn a_cause_that_begins_with_the_path_does_not_say_it_twice() {
        let cause = std::io::Error::other("x.vmcx: is a directory");
        assert_eq!(
            Failure::at("read", Path::new("x.vmcx"), &cause).message,
            "cannot read `x.vmcx`: is a directory"
        );
    }
}
