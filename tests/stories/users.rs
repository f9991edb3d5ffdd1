//! Who may come in beyond the socket: the list of users by the command line, and the log of who changed what.

use harness::Daemon;
use harness::binary::slipway;
use harness::scratch::raw_disk;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs a command with a password typed into its standard input.
fn with_password(daemon: &Daemon, words: &[&str], password: &str) -> (bool, String) {
    let mut child = Command::new(slipway())
        .env("SLIPWAY_SOCKET", daemon.socket())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that refuses before it reads closes the pipe.
    let _ = writeln!(stdin, "{password}");
    drop(stdin);
    let done = child.wait_with_output().expect("ends");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn audit(daemon: &Daemon) -> Vec<Value> {
    let text = std::fs::read_to_string(daemon.data().join("audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn a_user_is_added_changed_and_removed_and_every_change_is_written_down() {
    let mut daemon = Daemon::with(&["--engine", "sim"]);
    let raw = daemon.home().join("disk.img");
    raw_disk(&raw, 1 << 20, &[(0, 4096)]);
    let disk = format!("{},format=raw", raw.display());
    let web = daemon.run(["machine", "define", "web", "--disk", &disk, "--json"]).json();
    let id = web["id"].as_str().expect("an id");

    let (added, said) = with_password(
        &daemon,
        &["user", "add", "Ada", "--grant", "reader", "--machine", "web=operator+export"],
        "correct horse",
    );
    assert!(added, "{said}");
    let ada = daemon.run(["user", "show", "ADA", "--json"]).json();
    assert_eq!((&ada["name"], &ada["grant"]), (&Value::from("Ada"), &Value::from("reader")));
    assert_eq!(ada["machines"][id], "operator+export");
    assert_eq!(ada["password"], true);
    assert!(!ada.to_string().contains("argon2"), "no hash leaves the daemon");

    let secret = daemon.home().join("secret");
    std::fs::write(&secret, "another horse\n").expect("written");
    let words = ["user", "set", "ada", "--grant", "none", "--machine", "web=none", "--password-file"];
    daemon.run(words.map(AsRef::as_ref).into_iter().chain([secret.as_os_str()])).ok();
    assert_eq!(daemon.run(["user", "list", "--json"]).json()[0]["machines"], serde_json::json!({}));
    daemon.run(["user", "set", "ada", "--disable"]).ok();
    assert!(daemon.run(["user", "list"]).ok().contains("kept out"));

    // Users outlive the daemon.
    daemon.kill();
    daemon.launch();
    assert!(daemon.run(["user", "show", "ada"]).ok().contains("kept out"));
    let target = daemon.home().join("out");
    daemon.run(["export".as_ref(), "web".as_ref(), target.as_os_str()]).ok();
    daemon.run(["user", "remove", "ada"]).ok();
    assert!(daemon.run(["user", "show", "ada"]).refused().contains("slipway user list"));

    let lines = audit(&daemon);
    let told: Vec<(&str, &str)> =
        lines.iter().map(|l| (l["does"].as_str().unwrap_or(""), l["end"].as_str().unwrap_or(""))).collect();
    let administer = |end| ("administer", end);
    assert_eq!(
        told,
        [
            ("configure", "201"),
            administer("201"),
            administer("200"),
            administer("200"),
            ("export", "202"),
            administer("204"),
        ],
        "{lines:?}"
    );
    assert!(lines.iter().all(|l| l["user"] != "" && l["from"] == "socket" && l["time"].is_string()));
    let written = std::fs::read_to_string(daemon.data().join("audit.log")).expect("there");
    assert!(!written.contains("horse"), "no password is written down");
}

#[test]
fn what_cannot_be_a_user_is_refused_with_the_way_on() {
    let daemon = Daemon::with(&["--engine", "sim"]);
    for (words, password, why) in [
        (&["user", "add", "a:b"][..], "correct horse", "cannot be a user's name"),
        (&["user", "add", "ada"], "short", "at least 8 characters"),
        (&["user", "add", "ada", "--grant", "king"], "correct horse", "is no role"),
        (&["user", "add", "ada", "--machine", "web"], "correct horse", "MACHINE=GRANT"),
        (&["user", "add", "ada", "--machine", "web=reader"], "correct horse", "web"),
        (&["user", "add", "ada", "--certificate", "abc"], "", "names no certificate"),
        (&["user", "set", "ada", "--grant", "reader"], "", "no user `ada`"),
    ] {
        let (done, said) = with_password(&daemon, words, password);
        assert!(!done && said.contains(why), "{words:?}: {said}");
    }
    assert_eq!(daemon.run(["user", "list", "--json"]).json(), serde_json::json!([]));
}
