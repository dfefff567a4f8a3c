//! From what exists to what shall be done.

use std::num::NonZeroU32;
use std::time::Duration;

use super::candidate::{Candidate, Limits, PlanInput, Request};
use super::held::Held;
use super::order::{self, Shuffle};
use super::rollout_plan::{
    Companion, DEFAULT_ESTIMATE, HeldInstance, PlannedInstance, PlannedWave, RolloutKind,
    RolloutPlan, ScheduleSpec,
};
use super::select::verdict;
use super::strategy::{Batch, FailureBudget, Progress, RolloutStrategy, WaveGate};
use super::tables::{Finished, Tables};
use super::together::Together;
use crate::ids::InstanceId;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::time::Timestamp;

/// Tenants that are looked up together.
const TENANTS_AT_ONCE: usize = 64;

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
    let mut members = Vec::with_capacity(input.candidates.len());
    let mut keys = Vec::with_capacity(input.candidates.len());
    let mut held = Vec::new();
    let mut together = Together::default();
    let mut places = [0; TENANTS_AT_ONCE];
    // Everything about a candidate at once, but for its tenant: there may be more of both than the processor's caches hold.
    for candidates in input.candidates.chunks(TENANTS_AT_ONCE) {
        for (place, candidate) in places.iter_mut().zip(candidates) {
            *place = tables.place_of(&candidate.tenant);
        }
        for (&place, candidate) in places.iter().zip(candidates) {
            let tenant = tables.tenant(place, &candidate.tenant);
            match verdict(input, candidate, tenant, &mut tables) {
                Ok(schedule) => {
                    let numbers = Numbers {
                        tenant: tenant.number,
                        from: candidate.current.as_ref().map(|it| tables.digest(it)),
                        to,
                        schedule,
                        channel: match shuffle.asks_for_channel() {
                            true => tables.channel(&candidate.channel),
                            false => 0,
                        },
                    };
                    let member = planned(input, strategy, candidate, &numbers);
                    keys.push(shuffle.key(&member, Some(&candidate.channel), members.len()));
                    together.planned(candidate, members.len());
                    members.push(member);
                }
                Err(why) => {
                    together.held(candidate, &why);
                    held.push(HeldInstance {
                        instance: candidate.instance.clone(),
                        tenant: tenant.number,
                        why,
                    });
                }
            }
        }
    }
    let changed = together.settle(&mut members, &mut held);
    held.sort_unstable_by(|a, b| a.instance.cmp(&b.instance));
    let Finished {
        tenants,
        digests,
        schedules,
        channels,
    } = tables.finish();
    if changed {
        let members = members.iter().enumerate();
        let channel = |member: &PlannedInstance| channels.get(member.channel as usize);
        let key = |(place, member)| shuffle.key(member, channel(member), place);
        keys = members.map(key).collect();
    }
    order::sort(&mut members, keys, tenants.len());
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
        references: Vec::new(),
        members,
        waves,
        held,
    })
}

/// What an instance goes back to; none: what it ran when the plan was made.
pub type Before<'a> = &'a dyn Fn(&InstanceId) -> Option<PinnedImage>;

/// Makes the plan that takes instances of an aborted rollout, given by their places, back to what they ran before: the
/// last one first, all in one wave, and over at the first failure (a rollback is never rolled back).
#[must_use]
pub fn plan_rollback(
    parent: &RolloutPlan,
    places: &[usize],
    before: Before<'_>,
    request: Request,
    now: Timestamp,
) -> RolloutPlan {
    let mut way = WayBack::of(parent);
    let mut members = Vec::new();
    let mut held = Vec::new();
    for member in places.iter().rev().map(|&place| &parent.members[place]) {
        let mut with = Vec::new();
        let mut lost = Vec::new();
        for companion in &member.with {
            match way.back(&companion.instance, companion.from, before) {
                Some((to, reference)) => with.push(Companion {
                    instance: companion.instance.clone(),
                    from: Some(companion.to),
                    to,
                    reference,
                }),
                None => lost.push(companion.instance.clone()),
            }
        }
        match way.back(&member.instance, member.from, before) {
            Some((to, reference)) => members.push(PlannedInstance {
                from: Some(member.to),
                to,
                reference,
                with,
                schedule: 0,
                failed_before: false,
                unhealthy_before: false,
                ..member.clone()
            }),
            None => lost.extend(member.instances().cloned()),
        }
        held.extend(lost.into_iter().map(|instance| HeldInstance {
            instance,
            tenant: member.tenant,
            why: Held::NoWayBack,
        }));
    }
    held.sort_unstable_by(|a, b| a.instance.cmp(&b.instance));
    held.dedup_by(|a, b| a.instance == b.instance);
    let WayBack {
        digests,
        references,
    } = way;
    rollback_of(parent, request, now, |plan| RolloutPlan {
        digests,
        references,
        members,
        held,
        ..plan
    })
}

/// Makes the plan that tries again what a rollback did not take back, given by places.
#[must_use]
pub fn plan_rollback_again(
    rollback: &RolloutPlan,
    places: &[usize],
    request: Request,
    now: Timestamp,
) -> RolloutPlan {
    let members = places.iter().map(|&place| rollback.members[place].clone());
    rollback_of(rollback, request, now, |plan| RolloutPlan {
        members: members.collect(),
        ..plan
    })
}

/// A rollback with what a plan has in common with its parent; `fill` says who goes back to what.
fn rollback_of(
    parent: &RolloutPlan,
    request: Request,
    now: Timestamp,
    fill: impl FnOnce(RolloutPlan) -> RolloutPlan,
) -> RolloutPlan {
    let plan = fill(RolloutPlan {
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
        references: parent.references.clone(),
        waves: Vec::new(),
        members: Vec::new(),
        held: Vec::new(),
    });
    let wave = PlannedWave {
        end: plan.total(),
        gate: WaveGate::Open,
    };
    let waves = (!plan.members.is_empty()).then_some(wave);
    RolloutPlan {
        waves: waves.into_iter().collect(),
        ..plan
    }
}

/// The tables of a rollback in the making.
struct WayBack {
    digests: Vec<Digest>,
    references: Vec<ImageRef>,
}

impl WayBack {
    fn of(parent: &RolloutPlan) -> Self {
        Self {
            digests: parent.digests.clone(),
            references: parent.references.clone(),
        }
    }

    /// Digest and reference to which an instance goes back, as numbers.
    fn back(
        &mut self,
        instance: &InstanceId,
        planned: Option<u32>,
        before: Before<'_>,
    ) -> Option<(u32, Option<u32>)> {
        match before(instance) {
            Some(PinnedImage { image, digest }) => Some((
                number_of(&mut self.digests, digest),
                Some(number_of(&mut self.references, image)),
            )),
            None => planned.map(|from| (from, None)),
        }
    }
}

/// The place of an entry in a small table, where it is added if it is new.
fn number_of<T: PartialEq>(table: &mut Vec<T>, entry: T) -> u32 {
    let known = table.iter().position(|known| *known == entry);
    let place = known.unwrap_or_else(|| {
        table.push(entry);
        table.len() - 1
    });
    u32::try_from(place).unwrap_or(u32::MAX)
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
        estimate_secs: estimate_secs(candidate),
        health_timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        cohort: order::cohort_rank(&input.settings.cohorts, candidate.cohort.as_deref()),
        priority: candidate.priority,
        failed_before: candidate.failed_before,
        unhealthy_before: !candidate.healthy,
        own: candidate.own,
        reference: None,
        with: Vec::new(),
    }
}

fn estimate_secs(candidate: &Candidate) -> u32 {
    whole_secs(candidate.estimate.unwrap_or(DEFAULT_ESTIMATE))
}

fn whole_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
