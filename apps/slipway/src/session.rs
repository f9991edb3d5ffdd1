//! A command's conversation with the daemon: calls, their failures, and jobs followed to their end.

use std::future::Future;

use machine::Reason;
use rest::client::{Client, ClientError};
use rest::wire::{Job, Machine};
use transfer::shell;
use uuid::Uuid;

use crate::failure::{Code, Failure, Result, code_of};
use crate::printer::Printer;
use crate::progress::Bar;

/// Seconds that one look at a job waits for news.
const LOOK: u64 = 30;

/// The id of the failure that a job left to itself is.
pub(crate) const LEFT: &str = "interrupted";

/// What Ctrl-C does to a followed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The first cancels it, a second one leaves it.
    Cancels,
    /// It goes on; only the watching ends.
    Leaves,
}

/// What an online command works with.
pub(crate) struct Session {
    pub(crate) printer: Printer,
    pub(crate) client: Client,
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        let failure = match &e {
            ClientError::Unreachable { .. } => {
                Self::new("no-daemon", machine::chain(&e)).code(Code::NoDaemon)
            }
            ClientError::Problem { problem, .. } => {
                let code =
                    Reason::ALL.iter().find(|r| r.id() == problem.id).map_or(Code::Failed, |r| code_of(*r));
                Self::new(&problem.id, &problem.message).code(code)
            }
            ClientError::Protocol { .. } => Self::new("protocol", machine::chain(&e)),
        };
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Runs an online command to its end.
pub(crate) fn block_on(work: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("internal", format!("cannot start: {e}")))?;
    let result = runtime.block_on(work);
    // A thread that waits for a keypress must not hold the program up.
    runtime.shutdown_background();
    result
}

impl Session {
    /// The word by which a next command names `machine`, quoted: its name, or its id where the name would name another
    /// one as well, or none.
    pub(crate) async fn word(&self, machine: &Machine) -> String {
        let is_option = machine.name.starts_with('-');
        let found = self.client.machine(&machine.name).await;
        if !is_option && found.is_ok_and(|found| found.id == machine.id) {
            shell::word(&machine.name)
        } else {
            machine.id.to_string()
        }
    }

    /// Follows a job to its end, drawing its progress.
    pub(crate) async fn follow(&self, job: Uuid, interrupt: Interrupt) -> Result<Job> {
        let word = job.to_string();
        let bar = Bar::bytes(self.printer, "waiting");
        let mut generation = 0;
        let mut cancelled = interrupt == Interrupt::Leaves;
        let ended = loop {
            let look = self.client.job_after(&word, generation, LOOK);
            let job = tokio::select! {
                job = look => match job {
                    Ok(job) => job,
                    Err(e @ ClientError::Unreachable { .. } | e @ ClientError::Protocol { .. }) => {
                        bar.finish();
                        return Err(Failure::new("no-daemon", format!("the daemon went away: {}", machine::chain(&e)))
                            .code(Code::NoDaemon)
                            .hint(format!("the job goes on when the daemon is back: `slipway job watch {word}`")));
                    }
                    Err(e) => return Err(e.into()),
                },
                _ = tokio::signal::ctrl_c() => {
                    if cancelled {
                        bar.finish();
                        return Err(Failure::new(LEFT, format!("job {word} goes on by itself"))
                            .hint(format!("`slipway job watch {word}` follows it")));
                    }
                    cancelled = true;
                    self.printer.talk("cancelling; Ctrl-C again leaves it to end by itself");
                    // Over already is as good as cancelled: the next look tells.
                    let _ = self.client.cancel(&word).await;
                    continue;
                }
            };
            generation = job.generation;
            if !job.phase.is_empty() {
                bar.phase(&job.phase);
            }
            bar.set(job.done_bytes, job.total_bytes);
            if job.finished || job.state == "parked" {
                break job;
            }
        };
        bar.finish();
        for w in &ended.warnings {
            self.printer.talk(format!("warning: {} [{}]", w.message, w.id));
        }
        Ok(ended)
    }

    /// Follows a job; one that did not do what it was to do is a failure.
    pub(crate) async fn follow_to_success(&self, job: Uuid) -> Result<Job> {
        let job = self.follow(job, Interrupt::Cancels).await?;
        if job.success { Ok(job) } else { Err(failed(&job)) }
    }
}

/// The failure that an unsuccessful job is.
pub(crate) fn failed(job: &Job) -> Failure {
    if job.state == "cancelled" {
        return Failure::new(
            "cancelled",
            format!("the {} was cancelled, and what it had done is undone", job.kind),
        );
    }
    let Some(error) = &job.error else {
        return Failure::new("internal", format!("the {} is {}", job.kind, job.state));
    };
    let code = Reason::ALL.iter().find(|r| r.id() == error.id).map_or(Code::Failed, |r| code_of(*r));
    let failure = Failure::new(&error.id, &error.message).code(code);
    match &error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
