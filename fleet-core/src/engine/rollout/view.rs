//! A rollout as people and scripts see it.

use std::fmt;

use serde::Serialize;

use crate::plan::rollout::{Hold, WaveState};
use crate::ports::StoredRollout;

/// A rollout in output; names are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutView {
    /// Id.
    pub id: String,
    /// Label of its state.
    pub state: &'static str,
    /// Repository and tag of the release.
    pub image: String,
    /// Digest of the release.
    pub digest: String,
    /// Name of its strategy.
    pub strategy: String,
    /// Who asked for it.
    pub actor: String,
    /// Instances in all.
    pub total: u32,
    /// Instances that run the release.
    pub committed: u32,
    /// Instances that are back on the old one.
    pub rolled_back: u32,
    /// Instances for which a person is asked.
    pub needs_operator: u32,
    /// Instances that have not ended.
    pub pending: u32,
    /// Failures that counted.
    pub failures: u32,
    /// Failures that end it.
    pub failure_limit: u32,
    /// The waves, in order.
    pub waves: Vec<WaveState>,
    /// Why nothing starts; empty means go.
    pub holds: Vec<Hold>,
    /// Its instances, in order.
    pub instances: Vec<MemberView>,
}

/// One instance of a rollout in output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberView {
    /// The instance.
    pub instance: String,
    /// Its tenant.
    pub tenant: String,
    /// Its wave, from 1.
    pub wave: u32,
    /// `queued`, `updating`, or how it ended.
    pub state: &'static str,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

impl RolloutView {
    /// The view of a rollout.
    #[must_use]
    pub fn new(stored: &StoredRollout) -> Self {
        let StoredRollout { plan, state, .. } = stored;
        let tally = state.tally();
        Self {
            id: plan.id().to_string(),
            state: state.phase.label(),
            image: plan.request.target.image.to_string(),
            digest: plan.request.target.digest.to_string(),
            strategy: plan.request.strategy.label().to_owned(),
            actor: plan.request.actor.clone(),
            total: tally.total,
            committed: tally.committed,
            rolled_back: tally.rolled_back,
            needs_operator: tally.needs_operator,
            pending: tally.queued + tally.in_flight,
            failures: tally.failures,
            failure_limit: plan.budget.limit.get(),
            waves: state.waves(plan),
            holds: state.holds.clone(),
            instances: members(stored),
        }
    }
}

fn members(StoredRollout { plan, state, .. }: &StoredRollout) -> Vec<MemberView> {
    use crate::plan::rollout::MemberState;
    let mut wave = 0;
    plan.members
        .iter()
        .zip(&state.members)
        .enumerate()
        .map(|(place, (member, now))| {
            while plan
                .waves
                .get(wave)
                .is_some_and(|wave| wave.end as usize <= place)
            {
                wave += 1;
            }
            MemberView {
                instance: member.instance.to_string(),
                tenant: plan.tenant(member).to_string(),
                wave: u32::try_from(wave + 1).unwrap_or(u32::MAX),
                state: now.label(),
                reason: match now {
                    MemberState::Queued { last, .. } => last.clone(),
                    MemberState::Ended { why, .. } => why.clone(),
                    MemberState::Claimed { .. } => None,
                },
            }
        })
        .collect()
}

impl fmt::Display for RolloutView {
    /// A few lines for a terminal: the rollout, its waves with a bar each, its holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}  {}  {}  {}",
            self.id, self.state, self.image, self.strategy
        )?;
        for wave in &self.waves {
            let bar: String = self
                .instances
                .iter()
                .filter(|member| member.wave == wave.number)
                .map(|member| match member.state {
                    "committed" | "unchanged" => '#',
                    "updating" => '>',
                    "queued" => '.',
                    "rolled_back" | "needs_operator" | "failed" => 'x',
                    _ => '-',
                })
                .collect();
            writeln!(f, "  wave {}  [{bar}]  {}", wave.number, wave.state)?;
        }
        writeln!(
            f,
            "  {} of {} committed, {} rolled back, {} failures (stops at {})",
            self.committed, self.total, self.rolled_back, self.failures, self.failure_limit
        )?;
        for hold in &self.holds {
            writeln!(f, "  held: {hold}")?;
        }
        Ok(())
    }
}
