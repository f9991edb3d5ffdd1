//! `/v1/switches`.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{App, Refusal, blocking};
use crate::wire::{CreateSwitch, MapSwitch, Problem, Switch, SwitchList};

/// Every switch.
#[utoipa::path(get, path = "/v1/switches", tag = "switches", responses((status = 200, body = SwitchList)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<SwitchList>, Refusal> {
    let switches = blocking(&app, |h| h.switches()).await?;
    Ok(Json(SwitchList { switches: switches.into_iter().map(Switch::from).collect() }))
}

/// One switch, by name or id.
#[utoipa::path(get, path = "/v1/switches/{switch}", tag = "switches", params(("switch" = String, Path)),
    responses((status = 200, body = Switch), (status = 404, body = Problem)))]
pub(crate) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Switch>, Refusal> {
    Ok(Json(blocking(&app, move |h| h.switch(&name)).await?.into()))
}

/// Makes a switch.
#[utoipa::path(post, path = "/v1/switches", tag = "switches", request_body = CreateSwitch,
    responses((status = 201, body = Switch), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    body: Result<Json<CreateSwitch>, JsonRejection>,
) -> Result<(StatusCode, Json<Switch>), Refusal> {
    let Json(create) = body?;
    let kind = create.domain_kind().map_err(Refusal::invalid)?;
    let switch = blocking(&app, move |h| h.create_switch(&create.name, kind)).await?;
    Ok((StatusCode::CREATED, Json(switch.into())))
}

/// Lets it answer to a switch name of another host.
#[utoipa::path(post, path = "/v1/switches/{switch}/map", tag = "switches", params(("switch" = String, Path)),
    request_body = MapSwitch, responses((status = 200, body = Switch), (status = 409, body = Problem)))]
pub(crate) async fn map(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Result<Json<MapSwitch>, JsonRejection>,
) -> Result<Json<Switch>, Refusal> {
    let Json(map) = body?;
    Ok(Json(blocking(&app, move |h| h.map_switch(&name, &map.source, map.vlan)).await?.into()))
}

/// Deletes a switch that no machine uses.
#[utoipa::path(delete, path = "/v1/switches/{switch}", tag = "switches", params(("switch" = String, Path)),
    responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn delete(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(&app, move |h| h.delete_switch(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
