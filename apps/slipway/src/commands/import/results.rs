//! What runs of a plan did: `PLAN.results`, one JSON object a line, only ever added to.
//!
//! A line is on disk before its consequence: `started` with the machine's id before the daemon is asked for anything, so
//! that a run started again asks for the same machine and not for another. Whether that machine exists, the daemon knows;
//! these lines say under which id to look, and what somebody may have deleted since.
//!
//! | if we die | then |
//! |---|---|
//! | before `started` is on disk | nothing was asked; the next run begins anew |
//! | after it, before the daemon's record | nothing is there; the next run asks for the same id |
//! | while the daemon works | it goes on by itself; the next run finds its job, and follows it |
//! | after the machine is there, before `imported` | the next run finds the machine by its id and package, and notes it |
//! | in the middle of a line | the torn line is cut off |

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::{Code, Failure, Result};

/// Largest file of results that is read, in bytes.
const MAX_RESULTS: u64 = 256 << 20;

/// How far a package came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Its turn has come, under this id.
    Started,
    /// It is a machine.
    Imported,
    /// Its report has errors.
    NotReady,
    /// It did not become a machine.
    Failed,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Imported => "imported",
            Self::NotReady => "not-ready",
            Self::Failed => "failed",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) stage: Stage,
    pub(super) path: PathBuf,
    pub(super) id: Uuid,
    /// The id was made for it, by a run.
    #[serde(default)]
    pub(super) minted: bool,
    pub(super) name: String,
    /// Id of the failure or finding, its message, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<[String; 3]>,
}

/// What is known of one package.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The id that was made for it.
    pub(super) minted: Option<Uuid>,
    pub(super) imported: bool,
}

/// The file, held by one run at a time.
pub(super) struct Results {
    file: File,
    path: PathBuf,
    pub(super) known: HashMap<PathBuf, Known>,
}

/// Where the results of a plan are.
pub(super) fn beside(plan: &Path) -> PathBuf {
    let mut name = plan.as_os_str().to_owned();
    name.push(".results");
    name.into()
}

impl Results {
    /// Opens the results of `plan`, cuts off a torn line and reads the others.
    pub(super) fn open(plan: &Path) -> Result<Self> {
        let path = beside(plan);
        let at = |doing: &'static str| move |e: std::io::Error| Failure::at(doing, &beside(plan), &e);
        let mut options = File::options();
        let mut file = options.read(true).append(true).create(true).open(&path).map_err(at("open"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::new("busy", format!("another run is at work on `{}`", plan.display()))
                .code(Code::NotNow)
                .hint("wait for its end, or end it"));
        }
        // The file's own name is to survive with its first line.
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(at("sync"))?;
        let mut bytes = Vec::new();
        (&mut file).take(MAX_RESULTS + 1).read_to_end(&mut bytes).map_err(at("read"))?;
        if bytes.len() as u64 > MAX_RESULTS {
            return Err(Failure::new(
                "bad-plan",
                format!("`{}` is larger than {MAX_RESULTS} bytes", path.display()),
            )
            .hint("it grows with every run: put it aside when all is done"));
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(at("repair"))?;
        }
        file.seek(SeekFrom::End(0)).map_err(at("read"))?;
        let mut known: HashMap<PathBuf, Known> = HashMap::new();
        for (n, line) in
            bytes[..whole].split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
        {
            let line: Line = serde_json::from_slice(line).map_err(|e| {
                Failure::new("bad-plan", format!("{}:{}: no result of a run: {e}", path.display(), n + 1))
                    .hint("it is written by `slipway import --all` only: put it aside if you know that nothing is left of it")
            })?;
            let package = known.entry(line.path).or_default();
            package.minted = Some(line.id).filter(|_| line.minted).or(package.minted);
            package.imported |= line.stage == Stage::Imported;
        }
        Ok(Self { file, path, known })
    }

    /// Adds a line; on disk when this returns.
    pub(super) fn add(&mut self, line: &Line) -> Result {
        let at = |e: std::io::Error| Failure::at("write", &self.path, &e);
        let mut bytes = serde_json::to_vec(line)
            .map_err(|e| Failure::new("internal", format!("a result cannot be written: {e}")))?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).map_err(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stage: Stage, path: &str, id: u128) -> Line {
        Line {
            stage,
            path: path.into(),
            id: Uuid::from_u128(id),
            minted: id == 2,
            name: "web".to_owned(),
            error: None,
        }
    }

    #[test]
    fn what_was_written_is_known_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan.toml");
        let mut results = Results::open(&plan).unwrap();
        assert_eq!(Results::open(&plan).err().unwrap().id, "busy", "one run at a time");
        results.add(&line(Stage::Started, "/a", 1)).unwrap();
        results.add(&line(Stage::Imported, "/a", 1)).unwrap();
        results.add(&line(Stage::Started, "/b", 2)).unwrap();
        drop(results);
        let file = beside(&plan);
        let whole = std::fs::read(&file).unwrap();
        for torn in ["{", "{\"stage\":\"imported\",\"path\":\"/b\""] {
            std::fs::write(&file, [&whole[..], torn.as_bytes()].concat()).unwrap();
            let results = Results::open(&plan).unwrap();
            assert_eq!(results.known[Path::new("/a")].minted, None, "the package's own is not handed on");
            assert!(results.known[Path::new("/a")].imported && !results.known[Path::new("/b")].imported);
            assert_eq!(results.known[Path::new("/b")].minted, Some(Uuid::from_u128(2)));
            drop(results);
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
        std::fs::write(&file, "nonsense\n").unwrap();
        assert!(Results::open(&plan).err().unwrap().message.contains(":1: "));
    }
}
