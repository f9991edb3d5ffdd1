//! Writes into the audit log what was asked to change, by whom, and how it ended.
//!
//! The line is written when the end is known and before it is told: whoever was told of a change finds it in the log.
//! Looking is not written down.

use std::sync::Arc;

use access::Action;
use access::audit::Line;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::{App, Peer};

pub(super) async fn audited(State(app): State<App>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let who = request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.name.clone());
    let path = request.uri().path();
    let does = match path.rsplit('/').next() {
        _ if path.starts_with("/v1/users") => Action::Administer,
        Some("export") => Action::Export,
        Some("start" | "stop" | "shutdown" | "save" | "pause" | "resume" | "reset" | "keys" | "autostop") => {
            Action::Operate
        }
        _ => Action::Configure,
    };
    let what = format!("{} {path}", request.method());
    let response = next.run(request).await;
    let end = response.status().as_u16().to_string();
    let audit = Arc::clone(&app.audit);
    let write = move || {
        let line =
            Line { user: &who, from: "socket", does: does.word(), what: &what, machine: None, end: &end };
        audit.write(line, true);
    };
    if tokio::task::spawn_blocking(write).await.is_err() {
        tracing::error!("the audit log's writer ended unexpectedly");
    }
    response
}
