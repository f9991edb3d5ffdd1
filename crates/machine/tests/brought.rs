//! VHD and VHDX files as disks of machines: taken in, given back with what the guest wrote, never lost and never shared.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use engine::DiskBus;
use machine::change::Begun;
use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::image::ImageEdit;
use machine::settings::{Generation, Hardware};
use machine::{MachineView, Reason, Result};
use support::{DYNAMIC, Lab, MIB, Shape, blank, content, files, make_child, make_vhd, make_vhdx, read_image};

fn file(path: impl Into<PathBuf>) -> NewDisk {
    NewDisk::File { path: path.into(), format: None }
}

fn define(lab: &Lab, path: &Path) -> Result<MachineView> {
    // The bus that shows sectors of 4,096 bytes.
    let hardware = Hardware { disk_bus: Some(DiskBus::Nvme), ..Hardware::default() };
    lab.host().define(&DefineRequest { disks: vec![file(path)], hardware, ..blank("web", Generation::Two) })
}

fn layer(view: &MachineView) -> &Path {
    &view.disks[0].layers[0].path
}

/// Runs the machine, whose guest writes `bytes` at `offset` of its first disk.
fn write(lab: &Lab, view: &MachineView, bytes: &[u8], offset: u64) {
    lab.host().start(view.record.id).unwrap();
    fs::File::options().write(true).open(layer(view)).unwrap().write_all_at(bytes, offset).unwrap();
    lab.host().stop(view.record.id).unwrap();
}

fn detach(lab: &Lab, view: &MachineView) -> Result<MachineView> {
    let edit = MachineEdit { remove_disks: vec![view.disks[0].id], ..MachineEdit::default() };
    lab.host().edit(view.record.id, &edit)
}

#[test]
fn what_a_guest_wrote_is_in_the_file_when_the_disk_is_taken_out() {
    let bytes = content(1, 6 * MIB);
    let shape = |fixed, logical| Shape { fixed, logical, ..DYNAMIC };
    type Make<'a> = Box<dyn Fn(&Path) + 'a>;
    let kinds: Vec<(&str, Make<'_>)> = vec![
        ("dynamic.vhdx", Box::new(|path| make_vhdx(path, shape(false, 512), &bytes))),
        ("fixed.VHDX", Box::new(|path| make_vhdx(path, shape(true, 512), &bytes))),
        ("4k.vhdx", Box::new(|path| make_vhdx(path, shape(false, 4096), &bytes))),
        ("dynamic.vhd", Box::new(|path| make_vhd(path, false, &bytes))),
        ("fixed.vhd", Box::new(|path| make_vhd(path, true, &bytes))),
    ];
    for (name, make) in kinds {
        let lab = Lab::new();
        fs::create_dir(lab.path("files")).unwrap();
        let path = lab.path("files").join(name);
        make(&path);
        let before = lab.host().image(&path).unwrap();
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();

        let view = define(&lab, &path).unwrap();
        assert_eq!(view.disks[0].file(), Some(&path));
        assert_eq!(fs::read(layer(&view)).unwrap(), bytes, "{name}");
        // Nobody wrote anything, so the file needs nothing.
        detach(&lab, &view).unwrap();
        assert_eq!(inode(), first, "{name} was written for nothing");
        assert!(!layer(&view).exists() && lab.host().disks().unwrap().is_empty());

        lab.host().delete(view.record.id, false).unwrap();
        let view = define(&lab, &path).unwrap();
        let written = content(9, MIB);
        write(&lab, &view, &written, 5 * MIB);
        assert_eq!(read_image(&path), bytes, "{name}");
        assert_eq!(lab.host().image(&path).unwrap(), before, "what it is does not change");
        detach(&lab, &view).unwrap();
        let wanted = [&bytes[..5 * MIB as usize], &written].concat();
        assert_eq!(read_image(&path), wanted, "{name}");
        assert_eq!(lab.host().image(&path).unwrap(), before, "{name}");
        let report = vhdx::check(&path, &vhdx::CheckOptions::default()).unwrap();
        assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
        assert!(!layer(&view).exists() && lab.host().disks().unwrap().is_empty());
        assert_eq!(fs::read_dir(lab.path("files")).unwrap().count(), 1, "{name}");

        // Again, and this time with its machine.
        lab.host().delete(view.record.id, false).unwrap();
        for keep in [false, true] {
            let view = define(&lab, &path).unwrap();
            write(&lab, &view, &[7; 512], u64::from(keep) * 4096);
            assert_eq!(lab.host().delete(view.record.id, keep).unwrap(), std::slice::from_ref(&path));
            assert_eq!(read_image(&path)[usize::from(keep) * 4096], 7);
            assert!(files(&lab.path("data/machines")).is_empty(), "{name}");
        }
    }
}

#[test]
fn an_empty_disk_costs_nothing() {
    let lab = Lab::new();
    let path = lab.path("huge.vhdx");
    let storage = std::sync::Arc::new(vhdx::FileStorage::create_new(&path).unwrap());
    vhdx::Writer::create(storage, &vhdx::CreateOptions::dynamic(64 << 40)).unwrap().finish().unwrap();
    let request = DefineRequest { disks: vec![file(&path)], ..blank("web", Generation::Two) };
    let Begun::Done(view) = lab.host().begin_define(&request, "test").unwrap() else {
        unreachable!("a job for nothing")
    };
    assert_eq!(fs::metadata(layer(&view)).unwrap().len(), 64 << 40);
    assert!(lab.host().jobs().list(&job::Filter::default()).is_empty());
    let full = lab.path("full.vhdx");
    make_vhdx(&full, DYNAMIC, &content(1, MIB));
    let edit = MachineEdit { add_disks: vec![file(&full)], ..MachineEdit::default() };
    let Begun::Job(job) = lab.host().begin_edit(view.record.id, &edit, "test").unwrap() else {
        unreachable!("nothing is copied")
    };
    assert!(lab.job(job).state.is_success());
    assert_eq!(lab.host().machine(view.record.id).unwrap().disks.len(), 2);
}

#[test]
fn a_disk_that_a_machine_has_is_nobody_elses() {
    let lab = Lab::new();
    let path = lab.path("a.vhdx");
    make_vhdx(&path, DYNAMIC, &content(1, 2 * MIB));
    let view = define(&lab, &path).unwrap();
    let reason = |result: Result<MachineView>| result.unwrap_err().reason();
    assert_eq!(reason(define(&lab, &path)), Reason::InUse);
    fs::hard_link(&path, lab.path("b.vhdx")).unwrap();
    assert_eq!(reason(define(&lab, &lab.path("b.vhdx"))), Reason::InUse);
    fs::remove_file(lab.path("b.vhdx")).unwrap();
    let host = lab.host();
    let grow = ImageEdit { size: Some(4 * MIB), ..ImageEdit::default() };
    assert_eq!(host.edit_image(&path, &grow, "test").unwrap_err().reason(), Reason::InUse);
    assert_eq!(host.compact_image(&path, "test").unwrap_err().reason(), Reason::InUse);
    assert!(host.image_state(&path).unwrap().in_use);
    // As long as the guest wrote nothing, the file is what the disk holds.
    let shape = machine::image::Shape {
        format: machine::disk::DiskFormat::Vhdx,
        fixed: false,
        virtual_size: 0,
        block_size: 0,
        logical_sector_size: 512,
        physical_sector_size: 4096,
        disk_id: uuid::Uuid::nil(),
    };
    let copy = |name: &str| host.convert_image(&path, &lab.path(name), &shape, "test");
    assert!(lab.job(copy("copy.vhdx").unwrap()).state.is_success());
    write(&lab, &view, &[1; 4096], 0);
    assert_eq!(copy("stale.vhdx").unwrap_err().reason(), Reason::InUse);
    assert_eq!(host.check_image(&path, "test").unwrap_err().reason(), Reason::InUse);
    assert!(host.image_state(&path).unwrap().in_use);

    let package = lab.export(view.record.id, "out");
    let exported = read_image(&package.join("Virtual Hard Disks/a.vhdx"));
    assert_eq!(exported[..4096], [1; 4096], "an export has what the guest wrote");

    let child = lab.path("child.vhdx");
    make_vhdx(&child, DYNAMIC, &vec![0; 2 << 20]);
    make_child(&child, &path, "a.vhdx");
    let refused = define(&lab, &child).unwrap_err();
    assert_eq!(refused.reason(), Reason::NotSupported);
    assert!(refused.hint_text().unwrap().contains("disk convert"));
}

#[test]
fn a_file_that_somebody_changed_is_not_overwritten() {
    let lab = Lab::new();
    let path = lab.path("a.vhdx");
    let bytes = content(1, 2 * MIB);
    make_vhdx(&path, DYNAMIC, &bytes);
    let view = define(&lab, &path).unwrap();
    write(&lab, &view, &[1; 4096], 0);
    let other = content(2, 2 * MIB);
    fs::rename(&path, lab.path("old.vhdx")).unwrap();
    make_vhdx(&path, DYNAMIC, &other);
    for _ in 0..2 {
        assert_eq!(detach(&lab, &view).unwrap_err().reason(), Reason::InUse);
        assert_eq!(lab.host().delete(view.record.id, false).unwrap_err().reason(), Reason::InUse);
        assert_eq!(read_image(&path), other);
        assert_eq!(lab.host().machine(view.record.id).unwrap().disks, view.disks);
    }
    // Out of the way, as the hint says; also what was not written is then written anew.
    fs::remove_file(&path).unwrap();
    detach(&lab, &view).unwrap();
    assert_eq!(read_image(&path), [&[1; 4096][..], &bytes[4096..]].concat());
}
