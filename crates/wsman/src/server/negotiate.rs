//! Negotiate: SPNEGO or plain NTLM in several legs, bound to the connection, and bodies sealed with the keys that come of it.
//!
//! ```text
//!  Authorization: Negotiate NEGOTIATE      401  WWW-Authenticate: Negotiate CHALLENGE
//!  Authorization: Negotiate AUTHENTICATE   200  WWW-Authenticate: Negotiate last token    (or the reply, if there was a body)
//!  multipart/encrypted, no Authorization   200  multipart/encrypted
//! ```
//!
//! Where others could listen in, only sealed bodies are looked at. A connection that Negotiate has proven is that user's until
//! it ends: nobody else can become its owner, and no other way of proving is looked at. `NTLM` as the scheme is what curl
//! says; it is understood and not offered, as on Windows.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use negotiate::{Accepted, Acceptor, Fresh, MAX_TOKEN, Session, Settings, Turn, Wrong, framing};

use super::auth::{BasicHandshake, Distrust, Opened};
use super::{Authenticator, Basic, Handshake, Proof, Refusal, Reply, Secure, Step};
use crate::Principal;

/// Longest NetBIOS name in characters.
const MAX_COMPUTER: usize = 15;
/// From 1601 to 1970 in hundreds of nanoseconds.
const EPOCH: u64 = 116_444_736_000_000_000;

/// Negotiate in front of Basic and client certificates.
pub struct Negotiate<F, E> {
    basic: Basic<F>,
    enabled: Arc<E>,
    host: String,
}

impl<F, E> Negotiate<F, E>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
    E: Fn() -> bool + Send + Sync + 'static,
{
    /// Before `basic`, whose check also hears [`Proof::NtHash`]. It is offered while `enabled` says so, and not looked at
    /// otherwise. `host` is what challenges call this host.
    pub fn new(basic: Basic<F>, enabled: E, host: impl Into<String>) -> Self {
        Self { basic, enabled: Arc::new(enabled), host: host.into() }
    }
}

impl<F, E> Authenticator for Negotiate<F, E>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
    E: Fn() -> bool + Send + Sync + 'static,
{
    fn begin(&self, from: SocketAddr, secure: &Secure) -> Box<dyn Handshake> {
        let sealing = !self.basic.unencrypted && !secure.is_private();
        let settings = Settings {
            computer: computer(&self.host),
            host: self.host.clone(),
            sealing,
            binding: match secure {
                Secure::Tls { binding, .. } => *binding,
                _ => None,
            },
        };
        Box::new(NegotiateHandshake {
            check: Arc::clone(&self.basic.check),
            basic: self.basic.handshake(from, secure),
            enabled: Arc::clone(&self.enabled),
            from,
            sealing,
            acceptor: Acceptor::new(settings),
            owner: None,
            proven: None,
        })
    }
}

/// The NetBIOS name of a host.
fn computer(host: &str) -> String {
    let label = host.split('.').next().unwrap_or_default();
    label.chars().filter(char::is_ascii_graphic).take(MAX_COMPUTER).collect::<String>().to_ascii_uppercase()
}

struct NegotiateHandshake<F, E> {
    check: Arc<F>,
    basic: BasicHandshake<F>,
    enabled: Arc<E>,
    from: SocketAddr,
    /// Whether only sealed bodies are looked at.
    sealing: bool,
    acceptor: Acceptor,
    /// Whose connection it is, since somebody has proven it.
    owner: Option<String>,
    /// What holds now; gone when another handshake begins.
    proven: Option<Proven>,
}

struct Proven {
    principal: Principal,
    session: Option<Session>,
}

impl<F, E> NegotiateHandshake<F, E>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
    E: Fn() -> bool + Send + Sync + 'static,
{
    fn offers(&self) -> Vec<String> {
        let first = (self.enabled)().then(|| "Negotiate".to_owned());
        first.into_iter().chain(self.basic.offers()).collect()
    }

    fn refused(&self, user: &str, why: impl Into<String>) -> Step {
        let user = user.to_owned();
        Step::Refused { offers: self.offers(), user, why: why.into(), wait: None }
    }

    fn leg(&mut self, scheme: &str, token: &str) -> Step {
        self.proven = None;
        let token = Some(token.trim()).filter(|t| t.len() <= MAX_TOKEN / 3 * 4 + 4);
        let Some(token) = token.and_then(|token| STANDARD.decode(token).ok()) else {
            return self.refused("", format!("the Authorization of {scheme} cannot be read"));
        };
        let Some(fresh) = fresh() else { return self.refused("", "this host has no random numbers") };
        let attempt = match self.acceptor.step(&token, fresh) {
            Ok(Turn::Reply(token)) => return Step::Offer(vec![said(scheme, &token)]),
            Ok(Turn::Attempt(attempt)) => attempt,
            Err(e) => return self.refused("", e.to_string()),
        };
        let outcome: RefCell<Option<Result<Accepted, Wrong>>> = RefCell::default();
        let proves = |nt_hash: &[u8; 16]| {
            let proven = attempt.prove(nt_hash);
            let holds = proven.is_ok();
            outcome.replace(Some(proven));
            holds
        };
        let user = attempt.user();
        let checked = (self.check)(Proof::NtHash { user, proves: &proves });
        let (name, accepted) = match (checked, outcome.take()) {
            (Ok(name), Some(Ok(accepted))) => (name, accepted),
            (Ok(_), _) => return self.refused(user, "nothing was proven"),
            // What was wrong with it says more than that something was.
            (Err(refusal), Some(Err(wrong))) if wrong != Wrong::Proof && refusal.wait.is_none() => {
                return self.refused(user, wrong.to_string());
            }
            (Err(Refusal { why, wait }), _) => {
                return Step::Refused { offers: self.offers(), user: user.to_owned(), why, wait };
            }
        };
        if self.owner.as_ref().is_some_and(|owner| *owner != name) {
            return self.refused(&name, "the connection is another user's");
        }
        self.owner = Some(name.clone());
        let principal = Principal { user: name, from: self.from.ip().to_string() };
        self.proven = Some(Proven { principal: principal.clone(), session: accepted.session });
        Step::Completed { principal, last: accepted.token.map(|token| said(scheme, &token)) }
    }

    /// Nothing that comes after something forged is looked at.
    fn distrust(&mut self, status: u16, why: String) -> Distrust {
        self.proven = None;
        let offers = if status == 401 { self.offers() } else { Vec::new() };
        Distrust { status, offers, user: self.owner.clone().unwrap_or_default(), why }
    }
}

impl<F, E> Handshake for NegotiateHandshake<F, E>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
    E: Fn() -> bool + Send + Sync + 'static,
{
    fn step(&mut self, authorization: Option<&str>) -> Step {
        let (scheme, token) = authorization.map(|a| a.split_once(' ').unwrap_or((a, ""))).unwrap_or_default();
        let spoken = ["Negotiate", "NTLM"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme));
        match (spoken, &self.proven) {
            (Some(_), _) if !(self.enabled)() => Step::Offer(self.offers()),
            (Some(spoken), _) => self.leg(spoken, token),
            (None, Some(proven)) if scheme.is_empty() => Step::Proven(proven.principal.clone()),
            (None, _) if self.owner.is_some() => match scheme {
                "" => Step::Offer(self.offers()),
                _ => self.refused("", "another proof than Negotiate's on a connection that it has proven"),
            },
            (None, _) => match self.basic.step(authorization) {
                Step::Offer(_) => Step::Offer(self.offers()),
                Step::Refused { user, why, wait, .. } => {
                    Step::Refused { offers: self.offers(), user, why, wait }
                }
                other => other,
            },
        }
    }

    fn open(&mut self, content_type: String, body: Vec<u8>) -> Result<Opened, Distrust> {
        let sealed = framing::is_sealed(&content_type);
        let Some(proven) = &mut self.proven else { return self.basic.open(content_type, body) };
        let Some(session) = proven.session.as_mut().filter(|_| sealed) else {
            return match (sealed, self.sealing) {
                (true, _) => Err(self.distrust(400, "a sealed body on a connection without keys".to_owned())),
                // As Windows answers it.
                (false, true) => Err(self.distrust(500, "a body came over the network unsealed".to_owned())),
                (false, false) => Ok(Opened { content_type, body, sealed: false }),
            };
        };
        let part = match framing::read(&content_type, &body) {
            Ok(part) => part,
            Err(e) => return Err(self.distrust(400, e.to_string())),
        };
        let (content_type, length) = (part.content_type.to_owned(), part.length);
        let mut body = part.data.to_vec();
        if let Err(e) = session.unseal(&mut body, part.signature) {
            return Err(self.distrust(401, e.to_string()));
        }
        if body.len() != length {
            return Err(self.distrust(400, "a sealed body has another length than it says".to_owned()));
        }
        trim(&content_type, &mut body);
        Ok(Opened { content_type, body, sealed: true })
    }

    fn seal(&mut self, reply: Reply) -> Reply {
        let Reply { status, content_type, headers, mut body } = reply;
        let session = self.proven.as_mut().and_then(|proven| proven.session.as_mut());
        match (session, content_type) {
            (Some(session), Some(content_type)) => {
                let signature = session.seal(&mut body);
                let body = framing::write(content_type, body.len(), &signature, &body);
                Reply { status, content_type: Some(framing::CONTENT_TYPE), headers, body }
            }
            // Nothing goes out in clear that came sealed.
            _ => Reply::empty(status),
        }
    }
}

/// omicli's texts end with zero bytes, which are no text.
fn trim(content_type: &str, body: &mut Vec<u8>) {
    let wide = content_type.to_ascii_lowercase().contains("utf-16");
    let zero = if wide { &[0, 0][..] } else { &[0] };
    while body.ends_with(zero) && body.len().is_multiple_of(zero.len()) {
        body.truncate(body.len() - zero.len());
    }
}

/// A token as a header says it.
fn said(scheme: &str, token: &[u8]) -> String {
    format!("{scheme} {}", STANDARD.encode(token))
}

fn fresh() -> Option<Fresh> {
    let mut nonce = [0; 8];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut nonce).ok()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = EPOCH + u64::try_from(since.as_nanos() / 100).unwrap_or_default();
    Some(Fresh { nonce, time })
}
