//! The seam: what every engine offers and what a running guest can be asked.
//!
//! Blocking calls, each with its own limit inside; safe to call from several threads. Events of one guest are told in
//! the order they happened to the [`Listener`] given at start or attach; the last one is [`GuestEvent::Stopped`] or
//! [`GuestEvent::Died`], after which the engine drops it.
//!
//! What this leaves to others: when to start or stop what (the domain), and how (each engine).

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{AttachError, GuestError, StartError};
use crate::host::HostReport;
use crate::keys::{Chord, Stroke};
use crate::spec::{GuestSpec, Mac, Resolved};

/// Hears what happens to one guest. Dropped when there is no more to hear.
pub trait Listener: Send {
    /// Takes an event in. Called, and dropped, while the engine holds locks of the guest: it must neither wait nor ask
    /// the guest anything, only put the event where somebody finds it.
    fn hear(&self, event: GuestEvent);
}

impl Listener for Sender<GuestEvent> {
    fn hear(&self, event: GuestEvent) {
        // A listener that went away is no reason for a guest to care.
        let _ = self.send(event);
    }
}

/// Something that runs guests.
pub trait Engine: Send + Sync {
    /// Starts a guest. When this returns it runs (firmware onwards) in a process that outlives ours.
    ///
    /// # Errors
    /// See [`StartErrorKind`](crate::StartErrorKind); nothing is left running.
    fn start(&self, spec: &GuestSpec, events: Box<dyn Listener>) -> Result<Box<dyn Guest>, StartError>;

    /// Starts a guest from what [`Guest::save`] wrote to `state`. When this returns its memory and devices are as they
    /// were and it is [`RunState::Frozen`]: not one instruction has run, and none of its disks was written.
    /// [`Guest::thaw`] lets it run, [`Guest::power_off`] leaves `state` as good as before.
    ///
    /// `spec` must describe the same hardware, with the machine version, CPU model and accelerator that it was saved
    /// with: an engine may load a state into other hardware without noticing, so that is the caller's to compare, and
    /// so is whether `state` is what was written.
    ///
    /// # Errors
    /// As [`Engine::start`], and [`BadState`](crate::StartErrorKind::BadState); nothing is left running.
    fn restore(
        &self,
        spec: &GuestSpec,
        state: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError>;

    /// Takes over a guest that outlived us; `None` when none runs there.
    ///
    /// # Errors
    /// When something runs there that cannot be taken over.
    fn attach(
        &self,
        runtime_dir: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Option<Box<dyn Guest>>, AttachError>;

    /// What this host can do. The first call may take a few seconds (KVM is tried for real).
    fn probe(&self) -> HostReport;
}

/// A guest that runs. Dropping the handle leaves the guest running and ends its events.
///
/// Every operation fails as [`GuestErrorKind`](crate::GuestErrorKind) tells.
pub trait Guest: Send + Sync {
    /// What it was started with.
    fn spec(&self) -> &GuestSpec;

    /// What the engine chose where the specification left it open.
    fn resolved(&self) -> &Resolved;

    /// Its state now, as far as events have told.
    fn state(&self) -> RunState;

    /// Its process, when it has one.
    fn pid(&self) -> Option<u32>;

    /// Stops its processors. Pausing a paused guest is fine.
    fn pause(&self) -> Result<(), GuestError>;

    /// Lets its processors go on. Resuming a running guest is fine.
    fn resume(&self) -> Result<(), GuestError>;

    /// Presses its reset button.
    fn reset(&self) -> Result<(), GuestError>;

    /// Whether it could be saved now: some devices and disk formats cannot.
    ///
    /// # Errors
    /// [`Unsupported`](crate::GuestErrorKind::Unsupported) says what stands in the way.
    fn can_save(&self) -> Result<(), GuestError>;

    /// Freezes it and writes memory and devices to the file `state`, over what is there. When this returns the bytes
    /// are written, not synced, the guest is [`RunState::Frozen`] and its disks are as the state needs them:
    /// [`Guest::thaw`] or [`Guest::power_off`] comes next.
    ///
    /// `watch` is asked before anything is written and then several times a second; breaking off ends the save as [`Cancelled`](crate::GuestErrorKind).
    /// After any error the guest goes on as before and the file is good for nothing. A guest that an earlier save left
    /// frozen is thawed first.
    fn save(
        &self,
        state: &Path,
        watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>,
    ) -> Result<(), GuestError>;

    /// Lets a guest that [`Guest::save`] or [`Engine::restore`] froze go on: running, or paused where it was paused
    /// before the save. Ends a save that is under way, also one that an earlier process began. Fine when it is not
    /// frozen.
    fn thaw(&self) -> Result<(), GuestError>;

    /// Pulls its plug. When this returns the process is gone and its disks are free. Fine when it was gone already.
    fn power_off(&self) -> Result<(), GuestError>;

    /// Asks it to shut down: its agent if that answers within a short limit, else the power button.
    /// Returns once asked; [`GuestEvent::Stopped`] tells when it has done so.
    fn shutdown(&self) -> Result<ShutdownVia, GuestError>;

    /// Waits until it has ended, at most `limit`. Whether it has.
    fn wait_stopped(&self, limit: Duration) -> bool;

    /// Writes what its display shows to `path`, which is replaced at once or not at all: as `wanted`, or as PPM where the
    /// engine can only do that. Which it is, is returned.
    fn screenshot(&self, path: &Path, wanted: PictureFormat) -> Result<PictureFormat, GuestError>;

    /// Presses and releases each chord in turn.
    fn send_keys(&self, chords: &[Chord]) -> Result<(), GuestError>;

    /// Presses keys down and lets them go, one after the other, as a hand would. One that is not let go stays down.
    fn strokes(&self, strokes: &[Stroke]) -> Result<(), GuestError>;

    /// Interrupts all its processors in a way that they cannot mask: what a kernel then does is its own matter.
    fn interrupt(&self) -> Result<(), GuestError>;

    /// Has its agent reboot it; returns once the agent has taken the order. There is no button for that.
    ///
    /// # Errors
    /// [`NoAgent`](crate::GuestErrorKind::NoAgent): nobody in it takes the order.
    fn reboot(&self) -> Result<(), GuestError>;

    /// Puts an ISO image into a drive, whatever was in it; `None` leaves it closed and empty.
    /// `force` opens a door that the guest holds locked.
    fn change_media(&self, drive: &str, media: Option<&Path>, force: bool) -> Result<(), GuestError>;

    /// Opens a drive's tray and takes the disc out.
    fn eject(&self, drive: &str, force: bool) -> Result<(), GuestError>;

    /// Plugs an adapter's cable in or out.
    fn set_link(&self, nic: &str, up: bool) -> Result<(), GuestError>;

    /// Whether the guest's agent answers within `limit`.
    fn agent_ping(&self, limit: Duration) -> Result<(), GuestError>;

    /// The guest's own view of its network.
    fn agent_interfaces(&self, limit: Duration) -> Result<Vec<AgentInterface>, GuestError>;

    /// What the guest runs.
    fn agent_os(&self, limit: Duration) -> Result<AgentOs, GuestError>;

    /// The guest's name for itself, from its agent.
    fn agent_host_name(&self, limit: Duration) -> Result<String, GuestError>;

    /// The socket of a serial port (0 is the console), if the guest has that many. One client at a time.
    fn serial_socket(&self, port: u32) -> Option<PathBuf>;

    /// Where everything that a serial port sent since this start is kept.
    fn serial_log(&self, port: u32) -> Option<PathBuf>;

    /// The VNC server's socket, if it was asked for.
    fn vnc_socket(&self) -> Option<PathBuf>;
}

/// What happened to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestEvent {
    /// Its processors run for the first time. Also the first event after an attach, with whatever state it is in.
    Started,
    /// Its processors stopped.
    Paused,
    /// Its processors go on.
    Resumed,
    /// It was reset.
    Reset {
        /// It did so itself: it rebooted.
        by_guest: bool,
    },
    /// It was asked to shut down.
    ShutdownRequested,
    /// A disk failed it and the guest was paused so that it does not see the error.
    DiskError {
        /// The disk's or drive's id from the specification, when it is known.
        disk: Option<String>,
        /// The engine's words.
        message: String,
    },
    /// It ended in an orderly way. Last event.
    Stopped {
        /// Who ended it.
        by: StoppedBy,
    },
    /// Its process is gone without a word. Last event.
    Died {
        /// What is known of why.
        message: String,
    },
    /// Something else that the engine told.
    Other {
        /// The engine's name for it.
        name: String,
    },
}

/// Who ended a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoppedBy {
    /// The guest itself shut down.
    Guest,
    /// We or the host did.
    Host,
    /// The guest's kernel panicked.
    Panic,
}

/// Where a guest is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Being built.
    Starting,
    /// Processors run.
    Running,
    /// Processors stand.
    Paused,
    /// Processors stand for a save or since a restore, until [`Guest::thaw`].
    Frozen,
    /// Asked to shut down and still at it.
    ShuttingDown,
    /// Gone.
    Stopped,
}

/// How far a save has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SaveProgress {
    /// Bytes of memory looked at.
    pub done: u64,
    /// Bytes of memory; 0 while it is not known.
    pub total: u64,
}

/// How a guest was asked to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShutdownVia {
    /// Its agent took the order.
    Agent,
    /// The ACPI power button; a guest may ignore that.
    PowerButton,
}

/// What a screenshot was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    /// PNG.
    Png,
    /// Portable pixmap, from an engine built without PNG.
    Ppm,
}

/// A network interface as the guest's agent tells it. Hostile input: show it, do not act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInterface {
    /// The guest's name for it.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// The guest's operating system as its agent tells it. Hostile input: show it, do not act on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentOs {
    /// `debian`, `mswindows`, ...
    pub id: Option<String>,
    /// For people.
    pub pretty_name: Option<String>,
    /// Version, if told.
    pub version: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
}
