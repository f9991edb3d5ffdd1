//! How the NT hash of a password is kept: sealed with ChaCha20-Poly1305 under a key that lies in a file beside the store.
//!
//! NTLM needs the hash itself (MD4 of the password in UTF-16, without salt), and whoever has it can sign in. So it exists only
//! for users who were enabled for NTLM, and neither the store nor a copy of it is enough to have it: the key file is needed
//! too, which is for the daemon's user only and belongs in no backup of the store. Each hash is bound to its user and to the
//! password as it is kept beside it, so that it cannot be moved to another user and does not outlive a change of password.
//!
//! | and if we die here? | after the restart |
//! |---|---|
//! | while the key file is made | a `.partial` is left, removed by the next attempt; no hash was sealed yet |
//! | between key file and record | a key that seals nothing |

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use md4::{Digest as _, Md4};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Error, ErrorKind};

/// Length of an NT hash in bytes.
pub const LENGTH: usize = 16;
/// Length of the key in bytes.
const KEY: usize = 32;
/// What a sealed hash begins with: the form of the rest.
const FORM: &str = "1:";

/// The NT hash of a password ([MS-NLMP] 3.3.1, NTOWFv1).
#[must_use]
pub fn of(password: &str) -> [u8; LENGTH] {
    let wide: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    Md4::digest(&wide).into()
}

/// The file with the key.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    /// Held while one is made: two who need it have the same.
    making: Mutex<()>,
}

impl KeyFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), making: Mutex::default() }
    }

    /// Seals a hash so that it opens for `owner` only. Makes the key where there is none.
    pub(crate) fn seal(&self, owner: &str, nt_hash: &[u8; LENGTH]) -> Result<String, Error> {
        let key = {
            let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            match self.read()? {
                Some(key) => key,
                None => self.make()?,
            }
        };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| no_random())?;
        let mut sealed = nt_hash.to_vec();
        cipher(&key)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut sealed)
            .map_err(|_| Error::new(ErrorKind::Key, "the NT hash cannot be sealed"))?;
        Ok(format!("{FORM}{}", STANDARD_NO_PAD.encode([&nonce[..], &sealed].concat())))
    }

    /// Opens what was sealed for `owner`.
    pub(crate) fn open(&self, owner: &str, sealed: &str) -> Result<[u8; LENGTH], Error> {
        let path = self.path.display();
        let Some(key) = self.read()? else {
            return Err(Error::new(
                ErrorKind::Key,
                format!("the key of NT hashes, `{path}`, is not there any more"),
            ));
        };
        let bytes = sealed.strip_prefix(FORM).and_then(|rest| STANDARD_NO_PAD.decode(rest).ok());
        let opened = bytes.and_then(|bytes| {
            let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = cipher(&key).ok()?.open_in_place(nonce, Aad::from(owner), &mut sealed).ok()?;
            <[u8; LENGTH]>::try_from(&*opened).ok()
        });
        opened.ok_or_else(|| {
            let why = format!(
                "the NT hash was sealed under another key than `{path}` has, or for another password"
            );
            Error::new(ErrorKind::Key, why)
        })
    }

    /// The key, if there is a file; it must be its owner's only.
    fn read(&self) -> Result<Option<[u8; KEY]>, Error> {
        let path = &self.path;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("read", path, e)),
        };
        let about = file.metadata().map_err(|e| failed("read", path, e))?;
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            let why =
                format!("the key of NT hashes, `{}`, is open to others (mode {mode:04o})", path.display());
            return Err(Error::new(ErrorKind::Key, why).hint(format!(
                "chmod 600 {}; if somebody may have read it, change the passwords of users with NTLM",
                path.display()
            )));
        }
        let (mut key, mut rest) = ([0; KEY], Vec::new());
        file.take(KEY as u64 + 1).read_to_end(&mut rest).map_err(|e| failed("read", path, e))?;
        if rest.len() != KEY {
            let why = format!("`{}` is no key of NT hashes: it has {KEY} bytes when it is", path.display());
            return Err(Error::new(ErrorKind::Key, why).hint(
                "restore it from a backup; or remove it, and enable each user anew: slipway user set NAME --ntlm",
            ));
        }
        key.copy_from_slice(&rest);
        Ok(Some(key))
    }

    /// Makes the file, whole or not at all.
    fn make(&self) -> Result<[u8; KEY], Error> {
        let path = &self.path;
        let mut key = [0; KEY];
        SystemRandom::new().fill(&mut key).map_err(|_| no_random())?;
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        // One of an earlier death may be there, with another mode.
        match fs::remove_file(&partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("write", path, e)),
            _ => {}
        }
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
            file.write_all(&key)?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(|e| failed("write", path, e))?;
        Ok(key)
    }
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, Error> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    Ok(LessSafeKey::new(key.map_err(|_| Error::new(ErrorKind::Key, "the key of NT hashes cannot be used"))?))
}

fn no_random() -> Error {
    Error::new(ErrorKind::Key, "this host has no random numbers")
}

fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    Error::new(ErrorKind::Key, format!("cannot {doing} the key of NT hashes, `{}`", path.display()))
        .caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::{KeyFile, of};
    use crate::error::ErrorKind;
    use std::os::unix::fs::PermissionsExt as _;

    /// [MS-NLMP] 4.2.2.1.2, and RFC 1320's of nothing.
    #[test]
    fn a_hash_is_that_of_the_specification() {
        assert_eq!(u128::from_be_bytes(of("Password")), 0xa4f49c406510bdcab6824ee7c30fd852);
        assert_eq!(u128::from_be_bytes(of("")), 0x31d6cfe0d16ae931b73c59d7e0c089c0);
        assert_ne!(of("größer"), of("grosser"));
    }

    #[test]
    fn a_hash_opens_for_its_owner_under_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("ntlm.key"));
        std::fs::write(dir.path().join("ntlm.key.partial"), "left by a death").unwrap();
        let sealed = file.seal("ada", &[7; 16]).unwrap();
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(file.open("ada", &sealed).unwrap(), [7; 16]);
        assert_ne!(file.seal("ada", &[7; 16]).unwrap(), sealed, "each time anew");
        assert_eq!(file.open("eve", &sealed).unwrap_err().kind(), ErrorKind::Key);
        for wrong in ["", "1:", "1:AAAA", "2:AAAA", &sealed[..sealed.len() - 2]] {
            assert!(file.open("ada", wrong).is_err(), "{wrong}");
        }
        std::fs::remove_file(&file.path).unwrap();
        assert!(file.open("ada", &sealed).unwrap_err().to_string().contains("not there any more"));
        assert!(!file.path.exists(), "looking makes none");
        file.seal("bob", &[8; 16]).unwrap();
        assert!(file.open("ada", &sealed).unwrap_err().to_string().contains("another key"));
    }

    #[test]
    fn a_key_that_others_could_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("ntlm.key"));
        let sealed = file.seal("ada", &[7; 16]).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o777] {
            std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode)).unwrap();
            for refused in [file.open("ada", &sealed).unwrap_err(), file.seal("ada", &[7; 16]).unwrap_err()] {
                assert!(refused.to_string().contains("open to others"), "{refused}");
                assert!(refused.hint_text().unwrap().starts_with("chmod 600 "));
            }
        }
        std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for content in [&[1u8; 31][..], &[1; 33], &[]] {
            std::fs::write(&file.path, content).unwrap();
            assert!(file.open("ada", &sealed).unwrap_err().to_string().contains("32 bytes"));
        }
        std::fs::remove_file(&file.path).unwrap();
        assert!(KeyFile::new(dir.path().join("no/where")).seal("ada", &[7; 16]).is_err());
    }
}
