//! SPNEGO and NTLM as a server speaks them, and the sealed bodies that HTTP carries after them.
//!
//! ```text
//!  client                                  Acceptor                          whoever knows the users
//!    │── NEGOTIATE ─────────────────────────▶ │
//!    │◀───────────────────────── CHALLENGE ── │
//!    │── AUTHENTICATE ──────────────────────▶ │ ── Attempt: user, domain ──────▶ NT hash, or none
//!    │                                        │ ◀─ Attempt::prove(hash) ───────
//!    │◀──────── last token of SPNEGO ──────── │ ── Session: seal, unseal
//! ```
//!
//! Plain values: no sockets, no user list, no clock and no random numbers; the caller brings those. What a client claims
//! is nothing until [`Attempt::prove`] has computed the proof itself and compared it in constant time; what it signed is
//! nothing until the signature was compared.
//!
//! Sources: [MS-NLMP] (NTLM), [MS-SPNG] and RFC 4178 (SPNEGO), [MS-WSMV] 2.2.9.1 (sealed bodies), RFC 5929 (channel
//! bindings). Only NTLMv2 with extended session security is spoken; LM and NTLMv1 are refused. A further mechanism, such as
//! Kerberos, is a further arm in [`Acceptor`]: [`spnego`] reads its tokens already.

#![forbid(unsafe_code)]

mod acceptor;
mod binding;
mod der;
pub mod framing;
pub mod ntlm;
mod rc4;
pub mod spnego;

pub use acceptor::{Accepted, Acceptor, Attempt, Fresh, Settings, Turn};
pub use binding::Binding;
pub use ntlm::{Session, Tampered};

/// Longest token that is looked at, in bytes: NTLM's last message with long names has 2 KiB.
pub const MAX_TOKEN: usize = 16 << 10;

/// Why a token is refused before anything of it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It breaks the rules of its own form.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// It is one of another leg.
    #[error("the token is of another leg of the handshake")]
    OutOfTurn,
    /// None of the client's mechanisms is spoken here.
    #[error("the client offers no mechanism that is spoken here; NTLM is")]
    NoMechanism,
    /// The client does not do what is demanded.
    #[error("the client does not negotiate {0}")]
    Weak(&'static str),
    /// Nobody.
    #[error("an anonymous logon")]
    Anonymous,
}

/// Why an [`Attempt`] proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// The proof is not what the password gives.
    #[error("the proof is not the password's")]
    Proof,
    /// The message's integrity code was announced and left out.
    #[error("the message's integrity code (MIC) is left out")]
    NoMic,
    /// The message, or one before it, was altered on its way.
    #[error("the message's integrity code (MIC) is wrong: a leg of the handshake was altered")]
    Mic,
    /// The list of mechanisms must be signed and is not.
    #[error("the list of mechanisms is not signed (mechListMIC)")]
    NoListMic,
    /// The list of mechanisms was altered on its way.
    #[error("the signature of the list of mechanisms (mechListMIC) is wrong")]
    ListMic,
    /// The client spoke to another TLS end point, or to one where there is none here.
    #[error("the channel binding is that of another TLS connection")]
    Binding,
}
