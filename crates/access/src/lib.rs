//! Who may do what: users, roles and grants, passwords, lock-out, and the audit log.
//!
//! ```text
//!  a request over TCP ── name and password ──> Users::authenticate ──> Identity ──┐
//!                     ── certificate ────────> Users::by_certificate ─> Identity ──┤── Identity::may(action, machine)
//!                     ── proof by NT hash ───> Users::by_nt_hash ─────> Identity ──┤
//!  a request over the socket ── the kernel's word ─────> Identity::local ─────────┘
//! ```
//!
//! One policy stands behind every edge: an edge finds out who asks, names the [`Action`], and is told yes or no. What an
//! action does is the edge's and the domain's business; this crate knows neither machines nor protocols.
//!
//! * [`policy`]: actions, roles, grants, and the one function that decides.
//! * [`users`]: the list of users in the store, and proving to be one of them.
//! * [`password`]: how a password is kept (argon2id).
//! * [`nt_hash`]: how the NT hash of those who sign in by NTLM is kept (sealed under a key file).
//! * [`lockout`]: how many guesses somebody has.
//! * [`audit`]: the log of who did what, one JSON line each.

#![forbid(unsafe_code)]

pub mod audit;
pub mod error;
pub mod lockout;
pub mod nt_hash;
pub mod password;
pub mod policy;
pub mod users;

pub use audit::Audit;
pub use error::{Error, ErrorKind};
pub use policy::{Action, Grant, Identity, Role};
pub use users::{Change, Refusal, User, Users};
