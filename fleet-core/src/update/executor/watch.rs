//! Watches the engine's events for hands that are not fleet's.

use std::collections::BTreeSet;

use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, future};
use tokio::sync::Mutex;

use super::super::{Step, UpdateState};
use crate::ids::ContainerId;
use crate::ports::{EngineEvent, EngineEventKind, PortError, UpdatePorts};

/// The engine's events since the run began.
pub(super) struct Watch {
    /// None once it ended: the engine went away.
    ///
    /// The lock is never taken: it makes the watch shareable between threads, which the stream alone is not.
    stream: Option<Mutex<BoxStream<'static, Result<EngineEvent, PortError>>>>,
    /// Containers that were sent a signal, by whomever.
    killed: BTreeSet<ContainerId>,
    /// Containers that were started.
    started: BTreeSet<ContainerId>,
    /// Containers that were removed.
    destroyed: BTreeSet<ContainerId>,
    /// Containers whose process ended.
    died: BTreeSet<ContainerId>,
    /// The stream ended or broke.
    lost: bool,
}

impl Watch {
    /// Subscribes. An engine that cannot be asked for its events is watched by looking alone.
    pub(super) async fn start(ports: &UpdatePorts) -> Self {
        let stream = match ports.runtime.events().await {
            Ok(stream) => Some(Mutex::new(stream)),
            Err(error) => {
                tracing::debug!(%error, "no event stream");
                None
            }
        };
        let none = BTreeSet::new;
        Self {
            stream,
            killed: none(),
            started: none(),
            destroyed: none(),
            died: none(),
            lost: false,
        }
    }

    /// Subscribes anew after the engine was away. What others did to containers before that is still so.
    pub(super) async fn start_again(&mut self, ports: &UpdatePorts) {
        self.drain();
        let before = std::mem::replace(self, Self::start(ports).await);
        self.started = before.started;
        self.destroyed = before.destroyed;
    }

    /// Takes in what has arrived, without waiting.
    fn drain(&mut self) {
        while let Some(stream) = &mut self.stream {
            match stream.get_mut().next().now_or_never() {
                None => return,
                Some(item) => self.take(item),
            }
        }
    }

    fn take(&mut self, item: Option<Result<EngineEvent, PortError>>) {
        let Some(Ok(event)) = item else {
            self.stream = None;
            self.lost = true;
            return;
        };
        let set = match event.kind {
            EngineEventKind::Kill | EngineEventKind::Stop => &mut self.killed,
            EngineEventKind::Start => &mut self.started,
            EngineEventKind::Destroy => &mut self.destroyed,
            EngineEventKind::Die => &mut self.died,
            _ => return,
        };
        set.insert(event.container);
    }

    /// Forgets that a container was started, stopped or removed, because fleet is about to do that itself.
    pub(super) fn ours(&mut self, id: &ContainerId) {
        self.drain();
        for set in [
            &mut self.killed,
            &mut self.started,
            &mut self.destroyed,
            &mut self.died,
        ] {
            set.remove(id);
        }
    }

    /// Whether a signal was sent to a container since fleet last acted on it.
    pub(super) fn was_killed(&mut self, id: &ContainerId) -> bool {
        self.drain();
        self.killed.contains(id)
    }

    /// Whether a container's process ended since fleet last acted on it.
    pub(super) fn has_died(&mut self, id: &ContainerId) -> bool {
        self.drain();
        self.died.contains(id)
    }

    /// Whether the engine's events broke off.
    pub(super) fn lost(&mut self) -> bool {
        self.drain();
        self.lost
    }

    /// Waits for the next event, for ever if there are none to come.
    pub(super) async fn changed(&mut self) {
        match &mut self.stream {
            Some(stream) => {
                let item = stream.get_mut().next().await;
                self.take(item);
            }
            None => future::pending().await,
        }
    }

    /// What somebody else did to this update's containers that makes going on wrong.
    pub(super) fn foreign(&mut self, state: &UpdateState) -> Option<String> {
        self.drain();
        for (member, known) in state.members.iter().enumerate() {
            let plan = &state.plan.members[member];
            let old = state.old_id(member);
            let stopped =
                known.done.contains(&Step::Stop) && !known.started.contains(&Step::StartOld);
            if stopped && self.started.contains(old) {
                return Some(format!(
                    "somebody started the parked container {} of {}",
                    old.short(),
                    plan.instance
                ));
            }
            let Some(new) = &known.facts.candidate else {
                continue;
            };
            if known.done.contains(&Step::StopNew) && self.started.contains(new) {
                return Some(format!(
                    "somebody started the failed container {} of {}",
                    new.short(),
                    plan.instance
                ));
            }
            // Once it was stopped for good nobody needs it any more: a prune may take it.
            let needed =
                known.started.contains(&Step::Start) && !known.done.contains(&Step::StopNew);
            if needed && self.destroyed.contains(new) {
                return Some(format!(
                    "somebody removed the new container {} of {}",
                    new.short(),
                    plan.instance
                ));
            }
        }
        None
    }
}
