//! Processes that live on although the engine does not say so.
//!
//! An engine that is killed just after a start may come back with the container in state `created` while its process
//! runs. The kernel knows: the container's id is in the process's cgroup path.

use std::path::Path;

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::ports::{PortError, PortErrorKind};

use super::DockerEngine;

/// Sees the processes of the engine's host where fleet itself does not, because it runs in a container.
#[async_trait]
pub trait Scout: Send + Sync + std::fmt::Debug {
    /// A process of that container, as text for people; none if there is none.
    ///
    /// # Errors
    /// The host cannot be looked at: nothing is known then.
    async fn process_of(&self, container: &ContainerId) -> Result<Option<String>, PortError>;
}

impl DockerEngine {
    pub(super) async fn find_orphan(&self, id: &ContainerId) -> Result<Option<String>, PortError> {
        let op = "look for a process of a container";
        if self.scout.is_none() && !self.endpoint.is_local() {
            return Ok(None);
        }
        // What the engine itself knows to be running is no orphan.
        let known = self
            .inspect_by_id(id)
            .await?
            .map_or(0, |container| container.pid);
        if known != 0 {
            return Ok(None);
        }
        if let Some(scout) = &self.scout {
            return scout.process_of(id).await;
        }
        let id = id.clone();
        tokio::task::spawn_blocking(move || process_of(&id))
            .await
            .map_err(|source| {
                PortError::new(op, PortErrorKind::Failed, "the look was cut short")
                    .with_source(source)
            })?
            .map_err(|source| {
                PortError::new(op, PortErrorKind::Failed, "/proc cannot be read")
                    .with_source(source)
            })
    }
}

/// The first process of a container among those that this process sees.
pub(crate) fn process_of(id: &ContainerId) -> std::io::Result<Option<String>> {
    scan(Path::new("/proc"), id.as_str())
}

/// The first process whose cgroup path names the container. Processes come and go while looking.
fn scan(proc: &Path, id: &str) -> std::io::Result<Option<String>> {
    for entry in std::fs::read_dir(proc)? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(cgroup) = std::fs::read_to_string(entry.path().join("cgroup")) else {
            continue;
        };
        if !cgroup.contains(id) {
            continue;
        }
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        return Ok(Some(format!("process {pid} ({})", command.trim())));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_whose_cgroup_names_the_container_is_found() {
        let id = "ab".repeat(32);
        let proc = tempfile::tempdir().expect("a folder");
        let process = |pid: &str, cgroup: &str, command: &str| {
            let folder = proc.path().join(pid);
            std::fs::create_dir(&folder).expect("a process");
            std::fs::write(folder.join("cgroup"), cgroup).expect("its cgroup");
            std::fs::write(folder.join("cmdline"), command).expect("its command");
        };
        process("7", "0::/init.scope\n", "init");
        process("self", &format!("0::/docker/{id}\n"), "not a pid");
        assert_eq!(scan(proc.path(), &id).expect("read"), None);
        process("42", &format!("4:memory:/docker/{id}\n"), "/app\0--serve\0");
        assert_eq!(
            scan(proc.path(), &id).expect("read").as_deref(),
            Some("process 42 (/app --serve)")
        );
    }
}
