//! What a file can do to a program, and what a program may do about it: damaged copies, and commands that are watched
//! while they read them.

use crate::binary::{Ran, slipway};
use crate::daemon::Daemon;
use crate::scratch::{noise, raw_disk};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long any command of a story about faults may take; those that wait for ever are ended then.
const PATIENCE: Duration = Duration::from_secs(90);

/// A finished command and the most memory it held.
#[derive(Debug)]
pub struct Watched {
    /// What it did.
    pub ran: Ran,
    /// Peak of its resident memory in MiB, as the kernel counted it, without the processes it started.
    pub peak_mib: u64,
}

/// Runs a program to its end, which must come.
///
/// # Panics
/// When it cannot be started, or does not end.
pub fn watched(command: &mut Command) -> Watched {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.map(|mut p| p.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _));
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let deadline = Instant::now() + PATIENCE;
    let mut peak_kib = 0;
    let code = loop {
        peak_kib = peak_kib.max(high_water(&status));
        if let Some(ended) = child.try_wait().expect("a child can be waited for") {
            break ended.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("does not end: {line}");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    };
    let text = |t: std::thread::JoinHandle<String>| t.join().expect("a pipe can be read");
    Watched { ran: Ran { line, code, stdout: text(stdout), stderr: text(stderr) }, peak_mib: peak_kib >> 10 }
}

/// `VmHWM` of a process that still runs, in KiB.
fn high_water(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The most memory that a process held so far, in MiB.
#[must_use]
pub fn high_water_mib(pid: &str) -> u64 {
    high_water(Path::new(&format!("/proc/{pid}/status"))) >> 10
}

/// Runs an offline command of ours, watched.
pub fn slipway_watched<I, S>(arguments: I) -> Watched
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    watched(Command::new(slipway()).args(arguments).env_remove("SLIPWAY_SOCKET").env_remove("SLIPWAY_DATA"))
}

impl Ran {
    /// Refused as a person needs it: the path's name in the message, and a hint.
    ///
    /// # Panics
    /// When it succeeded, crashed, or left one of them out.
    #[track_caller]
    pub fn told(&self, path: &Path) {
        let said = self.refused();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        assert!(said.contains(name.as_ref()), "the path `{name}` is not named: {self}");
        let shown = said.contains("hint: ") || said.contains("\"hint\":\"");
        assert!(shown, "no way on is shown: {self}");
    }

    /// Succeeded, or refused as a person needs it.
    ///
    /// # Panics
    /// When it was neither.
    #[track_caller]
    pub fn survived(&self, path: &Path) {
        assert!(!self.stderr.contains("panicked"), "{self}");
        if self.code != Some(0) {
            self.told(path);
        }
    }
}

/// Copies of `bytes` with one thing wrong in each, the same every time: cut off, bits flipped, fields set to their limits,
/// sectors gone or swapped. The damage goes where the file has something to say, not into its empty parts.
#[must_use]
pub fn damaged(bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
    const SECTOR: usize = 512;
    let sectors: Vec<usize> = (0..bytes.len())
        .step_by(SECTOR)
        .filter(|at| bytes[*at..].iter().take(SECTOR).any(|b| *b != 0))
        .collect();
    let random = noise(bytes.len() as u64, count * 24);
    let number = |n: usize, k: usize| {
        let at = n * 24 + k * 8;
        usize::try_from(u64::from_le_bytes(random[at..at + 8].try_into().expect("eight bytes")) >> 1)
            .expect("64 bits")
    };
    (0..count)
        .map(|n| {
            let sector = sectors[number(n, 0) % sectors.len()];
            let at = sector + number(n, 1) % SECTOR.min(bytes.len() - sector);
            let mut copy = bytes.to_vec();
            let field = |copy: &mut [u8], value: &[u8]| {
                let aligned = at & !(value.len() - 1);
                let end = copy.len().min(aligned + value.len());
                copy[aligned..end].copy_from_slice(&value[..end - aligned]);
            };
            match n % 8 {
                0 => copy.truncate(at),
                1 | 2 => copy[at] ^= 1 << (number(n, 2) % 8),
                3 => field(&mut copy, &[0xFF; 4]),
                4 => field(&mut copy, &[0xFF; 8]),
                5 => field(&mut copy, &(1_u64 << (number(n, 2) % 64)).to_le_bytes()),
                6 => copy[sector..].iter_mut().take(SECTOR).for_each(|b| *b = 0),
                _ => {
                    let other = sectors[number(n, 2) % sectors.len()];
                    let length = SECTOR.min(bytes.len() - sector).min(bytes.len() - other);
                    copy[sector..sector + length].copy_from_slice(&bytes[other..other + length]);
                }
            }
            copy
        })
        .collect()
}

/// A package that our own export made: one machine, one disk of 4 MiB with a little data, 1 MiB blocks.
///
/// # Panics
/// When the daemon cannot make it.
#[must_use]
pub fn package(daemon: &Daemon, name: &str, generation: u32) -> PathBuf {
    let raw = daemon.home().join(format!("{name}.img"));
    raw_disk(&raw, 4 << 20, &[(0, 100), (3 << 20, 100)]);
    let disk = format!("{},format=raw", raw.display());
    daemon
        .run([
            "machine",
            "define",
            name,
            "--generation",
            &generation.to_string(),
            "--memory",
            "64",
            "--disk",
            &disk,
        ])
        .ok();
    let target = daemon.home().join(format!("{name} package"));
    let words =
        ["export".as_ref(), name.as_ref(), target.as_os_str(), "--block-size".as_ref(), "1M".as_ref()];
    daemon.run(words).ok();
    daemon.run(["machine", "delete", name]).ok();
    target
}

/// The one file of a package's folder with that extension.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn member(package: &Path, folder: &str, extension: &str) -> PathBuf {
    let entries = std::fs::read_dir(package.join(folder)).expect("a readable folder");
    entries
        .map(|e| e.expect("a readable entry").path())
        .find(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)))
        .unwrap_or_else(|| panic!("no .{extension} in {}/{folder}", package.display()))
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// When something cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// True for root: some faults can be made by it only, and permissions do not stop it.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// A file system mounted for a story, unmounted when it ends.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts with these words after `mount`; `on` is made.
    ///
    /// # Errors
    /// Why nothing can be mounted here.
    pub fn new(words: &[&str], on: &Path) -> Result<Mounted, String> {
        std::fs::create_dir_all(on).map_err(|e| e.to_string())?;
        let ran = Command::new("mount").args(words).arg(on).output().map_err(|e| format!("mount: {e}"))?;
        if ran.status.success() {
            Ok(Mounted(on.to_owned()))
        } else {
            Err(format!("nothing can be mounted here: {}", String::from_utf8_lossy(&ran.stderr).trim()))
        }
    }

    /// A file system that holds `mib` MiB.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn small(mib: u32, on: &Path) -> Result<Mounted, String> {
        Mounted::new(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"], on)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
