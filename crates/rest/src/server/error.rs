//! How requests fail: one table from reasons to statuses, one body for all.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use machine::Reason;

use crate::wire::{Problem, ProblemBody};

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    body: ProblemBody,
}

/// The status of each reason, judged by what a client will do: 404 look elsewhere, 409 wait or change something first,
/// 422 change the request, 403 get permission, 503 repair the host, 507 make room.
pub(crate) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Ambiguous
        | Reason::InvalidState
        | Reason::Busy
        | Reason::AlreadyExists
        | Reason::InUse
        | Reason::BadState
        | Reason::NotCompatible => StatusCode::CONFLICT,
        Reason::InvalidArgument | Reason::BadPackage => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::AccessDenied => StatusCode::FORBIDDEN,
        Reason::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Reason::HostLacks => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::NotSupported => StatusCode::NOT_IMPLEMENTED,
        Reason::Io | Reason::Store | Reason::Engine => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self::with_status(status(reason), reason.id(), message)
    }

    fn with_status(status: StatusCode, id: &str, message: impl Into<String>) -> Self {
        Self { status, body: ProblemBody { id: id.to_owned(), message: message.into(), hint: None } }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidArgument, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Reason::NotFound, message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::SERVICE_UNAVAILABLE, Reason::Busy.id(), message)
    }

    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::PAYLOAD_TOO_LARGE, Reason::InvalidArgument.id(), message)
    }

    /// The same, as something that this host cannot do at the moment.
    pub(crate) fn unavailable(self) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..self }
    }

    pub(crate) fn slow(message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::REQUEST_TIMEOUT, Reason::Timeout.id(), message)
    }

    pub(crate) fn method(message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message)
    }
}

impl From<machine::Error> for Refusal {
    fn from(e: machine::Error) -> Self {
        let mut refusal = Self::new(e.reason(), e.chain());
        refusal.body.hint = e.hint_text().map(str::to_owned);
        refusal
    }
}

impl From<JsonRejection> for Refusal {
    fn from(e: JsonRejection) -> Self {
        Self::with_status(e.status(), Reason::InvalidArgument.id(), e.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(e: PathRejection) -> Self {
        Self::invalid(e.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(e: QueryRejection) -> Self {
        Self::invalid(e.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), id = self.body.id, "{}", self.body.message);
        }
        (self.status, Json(Problem { error: self.body })).into_response()
    }
}
