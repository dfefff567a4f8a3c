//! Snapshots that are not on any disk: [`SnapshotStore`] over the volumes of a [`FakeHost`].

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::host::{FakeHost, Side};
use super::machine::{Fact, Machine, Snap};
use super::workload::Files;
use crate::ids::{InstanceId, SnapshotId, VolumeName};
use crate::model::{SnapshotEstimate, SnapshotInfo, SnapshotVolume, VolumeSource};
use crate::ports::{PortError, PortErrorKind, ProgressSink, SnapshotRequest, SnapshotStore};

/// Bytes that must stay free.
const RESERVE_BYTES: u64 = 64 << 20;

/// The snapshots of a fake host. A death in the middle leaves what a real one would: an unfinished folder, a volume
/// half filled.
#[derive(Debug, Clone)]
pub struct FakeSnapshots(FakeHost);

impl FakeSnapshots {
    pub(super) fn new(host: FakeHost) -> Self {
        Self(host)
    }

    /// A bit of a snapshot flips on disk.
    pub fn damage(&self, id: &SnapshotId) {
        if let Some(snapshot) = self.0.machine().snapshots.get_mut(id) {
            snapshot.damaged = true;
        }
    }

    /// What unfinished snapshots left behind.
    #[must_use]
    pub fn unfinished(&self) -> Vec<SnapshotId> {
        self.0.machine().unfinished.iter().copied().collect()
    }

    async fn call<T: Send>(
        &self,
        op: &'static str,
        on: &SnapshotId,
        effect: impl FnOnce(&mut Machine) -> Result<T, PortError> + Send,
    ) -> Result<T, PortError> {
        let short = on.short();
        self.0.call(Side::Elsewhere, op, &short, effect).await
    }
}

#[async_trait]
impl SnapshotStore for FakeSnapshots {
    async fn estimate(&self, volumes: &[VolumeSource]) -> Result<SnapshotEstimate, PortError> {
        let op = "estimate the snapshot";
        self.0
            .call(Side::Elsewhere, op, "", |machine| {
                let sizes = volumes.iter().filter_map(|volume| {
                    let volume = machine.volumes.get(&volume.name)?;
                    Some(bytes(&volume.files))
                });
                Ok(SnapshotEstimate {
                    needed_bytes: sizes.sum::<u64>() * 2,
                    free_bytes: machine.free_bytes,
                    reserve_bytes: RESERVE_BYTES,
                })
            })
            .await
    }

    async fn pre_copy(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        self.call("pre-copy the volumes", &request.id, |machine| {
            machine.unfinished.insert(request.id);
            Ok(())
        })
        .await
    }

    async fn take(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, PortError> {
        let op = "take the snapshot";
        let known = self
            .call("look for the snapshot", &request.id, |machine| {
                let known = machine.snapshots.get(&request.id);
                let known = known.map(|snapshot| snapshot.info.clone());
                if known.is_none() {
                    machine.unfinished.insert(request.id);
                }
                Ok(known)
            })
            .await?;
        if let Some(info) = known {
            return Ok(info);
        }
        let content = self
            .call("copy the volumes", &request.id, |machine| {
                let mut content = BTreeMap::new();
                for source in &request.volumes {
                    let Some(volume) = machine.volumes.get(&source.name) else {
                        let text = format!("volume {} is gone", source.name);
                        return Err(PortError::new(op, PortErrorKind::NotFound, text));
                    };
                    content.insert(source.name.clone(), volume.files.clone());
                }
                let size: u64 = content.values().map(bytes).sum();
                if size > machine.free_bytes {
                    let text = "no space left on device";
                    return Err(PortError::new(op, PortErrorKind::NoSpace, text));
                }
                Ok(content)
            })
            .await?;
        self.call(op, &request.id, |machine| {
            let writers = request.volumes.iter();
            let writers = writers.flat_map(|volume| machine.users_of(&volume.name, true));
            let writers = writers.collect();
            let info = info(request, &content);
            machine.unfinished.remove(&request.id);
            let snapshot = Snap {
                info: info.clone(),
                content,
                damaged: false,
            };
            machine.snapshots.insert(request.id, snapshot);
            let taken = Fact::SnapshotTaken(request.id, writers);
            machine.fact(taken);
            Ok(info)
        })
        .await
    }

    async fn discard(&self, id: &SnapshotId) -> Result<(), PortError> {
        self.call("discard the unfinished snapshot", id, |machine| {
            machine.unfinished.remove(id);
            Ok(())
        })
        .await
    }

    async fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, PortError> {
        self.call("read the snapshot", id, |machine| {
            let snapshot = machine.snapshots.get(id);
            Ok(snapshot.map(|snapshot| snapshot.info.clone()))
        })
        .await
    }

    async fn list(&self, instance: Option<&InstanceId>) -> Result<Vec<SnapshotInfo>, PortError> {
        let op = "list the snapshots";
        self.0
            .call(Side::Elsewhere, op, "", |machine| {
                let all = machine.snapshots.values().map(|snapshot| &snapshot.info);
                let of = all.filter(|info| instance.is_none_or(|of| &info.instance == of));
                let mut list: Vec<SnapshotInfo> = of.cloned().collect();
                list.sort_by_key(|info| (info.created_at, info.id));
                Ok(list)
            })
            .await
    }

    async fn verify(&self, id: &SnapshotId) -> Result<SnapshotInfo, PortError> {
        self.call("verify the snapshot", id, |machine| {
            sound(machine, id).map(|snapshot| snapshot.info.clone())
        })
        .await
    }

    async fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        let op = "restore the volumes";
        let content = self
            .call("verify the snapshot to restore", id, |machine| {
                sound(machine, id).map(|snapshot| snapshot.content.clone())
            })
            .await?;
        for source in volumes {
            let Some(files) = content.get(&source.name) else {
                continue;
            };
            self.call("empty the volume", id, |machine| {
                let users = machine.users_of(&source.name, false);
                let touched = Fact::Restoring(source.name.clone(), users);
                machine.fact(touched);
                fill(machine, op, &source.name, Files::new())
            })
            .await?;
            let half = files.iter().take(1);
            let half: Files = half.map(|(k, v)| (k.clone(), v.clone())).collect();
            self.call("fill half of the volume", id, |machine| {
                fill(machine, op, &source.name, half)
            })
            .await?;
            self.call(op, id, |machine| {
                fill(machine, op, &source.name, files.clone())?;
                machine.fact(Fact::Restored(source.name.clone()));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn delete(&self, id: &SnapshotId) -> Result<(), PortError> {
        self.call("delete the snapshot", id, |machine| {
            if machine.snapshots.remove(id).is_some() {
                machine.fact(Fact::SnapshotDeleted(*id));
            }
            Ok(())
        })
        .await
    }

    async fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, PortError> {
        self.call("compare the volumes", id, |machine| {
            let content = &sound(machine, id)?.content;
            let names = volumes.iter().map(|source| &source.name);
            let differ = names.filter(|name| {
                let now = machine.volumes.get(name).map(|volume| &volume.files);
                now != content.get(name)
            });
            Ok(differ.cloned().collect())
        })
        .await
    }
}

fn sound<'a>(machine: &'a Machine, id: &SnapshotId) -> Result<&'a Snap, PortError> {
    let op = "verify the snapshot";
    match machine.snapshots.get(id) {
        None => Err(PortError::new(
            op,
            PortErrorKind::NotFound,
            format!("there is no snapshot {id}"),
        )),
        Some(snapshot) if snapshot.damaged => Err(PortError::new(
            op,
            PortErrorKind::Corrupt,
            "the archive does not have the hash in the manifest",
        )),
        Some(snapshot) => Ok(snapshot),
    }
}

fn fill(
    machine: &mut Machine,
    op: &'static str,
    name: &VolumeName,
    files: Files,
) -> Result<(), PortError> {
    match machine.volumes.get_mut(name) {
        Some(volume) => {
            volume.files = files;
            Ok(())
        }
        None => Err(PortError::new(
            op,
            PortErrorKind::NotFound,
            format!("volume {name} is gone"),
        )),
    }
}

fn bytes(files: &Files) -> u64 {
    files.values().map(|content| content.len() as u64).sum()
}

fn info(request: &SnapshotRequest, content: &BTreeMap<VolumeName, Files>) -> SnapshotInfo {
    let volumes = content.iter().map(|(name, files)| SnapshotVolume {
        name: name.clone(),
        bytes: bytes(files),
        archive_bytes: bytes(files) / 2,
        entries: files.len() as u64,
    });
    SnapshotInfo {
        id: request.id,
        instance: request.instance.clone(),
        update: request.update,
        created_at: request.now,
        consistency: request.consistency,
        volumes: volumes.collect(),
        manifest_sha256: Machine::hex64(content_number(content)),
        verified: true,
    }
}

/// A number that stands for the content.
fn content_number(content: &BTreeMap<VolumeName, Files>) -> u64 {
    let mut number = 0xcbf2_9ce4_8422_2325_u64;
    for (name, files) in content {
        let parts = files
            .iter()
            .flat_map(|(path, data)| [path.as_bytes(), data]);
        for byte in std::iter::once(name.as_str().as_bytes())
            .chain(parts)
            .flatten()
        {
            number = (number ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    number
}
