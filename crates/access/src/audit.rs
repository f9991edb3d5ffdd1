//! The log of who did what: one line of JSON for each, appended.
//!
//! ```json
//! {"time":"2026-11-25T12:00:00.5Z","user":"ada","from":"192.0.2.7","does":"export","what":"ExportSystemDefinition","machine":"…","end":"accepted"}
//! ```
//!
//! A line is written with one call and synced to the disk before what it tells of is answered when it tells of a change
//! or an export, so that a power cut takes no such line with it; refusals and sign-ins are written and not waited for.
//! What cannot be written is said in the daemon's log, and what was asked for goes on: a full disk must not keep an
//! administrator from making room.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// Longest text of a client's that a line carries, in characters.
pub const MAX_TEXT: usize = 512;
/// A log of this size is set aside as `<name>.1`, in bytes; the one set aside before goes.
pub const MAX_FILE: u64 = 64 << 20;

/// One thing that somebody did, or was not let do.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// Who, by name; as it was claimed where it was not proven.
    pub user: &'a str,
    /// From where: an address, or `socket`.
    pub from: &'a str,
    /// What kind of thing, as [`Action::word`](crate::Action::word) says, or `sign-in`.
    pub does: &'a str,
    /// The request: a method, or a method and path.
    pub what: &'a str,
    /// The machine it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Uuid>,
    /// How it ended: `accepted`, `refused`, or a code.
    pub end: &'a str,
}

#[derive(Serialize)]
struct Stamped<'a> {
    time: Timestamp,
    #[serde(flatten)]
    line: Line<'a>,
}

/// An audit log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
}

impl Audit {
    /// The log at `path`, made with its first line, for its owner only.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: Mutex::new(None) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line. `lasting`: it is on the disk when this returns.
    pub fn write(&self, line: Line<'_>, lasting: bool) {
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let (user, from, what) = (cut(line.user), cut(line.from), cut(line.what));
        let line = Line { user: &user, from: &from, what: &what, ..line };
        let written = serde_json::to_vec(&Stamped { time: Timestamp::now(), line })
            .map_err(std::io::Error::other)
            .and_then(|bytes| self.append(bytes, lasting));
        if let Err(error) = written {
            tracing::error!("the audit log `{}` cannot be written: {error}", self.path.display());
        }
    }

    fn append(&self, mut bytes: Vec<u8>, lasting: bool) -> std::io::Result<()> {
        bytes.push(b'\n');
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|(_, size)| *size >= MAX_FILE) {
            *open = None;
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
        }
        let (file, size) = match &mut *open {
            Some(there) => there,
            None => open.insert(self.open()?),
        };
        let done = file.write_all(&bytes).and_then(|()| if lasting { file.sync_data() } else { Ok(()) });
        *size += bytes.len() as u64;
        if done.is_err() {
            // Half a line may be there: the next one begins a new line, and the file is opened anew.
            *open = None;
        }
        done
    }

    fn open(&self) -> std::io::Result<(File, u64)> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok((file, size))
    }
}

#[cfg(test)]
mod tests {
    use super::{Audit, Line, MAX_TEXT};

    fn line<'a>(user: &'a str, what: &'a str) -> Line<'a> {
        Line { user, from: "192.0.2.7", does: "export", what, machine: None, end: "accepted" }
    }

    #[test]
    fn lines_are_whole_whatever_a_client_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::new(&path);
        audit.write(line("ada\"\n{}", "ExportSystemDefinition"), true);
        audit.write(line(&"x".repeat(100_000), "Export"), false);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["user"], "ada\"\n{}");
        assert_eq!(lines[1]["user"].as_str().unwrap().len(), MAX_TEXT);
        assert!(lines[0]["time"].is_string());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_line_of_a_death_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "{\"user\":\"ad").unwrap();
        Audit::new(&path).write(line("eve", "Export"), true);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(lines[1]).is_ok());
    }

    #[test]
    fn a_log_that_cannot_be_written_stops_nobody() {
        Audit::new("/nowhere/audit.log").write(line("ada", "Export"), true);
    }
}
