//! How a password is kept: argon2id, as a PHC string (`$argon2id$v=19$m=19456,t=2,p=1$salt$hash`).
//!
//! The costs are those that OWASP gives as the least for argon2id (2 rounds over 19 MiB). They stand in every string, so a
//! later change takes effect with the next change of each password. 19 MiB for each check at once is memory that a stranger
//! can make us use, so no more are made at a time than there are processors, in memory that is kept for the next: what is
//! freed by many threads in turn the allocator keeps for each of them.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// Fewest characters of a password.
pub const MIN_CHARACTERS: usize = 8;
/// Most bytes of a password that are looked at; a longer one is refused.
pub const MAX_BYTES: usize = 1024;

const MEMORY_KIB: u32 = 19 * 1024;
const ROUNDS: u32 = 2;
const LANES: u32 = 1;
/// Costs that are accepted from a record: one that asks for more was not written by us.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_ROUNDS: u32 = 16;
const HASH: usize = 32;
/// Most passwords that are looked at at a time, however many processors there are.
const MAX_AT_ONCE: usize = 8;

/// A password as it is kept.
///
/// # Errors
/// It is too short, too long, or has characters that no keyboard gives.
pub fn hash(password: &str) -> Result<String, Error> {
    let wrong = |why: String| Err(Error::new(ErrorKind::Invalid, why));
    if password.chars().count() < MIN_CHARACTERS {
        return wrong(format!("a password has at least {MIN_CHARACTERS} characters"));
    }
    if password.len() > MAX_BYTES {
        return wrong(format!("a password has at most {MAX_BYTES} bytes"));
    }
    if password.chars().any(char::is_control) {
        return wrong("a password has no control characters".to_owned());
    }
    // 122 random bits: no two users share a salt.
    let salt = Uuid::new_v4();
    let made = derive(password, salt.as_bytes(), MEMORY_KIB, ROUNDS, LANES)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "the password cannot be hashed"))?;
    Ok(format!(
        "$argon2id$v=19$m={MEMORY_KIB},t={ROUNDS},p={LANES}${}${}",
        STANDARD_NO_PAD.encode(salt.as_bytes()),
        STANDARD_NO_PAD.encode(made)
    ))
}

/// Whether `password` is the one that is kept as `kept`. Without one it takes as long, and is not.
#[must_use]
pub fn check(password: &str, kept: Option<&str>) -> bool {
    let parsed = kept.and_then(parse);
    let known = parsed.is_some();
    let Kept { memory, rounds, lanes, salt, hash } = parsed.unwrap_or_default();
    let made = derive(password, &salt, memory, rounds, lanes);
    // Comparing hashes of both takes the same time wherever they differ.
    let equal = made.is_some_and(|made| blake3::hash(&made) == blake3::hash(&hash));
    known && equal && password.len() <= MAX_BYTES
}

struct Kept {
    memory: u32,
    rounds: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { memory: MEMORY_KIB, rounds: ROUNDS, lanes: LANES, salt: vec![0; 16], hash: vec![0; HASH] }
    }
}

fn parse(kept: &str) -> Option<Kept> {
    let mut parts = kept.strip_prefix("$argon2id$v=19$")?.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut costs = costs.split(',');
    let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (memory, rounds, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    if parts.next().is_some() || memory > MAX_MEMORY_KIB || rounds > MAX_ROUNDS || lanes != LANES {
        return None;
    }
    let decode =
        |text: &str| STANDARD_NO_PAD.decode(text).ok().filter(|bytes| (8..=64).contains(&bytes.len()));
    Some(Kept { memory, rounds, lanes, salt: decode(salt)?, hash: decode(hash).filter(|h| h.len() == HASH)? })
}

fn derive(password: &str, salt: &[u8], memory: u32, rounds: u32, lanes: u32) -> Option<[u8; HASH]> {
    let params = Params::new(memory, rounds, lanes, Some(HASH)).ok()?;
    let mut made = [0; HASH];
    // A password that is too long costs as much as any, and does not match.
    let bytes = password.as_bytes().get(..password.len().min(MAX_BYTES))?;
    let blocks = params.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    WORKPLACES
        .with(blocks, |blocks| argon2.hash_password_into_with_memory(bytes, salt, &mut made, blocks))
        .ok()?;
    Some(made)
}

/// Memory to derive in, one for each that may be at it.
struct Workplaces {
    free: Mutex<Vec<Vec<Block>>>,
    left: Condvar,
}

static WORKPLACES: LazyLock<Workplaces> = LazyLock::new(|| {
    let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_AT_ONCE));
    Workplaces { free: Mutex::new(vec![Vec::new(); count]), left: Condvar::new() }
});

impl Workplaces {
    /// Waits for a place, and works there in memory of `blocks`.
    fn with<T>(&self, blocks: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let lock = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.left.wait_while(lock(), |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let mut place = free.pop().unwrap_or_default();
        drop(free);
        place.resize(blocks, Block::new());
        let done = work(&mut place);
        // What a record with other costs took is not kept.
        if place.len() * Block::SIZE > MEMORY_KIB as usize * 1024 {
            place = Vec::new();
        }
        lock().push(place);
        self.left.notify_one();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::{check, hash};

    #[test]
    fn a_password_is_known_by_its_hash_only() {
        let kept = hash("correct horse").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !kept.contains("horse"));
        assert_ne!(kept, hash("correct horse").unwrap(), "the salt is new each time");
        assert!(check("correct horse", Some(&kept)));
        assert!(!check("correct horsf", Some(&kept)));
        assert!(!check("correct horse", None));
        assert!(!check("", Some(&kept)));
    }

    /// `echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1`, the reference implementation's test vector.
    #[test]
    fn a_hash_of_the_reference_implementation_is_known() {
        let kept = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(check("password", Some(kept)));
        assert!(!check("Password", Some(kept)));
    }

    #[test]
    fn costs_that_are_not_ours_are_not_paid() {
        for kept in [
            "",
            "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=4000000,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            assert!(!check("password", Some(kept)), "{kept}");
        }
    }

    #[test]
    fn passwords_that_nobody_can_type_are_refused() {
        for wrong in ["", "short", "with\nline feed", &"x".repeat(1025)] {
            assert!(hash(wrong).is_err());
        }
        assert!(hash("größere Länge").is_ok());
    }
}
