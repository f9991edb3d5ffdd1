//! The proof of NTLMv2 ([MS-NLMP] 3.3.2), computed from the NT hash and compared in constant time.

use subtle::ConstantTimeEq as _;

use crate::ntlm::hmac_md5;
use crate::rc4::Rc4;

/// NTOWFv2: the key of a user, from the NT hash of its password.
pub(crate) fn user_key(nt_hash: &[u8; 16], user: &str, domain: &str) -> [u8; 16] {
    let name = user.to_uppercase() + domain;
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    hmac_md5(nt_hash, &[&wide])
}

/// The base key of a session, if `response` proves that its maker has the user's key; a response is 16 bytes of proof and
/// what it is about.
pub(crate) fn base_key(user_key: &[u8; 16], nonce: &[u8; 8], response: &[u8]) -> Option<[u8; 16]> {
    let (proof, about) = response.split_first_chunk::<16>()?;
    let right = hmac_md5(user_key, &[nonce, about]);
    bool::from(right.ct_eq(proof)).then(|| hmac_md5(user_key, &[proof]))
}

/// The session's key, which the client chose and encrypted with the base key (KXKEY of NTLMv2).
pub(crate) fn exported_key(base: &[u8; 16], encrypted: &[u8]) -> Option<[u8; 16]> {
    let mut key: [u8; 16] = encrypted.try_into().ok()?;
    Rc4::new(base).apply(&mut key);
    Some(key)
}

/// The integrity code of a handshake: `last` is AUTHENTICATE with zeros in the code's place.
pub(crate) fn mic(exported: &[u8; 16], negotiate: &[u8], challenge: &[u8], last: &[u8]) -> [u8; 16] {
    hmac_md5(exported, &[negotiate, challenge, last])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The NT hash of `Password`, [MS-NLMP] 4.2.2.1.2.
    const NT_HASH: [u8; 16] = 0xa4f49c406510bdcab6824ee7c30fd852_u128.to_be_bytes();
    const NONCE: [u8; 8] = 0x0123456789abcdef_u64.to_be_bytes();

    /// What the proof of 4.2.4 is about: time 0, client challenge aa…, `Domain` and `Server`.
    fn about() -> Vec<u8> {
        let mut about = vec![1, 1, 0, 0, 0, 0, 0, 0];
        about.extend([0; 8]);
        about.extend([0xaa; 8]);
        about.extend([0; 4]);
        for (id, text) in [(2u8, "Domain"), (1, "Server")] {
            about.extend([id, 0, text.len() as u8 * 2, 0]);
            about.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        }
        about.extend([0; 8]);
        about
    }

    /// [MS-NLMP] 4.2.4.1.1, 4.2.4.1.2, 4.2.4.2.2, 4.2.4.2.3.
    #[test]
    fn the_vectors_of_the_specification_hold() {
        let key = user_key(&NT_HASH, "User", "Domain");
        assert_eq!(u128::from_be_bytes(key), 0x0c868a403bfd7a93a3001ef22ef02e3f);
        let proof = 0x68cd0ab851e51c96aabc927bebef6a1c_u128.to_be_bytes();
        let response = [&proof[..], &about()].concat();
        let base = base_key(&key, &NONCE, &response).unwrap();
        assert_eq!(u128::from_be_bytes(base), 0x8de40ccadbc14a82f15cb0ad0de95ca3);
        let encrypted = 0xc5dad2544fc9799094ce1ce90bc9d03e_u128.to_be_bytes();
        assert_eq!(exported_key(&base, &encrypted), Some([0x55; 16]));
        assert_eq!(exported_key(&base, &encrypted[1..]), None);
    }

    #[test]
    fn every_bit_of_a_proof_counts() {
        let key = user_key(&NT_HASH, "User", "Domain");
        let proof = 0x68cd0ab851e51c96aabc927bebef6a1c_u128.to_be_bytes();
        let right = [&proof[..], &about()].concat();
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(base_key(&key, &NONCE, &wrong).is_none(), "bit {bit}");
        }
        assert!(base_key(&key, &[0; 8], &right).is_none() && base_key(&key, &NONCE, &[]).is_none());
        assert!(base_key(&user_key(&NT_HASH, "User", "domain"), &NONCE, &right).is_none());
        assert_eq!(user_key(&NT_HASH, "uSER", "Domain"), key);
    }
}
