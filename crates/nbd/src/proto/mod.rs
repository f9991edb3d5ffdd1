//! The wire as pure values: constants, and types that encode to bytes and decode from bytes.
//!
//! Nothing here reads a socket, keeps state or allocates by an unchecked length, so that client, server, tests and
//! fuzzing share one telling of the protocol. [`option`] holds the handshake, [`transmission`] what follows it. All
//! integers are big-endian. Whether a message is *allowed* at some moment is decided by its user.

pub mod option;
pub mod transmission;

pub use option::{
    ClientFlags, Greeting, HandshakeFlags, Info, InfoRequest, MetaContext, MetaQuery, OptionCode,
    OptionReply, OptionRequest, ServerItem, TransmissionFlags,
};
pub use transmission::{
    BlockStatus, ChunkError, ChunkHeader, ChunkKind, Command, OffsetHole, ReplyHeader, Request, ServerErrno,
    SimpleReply, StatusExtent, command_flags,
};

/// Bytes that are no message of the kind expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message's magic number is another one.
    #[error("{what} begins with {found:#x} instead of {expected:#x}")]
    Magic {
        /// Which message.
        what: &'static str,
        /// The number that belongs there.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// The message ends before its last field.
    #[error("{what} ends within a field")]
    Short {
        /// Which message.
        what: &'static str,
    },
    /// Bytes are left after the last field.
    #[error("{what} has {extra} bytes after its last field")]
    Trailing {
        /// Which message.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A length beyond a constant of [`limits`](crate::limits).
    #[error("{what} claims {length}, more than the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// What the peer said.
        length: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A string that is no UTF-8.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// Which string.
        what: &'static str,
    },
    /// A value that the protocol rules out.
    #[error("{what} is {value}, which the protocol does not allow")]
    Value {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Takes fields off the front of a message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn magic32(&mut self, expected: u32) -> Result<(), DecodeError> {
        let found = self.u32()?;
        if found == expected {
            return Ok(());
        }
        Err(DecodeError::Magic { what: self.what, expected: expected.into(), found: found.into() })
    }

    pub(crate) fn magic64(&mut self, expected: u64) -> Result<(), DecodeError> {
        let found = self.u64()?;
        if found == expected {
            return Ok(());
        }
        Err(DecodeError::Magic { what: self.what, expected, found })
    }

    /// A string of `length` bytes, at most [`MAX_STRING`](crate::limits::MAX_STRING).
    pub(crate) fn string(&mut self, length: u32) -> Result<String, DecodeError> {
        let limit = crate::limits::MAX_STRING;
        if length > limit {
            return Err(DecodeError::TooLong { what: self.what, length: length.into(), limit: limit.into() });
        }
        let (text, rest) =
            self.rest.split_at_checked(length as usize).ok_or(DecodeError::Short { what: self.what })?;
        self.rest = rest;
        text_of(text, self.what)
    }

    /// All that is left, as a string.
    pub(crate) fn rest_string(&mut self) -> Result<String, DecodeError> {
        let length = u32::try_from(self.rest.len()).unwrap_or(u32::MAX);
        self.string(length)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { what: self.what, extra }),
        }
    }
}

fn text_of(bytes: &[u8], what: &'static str) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(DecodeError::NotUtf8 { what }),
    }
}

/// Appends a string behind its length; strings beyond the protocol's limit are the caller's to refuse.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
