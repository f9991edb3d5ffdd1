//! The server's side of a handshake: SPNEGO around NTLM, or NTLM alone, which clients send under the same name.
//!
//! An [`Acceptor`] belongs to one connection. What breaks a rule puts it back to the beginning, and so does an attempt,
//! whether it proves something or not: nothing of one handshake is good for another.

use subtle::ConstantTimeEq as _;

use crate::ntlm::message::{self, Authenticate, Challenge, Claims};
use crate::ntlm::{Session, flags, proof};
use crate::spnego::{self, Mechanism, State, Token};
use crate::{Binding, MAX_TOKEN, Refused, Wrong};

/// What a server says of itself and demands.
#[derive(Clone, Debug)]
pub struct Settings {
    /// NetBIOS name of this computer.
    pub computer: String,
    /// Name of this host in DNS.
    pub host: String,
    /// Whether a client must negotiate sealing.
    pub sealing: bool,
    /// The TLS connection that a client may name; none without TLS.
    pub binding: Option<Binding>,
}

/// What a handshake needs anew.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Random bytes that nobody can guess.
    pub nonce: [u8; 8],
    /// Hundreds of nanoseconds since 1601.
    pub time: u64,
}

/// What comes of a token.
#[derive(Debug)]
pub enum Turn {
    /// This goes to the client, which will send another.
    Reply(Vec<u8>),
    /// The client says who it is.
    Attempt(Box<Attempt>),
}

/// SPNEGO around a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// The client's list of mechanisms, as it came.
    list: Vec<u8>,
    /// Whether it must be signed: where the client would have liked another mechanism better, somebody on the way may have
    /// made us believe that there is none.
    signed: bool,
}

#[derive(Debug)]
enum Stage {
    Beginning,
    /// The client was told to use NTLM and has not sent anything of it.
    Told(Listed),
    /// The client was sent a challenge.
    Challenged {
        listed: Option<Listed>,
        negotiate: Vec<u8>,
        challenge: Vec<u8>,
        nonce: [u8; 8],
        granted: u32,
    },
}

/// The server's side of the handshakes of one connection.
#[derive(Debug)]
pub struct Acceptor {
    settings: Settings,
    stage: Stage,
}

impl Acceptor {
    /// One that has not heard anything.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, stage: Stage::Beginning }
    }

    /// Looks at a token.
    ///
    /// # Errors
    /// It cannot be read, is out of turn, or the client does not do what is demanded. The next token is a first one again.
    pub fn step(&mut self, token: &[u8], fresh: Fresh) -> Result<Turn, Refused> {
        let stage = std::mem::replace(&mut self.stage, Stage::Beginning);
        if token.len() > MAX_TOKEN {
            return Err(Refused::Malformed("it is too long"));
        }
        if token.starts_with(message::SIGNATURE) {
            return match (message::kind(token)?, stage) {
                (1, _) => self.challenge(None, true, token, fresh),
                (3, Stage::Challenged { listed: None, negotiate, challenge, nonce, granted }) => {
                    self.attempt(None, token, (negotiate, challenge), nonce, granted)
                }
                _ => Err(Refused::OutOfTurn),
            };
        }
        match (spnego::read(token)?, stage) {
            (Token::Init { mechanisms, list, token }, _) => {
                let place = mechanisms.iter().position(|known| *known == Some(Mechanism::Ntlm));
                let place = place.ok_or(Refused::NoMechanism)?;
                let listed = Listed { list: list.to_vec(), signed: place > 0 };
                match token.filter(|_| place == 0) {
                    Some(token) => self.challenge(Some(listed), true, token, fresh),
                    None => {
                        // What was sent ahead is of another mechanism, and of no use.
                        let state = if place > 0 { State::RequestMic } else { State::Incomplete };
                        self.stage = Stage::Told(listed);
                        Ok(Turn::Reply(spnego::reply(state, Some(Mechanism::Ntlm), None, None)))
                    }
                }
            }
            (Token::Response { token: Some(token), .. }, Stage::Told(listed)) => {
                self.challenge(Some(listed), false, token, fresh)
            }
            (
                Token::Response { token: Some(token), mic },
                Stage::Challenged { listed: Some(listed), negotiate, challenge, nonce, granted },
            ) => self.attempt(Some((listed, mic)), token, (negotiate, challenge), nonce, granted),
            _ => Err(Refused::OutOfTurn),
        }
    }

    /// `first`: nothing was said about the mechanism yet.
    fn challenge(
        &mut self,
        listed: Option<Listed>,
        first: bool,
        token: &[u8],
        fresh: Fresh,
    ) -> Result<Turn, Refused> {
        if message::kind(token)? != 1 {
            return Err(Refused::OutOfTurn);
        }
        let asked = message::negotiate(token)?;
        if asked & flags::EXTENDED_SESSION_SECURITY == 0 {
            return Err(Refused::Weak("extended session security"));
        }
        let letters = match asked & (flags::UNICODE | flags::OEM) {
            0 => return Err(Refused::Malformed("it knows no letters")),
            both if both & flags::UNICODE != 0 => flags::UNICODE,
            _ => flags::OEM,
        };
        let always = flags::REQUEST_TARGET | flags::NTLM | flags::TARGET_TYPE_SERVER | flags::TARGET_INFO;
        let granted = asked & flags::GRANTED | always | letters;
        let Fresh { nonce, time } = fresh;
        let Settings { computer, host, .. } = &self.settings;
        let challenge = Challenge { flags: granted, nonce, time, computer, host }.write();
        let mechanism = first.then_some(Mechanism::Ntlm);
        let reply = match listed {
            Some(_) => spnego::reply(State::Incomplete, mechanism, Some(&challenge), None),
            None => challenge.clone(),
        };
        self.stage = Stage::Challenged { listed, negotiate: token.to_vec(), challenge, nonce, granted };
        Ok(Turn::Reply(reply))
    }

    fn attempt(
        &self,
        listed: Option<(Listed, Option<&[u8]>)>,
        token: &[u8],
        (negotiate, challenge): (Vec<u8>, Vec<u8>),
        nonce: [u8; 8],
        granted: u32,
    ) -> Result<Turn, Refused> {
        if message::kind(token)? != 3 {
            return Err(Refused::OutOfTurn);
        }
        let read = Authenticate::read(token)?;
        if read.flags & flags::ANONYMOUS != 0 || read.user.is_empty() || read.response.is_empty() {
            return Err(Refused::Anonymous);
        }
        // Shorter ones are of LM and NTLMv1.
        let about =
            read.response.get(16..).filter(|_| read.response.len() > 24).ok_or(Refused::Weak("NTLMv2"))?;
        Claims::read(about)?;
        let agreed = read.flags & granted;
        for (demanded, bits, name) in [
            (true, flags::EXTENDED_SESSION_SECURITY, "extended session security"),
            (self.settings.sealing, flags::SIGN, "signing"),
            (self.settings.sealing, flags::SEAL, "sealing"),
            (self.settings.sealing, flags::KEY_128, "keys of 128 bits"),
            (self.settings.sealing, flags::KEY_EXCHANGE, "a key exchange"),
        ] {
            if demanded && agreed & bits == 0 {
                return Err(Refused::Weak(name));
            }
        }
        Ok(Turn::Attempt(Box::new(Attempt {
            user: read.user,
            domain: read.domain,
            sealed: agreed & flags::SEALED == flags::SEALED,
            listed: listed.map(|(listed, mic)| (listed, mic.map(<[u8]>::to_vec))),
            negotiate,
            challenge,
            authenticate: token.to_vec(),
            nonce,
            binding: self.settings.binding,
        })))
    }
}

/// Somebody's word to be somebody, with a proof that has not been looked at.
pub struct Attempt {
    user: String,
    domain: String,
    sealed: bool,
    listed: Option<(Listed, Option<Vec<u8>>)>,
    negotiate: Vec<u8>,
    challenge: Vec<u8>,
    authenticate: Vec<u8>,
    nonce: [u8; 8],
    binding: Option<Binding>,
}

/// A proof that holds.
#[derive(Debug)]
pub struct Accepted {
    /// The last token for the client; none where it waits for nothing.
    pub token: Option<Vec<u8>>,
    /// The keys, where sealing was negotiated.
    pub session: Option<Session>,
}

impl Attempt {
    /// What the client calls itself.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The domain that it names, which may be empty.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Looks at the proof, with the NT hash of the user's password.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn prove(&self, nt_hash: &[u8; 16]) -> Result<Accepted, Wrong> {
        // It was read once already.
        let read = Authenticate::read(&self.authenticate).map_err(|_| Wrong::Proof)?;
        let claims = Claims::read(read.response.get(16..).unwrap_or_default()).map_err(|_| Wrong::Proof)?;
        let key = proof::user_key(nt_hash, &self.user, &self.domain);
        let base = proof::base_key(&key, &self.nonce, read.response).ok_or(Wrong::Proof)?;
        let exchanged =
            read.flags & flags::KEY_EXCHANGE != 0 && read.flags & (flags::SIGN | flags::SEAL) != 0;
        let exported =
            if exchanged { proof::exported_key(&base, read.key).ok_or(Wrong::Proof)? } else { base };
        if claims.has_mic {
            let mic = read.mic.filter(|mic| *mic != [0; 16]).ok_or(Wrong::NoMic)?;
            let mut zeroed = self.authenticate.clone();
            zeroed[message::MIC].fill(0);
            let right = proof::mic(&exported, &self.negotiate, &self.challenge, &zeroed);
            if !bool::from(right.ct_eq(&mic)) {
                return Err(Wrong::Mic);
            }
        }
        if let Some(claimed) = claims.binding
            && !self.binding.is_some_and(|binding| binding.is(claimed))
        {
            return Err(Wrong::Binding);
        }
        let mut session = self.sealed.then(|| Session::new(&exported));
        let Some((listed, mic)) = &self.listed else { return Ok(Accepted { token: None, session }) };
        let ours = match (mic, &mut session) {
            (Some(mic), Some(session)) => {
                Some(session.exchange_list(&listed.list, mic).map_err(|_| Wrong::ListMic)?)
            }
            // Without keys there is nothing to compare it with.
            (Some(_), None) => return Err(Wrong::ListMic),
            (None, _) if listed.signed => return Err(Wrong::NoListMic),
            (None, _) => None,
        };
        let token = spnego::reply(State::Completed, None, None, ours.as_ref().map(<[u8; 16]>::as_slice));
        Ok(Accepted { token: Some(token), session })
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("user", &self.user)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
