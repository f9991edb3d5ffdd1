//! Disks through the public interface, against the world: real files, other readers, QEMU over NBD, a full and a read-only
//! file system.

#![expect(clippy::print_stderr, reason = "tests talk to the person who runs them")]

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use transfer::source::{self, DiskFormat, OpenOptions};
use transfer::{
    Access, CopyOptions, FaultKind, HostFile, NbdSink, NbdSource, NoJournal, RawSink, Sink, Source,
    SourceIdentity, VhdSink, VhdxSink,
};
use vhdx::{CreateOptions, DiskKind};

type Outcome = Result<(), Box<dyn Error>>;

fn skip(why: &str) -> Outcome {
    eprintln!("skipped: {why}");
    Ok(())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A sparse disk of 40 MiB less a sector with data, written zeros and holes.
fn make_disk(path: &Path) -> std::io::Result<()> {
    let file = fs::File::create(path)?;
    file.set_len((40 << 20) - 512)?;
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    for at in [0, (7 << 20) + 4096, 20 << 20, (37 << 20) - 512] {
        file.write_all_at(&noise, at)?;
    }
    file.write_all_at(&vec![0; 2 << 20], 12 << 20)?;
    file.sync_all()
}

fn copy_to(source: &dyn Source, sink: Box<dyn Sink>) -> Result<transfer::Digest, Box<dyn Error>> {
    let copied = transfer::copy(source, &*sink, &CopyOptions::default(), None, &mut NoJournal)?;
    sink.finish()?;
    Ok(copied.root)
}

#[test]
fn formats_agree_with_each_other_and_with_qemu() -> Outcome {
    let dir = tempfile::tempdir()?;
    let raw = dir.path().join("disk.raw");
    make_disk(&raw)?;
    let source = source::open(&raw, &OpenOptions::default())?;
    let mut roots =
        vec![transfer::hash(&*source, source.size(), &CopyOptions::default(), &mut NoJournal)?.root];
    let mut made = Vec::new();
    for block in [1_u32, 2, 32, 256] {
        for kind in [DiskKind::Dynamic, DiskKind::Fixed] {
            let path = dir.path().join(format!("{block}-{kind:?}.vhdx"));
            let options =
                CreateOptions { block_size: block << 20, kind, ..CreateOptions::dynamic(source.size()) };
            let storage = Arc::new(HostFile::create_new(&path, Access::Auto)?);
            roots.push(copy_to(&*source, Box::new(VhdxSink::create(storage, &path, &options)?))?);
            made.push((path, "vhdx"));
        }
    }
    for kind in [DiskKind::Dynamic, DiskKind::Fixed] {
        let path = dir.path().join(format!("{kind:?}.vhd"));
        let options = CreateOptions { kind, ..CreateOptions::dynamic(source.size()) };
        let storage = Arc::new(HostFile::create_new(&path, Access::Auto)?);
        roots.push(copy_to(&*source, Box::new(VhdSink::create(storage, &path, &options)?))?);
        made.push((path, "vpc"));
    }
    for (path, _) in &made {
        let image = source::open(path, &OpenOptions::default())?;
        roots.push(transfer::hash(&*image, image.size(), &CopyOptions::default(), &mut NoJournal)?.root);
    }
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");

    if !has("qemu-img") {
        return skip("qemu-img is not installed");
    }
    for (path, format) in &made {
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-f", "raw", "-F", format]).arg(&raw).arg(path);
        let output = compare.output()?;
        assert!(output.status.success(), "{}: {output:?}", path.display());
    }
    Ok(())
}

#[test]
fn a_format_of_the_engine_s_is_named() -> Outcome {
    let dir = tempfile::tempdir()?;
    let qcow2 = dir.path().join("disk.img");
    fs::write(&qcow2, b"QFI\xfb\0\0\0\x03")?;
    assert_eq!(source::sniff(&qcow2)?, DiskFormat::Engine("qcow2"));
    let error = source::open(&qcow2, &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unsupported);
    assert!(error.to_string().contains("qcow2") && error.to_string().contains("disk.img"), "{error}");
    // A raw disk whose guest wrote that header is opened as what it is recorded to be.
    assert_eq!(source::open_as(&qcow2, DiskFormat::Raw, &OpenOptions::default())?.size(), 8);
    Ok(())
}

/// A `qemu-nbd`, ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(image: &Path, socket: &Path) -> Result<(Server, nbd::Client), Box<dyn Error>> {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared=4", "--discard=unmap", "--format=qcow2", "--socket"]);
    let server = Server(command.arg(socket).arg(image).spawn()?);
    for _ in 0..500 {
        if let Ok(client) = nbd::Client::connect_unix(socket, "", &[nbd::allocation::CONTEXT]) {
            return Ok((server, client));
        }
        // The server has no other way to say that it listens.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err("qemu-nbd does not answer".into())
}

#[test]
fn qcow2_comes_and_goes_over_nbd() -> Outcome {
    if !has("qemu-nbd") || !has("qemu-img") {
        return skip("qemu-nbd or qemu-img is not installed");
    }
    let dir = tempfile::tempdir()?;
    let raw = dir.path().join("disk.raw");
    make_disk(&raw)?;
    let source = source::open(&raw, &OpenOptions::default())?;
    let qcow2 = dir.path().join("disk.qcow2");
    let size = source.size().to_string();
    let made =
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&qcow2).arg(size).status()?;
    assert!(made.success());

    let (server, client) = serve(&qcow2, &dir.path().join("out"))?;
    let root = copy_to(&*source, Box::new(NbdSink::new(client, &qcow2, true)?))?;
    drop(server);
    let output = Command::new("qemu-img").arg("compare").arg(&raw).arg(&qcow2).output()?;
    assert!(output.status.success(), "{output:?}");

    let (_server, client) = serve(&qcow2, &dir.path().join("in"))?;
    let identity = SourceIdentity { generation: "1".into(), layers: Vec::new() };
    let back = NbdSource::new(client, &qcow2, (512, 4096), identity);
    let measure = transfer::measure(&back, 0, u64::MAX, &|| false)?;
    assert!(measure.data < 16 << 20, "holes come from metadata: {measure:?}");
    let path = dir.path().join("back.raw");
    let storage = Arc::new(HostFile::create_new(&path, Access::Auto)?);
    assert_eq!(copy_to(&back, Box::new(RawSink::new(storage, &path, back.size())?))?, root);
    assert!(fs::read(&path)? == fs::read(&raw)?);
    Ok(())
}

#[test]
fn a_server_that_dies_is_not_a_disk_that_is_gone() -> Outcome {
    if !has("qemu-nbd") || !has("qemu-img") {
        return skip("qemu-nbd or qemu-img is not installed");
    }
    let dir = tempfile::tempdir()?;
    let qcow2 = dir.path().join("disk.qcow2");
    Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&qcow2).arg("1M").status()?;
    let (server, client) = serve(&qcow2, &dir.path().join("socket"))?;
    let source = NbdSource::new(client, &qcow2, (512, 4096), SourceIdentity::default());
    drop(server);
    let error = source.read_at(&mut [0; 512], 0).unwrap_err();
    assert_eq!(error.kind(), FaultKind::ServerLost, "{error:?}");
    assert!(error.to_string().contains("disk.qcow2"), "{error}");
    Ok(())
}

/// A small file system of our own, unmounted when dropped; `None` without the right to mount.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "slipway-test"]).arg(dir).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_target_is_told_and_nothing_is_lost() -> Outcome {
    let dir = tempfile::tempdir()?;
    let raw = dir.path().join("disk.raw");
    make_disk(&raw)?;
    let full = dir.path().join("full");
    fs::create_dir(&full)?;
    let Some(_mount) = Mount::new(&full, "size=8m") else { return skip("mounting needs root") };
    let source = source::open(&raw, &OpenOptions::default())?;
    let plan = transfer::PackagePlan {
        machine_id: "00000000-0000-0000-0000-000000000001".parse()?,
        machine_name: "m".into(),
        tool: "test".into(),
        generation: "1".into(),
        run: None,
        disks: vec![transfer::DiskPlan {
            path: "Virtual Hard Disks/a.vhdx".into(),
            format: transfer::TargetFormat::Vhdx,
            fixed: false,
            virtual_size: source.size(),
            block_size: 1 << 20,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            disk_id: "00000000-0000-0000-0000-000000000002".parse()?,
            source: source.identity()?,
        }],
    };
    let target = full.join("package");
    let options = CopyOptions { checkpoint_bytes: 1, ..CopyOptions::default() };
    let (mut writer, _) = transfer::PackageWriter::begin(&target, plan.clone())?;
    let error = writer.add_disk("Virtual Hard Disks/a.vhdx", &*source, &options).unwrap_err();
    assert_eq!(error.kind(), FaultKind::NoSpace, "{error:?}");
    assert!(error.needed().is_some_and(|needed| needed > 1 << 20), "{error:?}");
    assert!(error.hint().is_some());
    drop(writer);
    assert!(!target.exists());

    // Trying again while it is still full neither helps nor harms.
    let (mut writer, _) = transfer::PackageWriter::begin(&target, plan.clone())?;
    let error = writer.add_disk("Virtual Hard Disks/a.vhdx", &*source, &options).unwrap_err();
    assert_eq!(error.kind(), FaultKind::NoSpace, "{error:?}");
    drop(writer);

    // With space made, it goes on from where it was.
    let grown = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&full).status()?;
    assert!(grown.success());
    let (mut writer, beginning) = transfer::PackageWriter::begin(&target, plan)?;
    assert!(matches!(beginning, transfer::Beginning::Resumed { .. }), "{beginning:?}");
    let written = writer.add_disk("Virtual Hard Disks/a.vhdx", &*source, &options)?;
    writer.finish()?;
    assert!(transfer::verify(&target, &Default::default())?.is_good());
    let started_over = matches!(written.outcome, transfer::writer::DiskOutcome::StartedOver { .. });
    assert!(!started_over, "{:?}", written.outcome);
    Ok(())
}

#[test]
fn a_read_only_target_is_told() -> Outcome {
    let dir = tempfile::tempdir()?;
    let Some(_mount) = Mount::new(dir.path(), "ro,size=1m") else { return skip("mounting needs root") };
    let plan = transfer::PackagePlan {
        machine_id: "00000000-0000-0000-0000-000000000001".parse()?,
        machine_name: "m".into(),
        tool: "test".into(),
        generation: "1".into(),
        run: None,
        disks: Vec::new(),
    };
    let error = transfer::PackageWriter::begin(&dir.path().join("package"), plan.clone()).unwrap_err();
    assert_eq!(error.kind(), FaultKind::ReadOnly, "{error:?}");
    assert!(error.to_string().contains("package") && error.hint().is_some());
    // The top of a file system cannot be renamed over.
    let error = transfer::PackageWriter::begin(dir.path(), plan).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unsupported, "{error:?}");
    Ok(())
}

#[test]
fn real_disks_read_as_their_manifest_says() -> Outcome {
    let Some(samples) = std::env::var_os("SLIPWAY_SAMPLES") else {
        return skip("SLIPWAY_SAMPLES is not set");
    };
    if !has("xz") {
        return skip("xz is not installed");
    }
    // SHA-256 of the content by three independent readers, from the samples' MANIFEST.
    let known = [
        ("vhdx/win10-dynamic.vhdx.xz", "8e2b5e9265d694b42b81819e3bff29770eff4ed0f4f9f311693ff3dbdc93efac"),
        ("vhd/win10-fixed.vhd.xz", "459325ab1fcd1d5ec9854cba790ee26378317cda177ffc1072008a1df88e6463"),
        ("vhd/ext2.vhd.xz", "870be7ae16c1fa8faab05c6eb9205dc9a7ae35c5f552c5cf8a267c0bc6a5cb99"),
    ];
    let dir = tempfile::tempdir()?;
    for (number, (name, expected)) in known.iter().enumerate() {
        let disk = dir.path().join(format!("{number}.disk"));
        let unpack = Command::new("xz").arg("-dc").arg(Path::new(&samples).join(name)).output()?;
        fs::write(&disk, unpack.stdout)?;
        let source = source::open(&disk, &OpenOptions::default())?;
        let raw = dir.path().join(format!("{number}.raw"));
        let storage = Arc::new(HostFile::create_new(&raw, Access::Auto)?);
        copy_to(&*source, Box::new(RawSink::new(storage, &raw, source.size())?))?;
        let mut content = Vec::new();
        fs::File::open(&raw)?.read_to_end(&mut content)?;
        let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, *expected, "{name}");
    }
    Ok(())
}
