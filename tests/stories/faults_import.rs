//! Whatever is given to the commands that read: damaged files of every kind we know, things that are no files, and
//! configurations that point where they must not. Each is refused with path, reason and a way on, or read; nothing
//! crashes, hangs, leaves the package or grows without bound.

use harness::binary::run;
use harness::hostile::{Watched, copy_folder, damaged, is_root, member, package, slipway_watched, watched};
use harness::scratch::{raw_disk, snapshot};
use harness::{Daemon, Scratch, need, oracle, slipway};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most memory that any command may take, in MiB, whatever the file says.
const MEMORY: u64 = 256;

fn simulated() -> Daemon {
    Daemon::with(&["--engine", "sim"])
}

#[track_caller]
fn bounded(watched: &Watched) {
    assert!(watched.peak_mib < MEMORY, "{} MiB: {}", watched.peak_mib, watched.ran);
}

/// Runs words with a path at the end.
fn on(words: &[&str], path: &Path) -> Watched {
    slipway_watched(words.iter().map(OsStr::new).chain([path.as_os_str()]))
}

const DISK_COMMANDS: [&[&str]; 5] = [
    &["disk", "info"],
    &["disk", "map"],
    &["disk", "check"],
    &["disk", "hash"],
    &["disk", "hash", "--lenient", "--missing-parent=zero"],
];

/// Every offline command on a disk file.
#[track_caller]
fn every_disk_command(path: &Path) {
    for words in DISK_COMMANDS {
        let done = on(words, path);
        done.ran.survived(path);
        bounded(&done);
    }
    let target = path.with_file_name("converted.raw");
    let words = ["disk".as_ref(), "convert".as_ref(), path.as_os_str(), target.as_os_str()];
    let done = slipway_watched(words);
    done.ran.survived(path);
    bounded(&done);
    assert_eq!(
        target.exists(),
        done.ran.code == Some(0),
        "a refused conversion left something: {}",
        done.ran
    );
    let _ = fs::remove_file(target);
}

/// Every offline command on a configuration file.
#[track_caller]
fn every_configuration_command(path: &Path) {
    for words in [&["config", "dump"][..], &["config", "dump", "--json"], &["inspect"], &["verify"]] {
        let done = on(words, path);
        done.ran.survived(path);
        bounded(&done);
    }
    let target = path.with_file_name("rewritten");
    let words = ["config".as_ref(), "rewrite".as_ref(), path.as_os_str(), target.as_os_str()];
    let done = slipway_watched(words);
    done.ran.survived(path);
    bounded(&done);
    let _ = fs::remove_file(target);
}

fn convert(from: &Path, to: &Path, more: &[&str]) {
    let words = ["disk".as_ref(), "convert".as_ref(), from.as_os_str(), to.as_os_str()];
    slipway_watched(words.into_iter().chain(more.iter().map(OsStr::new))).ran.ok();
}

#[test]
fn damaged_disks_are_refused_or_read() {
    let scratch = Scratch::new();
    let raw = scratch.join("disk.raw");
    raw_disk(&raw, 3 << 20, &[(512, 40), (2 << 20, 40)]);
    let disk = scratch.join("whole.vhdx");
    convert(&raw, &disk, &["--block-size", "1M"]);
    for (n, bytes) in damaged(&fs::read(&disk).expect("read"), 24).into_iter().enumerate() {
        let path = scratch.join(&format!("damaged-{n}.vhdx"));
        fs::write(&path, bytes).expect("written");
        every_disk_command(&path);
        fs::remove_file(path).expect("removed");
    }
    let disk = scratch.join("whole.vhd");
    convert(&raw, &disk, &[]);
    for (n, bytes) in damaged(&fs::read(&disk).expect("read"), 24).into_iter().enumerate() {
        let path = scratch.join(&format!("damaged-{n}.vhd"));
        fs::write(&path, bytes).expect("written");
        every_disk_command(&path);
        fs::remove_file(path).expect("removed");
    }
}

#[test]
fn damaged_images_of_qemu_are_refused_or_read() {
    let scratch = Scratch::new();
    need!(oracle::program("qemu-img"));
    need!(oracle::program("qemu-nbd"));
    let raw = scratch.join("disk.raw");
    raw_disk(&raw, 1 << 20, &[(512, 40)]);
    let disk = scratch.join("whole.qcow2");
    convert(&raw, &disk, &[]);
    for (n, bytes) in damaged(&fs::read(&disk).expect("read"), 8).into_iter().enumerate() {
        let path = scratch.join(&format!("damaged-{n}.qcow2"));
        fs::write(&path, bytes).expect("written");
        every_disk_command(&path);
    }
    // An image that names another file as its backing has no say in what we open.
    let secret = scratch.join("secret.raw");
    fs::write(&secret, vec![b'S'; 1 << 20]).expect("written");
    let evil = scratch.join("evil.qcow2");
    let made = run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&evil));
    made.ok();
    let hash = on(&["disk", "hash"], &evil);
    let secrets = oracle::sha256_file(&secret);
    assert!(
        !hash.ran.stdout.contains(&secrets),
        "a backing file that the image names was read: {}",
        hash.ran
    );
}

#[test]
fn damaged_configurations_and_packages_are_refused_or_read() {
    let daemon = simulated();
    let whole = package(&daemon, "victim", 1);
    let machine = member(&whole, "Virtual Machines", "vmcx");
    let state = member(&whole, "Virtual Machines", "vmrs");
    let disk = member(&whole, "Virtual Hard Disks", "vhdx");
    let content = on(&["disk", "hash"], &disk).ran.ok().to_owned();
    let xml = daemon.home().join(machine.with_extension("xml").file_name().expect("a name"));
    let tree = vmcx::read_file(&machine).expect("our own").tree;
    fs::write(&xml, vmcx::write_xml(&tree).expect("every value of ours has a spelling")).expect("written");

    let cases = [(&machine, 24), (&state, 8), (&xml, 24)];
    for (file, count) in cases {
        let folder = daemon.home().join("d/Virtual Machines");
        for bytes in damaged(&fs::read(file).expect("read"), count) {
            fs::create_dir_all(&folder).expect("made");
            let path = folder.join(file.file_name().expect("a name"));
            fs::write(&path, bytes).expect("written");
            every_configuration_command(&path);
            fs::remove_dir_all(folder.parent().expect("it has one")).expect("removed");
        }
    }
    // The same through a package, with the daemon reading.
    for (file, count) in [(&machine, 16), (&state, 8), (&disk, 24)] {
        let path = daemon.home().join("e").join(file.strip_prefix(&whole).expect("a part of it"));
        for bytes in damaged(&fs::read(file).expect("read"), count) {
            let folder = daemon.home().join("e");
            copy_folder(&whole, &folder);
            fs::write(&path, bytes).expect("written");
            let verify = on(&["verify"], &folder);
            if verify.ran.code == Some(0) {
                // Unused bytes of a disk's tables prove nothing; what the guest sees must be whole.
                assert_eq!(file, &disk, "damage passed: {}", verify.ran);
                assert_eq!(on(&["disk", "hash"], &path).ran.ok(), content, "damage passed: {}", verify.ran);
            } else {
                verify.ran.told(&path);
            }
            on(&["inspect"], &folder).ran.survived(Path::new(""));
            // Copying is tried too: what looks good may break in the middle.
            let import = daemon.run(["import".as_ref(), folder.as_os_str(), "--new-id".as_ref()]);
            import.survived(Path::new(""));
            if import.code == Some(0) {
                let id = import.stdout.split_whitespace().last().expect("an id").to_owned();
                daemon.run(["machine", "delete", &id]).ok();
            }
            fs::remove_dir_all(folder).expect("removed");
        }
    }
    assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(daemon.run(["planned", "list", "--json"]).json(), serde_json::json!([]));
    assert!(!daemon.read_log().contains("panicked"));
}

#[test]
fn what_is_no_file_is_never_waited_for() {
    let scratch = Scratch::new();
    let pipe = scratch.join("pipe");
    run(Command::new("mkfifo").arg(&pipe)).ok();
    let folder = scratch.join("folder");
    fs::create_dir(&folder).expect("made");
    let empty = scratch.join("empty");
    fs::write(&empty, "").expect("written");
    let gone = scratch.join("gone");
    let dangling = scratch.join("dangling");
    symlink(&gone, &dangling).expect("linked");
    let round = scratch.join("round");
    symlink(&round, &round).expect("linked");
    let socket = scratch.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let through = empty.join("through");
    let paths = [&pipe, &folder, &gone, &dangling, &round, &socket, &through];
    let paths = paths.into_iter().map(PathBuf::as_path).chain(["/dev/zero", "/dev/null"].map(Path::new));
    for path in paths {
        for words in DISK_COMMANDS {
            on(words, path).ran.told(path);
        }
        for words in [&["config", "dump"][..], &["inspect"], &["verify"]] {
            on(words, path).ran.told(path);
        }
        let target = scratch.join("target.vhdx");
        let words = ["disk".as_ref(), "convert".as_ref(), path.as_os_str(), target.as_os_str()];
        slipway_watched(words).ran.told(path);
        assert!(!target.exists());
    }
    every_disk_command(&empty);
    every_configuration_command(&empty);
    // As targets.
    let raw = scratch.join("source.raw");
    raw_disk(&raw, 1 << 20, &[(0, 10)]);
    for target in [&pipe, &folder, &dangling, &socket, &through] {
        let words = ["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), target.as_os_str()];
        let done = slipway_watched(words.into_iter().chain(["--format", "vhdx"].map(OsStr::new)));
        done.ran.told(target);
    }
    assert!(!gone.exists(), "written through a link that leads nowhere");
}

#[test]
fn pipes_in_a_package_are_not_waited_for() {
    let daemon = simulated();
    let whole = package(&daemon, "pipes", 1);
    let files: Vec<PathBuf> = snapshot(&whole).into_iter().map(|(p, _)| p).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let copy = daemon.home().join("copy");
        copy_folder(&whole, &copy);
        let pipe = copy.join(file.strip_prefix(&whole).expect("a part of it"));
        fs::remove_file(&pipe).expect("removed");
        run(Command::new("mkfifo").arg(&pipe)).ok();
        let verify = on(&["verify"], &copy);
        assert_ne!(verify.ran.code, Some(0), "{}", verify.ran);
        verify.ran.told(Path::new(""));
        on(&["inspect"], &copy).ran.survived(Path::new(""));
        daemon.run(["import".as_ref(), copy.as_os_str(), "--dry-run".as_ref()]).survived(Path::new(""));
        fs::remove_dir_all(copy).expect("removed");
    }
}

/// Replaces every disk path of the configuration at `file`.
fn point_disks_at(file: &Path, target: &str) {
    fn edit(entries: &mut [vmcx::Entry], target: &str) -> usize {
        let mut edited = 0;
        for entry in entries {
            match &mut entry.value {
                vmcx::Value::Node(children) => edited += edit(children, target),
                vmcx::Value::String(text) if text.to_string_lossy().ends_with(".vhdx") => {
                    entry.value = vmcx::Value::String(target.into());
                    edited += 1;
                }
                _ => {}
            }
        }
        edited
    }
    let mut document = vmcx::read_file(file).expect("our own");
    assert!(edit(&mut document.tree.entries, target) > 0, "no disk path in {}", file.display());
    fs::write(file, document.write().expect("written")).expect("written");
}

#[test]
fn no_path_in_a_configuration_leads_out_of_the_package() {
    let daemon = simulated();
    let whole = package(&daemon, "escape", 1);
    // Beside the package, where `..` would find it; absolute paths name it too.
    let secret = daemon.home().join("secret.vhdx");
    fs::copy(member(&whole, "Virtual Hard Disks", "vhdx"), &secret).expect("copied");
    let shown = secret.to_string_lossy().into_owned();
    let long = format!(r"C:\{}.vhdx", "x".repeat(300));
    let paths = [
        r"..\secret.vhdx",
        r"..\..\secret.vhdx",
        r"C:\a\..\..\..\secret.vhdx",
        "../../secret.vhdx",
        &shown,
        &format!("C:{shown}"),
        &format!(r"\\?\{shown}"),
        &shown.replace('/', r"\"),
        r"\\server\share\secret.vhdx",
        r"\\.\PhysicalDrive0",
        r"\\?\GLOBALROOT\Device\Harddisk0\DR0",
        "NUL",
        r"C:\CON.vhdx",
        "secret.vhdx::$DATA",
        "a\0b.vhdx",
        "a\nb.vhdx",
        "a\u{202e}xdhv.exe",
        ".",
        "..",
        "/",
        r"C:\",
        &long,
    ];
    let before = snapshot(daemon.home().join("escape package").as_path());
    for path in paths {
        let copy = daemon.home().join("copy");
        copy_folder(&whole, &copy);
        point_disks_at(&member(&copy, "Virtual Machines", "vmcx"), path);
        let json = on(&["inspect", "--json"], &copy).ran.json();
        assert_ne!(json["verdict"], "ready", "{path:?} passes");
        for disk in json["disks"].as_array().expect("disks") {
            assert!(disk["file"].is_null(), "{path:?} was found: {json}");
        }
        let text = on(&["inspect"], &copy).ran;
        text.survived(Path::new(""));
        assert!(!text.stdout.contains(['\0', '\u{202e}']), "control characters reach the terminal: {text}");
        assert!(text.stdout.len() < 20_000, "{path:?} floods the screen with {} bytes", text.stdout.len());
        let import = daemon.run(["import".as_ref(), copy.as_os_str(), "--new-id".as_ref()]);
        import.refused();
        assert!(import.stderr.contains("hint: "), "{import}");
        fs::remove_dir_all(copy).expect("removed");
    }
    // Links: to the secret, to its folder, and inside the package, which is fine.
    let disk = member(&whole, "Virtual Hard Disks", "vhdx");
    let copy = daemon.home().join("links");
    copy_folder(&whole, &copy);
    let link = copy.join("Virtual Hard Disks").join(disk.file_name().expect("a name"));
    fs::rename(&link, copy.join("Snapshots/real.vhdx")).expect("moved");
    symlink("../Snapshots/real.vhdx", &link).expect("linked");
    assert_eq!(on(&["inspect", "--json"], &copy).ran.json()["verdict"], "ready");
    fs::remove_file(&link).expect("removed");
    symlink(&secret, &link).expect("linked");
    let json = on(&["inspect", "--json"], &copy).ran.json();
    assert_ne!(json["verdict"], "ready", "{json}");
    fs::remove_file(&link).expect("removed");
    fs::remove_dir(copy.join("Virtual Hard Disks")).expect("removed");
    symlink(daemon.home(), copy.join("Virtual Hard Disks")).expect("linked");
    let json = on(&["inspect", "--json"], &copy).ran.json();
    assert_ne!(json["verdict"], "ready", "{json}");
    assert_eq!(snapshot(daemon.home().join("escape package").as_path()), before, "a package was written to");
}

#[test]
fn a_wrong_place_is_told_from_the_right_one() {
    let daemon = simulated();
    let whole = package(&daemon, "right", 1);
    let above = daemon.home().join("above");
    fs::create_dir(&above).expect("made");
    fs::rename(&whole, above.join("right")).expect("moved");
    let whole = above.join("right");
    let disk = member(&whole, "Virtual Hard Disks", "vhdx");
    let avhdx = daemon.home().join("checkpoint.avhdx");
    fs::copy(&disk, &avhdx).expect("copied");
    let text = daemon.home().join("notes.txt");
    fs::write(&text, "hello").expect("written");
    let state = member(&whole, "Virtual Machines", "vmrs");
    let no_package = daemon.home().join("no package");
    fs::create_dir(&no_package).expect("made");
    fs::write(no_package.join("readme"), "nothing").expect("written");
    for path in [&above, &disk, &avhdx, &text, &state, &no_package] {
        on(&["inspect"], path).ran.told(path);
        on(&["verify"], path).ran.told(path);
        daemon.run(["import".as_ref(), path.as_os_str()]).told(path);
        daemon.run(["import".as_ref(), path.as_os_str(), "--dry-run".as_ref()]).told(path);
    }
    let said = daemon.run(["import".as_ref(), above.as_os_str()]);
    assert!(said.stderr.contains("above/right"), "the right place is not named: {said}");
    // A folder inside the package is close enough to say which one was meant.
    for folder in ["Virtual Machines", "Virtual Hard Disks", "Snapshots"] {
        on(&["inspect"], &whole.join(folder)).ran.survived(Path::new(""));
    }
}

#[test]
fn who_may_not_read_is_told_so() {
    if !is_root() {
        harness::skip!("only root can become nobody");
    }
    let daemon = simulated();
    let whole = package(&daemon, "private", 1);
    let disk = member(&whole, "Virtual Hard Disks", "vhdx");
    fs::set_permissions(daemon.home(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o600)).expect("set");
    let nobody = |words: &[&OsStr]| {
        let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        watched(Command::new("setpriv").args(ids).arg(slipway()).args(words)).ran
    };
    for action in ["info", "map", "check", "hash"] {
        nobody(&["disk".as_ref(), action.as_ref(), disk.as_os_str()]).told(&disk);
    }
    nobody(&["verify".as_ref(), whole.as_os_str()]).told(&disk);
    let inspect = nobody(&["inspect".as_ref(), whole.as_os_str()]);
    assert!(inspect.stdout.contains("ermission denied"), "the reason is not told: {inspect}");
    let machines = whole.join("Virtual Machines");
    fs::set_permissions(&machines, fs::Permissions::from_mode(0o700)).expect("set");
    nobody(&["inspect".as_ref(), whole.as_os_str()]).told(&whole);
    nobody(&["verify".as_ref(), whole.as_os_str()]).told(&whole);
    let raw = daemon.home().join("private.img");
    fs::set_permissions(&raw, fs::Permissions::from_mode(0o644)).expect("set");
    let target = daemon.home().join("nobodys.vhdx");
    nobody(&["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), target.as_os_str()]).told(&target);
}

#[test]
fn configurations_made_to_exhaust_us_are_refused_or_read_in_bounds() {
    let scratch = Scratch::new();
    let utf16 = |text: &str| -> Vec<u8> {
        [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let laughs: String = (1..30).fold("<!ENTITY a0 \"ha\">".to_owned(), |s, n| {
        format!("{s}<!ENTITY a{n} \"&a{0};&a{0};&a{0};&a{0};\">", n - 1)
    });
    let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    let keys: String = (0..100_000).map(|n| format!("<k{n} type=\"integer\">{n}</k{n}>")).collect();
    let attributes: String = (0..50_000).map(|n| format!(" a{n}=\"x\"")).collect();
    let xml = [
        ("laughs", format!("<!DOCTYPE configuration [{laughs}]><configuration><a type=\"string\">&a29;</a></configuration>")),
        ("outside", "<!DOCTYPE configuration [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><configuration><a type=\"string\">&x;</a></configuration>".to_owned()),
        ("deep", format!("<configuration>{}</configuration>", deep(200_000))),
        ("unclosed", "<configuration>".to_owned() + &"<a>".repeat(500_000)),
        ("wide", format!("<configuration>{keys}</configuration>")),
        ("attributes", format!("<configuration{attributes}/>")),
        ("name", format!("<configuration><{0}/></configuration>", "n".repeat(1 << 20))),
        ("number", "<configuration><a type=\"integer\">99999999999999999999999999</a></configuration>".to_owned()),
        ("bytes", "<configuration><a type=\"bytes\">====!</a></configuration>".to_owned()),
        ("comment", "<configuration><!--".to_owned() + &"-".repeat(1 << 20)),
    ];
    for (name, text) in xml {
        let path = scratch.join(&format!("{name}.xml"));
        fs::write(&path, utf16(&text)).expect("written");
        every_configuration_command(&path);
        let dump = on(&["config", "dump"], &path);
        assert!(!dump.ran.stdout.contains("root:"), "another file was read: {}", dump.ran);
        assert!(matches!(name, "wide") == (dump.ran.code == Some(0)), "{name}: {}", dump.ran);
    }
    // 100 000 keys, and as many of one name, in the binary form.
    let leaf = |n: usize, name: String| vmcx::Entry { name, flags: 0, value: vmcx::Value::Uint(n as u64) };
    for (file, named) in [("wide.vmcx", true), ("same.vmcx", false)] {
        let children =
            (0..100_000).map(|n| leaf(n, if named { format!("k{n}") } else { "k".to_owned() })).collect();
        let root = vmcx::Entry { name: "configuration".into(), flags: 0, value: vmcx::Value::Node(children) };
        let path = scratch.join(file);
        fs::write(&path, vmcx::write_container(&vmcx::Tree { entries: vec![root] }).expect("made"))
            .expect("written");
        let dump = on(&["config", "dump"], &path);
        bounded(&dump);
        assert_eq!(dump.ran.ok().lines().count(), 100_001);
        every_configuration_command(&path);
    }
    // Files that are mostly nothing: none of it may be read or kept.
    for name in ["bomb.vmcx", "bomb.xml", "bomb.vhdx", "bomb.vhd", "bomb.raw"] {
        let path = scratch.join(name);
        raw_disk(&path, 1 << 42, &[(0, 64)]);
        if name.ends_with("vmcx") || name.ends_with("xml") {
            every_configuration_command(&path);
        } else {
            for action in ["info", "map", "check"] {
                let done = on(&["disk", action], &path);
                done.ran.survived(&path);
                bounded(&done);
            }
        }
    }
}

#[test]
fn names_that_file_systems_fear_come_through() {
    let daemon = simulated();
    let long = "ä".repeat(120);
    for name in ["a/b", r"a\b", "..", ".", "CON", "Ünïcødé 日本 🚀", "-rf", "*", "$(id)", "'\"", &long]
    {
        let words =
            ["machine", "define", "--generation", "1", "--memory", "64", "--new-disk", "1M", "--", name];
        let id = daemon.run(words).ok().split_whitespace().last().expect("an id").to_owned();
        let target = daemon.home().join("out");
        let words = ["export".as_ref(), id.as_ref(), target.as_os_str(), "--subdirectory".as_ref()];
        let export = daemon.run(words);
        let place = PathBuf::from(export.ok().trim_end());
        assert_eq!(place.parent(), Some(target.as_path()), "{name:?} left the folder: {export}");
        on(&["verify"], &place).ran.ok();
        let import =
            daemon.run(["import".as_ref(), place.as_os_str(), "--new-id".as_ref(), "--json".as_ref()]).json();
        assert_eq!(import["machine"]["name"], name);
        for id in [id.as_str(), import["machine"]["id"].as_str().expect("an id")] {
            daemon.run(["machine", "delete", id]).ok();
        }
        fs::remove_dir_all(target).expect("removed");
    }
    for name in ["", " ", "a\nb", "a\tb", "\u{1b}[31m", &"x".repeat(256)] {
        let words = ["machine", "define", "--generation", "1", "--", name];
        daemon.run(words).refused();
    }
    assert_eq!(daemon.run(["machine", "list", "--json"]).json(), serde_json::json!([]));
    // A path that is no Unicode is a path all the same.
    use std::os::unix::ffi::OsStringExt as _;
    let odd = daemon.home().join(OsString::from_vec(b"odd-\xff\xfe.raw".to_vec()));
    raw_disk(&odd, 1 << 20, &[(0, 10)]);
    on(&["disk", "info"], &odd).ran.ok();
    on(&["disk", "hash"], &odd).ran.ok();
    on(&["disk", "map", "--json"], &odd).ran.ok();
    on(&["disk", "info", "--json"], &odd).ran.survived(Path::new(""));
}
