//! Channel bindings: what ties a proof to the TLS connection on which it was made (RFC 5929, `tls-server-end-point`), so
//! that it cannot be handed on to another one.

use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;

use crate::der::{OID, Reader, SEQUENCE};

/// What NTLM says of a TLS connection: the MD5 of GSS-API's channel bindings ([MS-NLMP] 2.2.2.1, MsvAvChannelBindings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding([u8; 16]);

impl Binding {
    /// The binding to the server that shows `certificate` (DER).
    #[must_use]
    pub fn to_server(certificate: &[u8]) -> Self {
        let mut data = b"tls-server-end-point:".to_vec();
        // The certificate's own hash function, and SHA-256 where that is weaker or unknown (RFC 5929 4.1).
        match signature_hash(certificate) {
            Some(Hash::Sha384) => data.extend(Sha384::digest(certificate)),
            Some(Hash::Sha512) => data.extend(Sha512::digest(certificate)),
            None => data.extend(Sha256::digest(certificate)),
        }
        // gss_channel_bindings_struct without addresses: two kinds, two lengths, and the data with its length.
        let mut whole = vec![0; 16];
        whole.extend((data.len() as u32).to_le_bytes());
        whole.extend(data);
        Self(Md5::digest(&whole).into())
    }

    pub(crate) fn is(&self, claimed: &[u8]) -> bool {
        self.0.ct_eq(claimed).into()
    }

    /// The 16 bytes, as an AV pair has them.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

enum Hash {
    Sha384,
    Sha512,
}

/// The hash that a certificate was signed with, where it is not SHA-256: `Certificate ::= SEQUENCE { tbs, algorithm, … }`.
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let mut fields = Reader(Reader(certificate).expect(SEQUENCE).ok()?.content);
    fields.expect(SEQUENCE).ok()?;
    let mut algorithm = Reader(fields.expect(SEQUENCE).ok()?.content);
    let oid = algorithm.expect(OID).ok()?.content;
    let rest = algorithm.0;
    let named = |pss: &[u8]| rest.windows(pss.len()).any(|part| part == pss);
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    const NIST: [u8; 8] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    match oid.split_last()? {
        (12, RSA) | (3, ECDSA) => Some(Hash::Sha384),
        (13, RSA) | (4, ECDSA) => Some(Hash::Sha512),
        // RSASSA-PSS names its hash among its parameters.
        (10, RSA) if named(&[&NIST[..], &[2]].concat()) => Some(Hash::Sha384),
        (10, RSA) if named(&[&NIST[..], &[3]].concat()) => Some(Hash::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Binding, Hash, signature_hash};
    use crate::der::{OID, SEQUENCE, element};

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let algorithm = element(SEQUENCE, &element(OID, oid));
        element(SEQUENCE, &[element(SEQUENCE, &[1]), algorithm].concat())
    }

    #[test]
    fn the_hash_is_the_certificates_own() {
        let sha384 = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]);
        assert!(matches!(signature_hash(&sha384), Some(Hash::Sha384)));
        let sha512 = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13]);
        assert!(matches!(signature_hash(&sha512), Some(Hash::Sha512)));
        let sha1 = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5]);
        assert!(signature_hash(&sha1).is_none() && signature_hash(b"noise").is_none());
    }

    #[test]
    fn another_certificate_is_another_binding() {
        let (one, other) = (Binding::to_server(b"one"), Binding::to_server(b"other"));
        assert!(one.is(&one.bytes()) && !one.is(&other.bytes()) && !one.is(&[]));
    }
}
