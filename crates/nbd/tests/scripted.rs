//! A server that follows a script, for what a real one never does: malformed, unfinished, silent, out of order.
//!
//! The protocol itself is the peer here; each test says what the server sends and what the caller must see.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nbd::proto::option::reply_kind;
use nbd::proto::{
    BlockStatus, ChunkError, ChunkHeader, ChunkKind, Greeting, HandshakeFlags, Info, MetaContext, OffsetHole,
    OptionCode, OptionReply, OptionRequest, Request, SimpleReply, TransmissionFlags,
};
use nbd::{
    Client, ClientOptions, Command, ConnectErrorKind, Negotiation, RequestErrorKind, ServerErrno,
    StatusExtent,
};

const SIZE: u64 = 1 << 20;

/// The server's end of one connection.
struct Peer(UnixStream);

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        // The client may have hung up already: that is what some tests are about.
        let _ = self.0.write_all(bytes);
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn greet(&mut self) {
        let flags = HandshakeFlags(HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES);
        self.send(&Greeting { flags }.encode());
        self.take::<4>();
    }

    fn option(&mut self) -> (OptionCode, Vec<u8>) {
        let (option, length) = OptionRequest::decode_header(&self.take()).unwrap();
        let mut data = vec![0; length as usize];
        self.0.read_exact(&mut data).unwrap();
        (option, data)
    }

    fn reply(&mut self, option: OptionCode, kind: u32, data: &[u8]) {
        self.send(&OptionReply::encode(option, kind, data));
    }

    fn export(flags: u16) -> Vec<u8> {
        let flags = TransmissionFlags(TransmissionFlags::HAS_FLAGS | flags);
        Info::Export { size: SIZE, flags }.encode()
    }

    /// A handshake as a good server does it, with one meta context of id 7 when asked.
    fn handshake(&mut self, structured: bool, flags: u16, minimum: u32) {
        self.greet();
        loop {
            match self.option() {
                (option @ OptionCode::STRUCTURED_REPLY, _) if structured => {
                    self.reply(option, reply_kind::ACK, &[]);
                }
                (option @ OptionCode::SET_META_CONTEXT, _) => {
                    let context = MetaContext { id: 7, name: "base:allocation".into() };
                    self.reply(option, reply_kind::META_CONTEXT, &context.encode());
                    self.reply(option, reply_kind::ACK, &[]);
                }
                (option @ OptionCode::GO, _) => {
                    self.reply(option, reply_kind::INFO, &Self::export(flags));
                    let blocks = Info::BlockSize { minimum, preferred: 4096, maximum: 1 << 25 };
                    self.reply(option, reply_kind::INFO, &blocks.encode());
                    self.reply(option, reply_kind::INFO, &Info::Other(99).encode());
                    self.reply(option, reply_kind::ACK, &[]);
                    return;
                }
                (option, _) => self.reply(option, reply_kind::ERR_UNSUP, b"no"),
            }
        }
    }

    fn request(&mut self) -> Request {
        Request::decode(&self.take()).unwrap()
    }

    fn chunk(&mut self, cookie: u64, done: bool, kind: ChunkKind, payload: &[u8]) {
        let length = payload.len() as u32;
        self.send(&ChunkHeader { done, kind, cookie, length }.encode());
        self.send(payload);
    }

    fn data(&mut self, cookie: u64, offset: u64, bytes: &[u8]) {
        self.chunk(cookie, true, ChunkKind::OffsetData, &[&offset.to_be_bytes(), bytes].concat());
    }

    /// Reads whatever the client still says, until it hangs up.
    fn drain(&mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}

struct Script {
    path: PathBuf,
    _dir: tempfile::TempDir,
    server: Option<JoinHandle<()>>,
}

/// Listens, and plays `script` on the first connection.
fn script(script: impl FnOnce(&mut Peer) + Send + 'static) -> Script {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || script(&mut Peer(listener.accept().unwrap().0)));
    Script { path, _dir: dir, server: Some(server) }
}

impl Script {
    fn connect(&self, want: &[&str]) -> Result<Client, nbd::ConnectError> {
        Client::connect_unix(&self.path, "x", want)
    }

    /// The script played to its end without a failed assertion.
    fn end(mut self) {
        self.server.take().unwrap().join().unwrap();
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[test]
fn what_is_no_fixed_newstyle_server_is_told_apart() {
    for (greeting, kind) in [
        (&b"SSH-2.0-OpenSSH_9.2p1 Debian"[..], ConnectErrorKind::NotNbd),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00", ConnectErrorKind::NotNbd),
        (b"NBDMAGICIHAVEOPT\x00\x00", ConnectErrorKind::NotNbd),
        (b"NBDMAG", ConnectErrorKind::Disconnected),
    ] {
        let script = script(move |peer| peer.send(greeting));
        assert_eq!(script.connect(&[]).unwrap_err().kind(), kind, "{greeting:?}");
        script.end();
    }
}

#[test]
fn a_silent_server_runs_into_the_handshake_timeout() {
    let script = script(Peer::drain);
    let options = ClientOptions { handshake_timeout: Duration::from_millis(50), ..Default::default() };
    let error = Client::connect_unix_with(&script.path, "x", &[], &options).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Timeout, "{}", causes(&error));
    script.end();
}

#[test]
fn bad_option_replies_are_protocol_errors() {
    type Play = fn(&mut Peer);
    let plays: [(&str, Play, ConnectErrorKind); 6] = [
        ("wrong magic", |peer| peer.send(&[0xaa; 20]), ConnectErrorKind::Protocol),
        (
            "huge length",
            |peer| {
                let mut reply = OptionReply::encode(OptionCode::STRUCTURED_REPLY, reply_kind::ACK, &[]);
                reply[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
                peer.send(&reply);
            },
            ConnectErrorKind::Protocol,
        ),
        (
            "another option",
            |peer| peer.reply(OptionCode::LIST, reply_kind::ACK, &[]),
            ConnectErrorKind::Protocol,
        ),
        (
            "TLS first",
            |peer| peer.reply(OptionCode::STRUCTURED_REPLY, reply_kind::ERR_TLS_REQD, b"use TLS\x1b[31m"),
            ConnectErrorKind::TlsRequired,
        ),
        (
            "no size",
            |peer| {
                peer.reply(OptionCode::STRUCTURED_REPLY, reply_kind::ACK, &[]);
                let (option, _) = peer.option();
                peer.reply(option, reply_kind::ACK, &[]);
            },
            ConnectErrorKind::Protocol,
        ),
        (
            "information without end",
            |peer| {
                peer.reply(OptionCode::STRUCTURED_REPLY, reply_kind::ACK, &[]);
                let (option, _) = peer.option();
                for _ in 0..1000 {
                    peer.reply(option, reply_kind::INFO, &Peer::export(0));
                }
            },
            ConnectErrorKind::Protocol,
        ),
    ];
    for (what, play, kind) in plays {
        let script = script(move |peer| {
            peer.greet();
            peer.option();
            play(peer);
            peer.drain();
        });
        let error = script.connect(&[]).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {}", causes(&error));
        assert!(!causes(&error).contains('\x1b'), "the peer's text must not reach a terminal raw");
        script.end();
    }
}

#[test]
fn listings_without_end_are_cut() {
    let script = script(|peer| {
        peer.greet();
        let (option, _) = peer.option();
        let item = nbd::proto::ServerItem { name: "x".into(), details: String::new() }.encode();
        for _ in 0..20_000 {
            peer.reply(option, reply_kind::SERVER, &item);
        }
    });
    let mut negotiation = Negotiation::connect_unix(&script.path, Duration::from_secs(30)).unwrap();
    assert_eq!(negotiation.list().unwrap_err().kind(), ConnectErrorKind::Protocol);
    drop(negotiation);
    script.end();
}

#[test]
fn an_old_server_without_go_and_structured_replies_still_serves() {
    let script = script(|peer| {
        peer.greet();
        let (option, _) = peer.option();
        peer.reply(option, reply_kind::ERR_UNSUP, &[]);
        let (option, _) = peer.option();
        assert_eq!(option, OptionCode::GO);
        peer.reply(option, reply_kind::ERR_UNSUP, &[]);
        let (option, name) = peer.option();
        assert_eq!((option, name.as_slice()), (OptionCode::EXPORT_NAME, &b"x"[..]));
        peer.send(&SIZE.to_be_bytes());
        peer.send(&TransmissionFlags::HAS_FLAGS.to_be_bytes());
        let read = peer.request();
        peer.send(&SimpleReply { error: ServerErrno(0), cookie: read.cookie }.encode());
        peer.send(&vec![0x5a; read.length as usize]);
        // No WRITE_ZEROES here: zeros come as a write.
        let write = peer.request();
        assert_eq!((write.command, write.offset, write.length), (Command::Write, 4096, 512));
        assert_eq!(peer.take::<512>(), [0; 512]);
        peer.send(&SimpleReply { error: ServerErrno::NOSPC, cookie: write.cookie }.encode());
        assert_eq!(peer.request().command, Command::Disconnect);
    });
    let client = script.connect(&["base:allocation"]).unwrap();
    assert!(client.contexts().is_empty());
    let mut buf = [0; 1000];
    client.read_at(&mut buf, 10).unwrap();
    assert_eq!(buf, [0x5a; 1000]);
    let full = client.write_zeroes(4096, 512, true).unwrap_err();
    assert_eq!(full.kind(), RequestErrorKind::Server(ServerErrno::NOSPC));
    assert_eq!(std::io::Error::from(full).kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(client.flush().unwrap_err().kind(), RequestErrorKind::Unsupported);
    client.trim(0, 512).unwrap();
    client.disconnect();
    script.end();
}

#[test]
fn replies_out_of_order_find_their_callers() {
    let script = script(|peer| {
        peer.handshake(true, 0, 1);
        let mut requests: Vec<Request> = (0..4).map(|_| peer.request()).collect();
        requests.sort_by_key(|request| std::cmp::Reverse(request.offset));
        // Halves of all replies first, so that they interleave.
        for request in &requests {
            let hole = OffsetHole { offset: request.offset, length: 50 };
            peer.chunk(request.cookie, false, ChunkKind::OffsetHole, &hole.encode());
        }
        for request in &requests {
            peer.data(request.cookie, request.offset + 50, &[request.offset as u8; 50]);
        }
        peer.drain();
    });
    let client = script.connect(&[]).unwrap();
    thread::scope(|scope| {
        for offset in [1, 2, 3, 4] {
            let client = &client;
            scope.spawn(move || {
                let mut buf = [0xee; 100];
                client.read_at(&mut buf, offset).unwrap();
                assert_eq!((buf[..50].to_vec(), buf[50..].to_vec()), (vec![0; 50], vec![offset as u8; 50]));
            });
        }
    });
    drop(client);
    script.end();
}

#[test]
fn an_error_reply_fails_one_request_and_the_connection_goes_on() {
    let script = script(|peer| {
        peer.handshake(true, 0, 1);
        let request = peer.request();
        let error = ChunkError { error: ServerErrno::IO, message: "bad sector".into(), offset: Some(9) };
        peer.chunk(request.cookie, true, ChunkKind::ErrorOffset, &error.encode());
        let request = peer.request();
        peer.data(request.cookie, request.offset, &[3; 16]);
        peer.drain();
    });
    let client = script.connect(&[]).unwrap();
    let error = client.read_at(&mut [0; 16], 0).unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Server(ServerErrno::IO));
    assert!(
        causes(&error).ends_with("input/output error (the server says: bad sector)"),
        "{}",
        causes(&error)
    );
    client.read_at(&mut [0; 16], 0).unwrap();
    drop(client);
    script.end();
}

#[test]
fn malformed_replies_end_the_connection_for_everybody() {
    type Play = fn(&mut Peer, Request);
    let plays: [(&str, Play, RequestErrorKind); 8] = [
        ("wrong magic", |peer, _| peer.send(&[0x11; 20]), RequestErrorKind::Protocol),
        ("another cookie", |peer, r| peer.data(r.cookie + 1, 0, &[0; 16]), RequestErrorKind::Protocol),
        ("outside the range", |peer, r| peer.data(r.cookie, 8, &[0; 16]), RequestErrorKind::Protocol),
        ("too short", |peer, r| peer.data(r.cookie, 0, &[0; 8]), RequestErrorKind::Protocol),
        (
            "a simple reply",
            |peer, r| {
                peer.send(&SimpleReply { error: ServerErrno(0), cookie: r.cookie }.encode());
                peer.send(&[0; 16]);
            },
            RequestErrorKind::Protocol,
        ),
        (
            "a huge chunk",
            |peer, r| {
                let (kind, length) = (ChunkKind::OffsetData, u32::MAX);
                peer.send(&ChunkHeader { done: true, kind, cookie: r.cookie, length }.encode());
            },
            RequestErrorKind::Protocol,
        ),
        (
            "an end inside a payload",
            |peer, r| {
                let (kind, length) = (ChunkKind::OffsetData, 24);
                peer.send(&ChunkHeader { done: true, kind, cookie: r.cookie, length }.encode());
                peer.send(&[0; 12]);
            },
            RequestErrorKind::Disconnected,
        ),
        ("an end at once", |_, _| {}, RequestErrorKind::Disconnected),
    ];
    for (what, play, kind) in plays {
        let script = script(move |peer| {
            peer.handshake(true, 0, 1);
            let request = peer.request();
            play(peer, request);
            let _ = peer.0.shutdown(std::net::Shutdown::Write);
            peer.drain();
        });
        let client = script.connect(&[]).unwrap();
        let error = client.read_at(&mut [0; 16], 0).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {}", causes(&error));
        let again = client.flush().unwrap_err();
        assert_eq!(again.kind(), RequestErrorKind::Unsupported, "no flush was offered");
        assert_eq!(client.read_at(&mut [0; 16], 0).unwrap_err().kind(), kind, "{what}");
        drop(client);
        script.end();
    }
}

#[test]
fn a_request_without_an_answer_times_out_and_takes_the_others_along() {
    let script = script(|peer| {
        peer.handshake(true, 0, 1);
        peer.drain();
    });
    let options = ClientOptions { request_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let client = Client::connect_unix_with(&script.path, "x", &[], &options).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let error = client.read_at(&mut [0; 16], 0).unwrap_err();
                assert_eq!(error.kind(), RequestErrorKind::Timeout, "{}", causes(&error));
            });
        }
    });
    drop(client);
    script.end();
}

#[test]
fn unaligned_reads_are_widened_and_unaligned_writes_refused() {
    let script = script(|peer| {
        peer.handshake(true, 0, 4096);
        let read = peer.request();
        assert_eq!((read.offset, read.length), (4096, 8192));
        let bytes: Vec<u8> = (0..8192).map(|at: u32| (at / 32) as u8).collect();
        peer.data(read.cookie, 4096, &bytes);
        let status = peer.request();
        assert_eq!((status.command, status.offset, status.length), (Command::BlockStatus, 0, 12_288));
        let extents =
            [(4096, 1), (4096, 2), (8192, 3)].map(|(length, flags)| StatusExtent { length, flags }).to_vec();
        let reply = BlockStatus { context: 7, extents }.encode();
        peer.chunk(status.cookie, true, ChunkKind::BlockStatus, &reply);
        peer.drain();
    });
    let client = script.connect(&["base:allocation"]).unwrap();
    let mut buf = [0; 4900];
    client.read_at(&mut buf, 4096 + 3200).unwrap();
    assert_eq!((buf[0], buf[4899]), (100, ((3200 + 4899) / 32) as u8));
    let extents = client.block_status("base:allocation", 100, 8200).unwrap();
    let found: Vec<(u64, u32)> = extents.iter().map(|extent| (extent.length, extent.flags)).collect();
    assert_eq!(found, [(3996, 1), (4096, 2), (108, 3)]);
    assert_eq!(client.write_at(&[0; 512], 512).unwrap_err().kind(), RequestErrorKind::Unaligned);
    drop(client);
    script.end();
}

#[test]
fn many_callers_keep_to_the_limit_of_requests_in_flight() {
    let script = script(|peer| {
        peer.handshake(true, 0, 1);
        for _ in 0..6 {
            // Two may be in flight: the second arrives without an answer to the first, a third does not.
            let pair = [peer.request(), peer.request()];
            peer.0.set_nonblocking(true).unwrap();
            assert!(peer.0.read(&mut [0]).is_err(), "a third request is in flight");
            peer.0.set_nonblocking(false).unwrap();
            for request in pair {
                peer.data(request.cookie, request.offset, &[1; 16]);
            }
        }
        peer.drain();
    });
    let options = ClientOptions { max_in_flight: 2, ..Default::default() };
    let client = Client::connect_unix_with(&script.path, "x", &[], &options).unwrap();
    thread::scope(|scope| {
        for caller in 0..12 {
            let client = &client;
            scope.spawn(move || client.read_at(&mut [0; 16], caller * 16).unwrap());
        }
    });
    drop(client);
    script.end();
}
