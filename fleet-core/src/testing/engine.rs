//! A Docker engine that is not there: [`ContainerRuntime`] and [`ImageStore`] over a [`FakeHost`].

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::stream::BoxStream;

use super::host::{FakeHost, Side};
use super::machine::{Fact, Machine};
use crate::ids::{ContainerId, ImageId, VolumeName};
use crate::image::PinnedImage;
use crate::model::{
    Container, FrozenSpec, ImageInfo, Inventory, Platform, RestartPolicy, RunState, VolumeSource,
};
use crate::ports::{
    Clock as _, ContainerRuntime, CreateRequest, Created, EngineEvent, EngineEventKind, EngineInfo,
    ExecOutcome, ImageStore, PortError, PortErrorKind, ProgressSink, StartOutcome, StopOutcome,
    WritableLayer,
};

/// What a stop waits for beyond its grace before it gives up.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The engine of a fake host.
#[derive(Debug, Clone)]
pub struct FakeEngine(FakeHost);

impl FakeEngine {
    pub(super) fn new(host: FakeHost) -> Self {
        Self(host)
    }

    async fn call<T: Send>(
        &self,
        op: &'static str,
        on: &str,
        effect: impl FnOnce(&mut Machine) -> Result<T, PortError> + Send,
    ) -> Result<T, PortError> {
        self.0.call(Side::Engine, op, on, effect).await
    }
}

#[async_trait]
impl ContainerRuntime for FakeEngine {
    async fn info(&self) -> Result<EngineInfo, PortError> {
        self.call("ask the engine what it is", "", |machine| {
            Ok(EngineInfo {
                engine_id: "FAKE".to_owned(),
                version: "20.10.24".to_owned(),
                api_version: "1.41".to_owned(),
                api_version_max: "1.41".to_owned(),
                platform: linux_amd64(),
                storage_driver: "fake".to_owned(),
                root_dir: "/var/lib/docker".to_owned(),
                live_restore: machine.live_restore,
                flavour: "docker".to_owned(),
            })
        })
        .await
    }

    async fn inventory(&self) -> Result<Inventory, PortError> {
        self.call("list the containers", "", |machine| {
            let views = machine.containers.iter().map(|ctr| machine.view(ctr));
            let mut containers: Vec<Container> = views.collect();
            containers.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(Inventory { containers })
        })
        .await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, PortError> {
        self.call("inspect the container", id.short(), |machine| {
            Ok(machine.ctr(id).map(|ctr| machine.view(ctr)))
        })
        .await
    }

    async fn find(&self, name: &str) -> Result<Option<Container>, PortError> {
        self.call("find the container", name, |machine| {
            let mut containers = machine.containers.iter();
            let found = containers.find(|ctr| ctr.name == name);
            Ok(found.map(|ctr| machine.view(ctr)))
        })
        .await
    }

    async fn freeze(&self, id: &ContainerId) -> Result<FrozenSpec, PortError> {
        let op = "freeze the container";
        self.call(op, id.short(), |machine| {
            let image = machine.ctr_mut(id)?.image_id.clone();
            if !machine.images.contains_key(&image) {
                let text = "the container's image is gone";
                return Err(PortError::new(op, PortErrorKind::NotFound, text));
            }
            Ok(machine.frozen(machine.index(id)))
        })
        .await
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, PortError> {
        self.call("read the writable layer", id.short(), |machine| {
            Ok(machine.ctr_mut(id)?.layer.clone())
        })
        .await
    }

    async fn volume(&self, name: &VolumeName) -> Result<Option<VolumeSource>, PortError> {
        self.call("inspect the volume", name.as_str(), |machine| {
            Ok(machine.volume_source(name))
        })
        .await
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), PortError> {
        let op = "remove the volume";
        self.call(op, name.as_str(), |machine| {
            // The adapter leaves alone what does not carry fleet's label.
            if machine.volumes.get(name).is_some_and(|it| !it.by_fleet) {
                let text = format!("fleet did not make volume {name}");
                return Err(PortError::new(op, PortErrorKind::Invalid, text));
            }
            let mut mounts = machine.containers.iter().flat_map(|ctr| &ctr.mounts);
            if mounts.any(|mount| &mount.volume == name) {
                let text = format!("volume {name} is in use");
                return Err(PortError::new(op, PortErrorKind::Conflict, text));
            }
            if machine.volumes.remove(name).is_some() {
                machine.fact(Fact::VolumeRemoved(name.clone()));
            }
            Ok(())
        })
        .await
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created, PortError> {
        let op = "create the container";
        match request {
            CreateRequest::Restore(restore) => {
                self.call(op, &restore.name, |machine| {
                    let result = machine.make_again(restore);
                    machine.made(result)
                })
                .await
            }
            CreateRequest::Guard(guard) => {
                self.call(op, &guard.name, |machine| {
                    let result = machine.make_guard(guard);
                    machine.made(result)
                })
                .await
            }
            CreateRequest::Candidate(candidate) => {
                // The adapter moves the local tag, creates, and moves it back: three calls, a death between any two.
                let was = self
                    .call("move the tag", &candidate.image, |machine| {
                        Ok(machine.retag(&candidate.image, Some(&candidate.image_id)))
                    })
                    .await?;
                let result = self
                    .call(op, &candidate.name, |machine| {
                        let result = machine.make_candidate(candidate);
                        machine.made(result)
                    })
                    .await;
                self.call("put the tag back", &candidate.image, |machine| {
                    machine.retag(&candidate.image, was.as_ref());
                    Ok(())
                })
                .await?;
                result
            }
        }
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), PortError> {
        let op = "rename the container";
        self.call(op, name, |machine| {
            if machine.ctr_mut(id)?.name == name {
                return Ok(());
            }
            if machine.name_taken(name) {
                let text = format!("the name {name} is already in use");
                return Err(PortError::new(op, PortErrorKind::Conflict, text));
            }
            name.clone_into(&mut machine.ctr_mut(id)?.name);
            machine.fact(Fact::Renamed(id.clone()));
            machine.announce(machine.index(id), EngineEventKind::Rename);
            Ok(())
        })
        .await
    }

    async fn set_restart_policy(
        &self,
        id: &ContainerId,
        policy: RestartPolicy,
    ) -> Result<(), PortError> {
        let op = "set the restart policy";
        self.call(op, id.short(), |machine| {
            let ctr = machine.ctr_mut(id)?;
            if ctr.auto_remove {
                let text = "restart policy cannot be updated: AutoRemove is set";
                return Err(PortError::new(op, PortErrorKind::Conflict, text));
            }
            ctr.policy = policy;
            Ok(())
        })
        .await
    }

    async fn start(&self, id: &ContainerId) -> Result<StartOutcome, PortError> {
        self.call("start the container", id.short(), |machine| {
            machine.start(id)
        })
        .await?;
        self.call("look at the started container", id.short(), |machine| {
            let ctr = machine.ctr_mut(id)?;
            Ok(StartOutcome {
                started_at: ctr.started_at,
                running: ctr.is_running(),
            })
        })
        .await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Option<Duration>,
    ) -> Result<StopOutcome, PortError> {
        let op = "stop the container";
        let due = self
            .call(op, id.short(), |machine| {
                machine.fact(Fact::StopAsked(id.clone()));
                machine.stop(id, grace)
            })
            .await?;
        let clock = self.0.clock();
        let Some(due) = due else {
            clock.sleep(grace.unwrap_or_default() + STOP_MARGIN).await;
            let text = "the process is still there";
            return Err(PortError::new(op, PortErrorKind::Timeout, text));
        };
        clock.sleep(due.saturating_sub(clock.monotonic())).await;
        self.call("look at the stopped container", id.short(), |machine| {
            let ran = machine.ctr_mut(id)?;
            if ran.is_running() {
                let text = "the process is still there";
                return Err(PortError::new(op, PortErrorKind::Timeout, text));
            }
            Ok(StopOutcome {
                exit_code: ran.exit_code,
            })
        })
        .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), PortError> {
        let op = "remove the container";
        self.call(op, id.short(), |machine| {
            let Some(ctr) = machine.ctr(id) else {
                return Ok(());
            };
            let up = ctr.is_running() || ctr.state == RunState::Restarting;
            // A guard holds nothing: removing it kills it.
            if up && !ctr.guard {
                let text = "the container is running";
                return Err(PortError::new(op, PortErrorKind::Conflict, text));
            }
            machine.announce(machine.index(id), EngineEventKind::Destroy);
            machine.drop_container(id);
            machine.fact(Fact::Removed(id.clone()));
            Ok(())
        })
        .await
    }

    async fn reattach(&self, id: &ContainerId, frozen: &FrozenSpec) -> Result<(), PortError> {
        let op = "put the container back on its networks";
        self.call(op, id.short(), |machine| {
            let mut networks = Vec::new();
            for attachment in &frozen.container.networks {
                let name = &attachment.network;
                let Some(net) = machine.networks.get(name) else {
                    let text = format!("network {name} not found");
                    return Err(PortError::new(op, PortErrorKind::NotFound, text));
                };
                networks.push((name.clone(), *net));
            }
            machine.ctr_mut(id)?.networks = networks;
            Ok(())
        })
        .await
    }

    async fn logs_tail(&self, id: &ContainerId, lines: u32) -> Result<String, PortError> {
        self.call("read the log", id.short(), |machine| {
            let ctr = machine.ctr_mut(id)?;
            let text = format!("last {lines} lines of {}", ctr.name);
            Ok(text)
        })
        .await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        argv: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutcome, PortError> {
        let op = "run a command in the container";
        self.call(op, argv.first().map_or("", String::as_str), |machine| {
            let ctr = machine.ctr_mut(id)?;
            if !ctr.is_running() {
                let text = "the container is not running";
                return Err(PortError::new(op, PortErrorKind::Conflict, text));
            }
            let image = ctr.image_id.clone();
            let exit = machine
                .images
                .get(&image)
                .map_or(0, |image| image.workload.exec_exit);
            Ok(ExecOutcome {
                exit_code: exit,
                output: String::new(),
            })
        })
        .await
    }

    async fn orphan(&self, id: &ContainerId) -> Result<Option<String>, PortError> {
        // Asks the host, not the engine.
        let op = "look for an orphan";
        self.0
            .call(Side::Elsewhere, op, id.short(), |machine| {
                let alive = machine.orphans().any(|orphan| &orphan.id == id);
                Ok(alive.then(|| format!("process 4711 of container {}", id.short())))
            })
            .await
    }

    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, PortError>>, PortError> {
        self.call("watch the engine's events", "", |machine| {
            let (sender, receiver) = mpsc::unbounded();
            machine.watchers.push(sender);
            Ok(receiver.boxed())
        })
        .await
    }
}

#[async_trait]
impl ImageStore for FakeEngine {
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        self.call("inspect the image", reference, |machine| {
            let id = machine.resolve(reference);
            Ok(id.and_then(|id| machine.image_info(&id)))
        })
        .await
    }

    async fn pull(
        &self,
        image: &PinnedImage,
        platform: &Platform,
        _progress: &dyn ProgressSink,
    ) -> Result<ImageInfo, PortError> {
        let reference = image.by_digest();
        self.call("pull the image", &reference, |machine| {
            machine.pull(&reference, platform)
        })
        .await
    }

    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), PortError> {
        let op = "tag the image";
        self.call(op, reference, |machine| {
            if !machine.images.contains_key(image) {
                let text = format!("no such image: {}", image.short());
                return Err(PortError::new(op, PortErrorKind::NotFound, text));
            }
            machine.retag(reference, Some(image));
            Ok(())
        })
        .await
    }

    async fn untag(&self, reference: &str) -> Result<(), PortError> {
        self.call("untag the image", reference, |machine| {
            machine.untag(reference);
            Ok(())
        })
        .await
    }

    async fn file(
        &self,
        image: &ImageId,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PortError> {
        let op = "read a file of the image";
        self.call(op, path, |machine| {
            let Some(found) = machine.images.get(image) else {
                let text = format!("no such image: {}", image.short());
                return Err(PortError::new(op, PortErrorKind::NotFound, text));
            };
            match found.files.get(path) {
                Some(content) if content.len() > bytes_max => {
                    let text = format!("expected at most {bytes_max} bytes, found more");
                    Err(PortError::new(op, PortErrorKind::Invalid, text))
                }
                content => Ok(content.cloned()),
            }
        })
        .await
    }
}

pub(super) fn linux_amd64() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: String::new(),
    }
}
