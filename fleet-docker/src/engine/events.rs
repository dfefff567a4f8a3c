//! What happens to containers, as it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::ids::ContainerId;
use fleet_core::ports::{EngineEvent, EngineEventKind, PortError};
use fleet_core::time::Timestamp;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::raw::Lines;
use super::{CALL_LIMIT, DockerEngine, limited};
use crate::json::text;

const OP: &str = "follow the engine's events";
/// Pause between two pings beside the stream. Nothing may happen for hours, so silence says nothing; a ping does.
const PING_PAUSE: Duration = Duration::from_secs(15);
/// Events that wait for a reader who is busy; beyond that the engine's own buffer and the socket's hold them.
const WAITING_MAX: usize = 1024;

type Item = Result<EngineEvent, PortError>;

impl DockerEngine {
    pub(super) async fn container_events(&self) -> Result<BoxStream<'static, Item>, PortError> {
        let query = [("filters", r#"{"type":["container"]}"#)];
        let lines = self
            .raw
            .get_lines(OP, &["events"], &query, CALL_LIMIT)
            .await?;
        // The engine sends the head of its answer just before it subscribes. Once it has answered another call after
        // that, it has subscribed.
        limited(OP, CALL_LIMIT, self.docker.ping()).await?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(forward(self.clone(), lines, sender));
        let events = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        Ok(events.boxed())
    }
}

/// Passes events on until nobody listens, the stream ends, or the engine no longer answers.
async fn forward(engine: DockerEngine, mut lines: Lines, sender: mpsc::Sender<Item>) {
    let mut ping = tokio::time::interval(PING_PAUSE);
    loop {
        let item = tokio::select! {
            () = sender.closed() => return,
            line = lines.next() => match line {
                Ok(Some(line)) => event(&line).map(Ok),
                Ok(None) => return,
                Err(error) => Some(Err(error)),
            },
            _ = ping.tick() => {
                if limited("ping the engine", CALL_LIMIT, engine.docker.ping()).await.is_err() {
                    return;
                }
                None
            }
        };
        let Some(item) = item else { continue };
        let last = item.is_err();
        if sender.send(item).await.is_err() || last {
            return;
        }
    }
}

fn event(message: &Value) -> Option<EngineEvent> {
    let actor = &message["Actor"];
    let attributes: BTreeMap<String, String> = super::container::string_map(&actor["Attributes"]);
    let seconds = message["time"].as_i64();
    let nanos = message["timeNano"].as_i64();
    Some(EngineEvent {
        kind: kind(text(&message["Action"])),
        container: ContainerId::new(text(&actor["ID"])).ok()?,
        name: attributes.get("name").cloned().unwrap_or_default(),
        attributes,
        at: Timestamp::from_millis(match nanos {
            Some(nanos) => nanos / 1_000_000,
            None => seconds? * 1000,
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
