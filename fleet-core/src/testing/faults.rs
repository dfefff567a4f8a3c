//! What goes wrong, and when: scripted by call number, drawn from a seed, or both.

use std::collections::BTreeMap;
use std::time::Duration;

use super::machine::Move;
use super::rng::SeedRng;
use crate::ports::PortErrorKind;

/// What goes wrong with one call through a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens and the caller is told so.
    Refuse(PortErrorKind),
    /// The effect happens and the caller hears an error instead of the answer.
    Lose(PortErrorKind),
    /// The call takes this long first.
    Slow(Duration),
}

/// Faults of a run. Empty by default: nothing goes wrong.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    /// Faults by the number of the call, 1 for the first after the plan was set.
    pub at_call: BTreeMap<u64, Fault>,
    /// Faults of every call of an operation, for instance `pull`.
    pub at_op: BTreeMap<&'static str, Fault>,
    /// Moves of engine, host or other people, by the number of the call before which they happen.
    pub moves: BTreeMap<u64, Vec<Move>>,
    /// The process dies at this place (see [`super::FakeHost::sites`]), 1 for the first.
    pub die_at_site: Option<u64>,
    /// The process dies the first time it passes this crash point, for instance `stop.after`.
    pub die_at_point: Option<String>,
    /// Chance of faults in each call.
    pub rates: Option<FaultRates>,
}

/// How often which fault happens, in calls of a thousand.
#[derive(Debug, Clone)]
pub struct FaultRates {
    /// Where chance comes from.
    pub rng: SeedRng,
    /// Nothing happens, the caller is told so.
    pub refuse: u64,
    /// The effect happens, the answer is lost.
    pub lose: u64,
    /// The call takes up to ten seconds.
    pub slow: u64,
}

impl FaultPlan {
    /// One fault at one call.
    #[must_use]
    pub fn once(call: u64, fault: Fault) -> Self {
        Self {
            at_call: BTreeMap::from([(call, fault)]),
            ..Self::default()
        }
    }

    /// Death at one place.
    #[must_use]
    pub fn death(site: u64) -> Self {
        Self {
            die_at_site: Some(site),
            ..Self::default()
        }
    }

    /// One move before one call.
    #[must_use]
    pub fn moved(call: u64, what: Move) -> Self {
        Self {
            moves: BTreeMap::from([(call, vec![what])]),
            ..Self::default()
        }
    }

    /// What happens to this call, if anything.
    pub(super) fn strike(&mut self, call: u64, op: &'static str) -> Option<Fault> {
        if let Some(fault) = self.at_call.remove(&call) {
            return Some(fault);
        }
        if let Some(fault) = self.at_op.get(op) {
            return Some(fault.clone());
        }
        self.rates.as_mut()?.draw()
    }
}

impl FaultRates {
    fn draw(&mut self) -> Option<Fault> {
        let draw = self.rng.below(1000);
        let kind = match self.rng.below(4) {
            0 => PortErrorKind::Failed,
            1 => PortErrorKind::Timeout,
            2 => PortErrorKind::NoSpace,
            _ => PortErrorKind::Unreachable,
        };
        if draw < self.refuse {
            Some(Fault::Refuse(kind))
        } else if draw < self.refuse + self.lose {
            // An answer that is lost never claims to know the outcome.
            let lost = match kind {
                PortErrorKind::Timeout => PortErrorKind::Timeout,
                _ => PortErrorKind::Unreachable,
            };
            Some(Fault::Lose(lost))
        } else if draw < self.refuse + self.lose + self.slow {
            Some(Fault::Slow(Duration::from_millis(self.rng.below(10_000))))
        } else {
            None
        }
    }
}
