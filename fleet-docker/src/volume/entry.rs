//! What a volume holds: one [`Entry`] for each inode name, and the order in which they stand.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::hash::Sha256Hash;

/// One name in a volume with everything that a restore must bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Path below the root, without a leading slash; empty for the root itself.
    #[serde(with = "bytes_as_text")]
    pub(super) path: Vec<u8>,
    /// What it is.
    #[serde(flatten)]
    pub(super) kind: Kind,
    /// Owner, mode, time and extended attributes.
    #[serde(flatten)]
    pub(super) attributes: Attributes,
    /// Which archive holds it; none for sockets, which no archive can hold.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub(super) archive: Option<ArchiveKind>,
    /// Whether it is still there at the end; false for what a later pass replaced or removed.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(super) live: bool,
    /// What tells an unchanged inode from a changed one; only kept between two passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<Stamp>,
}

/// What an entry is, with what only such entries have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Kind {
    /// A regular file.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// SHA-256 of what the archive stores of it: its content; for a sparse file the map, then the data.
        sha256: Sha256Hash,
        /// Offset and length of each run of data; only for files with holes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Vec<(u64, u64)>>,
    },
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points, unchecked.
        #[serde(with = "bytes_as_text")]
        target: Vec<u8>,
    },
    /// A further name of an earlier file.
    Hardlink {
        /// Path of the first name.
        #[serde(with = "bytes_as_text")]
        to: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket: listed, never copied.
    Socket,
}

/// Metadata that every entry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Last change of the content.
    pub(super) mtime: Time,
    /// Extended attributes, sorted by name; ACLs and file capabilities are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) xattrs: Vec<Xattr>,
}

/// Seconds since 1970 and nanoseconds into that second (also before 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Time(pub(super) i64, pub(super) u32);

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Xattr {
    /// Full name with its namespace.
    #[serde(with = "bytes_as_text")]
    pub(super) name: Vec<u8>,
    /// Value, in base64 where written.
    #[serde(with = "bytes_as_base64")]
    pub(super) value: Vec<u8>,
}

/// What the kernel changes whenever it changes anything about an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Inode number.
    pub(super) ino: u64,
    /// Time of the last change of the inode.
    pub(super) ctime: Time,
    /// Size as the inode has it.
    pub(super) size: u64,
}

/// Which of the two archives of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ArchiveKind {
    /// The first pass, or the only one.
    Base,
    /// What the pass after the stop added.
    Delta,
}

impl Kind {
    /// A word for people.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::File { .. } => "a file",
            Self::Dir => "a folder",
            Self::Symlink { .. } => "a symbolic link",
            Self::Hardlink { .. } => "a hard link",
            Self::Fifo => "a named pipe",
            Self::Char { .. } => "a character device",
            Self::Block { .. } => "a block device",
            Self::Socket => "a socket",
        }
    }
}

/// The order of entries: that of a walk that visits a folder before its children and children by name, byte by
/// byte. The slash therefore sorts before every other byte.
pub(super) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(live: &bool) -> bool {
    *live
}

/// Bytes as JSON text: UTF-8 stays as it is, every other byte and the percent sign become `%XX`.
mod bytes_as_text {
    use std::borrow::Cow;
    use std::fmt::Write as _;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = <Cow<'de, str>>::deserialize(from)?;
        decode(&text).ok_or_else(|| de::Error::custom("expected two hexadecimal digits after %"))
    }

    pub(super) fn encode(bytes: &[u8]) -> Cow<'_, str> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('%') => return Cow::Borrowed(text),
            _ => {}
        }
        let mut out = String::with_capacity(bytes.len() + 8);
        for chunk in bytes.utf8_chunks() {
            for part in chunk.valid().split_inclusive('%') {
                match part.strip_suffix('%') {
                    Some(head) => {
                        out.push_str(head);
                        out.push_str("%25");
                    }
                    None => out.push_str(part),
                }
            }
            for byte in chunk.invalid() {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
        Cow::Owned(out)
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut parts = text.split('%');
        let mut out = parts.next()?.as_bytes().to_vec();
        for part in parts {
            let digits = part.get(..2)?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            out.extend_from_slice(&part.as_bytes()[2..]);
        }
        Some(out)
    }
}

mod bytes_as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_folder_stands_before_its_children_and_they_before_its_sibling() {
        let mut paths: Vec<&[u8]> =
            vec![b"a.b", b"a/b", b"", b"a", b"a/b/c", b"a-", b"a/\xff", b"b"];
        paths.sort_by(|a, b| walk_order(a, b));
        let expect: Vec<&[u8]> = vec![b"", b"a", b"a/b", b"a/b/c", b"a/\xff", b"a-", b"a.b", b"b"];
        assert_eq!(paths, expect);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_text_form(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = bytes_as_text::encode(&bytes).into_owned();
            prop_assert_eq!(bytes_as_text::decode(&text), Some(bytes));
        }

        #[test]
        fn any_text_decodes_or_is_refused(text in ".{0,32}") {
            let _ = bytes_as_text::decode(&text);
        }
    }
}
