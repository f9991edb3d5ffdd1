//! The NBD protocol, blocking, with block status.
//!
//! This is how Slipway reads and writes every image that QEMU understands: `engine` starts a server on a Unix socket,
//! and a [`Client`] here turns the socket back into a disk.
//!
//! ```text
//!   connect ── Negotiation ── go ──> Client ──┬── caller thread: send request, wait ──┐
//!              (list, info,                   ├── caller thread: send request, wait ──┤ one socket
//!               meta contexts)                └── reader thread: replies by cookie  <─┘
//! ```
//!
//! * [`proto`] is the wire as pure values: every message encodes to bytes and decodes from bytes, without a socket.
//!   A server will be built on the same values.
//! * [`negotiation`] is the fixed newstyle handshake, client side.
//! * [`client`] is the transmission phase: many requests in flight from many threads on one connection.
//!
//! The crate knows no disk format, starts no process and uses no async runtime. Every length that a peer names is
//! compared with a constant of [`limits`] before anything is allocated.
//!
//! Sources: the NBD project's `proto.md`, and the `qemu:` meta context names of QEMU's `docs/interop/nbd.txt`.

#![forbid(unsafe_code)]

pub mod client;
pub mod error;
pub mod limits;
pub mod negotiation;
pub mod proto;
pub mod reply;

pub use client::{Client, ClientOptions, StatusExtents};
pub use error::{ConnectError, ConnectErrorKind, RequestError, RequestErrorKind};
pub use negotiation::{BlockSizes, Export, ExportListing, Negotiation};
pub use proto::{Command, ServerErrno, StatusExtent};

/// Flags of the `base:allocation` meta context.
pub mod allocation {
    /// Not allocated: a hole of the image.
    pub const HOLE: u32 = 1;
    /// Reads as zeros.
    pub const ZERO: u32 = 2;
    /// The name of the context.
    pub const CONTEXT: &str = "base:allocation";
}

/// Flags of QEMU's `qemu:dirty-bitmap:NAME` meta contexts.
pub mod dirty_bitmap {
    /// The extent changed while the bitmap was recording.
    pub const DIRTY: u32 = 1;
    /// What the context's name begins with; the bitmap's name follows.
    pub const PREFIX: &str = "qemu:dirty-bitmap:";
}
