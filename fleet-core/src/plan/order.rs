//! Who goes first.
//!
//! Cohort, priority, those whose last update failed after the others, and then a salted hash of release and instance:
//! the same after every restart and with every build, another one for each release (or as [`Stickiness`] says), so that
//! no tenant is always the guinea pig. Tenants take turns, so that a wave is never one tenant whole. fleet's own
//! container comes last. The order does not depend on the size of the waves: a larger percentage only adds instances to
//! the first wave.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::rollout_plan::PlannedInstance;
use crate::ids::InstanceId;
use crate::image::Digest;
use crate::model::Channel;

/// How long the order among equals lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stickiness {
    /// Each release has an order of its own.
    #[default]
    PerRelease,
    /// All releases have the same order among the instances of a channel; an instance that goes to another channel gets
    /// another place.
    PerChannel,
    /// An instance always has the same place.
    Fixed,
}

impl Stickiness {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PerRelease, Self::PerChannel, Self::Fixed];

    /// The word users write.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PerRelease => "per_release",
            Self::PerChannel => "per_channel",
            Self::Fixed => "fixed",
        }
    }
}

impl fmt::Display for Stickiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Stickiness {
    type Err = crate::ids::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|it| it.label() == text.trim());
        found.ok_or_else(|| crate::ids::IdError {
            expected: "per_release, per_channel or fixed",
            found: text.to_owned(),
        })
    }
}

/// What an instance is ordered by, first things first. Small, because all of them are sorted.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderKey {
    class: u64,
    hash: u64,
    tenant: u32,
    /// Place among the planned instances as they were given.
    place: u32,
}

impl OrderKey {
    /// Class and hash in one number: nothing is quicker to compare.
    fn number(&self) -> u128 {
        u128::from(self.class) << 64 | u128::from(self.hash)
    }
}

/// Hashes instances for one release.
#[derive(Debug, Clone)]
pub(super) struct Shuffle {
    begun: Sha256,
    stickiness: Stickiness,
}

impl Shuffle {
    pub(super) fn new(salt: &str, stickiness: Stickiness, digest: &Digest) -> Self {
        let mut begun = Sha256::new();
        begun.update(salt.as_bytes());
        begun.update([0]);
        // No digest reads like the other two.
        begun.update(match stickiness {
            Stickiness::PerRelease => digest.as_str().as_bytes(),
            Stickiness::PerChannel => b"channel",
            Stickiness::Fixed => b"fixed",
        });
        begun.update([0]);
        Self { begun, stickiness }
    }

    /// Whether the channel of an instance matters.
    pub(super) fn asks_for_channel(&self) -> bool {
        self.stickiness == Stickiness::PerChannel
    }

    /// The key of the planned instance at this place.
    pub(super) fn key(
        &self,
        member: &PlannedInstance,
        channel: Option<&Channel>,
        place: usize,
    ) -> OrderKey {
        OrderKey {
            class: class(member),
            hash: self.hash(&member.instance, channel),
            tenant: member.tenant,
            place: u32::try_from(place).unwrap_or(u32::MAX),
        }
    }

    /// `channel` is only heeded where it matters.
    pub(super) fn hash(&self, instance: &InstanceId, channel: Option<&Channel>) -> u64 {
        let mut hasher = self.begun.clone();
        if let (true, Some(Channel(channel))) = (self.asks_for_channel(), channel) {
            hasher.update(channel.as_bytes());
            hasher.update([0]);
        }
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

/// Puts planned instances in their order; their tenants are numbers below `tenants`. Each has a key ([`Shuffle::key`]).
pub(super) fn sort(members: &mut [PlannedInstance], mut keys: Vec<OrderKey>, tenants: usize) {
    keys.sort_unstable_by_key(OrderKey::number);
    // Equal hashes have an order as well.
    for equal in keys.chunk_by_mut(|a, b| a.number() == b.number()) {
        equal.sort_unstable_by_key(|key| &members[key.place as usize].instance);
    }
    let from = places_by_turn(&keys, tenants);
    drop(keys);
    rearrange(members, &from);
}

/// What comes before the hash, in one number: fleet itself last, cohort, priority, those that failed last.
fn class(member: &PlannedInstance) -> u64 {
    const COHORTS_MAX: u32 = (1 << 30) - 1;
    let own = u64::from(member.own) << 63;
    let cohort = u64::from(member.cohort.min(COHORTS_MAX)) << 33;
    // Negative ones first.
    let priority = u64::from(member.priority.cast_unsigned() ^ (1 << 31)) << 1;
    own | cohort | priority | u64::from(member.failed_before)
}

/// The places of the instances in the order in which they go: in each class those that are the first of their tenant,
/// then those that are the second, and so on. Those with the same turn stay as they are, sorted by everything else.
fn places_by_turn(keys: &[OrderKey], tenants: usize) -> Vec<u32> {
    let mut ordered: Vec<u32> = vec![0; keys.len()];
    // How many turns each tenant had, in the class at hand.
    let mut turns: Vec<u32> = vec![0; tenants];
    // How many have each turn, and then the place behind the last one of each.
    let mut ends: Vec<u32> = Vec::new();
    let mut sum = 0;
    for class in keys.chunk_by(|a, b| a.class == b.class) {
        ends.clear();
        for key in class {
            let turn = &mut turns[key.tenant as usize];
            match ends.get_mut(*turn as usize) {
                Some(count) => *count += 1,
                None => ends.push(1),
            }
            *turn += 1;
        }
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        // Backwards: the last one of a tenant has its last turn. Afterwards all turns are taken back, and no more was
        // looked at than this class: there may be as many classes as priorities.
        for key in class.iter().rev() {
            let turn = &mut turns[key.tenant as usize];
            *turn -= 1;
            let end = &mut ends[*turn as usize];
            *end -= 1;
            ordered[*end as usize] = key.place;
        }
    }
    ordered
}

/// Puts at each place what is at the place that `from` names for it, where it is: a second copy of all of it costs more.
/// Each step is known without the one before it, as it would not be along the cycles of the order, so the processor need
/// not wait for what it fetches.
fn rearrange<T>(items: &mut [T], from: &[u32]) {
    /// Of one place: where its item is now, and which item is here now. Items go by the place that they had.
    #[derive(Clone, Copy)]
    struct Now {
        went_to: u32,
        holds: u32,
    }
    let places = (0u32..).take(items.len());
    let same = |place| Now {
        went_to: place,
        holds: place,
    };
    let mut now: Vec<Now> = places.map(same).collect();
    for (at, &wanted) in from.iter().enumerate() {
        let source = now[wanted as usize].went_to;
        items.swap(at, source as usize);
        let displaced = now[at].holds;
        now[source as usize].holds = displaced;
        now[displaced as usize].went_to = source;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_goes_where_it_is_wanted(order in Just((0u32..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut items: Vec<u32> = (0..40).map(|place| place * 10).collect();
            rearrange(&mut items, &order);
            let expect: Vec<u32> = order.iter().map(|place| place * 10).collect();
            prop_assert_eq!(items, expect);
        }
    }

    #[test]
    fn stickiness_is_written_as_it_is_read() {
        for stickiness in Stickiness::ALL {
            assert_eq!(stickiness.label().parse(), Ok(stickiness));
            let json = serde_json::to_value(stickiness).unwrap();
            assert_eq!(json, stickiness.label());
        }
        let error = "always".parse::<Stickiness>().unwrap_err();
        assert_eq!(error.expected, "per_release, per_channel or fixed");
    }
}
