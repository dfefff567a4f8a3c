//! Making the new container of an update, or the old one again.

use std::collections::BTreeSet;

use fleet_core::ids::{ContainerId, ImageId, UpdateId, VolumeName};
use fleet_core::model::labels::UPDATE;
use fleet_core::model::{Container, FrozenSpec, RunState};
use fleet_core::ports::{
    CandidateRequest, Created, PortError, PortErrorKind, Repoint, RestoreRequest,
};
use fleet_core::time::Timestamp;
use serde_json::{Value, json};

use super::{DockerEngine, WORK_LIMIT};
use crate::json::{list, text};
use crate::recreate::{self, CreatePlan, Difference, EngineSpec, Spec, spec_diff};

const OP: &str = "create a container";

/// What candidate and restored container have in common.
struct Making<'a> {
    update: &'a UpdateId,
    name: &'a str,
    frozen: &'a FrozenSpec,
    image_id: &'a ImageId,
    image: &'a str,
    repoint: &'a [Repoint],
}

impl DockerEngine {
    pub(super) async fn create_candidate(
        &self,
        request: &CandidateRequest,
    ) -> Result<Created, PortError> {
        self.make_detached(request.clone()).await
    }

    pub(super) async fn restore(&self, request: &RestoreRequest) -> Result<Created, PortError> {
        // The old container again is a candidate whose new image is the old one.
        self.make_detached(CandidateRequest {
            update: request.update,
            name: request.name.clone(),
            image_id: request.frozen.container.image_id.clone(),
            image: request.frozen.container.image.clone(),
            frozen: request.frozen.clone(),
            repoint: request.repoint.clone(),
        })
        .await
    }

    /// What an update of a frozen container to an image would change, without making anything.
    ///
    /// `image` is an id or reference that the engine has, `named` what the new container calls it. References to containers of the same group stay as they are.
    ///
    /// # Errors
    /// `NotFound`: the engine does not have the image. `Invalid`: the frozen form is another version's.
    pub async fn preview(
        &self,
        frozen: &FrozenSpec,
        image: &str,
        named: &str,
    ) -> Result<Vec<Difference>, PortError> {
        let spec = EngineSpec::of(frozen)?;
        let raw = self.image_raw(image).await?.ok_or_else(|| {
            let message =
                format!("the image {image} is not in the engine; it is known once it is pulled");
            PortError::new(
                "compare old and new settings",
                PortErrorKind::NotFound,
                message,
            )
        })?;
        let empty_volumes = self.empty_volumes(&frozen.container).await?;
        let plan = recreate::plan(&recreate::Inputs {
            spec: &spec,
            image_id: text(&raw["Id"]),
            image_config: &raw["Config"],
            image: named,
            update: &UpdateId::new(Timestamp::UNIX_EPOCH, [0; 10]),
            repoint: &[],
            empty_volumes: &empty_volumes,
            compose_hash: None,
            api: self.api_version,
        });
        let old = Spec::of_engine(&spec);
        Ok(spec_diff(&old, &Spec::of_plan(&plan, &raw["Config"])))
    }

    /// Runs on a task of its own: a caller that goes away must not leave a tag on the wrong image.
    async fn make_detached(&self, request: CandidateRequest) -> Result<Created, PortError> {
        let engine = self.clone();
        let making = tokio::spawn(async move {
            engine
                .make(&Making {
                    update: &request.update,
                    name: &request.name,
                    frozen: &request.frozen,
                    image_id: &request.image_id,
                    image: &request.image,
                    repoint: &request.repoint,
                })
                .await
        });
        making.await.map_err(|source| {
            PortError::new(OP, PortErrorKind::Failed, "it was cut short").with_source(source)
        })?
    }

    async fn make(&self, making: &Making<'_>) -> Result<Created, PortError> {
        let spec = EngineSpec::of(making.frozen)?;
        let image = self
            .image_raw(making.image_id.as_str())
            .await?
            .ok_or_else(|| {
                let message = format!("the image {} is not in the engine", making.image_id.short());
                PortError::new(OP, PortErrorKind::NotFound, message)
            })?;
        let empty_volumes = self.empty_volumes(&making.frozen.container).await?;
        let plan = |compose_hash: Option<&str>| {
            recreate::plan(&recreate::Inputs {
                spec: &spec,
                image_id: making.image_id.as_str(),
                image_config: &image["Config"],
                image: making.image,
                update: making.update,
                repoint: making.repoint,
                empty_volumes: &empty_volumes,
                compose_hash,
                api: self.api_version,
            })
        };
        if let Some(found) = self.find_by_name(making.name).await? {
            return self.adopt(making, &plan(None), found).await;
        }
        let calming = self
            .calming(&spec, &making.frozen.container.image_id, making.image)
            .await;
        let made_volumes = self.make_new_volumes(making.update, &plan(None)).await?;
        let creating = async {
            let (hash, warning) = self.new_hash(&calming).await;
            let plan = plan(hash.as_deref());
            let body = Value::Object(plan.body.clone());
            let (id, mut warnings) = self.create_raw(making.name, &body).await?;
            warnings.extend(warning);
            Ok((id, warnings, plan))
        };
        let made = match self
            .with_tag_on(making.image, making.image_id, creating)
            .await
        {
            Ok((id, warnings, plan)) => {
                let finished = self.finish(&plan, making, &id).await;
                finished.map(|()| created(id, warnings, plan))
            }
            Err(error) => Err(error),
        };
        // Where the outcome is not known the container may exist and use the volumes.
        if made.as_ref().is_err_and(|error| !error.outcome_unknown()) {
            self.give_back(&made_volumes).await;
        }
        made
    }

    /// Removes volumes that were made for a container that could not be. The error that matters is the earlier one; a
    /// volume left behind carries the update's label.
    async fn give_back(&self, volumes: &[VolumeName]) {
        for name in volumes {
            if let Err(left) = self.remove_own_volume(name).await {
                tracing::warn!(volume = %name, error = %left, "a new volume could not be removed");
            }
        }
    }

    /// Makes the volumes that are missing; returns those that were.
    async fn make_new_volumes(
        &self,
        update: &UpdateId,
        plan: &CreatePlan,
    ) -> Result<Vec<VolumeName>, PortError> {
        let mut made = Vec::new();
        for volume in &plan.new_volumes {
            if self.volume_source(&volume.name).await?.is_none() {
                self.make_volume(&volume.name, update).await?;
                made.push(volume.name.clone());
            }
        }
        Ok(made)
    }

    /// The create call itself: id and the engine's warnings.
    pub(super) async fn create_raw(
        &self,
        name: &str,
        body: &Value,
    ) -> Result<(ContainerId, Vec<String>), PortError> {
        let answer = self
            .raw
            .post(
                OP,
                &["containers", "create"],
                &[("name", name)],
                body,
                WORK_LIMIT,
            )
            .await?;
        let id = ContainerId::new(text(&answer["Id"])).map_err(|source| {
            PortError::new(
                OP,
                PortErrorKind::Failed,
                "the engine's answer has no usable id",
            )
            .with_source(source)
        })?;
        let warnings = list(&answer["Warnings"])
            .iter()
            .map(|warning| text(warning).to_owned())
            .collect();
        Ok((id, warnings))
    }

    /// Checks what came out and puts it on its networks; on any failure it is removed again.
    async fn finish(
        &self,
        plan: &CreatePlan,
        making: &Making<'_>,
        id: &ContainerId,
    ) -> Result<(), PortError> {
        let finished = async {
            let made = self.existing(OP, id).await?;
            expect_image(&made, making.image_id)?;
            self.join_networks(plan, id).await
        };
        match finished.await {
            Ok(()) => Ok(()),
            Err(error) => {
                if let Err(left) = self.remove_stopped(id).await {
                    tracing::warn!(container = %id, error = %left, "a half-made container could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Connects the networks that the create call could not take; those it sits on already are left alone.
    async fn join_networks(&self, plan: &CreatePlan, id: &ContainerId) -> Result<(), PortError> {
        let raw = self
            .inspect_raw(id.as_str())
            .await?
            .unwrap_or_else(|| json!({}));
        let on = |network: &str| raw["NetworkSettings"]["Networks"][network].is_object();
        for network in plan
            .networks
            .disconnect
            .iter()
            .filter(|network| on(network))
        {
            self.disconnect_network(network, id).await?;
        }
        for (network, settings) in &plan.networks.connect {
            if !on(network) {
                self.connect_network(network, id, settings).await?;
            }
        }
        Ok(())
    }

    /// A container of that name exists. If this update made it from this image and it never ran, the call was cut
    /// short before: finish it.
    async fn adopt(
        &self,
        making: &Making<'_>,
        plan: &CreatePlan,
        found: Container,
    ) -> Result<Created, PortError> {
        let ours = found.labels.get(UPDATE) == Some(&making.update.to_string());
        if !ours {
            let message = format!("the name {} is taken by {}", making.name, found.id.short());
            return Err(PortError::new(OP, PortErrorKind::Conflict, message));
        }
        expect_image(&found, making.image_id)?;
        if found.state != RunState::Created {
            let message = format!("expected {} not to have been started", making.name);
            return Err(PortError::new(OP, PortErrorKind::Conflict, message));
        }
        self.join_networks(plan, &found.id).await?;
        let mounted: BTreeSet<&VolumeName> = found.writable_volumes().collect();
        let new_volumes = plan
            .new_volumes
            .iter()
            .map(|volume| volume.name.clone())
            .filter(|name| mounted.contains(name))
            .collect();
        Ok(Created {
            id: found.id.clone(),
            warnings: Vec::new(),
            new_volumes,
        })
    }
}

/// What came out, with what people should know.
fn created(id: ContainerId, mut warnings: Vec<String>, plan: CreatePlan) -> Created {
    warnings.extend(plan.unknown.iter().map(|field| {
        format!("the engine's setting {field} is not known to fleet and was carried over as it is")
    }));
    Created {
        id,
        warnings,
        new_volumes: plan
            .new_volumes
            .into_iter()
            .map(|volume| volume.name)
            .collect(),
    }
}

fn expect_image(made: &Container, expected: &ImageId) -> Result<(), PortError> {
    if &made.image_id == expected {
        return Ok(());
    }
    let message = format!(
        "expected a container of image {}, found {}; somebody moved the tag at the same moment",
        expected.short(),
        made.image_id.short()
    );
    Err(PortError::new(OP, PortErrorKind::Conflict, message))
}
