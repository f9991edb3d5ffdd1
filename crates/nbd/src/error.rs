//! What can go wrong, one type per thing a caller does: connecting, and asking.
//!
//! Both types are opaque; `kind()` tells what a caller may branch on, the chain of sources tells people the rest.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::option::{OptionCode, reply_kind};
use crate::proto::{Command, DecodeError, ServerErrno};

/// No connection to an export.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the NBD server at {}", path.display())]
pub struct ConnectError {
    path: PathBuf,
    #[source]
    cause: HandshakeFault,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// Nothing listens at the path, or it may not be opened.
    Unreachable,
    /// What listens there speaks another protocol, or only oldstyle NBD.
    NotNbd,
    /// The server has no export of that name.
    NoSuchExport,
    /// The server wants TLS, which this client does not speak.
    TlsRequired,
    /// The server refuses for another reason of its own.
    Refused,
    /// The server breaks the protocol or a limit.
    Protocol,
    /// The server did not answer in time.
    Timeout,
    /// The connection broke.
    Disconnected,
    /// This machine lacks something, such as a thread.
    Local,
}

impl ConnectError {
    pub(crate) fn new(path: PathBuf, cause: HandshakeFault) -> Self {
        Self { path, cause }
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> ConnectErrorKind {
        use ConnectErrorKind as Kind;
        match &self.cause {
            HandshakeFault::Connect { .. } => Kind::Unreachable,
            HandshakeFault::NotNbd | HandshakeFault::Oldstyle => Kind::NotNbd,
            HandshakeFault::Refused { kind: reply_kind::ERR_UNKNOWN, .. } => Kind::NoSuchExport,
            HandshakeFault::Refused { kind: reply_kind::ERR_TLS_REQD, .. } => Kind::TlsRequired,
            HandshakeFault::Refused { .. } => Kind::Refused,
            HandshakeFault::Timeout { .. } => Kind::Timeout,
            HandshakeFault::Io { .. } | HandshakeFault::Closed { .. } => Kind::Disconnected,
            HandshakeFault::Local { .. } => Kind::Local,
            HandshakeFault::Decode(_)
            | HandshakeFault::UnexpectedReply { .. }
            | HandshakeFault::TooMany { .. }
            | HandshakeFault::NoSize
            | HandshakeFault::NameTooLong { .. }
            | HandshakeFault::TwiceTheSameContext { .. } => Kind::Protocol,
        }
    }
}

/// What broke a handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeFault {
    #[error("cannot connect to the socket")]
    Connect { source: io::Error },
    #[error("the peer does not speak NBD")]
    NotNbd,
    #[error("the server speaks only the oldstyle protocol, which has no export names and no block status")]
    Oldstyle,
    #[error("cannot {during}")]
    Io { during: &'static str, source: io::Error },
    #[error("the server closed the connection while we tried to {during}")]
    Closed { during: &'static str },
    #[error("no answer within {} s while we tried to {during}", limit.as_secs_f32())]
    Timeout { during: &'static str, limit: Duration },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{} was refused: {}{}", option.name(), reply_kind::describe(*kind), words(message))]
    Refused { option: OptionCode, kind: u32, message: String },
    #[error("{} was answered by reply {kind:#x} to option {} instead", option.name(), found.0)]
    UnexpectedReply { option: OptionCode, found: OptionCode, kind: u32 },
    #[error("the server sends more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("the server did not tell the export's size")]
    NoSize,
    #[error("{what} has {length} bytes, and NBD allows {limit}")]
    NameTooLong { what: &'static str, length: usize, limit: u32 },
    #[error("the server gave two meta contexts the id {id}")]
    TwiceTheSameContext { id: u32 },
    #[error("cannot {doing}")]
    Local { doing: &'static str, source: io::Error },
}

fn words(message: &str) -> String {
    match message.trim() {
        "" => String::new(),
        // Escaped: it is the peer's text and may end in a terminal.
        text => format!(" (the server says: {})", text.escape_debug()),
    }
}

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("NBD {command} of {length} bytes at offset {offset} failed")]
pub struct RequestError {
    command: Command,
    offset: u64,
    length: u64,
    #[source]
    cause: RequestFault,
}

/// Why a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// The range ends beyond the export.
    OutOfRange,
    /// Offset or length is no multiple of the server's minimum block size.
    Unaligned,
    /// The export is read-only.
    ReadOnly,
    /// The server does not offer the command.
    Unsupported,
    /// The meta context was not negotiated.
    UnknownContext,
    /// More extents than [`limits::MAX_GATHERED_EXTENTS`](crate::limits::MAX_GATHERED_EXTENTS).
    TooManyExtents,
    /// The server answered with an error; the connection goes on.
    Server(ServerErrno),
    /// No answer in time; the connection is closed.
    Timeout,
    /// The server broke the protocol or a limit; the connection is closed.
    Protocol,
    /// The connection is lost, now or earlier.
    Disconnected,
}

impl RequestError {
    pub(crate) fn new(command: Command, offset: u64, length: u64, cause: RequestFault) -> Self {
        Self { command, offset, length, cause }
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> RequestErrorKind {
        use RequestErrorKind as Kind;
        match &self.cause {
            RequestFault::OutOfRange { .. } => Kind::OutOfRange,
            RequestFault::Unaligned { .. } => Kind::Unaligned,
            RequestFault::ReadOnly => Kind::ReadOnly,
            RequestFault::Unsupported => Kind::Unsupported,
            RequestFault::UnknownContext { .. } => Kind::UnknownContext,
            RequestFault::TooManyExtents { .. } => Kind::TooManyExtents,
            RequestFault::Server(failure) => Kind::Server(failure.error),
            RequestFault::Lost(fault) => match &**fault {
                ConnectionFault::Timeout { .. } => Kind::Timeout,
                ConnectionFault::Closed | ConnectionFault::Io { .. } => Kind::Disconnected,
                _ => Kind::Protocol,
            },
        }
    }

    /// First byte of the range asked about.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes of the range asked about.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The command that failed.
    pub fn command(&self) -> Command {
        self.command
    }
}

impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> Self {
        let kind = match error.kind() {
            RequestErrorKind::OutOfRange => io::ErrorKind::UnexpectedEof,
            RequestErrorKind::Unaligned
            | RequestErrorKind::UnknownContext
            | RequestErrorKind::Server(ServerErrno::INVAL) => io::ErrorKind::InvalidInput,
            RequestErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            RequestErrorKind::Unsupported | RequestErrorKind::Server(ServerErrno::NOTSUP) => {
                io::ErrorKind::Unsupported
            }
            RequestErrorKind::Server(ServerErrno::NOSPC) => io::ErrorKind::StorageFull,
            RequestErrorKind::Server(ServerErrno::PERM) => io::ErrorKind::PermissionDenied,
            RequestErrorKind::Timeout => io::ErrorKind::TimedOut,
            RequestErrorKind::Protocol => io::ErrorKind::InvalidData,
            RequestErrorKind::Disconnected => io::ErrorKind::ConnectionAborted,
            RequestErrorKind::TooManyExtents | RequestErrorKind::Server(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What failed a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFault {
    #[error("the export ends at {size}")]
    OutOfRange { size: u64 },
    #[error("the server takes only multiples of {minimum} bytes")]
    Unaligned { minimum: u32 },
    #[error("the export is read-only")]
    ReadOnly,
    #[error("the server does not offer this command for the export")]
    Unsupported,
    #[error("the meta context {name:?} was not granted when the connection was made")]
    UnknownContext { name: String },
    #[error("the range holds more than {limit} extents; ask about a shorter one, or walk it lazily")]
    TooManyExtents { limit: usize },
    #[error(transparent)]
    Server(ServerFailure),
    #[error(transparent)]
    Lost(Arc<ConnectionFault>),
}

/// An error reply to one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server answered: {error}{}", words(message))]
pub struct ServerFailure {
    /// The protocol's error number.
    pub error: ServerErrno,
    /// The server's own words, often empty.
    pub message: String,
    /// Where within the export, if the server told.
    pub offset: Option<u64>,
}

/// What ended a connection for every request on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionFault {
    /// The server is gone.
    #[error("the server closed the connection")]
    Closed,
    /// The socket failed.
    #[error("cannot {during}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A request stayed without answer. The connection is given up, because nobody can tell any more what was done.
    #[error("no answer to {command} within {} s", limit.as_secs_f32())]
    Timeout {
        /// The request.
        command: Command,
        /// The time allowed.
        limit: Duration,
    },
    /// Bytes that are no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A reply to nothing that was asked.
    #[error("the server answered cookie {cookie}, which is not in flight")]
    UnknownCookie {
        /// The cookie.
        cookie: u64,
    },
    /// A simple reply where only structured ones may come, or the other way round.
    #[error("the server answered {command} by a {} reply, against what was negotiated", if *structured { "structured" } else { "simple" })]
    WrongStyle {
        /// The request.
        command: Command,
        /// Which style came.
        structured: bool,
    },
    /// A chunk that does not answer such a request.
    #[error("the server answered {command} by a chunk of kind {kind}")]
    WrongChunk {
        /// The request.
        command: Command,
        /// The chunk's number.
        kind: u16,
    },
    /// Bytes outside the range that was read, or the same bytes twice.
    #[error("the server answered a read of {length} bytes at {offset} by {found_length} at {found_offset}{}", if *twice { " a second time" } else { "" })]
    WrongRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u32,
        /// First byte sent.
        found_offset: u64,
        /// Bytes sent.
        found_length: u32,
        /// Whether the range lies inside but was sent before.
        twice: bool,
    },
    /// A reply that ends without all that was asked for, and without an error.
    #[error("the server ended its answer to {command} without answering all of it")]
    Incomplete {
        /// The request.
        command: Command,
    },
    /// A block status that does not fit the request.
    #[error("the server's block status {problem}")]
    WrongStatus {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More chunks than any reply needs.
    #[error("the server sent more than {limit} chunks for one request")]
    TooManyChunks {
        /// The limit.
        limit: u32,
    },
}
