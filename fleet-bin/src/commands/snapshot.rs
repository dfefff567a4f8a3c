//! `fleet snapshot`: copies of volumes, by hand.

use fleet_core::ids::SnapshotId;
use fleet_core::model::{Consistency, SnapshotInfo};
use fleet_core::ports::SnapshotStore as _;
use serde::Serialize;

use super::recover;
use crate::assemble::Context;
use crate::cli::SnapshotCommand;
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

/// Runs the command.
pub(crate) async fn run(context: &Context, command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::List { instance } => {
            let all = context.snapshot_store()?.list(None).await?;
            let wanted = instance.map(|name| name.to_string());
            let ours = |info: &SnapshotInfo| {
                wanted
                    .as_ref()
                    .is_none_or(|name| info.instance.to_string() == *name)
            };
            print_list(context, &all.into_iter().filter(ours).collect::<Vec<_>>())?;
        }
        SnapshotCommand::Verify { id } => {
            let store = context.snapshot_store()?;
            known(store.get(&id).await?, &id)?;
            let info = store.verify(&id).await.or_exit(
                Exit::Failed,
                format!("snapshot {id} is damaged or cannot be read"),
            )?;
            let message = format!("{id}: every hash is right, {}", bytes(info.archive_bytes()));
            context
                .out
                .one("snapshot", &SnapshotRow::from(&info), || message)?;
        }
        SnapshotCommand::Create { instance } => {
            let working = context.working().await?;
            recover::first(context, &working.fleet).await?;
            let sink = context.ui.sink(instance.as_str());
            let made = working
                .fleet
                .snapshot_create(instance.as_str(), &context.actor(), &sink)
                .await?;
            drop(sink);
            let message = format!("{} of {instance}, {}", made.id, bytes(made.archive_bytes()));
            context
                .out
                .one("snapshot", &SnapshotRow::from(&made), || message)?;
        }
        SnapshotCommand::Restore { id, yes } => restore(context, &id, yes).await?,
        SnapshotCommand::Delete { id, yes } => {
            let working = context.working().await?;
            recover::first(context, &working.fleet).await?;
            confirm(yes, &format!("Remove snapshot {id}?"))?;
            working.fleet.snapshot_delete(&id, &context.actor()).await?;
            let removed = serde_json::json!({ "id": id });
            context
                .out
                .one("removed", &removed, || format!("{id} removed"))?;
        }
        SnapshotCommand::Prune { older_than, yes } => {
            let working = context.working().await?;
            recover::first(context, &working.fleet).await?;
            confirm(
                yes,
                "Remove old snapshots? The newest one of each instance stays.",
            )?;
            let removed = working
                .fleet
                .snapshot_prune(older_than, &context.actor())
                .await?;
            print_list(context, &removed)?;
        }
    }
    Ok(Exit::Done)
}

async fn restore(context: &Context, id: &SnapshotId, yes: bool) -> Outcome<()> {
    let working = context.working().await?;
    recover::first(context, &working.fleet).await?;
    let snapshots = &working.fleet.ports().update.snapshots;
    let info = known(snapshots.get(id).await?, id)?;
    let question = format!(
        "Put the volumes of {} back to {}? What was written since then is lost (a snapshot of it is taken first).",
        info.instance, info.created_at
    );
    confirm(yes, &question)?;
    let sink = context.ui.sink(&info.instance.to_string());
    let (restored, safety) = working
        .fleet
        .snapshot_restore(id, &context.actor(), &sink)
        .await?;
    drop(sink);
    let report = serde_json::json!({
        "snapshot": SnapshotRow::from(&restored),
        "safety_snapshot": SnapshotRow::from(&safety),
    });
    context.out.one("restored", &report, || {
        format!(
            "{} is back to {id}; what was there before is in {}",
            restored.instance, safety.id
        )
    })
}

fn known(info: Option<SnapshotInfo>, id: &SnapshotId) -> Outcome<SnapshotInfo> {
    info.ok_or_else(|| {
        let message = format!("there is no snapshot {id}; fleet snapshot list shows what there is");
        Failure::new(Exit::Failed, message)
    })
}

fn print_list(context: &Context, infos: &[SnapshotInfo]) -> Outcome<()> {
    let rows: Vec<_> = infos.iter().map(SnapshotRow::from).collect();
    context.out.list("snapshots", &rows, || {
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
        table
    })
}
