//! What an operator sees: numbers, health, and a log that says which machine and job each line is about.

use harness::binary::run;
use harness::scratch::raw_disk;
use harness::{Daemon, need, oracle};
use serde_json::Value;
use std::process::Command;

/// The value of a sample.
fn value(samples: &[Value], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |s: &&Value| {
        s[0] == format!("slipway_{name}").as_str() && labels.iter().all(|(label, text)| s[1][label] == *text)
    };
    let found: Vec<&Value> = samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0][2].as_f64().expect("a number")
}

fn curl(daemon: &Daemon, path: &str) -> String {
    let socket = daemon.socket();
    let words = ["--silent", "--show-error", "--fail", "--unix-socket"];
    run(Command::new("curl").args(words).arg(socket).arg(format!("http://slipway{path}"))).ok().to_owned()
}

/// A machine with 3 MiB on its disk, exported.
fn exported(daemon: &Daemon) -> String {
    let raw = daemon.home().join("disk.img");
    raw_disk(&raw, 8 << 20, &[(0, 3 << 20)]);
    let disk = format!("{},format=raw", raw.display());
    let words = ["machine", "define", "web \"1\"", "--generation", "1", "--memory", "64", "--disk", &disk];
    let made = daemon.run(words.into_iter().chain(["--json"])).json();
    let target = daemon.home().join("out");
    daemon.run(["export".as_ref(), "web \"1\"".as_ref(), target.as_os_str()]).ok();
    made["id"].as_str().expect("an id").to_owned()
}

#[test]
fn the_last_good_export_is_told_after_the_daemon_died() {
    need!(oracle::program("curl"));
    let mut daemon = Daemon::with(&["--engine", "sim"]);
    assert_eq!(curl(&daemon, "/healthz"), "ok\n");
    let id = exported(&daemon);
    let last =
        |samples: &[Value]| value(samples, "machine_last_export_timestamp_seconds", &[("machine", &id)]);
    let before = need!(oracle::metrics(&curl(&daemon, "/metrics")));
    assert!(last(&before) > 1.7e9, "{before:?}");
    assert_eq!(value(&before, "jobs_ended_total", &[("kind", "export"), ("end", "completed")]), 1.0);
    assert_eq!(value(&before, "job_read_bytes_total", &[("kind", "export")]), f64::from(3 << 20));
    assert_eq!(value(&before, "machines", &[("state", "off")]), 1.0);

    daemon.kill();
    daemon.launch();
    // As the textfile collector gets it, over an older one.
    let file = daemon.home().join("slipway.prom");
    std::fs::write(&file, "old").expect("written");
    daemon.run(["metrics".as_ref(), "--output".as_ref(), file.as_os_str()]).ok();
    let after = need!(oracle::metrics(&std::fs::read_to_string(&file).expect("there")));
    assert_eq!(last(&after), last(&before));
    assert_eq!(value(&after, "jobs_ended_total", &[("kind", "export"), ("end", "completed")]), 0.0);
}

#[test]
fn every_line_about_a_machine_or_a_job_says_which() {
    let daemon = Daemon::with(&["--engine", "sim", "--log", "debug"]);
    let id = exported(&daemon);
    daemon.run(["machine", "start", &id]).ok();
    daemon.run(["machine", "stop", &id]).ok();
    let jobs = daemon.run(["job", "list", "--json"]).json();
    let job = jobs[0]["id"].as_str().expect("a job");
    let log = daemon.read_log();
    let about: Vec<&str> = log
        .lines()
        .filter(|l| l.contains(" job::") || l.contains(" machine::lifecycle") || l.contains(" engine::"))
        .collect();
    assert!(about.len() >= 6, "{log}");
    for line in about {
        assert!(line.contains(&format!("machine={id}")), "no machine: {line}");
        if line.contains(" job::") {
            assert!(line.contains(&format!("job={job}")), "no job: {line}");
        }
    }
}
