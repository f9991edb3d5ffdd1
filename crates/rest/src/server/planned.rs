//! `/v1/planned`: import in its stages.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use machine::planned::ImportRequest;

use super::{App, Peer, Refusal, absolute, blocking, planned_named};
use crate::wire::{Import, JobReference, Planned, PlannedEdit, PlannedList, Problem};

/// Every planned machine.
#[utoipa::path(get, path = "/v1/planned", tag = "import", responses((status = 200, body = PlannedList)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<PlannedList>, Refusal> {
    let planned = blocking(&app, |h| h.planned()).await?;
    Ok(Json(PlannedList { planned: planned.into_iter().map(Planned::from).collect() }))
}

/// One planned machine.
#[utoipa::path(get, path = "/v1/planned/{planned}", tag = "import", params(("planned" = String, Path)),
    responses((status = 200, body = Planned), (status = 404, body = Problem)))]
pub(crate) async fn show(State(app): State<App>, Path(word): Path<String>) -> Result<Json<Planned>, Refusal> {
    let view = blocking(&app, move |h| h.planned_machine(planned_named(h, &word)?)).await?;
    Ok(Json(view.into()))
}

/// Imports a package as a planned machine, or only reports (`dry_run`).
#[utoipa::path(post, path = "/v1/planned", tag = "import", request_body = Import,
    responses((status = 200, body = Planned, description = "dry run"), (status = 201, body = Planned),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn import(
    State(app): State<App>,
    body: Result<Json<Import>, JsonRejection>,
) -> Result<(StatusCode, Json<Planned>), Refusal> {
    let Json(import) = body?;
    let dry_run = import.dry_run;
    absolute(import.path.clone(), "package")?;
    check_paths(&import.options)?;
    let request: ImportRequest = import.try_into().map_err(Refusal::invalid)?;
    let view = blocking(&app, move |h| if dry_run { h.import_dry_run(&request) } else { h.import(&request) })
        .await?;
    let status = if dry_run { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(view.into())))
}

fn check_paths(edit: &PlannedEdit) -> Result<(), Refusal> {
    for path in edit.to.iter().chain(&edit.disk_dirs) {
        absolute(path.clone(), "directory")?;
    }
    Ok(())
}

/// Changes a planned machine and validates it again.
#[utoipa::path(patch, path = "/v1/planned/{planned}", tag = "import", params(("planned" = String, Path)),
    request_body = PlannedEdit, responses((status = 200, body = Planned), (status = 409, body = Problem)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path(word): Path<String>,
    body: Result<Json<PlannedEdit>, JsonRejection>,
) -> Result<Json<Planned>, Refusal> {
    let Json(edit) = body?;
    check_paths(&edit)?;
    let edit = edit.try_into().map_err(Refusal::invalid)?;
    let view = blocking(&app, move |h| h.edit_planned(planned_named(h, &word)?, &edit)).await?;
    Ok(Json(view.into()))
}

/// Validates it against the host and the package as they are now.
#[utoipa::path(post, path = "/v1/planned/{planned}/validate", tag = "import", params(("planned" = String, Path)),
    responses((status = 200, body = Planned), (status = 404, body = Problem)))]
pub(crate) async fn validate(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<Json<Planned>, Refusal> {
    let view = blocking(&app, move |h| h.validate_planned(planned_named(h, &word)?)).await?;
    Ok(Json(view.into()))
}

/// Makes it a machine: a job.
#[utoipa::path(post, path = "/v1/planned/{planned}/realize", tag = "import", params(("planned" = String, Path)),
    responses((status = 202, body = JobReference), (status = 409, body = Problem)))]
pub(crate) async fn realize(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Path(word): Path<String>,
) -> Result<(StatusCode, Json<JobReference>), Refusal> {
    let job = blocking(&app, move |h| h.realize(planned_named(h, &word)?, &peer.name)).await?;
    Ok((StatusCode::ACCEPTED, Json(JobReference { job })))
}

/// Forgets it. The package is not touched.
#[utoipa::path(delete, path = "/v1/planned/{planned}", tag = "import", params(("planned" = String, Path)),
    responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn abandon(State(app): State<App>, Path(word): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(&app, move |h| h.abandon_planned(planned_named(h, &word)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
