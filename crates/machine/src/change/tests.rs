//! The proofs of every job, for changes that copy disks: whatever happens, a disk is a machine's or its file holds all of it.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use job::Status;
use job::proofs::{self, Proof};

use super::*;
use crate::settings::Generation;
use crate::support::{DYNAMIC, Lab, MIB, blank, content, listing, make_vhdx, read_image};

struct Stage {
    lab: Lab,
    id: Uuid,
}

impl Stage {
    fn file(&self) -> PathBuf {
        self.lab.path("files/a.vhdx")
    }

    fn new(bytes: &[u8]) -> Self {
        let lab = Lab::new();
        fs::create_dir(lab.path("files")).unwrap();
        make_vhdx(&lab.path("files/a.vhdx"), DYNAMIC, bytes);
        let id = Uuid::new_v4();
        Self { lab, id }
    }

    fn disk(&self) -> NewDisk {
        NewDisk::File { path: self.file(), format: None }
    }

    /// A machine whose guest wrote into the disk, and the disk.
    fn written(&self, after: &[u8]) -> Uuid {
        let host = self.lab.host();
        let request =
            DefineRequest { id: Some(self.id), disks: vec![self.disk()], ..blank("web", Generation::Two) };
        let view = host.define(&request).unwrap();
        host.start(self.id).unwrap();
        let layer = &view.disks[0].layers[0].path;
        fs::File::options().write(true).open(layer).unwrap().write_all_at(after, 0).unwrap();
        host.stop(self.id).unwrap();
        view.disks[0].id
    }

    /// What is wrong with what is there: each record has its file, each file its record, and nothing is half.
    fn problem(&self, before: &[u8], after: &[u8]) -> Option<String> {
        let files = listing(&self.lab.path("files"));
        let below = listing(&self.lab.path("data/machines"));
        let layers = below.iter().filter(|(name, _)| format!("{name:?}").contains(".raw")).count();
        let disks = self.lab.host().disks().unwrap();
        let named = self.lab.host().machine(self.id).map(|view| view.disks).unwrap_or_default();
        let held = read_image(&self.file());
        let report = vhdx::check(&self.file(), &vhdx::CheckOptions::default()).unwrap();
        let wrong = |what: &str| Some(format!("{what}: {files:?} {below:?} {disks:?}"));
        if files.len() != 1 {
            return wrong("there are other files than the disk's");
        }
        if !report.findings.is_empty() || (held != before && held != after) {
            return wrong("the file is neither the old one nor the new one");
        }
        if layers != disks.len() || disks != named || disks.len() > 1 {
            return wrong("records and files do not agree");
        }
        match disks.first() {
            Some(disk) if fs::read(&disk.layers[0].path).unwrap() != after => {
                wrong("the disk lost something")
            }
            None if held != after => wrong("the file lost something"),
            _ => None,
        }
    }
}

/// Proves a kind; `done` says what is wrong with a machine for which it succeeded.
fn prove<W: Word>(
    fresh: impl Fn() -> (Stage, Change),
    (before, after): (&[u8], &[u8]),
    done: impl Fn(&Stage) -> bool,
) {
    let stage: RefCell<Option<Stage>> = RefCell::new(None);
    let world = |lab: &Lab| Arc::new(World::of(lab.host()));
    let proof = Proof::<Changing<W>>::new(
        || {
            let (new, change) = fresh();
            let params = ChangeParams { machine: new.id, change };
            let world = world(&new.lab);
            *stage.borrow_mut() = Some(new);
            (world, params)
        },
        |_, status: &Status| {
            let stage = stage.borrow();
            let stage = stage.as_ref().unwrap();
            match stage.problem(before, after) {
                Some(problem) => Err(problem),
                None if status.state.is_success() && !done(stage) => Err("it is not done".to_owned()),
                None => Ok(()),
            }
        },
    )
    .reopen(|_| {
        let mut stage = stage.borrow_mut();
        let lab = &mut stage.as_mut().unwrap().lab;
        lab.reopen();
        world(lab)
    })
    .moments(8);
    let report = proofs::all(&proof).unwrap();
    assert!(report.runs > 40, "{report:?}");
}

#[test]
fn a_machine_made_with_a_file_has_all_of_it_or_is_not_there() {
    let bytes = content(1, 3 * MIB);
    prove::<Defining>(
        || {
            let stage = Stage::new(&bytes);
            let request = DefineRequest { disks: vec![stage.disk()], ..blank("web", Generation::Two) };
            (stage, Change::Define(Box::new(request)))
        },
        (&bytes, &bytes),
        |stage| stage.lab.host().machine(stage.id).is_ok_and(|view| view.disks.len() == 1),
    );
}

#[test]
fn a_file_is_taken_in_whole_or_not_at_all() {
    let bytes = content(1, 3 * MIB);
    prove::<Editing>(
        || {
            let stage = Stage::new(&bytes);
            let request = DefineRequest { id: Some(stage.id), ..blank("web", Generation::Two) };
            stage.lab.host().define(&request).unwrap();
            let edit = MachineEdit { add_disks: vec![stage.disk()], ..MachineEdit::default() };
            (stage, Change::Edit(Box::new(edit)))
        },
        (&bytes, &bytes),
        |stage| stage.lab.host().machine(stage.id).unwrap().disks.len() == 1,
    );
}

#[test]
fn what_a_guest_wrote_is_in_the_disk_or_in_the_file() {
    let before = content(1, 3 * MIB);
    let after = [&content(2, MIB)[..], &before[MIB as usize..]].concat();
    prove::<Editing>(
        || {
            let stage = Stage::new(&before);
            let disk = stage.written(&after[..MIB as usize]);
            let edit = MachineEdit { remove_disks: vec![disk], ..MachineEdit::default() };
            (stage, Change::Edit(Box::new(edit)))
        },
        (&before, &after),
        |stage| stage.lab.host().disks().unwrap().is_empty(),
    );
    prove::<Deleting>(
        || {
            let stage = Stage::new(&before);
            stage.written(&after[..MIB as usize]);
            (stage, Change::Delete { keep_disks: false })
        },
        (&before, &after),
        |stage| stage.lab.host().machine(stage.id).is_err(),
    );
}
