//! Exports as Hyper-V made them in 2008 to 2012, and their import: in place once, under new ids, from and to other places.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use machine::Reason;
use machine::export::{ExportRequest, Layout};
use machine::planned::{DriveChange, Holds, ImportMode, ImportRequest};
use machine::settings::Generation;
use machine::switch::SwitchTarget;
use support::{Lab, MIB, Package, content, exported, has_qemu, import_of, read_image};
use uuid::Uuid;

fn first(directory: PathBuf) -> ExportRequest {
    ExportRequest { layout: Layout::First, ..ExportRequest::new(directory) }
}

/// A machine of generation 1 that came in with one disk, and an export of it.
fn lab() -> (Lab, Uuid, PathBuf) {
    let lab = Lab::new();
    let package = Package::new(lab.path("package"), Generation::One)
        .vhd("web.vhd", false, &content(1, 3 * MIB))
        .adapter("nat")
        .write();
    let id = lab.import(&package.request()).record.id;
    let dir = lab.path("out");
    exported(&lab.export_as(id, &first(dir.clone())));
    (lab, id, dir)
}

fn names(dir: &Path) -> Vec<String> {
    let below = support::listing(dir).into_keys().map(|path| path.display().to_string());
    let mut names: Vec<_> = below.filter(|path| !path.starts_with("Slipway")).collect();
    names.sort();
    names
}

fn at_once(lab: &Lab, request: &ImportRequest) -> machine::Result<job::Status> {
    lab.host().import_at_once(request, "test").map(|job| lab.job(job))
}

#[test]
fn an_export_looks_as_one_of_2008_and_proves_itself() {
    let (lab, id, dir) = lab();
    let guid = id.to_string().to_uppercase();
    let expected = [
        "Snapshots".to_owned(),
        "Virtual Hard Disks".to_owned(),
        "Virtual Hard Disks/web.vhd".to_owned(),
        "Virtual Machines".to_owned(),
        format!("Virtual Machines/{guid}.exp"),
        "config.xml".to_owned(),
    ];
    assert_eq!(names(&dir), expected);
    let configuration = vmcx::read_file(&dir.join(format!("Virtual Machines/{guid}.exp"))).unwrap();
    assert_eq!(configuration.form, vmcx::Form::Xml);
    assert_eq!(configuration.tree.get_str("configuration/properties/name").as_deref(), Some("Web server"));
    let text = fs::read(dir.join("config.xml")).unwrap();
    let units: Vec<u16> = text[2..].chunks(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
    let text = String::from_utf16(&units).unwrap();
    assert!(text.contains(&guid) && text.contains(r"Virtual Hard Disks\web.vhd"), "{text}");
    assert_eq!(read_image(&dir.join("Virtual Hard Disks/web.vhd")), content(1, 3 * MIB));

    // The current namespace's import reads it, too.
    lab.host().delete(id, false).unwrap();
    assert_eq!(lab.import(&import_of(&dir)).record.id, id);
}

#[test]
fn a_machine_of_generation_2_is_refused() {
    let lab = Lab::new();
    let id = lab.host().define(&support::blank("new", Generation::Two)).unwrap().record.id;
    let refused = lab.host().export(id, &first(lab.path("out")), "test").unwrap_err();
    assert_eq!(refused.reason(), Reason::NotSupported);
    assert!(!lab.path("out").exists());
}

#[test]
fn an_export_is_imported_in_place_once() {
    if !has_qemu() {
        return;
    }
    let (lab, id, dir) = lab();
    let guid = id.to_string().to_uppercase();
    let request = ImportRequest { mode: ImportMode::Register, adopt: true, ..import_of(&dir) };
    let twin = at_once(&lab, &request).unwrap_err();
    assert_eq!(twin.reason(), Reason::NotCompatible, "a machine of that id is here");
    assert!(dir.join(format!("Virtual Machines/{guid}.exp")).exists());
    assert!(lab.host().planned().unwrap().is_empty());

    lab.host().delete(id, false).unwrap();
    assert!(at_once(&lab, &request).unwrap().state.is_success());
    assert!(lab.host().planned().unwrap().is_empty());
    assert!(!dir.join(format!("Virtual Machines/{guid}.exp")).exists(), "it is live now");
    assert!(dir.join(format!("Virtual Machines/{guid}.xml")).exists());

    let again = at_once(&lab, &request).unwrap_err();
    assert_eq!(again.reason(), Reason::InvalidArgument);
    assert!(again.to_string().contains("already"), "{again}");
    lab.host().delete(id, false).unwrap();
    assert_eq!(at_once(&lab, &request).unwrap_err().reason(), Reason::InvalidArgument, "nor later");

    let other = ImportRequest { new_id: true, ..request };
    assert!(at_once(&lab, &other).unwrap().state.is_success());
    let machines = lab.host().machines().unwrap();
    assert_eq!(machines.len(), 1);
    assert_ne!(machines[0].record.id, id);
}

#[test]
fn a_copy_goes_where_it_is_told() {
    let (lab, _, dir) = lab();
    let request = import_of(&dir);
    let plan = lab.host().look(&request).unwrap();
    let source = plan.disks[0].source_path.clone();
    let moved = lab.path("elsewhere.vhd");
    fs::rename(dir.join("Virtual Hard Disks/web.vhd"), &moved).unwrap();
    let mut request = ImportRequest {
        new_id: true,
        name: Some("copy".to_owned()),
        root: Some(lab.path("machines")),
        ..request
    };
    let missing = at_once(&lab, &request).unwrap_err();
    assert_eq!(missing.reason(), Reason::NotCompatible, "the disk is not where it was");
    let drive = &plan.configuration.drives[0];
    request.parts.drives.push(DriveChange {
        controller: drive.controller,
        number: drive.number,
        slot: drive.slot,
        holds: Holds::File(moved),
    });
    request.disk_targets.insert(source, lab.path("disks/renamed.vhd"));
    request.switches.insert("nat".to_owned(), SwitchTarget { target: "nat".to_owned(), vlan: None });
    assert!(at_once(&lab, &request).unwrap().state.is_success());
    let machines = lab.host().machines().unwrap();
    let copy = machines.into_iter().find(|m| m.record.settings.name == "copy").unwrap();
    assert!(copy.record.home.starts_with(lab.path("machines")));
    let file = copy.disks[0].leaf().unwrap().path.clone();
    assert_eq!(file, lab.path("disks/renamed.raw"));
    assert_eq!(fs::read(&file).unwrap(), content(1, 3 * MIB));
    lab.host().delete(copy.record.id, false).unwrap();
    assert!(support::listing(&lab.path("machines")).is_empty(), "its folder goes with it");
    assert!(dir.join("Virtual Machines").read_dir().unwrap().next().is_some(), "a copy leaves the export");
}
