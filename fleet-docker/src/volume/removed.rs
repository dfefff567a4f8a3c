//! What a restore by hand must remove from the first archive's tree before it extracts the second: names that are
//! gone or became something else, and extended attributes that folders lost.
//!
//! fleet's own restore does not need this: it never extracts what is not there at the end.

use super::entry::{Entry, Kind};
use super::folders::is_at_or_below;

/// Two lists for `xargs -0`, small as changes are.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// `./path` and NUL for each name; nothing below a name that is listed.
    pub(super) paths: Vec<u8>,
    /// Attribute, NUL, `./path`, NUL.
    pub(super) xattrs: Vec<u8>,
    last: Option<Vec<u8>>,
}

impl Removed {
    /// A name is gone.
    pub(super) fn path(&mut self, path: &[u8]) {
        let covered = |last: &Vec<u8>| is_at_or_below(path, last);
        if self.last.as_ref().is_some_and(covered) {
            return;
        }
        self.paths.extend_from_slice(b"./");
        self.paths.extend_from_slice(path);
        self.paths.push(0);
        self.last = Some(path.to_vec());
    }

    /// A name holds something else now.
    pub(super) fn replaced(&mut self, before: &Entry, now: &Entry) {
        match (&before.kind, &now.kind) {
            (Kind::Dir, Kind::Dir) => {
                for xattr in &before.attributes.xattrs {
                    let kept = now
                        .attributes
                        .xattrs
                        .iter()
                        .any(|now| now.name == xattr.name);
                    if !kept {
                        self.xattrs.extend_from_slice(&xattr.name);
                        self.xattrs.extend_from_slice(b"\0./");
                        self.xattrs.extend_from_slice(&before.path);
                        self.xattrs.push(0);
                    }
                }
            }
            _ => self.path(&before.path),
        }
    }
}
