//! What a step sees of its job: parameters, world, earlier outputs, and the ways to report.

use std::any::TypeId;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kind::Registered;
use crate::live::Live;
use crate::{Failure, JobId, Kind, Warning, ids};

/// One call of a step or its undo, as the engine makes it.
pub(crate) struct Attempt<'a> {
    pub(crate) id: JobId,
    pub(crate) subject: Option<&'a str>,
    pub(crate) owner: &'a str,
    pub(crate) params: &'a Value,
    pub(crate) outputs: &'a [Option<Value>],
    pub(crate) step: usize,
    pub(crate) live: &'a Arc<Live>,
}

/// What a step, or its undo, is given. All methods take `&self`; a [`Reporter`] goes to other threads.
pub struct Context<'a, K: Kind> {
    kind: &'a Registered<K>,
    attempt: &'a Attempt<'a>,
    params: K::Params,
}

impl<'a, K: Kind> Context<'a, K> {
    pub(crate) fn new(kind: &'a Registered<K>, attempt: &'a Attempt<'a>) -> Result<Context<'a, K>, Failure> {
        let params = read(attempt.params, "the parameters")?;
        Ok(Context { kind, attempt, params })
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.attempt.id
    }

    /// What the job is to do.
    pub fn params(&self) -> &K::Params {
        &self.params
    }

    /// What the job acts on.
    pub fn world(&self) -> &Arc<K::World> {
        self.kind.world()
    }

    /// What the job is about (a machine's id), if it was submitted with a subject.
    pub fn subject(&self) -> Option<&str> {
        self.attempt.subject
    }

    /// Who submitted the job.
    pub fn owner(&self) -> &str {
        self.attempt.owner
    }

    /// The output of an earlier step, named by its function: `cx.output(Self::prepare)?`.
    ///
    /// # Errors
    /// Only for bugs: the function is no step of this kind, or not an earlier one; or the recorded output is not a `T`.
    pub fn output<T, F>(&self, step: F) -> Result<T, Failure>
    where
        T: DeserializeOwned,
        F: Fn(&mut Context<'_, K>) -> Result<T, Failure> + 'static,
    {
        self.try_output(step)?.ok_or_else(|| {
            Failure::new(ids::NO_OUTPUT, "a step asked for the output of one that did not run before it")
        })
    }

    /// As [`Context::output`], but `None` for a step that has not finished: what an undo needs, its own output included.
    ///
    /// # Errors
    /// As [`Context::output`].
    pub fn try_output<T, F>(&self, _step: F) -> Result<Option<T>, Failure>
    where
        T: DeserializeOwned,
        F: Fn(&mut Context<'_, K>) -> Result<T, Failure> + 'static,
    {
        let Some((index, name)) = self.kind.find(TypeId::of::<F>()) else {
            return Err(Failure::new(
                ids::NO_OUTPUT,
                "a step asked for the output of a function that is no step",
            ));
        };
        self.attempt.outputs[index].as_ref().map(|value| read(value, name)).transpose()
    }

    /// Whether the step should stop: the job was cancelled or the engine is shutting down. Ask at least once a second.
    /// In an undo it is true only for a shutdown.
    pub fn cancelled(&self) -> bool {
        self.attempt.live.interrupted()
    }

    /// [`Context::cancelled`] as an error to return with `?`.
    pub fn check_cancel(&self) -> Result<(), Failure> {
        if self.cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Tells how far the step is: `done` of `total` bytes (0: unknown) of the phase. Cheap; call it as often as you like.
    pub fn progress(&self, phase: &str, done: u64, total: u64) {
        self.attempt.live.progress(phase, done, total);
    }

    /// A handle for reporting progress and asking for cancellation from other threads.
    pub fn reporter(&self) -> Reporter {
        Reporter { live: Arc::clone(self.attempt.live) }
    }

    /// Tells the owner something without failing. Recorded when the step ends.
    pub fn warn(&self, warning: Warning) {
        self.attempt.live.warn(warning);
    }

    /// Whether a second has passed since the last durable checkpoint: the moment to sync data and call
    /// [`Context::checkpoint`].
    pub fn checkpoint_due(&self) -> bool {
        self.attempt.live.checkpoint_due()
    }

    /// Records, durably before it returns, where the step could resume after a crash. Large state goes to files of the
    /// step's own; this is at most about 60 KiB as JSON. Kept until another step makes a checkpoint.
    ///
    /// # Errors
    /// The state could not be written; the step should return the failure.
    pub fn checkpoint<T: Serialize>(&self, state: &T) -> Result<(), Failure> {
        let state =
            serde_json::to_value(state).map_err(|error| Failure::from_error(ids::UNREADABLE, &error))?;
        self.attempt.live.checkpoint(state)
    }

    /// What this step last recorded with [`Context::checkpoint`], now or before a crash. Its undo sees it too.
    ///
    /// # Errors
    /// What was recorded is not a `T`.
    pub fn restore<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        self.attempt.live.resume_state().map(|value| read(&value, "the resume state")).transpose()
    }
}

/// Reports progress and asks for cancellation from any thread; see [`Context::reporter`].
#[derive(Clone)]
pub struct Reporter {
    live: Arc<Live>,
}

impl Reporter {
    /// As [`Context::cancelled`].
    pub fn cancelled(&self) -> bool {
        self.live.interrupted()
    }

    /// As [`Context::check_cancel`].
    pub fn check_cancel(&self) -> Result<(), Failure> {
        if self.cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// As [`Context::progress`].
    pub fn progress(&self, phase: &str, done: u64, total: u64) {
        self.live.progress(phase, done, total);
    }

    /// As [`Context::warn`].
    pub fn warn(&self, warning: Warning) {
        self.live.warn(warning);
    }
}

fn read<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| {
        Failure::new(
            ids::UNREADABLE,
            format!("{what} recorded for the job cannot be read by this program: {error}"),
        )
    })
}
