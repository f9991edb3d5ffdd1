//! What listens beyond the socket: where, for whom, and what it says to the audit log.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use access::audit::Line;
use access::{Action, Audit, Identity, Users};
use machine::Host;
use uuid::Uuid;
use wsman::Principal;
use wsman::server::{self, Authenticator, Basic, Limits, Listener, Negotiate, Proof, Refusal, Watchman, tls};

use crate::error::{ServeError, ServeErrorKind as Kind};

/// The namespace of requests that name none.
const DEFAULT_NAMESPACE: &str = "root/cimv2";
/// The certificate that is made where none is named, in the data directory, and its key.
const CERTIFICATE: &str = "wsman.pem";
const KEY: &str = "wsman.key";
/// How long what somebody may do is not looked up again: the longest that a change takes to be felt.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Most users whose rights are remembered.
const MAX_REMEMBERED: usize = 1024;

/// How a remote client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WS-Management.
    Wsman,
    /// CIM-XML.
    CimXml,
}

impl Protocol {
    /// What people call it.
    pub(crate) fn called(self) -> &'static str {
        match self {
            Self::Wsman => "WS-Management",
            Self::CimXml => "CIM-XML",
        }
    }

    /// The path that its requests are posted to.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Wsman => "/wsman",
            Self::CimXml => "/cimom",
        }
    }

    /// Its table in the configuration file, and its name in the audit log.
    fn key(self) -> &'static str {
        match self {
            Self::Wsman => "wsman",
            Self::CimXml => "cimxml",
        }
    }
}

/// Where one protocol is spoken.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Without TLS.
    pub http: Vec<SocketAddr>,
    /// With TLS.
    pub https: Vec<SocketAddr>,
}

/// Where remote clients come in, and what they find.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Of WS-Management.
    pub wsman: Addresses,
    /// Of CIM-XML.
    pub cimxml: Addresses,
    /// Whether a password may come over a network without TLS.
    pub allow_unencrypted: bool,
    /// The certificate and its key, PEM; one is made where none is named.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What Windows' paths of remote clients are here.
    pub paths: hyperv::PathMap,
}

/// A listener, and what is spoken there.
pub(crate) type Door = (Protocol, Listener);

impl Remote {
    /// Listens. Inside a runtime.
    pub(crate) fn listen(&self, data: &Path) -> Result<Vec<Door>, ServeError> {
        let all = [(Protocol::Wsman, &self.wsman), (Protocol::CimXml, &self.cimxml)];
        let secure = all.iter().any(|(_, at)| !at.https.is_empty());
        let tls = if secure { Some(self.tls(data)?) } else { None };
        let mut doors = Vec::new();
        for (protocol, at) in all {
            let plain = at.http.iter().map(|address| (address, None));
            let secure = at.https.iter().map(|address| (address, tls.clone()));
            for (address, tls) in plain.chain(secure) {
                let door = Listener::bind(*address, tls).map_err(|e| {
                    let key = protocol.key();
                    ServeError::new(Kind::Places, format!("cannot listen at {address}"))
                        .caused_by(e)
                        .hint(format!("name another address or port under [{key}] in the configuration file"))
                })?;
                doors.push((protocol, door));
            }
        }
        Ok(doors)
    }

    fn tls(&self, data: &Path) -> Result<tls::Config, ServeError> {
        let cannot = |e: tls::TlsError| {
            ServeError::new(Kind::Places, "cannot offer TLS")
                .caused_by(e)
                .hint("`wsman.certificate` and `wsman.key` in the configuration file name them; without both, one is made")
        };
        let (certificate, key) = match &self.certificate {
            Some(named) => named.clone(),
            None => {
                let made = (data.join(CERTIFICATE), data.join(KEY));
                let names = [host_name(), "localhost".to_owned()];
                let secure = self.wsman.https.iter().chain(&self.cimxml.https);
                let addresses: Vec<IpAddr> =
                    secure.map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
                tls::make(&made.0, &made.1, &names, &addresses).map_err(cannot)?;
                made
            }
        };
        tls::config(&certificate, &key).map_err(cannot)
    }
}

/// Serves remote clients until `stop` is done.
///
/// # Errors
/// The classes that are served are not as they must be, which a test would have found.
pub(crate) fn serve(
    doors: Vec<Door>,
    remote: &Remote,
    host: Arc<Host>,
    users: Arc<Users>,
    audit: Arc<Audit>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send + 'static, ServeError> {
    let settings = hyperv::Settings {
        host_name: host_name(),
        paths: remote.paths.clone(),
        policy: Arc::new(policy(Arc::clone(&users))),
    };
    let operations = hyperv::Hyperv::new(host, settings)
        .map_err(|e| ServeError::new(Kind::Host, "the classes of the API cannot be read").caused_by(e))?;
    let operations: Arc<dyn wsman::Operations> = Arc::new(operations);
    let settings = wsman::Settings {
        host: host_name(),
        vendor: "Slipway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        default_namespace: DEFAULT_NAMESPACE.to_owned(),
        profiles: profiles(&remote.wsman, remote.allow_unencrypted),
    };
    let log = |protocol| Arc::new(Log { audit: Arc::clone(&audit), protocol });
    let (wsman_log, cimxml_log) = (log(Protocol::Wsman), log(Protocol::CimXml));
    let wsman = wsman::Responder::new(Arc::clone(&operations), Arc::clone(&wsman_log) as _, settings);
    let cimxml = cimxml::Responder::new(operations, Arc::clone(&cimxml_log) as _, host_name());
    let unencrypted = remote.allow_unencrypted;
    let by_password = Arc::new(basic(Arc::clone(&users), unencrypted));
    let by_any = Arc::new(negotiate(users, unencrypted));
    let (mut at_wsman, mut at_cimxml) = (Vec::new(), Vec::new());
    for (protocol, listener) in doors {
        match protocol {
            Protocol::Wsman => at_wsman.push(listener),
            Protocol::CimXml => at_cimxml.push(listener),
        }
    }
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let told = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // Whoever would tell is gone: that is an end, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let limits = Limits::default();
    let first = server::serve(at_wsman, Arc::new(wsman), by_any, wsman_log, limits, told(stopped.clone()));
    // CIM-XML knows no sealing: a name and its password, or a certificate.
    let second = server::serve(at_cimxml, Arc::new(cimxml), by_password, cimxml_log, limits, told(stopped));
    Ok(async move {
        let stop = async {
            stop.await;
            let _ = stopping.send(true);
        };
        tokio::join!(first, second, stop);
    })
}

/// How clients of these addresses may prove who they are, in WS-Management's words. NTLM within Negotiate has none.
fn profiles(at: &Addresses, allow_unencrypted: bool) -> Vec<&'static str> {
    // A password without TLS is taken from this host, and from others where that is switched on.
    let plain = at
        .http
        .iter()
        .any(|address| allow_unencrypted || address.ip().is_loopback() || address.ip().is_unspecified());
    let mut profiles = Vec::new();
    if plain {
        profiles.push("http/basic");
    }
    if !at.https.is_empty() {
        profiles.extend(["https/basic", "https/mutual"]);
    }
    profiles
}

/// What clients call this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The users of the list, as the protocols ask for them.
fn basic(
    users: Arc<Users>,
    unencrypted: bool,
) -> Basic<impl Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync> {
    let check = move |proof: Proof<'_>| {
        let proven = match proof {
            Proof::Password { user, password } => users.authenticate(user, password, Instant::now()),
            Proof::Certificate(thumbprint) => users.by_certificate(thumbprint),
            Proof::NtHash { user, proves } => users.by_nt_hash(user, proves, Instant::now()),
        };
        let unknown = match proof {
            Proof::NtHash { .. } => "unknown, not enabled for NTLM, or not the password",
            _ => "unknown, or not the password",
        };
        proven.map(|identity| identity.name().to_owned()).map_err(|refusal| match refusal {
            access::Refusal::Wrong => Refusal { why: unknown.to_owned(), wait: None },
            access::Refusal::Wait(left) => {
                Refusal { why: "too many wrong passwords".to_owned(), wait: Some(left) }
            }
            access::Refusal::Failed(e) => {
                let hint = e.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
                tracing::error!("nobody can be let in: {}{hint}", machine::chain(&e));
                let why = match e.kind() {
                    access::ErrorKind::Key => e.to_string(),
                    _ => "the list of users cannot be read".to_owned(),
                };
                Refusal { why, wait: None }
            }
        })
    };
    Basic::new(check, unencrypted)
}

/// The same by Negotiate too, which is offered while somebody is enabled for NTLM.
fn negotiate(users: Arc<Users>, unencrypted: bool) -> impl Authenticator {
    let basic = basic(Arc::clone(&users), unencrypted);
    let known: Mutex<Option<(Instant, bool)>> = Mutex::default();
    let enabled = move || {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((since, any)) if since.elapsed() < REMEMBERED => any,
            _ => {
                let any = users.any_nt_hash().unwrap_or_else(|e| {
                    tracing::error!("the list of users cannot be read: {}", machine::chain(&e));
                    false
                });
                *known = Some((Instant::now(), any));
                any
            }
        }
    };
    Negotiate::new(basic, enabled, host_name())
}

/// Whether somebody may do something. A listing asks this once for each machine, so the answer of the store is kept for a
/// moment.
pub(crate) fn policy(users: Arc<Users>) -> impl Fn(&Principal, Action, Option<Uuid>) -> bool + Send + Sync {
    let known: Mutex<HashMap<String, (Instant, Option<Identity>)>> = Mutex::default();
    move |principal, action, machine| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.get(&principal.user).is_some_and(|(since, _)| since.elapsed() < REMEMBERED);
        if !fresh {
            if known.len() >= MAX_REMEMBERED {
                known.clear();
            }
            let identity = users.identity(&principal.user).unwrap_or_else(|e| {
                tracing::error!(
                    "what `{}` may do cannot be looked up: {}",
                    principal.user,
                    machine::chain(&e)
                );
                None
            });
            known.insert(principal.user.clone(), (Instant::now(), identity));
        }
        let identity = known.get(&principal.user).and_then(|(_, identity)| identity.as_ref());
        identity.is_some_and(|identity| identity.may(action, machine))
    }
}

/// Writes into the audit log who came in, who did not, and what was changed.
struct Log {
    audit: Arc<Audit>,
    protocol: Protocol,
}

impl Log {
    fn sign_in(&self, user: &str, from: SocketAddr, end: &str) {
        let from = from.ip().to_string();
        let what = self.protocol.key();
        let line = Line { user, from: &from, does: "sign-in", what, machine: None, end };
        self.audit.write(line, false);
    }
}

impl Watchman for Log {
    fn refused(&self, user: &str, from: SocketAddr, why: &str) {
        self.sign_in(user, from, why);
    }

    fn admitted(&self, principal: &Principal, from: SocketAddr) {
        self.sign_in(&principal.user, from, "accepted");
    }
}

impl wsman::Audit for Log {
    fn done(&self, principal: &Principal, done: &wsman::Done) {
        if !done.changes {
            return;
        }
        let what = format!("{} {}", done.operation, done.target);
        let end = match (&done.fault, done.returned) {
            (Some(fault), _) => fault.clone(),
            (None, Some(code)) => code.to_string(),
            (None, None) => "done".to_owned(),
        };
        let Principal { user, from } = principal;
        self.audit.write(Line { user, from, does: done.does, what: &what, machine: None, end: &end }, true);
    }
}
