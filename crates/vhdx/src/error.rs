//! Errors, one type per thing a caller does: open, read, create, write.
//!
//! Each is opaque outside and carries the file's name and the byte offset; `kind()` is for callers that branch and
//! `hint()` for people. What lies beneath (an I/O error) is the `source()` and not repeated in the message.

use std::fmt;
use std::io;
use std::path::PathBuf;

use uuid::Uuid;

/// What is wrong with a file, before it is known which one: readers return this, [`OpenError`] adds the name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot read {what} at offset {offset}")]
    Io { what: &'static str, offset: u64, source: io::Error },
    #[error("cannot write {what} at offset {offset}")]
    Write { what: &'static str, offset: u64, source: io::Error },
    #[error("cannot open the file")]
    Open { source: io::Error },
    #[error("neither a VHDX nor a VHD file")]
    NotADisk,
    #[error("the file ends inside {what} at offset {offset}")]
    Truncated { what: &'static str, offset: u64 },
    #[error("wrong checksum of {what} at offset {offset}")]
    Checksum { what: &'static str, offset: u64 },
    #[error("{what} at offset {offset}: {problem}")]
    Invalid { what: &'static str, offset: u64, problem: String },
    #[error("{what} at offset {offset} is not supported: {problem}")]
    Unsupported { what: &'static str, offset: u64, problem: String },
    #[error("the log at offset {offset} is in use but holds no valid sequence of entries")]
    Log { offset: u64 },
    #[error("parent not found (looked for {})", list(.tried))]
    ParentMissing { tried: Vec<PathBuf> },
    #[error("parent {} has id {found}, the child was made for {expected}", .parent.display())]
    Linkage { parent: PathBuf, expected: Uuid, found: Uuid },
    #[error("parent {} lies outside {}", .parent.display(), .confine.display())]
    Outside { parent: PathBuf, confine: PathBuf },
    #[error("parent {} is already part of the chain", .parent.display())]
    Cycle { parent: PathBuf },
    #[error("the chain has more than {limit} layers")]
    TooDeep { limit: usize },
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "nothing: the file names no path".to_owned();
    }
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Fault {
    /// An I/O error, with `UnexpectedEof` told apart: that one is about the file, not the host.
    pub(crate) fn io(what: &'static str, offset: u64, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated { what, offset }
        } else {
            Self::Io { what, offset, source }
        }
    }

    /// A broken rule.
    pub(crate) fn invalid(what: &'static str, offset: u64, problem: impl Into<String>) -> Self {
        Self::Invalid { what, offset, problem: problem.into() }
    }

    /// A legal file that is beyond this crate.
    pub(crate) fn unsupported(what: &'static str, offset: u64, problem: impl Into<String>) -> Self {
        Self::Unsupported { what, offset, problem: problem.into() }
    }

    /// Says which file.
    pub(crate) fn named(self, name: impl Into<String>) -> OpenError {
        OpenError { name: name.into(), fault: Box::new(self) }
    }

    pub(crate) fn kind(&self) -> OpenErrorKind {
        match self {
            Self::Io { .. } | Self::Write { .. } | Self::Open { .. } => OpenErrorKind::Io,
            Self::NotADisk => OpenErrorKind::NotADisk,
            Self::Truncated { .. } => OpenErrorKind::Truncated,
            Self::Checksum { .. } => OpenErrorKind::Checksum,
            Self::Invalid { .. } => OpenErrorKind::Invalid,
            Self::Unsupported { .. } => OpenErrorKind::Unsupported,
            Self::Log { .. } => OpenErrorKind::Log,
            Self::ParentMissing { .. } => OpenErrorKind::ParentMissing,
            Self::Linkage { .. } => OpenErrorKind::LinkageMismatch,
            Self::Outside { .. } => OpenErrorKind::OutsideConfinement,
            Self::Cycle { .. } => OpenErrorKind::Cycle,
            Self::TooDeep { .. } => OpenErrorKind::TooDeep,
        }
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        match self {
            Self::Io { offset, .. }
            | Self::Write { offset, .. }
            | Self::Truncated { offset, .. }
            | Self::Checksum { offset, .. }
            | Self::Log { offset }
            | Self::Invalid { offset, .. }
            | Self::Unsupported { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

/// What kind of failure an [`OpenError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// The host refused: no such file, no permission, a bad disk.
    Io,
    /// The content is neither VHDX nor VHD.
    NotADisk,
    /// The file ends too early.
    Truncated,
    /// A checksum is wrong; leniency reads on.
    Checksum,
    /// The log is in use and cannot be replayed; leniency reads without it.
    Log,
    /// A rule of the format is broken.
    Invalid,
    /// Legal, but not something this crate reads.
    Unsupported,
    /// A differencing disk's parent was not found.
    ParentMissing,
    /// The parent found is not the one the child was made for.
    LinkageMismatch,
    /// The parent found lies outside the directory the caller allows.
    OutsideConfinement,
    /// A file is its own ancestor.
    Cycle,
    /// More layers than [`crate::limits::MAX_CHAIN`].
    TooDeep,
}

/// A disk file, or one of its parents, cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    name: String,
    fault: Box<Fault>,
}

impl OpenError {
    /// For callers that branch.
    pub fn kind(&self) -> OpenErrorKind {
        self.fault.kind()
    }

    /// The file concerned (a path, or the name given with a storage); in a chain the one that failed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Byte offset in that file, where the failure has one.
    pub fn offset(&self) -> Option<u64> {
        self.fault.offset()
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind() {
            OpenErrorKind::Checksum => {
                Some("the file is damaged or edited; lenient mode reads it all the same")
            }
            OpenErrorKind::Log => {
                Some("the last changes of its tables are lost; lenient mode reads without them")
            }
            OpenErrorKind::Truncated => Some("the copy is incomplete; fetch the file again"),
            OpenErrorKind::ParentMissing => {
                Some("name the parent file or its directory, or ask for zeros in its place")
            }
            OpenErrorKind::LinkageMismatch => Some(
                "the parent was changed or replaced after the child was made; name the right one, or ignore the linkage",
            ),
            OpenErrorKind::OutsideConfinement => Some("name the parent file explicitly to allow it"),
            _ => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.fault)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

/// What kind of failure a [`ReadError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The host refused.
    Io,
    /// The request leaves the disk: the caller's error.
    OutOfRange,
    /// A table of the file is wrong: a block outside the file, a state its kind does not allow, ...
    Corrupt,
}

/// Virtual bytes, or the tables that say where they are, cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}cannot read virtual offset {offset}: {problem}", prefix(.name))]
pub struct ReadError {
    name: String,
    offset: u64,
    kind: ReadErrorKind,
    problem: String,
    source: Option<io::Error>,
}

fn prefix(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}: ") }
}

impl ReadError {
    /// The host refused to read `file_offset`.
    pub(crate) fn io(offset: u64, what: &str, file_offset: u64, source: io::Error) -> Self {
        let kind = if source.kind() == io::ErrorKind::UnexpectedEof {
            ReadErrorKind::Corrupt
        } else {
            ReadErrorKind::Io
        };
        Self {
            name: String::new(),
            offset,
            kind,
            problem: format!("{what} at file offset {file_offset}"),
            source: Some(source),
        }
    }

    /// A table says something that cannot be.
    pub(crate) fn corrupt(offset: u64, problem: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            offset,
            kind: ReadErrorKind::Corrupt,
            problem: problem.into(),
            source: None,
        }
    }

    /// The request leaves the disk.
    pub(crate) fn out_of_range(offset: u64, length: u64, virtual_size: u64) -> Self {
        Self {
            name: String::new(),
            offset,
            kind: ReadErrorKind::OutOfRange,
            problem: format!("{length} bytes from there leave the disk of {virtual_size} bytes"),
            source: None,
        }
    }

    /// Says which file, unless that is known already.
    pub(crate) fn in_file(mut self, name: &str) -> Self {
        if self.name.is_empty() {
            name.clone_into(&mut self.name);
        }
        self
    }

    /// For callers that branch.
    pub fn kind(&self) -> ReadErrorKind {
        self.kind
    }

    /// Virtual offset concerned.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// What kind of failure a [`CreateError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CreateErrorKind {
    /// The host refused: disk full, read-only, ...
    Io,
    /// An option no such file can have.
    Option,
    /// The target already holds something.
    NotEmpty,
    /// What is there is not a disk these options began: start over.
    NotResumable,
}

/// A new disk file cannot be begun, or a begun one not gone on with.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the disk: {problem}")]
pub struct CreateError {
    kind: CreateErrorKind,
    problem: String,
    source: Option<io::Error>,
}

impl CreateError {
    pub(crate) fn io(what: &str, source: io::Error) -> Self {
        Self { kind: CreateErrorKind::Io, problem: format!("{what} failed"), source: Some(source) }
    }

    pub(crate) fn option(problem: impl Into<String>) -> Self {
        Self { kind: CreateErrorKind::Option, problem: problem.into(), source: None }
    }

    pub(crate) fn not_empty(len: u64) -> Self {
        Self {
            kind: CreateErrorKind::NotEmpty,
            problem: format!("the target already holds {len} bytes"),
            source: None,
        }
    }

    pub(crate) fn not_resumable(problem: impl Into<String>) -> Self {
        Self { kind: CreateErrorKind::NotResumable, problem: problem.into(), source: None }
    }

    /// For callers that branch.
    pub fn kind(&self) -> CreateErrorKind {
        self.kind
    }
}

/// What kind of failure a [`WriteError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// The host refused: disk full, ...
    Io,
    /// The request leaves the disk: the caller's error.
    OutOfRange,
}

/// A write, checkpoint or finish failed; the file may lack what was written since the last checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the disk: {problem}")]
pub struct WriteError {
    kind: WriteErrorKind,
    problem: String,
    source: Option<io::Error>,
}

impl WriteError {
    pub(crate) fn io(what: &str, offset: u64, source: io::Error) -> Self {
        Self {
            kind: WriteErrorKind::Io,
            problem: format!("{what} at file offset {offset}"),
            source: Some(source),
        }
    }

    pub(crate) fn out_of_range(offset: u64, length: u64, virtual_size: u64) -> Self {
        Self {
            kind: WriteErrorKind::OutOfRange,
            problem: format!("{length} bytes from {offset} leave the disk of {virtual_size} bytes"),
            source: None,
        }
    }

    /// For callers that branch.
    pub fn kind(&self) -> WriteErrorKind {
        self.kind
    }

    /// What the host said, for `StorageFull` and its like.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.source.as_ref().map(io::Error::kind)
    }
}
