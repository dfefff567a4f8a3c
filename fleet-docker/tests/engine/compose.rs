//! Compose of version 1, as Debian has it: after an update its `up` finds nothing to do.

use std::process::Command;

use fleet_core::ids::ContainerId;
use fleet_core::ports::{ContainerRuntime as _, ImageStore as _};
use fleet_testkit::{Image, Lab, docker};

use crate::kit::{candidate, engine, image_id};

/// A compose project of one service, in a folder of its own.
struct Project {
    folder: tempfile::TempDir,
    name: String,
}

impl Project {
    fn new(lab: &Lab, image: &str) -> Self {
        let project = Self {
            folder: tempfile::tempdir().expect("a folder"),
            name: lab.name("shop"),
        };
        project.write(image, "1");
        project
    }

    fn write(&self, image: &str, setting: &str) {
        let text = format!(
            "version: '2.4'\nservices:\n  web:\n    image: {image}\n    environment:\n      SETTING: '{setting}'\n"
        );
        std::fs::write(self.folder.path().join("docker-compose.yml"), text).expect("written");
    }

    fn compose(&self, args: &[&str]) -> String {
        let output = Command::new("docker-compose")
            .args(["--project-name", &self.name])
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .expect("docker-compose runs; Debian's package has it");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    }

    /// Full id of the service's container.
    fn container(&self) -> ContainerId {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let id = docker(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
        ContainerId::new(id).expect("one container")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let down = Command::new("docker-compose")
            .args(["--project-name", &self.name, "down", "--timeout", "0"])
            .current_dir(self.folder.path())
            .output();
        // The lab removes what is left.
        drop(down);
    }
}

#[tokio::test]
async fn up_after_an_update_recreates_nothing() {
    let lab = Lab::new("compose");
    let image = lab.import("app:1", &Image::new("1", ""));
    let old_id = image_id(&lab, &image);
    let project = Project::new(&lab, &image);
    project.compose(&["up", "--detach"]);
    let old = project.container();
    let engine = engine().await;
    let name = engine
        .inspect(&old)
        .await
        .expect("asked")
        .expect("there")
        .name;

    // A newer image under the same tag, as a registry or a local build would bring it.
    let newer = lab.import("newer", &Image::new("2", ""));
    let new_id = image_id(&lab, &newer);
    let frozen = engine.freeze(&old).await.expect("frozen");
    let created = candidate(
        &engine,
        &frozen,
        &new_id,
        &image,
        &lab.name("c"),
        Vec::new(),
    )
    .await
    .expect("created");
    assert_eq!(created.warnings, Vec::<String>::new());
    assert_eq!(image_id(&lab, &image), old_id, "the tag is back");

    engine.stop(&old, None).await.expect("stopped");
    engine.remove(&old).await.expect("removed");
    engine.rename(&created.id, &name).await.expect("renamed");
    engine.start(&created.id).await.expect("started");
    engine.tag(&new_id, &image).await.expect("moved for good");
    let said = project.compose(&["up", "--detach"]);
    assert_eq!(project.container(), created.id, "{said}");
    assert!(said.contains("up-to-date"), "{said}");
}

#[tokio::test]
async fn changed_project_file_is_left_to_the_next_up_and_people_are_told() {
    let lab = Lab::new("compose2");
    let image = lab.import("app:1", &Image::new("1", ""));
    let project = Project::new(&lab, &image);
    project.compose(&["up", "--no-start"]);
    project.write(&image, "2");
    let engine = engine().await;
    let frozen = engine.freeze(&project.container()).await.expect("frozen");
    let newer = lab.import("newer", &Image::new("2", ""));
    let new_id = image_id(&lab, &newer);
    let created = candidate(
        &engine,
        &frozen,
        &new_id,
        &image,
        &lab.name("c"),
        Vec::new(),
    )
    .await
    .expect("created");
    assert_eq!(created.warnings.len(), 1, "{:?}", created.warnings);
    assert!(
        created.warnings[0].contains("have changed"),
        "{:?}",
        created.warnings
    );
    let hash = |labels: &std::collections::BTreeMap<String, String>| {
        labels["com.docker.compose.config-hash"].clone()
    };
    let new = engine
        .inspect(&created.id)
        .await
        .expect("asked")
        .expect("there");
    assert_eq!(hash(&new.labels), hash(&frozen.container.labels));
    // The candidate carries the project's labels: remove it before the project looks for its container.
    engine.remove(&created.id).await.expect("removed");
}
