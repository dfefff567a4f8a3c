//! The form of an archive: POSIX tar with PAX records for what its fixed fields cannot say.
//!
//! The bytes before an entry's content are a function of the [`Entry`] alone. A reader therefore never parses an
//! archive: it writes the header that must be there and compares. Whatever else an archive may hold (a path that
//! leads outside, a device that the list does not have) is refused by being different. The function must never
//! change for a given schema of the manifest; the golden test holds it.

use super::entry::{Entry, Kind, Time};

/// Unit of an archive.
pub(super) const BLOCK: usize = 512;
/// Two blocks of zeros end an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const NAME_LEN: usize = 100;
/// Largest value of a seven-digit octal field.
const OCTAL_7: u64 = 0o7_777_777;
/// Largest value of an eleven-digit octal field.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Zeros after content of this length.
pub(super) fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK as u64
}

/// Bytes of content that the archive stores for an entry, map included; 0 for all but files.
pub(super) fn stored_len(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File { size, data, .. } => match data {
            None => *size,
            Some(runs) => {
                let map = sparse_map(runs, *size).len() as u64;
                runs.iter()
                    .fold(map, |sum, (_, len)| sum.saturating_add(*len))
            }
        },
        _ => 0,
    }
}

/// Everything that stands before the content of an entry. Empty for sockets.
pub(super) fn header(entry: &Entry) -> Vec<u8> {
    let (flag, link, device) = match &entry.kind {
        Kind::File { .. } => (b'0', None, None),
        Kind::Hardlink { to } => (b'1', Some(member_name(to, false)), None),
        Kind::Symlink { target } => (b'2', Some(target.clone()), None),
        Kind::Char { major, minor } => (b'3', None, Some((*major, *minor))),
        Kind::Block { major, minor } => (b'4', None, Some((*major, *minor))),
        Kind::Dir => (b'5', None, None),
        Kind::Fifo => (b'6', None, None),
        Kind::Socket => return Vec::new(),
    };
    let name = member_name(&entry.path, matches!(entry.kind, Kind::Dir));
    let stored = stored_len(entry);
    let sparse = match &entry.kind {
        Kind::File { size, data, .. } => data.as_ref().map(|runs| (*size, runs)),
        _ => None,
    };
    let records = records(
        entry,
        &name,
        link.as_deref(),
        stored,
        sparse.map(|(size, _)| size),
    );
    let mut out = Vec::with_capacity(4 * BLOCK);
    if !records.is_empty() {
        let pax = Fields {
            name: b"./PaxHeaders/entry",
            link: b"",
            flag: b'x',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            mtime: Time(0, 0),
            device: None,
        };
        pax.append(&mut out);
        out.extend_from_slice(&records);
        pad(&mut out);
    }
    let shown: &[u8] = if sparse.is_some() {
        b"./GNUSparseFile.0/entry"
    } else {
        &name
    };
    Fields {
        name: shown,
        link: link.as_deref().unwrap_or_default(),
        flag,
        mode: entry.attributes.mode,
        uid: u64::from(entry.attributes.uid),
        gid: u64::from(entry.attributes.gid),
        size: stored,
        mtime: entry.attributes.mtime,
        device,
    }
    .append(&mut out);
    if let Some((size, runs)) = sparse {
        out.extend_from_slice(&sparse_map(runs, size));
    }
    out
}

/// The map that stands before the data of a file with holes (GNU's format 1.0), padded to a block.
pub(super) fn sparse_map(runs: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends_in_data = runs.last().is_some_and(|(start, len)| start + len == size);
    let count = runs.len() + usize::from(!ends_in_data);
    let mut map = format!("{count}\n").into_bytes();
    for (start, len) in runs {
        map.extend_from_slice(format!("{start}\n{len}\n").as_bytes());
    }
    if !ends_in_data {
        map.extend_from_slice(format!("{size}\n0\n").as_bytes());
    }
    pad(&mut map);
    map
}

fn member_name(path: &[u8], folder: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(path);
    if folder && !path.is_empty() {
        name.push(b'/');
    }
    name
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Whether a fixed field can hold this name as it is.
fn fits(name: &[u8]) -> bool {
    name.len() <= NAME_LEN && name.iter().all(u8::is_ascii)
}

fn records(
    entry: &Entry,
    name: &[u8],
    link: Option<&[u8]>,
    stored: u64,
    sparse_size: Option<u64>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let attributes = &entry.attributes;
    let mut number = |key: &str, value: u64, most: u64| {
        if value > most {
            record(&mut out, key.as_bytes(), value.to_string().as_bytes());
        }
    };
    number("size", stored, OCTAL_11);
    number("uid", u64::from(attributes.uid), OCTAL_7);
    number("gid", u64::from(attributes.gid), OCTAL_7);
    if sparse_size.is_none() && !fits(name) {
        record(&mut out, b"path", name);
    }
    if let Some(link) = link.filter(|link| !fits(link)) {
        record(&mut out, b"linkpath", link);
    }
    let Time(seconds, nanoseconds) = attributes.mtime;
    if nanoseconds != 0 || u64::try_from(seconds).map_or(true, |s| s > OCTAL_11) {
        record(&mut out, b"mtime", decimal(attributes.mtime).as_bytes());
    }
    for xattr in &attributes.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in &xattr.name {
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                other => key.push(*other),
            }
        }
        record(&mut out, &key, &xattr.value);
    }
    if let Some(size) = sparse_size {
        record(&mut out, b"GNU.sparse.major", b"1");
        record(&mut out, b"GNU.sparse.minor", b"0");
        record(&mut out, b"GNU.sparse.name", name);
        record(
            &mut out,
            b"GNU.sparse.realsize",
            size.to_string().as_bytes(),
        );
    }
    out
}

/// One PAX record: its length in decimal (which counts itself), key and value.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A time as a decimal number: before 1970 the fraction counts towards zero, as the value does.
fn decimal(Time(seconds, nanoseconds): Time) -> String {
    match (seconds, nanoseconds) {
        (s, 0) => s.to_string(),
        (s, n) if s >= 0 => format!("{s}.{n:09}"),
        (s, n) => format!("-{}.{:09}", -(s + 1), 1_000_000_000 - n),
    }
}

struct Fields<'a> {
    name: &'a [u8],
    link: &'a [u8],
    flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: Time,
    device: Option<(u32, u32)>,
}

impl Fields<'_> {
    fn append(&self, out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        put_name(&mut block[..NAME_LEN], self.name);
        put_octal(&mut block[100..108], u64::from(self.mode));
        put_octal(&mut block[108..116], within(self.uid, OCTAL_7));
        put_octal(&mut block[116..124], within(self.gid, OCTAL_7));
        put_octal(&mut block[124..136], within(self.size, OCTAL_11));
        let seconds = u64::try_from(self.mtime.0).unwrap_or(0);
        put_octal(&mut block[136..148], within(seconds, OCTAL_11));
        block[148..156].fill(b' ');
        block[156] = self.flag;
        put_name(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        let (major, minor) = self.device.unwrap_or((0, 0));
        put_octal(&mut block[329..337], u64::from(major));
        put_octal(&mut block[337..345], u64::from(minor));
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
    }
}

/// The value, or 0 where a record says it instead.
fn within(value: u64, most: u64) -> u64 {
    if value <= most { value } else { 0 }
}

/// A name as far as the field goes; readers that know PAX never look at what does not fit.
fn put_name(field: &mut [u8], name: &[u8]) {
    for (to, byte) in field.iter_mut().zip(name) {
        *to = if byte.is_ascii() { *byte } else { b'_' };
    }
}

/// Octal digits and a NUL, as wide as the field.
fn put_octal(field: &mut [u8], mut value: u64) {
    let last = field.len() - 1;
    for to in field[..last].iter_mut().rev() {
        *to = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Attributes, Xattr};
    use super::super::hash::Sha256Hash;
    use super::*;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            attributes: Attributes {
                mode: 0o4755,
                uid: 3_000_000,
                gid: 12,
                mtime: Time(-2, 500_000_000),
                xattrs: vec![Xattr {
                    name: b"user.a=b%c".to_vec(),
                    value: vec![0, 10, 255],
                }],
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

    #[test]
    fn records_count_their_own_length() {
        for (value, expect) in [(0, "5 k=\n"), (1, "6 k=x\n")] {
            let mut out = Vec::new();
            record(&mut out, b"k", "x".repeat(value).as_bytes());
            assert_eq!(out, expect.as_bytes());
        }
        // Here one digit more makes the length one digit longer.
        for value in 85..110 {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; value]);
            let text = String::from_utf8(out.clone()).expect("text");
            let len: usize = text
                .split(' ')
                .next()
                .expect("a length")
                .parse()
                .expect("a number");
            assert_eq!(len, out.len());
        }
    }

    #[test]
    fn times_are_decimal_numbers() {
        for (time, expect) in [
            (Time(1, 0), "1"),
            (Time(1, 5), "1.000000005"),
            (Time(-1, 0), "-1"),
            (Time(-1, 500_000_000), "-0.500000000"),
            (Time(-2, 250_000_000), "-1.750000000"),
        ] {
            assert_eq!(decimal(time), expect);
        }
    }

    #[test]
    fn a_map_of_holes_ends_where_the_file_ends() {
        let text = |map: Vec<u8>| {
            String::from_utf8(map)
                .expect("text")
                .trim_end_matches('\0')
                .to_owned()
        };
        assert_eq!(text(sparse_map(&[(0, 5)], 9)), "2\n0\n5\n9\n0\n");
        assert_eq!(text(sparse_map(&[(4, 5)], 9)), "1\n4\n5\n");
        assert_eq!(text(sparse_map(&[], 9)), "1\n9\n0\n");
        assert_eq!(sparse_map(&[], 9).len(), BLOCK);
    }

    /// Snapshots of schema 1 are verified by these bytes: if this test fails, old snapshots can no longer be restored.
    #[test]
    fn headers_of_schema_1_never_change() {
        let link = |to: &[u8]| Kind::Hardlink { to: to.to_vec() };
        let symlink = Kind::Symlink {
            target: vec![b'/'; 101],
        };
        let kinds: [(&[u8], Kind); 10] = [
            (b"", Kind::Dir),
            (b"folder", Kind::Dir),
            (b"plain", file(5, None)),
            (b"latin-\xe9", file(1 << 34, None)),
            (&[b'n'; 200], file(0, None)),
            (b"sparse", file(1 << 34, Some(vec![(4096, 4096)]))),
            (b"link", link(b"plain")),
            (b"symlink", symlink),
            (b"pipe", Kind::Fifo),
            (
                b"device",
                Kind::Block {
                    major: 7,
                    minor: 70_000,
                },
            ),
        ];
        let all: Vec<u8> = kinds
            .into_iter()
            .flat_map(|(path, kind)| header(&entry(path, kind)))
            .collect();
        assert_eq!(all.len() % BLOCK, 0);
        assert_eq!(
            Sha256Hash::of(&all).to_string(),
            "e39a31d32fb525e43c0b466688be64c9789f60a5da1f6d0bf86f989e928642ec"
        );
    }
}
