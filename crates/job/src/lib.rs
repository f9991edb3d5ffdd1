//! Jobs that outlive the process.
//!
//! A job is an append-only log of events in the [`store`]; what it is doing is a pure fold of them. A [`Kind`] is a
//! list of steps, each a plain blocking function with a serialisable output and an undo. The [`Engine`] runs steps on
//! worker threads and writes an event before and after each, so after `kill -9` a new engine on the same store goes on
//! where the log ends.
//!
//! ```text
//!  submit ─► Queued ─► step 1 started ─► done ─► step 2 started ─► done ─► … ─► Completed [with warnings]
//!                          │ fails or is cancelled │
//!                          └─────────► undo, last started step first ─► Failed | Cancelled
//!                                             └─ an undo fails ─► Failed, stuck (named in the status)
//! ```
//!
//! What the engine promises, and each kind proves with [`proofs`]:
//! - A step may be run again from its beginning (after a crash, a restart, a refused write): it must be idempotent.
//! - The undo runs for every step that *started*, finished or not, and may itself be run again.
//! - An event is durable before what it announces happens.
//!
//! Left to others: what jobs do (the kinds, in `machine`), who may submit or cancel (the edges), and Hyper-V's numbers.
//! No async: steps block, waiting is done with timeouts, and the caller chooses its thread.

#![forbid(unsafe_code)]

mod board;
mod clock;
mod context;
mod engine;
mod failure;
mod fold;
mod gate;
mod journal;
mod kind;
mod live;
mod progress;
pub mod proofs;
mod status;
mod tally;

pub use board::{Changes, Watcher};
pub use clock::{Clock, ManualClock, SystemClock};
pub use context::{Context, Reporter};
pub use engine::{
    Builder, CancelError, CancelErrorKind, Engine, Options, StartError, Submission, SubmitError,
    SubmitErrorKind,
};
pub use failure::{Failure, Warning};
pub use gate::{Gate, Passing};
pub use kind::{Kind, Steps, UndoReason};
pub use status::{Filter, JobId, State, Status, Stuck};
pub use tally::{DURATION_SECONDS, Ended};

/// Most steps a kind may have.
pub const MAX_STEPS: usize = 64;
/// Most jobs that are not finished, in one engine.
pub const MAX_UNFINISHED: usize = 10_000;
/// Most warnings one step keeps; further ones are counted in a last one.
pub const MAX_WARNINGS: usize = 50;

/// Stable ids of the failures the engine itself reports.
pub mod ids {
    /// A step noticed that it should stop, of itself no failure. If the engine did not tell it to (the world is
    /// closing), the job is parked with this and goes on at the next start.
    pub const INTERRUPTED: &str = "job-interrupted";
    /// A step panicked: a bug.
    pub const PANICKED: &str = "job-step-panicked";
    /// A step's output does not fit into the journal.
    pub const OUTPUT_TOO_LARGE: &str = "job-output-too-large";
    /// Recorded parameters, output or resume state are not what the kind expects: it changed without a new version.
    pub const UNREADABLE: &str = "job-record-unreadable";
    /// A step asked for the output of one that has not run before it: a bug.
    pub const NO_OUTPUT: &str = "job-no-such-output";
    /// The journal could not be written; the job waits for [`crate::Engine::recover`] or the next start.
    pub const STORE_FAILED: &str = "job-store-failed";
    /// This program does not know the job's kind in the job's version.
    pub const KIND_UNKNOWN: &str = "job-kind-unknown";
    /// A parked job was given up by a person.
    pub const DISCARDED: &str = "job-discarded";
}
