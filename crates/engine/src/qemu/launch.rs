//! From a specification to a running process, step by step, each with its undo.
//!
//! ```text
//! check spec ─► choose accelerator, machine, CPU, firmware ─► look at files ─► variables ─► record
//!    ─► TPM ─► taps ─► QEMU, processors standing ─► QMP ─► scope ─► links, media ─► go, or load a saved state and stand
//! ```
//!
//! Whatever fails, what was begun is taken back and QEMU's own last words are in the error. QEMU is started through
//! `setsid`, so that neither our terminal nor our end reaches it; its standard error goes to a log that outlives us
//! (`-daemonize` would throw it away). A daemon that is killed between the start and the last step leaves a guest
//! whose processors stand; [`finish`] is run again when that guest is attached.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::args::{self, FilePlan, Plan};
use super::install::{self, Qemu};
use super::process::{self, InheritedFd, Process};
use super::runtime::{self, ProcessName, Record};
use super::scope::{self, Scopes};
use super::state;
use super::tpm::{self, Tpm};
use super::vpc::{self, Vpc};
use super::{QemuConfig, bridge, layout, switch};
use crate::error::{StartError, StartErrorKind};
use crate::host::{FirmwareFound, KvmVerdict};
use crate::qmp::{Client, Event, QmpError};
use crate::spec::{Accel, Firmware, GuestSpec, ImageFormat, NicBackend, Resolved};

/// Longest any single order may take while a guest comes up.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
const START_LOCK: &str = "start.lock";
/// How long the status of a process that has ended may take to reach us.
const EXIT_LIMIT: Duration = Duration::from_secs(1);
/// Lines of QEMU's log that go into an error.
const LAST_WORDS: usize = 5;

/// A guest that runs.
pub(super) struct Launched {
    pub(super) resolved: Resolved,
    pub(super) sockets: PathBuf,
    pub(super) process: Process,
    pub(super) exit: Receiver<ExitStatus>,
    pub(super) client: Client,
    pub(super) events: Receiver<Event>,
}

fn fail(kind: StartErrorKind, message: impl Into<String>) -> StartError {
    StartError::new(kind, message)
}

/// Starts a guest; from a saved state it is left standing.
pub(super) fn launch(
    spec: &GuestSpec,
    saved: Option<&Path>,
    config: &QemuConfig,
    qemu: &Qemu,
    kvm: &dyn Fn() -> KvmVerdict,
    scopes: &Scopes,
) -> Result<Launched, StartError> {
    spec.validate().map_err(|e| {
        fail(StartErrorKind::InvalidSpec, "the guest's specification is wrong").with_source(e)
    })?;
    for path in args::paths(spec) {
        if path.to_str().is_none() {
            return Err(fail(
                StartErrorKind::InvalidSpec,
                format!("{}: QEMU takes only paths in UTF-8", path.display()),
            ));
        }
    }
    let resolved = resolve(spec, qemu, kvm)?;
    let firmware = choose_firmware(spec, &install::firmware(&config.firmware_dirs))?;
    let files = look_at_files(spec, resolved.accel)?;
    runtime::private_dir(&spec.runtime_dir).map_err(|e| io_error(&spec.runtime_dir, "cannot be made", e))?;
    // Two starts in one place would take each other's sockets; the second waits here and is then refused.
    let _one_at_a_time = runtime::lock(&spec.runtime_dir.join(START_LOCK))
        .map_err(|e| io_error(&spec.runtime_dir, "cannot be locked", e))?;
    let sockets = runtime::socket_dir(&spec.runtime_dir, &config.short_dir)
        .map_err(|e| io_error(&spec.runtime_dir, "has no short name for its sockets", e))?;
    refuse_second(spec, &sockets)?;
    if let (Firmware::Uefi { vars, .. }, Some(found)) = (&spec.firmware, &firmware) {
        create_vars(vars, &found.vars)?;
    }
    let mut record = Record {
        version: Record::VERSION,
        spec: spec.clone(),
        resolved: resolved.clone(),
        process: None,
        frozen: saved.map(|_| true),
    };
    record.write(&spec.runtime_dir).map_err(|e| io_error(&spec.runtime_dir, "cannot be written to", e))?;

    let made = Made { resolved: &resolved, firmware: firmware.as_ref(), files: &files, sockets: &sockets };
    let started = start_processes(spec, config, qemu, &made, saved.is_some());
    let (process, exit, client, events) = match started {
        Ok(started) => started,
        Err(error) => {
            Record::remove(&spec.runtime_dir);
            runtime::forget_socket_dir(&spec.runtime_dir, &sockets);
            return Err(error);
        }
    };
    record.process = Some(ProcessName { pid: process.pid(), start_time: process.start_time() });
    let ready = (record.write(&spec.runtime_dir))
        .map_err(|e| io_error(&spec.runtime_dir, "cannot be written to", e))
        // While its processors stand: the memory that the guest touches is then charged to its own group.
        .map(|()| enclose(spec, &process, scopes))
        .and_then(|()| switch::join(spec, &process, &sockets, config, &qemu.program.path, scopes))
        .and_then(|()| match saved {
            None => finish(spec, &client),
            Some(file) => {
                prepare(spec, &client)?;
                state::load(spec, &client, file)?;
                // What was loaded has the cables as they were where it was saved.
                cables(spec, &client)
            }
        });
    if let Err(error) = ready {
        process.kill(Signal::KILL);
        process.ended(Duration::from_secs(5));
        switch::leave(spec, Some(&process), &config.short_dir);
        Record::remove(&spec.runtime_dir);
        runtime::forget_socket_dir(&spec.runtime_dir, &sockets);
        return Err(error);
    }
    Ok(Launched { resolved, sockets, process, exit, client, events })
}

/// Gives a running guest, with its TPM, a scope of its own where there are scopes.
pub(super) fn enclose(spec: &GuestSpec, process: &Process, scopes: &Scopes) {
    let tpm = spec.tpm.as_ref().and_then(|_| tpm::running(&spec.runtime_dir));
    let processes: Vec<&Process> = std::iter::once(process).chain(&tpm).collect();
    scopes.enclose(&scope::of_guest(spec.id), &format!("Slipway machine {}", spec.name), &processes);
}

fn io_error(path: &Path, what: &str, error: io::Error) -> StartError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StartErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => StartErrorKind::Denied,
        _ => StartErrorKind::Failed,
    };
    fail(kind, format!("{} {what}", path.display())).with_source(error)
}

fn resolve(spec: &GuestSpec, qemu: &Qemu, kvm: &dyn Fn() -> KvmVerdict) -> Result<Resolved, StartError> {
    let accel = match spec.accel {
        Accel::Tcg => Accel::Tcg,
        Accel::Auto if kvm().usable => Accel::Kvm,
        Accel::Auto => Accel::Tcg,
        Accel::Kvm => {
            let verdict = kvm();
            if !verdict.usable {
                let error = fail(StartErrorKind::NoAccel, format!("KVM cannot be used: {}", verdict.reason));
                return Err(match verdict.fix {
                    Some(fix) => error.with_hint(fix),
                    None => error.with_hint("start it with emulation (accel tcg)"),
                });
            }
            Accel::Kvm
        }
    };
    let machine = match &spec.machine_version {
        Some(kept) => kept.clone(),
        None => qemu.newest_machine(spec.chipset).to_owned(),
    };
    let cpu = match (&spec.cpu_model, accel) {
        // A kept `host` means nothing to emulation; a guest that moved to a host without KVM still has to boot.
        (Some(kept), Accel::Tcg) if kept == "host" || kept.starts_with("host,") => "max".to_owned(),
        (Some(kept), _) => kept.clone(),
        (None, Accel::Kvm) => "host".to_owned(),
        (None, _) => "max".to_owned(),
    };
    Ok(Resolved { machine_version: machine, cpu_model: cpu, accel })
}

fn choose_firmware(spec: &GuestSpec, found: &[FirmwareFound]) -> Result<Option<FirmwareFound>, StartError> {
    let Firmware::Uefi { secure_boot, .. } = &spec.firmware else { return Ok(None) };
    match found.iter().find(|f| f.secure_boot == *secure_boot) {
        Some(found) => Ok(Some(found.clone())),
        None => {
            let which = if *secure_boot { "with Secure Boot " } else { "" };
            Err(fail(StartErrorKind::NoFirmware, format!("no UEFI firmware {which}on this host"))
                .with_hint(install::FIX_OVMF))
        }
    }
}

/// Gives a machine its own variable store, from the template, unless it has one.
fn create_vars(vars: &Path, template: &Path) -> Result<(), StartError> {
    if vars.exists() {
        return Ok(());
    }
    if let Some(parent) = vars.parent() {
        runtime::private_dir(parent).map_err(|e| io_error(parent, "cannot be made", e))?;
    }
    let bytes = fs::read(template).map_err(|e| io_error(template, "cannot be read", e))?;
    runtime::replace(vars, &bytes).map_err(|e| io_error(vars, "cannot be written", e))
}

/// Looks at every image before QEMU does, for messages that name the file and for what `Plan` has to know.
fn look_at_files(spec: &GuestSpec, accel: Accel) -> Result<Vec<Vec<FilePlan>>, StartError> {
    for media in spec.drives.iter().filter_map(|d| d.media.as_ref()) {
        fs::File::open(media).map_err(|e| io_error(media, "cannot be opened", e))?;
    }
    spec.disks
        .iter()
        .map(|disk| {
            disk.layers
                .iter()
                .enumerate()
                .map(|(depth, layer)| {
                    let write = depth == 0 && !disk.is_read_only();
                    let path = &layer.path;
                    let file = fs::OpenOptions::new()
                        .read(true)
                        .write(write)
                        .open(path)
                        .map_err(|e| io_error(path, "cannot be opened", e))?;
                    if file.metadata().is_ok_and(|m| m.is_dir()) {
                        return Err(fail(
                            StartErrorKind::Failed,
                            format!("{} is a directory", path.display()),
                        ));
                    }
                    let raw_size = match layer.format {
                        ImageFormat::Vpc => vhd_size(path)?,
                        ImageFormat::Raw | ImageFormat::Qcow2 | ImageFormat::Vhdx => None,
                    };
                    // Past the page cache under KVM, as guests have a cache of their own. An emulated guest is there for a
                    // test or a look; its firmware reads sector by sector and gains more from the host's cache.
                    Ok(FilePlan { direct: accel == Accel::Kvm && takes_direct(path), raw_size })
                })
                .collect()
        })
        .collect()
}

fn vhd_size(path: &Path) -> Result<Option<u64>, StartError> {
    match vpc::look(path).map_err(|e| io_error(path, "cannot be read as a VHD", e))? {
        Vpc::Raw(size) => Ok(Some(size)),
        Vpc::Driver => Ok(None),
        Vpc::CutShort { bytes, geometry } => Err(fail(
            StartErrorKind::Failed,
            format!(
                "{}: QEMU would show {geometry} of this VHD's {bytes} bytes (it believes the geometry of this creator)",
                path.display()
            ),
        )
        .with_hint("convert it: slipway disk convert FILE.vhd FILE.raw --format raw")),
    }
}

fn takes_direct(path: &Path) -> bool {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    fs::OpenOptions::new().read(true).custom_flags(direct).open(path).is_ok()
}

/// Refuses to start beside a guest that is there already, and clears what one that is gone has left.
fn refuse_second(spec: &GuestSpec, sockets: &Path) -> Result<(), StartError> {
    let dir = &spec.runtime_dir;
    let running = |pid: u32| {
        fail(
            StartErrorKind::AlreadyRunning,
            format!("a guest already runs in {} (process {pid})", dir.display()),
        )
    };
    // An unreadable record must not keep a guest from starting for ever; the socket still tells.
    let named = Record::read(dir).ok().flatten().and_then(|r| r.process);
    if let Some(name) = named
        && let Ok(Some(process)) = Process::open_exact(name.pid, name.start_time)
    {
        return Err(running(process.pid()));
    }
    if let Some(process) = listener(&sockets.join(args::QMP_SOCKET)) {
        return Err(running(process.pid()));
    }
    runtime::sweep(dir);
    Ok(())
}

/// Who listens on a socket: the kernel's word, not a file's.
pub(super) fn listener(socket: &Path) -> Option<Process> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Process::open(u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?).ok().flatten()
}

type Started = (Process, Receiver<ExitStatus>, Client, Receiver<Event>);

/// What was found out before the first process.
struct Made<'a> {
    resolved: &'a Resolved,
    firmware: Option<&'a FirmwareFound>,
    files: &'a [Vec<FilePlan>],
    sockets: &'a Path,
}

fn start_processes(
    spec: &GuestSpec,
    config: &QemuConfig,
    qemu: &Qemu,
    made: &Made<'_>,
    incoming: bool,
) -> Result<Started, StartError> {
    let mut sandbox = config.sandbox;
    loop {
        let taps = taps(spec)?;
        let tpm = spec.tpm.as_ref().map(|t| tpm::start(t, &spec.runtime_dir, made.sockets)).transpose()?;
        let plan = Plan {
            spec,
            machine: &made.resolved.machine_version,
            cpu: &made.resolved.cpu_model,
            accel: made.resolved.accel,
            firmware_code: made.firmware.map(|f| f.code.as_path()),
            sockets: made.sockets,
            files: made.files,
            taps: &taps,
            sandbox,
            incoming,
        };
        match start_qemu(&plan, config, qemu) {
            Ok(started) => return Ok(started),
            Err(error) => {
                tpm.into_iter().for_each(Tpm::abandon);
                // Some containers forbid seccomp filters; a guest without one is better than none, but say so.
                if sandbox && error.to_string().contains("seccomp") {
                    tracing::warn!(%error, "starting QEMU without its sandbox");
                    sandbox = false;
                    continue;
                }
                return Err(error);
            }
        }
    }
}

fn taps(spec: &GuestSpec) -> Result<Vec<Option<InheritedFd>>, StartError> {
    (spec.nics.iter())
        .map(|nic| match &nic.backend {
            NicBackend::Bridge { name, vlan } => bridge::tap(name, *vlan).map(Some),
            NicBackend::None | NicBackend::User | NicBackend::Private { .. } => Ok(None),
        })
        .collect()
}

fn start_qemu(plan: &Plan<'_>, config: &QemuConfig, qemu: &Qemu) -> Result<Started, StartError> {
    let spec = plan.spec;
    let log_path = spec.runtime_dir.join(args::STDERR_LOG);
    let log = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|e| io_error(&log_path, "cannot be written", e))?;
    let mut command = detached(&qemu.program.path)?;
    command.args(args::arguments(plan));
    let out = log.try_clone().map_err(|e| io_error(&log_path, "cannot be shared", e))?;
    command.stdin(Stdio::null()).stdout(out).stderr(log);
    tracing::debug!(?command, "starting QEMU");
    let inherit: Vec<&InheritedFd> = plan.taps.iter().flatten().collect();
    let child = process::spawn(&mut command, &inherit)
        .map_err(|e| fail(StartErrorKind::Failed, "QEMU could not be started").with_source(e))?;
    let pid = child.id();
    let exit = process::reap(child)
        .map_err(|e| fail(StartErrorKind::Failed, "no thread to wait for QEMU").with_source(e))?;
    let gone = || match process::last_lines(&log_path, LAST_WORDS) {
        words if words.is_empty() => wordless(exit.recv_timeout(EXIT_LIMIT).ok()),
        words => judge(&words),
    };
    let Ok(Some(process)) = Process::open(pid) else { return Err(gone()) };

    let deadline = Instant::now() + config.start_limit;
    let socket = plan.sockets.join(args::QMP_SOCKET);
    // QEMU listens only once everything is built; until then there is nothing to wait on but its end.
    while !socket.exists() {
        if process.ended(Duration::from_millis(5)) {
            return Err(gone());
        }
        if Instant::now() >= deadline {
            process.kill(Signal::KILL);
            return Err(timed_out(config, &log_path));
        }
    }
    loop {
        match Client::connect(&socket) {
            Ok((client, events)) => return Ok((process, exit, client, events)),
            // Bound but not yet listening, or QEMU failed right after.
            Err(QmpError::Io(_) | QmpError::Disconnected) if Instant::now() < deadline => {
                if process.ended(Duration::from_millis(5)) {
                    return Err(gone());
                }
            }
            Err(error) => {
                process.kill(Signal::KILL);
                return Err(timed_out(config, &log_path).with_source(error));
            }
        }
    }
}

/// A QEMU in a session of its own; its arguments are still to come.
pub(super) fn detached(qemu: &Path) -> Result<Command, StartError> {
    let setsid = process::find_program("setsid").ok_or_else(|| {
        fail(StartErrorKind::NotInstalled, "setsid is not installed").with_hint("sudo apt install util-linux")
    })?;
    let mut command = Command::new(setsid);
    command.arg(qemu).current_dir("/");
    Ok(command)
}

fn timed_out(config: &QemuConfig, log: &Path) -> StartError {
    let words = process::last_lines(log, LAST_WORDS);
    let seconds = config.start_limit.as_secs();
    fail(StartErrorKind::TimedOut, format!("QEMU was not ready after {seconds} s: {words}"))
}

/// QEMU's words on one line, without its own name in front of each, which tells nobody anything.
pub(super) fn shorten(words: &str) -> String {
    let bare = words.lines().map(|l| l.split_once("qemu-system-x86_64: ").map_or(l, |(_, rest)| rest));
    bare.collect::<Vec<_>>().join("; ")
}

/// A QEMU that ended while it started and said nothing: how it ended is all there is.
fn wordless(status: Option<ExitStatus>) -> StartError {
    let how = status.map_or_else(String::new, |s| format!(" ({s})"));
    let error = fail(StartErrorKind::Failed, format!("QEMU ended without a word{how}"));
    if status.and_then(|s| s.signal()) == Some(Signal::KILL.as_raw()) {
        return error.with_hint("if nobody killed it, the host may have run out of memory: journalctl -k");
    }
    error
}

/// What the last words of a QEMU that did not start mean.
fn judge(words: &str) -> StartError {
    let says = |needle: &str| words.contains(needle);
    let message = shorten(words);
    let message = format!("QEMU did not start: {message}");
    if says("Cannot lock pid file") || says("cannot create PID file") {
        fail(StartErrorKind::AlreadyRunning, message)
    } else if says("lock") && (says("Is another process using the image") || says("Failed to get")) {
        fail(StartErrorKind::InUse, message)
            .with_hint("stop what uses the image (see: sudo fuser -v FILE), or copy it")
    } else if says("cannot set up guest memory") || says("Cannot allocate memory") {
        fail(StartErrorKind::NoResources, message)
            .with_hint("give the guest less memory, or stop another one")
    } else if says("Could not access KVM") || says("failed to initialize kvm") || says("SMM is not available")
    {
        fail(StartErrorKind::NoAccel, message)
    } else if says("No such file or directory") {
        fail(StartErrorKind::NotFound, message)
    } else if says("Permission denied") {
        fail(StartErrorKind::Denied, message)
    } else if says("unsupported machine type") {
        fail(StartErrorKind::NotInstalled, message)
            .with_hint("this guest was first started by a newer QEMU; install that version or newer")
    } else {
        fail(StartErrorKind::Failed, message)
    }
}

/// The last steps over QMP: cables that are out, discs that are in, processors that run. Twice does no harm.
pub(super) fn finish(spec: &GuestSpec, client: &Client) -> Result<(), StartError> {
    prepare(spec, client)?;
    order(client, "cont", json!({}))
}

/// Cables that are out and discs that are in.
fn prepare(spec: &GuestSpec, client: &Client) -> Result<(), StartError> {
    cables(spec, client)?;
    for drive in &spec.drives {
        if let Some(media) = &drive.media {
            let device = layout::storage_id(drive.bus, drive.slot);
            order(client, "blockdev-change-medium", insert(&device, media, false))?;
        }
    }
    Ok(())
}

fn cables(spec: &GuestSpec, client: &Client) -> Result<(), StartError> {
    for (i, nic) in spec.nics.iter().enumerate() {
        if nic.backend == NicBackend::None {
            order(client, "set_link", json!({"name": layout::nic_id(i), "up": false}))?;
        }
    }
    Ok(())
}

fn order(client: &Client, command: &str, arguments: serde_json::Value) -> Result<(), StartError> {
    client.execute(command, arguments, ORDER_LIMIT).map(|_| ()).map_err(|error| match error {
        QmpError::Refused { command, source } => {
            let StartErrorBits { kind, hint } = refusal(&source.description);
            let error = fail(kind, format!("QEMU refused {command}")).with_source(source);
            match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        other => fail(StartErrorKind::Failed, "QEMU ended while it started").with_source(other),
    })
}

struct StartErrorBits {
    kind: StartErrorKind,
    hint: Option<String>,
}

fn refusal(words: &str) -> StartErrorBits {
    let judged = judge(words);
    StartErrorBits { kind: judged.kind(), hint: judged.hint().map(ToOwned::to_owned) }
}

/// The arguments that put an ISO image into a drive.
pub(super) fn insert(device: &str, media: &Path, force: bool) -> serde_json::Value {
    json!({
        "id": device, "filename": media.to_string_lossy(), "format": "raw",
        "read-only-mode": "read-only", "force": force,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QemuEngine;
    use crate::guest::{Engine, RunState};
    use crate::spec::Chipset;

    #[test]
    fn last_words_become_kinds() {
        for (words, kind) in [
            (
                "qemu-system-x86_64: -blockdev {...}: Failed to get \"write\" lock\nIs another process using the image [/d/a.raw]?",
                StartErrorKind::InUse,
            ),
            (
                "qemu-system-x86_64: cannot create PID file: Cannot lock pid file: Resource temporarily unavailable",
                StartErrorKind::AlreadyRunning,
            ),
            (
                "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
                StartErrorKind::NoResources,
            ),
            (
                "qemu-system-x86_64: -blockdev x: Could not open 'y': No such file or directory",
                StartErrorKind::NotFound,
            ),
            (
                "qemu-system-x86_64: -machine pc-i440fx-99.0: unsupported machine type",
                StartErrorKind::NotInstalled,
            ),
        ] {
            let error = judge(words);
            assert_eq!(error.kind(), kind, "{words}");
            assert!(!error.to_string().contains("qemu-system"), "{error}");
        }
        let killed = wordless(Some(ExitStatus::from_raw(Signal::KILL.as_raw())));
        assert!(killed.to_string().contains("SIGKILL") && killed.hint().is_some(), "{killed}");
        assert_eq!(wordless(None).to_string(), "QEMU ended without a word");
    }

    #[test]
    fn a_start_that_was_cut_off_is_completed_by_the_next_daemon() {
        let Ok(qemu) = Qemu::find(None) else {
            println!("skipped: no qemu-system-x86_64");
            return;
        };
        let tmp = tempfile::tempdir().unwrap();
        let config = QemuConfig { short_dir: tmp.path().join("s"), ..QemuConfig::default() };
        let mut spec = GuestSpec::new(uuid::Uuid::new_v4(), "m", tmp.path().join("run"), Chipset::Pc);
        spec.accel = Accel::Tcg;
        spec.memory_mib = 32;
        let verdict = || KvmVerdict { usable: false, reason: String::new(), fix: None };
        let resolved = resolve(&spec, &qemu, &verdict).unwrap();
        runtime::private_dir(&spec.runtime_dir).unwrap();
        let record = Record {
            version: 1,
            spec: spec.clone(),
            resolved: resolved.clone(),
            process: None,
            frozen: None,
        };
        record.write(&spec.runtime_dir).unwrap();
        let sockets = spec.runtime_dir.clone();
        let made = Made { resolved: &resolved, firmware: None, files: &[], sockets: &sockets };
        let started = start_processes(&spec, &config, &qemu, &made, false).unwrap();
        assert_eq!(started.2.status(ORDER_LIMIT).unwrap(), "prelaunch");
        let pid = started.0.pid();
        drop(started); // our death: no process in the record, processors standing

        let engine = QemuEngine::new(config);
        let (sender, _events) = std::sync::mpsc::channel();
        let guest = engine.attach(&spec.runtime_dir, Box::new(sender)).unwrap().unwrap();
        assert_eq!(guest.pid(), Some(pid));
        assert_eq!(guest.state(), RunState::Running);
        guest.power_off().unwrap();
    }
}
