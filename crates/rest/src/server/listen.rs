//! Connections: accepting them, limiting them, ending them.
//!
//! A connection belongs to one peer, found out before its first byte is read. Every wait for the client has a limit, so
//! a slow or silent one holds a place for seconds, not for ever, and makes room for others before that
//! ([`super::places`]). Those who are not admitted have places of their own, to be told so. Who is admitted is the
//! caller's policy.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::net::unix::UCred;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::patience::Patient;
use super::places::{Place, Places, Seat};
use super::{MAX_BODY, Peer, Refusal};

/// Largest head of a request in bytes.
pub const MAX_HEAD: usize = 32 << 10;
/// Most header lines of a request.
pub const MAX_HEADERS: usize = 64;

/// Most bytes of a request's path that are logged.
const MAX_LOGGED_PATH: usize = 200;

/// What somebody who is not admitted can do.
const OWN_DAEMON: &str = "run a daemon of your own with `slipway serve`, or ask root to add you to the group `slipway`, which may use root's";

/// How much a client may take of the server's patience.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: u32,
    /// Connections at a time of those who are not admitted, beside the others.
    pub strangers: u32,
    /// Longest that the head of a request may take, and the silence before one on a kept connection.
    pub head: Duration,
    /// Longest that the body of a request may take.
    pub body: Duration,
    /// Longest that an answer may wait for its client to read on.
    pub answer: Duration,
    /// How long requests under way may take to end when the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let patience = Duration::from_secs(15);
        Self {
            connections: 256,
            strangers: 16,
            head: patience,
            body: patience,
            answer: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves `router` on `listener` until `stop` is done; then gives requests under way a while to end.
///
/// `admit` says who a connection is from, or that it is refused.
pub async fn serve(
    listener: UnixListener,
    router: Router,
    limits: Limits,
    admit: impl Fn(&UCred) -> Option<Peer>,
    stop: impl Future<Output = ()>,
) {
    let router = router
        .layer(middleware::from_fn(move |request, next| whole_body(limits.body, request, next)))
        .layer(middleware::from_fn(with_span));
    let places = Places::new(limits.connections);
    let outside = Places::new(limits.strangers);
    let mut complaints = Complaints::default();
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of descriptors, most likely: others end and free some.
                complaints.make(|| format!("a connection was not accepted: {e}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = match stream.peer_cred() {
            Ok(who) => admit(&who).ok_or_else(|| format!("uid {} may not use this daemon", who.uid())),
            Err(e) => Err(format!("a connection does not say whose it is: {e}")),
        };
        if let Err(why) = &peer {
            complaints.make(|| why.clone());
        }
        let Some(place) = (if peer.is_ok() { &places } else { &outside }).take() else {
            complaints
                .make(|| format!("{} connections are being answered: one was closed", limits.connections));
            continue;
        };
        let (router, peer) = match peer {
            Ok(peer) => (router.clone(), Some(peer)),
            Err(why) => (refusing(why), None),
        };
        tokio::spawn(connection(
            Patient::new(stream, limits.answer),
            router,
            peer,
            limits,
            place,
            stopped.clone(),
        ));
    }
    drop(listener);
    let _ = stopping.send(true);
    let _ = tokio::time::timeout(limits.grace, places.emptied()).await;
}

/// What somebody who is not admitted gets to see.
fn refusing(why: String) -> Router {
    Router::new().fallback(move || {
        let why = why.clone();
        async move { Refusal::new(machine::Reason::AccessDenied, why).hint(OWN_DAEMON) }
    })
}

/// Warnings about clients, at most one a second: whoever connects may connect again at once.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    kept_back: u64,
}

impl Complaints {
    fn make(&mut self, what: impl FnOnce() -> String) {
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            self.kept_back += 1;
            return;
        }
        self.last = Some(Instant::now());
        match std::mem::take(&mut self.kept_back) {
            0 => tracing::warn!("{}", what()),
            more => tracing::warn!("{} ({more} warnings of this kind were left out)", what()),
        }
    }
}

async fn connection(
    stream: Patient,
    router: Router,
    peer: Option<Peer>,
    limits: Limits,
    place: Place,
    mut stopped: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router);
    let seat = Arc::clone(&place.seat);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&seat));
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        service.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = place.seat.asked_to_leave() => return,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection ended early: {e}");
    }
}

/// Gives what a request logs its method, its path, who asked and, once that is known, the machine concerned.
async fn with_span(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map_or("", |peer| &peer.name);
    let path = request.uri().path();
    let path = path.get(..MAX_LOGGED_PATH).unwrap_or(path);
    let span = tracing::info_span!("request", method = %request.method(), path, peer, machine = Empty);
    next.run(request).instrument(span).await
}

/// Reads the whole body within its limits before a handler sees the request.
async fn whole_body(limit: Duration, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // What is too large by its own word is not waited for.
    if hyper::body::Body::size_hint(&body).lower() > MAX_BODY as u64 {
        return Refusal::body(format!("the request's body is larger than {MAX_BODY} bytes")).into_response();
    }
    match tokio::time::timeout(limit, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => {
            let answering = parts.extensions.get::<Arc<Seat>>().map(Seat::answer);
            let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
            match answering {
                Some(answering) => answering.until_sent(response),
                None => response,
            }
        }
        Ok(Err(e)) => {
            Refusal::body(format!("the request's body was not read: {}", machine::chain(&e))).into_response()
        }
        Err(_) => Refusal::slow(format!("the request's body took longer than {} s", limit.as_secs()))
            .into_response(),
    }
}
