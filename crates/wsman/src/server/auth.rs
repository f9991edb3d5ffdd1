//! Who is there: a trait for what proves it, and Basic. What takes several legs is in `negotiate.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Reply;
use crate::Principal;

/// Longest `Authorization` of Basic that is looked at, in bytes.
const MAX_BASIC: usize = 4096;

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secure {
    /// By TLS.
    Tls {
        /// SHA-256 of the client's certificate (DER) in lower-case hexadecimal, if it showed one and proved to have its key.
        certificate: Option<String>,
        /// What a client may name to say that it meant this server's certificate.
        binding: Option<negotiate::Binding>,
    },
    /// By never leaving this host.
    Loopback,
    /// By nothing.
    No,
}

impl Secure {
    /// Whether others can listen in.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self != Self::No
    }
}

/// What proves who is at the other end of connections.
pub trait Authenticator: Send + Sync + 'static {
    /// Begins with a connection from `from`.
    fn begin(&self, from: SocketAddr, secure: &Secure) -> Box<dyn Handshake>;
}

/// What a connection has proven so far, and the keys that came of it. Its methods block.
pub trait Handshake: Send {
    /// Looks at the `Authorization` of one request.
    fn step(&mut self, authorization: Option<&str>) -> Step;

    /// Looks at the body of a request whose sender has proven who it is.
    ///
    /// # Errors
    /// It is sealed and cannot be opened, or must be sealed and is not.
    fn open(&mut self, content_type: String, body: Vec<u8>) -> Result<Opened, Distrust> {
        if negotiate::framing::is_sealed(&content_type) {
            let why = "a sealed body on a connection without keys".to_owned();
            return Err(Distrust { status: 400, offers: Vec::new(), user: String::new(), why });
        }
        Ok(Opened { content_type, body, sealed: false })
    }

    /// Seals the reply to a request whose body was sealed.
    fn seal(&mut self, reply: Reply) -> Reply {
        reply
    }
}

/// The body of a request, in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it was sealed, and the reply is to be.
    pub sealed: bool,
}

/// Why a body is not looked at. The connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrust {
    /// HTTP status of the answer.
    pub status: u16,
    /// What is offered, with 401.
    pub offers: Vec<String>,
    /// Whose connection it is.
    pub user: String,
    /// Why, for the log.
    pub why: String,
}

impl Distrust {
    /// The connection's handshake ended in a panic.
    pub(super) fn lost(principal: &Principal) -> Self {
        let why = "the handshake of the connection is lost".to_owned();
        Self { status: 500, offers: Vec::new(), user: principal.user.clone(), why }
    }
}

/// What comes of an `Authorization`.
#[derive(Debug)]
pub enum Step {
    /// It is proven who asks.
    Proven(Principal),
    /// It is, by the last leg of a handshake. A request without a body was sent for nothing else.
    Completed {
        /// Who asks.
        principal: Principal,
        /// The `WWW-Authenticate` of the answer.
        last: Option<String>,
    },
    /// It is not, or not yet: 401 with one `WWW-Authenticate` for each of these.
    Offer(Vec<String>),
    /// It is refused, with what the client called itself and why. The client is told what [`Step::Offer`] would tell it.
    Refused {
        /// What is offered.
        offers: Vec<String>,
        /// What it called itself.
        user: String,
        /// Why, for the log.
        why: String,
        /// How long to wait until it may try again, where it tried too often.
        wait: Option<Duration>,
    },
}

/// What a client shows to be somebody.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// A name and its password.
    Password {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
    /// A client certificate whose key it has, by its SHA-256 thumbprint in lower-case hexadecimal.
    Certificate(&'a str),
    /// What only somebody can have computed who knows the NT hash of the user's password.
    NtHash {
        /// The name.
        user: &'a str,
        /// Whether that is proven, by the NT hash.
        proves: &'a dyn Fn(&[u8; 16]) -> bool,
    },
}

impl std::fmt::Debug for Proof<'_> {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "a password for {user:?}"),
            Self::Certificate(thumbprint) => write!(f, "the certificate {thumbprint}"),
            Self::NtHash { user, .. } => write!(f, "a proof for {user:?}"),
        }
    }
}

/// Why a proof is none.
#[derive(Debug)]
pub struct Refusal {
    /// For the log.
    pub why: String,
    /// How long to wait until the next try.
    pub wait: Option<Duration>,
}

/// Basic authentication and client certificates, by whoever knows the users.
pub struct Basic<F> {
    pub(super) check: Arc<F>,
    pub(super) unencrypted: bool,
}

impl<F> Basic<F>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
{
    /// With `check`, which blocks and gives the user's name as it is in the list. Unless `unencrypted`, no password is
    /// accepted that others could have read on its way.
    pub fn new(check: F, unencrypted: bool) -> Self {
        Self { check: Arc::new(check), unencrypted }
    }
}

impl<F> Authenticator for Basic<F>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
{
    fn begin(&self, from: SocketAddr, secure: &Secure) -> Box<dyn Handshake> {
        Box::new(self.handshake(from, secure))
    }
}

impl<F> Basic<F> {
    pub(super) fn handshake(&self, from: SocketAddr, secure: &Secure) -> BasicHandshake<F> {
        BasicHandshake {
            check: Arc::clone(&self.check),
            from,
            certificate: match secure {
                Secure::Tls { certificate, .. } => certificate.clone(),
                _ => None,
            },
            allowed: self.unencrypted || secure.is_private(),
        }
    }
}

pub(super) struct BasicHandshake<F> {
    check: Arc<F>,
    from: SocketAddr,
    certificate: Option<String>,
    allowed: bool,
}

impl<F> BasicHandshake<F>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal>,
{
    pub(super) fn offers(&self) -> Vec<String> {
        // Windows' realm. Where Basic would tell the password to others, nothing is left to offer.
        if self.allowed { vec!["Basic realm=\"WSMAN\"".to_owned()] } else { Vec::new() }
    }

    fn judge(&self, proof: Proof<'_>, user: &str) -> Step {
        match (self.check)(proof) {
            Ok(user) => Step::Proven(Principal { user, from: self.from.ip().to_string() }),
            Err(Refusal { why, wait }) => {
                Step::Refused { offers: self.offers(), user: user.to_owned(), why, wait }
            }
        }
    }
}

/// The scheme that Windows' clients name when the certificate is the proof.
const MUTUAL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";

impl<F> Handshake for BasicHandshake<F>
where
    F: Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync + 'static,
{
    fn step(&mut self, authorization: Option<&str>) -> Step {
        let refused = |why: &str| Step::Refused {
            offers: self.offers(),
            user: String::new(),
            why: why.to_owned(),
            wait: None,
        };
        let (scheme, token) = authorization.map(|a| a.split_once(' ').unwrap_or((a, ""))).unwrap_or_default();
        if let Some(certificate) = &self.certificate
            && (scheme.is_empty() || scheme.eq_ignore_ascii_case(MUTUAL))
        {
            return self.judge(Proof::Certificate(certificate), certificate);
        }
        if scheme.is_empty() {
            return Step::Offer(self.offers());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Step::Offer(self.offers());
        }
        if !self.allowed {
            return refused("a password came over the network without TLS");
        }
        let decoded =
            Some(token.trim()).filter(|t| t.len() <= MAX_BASIC).and_then(|t| STANDARD.decode(t).ok());
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => self.judge(Proof::Password { user, password }, user),
            None => refused("the Authorization of Basic cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(proof: Proof<'_>) -> Result<String, Refusal> {
        match proof {
            Proof::Password { user: "ada", password: "a:b" } => Ok("Ada".to_owned()),
            Proof::Certificate("c0ffee") => Ok("Eve".to_owned()),
            _ => Err(Refusal { why: "no".to_owned(), wait: None }),
        }
    }

    fn step(secure: &Secure, authorization: Option<&str>) -> Step {
        let from = "192.0.2.7:1".parse().unwrap();
        Basic::new(check, false).begin(from, secure).step(authorization)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_password_is_proof_where_nobody_listens_in() {
        let tls = Secure::Tls { certificate: None, binding: None };
        for secure in [&tls, &Secure::Loopback] {
            let Step::Proven(who) = step(secure, Some(&basic("ada:a:b"))) else { panic!("{secure:?}") };
            assert_eq!((who.user.as_str(), who.from.as_str()), ("Ada", "192.0.2.7"));
            assert!(
                matches!(step(secure, Some(&basic("ada:x"))), Step::Refused { user, .. } if user == "ada")
            );
            assert!(matches!(step(secure, None), Step::Offer(offers) if offers == ["Basic realm=\"WSMAN\""]));
            assert!(matches!(step(secure, Some("Negotiate YII=")), Step::Offer(_)));
        }
        let open = step(&Secure::No, Some(&basic("ada:a:b")));
        assert!(matches!(open, Step::Refused { offers, .. } if offers.is_empty()));
    }

    #[test]
    fn a_certificate_is_proof_with_the_scheme_or_without_any() {
        let tls = Secure::Tls { certificate: Some("c0ffee".to_owned()), binding: None };
        for authorization in [None, Some(MUTUAL)] {
            assert!(matches!(step(&tls, authorization), Step::Proven(who) if who.user == "Eve"));
        }
        assert!(matches!(step(&tls, Some(&basic("ada:a:b"))), Step::Proven(who) if who.user == "Ada"));
        let other = Secure::Tls { certificate: Some("00".to_owned()), binding: None };
        assert!(matches!(step(&other, None), Step::Refused { .. }));
    }

    #[test]
    fn what_is_no_basic_is_refused() {
        for wrong in ["Basic", "Basic !", "Basic YWRh", "basic /w==", &format!("Basic {}", "A".repeat(5000))]
        {
            assert!(matches!(step(&Secure::Loopback, Some(wrong)), Step::Refused { .. }), "{wrong}");
        }
    }
}
