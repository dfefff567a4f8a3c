//! `fleet ps`: every instance with what is known of it.

use fleet_core::engine::InstanceView;
use fleet_core::model::EngineHealth;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Shown};
use crate::assemble::Context;
use crate::call::{Call, Route, Workshop};
use crate::exit::Outcome;
use crate::output::{Table, dash};

/// An instance in JSON.
#[derive(Debug, Serialize)]
pub(super) struct InstanceRow {
    name: String,
    container_id: String,
    tenant: String,
    channel: String,
    image: String,
    digest: String,
    running: bool,
    health: Option<&'static str>,
    state: &'static str,
    behind: Option<bool>,
    available_digest: Option<String>,
    holds: Vec<String>,
}

impl From<&InstanceView> for InstanceRow {
    fn from(view: &InstanceView) -> Self {
        Self {
            name: view.name.clone(),
            container_id: view.container_id.to_string(),
            tenant: view.tenant.to_string(),
            channel: view.channel.to_string(),
            image: view.image.clone(),
            digest: view.digest.clone(),
            running: view.running,
            health: view.health.map(health),
            state: view.state.label(),
            behind: view.behind,
            available_digest: view.available_digest.clone(),
            holds: view.holds.clone(),
        }
    }
}

/// All instances.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {}

/// One instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {
    instance: String,
}

impl Call for List {
    const ROUTE: Route = Route::get("/api/v1/instances");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        answer(&workshop.fleet.instances().await?)
    }
}

impl Call for Show {
    const ROUTE: Route = Route::get("/api/v1/instances/{instance}");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let view = workshop.fleet.explain(&self.instance).await?.view;
        Answer::one("instance", &InstanceRow::from(&view), view.name.clone())
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context) -> Outcome {
    let fleet = context.looking().await?;
    context.out.answer(answer(&fleet.instances().await?)?)
}

/// Instances as an answer.
pub(super) fn answer(views: &[InstanceView]) -> Outcome<Answer> {
    let rows: Vec<_> = views.iter().map(InstanceRow::from).collect();
    Answer::list("instances", &rows, Shown::Table(table(&rows)))
}

fn health(health: EngineHealth) -> &'static str {
    match health {
        EngineHealth::Starting => "starting",
        EngineHealth::Healthy => "healthy",
        EngineHealth::Unhealthy => "unhealthy",
    }
}

fn table(rows: &[InstanceRow]) -> Table {
    let head = [
        "name", "tenant", "channel", "image", "digest", "running", "health", "behind", "state",
        "held by",
    ];
    let mut table = Table::new(
        &head,
        "no instances: label a container with fleet.enable=true to have it managed",
    );
    for row in rows {
        let behind = match row.behind {
            Some(true) => "behind".to_owned(),
            Some(false) => "no".to_owned(),
            None => "?".to_owned(),
        };
        table.row(vec![
            row.name.clone(),
            row.tenant.clone(),
            row.channel.clone(),
            row.image.clone(),
            short(&row.digest),
            if row.running { "yes" } else { "no" }.to_owned(),
            dash(row.health),
            behind,
            row.state.to_owned(),
            row.holds.join("; "),
        ]);
    }
    table
}

/// The first 12 digits of a digest or image id.
pub(super) fn short(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.chars().take(12).collect()
}
