//! What tests put on a [`FakeHost`], with boring defaults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::engine::linux_amd64;
use super::host::FakeHost;
use super::machine::{Ctr, CtrMount, Img, Machine, Offer};
use super::workload::{Files, Workload};
use crate::ids::{ContainerId, ImageId, VolumeName};
use crate::image::{Digest, ImageRef};
use crate::model::{Container, Release, RestartPolicy, RunState};
use crate::ports::WritableLayer;

/// An image `repository:tag` whose program is healthy.
#[must_use]
pub fn image(reference: &str) -> ImageBuilder {
    let tag = reference.rsplit(':').next().unwrap_or("latest");
    ImageBuilder {
        reference: reference.to_owned(),
        image: Img {
            platform: linux_amd64(),
            labels: BTreeMap::new(),
            workload: Workload::healthy(tag),
            volumes: BTreeMap::new(),
            files: Files::new(),
            repo_digests: BTreeSet::new(),
        },
    }
}

/// A running container of this name: image `app:1`, volume `<name>-data` on `/data`, network `bridge`, restart policy
/// `always`, label `fleet.enable=true`.
#[must_use]
pub fn instance(name: &str) -> InstanceBuilder {
    InstanceBuilder {
        name: name.to_owned(),
        image: "app:1".to_owned(),
        labels: BTreeMap::from([("fleet.enable".to_owned(), "true".to_owned())]),
        volumes: vec![(format!("{name}-data"), "/data".to_owned())],
        networks: vec!["bridge".to_owned()],
        host_ports: Vec::new(),
        policy: RestartPolicy::Always,
        running: true,
        auto_remove: false,
        layer: WritableLayer::default(),
        stop_timeout_secs: None,
    }
}

/// An image to be published or loaded.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    reference: String,
    image: Img,
}

impl ImageBuilder {
    /// What its program does.
    #[must_use]
    pub fn runs(mut self, workload: Workload) -> Self {
        self.image.workload = workload;
        self
    }

    /// It declares a `VOLUME` and has these files there.
    #[must_use]
    pub fn volume(mut self, path: &str, files: Files) -> Self {
        self.image.volumes.insert(path.to_owned(), files);
        self
    }

    /// It has a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: &[u8]) -> Self {
        self.image.files.insert(path.to_owned(), content.to_vec());
        self
    }

    /// It has a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.image.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// It is for another architecture.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.image.platform.architecture);
        self
    }

    /// Digest and id follow from reference and version.
    fn digest(&self) -> Digest {
        let about = format!("{} {:?}", self.reference, self.image.workload);
        Digest::of(about.as_bytes())
    }

    /// The id that goes with its digest.
    fn id(digest: &Digest) -> ImageId {
        let id = Digest::of(digest.as_str().as_bytes());
        ImageId::new(id.as_str()).expect("a digest is an image id")
    }
}

/// A container to be run.
#[derive(Debug, Clone)]
pub struct InstanceBuilder {
    name: String,
    image: String,
    labels: BTreeMap<String, String>,
    volumes: Vec<(String, String)>,
    networks: Vec<String>,
    host_ports: Vec<u16>,
    policy: RestartPolicy,
    running: bool,
    auto_remove: bool,
    layer: WritableLayer,
    stop_timeout_secs: Option<u32>,
}

impl InstanceBuilder {
    /// From another image; the host must have it under this tag.
    #[must_use]
    pub fn image(mut self, reference: &str) -> Self {
        reference.clone_into(&mut self.image);
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With one more volume.
    #[must_use]
    pub fn volume(mut self, name: &str, path: &str) -> Self {
        self.volumes.push((name.to_owned(), path.to_owned()));
        self
    }

    /// Without any named volume.
    #[must_use]
    pub fn without_volumes(mut self) -> Self {
        self.volumes.clear();
        self
    }

    /// On one more network, made if it is not there.
    #[must_use]
    pub fn network(mut self, name: &str) -> Self {
        self.networks.push(name.to_owned());
        self
    }

    /// With a published port of the host.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.host_ports.push(port);
        self
    }

    /// With another restart policy.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Ran once, now stopped.
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.running = false;
        self
    }

    /// With `--rm`.
    #[must_use]
    pub fn auto_remove(mut self) -> Self {
        self.auto_remove = true;
        self
    }

    /// With data in the writable layer.
    #[must_use]
    pub fn writable_layer(mut self, path: &str) -> Self {
        self.layer.data.push(path.to_owned());
        self
    }

    /// With the content of an inline config or secret, which compose put into it.
    #[must_use]
    pub fn inline_file(mut self, path: &str) -> Self {
        self.layer.inline.push(path.to_owned());
        self
    }

    /// With a grace of its own.
    #[must_use]
    pub fn stop_timeout(mut self, secs: u32) -> Self {
        self.stop_timeout_secs = Some(secs);
        self
    }
}

/// A reference that is read once for each thread: a simulation makes the same few images over and over.
fn parsed(reference: &str) -> ImageRef {
    thread_local! {
        static PARSED: RefCell<BTreeMap<String, ImageRef>> = const { RefCell::new(BTreeMap::new()) };
    }
    PARSED.with_borrow_mut(|parsed| match parsed.get(reference) {
        Some(known) => known.clone(),
        None => {
            let fresh: ImageRef = reference.parse().expect("a reference");
            parsed.insert(reference.to_owned(), fresh.clone());
            fresh
        }
    })
}

impl FakeHost {
    /// Puts an image into the registry, under its tag and its digest. The tag moves if it was taken.
    pub fn publish(&self, image: ImageBuilder) -> Release {
        let reference = parsed(&image.reference);
        let digest = image.digest();
        let id = ImageBuilder::id(&digest);
        let release = Release {
            image: reference.pinned(digest.clone()),
            platform_digest: digest,
            config_digest: id.as_str().parse().ok(),
            local: None,
            pushed_at: None,
            size_bytes: 10 << 20,
            annotations: image.image.labels.clone(),
        };
        let by_digest = release.image.by_digest();
        let mut machine = self.machine();
        machine
            .offered_tags
            .insert(image.reference.clone(), by_digest.clone());
        let offer = Offer {
            release: release.clone(),
            id,
            image: image.image,
        };
        machine.offers.insert(by_digest, offer);
        release
    }

    /// Publishes an image and puts it into the engine as well, under its tag, as `docker pull` does.
    pub fn load(&self, image: ImageBuilder) -> Release {
        let tag = image.reference.clone();
        let mut stored = image.image.clone();
        let release = self.publish(image);
        let id = ImageBuilder::id(&release.image.digest);
        stored.repo_digests.insert(release.image.by_digest());
        let mut machine = self.machine();
        machine.images.insert(id.clone(), stored);
        machine.tags.insert(tag, id);
        release
    }

    /// Runs a container as a person does with `docker run`.
    ///
    /// # Panics
    /// The engine does not have the image under that tag, or the name is taken.
    pub fn run(&self, instance: InstanceBuilder) -> ContainerId {
        let mut machine = self.settled();
        let id = machine.place(instance.clone());
        machine.start(&id).expect("a new container starts");
        drop(machine);
        if !instance.running {
            let due = self.settled().stop(&id, None).expect("it is there");
            let due = due.unwrap_or_default();
            let clock = self.clock();
            let now = crate::ports::Clock::monotonic(&clock);
            clock.advance(due.saturating_sub(now));
            drop(self.settled());
        }
        drop(self.take_facts());
        id
    }

    /// Containers as they are now, without a call through a port.
    #[must_use]
    pub fn containers(&self) -> Vec<Container> {
        let machine = self.settled();
        let views = machine.containers.iter().map(|ctr| machine.view(ctr));
        views.collect()
    }

    /// The container of this name as it is now.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<Container> {
        let mut all = self.containers().into_iter();
        all.find(|container| container.name == name)
    }

    /// The content of a volume, none if there is no such one.
    #[must_use]
    pub fn files(&self, volume: &str) -> Option<Files> {
        let name = VolumeName::new(volume).ok()?;
        let machine = self.machine();
        machine
            .volumes
            .get(&name)
            .map(|volume| volume.files.clone())
    }

    /// Writes a file into a volume, behind everybody's back.
    ///
    /// # Panics
    /// There is no such volume.
    pub fn write_file(&self, volume: &str, path: &str, content: &[u8]) {
        let name = VolumeName::new(volume).expect("a volume name");
        let mut machine = self.machine();
        let volume = machine.volumes.get_mut(&name).expect("the volume is there");
        volume.files.insert(path.to_owned(), content.to_vec());
    }

    /// Names of all volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeName> {
        self.machine().volumes.keys().cloned().collect()
    }

    /// Local tags and where they point.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, ImageId> {
        self.machine().tags.clone()
    }

    /// The engine keeps containers alive over its own restarts.
    pub fn set_live_restore(&self, on: bool) {
        self.machine().live_restore = on;
    }

    /// Makes a network, with a new id if one of that name is gone.
    pub fn make_network(&self, name: &str) {
        let mut machine = self.machine();
        let id = u64::from(machine.serial());
        machine.networks.entry(name.to_owned()).or_insert(id);
    }

    /// So many rows were acknowledged by workloads of containers in all, and are never to be lost.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.machine().acks.len()
    }

    /// The program of this container's image behaves so from now on: something that it needs went away.
    pub fn changes(&self, name: &str, workload: Workload) {
        let mut machine = self.machine();
        let image = machine.containers.iter().find(|ctr| ctr.name == name);
        let image = image.map(|ctr| ctr.image_id.clone());
        if let Some(image) = image.and_then(|image| machine.images.get_mut(&image)) {
            image.workload = workload;
        }
    }

    /// Lets time pass, with everything that is due in it.
    pub fn pass(&self, time: Duration) {
        self.clock().advance(time);
        drop(self.settled());
    }
}

impl Machine {
    fn place(&mut self, wanted: InstanceBuilder) -> ContainerId {
        let image_id = self.tags.get(&wanted.image).expect("the image is loaded");
        let image_id = image_id.clone();
        let image = self.images.get(&image_id).expect("a tag has its image");
        let mut labels = image.labels.clone();
        labels.extend(wanted.labels);
        let declared = image.volumes.clone();
        assert!(!self.name_taken(&wanted.name), "the name is taken");
        let mut mounts = Vec::new();
        for (name, target) in wanted.volumes {
            let volume = VolumeName::new(name).expect("a volume name");
            if !self.volumes.contains_key(&volume) {
                let files = declared.get(&target).cloned().unwrap_or_default();
                self.add_volume(volume.clone(), files);
            }
            mounts.push(CtrMount {
                volume,
                target,
                writable: true,
                anonymous: false,
            });
        }
        for (target, files) in declared {
            if mounts.iter().all(|mount| mount.target != target) {
                let volume = self.anonymous_volume(files);
                mounts.push(CtrMount {
                    volume,
                    target,
                    writable: true,
                    anonymous: true,
                });
            }
        }
        let mut networks = Vec::new();
        for name in wanted.networks {
            let fresh = u64::from(self.serial());
            let id = *self.networks.entry(name.clone()).or_insert(fresh);
            networks.push((name, id));
        }
        let serial = self.serial();
        let id = ContainerId::new(Self::hex64(u64::from(serial))).expect("64 digits are an id");
        self.containers.push(Ctr {
            id: id.clone(),
            serial,
            name: wanted.name,
            image_id,
            image: wanted.image,
            labels,
            state: RunState::Created,
            exit_code: None,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            policy: wanted.policy,
            stop_timeout_secs: wanted.stop_timeout_secs,
            auto_remove: wanted.auto_remove,
            mounts,
            networks,
            exposed_ports: vec![8080],
            host_ports: wanted.host_ports,
            layer: wanted.layer,
            guard: false,
            stopped_by_hand: false,
            process: None,
            restart_at: None,
        });
        id
    }
}
