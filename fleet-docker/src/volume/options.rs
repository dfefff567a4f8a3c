//! How the store works: limits and choices, each with its default.

use std::num::NonZeroUsize;
use std::time::Duration;

use fleet_core::ids::SnapshotId;

/// Most threads that compress, hash or decompress at once. More than this and the disk is what one waits for.
const WORKERS_MOST: usize = 8;

/// Settings of a [`super::LocalSnapshotStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Level of zstd. 1 by default: on the volumes measured, higher ones cost more time than the bytes they save.
    pub level: i32,
    /// Threads that compress. By default as many as there are cores, at most 8.
    pub workers: usize,
    /// Bytes that stay free where snapshots lie, so that the journal can always finish. 256 MiB by default.
    pub reserve_bytes: u64,
    /// Limit of volume bytes read or written per second; none by default.
    pub bytes_per_second: Option<u64>,
    /// Whether there is a first pass while the writer still runs.
    pub pre_copy: PreCopy,
}

/// Whether there is a first pass before the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PreCopy {
    /// For volumes of at least [`PreCopy::WORTH_BYTES`] or [`PreCopy::WORTH_ENTRIES`], where the file system allows
    /// it.
    #[default]
    Auto,
    /// Wherever the file system allows it.
    Always,
    /// Never.
    Never,
}

impl PreCopy {
    /// A volume smaller than this is copied in about a tenth of a second: less than a stop and a start take.
    pub const WORTH_BYTES: u64 = 64 << 20;
    /// The same in names, which cost about 25 microseconds each.
    pub const WORTH_ENTRIES: u64 = 4_000;
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            level: 1,
            workers: cores.min(WORKERS_MOST),
            reserve_bytes: 256 << 20,
            bytes_per_second: None,
            pre_copy: PreCopy::Auto,
        }
    }
}

/// Which snapshots [`super::LocalSnapshotStore::prune`] removes. The newest whole one of each instance always stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// Removes all but this many of the newest of each instance.
    pub keep: Option<usize>,
    /// Removes what is older.
    pub max_age: Option<Duration>,
    /// Never removed: what open updates may still need.
    pub protected: Vec<SnapshotId>,
}
