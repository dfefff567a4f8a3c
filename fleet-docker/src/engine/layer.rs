//! What a container's writable layer holds, which a new container would not have.
//!
//! `docker diff` lists every changed path. Not data: what lies on or above a mount, folders (a changed folder is one in
//! which something changed, an added empty one holds nothing), and places that are scratch by convention. Everything
//! else is, deletions included: the new container would have the file again.
//!
//! Secrets lie in a place that is scratch otherwise, and compose puts some of them, and some configs, into the layer
//! itself: those are no scratch wherever they are.

use std::collections::BTreeSet;

use fleet_core::ids::ContainerId;
use fleet_core::model::Container;
use fleet_core::ports::{PortError, WritableLayer};
use serde_json::Value;

use super::{CALL_LIMIT, DockerEngine, WORK_LIMIT, limited};
use crate::json::{integer, list, text};

/// Scratch by convention, or made by the engine.
const NOISE: &[&str] = &[
    "/tmp",
    "/run",
    "/var/run",
    "/var/tmp",
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/.dockerenv",
    // What `--init` is mounted on.
    "/sbin/docker-init",
];
/// Where secrets are put: never scratch. A secret that is a mount is not in the layer.
const SECRETS: &[&str] = &["/run/secrets", "/var/run/secrets"];
/// Most paths that are reported: enough to say no, and why.
const PATHS_MAX: usize = 100;
/// The bit of Go's file mode that marks a folder.
const GO_MODE_DIR: u64 = 1 << 31;

/// `Kind` of a change.
const DELETED: i64 = 2;

/// One path of `docker diff`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: String,
    deleted: bool,
}

/// What compose put into a container before its first start.
#[derive(Debug, Default)]
struct ByCompose {
    /// Whether compose made it.
    made: bool,
    /// Paths with inline content, by the project's files.
    declared: BTreeSet<String>,
}

impl ByCompose {
    /// Whether compose put this file there: its project's files say so, or nobody else puts files where secrets are.
    fn put(&self, path: &str) -> bool {
        self.declared.contains(path) || (self.made && is_secret(path))
    }
}

impl DockerEngine {
    pub(super) async fn layer_data(&self, id: &ContainerId) -> Result<WritableLayer, PortError> {
        let op = "look for data in the writable layer";
        let container = self.existing(op, id).await?;
        let answer = self
            .raw
            .get(op, &["containers", id.as_str(), "changes"], &[], WORK_LIMIT)
            .await?;
        let targets: Vec<&str> = container
            .mounts
            .iter()
            .map(|mount| mount.target.as_str())
            .collect();
        let by_compose = self.by_compose(&container).await?;
        let candidates = leaves(
            &changes(&answer.unwrap_or_default()),
            &targets,
            &by_compose.declared,
        );
        let mut layer = WritableLayer::default();
        for change in candidates {
            let paths = match by_compose.put(&change.path) && !change.deleted {
                true => &mut layer.inline,
                false => &mut layer.data,
            };
            if paths.len() < PATHS_MAX
                && (change.deleted || !self.is_folder(op, id, &change.path).await?)
            {
                paths.push(change.path);
            }
        }
        Ok(layer)
    }

    async fn by_compose(&self, container: &Container) -> Result<ByCompose, PortError> {
        let Some(service) = self.compose_service(container).await? else {
            return Ok(ByCompose::default());
        };
        // Files on a share that hangs must not hold up everything else.
        let declared = tokio::task::spawn_blocking(move || service.inline_paths()).await;
        Ok(ByCompose {
            made: true,
            declared: declared.unwrap_or_default(),
        })
    }

    async fn is_folder(
        &self,
        op: &'static str,
        id: &ContainerId,
        path: &str,
    ) -> Result<bool, PortError> {
        let options = bollard::query_parameters::ContainerArchiveInfoOptionsBuilder::new()
            .path(path)
            .build();
        let call = self
            .docker
            .get_container_archive_info(id.as_str(), Some(options));
        match limited(op, CALL_LIMIT, call).await {
            Ok(stat) => Ok(u64::from(stat.file_mode) & GO_MODE_DIR != 0),
            // It went away between the two looks; if it held data, so did the engine say a moment ago.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn changes(answer: &Value) -> Vec<Change> {
    list(answer)
        .iter()
        .map(|change| Change {
            path: text(&change["Path"]).to_owned(),
            deleted: integer(&change["Kind"]) == DELETED,
        })
        .collect()
}

fn below(path: &str, folder: &str) -> bool {
    path == folder
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| folder == "/" || rest.starts_with('/'))
}

fn is_secret(path: &str) -> bool {
    SECRETS.iter().any(|folder| below(path, folder))
}

fn is_noise(path: &str) -> bool {
    NOISE.iter().any(|noise| below(path, noise)) && !is_secret(path)
}

/// Changes that may be data: neither noise, unless it is declared, nor on or above a mount, nor a folder with changes
/// below it.
fn leaves(changes: &[Change], mount_targets: &[&str], declared: &BTreeSet<String>) -> Vec<Change> {
    let parents: BTreeSet<&str> = changes
        .iter()
        .filter_map(|change| change.path.rsplit_once('/'))
        .map(|(parent, _)| parent)
        .collect();
    changes
        .iter()
        .filter(|change| declared.contains(&change.path) || !is_noise(&change.path))
        .filter(|change| {
            !mount_targets
                .iter()
                .any(|target| below(&change.path, target) || below(target, &change.path))
        })
        .filter(|change| change.deleted || !parents.contains(change.path.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paths: &[&str], mounts: &[&str], expect: &[&str]) {
        check_declared(paths, mounts, &[], expect);
    }

    #[track_caller]
    fn check_declared(paths: &[&str], mounts: &[&str], declared: &[&str], expect: &[&str]) {
        let declared = declared.iter().map(|&path| path.to_owned()).collect();
        let changes: Vec<Change> = paths
            .iter()
            .map(|path| Change {
                path: path.trim_start_matches('-').to_owned(),
                deleted: path.starts_with('-'),
            })
            .collect();
        let found: Vec<String> = leaves(&changes, mounts, &declared)
            .into_iter()
            .map(|change| change.path)
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn mounts_their_ancestors_noise_and_folders_with_changes_are_not_data() {
        check(
            &[
                "/var",
                "/var/lib",
                "/var/lib/app",
                "/tmp",
                "/tmp/x",
                "/run/pid",
                "/tmpfile",
            ],
            &["/var/lib/app"],
            &["/tmpfile"],
        );
        check(
            &["/etc", "/etc/app.conf", "/etc/hosts"],
            &[],
            &["/etc/app.conf"],
        );
    }

    #[test]
    fn what_the_engine_mounts_its_init_on_is_not_data() {
        check(&["/sbin", "/sbin/docker-init"], &[], &[]);
        check(&["/sbin", "/sbin/other"], &[], &["/sbin/other"]);
    }

    #[test]
    fn a_secret_is_never_noise_unless_it_is_a_mount() {
        let paths = ["/run", "/run/pid", "/run/secrets", "/run/secrets/key"];
        check(&paths, &[], &["/run/secrets/key"]);
        check(&paths, &["/run/secrets/key"], &[]);
        check(&paths, &["/run"], &[]);
        check(
            &["/var/run/secrets/key", "/run/secretsx"],
            &[],
            &["/var/run/secrets/key"],
        );
    }

    #[test]
    fn what_the_projects_files_declare_is_found_among_noise() {
        let paths = ["/tmp", "/tmp/app.conf", "/tmp/other", "/dev/x"];
        check_declared(
            &paths,
            &[],
            &["/tmp/app.conf", "/never"],
            &["/tmp/app.conf"],
        );
        check_declared(&paths, &["/tmp"], &["/tmp/app.conf"], &[]);
    }

    #[test]
    fn compose_is_told_from_programs_by_its_files_and_by_the_place() {
        let by = |made, declared: &[&str]| ByCompose {
            made,
            declared: declared.iter().map(|&path| path.to_owned()).collect(),
        };
        assert!(by(true, &["/cfg"]).put("/cfg"));
        assert!(by(true, &[]).put("/run/secrets/key"));
        assert!(!by(true, &[]).put("/cfg"));
        assert!(!by(false, &[]).put("/run/secrets/key"));
    }

    #[test]
    fn a_deletion_is_data() {
        check(&["/etc", "-/etc/motd"], &[], &["/etc/motd"]);
    }
}
