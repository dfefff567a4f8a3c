//! What goes over the socket while a call is carried out: one JSON object a line.

use std::sync::Arc;

use fleet_core::ports::{Progress, ProgressSink};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

use super::problem::Problem;
use crate::answer::Answer;
use crate::call::{Said, Voice};

/// The type of a body of frames.
pub(super) const FRAMES: &str = "application/x-ndjson";
/// In whose name something is asked.
pub(super) const ACTOR: &str = "fleet-actor";
/// Exit code of the command that would have asked.
pub(super) const EXIT: &str = "fleet-exit";
/// Frames that wait for a client that is slow.
const WAITING_MAX: usize = 256;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame {
    /// For people.
    Told(String),
    /// Where something stands.
    Progress(Said),
    /// The answer; nothing follows.
    Answer(Box<Answer>),
    /// What went wrong; nothing follows.
    Problem(Problem),
}

/// Progress of all rollouts, for whoever listens.
#[derive(Debug, Clone)]
pub(crate) struct Hub(broadcast::Sender<Said>);

impl Hub {
    /// A hub that nobody listens to yet.
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(WAITING_MAX))
    }

    /// Hears what is said from now on.
    pub(super) fn listen(&self) -> Heard {
        Heard(self.0.subscribe())
    }
}

/// What is said in a hub since somebody listens.
pub(super) struct Heard(broadcast::Receiver<Said>);

impl Heard {
    /// Passes it on. Never ends.
    pub(super) async fn pass_on(mut self, wire: &Wire) {
        loop {
            match self.0.recv().await {
                Ok(said) => wire.send(Frame::Progress(said)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl ProgressSink for Hub {
    fn report(&self, progress: Progress) {
        // Nobody listens: that is fine.
        let _ = self.0.send(progress.into());
    }
}

/// The way to a client. What it is too slow for, or is gone for, is left out; what is asked for goes on.
#[derive(Debug, Clone)]
pub(super) struct Wire(mpsc::Sender<Frame>);

impl Wire {
    /// A way, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Frame>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    fn send(&self, frame: Frame) {
        let _ = self.0.try_send(frame);
    }

    /// Waits until the client is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// The last frame: waits for a client that is slow.
    pub(super) async fn end(self, frame: Frame) {
        let _ = self.0.send(frame).await;
    }
}

impl Voice for Wire {
    fn tell(&self, text: &str) {
        self.send(Frame::Told(text.to_owned()));
    }

    fn sink(&self, _name: &str) -> Box<dyn ProgressSink> {
        Box::new(self.clone())
    }
}

impl ProgressSink for Wire {
    fn report(&self, progress: Progress) {
        self.send(Frame::Progress(progress.into()));
    }
}

/// A voice for those who want the answer alone: what is said goes to the log.
pub(super) struct Log;

impl Voice for Log {
    fn tell(&self, text: &str) {
        tracing::info!("{text}");
    }

    fn sink(&self, _name: &str) -> Box<dyn ProgressSink> {
        Box::new(fleet_core::ports::NoProgress)
    }
}

impl Log {
    /// As a voice.
    pub(super) fn voice() -> Arc<dyn Voice> {
        Arc::new(Self)
    }
}
