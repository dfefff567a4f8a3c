//! A second fleet on the same engine, with a data directory of its own: no lock keeps the two apart, only what they see.

use super::{Fleet, FleetError, Survey};
use crate::ids::InstanceId;
use crate::ports::Names;
use crate::update::Refusal;

/// Updates of an instance that are looked through for one that left a container.
const HISTORY: u32 = 200;

impl Fleet {
    /// Refuses an instance of which there are containers in the middle of an update that this fleet's journal does not
    /// know: from the making of the candidate to the clean-up there is always one.
    pub(super) async fn another_fleet(
        &self,
        survey: &Survey,
        instance: &InstanceId,
    ) -> Result<Option<Refusal>, FleetError> {
        let mut marked = marked(survey, instance);
        // The journal is asked only where there is something to ask about.
        if marked.is_empty() {
            return Ok(None);
        }
        let journal = &self.ports.update.journal;
        let mut known = journal.load_open().await?;
        known.extend(journal.history(instance, HISTORY).await?);
        marked.retain(|(_, mark)| !known.iter().any(|update| update.plan.id.short() == *mark));
        Ok(marked.first().map(|(name, _)| {
            Refusal::for_now(
                "another_fleet",
                format!("container {name} belongs to an update that is not in this fleet's journal"),
                format!(
                    "let the other fleet finish, and let only one manage this engine; if there is none, `docker ps -a \
                     --filter name={}` shows what to put right by hand",
                    instance.name
                ),
            )
        }))
    }
}

/// Names of the containers of an instance that are in the middle of an update, each with the short id of that update.
fn marked<'a>(survey: &'a Survey, instance: &InstanceId) -> Vec<(&'a str, &'a str)> {
    let mut marked = Vec::new();
    for container in &survey.inventory.containers {
        if let Some(mark) = Names::mark(&instance.name, &container.name) {
            marked.push((container.name.as_str(), mark));
        }
    }
    marked
}
