//! The plan of a rollout: fixed before it begins, and never changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::candidate::Request;
use super::held::Held;
use super::order::Stickiness;
use super::strategy::{FailureBudget, WaveGate};
use super::window::{Policy, Schedule, WeeklyCalendar, WindowError};
use crate::ids::{InstanceId, RolloutId, TenantId};
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::Channel;
use crate::time::Timestamp;

/// What an update is taken to last where nothing is known of earlier ones.
pub const DEFAULT_ESTIMATE: Duration = Duration::from_secs(600);

/// Which way a rollout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutKind {
    /// To a release.
    Forward,
    /// Back to what each instance ran before, after an abort.
    Rollback,
}

/// What a rollout is going to do. Tenants, digests and schedules stand in tables, since many instances share them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Version of this format.
    pub schema: u32,
    /// Which way it goes.
    pub kind: RolloutKind,
    /// What was asked for.
    pub request: Request,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// Failures that end it.
    pub budget: FailureBudget,
    /// How long the order among equals lasts.
    #[serde(default)]
    pub stickiness: Stickiness,
    /// Tenants that [`PlannedInstance::tenant`] points to.
    pub tenants: Vec<TenantId>,
    /// Digests that [`PlannedInstance::from`] and [`PlannedInstance::to`] point to.
    pub digests: Vec<Digest>,
    /// Schedules that [`PlannedInstance::schedule`] points to.
    pub schedules: Vec<ScheduleSpec>,
    /// Channels that [`PlannedInstance::channel`] points to; none where the order does not ask for them.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// References that [`PlannedInstance::reference`] and [`Companion::reference`] point to.
    #[serde(default)]
    pub references: Vec<ImageRef>,
    /// The instances, in the order in which they go. Of those that move together and get the release, one stands for all.
    pub members: Vec<PlannedInstance>,
    /// The waves, in order: each takes the members up to its end.
    pub waves: Vec<PlannedWave>,
    /// Why the others are not in it.
    pub held: Vec<HeldInstance>,
}

/// One instance of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInstance {
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant, in the plan's table.
    pub tenant: u32,
    /// The digest it ran when planned, in the plan's table; none if not known.
    pub from: Option<u32>,
    /// The digest it gets, in the plan's table.
    pub to: u32,
    /// When it may begin, in the plan's table.
    pub schedule: u32,
    /// Its channel, in the plan's table, where the order asks for it.
    #[serde(default)]
    pub channel: u32,
    /// What its update is taken to last, in seconds.
    pub estimate_secs: u32,
    /// Health timeout in milliseconds.
    pub health_timeout_ms: u32,
    /// Rank of its cohort; lower goes first.
    pub cohort: u32,
    /// `fleet.priority`; lower goes first.
    pub priority: i32,
    /// Its last update did not succeed.
    pub failed_before: bool,
    /// It was not well when planned: a failure of it does not count.
    pub unhealthy_before: bool,
    /// It is fleet itself: last and alone.
    pub own: bool,
    /// The reference that it gets, in the plan's table; none: the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u32>,
    /// Instances of its group that get the release in the same update.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<Companion>,
}

/// An instance that moves with another one of its group, in one update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// The instance.
    pub instance: InstanceId,
    /// The digest it ran when planned, in the plan's table; none if not known.
    pub from: Option<u32>,
    /// The digest it gets, in the plan's table.
    pub to: u32,
    /// The reference that it gets, in the plan's table; none: the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u32>,
}

impl PlannedInstance {
    /// It, and those that move with it.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        let with = self.with.iter().map(|companion| &companion.instance);
        std::iter::once(&self.instance).chain(with)
    }
}

/// One wave of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWave {
    /// Place of the first member after it.
    pub end: u32,
    /// What stands before it.
    #[serde(flatten)]
    pub gate: WaveGate,
}

/// An instance that is not in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldInstance {
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant, in the plan's table.
    pub tenant: u32,
    /// Why.
    #[serde(flatten)]
    pub why: Held,
}

/// When an instance may begin, as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "when")]
pub enum ScheduleSpec {
    /// At any time.
    Always,
    /// In the windows that a person configured.
    Windows {
        /// The windows.
        windows: Vec<String>,
    },
    /// In the hour that the tenant prefers.
    Hour {
        /// 0–23, UTC.
        utc: u8,
    },
    /// As `fleet.policy` says.
    Policy {
        /// The label's value.
        policy: String,
    },
}

impl ScheduleSpec {
    /// Reads the texts.
    ///
    /// # Errors
    /// A text cannot be read; nothing starts then.
    pub fn schedule(&self) -> Result<Schedule, WindowError> {
        Ok(match self {
            Self::Always => Schedule::Always,
            Self::Windows { windows } => Schedule::Weekly(WeeklyCalendar::parse(windows)?),
            Self::Hour { utc } => Schedule::preferred_hour(*utc),
            Self::Policy { policy } => policy.parse::<Policy>()?.schedule(),
        })
    }
}

impl RolloutPlan {
    /// The version of the format that this code writes.
    pub const SCHEMA: u32 = 1;

    /// The rollout's id.
    #[must_use]
    pub fn id(&self) -> RolloutId {
        self.request.id
    }

    /// When it is cancelled if nobody has approved it; none: it needs no approval, or waits as long as it takes.
    #[must_use]
    pub fn approval_ends_at(&self) -> Option<Timestamp> {
        let waits = self.request.limits.approval_expires;
        let waits = waits.filter(|_| self.request.needs_approval)?;
        Some(self.planned_at.saturating_add(waits))
    }

    /// What a reference and a digest of its tables mean.
    #[must_use]
    pub fn image(&self, reference: Option<u32>, digest: u32) -> PinnedImage {
        let reference = reference.and_then(|number| self.references.get(number as usize));
        let reference = reference.unwrap_or(&self.request.target.image);
        reference.pinned(self.digests[digest as usize].clone())
    }

    /// How many instances it moves.
    #[must_use]
    pub fn total(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// Places of a wave's members; empty for a wave that does not exist.
    #[must_use]
    pub fn wave_range(&self, wave: u32) -> std::ops::Range<usize> {
        let end = |wave: usize| {
            self.waves
                .get(wave)
                .map_or(self.members.len(), |wave| wave.end as usize)
        };
        let wave = wave as usize;
        let start = if wave == 0 { 0 } else { end(wave - 1) };
        start..end(wave)
    }

    /// The wave in which a member is.
    #[must_use]
    pub fn wave_of(&self, place: usize) -> u32 {
        let wave = self
            .waves
            .partition_point(|wave| wave.end as usize <= place);
        u32::try_from(wave).unwrap_or(u32::MAX)
    }

    /// The tenant of a member.
    #[must_use]
    pub fn tenant(&self, member: &PlannedInstance) -> &TenantId {
        &self.tenants[member.tenant as usize]
    }

    /// The place of an instance, or of the one with which it moves.
    #[must_use]
    pub fn place_of(&self, instance: &InstanceId) -> Option<usize> {
        let is_there = |member: &PlannedInstance| member.instances().any(|one| one == instance);
        self.members.iter().position(is_there)
    }

    /// Every instance that it moves.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.members.iter().flat_map(PlannedInstance::instances)
    }

    /// How many instances can have failed at worst when it ends.
    #[must_use]
    pub fn worst_case_failures(&self) -> u32 {
        self.budget.limit.get().min(self.total())
    }
}
