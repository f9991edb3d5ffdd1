//! Client and server over a real socket: the happy way, and clients that are absent, refused, slow or many.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::Edge;
use rest::client::{Client, ClientError, JobFilter};
use rest::server::{Limits, Peer};
use rest::wire::{Define, Edit, NewDisk, Shutdown};
use tokio::sync::oneshot;

/// A server on a socket of its own, until it is dropped.
struct Served {
    edge: Edge,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Served {
    fn new(limits: Limits, admits: bool) -> Self {
        let edge = Edge::new();
        let socket = edge.dir.path().join("s.sock");
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _inside = edge.tokio.enter();
            tokio::net::UnixListener::bind(&socket).unwrap()
        };
        let router = rest::server::router(edge.parts.clone());
        let admit = move |_: &tokio::net::unix::UCred| admits.then(|| Peer { name: "me".to_owned() });
        let stopped = async {
            let _ = stopped.await;
        };
        let server = edge.tokio.spawn(rest::server::serve(listener, router, limits, admit, stopped));
        Self { edge, socket, stop: Some(stop), server: Some(server) }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(server) = self.server.take() {
            self.edge.tokio.block_on(server).unwrap();
        }
    }
}

#[test]
fn the_client_speaks_every_noun() {
    let served = Served::new(Limits::default(), true);
    let client = served.client();
    served.edge.tokio.block_on(async {
        assert_eq!(client.version().await.unwrap().api, "v1");
        assert!(client.doctor().await.unwrap().usable);
        let define = Define {
            name: "a machine/with 100% odd name".to_owned(),
            disks: vec![NewDisk { size: Some(1 << 20), ..NewDisk::default() }],
            ..Define::default()
        };
        let machine = client.define(&define).await.unwrap();
        assert_eq!(client.machine(&define.name).await.unwrap(), machine);
        assert_eq!(client.machines().await.unwrap(), std::slice::from_ref(&machine));
        let name = "plain".to_owned();
        client.edit(&define.name, &Edit { name: Some(name.clone()), ..Edit::default() }).await.unwrap();
        assert_eq!(client.act(&name, "start").await.unwrap().state, "running");
        assert_eq!(client.screenshot(&name).await.unwrap().media_type, "image/png");
        assert!(client.console(&name).await.unwrap().serial_log.is_some());
        assert_eq!(client.shutdown(&name, &Shutdown::default()).await.unwrap().state, "off");

        let directory = served.edge.dir.path().join("out");
        let job = client
            .export(&name, &rest::wire::Export { directory: directory.clone(), ..Default::default() })
            .await;
        let job = job.unwrap().to_string();
        let mut status = client.job(&job).await.unwrap();
        while !status.finished {
            status = client.job_after(&job, status.generation, 60).await.unwrap();
        }
        assert_eq!(status.owner, "me");
        assert_eq!(client.jobs(&JobFilter::default()).await.unwrap().len(), 1);

        let import = rest::wire::Import { path: directory, ..Default::default() };
        let planned = client.import(&import).await.unwrap();
        let word = planned.id.to_string();
        assert_eq!(client.validate(&word).await.unwrap().verdict, "fixable");
        match client.realize(&word).await.unwrap_err() {
            ClientError::Problem { status: 409, problem } => assert_eq!(problem.id, "not-compatible"),
            other => panic!("{other}"),
        }
        client.abandon(&word).await.unwrap();
        client.delete_machine(&name, false).await.unwrap();
        assert!(client.machines().await.unwrap().is_empty());
    });
}

#[test]
fn an_absent_daemon_is_told_apart_and_hinted_at() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = tokio.block_on(Client::new(dir.path().join("none")).machines()).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.hint().unwrap().contains("slipway serve"));
}

#[test]
fn a_peer_that_is_not_admitted_gets_a_reason_and_nothing_else() {
    let served = Served::new(Limits::default(), false);
    match served.edge.tokio.block_on(served.client().machines()).unwrap_err() {
        ClientError::Problem { status: 403, problem } => assert_eq!(problem.id, "access-denied"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_daemon_of_a_stranger_is_not_talked_to() {
    let served = Served::new(Limits::default(), true);
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let stranger = served.client().trusting(&[me + 1]);
    let error = served.edge.tokio.block_on(stranger.version()).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert_eq!(served.edge.tokio.block_on(served.client().trusting(&[me]).version()).unwrap().api, "v1");
}

/// Everything the server says to what is written, until it closes.
fn talk(served: &Served, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(text).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn slow_and_oversized_requests_do_not_hold_a_connection() {
    let brief = Duration::from_millis(50);
    let served = Served::new(Limits { head: brief, body: brief, ..Limits::default() }, true);
    // Each of these returns only because the server gave up.
    talk(&served, b"");
    talk(&served, b"GET /v1 HTTP/1.1\r\nHost: x\r\n");
    let slow = talk(&served, b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(rest::server::MAX_HEAD));
    assert!(!talk(&served, long.as_bytes()).contains("200 OK"));
    let many =
        format!("GET /v1 HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(rest::server::MAX_HEADERS + 1));
    assert!(!talk(&served, many.as_bytes()).contains("200 OK"));
    let noise = talk(&served, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n");
    assert!(!noise.contains("200 OK"));
    assert_eq!(served.edge.tokio.block_on(served.client().version()).unwrap().api, "v1");
}

/// A connection that has asked for something and got the first byte of the answer.
fn asking(served: &Served, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    stream
}

#[test]
fn connections_beyond_the_limit_are_closed_and_their_places_come_free() {
    let served = Served::new(Limits { connections: 2, ..Limits::default() }, true);
    let hold = [asking(&served, "/v1/events"), asking(&served, "/v1/events")];
    let mut third = UnixStream::connect(&served.socket).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap(), 0, "closed at once");
    drop(hold);
    // A place comes free when the server has noticed.
    while served.edge.tokio.block_on(served.client().version()).is_err() {}
}

#[test]
fn clients_that_say_nothing_make_room_for_those_who_do() {
    let served = Served::new(Limits { connections: 4, ..Limits::default() }, true);
    let watcher = asking(&served, "/v1/events");
    let mut silent: Vec<UnixStream> =
        (0..1000).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    assert_eq!(served.edge.tokio.block_on(served.client().version()).unwrap().api, "v1");
    for stream in &mut silent[..900] {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the longest silent goes");
    }
    // Who is being answered was let alone all the while.
    let mut rest = watcher;
    rest.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let open = rest.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock, "{bytes:?}");
}

#[test]
fn strangers_take_no_place_of_those_who_are_admitted() {
    let served = Served::new(Limits { connections: 1, strangers: 1, ..Limits::default() }, false);
    let strangers: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    match served.edge.tokio.block_on(served.client().machines()).unwrap_err() {
        ClientError::Problem { status: 403, .. } => {}
        other => panic!("{other}"),
    }
    drop(strangers);
}

#[test]
fn an_answer_that_nobody_reads_is_not_kept_for_ever() {
    let limits = Limits { answer: Duration::from_millis(50), ..Limits::default() };
    let served = Served::new(limits, true);
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    // More answers than fit between the two ends; the server must not wait until they are read.
    let request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let refused = (0..1_000_000).find_map(|_| stream.write_all(request).err()).unwrap();
    let closed = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset];
    assert!(closed.contains(&refused.kind()), "{refused}");
}

#[test]
fn the_server_stops_while_watchers_wait() {
    let mut served = Served::new(Limits { grace: Duration::from_millis(50), ..Limits::default() }, true);
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    served.stop();
    assert!(served.edge.tokio.block_on(served.client().version()).is_err());
}
