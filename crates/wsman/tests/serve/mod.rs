//! The small host behind real sockets, and the least of an HTTP client.

#![allow(clippy::unwrap_used, dead_code, reason = "this is test code, and each test uses some of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::sync::oneshot;
use wsman::server::{
    Authenticator, Basic, Handshake, Limits, Listener, Negotiate, Proof, Refusal, Secure, Watchman, serve,
    tls,
};
use wsman::{Principal, Responder};

/// Who was refused and why.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) refused: Mutex<Vec<(String, String)>>,
}

impl Watchman for Gate {
    fn refused(&self, user: &str, _: SocketAddr, why: &str) {
        self.refused.lock().unwrap().push((user.to_owned(), why.to_owned()));
    }

    fn admitted(&self, _: &Principal, _: SocketAddr) {}
}

/// A server that runs until it is dropped.
pub(crate) struct Served {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) gate: Arc<Gate>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(responder: Responder, limits: Limits) -> Self {
        Self::with(responder, limits, Basic::new(check, false))
    }

    /// With Negotiate, and as if the plain listener's clients came over a network.
    pub(crate) fn negotiating(responder: Responder) -> Self {
        let negotiate = Negotiate::new(Basic::new(check, false), || true, "vms.example");
        Self::with(responder, Limits::default(), OverNetwork(negotiate))
    }

    fn with(responder: Responder, limits: Limits, authenticator: impl Authenticator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        tls::make(&certificate, &key, &["localhost".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap();
        let config = tls::config(&certificate, &key).unwrap();
        let gate = Arc::new(Gate::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let watchman = Arc::clone(&gate);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let anywhere = "127.0.0.1:0".parse().unwrap();
                let listeners = vec![
                    Listener::bind(anywhere, None).unwrap(),
                    Listener::bind(anywhere, Some(config)).unwrap(),
                ];
                tell.send((listeners[0].address().unwrap(), listeners[1].address().unwrap())).unwrap();
                let authenticator = Arc::new(authenticator);
                let stop = async {
                    let _ = stopped.await;
                };
                serve(listeners, Arc::new(responder), authenticator, watchman, limits, stop).await;
            });
        });
        let (plain, tls) = told.recv().unwrap();
        Self { plain, tls, gate, stop: Some(stop), thread: Some(thread), _folder: folder }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The NT hash of `Passw0rd!`.
const NT_HASH: [u8; 16] = 0xfc525c9683e8fe067095ba2ddc971889_u128.to_be_bytes();

/// Takes loopback for a network, so that what holds there can be tried on any host.
struct OverNetwork<A>(A);

impl<A: Authenticator> Authenticator for OverNetwork<A> {
    fn begin(&self, from: SocketAddr, secure: &Secure) -> Box<dyn Handshake> {
        self.0.begin(from, if *secure == Secure::Loopback { &Secure::No } else { secure })
    }
}

fn check(proof: Proof<'_>) -> Result<String, Refusal> {
    match proof {
        Proof::Password { user: "administrator", password: "Passw0rd!" } => Ok("administrator".to_owned()),
        Proof::NtHash { user: user @ ("administrator" | "eve"), proves } if proves(&NT_HASH) => {
            Ok(user.to_owned())
        }
        _ => Err(Refusal { why: "wrong password".to_owned(), wait: None }),
    }
}

/// A reply.
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

/// A connection of one client.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).unwrap()) }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Posts an envelope as the user, or with another password.
    pub(crate) fn post(&mut self, password: &str, body: &str) -> Heard {
        self.send(&posted(Some(password), body.len(), body));
        self.hear().unwrap()
    }

    /// The next reply; none when the server hung up.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
            if head[before..].trim().is_empty() {
                break;
            }
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Heard { status, head, body: String::from_utf8_lossy(&body).into_owned(), bytes: body })
    }

    /// Waits until the server hangs up.
    pub(crate) fn hung_up(&mut self) -> bool {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        true
    }
}

/// A request, which may promise another length than it has.
pub(crate) fn posted(password: Option<&str>, length: usize, body: &str) -> Vec<u8> {
    let authorization = password.map_or_else(String::new, |password| {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("administrator:{password}"));
        format!("Authorization: Basic {token}\r\n")
    });
    format!(
        "POST /wsman HTTP/1.1\r\nHost: localhost\r\n{authorization}\
         Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length:{length}\r\n\r\n{body}"
    )
    .into_bytes()
}
