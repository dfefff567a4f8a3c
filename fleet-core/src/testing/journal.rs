//! The journal of a fake host: a [`MemoryStore`] whose calls can fail, be lost, and be the last of a process.

use async_trait::async_trait;
use futures::FutureExt as _;

use super::host::{FakeHost, Side};
use super::machine::Fact;
use super::memory::MemoryStore;
use crate::ids::{InstanceId, UpdateId};
use crate::image::Digest;
use crate::ports::{
    Deployed, Journal, JournalError, JournalWrite, NewUpdate, PortError, Quarantined, StoredUpdate,
};
use crate::record::NewEvent;

/// A journal on a [`FakeHost`]: every call is one of the host's calls.
#[derive(Debug, Clone)]
pub struct FakeJournal {
    host: FakeHost,
    store: MemoryStore,
}

impl FakeJournal {
    /// The journal kept in this store.
    #[must_use]
    pub fn new(host: FakeHost, store: MemoryStore) -> Self {
        Self { host, store }
    }

    async fn call<T: Send>(
        &self,
        op: &'static str,
        on: &str,
        effect: impl Future<Output = Result<T, JournalError>> + Send,
    ) -> Result<T, JournalError> {
        let called = self.host.call(Side::Elsewhere, op, on, |_| {
            // Memory never makes anybody wait.
            effect.now_or_never().map_or_else(
                || {
                    Err(PortError::new(
                        op,
                        crate::ports::PortErrorKind::Timeout,
                        "it waits",
                    ))
                },
                Ok,
            )
        });
        called.await.map_err(|error| JournalError::Store {
            message: error.message().to_owned(),
            source: None,
        })?
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn open(&self, update: &NewUpdate, events: Vec<NewEvent>) -> Result<(), JournalError> {
        let on = update.plan.id.short();
        self.call("open the update", &on, self.store.open(update, events))
            .await
    }

    async fn append(&self, update: &UpdateId, write: JournalWrite) -> Result<(), JournalError> {
        let outcome = write.outcome;
        let append = async {
            self.store.append(update, write).await?;
            if let Some(outcome) = outcome {
                Ok(Some(outcome))
            } else {
                Ok(None)
            }
        };
        let written = self
            .host
            .call(
                Side::Elsewhere,
                "append to the journal",
                &update.short(),
                |machine| {
                    let result = append.now_or_never().unwrap_or(Ok(None));
                    if let Ok(Some(outcome)) = &result {
                        machine.fact(Fact::Journalled(*outcome));
                    }
                    Ok(result.map(|_| ()))
                },
            )
            .await;
        written.map_err(|error| JournalError::Store {
            message: error.message().to_owned(),
            source: None,
        })?
    }

    async fn load_open(&self) -> Result<Vec<StoredUpdate>, JournalError> {
        self.call("load the open updates", "", self.store.load_open())
            .await
    }

    async fn load(&self, update: &UpdateId) -> Result<Option<StoredUpdate>, JournalError> {
        self.call("load the update", "", self.store.load(update))
            .await
    }

    async fn history(
        &self,
        instance: &InstanceId,
        limit: u32,
    ) -> Result<Vec<StoredUpdate>, JournalError> {
        self.call("load the history", "", self.store.history(instance, limit))
            .await
    }

    async fn quarantined(&self, instance: &InstanceId) -> Result<Vec<Quarantined>, JournalError> {
        self.call("load the quarantine", "", self.store.quarantined(instance))
            .await
    }

    async fn lift_quarantine(
        &self,
        instance: &InstanceId,
        digest: &Digest,
    ) -> Result<(), JournalError> {
        let lift = self.store.lift_quarantine(instance, digest);
        self.call("lift the quarantine", "", lift).await
    }

    async fn deployed(&self) -> Result<Vec<Deployed>, JournalError> {
        self.call("load what runs", "", self.store.deployed()).await
    }

    fn is_broken(&self) -> bool {
        self.store.is_broken()
    }
}
