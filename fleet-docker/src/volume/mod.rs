//! Snapshots of volumes: exact, verified, restorable by hand.
//!
//! [`LocalSnapshotStore`] reads and writes the volumes' mountpoints directly. A snapshot is a folder with plain
//! `tar` archives, compressed with zstd, and a list of every entry with its metadata and hash; `docs/snapshots.md`
//! describes the format and the restore by hand.
//!
//! # What holds
//! - What is visible is complete: every byte was synced, read back and compared before the folder got its name.
//! - What cannot be read, vanishes or changes under a cold pass fails the snapshot. Nothing is skipped.
//! - A restore reads and verifies the whole snapshot before it touches a volume, makes only what the list has, below
//!   descriptors that no symlink can lead astray, and compares the result with the list.
//! - Memory is bounded whatever the volume holds, but for names in one folder and names of multiply linked files.
//!
//! # What it never does
//! It follows no symlink of a volume, opens no pipe and no device, and takes no path from a snapshot: names of files
//! are made from validated ids.

mod capture;
mod check;
mod compare;
mod control;
mod entry;
mod error;
pub(crate) mod exchange;
mod files;
mod first_pass;
mod flush;
mod folders;
mod ground;
mod hash;
mod hold;
mod inode;
mod list;
mod manifest;
mod measure;
mod members;
mod mounted;
mod options;
mod passes;
mod plain;
mod removed;
mod restore;
mod shape;
mod shelf;
mod store;
mod stream_in;
mod stream_out;
mod tar;
mod walk;
mod work;

pub use error::VolumeError;
pub use files::{Files, OsFiles, StoreFile};
pub use options::{PreCopy, Retention, SnapshotOptions};
pub use store::LocalSnapshotStore;
