//! Putting the answer to one request together, from a simple reply or from chunks.
//!
//! An [`Assembly`] knows what was asked and accepts only what can answer it: bytes inside the range, each once, all of
//! them; extents of the context asked about; an error at most. It reads from any [`Read`], so it is tested and fuzzed
//! without a socket. Which assembly a reply belongs to is decided by [`client`](crate::client).

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::error::{ConnectionFault, ServerFailure};
use crate::limits;
use crate::proto::{
    BlockStatus, ChunkError, ChunkHeader, ChunkKind, Command, OffsetHole, ReplyHeader, ServerErrno,
    SimpleReply, StatusExtent,
};

/// What a successful request brings back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The bytes read.
    Data(Vec<u8>),
    /// Extents from the request's offset on; the last one may end beyond the range.
    Status(Vec<StatusExtent>),
}

/// An answer in the making.
#[derive(Debug)]
pub struct Assembly {
    command: Command,
    offset: u64,
    length: u32,
    structured: bool,
    body: Body,
    chunks: u32,
    failure: Option<ServerFailure>,
}

#[derive(Debug)]
enum Body {
    Nothing,
    /// `covered`: start and end of the runs received, merged.
    Data {
        bytes: Vec<u8>,
        covered: BTreeMap<u32, u32>,
    },
    Status {
        wanted: u32,
        extents: Option<Vec<StatusExtent>>,
    },
}

impl Assembly {
    /// For `command` on a range; `structured` tells what was negotiated, `context` the id that a block status is wanted
    /// of. A read's `length` is allocated at once: the caller bounds it.
    pub fn new(command: Command, offset: u64, length: u32, structured: bool, context: u32) -> Self {
        let body = match command {
            Command::Read => Body::Data { bytes: vec![0; length as usize], covered: BTreeMap::new() },
            Command::BlockStatus => Body::Status { wanted: context, extents: None },
            _ => Body::Nothing,
        };
        Self { command, offset, length, structured, body, chunks: 0, failure: None }
    }

    /// What was asked.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Takes what follows `header` from `input`; true when the reply is complete.
    ///
    /// # Errors
    /// The connection cannot be used any further.
    pub fn receive(&mut self, header: &ReplyHeader, input: &mut impl Read) -> Result<bool, ConnectionFault> {
        match header {
            ReplyHeader::Simple(reply) => self.receive_simple(reply, input).map(|()| true),
            ReplyHeader::Chunk(chunk) => self.receive_chunk(chunk, input).map(|()| chunk.done),
        }
    }

    fn receive_simple(&mut self, reply: &SimpleReply, input: &mut impl Read) -> Result<(), ConnectionFault> {
        // With structured replies on, only commands without an answer's body may be answered simply, and nothing after
        // a chunk may.
        let body_expected = !matches!(self.body, Body::Nothing);
        if self.structured && (body_expected || self.chunks > 0) {
            return Err(ConnectionFault::WrongStyle { command: self.command, structured: false });
        }
        if reply.error != ServerErrno(0) {
            self.fail(ServerFailure { error: reply.error, message: String::new(), offset: None });
            return Ok(());
        }
        if self.command == Command::Read {
            let (offset, length) = (self.offset, self.length);
            fill(self.room(offset, length)?, input)?;
        }
        Ok(())
    }

    fn receive_chunk(&mut self, chunk: &ChunkHeader, input: &mut impl Read) -> Result<(), ConnectionFault> {
        if !self.structured {
            return Err(ConnectionFault::WrongStyle { command: self.command, structured: true });
        }
        self.chunks += 1;
        if self.chunks > limits::MAX_CHUNKS {
            return Err(ConnectionFault::TooManyChunks { limit: limits::MAX_CHUNKS });
        }
        let wrong = ConnectionFault::WrongChunk { command: self.command, kind: chunk.kind.code() };
        match chunk.kind {
            ChunkKind::None if chunk.done => {}
            ChunkKind::OffsetData if self.command == Command::Read => {
                let mut offset = [0; 8];
                fill(&mut offset, input)?;
                // The header's decoding saw to it that at least one byte follows the offset.
                let length = chunk.length.saturating_sub(8);
                fill(self.room(u64::from_be_bytes(offset), length)?, input)?;
            }
            ChunkKind::OffsetHole if self.command == Command::Read => {
                let hole = OffsetHole::decode(&payload(chunk, input)?)?;
                // The buffer is born zero and each byte is given once, so a hole needs no filling.
                self.room(hole.offset, hole.length)?;
            }
            ChunkKind::BlockStatus if self.command == Command::BlockStatus => {
                let status = BlockStatus::decode(&payload(chunk, input)?)?;
                self.take_status(status)?;
            }
            kind @ (ChunkKind::Error | ChunkKind::ErrorOffset | ChunkKind::UnknownError(_)) => {
                let ChunkError { error, message, offset } =
                    ChunkError::decode(kind, &payload(chunk, input)?)?;
                self.fail(ServerFailure { error, message, offset });
            }
            _ => return Err(wrong),
        }
        Ok(())
    }

    /// The part of a read's buffer for a range, which is marked as received.
    fn room(&mut self, offset: u64, length: u32) -> Result<&mut [u8], ConnectionFault> {
        let Body::Data { bytes, covered } = &mut self.body else {
            return Err(ConnectionFault::WrongChunk {
                command: self.command,
                kind: ChunkKind::OffsetData.code(),
            });
        };
        let wrong = |twice| ConnectionFault::WrongRange {
            offset: self.offset,
            length: self.length,
            found_offset: offset,
            found_length: length,
            twice,
        };
        let start = offset
            .checked_sub(self.offset)
            .and_then(|start| u32::try_from(start).ok())
            .ok_or_else(|| wrong(false))?;
        let end = start.checked_add(length).filter(|&end| end <= self.length).ok_or_else(|| wrong(false))?;
        let (mut from, mut to) = (start, end);
        if let Some((&before, &before_end)) = covered.range(..end).next_back() {
            if before_end > start {
                return Err(wrong(true));
            }
            if before_end == start {
                from = before;
            }
        }
        if let Some(after_end) = covered.remove(&end) {
            to = after_end;
        }
        covered.insert(from, to);
        Ok(&mut bytes[start as usize..end as usize])
    }

    fn take_status(&mut self, status: BlockStatus) -> Result<(), ConnectionFault> {
        let Body::Status { wanted, extents } = &mut self.body else {
            return Ok(());
        };
        // Every negotiated context is reported each time; the others are not asked about here.
        if status.context != *wanted {
            return Ok(());
        }
        if extents.is_some() {
            return Err(ConnectionFault::WrongStatus { problem: "names the same context twice" });
        }
        let (_, before_last) =
            status.extents.split_last().ok_or(ConnectionFault::WrongStatus { problem: "holds no extent" })?;
        let covered: u64 = before_last.iter().map(|extent| extent.length).sum();
        if covered >= self.length.into() {
            return Err(ConnectionFault::WrongStatus { problem: "goes on behind the range asked about" });
        }
        *extents = Some(status.extents);
        Ok(())
    }

    fn fail(&mut self, failure: ServerFailure) {
        // The first one is the cause, later ones follow from it.
        self.failure.get_or_insert(failure);
    }

    /// The answer, once [`Self::receive`] returned true.
    ///
    /// # Errors
    /// Outer: the reply is incomplete, and the connection cannot be used any further. Inner: the server's refusal.
    pub fn finish(self) -> Result<Result<Answer, ServerFailure>, ConnectionFault> {
        if let Some(failure) = self.failure {
            return Ok(Err(failure));
        }
        match self.body {
            Body::Nothing => Ok(Ok(Answer::Done)),
            Body::Data { bytes, covered } if covered.get(&0) == Some(&self.length) => {
                Ok(Ok(Answer::Data(bytes)))
            }
            Body::Status { extents: Some(extents), .. } => Ok(Ok(Answer::Status(extents))),
            Body::Data { .. } | Body::Status { .. } => {
                Err(ConnectionFault::Incomplete { command: self.command })
            }
        }
    }
}

/// Reads the next head; none at a clean end of the connection.
///
/// # Errors
/// The socket failed, the connection ended inside a head, or the bytes are no head.
pub fn read_header(input: &mut impl Read) -> Result<Option<ReplyHeader>, ConnectionFault> {
    let mut head = [0; ChunkHeader::LENGTH];
    let count = loop {
        match input.read(&mut head[..ReplyHeader::PREFIX]) {
            Ok(count) => break count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ConnectionFault::Io { during: "read a reply", source }),
        }
    };
    if count == 0 {
        return Ok(None);
    }
    fill(&mut head[count..ReplyHeader::PREFIX], input)?;
    let length = ReplyHeader::length([head[0], head[1], head[2], head[3]])?;
    fill(&mut head[ReplyHeader::PREFIX..length], input)?;
    Ok(Some(ReplyHeader::decode(&head[..length])?))
}

/// A chunk's payload in memory of its own; its length was bounded when the header was decoded.
fn payload(chunk: &ChunkHeader, input: &mut impl Read) -> Result<Vec<u8>, ConnectionFault> {
    let mut bytes = vec![0; chunk.length as usize];
    fill(&mut bytes, input)?;
    Ok(bytes)
}

fn fill(buf: &mut [u8], input: &mut impl Read) -> Result<(), ConnectionFault> {
    input.read_exact(buf).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ConnectionFault::Closed,
        _ => ConnectionFault::Io { during: "read a reply", source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(done: bool, kind: ChunkKind, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        [ChunkHeader { done, kind, cookie: 1, length }.encode(), payload.to_vec()].concat()
    }

    fn data(done: bool, offset: u64, bytes: &[u8]) -> Vec<u8> {
        chunk(done, ChunkKind::OffsetData, &[&offset.to_be_bytes(), bytes].concat())
    }

    fn hole(done: bool, offset: u64, length: u32) -> Vec<u8> {
        chunk(done, ChunkKind::OffsetHole, &OffsetHole { offset, length }.encode())
    }

    fn run(mut assembly: Assembly, bytes: &[u8]) -> Result<Result<Answer, ServerFailure>, ConnectionFault> {
        let mut input = bytes;
        loop {
            let header = read_header(&mut input)?.ok_or(ConnectionFault::Closed)?;
            if assembly.receive(&header, &mut input)? {
                return assembly.finish();
            }
        }
    }

    fn read(offset: u64, length: u32) -> Assembly {
        Assembly::new(Command::Read, offset, length, true, 0)
    }

    #[test]
    fn chunks_in_any_order_make_the_read() {
        let bytes = [data(false, 108, b"zz"), hole(false, 104, 4), data(false, 100, b"abcd")].concat();
        let end = chunk(true, ChunkKind::None, &[]);
        let answer = run(read(100, 10), &[bytes, end].concat()).unwrap().unwrap();
        assert_eq!(answer, Answer::Data(b"abcd\0\0\0\0zz".to_vec()));
    }

    #[test]
    fn bytes_given_twice_or_outside_or_not_at_all_end_the_connection() {
        for (bytes, what) in [
            ([data(false, 0, b"aaaa"), data(true, 3, b"bbbb")].concat(), "overlap"),
            ([hole(false, 4, 4), data(true, 0, b"aaaaaaaa")].concat(), "overlap over a hole"),
            (data(true, 5, b"aaaa"), "beyond the end"),
            (data(true, u64::MAX, b"a"), "far beyond"),
            (hole(true, 0, u32::MAX), "huge hole"),
            (data(true, 0, b"aaaa"), "short"),
            (chunk(true, ChunkKind::None, &[]), "nothing"),
            (chunk(false, ChunkKind::None, &[]), "an empty chunk that ends nothing"),
            (chunk(true, ChunkKind::Unknown(9), &[]), "unknown kind"),
            (SimpleReply { error: ServerErrno(0), cookie: 1 }.encode(), "simple reply"),
        ] {
            assert!(run(read(0, 8), &bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn an_error_chunk_is_the_answer_and_the_first_one_counts() {
        let error = |errno, done| {
            let failure = ChunkError { error: errno, message: "no".into(), offset: None };
            chunk(done, ChunkKind::Error, &failure.encode())
        };
        let bytes = [error(ServerErrno::IO, false), data(false, 0, b"abcd"), error(ServerErrno::NOMEM, true)];
        let failure = run(read(0, 8), &bytes.concat()).unwrap().unwrap_err();
        assert_eq!((failure.error, failure.message.as_str()), (ServerErrno::IO, "no"));
    }

    #[test]
    fn a_status_of_another_context_is_passed_over_and_one_that_goes_on_too_far_is_refused() {
        let status = |context, lengths: &[u64], done| {
            let extents = lengths.iter().map(|&length| StatusExtent { length, flags: 1 }).collect();
            chunk(done, ChunkKind::BlockStatus, &BlockStatus { context, extents }.encode())
        };
        let ask = || Assembly::new(Command::BlockStatus, 0, 100, true, 7);
        let bytes = [status(3, &[500], false), status(7, &[60, 60], true)].concat();
        let answer = run(ask(), &bytes).unwrap().unwrap();
        assert!(matches!(answer, Answer::Status(extents) if extents.len() == 2));
        for bytes in [
            status(7, &[100, 1], true),
            status(3, &[100], true),
            [status(7, &[1], false), status(7, &[1], true)].concat(),
        ] {
            assert!(run(ask(), &bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_range_into_chunks_gives_the_bytes(
            cuts in prop::collection::btree_set(1_u32..200, 0..12), seed: u64, order in any::<prop::sample::Index>(),
        ) {
            let expected: Vec<u8> = (0..200).map(|i: u64| (seed >> (i % 56)) as u8).collect();
            let mut edges: Vec<u32> = cuts.into_iter().collect();
            edges.insert(0, 0);
            edges.push(200);
            let mut parts: Vec<Vec<u8>> = edges
                .windows(2)
                .map(|w| data(false, 1000 + u64::from(w[0]), &expected[w[0] as usize..w[1] as usize]))
                .collect();
            let turn = order.index(parts.len());
            parts.rotate_left(turn);
            parts.push(chunk(true, ChunkKind::None, &[]));
            let answer = run(read(1000, 200), &parts.concat()).unwrap().unwrap();
            prop_assert_eq!(answer, Answer::Data(expected));
        }

        #[test]
        fn garbage_ends_in_an_error_and_never_in_a_panic(
            kind in prop::sample::select(vec![0_u16, 1, 2, 5, 9, 0x8001, 0x8002, 0x8003]), done: bool,
            payload in prop::collection::vec(any::<u8>(), 0..40), read_it: bool,
        ) {
            let command = if read_it { Command::Read } else { Command::BlockStatus };
            let bytes = chunk(done, ChunkKind::from_code(kind), &payload);
            let _ = run(Assembly::new(command, 0, 64, true, 0), &bytes);
        }
    }
}
