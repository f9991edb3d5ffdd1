//! Every hostile package of the corpus, through every command that reads packages: refused for the right reason, or imported
//! with the trick having come to nothing. What lies outside is never opened, nothing is written, memory and time are bounded, and
//! what is shown does what no terminal should be told.

#![expect(clippy::print_stdout, clippy::panic, reason = "tests talk to the person who runs them")]

use harness::binary::run;
use harness::bundle::Bundle;
use harness::corpus::{self, Case, Outcome};
use harness::hostile::Watched;
use harness::watch::Watch;
use harness::{Daemon, Ran, Scratch, need, slipway};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most memory that any command may hold, in MiB.
const MEMORY: u64 = 256;
/// Most address space, in bytes: what is only promised counts too.
const ADDRESSES: u64 = 1 << 30;
/// Most time of a processor, in seconds. Tests are built without optimisation and run beside each other.
const SECONDS: u64 = 30;
/// Longest text that a person is shown, in bytes.
const SHOWN: usize = 128 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile")
}

/// The index of the corpus, and one line for each case.
fn index(cases: &[Case]) -> String {
    let rows: Vec<String> = cases.iter().map(|case| format!("  {}", case.row())).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

#[test]
fn the_corpus_is_what_its_generator_makes() {
    let cases = corpus::all();
    assert!(cases.len() > 200, "{} cases", cases.len());
    let same = |path: &Path, text: &str| {
        let kept = fs::read_to_string(path).unwrap_or_default();
        assert!(kept == text, "{} is out of date: see its README", path.display());
    };
    for case in cases.iter().filter(|case| case.kept) {
        let text = case.bundle.pack();
        assert_eq!(Bundle::parse(&text).pack(), text, "{}", case.name);
        same(&folder().join(format!("{}.txt", case.name)), &text);
    }
    same(&folder().join("index.json"), &index(&cases));
    let kept = cases.iter().filter(|case| case.kept).count();
    let files = fs::read_dir(folder()).expect("the corpus").count();
    assert_eq!(files, kept + 2, "files of cases that are no more");
}

#[test]
#[ignore = "writes the corpus into the repository"]
fn write_the_corpus() {
    let cases = corpus::all();
    for entry in fs::read_dir(folder()).expect("the corpus") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|e| e == "txt") {
            fs::remove_file(path).expect("removed");
        }
    }
    for case in cases.iter().filter(|case| case.kept) {
        fs::write(folder().join(format!("{}.txt", case.name)), case.bundle.pack()).expect("written");
    }
    fs::write(folder().join("index.json"), index(&cases)).expect("written");
}

/// Runs a command of ours within its bounds.
fn bounded(daemon: &Daemon, words: &[&str], path: &Path) -> Ran {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={ADDRESSES}")).arg(format!("--cpu={SECONDS}")).arg(slipway());
    command.args(words).arg(path);
    command.env("SLIPWAY_SOCKET", daemon.socket()).env("SLIPWAY_DATA", daemon.data());
    let Watched { ran, peak_mib } = harness::hostile::watched(&mut command);
    assert!(peak_mib < MEMORY, "{peak_mib} MiB: {ran}");
    assert!(ran.code.is_some(), "ended by a signal: {ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    ran
}

/// The ids at the ends of a text's lines that are errors.
fn ids(text: &str) -> Vec<&str> {
    let errors = text.lines().filter(|line| line.trim_start().starts_with("error"));
    errors.filter_map(|line| line.strip_suffix(']')?.rsplit_once('[').map(|(_, id)| id)).collect()
}

/// Shown to a person: short, and nothing in it that a terminal obeys.
#[track_caller]
fn is_shown_safely(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        assert!(text.len() < SHOWN, "{} bytes are shown: {ran}", text.len());
        let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(obeyed), "a terminal would obey this: {ran}");
    }
}

/// Ended as expected, and said why.
#[track_caller]
fn says(case: &str, ran: &Ran, expected: &Outcome) {
    is_shown_safely(ran);
    let said = ids(&ran.stdout).into_iter().chain(ids(&ran.stderr)).collect::<Vec<_>>();
    assert_eq!(ran.code, Some(expected.exit), "{case}: expected {expected:?}: {ran}");
    if expected.reason.is_empty() {
        assert!(said.is_empty(), "{case}: {said:?} were not expected: {ran}");
    } else {
        assert!(said.contains(&expected.reason.as_str()), "{case}: {said:?}, not {expected:?}: {ran}");
    }
    if expected.exit != 0 {
        assert!(ran.stderr.contains("hint: "), "{case}: no way on is shown: {ran}");
    }
}

/// What is in a folder, without opening any of it: names, sizes, and when each was changed.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let meta = entry.path().symlink_metadata().expect("it is there");
            let changed = (meta.len(), meta.mode(), meta.nlink(), meta.ctime(), meta.ctime_nsec());
            found.push(format!("{} {changed:?}", entry.path().display()));
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Everything that reads packages, on one case.
fn tell(daemon: &Daemon, case: &Case) {
    let scratch = Scratch::new();
    case.bundle.unpack(scratch.path());
    let (package, outside) = (scratch.join("package"), scratch.join("outside"));
    let before = listing(scratch.path());
    let watch = need!(Watch::on([outside.as_path()]));

    let expected = &case.expected;
    says(&case.name, &bounded(daemon, &["inspect"], &package), &expected.inspect);
    // What a program is told is JSON, whatever is in it.
    let told = bounded(daemon, &["inspect", "--json"], &package);
    let json = if told.code == Some(0) { &told.stdout } else { &told.stderr };
    serde_json::from_str::<Value>(json).unwrap_or_else(|e| panic!("{}: no JSON ({e}): {told}", case.name));
    says(&case.name, &bounded(daemon, &["verify"], &package), &expected.verify);
    let dry = bounded(daemon, &["import", "--new-id", "--dry-run"], &package);
    says(&case.name, &dry, &expected.import);
    let import = bounded(daemon, &["import", "--new-id"], &package);
    says(&case.name, &import, &expected.import);

    assert_eq!(watch.events(), Vec::<String>::new(), "{}: something outside was opened", case.name);
    assert_eq!(listing(scratch.path()), before, "{}: something was written", case.name);
    let machines = daemon.run(["machine", "list", "--json"]).json();
    for machine in machines.as_array().expect("a list") {
        assert_eq!(expected.import.exit, 0, "{}: a machine came of it: {machine}", case.name);
        daemon.run(["machine", "delete", machine["id"].as_str().expect("an id")]).ok();
    }
    assert_eq!(daemon.run(["planned", "list", "--json"]).json(), serde_json::json!([]), "{}", case.name);
    let litter = fs::read_dir(daemon.data().join("machines")).map_or(0, Iterator::count);
    assert_eq!(litter, 0, "{}: files are left of it", case.name);
}

/// Takes away what a case that failed has left behind.
fn clear(daemon: &Daemon) {
    for (noun, list) in
        [("machine", ["machine", "list", "--json"]), ("planned", ["planned", "list", "--json"])]
    {
        for left in daemon.run(list).json().as_array().expect("a list") {
            daemon.run([noun, "delete", left["id"].as_str().expect("an id")]).ok();
        }
    }
}

/// A group of cases, with a daemon of its own.
fn tell_group(name: &str) {
    let daemon = Daemon::with(&["--engine", "sim"]);
    let pid = daemon.pid().to_string();
    run(Command::new("prlimit").args(["--pid", &pid, &format!("--as={}", 4 * ADDRESSES)])).ok();
    let cases = corpus::group(name);
    let count = cases.len();
    let mut failed = Vec::new();
    for case in cases {
        // What is kept is what is told, whatever the generator makes of it today.
        let kept = fs::read_to_string(folder().join(format!("{}.txt", case.name)));
        let bundle = kept.map_or(case.bundle.clone(), |text| Bundle::parse(&text));
        let case = Case { bundle, ..case };
        // All that fail are told, not the first.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(&daemon, &case))).is_err() {
            failed.push(case.name);
            clear(&daemon);
        }
    }
    assert_eq!(failed, Vec::<String>::new());
    let log = daemon.read_log();
    assert!(!log.contains("panicked"), "{log}");
    let peak = harness::hostile::high_water_mib(&pid);
    assert!(peak < MEMORY, "the daemon held {peak} MiB");
    println!("{count} packages; the daemon held {peak} MiB at most");
}

macro_rules! groups {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            tell_group(stringify!($name));
        })*

        #[test]
        fn every_group_is_told() {
            assert_eq!(corpus::GROUPS, [$(stringify!($name)),*]);
        }
    };
}
groups!(paths, configurations, containers, disks, chains, manifests, places);
