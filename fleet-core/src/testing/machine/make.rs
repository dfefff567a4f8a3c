//! How containers, volumes and image tags come into being and go.

use std::collections::BTreeMap;

use super::super::workload::Files;
use super::{Ctr, CtrMount, Fact, Hand, Machine, Vol};
use crate::ids::{ContainerId, ImageId, VolumeName};
use crate::model::{FrozenSpec, MountKind, RestartPolicy, RunState, labels};
use crate::ports::{
    CandidateRequest, Created, EngineEventKind, GuardRequest, PortError, PortErrorKind,
    RestoreRequest, WritableLayer,
};

/// What a container is made from.
#[derive(Debug)]
pub(super) struct Draft {
    name: String,
    image_id: ImageId,
    image: String,
    labels: BTreeMap<String, String>,
    mounts: Vec<CtrMount>,
    networks: Vec<String>,
    host_ports: Vec<u16>,
    exposed_ports: Vec<u16>,
    stop_timeout_secs: Option<u32>,
    guard: bool,
    /// The engine fills empty volumes from the image.
    copy_up: bool,
}

impl Machine {
    /// The new container of an update. The adapter never lets the engine fill a volume that is there already.
    pub(in super::super) fn make_candidate(
        &mut self,
        request: &CandidateRequest,
    ) -> Result<Created, PortError> {
        let draft = Draft {
            name: request.name.clone(),
            image_id: request.image_id.clone(),
            image: request.image.clone(),
            ..Draft::again(&request.frozen, &request.update.to_string())
        };
        self.make(draft)
    }

    /// The old container again.
    pub(in super::super) fn make_again(
        &mut self,
        request: &RestoreRequest,
    ) -> Result<Created, PortError> {
        let draft = Draft {
            name: request.name.clone(),
            ..Draft::again(&request.frozen, &request.update.to_string())
        };
        self.make(draft)
    }

    /// The guard, running.
    pub(in super::super) fn make_guard(
        &mut self,
        request: &GuardRequest,
    ) -> Result<Created, PortError> {
        let (owner, id) = request.owner.label();
        let mounts = request.volumes.iter().map(|volume| CtrMount {
            volume: volume.clone(),
            target: format!("/volumes/{volume}"),
            writable: false,
            anonymous: false,
        });
        let draft = Draft {
            name: request.name.clone(),
            image_id: request.image_id.clone(),
            image: request.image_id.to_string(),
            labels: BTreeMap::from([
                (owner.to_owned(), id),
                (labels::KIND.to_owned(), "guard".to_owned()),
            ]),
            mounts: mounts.collect(),
            networks: request.networks.clone(),
            host_ports: Vec::new(),
            exposed_ports: Vec::new(),
            stop_timeout_secs: None,
            guard: true,
            copy_up: false,
        };
        let created = self.make(draft)?;
        self.start(&created.id)?;
        Ok(created)
    }

    /// Remembers that fleet made a container, if it did.
    pub(in super::super) fn made(
        &mut self,
        result: Result<Created, PortError>,
    ) -> Result<Created, PortError> {
        if let Ok(created) = &result
            && let Some(ctr) = self.ctr(&created.id)
        {
            let fact = Fact::Created {
                id: ctr.id.clone(),
                image: ctr.image_id.clone(),
                guard: ctr.guard,
            };
            self.fact(fact);
        }
        result
    }

    /// What an earlier call for the same update made and nobody has started: the call is taken up where it was cut.
    fn adopted(&self, draft: &Draft) -> Option<Created> {
        let update = draft.labels.get(labels::UPDATE)?;
        let found = self.containers.iter().find(|ctr| ctr.name == draft.name)?;
        let same = found.labels.get(labels::UPDATE) == Some(update)
            && found.image_id == draft.image_id
            && found.state == RunState::Created
            && !draft.guard;
        let known = |volume: &VolumeName| draft.mounts.iter().any(|m| &m.volume == volume);
        let mounted = found.mounts.iter().map(|mount| &mount.volume);
        same.then(|| Created {
            id: found.id.clone(),
            warnings: Vec::new(),
            new_volumes: mounted.filter(|name| !known(name)).cloned().collect(),
        })
    }

    fn make(&mut self, draft: Draft) -> Result<Created, PortError> {
        let refuse = |kind, text: String| Err(PortError::new("create the container", kind, text));
        if let Some(adopted) = self.adopted(&draft) {
            return Ok(adopted);
        }
        if self.name_taken(&draft.name) {
            let text = format!("the name {} is already in use", draft.name);
            return refuse(PortErrorKind::Conflict, text);
        }
        let Some(image) = self.images.get(&draft.image_id) else {
            let text = format!("no such image: {}", draft.image_id.short());
            return refuse(PortErrorKind::NotFound, text);
        };
        let declared = image.volumes.clone();
        let mut networks = Vec::new();
        for name in &draft.networks {
            match self.networks.get(name) {
                Some(id) => networks.push((name.clone(), *id)),
                None => {
                    return refuse(PortErrorKind::NotFound, format!("network {name} not found"));
                }
            }
        }
        let mut mounts = draft.mounts;
        let mut new_volumes = Vec::new();
        for mount in &mounts {
            // A named volume that is not there is made by the engine, empty.
            if !self.volumes.contains_key(&mount.volume) {
                self.add_volume(mount.volume.clone(), Files::new());
                new_volumes.push(mount.volume.clone());
            }
        }
        if !draft.guard {
            for (target, content) in declared {
                let mounted = mounts.iter().find(|mount| mount.target == target);
                match mounted {
                    Some(mount) => self.copy_up(&mount.volume.clone(), content, draft.copy_up),
                    None => {
                        let volume = self.anonymous_volume(content);
                        new_volumes.push(volume.clone());
                        mounts.push(CtrMount {
                            volume,
                            target,
                            writable: true,
                            anonymous: true,
                        });
                    }
                }
            }
        }
        let serial = self.serial();
        let id = ContainerId::new(Self::hex64(u64::from(serial))).expect("64 digits are an id");
        self.containers.push(Ctr {
            id: id.clone(),
            serial,
            name: draft.name,
            image_id: draft.image_id,
            image: draft.image,
            labels: draft.labels,
            state: RunState::Created,
            exit_code: None,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            policy: RestartPolicy::No,
            stop_timeout_secs: draft.stop_timeout_secs,
            auto_remove: false,
            mounts,
            networks,
            exposed_ports: draft.exposed_ports,
            host_ports: draft.host_ports,
            layer: WritableLayer::default(),
            guard: draft.guard,
            stopped_by_hand: false,
            process: None,
            restart_at: None,
        });
        self.announce(self.containers.len() - 1, EngineEventKind::Create);
        Ok(Created {
            id,
            warnings: Vec::new(),
            new_volumes,
        })
    }

    pub(in super::super) fn add_volume(&mut self, name: VolumeName, files: Files) {
        let serial = self.serial();
        let volume = Vol {
            serial,
            by_fleet: self.hand == Hand::Fleet,
            files,
        };
        self.volumes.insert(name, volume);
    }

    pub(in super::super) fn anonymous_volume(&mut self, files: Files) -> VolumeName {
        let number = u64::from(self.serial()) << 32;
        let name = VolumeName::new(Self::hex64(number)).expect("64 digits are a volume name");
        self.add_volume(name.clone(), files);
        name
    }

    /// What the image has at a mount's place goes into the volume, if that is empty.
    fn copy_up(&mut self, volume: &VolumeName, content: Files, allowed: bool) {
        if let Some(volume) = self.volumes.get_mut(volume)
            && allowed
            && volume.files.is_empty()
        {
            volume.files = content;
        }
    }

    /// Makes and adds a container as a person does with `docker create`: copy-up included.
    pub(in super::super) fn make_by_hand(
        &mut self,
        frozen: &FrozenSpec,
    ) -> Result<Created, PortError> {
        let mut draft = Draft::again(frozen, "");
        draft.labels.remove(labels::UPDATE);
        draft.copy_up = true;
        self.make(draft)
    }
}

impl Draft {
    /// The same container again.
    fn again(frozen: &FrozenSpec, update: &str) -> Self {
        let was = &frozen.container;
        let mut with_update = was.labels.clone();
        with_update.insert(labels::UPDATE.to_owned(), update.to_owned());
        let mounts = was.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Volume { name, .. } => Some(CtrMount {
                volume: name.clone(),
                target: mount.target.clone(),
                writable: mount.writable,
                anonymous: name.as_str().len() == 64,
            }),
            _ => None,
        });
        let host_ports = frozen.engine["host_ports"].as_array().map(|ports| {
            let ports = ports.iter().filter_map(serde_json::Value::as_u64);
            ports.filter_map(|port| u16::try_from(port).ok()).collect()
        });
        Self {
            name: was.name.clone(),
            image_id: was.image_id.clone(),
            image: was.image.clone(),
            labels: with_update,
            mounts: mounts.collect(),
            networks: was.networks.iter().map(|n| n.network.clone()).collect(),
            host_ports: host_ports.unwrap_or_default(),
            exposed_ports: was.exposed_ports.clone(),
            stop_timeout_secs: was.stop_timeout_secs,
            guard: false,
            copy_up: false,
        }
    }
}
