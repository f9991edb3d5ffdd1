//! What goes wrong: with an operation, which is told inside a message, or with the message, which is told by HTTP.

use wsman::Failure;
use wsman::contexts::ContextError;
use wsman::query::QueryFailure;

/// A status code of CIM (DSP0200, 5.2), as far as it is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// `CIM_ERR_FAILED`.
    Failed = 1,
    /// `CIM_ERR_ACCESS_DENIED`.
    AccessDenied = 2,
    /// `CIM_ERR_INVALID_NAMESPACE`.
    InvalidNamespace = 3,
    /// `CIM_ERR_INVALID_PARAMETER`.
    InvalidParameter = 4,
    /// `CIM_ERR_INVALID_CLASS`.
    InvalidClass = 5,
    /// `CIM_ERR_NOT_FOUND`.
    NotFound = 6,
    /// `CIM_ERR_NOT_SUPPORTED`.
    NotSupported = 7,
    /// `CIM_ERR_NO_SUCH_PROPERTY`.
    NoSuchProperty = 12,
    /// `CIM_ERR_TYPE_MISMATCH`.
    TypeMismatch = 13,
    /// `CIM_ERR_QUERY_LANGUAGE_NOT_SUPPORTED`.
    QueryLanguageNotSupported = 14,
    /// `CIM_ERR_INVALID_QUERY`.
    InvalidQuery = 15,
    /// `CIM_ERR_METHOD_NOT_FOUND`.
    MethodNotFound = 17,
    /// `CIM_ERR_INVALID_ENUMERATION_CONTEXT`.
    InvalidEnumerationContext = 21,
    /// `CIM_ERR_INVALID_OPERATION_TIMEOUT`.
    InvalidOperationTimeout = 22,
    /// `CIM_ERR_FILTERED_ENUMERATION_NOT_SUPPORTED`.
    FilteredEnumerationNotSupported = 25,
    /// `CIM_ERR_CONTINUATION_ON_ERROR_NOT_SUPPORTED`.
    ContinuationOnErrorNotSupported = 26,
    /// `CIM_ERR_SERVER_LIMITS_EXCEEDED`.
    ServerLimitsExceeded = 27,
}

/// An operation that did not happen: the content of an `ERROR`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct CimError {
    /// The status code.
    pub code: u16,
    /// What went wrong, for people.
    pub description: String,
}

impl CimError {
    /// One of that status.
    #[must_use]
    pub fn new(status: Status, description: impl Into<String>) -> Self {
        Self { code: status as u16, description: description.into() }
    }

    pub(crate) fn parameter(description: impl Into<String>) -> Self {
        Self::new(Status::InvalidParameter, description)
    }
}

impl From<Failure> for CimError {
    fn from(failure: Failure) -> Self {
        Self { code: failure.kind.status(), description: failure.message }
    }
}

impl From<ContextError> for CimError {
    fn from(error: ContextError) -> Self {
        let status = match error {
            ContextError::Gone => Status::InvalidEnumerationContext,
            ContextError::Busy => Status::Failed,
            ContextError::TooManyOfUser | ContextError::TooMany => Status::ServerLimitsExceeded,
        };
        Self::new(status, error.to_string())
    }
}

impl From<QueryFailure> for CimError {
    fn from(failure: QueryFailure) -> Self {
        match failure {
            QueryFailure::Refused(failure) => failure.into(),
            other => Self::new(Status::InvalidQuery, other.to_string()),
        }
    }
}

/// A request that is no message to be answered (DSP0200, 7.3): HTTP says so, with a word in the header `CIMError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {why}")]
pub struct ProtocolError {
    /// The status of HTTP.
    pub status: u16,
    /// The value of `CIMError`.
    pub word: &'static str,
    /// What is wrong, for a log.
    pub why: String,
}

impl ProtocolError {
    fn new(status: u16, word: &'static str, why: impl Into<String>) -> Self {
        Self { status, word, why: why.into() }
    }

    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        Self::new(400, "request-not-well-formed", why)
    }

    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::new(400, "request-not-valid", why)
    }

    pub(crate) fn loose(why: impl Into<String>) -> Self {
        Self::new(400, "request-not-loosely-valid", why)
    }

    pub(crate) fn headers(why: impl Into<String>) -> Self {
        Self::new(400, "header-mismatch", why)
    }

    pub(crate) fn operation(why: impl Into<String>) -> Self {
        Self::new(400, "unsupported-operation", why)
    }

    pub(crate) fn unsupported(word: &'static str, why: impl Into<String>) -> Self {
        Self::new(501, word, why)
    }
}
