//! `fleet snapshot`: copies of volumes, by hand.

use axum::Router;
use fleet_core::engine::FleetError;
use fleet_core::ids::{InstanceName, SnapshotId};
use fleet_core::model::{Consistency, SnapshotInfo};
use fleet_core::ports::SnapshotStore;
use serde::{Deserialize, Serialize};

use super::recover;
use crate::answer::{Answer, Shown};
use crate::assemble::Context;
use crate::call::{Call, Route, Span, Workshop};
use crate::cli::SnapshotCommand;
use crate::daemon::{Served, at};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::{Table, bytes, confirm};

/// A snapshot in JSON.
#[derive(Debug, Serialize)]
struct SnapshotRow {
    id: String,
    instance: String,
    update: Option<String>,
    created_at: String,
    consistency: Consistency,
    volumes: Vec<VolumeRow>,
    verified: bool,
}

#[derive(Debug, Serialize)]
struct VolumeRow {
    name: String,
    bytes: u64,
    archive_bytes: u64,
    entries: u64,
}

impl From<&SnapshotInfo> for SnapshotRow {
    fn from(info: &SnapshotInfo) -> Self {
        let volume = |volume: &fleet_core::model::SnapshotVolume| VolumeRow {
            name: volume.name.to_string(),
            bytes: volume.bytes,
            archive_bytes: volume.archive_bytes,
            entries: volume.entries,
        };
        Self {
            id: info.id.to_string(),
            instance: info.instance.to_string(),
            update: info.update.map(|update| update.to_string()),
            created_at: info.created_at.to_string(),
            consistency: info.consistency,
            volumes: info.volumes.iter().map(volume).collect(),
            verified: info.verified,
        }
    }
}

/// Snapshots, of one instance or all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    #[serde(default)]
    instance: Option<InstanceName>,
}

/// Copies the volumes of an instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    instance: InstanceName,
}

/// Reads a snapshot whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    id: SnapshotId,
}

/// Puts volumes back to a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restore {
    id: SnapshotId,
}

/// Removes a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delete {
    id: SnapshotId,
}

/// Removes old ones.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prune {
    /// None: whatever their age.
    older_than: Option<Span>,
    /// Newest ones of each instance that stay.
    keep: Option<u32>,
}

impl Call for List {
    const ROUTE: Route = Route::get("/api/v1/snapshots");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let store = &workshop.fleet.ports().update.snapshots;
        list(store.as_ref(), self.instance.as_ref()).await
    }
}

impl Call for Create {
    const ROUTE: Route = Route::post("/api/v1/snapshots");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let Self { instance } = self;
        recover::first(workshop).await?;
        let sink = workshop.voice.sink(instance.as_str());
        let made = workshop
            .fleet
            .snapshot_create(instance.as_str(), &workshop.actor, sink.as_ref())
            .await?;
        drop(sink);
        let message = format!("{} of {instance}, {}", made.id, bytes(made.archive_bytes()));
        Answer::one("snapshot", &SnapshotRow::from(&made), message)
    }
}

impl Call for Verify {
    const ROUTE: Route = Route::post("/api/v1/snapshots/{id}/verify");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        verify(workshop.fleet.ports().update.snapshots.as_ref(), &self.id).await
    }
}

impl Call for Restore {
    const ROUTE: Route = Route::post("/api/v1/snapshots/{id}/restore");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let Self { id } = self;
        recover::first(workshop).await?;
        let sink = workshop.voice.sink("restore");
        let (restored, safety) = workshop
            .fleet
            .snapshot_restore(&id, &workshop.actor, sink.as_ref())
            .await?;
        drop(sink);
        let report = serde_json::json!({
            "snapshot": SnapshotRow::from(&restored),
            "safety_snapshot": SnapshotRow::from(&safety),
        });
        let text = format!(
            "{} is back to {id}; what was there before is in {}",
            restored.instance, safety.id
        );
        Answer::one("restored", &report, text)
    }
}

impl Call for Delete {
    const ROUTE: Route = Route::delete("/api/v1/snapshots/{id}");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let Self { id } = self;
        recover::first(workshop).await?;
        workshop.fleet.snapshot_delete(&id, &workshop.actor).await?;
        let removed = serde_json::json!({ "id": id });
        Answer::one("removed", &removed, format!("{id} removed"))
    }
}

impl Call for Prune {
    const ROUTE: Route = Route::post("/api/v1/snapshots/prune");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        recover::first(workshop).await?;
        if self.older_than.is_none() && self.keep.is_none() {
            // The command line asks for one of both; whoever asks by HTTP is told here.
            let message = "expected older_than, keep or both, found neither".to_owned();
            return Err(Failure::new(Exit::Usage, message));
        }
        let age = self.older_than.map(|Span(age)| age).unwrap_or_default();
        let keep = self.keep.unwrap_or_default() as usize;
        let removed = workshop
            .fleet
            .snapshot_prune(age, keep, &workshop.actor)
            .await?;
        answer(&removed)
    }
}

/// Adds the routes of snapshots.
pub(crate) fn calls(router: Router<Served>) -> Router<Served> {
    let router = at::<List>(router);
    let router = at::<Create>(router);
    let router = at::<Verify>(router);
    let router = at::<Restore>(router);
    let router = at::<Delete>(router);
    at::<Prune>(router)
}

/// Runs the command.
pub(crate) async fn run(context: &Context, command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::List { instance } => {
            let answer = list(&context.snapshot_store()?, instance.as_ref()).await?;
            context.out.answer(answer)
        }
        SnapshotCommand::Verify { id } => {
            let answer = verify(&context.snapshot_store()?, &id).await?;
            context.out.answer(answer)
        }
        SnapshotCommand::Create { instance } => context.carry_out(Create { instance }).await,
        SnapshotCommand::Restore { id, yes } => {
            let info = known(context.snapshot_store()?.get(&id).await?, &id)?;
            let question = format!(
                "Put the volumes of {} back to {}? What was written since then is lost (a snapshot of it is taken \
                 first).",
                info.instance, info.created_at
            );
            confirm(yes, &question)?;
            context.carry_out(Restore { id }).await
        }
        SnapshotCommand::Delete { id, yes } => {
            confirm(yes, &format!("Remove snapshot {id}?"))?;
            context.carry_out(Delete { id }).await
        }
        SnapshotCommand::Prune {
            older_than,
            keep,
            yes,
        } => {
            confirm(
                yes,
                "Remove old snapshots? The newest one of each instance stays.",
            )?;
            let older_than = older_than.map(Span);
            context.carry_out(Prune { older_than, keep }).await
        }
    }
}

async fn list(store: &dyn SnapshotStore, instance: Option<&InstanceName>) -> Outcome<Answer> {
    let all = store.list(None).await?;
    let ours = |info: &SnapshotInfo| instance.is_none_or(|name| info.instance.name == *name);
    answer(&all.into_iter().filter(ours).collect::<Vec<_>>())
}

async fn verify(store: &dyn SnapshotStore, id: &SnapshotId) -> Outcome<Answer> {
    known(store.get(id).await?, id)?;
    let info = store.verify(id).await.or_exit(
        Exit::Failed,
        format!("snapshot {id} is damaged or cannot be read"),
    )?;
    let message = format!("{id}: every hash is right, {}", bytes(info.archive_bytes()));
    Answer::one("snapshot", &SnapshotRow::from(&info), message)
}

fn known(info: Option<SnapshotInfo>, id: &SnapshotId) -> Outcome<SnapshotInfo> {
    Ok(info.ok_or(FleetError::UnknownSnapshot(*id))?)
}

fn answer(infos: &[SnapshotInfo]) -> Outcome<Answer> {
    let rows: Vec<_> = infos.iter().map(SnapshotRow::from).collect();
    let head = [
        "id", "instance", "created", "data", "volumes", "size", "archive", "verified",
    ];
    let mut table = Table::new(&head, "no snapshots");
    for (row, info) in rows.iter().zip(infos) {
        let names: Vec<_> = row
            .volumes
            .iter()
            .map(|volume| volume.name.as_str())
            .collect();
        table.row(vec![
            row.id.clone(),
            row.instance.clone(),
            row.created_at.clone(),
            format!("{:?}", row.consistency).to_lowercase(),
            names.join(", "),
            bytes(row.volumes.iter().map(|volume| volume.bytes).sum()),
            bytes(info.archive_bytes()),
            if row.verified { "yes" } else { "no" }.to_owned(),
        ]);
    }
    Answer::list("snapshots", &rows, Shown::Table(table))
}
