//! Who goes first.
//!
//! Cohort, priority, those whose last update failed after the others, and then a salted hash of release and instance:
//! the same after every restart and with every build, another one for each release, so that no tenant is always the
//! guinea pig. Tenants take turns, so that a wave is never one tenant whole. fleet's own container comes last. The order
//! does not depend on the size of the waves: a larger percentage only adds instances to the first wave.

use sha2::{Digest as _, Sha256};

use super::rollout_plan::PlannedInstance;
use crate::ids::InstanceId;
use crate::image::Digest;

/// What an instance is ordered by, first things first.
#[derive(Debug, Clone, Copy)]
struct OrderKey {
    own: bool,
    cohort: u32,
    priority: i32,
    failed_before: bool,
    /// How many instances of the same tenant go before it, among those equal so far.
    turn: u32,
    hash: u64,
    tenant: u32,
    /// Place among the planned instances as they were given.
    place: u32,
}

/// Hashes instances for one release.
#[derive(Debug, Clone)]
pub(super) struct Shuffle(Sha256);

impl Shuffle {
    pub(super) fn new(salt: &str, digest: &Digest) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(salt.as_bytes());
        hasher.update([0]);
        hasher.update(digest.as_str().as_bytes());
        hasher.update([0]);
        Self(hasher)
    }

    pub(super) fn hash(&self, instance: &InstanceId) -> u64 {
        let mut hasher = self.0.clone();
        hasher.update(instance.host.as_str().as_bytes());
        hasher.update([0]);
        hasher.update(instance.name.as_str().as_bytes());
        let bytes = hasher.finalize();
        bytes
            .iter()
            .take(8)
            .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }
}

/// Rank of a cohort: its place in the list, behind the list if it is not in it.
pub(super) fn cohort_rank(cohorts: &[String], cohort: Option<&str>) -> u32 {
    let rank = cohort
        .and_then(|cohort| cohorts.iter().position(|known| known == cohort))
        .unwrap_or(cohorts.len());
    u32::try_from(rank).unwrap_or(u32::MAX)
}

/// Puts planned instances in their order; their tenants are numbers below `tenants`.
pub(super) fn sorted(
    members: Vec<PlannedInstance>,
    tenants: usize,
    shuffle: &Shuffle,
) -> Vec<PlannedInstance> {
    let mut keys: Vec<OrderKey> = members
        .iter()
        .zip(0u32..)
        .map(|(member, place)| OrderKey {
            own: member.own,
            cohort: member.cohort,
            priority: member.priority,
            failed_before: member.failed_before,
            turn: 0,
            hash: shuffle.hash(&member.instance),
            tenant: member.tenant,
            place,
        })
        .collect();
    keys.sort_unstable_by(|a, b| {
        let instance = |key: &OrderKey| &members[key.place as usize].instance;
        (a.class(), a.hash)
            .cmp(&(b.class(), b.hash))
            // Equal hashes have an order as well.
            .then_with(|| instance(a).cmp(instance(b)))
    });
    take_turns(&mut keys, tenants);
    let mut members: Vec<_> = members.into_iter().map(Some).collect();
    by_turn(&keys)
        .into_iter()
        .filter_map(|key| members[key.place as usize].take())
        .collect()
}

/// Puts the instances of each class in the order of their turns, and leaves those with the same turn as they are: the
/// keys are sorted by everything else already.
fn by_turn(keys: &[OrderKey]) -> Vec<OrderKey> {
    let mut ordered = keys.to_vec();
    let mut start = 0;
    for class in keys.chunk_by(|a, b| a.class() == b.class()) {
        // Where the next key of each turn goes.
        let mut next: Vec<usize> = Vec::new();
        for key in class {
            let turn = key.turn as usize;
            if next.len() <= turn {
                next.resize(turn + 1, 0);
            }
            next[turn] += 1;
        }
        let mut sum = start;
        for count in &mut next {
            sum += std::mem::replace(count, sum);
        }
        for key in class {
            let place = &mut next[key.turn as usize];
            ordered[*place] = *key;
            *place += 1;
        }
        start += class.len();
    }
    ordered
}

impl OrderKey {
    fn class(&self) -> (bool, u32, i32, bool) {
        (self.own, self.cohort, self.priority, self.failed_before)
    }
}

/// Numbers the instances of each tenant within each class, in their present order.
fn take_turns(keys: &mut [OrderKey], tenants: usize) {
    let mut turns = vec![0; tenants];
    for class in keys.chunk_by_mut(|a, b| a.class() == b.class()) {
        for key in &mut *class {
            let turn = &mut turns[key.tenant as usize];
            key.turn = *turn;
            *turn += 1;
        }
        // Only what was counted: there may be as many classes as priorities.
        for key in class {
            turns[key.tenant as usize] = 0;
        }
    }
}
