//! Verifies a snapshot whole: hashes of all files, and every member of every archive against the list.

use std::collections::HashSet;
use std::path::Path;

use super::control::Control;
use super::entry::{ArchiveKind, Kind};
use super::error::VolumeError;
use super::list::{ListReader, Totals};
use super::manifest::{FileRecord, Stored, VolumeRecord};
use super::members::MemberReader;
use super::plain::sum_of;
use super::shape::Shape;
use super::stream_in::StreamIn;

/// Reads everything and compares.
pub(super) fn check(stored: &Stored, workers: usize, control: &Control) -> Result<(), VolumeError> {
    if let Some(spec) = &stored.manifest.spec {
        check_plain(stored, spec)?;
    }
    for volume in &stored.manifest.volumes {
        for record in [&volume.removed, &volume.removed_xattrs]
            .into_iter()
            .flatten()
        {
            check_plain(stored, record)?;
        }
        check_list(stored, volume)?;
        check_archive(
            stored,
            volume,
            ArchiveKind::Base,
            &volume.base,
            workers,
            control,
        )?;
        if let Some(delta) = &volume.delta {
            check_archive(stored, volume, ArchiveKind::Delta, delta, workers, control)?;
        }
    }
    Ok(())
}

/// A file that is not compressed, whatever its length.
fn check_plain(stored: &Stored, record: &FileRecord) -> Result<(), VolumeError> {
    record.check(&sum_of(&stored.path(record))?)
}

/// One archive and the list that says what must be in it.
fn check_archive(
    stored: &Stored,
    volume: &VolumeRecord,
    kind: ArchiveKind,
    record: &FileRecord,
    workers: usize,
    control: &Control,
) -> Result<(), VolumeError> {
    let mut list = ListReader::open(&stored.path(&volume.list))?;
    let mut members = MemberReader::new(StreamIn::open(&stored.path(record), workers)?);
    while let Some(entry) = list.pop()? {
        if entry.archive == Some(kind) {
            members.read(&entry, &mut |bytes| control.moved(bytes.len()))?;
        }
    }
    volume.list.check(&list.finish()?)?;
    record.check(&members.finish()?)
}

/// The list by itself: its form, and its sums.
fn check_list(stored: &Stored, volume: &VolumeRecord) -> Result<(), VolumeError> {
    let path = stored.path(&volume.list);
    let mut list = ListReader::open(&path)?;
    let (mut totals, mut shape) = (Totals::default(), Shape::default());
    while let Some(entry) = list.pop()? {
        totals.add(&entry);
        let held = match entry.archive {
            Some(ArchiveKind::Base) => entry.kind != Kind::Socket,
            Some(ArchiveKind::Delta) => entry.kind != Kind::Socket && volume.delta.is_some(),
            None => entry.kind == Kind::Socket,
        };
        let form = if held {
            shape.add(&entry)
        } else {
            Err("an archive that may hold it")
        };
        form.map_err(|expected| {
            let found = String::from_utf8_lossy(&entry.path).into_owned();
            VolumeError::corrupt(&volume.list.file, expected, found)
        })?;
    }
    volume.list.check(&list.finish()?)?;
    let expected = (volume.entries, volume.bytes, volume.sockets);
    let found = (totals.entries, totals.bytes, totals.sockets);
    if expected != found {
        let show = |(entries, bytes, sockets)| {
            format!("{entries} entries, {bytes} bytes of content, {sockets} sockets")
        };
        return Err(VolumeError::corrupt(
            &volume.list.file,
            show(expected),
            show(found),
        ));
    }
    check_links(&path, &volume.list, shape.into_targets())
}

/// Every link must point to a name that is there and is no folder; a second look at the list, only where there are links.
fn check_links(
    path: &Path,
    record: &FileRecord,
    mut targets: HashSet<Vec<u8>>,
) -> Result<(), VolumeError> {
    if targets.is_empty() {
        return Ok(());
    }
    let mut list = ListReader::open(path)?;
    while let Some(entry) = list.pop_live()? {
        let is_first = !matches!(entry.kind, Kind::Dir | Kind::Socket | Kind::Hardlink { .. });
        if is_first {
            targets.remove(&entry.path);
        }
    }
    match targets.iter().next() {
        None => Ok(()),
        Some(target) => {
            let expected = format!("a file {}", String::from_utf8_lossy(target));
            Err(VolumeError::corrupt(&record.file, expected, "none"))
        }
    }
}
