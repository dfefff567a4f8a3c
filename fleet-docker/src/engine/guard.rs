//! The guard: a running container that keeps image, volumes and networks of an update from being pruned.
//!
//! One that was only created protects nothing, so it runs. It is made from the old image and mounts the volumes
//! read-only, with `nocopy` so that it puts nothing into them. It publishes nothing, may do nothing, and dies at once
//! when told to. Where the old image declares volumes, memory is mounted in their place: the engine would make an
//! anonymous volume for each, and somebody would have to remove it.

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use fleet_core::ids::{ContainerId, ImageId};
use fleet_core::model::labels::KIND;
use fleet_core::ports::{Created, GuardRequest, PortError, PortErrorKind};
use serde_json::{Map, Value, json};

use super::{CALL_LIMIT, DockerEngine, limited};
use crate::guard;
use crate::json::object;

const OP: &str = "set up the guard";
/// The network of containers that name none.
const DEFAULT_BRIDGE: &str = "bridge";
/// What its label says.
const GUARD_KIND: &str = "guard";

impl DockerEngine {
    pub(super) async fn raise_guard(&self, request: &GuardRequest) -> Result<Created, PortError> {
        if let Some(found) = self.find_by_name(&request.name).await? {
            let (owner, id) = request.owner.label();
            let label = |name: &str| found.labels.get(name).map(String::as_str);
            let ours = label(KIND) == Some(GUARD_KIND) && label(owner) == Some(id.as_str());
            if !ours {
                let message = format!("the name {} is taken by {}", request.name, found.id.short());
                return Err(PortError::new(OP, PortErrorKind::Conflict, message));
            }
            if found.is_up() && found.image_id == request.image_id {
                return Ok(created(found.id));
            }
            // It ended, or its making was cut short. It holds nothing: make it anew.
            self.remove_stopped(&found.id).await?;
        }
        let image = self
            .image_raw(request.image_id.as_str())
            .await?
            .ok_or_else(|| missing(&request.image_id))?;
        let architecture = crate::json::text(&image["Architecture"]);
        let program = guard::program(architecture).ok_or_else(|| {
            let message =
                format!("there is no guard program for {architecture}; only for amd64 and arm64");
            PortError::new(OP, PortErrorKind::Unsupported, message)
        })?;
        let networks = self.networks_of_guard(request).await;
        let (id, _warnings) = self
            .create_raw(&request.name, &body(request, &networks, &image["Config"]))
            .await?;
        match self.bring_up(&networks, &id, &program).await {
            Ok(()) => Ok(created(id)),
            Err(error) => {
                if let Err(left) = self.remove_stopped(&id).await {
                    tracing::warn!(container = %id, error = %left, "a half-made guard could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Where the guard sits: on the user's networks, and on the default bridge if there may be no other container there.
    ///
    /// A bridge without a running container has no carrier and forgets its neighbours. Whoever asks for the new container
    /// before it is up then waits a whole second for the kernel to look for it again (seen: 0.4 s without service became
    /// 1.4 s).
    async fn networks_of_guard(&self, request: &GuardRequest) -> Vec<String> {
        let mut networks = request.networks.clone();
        if request.default_network {
            // Nothing is lost but time where the engine does not say.
            let bridge = self.network_raw(OP, DEFAULT_BRIDGE).await.ok().flatten();
            if bridge.is_some_and(|bridge| runs_at_most(request.containers, &bridge)) {
                networks.push(DEFAULT_BRIDGE.to_owned());
            }
        }
        networks
    }

    async fn bring_up(
        &self,
        networks: &[String],
        id: &ContainerId,
        program: &[u8],
    ) -> Result<(), PortError> {
        for network in networks.iter().skip(1) {
            self.connect_network(network, id, &json!({})).await?;
        }
        let archive = archive(program).map_err(|source| {
            PortError::new(OP, PortErrorKind::Failed, "its program cannot be packed")
                .with_source(source)
        })?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let body = bollard::body_full(archive.into());
        limited(
            OP,
            CALL_LIMIT,
            self.docker
                .upload_to_container(id.as_str(), Some(options), body),
        )
        .await?;
        let outcome = self.start_and_look(id).await?;
        if outcome.running {
            return Ok(());
        }
        Err(PortError::new(
            OP,
            PortErrorKind::Failed,
            "it ended at once",
        ))
    }
}

fn created(id: ContainerId) -> Created {
    Created {
        id,
        warnings: Vec::new(),
        new_volumes: Vec::new(),
    }
}

fn missing(image: &ImageId) -> PortError {
    PortError::new(
        OP,
        PortErrorKind::NotFound,
        format!("the image {} is gone", image.short()),
    )
}

/// Whether no more containers than these run on a network; the engine lists only those that run.
fn runs_at_most(containers: usize, network: &Value) -> bool {
    object(&network["Containers"]).count() <= containers
}

fn body(request: &GuardRequest, networks: &[String], image_config: &Value) -> Value {
    let binds: Vec<String> = request
        .volumes
        .iter()
        .enumerate()
        .map(|(index, volume)| format!("{volume}:{}/{index}:ro,nocopy", guard::VOLUMES))
        .collect();
    let memory: Vec<Value> = object(&image_config["Volumes"])
        .map(|(target, _)| json!({ "Type": "tmpfs", "Target": target }))
        .collect();
    let network = networks.first();
    let endpoints: Map<String, Value> = network
        .map(|name| (name.clone(), json!({})))
        .into_iter()
        .collect();
    let (owner, id) = request.owner.label();
    json!({
        "Image": request.image_id,
        "Entrypoint": [guard::PATH],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Healthcheck": { "Test": ["NONE"] },
        "StopSignal": "SIGKILL",
        "Labels": { KIND: GUARD_KIND, owner: id },
        "HostConfig": {
            "Binds": binds,
            "Mounts": memory,
            "NetworkMode": network.map_or("none", String::as_str),
            "RestartPolicy": { "Name": "no" },
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": { "Type": "none" },
        },
        "NetworkingConfig": { "EndpointsConfig": endpoints },
    })
}

fn archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, guard::PATH.trim_start_matches('/'), program)?;
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_keeps_up_a_bridge_that_nobody_else_is_on() {
        let check = |containers: Value, expect: bool| {
            let network = json!({ "Name": "bridge", "Containers": containers });
            assert_eq!(runs_at_most(1, &network), expect, "{network}");
        };
        check(json!({}), true);
        check(Value::Null, true);
        check(json!({ "a": { "Name": "web" } }), true);
        check(
            json!({ "a": { "Name": "web" }, "b": { "Name": "db" } }),
            false,
        );
    }
}
