//! Virtual disk files made and changed, and the proofs of their jobs: whatever happens, a file is there whole or not at all.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use job::proofs::{self, Proof};
use job::{State, Status};
use uuid::Uuid;

use super::work::{Begin, Compact, Content, Convert, Create, Making, Work};
use super::*;
use crate::jobs::World;
use crate::support::{
    DYNAMIC, Lab, MIB, Shape as Made, content, listing, make_child, make_vhd, make_vhdx, read_image,
};

fn shape(format: DiskFormat, size: u64) -> Shape {
    Shape {
        format,
        fixed: false,
        virtual_size: size,
        block_size: 0,
        logical_sector_size: 512,
        physical_sector_size: 4096,
        disk_id: Uuid::new_v4(),
    }
}

fn done(lab: &Lab, job: Result<Uuid>) -> Status {
    let status = lab.job(job.unwrap());
    assert!(status.state.is_success(), "{status:?}");
    status
}

fn failed(lab: &Lab, job: Result<Uuid>) -> String {
    let status = lab.job(job.unwrap());
    assert_eq!(status.state, State::Failed, "{status:?}");
    status.error.unwrap().id
}

fn sound(path: &Path) {
    let report = vhdx::check(path, &vhdx::CheckOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_disk_is_made_as_it_was_asked_for() {
    let lab = Lab::new();
    let vhdx = shape(DiskFormat::Vhdx, 64 << 40);
    let wanted = [
        ("huge.vhdx", vhdx.clone()),
        ("fixed.vhdx", Shape { fixed: true, virtual_size: 5 * MIB, ..vhdx.clone() }),
        (
            "4k.vhdx",
            Shape {
                logical_sector_size: 4096,
                block_size: MIB as u32,
                virtual_size: 9 * MIB,
                ..vhdx.clone()
            },
        ),
        ("old.vhd", Shape { physical_sector_size: 512, ..shape(DiskFormat::Vhd, 7 * MIB) }),
        (
            "old fixed.vhd",
            Shape { fixed: true, physical_sector_size: 512, ..shape(DiskFormat::Vhd, 7 * MIB) },
        ),
    ];
    for (name, wanted) in wanted {
        let path = lab.path(name);
        done(&lab, lab.host().create_image(&path, &wanted, "test"));
        sound(&path);
        let image = lab.host().image(&path).unwrap();
        let block_size = if wanted.block_size == 0 { image.block_size } else { wanted.block_size };
        assert_eq!(image.shape(), Shape { block_size, ..wanted.clone() }, "{name}");
        let state = lab.host().image_state(&path).unwrap();
        assert_eq!(state.file_size, fs::metadata(&path).unwrap().len());
        assert_eq!(state.smallest.is_some(), !wanted.fixed);
        assert!(!state.in_use);
        let again = lab.host().create_image(&path, &wanted, "test").unwrap_err();
        assert_eq!(again.reason(), Reason::AlreadyExists);
    }
    done(&lab, lab.host().create_floppy(&lab.path("floppy.vfd"), "test"));
    assert_eq!(fs::read(lab.path("floppy.vfd")).unwrap(), vec![0; 1_474_560]);
    let nonsense = [
        Shape { virtual_size: 0, ..vhdx.clone() },
        Shape { virtual_size: (64 << 40) + 512, ..vhdx.clone() },
        Shape { virtual_size: 513, ..vhdx.clone() },
        Shape { block_size: 3 * MIB as u32, ..vhdx.clone() },
        Shape { block_size: 512, ..vhdx.clone() },
        Shape { logical_sector_size: 1024, ..vhdx.clone() },
        Shape { format: DiskFormat::Vhd, ..vhdx.clone() },
        Shape { logical_sector_size: 4096, ..shape(DiskFormat::Vhd, MIB) },
        Shape { format: DiskFormat::Qcow2, ..vhdx },
    ];
    for wrong in nonsense {
        let refused = lab.host().create_image(&lab.path("x.vhdx"), &wrong, "test").unwrap_err();
        assert_eq!(refused.reason(), Reason::InvalidArgument, "{wrong:?}");
    }
    let shape = shape(DiskFormat::Vhdx, MIB);
    let nowhere = lab.host().create_image(&lab.path("no/x.vhdx"), &shape, "test").unwrap_err();
    assert_eq!(nowhere.reason(), Reason::NotFound);
}

#[test]
fn what_a_disk_holds_stays_when_it_becomes_another() {
    let lab = Lab::new();
    let bytes = content(3, 6 * MIB);
    let base = lab.path("base.vhdx");
    make_vhdx(&base, DYNAMIC, &bytes);
    // A child shows its parent where it is empty: into one file both.
    let child = lab.path("child.avhdx");
    let over = [vec![7; MIB as usize], vec![0; 5 * MIB as usize]].concat();
    make_vhdx(&child, DYNAMIC, &over);
    make_child(&child, &base, "base.vhdx");
    let both = [&over[..MIB as usize], &bytes[MIB as usize..]].concat();
    assert_eq!(lab.host().image(&child).unwrap().parent.unwrap().file.unwrap(), base);
    for (n, (format, fixed)) in [
        (DiskFormat::Vhdx, true),
        (DiskFormat::Vhdx, false),
        (DiskFormat::Vhd, true),
        (DiskFormat::Vhd, false),
    ]
    .into_iter()
    .enumerate()
    {
        let to = lab.path(&format!("to{n}.{}", format.extension()));
        let wanted = Shape { fixed, ..shape(format, 0) };
        done(&lab, lab.host().convert_image(&child, &to, &wanted, "test"));
        sound(&to);
        assert_eq!(read_image(&to), both, "{format:?} {fixed}");
        assert_eq!(
            lab.host().convert_image(&child, &to, &wanted, "test").unwrap_err().reason(),
            Reason::AlreadyExists
        );
    }
    let refused = |job: Result<Uuid>| job.unwrap_err().reason();
    let host = lab.host();
    assert_eq!(refused(host.compact_image(&child, "test")), Reason::NotSupported);
    assert_eq!(refused(host.compact_image(&lab.path("to0.vhdx"), "test")), Reason::InvalidArgument);
    assert_eq!(refused(host.compact_image(&lab.path("none.vhdx"), "test")), Reason::NotFound);
    fs::write(lab.path("noise.vhdx"), content(1, MIB)).unwrap();
    assert_eq!(refused(host.compact_image(&lab.path("noise.vhdx"), "test")), Reason::InvalidArgument);
    assert_eq!(lab.host().image(&lab.path("noise.vhdx")).unwrap_err().reason(), Reason::InvalidArgument);

    done(&lab, host.check_image(&child, "test"));
    fs::rename(&base, lab.path("elsewhere.vhdx")).unwrap();
    assert_eq!(failed(&lab, host.check_image(&child, "test")), "not-found");
    assert_eq!(host.image(&child).unwrap().parent.unwrap().file, None, "what it is can be told without it");
    let file = fs::File::options().write(true).open(lab.path("elsewhere.vhdx")).unwrap();
    file.write_all_at(&[9; 8], 3 * MIB).unwrap();
    assert_eq!(failed(&lab, host.check_image(&lab.path("elsewhere.vhdx"), "test")), "bad-package");
}

#[test]
fn a_disk_grows_and_shrinks_as_far_as_it_is_empty() {
    let lab = Lab::new();
    let bytes = content(5, 6 * MIB);
    for (name, vhd) in [("a.vhdx", false), ("b.vhd", true)] {
        let path = lab.path(name);
        if vhd {
            make_vhd(&path, false, &bytes);
        } else {
            make_vhdx(&path, DYNAMIC, &bytes);
        }
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let before = lab.host().image(&path).unwrap();
        let to = |size| {
            lab.host().edit_image(&path, &ImageEdit { size: Some(size), ..ImageEdit::default() }, "test")
        };
        done(&lab, to(10 * MIB));
        sound(&path);
        let grown = read_image(&path);
        assert!(grown[..bytes.len()] == bytes && grown[bytes.len()..].iter().all(|b| *b == 0));
        let now = lab.host().image(&path).unwrap();
        assert_eq!(now, Image { virtual_size: 10 * MIB, ..before }, "all else stays");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o640);
        // The last MiB of `content` is data.
        assert_eq!(failed(&lab, to(5 * MIB)), "invalid-argument");
        assert_eq!(read_image(&path), grown);
        done(&lab, to(6 * MIB));
        assert_eq!(read_image(&path), bytes);
        assert_eq!(to(0).unwrap_err().reason(), Reason::InvalidArgument);
    }
}

#[test]
fn compacting_gives_up_blocks_of_zeros_and_identity_can_be_changed() {
    let lab = Lab::new();
    let path = lab.path("a.vhdx");
    let storage = Arc::new(vhdx::FileStorage::create_new(&path).unwrap());
    let options = vhdx::CreateOptions { block_size: MIB as u32, ..vhdx::CreateOptions::dynamic(32 * MIB) };
    let writer = vhdx::Writer::create(storage, &options).unwrap();
    writer.write_at(&vec![0; 16 << 20], 0).unwrap();
    writer.write_at(&[1; 4096], 20 * MIB).unwrap();
    writer.finish().unwrap();
    let (held, length) = (read_image(&path), fs::metadata(&path).unwrap().len());
    done(&lab, lab.host().compact_image(&path, "test"));
    sound(&path);
    assert_eq!(fs::metadata(&path).unwrap().len(), length - 16 * MIB);
    assert_eq!(read_image(&path), held);
    let state = lab.host().image_state(&path).unwrap();
    assert_eq!((state.smallest, state.aligned), (Some(21 * MIB), Some(true)));

    let id = Uuid::new_v4();
    let edit = ImageEdit { disk_id: Some(id), physical_sector_size: Some(512), ..ImageEdit::default() };
    done(&lab, lab.host().edit_image(&path, &edit, "test"));
    let now = lab.host().image(&path).unwrap();
    assert_eq!((now.disk_id, now.physical_sector_size), (id, 512));
    assert_eq!(read_image(&path), held);
}

struct Stage {
    lab: Lab,
    file: PathBuf,
}

/// Proves a kind; `hold` says what is wrong with the file at the end.
fn prove<B: Begin>(
    prepare: impl Fn(&Lab) -> Work,
    hold: impl Fn(&Path, &Status) -> std::result::Result<(), String>,
) {
    let stage: RefCell<Option<Stage>> = RefCell::new(None);
    let world = |lab: &Lab| Arc::new(World::of(lab.host()));
    let proof = Proof::<Making<B>>::new(
        || {
            let lab = Lab::new();
            fs::create_dir(lab.path("files")).unwrap();
            let work = prepare(&lab);
            let world = world(&lab);
            *stage.borrow_mut() = Some(Stage { lab, file: work.file.clone() });
            (world, work)
        },
        |_, status| {
            let stage = stage.borrow();
            let stage = stage.as_ref().unwrap();
            let there = listing(&stage.lab.path("files"));
            let partial = there.iter().any(|(name, _)| format!("{name:?}").contains("partial"));
            if partial {
                Err(format!("a partial file is left: {there:?}"))
            } else {
                hold(&stage.file, status)
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
    assert!(report.runs > 30, "{report:?}");
}

fn work(lab: &Lab, name: &str, content: Content, shape: Shape, new: bool) -> Work {
    Work { file: lab.path("files").join(name), content, shape: Some(shape), new }
}

#[test]
fn a_new_disk_is_whole_or_not_there() {
    let wanted = shape(DiskFormat::Vhdx, 64 * MIB);
    prove::<Create>(
        |lab| work(lab, "a.vhdx", Content::Nothing, wanted.clone(), true),
        |file, status| match (file.exists(), status.state.is_success()) {
            (true, true) => {
                sound(file);
                Ok(())
            }
            (false, false) => Ok(()),
            (there, _) => Err(format!("there is a file: {there}")),
        },
    );
}

#[test]
fn a_converted_disk_is_whole_or_not_there() {
    let bytes = content(1, 3 * MIB);
    let wanted = shape(DiskFormat::Vhd, 3 * MIB);
    prove::<Convert>(
        |lab| {
            let from = lab.path("from.vhdx");
            make_vhdx(&from, DYNAMIC, &bytes);
            work(lab, "a.vhd", Content::Image(from), wanted.clone(), true)
        },
        |file, status| match (file.exists(), status.state.is_success()) {
            (true, true) if read_image(file) == bytes => Ok(()),
            (false, false) => Ok(()),
            (there, _) => Err(format!("there is a file: {there}, or what it holds is not right")),
        },
    );
}

#[test]
fn a_compacted_disk_holds_what_it_held_whatever_happens() {
    let bytes = content(1, 3 * MIB);
    let made = Made { block_size: MIB as u32, ..DYNAMIC };
    prove::<Compact>(
        |lab| {
            let file = lab.path("files").join("a.vhdx");
            make_vhdx(&file, made, &bytes);
            let shape = look::look(&file).unwrap().shape();
            work(lab, "a.vhdx", Content::Image(file), shape, false)
        },
        |file, _| if read_image(file) == bytes { Ok(()) } else { Err("it holds something else".to_owned()) },
    );
}
