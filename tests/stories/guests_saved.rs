//! Saved machines with real guests: the guest goes on at the very next number it counts, whoever was ended meanwhile, on
//! this host or out of a package; and what cannot be saved runs on.
//!
//! A guest counts on its console. All that it ever said, over all its lives as a process, must be the numbers from one
//! on, without a gap or a repetition: what was cut in the middle of a line is there as one line in the end.

use harness::binary::{Ran, run};
use harness::guest::image;
use harness::hostile::{Mounted, is_root, member};
use harness::scratch::noise;
use harness::{Daemon, Guest, Scratch, need, slipway};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything but a boot.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deaths of the daemon, half of them while it saves, half while it goes on with what was saved.
const DEATHS: usize = 10;
/// Of a hundred deaths, this many may come when all is done already.
const BEYOND_PERCENT: u64 = 110;

/// A machine `m` of generation 1 with a copy of the guest's disk, used in place.
fn machine(daemon: &Daemon) -> Result<(), String> {
    let disk = daemon.home().join("disk.raw");
    let copied = Command::new("cp").arg("--sparse=always").arg(image("boot.raw")?).arg(&disk).status();
    assert!(copied.is_ok_and(|s| s.success()), "no copy of the guest");
    fs::File::options().write(true).open(&disk).and_then(|f| f.set_len(256 << 20)).expect("grown");
    let words = ["machine", "define", "m", "--generation", "1", "--memory", "256", "--disk"];
    daemon.run(words.map(AsRef::as_ref).into_iter().chain([disk.as_os_str()])).ok();
    Ok(())
}

fn shown(daemon: &Daemon, name: &str) -> Value {
    daemon.run(["machine", "show", name, "--json"]).json()
}

#[track_caller]
fn is(daemon: &Daemon, name: &str, state: &str) {
    let shown = shown(daemon, name);
    assert_eq!(shown["state"], state, "{shown}");
    assert_eq!(shown["saved"].is_null(), state != "saved", "{shown}");
}

/// Files in the machine's directory that a save made.
fn states(daemon: &Daemon, name: &str) -> Vec<String> {
    let home = PathBuf::from(shown(daemon, name)["home"].as_str().expect("a home"));
    let names = fs::read_dir(home).expect("there").flatten().map(|e| e.file_name());
    names.map(|n| n.to_string_lossy().into_owned()).filter(|n| n.starts_with("saved-")).collect()
}

/// Processes of QEMU that are the guest of machine `name`.
fn guests(daemon: &Daemon, name: &str) -> usize {
    let id = shown(daemon, name)["id"].as_str().expect("an id").to_owned();
    let lines =
        fs::read_dir("/proc").expect("processes").flatten().map(|p| fs::read(p.path().join("cmdline")));
    let lines = lines.map(|line| String::from_utf8_lossy(&line.unwrap_or_default()).into_owned());
    lines.filter(|line| line.contains("qemu-system") && line.contains(&id)).count()
}

/// What a guest counted, over all its lives.
struct Counter {
    /// Of lives that are over.
    said: String,
    log: PathBuf,
    counted: u64,
}

impl Counter {
    /// Has the guest count, ten times a second, beside whatever else it is asked.
    fn start(daemon: &Daemon, guest: &Guest<'_>, name: &str) -> Counter {
        let count = "(n=0; while :; do n=$((n+1)); echo COUNT $n; usleep 100000; done) &";
        guest.ask(count, "COUNT 3");
        let id = shown(daemon, name)["id"].as_str().expect("an id").to_owned();
        let log = daemon.data().join("runtime").join(id).join("serial0.log");
        Counter { said: String::new(), log, counted: 0 }
    }

    /// The guest's process is gone and its state is kept: what it said is kept too, as the next one begins a new log.
    fn rests(&mut self) {
        self.said += &self.now();
        fs::write(&self.log, "").expect("emptied");
    }

    fn now(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the guest's log")).into_owned()
    }

    /// The last number, when all of them follow each other.
    #[track_caller]
    fn look(&self) -> u64 {
        let mut last = 0;
        let all = self.said.clone() + &self.now();
        // What follows the last line break is half a line.
        let whole = all.rfind('\n').map_or("", |end| &all[..end]);
        for line in whole.lines() {
            let Some(at) = line.find("COUNT ") else { continue };
            let Ok(number) = line[at + 6..].trim().parse::<u64>() else { continue };
            assert_eq!(number, last + 1, "{}", whole.lines().rev().take(20).collect::<Vec<_>>().join(" | "));
            last = number;
        }
        assert!(last >= self.counted, "it counted to {} and now to {last}", self.counted);
        last
    }

    /// Waits until the guest has counted on.
    #[track_caller]
    fn goes_on(&mut self) {
        let (before, deadline) = (self.look(), Instant::now() + PATIENCE);
        while self.look() < before + 3 {
            assert!(Instant::now() < deadline, "it counts no further than {before}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.counted = self.look();
    }
}

/// A package of `m`: for Hyper-V a machine that is off, for us one with its memory.
#[track_caller]
fn exported(daemon: &Daemon) -> PathBuf {
    let package = daemon.home().join("package");
    daemon.run(["export".as_ref(), "m".as_ref(), package.as_os_str()]).ok();
    let verified = daemon.run(["verify".as_ref(), package.as_os_str()]);
    assert!(verified.ok().contains("every byte"), "{verified}");
    let manifest = fs::read(package.join("Slipway/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let memory = package.join(manifest["saved_state"]["path"].as_str().expect("the memory's place"));
    assert!(memory.starts_with(package.join("Slipway")) && memory.is_file(), "{}", memory.display());

    let [configuration, runtime] = ["vmcx", "VMRS"]
        .map(|kind| vmcx::read_file(&member(&package, "Virtual Machines", kind)).expect("a container").tree);
    assert!(!configuration.contains("configuration/savedstate"));
    let version = configuration.get_i64("configuration/properties/version").expect("a version");
    assert_eq!(runtime, vmcx::empty_runtime_state(version));
    package
}

fn import(daemon: &Daemon, package: &Path, options: &[&str]) -> Ran {
    let words = ["import".as_ref(), package.as_os_str()];
    daemon.run(words.into_iter().chain(options.iter().map(AsRef::as_ref)))
}

#[test]
fn a_saved_machine_goes_on_where_it_was_under_another_daemon_and_out_of_a_package() {
    let mut daemon = Daemon::start();
    need!(machine(&daemon));
    daemon.run(["machine", "start", "m"]).ok();
    // Firmware hears no power button: who asks is told, and the boot goes on.
    let deaf = daemon.run(["machine", "shutdown", "m", "--timeout", "1"]);
    assert!(deaf.refused().contains("[timeout]") && deaf.stderr.contains("it runs on"), "{deaf}");
    assert!(deaf.stderr.contains("slipway machine stop m"), "{deaf}");
    is(&daemon, "m", "running");

    let guest = Guest::wait(&daemon, "m");
    guest.write("work");
    let boot_id = "echo BOOT $(cat /proc/sys/kernel/random/boot_id)";
    let boot = guest.ask(boot_id, "BOOT ");
    guest.ask("echo 'in memory only' >/run/note && echo NOTED", "NOTED");
    let mut counter = Counter::start(&daemon, &guest, "m");
    let ready = guest.ready;
    let same = |daemon: &Daemon, counter: &mut Counter| {
        is(daemon, "m", "running");
        assert_eq!((states(daemon, "m").len(), guests(daemon, "m")), (0, 1));
        counter.goes_on();
        let guest = Guest::known(daemon, "m", &ready);
        assert!(guest.ask(boot_id, "BOOT ").ends_with(&boot), "it booted again");
        assert!(guest.ask("echo NOTE $(cat /run/note)", "NOTE ").contains("in memory only"));
        guest.holds("work");
    };

    daemon.run(["machine", "save", "m"]).ok();
    is(&daemon, "m", "saved");
    assert_eq!((states(&daemon, "m").len(), guests(&daemon, "m")), (1, 0));
    counter.rests();
    let asleep = daemon.run(["machine", "shutdown", "m"]);
    assert_eq!(asleep.code, Some(5), "{asleep}");
    assert!(asleep.refused().contains("[invalid-state]"), "{asleep}");
    assert!(asleep.stderr.contains("slipway machine start m"), "{asleep}");

    daemon.end();
    daemon.launch();
    is(&daemon, "m", "saved");
    daemon.run(["machine", "start", "m"]).ok();
    same(&daemon, &mut counter);

    daemon.run(["machine", "save", "m"]).ok();
    counter.rests();
    let package = exported(&daemon);
    daemon.run(["machine", "delete", "m", "--yes"]).ok();
    fs::remove_file(daemon.home().join("disk.raw")).expect("a disk that Slipway did not make is left");
    let imported = import(&daemon, &package, &[]);
    imported.ok();
    assert!(imported.stderr.contains("[saved-state-comes-along]"), "{imported}");
    is(&daemon, "m", "saved");
    daemon.run(["machine", "start", "m"]).ok();
    same(&daemon, &mut counter);
    daemon.run(["machine", "stop", "m"]).ok();

    // Under another id it is the same guest still, and a warning says what that means. Already at work, it hears the power
    // button at once.
    let imported = import(&daemon, &package, &["--new-id", "--name", "twin"]);
    imported.ok();
    assert!(imported.stderr.contains("[saved-state-twin]"), "{imported}");
    is(&daemon, "twin", "saved");
    daemon.run(["machine", "start", "twin"]).ok();
    daemon.run(["machine", "shutdown", "twin", "--timeout", "60"]).ok();
    is(&daemon, "twin", "off");
    import(&daemon, &package, &["--new-id", "--name", "fresh", "--discard-saved-state"]).ok();
    is(&daemon, "fresh", "off");
}

/// Waits until no job is under way.
#[track_caller]
fn settle(daemon: &Daemon) {
    for job in daemon.run(["job", "list", "--json"]).json().as_array().expect("a list") {
        let _ = daemon.run(["job", "watch", job["id"].as_str().expect("an id")]);
    }
    for job in daemon.run(["job", "list", "--json"]).json().as_array().expect("a list") {
        assert!(["completed", "failed"].contains(&job["state"].as_str().expect("a state")), "{job}");
    }
}

fn begin(daemon: &Daemon, verb: &str) -> Child {
    let mut client = Command::new(slipway());
    client.args(["machine", verb, "m"]).env("SLIPWAY_SOCKET", daemon.socket());
    client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    client.spawn().expect("a client starts")
}

/// Killed at seeded moments of saving and going on: then the guest runs or is saved, never neither, never both, and
/// counts on.
#[test]
fn the_daemon_killed_while_it_saves_or_goes_on_loses_no_number() {
    let mut daemon = Daemon::start();
    need!(machine(&daemon));
    let guest = Guest::start(&daemon, "m");
    let mut counter = Counter::start(&daemon, &guest, "m");
    drop(guest);
    let timed = |verb: &str| {
        let begun = Instant::now();
        daemon.run(["machine", verb, "m"]).ok();
        begun.elapsed()
    };
    let save = timed("save");
    counter.rests();
    let start = timed("start");
    let mut struck = [0, 0];
    for seed in noise(251, DEATHS * 8).chunks_exact(8) {
        let percent = u64::from_le_bytes(seed.try_into().expect("eight bytes")) % BEYOND_PERCENT;
        let (verb, lasts, n) =
            if shown(&daemon, "m")["state"] == "saved" { ("start", start, 0) } else { ("save", save, 1) };
        let mut client = begin(&daemon, verb);
        let deadline = Instant::now() + lasts.mul_f64(percent as f64 / 100.0);
        while client.try_wait().expect("a child can be asked").is_none() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            std::thread::park_timeout(left.min(Duration::from_micros(500)));
        }
        daemon.kill();
        client.wait().expect("a client without a daemon ends");
        daemon.launch();
        settle(&daemon);
        let state = shown(&daemon, "m")["state"].as_str().expect("a state").to_owned();
        println!("killed at {percent} % of {lasts:?} to {verb}: it is {state}");
        is(&daemon, "m", &state);
        let there = (states(&daemon, "m").len(), guests(&daemon, "m"));
        match state.as_str() {
            "running" => {
                assert_eq!(there, (0, 1));
                counter.goes_on();
            }
            "saved" => {
                assert_eq!(there, (1, 0));
                counter.rests();
            }
            _ => panic!("it is {state}"),
        }
        struck[n] += 1;
    }
    assert!(struck.iter().all(|n| *n > 1), "this proves little: {struck:?}");
    if shown(&daemon, "m")["state"] == "saved" {
        daemon.run(["machine", "start", "m"]).ok();
    }
    counter.goes_on();
}

/// The daemon's whole data directory is full to the last byte while it saves, its store with it.
#[test]
fn a_disk_that_fills_up_fails_the_save_and_the_guest_runs_on() {
    if !is_root() {
        harness::skip!("only root can mount");
    }
    let scratch = Scratch::new();
    let small = scratch.join("small");
    let _mounted = need!(Mounted::small(24, &small));
    let mut daemon = Daemon::start();
    daemon.end();
    fs::remove_dir_all(daemon.data()).expect("nothing is in it yet");
    std::os::unix::fs::symlink(&small, daemon.data()).expect("a link");
    daemon.launch();
    need!(machine(&daemon));
    let guest = Guest::start(&daemon, "m");
    let mut counter = Counter::start(&daemon, &guest, "m");
    drop(guest);

    let full = daemon.run(["machine", "save", "m"]);
    assert!(full.refused().contains("[no-space]") && full.stderr.contains("does not fit"), "{full}");
    assert!(full.stderr.contains("hint: make room there"), "{full}");
    is(&daemon, "m", "running");
    assert_eq!((states(&daemon, "m").len(), guests(&daemon, "m")), (0, 1));
    counter.goes_on();
    let jobs = daemon.run(["job", "list", "--json"]).json();
    let job = jobs.as_array().and_then(|j| j.first()).expect("the job");
    assert_eq!((&job["state"], &job["error"]["id"]), (&"failed".into(), &"no-space".into()), "{job}");

    run(Command::new("mount").args(["-o", "remount,size=400m"]).arg(&small)).ok();
    daemon.run(["machine", "save", "m"]).ok();
    is(&daemon, "m", "saved");
    counter.rests();
    daemon.run(["machine", "start", "m"]).ok();
    counter.goes_on();
}
