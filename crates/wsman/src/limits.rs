//! What a request may be, in numbers. Each is compared before what it bounds is used.

use std::time::Duration;

/// Largest request in bytes, as it comes from the wire: twice what Windows takes (`MaxEnvelopeSizekb` 500), for UTF-16.
pub const MAX_ENVELOPE: usize = 1 << 20;
/// Most elements inside one another.
pub const MAX_DEPTH: usize = 64;
/// Most elements of a request.
pub const MAX_ELEMENTS: usize = 40_000;
/// Most attributes of one element.
pub const MAX_ATTRIBUTES: usize = 64;
/// Most namespace declarations of a request: each element that has one copies those around it.
pub const MAX_DECLARATIONS: usize = 2_048;
/// Most selectors of one reference.
pub const MAX_SELECTORS: usize = 64;
/// Most references inside one another.
pub const MAX_NESTED_REFERENCES: usize = 4;
/// Longest URI in bytes.
pub const MAX_URI: usize = 2_048;
/// Longest filter in bytes.
pub const MAX_FILTER: usize = 64 << 10;

/// Largest reply where the request does not say, in bytes: Windows' own default.
pub const DEFAULT_REPLY: usize = 512_000;
/// Smallest size of a reply that a client may ask for (DSP0226, 13.4).
pub const MIN_REPLY: usize = 8_192;
/// Largest reply in bytes, whatever a client asks for.
pub const MAX_REPLY: usize = 8 << 20;
/// Most instances of one reply (Windows' `MaxBatchItems`).
pub const MAX_BATCH: usize = 32_000;

/// How long an operation takes where the request does not say (Windows' `MaxTimeoutms`).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest that an operation takes, whatever a client asks for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a subscription lasts where the request does not say.
pub const DEFAULT_SUBSCRIPTION: Duration = Duration::from_secs(3600);
/// Longest that a subscription lasts without being renewed.
pub const MAX_SUBSCRIPTION: Duration = Duration::from_secs(24 * 3600);
/// Most subscriptions of one user.
pub const MAX_SUBSCRIPTIONS_PER_USER: usize = 400;

/// How long an enumeration waits for its next pull.
pub const ENUMERATION_IDLE: Duration = Duration::from_secs(600);
/// Most open enumerations of one user.
pub const MAX_ENUMERATIONS_PER_USER: usize = 1_000;
/// Most open enumerations of all.
pub const MAX_ENUMERATIONS: usize = 4_000;
