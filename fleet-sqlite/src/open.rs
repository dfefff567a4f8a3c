//! Opening: what is refused, what is checked, what is set.
//!
//! A file that is damaged, newer or of another program is left as it is, byte for byte. The structure check is
//! bounded, so that a long history does not delay recovery: a small file is checked whole; of a large one every table
//! but those that hold history. Rows that recovery stands on are read and checked one by one when they are loaded,
//! and [`crate::SqliteStore::check`] reads everything when asked.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::schema::{self, Found};

/// The oldest SQLite that is safe: before it, two connections that wrote and checkpointed at once could lose
/// committed writes.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// A file up to this size is checked whole at every start: about 200 MB a second were measured, so that this stays
/// under 0.2 s.
const FULL_CHECK_MAX_BYTES: i64 = 32 * 1024 * 1024;

/// Tables that grow with history, left out when a large file is checked at the start.
const HISTORY_TABLES: &[&str] = &["events", "update_plans", "update_steps"];

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Nothing is written, no lock is needed; the store must exist and have the schema that this fleet knows.
    pub read_only: bool,
    /// How long a write waits for another process's transaction before it fails.
    pub busy_timeout: Duration,
    /// Takes the lease under this name: whoever held it before can no longer write, and neither can this store once
    /// another takes it. None: writes are not fenced.
    pub lease_holder: Option<String>,
}

impl Default for OpenOptions {
    /// To read and write, five seconds of patience, no lease.
    fn default() -> Self {
        Self {
            read_only: false,
            busy_timeout: Duration::from_secs(5),
            lease_holder: None,
        }
    }
}

impl OpenOptions {
    /// To read only.
    #[must_use]
    pub fn read_only() -> Self {
        Self {
            read_only: true,
            ..Self::default()
        }
    }

    /// With the lease, under this name.
    #[must_use]
    pub fn with_lease(mut self, holder: impl Into<String>) -> Self {
        self.lease_holder = Some(holder.into());
        self
    }
}

/// Why a store was not opened. Nothing was written to an existing file then, except where said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The program was linked with an SQLite that can lose writes.
    #[error("expected SQLite 3.51.3 or newer, found {found}: build fleet with the bundled one")]
    Library {
        /// Its version.
        found: &'static str,
    },
    /// There is no store, and opening to read only makes none.
    #[error("there is no store at {path}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file or its folder cannot be used.
    #[error("failed to {op} {path}")]
    File {
        /// What was tried.
        op: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A newer fleet wrote it.
    #[error(
        "{path} has schema version {found}, this fleet knows versions up to {known}: use the fleet that wrote it or \
         a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this fleet knows.
        known: i64,
    },
    /// An older fleet wrote it, and opening to read only does not migrate.
    #[error(
        "{path} has schema version {found}, this fleet reads version {known}: run `fleet recover` once to migrate it"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that this fleet reads.
        known: i64,
    },
    /// A database, but not fleet's.
    #[error("{path} is a database of another program: choose another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what SQLite wrote.
    #[error(
        "{path} is damaged ({finding}): keep it with its -wal and -shm files for inspection, and put a backup in its \
         place"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first finding.
        finding: String,
        /// SQLite's error, where there was one.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The schema could not be brought up to date. The file is as it was; a backup of it lies beside it.
    #[error("failed to migrate {path} from schema version {from}")]
    Migration {
        /// The file.
        path: PathBuf,
        /// The version it has.
        from: i64,
        /// Why.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// The file system cannot hold a write-ahead log.
    #[error(
        "{path} cannot have a write-ahead log (found journal mode {found}): put the data directory on a local disk"
    )]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
        /// The mode that SQLite stayed with.
        found: String,
    },
    /// SQLite failed in another way.
    #[error("failed to {op} {path}: {message}")]
    Sqlite {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// What it means.
        message: &'static str,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
}

/// What SQLite's errors mean for whoever runs fleet.
pub(crate) fn meaning(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds it for too long"
        }
        Some(ErrorCode::DiskFull) => "no space is left",
        Some(ErrorCode::ReadOnly) => "it, or its folder, is read-only",
        Some(ErrorCode::PermissionDenied) => "permission denied",
        Some(ErrorCode::CannotOpen) => "it cannot be opened; its folder must exist and be writable",
        Some(ErrorCode::SystemIoFailure) => "the disk failed",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "it is damaged",
        _ => "SQLite refused",
    }
}

/// The connections of a store.
pub(crate) struct Opened {
    pub(crate) writer: Option<Connection>,
    pub(crate) reader: Connection,
    pub(crate) epoch: Option<i64>,
}

/// Opens, or says why not.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::Library {
            found: rusqlite::version(),
        });
    }
    if options.read_only {
        if !path.exists() {
            return Err(OpenError::Missing {
                path: path.to_owned(),
            });
        }
        let reader = connect(path, options, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        check_readable(&reader, path)?;
        return Ok(Opened {
            writer: None,
            reader,
            epoch: None,
        });
    }
    make_private(path)?;
    let mut writer = connect(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let epoch = prepare(&mut writer, path, options)?;
    let reader = connect(path, options, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Opened {
        writer: Some(writer),
        reader,
        epoch,
    })
}

/// Makes the file, if there is none, and keeps others from reading it either way: it holds container settings.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let file = |op, source| OpenError::File {
        op,
        path: path.to_owned(),
        source,
    };
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => sync_folder(path).map_err(|error| file("make", error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path)
                .map_err(|error| file("read", error))?
                .permissions()
                .mode();
            if mode & 0o077 == 0 {
                return Ok(());
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(|error| file("make private", error))
        }
        Err(error) => Err(file("make", error)),
    }
}

/// Makes the entry of a file in its folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn connect(path: &Path, options: &OpenOptions, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connect = || {
        let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // Until the file is known to be sound, closing must not write the log back into it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        conn.busy_timeout(options.busy_timeout)?;
        conn.set_prepared_statement_cache_capacity(64);
        Ok(conn)
    };
    connect().map_err(|source| failed("open", path, source))
}

fn failed(op: &'static str, path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            path,
            finding: source.to_string(),
            source: Some(source),
        },
        _ => OpenError::Sqlite {
            op,
            path,
            message: meaning(&source),
            source,
        },
    }
}

/// Everything between an open file and a store that may be written: checks first, then changes.
fn prepare(
    conn: &mut Connection,
    path: &Path,
    options: &OpenOptions,
) -> Result<Option<i64>, OpenError> {
    let found = schema::found(conn).map_err(|source| failed("read", path, source))?;
    match found {
        Found::Foreign => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        Found::Version(found) if found > schema::latest() => return Err(newer(path, found)),
        Found::Version(_) => check_structure(conn, path)?,
        Found::Empty => {}
    }
    set_pragmas(conn, path)?;
    if let Found::Version(from) = found
        && from < schema::latest()
    {
        back_up(conn, path, from)?;
    }
    schema::migrate(conn).map_err(|source| OpenError::Migration {
        path: path.to_owned(),
        from: match found {
            Found::Version(from) => from,
            _ => 0,
        },
        source,
    })?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(|source| failed("set up", path, source))?;
    let Some(holder) = &options.lease_holder else {
        return Ok(None);
    };
    take_lease(conn, holder)
        .map(Some)
        .map_err(|source| failed("take the lease of", path, source))
}

fn newer(path: &Path, found: i64) -> OpenError {
    OpenError::Newer {
        path: path.to_owned(),
        found,
        known: schema::latest(),
    }
}

fn check_readable(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let path = path.to_owned();
    let known = schema::latest();
    match schema::found(conn).map_err(|source| failed("read", &path, source))? {
        Found::Version(found) if found > known => Err(newer(&path, found)),
        Found::Version(found) if found < known => Err(OpenError::Older { path, found, known }),
        Found::Version(_) => Ok(()),
        Found::Empty => Err(OpenError::Missing { path }),
        Found::Foreign => Err(OpenError::Foreign { path }),
    }
}

fn check_structure(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let findings = bounded_check(conn).map_err(|source| failed("check", path, source))?;
    match findings.into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(OpenError::Damaged {
            path: path.to_owned(),
            finding,
            source: None,
        }),
    }
}

fn bounded_check(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page_bytes: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    if pages.saturating_mul(page_bytes) <= FULL_CHECK_MAX_BYTES {
        return quick_check(conn, None);
    }
    let tables: Vec<String> = conn
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut findings = Vec::new();
    for table in tables {
        if !HISTORY_TABLES.contains(&table.as_str()) {
            findings.extend(quick_check(conn, Some(&table))?);
        }
    }
    Ok(findings)
}

/// SQLite's structure check, of one table or of all. Empty if all is well.
pub(crate) fn quick_check(conn: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    let take = |row: &rusqlite::Row<'_>| {
        let finding: String = row.get(0)?;
        if finding != "ok" {
            findings.push(finding);
        }
        Ok(())
    };
    match table {
        Some(table) => conn.pragma(None, "quick_check", table, take)?,
        None => conn.pragma_query(None, "quick_check", take)?,
    }
    Ok(findings)
}

fn set_pragmas(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|source| failed("write to", path, source))?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog {
            path: path.to_owned(),
            found: mode,
        });
    }
    // The log is cut back after a burst, so that it does not keep the space of one for ever.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA cell_size_check = ON;
         PRAGMA journal_size_limit = 67108864;",
    )
    .map_err(|source| failed("set up", path, source))
}

/// Copies the store as it is to `<file>.v<version>.bak`, complete and durable, before its schema changes.
fn back_up(conn: &Connection, path: &Path, version: i64) -> Result<(), OpenError> {
    let backup = beside(path, &format!(".v{version}.bak"));
    let unfinished = beside(path, &format!(".v{version}.bak.tmp"));
    let file = |source| OpenError::File {
        op: "back up to",
        path: backup.clone(),
        source,
    };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    make_private(&unfinished)?;
    copy(conn, &unfinished).map_err(|source| failed("back up", path, source))?;
    fs::File::open(&unfinished)
        .and_then(|copy| copy.sync_all())
        .and_then(|()| fs::rename(&unfinished, &backup))
        .and_then(|()| sync_folder(&backup))
        .map_err(file)
}

fn copy(from: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut to = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    {
        let backup = rusqlite::backup::Backup::new(from, &mut to)?;
        // All pages in one step: one consistent state, no matter who writes meanwhile.
        if backup.step(-1)? != rusqlite::backup::StepResult::Done {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                None,
            ));
        }
    }
    to.close().map_err(|(_, error)| error)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn take_lease(conn: &mut Connection, holder: &str) -> rusqlite::Result<i64> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let epoch: Option<i64> = transaction
        .query_row("SELECT epoch FROM lease", [], |row| row.get(0))
        .optional()?;
    let epoch = epoch.unwrap_or(0) + 1;
    transaction.execute(
        "INSERT INTO lease (only, epoch, holder) VALUES (1, ?1, ?2)
         ON CONFLICT (only) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder",
        (epoch, holder),
    )?;
    transaction.commit()?;
    Ok(epoch)
}
