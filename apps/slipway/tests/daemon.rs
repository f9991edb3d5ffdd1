//! The binary as client and daemon: exit codes, what goes to stdout and what to stderr, signals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail as tests do")]

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A daemon with guests that only pretend, and the directory it lives in.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

fn slipway(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .current_dir(dir)
        .env_clear()
        .env("SLIPWAY_SOCKET", dir.join("s.sock"))
        .env("SLIPWAY_DATA", dir.join("data"))
        .env("SLIPWAY_CONFIG", "/dev/null");
    command.stdin(Stdio::null());
    command
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = serve(dir.path());
        Self { child, dir }
    }

    fn run(&self, words: &[&str]) -> Output {
        slipway(self.dir.path()).args(words).output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.run(&[&["--json"], words].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a daemon and waits until it says that it is ready.
fn serve(dir: &Path) -> Child {
    let notify = dir.join("notify");
    let _ = std::fs::remove_file(&notify);
    let told = UnixDatagram::bind(&notify).unwrap();
    let mut child =
        slipway(dir).args(["serve", "--engine", "sim"]).env("NOTIFY_SOCKET", &notify).spawn().unwrap();
    told.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut buffer = [0; 256];
    if told.recv(&mut buffer).is_err() {
        let _ = child.kill();
        panic!("the daemon did not get ready");
    }
    child
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_machine_is_driven_from_the_command_line() {
    let d = Daemon::start();
    let made =
        d.json(&["machine", "define", "web", "--generation", "1", "--memory", "1G", "--new-disk", "4M"]);
    assert_eq!(made["memory_mib"], 1024);
    assert_eq!(d.json(&["vm", "start", "web"])["state"], "running");
    let log = d.run(&["machine", "console", "web", "--log"]);
    assert!(text(&log.stdout).contains("GUEST-READY"), "{log:?}");
    assert!(d.run(&["machine", "console", "web", "--wait-for", "GUEST-READY"]).status.success());
    let late = d.run(&["machine", "console", "web", "--wait-for", "never", "--timeout", "0"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("[timeout]"), "{late:?}");
    assert!(text(&late.stderr).contains("GUEST-READY"), "the last lines are quoted: {late:?}");

    assert!(d.run(&["machine", "screenshot", "web", "web.png"]).status.success());
    assert!(std::fs::read(d.path("web.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(
        d.run(&["machine", "screenshot", "web", "web.png"]).status.code(),
        Some(1),
        "nothing is overwritten"
    );

    let set = d.run(&["machine", "set", "web", "--memory", "2G"]);
    assert_eq!(set.status.code(), Some(5));
    assert!(text(&set.stderr).contains("hint: `slipway machine stop"), "{set:?}");
    assert!(d.run(&["machine", "stop", "web"]).status.success());
    assert_eq!(
        d.json(&["machine", "set", "web", "--memory", "2G", "--boot-order", "Network,HardDrive"])["memory_mib"],
        2048
    );
    assert_eq!(d.run(&["machine", "set", "web"]).status.code(), Some(2), "nothing to change");
    assert!(d.run(&["machine", "delete", "web", "--yes"]).status.success());
    assert_eq!(d.json(&["machine", "list"]), Value::Array(Vec::new()));
    assert_eq!(d.run(&["machine", "show", "web"]).status.code(), Some(3));
}

#[test]
fn a_package_goes_out_and_in_with_relative_paths() {
    let d = Daemon::start();
    let made = d.json(&["machine", "define", "web", "--new-disk", "4M"]);
    let out = d.run(&["export", "web", "out"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(text(&out.stdout).trim(), d.path("out").display().to_string());
    assert!(d.run(&["verify", "out"]).status.success());

    let refused = d.run(&["import", "out"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stdout).contains("[duplicate-id]"), "{refused:?}");
    assert!(text(&refused.stderr).contains("hint: slipway import out --new-id"), "{refused:?}");
    assert_eq!(d.json(&["planned", "list"]), Value::Array(Vec::new()), "nothing is left behind");

    assert_eq!(d.run(&["import", "out", "--dry-run"]).status.code(), Some(4));
    assert!(d.run(&["import", "out", "--new-id", "--dry-run"]).status.success());
    let kept = d.run(&["import", "out", "--keep-planned"]);
    assert_eq!(kept.status.code(), Some(4));
    assert_eq!(d.json(&["planned", "show", "web"])["verdict"], "fixable");
    assert_eq!(d.json(&["planned", "set", "web", "--new-id", "--name", "kept"])["verdict"], "ready");
    assert_eq!(d.json(&["planned", "realize", "kept"])["name"], "kept");

    let copy = d.run(&["import", "out", "--new-id", "--name", "copy"]);
    assert!(copy.status.success(), "{copy:?}");
    let copy = text(&copy.stdout);
    let (name, id) = copy.trim().split_once("  ").unwrap();
    assert_eq!(name, "copy");
    assert_ne!(id, made["id"].as_str().unwrap());
    let outcome = d.json(&["import", "out", "--new-id", "--name", "third"]);
    assert_eq!(outcome["machine"]["name"], "third");
    assert_eq!(outcome["job"]["state"], "completed");

    let jobs = d.json(&["job", "list", "--kind", "export"]);
    assert_eq!(jobs.as_array().unwrap().len(), 1);
    let id = jobs[0]["id"].as_str().unwrap();
    assert!(text(&d.run(&["job", "watch", &id[..13]]).stdout).contains("completed, 100%"));
}

/// Types what a command printed after `label` into a shell.
fn obey(d: &Daemon, said: &Output, label: &str) -> Output {
    let talk = text(&said.stderr);
    let command =
        talk.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{said:?}"));
    // A hint may go on after its command, which then stands in backquotes.
    let command = match command.strip_prefix('`') {
        Some(quoted) => quoted.rsplit_once('`').unwrap().0,
        None => command,
    };
    let home = Path::new(env!("CARGO_BIN_EXE_slipway")).parent().unwrap();
    let mut shell = Command::new("/bin/bash");
    shell.args(["-c", command]).current_dir(d.dir.path()).env_clear().env("PATH", home);
    shell
        .env("SLIPWAY_SOCKET", d.path("s.sock"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Names are free text, of machines and of switches, and a name that is there twice names nobody.
#[test]
fn the_command_that_is_printed_can_be_typed_whatever_things_are_called() {
    let d = Daemon::start();
    let switch = "Kölner's \"LAN\" or $(DMZ) = `2`";
    d.json(&["switch", "create", switch, "--kind", "private"]);
    for name in ["web", "it's $HOME; *", "東京 2", "-rf", "..", "a/b?c#d%41"] {
        let defined = d.run(&["machine", "define", "--generation=1", "--switch", switch, "--", name]);
        let started = obey(&d, &defined, "next: ");
        assert!(started.status.success(), "{name}: {started:?} after {defined:?}");
        let id = text(&defined.stdout).trim().rsplit("  ").next().unwrap().to_owned();
        let deleted = d.run(&["machine", "delete", &id, "--yes"]);
        assert!(obey(&d, &deleted, "hint: ").status.success(), "{name}: {deleted:?}");
        assert!(d.run(&["machine", "delete", &id, "--yes"]).status.success());
    }

    d.json(&["machine", "define", "twin", "--switch", switch]);
    let second = d.run(&["machine", "define", "twin", "--switch", switch]);
    let id = text(&second.stdout).trim().rsplit("  ").next().unwrap().to_owned();
    assert!(obey(&d, &second, "next: ").status.success(), "{second:?}");
    assert_eq!(d.json(&["machine", "show", &id])["state"], "running");
    let refused = d.run(&["machine", "delete", &id, "--yes"]);
    assert!(obey(&d, &refused, "hint: ").status.success(), "{refused:?}");

    assert!(d.run(&["export", &id, "it's out"]).status.success());
    for machine in d.json(&["machine", "list"]).as_array().unwrap() {
        assert!(d.run(&["machine", "delete", machine["id"].as_str().unwrap(), "--yes"]).status.success());
    }
    assert!(d.run(&["switch", "delete", switch]).status.success());
    let inspected = d.run(&["inspect", "it's out"]);
    assert!(obey(&d, &inspected, "next: ").status.success(), "{inspected:?}");
    let refused = d.run(&["import", "it's out", "--new-id"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let imported = obey(&d, &refused, "hint: ");
    assert!(imported.status.success(), "{imported:?} after {refused:?}");
    assert!(obey(&d, &imported, "next: ").status.success(), "{imported:?}");
}

#[test]
fn nothing_is_said_twice_and_failures_go_to_stderr() {
    let d = Daemon::start();
    let missing = d.run(&["machine", "show", "nobody"]);
    assert!(missing.stdout.is_empty());
    assert_eq!(text(&missing.stderr).matches("nobody").count(), 1);
    let json = d.run(&["--json", "machine", "show", "nobody"]);
    let error: Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(error["error"]["id"], "not-found");
    assert_eq!(d.run(&["machine", "frobnicate"]).status.code(), Some(2));
}

#[test]
fn without_a_daemon_the_way_to_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let output = slipway(dir.path()).args(["machine", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("slipway serve"), "{output:?}");
}

#[test]
fn a_second_daemon_is_refused_and_a_killed_ones_place_is_taken() {
    let mut d = Daemon::start();
    d.json(&["machine", "define", "web"]);
    let second = d.run(&["serve", "--engine", "sim"]);
    assert_eq!(second.status.code(), Some(5), "{second:?}");
    assert!(text(&second.stderr).contains("[in-use]"), "{second:?}");

    d.signal(Signal::KILL);
    assert!(d.path("s.sock").exists(), "a killed daemon leaves its socket");
    d.child = serve(d.dir.path());
    assert_eq!(d.json(&["machine", "show", "web"])["name"], "web");
    assert!(d.signal(Signal::TERM).success());
    assert!(!d.path("s.sock").exists());
    d.child = serve(d.dir.path());
    assert!(d.signal(Signal::INT).success());
}

#[test]
fn settings_are_checked_and_shown_with_who_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let check = |words: &[&str]| {
        let mut command = slipway(dir.path());
        command.env("SLIPWAY_CONFIG", &file).env("SLIPWAY_LOG", "warn").args(["serve", "--check-config"]);
        command.args(words).output().unwrap()
    };
    std::fs::write(&file, "log = 'debug'\nready_file = '/run/ready'\n[jobs]\nworkers = 2\n").unwrap();
    let output = check(&["--engine", "sim", "--socket", "here.sock"]);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    let here = dir.path().join("here.sock");
    let place = file.display();
    for (setting, origin) in [
        (format!("data = \"{}\"", dir.path().join("data").display()), "SLIPWAY_DATA".to_owned()),
        (format!("socket = \"{}\"", here.display()), "--socket".to_owned()),
        ("group = \"slipway\"".to_owned(), "default".to_owned()),
        ("log = \"warn\"".to_owned(), "SLIPWAY_LOG".to_owned()),
        ("engine = \"sim\"".to_owned(), "--engine".to_owned()),
        ("ready_file = \"/run/ready\"".to_owned(), format!("{place}:2")),
        ("jobs.workers = 2".to_owned(), format!("{place}:4")),
        ("jobs.retention = \"168h\"".to_owned(), "default".to_owned()),
    ] {
        let line =
            shown.lines().find(|l| l.starts_with(&setting)).unwrap_or_else(|| panic!("{setting}: {shown}"));
        assert!(line.ends_with(&format!("  # {origin}")), "{line}");
    }
    assert!(!dir.path().join("data").exists(), "nothing is started");

    std::fs::write(&file, "\nworkrs = 2\n").unwrap();
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{place}:2:1: ")) && said.contains("[bad-setting]"), "{said}");
    assert!(said.contains("hint: did you mean `workers`?"), "{said}");
    // What is wrong is no less wrong when it is to be used.
    assert_eq!(
        slipway(dir.path()).env("SLIPWAY_CONFIG", &file).arg("serve").status().unwrap().code(),
        Some(1)
    );
    let missing = check(&["--config", "none.toml"]);
    assert!(text(&missing.stderr).contains("none.toml"), "{missing:?}");
}

#[test]
fn a_client_finds_the_socket_that_its_users_settings_name() {
    let dir = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        println!("skipped: root's settings are the host's");
        return;
    }
    let config = dir.path().join("config/slipway");
    std::fs::create_dir_all(&config).unwrap();
    let socket = dir.path().join("elsewhere.sock");
    std::fs::write(config.join("config.toml"), format!("socket = {:?}", socket.display().to_string()))
        .unwrap();
    let mut command = slipway(dir.path());
    command.env_remove("SLIPWAY_SOCKET").env("XDG_CONFIG_HOME", dir.path().join("config"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(_listener);
    let output = command.args(["machine", "list"]).output().unwrap();
    assert!(text(&output.stderr).contains("elsewhere.sock"), "{output:?}");
}

#[test]
fn shells_and_man_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let script = slipway(dir.path()).args(["completions", "bash"]).output().unwrap();
    assert!(text(&script.stdout).contains("_slipway"));
    assert!(slipway(dir.path()).args(["man", "man"]).status().unwrap().success());
    assert!(dir.path().join("man/slipway-machine-console.1").exists());
}

#[test]
fn a_console_that_is_not_a_terminal_copies_both_ways() {
    let d = Daemon::start();
    d.json(&["machine", "define", "web"]);
    d.json(&["machine", "start", "web"]);
    let talk = |said: &[u8]| {
        let mut child = slipway(d.dir.path())
            .args(["machine", "console", "web"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(said).unwrap();
        child.wait_with_output().unwrap()
    };
    // The end of what there is to say is not the end of listening; the guest's end is.
    let output = talk(b"echo hello\npoweroff\n");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("hello\r\n"), "{output:?}");
    while d.json(&["machine", "show", "web"])["state"] != "off" {}
    let off = d.run(&["machine", "console", "web"]);
    assert_eq!(
        off.status.code(),
        Some(5),
        "a machine that is off has no console, whatever its guest had: {off:?}"
    );
    assert!(d.run(&["machine", "console", "web", "--log"]).status.success(), "what it said is kept");
}

#[test]
fn a_scenario_is_driven_from_the_command_line_in_a_place_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/lab.toml");
    let ready = dir.path().join("ready");
    let mut child = slipway(dir.path())
        .env_remove("SLIPWAY_DATA")
        .env("HOME", dir.path())
        .args(["serve", "--engine", "sim", "--scenario"])
        .arg(&scenario)
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    let d = Daemon { child, dir };
    assert_eq!(d.json(&["machine", "list"]).as_array().unwrap().len(), 5);
    let clock = d.json(&["simulator", "clock", "advance", "4s"]);
    assert_eq!((&clock["elapsed_ms"], &clock["mode"]), (&4000.into(), &"manual".into()));
    assert_eq!(d.json(&["simulator", "show"])["guests"][0]["counter"], 2);
    let fail = [
        "simulator",
        "fault",
        "add",
        "--operation",
        "pause",
        "--fail",
        "timed-out",
        "--message",
        "no answer",
    ];
    assert_eq!(d.json(&fail)[0]["id"], 3);
    assert!(text(&d.run(&["machine", "pause", "web"]).stderr).contains("no answer"));
    assert!(d.run(&["machine", "pause", "web"]).status.success());
    assert!(text(&d.run(&["simulator", "fault", "list"]).stdout).contains("1 of 1"));
    assert!(d.run(&["simulator", "kill", "web", "--why", "lightning"]).status.success());
    assert_eq!(d.json(&["machine", "show", "web"])["note"], "lightning");
    assert_eq!(d.json(&["simulator", "panic", "web", "--after", "9s"])["events"][1]["at_ms"], 13_000);
    assert_eq!(d.run(&["simulator", "panic", "web"]).status.code(), Some(5), "it is off");
    assert_eq!(d.json(&["simulator", "reset"])["clock"]["elapsed_ms"], 0);
    assert_eq!(d.json(&["machine", "show", "web"])["state"], "running");
    assert!(!d.path(".local").exists(), "nothing was put among the user's own machines");
}
