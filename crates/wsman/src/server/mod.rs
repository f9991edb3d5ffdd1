//! Listening: TCP and TLS, who is there, and limits to what a client may take of our patience.
//!
//! ```text
//!  accept ── TLS (or not) ── one HTTP/1.1 connection ── whole request within its limits ──┐
//!                                       │                                                │
//!                                       └── Handshake: proven, or 401 with offers <──────┤
//!                                                                                        ▼
//!                                  Handshake::open ── Handler::answer ── Handshake::seal, on a thread that may block
//! ```
//!
//! Negotiate and its kin prove who is there once for a connection and in several legs, so a [`Handshake`] belongs to a
//! connection and keeps what it needs between legs. What is answered is the [`Handler`]'s business: this module knows
//! HTTP and no protocol on top of it. Nobody but an anonymous Identify gets past here without having proven who it is.

mod auth;
mod limits;
mod listen;
mod negotiate;
mod patience;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

pub use self::negotiate::Negotiate;
pub use auth::{Authenticator, Basic, Distrust, Handshake, Opened, Proof, Refusal, Secure, Step};
pub use limits::Limits;
pub use listen::{Listener, serve};

use crate::Principal;

/// A request, whole, of somebody who has proven who it is.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks; none where the handler said that it answers anybody.
    pub principal: Option<Principal>,
    /// The address it came to.
    pub host: String,
    /// The method of HTTP, one of those that the handler takes.
    pub method: String,
    /// Path of the URL.
    pub path: String,
    /// The `Content-Type` as it came, empty when there was none.
    pub content_type: String,
    /// The headers that are text, in their order, names in lower case; without `Authorization`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was whole.
    pub received: Instant,
}

impl Request {
    /// The first header of that name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The `Content-Type`; none with an empty body.
    pub content_type: Option<&'static str>,
    /// Headers more, names in lower case. What HTTP cannot carry of them is left out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Vec::new() }
    }
}

/// What requests are for. Its methods block, and are called on threads that may.
pub trait Handler: Send + Sync + 'static {
    /// Whether there is anything at `path`.
    fn serves(&self, path: &str) -> bool;

    /// Whether this is a method that requests come by.
    fn takes(&self, method: &str) -> bool {
        method == "POST"
    }

    /// Whether anybody may ask this without proving who it is. `unauthenticated`: the client said that it wants to be
    /// anonymous (header `WSMANIDENTIFY: unauthenticated`).
    fn anonymous(&self, path: &str, unauthenticated: bool) -> bool;

    /// Answers a request, or says what to wait for before it is asked again.
    fn answer(&self, request: &Request) -> Attempt;
}

/// What a handler makes of a request.
#[derive(Debug)]
pub enum Attempt {
    /// The answer.
    Reply(Reply),
    /// There is none yet. While it is waited for, the request takes no thread and nobody's turn.
    Later(Later),
}

/// When to ask a handler again.
#[derive(Clone, Debug)]
pub struct Later {
    /// Told when there may be an answer.
    pub ready: Arc<Notify>,
    /// When to ask in any case.
    pub until: Instant,
}

impl From<Reply> for Attempt {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// What is told of who came in, for the audit log.
pub trait Watchman: Send + Sync + 'static {
    /// Somebody was refused: `user` is what it called itself.
    fn refused(&self, user: &str, from: SocketAddr, why: &str);
    /// Somebody proved who it is; once for a connection.
    fn admitted(&self, principal: &Principal, from: SocketAddr);
}
