//! `/v1/machines`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use machine::{Host, Reason};
use serde::Deserialize;
use uuid::Uuid;

use super::{App, Peer, Refusal, absolute, blocking, named};
use crate::wire::{
    Autostop, AutostopReport, Autostopped, Console, Define, Edit, Export, JobReference, Machine, MachineList,
    Problem, SendKeys, Shutdown,
};

type Body_<T> = Result<Json<T>, JsonRejection>;

/// Longest wait for a guest to shut down.
const MAX_SHUTDOWN: u64 = 3600;
/// Default wait for a guest to shut down.
const SHUTDOWN: u64 = 120;
/// Largest screenshot that is sent, in bytes.
const MAX_SCREENSHOT: u64 = 64 << 20;

/// Every machine.
#[utoipa::path(get, path = "/v1/machines", tag = "machines", responses((status = 200, body = MachineList)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<MachineList>, Refusal> {
    let machines = blocking(&app, |h| h.machines()).await?;
    Ok(Json(MachineList { machines: machines.into_iter().map(Machine::from).collect() }))
}

/// One machine, by name, id or the unique beginning of either.
#[utoipa::path(get, path = "/v1/machines/{machine}", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn show(State(app): State<App>, Path(word): Path<String>) -> Result<Json<Machine>, Refusal> {
    let view = blocking(&app, move |h| h.machine(named(h, &word)?)).await?;
    Ok(Json(view.into()))
}

/// Makes a machine.
#[utoipa::path(post, path = "/v1/machines", tag = "machines", request_body = Define,
    responses((status = 201, body = Machine), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn define(
    State(app): State<App>,
    body: Body_<Define>,
) -> Result<(StatusCode, Json<Machine>), Refusal> {
    let Json(define) = body?;
    for path in define.disks.iter().filter_map(|d| d.path.clone()) {
        absolute(path, "disk")?;
    }
    let request = define.try_into().map_err(Refusal::invalid)?;
    let view = blocking(&app, move |h| h.define(&request)).await?;
    Ok((StatusCode::CREATED, Json(view.into())))
}

/// Changes a machine.
#[utoipa::path(patch, path = "/v1/machines/{machine}", tag = "machines", params(("machine" = String, Path)),
    request_body = Edit, responses((status = 200, body = Machine), (status = 409, body = Problem)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path(word): Path<String>,
    body: Body_<Edit>,
) -> Result<Json<Machine>, Refusal> {
    let Json(edit) = body?;
    for path in edit.add_disks.iter().filter_map(|d| d.path.clone()) {
        absolute(path, "disk")?;
    }
    let view = blocking(&app, move |h| {
        let id = named(h, &word)?;
        let now = h.machine(id)?.record.settings.hardware;
        let edit = edit.domain(now).map_err(|why| machine::Error::new(Reason::InvalidArgument, why))?;
        h.edit(id, &edit)
    })
    .await?;
    Ok(Json(view.into()))
}

/// How to delete.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct DeleteQuery {
    #[serde(default)]
    keep_disks: bool,
}

/// Deletes a machine that is off.
#[utoipa::path(delete, path = "/v1/machines/{machine}", tag = "machines",
    params(("machine" = String, Path), ("keep_disks" = Option<bool>, Query)),
    responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Path(word): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Refusal> {
    blocking(&app, move |h| h.delete(named(h, &word)?, query.keep_disks)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn act(
    app: App,
    word: String,
    act: impl FnOnce(&std::sync::Arc<Host>, Uuid) -> Result<(), machine::Error> + Send + 'static,
) -> Result<Json<Machine>, Refusal> {
    let view = blocking(&app, move |h| {
        let id = named(h, &word)?;
        act(h, id)?;
        h.machine(id)
    })
    .await?;
    Ok(Json(view.into()))
}

/// Starts it; answers when its guest runs.
#[utoipa::path(post, path = "/v1/machines/{machine}/start", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn start(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Machine>, Refusal> {
    act(app, word, Host::start).await
}

/// Ends its guest at once.
#[utoipa::path(post, path = "/v1/machines/{machine}/stop", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 409, body = Problem)))]
pub(crate) async fn stop(State(app): State<App>, Path(word): Path<String>) -> Result<Json<Machine>, Refusal> {
    act(app, word, |h, id| h.stop(id)).await
}

/// Asks the guest to shut down; answers when it has.
#[utoipa::path(post, path = "/v1/machines/{machine}/shutdown", tag = "machines", params(("machine" = String, Path)),
    request_body = Option<Shutdown>, responses((status = 200, body = Machine), (status = 504, body = Problem)))]
pub(crate) async fn shutdown(
    State(app): State<App>,
    Path(word): Path<String>,
    body: Option<Json<Shutdown>>,
) -> Result<Json<Machine>, Refusal> {
    let limit = wait(body.and_then(|b| b.timeout_seconds))?;
    act(app, word, move |h, id| h.shutdown(id, limit)).await
}

/// Writes its guest's memory to a file and ends it: a job. A start goes on from there.
#[utoipa::path(post, path = "/v1/machines/{machine}/save", tag = "machines", params(("machine" = String, Path)),
    responses((status = 202, body = JobReference), (status = 409, body = Problem), (status = 501, body = Problem)))]
pub(crate) async fn save(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Path(word): Path<String>,
) -> Result<(StatusCode, Json<JobReference>), Refusal> {
    let job = blocking(&app, move |h| h.save(named(h, &word)?, &peer.name)).await?;
    Ok((StatusCode::ACCEPTED, Json(JobReference { job })))
}

/// Brings every machine to rest as its stop action says, because the host is about to stop; answers when they are.
#[utoipa::path(post, path = "/v1/autostop", tag = "machines", request_body = Option<Autostop>,
    responses((status = 200, body = AutostopReport)))]
pub(crate) async fn autostop(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    body: Option<Json<Autostop>>,
) -> Result<Json<AutostopReport>, Refusal> {
    let limit = wait(body.and_then(|b| b.timeout_seconds))?;
    let stopped = blocking(&app, move |h| h.autostop(limit, &peer.name)).await?;
    Ok(Json(AutostopReport { machines: stopped.into_iter().map(Autostopped::from).collect() }))
}

/// The wait that was asked for, within its bounds.
fn wait(seconds: Option<u64>) -> Result<Duration, Refusal> {
    let seconds = seconds.unwrap_or(SHUTDOWN);
    if seconds > MAX_SHUTDOWN {
        return Err(Refusal::invalid(format!("a wait of {seconds} s is longer than {MAX_SHUTDOWN} s")));
    }
    Ok(Duration::from_secs(seconds))
}

/// Freezes the guest.
#[utoipa::path(post, path = "/v1/machines/{machine}/pause", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 409, body = Problem)))]
pub(crate) async fn pause(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Machine>, Refusal> {
    act(app, word, |h, id| h.pause(id)).await
}

/// Lets a frozen guest go on.
#[utoipa::path(post, path = "/v1/machines/{machine}/resume", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 409, body = Problem)))]
pub(crate) async fn resume(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Machine>, Refusal> {
    act(app, word, |h, id| h.resume(id)).await
}

/// Presses the reset button.
#[utoipa::path(post, path = "/v1/machines/{machine}/reset", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Machine), (status = 409, body = Problem)))]
pub(crate) async fn reset(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Machine>, Refusal> {
    act(app, word, |h, id| h.reset(id)).await
}

/// Where the console is.
#[utoipa::path(get, path = "/v1/machines/{machine}/console", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Console), (status = 409, body = Problem)))]
pub(crate) async fn console(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Console>, Refusal> {
    let console = blocking(&app, move |h| h.console(named(h, &word)?)).await?;
    Ok(Json(console.into()))
}

/// What is on the screen, as a picture.
#[utoipa::path(get, path = "/v1/machines/{machine}/screenshot", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, description = "PNG or PPM", content_type = "image/png"), (status = 409, body = Problem)))]
pub(crate) async fn screenshot(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Response, Refusal> {
    let picture = blocking(&app, move |h| h.screenshot(named(h, &word)?, MAX_SCREENSHOT)).await?;
    Response::builder()
        .header(header::CONTENT_TYPE, picture.media_type)
        .body(Body::from(picture.bytes))
        .map_err(|_| Refusal::internal("the picture could not be sent"))
}

/// Types text or presses chords.
#[utoipa::path(post, path = "/v1/machines/{machine}/keys", tag = "machines", params(("machine" = String, Path)),
    request_body = SendKeys, responses((status = 204), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn keys(
    State(app): State<App>,
    Path(word): Path<String>,
    body: Body_<SendKeys>,
) -> Result<StatusCode, Refusal> {
    let Json(keys) = body?;
    blocking(&app, move |h| h.send_keys(named(h, &word)?, keys.text.as_deref(), &keys.keys)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Exports it: a job.
#[utoipa::path(post, path = "/v1/machines/{machine}/export", tag = "machines", params(("machine" = String, Path)),
    request_body = Export, responses((status = 202, body = JobReference), (status = 409, body = Problem)))]
pub(crate) async fn export(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Path(word): Path<String>,
    body: Body_<Export>,
) -> Result<(StatusCode, Json<JobReference>), Refusal> {
    let Json(export) = body?;
    absolute(export.directory.clone(), "directory")?;
    let request = export.try_into().map_err(Refusal::invalid)?;
    let job = blocking(&app, move |h| h.export(named(h, &word)?, &request, &peer.name)).await?;
    Ok((StatusCode::ACCEPTED, Json(JobReference { job })))
}
