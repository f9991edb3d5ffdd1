//! `/v1/jobs`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use job::{CancelErrorKind, Filter, JobId, Status};
use machine::{Host, Reason};
use serde::Deserialize;
use uuid::Uuid;

use super::{App, Refusal, blocking};
use crate::wire::{Job, JobList, Problem};

/// Longest wait for a change of a job, in seconds.
pub const MAX_WAIT: u64 = 60;
/// Most jobs that one answer lists.
const MAX_LISTED: usize = 1000;

/// Which jobs to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    kind: Option<String>,
    machine: Option<String>,
    owner: Option<String>,
    finished: Option<bool>,
    limit: Option<usize>,
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs",
    params(("kind" = Option<String>, Query, description = "`import`, `export` or `save`"),
        ("machine" = Option<String>, Query, description = "name or id of the machine or planned machine"),
        ("owner" = Option<String>, Query, description = "who asked for it"),
        ("finished" = Option<bool>, Query, description = "only finished ones, or only those that are not"),
        ("limit" = Option<usize>, Query, description = "at most so many; 1000 is the limit")),
    responses((status = 200, body = JobList)))]
pub(crate) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobList>, Refusal> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
    let jobs = blocking(&app, move |h| {
        if let Some(kind) = query.kind.as_deref().filter(|kind| !h.jobs().kinds().any(|known| known == *kind))
        {
            let known: Vec<_> = h.jobs().kinds().map(|kind| format!("`{kind}`")).collect();
            let message = format!("`{kind}` is no kind of job");
            return Err(machine::Error::new(Reason::InvalidArgument, message)
                .hint(format!("a kind is one of {}", known.join(", "))));
        }
        let subject = query.machine.map(|word| subject(h, &word));
        let filter = Filter { kind: query.kind, subject, owner: query.owner, finished: query.finished };
        Ok(h.jobs().list(&filter))
    })
    .await?;
    Ok(Json(JobList { jobs: jobs.into_iter().rev().take(limit).map(Job::from).collect() }))
}

/// A machine's jobs outlive it: a word that names none any more is taken as the id it had.
fn subject(host: &Host, word: &str) -> String {
    let id = host.resolve(word).or_else(|_| host.resolve_planned(word));
    id.map_or_else(|_| word.to_owned(), |id| id.to_string())
}

/// The job that `word` names: its id or the unique beginning of it.
fn resolve(host: &Host, word: &str) -> Result<Status, machine::Error> {
    if let Ok(id) = Uuid::try_parse(word)
        && let Some(status) = host.jobs().get(JobId(id))
    {
        return Ok(status);
    }
    let lower = word.to_lowercase();
    let all = host.jobs().list(&Filter::default());
    let fits: Vec<&Status> = all
        .iter()
        .filter(|s| !lower.is_empty() && s.id.0.hyphenated().to_string().starts_with(&lower))
        .collect();
    match fits[..] {
        [one] => Ok(one.clone()),
        [] => Err(machine::Error::new(Reason::NotFound, format!("no job has the id `{word}`"))
            .hint("`slipway job list` shows what there is; finished jobs are forgotten after a week")),
        _ => Err(machine::Error::new(Reason::Ambiguous, format!("`{word}` fits {} jobs", fits.len()))
            .hint("name it by more of its id")),
    }
}

/// How to look at a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    wait_seconds: Option<u64>,
    generation: Option<u64>,
}

/// One job, at once, or as soon as it is newer than `generation`, is over, or `wait_seconds` have passed.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "its id, or the beginning of it"),
        ("wait_seconds" = Option<u64>, Query, description = "wait so long for a change; 60 is the limit"),
        ("generation" = Option<u64>, Query, description = "the `generation` that was seen last")),
    responses((status = 200, body = Job), (status = 404, body = Problem)))]
pub(crate) async fn show(
    State(app): State<App>,
    Path(word): Path<String>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Job>, Refusal> {
    let Query(query) = query?;
    let wait = query.wait_seconds.unwrap_or(0);
    if wait > MAX_WAIT {
        return Err(Refusal::invalid(format!("a wait of {wait} s is longer than {MAX_WAIT} s")));
    }
    let mut pulse = app.pulse.jobs.clone();
    pulse.mark_unchanged();
    let mut status = blocking(&app, move |h| resolve(h, &word)).await?;
    let id = status.id;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        let over = status.state.is_finished() || status.state == job::State::Parked;
        if over || query.generation.is_none_or(|seen| status.generation > seen) {
            return Ok(Json(status.into()));
        }
        // Late is an answer too: the job as it is.
        let Ok(Ok(())) = tokio::time::timeout_at(deadline, pulse.changed()).await else {
            return Ok(Json(status.into()));
        };
        status =
            app.host.jobs().get(id).ok_or_else(|| Refusal::not_found(format!("job {id} was forgotten")))?;
    }
}

/// Asks for its end. What it did is undone; it is over when its state says so.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", tag = "jobs", params(("job" = String, Path)),
    responses((status = 202, body = Job), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<(axum::http::StatusCode, Json<Job>), Refusal> {
    end(app, word, job::Engine::cancel).await
}

/// Gives up a parked job: it ends as failed, and what it did stays.
#[utoipa::path(post, path = "/v1/jobs/{job}/discard", tag = "jobs", params(("job" = String, Path)),
    responses((status = 202, body = Job), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn discard(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<(axum::http::StatusCode, Json<Job>), Refusal> {
    end(app, word, job::Engine::discard).await
}

async fn end(
    app: App,
    word: String,
    how: fn(&job::Engine, JobId) -> Result<(), job::CancelError>,
) -> Result<(axum::http::StatusCode, Json<Job>), Refusal> {
    let status = blocking(&app, move |h| {
        let id = resolve(h, &word)?.id;
        how(h.jobs(), id).map_err(refused)?;
        resolve(h, &id.to_string())
    })
    .await?;
    Ok((axum::http::StatusCode::ACCEPTED, Json(status.into())))
}

fn refused(e: job::CancelError) -> machine::Error {
    let reason = match e.kind() {
        CancelErrorKind::NotFound => Reason::NotFound,
        CancelErrorKind::Store => Reason::Store,
        _ => Reason::InvalidState,
    };
    let hint = (e.kind() == CancelErrorKind::Parked).then_some("`slipway job discard JOB` gives it up");
    let error = machine::Error::new(reason, machine::chain(&e));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
