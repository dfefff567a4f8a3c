//! Files between fleet and helper: sent from a snapshot's folder, received into an unfinished one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::frame::{self, DATA, Tag};
use super::message::{FileBegins, FileEnds};
use crate::volume::exchange::{Sha256Hash, VolumeFault, is_plain_name, sync_and_read_back};
use crate::volume::{Files, VolumeError};
use fleet_core::ids::SnapshotId;

/// Names of received files with what they are.
pub(crate) type Received = HashMap<String, FileEnds>;

/// Sends a file.
pub(crate) fn send(
    to: &mut dyn Write,
    snapshot: SnapshotId,
    name: &str,
    path: &Path,
) -> Result<(), VolumeError> {
    let wire = VolumeFault::io("send", path);
    let mut file = File::open(path).map_err(VolumeFault::io("open", path))?;
    let begins = FileBegins {
        snapshot,
        name: name.to_owned(),
    };
    let mut sent = || -> std::io::Result<()> {
        frame::write_json(to, Tag::File, &begins)?;
        let (mut hasher, mut bytes, mut buf) = (Sha256::new(), 0, vec![0; DATA]);
        loop {
            let count = file.read(&mut buf)?;
            if count == 0 {
                break;
            }
            hasher.update(&buf[..count]);
            bytes += count as u64;
            frame::write(to, Tag::Data, &buf[..count])?;
        }
        let sha256 = Sha256Hash::from(hasher).to_string();
        frame::write_json(to, Tag::End, &FileEnds { bytes, sha256 })
    };
    sent().map_err(wire)
}

/// Receives the file that `begins` names into a folder: written, synced, read back, compared with what the sender
/// says it sent.
pub(crate) fn receive(
    from: &mut dyn Read,
    begins: &FileBegins,
    files: &Arc<dyn Files>,
    dir: &Path,
) -> Result<FileEnds, VolumeError> {
    if !is_plain_name(&begins.name) {
        return Err(VolumeFault::corrupt(
            "a file that was sent",
            "a plain name",
            &begins.name,
        ));
    }
    let path = dir.join(&begins.name);
    let path = path.as_path();
    let file = files.create(path).map_err(VolumeFault::io("make", path))?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let ends: FileEnds = loop {
        let frame = frame::read(from).map_err(VolumeFault::io("receive", path))?;
        match frame {
            Some((Tag::Data, content)) => {
                file.write_at(bytes, &content)
                    .map_err(VolumeFault::io("write", path))?;
                hasher.update(&content);
                bytes += content.len() as u64;
            }
            Some((Tag::End, content)) => {
                break frame::parse(&content).map_err(VolumeFault::io("receive", path))?;
            }
            _ => {
                let error = frame::invalid("content of a file or its end");
                return Err(VolumeFault::io("receive", path)(error));
            }
        }
    };
    let sha256 = Sha256Hash::from(hasher).to_string();
    let came = FileEnds { bytes, sha256 };
    let stored = sync_and_read_back(file.as_ref(), path, bytes)?;
    let kept = FileEnds {
        bytes: stored.0,
        sha256: stored.1.to_string(),
    };
    if ends != came || came != kept {
        let what = format!("{}, received", path.display());
        return Err(VolumeFault::corrupt(what, &ends.sha256, &kept.sha256));
    }
    Ok(ends)
}
