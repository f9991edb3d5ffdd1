//! A daemon under measurement, and what it takes of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Place;
use crate::outside::{Outcome, at};

/// How long a daemon may take to be ready.
const PATIENCE: Duration = Duration::from_secs(300);

/// A daemon, ended when dropped.
pub(super) struct Daemon {
    child: Child,
    socket: PathBuf,
    /// What its ready file said: an address a line.
    ready: String,
    /// Seconds from its start to when it accepted requests.
    pub(super) started: f64,
}

impl Daemon {
    /// Starts what [`Place::serve`] began and waits until it is ready.
    pub(super) fn start(command: &mut Command, place: &Place, name: &str) -> Outcome<Self> {
        let dir = place.dir.join(name);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let ready = dir.join("ready");
        let log = dir.join("serve.log");
        let file = fs::File::create(&log).map_err(at(&log))?;
        let begin = Instant::now();
        let child = command.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stderr(file).spawn();
        let child = child.map_err(at(&place.slipway))?;
        let mut daemon = Self { child, socket: dir.join("s"), ready: String::new(), started: 0.0 };
        while !ready.exists() {
            let ended = daemon.child.try_wait().ok().flatten().is_some();
            if ended || begin.elapsed() > PATIENCE {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the daemon does not come up:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.started = begin.elapsed().as_secs_f64();
        daemon.ready = fs::read_to_string(&ready).map_err(at(&ready))?;
        // One that is killed leaves it, and the next on this data must not be thought ready.
        fs::remove_file(&ready).map_err(at(&ready))?;
        Ok(daemon)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The first of its addresses that begins so.
    pub(super) fn address(&self, scheme: &str) -> Option<&str> {
        self.ready.lines().find(|line| line.starts_with(scheme))
    }

    pub(super) fn vitals(&self) -> Vitals {
        Vitals::of(self.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process takes of the host, as the kernel counts it; 0 where that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vitals {
    /// Resident memory, in KiB.
    pub(super) resident_kib: u64,
    /// The most that this ever was, in KiB.
    pub(super) peak_kib: u64,
    pub(super) threads: u64,
    /// Open files and sockets.
    pub(super) descriptors: usize,
}

impl Vitals {
    pub(super) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |field: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap_or_default();
            line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        Self {
            resident_kib: number("VmRSS:"),
            peak_kib: number("VmHWM:"),
            threads: number("Threads:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        }
    }
}
