//! The fixed newstyle handshake, from the client's side.
//!
//! A [`Negotiation`] is a connection that has not chosen its export yet: it can list exports, describe them and name
//! their meta contexts, as often as wanted, until it is consumed by [`Client::start`](crate::Client::start). All of it
//! shares one deadline. What happens after the choice is in [`client`](crate::client).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{ConnectError, HandshakeFault};
use crate::limits;
use crate::proto::option::{OLDSTYLE_MAGIC, decode_export_name_reply, reply_kind};
use crate::proto::{
    ClientFlags, DecodeError, Greeting, HandshakeFlags, Info, InfoRequest, MetaContext, MetaQuery,
    OptionCode, OptionReply, OptionRequest, ServerItem, TransmissionFlags,
};

/// Limits on offsets and lengths of requests, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Every offset and length must be a multiple of this power of two.
    pub minimum: u32,
    /// What the server handles best.
    pub preferred: u32,
    /// Longest payload.
    pub maximum: u32,
}

impl Default for BlockSizes {
    /// What the protocol assumes of a server that does not tell.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, maximum: limits::MAX_PAYLOAD }
    }
}

/// What a server tells about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Size in bytes.
    pub size: u64,
    /// Abilities.
    pub flags: TransmissionFlags,
    /// Limits on requests.
    pub blocks: BlockSizes,
    /// The export's own name, if the server told.
    pub name: Option<String>,
    /// A description for people, if the server told.
    pub description: Option<String>,
}

/// One export in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportListing {
    /// Its name; empty for the default export.
    pub name: String,
    /// What the server adds for people, often empty.
    pub description: String,
}

/// A connection that has not chosen its export yet.
#[derive(Debug)]
pub struct Negotiation {
    path: PathBuf,
    wire: Wire,
    no_zeroes: bool,
    structured: Option<bool>,
}

/// A connection that has: what [`Client`](crate::Client) is made of.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) path: PathBuf,
    pub(crate) stream: UnixStream,
    pub(crate) export: Export,
    pub(crate) contexts: Vec<MetaContext>,
    pub(crate) structured: bool,
}

impl Negotiation {
    /// Connects to the Unix socket at `path` and exchanges greetings; `timeout` covers this and all that follows on
    /// this value. Connecting itself waits for as long as the server's queue of connections is full.
    ///
    /// # Errors
    /// No server there, no fixed newstyle NBD server, or no answer in time.
    pub fn connect_unix(path: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        UnixStream::connect(path)
            .map_err(|source| HandshakeFault::Connect { source })
            .and_then(|stream| Self::greet(path, stream, timeout))
            .map_err(|cause| ConnectError::new(path.to_owned(), cause))
    }

    fn greet(path: &Path, stream: UnixStream, timeout: Duration) -> Result<Self, HandshakeFault> {
        let mut wire = Wire { stream, deadline: Instant::now() + timeout, limit: timeout };
        let greeting = match Greeting::decode(&wire.read("read the greeting")?) {
            Ok(greeting) => greeting,
            Err(DecodeError::Magic { found: OLDSTYLE_MAGIC, .. }) => return Err(HandshakeFault::Oldstyle),
            Err(_) => return Err(HandshakeFault::NotNbd),
        };
        if !greeting.flags.has(HandshakeFlags::FIXED_NEWSTYLE) {
            return Err(HandshakeFault::Oldstyle);
        }
        let no_zeroes = greeting.flags.has(HandshakeFlags::NO_ZEROES);
        let mut flags = ClientFlags(ClientFlags::FIXED_NEWSTYLE);
        if no_zeroes {
            flags.0 |= ClientFlags::NO_ZEROES;
        }
        wire.write(&flags.0.to_be_bytes(), "answer the greeting")?;
        Ok(Self { path: path.to_owned(), wire, no_zeroes, structured: None })
    }

    /// Names all exports.
    ///
    /// # Errors
    /// The server refuses (many do, by policy), breaks the protocol, or does not answer in time.
    pub fn list(&mut self) -> Result<Vec<ExportListing>, ConnectError> {
        self.try_list().map_err(|cause| self.error(cause))
    }

    /// Describes `export` without choosing it.
    ///
    /// # Errors
    /// No such export, the server refuses, breaks the protocol, or does not answer in time.
    pub fn info(&mut self, export: &str) -> Result<Export, ConnectError> {
        self.describe(OptionCode::INFO, export).map_err(|cause| self.error(cause))
    }

    /// Names the meta contexts of `export` that match any of `queries`; all of them when `queries` is empty, all of a
    /// namespace for `"namespace:"`. Empty when the server has no structured replies.
    ///
    /// # Errors
    /// No such export, the server refuses, breaks the protocol, or does not answer in time.
    pub fn list_meta_contexts(
        &mut self,
        export: &str,
        queries: &[&str],
    ) -> Result<Vec<String>, ConnectError> {
        self.meta_contexts(OptionCode::LIST_META_CONTEXT, export, queries)
            .map(|contexts| contexts.into_iter().map(|context| context.name).collect())
            .map_err(|cause| self.error(cause))
    }

    /// Says goodbye. Dropping the value does as well, less politely.
    pub fn abort(mut self) {
        // The server's farewell would tell us nothing.
        let _ = self.send(OptionCode::ABORT, Vec::new());
    }

    /// Chooses `export` and those of the contexts `want` that the server grants.
    pub(crate) fn go(mut self, export: &str, want: &[&str]) -> Result<Established, ConnectError> {
        match self.try_go(export, want) {
            Ok((export, contexts)) => Ok(Established {
                path: self.path,
                stream: self.wire.stream,
                export,
                contexts,
                structured: self.structured.unwrap_or(false),
            }),
            Err(cause) => Err(self.error(cause)),
        }
    }

    fn error(&self, cause: HandshakeFault) -> ConnectError {
        ConnectError::new(self.path.clone(), cause)
    }

    fn try_go(&mut self, export: &str, want: &[&str]) -> Result<(Export, Vec<MetaContext>), HandshakeFault> {
        self.structured()?;
        let contexts = if want.is_empty() {
            Vec::new()
        } else {
            self.meta_contexts(OptionCode::SET_META_CONTEXT, export, want)?
        };
        let export = match self.describe(OptionCode::GO, export) {
            Err(HandshakeFault::Refused { kind: reply_kind::ERR_UNSUP, .. }) => self.export_name(export)?,
            other => other?,
        };
        Ok((export, contexts))
    }

    fn try_list(&mut self) -> Result<Vec<ExportListing>, HandshakeFault> {
        self.send(OptionCode::LIST, Vec::new())?;
        let mut exports = Vec::new();
        while let Some(data) = self.answer(OptionCode::LIST, reply_kind::SERVER)? {
            if exports.len() == limits::MAX_EXPORTS {
                return Err(HandshakeFault::TooMany { what: "exports", limit: limits::MAX_EXPORTS });
            }
            let item = ServerItem::decode(&data)?;
            exports.push(ExportListing { name: item.name, description: item.details });
        }
        Ok(exports)
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`, which differ only in what the server does afterwards.
    fn describe(&mut self, option: OptionCode, export: &str) -> Result<Export, HandshakeFault> {
        check_string("the export's name", export)?;
        let wanted = vec![Info::BLOCK_SIZE, Info::NAME, Info::DESCRIPTION];
        self.send(option, InfoRequest { export: export.to_owned(), wanted }.encode())?;
        let (mut basics, mut blocks, mut name, mut description) = (None, BlockSizes::default(), None, None);
        let mut count = 0;
        while let Some(data) = self.answer(option, reply_kind::INFO)? {
            count += 1;
            if count > limits::MAX_INFOS {
                return Err(HandshakeFault::TooMany {
                    what: "pieces of information about the export",
                    limit: limits::MAX_INFOS,
                });
            }
            match Info::decode(&data)? {
                Info::Export { size, flags } => basics = Some((size, flags)),
                Info::Name(text) => name = Some(text),
                Info::Description(text) => description = Some(text),
                Info::BlockSize { minimum, preferred, maximum } => {
                    blocks = BlockSizes { minimum, preferred, maximum };
                }
                Info::Other(_) => {}
            }
        }
        let (size, flags) = basics.ok_or(HandshakeFault::NoSize)?;
        Ok(Export { size, flags, blocks, name, description })
    }

    /// The way to choose an export before `NBD_OPT_GO` existed; a refusal is a closed connection.
    fn export_name(&mut self, export: &str) -> Result<Export, HandshakeFault> {
        self.send(OptionCode::EXPORT_NAME, export.as_bytes().to_vec())?;
        let during = "choose the export by NBD_OPT_EXPORT_NAME";
        let (size, flags) = decode_export_name_reply(&self.wire.read(during)?)?;
        if !self.no_zeroes {
            self.wire.read::<124>(during)?;
        }
        Ok(Export { size, flags, blocks: BlockSizes::default(), name: None, description: None })
    }

    fn meta_contexts(
        &mut self,
        option: OptionCode,
        export: &str,
        queries: &[&str],
    ) -> Result<Vec<MetaContext>, HandshakeFault> {
        if !self.structured()? {
            return Ok(Vec::new());
        }
        check_string("the export's name", export)?;
        for query in queries {
            check_string("a meta context's name", query)?;
        }
        let queries = queries.iter().map(|&query| query.to_owned()).collect();
        self.send(option, MetaQuery { export: export.to_owned(), queries }.encode())?;
        let mut contexts: Vec<MetaContext> = Vec::new();
        while let Some(data) = self.answer(option, reply_kind::META_CONTEXT)? {
            if contexts.len() == limits::MAX_CONTEXTS {
                return Err(HandshakeFault::TooMany { what: "meta contexts", limit: limits::MAX_CONTEXTS });
            }
            let context = MetaContext::decode(&data)?;
            // In a listing every id is 0.
            if option == OptionCode::SET_META_CONTEXT && contexts.iter().any(|c| c.id == context.id) {
                return Err(HandshakeFault::TwiceTheSameContext { id: context.id });
            }
            contexts.push(context);
        }
        Ok(contexts)
    }

    /// Turns structured replies on, once; false when the server has none.
    fn structured(&mut self) -> Result<bool, HandshakeFault> {
        if let Some(known) = self.structured {
            return Ok(known);
        }
        let option = OptionCode::STRUCTURED_REPLY;
        self.send(option, Vec::new())?;
        let granted = match self.answer(option, reply_kind::ACK) {
            Ok(_) => true,
            Err(HandshakeFault::Refused {
                kind: reply_kind::ERR_UNSUP | reply_kind::ERR_POLICY | reply_kind::ERR_INVALID,
                ..
            }) => false,
            Err(other) => return Err(other),
        };
        self.structured = Some(granted);
        Ok(granted)
    }

    fn send(&mut self, option: OptionCode, data: Vec<u8>) -> Result<(), HandshakeFault> {
        self.wire.write(&OptionRequest { option, data }.encode(), "send an option")
    }

    /// The next reply to `option`: data of kind `expected`, or nothing more after an acknowledgement.
    fn answer(&mut self, option: OptionCode, expected: u32) -> Result<Option<Vec<u8>>, HandshakeFault> {
        let during = "read the reply to an option";
        let reply = OptionReply::decode(&self.wire.read(during)?)?;
        // Bounded by MAX_OPTION_REPLY in `decode`.
        let mut data = vec![0; reply.length as usize];
        self.wire.fill(&mut data, during)?;
        if reply.option != option {
            return Err(HandshakeFault::UnexpectedReply { option, found: reply.option, kind: reply.kind });
        }
        match reply.kind {
            kind if kind & reply_kind::ERROR != 0 => {
                let message = String::from_utf8_lossy(&data).into_owned();
                Err(HandshakeFault::Refused { option, kind, message })
            }
            reply_kind::ACK => Ok(None),
            kind if kind == expected => Ok(Some(data)),
            kind => Err(HandshakeFault::UnexpectedReply { option, found: reply.option, kind }),
        }
    }
}

fn check_string(what: &'static str, text: &str) -> Result<(), HandshakeFault> {
    if text.len() > limits::MAX_STRING as usize {
        return Err(HandshakeFault::NameTooLong { what, length: text.len(), limit: limits::MAX_STRING });
    }
    Ok(())
}

/// The socket under one deadline.
#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    deadline: Instant,
    limit: Duration,
}

impl Wire {
    fn read<const N: usize>(&mut self, during: &'static str) -> Result<[u8; N], HandshakeFault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, during)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut buf: &mut [u8], during: &'static str) -> Result<(), HandshakeFault> {
        while !buf.is_empty() {
            let left = self.left(during)?;
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|source| HandshakeFault::Io { during, source })?;
            match self.stream.read(buf) {
                Ok(0) => return Err(HandshakeFault::Closed { during }),
                Ok(count) => buf = &mut buf[count..],
                Err(error) => self.judge(error, during)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], during: &'static str) -> Result<(), HandshakeFault> {
        while !bytes.is_empty() {
            let left = self.left(during)?;
            self.stream
                .set_write_timeout(Some(left))
                .map_err(|source| HandshakeFault::Io { during, source })?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.judge(error, during)?,
            }
        }
        Ok(())
    }

    fn left(&self, during: &'static str) -> Result<Duration, HandshakeFault> {
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(HandshakeFault::Timeout { during, limit: self.limit }),
        }
    }

    fn judge(&self, error: std::io::Error, during: &'static str) -> Result<(), HandshakeFault> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Err(HandshakeFault::Timeout { during, limit: self.limit })
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(HandshakeFault::Closed { during }),
            _ => Err(HandshakeFault::Io { during, source: error }),
        }
    }
}
