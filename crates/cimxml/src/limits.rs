//! What a request may be, in numbers. Each is compared before what it bounds is used. Those of open enumerations are
//! `wsman`'s ([`wsman::limits`]).

use std::time::Duration;

use cim::xml::Bounds;

/// Largest request in bytes, as it comes from the wire: what WS-Management takes.
pub const MAX_REQUEST: usize = wsman::limits::MAX_ENVELOPE;
/// What a request may have of what costs memory or time.
pub const BOUNDS: Bounds = Bounds { depth: 64, elements: 40_000, attributes: 16, declarations: 64 };
/// Longest name of a namespace in bytes.
pub const MAX_NAMESPACE: usize = 2_048;
/// Most properties of a property list.
pub const MAX_PROPERTIES: usize = 1_024;
/// Longest query in bytes.
pub const MAX_QUERY: usize = wsman::limits::MAX_FILTER;

/// Largest reply that is sent in one, in bytes. One that is larger is a failure that names the pull operations.
pub const MAX_REPLY: usize = 64 << 20;
/// Largest reply to a pull in bytes, but for an object that is larger alone: it ends before the number asked for then.
pub const MAX_PULL: usize = 4 << 20;
/// Most objects of one reply to a pull.
pub const MAX_PULLED: usize = 100_000;
/// Longest that an operation takes.
pub const MAX_TIME: Duration = wsman::limits::MAX_TIMEOUT;

// A query that is read at all is one that the parser takes.
const _: () = assert!(MAX_QUERY <= cim::query::MAX_TEXT);
