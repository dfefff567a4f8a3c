//! A look at the processes of the engine's host through a helper: where fleet itself runs in a container it sees its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::ports::PortError;

use super::message::Ask;
use super::store::{Access, Connect, Connection, blocking};
use super::waiting::Waiting;
use crate::engine::Scout;

/// How long a helper waits for the next look: one rollback looks at several containers in a row.
const IDLE: Duration = Duration::from_secs(10);

/// Looks through helpers. One of them stays for a while after a look.
#[derive(Debug, Clone)]
pub struct HelperScout {
    connect: Arc<dyn Connect>,
    waiting: Waiting<()>,
}

impl HelperScout {
    /// Looks through helpers that are started so.
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Self {
            connect,
            waiting: Waiting::new(IDLE),
        }
    }
}

#[async_trait]
impl Scout for HelperScout {
    async fn process_of(&self, container: &ContainerId) -> Result<Option<String>, PortError> {
        // One that waited may have been ended meanwhile, by whoever ends containers; a new one is asked once.
        if let Some(line) = self.waiting.take(&()) {
            match look(line, container.clone()).await {
                Ok((line, found)) => {
                    self.waiting.keep((), line);
                    return Ok(found);
                }
                Err(error) if error.outcome_unknown() => {}
                Err(error) => return Err(error),
            }
        }
        let line = self.connect.connect(&[], Access::Processes).await?;
        let (line, found) = look(line, container.clone()).await?;
        self.waiting.keep((), line);
        Ok(found)
    }
}

async fn look(
    mut line: Connection,
    container: ContainerId,
) -> Result<(Connection, Option<String>), PortError> {
    blocking("look for a process through a helper", move || {
        let found = line.ask(&Ask::Process { container })?;
        Ok((line, found))
    })
    .await
}

/// The helper's side of a look.
pub(super) fn answer(container: &ContainerId) -> io::Result<Option<String>> {
    crate::engine::process_of(container)
}
