//! What happens to one member of a rollout, and what it means for the whole: infrastructure that fails in a row, and the
//! failure budget.

use std::time::Duration;

use super::event::{Fact, Follow, IllegalTransition, RolloutEvent, UpdateEnd};
use super::hold::HoldKind;
use super::next::{Applied, FLEET, Step};
use super::state::{Ending, MemberState, Phase, WavePhase};
use crate::ids::UpdateId;
use crate::plan::strategy::FailureKind;

/// Updates in a row that the infrastructure may break before nothing is started any more.
const INFRA_IN_A_ROW_MAX: u32 = 5;

/// How long a member whose snapshot did not fit on the disk is left alone.
const SPACE_PAUSE: Duration = Duration::from_secs(60);

/// What a claim says of the attempt.
struct Attempt {
    number: u32,
    /// An earlier one failed in a way that counts.
    failed: bool,
}

impl Step<'_> {
    pub(super) fn claimed(
        &mut self,
        event: &RolloutEvent,
        place: usize,
        update: UpdateId,
    ) -> Applied {
        let in_wave = self.plan.wave_range(self.state.wave).contains(&place);
        let open = self.state.wave_phase == WavePhase::Open;
        let may_start = self.state.phase == Phase::Running && self.state.holds.is_empty();
        match self.state.members.get(place) {
            Some(&MemberState::Queued {
                attempts, failed, ..
            }) if in_wave && open && may_start => {
                self.state.members[place] = MemberState::Claimed {
                    update,
                    attempt: attempts + 1,
                    since: self.now,
                    failed,
                };
                Ok(())
            }
            _ => Err(self.illegal(
                event,
                "running, without holds, a queued member of the open wave",
            )),
        }
    }

    pub(super) fn unclaimed(
        &mut self,
        event: &RolloutEvent,
        place: usize,
        update: UpdateId,
    ) -> Applied {
        let Attempt { number, failed } = self.attempt_of(event, place, update)?;
        self.state.members[place] = MemberState::Queued {
            attempts: number - 1,
            not_before: None,
            last: None,
            failed,
        };
        Ok(())
    }

    /// A late answer of another attempt finds another claim, and is dropped with an error.
    fn attempt_of(
        &self,
        event: &RolloutEvent,
        place: usize,
        update: UpdateId,
    ) -> Result<Attempt, IllegalTransition> {
        match self.state.members.get(place) {
            Some(&MemberState::Claimed {
                update: claimed,
                attempt: number,
                failed,
                ..
            }) if claimed == update => Ok(Attempt { number, failed }),
            _ => Err(self.illegal(event, format!("member {place} to be claimed by {update}"))),
        }
    }

    pub(super) fn ended(
        &mut self,
        event: &RolloutEvent,
        place: usize,
        update: UpdateId,
        end: &UpdateEnd,
        follow: Follow,
    ) -> Applied {
        let Attempt { number, failed } = self.attempt_of(event, place, update)?;
        let mut over = |how, counts, why: Option<&String>| {
            let why = why.cloned();
            self.state.members[place] = MemberState::Ended {
                how,
                counts,
                attempts: number,
                why,
            };
        };
        match end {
            UpdateEnd::Committed => over(Ending::Committed, false, None),
            UpdateEnd::Unchanged => over(Ending::Unchanged, false, None),
            UpdateEnd::Refused { why } => over(Ending::Refused, failed, Some(why)),
            UpdateEnd::NoSpace { why } => {
                self.state.members[place] = MemberState::Queued {
                    attempts: number - 1,
                    not_before: Some(self.now.saturating_add(SPACE_PAUSE)),
                    last: Some(why.clone()),
                    failed,
                };
                if !self.is_held(HoldKind::DiskSpace) && !self.state.phase.is_terminal() {
                    let instance = &self.plan.members[place].instance;
                    self.hold(HoldKind::DiskSpace, format!("{instance}: {why}"));
                }
            }
            UpdateEnd::Deferred { until, why } => {
                self.state.members[place] = MemberState::Queued {
                    attempts: number - 1,
                    not_before: Some(*until),
                    last: Some(why.clone()),
                    failed,
                };
            }
            UpdateEnd::Unsuccessful { how, kind, why } => {
                // An instance that was not well before does not speak against the release.
                let counts = kind.counts() && !self.plan.members[place].unhealthy_before;
                let counts = counts || failed;
                match follow {
                    Follow::Retry { not_before } => {
                        self.state.members[place] = MemberState::Queued {
                            attempts: number,
                            not_before: Some(not_before),
                            last: Some(why.clone()),
                            failed: counts,
                        };
                    }
                    Follow::Nothing | Follow::Abort => over(*how, counts, Some(why)),
                }
            }
        }
        self.count_infrastructure(end);
        self.mind_the_budget(end, follow);
        Ok(())
    }

    fn is_held(&self, kind: HoldKind) -> bool {
        self.state.holds.iter().any(|hold| hold.kind == kind)
    }

    fn count_infrastructure(&mut self, end: &UpdateEnd) {
        match end {
            UpdateEnd::Unsuccessful {
                kind: FailureKind::Infrastructure,
                why,
                ..
            } => {
                self.state.infra_in_a_row += 1;
                let held = self.is_held(HoldKind::InfraErrors);
                if self.state.infra_in_a_row >= INFRA_IN_A_ROW_MAX && !held {
                    let why = format!(
                        "{INFRA_IN_A_ROW_MAX} updates in a row failed for reasons of the infrastructure, the last one: {why}"
                    );
                    self.hold(HoldKind::InfraErrors, why);
                }
            }
            UpdateEnd::Committed | UpdateEnd::Unchanged | UpdateEnd::Unsuccessful { .. } => {
                self.state.infra_in_a_row = 0;
            }
            UpdateEnd::Refused { .. } | UpdateEnd::Deferred { .. } | UpdateEnd::NoSpace { .. } => {}
        }
    }

    fn mind_the_budget(&mut self, end: &UpdateEnd, follow: Follow) {
        if !matches!(self.state.phase, Phase::Running | Phase::Superseding { .. }) {
            return;
        }
        let failures = self.state.tally().failures;
        let limit = self.state.failure_limit(self.plan);
        let why = match end {
            UpdateEnd::Unsuccessful { why, .. } if failures >= limit => {
                format!("{failures} of at most {limit} failures, the last one: {why}")
            }
            UpdateEnd::Unsuccessful { why, .. } if follow == Follow::Abort => {
                format!("the strategy stops at this failure: {why}")
            }
            _ => return,
        };
        self.stop(FLEET, &why, false);
    }

    pub(super) fn excluded(
        &mut self,
        event: &RolloutEvent,
        place: usize,
        by: &str,
        why: Option<&str>,
    ) -> Applied {
        match self.state.members.get(place) {
            Some(&MemberState::Queued {
                attempts, failed, ..
            }) if !self.state.phase.is_terminal() => {
                let reason = why.map_or_else(|| format!("taken out by {by}"), str::to_owned);
                self.state.members[place] = MemberState::Ended {
                    how: Ending::Excluded,
                    counts: failed,
                    attempts,
                    why: Some(reason),
                };
                self.facts.push(Fact::Excluded {
                    place,
                    by: by.to_owned(),
                    why: why.map(str::to_owned),
                });
                Ok(())
            }
            Some(MemberState::Ended {
                how: Ending::Excluded,
                ..
            }) => Ok(()),
            _ => Err(self.illegal(event, "an instance whose update has not begun")),
        }
    }
}
