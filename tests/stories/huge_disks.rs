//! Disks as large as the format allows, and files that claim far more than they hold: answers that other readers confirm,
//! in bounded memory.

#![expect(clippy::print_stdout, reason = "tests talk to the person who runs them")]

use harness::hostile::{Mounted, Watched, is_root, slipway_watched, watched};
use harness::scratch::{noise, raw_disk};
use harness::{Scratch, need, oracle};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vhdx::{CreateOptions, FileStorage, Image, ImageOptions, Writer};

/// Most memory that any command may take, in MiB.
const MEMORY: u64 = 256;
const TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PIECE: usize = 4096;

/// Where a disk of that size and block size is most likely to be wrong: its ends, the blocks on both sides of a sector
/// bitmap in the allocation table (every 2^23 sectors), and a lone block in the middle of nowhere.
fn places(size: u64, sector: u64) -> Vec<u64> {
    let chunk = (1 << 23) * sector;
    let last_chunk = (size - 1) / chunk * chunk;
    let mut places = vec![
        0,
        chunk - PIECE as u64,
        chunk,
        chunk * 2,
        size / 3 / 4096 * 4096,
        last_chunk,
        size - PIECE as u64,
    ];
    places.retain(|at| at + PIECE as u64 <= size);
    places.sort_unstable();
    places.dedup();
    places
}

fn made(path: &Path, size: u64, block_size: u32, sector: u32) -> Vec<u64> {
    let storage = Arc::new(FileStorage::create_new(path).expect("made"));
    let options = CreateOptions {
        block_size,
        logical_sector_size: sector,
        physical_sector_size: 4096,

        ..CreateOptions::dynamic(size)
    };
    let writer = Writer::create(storage, &options).expect("created");
    let places = places(size, sector.into());
    for at in &places {
        writer.write_at(&noise(*at + 1, PIECE), *at).expect("written");
    }
    writer.finish().expect("finished");
    places
}

fn on(words: &[&str], path: &Path) -> Watched {
    let watched = slipway_watched(words.iter().map(AsRef::as_ref).chain([path.as_os_str()]));
    assert!(watched.peak_mib < MEMORY, "{} MiB: {}", watched.peak_mib, watched.ran);
    watched
}

/// What the map calls data: block by block where we wrote, nothing else.
fn maps_what_was_written(path: &Path, places: &[u64], size: u64, block: u64) {
    let map = on(&["disk", "map", "--json"], path).ran.json();
    let rows = map.as_array().expect("rows");
    let mut at = 0;
    for row in rows {
        assert_eq!(row["offset"], at, "a gap in the map");
        at += row["length"].as_u64().expect("a length");
    }
    assert_eq!(at, size);
    let data: Vec<(u64, u64)> = rows
        .iter()
        .filter(|r| r["kind"] == "data")
        .map(|r| (r["offset"].as_u64().expect("an offset"), r["length"].as_u64().expect("a length")))
        .collect();
    let mut expected: Vec<(u64, u64)> = Vec::new();
    for at in places {
        let start = at / block * block;
        let end = (at + PIECE as u64).next_multiple_of(block).min(size);
        match expected.last_mut() {
            Some((from, have)) if *from + *have >= start => *have = end - *from,
            _ => expected.push((start, end - start)),
        }
    }
    assert_eq!(data, expected);
}

#[test]
fn sixty_four_tebibytes_in_blocks_of_one_mebibyte() {
    let scratch = Scratch::new();
    let path = scratch.join("huge.vhdx");
    let size = 64 * TIB;
    let places = made(&path, size, 1 << 20, 512);
    let info = on(&["disk", "info", "--json"], &path).ran.json();
    assert_eq!((&info["virtual_size"], &info["block_size"]), (&size.into(), &MIB.into()));
    on(&["disk", "check"], &path).ran.ok();
    maps_what_was_written(&path, &places, size, MIB);
    reads_agree(&path, &places);

    // One whose file ends within its table is refused.
    let file = File::open(&path).expect("opened");
    for action in ["info", "map", "check", "hash"] {
        let short = scratch.join("short.vhdx");
        // Without most of its table.
        let mut head = vec![0; 4 << 20];
        file.read_exact_at(&mut head, 0).expect("read");
        std::fs::write(&short, head).expect("written");
        let ran = on(&["disk", action], &short).ran;
        ran.told(&short);
    }
}

/// First, last and boundary blocks through our library, libvhdi and qemu-io.
fn reads_agree(path: &Path, places: &[u64]) {
    let image = Image::open(path, &ImageOptions::default()).expect("opened");
    let mut ours = Vec::new();
    for at in places {
        let mut piece = vec![0; PIECE];
        image.read_at(&mut piece, *at).expect("read");
        assert_eq!(piece, noise(*at + 1, PIECE), "at {at}");
        ours.push(oracle::sha256(&piece));
    }
    match oracle::python() {
        Ok(python) => assert_eq!(oracle::libvhdi_pieces(&python, path, places, PIECE), ours),
        Err(why) => println!("skipped: {why}"),
    }
    if image.logical_sector_size() == 512 && oracle::program("qemu-io").is_ok() {
        // Its own memory is no concern of ours: it holds the whole table.
        let expected: Vec<_> = places.iter().map(|at| noise(*at + 1, 16)).collect();
        for (at, bytes) in places.iter().zip(expected) {
            let read = watched(
                Command::new("qemu-io")
                    .args(["-r", "-f", "vhdx", "-c", &format!("read -v {at} 512")])
                    .arg(path),
            );
            let hex: String = bytes.iter().map(|b| format!("{b:02x} ")).collect();
            assert!(read.ran.ok().contains(hex.trim_end()), "qemu-io reads something else: {}", read.ran);
        }
    }
}

#[test]
fn large_disks_of_every_block_size() {
    let scratch = Scratch::new();
    for (n, (size, block, sector)) in [
        (64 * TIB, 256 << 20, 512),
        (64 * TIB, 32 << 20, 4096),
        (10 * TIB + 4096, 2 << 20, 4096),
        (4 * TIB + 512 * 3, 1 << 20, 512),
    ]
    .into_iter()
    .enumerate()
    {
        let path = scratch.join(&format!("{n}.vhdx"));
        let size = size / u64::from(sector) * u64::from(sector);
        let places: Vec<u64> = made(&path, size, block, sector);
        assert_eq!(on(&["disk", "info", "--json"], &path).ran.json()["virtual_size"], size);
        on(&["disk", "check"], &path).ran.ok();
        maps_what_was_written(&path, &places, size, block.into());
        reads_agree(&path, &places);
    }
}

fn convert(from: &Path, to: &Path, more: &[&str]) -> Watched {
    let words = ["disk".as_ref(), "convert".as_ref(), from.as_os_str(), to.as_os_str()];
    let done = slipway_watched(words.into_iter().chain(more.iter().map(AsRef::as_ref)));
    assert!(done.peak_mib < MEMORY, "{} MiB: {}", done.peak_mib, done.ran);
    done
}

#[test]
fn what_is_not_there_is_not_copied() {
    let scratch = Scratch::new();
    // A raw disk of 2 TiB that holds 3 MiB.
    let raw = scratch.join("bomb.raw");
    raw_disk(&raw, 2 * TIB, &[(0, 1 << 20), (700 * GIB, 1 << 20), (2 * TIB - MIB, 1 << 20)]);
    let disk = scratch.join("bomb.vhdx");
    convert(&raw, &disk, &[]).ran.ok();
    assert!(taken(&disk) < 150 * MIB, "{} bytes on disk", taken(&disk));
    on(&["disk", "check"], &disk).ran.ok();
    let back = scratch.join("back.raw");
    convert(&disk, &back, &[]).ran.ok();
    assert!(taken(&back) < 150 * MIB, "{} bytes on disk", taken(&back));
    let (a, b) = (File::open(&raw).expect("opened"), File::open(&back).expect("opened"));
    for at in [0, MIB, 700 * GIB, 2 * TIB - MIB] {
        let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
        a.read_exact_at(&mut one, at).expect("read");
        b.read_exact_at(&mut other, at).expect("read");
        assert_eq!(one, other, "at {at}");
    }
}

fn taken(path: &PathBuf) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).expect("there").blocks() * 512
}

#[test]
fn a_thousand_fragments_take_no_more_memory_than_one() {
    let scratch = Scratch::new();
    let raw = scratch.join("fragments.raw");
    let pieces: Vec<(u64, usize)> = (0..5_000).map(|n| (n * 128 * 1024, 4096)).collect();
    raw_disk(&raw, 3 * GIB, &pieces);
    let disk = scratch.join("fragments.vhdx");
    let done = convert(&raw, &disk, &["--block-size", "1M"]);
    done.ran.ok();
    on(&["disk", "check"], &disk).ran.ok();
    on(&["disk", "map"], &raw).ran.ok();
}

#[test]
fn a_target_without_room_for_the_table_says_so() {
    if !is_root() {
        harness::skip!("only root can mount");
    }
    let scratch = Scratch::new();
    let small = scratch.join("small");
    let _mounted = need!(Mounted::small(4, &small));
    let raw = scratch.join("big.raw");
    raw_disk(&raw, 64 * MIB, &[(0, 64 << 20)]);
    for (format, name) in [("vhdx", "a.vhdx"), ("vhd", "a.vhd"), ("raw", "a.raw"), ("qcow2", "a.qcow2")] {
        let target = small.join(name);
        let words = [
            "disk".as_ref(),
            "convert".as_ref(),
            raw.as_os_str(),
            target.as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
        ];
        let ran = slipway_watched(words).ran;
        ran.told(&target);
        assert!(ran.stderr.contains("space"), "{ran}");
        assert_eq!(
            std::fs::read_dir(&small).expect("there").count(),
            0,
            "something half-made is left: {ran}"
        );
    }
}
