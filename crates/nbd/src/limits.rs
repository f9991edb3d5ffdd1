//! How much a peer may make us believe, allocate or wait for.
//!
//! Each constant is compared with a number from the wire before it is used. What a caller may tune is in
//! [`ClientOptions`](crate::ClientOptions); what is here holds whatever the caller wants.

use std::time::Duration;

/// Longest string of the protocol in bytes: export names, descriptions, context names, messages (`proto.md`).
pub const MAX_STRING: u32 = 4096;

/// Longest payload of one option reply in bytes. The largest one defined holds two strings and a length.
pub const MAX_OPTION_REPLY: u32 = 4 * MAX_STRING;

/// Most exports that one listing may name.
pub const MAX_EXPORTS: usize = 16_384;

/// Most meta contexts that one connection may negotiate or list.
pub const MAX_CONTEXTS: usize = 1024;

/// Most information replies to one `NBD_OPT_GO` or `NBD_OPT_INFO`.
pub const MAX_INFOS: usize = 64;

/// Largest export size in bytes: what a signed 64-bit file offset can address.
pub const MAX_EXPORT_SIZE: u64 = i64::MAX as u64;

/// Largest data payload of one request or reply in bytes; 32 MiB is what every server must accept (`proto.md`).
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Most bytes that one request without payload (trim, zero, status) asks about; far below 2^32 and a power of two,
/// so that pieces stay aligned.
pub const MAX_EFFECT: u32 = 1 << 30;

/// Most extents in one block status reply (QEMU sends at most 2^17).
pub const MAX_REPLY_EXTENTS: u32 = 1 << 20;

/// Most extents that [`Client::block_status`](crate::Client::block_status) gathers before it refuses; the lazy
/// [`Client::status_extents`](crate::Client::status_extents) has no such limit.
pub const MAX_GATHERED_EXTENTS: usize = 1 << 21;

/// Most chunks in one structured reply: a full payload in sectors of 512 bytes, and one to end it.
pub const MAX_CHUNKS: u32 = MAX_PAYLOAD / 512 + 1;

/// Smallest block size that a server may require, as a power of two up to this many bytes (`proto.md`).
pub const MAX_MINIMUM_BLOCK: u32 = 64 << 10;

/// Most requests in flight on one connection, whatever the options say.
pub const MAX_IN_FLIGHT: usize = 256;

/// Requests in flight by default: what QEMU's server works on at once for one client.
pub const DEFAULT_IN_FLIGHT: usize = 16;

/// Largest data request sent by default, in bytes: big enough for full speed, small enough that
/// [`DEFAULT_IN_FLIGHT`] of them stay within tens of MiB.
pub const DEFAULT_REQUEST: u32 = 4 << 20;

/// How long the whole handshake may take by default.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take by default.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
