//! Rollouts: an immutable plan, a state, and a row for each member.

use async_trait::async_trait;
use fleet_core::ids::RolloutId;
use fleet_core::image::ImageRef;
use fleet_core::plan::RolloutPlan;
use fleet_core::plan::rollout::{MemberState, RolloutState};
use fleet_core::ports::{RolloutStore, RolloutStoreError, StoredRollout};
use fleet_core::record::NewEvent;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::events;
use crate::journal::collect;
use crate::store::{Failure, SqliteStore};

#[async_trait]
impl RolloutStore for SqliteStore {
    async fn create(
        &self,
        plan: &RolloutPlan,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<(), RolloutStoreError> {
        let (plan, state) = (plan.clone(), state.clone());
        self.write("keep a rollout", move |tx| {
            create(tx, &plan, state)?;
            events::insert(tx, &events)
        })
        .await
    }

    async fn load(&self, id: &RolloutId) -> Result<Option<StoredRollout>, RolloutStoreError> {
        let id = id.to_string();
        self.read("load a rollout", move |tx| {
            let sql =
                "SELECT * FROM rollouts JOIN rollout_plans ON rollout_seq = seq WHERE id = ?1";
            Ok(load_where(tx, sql, [id])?.pop())
        })
        .await
    }

    async fn active(&self) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        self.read("load the active rollouts", |tx| {
            let sql = "SELECT * FROM rollouts JOIN rollout_plans ON rollout_seq = seq
                       WHERE terminal = 0 ORDER BY seq";
            load_where(tx, sql, ())
        })
        .await
    }

    async fn list(&self, limit: u32) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        self.read("list the rollouts", move |tx| {
            let sql = "SELECT * FROM rollouts JOIN rollout_plans ON rollout_seq = seq
                       ORDER BY seq DESC LIMIT ?1";
            load_where(tx, sql, [limit])
        })
        .await
    }

    async fn of_image(
        &self,
        image: &ImageRef,
        limit: u32,
    ) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        let image = image.to_string();
        self.read("list the rollouts of an image", move |tx| {
            let sql = "SELECT * FROM rollouts JOIN rollout_plans ON rollout_seq = seq
                       WHERE image = ?1 ORDER BY seq DESC LIMIT ?2";
            load_where(tx, sql, (image, limit))
        })
        .await
    }

    async fn compare_and_swap(
        &self,
        id: &RolloutId,
        expected: u64,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<u64, RolloutStoreError> {
        let (id, state) = (*id, state.clone());
        self.write("change a rollout", move |tx| {
            let generation = compare_and_swap(tx, id, expected, state)?;
            events::insert(tx, &events)?;
            Ok(generation)
        })
        .await
    }
}

/// A state as it is kept: the members apart from the rest.
struct StateRow {
    terminal: bool,
    rest: String,
    members: Vec<String>,
}

impl StateRow {
    fn of(mut state: RolloutState) -> Result<Self, Failure> {
        let members = std::mem::take(&mut state.members);
        Ok(Self {
            terminal: state.phase.is_terminal(),
            rest: json(&state)?,
            members: members.iter().map(json).collect::<Result<_, _>>()?,
        })
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(Failure::unwritable)
}

fn of_json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Result<T, Failure> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| Failure::row(column, error))
}

fn create(tx: &Transaction<'_>, plan: &RolloutPlan, state: RolloutState) -> Result<(), Failure> {
    let row = StateRow::of(state)?;
    check_members(plan, row.members.len())?;
    let inserted = tx
        .prepare_cached(
            "INSERT INTO rollouts (id, image, generation, terminal, state) VALUES (?1, ?2, 1, ?3, ?4)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute((
            plan.id().to_string(),
            plan.request.target.image.to_string(),
            row.terminal,
            &row.rest,
        ))?;
    if inserted == 0 {
        return Err(RolloutStoreError::Exists(plan.id()).into());
    }
    let seq = tx.last_insert_rowid();
    tx.prepare_cached("INSERT INTO rollout_plans (rollout_seq, plan) VALUES (?1, ?2)")?
        .execute((seq, json(plan)?))?;
    write_members(tx, seq, &row.members)
}

fn check_members(plan: &RolloutPlan, found: usize) -> Result<(), Failure> {
    let expected = plan.members.len();
    if expected == found {
        return Ok(());
    }
    Err(Failure::Unfit(format!(
        "expected the states of {expected} members of rollout {}, found {found}",
        plan.id()
    )))
}

fn compare_and_swap(
    tx: &Transaction<'_>,
    id: RolloutId,
    expected: u64,
    state: RolloutState,
) -> Result<u64, Failure> {
    let (seq, found, members) = tx
        .prepare_cached(
            "SELECT seq, generation, (SELECT COUNT(*) FROM rollout_members WHERE rollout_seq = seq)
             FROM rollouts WHERE id = ?1",
        )?
        .query_row([id.to_string()], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })
        .optional()?
        .ok_or(RolloutStoreError::NoSuchRollout(id))?;
    let found = count(found)?;
    if found != expected {
        return Err(Failure::from(RolloutStoreError::Overtaken {
            rollout: id,
            expected,
            found,
        }));
    }
    let row = StateRow::of(state)?;
    if i64::try_from(row.members.len()) != Ok(members) {
        return Err(Failure::Unfit(format!(
            "expected the states of {members} members of rollout {id}, found {}",
            row.members.len()
        )));
    }
    let generation = found + 1;
    tx.prepare_cached(
        "UPDATE rollouts SET generation = ?2, terminal = ?3, state = ?4 WHERE seq = ?1",
    )?
    .execute((
        seq,
        i64::try_from(generation).map_err(Failure::unwritable)?,
        row.terminal,
        &row.rest,
    ))?;
    write_members(tx, seq, &row.members)?;
    Ok(generation)
}

fn count(generation: i64) -> Result<u64, Failure> {
    u64::try_from(generation).map_err(|error| Failure::row("generation", error))
}

/// Writes the members that are not as they were.
fn write_members(tx: &Transaction<'_>, seq: i64, members: &[String]) -> Result<(), Failure> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO rollout_members (rollout_seq, place, state) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state",
    )?;
    for (place, state) in (0_i64..).zip(members) {
        upsert.execute((seq, place, state))?;
    }
    Ok(())
}

fn load_where(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<StoredRollout>, Failure> {
    let rollouts = collect(tx, sql, params, |row| {
        let rollout = StoredRollout {
            plan: of_json(row, "plan")?,
            state: of_json(row, "state")?,
            generation: count(row.get("generation")?)?,
        };
        Ok((row.get::<_, i64>("seq")?, rollout))
    })?;
    rollouts
        .into_iter()
        .map(|(seq, mut rollout)| {
            rollout.state.members = members(tx, seq)?;
            check_members(&rollout.plan, rollout.state.members.len())?;
            Ok(rollout)
        })
        .collect()
}

fn members(tx: &Transaction<'_>, seq: i64) -> Result<Vec<MemberState>, Failure> {
    let sql = "SELECT state FROM rollout_members WHERE rollout_seq = ?1 ORDER BY place";
    collect(tx, sql, [seq], |row| of_json(row, "state"))
}
