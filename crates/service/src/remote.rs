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
use wsman::server::{Basic, Limits, Listener, Proof, Refusal, Watchman, tls};

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

/// Where remote clients come in, and what they find.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Addresses of WS-Management without TLS.
    pub http: Vec<SocketAddr>,
    /// Addresses of it with TLS.
    pub https: Vec<SocketAddr>,
    /// Whether a password may come over a network without TLS.
    pub allow_unencrypted: bool,
    /// The certificate and its key, PEM; one is made where none is named.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What Windows' paths of remote clients are here.
    pub paths: hyperv::PathMap,
}

impl Remote {
    /// Listens. Inside a runtime.
    pub(crate) fn listen(&self, data: &Path) -> Result<Vec<Listener>, ServeError> {
        let tls = if self.https.is_empty() { None } else { Some(self.tls(data)?) };
        let plain = self.http.iter().map(|address| (address, None));
        let secure = self.https.iter().map(|address| (address, tls.clone()));
        let bind = |(address, tls): (&SocketAddr, _)| {
            Listener::bind(*address, tls).map_err(|e| {
                ServeError::new(Kind::Places, format!("cannot listen at {address}"))
                    .caused_by(e)
                    .hint("name another address or port under [wsman] in the configuration file")
            })
        };
        plain.chain(secure).map(bind).collect()
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
                let addresses: Vec<IpAddr> =
                    self.https.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
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
    listeners: Vec<Listener>,
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
    let settings = wsman::Settings {
        host: host_name(),
        vendor: "Slipway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        default_namespace: DEFAULT_NAMESPACE.to_owned(),
    };
    let log = Arc::new(Log(audit));
    let responder = wsman::Responder::new(Arc::new(operations), Arc::clone(&log) as _, settings);
    let authenticator = Arc::new(authenticator(users, remote.allow_unencrypted));
    let serving =
        wsman::server::serve(listeners, Arc::new(responder), authenticator, log, Limits::default(), stop);
    Ok(serving)
}

/// What kind of thing an operation that changes something does. Who may do it is decided elsewhere; this is for the log.
fn action(operation: &str) -> Action {
    if operation.starts_with("Export") {
        return Action::Export;
    }
    let operates = ["RequestStateChange", "InitiateShutdown", "Type", "PressKey", "ReleaseKey", "Reset"];
    if operates.iter().any(|begin| operation.starts_with(begin)) {
        Action::Operate
    } else {
        Action::Configure
    }
}

/// What clients call this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The users of the list, as the protocol asks for them.
pub(crate) fn authenticator(
    users: Arc<Users>,
    unencrypted: bool,
) -> Basic<impl Fn(Proof<'_>) -> Result<String, Refusal> + Send + Sync> {
    let check = move |proof: Proof<'_>| {
        let proven = match proof {
            Proof::Password { user, password } => users.authenticate(user, password, Instant::now()),
            Proof::Certificate(thumbprint) => users.by_certificate(thumbprint),
            // Nobody has an NT hash yet, and Negotiate is not offered.
            Proof::NtHash { .. } => Err(access::Refusal::Wrong),
        };
        proven.map(|identity| identity.name().to_owned()).map_err(|refusal| match refusal {
            access::Refusal::Wrong => Refusal { why: "unknown, or not the password".to_owned(), wait: None },
            access::Refusal::Wait(left) => {
                Refusal { why: "too many wrong passwords".to_owned(), wait: Some(left) }
            }
            access::Refusal::Failed(e) => {
                tracing::error!("users cannot be looked up: {}", machine::chain(&e));
                Refusal { why: "the list of users cannot be read".to_owned(), wait: None }
            }
        })
    };
    Basic::new(check, unencrypted)
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
struct Log(Arc<Audit>);

impl Log {
    fn sign_in(&self, user: &str, from: SocketAddr, end: &str) {
        let from = from.ip().to_string();
        let line = Line { user, from: &from, does: "sign-in", what: "wsman", machine: None, end };
        self.0.write(line, false);
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
        let does = action(&done.operation).word();
        self.0.write(Line { user, from, does, what: &what, machine: None, end: &end }, true);
    }
}
