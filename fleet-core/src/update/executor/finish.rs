//! The steps after the commit, and what both ways share of the clean-up.

use super::super::Facts;
use super::Run;
use super::cutover::HOOK_TIMEOUT;
use super::error::{StepError, chain};
use super::prepare::local_tag;
use crate::ids::VolumeName;
use crate::ports::PortErrorKind;

impl Run<'_> {
    pub(super) async fn post_hook(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let (Some(argv), Some(new)) = (&plan.post_hook, &self.facts(member).candidate) else {
            return Ok(Facts::default());
        };
        // The update is committed: whatever the hook does, it does not undo it.
        let note = match self.ports.runtime.exec(new, argv, HOOK_TIMEOUT).await {
            Ok(outcome) if outcome.exit_code == 0 => None,
            Ok(outcome) => Some(format!(
                "the post-update hook ended with {}",
                outcome.exit_code
            )),
            Err(error) => Some(format!(
                "the post-update hook did not run: {}",
                chain(&error)
            )),
        };
        Ok(Facts {
            note,
            ..Facts::default()
        })
    }

    /// After the commit: the tags for good, then everything that is not needed any more. What cannot be removed, such as a
    /// parked container that somebody started, keeps no tag where it was.
    pub(super) async fn clean_up(&mut self) -> Result<Facts, StepError> {
        for member in 0..self.state.members.len() {
            self.move_tag_for_good(member).await?;
        }
        for member in 0..self.state.members.len() {
            let old = self.state.old_id(member).clone();
            self.watch.ours(&old);
            self.ports.runtime.remove(&old).await?;
            self.remove_guard(member).await?;
            self.drop_keep_tags(member).await?;
            self.apply_retention(member).await?;
        }
        Ok(Facts::default())
    }

    async fn move_tag_for_good(&mut self, member: usize) -> Result<(), StepError> {
        let plan = &self.state.plan.members[member];
        let (Some(_), Some(image_id)) = (&plan.target, &self.facts(member).image_id) else {
            return Ok(());
        };
        if let Some(tag) = local_tag(&plan.image) {
            match self.ports.images.tag(image_id, &tag).await {
                // Somebody removed container and image since: there is nothing left to point to.
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes volumes that the engine made for a container of fleet's.
    pub(super) async fn remove_made_volumes(
        &self,
        volumes: &[VolumeName],
    ) -> Result<(), StepError> {
        for volume in volumes {
            match self.ports.runtime.remove_volume(volume).await {
                // Somebody else's container uses it by now, or it does not carry fleet's label: theirs.
                Err(error)
                    if matches!(
                        error.kind(),
                        PortErrorKind::Conflict | PortErrorKind::Invalid
                    ) => {}
                other => other?,
            }
        }
        Ok(())
    }

    pub(super) async fn remove_guard(&mut self, member: usize) -> Result<(), StepError> {
        let mut found = match &self.facts(member).guard {
            Some(id) => self.ports.runtime.inspect(id).await?,
            None => None,
        };
        if found.is_none() {
            // Its making, or that of one in its place, may not have been answered.
            found = self.ports.runtime.find(&self.guard_name(member)).await?;
        }
        let Some(guard) = found.filter(|guard| self.is_ours(guard)) else {
            return Ok(());
        };
        self.ports.runtime.remove(&guard.id).await?;
        Ok(())
    }

    pub(super) async fn drop_keep_tags(&mut self, member: usize) -> Result<(), StepError> {
        if self.state.plan.members[member].target.is_some() {
            let (old, new) = self.keep_tags(member);
            self.ports.images.untag(&old).await?;
            self.ports.images.untag(&new).await?;
        }
        Ok(())
    }

    /// Removes snapshots beyond the newest ones that are kept, and those that are too old. That of this update is the last
    /// good one and stays, whatever the clock said when it was taken; where it has none, the newest stays.
    pub(super) async fn apply_retention(&mut self, member: usize) -> Result<(), StepError> {
        let keep = self.state.plan.keep_snapshots.max(1) as usize;
        let plan = &self.state.plan.members[member];
        let all = self.ports.snapshots.list(Some(&plan.instance)).await?;
        let (own, others): (Vec<_>, Vec<_>) = all
            .iter()
            .filter(|snapshot| snapshot.update.is_some())
            .partition(|snapshot| snapshot.id == plan.snapshot_id);
        let surplus = (own.len() + others.len()).saturating_sub(keep);
        let (now, max_age) = (self.ports.clock.now(), self.state.plan.snapshot_max_age);
        for (place, snapshot) in others.iter().enumerate() {
            let is_last = own.is_empty() && place + 1 == others.len();
            let is_old = max_age.is_some_and(|age| now.since(snapshot.created_at) > age);
            if (place < surplus || is_old) && !is_last {
                self.ports.snapshots.delete(&snapshot.id).await?;
            }
        }
        Ok(())
    }
}
