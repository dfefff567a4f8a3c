//! The protocol between fleet and its helper: frames over a pair of pipes.
//!
//! A frame is a tag of one byte, a length (4 bytes, little endian) and so many bytes. A [`Tag::File`] frame names a file,
//! [`Tag::Data`] frames are its content, [`Tag::End`] closes it with its length and hash. A [`Tag::Request`] is
//! answered by files, then a [`Tag::Done`] or a [`Tag::Failed`].

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of content in a frame.
pub(crate) const DATA: usize = 256 << 10;
/// Largest frame that is read: a request with a frozen spec, or an answer, is far smaller.
const LARGEST: u32 = 16 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// A file begins.
    File,
    /// Some of its content.
    Data,
    /// The file ends.
    End,
    /// Something is asked.
    Request,
    /// It was done.
    Done,
    /// It was not done.
    Failed,
}

impl Tag {
    const ALL: [Self; 6] = [
        Self::File,
        Self::Data,
        Self::End,
        Self::Request,
        Self::Done,
        Self::Failed,
    ];

    fn byte(self) -> u8 {
        match self {
            Self::File => b'F',
            Self::Data => b'D',
            Self::End => b'E',
            Self::Request => b'Q',
            Self::Done => b'R',
            Self::Failed => b'X',
        }
    }
}

/// Writes a frame.
pub(crate) fn write(to: &mut dyn Write, tag: Tag, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(|_| invalid("a frame of less than 4 GiB"))?;
    let mut head = [tag.byte(), 0, 0, 0, 0];
    head[1..].copy_from_slice(&len.to_le_bytes());
    to.write_all(&head)?;
    to.write_all(content)?;
    if tag != Tag::Data {
        to.flush()?;
    }
    Ok(())
}

/// Writes a frame that holds JSON.
pub(crate) fn write_json<T: Serialize>(to: &mut dyn Write, tag: Tag, value: &T) -> io::Result<()> {
    write(to, tag, &serde_json::to_vec(value)?)
}

/// Reads a frame; none where the other side closed between two frames.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Option<(Tag, Vec<u8>)>> {
    let mut head = [0; 5];
    if from.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    let tag = Tag::ALL.into_iter().find(|tag| tag.byte() == head[0]);
    let tag = tag.ok_or_else(|| invalid("the tag of a frame"))?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if len > LARGEST {
        return Err(invalid("a frame of at most 16 MiB"));
    }
    let mut content = Vec::new();
    from.take(u64::from(len)).read_to_end(&mut content)?;
    if content.len() as u64 != u64::from(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((tag, content)))
}

/// What a frame holds as JSON.
pub(crate) fn parse<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(content)?)
}

/// Something else than the protocol has here.
pub(crate) fn invalid(expected: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("expected {expected}, found something else"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_read_back() {
        let mut pipe = Vec::new();
        write(&mut pipe, Tag::Data, b"content").unwrap();
        write_json(&mut pipe, Tag::Done, &[1, 2]).unwrap();
        let mut from = pipe.as_slice();
        assert_eq!(
            read(&mut from).unwrap(),
            Some((Tag::Data, b"content".to_vec()))
        );
        let (tag, json) = read(&mut from).unwrap().unwrap();
        assert_eq!(
            (tag, parse::<Vec<u8>>(&json).unwrap()),
            (Tag::Done, vec![1, 2])
        );
        assert_eq!(read(&mut from).unwrap(), None);
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let mut pipe = Vec::new();
        write(&mut pipe, Tag::Data, b"content").unwrap();
        for len in 1..pipe.len() {
            assert!(read(&mut &pipe[..len]).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut from = bytes.as_slice();
            while let Ok(Some(_)) = read(&mut from) {}
        }
    }
}
