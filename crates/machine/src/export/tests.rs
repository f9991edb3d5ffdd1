//! The proofs of every job, for the export: whatever happens, a package is absent, `.partial`, or complete.

use std::cell::RefCell;
use std::fs;

use job::proofs::{self, Proof};
use job::{State, Status};
use transfer::verify::{self, VerifyOptions, verify};

use super::*;
use crate::settings::Generation;
use crate::support::{self, Lab, MIB, Package, content};

struct Stage {
    lab: Lab,
    id: Uuid,
}

impl Stage {
    fn target(&self) -> PathBuf {
        self.lab.path("out/web")
    }
}

fn absent_partial_or_complete(
    stage: &Stage,
    source: &Package,
    disks: &[Vec<u8>; 2],
    status: &Status,
) -> std::result::Result<(), String> {
    let target = stage.target();
    let there: Vec<_> = fs::read_dir(stage.lab.path("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let ensure = |right: bool, what: &str| if right { Ok(()) } else { Err(format!("{what}: {there:?}")) };
    let noted = stage.lab.host().statistics().unwrap().exports.iter().any(|e| e.at.is_some());
    match status.state {
        State::Cancelled => {
            ensure(!noted, "a cancelled export counts as a good one")?;
            return ensure(there.is_empty(), "a cancelled export left something");
        }
        State::Failed => {
            ensure(there.len() <= 1, "more than one thing is there")?;
            let partial = writer::partial_path(&target);
            if partial.exists() {
                let error = transfer::Package::open(&partial).err();
                ensure(
                    error.is_some_and(|e| e.reason() == transfer::package::NotPackage::Partial),
                    "a partial export can be taken for a package",
                )?;
                // The next one goes on with it.
                stage.lab.export(stage.id, "out/web");
            } else if !target.exists() {
                return Ok(());
            }
        }
        _ => {
            ensure(there == ["web"], "not exactly the package is there")?;
            ensure(noted, "a good export is not noted")?;
        }
    }
    let report = verify(&target, &VerifyOptions::default()).map_err(|e| e.to_string())?;
    ensure(report.is_good() && report.proof == verify::Proof::Content, &format!("{report:?}"))?;
    for (name, wanted) in ["system.vhdx", "data.vhdx"].into_iter().zip(disks) {
        let got = support::read_image(&target.join("Virtual Hard Disks").join(name));
        ensure(got == *wanted, "a disk has another content")?;
    }
    let configuration = |dir: &Path| fs::read(support::member(dir, source.id, "vmcx")).unwrap();
    ensure(configuration(&target) == configuration(&source.dir), "the configuration changed")
}

#[test]
fn an_export_that_is_withdrawn_leaves_the_one_before() {
    let lab = Lab::new();
    let host = lab.host();
    let (machine, first, second) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let last = || host.export_notes().unwrap().into_iter().find_map(|note| note.last);
    host.note_export(machine, first).unwrap();
    let before = last();
    assert!(before.is_some());
    host.note_export(machine, first).unwrap();
    assert_eq!(last(), before, "noted once");
    host.note_export(machine, second).unwrap();
    assert_ne!(last(), before);
    for _ in 0..2 {
        host.withdraw_export(machine, second).unwrap();
        assert_eq!(last(), before);
    }
    host.withdraw_export(machine, first).unwrap();
    assert_eq!(last(), None);
}

#[test]
fn an_export_is_absent_partial_or_complete() {
    let _forks = support::no_forks();
    let shared = support::scratch();
    let disks = [content(1, 5 * MIB), content(2, 2 * MIB)];
    let source = Package::new(shared.path().join("package"), Generation::Two)
        .vhdx("system.vhdx", &disks[0])
        .vhdx("data.vhdx", &disks[1])
        .write();
    let stage: RefCell<Option<Stage>> = RefCell::new(None);
    let world = |lab: &Lab| std::sync::Arc::new(World::of(lab.host()));
    let proof = Proof::<Export>::new(
        || {
            let lab = Lab::new();
            let id = lab.import(&source.request()).record.id;
            fs::create_dir(lab.path("out")).unwrap();
            let world = world(&lab);
            let fresh = Stage { lab, id };
            let target = fresh.target();
            let request = ExportRequest::new(target.clone());
            *stage.borrow_mut() = Some(fresh);
            (world, ExportParams { machine: id, request, target })
        },
        |_, status| absent_partial_or_complete(stage.borrow().as_ref().unwrap(), &source, &disks, status),
    )
    .reopen(|_| {
        let mut stage = stage.borrow_mut();
        let lab = &mut stage.as_mut().unwrap().lab;
        lab.reopen();
        world(lab)
    })
    .moments(12);
    let report = proofs::all(&proof).unwrap();
    assert!(report.runs > 60, "{report:?}");
}
