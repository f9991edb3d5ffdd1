//! A running guest, and any QEMU image as NBD.
//!
//! ```text
//!   GuestSpec ──► Engine::start ──► Box<dyn Guest> ── pause, reset, shutdown, save, screenshot, keys, media, link, agent
//!                      │                  ▲
//!                      ▼                  │ QMP, agent (Unix sockets in the guest's runtime directory)
//!              a process of its own ──────┘── events ──► Listener ──► the domain
//!              that outlives ours; Engine::attach finds it again
//! ```
//!
//! [`spec`] says what a guest is made of, [`guest`] what can be done with it; both are free of QEMU's words, which
//! stop inside `qemu` and `qmp`. `sim` is a deterministic double of the same traits.
//!
//! This crate knows no Hyper-V, no package and no store, and decides no policy: it builds what the specification
//! says or tells why not.

#![forbid(unsafe_code)]

pub mod error;
pub mod guest;
pub mod host;
pub mod image;
pub mod keys;
pub mod qemu;
mod qmp;
mod shortname;
pub mod sim;
pub mod spec;
pub mod varstore;

pub use error::{AttachError, AttachErrorKind, GuestError, GuestErrorKind, StartError, StartErrorKind};
pub use guest::{
    AgentInterface, AgentOs, Engine, Guest, GuestEvent, Listener, PictureFormat, RunState, SaveProgress,
    ShutdownVia, StoppedBy,
};
pub use host::{Check, FirmwareFound, HostReport, KvmVerdict, Program, Verdict};
pub use qemu::{QemuConfig, QemuEngine};
pub use sim::{SimEngine, SimGuestControl};
pub use spec::{
    Accel, Chipset, Clock, DiskBus, DiskSpec, DvdSpec, Firmware, GuestSpec, Identity, ImageFormat, LayerSpec,
    Mac, NicBackend, NicModel, NicSpec, Resolved, SpecError, TpmSpec,
};
