//! QEMU as an [`Engine`]: its words stop in this module and in `qmp`.
//!
//! ```text
//! install   what is there            launch    spec to process         guest     process to Guest, events
//! kvm       whether KVM works        args      the command line        agent     the guest agent
//! doctor    the host's report        layout    addresses and ids       keymap    keys
//! runtime   directory and record     process   pidfds, sessions        tpm, bridge, switch   helpers beside QEMU
//! state     saved memory, and back         scope     systemd's control groups
//! ```
//!
//! A QEMU is a process in a session of its own with a runtime directory of its own; nothing of it is in our memory
//! that could not be read there again. That is what lets a guest outlive the daemon and be found by the next one.

mod agent;
mod args;
mod bridge;
mod doctor;
mod guest;
mod install;
mod keymap;
mod kvm;
mod launch;
mod layout;
pub(crate) mod process;
mod runtime;
mod scope;
mod state;
mod switch;
mod tpm;
pub(crate) mod vpc;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use guest::{Parts, QemuGuest};
use install::Qemu;
use process::Process;
use runtime::Record;
use scope::Scopes;

use crate::error::{AttachError, AttachErrorKind, StartError, StartErrorKind};
use crate::guest::{Engine, Guest, Listener};
use crate::host::{HostReport, KvmVerdict};
use crate::qmp::Client;
use crate::spec::GuestSpec;

/// Where QEMU is and how it is started. The default fits Debian.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// The program; `None` looks for `qemu-system-x86_64` in the usual places.
    pub program: Option<PathBuf>,
    /// Directories that hold `OVMF/`.
    pub firmware_dirs: Vec<PathBuf>,
    /// A directory of ours for short names of deep runtime directories (a socket's name has at most 107 bytes).
    pub short_dir: PathBuf,
    /// Longest QEMU may take until it answers; the guest's own boot is not in it.
    pub start_limit: Duration,
    /// Whether QEMU drops what it does not need by seccomp.
    pub sandbox: bool,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            program: None,
            firmware_dirs: vec!["/usr/share".into(), "/usr/local/share".into()],
            short_dir: runtime::default_short_dir(),
            start_limit: Duration::from_secs(60),
            sandbox: true,
        }
    }
}

/// Runs guests in QEMU.
#[derive(Debug, Default)]
pub struct QemuEngine {
    config: QemuConfig,
    kvm: OnceLock<KvmVerdict>,
    scopes: OnceLock<Scopes>,
    /// Found once; a QEMU that is not there is looked for again each time, so that installing it helps at once.
    qemu: Mutex<Option<Qemu>>,
}

impl QemuEngine {
    /// An engine; nothing is looked for until it is needed.
    pub fn new(config: QemuConfig) -> Self {
        QemuEngine { config, ..QemuEngine::default() }
    }

    fn qemu(&self) -> Result<Qemu, StartError> {
        let mut known = self.qemu.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(qemu) = known.as_ref() {
            // An upgrade may have replaced or removed the file.
            if qemu.program.path.is_file() {
                return Ok(qemu.clone());
            }
        }
        let found = Qemu::find(self.config.program.as_deref())?;
        *known = Some(found.clone());
        Ok(found)
    }

    fn scopes(&self) -> &Scopes {
        self.scopes.get_or_init(Scopes::of_this_process)
    }

    fn kvm(&self, qemu: &Qemu) -> KvmVerdict {
        self.kvm
            .get_or_init(|| {
                let verdict = kvm::probe(&qemu.program.path);
                tracing::info!(usable = verdict.usable, reason = verdict.reason, "KVM probed");
                verdict
            })
            .clone()
    }
}

impl QemuEngine {
    /// Starts a guest, from a saved state if there is one.
    fn launch(
        &self,
        spec: &GuestSpec,
        state: Option<&Path>,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError> {
        let _about = tracing::info_span!("start", guest = %spec.id).entered();
        let qemu = self.qemu()?;
        let launched = launch::launch(spec, state, &self.config, &qemu, &|| self.kvm(&qemu), self.scopes())?;
        let parts = Parts {
            spec: spec.clone(),
            resolved: launched.resolved,
            sockets: launched.sockets,
            short_dir: self.config.short_dir.clone(),
            process: launched.process,
            frozen: state.map(|_| true),
            exit: Some(launched.exit),
            client: launched.client,
            events: launched.events,
        };
        let guest = QemuGuest::supervise(parts, events)
            .map_err(|e| StartError::new(StartErrorKind::Failed, "no thread for the guest").with_source(e))?;
        Ok(Box::new(guest))
    }
}

impl Engine for QemuEngine {
    fn start(&self, spec: &GuestSpec, events: Box<dyn Listener>) -> Result<Box<dyn Guest>, StartError> {
        self.launch(spec, None, events)
    }

    fn restore(
        &self,
        spec: &GuestSpec,
        state: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError> {
        self.launch(spec, Some(state), events)
    }

    fn attach(
        &self,
        runtime_dir: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Option<Box<dyn Guest>>, AttachError> {
        let at = runtime_dir.display();
        let fail = |kind, message: String| AttachError::new(kind, message);
        let record = match Record::read(runtime_dir) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(e) => {
                let error =
                    fail(AttachErrorKind::BadRecord, format!("{at}: the guest's record cannot be read"));
                return Err(error.with_source(e));
            }
        };
        let _about = tracing::info_span!("attach", guest = %record.spec.id).entered();
        let sockets = runtime::socket_dir(runtime_dir, &self.config.short_dir).map_err(|e| {
            fail(AttachErrorKind::Failed, format!("{at} has no short name for its sockets")).with_source(e)
        })?;
        let socket = sockets.join(args::QMP_SOCKET);
        let named = match record.process {
            Some(name) => Process::open_exact(name.pid, name.start_time).map_err(|e| {
                fail(AttachErrorKind::Failed, format!("process {} cannot be held", name.pid)).with_source(e)
            })?,
            // The daemon died right after it started QEMU: whoever listens there is it.
            None => launch::listener(&socket),
        };
        let Some(process) = named else {
            switch::leave(&record.spec, None, &self.config.short_dir);
            Record::remove(runtime_dir);
            runtime::forget_socket_dir(runtime_dir, &sockets);
            return Ok(None);
        };
        let pid = process.pid();
        let (client, qmp_events) = Client::connect(&socket).map_err(|e| {
            fail(
                AttachErrorKind::NotAnswering,
                format!("{at}: process {pid} runs but does not answer on its control socket"),
            )
            .with_hint(format!("if it hangs: kill -9 {pid}"))
            .with_source(e)
        })?;
        let failed =
            |e| fail(AttachErrorKind::NotAnswering, format!("{at}: process {pid} failed")).with_source(e);
        let uuid = client.execute("query-uuid", serde_json::Value::Null, ATTACH_LIMIT).map_err(failed)?;
        if uuid.get("UUID").and_then(serde_json::Value::as_str)
            != Some(&record.spec.system_uuid().to_string())
        {
            return Err(fail(AttachErrorKind::WrongGuest, format!("{at}: process {pid} runs another guest")));
        }
        // Until here it may be in the group of a daemon that died before it could be moved.
        launch::enclose(&record.spec, &process, self.scopes());
        // A switch whose hub died lost its ports; a guest is no worse off for it than before.
        let rejoined = self.qemu().and_then(|qemu| {
            switch::join(&record.spec, &process, &sockets, &self.config, &qemu.program.path, self.scopes())
        });
        if let Err(error) = rejoined {
            tracing::warn!(%error, "private switch");
        }
        if client.status(ATTACH_LIMIT).map_err(failed)? == "prelaunch" {
            launch::finish(&record.spec, &client).map_err(|e| {
                fail(AttachErrorKind::Failed, format!("{at}: the guest's start could not be completed"))
                    .with_source(e)
            })?;
        }
        let parts = Parts {
            spec: record.spec,
            resolved: record.resolved,
            sockets,
            short_dir: self.config.short_dir.clone(),
            process,
            frozen: record.frozen,
            exit: None,
            client,
            events: qmp_events,
        };
        let guest = QemuGuest::supervise(parts, events)
            .map_err(|e| fail(AttachErrorKind::Failed, "no thread for the guest".into()).with_source(e))?;
        Ok(Some(Box::new(guest)))
    }

    fn probe(&self) -> HostReport {
        let qemu = self.qemu();
        let kvm = match &qemu {
            Ok(qemu) => self.kvm(qemu),
            Err(_) => KvmVerdict {
                usable: false,
                reason: "KVM cannot be tried without QEMU".into(),
                fix: Some(install::FIX_QEMU.into()),
            },
        };
        doctor::report(&self.config, qemu, kvm, self.scopes())
    }
}

const ATTACH_LIMIT: Duration = Duration::from_secs(10);
