//! One small file of an image, from a container that is made for it and never started.
//!
//! The container has the image and nothing else: no network, and memory in place of the volumes that the image
//! declares, so that the engine makes none. Its name follows from the image: what a killed fleet left is taken up.

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use fleet_core::ids::ImageId;
use fleet_core::model::RunState;
use fleet_core::model::labels::KIND;
use fleet_core::ports::{PortError, PortErrorKind};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::io::Read as _;

use super::{CALL_LIMIT, DockerEngine};
use crate::error;
use crate::json::object;

const OP: &str = "read a file of an image";
/// What its label says.
const READER_KIND: &str = "reader";
/// Room in the archive for its headers and padding, beside the file itself.
const ARCHIVE_OVERHEAD: usize = 64 * 1024;

impl DockerEngine {
    pub(super) async fn read_image_file(
        &self,
        image: &ImageId,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PortError> {
        let Some(raw) = self.image_raw(image.as_str()).await? else {
            let message = format!("there is no image {}", image.short());
            return Err(PortError::new(OP, PortErrorKind::NotFound, message));
        };
        let name = format!(
            "fleet-reader-{}",
            image.short().trim_start_matches("sha256:")
        );
        let id = match self.find_by_name(&name).await? {
            Some(found) => {
                let ours = found
                    .labels
                    .get(KIND)
                    .is_some_and(|kind| kind == READER_KIND)
                    && found.image_id == *image
                    && found.state == RunState::Created;
                if !ours {
                    let message = format!("the name {name} is taken by {}", found.id.short());
                    return Err(PortError::new(OP, PortErrorKind::Conflict, message));
                }
                found.id
            }
            None => {
                self.create_raw(&name, &body(image, &raw["Config"]))
                    .await?
                    .0
            }
        };
        let archive = tokio::time::timeout(CALL_LIMIT, self.download(id.as_str(), path, bytes_max))
            .await
            .unwrap_or_else(|_| Err(error::timeout(OP)));
        self.remove_stopped(&id).await?;
        match archive? {
            Some(archive) => regular_file(&archive, bytes_max),
            None => Ok(None),
        }
    }

    /// The archive of one path; none where there is no such path.
    async fn download(
        &self,
        container: &str,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PortError> {
        let options = DownloadFromContainerOptionsBuilder::new()
            .path(path)
            .build();
        let mut stream = Box::pin(
            self.docker
                .download_from_container(container, Some(options)),
        );
        let mut archive = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk.map_err(|source| error::from_bollard(OP, source)) {
                Ok(chunk) => archive.extend_from_slice(&chunk),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
            if archive.len() > bytes_max.saturating_add(ARCHIVE_OVERHEAD) {
                return Err(too_large(bytes_max));
            }
        }
        Ok(Some(archive))
    }
}

fn body(image: &ImageId, config: &Value) -> Value {
    let memory: Vec<Value> = object(&config["Volumes"])
        .map(|(target, _)| json!({ "Type": "tmpfs", "Target": target }))
        .collect();
    json!({
        "Image": image,
        // It is never started; an image without a command could not be made a container of otherwise.
        "Entrypoint": ["/"],
        "Cmd": [],
        "Healthcheck": { "Test": ["NONE"] },
        "Labels": { KIND: READER_KIND },
        "NetworkDisabled": true,
        "HostConfig": {
            "Mounts": memory,
            "NetworkMode": "none",
            "RestartPolicy": { "Name": "no" },
            "LogConfig": { "Type": "none" },
        },
    })
}

/// The content of an archive that holds one regular file; none where it holds something else, such as a link.
fn regular_file(archive: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, PortError> {
    let unreadable = |source| {
        PortError::new(
            OP,
            PortErrorKind::Failed,
            "the engine's archive cannot be read",
        )
        .with_source(source)
    };
    let mut archive = tar::Archive::new(archive);
    let Some(entry) = archive.entries().map_err(unreadable)?.next() else {
        return Ok(None);
    };
    let entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    if entry.size() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let mut content = Vec::new();
    entry
        .take(bytes_max as u64)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    Ok(Some(content))
}

fn too_large(bytes_max: usize) -> PortError {
    let message = format!("expected at most {bytes_max} bytes, found more");
    PortError::new(OP, PortErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stands_in_for_the_volumes_of_the_image() {
        let image = ImageId::new(format!("sha256:{}", "1".repeat(64))).unwrap();
        let body = body(&image, &json!({ "Volumes": { "/data": {} } }));
        let mounts = &body["HostConfig"]["Mounts"];
        assert_eq!(*mounts, json!([{ "Type": "tmpfs", "Target": "/data" }]));
    }

    #[test]
    fn a_link_is_no_file() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, "latest.json", "/etc/shadow")
            .unwrap();
        let archive = archive.into_inner().unwrap();
        assert_eq!(regular_file(&archive, 100).unwrap(), None);
        assert!(regular_file(b"no archive at all", 100).is_err());
    }
}
