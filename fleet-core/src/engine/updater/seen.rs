//! The last look at all containers, for the questions that follow from it at once.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;

use super::super::{FleetError, Survey};
use super::FleetUpdater;
use crate::update::MemberPlan;

/// How old a look at all containers may be for what follows from it at once. The container of an instance is looked at
/// again before anything is done to it; what else there is may have changed meanwhile.
const JUST_NOW: Duration = Duration::from_secs(1);
/// How old it may be at most, however long it took: an engine that stalls once makes no look good for minutes.
const NOT_LONG_AGO: Duration = Duration::from_secs(10);
/// So many times as long as it took may pass since a look was begun: with a thousand containers a look takes longer than a
/// second, and to look at all of them after each update would take longer than the updates.
const TIMES_ITS_LENGTH: u32 = 5;

/// What is known of all containers.
#[derive(Default)]
pub(super) struct Seen {
    last: Option<Look>,
    /// When an update ended last: a look that was begun before may show its instance as it was.
    ended: Duration,
}

/// A look at all containers.
struct Look {
    begun: Duration,
    took: Duration,
    survey: Arc<Survey>,
}

impl Look {
    fn holds(&self, now: Duration) -> bool {
        let holds_for = self.took.saturating_mul(TIMES_ITS_LENGTH);
        now.saturating_sub(self.begun) <= holds_for.clamp(JUST_NOW, NOT_LONG_AGO)
    }
}

impl FleetUpdater {
    /// Looks at all containers.
    pub(super) async fn survey(&self) -> Result<Arc<Survey>, FleetError> {
        let clock = &self.fleet.ports.update.clock;
        let begun = clock.monotonic();
        let survey = Arc::new(self.fleet.survey().await?);
        let look = Look {
            begun,
            took: clock.monotonic().saturating_sub(begun),
            survey: Arc::clone(&survey),
        };
        let mut seen = self.seen();
        seen.last = (begun >= seen.ended).then_some(look);
        Ok(survey)
    }

    /// The look from which the question at hand follows, if it was just now; else another one. With many containers the
    /// look is what costs, and updates end one after the other.
    pub(super) async fn survey_of_now(&self) -> Result<Arc<Survey>, FleetError> {
        match self.just_seen() {
            Some(survey) => Ok(survey),
            None => self.survey().await,
        }
    }

    fn just_seen(&self) -> Option<Arc<Survey>> {
        let now = self.fleet.ports.update.clock.monotonic();
        let seen = self.seen();
        let look = seen.last.as_ref().filter(|look| look.holds(now))?;
        Some(Arc::clone(&look.survey))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that still holds for one instance.
    pub(super) async fn survey_for(&self, name: &str) -> Result<Arc<Survey>, FleetError> {
        let Some(survey) = self.just_seen() else {
            return self.survey().await;
        };
        let known = survey.workload(name).map(|managed| &managed.container.id);
        let now = self.fleet.ports.update.runtime.find(name).await?;
        if known == now.as_ref().map(|container| &container.id) {
            Ok(survey)
        } else {
            self.survey().await
        }
    }

    /// After an update: looks again at what it was about, and leaves the rest of the last look as it is. Where that does
    /// not do, the next question looks at all.
    pub(super) async fn look_again(&self, members: &[MemberPlan]) {
        let ended = self.fleet.ports.update.clock.monotonic();
        let names = members.iter().map(|member| member.instance.name.as_str());
        let look = |name| self.fleet.ports.update.runtime.find(name);
        let found = match self.just_seen() {
            Some(_) => try_join_all(names.map(look)).await.ok(),
            None => None,
        };
        let mut seen = self.seen();
        seen.ended = ended;
        match (found, seen.last.as_mut()) {
            (Some(found), Some(look)) => {
                let survey = Arc::make_mut(&mut look.survey);
                let prefix = &self.fleet.options.label_prefix;
                found
                    .into_iter()
                    .flatten()
                    .for_each(|container| survey.replace(prefix, container));
            }
            _ => seen.last = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Inventory;

    #[test]
    fn a_look_holds_longer_where_looking_takes_long() {
        let look = |took| Look {
            begun: Duration::from_secs(100),
            took: Duration::from_millis(took),
            survey: Arc::new(Survey::new("fleet.", Inventory::default())),
        };
        let holds = |took, millis: u64| look(took).holds(Duration::from_millis(100_000 + millis));
        assert!(holds(20, 1000) && !holds(20, 1001));
        assert!(holds(1500, 7500) && !holds(1500, 7501));
        assert!(holds(60_000, 10_000) && !holds(60_000, 10_001));
    }
}
