//! Volumes of the driver `local` with a device (a bind, NFS, a loop): the engine mounts them only while a container uses
//! them. At any other time their folder is there, and is not the volume.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use fleet_core::model::VolumeSource;

use super::error::VolumeError;

const MOUNTS: &str = "/proc/self/mountinfo";
/// Which field of a line of it is the place, counted from 0.
const PLACE: usize = 4;

/// Fails, untouched, where a volume is not there because nothing uses it.
pub(super) fn require(volume: &VolumeSource, path: &Path) -> Result<(), VolumeError> {
    if !volume.is_mounted_on_use() {
        return Ok(());
    }
    let place = std::fs::canonicalize(path).map_err(VolumeError::io("find", path))?;
    let mounts = std::fs::read(MOUNTS).map_err(VolumeError::io("read", Path::new(MOUNTS)))?;
    if is_mount(&mounts, &place) {
        Ok(())
    } else {
        Err(VolumeError::NotMounted(volume.name.to_string()))
    }
}

fn is_mount(mounts: &[u8], place: &Path) -> bool {
    mounts.split(|byte| *byte == b'\n').any(|line| {
        let field = line.split(|byte| *byte == b' ').nth(PLACE);
        field.is_some_and(|field| unescaped(field).as_bytes() == place.as_os_str().as_bytes())
    })
}

/// The kernel writes blanks, line ends and backslashes of a path as `\` and three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_whatever_is_in_its_name() {
        let mounts =
            b"36 35 98:0 /mnt1 /mnt/with\\040blank rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:5 / /proc rw - proc proc rw\n";
        assert!(is_mount(mounts, Path::new("/mnt/with blank")));
        assert!(is_mount(mounts, Path::new("/proc")));
        assert!(!is_mount(mounts, Path::new("/mnt")));
        assert!(!is_mount(mounts, Path::new("/mnt1")));
    }
}
