//! What ran on an instance before what runs now, by its finished updates.

use std::collections::BTreeSet;

use super::{Outcome, UpdateState};
use crate::ids::InstanceId;
use crate::image::Digest;
use crate::ports::StoredUpdate;

/// Digests and image ids that an instance ran before its last committed update, for
/// [`crate::detect::Known::with_former`]. `history` is newest first.
#[must_use]
pub fn former_digests(instance: &InstanceId, history: &[StoredUpdate]) -> BTreeSet<Digest> {
    let committed = history.iter().filter(|update| update.outcome == Some(Outcome::Committed));
    let mut digests = BTreeSet::new();
    for (age, update) in committed.enumerate() {
        let members = &update.plan.members;
        let Some(at) = members.iter().position(|member| &member.instance == instance) else {
            continue;
        };
        let target = members[at].target.as_ref().filter(|_| age > 0);
        digests.extend(target.map(|target| target.image.digest.clone()));
        let state = UpdateState::replay(update.plan.clone(), &update.entries);
        let facts = state.members.get(at).map(|member| &member.facts);
        let frozen = facts.and_then(|facts| facts.frozen.as_ref());
        digests.extend(frozen.and_then(|f| f.container.image_id.as_str().parse::<Digest>().ok()));
    }
    digests
}
