//! What the last look at the registries found.

use async_trait::async_trait;
use fleet_core::ids::ImageId;
use fleet_core::ports::{Availability, AvailabilityStore, JournalError, Lag};
use fleet_core::time::Timestamp;
use rusqlite::{Row, Transaction};

use crate::journal::collect;
use crate::rows::{self, stamp};
use crate::store::{Failure, SqliteStore};

#[async_trait]
impl AvailabilityStore for SqliteStore {
    async fn found(&self, findings: Vec<Availability>) -> Result<(), JournalError> {
        self.write("store what is available", move |tx| {
            findings.iter().try_for_each(|finding| replace(tx, finding))
        })
        .await
    }

    async fn available(&self) -> Result<Vec<Availability>, JournalError> {
        self.read("read what is available", |tx| {
            collect(
                tx,
                "SELECT * FROM availability ORDER BY host, name",
                (),
                availability,
            )
        })
        .await
    }
}

fn replace(tx: &Transaction<'_>, finding: &Availability) -> Result<(), Failure> {
    // The digest seen last and its first sight stay through looks that say nothing, else a registry that is away for
    // a moment would make an old image young again.
    tx.prepare_cached(
        "INSERT INTO availability (host, name, image, digest, behind, note, seen_digest, first_seen, checked_at,
                                   lag_runs, lag_since, lag_told)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?4, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT DO UPDATE SET
             image = excluded.image, digest = excluded.digest, behind = excluded.behind, note = excluded.note,
             checked_at = excluded.checked_at,
             lag_runs = excluded.lag_runs, lag_since = excluded.lag_since, lag_told = excluded.lag_told,
             seen_digest = COALESCE(excluded.digest, seen_digest),
             first_seen = CASE WHEN excluded.digest IS NULL OR excluded.digest IS seen_digest
                               THEN first_seen ELSE excluded.first_seen END",
    )?
    .execute((
        finding.instance.host.as_str(),
        finding.instance.name.as_str(),
        finding.image.to_string(),
        finding.digest.as_ref().map(|digest| digest.as_str()),
        finding.behind,
        &finding.note,
        stamp(finding.first_seen),
        stamp(finding.checked_at),
        finding.lag.as_ref().map(|lag| lag.runs.as_str()),
        finding.lag.as_ref().map(|lag| stamp(lag.since)),
        finding.lag.as_ref().map(|lag| lag.told),
    ))?;
    Ok(())
}

fn availability(row: &Row<'_>) -> Result<Availability, Failure> {
    Ok(Availability {
        instance: rows::instance(row)?,
        image: rows::parsed(row, "image")?,
        digest: rows::parsed_opt(row, "digest")?,
        behind: row.get("behind")?,
        note: row.get("note")?,
        first_seen: rows::parsed(row, "first_seen")?,
        checked_at: rows::parsed(row, "checked_at")?,
        lag: lag(row)?,
    })
}

fn lag(row: &Row<'_>) -> Result<Option<Lag>, Failure> {
    let runs: Option<ImageId> = rows::parsed_opt(row, "lag_runs")?;
    let since: Option<Timestamp> = rows::parsed_opt(row, "lag_since")?;
    let told: Option<bool> = row.get("lag_told")?;
    let known = runs.zip(since).zip(told);
    Ok(known.map(|((runs, since), told)| Lag { runs, since, told }))
}
