//! Jobs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Id.
    pub id: Uuid,
    /// `import` or `export`.
    pub kind: String,
    /// The machine or planned machine it works on.
    pub subject: Option<String>,
    /// Who asked for it.
    pub owner: String,
    /// `queued`, `running`, `undoing`, `completed`, `completed-with-warnings`, `failed`, `cancelled` or `parked`.
    pub state: String,
    /// Nothing more will happen.
    pub finished: bool,
    /// It did what it was asked.
    pub success: bool,
    /// Somebody asked for its end.
    pub cancel_requested: bool,
    /// What it is doing.
    pub phase: String,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes to do in this phase, as far as known.
    pub total_bytes: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Seconds left, by that rate.
    pub eta_seconds: Option<u64>,
    /// 0 to 100.
    pub percent: u8,
    /// Why it failed.
    pub error: Option<Failure>,
    /// What else there is to say.
    pub warnings: Vec<Warning>,
    /// When it was submitted.
    pub submitted: String,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// What it made.
    #[schema(value_type = Option<Object>)]
    pub output: Option<serde_json::Value>,
    /// Grows with every change.
    pub generation: u64,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Stable id.
    pub id: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The file concerned.
    pub path: Option<String>,
}

/// Something a job says that did not stop it.
pub type Warning = Failure;

/// Jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<Job>,
}

/// A job that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobReference {
    /// Its id: watch it at `/v1/jobs/{id}`.
    pub job: Uuid,
}

impl From<job::Status> for Job {
    fn from(s: job::Status) -> Self {
        let warnings = s
            .warnings
            .into_iter()
            .map(|w| Failure { id: w.id, message: w.message, hint: w.hint, path: w.path })
            .collect();
        let error = s.error.map(|f| Failure { id: f.id, message: f.message, hint: f.hint, path: f.path });
        Self {
            id: s.id.0,
            kind: s.kind,
            subject: s.subject,
            owner: s.owner,
            state: state_name(s.state).to_owned(),
            finished: s.state.is_finished(),
            success: s.state.is_success(),
            cancel_requested: s.cancel_requested,
            phase: s.phase,
            done_bytes: s.done_bytes,
            total_bytes: s.total_bytes,
            rate: s.rate,
            eta_seconds: s.eta_seconds,
            percent: s.percent,
            error,
            warnings,
            submitted: s.submitted.to_string(),
            started: s.started.map(|t| t.to_string()),
            ended: s.finished.map(|t| t.to_string()),
            output: s.output,
            generation: s.generation,
        }
    }
}

/// The word for a job's state.
pub(crate) fn state_name(state: job::State) -> &'static str {
    match state {
        job::State::Queued => "queued",
        job::State::Running => "running",
        job::State::Undoing => "undoing",
        job::State::Completed => "completed",
        job::State::CompletedWithWarnings => "completed-with-warnings",
        job::State::Failed => "failed",
        job::State::Cancelled => "cancelled",
        job::State::Parked => "parked",
    }
}
