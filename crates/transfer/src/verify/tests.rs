//! Packages made by the writer, broken in every way, and packages that nobody signed for.

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;
use vhdx::ExtentKind;

use super::*;
use crate::fault::FaultKind;
use crate::source::SourceIdentity;
use crate::testing::{MapSource, noise};
use crate::writer::{DiskPlan, PackagePlan, PackageWriter, TargetFormat};

const SIZE: u64 = (5 << 20) - 1024;
const CONFIG: &str = "Virtual Machines/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";

#[test]
fn a_manifest_that_is_a_link_out_of_the_package_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let package = package(dir.path());
    let manifest = package.join(manifest::PATH);
    let outside = dir.path().join("manifest.json");
    fs::rename(&manifest, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &manifest).unwrap();
    let report = verify(&package, &VerifyOptions::default()).unwrap();
    assert_eq!(report.proof, Proof::Structure);
    assert!(report.findings.iter().any(|f| f.id == "package.escapes" && f.severity == Severity::Error));
    // Without a configuration the manifest could still say what is missing; not this one.
    fs::remove_dir_all(package.join("Virtual Machines")).unwrap();
    assert!(matches!(verify(&package, &VerifyOptions::default()), Err(VerifyError::Open(_))));
}

fn configuration() -> Vec<u8> {
    let mut tree = vmcx::Tree::new();
    tree.set("configuration/properties/name", "m").unwrap();
    tree.set("configuration/_83f8638b_/controller0/drive0/pathname", r"C:\VMs\vhdx.vhdx").unwrap();
    vmcx::write_container(&tree).unwrap()
}

fn content() -> MapSource {
    let mut bytes = noise(2 << 20, 3);
    bytes.resize(4 << 20, 0);
    bytes.extend(noise((SIZE - (4 << 20)) as usize, 4));
    let map = vec![(2 << 20, ExtentKind::Data), (4 << 20, ExtentKind::Hole), (SIZE, ExtentKind::Data)];
    MapSource::new(bytes, map)
}

/// A package with a disk of each format.
fn package(dir: &Path) -> PathBuf {
    let disks = [TargetFormat::Vhdx, TargetFormat::Vhd, TargetFormat::Raw].map(|format| DiskPlan {
        path: format!("Virtual Hard Disks/{0}.{0}", format.name()),
        format,
        fixed: false,
        virtual_size: SIZE,
        block_size: if format == TargetFormat::Vhdx { 1 << 20 } else { 0 },
        logical_sector_size: 512,
        physical_sector_size: 4096,
        disk_id: Uuid::from_u128(5),
        source: SourceIdentity::default(),
    });
    let plan = PackagePlan {
        machine_id: Uuid::from_u128(1),
        machine_name: "m".into(),
        tool: "test".into(),
        generation: "1".into(),
        run: None,
        disks: disks.to_vec(),
    };
    let target = dir.join("package");
    let (mut writer, _) = PackageWriter::begin(&target, plan).unwrap();
    for disk in &disks {
        writer.add_disk(&disk.path, &content(), &CopyOptions::default()).unwrap();
    }
    writer.add_file(CONFIG, &configuration()).unwrap();
    writer.finish().unwrap();
    target
}

fn check(path: &Path) -> Report {
    verify(path, &VerifyOptions::default()).unwrap()
}

fn ids(report: &Report) -> Vec<&'static str> {
    report.findings.iter().filter(|f| f.severity == Severity::Error).map(|f| f.id).collect()
}

/// Flips a byte of a file.
fn flip(path: &Path, at: u64) {
    let file = HostFile::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x80], at).unwrap();
}

#[test]
fn what_was_written_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    let path = package(dir.path());
    let total = AtomicU64::new(0);
    let last = AtomicU64::new(0);
    let progress = |p: &Progress| {
        total.fetch_max(p.total, Ordering::Relaxed);
        assert!(p.done >= last.swap(p.done, Ordering::Relaxed), "progress never goes back");
    };
    let options =
        VerifyOptions { copy: CopyOptions { progress: &progress, ..CopyOptions::default() }, disk_dirs: &[] };
    let report = verify(&path, &options).unwrap();
    assert!(report.is_good() && report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.proof, report.files, report.disks), (Proof::Content, 1, 3));
    assert_eq!(last.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
    assert_eq!(report.bytes, last.load(Ordering::Relaxed));
    // By its configuration file as well.
    assert!(check(&path.join(CONFIG)).is_good());
}

#[test]
fn every_kind_of_damage_is_named() {
    type Damage = fn(&Path);
    let cases: &[(&str, Damage, &[&str])] = &[
        ("a byte of the configuration", |p| flip(&p.join(CONFIG), 5000), &["package.digest"]),
        (
            "a longer configuration",
            |p| fs::write(p.join(CONFIG), [configuration(), vec![0]].concat()).unwrap(),
            &["package.size"],
        ),
        ("no configuration", |p| fs::remove_file(p.join(CONFIG)).unwrap(), &["package.missing"]),
        (
            "a byte of a raw disk",
            |p| flip(&p.join("Virtual Hard Disks/raw.raw"), (1 << 20) + 5),
            &["disk.digest"],
        ),
        ("a byte in a hole", |p| flip(&p.join("Virtual Hard Disks/raw.raw"), 3 << 20), &["disk.digest"]),
        (
            "a disk cut short",
            |p| {
                let file =
                    HostFile::options().write(true).open(p.join("Virtual Hard Disks/raw.raw")).unwrap();
                file.set_len(4096).unwrap();
            },
            &["disk.geometry"],
        ),
        (
            "no disk",
            |p| fs::remove_file(p.join("Virtual Hard Disks/vhdx.vhdx")).unwrap(),
            &["package.missing"],
        ),
        (
            "a disk that is none",
            |p| fs::write(p.join("Virtual Hard Disks/vhdx.vhdx"), "x").unwrap(),
            &["disk.unreadable", "disk.unreadable"],
        ),
        ("another disk's digests", |p| flip(&p.join("Slipway/raw.raw.b3"), 100), &["package.digest-list"]),
        (
            "a disk from outside",
            |p| {
                let disk = p.join("Virtual Hard Disks/raw.raw");
                fs::rename(&disk, p.join("../raw")).unwrap();
                std::os::unix::fs::symlink("../../raw", disk).unwrap();
            },
            &["package.escapes"],
        ),
        (
            "a directory for a disk",
            |p| {
                let disk = p.join("Virtual Hard Disks/raw.raw");
                fs::remove_file(&disk).unwrap();
                fs::create_dir(disk).unwrap();
            },
            &["package.not-a-file"],
        ),
    ];
    for (what, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = package(dir.path());
        damage(&path);
        let report = check(&path);
        assert!(!report.is_good(), "{what}");
        assert_eq!(ids(&report), *expected, "{what}: {:?}", report.findings);
        let finding = report.findings.iter().find(|f| f.severity == Severity::Error).unwrap();
        assert!(finding.path.is_relative(), "{finding}");
    }
}

#[test]
fn a_difference_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = package(dir.path());
    let disk = path.join("Virtual Hard Disks/raw.raw");
    flip(&disk, (1 << 20) + 5);
    flip(&disk, 3 << 20);
    let file = HostFile::options().write(true).open(&disk).unwrap();
    file.write_all_at(&vec![0; (SIZE - (4 << 20)) as usize], 4 << 20).unwrap();
    let report = check(&path);
    let offsets: Vec<_> = report.findings.iter().map(|f| f.offset.unwrap()).collect();
    assert_eq!(offsets, [1 << 20, 3 << 20, 4 << 20], "{:?}", report.findings);
    assert!(report.findings[0].message.contains("3 of 5 chunks"), "{}", report.findings[0]);
}

#[test]
fn extra_files_are_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = package(dir.path());
    fs::write(path.join("notes.txt"), "x").unwrap();
    fs::write(path.join("Slipway/progress.json"), "left over").unwrap();
    let report = check(&path);
    assert!(report.is_good());
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].id, "package.extra");
    assert_eq!(report.findings[0].path, Path::new("notes.txt"));
}

#[test]
fn a_manifest_that_cannot_be_relied_on_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = package(dir.path());
    let manifest = path.join(manifest::PATH);
    let good = fs::read_to_string(&manifest).unwrap();
    for bad in ["", "{}", &good.replace("Virtual Hard Disks/raw.raw", "../raw.raw"), &good[..good.len() / 2]]
    {
        fs::write(&manifest, bad).unwrap();
        let error = verify(&path, &VerifyOptions::default()).unwrap_err();
        assert_eq!(error.kind(), FaultKind::Damaged);
        assert!(error.to_string().contains("manifest.json"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn without_a_manifest_the_structure_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = package(dir.path());
    fs::remove_dir_all(path.join("Slipway")).unwrap();
    let report = check(&path);
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!((report.proof, report.files, report.disks), (Proof::Structure, 1, 2));

    // A disk that the configuration names.
    fs::rename(path.join("Virtual Hard Disks/vhdx.vhdx"), dir.path().join("vhdx.vhdx")).unwrap();
    let report = check(&path);
    assert_eq!(ids(&report), ["package.disk-missing"]);
    assert!(report.findings[0].message.contains(r"C:\VMs\vhdx.vhdx"), "{}", report.findings[0]);
    let dirs = [dir.path().to_owned()];
    let options = VerifyOptions { disk_dirs: &dirs, ..VerifyOptions::default() };
    assert!(verify(&path, &options).unwrap().is_good());

    // A disk whose structures are damaged, and a configuration that is.
    fs::rename(dir.path().join("vhdx.vhdx"), path.join("Virtual Hard Disks/vhdx.vhdx")).unwrap();
    for header in [64 << 10, 128 << 10] {
        flip(&path.join("Virtual Hard Disks/vhdx.vhdx"), header + 20);
    }
    flip(&path.join(CONFIG), 8192);
    let found = check(&path);
    let found = ids(&found);
    assert!(found.contains(&"package.configuration") && found.contains(&"disk.chain"), "{found:?}");
}

#[test]
fn what_is_no_package_and_what_was_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let error = verify(dir.path(), &VerifyOptions::default()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unsupported);
    assert!(error.hint().is_some());
    let path = package(dir.path());
    let copy = CopyOptions { cancelled: &|| true, ..CopyOptions::default() };
    let error = verify(&path, &VerifyOptions { copy, disk_dirs: &[] }).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Cancelled);
    let partial = dir.path().join("package.partial");
    fs::rename(&path, &partial).unwrap();
    assert_eq!(verify(&partial, &VerifyOptions::default()).unwrap_err().kind(), FaultKind::Busy);
}
