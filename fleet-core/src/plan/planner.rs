//! From what exists to what shall be done.

use std::collections::HashMap;
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
use crate::ids::TenantId;
use crate::image::Digest;
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
    let mut tables = Tables::default();
    let to = tables.digest(&input.request.target.digest);
    let mut members = Vec::new();
    let mut held = Vec::new();
    for (candidate, verdict) in input.candidates.iter().zip(select(input)) {
        match verdict {
            Ok(schedule) => {
                let schedule = tables.schedule(schedule);
                let member = planned(input, strategy, &mut tables, candidate, schedule, to);
                members.push(member);
            }
            Err(why) => held.push(held_instance(&mut tables, candidate, why)),
        }
    }
    held.sort_unstable_by(|a, b| a.instance.cmp(&b.instance));
    let shuffle = Shuffle::new(&input.settings.salt, &input.request.target.digest);
    let members = order::sorted(members, tables.tenants.len(), &shuffle);
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let waves = lay_out(strategy, &members)?;
    Ok(RolloutPlan {
        schema: RolloutPlan::SCHEMA,
        kind: RolloutKind::Forward,
        request: input.request.clone(),
        planned_at: input.now,
        budget: strategy.failure_budget(total),
        tenants: tables.tenants,
        digests: tables.digests,
        schedules: tables.schedules,
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
        tenants: parent.tenants.clone(),
        digests: parent.digests.clone(),
        schedules: vec![ScheduleSpec::Always],
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

fn planned<'a>(
    input: &PlanInput<'a>,
    strategy: &dyn RolloutStrategy,
    tables: &mut Tables<'a>,
    candidate: &'a Candidate,
    schedule: u32,
    to: u32,
) -> PlannedInstance {
    let timeout = strategy
        .health_timeout()
        .unwrap_or(candidate.health_timeout);
    PlannedInstance {
        instance: candidate.instance.clone(),
        tenant: tables.tenant(&candidate.tenant),
        from: candidate
            .current
            .as_ref()
            .map(|digest| tables.digest(digest)),
        to,
        schedule,
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

fn held_instance<'a>(tables: &mut Tables<'a>, candidate: &'a Candidate, why: Held) -> HeldInstance {
    HeldInstance {
        instance: candidate.instance.clone(),
        tenant: tables.tenant(&candidate.tenant),
        why,
    }
}

/// Numbers what many instances share.
#[derive(Default)]
struct Tables<'a> {
    tenants: Vec<TenantId>,
    tenant_numbers: HashMap<&'a TenantId, u32>,
    digests: Vec<Digest>,
    digest_numbers: HashMap<&'a Digest, u32>,
    schedules: Vec<ScheduleSpec>,
    schedule_numbers: HashMap<ScheduleSpec, u32>,
}

impl<'a> Tables<'a> {
    fn tenant(&mut self, tenant: &'a TenantId) -> u32 {
        number(
            &mut self.tenant_numbers,
            &mut self.tenants,
            tenant,
            |tenant| (*tenant).clone(),
        )
    }

    fn digest(&mut self, digest: &'a Digest) -> u32 {
        number(
            &mut self.digest_numbers,
            &mut self.digests,
            digest,
            |digest| (*digest).clone(),
        )
    }

    fn schedule(&mut self, schedule: ScheduleSpec) -> u32 {
        number(
            &mut self.schedule_numbers,
            &mut self.schedules,
            schedule,
            ScheduleSpec::clone,
        )
    }
}

fn number<K: std::hash::Hash + Eq, V>(
    numbers: &mut HashMap<K, u32>,
    table: &mut Vec<V>,
    key: K,
    value: impl Fn(&K) -> V,
) -> u32 {
    let next = u32::try_from(table.len()).unwrap_or(u32::MAX);
    if let Some(number) = numbers.get(&key) {
        return *number;
    }
    table.push(value(&key));
    numbers.insert(key, next);
    next
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
