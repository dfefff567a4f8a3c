//! Refuses a list that no walk can have made, before anything is restored from it: names below what is no folder,
//! names twice, links to what is not there, content outside its file.

use std::collections::HashSet;

use super::entry::{Entry, Kind, walk_order};
use super::folders::{is_at_or_below, split_path};

/// Largest offset that a file can have.
const LARGEST_FILE: u64 = i64::MAX as u64;

/// Watches the live entries of a list go by.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Folders on the way to the last entry, the root not counted.
    folders: Vec<Vec<u8>>,
    last: Option<Vec<u8>>,
    /// Names that links point to.
    targets: HashSet<Vec<u8>>,
}

impl Shape {
    /// Takes the next entry; the text of a failure says what was expected.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), &'static str> {
        if !runs_fit(entry) {
            return Err("runs of data in order and within the file");
        }
        if !entry.live {
            return Ok(());
        }
        match &self.last {
            None if entry.path.is_empty() && entry.kind == Kind::Dir => {
                self.last = Some(Vec::new());
                return Ok(());
            }
            None => return Err("the root first"),
            Some(last) if walk_order(last, &entry.path).is_ge() => return Err("every name once"),
            Some(_) => {}
        }
        while self
            .folders
            .last()
            .is_some_and(|top| !is_at_or_below(&entry.path, top))
        {
            self.folders.pop();
        }
        let parent = self.folders.last().map_or(&b""[..], Vec::as_slice);
        if split_path(&entry.path).0 != parent {
            return Err("a folder above every name");
        }
        match &entry.kind {
            Kind::Dir => self.folders.push(entry.path.clone()),
            Kind::Hardlink { to } => {
                if walk_order(to, &entry.path).is_ge() {
                    return Err("the first name of an inode before its others");
                }
                self.targets.insert(to.clone());
            }
            _ => {}
        }
        self.last = Some(entry.path.clone());
        Ok(())
    }

    /// What links point to: each must be a live name in the list, and no folder.
    pub(super) fn into_targets(self) -> HashSet<Vec<u8>> {
        self.targets
    }
}

fn runs_fit(entry: &Entry) -> bool {
    let Kind::File { size, data, .. } = &entry.kind else {
        return true;
    };
    let mut at = 0;
    *size <= LARGEST_FILE
        && data.iter().flatten().all(|(start, len)| {
            let end = start.checked_add(*len);
            let fits = *start >= at && *len > 0 && end.is_some_and(|end| end <= *size);
            at = end.unwrap_or(u64::MAX);
            fits
        })
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Attributes, Time};
    use super::super::hash::Sha256Hash;
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            attributes: Attributes {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time(0, 0),
                xattrs: Vec::new(),
            },
            archive: None,
            live: true,
            stamp: None,
        }
    }

    fn file(size: u64, data: Option<Vec<(u64, u64)>>) -> Kind {
        let sha256 = Sha256Hash::of(b"");
        Kind::File { size, sha256, data }
    }

    #[track_caller]
    fn check(entries: &[(&str, Kind)], expect: Result<(), &'static str>) {
        let mut shape = Shape::default();
        let result = entries
            .iter()
            .try_for_each(|(path, kind)| shape.add(&entry(path, kind.clone())));
        assert_eq!(result, expect);
    }

    #[test]
    fn only_what_a_walk_can_find_is_taken() {
        let link = |to: &str| Kind::Hardlink { to: to.into() };
        let out = Kind::Symlink {
            target: b"/etc".to_vec(),
        };
        let root = ("", Kind::Dir);
        check(
            &[
                root.clone(),
                ("a", Kind::Dir),
                ("a/b", file(0, None)),
                ("c", link("a/b")),
            ],
            Ok(()),
        );
        check(&[("a", Kind::Dir)], Err("the root first"));
        check(
            &[root.clone(), ("a", out), ("a/passwd", file(0, None))],
            Err("a folder above every name"),
        );
        check(
            &[root.clone(), ("a/b", Kind::Fifo)],
            Err("a folder above every name"),
        );
        check(
            &[root.clone(), ("a", Kind::Fifo), ("a", Kind::Fifo)],
            Err("every name once"),
        );
        check(
            &[root.clone(), ("a", link("b"))],
            Err("the first name of an inode before its others"),
        );
        let bad = "runs of data in order and within the file";
        check(
            &[root.clone(), ("a", file(9, Some(vec![(0, 4), (2, 4)])))],
            Err(bad),
        );
        check(
            &[root.clone(), ("a", file(9, Some(vec![(4, u64::MAX)])))],
            Err(bad),
        );
        check(&[root, ("a", file(u64::MAX, None))], Err(bad));
    }
}
