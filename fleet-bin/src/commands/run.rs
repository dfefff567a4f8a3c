//! `fleet run --once`: one whole cycle, for cron.

use std::time::Duration;

use fleet_core::engine::rollout::RolloutView;
use fleet_core::engine::{Tick, Ticked};
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_core::update::Outcome as Ended;
use serde_json::json;

use super::rollout;
use crate::assemble::Context;
use crate::cli_rollout::RunArgs;
use crate::exit::{Exit, Outcome};
use crate::output::style::{NAME, paint};
use crate::output::{Table, tell};

/// Rollouts that are looked at for what this cycle did.
const LOOKED_AT: u32 = 100;

/// Runs the command.
pub(crate) async fn once(context: &Context, _args: RunArgs) -> Outcome {
    let working = context.working().await?;
    let orchestrator = working.orchestrator(context);
    let sink = context.ui.sink("cycle");
    let before: Vec<_> = orchestrator.list(LOOKED_AT).await?;
    let told = |update: &fleet_core::ports::StoredUpdate, verdict: &fleet_core::update::Verdict| {
        let line = format!(
            "{}: found {}, therefore {}",
            paint(NAME, &update.plan.primary().instance),
            verdict.found,
            verdict.therefore
        );
        context.ui.suspend(|| tell(&line));
    };
    let tick = Tick {
        orchestrator: &orchestrator,
        // A cycle comes when cron says so: waiting for quiet would mean waiting for the next one.
        supersede: SupersedePolicy {
            quiet_period: Duration::ZERO,
            ..SupersedePolicy::default()
        },
        progress: &sink,
        told: &told,
        actor: "fleet",
    };
    let ticked = working.fleet.tick(&tick).await?;
    drop(sink);
    for (image, why) in &ticked.waiting {
        tell(&format!("{image}: {why}"));
    }
    let after = orchestrator.list(LOOKED_AT).await?;
    // What changed in this cycle: rollouts that are new, and those whose state was written.
    let touched: Vec<_> = after
        .iter()
        .filter(|now| {
            !before
                .iter()
                .any(|then| then.plan.id() == now.plan.id() && then.generation == now.generation)
        })
        .collect();
    let views: Vec<_> = touched
        .iter()
        .map(|stored| RolloutView::new(stored))
        .collect();
    print(context, &ticked, &views)?;
    let recovered = ticked
        .recoveries
        .iter()
        .map(|recovery| match recovery.ended() {
            Some(Ended::RolledBack) => Exit::RolledBack,
            Some(Ended::NeedsOperator | Ended::Diverged) => Exit::NeedsPerson,
            _ => Exit::Done,
        });
    Ok(touched
        .iter()
        .map(|stored| rollout::exit(stored))
        .chain(recovered)
        .fold(Exit::Done, Exit::worst))
}

fn print(context: &Context, ticked: &Ticked, views: &[RolloutView]) -> Outcome<()> {
    if context.out.format() == crate::cli::Format::Table {
        let offered = ticked
            .findings
            .iter()
            .filter(|finding| finding.is_offered())
            .count();
        let looked = ticked.findings.len();
        context.out.text(&format!(
            "{looked} instances looked at, {offered} behind, {} rollouts worked on",
            views.len()
        ))?;
        return views
            .iter()
            .try_for_each(|view| context.out.text(&view.to_string()));
    }
    if context.out.format() == crate::cli::Format::Json {
        let cycle = json!({ "rollouts": views, "looked_at": ticked.findings.len() });
        return context.out.one("cycle", &cycle, String::new);
    }
    context.out.list("rollouts", views, || Table::new(&[], ""))
}
