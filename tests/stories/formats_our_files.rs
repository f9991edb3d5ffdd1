//! A disk that we wrote holds, for readers that are not ours, what went in: at every block size, at sizes that divide no
//! block, with holes, and at 64 TiB with memory that does not grow with the disk.

use harness::binary::{offline, run};
use harness::oracle::{self, Content, parse_hash};
use harness::scratch::raw_disk;
use harness::{Scratch, need};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use vhdx::{Image, ImageOptions};

const MIB: u64 = 1 << 20;

/// Data at the edges of everything: start, end, across block ends, a lone sector in a block, and holes between.
fn edges(size: u64) -> Vec<(u64, usize)> {
    let mut data = vec![(0, 70_000), (MIB - 512, 1024), (2 * MIB + 512, 512), (31 * MIB + 1000, 3 << 20)];
    data.push((size - 4096, 4096));
    data.retain(|(offset, length)| offset + *length as u64 <= size);
    data
}

fn convert(source: &Path, target: &Path, more: &[&str]) {
    let fixed = ["disk".as_ref(), "convert".as_ref(), source.as_os_str(), target.as_os_str()];
    offline(fixed.into_iter().chain(more.iter().map(OsStr::new))).ok();
}

fn ours(disk: &Path) -> Content {
    parse_hash(&offline(["disk".as_ref(), "hash".as_ref(), disk.as_os_str()]))
}

#[test]
fn a_vhdx_at_every_block_size_is_what_went_in() {
    let python = need!(oracle::python());
    need!(oracle::program("qemu-img"));
    let scratch = Scratch::new();
    // Whole blocks; no whole block at all; one sector more than blocks; one sector less.
    for (n, size) in [64 * MIB, 300 * 1024, 257 * MIB + 512, 64 * MIB - 512].into_iter().enumerate() {
        let raw = scratch.join(&format!("{n}.raw"));
        raw_disk(&raw, size, &edges(size));
        let content = Content { sha256: oracle::sha256_file(&raw), size };
        for block in [1, 2, 32, 256] {
            let disk = scratch.join(&format!("{n}-{block}.vhdx"));
            convert(&raw, &disk, &["--block-size", &format!("{block}M")]);
            let what = format!("{size} bytes in blocks of {block} MiB");
            assert_eq!(ours(&disk), content, "slipway: {what}");
            assert_eq!(oracle::libvhdi(&python, &disk), content, "libvhdi: {what}");
            assert_eq!(oracle::dissect(&python, &disk), content, "dissect: {what}");
            oracle::qemu_says_identical(&disk, "vhdx", &raw);
            offline(["disk".as_ref(), "check".as_ref(), disk.as_os_str()]).ok();
            std::fs::remove_file(&disk).expect("removed");
        }
    }
}

#[test]
fn fixed_and_4096_byte_sector_disks_are_what_went_in() {
    let python = need!(oracle::python());
    let scratch = Scratch::new();
    let size = 40 * MIB + 4096;
    let raw = scratch.join("d.raw");
    raw_disk(&raw, size, &edges(size));
    let content = Content { sha256: oracle::sha256_file(&raw), size };
    for (name, options) in [
        ("fixed", &["--fixed"][..]),
        ("sectors", &["--logical-sector-size", "4096"][..]),
        ("fixed-sectors", &["--fixed", "--logical-sector-size", "4096", "--block-size", "2M"][..]),
    ] {
        let disk = scratch.join(&format!("{name}.vhdx"));
        convert(&raw, &disk, options);
        assert_eq!(ours(&disk), content, "slipway: {name}");
        assert_eq!(oracle::libvhdi(&python, &disk), content, "libvhdi: {name}");
        assert_eq!(oracle::dissect(&python, &disk), content, "dissect: {name}");
        offline(["disk".as_ref(), "check".as_ref(), disk.as_os_str()]).ok();
    }
}

#[test]
fn a_vhd_is_what_went_in() {
    let python = need!(oracle::python());
    let scratch = Scratch::new();
    let size = 70 * MIB + 512;
    let raw = scratch.join("d.raw");
    raw_disk(&raw, size, &edges(size));
    let content = Content { sha256: oracle::sha256_file(&raw), size };
    for (name, options) in [("dynamic", &[][..]), ("fixed", &["--fixed"][..])] {
        let disk = scratch.join(&format!("{name}.vhd"));
        convert(&raw, &disk, options);
        assert_eq!(ours(&disk), content, "slipway: {name}");
        assert_eq!(oracle::libvhdi(&python, &disk), content, "libvhdi: {name}");
        assert_eq!(oracle::dissect(&python, &disk), content, "dissect: {name}");
    }
}

#[test]
fn formats_of_qemu_go_in_and_come_out() {
    need!(oracle::program("qemu-img"));
    let scratch = Scratch::new();
    let size = 48 * MIB + 512;
    let raw = scratch.join("d.raw");
    raw_disk(&raw, size, &edges(size));
    let (qcow2, vhdx, back) = (scratch.join("d.qcow2"), scratch.join("d.vhdx"), scratch.join("back.qcow2"));
    run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&raw).arg(&qcow2)).ok();
    convert(&qcow2, &vhdx, &[]);
    oracle::qemu_says_identical(&vhdx, "vhdx", &raw);
    convert(&vhdx, &back, &["--format", "qcow2"]);
    oracle::qemu_says_identical(&back, "qcow2", &raw);
    let again = scratch.join("again.raw");
    convert(&back, &again, &[]);
    assert_eq!(oracle::sha256_file(&again), oracle::sha256_file(&raw));
}

/// A 64 TiB disk in 1 MiB blocks has a table of half a GiB. Nothing may hold it in memory: the address space of each
/// command is limited to less than that.
#[test]
fn sixty_four_tebibytes_cost_no_memory() {
    const SIZE: u64 = 64 << 40;
    const LIMIT_KIB: u64 = 450 << 10;
    const LENGTH: usize = 4096;
    // A chunk is what one sector-bitmap entry covers: 2^23 sectors of 512 bytes.
    const CHUNK: u64 = 4 << 30;
    let python = need!(oracle::python());
    need!(oracle::program("qemu-img"));
    let scratch = Scratch::new();
    let (source, disk) = (scratch.join("source.qcow2"), scratch.join("big.vhdx"));
    let offsets = [
        0,
        CHUNK - LENGTH as u64,
        CHUNK,
        1000 * CHUNK - 2048,
        8191 * CHUNK,
        SIZE / 2 + MIB - 512,
        SIZE - LENGTH as u64,
    ];
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"])
        .arg(&source)
        .arg(SIZE.to_string()))
    .ok();
    let mut writes = Command::new("qemu-io");
    writes.args(["-f", "qcow2"]);
    for (n, offset) in offsets.iter().enumerate() {
        writes.args(["-c", &format!("write -q -P {} {offset} {LENGTH}", n + 1)]);
    }
    run(writes.arg(&source)).ok();
    let bounded = |arguments: &[&OsStr]| {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {LIMIT_KIB}; exec \"$@\""), "sh"])
            .arg(harness::slipway())
            .args(arguments)
            // The limit is on addresses: what glibc reserves for each thread's heap is not memory.
            .env("MALLOC_ARENA_MAX", "1");
        run(&mut command)
    };
    bounded(&[
        "disk".as_ref(),
        "convert".as_ref(),
        source.as_os_str(),
        disk.as_os_str(),
        "--block-size".as_ref(),
        "1M".as_ref(),
    ])
    .ok();
    let info = bounded(&["disk".as_ref(), "info".as_ref(), disk.as_os_str(), "--json".as_ref()]).json();
    assert_eq!(info["virtual_size"], SIZE);
    let map = bounded(&["disk".as_ref(), "map".as_ref(), disk.as_os_str(), "--json".as_ref()]).json();
    let extents = map.as_array().or_else(|| map["extents"].as_array()).expect("a list of extents");
    let total: u64 = extents.iter().filter_map(|e| e["length"].as_u64()).sum();
    assert_eq!(total, SIZE, "the map covers the disk");
    for offset in offsets {
        let holds = |e: &serde_json::Value| {
            let start = e["offset"].as_u64().unwrap_or(u64::MAX);
            start <= offset && offset - start < e["length"].as_u64().unwrap_or(0) && e["kind"] == "data"
        };
        assert!(extents.iter().any(holds), "no data at {offset}: {map}");
    }
    bounded(&["disk".as_ref(), "check".as_ref(), disk.as_os_str()]).ok();

    let theirs = oracle::libvhdi_pieces(&python, &disk, &offsets, LENGTH);
    let image = Image::open(&disk, &ImageOptions::default()).expect("our own disk opens");
    for (n, offset) in offsets.into_iter().enumerate() {
        let mut piece = vec![0; LENGTH];
        image.read_at(&mut piece, offset).expect("it reads");
        let byte = u8::try_from(n + 1).expect("few offsets");
        assert!(piece.iter().all(|b| *b == byte), "what qemu-io wrote at {offset}");
        assert_eq!(theirs[n], oracle::sha256(&piece), "libvhdi at {offset}");
    }
}

#[test]
fn a_disk_on_disk_is_sparse() {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new();
    let raw = scratch.join("d.raw");
    raw_disk(&raw, 1 << 30, &[(512 * MIB, 100_000)]);
    let disk = scratch.join("d.vhdx");
    convert(&raw, &disk, &["--block-size", "32M"]);
    let blocks = std::fs::metadata(&disk).expect("there").blocks() * 512;
    assert!(blocks < 12 * MIB, "{blocks} bytes on disk for 100 kB of data");
    assert_eq!(ours(&disk).sha256, oracle::sha256_file(&raw));
}
