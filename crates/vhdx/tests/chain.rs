//! Chains: what layers give together, which parents are taken, which are refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::build::{Block, MIB, Spec, build, byte};
use uuid::Uuid;
use vhdx::{ExtentKind, FencedDir, FileStorage, Image, ImageOptions, MissingParent, OpenErrorKind};

fn make(dir: &Path, name: &str, spec: &Spec) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    build(spec, &FileStorage::create_new(&path).unwrap());
    path
}

fn kind(path: &Path, options: &ImageOptions) -> OpenErrorKind {
    let error = Image::open(path, options).expect_err("it must be refused");
    assert!(!error.to_string().is_empty());
    error.kind()
}

const ID: Uuid = Uuid::from_u128(0xbad_cafe);

fn base(seed: u8) -> Spec {
    Spec { data_write: ID, blocks: vec![Block::Full(seed), Block::Full(seed)], ..Spec::dynamic(2 * MIB) }
}

fn first_byte(image: &Image) -> u8 {
    let mut got = [0];
    image.read_at(&mut got, 0).unwrap();
    got[0]
}

/// What one layer says of one byte: its own, zero, or nothing.
fn layer_byte(spec: &Spec, at: u64) -> Option<u8> {
    match spec.blocks.get((at / spec.block) as usize) {
        None | Some(Block::State(0, _)) => None,
        Some(Block::State(..)) => Some(0),
        Some(Block::Full(seed)) => Some(byte(*seed, at)),
        Some(Block::Partial(seed, bits)) => {
            bits[(at % spec.block / spec.sector) as usize].then(|| byte(*seed, at))
        }
    }
}

fn block(differencing: bool) -> impl Strategy<Value = Block> {
    let bits = prop_oneof![
        prop::collection::vec(any::<bool>(), 2048),
        // Long stretches, as real bitmaps have.
        prop::collection::vec((any::<bool>(), 1..300_usize), 40).prop_map(|runs| {
            let mut bits: Vec<bool> = runs.iter().flat_map(|(bit, count)| vec![*bit; *count]).collect();
            bits.resize(2048, true);
            bits
        }),
    ];
    prop_oneof![
        2 => prop_oneof![Just(0_u8), Just(2), Just(3), Just(1)].prop_flat_map(|state| (Just(state), 0..9_u64))
            .prop_map(|(state, stale)| Block::State(state, stale)),
        2 => any::<u8>().prop_map(Block::Full),
        if differencing { 4 } else { 0 } => (any::<u8>(), bits).prop_map(|(seed, bits)| Block::Partial(seed, bits)),
    ]
}

fn layers() -> impl Strategy<Value = Vec<Spec>> {
    let layer = |depth: u128, differencing: bool, sector: u64| {
        (1..6_u64, 0..40_u64).prop_flat_map(move |(blocks, cut)| {
            let size = blocks * MIB - cut * sector;
            prop::collection::vec(block(differencing), blocks as usize).prop_map(move |blocks| {
                let shape = if differencing {
                    Spec::child(size, Uuid::from_u128(depth + 101), &format!(".\\layer{}.avhdx", depth + 1))
                } else {
                    Spec::dynamic(size)
                };
                Spec { sector, data_write: Uuid::from_u128(depth + 100), blocks, ..shape }
            })
        })
    };
    prop_oneof![Just(512), Just(4096)]
        .prop_flat_map(move |sector| {
            (layer(0, true, sector), layer(1, true, sector), layer(2, false, sector))
        })
        .prop_map(|(leaf, middle, base)| vec![leaf, middle, base])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_read_as_the_model_says(specs in layers(), start in 0..MIB, step in 1..300_000_usize) {
        let dir = tempfile::tempdir().unwrap();
        for (index, spec) in specs.iter().enumerate() {
            let path = make(dir.path(), &format!("layer{index}.avhdx"), spec);
            let report = vhdx::check(&path, &vhdx::CheckOptions::default()).unwrap();
            prop_assert!(report.is_sound(), "{:?}", report.findings);
        }
        let image = Image::open(&dir.path().join("layer0.avhdx"), &ImageOptions::default()).unwrap();
        prop_assert_eq!(image.layers().len(), 3);
        let size = specs[0].size;
        let want: Vec<u8> = (0..size)
            .map(|at| {
                for spec in &specs {
                    if at >= spec.size {
                        return 0;
                    }
                    if let Some(byte) = layer_byte(spec, at) {
                        return byte;
                    }
                }
                0
            })
            .collect();
        let mut got = vec![0xee; size as usize];
        image.read_at(&mut got, 0).unwrap();
        prop_assert!(got == want);
        // In odd pieces from an odd start.
        let mut at = start.min(size) as usize;
        while at < size as usize {
            let end = (at + step).min(size as usize);
            let mut piece = vec![0; end - at];
            image.read_at(&mut piece, at as u64).unwrap();
            prop_assert!(piece == want[at..end], "{at}..{end}");
            at = end;
        }
        // Extents: gapless, merged, and what is not data is zero.
        let mut at = 0;
        let mut last = None;
        for extent in image.extents(0, size) {
            let extent = extent.unwrap();
            prop_assert_eq!(extent.offset, at);
            prop_assert_ne!(last, Some((extent.kind, extent.layer)), "not merged at {}", at);
            last = Some((extent.kind, extent.layer));
            at = extent.end();
            if extent.kind != ExtentKind::Data {
                prop_assert!(want[extent.offset as usize..at as usize].iter().all(|byte| *byte == 0));
            }
        }
        prop_assert_eq!(at, size);
        // Locations really lead to the bytes.
        for location in image.locations(0, size) {
            let location = location.unwrap();
            if let Some(offset) = location.file_offset {
                use std::os::unix::fs::FileExt;
                let path = image.layers()[location.extent.layer].path.as_ref().unwrap();
                let mut bytes = vec![0; location.extent.length as usize];
                std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
                prop_assert!(bytes == want[location.extent.offset as usize..location.extent.end() as usize]);
            }
        }
    }
}

#[test]
fn chunks_have_their_own_bitmaps() {
    // 256 MiB blocks of 512-byte sectors: 16 to a chunk. Partial blocks on both sides of the border.
    let block = 256 * MIB;
    let mut blocks = vec![Block::State(0, 0); 18];
    let bits = |set: usize| (0..(block / 512) as usize).map(|index| index % 4096 == set).collect::<Vec<_>>();
    blocks[15] = Block::Partial(3, bits(5));
    blocks[16] = Block::Partial(4, bits(9));
    let spec = Spec { block, blocks, ..Spec::child(18 * block, ID, ".\\parent.vhdx") };
    let dir = tempfile::tempdir().unwrap();
    let path = make(dir.path(), "child.avhdx", &spec);
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    let image = Image::open(&path, &options).unwrap();
    for (number, seed, set) in [(15, 3, 5), (16, 4, 9)] {
        let mut got = vec![0; 4096 * 512];
        image.read_at(&mut got, number * block + 4096 * 512).unwrap();
        for (index, value) in got.iter().enumerate() {
            let at = number * block + 4096 * 512 + index as u64;
            assert_eq!(*value, if index / 512 == set { byte(seed, at) } else { 0 });
        }
    }
    assert!(vhdx::check(&path, &vhdx::CheckOptions::default()).unwrap().is_sound());
}

#[test]
fn a_parent_is_found_beside_the_child_and_in_named_places() {
    let dir = tempfile::tempdir().unwrap();
    let child = make(dir.path(), "a/child.avhdx", &Spec::child(2 * MIB, ID, ".\\parent.vhdx"));
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::ParentMissing);
    // In another directory: by directory, by file, by another name.
    make(dir.path(), "b/PARENT.VHDX", &base(9));
    let by_dir = ImageOptions { parent_dirs: vec![dir.path().join("b")], ..ImageOptions::default() };
    assert_eq!(first_byte(&Image::open(&child, &by_dir).unwrap()), byte(9, 0));
    let odd = make(dir.path(), "b/renamed.vhdx", &base(8));
    let by_file = ImageOptions { parents: vec![odd], ..ImageOptions::default() };
    assert_eq!(first_byte(&Image::open(&child, &by_file).unwrap()), byte(8, 0));
    // Beside the child, in other letters: found by itself, but an explicit file goes first.
    make(dir.path(), "a/Parent.vhdx", &base(7));
    let image = Image::open(&child, &ImageOptions::default()).unwrap();
    assert_eq!(first_byte(&image), byte(7, 0));
    assert_eq!(image.layers().len(), 2);
    assert_eq!(first_byte(&Image::open(&child, &by_file).unwrap()), byte(8, 0));
}

#[test]
fn explicit_parents_serve_the_depth_they_fit() {
    let dir = tempfile::tempdir().unwrap();
    let middle_id = Uuid::from_u128(77);
    let base = make(dir.path(), "x/base.vhdx", &base(6));
    let middle = Spec { data_write: middle_id, ..Spec::child(2 * MIB, ID, ".\\base.vhdx") };
    let middle = make(dir.path(), "y/middle.avhdx", &middle);
    let leaf = make(dir.path(), "z/leaf.avhdx", &Spec::child(2 * MIB, middle_id, ".\\middle.avhdx"));
    for parents in [vec![middle.clone(), base.clone()], vec![base, middle]] {
        let options = ImageOptions { parents, ..ImageOptions::default() };
        assert_eq!(first_byte(&Image::open(&leaf, &options).unwrap()), byte(6, 0));
    }
}

#[test]
fn the_wrong_parent_is_refused_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let child = make(dir.path(), "child.avhdx", &Spec::child(2 * MIB, Uuid::from_u128(1), ".\\parent.vhdx"));
    make(dir.path(), "parent.vhdx", &base(5));
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::LinkageMismatch);
    let error = Image::open(&child, &ImageOptions::default()).unwrap_err();
    assert!(error.to_string().contains("parent.vhdx") && error.hint().is_some(), "{error}");
    let told = ImageOptions { ignore_linkage: true, ..ImageOptions::default() };
    assert_eq!(first_byte(&Image::open(&child, &told).unwrap()), byte(5, 0));
    // Zeros are for a missing parent, not for a wrong one.
    let zeros = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    assert_eq!(kind(&child, &zeros), OpenErrorKind::LinkageMismatch);
}

#[test]
fn the_second_linkage_counts_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Spec::child(2 * MIB, Uuid::from_u128(1), ".\\parent.vhdx");
    spec.pairs[4].1 = format!("{{{ID}}}");
    let child = make(dir.path(), "child.avhdx", &spec);
    make(dir.path(), "parent.vhdx", &base(5));
    Image::open(&child, &ImageOptions::default()).unwrap();
    // A zero id is "none", also for a parent whose id is zero.
    let zero = make(dir.path(), "z/child.avhdx", &Spec::child(2 * MIB, Uuid::from_u128(1), ".\\parent.vhdx"));
    make(dir.path(), "z/parent.vhdx", &Spec { data_write: Uuid::nil(), ..base(5) });
    assert_eq!(kind(&zero, &ImageOptions::default()), OpenErrorKind::LinkageMismatch);
}

#[test]
fn a_missing_parent_may_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { blocks: vec![Block::Full(1)], ..Spec::child(2 * MIB, ID, ".\\parent.vhdx") };
    let child = make(dir.path(), "Generation 1_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx", &spec);
    let options = ImageOptions { missing_parent: MissingParent::Zero, ..ImageOptions::default() };
    let image = Image::open(&child, &options).unwrap();
    let kinds: Vec<_> = image.extents(0, u64::MAX).map(|extent| extent.unwrap().kind).collect();
    assert_eq!(kinds, [ExtentKind::Data, ExtentKind::Hole]);
    let mut got = vec![1; 10];
    image.read_at(&mut got, MIB + 5).unwrap();
    assert_eq!(got, [0; 10]);
}

#[test]
fn the_files_own_words_do_not_leave_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "outside/secret.vhdx", &base(4));
    let inside = dir.path().join("package");
    for words in ["..\\outside\\secret.vhdx", "/etc/../outside/secret.vhdx"] {
        let child = make(&inside, "child.avhdx", &Spec::child(2 * MIB, ID, words));
        let error = kind(&child, &ImageOptions::default());
        assert!(
            matches!(error, OpenErrorKind::OutsideConfinement | OpenErrorKind::ParentMissing),
            "{error:?}"
        );
        std::fs::remove_file(child).unwrap();
    }
    // A symlink in the package leads out just the same.
    std::os::unix::fs::symlink(dir.path().join("outside/secret.vhdx"), inside.join("link.vhdx")).unwrap();
    let child = make(&inside, "linked.avhdx", &Spec::child(2 * MIB, ID, ".\\link.vhdx"));
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::OutsideConfinement);
    // With a wider confinement both are fine: that is how a package's Snapshots reach its Virtual Hard Disks.
    let wide = ImageOptions { confine: Some(dir.path().to_owned()), ..ImageOptions::default() };
    assert_eq!(first_byte(&Image::open(&child, &wide).unwrap()), byte(4, 0));
    let child = make(&inside, "up.avhdx", &Spec::child(2 * MIB, ID, "..\\outside\\secret.vhdx"));
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::OutsideConfinement);
    assert_eq!(first_byte(&Image::open(&child, &wide).unwrap()), byte(4, 0));
    // And naming the file or its directory is the user's word.
    let named =
        ImageOptions { parents: vec![dir.path().join("outside/secret.vhdx")], ..ImageOptions::default() };
    Image::open(&child, &named).unwrap();
    let named = ImageOptions { parent_dirs: vec![dir.path().join("outside")], ..ImageOptions::default() };
    Image::open(&child, &named).unwrap();

    // A directory that nobody vouches for is searched by name, and its links lead no further than its fence.
    let child = make(&inside, "lost.avhdx", &Spec::child(2 * MIB, ID, "Z:\\gone\\SECRET.vhdx"));
    let search = inside.join("search");
    std::fs::create_dir(&search).unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside/secret.vhdx"), search.join("secret.vhdx")).unwrap();
    let fenced = |fence: &Path| ImageOptions {
        fenced_dirs: vec![FencedDir { dir: search.clone(), fence: fence.to_owned() }],
        ..ImageOptions::default()
    };
    assert_eq!(kind(&child, &fenced(&inside)), OpenErrorKind::OutsideConfinement);
    assert_eq!(first_byte(&Image::open(&child, &fenced(dir.path())).unwrap()), byte(4, 0));
}

#[test]
fn circles_and_endless_chains_end() {
    let dir = tempfile::tempdir().unwrap();
    let own = Spec { data_write: ID, ..Spec::child(2 * MIB, ID, ".\\self.avhdx") };
    assert_eq!(kind(&make(dir.path(), "self.avhdx", &own), &ImageOptions::default()), OpenErrorKind::Cycle);
    let a = Spec { data_write: ID, ..Spec::child(2 * MIB, ID, ".\\b.avhdx") };
    let b = Spec { data_write: ID, ..Spec::child(2 * MIB, ID, ".\\a.avhdx") };
    let path = make(dir.path(), "a.avhdx", &a);
    make(dir.path(), "b.avhdx", &b);
    assert_eq!(kind(&path, &ImageOptions::default()), OpenErrorKind::Cycle);
    // A hard link is the same file under another name.
    let own = Spec { data_write: ID, ..Spec::child(2 * MIB, ID, ".\\other.avhdx") };
    let path = make(dir.path(), "one.avhdx", &own);
    std::fs::hard_link(&path, dir.path().join("other.avhdx")).unwrap();
    assert_eq!(kind(&path, &ImageOptions::default()), OpenErrorKind::Cycle);
    for number in 0..vhdx::limits::MAX_CHAIN + 1 {
        let name = format!(".\\deep{}.avhdx", number + 1);
        let spec = Spec { data_write: ID, ..Spec::child(2 * MIB, ID, &name) };
        make(dir.path(), &format!("deep{number}.avhdx"), &spec);
    }
    assert_eq!(kind(&dir.path().join("deep0.avhdx"), &ImageOptions::default()), OpenErrorKind::TooDeep);
}

#[test]
fn sectors_and_formats_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let child = make(dir.path(), "child.avhdx", &Spec::child(2 * MIB, ID, ".\\parent.vhdx"));
    make(dir.path(), "parent.vhdx", &Spec { sector: 4096, ..base(1) });
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::Invalid);
}

#[test]
fn what_is_no_disk_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "not a disk").unwrap();
    assert_eq!(kind(&text, &ImageOptions::default()), OpenErrorKind::NotADisk);
    std::fs::write(&text, "").unwrap();
    assert_eq!(kind(&text, &ImageOptions::default()), OpenErrorKind::NotADisk);
    assert_eq!(kind(dir.path(), &ImageOptions::default()), OpenErrorKind::Io);
    assert_eq!(kind(&dir.path().join("absent"), &ImageOptions::default()), OpenErrorKind::Io);
    assert_eq!(Image::is_vhd_or_vhdx(&text).unwrap(), None);
    assert_eq!(Image::is_vhd_or_vhdx(dir.path()).unwrap(), None);
    let disk = make(dir.path(), "disk.img", &base(1));
    assert_eq!(Image::is_vhd_or_vhdx(&disk).unwrap(), Some(vhdx::Format::Vhdx));
    // A directory, a pipe or nothing where the parent should be is a parent that is missing or unusable, not a hang.
    let child = make(dir.path(), "c/child.avhdx", &Spec::child(2 * MIB, ID, ".\\parent.vhdx"));
    std::fs::create_dir(dir.path().join("c/parent.vhdx")).unwrap();
    assert_eq!(kind(&child, &ImageOptions::default()), OpenErrorKind::Io);
}
