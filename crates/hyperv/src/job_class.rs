//! `Msvm_ConcreteJob`: work under way or just finished, in Hyper-V's words.

use std::time::Duration;

use cim::{Datetime, Instance};
use jiff::Timestamp;
use job::{State, Status};
use uuid::Uuid;

use crate::ids;
use crate::system::datetime;
use crate::world::World;

/// Hyper-V's `JobType`s of what we do.
pub(crate) mod kind {
    pub(crate) const EXPORT: u16 = 62;
    pub(crate) const SAVE: u16 = 13;
    pub(crate) const REALIZE: u16 = 141;
}

/// Hyper-V's `JobState`s.
mod state {
    pub(super) const NEW: u16 = 2;
    pub(super) const RUNNING: u16 = 4;
    pub(super) const SUSPENDED: u16 = 5;
    pub(super) const SHUTTING_DOWN: u16 = 6;
    pub(super) const COMPLETED: u16 = 7;
    pub(super) const KILLED: u16 = 9;
    pub(super) const EXCEPTION: u16 = 10;
    /// The vendor's: completed with warnings.
    pub(super) const WITH_WARNINGS: u16 = 32768;
}

/// A problem of a job, for `GetErrorEx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Hyper-V's id of the message where it is known, else ours.
    pub(crate) id: String,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// 3 for a warning, 6 for what failed the job (`PerceivedSeverity`).
    pub(crate) severity: u16,
}

/// A job as it is shown, whoever runs it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobView {
    pub(crate) id: Uuid,
    pub(crate) kind: u16,
    pub(crate) caption: &'static str,
    pub(crate) state: u16,
    pub(crate) status: String,
    pub(crate) percent: u8,
    /// A vendor code; 0 while all is well.
    pub(crate) error_code: u16,
    pub(crate) error: Option<Problem>,
    pub(crate) warnings: Vec<Problem>,
    pub(crate) cancellable: bool,
    pub(crate) owner: String,
    /// The machine it is about.
    pub(crate) subject: Option<Uuid>,
    /// Whether it makes its subject (`ElementEffects` 5).
    pub(crate) creates: bool,
    pub(crate) submitted: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

impl JobView {
    /// A job of the domain.
    pub(crate) fn of(status: &Status) -> Self {
        let (kind, caption) = match status.kind.as_str() {
            "export" => (kind::EXPORT, "Exporting Virtual Machine"),
            "save" => (kind::SAVE, "Saving Virtual Machine"),
            _ => (kind::REALIZE, "Realizing Planned Virtual Machine"),
        };
        let problem = |p: &job::Failure, severity| Problem {
            id: p.id.clone(),
            message: p.message.clone(),
            hint: p.hint.clone(),
            severity,
        };
        let warning = |w: &job::Warning| Problem {
            id: w.id.clone(),
            message: w.message.clone(),
            hint: w.hint.clone(),
            severity: 3,
        };
        let over = status.state.is_finished();
        let failed = over && !status.state.is_success();
        Self {
            id: status.id.0,
            kind,
            caption,
            state: match status.state {
                State::Queued => state::NEW,
                State::Running if status.cancel_requested => state::SHUTTING_DOWN,
                State::Running => state::RUNNING,
                State::Undoing => state::SHUTTING_DOWN,
                State::Parked => state::SUSPENDED,
                State::Completed => state::COMPLETED,
                State::CompletedWithWarnings => state::WITH_WARNINGS,
                State::Failed => state::EXCEPTION,
                State::Cancelled => state::KILLED,
            },
            status: status.phase.clone(),
            percent: status.percent,
            error_code: match (&status.error, status.state) {
                (Some(error), State::Failed) => crate::codes::job_error(&error.id),
                (None, State::Failed) => crate::codes::FAILED,
                _ => 0,
            },
            error: status.error.as_ref().filter(|_| failed).map(|e| problem(e, 6)),
            warnings: status.warnings.iter().map(warning).collect(),
            cancellable: !over && !status.cancel_requested,
            owner: status.owner.clone(),
            subject: status.subject.as_deref().and_then(|id| Uuid::try_parse(id).ok()),
            creates: kind == kind::REALIZE,
            submitted: status.submitted,
            started: status.started,
            finished: status.finished,
        }
    }

    /// How it is, as `OperationalStatus` and `StatusDescriptions` say it.
    fn health(&self) -> (u16, &'static str) {
        match self.state {
            state::EXCEPTION => (6, "Error"),
            state::KILLED => (10, "Stopped"),
            _ => (2, "OK"),
        }
    }
}

pub(crate) fn concrete_job(_: &World, job: &JobView) -> Vec<Instance> {
    let (health, described) = job.health();
    let end = job.finished.unwrap_or_else(Timestamp::now);
    let elapsed = job.started.map(|at| end.duration_since(at).unsigned_abs()).unwrap_or(Duration::ZERO);
    let mut instance = Instance::new("Msvm_ConcreteJob")
        .with("InstanceID", ids::guid(job.id))
        .with("Caption", job.caption)
        .with("Description", job.caption)
        .with("ElementName", job.caption)
        .with("Name", job.caption)
        .with("OperationalStatus", vec![health])
        .with("StatusDescriptions", vec![described])
        .with("Status", if health == 2 { "OK" } else { "Error" })
        .with("HealthState", if health == 6 { 20_u16 } else { 5 })
        .with("JobType", job.kind)
        .with("JobState", job.state)
        .with("JobStatus", job.status.clone())
        .with("PercentComplete", u16::from(job.percent))
        .with("ErrorCode", job.error_code)
        .with("Cancellable", job.cancellable)
        .with("DeleteOnCompletion", true)
        .with("Owner", job.owner.clone())
        .with("TimeSubmitted", datetime(job.submitted))
        .with("ElapsedTime", Datetime::interval(elapsed))
        .with("TimeOfLastStateChange", datetime(job.finished.or(job.started).unwrap_or(job.submitted)));
    instance.set("StartTime", job.started.map(|at| datetime(at).into()));
    if let Some(error) = &job.error {
        instance.set("ErrorDescription", Some(error.message.clone().into()));
        instance.set("ErrorSummaryDescription", Some(error.message.clone().into()));
    }
    vec![instance]
}
