//! Real VHD files, against the hashes that independent readers agree on (MANIFEST.md of the samples).

mod support;

use std::path::{Path, PathBuf};

use support::{content_hash, sample, samples};
use vhdx::check::check;
use vhdx::{CheckOptions, DiskKind, Format, Image, ImageOptions, MissingParent, OpenErrorKind};

fn lenient() -> ImageOptions {
    ImageOptions { lenient: true, ..Default::default() }
}

fn open(path: &Path, options: &ImageOptions) -> Image {
    Image::open(path, options).expect("opening a sample")
}

fn rules(path: &Path) -> Vec<&'static str> {
    let report = check(path, &CheckOptions::default()).expect("checking");
    report.findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn strict_samples_have_their_size_and_hash() {
    let Some(dir) = samples() else { return };
    for (name, kind, size, creator, hash) in [
        (
            "vhd/win10-fixed.vhd",
            DiskKind::Fixed,
            10_485_760,
            "win 10.0",
            "459325ab1fcd1d5ec9854cba790ee26378317cda177ffc1072008a1df88e6463",
        ),
        (
            "vhd/ext2.vhd",
            DiskKind::Dynamic,
            4_212_736,
            "qemu 5.3",
            "870be7ae16c1fa8faab05c6eb9205dc9a7ae35c5f552c5cf8a267c0bc6a5cb99",
        ),
    ] {
        let Some(path) = sample(&dir, name) else { continue };
        let image = open(&path, &ImageOptions::default());
        let info = &image.layers()[0].info;
        assert_eq!((info.format, info.kind, info.virtual_size), (Format::Vhd, kind, size), "{name}");
        assert_eq!((info.creator.as_str(), info.tolerated.len()), (creator, 0), "{name}");
        assert_eq!(content_hash(&image), hash, "{name}");
        assert!(rules(&path).iter().all(|rule| rule.ends_with("surplus")), "{name}: {:?}", rules(&path));
    }
}

#[test]
fn the_size_is_the_footers_and_not_the_geometrys() {
    let Some(dir) = samples() else { return };
    let Some(path) = sample(&dir, "vhd/hyperv2012r2-dynamic.vhd") else { return };
    let image = open(&path, &ImageOptions::default());
    assert_eq!(image.virtual_size(), 136_365_211_648);
    let extents: Vec<_> =
        image.extents(0, image.virtual_size()).map(|extent| extent.expect("mapping")).collect();
    assert_eq!(extents.len(), 1, "one hole: {extents:?}");
    let mut last = [0xee; 4096];
    image.read_at(&mut last, image.virtual_size() - 4096).expect("reading the end");
    assert_eq!(last, [0; 4096]);
    assert_eq!(rules(&path), [""; 0]);
}

#[test]
fn wrong_checksums_are_refused_with_the_reason_and_read_leniently_with_their_parent() {
    let Some(dir) = samples() else { return };
    let hash = "c6db12a7db548e193c29420c1b4533e4708b20c5033db5cc29ef075d48316d25";
    let Some(parent) = sample(&dir, "vhd/qemu-image.vhd") else { return };
    let error = Image::open(&parent, &ImageOptions::default()).expect_err("a wrong checksum");
    assert_eq!(error.kind(), OpenErrorKind::Checksum);
    assert_eq!(error.offset(), Some(2_100_224 - 512));
    assert!(error.to_string().contains("checksum"), "{error}");
    let image = open(&parent, &lenient());
    assert_eq!((image.virtual_size(), content_hash(&image)), (104_448, hash.to_owned()));
    assert_eq!(image.layers()[0].info.tolerated.len(), 1);

    let Some(child) = sample(&dir, "vhd/qemu-image-differential.vhd") else { return };
    // The child knows its parent only as `image.vhd`.
    let error = Image::open(&child, &lenient()).expect_err("no parent of that name");
    assert_eq!(error.kind(), OpenErrorKind::ParentMissing);
    let options = ImageOptions { parents: vec![parent.clone()], ..lenient() };
    let image = open(&child, &options);
    assert_eq!((image.virtual_size(), content_hash(&image)), (104_448, hash.to_owned()));
    assert_eq!(image.layers().len(), 2);
    assert_eq!(image.layers()[0].info.kind, DiskKind::Differencing);
    let strict = ImageOptions { parents: vec![parent], ..Default::default() };
    assert_eq!(Image::open(&child, &strict).expect_err("wrong checksums").kind(), OpenErrorKind::Checksum);
    let found = rules(&child);
    for rule in ["vhd.footer.checksum", "vhd.footer.copy.checksum", "vhd.header.checksum"] {
        assert!(found.contains(&rule), "{rule} in {found:?}");
    }
}

#[test]
fn a_child_by_its_name_in_the_header_finds_the_parent_beside_it() {
    let Some(dir) = samples() else { return };
    let (Some(parent), Some(child)) =
        (sample(&dir, "vhd/qemu-image.vhd"), sample(&dir, "vhd/qemu-image-differential.vhd"))
    else {
        return;
    };
    let work = tempfile::tempdir().expect("a directory");
    let copy = |from: PathBuf, name: &str| {
        let to = work.path().join(name);
        std::fs::copy(from, &to).expect("copying");
        to
    };
    copy(parent, "image.vhd");
    let child = copy(child, "child.vhd");
    assert_eq!(open(&child, &lenient()).layers().len(), 2);
}

#[test]
fn a_real_differencing_disk_without_its_parent_reads_zeros_there_when_asked() {
    let Some(dir) = samples() else { return };
    let Some(path) = sample(&dir, "vhd/win10-fat-differential.vhd") else { return };
    let error = Image::open(&path, &ImageOptions::default()).expect_err("no parent");
    assert_eq!(error.kind(), OpenErrorKind::ParentMissing);
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..Default::default() };
    let image = open(&path, &options);
    assert_eq!(image.virtual_size(), 4_194_304);
    let hash = "9e96fac774e2e3606e0e3d5f1152844ca3c6a45ed45e61f36586b2cd60b19d3f";
    assert_eq!(content_hash(&image), hash);
    let parent = image.layers()[0].info.parent.clone().expect("a parent reference");
    assert_eq!(parent.linkage.to_string(), "5fa21a55-f394-aa4d-9958-1951a67d5540");
    assert_eq!(parent.path("relative_path"), Some(".\\fat-parent.vhd"));
    let absolute = Some("C:\\Projects\\dfvfs\\test_data\\fat-parent.vhd");
    assert_eq!(parent.path("absolute_win32_path"), absolute);
    assert_eq!(parent.path("parent_name"), absolute);
    // 18 sectors by the bitmap, whatever else lies in the block.
    let data: u64 = image
        .extents(0, image.virtual_size())
        .map(|extent| extent.expect("mapping"))
        .filter(|extent| extent.kind == vhdx::ExtentKind::Data)
        .map(|extent| extent.length)
        .sum();
    assert_eq!(data, 18 * 512);
    let report = check(&path, &CheckOptions::default()).expect("checking");
    assert!(report.is_sound(), "{:?}", report.findings);
}
