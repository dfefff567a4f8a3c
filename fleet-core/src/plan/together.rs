//! What moves together: held together, and planned as one.

use std::collections::{HashMap, HashSet};

use super::candidate::Candidate;
use super::held::Held;
use super::rollout_plan::{Companion, HeldInstance, PlannedInstance};
use crate::ids::{InstanceId, InstanceName};

/// The candidates that belong to a group. Mostly there are none.
#[derive(Debug, Default)]
pub(super) struct Together<'a> {
    /// Those in the plan: the group, and the place among the members.
    planned: Vec<(&'a InstanceName, usize)>,
    /// Of each group that is held, the first that holds it.
    blocked: HashMap<&'a InstanceName, &'a InstanceId>,
}

impl<'a> Together<'a> {
    /// A candidate becomes the member at this place.
    pub(super) fn planned(&mut self, candidate: &'a Candidate, place: usize) {
        if let Some(group) = &candidate.group {
            self.planned.push((group, place));
        }
    }

    /// A candidate is not in the plan. One that is held holds all of its group, unless there is nothing for it to do.
    pub(super) fn held(&mut self, candidate: &'a Candidate, why: &Held) {
        let harmless = matches!(why, Held::NotBehind | Held::NotInScope);
        if let (Some(group), false) = (&candidate.group, harmless) {
            self.blocked.entry(group).or_insert(&candidate.instance);
        }
    }

    /// Takes out what is held by others, and lets one member stand for those of its group that may begin at the same times:
    /// the group's first container, or else the first by name.
    ///
    /// Whether the members may have changed.
    pub(super) fn settle(
        self,
        members: &mut Vec<PlannedInstance>,
        held: &mut Vec<HeldInstance>,
    ) -> bool {
        if self.planned.is_empty() {
            return false;
        }
        let mut leaving = HashSet::new();
        let mut sets: HashMap<(&InstanceName, u32), Vec<usize>> = HashMap::new();
        for (group, place) in self.planned {
            let member = &members[place];
            if let Some(by) = self.blocked.get(group) {
                leaving.insert(place);
                held.push(HeldInstance {
                    instance: member.instance.clone(),
                    tenant: member.tenant,
                    why: Held::GroupBlocked { by: (*by).clone() },
                });
            } else if !member.own {
                let set = sets.entry((group, member.schedule)).or_default();
                set.push(place);
            }
        }
        for ((root, _), mut places) in sets {
            places.sort_by_key(|&place| {
                let name = &members[place].instance.name;
                (name != root, name)
            });
            let lead = places.remove(0);
            for place in places {
                leaving.insert(place);
                let companion = members[place].clone();
                let lead = &mut members[lead];
                lead.estimate_secs = lead.estimate_secs.max(companion.estimate_secs);
                lead.failed_before |= companion.failed_before;
                lead.with.push(Companion {
                    instance: companion.instance,
                    from: companion.from,
                    to: companion.to,
                    reference: None,
                });
            }
        }
        let mut places = 0..;
        members.retain(|_| places.next().is_some_and(|place| !leaving.contains(&place)));
        true
    }
}
