//! What a restore by hand must remove from the first archive's tree before it extracts the second: names that are
//! gone or became something else, and extended attributes that folders lost.
//!
//! fleet's own restore does not need this: it never extracts what is not there at the end.

use super::entry::{Entry, Kind};
use super::error::VolumeError;
use super::folders::is_at_or_below;
use super::plain::PlainOut;
use super::stream_out::Sealed;

/// Two lists for `xargs -0`, as long as there are changes.
#[derive(Debug)]
pub(super) struct Removed {
    paths: PlainOut,
    xattrs: PlainOut,
    last: Option<Vec<u8>>,
}

/// The finished lists, where there was anything to list.
#[derive(Debug, Default)]
pub(super) struct RemovedLists {
    /// `./path` and NUL for each name; nothing below a name that is listed.
    pub(super) paths: Option<Sealed>,
    /// Attribute, NUL, `./path`, NUL.
    pub(super) xattrs: Option<Sealed>,
}

impl Removed {
    /// Will be written to these files.
    pub(super) fn new(paths: PlainOut, xattrs: PlainOut) -> Self {
        Self {
            paths,
            xattrs,
            last: None,
        }
    }

    /// A name is gone.
    pub(super) fn path(&mut self, path: &[u8]) -> Result<(), VolumeError> {
        let covered = |last: &Vec<u8>| is_at_or_below(path, last);
        if self.last.as_ref().is_some_and(covered) {
            return Ok(());
        }
        for part in [b"./", path, b"\0"] {
            self.paths.write(part)?;
        }
        self.last = Some(path.to_vec());
        Ok(())
    }

    /// A name holds something else now.
    pub(super) fn replaced(&mut self, before: &Entry, now: &Entry) -> Result<(), VolumeError> {
        if (&before.kind, &now.kind) != (&Kind::Dir, &Kind::Dir) {
            return self.path(&before.path);
        }
        let kept = |name: &[u8]| now.attributes.xattrs.iter().any(|now| now.name == name);
        for xattr in &before.attributes.xattrs {
            if !kept(&xattr.name) {
                for part in [&xattr.name, &b"\0./"[..], &before.path, b"\0"] {
                    self.xattrs.write(part)?;
                }
            }
        }
        Ok(())
    }

    /// Ends both lists.
    pub(super) fn finish(self) -> Result<RemovedLists, VolumeError> {
        Ok(RemovedLists {
            paths: self.paths.finish()?,
            xattrs: self.xattrs.finish()?,
        })
    }
}
