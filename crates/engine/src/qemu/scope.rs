//! A systemd scope for each guest: QEMU and its swtpm in a control group of their own.
//!
//! What the daemon starts is born into the daemon's control group, where `systemctl kill slipway`, a unit without
//! `KillMode=process` and the daemon's own accounting reach it. So, where systemd runs the daemon, a guest's processes
//! are handed to the manager before the guest's processors start, and it moves them:
//!
//! ```text
//!   system.slice/slipway.service                          the daemon, and helpers of its jobs
//!   machine.slice/machine-slipway.slice/
//!       slipway-<machine's id>.scope                      QEMU, swtpm
//!       slipway-switch-<hash>.scope                       the hub of a private switch
//! ```
//!
//! Moved afterwards, and not started by `systemd-run --scope`: one scope has to take two programs, the process that is
//! waited for has to be QEMU itself, and a refusal must leave a guest that runs as it does without systemd. A daemon
//! that dies before the move leaves the guest in its own group, and the next one moves it when it attaches.
//!
//! `busctl` gives the order; it comes with systemd. The bus behind it may be missing (a small system without a D-Bus
//! daemon) or refuse (a system service that is not root): then guests run where they were born, which is said once in
//! the log, and by the host's report for as long as it is so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::process::{self, Process};
use crate::host::{Check, Verdict};

/// There exactly when systemd is the init system: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Slice of all scopes; its parent is where systemd puts machines.
const SLICE: &str = "machine-slipway.slice";
/// Shuts guests down when the host does: it is stopped, and so done with that, before any scope is.
const GUESTS_UNIT: &str = "slipway-guests.service";
/// systemd's manager on the bus: service, object, interface.
const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
/// Longest one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Longest the move may take once it was ordered, and longest that the scope of the same guest's last life is waited
/// for: its swtpm ends a moment after its QEMU.
const LIMIT: Duration = Duration::from_secs(3);
const FIX: &str = "sudo apt install dbus (for a user's daemon: dbus-user-session)";

/// Whose services the daemon is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    /// The system's.
    System,
    /// A user's own.
    User,
}

/// Gives scopes, where there is somebody to get them from.
#[derive(Debug)]
pub(super) struct Scopes {
    booted: bool,
    manager: Option<Manager>,
    /// Why the last guest has none.
    refused: Mutex<Option<String>>,
}

impl Scopes {
    /// For the daemon that this process is: as a service of systemd it gives scopes, on a terminal it does not.
    pub(super) fn of_this_process() -> Scopes {
        let booted = Path::new(BOOTED).is_dir();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let manager = if booted { manager(&groups) } else { None };
        Scopes { booted, manager, refused: Mutex::new(None) }
    }

    /// For tests: gives none.
    #[cfg(test)]
    pub(super) fn none() -> Scopes {
        Scopes { booted: false, manager: None, refused: Mutex::new(None) }
    }

    /// Puts a guest's processes into the scope `name`, unless they are in it already. The first is the one that counts:
    /// when it ends, nothing is waited for. Failing is no failure of the guest.
    pub(super) fn enclose(&self, name: &str, description: &str, processes: &[&Process]) {
        let Some(manager) = self.manager else { return };
        let outcome = enclose(manager, name, description, processes);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => *refused = None,
            Err(why) if refused.is_some() => tracing::debug!(name, why, "no scope"),
            Err(why) => {
                tracing::warn!(
                    name,
                    why,
                    "no scope of its own for a guest: it runs in the daemon's control group"
                );
                *refused = Some(why);
            }
        }
    }

    /// What the host's report says about scopes; `None` where systemd does not run.
    pub(super) fn check(&self) -> Option<Check> {
        if !self.booted {
            return None;
        }
        let told = |verdict, found: String| {
            let fix = (verdict != Verdict::Ok).then(|| FIX.to_owned());
            Some(Check { id: "scopes".into(), verdict, found, fix })
        };
        let last = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(why) = last {
            return told(Verdict::Warn, format!("the last guest got no systemd scope of its own: {why}"));
        }
        // Whoever asks on a terminal wants to know about the service; root can ask that one's manager.
        let root = rustix::process::geteuid().is_root();
        let Some(manager) = self.manager.or_else(|| root.then_some(Manager::System)) else {
            let found = "systemd runs here: guests of a daemon that is a service get a scope each";
            return told(Verdict::Ok, found.into());
        };
        match call(manager, "get-property", ["Version"]) {
            Ok(_) => told(Verdict::Ok, format!("guests of the service get a systemd scope each, in {SLICE}")),
            Err(why) => told(Verdict::Warn, format!("guests of the service get no systemd scopes: {why}")),
        }
    }
}

/// The scope of a guest.
pub(super) fn of_guest(id: uuid::Uuid) -> String {
    format!("slipway-{}.scope", id.hyphenated())
}

/// Who runs the service that a process with these control groups (proc(5), `/proc/PID/cgroup`) belongs to.
fn manager(groups: &str) -> Option<Manager> {
    let service = paths(groups).find(|path| path.ends_with(".service"))?;
    // A user's manager is itself a service of the system's: user@1000.service/app.slice/slipway.service.
    let users = service.split('/').rev().skip(1).any(|part| part.starts_with("user@"));
    Some(if users { Manager::User } else { Manager::System })
}

/// The paths in the hierarchies that systemd keeps its units in: the unified one, or one of its own beside version 1.
fn paths(groups: &str) -> impl Iterator<Item = &str> {
    groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        matches!(controllers, "" | "name=systemd").then_some(path)
    })
}

fn is_in(process: &Process, scope: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap_or_default();
    paths(&groups).any(|path| path.rsplit('/').next() == Some(scope))
}

fn enclose(manager: Manager, name: &str, description: &str, processes: &[&Process]) -> Result<(), String> {
    let Some(first) = processes.first() else { return Ok(()) };
    let gone = |wait| first.ended(wait);
    let all_in = || processes.iter().all(|p| is_in(p, name));
    if all_in() {
        return Ok(());
    }
    let deadline = Instant::now() + LIMIT;
    let pids: Vec<u32> = processes.iter().map(|p| p.pid()).collect();
    let arguments = start_arguments(name, description, &pids);
    while let Err(why) = call(manager, "call", &arguments) {
        // "was already loaded": the scope of this guest's last life, which is about to go.
        if !why.contains("already") || Instant::now() >= deadline || gone(Duration::from_millis(20)) {
            return Err(why);
        }
    }
    // The order is a job of the manager's; whether it is done is told by the kernel.
    while !all_in() {
        if gone(Duration::from_millis(2)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("{name} was ordered and did not take its processes"));
        }
    }
    Ok(())
}

/// `StartTransientUnit` and its arguments, in busctl's words: a type, and as many words as it has values.
fn start_arguments(name: &str, description: &str, pids: &[u32]) -> Vec<String> {
    let mut words: Vec<String> =
        ["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"].map(Into::into).into();
    words.push("5".into());
    words.extend(["Description", "s", description].map(Into::into));
    words.extend(["Slice", "s", SLICE].map(Into::into));
    // One that was killed is forgotten as well, so that its name is free for the next life.
    words.extend(["CollectMode", "s", "inactive-or-failed"].map(Into::into));
    words.extend(["Before", "as", "1", GUESTS_UNIT].map(Into::into));
    words.extend(["PIDs", "au"].map(Into::into));
    words.push(pids.len().to_string());
    words.extend(pids.iter().map(ToString::to_string));
    // No auxiliary units.
    words.push("0".into());
    words
}

/// Asks the manager through `busctl`; the answer, or its words about why not.
fn call<S: AsRef<std::ffi::OsStr>>(
    manager: Manager,
    verb: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    let busctl = process::find_program("busctl").ok_or("busctl is not installed")?;
    let mut command = Command::new(busctl);
    command.arg(if manager == Manager::User { "--user" } else { "--system" });
    command.args(["--allow-interactive-authorization=no", "--", verb]).args(MANAGER).args(arguments);
    match process::run(&mut command, CALL_LIMIT) {
        Ok((status, text)) if status.success() => Ok(text),
        Ok((_, text)) => Err(text.trim().to_owned()),
        Err(error) => Err(format!("busctl: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_have_a_manager_to_ask() {
        for (groups, who) in [
            ("0::/system.slice/slipway.service\n", Some(Manager::System)),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/slipway.service\n",
                Some(Manager::User),
            ),
            // A hybrid host: systemd's own hierarchy beside version 1, and controllers that lie elsewhere.
            (
                "3:memory:/x.service\n1:name=systemd:/system.slice/slipway.service\n0::/system.slice/slipway.service\n",
                Some(Manager::System),
            ),
            // A version 1 hierarchy of the outside, seen from within a container.
            ("9:name=systemd:/\n0::/system.slice/slipway.service\n", Some(Manager::System)),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-term.scope\n", None),
            ("3:memory:/system.slice/slipway.service\n0::/\n", None),
            ("garbage\n\n", None),
            ("", None),
        ] {
            assert_eq!(manager(groups), who, "{groups}");
        }
    }

    #[test]
    fn the_order_names_each_property_with_its_type_and_its_values() {
        let id = uuid::Uuid::from_u128(7);
        let words = start_arguments(&of_guest(id), "Slipway machine -x \"y\"", &[12, 345]);
        assert_eq!(
            words,
            [
                "StartTransientUnit",
                "ssa(sv)a(sa(sv))",
                "slipway-00000000-0000-0000-0000-000000000007.scope",
                "fail",
                "5",
                "Description",
                "s",
                "Slipway machine -x \"y\"",
                "Slice",
                "s",
                "machine-slipway.slice",
                "CollectMode",
                "s",
                "inactive-or-failed",
                "Before",
                "as",
                "1",
                "slipway-guests.service",
                "PIDs",
                "au",
                "2",
                "12",
                "345",
                "0",
            ]
        );
    }

    #[test]
    fn a_refusal_is_kept_for_the_report_and_nothing_is_asked_outside_a_service() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap().unwrap();
        let exit = process::reap(child).unwrap();
        let scopes = Scopes::none();
        scopes.enclose("slipway-x.scope", "x", &[&process]);
        assert!(scopes.check().is_none());

        // A user's manager that does not know this process refuses it, as does a bus that is not there.
        let scopes = Scopes { booted: true, manager: Some(Manager::User), refused: Mutex::new(None) };
        scopes.enclose("no unit's name", "x", &[&process]);
        let check = scopes.check().unwrap();
        assert_eq!(check.verdict, Verdict::Warn, "{check:?}");
        assert!(check.fix.is_some() && !check.found.ends_with(": "), "{check:?}");
        assert!(!process.ended(Duration::ZERO), "it runs on all the same");
        process.kill(rustix::process::Signal::KILL);
        exit.recv().unwrap();
    }
}
