//! What is broken, cut off, or not what it claims to be gets a message with path, reason and a way on, and an exit code;
//! never a crash, and never a lost byte.

use harness::binary::{Ran, offline};
use harness::scratch::{noise, raw_disk, snapshot};
use harness::{Scratch, need, real};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Refused, with the path in the message.
#[track_caller]
fn refused(ran: &Ran, path: &Path) {
    let said = ran.refused();
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(said.contains(name.as_ref()), "the path is missing: {ran}");
}

/// Ran to an end of its own making: done or refused, but not crashed.
#[track_caller]
fn survived(ran: &Ran) {
    if ran.code != Some(0) {
        ran.refused();
    }
}

fn disk(action: &str, path: &Path) -> Ran {
    offline(["disk".as_ref(), action.as_ref(), path.as_os_str()])
}

fn dump(path: &Path) -> Ran {
    offline(["config".as_ref(), "dump".as_ref(), path.as_os_str(), "--json".as_ref()])
}

fn inspect(path: &Path) -> Ran {
    offline([OsStr::new("inspect"), path.as_os_str()])
}

#[test]
fn noise_is_no_configuration_and_no_vhdx() {
    let scratch = Scratch::new();
    for (n, length) in [0, 1, 511, 4096, 100_000].into_iter().enumerate() {
        let path = scratch.join(&format!("{n}.vmcx"));
        fs::write(&path, noise(n as u64, length)).expect("written");
        refused(&dump(&path), &path);
        refused(&inspect(&path), &path);
        // With a disk's magic in front, noise claims to be one.
        for (magic, ending) in [(&b"vhdxfile"[..], "vhdx"), (b"conectix", "vhd")] {
            let path = scratch.join(&format!("{n}.{ending}"));
            let mut bytes = magic.to_vec();
            bytes.extend(noise(n as u64, length));
            fs::write(&path, bytes).expect("written");
            for action in ["info", "map", "check", "hash"] {
                survived(&disk(action, &path));
            }
        }
    }
}

#[test]
fn a_cut_configuration_is_refused_and_a_cut_disk_never_lies() {
    let scratch = Scratch::new();
    let whole =
        fs::read(need!(real::named("vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx").path())).expect("read");
    for length in [1, 100, 4096, 8192, 40_000, whole.len() / 2] {
        let path = scratch.join("cut.vmcx");
        fs::write(&path, &whole[..length]).expect("written");
        refused(&dump(&path), &path);
    }
    let sample = real::named("vhdx/win10-dynamic.vhdx");
    let whole = fs::read(need!(sample.path())).expect("read");
    // The last one ends within the only block's data.
    for length in [1, 65_536, 200_000, 1 << 20, 2 << 20, 3 << 20, 6 << 20] {
        let path = scratch.join("cut.vhdx");
        fs::write(&path, &whole[..length]).expect("written");
        let ran = disk("hash", &path);
        survived(&ran);
        let right = sample.facts["disk"]["sha256"].as_str().expect("a hash");
        assert!(
            ran.code != Some(0) || !ran.stdout.contains(right),
            "a cut disk has the whole disk's hash: {ran}"
        );
    }
}

#[test]
fn flipped_bits_never_crash_a_reader() {
    let scratch = Scratch::new();
    let whole =
        fs::read(need!(real::named("vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx").path())).expect("read");
    let xml =
        fs::read(need!(real::named("xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml").path())).expect("read");
    for (bytes, ending) in [(&whole, "vmcx"), (&xml, "xml")] {
        for n in 0..24 {
            let mut bytes = bytes.clone();
            let at = (n * 7919 + 13) % bytes.len();
            bytes[at] ^= 1 << (n % 8);
            let path = scratch.join(&format!("flipped.{ending}"));
            fs::write(&path, bytes).expect("written");
            survived(&dump(&path));
        }
    }
}

#[test]
fn a_folder_that_is_no_package_is_refused_and_one_level_too_high_is_named() {
    let scratch = Scratch::new();
    let empty = scratch.join("empty");
    fs::create_dir(&empty).expect("made");
    refused(&inspect(&empty), &empty);
    refused(&offline([OsStr::new("verify"), empty.as_os_str()]), &empty);

    let package = package(&scratch, "above/inner");
    let package = need!(package);
    let above = package.parent().expect("it has one");
    let ran = inspect(above);
    refused(&ran, above);
    assert!(ran.stderr.contains("inner"), "the package one level below is not named: {ran}");
}

#[test]
fn a_checkpoints_disk_is_not_a_machine() {
    let path = need!(real::named("vhdx/checkpoint.avhdx").path());
    let ran = inspect(&path);
    refused(&ran, &path);
}

#[test]
fn nothing_outside_the_package_is_opened() {
    let scratch = Scratch::new();
    let package = need!(package(&scratch, "package"));
    let secret = scratch.join("secret.vhdx");
    let raw = scratch.join("secret.raw");
    raw_disk(&raw, 4 << 20, &[(0, 4096)]);
    offline(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), secret.as_os_str()]).ok();
    // The same machine in the XML form can be edited as text: its disk is now one level up.
    let escape = scratch.join("escape");
    fs::create_dir_all(escape.join("Virtual Machines")).expect("made");
    let machine = real::named("xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml");
    let bytes = fs::read(need!(machine.path())).expect("read");
    let text: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let text = String::from_utf16(&text).expect("UTF-16");
    let edited = swap_disk_path(&text, "..\\..\\secret.vhdx");
    assert_ne!(text, edited, "the sample names a disk");
    let bytes: Vec<u8> = edited.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(escape.join("Virtual Machines/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml"), bytes)
        .expect("written");
    let before = snapshot(scratch.path());
    let ran = inspect(&escape);
    survived(&ran);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("secret.vhdx"), "the path that leaves the package is not named: {ran}");
    assert!(!told.contains("ready"), "a path that leaves the package passes: {ran}");
    assert_eq!(snapshot(scratch.path()), before, "inspect wrote something");
    drop(package);
}

#[test]
fn targets_that_cannot_be_written_are_named_and_sources_are_kept() {
    let scratch = Scratch::new();
    let raw = scratch.join("source.raw");
    raw_disk(&raw, 8 << 20, &[(0, 1 << 20)]);
    let before = snapshot(scratch.path());
    let convert =
        |target: &Path| offline(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), target.as_os_str()]);

    // Nobody may create files there, not even root.
    refused(&convert(Path::new("/proc/target.vhdx")), Path::new("/proc/target.vhdx"));
    let nowhere = scratch.join("no/such/folder/target.vhdx");
    refused(&convert(&nowhere), &nowhere);
    // Never over something that is there.
    refused(&convert(&raw), &raw);
    assert_eq!(snapshot(scratch.path()), before);

    let gone = scratch.join("vanished.vhdx");
    for action in ["info", "map", "check", "hash"] {
        refused(&disk(action, &gone), &gone);
    }
    refused(&inspect(&gone), &gone);
    refused(&dump(&gone), &gone);
}

#[test]
fn a_full_target_says_so_and_leaves_nothing_half_made() {
    let scratch = Scratch::new();
    let raw = scratch.join("source.raw");
    raw_disk(&raw, 64 << 20, &[(0, 48 << 20)]);
    let small = scratch.join("small");
    fs::create_dir(&small).expect("made");
    // A file system of 8 MiB, mounted where nobody else sees it; not everybody may.
    let script = "mount -t tmpfs -o size=8m none \"$1\" && touch \"$1/mounted\" || exit 77; shift; \"$@\"; code=$?; ls \"$SMALL\"; exit $code";
    let target = small.join("target.vhdx");
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(&small)
        .arg(harness::slipway());
    command
        .args(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), target.as_os_str()])
        .env("SMALL", &small);
    let Ok(out) = command.output() else { harness::skip!("unshare does not start") };
    let ran = Ran {
        line: format!("slipway disk convert … {}", target.display()),
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    if ran.code == Some(77) || ran.stderr.contains("unshare") {
        harness::skip!("no file system can be mounted here: {}", ran.stderr.trim());
    }
    refused(&ran, &target);
    assert!(ran.stderr.contains("space"), "{ran}");
    assert_eq!(ran.stdout.trim(), "mounted", "something half-made is left: {ran}");
}

/// A package with a real configuration and a disk of ours where the configuration says it is.
fn package(scratch: &Scratch, name: &str) -> Result<PathBuf, String> {
    let machine = real::named("vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx").path()?;
    let folder = scratch.join(name);
    fs::create_dir_all(folder.join("Virtual Machines")).expect("made");
    fs::create_dir_all(folder.join("Virtual Hard Disks")).expect("made");
    let target = folder.join("Virtual Machines").join(machine.file_name().expect("a name"));
    fs::copy(machine, target).expect("copied");
    let raw = scratch.join("package-disk.raw");
    raw_disk(&raw, 16 << 20, &[(0, 8192)]);
    let disk = folder.join("Virtual Hard Disks/Default Generation 2.vhdx");
    offline(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), disk.as_os_str()]).ok();
    Ok(folder)
}

/// Puts another path where the configuration names a disk file.
fn swap_disk_path(text: &str, path: &str) -> String {
    let Some(end) = text.find(".vhdx</").map(|at| at + ".vhdx".len()) else { return text.to_owned() };
    let start = text[..end].rfind('>').map_or(0, |at| at + 1);
    format!("{}{path}{}", &text[..start], &text[end..])
}
