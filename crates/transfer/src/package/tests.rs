//! What people point at: packages of every layout, and everything that is none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;

const ID: &str = "993F7B33-6057-4D1E-A1FE-A1A1D77BE974";
const XML: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-16\"?><configuration/>";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[&str]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for file in files {
            dir.file(file, b"x");
        }
        dir
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Canonical, as packages answer.
    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn open(&self, name: &str) -> Result<Package, OpenError> {
        Package::open(&self.path(name))
    }

    fn refused(&self, name: &str) -> OpenError {
        self.open(name).unwrap_err()
    }
}

fn vmcx() -> String {
    format!("Virtual Machines/{ID}.vmcx")
}

/// A disk by content, not only by name.
fn disk(dir: &Dir, name: &str) {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(b"vhdxfile");
    dir.file(name, &bytes);
}

#[test]
fn a_package_of_2016_and_later() {
    let dir = Dir::new(&[
        &format!("p/{}", vmcx()),
        &format!("p/Virtual Machines/{ID}.VMRS"),
        &format!("p/Virtual Machines/{ID}.vmgs"),
        "p/Virtual Hard Disks/Größe 機械.vhdx",
        "p/Virtual Hard Disks/notes.txt",
        "p/Virtual Hard Disks/Old_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx",
        "p/Snapshots/49C4BAF3-4B25-4406-8C4B-D39E65C32385.vmcx",
        "p/Snapshots/49C4BAF3-4B25-4406-8C4B-D39E65C32385.vmrs",
    ]);
    // The package, its `Virtual Machines`, and the configuration itself all mean the same.
    for name in ["p", "p/Virtual Machines", &format!("p/{}", vmcx())] {
        let package = dir.open(name).unwrap();
        assert_eq!(package.root, dir.path("p"));
        assert_eq!(package.layout, Layout::HyperV);
        assert_eq!(package.configuration.kind, ConfigKind::Vmcx);
        assert_eq!(package.configuration.id, Some(ID.parse().unwrap()));
        assert_eq!(package.configuration.runtime_state.as_ref().unwrap().size, 1);
        assert!(package.configuration.guest_state.is_some());
        assert_eq!(package.snapshots.len(), 1);
        assert!(package.snapshots[0].runtime_state.is_some());
        assert!(package.snapshots[0].guest_state.is_none());
        let names: Vec<_> = package.disks.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["Größe 機械.vhdx", "Old_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx"]);
        assert!(package.manifest.is_none());
    }
}

#[test]
fn older_and_stranger_layouts() {
    // 2012 R2, saved, and copied by something that changed the case of all names.
    let xml = format!("virtual machines/{}.XML", ID.to_lowercase());
    let dir = Dir::new(&[
        &xml,
        &format!("virtual machines/{ID}/{ID}.bin"),
        &format!("virtual machines/{ID}/{ID}.vsv"),
        "VIRTUAL HARD DISKS/a.VHD",
    ]);
    let package = dir.open("").unwrap();
    assert_eq!(package.configuration.kind, ConfigKind::Xml);
    assert_eq!(package.configuration.saved_state.len(), 2);
    assert_eq!(package.disks[0].name, "a.VHD");

    // 2008: config.xml at the top says nothing about the machine.
    let dir = Dir::new(&["config.xml", &format!("Virtual Machines/{ID}.exp")]);
    assert_eq!(dir.open("").unwrap().configuration.kind, ConfigKind::Exp);

    // An unpacked Vagrant box: any XML file name.
    let dir = Dir::new(&["metadata.json", "Virtual Hard Disks/box.vhd"]);
    dir.file("Virtual Machines/vm.XML", XML);
    dir.file("Virtual Machines/readme.xml", b"<readme/>");
    let package = dir.open("").unwrap();
    assert_eq!(package.layout, Layout::Vagrant);
    assert!(package.configuration.path.ends_with("Virtual Machines/vm.XML"));
    assert_eq!(package.configuration.id, None);

    // A configuration in a heap of files.
    let dir = Dir::new(&["heap/disk.vhdx"]);
    dir.file("heap/machine.xml", XML);
    let package = dir.open("heap/machine.xml").unwrap();
    assert_eq!((package.layout, package.disks.len()), (Layout::Loose, 1));
    assert_eq!(dir.open("heap").unwrap().configuration, package.configuration);

    // Both forms of one machine: the newer counts.
    let dir = Dir::new(&[&vmcx(), &format!("Virtual Machines/{ID}.xml")]);
    assert_eq!(dir.open("").unwrap().configuration.kind, ConfigKind::Vmcx);
}

#[test]
fn what_is_no_package_says_what_it_is_and_what_to_do() {
    let dir = Dir::new(&["empty/x", "text.txt", "some where/disk.vhdx", "cd.iso", "texts/a.txt"]);
    fs::remove_file(dir.path("empty/x")).unwrap();
    disk(&dir, "alone.avhdx");
    let cases = [
        ("nowhere", NotPackage::Missing, "there is nothing here", None),
        ("empty", NotPackage::Nothing, "empty", None),
        ("text.txt", NotPackage::File, "no kind", Some("Virtual Machines")),
        ("cd.iso", NotPackage::File, "CD image", None),
        ("some where", NotPackage::Nothing, "no configuration", Some("slipway disk info '")),
        ("alone.avhdx", NotPackage::Disk, "it is a disk", Some("slipway disk info /")),
        ("", NotPackage::Nothing, "has disks, but no configuration", Some("slipway disk info /")),
        ("texts", NotPackage::Nothing, "no machine configuration", Some("Export")),
    ];
    for (name, reason, said, hint) in cases {
        let error = dir.refused(name);
        assert_eq!(error.reason(), reason, "{name}");
        let text = error.to_string();
        assert!(text.contains(said) && text.contains(&*dir.path(name).to_string_lossy()), "{text}");
        if let Some(hint) = hint {
            assert!(error.advice().unwrap().contains(hint), "{name}: {:?}", error.advice());
        }
    }
}

#[test]
fn one_level_too_high_lists_what_was_meant() {
    let dir = Dir::new(&[
        &format!("all/web 1/{}", vmcx()),
        &format!("all/db/{}", vmcx()),
        &format!("all/half.partial/{}", vmcx()),
        "all/readme/x.txt",
    ]);
    let error = dir.refused("all");
    assert_eq!(error.reason(), NotPackage::OneLevelTooHigh);
    assert_eq!(error.alternatives(), [dir.path("all/db"), dir.path("all/web 1")]);
    let advice = error.advice().unwrap();
    assert_eq!(advice.lines().count(), 2);
    assert!(advice.lines().nth(1).unwrap().ends_with("web 1'"), "{advice}");
    assert_eq!(find_packages(&dir.path("")).unwrap(), [dir.path("all/db"), dir.path("all/web 1")]);
    // The command in the advice works as it stands.
    let argument = advice.lines().nth(1).unwrap().strip_prefix("slipway inspect ").unwrap();
    let echoed = Command::new("sh").arg("-c").arg(format!("printf %s {argument}")).output().unwrap();
    assert_eq!(PathBuf::from(String::from_utf8(echoed.stdout).unwrap()), dir.path("all/web 1"));
}

#[test]
fn several_machines_in_one_package_are_listed() {
    let other = "Virtual Machines/00000000-0000-0000-0000-000000000001.xml";
    let dir = Dir::new(&[&vmcx(), other]);
    let error = dir.refused("");
    assert_eq!(error.reason(), NotPackage::SeveralConfigurations);
    assert_eq!(error.alternatives().len(), 2);
    assert!(error.to_string().contains("2 machines"), "{error}");
    assert!(dir.open(other).is_ok());
    assert_eq!(find_packages(&dir.path("")).unwrap().len(), 2);
}

#[test]
fn a_disk_or_state_of_a_package_leads_to_it() {
    let dir = Dir::new(&[&vmcx(), &format!("Virtual Machines/{ID}.vmrs")]);
    disk(&dir, "Virtual Hard Disks/a.avhdx");
    let error = dir.refused("Virtual Hard Disks/a.avhdx");
    assert_eq!((error.reason(), error.alternatives()), (NotPackage::Disk, &[dir.path("")][..]));
    let error = dir.refused(&format!("Virtual Machines/{ID}.vmrs"));
    assert_eq!(error.reason(), NotPackage::State);
    assert!(error.advice().unwrap().contains("slipway inspect"));
}

#[test]
fn unfinished_exports_are_refused() {
    let dir =
        Dir::new(&[&format!("x.partial/{}", vmcx()), &format!("y/{}", vmcx()), "y/Slipway/progress.json"]);
    for name in ["x.partial", "x.partial/Virtual Machines", &format!("x.partial/{}", vmcx()), "y"] {
        let error = dir.refused(name);
        assert_eq!(error.reason(), NotPackage::Partial, "{name}");
        assert!(error.advice().unwrap().contains("rm -r"));
    }
    // Left over in a complete one it means nothing.
    dir.file("y/Slipway/manifest.json", b"{}");
    assert!(dir.open("y").unwrap().manifest.is_some());
}

#[test]
fn links_out_of_the_package_are_not_followed() {
    let dir = Dir::new(&["outside/secret.vhdx", "outside/m.vmcx", &format!("p/{}", vmcx())]);
    fs::create_dir_all(dir.path("p/Virtual Hard Disks")).unwrap();
    symlink(dir.path("outside/secret.vhdx"), dir.path("p/Virtual Hard Disks/a.vhdx")).unwrap();
    symlink("/dev/zero", dir.path("p/Virtual Hard Disks/b.vhdx")).unwrap();
    symlink("../nowhere", dir.path("p/Virtual Hard Disks/c.vhdx")).unwrap();
    dir.file("p/inside.vhdx", b"x");
    symlink("../inside.vhdx", dir.path("p/Virtual Hard Disks/d.vhdx")).unwrap();
    let package = dir.open("p").unwrap();
    // d.vhdx is inside.vhdx: one file, listed once.
    assert_eq!(package.disks.len(), 1, "{:?}", package.disks);
    assert_eq!(package.disks[0].path, dir.path("p/inside.vhdx"));
    for (name, found) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        let resolved = package.resolve_disk(&format!(r"C:\x\{name}.vhdx"), &[]);
        assert_eq!(resolved.is_ok(), found, "{name}: {resolved:?}");
    }
    let error = package.resolve_disk(r"C:\x\a.vhdx", &[]).unwrap_err();
    assert!(error.to_string().contains("outside the package"), "{error}");
    // The user may say where the disk is.
    let found = package.resolve_disk(r"C:\x\secret.vhdx", &[dir.path("outside")]).unwrap();
    assert_eq!(found, dir.path("outside/secret.vhdx"));

    // The configuration itself, and its directory.
    let dir = Dir::new(&["outside/m.vmcx", "p/x", "q/x"]);
    fs::create_dir_all(dir.path("p/Virtual Machines")).unwrap();
    symlink(dir.path("outside/m.vmcx"), dir.path(&format!("p/{}", vmcx()))).unwrap();
    symlink(dir.path("outside"), dir.path("q/Virtual Machines")).unwrap();
    for name in ["p", "q"] {
        assert_eq!(dir.refused(name).reason(), NotPackage::Escapes, "{name}");
    }
    // A link loop is nothing, not a hang.
    symlink(dir.path("loop"), dir.path("loop")).unwrap();
    assert!(dir.open("loop").is_err());
}

#[test]
fn disks_are_found_by_windows_paths() {
    let dir = Dir::new(&[
        &vmcx(),
        "Virtual Hard Disks/Größe 機械.vhdx",
        "Virtual Hard Disks/sub/twin.vhdx",
        "Virtual Hard Disks/twin.vhdx",
        "Virtual Hard Disks/Case.vhdx",
        "Virtual Hard Disks/case.vhdx",
        "top.vhdx",
        "Virtual Machines/beside.vhd",
    ]);
    fs::create_dir_all(dir.path("Virtual Hard Disks/dir.vhdx")).unwrap();
    let package = dir.open("").unwrap();
    let found = |wanted: &str| {
        package
            .resolve_disk(wanted, &[])
            .map(|p| p.strip_prefix(dir.path("")).unwrap().to_string_lossy().into_owned())
    };
    let disks = [
        (r"C:\VMs\Größe 機械.vhdx", "Virtual Hard Disks/Größe 機械.vhdx"),
        (r"c:\vms\GRÖSSE 機械.VHDX", "-"), // ß and SS are two names to Windows as well.
        (r"C:\VMs\GRÖßE 機械.VHDX", "Virtual Hard Disks/Größe 機械.vhdx"),
        (r"\\nas\share\sub\twin.vhdx", "Virtual Hard Disks/sub/twin.vhdx"),
        (r"D:\other\twin.vhdx", "Virtual Hard Disks/twin.vhdx"),
        (r"\\?\Volume{4c1b02c1}\Case.vhdx", "Virtual Hard Disks/Case.vhdx"),
        (r"D:/a/case.vhdx", "Virtual Hard Disks/case.vhdx"),
        (r"D:\CASE.vhdx", "-"), // Two files would do.
        (r"E:\top.vhdx", "top.vhdx"),
        (r"C:beside.vhd", "Virtual Machines/beside.vhd"),
        (r"C:\dir.vhdx", "-"),
        (r"C:\gone.vhdx", "-"),
    ];
    for (wanted, expected) in disks {
        match found(wanted) {
            Ok(path) => assert_eq!(path, expected, "{wanted}"),
            Err(error) => {
                assert_eq!(expected, "-", "{wanted}: {error}");
                assert!(!error.tried.is_empty() && error.to_string().contains(wanted));
            }
        }
    }
    for bad in ["", "..", r"C:\", r"C:\..\..\etc\passwd", r"..\..\x.vhdx", "a\0b.vhdx", r"C:\x\.."] {
        assert!(found(bad).is_err(), "{bad:?}");
    }
    assert!(found(&"x".repeat(300)).is_err());
    // Where the user says comes first, and must exist.
    let elsewhere = Dir::new(&["twin.vhdx"]);
    let resolved = package.resolve_disk(r"C:\twin.vhdx", &[elsewhere.path("")]).unwrap();
    assert_eq!(resolved, elsewhere.path("twin.vhdx"));
    let error = package.resolve_disk(r"C:\gone.vhdx", &["/no/such".into()]).unwrap_err();
    assert!(error.to_string().contains("`/no/such` (no such directory)"), "{error}");
}

#[test]
fn an_unreadable_directory_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new(&[&format!("p/{}", vmcx())]);
    let machines = dir.path("p/Virtual Machines");
    fs::set_permissions(&machines, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&machines).is_ok() {
        eprintln!("skipped: root reads everything");
    } else {
        assert_eq!(dir.refused("p").kind(), FaultKind::Denied);
    }
    fs::set_permissions(&machines, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn more_checkpoints_than_any_machine_has_are_not_read() {
    let dir = Dir::new(&[&vmcx()]);
    for n in 0..=MAX_SNAPSHOTS {
        dir.file(&format!("Snapshots/{n}.vmcx"), b"x");
    }
    assert_eq!(dir.refused("").reason(), NotPackage::TooLarge);
    fs::remove_file(dir.path("Snapshots/0.vmcx")).unwrap();
    assert_eq!(dir.open("").unwrap().snapshots.len(), MAX_SNAPSHOTS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever a configuration says, what comes back lies inside.
    #[test]
    fn no_path_leads_outside(wanted in r"[C:\\/. a-c]{0,40}(\.\.[\\/]){0,3}[a-c.\\/]{0,6}") {
        let dir = Dir::new(&[&format!("p/{}", vmcx()), "a", "p/a", "p/b/a", "p/Virtual Hard Disks/c"]);
        let package = dir.open("p").unwrap();
        if let Ok(found) = package.resolve_disk(&wanted, &[]) {
            prop_assert!(fs::canonicalize(&found).unwrap().starts_with(dir.path("p")));
            prop_assert!(found.is_file());
        }
    }

    #[test]
    fn windows_paths_are_split_without_fear(path in any::<String>()) {
        prop_assert!(windows_components(&path).all(|name| !name.contains(['\\', '/'])));
    }
}

#[test]
fn real_configurations_are_recognised() {
    let Some(samples) = std::env::var_os("SLIPWAY_SAMPLES") else {
        eprintln!("skipped: SLIPWAY_SAMPLES is not set");
        return;
    };
    let samples = Path::new(&samples);
    for (name, kind) in [
        (format!("vmcx/{ID}.vmcx"), ConfigKind::Vmcx),
        ("xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml".into(), ConfigKind::Xml),
        ("xml/mwrock-vm.XML".into(), ConfigKind::Xml),
    ] {
        let package = Package::open(&samples.join(&name)).unwrap();
        assert_eq!((package.configuration.kind, package.layout), (kind, Layout::Loose), "{name}");
        // Whatever it is called.
        let dir = Dir::new(&[]);
        let copy = dir.path("renamed");
        fs::copy(samples.join(&name), &copy).unwrap();
        assert_eq!(Package::open(&copy).unwrap().configuration.kind, kind, "{name}");
    }
    assert_eq!(
        Package::open(&samples.join("vhd/hyperv2012r2-dynamic.vhd")).unwrap_err().reason(),
        NotPackage::Disk
    );
}
