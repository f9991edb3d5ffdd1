//! The three messages as bytes ([MS-NLMP] 2.2.1): reading a client's, writing ours. Every length and offset is compared
//! with the message before it is used.

use crate::Refused;
use crate::ntlm::flags;

/// What every message begins with.
pub(crate) const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// Longest name of a user or a domain in bytes; Windows' longest have 256 characters.
const MAX_NAME: usize = 512;
/// Where the integrity code of the last message stands, after its version.
pub(crate) const MIC: std::ops::Range<usize> = 72..88;

/// Names of AV pairs ([MS-NLMP] 2.2.2.1).
pub(crate) mod av {
    pub(crate) const END: u16 = 0;
    pub(crate) const COMPUTER: u16 = 1;
    pub(crate) const DOMAIN: u16 = 2;
    pub(crate) const HOST: u16 = 3;
    pub(crate) const FLAGS: u16 = 6;
    pub(crate) const TIMESTAMP: u16 = 7;
    pub(crate) const BINDING: u16 = 10;
    /// In the value of [`FLAGS`]: the message has an integrity code.
    pub(crate) const HAS_MIC: u32 = 2;
}

/// Which message it is: 1 to 3.
pub(crate) fn kind(message: &[u8]) -> Result<u32, Refused> {
    if !message.starts_with(SIGNATURE) {
        return Err(Refused::Malformed("it is no message of NTLM"));
    }
    number(message, 8)
}

fn number(message: &[u8], at: usize) -> Result<u32, Refused> {
    let bytes = message.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(Refused::Malformed("a message of NTLM is cut"))
}

/// The flags of NEGOTIATE, the first message. Its names are not looked at: the last message has them.
pub(crate) fn negotiate(message: &[u8]) -> Result<u32, Refused> {
    number(message, 12)
}

/// AUTHENTICATE, the last message.
#[derive(Debug)]
pub(crate) struct Authenticate<'a> {
    /// The response: the proof, and what it is about.
    pub(crate) response: &'a [u8],
    pub(crate) domain: String,
    pub(crate) user: String,
    /// The session's key, encrypted.
    pub(crate) key: &'a [u8],
    pub(crate) flags: u32,
    /// The integrity code; none where its place belongs to something else.
    pub(crate) mic: Option<[u8; 16]>,
}

impl<'a> Authenticate<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let flags = number(message, 60)?;
        let wide = flags & flags::UNICODE != 0;
        let mut begin = message.len();
        let mut field = |at: usize| {
            let length = (number(message, at)? & 0xffff) as usize;
            let offset = number(message, at + 4)? as usize;
            if length == 0 {
                return Ok(&message[..0]);
            }
            begin = begin.min(offset);
            let bytes = offset.checked_add(length).and_then(|end| message.get(offset..end));
            bytes.filter(|_| offset >= 64).ok_or(Refused::Malformed("a field lies outside its message"))
        };
        let (_lm, response, domain, user) = (field(12)?, field(20)?, field(28)?, field(36)?);
        let (_workstation, key) = (field(44)?, field(52)?);
        let mic = message.get(MIC).filter(|_| begin >= MIC.end).and_then(|mic| mic.try_into().ok());
        Ok(Self { response, domain: text(domain, wide)?, user: text(user, wide)?, key, flags, mic })
    }
}

fn text(bytes: &[u8], wide: bool) -> Result<String, Refused> {
    const WRONG: Refused = Refused::Malformed("a name cannot be read");
    if bytes.len() > MAX_NAME {
        return Err(WRONG);
    }
    if !wide {
        // The code page is anybody's guess, except for ASCII.
        return std::str::from_utf8(bytes)
            .ok()
            .filter(|name| name.is_ascii())
            .map(str::to_owned)
            .ok_or(WRONG);
    }
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty()).ok_or(WRONG)
}

/// What a response of NTLMv2 is about ([MS-NLMP] 2.2.2.7), as far as we look: the proof is not among it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims<'a> {
    /// Whether the message has an integrity code.
    pub(crate) has_mic: bool,
    /// The channel binding; none where it is missing or zero.
    pub(crate) binding: Option<&'a [u8]>,
}

impl<'a> Claims<'a> {
    /// Of what follows the proof.
    pub(crate) fn read(blob: &'a [u8]) -> Result<Self, Refused> {
        const WRONG: Refused = Refused::Malformed("the response is none of NTLMv2");
        // Two versions, six reserved bytes, a time, a challenge, four reserved bytes.
        let mut rest = blob.get(28..).filter(|_| blob.starts_with(&[1, 1])).ok_or(WRONG)?;
        let mut claims = Self::default();
        loop {
            let (head, behind) = rest.split_first_chunk::<4>().ok_or(WRONG)?;
            let (id, length) =
                (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
            let (value, behind) = behind.split_at_checked(usize::from(length)).ok_or(WRONG)?;
            match id {
                av::END => return Ok(claims),
                av::FLAGS => claims.has_mic = number(value, 0)? & av::HAS_MIC != 0,
                av::BINDING if value.iter().any(|byte| *byte != 0) => claims.binding = Some(value),
                _ => {}
            }
            rest = behind;
        }
    }
}

/// What goes into a challenge.
pub(crate) struct Challenge<'a> {
    pub(crate) flags: u32,
    /// Random bytes.
    pub(crate) nonce: [u8; 8],
    /// Hundreds of nanoseconds since 1601.
    pub(crate) time: u64,
    /// NetBIOS name of this computer.
    pub(crate) computer: &'a str,
    /// Name of this host in DNS.
    pub(crate) host: &'a str,
}

impl Challenge<'_> {
    /// CHALLENGE, the second message.
    pub(crate) fn write(&self) -> Vec<u8> {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let name = if self.flags & flags::UNICODE != 0 {
            wide(self.computer)
        } else {
            self.computer.bytes().filter(u8::is_ascii).collect()
        };
        let (computer, host, time) = (wide(self.computer), wide(self.host), self.time.to_le_bytes());
        let mut target = Vec::new();
        // A computer that is in no domain is its own.
        for (id, value) in [
            (av::DOMAIN, &computer[..]),
            (av::COMPUTER, &computer),
            (av::HOST, &host),
            (av::TIMESTAMP, &time),
            (av::END, &[]),
        ] {
            target.extend(id.to_le_bytes());
            target.extend((value.len() as u16).to_le_bytes());
            target.extend(value);
        }
        const HEAD: usize = 56;
        let mut message = SIGNATURE.to_vec();
        message.extend(2u32.to_le_bytes());
        let field = |message: &mut Vec<u8>, length: usize, offset: usize| {
            message.extend((length as u16).to_le_bytes());
            message.extend((length as u16).to_le_bytes());
            message.extend((offset as u32).to_le_bytes());
        };
        field(&mut message, name.len(), HEAD);
        message.extend(self.flags.to_le_bytes());
        message.extend(self.nonce);
        message.extend([0; 8]);
        field(&mut message, target.len(), HEAD + name.len());
        // A version, which is that of Windows Server 2022, for tools that ask for one; only its last byte means something.
        let version =
            if self.flags & flags::VERSION != 0 { [10, 0, 0x7c, 0x4f, 0, 0, 0, 15] } else { [0; 8] };
        message.extend(version);
        message.extend(name);
        message.extend(target);
        message
    }
}
