//! Which instances of the open wave may begin now, and why not the others.
//!
//! Admission is hard: an update is ordered only if the failure budget holds even if every update in flight fails. So
//! never more than the budget's number of instances fail, whatever the concurrency.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::state::{MemberState, RolloutState};
use crate::ids::{HostId, InstanceId, TenantId};
use crate::plan::window::{Freeze, Schedule};
use crate::plan::{Held, PlannedInstance, RolloutKind, RolloutPlan, waits};
use crate::time::Timestamp;

/// What an admission must know of the world outside its rollout.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Stretches in which nothing starts.
    pub freezes: Vec<Freeze>,
    /// Instances of each tenant.
    pub tenants: BTreeMap<TenantId, Load>,
    /// Instances of each host.
    pub hosts: BTreeMap<HostId, Load>,
    /// Instances that are down or about to be: not well, being updated by whatever rollout, waiting for a person.
    pub down: BTreeSet<InstanceId>,
    /// Instances on which no update can begin now, and why: one is going on, or a person is asked.
    pub busy: BTreeMap<InstanceId, Held>,
}

/// Instances of one tenant or host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// All.
    pub total: u32,
    /// Those among them that are down.
    pub down: u32,
}

impl Load {
    /// Whether one more may go down: a share of all, rounded down, at least one.
    fn has_room(self, percent: u8) -> bool {
        let limit = (u64::from(self.total) * u64::from(percent) / 100).max(1);
        u64::from(self.down) < limit
    }
}

impl Surroundings {
    /// Counts an instance.
    pub fn add(&mut self, instance: &InstanceId, tenant: &TenantId, down: bool) {
        let is_down = u32::from(down);
        for load in [
            self.tenants.entry(tenant.clone()).or_default(),
            self.hosts.entry(instance.host.clone()).or_default(),
        ] {
            load.total += 1;
            load.down += is_down;
        }
        if down {
            self.down.insert(instance.clone());
        }
    }

    /// Notes that an update of an instance is going on, or is about to begin.
    pub fn take_down(&mut self, instance: &InstanceId, tenant: &TenantId) {
        self.busy.entry(instance.clone()).or_insert(Held::Updating);
        if self.down.insert(instance.clone()) {
            self.tenants.entry(tenant.clone()).or_default().down += 1;
            self.hosts.entry(instance.host.clone()).or_default().down += 1;
        }
    }
}

/// What may begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Places of the members that may begin now, in the order of the plan.
    pub start: Vec<usize>,
    /// The other queued members of the wave, and what each waits for.
    pub waiting: Vec<(usize, Held)>,
}

impl Admission {
    /// The next instant at which time alone lets one begin, if there is one.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        self.waiting
            .iter()
            .filter_map(|(_, held)| held.ends_at())
            .min()
    }

    /// Whether a member waits for something other than its hour: a place, or another try.
    #[must_use]
    pub fn goes_on_by_itself(&self) -> bool {
        self.waiting.iter().any(|(_, held)| {
            matches!(
                held,
                Held::Deferred { .. }
                    | Held::DisruptionBudget
                    | Held::Concurrency
                    | Held::FailureBudget
            )
        })
    }
}

/// Which members of the wave at hand may begin. Phase and holds are the caller's question (see [`super::next`]); a wave
/// that is not open yet is answered for as if it were.
///
/// `around` counts the members in flight as down; it is told of those that are admitted.
#[must_use]
pub fn admit(
    plan: &RolloutPlan,
    state: &RolloutState,
    around: &mut Surroundings,
    now: Timestamp,
) -> Admission {
    let mut rooms = Rooms::of(plan, state);
    let mut schedules: HashMap<u32, Option<Schedule>> = HashMap::new();
    let mut admission = Admission::default();
    for place in plan.wave_range(state.wave) {
        let MemberState::Queued { not_before, .. } = state.members[place] else {
            continue;
        };
        let member = &plan.members[place];
        let schedule = schedules
            .entry(member.schedule)
            .or_insert_with(|| plan.schedules[member.schedule as usize].schedule().ok());
        let held = not_before
            .filter(|until| now < *until)
            .map(|until| Held::Deferred { until })
            .or_else(|| reason_of_time(plan, member, schedule.as_ref(), around, now))
            .or_else(|| around.busy.get(&member.instance).cloned())
            .or_else(|| rooms.reason_full(state.counted_on(plan, place)))
            .or_else(|| reason_of_disruption(plan, member, around));
        match held {
            Some(held) => admission.waiting.push((place, held)),
            None => {
                rooms.take(state.counted_on(plan, place));
                around.take_down(&member.instance, plan.tenant(member));
                admission.start.push(place);
            }
        }
    }
    admission
}

/// A rollback never waits for a window or a freeze.
fn reason_of_time(
    plan: &RolloutPlan,
    member: &PlannedInstance,
    schedule: Option<&Schedule>,
    around: &Surroundings,
    now: Timestamp,
) -> Option<Held> {
    if plan.kind == RolloutKind::Rollback {
        return None;
    }
    let Some(schedule) = schedule else {
        return Some(Held::InvalidSetting {
            message: "its windows cannot be read".into(),
        });
    };
    waits(
        schedule,
        Duration::from_secs(member.estimate_secs.into()),
        &around.freezes,
        now,
    )
}

fn reason_of_disruption(
    plan: &RolloutPlan,
    member: &PlannedInstance,
    around: &Surroundings,
) -> Option<Held> {
    // What is down already does not get more down; else a broken instance would block its own repair.
    if plan.kind == RolloutKind::Rollback || around.down.contains(&member.instance) {
        return None;
    }
    let limits = &plan.request.limits;
    let tenant = around
        .tenants
        .get(plan.tenant(member))
        .copied()
        .unwrap_or_default();
    let host = around
        .hosts
        .get(&member.instance.host)
        .copied()
        .unwrap_or_default();
    let room = tenant.has_room(limits.tenant_percent) && host.has_room(limits.host_percent);
    (!room).then_some(Held::DisruptionBudget)
}

/// When a member takes from the failure budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CountedOn {
    /// When it fails.
    Failure,
    /// It has already.
    Already,
    /// Never: it was not well before.
    Never,
}

impl RolloutState {
    fn counted_on(&self, plan: &RolloutPlan, place: usize) -> CountedOn {
        if self.members[place].failed_before() {
            CountedOn::Already
        } else if plan.members[place].unhealthy_before {
            CountedOn::Never
        } else {
            CountedOn::Failure
        }
    }
}

/// How many more may be in flight.
struct Rooms {
    concurrency: u32,
    failures: u32,
}

impl Rooms {
    fn of(plan: &RolloutPlan, state: &RolloutState) -> Self {
        let in_flight = u32::try_from(state.claims().count()).unwrap_or(u32::MAX);
        // Those in flight, and those that failed and are tried again: until they have the release they have failed.
        let members = state.members.iter().enumerate();
        let may_count = members.filter(|(place, member)| match member {
            MemberState::Claimed { .. } => state.counted_on(plan, *place) != CountedOn::Never,
            other => other.failed_before(),
        });
        let may_count = u32::try_from(may_count.count()).unwrap_or(u32::MAX);
        let left = state
            .failure_limit(plan)
            .saturating_sub(state.tally().failures);
        Self {
            concurrency: plan.request.limits.max_concurrent.saturating_sub(in_flight),
            failures: left.saturating_sub(may_count),
        }
    }

    fn reason_full(&self, counted: CountedOn) -> Option<Held> {
        if self.concurrency == 0 {
            Some(Held::Concurrency)
        } else if self.failures == 0 && counted == CountedOn::Failure {
            Some(Held::FailureBudget)
        } else {
            None
        }
    }

    fn take(&mut self, counted: CountedOn) {
        self.concurrency -= 1;
        self.failures -= u32::from(counted == CountedOn::Failure);
    }
}
