//! Power states and what each of them answers to each request: policy only, no lock, no I/O.
//!
//! ```text
//!            start                    shutdown
//!   Off ───────────▶ Starting ─▶ Running ─────▶ ShuttingDown ─▶ Off
//!    ▲                            │  ▲ │ pause        │
//!    ├───────── Stopping ◀────────┘  │ ▼              │
//!    │        stop, guest gone      Paused ◀──────────┘ (stop and save from anywhere a guest lives)
//!    │                              ▲ │ save
//!    │ stop (state discarded)       │ ▼
//!   Saved ─▶ Restoring ─▶ Running   Saving ─▶ Saved
//! ```
//!
//! The table is Hyper-V's `RequestStateChange` (`hyperv-semantics` §10), with our own rows for the states in which it
//! only says "busy" and our own columns for what is not a power request there: shutting down by the guest, changing,
//! exporting and deleting. Doing what was admitted is [`crate::lifecycle`]'s part.

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
    /// The guest is frozen while its memory is written to a file.
    Saving,
    /// No guest, but its memory is kept: a start goes on where it was.
    Saved,
    /// A guest is being made of what was saved.
    Restoring,
}

impl PowerState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Off,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::ShuttingDown,
        Self::Stopping,
        Self::Saving,
        Self::Saved,
        Self::Restoring,
    ];

    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting-down",
            Self::Stopping => "stopping",
            Self::Saving => "saving",
            Self::Saved => "saved",
            Self::Restoring => "restoring",
        }
    }

    /// Whether nothing of the machine lives: off or saved.
    pub fn at_rest(self) -> bool {
        matches!(self, Self::Off | Self::Saved)
    }

    /// Whether it is on its way to another state without anybody having to ask again.
    pub fn in_transition(self) -> bool {
        match self {
            Self::Starting | Self::ShuttingDown | Self::Stopping | Self::Saving | Self::Restoring => true,
            Self::Off | Self::Running | Self::Paused | Self::Saved => false,
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
    /// Make a guest and run it; let one that was saved or paused go on.
    Start,
    /// End the guest at once; discard what was saved.
    Stop,
    /// Ask the guest to shut down.
    Shutdown,
    /// Write the guest's memory to a file and end it.
    Save,
    /// Freeze the guest.
    Pause,
    /// Let a frozen guest go on.
    Resume,
    /// Press the reset button.
    Reset,
    /// Change settings that a guest, running or saved, cannot take.
    Edit,
    /// Read the disks as they are at rest.
    Export,
    /// Remove the machine.
    Delete,
}

impl Request {
    /// Every request.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Stop,
        Self::Shutdown,
        Self::Save,
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
            Self::Save => "save",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Edit => "change",
            Self::Export => "export",
            Self::Delete => "delete",
        }
    }
}

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Nothing: it is refused.
    Refused,
    /// The machine ends in this state, unless the engine or the guest fails it.
    Becomes(PowerState),
    /// It is done, and the machine stays as it is.
    Stays,
    /// The machine is no more.
    Gone,
}

/// The whole table.
pub fn answer(state: PowerState, request: Request) -> Answer {
    use Answer::{Becomes, Gone, Refused, Stays};
    use PowerState as S;
    use Request as R;
    match (request, state) {
        (R::Start, S::Off | S::Saved | S::Paused)
        | (R::Resume, S::Paused)
        | (R::Reset, S::Running | S::Paused | S::ShuttingDown) => Becomes(S::Running),
        (R::Stop, S::Running | S::Paused | S::ShuttingDown | S::Saved)
        | (R::Shutdown, S::Running | S::ShuttingDown) => Becomes(S::Off),
        (R::Save, S::Running | S::Paused) => Becomes(S::Saved),
        (R::Pause, S::Running) => Becomes(S::Paused),
        (R::Edit, S::Off) | (R::Export, S::Off | S::Saved) => Stays,
        (R::Delete, S::Off | S::Saved) => Gone,
        _ => Refused,
    }
}

/// Whether `state` admits `request`.
pub fn admits(state: PowerState, request: Request) -> bool {
    answer(state, request) != Answer::Refused
}

/// A command that brings a machine to where a request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// `slipway machine <command> NAME`.
    pub command: &'static str,
    /// What else it does that a person should know.
    pub also: Option<&'static str>,
}

/// The command that brings a machine in `state` to where `request` is admitted, for hints.
pub fn way_to(state: PowerState, request: Request) -> Option<Way> {
    use PowerState as S;
    use Request as R;
    let plain = |command| Some(Way { command, also: None });
    match (state, request) {
        (S::Running | S::Paused | S::ShuttingDown, R::Edit | R::Export | R::Delete) => plain("stop"),
        (S::Paused, R::Shutdown) => plain("resume"),
        (S::Off | S::Saved, R::Shutdown | R::Pause | R::Reset | R::Resume) | (S::Off, R::Save) => {
            plain("start")
        }
        (S::Saved, R::Edit) => Some(Way { command: "stop", also: Some("discards its saved state") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as documentation has it: what each state admits, and what becomes of it.
    #[test]
    fn the_table_is_as_documented() {
        use Answer::{Becomes, Gone, Stays};
        use PowerState as S;
        use Request as R;
        let (running, off) = (Becomes(S::Running), Becomes(S::Off));
        let admitted: &[(S, &[(R, Answer)])] = &[
            (S::Off, &[(R::Start, running), (R::Edit, Stays), (R::Export, Stays), (R::Delete, Gone)]),
            (S::Starting, &[]),
            (
                S::Running,
                &[
                    (R::Stop, off),
                    (R::Shutdown, off),
                    (R::Save, Becomes(S::Saved)),
                    (R::Pause, Becomes(S::Paused)),
                    (R::Reset, running),
                ],
            ),
            (
                S::Paused,
                &[
                    (R::Start, running),
                    (R::Stop, off),
                    (R::Save, Becomes(S::Saved)),
                    (R::Resume, running),
                    (R::Reset, running),
                ],
            ),
            (S::ShuttingDown, &[(R::Stop, off), (R::Shutdown, off), (R::Reset, running)]),
            (S::Stopping, &[]),
            (S::Saving, &[]),
            (S::Saved, &[(R::Start, running), (R::Stop, off), (R::Export, Stays), (R::Delete, Gone)]),
            (S::Restoring, &[]),
        ];
        assert_eq!(admitted.iter().map(|(s, _)| *s).collect::<Vec<_>>(), S::ALL);
        for (state, answers) in admitted {
            for request in R::ALL {
                let expected = answers.iter().find(|(r, _)| *r == request);
                let expected = expected.map_or(Answer::Refused, |(_, answer)| *answer);
                assert_eq!(answer(*state, request), expected, "{state} {request:?}");
            }
        }
    }

    #[test]
    fn a_way_leads_where_the_request_is_admitted() {
        for state in PowerState::ALL {
            for request in Request::ALL {
                let Some(way) = way_to(state, request) else { continue };
                assert!(!admits(state, request), "{state} {request:?} needs no way");
                let command = Request::ALL.into_iter().find(|r| r.verb() == way.command);
                let Answer::Becomes(then) = answer(state, command.expect("a request")) else {
                    unreachable!("`{}` leads nowhere from {state}", way.command)
                };
                // Of a machine that is off or saved, what resumes it is its start.
                let there =
                    admits(then, request) || answer(PowerState::Paused, request) == Answer::Becomes(then);
                assert!(there, "{state} {request:?}: {} leads to {then}", way.command);
            }
        }
    }
}
