//! Reads an archive against the list: every member must be, byte for byte, what the list says.

use sha2::{Digest, Sha256};

use super::entry::{Entry, Kind};
use super::error::VolumeError;
use super::hash::Sha256Hash;
use super::list::content_bytes;
use super::stream_in::StreamIn;
use super::stream_out::Sealed;
use super::tar;

/// An archive being read.
#[derive(Debug)]
pub(super) struct MemberReader {
    input: StreamIn,
    hashes: bool,
}

impl MemberReader {
    pub(super) fn new(input: StreamIn) -> Self {
        Self {
            input,
            hashes: true,
        }
    }

    /// A reader that leaves the sums of the files to whoever compares them where they are written to; that of the
    /// archive is taken all the same.
    pub(super) fn without_sums(input: StreamIn) -> Self {
        Self {
            input,
            hashes: false,
        }
    }

    /// Reads the member of this entry, which must be the next one, and hands its content (without a map of holes) to
    /// `content`.
    pub(super) fn read(
        &mut self,
        entry: &Entry,
        content: &mut dyn FnMut(&[u8]) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.expect(&tar::header(entry), || {
            format!("the header of {}", String::from_utf8_lossy(&entry.path))
        })?;
        let Kind::File { size, sha256, data } = &entry.kind else {
            return Ok(());
        };
        let mut hasher = self.hashes.then(Sha256::new);
        if let (Some(hasher), Some(runs)) = (&mut hasher, data) {
            hasher.update(tar::sparse_map(runs, *size));
        }
        self.input.take(content_bytes(entry), |bytes| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            content(bytes)
        })?;
        let found = hasher.map(Sha256Hash::from);
        if let Some(found) = found.filter(|found| found != sha256) {
            let what = format!("the content of {}", String::from_utf8_lossy(&entry.path));
            return Err(VolumeError::corrupt(what, sha256, found));
        }
        let zeros = usize::try_from(tar::padding(tar::stored_len(entry))).unwrap_or(tar::BLOCK);
        self.expect(&[0; tar::BLOCK][..zeros], || {
            format!("the padding of {}", String::from_utf8_lossy(&entry.path))
        })
    }

    /// Asserts that the archive ends here; returns what was read.
    pub(super) fn finish(mut self) -> Result<Sealed, VolumeError> {
        self.expect(&tar::END, || "the end of the archive".to_owned())?;
        self.input.finish()
    }

    fn expect(
        &mut self,
        mut expected: &[u8],
        what: impl Fn() -> String,
    ) -> Result<(), VolumeError> {
        let file = self.input.path().display().to_string();
        self.input.take(expected.len() as u64, |bytes| {
            let (head, tail) = expected.split_at(bytes.len());
            expected = tail;
            if head == bytes {
                Ok(())
            } else {
                let what = format!("{} in {file}", what());
                Err(VolumeError::corrupt(
                    what,
                    "what the list says",
                    "other bytes",
                ))
            }
        })
    }
}
