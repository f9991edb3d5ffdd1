//! The other side, written from the specifications and not from our code: a client of NTLM and SPNEGO that can be told to
//! do it wrong. Also used by the tests of the server that this is for.

#![allow(dead_code, clippy::unwrap_used, reason = "this is test code, and each test uses some of it")]

use hmac::{Hmac, Mac as _};
use md5::{Digest as _, Md5};

/// The NT hash of `Passw0rd!`.
pub(crate) const NT_HASH: [u8; 16] = 0xfc525c9683e8fe067095ba2ddc971889_u128.to_be_bytes();

pub(crate) const UNICODE: u32 = 0x0000_0001;
pub(crate) const OEM: u32 = 0x0000_0002;
pub(crate) const SIGN: u32 = 0x0000_0010;
pub(crate) const SEAL: u32 = 0x0000_0020;
pub(crate) const NTLM: u32 = 0x0000_0200;
pub(crate) const EXTENDED: u32 = 0x0008_0000;
pub(crate) const VERSION: u32 = 0x0200_0000;
pub(crate) const KEY_128: u32 = 0x2000_0000;
pub(crate) const KEY_EXCHANGE: u32 = 0x4000_0000;
/// What sealing takes.
pub(crate) const ALL: u32 =
    UNICODE | 0x4 | SIGN | SEAL | NTLM | 0x8000 | EXTENDED | VERSION | KEY_128 | KEY_EXCHANGE;

pub(crate) const NTLM_OID: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10];
pub(crate) const KERBEROS_OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];

/// What becomes of the integrity code.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mic {
    Right,
    /// Announced, computed and changed.
    Altered,
    /// Announced, and its place is zero.
    Zero,
    /// Announced, and the message is too short for it.
    NoPlace,
    /// Neither announced nor there, as old clients do.
    Unannounced,
}

/// What a client says, right or wrong.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) user: String,
    pub(crate) domain: String,
    pub(crate) nt_hash: [u8; 16],
    /// Flags of its first message.
    pub(crate) asks: u32,
    /// Flags of its last one.
    pub(crate) agrees: u32,
    pub(crate) mic: Mic,
    pub(crate) binding: Option<[u8; 16]>,
    /// A proof of its own making.
    pub(crate) proof: Option<[u8; 16]>,
}

impl Client {
    pub(crate) fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            domain: "LAB".to_owned(),
            nt_hash: NT_HASH,
            asks: ALL,
            agrees: ALL,
            mic: Mic::Right,
            binding: None,
            proof: None,
        }
    }

    pub(crate) fn negotiate(&self) -> Vec<u8> {
        let mut message = b"NTLMSSP\0\x01\0\0\0".to_vec();
        message.extend(self.asks.to_le_bytes());
        message.extend([0; 16]);
        message.extend([0, 0, 0, 0, 0, 0, 0, 15]);
        message
    }

    /// The last message and the key that comes of it.
    pub(crate) fn authenticate(&self, negotiate: &[u8], challenge: &[u8]) -> (Vec<u8>, [u8; 16]) {
        let nonce = &challenge[24..32];
        let key = mac(&self.nt_hash, &[&wide(&(self.user.to_uppercase() + &self.domain))]);
        let mut about = vec![1, 1, 0, 0, 0, 0, 0, 0];
        about.extend([1; 8]);
        about.extend([0xcc; 8]);
        about.extend([0; 4]);
        about.extend(target_info(challenge).strip_suffix(&[0; 4]).unwrap());
        if self.mic != Mic::Unannounced {
            about.extend([6, 0, 4, 0, 2, 0, 0, 0]);
        }
        if let Some(binding) = self.binding {
            about.extend([10, 0, 16, 0]);
            about.extend(binding);
        }
        about.extend([0; 8]);
        let proof = self.proof.unwrap_or_else(|| mac(&key, &[nonce, &about]));
        let base = mac(&key, &[&proof]);
        let exchanged = self.agrees & KEY_EXCHANGE != 0;
        // Random enough for a test: every challenge has another.
        let chosen: [u8; 16] = [nonce, &[0x77; 8]].concat().try_into().unwrap();
        let (exported, mut encrypted) =
            if exchanged { (chosen, chosen.to_vec()) } else { (base, Vec::new()) };
        Rc4::new(&base).apply(&mut encrypted);
        let response = [&proof[..], &about].concat();
        let coded =
            |text: &str| if self.agrees & UNICODE != 0 { wide(text) } else { text.as_bytes().to_vec() };
        let (user, domain) = (coded(&self.user), coded(&self.domain));
        let with_mic = !matches!(self.mic, Mic::NoPlace | Mic::Unannounced);
        let mut offset = if with_mic { 88 } else { 72 };
        let mut message = b"NTLMSSP\0\x03\0\0\0".to_vec();
        let fields = [&[0; 24][..], &response, &domain, &user, &[], &encrypted];
        for field in fields {
            message.extend((field.len() as u16).to_le_bytes());
            message.extend((field.len() as u16).to_le_bytes());
            message.extend((offset as u32).to_le_bytes());
            offset += field.len();
        }
        message.extend(self.agrees.to_le_bytes());
        message.extend([0, 0, 0, 0, 0, 0, 0, 15]);
        if with_mic {
            message.extend([0; 16]);
        }
        message.extend(fields.concat());
        if matches!(self.mic, Mic::Right | Mic::Altered) {
            let code = mac(&exported, &[negotiate, challenge, &message]);
            message[72..88].copy_from_slice(&code);
            message[72] ^= u8::from(self.mic == Mic::Altered);
        }
        (message, exported)
    }
}

/// The target information of a challenge.
pub(crate) fn target_info(challenge: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_le_bytes([challenge[40], challenge[41]]));
    let offset = u32::from_le_bytes(challenge[44..48].try_into().unwrap()) as usize;
    &challenge[offset..offset + length]
}

/// The message of NTLM inside a token of SPNEGO that ends with it.
pub(crate) fn inner(token: &[u8]) -> &[u8] {
    let at = token.windows(8).position(|part| part == b"NTLMSSP\0").unwrap();
    &token[at..]
}

/// A client's keys.
#[derive(Debug)]
pub(crate) struct Keys {
    to_server: Stream,
    to_client: Stream,
}

#[derive(Debug)]
struct Stream {
    signing: [u8; 16],
    sealing: [u8; 16],
    rc4: Rc4,
    sequence: u32,
}

impl Keys {
    pub(crate) fn new(exported: &[u8; 16]) -> Self {
        let stream = |direction: &str| {
            let key = |what: &str| -> [u8; 16] {
                let magic = format!("session key to {direction} {what} key magic constant\0");
                Md5::digest([&exported[..], magic.as_bytes()].concat()).into()
            };
            let (signing, sealing) = (key("signing"), key("sealing"));
            Stream { signing, sealing, rc4: Rc4::new(&sealing), sequence: 0 }
        };
        Self { to_server: stream("client-to-server"), to_client: stream("server-to-client") }
    }

    /// Signature and sealed bytes.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> ([u8; 16], Vec<u8>) {
        let mut data = plain.to_vec();
        self.to_server.rc4.apply(&mut data);
        (self.to_server.sign(plain), data)
    }

    /// What the server sealed.
    pub(crate) fn unseal(&mut self, signature: &[u8], sealed: &[u8]) -> Vec<u8> {
        let mut data = sealed.to_vec();
        self.to_client.rc4.apply(&mut data);
        assert_eq!(self.to_client.sign(&data), signature, "the server's signature");
        data
    }

    /// The signature of the list of mechanisms, after which the stream begins anew.
    pub(crate) fn sign_list(&mut self, list: &[u8]) -> [u8; 16] {
        let signature = self.to_server.sign(list);
        self.to_server.rc4 = Rc4::new(&self.to_server.sealing);
        signature
    }

    /// Compares the server's.
    pub(crate) fn check_list(&mut self, list: &[u8], signature: &[u8]) {
        assert_eq!(self.to_client.sign(list), signature, "the server's signature of the list");
        self.to_client.rc4 = Rc4::new(&self.to_client.sealing);
    }
}

impl Stream {
    fn sign(&mut self, plain: &[u8]) -> [u8; 16] {
        let number = self.sequence.to_le_bytes();
        self.sequence += 1;
        let mut checksum = mac(&self.signing, &[&number, plain])[..8].to_vec();
        self.rc4.apply(&mut checksum);
        [&[1, 0, 0, 0][..], &checksum, &number].concat().try_into().unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Rc4(Vec<u8>, usize, usize);

impl Rc4 {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut s: Vec<u8> = (0..=255).collect();
        let mut j = 0;
        for i in 0..256 {
            j = (j + s[i] as usize + key[i % key.len()] as usize) % 256;
            s.swap(i, j);
        }
        Self(s, 0, 0)
    }

    pub(crate) fn apply(&mut self, data: &mut [u8]) {
        let Self(s, i, j) = self;
        for byte in data {
            *i = (*i + 1) % 256;
            *j = (*j + s[*i] as usize) % 256;
            s.swap(*i, *j);
            *byte ^= s[(s[*i] as usize + s[*j] as usize) % 256];
        }
    }
}

pub(crate) fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// An element of DER.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=127 => vec![tag, length as u8],
        128..=255 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

/// The list of mechanisms: what mechListMIC signs.
pub(crate) fn list(oids: &[&[u8]]) -> Vec<u8> {
    der(0x30, &oids.iter().flat_map(|oid| der(6, oid)).collect::<Vec<u8>>())
}

/// NegTokenInit.
pub(crate) fn init(list: &[u8], token: Option<&[u8]>) -> Vec<u8> {
    let mut fields = der(0xa0, list);
    fields.extend(token.map(|token| der(0xa2, &der(4, token))).unwrap_or_default());
    let inner = der(0xa0, &der(0x30, &fields));
    der(0x60, &[der(6, &[0x2b, 6, 1, 5, 5, 2]), inner].concat())
}

/// NegTokenResp of a client.
pub(crate) fn response(token: &[u8], mic: Option<&[u8]>) -> Vec<u8> {
    let mut fields = der(0xa2, &der(4, token));
    fields.extend(mic.map(|mic| der(0xa3, &der(4, mic))).unwrap_or_default());
    der(0xa1, &der(0x30, &fields))
}
