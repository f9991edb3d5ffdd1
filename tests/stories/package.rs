//! The Debian package, from the binary that these tests have: what is in it, whole, and the same bytes each time.
//!
//! That it installs, upgrades and goes on a real Debian is told by `./x deb-test`, which needs root and minutes.

use harness::oracle::{program, sha256};
use harness::{Scratch, need, slipway};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// What a program says, which must succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let out = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Builds the package into `folder`.
#[track_caller]
fn build(folder: &Path) -> PathBuf {
    let mut command = Command::new(root().join("tools/deb.sh"));
    command.arg("--binary").arg(slipway()).arg("--out").arg(folder);
    PathBuf::from(said(&mut command).lines().last().expect("a path"))
}

#[test]
fn the_package_is_whole_and_is_the_same_bytes_each_time() {
    need!(program("dpkg-deb"));
    let scratch = Scratch::new();
    let package = build(&scratch.join("one"));
    let again = build(&scratch.join("two"));
    assert!(
        sha256(&fs::read(&package).expect("read")) == sha256(&fs::read(again).expect("read")),
        "two builds differ"
    );

    let field = |name: &str| said(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
    let version = field("Version");
    let own = said(Command::new(slipway()).arg("--version"));
    assert_eq!(
        version.trim().rsplit_once('-').expect("a revision").0,
        own.trim().rsplit_once(' ').expect("a version").1
    );
    let depends = field("Depends");
    for needed in
        ["libc6 (>= 2.", "libgcc-s1 (>= ", "qemu-system-x86 (>= 1:9)", "qemu-utils (>= 1:9)", "ovmf", "swtpm"]
    {
        assert!(depends.contains(needed), "{needed} is not in {depends}");
    }

    // Who owns what, and who may write it.
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for line in listed.lines() {
        assert!(line.contains(" root/root "), "{line}");
        assert!(
            line.starts_with("-rw-r--r--")
                || line.starts_with("-rwxr-xr-x")
                || line.starts_with("drwxr-xr-x"),
            "{line}"
        );
    }
    let to = scratch.join("root");
    said(Command::new("dpkg-deb").arg("--raw-extract").arg(&package).arg(&to));
    for path in [
        "etc/slipway/config.toml",
        "usr/bin/slipway",
        "usr/lib/systemd/system/slipway.service",
        "usr/lib/systemd/user/slipway.service",
        "usr/lib/sysusers.d/slipway.conf",
        "usr/share/bash-completion/completions/slipway",
        "usr/share/doc/slipway/changelog.Debian.gz",
        "usr/share/doc/slipway/changelog.gz",
        "usr/share/doc/slipway/copyright",
        "usr/share/doc/slipway/third-party.txt.gz",
        "usr/share/fish/vendor_completions.d/slipway.fish",
        "usr/share/man/man1/slipway-serve.1.gz",
        "usr/share/man/man1/slipway.1.gz",
        "usr/share/zsh/vendor-completions/_slipway",
    ] {
        let size = fs::metadata(to.join(path)).map_or(0, |m| m.len());
        assert!(size > 0, "{path} is missing or empty:\n{listed}");
    }
    let conffiles = fs::read_to_string(to.join("DEBIAN/conffiles")).expect("conffiles");
    assert_eq!(conffiles, "/etc/slipway/config.toml\n");
    // Each unit is there whose settings a page speaks of, and none but those of the user's manager elsewhere.
    for unit in fs::read_dir(root().join("packaging")).expect("packaging").flatten() {
        let name = unit.file_name().to_string_lossy().into_owned();
        let system =
            [".service", ".timer"].iter().any(|e| name.ends_with(e)) && name != "slipway-user.service";
        assert!(!system || to.join("usr/lib/systemd/system").join(&name).is_file(), "{name} is not packed");
    }
    said(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(&to));
    let sums = fs::read_to_string(to.join("DEBIAN/md5sums")).expect("md5sums");
    let files = listed.lines().filter(|l| l.starts_with('-')).count();
    assert_eq!(sums.lines().count(), files, "not every file has its sum");

    // The stripped program still runs, and no notice or script names a place on this machine.
    said(Command::new(to.join("usr/bin/slipway")).arg("--version"));
    let notices =
        said(Command::new("gzip").arg("-dc").arg(to.join("usr/share/doc/slipway/third-party.txt.gz")));
    assert!(notices.contains("\ntokio 1.") && notices.contains("Permission is hereby granted"), "no notices");
    let copyright = fs::read_to_string(to.join("usr/share/doc/slipway/copyright")).expect("copyright");
    assert!(copyright.contains("Permission is hereby granted") && !copyright.contains('@'), "{copyright}");
    for text in [&notices, &copyright] {
        assert!(!text.contains(root().to_str().expect("a name")), "it names {}", root().display());
    }

    for script in ["postinst", "prerm", "postrm"] {
        let path = to.join("DEBIAN").join(script);
        assert_eq!(fs::metadata(&path).expect("a script").permissions().mode() & 0o777, 0o755);
        said(Command::new("sh").arg("-n").arg(&path));
    }
    if program("shellcheck").is_ok() {
        said(Command::new("shellcheck").args(["postinst", "prerm", "postrm"]).current_dir(to.join("DEBIAN")));
    }
}
