//! Volumes: where they lie, whether they hold anything, making and removing fleet's own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;
use fleet_core::ids::{UpdateId, VolumeName};
use fleet_core::model::labels::UPDATE;
use fleet_core::model::{Container, MountKind, VolumeSource};
use fleet_core::ports::{PortError, PortErrorKind};

use super::container::string_map;
use super::{CALL_LIMIT, DockerEngine, limited};
use crate::json::text;

impl DockerEngine {
    pub(super) async fn volume_source(
        &self,
        name: &VolumeName,
    ) -> Result<Option<VolumeSource>, PortError> {
        let op = "inspect a volume";
        let raw = self
            .raw
            .get(op, &["volumes", name.as_str()], &[], CALL_LIMIT)
            .await?;
        Ok(raw.map(|raw| VolumeSource {
            name: name.clone(),
            driver: text(&raw["Driver"]).to_owned(),
            mountpoint: text(&raw["Mountpoint"]).to_owned(),
            options: string_map(&raw["Options"]),
            labels: string_map(&raw["Labels"]),
        }))
    }

    /// Makes a volume of fleet's own. One that is there already, and fleet's, is fine.
    pub(super) async fn make_volume(
        &self,
        name: &VolumeName,
        update: &UpdateId,
    ) -> Result<(), PortError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_string()),
            labels: Some(HashMap::from([(UPDATE.to_owned(), update.to_string())])),
            ..VolumeCreateRequest::default()
        };
        limited(
            "make a volume",
            CALL_LIMIT,
            self.docker.create_volume(request),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn remove_own_volume(&self, name: &VolumeName) -> Result<(), PortError> {
        let op = "remove a volume";
        let Some(volume) = self.volume_source(name).await? else {
            return Ok(());
        };
        if !volume.labels.contains_key(UPDATE) {
            let message = format!(
                "{name} does not carry {UPDATE}: fleet did not make it and leaves it alone"
            );
            return Err(PortError::new(op, PortErrorKind::Invalid, message));
        }
        let call = self
            .docker
            .remove_volume(name.as_str(), None::<RemoveVolumeOptions>);
        match limited(op, CALL_LIMIT, call).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// The container's volumes that hold nothing, or may hold nothing: the engine would fill these from an image.
    ///
    /// A volume that cannot be looked into (another host, another driver) counts as empty: `nocopy` on a volume with
    /// content changes nothing.
    pub(super) async fn empty_volumes(
        &self,
        container: &Container,
    ) -> Result<BTreeSet<VolumeName>, PortError> {
        let mut places: BTreeMap<VolumeName, Option<PathBuf>> = BTreeMap::new();
        for mount in &container.mounts {
            if let MountKind::Volume {
                name,
                driver,
                source,
            } = &mount.kind
            {
                let visible = driver == "local" && self.endpoint.is_local() && !source.is_empty();
                places.insert(name.clone(), visible.then(|| PathBuf::from(source)));
            }
        }
        let looking = tokio::task::spawn_blocking(move || {
            places
                .into_iter()
                .filter(|(_, place)| place.as_ref().is_none_or(|place| is_empty_folder(place)))
                .map(|(name, _)| name)
                .collect()
        });
        looking.await.map_err(|source| {
            PortError::new(
                "look into volumes",
                PortErrorKind::Failed,
                "the look was cut short",
            )
            .with_source(source)
        })
    }
}

/// Whether a folder has no entries, or cannot be read.
fn is_empty_folder(place: &std::path::Path) -> bool {
    std::fs::read_dir(place).map_or(true, |mut entries| entries.next().is_none())
}
