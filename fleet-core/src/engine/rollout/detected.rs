//! What detection found: a rollout is opened for it, or why not; and what was withdrawn is taken back.

use std::collections::HashSet;

use super::error::{RolloutError, StartError};
use super::orchestrator::{Command, Orchestrator};
use super::start::{StartRequest, Started, overlapping};
use crate::engine::offers::Reference;
use crate::ids::{InstanceId, RolloutId};
use crate::image::{Digest, PinnedImage};
use crate::model;
use crate::plan::rollout::{
    Channel, Decision, Ending, HoldKind, Phase, SupersedePolicy, about_current, decide,
};
use crate::plan::{Asked, PlannedInstance, RolloutKind, RolloutPlan};
use crate::ports::{RolloutStoreError, StoredRollout};
use crate::time::Timestamp;

/// Rollouts of a reference that are looked back at for what completed and what failed.
const HISTORY: u32 = 100;
const FLEET: &str = "fleet";

/// What became of a release that detection found.
#[derive(Debug, Clone, PartialEq)]
pub enum Detected {
    /// See [`Started`].
    Started(Started),
    /// No rollout is opened now.
    Decided(Decision),
}

/// What would become of a release that detection found.
#[derive(Debug)]
pub(in crate::engine) enum Prepared {
    /// A rollout, if nothing comes in between.
    Ready(Box<RolloutPlan>),
    /// No rollout.
    Not(Detected),
}

/// The rollouts of one reference that a channel has seen, newest first.
struct Past {
    /// Those that are about the channel.
    ours: Vec<StoredRollout>,
    /// The others.
    others: Vec<StoredRollout>,
}

impl Orchestrator {
    /// Opens a rollout for a release that detection found, if it is its time. The same release again is no new rollout,
    /// except over instances that no rollout of it was about.
    ///
    /// Over the instances of the `channel` whose poll found it, or of every channel if none is given. What goes on in
    /// another channel neither keeps it back nor makes way for it; what failed there is not offered here. Every rollout
    /// that has yet to update one of its instances is asked for, whatever it rolls out.
    ///
    /// # Errors
    /// As [`Orchestrator::start`]; a paused fleet is no error but holds every instance.
    pub async fn detected(
        &self,
        request: StartRequest,
        channel: Option<model::Channel>,
        first_seen: Timestamp,
        policy: SupersedePolicy,
    ) -> Result<Detected, StartError> {
        match self.prepare(request, channel, first_seen, policy).await? {
            Prepared::Ready(plan) => self.open_prepared(*plan, policy).await,
            Prepared::Not(detected) => Ok(detected),
        }
    }

    /// Decides and plans, as far as nothing is written.
    pub(in crate::engine) async fn prepare(
        &self,
        request: StartRequest,
        channel: Option<model::Channel>,
        first_seen: Timestamp,
        policy: SupersedePolicy,
    ) -> Result<Prepared, StartError> {
        let target = request.target.clone();
        let past = self.past(&target, channel.as_ref()).await?;
        let request = StartRequest {
            asked: Asked::ByDetection { channel },
            ..request
        };
        let decision = past.decide(&target.digest, first_seen, policy, self.clock.now());
        let over = |stored: &StoredRollout| stored.state.phase.is_terminal();
        let same_again = decision == Decision::Same && past.ours.iter().all(over);
        if !same_again && !matches!(decision, Decision::Open { .. }) {
            return Ok(Prepared::Not(Detected::Decided(decision)));
        }
        let view = self.updater.fleet().await?;
        let mut candidates = self.updater.candidates(&target, &request.asked).await?;
        // Those that came from another channel while it has them in its own rollout stay in that.
        let elsewhere = past.others.iter();
        let elsewhere = elsewhere.filter(|stored| same_again || !over(stored));
        let here = past.ours.iter().filter(|_| same_again);
        let known: HashSet<&InstanceId> = here
            .chain(elsewhere)
            .filter(|stored| stored.plan.request.target.digest == target.digest)
            .flat_map(|stored| stored.plan.instances())
            .collect();
        candidates.retain(|candidate| !known.contains(&candidate.instance));
        let plan = self.plan_of(self.fresh(request, None, 1), &view, &candidates)?;
        if plan.members.is_empty() {
            return Ok(Prepared::Not(match same_again {
                true => Detected::Decided(Decision::Same),
                false => Detected::Started(Started::NothingToDo(Box::new(plan))),
            }));
        }
        let active = self.store.active().await?;
        Ok(match in_the_way(&plan, &active, policy) {
            Some(decision) => Prepared::Not(Detected::Decided(decision)),
            None => Prepared::Ready(Box::new(plan)),
        })
    }

    /// Opens what was prepared, unless something came in between.
    pub(in crate::engine) async fn open_prepared(
        &self,
        plan: RolloutPlan,
        policy: SupersedePolicy,
    ) -> Result<Detected, StartError> {
        let active = self.store.active().await?;
        match in_the_way(&plan, &active, policy) {
            Some(decision) => Ok(Detected::Decided(decision)),
            None => Ok(Detected::Started(self.open_planned(plan, &active).await?)),
        }
    }

    /// The rollouts that detection opened and whose release was withdrawn: a reference points in a channel to what was
    /// stable before. Each with the place of what says so.
    ///
    /// # Errors
    /// The store failed.
    pub(in crate::engine) async fn withdrawn(
        &self,
        there: &[Reference],
    ) -> Result<Vec<(RolloutId, usize)>, RolloutError> {
        let active = self.store.active().await?;
        let mut withdrawn = Vec::new();
        for stored in active.iter().filter(|stored| may_be_withdrawn(stored)) {
            let target = &stored.plan.request.target;
            let place = there.iter().position(|it| {
                it.now_there.image == target.image && is_about(stored, Some(&it.channel))
            });
            let Some(place) = place else { continue };
            let Reference {
                now_there, channel, ..
            } = &there[place];
            if now_there.digest == target.digest {
                continue;
            }
            let past = self.past(now_there, Some(channel)).await?;
            let is_stable = past.completed().first() == Some(&now_there.digest);
            if is_stable || all_ran(&stored.plan, &now_there.digest) {
                withdrawn.push((stored.plan.id(), place));
            }
        }
        Ok(withdrawn)
    }

    /// Stops a rollout whose release was withdrawn, and takes it back where it was committed.
    ///
    /// # Errors
    /// The store failed, or the rollout is over.
    pub(in crate::engine) async fn take_back_withdrawn(
        &self,
        id: &RolloutId,
        now_there: &PinnedImage,
    ) -> Result<(), RolloutError> {
        let why = format!(
            "the release was withdrawn: {} is back at what ran before",
            now_there.image
        );
        let abort = Command::Abort {
            why,
            rollback: true,
        };
        self.command(id, &abort, FLEET).await.map(drop)
    }

    async fn past(
        &self,
        target: &PinnedImage,
        channel: Option<&model::Channel>,
    ) -> Result<Past, RolloutStoreError> {
        let history = self.store.of_image(&target.image, HISTORY).await?;
        let of_reference = history
            .into_iter()
            .filter(|stored| stored.plan.kind == RolloutKind::Forward);
        let (ours, others) = of_reference.partition(|stored| is_about(stored, channel));
        Ok(Past { ours, others })
    }
}

impl Past {
    fn decide(
        &self,
        digest: &Digest,
        first_seen: Timestamp,
        policy: SupersedePolicy,
        now: Timestamp,
    ) -> Decision {
        // Also one that ended before it began: somebody said no, or nobody said yes.
        let stopped = |stored: &&StoredRollout| {
            matches!(
                stored.state.phase,
                Phase::Aborted { .. }
                    | Phase::RolledBack { .. }
                    | Phase::RollbackIncomplete { .. }
                    | Phase::Cancelled { .. }
            )
        };
        let all = self.ours.iter().chain(&self.others);
        let known_bad: Vec<Digest> = all.filter(stopped).map(digest_of).collect();
        let mut active = self
            .ours
            .iter()
            .filter(|stored| !stored.state.phase.is_terminal());
        let newest = active.clone().next();
        let same = active.find(|stored| stored.plan.request.target.digest == *digest);
        let channel = Channel {
            current: same.or(newest).map(|stored| (&stored.plan, &stored.state)),
            known_bad: &known_bad,
            completed: &self.completed(),
            left: &self.left(),
            last_start: self.ours.first().map(|stored| stored.plan.planned_at),
        };
        decide(&channel, digest, first_seen, policy, now)
    }

    /// Digests of completed rollouts, newest first.
    fn completed(&self) -> Vec<Digest> {
        let completed = self.ours.iter().filter(|stored| {
            matches!(
                stored.state.phase,
                Phase::Completed | Phase::CompletedWithFailures
            )
        });
        completed.map(digest_of).collect()
    }

    /// What instances ran before they got a release, also where fleet did not bring it there.
    fn left(&self) -> Vec<Digest> {
        let mut left = HashSet::new();
        for StoredRollout { plan, state, .. } in &self.ours {
            let members = plan.members.iter().zip(&state.members);
            let moved = members.filter(|(_, state)| state.ending() == Some(Ending::Committed));
            let from = moved.flat_map(|(member, _)| ran_before(member));
            left.extend(from.filter_map(|from| plan.digests.get(from? as usize)));
        }
        left.into_iter().cloned().collect()
    }
}

/// Why a plan must wait for a rollout that has yet to update one of its instances.
fn in_the_way(
    plan: &RolloutPlan,
    active: &[StoredRollout],
    policy: SupersedePolicy,
) -> Option<Decision> {
    let others = overlapping(plan, active).into_iter();
    // One that makes way already has nothing more to say.
    let others = others.filter(|it| !matches!(it.state.phase, Phase::Superseding { .. }));
    let mut decisions = others.map(|other| about_current(&other.plan, &other.state, policy.then));
    decisions.find(|decision| !matches!(decision, Decision::Open { .. }))
}

/// Whether a rollout ends with its release: detection opened it, it is not ending, and no person holds it, who would take
/// it back or not.
fn may_be_withdrawn(StoredRollout { plan, state, .. }: &StoredRollout) -> bool {
    let paused = |kind| kind == HoldKind::UserPause;
    plan.kind == RolloutKind::Forward
        && matches!(&plan.request.asked, Asked::ByDetection { .. })
        && (state.phase == Phase::Running || state.phase.is_waiting_to_begin())
        && !state.holds.iter().any(|hold| paused(hold.kind))
}

/// Whether all instances of a plan ran this when it was made.
fn all_ran(plan: &RolloutPlan, digest: &Digest) -> bool {
    let ran = |from: Option<u32>| from.and_then(|from| plan.digests.get(from as usize));
    let mut before = plan.members.iter().flat_map(ran_before);
    before.all(|from| ran(from) == Some(digest))
}

/// What a member, and those that move with it, ran when the plan was made.
fn ran_before(member: &PlannedInstance) -> impl Iterator<Item = Option<u32>> {
    let with = member.with.iter().map(|companion| companion.from);
    std::iter::once(member.from).chain(with)
}

fn digest_of(stored: &StoredRollout) -> Digest {
    stored.plan.request.target.digest.clone()
}

/// Whether a rollout is about a channel. One that a person started, or that was opened for every channel, is about all.
fn is_about(stored: &StoredRollout, channel: Option<&model::Channel>) -> bool {
    match (&stored.plan.request.asked, channel) {
        (
            Asked::ByDetection {
                channel: Some(theirs),
            },
            Some(ours),
        ) => theirs == ours,
        _ => true,
    }
}
