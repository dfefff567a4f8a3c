//! What an update is going to do: fixed before its first step, and never changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ContainerId, InstanceId, RolloutId, SnapshotId, TenantId, UpdateId};
use crate::image::PinnedImage;
use crate::model::{HealthSpec, Release, SnapshotChoice};

/// The plan of one update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// Version of the saga that wrote it.
    pub saga: u32,
    /// Id.
    pub id: UpdateId,
    /// Who asked.
    pub actor: String,
    /// The rollout it belongs to.
    pub rollout: Option<RolloutId>,
    /// What moves together, in the order of starting: parents and dependencies first. One for a single instance.
    pub members: Vec<MemberPlan>,
    /// How many snapshots are kept for each member after a commit.
    pub keep_snapshots: u32,
    /// Age from which a snapshot goes after a commit, however few there are; the newest stays. None: whatever its age.
    #[serde(default)]
    pub snapshot_max_age: Option<Duration>,
    /// Name of a guard that the rollout raised for several of its instances. Where it does not hold all that this update
    /// needs, the update raises its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_guard: Option<String>,
}

/// The plan for one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPlan {
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The container that runs it now.
    pub container: ContainerId,
    /// What it runs now, as far as that is known; not asked for where it is only made again.
    #[serde(default)]
    pub before: Option<PinnedImage>,
    /// The release to move to; none where the member is only made again because a parent is.
    pub target: Option<Release>,
    /// What `Config.Image` of the new container shall read.
    pub image: String,
    /// The health gate.
    pub health: HealthSpec,
    /// Grace of the stop; none means the container's own.
    pub stop_grace: Option<Duration>,
    /// Which volumes are copied.
    pub snapshot: SnapshotChoice,
    /// Id of the snapshot.
    pub snapshot_id: SnapshotId,
    /// Command in the old container before the disarm.
    pub pre_hook: Option<Vec<String>>,
    /// Command in the new container after the commit.
    pub post_hook: Option<Vec<String>>,
    /// Data in the writable layer may be lost.
    pub discard_writable_layer: bool,
}

impl UpdatePlan {
    /// The version of the saga that this code writes.
    pub const SAGA: u32 = 1;

    /// The member that the update is about: the first with a target.
    #[must_use]
    pub fn primary(&self) -> &MemberPlan {
        self.members
            .iter()
            .find(|member| member.target.is_some())
            .unwrap_or(&self.members[0])
    }
}
