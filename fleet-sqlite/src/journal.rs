//! The intent log.
//!
//! An append touches the step log alone unless it carries more; the compare-and-swap reads the highest number of the
//! update's rows, so that nothing else has to be kept in step with them.

use async_trait::async_trait;
use fleet_core::ids::{InstanceId, UpdateId};
use fleet_core::image::Digest;
use fleet_core::ports::{
    Deployed, Journal, JournalError, JournalWrite, NewUpdate, Quarantined, StoredUpdate,
};
use fleet_core::record::NewEvent;
use fleet_core::update::{Entry, UpdatePlan};
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::events;
use crate::rows::{self, StepRow, stamp};
use crate::store::{Failure, SqliteStore};

#[async_trait]
impl Journal for SqliteStore {
    async fn open(&self, update: &NewUpdate, events: Vec<NewEvent>) -> Result<(), JournalError> {
        let update = update.clone();
        self.write("begin an update", move |tx| {
            begin(tx, &update)?;
            events::insert(tx, &events)
        })
        .await
    }

    async fn append(&self, update: &UpdateId, write: JournalWrite) -> Result<(), JournalError> {
        let update = *update;
        self.write("append to the journal", move |tx| {
            append(tx, &update, &write)
        })
        .await
    }

    async fn load_open(&self) -> Result<Vec<StoredUpdate>, JournalError> {
        self.read("load the open updates", |tx| {
            let sql = "SELECT * FROM updates JOIN update_plans ON update_seq = seq
                       WHERE closed = 0 ORDER BY seq";
            load_where(tx, sql, ())
        })
        .await
    }

    async fn load(&self, update: &UpdateId) -> Result<Option<StoredUpdate>, JournalError> {
        let id = update.to_string();
        self.read("load an update", move |tx| {
            let sql = "SELECT * FROM updates JOIN update_plans ON update_seq = seq WHERE id = ?1";
            Ok(load_where(tx, sql, [id])?.pop())
        })
        .await
    }

    async fn history(
        &self,
        instance: &InstanceId,
        limit: u32,
    ) -> Result<Vec<StoredUpdate>, JournalError> {
        let instance = instance.clone();
        self.read("load the history of an instance", move |tx| {
            let sql = "SELECT * FROM updates JOIN update_plans ON update_seq = seq
                       WHERE seq IN (SELECT update_seq FROM update_members
                                     WHERE host = ?1 AND name = ?2
                                     ORDER BY update_seq DESC LIMIT ?3)
                       ORDER BY seq DESC";
            let key = (instance.host.as_str(), instance.name.as_str(), limit);
            load_where(tx, sql, key)
        })
        .await
    }

    async fn quarantined(&self, instance: &InstanceId) -> Result<Vec<Quarantined>, JournalError> {
        let instance = instance.clone();
        self.read("read the quarantine", move |tx| {
            collect(
                tx,
                "SELECT * FROM quarantine WHERE host = ?1 AND name = ?2 ORDER BY at, digest",
                (instance.host.as_str(), instance.name.as_str()),
                quarantined,
            )
        })
        .await
    }

    async fn lift_quarantine(
        &self,
        instance: &InstanceId,
        digest: &Digest,
    ) -> Result<(), JournalError> {
        let (instance, digest) = (instance.clone(), digest.clone());
        self.write("lift a quarantine", move |tx| {
            tx.prepare_cached(
                "DELETE FROM quarantine WHERE host = ?1 AND name = ?2 AND digest = ?3",
            )?
            .execute((
                instance.host.as_str(),
                instance.name.as_str(),
                digest.as_str(),
            ))?;
            Ok(())
        })
        .await
    }

    async fn deployed(&self) -> Result<Vec<Deployed>, JournalError> {
        self.read("read what is deployed", |tx| {
            collect(
                tx,
                "SELECT * FROM deployed ORDER BY host, name",
                (),
                deployed,
            )
        })
        .await
    }

    fn is_broken(&self) -> bool {
        self.takes_no_more()
    }
}

/// Runs a query and converts every row.
pub(crate) fn collect<T>(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
    convert: impl Fn(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(convert(row)?);
    }
    Ok(found)
}

fn begin(tx: &Transaction<'_>, update: &NewUpdate) -> Result<(), Failure> {
    let plan = &update.plan;
    if plan.members.is_empty() {
        return Err(Failure::Unfit(format!("update {} has no member", plan.id)));
    }
    for member in &plan.members {
        if let Some(update) = live(tx, &member.instance)? {
            return Err(Failure::Refused(JournalError::LiveUpdate {
                instance: member.instance.clone(),
                update,
            }));
        }
    }
    let inserted = tx
        .prepare_cached(
            "INSERT INTO updates (id, created_at, boot_id) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
        )?
        .execute((plan.id.to_string(), stamp(update.at), &update.boot_id))?;
    if inserted == 0 {
        return Err(Failure::Unfit(format!("update {} exists already", plan.id)));
    }
    let seq = tx.last_insert_rowid();
    let json = serde_json::to_string(plan).map_err(Failure::unwritable)?;
    tx.prepare_cached("INSERT INTO update_plans (update_seq, saga, plan) VALUES (?1, ?2, ?3)")?
        .execute((seq, plan.saga, json))?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO update_members (update_seq, member, host, name, live) VALUES (?1, ?2, ?3, ?4, 1)",
    )?;
    for (number, member) in (0_i64..).zip(&plan.members) {
        let InstanceId { host, name } = &member.instance;
        insert.execute((seq, number, host.as_str(), name.as_str()))?;
    }
    Ok(())
}

fn live(tx: &Transaction<'_>, instance: &InstanceId) -> Result<Option<UpdateId>, Failure> {
    let mut statement = tx.prepare_cached(
        "SELECT id FROM update_members JOIN updates ON seq = update_seq
         WHERE host = ?1 AND name = ?2 AND live = 1",
    )?;
    let mut rows = statement.query((instance.host.as_str(), instance.name.as_str()))?;
    rows.next()?.map(|row| rows::parsed(row, "id")).transpose()
}

fn append(tx: &Transaction<'_>, update: &UpdateId, write: &JournalWrite) -> Result<(), Failure> {
    let seq = compare(tx, update, write.expected_rows)?;
    insert_entries(tx, seq, write)?;
    if write.outcome.is_some() || write.volumes_dirty || write.close {
        tx.prepare_cached(
            "UPDATE updates SET outcome = COALESCE(?2, outcome), volumes_dirty = volumes_dirty | ?3,
                                closed = closed | ?4
             WHERE seq = ?1",
        )?
        .execute((
            seq,
            write.outcome.map(rows::outcome_name),
            write.volumes_dirty,
            write.close,
        ))?;
    }
    if write.close {
        tx.prepare_cached("UPDATE update_members SET live = 0 WHERE update_seq = ?1")?
            .execute([seq])?;
    }
    events::insert(tx, &write.events)?;
    for row in &write.quarantine {
        insert_quarantined(tx, row)?;
    }
    for row in &write.deployed {
        insert_deployed(tx, row)?;
    }
    Ok(())
}

/// The update's own number, if it is open and has exactly the rows that the writer knows of.
fn compare(tx: &Transaction<'_>, update: &UpdateId, expected: u32) -> Result<i64, Failure> {
    let found: Option<(i64, bool)> = tx
        .prepare_cached("SELECT seq, closed FROM updates WHERE id = ?1")?
        .query_row([update.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (seq, closed) = found.ok_or(JournalError::NoSuchUpdate(*update))?;
    let found: u32 = tx
        .prepare_cached("SELECT COALESCE(MAX(seq) + 1, 0) FROM update_steps WHERE update_seq = ?1")?
        .query_row([seq], |row| row.get(0))?;
    if found != expected {
        return Err(Failure::Refused(JournalError::Overtaken {
            update: *update,
            expected,
            found,
        }));
    }
    if closed {
        return Err(Failure::Refused(JournalError::Closed(*update)));
    }
    Ok(seq)
}

fn insert_entries(tx: &Transaction<'_>, update: i64, write: &JournalWrite) -> Result<(), Failure> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO update_steps (update_seq, seq, at, member, phase, step, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (seq, entry) in (i64::from(write.expected_rows)..).zip(&write.entries) {
        let row = StepRow::of(entry)?;
        insert.execute((
            update,
            seq,
            row.at,
            row.member,
            row.phase,
            row.step,
            row.payload,
        ))?;
    }
    Ok(())
}

fn load_where(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<StoredUpdate>, Failure> {
    let updates = collect(tx, sql, params, |row| {
        Ok((row.get::<_, i64>("seq")?, header(row)?))
    })?;
    updates
        .into_iter()
        .map(|(seq, mut update)| {
            update.entries = entries(tx, seq, &update.plan.id)?;
            Ok(update)
        })
        .collect()
}

/// An update without its entries.
fn header(row: &Row<'_>) -> Result<StoredUpdate, Failure> {
    let plan: String = row.get("plan")?;
    let plan: UpdatePlan =
        serde_json::from_str(&plan).map_err(|error| Failure::row("plan", error))?;
    let id: UpdateId = rows::parsed(row, "id")?;
    if plan.id != id || plan.members.is_empty() {
        return Err(Failure::row(
            "plan",
            format!("expected the plan of {id}, found {}", plan.id),
        ));
    }
    let outcome: Option<String> = row.get("outcome")?;
    let outcome = outcome
        .map(|name| {
            rows::outcome_of(&name).ok_or_else(|| {
                Failure::row("outcome", format!("expected an outcome, found {name:?}"))
            })
        })
        .transpose()?;
    Ok(StoredUpdate {
        plan,
        created_at: rows::parsed(row, "created_at")?,
        boot_id: row.get("boot_id")?,
        entries: Vec::new(),
        outcome,
        volumes_dirty: row.get("volumes_dirty")?,
        closed: row.get("closed")?,
    })
}

fn entries(tx: &Transaction<'_>, seq: i64, update: &UpdateId) -> Result<Vec<Entry>, Failure> {
    let rows = collect(
        tx,
        "SELECT * FROM update_steps WHERE update_seq = ?1 ORDER BY seq",
        [seq],
        |row| Ok((row.get::<_, i64>("seq")?, rows::entry(row)?)),
    )?;
    (0_i64..)
        .zip(rows)
        .map(|(expected, (found, entry))| {
            if expected == found {
                Ok(entry)
            } else {
                Err(Failure::Unfit(format!(
                    "expected row {expected} of update {update}, found row {found}: a row is missing"
                )))
            }
        })
        .collect()
}

fn insert_quarantined(tx: &Transaction<'_>, row: &Quarantined) -> Result<(), Failure> {
    tx.prepare_cached(
        "INSERT INTO quarantine (host, name, digest, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET reason = excluded.reason, at = excluded.at",
    )?
    .execute((
        row.instance.host.as_str(),
        row.instance.name.as_str(),
        row.digest.as_str(),
        &row.reason,
        stamp(row.at),
    ))?;
    Ok(())
}

fn quarantined(row: &Row<'_>) -> Result<Quarantined, Failure> {
    Ok(Quarantined {
        instance: rows::instance(row)?,
        digest: rows::parsed(row, "digest")?,
        reason: row.get("reason")?,
        at: rows::parsed(row, "at")?,
    })
}

fn insert_deployed(tx: &Transaction<'_>, row: &Deployed) -> Result<(), Failure> {
    tx.prepare_cached(
        "INSERT INTO deployed (host, name, image, digest, image_id, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET image = excluded.image, digest = excluded.digest,
                                   image_id = excluded.image_id, at = excluded.at",
    )?
    .execute((
        row.instance.host.as_str(),
        row.instance.name.as_str(),
        row.image.to_string(),
        row.digest.as_str(),
        row.image_id.as_str(),
        stamp(row.at),
    ))?;
    Ok(())
}

fn deployed(row: &Row<'_>) -> Result<Deployed, Failure> {
    Ok(Deployed {
        instance: rows::instance(row)?,
        image: rows::parsed(row, "image")?,
        digest: rows::parsed(row, "digest")?,
        image_id: rows::parsed(row, "image_id")?,
        at: rows::parsed(row, "at")?,
    })
}
