//! kill -9 of a real process at every moment a job says something: a new process brings the job to its end.
//!
//! The process that runs the job is this test binary itself, started again with [`DIR`] in its environment. What the
//! proofs simulate for every kind is done here for real, once, with SQLite and files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use job::{Context, Engine, Failure, Filter, JobId, Kind, State, Status, Steps, Submission, UndoReason};
use store::SqliteStore;

const DIR: &str = "SLIPWAY_TEST_JOB_DIR";
const BLOCKS: u64 = 6;
const LONG: Duration = Duration::from_secs(60);

/// Writes a file in blocks under a temporary name and renames it; fails at the end if told to.
struct WriteFile;

impl Kind for WriteFile {
    const NAME: &'static str = "write-file";
    const VERSION: u32 = 1;
    type Params = bool;
    type World = PathBuf;
    fn steps() -> Steps<Self> {
        Steps::new()
            .step("prepare", Self::prepare, Self::unprepare)
            .step("fill", Self::fill, |_, _| Ok(()))
            .step("publish", Self::publish, Self::withdraw)
            .step_without_undo("verdict", Self::verdict)
    }
}

/// Tells the parent, and waits for its leave to go on: it may be a kill.
fn say(what: &str) {
    if std::env::var_os(DIR).is_none() {
        return;
    }
    let mut out = std::io::stdout();
    writeln!(out, "\nsaid {what}").unwrap();
    out.flush().unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

fn failed(error: std::io::Error) -> Failure {
    Failure::from_error("io", &error)
}

impl WriteFile {
    fn prepare(cx: &mut Context<'_, Self>) -> Result<String, Failure> {
        say("prepare");
        std::fs::write(cx.world().join("out.partial"), "").map_err(failed)?;
        say("prepared");
        Ok("out.partial".into())
    }

    fn unprepare(cx: &mut Context<'_, Self>, _: UndoReason) -> Result<(), Failure> {
        say("unprepare");
        let _ = std::fs::remove_file(cx.world().join("out.partial"));
        say("unprepared");
        Ok(())
    }

    fn fill(cx: &mut Context<'_, Self>) -> Result<(), Failure> {
        let path = cx.world().join(cx.output(Self::prepare)?);
        let done = cx.restore::<u64>()?.unwrap_or(0);
        let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        file.set_len(done).map_err(failed)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(done)).map_err(failed)?;
        for block in done..BLOCKS {
            file.write_all(&[block as u8]).map_err(failed)?;
            say("block");
            if block % 2 == 0 {
                cx.checkpoint(&(block + 1))?;
            }
        }
        Ok(())
    }

    fn publish(cx: &mut Context<'_, Self>) -> Result<(), Failure> {
        say("publish");
        let (from, to) = (cx.world().join(cx.output(Self::prepare)?), cx.world().join("out"));
        match std::fs::rename(from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => {}
            other => other.map_err(failed)?,
        }
        say("published");
        Ok(())
    }

    fn withdraw(cx: &mut Context<'_, Self>, _: UndoReason) -> Result<(), Failure> {
        say("withdraw");
        let _ = std::fs::remove_file(cx.world().join("out"));
        say("withdrawn");
        Ok(())
    }

    fn verdict(cx: &mut Context<'_, Self>) -> Result<(), Failure> {
        say("verdict");
        if *cx.params() { Err(Failure::new("told-to", "it was told to fail")) } else { Ok(()) }
    }
}

/// One life of the daemon: goes on with the job in the store, or accepts it.
fn live(dir: &Path, fail: bool) -> Status {
    let store = Arc::new(SqliteStore::open(&dir.join("store.db")).unwrap());
    let engine = Engine::builder(store).register::<WriteFile>(Arc::new(dir.to_owned())).start().unwrap();
    engine.recover().unwrap();
    let id: JobId = match engine.list(&Filter::default()).as_slice() {
        [] => engine.submit(Submission::<WriteFile>::new(fail)).unwrap(),
        [status] => status.id,
        more => panic!("one job became {}", more.len()),
    };
    let status = engine.wait(id, LONG).unwrap();
    engine.shutdown(LONG);
    status
}

#[test]
fn child_lives_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = PathBuf::from(dir);
    let fail = dir.join("fail").exists();
    live(&dir, fail);
    say("end");
}

/// Runs the child until it has said `most` things and kills it: while it waits, or let go and on its way to the next.
/// Whether it came to its end before.
fn child_killed_after(dir: &Path, most: usize, on_its_way: bool) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_lives_until_killed", "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut go = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.filter(|line| line.starts_with("said "));
    let mut last = said.next().unwrap();
    for _ in 1..most {
        if last == "said end" {
            break;
        }
        go.write_all(b".").unwrap();
        last = said.next().unwrap();
    }
    if on_its_way {
        go.write_all(b".").unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    last == "said end"
}

fn names(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("out")).collect();
    names.sort();
    names
}

fn killed_at_every_moment(fail: bool, on_its_way: bool) -> usize {
    for most in 1..100 {
        let dir = tempfile::tempdir().unwrap();
        if fail {
            std::fs::write(dir.path().join("fail"), "").unwrap();
        }
        let ended = child_killed_after(dir.path(), most, on_its_way);
        let status = live(dir.path(), fail);
        if fail {
            assert_eq!(status.state, State::Failed, "killed after {most}: {status:?}");
            assert_eq!((status.error.unwrap().id.as_str(), status.stuck), ("told-to", None));
            assert_eq!(names(dir.path()), [""; 0], "killed after {most}");
        } else {
            assert_eq!(status.state, State::Completed, "killed after {most}: {status:?}");
            assert_eq!(names(dir.path()), ["out"], "killed after {most}");
            let content = std::fs::read(dir.path().join("out")).unwrap();
            assert_eq!(content, (0..BLOCKS as u8).collect::<Vec<_>>(), "killed after {most}");
        }
        if ended {
            return most;
        }
    }
    panic!("the job never ended by itself");
}

/// Two around preparing, a block each, two around publishing, the verdict, the end.
const SAID: usize = 2 + BLOCKS as usize + 2 + 1 + 1;

#[test]
fn a_killed_job_is_finished_by_the_next_process() {
    for on_its_way in [false, true] {
        assert_eq!(killed_at_every_moment(false, on_its_way), SAID);
    }
}

#[test]
fn a_killed_undo_is_finished_by_the_next_process() {
    for on_its_way in [false, true] {
        assert_eq!(killed_at_every_moment(true, on_its_way), SAID + 4);
    }
}
