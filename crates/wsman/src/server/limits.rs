//! How much a client may take of the server's patience and memory.

use std::time::Duration;

/// Limits of a server; each wait for a client has one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, those included that have not proven anything yet.
    pub connections: usize,
    /// Connections at a time from one address.
    pub from_one_address: usize,
    /// Requests that are answered at a time; more wait their turn.
    pub requests: usize,
    /// Longest that TLS may take to begin.
    pub tls: Duration,
    /// Longest that the head of a request may take, and the silence before one on a kept connection.
    pub head: Duration,
    /// Longest that the body of a request may take.
    pub body: Duration,
    /// Longest that an answer may wait for its client to read on.
    pub answer: Duration,
    /// How long requests under way may take to end when the server stops.
    pub grace: Duration,
    /// Largest body in bytes: twice Windows' default of 500 KiB, for UTF-16.
    pub max_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            from_one_address: 600,
            requests: 64,
            tls: Duration::from_secs(10),
            // Clients keep a connection between polls; Windows closes it after two minutes of silence.
            head: Duration::from_secs(120),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            max_body: 1 << 20,
        }
    }
}

/// Largest head of a request in bytes: a Kerberos ticket with many groups takes 64 KiB in Base64 at most.
pub(super) const MAX_HEAD: usize = 96 << 10;
/// Most header lines of a request.
pub(super) const MAX_HEADERS: usize = 64;
