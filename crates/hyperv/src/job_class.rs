//! `Msvm_ConcreteJob` and `Msvm_StorageJob`: work under way or just finished, in Hyper-V's words.

use std::time::Duration;

use cim::{Datetime, Instance, Value, embedded};
use jiff::{SignedDuration, Timestamp};
use job::{State, Status};
use machine::finding::{Finding, Severity};
use machine::{Error, Reason};
use uuid::Uuid;
use wsman::Output;

use crate::codes::{self, Family};
use crate::ids;
use crate::method::{Invocation, Refused, invalid};
use crate::owner::{Owner, OwnerId};
use crate::system::datetime;
use crate::world::World;

/// How long a finished job is told of (`TimeBeforeRemoval`).
const REMOVAL: SignedDuration = SignedDuration::from_mins(5);

/// Whether a job that finished then is forgotten by `now`.
pub(crate) fn expired(finished: Timestamp, now: Timestamp) -> bool {
    now.duration_since(finished) >= REMOVAL
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Stop,
    Save,
    Shutdown,
    Export,
    Validate,
    Realize,
    Define,
    Change,
    Destroy,
    /// Of image management, as all below.
    Create,
    Floppy,
    Compact,
    Resize,
    Convert,
    Identify,
    Check,
}

impl Kind {
    /// A kind of job of the domain.
    fn of(name: &str) -> Self {
        match name {
            "export" => Self::Export,
            "save" => Self::Save,
            "define" => Self::Define,
            "change" => Self::Change,
            "delete" => Self::Destroy,
            "image-create" => Self::Create,
            "image-floppy" => Self::Floppy,
            "image-compact" => Self::Compact,
            "image-resize" => Self::Resize,
            "image-convert" => Self::Convert,
            "image-identify" => Self::Identify,
            "image-check" => Self::Check,
            _ => Self::Realize,
        }
    }

    /// Whether it is a job of image management: these have a class, and numbers, of their own.
    fn stores(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Floppy
                | Self::Compact
                | Self::Resize
                | Self::Convert
                | Self::Identify
                | Self::Check
        )
    }

    fn family(self) -> Family {
        if self.stores() { Family::Image } else { Family::Vendor }
    }

    /// Hyper-V's `JobType`.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Define => 1,
            Self::Destroy => 3,
            Self::Start => 11,
            Self::Stop => 12,
            Self::Save => 13,
            Self::Shutdown => 15,
            Self::Change => 31,
            Self::Export => 62,
            Self::Validate => 140,
            Self::Realize => 141,
            // Of `Msvm_StorageJob`; the page has none for a change of settings.
            Self::Identify => 0,
            Self::Create => 1,
            Self::Floppy => 2,
            Self::Compact => 3,
            Self::Resize => 4,
            Self::Convert => 6,
            Self::Check => 9,
        }
    }

    /// What is being done all the while, of those that have no steps to tell of.
    pub(crate) fn doing(self) -> &'static str {
        match self {
            Self::Start => "starting the guest",
            Self::Stop => "ending the guest",
            Self::Shutdown => "waiting for the guest to shut down",
            Self::Validate => "looking at the package",
            other => other.caption(),
        }
    }

    fn caption(self) -> &'static str {
        match self {
            Self::Define => "Defining Virtual Machine",
            Self::Destroy => "Destroying Virtual Machine",
            Self::Change => "Modifying Virtual Machine Resources",
            Self::Start => "Starting Virtual Machine",
            Self::Stop => "Turning Off Virtual Machine",
            Self::Save => "Saving Virtual Machine",
            Self::Shutdown => "Shutting Down Virtual Machine",
            Self::Export => "Exporting Virtual Machine",
            Self::Validate => "Validating Planned Virtual Machine",
            Self::Realize => "Realizing Planned Virtual Machine",
            Self::Create => "Creating Virtual Hard Disk",
            Self::Floppy => "Creating Virtual Floppy Disk",
            Self::Compact => "Compacting Virtual Hard Disk",
            Self::Resize => "Resizing Virtual Hard Disk",
            Self::Convert => "Converting Virtual Hard Disk",
            Self::Identify => "Changing Virtual Hard Disk",
            Self::Check => "Validating Virtual Hard Disk",
        }
    }
}

/// Hyper-V's `JobState`s.
pub(crate) mod state {
    pub(crate) const NEW: u16 = 2;
    pub(crate) const RUNNING: u16 = 4;
    pub(crate) const SUSPENDED: u16 = 5;
    pub(crate) const SHUTTING_DOWN: u16 = 6;
    pub(crate) const COMPLETED: u16 = 7;
    pub(crate) const KILLED: u16 = 9;
    pub(crate) const EXCEPTION: u16 = 10;
    /// The vendor's: completed with warnings.
    pub(crate) const WITH_WARNINGS: u16 = 32768;
}

/// `PerceivedSeverity` of what is worth knowing.
const INFORMATION: u16 = 2;
/// Of what did not stop the job.
const WARNING: u16 = 3;
/// Of what did.
const MAJOR: u16 = 6;

/// A problem of a job, for `GetErrorEx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Hyper-V's id of the message where it is known, else ours.
    id: String,
    message: String,
    /// What to do about it.
    hint: Option<String>,
    /// `PerceivedSeverity`.
    severity: u16,
}

impl From<&Error> for Problem {
    fn from(e: &Error) -> Self {
        let hint = e.hint_text().map(str::to_owned);
        Self { id: e.reason().id().to_owned(), message: e.chain(), hint, severity: MAJOR }
    }
}

impl From<&Finding> for Problem {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::Info => INFORMATION,
            Severity::Warning => WARNING,
            Severity::Error => MAJOR,
        };
        let id = finding.hyperv_id.map_or_else(|| finding.id.clone(), |id| id.to_string());
        Self { id, message: finding.message.clone(), hint: finding.fix.clone(), severity }
    }
}

/// A job as it is shown, whoever runs it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobView {
    pub(crate) id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) state: u16,
    pub(crate) status: String,
    pub(crate) percent: u8,
    /// A vendor code; 0 while all is well.
    pub(crate) error_code: u16,
    pub(crate) problems: Vec<Problem>,
    pub(crate) cancellable: bool,
    pub(crate) owner: String,
    /// The machine it is about.
    pub(crate) subject: Option<Uuid>,
    pub(crate) submitted: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

impl JobView {
    /// A job of the domain.
    pub(crate) fn of(status: &Status) -> Self {
        let mut problems: Vec<_> = status
            .warnings
            .iter()
            .map(|w| Problem {
                id: w.id.clone(),
                message: w.message.clone(),
                hint: w.hint.clone(),
                severity: WARNING,
            })
            .collect();
        let over = status.state.is_finished();
        if let Some(e) = status.error.as_ref().filter(|_| over && !status.state.is_success()) {
            let why = Problem {
                id: e.id.clone(),
                message: e.message.clone(),
                hint: e.hint.clone(),
                severity: MAJOR,
            };
            problems.insert(0, why);
        }
        let kind = Kind::of(&status.kind);
        Self {
            id: status.id.0,
            kind,
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
                (Some(error), State::Failed) => codes::job_error(kind.family(), &error.id),
                (None, State::Failed) => codes::FAILED,
                _ => 0,
            },
            problems,
            cancellable: !over && !status.cancel_requested,
            owner: status.owner.clone(),
            subject: status.subject.as_deref().and_then(|id| Uuid::try_parse(id).ok()),
            submitted: status.submitted,
            started: status.started,
            finished: status.finished,
        }
    }

    /// What it is about: the planned machine until there is one made of it, and for everything else the machine.
    pub(crate) fn affects(&self) -> Option<OwnerId> {
        let made = matches!(self.state, state::COMPLETED | state::WITH_WARNINGS);
        let planned = self.kind == Kind::Validate || (self.kind == Kind::Realize && !made);
        self.subject.map(|id| if planned { OwnerId::Planned(id) } else { OwnerId::Machine(id) })
    }

    /// It was told to end, and ended because of that.
    pub(crate) fn kill(&mut self, now: Timestamp) {
        self.finished = Some(now);
        self.state = state::KILLED;
        self.cancellable = false;
    }

    /// How it ended, of one that was begun here.
    pub(crate) fn end(&mut self, end: Result<Vec<Problem>, Error>, now: Timestamp) {
        self.finished = Some(now);
        self.cancellable = false;
        match end {
            Ok(problems) => {
                let worst = problems.iter().map(|p| p.severity).max().unwrap_or(0);
                (self.state, self.error_code) = match worst {
                    MAJOR.. => {
                        (state::EXCEPTION, codes::job_error(self.kind.family(), Reason::NotCompatible.id()))
                    }
                    WARNING.. => (state::WITH_WARNINGS, 0),
                    _ => (state::COMPLETED, 0),
                };
                self.problems = problems;
            }
            Err(e) => {
                self.state = state::EXCEPTION;
                self.error_code = codes::job_error(self.kind.family(), e.reason().id());
                self.problems = vec![Problem::from(&e)];
            }
        }
        if self.state != state::EXCEPTION {
            self.percent = 100;
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, state::COMPLETED | state::KILLED | state::EXCEPTION | state::WITH_WARNINGS)
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

pub(crate) fn concrete_job(world: &World, job: &JobView) -> Vec<Instance> {
    if job.kind.stores() { Vec::new() } else { vec![told(world, "Msvm_ConcreteJob", job)] }
}

pub(crate) fn storage_job(world: &World, job: &JobView) -> Vec<Instance> {
    if job.kind.stores() { vec![told(world, "Msvm_StorageJob", job)] } else { Vec::new() }
}

/// What both classes say.
fn told(world: &World, class: &str, job: &JobView) -> Instance {
    let (health, described) = job.health();
    let end = job.finished.unwrap_or_else(|| world.host.now());
    let elapsed = job.started.map_or(Duration::ZERO, |at| end.duration_since(at).unsigned_abs());
    let caption = job.kind.caption();
    let mut instance = Instance::new(class)
        .with("InstanceID", ids::guid(job.id))
        .with("Caption", caption)
        .with("Description", caption)
        .with("ElementName", caption)
        .with("Name", caption)
        .with("OperationalStatus", vec![health])
        .with("StatusDescriptions", vec![described])
        .with("Status", if health == 2 { "OK" } else { "Error" })
        .with("HealthState", if health == 6 { 20_u16 } else { 5 })
        .with("JobType", job.kind.number())
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
    if let Some(error) = job.problems.iter().find(|p| p.severity >= MAJOR) {
        let message = world.settings.paths.told(&error.message);
        instance.set("ErrorDescription", Some(message.clone().into()));
        instance.set("ErrorSummaryDescription", Some(message.into()));
    }
    instance
}

/// The job that a method was called on.
fn called<'i>(invocation: &'i Invocation<'_>) -> Result<&'i JobView, Refused> {
    match &invocation.owner {
        Owner::Job(job) => Ok(job),
        _ => Err(invalid("path", "no job")),
    }
}

/// The problem as the text of an `Msvm_Error`.
fn error_text(invocation: &Invocation<'_>, problem: &Problem) -> String {
    let mut error = Instance::new("Msvm_Error")
        .with("MessageID", problem.id.clone())
        .with("Message", invocation.world.settings.paths.told(&problem.message))
        .with("MessageArguments", Vec::<String>::new())
        .with("OwningEntity", "Slipway")
        // 4 is *software error*.
        .with("ErrorType", 4_u16)
        .with("PerceivedSeverity", problem.severity)
        .with("ProbableCause", 0_u16)
        // CIM_ERR_FAILED.
        .with("CIMStatusCode", 1_u32);
    if let Some(hint) = &problem.hint {
        error.set("RecommendedActions", Some(vec![hint.clone()].into()));
    }
    embedded::write(&error, invocation.schema())
}

pub(crate) fn get_error(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let job = called(invocation)?;
    let first = job.problems.first().filter(|_| job.is_finished());
    let error = first.map(|problem| error_text(invocation, problem).into());
    Ok(Output::new(0_u32).with("Error", error))
}

pub(crate) fn get_error_ex(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let job = called(invocation)?;
    let all: Vec<String> = job.problems.iter().map(|problem| error_text(invocation, problem)).collect();
    let errors = (job.is_finished() && !all.is_empty()).then(|| all.into());
    Ok(Output::new(0_u32).with("Errors", errors))
}

/// Ends a job that can be ended; it shows soon that it was.
fn end(invocation: &Invocation<'_>, job: &JobView) -> Result<Output, Refused> {
    if job.is_finished() {
        return Err(Refused::new(Reason::InvalidState, "the job is over"));
    }
    let done = invocation.world.tasks.cancel(job.id).unwrap_or_else(|| {
        invocation.world.host.jobs().cancel(job::JobId(job.id)).map_err(|e| {
            let reason = match e.kind() {
                job::CancelErrorKind::NotFound | job::CancelErrorKind::Finished => Reason::InvalidState,
                job::CancelErrorKind::Undoing => Reason::Busy,
                _ => Reason::Store,
            };
            Refused::new(reason, "the job cannot be ended").caused_by(e)
        })
    });
    done.map(|()| Output::new(0_u32))
}

/// Whoever began a job may end it, and whoever may do what takes `Operate`.
fn permit(invocation: &Invocation<'_>, job: &JobView) -> Result<(), Refused> {
    if job.owner == invocation.call.principal.user { Ok(()) } else { invocation.permit(job.subject) }
}

/// Asks a job to end: 4 *terminate*, 5 *kill*, which are one here: what was done is undone, and the job reads *killed*.
/// Nothing else is done to jobs.
pub(crate) fn request_state_change(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    const NO_TIMEOUT: u32 = 4098;
    let job = called(invocation)?;
    permit(invocation, job)?;
    if invocation.given("TimeoutPeriod").and_then(|v| v.as_str().map(str::is_empty)) == Some(false)
        || matches!(invocation.given("TimeoutPeriod"), Some(Value::Datetime(at)) if at.micros() != Some(0))
    {
        return Ok(Output::new(NO_TIMEOUT));
    }
    match invocation.number("RequestedState")? {
        4 | 5 => end(invocation, job),
        2 | 3 | 6 => Err(Refused::new(Reason::NotSupported, "a job is begun once and not held up")),
        other => Err(invalid("RequestedState", format!("{other} is no state that a job can be asked for"))),
    }
}

/// `KillJob`. Jobs are forgotten some minutes after their end whatever `DeleteOnKill` says.
pub(crate) fn kill(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let job = called(invocation)?;
    permit(invocation, job)?;
    end(invocation, job)
}

/// `FormatError`: what errors say, as one text.
pub(crate) fn format_error(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let errors = invocation.given("Errors").ok_or_else(|| invalid("Errors", "missing"))?;
    let errors = embedded::read_all(errors, invocation.schema()).map_err(|e| invalid("Errors", e))?;
    let messages: Vec<_> = errors.iter().filter_map(|error| error.text("Message")).collect();
    Ok(Output::new(0_u32).with("ErrorMessage", Some(messages.join("\r\n").into())))
}
