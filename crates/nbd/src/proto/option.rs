//! The messages of the fixed newstyle handshake: greeting, options, option replies.
//!
//! Only shapes live here; the order of the conversation is in [`negotiation`](crate::negotiation).

use super::{DecodeError, Fields, put_string};
use crate::limits;

/// First eight bytes of every NBD server: "NBDMAGIC".
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second eight bytes of a newstyle server, and first of every option: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second eight bytes of an oldstyle server, which has no options.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// First eight bytes of every option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// What a server says first, by flag bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HandshakeFlags(pub u16);

impl HandshakeFlags {
    /// The server answers every option and survives unknown ones.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// The 124 zero bytes after `NBD_OPT_EXPORT_NAME` may be left out.
    pub const NO_ZEROES: u16 = 2;

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u16) -> bool {
        self.0 & flag == flag
    }
}

/// What a client answers to the greeting, by flag bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientFlags(pub u32);

impl ClientFlags {
    /// The client speaks fixed newstyle.
    pub const FIXED_NEWSTYLE: u32 = 1;
    /// The client expects no zero padding after `NBD_OPT_EXPORT_NAME`.
    pub const NO_ZEROES: u32 = 2;
}

/// What an export can do, by flag bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// The other flags mean something.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `NBD_CMD_FLUSH` is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The FUA flag is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `NBD_CMD_TRIM` is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `NBD_CMD_WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag is understood.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers writes of all connections.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// The FAST_ZERO flag is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u16) -> bool {
        self.0 & flag == flag
    }
}

/// The server's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What the server can do in the handshake.
    pub flags: HandshakeFlags,
}

impl Greeting {
    /// Length on the wire.
    pub const LENGTH: usize = 18;

    /// # Errors
    /// [`DecodeError::Magic`] when the peer is no NBD server, or an oldstyle one (then `found` is [`OLDSTYLE_MAGIC`]).
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "the greeting");
        fields.magic64(NBD_MAGIC)?;
        fields.magic64(OPTION_MAGIC)?;
        Ok(Self { flags: HandshakeFlags(fields.u16()?) })
    }

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&NBD_MAGIC.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &self.flags.0.to_be_bytes()].concat()
    }
}

/// The number of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// Choose an export and begin, without any error reply.
    pub const EXPORT_NAME: Self = Self(1);
    /// Give up politely.
    pub const ABORT: Self = Self(2);
    /// Name all exports.
    pub const LIST: Self = Self(3);
    /// Switch to TLS.
    pub const STARTTLS: Self = Self(5);
    /// Describe an export.
    pub const INFO: Self = Self(6);
    /// Describe an export and begin.
    pub const GO: Self = Self(7);
    /// Use structured replies.
    pub const STRUCTURED_REPLY: Self = Self(8);
    /// Name the meta contexts of an export.
    pub const LIST_META_CONTEXT: Self = Self(9);
    /// Choose the meta contexts of an export.
    pub const SET_META_CONTEXT: Self = Self(10);

    /// The name in the protocol's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::EXPORT_NAME => "NBD_OPT_EXPORT_NAME",
            Self::ABORT => "NBD_OPT_ABORT",
            Self::LIST => "NBD_OPT_LIST",
            Self::STARTTLS => "NBD_OPT_STARTTLS",
            Self::INFO => "NBD_OPT_INFO",
            Self::GO => "NBD_OPT_GO",
            Self::STRUCTURED_REPLY => "NBD_OPT_STRUCTURED_REPLY",
            Self::LIST_META_CONTEXT => "NBD_OPT_LIST_META_CONTEXT",
            Self::SET_META_CONTEXT => "NBD_OPT_SET_META_CONTEXT",
            _ => "an unknown option",
        }
    }
}

/// An option as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionRequest {
    /// Which option.
    pub option: OptionCode,
    /// Its data, shaped by the option.
    pub data: Vec<u8>,
}

impl OptionRequest {
    /// Length of what comes before the data.
    pub const HEADER: usize = 16;

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        [&OPTION_MAGIC.to_be_bytes()[..], &self.option.0.to_be_bytes(), &length.to_be_bytes(), &self.data]
            .concat()
    }

    /// The option and the length of the data that follows the header.
    ///
    /// # Errors
    /// A wrong magic number, or more data than any option has.
    pub fn decode_header(bytes: &[u8; Self::HEADER]) -> Result<(OptionCode, u32), DecodeError> {
        let mut fields = Fields::new(bytes, "an option");
        fields.magic64(OPTION_MAGIC)?;
        let option = OptionCode(fields.u32()?);
        Ok((option, bounded(fields.u32()?, "an option's data")?))
    }
}

/// What kind of option reply: an acknowledgement, an answer, or an error.
pub mod reply_kind {
    /// The option is done.
    pub const ACK: u32 = 1;
    /// One export of a listing.
    pub const SERVER: u32 = 2;
    /// One piece of information about an export.
    pub const INFO: u32 = 3;
    /// One meta context.
    pub const META_CONTEXT: u32 = 4;
    /// Set in the number of every error reply.
    pub const ERROR: u32 = 1 << 31;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// The server's policy forbids the option.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The server finds the option malformed.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// The platform lacks what the option needs.
    pub const ERR_PLATFORM: u32 = ERROR | 4;
    /// TLS must be started first.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// No export has that name.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is shutting down.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    /// The client must ask for block sizes.
    pub const ERR_BLOCK_SIZE_REQD: u32 = ERROR | 8;
    /// The request is too large.
    pub const ERR_TOO_BIG: u32 = ERROR | 9;

    /// What an error reply's number means, in words.
    pub fn describe(kind: u32) -> &'static str {
        match kind {
            ERR_UNSUP => "not supported",
            ERR_POLICY => "forbidden by the server's policy",
            ERR_INVALID => "malformed according to the server",
            ERR_PLATFORM => "not supported on the server's platform",
            ERR_TLS_REQD => "TLS required",
            ERR_UNKNOWN => "no such export",
            ERR_SHUTDOWN => "the server is shutting down",
            ERR_BLOCK_SIZE_REQD => "the server insists on its block sizes",
            ERR_TOO_BIG => "too large",
            _ => "an error that the protocol does not name",
        }
    }
}

/// The head of an option reply; `length` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option answered.
    pub option: OptionCode,
    /// One of [`reply_kind`].
    pub kind: u32,
    /// Bytes that follow, at most [`MAX_OPTION_REPLY`](limits::MAX_OPTION_REPLY).
    pub length: u32,
}

impl OptionReply {
    /// Length on the wire, without the data.
    pub const HEADER: usize = 20;

    /// # Errors
    /// A wrong magic number, or more data than any reply has.
    pub fn decode(bytes: &[u8; Self::HEADER]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "an option reply");
        fields.magic64(OPTION_REPLY_MAGIC)?;
        let option = OptionCode(fields.u32()?);
        let kind = fields.u32()?;
        Ok(Self { option, kind, length: bounded(fields.u32()?, "an option reply")? })
    }

    /// Head and data as bytes; `length` is taken from the data.
    pub fn encode(option: OptionCode, kind: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        [
            &OPTION_REPLY_MAGIC.to_be_bytes()[..],
            &option.0.to_be_bytes(),
            &kind.to_be_bytes(),
            &length.to_be_bytes(),
            data,
        ]
        .concat()
    }
}

fn bounded(length: u32, what: &'static str) -> Result<u32, DecodeError> {
    if length > limits::MAX_OPTION_REPLY {
        return Err(DecodeError::TooLong {
            what,
            length: length.into(),
            limit: limits::MAX_OPTION_REPLY.into(),
        });
    }
    Ok(length)
}

/// One export in a listing: the data of a [`reply_kind::SERVER`] reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerItem {
    /// The export's name; empty for the default export.
    pub name: String,
    /// What the server adds for people, often nothing.
    pub details: String,
}

impl ServerItem {
    /// # Errors
    /// Bytes that are no such item.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "an export's listing");
        let length = fields.u32()?;
        Ok(Self { name: fields.string(length)?, details: fields.rest_string()? })
    }

    /// The item as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.name);
        out.extend_from_slice(self.details.as_bytes());
        out
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export's name; empty for the default export.
    pub export: String,
    /// Kinds of information wanted, numbers of [`Info`].
    pub wanted: Vec<u16>,
}

impl InfoRequest {
    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        let count = u16::try_from(self.wanted.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for kind in self.wanted.iter().take(count.into()) {
            out.extend_from_slice(&kind.to_be_bytes());
        }
        out
    }

    /// # Errors
    /// Bytes that are no such request.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a request for export information");
        let length = fields.u32()?;
        let export = fields.string(length)?;
        let count = fields.u16()?;
        let wanted = (0..count).map(|_| fields.u16()).collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(Self { export, wanted })
    }
}

/// One piece of information about an export: the data of a [`reply_kind::INFO`] reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Info {
    /// Size in bytes and abilities. Always sent.
    Export {
        /// Size in bytes.
        size: u64,
        /// Abilities.
        flags: TransmissionFlags,
    },
    /// The export's own name.
    Name(String),
    /// A description for people.
    Description(String),
    /// Limits on offsets and lengths, in bytes.
    BlockSize {
        /// Every offset and length must be a multiple of this: a power of two up to 64 KiB.
        minimum: u32,
        /// What the server handles best.
        preferred: u32,
        /// Longest payload.
        maximum: u32,
    },
    /// A kind this crate does not know; to be ignored.
    Other(u16),
}

impl Info {
    /// Number of [`Info::Export`].
    pub const EXPORT: u16 = 0;
    /// Number of [`Info::Name`].
    pub const NAME: u16 = 1;
    /// Number of [`Info::Description`].
    pub const DESCRIPTION: u16 = 2;
    /// Number of [`Info::BlockSize`].
    pub const BLOCK_SIZE: u16 = 3;

    /// # Errors
    /// Bytes that are no such information, an impossible size or block size.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "export information");
        let info = match fields.u16()? {
            Self::EXPORT => {
                let size = fields.u64()?;
                if size > limits::MAX_EXPORT_SIZE {
                    return Err(DecodeError::TooLong {
                        what: "the export's size",
                        length: size,
                        limit: limits::MAX_EXPORT_SIZE,
                    });
                }
                Self::Export { size, flags: TransmissionFlags(fields.u16()?) }
            }
            Self::NAME => Self::Name(fields.rest_string()?),
            Self::DESCRIPTION => Self::Description(fields.rest_string()?),
            Self::BLOCK_SIZE => {
                let (minimum, preferred, maximum) = (fields.u32()?, fields.u32()?, fields.u32()?);
                if !minimum.is_power_of_two() || minimum > limits::MAX_MINIMUM_BLOCK {
                    return Err(DecodeError::Value { what: "the minimum block size", value: minimum.into() });
                }
                if maximum < minimum {
                    return Err(DecodeError::Value { what: "the maximum block size", value: maximum.into() });
                }
                Self::BlockSize { minimum, preferred, maximum }
            }
            other => return Ok(Self::Other(other)),
        };
        fields.end()?;
        Ok(info)
    }

    /// The information as bytes; [`Info::Other`] has none but its number.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Export { size, flags } => {
                [&Self::EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.0.to_be_bytes()].concat()
            }
            Self::Name(name) => [&Self::NAME.to_be_bytes()[..], name.as_bytes()].concat(),
            Self::Description(text) => [&Self::DESCRIPTION.to_be_bytes()[..], text.as_bytes()].concat(),
            Self::BlockSize { minimum, preferred, maximum } => [
                &Self::BLOCK_SIZE.to_be_bytes()[..],
                &minimum.to_be_bytes(),
                &preferred.to_be_bytes(),
                &maximum.to_be_bytes(),
            ]
            .concat(),
            Self::Other(kind) => kind.to_be_bytes().to_vec(),
        }
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaQuery {
    /// The export's name.
    pub export: String,
    /// Contexts wanted; `namespace:` alone matches all of a namespace in a listing.
    pub queries: Vec<String>,
}

impl MetaQuery {
    /// The query as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        let count = u32::try_from(self.queries.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for query in &self.queries {
            put_string(&mut out, query);
        }
        out
    }

    /// # Errors
    /// Bytes that are no such query, or more than [`MAX_CONTEXTS`](limits::MAX_CONTEXTS) of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a meta context query");
        let length = fields.u32()?;
        let export = fields.string(length)?;
        let count = fields.u32()?;
        if count as usize > limits::MAX_CONTEXTS {
            return Err(DecodeError::TooLong {
                what: "a meta context query",
                length: count.into(),
                limit: limits::MAX_CONTEXTS as u64,
            });
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let length = fields.u32()?;
            queries.push(fields.string(length)?);
        }
        fields.end()?;
        Ok(Self { export, queries })
    }
}

/// One meta context: the data of a [`reply_kind::META_CONTEXT`] reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContext {
    /// What block status replies call it on this connection; 0 in a listing.
    pub id: u32,
    /// Its name, such as `base:allocation`.
    pub name: String,
}

impl MetaContext {
    /// # Errors
    /// Bytes that are no such context.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "a meta context");
        Ok(Self { id: fields.u32()?, name: fields.rest_string()? })
    }

    /// The context as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&self.id.to_be_bytes()[..], self.name.as_bytes()].concat()
    }
}

/// The server's answer to `NBD_OPT_EXPORT_NAME`: size and abilities, without any head.
///
/// # Errors
/// An impossible size.
pub fn decode_export_name_reply(bytes: &[u8; 10]) -> Result<(u64, TransmissionFlags), DecodeError> {
    let mut fields = Fields::new(bytes, "the answer to an export name");
    let size = fields.u64()?;
    if size > limits::MAX_EXPORT_SIZE {
        return Err(DecodeError::TooLong {
            what: "the export's size",
            length: size,
            limit: limits::MAX_EXPORT_SIZE,
        });
    }
    Ok((size, TransmissionFlags(fields.u16()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_greeting_is_the_bytes_of_the_specification() {
        let greeting = Greeting { flags: HandshakeFlags(3) };
        assert_eq!(greeting.encode(), b"NBDMAGICIHAVEOPT\x00\x03");
    }

    #[test]
    fn block_sizes_out_of_range_are_refused() {
        for (minimum, maximum) in [(0, 1 << 20), (3, 1 << 20), (128 << 10, 1 << 20), (4096, 512)] {
            let bytes = Info::BlockSize { minimum, preferred: 4096, maximum }.encode();
            assert!(matches!(Info::decode(&bytes), Err(DecodeError::Value { .. })), "{minimum} {maximum}");
        }
    }

    #[test]
    fn an_export_beyond_the_signed_offsets_is_refused() {
        let bytes = Info::Export { size: 1 << 63, flags: TransmissionFlags(1) }.encode();
        assert!(matches!(Info::decode(&bytes), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn a_string_longer_than_the_message_is_short_and_one_over_the_limit_is_too_long() {
        assert!(matches!(ServerItem::decode(&[0, 0, 0, 9, b'x']), Err(DecodeError::Short { .. })));
        assert!(matches!(ServerItem::decode(&[0xff; 8]), Err(DecodeError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            name in "\\PC{0,40}", details in "\\PC{0,40}", size in 0..=limits::MAX_EXPORT_SIZE, flags: u16, id: u32,
            wanted in prop::collection::vec(any::<u16>(), 0..5), queries in prop::collection::vec("\\PC{0,20}", 0..5),
        ) {
            let item = ServerItem { name: name.clone(), details: details.clone() };
            prop_assert_eq!(ServerItem::decode(&item.encode()).unwrap(), item);
            let context = MetaContext { id, name: name.clone() };
            prop_assert_eq!(MetaContext::decode(&context.encode()).unwrap(), context);
            let request = InfoRequest { export: name.clone(), wanted };
            prop_assert_eq!(InfoRequest::decode(&request.encode()).unwrap(), request);
            let query = MetaQuery { export: name.clone(), queries };
            prop_assert_eq!(MetaQuery::decode(&query.encode()).unwrap(), query);
            for info in [
                Info::Export { size, flags: TransmissionFlags(flags) },
                Info::Name(name),
                Info::Description(details),
                Info::BlockSize { minimum: 512, preferred: 4096, maximum: 1 << 25 },
            ] {
                prop_assert_eq!(Info::decode(&info.encode()).unwrap(), info);
            }
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = ServerItem::decode(&bytes);
            let _ = MetaContext::decode(&bytes);
            let _ = InfoRequest::decode(&bytes);
            let _ = MetaQuery::decode(&bytes);
            let _ = Info::decode(&bytes);
        }
    }
}
