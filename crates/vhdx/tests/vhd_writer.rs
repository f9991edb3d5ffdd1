//! What `VhdWriter` makes, read back by ourselves against a byte vector and by independent readers.

mod support;

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use sha2::Digest;
use support::content_hash;
use support::storage::CrashStorage;
use vhdx::check::check_storage;
use vhdx::vhd::VhdWriter;
use vhdx::{
    CheckOptions, CreateErrorKind, CreateOptions, DiskKind, ExtentKind, FileStorage, Image, ImageOptions,
    MemoryStorage, OpenErrorKind, Storage, WriteErrorKind,
};

const KIB: u64 = 1024;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The largest block, in bytes.
const LARGEST: u32 = 256 << 20;

fn options(virtual_size: u64, block_size: u32, kind: DiskKind) -> CreateOptions {
    CreateOptions { block_size, kind, ..CreateOptions::dynamic(virtual_size) }
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| ((at + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 | 1).collect()
}

fn open(storage: Arc<dyn Storage>) -> Image {
    Image::open_storage(storage, "disk", &ImageOptions::default()).expect("opening what was written")
}

fn assert_sound(storage: Arc<dyn Storage>) {
    let report = check_storage(storage, "disk", &CheckOptions::default()).expect("checking");
    assert_eq!(report.findings, [], "a file of ours breaks no rule, nor is there anything to remark");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(
        sectors in 1_u64..5000, fixed: bool,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..700_000, any::<u64>(), 0..5), 0..10),
    ) {
        let size = sectors * 512;
        let kind = if fixed { DiskKind::Fixed } else { DiskKind::Dynamic };
        let storage = Arc::new(MemoryStorage::default());
        let options = options(size, 512 << 10, kind);
        let writer = VhdWriter::create(storage.clone(), &options).expect("creating");
        let mut model = vec![0; size as usize];
        let mut touched = vec![fixed; size.div_ceil(512 * KIB) as usize];
        for (start, length, seed, what) in steps {
            let start = start.index(size as usize);
            let end = (start + length).min(size as usize);
            if what == 0 {
                writer.mark_zero(start as u64, (end - start) as u64).expect("zeroing");
                model[start..end].fill(0);
            } else {
                let data = pattern(seed, end - start);
                writer.write_at(&data, start as u64).expect("writing");
                model[start..end].copy_from_slice(&data);
                if start < end {
                    touched[start >> 19..=(end - 1) >> 19].fill(true);
                }
            }
        }
        writer.finish().expect("finishing");
        assert_sound(storage.clone());
        let image = open(storage);
        let mut read = vec![0xee; size as usize];
        image.read_at(&mut read, 0).expect("reading");
        prop_assert!(read == model);
        let info = &image.layers()[0].info;
        prop_assert_eq!((info.kind, info.virtual_size, info.disk_id), (kind, size, options.disk_id));
        let mut at = 0;
        for extent in image.extents(0, size) {
            let extent = extent.expect("mapping");
            prop_assert_eq!(extent.offset, at);
            at = extent.end();
            for block in extent.offset >> 19..=(extent.end() - 1) >> 19 {
                prop_assert_eq!(touched[block as usize], extent.kind == ExtentKind::Data);
            }
        }
        prop_assert_eq!(at, size);
    }
}

#[test]
fn threads_fill_one_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk.vhd");
    let size = 33 * MIB + 512;
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::create_new(&path).expect("creating"));
    let writer = VhdWriter::create(storage, &options(size, 0, DiskKind::Dynamic)).expect("creating");
    let model = pattern(5, size as usize);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (writer, model) = (&writer, &model);
            // Pieces of all threads meet in every block.
            scope.spawn(move || {
                for (number, piece) in
                    model.chunks(300_001).enumerate().filter(|(number, _)| number % 4 == thread)
                {
                    writer.write_at(piece, number as u64 * 300_001).expect("writing");
                }
            });
        }
    });
    writer.finish().expect("finishing");
    let image = Image::open(&path, &ImageOptions::default()).expect("opening");
    let mut read = vec![0; size as usize];
    image.read_at(&mut read, 0).expect("reading");
    assert!(read == model);
    assert_sound(Arc::new(FileStorage::open_read(&path).expect("opening")));
}

#[test]
fn options_that_no_vhd_can_have_are_refused() {
    let create = |options: &CreateOptions| {
        VhdWriter::create(Arc::new(MemoryStorage::default()), options)
            .map(|_| ())
            .map_err(|error| error.kind())
    };
    let base = options(MIB, 0, DiskKind::Dynamic);
    assert_eq!(create(&base), Ok(()));
    for wrong in [
        options(0, 0, DiskKind::Dynamic),
        options(MIB + 1, 0, DiskKind::Fixed),
        options(2040 * GIB + 512, 0, DiskKind::Dynamic),
        options(MIB, 0, DiskKind::Differencing),
        options(MIB, 256 << 10, DiskKind::Dynamic),
        options(MIB, 3 << 20, DiskKind::Dynamic),
        options(MIB, 512 << 20, DiskKind::Dynamic),
        CreateOptions { logical_sector_size: 4096, ..base.clone() },
    ] {
        assert_eq!(create(&wrong), Err(CreateErrorKind::Option), "{wrong:?}");
    }
    let used = Arc::new(MemoryStorage::new(vec![0]));
    assert_eq!(VhdWriter::create(used, &base).expect_err("not empty").kind(), CreateErrorKind::NotEmpty);
    let writer = VhdWriter::create(Arc::new(MemoryStorage::default()), &base).expect("creating");
    assert_eq!(writer.write_at(&[0; 2], MIB - 1).expect_err("outside").kind(), WriteErrorKind::OutOfRange);
    assert_eq!(writer.write_at(&[0; 2], u64::MAX).expect_err("outside").kind(), WriteErrorKind::OutOfRange);
}

#[test]
fn the_largest_disk_in_the_smallest_blocks() {
    for block_size in [512 << 10, 2 << 20] {
        let size = 2040 * GIB;
        let storage = Arc::new(MemoryStorage::default());
        let writer = VhdWriter::create(storage.clone(), &options(size, block_size, DiskKind::Dynamic))
            .expect("creating");
        writer.write_at(b"end", size - 3).expect("writing the end");
        writer.write_at(b"start", 0).expect("writing the start");
        writer.finish().expect("finishing");
        assert_sound(storage.clone());
        let image = open(storage);
        let mut buf = [0; 5];
        image.read_at(&mut buf, 0).expect("reading");
        assert_eq!(&buf, b"start");
        image.read_at(&mut buf, size - 5).expect("reading");
        assert_eq!(&buf, b"\0\0end");
        let kinds: Vec<_> = image.extents(0, size).map(|extent| extent.expect("mapping").kind).collect();
        assert_eq!(kinds, [ExtentKind::Data, ExtentKind::Hole, ExtentKind::Data]);
    }
}

/// Refuses every write after the first few.
#[derive(Debug)]
struct Failing {
    inner: MemoryStorage,
    left: AtomicI64,
}

impl Failing {
    fn spend(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
}

impl Storage for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.spend()?;
        self.inner.write_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.inner.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.spend()
    }
}

#[test]
fn a_disk_that_was_not_finished_is_no_disk() {
    for kind in [DiskKind::Fixed, DiskKind::Dynamic] {
        let data = pattern(1, 1 << 20);
        let mut finished = false;
        for steps in 0.. {
            let storage = Arc::new(Failing { inner: MemoryStorage::default(), left: AtomicI64::new(steps) });
            let done = VhdWriter::create(storage.clone(), &options(2 * MIB, 512 << 10, kind))
                .is_ok_and(|writer| writer.write_at(&data, 700_000).is_ok() && writer.finish().is_ok());
            match Image::open_storage(storage.clone(), "disk", &ImageOptions::default()) {
                Ok(image) => {
                    let mut read = vec![0; data.len()];
                    image.read_at(&mut read, 700_000).expect("a disk has all of its data");
                    assert!(read == data);
                }
                Err(error) => assert_eq!(error.kind(), OpenErrorKind::NotADisk),
            }
            if done {
                finished = true;
                break;
            }
            assert!(steps < 100, "that many steps are not needed");
        }
        assert!(finished);
    }
}

#[test]
fn a_write_that_failed_can_be_tried_again() {
    let data = pattern(1, 3 << 20);
    for fuse in 0..16 {
        let storage = CrashStorage::new();
        let options = options(4 * MIB, 512 << 10, DiskKind::Dynamic);
        let writer = VhdWriter::create(storage.clone(), &options).expect("creating");
        storage.fail_after(Some(fuse));
        let failed = writer.write_at(&data, 0).is_err();
        storage.fail_after(None);
        if failed {
            writer.write_at(&data, 0).expect("trying again");
        }
        writer.finish().expect("finishing");
        assert_sound(storage.clone());
        let mut read = vec![0; data.len()];
        open(storage).read_at(&mut read, 0).expect("reading");
        assert!(read == data, "failure after {fuse} writes");
    }
}

#[test]
fn power_loss_leaves_a_whole_disk_or_none() {
    let data = pattern(1, 3 << 20);
    for kind in [DiskKind::Fixed, DiskKind::Dynamic] {
        let make = |fuse: Option<u64>| {
            let storage = CrashStorage::new();
            let writer =
                VhdWriter::create(storage.clone(), &options(4 * MIB, 512 << 10, kind)).expect("creating");
            writer.write_at(&data, 700_000).expect("writing");
            storage.fail_after(fuse);
            let finished = writer.finish().is_ok();
            (storage, finished)
        };
        for fuse in 0_u64..8 {
            let (storage, finished) = make(Some(fuse));
            for seed in 0..64_u64 {
                let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.rotate_left(61);
                let left = storage.after_crash(|| {
                    bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    bits >> 62 != 0
                });
                match Image::open_storage(left, "disk", &ImageOptions::default()) {
                    Ok(image) => {
                        let mut read = vec![0; data.len()];
                        image.read_at(&mut read, 700_000).expect("a disk has all of its data");
                        assert!(read == data, "{kind:?}, step {fuse}, seed {seed}");
                    }
                    Err(error) => {
                        assert_eq!(
                            error.kind(),
                            OpenErrorKind::NotADisk,
                            "{kind:?}, step {fuse}, seed {seed}"
                        );
                        assert!(!finished, "what was finished survives");
                    }
                }
            }
        }
        assert!(make(None).1);
    }
}

/// Fills a disk with data in some places, none in others; its hash.
fn sample_disk(path: &Path, options: &CreateOptions) -> String {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::create_new(path).expect("creating"));
    let writer = VhdWriter::create(storage, options).expect("creating");
    let size = options.virtual_size;
    for (offset, length) in [(0, 5000), (size / 3 + 17, 3 << 20), (size - 1234, 1234)] {
        let data = pattern(offset, length);
        writer.write_at(&data, offset).expect("writing");
    }
    writer.finish().expect("finishing");
    let image = Image::open(path, &ImageOptions::default()).expect("opening");
    content_hash(&image)
}

/// Disks of all kinds, in blocks of up to `largest` bytes.
fn cases(largest: u32) -> Vec<(String, CreateOptions)> {
    // No multiple of any block size, and no product of cylinders, heads and sectors.
    let size = 37 * MIB + 3 * 512;
    let mut cases = vec![("fixed".to_owned(), options(size, 0, DiskKind::Fixed))];
    for block_size in
        [512 << 10, 1 << 20, 2 << 20, 32 << 20, LARGEST].into_iter().filter(|size| *size <= largest)
    {
        cases.push((
            format!("dynamic, {block_size} bytes a block"),
            options(size, block_size, DiskKind::Dynamic),
        ));
    }
    cases
}

fn hash_of(path: &Path) -> String {
    let digest = sha2::Sha256::digest(fs::read(path).expect("reading the raw copy"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn qemu_reads_it() {
    if Command::new("qemu-img").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: qemu-img (package qemu-utils) is not installed");
        return;
    }
    for (name, options) in cases(LARGEST) {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, raw) = (dir.path().join("disk.vhd"), dir.path().join("disk.raw"));
        let hash = sample_disk(&disk, &options);
        let output = Command::new("qemu-img")
            .args(["convert", "-f", "vpc", "-O", "raw"])
            .args([&disk, &raw])
            .output()
            .expect("running qemu-img");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(hash_of(&raw), hash, "{name}");
    }
}

#[test]
fn what_qemu_makes_is_read() {
    if Command::new("qemu-img").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: qemu-img (package qemu-utils) is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let raw = dir.path().join("disk.raw");
    let mut content = pattern(3, 5 << 20);
    content.resize(12 << 20, 0);
    content.extend(pattern(9, 70_144));
    fs::write(&raw, &content).expect("writing the raw disk");
    for options in ["subformat=dynamic,force_size=on", "subformat=fixed,force_size=on", "subformat=dynamic"] {
        let disk = dir.path().join("disk.vhd");
        let output = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "vpc", "-o", options])
            .args([&raw, &disk])
            .output()
            .expect("running qemu-img");
        assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
        let image = Image::open(&disk, &ImageOptions::default()).expect(options);
        let mut read = vec![0; image.virtual_size() as usize];
        image.read_at(&mut read, 0).expect("reading");
        // Without `force_size` qemu rounds up to a geometry.
        assert!(read.len() >= content.len(), "{options}");
        assert!(
            read[..content.len()] == content && read[content.len()..].iter().all(|byte| *byte == 0),
            "{options}"
        );
        let report = vhdx::check(&disk, &CheckOptions::default()).expect("checking");
        assert!(report.is_sound(), "{options}: {:?}", report.findings);
    }
}

/// The reader named by `module`, as a Python program that prints the SHA-256 of a disk.
#[expect(clippy::print_stdout, reason = "says what it skips")]
fn python_reads_it(module: &str, largest: u32, program: &str) {
    let python = std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into());
    let present =
        Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !present.is_ok_and(|status| status.success()) {
        println!(
            "skipped: the Python module {module} is not installed (SLIPWAY_PYTHON names the interpreter)"
        );
        return;
    }
    for (name, options) in cases(largest) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = dir.path().join("disk.vhd");
        let hash = sample_disk(&disk, &options);
        let output = Command::new(&python).args(["-c", program]).arg(&disk).output().expect("running python");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            format!("{} {hash}", options.virtual_size),
            "{name}"
        );
    }
}

#[test]
fn libvhdi_reads_it() {
    let program = "import sys, hashlib, pyvhdi
disk = pyvhdi.file(); disk.open(sys.argv[1]); size = disk.get_media_size(); hash = hashlib.sha256(); at = 0
while at < size:
    part = disk.read_buffer_at_offset(min(1 << 20, size - at), at); hash.update(part); at += len(part)
print(size, hash.hexdigest())";
    // It agrees on larger ones too, but takes seconds for each.
    python_reads_it("pyvhdi", 2 << 20, program);
}

#[test]
fn dissect_reads_it() {
    let program = "import sys, hashlib
from dissect.hypervisor.disk.vhd import VHD
disk = VHD(open(sys.argv[1], 'rb')); hash = hashlib.sha256(); at = 0
while at < disk.size:
    disk.seek(at); part = disk.read(min(1 << 20, disk.size - at)); hash.update(part); at += len(part)
print(disk.size, hash.hexdigest())";
    python_reads_it("dissect.hypervisor", LARGEST, program);
}
