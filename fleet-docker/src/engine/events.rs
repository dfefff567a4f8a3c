//! What happens to containers, as it happens.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use fleet_core::ids::ContainerId;
use fleet_core::ports::{EngineEvent, EngineEventKind, PortError};
use fleet_core::time::Timestamp;
use futures::stream::BoxStream;
use futures::{StreamExt, future};

use super::{CALL_LIMIT, DockerEngine, limited};
use crate::error;

/// Pause between two pings beside the stream. Nothing may happen for hours, so silence says nothing; a ping does.
const PING_PAUSE: Duration = Duration::from_secs(15);

impl DockerEngine {
    pub(super) async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, PortError>>, PortError> {
        let op = "follow the engine's events";
        limited(op, CALL_LIMIT, self.docker.ping()).await?;
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let events = self
            .docker
            .events(Some(options))
            .filter_map(move |message| {
                future::ready(match message {
                    Ok(message) => event(message).map(Ok),
                    Err(source) => Some(Err(error::from_bollard(op, source))),
                })
            });
        Ok(events.take_until(gone(self.clone())).boxed())
    }
}

/// Ends when the engine no longer answers.
async fn gone(engine: DockerEngine) {
    loop {
        tokio::time::sleep(PING_PAUSE).await;
        if limited("ping the engine", CALL_LIMIT, engine.docker.ping())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn event(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let attributes: std::collections::BTreeMap<String, String> =
        actor.attributes.unwrap_or_default().into_iter().collect();
    Some(EngineEvent {
        kind: kind(message.action.as_deref().unwrap_or("")),
        container: ContainerId::new(actor.id?).ok()?,
        name: attributes.get("name").cloned().unwrap_or_default(),
        attributes,
        at: Timestamp::from_millis(match message.time_nano {
            Some(nanos) => nanos / 1_000_000,
            None => message.time? * 1000,
        }),
    })
}

fn kind(action: &str) -> EngineEventKind {
    match action {
        "create" => EngineEventKind::Create,
        "start" => EngineEventKind::Start,
        "die" => EngineEventKind::Die,
        "kill" => EngineEventKind::Kill,
        "stop" => EngineEventKind::Stop,
        "rename" => EngineEventKind::Rename,
        "destroy" => EngineEventKind::Destroy,
        _ => EngineEventKind::Other,
    }
}
