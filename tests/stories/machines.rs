//! Machines that Hyper-V configured come up here with a real guest in them, work, leave as packages, and come back.

#![expect(clippy::print_stdout, reason = "tests talk to the person who runs them")]

use harness::binary::offline;
use harness::scratch::{noise, snapshot};
use harness::{Daemon, Guest, guest, need, oracle};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

const GENERATION_1: &str = "vmcx/EC04F346-DB96-4700-AF5B-77B3C56C38BD.vmcx";
const GENERATION_2: &str = "vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
const GENERATION_2_XML: &str = "xml/D351C151-DAC7-4042-B434-B72D522C1E4A.xml";

/// A guest without one virtio driver, imported with default options: in, work, out, verified, in again, confirmed.
fn round_trip(configuration: &str, name: &str) {
    let daemon = Daemon::start();
    let package = need!(guest::package(&daemon.home().join("in"), configuration, "boot-plain.raw"));
    let before = snapshot(&package);
    daemon.run(["import".as_ref(), package.as_os_str()]).ok();
    let guest = Guest::start(&daemon, name);
    guest.write("there");
    guest.stop();
    let out = daemon.home().join("out");
    daemon.run(["export".as_ref(), name.as_ref(), out.as_os_str()]).ok();
    assert_eq!(snapshot(&package), before, "the import wrote into the package");
    daemon.run(["verify".as_ref(), out.as_os_str()]).ok();
    unchanged_but_for(&package, &out, &[]);

    daemon
        .run(["import".as_ref(), out.as_os_str(), "--new-id".as_ref(), "--name".as_ref(), "again".as_ref()])
        .ok();
    let guest = Guest::start(&daemon, "again");
    guest.holds("there");
    guest.stop();
}

#[test]
fn a_generation_2_machine_goes_round() {
    round_trip(GENERATION_2, "Default Generation 2");
}

#[test]
fn a_generation_1_machine_goes_round() {
    round_trip(GENERATION_1, "Default Generation 1");
}

/// The configuration of a package as entries with their paths, in order.
fn configuration(package: &Path) -> Vec<(String, String)> {
    fn walk(entries: &Value, path: &str, out: &mut Vec<(String, String)>) {
        for entry in entries.as_array().into_iter().flatten() {
            let path = format!("{path}/{}", entry["name"].as_str().unwrap_or_default());
            if entry["type"] == "node" {
                out.push((path.clone(), "node".to_owned()));
                walk(&entry["children"], &path, out);
            } else {
                out.push((path, format!("{} {}", entry["type"], entry["value"])));
            }
        }
    }
    let folder = package.join("Virtual Machines");
    let file = std::fs::read_dir(folder).expect("a package").flatten().map(|e| e.path()).find(|p| {
        p.extension().is_some_and(|e| e.eq_ignore_ascii_case("vmcx") || e.eq_ignore_ascii_case("xml"))
    });
    let file = file.expect("a configuration");
    let mut out = Vec::new();
    walk(
        &offline(["config".as_ref(), "dump".as_ref(), file.as_os_str(), "--json".as_ref()]).json(),
        "",
        &mut out,
    );
    out
}

/// A machine that came in from Hyper-V leaves with the configuration it had, but for the keys listed here.
#[track_caller]
fn unchanged_but_for(original: &Path, exported: &Path, also: &[&str]) {
    // Where a disk is, and nothing else, is another matter on the way back.
    const PLACES: [&str; 1] = ["/pathname"];
    let (before, after) = (configuration(original), configuration(exported));
    let changed: Vec<String> = before
        .iter()
        .filter(|e| !after.contains(e))
        .map(|(path, value)| format!("- {path} = {value}"))
        .chain(
            after.iter().filter(|e| !before.contains(e)).map(|(path, value)| format!("+ {path} = {value}")),
        )
        .collect();
    for line in &changed {
        println!("{line}");
        let path = line[2..].split(" = ").next().unwrap_or_default();
        let expected = PLACES.iter().any(|p| path.ends_with(p)) || also.iter().any(|p| path.ends_with(p));
        assert!(expected, "this key had no reason to change: {line}\nall changes:\n{}", changed.join("\n"));
    }
}

/// The firmware of the old host knew where the loader is; the new one is told, because nothing is in `EFI/BOOT`.
#[test]
fn a_loader_only_in_efi_debian_is_found() {
    let daemon = Daemon::start();
    for (n, configuration) in [GENERATION_2, GENERATION_2_XML].into_iter().enumerate() {
        let folder = daemon.home().join(format!("in{n}"));
        let package = need!(guest::package(&folder, configuration, "boot-debian.raw"));
        let name = format!("debian{n}");
        daemon.run(["import".as_ref(), package.as_os_str(), "--name".as_ref(), name.as_ref()]).ok();
        let guest = Guest::start(&daemon, &name);
        assert!(guest.ready.contains("efi=1"), "{}", guest.ready);
        guest.stop();
    }
}

/// Debian's kernel for clouds has no AHCI: it gets a bus that it has a driver for, without being asked for.
#[test]
fn a_generation_2_guest_with_a_cloud_kernel_boots_with_default_options() {
    let daemon = Daemon::start();
    let package = need!(guest::package(&daemon.home().join("in"), GENERATION_2, "boot.raw"));
    let report = daemon.run(["import".as_ref(), package.as_os_str(), "--dry-run".as_ref()]);
    assert!(report.ok().contains("it gets NVMe and virtio-net"), "{report}");
    daemon.run(["import".as_ref(), package.as_os_str(), "--name".as_ref(), "cloud".as_ref()]).ok();
    let guest = Guest::start(&daemon, "cloud");
    assert!(guest.ready.contains("efi=1") && guest.ready.contains("nvme0n1:"), "{}", guest.ready);
    guest.stop();
}

/// A guest on NAT reaches a server on the host; the same machine imported with `--disconnected` does not.
#[test]
fn a_guest_on_nat_reaches_the_host_and_a_disconnected_one_does_not() {
    let daemon = Daemon::start();
    let package = need!(guest::package(&daemon.home().join("in"), GENERATION_2, "boot-plain.raw"));
    daemon.run(["import".as_ref(), package.as_os_str(), "--name".as_ref(), "first".as_ref()]).ok();

    // Hyper-V's own machine is not plugged in anywhere: plug it into NAT here, and take it away with that.
    daemon.run(["machine", "set", "first", "--adapter", "0", "--switch", "nat"]).ok();
    let content = noise(1, 300_000);
    let url = serve_once(content.clone());
    let guest = Guest::start(&daemon, "first");
    assert!(guest.ask("net", "NET-").contains("NET-UP"), "no address over NAT:\n{}", guest.console());
    let got = guest.ask(&format!("get {url}"), "GET-");
    assert!(got.contains(&format!("GET-OK {} {}", oracle::sha256(&content), content.len())), "{got}");
    guest.stop();

    let out = daemon.home().join("out");
    daemon.run(["export".as_ref(), "first".as_ref(), out.as_os_str()]).ok();
    let options = ["--new-id", "--name", "alone", "--disconnected"].map(std::ffi::OsStr::new);
    daemon.run(["import".as_ref(), out.as_os_str()].into_iter().chain(options)).ok();
    let guest = Guest::start(&daemon, "alone");
    assert!(guest.ready.contains("net="), "{}", guest.ready);
    let answer = guest.ask("net", "NET-");
    assert!(answer.contains("NET-DOWN"), "a disconnected guest has an address: {answer}");
    guest.stop();
}

/// Serves `content` to whoever asks; the address is the one under which a guest on NAT sees this host.
fn serve_once(content: Vec<u8>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let head =
                format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    format!("http://10.0.2.2:{port}/")
}
