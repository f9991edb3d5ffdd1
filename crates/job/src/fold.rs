//! From events to what a job is doing: pure, and strict. An event that cannot follow is an error, never ignored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Failure, State, UndoReason, Warning, ids};

/// One entry of a job's log. Steps are indices into the list of names in the job's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// About to run the step for the first time.
    StepStarted { step: usize },
    /// The step returned.
    StepSucceeded {
        step: usize,
        output: Value,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Warning>,
    },
    /// The step failed of itself, not for being told to stop.
    StepFailed {
        step: usize,
        failure: Failure,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Warning>,
    },
    /// Somebody cancelled the job.
    CancelRequested,
    /// About to undo the step for the first time.
    UndoStarted { step: usize },
    /// The step is undone.
    UndoSucceeded {
        step: usize,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Warning>,
    },
    /// The step could not be undone; nothing before it will be.
    UndoFailed {
        step: usize,
        failure: Failure,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Warning>,
    },
    /// Somebody gave up a job that no engine here can run.
    Discarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepState {
    Fresh,
    Started,
    Done,
    Failed,
    Undoing,
    Undone,
    Stuck,
}

/// What the engine has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run this step (again, if it had started).
    Run(usize),
    /// Undo this step (again, if that had started).
    Undo(usize, UndoReason),
    /// Nothing: the job is over, in this state.
    Finished(State),
}

/// An event that cannot follow the ones before it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("event {event} cannot follow in state {state:?} (step states {steps:?})")]
pub(crate) struct Illegal {
    event: String,
    state: State,
    steps: Vec<StepState>,
}

/// A job's state: the fold of its events over its number of steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fold {
    steps: Vec<StepState>,
    outputs: Vec<Option<Value>>,
    cancel_requested: bool,
    failure: Option<Failure>,
    stuck: Option<(usize, Failure)>,
    warnings: Vec<Warning>,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    discarded: bool,
}

impl Fold {
    pub(crate) fn new(steps: usize) -> Fold {
        Fold {
            steps: vec![StepState::Fresh; steps],
            outputs: vec![None; steps],
            cancel_requested: false,
            failure: None,
            stuck: None,
            warnings: Vec::new(),
            started: None,
            finished: None,
            discarded: false,
        }
    }

    /// What to do next; decides everything that [`Fold::apply`] allows.
    pub(crate) fn next(&self) -> Next {
        use StepState::{Done, Failed, Started, Undoing};
        if self.discarded || self.stuck.is_some() {
            return Next::Finished(State::Failed);
        }
        let reason = match (&self.failure, self.cancel_requested) {
            (Some(_), _) => UndoReason::Failed,
            (None, true) => UndoReason::Cancelled,
            (None, false) => {
                return match self.steps.iter().position(|state| *state != Done) {
                    Some(step) => Next::Run(step),
                    None if self.warnings.is_empty() => Next::Finished(State::Completed),
                    None => Next::Finished(State::CompletedWithWarnings),
                };
            }
        };
        match self.steps.iter().rposition(|state| matches!(state, Started | Done | Failed | Undoing)) {
            Some(step) => Next::Undo(step, reason),
            None if reason == UndoReason::Failed => Next::Finished(State::Failed),
            None => Next::Finished(State::Cancelled),
        }
    }

    /// The state to show.
    pub(crate) fn state(&self) -> State {
        match self.next() {
            Next::Finished(state) => state,
            // A step that was cancelled while it ran is first waited for.
            Next::Undo(step, UndoReason::Cancelled) if self.steps[step] == StepState::Started => {
                State::Running
            }
            Next::Undo(..) => State::Undoing,
            Next::Run(_) if self.started.is_none() => State::Queued,
            Next::Run(_) => State::Running,
        }
    }

    /// Adds one event.
    pub(crate) fn apply(&mut self, at: Timestamp, event: &Event) -> Result<(), Illegal> {
        use StepState::{Done, Failed, Fresh, Started, Stuck, Undoing, Undone};
        let next = self.next();
        let of = |step: usize| self.steps.get(step).copied();
        match (event, next) {
            (_, Next::Finished(_)) => return Err(self.illegal(event)),
            (Event::StepStarted { step }, Next::Run(due)) if *step == due && of(*step) == Some(Fresh) => {
                self.steps[*step] = Started;
                self.started.get_or_insert(at);
            }
            // A step that finishes although it was told to stop did finish; it is undone like any other.
            (
                Event::StepSucceeded { step, output, warnings },
                Next::Run(due) | Next::Undo(due, UndoReason::Cancelled),
            ) if *step == due && of(*step) == Some(Started) => {
                self.steps[*step] = Done;
                self.outputs[*step] = Some(output.clone());
                self.warnings.extend_from_slice(warnings);
            }
            (Event::StepFailed { step, failure, warnings }, Next::Run(due))
                if *step == due && of(*step) == Some(Started) =>
            {
                self.steps[*step] = Failed;
                self.failure = Some(failure.clone());
                self.warnings.extend_from_slice(warnings);
            }
            (Event::CancelRequested, Next::Run(_)) => self.cancel_requested = true,
            (Event::UndoStarted { step }, Next::Undo(due, _))
                if *step == due && matches!(of(*step), Some(Started | Done | Failed)) =>
            {
                self.steps[*step] = Undoing;
            }
            (Event::UndoSucceeded { step, warnings }, Next::Undo(due, _))
                if *step == due && of(*step) == Some(Undoing) =>
            {
                self.steps[*step] = Undone;
                self.warnings.extend_from_slice(warnings);
            }
            (Event::UndoFailed { step, failure, warnings }, Next::Undo(due, _))
                if *step == due && of(*step) == Some(Undoing) =>
            {
                self.steps[*step] = Stuck;
                self.stuck = Some((*step, failure.clone()));
                self.warnings.extend_from_slice(warnings);
            }
            (Event::Discarded, _) => self.discarded = true,
            _ => return Err(self.illegal(event)),
        }
        if let Next::Finished(_) = self.next() {
            self.finished = Some(at);
        }
        Ok(())
    }

    fn illegal(&self, event: &Event) -> Illegal {
        // Names and steps, not outputs: this text goes into logs.
        let event = match event {
            Event::StepStarted { step } => format!("step {step} started"),
            Event::StepSucceeded { step, .. } => format!("step {step} succeeded"),
            Event::StepFailed { step, .. } => format!("step {step} failed"),
            Event::CancelRequested => "cancel requested".to_owned(),
            Event::UndoStarted { step } => format!("undo of step {step} started"),
            Event::UndoSucceeded { step, .. } => format!("undo of step {step} succeeded"),
            Event::UndoFailed { step, .. } => format!("undo of step {step} failed"),
            Event::Discarded => "discarded".to_owned(),
        };
        Illegal { event, state: self.state(), steps: self.steps.clone() }
    }

    pub(crate) fn step_state(&self, step: usize) -> StepState {
        self.steps[step]
    }

    /// Whether anything was ever run.
    pub(crate) fn untouched(&self) -> bool {
        self.started.is_none()
    }

    pub(crate) fn cancel_requested(&self) -> bool {
        self.cancel_requested
    }

    pub(crate) fn outputs(&self) -> &[Option<Value>] {
        &self.outputs
    }

    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(crate) fn started(&self) -> Option<Timestamp> {
        self.started
    }

    pub(crate) fn finished(&self) -> Option<Timestamp> {
        self.finished
    }

    /// Why the job failed: its step's failure, or why a cancelled job could not be undone, or that it was discarded.
    pub(crate) fn error(&self) -> Option<Failure> {
        let discarded =
            || Failure::new(ids::DISCARDED, "the job was given up; what it had done was not undone");
        self.failure
            .clone()
            .or_else(|| self.stuck.as_ref().map(|(_, failure)| failure.clone()))
            .or_else(|| self.discarded.then(discarded))
    }

    /// The step that could not be undone, and why.
    pub(crate) fn stuck(&self) -> Option<(usize, &Failure)> {
        self.stuck.as_ref().map(|(step, failure)| (*step, failure))
    }

    /// How many steps are done, from the first on, and not undone.
    pub(crate) fn done(&self) -> usize {
        self.steps.iter().take_while(|state| **state == StepState::Done).count()
    }
}

#[cfg(test)]
mod tests;
