//! The proofs on a toy: a kind that is right passes all of them; each way of being wrong is caught by the proof that is
//! there for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::*;
use crate::{Context, Failure, Steps, UndoReason};

/// A disk with files, and what a process keeps in memory.
#[derive(Default)]
struct Disk {
    files: Mutex<BTreeMap<String, u64>>,
    memory: Mutex<BTreeSet<String>>,
}

/// Copies a file block by block under a temporary name, holding a lock file, and renames it at the end.
struct Copy<const FAULT: u8>;

const NONE: u8 = 0;
const RESERVES_ONCE: u8 = 1;
const UNDO_NEEDS_OUTPUT: u8 = 2;
const UNDO_ONCE: u8 = 3;
const TRUSTS_MEMORY: u8 = 4;
const NO_UNDO: u8 = 5;
const RESUMES_TOO_FAR: u8 = 6;
const KEEPS_ON_CANCEL: u8 = 7;
const PANICS_ON_RERUN: u8 = 8;

#[derive(Serialize, Deserialize)]
struct Params {
    name: String,
    blocks: u64,
}

#[derive(Serialize, Deserialize)]
struct Reserved {
    partial: String,
}

impl<const FAULT: u8> Kind for Copy<FAULT> {
    const NAME: &'static str = "copy";
    const VERSION: u32 = 1;
    type Params = Params;
    type World = Disk;

    fn steps() -> Steps<Self> {
        let steps = Steps::new().step("reserve", Self::reserve, Self::release);
        let steps = match FAULT {
            NO_UNDO => steps.step_without_undo("copy", Self::copy),
            _ => steps.step("copy", Self::copy, Self::remove),
        };
        steps.step("publish", Self::publish, Self::withdraw)
    }
}

impl<const FAULT: u8> Copy<FAULT> {
    fn reserve(cx: &mut Context<'_, Self>) -> Result<Reserved, Failure> {
        let mut files = cx.world().files.lock().unwrap();
        let taken = FAULT == RESERVES_ONCE && files.contains_key("lock");
        files.insert(if taken { "lock2" } else { "lock" }.into(), 1);
        cx.world().memory.lock().unwrap().insert("reserved".into());
        Ok(Reserved { partial: format!("{}.partial", cx.params().name) })
    }

    fn release(cx: &mut Context<'_, Self>, _: UndoReason) -> Result<(), Failure> {
        let gone = cx.world().files.lock().unwrap().remove("lock").is_none();
        if FAULT == UNDO_ONCE && gone {
            return Err(Failure::new("toy", "the lock is gone"));
        }
        Ok(())
    }

    fn copy(cx: &mut Context<'_, Self>) -> Result<u64, Failure> {
        let reserved: Reserved = cx.output(Self::reserve)?;
        if FAULT == TRUSTS_MEMORY && !cx.world().memory.lock().unwrap().contains("reserved") {
            return Err(Failure::new("toy", "nothing is reserved"));
        }
        let mut next = cx.restore::<u64>()?.unwrap_or(0);
        if next == 0 {
            let old = cx.world().files.lock().unwrap().insert(reserved.partial.clone(), 0);
            assert!(FAULT != PANICS_ON_RERUN || old.is_none(), "there is a file already");
        }
        while next < cx.params().blocks {
            cx.check_cancel()?;
            if cx.checkpoint_due() {
                cx.checkpoint(&if FAULT == RESUMES_TOO_FAR { next + 1 } else { next })?;
            }
            let mut files = cx.world().files.lock().unwrap();
            let file = files.get_mut(&reserved.partial).unwrap();
            // Blocks after the checkpoint are written again: block n holds 2^n.
            *file |= 1 << next;
            next += 1;
            drop(files);
            cx.progress("copy", next, cx.params().blocks);
        }
        Ok(next)
    }

    fn remove(cx: &mut Context<'_, Self>, why: UndoReason) -> Result<(), Failure> {
        if FAULT == UNDO_NEEDS_OUTPUT && cx.try_output(Self::copy)?.is_none() {
            return Ok(());
        }
        if FAULT == KEEPS_ON_CANCEL && why == UndoReason::Cancelled {
            return Ok(());
        }
        if let Some(reserved) = cx.try_output(Self::reserve)? {
            cx.world().files.lock().unwrap().remove(&reserved.partial);
        }
        Ok(())
    }

    fn publish(cx: &mut Context<'_, Self>) -> Result<(), Failure> {
        let reserved: Reserved = cx.output(Self::reserve)?;
        let mut files = cx.world().files.lock().unwrap();
        if let Some(content) = files.remove(&reserved.partial) {
            files.insert(cx.params().name.clone(), content);
        }
        files.remove("lock");
        Ok(())
    }

    fn withdraw(cx: &mut Context<'_, Self>, _: UndoReason) -> Result<(), Failure> {
        cx.world().files.lock().unwrap().remove(&cx.params().name);
        Ok(())
    }
}

const BLOCKS: u64 = 9;

fn proof<const FAULT: u8>() -> Proof<'static, Copy<FAULT>> {
    let fresh = || (Arc::new(Disk::default()), Params { name: "disk".into(), blocks: BLOCKS });
    let check = |disk: &Disk, status: &Status| {
        let files = disk.files.lock().unwrap();
        let wanted = match status.state.is_success() {
            true => BTreeMap::from([("disk".to_owned(), (1 << BLOCKS) - 1)]),
            false => BTreeMap::new(),
        };
        if *files == wanted { Ok(()) } else { Err(format!("on disk: {files:?}")) }
    };
    Proof::new(fresh, check).reopen(|disk: Arc<Disk>| {
        disk.memory.lock().unwrap().clear();
        disk
    })
}

#[test]
fn a_kind_that_is_right_passes() {
    let report = all(&proof::<NONE>()).unwrap();
    // 9 looks; steps, journal events and checkpoints as they are: if this changes, moments went missing.
    assert!(report.runs > 80, "{report:?}");
}

fn caught<const FAULT: u8>(prove: fn(&Proof<'_, Copy<FAULT>>) -> Result<Report, Violation>, moment: &str) {
    let violation = prove(&proof::<FAULT>()).expect_err("the proof must catch this");
    assert!(violation.moment.contains(moment), "{violation}");
    all(&proof::<FAULT>()).expect_err("and so must all of them");
}

#[test]
fn a_step_that_must_run_only_once_is_caught() {
    caught::<RESERVES_ONCE>(each_step_twice, "twice");
    caught::<RESERVES_ONCE>(kill_at_each_step, "killed before the write after");
    let violation = stop_at_each_point(&proof::<PANICS_ON_RERUN>()).unwrap_err();
    assert!(violation.message.contains("there is a file already"), "{violation}");
    caught::<PANICS_ON_RERUN>(stop_at_each_point, "stopped at look 0");
}

#[test]
fn an_undo_that_relies_on_the_step_having_finished_is_caught() {
    caught::<UNDO_NEEDS_OUTPUT>(fail_at_each_step, "\"copy\" fails after it did everything");
    caught::<UNDO_NEEDS_OUTPUT>(cancel_at_each_point, "cancelled at look");
}

#[test]
fn an_undo_that_must_run_only_once_is_caught() {
    caught::<UNDO_ONCE>(fail_at_each_step, "\"reserve\" fails before it did anything");
    caught::<UNDO_ONCE>(kill_at_each_step, "killed");
}

#[test]
fn state_kept_only_in_memory_is_caught() {
    each_step_twice(&proof::<TRUSTS_MEMORY>()).unwrap();
    fail_at_each_step(&proof::<TRUSTS_MEMORY>()).unwrap();
    caught::<TRUSTS_MEMORY>(kill_at_each_step, "killed right after write");
}

#[test]
fn a_missing_undo_is_caught() {
    caught::<NO_UNDO>(fail_at_each_step, "\"copy\" fails");
}

#[test]
fn resume_state_that_runs_ahead_is_caught() {
    each_step_twice(&proof::<RESUMES_TOO_FAR>()).unwrap();
    stop_at_each_point(&proof::<RESUMES_TOO_FAR>()).unwrap();
    caught::<RESUMES_TOO_FAR>(kill_at_each_step, "killed right after write");
}

#[test]
fn leftovers_of_a_cancel_are_caught() {
    fail_at_each_step(&proof::<KEEPS_ON_CANCEL>()).unwrap();
    caught::<KEEPS_ON_CANCEL>(cancel_at_each_point, "cancelled at look");
}

#[test]
fn many_moments_are_spread_evenly() {
    let proof = proof::<NONE>().moments(5);
    let runs = Runs::new(&proof);
    assert_eq!(runs.spread(0, 4), [0, 1, 2, 3]);
    assert_eq!(runs.spread(1, 101), [1, 25, 50, 75, 100]);
}
