//! Targets that cannot take an export, and sources that do not last: a package is complete or not there, what failed says
//! so with path and a way on, and the machine is as it was.

use harness::binary::{Ran, run};
use harness::hostile::{Mounted, is_root};
use harness::scratch::{noise, raw_disk, snapshot};
use harness::{Daemon, need, slipway};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the disk of [`machine`], all of them data.
const SIZE: u64 = 24 << 20;

/// A daemon with one machine, `big`, and its disk.
fn machine() -> (Daemon, PathBuf) {
    let daemon = Daemon::with(&["--engine", "sim"]);
    let raw = daemon.home().join("big.img");
    raw_disk(&raw, SIZE, &[(0, 24 << 20)]);
    let disk = format!("{},format=raw", raw.display());
    daemon.run(["machine", "define", "big", "--generation", "1", "--memory", "64", "--disk", &disk]).ok();
    (daemon, raw)
}

fn export(daemon: &Daemon, target: &Path, more: &[&str]) -> Ran {
    let words = ["export".as_ref(), "big".as_ref(), target.as_os_str()];
    daemon.run(words.into_iter().chain(more.iter().map(OsStr::new)))
}

fn verified(package: &Path) -> bool {
    run(Command::new(slipway()).arg("verify").arg(package)).code == Some(0)
}

fn machines(daemon: &Daemon) -> Value {
    daemon.run(["machine", "list", "--json"]).json()
}

/// Waits for something to become true.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_full_target_is_named_and_taken_up_again_when_there_is_room() {
    if !is_root() {
        harness::skip!("only root can mount");
    }
    let (daemon, _) = machine();
    let before = machines(&daemon);
    let small = daemon.home().join("small");
    let _mounted = need!(Mounted::small(40, &small));
    let filler = small.join("filler");
    fs::write(&filler, vec![1; 30 << 20]).expect("written");
    let target = small.join("package");
    let refused = export(&daemon, &target, &[]);
    refused.told(&target);
    assert!(refused.stderr.contains("space") || refused.stderr.contains("room"), "{refused}");
    assert!(!target.exists() || !verified(&target), "half a package proves good");
    let looked = run(Command::new(slipway()).arg("inspect").arg(&target));
    assert_ne!(looked.code, Some(0), "half a package looks like one: {looked}");
    assert_eq!(machines(&daemon), before);
    // Whatever stays behind is in nobody's way.
    fs::remove_file(filler).expect("removed");
    export(&daemon, &target, &[]).ok();
    assert!(verified(&target));
    let left: Vec<_> = fs::read_dir(&small).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["package"], "litter beside the package");
}

#[test]
fn targets_that_are_taken_are_left_alone() {
    let (daemon, raw) = machine();
    let home = daemon.home();
    let file = home.join("file");
    fs::write(&file, "mine").expect("written");
    let full = home.join("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("mine"), "mine").expect("written");
    let pipe = home.join("pipe");
    run(Command::new("mkfifo").arg(&pipe)).ok();
    let dangling = home.join("dangling");
    std::os::unix::fs::symlink(home.join("nothing"), &dangling).expect("linked");
    let below = file.join("below");
    for target in
        [&file, &full, &pipe, &dangling, &below, &raw, Path::new("/proc/package"), Path::new("/dev/null")]
            .map(AsRef::<Path>::as_ref)
    {
        export(&daemon, target, &[]).told(target);
    }
    assert_eq!(fs::read(&file).expect("there"), b"mine");
    assert_eq!(snapshot(&full).len(), 1);
    assert!(!home.join("nothing").exists());
    // Nor is a package: not even by the same machine.
    let package = home.join("package");
    export(&daemon, &package, &[]).ok();
    let before = snapshot(&package);
    export(&daemon, &package, &[]).told(&package);
    export(&daemon, &package.join("Virtual Machines"), &[]).told(&package.join("Virtual Machines"));
    assert_eq!(snapshot(&package), before);
    // An empty folder is as good as none.
    let empty = home.join("empty");
    fs::create_dir(&empty).expect("made");
    export(&daemon, &empty, &[]).ok();
    assert!(verified(&empty));
}

#[test]
fn a_target_that_is_read_only_is_named() {
    if !is_root() {
        harness::skip!("only root can mount");
    }
    let (daemon, _) = machine();
    let closed = daemon.home().join("closed");
    let _mounted = need!(Mounted::new(&["-t", "tmpfs", "-o", "ro", "none"], &closed));
    for target in [closed.join("package"), closed.clone()] {
        export(&daemon, &target, &[]).told(&target);
    }
    let disk = daemon.home().join("big.img");
    let target = closed.join("disk.vhdx");
    run(Command::new(slipway()).args(["disk", "convert"]).arg(&disk).arg(&target)).told(&target);
    let words = ["config".as_ref(), "rewrite".as_ref()];
    export(&daemon, &daemon.home().join("fine"), &[]).ok();
    let configuration = harness::hostile::member(&daemon.home().join("fine"), "Virtual Machines", "vmcx");
    let target = closed.join("copy.vmcx");
    let words: [&OsStr; 2] = words;
    run(Command::new(slipway()).args(words).arg(configuration).arg(&target)).told(&target);
    // And an import that would have to write there.
    let package = daemon.home().join("fine");
    let to = closed.join("disks");
    let import = daemon.run([
        "import".as_ref(),
        package.as_os_str(),
        "--new-id".as_ref(),
        "--to".as_ref(),
        to.as_os_str(),
    ]);
    import.told(&to);
    assert_eq!(machines(&daemon).as_array().map(Vec::len), Some(1));
    assert_eq!(daemon.run(["planned", "list", "--json"]).json(), json!([]));
}

/// The state of the newest export.
fn last_export(daemon: &Daemon) -> Option<Value> {
    let jobs = daemon.run(["job", "list", "--json"]).json();
    jobs.as_array().and_then(|jobs| jobs.iter().find(|j| j["kind"] == "export").cloned())
}

#[test]
fn a_source_that_goes_away_in_the_middle_makes_no_package() {
    let (daemon, raw) = machine();
    for n in 0..2 {
        let target = daemon.home().join(format!("package {n}"));
        let mut exporting = Command::new(slipway())
            .args(["export", "big"])
            .arg(&target)
            .args(["--rate-limit", "8M"])
            .env("SLIPWAY_SOCKET", daemon.socket())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        until("something was copied", || {
            last_export(&daemon)
                .is_some_and(|j| j["state"] == "running" && j["done_bytes"].as_u64() > Some(0))
                || exporting.try_wait().expect("asked").is_some()
        });
        // First shorter, then gone.
        if n == 0 {
            File::options().write(true).open(&raw).expect("there").set_len(1 << 20).expect("cut");
        } else {
            fs::remove_file(&raw).expect("removed");
        }
        let out = exporting.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() {
            // What was open stays readable to its end.
            assert!(n == 1 && verified(&target), "a cut disk was exported");
        } else {
            assert!(
                said.contains("big.img") && said.contains("hint: "),
                "path or way on are missing: {said}"
            );
            assert!(!target.exists() || !verified(&target));
        }
        let _ = fs::remove_file(&raw);
        raw_disk(&raw, SIZE, &[(0, 24 << 20)]);
    }
    let target = daemon.home().join("package");
    fs::remove_file(&raw).expect("removed");
    let refused = export(&daemon, &target, &[]);
    refused.told(&raw);
    assert!(!target.exists());
    fs::write(&raw, noise(5, 512)).expect("written");
    export(&daemon, &target, &[]).told(&raw);
    assert!(!target.exists());
}

#[test]
fn an_export_that_is_cancelled_leaves_the_place_free() {
    let (daemon, _) = machine();
    let target = daemon.home().join("package");
    export(&daemon, &target, &["--rate-limit", "4M", "--no-wait"]).ok();
    until("something was copied", || {
        last_export(&daemon).is_some_and(|j| j["done_bytes"].as_u64() > Some(0))
    });
    // The place and the machine are taken meanwhile.
    export(&daemon, &target, &[]).refused();
    daemon.run(["machine", "delete", "big"]).refused();
    let id = last_export(&daemon).expect("a job")["id"].as_str().expect("an id").to_owned();
    daemon.run(["job", "cancel", &id]).ok();
    let watched = daemon.run(["job", "watch", &id]);
    assert_ne!(watched.code, Some(0), "{watched}");
    let left: Vec<_> = fs::read_dir(daemon.home())
        .expect("a home")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n.contains("package"))
        .collect();
    assert!(left.is_empty(), "a cancelled export left {left:?}");
    export(&daemon, &target, &[]).ok();
    assert!(verified(&target));
}

#[test]
fn a_large_export_takes_little_memory() {
    let daemon = Daemon::with(&["--engine", "sim"]);
    let raw = daemon.home().join("wide.img");
    // A tebibyte with data here and there, and 64 MiB in one piece.
    let mut pieces: Vec<(u64, usize)> = (1..500).map(|n| (n << 31, 4096)).collect();
    pieces.push((0, 64 << 20));
    raw_disk(&raw, 1 << 40, &pieces);
    let disk = format!("{},format=raw", raw.display());
    daemon.run(["machine", "define", "big", "--generation", "1", "--memory", "64", "--disk", &disk]).ok();
    let package = daemon.home().join("package");
    export(&daemon, &package, &["--block-size", "1M"]).ok();
    let pid = fs::read_to_string(daemon.data().join("slipway.db.lock")).expect("who holds the data");
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(peak < 256 << 10, "{peak} KiB");
    let verify = harness::hostile::slipway_watched(["verify".as_ref(), package.as_os_str()]);
    verify.ran.ok();
    assert!(verify.peak_mib < 256, "{} MiB", verify.peak_mib);
}
