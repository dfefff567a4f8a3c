//! A place of one's own on a shared engine.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::docker::{docker, docker_json, try_docker};
use crate::image::Image;
use crate::registry::forget_images;
use crate::run::Run;

/// A prefix for names, and the memory of what was made under it. Dropping it removes all of that.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    volumes: RefCell<Vec<String>>,
    networks: RefCell<Vec<String>>,
    images: RefCell<Vec<String>>,
}

impl Lab {
    /// A lab; `topic` is a short word for people who see its objects.
    ///
    /// # Panics
    /// When no engine answers.
    #[must_use]
    pub fn new(topic: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        docker(&["version", "--format", "{{.Server.Version}}"]);
        Self {
            prefix: format!("ft{}-{count}-{topic}", std::process::id()),
            volumes: RefCell::default(),
            networks: RefCell::default(),
            images: RefCell::default(),
        }
    }

    /// What every name of this lab begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name of this lab.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    /// Imports an image as `<prefix>-<name>` (which may carry a tag) and gives that reference.
    #[track_caller]
    pub fn import(&self, name: &str, image: &Image) -> String {
        let reference = self.name(name);
        let id = image.import(&reference);
        self.images.borrow_mut().push(id);
        reference
    }

    /// The id of an image.
    #[track_caller]
    #[must_use]
    pub fn image_id(&self, reference: &str) -> String {
        docker(&["image", "inspect", "--format", "{{.Id}}", reference])
    }

    /// Makes a volume and gives its name.
    #[track_caller]
    pub fn volume(&self, name: &str) -> String {
        self.volume_with(name, &[])
    }

    /// The same with options of `docker volume create`.
    #[track_caller]
    pub fn volume_with(&self, name: &str, options: &[&str]) -> String {
        let volume = self.name(name);
        let create = ["volume", "create"].into_iter();
        let args = create.chain(options.iter().copied());
        docker(&args.chain([volume.as_str()]).collect::<Vec<_>>());
        self.volumes.borrow_mut().push(volume.clone());
        volume
    }

    /// Where a volume lies on the host.
    #[track_caller]
    #[must_use]
    pub fn mountpoint(&self, volume: &str) -> String {
        docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume])
    }

    /// Makes a network (`args` as for `docker network create`) and gives its name.
    #[track_caller]
    pub fn network(&self, name: &str, args: &[&str]) -> String {
        let network = self.name(name);
        let mut command = vec!["network", "create"];
        command.extend(args);
        command.push(&network);
        docker(&command);
        self.networks.borrow_mut().push(network.clone());
        network
    }

    /// A container to be run as `<prefix>-<name>`.
    #[must_use]
    pub fn run(&self, name: &str) -> Run {
        Run::new(self.name(name))
    }

    /// Names of all containers on the engine that are this lab's: by name, or because they mount one of its volumes
    /// or were made from one of its images (guards and helpers carry names of fleet's own).
    #[must_use]
    pub fn containers(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .container_ids()
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        names.sort();
        names
    }

    /// References in the engine that point to images of this lab and are not the lab's own names: keep tags.
    #[must_use]
    pub fn foreign_tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        for id in self.images.borrow().iter() {
            let Ok(text) = try_docker(&["image", "inspect", "--format", "{{json .RepoTags}}", id])
            else {
                continue;
            };
            let found: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
            let ours =
                |tag: &String| tag.starts_with(&self.prefix) || tag.starts_with("127.0.0.1:");
            tags.extend(found.into_iter().filter(|tag| !ours(tag)));
        }
        tags
    }

    fn container_ids(&self) -> Vec<(String, String)> {
        let mut filters = vec![format!("name=^{}", self.prefix)];
        filters.extend(
            self.volumes
                .borrow()
                .iter()
                .map(|name| format!("volume={name}")),
        );
        filters.extend(
            self.images
                .borrow()
                .iter()
                .map(|id| format!("ancestor={id}")),
        );
        let mut found = Vec::new();
        for filter in filters {
            let args = [
                "ps",
                "--all",
                "--no-trunc",
                "--filter",
                &filter,
                "--format",
                "{{.ID}} {{.Names}}",
            ];
            let listed = try_docker(&args).unwrap_or_default();
            let lines = listed.lines().filter_map(|line| line.split_once(' '));
            found.extend(lines.map(|(id, name)| (id.to_owned(), name.to_owned())));
        }
        found.sort();
        found.dedup();
        found
    }

    /// `docker inspect` of an object of the engine.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, object: &str) -> serde_json::Value {
        docker_json(&["inspect", object])
    }
}

impl Drop for Lab {
    // What cannot be removed was removed by the test, or is reported by the engine to nobody: a drop cannot fail.
    fn drop(&mut self) {
        for (id, _) in self.container_ids() {
            let mounts = "{{range .Mounts}}{{println .Name}}{{end}}";
            let mounts = try_docker(&["inspect", "--format", mounts, &id]).unwrap_or_default();
            // An anonymous volume that an update bound by its name does not go with its container.
            let anonymous = mounts.lines().filter(|name| name.len() == 64);
            self.volumes
                .borrow_mut()
                .extend(anonymous.map(str::to_owned));
            let _ = try_docker(&["rm", "--force", "--volumes", &id]);
        }
        for volume in self.volumes.borrow().iter() {
            let _ = try_docker(&["volume", "rm", volume]);
        }
        for network in self.networks.borrow().iter() {
            let _ = try_docker(&["network", "rm", network]);
        }
        for image in self.images.borrow().iter() {
            let _ = try_docker(&["rmi", "--force", image]);
        }
        forget_images(&self.prefix);
    }
}
