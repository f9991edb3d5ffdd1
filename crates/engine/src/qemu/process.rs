//! Processes: starting them in sessions of their own, naming them without doubt, noticing their end.
//!
//! A process id alone is no name (the kernel reuses it), so a process is known here by its id *and* its start time,
//! and held by a pidfd, which can never come to mean another.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Starts of programs go one at a time: while one is to inherit a descriptor, no other may.
static SPAWNING: Mutex<()> = Mutex::new(());

/// A descriptor that a child is to inherit under the number it has here.
#[derive(Debug)]
pub(super) struct InheritedFd(OwnedFd);

impl InheritedFd {
    pub(super) fn new(fd: OwnedFd) -> Self {
        InheritedFd(fd)
    }

    /// Its number, here and in the child.
    pub(super) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Starts a program with these descriptors open in it, and no others of ours but the standard three.
pub(super) fn spawn(command: &mut Command, inherit: &[&InheritedFd]) -> io::Result<Child> {
    let _one_at_a_time = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    for fd in inherit {
        rustix::io::fcntl_setfd(&fd.0, FdFlags::empty())?;
    }
    let child = command.spawn();
    for fd in inherit {
        rustix::io::fcntl_setfd(&fd.0, FdFlags::CLOEXEC)?;
    }
    child
}

/// Runs a short helper program to its end; its output, with standard error after standard output.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<(ExitStatus, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command, &[])?;
    let process = Process::open(child.id())?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("helper".into()).spawn(move || {
        let _ = sender.send(child.wait_with_output());
    })?;
    let output = match receiver.recv_timeout(limit) {
        Ok(output) => output?,
        Err(_) => {
            if let Some(process) = process {
                process.kill(Signal::KILL);
            }
            return Err(io::ErrorKind::TimedOut.into());
        }
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status, text))
}

/// A process, held.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    start_time: u64,
    handle: OwnedFd,
}

impl Process {
    /// The process that has this id now; `None` when none has.
    pub(crate) fn open(pid: u32) -> io::Result<Option<Process>> {
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after opening: if the id had been reused in between, the handle would be of the newer process and so
        // is this start time, or the file is gone.
        Ok(start_time(pid).map(|start_time| Process { pid, start_time, handle }))
    }

    /// The same, only if it also began at this time.
    pub(super) fn open_exact(pid: u32, start_time: u64) -> io::Result<Option<Process>> {
        Ok(Process::open(pid)?.filter(|p| p.start_time == start_time && !p.ended(Duration::ZERO)))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// In clock ticks since the host booted.
    pub(super) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Waits for its end, at most `limit`. Whether it has ended.
    pub(crate) fn ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let handle = self.handle.as_fd();
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends a signal; one that has ended does not mind.
    pub(crate) fn kill(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal)
            && error != Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal");
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)).
fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The program's name is in parentheses and may hold blanks and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Waits for a child from a thread of its own, so that it never stays a zombie whatever becomes of its handle.
pub(super) fn reap(mut child: Child) -> io::Result<Receiver<ExitStatus>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("reaper".into()).spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(status);
        }
    })?;
    Ok(receiver)
}

/// The last lines of a log, at most `lines` of them from its last 8 KiB.
pub(super) fn last_lines(path: &Path, lines: usize) -> String {
    const TAIL: usize = 8 * 1024;
    let bytes = fs::read(path).unwrap_or_default();
    let tail = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
    let text = String::from_utf8_lossy(tail);
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// A program among the places where Debian puts them. The environment is not ours to read.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_move_the_start_time() {
        let stat = "42 (a) R 1 2) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2";
        assert_eq!(parse_start_time(stat), Some(98765));
        assert_eq!(parse_start_time("garbage"), None);
    }

    #[test]
    fn the_end_of_a_process_is_noticed_and_its_id_alone_is_not_it() {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap().unwrap();
        assert!(!process.ended(Duration::ZERO));
        assert!(Process::open_exact(process.pid(), process.start_time() + 1).unwrap().is_none());
        assert!(Process::open_exact(process.pid(), process.start_time()).unwrap().is_some());
        let status = reap(child).unwrap();
        process.kill(Signal::KILL);
        assert!(process.ended(Duration::from_secs(5)));
        assert!(!status.recv_timeout(Duration::from_secs(5)).unwrap().success());
    }

    #[test]
    fn helpers_that_hang_are_ended() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (status, text) = run(Command::new("echo").arg("hi"), Duration::from_secs(5)).unwrap();
        assert!(status.success());
        assert_eq!(text, "hi\n");
    }
}
