//! The machine's containers and images in the model's words.

use serde_json::json;

use super::{Ctr, Img, Machine};
use crate::ids::ImageId;
use crate::model::{
    Container, EngineHealth, FrozenSpec, ImageInfo, Mount, MountKind, NetworkAttachment, RunState,
    VolumeSource,
};
use crate::{ids::VolumeName, testing::workload::Wellness};

/// How long a HEALTHCHECK fails before the engine says so (three times five seconds).
const UNHEALTHY_AFTER: std::time::Duration = std::time::Duration::from_secs(15);

impl Machine {
    /// A container as `inspect` shows it.
    pub(in super::super) fn view(&self, ctr: &Ctr) -> Container {
        let mounts = ctr.mounts.iter().map(|mount| Mount {
            kind: MountKind::Volume {
                name: mount.volume.clone(),
                driver: "local".to_owned(),
                source: mountpoint(&mount.volume),
            },
            target: mount.target.clone(),
            writable: mount.writable,
        });
        let known = ctr.process.as_ref().is_some_and(|process| !process.orphan);
        Container {
            id: ctr.id.clone(),
            name: ctr.name.clone(),
            image_id: ctr.image_id.clone(),
            image: ctr.image.clone(),
            labels: ctr.labels.clone(),
            state: ctr.state,
            pid: if known { 1000 + ctr.serial } else { 0 },
            exit_code: ctr.exit_code,
            started_at: ctr.started_at,
            finished_at: ctr.finished_at,
            restart_count: ctr.restart_count,
            restart_policy: ctr.policy,
            health: self.health_of(ctr),
            stop_timeout_secs: ctr.stop_timeout_secs,
            auto_remove: ctr.auto_remove,
            mounts: mounts.collect(),
            network_mode: ctr
                .networks
                .first()
                .map_or("none", |(name, _)| name)
                .to_owned(),
            networks: ctr
                .networks
                .iter()
                .map(|(network, _)| NetworkAttachment {
                    network: network.clone(),
                    addresses: Vec::new(),
                })
                .collect(),
            exposed_ports: ctr.exposed_ports.clone(),
            parents: Vec::new(),
        }
    }

    fn health_of(&self, ctr: &Ctr) -> Option<EngineHealth> {
        let workload = &self.images.get(&ctr.image_id)?.workload;
        if !workload.healthcheck || ctr.guard {
            return None;
        }
        if ctr.state != RunState::Running {
            return Some(EngineHealth::Starting);
        }
        let up_for = ctr.up_for(self.now);
        Some(if workload.is_well(up_for) {
            EngineHealth::Healthy
        } else if up_for > UNHEALTHY_AFTER || matches!(workload.health, Wellness::Until(_)) {
            EngineHealth::Unhealthy
        } else {
            EngineHealth::Starting
        })
    }

    /// Everything needed to make a container again.
    pub(in super::super) fn frozen(&self, index: usize) -> FrozenSpec {
        let ctr = &self.containers[index];
        FrozenSpec {
            container: self.view(ctr),
            engine: json!({ "host_ports": ctr.host_ports, "env": ["TOKEN=hunter2"] }),
            tag_image: self.tags.get(&ctr.image).cloned(),
        }
    }

    /// An image as `image inspect` shows it.
    pub(in super::super) fn image_info(&self, id: &ImageId) -> Option<ImageInfo> {
        let image: &Img = self.images.get(id)?;
        let tags = self.tags.iter().filter(|(_, tagged)| *tagged == id);
        Some(ImageInfo {
            id: id.clone(),
            repo_digests: image.repo_digests.iter().cloned().collect(),
            repo_tags: tags.map(|(tag, _)| tag.clone()).collect(),
            platform: image.platform.clone(),
            size_bytes: 10 << 20,
            labels: image.labels.clone(),
        })
    }

    /// Where a volume lies.
    pub(in super::super) fn volume_source(&self, name: &VolumeName) -> Option<VolumeSource> {
        self.volumes.get(name).map(|_| VolumeSource {
            name: name.clone(),
            driver: "local".to_owned(),
            mountpoint: mountpoint(name),
            options: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
        })
    }
}

fn mountpoint(name: &VolumeName) -> String {
    format!("/var/lib/docker/volumes/{name}/_data")
}
