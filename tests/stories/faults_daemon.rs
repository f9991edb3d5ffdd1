//! The daemon under clients that misbehave, on data that it cannot use, and killed in the middle of its work.

use harness::binary::{Ran, run};
use harness::hostile::{Mounted, is_root, member, package, watched};
use harness::scratch::{noise, raw_disk};
use harness::{Daemon, Scratch, need, slipway};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn simulated() -> Daemon {
    Daemon::with(&["--engine", "sim"])
}

/// Sends bytes and reads whatever comes until the other side closes, or is silent for half a minute.
fn raw_request(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    // What is refused early is not read to its end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The status of an answer; 0 when there is none.
fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|a| a.get(..3)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn is_well(daemon: &Daemon) {
    assert_eq!(status(&raw_request(daemon, &request("GET", "/v1", "", ""))), 200);
}

#[test]
fn requests_that_break_the_rules_are_refused_in_words() {
    let daemon = simulated();
    const JSON: &str = "Content-Type: application/json\r\n";
    let deep = "[".repeat(100_000);
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let wide = format!("X-Wide: {}\r\n", "w".repeat(100_000));
    let long = format!("/v1/machines/{}", "m".repeat(60_000));
    let name = format!(r#"{{"name":"{}","generation":1}}"#, "n".repeat(100_000));
    let define = |what: &str| request("POST", "/v1/machines", JSON, what);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("no JSON", define("{"), &[400, 422]),
        ("another type", define("[]"), &[400, 422]),
        ("deep nesting", define(&deep), &[400, 422]),
        ("a number too large", define(r#"{"name":"a","generation":99999999999999999999}"#), &[400, 422]),
        ("a negative number", define(r#"{"name":"a","generation":1,"processors":-1}"#), &[400, 422]),
        ("no such generation", define(r#"{"name":"a","generation":3}"#), &[400, 422]),
        ("unknown field", define(r#"{"name":"a","generation":1,"explode":true}"#), &[400, 422]),
        ("control characters", define("{\"name\":\"a\\u0000b\",\"generation\":1}"), &[400, 422]),
        ("a long name", define(&name), &[400, 422]),
        ("no type", request("POST", "/v1/machines", "", "{}"), &[400, 415, 422]),
        ("wrong method", request("DELETE", "/v1/machines", "", ""), &[405]),
        ("unknown method", request("BREW", "/v1", "", ""), &[405]),
        ("no such route", request("GET", "/v2", "", ""), &[404]),
        ("a path upwards", request("GET", "/v1/machines/..%2f..%2fetc%2fpasswd", "", ""), &[400, 404]),
        ("no UTF-8", request("GET", "/v1/machines/%ff%fe", "", ""), &[400, 404]),
        ("a long path", request("GET", &long, "", ""), &[400, 404, 414, 431]),
        ("many headers", request("GET", "/v1", &many, ""), &[400, 431]),
        ("a wide header", request("GET", "/v1", &wide, ""), &[400, 431]),
        ("two lengths", request("POST", "/v1/machines", "Content-Length: 3\r\n", "{}"), &[400]),
        ("a relative path", request("POST", "/v1/planned", JSON, r#"{"path":"pkg"}"#), &[400, 404, 422]),
        (
            "a device",
            request("POST", "/v1/planned", JSON, r#"{"path":"/dev/zero","dry_run":true}"#),
            &[400, 404, 409, 422],
        ),
        ("noise", noise(1, 4096), &[0, 400]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[0, 400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[0, 400, 505]),
    ];
    for (what, bytes, expected) in cases {
        let answer = raw_request(&daemon, &bytes);
        let got = status(&answer);
        assert!(expected.contains(&got), "{what}: {got}, not one of {expected:?}: {answer:.400}");
        if matches!(got, 400 | 404 | 405 | 415 | 422) && answer.contains("application/") {
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
            let json: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|e| panic!("{what}: no JSON ({e}): {answer}"));
            assert!(json.to_string().len() < 4096, "{what} comes back at length: {answer:.400}");
        }
        is_well(&daemon);
    }
    // A body that claims, or turns out, to be too large is not waited for, nor kept.
    let claim = b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n{";
    assert_eq!(status(&raw_request(&daemon, claim)), 413);
    let mut chunked = b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..64 {
        chunked.extend(b"100000\r\n");
        chunked.extend(vec![b' '; 1 << 20]);
        chunked.extend(b"\r\n");
    }
    let answer = raw_request(&daemon, &chunked);
    assert!(matches!(status(&answer), 0 | 413), "{answer:.400}");
    is_well(&daemon);
    assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
    assert!(!daemon.read_log().contains("panicked"));
}

#[test]
fn requests_that_nobody_sends_by_mistake_are_refused_or_hung_up_on() {
    let daemon = simulated();
    const JSON: &str = "Content-Type: application/json\r\n";
    let define = |what: &str| request("POST", "/v1/machines", JSON, what);
    let raw = |text: &str| text.as_bytes().to_vec();
    let with_body = |headers: &str, body: &[u8]| {
        let mut bytes = request("POST", "/v1/machines", headers, "");
        let head = String::from_utf8_lossy(&bytes)
            .replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
        bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    let digits = "9".repeat(100_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        // Bodies.
        ("a field twice", define(r#"{"name":"a","name":"b","generation":1}"#)),
        ("a number without end", define(&format!(r#"{{"name":"a","generation":{digits}}}"#))),
        ("a number that is none", define(r#"{"name":"a","generation":NaN}"#)),
        ("a fraction", define(r#"{"name":"a","generation":1.5}"#)),
        ("an exponent", define(r#"{"name":"a","generation":1,"memory_mib":1e400}"#)),
        ("deep in a field", define(&format!(r#"{{"name":{}}}"#, "[".repeat(50_000)))),
        ("two values", define(r#"{"name":"a","generation":1}{"name":"b","generation":1}"#)),
        ("half a character", define(r#"{"name":"\ud800","generation":1}"#)),
        ("a name of spaces", define(r#"{"name":"   ","generation":1}"#)),
        ("no UTF-8", with_body(JSON, b"{\"name\":\"\xff\xfe\",\"generation\":1}")),
        ("another type", with_body("Content-Type: text/plain\r\n", br#"{"name":"a","generation":1}"#)),
        ("a form", with_body("Content-Type: application/x-www-form-urlencoded\r\n", b"name=a&generation=1")),
        ("an odd type", with_body("Content-Type: application/json; charset=\x01\r\n", b"{}")),
        // Paths and queries.
        ("upwards", request("GET", "/v1/../../etc/passwd", "", "")),
        ("upwards, encoded", request("GET", "/v1/machines/%2e%2e%2f%2e%2e", "", "")),
        ("a NUL", request("GET", "/v1/machines/a%00b", "", "")),
        ("a line break", request("DELETE", "/v1/machines/a%0d%0aX:%20y", "", "")),
        ("two slashes", request("GET", "//v1/machines", "", "")),
        ("a broken escape", request("GET", "/v1/machines/%zz", "", "")),
        ("a query without end", request("GET", &format!("/v1/jobs/x?generation={digits}"), "", "")),
        ("a wait without end", request("GET", "/v1/jobs/x?generation=1&wait_seconds=-1", "", "")),
        ("another host's address", request("GET", "http://example.org/v2", "", "")),
        // Methods.
        ("trace", request("TRACE", "/v1", "", "")),
        ("connect", request("CONNECT", "example.org:443", "", "")),
        ("a method without end", request(&"M".repeat(50_000), "/v1", "", "")),
        ("no method", raw(" /v1 HTTP/1.1\r\nHost: x\r\n\r\n")),
        // Framing, on which two readers could differ.
        (
            "a length with a sign",
            raw("POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}"),
        ),
        (
            "a length below nothing",
            raw("POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        ),
        (
            "a length without end",
            raw(&format!("POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: {digits}\r\n\r\n")),
        ),
        (
            "a chunk without end",
            raw(
                "POST /v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            ),
        ),
        (
            "a chunk of no number",
            raw("POST /v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ),
        (
            "an encoding that there is not",
            raw("POST /v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ),
        ("a folded header", raw("GET /v1 HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n")),
        ("a space before the colon", raw("GET /v1 HTTP/1.1\r\nHost : x\r\n\r\n")),
        ("a NUL in a header", raw("GET /v1 HTTP/1.1\r\nHost: x\0y\r\n\r\n")),
        ("a version that there is not", raw("GET /v1 HTTP/9.9\r\nHost: x\r\n\r\n")),
        ("no version", raw("GET /v1\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let answer = raw_request(&daemon, &bytes);
        let got = status(&answer);
        let refused = got == 0 || (400..500).contains(&got) || matches!(got, 501 | 505);
        assert!(refused, "{what}: {got}: {answer:.400}");
        assert!(answer.len() < 8192, "{what} comes back at length: {answer:.400}");
        is_well(&daemon);
    }
    assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
    assert!(!daemon.read_log().contains("panicked"));
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    const COUNT: usize = 60;
    let daemon = simulated();
    let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
    let mut requests = b"GET /v1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(COUNT - 1);
    requests.extend(request("GET", "/v1", "", ""));
    stream.write_all(&requests).expect("sent");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("closed behind the last");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), COUNT, "{answers:.400}");
}

#[test]
fn ten_thousand_connections_keep_nobody_out() {
    const COUNT: usize = 10_000;
    /// As many as a process may have files open by default, with room for others.
    const OPEN: usize = 700;
    let daemon = simulated();
    let mut open = std::collections::VecDeque::new();
    for n in 0..COUNT {
        let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
        // Nothing, half a word, or a question whose answer nobody reads.
        let _ = match n % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /v1 HT"),
            _ => stream.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        open.push_back(stream);
        if open.len() > OPEN {
            open.pop_front();
        }
        if n % 500 == 0 {
            is_well(&daemon);
        }
    }
    daemon.run(["machine", "define", "after", "--generation", "1"]).ok();
    let peak = harness::hostile::high_water_mib(&daemon.pid().to_string());
    assert!(peak < 256, "the daemon held {peak} MiB");
    assert!(daemon.read_log().lines().count() < 1000, "the log was flooded");
}

#[test]
fn silent_clients_hold_nobody_up() {
    let daemon = simulated();
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
        match n % 4 {
            0 => {}
            1 => stream.write_all(b"GET /v1 HT").expect("sent"),
            2 => stream
                .write_all(b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                .expect("sent"),
            _ => stream.shutdown(std::net::Shutdown::Read).expect("half open"),
        }
        silent.push(stream);
    }
    let fine = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..200)
            .map(|_| scope.spawn(|| status(&raw_request(&daemon, &request("GET", "/v1/machines", "", "")))))
            .collect();
        asked.into_iter().filter_map(|t| t.join().ok()).filter(|s| *s == 200).count()
    });
    assert_eq!(fine, 200);
    // The first one that said half a word is hung up on, sooner or later.
    silent[1].set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut rest = Vec::new();
    let _ = silent[1].read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
}

fn nobody(daemon: &Daemon, words: &[&str]) -> Ran {
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(ids).arg(slipway()).args(words).env("SLIPWAY_SOCKET", daemon.socket());
    watched(&mut command).ran
}

#[test]
fn another_user_is_refused() {
    if !is_root() {
        harness::skip!("only root can become nobody");
    }
    let daemon = simulated();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    // Kept out by the file system.
    open(daemon.home(), 0o755);
    let refused = nobody(&daemon, &["machine", "list"]);
    refused.told(&daemon.socket());
    // Let in by the file system, by mistake: kept out by the daemon.
    open(&daemon.socket(), 0o666);
    let refused = nobody(&daemon, &["machine", "list"]);
    assert!(refused.refused().contains("65534") || refused.stderr.contains("root"), "{refused}");
    assert!(refused.stderr.contains("hint: "), "{refused}");
    let defined = nobody(&daemon, &["machine", "define", "evil", "--generation", "1"]);
    defined.refused();
    assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(
        fs::metadata(daemon.data()).expect("there").mode() & 0o077,
        0,
        "others can look into the data"
    );
}

#[test]
fn a_place_that_belongs_to_somebody_else_is_not_written_to() {
    if !is_root() {
        harness::skip!("only root can become nobody");
    }
    const NOBODY: u32 = 65534;
    let home = Scratch::new();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    open(home.path(), 0o755);
    let (own, roots) = (home.join("own"), home.join("roots"));
    for dir in [&own, &roots] {
        fs::create_dir(dir).expect("made");
        open(dir, 0o755);
    }
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).expect("root may give it away");
    let as_nobody = |words: &[&std::ffi::OsStr]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(slipway()).args(words);
        command.env("SLIPWAY_SOCKET", own.join("s")).env("HOME", &own);
        command
    };
    let data = own.join("data");
    let words = ["serve", "--engine", "sim", "--data"].map(AsRef::as_ref);
    let mut serve = as_nobody(
        &[&words[..], &[data.as_os_str(), "--socket".as_ref(), own.join("s").as_os_str()]].concat(),
    );
    let _daemon = Running(serve.stderr(Stdio::null()).spawn().expect("it starts"));
    until("the daemon answers", || UnixStream::connect(own.join("s")).is_ok());
    let client = |words: &[&std::ffi::OsStr]| watched(&mut as_nobody(words)).ran;
    let define = ["machine", "define", "m", "--generation", "1", "--memory", "64", "--new-disk", "1M"];
    client(&define.map(AsRef::as_ref)).ok();
    let package = own.join("package");
    client(&["export".as_ref(), "m".as_ref(), package.as_os_str()]).ok();
    // Into root's folder, and through a link of one's own that leads there.
    let link = own.join("link");
    std::os::unix::fs::symlink(&roots, &link).expect("linked");
    for target in [roots.join("package"), link.join("package")] {
        let refused = client(&["export".as_ref(), "m".as_ref(), target.as_os_str()]);
        refused.told(&target);
        assert!(refused.stderr.contains("[access-denied]"), "{refused}");
        let words = [
            "import".as_ref(),
            package.as_os_str(),
            "--new-id".as_ref(),
            "--to".as_ref(),
            target.as_os_str(),
        ];
        let refused = client(&words);
        refused.told(&target);
        assert!(refused.stderr.contains("[access-denied]"), "{refused}");
    }
    assert_eq!(fs::read_dir(&roots).expect("there").count(), 0);
    // Nor is what only root may read taken into a machine.
    let secret = roots.join("secret.img");
    raw_disk(&secret, 1 << 20, &[(0, 10)]);
    open(&secret, 0o600);
    let disk = format!("{},format=raw", secret.display());
    let words = ["machine", "define", "spy", "--generation", "1", "--disk", &disk].map(AsRef::as_ref);
    client(&words).told(&secret);
}

/// Runs `serve`, which is expected to refuse: anything else would not end.
fn serve(data: &Path, socket: &Path) -> Ran {
    let mut command = Command::new(slipway());
    command.args(["serve", "--engine", "sim", "--data"]).arg(data).arg("--socket").arg(socket);
    watched(&mut command).ran
}

#[test]
fn one_daemon_per_data_and_one_per_socket() {
    let daemon = simulated();
    let scratch = Scratch::new();
    serve(&daemon.data(), &scratch.join("s")).told(&daemon.data());
    serve(&scratch.join("data"), &daemon.socket()).told(&daemon.socket());
    is_well(&daemon);
    // What is no socket is not removed to make room for one.
    let file = scratch.join("file");
    fs::write(&file, "mine").expect("written");
    serve(&scratch.join("data"), &file).told(&file);
    assert_eq!(fs::read(&file).expect("there"), b"mine");
    // Somebody else's socket, which answers, is not taken over either.
    let foreign = scratch.join("foreign");
    let _listener = UnixListener::bind(&foreign).expect("bound");
    serve(&scratch.join("data"), &foreign).told(&foreign);
    let long = scratch.join(&"s".repeat(200));
    serve(&scratch.join("data"), &long).told(&long);
}

#[test]
fn a_socket_that_a_crash_left_is_taken_over() {
    let mut daemon = simulated();
    daemon.run(["machine", "define", "kept", "--generation", "1"]).ok();
    daemon.kill();
    assert!(daemon.socket().exists());
    let gone = daemon.run(["machine", "list"]);
    assert_eq!(gone.code, Some(6), "{gone}");
    gone.told(&daemon.socket());
    daemon.launch();
    assert!(daemon.run(["machine", "list"]).ok().contains("kept"));
}

#[test]
fn data_that_cannot_be_used_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let socket = scratch.join("s");
    let file = scratch.join("file");
    fs::write(&file, "").expect("written");
    serve(&file, &socket).told(&file);
    serve(&file.join("below"), &socket).told(&file.join("below"));
    let garbage = scratch.join("garbage");
    fs::create_dir(&garbage).expect("made");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o700)).expect("set");
    fs::write(garbage.join("slipway.db"), noise(7, 20_000)).expect("written");
    serve(&garbage, &socket).told(&garbage);
    assert_eq!(fs::read(garbage.join("slipway.db")).expect("there"), noise(7, 20_000));

    // From a newer version: the number that SQLite keeps for its user, at byte 60.
    let mut daemon = simulated();
    daemon.run(["machine", "define", "future", "--generation", "1"]).ok();
    daemon.run(["machine", "list"]).ok();
    daemon.kill();
    let newer = scratch.join("newer");
    fs::create_dir(&newer).expect("made");
    for name in ["slipway.db", "slipway.db-wal"] {
        let _ = fs::copy(daemon.data().join(name), newer.join(name));
    }
    fs::set_permissions(&newer, fs::Permissions::from_mode(0o700)).expect("set");
    let sql = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA user_version = 999'); c.commit(); c.close()";
    let changed = run(Command::new("python3").args(["-c", sql]).arg(newer.join("slipway.db")));
    changed.ok();
    let before = fs::read(newer.join("slipway.db")).expect("there");
    let refused = serve(&newer, &socket);
    refused.told(&newer);
    assert!(refused.stderr.contains("newer"), "{refused}");
    assert_eq!(fs::read(newer.join("slipway.db")).expect("there"), before, "a newer store was changed");

    if is_root() {
        let closed = scratch.join("closed");
        let mounted = need!(Mounted::new(&["-t", "tmpfs", "-o", "ro,size=1m", "none"], &closed));
        serve(&closed, &socket).told(&closed);
        serve(&closed.join("data"), &socket).told(&closed.join("data"));
        drop(mounted);
    }
    assert!(!socket.exists(), "a daemon that did not start left its socket");
}

#[test]
fn a_full_data_directory_fails_imports_and_nothing_else() {
    if !is_root() {
        harness::skip!("only root can mount");
    }
    let home = Scratch::new();
    let small = home.join("small");
    let _mounted = need!(Mounted::small(12, &small));
    let maker = simulated();
    let raw = maker.home().join("big.img");
    raw_disk(&raw, 24 << 20, &[(0, 20 << 20)]);
    let disk = format!("{},format=raw", raw.display());
    maker.run(["machine", "define", "big", "--generation", "1", "--memory", "64", "--disk", &disk]).ok();
    let big = maker.home().join("package");
    maker.run(["export".as_ref(), "big".as_ref(), big.as_os_str()]).ok();

    let data = small.join("data");
    let socket = home.join("s");
    let mut command = Command::new(slipway());
    command.args(["serve", "--engine", "sim", "--data"]).arg(&data).arg("--socket").arg(&socket);
    let mut daemon = Running(command.stderr(Stdio::null()).spawn().expect("it starts"));
    until("the daemon answers", || UnixStream::connect(&socket).is_ok());
    let client = |words: &[&std::ffi::OsStr]| {
        watched(Command::new(slipway()).args(words).env("SLIPWAY_SOCKET", &socket)).ran
    };
    // The report sees it coming.
    let import = client(&["import".as_ref(), big.as_os_str()]);
    assert!(import.refused().contains("space") || import.stdout.contains("space"), "{import}");
    assert!(import.stderr.contains("hint: "), "{import}");
    // Full to the last byte, whatever the report thinks: the store itself cannot grow.
    let filler = small.join("filler");
    let _ = fs::write(&filler, vec![1; 64 << 20]);
    let refused = (0..50).find_map(|n| {
        let name = format!("m{n}");
        let ran = client(&[
            "machine".as_ref(),
            "define".as_ref(),
            name.as_ref(),
            "--generation".as_ref(),
            "1".as_ref(),
        ]);
        (ran.code != Some(0)).then_some(ran)
    });
    if let Some(ran) = refused {
        assert!(ran.refused().contains("[no-space]"), "{ran}");
        assert!(ran.stderr.contains("hint: "), "{ran}");
    }
    let listed = client(&["machine".as_ref(), "list".as_ref(), "--json".as_ref()]).json();
    assert!(daemon.0.try_wait().expect("asked").is_none(), "the daemon ended");
    // With room again it goes on as before.
    fs::remove_file(filler).expect("removed");
    client(&["machine".as_ref(), "define".as_ref(), "after".as_ref(), "--generation".as_ref(), "1".as_ref()])
        .ok();
    let now = client(&["machine".as_ref(), "list".as_ref(), "--json".as_ref()]).json();
    let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
    assert_eq!(count(&now), count(&listed) + 1);
}

/// A process that ends with the story.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

/// Bytes that files below a folder really take.
fn taken(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => taken(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|e| if e.path().is_dir() { files(&e.path()) } else { vec![e.path()] })
        .collect()
}

/// The id of the only job of that kind that is not over, or the last one.
fn last_job(daemon: &Daemon, kind: &str) -> Option<String> {
    let jobs = daemon.run(["job", "list", "--json"]).json();
    let jobs = jobs.as_array().cloned().unwrap_or_default();
    jobs.iter().find(|j| j["kind"] == kind).and_then(|j| j["id"].as_str()).map(str::to_owned)
}

#[test]
fn an_import_killed_at_any_moment_is_whole_or_not_there() {
    const SIZE: u64 = 96 << 20;
    let mut daemon = simulated();
    let raw = daemon.home().join("big.img");
    raw_disk(&raw, SIZE, &[(0, SIZE as usize)]);
    let disk = format!("{},format=raw", raw.display());
    daemon.run(["machine", "define", "big", "--generation", "1", "--memory", "64", "--disk", &disk]).ok();
    let package = daemon.home().join("package");
    daemon.run(["export".as_ref(), "big".as_ref(), package.as_os_str()]).ok();
    let hash = |file: &Path| run(Command::new(slipway()).args(["disk", "hash"]).arg(file)).ok().to_owned();
    let content = hash(&member(&package, "Virtual Hard Disks", "vhdx"));
    let machines = daemon.data().join("machines");
    // Killed when that much of the disk is written: nothing yet, a part, nearly all, all.
    for part in [0, 1, 20, 70, 95, 100] {
        let before = taken(&machines);
        let mut import = Command::new(slipway());
        import.arg("import").arg(&package).args(["--new-id", "--name", "copy"]);
        import.env("SLIPWAY_SOCKET", daemon.socket()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut import = Running(import.spawn().expect("it starts"));
        until("enough is written", || {
            taken(&machines).saturating_sub(before) >= SIZE * part / 100
                || import.0.try_wait().expect("asked").is_some()
        });
        daemon.kill();
        import.0.wait().expect("a client without a daemon ends");
        daemon.launch();
        if let Some(job) = last_job(&daemon, "import") {
            let _ = daemon.run(["job", "watch", &job]);
        }
        let list = daemon.run(["machine", "list", "--json"]).json();
        let copy = list.as_array().expect("a list").iter().find(|m| m["name"] == "copy").cloned();
        let shown = files(&machines);
        assert!(
            !shown.iter().any(|f| f.to_string_lossy().contains(".partial")),
            "{part} %: litter: {shown:?}"
        );
        match copy {
            Some(copy) => {
                let id = copy["id"].as_str().expect("an id");
                let written = shown
                    .iter()
                    .find(|f| f.to_string_lossy().contains(id) && f.extension().is_some_and(|e| e == "raw"));
                assert_eq!(hash(written.expect("its disk")), content, "{part} %: a machine with half a disk");
                daemon.run(["machine", "delete", id]).ok();
            }
            None => assert!(shown.is_empty(), "{part} %: litter that looks complete: {shown:?}"),
        }
        for planned in daemon.run(["planned", "list", "--json"]).json().as_array().expect("a list") {
            daemon.run(["planned", "delete", planned["id"].as_str().expect("an id")]).ok();
        }
    }
    assert_eq!(hash(&member(&package, "Virtual Hard Disks", "vhdx")), content, "the package was written to");
}

#[test]
fn an_export_killed_at_any_moment_is_complete_or_partial() {
    const SIZE: u64 = 64 << 20;
    let mut daemon = simulated();
    let raw = daemon.home().join("big.img");
    raw_disk(&raw, SIZE, &[(0, SIZE as usize)]);
    let disk = format!("{},format=raw", raw.display());
    daemon.run(["machine", "define", "big", "--generation", "1", "--memory", "64", "--disk", &disk]).ok();
    for part in [0, 10, 60, 95, 100] {
        let target = daemon.home().join(format!("out {part}"));
        let mut export = Command::new(slipway());
        export.args(["export", "big"]).arg(&target);
        export.env("SLIPWAY_SOCKET", daemon.socket()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut export = Running(export.spawn().expect("it starts"));
        let home = daemon.home().to_owned();
        let written = || {
            let entries = fs::read_dir(&home).expect("a home").flatten();
            entries
                .filter(|e| e.file_name().to_string_lossy().contains(&format!("out {part}")))
                .map(|e| taken(&e.path()))
                .sum::<u64>()
        };
        until("enough is written", || {
            written() >= SIZE * part / 100 || export.0.try_wait().expect("asked").is_some()
        });
        daemon.kill();
        export.0.wait().expect("a client without a daemon ends");
        // What lies there now is refused, or proves good.
        if target.exists() {
            let verify = run(Command::new(slipway()).arg("verify").arg(&target));
            let inspect = run(Command::new(slipway()).arg("inspect").arg(&target));
            if verify.code != Some(0) {
                verify.told(&target);
                inspect.told(&target);
            }
        }
        daemon.launch();
        if let Some(job) = last_job(&daemon, "export") {
            let _ = daemon.run(["job", "watch", &job]);
        }
        if !target.exists() {
            daemon.run(["export".as_ref(), "big".as_ref(), target.as_os_str()]).ok();
        }
        run(Command::new(slipway()).arg("verify").arg(&target)).ok();
    }
}

#[test]
fn what_vanishes_between_plan_and_machine_is_missed_in_words() {
    let daemon = simulated();
    let whole = package(&daemon, "gone", 1);
    let id = daemon.run(["machine", "list", "--json"]).json();
    assert_eq!(id, serde_json::json!([]));
    let body = serde_json::json!({ "path": whole, "options": {} }).to_string();
    let headers = "Content-Type: application/json\r\n";
    let planned = raw_request(&daemon, &request("POST", "/v1/planned", headers, &body));
    assert_eq!(status(&planned), 201, "{planned}");
    let disk = member(&whole, "Virtual Hard Disks", "vhdx");
    let aside = daemon.home().join("aside.vhdx");
    let id = daemon.run(["planned", "list", "--json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    let before = daemon.run(["planned", "show", &id, "--json"]).json();
    // Gone, another one, a pipe, a link to the real one outside.
    fs::rename(&disk, &aside).expect("moved");
    for n in 0..4 {
        match n {
            0 => {}
            1 => fs::write(&disk, noise(3, 100_000)).expect("written"),
            2 => drop(run(Command::new("mkfifo").arg(&disk))),
            _ => std::os::unix::fs::symlink(&aside, &disk).expect("linked"),
        }
        let ran = daemon.run(["planned", "realize", &id]);
        ran.told(&disk);
        assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
        // Looked at anew, it says what is missing now; it is still the same plan.
        let now = daemon.run(["planned", "show", &id, "--json"]).json();
        assert_eq!((&now["id"], &now["name"]), (&before["id"], &before["name"]), "{n}");
        let litter = files(&daemon.data().join("machines"));
        assert!(litter.is_empty(), "{litter:?}");
        let _ = fs::remove_file(&disk);
    }
    fs::rename(&aside, &disk).expect("moved");
    daemon.run(["planned", "realize", &id]).ok();
}
