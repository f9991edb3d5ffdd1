//! Two thousand machines in one daemon: defined, started, listed, told apart, exported, found again; in bounded threads,
//! descriptors and memory. How long that takes is told by `cargo xtask bench scale`, not here.

use harness::{Daemon, Scratch, oracle};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Machines of the scenario.
const MACHINES: usize = 2000;
/// How many of them are exported and verified. All of them are by the bench, with a release build; here, in a debug build
/// and with four commands to each, that would be most of the time that all tests take.
const EXPORTED: usize = 25;
/// Machines of a scenario that is cut short.
const CUT_SHORT: usize = 400;
/// Bytes of each disk. The seed fills the first 64 KiB, the rest is a hole.
const DISK: usize = 1 << 20;
/// Threads of a daemon, however many guests it has: its workers, those of jobs, of guests' events, of clients' requests.
const MAX_THREADS: u64 = 100;
/// Open files and sockets of a daemon whose guests nobody talks to.
const MAX_DESCRIPTORS: usize = 64;
/// Most memory that it may ever have had, in MiB: a hundredth of a small host's, many times what it takes.
const MAX_MEMORY_MIB: u64 = 256;

/// A scenario of so many machines, all of them running.
fn scenario(folder: &Scratch, machines: usize) -> PathBuf {
    let file = folder.join("many.toml");
    let text = format!(
        "seed = 7\n[[machines]]\nname = \"vm\"\ncount = {machines}\nmemory_mib = 64\nstate = \"running\"\n\
         disks = [{{ size = {DISK} }}]\n"
    );
    fs::write(&file, text).expect("written");
    file
}

fn path(path: &Path) -> &str {
    path.to_str().expect("Unicode")
}

fn machines(daemon: &Daemon) -> Vec<Value> {
    daemon.run(["machine", "list", "--json"]).json().as_array().expect("a list").clone()
}

/// All of them are there, under their names, running, each with an id and a disk of its own.
#[track_caller]
fn all_there(list: &[Value], machines: usize) {
    assert_eq!(list.len(), machines);
    let width = machines.to_string().len();
    for (machine, number) in list.iter().zip(1..) {
        assert_eq!(machine["name"], format!("vm-{number:0width$}"));
        assert_eq!(machine["state"], "running", "{machine}");
    }
    let distinct = |of: fn(&Value) -> &Value| list.iter().map(|m| of(m).to_string()).collect::<BTreeSet<_>>();
    assert_eq!(distinct(|m| &m["id"]).len(), machines);
    assert_eq!(distinct(|m| &m["disks"][0]["id"]).len(), machines);
}

/// The daemon takes no more of the host than is allowed, whatever it did so far.
#[track_caller]
fn bounded(daemon: &Daemon) {
    let proc = PathBuf::from(format!("/proc/{}", daemon.pid()));
    let status = fs::read_to_string(proc.join("status")).expect("it runs");
    let number = |field: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(field)).expect("in every status");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let (threads, mib) = (number("Threads:"), number("VmHWM:") >> 10);
    let descriptors = fs::read_dir(proc.join("fd")).expect("ours").count();
    assert!(threads <= MAX_THREADS, "{threads} threads");
    assert!(descriptors <= MAX_DESCRIPTORS, "{descriptors} descriptors");
    assert!(mib <= MAX_MEMORY_MIB, "{mib} MiB");
}

#[test]
fn two_thousand_machines_live_in_one_daemon() {
    let folder = Scratch::new();
    let mut daemon = Daemon::with(&["--engine", "sim", "--scenario", path(&scenario(&folder, MACHINES))]);
    let list = machines(&daemon);
    all_there(&list, MACHINES);
    bounded(&daemon);

    // They are told apart.
    let shown = daemon.run(["machine", "show", "VM-1234", "--json"]).json();
    assert_eq!(shown["id"], list[1233]["id"]);
    let id = list[776]["id"].as_str().expect("an id");
    assert_eq!(daemon.run(["machine", "show", id, "--json"]).json()["name"], "vm-0777");
    let ambiguous = daemon.run(["machine", "show", "vm-1"]);
    assert!(ambiguous.refused().contains("fits 1000 machines"), "{ambiguous}");

    // Every guest lives: three seconds later each has counted to three.
    daemon.run(["simulator", "clock", "advance", "3s"]).ok();
    let simulator = daemon.run(["simulator", "show", "--json"]).json();
    let guests = simulator["guests"].as_array().expect("guests");
    assert_eq!(guests.len(), MACHINES);
    assert!(guests.iter().all(|g| g["ready"] == true && g["counter"] == 3), "{simulator}");
    bounded(&daemon);

    // Some of them leave, and what leaves is what they have.
    let mut contents = BTreeSet::new();
    for number in (1..=MACHINES).step_by(MACHINES / EXPORTED).take(EXPORTED) {
        let name = format!("vm-{number:04}");
        daemon.run(["machine", "stop", &name]).ok();
        let package = folder.join(&name);
        daemon.run(["export", &name, path(&package)]).ok();
        let proof = daemon.run(["verify", path(&package), "--json"]).json();
        assert_eq!(
            (&proof["good"], &proof["proof"]),
            (&Value::from(true), &Value::from("content")),
            "{proof}"
        );
        let raw = list[number - 1]["disks"][0]["files"][0].as_str().expect("a file");
        let disk = package.join("Virtual Hard Disks").join(format!("{name}.vhdx"));
        let exported = oracle::parse_hash(&daemon.run(["disk", "hash", path(&disk)]));
        assert_eq!(exported.sha256, oracle::sha256_file(Path::new(raw)), "{name}");
        contents.insert(exported.sha256);
    }
    assert_eq!(contents.len(), EXPORTED, "each has content of its own");
    bounded(&daemon);

    // Another daemon finds all of them, those that run and those that do not.
    daemon.kill();
    daemon.launch();
    let again = machines(&daemon);
    let off = again.iter().filter(|m| m["state"] == "off").count();
    let running = again.iter().filter(|m| m["state"] == "running").count();
    assert_eq!((off, running), (EXPORTED, MACHINES - EXPORTED));
    assert!(again.iter().zip(&list).all(|(a, b)| a["id"] == b["id"] && a["disks"] == b["disks"]));
    bounded(&daemon);
}

#[test]
fn a_daemon_killed_while_it_makes_them_makes_all_of_them_anew() {
    let folder = Scratch::new();
    let mut daemon = Daemon::with(&["--engine", "sim"]);
    daemon.kill();
    let made = daemon.data().join("machines");
    let scenario = scenario(&folder, CUT_SHORT);
    daemon.die_starting(&["--engine", "sim", "--scenario", path(&scenario)], || {
        fs::read_dir(&made).is_ok_and(|dir| dir.count() >= CUT_SHORT / 4)
    });
    let left = fs::read_dir(&made).expect("some").count();
    assert!(left < CUT_SHORT, "it was over already");
    daemon.launch();
    all_there(&machines(&daemon), CUT_SHORT);
    assert_eq!(fs::read_dir(&made).expect("all").count(), CUT_SHORT, "nothing of the first attempt is left");
    bounded(&daemon);
}
