//! What helpers need of the engine: an image made here, and a container whose pipes we hold.

use bollard::container::LogOutput;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveImageOptions,
};
use bytes::Bytes;
use fleet_core::ids::{ContainerId, VolumeName};
use fleet_core::model::labels::KIND;
use fleet_core::ports::PortError;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{CALL_LIMIT, DockerEngine, WORK_LIMIT, limited};
use crate::error;
use crate::helper::Pipes;
use crate::json::{list, text};

/// Most bytes of a helper's complaints that are logged.
const COMPLAINT_MOST: usize = 4096;

impl DockerEngine {
    /// Whether there is an image of this name.
    pub(crate) async fn has_image(&self, name: &str) -> Result<bool, PortError> {
        Ok(self.image_raw(name).await?.is_some())
    }

    /// Makes an image of one layer from a tar archive.
    pub(crate) async fn import_image(
        &self,
        name: &str,
        archive: Bytes,
        change: &str,
    ) -> Result<(), PortError> {
        let op = "import an image";
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(vec![change.to_owned()])
            .build();
        let body = bollard::body_full(archive);
        let mut items = Box::pin(self.docker.create_image(Some(options), Some(body), None));
        let reading = async {
            while let Some(item) = items.next().await {
                item.map_err(|source| error::from_bollard(op, source))?;
            }
            Ok(())
        };
        tokio::time::timeout(WORK_LIMIT, reading)
            .await
            .map_err(|_| error::timeout(op))?
    }

    /// Removes the images of a label that are of a repository, or of none, and that nobody uses; `current` stays.
    pub(crate) async fn remove_labelled_images(
        &self,
        label: &str,
        repository: &str,
        current: &str,
    ) -> Result<(), PortError> {
        let op = "remove images of former helpers";
        let filter = json!({ "label": [label] }).to_string();
        let query = [("filters", filter.as_str())];
        let listed = self
            .raw
            .get(op, &["images", "json"], &query, CALL_LIMIT)
            .await?
            .unwrap_or_default();
        for image in list(&listed) {
            let tags: Vec<&str> = list(&image["RepoTags"])
                .iter()
                .map(text)
                .filter(|tag| *tag != "<none>:<none>")
                .collect();
            let of_repository = |tag: &&str| tag.split(':').next() == Some(repository);
            if tags.contains(&current) || !tags.iter().all(of_repository) {
                continue;
            }
            // One that is used is refused by the engine, which is as it should be.
            let reference = tags.first().copied().unwrap_or(text(&image["Id"]));
            let call = self
                .docker
                .remove_image(reference, None::<RemoveImageOptions>, None);
            if let Err(error) = limited(op, WORK_LIMIT, call).await {
                tracing::debug!(image = reference, error = %error, "an image stays");
            }
        }
        Ok(())
    }

    /// Containers that carry a label and mount a volume, with the value of another label.
    pub(crate) async fn labelled_at_volume(
        &self,
        label: &str,
        value_of: &str,
        volume: &VolumeName,
    ) -> Result<Vec<(ContainerId, String)>, PortError> {
        let filter = json!({ "label": [label], "volume": [volume] }).to_string();
        let listed = self.listed(&filter).await?;
        let found = list(&listed).iter().filter_map(|entry| {
            let id = ContainerId::new(text(&entry["Id"])).ok()?;
            Some((id, text(&entry["Labels"][value_of]).to_owned()))
        });
        Ok(found.collect())
    }

    /// Every container that a filter lets through, as it is listed.
    async fn listed(&self, filter: &str) -> Result<Value, PortError> {
        let query = [("all", "1"), ("filters", filter)];
        let path = ["containers", "json"];
        let listed = self.raw.get("list helpers", &path, &query, CALL_LIMIT);
        Ok(listed.await?.unwrap_or_default())
    }

    /// Containers of a kind of fleet's own that were made and never started, with the second of their making.
    pub(crate) async fn never_started(
        &self,
        kind: &str,
    ) -> Result<Vec<(ContainerId, u64)>, PortError> {
        let label = format!("{KIND}={kind}");
        let filter = json!({ "label": [label], "status": ["created"] }).to_string();
        let listed = self.listed(&filter).await?;
        let found = list(&listed).iter().filter_map(|entry| {
            let id = ContainerId::new(text(&entry["Id"])).ok()?;
            Some((id, entry["Created"].as_u64()?))
        });
        Ok(found.collect())
    }

    /// Makes a container, takes its pipes, starts it.
    pub(crate) async fn start_attached(
        &self,
        op: &'static str,
        name: &str,
        body: &Value,
    ) -> Result<Pipes, PortError> {
        let (id, _warnings) = self.create_raw(name, body).await?;
        match self.attach_and_start(op, &id).await {
            Ok(pipes) => Ok(pipes),
            Err(error) => {
                if let Err(left) = self.remove_stopped(&id).await {
                    tracing::warn!(container = %id, error = %left, "a half-made helper could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Removes a container of fleet's own, running or not.
    pub(crate) async fn remove_tool(&self, id: &ContainerId) -> Result<(), PortError> {
        self.remove_stopped(id).await
    }

    async fn attach_and_start(
        &self,
        op: &'static str,
        id: &ContainerId,
    ) -> Result<Pipes, PortError> {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attach = self.docker.attach_container(id.as_str(), Some(options));
        let attached = limited(op, CALL_LIMIT, attach).await?;
        let (pipes, input, output) = Pipes::new(id.clone());
        tokio::spawn(pump_in(input, attached.input));
        tokio::spawn(pump_out(id.clone(), attached.output, output));
        self.start_and_look(id).await?;
        Ok(pipes)
    }
}

async fn pump_in(
    mut from: mpsc::Receiver<Bytes>,
    mut to: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
) {
    while let Some(bytes) = from.recv().await {
        // A broken pipe shows on the other pipe, with the reason.
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn pump_out(
    id: ContainerId,
    mut from: std::pin::Pin<
        Box<dyn futures::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
    >,
    to: mpsc::Sender<std::io::Result<Bytes>>,
) {
    while let Some(item) = from.next().await {
        let item = match item {
            Ok(LogOutput::StdErr { message }) => {
                let text = String::from_utf8_lossy(&message[..message.len().min(COMPLAINT_MOST)]);
                tracing::warn!(container = %id, "a helper says: {}", text.trim_end());
                continue;
            }
            Ok(output) => Ok(output.into_bytes()),
            Err(error) => Err(std::io::Error::other(error)),
        };
        if to.send(item).await.is_err() {
            return;
        }
    }
}
