//! VHD files that are damaged, odd or made to do harm. The bytes are put together here, field by field, so that reader
//! and writer of the crate do not agree with each other alone.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vhdx::check::check_storage;
use vhdx::{
    CheckOptions, ExtentKind, Image, ImageOptions, MemoryStorage, MissingParent, OpenErrorKind,
    ReadErrorKind, Severity,
};

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn footer(kind: u32, size: u64, id: u8) -> Vec<u8> {
    let mut footer = vec![0; SECTOR];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 8, &2_u32.to_be_bytes());
    put(&mut footer, 12, &0x1_0000_u32.to_be_bytes());
    put(&mut footer, 16, &if kind == 2 { u64::MAX } else { 512 }.to_be_bytes());
    put(&mut footer, 28, b"tap\0");
    put(&mut footer, 40, &size.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 60, &kind.to_be_bytes());
    put(&mut footer, 68, &[id; 16]);
    seal(&mut footer, 64);
    footer
}

/// A file of blocks of 8 sectors: for each block none, or the bits of its sector bitmap and a byte to fill it with.
struct Sparse {
    size: u64,
    id: u8,
    parent: Option<(u8, &'static str)>,
    blocks: Vec<Option<(u8, u8)>>,
}

impl Sparse {
    /// footer 0, header 512, relative path 1536, table 2048, blocks 2560
    const PATH: usize = 1536;
    const TABLE: usize = 2048;
    const DATA: usize = 2560;

    fn bytes(&self) -> Vec<u8> {
        let footer = footer(if self.parent.is_some() { 4 } else { 3 }, self.size, self.id);
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse");
        put(&mut header, 8, &u64::MAX.to_be_bytes());
        put(&mut header, 16, &(Self::TABLE as u64).to_be_bytes());
        put(&mut header, 24, &0x1_0000_u32.to_be_bytes());
        put(&mut header, 28, &(self.blocks.len() as u32).to_be_bytes());
        put(&mut header, 32, &(BLOCK as u32).to_be_bytes());
        let mut path = Vec::new();
        if let Some((id, name)) = self.parent {
            put(&mut header, 40, &[id; 16]);
            path = format!(".\\{name}").encode_utf16().flat_map(u16::to_le_bytes).collect();
            put(&mut header, 576, b"W2ru");
            put(&mut header, 580, &512_u32.to_be_bytes());
            put(&mut header, 584, &(path.len() as u32).to_be_bytes());
            put(&mut header, 592, &(Self::PATH as u64).to_be_bytes());
        }
        seal(&mut header, 36);
        let mut file = [footer.clone(), header, path].concat();
        file.resize(Self::TABLE, 0);
        file.resize(Self::DATA, 0xff);
        for (number, block) in self.blocks.iter().enumerate() {
            let Some((bits, fill)) = *block else { continue };
            let sector = (file.len() / SECTOR) as u32;
            put(&mut file, Self::TABLE + 4 * number, &sector.to_be_bytes());
            file.push(bits);
            file.resize(file.len() + SECTOR - 1, 0);
            file.resize(file.len() + BLOCK, fill);
        }
        [file, footer].concat()
    }
}

fn parent() -> Sparse {
    Sparse {
        size: 3 * 4096 - 512,
        id: 1,
        parent: None,
        blocks: vec![Some((0xff, b'p')), None, Some((0b1010_0000, b'q'))],
    }
}

fn child() -> Sparse {
    let blocks = vec![Some((0b0111_0001, b'c')), None, Some((0b0100_0000, b'd')), None];
    Sparse { size: 4 * 4096, id: 2, parent: Some((1, "parent.vhd")), blocks }
}

/// One letter a sector.
fn content(image: &Image) -> String {
    let mut bytes = vec![0; image.virtual_size() as usize];
    image.read_at(&mut bytes, 0).expect("reading");
    bytes
        .chunks(SECTOR)
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is of one layer");
            if sector[0] == 0 { '.' } else { char::from(sector[0]) }
        })
        .collect()
}

fn open(bytes: Vec<u8>, options: &ImageOptions) -> Result<Image, vhdx::OpenError> {
    Image::open_storage(Arc::new(MemoryStorage::new(bytes)), "disk", options)
}

fn strict(bytes: Vec<u8>) -> Result<Image, vhdx::OpenError> {
    open(bytes, &ImageOptions::default())
}

fn rules(bytes: Vec<u8>) -> Vec<(&'static str, Severity)> {
    let storage = Arc::new(MemoryStorage::new(bytes));
    let report = check_storage(storage, "disk", &CheckOptions::default()).expect("checking");
    report.findings.iter().map(|finding| (finding.rule, finding.severity)).collect()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("writing");
    path
}

#[test]
fn sector_bitmaps_decide_between_child_parent_and_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "parent.vhd", &parent().bytes());
    let path = write(dir.path(), "child.vhd", &child().bytes());
    let image = Image::open(&path, &ImageOptions::default()).expect("opening the chain");
    // The child is larger than the parent: nothing is there behind the parent's end.
    assert_eq!(content(&image), "pcccpppc........qdq.............");
    let kinds: Vec<_> = image
        .extents(0, image.virtual_size())
        .map(|extent| extent.expect("mapping"))
        .map(|extent| (extent.length / 512, extent.kind == ExtentKind::Data, extent.layer))
        .collect();
    let expected = [
        (1, true, 1),
        (3, true, 0),
        (3, true, 1),
        (1, true, 0),
        (8, false, 1),
        (1, true, 1),
        (1, true, 0),
        (1, true, 1),
        (13, false, 1),
    ];
    assert_eq!(kinds, expected);
    // Any piece reads as it does in the whole.
    let mut whole = vec![0; image.virtual_size() as usize];
    image.read_at(&mut whole, 0).expect("reading");
    for start in (0..whole.len()).step_by(397) {
        let end = (start + 1500).min(whole.len());
        let mut part = vec![0xee; end - start];
        image.read_at(&mut part, start as u64).expect("reading a part");
        assert!(part == whole[start..end], "at {start}");
    }
}

#[test]
fn a_clear_bit_of_a_dynamic_disk_is_a_hole() {
    assert_eq!(content(&strict(parent().bytes()).expect("opening")), "pppppppp........q.q....");
}

#[test]
fn a_parent_of_another_id_is_refused_unless_told_otherwise() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "parent.vhd", &Sparse { id: 9, ..parent() }.bytes());
    let path = write(dir.path(), "child.vhd", &child().bytes());
    let error = Image::open(&path, &ImageOptions::default()).expect_err("the wrong parent");
    assert_eq!(error.kind(), OpenErrorKind::LinkageMismatch);
    let options = ImageOptions { ignore_linkage: true, ..Default::default() };
    assert_eq!(Image::open(&path, &options).expect("told otherwise").layers().len(), 2);
}

#[test]
fn a_damaged_or_missing_end_is_made_good_by_the_copy() {
    let whole = parent().bytes();
    let expected = content(&strict(whole.clone()).expect("opening"));
    let mut flipped = whole.clone();
    let at = flipped.len() - 300;
    flipped[at] ^= 1;
    let cut = whole[..whole.len() - SECTOR].to_vec();
    for (damaged, rule) in [(flipped, "vhd.footer.checksum"), (cut, "vhd.footer.missing")] {
        let image = strict(damaged.clone()).expect("opening by the copy");
        assert_eq!(content(&image), expected);
        assert_eq!(image.layers()[0].info.tolerated.len(), 1);
        assert_eq!(rules(damaged), [(rule, Severity::Warning)]);
    }
    let mut no_copy = whole;
    no_copy[..8].fill(0);
    assert_eq!(content(&strict(no_copy.clone()).expect("opening by the end")), expected);
    assert_eq!(rules(no_copy), [("vhd.footer.copy.missing", Severity::Warning)]);
}

#[test]
fn footers_of_511_bytes_are_read() {
    let mut fixed = vec![b'f'; 3 * SECTOR];
    fixed.extend(&footer(2, 3 * 512, 1)[..511]);
    assert_eq!(content(&strict(fixed.clone()).expect("opening")), "fff");
    assert_eq!(rules(fixed), [("vhd.footer.short", Severity::Info)]);
}

#[test]
fn any_creator_is_read_by_the_footers_size() {
    for creator in
        [b"win ", b"vpc ", b"qemu", b"qem2", b"d2v\0", b"tap\0", b"vbox", b"\0\0\0\0", b"\xff\x1b[m"]
    {
        let mut end = footer(2, 1024, 1);
        put(&mut end, 28, creator);
        seal(&mut end, 64);
        let bytes = [vec![b'f'; 1024], end].concat();
        let image = strict(bytes.clone()).expect("opening");
        assert_eq!(content(&image), "ff");
        // These footers of ours have no geometry at all.
        let by_geometry = [b"vpc ", b"qemu"].contains(&creator);
        let expected: &[_] = if by_geometry { &[("vhd.footer.geometry", Severity::Info)] } else { &[] };
        assert_eq!(rules(bytes), expected);
        assert!(image.layers()[0].info.creator.chars().all(|c| c.is_ascii_graphic() || c == ' '));
    }
}

#[test]
fn a_fixed_disk_cut_short_is_refused_and_read_leniently_up_to_there() {
    let bytes = [vec![b'f'; 1024], footer(2, 2048, 1)].concat();
    assert_eq!(strict(bytes.clone()).expect_err("cut").kind(), OpenErrorKind::Truncated);
    assert_eq!(rules(bytes.clone()), [("vhd.fixed.truncated", Severity::Error)]);
    let image = open(bytes, &ImageOptions { lenient: true, ..Default::default() }).expect("lenient");
    image.read_at(&mut [0; 1024], 0).expect("what is there");
    assert_eq!(image.read_at(&mut [0; 1024], 1024).expect_err("what is not").kind(), ReadErrorKind::Corrupt);
}

#[test]
fn each_broken_rule_has_its_name_and_the_reader_says_why() {
    type Break = fn(&mut Vec<u8>);
    fn both(bytes: &mut [u8], at: usize, value: &[u8]) {
        let end = bytes.len() - SECTOR;
        for start in [0, end] {
            put(bytes, start + at, value);
            seal(&mut bytes[start..start + SECTOR], 64);
        }
    }
    fn header(bytes: &mut [u8], at: usize, value: &[u8]) {
        put(bytes, 512 + at, value);
        seal(&mut bytes[512..1536], 36);
    }
    let cases: [(&str, OpenErrorKind, Break); 14] = [
        ("vhd.footer.version", OpenErrorKind::Unsupported, |b| both(b, 12, &[0, 2, 0, 0])),
        ("vhd.footer.type", OpenErrorKind::Unsupported, |b| both(b, 60, &[0, 0, 0, 5])),
        ("vhd.footer.size", OpenErrorKind::Invalid, |b| both(b, 48, &[0; 8])),
        ("vhd.footer.size", OpenErrorKind::Invalid, |b| both(b, 48, &u64::MAX.to_be_bytes())),
        ("vhd.header.outside", OpenErrorKind::Truncated, |b| both(b, 16, &[0xff; 8])),
        ("vhd.header.signature", OpenErrorKind::Invalid, |b| b[512] = b'x'),
        ("vhd.header.checksum", OpenErrorKind::Checksum, |b| b[600] ^= 1),
        ("vhd.header.version", OpenErrorKind::Unsupported, |b| header(b, 24, &[9])),
        ("vhd.header.block-size", OpenErrorKind::Invalid, |b| header(b, 32, &[0; 4])),
        ("vhd.header.block-size", OpenErrorKind::Invalid, |b| header(b, 32, &[0x80, 0, 0, 0])),
        ("vhd.bat.entries", OpenErrorKind::Invalid, |b| header(b, 28, &[0, 0, 0, 1])),
        ("vhd.bat.outside", OpenErrorKind::Truncated, |b| header(b, 16, &u64::MAX.to_be_bytes())),
        ("vhd.locator.outside", OpenErrorKind::Invalid, |b| header(b, 592, &u64::MAX.to_be_bytes())),
        ("vhd.locator.outside", OpenErrorKind::Invalid, |b| header(b, 584, &[0xff; 4])),
    ];
    for (rule, kind, damage) in cases {
        let mut bytes = child().bytes();
        damage(&mut bytes);
        let options = ImageOptions { missing_parent: MissingParent::Zero, ..Default::default() };
        let error = open(bytes.clone(), &options).expect_err(rule);
        assert_eq!(error.kind(), kind, "{rule}: {error}");
        let found = rules(bytes);
        assert!(found.contains(&(rule, Severity::Error)), "{rule} in {found:?}");
    }
    let cases: [(&str, Break); 4] = [
        ("vhd.block.outside", |b| put(b, Sparse::TABLE, &[0, 0xff, 0, 0])),
        ("vhd.block.metadata", |b| put(b, Sparse::TABLE, &[0, 0, 0, 1])),
        ("vhd.block.overlap", |b| {
            let same: [u8; 4] = b[Sparse::TABLE..Sparse::TABLE + 4].try_into().expect("four bytes");
            put(b, Sparse::TABLE + 8, &same);
        }),
        ("vhd.parent.id", |b| header(b, 40, &[0; 16])),
    ];
    for (rule, damage) in cases {
        let mut bytes = child().bytes();
        damage(&mut bytes);
        let found = rules(bytes);
        assert!(found.contains(&(rule, Severity::Error)), "{rule} in {found:?}");
    }
    assert_eq!(rules(child().bytes()), []);
    assert_eq!(rules(parent().bytes()), []);
}

#[test]
fn a_table_of_zeros_is_given_up_on_soon() {
    // 2040 GiB in blocks of 512 bytes: four thousand million entries, all of them at the start of the file.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.vhd");
    let size = 2040_u64 << 30;
    let mut file = footer(3, size, 7);
    let mut header = vec![0; 1024];
    put(&mut header, 0, b"cxsparse");
    put(&mut header, 8, &u64::MAX.to_be_bytes());
    put(&mut header, 16, &1536_u64.to_be_bytes());
    put(&mut header, 24, &0x1_0000_u32.to_be_bytes());
    put(&mut header, 28, &((size / 512) as u32).to_be_bytes());
    put(&mut header, 32, &512_u32.to_be_bytes());
    seal(&mut header, 36);
    file.extend(header);
    std::fs::write(&path, &file).unwrap();
    let sparse = std::fs::File::options().write(true).open(&path).unwrap();
    sparse.set_len(1536 + size / 512 * 4 + 512).unwrap();
    let report = vhdx::check(&path, &CheckOptions { max_findings: 5 }).unwrap();
    assert!(report.overlap().is_some());
    assert!(report.findings.iter().any(|f| f.rule == "vhd.bat.too-many"), "{:?}", report.findings);
    assert!(report.suppressed < 100_000, "{}", report.suppressed);
}

#[test]
fn a_block_behind_the_end_of_the_file_is_an_error_of_the_read() {
    let mut bytes = parent().bytes();
    put(&mut bytes, Sparse::TABLE, &[0, 0xff, 0, 0]);
    let image = strict(bytes).expect("the table is not read when a disk is opened");
    let error = image.read_at(&mut [0; 10], 100).expect_err("no data there");
    assert_eq!((error.kind(), error.offset()), (ReadErrorKind::Corrupt, 100));
    image.read_at(&mut [0; 4096], 4096).expect("other blocks are still there");
}

/// Opens, maps, reads and checks in every way; the result does not matter, that there is one does.
fn exercise(bytes: &[u8]) {
    for lenient in [false, true] {
        let options = ImageOptions { lenient, missing_parent: MissingParent::Zero, ..Default::default() };
        let Ok(image) = open(bytes.to_vec(), &options) else { continue };
        let size = image.virtual_size();
        let mut buf = vec![0; size.min(20_000) as usize];
        let _ = image.read_at(&mut buf, 0);
        let last = size - buf.len() as u64;
        let _ = image.read_at(&mut buf, last);
        let _ = image.extents(0, size.min(1 << 30)).take(1000).count();
    }
    let _ = check_storage(Arc::new(MemoryStorage::new(bytes.to_vec())), "disk", &CheckOptions::default());
}

proptest! {
    #[test]
    fn flipped_bits_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 1..6), differencing: bool, structures: bool,
    ) {
        let mut bytes = if differencing { child().bytes() } else { parent().bytes() };
        // Mostly where it hurts.
        let range = if structures { Sparse::DATA } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(range)] ^= 1_u8 << bit;
        }
        exercise(&bytes);
        // With right checksums the damage gets further.
        if &bytes[..8] == b"conectix" {
            seal(&mut bytes[..SECTOR], 64);
        }
        seal(&mut bytes[512..1536], 36);
        let end = bytes.len() - SECTOR;
        bytes.copy_within(..SECTOR, end);
        exercise(&bytes);
    }

    #[test]
    fn cut_files_never_panic(at: prop::sample::Index, differencing: bool) {
        let bytes = if differencing { child().bytes() } else { parent().bytes() };
        exercise(&bytes[..at.index(bytes.len())]);
        exercise(&bytes[at.index(bytes.len())..]);
    }

    #[test]
    fn garbage_behind_a_footers_signature_never_panics(rest in prop::collection::vec(any::<u8>(), 0..3000)) {
        exercise(&[&b"conectix"[..], &rest].concat());
    }
}
