//! Hyper-V's API as real clients use it: pypsrp, pywinrm and curl, unmodified, over WS-Management.

use harness::binary::run;
use harness::guest::package;
use harness::scratch::{Scratch, raw_disk};
use harness::{Daemon, Guest, need, oracle};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
const PASSWORD: &str = "correct horse battery";

/// A daemon that listens for WS-Management, with an administrator `ada`.
struct Api {
    daemon: Daemon,
    places: Scratch,
    python: PathBuf,
}

impl Api {
    fn start(engine: &str) -> Result<Self, String> {
        let python = oracle::python_with(&["pypsrp", "winrm"])?;
        let places = Scratch::new();
        let config = places.join("config.toml");
        let exports = places.join("exports");
        std::fs::create_dir(&exports).expect("made");
        let text = format!(
            "[wsman]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n[cim]\npaths = {{ \"C:\" = {} }}\n",
            Value::from(exports.to_str().expect("UTF-8"))
        );
        std::fs::write(&config, text).expect("written");
        let (config, ready) = (config.display().to_string(), places.join("ready").display().to_string());
        let daemon = Daemon::with(&["--engine", engine, "--config", &config, "--ready-file", &ready]);
        let secret = places.join("secret");
        std::fs::write(&secret, PASSWORD).expect("written");
        let words = ["user", "add", "ada", "--grant", "administrator", "--password-file"];
        daemon.run(words.map(AsRef::as_ref).into_iter().chain([secret.as_os_str()])).ok();
        Ok(Self { daemon, places, python })
    }

    /// The address that it listens at with `scheme`.
    fn url(&self, scheme: &str) -> String {
        let ready = std::fs::read_to_string(self.places.join("ready")).expect("the ready file");
        let wanted = format!("{scheme}://");
        ready.lines().find(|line| line.starts_with(&wanted)).expect("it listens").to_owned()
    }

    /// Runs a client's script.
    fn client(&self, script: &str, arguments: &[&str], scheme: &str, user: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = root.join("clients").join(script);
        let url = self.url(scheme).replace("://", &format!("://{user}@"));
        run(Command::new(&self.python)
            .arg(script)
            .args(arguments)
            .env("PYTHONPATH", root.join("../examples"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYPERV_URL", url)
            .env("HYPERV_PASSWORD", PASSWORD)
            .env("HYPERV_INSECURE", "1"))
        .ok();
    }

    /// Defines a machine with a small disk; its id.
    fn machine(&self, name: &str) -> String {
        let raw = self.daemon.home().join(format!("{name}.img"));
        raw_disk(&raw, 4 << 20, &[(0, 1 << 20)]);
        let disk = format!("{},format=raw", raw.display());
        let made =
            self.daemon.run(["machine", "define", name, "--memory", "64", "--disk", &disk, "--json"]).json();
        made["id"].as_str().expect("an id").to_owned()
    }

    /// How often the audit log tells of that.
    fn audited(&self, does: &str, user: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.data().join("audit.log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["does"] == does && line["user"] == user).collect()
    }
}

#[test]
fn pypsrp_looks_around() {
    let api = need!(Api::start("sim"));
    let id = api.machine("web");
    api.client("look.py", &["web", &id], "https", "ada");
    api.client("look.py", &["web", &id], "http", "ada");
    assert!(!api.audited("sign-in", "ada").is_empty());
}

#[test]
fn pywinrm_gets_an_instance_and_a_fault_for_a_shell() {
    let api = need!(Api::start("sim"));
    let id = api.machine("web");
    api.client("with_winrm.py", &[&id], "https", "ada");
}

#[test]
fn pypsrp_runs_a_machine() {
    let api = need!(Api::start("sim"));
    api.machine("web");
    api.client("run.py", &["web"], "https", "ada");
    assert_eq!(api.daemon.run(["machine", "show", "web", "--json"]).json()["state"], "off");
}

#[test]
fn pypsrp_moves_a_machine_out_and_in() {
    let api = need!(Api::start("sim"));
    api.machine("web");
    api.client("move.py", &["web", r"C:\out"], "https", "ada");
    let package = api.places.join("exports/out/whole");
    api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok();
    assert!(!api.audited("export", "ada").is_empty());
}

#[test]
fn pypsrp_defines_a_machine() {
    let api = need!(Api::start("sim"));
    raw_disk(&api.places.join("exports/made.img"), 4 << 20, &[(0, 4096)]);
    api.client("define.py", &[r"C:\made.img"], "https", "ada");
}

#[test]
fn pypsrp_makes_a_machine_of_defaults() {
    let api = need!(Api::start("sim"));
    for name in ["disk.img", "image.iso"] {
        raw_disk(&api.places.join("exports").join(name), 4 << 20, &[(0, 4096)]);
    }
    api.client("defaults.py", &[r"C:\disk.img", r"C:\image.iso"], "https", "ada");
    let made = api.daemon.run(["machine", "show", "of defaults", "--json"]).json();
    assert_eq!((&made["state"], &made["memory_mib"]), (&"off".into(), &512.into()), "{made}");
    api.daemon.run(["machine", "start", "of defaults"]).ok();
}

/// What the client made is what others read.
#[test]
fn pypsrp_makes_virtual_disks() {
    let api = need!(Api::start("sim"));
    api.client("disks.py", &["C:"], "https", "ada");
    for (name, size) in [
        ("dynamic.vhdx", 96 << 20),
        ("fixed.vhdx", 16 << 20),
        ("4k.vhdx", 64 << 20),
        ("huge.vhdx", 64 << 40),
        ("converted.vhd", 16 << 20),
    ] {
        let file = api.places.join("exports").join(name);
        let report = vhdx::check(&file, &vhdx::CheckOptions::default()).expect("a disk");
        assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
        assert_eq!(report.info.expect("readable").virtual_size, size, "{name}");
    }
}

/// The documentation's walk-throughs, as `examples/` has them, with a real guest between them.
#[test]
fn the_walk_throughs_bring_a_real_guest_in_and_out() {
    let api = need!(Api::start("qemu"));
    let package = need!(package(&api.places.join("exports/brought"), GENERATION_2, "boot-plain.raw"));
    api.client("../../examples/import_machine.py", &[r"C:\brought", "--start"], "https", "ada");
    let guest = Guest::wait(&api.daemon, "Default Generation 2");
    guest.write("api");
    guest.stop();
    let leave = ["Default Generation 2", r"C:\left", "CopySnapshotConfiguration=1"];
    api.client("../../examples/export_machine.py", &leave, "https", "ada");
    let left = api.places.join("exports/left");
    api.daemon.run(["verify".as_ref(), left.as_os_str()]).ok();
    assert!(package.exists(), "what came in is still where it was");

    api.client("../../examples/import_machine.py", &[r"C:\left", "--new-id", "--start"], "https", "ada");
    let machines = api.daemon.run(["machine", "list", "--json"]).json();
    let twin = machines.as_array().into_iter().flatten().find(|machine| machine["state"] == "running");
    let twin = twin.and_then(|machine| machine["id"].as_str()).expect("the one that was started");
    let guest = Guest::wait(&api.daemon, twin);
    guest.holds("api");
    guest.stop();
}

#[test]
fn who_proves_nothing_sees_nothing() {
    need!(oracle::program("curl"));
    let api = need!(Api::start("sim"));
    let identify = concat!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" "#,
        r#"xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">"#,
        "<s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"
    );
    let ask = |scheme: &str, words: &[&str]| {
        let common = ["--silent", "--insecure", "--output", "-", "--write-out", "\n%{http_code}"];
        let header = ["--header", "Content-Type: application/soap+xml;charset=UTF-8", "--data", identify];
        run(Command::new("curl").args(common).args(words).args(header).arg(api.url(scheme))).ok().to_owned()
    };
    let right = format!("ada:{PASSWORD}");
    for scheme in ["http", "https"] {
        assert!(ask(scheme, &["--user", &right]).ends_with("\n200"));
        let refused = ask(scheme, &[]);
        assert_eq!(refused, "\n401", "no body, no hint");
        assert_eq!(ask(scheme, &["--user", "ada:wrong password"]), refused);
        assert_eq!(ask(scheme, &["--user", "nobody:wrong password"]), refused);
        let anonymous = ask(scheme, &["--header", "WSMANIDENTIFY: unauthenticated"]);
        assert!(anonymous.ends_with("\n200") && anonymous.contains("ProductVendor"), "{anonymous}");
    }
    let told = api.audited("sign-in", "nobody");
    assert!(told.len() >= 2 && told.iter().all(|line| line["end"] != "accepted"), "{told:?}");
    // After too many guesses even the right password waits.
    for _ in 0..6 {
        ask("https", &["--user", "ada:guess guess"]);
    }
    assert_eq!(ask("https", &["--user", &right]), "\n401");
}
