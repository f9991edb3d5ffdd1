//! The host itself, and how requests fail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A refusal or failure: the body of every response that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What happened.
    pub error: ProblemBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// Stable id, from a closed set; `slipway explain ID` says more.
    pub id: String,
    /// What happened, with every cause.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// `slipway`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of this interface: `v1`.
    pub api: String,
}

/// What the host has and lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// Machines can be run.
    pub usable: bool,
    /// One line each.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Stable id.
    pub id: String,
    /// `ok`, `warn` or `fail`.
    pub verdict: String,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}
