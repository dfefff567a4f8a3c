//! What this process works on at the moment, so that no two of its tasks work on the same thing.
//!
//! The journal keeps processes apart, and updates of one instance. Within one process recovery must also leave alone
//! what another task is driving, and nobody may touch volumes by hand while an update moves them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ids::{InstanceId, UpdateId};
use crate::update::UpdatePlan;

/// The work under way in this process. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Live {
    works: Arc<watch::Sender<Vec<Work>>>,
    stopping: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Work {
    update: Option<UpdateId>,
    instances: Vec<InstanceId>,
}

/// The right to work on something, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    of: Live,
    work: Work,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            works: Arc::new(watch::Sender::new(Vec::new())),
            stopping: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Live {
    /// Claims an update with its instances, none if another task works on one of them.
    pub(super) fn claim(&self, plan: &UpdatePlan) -> Option<Claim> {
        let members = plan.members.iter();
        self.take(Work {
            update: Some(plan.id),
            instances: members.map(|member| member.instance.clone()).collect(),
        })
    }

    /// Claims an instance for work by hand, none if another task works on it.
    pub(super) fn claim_instance(&self, instance: &InstanceId) -> Option<Claim> {
        self.take(Work {
            update: None,
            instances: vec![instance.clone()],
        })
    }

    fn take(&self, work: Work) -> Option<Claim> {
        let taken = self.works.send_if_modified(|works| {
            let free = !works.iter().any(|other| other.collides(&work));
            if free {
                works.push(work.clone());
            }
            free
        });
        taken.then(|| Claim {
            of: self.clone(),
            work,
        })
    }

    /// Asks everybody to stop where it does no harm, and to begin nothing.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether somebody asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until somebody asks to stop.
    pub(super) async fn stopping(&self) {
        // The sender lives as long as this does.
        let _ = self.stopping.subscribe().wait_for(|stop| *stop).await;
    }

    /// Waits until nothing is under way.
    pub(super) async fn idle(&self) {
        let _ = self.works.subscribe().wait_for(Vec::is_empty).await;
    }
}

impl Work {
    fn collides(&self, other: &Self) -> bool {
        self.update.is_some() && self.update == other.update
            || self
                .instances
                .iter()
                .any(|instance| other.instances.contains(instance))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.of.works.send_modify(|works| {
            if let Some(place) = works.iter().position(|work| *work == self.work) {
                works.swap_remove(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::ids::InstanceName;

    fn instance(name: &str) -> InstanceId {
        InstanceId::local(InstanceName::new(name).unwrap())
    }

    #[test]
    fn what_is_claimed_is_claimed_once_until_it_is_dropped() {
        let live = Live::default();
        let claim = live.claim_instance(&instance("web")).unwrap();
        assert!(live.clone().claim_instance(&instance("web")).is_none());
        assert!(live.claim_instance(&instance("db")).is_some());
        assert_eq!(live.idle().now_or_never(), None);
        drop(claim);
        assert!(live.claim_instance(&instance("web")).is_some());
        assert_eq!(live.idle().now_or_never(), Some(()));
    }

    #[test]
    fn everybody_hears_that_it_stops() {
        let live = Live::default();
        assert!(!live.is_stopping());
        assert_eq!(live.stopping().now_or_never(), None);
        live.clone().stop();
        assert!(live.is_stopping());
        assert_eq!(live.stopping().now_or_never(), Some(()));
    }
}
