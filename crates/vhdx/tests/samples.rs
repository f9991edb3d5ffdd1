//! Real files give the hash and size that independent readers agree on (samples/MANIFEST.md).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics when it cannot go on and prints what it found"
)]

mod support;

use support::{content_hash, sample, samples};
use vhdx::{CheckOptions, Image, ImageOptions, MissingParent, Severity};

/// Name, virtual size, SHA-256 of the content.
const VHDX: &[(&str, u64, &str)] = &[
    ("win10-dynamic.vhdx", 10485760, "8e2b5e9265d694b42b81819e3bff29770eff4ed0f4f9f311693ff3dbdc93efac"),
    (
        "win2012-dynamic-1G.vhdx",
        1073741824,
        "d3d112d8dab7fd360609f7d5a7b769904b7a2a7d7b6b8c535f65a23293c05478",
    ),
    (
        "win1703-log-replay.vhdx",
        1073741824,
        "3ba3b309425b7ff5e8e0199edceed95226250f880c53b24e8eae93865f3fad5e",
    ),
    ("win1703-btrfs.vhdx", 1073741824, "0b959f9cb4e18348ad8b646f152178282542c8304f02fddf765e3fd1a1de6864"),
    ("win2016-lvm2.vhdx", 10737418240, "f7dc6812a3b12a35f3ec895ce981bd59ff4558270fc80cd812c9cd522bff1295"),
    ("win2016-swap.vhdx", 10737418240, "60dd30b4c74361427d1089510cabb36e2eeda0cc4747f467ea43173acd358c49"),
    ("win1803-xfs5.vhdx", 10737418240, "edc5d630b2da0ddb08992afb58ded06ffb56b884e184b4974fda16e31b7e6817"),
];

#[test]
fn vhdx_content() {
    let Some(dir) = samples() else { return };
    std::thread::scope(|scope| {
        for (name, size, hash) in VHDX {
            let Some(path) = sample(&dir, &format!("vhdx/{name}")) else { continue };
            scope.spawn(move || {
                let image = Image::open(&path, &ImageOptions::default()).expect(name);
                assert_eq!(image.virtual_size(), *size, "{name}");
                assert_eq!(content_hash(&image), *hash, "{name}");
                assert_eq!(image.layers()[0].info.log_pending, name.contains("log-replay"), "{name}");
                assert!(image.layers()[0].info.creator.starts_with("Microsoft Windows"), "{name}");
            });
        }
    });
}

#[test]
fn vhdx_check_finds_no_error() {
    let Some(dir) = samples() else { return };
    for (name, ..) in VHDX {
        let Some(path) = sample(&dir, &format!("vhdx/{name}")) else { continue };
        let report = vhdx::check(&path, &CheckOptions::default()).expect(name);
        for finding in &report.findings {
            println!("{name}: {finding}");
        }
        assert!(report.worst() < Some(Severity::Error), "{name}");
        let size = report.info.as_ref().map(|info| info.virtual_size.div_ceil(u64::from(info.block_size)));
        let counts = report.blocks;
        assert_eq!(Some(counts.absent + counts.zero + counts.present + counts.partial), size, "{name}");
    }
}

#[test]
fn replay_on_disk_gives_the_same_content_without_a_log() {
    let Some(dir) = samples() else { return };
    let Some(path) = sample(&dir, "vhdx/win1703-log-replay.vhdx") else { return };
    let work = tempfile::tempdir().expect("a directory");
    let copy = work.path().join("copy.vhdx");
    std::fs::copy(&path, &copy).expect("copying");
    assert!(vhdx::replay_log_on_disk(&copy).expect("replaying"));
    let image = Image::open(&copy, &ImageOptions::default()).expect("opening");
    assert!(!image.layers()[0].info.log_pending);
    assert_eq!(content_hash(&image), VHDX[2].2);
    assert!(!vhdx::replay_log_on_disk(&copy).expect("replaying again"), "nothing left to replay");
    assert!(vhdx::check(&copy, &CheckOptions::default()).expect("checking").is_sound());
}

#[test]
fn missing_parents_may_read_as_zeros() {
    let Some(dir) = samples() else { return };
    let Some(path) = sample(&dir, "vhd/win10-fat-differential.vhd") else { return };
    assert!(Image::open(&path, &ImageOptions::default()).is_err());
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    let image = Image::open(&path, &options).expect("opening without the parent");
    assert_eq!(image.virtual_size(), 4194304);
    assert_eq!(content_hash(&image), "9e96fac774e2e3606e0e3d5f1152844ca3c6a45ed45e61f36586b2cd60b19d3f");
}

#[test]
fn a_vhd_chain_with_wrong_checksums_reads_leniently() {
    let Some(dir) = samples() else { return };
    let Some(child) = sample(&dir, "vhd/qemu-image-differential.vhd") else { return };
    let Some(parent) = sample(&dir, "vhd/qemu-image.vhd") else { return };
    let strict = ImageOptions { parents: vec![parent], ..ImageOptions::default() };
    let error = Image::open(&child, &strict).expect_err("wrong checksums");
    assert_eq!(error.kind(), vhdx::OpenErrorKind::Checksum);
    let image = Image::open(&child, &ImageOptions { lenient: true, ..strict }).expect("leniently");
    assert_eq!((image.layers().len(), image.virtual_size()), (2, 104448));
    assert_eq!(content_hash(&image), "c6db12a7db548e193c29420c1b4533e4708b20c5033db5cc29ef075d48316d25");
}
