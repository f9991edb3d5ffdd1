//! What is told about a job.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Failure, Warning};

/// Names a job; random, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    pub(crate) fn random() -> JobId {
        JobId(Uuid::new_v4())
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<JobId, uuid::Error> {
        text.parse().map(JobId)
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for a worker; nothing was done yet.
    Queued,
    /// Steps are run, or will be again as soon as a worker is free. A cancelled job is still running until its step
    /// has stopped; see [`Status::cancel_requested`].
    Running,
    /// After a failure or a cancel, steps are undone.
    Undoing,
    /// Done. Final.
    Completed,
    /// Done, and there is something to read in [`Status::warnings`]. Final.
    CompletedWithWarnings,
    /// Failed; [`Status::error`] says why, [`Status::stuck`] whether anything could not be undone. Final.
    Failed,
    /// Cancelled and undone. Final.
    Cancelled,
    /// Not finished, and not run by this engine; [`Status::error`] says why. It keeps its subject.
    Parked,
}

impl State {
    /// Whether the job is over.
    pub fn is_finished(self) -> bool {
        match self {
            State::Completed | State::CompletedWithWarnings | State::Failed | State::Cancelled => true,
            State::Queued | State::Running | State::Undoing | State::Parked => false,
        }
    }

    /// Whether the job did what it was to do.
    pub fn is_success(self) -> bool {
        matches!(self, State::Completed | State::CompletedWithWarnings)
    }
}

/// An undo that failed: what the job left behind from this step and those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Name of the step that could not be undone. Earlier steps were not undone either.
    pub step: String,
    /// Why.
    pub failure: Failure,
}

/// Everything that is told about a job, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The job.
    pub id: JobId,
    /// [`crate::Kind::NAME`].
    pub kind: String,
    /// [`crate::Kind::VERSION`] it was submitted with.
    pub version: u32,
    /// What it is about, such as a machine's id.
    pub subject: Option<String>,
    /// Who submitted it.
    pub owner: String,
    /// Where it is in its life.
    pub state: State,
    /// A cancel was accepted: the job will end as cancelled, or as failed if something cannot be undone.
    pub cancel_requested: bool,
    /// The step being run or undone.
    pub step: Option<String>,
    /// What the step says it is doing; empty if it says nothing.
    pub phase: String,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes of this phase, 0 if unknown.
    pub total_bytes: u64,
    /// Bytes per second, smoothed over a few seconds.
    pub rate: u64,
    /// Seconds left in this phase at this rate.
    pub eta_seconds: Option<u64>,
    /// Of the whole job, 0 to 100, never falling; 100 only when completed.
    pub percent: u8,
    /// Why it failed or is parked.
    pub error: Option<Failure>,
    /// The undo that failed, if one did.
    pub stuck: Option<Stuck>,
    /// What its owner should know.
    pub warnings: Vec<Warning>,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When its first step started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The last step's output, once completed.
    pub output: Option<serde_json::Value>,
    /// Number of the change this status is from; see [`crate::Engine::changes`].
    pub generation: u64,
}

/// Which jobs to list; the default is all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only jobs of this kind.
    pub kind: Option<String>,
    /// Only jobs about this subject.
    pub subject: Option<String>,
    /// Only jobs of this owner.
    pub owner: Option<String>,
    /// Only jobs that are finished, or that are not.
    pub finished: Option<bool>,
}

impl Filter {
    pub(crate) fn admits(&self, status: &Status) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == status.kind)
            && self.subject.as_ref().is_none_or(|subject| Some(subject) == status.subject.as_ref())
            && self.owner.as_ref().is_none_or(|owner| *owner == status.owner)
            && self.finished.is_none_or(|finished| finished == status.state.is_finished())
    }
}
