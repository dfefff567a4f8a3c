//! What drives one instance's update, seen from a rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::ids::{InstanceId, RolloutId, TenantId, UpdateId};
use crate::image::PinnedImage;
use crate::model::labels::LabelMode;
use crate::model::{FleetSettings, UpdateConfig};
use crate::plan::rollout::{Ending, Surroundings, UpdateEnd};
use crate::plan::strategy::FailureKind;
use crate::plan::{Asked, Candidate, Held, InstanceState, PlannerSettings, RolloutKind};
use crate::time::Timestamp;
use crate::update::{Fault, Outcome};

/// How long an instance that said "not now" is left alone.
const NOT_NOW_PAUSE: Duration = Duration::from_secs(600);

/// Why the updater could not answer. `Display` leaves the source out.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UpdaterError {
    /// What failed.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The order to update one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateOrder {
    /// The id under which the update stands in the journal.
    pub id: UpdateId,
    /// The rollout that orders it.
    pub rollout: RolloutId,
    /// Which way: a rollback goes to what ran before.
    pub kind: RolloutKind,
    /// Who asked for the rollout.
    pub actor: String,
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// What it shall run.
    pub target: PinnedImage,
    /// Others of its group and what they shall run: in the same update.
    pub with: Vec<(InstanceId, PinnedImage)>,
    /// Others of its wave whose updates are under way or to come: what they need may be made for all of them at once.
    pub beside: Vec<InstanceId>,
    /// Its health timeout.
    pub health_timeout: Duration,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Lift the quarantine of the digest on this instance first.
    pub retry_quarantined: bool,
    /// Windows were overridden.
    pub override_window: bool,
}

/// What became of an order that an earlier process gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// No update began under this id, and none will.
    NeverBegan,
    /// It is not over: recovery has it, or will.
    Open,
    /// It ended.
    Ended(UpdateEnd),
}

/// One instance as a rollout's surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Whether it is well.
    pub healthy: bool,
    /// What is known of its updates.
    pub state: InstanceState,
    /// The mode that its own label chooses.
    pub label_mode: Option<LabelMode>,
    /// The mode that holds, see [`crate::plan::effective_mode`].
    pub mode: LabelMode,
}

/// The fleet at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetView {
    /// Mode, pause and the other settings.
    pub settings: FleetSettings,
    /// Configs of the tenants that have one.
    pub tenants: BTreeMap<TenantId, UpdateConfig>,
    /// Every managed instance, whatever it runs.
    pub instances: Vec<InstanceView>,
}

impl FleetView {
    /// What admissions must know.
    #[must_use]
    pub fn surroundings(&self, settings: &PlannerSettings) -> Surroundings {
        let mut around = Surroundings {
            freezes: settings.freezes.clone(),
            ..Surroundings::default()
        };
        for view in &self.instances {
            let busy = match view.state {
                InstanceState::Idle => None,
                InstanceState::Updating => Some(Held::Updating),
                InstanceState::NeedsOperator => Some(Held::NeedsOperator),
                InstanceState::Diverged => Some(Held::Diverged),
            };
            let down = !view.healthy || busy.is_some();
            around.add(&view.instance, &view.tenant, down);
            if let Some(held) = busy {
                around.busy.insert(view.instance.clone(), held);
            }
        }
        around
    }
}

/// Updates instances for rollouts, and knows the fleet.
///
/// # Guarantees that rollouts rely on
/// An update is journalled under the id of its order. After a restart, once recovery ran, [`Updater::happened`] tells
/// what became of every id. Mode, windows and waves are the rollout's business: the updater does not ask for them again,
/// except for a pause and for what makes an update unsafe.
#[async_trait]
pub trait Updater: Send + Sync {
    /// Updates one instance; returns when the update is over. Dropping the future is a crash of that update.
    async fn update_instance(&self, order: &UpdateOrder) -> UpdateEnd;

    /// What became of an order that this process did not give.
    ///
    /// # Errors
    /// The journal cannot be read.
    async fn happened(&self, update: &UpdateId) -> Result<Happened, UpdaterError>;

    /// Removes what an earlier process made for the updates of a rollout and none of them counts on any more. What cannot
    /// be removed now costs nothing but room. By default there is nothing.
    async fn remove_leftovers(&self, rollout: &RolloutId) {
        let _ = rollout;
    }

    /// What an instance ran before a rollout updated it; none if nobody knows.
    ///
    /// # Errors
    /// The journal cannot be read.
    async fn ran_before(
        &self,
        rollout: &RolloutId,
        instance: &InstanceId,
    ) -> Result<Option<PinnedImage>, UpdaterError>;

    /// The fleet as it is now.
    ///
    /// # Errors
    /// Engine or stores do not answer.
    async fn fleet(&self) -> Result<FleetView, UpdaterError>;

    /// Instances that a rollout of this target could be about: for detection those that follow the target's reference
    /// in the channel that was polled, otherwise all of its repository.
    ///
    /// # Errors
    /// Engine or stores do not answer.
    async fn candidates(
        &self,
        target: &PinnedImage,
        asked: &Asked,
    ) -> Result<Vec<Candidate>, UpdaterError>;

    /// Whether engine and registry answer for this target; asked while infrastructure failures hold a rollout.
    async fn probe(&self, target: &PinnedImage) -> bool;

    /// Whether a snapshot of this instance fits on the disk now; asked while a lack of space holds a rollout.
    async fn has_space(&self, instance: &InstanceId) -> bool;
}

/// What an update's outcome means for a rollout.
#[must_use]
pub fn update_end(
    outcome: Outcome,
    fault: Option<Fault>,
    reason: &str,
    now: Timestamp,
) -> UpdateEnd {
    let why = reason.to_owned();
    let unsuccessful = |how, kind| UpdateEnd::Unsuccessful {
        how,
        kind,
        why: why.clone(),
    };
    match (outcome, fault) {
        (Outcome::Committed, _) => UpdateEnd::Committed,
        (Outcome::Unchanged, _) => UpdateEnd::Unchanged,
        (Outcome::NeedsOperator | Outcome::Diverged, _) => {
            unsuccessful(Ending::NeedsOperator, FailureKind::NeedsPerson)
        }
        (Outcome::RolledBack, Some(Fault::Release) | None) => {
            unsuccessful(Ending::RolledBack, FailureKind::Release)
        }
        (Outcome::RolledBack, Some(_)) => {
            unsuccessful(Ending::RolledBack, FailureKind::Infrastructure)
        }
        (Outcome::Refused | Outcome::Failed, Some(Fault::NotNow)) => UpdateEnd::Deferred {
            until: now.saturating_add(NOT_NOW_PAUSE),
            why,
        },
        (Outcome::Failed, Some(Fault::Release)) => {
            unsuccessful(Ending::Failed, FailureKind::Release)
        }
        (Outcome::Refused, Some(Fault::Refusal | Fault::Release) | None)
        | (Outcome::Failed, Some(Fault::Refusal)) => UpdateEnd::Refused { why },
        (Outcome::Refused | Outcome::Failed, Some(Fault::Infrastructure | Fault::Foreign))
        | (Outcome::Failed, None) => unsuccessful(Ending::Failed, FailureKind::Infrastructure),
    }
}
