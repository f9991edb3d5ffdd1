//! The transmission phase: a disk behind a socket.
//!
//! Callers on any thread write their requests to the socket one after the other and wait, each for its own answer. One
//! reader thread takes the replies off the socket in whatever order the server sends them, finds the request by its
//! cookie and wakes the caller. Because the reader never waits for a caller, a server that stops reading until its
//! replies are taken cannot lock both sides up.
//!
//! After a fault of the connection (closed, protocol broken, no answer in time) every request in flight and every later
//! one fails with it: nothing is retried and nothing guessed. Reconnecting is the caller's decision.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{ConnectError, ConnectionFault, HandshakeFault, RequestError, RequestFault};
use crate::limits;
use crate::negotiation::{BlockSizes, Export, Negotiation};
use crate::proto::{Command, MetaContext, Request, StatusExtent, TransmissionFlags, command_flags};
use crate::reply::{Answer, Assembly, read_header};

/// How long the farewell may block while a client is dropped.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Buffer of the reader thread: replies to small requests come several in one read.
const READER_BUFFER: usize = 64 << 10;
/// How many pieces of one large request are in flight together.
const PIECES_IN_FLIGHT: usize = 4;

/// What a caller may tune.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long the whole handshake may take.
    pub handshake_timeout: Duration,
    /// How long one request may take before the connection is given up; `None` waits for ever.
    pub request_timeout: Option<Duration>,
    /// Most requests in flight, 1 to [`limits::MAX_IN_FLIGHT`]; further callers wait.
    pub max_in_flight: usize,
    /// Longest payload of one request in bytes; larger ones are cut into pieces. The server's own maximum and
    /// [`limits::MAX_PAYLOAD`] hold as well.
    pub max_request: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: limits::DEFAULT_HANDSHAKE_TIMEOUT,
            request_timeout: Some(limits::DEFAULT_REQUEST_TIMEOUT),
            max_in_flight: limits::DEFAULT_IN_FLIGHT,
            max_request: limits::DEFAULT_REQUEST,
        }
    }
}

/// An export of an NBD server.
///
/// All methods take `&self` and may be called from several threads at once; requests overlap on the one connection.
/// Overlapping writes, or a read that overlaps a write, have no order, as on a disk.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    export: Export,
    contexts: Vec<MetaContext>,
    context_names: Vec<String>,
    structured: bool,
    timeout: Option<Duration>,
    /// Largest data request, a multiple of the minimum block size.
    piece: u32,
}

impl Client {
    /// Connects to the Unix socket at `path`, chooses `export` (empty for the default one) and asks for the meta
    /// contexts `want`; which of them the server granted tells [`Self::contexts`].
    ///
    /// # Errors
    /// See [`ConnectErrorKind`](crate::ConnectErrorKind).
    pub fn connect_unix(path: &Path, export: &str, want: &[&str]) -> Result<Self, ConnectError> {
        Self::connect_unix_with(path, export, want, &ClientOptions::default())
    }

    /// [`Self::connect_unix`] with options.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`](crate::ConnectErrorKind).
    pub fn connect_unix_with(
        path: &Path,
        export: &str,
        want: &[&str],
        options: &ClientOptions,
    ) -> Result<Self, ConnectError> {
        let negotiation = Negotiation::connect_unix(path, options.handshake_timeout)?;
        Self::start(negotiation, export, want, options)
    }

    /// Ends a negotiation by choosing an export.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`](crate::ConnectErrorKind).
    pub fn start(
        negotiation: Negotiation,
        export: &str,
        want: &[&str],
        options: &ClientOptions,
    ) -> Result<Self, ConnectError> {
        let established = negotiation.go(export, want)?;
        let path = established.path;
        let local = |doing| {
            let path = path.clone();
            move |source| ConnectError::new(path, HandshakeFault::Local { doing, source })
        };
        let timeout = options.request_timeout.filter(|timeout| !timeout.is_zero());
        established.stream.set_read_timeout(None).map_err(local("set up the socket"))?;
        established.stream.set_write_timeout(timeout).map_err(local("set up the socket"))?;
        let shared = Arc::new(Shared {
            stream: established.stream,
            writing: Mutex::new(()),
            pending: Mutex::new(Pending::default()),
            room: Condvar::new(),
            limit: options.max_in_flight.clamp(1, limits::MAX_IN_FLIGHT),
        });
        let reader = std::thread::Builder::new()
            .name("nbd-reader".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.read_replies()
            })
            .map_err(local("start the reader thread"))?;
        let BlockSizes { minimum, maximum, .. } = established.export.blocks;
        let piece = options.max_request.min(maximum).min(limits::MAX_PAYLOAD);
        Ok(Self {
            shared,
            reader: Some(reader),
            context_names: established.contexts.iter().map(|context| context.name.clone()).collect(),
            contexts: established.contexts,
            structured: established.structured,
            timeout,
            piece: (piece / minimum * minimum).max(minimum),
            export: established.export,
        })
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.export.size
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.has(TransmissionFlags::READ_ONLY)
    }

    /// The server's limits on offsets and lengths. Reads and block status of any range are widened to the minimum
    /// here; writes must keep to it.
    pub fn block_sizes(&self) -> BlockSizes {
        self.export.blocks
    }

    /// All that the server told about the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The meta contexts granted, of those asked for.
    pub fn contexts(&self) -> &[String] {
        &self.context_names
    }

    /// Whether further connections to the export see each other's flushed writes, so that several may be used at once.
    pub fn can_multi_conn(&self) -> bool {
        self.has(TransmissionFlags::CAN_MULTI_CONN)
    }

    fn has(&self, flag: u16) -> bool {
        self.export.flags.has(TransmissionFlags::HAS_FLAGS | flag)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The range ends beyond the export, the server fails, or the connection does.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), RequestError> {
        let length = buf.len() as u64;
        self.try_read(buf, offset).map_err(|cause| RequestError::new(Command::Read, offset, length, cause))
    }

    /// Writes all of `buf` at `offset`. Durable only after [`Self::flush`].
    ///
    /// # Errors
    /// The export is read-only, the range ends beyond it or is not aligned, the server fails, or the connection does.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), RequestError> {
        let length = buf.len() as u64;
        self.try_write(buf, offset).map_err(|cause| RequestError::new(Command::Write, offset, length, cause))
    }

    /// Makes a range read as zeros, as a hole where that is possible and `may_trim` allows it. Where the server lacks
    /// the command, zeros are written.
    ///
    /// # Errors
    /// As for [`Self::write_at`].
    pub fn write_zeroes(&self, offset: u64, length: u64, may_trim: bool) -> Result<(), RequestError> {
        self.try_write_zeroes(offset, length, may_trim)
            .map_err(|cause| RequestError::new(Command::WriteZeroes, offset, length, cause))
    }

    /// Tells the server that a range's content is not needed any more; what it reads as afterwards is the server's
    /// choice. Only advice: nothing happens where the server lacks the command, nor to blocks not wholly in the range.
    ///
    /// # Errors
    /// The export is read-only, the range ends beyond it, the server fails, or the connection does.
    pub fn trim(&self, offset: u64, length: u64) -> Result<(), RequestError> {
        self.try_trim(offset, length).map_err(|cause| RequestError::new(Command::Trim, offset, length, cause))
    }

    /// Returns once every write that returned before is durable.
    ///
    /// # Errors
    /// The server lacks the command or fails, or the connection does.
    pub fn flush(&self) -> Result<(), RequestError> {
        let outcome = if self.has(TransmissionFlags::SEND_FLUSH) {
            self.ask(Command::Flush, 0, 0, 0, &[], 0).map(|_| ())
        } else {
            Err(RequestFault::Unsupported)
        };
        outcome.map_err(|cause| RequestError::new(Command::Flush, 0, 0, cause))
    }

    /// What a range holds in the meta context `context`: extents that cover exactly the range, neighbours of equal
    /// flags merged. Memory grows with the number of extents; [`Self::status_extents`] walks without that.
    ///
    /// # Errors
    /// The context was not granted, the range ends beyond the export or holds more than
    /// [`limits::MAX_GATHERED_EXTENTS`] extents, the server fails, or the connection does.
    pub fn block_status(
        &self,
        context: &str,
        offset: u64,
        length: u64,
    ) -> Result<Vec<StatusExtent>, RequestError> {
        let mut extents = Vec::new();
        for extent in self.status_extents(context, offset, length)? {
            if extents.len() == limits::MAX_GATHERED_EXTENTS {
                let cause = RequestFault::TooManyExtents { limit: limits::MAX_GATHERED_EXTENTS };
                return Err(RequestError::new(Command::BlockStatus, offset, length, cause));
            }
            extents.push(extent?);
        }
        Ok(extents)
    }

    /// [`Self::block_status`], lazily: extents follow each other from `offset` without gaps up to the end of the range,
    /// and no two neighbours have equal flags. The walk ends after an error.
    ///
    /// # Errors
    /// The context was not granted, or the range ends beyond the export.
    pub fn status_extents(
        &self,
        context: &str,
        offset: u64,
        length: u64,
    ) -> Result<StatusExtents<'_>, RequestError> {
        let found = self.contexts.iter().find(|known| known.name == context);
        let checked = match found {
            Some(context) => self.end_of(offset, length).map(|end| (context.id, end)),
            None => Err(RequestFault::UnknownContext { name: context.to_owned() }),
        };
        match checked {
            Ok((context, end)) => Ok(StatusExtents {
                client: self,
                context,
                next: offset,
                end,
                ready: VecDeque::new(),
                current: None,
                failed: None,
            }),
            Err(cause) => Err(RequestError::new(Command::BlockStatus, offset, length, cause)),
        }
    }

    /// Says goodbye and waits for the reader thread to end. Dropping the client does the same.
    pub fn disconnect(self) {}

    fn try_read(&self, buf: &mut [u8], offset: u64) -> Result<(), RequestFault> {
        let end = self.end_of(offset, buf.len() as u64)?;
        let minimum = u64::from(self.export.blocks.minimum);
        let (start, wide_end) = (offset / minimum * minimum, self.widen(end));
        let mut in_flight: VecDeque<(u64, u32, Ticket)> = VecDeque::new();
        let mut next = start;
        let mut outcome = Ok(());
        loop {
            while outcome.is_ok() && next < wide_end && in_flight.len() < PIECES_IN_FLIGHT && offset < end {
                let length = piece_of(wide_end - next, self.piece);
                match self.submit(Command::Read, 0, next, length, &[], 0) {
                    Ok(ticket) => in_flight.push_back((next, length, ticket)),
                    Err(cause) => outcome = Err(cause),
                }
                next += u64::from(length);
            }
            let Some((at, length, ticket)) = in_flight.pop_front() else {
                return outcome;
            };
            match self.wait(Command::Read, &ticket) {
                Ok(Answer::Data(data)) => {
                    // The piece may begin before the caller's range and end after it.
                    let from = at.max(offset);
                    let to = (at + u64::from(length)).min(end);
                    if from < to {
                        let part = &data[(from - at) as usize..(to - at) as usize];
                        buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
                    }
                }
                Ok(_) => outcome = outcome.and(Err(incomplete(Command::Read))),
                Err(cause) => outcome = outcome.and(Err(cause)),
            }
        }
    }

    fn try_write(&self, buf: &[u8], offset: u64) -> Result<(), RequestFault> {
        self.check_write(offset, buf.len() as u64)?;
        let mut in_flight: VecDeque<Ticket> = VecDeque::new();
        let mut pieces = buf.chunks(self.piece as usize);
        let mut next = offset;
        let mut outcome = Ok(());
        // Even after an error, all pieces sent are waited for: when this returns, nothing of it is in flight.
        loop {
            while outcome.is_ok()
                && in_flight.len() < PIECES_IN_FLIGHT
                && let Some(piece) = pieces.next()
            {
                match self.submit(Command::Write, 0, next, piece.len() as u32, piece, 0) {
                    Ok(ticket) => in_flight.push_back(ticket),
                    Err(cause) => outcome = Err(cause),
                }
                next += piece.len() as u64;
            }
            let Some(ticket) = in_flight.pop_front() else {
                return outcome;
            };
            if let Err(cause) = self.wait(Command::Write, &ticket) {
                outcome = outcome.and(Err(cause));
            }
        }
    }

    fn try_write_zeroes(&self, offset: u64, length: u64, may_trim: bool) -> Result<(), RequestFault> {
        let end = self.check_write(offset, length)?;
        if !self.has(TransmissionFlags::SEND_WRITE_ZEROES) {
            let zeros = vec![0; piece_of(length, self.piece) as usize];
            let mut next = offset;
            while next < end {
                let count = piece_of(end - next, self.piece);
                self.try_write(&zeros[..count as usize], next)?;
                next += u64::from(count);
            }
            return Ok(());
        }
        let flags = if may_trim { 0 } else { command_flags::NO_HOLE };
        self.each_effect(offset, end, |at, count| self.ask(Command::WriteZeroes, flags, at, count, &[], 0))
    }

    fn try_trim(&self, offset: u64, length: u64) -> Result<(), RequestFault> {
        let end = self.end_of(offset, length)?;
        if self.read_only() {
            return Err(RequestFault::ReadOnly);
        }
        if !self.has(TransmissionFlags::SEND_TRIM) {
            return Ok(());
        }
        let minimum = u64::from(self.export.blocks.minimum);
        let start = offset.next_multiple_of(minimum);
        let end = if end == self.export.size { end } else { end / minimum * minimum };
        self.each_effect(start, end, |at, count| self.ask(Command::Trim, 0, at, count, &[], 0))
    }

    fn each_effect(
        &self,
        start: u64,
        end: u64,
        ask: impl Fn(u64, u32) -> Result<Answer, RequestFault>,
    ) -> Result<(), RequestFault> {
        let mut next = start;
        while next < end {
            let count = piece_of(end - next, limits::MAX_EFFECT);
            ask(next, count)?;
            next += u64::from(count);
        }
        Ok(())
    }

    /// End of a range that may be asked about.
    fn end_of(&self, offset: u64, length: u64) -> Result<u64, RequestFault> {
        let size = self.export.size;
        offset.checked_add(length).filter(|&end| end <= size).ok_or(RequestFault::OutOfRange { size })
    }

    /// End of a range that may be written.
    fn check_write(&self, offset: u64, length: u64) -> Result<u64, RequestFault> {
        let end = self.end_of(offset, length)?;
        if self.read_only() {
            return Err(RequestFault::ReadOnly);
        }
        let minimum = self.export.blocks.minimum;
        let aligned = offset.is_multiple_of(minimum.into())
            && (end.is_multiple_of(minimum.into()) || end == self.export.size);
        if aligned { Ok(end) } else { Err(RequestFault::Unaligned { minimum }) }
    }

    /// `end` rounded up to the minimum block, but not beyond the export.
    fn widen(&self, end: u64) -> u64 {
        end.next_multiple_of(self.export.blocks.minimum.into()).min(self.export.size)
    }

    /// One block status request; the extents begin at `offset` and are cut at `offset + length`.
    fn status_piece(
        &self,
        context: u32,
        offset: u64,
        length: u32,
    ) -> Result<Vec<StatusExtent>, RequestFault> {
        let minimum = u64::from(self.export.blocks.minimum);
        let start = offset / minimum * minimum;
        let end = self.widen(offset + u64::from(length));
        // At most MAX_EFFECT and two minimum blocks: fits.
        let count = u32::try_from(end - start).unwrap_or(limits::MAX_EFFECT);
        let Answer::Status(mut extents) = self.ask(Command::BlockStatus, 0, start, count, &[], context)?
        else {
            return Err(incomplete(Command::BlockStatus));
        };
        let mut skip = offset - start;
        let mut left = u64::from(length);
        extents.retain_mut(|extent| {
            let skipped = skip.min(extent.length);
            skip -= skipped;
            extent.length = (extent.length - skipped).min(left);
            left -= extent.length;
            extent.length > 0
        });
        if extents.is_empty() {
            // Legal only if the server answered for less than the widening: it would never get further.
            return Err(RequestFault::Lost(Arc::new(ConnectionFault::WrongStatus {
                problem: "ends within one minimum block",
            })));
        }
        Ok(extents)
    }

    fn ask(
        &self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
        context: u32,
    ) -> Result<Answer, RequestFault> {
        let ticket = self.submit(command, flags, offset, length, payload, context)?;
        self.wait(command, &ticket)
    }

    fn submit(
        &self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
        context: u32,
    ) -> Result<Ticket, RequestFault> {
        let assembly = Assembly::new(command, offset, length, self.structured, context);
        let (sender, receiver) = sync_channel(1);
        let cookie = self.shared.enter(Slot { assembly, sender }).map_err(RequestFault::Lost)?;
        let head = Request { flags, command, cookie, offset, length }.encode();
        self.shared.send(command, &head, payload, self.timeout).map_err(RequestFault::Lost)?;
        Ok(receiver)
    }

    fn wait(&self, command: Command, ticket: &Ticket) -> Result<Answer, RequestFault> {
        let received = match self.timeout {
            Some(limit) => match ticket.recv_timeout(limit) {
                Ok(outcome) => Some(outcome),
                Err(RecvTimeoutError::Timeout) => {
                    let fault = ConnectionFault::Timeout { command, limit };
                    return Err(RequestFault::Lost(self.shared.fail(fault)));
                }
                Err(RecvTimeoutError::Disconnected) => None,
            },
            None => ticket.recv().ok(),
        };
        // A slot that vanished without an answer means that the reader thread is gone.
        received.unwrap_or_else(|| Err(RequestFault::Lost(self.shared.fail(ConnectionFault::Closed))))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.farewell();
        if let Some(reader) = self.reader.take() {
            // It only ends; a panic there has failed the requests already.
            let _ = reader.join();
        }
    }
}

fn piece_of(left: u64, most: u32) -> u32 {
    u32::try_from(left).unwrap_or(most).min(most)
}

fn incomplete(command: Command) -> RequestFault {
    RequestFault::Lost(Arc::new(ConnectionFault::Incomplete { command }))
}

/// The walk of [`Client::status_extents`].
#[derive(Debug)]
pub struct StatusExtents<'a> {
    client: &'a Client,
    context: u32,
    next: u64,
    end: u64,
    ready: VecDeque<StatusExtent>,
    current: Option<StatusExtent>,
    failed: Option<RequestError>,
}

impl Iterator for StatusExtents<'_> {
    type Item = Result<StatusExtent, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(extent) = self.ready.pop_front() {
                match &mut self.current {
                    Some(current) if current.flags == extent.flags => current.length += extent.length,
                    Some(_) => return self.current.replace(extent).map(Ok),
                    None => self.current = Some(extent),
                }
            }
            if self.next == self.end {
                return match self.current.take() {
                    Some(last) => Some(Ok(last)),
                    None => self.failed.take().map(Err),
                };
            }
            let length = piece_of(self.end - self.next, limits::MAX_EFFECT);
            match self.client.status_piece(self.context, self.next, length) {
                Ok(extents) => {
                    self.next += extents.iter().map(|extent| extent.length).sum::<u64>();
                    self.ready = extents.into();
                }
                Err(cause) => {
                    let left = self.end - self.next;
                    self.failed = Some(RequestError::new(Command::BlockStatus, self.next, left, cause));
                    self.next = self.end;
                }
            }
        }
    }
}

type Outcome = Result<Answer, RequestFault>;
type Ticket = Receiver<Outcome>;

/// What callers and the reader thread share.
#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    /// Held while one request is written: requests must not mix.
    writing: Mutex<()>,
    pending: Mutex<Pending>,
    /// Signalled when a request leaves `pending`.
    room: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct Pending {
    slots: HashMap<u64, Slot>,
    /// Requests not answered yet: those in `slots`, and the one that the reader is busy with.
    in_flight: usize,
    last_cookie: u64,
    fault: Option<Arc<ConnectionFault>>,
}

/// A request waiting for its answer.
#[derive(Debug)]
struct Slot {
    assembly: Assembly,
    sender: SyncSender<Outcome>,
}

impl Slot {
    fn complete(self, outcome: Outcome) {
        // Room for one is there; a caller that gave up does not care.
        let _ = self.sender.try_send(outcome);
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request, after waiting for room; its cookie.
    fn enter(&self, slot: Slot) -> Result<u64, Arc<ConnectionFault>> {
        let mut pending = self.pending();
        while pending.fault.is_none() && pending.in_flight >= self.limit {
            pending = self.room.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(fault) = &pending.fault {
            return Err(Arc::clone(fault));
        }
        pending.in_flight += 1;
        pending.last_cookie += 1;
        let cookie = pending.last_cookie;
        pending.slots.insert(cookie, slot);
        Ok(cookie)
    }

    fn send(
        &self,
        command: Command,
        head: &[u8],
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(), Arc<ConnectionFault>> {
        let written = {
            let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_both(&self.stream, head, payload)
        };
        written.map_err(|source| {
            // A request half written cannot be taken back: the connection is over.
            self.fail(match (source.kind(), timeout) {
                (ErrorKind::WouldBlock | ErrorKind::TimedOut, Some(limit)) => {
                    ConnectionFault::Timeout { command, limit }
                }
                (ErrorKind::BrokenPipe | ErrorKind::ConnectionReset, _) => ConnectionFault::Closed,
                _ => ConnectionFault::Io { during: "send a request", source },
            })
        })
    }

    /// Ends the connection for everybody; the fault that did it first.
    fn fail(&self, fault: ConnectionFault) -> Arc<ConnectionFault> {
        let mut pending = self.pending();
        let fault = Arc::clone(pending.fault.get_or_insert_with(|| Arc::new(fault)));
        pending.in_flight = 0;
        for (_, slot) in pending.slots.drain() {
            slot.complete(Err(RequestFault::Lost(Arc::clone(&fault))));
        }
        drop(pending);
        self.room.notify_all();
        // Wakes the reader; an error means that the peer did it already.
        let _ = self.stream.shutdown(Shutdown::Both);
        fault
    }

    /// The reader thread.
    fn read_replies(&self) {
        let mut input = BufReader::with_capacity(READER_BUFFER, &self.stream);
        loop {
            if let Err(fault) = self.read_reply(&mut input) {
                self.fail(fault);
                return;
            }
        }
    }

    fn read_reply(&self, input: &mut impl io::Read) -> Result<(), ConnectionFault> {
        let header = read_header(input)?.ok_or(ConnectionFault::Closed)?;
        let cookie = match &header {
            crate::proto::ReplyHeader::Simple(reply) => reply.cookie,
            crate::proto::ReplyHeader::Chunk(chunk) => chunk.cookie,
        };
        // Taken out meanwhile, so that payload is read without holding the lock.
        let mut slot = {
            let mut pending = self.pending();
            match pending.slots.remove(&cookie) {
                Some(slot) => slot,
                None if pending.fault.is_some() => return Err(ConnectionFault::Closed),
                None => return Err(ConnectionFault::UnknownCookie { cookie }),
            }
        };
        match slot.assembly.receive(&header, input) {
            Ok(true) => {
                let Slot { assembly, sender } = slot;
                let outcome = match assembly.finish() {
                    Ok(answer) => answer.map_err(RequestFault::Server),
                    Err(fault) => {
                        let fault = self.fail(fault);
                        let _ = sender.try_send(Err(RequestFault::Lost(fault)));
                        return Err(ConnectionFault::Closed);
                    }
                };
                let mut pending = self.pending();
                pending.in_flight = pending.in_flight.saturating_sub(1);
                drop(pending);
                self.room.notify_one();
                let _ = sender.try_send(outcome);
                Ok(())
            }
            Ok(false) => {
                let mut pending = self.pending();
                if let Some(fault) = &pending.fault {
                    slot.complete(Err(RequestFault::Lost(Arc::clone(fault))));
                } else {
                    pending.slots.insert(cookie, slot);
                }
                Ok(())
            }
            Err(fault) => {
                let fault = self.fail(fault);
                slot.complete(Err(RequestFault::Lost(fault)));
                Err(ConnectionFault::Closed)
            }
        }
    }

    /// Says goodbye if the connection still works, and closes it.
    fn farewell(&self) {
        if self.pending().fault.is_none() {
            let request = Request { flags: 0, command: Command::Disconnect, cookie: 0, offset: 0, length: 0 };
            let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // Courtesy only: a server that hears nothing sees the socket close.
            let _ = self.stream.set_write_timeout(Some(FAREWELL_TIMEOUT));
            let _ = write_both(&self.stream, &request.encode(), &[]);
        }
        self.fail(ConnectionFault::Closed);
    }
}

/// Writes head and payload, in one system call where the socket takes it.
fn write_both(mut stream: &UnixStream, mut head: &[u8], mut payload: &[u8]) -> io::Result<()> {
    while !head.is_empty() || !payload.is_empty() {
        match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                let of_head = count.min(head.len());
                head = &head[of_head..];
                payload = &payload[count - of_head..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
