//! Data in a container's writable layer, which a new container would not have.
//!
//! `docker diff` lists every changed path. Not data: what lies on or above a mount, folders (a changed folder is one in
//! which something changed, an added empty one holds nothing), and places that are scratch by convention. Everything
//! else is, deletions included: the new container would have the file again.

use std::collections::BTreeSet;

use fleet_core::ids::ContainerId;
use fleet_core::ports::PortError;
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
];
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

impl DockerEngine {
    pub(super) async fn layer_data(&self, id: &ContainerId) -> Result<Vec<String>, PortError> {
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
        let candidates = leaves(&changes(&answer.unwrap_or_default()), &targets);
        let mut data = Vec::new();
        for change in candidates {
            if data.len() == PATHS_MAX {
                break;
            }
            if change.deleted || !self.is_folder(op, id, &change.path).await? {
                data.push(change.path);
            }
        }
        Ok(data)
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

/// Changes that may be data: neither noise, nor on or above a mount, nor a folder with changes below it.
fn leaves(changes: &[Change], mount_targets: &[&str]) -> Vec<Change> {
    let below = |path: &str, folder: &str| {
        path == folder
            || path
                .strip_prefix(folder)
                .is_some_and(|rest| folder == "/" || rest.starts_with('/'))
    };
    let parents: BTreeSet<&str> = changes
        .iter()
        .filter_map(|change| change.path.rsplit_once('/'))
        .map(|(parent, _)| parent)
        .collect();
    changes
        .iter()
        .filter(|change| !NOISE.iter().any(|noise| below(&change.path, noise)))
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
        let changes: Vec<Change> = paths
            .iter()
            .map(|path| Change {
                path: path.trim_start_matches('-').to_owned(),
                deleted: path.starts_with('-'),
            })
            .collect();
        let found: Vec<String> = leaves(&changes, mounts)
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
    fn a_deletion_is_data() {
        check(&["/etc", "-/etc/motd"], &[], &["/etc/motd"]);
    }
}
