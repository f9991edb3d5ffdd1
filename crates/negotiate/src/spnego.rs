//! SPNEGO's tokens (RFC 4178, [MS-SPNG]): which mechanisms a client has, and the tokens of the one that is used.

use crate::Refused;
use crate::der::{APPLICATION, ENUMERATED, OCTETS, OID, Reader, SEQUENCE, context, element};

/// Most mechanisms of a client that are looked at; Windows sends four.
pub const MAX_MECHANISMS: usize = 16;

/// 1.3.6.1.5.5.2, SPNEGO itself.
const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];

/// A mechanism that proves who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// 1.3.6.1.4.1.311.2.2.10.
    Ntlm,
    /// 1.2.840.113554.1.2.2.
    Kerberos,
    /// 1.2.840.48018.1.2.2: the same, by the number that Windows 2000 got wrong and all of Windows still offers first.
    KerberosOfWindows,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Ntlm, Self::Kerberos, Self::KerberosOfWindows];

    fn oid(self) -> &'static [u8] {
        match self {
            Self::Ntlm => &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10],
            Self::Kerberos => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2],
            Self::KerberosOfWindows => &[0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 1, 2, 2],
        }
    }

    fn of(oid: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.oid() == oid)
    }
}

/// How far a negotiation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Done.
    Completed,
    /// Another token is to come.
    Incomplete,
    /// Another token is to come, and the list of mechanisms must be signed.
    RequestMic,
}

/// A token of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// The first one.
    Init {
        /// The client's mechanisms, the best first; `None` is one that we do not know.
        mechanisms: Vec<Option<Mechanism>>,
        /// The list as it came: what mechListMIC signs.
        list: &'a [u8],
        /// The first token of the first mechanism.
        token: Option<&'a [u8]>,
    },
    /// A later one.
    Response {
        /// The mechanism's token.
        token: Option<&'a [u8]>,
        /// The signature of the list of mechanisms.
        mic: Option<&'a [u8]>,
    },
}

/// Reads a token.
///
/// # Errors
/// It is none, or has more mechanisms than [`MAX_MECHANISMS`].
pub fn read(bytes: &[u8]) -> Result<Token<'_>, Refused> {
    let mut outer = Reader(bytes);
    let frame = outer.next()?.ok_or(Refused::Malformed("it is empty"))?;
    if !outer.0.is_empty() {
        return Err(Refused::Malformed("something follows it"));
    }
    let choice = match frame.tag {
        APPLICATION => {
            let mut inner = Reader(frame.content);
            if inner.expect(OID)?.content != SPNEGO {
                return Err(Refused::Malformed("it is of another protocol"));
            }
            inner.expect(context(0))?
        }
        tag if tag == context(1) => frame,
        _ => return Err(Refused::Malformed("it is neither SPNEGO nor NTLM")),
    };
    let mut fields = Reader(Reader(choice.content).expect(SEQUENCE)?.content);
    if choice.tag == context(0) { init(&mut fields) } else { response(&mut fields) }
}

fn init<'a>(fields: &mut Reader<'a>) -> Result<Token<'a>, Refused> {
    let list = Reader(fields.expect(context(0))?.content).expect(SEQUENCE)?;
    let (mut oids, mut mechanisms) = (Reader(list.content), Vec::new());
    while !oids.0.is_empty() {
        if mechanisms.len() == MAX_MECHANISMS {
            return Err(Refused::Malformed("it has too many mechanisms"));
        }
        mechanisms.push(Mechanism::of(oids.expect(OID)?.content));
    }
    let mut token = None;
    while let Some(field) = fields.next()? {
        if field.tag == context(2) {
            token = Some(Reader(field.content).expect(OCTETS)?.content);
        }
    }
    Ok(Token::Init { mechanisms, list: list.whole, token })
}

fn response<'a>(fields: &mut Reader<'a>) -> Result<Token<'a>, Refused> {
    let (mut token, mut mic) = (None, None);
    while let Some(field) = fields.next()? {
        if field.tag == context(2) {
            token = Some(Reader(field.content).expect(OCTETS)?.content);
        } else if field.tag == context(3) {
            mic = Some(Reader(field.content).expect(OCTETS)?.content);
        }
    }
    Ok(Token::Response { token, mic })
}

/// A token of ours: `supported` goes into the first one only (RFC 4178 4.2.2).
#[must_use]
pub fn reply(
    state: State,
    supported: Option<Mechanism>,
    token: Option<&[u8]>,
    mic: Option<&[u8]>,
) -> Vec<u8> {
    let number = match state {
        State::Completed => 0,
        State::Incomplete => 1,
        State::RequestMic => 3,
    };
    let mut fields = element(context(0), &element(ENUMERATED, &[number]));
    if let Some(mechanism) = supported {
        fields.extend(element(context(1), &element(OID, mechanism.oid())));
    }
    for (n, octets) in [(2, token), (3, mic)] {
        if let Some(octets) = octets {
            fields.extend(element(context(n), &element(OCTETS, octets)));
        }
    }
    element(context(1), &element(SEQUENCE, &fields))
}

#[cfg(test)]
mod tests {
    use super::{Mechanism, State, Token, read, reply};

    /// The first token that pypsrp was recorded to send.
    const RECORDED: [u8; 74] = [
        0x60, 0x48, 6, 6, 0x2b, 6, 1, 5, 5, 2, 0xa0, 0x3e, 0x30, 0x3c, 0xa0, 0x0e, 0x30, 0x0c, 6, 0x0a, 0x2b,
        6, 1, 4, 1, 0x82, 0x37, 2, 2, 0x0a, 0xa2, 0x2a, 4, 0x28, 0x4e, 0x54, 0x4c, 0x4d, 0x53, 0x53, 0x50, 0,
        1, 0, 0, 0, 0x37, 0x82, 8, 0xe2, 0, 0, 0, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x28, 0, 0, 0, 0, 0x0c, 4, 0,
        0, 0, 0, 0x0f,
    ];

    #[test]
    fn a_recorded_token_is_read() {
        let Token::Init { mechanisms, list, token } = read(&RECORDED).unwrap() else { panic!() };
        assert_eq!(mechanisms, [Some(Mechanism::Ntlm)]);
        assert_eq!(list, &RECORDED[16..30]);
        assert_eq!(token, Some(&RECORDED[34..]));
    }

    #[test]
    fn a_reply_is_as_windows_clients_read_it() {
        let made = reply(State::Completed, None, None, Some(&[7; 16]));
        assert_eq!(made[..14], [0xa1, 0x1b, 0x30, 0x19, 0xa0, 3, 0x0a, 1, 0, 0xa3, 0x12, 4, 0x10, 7]);
        assert_eq!(read(&made).unwrap(), Token::Response { token: None, mic: Some(&[7; 16]) });
        let made = reply(State::Incomplete, Some(Mechanism::Ntlm), Some(&[1, 2]), None);
        assert_eq!(read(&made).unwrap(), Token::Response { token: Some(&[1, 2]), mic: None });
    }

    #[test]
    fn what_is_cut_or_follows_is_refused() {
        for cut in 0..RECORDED.len() {
            assert!(read(&RECORDED[..cut]).is_err(), "{cut}");
        }
        assert!(read(&[&RECORDED[..], &[0]].concat()).is_err());
        assert!(read(b"NTLMSSP\0").is_err());
    }
}
