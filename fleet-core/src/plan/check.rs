//! Holds a plan against what every plan must satisfy.
//!
//! Written apart from the planner, and run on every plan before it is executed and in every test: the planner is wrong
//! if this finds anything.

use std::collections::{HashMap, HashSet};

use super::order::{Shuffle, Stickiness};
use super::rollout_plan::{Companion, PlannedInstance, RolloutKind, RolloutPlan};
use super::strategy::StrategySpec;
use crate::ids::InstanceId;

/// What a plan must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The format is not the one this code reads.
    #[error("expected schema {expected}, found {found}")]
    Schema {
        /// What this code reads.
        expected: u32,
        /// What the plan has.
        found: u32,
    },
    /// A wave has nobody in it.
    #[error("wave {0} is empty")]
    EmptyWave(u32),
    /// The waves do not hold each member once.
    #[error("the waves end at {ends}, expected the number of members {members}")]
    Uncovered {
        /// Where the last wave ends.
        ends: u32,
        /// Members in all.
        members: u32,
    },
    /// A wave has another size than the strategy's arithmetic gives.
    #[error("wave {wave} has {found} members, expected {expected}")]
    WaveSize {
        /// The wave.
        wave: u32,
        /// What the strategy gives.
        expected: u32,
        /// What it has.
        found: u32,
    },
    /// An instance stands in the plan twice.
    #[error("instance {0} is in the plan twice")]
    Twice(InstanceId),
    /// A number points past its table.
    #[error("instance {0} points past a table of the plan")]
    Dangling(InstanceId),
    /// The plan would change nothing for an instance.
    #[error("instance {0} would be updated to what it runs")]
    NoChange(InstanceId),
    /// An instance goes to another digest than the release's.
    #[error("instance {0} goes to another digest than the release")]
    WrongTarget(InstanceId),
    /// A schedule cannot be read.
    #[error("the schedule of instance {0} cannot be read")]
    Schedule(InstanceId),
    /// An instance goes too early or too late.
    #[error(
        "instance {later} goes before {earlier}, which comes first by cohort, priority and record"
    )]
    Order {
        /// What should go first.
        earlier: InstanceId,
        /// What goes first.
        later: InstanceId,
    },
    /// A tenant has its second turn before another one has its first.
    #[error("the tenant of instance {0} has two turns before others had one")]
    Spread(InstanceId),
    /// fleet itself does not go last and alone.
    #[error("instance {0} is fleet itself and does not go last and alone")]
    OwnNotAlone(InstanceId),
    /// A limit is 0.
    #[error("{0} is 0")]
    Limit(&'static str),
}

/// Everything that is wrong with a plan; empty if nothing is. `salt` is the one that it was planned with.
#[must_use]
pub fn check(plan: &RolloutPlan, salt: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    if plan.schema != RolloutPlan::SCHEMA {
        found.push(Violation::Schema {
            expected: RolloutPlan::SCHEMA,
            found: plan.schema,
        });
    }
    if plan.request.limits.max_concurrent == 0 {
        found.push(Violation::Limit("max_concurrent"));
    }
    check_waves(plan, &mut found);
    check_members(plan, &mut found);
    if found.is_empty() && plan.kind == RolloutKind::Forward {
        check_sizes(plan, &mut found);
        check_order(plan, salt, &mut found);
    }
    found
}

fn check_waves(plan: &RolloutPlan, found: &mut Vec<Violation>) {
    let mut start = 0;
    for (wave, number) in plan.waves.iter().zip(0u32..) {
        if wave.end <= start {
            found.push(Violation::EmptyWave(number));
        }
        start = start.max(wave.end);
    }
    if start != plan.total() {
        found.push(Violation::Uncovered {
            ends: start,
            members: plan.total(),
        });
    }
}

fn check_members(plan: &RolloutPlan, found: &mut Vec<Violation>) {
    let mut seen: HashSet<&InstanceId> =
        HashSet::with_capacity(plan.members.len() + plan.held.len());
    let readable: Vec<bool> = plan
        .schedules
        .iter()
        .map(|schedule| schedule.schedule().is_ok())
        .collect();
    for member in &plan.members {
        let instance = || member.instance.clone();
        for one in member.instances().filter(|one| !seen.insert(one)) {
            found.push(Violation::Twice(one.clone()));
        }
        let digest = |number: u32| plan.digests.get(number as usize);
        let from_ok = member.from.is_none_or(|from| digest(from).is_some());
        let (Some(to), Some(readable), Some(_), true) = (
            digest(member.to),
            readable.get(member.schedule as usize),
            plan.tenants.get(member.tenant as usize),
            from_ok,
        ) else {
            found.push(Violation::Dangling(instance()));
            continue;
        };
        let channels = plan.stickiness == Stickiness::PerChannel;
        if channels && plan.channels.get(member.channel as usize).is_none() {
            found.push(Violation::Dangling(instance()));
        }
        if !readable {
            found.push(Violation::Schedule(instance()));
        }
        let reference = |number: u32| plan.references.get(number as usize);
        let companion_ok = |companion: &Companion| {
            digest(companion.to).is_some()
                && companion.from.is_none_or(|from| digest(from).is_some())
                && companion.reference.is_none_or(|it| reference(it).is_some())
                && (plan.kind == RolloutKind::Rollback || companion.to == member.to)
        };
        if !member.with.iter().all(companion_ok)
            || member.reference.is_some_and(|it| reference(it).is_none())
        {
            found.push(Violation::Dangling(instance()));
        }
        if member.from.and_then(digest) == Some(to) {
            found.push(Violation::NoChange(instance()));
        }
        if plan.kind == RolloutKind::Forward && *to != plan.request.target.digest {
            found.push(Violation::WrongTarget(instance()));
        }
    }
    for held in &plan.held {
        if !seen.insert(&held.instance) {
            found.push(Violation::Twice(held.instance.clone()));
        }
        if plan.tenants.get(held.tenant as usize).is_none() {
            found.push(Violation::Dangling(held.instance.clone()));
        }
    }
}

fn check_sizes(plan: &RolloutPlan, found: &mut Vec<Violation>) {
    let others =
        u32::try_from(plan.members.iter().filter(|member| !member.own).count()).unwrap_or(u32::MAX);
    let size = match &plan.request.strategy {
        StrategySpec::Rolling(rolling) => rolling.size.of(plan.total()).get(),
        StrategySpec::Single(_) => 1,
        StrategySpec::Immediate(_) => others.max(1),
        StrategySpec::Custom { .. } => return,
    };
    let mut start = 0;
    for (wave, number) in plan.waves.iter().zip(0u32..) {
        let left = others.saturating_sub(start);
        let expected = if left == 0 { 1 } else { size.min(left) };
        if wave.end - start != expected {
            found.push(Violation::WaveSize {
                wave: number,
                expected,
                found: wave.end - start,
            });
        }
        start = wave.end;
    }
}

fn check_order(plan: &RolloutPlan, salt: &str, found: &mut Vec<Violation>) {
    let shuffle = Shuffle::new(salt, plan.stickiness, &plan.request.target.digest);
    let class = |member: &PlannedInstance| {
        (
            member.own,
            member.cohort,
            member.priority,
            member.failed_before,
        )
    };
    // Of each tenant in this class: how many went, and the hash of the last one.
    let mut turns: HashMap<u32, (u32, u64)> = HashMap::new();
    let mut before: Option<(&PlannedInstance, u32, u64)> = None;
    for (member, place) in plan.members.iter().zip(0usize..) {
        if before.is_some_and(|(earlier, ..)| class(earlier) != class(member)) {
            turns.clear();
        }
        let channel = plan.channels.get(member.channel as usize);
        let hash = shuffle.hash(&member.instance, channel);
        let (turn, last_hash) = turns.entry(member.tenant).or_default();
        let this_turn = *turn;
        let own_order = *last_hash <= hash;
        (*turn, *last_hash) = (this_turn + 1, hash);
        if let Some((earlier, earlier_turn, earlier_hash)) = before {
            let same_class = class(earlier) == class(member);
            let (first, second) = (member.instance.clone(), earlier.instance.clone());
            if same_class && this_turn < earlier_turn {
                found.push(Violation::Spread(second));
            } else if class(member) < class(earlier)
                || !own_order
                || same_class && this_turn == earlier_turn && hash < earlier_hash
            {
                found.push(Violation::Order {
                    earlier: first,
                    later: second,
                });
            }
        }
        let wave = plan.wave_range(plan.wave_of(place));
        if member.own && wave.len() != 1 {
            found.push(Violation::OwnNotAlone(member.instance.clone()));
        }
        before = Some((member, this_turn, hash));
    }
}
