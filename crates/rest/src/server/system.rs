//! The host itself: health, numbers, version, what it lacks, and requests that no route takes.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::IntoResponse;

use super::{App, Refusal, blocking, metrics};
use crate::wire::{Check, Doctor, Version};

/// `GET /healthz`: records can be written and guests can be started. Whatever is wrong is 503: not now, not here.
pub(super) async fn health(State(app): State<App>) -> Result<&'static str, Refusal> {
    blocking(&app, |host| host.health()).await.map_err(Refusal::unavailable)?;
    Ok("ok\n")
}

/// `GET /metrics`: the host in numbers, as Prometheus reads them.
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Refusal> {
    let text = blocking(&app, |host| host.statistics()).await.map(|s| metrics::exposition(&s))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

/// `GET /v1`.
#[utoipa::path(get, path = "/v1", tag = "host", responses((status = 200, body = Version)))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version {
        name: "slipway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    })
}

/// `GET /v1/openapi.json`.
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(crate::openapi::document())
}

/// `GET /v1/doctor`.
#[utoipa::path(get, path = "/v1/doctor", tag = "host", responses((status = 200, body = Doctor)))]
pub(crate) async fn doctor(State(app): State<App>) -> Result<Json<Doctor>, Refusal> {
    let report = blocking(&app, |h| Ok(h.report())).await?;
    Ok(Json(report.into()))
}

impl From<machine::HostReport> for Doctor {
    fn from(report: machine::HostReport) -> Self {
        let usable = report.usable();
        let checks = report
            .checks
            .into_iter()
            .map(|c| Check {
                id: c.id,
                verdict: match c.verdict {
                    machine::Verdict::Ok => "ok",
                    machine::Verdict::Warn => "warn",
                    machine::Verdict::Fail => "fail",
                }
                .to_owned(),
                found: c.found,
                fix: c.fix,
            })
            .collect();
        Self { usable, checks }
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at `{}`; see /v1/openapi.json", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::method(format!("`{}` does not take {method}; see /v1/openapi.json", uri.path()))
}
