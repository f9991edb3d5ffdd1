//! Where an export goes and how it ends: names, what is there already, cancel, failure, and going on later.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use job::State;
use machine::define::MachineEdit;
use machine::export::ExportRequest;
use machine::settings::Generation;
use machine::{MachineView, Reason};
use support::{Lab, MIB, Package, blank, content, exported, leaf, listing, read_image};
use transfer::verify::{VerifyOptions, verify};

fn lab_with_machine() -> (Lab, MachineView, [Vec<u8>; 2]) {
    let lab = Lab::new();
    let disks = [content(1, 5 * MIB), content(2, 2 * MIB)];
    let package = Package::new(lab.path("package"), Generation::Two)
        .vhdx("system.vhdx", &disks[0])
        .vhdx("data.vhdx", &disks[1])
        .write();
    let machine = lab.import(&package.request());
    (lab, machine, disks)
}

fn assert_good(package: &Path) {
    let report = verify(package, &VerifyOptions::default()).unwrap();
    assert!(report.is_good(), "{:?}", report.findings);
}

fn partial(target: &Path) -> PathBuf {
    transfer::writer::partial_path(target)
}

#[test]
fn a_folder_of_its_own_has_a_name_that_both_worlds_take() {
    let lab = Lab::new();
    let machine = lab.host().define(&blank("x", Generation::Two)).unwrap();
    let id = machine.record.id;
    let long = "ü".repeat(120);
    let names = [
        ("web", "web"),
        ("a/b\\c", "a_b_c"),
        ("../../etc", "_.._etc"),
        ("C:\\VMs", "C__VMs"),
        (".hidden. ", "hidden"),
        ("Сервер 日本 🦀", "Сервер 日本 🦀"),
        (long.as_str(), long.as_str()),
    ];
    for (name, folder) in names {
        lab.host().edit(id, &MachineEdit { name: Some(name.into()), ..MachineEdit::default() }).unwrap();
        let request = ExportRequest { subdirectory: true, ..ExportRequest::new(lab.path("exports")) };
        let done = exported(&lab.export_as(id, &request));
        assert_eq!(done.directory, lab.path("exports").join(folder), "{name}");
        assert_good(&done.directory);
    }
    assert_eq!(fs::read_dir(lab.path("exports")).unwrap().count(), names.len());
}

#[test]
fn nothing_is_ever_overwritten() {
    let (lab, machine, _) = lab_with_machine();
    let id = machine.record.id;
    let package = lab.export(id, "package-out");
    fs::write(lab.path("file"), "here").unwrap();
    fs::create_dir(lab.path("full")).unwrap();
    fs::write(lab.path("full/precious"), "here").unwrap();
    fs::create_dir(lab.path("empty")).unwrap();
    let before = listing(lab.root.path());
    for name in ["package-out", "file", "full"] {
        let refused = lab.host().export(id, &ExportRequest::new(lab.path(name)), "test").unwrap_err();
        assert_eq!(refused.reason(), Reason::AlreadyExists, "{name}");
        assert!(refused.to_string().contains(name));
    }
    let relative = lab.host().export(id, &ExportRequest::new("exports".into()), "test").unwrap_err();
    assert_eq!(relative.reason(), Reason::InvalidArgument);
    assert_eq!(listing(lab.root.path()), before);
    // Somebody else's folder under the name of an unfinished export is not ours to empty.
    fs::create_dir(lab.path("other.partial")).unwrap();
    fs::write(lab.path("other.partial/precious"), "here").unwrap();
    let status = lab.export_as(id, &ExportRequest::new(lab.path("other")));
    assert_eq!(status.state, State::Failed);
    assert_eq!(fs::read(lab.path("other.partial/precious")).unwrap(), b"here");
    lab.export(id, "empty");
    lab.export(id, "new/below/that");
    assert_good(&package);
}

#[test]
fn a_cancelled_export_leaves_nothing_and_is_prompt() {
    let (lab, machine, _) = lab_with_machine();
    let id = machine.record.id;
    // Slow enough that it cannot be over first, for however long the test takes.
    let request = ExportRequest { rate_limit: NonZero::new(64 << 10), ..ExportRequest::new(lab.path("out")) };
    let job = lab.host().export(id, &request, "test").unwrap();
    while !partial(&lab.path("out")).exists() {
        std::thread::yield_now();
    }
    let busy = lab.host().start(id).unwrap_err();
    assert_eq!(busy.reason(), Reason::Busy);
    lab.host().jobs().cancel(job::JobId(job)).unwrap();
    let status = lab.job(job);
    assert_eq!(status.state, State::Cancelled, "{status:?}");
    assert!(!lab.path("out").exists() && !partial(&lab.path("out")).exists());
    lab.export(id, "out");
}

#[test]
fn a_target_that_takes_nothing_is_named() {
    let (lab, machine, _) = lab_with_machine();
    // No write permission keeps root out of nothing; a file where a folder should be does, and so does /proc.
    fs::write(lab.path("file"), "").unwrap();
    for (target, word) in [(lab.path("file/below"), "file"), (PathBuf::from("/proc/slipway/x"), "/proc")] {
        match lab.host().export(machine.record.id, &ExportRequest::new(target), "test") {
            Ok(job) => {
                let error = lab.job(job).error.unwrap();
                assert!(error.message.contains(word), "{error:?}");
            }
            Err(error) => assert!(error.chain().contains(word), "{}", error.chain()),
        }
    }
    assert_eq!(lab.host().machine(machine.record.id).unwrap().power, machine::power::PowerState::Off);
}

#[test]
fn a_failed_export_keeps_what_was_written_and_the_next_goes_on() {
    let (lab, machine, disks) = lab_with_machine();
    // The configuration's bytes are missing: that shows when the disks are written.
    let id = machine.record.id;
    let blob = machine.record.origin.as_ref().unwrap().configuration.0.clone();
    let blob = lab.path("data/blobs").join(blob);
    fs::rename(&blob, lab.path("aside")).unwrap();
    let status = lab.export_as(id, &ExportRequest::new(lab.path("out")));
    assert_eq!(status.state, State::Failed);
    assert!(status.error.unwrap().message.contains("blobs"));
    assert!(partial(&lab.path("out")).is_dir() && !lab.path("out").exists());
    let refused = lab.host().import(&support::import_of(partial(&lab.path("out")))).unwrap_err();
    assert_eq!(refused.reason(), Reason::BadPackage);
    fs::rename(lab.path("aside"), &blob).unwrap();

    // Nothing changed: it goes on, and reads no disk again.
    let status = lab.export_as(id, &ExportRequest::new(lab.path("out")));
    assert_eq!(status.state, State::Completed, "{:?}", status.warnings);
    assert_eq!(exported(&status).bytes, 0);
    assert_eq!(read_image(&lab.path("out/Virtual Hard Disks/system.vhdx")), disks[0]);
    assert_good(&lab.path("out"));
}

#[test]
fn an_export_never_mixes_two_instants() {
    let ran: fn(&Lab, &MachineView) = |lab, machine| {
        lab.host().start(machine.record.id).unwrap();
        lab.host().stop(machine.record.id).unwrap();
    };
    let written: fn(&Lab, &MachineView) = |_, machine| {
        let bytes = content(9, 2 * MIB);
        fs::write(leaf(machine, 1), bytes).unwrap();
    };
    let replaced: fn(&Lab, &MachineView) = |lab, machine| {
        let copy = lab.path("copy");
        fs::copy(leaf(machine, 0), &copy).unwrap();
        fs::rename(copy, leaf(machine, 0)).unwrap();
    };
    for change in [ran, written, replaced] {
        let (lab, machine, _) = lab_with_machine();
        let id = machine.record.id;
        let blob = lab.path("data/blobs").join(&machine.record.origin.as_ref().unwrap().configuration.0);
        fs::rename(&blob, lab.path("aside")).unwrap();
        assert_eq!(lab.export_as(id, &ExportRequest::new(lab.path("out"))).state, State::Failed);
        fs::rename(lab.path("aside"), &blob).unwrap();
        change(&lab, &machine);
        let status = lab.export_as(id, &ExportRequest::new(lab.path("out")));
        assert_eq!(status.state, State::CompletedWithWarnings, "{status:?}");
        assert_eq!(status.warnings[0].id, "export-started-over");
        for (n, name) in ["system.vhdx", "data.vhdx"].iter().enumerate() {
            let now = fs::read(leaf(&machine, n)).unwrap();
            assert_eq!(read_image(&lab.path("out/Virtual Hard Disks").join(name)), now, "{name}");
        }
        assert_good(&lab.path("out"));
    }
}

#[test]
fn a_vanished_source_is_named_and_harms_nothing() {
    let (lab, machine, _) = lab_with_machine();
    let id = machine.record.id;
    fs::rename(leaf(&machine, 1), lab.path("aside")).unwrap();
    let status = lab.export_as(id, &ExportRequest::new(lab.path("out")));
    let error = status.error.unwrap();
    assert_eq!(error.id, Reason::NotFound.id());
    assert!(error.message.contains("data.raw"), "{}", error.message);
    assert!(!lab.path("out").exists());
    fs::rename(lab.path("aside"), leaf(&machine, 1)).unwrap();
    lab.export(id, "out");
}
