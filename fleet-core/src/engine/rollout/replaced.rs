//! A rollout that takes the place of others: from when on.

use crate::plan::rollout::Phase;
use crate::ports::StoredRollout;

/// Whether a newer rollout takes the place of an older one by now. One that nobody approved yet stops nothing that was:
/// if it is denied, the older one would have ended for nothing, with half of its instances.
pub(super) fn takes_the_place_of(newer: &StoredRollout, older: &StoredRollout) -> bool {
    !waits_for_approval(newer) || waits_for_approval(older)
}

fn waits_for_approval(StoredRollout { plan, state, .. }: &StoredRollout) -> bool {
    match state.phase {
        Phase::AwaitingApproval => true,
        Phase::Planned => plan.request.needs_approval,
        _ => false,
    }
}
