//! The domain's jobs: which kinds there are, and how they meet the job runner.
//!
//! The runner knows nothing of machines; the kinds reach the host through a [`World`] that does not keep it alive.

use std::path::Path;
use std::sync::{Arc, Weak};

use job::Failure;
use uuid::Uuid;

use crate::ambient::Ambient;
use crate::change::{Changing, Defining, Deleting, Editing};
use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::image::work::{Compact, Convert, Create, Floppy, Identify, Making, Resize, Validate};

/// What the domain's jobs act on.
pub(crate) struct World {
    host: Weak<Host>,
}

impl World {
    /// `host`, for jobs.
    pub(crate) fn of(host: &Arc<Host>) -> Self {
        Self { host: Arc::downgrade(host) }
    }

    /// The host, while it is open.
    pub(crate) fn host(&self) -> std::result::Result<Arc<Host>, Failure> {
        self.host.upgrade().ok_or_else(|| Failure::new(job::ids::INTERRUPTED, "the host is closing"))
    }
}

/// Registers every kind and starts the runner; recovery is left to the caller, once the host is whole.
pub(crate) fn open(host: &Arc<Host>, options: job::Options) -> Result<job::Engine> {
    let world = Arc::new(World::of(host));
    let Ambient { ids, clock, gate, durability: _ } = host.ambient.clone();
    let builder =
        job::Engine::builder(Arc::clone(&host.store)).options(options).clock(clock).ids(move || ids());
    let builder = match gate {
        Some(gate) => builder.gate(gate),
        None => builder,
    };
    builder
        .register::<crate::import::Realize>(Arc::clone(&world))
        .register::<crate::export::Export>(Arc::clone(&world))
        .register::<crate::save::Save>(Arc::clone(&world))
        .register::<Making<Create>>(Arc::clone(&world))
        .register::<Making<Floppy>>(Arc::clone(&world))
        .register::<Making<Convert>>(Arc::clone(&world))
        .register::<Making<Resize>>(Arc::clone(&world))
        .register::<Making<Compact>>(Arc::clone(&world))
        .register::<Making<Identify>>(Arc::clone(&world))
        .register::<Validate>(Arc::clone(&world))
        .register::<Changing<Defining>>(Arc::clone(&world))
        .register::<Changing<Editing>>(Arc::clone(&world))
        .register::<Changing<Deleting>>(world)
        .start()
        .map_err(failed)
}

/// Submits a job on behalf of the host.
pub(crate) fn submit<K: job::Kind>(host: &Host, submission: job::Submission<K>) -> Result<Uuid> {
    host.jobs().submit(submission).map(|id| id.0).map_err(|e| match e.kind() {
        job::SubmitErrorKind::Busy { .. } => {
            Error::new(Reason::Busy, e.to_string()).hint("`slipway job list` shows what is under way")
        }
        _ => failed(e),
    })
}

/// The unfinished job that holds machine or planned machine `id`.
pub(crate) fn holding(jobs: &job::Engine, id: Uuid) -> Option<Uuid> {
    jobs.busy(&id.to_string()).map(|id| id.0)
}

/// The domain's error for a failure of the job runner.
pub(crate) fn failed(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Reason::Store, "the job runner failed").caused_by(e)
}

/// A job's failure from a domain error: its reason becomes the failure's id.
pub(crate) fn failure(e: &Error) -> Failure {
    let failure = Failure::new(e.reason().id(), e.chain());
    match e.hint_text() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A job's failure from a failed copy, with the reason, path and hint that it carries.
pub(crate) fn copy_failure(doing: &str, e: &transfer::CopyError) -> Failure {
    transfer_failure(doing, e, e.kind(), e.path(), e.hint())
}

/// A job's failure from a package that could not be written, with the reason, path and hint that it carries.
pub(crate) fn writer_failure(doing: &str, e: &transfer::WriterError) -> Failure {
    transfer_failure(doing, e, e.kind(), e.path(), e.hint())
}

fn transfer_failure(
    doing: &str,
    e: &(dyn std::error::Error + 'static),
    kind: transfer::FaultKind,
    path: Option<&Path>,
    hint: Option<&str>,
) -> Failure {
    if kind == transfer::FaultKind::Cancelled {
        return Failure::new(job::ids::INTERRUPTED, "told to stop");
    }
    let mut failure = Failure::new(fault_reason(kind).id(), format!("{doing}: {}", crate::error::chain(e)));
    if let Some(path) = path {
        failure = failure.path(path);
    }
    if let Some(hint) = hint {
        failure = failure.hint(hint);
    }
    failure
}

/// The reason that a fault of the transfer layer stands for.
pub(crate) fn fault_reason(kind: transfer::FaultKind) -> Reason {
    use transfer::FaultKind as K;
    match kind {
        K::NotFound | K::Vanished => Reason::NotFound,
        K::ServerLost => Reason::Engine,
        K::NoSpace => Reason::NoSpace,
        K::Denied | K::ReadOnly => Reason::AccessDenied,
        K::AlreadyExists => Reason::AlreadyExists,
        K::Busy | K::Changed => Reason::InUse,
        K::Unsupported => Reason::NotSupported,
        K::Escapes | K::Limit | K::Damaged => Reason::BadPackage,
        _ => Reason::Io,
    }
}

/// A failure of a file operation in a step.
pub(crate) fn io(doing: &str, path: &Path, e: std::io::Error) -> Failure {
    failure(&Error::io(doing, path, e)).path(path)
}
