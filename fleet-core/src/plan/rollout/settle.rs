//! Ends what is over: waves, and the rollout.

use super::countdown::Countdown;
use super::event::Fact;
use super::hold::HoldKind;
use super::next::Step;
use super::state::{Ending, MemberState, Phase, WavePhase};

impl Step<'_> {
    /// Ends what is over.
    pub(super) fn settle(&mut self) {
        if self.state.phase == Phase::Running {
            self.settle_wave();
        }
        if matches!(
            self.state.phase,
            Phase::Aborting { .. } | Phase::Superseding { .. }
        ) {
            // One that would be tried again is not, once nothing starts any more.
            self.cancel_queued("the rollout was stopped");
        }
        if self.state.claims().next().is_some() {
            return;
        }
        match self.state.phase.clone() {
            Phase::Superseding { by } => self.state.phase = Phase::Superseded { by },
            Phase::Aborting { rollback, why } if !rollback || self.nothing_to_take_back() => {
                self.state.phase = Phase::Aborted { why };
            }
            _ => {}
        }
    }

    fn nothing_to_take_back(&self) -> bool {
        !self
            .state
            .members
            .iter()
            .any(|member| member.ending() == Some(Ending::Committed))
    }

    fn settle_wave(&mut self) {
        let waves = u32::try_from(self.plan.waves.len()).unwrap_or(u32::MAX);
        loop {
            if self.state.wave >= waves {
                self.finish();
                return;
            }
            let tally = self.state.wave_tally(self.plan, self.state.wave);
            let over = tally.is_over()
                && (self.state.wave_phase == WavePhase::Open || self.all_taken_out());
            let failed = over && !self.all_taken_out() && self.state.wave + 1 < waves;
            if let Some(why) = self.too_few_succeeded().filter(|_| failed) {
                if !self
                    .state
                    .holds
                    .iter()
                    .any(|hold| hold.kind == HoldKind::WaveFailed)
                {
                    self.hold(HoldKind::WaveFailed, why);
                }
                return;
            }
            if !over {
                return;
            }
            self.pass_wave();
        }
    }

    /// Why the wave at hand must not open the next one by itself, if it must not.
    fn too_few_succeeded(&self) -> Option<String> {
        let wave = self.state.wave + 1;
        let members = &self.state.members[self.plan.wave_range(self.state.wave)];
        let committed = self.state.wave_tally(self.plan, self.state.wave).committed;
        if committed == 0 {
            return Some(format!("no instance of wave {wave} got the release"));
        }
        let counted = members
            .iter()
            .filter(|member| member.ending() != Some(Ending::Excluded))
            .count();
        let wanted = self.plan.request.limits.min_success_percent;
        (u64::from(committed) * 100 < u64::from(wanted) * counted as u64).then(|| {
            format!("{committed} of {counted} instances of wave {wave} got the release, expected {wanted} %")
        })
    }

    /// Whether nobody of the wave was to be updated after all: such a wave needs no pause and no person.
    fn all_taken_out(&self) -> bool {
        self.state.members[self.plan.wave_range(self.state.wave)]
            .iter()
            .all(|member| matches!(member.ending(), Some(Ending::Excluded | Ending::Refused)))
    }

    pub(super) fn pass_wave(&mut self) {
        let got_it = self.state.wave_tally(self.plan, self.state.wave).committed > 0;
        if got_it || self.all_taken_out() {
            self.facts.push(Fact::WavePassed {
                wave: self.state.wave,
            });
        }
        self.state.wave += 1;
        self.state.wave_phase = WavePhase::Pending;
        self.state.passed_at = Some(self.now);
        self.state.worked = Countdown::default();
    }

    fn finish(&mut self) {
        let good = |member: &MemberState| {
            member
                .ending()
                .is_some_and(|how| how.is_success() || how == Ending::Excluded)
        };
        let all_good = self.state.members.iter().all(good);
        self.state.phase = if all_good {
            Phase::Completed
        } else {
            Phase::CompletedWithFailures
        };
        self.facts.push(Fact::Finished(self.state.phase.label()));
    }
}
