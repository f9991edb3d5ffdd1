//! Sealing and signing ([MS-NLMP] 3.4), with extended session security, 128-bit keys and key exchange: nothing less is
//! ever made a session of.

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

use crate::ntlm::hmac_md5;
use crate::rc4::Rc4;

/// Length of a signature in bytes.
const SIGNATURE: usize = 16;

/// What a client sent was altered, left out, repeated or is out of order. The session cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Tampered {
    /// A signature has another form.
    #[error("the signature is none of NTLM's")]
    Form,
    /// Messages were repeated, left out or swapped.
    #[error("the message is out of order: a repeated one, or one after another that is missing")]
    Order,
    /// The bytes are not those that were signed.
    #[error("the message was altered, or sealed with other keys")]
    Checksum,
}

/// The keys of both directions after a handshake.
pub struct Session {
    client: Direction,
    server: Direction,
}

impl Session {
    /// The keys that come of the one that both sides have.
    pub(crate) fn new(exported: &[u8; 16]) -> Self {
        let direction = |name: &str| {
            let key = |what: &str| -> [u8; 16] {
                let magic = format!("session key to {name} {what} key magic constant\0");
                Md5::new().chain_update(exported).chain_update(magic).finalize().into()
            };
            Direction::new(key("signing"), key("sealing"))
        };
        Self { client: direction("client-to-server"), server: direction("server-to-client") }
    }

    /// Opens what the client sealed, in place.
    ///
    /// # Errors
    /// It is not what the client sealed, or not what it sealed next; `data` then is noise.
    pub fn unseal(&mut self, data: &mut [u8], signature: &[u8]) -> Result<(), Tampered> {
        self.client.unseal(data, signature)
    }

    /// Seals something for the client, in place; its signature.
    pub fn seal(&mut self, data: &mut [u8]) -> [u8; 16] {
        self.server.seal(data)
    }

    /// Compares the client's signature of something that is not sealed, and signs the same for the client. Then both
    /// streams begin anew, as [MS-SPNG] 3.3.5.1 has it for the list of mechanisms; the counting goes on.
    pub(crate) fn exchange_list(&mut self, list: &[u8], signature: &[u8]) -> Result<[u8; 16], Tampered> {
        self.client.verify(list, signature)?;
        let ours = self.server.sign(list);
        for direction in [&mut self.client, &mut self.server] {
            direction.stream = Rc4::new(&direction.sealing);
        }
        Ok(ours)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

struct Direction {
    signing: [u8; 16],
    sealing: [u8; 16],
    stream: Rc4,
    sequence: u32,
}

impl Direction {
    fn new(signing: [u8; 16], sealing: [u8; 16]) -> Self {
        Self { signing, sealing, stream: Rc4::new(&sealing), sequence: 0 }
    }

    fn seal(&mut self, data: &mut [u8]) -> [u8; SIGNATURE] {
        // The signature is of what can be read, and comes after it in the stream.
        let mut checksum = self.checksum(data);
        self.stream.apply(data);
        self.stream.apply(&mut checksum);
        self.signature(checksum)
    }

    fn sign(&mut self, data: &[u8]) -> [u8; SIGNATURE] {
        let mut checksum = self.checksum(data);
        self.stream.apply(&mut checksum);
        self.signature(checksum)
    }

    fn unseal(&mut self, data: &mut [u8], signature: &[u8]) -> Result<(), Tampered> {
        let theirs = self.in_turn(signature)?;
        self.stream.apply(data);
        self.compare(data, theirs)
    }

    fn verify(&mut self, data: &[u8], signature: &[u8]) -> Result<(), Tampered> {
        let theirs = self.in_turn(signature)?;
        self.compare(data, theirs)
    }

    /// The checksum in a signature that has the form of one and the number that comes next.
    fn in_turn(&self, signature: &[u8]) -> Result<[u8; 8], Tampered> {
        let signature: [u8; SIGNATURE] = signature.try_into().map_err(|_| Tampered::Form)?;
        let (version, rest) = signature.split_first_chunk::<4>().ok_or(Tampered::Form)?;
        let (checksum, sequence) = rest.split_first_chunk::<8>().ok_or(Tampered::Form)?;
        if *version != [1, 0, 0, 0] {
            return Err(Tampered::Form);
        }
        if sequence != self.sequence.to_le_bytes() {
            return Err(Tampered::Order);
        }
        Ok(*checksum)
    }

    fn compare(&mut self, data: &[u8], theirs: [u8; 8]) -> Result<(), Tampered> {
        let mut ours = self.checksum(data);
        self.stream.apply(&mut ours);
        if !bool::from(ours.ct_eq(&theirs)) {
            return Err(Tampered::Checksum);
        }
        self.count();
        Ok(())
    }

    fn checksum(&self, data: &[u8]) -> [u8; 8] {
        let whole = hmac_md5(&self.signing, &[&self.sequence.to_le_bytes(), data]);
        whole.first_chunk().copied().unwrap_or_default()
    }

    fn signature(&mut self, checksum: [u8; 8]) -> [u8; SIGNATURE] {
        let mut signature = [0; SIGNATURE];
        signature[0] = 1;
        signature[4..12].copy_from_slice(&checksum);
        signature[12..].copy_from_slice(&self.sequence.to_le_bytes());
        self.count();
        signature
    }

    fn count(&mut self) {
        // After four thousand million messages the numbers begin anew; the stream, and so every checksum, does not.
        self.sequence = self.sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{Session, Tampered};

    /// [MS-NLMP] 4.2.4.4: the keys of the vector, `Plaintext` in UTF-16, sequence 0. There the client speaks.
    #[test]
    fn the_vector_of_the_specification_is_opened() {
        let sealed = [
            0x54, 0xe5, 0x01, 0x65, 0xbf, 0x19, 0x36, 0xdc, 0x99, 0x60, 0x20, 0xc1, 0x81, 0x1b, 0x0f, 0x06,
            0xfb, 0x5f,
        ];
        let signature = [1, 0, 0, 0, 0x7f, 0xb3, 0x8e, 0xc5, 0xc5, 0x5d, 0x49, 0x76, 0, 0, 0, 0];
        let plain: Vec<u8> = "Plaintext".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut session = Session::new(&[0x55; 16]);
        let mut data = sealed;
        session.unseal(&mut data, &signature).unwrap();
        assert_eq!(data[..], plain);
        // And made: with the roles the other way round.
        std::mem::swap(&mut session.client, &mut session.server);
        let mut session = Session { server: Session::new(&[0x55; 16]).client, ..session };
        let mut data = plain;
        assert_eq!(session.seal(&mut data), signature);
        assert_eq!(data, sealed);
    }

    fn pair() -> (Session, Session) {
        let (server, client) = (Session::new(&[9; 16]), Session::new(&[9; 16]));
        (server, Session { client: client.server, server: client.client })
    }

    #[test]
    fn both_directions_go_on_and_on() {
        let (mut server, mut client) = pair();
        for text in [&b"one"[..], b"", b"three"] {
            let mut data = text.to_vec();
            let signature = client.seal(&mut data);
            server.unseal(&mut data, &signature).unwrap();
            let signature = server.seal(&mut data);
            client.unseal(&mut data, &signature).unwrap();
            assert_eq!(data, text);
        }
    }

    #[test]
    fn what_was_altered_repeated_or_left_out_is_not_opened() {
        let sealed = |client: &mut Session| {
            let mut data = b"stop the machine".to_vec();
            let signature = client.seal(&mut data);
            (data, signature)
        };
        for bit in 0..16 * 8 {
            let (mut server, mut client) = pair();
            let (mut data, mut signature) = sealed(&mut client);
            data[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(server.unseal(&mut data, &signature), Err(Tampered::Checksum));
            let (mut server, mut client) = pair();
            let (mut data, right) = sealed(&mut client);
            signature.copy_from_slice(&right);
            signature[bit / 8] ^= 1 << (bit % 8);
            server.unseal(&mut data, &signature).unwrap_err();
        }
        let (mut server, mut client) = pair();
        let (first, second) = (sealed(&mut client), sealed(&mut client));
        assert_eq!(server.unseal(&mut second.0.clone(), &second.1), Err(Tampered::Order));
        server.unseal(&mut first.0.clone(), &first.1).unwrap();
        assert_eq!(server.unseal(&mut first.0.clone(), &first.1), Err(Tampered::Order));
        let mut renumbered = first.1;
        renumbered[12] = 1;
        assert_eq!(server.unseal(&mut first.0.clone(), &renumbered), Err(Tampered::Checksum));
        assert_eq!(server.unseal(&mut second.0.clone(), &[]), Err(Tampered::Form));
    }
}
