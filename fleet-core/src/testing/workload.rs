//! What the program inside a fake container does.

use std::collections::BTreeMap;
use std::time::Duration;

/// Files of a volume or of a folder of an image: path to content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// File into which a running workload appends one row of eight bytes whenever the engine is asked something.
pub const ROWS: &str = "rows";
/// File into which a workload writes its version when it starts.
pub const SCHEMA: &str = "schema";

/// The program of an image: how it starts, answers, writes and ends.
///
/// It writes to every writable volume: at its start its version into [`SCHEMA`], then rows into [`ROWS`]. Each row is
/// acknowledged outside the volume, see [`super::FakeHost::acknowledged`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it calls itself.
    pub version: String,
    /// What its start leads to.
    pub boot: Boot,
    /// When it answers probes well.
    pub health: Wellness,
    /// It ends by itself after this long, with this exit code.
    pub exits_after: Option<(Duration, i64)>,
    /// What it does on its stop signal.
    pub stop: StopManner,
    /// What it does to the data of the version before.
    pub migration: Migration,
    /// The image has a HEALTHCHECK.
    pub healthcheck: bool,
    /// Exit code of commands run inside it.
    pub exec_exit: i64,
}

/// What a start leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It runs.
    Runs,
    /// It writes, then exits with this code at once.
    Exits(i64),
    /// The engine cannot execute it.
    NoSuchBinary,
}

/// When a workload is well, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wellness {
    /// From then on.
    After(Duration),
    /// Until then, then sick.
    Until(Duration),
    /// Never; it answers with an error.
    Never,
    /// It takes connections and says nothing.
    Hangs,
}

/// What a workload does on its stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopManner {
    /// Ends with exit code 0 after this long.
    Obeys(Duration),
    /// Goes on until it is killed.
    Ignores,
    /// Cannot even be killed (stuck in the kernel).
    Unkillable,
}

/// What a new version does to data at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// Nothing but writing its version.
    Compatible,
    /// Turns every row around, so that the version before cannot read them.
    Rewrites,
    /// Deletes the rows.
    Destroys,
}

impl Workload {
    /// A program that starts, is well at once, writes, and obeys its stop signal in 100 ms.
    #[must_use]
    pub fn healthy(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            boot: Boot::Runs,
            health: Wellness::After(Duration::ZERO),
            exits_after: None,
            stop: StopManner::Obeys(Duration::from_millis(100)),
            migration: Migration::Compatible,
            healthcheck: false,
            exec_exit: 0,
        }
    }

    /// The same, never well.
    #[must_use]
    pub fn unhealthy(version: &str) -> Self {
        Self {
            health: Wellness::Never,
            ..Self::healthy(version)
        }
    }

    /// A program that destroys the data of the version before and is never well.
    #[must_use]
    pub fn destroyer(version: &str) -> Self {
        Self {
            migration: Migration::Destroys,
            ..Self::unhealthy(version)
        }
    }

    /// A program that exits with code 1 at its start.
    #[must_use]
    pub fn crasher(version: &str) -> Self {
        Self {
            boot: Boot::Exits(1),
            ..Self::healthy(version)
        }
    }

    /// Whether a probe passes so long after the start.
    #[must_use]
    pub fn is_well(&self, up_for: Duration) -> bool {
        match self.health {
            Wellness::After(from) => up_for >= from,
            Wellness::Until(end) => up_for < end,
            Wellness::Never | Wellness::Hangs => false,
        }
    }

    /// Writes what it writes at its start.
    pub(super) fn migrate(&self, files: &mut Files) {
        match self.migration {
            Migration::Compatible => {}
            Migration::Rewrites => {
                if let Some(rows) = files.get_mut(ROWS) {
                    rows.reverse();
                }
            }
            Migration::Destroys => {
                files.remove(ROWS);
            }
        }
        files.insert(SCHEMA.to_owned(), self.version.clone().into_bytes());
    }
}
