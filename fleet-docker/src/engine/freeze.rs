//! Looking at containers, and keeping everything about one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleet_core::ids::{ContainerId, ImageId};
use fleet_core::model::{Container, FrozenSpec, Inventory};
use fleet_core::ports::{PortError, PortErrorKind};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::container::{container, parent_references, volumes_from_reference};
use super::{CALL_LIMIT, DockerEngine};
use crate::json::{list, text};
use crate::recreate::{EngineSpec, clean};

/// Inspect calls in flight while listing: enough to hide the latency, few enough not to crowd the engine.
const INSPECTS_AT_ONCE: usize = 8;

impl DockerEngine {
    pub(super) async fn list_all(&self) -> Result<Inventory, PortError> {
        let op = "list containers";
        let listed = self
            .raw
            .get(op, &["containers", "json"], &[("all", "1")], CALL_LIMIT)
            .await?;
        let ids: Vec<String> = list(&listed.unwrap_or_default())
            .iter()
            .map(|entry| text(&entry["Id"]).to_owned())
            .collect();
        let inspected: Vec<Option<Value>> = stream::iter(ids)
            .map(|id| async move { self.inspect_raw(&id).await })
            .buffered(INSPECTS_AT_ONCE)
            .try_collect()
            .await?;
        let inspected: Vec<Value> = inspected.into_iter().flatten().collect();
        let known = Known::of(&inspected);
        let mut containers = inspected
            .iter()
            .map(|raw| container(raw, &|reference| known.resolve(reference)))
            .collect::<Result<Vec<_>, _>>()?;
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Inventory { containers })
    }

    /// The raw inspect answer for an id or name, none if there is no such container.
    pub(crate) async fn inspect_raw(&self, reference: &str) -> Result<Option<Value>, PortError> {
        self.raw
            .get(
                "inspect a container",
                &["containers", reference, "json"],
                &[],
                CALL_LIMIT,
            )
            .await
    }

    /// The model of a raw answer; asks for the containers that it refers to.
    pub(super) async fn modelled(&self, raw: &Value) -> Result<Container, PortError> {
        let parents = self.resolve_parents(&raw["HostConfig"]).await?;
        container(raw, &|reference| parents.get(reference).cloned())
    }

    pub(super) async fn inspect_by_id(
        &self,
        id: &ContainerId,
    ) -> Result<Option<Container>, PortError> {
        match self.inspect_raw(id.as_str()).await? {
            Some(raw) => self.modelled(&raw).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn find_by_name(&self, name: &str) -> Result<Option<Container>, PortError> {
        if name.is_empty() || name.contains('/') {
            return Ok(None);
        }
        // The engine falls back from a name to an id prefix, so the answer's own name decides.
        match self.inspect_raw(name).await? {
            Some(raw) if text(&raw["Name"]).trim_start_matches('/') == name => {
                self.modelled(&raw).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The raw inspect answer of an image by id or reference, none if the engine does not have it.
    pub(crate) async fn image_raw(&self, reference: &str) -> Result<Option<Value>, PortError> {
        let mut path = vec!["images"];
        path.extend(reference.split('/'));
        path.push("json");
        self.raw
            .get("inspect an image", &path, &[], CALL_LIMIT)
            .await
    }

    pub(super) async fn freeze_container(&self, id: &ContainerId) -> Result<FrozenSpec, PortError> {
        let op = "keep a container's settings";
        let gone = |what: String| PortError::new(op, PortErrorKind::NotFound, what);
        let inspect = self
            .inspect_raw(id.as_str())
            .await?
            .ok_or_else(|| gone(format!("there is no container {}", id.short())))?;
        let container = self.modelled(&inspect).await?;
        let image = self.image_raw(container.image_id.as_str()).await?.ok_or_else(|| {
            gone(format!(
                "the image {} of {} is gone, so what came from it cannot be told from what was set by hand; \
                 create the container again from an image that exists",
                container.image_id.short(),
                container.name
            ))
        })?;
        let platform = text(&inspect["Platform"]);
        if !matches!(platform, "" | "linux") {
            let message = format!("expected a linux container, found {platform}");
            return Err(PortError::new(op, PortErrorKind::Unsupported, message));
        }
        let spec = EngineSpec {
            schema: EngineSpec::SCHEMA,
            inherited_targets: self.inherited_targets(&inspect).await?,
            parents: self.resolve_parents(&inspect["HostConfig"]).await?,
            image_config: image["Config"].clone(),
            host_name: self.host_name().await?,
            inspect,
        };
        Ok(FrozenSpec {
            tag_image: self.tag_target(&container.image).await?,
            container,
            engine: serde_json::to_value(spec).map_err(|source| {
                PortError::new(op, PortErrorKind::Failed, "it cannot be written")
                    .with_source(source)
            })?,
        })
    }

    /// The image that a local tag points to; none if the text is not a tag or the engine does not have it.
    async fn tag_target(&self, image: &str) -> Result<Option<ImageId>, PortError> {
        if super::tags::split_tag(image).is_none() {
            return Ok(None);
        }
        let found = self.image_raw(image).await?;
        Ok(found.and_then(|raw| ImageId::new(text(&raw["Id"])).ok()))
    }

    async fn resolve_parents(
        &self,
        host: &Value,
    ) -> Result<BTreeMap<String, ContainerId>, PortError> {
        let mut parents = BTreeMap::new();
        for parent in parent_references(host) {
            if let Some(raw) = self.inspect_raw(&parent.reference).await?
                && let Ok(id) = ContainerId::new(text(&raw["Id"]))
            {
                parents.insert(parent.reference, id);
            }
        }
        Ok(parents)
    }

    /// Targets of the mounts that a container has from others, as far as these still have the same ones.
    async fn inherited_targets(&self, inspect: &Value) -> Result<BTreeSet<String>, PortError> {
        let mut targets = BTreeSet::new();
        for entry in list(&inspect["HostConfig"]["VolumesFrom"]) {
            let Some(parent) = self
                .inspect_raw(volumes_from_reference(text(entry)))
                .await?
            else {
                continue;
            };
            let key = |mount: &Value| {
                (
                    clean(text(&mount["Destination"])),
                    text(&mount["Name"]).to_owned(),
                    text(&mount["Source"]).to_owned(),
                )
            };
            let of_parent: BTreeSet<_> = list(&parent["Mounts"]).iter().map(key).collect();
            targets.extend(
                list(&inspect["Mounts"])
                    .iter()
                    .map(key)
                    .filter(|mount| of_parent.contains(mount))
                    .map(|(target, _, _)| target),
            );
        }
        Ok(targets)
    }
}

/// Ids by the ways in which settings may name a container.
struct Known(HashMap<String, ContainerId>);

impl Known {
    fn of(inspected: &[Value]) -> Self {
        let mut known = HashMap::new();
        for raw in inspected {
            let Ok(id) = ContainerId::new(text(&raw["Id"])) else {
                continue;
            };
            known.insert(
                text(&raw["Name"]).trim_start_matches('/').to_owned(),
                id.clone(),
            );
            known.insert(id.short().to_owned(), id.clone());
            known.insert(id.as_str().to_owned(), id);
        }
        Self(known)
    }

    fn resolve(&self, reference: &str) -> Option<ContainerId> {
        self.0.get(reference.trim_start_matches('/')).cloned()
    }
}
