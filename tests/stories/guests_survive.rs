//! Daemons and guests that die, and disks that two want at once: what the next one finds, and who is refused.

use harness::guest::{PATTERN_OFFSET, image, pattern};
use harness::{Daemon, Guest, Scratch, need};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the end of a guest may go unnoticed. It is an event, not a timer; a loaded machine is slow to print it.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A disk of 256 MiB with a guest on it, in `format`.
fn disk(folder: &Path, name: &str, format: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    let made = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", format])
        .arg(image("boot-plain.raw")?)
        .arg(&path)
        .status();
    assert!(made.is_ok_and(|s| s.success()), "no disk");
    let grown = Command::new("qemu-img").args(["resize", "-q", "-f", format]).arg(&path).arg("256M").status();
    assert!(grown.is_ok_and(|s| s.success()), "it did not grow");
    Ok(path)
}

#[track_caller]
fn define(daemon: &Daemon, name: &str, disk: &Path) {
    let line = ["machine", "define", name, "--generation", "1", "--memory", "256", "--disk"];
    daemon.run(line.map(AsRef::as_ref).into_iter().chain([disk.as_os_str()])).ok();
}

fn shown(daemon: &Daemon, name: &str) -> Value {
    daemon.run(["machine", "show", name, "--json"]).json()
}

/// The processes with `path` open.
fn users(path: &Path) -> Vec<String> {
    let path = fs::canonicalize(path).expect("there");
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    processes
        .filter(|p| {
            let open = fs::read_dir(p.path().join("fd")).into_iter().flatten().flatten();
            open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path))
        })
        .map(|p| p.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Waits until the guest is gone: without sleeping, by waiting for what it will never say.
#[track_caller]
fn wait_for_the_end(daemon: &Daemon, machine: &str) {
    let ran = daemon.run(["machine", "console", machine, "--wait-for", "NEVER SAID", "--timeout", "60"]);
    let said = ran.refused();
    assert!(said.contains("ended before") || said.contains("is off"), "{ran}");
}

/// In place, with both kinds of death: of the daemon, which the guest does not notice, and of the guest, which the
/// daemon notices. What the guest had written is on the host's own file.
#[test]
fn the_daemon_dies_then_the_guest_dies_and_the_disk_is_still_right() {
    let mut daemon = Daemon::start();
    let disk = need!(disk(daemon.home(), "disk.raw", "raw"));
    define(&daemon, "m", &disk);
    let guest = Guest::start(&daemon, "m");
    guest.write("one");
    let qemu = users(&disk);
    assert_eq!(qemu.len(), 1, "one process has the disk open: {qemu:?}");

    daemon.kill();
    assert_eq!(users(&disk), qemu, "the guest went with its daemon");
    daemon.launch();
    assert_eq!(shown(&daemon, "m")["state"], "running");
    let guest = Guest::wait(&daemon, "m");
    guest.holds("one");
    guest.write("two");

    let killed = Instant::now();
    let kill = Command::new("kill").args(["-9", &qemu[0]]).status();
    assert!(kill.is_ok_and(|s| s.success()));
    wait_for_the_end(&daemon, "m");
    assert!(killed.elapsed() < AT_ONCE, "noticed only after {:?}", killed.elapsed());
    let after = shown(&daemon, "m");
    assert_eq!(after["state"], "off");
    let note = after["note"].as_str().unwrap_or_default();
    assert!(!note.is_empty(), "nothing says that the guest died: {after}");
    let list = daemon.run(["machine", "list"]);
    let show = daemon.run(["machine", "show", "m"]);
    assert!(show.ok().contains(note) && list.ok().contains("off"), "{show}{list}");

    let mut found = pattern("two");
    let wrote = found.clone();
    File::open(&disk).and_then(|f| f.read_exact_at(&mut found, PATTERN_OFFSET)).expect("read");
    assert!(found == wrote, "what the guest wrote and flushed is not in its file");

    // Nothing that the dead left behind stands in the way, and a guest that starts clears the note.
    let guest = Guest::start(&daemon, "m");
    guest.holds("two");
    assert!(shown(&daemon, "m")["note"].is_null(), "{}", shown(&daemon, "m"));
    daemon.kill();
    daemon.launch();
    daemon.run(["machine", "stop", "m"]).ok();
    assert_eq!(shown(&daemon, "m")["state"], "off");
    assert_eq!(users(&disk), [] as [&str; 0]);
}

/// A kernel that panics tells its host, which shows it at once, to whoever asks and to whoever watches, and can start it again.
#[test]
fn a_guest_that_panics_is_off_at_once_and_said_to_have_panicked() {
    let daemon = Daemon::start();
    need!(harness::oracle::program("curl"));
    for (name, generation) in [("one", "1"), ("two", "2")] {
        let disk = need!(disk(daemon.home(), &format!("{name}.raw"), "raw"));
        let line = ["machine", "define", name, "--generation", generation, "--memory", "512", "--disk"];
        daemon.run(line.map(AsRef::as_ref).into_iter().chain([disk.as_os_str()])).ok();
        daemon.run(["machine", "start", name]).ok();
    }
    for name in ["one", "two"] {
        let _ready = Guest::wait(&daemon, name);
        let id = shown(&daemon, name)["id"].clone();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--max-time", "60", "--unix-socket"]).arg(daemon.socket());
        let mut watcher =
            curl.arg("http://slipway/v1/events").stdout(Stdio::piped()).spawn().expect("curl starts");
        let mut events = BufReader::new(watcher.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut next = |wanted: &str| {
            let told =
                events.by_ref().filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data: ")?).ok());
            told.into_iter().find(|e| e["id"] == id && e["state"] == wanted)
        };
        assert!(next("running").is_some(), "the watcher is told nothing of `{name}`");

        let killed = Instant::now();
        daemon.run(["machine", "console", name, "--send", "die"]).ok();
        let event = next("off").expect("an event");
        assert!(killed.elapsed() < AT_ONCE, "told only after {:?}", killed.elapsed());
        let _ = (watcher.kill(), watcher.wait());
        assert_eq!(event["note"], "the guest panicked");
        let after = shown(&daemon, name);
        assert_eq!((&after["state"], &after["note"]), (&event["state"], &event["note"]), "{after}");
        assert!(daemon.run(["machine", "show", name]).ok().contains("the guest panicked"));
        let last = daemon.run(["machine", "console", name, "--log"]);
        assert!(last.ok().contains("Kernel panic"), "{last}");
        let log = daemon.read_log();
        let id = id.as_str().expect("an id");
        assert!(log.lines().any(|l| l.contains(id) && l.contains("Panic")), "the log does not say it");

        daemon.run(["machine", "start", name]).ok();
        assert!(shown(&daemon, name)["note"].is_null());
        daemon.run(["machine", "stop", name]).ok();
    }
}

/// A guest that hangs is not gone. Until it answers or ends, nobody may touch what it may be writing to.
#[test]
fn a_guest_that_does_not_answer_is_not_taken_for_gone() {
    let mut daemon = Daemon::start();
    need!(harness::oracle::program("qemu-system-x86_64"));
    let disk = daemon.home().join("disk.raw");
    File::create(&disk).and_then(|f| f.set_len(64 << 20)).expect("a disk");
    define(&daemon, "m", &disk);
    daemon.run(["machine", "start", "m"]).ok();
    let qemu = users(&disk);
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &qemu[0]]).status();
        assert!(sent.is_ok_and(|s| s.success()));
    };
    signal("-STOP");
    daemon.kill();
    daemon.launch();
    assert_ne!(shown(&daemon, "m")["state"], "off");
    let out = daemon.home().join("out");
    let out = out.to_str().expect("a name");
    for line in [
        &["export", "m", out][..],
        &["machine", "delete", "m"],
        &["machine", "set", "m", "--remove-disk", "disk.raw"],
        &["machine", "start", "m"],
        &["machine", "stop", "m"],
        &["machine", "console", "m"],
    ] {
        let ran = daemon.run(line);
        assert_eq!(ran.code, Some(5), "{ran}");
        let said = ran.refused();
        assert!(said.contains("cannot be reached") && said.contains(&qemu[0]), "{ran}");
    }
    signal("-CONT");
    let deadline = Instant::now() + AT_ONCE + AT_ONCE;
    while !shown(&daemon, "m")["note"].is_null() {
        assert!(Instant::now() < deadline, "not found again: {}", shown(&daemon, "m"));
    }
    daemon.run(["machine", "stop", "m"]).ok();
    assert_eq!(users(&disk), [] as [&str; 0]);
}

/// A disk has one user at a time, whoever they are: two machines, two daemons, or a program that is not ours.
#[test]
fn a_disk_in_use_is_refused_to_everybody_else() {
    let [one, two, three] = [(); 3].map(|()| Daemon::start());
    let disks = Scratch::new();
    let disk = need!(disk(disks.path(), "disk.qcow2", "qcow2"));
    define(&one, "first", &disk);
    // No daemon knows anything of the others.
    define(&two, "second", &disk);
    let by_name = one.run([
        "machine".as_ref(),
        "define".as_ref(),
        "other".as_ref(),
        "--disk".as_ref(),
        disk.as_os_str(),
    ]);
    assert_eq!(by_name.code, Some(5), "{by_name}");
    assert!(by_name.refused().contains("first") && by_name.stderr.contains("[in-use]"), "{by_name}");

    let guest = Guest::start(&one, "first");
    let busy = two.run(["machine", "start", "second"]);
    assert_eq!(busy.code, Some(5), "{busy}");
    assert!(busy.refused().contains("[in-use]") && busy.stderr.contains("disk.qcow2"), "{busy}");
    assert_eq!(shown(&two, "second")["state"], "off");
    let busy = three.run([
        "machine".as_ref(),
        "define".as_ref(),
        "third".as_ref(),
        "--disk".as_ref(),
        disk.as_os_str(),
    ]);
    assert_eq!(busy.code, Some(5), "{busy}");
    assert!(busy.refused().contains(&users(&disk)[0]), "the user of the disk is not named: {busy}");
    // The one that runs did not suffer from it.
    guest.write("still-here");
    guest.holds("still-here");
    guest.stop();

    // Now it is free, and what the first wrote is there for the second.
    let guest = Guest::start(&two, "second");
    guest.holds("still-here");
    guest.stop();
    let held = File::options().read(true).write(true).open(&disk).expect("opened");
    let busy = three.run([
        "machine".as_ref(),
        "define".as_ref(),
        "third".as_ref(),
        "--disk".as_ref(),
        disk.as_os_str(),
    ]);
    assert_eq!(busy.code, Some(5), "{busy}");
    drop(held);
}
