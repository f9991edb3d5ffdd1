//! Copies on file systems that share blocks: what is shared, that it is right by other readers, and what happens where it
//! cannot be shared.

#![expect(clippy::print_stderr, reason = "tests talk to the person who runs them")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use transfer::source::{self, OpenOptions};
use transfer::{Access, Copied, CopyOptions, HostFile, NoJournal, RawSink, Sink, Source, VhdSink, VhdxSink};
use vhdx::CreateOptions;

type Outcome = Result<(), Box<dyn Error>>;

/// A file system in a file, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, said why, where it cannot be made or mounted.
    fn new(dir: &Path, make: &str) -> Option<Self> {
        let (image, at) = (dir.join(format!("{make}.img")), dir.join(make));
        fs::create_dir(&at).ok()?;
        fs::File::create(&image).and_then(|file| file.set_len(1 << 30)).ok()?;
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        if !quiet(Command::new(make).arg(&image)) {
            eprintln!("skipped: {make} is not installed or fails");
            return None;
        }
        if !quiet(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)) {
            eprintln!("skipped: mounting needs root and a kernel that knows the file system of {make}");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
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
    // Not synced: what is shared must be written first, by the kernel.
    file.write_all_at(&vec![0; 2 << 20], 12 << 20)
}

fn copy_to(source: &dyn Source, sink: Box<dyn Sink>) -> Result<Copied, Box<dyn Error>> {
    let copied = transfer::copy(source, &*sink, &CopyOptions::default(), None, &mut NoJournal)?;
    sink.finish()?;
    Ok(copied)
}

/// Copies into a new file at `path`, of the format that its name says.
fn copy(source: &dyn Source, path: &Path, block_size: u32) -> Result<Copied, Box<dyn Error>> {
    let storage = Arc::new(HostFile::create_new(path, Access::Auto)?);
    let create = CreateOptions { block_size, ..CreateOptions::dynamic(source.size()) };
    let sink: Box<dyn Sink> = match path.extension().and_then(|e| e.to_str()) {
        Some("vhdx") => Box::new(VhdxSink::create(storage, path, &create)?),
        Some("vhd") => Box::new(VhdSink::create(storage, path, &create)?),
        _ => Box::new(RawSink::new(storage, path, source.size())?),
    };
    copy_to(source, sink)
}

fn same_by_qemu(raw: &Path, other: &Path) -> Outcome {
    let format = match other.extension().and_then(|e| e.to_str()) {
        Some("vhdx") => "vhdx",
        Some("vhd") => "vpc",
        _ => "raw",
    };
    let mut compare = Command::new("qemu-img");
    match compare.args(["compare", "-f", "raw", "-F", format]).arg(raw).arg(other).output() {
        Ok(output) => assert!(output.status.success(), "{}: {output:?}", other.display()),
        Err(_) => eprintln!("skipped: qemu-img is not installed"),
    }
    Ok(())
}

fn shares_blocks(make: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let Some(mounted) = Mounted::new(dir.path(), make) else { return Ok(()) };
    let raw = mounted.0.join("disk.raw");
    make_disk(&raw)?;
    let content = fs::read(&raw)?;
    let source = source::open(&raw, &OpenOptions::default())?;
    let root = transfer::hash(&*source, source.size(), &CopyOptions::default(), &mut NoJournal)?.root;

    for (name, block) in [("flat.raw", 0), ("1.vhdx", 1 << 20), ("32.vhdx", 32 << 20), ("2.vhd", 2 << 20)] {
        let path = mounted.0.join(name);
        let copied = copy(&*source, &path, block)?;
        assert_eq!(copied.root, root, "{name}");
        // All but what is no whole block, and nothing of the zeros that were written. Into a VHD, all is written.
        let written = if name.ends_with("vhd") { 13 << 20 } else { 3 << 20 };
        assert!(copied.written < written, "{name}: {copied:?}");
        assert!(copied.cloned + copied.written > 12 << 20, "{name}: {copied:?}");
        same_by_qemu(&raw, &path)?;
        // And back: the data of a disk file is where it can be shared from.
        let back = mounted.0.join(format!("{name}.raw"));
        let image = source::open(&path, &OpenOptions::default())?;
        let copied = copy(&*image, &back, 0)?;
        assert!(copied.cloned > 9 << 20, "{name} and back: {copied:?}");
        assert_eq!(copied.root, root, "{name} and back");
        assert!(fs::read(&back)? == content, "{name} and back");
        let stored = fs::metadata(&back)?.blocks() * 512;
        assert!(stored < 14 << 20, "{name} and back: holes and zeros stay away, {stored} bytes");
    }

    // The copy is a copy: writing to the source changes nothing in it.
    let copy_of = fs::read(mounted.0.join("flat.raw"))?;
    fs::File::options().write(true).open(&raw)?.write_all_at(&[0x5a; 8192], 0)?;
    assert!(copy_of == content && fs::read(mounted.0.join("flat.raw"))? == content);

    // From another file system nothing can be shared, and nothing is missing.
    let elsewhere = dir.path().join("elsewhere.raw");
    make_disk(&elsewhere)?;
    let source = source::open(&elsewhere, &OpenOptions::default())?;
    let path = mounted.0.join("from-elsewhere.vhdx");
    let copied = copy(&*source, &path, 1 << 20)?;
    assert_eq!((copied.cloned, copied.root), (0, root));
    same_by_qemu(&elsewhere, &path)
}

#[test]
fn xfs_shares_blocks() -> Outcome {
    shares_blocks("mkfs.xfs")
}

#[test]
fn btrfs_shares_blocks() -> Outcome {
    shares_blocks("mkfs.btrfs")
}
