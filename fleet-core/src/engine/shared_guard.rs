//! One guard for several instances that a rollout updates at the same time.
//!
//! To start a container is what costs most in an update, and an update starts two: the new version and its guard. What is
//! made from one image and sits on the same networks can be held by one guard. It is raised when the first of them begins
//! and removed when none is under way any more. An update that finds it gone, or without something that it needs, raises
//! a guard of its own; so nothing depends on this but speed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Fleet, FleetError, Survey};
use crate::ids::{InstanceId, RolloutId};
use crate::model::labels;
use crate::ports::{CreateRequest, GuardOwner, GuardRequest};
use crate::update::Belongings;

/// Containers that one guard stands for at most: as many are bound to the rollout while it runs, those that only wait
/// included.
const CONTAINERS_MAX: usize = 32;

/// The shared guards of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedGuards {
    /// Locked while one is removed: who comes meanwhile does not count on one that goes.
    raised: Arc<Mutex<Raised>>,
}

#[derive(Debug, Default)]
struct Raised {
    guards: Vec<Shared>,
    /// How many there were.
    count: u32,
}

#[derive(Debug)]
struct Shared {
    name: String,
    rollout: RolloutId,
    instances: BTreeSet<InstanceId>,
    /// Updates under way that count on it.
    users: usize,
}

/// A share in a guard. To be given back ([`Fleet::leave_guard`]).
#[derive(Debug)]
pub(super) struct Share {
    /// The guard's name.
    pub(super) name: String,
    /// For whoever came first: what is to be made.
    request: Option<GuardRequest>,
}

impl Fleet {
    /// A share in the guard that holds an instance together with others of its rollout; none where it shall have its own.
    pub(super) async fn join_guard(
        &self,
        rollout: RolloutId,
        instance: &InstanceId,
        beside: &[InstanceId],
        survey: &Survey,
    ) -> Option<Share> {
        let mut raised = self.shared.raised.lock().await;
        let known = raised
            .guards
            .iter_mut()
            .find(|shared| shared.rollout == rollout && shared.instances.contains(instance));
        if let Some(shared) = known {
            shared.users += 1;
            return Some(Share {
                name: shared.name.clone(),
                request: None,
            });
        }
        let (instances, belongings) = alike(instance, beside, survey)?;
        let name = GuardRequest::shared_name(&rollout, raised.count);
        raised.count += 1;
        raised.guards.push(Shared {
            name: name.clone(),
            rollout,
            instances,
            users: 1,
        });
        Some(Share {
            request: Some(belongings.request(GuardOwner::Rollout(rollout), name.clone())),
            name,
        })
    }

    /// Makes the guard, where this is the first share in it: while the updates that count on it come to the step in which
    /// they need it.
    pub(super) async fn raise_guard(&self, share: &mut Share) {
        let Some(request) = share.request.take() else {
            return;
        };
        let request = CreateRequest::Guard(Box::new(request));
        if let Err(error) = self.ports.update.runtime.create(&request).await {
            tracing::debug!(guard = share.name, %error, "each update raises its own guard");
        }
    }

    /// Gives a share back. The last one removes the guard, unless an update that is not over, such as one that waits for a
    /// person, counts on it: then it goes when that one is ([`Fleet::remove_unused_guard`]).
    pub(super) async fn leave_guard(&self, share: Share) {
        let mut raised = self.shared.raised.lock().await;
        let mut guards = raised.guards.iter();
        let Some(place) = guards.position(|shared| shared.name == share.name) else {
            return;
        };
        raised.guards[place].users -= 1;
        if raised.guards[place].users > 0 {
            return;
        }
        raised.guards.remove(place);
        if let Err(error) = self.remove_if_unused(&share.name).await {
            tracing::warn!(guard = share.name, %error, "a guard could not be removed");
        }
    }

    /// Removes a guard on which an update counted that is over now, if nobody else does: one of an earlier process, or one
    /// that an update kept which waited for a person.
    pub(super) async fn remove_unused_guard(&self, name: &str) -> Result<(), FleetError> {
        let raised = self.shared.raised.lock().await;
        if raised.guards.iter().any(|shared| shared.name == name) {
            return Ok(());
        }
        self.remove_if_unused(name).await
    }

    /// Removes what an earlier process raised for a rollout and no update counts on.
    pub(super) async fn remove_guards_left(
        &self,
        rollout: &RolloutId,
        survey: &Survey,
    ) -> Result<(), FleetError> {
        let rollout = rollout.to_string();
        for container in &survey.inventory.containers {
            let is_of_it = container.labels.get(labels::ROLLOUT) == Some(&rollout);
            if is_of_it && labels::is_auxiliary(&container.labels) {
                self.remove_unused_guard(&container.name).await?;
            }
        }
        Ok(())
    }

    async fn remove_if_unused(&self, name: &str) -> Result<(), FleetError> {
        let open = self.ports.update.journal.load_open().await?;
        let mut plans = open.iter().map(|update| &update.plan);
        if plans.any(|plan| plan.shared_guard.as_deref() == Some(name)) {
            return Ok(());
        }
        let runtime = &self.ports.update.runtime;
        let found = runtime.find(name).await?;
        match found.filter(|found| found.labels.contains_key(labels::ROLLOUT)) {
            Some(guard) => Ok(runtime.remove(&guard.id).await?),
            None => Ok(()),
        }
    }
}

/// Those of `beside` that one guard may hold together with an instance, and what it holds then; none where there is nobody.
fn alike(
    instance: &InstanceId,
    beside: &[InstanceId],
    survey: &Survey,
) -> Option<(BTreeSet<InstanceId>, Belongings)> {
    let of = |instance: &InstanceId| {
        let managed = survey.workload(instance.name.as_str())?;
        Some(Belongings::of(managed.container))
    };
    let mut all = of(instance)?;
    let mut instances = BTreeSet::from([instance.clone()]);
    for other in beside {
        if instances.len() == CONTAINERS_MAX {
            break;
        }
        if of(other).is_some_and(|belongings| all.add(belongings)) {
            instances.insert(other.clone());
        }
    }
    (instances.len() > 1).then_some((instances, all))
}
