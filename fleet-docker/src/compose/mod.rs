//! Keeping compose calm: after an update the next `up` shall find nothing to do.
//!
//! Version 2 compares the label `com.docker.compose.image` with the image of the tag; fleet sets it. Version 1 keeps a
//! hash of the service's settings **and of the id of the image that the tag points to**, so the hash has to be made
//! anew, by compose itself, while the tag points to the new image. That is only right where the project's files still
//! say what they said when the container was made: so the old hash is made again first, and has to come out the same.
//! Where it cannot be had, people are told that the next `up` recreates the container once.

mod inline;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Longest wait for compose: it loads an interpreter and asks the engine a few things.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest part of compose's own words that is repeated.
const WORDS_MAX: usize = 300;

/// The compose service that a container belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeService {
    project: String,
    service: String,
    version: String,
    hash: String,
    working_dir: PathBuf,
    config_files: Vec<PathBuf>,
}

/// What the next `up` will do with a container that was updated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextUp {
    /// Nothing, as far as can be seen beforehand.
    Nothing,
    /// It recreates the container once, for the reason given.
    RecreatesOnce(String),
}

impl ComposeService {
    /// The service by a container's labels, those of its image left out; none if compose did not make it.
    #[must_use]
    pub fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        let label = |name: &str| labels.get(&format!("com.docker.compose.{name}")).cloned();
        let files = label("project.config_files").unwrap_or_default();
        let working_dir = PathBuf::from(label("project.working_dir").unwrap_or_default());
        Some(Self {
            project: label("project")?,
            service: label("service")?,
            version: label("version").unwrap_or_default(),
            hash: label("config-hash").unwrap_or_default(),
            config_files: files
                .split(',')
                .filter(|file| !file.is_empty())
                .map(|file| working_dir.join(file))
                .collect(),
            working_dir,
        })
    }

    /// Whether compose of version 1 made it, whose hash contains the image's id.
    #[must_use]
    pub fn hash_contains_image(&self) -> bool {
        self.version.starts_with("1.")
    }

    /// What the next `up` will do after an update; looks at files, runs nothing.
    ///
    /// `same_reference` says whether the container keeps the image reference that the project's file names.
    #[must_use]
    pub fn next_up(&self, same_reference: bool) -> NextUp {
        if !same_reference {
            return self.recreates("the project's file names another tag; change it there as well");
        }
        if !self.hash_contains_image() {
            return NextUp::Nothing;
        }
        if self.config_files.is_empty() || !self.working_dir.is_absolute() {
            return self.recreates("its labels do not say where the project's files are");
        }
        match self
            .config_files
            .iter()
            .find(|file| std::fs::File::open(file).is_err())
        {
            Some(file) => self.recreates(&format!("{} cannot be read", file.display())),
            None => NextUp::Nothing,
        }
    }

    /// Paths in the container at which compose put content of inline configs and secrets, as far as the project's files
    /// can be read and say so.
    pub(crate) fn inline_paths(&self) -> BTreeSet<String> {
        let files = self.config_files.iter().map(PathBuf::as_path);
        inline::paths(files, &self.service)
    }

    pub(crate) fn recreates(&self, reason: &str) -> NextUp {
        NextUp::RecreatesOnce(format!(
            "the next `up` of the compose project {} recreates {} once: {reason}",
            self.project, self.service
        ))
    }

    /// The hash in the container's label.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The hash that compose makes of the service now. The error is a sentence for people.
    pub(crate) async fn hash_now(&self, docker_host: &str) -> Result<String, String> {
        self.hash_by(Path::new("docker-compose"), docker_host).await
    }

    async fn hash_by(&self, program: &Path, docker_host: &str) -> Result<String, String> {
        let mut command = tokio::process::Command::new(program);
        command.arg("--project-name").arg(&self.project);
        command.arg("--project-directory").arg(&self.working_dir);
        for file in &self.config_files {
            command.arg("--file").arg(file);
        }
        command.args(["config", "--hash", &self.service]);
        for name in [
            "COMPOSE_FILE",
            "COMPOSE_PROJECT_NAME",
            "COMPOSE_PROFILES",
            "DOCKER_CONTEXT",
        ] {
            command.env_remove(name);
        }
        command
            .env("DOCKER_HOST", docker_host)
            .current_dir(&self.working_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output())
            .await
            .map_err(|_| format!("docker-compose did not answer within {LIMIT:?}"))?
            .map_err(|error| format!("docker-compose cannot be run ({error})"))?;
        if !output.status.success() {
            let words: String = String::from_utf8_lossy(&output.stderr)
                .trim()
                .chars()
                .take(WORDS_MAX)
                .collect();
            return Err(format!("docker-compose failed: {words}"));
        }
        read_hash(&String::from_utf8_lossy(&output.stdout), &self.service)
            .ok_or_else(|| format!("docker-compose gave no hash for {}", self.service))
    }
}

/// The hash in lines of `service hash`.
fn read_hash(output: &str, service: &str) -> Option<String> {
    output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == service)
        .map(|(_, hash)| hash.trim().to_owned())
        .filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(labels: &[(&str, &str)]) -> Option<ComposeService> {
        let labels = labels
            .iter()
            .map(|(name, value)| (format!("com.docker.compose.{name}"), (*value).to_owned()))
            .collect();
        ComposeService::of(&labels)
    }

    #[test]
    fn files_are_taken_relative_to_the_project() {
        let found = service(&[
            ("project", "shop"),
            ("service", "web"),
            ("version", "1.29.2"),
            ("project.working_dir", "/srv/shop"),
            (
                "project.config_files",
                "docker-compose.yml,/etc/override.yml",
            ),
        ])
        .expect("a service");
        let files = [
            PathBuf::from("/srv/shop/docker-compose.yml"),
            PathBuf::from("/etc/override.yml"),
        ];
        assert_eq!(found.config_files, files);
        assert!(found.hash_contains_image());
        assert_eq!(service(&[("project", "shop")]), None);
    }

    #[test]
    fn people_are_told_when_the_next_up_recreates() {
        let v2 = service(&[
            ("project", "shop"),
            ("service", "web"),
            ("version", "2.20.0"),
        ])
        .expect("a service");
        assert_eq!(v2.next_up(true), NextUp::Nothing);
        assert!(
            matches!(v2.next_up(false), NextUp::RecreatesOnce(reason) if reason.contains("another tag"))
        );
        let v1 = |files: &str| {
            let found = service(&[
                ("project", "shop"),
                ("service", "web"),
                ("version", "1.29.2"),
                ("project.working_dir", "/"),
                ("project.config_files", files),
            ]);
            found.expect("a service").next_up(true)
        };
        assert!(matches!(v1(""), NextUp::RecreatesOnce(_)));
        assert!(
            matches!(v1("/no/such/file"), NextUp::RecreatesOnce(reason) if reason.contains("/no/such/file"))
        );
        assert_eq!(v1("/proc/self/status"), NextUp::Nothing);
    }

    #[test]
    fn only_a_hash_of_this_service_is_taken() {
        let hash = "ab".repeat(32);
        let output = format!("db {}\nweb {hash}\n", "cd".repeat(32));
        assert_eq!(read_hash(&output, "web"), Some(hash));
        assert_eq!(read_hash(&output, "we"), None);
        assert_eq!(read_hash("web not-a-hash", "web"), None);
    }

    #[tokio::test]
    async fn a_compose_that_cannot_be_run_is_a_reason_and_no_failure() {
        let found = service(&[
            ("project", "p"),
            ("service", "s"),
            ("project.working_dir", "/"),
        ])
        .expect("a service");
        let reason = found
            .hash_by(Path::new("/no/such/program"), "unix:///x")
            .await
            .expect_err("no program");
        assert!(reason.contains("cannot be run"), "{reason}");
        let reason = found
            .hash_by(Path::new("/bin/false"), "unix:///x")
            .await
            .expect_err("it fails");
        assert!(reason.contains("failed"), "{reason}");
    }
}
