//! From options to a daemon and back.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::report::HostFacts;
use machine::{Ambient, Host, HostOptions};
use rest::server::{Limits, Peer};
use rest::wire::Scenario;
use store::{Durability, OpenErrorKind, SqliteStore, Store};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{ServeError, ServeErrorKind as Kind};
use crate::notify::{READY, STOPPING, notify};
use crate::peers::Peers;
use crate::places;
use crate::remote::{self, Door, Remote};
use crate::simulation::{self, Simulated};

/// How long running steps of jobs may take to stop.
const JOB_GRACE: Duration = Duration::from_secs(20);
/// The audit log's name in the data directory.
const AUDIT: &str = "audit.log";
/// The key of NT hashes, in the data directory.
const NT_HASH_KEY: &str = "ntlm.key";
/// How often old jobs are forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Threads that talk to clients; the work is done on blocking ones.
const WORKERS: usize = 2;

/// Which engine runs guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// QEMU.
    #[default]
    Qemu,
    /// The simulator: guests that only pretend, for clients' tests.
    Sim,
}

impl EngineChoice {
    /// The word for it in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Sim => "sim",
        }
    }
}

/// What a daemon is told.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Data directory; absolute.
    pub data: PathBuf,
    /// The data is gone with the daemon, so nothing of it need outlive the machine.
    pub temporary: bool,
    /// Socket to listen at; absolute.
    pub socket: PathBuf,
    /// The group whose members may use root's daemon.
    pub group: Option<String>,
    /// What runs guests.
    pub engine: EngineChoice,
    /// Written when requests are accepted; holds the socket's path and the other addresses, one a line.
    pub ready_file: Option<PathBuf>,
    /// What the simulator begins with, of that engine.
    pub scenario: Option<PathBuf>,
    /// systemd's `NOTIFY_SOCKET`.
    pub notify_socket: Option<OsString>,
    /// Jobs that run at a time.
    pub job_workers: usize,
    /// How long finished jobs are remembered.
    pub job_retention: Duration,
    /// What listens beyond the socket.
    pub remote: Remote,
}

/// Runs a daemon until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ServeErrorKind`](crate::ServeErrorKind): it did not start.
pub fn run(options: &ServiceOptions) -> Result<(), ServeError> {
    run_until(options, || {
        let both = signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
        async move {
            let (mut terminate, mut interrupt) = match both {
                Ok(both) => both,
                Err(e) => {
                    tracing::error!("signals cannot be taken: {e}");
                    return std::future::pending().await;
                }
            };
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM"),
                _ = interrupt.recv() => tracing::info!("SIGINT"),
            }
        }
    })
}

/// Runs a daemon until what `stop` makes is done. It is called first of all, inside a tokio runtime: a signal that it
/// takes is not lost while the host opens.
///
/// # Errors
/// As [`run`].
pub fn run_until<F: Future<Output = ()> + Send + 'static>(
    options: &ServiceOptions,
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    for path in [&options.data, &options.socket] {
        if !path.is_absolute() {
            return Err(ServeError::new(Kind::Places, format!("`{}` is not absolute", path.display())));
        }
    }
    // Before anything is made: a scenario with a mistake in it leaves no trace.
    let scenario = options.scenario.as_deref().map(simulation::read).transpose()?;
    if scenario.is_some() && options.engine != EngineChoice::Sim {
        return Err(
            ServeError::new(Kind::Scenario, "a scenario is for the simulator").hint("add `--engine sim`")
        );
    }
    places::own_dir(&options.data, 0o700)?;
    // The lock comes first: it tells a second daemon on the same data, whatever its socket.
    let store = open_store(&options.data)?;
    let peers = Peers::of_host(rustix::process::geteuid().as_raw(), options.group.as_deref());
    let listener = places::listen(&options.socket, &peers)?;
    // From here on clients connect and wait, instead of finding nobody while guests and jobs are looked for.
    let served = serve(options, scenario, store, listener, peers, stop);
    let _ = fs::remove_file(&options.socket);
    if let Some(ready) = &options.ready_file {
        let _ = fs::remove_file(ready);
    }
    served
}

fn serve<F: Future<Output = ()> + Send + 'static>(
    options: &ServiceOptions,
    scenario: Option<Scenario>,
    store: SqliteStore,
    listener: std::os::unix::net::UnixListener,
    peers: Peers,
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    let runtime = places::runtime(&options.data, &options.socket)?;
    let store: Arc<dyn Store> = Arc::new(store);
    let users = access::Users::new(Arc::clone(&store)).with_key_file(options.data.join(NT_HASH_KEY));
    let users = Arc::new(users);
    let audit = Arc::new(access::Audit::new(options.data.join(AUDIT)));
    let given = scenario.is_some();
    let simulated = match options.engine {
        EngineChoice::Qemu => None,
        EngineChoice::Sim => {
            Some(Arc::new(Simulated::open(scenario, &runtime, &options.data, Arc::clone(&store))?))
        }
    };
    let (engine, facts, ambient): (Arc<dyn engine::Engine>, _, _) = match &simulated {
        None => (Arc::new(engine::QemuEngine::default()), None, Ambient::default()),
        // Guests that only pretend need no firmware files and no TPM emulator to have both.
        Some(simulated) => {
            let facts = HostFacts { uefi: true, tpm: true, ..HostFacts::of_this_host() };
            (Arc::new(simulated.engine.clone()), Some(facts), simulated.ambient())
        }
    };
    let threads =
        |e: std::io::Error| ServeError::new(Kind::Host, "cannot start the daemon's threads").caused_by(e);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("slipway")
        .enable_all()
        .build()
        .map_err(threads)?;
    let stop = {
        let _inside = tokio.enter();
        tokio.spawn(stop())
    };
    let cannot_open = |e: machine::Error| {
        let error = ServeError::new(Kind::Host, format!("cannot open `{}`", options.data.display()));
        let hint = e.hint_text().map(str::to_owned);
        let error = error.caused_by(e);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    };
    let host_options = HostOptions {
        data: options.data.clone(),
        runtime,
        store,
        engine,
        facts,
        jobs: job::Options { workers: options.job_workers },
        boot: boot_id(),
    };
    let durability = if options.temporary { Durability::Deferred } else { Durability::EachCommit };
    let host = Host::open_in(host_options, Ambient { durability, ..ambient }).map_err(cannot_open)?;
    if let Some(simulated) = &simulated {
        simulated.serve(&host);
        simulated.begin(&host, given).map_err(cannot_open)?;
    }
    let done = tokio.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener).map_err(threads)?;
        let doors = options.remote.listen(&options.data)?;
        ready(options, &doors)?;
        let pruner = tokio::spawn(prune(Arc::clone(&host), options.job_retention));
        let control = simulated.as_ref().map(Simulated::control);
        let (closing, closed) = tokio::sync::oneshot::channel::<()>();
        let closed = async {
            let _ = closed.await;
        };
        let (its_host, its_users, its_audit) = (Arc::clone(&host), Arc::clone(&users), Arc::clone(&audit));
        // Nobody comes in where nothing listens, and the classes need not be read for nobody.
        let remote = if doors.is_empty() {
            None
        } else {
            let serving = remote::serve(doors, &options.remote, its_host, its_users, its_audit, closed)?;
            Some(tokio::spawn(serving))
        };
        let parts = rest::server::Parts { host: Arc::clone(&host), users, audit, simulation: control };
        let router = rest::server::router(parts);
        let admit =
            |who: &tokio::net::unix::UCred| peers.admit(who.uid(), who.gid()).map(|name| Peer { name });
        let stop = async {
            let _ = stop.await;
            tracing::info!("stopping; guests run on, jobs go on at the next start");
            notify(options.notify_socket.as_deref(), STOPPING);
            drop(closing);
        };
        rest::server::serve(listener, router, Limits::default(), admit, stop).await;
        if let Some(remote) = remote {
            let _ = remote.await;
        }
        pruner.abort();
        Ok(())
    });
    host.stop_starting();
    let left = host.jobs().shutdown(JOB_GRACE);
    for job in left {
        tracing::warn!(%job, "its step did not stop in time; it goes on at the next start all the same");
    }
    // Handlers that still wait for a guest end with the process.
    tokio.shutdown_background();
    drop(host);
    tracing::info!("stopped");
    done
}

/// The kernel's name for this boot (random(4)).
fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

fn open_store(data: &Path) -> Result<SqliteStore, ServeError> {
    let path = data.join("slipway.db");
    SqliteStore::open(&path).map_err(|e| {
        let hint = match e.kind() {
            OpenErrorKind::InUse => {
                Some("a daemon runs on this data already: use it, or name other data with --data")
            }
            OpenErrorKind::Newer => {
                Some("run the newer program, or restore the backup made before the upgrade")
            }
            _ => Some("restore the data directory from a backup, or name other data with --data"),
        };
        let kind = if e.kind() == OpenErrorKind::InUse { Kind::Running } else { Kind::Store };
        let error =
            ServeError::new(kind, format!("cannot open the store in `{}`", data.display())).caused_by(e);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

fn ready(options: &ServiceOptions, doors: &[Door]) -> Result<(), ServeError> {
    tracing::info!(
        socket = %options.socket.display(),
        data = %options.data.display(),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    let mut addresses = format!("{}\n", options.socket.display());
    for (protocol, door) in doors {
        let address = door
            .address()
            .map_err(|e| ServeError::new(Kind::Places, "a listener has no address").caused_by(e))?;
        let scheme = if door.is_tls() { "https" } else { "http" };
        let url = format!("{scheme}://{address}{}", protocol.path());
        tracing::info!("{} at {url}", protocol.called());
        addresses += &url;
        addresses.push('\n');
    }
    if let Some(file) = &options.ready_file {
        // Whole or not at all: somebody is waiting for it to appear.
        let partial = file.with_extension("partial");
        let written = fs::write(&partial, addresses);
        written.and_then(|()| fs::rename(&partial, file)).map_err(|e| {
            ServeError::new(Kind::Places, format!("cannot write `{}`", file.display())).caused_by(e)
        })?;
    }
    notify(options.notify_socket.as_deref(), READY);
    Ok(())
}

/// Forgets old jobs, now and then.
async fn prune(host: Arc<Host>, retention: Duration) {
    let mut clock = tokio::time::interval(PRUNE_INTERVAL);
    loop {
        clock.tick().await;
        let host = Arc::clone(&host);
        match tokio::task::spawn_blocking(move || host.jobs().prune(retention)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(n)) => tracing::info!("forgot {n} finished jobs"),
            Ok(Err(e)) => tracing::warn!("finished jobs were not forgotten: {}", machine::chain(&e)),
        }
    }
}
