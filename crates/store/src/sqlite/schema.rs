//! The tables, as a list of steps from each schema version to the next.

/// One step: from the version before to `to`. Runs inside the transaction of the whole migration.
pub(super) struct Migration {
    pub(super) to: u32,
    pub(super) sql: &'static str,
}

/// Schema version this program writes.
pub const SCHEMA_VERSION: u32 = 1;

const _: () = assert!(MIGRATIONS[MIGRATIONS.len() - 1].to == SCHEMA_VERSION);

/// All steps, in order, from an empty file (version 0). Released steps are never edited; a change is a new step.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    to: 1,
    // `entry` is the current state, `change` the history for watchers, `head` a single row about both.
    sql: "
        CREATE TABLE entry (
            key TEXT NOT NULL PRIMARY KEY,
            value BLOB NOT NULL,
            revision INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE change (
            revision INTEGER NOT NULL,
            ordinal INTEGER NOT NULL,
            key TEXT NOT NULL,
            deleted INTEGER NOT NULL,
            PRIMARY KEY (revision, ordinal)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE head (
            only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
            revision INTEGER NOT NULL,
            compacted INTEGER NOT NULL
        ) STRICT;
        INSERT INTO head (only, revision, compacted) VALUES (1, 0, 0);
    ",
}];
