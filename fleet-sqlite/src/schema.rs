//! The schema: numbered migrations, forward only. The number of the newest one is the schema's version.

use rusqlite::{Connection, OptionalExtension};
use rusqlite_migration::{M, Migrations};

/// Marks a file as fleet's: "flet" in ASCII.
pub(crate) const APPLICATION_ID: i32 = 0x666c_6574;

/// One migration per released change of the schema. Never edit one that was released: add another, and keep a file
/// of the version before it in `tests/golden`.
const MIGRATIONS: &[M<'static>] = &[
    // Journal, event log, configs, settings, availability, lease.
    M::up(include_str!("migrations/0001_journal.sql")),
    // Rollouts.
    M::up(include_str!("migrations/0002_rollouts.sql")),
    // What each rollout is of.
    M::up(include_str!("migrations/0003_rollout_images.sql")),
    // Since when each instance has been behind.
    M::up(include_str!("migrations/0004_lag.sql")),
];

/// The schema version that this fleet writes.
pub(crate) fn latest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// What a file is, before anything is changed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing is in it.
    Empty,
    /// A store of fleet with this schema version.
    Version(i64),
    /// A database of another program.
    Foreign,
}

/// Looks without changing anything.
pub(crate) fn found(conn: &Connection) -> rusqlite::Result<Found> {
    let application: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let table: Option<String> = conn
        .query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(match (application, version, table) {
        (APPLICATION_ID, 1.., Some(_)) => Found::Version(version),
        (0, 0, None) => Found::Empty,
        _ => Found::Foreign,
    })
}

/// Brings the schema up to date, one transaction for all that is missing.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), rusqlite_migration::Error> {
    let migrated = Migrations::from_slice(MIGRATIONS).to_latest(conn);
    // Another process may have done the same in the meantime; then there is nothing left to do.
    if migrated.is_err() && found(conn).is_ok_and(|found| found == Found::Version(latest())) {
        return Ok(());
    }
    migrated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_valid_and_mark_the_file() {
        Migrations::from_slice(MIGRATIONS).validate().unwrap();
        let mut conn = Connection::open_in_memory().unwrap();
        assert_eq!(found(&conn).unwrap(), Found::Empty);
        migrate(&mut conn).unwrap();
        assert_eq!(found(&conn).unwrap(), Found::Version(latest()));
    }

    #[test]
    fn a_database_of_another_program_is_told_apart() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE bookmarks (url TEXT)")
            .unwrap();
        assert_eq!(found(&conn).unwrap(), Found::Foreign);
    }
}
