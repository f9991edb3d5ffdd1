//! The proofs of every job, for the import: whatever happens, there is a whole machine, or the planned one as it was.

use std::cell::RefCell;
use std::fs;

use job::Status;
use job::proofs::{self, Proof};

use super::*;
use crate::planned::ImportRequest;
use crate::settings::Generation;
use crate::support::{Lab, MIB, Package, content, listing};
use crate::switch::SwitchTarget;

/// A planned machine on a host of its own.
struct Stage {
    lab: Lab,
    id: Uuid,
    plan: PlannedRecord,
}

/// What all runs read and none writes.
struct Source {
    package: Package,
    disks: [Vec<u8>; 2],
}

impl Source {
    fn new(dir: &Path) -> Self {
        let disks = [content(1, 5 * MIB), content(2, 2 * MIB)];
        let package = Package::new(dir.join("package"), Generation::Two)
            .vhdx("system.vhdx", &disks[0])
            .vhdx("data.vhdx", &disks[1])
            .adapter("Outside")
            .write();
        Self { package, disks }
    }
}

fn clean_or_whole(stage: &Stage, source: &Source, status: &Status) -> Result<(), String> {
    let host = stage.lab.host();
    let below = listing(&stage.lab.path("data/machines"));
    let to = listing(&stage.lab.path("to"));
    let switches: Vec<_> = host.switches().unwrap().into_iter().map(|s| s.name).collect();
    let ensure =
        |right: bool, what: &str| if right { Ok(()) } else { Err(format!("{what}: {below:?} {to:?}")) };
    if !status.state.is_success() {
        ensure(host.machine(stage.id).is_err(), "there is a machine")?;
        ensure(host.disks().unwrap().is_empty(), "there are disk records")?;
        ensure(below.is_empty() && to.is_empty(), "there are files")?;
        ensure(switches == ["nat"], "a switch was made")?;
        let kept = host.planned_record(stage.id).map_err(|e| e.to_string())?.0;
        return ensure(kept == stage.plan, "the planned machine changed");
    }
    let view = host.machine(stage.id).map_err(|e| e.to_string())?;
    ensure(host.planned().unwrap().is_empty(), "the planned machine is still there")?;
    ensure(switches == ["br0", "nat"], "the switch is missing")?;
    let files = [&below, &to].into_iter().flatten().filter(|(_, what)| *what != "directory").count();
    ensure(files == 2, "there are other files than the disks'")?;
    for (disk, wanted) in view.disks.iter().zip(&source.disks) {
        let leaf = disk.leaf().map(|l| l.path.clone()).unwrap_or_default();
        match stage.plan.request.mode {
            ImportMode::Copy => {
                ensure(fs::read(&leaf).is_ok_and(|b| b == *wanted), "a disk has another content")?;
            }
            ImportMode::Register => {
                ensure(disk.layers.len() == 2 && leaf.exists(), "a disk has no overlay")?;
            }
        }
    }
    ensure(view.disks.len() == 2, "a disk is missing")
}

fn prove(change: impl Fn(&Lab, &mut ImportRequest), moments: u64) -> proofs::Report {
    let shared = crate::support::scratch();
    let source = Source::new(shared.path());
    let before = listing(shared.path());
    let stage: RefCell<Option<Stage>> = RefCell::new(None);
    let world = |lab: &Lab| Arc::new(World::of(lab.host()));
    let proof = Proof::<Realize>::new(
        || {
            let lab = Lab::new();
            fs::create_dir(lab.path("to")).unwrap();
            let mut request = source.package.request();
            let target = SwitchTarget { target: "br0".into(), vlan: None };
            request.switches.insert("Outside".into(), target);
            change(&lab, &mut request);
            let plan = lab.host().import(&request).unwrap().record;
            let world = world(&lab);
            let id = plan.id;
            *stage.borrow_mut() = Some(Stage { lab, id, plan });
            (world, RealizeParams { planned: id })
        },
        |_, status| clean_or_whole(stage.borrow().as_ref().unwrap(), &source, status),
    )
    .reopen(|_| {
        let mut stage = stage.borrow_mut();
        let lab = &mut stage.as_mut().unwrap().lab;
        lab.reopen();
        world(lab)
    })
    .moments(moments);
    let report = proofs::all(&proof).unwrap();
    assert_eq!(listing(shared.path()), before, "the package was written");
    report
}

#[test]
fn a_copying_import_is_whole_or_not_there() {
    let report = prove(|_, _| {}, 12);
    assert!(report.runs > 100, "{report:?}");
}

#[test]
fn an_import_to_another_directory_is_whole_or_not_there() {
    prove(|lab, request| request.to = Some(lab.path("to")), 4);
}

#[test]
fn a_registering_import_is_whole_or_not_there() {
    let _forks = crate::support::no_forks();
    if !crate::support::has_qemu() {
        return;
    }
    prove(|_, request| request.mode = ImportMode::Register, 3);
}

/// An export of 2008 on a host of its own, and its configuration under both names.
fn first(lab: &Lab) -> (Package, [PathBuf; 2]) {
    let package = Package::new(lab.path("package"), Generation::One).vhdx("web.vhdx", &content(1, 2 * MIB));
    let package = package.write();
    let tree = vmcx::read_file(&package.member("vmcx")).unwrap().tree;
    fs::write(package.member("exp"), vmcx::write_xml(&tree).unwrap()).unwrap();
    fs::write(package.dir.join("config.xml"), "<export/>").unwrap();
    for gone in ["vmcx", "VMRS"] {
        fs::remove_file(package.member(gone)).unwrap();
    }
    let names = [package.member("exp"), package.member("xml")];
    (package, names)
}

/// It has a machine's name exactly when there is that machine, wherever the import dies, fails or is cancelled.
fn prove_adopting(at_once: bool) {
    let stage: RefCell<Option<(Stage, [PathBuf; 2])>> = RefCell::new(None);
    let proof = Proof::<Realize>::new(
        || {
            let lab = Lab::new();
            let (package, names) = first(&lab);
            let request =
                ImportRequest { mode: ImportMode::Register, adopt: true, at_once, ..package.request() };
            let plan = lab.host().keep(&request, lab.host().look(&request).unwrap()).unwrap();
            let (world, id) = (Arc::new(World::of(lab.host())), plan.id);
            *stage.borrow_mut() = Some((Stage { lab, id, plan }, names));
            (world, RealizeParams { planned: id })
        },
        |_, status| {
            let stage = stage.borrow();
            let (stage, [exported, live]) = stage.as_ref().unwrap();
            let host = stage.lab.host();
            let planned = host.planned_record(stage.id).is_ok();
            let made = status.state.is_success();
            // Cancelled before it began, it had no step to undo: the next import of that id, or start, drops the rest.
            let kept = !made && (!at_once || status.started.is_none());
            let right = host.machine(stage.id).is_ok() == made
                && planned == kept
                && host.planned().unwrap().is_empty() != (planned && !at_once)
                && (exported.exists(), live.exists()) == (!made, made)
                && listing(&stage.lab.path("data/machines")).is_empty() != made;
            if right { Ok(()) } else { Err(format!("{status:?}: planned {planned}")) }
        },
    );
    // A host that opens drops imports whose job is not its own, which is right everywhere but here.
    let proof = if at_once {
        proof
    } else {
        proof.reopen(|_| {
            let mut stage = stage.borrow_mut();
            let lab = &mut stage.as_mut().unwrap().0.lab;
            lab.reopen();
            Arc::new(World::of(lab.host()))
        })
    };
    proofs::all(&proof.moments(4)).unwrap();
}

#[test]
fn an_export_is_called_a_machines_when_it_is_one() {
    let _forks = crate::support::no_forks();
    if crate::support::has_qemu() {
        prove_adopting(false);
    }
}

#[test]
fn an_import_in_one_go_leaves_no_plan() {
    let _forks = crate::support::no_forks();
    if crate::support::has_qemu() {
        prove_adopting(true);
    }
}

#[test]
fn an_import_in_one_go_that_did_not_begin_is_gone_at_the_next_start() {
    let mut lab = Lab::new();
    let (package, [exported, _]) = first(&lab);
    let request = ImportRequest { at_once: true, adopt: true, ..package.request() };
    let plan = lab.host().keep(&request, lab.host().look(&request).unwrap()).unwrap();
    assert!(lab.host().planned().unwrap().is_empty(), "nobody sees it");
    assert!(lab.host().planned_machine(plan.id).is_err());
    lab.reopen();
    assert!(lab.host().planned_record(plan.id).is_err());
    assert!(exported.exists());
}
