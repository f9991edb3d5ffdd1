//! The tiny Linux guests of `tools/make_guest.sh`: their disks, packages around them, and talking to them over the
//! serial console.

use crate::binary::offline;
use crate::daemon::Daemon;
use crate::oracle::{sha256, sha256_file};
use crate::real;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest boot that is waited for. Emulated on a loaded machine it is half a minute.
const BOOT_SECONDS: &str = "180";
/// Longest answer to a command.
const ANSWER_SECONDS: &str = "90";
/// Disk blocks that `pat` and `sum` count in.
const BLOCK: usize = 64 << 10;

/// A disk or kernel of the guests, by file name.
///
/// # Errors
/// Why it is not there.
pub fn image(name: &str) -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = std::env::var_os("SLIPWAY_GUEST").map_or(workspace.join(".slipway/guest"), PathBuf::from);
    let path = folder.join(name);
    if !path.is_file() {
        return Err(format!("{} is not built: cargo xtask guest", path.display()));
    }
    // What a story asks of its guest, an older one may not know.
    match fs::read_to_string(folder.join(".recipe")) {
        Ok(recipe) if recipe != sha256_file(&workspace.join("tools/make_guest.sh")) => {
            Err(format!("the guests in {} are of another recipe: cargo xtask guest", folder.display()))
        }
        _ => Ok(path),
    }
}

/// A package as Hyper-V exports it: a real configuration, and the guest's disk, grown to 256 MiB, where that
/// configuration says its disk is.
///
/// # Errors
/// Why a part is missing.
///
/// # Panics
/// When the package cannot be written.
pub fn package(folder: &Path, configuration: &str, guest: &str) -> Result<PathBuf, String> {
    let configuration = real::named(configuration).path()?;
    let guest = image(guest)?;
    crate::oracle::program("qemu-system-x86_64")?;
    let (machines, disks) = (folder.join("Virtual Machines"), folder.join("Virtual Hard Disks"));
    fs::create_dir_all(&machines).expect("a folder");
    fs::create_dir_all(&disks).expect("a folder");
    fs::copy(&configuration, machines.join(configuration.file_name().expect("a name"))).expect("copied");
    let raw = folder.with_extension("raw");
    let copied = Command::new("cp").arg("--sparse=always").arg(guest).arg(&raw).status().expect("cp starts");
    assert!(copied.success());
    File::options().write(true).open(&raw).and_then(|f| f.set_len(256 << 20)).expect("grown");
    let disk = disks.join(format!("{}.vhdx", disk_name(folder)));
    offline(["disk".as_ref(), "convert".as_ref(), raw.as_os_str(), disk.as_os_str()]).ok();
    fs::remove_file(raw).expect("removed");
    Ok(folder.to_owned())
}

/// Where on its disk [`Guest::write`] puts the pattern, in bytes.
pub const PATTERN_OFFSET: u64 = 128 << 20;

/// What [`Guest::write`] with that seed writes.
#[must_use]
pub fn pattern(seed: &str) -> Vec<u8> {
    format!("seed-{seed}\n").into_bytes().iter().copied().cycle().take(256 * BLOCK).collect()
}

/// What the configuration in a package calls its disk, without the ending.
fn disk_name(package: &Path) -> String {
    let plan = offline(["inspect".as_ref(), package.as_os_str(), "--json".as_ref()]).json();
    let path = plan["disks"][0]["path"].as_str().or_else(|| plan["disks"][0]["name"].as_str());
    let path = path.unwrap_or_else(|| panic!("inspect names no disk: {plan}"));
    let name = path.rsplit(['\\', '/']).next().unwrap_or(path);
    name.strip_suffix(".vhdx").unwrap_or(name).to_owned()
}

/// A machine with one of our guests in it.
#[derive(Debug)]
pub struct Guest<'a> {
    daemon: &'a Daemon,
    machine: String,
    /// The line with which it said that it is ready.
    pub ready: String,
}

impl<'a> Guest<'a> {
    /// Starts the machine and waits until its guest is ready.
    ///
    /// # Panics
    /// When it does not come up; what its console said is in the message.
    #[must_use]
    #[track_caller]
    pub fn start(daemon: &'a Daemon, machine: &str) -> Guest<'a> {
        daemon.run(["machine", "start", machine]).ok();
        Guest::wait(daemon, machine)
    }

    /// Waits until the guest of a machine that is already running is ready.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn wait(daemon: &'a Daemon, machine: &str) -> Guest<'a> {
        let mut guest = Guest { daemon, machine: machine.to_owned(), ready: String::new() };
        let ran = daemon.run([
            "machine",
            "console",
            machine,
            "--wait-for",
            "GUEST-READY",
            "--timeout",
            BOOT_SECONDS,
        ]);
        assert!(
            ran.code == Some(0),
            "the guest does not come up: {ran}\n--- its console\n{}",
            guest.console()
        );
        guest.ready = ran.stdout;
        guest
    }

    /// One that said `ready` in an earlier life, and has gone on from what was saved of it.
    #[must_use]
    pub fn known(daemon: &'a Daemon, machine: &str, ready: &str) -> Guest<'a> {
        Guest { daemon, machine: machine.to_owned(), ready: ready.to_owned() }
    }

    /// What the console said since the machine started, without the terminal's colours.
    #[must_use]
    pub fn console(&self) -> String {
        let log = self.daemon.run(["machine", "console", &self.machine, "--log"]).stdout;
        let mut text = String::with_capacity(log.len());
        let mut rest = log.chars();
        while let Some(c) = rest.next() {
            match c {
                '\x1b' => {
                    let _ = rest.by_ref().find(char::is_ascii_alphabetic);
                }
                '\r' => {}
                c => text.push(c),
            }
        }
        text
    }

    /// Sends a line and waits for an answer that holds `text`.
    ///
    /// # Panics
    /// When there is none in time.
    #[track_caller]
    pub fn ask(&self, line: &str, text: &str) -> String {
        let ran = self.daemon.run([
            "machine",
            "console",
            &self.machine,
            "--send",
            line,
            "--wait-for",
            text,
            "--timeout",
            ANSWER_SECONDS,
        ]);
        assert!(ran.code == Some(0), "no answer to '{line}': {ran}\n--- its console\n{}", self.console());
        ran.stdout
    }

    /// The guest's first disk, from what it said when it was ready.
    ///
    /// # Panics
    /// When it saw none.
    #[must_use]
    pub fn disk(&self) -> String {
        let disks = self.ready.split("disks=").nth(1).and_then(|d| d.split(' ').next()).unwrap_or_default();
        let first = disks.split(':').next().filter(|d| !d.is_empty());
        format!("/dev/{}", first.unwrap_or_else(|| panic!("the guest sees no disk: {}", self.ready)))
    }

    /// Has it write 16 MiB of a pattern behind its file system.
    pub fn write(&self, seed: &str) {
        let answer = self.ask(&format!("pat {} {seed} 2048 256", self.disk()), "PAT-");
        assert!(answer.contains("PAT-OK"), "{answer}");
    }

    /// It reads back what [`Guest::write`] with that seed wrote.
    ///
    /// # Panics
    /// When it reads something else.
    #[track_caller]
    pub fn holds(&self, seed: &str) {
        let answer = self.ask(&format!("sum {} 2048 256", self.disk()), "SUM ");
        assert!(answer.contains(&sha256(&pattern(seed))), "not the pattern of '{seed}': {answer}");
    }

    /// Pulls the plug.
    pub fn stop(self) {
        self.daemon.run(["machine", "stop", &self.machine]).ok();
    }
}
