//! Connections: accepting them, limiting them, ending them.
//!
//! A connection belongs to one peer, found out before its first byte is read. Every wait for the client has a limit, so
//! a slow or silent one holds a slot for seconds, not for ever. Who is admitted is the caller's policy.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;
use tracing::field::Empty;

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
    /// Longest that the head of a request may take, and the silence before one on a kept connection.
    pub head: Duration,
    /// Longest that the body of a request may take.
    pub body: Duration,
    /// How long requests under way may take to end when the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let patience = Duration::from_secs(15);
        Self { connections: 256, head: patience, body: patience, grace: Duration::from_secs(5) }
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
    let slots = Arc::new(Semaphore::new(limits.connections as usize));
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
                tracing::warn!("a connection was not accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!("more than {} connections: one was closed", limits.connections);
            continue;
        };
        let peer = match stream.peer_cred() {
            Ok(who) => admit(&who).ok_or_else(|| format!("uid {} may not use this daemon", who.uid())),
            Err(e) => Err(format!("a connection does not say whose it is: {e}")),
        };
        let service = match peer {
            Ok(peer) => router.clone().layer(axum::Extension(peer)),
            Err(why) => {
                tracing::warn!("{why}");
                Router::new().fallback(move || {
                    let why = why.clone();
                    async move { Refusal::new(machine::Reason::AccessDenied, why).hint(OWN_DAEMON) }
                })
            }
        };
        let stopped = stopped.clone();
        tokio::spawn(async move {
            connection(stream, service, limits.head, stopped).await;
            drop(slot);
        });
    }
    drop(listener);
    let _ = stopping.send(true);
    // Every slot free again means that every connection has ended.
    let _ = tokio::time::timeout(limits.grace, slots.acquire_many(limits.connections)).await;
}

async fn connection(stream: UnixStream, router: Router, head: Duration, mut stopped: watch::Receiver<bool>) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
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
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(e)) => {
            Refusal::body(format!("the request's body was not read: {}", machine::chain(&e))).into_response()
        }
        Err(_) => Refusal::slow(format!("the request's body took longer than {} s", limit.as_secs()))
            .into_response(),
    }
}
