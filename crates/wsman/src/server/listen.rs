//! Connections: accepting them, limiting them, proving who is there, ending them. What is sealed is opened and sealed by the
//! connection's handshake.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::limits::{MAX_HEAD, MAX_HEADERS};
use super::patience::Patient;
use super::{
    Attempt, Authenticator, Distrust, Handler, Handshake, Later, Limits, Reply, Request, Secure, Step,
    Watchman, tls,
};
use crate::Principal;

/// Proofs that are looked at at a time.
const PROOFS: usize = 16;
/// Bodies that are read at a time: what they take of memory is this many times the largest.
const BODIES: usize = 256;
/// Largest body in bytes of somebody who has not proven anything: an Identify has 1 KiB.
const MAX_ANONYMOUS: usize = 16 << 10;

/// Where clients connect.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<tls::Config>,
}

impl Listener {
    /// Listens at `address`, with TLS when there is a configuration for it. Call it inside a runtime.
    ///
    /// # Errors
    /// The address is taken, not this host's, or not allowed.
    pub fn bind(address: SocketAddr, tls: Option<tls::Config>) -> io::Result<Self> {
        let tcp = std::net::TcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { tcp: TcpListener::from_std(tcp)?, tls })
    }

    /// The address that it got.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// What all connections share.
struct Shared {
    handler: Arc<dyn Handler>,
    authenticator: Arc<dyn Authenticator>,
    watchman: Arc<dyn Watchman>,
    limits: Limits,
    connections: Arc<Semaphore>,
    requests: Semaphore,
    bodies: Semaphore,
    proofs: Semaphore,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// Serves until `stop` is done; then gives requests under way a while to end.
pub async fn serve(
    listeners: Vec<Listener>,
    handler: Arc<dyn Handler>,
    authenticator: Arc<dyn Authenticator>,
    watchman: Arc<dyn Watchman>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let shared = Arc::new(Shared {
        handler,
        authenticator,
        watchman,
        limits,
        connections: Arc::new(Semaphore::new(limits.connections)),
        requests: Semaphore::new(limits.requests),
        bodies: Semaphore::new(BODIES),
        proofs: Semaphore::new(PROOFS),
        addresses: Mutex::default(),
    });
    let (stopping, stopped) = watch::channel(false);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept(listener, Arc::clone(&shared), stopped.clone())))
        .collect();
    stop.await;
    let _ = stopping.send(true);
    for task in accepting {
        let _ = task.await;
    }
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(limits.grace, shared.connections.acquire_many(all)).await;
}

async fn accept(listener: Listener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.tcp.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: others end and free some.
                tracing::warn!("a connection was not accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Whoever comes when there is no room is let go at once: waiting would be one more thing to exhaust.
        let Some(place) = Place::take(&shared, from.ip()) else {
            tracing::debug!(%from, "there is no room for a connection");
            continue;
        };
        let (tls, shared, stopped) = (listener.tls.clone(), Arc::clone(&shared), stopped.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = begin(stream, from, tls, shared, stopped).await {
                tracing::debug!(%from, "a connection ended early: {e}");
            }
        });
    }
}

/// One of the connections that there may be; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(shared: &Arc<Shared>, address: IpAddr) -> Option<Self> {
        let permit = Arc::clone(&shared.connections).try_acquire_owned().ok()?;
        let mut addresses = shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(address).or_insert(0);
        if *count >= shared.limits.from_one_address {
            return None;
        }
        *count += 1;
        Some(Self { shared: Arc::clone(shared), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn begin(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<tls::Config>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let host = stream.local_addr()?.to_string();
    stream.set_nodelay(true)?;
    let stream = Patient::new(stream, shared.limits.answer);
    let Some(tls) = tls else {
        let secure = if from.ip().to_canonical().is_loopback() { Secure::Loopback } else { Secure::No };
        return connection(stream, host, from, secure, shared, stopped).await;
    };
    let acceptor = TlsAcceptor::from(tls.server);
    let stream = tokio::time::timeout(shared.limits.tls, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(tls::thumbprint);
    let secure = Secure::Tls { certificate, binding: Some(tls.binding) };
    connection(stream, host, from, secure, shared, stopped).await
}

/// What a connection keeps between requests.
struct Kept {
    host: String,
    from: SocketAddr,
    /// Taken by the request that is being looked at; HTTP/1.1 has one at a time. One that ended in a panic is not put back.
    handshake: Mutex<Option<Box<dyn Handshake>>>,
    stopped: watch::Receiver<bool>,
    admitted: Mutex<Option<Principal>>,
}

impl Kept {
    fn take(&self) -> Option<Box<dyn Handshake>> {
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, handshake: Box<dyn Handshake>) {
        *self.handshake.lock().unwrap_or_else(PoisonError::into_inner) = Some(handshake);
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    host: String,
    from: SocketAddr,
    secure: Secure,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let handshake = Mutex::new(Some(shared.authenticator.begin(from, &secure)));
    let kept = Arc::new(Kept { host, from, handshake, stopped: stopped.clone(), admitted: Mutex::default() });
    let limits = shared.limits;
    let service = service_fn(move |request| {
        let (shared, kept) = (Arc::clone(&shared), Arc::clone(&kept));
        async move { Ok::<_, Infallible>(answer(request, &shared, &kept).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => ended?,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await?;
        }
    }
    Ok(())
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: hyper::Request<Incoming>, shared: &Arc<Shared>, kept: &Arc<Kept>) -> Answer {
    let path = request.uri().path().to_owned();
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let content_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let unauthenticated = request
        .headers()
        .get("wsmanidentify")
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"unauthenticated"));
    let authorization = header(AUTHORIZATION).map(str::to_owned);
    let method = request.method().as_str().to_owned();
    if !shared.handler.serves(&path) {
        return spoken(Reply::empty(404), &[], drained(request, shared).await);
    }
    if !shared.handler.takes(&method) {
        return spoken(Reply::empty(405), &[], drained(request, shared).await);
    }
    let anonymous = authorization.is_none() && shared.handler.anonymous(&path, unauthenticated);
    let proven = if anonymous {
        None
    } else {
        match prove(authorization, shared, kept).await {
            Ok(proven) => Some(proven),
            Err(offers) => return spoken(Reply::empty(401), &offers, drained(request, shared).await),
        }
    };
    let headers = texts(request.headers());
    let limit = if anonymous { MAX_ANONYMOUS } else { shared.limits.max_body };
    if promises_more(&request, limit) {
        return spoken(Reply::empty(413), &[], false);
    }
    // A client that is slow to say what it wants holds up no one who has said it.
    let Ok(room) = shared.bodies.acquire().await else { return spoken(Reply::empty(503), &[], false) };
    let body =
        match tokio::time::timeout(shared.limits.body, Limited::new(request.into_body(), limit).collect())
            .await
        {
            Ok(Ok(body)) => body.to_bytes().to_vec(),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                return spoken(Reply::empty(413), &[], false);
            }
            Ok(Err(_)) => return spoken(Reply::empty(400), &[], false),
            Err(_) => return spoken(Reply::empty(408), &[], false),
        };
    if let Some(Proven { leg: true, last, .. }) = &proven
        && body.is_empty()
    {
        return spoken(Reply::empty(200), last.as_slice(), true);
    }
    let last = proven.as_ref().and_then(|proven| proven.last.clone());
    let host = kept.host.clone();
    let received = Instant::now();
    let request = Request { principal: None, host, method, path, content_type, headers, body, received };
    let mut work = Work { request, proven, sealed: false };
    let mut room = Some(room);
    loop {
        let Ok(turn) = shared.requests.acquire().await else { return spoken(Reply::empty(503), &[], false) };
        drop(room.take());
        let (handler, mine) = (Arc::clone(&shared.handler), Arc::clone(kept));
        let worked =
            tokio::task::spawn_blocking(move || work.attempt(&*handler, &mine).map(|done| (done, work)));
        match worked.await {
            Ok(Ok((Attempt::Reply(reply), _))) => return spoken(reply, last.as_slice(), true),
            Ok(Ok((Attempt::Later(later), rest))) => {
                work = rest;
                drop(turn);
                if !waited(&later, kept.stopped.clone()).await {
                    return spoken(Reply::empty(503), &[], false);
                }
            }
            Ok(Err(Distrust { status, offers, user, why })) => {
                shared.watchman.refused(&user, kept.from, &why);
                return spoken(Reply::empty(status), &offers, false);
            }
            Err(e) => {
                tracing::error!("a request's worker ended unexpectedly: {e}");
                return spoken(Reply::empty(500), &[], false);
            }
        }
    }
}

/// Waits for what a handler waits for; false when the server stops first.
async fn waited(later: &Later, mut stopped: watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = later.ready.notified() => true,
        () = tokio::time::sleep_until(later.until.into()) => true,
        _ = stopped.changed() => false,
    }
}

/// A request on its way to its answer.
struct Work {
    request: Request,
    /// Taken when the request is opened.
    proven: Option<Proven>,
    /// Whether it came sealed.
    sealed: bool,
}

impl Work {
    fn attempt(&mut self, handler: &dyn Handler, kept: &Kept) -> Result<Attempt, Distrust> {
        let request = &mut self.request;
        if let Some(Proven { principal, .. }) = self.proven.take() {
            let mut handshake = kept.take().ok_or_else(|| Distrust::lost(&principal))?;
            let (content_type, body) =
                (std::mem::take(&mut request.content_type), std::mem::take(&mut request.body));
            let opened = handshake.open(content_type, body)?;
            kept.put(handshake);
            (request.principal, request.content_type, request.body) =
                (Some(principal), opened.content_type, opened.body);
            self.sealed = opened.sealed;
        }
        Ok(match (handler.answer(request), &request.principal) {
            (Attempt::Reply(reply), Some(principal)) if self.sealed => {
                let mut handshake = kept.take().ok_or_else(|| Distrust::lost(principal))?;
                let reply = handshake.seal(reply);
                kept.put(handshake);
                Attempt::Reply(reply)
            }
            (attempt, _) => attempt,
        })
    }
}

/// Somebody who has proven who it is.
struct Proven {
    principal: Principal,
    /// Whether this request was the last leg of a handshake.
    leg: bool,
    /// The `WWW-Authenticate` that ends it.
    last: Option<String>,
}

/// Who asks, or what to offer.
async fn prove(
    authorization: Option<String>,
    shared: &Arc<Shared>,
    kept: &Arc<Kept>,
) -> Result<Proven, Vec<String>> {
    let Ok(_turn) = shared.proofs.acquire().await else { return Err(Vec::new()) };
    let mine = Arc::clone(kept);
    let step = tokio::task::spawn_blocking(move || {
        let mut handshake = mine.take()?;
        let step = handshake.step(authorization.as_deref());
        mine.put(handshake);
        Some(step)
    });
    let proven = match step.await {
        Ok(Some(Step::Proven(principal))) => Proven { principal, leg: false, last: None },
        Ok(Some(Step::Completed { principal, last })) => Proven { principal, leg: true, last },
        Ok(Some(Step::Offer(offers))) => return Err(offers),
        Ok(Some(Step::Refused { offers, user, why, .. })) => {
            shared.watchman.refused(&user, kept.from, &why);
            return Err(offers);
        }
        Ok(None) | Err(_) => return Err(Vec::new()),
    };
    let principal = &proven.principal;
    let before = kept.admitted.lock().unwrap_or_else(PoisonError::into_inner).replace(principal.clone());
    if before.as_ref() != Some(principal) {
        shared.watchman.admitted(principal, kept.from);
    }
    Ok(proven)
}

/// The headers that a handler may look at: who asks is settled, and a password goes no further than it must.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let named = headers.iter().filter(|(name, _)| *name != AUTHORIZATION);
    named
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), str::from_utf8(value.as_bytes()).ok()?.to_owned()))
        })
        .collect()
}

/// What is too large by its own word is not waited for.
fn promises_more(request: &hyper::Request<Incoming>, limit: usize) -> bool {
    request.body().size_hint().lower() > limit as u64
}

/// Reads the rest of a request that is not looked at, so that the connection can go on; whether it can.
async fn drained(request: hyper::Request<Incoming>, shared: &Shared) -> bool {
    if promises_more(&request, shared.limits.max_body) {
        return false;
    }
    let mut body = Limited::new(request.into_body(), shared.limits.max_body);
    let reading = async {
        loop {
            match body.frame().await {
                None => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
    };
    tokio::time::timeout(shared.limits.body, reading).await.unwrap_or(false)
}

/// An answer as HTTP speaks it. `go_on`: the connection can be used again.
fn spoken(reply: Reply, offers: &[String], go_on: bool) -> Answer {
    let Reply { status, content_type, headers: more, body } = reply;
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    for offer in offers.iter().filter_map(|offer| HeaderValue::from_str(offer).ok()) {
        headers.append(WWW_AUTHENTICATE, offer);
    }
    if !go_on {
        headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
