//! Why an engine does not start, a job is not accepted, or a cancel is refused.

use crate::JobId;
use crate::journal::AppendError;
use crate::kind::KindError;

/// An engine that could not be started.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] StartInner);

#[derive(Debug, thiserror::Error)]
enum StartInner {
    #[error("the job kind {name} is wrong")]
    Kind { name: &'static str, source: KindError },
    #[error("cannot read the jobs from the store")]
    Store(#[source] store::Error),
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
}

impl StartError {
    pub(super) fn kind(name: &'static str, source: KindError) -> StartError {
        StartInner::Kind { name, source }.into()
    }
    pub(super) fn store(source: store::Error) -> StartError {
        StartInner::Store(source).into()
    }
    pub(super) fn thread(source: std::io::Error) -> StartError {
        StartInner::Thread(source).into()
    }
}

/// What a caller can branch on when a job is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitErrorKind {
    /// The kind was not registered with this engine. A bug.
    UnknownKind,
    /// Another job has the subject to itself.
    Busy {
        /// The other job.
        job: JobId,
    },
    /// The parameters do not fit into the journal, or are not JSON.
    Params,
    /// Too many jobs are not finished.
    Full,
    /// The engine is shutting down.
    Stopping,
    /// The store failed; whether the job exists is known at the next start.
    Store,
}

/// A job that was not accepted.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SubmitError(#[from] SubmitInner);

#[derive(Debug, thiserror::Error)]
enum SubmitInner {
    #[error("jobs of kind {name} version {version} are not known here")]
    Unknown { name: &'static str, version: u32 },
    #[error("{subject} is busy with job {job}")]
    Busy { subject: String, job: JobId },
    #[error("the job's parameters cannot be recorded")]
    Params(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("there are {} jobs not finished; wait for some or cancel them", crate::MAX_UNFINISHED)]
    Full,
    #[error("the daemon is shutting down and accepts no more jobs")]
    Stopping,
    #[error("the job could not be recorded")]
    Store(#[source] AppendError),
}

impl SubmitError {
    /// What a caller can branch on.
    pub fn kind(&self) -> SubmitErrorKind {
        match &self.0 {
            SubmitInner::Unknown { .. } => SubmitErrorKind::UnknownKind,
            SubmitInner::Busy { job, .. } => SubmitErrorKind::Busy { job: *job },
            SubmitInner::Params(_) => SubmitErrorKind::Params,
            SubmitInner::Full => SubmitErrorKind::Full,
            SubmitInner::Stopping => SubmitErrorKind::Stopping,
            SubmitInner::Store(_) => SubmitErrorKind::Store,
        }
    }

    pub(super) fn unknown(name: &'static str, version: u32) -> SubmitError {
        SubmitInner::Unknown { name, version }.into()
    }
    pub(super) fn busy(subject: &str, job: JobId) -> SubmitError {
        SubmitInner::Busy { subject: subject.to_owned(), job }.into()
    }
    pub(super) fn params(source: serde_json::Error) -> SubmitError {
        SubmitInner::Params(Box::new(source)).into()
    }
    pub(super) fn full() -> SubmitError {
        SubmitInner::Full.into()
    }
    pub(super) fn stopping() -> SubmitError {
        SubmitInner::Stopping.into()
    }
    pub(super) fn create(error: AppendError) -> SubmitError {
        match error {
            AppendError::TooLarge(_) | AppendError::Json(_) => SubmitInner::Params(Box::new(error)).into(),
            _ => SubmitInner::Store(error).into(),
        }
    }
}

/// What a caller can branch on when a cancel (or a discard) is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelErrorKind {
    /// There is no such job (any more).
    NotFound,
    /// The job is over.
    Finished,
    /// The job failed and is already being undone.
    Undoing,
    /// The job is parked and has done something that cannot be undone here; it can be discarded.
    Parked,
    /// Only parked jobs can be discarded.
    NotParked,
    /// The store failed.
    Store,
}

/// A cancel (or a discard) that was refused.
#[derive(Debug, thiserror::Error)]
#[error("job {job} {}", what(*kind))]
pub struct CancelError {
    job: JobId,
    kind: CancelErrorKind,
    source: Option<AppendError>,
}

fn what(kind: CancelErrorKind) -> &'static str {
    match kind {
        CancelErrorKind::NotFound => "does not exist",
        CancelErrorKind::Finished => "is already finished",
        CancelErrorKind::Undoing => "has failed and is already being undone",
        CancelErrorKind::Parked => {
            "is parked, and what it did cannot be undone by this program; discard gives it up"
        }
        CancelErrorKind::NotParked => "is not parked; cancel it instead",
        CancelErrorKind::Store => "could not be changed in the store",
    }
}

impl CancelError {
    /// What a caller can branch on.
    pub fn kind(&self) -> CancelErrorKind {
        self.kind
    }

    pub(super) fn new(job: JobId, kind: CancelErrorKind) -> CancelError {
        CancelError { job, kind, source: None }
    }
    pub(super) fn store(job: JobId, source: AppendError) -> CancelError {
        CancelError { job, kind: CancelErrorKind::Store, source: Some(source) }
    }
}
