//! Files of the store that are not compressed: lists of any length, and small texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::VolumeError;
use super::files::{Files, StoreFile};
use super::hash::Sha256Hash;
use super::stream_out::{Sealed, keep_reserve, sync_and_read_back};

/// Largest small file: manifest, list of hashes, spec. What is larger is neither written nor read.
pub(super) const LARGEST: u64 = 16 << 20;

/// Bytes collected before a write, and read at once.
const STEP: usize = 1 << 20;

/// A file that is written as its content comes. Without content there is none.
#[derive(Debug)]
pub(super) struct PlainOut {
    files: Arc<dyn Files>,
    path: PathBuf,
    reserve_bytes: u64,
    file: Option<Arc<dyn StoreFile>>,
    pending: Vec<u8>,
    bytes: u64,
    hasher: Sha256,
}

impl PlainOut {
    /// Will be there from its first byte on, and keep these bytes free.
    pub(super) fn new(files: Arc<dyn Files>, path: PathBuf, reserve_bytes: u64) -> Self {
        Self {
            files,
            path,
            reserve_bytes,
            file: None,
            pending: Vec::new(),
            bytes: 0,
            hasher: Sha256::new(),
        }
    }

    /// Takes some bytes.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), VolumeError> {
        self.pending.extend_from_slice(data);
        if self.pending.len() < STEP {
            return Ok(());
        }
        self.flush()
    }

    /// Ends the file, synced and read back; none if nothing was written.
    pub(super) fn finish(mut self) -> Result<Option<Sealed>, VolumeError> {
        self.flush()?;
        let Some(file) = self.file else {
            return Ok(None);
        };
        let meant = (self.bytes, Sha256Hash::from(self.hasher));
        seal(file.as_ref(), &self.path, meant).map(Some)
    }

    fn flush(&mut self) -> Result<(), VolumeError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let path = self.path.as_path();
        keep_reserve(&self.files, path, self.reserve_bytes)?;
        let file = match &self.file {
            Some(file) => file,
            None => {
                let made = self.files.create(path);
                self.file
                    .insert(made.map_err(VolumeError::io("make", path))?)
            }
        };
        file.write_at(self.bytes, &self.pending)
            .map_err(VolumeError::io("write", path))?;
        self.hasher.update(&self.pending);
        self.bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Writes a small file whole, syncs it and reads it back.
///
/// # Errors
/// As the system says; it is not small.
pub(super) fn write_small(
    files: &Arc<dyn Files>,
    path: &Path,
    content: &[u8],
) -> Result<Sealed, VolumeError> {
    let meant = (content.len() as u64, Sha256Hash::of(content));
    if meant.0 > LARGEST {
        return Err(VolumeError::Unsupported(format!(
            "{} would have {} bytes; at most {LARGEST} can be read again",
            path.display(),
            meant.0
        )));
    }
    let file = files.create(path).map_err(VolumeError::io("make", path))?;
    file.write_at(0, content)
        .map_err(VolumeError::io("write", path))?;
    seal(file.as_ref(), path, meant)
}

/// Syncs what was written and reads it back.
fn seal(
    file: &dyn StoreFile,
    path: &Path,
    meant: (u64, Sha256Hash),
) -> Result<Sealed, VolumeError> {
    let read = sync_and_read_back(file, path, [meant.0])?;
    if read != meant {
        return Err(VolumeError::corrupt(
            format!("{}, read back", path.display()),
            meant.1,
            read.1,
        ));
    }
    Ok(Sealed {
        bytes: meant.0,
        raw_bytes: meant.0,
        sha256: meant.1,
    })
}

/// Reads a file that must be small.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, VolumeError> {
    let len = std::fs::symlink_metadata(path)
        .map_err(VolumeError::io("look at", path))?
        .len();
    if len > LARGEST {
        let what = path.display().to_string();
        return Err(VolumeError::corrupt(
            what,
            format_args!("at most {LARGEST} bytes"),
            len,
        ));
    }
    std::fs::read(path).map_err(VolumeError::io("read", path))
}

/// Reads a file of any length for what it is.
pub(super) fn sum_of(path: &Path) -> Result<Sealed, VolumeError> {
    let failed = || VolumeError::io("read", path);
    let mut file = std::fs::File::open(path).map_err(VolumeError::io("open", path))?;
    let (mut hasher, mut bytes, mut buf) = (Sha256::new(), 0, vec![0; STEP]);
    loop {
        let count = std::io::Read::read(&mut file, &mut buf).map_err(failed())?;
        if count == 0 {
            break;
        }
        hasher.update(&buf[..count]);
        bytes += count as u64;
    }
    Ok(Sealed {
        bytes,
        raw_bytes: bytes,
        sha256: hasher.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::files::OsFiles;
    use super::*;

    #[test]
    fn what_comes_in_pieces_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let files: Arc<dyn Files> = Arc::new(OsFiles);
        let mut out = PlainOut::new(files.clone(), path.clone(), 0);
        let piece = vec![b'x'; STEP / 2 + 1];
        for _ in 0..3 {
            out.write(&piece).unwrap();
        }
        let sealed = out.finish().unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), piece.repeat(3));
        assert_eq!(sum_of(&path).unwrap(), sealed);
        let none = PlainOut::new(files, dir.path().join("none"), 0);
        assert_eq!(none.finish().unwrap(), None);
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let files: Arc<dyn Files> = Arc::new(OsFiles);
        let path = dir.path().join("manifest.json");
        let most = vec![b' '; usize::try_from(LARGEST).unwrap()];
        write_small(&files, &path, &most).unwrap();
        assert_eq!(read_small(&path).unwrap().len(), most.len());
        std::fs::remove_file(&path).unwrap();
        let more = [&most[..], b" "].concat();
        let error = write_small(&files, &path, &more).unwrap_err();
        assert!(matches!(error, VolumeError::Unsupported(_)), "{error}");
        assert!(!path.exists());
    }
}
