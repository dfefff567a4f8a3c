//! The event log: append-only, ordered by number.

use async_trait::async_trait;
use fleet_core::ids::HostId;
use fleet_core::ports::{EventFilter, EventStore, JournalError};
use fleet_core::record::{Event, NewEvent};
use fleet_core::time::Timestamp;
use rusqlite::Transaction;
use rusqlite::types::Value;

use crate::journal::collect;
use crate::rows::{self, stamp};
use crate::store::{Failure, SqliteStore};

#[async_trait]
impl EventStore for SqliteStore {
    async fn record(&self, events: Vec<NewEvent>) -> Result<(), JournalError> {
        self.write("record events", move |tx| insert(tx, &events))
            .await
    }

    async fn page(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, JournalError> {
        let Ok(after) = i64::try_from(after) else {
            return Ok(Vec::new());
        };
        let (sql, params) = query(after, limit, filter);
        self.read("read events", move |tx| {
            collect(tx, &sql, rusqlite::params_from_iter(params), rows::event)
        })
        .await
    }
}

/// Events that one call of [`SqliteStore::drop_events`] looks at: enough to keep up, few enough that no update waits
/// for it.
const DROP_MAX: u32 = 10_000;

impl SqliteStore {
    /// Drops the oldest events, up to the first one at or after `before`, and never the newest `keep`. Looks at 10,000
    /// at most: call it again until it answers 0. Returns how many were dropped. Their numbers are not used again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drop_events(&self, before: Timestamp, keep: u32) -> Result<u64, JournalError> {
        self.write("drop old events", move |tx| {
            let dropped = tx
                .prepare_cached(
                    "WITH oldest AS (SELECT seq, at FROM events ORDER BY seq LIMIT ?3)
                     DELETE FROM events WHERE seq < MIN(
                         (SELECT COALESCE(MIN(seq) FILTER (WHERE at >= ?1), MAX(seq) + 1) FROM oldest),
                         (SELECT MAX(seq) + 1 - ?2 FROM events))",
                )?
                .execute((stamp(before), keep, DROP_MAX))?;
            u64::try_from(dropped).map_err(Failure::unwritable)
        })
        .await
    }
}

/// Writes events within a transaction that somebody else began.
pub(crate) fn insert(tx: &Transaction<'_>, events: &[NewEvent]) -> Result<(), Failure> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO events (at, kind, actor, tenant, host, name, rollout, update_id, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for event in events {
        insert.execute((
            stamp(event.at),
            event.kind.label(),
            &event.actor,
            event.tenant.as_ref().map(|tenant| tenant.as_str()),
            event
                .instance
                .as_ref()
                .map(|instance| instance.host.as_str()),
            event
                .instance
                .as_ref()
                .map(|instance| instance.name.as_str()),
            event.rollout.map(String::from),
            event.update.map(String::from),
            rows::json(&event.data),
        ))?;
    }
    Ok(())
}

/// Only the conditions that are asked for, so that each has its index.
fn query(after: i64, limit: u32, filter: &EventFilter) -> (String, Vec<Value>) {
    let mut sql = "SELECT * FROM events WHERE seq > ?".to_owned();
    let mut params = vec![Value::from(after)];
    if let Some(tenant) = &filter.tenant {
        sql.push_str(" AND tenant = ?");
        params.push(tenant.clone().into());
    }
    if let Some(instance) = &filter.instance {
        let local = HostId::local();
        let (host, name) = instance
            .split_once('/')
            .unwrap_or((local.as_str(), instance));
        sql.push_str(" AND name = ? AND host = ?");
        params.push(name.to_owned().into());
        params.push(host.to_owned().into());
    }
    if let Some(since) = filter.since {
        sql.push_str(" AND at >= ?");
        params.push(stamp(since).into());
    }
    if !filter.kinds.is_empty() {
        let places = vec!["?"; filter.kinds.len()].join(", ");
        sql.push_str(&format!(" AND kind IN ({places})"));
        params.extend(
            filter
                .kinds
                .iter()
                .map(|kind| kind.label().to_owned().into()),
        );
    }
    sql.push_str(" ORDER BY seq LIMIT ?");
    params.push(Value::from(i64::from(limit)));
    (sql, params)
}
