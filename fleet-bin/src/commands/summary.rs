//! The fleet in a few figures, flat, for widgets. Only over HTTP.

use fleet_core::engine::InstanceState;
use fleet_core::plan::fleet_pause;
use fleet_core::ports::SettingsStore as _;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::call::{Call, Route, Workshop};
use crate::exit::Outcome;

/// Shows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {}

/// The figures.
#[derive(Debug, Serialize)]
struct Summary {
    instances: usize,
    running: usize,
    behind: usize,
    updating: usize,
    needs_person: usize,
    rollouts_active: usize,
    paused: bool,
    version: &'static str,
}

/// Rollouts that are looked at for those that are going on.
const LOOKED_AT: u32 = 100;

impl Call for Show {
    const ROUTE: Route = Route::get("/api/v1/summary");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let views = workshop.fleet.instances().await?;
        let rollouts = workshop.orchestrator.list(LOOKED_AT).await?;
        let in_state = |states: &[InstanceState]| {
            views
                .iter()
                .filter(|view| states.contains(&view.state))
                .count()
        };
        let summary = Summary {
            instances: views.len(),
            running: views.iter().filter(|view| view.running).count(),
            behind: views
                .iter()
                .filter(|view| view.behind == Some(true))
                .count(),
            updating: in_state(&[InstanceState::Updating, InstanceState::RollingBack]),
            needs_person: in_state(&[InstanceState::NeedsOperator, InstanceState::Diverged]),
            rollouts_active: rollouts
                .iter()
                .filter(|stored| !stored.state.phase.is_terminal())
                .count(),
            paused: fleet_pause(&workshop.store.settings().await?).is_some(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let text = format!("{} instances, {} behind", summary.instances, summary.behind);
        Answer::one("summary", &summary, text)
    }
}
