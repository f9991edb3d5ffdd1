//! The fold against examples and against the same rules in another shape.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn failure(id: &str) -> Failure {
    Failure::new(id, id)
}

fn started(step: usize) -> Event {
    Event::StepStarted { step }
}
fn succeeded(step: usize) -> Event {
    Event::StepSucceeded { step, output: json!(step), warnings: Vec::new() }
}
fn failed(step: usize) -> Event {
    Event::StepFailed { step, failure: failure("broken"), warnings: Vec::new() }
}
fn undo_started(step: usize) -> Event {
    Event::UndoStarted { step }
}
fn undone(step: usize) -> Event {
    Event::UndoSucceeded { step, warnings: Vec::new() }
}
fn undo_failed(step: usize) -> Event {
    Event::UndoFailed { step, failure: failure("glued"), warnings: Vec::new() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn fold(steps: usize, events: &[Event]) -> Fold {
    let mut fold = Fold::new(steps);
    for (second, event) in events.iter().enumerate() {
        fold.apply(at(second as i64), event).unwrap();
    }
    fold
}

#[test]
fn a_job_that_succeeds() {
    let fold = fold(2, &[started(0), succeeded(0), started(1), succeeded(1)]);
    assert_eq!(fold.state(), State::Completed);
    assert_eq!((fold.started(), fold.finished()), (Some(at(0)), Some(at(3))));
    assert_eq!(fold.outputs(), [Some(json!(0)), Some(json!(1))]);
    assert_eq!(fold.error(), None);
}

#[test]
fn a_warning_colours_success() {
    let warned = Event::StepSucceeded {
        step: 0,
        output: json!(null),
        warnings: vec![Warning::new("slow", "it was slow")],
    };
    assert_eq!(fold(1, &[started(0), warned]).state(), State::CompletedWithWarnings);
}

#[test]
fn a_failure_is_undone_from_the_failed_step_back() {
    let mut fold = fold(3, &[started(0), succeeded(0), started(1), failed(1)]);
    assert_eq!(fold.state(), State::Undoing);
    for step in [1, 0] {
        assert_eq!(fold.next(), Next::Undo(step, UndoReason::Failed));
        fold.apply(at(9), &undo_started(step)).unwrap();
        assert_eq!(fold.next(), Next::Undo(step, UndoReason::Failed), "again, after a crash");
        fold.apply(at(9), &undone(step)).unwrap();
    }
    assert_eq!(fold.state(), State::Failed);
    assert_eq!(fold.error().unwrap().id, "broken");
    assert_eq!(fold.stuck(), None);
}

#[test]
fn an_undo_that_fails_ends_the_job() {
    let fold = fold(2, &[started(0), succeeded(0), started(1), failed(1), undo_started(1), undo_failed(1)]);
    assert_eq!(fold.next(), Next::Finished(State::Failed));
    assert_eq!(fold.stuck().unwrap().0, 1);
    assert_eq!(fold.error().unwrap().id, "broken", "the first failure is the cause");
}

#[test]
fn a_cancel_before_the_first_step_ends_the_job() {
    let fold = fold(2, &[Event::CancelRequested]);
    assert_eq!(fold.state(), State::Cancelled);
    assert_eq!(fold.finished(), Some(at(0)));
}

#[test]
fn a_cancel_waits_for_the_step_and_undoes_it() {
    let mut fold = fold(2, &[started(0), succeeded(0), started(1), Event::CancelRequested]);
    assert_eq!(fold.state(), State::Running, "its step still runs");
    assert_eq!(fold.next(), Next::Undo(1, UndoReason::Cancelled));
    // The step came to its end all the same: that does not complete a cancelled job.
    fold.apply(at(5), &succeeded(1)).unwrap();
    assert_eq!(fold.next(), Next::Undo(1, UndoReason::Cancelled));
    assert_eq!(fold.state(), State::Undoing);
}

#[test]
fn an_undo_that_fails_after_a_cancel_is_a_failure() {
    let fold = fold(1, &[started(0), Event::CancelRequested, undo_started(0), undo_failed(0)]);
    assert_eq!(fold.state(), State::Failed);
    assert_eq!(fold.error().unwrap().id, "glued");
}

#[test]
fn events_read_back_as_written() {
    for event in
        [started(1), succeeded(1), failed(1), Event::CancelRequested, undo_failed(0), Event::Discarded]
    {
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event, "{json}");
    }
    // The journal's words are on disk in every installation: changing one is a new format.
    assert_eq!(
        serde_json::to_string(&succeeded(1)).unwrap(),
        r#"{"event":"step_succeeded","step":1,"output":1}"#
    );
    assert!(serde_json::from_str::<Event>(r#"{"event":"teleported"}"#).is_err());
}

/// The same rules in another shape: steps are a line, so a position and a direction say it all.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Forward {
        step: usize,
        running: bool,
    },
    /// Cancelled while the step ran, which has not ended yet.
    Stopping {
        step: usize,
    },
    Back {
        step: usize,
        undoing: bool,
        then: State,
    },
    Over(State),
}

impl Model {
    fn back(step: Option<usize>, then: State) -> Model {
        step.map_or(Model::Over(then), |step| Model::Back { step, undoing: false, then })
    }

    fn apply(&self, steps: usize, event: &Event) -> Option<Model> {
        use Model::{Back, Forward, Over, Stopping};
        Some(match (self.clone(), event) {
            (Over(_), _) => return None,
            (_, Event::Discarded) => Over(State::Failed),
            (Forward { step, running: false }, Event::StepStarted { step: s }) if *s == step => {
                Forward { step, running: true }
            }
            (Forward { step, running: true }, Event::StepSucceeded { step: s, .. }) if *s == step => {
                if step + 1 == steps {
                    Over(State::Completed)
                } else {
                    Forward { step: step + 1, running: false }
                }
            }
            (Forward { step, running: true }, Event::StepFailed { step: s, .. }) if *s == step => {
                Model::back(Some(step), State::Failed)
            }
            (Forward { step, running: true }, Event::CancelRequested) => Stopping { step },
            (Forward { step, running: false }, Event::CancelRequested) => {
                Model::back(step.checked_sub(1), State::Cancelled)
            }
            (Stopping { step }, Event::StepSucceeded { step: s, .. }) if *s == step => {
                Model::back(Some(step), State::Cancelled)
            }
            (Stopping { step }, Event::UndoStarted { step: s }) if *s == step => {
                Back { step, undoing: true, then: State::Cancelled }
            }
            (Back { step, undoing: false, then }, Event::UndoStarted { step: s }) if *s == step => {
                Back { step, undoing: true, then }
            }
            (Back { step, undoing: true, then }, Event::UndoSucceeded { step: s, .. }) if *s == step => {
                Model::back(step.checked_sub(1), then)
            }
            (Back { step, undoing: true, .. }, Event::UndoFailed { step: s, .. }) if *s == step => {
                Over(State::Failed)
            }
            _ => return None,
        })
    }

    fn state(&self) -> State {
        match self {
            Model::Forward { step: 0, running: false } => State::Queued,
            Model::Forward { .. } | Model::Stopping { .. } => State::Running,
            Model::Back { .. } => State::Undoing,
            Model::Over(state) => *state,
        }
    }
}

fn any_event(steps: usize) -> impl Strategy<Value = Event> {
    // One step beyond the last, too.
    (0..=steps, 0..16_u8).prop_map(|(step, which)| match which {
        0..=3 => started(step),
        4..=7 => succeeded(step),
        8 => failed(step),
        9 => Event::CancelRequested,
        10..=11 => undo_started(step),
        12..=13 => undone(step),
        14 => undo_failed(step),
        _ => Event::Discarded,
    })
}

proptest! {
    /// Whatever comes, legal or not, the fold and the model agree on what is legal and where it leads, and an illegal
    /// event changes nothing.
    #[test]
    fn the_fold_agrees_with_the_model(steps in 1..4_usize, events in prop::collection::vec(any_event(3), 0..400)) {
        let (mut fold, mut model) = (Fold::new(steps), Model::Forward { step: 0, running: false });
        for event in events {
            let before = fold.clone();
            match model.apply(steps, &event) {
                Some(after) => {
                    prop_assert_eq!(fold.apply(at(0), &event), Ok(()));
                    model = after;
                }
                None => {
                    prop_assert!(fold.apply(at(0), &event).is_err(), "{event:?} in {model:?}");
                    prop_assert_eq!(&fold, &before);
                }
            }
            prop_assert_eq!(fold.state(), model.state());
            prop_assert_eq!(fold.finished().is_some(), model.state().is_finished());
        }
    }

    /// Doing what `next` says always comes to an end, whatever fails on the way.
    #[test]
    fn next_leads_to_an_end(steps in 1..6_usize, outcomes in prop::collection::vec(0..10_u8, 0..40)) {
        let mut fold = Fold::new(steps);
        let mut outcomes = outcomes.into_iter().chain(std::iter::repeat(9));
        for _ in 0..4 * steps + 1 {
            let events = match fold.next() {
                Next::Finished(_) => break,
                Next::Run(step) => match outcomes.next() {
                    Some(0) => vec![started(step), failed(step)],
                    Some(1) => vec![Event::CancelRequested],
                    Some(2) => vec![started(step), Event::CancelRequested],
                    _ => vec![started(step), succeeded(step)],
                },
                Next::Undo(step, _) => match outcomes.next() {
                    Some(0) => vec![undo_started(step), undo_failed(step)],
                    _ => vec![undo_started(step), undone(step)],
                },
            };
            for event in events {
                prop_assert_eq!(fold.apply(at(0), &event), Ok(()));
            }
        }
        prop_assert!(fold.finished().is_some());
    }
}
