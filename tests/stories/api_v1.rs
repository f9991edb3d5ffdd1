//! Hyper-V's classes of 2008 as a real client uses them: the walk-throughs of their documentation, out and in again.

use harness::api::{Api, PASSWORD};
use harness::binary::{Ran, run};
use harness::guest::package;
use harness::{Guest, need, oracle};
use std::path::{Path, PathBuf};
use std::process::Command;

const GENERATION_1: &str = "xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml";

/// Runs one of the examples, whatever comes of it.
fn example(api: &Api, python: &Path, script: &str, arguments: &[&str]) -> Ran {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    run(Command::new(python)
        .arg(examples.join(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HYPERV_URL", api.url("https").replace("://", "://ada@"))
        .env("HYPERV_PASSWORD", PASSWORD)
        .env("HYPERV_INSECURE", "1"))
}

fn python() -> Result<PathBuf, String> {
    oracle::program("qemu-img")?;
    oracle::python_with(&["pypsrp"])
}

/// The configuration in a package, by its ending.
fn configuration(package: &Path) -> String {
    let names = package.join("Virtual Machines").read_dir().expect("a package").flatten();
    let endings = names.map(|e| e.path().extension().unwrap_or_default().to_string_lossy().into_owned());
    endings.filter(|ending| ending == "exp" || ending == "xml").collect()
}

#[test]
fn the_walk_throughs_of_2008_run_to_the_end() {
    let python = need!(python());
    let api = Api::start("sim");
    let ran = |script: &str, arguments: &[&str]| example(&api, &python, script, arguments);
    let made = [
        "machine",
        "define",
        "web",
        "--generation",
        "1",
        "--memory",
        "64",
        "--new-disk",
        "8M",
        "--switch",
        "nat",
    ];
    api.daemon.run(made).ok();
    ran("v1_export.py", &["web", r"C:\out"]).ok();
    let package = api.drive_c("out/web");
    assert!(package.join("config.xml").exists());
    assert_eq!(configuration(&package), "exp");
    api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok();
    api.daemon.run(["inspect".as_ref(), package.as_os_str()]).ok();
    // Where settings say, and the configuration alone.
    ran("v1_export.py", &["web", r"C:\bare", "CopyVmStorage=false"]).ok();
    assert_eq!(configuration(&api.drive_c("bare")), "exp");

    // It is here already, so the job says that there is one of that id.
    let twin = ran("v1_import.py", &[r"C:\out\web"]).refused().to_owned();
    assert!(twin.contains("already"), "{twin}");
    assert_eq!(configuration(&package), "exp", "what failed used nothing up");

    api.daemon.run(["machine", "delete", "web", "--yes"]).ok();
    ran("v1_import.py", &[r"C:\out\web"]).ok();
    assert!(api.has("web"));
    assert_eq!(configuration(&package), "xml", "it is the machine's now");
    let verified = api.daemon.run(["verify".as_ref(), package.as_os_str()]).ok().to_owned();
    assert!(verified.contains("imported in place"), "{verified}");

    // Once, unless it is another machine.
    let again = ran("v1_import.py", &[r"C:\out\web"]).refused().to_owned();
    assert!(again.contains("32773"), "{again}");
    ran("v1_import.py", &[r"C:\out\web", "--new-id"]).ok();
    let all = api.daemon.run(["machine", "list", "--json"]).json();
    assert_eq!(all.as_array().map(Vec::len), Some(2));

    // A copy, in other folders, under another name, on a switch of this host.
    ran(
        "v1_import.py",
        &[
            r"C:\out\web",
            "Name=copy",
            r"TargetVmDataRoot=C:\machines",
            r"TargetResourcePaths=C:\disks\system.vhdx",
            "TargetNetworkConnections=nat",
        ],
    )
    .ok();
    let copy = api.shown("copy");
    assert!(copy.to_string().contains("exports/disks/system.raw"), "{copy}");
    assert!(api.drive_c("machines").read_dir().expect("its folder").next().is_some());

    // What v1 wrote comes in by v2, and the other way around.
    ran("v1_export.py", &["copy", r"C:\again"]).ok();
    api.daemon.run(["machine", "delete", "copy", "--yes"]).ok();
    ran("import_machine.py", &[r"C:\again\copy"]).ok();
    ran("export_machine.py", &["copy", r"C:\new"]).ok();
    api.daemon.run(["machine", "delete", "copy", "--yes"]).ok();
    ran("v1_import.py", &[r"C:\new"]).ok();
    assert!(api.has("copy"));
    assert!(!api.audited("export", "ada").is_empty());
}

/// The same with a real guest, whose content comes along.
#[test]
fn a_real_guest_goes_out_and_in_as_in_2008() {
    let python = need!(python());
    let api = Api::start("qemu");
    need!(package(&api.drive_c("brought"), GENERATION_1, "boot-plain.raw"));
    let ran = |script: &str, arguments: &[&str]| example(&api, &python, script, arguments);
    ran("v1_import.py", &[r"C:\brought"]).ok();
    api.daemon.run(["machine", "start", "Default Generation 1"]).ok();
    let guest = Guest::wait(&api.daemon, "Default Generation 1");
    guest.write("2008");
    guest.stop();
    ran("v1_export.py", &["Default Generation 1", r"C:\left"]).ok();
    let left = api.drive_c("left/Default Generation 1");
    api.daemon.run(["verify".as_ref(), left.as_os_str()]).ok();
    api.daemon.run(["machine", "delete", "Default Generation 1", "--yes"]).ok();
    ran("v1_import.py", &[r"C:\left\Default Generation 1"]).ok();
    api.daemon.run(["machine", "start", "Default Generation 1"]).ok();
    let guest = Guest::wait(&api.daemon, "Default Generation 1");
    guest.holds("2008");
    guest.stop();
}
