//! Machines made here: their disks, those that the user brought, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use machine::define::{AdapterEdit, DefineRequest, MachineEdit, NewDisk};
use machine::disk::DiskFormat;
use machine::planned::ImportRequest;
use machine::settings::{Generation, Hardware};
use machine::{Reason, Result};
use support::{Lab, MIB, blank, content, files, has_qemu, leaf};
use uuid::Uuid;

fn empty(size: u64) -> NewDisk {
    NewDisk::Empty { size, sector: 0 }
}

fn file(path: impl Into<std::path::PathBuf>) -> NewDisk {
    NewDisk::File { path: path.into(), format: None }
}

fn with_disks(lab: &Lab, disks: Vec<NewDisk>) -> Result<machine::MachineView> {
    lab.host().define(&DefineRequest { disks, ..blank("web", Generation::Two) })
}

/// A qcow2 file with `size` bytes of nothing.
fn qcow2(path: &std::path::Path, size: u64) {
    engine::image::create_qcow2(path, size, None).unwrap();
}

#[test]
fn a_users_disks_are_used_where_they_are_and_stay() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let bytes = content(1, 3 * MIB);
    fs::write(lab.path("disk.img"), &bytes).unwrap();
    qcow2(&lab.path("disk.qcow2"), 5 * MIB);
    symlink(lab.path("disk.img"), lab.path("link.img")).unwrap();
    let disks = vec![file(lab.path("link.img")), file(lab.path("disk.qcow2")), empty(MIB)];
    let machine = with_disks(&lab, disks).unwrap();
    let id = machine.record.id;
    assert_eq!(leaf(&machine, 0), fs::canonicalize(lab.path("disk.img")).unwrap());
    let sizes: Vec<_> = machine.disks.iter().map(|d| d.virtual_size).collect();
    assert_eq!(sizes, [3 * MIB, 5 * MIB, MIB]);
    lab.host().start(id).unwrap();
    lab.host().stop(id).unwrap();
    let out = lab.export(id, "out");
    let names = ["disk.vhdx", "web.vhdx"].map(|n| out.join("Virtual Hard Disks").join(n));
    assert_eq!(support::read_image(&names[0]), bytes);
    assert_eq!(support::read_image(&names[1]).len() as u64, MIB);

    let kept = lab.host().delete(id, false).unwrap();
    assert_eq!(kept, [leaf(&machine, 0), leaf(&machine, 1)]);
    assert_eq!(fs::read(lab.path("disk.img")).unwrap(), bytes);
    assert!(lab.path("disk.qcow2").exists() && !leaf(&machine, 2).exists());
    assert!(files(&lab.path("data/machines")).is_empty());
    // And can be a machine's again.
    with_disks(&lab, vec![file(lab.path("disk.img"))]).unwrap();
}

#[test]
fn a_disk_has_one_user() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let path = lab.path("disk.img");
    fs::write(&path, content(1, MIB)).unwrap();
    let reason = |disks| with_disks(&lab, disks).unwrap_err().reason();

    // Open in another process, under whatever name.
    fs::hard_link(&path, lab.path("other.img")).unwrap();
    for name in ["disk.img", "other.img"] {
        let mut other = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(File::open(lab.path(name)).unwrap()))
            .spawn()
            .unwrap();
        let error = with_disks(&lab, vec![file(&path)]).unwrap_err();
        assert_eq!(error.reason(), Reason::InUse);
        assert!(error.to_string().contains(&other.id().to_string()), "{error}");
        other.kill().unwrap();
        other.wait().unwrap();
    }
    assert_eq!(reason(vec![file(&path), file(&path)]), Reason::InvalidArgument);
    assert_eq!(reason(vec![file(&path), file(lab.path("other.img"))]), Reason::InvalidArgument);
    let machine = with_disks(&lab, vec![file(&path)]).unwrap();
    assert_eq!(reason(vec![file(&path)]), Reason::InUse);
    assert_eq!(reason(vec![file(lab.path("other.img"))]), Reason::InUse);
    assert_eq!(reason(vec![file(leaf(&machine, 0))]), Reason::InUse);
    let another = with_disks(&lab, vec![]).unwrap().record.id;
    let edit = MachineEdit { add_disks: vec![file(&path)], ..MachineEdit::default() };
    assert_eq!(lab.host().edit(another, &edit).unwrap_err().reason(), Reason::InUse);
    // Detached it is free, and still there.
    let edit = MachineEdit { remove_disks: vec![machine.disks[0].id], ..MachineEdit::default() };
    assert!(lab.host().edit(machine.record.id, &edit).unwrap().disks.is_empty());
    assert!(path.exists());
    with_disks(&lab, vec![file(&path)]).unwrap();
    assert_eq!(lab.host().disks().unwrap().len(), 1);
}

#[test]
fn two_at_once_cannot_have_the_same_disk() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    fs::write(lab.path("disk.img"), content(1, MIB)).unwrap();
    let made = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..3).map(|_| scope.spawn(|| with_disks(&lab, vec![file(lab.path("disk.img"))]))).collect();
        tries.into_iter().map(|t| t.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(made, 1);
    assert_eq!(lab.host().disks().unwrap().len(), 1);
}

#[test]
fn files_that_cannot_be_a_disk_are_refused_with_the_reason() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    fs::write(lab.path("nothing.img"), "").unwrap();
    qcow2(&lab.path("base.qcow2"), MIB);
    engine::image::create_qcow2(
        &lab.path("child.qcow2"),
        MIB,
        Some((&lab.path("base.qcow2"), engine::image::Format::Qcow2)),
    )
    .unwrap();
    for (name, reason, word) in [
        ("missing.img", Reason::NotFound, "missing.img"),
        ("nothing.img", Reason::InvalidArgument, "0 bytes"),
        ("child.qcow2", Reason::InvalidArgument, "backing file"),
        ("data", Reason::InvalidArgument, "data"),
    ] {
        let error = with_disks(&lab, vec![empty(MIB), file(lab.path(name))]).unwrap_err();
        assert_eq!(error.reason(), reason, "{name}: {}", error.chain());
        assert!(error.chain().contains(word), "{name}: {}", error.chain());
        assert!(support::listing(&lab.path("data/machines")).is_empty(), "{name}: litter");
    }
    let disks = vec![NewDisk::File { path: lab.path("base.qcow2"), format: Some(DiskFormat::Vhdx) }];
    assert_eq!(with_disks(&lab, disks).unwrap_err().reason(), Reason::InvalidArgument);
    assert!(lab.host().machines().unwrap().is_empty() && lab.host().disks().unwrap().is_empty());
}

#[test]
fn an_odd_end_of_a_raw_disk_is_padded() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let mut bytes = content(1, 2 * MIB);
    bytes.truncate(MIB as usize / 2 + 100);
    fs::write(lab.path("odd.img"), &bytes).unwrap();
    let machine = with_disks(&lab, vec![file(lab.path("odd.img"))]).unwrap();
    assert_eq!(machine.disks[0].virtual_size, MIB / 2 + 512);
    let out = lab.export(machine.record.id, "out");
    bytes.resize(MIB as usize / 2 + 512, 0);
    assert_eq!(support::read_image(&out.join("Virtual Hard Disks/odd.vhdx")), bytes);
}

#[test]
fn what_breaks_a_rule_is_refused_and_leaves_no_litter() {
    let lab = Lab::new();
    let good = || blank("web", Generation::Two);
    let one = || blank("web", Generation::One);
    let sector = |sector| vec![NewDisk::Empty { size: MIB, sector }];
    let cases = [
        DefineRequest { name: " ".into(), ..good() },
        DefineRequest { processors: Some(0), ..good() },
        DefineRequest { memory_mib: Some(1), ..good() },
        DefineRequest { secure_boot: Some(true), ..one() },
        DefineRequest { disks: vec![empty(MIB), empty(0)], ..good() },
        DefineRequest { disks: vec![empty(MIB), empty(513)], ..good() },
        DefineRequest { disks: vec![empty((64 << 40) + 512)], ..good() },
        DefineRequest { disks: vec![empty(MIB); 5], ..one() },
        DefineRequest { disks: vec![empty(MIB); 4], dvd: Some(None), ..one() },
        DefineRequest { disks: sector(1024), ..good() },
        DefineRequest { disks: sector(4096), ..good() },
        DefineRequest { disks: sector(4096), ..one() },
    ];
    for request in cases {
        let error = lab.host().define(&request).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidArgument, "{request:?}");
        assert!(support::listing(&lab.path("data/machines")).is_empty(), "{request:?}");
    }
    let missing = DefineRequest { dvd: Some(Some(lab.path("no.iso"))), disks: vec![empty(MIB)], ..good() };
    assert_eq!(lab.host().define(&missing).unwrap_err().reason(), Reason::NotFound);
    let nowhere = DefineRequest { adapters: vec!["nowhere".into()], ..good() };
    assert_eq!(lab.host().define(&nowhere).unwrap_err().reason(), Reason::NotFound);
    assert!(support::listing(&lab.path("data/machines")).is_empty());
    let hardware = Hardware { disk_bus: Some(engine::DiskBus::Nvme), ..Hardware::default() };
    lab.host().define(&DefineRequest { disks: sector(4096), hardware, ..good() }).unwrap();
}

#[test]
fn an_id_is_taken_once() {
    let lab = Lab::new();
    let id = Some(Uuid::new_v4());
    let request = DefineRequest { id, disks: vec![empty(MIB)], ..blank("web", Generation::Two) };
    let machine = lab.host().define(&request).unwrap();
    assert_eq!(lab.host().define(&request).unwrap_err().reason(), Reason::AlreadyExists);
    assert!(leaf(&machine, 0).exists());
    assert_eq!(files(&lab.path("data/machines")).len(), 1);
}

#[test]
fn edits_are_whole_or_not_at_all() {
    let lab = Lab::new();
    let request = DefineRequest { disks: vec![empty(MIB); 3], ..blank("web", Generation::One) };
    let machine = lab.host().define(&request).unwrap();
    let id = machine.record.id;
    let names: Vec<_> = machine.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["web.vhdx", "web 2.vhdx", "web 3.vhdx"]);
    let before = support::listing(&machine.record.home);
    let bad = [
        MachineEdit { add_disks: vec![empty(MIB), empty(MIB)], ..MachineEdit::default() },
        MachineEdit { add_disks: vec![empty(MIB)], processors: Some(0), ..MachineEdit::default() },
        MachineEdit {
            remove_disks: vec![machine.disks[0].id],
            name: Some(String::new()),
            ..MachineEdit::default()
        },
        MachineEdit { remove_disks: vec![Uuid::nil()], ..MachineEdit::default() },
        MachineEdit { dvd: Some(Some(lab.path("no.iso"))), ..MachineEdit::default() },
        MachineEdit { add_disks: vec![NewDisk::Empty { size: MIB, sector: 4096 }], ..MachineEdit::default() },
        MachineEdit {
            adapters: vec![AdapterEdit { index: 3, ..AdapterEdit::default() }],
            ..MachineEdit::default()
        },
    ];
    for edit in bad {
        lab.host().edit(id, &edit).unwrap_err();
        assert_eq!(lab.host().machine(id).unwrap(), machine, "{edit:?}");
        assert_eq!(support::listing(&machine.record.home), before, "{edit:?}");
    }
    let edit = MachineEdit {
        remove_disks: vec![machine.disks[0].id],
        add_disks: vec![empty(2 * MIB)],
        ..MachineEdit::default()
    };
    let edited = lab.host().edit(id, &edit).unwrap();
    let names: Vec<_> = edited.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["web.vhdx", "web 2.vhdx", "web 3.vhdx"]);
    assert!(!leaf(&machine, 0).exists());
    assert_eq!(files(&machine.record.home).len(), 3);
    assert_eq!(lab.host().disks().unwrap().len(), 3);
}

#[test]
fn a_dvd_changes_while_the_guest_runs() {
    let lab = Lab::new();
    fs::write(lab.path("a.iso"), "a").unwrap();
    let request = DefineRequest { dvd: Some(None), ..blank("web", Generation::Two) };
    let id = lab.host().define(&request).unwrap().record.id;
    lab.host().start(id).unwrap();
    let inside = || lab.sim.control(id).unwrap().media("dvd0");
    let put = |image| lab.host().edit(id, &MachineEdit { dvd: Some(image), ..MachineEdit::default() });
    put(Some(lab.path("a.iso"))).unwrap();
    assert_eq!(inside(), Some(lab.path("a.iso")));
    assert_eq!(put(Some(lab.path("b.iso"))).unwrap_err().reason(), Reason::NotFound);
    assert_eq!(inside(), Some(lab.path("a.iso")));
    put(None).unwrap();
    assert_eq!(inside(), None);
    let hard = MachineEdit { processors: Some(2), ..MachineEdit::default() };
    assert_eq!(lab.host().edit(id, &hard).unwrap_err().reason(), Reason::InvalidState);
}

#[test]
fn disks_that_the_user_brought_leave_under_names_that_a_package_can_have() {
    let lab = Lab::new();
    if !has_qemu() {
        return;
    }
    let bytes = content(1, 2 * MIB);
    let long = format!("{}.img", "n".repeat(250));
    let names = ["a:b?.img", "trailing .", "Ä.raw", "sub/ä.img", "plain", &long];
    fs::create_dir(lab.path("sub")).unwrap();
    let disks = names
        .iter()
        .map(|name| {
            fs::write(lab.path(name), &bytes).unwrap();
            file(lab.path(name))
        })
        .collect();
    let request = DefineRequest { disks, ..blank("m", Generation::Two) };
    let machine = lab.host().define(&request).unwrap();
    let out = lab.export(machine.record.id, "out");
    assert!(transfer::verify::verify(&out, &Default::default()).unwrap().is_good());
    let back = lab.import(&ImportRequest { new_id: true, ..support::import_of(out) });
    assert_eq!(back.disks.len(), names.len());
    for n in 0..names.len() {
        assert_eq!(fs::read(leaf(&back, n)).unwrap(), bytes);
    }
}
