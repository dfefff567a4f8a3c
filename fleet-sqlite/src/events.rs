//! The event log: append-only, ordered by number.

use async_trait::async_trait;
use fleet_core::ids::HostId;
use fleet_core::ports::{EventFilter, EventStore, JournalError};
use fleet_core::record::{Event, NewEvent};
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
    sql.push_str(" ORDER BY seq LIMIT ?");
    params.push(Value::from(i64::from(limit)));
    (sql, params)
}
