//! The list of users, and proving to be one of them.
//!
//! Users are records of the store under `user/<name in lower case>`. A password is checked with argon2id, which is slow on
//! purpose; clients of Basic authentication send it with every request, so a password that was right is remembered for
//! [`REMEMBERED`], as a keyed hash whose key is only in this process, and forgotten with every change of the user.
//!
//! An NT hash is kept for those only whom somebody enabled for NTLM, one by one: whoever has it is as good as one who has the
//! password (see [`nt_hash`]). A new password renews it.
//!
//! A grant for a machine stays when the machine is deleted: it comes back with the machine, as backups expect.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Outcome, Store, Txn, Versioned};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::lockout::Lockout;
use crate::nt_hash::{self, KeyFile};
use crate::password;
use crate::policy::{Grant, Identity};

/// Prefix of user records.
pub const USERS: &str = "user/";
/// Most users.
pub const MAX_USERS: usize = 10_000;
/// Longest name of a user in bytes.
pub const MAX_NAME: usize = 64;
/// Most certificates of a user.
pub const MAX_CERTIFICATES: usize = 16;
/// Most machines that a user has grants for: a record must hold them.
pub const MAX_GRANTS: usize = 500;
/// How long a password that was right is not hashed again.
pub const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Passwords that are hashed at a time; each takes 19 MiB.
const CHECKS: usize = 4;
/// Passwords that are remembered at a time.
const MAX_REMEMBERED: usize = 4096;
/// Users read from the store in one go.
const PAGE: usize = 500;

/// A user. Stored under `user/<name in lower case>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Version of this record's shape; 1.
    pub version: u32,
    /// The name, in the case it was given.
    pub name: String,
    /// The password's argon2id hash; none for a user that only has certificates.
    #[serde(default)]
    pub password: Option<String>,
    /// The NT hash of the same password, sealed under the key file; none for a user that is not enabled for NTLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nt_hash: Option<String>,
    /// Client certificates that are this user, by their SHA-256 in lower-case hexadecimal. Windows' own thumbprints are
    /// SHA-1, for which two certificates can be made alike.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// What is granted everywhere.
    #[serde(default)]
    pub grant: Grant,
    /// What is granted for single machines.
    #[serde(default)]
    pub machines: BTreeMap<Uuid, Grant>,
    /// Whether the user is kept out for now.
    #[serde(default)]
    pub disabled: bool,
    /// When it was added.
    pub created: Timestamp,
    /// Fields of a newer version, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What is to change of a user; what is `None` or empty stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new password.
    pub password: Option<String>,
    /// Whether the user may sign in by NTLM. Enabling takes the password in the same change, since the NT hash comes from it.
    pub ntlm: Option<bool>,
    /// What is granted everywhere.
    pub grant: Option<Grant>,
    /// What is granted for single machines; an empty grant takes it away.
    pub machines: Vec<(Uuid, Grant)>,
    /// Certificates that are this user from now on.
    pub add_certificates: Vec<String>,
    /// Certificates that are not any more.
    pub remove_certificates: Vec<String>,
    /// Whether the user is kept out.
    pub disabled: Option<bool>,
}

/// Why somebody is not let in. What is told a client must not tell the first two apart.
#[derive(Debug)]
pub enum Refusal {
    /// There is no such user, or the password is another, or the user is kept out.
    Wrong,
    /// There were too many wrong passwords; this long remains to be waited.
    Wait(Duration),
    /// It cannot be found out.
    Failed(Error),
}

/// The list of users.
pub struct Users {
    store: Arc<dyn Store>,
    key_file: Option<KeyFile>,
    lockout: Lockout,
    gate: Gate,
    remembered: Mutex<HashMap<String, Remembered>>,
    secret: [u8; 32],
}

struct Remembered {
    proof: blake3::Hash,
    until: Instant,
}

impl Users {
    /// The users in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        secret[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        Self {
            store,
            key_file: None,
            lockout: Lockout::default(),
            gate: Gate::default(),
            remembered: Mutex::default(),
            secret,
        }
    }

    /// With a file for the key that NT hashes are sealed under. It is made when the first user is enabled for NTLM; without
    /// one none can be.
    #[must_use]
    pub fn with_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.key_file = Some(KeyFile::new(path));
        self
    }

    /// All users, by name.
    ///
    /// # Errors
    /// The store failed.
    pub fn list(&self) -> Result<Vec<User>, Error> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.range(USERS, after.as_deref(), PAGE).map_err(failed)?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.key.clone());
            for record in &page {
                found.push(decode(record)?);
            }
        }
    }

    /// One user, whatever the case of `name`.
    ///
    /// # Errors
    /// There is none; the store failed.
    pub fn get(&self, name: &str) -> Result<User, Error> {
        self.read(name)?.map(|(user, _)| user).ok_or_else(|| nobody(name))
    }

    /// Adds a user with what `change` says.
    ///
    /// # Errors
    /// There is one already; the name, password or a certificate breaks a rule; there are too many; the store failed.
    pub fn add(&self, name: &str, change: &Change, now: Timestamp) -> Result<User, Error> {
        check_name(name)?;
        if change.password.is_none() && change.add_certificates.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a user needs a password or a certificate"));
        }
        if self.read(name)?.is_some() {
            return Err(exists(name));
        }
        if self.list()?.len() >= MAX_USERS {
            return Err(Error::new(ErrorKind::Invalid, format!("there are {MAX_USERS} users already")));
        }
        let user = User {
            version: 1,
            name: name.to_owned(),
            password: None,
            nt_hash: None,
            certificates: Vec::new(),
            grant: Grant::default(),
            machines: BTreeMap::new(),
            disabled: false,
            created: now,
            extra: serde_json::Map::new(),
        };
        let user = self.changed(user, change)?;
        match self.write(&user, None)? {
            true => Ok(user),
            false => Err(exists(name)),
        }
    }

    /// Changes a user.
    ///
    /// # Errors
    /// There is none; the password or a certificate breaks a rule; somebody else changed it meanwhile; the store failed.
    pub fn set(&self, name: &str, change: &Change) -> Result<User, Error> {
        let (user, revision) = self.read(name)?.ok_or_else(|| nobody(name))?;
        let user = self.changed(user, change)?;
        if !self.write(&user, Some(revision))? {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("user `{name}` was changed by somebody else meanwhile"),
            )
            .hint("look at the user again, and repeat the change if it is still wanted"));
        }
        Ok(user)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// There is none; the store failed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let key = key(name);
        match self.store.txn(&Txn::new().exists(&*key).delete(&*key)).map_err(failed)? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { .. } => Err(nobody(name)),
        }
    }

    /// Lets somebody in who knows the password. A domain before the name (`HOST\name`) is not looked at: there is one list.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn authenticate(&self, name: &str, password: &str, now: Instant) -> Result<Identity, Refusal> {
        let Sought { name, counted, found } = self.seek(name, now)?;
        let (user, revision) = found.map_or((None, 0), |(user, revision)| (Some(user), revision));
        let proof = self.proof(&name, revision, password);
        let known = user.is_some() && self.remembers(&name, proof, now);
        let right = known || {
            let _turn = self.gate.wait();
            password::check(password, user.as_ref().and_then(|user| user.password.as_deref()))
        };
        let identity = self.judge(user.filter(|_| right), &counted, now)?;
        if !known {
            self.remember(name, proof, now);
        }
        Ok(identity)
    }

    /// Lets somebody in who proves to know the NT hash of the password: `proves` is given the hash and says whether it does.
    /// Whoever is not enabled for NTLM has none, and guesses count as those of a password do.
    ///
    /// # Errors
    /// See [`Refusal`]; the key file cannot be used, or is not the one that the hash was sealed under.
    pub fn by_nt_hash(
        &self,
        name: &str,
        proves: impl Fn(&[u8; 16]) -> bool,
        now: Instant,
    ) -> Result<Identity, Refusal> {
        let Sought { counted, found, .. } = self.seek(name, now)?;
        let user = found.map(|(user, _)| user);
        let nt_hash = match user.as_ref().and_then(|user| Some((user, user.nt_hash.as_deref()?))) {
            Some((user, sealed)) => Some(self.unsealed(user, sealed).map_err(Refusal::Failed)?),
            None => None,
        };
        // As much work for nobody as for somebody.
        let right = proves(nt_hash.as_ref().unwrap_or(&[0; 16])) && nt_hash.is_some();
        self.judge(user.filter(|_| right), &counted, now)
    }

    /// Whether anybody is enabled for NTLM.
    ///
    /// # Errors
    /// The store failed.
    pub fn any_nt_hash(&self) -> Result<bool, Error> {
        Ok(self.list()?.iter().any(|user| user.nt_hash.is_some() && !user.disabled))
    }

    /// Looks for whom somebody claims to be, unless that name has to wait.
    fn seek(&self, name: &str, now: Instant) -> Result<Sought, Refusal> {
        let name = name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase();
        // Counted by the name as it is looked up; one that cannot be a user's shares one counter, so that nothing long is kept.
        let counted = if check_name(&name).is_ok() { name.clone() } else { String::new() };
        if let Some(left) = self.lockout.waits(&counted, now) {
            return Err(Refusal::Wait(left));
        }
        let found = if counted.is_empty() { None } else { self.read(&name).map_err(Refusal::Failed)? };
        Ok(Sought { name, counted, found })
    }

    /// Counts a guess, and lets in whoever was right and is not kept out.
    fn judge(&self, right: Option<User>, counted: &str, now: Instant) -> Result<Identity, Refusal> {
        match right.filter(|user| !user.disabled) {
            Some(user) => {
                self.lockout.right(counted);
                Ok(Identity::of(&user))
            }
            None => {
                self.lockout.wrong(counted, now);
                Err(Refusal::Wrong)
            }
        }
    }

    fn unsealed(&self, user: &User, sealed: &str) -> Result<[u8; 16], Error> {
        let key_file = self.key_file.as_ref().ok_or_else(no_key_file)?;
        key_file.open(&owner(user), sealed).map_err(|e| {
            let name = &user.name;
            // What the key file's own trouble is helped by comes first.
            if e.hint_text().is_some() {
                return e;
            }
            e.hint(format!("the password is needed to make it anew: slipway user set {name} --ntlm"))
        })
    }

    /// Lets somebody in whose client certificate was proven, by its SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// See [`Refusal`]; more than one user has it.
    pub fn by_certificate(&self, thumbprint: &str) -> Result<Identity, Refusal> {
        let thumbprint = thumbprint.to_ascii_lowercase();
        let users = self.list().map_err(Refusal::Failed)?;
        let mut who = users.iter().filter(|user| user.certificates.contains(&thumbprint));
        match (who.next(), who.next()) {
            (Some(user), None) if !user.disabled => Ok(Identity::of(user)),
            _ => Err(Refusal::Wrong),
        }
    }

    /// What somebody who has proven to be `name` before may do now; none when there is no such user any more, or it is kept out.
    ///
    /// # Errors
    /// The store failed.
    pub fn identity(&self, name: &str) -> Result<Option<Identity>, Error> {
        let user = self.read(name)?.map(|(user, _)| user).filter(|user| !user.disabled);
        Ok(user.as_ref().map(Identity::of))
    }

    fn changed(&self, mut user: User, change: &Change) -> Result<User, Error> {
        if let Some(password) = &change.password {
            let _turn = self.gate.wait();
            user.password = Some(password::hash(password)?);
        }
        let wanted = change.ntlm.unwrap_or(change.password.is_some() && user.nt_hash.is_some());
        match (wanted, &change.password) {
            (true, Some(password)) => {
                let key_file = self.key_file.as_ref().ok_or_else(no_key_file)?;
                user.nt_hash = Some(key_file.seal(&owner(&user), &nt_hash::of(password))?);
            }
            (true, None) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "enabling NTLM takes the user's password, which is not kept",
                )
                .hint("give it in the same change: `slipway user set NAME --ntlm` asks for it"));
            }
            (false, _) if change.ntlm == Some(false) => user.nt_hash = None,
            (false, _) => {}
        }
        if let Some(grant) = change.grant {
            user.grant = grant;
        }
        for (machine, grant) in &change.machines {
            match grant.is_empty() {
                true => user.machines.remove(machine),
                false => user.machines.insert(*machine, *grant),
            };
        }
        let removed: Vec<String> =
            change.remove_certificates.iter().map(|c| c.to_ascii_lowercase()).collect();
        user.certificates.retain(|known| !removed.contains(known));
        for certificate in &change.add_certificates {
            let certificate = check_certificate(certificate)?;
            if !user.certificates.contains(&certificate) {
                user.certificates.push(certificate);
            }
        }
        if let Some(disabled) = change.disabled {
            user.disabled = disabled;
        }
        for (count, most, what) in [
            (user.machines.len(), MAX_GRANTS, "machines"),
            (user.certificates.len(), MAX_CERTIFICATES, "certificates"),
        ] {
            if count > most {
                return Err(Error::new(ErrorKind::Invalid, format!("a user has at most {most} {what}")));
            }
        }
        Ok(user)
    }

    fn read(&self, name: &str) -> Result<Option<(User, u64)>, Error> {
        let record = self.store.get(&key(name)).map_err(failed)?;
        record.map(|record| Ok((decode(&record)?, record.revision))).transpose()
    }

    fn write(&self, user: &User, revision: Option<u64>) -> Result<bool, Error> {
        let key = key(&user.name);
        let bytes = serde_json::to_vec(user)
            .map_err(|e| Error::new(ErrorKind::Store, "the user cannot be written").caused_by(e))?;
        let txn = match revision {
            Some(revision) => Txn::new().revision(&*key, revision),
            None => Txn::new().absent(&*key),
        };
        let outcome = self.store.txn(&txn.put(&*key, bytes)).map_err(failed)?;
        Ok(matches!(outcome, Outcome::Committed { .. }))
    }

    /// Changes with the password and with every change of the user.
    fn proof(&self, name: &str, revision: u64, password: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher
            .update(name.as_bytes())
            .update(&[0])
            .update(&revision.to_le_bytes())
            .update(password.as_bytes());
        hasher.finalize()
    }

    fn remembers(&self, name: &str, proof: blake3::Hash, now: Instant) -> bool {
        self.table().get(name).is_some_and(|there| there.until > now && there.proof == proof)
    }

    fn remember(&self, name: String, proof: blake3::Hash, now: Instant) {
        let mut table = self.table();
        if table.len() >= MAX_REMEMBERED {
            table.clear();
        }
        table.insert(name, Remembered { proof, until: now + REMEMBERED });
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

/// Whom somebody claims to be.
struct Sought {
    name: String,
    /// The name that guesses are counted by.
    counted: String,
    found: Option<(User, u64)>,
}

/// Whose an NT hash is, so that it is nobody else's: the name, and the password as it is kept. A password that was changed by
/// a program that knows nothing of NT hashes leaves one that does not open.
fn owner(user: &User) -> String {
    format!("{}\n{}", user.name.to_ascii_lowercase(), user.password.as_deref().unwrap_or_default())
}

fn no_key_file() -> Error {
    Error::new(ErrorKind::Invalid, "NT hashes are not kept here")
}

/// Lets a few through at a time.
#[derive(Default)]
struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

struct Turn<'g>(&'g Gate);

impl Gate {
    fn wait(&self) -> Turn<'_> {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inside =
            self.left.wait_while(inside, |inside| *inside >= CHECKS).unwrap_or_else(PoisonError::into_inner);
        *inside += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.inside.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

fn key(name: &str) -> String {
    format!("{USERS}{}", name.to_ascii_lowercase())
}

fn decode(record: &Versioned) -> Result<User, Error> {
    serde_json::from_slice(&record.value).map_err(|e| {
        Error::new(ErrorKind::Store, format!("record `{}` cannot be read", record.key)).caused_by(e)
    })
}

fn failed(e: store::Error) -> Error {
    Error::new(ErrorKind::Store, "the store failed").caused_by(e)
}

fn nobody(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no user `{name}`"))
        .hint("`slipway user list` shows those there are")
}

fn exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("there is a user `{name}` already"))
        .hint("`slipway user set` changes one")
}

/// Names that every protocol carries without quoting: Basic ends them at a colon, Windows puts a domain before a backslash.
fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.len() > MAX_NAME
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(fine)
    {
        let shown: String = name.chars().take(MAX_NAME).collect();
        return Err(Error::new(ErrorKind::Invalid, format!("`{shown}` cannot be a user's name")).hint(
            "a name begins with a letter or digit, has at most 64 of them, and `.`, `_`, `-`, `@` between",
        ));
    }
    Ok(())
}

fn check_certificate(certificate: &str) -> Result<String, Error> {
    let plain: String = certificate.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    if plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(plain.to_ascii_lowercase());
    }
    Err(Error::new(ErrorKind::Invalid, "this names no certificate")
        .hint("give its SHA-256: openssl x509 -in CERTIFICATE -noout -fingerprint -sha256"))
}

#[cfg(test)]
mod tests;
