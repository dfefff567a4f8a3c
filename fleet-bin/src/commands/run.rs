//! `fleet run --once`: one whole cycle, for cron.

use std::time::Duration;

use fleet_core::engine::rollout::RolloutView;
use fleet_core::engine::{Tick, Ticked};
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_core::ports::StoredUpdate;
use fleet_core::update::{Outcome as Ended, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{recover, rollout};
use crate::answer::{Answer, Shown};
use crate::call::{Call, Route, Workshop};
use crate::exit::{Exit, Outcome};

/// Rollouts that are looked at for what this cycle did.
const LOOKED_AT: u32 = 100;

/// One whole cycle.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cycle {}

impl Call for Cycle {
    const ROUTE: Route = Route::post("/api/v1/cycle");
    const FOLLOWS_ROLLOUTS: bool = true;
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let Workshop {
            fleet,
            orchestrator,
            voice,
            ..
        } = workshop;
        let sink = voice.sink("cycle");
        let before: Vec<_> = orchestrator.list(LOOKED_AT).await?;
        let told = |update: &StoredUpdate, verdict: &Verdict| {
            voice.tell(&recover::decision(update, verdict));
        };
        let tick = Tick {
            orchestrator,
            // A cycle comes when cron says so: waiting for quiet would mean waiting for the next one.
            supersede: SupersedePolicy {
                quiet_period: Duration::ZERO,
                ..workshop.supersede
            },
            progress: sink.as_ref(),
            told: &told,
            actor: "fleet",
        };
        let ticked = fleet.tick(&tick).await?;
        drop(sink);
        for waiting in &ticked.waiting {
            voice.tell(&format!("{}: {}", waiting.offer.release.image, waiting.why));
        }
        let after = orchestrator.list(LOOKED_AT).await?;
        // What changed in this cycle: rollouts that are new, and those whose state was written.
        let touched: Vec<_> = after
            .iter()
            .filter(|now| {
                !before.iter().any(|then| {
                    then.plan.id() == now.plan.id() && then.generation == now.generation
                })
            })
            .collect();
        let recovered = ticked
            .recoveries
            .iter()
            .map(|recovery| match recovery.ended() {
                Some(Ended::RolledBack) => Exit::RolledBack,
                Some(Ended::NeedsOperator | Ended::Diverged) => Exit::NeedsPerson,
                _ => Exit::Done,
            });
        let exit = touched
            .iter()
            .map(|stored| rollout::exit(stored))
            .chain(recovered)
            .fold(Exit::Done, Exit::worst);
        let views: Vec<_> = touched
            .iter()
            .map(|stored| RolloutView::new(stored))
            .collect();
        Ok(answer(&ticked, &views)?.ends(exit))
    }
}

fn answer(ticked: &Ticked, views: &[RolloutView]) -> Outcome<Answer> {
    let offered = ticked
        .findings
        .iter()
        .filter(|finding| finding.is_offered())
        .count();
    let looked = ticked.findings.len();
    let mut text = format!(
        "{looked} instances looked at, {offered} behind, {} rollouts worked on",
        views.len()
    );
    for view in views {
        text.push_str(&format!("\n{view}"));
    }
    let cycle = json!({ "rollouts": views, "looked_at": looked });
    let lines = Answer::list("rollouts", views, Shown::Text(String::new()))?.lines;
    let answer = Answer::one("cycle", &cycle, text)?;
    Ok(Answer { lines, ..answer })
}
