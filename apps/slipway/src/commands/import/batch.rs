//! `slipway import --all DIR --plan FILE`: many packages, unattended.
//!
//! ```text
//!  --dry-run   find packages below DIR, let the daemon look at each, write the plan
//!  otherwise   for each package of the plan, at most N at a time:
//!                 started, with its id, on disk ─▶ bring (the daemon's part) ─▶ how it ended, on disk
//! ```
//!
//! A package is asked for under an id that was chosen beforehand, and whether its machine exists is asked of the daemon:
//! so a run that was killed, or whose daemon was, can be started again and never imports a package twice.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rest::client::{Client, ClientError, JobFilter};
use rest::wire::{Import, Machine, Planned, PlannedEdit};
use serde::Serialize;
use tokio::task::JoinSet;
use transfer::shell;
use uuid::Uuid;

use super::plan::{Entry, NEW, Plan};
use super::results::{Line, Results, Stage};
use crate::failure::{Code, Failure, Result};
use crate::progress::Bar;
use crate::session::{LEFT, Session, failed};

/// How long a daemon that went away may take to come back before the run gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for meanwhile.
const RETRY: Duration = Duration::from_millis(250);
/// How often progress is drawn.
const TICK: Duration = Duration::from_millis(250);
/// Seconds that one look at a job waits for news.
const LOOK: u64 = 30;

/// What is asked of a batch.
pub(super) struct Batch {
    pub(super) directory: PathBuf,
    pub(super) plan: PathBuf,
    pub(super) jobs: usize,
    pub(super) dry_run: bool,
    pub(super) register: bool,
    pub(super) lenient: bool,
    pub(super) options: PlannedEdit,
}

/// `import --all`.
pub(super) async fn run(s: &Session, batch: Batch) -> Result {
    let plan = match Plan::read(&batch.plan)? {
        Some(plan) => {
            check_same(&plan, &batch)?;
            if batch.dry_run { look_at_all(s, &batch, plan).await? } else { plan }
        }
        None => {
            let Batch { directory, register, lenient, options, .. } = &batch;
            let plan = Plan::new(directory.clone(), *register, *lenient, options.clone());
            look_at_all(s, &batch, plan).await?
        }
    };
    if batch.dry_run { show_plan(s, &plan, &batch.plan) } else { carry_out(s, &batch, plan).await }
}

/// The same command again is the usual way to go on; with other options it would silently not do what it says.
fn check_same(plan: &Plan, batch: &Batch) -> Result {
    let other = |what: &str| {
        let message = format!("`{}` was made with other {what}", batch.plan.display());
        Err(Failure::new("invalid-argument", message).hint("edit it there, or name another plan"))
    };
    if plan.directory != batch.directory {
        return other(&format!("packages, those below `{}`", plan.directory.display()));
    }
    let bare = !batch.register && !batch.lenient && batch.options == PlannedEdit::default();
    let same =
        plan.register == batch.register && plan.lenient == batch.lenient && plan.options == batch.options;
    if bare || same { Ok(()) } else { other("options") }
}

/// Finds every package, lets the daemon look at each as it would be asked for, and writes the plan.
async fn look_at_all(s: &Session, batch: &Batch, mut plan: Plan) -> Result<Plan> {
    let dir = &batch.directory;
    let found = transfer::package::find_packages(dir).map_err(|e| Failure::at("look into", dir, &e))?;
    let known: HashSet<PathBuf> = plan.packages.iter().map(|e| e.path.clone()).collect();
    for path in found.into_iter().filter(|path| !known.contains(path)) {
        if path.to_str().is_none() {
            return Err(Failure::new("invalid-argument", format!("`{}` is no Unicode", path.display()))
                .hint("a plan is text: rename it"));
        }
        plan.packages.push(Entry { path, ..Entry::default() });
    }
    if plan.packages.is_empty() {
        return Err(Failure::new("not-found", format!("no package was found below `{}`", dir.display()))
            .code(Code::NotFound)
            .hint("name the directory that holds the exported ones"));
    }
    plan.packages.sort_by(|a, b| a.path.cmp(&b.path));
    for n in 0..plan.packages.len() {
        s.printer.talk(format!("looking at {}", plan.packages[n].path.display()));
        let request = request(&plan, n, chosen_id(&plan.packages[n]), true);
        let looked = s.client.import(&request).await;
        let new = plan.packages[n].id == NEW || plan.options.new_id == Some(true);
        let entry = &mut plan.packages[n];
        match looked {
            Ok(planned) => {
                entry.name = planned.name.clone();
                entry.id = if new { NEW.to_owned() } else { planned.id.to_string() };
                entry.data_bytes = planned.disks.iter().map(|d| d.data_bytes).sum();
                entry.findings = findings(&planned);
                entry.verdict = planned.verdict;
            }
            Err(ClientError::Problem { problem, .. }) => {
                entry.verdict = "blocked".to_owned();
                entry.findings = vec![format!("error: {} [{}]", problem.message, problem.id)];
            }
            Err(e) => return Err(e.into()),
        }
    }
    plan.mark_twins();
    plan.write(&batch.plan)?;
    Ok(plan)
}

fn findings(planned: &Planned) -> Vec<String> {
    let worth = planned.findings.iter().filter(|f| f.severity != "info");
    worth
        .map(|f| {
            let fix = f.fix.as_ref().map_or_else(String::new, |fix| format!("; fix: {fix}"));
            format!("{}: {} [{}]{fix}", f.severity, f.message, f.id)
        })
        .collect()
}

fn chosen_id(entry: &Entry) -> Option<Uuid> {
    Uuid::try_parse(&entry.id).ok()
}

fn request(plan: &Plan, n: usize, id: Option<Uuid>, dry_run: bool) -> Import {
    let entry = &plan.packages[n];
    let new = id.is_none() && (entry.id == NEW || plan.options.new_id == Some(true));
    let options = PlannedEdit { id, new_id: new.then_some(true), ..plan.options_of(n) };
    Import { path: entry.path.clone(), register: plan.register, dry_run, options, lenient: plan.lenient }
}

fn show_plan(s: &Session, plan: &Plan, path: &Path) -> Result {
    if s.printer.json {
        s.printer.json(&plan.packages)?;
    } else {
        let rows: Vec<Vec<String>> = plan
            .packages
            .iter()
            .map(|e| {
                let verdict = if e.skip { "skip" } else { &e.verdict };
                let first = e.findings.iter().find(|f| f.starts_with("error")).cloned().unwrap_or_default();
                vec![verdict.to_owned(), e.name.clone(), e.path.display().to_string(), first]
            })
            .collect();
        s.printer.table(&["VERDICT", "NAME", "PATH", "WHY"], &rows)?;
    }
    let wanted = plan.packages.iter().filter(|e| !e.skip);
    let stopped = wanted.clone().filter(|e| e.verdict != "ready").count();
    s.printer.talk(format!("the plan is in {}", shell::word(path)));
    if stopped == 0 {
        return Ok(());
    }
    let message = format!("{stopped} of {} packages cannot be imported as they are", wanted.count());
    Err(Failure::new("not-compatible", message)
        .code(Code::Findings)
        .hint("edit the plan, or run it as it is: the others are imported"))
}

/// How one package ended.
#[derive(Debug)]
enum Outcome {
    Imported(Box<Machine>),
    NotReady(Failure),
    Failed(Failure),
    /// The daemon did not come back; nothing is known.
    Away(Failure),
}

/// One row of what is printed at the end.
#[derive(Serialize)]
struct Row {
    outcome: &'static str,
    name: String,
    id: Option<Uuid>,
    path: PathBuf,
    error: Option<[String; 3]>,
}

/// Bytes done and to do of each package under way.
type Progress = Arc<Mutex<HashMap<usize, (u64, u64)>>>;

async fn carry_out(s: &Session, batch: &Batch, plan: Plan) -> Result {
    let mut results = Results::open(&batch.plan)?;
    let mut rows: Vec<Option<Row>> = plan.packages.iter().map(|_| None).collect();
    let mut waiting: Vec<usize> = Vec::new();
    for (n, entry) in plan.packages.iter().enumerate() {
        let known = results.known.get(&entry.path).copied().unwrap_or_default();
        let row = |outcome, id| {
            Some(Row { outcome, name: entry.name.clone(), id, path: entry.path.clone(), error: None })
        };
        if entry.skip {
            rows[n] = row("skipped", None);
        } else if known.imported {
            rows[n] = row("imported-before", known.minted.or_else(|| chosen_id(entry)));
        } else {
            waiting.push(n);
        }
    }
    waiting.reverse();
    let all = waiting.len();
    let progress = Progress::default();
    let bar = Bar::bytes(s.printer, "importing");
    let mut under_way = JoinSet::new();
    let mut clock = tokio::time::interval(TICK);
    let mut stopped: Option<Failure> = None;
    loop {
        while stopped.is_none() && under_way.len() < batch.jobs {
            let Some(n) = waiting.pop() else { break };
            let entry = &plan.packages[n];
            let known = results.known.get(&entry.path).and_then(|known| known.minted);
            let id = match (chosen_id(entry), known, entry.id == NEW) {
                (Some(id), _, _) | (None, Some(id), true) => id,
                (None, None, true) => Uuid::new_v4(),
                // Nobody could read it when the plan was made; by now it may be whole.
                (None, _, false) => match s.client.import(&request(&plan, n, None, true)).await {
                    Ok(planned) => planned.id,
                    Err(e @ ClientError::Problem { .. }) => {
                        rows[n] = Some(ended(&mut results, entry, Uuid::nil(), Outcome::NotReady(e.into()))?);
                        continue;
                    }
                    Err(e) => {
                        stopped = Some(e.into());
                        break;
                    }
                },
            };
            let (path, name) = (entry.path.clone(), entry.name.clone());
            let minted = entry.id == NEW;
            results.add(&Line {
                stage: Stage::Started,
                path: path.clone(),
                id,
                minted,
                name,
                error: None,
            })?;
            let work = Work {
                n,
                id,
                client: s.client.clone(),
                request: request(&plan, n, Some(id), false),
                package: std::fs::canonicalize(&path).unwrap_or(path),
                progress: Arc::clone(&progress),
            };
            under_way.spawn(async move { (work.n, work.id, work.bring().await) });
        }
        let done = tokio::select! {
            done = under_way.join_next() => done,
            _ = clock.tick() => {
                let (done, total) = progress.lock().unwrap_or_else(PoisonError::into_inner).values()
                    .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                bar.phase(&format!("{} of {all}", all - waiting.len() - under_way.len()));
                bar.set(done, total);
                continue;
            }
            _ = tokio::signal::ctrl_c() => {
                if stopped.is_some() {
                    bar.finish();
                    return Err(Failure::new(LEFT, "what is under way goes on by itself")
                        .hint("the same command again goes on with the rest"));
                }
                s.printer.talk("no more are begun; Ctrl-C again leaves those under way to end by themselves");
                stopped = Some(Failure::new(LEFT, "interrupted").hint("the same command again goes on with the rest"));
                continue;
            }
        };
        let Some(done) = done else { break };
        let (n, id, outcome) = done.map_err(|e| Failure::new("internal", format!("an import ended: {e}")))?;
        let entry = &plan.packages[n];
        if let Outcome::Away(failure) = outcome {
            stopped.get_or_insert(failure);
            continue;
        }
        let row = ended(&mut results, entry, id, outcome)?;
        bar.pause(|| s.printer.talk(format!("{} {}", row.outcome, entry.path.display())));
        rows[n] = Some(row);
    }
    bar.finish();
    report(s, &plan, &batch.plan, rows, stopped)
}

/// Keeps how a package ended.
fn ended(results: &mut Results, entry: &Entry, id: Uuid, outcome: Outcome) -> Result<Row> {
    let (stage, name, failure) = match outcome {
        Outcome::Imported(machine) => (Stage::Imported, machine.name, None),
        Outcome::NotReady(failure) => (Stage::NotReady, entry.name.clone(), Some(failure)),
        Outcome::Failed(failure) | Outcome::Away(failure) => {
            (Stage::Failed, entry.name.clone(), Some(failure))
        }
    };
    let error = failure.map(|f| [f.id, f.message, f.hint.unwrap_or_default()]);
    let (path, minted) = (entry.path.clone(), entry.id == NEW);
    results.add(&Line { stage, path, id, minted, name: name.clone(), error: error.clone() })?;
    let id = Some(id).filter(|id| !id.is_nil());
    Ok(Row { outcome: stage.as_str(), name, id, path: entry.path.clone(), error })
}

fn report(s: &Session, plan: &Plan, path: &Path, rows: Vec<Option<Row>>, stopped: Option<Failure>) -> Result {
    let rows = rows.into_iter().zip(&plan.packages).map(|(row, entry)| {
        row.unwrap_or_else(|| Row {
            outcome: "not-begun",
            name: entry.name.clone(),
            id: None,
            path: entry.path.clone(),
            error: None,
        })
    });
    let rows: Vec<Row> = rows.collect();
    if s.printer.json {
        s.printer.json(&rows)?;
    } else {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|r| {
                let why =
                    r.error.as_ref().map_or_else(String::new, |[id, message, _]| format!("{message} [{id}]"));
                vec![r.outcome.to_owned(), r.name.clone(), r.path.display().to_string(), why]
            })
            .collect();
        s.printer.table(&["OUTCOME", "NAME", "PATH", "WHY"], &cells)?;
    }
    if let Some(failure) = stopped {
        return Err(failure);
    }
    let missed = |outcome: &str| rows.iter().filter(|r| r.outcome == outcome).count();
    let (not_ready, failed) = (missed("not-ready"), missed("failed"));
    if not_ready + failed == 0 {
        return Ok(());
    }
    let message = format!("{} of {} packages were not imported", not_ready + failed, rows.len());
    let code = if failed == 0 { Code::Findings } else { Code::Failed };
    Err(Failure::new("batch-incomplete", message).code(code).hint(format!(
        "edit {} and run the same command again: what is done is not done twice",
        shell::word(path)
    )))
}

/// One package on its way.
struct Work {
    n: usize,
    id: Uuid,
    client: Client,
    request: Import,
    /// The package's own path, links followed.
    package: PathBuf,
    progress: Progress,
}

impl Work {
    /// Brings the package in, also over a daemon that goes away and comes back.
    async fn bring(&self) -> Outcome {
        let mut away: Option<Instant> = None;
        loop {
            match self.attempt(&mut away).await {
                Ok(outcome) => return outcome,
                Err(e @ ClientError::Problem { .. }) => return Outcome::Failed(e.into()),
                Err(e) => {
                    if away.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Outcome::Away(e.into());
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// One try, from whatever an earlier one left. `away` is forgotten as soon as the daemon answers.
    async fn attempt(&self, away: &mut Option<Instant>) -> std::result::Result<Outcome, ClientError> {
        let id = self.id.to_string();
        // A job of before goes on by itself.
        let filter =
            JobFilter { kind: Some("import".to_owned()), machine: Some(id.clone()), finished: Some(false) };
        if let Some(job) = self.client.jobs(&filter).await?.first() {
            *away = None;
            if let Some(failure) = self.follow(job.id, away).await? {
                return Ok(self.given_up(failure).await);
            }
        }
        *away = None;
        match self.client.machine(&id).await {
            Ok(machine) if machine.id == self.id => return Ok(self.is_ours(machine)),
            Ok(_) | Err(ClientError::Problem { status: 404, .. }) => {}
            Err(e) => return Err(e),
        }
        let planned = self.client.import(&self.request).await?;
        if let Some(failure) = super::obstacle_of(&planned) {
            // Looked at, and not to be kept; a plan that stays behind would be in the next run's way only as itself.
            let _ = self.client.abandon(&id).await;
            return Ok(Outcome::NotReady(failure));
        }
        let job = self.client.realize(&id).await?;
        if let Some(failure) = self.follow(job, away).await? {
            return Ok(self.given_up(failure).await);
        }
        Ok(Outcome::Imported(Box::new(self.client.machine(&id).await?)))
    }

    async fn given_up(&self, failure: Failure) -> Outcome {
        let _ = self.client.abandon(&self.id.to_string()).await;
        Outcome::Failed(failure)
    }

    /// A machine of our id: ours if it came from this package.
    fn is_ours(&self, machine: Machine) -> Outcome {
        if machine.source.as_ref().is_some_and(|source| self.package.starts_with(source)) {
            return Outcome::Imported(Box::new(machine));
        }
        let message = format!("a machine with the id {} is already here, from elsewhere", self.id);
        Outcome::Failed(
            Failure::new("duplicate-id", message)
                .hint(format!("id = \"{NEW}\" in the plan imports beside it")),
        )
    }

    /// Follows a job to its end; `None` when it did what it was to do.
    async fn follow(
        &self,
        job: Uuid,
        away: &mut Option<Instant>,
    ) -> std::result::Result<Option<Failure>, ClientError> {
        let word = job.to_string();
        let mut generation = 0;
        let ended = loop {
            let job = self.client.job_after(&word, generation, LOOK).await?;
            *away = None;
            generation = job.generation;
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if job.total_bytes > 0 {
                progress.insert(self.n, (job.done_bytes, job.total_bytes));
            }
            drop(progress);
            if job.finished || job.state == "parked" {
                break job;
            }
        };
        Ok((!ended.success).then(|| failed(&ended)))
    }
}
