//! Death at every operation, and what is left of it; resumption; refusals.

mod crashfs;

use std::fs as host;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use vhdx::{ExtentKind, Image};

use super::*;
use crate::source::{OpenOptions, RawSource, SourceIdentity};
use crate::testing::{MapSource, noise, root_by_definition};
use crashfs::{Crash, CrashFs};

const CONFIG: &str = "Virtual Machines/00000000-0000-0000-0000-000000000001.vmcx";

/// Bytes on each test disk: data with zeros inside, a hole, data that ends off any boundary but the sector's.
const SIZE: u64 = (3 << 20) - 512;

/// The content and its root digest, made once: these tests run hundreds of exports.
fn content() -> &'static (Vec<u8>, Digest) {
    static CONTENT: OnceLock<(Vec<u8>, Digest)> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let mut bytes = noise(1 << 20, 1);
        bytes[300_000..700_000].fill(0);
        bytes.resize(2 << 20, 0);
        bytes.extend(noise((SIZE - (2 << 20)) as usize, 2));
        let root = root_by_definition(&bytes);
        (bytes, root)
    })
}

fn source(generation: &str) -> MapSource {
    let map = vec![(1 << 20, ExtentKind::Data), (2 << 20, ExtentKind::Hole), (SIZE, ExtentKind::Data)];
    let source = MapSource::new(content().0.clone(), map);
    source.identity.lock().unwrap().generation = generation.into();
    source
}

fn disk_plan(path: &str, format: TargetFormat, generation: &str) -> DiskPlan {
    DiskPlan {
        path: path.into(),
        format,
        fixed: false,
        virtual_size: SIZE,
        block_size: if format == TargetFormat::Vhdx { 1 << 20 } else { 0 },
        logical_sector_size: 512,
        physical_sector_size: 4096,
        disk_id: Uuid::from_u128(7),
        source: SourceIdentity { generation: generation.into(), layers: Vec::new() },
    }
}

fn plan(generation: &str) -> PackagePlan {
    PackagePlan {
        machine_id: Uuid::from_u128(1),
        machine_name: "Größe".into(),
        tool: "test".into(),
        generation: generation.into(),
        run: Some("job-1".into()),
        disks: vec![
            disk_plan("Virtual Hard Disks/a.vhdx", TargetFormat::Vhdx, generation),
            disk_plan("Virtual Hard Disks/b.raw", TargetFormat::Raw, generation),
        ],
    }
}

fn options() -> CopyOptions<'static> {
    CopyOptions { workers: 1, io_size: 1 << 20, checkpoint_bytes: 1, ..CopyOptions::default() }
}

/// One export, as a job would do it.
fn export(fs: Arc<dyn Fs>, target: &Path, generation: &str) -> Result<(Manifest, Beginning), WriterError> {
    let (mut writer, beginning) = PackageWriter::begin_on(fs, target, plan(generation))?;
    let source = source(generation);
    writer.add_disk("Virtual Hard Disks/a.vhdx", &source, &options())?;
    writer.add_disk("Virtual Hard Disks/b.raw", &source, &options())?;
    writer.add_directory("Snapshots")?;
    writer.add_file(CONFIG, b"configuration")?;
    Ok((writer.finish()?, beginning))
}

/// What is at the target is nothing, or a whole package. True when it is there.
fn whole_or_absent(fs: &CrashFs, target: &Path) -> bool {
    if fs.entry(target).unwrap() == EntryKind::Absent {
        return false;
    }
    let manifest = Manifest::parse(&fs.read(&target.join(manifest::PATH)).unwrap()).unwrap();
    assert_eq!(manifest.disks.len(), 2);
    for file in &manifest.files {
        let bytes = fs.read(&target.join(&file.path)).unwrap();
        assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (file.size, file.blake3));
    }
    let (expected, root) = content();
    for disk in &manifest.disks {
        let storage = fs.open(&target.join(&disk.path)).unwrap();
        let mut bytes = vec![0; disk.virtual_size as usize];
        if disk.format == "raw" {
            storage.read_at(&mut bytes, 0).unwrap();
        } else {
            Image::open_storage(storage, "x", &Default::default()).unwrap().read_at(&mut bytes, 0).unwrap();
        }
        assert!(bytes == *expected, "{}", disk.path);
        assert_eq!(disk.digest.root, *root);
        let list = fs.read(&target.join(disk.digest.chunks.as_ref().unwrap())).unwrap();
        let list = vhdx::MemoryStorage::new(list);
        assert_eq!(digest::Sidecar::open(&list).unwrap().root().unwrap(), disk.digest.root);
    }
    true
}

#[test]
fn an_export_ends_complete() {
    let fs = CrashFs::new();
    let target = Path::new("/t/export");
    let (manifest, beginning) = export(Arc::new(fs.clone()), target, "1").unwrap();
    assert_eq!(beginning, Beginning::Fresh);
    assert!(whole_or_absent(&fs, target));
    // Nothing that counts depends on what was not synced.
    assert!(whole_or_absent(&fs.after(Crash::PowerLoss), target));
    let names: Vec<_> = fs.files().iter().map(|p| p.strip_prefix(target).unwrap().to_owned()).collect();
    let expected = [
        "Slipway/a.vhdx.b3",
        "Slipway/b.raw.b3",
        "Slipway/manifest.json",
        "Virtual Hard Disks/a.vhdx",
        "Virtual Hard Disks/b.raw",
        CONFIG,
    ];
    assert_eq!(names, expected.map(PathBuf::from));
    assert_eq!(manifest.extra["run"], "job-1");
    let error = export(Arc::new(fs), target, "1").unwrap_err();
    assert_eq!(error.kind(), FaultKind::AlreadyExists);
}

/// The heart of it: die at every single change, lose any part of what was not synced, go on.
#[test]
fn death_at_any_operation_leaves_nothing_partial_or_all() {
    let target = Path::new("/t/export");
    let (mut resumed, mut n) = (0, 0);
    loop {
        n += 1;
        let fs = CrashFs::new();
        fs.die_after(n);
        let outcome = export(Arc::new(fs.clone()), target, "1");
        if !fs.is_dead() {
            break; // There is no n-th change.
        }
        for crash in [Crash::Kill, Crash::PowerLoss, Crash::Some(n)] {
            let next = fs.after(crash);
            if whole_or_absent(&next, target) {
                continue;
            }
            // The one death that fails nothing is that at removing the journal of a package in place.
            assert!(outcome.is_err(), "died at {n}, {crash:?}");
            let (_, beginning) = export(Arc::new(next.clone()), target, "1")
                .unwrap_or_else(|error| panic!("died at {n}, {crash:?}: {error:?}"));
            if matches!(beginning, Beginning::Resumed { done } if done > 0) {
                resumed += 1;
            }
            assert!(whole_or_absent(&next, target), "died at {n}, {crash:?}");
            assert!(whole_or_absent(&next.after(Crash::PowerLoss), target));
        }
    }
    assert!(n > 50, "{n}");
    assert!(resumed > n / 2, "{resumed} of {n} went on");
}

#[test]
fn death_around_the_rename_leaves_one_name_or_the_other() {
    let target = Path::new("/t/export");
    let partial = partial_path(target);
    let journal = target.join(JOURNAL_PATH);
    // (fatal operation, its path, whole after a kill, whole after power loss)
    let cases = [
        ("rename", &*partial, false, false),
        ("sync", Path::new("/t"), true, false),
        ("remove", &journal, true, true),
    ];
    for (operation, path, after_kill, after_loss) in cases {
        let fs = CrashFs::new();
        let (mut writer, _) = PackageWriter::begin_on(Arc::new(fs.clone()), target, plan("1")).unwrap();
        writer.add_disk("Virtual Hard Disks/a.vhdx", &source("1"), &options()).unwrap();
        writer.add_disk("Virtual Hard Disks/b.raw", &source("1"), &options()).unwrap();
        fs.die_on(operation, path);
        assert_eq!(writer.finish().is_ok(), operation == "remove");
        assert!(fs.is_dead());
        assert_eq!(whole_or_absent(&fs.after(Crash::Kill), target), after_kill, "{operation}");
        let next = fs.after(Crash::PowerLoss);
        assert_eq!(whole_or_absent(&next, target), after_loss, "{operation}");
        if !after_loss {
            let (_, beginning) = export(Arc::new(next), target, "1").unwrap();
            assert_eq!(beginning, Beginning::Resumed { done: 2 * SIZE });
        }
    }
}

#[test]
fn death_while_resuming_and_while_starting_over_is_no_worse() {
    let target = Path::new("/t/export");
    for generation in ["1", "2"] {
        let mut n = 0;
        loop {
            n += 7;
            let second = interrupted();
            second.die_after(n);
            if export(Arc::new(second.clone()), target, generation).is_ok() {
                break;
            }
            let third = second.after(Crash::Some(n));
            if !whole_or_absent(&third, target) {
                export(Arc::new(third.clone()), target, generation).unwrap();
                assert!(whole_or_absent(&third, target));
            }
        }
    }
}

/// Dies late in the second disk, and comes back.
fn interrupted() -> CrashFs {
    static FOUND: OnceLock<CrashFs> = OnceLock::new();
    FOUND.get_or_init(find_interrupted).after(Crash::Kill)
}

fn find_interrupted() -> CrashFs {
    let target = Path::new("/t/export");
    let whole = CrashFs::new();
    let before = whole.changes();
    export(Arc::new(whole.clone()), target, "1").unwrap();
    let changes = whole.changes() - before;
    // Back from the end until the second disk was under way: how many changes one takes depends on timing.
    for n in (1..changes).rev() {
        let fs = CrashFs::new();
        fs.die_after(n);
        if export(Arc::new(fs.clone()), target, "1").is_ok() {
            continue;
        }
        let next = fs.after(Crash::PowerLoss);
        let Ok(journal) = Journal::load(&next, &partial_path(target)) else { continue };
        if journal.disks[0].complete && (1..SIZE).contains(&journal.disks[1].watermark) {
            return next;
        }
    }
    panic!("no change was in the middle of the second disk")
}

#[test]
fn what_is_synced_is_not_copied_again() {
    let fs = interrupted();
    let (mut writer, beginning) =
        PackageWriter::begin_on(Arc::new(fs), Path::new("/t/export"), plan("1")).unwrap();
    let Beginning::Resumed { done } = beginning else { panic!("{beginning:?}") };
    assert!(done > SIZE, "{done}");
    let written = writer.add_disk("Virtual Hard Disks/a.vhdx", &source("1"), &options()).unwrap();
    assert_eq!(written.outcome, DiskOutcome::Kept);
    assert_eq!((written.read, written.written), (0, 0));
    let written = writer.add_disk("Virtual Hard Disks/b.raw", &source("1"), &options()).unwrap();
    let DiskOutcome::Resumed { from } = written.outcome else { panic!("{:?}", written.outcome) };
    assert!(from >= 1 << 20);
    assert!(written.read <= 1 << 20, "{}", written.read);
}

#[test]
fn another_instant_starts_over_and_says_so() {
    let fs = interrupted();
    let (_, beginning) = export(Arc::new(fs.clone()), Path::new("/t/export"), "2").unwrap();
    assert_eq!(beginning, Beginning::StartedOver { reason: "the machine has run since".into() });
    assert!(whole_or_absent(&fs, Path::new("/t/export")));
}

#[test]
fn each_difference_starts_over() {
    type Change = fn(&mut PackagePlan);
    let changes: [(Change, &str); 6] = [
        (|p| p.machine_id = Uuid::from_u128(99), "another machine"),
        (|p| p.disks.truncate(1), "other disks"),
        (|p| p.disks[0].block_size = 2 << 20, "other properties"),
        (|p| p.disks[0].disk_id = Uuid::from_u128(8), "other properties"),
        (|p| p.disks[1].source.generation = "x".into(), "source of"),
        (
            |p| {
                p.disks[1].source.layers.push(crate::source::LayerIdentity {
                    path: "/x".into(),
                    size: 1,
                    mtime_ns: 1,
                    device: 1,
                    inode: 1,
                });
            },
            "source of",
        ),
    ];
    for (change, said) in changes {
        let mut plan = plan("1");
        change(&mut plan);
        let begun = PackageWriter::begin_on(Arc::new(interrupted()), Path::new("/t/export"), plan).unwrap();
        match begun.1 {
            Beginning::StartedOver { reason } => assert!(reason.contains(said), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn storage_that_lied_is_found_out() {
    let target = Path::new("/t/export");
    for path in ["Virtual Hard Disks/a.vhdx", "Virtual Hard Disks/b.raw"] {
        let fs = interrupted();
        fs.corrupt(&partial_path(target).join(path), |bytes| {
            // Payload near the start of the disk in both formats.
            let at = if path.ends_with("raw") { 1000 } else { (4 << 20) + 1000 };
            bytes[at] ^= 1;
        });
        let (mut writer, _) = PackageWriter::begin_on(Arc::new(fs.clone()), target, plan("1")).unwrap();
        for disk in ["Virtual Hard Disks/a.vhdx", "Virtual Hard Disks/b.raw"] {
            let written = writer.add_disk(disk, &source("1"), &options()).unwrap();
            let anew = matches!(written.outcome, DiskOutcome::StartedOver { .. });
            assert_eq!(anew, disk == path, "{disk}: {:?}", written.outcome);
        }
        writer.finish().unwrap();
        assert!(whole_or_absent(&fs, target));
    }
    // A record of progress that is not one.
    for garbage in [&b"{"[..], b"", b"{\"format\":\"x\"}", &[b'['; 10_000]] {
        let fs = interrupted();
        fs.corrupt(&partial_path(target).join(JOURNAL_PATH), |bytes| *bytes = garbage.to_vec());
        let (_, beginning) = export(Arc::new(fs.clone()), target, "1").unwrap();
        assert!(matches!(beginning, Beginning::StartedOver { .. }), "{beginning:?}");
        assert!(whole_or_absent(&fs, target));
    }
}

#[test]
fn another_source_than_planned_is_refused() {
    let fs = Arc::new(CrashFs::new());
    let (mut writer, _) = PackageWriter::begin_on(fs, Path::new("/t/export"), plan("1")).unwrap();
    let error = writer.add_disk("Virtual Hard Disks/a.vhdx", &source("2"), &options()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Changed);
    let error = writer.add_disk("Virtual Hard Disks/c.vhdx", &source("1"), &options()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unsupported);
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("has not been copied"), "{error}");
}

#[test]
fn names_stay_inside() {
    let fs = Arc::new(CrashFs::new());
    let (mut writer, _) = PackageWriter::begin_on(fs.clone(), Path::new("/t/export"), plan("1")).unwrap();
    for bad in ["../x", "/x", "a/../b", "", "Slipway/manifest.json", "slipway/x", "VIRTUAL HARD DISKS/A.VHDX"]
    {
        assert!(writer.add_file(bad, b"").is_err(), "{bad}");
    }
    writer.add_file("x", b"").unwrap();
    assert!(writer.add_file("X", b"").is_err());
    let mut bad = plan("1");
    bad.disks[1].path = "Other/A.VHDX".into();
    assert!(PackageWriter::begin_on(fs.clone(), Path::new("/t/other"), bad).is_err());
    let mut bad = plan("1");
    bad.disks[1].path = "../b.raw".into();
    assert!(PackageWriter::begin_on(fs, Path::new("/t/other"), bad).is_err());
}

#[test]
fn abandoning_and_discarding_leave_nothing() {
    let fs = CrashFs::new();
    let target = Path::new("/t/export");
    let (writer, _) = PackageWriter::begin_on(Arc::new(fs.clone()), target, plan("1")).unwrap();
    writer.abandon().unwrap();
    assert!(fs.files().is_empty());
    assert_eq!(fs.after(Crash::PowerLoss).entry(&partial_path(target)).unwrap(), EntryKind::Absent);
    let fs = interrupted();
    assert!(discard_on(&fs, target).unwrap());
    assert!(!discard_on(&fs, target).unwrap());
    assert!(fs.files().is_empty());
}

// From here on, the real file system.

fn host_plan(dir: &Path) -> (PackagePlan, RawSource) {
    let path = dir.join("source.raw");
    host::write(&path, source("").bytes).unwrap();
    let options = OpenOptions { generation: "1".into(), ..OpenOptions::default() };
    let source = RawSource::open(&path, &options).unwrap();
    let mut plan = plan("1");
    plan.disks.truncate(1);
    plan.disks[0].source = source.identity().unwrap();
    (plan, source)
}

#[test]
fn the_host_s_file_system_works_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, source) = host_plan(dir.path());
    let target = dir.path().join("Größe 機械");
    let (mut writer, _) = PackageWriter::begin(&target, plan.clone()).unwrap();
    // Two at once: the second is told.
    let error = PackageWriter::begin(&target, plan.clone()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Busy);
    assert_eq!(discard(&target).unwrap_err().kind(), FaultKind::Busy);
    drop(writer);
    let (again, beginning) = PackageWriter::begin(&target, plan.clone()).unwrap();
    assert_eq!(beginning, Beginning::Resumed { done: 0 });
    writer = again;
    writer.add_disk("Virtual Hard Disks/a.vhdx", &source, &options()).unwrap();
    let state = dir.path().join("state.vmgs");
    host::write(&state, noise(3_000_000, 9)).unwrap();
    writer.add_file_from("Virtual Machines/x.vmgs", &state, &|| false).unwrap();
    writer.add_file(CONFIG, b"configuration").unwrap();
    writer.exclude("disk", "d.vhdx", "the user said so");
    assert_eq!(find_completed(&target, "job-1").unwrap(), None);
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest.files[0].blake3, Digest::of(&noise(3_000_000, 9)));
    assert_eq!(find_completed(&target, "job-1").unwrap(), Some(manifest));
    assert_eq!(find_completed(&target, "job-2").unwrap(), None);
    assert!(!partial_path(&target).exists());
    assert!(!target.join(JOURNAL_PATH).exists());
    let error = PackageWriter::begin(&target, plan).unwrap_err();
    assert_eq!(error.kind(), FaultKind::AlreadyExists);
    assert!(error.hint().is_some());
}

#[test]
fn an_empty_directory_is_taken_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, source) = host_plan(dir.path());
    let target = dir.path().join("made by the client");
    host::create_dir(&target).unwrap();
    let (mut writer, _) = PackageWriter::begin(&target, plan.clone()).unwrap();
    writer.add_disk("Virtual Hard Disks/a.vhdx", &source, &options()).unwrap();
    // Somebody puts something there at the last moment.
    host::write(target.join("precious"), "x").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), FaultKind::AlreadyExists);
    assert_eq!(host::read(target.join("precious")).unwrap(), b"x");
    // What was copied is still there for the next try.
    host::remove_file(target.join("precious")).unwrap();
    let (mut writer, beginning) = PackageWriter::begin(&target, plan.clone()).unwrap();
    assert_eq!(beginning, Beginning::Resumed { done: SIZE });
    let written = writer.add_disk("Virtual Hard Disks/a.vhdx", &source, &options()).unwrap();
    assert_eq!(written.outcome, DiskOutcome::Kept);
    writer.finish().unwrap();

    // A `.partial` that is not ours is nobody's to delete.
    let other = dir.path().join("other");
    host::create_dir(partial_path(&other)).unwrap();
    host::write(partial_path(&other).join("thesis.txt"), "x").unwrap();
    assert_eq!(PackageWriter::begin(&other, plan.clone()).unwrap_err().kind(), FaultKind::AlreadyExists);
    assert_eq!(discard(&other).unwrap_err().kind(), FaultKind::AlreadyExists);
    assert!(partial_path(&other).join("thesis.txt").exists());
    // No directory above.
    let error = PackageWriter::begin(&dir.path().join("no/such"), plan).unwrap_err();
    assert_eq!(error.kind(), FaultKind::NotFound);
    assert!(error.hint().unwrap().starts_with("mkdir -p "));
}

#[test]
fn a_cancelled_export_can_be_abandoned_or_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, source) = host_plan(dir.path());
    let target = dir.path().join("export");
    let (mut writer, _) = PackageWriter::begin(&target, plan).unwrap();
    let cancelled = CopyOptions { cancelled: &|| true, ..options() };
    let error = writer.add_disk("Virtual Hard Disks/a.vhdx", &source, &cancelled).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Cancelled);
    writer.abandon().unwrap();
    assert!(!partial_path(&target).exists() && !target.exists());
}
