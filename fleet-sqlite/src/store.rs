//! The store's connections: one that writes, one that reads, each on a thread of its own.
//!
//! Every write is one transaction, durable when it returns; a write whose caller went away is still done. Reads see
//! every write that has returned, and never wait for one.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fleet_core::ports::{JournalError, RolloutStoreError};
use rusqlite::{ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use crate::open::{self, OpenError, OpenOptions};

/// All stores of a fleet in one SQLite file.
///
/// # Guarantees
/// What was written is durable when the call returns: one transaction, synced. After an input/output error nothing
/// more is written until the store is opened again, since a failed sync says nothing about what came before it.
///
/// # Cancel safety
/// Dropping the future of a write does not undo it: it may be written or not, as after a crash. Look again.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// None for a store opened to read only.
    writer: Option<tokio_rusqlite::Connection>,
    reader: tokio_rusqlite::Connection,
    /// The epoch of the lease that this store holds, if it took one.
    epoch: Option<i64>,
    /// An input/output error was seen while writing.
    broken: AtomicBool,
}

/// Why a piece of work on a connection failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SQLite said no.
    Sqlite(rusqlite::Error),
    /// The journal's own error: nothing is wrong with the store.
    Refused(JournalError),
    /// The store of rollouts' own error: nothing is wrong with the store.
    RolloutRefused(RolloutStoreError),
    /// Another fleet took over, or the file was replaced.
    Overtaken(String),
    /// A row is not what it must be, or a value cannot be stored.
    Unfit(String),
}

impl Failure {
    /// A column holds something else than it must.
    pub(crate) fn row(column: &'static str, error: impl Display) -> Self {
        Self::Unfit(format!("a row's column {column} cannot be read: {error}"))
    }

    /// A value that cannot be stored.
    pub(crate) fn unwritable(error: impl Display) -> Self {
        Self::Unfit(format!("a value cannot be stored: {error}"))
    }

    fn breaks_the_store(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                )
            ),
            Self::Overtaken(_) => true,
            Self::Refused(_) | Self::RolloutRefused(_) | Self::Unfit(_) => false,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::Refused(error)
    }
}

impl From<RolloutStoreError> for Failure {
    fn from(error: RolloutStoreError) -> Self {
        Self::RolloutRefused(error)
    }
}

/// A failure in words, on its way to the error of the port that was called.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The store failed.
    Store(String, Option<rusqlite::Error>),
    /// The journal refused.
    Journal(JournalError),
    /// The store of rollouts refused.
    Rollout(RolloutStoreError),
}

impl From<Failed> for JournalError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Journal(error) => error,
            Failed::Store(message, source) => Self::Store {
                message,
                source: source.map(Into::into),
            },
            Failed::Rollout(error) => Self::Store {
                message: error.to_string(),
                source: None,
            },
        }
    }
}

impl From<Failed> for RolloutStoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Rollout(error) => error,
            Failed::Store(message, source) => Self::Store {
                message,
                source: source.map(Into::into),
            },
            Failed::Journal(error) => Self::Store {
                message: error.to_string(),
                source: None,
            },
        }
    }
}

impl SqliteStore {
    /// Opens the store at `path`, makes it if there is none, and brings its schema up to date.
    ///
    /// Blocks for as long as the disk takes; call it before serving, or on a thread that may block.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do. Nothing was changed then.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let opened = open::open(path, &options)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writer: opened.writer.map(tokio_rusqlite::Connection::from),
                reader: opened.reader.into(),
                epoch: opened.epoch,
                broken: AtomicBool::new(false),
            }),
        })
    }

    /// Where the store is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Closes both connections and waits until they are closed; other handles of the same store fail from then on.
    ///
    /// # Errors
    /// The file could not be closed in order. Nothing that was written is lost by that.
    pub async fn close(self) -> Result<(), JournalError> {
        let failed = |_| JournalError::Store {
            message: format!("{} could not be closed in order", self.inner.path.display()),
            source: None,
        };
        self.inner.reader.clone().close().await.map_err(failed)?;
        match &self.inner.writer {
            Some(writer) => writer.clone().close().await.map_err(failed),
            None => Ok(()),
        }
    }

    /// Whether an earlier write failed so that nothing more is written until the store is opened again.
    pub(crate) fn takes_no_more(&self) -> bool {
        self.inner.broken.load(Ordering::Acquire)
    }

    /// Reads every page of the file and compares its structure, which takes about a second per 200 MB. Empty if all
    /// is well, else what SQLite found.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub async fn check(&self) -> Result<Vec<String>, JournalError> {
        self.read("check the store", |conn| {
            open::quick_check(conn, None).map_err(Failure::from)
        })
        .await
    }

    /// Runs work as one durable transaction on the writer.
    pub(crate) async fn write<R, E, F>(&self, op: &'static str, work: F) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<Failed>,
        F: FnOnce(&Transaction<'_>) -> Result<R, Failure> + Send + 'static,
    {
        let Some(writer) = &self.inner.writer else {
            return Err(self.refused(op, "it was opened to read only").into());
        };
        if self.inner.broken.load(Ordering::Acquire) {
            return Err(self
                .refused(op, "an earlier write failed; open the store again")
                .into());
        }
        let inner = Arc::clone(&self.inner);
        let done = writer
            .call(move |conn| {
                let result = in_transaction(conn, inner.epoch, work);
                if let Err(failure) = &result
                    && failure.breaks_the_store()
                {
                    inner.broken.store(true, Ordering::Release);
                }
                result
            })
            .await;
        done.map_err(|error| self.failed(op, error).into())
    }

    /// Runs work on the reader, which sees one state of the store throughout.
    pub(crate) async fn read<R, E, F>(&self, op: &'static str, work: F) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<Failed>,
        F: FnOnce(&Transaction<'_>) -> Result<R, Failure> + Send + 'static,
    {
        let done = self
            .inner
            .reader
            .call(move |conn| {
                let transaction = conn.transaction()?;
                work(&transaction)
            })
            .await;
        done.map_err(|error| self.failed(op, error).into())
    }

    fn refused(&self, op: &'static str, why: &str) -> Failed {
        let message = format!("failed to {op} in {}: {why}", self.inner.path.display());
        Failed::Store(message, None)
    }

    fn failed(&self, op: &'static str, error: tokio_rusqlite::Error<Failure>) -> Failed {
        match error {
            tokio_rusqlite::Error::Error(Failure::Refused(error)) => Failed::Journal(error),
            tokio_rusqlite::Error::Error(Failure::RolloutRefused(error)) => Failed::Rollout(error),
            tokio_rusqlite::Error::Error(Failure::Unfit(what) | Failure::Overtaken(what)) => {
                self.refused(op, &what)
            }
            tokio_rusqlite::Error::Error(Failure::Sqlite(source)) => {
                let (path, why) = (self.inner.path.display(), open::meaning(&source));
                Failed::Store(format!("failed to {op} in {path}: {why}"), Some(source))
            }
            _ => self.refused(op, "the store is closed"),
        }
    }
}

fn in_transaction<R>(
    conn: &mut rusqlite::Connection,
    epoch: Option<i64>,
    work: impl FnOnce(&Transaction<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    // Immediate: the lock is taken before anything is read, so that what is compared is still so when it is written.
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(ours) = epoch {
        check_lease(&transaction, ours)?;
    }
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

fn check_lease(transaction: &Transaction<'_>, ours: i64) -> Result<(), Failure> {
    let newest: Option<(i64, String)> = transaction
        .prepare_cached("SELECT epoch, holder FROM lease")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match newest {
        Some((epoch, _)) if epoch == ours => Ok(()),
        Some((epoch, holder)) => Err(Failure::Overtaken(format!(
            "expected to hold the lease with epoch {ours}, found epoch {epoch} held by {holder}: another fleet took \
             over, this one must stop"
        ))),
        None => Err(Failure::Overtaken(format!(
            "expected to hold the lease with epoch {ours}, found none: the file was replaced"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::ports::{EventFilter, EventStore};
    use fleet_core::testing::conformance::fixtures::event;

    async fn limit_pages(store: &SqliteStore, pages: i64) {
        let writer = store.inner.writer.as_ref().unwrap();
        writer
            .call(move |conn| conn.pragma_update(None, "max_page_count", pages))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_fails_a_write_whole_and_not_the_ones_after_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("fleet.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        limit_pages(&store, 1).await;
        let mut written = 0;
        let error = loop {
            match store.record(vec![event(1); 50]).await {
                Ok(()) => written += 50,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("no space is left"), "{error}");
        limit_pages(&store, 1_000_000).await;
        store.record(vec![event(2)]).await.unwrap();
        let kept = store.page(0, 100_000, &EventFilter::default()).await;
        assert_eq!(kept.unwrap().len(), written + 1);
    }

    #[tokio::test]
    async fn a_closed_store_says_so() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("fleet.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        let other = store.clone();
        store.close().await.unwrap();
        let error = other.record(vec![event(1)]).await.unwrap_err();
        assert!(error.to_string().contains("the store is closed"), "{error}");
    }
}
