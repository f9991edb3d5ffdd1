//! Opening a store file: lock, identify, migrate, set up the connections.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::schema::Migration;
use crate::OpenError;
use crate::error::OpenInner;

/// In the header of every store file: "SLWY".
const APPLICATION_ID: u32 = 0x534C_5759;

/// Nobody else should hold the database locked, given the lock file; a backup tool may, briefly.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) lock: File,
}

pub(super) fn open(path: &Path, migrations: &[Migration]) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    // Created here, not by SQLite, for the mode: values may hold secrets.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| OpenError::io("open", path, error))?;
    let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Look before the first write: a file that is not ours, or newer, must stay exactly as it is.
    let version = identify(&writer, path, migrations)?;
    let setup = |writer: &Connection| -> rusqlite::Result<String> {
        let mode = writer.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        writer.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        Ok(mode)
    };
    let mode = setup(&writer).map_err(|error| OpenError::sqlite("set up", path, error))?;
    if mode != "wal" {
        let why = "its file system does not allow write-ahead logging";
        return Err(OpenInner::NotAStore { path: path.to_owned(), why }.into());
    }
    migrate(&mut writer, path, version, migrations)?;
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Opened { writer, reader, lock })
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    // NO_MUTEX: our own mutexes already give each connection to one thread at a time.
    let connect = || {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    };
    connect().map_err(|error| OpenError::sqlite("open", path, error))
}

/// Takes the lock that keeps other processes out. It lasts until the file is closed, so also through kill -9 no longer
/// than the process; the lock file itself stays.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = suffixed(path, ".lock");
    let io = |action| move |error| OpenError::io(action, &suffixed(path, ".lock"), error);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // The pid is a help for the reader, nothing is decided by it.
            let mut text = String::new();
            let _ = (&file).take(16).read_to_string(&mut text);
            return Err(OpenInner::InUse { path: path.to_owned(), holder: text.trim().parse().ok() }.into());
        }
        Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
    }
    file.set_len(0).map_err(io("write"))?;
    file.rewind().map_err(io("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(io("write"))?;
    Ok(file)
}

/// Tells the schema version of the file, 0 for an empty one, and refuses what is not ours to touch.
fn identify(db: &Connection, path: &Path, migrations: &[Migration]) -> Result<u32, OpenError> {
    let read = || -> rusqlite::Result<(u32, u32, u32)> {
        Ok((
            db.query_row("PRAGMA application_id", [], |row| row.get(0))?,
            db.query_row("PRAGMA user_version", [], |row| row.get(0))?,
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
        ))
    };
    let (application, version, objects) = read().map_err(|error| OpenError::sqlite("read", path, error))?;
    if application == 0 && version == 0 && objects == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID || version == 0 {
        let why = "the database belongs to another program";
        return Err(OpenInner::NotAStore { path: path.to_owned(), why }.into());
    }
    let known = migrations.last().map_or(0, |last| last.to);
    if version > known {
        return Err(OpenInner::Newer { path: path.to_owned(), found: version, known }.into());
    }
    Ok(version)
}

/// Brings the file from `version` to the newest one, in one SQL transaction, after a backup.
fn migrate(
    db: &mut Connection,
    path: &Path,
    version: u32,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let mut steps = migrations.iter().filter(|step| step.to > version).peekable();
    if steps.peek().is_none() {
        return Ok(());
    }
    if version > 0 {
        back_up(db, path, version)?;
    }
    let run = || -> rusqlite::Result<()> {
        let sql = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        for step in steps {
            sql.execute_batch(step.sql)?;
            sql.pragma_update(None, "user_version", step.to)?;
        }
        sql.pragma_update(None, "application_id", APPLICATION_ID)?;
        sql.commit()
    };
    run().map_err(|error| OpenError::sqlite("migrate", path, error))
}

/// Writes a copy of the store beside it, synced, under a name that was not taken. Earlier backups are kept.
fn back_up(db: &Connection, path: &Path, version: u32) -> Result<(), OpenError> {
    let partial = suffixed(path, ".backup.partial");
    let io = |action| {
        let partial = partial.clone();
        move |error| OpenError::io(action, &partial, error)
    };
    // Left by a migration that died; SQLite refuses to write over it.
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove")(error)),
        _ => {}
    }
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial).map_err(io("create"))?;
    // An existing but empty file is accepted as the target.
    let target = partial.to_str().ok_or_else(|| {
        let why = "its path is not Unicode, so no backup can be made";
        OpenError::from(OpenInner::NotAStore { path: path.to_owned(), why })
    })?;
    db.execute("VACUUM INTO ?1", [target]).map_err(|error| OpenError::sqlite("back up", path, error))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io("sync"))?;
    let mut name = suffixed(path, &format!(".schema-{version}.backup"));
    let mut attempt = 1;
    while name.exists() {
        attempt += 1;
        name = suffixed(path, &format!(".schema-{version}.backup-{attempt}"));
    }
    std::fs::rename(&partial, &name).map_err(io("rename"))?;
    // `path` was opened, so it has a parent; a bare file name's is the working directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| OpenError::io("sync", parent, error))
}

pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sqlite::schema::MIGRATIONS;
    use crate::{OpenErrorKind, SqliteStore, Store as _, Txn};

    const FUTURE: &[Migration] = &[
        Migration { to: 1, sql: MIGRATIONS[0].sql },
        Migration { to: 2, sql: "ALTER TABLE entry ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'" },
    ];

    fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        (dir, path)
    }

    #[test]
    fn a_second_opener_is_refused_by_name() {
        let (_dir, path) = file("store.db");
        let first = SqliteStore::open(&path).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::InUse);
        let text = error.to_string();
        assert!(text.contains("store.db` is in use"), "{text}");
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        drop(first);
        // Another test may fork just now: until its child becomes another program it holds our lock too.
        let until = Instant::now() + Duration::from_secs(20);
        while SqliteStore::open(&path).is_err() {
            assert!(Instant::now() < until, "the lock is never let go");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_newer_file_is_refused_and_untouched() {
        let (_dir, path) = file("store.db");
        drop(open(&path, FUTURE).unwrap());
        let before = std::fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::Newer);
        let text = error.to_string();
        assert!(text.contains("version 2") && text.contains("up to 1"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn an_older_file_is_migrated_after_a_backup() {
        let (dir, path) = file("store.db");
        let store = SqliteStore::open(&path).unwrap();
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        drop(store);
        // Left by a migration that died while it made its backup.
        std::fs::write(suffixed(&path, ".backup.partial"), "half").unwrap();

        let opened = open(&path, FUTURE).unwrap();
        let colour: String = opened
            .reader
            .query_row("SELECT colour FROM entry WHERE key = 'a'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(colour, "red");
        drop(opened);

        let backup = dir.path().join("store.db.schema-1.backup");
        let old = SqliteStore::open(&backup).unwrap();
        assert_eq!(old.get("a").unwrap().unwrap().value, b"1");
        assert!(!suffixed(&path, ".backup.partial").exists());
    }

    #[test]
    fn a_failed_migration_changes_nothing() {
        let (_dir, path) = file("store.db");
        let store = SqliteStore::open(&path).unwrap();
        let _ = store.txn(&Txn::new().put("a", "1")).unwrap();
        drop(store);
        let broken = [
            Migration { to: 1, sql: MIGRATIONS[0].sql },
            Migration { to: 2, sql: "DELETE FROM entry; NONSENSE" },
        ];
        assert_eq!(open(&path, &broken).err().unwrap().kind(), OpenErrorKind::Io);
        let store = SqliteStore::open(&path).unwrap();
        assert!(store.get("a").unwrap().is_some());
    }

    #[test]
    fn files_of_others_are_refused_and_untouched() {
        let (_dir, path) = file("other.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(SqliteStore::open(&path).unwrap_err().kind(), OpenErrorKind::NotAStore);
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let (_dir, path) = file("text");
        std::fs::write(&path, "hello, this is not a database at all, not even close to one").unwrap();
        assert_eq!(SqliteStore::open(&path).unwrap_err().kind(), OpenErrorKind::NotAStore);

        let (dir, _) = file("");
        let missing = dir.path().join("no/such/dir/store.db");
        let error = SqliteStore::open(&missing).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::Io);
        assert!(error.to_string().contains("no/such/dir"), "{error}");
    }

    #[test]
    fn the_file_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, path) = file("store.db");
        let _store = SqliteStore::open(&path).unwrap();
        for suffix in ["", "-wal", ".lock"] {
            let mode = std::fs::metadata(suffixed(&path, suffix)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{suffix}");
        }
    }
}
