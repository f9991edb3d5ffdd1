//! Hyper-V's API as real clients use it: pypsrp, pywinrm and curl, unmodified, over WS-Management.

use harness::api::PASSWORD;
use harness::binary::run;
use harness::guest::{PATTERN_OFFSET, package, pattern};
use harness::scratch::raw_disk;
use harness::{Api, Guest, need, oracle};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";

/// The API for a story with Python's clients.
fn api(engine: &str) -> Result<Api, String> {
    oracle::python_with(&["pypsrp", "winrm"])?;
    Ok(Api::start(engine))
}

#[test]
fn pypsrp_looks_around() {
    let api = need!(api("sim"));
    let id = api.machine("web");
    api.python("look.py", &["web", &id], "https");
    api.python("look.py", &["web", &id], "http");
    assert!(!api.audited("sign-in", "ada").is_empty());
}

#[test]
fn pywinrm_gets_an_instance_and_a_fault_for_a_shell() {
    let api = need!(api("sim"));
    let id = api.machine("web");
    api.python("with_winrm.py", &[&id], "https");
}

#[test]
fn pypsrp_runs_a_machine() {
    let api = need!(api("sim"));
    api.machine("web");
    api.python("run.py", &["web"], "https");
    assert_eq!(api.daemon.run(["machine", "show", "web", "--json"]).json()["state"], "off");
}

#[test]
fn pypsrp_moves_a_machine_out_and_in() {
    let api = need!(api("sim"));
    api.machine("web");
    api.python("move.py", &["web", r"C:\out"], "https");
    let package = api.drive_c("out/whole");
    api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok();
    assert!(!api.audited("export", "ada").is_empty());
}

#[test]
fn pypsrp_ends_jobs_and_reads_what_they_say() {
    let api = need!(api("sim"));
    api.machine("web");
    let fault = ["simulator", "fault", "add", "--job", "export", "--percent", "50", "--stall", "--forever"];
    api.daemon.run(fault).ok();
    let taken = api.drive_c("out/taken");
    std::fs::create_dir_all(&taken).expect("made");
    std::fs::write(taken.join("mine"), "mine").expect("written");
    api.python("jobs.py", &["web", r"C:\out"], "https");
    let left: Vec<_> = std::fs::read_dir(api.drive_c("out")).expect("there").flatten().collect();
    assert_eq!(left.len(), 1, "a cancelled export leaves nothing: {left:?}");
    assert_eq!(std::fs::read(taken.join("mine")).expect("there"), b"mine");
    assert_eq!(api.audited("export", "ada").len(), 4);
    assert!(api.audited("operate", "ada").len() >= 6, "ending a job is operating");
}

#[test]
fn pypsrp_mends_what_a_validation_finds() {
    let api = need!(api("sim"));
    api.machine("web");
    api.daemon.run(["switch", "create", "lan", "--kind", "private"]).ok();
    api.daemon.run(["machine", "set", "web", "--adapter", "0", "--switch", "lan"]).ok();
    let package = api.drive_c("in");
    api.daemon.run(["export".as_ref(), "web".as_ref(), package.as_os_str()]).ok();
    api.daemon.run(["machine", "delete", "web"]).ok();
    api.daemon.run(["switch", "delete", "lan"]).ok();
    let disks = api.drive_c("moved");
    std::fs::rename(package.join("Virtual Hard Disks"), &disks).expect("moved");
    let disk = std::fs::read_dir(&disks).expect("there").flatten().next().expect("a disk").file_name();
    let disk = format!(r"C:\moved\{}", disk.to_str().expect("UTF-8"));
    api.python("mend.py", &[r"C:\in", &disk, "nat"], "https");
    let shown = api.daemon.run(["machine", "show", "mended", "--json"]).json();
    assert_eq!((&shown["processors"], &shown["state"]), (&2.into(), &"off".into()), "{shown}");
}

#[test]
fn pypsrp_defines_a_machine() {
    let api = need!(api("sim"));
    raw_disk(&api.drive_c("made.img"), 4 << 20, &[(0, 4096)]);
    api.python("define.py", &[r"C:\made.img"], "https");
}

#[test]
fn pypsrp_makes_a_machine_of_defaults() {
    let api = need!(api("sim"));
    for name in ["disk.img", "image.iso"] {
        raw_disk(&api.drive_c(name), 4 << 20, &[(0, 4096)]);
    }
    api.python("defaults.py", &[r"C:\disk.img", r"C:\image.iso"], "https");
    let made = api.shown("of defaults");
    assert_eq!((&made["state"], &made["memory_mib"]), (&"off".into(), &512.into()), "{made}");
    api.daemon.run(["machine", "start", "of defaults"]).ok();
}

/// What the client made is what others read.
#[test]
fn pypsrp_makes_virtual_disks() {
    let api = need!(api("sim"));
    api.python("disks.py", &["C:"], "https");
    for (name, size) in [
        ("dynamic.vhdx", 96 << 20),
        ("fixed.vhdx", 16 << 20),
        ("4k.vhdx", 64 << 20),
        ("huge.vhdx", 64 << 40),
        ("converted.vhd", 16 << 20),
    ] {
        let file = api.drive_c(name);
        let report = vhdx::check(&file, &vhdx::CheckOptions::default()).expect("a disk");
        assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
        assert_eq!(report.info.expect("readable").virtual_size, size, "{name}");
    }
}

#[test]
fn pypsrp_is_told_what_happens() {
    let api = need!(api("sim"));
    api.machine("web");
    api.python("events.py", &["web"], "https");
    // What another door does is told of all the same.
    let python = oracle::python_with(&["pypsrp"]).expect("looked for before");
    let mut script = api.command(&python, "../../examples/watch_machines.py", "http");
    let mut watcher = script.stdout(Stdio::piped()).spawn().expect("started");
    let said = BufReader::new(watcher.stdout.take().expect("piped"));
    let mut said = said.lines().map(|line| line.expect("a line"));
    assert_eq!(said.next().as_deref(), Some("watching"));
    api.machine("second");
    assert_eq!(said.next().as_deref(), Some("second is new"));
    api.daemon.run(["machine", "start", "second"]).ok();
    assert!(said.any(|line| line.starts_with("second was ") && line.ends_with(", is running")));
    watcher.kill().expect("killed");
    watcher.wait().expect("ended");
}

/// Two disks that a client made, a guest that writes to the first, and both back.
#[test]
fn pypsrp_gives_virtual_disks_to_a_machine_and_takes_them_back() {
    let api = need!(api("sim"));
    let reader = need!(oracle::python_with(&["pyvhdi"]));
    api.python("attach.py", &["attach", "guest", r"C:\first.vhdx", r"C:\second.vhdx"], "https");
    Guest::wait(&api.daemon, "guest").write("api");
    api.python("attach.py", &["detach", "guest", r"C:\first.vhdx", r"C:\second.vhdx"], "https");
    let raw = api.place("expected.raw");
    std::fs::write(&raw, b"").expect("made");
    let file = std::fs::File::options().write(true).open(&raw).expect("opened");
    file.set_len(160 << 20).expect("sized");
    assert_eq!(oracle::libvhdi(&reader, &api.drive_c("second.vhdx")).sha256, oracle::sha256_file(&raw));
    std::os::unix::fs::FileExt::write_all_at(&file, &pattern("api"), PATTERN_OFFSET).expect("written");
    assert_eq!(oracle::libvhdi(&reader, &api.drive_c("first.vhdx")).sha256, oracle::sha256_file(&raw));
    let left = std::fs::read_dir(api.drive_c("")).expect("read").count();
    assert_eq!(left, 2, "nothing else is there");
}

/// A real guest boots from a client's VHDX, and what it writes is in that file when the client has it back.
#[test]
fn a_real_guest_lives_in_a_clients_vhdx() {
    let api = need!(api("qemu"));
    let reader = need!(oracle::python_with(&["pyvhdi"]));
    let boot = need!(harness::guest::image("boot-plain.raw"));
    let (raw, disk) = (api.place("boot.raw"), api.drive_c("boot.vhdx"));
    std::fs::copy(boot, &raw).expect("copied");
    std::fs::File::options().write(true).open(&raw).and_then(|f| f.set_len(256 << 20)).expect("grown");
    harness::binary::offline(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), disk.as_os_str()]).ok();
    api.python("attach.py", &["attach", "guest", r"C:\boot.vhdx"], "https");
    let guest = Guest::wait(&api.daemon, "guest");
    guest.write("api");
    guest.holds("api");
    api.python("attach.py", &["detach", "guest", r"C:\boot.vhdx"], "https");
    let piece = oracle::libvhdi_pieces(&reader, &disk, &[PATTERN_OFFSET], 1 << 20);
    assert_eq!(piece, [oracle::sha256(&pattern("api")[..1 << 20])]);
}

/// What a client does to networks is what the commands tell of them.
#[test]
fn pypsrp_makes_a_network_and_plugs_a_machine_into_it() {
    let api = need!(api("sim"));
    api.machine("web");
    let step = |step: &str| api.python("network.py", &["web", step], "https");
    let show = |words: &[&str]| api.daemon.run(words).json();
    step("connect");
    let switch = show(&["switch", "show", "lab", "--json"]);
    assert_eq!((&switch["kind"], &switch["notes"]), (&"private".into(), &"by a client".into()));
    let machine = show(&["machine", "show", "web", "--json"]);
    let adapter = &machine["adapters"][0];
    assert_eq!((&adapter["switch"], &adapter["vlan"]), (&"lab".into(), &42.into()));
    assert_eq!(adapter["mac"], "00:15:5d:00:00:2a");
    assert_eq!(machine["state"], "running");
    step("rename");
    let machine = show(&["machine", "show", "web", "--json"]);
    assert_eq!(machine["adapters"][0]["switch"], "office");
    step("disconnect");
    let switches = show(&["switch", "list", "--json"]);
    let names: Vec<_> = switches.as_array().into_iter().flatten().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["nat"]);
    assert_eq!(show(&["machine", "show", "web", "--json"])["adapters"][0]["switch"], serde_json::Value::Null);
}

/// The documentation's walk-throughs, as `examples/` has them, with a real guest between them.
#[test]
fn the_walk_throughs_bring_a_real_guest_in_and_out() {
    let api = need!(api("qemu"));
    let package = need!(package(&api.drive_c("brought"), GENERATION_2, "boot-plain.raw"));
    api.python("../../examples/import_machine.py", &[r"C:\brought", "--start"], "https");
    let guest = Guest::wait(&api.daemon, "Default Generation 2");
    guest.write("api");
    guest.stop();
    let leave = ["Default Generation 2", r"C:\left", "CopySnapshotConfiguration=1"];
    api.python("../../examples/export_machine.py", &leave, "https");
    let left = api.drive_c("left");
    api.daemon.run(["verify".as_ref(), left.as_os_str()]).ok();
    assert!(package.exists(), "what came in is still where it was");

    api.python("../../examples/import_machine.py", &[r"C:\left", "--new-id", "--start"], "https");
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
    let api = Api::start("sim");
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
