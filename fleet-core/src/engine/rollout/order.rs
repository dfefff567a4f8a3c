//! What the updater is told to do.

use std::time::Duration;

use super::updater::UpdateOrder;
use crate::ids::InstanceId;
use crate::plan::RolloutKind;
use crate::plan::rollout::MemberState;
use crate::ports::StoredRollout;

/// So many instances beside it an order names at most.
const BESIDE_MAX: usize = 64;

/// The order for a member that was just claimed.
pub(super) fn order(stored: &StoredRollout, place: usize) -> Option<UpdateOrder> {
    let StoredRollout { plan, state, .. } = stored;
    let member = &plan.members[place];
    let MemberState::Claimed {
        update: id,
        attempt,
        failed,
        ..
    } = state.members[place]
    else {
        return None;
    };
    Some(UpdateOrder {
        id,
        rollout: plan.id(),
        kind: plan.kind,
        actor: plan.request.actor.clone(),
        instance: member.instance.clone(),
        tenant: plan.tenant(member).clone(),
        target: plan.image(member.reference, member.to),
        with: member
            .with
            .iter()
            .map(|it| (it.instance.clone(), plan.image(it.reference, it.to)))
            .collect(),
        beside: beside(stored, place),
        health_timeout: Duration::from_millis(member.health_timeout_ms.into()),
        attempt,
        // Its own failure quarantined the digest: whoever tries again takes it once more.
        retry_quarantined: plan.request.retry_quarantined
            || plan.kind == RolloutKind::Rollback
            || failed,
        override_window: plan.request.override_window,
    })
}

/// The instances of a member's wave that are not over, without its own.
fn beside(StoredRollout { plan, state, .. }: &StoredRollout, place: usize) -> Vec<InstanceId> {
    let wave = plan
        .wave_range(plan.wave_of(place))
        .filter(|other| *other != place);
    wave.filter(|other| state.members[*other].ending().is_none())
        .flat_map(|other| plan.members[other].instances().cloned())
        .take(BESIDE_MAX)
        .collect()
}
