//! The list of a volume's entries on disk: one JSON object a line, in walk order, compressed.

use std::path::Path;
use std::sync::Arc;

use super::entry::{Entry, Kind, walk_order};
use super::error::VolumeError;
use super::files::Files;
use super::stream_in::StreamIn;
use super::stream_out::{Sealed, StreamOptions, StreamOut};

/// Longest line that is written and read: a file with as many runs of data as are kept fits, and so does everything else
/// but inodes with megabytes of attributes.
const LONGEST_LINE: usize = 16 << 20;

/// What a list holds in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Live entries.
    pub(super) entries: u64,
    /// Bytes of content of live files, holes not counted.
    pub(super) bytes: u64,
    /// Live sockets, which no archive holds.
    pub(super) sockets: u64,
}

impl Totals {
    /// Counts an entry in.
    pub(super) fn add(&mut self, entry: &Entry) {
        if !entry.live {
            return;
        }
        self.entries += 1;
        self.bytes += content_bytes(entry);
        self.sockets += u64::from(matches!(entry.kind, Kind::Socket));
    }
}

/// Bytes of content, holes not counted.
pub(super) fn content_bytes(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File { size, data, .. } => match data {
            None => *size,
            Some(runs) => runs
                .iter()
                .fold(0, |sum, (_, len)| sum.saturating_add(*len)),
        },
        _ => 0,
    }
}

/// Writes a list.
#[derive(Debug)]
pub(super) struct ListWriter {
    out: StreamOut,
    line: Vec<u8>,
    totals: Totals,
}

impl ListWriter {
    pub(super) fn create(
        files: &Arc<dyn Files>,
        path: &Path,
        options: StreamOptions,
    ) -> Result<Self, VolumeError> {
        let options = StreamOptions {
            workers: 1,
            ..options
        };
        Ok(Self {
            out: StreamOut::create(files, path, options)?,
            line: Vec::new(),
            totals: Totals::default(),
        })
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), VolumeError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry).map_err(|error| {
            VolumeError::io("write down", &entry.path)(std::io::Error::other(error))
        })?;
        if self.line.len() > LONGEST_LINE {
            return Err(VolumeError::Unsupported(format!(
                "what there is to say about {} takes {} bytes; at most {LONGEST_LINE} can be read again",
                String::from_utf8_lossy(&entry.path),
                self.line.len()
            )));
        }
        self.line.push(b'\n');
        self.totals.add(entry);
        self.out.write(&self.line)
    }

    pub(super) fn finish(self) -> Result<(Sealed, Totals), VolumeError> {
        Ok((self.out.finish()?, self.totals))
    }
}

/// Reads a list, one entry ahead.
#[derive(Debug)]
pub(super) struct ListReader {
    input: StreamIn,
    line: Vec<u8>,
    next: Option<Entry>,
    last_path: Option<Vec<u8>>,
}

impl ListReader {
    pub(super) fn open(path: &Path) -> Result<Self, VolumeError> {
        let mut reader = Self {
            input: StreamIn::open(path, 1)?,
            line: Vec::new(),
            next: None,
            last_path: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// The entry that comes next.
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.next.as_ref()
    }

    /// Takes the entry that comes next.
    pub(super) fn pop(&mut self) -> Result<Option<Entry>, VolumeError> {
        let entry = self.next.take();
        if let Some(entry) = &entry {
            self.last_path = Some(entry.path.clone());
            self.advance()?;
        }
        Ok(entry)
    }

    /// Takes the next entry that is still there at the end of the snapshot.
    pub(super) fn pop_live(&mut self) -> Result<Option<Entry>, VolumeError> {
        while let Some(entry) = self.pop()? {
            if entry.live {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What was read, once the end is reached.
    pub(super) fn finish(self) -> Result<Sealed, VolumeError> {
        self.input.finish()
    }

    fn advance(&mut self) -> Result<(), VolumeError> {
        self.line.clear();
        if !self.input.read_line(&mut self.line, LONGEST_LINE)? {
            return Ok(());
        }
        let entry: Entry =
            serde_json::from_slice(&self.line).map_err(|error| self.damaged("an entry", error))?;
        check_path(&entry.path).map_err(|found| self.damaged("a plain relative path", found))?;
        let in_order = self
            .last_path
            .as_ref()
            .is_none_or(|last| walk_order(last, &entry.path).is_le());
        if !in_order {
            let found = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(self.damaged("entries in walk order", found));
        }
        self.next = Some(entry);
        Ok(())
    }

    fn damaged(&self, expected: &str, found: impl std::fmt::Display) -> VolumeError {
        VolumeError::corrupt(self.input.path().display().to_string(), expected, found)
    }
}

/// Refuses a path that a walk cannot have found.
fn check_path(path: &[u8]) -> Result<(), String> {
    let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if !path.is_empty() && path.split(|byte| *byte == b'/').any(bad) {
        return Err(String::from_utf8_lossy(path).into_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for good in ["", "a", "a/b", "...", "a/..b"] {
            assert!(check_path(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "/", "/etc", "..", "a/../b", "a//b", "a/", ".", "a/./b", "a\0",
        ] {
            assert!(check_path(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
