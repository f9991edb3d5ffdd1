//! NTLM over a network without TLS, sealed: users enabled for it one by one, real clients, and what is refused.
//!
//! The daemon listens at an address of this host that is not loopback, where an unsealed word would be heard.

use base64::Engine as _;
use harness::binary::{run, slipway};
use harness::scratch::{Scratch, raw_disk};
use harness::{Daemon, need, oracle};
use serde_json::Value;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSWORD: &str = "correct horse battery";
const IDENTIFY: &str = concat!(
    r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" "#,
    r#"xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">"#,
    "<s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"
);

/// An address of this host that others could reach. Nothing is sent to find it.
fn outside() -> Result<IpAddr, String> {
    let probe = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    match probe {
        Ok(address) if !address.ip().is_loopback() => Ok(address.ip()),
        _ => Err("this host has no address but loopback, for which it would take root".to_owned()),
    }
}

/// A daemon with `ada`, who may sign in by NTLM, and `bob`, who may not; both are administrators.
struct Api {
    daemon: Daemon,
    places: Scratch,
    python: PathBuf,
}

impl Api {
    fn start() -> Result<Self, String> {
        let python = oracle::python_with(&["pypsrp", "winrm", "spnego"])?;
        let (address, places) = (outside()?, Scratch::new());
        let exports = places.join("exports");
        std::fs::create_dir(&exports).expect("made");
        let config = places.join("config.toml");
        let text = format!(
            "[wsman]\nhttp = [\"{address}:0\"]\nhttps = [\"{address}:0\"]\n[cim]\npaths = {{ \"C:\" = {} }}\n",
            Value::from(exports.to_str().expect("UTF-8"))
        );
        std::fs::write(&config, text).expect("written");
        std::fs::write(places.join("secret"), PASSWORD).expect("written");
        let (config, ready) = (config.display().to_string(), places.join("ready").display().to_string());
        let daemon = Daemon::with(&["--engine", "sim", "--config", &config, "--ready-file", &ready]);
        let api = Self { daemon, places, python };
        api.user(&["add", "bob", "--grant", "administrator"]);
        Ok(api)
    }

    /// A command about a user that takes the password.
    fn user(&self, words: &[&str]) {
        let secret = self.places.join("secret");
        let password = ["--password-file".as_ref(), secret.as_os_str()];
        self.daemon.run(["user"].iter().chain(words).map(AsRef::as_ref).chain(password)).ok();
    }

    fn with_ada() -> Result<Self, String> {
        let api = Self::start()?;
        api.user(&["add", "ada", "--grant", "administrator", "--ntlm"]);
        Ok(api)
    }

    /// The address that it listens at with `scheme`.
    fn url(&self, scheme: &str) -> String {
        let ready = std::fs::read_to_string(self.places.join("ready")).expect("the ready file");
        let wanted = format!("{scheme}://");
        ready.lines().find(|line| line.starts_with(&wanted)).expect("it listens").to_owned()
    }

    /// Runs a client's script, signing in by `auth`.
    fn client(&self, script: &str, arguments: &[&str], scheme: &str, auth: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        run(Command::new(&self.python)
            .arg(root.join("clients").join(script))
            .args(arguments)
            .env("PYTHONPATH", root.join("../examples"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYPERV_URL", self.url(scheme).replace("://", "://ada@"))
            .env("HYPERV_PASSWORD", PASSWORD)
            .env("HYPERV_AUTH", auth)
            .env("HYPERV_INSECURE", "1"))
        .ok();
    }

    /// What curl, asking who is here, is answered with: the body and the status.
    fn curl(&self, scheme: &str, words: &[&str]) -> String {
        let common = ["--silent", "--insecure", "--output", "-", "--write-out", "\n%{http_code}"];
        let header = ["--header", "Content-Type: application/soap+xml;charset=UTF-8", "--data", IDENTIFY];
        run(Command::new("curl").args(common).args(words).args(header).arg(self.url(scheme))).ok().to_owned()
    }

    /// How sign-ins by that name ended, in order.
    fn sign_ins(&self, user: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.daemon.data().join("audit.log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let mine = lines.filter(|line| line["does"] == "sign-in" && line["user"] == user);
        mine.map(|line| line["end"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn machine(&self, name: &str) -> String {
        let raw = self.daemon.home().join(format!("{name}.img"));
        raw_disk(&raw, 4 << 20, &[(0, 1 << 20)]);
        let disk = format!("{},format=raw", raw.display());
        let made =
            self.daemon.run(["machine", "define", name, "--memory", "64", "--disk", &disk, "--json"]).json();
        made["id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn pypsrp_does_everything_sealed() {
    let api = need!(Api::with_ada());
    let id = api.machine("web");
    for auth in ["negotiate", "ntlm"] {
        api.client("look.py", &["web", &id], "http", auth);
    }
    api.client("run.py", &["web"], "http", "negotiate");
    api.client("move.py", &["web", r"C:\out"], "http", "negotiate");
    let package = api.places.join("exports/out/whole");
    api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok();
    assert!(api.sign_ins("ada").iter().all(|end| end == "accepted"), "{:?}", api.sign_ins("ada"));
}

#[test]
fn pywinrm_and_pypsrp_sign_in_by_ntlm_over_both() {
    let api = need!(Api::with_ada());
    let id = api.machine("web");
    for scheme in ["http", "https"] {
        api.client("with_winrm.py", &[&id], scheme, "ntlm");
    }
    api.client("look.py", &["web", &id], "https", "negotiate");
}

#[test]
fn curl_is_let_in_where_nobody_listens_and_nowhere_else() {
    let version = need!(oracle::program("curl").map(|_| run(Command::new("curl").arg("--version"))));
    if !version.ok().contains(" NTLM") {
        println!("skipped: this curl speaks no NTLM");
        return;
    }
    let api = need!(Api::with_ada());
    let right = format!("ada:{PASSWORD}");
    let let_in = api.curl("https", &["--ntlm", "--user", &right]);
    assert!(let_in.ends_with("\n200") && let_in.contains("ProductVendor"), "{let_in}");
    assert_eq!(api.curl("http", &["--ntlm", "--user", &right]), "\n401", "it would speak in clear");
    assert_eq!(api.curl("http", &["--basic", "--user", &right]), "\n401", "the password itself even more");
    assert!(api.curl("https", &["--basic", "--user", &right]).ends_with("\n200"), "as before");
    let offered = api.curl("http", &["--include"]);
    assert!(offered.contains("Www-Authenticate: Negotiate") && !offered.contains("Basic"), "{offered}");
}

#[test]
fn only_who_was_enabled_signs_in_by_ntlm_and_guessing_is_slowed_down() {
    let version = need!(oracle::program("curl").map(|_| run(Command::new("curl").arg("--version"))));
    if !version.ok().contains(" NTLM") {
        println!("skipped: this curl speaks no NTLM");
        return;
    }
    let api = need!(Api::start());
    let ntlm = |user: &str| api.curl("https", &["--ntlm", "--user", &format!("{user}:{PASSWORD}")]);
    let key = api.daemon.data().join("ntlm.key");
    // Nobody is enabled: it is not offered, not listened to, and there is no key.
    assert_eq!(ntlm("bob"), "\n401");
    assert!(!api.curl("https", &["--include"]).contains("Negotiate") && !key.exists());

    api.user(&["set", "bob", "--ntlm"]);
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    let shown = api.daemon.run(["user", "show", "bob", "--json"]).json();
    assert_eq!((&shown["ntlm"], &shown["password"]), (&Value::from(true), &Value::from(true)));
    assert!(api.daemon.run(["user", "show", "bob"]).ok().contains("password or NTLM"));
    // That somebody is enabled is looked up once in a second.
    while !api.curl("https", &["--include"]).contains("Negotiate") {}
    assert!(ntlm("bob").ends_with("\n200"));

    // A new password is the new NT hash.
    std::fs::write(api.places.join("secret"), "another horse battery").expect("written");
    api.user(&["set", "bob"]);
    assert_eq!(ntlm("bob"), "\n401");
    assert!(api.curl("https", &["--ntlm", "--user", "bob:another horse battery"]).ends_with("\n200"));
    std::fs::write(api.places.join("secret"), PASSWORD).expect("written");
    api.user(&["set", "bob"]);
    assert!(ntlm("bob").ends_with("\n200"));

    // The key is lost: said in the log, with what to type, and typed.
    std::fs::remove_file(&key).expect("removed");
    assert_eq!(ntlm("bob"), "\n401");
    assert!(api.sign_ins("bob").last().is_some_and(|end| end.contains("not there any more")));
    assert!(api.daemon.read_log().contains("slipway user set bob --ntlm"), "{}", api.daemon.read_log());
    api.user(&["set", "bob", "--ntlm"]);
    assert!(ntlm("bob").ends_with("\n200"));

    // A user without it, in the presence of one with it.
    api.user(&["add", "kim", "--grant", "reader"]);
    assert_eq!(ntlm("kim"), "\n401");
    assert!(api.sign_ins("kim").last().is_some_and(|end| end.contains("not enabled for NTLM")));
    let without = run(Command::new(slipway())
        .env("SLIPWAY_SOCKET", api.daemon.socket())
        .args(["user", "set", "kim", "--ntlm"]));
    assert!(without.refused().contains("at least 8 characters"), "no password was typed");

    api.daemon.run(["user", "set", "bob", "--no-ntlm"]).ok();
    assert_eq!(ntlm("bob"), "\n401");
    assert!(api.daemon.run(["user", "show", "bob"]).ok().contains("(password)"));
    for _ in 0..5 {
        api.curl("https", &["--basic", "--user", "bob:guess guess"]);
    }
    assert_eq!(
        api.curl("https", &["--basic", "--user", &format!("bob:{PASSWORD}")]),
        "\n401",
        "now it waits"
    );

    // Neither the password nor its NT hash, which is as good, is written down anywhere.
    let written = std::fs::read_dir(api.daemon.data()).expect("listed").flatten().map(|entry| entry.path());
    for file in written.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).expect("read");
        let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(NT_HASH);
        for secret in [&NT_HASH[..], base64.as_bytes(), b"horse battery"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{}", file.display());
        }
    }
    assert!(!api.daemon.read_log().contains("horse"));
}

/// Of [`PASSWORD`].
const NT_HASH: [u8; 16] = 0x3d211b74dd729be1e552b4727594f3eb_u128.to_be_bytes();
