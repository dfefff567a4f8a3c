//! From what exists to what shall be done.

use std::num::NonZeroU32;
use std::time::Duration;

use super::candidate::{Candidate, Limits, PlanInput, Request};
use super::held::Held;
use super::order::{self, Shuffle};
use super::rollout_plan::{
    DEFAULT_ESTIMATE, HeldInstance, PlannedInstance, PlannedWave, RolloutKind, RolloutPlan,
    ScheduleSpec,
};
use super::select::select;
use super::strategy::{Batch, FailureBudget, Progress, RolloutStrategy, WaveGate};
use super::tables::{Finished, Tables};
use crate::time::Timestamp;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A limit is out of its range.
    #[error("expected {name} {expected}, found {found}")]
    Limit {
        /// Which.
        name: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// What was given.
        found: u64,
    },
    /// More instances than a plan can number.
    #[error("expected at most 4294967295 instances, found {0}")]
    TooLarge(usize),
    /// The strategy ends before all instances have a wave.
    #[error("the strategy {strategy} stops after {planned} of {total} instances: {why}")]
    Incomplete {
        /// The strategy.
        strategy: String,
        /// Instances that have a wave.
        planned: u32,
        /// Instances in all.
        total: u32,
        /// What it said.
        why: String,
    },
}

/// Makes the plan of a rollout. The same input gives the same plan.
///
/// # Errors
/// See [`PlanError`]. A plan without instances is no error: it says why each of them is not in it.
pub fn plan(
    input: &PlanInput<'_>,
    strategy: &dyn RolloutStrategy,
) -> Result<RolloutPlan, PlanError> {
    check_limits(&input.request.limits)?;
    if u32::try_from(input.candidates.len()).is_err() {
        return Err(PlanError::TooLarge(input.candidates.len()));
    }
    let shuffle = Shuffle::new(
        &input.settings.salt,
        input.settings.stickiness,
        &input.request.target.digest,
    );
    let mut tables = Tables::new(input.tenants);
    let to = tables.digest(&input.request.target.digest);
    let verdicts = select(input, &mut tables);
    let mut reasons: Vec<Option<Held>> = verdicts.reasons.into_iter().map(Some).collect();
    let mut members = Vec::with_capacity(verdicts.all.len() - reasons.len());
    let mut held = Vec::with_capacity(reasons.len());
    for (candidate, verdict) in input.candidates.iter().zip(verdicts.all) {
        let tenant = verdict.tenant;
        match verdict.then {
            Ok(schedule) => {
                let numbers = Numbers {
                    tenant,
                    from: candidate.current.as_ref().map(|it| tables.digest(it)),
                    to,
                    schedule,
                    channel: match shuffle.asks_for_channel() {
                        true => tables.channel(&candidate.channel),
                        false => 0,
                    },
                };
                members.push(planned(input, strategy, candidate, &numbers));
            }
            Err(why) => held.extend(reasons[why as usize].take().map(|why| HeldInstance {
                instance: candidate.instance.clone(),
                tenant,
                why,
            })),
        }
    }
    held.sort_unstable_by(|a, b| a.instance.cmp(&b.instance));
    let Finished {
        tenants,
        digests,
        schedules,
        channels,
    } = tables.finish();
    order::sort(&mut members, tenants.len(), &channels, &shuffle);
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let waves = lay_out(strategy, &members)?;
    Ok(RolloutPlan {
        schema: RolloutPlan::SCHEMA,
        kind: RolloutKind::Forward,
        request: input.request.clone(),
        planned_at: input.now,
        budget: strategy.failure_budget(total),
        stickiness: input.settings.stickiness,
        tenants,
        digests,
        schedules,
        channels,
        members,
        waves,
        held,
    })
}

/// Makes the plan that takes instances of an aborted rollout, given by their places, back to what they ran before: the
/// last one first, all in one wave, and over at the first failure (a rollback is never rolled back).
#[must_use]
pub fn plan_rollback(
    parent: &RolloutPlan,
    places: &[usize],
    request: Request,
    now: Timestamp,
) -> RolloutPlan {
    let mut members = Vec::new();
    let mut held = Vec::new();
    for member in places.iter().rev().map(|&place| &parent.members[place]) {
        match member.from {
            Some(from) => members.push(PlannedInstance {
                from: Some(member.to),
                to: from,
                schedule: 0,
                failed_before: false,
                unhealthy_before: false,
                ..member.clone()
            }),
            None => held.push(HeldInstance {
                instance: member.instance.clone(),
                tenant: member.tenant,
                why: Held::NoWayBack,
            }),
        }
    }
    let end = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let wave = PlannedWave {
        end,
        gate: WaveGate::Open,
    };
    RolloutPlan {
        schema: RolloutPlan::SCHEMA,
        kind: RolloutKind::Rollback,
        request,
        planned_at: now,
        budget: FailureBudget {
            limit: NonZeroU32::MIN,
            canary: None,
        },
        stickiness: parent.stickiness,
        tenants: parent.tenants.clone(),
        digests: parent.digests.clone(),
        schedules: vec![ScheduleSpec::Always],
        channels: parent.channels.clone(),
        waves: if members.is_empty() {
            Vec::new()
        } else {
            vec![wave]
        },
        members,
        held,
    }
}

fn check_limits(limits: &Limits) -> Result<(), PlanError> {
    let percent = |name, found: u8| {
        let expected = "from 1 to 100";
        if (1..=100).contains(&found) {
            Ok(())
        } else {
            Err(PlanError::Limit {
                name,
                expected,
                found: found.into(),
            })
        }
    };
    percent("tenant_percent", limits.tenant_percent)?;
    percent("host_percent", limits.host_percent)?;
    if limits.max_concurrent == 0 {
        return Err(PlanError::Limit {
            name: "max_concurrent",
            expected: "from 1 on",
            found: 0,
        });
    }
    Ok(())
}

/// Asks the strategy for waves until nothing remains. fleet's own instances get waves of their own at the end.
fn lay_out(
    strategy: &dyn RolloutStrategy,
    members: &[PlannedInstance],
) -> Result<Vec<PlannedWave>, PlanError> {
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let others = members.partition_point(|member| !member.own);
    let mut waves: Vec<PlannedWave> = Vec::new();
    let mut done = 0usize;
    while done < members.len() {
        let remaining = if done < others {
            &members[done..others]
        } else {
            &members[done..=done]
        };
        let so_far = Progress {
            total,
            wave: u32::try_from(waves.len()).unwrap_or(u32::MAX),
            committed: u32::try_from(done).unwrap_or(u32::MAX),
            failed: 0,
            skipped: 0,
        };
        match strategy.next_batch(remaining, &so_far) {
            Batch::Take { size, gate } => {
                done += (size.get() as usize).min(remaining.len());
                waves.push(PlannedWave {
                    end: u32::try_from(done).unwrap_or(u32::MAX),
                    gate,
                });
            }
            Batch::Stop { why } => {
                let strategy = strategy.label().to_owned();
                return Err(PlanError::Incomplete {
                    strategy,
                    planned: so_far.committed,
                    total,
                    why,
                });
            }
        }
    }
    Ok(waves)
}

/// Where an instance points to in the tables.
struct Numbers {
    tenant: u32,
    from: Option<u32>,
    to: u32,
    schedule: u32,
    channel: u32,
}

fn planned(
    input: &PlanInput<'_>,
    strategy: &dyn RolloutStrategy,
    candidate: &Candidate,
    numbers: &Numbers,
) -> PlannedInstance {
    let timeout = strategy
        .health_timeout()
        .unwrap_or(candidate.health_timeout);
    PlannedInstance {
        instance: candidate.instance.clone(),
        tenant: numbers.tenant,
        from: numbers.from,
        to: numbers.to,
        schedule: numbers.schedule,
        channel: numbers.channel,
        estimate_secs: whole_secs(candidate.estimate.unwrap_or(DEFAULT_ESTIMATE)),
        health_timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        cohort: order::cohort_rank(&input.settings.cohorts, candidate.cohort.as_deref()),
        priority: candidate.priority,
        failed_before: candidate.failed_before,
        unhealthy_before: !candidate.healthy,
        own: candidate.own,
    }
}

fn whole_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
