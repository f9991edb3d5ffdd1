//! Export's options, its end by cancel and by death, and that a package is never of two instants.

#![expect(clippy::panic, reason = "a test that fails says why")]

use harness::guest::{image, package};
use harness::oracle::{Content, parse_hash, qemu_says_identical, sha256_file};
use harness::scratch::{noise, raw_disk, snapshot};
use harness::{Daemon, Guest, Ran, need, real};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
const NAME: &str = "Default Generation 2";
/// Longest wait for a job to get somewhere.
const PATIENCE: Duration = Duration::from_secs(60);

fn export(daemon: &Daemon, machine: &str, to: &Path, options: &[&str]) -> Ran {
    let line = [OsStr::new("export"), OsStr::new(machine), to.as_os_str()];
    daemon.run(line.into_iter().chain(options.iter().map(OsStr::new)))
}

/// The names of all files in a package, without those of the manifest.
fn files(package: &Path) -> Vec<String> {
    let names = snapshot(package)
        .into_iter()
        .map(|(path, _)| path.strip_prefix(package).expect("inside").to_string_lossy().into_owned());
    names.filter(|n| !n.starts_with("Slipway/")).collect()
}

#[track_caller]
fn content(daemon: &Daemon, disk: &Path) -> Content {
    parse_hash(&daemon.run(["disk".as_ref(), "hash".as_ref(), disk.as_os_str()]))
}

/// CRC-32 as in zip, which VMGS headers carry.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ if c & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// A guest state file of version 3.0 with one file that nobody here knows: two headers, two tables, one block of noise.
fn vmgs() -> Vec<u8> {
    let mut out = vec![0; 8 << 12];
    for (at, sequence, table) in [(0, 2u32, 2u32), (512, 1, 3)] {
        let mut header = vec![0; 168];
        header[..8].copy_from_slice(b"GUESTRTS");
        for (field, value) in [(8, 0x0003_0000), (16, sequence), (20, 168), (24, table), (28, 1)] {
            header[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32(&header);
        header[12..16].copy_from_slice(&sum.to_le_bytes());
        out[at..at + 168].copy_from_slice(&header);
        let entry = (usize::try_from(table).expect("small") << 12) + 9 * 64;
        out[entry..entry + 4].copy_from_slice(&4u32.to_le_bytes());
        out[entry + 4..entry + 8].copy_from_slice(&1u32.to_le_bytes());
        out[entry + 8..entry + 16].copy_from_slice(&4096u64.to_le_bytes());
    }
    out[4 << 12..5 << 12].copy_from_slice(&noise(7, 4096));
    out
}

/// Each option leaves what it says, and what it leaves is a package; the guest state file goes along byte for byte.
#[test]
fn options_leave_what_they_say() {
    let daemon = Daemon::start();
    let home = daemon.home();
    let came = need!(package(&home.join("in"), GENERATION_2, "boot-plain.raw"));
    let id = Path::new(&need!(real::named(GENERATION_2).path())).file_stem().expect("a name").to_owned();
    let state = Path::new("Virtual Machines").join(&id).with_extension("vmgs");
    fs::write(came.join(&state), vmgs()).expect("written");
    daemon.run(["import".as_ref(), came.as_os_str()]).ok();
    fs::remove_dir_all(&came).expect("the machine needs its package no more");
    // A second disk, so that one can be left out.
    daemon.run(["machine", "set", NAME, "--new-disk", "64M"]).ok();
    let shown = daemon.run(["machine", "show", NAME, "--json"]).json();
    let disks: Vec<&str> =
        shown["disks"].as_array().expect("disks").iter().filter_map(|d| d["name"].as_str()).collect();
    let [first, second] = disks[..] else { panic!("two disks: {shown}") };
    let (first, second) = (first.to_owned(), second.to_owned());

    let verified = |package: &Path| {
        let ran = daemon.run(["verify".as_ref(), package.as_os_str()]);
        ran.ok();
        assert_eq!(fs::read(package.join(&state)).expect("the guest state"), vmgs());
    };
    let whole = home.join("whole");
    export(&daemon, NAME, &whole, &[]).ok();
    verified(&whole);
    assert_eq!(files(&whole).iter().filter(|f| f.starts_with("Virtual Hard Disks/")).count(), 2);
    let original = content(&daemon, &whole.join("Virtual Hard Disks").join(&first));

    let bare = home.join("bare");
    export(&daemon, NAME, &bare, &["--configuration-only"]).ok();
    verified(&bare);
    assert!(files(&bare).iter().all(|f| f.starts_with("Virtual Machines/")), "{:?}", files(&bare));
    let inspected = daemon.run(["inspect".as_ref(), bare.as_os_str()]);
    assert!(inspected.stdout.contains("missing"), "nothing says that the disks are missing: {inspected}");

    let without = home.join("without");
    export(&daemon, NAME, &without, &["--exclude", &second]).ok();
    verified(&without);
    let left: Vec<String> =
        files(&without).into_iter().filter(|f| f.starts_with("Virtual Hard Disks/")).collect();
    assert_eq!(left, [format!("Virtual Hard Disks/{first}")]);
    let refused = export(&daemon, NAME, &home.join("nothing"), &["--exclude", "no such disk"]);
    assert!(refused.refused().contains(&first), "{refused}");
    assert!(!home.join("nothing").exists() && !home.join("nothing.partial").exists());

    let below = home.join("below");
    let ran = export(&daemon, NAME, &below, &["--subdirectory", "--exclude", &second]);
    let below = below.join(NAME);
    assert!(ran.ok().contains(below.to_str().expect("a name")), "{ran}");
    verified(&below);

    let raw = home.join("first.raw");
    let disk = whole.join("Virtual Hard Disks").join(&first);
    let flat =
        Command::new("qemu-img").args(["convert", "-f", "vhdx", "-O", "raw"]).args([&disk, &raw]).status();
    assert!(flat.is_ok_and(|s| s.success()));
    for (format, qemu) in [("vhd", "vpc"), ("raw", "raw")] {
        let other = home.join(format);
        export(&daemon, NAME, &other, &["--format", format, "--exclude", &second]).ok();
        verified(&other);
        let disk = other.join("Virtual Hard Disks").join(&first).with_extension(format);
        qemu_says_identical(&disk, qemu, &raw);
    }
    assert_eq!(original.sha256, sha256_file(&raw));

    // Never over a package, nor over anything else.
    let before = snapshot(&whole);
    let refused = export(&daemon, NAME, &whole, &[]);
    assert!(refused.refused().contains("not empty"), "{refused}");
    assert_eq!(snapshot(&whole), before);
}

/// A job's own word, waited for without sleeping.
#[track_caller]
fn job(daemon: &Daemon, id: &str, done: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let job = daemon.run(["job", "show", id, "--json"]).json();
        if done(&job) {
            return job;
        }
        assert!(Instant::now() < deadline, "the job gets nowhere: {job}");
    }
}

fn running(job: &Value) -> bool {
    job["state"] == "running" && job["done_bytes"].as_u64().is_some_and(|n| n > 0)
}

/// A machine with one raw disk in place: 48 MiB of noise on 256 MiB.
fn with_noise(daemon: &Daemon) -> PathBuf {
    let disk = daemon.home().join("disk.raw");
    raw_disk(&disk, 256 << 20, &[(3 << 20, 24 << 20), (200 << 20, 24 << 20)]);
    daemon
        .run(["machine".as_ref(), "define".as_ref(), "m".as_ref(), "--disk".as_ref(), disk.as_os_str()])
        .ok();
    disk
}

/// The only disk in a package.
#[track_caller]
fn only_disk(package: &Path) -> PathBuf {
    let found: Vec<_> = files(package).into_iter().filter(|f| f.starts_with("Virtual Hard Disks/")).collect();
    let [disk] = &found[..] else { panic!("not one disk: {found:?}") };
    package.join(disk)
}

/// A cancelled export leaves nothing, holds nothing, and says so to whoever waits for it.
#[test]
fn a_cancelled_export_leaves_nothing() {
    let daemon = Daemon::start();
    let disk = with_noise(&daemon);
    let out = daemon.home().join("out");
    let names = || -> Vec<_> {
        let all = fs::read_dir(daemon.home()).expect("the home").map(|e| e.expect("an entry").file_name());
        all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    };
    let before = names();
    let started = export(&daemon, "m", &out, &["--rate-limit", "4M", "--no-wait"]);
    let id = started.ok().trim().to_owned();
    job(&daemon, &id, running);
    assert!(!out.exists() && daemon.home().join("out.partial").is_dir(), "it is not complete yet");
    let refused = daemon.run(["machine", "start", "m"]);
    assert_eq!(refused.code, Some(5), "{refused}");
    assert!(refused.refused().contains(&id) && refused.stderr.contains("slipway job cancel"), "{refused}");

    let began = Instant::now();
    let ran = daemon.run(["job", "cancel", &id]);
    assert!(ran.ok().contains("cancelled"), "{ran}");
    assert!(began.elapsed() < Duration::from_secs(10), "cancelling took {:?}", began.elapsed());
    assert!(!out.exists() && !daemon.home().join("out.partial").exists(), "something is left");
    assert_eq!(names(), before);
    let watched = daemon.run(["job", "watch", &id]);
    assert!(watched.refused().contains("cancelled"), "{watched}");

    // The machine is free, and nothing of the first try is in the way of the second.
    export(&daemon, "m", &out, &[]).ok();
    assert_eq!(content(&daemon, &only_disk(&out)).sha256, sha256_file(&disk));
}

/// The daemon dies in the middle; the next one finishes the package, and until then there is none.
#[test]
fn an_export_goes_on_after_the_daemon_died() {
    let mut daemon = Daemon::start();
    let disk = with_noise(&daemon);
    let out = daemon.home().join("out");
    let started = export(&daemon, "m", &out, &["--rate-limit", "12M", "--no-wait"]);
    let id = started.ok().trim().to_owned();
    job(&daemon, &id, running);
    daemon.kill();
    assert!(!out.exists());
    let partial = daemon.home().join("out.partial");
    assert!(partial.is_dir());
    for command in ["verify", "inspect"] {
        let refused = daemon.run([command.as_ref(), partial.as_os_str()]);
        assert!(refused.refused().contains("did not finish"), "{refused}");
    }
    daemon.launch();
    daemon.run(["job", "watch", &id]).ok();
    assert!(!partial.exists());
    daemon.run(["verify".as_ref(), out.as_os_str()]).ok();
    assert_eq!(content(&daemon, &only_disk(&out)).sha256, sha256_file(&disk));
    daemon.run(["machine", "delete", "m"]).ok();
    assert!(disk.is_file(), "a disk that Slipway did not make is not its to delete");
}

/// What an export had copied before the guest ran is worth nothing afterwards, however it comes back.
#[test]
fn a_package_is_never_of_two_instants() {
    let mut daemon = Daemon::start();
    let disk = daemon.home().join("disk.raw");
    let copied =
        Command::new("cp").arg("--sparse=always").arg(need!(image("boot-plain.raw"))).arg(&disk).status();
    assert!(copied.is_ok_and(|s| s.success()));
    // Half of what the guest will write over lies before the point that the export reaches, half behind it.
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.set_len(256 << 20).expect("grown");
    file.write_all_at(&noise(5, 96 << 20), 128 << 20).expect("written");
    drop(file);
    let line = ["machine", "define", "m", "--generation", "1", "--memory", "256", "--disk"];
    daemon.run(line.map(AsRef::as_ref).into_iter().chain([disk.as_os_str()])).ok();

    let (out, partial, kept) =
        (daemon.home().join("out"), daemon.home().join("out.partial"), daemon.home().join("kept"));
    let started = export(&daemon, "m", &out, &["--rate-limit", "8M", "--no-wait"]);
    let id = started.ok().trim().to_owned();
    // Far enough that it has noted from where it would go on.
    let noted = |_: &Value| {
        let progress = fs::read(partial.join("Slipway/progress.json")).unwrap_or_default();
        let progress: Value = serde_json::from_slice(&progress).unwrap_or_default();
        progress.to_string().contains("watermark") && !progress.to_string().contains("\"watermark\":0")
    };
    job(&daemon, &id, noted);
    daemon.kill();
    // Its partial package, as a backup or a person might bring it back after the job was given up.
    let copied = Command::new("cp").arg("-a").args([&partial, &kept]).status();
    assert!(copied.is_ok_and(|s| s.success()));
    daemon.launch();
    daemon.run(["job", "cancel", &id]).ok();
    assert!(!partial.exists());
    fs::rename(&kept, &partial).expect("brought back");

    let guest = Guest::start(&daemon, "m");
    guest.write("later");
    guest.stop();
    export(&daemon, "m", &out, &[]).ok();
    daemon.run(["verify".as_ref(), out.as_os_str()]).ok();
    assert_eq!(content(&daemon, &only_disk(&out)).sha256, sha256_file(&disk), "a disk of two instants");
}
