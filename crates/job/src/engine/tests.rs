//! The engine with a kind whose steps do what each test says.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;
use serde_json::{Value, json};
use store::{MemoryStore, Outcome, Txn, Versioned, Watch};

use super::*;
use crate::clock::ManualClock;
use crate::{Context, Steps, UndoReason, Warning, ids};

type Do = dyn Fn(&mut Context<'_, Scripted>, &str) -> Result<Value, Failure> + Send + Sync;
type Undo = dyn Fn(&mut Context<'_, Scripted>, &str, UndoReason) -> Result<(), Failure> + Send + Sync;

/// Steps `a`, `b` and `c`, all doing what the script says.
struct Scripted;

struct Script {
    run: Box<Do>,
    undo: Box<Undo>,
    /// `a`, `b`, …, `undo b (failed)`, …
    log: Mutex<Vec<String>>,
}

impl Script {
    fn new(
        run: impl Fn(&mut Context<'_, Scripted>, &str) -> Result<Value, Failure> + Send + Sync + 'static,
    ) -> Arc<Script> {
        Script::with_undo(run, |_, _, _| Ok(()))
    }

    fn with_undo(
        run: impl Fn(&mut Context<'_, Scripted>, &str) -> Result<Value, Failure> + Send + Sync + 'static,
        undo: impl Fn(&mut Context<'_, Scripted>, &str, UndoReason) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Arc<Script> {
        Arc::new(Script { run: Box::new(run), undo: Box::new(undo), log: Mutex::default() })
    }

    fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }
}

impl Kind for Scripted {
    const NAME: &'static str = "scripted";
    const VERSION: u32 = 3;
    type Params = Value;
    type World = Script;
    fn steps() -> Steps<Self> {
        Steps::new()
            .step("a", |cx| Self::run(cx, "a"), |cx, why| Self::undo(cx, "a", why))
            .weight(1)
            .step("b", |cx| Self::run(cx, "b"), |cx, why| Self::undo(cx, "b", why))
            .weight(8)
            .step("c", |cx| Self::run(cx, "c"), |cx, why| Self::undo(cx, "c", why))
            .weight(1)
    }
}

impl Scripted {
    fn run(cx: &mut Context<'_, Self>, step: &str) -> Result<Value, Failure> {
        let script = Arc::clone(cx.world());
        lock(&script.log).push(step.to_owned());
        (script.run)(cx, step)
    }

    fn undo(cx: &mut Context<'_, Self>, step: &str, why: UndoReason) -> Result<(), Failure> {
        let script = Arc::clone(cx.world());
        let why_text = if why == UndoReason::Failed { "failed" } else { "cancelled" };
        lock(&script.log).push(format!("undo {step} ({why_text})"));
        (script.undo)(cx, step, why)
    }
}

/// The same name, an older version, two steps, anything goes.
struct Old;

impl Kind for Old {
    const NAME: &'static str = "scripted";
    const VERSION: u32 = 2;
    const EXCLUSIVE: bool = false;
    type Params = ();
    type World = Mutex<Vec<String>>;
    fn steps() -> Steps<Self> {
        Steps::<Self>::new().step_without_undo("old", |cx| {
            cx.world().lock().unwrap().push("old".into());
            Ok(())
        })
    }
}

const LONG: Duration = Duration::from_secs(30);

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn engine(store: &Arc<dyn Store>, script: &Arc<Script>) -> Engine {
    let engine = Engine::builder(Arc::clone(store))
        .register::<Scripted>(Arc::clone(script))
        .clock(Arc::new(ManualClock::new()))
        .options(Options { workers: 1 })
        .start()
        .unwrap();
    engine.recover().unwrap();
    engine
}

fn submission() -> Submission<Scripted> {
    Submission::new(json!({}))
}

fn fails(id: &str) -> Result<Value, Failure> {
    Err(Failure::new(id, format!("{id} happened")).hint("try again").path("/tmp/x"))
}

/// A step that says it is there and waits to be let go.
struct Gate {
    here: Sender<String>,
    go: Mutex<Receiver<()>>,
}

fn gate() -> (Gate, Receiver<String>, Sender<()>) {
    let ((here, arrivals), (go, gone)) = (channel(), channel());
    (Gate { here, go: Mutex::new(gone) }, arrivals, go)
}

impl Gate {
    fn pass(&self, who: &str) {
        self.here.send(who.to_owned()).unwrap();
        lock(&self.go).recv_timeout(LONG).unwrap();
    }
}

#[test]
fn a_job_tells_what_it_did() {
    let script = Script::new(|cx, step| {
        assert_eq!((cx.subject(), cx.owner()), (Some("m1"), "root"));
        Ok(json!({ "step": step, "got": cx.params()["n"] }))
    });
    let engine = engine(&memory(), &script);
    let id = engine.submit(Submission::<Scripted>::new(json!({"n": 5})).subject("m1").owner("root")).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(status.state, State::Completed);
    assert_eq!(status.output, Some(json!({"step": "c", "got": 5})));
    assert_eq!((status.percent, status.step, status.error), (100, None, None));
    assert_eq!((status.kind.as_str(), status.version), ("scripted", 3));
    assert_eq!(status.submitted.to_string(), "2025-01-01T00:00:00Z");
    assert!(status.started.is_some() && status.finished.is_some());
    assert_eq!(script.log(), ["a", "b", "c"]);
    assert_eq!(engine.get(JobId::random()), None);
}

#[test]
fn jobs_run_in_the_order_they_came_and_no_more_at_once_than_workers() {
    let (gate, arrivals, go) = gate();
    let script = Script::new(move |cx, step| {
        if step == "a" {
            gate.pass(cx.owner());
        }
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    let ids: Vec<_> = (0..4).map(|n| engine.submit(submission().owner(n.to_string())).unwrap()).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(arrivals.recv_timeout(LONG).unwrap(), n.to_string());
        let running = engine.list(&Filter { finished: Some(false), ..Filter::default() });
        let states: Vec<_> = running.iter().map(|status| status.state).collect();
        assert_eq!(states.iter().filter(|state| **state == State::Running).count(), 1, "{states:?}");
        assert_eq!(states.len(), 4 - n);
        go.send(()).unwrap();
        engine.wait(*id, LONG).unwrap();
    }
}

#[test]
fn a_subject_belongs_to_one_job() {
    let (gate, arrivals, go) = gate();
    let script = Script::new(move |_, step| {
        if step == "a" {
            gate.pass("");
        }
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    let first = engine.submit(submission().subject("m1")).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    let error = engine.submit(submission().subject("m1")).unwrap_err();
    assert_eq!(error.kind(), SubmitErrorKind::Busy { job: first });
    assert!(error.to_string().contains(&first.to_string()), "{error}");
    assert_eq!(engine.busy("m1"), Some(first));
    let other = engine.submit(submission().subject("m2")).unwrap();
    let nobodys = engine.submit(submission()).unwrap();
    for id in [first, other, nobodys] {
        go.send(()).unwrap();
        assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
    }
    assert_eq!(engine.busy("m1"), None);
    go.send(()).unwrap();
    engine
        .submit(submission().subject("m1"))
        .expect("the subject is free as soon as the job shows as finished");
}

#[test]
fn kinds_that_are_not_exclusive_share_and_do_not_keep_out() {
    let store = memory();
    let log = Arc::new(Mutex::default());
    let script = Script::new(|_, _| Ok(Value::Null));
    let engine = Engine::builder(store)
        .register::<Old>(Arc::clone(&log))
        .register::<Scripted>(script)
        .start()
        .unwrap();
    for _ in 0..3 {
        engine.submit(Submission::<Old>::new(()).subject("m1")).unwrap();
    }
    let id = engine.submit(submission().subject("m1")).unwrap();
    engine.submit(Submission::<Old>::new(()).subject("m1")).unwrap();
    assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
}

#[test]
fn a_failure_is_undone_and_told() {
    let script = Script::new(|cx, step| match step {
        "a" => {
            cx.warn(Warning::new("slow", "it was slow"));
            Ok(json!(1))
        }
        _ => fails("target-full"),
    });
    let store = memory();
    let engine = engine(&store, &script);
    let id = engine.submit(submission().subject("m1")).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(status.state, State::Failed);
    let error = status.error.unwrap();
    assert_eq!((error.id.as_str(), error.message.as_str()), ("target-full", "target-full happened"));
    assert_eq!((error.hint.as_deref(), error.path.as_deref()), (Some("try again"), Some("/tmp/x")));
    assert_eq!(status.warnings, [Warning::new("slow", "it was slow")]);
    assert_eq!((status.output, status.stuck), (None, None));
    assert_eq!(script.log(), ["a", "b", "undo b (failed)", "undo a (failed)"]);
    assert_eq!(engine.busy("m1"), None);
}

#[test]
fn an_undo_that_fails_is_told_and_stops_the_undoing() {
    let script = Script::with_undo(
        |_, step| if step == "c" { fails("broken") } else { Ok(Value::Null) },
        |_, step, _| if step == "b" { Err(Failure::new("glued", "it is glued")) } else { Ok(()) },
    );
    let engine = engine(&memory(), &script);
    let id = engine.submit(submission()).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(status.state, State::Failed);
    assert_eq!(status.error.unwrap().id, "broken");
    let stuck = status.stuck.unwrap();
    assert_eq!((stuck.step.as_str(), stuck.failure.id.as_str()), ("b", "glued"));
    assert_eq!(script.log(), ["a", "b", "c", "undo c (failed)", "undo b (failed)"]);
}

#[test]
fn a_panic_is_a_failure_of_the_job_only() {
    let script = Script::new(|cx, step| match step {
        "b" if cx.params() == &json!("panic") => std::panic::resume_unwind(Box::new("index out of bounds")),
        _ => Ok(Value::Null),
    });
    let engine = engine(&memory(), &script);
    let bad = engine.submit(Submission::<Scripted>::new(json!("panic"))).unwrap();
    let good = engine.submit(submission()).unwrap();
    let status = engine.wait(bad, LONG).unwrap();
    assert_eq!(status.error.as_ref().unwrap().id, ids::PANICKED);
    assert!(status.error.unwrap().message.contains("index out of bounds"));
    assert_eq!(engine.wait(good, LONG).unwrap().state, State::Completed);
}

#[test]
fn an_output_that_does_not_fit_fails_the_step() {
    let script = Script::new(|_, _| Ok(json!("x".repeat(64 * 1024))));
    let engine = engine(&memory(), &script);
    let id = engine.submit(submission()).unwrap();
    assert_eq!(engine.wait(id, LONG).unwrap().error.unwrap().id, ids::OUTPUT_TOO_LARGE);
    let huge = Submission::<Scripted>::new(json!("x".repeat(64 * 1024)));
    assert_eq!(engine.submit(huge.subject("m1")).unwrap_err().kind(), SubmitErrorKind::Params);
    assert_eq!(engine.busy("m1"), None, "a refused job leaves its subject alone");
}

#[test]
fn warnings_always_fit() {
    let script = Script::new(|cx, step| {
        if step == "a" {
            for n in 0..1000 {
                // Every character takes six in JSON.
                cx.warn(Warning::new("w", format!("{n}{}", "\u{1}".repeat(3000))));
            }
        }
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    let id = engine.submit(submission()).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(status.state, State::CompletedWithWarnings);
    let (last, kept) = status.warnings.split_last().unwrap();
    assert!(!kept.is_empty());
    assert!(last.message.starts_with(&format!("{} more", 1000 - kept.len())), "{}", last.message);
}

#[test]
fn a_queued_job_is_cancelled_at_once_and_never_runs() {
    let (gate, arrivals, go) = gate();
    let script = Script::new(move |cx, _| {
        gate.pass(cx.owner());
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    engine.submit(submission().owner("first")).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    let queued = engine.submit(submission().subject("m1")).unwrap();
    engine.cancel(queued).unwrap();
    let status = engine.get(queued).unwrap();
    assert_eq!((status.state, status.started), (State::Cancelled, None));
    assert_eq!(engine.busy("m1"), None);
    assert_eq!(engine.cancel(queued).unwrap_err().kind(), CancelErrorKind::Finished);
    assert_eq!(engine.cancel(JobId::random()).unwrap_err().kind(), CancelErrorKind::NotFound);
    drop(go);
}

#[test]
fn a_running_job_is_cancelled_at_its_next_look() {
    let (gate, arrivals, go) = gate();
    let script = Script::new(move |cx, step| {
        if step == "b" {
            cx.check_cancel()?;
            gate.pass("b");
            assert!(cx.cancelled() && cx.reporter().cancelled());
            cx.check_cancel()?;
        }
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    let id = engine.submit(submission()).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    engine.cancel(id).unwrap();
    engine.cancel(id).expect("twice is fine");
    let status = engine.get(id).unwrap();
    assert_eq!((status.state, status.cancel_requested), (State::Running, true));
    go.send(()).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!((status.state, status.error), (State::Cancelled, None));
    assert_eq!(script.log(), ["a", "b", "undo b (cancelled)", "undo a (cancelled)"]);
}

#[test]
fn an_undo_is_not_cancelled_and_does_not_see_the_cancel() {
    let (gate, arrivals, go) = gate();
    let script = Script::with_undo(
        |_, step| if step == "b" { fails("broken") } else { Ok(Value::Null) },
        move |cx, step, _| {
            gate.pass(step);
            cx.check_cancel()
        },
    );
    let engine = engine(&memory(), &script);
    let id = engine.submit(submission()).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    assert_eq!(engine.get(id).unwrap().state, State::Undoing);
    assert_eq!(engine.cancel(id).unwrap_err().kind(), CancelErrorKind::Undoing);
    go.send(()).unwrap();
    go.send(()).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!((status.state, status.stuck), (State::Failed, None));
}

#[test]
fn a_shutdown_undoes_nothing_and_the_next_engine_goes_on() {
    let (gate, arrivals, go) = gate();
    let first_time = AtomicBool::new(true);
    let script = Script::new(move |cx, step| {
        if step == "b" && first_time.swap(false, Ordering::AcqRel) {
            cx.checkpoint(&"half")?;
            gate.pass("b");
            cx.check_cancel()?;
        }
        if step == "b" {
            return Ok(json!(cx.restore::<String>()?));
        }
        Ok(Value::Null)
    });
    let store = memory();
    let engine = engine(&store, &script);
    let id = engine.submit(submission().subject("m1")).unwrap();
    let queued = engine.submit(submission()).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    assert_eq!(engine.shutdown(Duration::ZERO), [id], "its step still runs");
    assert_eq!(engine.submit(submission()).unwrap_err().kind(), SubmitErrorKind::Stopping);
    go.send(()).unwrap();
    assert_eq!(engine.shutdown(LONG), []);
    assert_eq!(engine.get(id).unwrap().state, State::Running);
    drop(engine);

    let engine = self::engine(&store, &script);
    assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
    assert_eq!(engine.wait(queued, LONG).unwrap().state, State::Completed);
    assert_eq!(script.log(), ["a", "b", "b", "c", "a", "b", "c"]);
}

/// The domain's steps reach their host through a weak pointer, which dies before the engine that the host owns.
#[test]
fn a_step_that_stops_unasked_is_put_aside_not_failed() {
    let closing = Arc::new(AtomicBool::new(true));
    let world = Arc::clone(&closing);
    let script = Script::new(move |_, step| match step {
        "b" if world.load(Ordering::Acquire) => Err(Failure::new(ids::INTERRUPTED, "the host is closing")),
        _ => Ok(Value::Null),
    });
    let store = memory();
    let first = engine(&store, &script);
    let id = first.submit(submission()).unwrap();
    let status = first.wait(id, LONG).unwrap();
    assert_eq!((status.state, status.error.unwrap().id.as_str()), (State::Parked, ids::INTERRUPTED));
    drop(first);
    closing.store(false, Ordering::Release);
    assert_eq!(engine(&store, &script).wait(id, LONG).unwrap().state, State::Completed);
    assert_eq!(script.log(), ["a", "b", "b", "c"]);
}

#[test]
fn jobs_of_before_wait_for_recover_but_can_be_cancelled() {
    let script = Script::new(|_, _| Ok(Value::Null));
    let store = memory();
    let put_down =
        Engine::builder(Arc::clone(&store)).register::<Scripted>(Arc::clone(&script)).start().unwrap();
    // Its workers are gone before the jobs come.
    put_down.inner.stop();
    while !put_down.threads.iter().all(JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    put_down.inner.shared.stopping.store(false, Ordering::Release);
    let ids: Vec<_> =
        (0..3).map(|n| put_down.submit(submission().subject(format!("m{n}"))).unwrap()).collect();
    drop(put_down);

    let engine = Engine::builder(store).register::<Scripted>(Arc::clone(&script));
    let engine = engine.options(Options { workers: 1 }).start().unwrap();
    assert_eq!(
        engine.submit(submission().subject("m0")).unwrap_err().kind(),
        SubmitErrorKind::Busy { job: ids[0] }
    );
    engine.cancel(ids[1]).unwrap();
    let new = engine.submit(submission()).unwrap();
    engine.wait(new, LONG).unwrap();
    assert_eq!(engine.get(ids[0]).unwrap().state, State::Queued);
    engine.recover().unwrap();
    let states: Vec<_> = ids.iter().map(|id| engine.wait(*id, LONG).unwrap().state).collect();
    assert_eq!(states, [State::Completed, State::Cancelled, State::Completed]);
}

#[test]
fn kinds_that_are_not_known_are_parked_not_guessed() {
    let store = memory();
    let log = Arc::new(Mutex::default());
    let meta = |version: u32, steps: &[&str]| {
        let id = JobId::random();
        let meta = json!({
            "format": 1, "kind": "scripted", "version": version, "steps": steps, "params": null,
            "subject": format!("m{version}{}", steps.len()), "owner": "", "submitted": "2024-01-01T00:00:00Z",
        });
        let _ = store.txn(&Txn::new().put(format!("job/{id}/meta"), meta.to_string())).unwrap();
        id
    };
    let started = |id: JobId| {
        let event = json!({"at": "2024-01-01T00:00:01Z", "event": "step_started", "step": 0});
        let _ = store.txn(&Txn::new().put(format!("job/{id}/event/00000000"), event.to_string())).unwrap();
        id
    };
    let newer = started(meta(4, &["a"]));
    let older = started(meta(2, &["old"]));
    let changed = started(meta(3, &["a", "b"]));
    let fresh = meta(9, &["x"]);
    let script = Script::new(|_, _| Ok(Value::Null));
    let engine = engine(&store, &script);
    for id in [newer, older, changed, fresh] {
        let status = engine.wait(id, LONG).unwrap();
        assert_eq!(status.state, State::Parked);
        assert_eq!(status.error.unwrap().id, ids::KIND_UNKNOWN);
    }
    engine.recover().unwrap();
    assert_eq!(engine.get(newer).unwrap().state, State::Parked);
    assert_eq!(engine.busy("m41"), Some(newer), "what it was doing is unknown, so nobody else touches it");
    assert_eq!(engine.cancel(newer).unwrap_err().kind(), CancelErrorKind::Parked);
    engine.cancel(fresh).expect("it did nothing, so nothing needs its kind");
    assert_eq!(engine.get(fresh).unwrap().state, State::Cancelled);
    engine.discard(changed).unwrap();
    let status = engine.get(changed).unwrap();
    assert_eq!((status.state, status.error.unwrap().id.as_str()), (State::Failed, ids::DISCARDED));
    assert_eq!(engine.busy("m32"), None);
    assert_eq!(engine.discard(changed).unwrap_err().kind(), CancelErrorKind::Finished);
    assert_eq!(script.log(), [""; 0]);
    drop(engine);

    // The program that knows the older version takes its job up.
    let engine = Engine::builder(store).register::<Old>(Arc::clone(&log)).start().unwrap();
    assert_eq!(engine.get(older).unwrap().state, State::Running, "it waits for recover");
    engine.recover().unwrap();
    assert_eq!(engine.wait(older, LONG).unwrap().state, State::Completed);
    assert_eq!(*lock(&log), ["old"]);
}

#[test]
fn a_job_that_cannot_be_read_is_parked_and_harms_no_other() {
    let store = memory();
    let script = Script::new(|_, _| Ok(Value::Null));
    let first = engine(&store, &script);
    let ids: Vec<_> = (0..5).map(|_| first.submit(submission()).unwrap()).collect();
    for id in &ids {
        first.wait(*id, LONG).unwrap();
    }
    drop(first);
    let put = |id: JobId, key: &str, value: &str| {
        let _ = store.txn(&Txn::new().put(format!("job/{id}/{key}"), value)).unwrap();
    };
    put(ids[0], "meta", "{");
    put(ids[1], "event/00000003", r#"{"at":"2024-01-01T00:00:01Z","event":"undo_started","step":0}"#);
    let _ = store.txn(&Txn::new().delete(format!("job/{}/event/00000002", ids[2]))).unwrap();
    put(ids[3], "meta", r#"{"format":2,"shape":"unheard of"}"#);
    let _ = store.txn(&Txn::new().put("job/nonsense", "")).unwrap();

    let engine = engine(&store, &script);
    let messages = ["cannot be read", "cannot follow", "event 2 is missing", "format 2"];
    for (id, message) in ids.iter().zip(messages) {
        let status = engine.get(*id).unwrap();
        assert_eq!(status.state, State::Parked);
        let error = status.error.unwrap();
        assert!(error.message.contains(message), "{error}");
        assert_eq!(engine.cancel(*id).unwrap_err().kind(), CancelErrorKind::Parked);
    }
    assert_eq!(engine.get(ids[4]).unwrap().state, State::Completed);
    let id = engine.submit(submission()).unwrap();
    assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
}

/// A store that is full while told so.
struct FullStore(MemoryStore, AtomicBool);

impl Store for FullStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, store::Error> {
        self.0.get(key)
    }
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned>, store::Error> {
        self.0.range(prefix, after, limit)
    }
    fn txn(&self, txn: &Txn) -> Result<Outcome, store::Error> {
        if self.1.load(Ordering::Acquire) {
            return Err(store::Error::backend("write", "no space left on device"));
        }
        self.0.txn(txn)
    }
    fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch, store::Error> {
        self.0.watch(prefix, from_revision)
    }
    fn revision(&self) -> Result<u64, store::Error> {
        self.0.revision()
    }
}

#[test]
fn a_store_that_fails_parks_the_job_until_recover() {
    let full = Arc::new(FullStore(MemoryStore::new(), AtomicBool::new(false)));
    let store = Arc::clone(&full) as Arc<dyn Store>;
    let fill = Arc::clone(&full);
    let first_time = AtomicBool::new(true);
    let script = Script::new(move |_, step| {
        if step == "b" && first_time.swap(false, Ordering::AcqRel) {
            fill.1.store(true, Ordering::Release);
        }
        Ok(Value::Null)
    });
    let engine = engine(&store, &script);
    let id = engine.submit(submission().subject("m1")).unwrap();
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(status.state, State::Parked);
    let error = status.error.unwrap();
    assert_eq!(error.id, ids::STORE_FAILED);
    assert!(error.message.contains("no space left"), "{error}");
    let refused = engine.submit(submission().subject("m2")).unwrap_err();
    assert_eq!((refused.kind(), engine.busy("m2")), (SubmitErrorKind::Store, None));
    assert_eq!(engine.cancel(id).unwrap_err().kind(), CancelErrorKind::Store);

    full.1.store(false, Ordering::Release);
    // The worker that parked it may not have let go of it yet.
    while engine.get(id).unwrap().state == State::Parked {
        engine.recover().unwrap();
        std::thread::yield_now();
    }
    assert_eq!(engine.wait(id, LONG).unwrap().state, State::Completed);
    assert_eq!(script.log(), ["a", "b", "b", "c"]);
    assert_eq!(engine.busy("m1"), None);
}

#[test]
fn progress_is_told_at_once_and_recorded_once_a_second() {
    let clock = Arc::new(ManualClock::new());
    let (gate, arrivals, go) = gate();
    let step_clock = Arc::clone(&clock);
    let script = Script::new(move |cx, step| {
        if step == "b" {
            for n in 1..=500_u64 {
                step_clock.advance(Duration::from_millis(10));
                cx.progress("copy", n, 1000);
            }
            gate.pass("b");
        }
        Ok(Value::Null)
    });
    let store = memory();
    let builder = Engine::builder(Arc::clone(&store)).register::<Scripted>(Arc::clone(&script)).clock(clock);
    let engine = builder.start().unwrap();
    let id = engine.submit(submission()).unwrap();
    arrivals.recv_timeout(LONG).unwrap();
    let status = engine.get(id).unwrap();
    assert_eq!((status.phase.as_str(), status.done_bytes, status.total_bytes), ("copy", 500, 1000));
    assert_eq!((status.rate, status.eta_seconds), (100, Some(5)));
    assert_eq!(status.percent, 10 + 80 / 2, "one part of ten done, half of eight");
    assert_eq!(status.step.as_deref(), Some("b"));
    let checkpoint = store.get(&format!("job/{id}/checkpoint")).unwrap().unwrap();
    // Meta, two events of a, one of b, and a checkpoint in each of the five seconds.
    assert_eq!(checkpoint.revision, 4 + 5);
    let read: Value = serde_json::from_slice(&checkpoint.value).unwrap();
    assert_eq!(read["progress"]["done"], 401);
    go.send(()).unwrap();
    engine.wait(id, LONG).unwrap();
}

#[test]
fn changes_are_numbered() {
    let (gate, arrivals, go) = gate();
    let script = Script::new(move |_, step| {
        gate.pass(step);
        Ok(Value::Null)
    });
    let engine = engine(&memory(), &script);
    assert_eq!(engine.changes(0, Duration::ZERO).jobs, []);
    let id = engine.submit(submission()).unwrap();
    let mut watcher = engine.watch(id);
    let mut seen = engine.changes(0, LONG).generation;
    for step in ["a", "b", "c"] {
        assert_eq!(arrivals.recv_timeout(LONG).unwrap(), step);
        let status = watcher.next_timeout(LONG).unwrap();
        assert_eq!(status.step.as_deref(), Some(step));
        assert_eq!(watcher.next_timeout(Duration::ZERO), None, "nothing new");
        go.send(()).unwrap();
        let changes = engine.changes(seen, LONG);
        assert!(changes.generation > seen);
        assert_eq!(changes.jobs.iter().map(|status| status.id).collect::<Vec<_>>(), [id]);
        seen = changes.generation;
    }
    let status = engine.wait(id, LONG).unwrap();
    assert_eq!(engine.watch(id).next_timeout(LONG).unwrap(), status, "a late watcher sees the end");
    assert_eq!(engine.watch(JobId::random()).next_timeout(LONG), None);
}

#[test]
fn ends_and_durations_are_counted() {
    let clock = Arc::new(ManualClock::new());
    let step_clock = Arc::clone(&clock);
    let script = Script::new(move |cx, step| {
        step_clock.advance(Duration::from_secs(cx.params()["seconds"].as_u64().unwrap_or(0)));
        if step == "c" && cx.params()["fails"] == true { fails("broken") } else { Ok(Value::Null) }
    });
    let store = memory();
    let start = || {
        let builder = Engine::builder(Arc::clone(&store)).register::<Scripted>(Arc::clone(&script));
        builder.clock(Arc::clone(&clock) as Arc<dyn Clock>).start().unwrap()
    };
    let engine = start();
    let count = |engine: &Engine, end| {
        let all = engine.ended();
        all.into_iter().find(|e| e.kind == "scripted" && e.end == end).unwrap()
    };
    assert_eq!(count(&engine, State::Cancelled).count, 0, "nothing has ended, and that is told");
    for params in [json!({"seconds": 1}), json!({"seconds": 100}), json!({"fails": true})] {
        let id = engine.submit(Submission::<Scripted>::new(params)).unwrap();
        engine.wait(id, LONG).unwrap();
    }
    let completed = count(&engine, State::Completed);
    assert_eq!((completed.count, completed.seconds), (2, 303.0));
    // 3 s and 300 s: each class holds those before it, and its own end.
    assert_eq!(completed.within, [0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
    let failed = count(&engine, State::Failed);
    assert_eq!((failed.count, failed.seconds, failed.within[0]), (1, 0.0, 1));
    drop(engine);
    assert_eq!(count(&start(), State::Completed).count, 0, "counted since the start");
}

#[test]
fn finished_jobs_are_kept_until_pruned() {
    let clock = Arc::new(ManualClock::new());
    let store = memory();
    let script = Script::new(|cx, _| {
        cx.checkpoint(&1)?;
        Ok(Value::Null)
    });
    let start = || {
        let builder = Engine::builder(Arc::clone(&store)).register::<Scripted>(Arc::clone(&script));
        builder.clock(Arc::clone(&clock) as Arc<dyn Clock>).start().unwrap()
    };
    let engine = start();
    let old = engine.submit(submission().owner("me")).unwrap();
    engine.wait(old, LONG).unwrap();
    clock.advance(Duration::from_secs(300));
    let young = engine.submit(submission()).unwrap();
    engine.wait(young, LONG).unwrap();
    drop(engine);

    let engine = start();
    assert_eq!(
        engine.list(&Filter::default()).iter().map(|status| status.id).collect::<Vec<_>>(),
        [old, young]
    );
    let mine = Filter { owner: Some("me".into()), kind: Some("scripted".into()), ..Filter::default() };
    assert_eq!(engine.list(&mine).len(), 1);
    assert_eq!(engine.prune(Duration::from_secs(301)).unwrap(), 0);
    assert_eq!(engine.prune(Duration::from_secs(300)).unwrap(), 1);
    assert_eq!(engine.get(old), None);
    assert_eq!(engine.wait(old, LONG), None);
    drop(engine);

    // A removal that died half way: the metadata is gone, some events are left.
    let _ = store.txn(&Txn::new().delete(format!("job/{young}/meta"))).unwrap();
    let engine = start();
    assert_eq!(engine.list(&Filter::default()), []);
    assert_eq!(store.range("job/", None, 10).unwrap(), [], "the rest is swept");
}

#[test]
fn wrong_kinds_are_refused_at_start() {
    struct Wrong<const N: u8>;
    impl<const N: u8> Wrong<N> {
        fn look(_: &mut Context<'_, Self>) -> Result<(), Failure> {
            Ok(())
        }
    }
    impl<const N: u8> Kind for Wrong<N> {
        const NAME: &'static str = if N == 0 { "Wrong Name" } else { "wrong" };
        const VERSION: u32 = if N == 1 { 0 } else { 1 };
        type Params = ();
        type World = ();
        fn steps() -> Steps<Self> {
            match N {
                2 => Steps::new(),
                3 => Steps::new().step_without_undo("x", |_| Ok(())).step_without_undo("x", |_| Ok(1)),
                4 => Steps::new().step_without_undo("x", Self::look).step_without_undo("y", Self::look),
                _ => Steps::new().step_without_undo("x", Self::look),
            }
        }
    }
    fn refused(builder: Builder) -> String {
        let error = builder.start().err().unwrap();
        assert_eq!(std::error::Error::source(&error).map(|_| ()), Some(()));
        Failure::from_error("", &error).message
    }
    let builder = || Engine::builder(memory());
    let world = || Arc::new(());
    assert!(refused(builder().register::<Wrong<0>>(world())).contains("letters"));
    assert!(refused(builder().register::<Wrong<1>>(world())).contains("version is 0"));
    assert!(refused(builder().register::<Wrong<2>>(world())).contains("0 steps"));
    assert!(refused(builder().register::<Wrong<3>>(world())).contains("two steps are called"));
    assert!(refused(builder().register::<Wrong<4>>(world())).contains("same function"));
    assert!(refused(builder().register::<Wrong<5>>(world()).register::<Wrong<5>>(world())).contains("twice"));
    let engine = builder().start().unwrap();
    assert_eq!(
        engine.submit(Submission::<Wrong<5>>::new(())).unwrap_err().kind(),
        SubmitErrorKind::UnknownKind
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// A step fails, an undo fails, the engine dies some writes in, again and again, somebody cancels in between: the
    /// job ends as the model says, and each step's undo comes after everything that was run after it.
    #[test]
    fn the_engine_agrees_with_the_model(
        failing in prop::option::of(0..3_usize),
        glued in prop::option::of(0..3_usize),
        deaths in prop::collection::vec(0..12_u64, 0..4),
        cancel_after in prop::option::of(0..4_usize),
    ) {
        let names = ["a", "b", "c"];
        let index = move |step: &str| names.iter().position(|name| *name == step);
        let script = Script::with_undo(
            move |_, step| if index(step) == failing { fails("broken") } else { Ok(json!(step)) },
            move |_, step, _| if index(step) == glued { Err(Failure::new("glued", "glued")) } else { Ok(()) },
        );
        let store = memory();
        let stopped = || Faults { stopped: true, ..Faults::default() };
        let offline = || {
            let builder = Engine::builder(Arc::clone(&store)).register::<Scripted>(Arc::clone(&script));
            builder.faults(stopped()).start().unwrap()
        };
        // Written without an engine, so that nothing has run yet.
        let id = JobId::random();
        let meta = Meta {
            format: journal::FORMAT, kind: "scripted".into(), version: 3, steps: names.map(String::from).to_vec(),
            params: json!({}), subject: None, owner: String::new(), submitted: ManualClock::new().now(),
        };
        Journal::create(&*store, id, meta).unwrap();

        let mut cancelled = false;
        for (round, writes) in deaths.iter().enumerate() {
            if cancel_after == Some(round) {
                cancelled = offline().cancel(id).is_ok();
            }
            let cut = Arc::new(crate::proofs::double::CutStore::new(Arc::clone(&store), *writes));
            let engine = engine(&(cut as Arc<dyn Store>), &script);
            engine.wait(id, LONG).unwrap();
        }
        let engine = engine(&store, &script);
        let status = engine.wait(id, LONG).unwrap();

        let last = failing.unwrap_or(2);
        let started = script.log().iter().filter_map(|entry| index(entry)).max();
        let sticks = glued.is_some_and(|glued| Some(glued) <= started);
        let expected = match (cancelled, failing) {
            (true, _) if !sticks => State::Cancelled,
            (true, _) | (false, Some(_)) => State::Failed,
            (false, None) => State::Completed,
        };
        prop_assert_eq!(status.state, expected);
        prop_assert_eq!(status.stuck.is_some(), sticks && expected == State::Failed);
        prop_assert!(started <= Some(last));
        // Runs go up, undos go down, and no run comes after the first undo; repeats are allowed.
        let positions: Vec<i32> = script.log().iter().map(|entry| match entry.strip_prefix("undo ") {
            None => index(entry).unwrap() as i32,
            Some(undo) => 10 - index(&undo[..1]).unwrap() as i32,
        }).collect();
        prop_assert!(positions.is_sorted(), "{:?}", script.log());
    }
}
