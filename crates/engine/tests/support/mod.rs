//! What the tests with a real QEMU share: finding QEMU and the prepared guest, starting it, talking to its console.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail and talk like this")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use engine::{
    Accel, Chipset, DiskBus, DiskSpec, Engine, Firmware, Guest, GuestEvent, GuestSpec, ImageFormat,
    LayerSpec, QemuConfig, QemuEngine, TpmSpec,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Emulation on two busy cores is slow; nothing here may take nearly as long.
pub(crate) const BOOT: Duration = Duration::from_secs(120);
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Whether QEMU is here; says so when not.
pub(crate) fn have_qemu() -> bool {
    let here = Path::new("/usr/bin/qemu-system-x86_64").exists();
    if !here {
        println!("skipped: no qemu-system-x86_64");
    }
    here
}

/// The directory with the prepared guest (`tools/make_guest.sh`).
pub(crate) fn prepared() -> Option<PathBuf> {
    if !have_qemu() {
        return None;
    }
    let dir = std::env::var_os("SLIPWAY_GUEST").map(PathBuf::from);
    match dir {
        Some(dir) if dir.join("boot.raw").is_file() => Some(dir),
        Some(dir) => {
            println!("skipped: no boot.raw in SLIPWAY_GUEST={}", dir.display());
            None
        }
        None => {
            println!("skipped: SLIPWAY_GUEST is not set (tools/make_guest.sh makes such a directory)");
            None
        }
    }
}

/// A place for one test's guest, an engine, and an end for whatever it leaves running.
pub(crate) struct Bench {
    pub(crate) tmp: TempDir,
    pub(crate) engine: QemuEngine,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let tmp = tempfile::tempdir().unwrap();
        let config = QemuConfig { short_dir: tmp.path().join("s"), ..QemuConfig::default() };
        Bench { tmp, engine: QemuEngine::new(config) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    /// A guest without disks.
    pub(crate) fn spec(&self, chipset: Chipset) -> GuestSpec {
        let mut spec = GuestSpec::new(Uuid::new_v4(), "test, with a comma", self.path("run"), chipset);
        spec.accel = Accel::Tcg;
        spec.memory_mib = 64;
        // Most machines that come from elsewhere show their guest another id than the one they have here.
        spec.identity.uuid = Some(Uuid::new_v4());
        spec
    }

    /// A guest that boots the prepared disk.
    pub(crate) fn bootable(&self, prepared: &Path, chipset: Chipset, bus: DiskBus) -> GuestSpec {
        let mut spec = self.spec(chipset);
        spec.memory_mib = 512;
        let disk = self.path("boot, too.raw");
        fs::copy(prepared.join("boot.raw"), &disk).unwrap();
        spec.disks.push(disk_spec("boot", bus, 0, disk));
        spec.disks[0].boot_index = Some(0);
        spec
    }

    pub(crate) fn secure(&self, spec: &mut GuestSpec) {
        spec.firmware = Firmware::Uefi { secure_boot: true, vars: self.path("vars.fd") };
        spec.tpm = Some(TpmSpec { state_dir: self.path("tpm") });
    }

    pub(crate) fn start(&self, spec: &GuestSpec) -> (Box<dyn Guest>, Receiver<GuestEvent>) {
        let (sender, events) = mpsc::channel();
        match self.engine.start(spec, Box::new(sender)) {
            Ok(guest) => (guest, events),
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }
}

/// No test leaves a QEMU behind, however it ends.
impl Drop for Bench {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.tmp.path()).into_iter().flatten().flatten() {
            let (sender, _events) = mpsc::channel();
            if let Ok(Some(guest)) = self.engine.attach(&entry.path(), Box::new(sender)) {
                let _ = guest.power_off();
            }
        }
    }
}

pub(crate) fn disk_spec(id: &str, bus: DiskBus, slot: u32, path: PathBuf) -> DiskSpec {
    DiskSpec {
        id: id.into(),
        layers: vec![LayerSpec { path, format: ImageFormat::Raw, read_only: false }],
        bus,
        slot,
        logical_sector: 512,
        physical_sector: 512,
        read_only: false,
        serial: None,
        boot_index: None,
    }
}

/// The first event that `wanted` accepts.
pub(crate) fn event(events: &Receiver<GuestEvent>, wanted: impl Fn(&GuestEvent) -> bool) -> GuestEvent {
    let deadline = Instant::now() + SOON;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(event) if wanted(&event) => return event,
            Ok(event) => seen.push(event),
            Err(error) => panic!("{error}; saw {seen:?}"),
        }
    }
}

/// A guest's serial console.
pub(crate) struct Console {
    stream: UnixStream,
    seen: String,
}

impl Console {
    pub(crate) fn open(guest: &dyn Guest) -> Console {
        let stream = UnixStream::connect(guest.serial_socket(0).unwrap()).unwrap();
        // What was said before we came is in the log.
        let seen = fs::read(guest.serial_log(0).unwrap()).unwrap_or_default();
        Console { stream, seen: String::from_utf8_lossy(&seen).into_owned() }
    }

    pub(crate) fn send(&mut self, line: &str) {
        self.seen.clear();
        writeln!(self.stream, "{line}").unwrap();
    }

    /// The next line from now on that begins with `start`.
    pub(crate) fn next(&mut self, start: &str, limit: Duration) -> String {
        let line = self.wait(start, limit);
        let at = self.seen.find(&format!("{line}\n")).or_else(|| self.seen.find(&line)).unwrap_or(0);
        let end = self.seen[at..].find('\n').map_or(self.seen.len(), |n| at + n + 1);
        self.seen.drain(..end);
        line
    }

    /// Reads until a line begins with `start`; that line.
    pub(crate) fn wait(&mut self, start: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut buffer = [0u8; 4096];
        loop {
            let line = self.seen.split_inclusive('\n').find(|l| l.starts_with(start) && l.ends_with('\n'));
            if let Some(line) = line {
                return line.trim_end().to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {start:?} within {limit:?}; the console said:\n{}", self.seen);
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the console closed; it said:\n{}", self.seen),
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(_) => {}
            }
        }
    }
}
