//! A gate on the way of jobs, for those who slow, stop or fail them on purpose: simulations and tests.
//!
//! It is asked wherever a step begins, reports and ends, and sees the percentage that the job shows. That is the one place
//! that all kinds of jobs have in common; a gate in what they read and write would have to be built into each of them, and
//! would stop a copy where its readers are and not where its watchers see it.

use crate::{Failure, JobId};

/// A job that comes to a gate.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: &'a str,
    /// What it is about.
    pub subject: Option<&'a str>,
}

/// Decides how far jobs go. A job without a gate is never asked.
pub trait Gate: Send + Sync + 'static {
    /// The first percentage at which `job` is to stop, on its way from `reached`, which it shows, to `coming`. Asked often:
    /// answer at once.
    fn stop(&self, job: &Passing<'_>, reached: u8, coming: u8) -> Option<u8>;

    /// `job` shows `percent` and stands. Returns when it may go on, which `stop` then knows; or soon after `interrupted`
    /// says that it is to end for another reason.
    ///
    /// # Errors
    /// The failure that its step is to have.
    fn stand(&self, job: &Passing<'_>, percent: u8, interrupted: &dyn Fn() -> bool) -> Result<(), Failure>;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use store::MemoryStore;
    use uuid::Uuid;

    use super::*;
    use crate::{Context, Engine, Kind, State, Status, Steps, Submission, UndoReason};

    /// Three quarters of it are one step of 100 bytes.
    struct Copying;

    impl Kind for Copying {
        const NAME: &'static str = "copying";
        const VERSION: u32 = 1;
        type Params = ();
        type World = Mutex<Vec<String>>;
        fn steps() -> Steps<Self> {
            let log = |cx: &Context<'_, Self>, what: &str| cx.world().lock().unwrap().push(what.to_owned());
            Steps::new()
                .step_without_undo("prepare", move |cx| {
                    log(cx, "prepare");
                    Ok(())
                })
                .step(
                    "copy",
                    move |cx| {
                        log(cx, "copy");
                        for done in (0..=100).step_by(10) {
                            cx.progress("copying", done, 100);
                            cx.check_cancel()?;
                        }
                        log(cx, "copied");
                        Ok(())
                    },
                    move |cx, why: UndoReason| {
                        cx.progress("removing", 1, 1);
                        assert!(!cx.cancelled());
                        log(cx, &format!("undo ({why:?})"));
                        Ok(())
                    },
                )
                .weight(3)
        }
    }

    /// Stops once at a percentage; until it is opened, or with a failure.
    struct At {
        percent: u8,
        met: AtomicBool,
        open: AtomicBool,
        failure: Option<Failure>,
    }

    impl Gate for At {
        fn stop(&self, job: &Passing<'_>, reached: u8, coming: u8) -> Option<u8> {
            assert_eq!((job.kind, job.subject), ("copying", Some("disk")));
            (coming >= self.percent && !self.met.load(Ordering::Acquire)).then_some(self.percent.max(reached))
        }

        fn stand(&self, _: &Passing<'_>, _: u8, interrupted: &dyn Fn() -> bool) -> Result<(), Failure> {
            self.met.store(true, Ordering::Release);
            while !self.open.load(Ordering::Acquire) && self.failure.is_none() && !interrupted() {
                std::thread::yield_now();
            }
            self.failure.clone().map_or(Ok(()), Err)
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    fn run(percent: u8, failure: Option<Failure>) -> (Engine, Arc<At>, Arc<Mutex<Vec<String>>>, JobId) {
        let gate = Arc::new(At { percent, met: false.into(), open: false.into(), failure });
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let engine = Engine::builder(Arc::new(MemoryStore::new()))
            .register::<Copying>(Arc::clone(&log))
            .gate(Arc::clone(&gate) as Arc<dyn Gate>)
            .ids(|| Uuid::from_u128(7))
            .start()
            .unwrap();
        let id = engine.submit(Submission::<Copying>::new(()).subject("disk")).unwrap();
        assert_eq!(id.0, Uuid::from_u128(7));
        (engine, gate, log, id)
    }

    /// As it is when it stands at the gate.
    fn standing(engine: &Engine, gate: &At, id: JobId) -> Status {
        while !gate.met.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        engine.get(id).unwrap()
    }

    #[test]
    fn a_job_stands_where_the_gate_says_and_shows_it() {
        // 25 is the first step's end, 62 between two reports, 100 the end of all.
        for (percent, shown, bytes, last) in
            [(0, 0, 0, None), (25, 25, 0, None), (62, 62, 50, Some("copy")), (100, 99, 100, Some("copied"))]
        {
            let (engine, gate, log, id) = run(percent, None);
            let status = standing(&engine, &gate, id);
            assert_eq!((status.percent, status.done_bytes), (shown, bytes), "at {percent}");
            let reached = log.lock().unwrap().last().cloned();
            assert!(last.is_none_or(|last| reached.as_deref() == Some(last)), "{reached:?} at {percent}");
            assert_eq!(engine.wait(id, Duration::ZERO).unwrap().state, State::Running);
            gate.open.store(true, Ordering::Release);
            assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
        }
    }

    #[test]
    fn a_job_that_stands_can_be_cancelled_and_put_down() {
        let (engine, gate, log, id) = run(50, None);
        standing(&engine, &gate, id);
        engine.cancel(id).unwrap();
        assert_eq!(engine.wait(id, LONG).unwrap().state, State::Cancelled);
        assert_eq!(*log.lock().unwrap(), ["prepare", "copy", "undo (Cancelled)"]);
        let (engine, gate, _, id) = run(50, None);
        standing(&engine, &gate, id);
        assert!(engine.shutdown(LONG).is_empty());
        assert_eq!(engine.get(id).unwrap().state, State::Running, "it goes on at the next start");
    }

    #[test]
    fn a_job_fails_where_the_gate_says_and_is_undone() {
        for percent in [0, 30, 100] {
            let (engine, _, log, id) = run(percent, Some(Failure::new("io", "on purpose")));
            let status = engine.wait(id, LONG).unwrap();
            assert_eq!((status.state, status.error.unwrap().id.as_str()), (State::Failed, "io"));
            let log = log.lock().unwrap();
            let undone = log.iter().any(|l| l == "undo (Failed)");
            assert_eq!((undone, log.iter().any(|l| l == "copied")), (percent > 0, percent == 100), "{log:?}");
        }
    }
}
