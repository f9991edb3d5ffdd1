//! Thirty packages, ten of them broken in different ways, come in by a plan, unattended; whoever is killed in the middle,
//! the same command goes on with what is left, and no package comes in twice.

use harness::hostile::{copy_folder, member, package};
use harness::scratch::noise;
use harness::{Daemon, slipway};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GOOD: usize = 20;
const PATIENCE: Duration = Duration::from_secs(300);

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).and_then(|f| f.set_len(length)).expect("cut");
}

/// Twenty good packages and ten broken ones below `dir`.
fn packages(dir: &Path) {
    let maker = Daemon::with(&["--engine", "sim"]);
    maker.run(["switch", "create", "elsewhere"]).ok();
    for n in 0..GOOD {
        fs::create_dir_all(dir).expect("made");
        copy_folder(&package(&maker, &format!("good{n:02}"), 1), &dir.join(format!("good{n:02}")));
    }
    let broken = |name: &str| -> PathBuf {
        let target = dir.join(format!("broken {name}"));
        copy_folder(&package(&maker, &format!("broken-{name}"), 1), &target);
        target
    };
    let configuration = |package: &Path| member(package, "Virtual Machines", "vmcx");
    let disk = |package: &Path| member(package, "Virtual Hard Disks", "vhdx");
    cut(&configuration(&broken("half a configuration")), 6000);
    cut(&configuration(&broken("an empty configuration")), 0);
    fs::write(configuration(&broken("noise for a configuration")), noise(3, 40_000)).expect("written");
    let xml = configuration(&broken("unfinished xml"));
    fs::write(xml.with_extension("xml"), "<?xml version='1.0'?><configuration><a>").expect("written");
    fs::remove_file(xml).expect("removed");
    fs::remove_file(disk(&broken("no disk"))).expect("removed");
    cut(&disk(&broken("half a disk")), 1 << 20);
    cut(&disk(&broken("an empty disk")), 0);
    fs::write(disk(&broken("noise for a disk")), noise(5, 4 << 20)).expect("written");
    copy_folder(&dir.join("good00"), &dir.join("twin of good00"));
    // A switch that this host does not have.
    let words = ["machine", "define", "plugged", "--generation", "1", "--switch", "elsewhere"];
    maker.run(words).ok();
    let target = dir.join("unknown switch");
    maker.run(["export".as_ref(), "plugged".as_ref(), target.as_os_str()]).ok();
}

struct Batch {
    daemon: Daemon,
    dir: PathBuf,
    plan: PathBuf,
}

impl Batch {
    fn new() -> Batch {
        let daemon = Daemon::with(&["--engine", "sim"]);
        let (dir, plan) = (daemon.home().join("exports"), daemon.home().join("plan.toml"));
        packages(&dir);
        Batch { daemon, dir, plan }
    }

    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a OsStr> {
        let mut words: Vec<&OsStr> = vec!["import".as_ref(), "--all".as_ref(), self.dir.as_os_str()];
        words.extend::<[&OsStr; 2]>(["--plan".as_ref(), self.plan.as_os_str()]);
        words.extend(more.iter().map(|w| OsStr::new(*w)));
        words
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut command = Command::new(slipway());
        command.args(self.words(more)).env("SLIPWAY_SOCKET", self.daemon.socket());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Packages that the results call imported so far.
    fn imported(&self) -> usize {
        let results = self.plan.with_extension("toml.results");
        let text = fs::read_to_string(results).unwrap_or_default();
        text.lines().filter(|l| l.contains("\"stage\":\"imported\"")).count()
    }

    fn wait_for_imports(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.imported() < count {
            assert!(Instant::now() < deadline, "{} after {PATIENCE:?}", self.imported());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Every good package is one machine, and there is nothing else; `outcomes` are what a run printed.
    fn is_complete(&self, outcomes: &Value) {
        let count = |wanted: &str| {
            outcomes.as_array().expect("rows").iter().filter(|r| r["outcome"] == wanted).count()
        };
        assert_eq!(count("imported") + count("imported-before"), GOOD, "{outcomes:#}");
        assert_eq!(count("not-ready") + count("failed"), 10, "{outcomes:#}");
        let list = self.daemon.run(["machine", "list", "--json"]).json();
        let names: Vec<&str> =
            list.as_array().expect("machines").iter().filter_map(|m| m["name"].as_str()).collect();
        assert_eq!(names.len(), GOOD, "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), GOOD, "{names:?}");
        assert!(names.iter().all(|n| n.starts_with("good")), "{names:?}");
        assert_eq!(self.daemon.run(["planned", "list", "--json"]).json(), serde_json::json!([]));
    }
}

/// The last run's rows; it ends with a code of its own because ten packages are broken.
fn rows(ran: &harness::Ran) -> Value {
    assert!(matches!(ran.code, Some(1 | 4)), "{ran}");
    serde_json::from_str(&ran.stdout).expect("rows")
}

#[test]
fn a_batch_whose_command_is_killed_is_finished_by_the_same_command() {
    let batch = Batch::new();
    let dry = batch.daemon.run(batch.words(&["--dry-run", "--json"]));
    assert_eq!(dry.code, Some(4), "{dry}");
    let looked: Value = serde_json::from_str(&dry.stdout).expect("JSON");
    assert_eq!(looked.as_array().map(Vec::len), Some(GOOD + 10), "every package is in the plan: {dry}");
    let ready = looked.as_array().into_iter().flatten().filter(|e| e["verdict"] == "ready").count();
    assert_eq!(ready, GOOD, "{dry}");
    assert_eq!(batch.daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));

    let mut child = batch.start(&["--jobs", "2"]);
    batch.wait_for_imports(5);
    child.kill().expect("killed");
    child.wait().expect("ended");
    println!("killed after {} of {GOOD}", batch.imported());

    let outcomes = rows(&batch.daemon.run(batch.words(&["--jobs", "2", "--json"])));
    batch.is_complete(&outcomes);
    // Once more: nothing is left to do, and what somebody deleted since stays deleted.
    batch.daemon.run(["machine", "delete", "good07", "--yes"]).ok();
    rows(&batch.daemon.run(batch.words(&["--json"])));
    let list = batch.daemon.run(["machine", "list", "--json"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(GOOD - 1));
}

#[test]
fn a_batch_whose_daemon_is_killed_goes_on_with_the_next_one() {
    let mut batch = Batch::new();
    // Under new ids a twin is a package like any other: another broken one takes its place.
    fs::remove_dir_all(batch.dir.join("twin of good00")).expect("removed");
    fs::create_dir_all(batch.dir.join("broken again/Virtual Machines")).expect("made");
    fs::write(batch.dir.join("broken again/Virtual Machines/a.vmcx"), "x").expect("written");
    let mut child = batch.start(&["--new-id", "--jobs", "3"]);
    for count in [4, 9] {
        batch.wait_for_imports(count);
        batch.daemon.kill();
        batch.daemon.launch();
    }
    assert!(child.wait().expect("ended").code().is_some_and(|code| matches!(code, 1 | 4)));
    let outcomes = rows(&batch.daemon.run(batch.words(&["--new-id", "--json"])));
    batch.is_complete(&outcomes);
}
