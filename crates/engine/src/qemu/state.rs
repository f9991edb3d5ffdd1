//! A guest's memory and devices in a file, and back: save, thaw, load.
//!
//! ```text
//!   running ──freeze──► paused ──migrate──► postmigrate ──quit─► gone        (save)
//!      ▲                  │ failed, cancelled    │
//!      └────── cont ──────┴──────────────────────┘                           (thaw)
//!
//!   inmigrate ──migrate-incoming──► paused ──cont──► running                 (load, thaw)
//! ```
//!
//! The file is QEMU's own, with memory at fixed places (`mapped-ram`): pages of zeros stay holes. That a guest is frozen,
//! and whether it ran before, stands in its record before its processors stop: whoever finds it after a death of ours
//! can let it go on. While it is migrated away QEMU gives its images up, and takes them again at `cont`; so a restored
//! guest that was never thawed has not touched them.
//!
//! QEMU checks little of what it loads: another amount of memory or a further device passes (10.0). Comparing the
//! hardware is the caller's part.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::guest::Inner;
use super::process;
use super::runtime::Record;
use super::{args, launch};
use crate::error::{GuestError, GuestErrorKind, StartError, StartErrorKind};
use crate::guest::{RunState, SaveProgress};
use crate::qmp::{Client, Event, QmpError};
use crate::spec::GuestSpec;

/// How often progress is looked at; changes of state are heard of at once.
const LOOK: Duration = Duration::from_millis(100);
/// Longest any order about a migration may take; none of them waits for it.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
/// Longest a cancelled migration may take to be over.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);
/// Lines of QEMU's log that go into an error.
const LAST_WORDS: usize = 5;

/// What is asked while a save is under way.
pub(super) type Watch<'a> = dyn FnMut(SaveProgress) -> std::ops::ControlFlow<()> + 'a;

/// QEMU's word for a migration's state in the little that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Migration {
    /// None was ever asked for.
    None,
    Active,
    Completed,
    Cancelled,
    Failed(String),
}

fn migration(info: &Value) -> Migration {
    let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("status") {
        "" | "none" => Migration::None,
        "completed" => Migration::Completed,
        "cancelled" => Migration::Cancelled,
        "failed" => Migration::Failed(match text("error-desc") {
            "" => "no reason was given".to_owned(),
            words => words.to_owned(),
        }),
        _ => Migration::Active,
    }
}

fn progress(info: &Value) -> SaveProgress {
    let number = |key: &str| info.get("ram").and_then(|r| r.get(key)).and_then(Value::as_u64).unwrap_or(0);
    let total = number("total");
    SaveProgress { done: total.saturating_sub(number("remaining")), total }
}

fn capabilities() -> Value {
    let on = |name: &str| json!({"capability": name, "state": true});
    json!({"capabilities": [on("mapped-ram"), on("events")]})
}

/// The file, named in a way in which no character of its path means anything.
fn channel(file: &Path) -> Value {
    let address = json!({"transport": "file", "filename": file.to_string_lossy(), "offset": 0});
    json!({"channels": [{"channel-type": "main", "addr": address}]})
}

/// What stands in the way of a save, in words for people.
pub(super) fn can_save(inner: &Inner) -> Result<(), GuestError> {
    let info = inner.execute("query-migrate", Value::Null, ORDER_LIMIT)?;
    let reasons: Vec<&str> = (info.get("blocked-reasons").and_then(Value::as_array).into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    if reasons.is_empty() { Ok(()) } else { Err(obstacle(&reasons)) }
}

fn obstacle(reasons: &[&str]) -> GuestError {
    let says = |needle: &str| reasons.iter().any(|r| r.contains(needle));
    let (message, hint) = if says("/nvme") {
        (
            "QEMU cannot save the state of NVMe disks".to_owned(),
            "attach the disks to another bus while the machine is off: --disk-bus virtio-scsi",
        )
    } else if says("format used by node") {
        (
            "QEMU cannot save a guest that reads VHD or VHDX files in place".to_owned(),
            "import the machine as a copy, or shut it down instead",
        )
    } else {
        (format!("QEMU cannot save this guest: {}", reasons.join("; ")), "shut it down instead")
    };
    GuestError::new(GuestErrorKind::Unsupported, message).with_hint(hint)
}

/// Freezes the guest and writes its state; on any error it goes on as before.
pub(super) fn save(inner: &Inner, file: &Path, watch: &mut Watch<'_>) -> Result<(), GuestError> {
    let _one_at_a_time = inner.hold();
    if inner.frozen().is_some() {
        go_on(inner)?;
    }
    can_save(inner)?;
    if !file.is_absolute() || file.to_str().is_none() {
        let message = format!("{}: not an absolute path in UTF-8", file.display());
        return Err(GuestError::new(GuestErrorKind::NotFound, message));
    }
    let ran = match inner.run() {
        RunState::Running | RunState::ShuttingDown => true,
        RunState::Paused | RunState::Frozen => false,
        RunState::Starting => {
            return Err(GuestError::new(GuestErrorKind::WrongState, "the guest is still being started"));
        }
        RunState::Stopped => return Err(GuestError::new(GuestErrorKind::Gone, "the guest is gone")),
    };
    // QEMU would make it readable for more than us, and a guest's memory holds its secrets.
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(|e| {
        let kind = if is_full(&e) { GuestErrorKind::NoSpace } else { GuestErrorKind::Io };
        GuestError::new(kind, format!("{}: cannot be written", file.display())).with_source(e)
    })?;
    inner.freeze(ran)?;
    let written = write(inner, file, watch);
    if let Err(error) = &written {
        // At once: on a full disk the guest itself may need the room.
        let _ = fs::remove_file(file);
        let deadline = Instant::now() + CANCEL_LIMIT;
        // A control connection that was lost comes back as long as the guest lives.
        while let Err(stuck) = go_on(inner)
            && inner.run() != RunState::Stopped
        {
            if Instant::now() >= deadline {
                tracing::error!(guest = %inner.id(), %error, %stuck, "not saved, and it does not go on");
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    written
}

fn write(inner: &Inner, file: &Path, watch: &mut Watch<'_>) -> Result<(), GuestError> {
    if inner.word()? == "postmigrate" {
        // Paused, saved, and taken back: QEMU saves such a guest again only once it has run. An instant will do.
        inner.order("cont", RunState::Running)?;
        inner.order("stop", RunState::Paused)?;
    }
    if watch(SaveProgress::default()).is_break() {
        return Err(GuestError::new(GuestErrorKind::Cancelled, "the save was broken off"));
    }
    let news = inner.news();
    inner.execute("migrate-set-capabilities", capabilities(), ORDER_LIMIT)?;
    // Unlimited: the default is a network's 128 MiB/s, and the guest stands still meanwhile.
    inner.execute("migrate-set-parameters", json!({"max-bandwidth": 0}), ORDER_LIMIT)?;
    inner.execute("migrate", channel(file), ORDER_LIMIT)?;
    let mut broken_off = false;
    loop {
        if news.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            return Err(GuestError::new(GuestErrorKind::Gone, "the guest is gone"));
        }
        let info = inner.execute("query-migrate", Value::Null, ORDER_LIMIT)?;
        match migration(&info) {
            Migration::Completed => return Ok(()),
            Migration::Failed(words) => return Err(not_written(file, &words)),
            Migration::Cancelled => {
                return Err(GuestError::new(GuestErrorKind::Cancelled, "the save was broken off"));
            }
            Migration::None | Migration::Active => {}
        }
        if !broken_off && watch(progress(&info)).is_break() {
            inner.execute("migrate_cancel", Value::Null, ORDER_LIMIT)?;
            broken_off = true;
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn not_written(file: &Path, words: &str) -> GuestError {
    let dir = file.parent().unwrap_or(file).display();
    if words.contains("No space left on device") || words.contains("quota exceeded") {
        GuestError::new(GuestErrorKind::NoSpace, format!("the guest's memory does not fit into {dir}"))
            .with_hint("make room there (at most as much as the guest has memory), or shut it down instead")
    } else {
        GuestError::new(
            GuestErrorKind::Io,
            format!("QEMU could not write the guest's state to {dir}: {words}"),
        )
    }
}

/// Lets a frozen guest go on.
pub(super) fn thaw(inner: &Inner) -> Result<(), GuestError> {
    let _one_at_a_time = inner.hold();
    go_on(inner)
}

fn go_on(inner: &Inner) -> Result<(), GuestError> {
    let Some(ran) = inner.frozen() else { return Ok(()) };
    if inner.word()? == "inmigrate" {
        // `cont` would be obeyed as soon as it is loaded, which nobody is there to see.
        let message = "the guest's saved state has not been loaded";
        return Err(GuestError::new(GuestErrorKind::WrongState, message));
    }
    let deadline = Instant::now() + CANCEL_LIMIT;
    let news = inner.news();
    // Perhaps of an earlier process of ours.
    while migration(&inner.execute("query-migrate", Value::Null, ORDER_LIMIT)?) == Migration::Active {
        if Instant::now() >= deadline {
            return Err(GuestError::new(GuestErrorKind::TimedOut, "the save does not end"));
        }
        inner.execute("migrate_cancel", Value::Null, ORDER_LIMIT)?;
        let _ = news.recv_timeout(LOOK);
    }
    if ran {
        inner.order("cont", RunState::Running)?;
    }
    inner.unfreeze();
    Ok(())
}

/// Loads a state into a QEMU that waits for one.
pub(super) fn load(spec: &GuestSpec, client: &Client, file: &Path) -> Result<(), StartError> {
    let bad = |words: &str| {
        let message = format!("QEMU cannot load the saved state: {words}");
        StartError::new(StartErrorKind::BadState, message)
    };
    let log = spec.runtime_dir.join(args::STDERR_LOG);
    let order = |command: &str, arguments: Value| {
        client.execute(command, arguments, ORDER_LIMIT).map_err(|error| match error {
            QmpError::Refused { source, .. } => bad(&source.description),
            // It ends by itself when it cannot load; its last words say why.
            _ => match launch::shorten(&process::last_lines(&log, LAST_WORDS)) {
                // It was killed: that says nothing about the state.
                words if words.is_empty() => {
                    let message = "QEMU ended without a word while it loaded the saved state";
                    StartError::new(StartErrorKind::Failed, message).with_source(error)
                }
                words => bad(&words),
            },
        })
    };
    let news: std::sync::mpsc::Receiver<Event> = client.subscribe();
    order("migrate-set-capabilities", capabilities())?;
    order("migrate-incoming", channel(file))?;
    // As long as it takes: what is large takes long, and a QEMU that fails ends.
    loop {
        match migration(&order("query-migrate", Value::Null)?) {
            Migration::Completed => return Ok(()),
            Migration::Failed(words) => return Err(bad(&words)),
            Migration::Cancelled => return Err(bad("it was broken off")),
            Migration::None | Migration::Active => {}
        }
        let _ = news.recv_timeout(LOOK);
    }
}

impl Inner {
    /// Stops the processors, and remembers, durably and first, whether they ran.
    fn freeze(&self, ran: bool) -> Result<(), GuestError> {
        self.set_frozen(Some(ran)).map_err(|e| {
            GuestError::new(GuestErrorKind::Io, "the guest's record cannot be written").with_source(e)
        })?;
        match if ran { self.order("stop", RunState::Paused) } else { Ok(()) } {
            Ok(()) => Ok(()),
            Err(error) => {
                self.unfreeze();
                Err(error)
            }
        }
    }

    fn unfreeze(&self) {
        // One that runs is not frozen, whatever its record says: the next reader sees that too.
        if let Err(error) = self.set_frozen(None) {
            tracing::warn!(guest = %self.id(), %error, "the guest's record still says that it is frozen");
        }
    }

    fn set_frozen(&self, frozen: Option<bool>) -> std::io::Result<()> {
        let dir = &self.spec().runtime_dir;
        let written = match Record::read(dir)? {
            Some(record) => Record { frozen, ..record }.write(dir),
            None => Ok(()),
        };
        if frozen.is_none() || written.is_ok() {
            self.note_frozen(frozen);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_tells_of_a_migration() {
        for (info, what) in [
            (json!({}), Migration::None),
            (json!({"status": "setup"}), Migration::Active),
            (json!({"status": "something-new"}), Migration::Active),
            (json!({"status": "completed"}), Migration::Completed),
            (json!({"status": "failed", "error-desc": "no"}), Migration::Failed("no".into())),
        ] {
            assert_eq!(migration(&info), what, "{info}");
        }
        let info = json!({"status": "active", "ram": {"total": 100, "remaining": 30}});
        assert_eq!(progress(&info), SaveProgress { done: 70, total: 100 });
        assert_eq!(progress(&json!({})), SaveProgress::default());
    }

    #[test]
    fn obstacles_and_full_disks_are_named() {
        let error = obstacle(&["non-migratable device: 0000:00:19.0/nvme"]);
        assert!(error.hint().unwrap().contains("--disk-bus"), "{error}");
        let error = obstacle(&["The vhdx format used by node 'ide0-l1' does not support live migration"]);
        assert!(error.to_string().contains("VHDX"), "{error}");
        assert!(obstacle(&["something else"]).to_string().contains("something else"));
        let full = not_written(Path::new("/d/x"), "Unable to write to file: No space left on device");
        assert_eq!(full.kind(), GuestErrorKind::NoSpace);
        assert_eq!(not_written(Path::new("/d/x"), "whatever").kind(), GuestErrorKind::Io);
    }
}
