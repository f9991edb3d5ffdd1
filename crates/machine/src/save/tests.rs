//! The proofs of every job, for the save: whatever happens, the machine is saved whole, or its guest goes on as it was.

use std::cell::RefCell;
use std::sync::Arc;

use job::Status;
use job::proofs::{self, Proof};

use super::*;
use crate::settings::Generation;
use crate::support::{Lab, PATIENCE, blank, listing};

struct Stage {
    lab: Lab,
    id: Uuid,
    paused: bool,
}

const MEMORY: &str = "what the guest knew";

fn saved_or_as_it_was(stage: &Stage, status: &Status) -> std::result::Result<(), String> {
    let host = stage.lab.host();
    let view = host.machine(stage.id).map_err(|e| e.to_string())?;
    let home = listing(&view.record.home);
    let guest = stage.lab.sim.control(stage.id);
    let ensure = |right: bool, what: &str| {
        if right { Ok(()) } else { Err(format!("{what}: {} {home:?} {:?}", view.power, view.record.saved)) }
    };
    let Some(saved) = &view.record.saved else {
        let was = if stage.paused { PowerState::Paused } else { PowerState::Running };
        ensure(!status.state.is_success(), "it is not saved")?;
        ensure(view.power == was, "it is not what it was")?;
        ensure(view.record.wanted_running, "it is not wanted running any more")?;
        ensure(home.is_empty(), "there are files")?;
        return ensure(guest.is_some_and(|g| g.memory() == MEMORY), "the guest forgot");
    };
    ensure(status.state.is_success(), "it is saved")?;
    ensure(view.power == PowerState::Saved && guest.is_none(), "its guest is still there")?;
    ensure(!view.record.wanted_running, "it is still wanted running")?;
    ensure(home.len() == 1, "there are other files than the state")?;
    let (found, bytes) = digest(&view.record.home.join(&saved.file), &|| false).map_err(|e| e.to_string())?;
    ensure((&found, bytes) == (&saved.digest, saved.bytes), "the state is another")?;
    host.start(stage.id).map_err(|e| e.chain())?;
    let guest = stage.lab.sim.control(stage.id);
    ensure(guest.is_some_and(|g| g.memory() == MEMORY), "the guest forgot")
}

fn prove(paused: bool) {
    let stage: RefCell<Option<Stage>> = RefCell::new(None);
    let world = |lab: &Lab| Arc::new(World::of(lab.host()));
    let proof = Proof::<Save>::new(
        || {
            let lab = Lab::new();
            let id = lab.host().define(&blank("web", Generation::Two)).unwrap().record.id;
            lab.host().start(id).unwrap();
            lab.sim.control(id).unwrap().remember(MEMORY);
            if paused {
                lab.host().pause(id).unwrap();
            }
            let world = world(&lab);
            *stage.borrow_mut() = Some(Stage { lab, id, paused });
            (world, SaveParams { machine: id, host_stops: false })
        },
        |_, status| saved_or_as_it_was(stage.borrow().as_ref().unwrap(), status),
    )
    .reopen(|_| {
        let mut stage = stage.borrow_mut();
        let lab = &mut stage.as_mut().unwrap().lab;
        lab.reopen();
        world(lab)
    })
    .patience(PATIENCE);
    let report = proofs::all(&proof).unwrap();
    assert!(report.runs > 50, "{report:?}");
}

#[test]
fn a_running_machine_is_saved_or_runs_on() {
    prove(false);
}

#[test]
fn a_paused_machine_is_saved_or_stays_paused() {
    prove(true);
}
