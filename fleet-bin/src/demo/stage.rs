//! What the demo makes on the engine, and how all of it goes again.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions,
};
use futures::TryStreamExt as _;

use crate::exit::Outcome;

/// Where the program in the containers listens.
const PORT: u16 = 8080;

/// A static program for the images.
pub(super) struct Program {
    /// The file.
    pub(super) bytes: Vec<u8>,
    /// Arguments that make it the demo's program.
    pub(super) args: Vec<String>,
}

/// The demo's objects on the engine.
pub(super) struct Stage {
    docker: Docker,
    prefix: String,
    images: Mutex<Vec<String>>,
    volumes: Mutex<Vec<String>>,
}

impl Stage {
    /// Connects; makes nothing yet.
    pub(super) async fn new(host: &str, prefix: String) -> Outcome<Self> {
        let docker = Docker::connect_with_host(host)?.negotiate_version().await?;
        Ok(Self {
            docker,
            prefix,
            images: Mutex::default(),
            volumes: Mutex::default(),
        })
    }

    /// The reference of a release.
    pub(super) fn release(&self, version: u8) -> String {
        format!("{}:{version}", self.prefix)
    }

    /// The name of a tenant's container.
    pub(super) fn container(&self, tenant: &str) -> String {
        format!("{}-{tenant}", self.prefix)
    }

    /// Makes the image of a release.
    pub(super) async fn image(&self, version: u8, mode: &str, program: &Program) -> Outcome<()> {
        let entrypoint: Vec<_> = std::iter::once("/app")
            .chain(program.args.iter().map(String::as_str))
            .collect();
        let changes = vec![
            format!("ENTRYPOINT {}", serde_json::to_string(&entrypoint)?),
            format!("ENV APP_VERSION={version}"),
            format!("ENV APP_MODE=\"{mode}\""),
            format!("EXPOSE {PORT}"),
        ];
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(&self.prefix)
            .tag(&version.to_string())
            .changes(changes)
            .build();
        let body = bollard::body_full(archive(&program.bytes)?.into());
        let items: Vec<_> = self
            .docker
            .create_image(Some(options), Some(body), None)
            .try_collect()
            .await?;
        drop(items);
        let made = self.docker.inspect_image(&self.release(version)).await?;
        self.images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(made.id);
        Ok(())
    }

    /// Makes a tenant's volume and container, and starts it.
    pub(super) async fn tenant(&self, tenant: &str) -> Outcome<()> {
        let name = self.container(tenant);
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            ..VolumeCreateRequest::default()
        };
        self.docker.create_volume(volume).await?;
        let labels = [
            ("fleet.enable", "true"),
            ("fleet.tenant", tenant),
            ("fleet.source", "local"),
            ("fleet.health.path", "/health"),
            ("fleet.health.expect", "{\"status\":\"ok\"}"),
            ("fleet.health.timeout", "3s"),
            ("fleet.health.interval", "200ms"),
            ("fleet.health.min_healthy", "300ms"),
        ];
        let body = ContainerCreateBody {
            image: Some(self.release(1)),
            labels: Some(
                labels
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{name}:/data")]),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let made = self.docker.create_container(Some(options), body).await?;
        self.docker
            .start_container(&made.id, None::<StartContainerOptions>)
            .await?;
        Ok(())
    }

    /// Where a tenant's program listens now, none while it has no address.
    pub(super) async fn address(&self, tenant: &str) -> Option<SocketAddr> {
        let found = self
            .docker
            .inspect_container(&self.container(tenant), None)
            .await
            .ok()?;
        let networks = found.network_settings?.networks?;
        let address = networks
            .into_values()
            .find_map(|network| network.ip_address)?;
        address
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, PORT))
    }

    /// Removes everything: containers by id, then volumes and images. An update that was cut off may still make
    /// something, so it looks until nothing is left.
    pub(super) async fn clean(&self) -> Outcome<()> {
        loop {
            let left = self.containers().await?;
            if left.is_empty() {
                break;
            }
            for id in left {
                let options = RemoveContainerOptionsBuilder::new().force(true).build();
                gone(self.docker.remove_container(&id, Some(options)).await)?;
            }
        }
        let volumes =
            std::mem::take(&mut *self.volumes.lock().unwrap_or_else(PoisonError::into_inner));
        for volume in volumes {
            gone(
                self.docker
                    .remove_volume(&volume, None::<RemoveVolumeOptions>)
                    .await,
            )?;
        }
        let images =
            std::mem::take(&mut *self.images.lock().unwrap_or_else(PoisonError::into_inner));
        for image in images {
            let options = RemoveImageOptionsBuilder::new().force(true).build();
            gone(
                self.docker
                    .remove_image(&image, Some(options), None)
                    .await
                    .map(drop),
            )?;
        }
        Ok(())
    }

    /// Containers with the demo's names, on its volumes or of its images.
    async fn containers(&self) -> Outcome<BTreeSet<String>> {
        let volumes = self
            .volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let images = self
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let filters = [
            ("name", vec![format!("^/{}", self.prefix)]),
            ("volume", volumes),
            ("ancestor", images),
        ];
        let mut ids = BTreeSet::new();
        for (filter, values) in filters.into_iter().filter(|(_, values)| !values.is_empty()) {
            let filters = HashMap::from([(filter, values)]);
            let options = ListContainersOptionsBuilder::new()
                .all(true)
                .filters(&filters)
                .build();
            let found = self.docker.list_containers(Some(options)).await?;
            ids.extend(found.into_iter().filter_map(|container| container.id));
        }
        Ok(ids)
    }
}

/// What is gone already is fine.
fn gone(result: Result<(), bollard::errors::Error>) -> Outcome<()> {
    match result {
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        })
        | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 2048));
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "app", program)?;
    archive.into_inner()
}
