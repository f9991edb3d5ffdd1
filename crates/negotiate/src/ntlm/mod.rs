//! NTLM ([MS-NLMP]): its three messages, the proof, and the keys of a session.

pub(crate) mod message;
pub(crate) mod proof;
mod session;

pub use session::{Session, Tampered};

use hmac::{Hmac, Mac as _};
use md5::Md5;

pub(crate) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key) else { return [0; 16] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Flags of a negotiation ([MS-NLMP] 2.2.2.5).
pub(crate) mod flags {
    pub(crate) const UNICODE: u32 = 1;
    pub(crate) const OEM: u32 = 1 << 1;
    pub(crate) const REQUEST_TARGET: u32 = 1 << 2;
    pub(crate) const SIGN: u32 = 1 << 4;
    pub(crate) const SEAL: u32 = 1 << 5;
    pub(crate) const NTLM: u32 = 1 << 9;
    pub(crate) const ANONYMOUS: u32 = 1 << 11;
    pub(crate) const ALWAYS_SIGN: u32 = 1 << 15;
    pub(crate) const TARGET_TYPE_SERVER: u32 = 1 << 17;
    pub(crate) const EXTENDED_SESSION_SECURITY: u32 = 1 << 19;
    pub(crate) const TARGET_INFO: u32 = 1 << 23;
    pub(crate) const VERSION: u32 = 1 << 25;
    pub(crate) const KEY_128: u32 = 1 << 29;
    pub(crate) const KEY_EXCHANGE: u32 = 1 << 30;
    pub(crate) const KEY_56: u32 = 1 << 31;

    /// What sealing takes.
    pub(crate) const SEALED: u32 = SIGN | SEAL | KEY_128 | KEY_EXCHANGE | EXTENDED_SESSION_SECURITY;
    /// What a client may ask for and gets.
    pub(crate) const GRANTED: u32 = SEALED | VERSION | KEY_56 | ALWAYS_SIGN;
}
