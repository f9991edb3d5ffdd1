//! Power states and which request each of them admits: policy only, no lock, no I/O.
//!
//! ```text
//!            start                    shutdown
//!   Off ───────────▶ Starting ─▶ Running ─────▶ ShuttingDown ─▶ Off
//!    ▲                   │       │  ▲ │ pause        │
//!    └───────────────────┴───────┘  │ ▼              │
//!         stop, guest gone        Paused ◀───────────┘ (stop from anywhere but Off)
//! ```
//!
//! The table is `hyperv-semantics` §10 without the saved state, which a later change adds. Doing what was admitted is
//! [`crate::host`]'s part.

use serde::{Deserialize, Serialize};

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// No guest.
    Off,
    /// A guest is being made.
    Starting,
    /// The guest runs.
    Running,
    /// The guest is frozen and can go on.
    Paused,
    /// The guest was asked to shut down and has not yet.
    ShuttingDown,
    /// The guest is being ended.
    Stopping,
}

impl PowerState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Starting, Self::Running, Self::Paused, Self::ShuttingDown, Self::Stopping];

    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting-down",
            Self::Stopping => "stopping",
        }
    }
}

impl std::fmt::Display for PowerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody asks of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Make a guest and run it.
    Start,
    /// End the guest at once.
    Stop,
    /// Ask the guest to shut down.
    Shutdown,
    /// Freeze the guest.
    Pause,
    /// Let a frozen guest go on.
    Resume,
    /// Press the reset button.
    Reset,
    /// Change settings that a running guest cannot take.
    Edit,
    /// Read the disks as they are at rest.
    Export,
    /// Remove the machine.
    Delete,
}

impl Request {
    /// Every request.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Stop,
        Self::Shutdown,
        Self::Pause,
        Self::Resume,
        Self::Reset,
        Self::Edit,
        Self::Export,
        Self::Delete,
    ];

    /// The word for messages.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shut down",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Edit => "change",
            Self::Export => "export",
            Self::Delete => "delete",
        }
    }
}

/// Whether `state` admits `request`.
pub fn admits(state: PowerState, request: Request) -> bool {
    use PowerState as S;
    use Request as R;
    match request {
        R::Start | R::Edit | R::Export | R::Delete => state == S::Off,
        R::Stop => matches!(state, S::Running | S::Paused | S::ShuttingDown),
        R::Shutdown => matches!(state, S::Running | S::ShuttingDown),
        R::Pause => state == S::Running,
        R::Resume => state == S::Paused,
        R::Reset => matches!(state, S::Running | S::Paused | S::ShuttingDown),
    }
}

/// The command that brings a machine in `state` to where `request` is admitted, for hints.
pub fn way_to(state: PowerState, request: Request) -> Option<&'static str> {
    use PowerState as S;
    use Request as R;
    match (state, request) {
        (S::Running | S::Paused | S::ShuttingDown, R::Edit | R::Export | R::Delete) => Some("stop"),
        (S::Paused, R::Start | R::Shutdown) => Some("resume"),
        (S::Off, R::Shutdown | R::Pause | R::Reset | R::Resume) => Some("start"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_admitted_requests_is_as_documented() {
        use PowerState as S;
        use Request as R;
        let admitted: &[(S, &[R])] = &[
            (S::Off, &[R::Start, R::Edit, R::Export, R::Delete]),
            (S::Starting, &[]),
            (S::Running, &[R::Stop, R::Shutdown, R::Pause, R::Reset]),
            (S::Paused, &[R::Stop, R::Resume, R::Reset]),
            (S::ShuttingDown, &[R::Stop, R::Shutdown, R::Reset]),
            (S::Stopping, &[]),
        ];
        for (state, requests) in admitted {
            for request in R::ALL {
                assert_eq!(admits(*state, request), requests.contains(&request), "{state} {request:?}");
            }
        }
    }
}
