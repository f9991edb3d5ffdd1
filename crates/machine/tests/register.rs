//! Import in place: an overlay of ours over a package that is never written, or a refusal that says why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use machine::Reason;
use machine::disk::DiskFormat;
use machine::export::ExportRequest;
use machine::finding::{self, Severity, Verdict};
use machine::planned::{ImportMode, ImportRequest};
use machine::settings::Generation;
use support::{DYNAMIC, Lab, MIB, Package, Shape, content, finding, has_qemu, import_of, leaf, listing};

fn registered(package: &Package) -> ImportRequest {
    ImportRequest { mode: ImportMode::Register, ..package.request() }
}

/// Takes write permission from everything below `dir`, or gives it back.
fn protect(dir: &Path, locked: bool) {
    for (path, what) in listing(dir) {
        let mode = match (what == "directory", locked) {
            (true, true) => 0o555,
            (true, false) => 0o755,
            (false, true) => 0o444,
            (false, false) => 0o644,
        };
        fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_package_in_use_is_never_written() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let disks = [content(1, 4 * MIB), content(2, 3 * MIB)];
    let package = Package::new(lab.path("package"), Generation::One)
        .vhdx("system.vhdx", &disks[0])
        .vhd("data.vhd", false, &disks[1])
        .guest_state(vec![5; 4096])
        .write();
    protect(&package.dir, true);
    let before = listing(&package.dir);
    let machine = lab.import(&registered(&package));
    for disk in &machine.disks {
        assert_eq!(disk.layers.len(), 2);
        assert!(disk.layers[0].owned && disk.layers[0].path.starts_with(&machine.record.home));
        assert!(!disk.layers[1].owned && disk.layers[1].path.starts_with(&package.dir));
    }
    let id = package.id;
    lab.host().start(id).unwrap();
    lab.host().stop(id).unwrap();
    // The chain reads as the package does, and leaves as one disk each.
    let out = lab.export(id, "out");
    assert_eq!(support::read_image(&out.join("Virtual Hard Disks/system.vhdx")), disks[0]);
    assert_eq!(support::read_image(&out.join("Virtual Hard Disks/data.vhd")), disks[1]);
    let kept = lab.host().delete(id, false).unwrap();
    assert_eq!(kept.len(), 2);
    assert!(!leaf(&machine, 0).exists());
    assert_eq!(listing(&package.dir), before);
    protect(&package.dir, false);
}

#[test]
fn a_package_of_ours_with_raw_disks_is_used_in_place_too() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let mut bytes = content(1, 2 * MIB);
    bytes[..4].copy_from_slice(b"QFI\xfb");
    let package = Package::new(lab.path("package"), Generation::Two).vhdx("system.vhdx", &bytes).write();
    let id = lab.import(&package.request()).record.id;
    let raw = ExportRequest { format: Some(DiskFormat::Raw), ..ExportRequest::new(lab.path("raw")) };
    lab.export_as(id, &raw);
    let request = ImportRequest { mode: ImportMode::Register, new_id: true, ..import_of(lab.path("raw")) };
    let machine = lab.import(&request);
    assert_eq!(machine.disks[0].layers[1].path, lab.path("raw").join("Virtual Hard Disks/system.raw"));
    let vhdx = ExportRequest { format: Some(DiskFormat::Vhdx), ..ExportRequest::new(lab.path("out")) };
    lab.export_as(machine.record.id, &vhdx);
    assert_eq!(support::read_image(&lab.path("out/Virtual Hard Disks/system.vhdx")), bytes);
}

#[test]
fn what_cannot_be_read_in_place_says_why_and_names_the_copy() {
    let bytes = content(1, 2 * MIB);
    let lab = Lab::new();
    let big_sectors = Package::new(lab.path("4k"), Generation::Two)
        .shaped("d.vhdx", Shape { logical: 4096, ..DYNAMIC }, &bytes)
        .write();
    let chained = Package::new(lab.path("chain"), Generation::Two);
    let base = chained.disk_dir().join("base.vhdx");
    support::make_vhdx(&base, DYNAMIC, &bytes);
    support::make_vhdx(&chained.disk_dir().join("d.avhdx"), DYNAMIC, &vec![0; bytes.len()]);
    support::make_child(&chained.disk_dir().join("d.avhdx"), &base, r".\base.vhdx");
    let chained = chained.drive(r"C:\d.avhdx").write();
    for (package, word) in [(big_sectors, "sectors"), (chained, "differencing")] {
        let before = listing(&package.dir);
        let planned = lab.host().import(&registered(&package)).unwrap();
        let found = finding(&planned.record.findings, finding::REGISTER_IMPOSSIBLE);
        assert_eq!((found.severity, found.fix.as_deref()), (Severity::Error, Some("--copy")));
        assert!(found.message.contains(word), "{}", found.message);
        let refused = lab.host().realize(planned.record.id, "test").unwrap_err();
        assert_eq!(refused.reason(), Reason::NotCompatible);
        assert_eq!(listing(&package.dir), before);
        let copied = lab.host().import_dry_run(&package.request()).unwrap();
        assert!(!support::has(&copied.record.findings, finding::REGISTER_IMPOSSIBLE));
    }
}

#[test]
fn two_machines_may_stand_on_one_package_but_none_may_write_it() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let package = Package::new(lab.path("package"), Generation::Two).vhdx("d.vhdx", &content(1, MIB)).write();
    let first = lab.import(&registered(&package));
    let second = lab.import(&ImportRequest { new_id: true, ..registered(&package) });
    assert_ne!(leaf(&first, 0), leaf(&second, 0));
    lab.host().start(first.record.id).unwrap();
    lab.host().start(second.record.id).unwrap();
    let link = lab.path("link.raw");
    fs::hard_link(package.disk_dir().join("d.vhdx"), &link).unwrap();
    let disks = vec![machine::define::NewDisk::File { path: link, format: None }];
    let request = machine::define::DefineRequest { disks, ..support::blank("w", Generation::Two) };
    assert_eq!(lab.host().define(&request).unwrap_err().reason(), Reason::InUse);
}

#[test]
fn a_package_that_went_away_stops_the_machine_and_not_the_host() {
    if !has_qemu() {
        return;
    }
    let lab = Lab::new();
    let package = Package::new(lab.path("package"), Generation::Two).vhdx("d.vhdx", &content(1, MIB)).write();
    let id = lab.import(&registered(&package)).record.id;
    fs::rename(&package.dir, lab.path("moved")).unwrap();
    let error = lab.host().start(id).unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(error.chain().contains("d.vhdx"), "{}", error.chain());
    let status = lab.export_as(id, &ExportRequest::new(lab.path("out")));
    assert!(status.error.unwrap().message.contains("d.vhdx"));
    let plan =
        lab.host().import_dry_run(&ImportRequest { new_id: true, ..import_of(lab.path("moved")) }).unwrap();
    assert_eq!(plan.verdict, Verdict::Ready);
    lab.host().delete(id, false).unwrap();
}
