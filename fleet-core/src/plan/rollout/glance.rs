//! A rollout at a glance: what somebody who watches it is shown.

use serde::{Deserialize, Serialize};

use super::hold::Hold;
use super::state::{Phase, RolloutState, WavePhase, WaveState};
use crate::ids::RolloutId;
use crate::plan::strategy::WaveGate;
use crate::plan::{RolloutKind, RolloutPlan};
use crate::time::Timestamp;

/// How far a rollout is, without its instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutGlance {
    /// Its id.
    pub id: RolloutId,
    /// Which way it goes.
    pub kind: RolloutKind,
    /// Label of its state, see [`Phase::label`].
    pub state: String,
    /// Whether it is over.
    pub over: bool,
    /// Repository and tag of the release.
    pub image: String,
    /// Name of its strategy.
    pub strategy: String,
    /// Failures that counted.
    pub failures: u32,
    /// Failures that end it while it is at its present wave.
    pub failure_limit: u32,
    /// The waves, in order.
    pub waves: Vec<WaveState>,
    /// When the wave at hand opens by itself, if it waits for its time.
    pub opens_at: Option<Timestamp>,
    /// Why nothing starts; empty means go.
    pub holds: Vec<Hold>,
}

impl RolloutGlance {
    /// A rollout as it is now.
    #[must_use]
    pub fn new(plan: &RolloutPlan, state: &RolloutState) -> Self {
        Self {
            id: plan.id(),
            kind: plan.kind,
            state: state.phase.label().to_owned(),
            over: state.phase.is_terminal(),
            image: plan.request.target.image.to_string(),
            strategy: plan.request.strategy.label().to_owned(),
            failures: state.tally().failures,
            failure_limit: state.failure_limit(plan),
            waves: state.waves(plan),
            opens_at: opens_at(plan, state),
            holds: state.holds.clone(),
        }
    }
}

fn opens_at(plan: &RolloutPlan, state: &RolloutState) -> Option<Timestamp> {
    let waits = state.phase == Phase::Running
        && state.wave_phase == WavePhase::Pending
        && state.holds.is_empty();
    let gate = plan.waves.get(state.wave as usize)?.gate;
    match (gate, state.passed_at) {
        (WaveGate::Pause { duration }, Some(passed)) if waits => {
            Some(passed.saturating_add(duration))
        }
        _ => None,
    }
}
