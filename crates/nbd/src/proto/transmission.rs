//! The messages of the transmission phase: requests, simple replies, structured reply chunks.
//!
//! Heads and small payloads only; the bytes of a read or write pass beside these types, straight between socket and
//! buffer. Which chunk may answer which request is decided where replies are put together.

use std::fmt;

use super::{DecodeError, Fields};
use crate::limits;

/// First four bytes of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First four bytes of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First four bytes of a structured reply chunk.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Flags of a request.
pub mod command_flags {
    /// Durable before the reply.
    pub const FUA: u16 = 1;
    /// Zeros must stay allocated.
    pub const NO_HOLE: u16 = 2;
    /// Answer a read with one chunk.
    pub const DF: u16 = 4;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 8;
    /// Fail rather than be as slow as writing.
    pub const FAST_ZERO: u16 = 16;
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command {
    /// Read bytes.
    Read,
    /// Write bytes.
    Write,
    /// Say goodbye; there is no reply.
    Disconnect,
    /// Make earlier writes durable.
    Flush,
    /// The range's content is not needed any more.
    Trim,
    /// The range becomes zeros.
    WriteZeroes,
    /// What the range holds.
    BlockStatus,
}

impl Command {
    /// Number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
        }
    }

    /// The command of a number, if this crate knows it.
    pub fn from_code(code: u16) -> Option<Self> {
        [
            Self::Read,
            Self::Write,
            Self::Disconnect,
            Self::Flush,
            Self::Trim,
            Self::WriteZeroes,
            Self::BlockStatus,
        ]
        .into_iter()
        .find(|command| command.code() == code)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write zeroes",
            Self::BlockStatus => "block status",
        })
    }
}

/// The head of a request; a write's bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bits of [`command_flags`].
    pub flags: u16,
    /// What is asked.
    pub command: Command,
    /// Chosen by the client, repeated in every reply to this request.
    pub cookie: u64,
    /// First byte concerned.
    pub offset: u64,
    /// Number of bytes concerned.
    pub length: u32,
}

impl Request {
    /// Length on the wire, without a write's bytes.
    pub const LENGTH: usize = 28;

    /// The head as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.code().to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..28].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// # Errors
    /// A wrong magic number, or a command that this crate does not know.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a request");
        fields.magic32(REQUEST_MAGIC)?;
        let flags = fields.u16()?;
        let code = fields.u16()?;
        let command = Command::from_code(code)
            .ok_or(DecodeError::Value { what: "a request's command", value: code.into() })?;
        Ok(Self { flags, command, cookie: fields.u64()?, offset: fields.u64()?, length: fields.u32()? })
    }
}

/// A server's reason to refuse a request: the protocol's error numbers, which are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerErrno(pub u32);

impl ServerErrno {
    /// Not permitted.
    pub const PERM: Self = Self(1);
    /// Input/output error.
    pub const IO: Self = Self(5);
    /// Cannot allocate memory.
    pub const NOMEM: Self = Self(12);
    /// Invalid argument.
    pub const INVAL: Self = Self(22);
    /// No space left.
    pub const NOSPC: Self = Self(28);
    /// The reply would not fit.
    pub const OVERFLOW: Self = Self(75);
    /// Not supported.
    pub const NOTSUP: Self = Self(95);
    /// The server is shutting down.
    pub const SHUTDOWN: Self = Self(108);
}

impl fmt::Display for ServerErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PERM => f.write_str("operation not permitted"),
            Self::IO => f.write_str("input/output error"),
            Self::NOMEM => f.write_str("cannot allocate memory"),
            Self::INVAL => f.write_str("invalid argument"),
            Self::NOSPC => f.write_str("no space left on device"),
            Self::OVERFLOW => f.write_str("value too large"),
            Self::NOTSUP => f.write_str("operation not supported"),
            Self::SHUTDOWN => f.write_str("server is shutting down"),
            Self(other) => write!(f, "error {other}"),
        }
    }
}

/// A whole reply without chunks; a successful read's bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// 0 for success.
    pub error: ServerErrno,
    /// The request answered.
    pub cookie: u64,
}

impl SimpleReply {
    /// Length on the wire, without a read's bytes.
    pub const LENGTH: usize = 16;

    /// The head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &self.error.0.to_be_bytes(), &self.cookie.to_be_bytes()]
            .concat()
    }
}

/// What a chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Nothing; it only ends the reply.
    None,
    /// An offset and bytes read.
    OffsetData,
    /// A run of zeros.
    OffsetHole,
    /// Extents of one meta context.
    BlockStatus,
    /// An error of the whole request.
    Error,
    /// An error at an offset.
    ErrorOffset,
    /// An error of a kind this crate does not know: its payload starts as [`ChunkKind::Error`]'s.
    UnknownError(u16),
    /// Unknown and no error: the reply cannot be understood.
    Unknown(u16),
}

impl ChunkKind {
    const ERROR_BIT: u16 = 1 << 15;

    /// Number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::None => 0,
            Self::OffsetData => 1,
            Self::OffsetHole => 2,
            Self::BlockStatus => 5,
            Self::Error => Self::ERROR_BIT | 1,
            Self::ErrorOffset => Self::ERROR_BIT | 2,
            Self::UnknownError(code) | Self::Unknown(code) => code,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u16) -> Self {
        match code {
            0 => Self::None,
            1 => Self::OffsetData,
            2 => Self::OffsetHole,
            5 => Self::BlockStatus,
            0x8001 => Self::Error,
            0x8002 => Self::ErrorOffset,
            code if code & Self::ERROR_BIT != 0 => Self::UnknownError(code),
            code => Self::Unknown(code),
        }
    }
}

/// The head of one chunk of a structured reply; `length` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Whether this chunk is the reply's last.
    pub done: bool,
    /// What follows.
    pub kind: ChunkKind,
    /// The request answered.
    pub cookie: u64,
    /// Bytes that follow, within the limit of the kind.
    pub length: u32,
}

impl ChunkHeader {
    /// Length on the wire, without the payload.
    pub const LENGTH: usize = 20;

    /// The head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [
            &CHUNK_MAGIC.to_be_bytes()[..],
            &u16::from(self.done).to_be_bytes(),
            &self.kind.code().to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.length.to_be_bytes(),
        ]
        .concat()
    }

    /// Shortest and longest payload of the kind.
    fn bounds(kind: ChunkKind) -> (u32, u32) {
        match kind {
            ChunkKind::None => (0, 0),
            ChunkKind::OffsetData => (9, 8 + limits::MAX_PAYLOAD),
            ChunkKind::OffsetHole => (12, 12),
            ChunkKind::BlockStatus => (12, 4 + 8 * limits::MAX_REPLY_EXTENTS),
            ChunkKind::Error => (6, 6 + limits::MAX_STRING),
            ChunkKind::ErrorOffset => (14, 14 + limits::MAX_STRING),
            ChunkKind::UnknownError(_) => (6, 6 + 2 * limits::MAX_STRING),
            ChunkKind::Unknown(_) => (0, limits::MAX_PAYLOAD),
        }
    }
}

/// The head of whatever a server sends in the transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A whole reply.
    Simple(SimpleReply),
    /// A part of a structured reply.
    Chunk(ChunkHeader),
}

impl ReplyHeader {
    /// Bytes from which the length of the head is known.
    pub const PREFIX: usize = 4;

    /// Length of the whole head that begins with `prefix`.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] when no reply begins so.
    pub fn length(prefix: [u8; Self::PREFIX]) -> Result<usize, DecodeError> {
        match u32::from_be_bytes(prefix) {
            SIMPLE_REPLY_MAGIC => Ok(SimpleReply::LENGTH),
            CHUNK_MAGIC => Ok(ChunkHeader::LENGTH),
            found => Err(DecodeError::Magic {
                what: "a reply",
                expected: SIMPLE_REPLY_MAGIC.into(),
                found: found.into(),
            }),
        }
    }

    /// # Errors
    /// Bytes that are no head, or a payload length that the chunk's kind rules out.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a reply");
        let magic = fields.u32()?;
        let header = match Self::length(magic.to_be_bytes())? {
            SimpleReply::LENGTH => {
                Self::Simple(SimpleReply { error: ServerErrno(fields.u32()?), cookie: fields.u64()? })
            }
            _ => {
                let done = fields.u16()? & 1 != 0;
                let kind = ChunkKind::from_code(fields.u16()?);
                let cookie = fields.u64()?;
                let length = fields.u32()?;
                let (least, most) = ChunkHeader::bounds(kind);
                if length < least {
                    return Err(DecodeError::Value { what: "a reply chunk's length", value: length.into() });
                }
                if length > most {
                    return Err(DecodeError::TooLong {
                        what: "a reply chunk",
                        length: length.into(),
                        limit: most.into(),
                    });
                }
                Self::Chunk(ChunkHeader { done, kind, cookie, length })
            }
        };
        fields.end()?;
        Ok(header)
    }
}

/// The payload of [`ChunkKind::OffsetHole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// First byte of the zeros.
    pub offset: u64,
    /// Their number, never 0.
    pub length: u32,
}

impl OffsetHole {
    /// # Errors
    /// Bytes that are no such payload, or a length of 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a hole in a read");
        let hole = Self { offset: fields.u64()?, length: fields.u32()? };
        fields.end()?;
        if hole.length == 0 {
            return Err(DecodeError::Value { what: "the length of a hole in a read", value: 0 });
        }
        Ok(hole)
    }

    /// The payload as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&self.offset.to_be_bytes()[..], &self.length.to_be_bytes()].concat()
    }
}

/// The payload of [`ChunkKind::Error`] and [`ChunkKind::ErrorOffset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkError {
    /// Never 0.
    pub error: ServerErrno,
    /// The server's own words, often empty.
    pub message: String,
    /// Where, for [`ChunkKind::ErrorOffset`].
    pub offset: Option<u64>,
}

impl ChunkError {
    /// Decodes the payload of a chunk of `kind`.
    ///
    /// # Errors
    /// Bytes that are no such payload, or an error number of 0.
    pub fn decode(kind: ChunkKind, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "an error reply");
        let error = ServerErrno(fields.u32()?);
        let length = fields.u16()?;
        let message = fields.string(length.into())?;
        let offset = match kind {
            ChunkKind::ErrorOffset => Some(fields.u64()?),
            _ => None,
        };
        // An unknown kind of error may carry more than we know.
        if !matches!(kind, ChunkKind::UnknownError(_)) {
            fields.end()?;
        }
        if error.0 == 0 {
            return Err(DecodeError::Value { what: "the number of an error reply", value: 0 });
        }
        Ok(Self { error, message, offset })
    }

    /// The payload as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let length = u16::try_from(self.message.len()).unwrap_or(u16::MAX);
        let mut out = self.error.0.to_be_bytes().to_vec();
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.message.as_bytes()[..length.into()]);
        if let Some(offset) = self.offset {
            out.extend_from_slice(&offset.to_be_bytes());
        }
        out
    }
}

/// A run of bytes with one status in one meta context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusExtent {
    /// Number of bytes, never 0.
    pub length: u64,
    /// Flags with the context's meaning: [`allocation`](crate::allocation), [`dirty_bitmap`](crate::dirty_bitmap).
    pub flags: u32,
}

/// The payload of [`ChunkKind::BlockStatus`]: extents from the request's offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// Id of the meta context.
    pub context: u32,
    /// At least one.
    pub extents: Vec<StatusExtent>,
}

impl BlockStatus {
    /// # Errors
    /// Bytes that are no such payload, no extent, or an extent of length 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a block status reply");
        let context = fields.u32()?;
        let rest = fields.rest();
        let (pairs, tail) = rest.as_chunks::<8>();
        if !tail.is_empty() {
            return Err(DecodeError::Trailing { what: "a block status reply", extra: tail.len() });
        }
        if pairs.is_empty() {
            return Err(DecodeError::Value { what: "the number of extents in a block status", value: 0 });
        }
        if pairs.len() > limits::MAX_REPLY_EXTENTS as usize {
            return Err(DecodeError::TooLong {
                what: "a block status reply",
                length: pairs.len() as u64,
                limit: limits::MAX_REPLY_EXTENTS.into(),
            });
        }
        let mut extents = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let mut fields = Fields::new(pair, "an extent");
            let (length, flags) = (u64::from(fields.u32()?), fields.u32()?);
            if length == 0 {
                return Err(DecodeError::Value { what: "an extent's length", value: 0 });
            }
            extents.push(StatusExtent { length, flags });
        }
        Ok(Self { context, extents })
    }

    /// The payload as bytes; lengths beyond 32 bits are the caller's to split.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.context.to_be_bytes().to_vec();
        for extent in &self.extents {
            let length = u32::try_from(extent.length).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&extent.flags.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_the_bytes_of_the_specification() {
        let request = Request {
            flags: command_flags::NO_HOLE,
            command: Command::WriteZeroes,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1000,
            length: 0x200,
        };
        let expected = [
            &[0x25, 0x60, 0x95, 0x13, 0, 2, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0],
            &[0, 0, 2, 0],
        ]
        .concat();
        assert_eq!(request.encode()[..], expected[..]);
    }

    #[test]
    fn a_chunk_longer_than_its_kind_allows_is_refused() {
        for (kind, length) in [
            (ChunkKind::None, 1),
            (ChunkKind::OffsetData, 8),
            (ChunkKind::OffsetData, 9 + limits::MAX_PAYLOAD),
            (ChunkKind::OffsetHole, 13),
            (ChunkKind::BlockStatus, 4),
            (ChunkKind::BlockStatus, u32::MAX),
            (ChunkKind::Error, 5),
            (ChunkKind::Error, 1 << 20),
            (ChunkKind::Unknown(77), u32::MAX),
        ] {
            let bytes = ChunkHeader { done: true, kind, cookie: 1, length }.encode();
            assert!(ReplyHeader::decode(&bytes).is_err(), "{kind:?} {length}");
        }
    }

    #[test]
    fn an_error_chunk_without_an_error_is_refused() {
        let bytes = ChunkError { error: ServerErrno(0), message: String::new(), offset: None }.encode();
        assert!(ChunkError::decode(ChunkKind::Error, &bytes).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            flags: u16, code in prop::sample::select(vec![0_u16, 1, 2, 3, 4, 6, 7]), cookie: u64, offset: u64,
            length in 1..u32::MAX, error in 1..u32::MAX, message in "\\PC{0,30}", done: bool,
            extents in prop::collection::vec((1..u32::MAX, any::<u32>()), 1..9),
        ) {
            let command = Command::from_code(code).unwrap();
            let request = Request { flags, command, cookie, offset, length };
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
            let simple = SimpleReply { error: ServerErrno(error), cookie };
            prop_assert_eq!(ReplyHeader::decode(&simple.encode()).unwrap(), ReplyHeader::Simple(simple));
            let chunk = ChunkHeader { done, kind: ChunkKind::OffsetHole, cookie, length: 12 };
            prop_assert_eq!(ReplyHeader::decode(&chunk.encode()).unwrap(), ReplyHeader::Chunk(chunk));
            let hole = OffsetHole { offset, length };
            prop_assert_eq!(OffsetHole::decode(&hole.encode()).unwrap(), hole);
            let failure = ChunkError { error: ServerErrno(error), message, offset: Some(offset) };
            prop_assert_eq!(ChunkError::decode(ChunkKind::ErrorOffset, &failure.encode()).unwrap(), failure);
            let extents = extents.into_iter().map(|(l, flags)| StatusExtent { length: l.into(), flags }).collect();
            let status = BlockStatus { context: length, extents };
            prop_assert_eq!(BlockStatus::decode(&status.encode()).unwrap(), status);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), code: u16) {
            let _ = ReplyHeader::decode(&bytes);
            let _ = OffsetHole::decode(&bytes);
            let _ = BlockStatus::decode(&bytes);
            let _ = ChunkError::decode(ChunkKind::from_code(code), &bytes);
        }
    }
}
