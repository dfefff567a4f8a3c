//! docker-compose beside fleet: calm after an update, and never two versions when it meddles with one.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fleet_testkit::{Fleet, Image, Lab, docker, wait_for};
use serde_json::{Value, json};

/// A compose project of one service on this machine's engine.
struct Project {
    folder: tempfile::TempDir,
    name: String,
    image: String,
}

impl Project {
    fn new(lab: &Lab) -> Self {
        let image = lab.import("app:1", &Image::new("1", ""));
        let volume = lab.volume("data");
        let project = Self {
            folder: tempfile::tempdir().expect("a folder"),
            name: lab.name("shop"),
            image,
        };
        let text = format!(
            "version: '2.4'\nservices:\n  web:\n    image: {}\n    restart: always\n    volumes: ['data:/data']\n    labels:\n      \
             fleet.enable: 'true'\n      fleet.source: local\n      fleet.health.path: /health\n      \
             fleet.health.timeout: 30s\n      fleet.health.interval: 100ms\n      fleet.health.min_healthy: 0s\n\
             volumes:\n  data: {{external: true, name: {volume}}}\n",
            project.image
        );
        std::fs::write(project.folder.path().join("docker-compose.yml"), text).expect("written");
        project.compose(&["up", "--detach"]);
        project
    }

    fn try_compose(&self, args: &[&str]) -> Output {
        Command::new("docker-compose")
            .args(["--project-name", &self.name])
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("docker-compose runs; Debian's package has it")
    }

    #[track_caller]
    fn compose(&self, args: &[&str]) -> String {
        let output = self.try_compose(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    }

    /// Id, name and state of each container of the service.
    fn containers(&self) -> Vec<[String; 3]> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let format = "{{.ID}} {{.Names}} {{.State}}";
        let args = [
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            &filter,
            "--format",
            format,
        ];
        let row = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            [(); 3].map(|()| words.next().unwrap_or_default())
        };
        docker(&args).lines().map(row).collect()
    }

    fn running(&self) -> Vec<[String; 3]> {
        let mut found = self.containers();
        found.retain(|[_, _, state]| state == "running");
        found
    }

    /// The one container that there is.
    #[track_caller]
    fn only(&self) -> [String; 3] {
        let mut found = self.containers();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // The lab removes what is left, but not the project's network, which goes with its last container.
        for [id, ..] in self.containers() {
            drop(fleet_testkit::try_docker(&["rm", "--force", &id]));
        }
        drop(self.try_compose(&["down", "--timeout", "0"]));
    }
}

#[test]
fn up_finds_nothing_to_do_after_a_commit_and_after_a_rollback() {
    let lab = Lab::new("calm");
    let project = Project::new(&lab);
    let fleet = Fleet::new();
    let [_, name, _] = project.only();
    // As a registry or a build would bring it: another image under the tag that the file names.
    let release = |tag: &str, mode: &str| {
        let image = lab.import(&format!("release:{tag}"), &Image::new(tag, mode));
        lab.image_id(&image)
    };
    let good = release("2", "");
    let (code, report) = fleet.update(&name, &good, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let [committed, ..] = project.only();
    assert_eq!(lab.image_id(&project.image), good, "the tag moved for good");
    let said = project.compose(&["up", "--detach"]);
    assert_eq!(project.only()[0], committed, "{said}");

    let bad = release("3", "exit");
    let (code, report) = fleet.update(&name, &bad, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    assert_eq!(project.only()[0], committed);
    let said = project.compose(&["up", "--detach"]);
    assert_eq!(project.only()[0], committed, "{said}");
}

/// compose acts while the new version is being gated.
fn meddled(topic: &str, args: &[&str]) {
    let lab = Lab::new(topic);
    let project = Project::new(&lab);
    let [old, name, _] = project.only();
    let release = lab.import("release:2", &Image::new("2", "unhealthy"));
    let fleet = Fleet::new();
    let update = ["--output", "json", "update", &name, "--to", &release];
    let running = fleet
        .command(&update)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleet can be started");
    wait_for("the new one to run", Duration::from_secs(60), || {
        let found = project.running();
        let ready = found.len() == 1 && found[0][0] != old && found[0][1] == name;
        if ready {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    // It may find that a container went away under its hands, and fail; that is its own affair.
    let said = project.try_compose(args);
    let output = running.wait_with_output().expect("fleet ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let report = &document["updates"][0];
    let left = project.containers();
    let case = format!("{args:?}: {report}\nleft {left:?}\ncompose said {said:?}");
    assert_eq!(output.status.code(), Some(30), "{case}");
    assert_eq!(report["outcome"], "needs_operator", "{case}");
    let (_, shown) = fleet.json(&["ps"]);
    let shown = shown["instances"].as_array().expect("instances");
    let row = shown.iter().find(|row| row["name"] == name.as_str());
    assert!(
        row.is_some_and(|row| row["state"] == "diverged"),
        "{row:?}: {case}"
    );
    assert!(project.running().len() <= 1, "two versions run: {case}");
    // Recovery does not meddle either.
    let ran = fleet.run(&["recover"]);
    assert_eq!(ran.code, 30, "{ran:?}; {case}");
    assert_eq!(project.containers(), left, "{case}");
}

#[test]
fn up_in_the_middle_of_an_update_ends_as_diverged() {
    meddled("midup", &["up", "--detach", "--timeout", "2"]);
}

#[test]
fn start_in_the_middle_of_an_update_ends_as_diverged() {
    meddled("midstart", &["start"]);
}

#[test]
fn restart_in_the_middle_of_an_update_ends_as_diverged() {
    meddled("midrestart", &["restart", "--timeout", "2"]);
}
