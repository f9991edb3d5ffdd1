//! Errors, one type per thing a caller does: read, write, edit.
//!
//! Callers branch on `kind()`; the message names the structure, the path or the offset and what is wrong with it. The
//! name of the file is added by whoever opened it ([`crate::read_file`] does).

use std::fmt;
use std::path::PathBuf;

/// Why a configuration could not be read.
#[derive(Debug)]
pub struct ReadError {
    kind: ReadErrorKind,
    offset: Option<u64>,
    path: Option<PathBuf>,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller may want to tell apart in a [`ReadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The operating system refused: absent file, no permission, a device error.
    Io,
    /// The bytes are neither a container nor XML.
    NotAConfiguration,
    /// The file ends before a structure that it names.
    Truncated,
    /// A stored checksum is not that of the bytes; [`crate::read_lenient`] reads past it.
    Checksum,
    /// A version of the format that this crate does not know.
    Version,
    /// A structure contradicts the format.
    Corrupt,
    /// The XML is not well-formed, or not a configuration.
    Xml,
    /// A number in the file exceeds a limit of this crate.
    Limit,
}

impl ReadError {
    pub(crate) fn new(
        kind: ReadErrorKind,
        offset: impl Into<Option<u64>>,
        message: impl Into<String>,
    ) -> ReadError {
        ReadError { kind, offset: offset.into(), path: None, message: message.into(), source: None }
    }

    pub(crate) fn corrupt(offset: u64, message: impl Into<String>) -> ReadError {
        ReadError::new(ReadErrorKind::Corrupt, offset, message)
    }

    pub(crate) fn truncated(offset: u64, message: impl Into<String>) -> ReadError {
        ReadError::new(ReadErrorKind::Truncated, offset, message)
    }

    pub(crate) fn limit(offset: impl Into<Option<u64>>, message: impl Into<String>) -> ReadError {
        ReadError::new(ReadErrorKind::Limit, offset, message)
    }

    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> ReadError {
        self.source = Some(Box::new(source));
        self
    }

    pub(crate) fn in_file(mut self, path: &std::path::Path) -> ReadError {
        self.path = Some(path.to_owned());
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ReadErrorKind {
        self.kind
    }

    /// Where in the file, in bytes from its start, where that is known. For UTF-16 XML the place is in the message as
    /// line and column instead.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The file, when the caller gave one.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.message)?;
        match self.offset {
            Some(offset) => write!(f, " (at offset {offset}, {offset:#x})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Why a tree could not be written in the form asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as {form}: {reason}", what = Shown(.path))]
pub struct WriteError {
    kind: WriteErrorKind,
    path: String,
    form: &'static str,
    reason: String,
}

/// What a caller may want to tell apart in a [`WriteError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// A name that the form cannot spell.
    Name,
    /// A value that the form cannot spell: control characters or unknown types in XML.
    Value,
    /// The tree as a whole: several roots in XML, nesting too deep.
    Shape,
    /// More than the form, or this crate's limits, can hold.
    Limit,
}

impl WriteError {
    pub(crate) fn new(
        kind: WriteErrorKind,
        form: &'static str,
        path: impl Into<String>,
        reason: impl Into<String>,
    ) -> WriteError {
        WriteError { kind, path: path.into(), form, reason: reason.into() }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> WriteErrorKind {
        self.kind
    }

    /// The path of the key concerned; empty for the tree as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("the tree")
        } else {
            write!(f, "key \"{}\"", self.0.escape_debug())
        }
    }
}

/// Why a key could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot set \"{path}\": {reason}")]
pub struct EditError {
    path: String,
    reason: String,
}

impl EditError {
    pub(crate) fn not_a_node(path: &str, step: &str) -> EditError {
        EditError { path: path.to_owned(), reason: format!("\"{step}\" holds a value, not keys") }
    }

    pub(crate) fn bad_name(path: &str, step: &str) -> EditError {
        let reason =
            format!("\"{}\" is no name for a new key (1 to 254 bytes, no index)", step.escape_debug());
        EditError { path: path.to_owned(), reason }
    }
}
