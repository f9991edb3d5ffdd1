//! What an export holds: what came and was not changed leaves as it came, and what changed is listed key by key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;

use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::disk::DiskFormat;
use machine::export::ExportRequest;
use machine::finding::Verdict;
use machine::planned::ImportRequest;
use machine::settings::Generation;
use machine::{MachineView, Reason};
use support::{
    Lab, MIB, Package, Shape, blank, content, exported, files, import_of, leaf, member, read_image,
};
use transfer::verify::{Proof, VerifyOptions, verify};
use uuid::Uuid;

fn disk(package: &Path, name: &str) -> std::path::PathBuf {
    package.join("Virtual Hard Disks").join(name)
}

/// A lab with an imported machine of two disks and one adapter.
fn imported(generation: Generation) -> (Lab, Package, MachineView, [Vec<u8>; 2]) {
    let lab = Lab::new();
    let disks = [content(1, 4 * MIB), content(2, 2 * MIB)];
    let package = Package::new(lab.path("package"), generation)
        .vhdx("system.vhdx", &disks[0])
        .shaped("data.vhdx", Shape { fixed: true, block_size: 2 << 20, logical: 512 }, &disks[1])
        .adapter("Default Switch")
        .set("properties/a_key_of_tomorrow", "kept")
        .guest_state((0..9000).map(|n| (n % 251) as u8).collect())
        .write();
    let machine = lab.import(&package.request());
    (lab, package, machine, disks)
}

/// Keys that differ between two packages' configurations of the machines `a` and `b`.
fn changed(before: (&Path, Uuid), after: (&Path, Uuid)) -> Vec<String> {
    let tree = |(dir, id)| vmcx::read_file(&member(dir, id, "vmcx")).unwrap().tree;
    let mut paths: Vec<_> = vmcx::diff(&tree(before), &tree(after))
        .into_iter()
        .map(|c| c.path.strip_prefix("configuration/").unwrap().to_owned())
        .collect();
    paths.sort();
    paths
}

fn assert_good(package: &Path) {
    let report = verify(package, &VerifyOptions::default()).unwrap();
    assert!(report.is_good() && report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.proof, Proof::Content);
}

#[test]
fn what_was_not_changed_leaves_as_it_came() {
    for generation in [Generation::One, Generation::Two] {
        let (lab, package, machine, disks) = imported(generation);
        let id = machine.record.id;
        lab.host().start(id).unwrap();
        lab.host().stop(id).unwrap();
        let out = lab.export(id, "out");
        for extension in ["vmcx", "VMRS", "vmgs"] {
            let bytes = |dir| fs::read(member(dir, id, extension)).unwrap();
            assert_eq!(bytes(&out), bytes(&package.dir), "{extension}");
        }
        for (name, bytes) in ["system.vhdx", "data.vhdx"].iter().zip(&disks) {
            assert_eq!(read_image(&disk(&out, name)), *bytes);
            let info = |dir: &Path| {
                let image = vhdx::Image::open(&disk(dir, name), &Default::default()).unwrap();
                let info = image.layers()[0].info.clone();
                let sectors = (info.logical_sector_size, info.physical_sector_size);
                (info.kind, info.block_size, info.disk_id, sectors)
            };
            assert_eq!(info(&out), info(&package.dir), "geometry of {name}");
        }
        assert!(out.join("Snapshots").is_dir(), "Hyper-V's layout");
        assert_good(&out);
        let again = lab.host().import_dry_run(&ImportRequest { new_id: true, ..import_of(out) }).unwrap();
        assert_eq!(again.verdict, Verdict::Ready, "{:?}", again.record.findings);
    }
}

#[test]
fn what_was_changed_is_changed_and_nothing_else() {
    let (lab, package, machine, _) = imported(Generation::Two);
    let id = machine.record.id;
    let edit = MachineEdit {
        name: Some("renamed".into()),
        notes: Some("moved to Linux".into()),
        processors: Some(4),
        memory_mib: Some(3072),
        secure_boot: Some(false),
        ..MachineEdit::default()
    };
    lab.host().edit(id, &edit).unwrap();
    let out = lab.export(id, "out");
    assert_eq!(
        changed((&package.dir, id), (&out, id)),
        [
            "_ac6b8dc1-3257-4a70-b1b2-a9c9215659ad_/secure_boot_enabled",
            "properties/name",
            "properties/notes",
            "settings/memory/bank/size",
            "settings/processors/count",
        ]
    );
    let back = lab.host().import_dry_run(&ImportRequest { new_id: true, ..import_of(out) }).unwrap();
    assert_eq!(back.record.settings.notes, "moved to Linux");
}

#[test]
fn a_new_id_changes_the_id_and_what_is_named_after_it() {
    let (lab, package, first, _) = imported(Generation::Two);
    let second = lab.import(&ImportRequest { new_id: true, ..package.request() });
    let id = second.record.id;
    let out = lab.export(id, "out");
    assert_eq!(
        changed((&package.dir, first.record.id), (&out, id)),
        ["properties/global_id", "settings/global/logical_id"]
    );
    assert_eq!(fs::read(member(&out, id, "vmgs")).unwrap(), fs::read(package.member("vmgs")).unwrap());
    // Twice around changes nothing more.
    let third = lab.import(&ImportRequest { new_id: true, name: Some("third".into()), ..import_of(&out) });
    let again = lab.export(third.record.id, "again");
    assert_eq!(
        changed((&out, id), (&again, third.record.id)),
        ["properties/global_id", "properties/name", "settings/global/logical_id"]
    );
    assert_eq!(read_image(&disk(&again, "data.vhdx")), read_image(&disk(&package.dir, "data.vhdx")));
}

#[test]
fn devices_that_came_and_went_here_do_so_there() {
    let (lab, package, machine, _) = imported(Generation::Two);
    let id = machine.record.id;
    let edit = MachineEdit {
        remove_disks: vec![machine.disks[1].id],
        add_disks: vec![NewDisk::Empty { size: 8 * MIB, sector: 0 }],
        adapters: vec![machine::define::AdapterEdit {
            index: 1,
            switch: Some(Some("nat".into())),
            ..machine::define::AdapterEdit::default()
        }],
        ..MachineEdit::default()
    };
    let edited = lab.host().edit(id, &edit).unwrap();
    assert!(!leaf(&machine, 1).exists(), "a disk of ours goes with its place");
    let out = lab.export(id, "out");
    let tree = vmcx::read_file(&member(&out, id, "vmcx")).unwrap().tree;
    let back = machine::config::read(&tree).unwrap();
    assert_eq!(back.settings.adapters.len(), 2);
    let names: Vec<_> = back.drives.iter().map(|d| machine::disk::file_name(&d.path)).collect();
    assert_eq!(names, ["system.vhdx", "Web server.vhdx"]);
    assert_eq!(edited.disks[1].name, "Web server.vhdx");
    let disks: Vec<_> =
        fs::read_dir(out.join("Virtual Hard Disks")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(disks.len(), 2);
    assert_eq!(fs::read(member(&out, id, "vmgs")).unwrap(), fs::read(package.member("vmgs")).unwrap());
}

#[test]
fn a_machine_made_here_leaves_and_comes_back() {
    for generation in [Generation::One, Generation::Two] {
        let lab = Lab::new();
        let disks =
            vec![NewDisk::Empty { size: 6 * MIB, sector: 0 }, NewDisk::Empty { size: 2 * MIB, sector: 0 }];
        let request = DefineRequest {
            disks,
            adapters: vec!["nat".into(), String::new()],
            dvd: Some(None),
            processors: Some(2),
            ..blank("made here", generation)
        };
        let machine = lab.host().define(&request).unwrap();
        let bytes = content(3, 6 * MIB);
        fs::write(leaf(&machine, 0), &bytes).unwrap();
        let out = lab.export(machine.record.id, "out");
        assert_good(&out);
        let back = lab.import(&ImportRequest { new_id: true, ..import_of(&out) });
        assert_eq!(fs::read(leaf(&back, 0)).unwrap(), bytes);
        assert_eq!(fs::read(leaf(&back, 1)).unwrap(), vec![0; 2 * MIB as usize]);
        let plain = |view: &MachineView| {
            let mut s = view.record.settings.clone();
            // What is minted anew, and what an IDE controller shows beside it.
            s.controllers.retain(|c| !c.drives.is_empty());
            let slots: Vec<Vec<_>> =
                s.controllers.iter().map(|c| c.drives.iter().map(|d| d.slot).collect()).collect();
            s.controllers.clear();
            for a in &mut s.adapters {
                a.source_switch = None;
            }
            (s, slots)
        };
        assert_eq!(plain(&back), plain(&machine));
    }
}

#[test]
fn only_the_configuration_or_without_some_disks() {
    let (lab, package, machine, disks) = imported(Generation::Two);
    let id = machine.record.id;
    let request = ExportRequest { storage: false, ..ExportRequest::new(lab.path("bare")) };
    let done = exported(&lab.export_as(id, &request));
    assert_eq!((done.disks, done.bytes), (0, 0));
    assert_eq!(changed((&package.dir, id), (&done.directory, id)), Vec::<String>::new());
    assert!(files(&done.directory.join("Virtual Hard Disks")).is_empty());
    assert!(verify(&done.directory, &VerifyOptions::default()).unwrap().is_good());

    let excluded_disks = vec![machine.disks[1].id];
    let request = ExportRequest { excluded_disks, ..ExportRequest::new(lab.path("partly")) };
    let done = exported(&lab.export_as(id, &request));
    assert_eq!(done.disks, 1);
    assert_eq!(read_image(&disk(&done.directory, "system.vhdx")), disks[0]);
    assert!(!disk(&done.directory, "data.vhdx").exists());
    assert_eq!(changed((&package.dir, id), (&done.directory, id)), Vec::<String>::new());
    let manifest = fs::read_to_string(done.directory.join("Slipway/manifest.json")).unwrap();
    assert!(manifest.contains("data.vhdx") && manifest.contains("excluded on request"));

    let request = ExportRequest { excluded_disks: vec![Uuid::nil()], ..ExportRequest::new(lab.path("x")) };
    assert_eq!(lab.host().export(id, &request, "test").unwrap_err().reason(), Reason::InvalidArgument);
    assert!(!lab.path("x").exists());
}

#[test]
fn a_disk_leaves_in_the_format_it_came_in_or_in_another_one() {
    let lab = Lab::new();
    let disks = [content(1, 4 * MIB), content(2, 3 * MIB), content(3, 2 * MIB)];
    let package = Package::new(lab.path("package"), Generation::One)
        .vhd("fixed.vhd", true, &disks[0])
        .vhd("dynamic.VHD", false, &disks[1])
        .vhdx("new.vhdx", &disks[2])
        .write();
    let id = lab.import(&package.request()).record.id;
    let all = |format, name| {
        let request = ExportRequest { format, ..ExportRequest::new(lab.path(name)) };
        exported(&lab.export_as(id, &request)).directory
    };
    let same = all(None, "same");
    for (name, bytes) in ["fixed.vhd", "dynamic.VHD", "new.vhdx"].iter().zip(&disks) {
        assert_eq!(read_image(&disk(&same, name)), *bytes);
        let kind =
            |dir| vhdx::Image::open(&disk(dir, name), &Default::default()).unwrap().layers()[0].info.kind;
        assert_eq!(kind(&same), kind(&package.dir), "{name}");
    }
    assert_eq!(changed((&package.dir, id), (&same, id)), Vec::<String>::new());

    let newer = all(Some(DiskFormat::Vhdx), "newer");
    for (name, bytes) in ["fixed.vhdx", "dynamic.vhdx", "new.vhdx"].iter().zip(&disks) {
        assert_eq!(read_image(&disk(&newer, name)), *bytes);
    }
    assert_eq!(changed((&package.dir, id), (&newer, id)).len(), 2, "the paths of two drives");
    let older = all(Some(DiskFormat::Vhd), "older");
    assert_eq!(read_image(&disk(&older, "new.vhd")), disks[2]);
    let raw = all(Some(DiskFormat::Raw), "raw");
    assert_eq!(fs::read(disk(&raw, "fixed.raw")).unwrap(), disks[0]);
    for dir in [&same, &newer, &older, &raw] {
        assert_good(dir);
    }
    let request = ExportRequest { format: Some(DiskFormat::Qcow2), ..ExportRequest::new(lab.path("q")) };
    assert_eq!(lab.host().export(id, &request, "test").unwrap_err().reason(), Reason::InvalidArgument);
}

/// Raw disks say nothing of themselves: what they are stands in the manifest, and their first bytes are the guest's.
#[test]
fn raw_disks_come_back_by_the_word_of_the_manifest() {
    let (lab, package, machine, disks) = imported(Generation::Two);
    // As a guest may write them to have its disk taken for something else, and another file read with it.
    let mut spoofed = content(3, 3 * MIB);
    spoofed[..8].copy_from_slice(b"vhdxfile");
    let odd = Package::new(lab.path("odd"), Generation::Two)
        .shaped("sectors.vhdx", Shape { fixed: false, block_size: 1 << 20, logical: 4096 }, &spoofed)
        .write();
    let nvme = |request| ImportRequest { disk_bus: Some(engine::DiskBus::Nvme), ..request };
    let odd = lab.import(&nvme(odd.request()));
    let raw = |view: &MachineView, name: &str| {
        let request = ExportRequest { format: Some(DiskFormat::Raw), ..ExportRequest::new(lab.path(name)) };
        let status = lab.export_as(view.record.id, &request);
        assert_eq!(status.warnings.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ["export-raw"]);
        exported(&status).directory
    };
    let (out, odd_out) = (raw(&machine, "raw"), raw(&odd, "odd raw"));
    assert_good(&out);
    let again = |path: &Path| ImportRequest { new_id: true, ..import_of(path) };
    for (path, before, bytes) in [(&out, &machine, &disks[..]), (&odd_out, &odd, &[spoofed][..])] {
        let back = lab.import(&nvme(again(path)));
        for ((n, old), bytes) in before.disks.iter().enumerate().zip(bytes) {
            let new = &back.disks[n];
            assert_eq!(fs::read(leaf(&back, n)).unwrap(), *bytes, "{}", old.name);
            assert_eq!((new.format, new.virtual_disk_id), (DiskFormat::Raw, old.virtual_disk_id));
            let sectors = |d: &machine::disk::DiskRecord| (d.logical_sector_size, d.physical_sector_size);
            assert_eq!(sectors(new), sectors(old));
        }
    }
    // Without a manifest, or with one that says otherwise, a flat file is no disk of a Hyper-V package.
    let unreadable = |path: &Path| {
        let view = lab.host().import_dry_run(&again(path)).unwrap();
        support::errors(&view.record.findings).iter().filter(|id| **id == "disk-unreadable").count()
    };
    assert_eq!(unreadable(&out), 0);
    let cut = fs::File::options().write(true).open(disk(&out, "data.raw")).unwrap();
    cut.set_len(MIB).unwrap();
    assert_eq!(unreadable(&out), 1);
    fs::remove_file(out.join("Slipway/manifest.json")).unwrap();
    assert_eq!(unreadable(&out), 2);
    drop(package);
}

#[test]
fn a_disk_grown_larger_than_a_block_keeps_its_block_size_unless_told() {
    let (lab, _, machine, disks) = imported(Generation::Two);
    let request = ExportRequest { block_size: Some(4 << 20), ..ExportRequest::new(lab.path("out")) };
    let out = exported(&lab.export_as(machine.record.id, &request)).directory;
    let image = vhdx::Image::open(&disk(&out, "system.vhdx"), &Default::default()).unwrap();
    assert_eq!(image.layers()[0].info.block_size, 4 << 20);
    assert_eq!(read_image(&disk(&out, "system.vhdx")), disks[0]);
    let request = ExportRequest { block_size: Some(3 << 20), ..ExportRequest::new(lab.path("odd")) };
    let status = lab.export_as(machine.record.id, &request);
    assert!(status.error.unwrap().message.contains("block size"));
    assert!(!lab.path("odd").exists());
}

#[test]
fn a_package_that_was_touched_is_not_good() {
    let (lab, _, machine, _) = imported(Generation::Two);
    let id = machine.record.id;
    type Touch = fn(&Path, Uuid);
    let touch: [(&str, Touch); 4] = [
        ("disk", |dir, _| flip(&disk(dir, "system.vhdx"), true)),
        ("configuration", |dir, id| flip(&member(dir, id, "vmcx"), false)),
        ("guest state", |dir, id| flip(&member(dir, id, "vmgs"), false)),
        ("missing", |dir, _| fs::remove_file(disk(dir, "data.vhdx")).unwrap()),
    ];
    for (what, touch) in touch {
        let out = lab.export(id, what);
        assert_good(&out);
        touch(&out, id);
        assert!(!verify(&out, &VerifyOptions::default()).unwrap().is_good(), "{what}");
    }
}

/// Turns one bit: in the last block of a disk, or in the middle of a file.
fn flip(path: &Path, at_end: bool) {
    let mut bytes = fs::read(path).unwrap();
    let data = |n: &usize| bytes[*n] != 0;
    let at = if at_end { (0..bytes.len()).rev().find(data).unwrap() } else { bytes.len() / 2 };
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
