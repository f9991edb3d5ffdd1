//! What leaves is what came in plus what the guest did, told by the host: the configuration byte for byte, and every
//! byte of the disk, computed here and read back by a reader that is not ours.

#![expect(clippy::panic, reason = "a test that fails says why")]

use harness::guest::{PATTERN_OFFSET, image, package, pattern};
use harness::oracle::{Content, parse_hash, qemu_says_identical, sha256_file};
use harness::{Daemon, Guest, need};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const GENERATION_1: &str = "xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml";
const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
/// What the disks of `harness::guest::package` hold.
const SIZE: u64 = 256 << 20;

/// Everything about every file below a folder that a writer would leave a trace in, folders included: content, size,
/// when it and its inode were last changed, links, mode.
fn traces(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(path) = folders.pop() {
        let m = fs::metadata(&path).expect("readable");
        let hash = if m.is_dir() { String::new() } else { sha256_file(&path) };
        if m.is_dir() {
            folders.extend(fs::read_dir(&path).expect("readable").map(|e| e.expect("an entry").path()));
        }
        let [mtime, ctime] = [(m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())];
        found.push((path, format!("{hash} {} {mtime:?} {ctime:?} {} {:o}", m.len(), m.nlink(), m.mode())));
    }
    found.sort();
    found
}

/// The only file below `folder` with that ending.
#[track_caller]
fn only(folder: &Path, ending: &str) -> PathBuf {
    let all: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    let mut fitting = all.iter().filter(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending)));
    let found = fitting.next().unwrap_or_else(|| panic!("no .{ending} among {all:?}"));
    assert!(fitting.next().is_none(), "more than one .{ending} among {all:?}");
    found.clone()
}

/// The raw disk that a guest made of `guest` must have after it wrote the pattern of `seed`: made without us.
fn expected(at: &Path, guest: &str, seed: &str) -> Result<(), String> {
    let copied = Command::new("cp").arg("--sparse=always").arg(image(guest)?).arg(at).status();
    assert!(copied.is_ok_and(|s| s.success()), "no copy of {guest}");
    let file = fs::File::options().write(true).open(at).expect("the copy");
    file.set_len(SIZE).expect("grown");
    file.write_all_at(&pattern(seed), PATTERN_OFFSET).expect("written");
    Ok(())
}

/// In, at work, out; the guest is asked to shut down, as a person would.
fn moved(configuration: &str, ending: &str, register: bool) {
    let daemon = Daemon::start();
    let home = daemon.home();
    let raw = home.join("expected.raw");
    need!(expected(&raw, "boot-plain.raw", "work"));
    let came = need!(package(&home.join("in"), configuration, "boot-plain.raw"));
    let before = traces(&came);

    let mode = if register { "--register" } else { "--copy" };
    let imported = daemon.run(["import".as_ref(), came.as_os_str(), mode.as_ref(), "--json".as_ref()]).json();
    let id = imported["id"].as_str().or_else(|| imported["machine"]["id"].as_str());
    let id = id.unwrap_or_else(|| panic!("import tells no id: {imported}")).to_owned();
    let guest = Guest::start(&daemon, &id);
    guest.write("work");
    guest.holds("work");
    daemon.run(["machine", "shutdown", &id]).ok();
    assert_eq!(traces(&came), before, "the package was touched");

    let left = home.join("out");
    daemon.run(["export".as_ref(), id.as_ref(), left.as_os_str()]).ok();
    assert_eq!(traces(&came), before, "the package was touched");
    let verified = daemon.run(["verify".as_ref(), left.as_os_str()]);
    assert!(verified.ok().contains("every byte"), "{verified}");

    // Nothing about the machine was changed, so nothing about its configuration is.
    let [old, new] = [&came, &left].map(|p| only(&p.join("Virtual Machines"), ending));
    assert_eq!(old.file_name(), new.file_name());
    assert_eq!(fs::read(&old).expect("read"), fs::read(&new).expect("read"), "the configuration changed");

    // Every byte of the disk is known on the host: where the package's base shows through, and where the guest wrote.
    let [old, new] = [&came, &left].map(|p| only(&p.join("Virtual Hard Disks"), "vhdx"));
    assert_eq!(old.file_name(), new.file_name());
    let hashed = parse_hash(&daemon.run(["disk".as_ref(), "hash".as_ref(), new.as_os_str()]));
    assert_eq!(hashed, Content { sha256: sha256_file(&raw), size: SIZE });
    qemu_says_identical(&new, "vhdx", &raw);
}

#[test]
fn a_generation_1_machine_in_xml_used_in_place_leaves_as_it_came_and_with_its_work() {
    moved(GENERATION_1, "xml", true);
}

#[test]
fn a_generation_2_machine_used_in_place_leaves_as_it_came_and_with_its_work() {
    moved(GENERATION_2, "vmcx", true);
}

#[test]
fn a_generation_2_machine_that_was_copied_leaves_as_it_came_and_with_its_work() {
    moved(GENERATION_2, "vmcx", false);
}
