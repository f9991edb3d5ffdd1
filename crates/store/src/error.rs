//! What can go wrong when a store is opened ([`OpenError`]) and when it is used ([`Error`]).
//!
//! A conflict is not an error: see [`crate::Outcome`].

use std::path::{Path, PathBuf};

use crate::{MAX_KEY, MAX_OPERATIONS, MAX_VALUE};

/// What a caller can branch on when an access fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key or prefix breaks the key rules (see [`crate::check_key`]). A bug of the caller.
    InvalidKey,
    /// A value is larger than [`MAX_VALUE`].
    TooLarge,
    /// A transaction has too many operations or conditions, or changes a key twice. A bug of the caller.
    InvalidTxn,
    /// The history asked for is no longer kept: read everything anew and watch from there.
    Compacted,
    /// The disk is full: nothing was written, and the call may be repeated once there is room.
    Full,
    /// The medium failed. Whether the last transaction was applied is unknown until the store is opened again.
    Backend,
    /// An earlier call failed with [`ErrorKind::Backend`]; this store takes no more writes until it is opened again.
    Stopped,
}

/// A failed access to a store.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Inner);

#[derive(Debug, thiserror::Error)]
enum Inner {
    #[error("key {key:?} is not allowed: {rule}")]
    Key { key: String, rule: &'static str },
    #[error("the value of {key} has {size} bytes; at most {MAX_VALUE} are allowed")]
    TooLarge { key: String, size: usize },
    #[error("a transaction has {count} operations or conditions; at most {MAX_OPERATIONS} are allowed")]
    TooMany { count: usize },
    #[error("a transaction changes {key} twice")]
    Twice { key: String },
    #[error("changes after revision {from} are no longer kept, only those after {kept}")]
    Compacted { from: u64, kept: u64 },
    #[error("no room to write to the store")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the store failed to {action}")]
    Backend { action: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the store takes no more writes since an earlier one failed; restart the daemon")]
    Stopped,
}

impl Error {
    /// What a caller can branch on.
    pub fn kind(&self) -> ErrorKind {
        match &self.0 {
            Inner::Key { .. } => ErrorKind::InvalidKey,
            Inner::TooLarge { .. } => ErrorKind::TooLarge,
            Inner::TooMany { .. } | Inner::Twice { .. } => ErrorKind::InvalidTxn,
            Inner::Compacted { .. } => ErrorKind::Compacted,
            Inner::Full(_) => ErrorKind::Full,
            Inner::Backend { .. } => ErrorKind::Backend,
            Inner::Stopped => ErrorKind::Stopped,
        }
    }

    /// A failure of the medium, for implementations of [`crate::Store`] outside this crate (fault doubles among them).
    /// `action` completes "the store failed to …".
    pub fn backend(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Inner::Backend { action, source: source.into() }.into()
    }

    pub(crate) fn key(key: &str, rule: &'static str) -> Error {
        // A hostile key is not echoed in full.
        let key = key.chars().take(MAX_KEY).collect();
        Inner::Key { key, rule }.into()
    }

    pub(crate) fn too_large(key: &str, size: usize) -> Error {
        Inner::TooLarge { key: key.to_owned(), size }.into()
    }

    pub(crate) fn too_many(count: usize) -> Error {
        Inner::TooMany { count }.into()
    }

    pub(crate) fn twice(key: &str) -> Error {
        Inner::Twice { key: key.to_owned() }.into()
    }

    pub(crate) fn compacted(from: u64, kept: u64) -> Error {
        Inner::Compacted { from, kept }.into()
    }

    pub(crate) fn stopped() -> Error {
        Inner::Stopped.into()
    }

    pub(crate) fn sqlite(action: &'static str, source: rusqlite::Error) -> Error {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Inner::Full(Box::new(source)).into(),
            _ => Inner::Backend { action, source: Box::new(source) }.into(),
        }
    }
}

/// What a caller can branch on when a store cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// Another process has this store open.
    InUse,
    /// The file was written by a newer version of the program.
    Newer,
    /// The file is a database, but not one of ours, or damaged.
    NotAStore,
    /// The file could not be created, read, locked, backed up or migrated.
    Io,
}

/// A store that could not be opened. Nothing was changed, apart from a backup that may have been made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(#[from] pub(crate) OpenInner);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenInner {
    #[error("`{}` is in use by another process{}", path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, holder: Option<u32> },
    #[error("{} has schema version {found}, this program knows up to {known}; use the newer program, or a backup \
        made before the upgrade", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{} is not a store of this program: {why}", path.display())]
    NotAStore { path: PathBuf, why: &'static str },
    #[error("cannot {action} {}", path.display())]
    Sqlite { action: &'static str, path: PathBuf, source: rusqlite::Error },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl OpenError {
    /// What a caller can branch on.
    pub fn kind(&self) -> OpenErrorKind {
        match &self.0 {
            OpenInner::InUse { .. } => OpenErrorKind::InUse,
            OpenInner::Newer { .. } => OpenErrorKind::Newer,
            OpenInner::NotAStore { .. } => OpenErrorKind::NotAStore,
            OpenInner::Sqlite { .. } | OpenInner::Io { .. } => OpenErrorKind::Io,
        }
    }

    pub(crate) fn sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> OpenError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(NotADatabase | DatabaseCorrupt) => {
                OpenInner::NotAStore { path, why: "it is not a database, or a damaged one" }.into()
            }
            _ => OpenInner::Sqlite { action, path, source }.into(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> OpenError {
        OpenInner::Io { action, path: path.to_owned(), source }.into()
    }
}
