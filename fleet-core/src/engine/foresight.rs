//! What a plan does not know by itself: which of its instances would be refused at their turn, and what their snapshots
//! need on the disk.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Fleet, FleetError, Survey};
use crate::ids::{ContainerId, InstanceId};
use crate::model::SnapshotEstimate;
use crate::plan::{DiskNeed, RolloutPlan};
use crate::update::{Group, Refusal, error_chain, group};

/// Containers that are looked at at the same time.
const LOOKED_AT_ONCE: usize = 4;

/// What would become of a plan if it began now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foresight {
    /// What would be refused, but for what a plan says by itself: pauses and windows.
    pub refusals: Vec<(InstanceId, Refusal)>,
    /// What the snapshots need; none if a volume cannot be measured.
    pub disk: Option<DiskNeed>,
}

/// What was found out about one container.
struct Looked {
    refusals: Vec<Refusal>,
    /// What its snapshot needs; none if nobody can say.
    needed_bytes: Option<u64>,
}

impl Fleet {
    /// Looks at the instances of a plan, and at what must move together with them: each container, and so each volume,
    /// once. Reads only; instances that are not there any more are left out.
    ///
    /// # Errors
    /// The engine or the store cannot be asked.
    pub async fn foresee(&self, plan: &RolloutPlan) -> Result<Foresight, FleetError> {
        let survey = &self.survey().await?;
        let groups: Vec<Option<Group>> = plan
            .members
            .iter()
            .map(|member| group_of(survey, &member.instance))
            .collect();
        let containers: BTreeSet<ContainerId> = groups
            .iter()
            .flatten()
            .flat_map(|group| group.members.iter().cloned())
            .collect();
        let looking = stream::iter(containers).map(|id| async move {
            let looked = self.look_at(survey, &id).await?;
            Ok::<_, FleetError>((id, looked))
        });
        let looked: BTreeMap<ContainerId, Looked> = looking
            .buffer_unordered(LOOKED_AT_ONCE)
            .try_collect()
            .await?;
        let mut refusals = Vec::new();
        for (member, group) in plan.members.iter().zip(&groups) {
            let Some(group) = group else { continue };
            let own = group.members.iter().filter_map(|id| looked.get(id));
            let own = own.flat_map(|looked| &looked.refusals);
            let all = group.refusals.iter().chain(own);
            let standing = all.filter(|refusal| refusal.code != "outside_window");
            // Those that move with it are refused with it.
            for refusal in standing {
                let each = member.instances().cloned();
                refusals.extend(each.map(|instance| (instance, refusal.clone())));
            }
        }
        let disk = match bytes_of_members(&groups, &looked) {
            Some(members) => self.disk_need(plan, &members).await,
            None => None,
        };
        Ok(Foresight { refusals, disk })
    }

    async fn look_at(&self, survey: &Survey, id: &ContainerId) -> Result<Looked, FleetError> {
        // A volume that cannot be measured must not keep the rest of the plan from being shown.
        let (estimate, needed_bytes) = match self.estimate_of(survey, id).await {
            Ok(estimate) => (estimate, Some(estimate.map_or(0, |it| it.needed_bytes))),
            Err(error) => {
                tracing::warn!(container = %id, error = error_chain(&error), "its volumes cannot be measured");
                (None, None)
            }
        };
        Ok(Looked {
            refusals: self.objections_to_one(survey, id, estimate).await?,
            needed_bytes,
        })
    }

    async fn disk_need(&self, plan: &RolloutPlan, members: &[u64]) -> Option<DiskNeed> {
        let space: Result<SnapshotEstimate, _> = self.ports.update.snapshots.estimate(&[]).await;
        match space {
            Ok(space) => Some(DiskNeed::of(plan, members, space)),
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    "nobody can say how much space is free"
                );
                None
            }
        }
    }
}

/// What must move together with an instance; none if it is not there any more.
fn group_of(survey: &Survey, instance: &InstanceId) -> Option<Group> {
    let managed = survey.workload(instance.name.as_str())?;
    let id = std::slice::from_ref(&managed.container.id);
    Some(group(&survey.inventory, &survey.settings, id))
}

/// What each member of the plan needs: its own snapshot and those of what moves with it, each counted once, with the
/// first that takes it along.
fn bytes_of_members(
    groups: &[Option<Group>],
    looked: &BTreeMap<ContainerId, Looked>,
) -> Option<Vec<u64>> {
    let mut counted: BTreeSet<&ContainerId> = BTreeSet::new();
    let members = groups.iter().map(|group| {
        let mut bytes: u64 = 0;
        for id in group.iter().flat_map(|group| &group.members) {
            if counted.insert(id) {
                bytes = bytes.saturating_add(looked.get(id)?.needed_bytes?);
            }
        }
        Some(bytes)
    });
    members.collect()
}
