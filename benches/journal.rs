//! How fast the journal takes rows, and whether a long history delays the start.
//!
//! Prints one number a line. Arguments: `--rows N` (default 1,000,000) and `--appends N` (default 2,000).

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use fleet_core::ports::{Journal, JournalWrite};
use fleet_core::testing::conformance::fixtures;
use fleet_core::update::Step;
use fleet_sqlite::{OpenOptions, SqliteStore};

type Result<T> = anyhow::Result<T>;

/// Rows of one update: a commit has about thirty.
const ROWS_PER_UPDATE: u32 = 30;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // Without `cargo bench` it only shows that it builds and runs.
    let short = !std::env::args().any(|arg| arg == "--bench");
    let rows = number("--rows")?.unwrap_or(if short { 3_000 } else { 1_000_000 });
    let appends = number("--appends")?.unwrap_or(if short { 20 } else { 2_000 });
    let folder = tempfile::tempdir()?;

    let (sync, append) = append_beside_raw_sync(folder.path(), appends).await?;
    println!("sync of 4 KiB, raw:          {:>9.1} us", micros(sync));
    println!("append of one row, durable:  {:>9.1} us", micros(append));
    println!(
        "appends a second:            {:>9.0}",
        1.0 / append.as_secs_f64()
    );
    println!(
        "append to raw sync:          {:>9.2} x",
        append.as_secs_f64() / sync.as_secs_f64()
    );

    let empty = folder.path().join("empty.db");
    SqliteStore::open(&empty, OpenOptions::default())?
        .close()
        .await?;
    let long = folder.path().join("long.db");
    let filled = Instant::now();
    fill(&long, rows).await?;
    let bytes = std::fs::metadata(&long)?.len();
    println!(
        "rows written for the start:  {rows:>9} ({} MB in {:.0} s)",
        bytes / 1_000_000,
        filled.elapsed().as_secs_f64()
    );
    let empty = start(&empty).await?;
    let begun = Instant::now();
    let store = SqliteStore::open(&long, OpenOptions::read_only())?;
    anyhow::ensure!(store.check().await?.is_empty(), "the file is damaged");
    store.close().await?;
    println!(
        "check of every page:         {:>9.1} ms",
        millis(begun.elapsed())
    );
    let long = start(&long).await?;
    println!("start with an empty journal: {:>9.1} ms", millis(empty));
    println!("start with those rows:       {:>9.1} ms", millis(long));
    println!(
        "more than empty:             {:>9.1} ms (must stay below 1000)",
        millis(long.saturating_sub(empty))
    );
    anyhow::ensure!(
        long < empty + Duration::from_secs(1),
        "a long history delays the start"
    );
    Ok(())
}

fn number(name: &str) -> Result<Option<u32>> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    let value = args.nth(1);
    Ok(value.map(|value| value.parse()).transpose()?)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The medians of a synced write without any database, which is the floor, and of an append of one row with one
/// event. They take turns, so that whatever else the disk does hits both.
async fn append_beside_raw_sync(folder: &Path, times: u32) -> Result<(Duration, Duration)> {
    let mut file = std::fs::File::create(folder.join("raw"))?;
    let page = [7_u8; 4096];
    let store = SqliteStore::open(folder.join("append.db"), OpenOptions::default())?;
    store.open(&fixtures::new_update(1, &["a"]), vec![]).await?;
    let (mut syncs, mut appends) = (Vec::new(), Vec::new());
    for row in 0..times {
        let begun = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        syncs.push(begun.elapsed());

        let write = JournalWrite {
            events: vec![fixtures::event(1)],
            ..fixtures::rows(row, vec![fixtures::started(1, Step::Gate)])
        };
        let begun = Instant::now();
        store.append(&fixtures::update_id(1), write).await?;
        appends.push(begun.elapsed());
    }
    store.close().await?;
    Ok((median(syncs), median(appends)))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Closed updates of thirty rows each, and one that is open, as a fleet that was killed leaves them.
async fn fill(path: &Path, rows: u32) -> Result<()> {
    let store = SqliteStore::open(path, OpenOptions::default())?;
    for (n, close) in [(1, true), (2, false)] {
        store.open(&fixtures::new_update(n, &["a"]), vec![]).await?;
        let entries = (0..ROWS_PER_UPDATE)
            .map(|_| fixtures::started(n, Step::Gate))
            .collect();
        let events = (0..ROWS_PER_UPDATE).map(|_| fixtures::event(n)).collect();
        let write = JournalWrite {
            close,
            events,
            ..fixtures::rows(0, entries)
        };
        store.append(&fixtures::update_id(n), write).await?;
    }
    store.close().await?;
    repeat(path, rows.div_ceil(ROWS_PER_UPDATE))?;
    Ok(())
}

/// Copies the first update, with its rows and events, as often as wanted, in one transaction.
fn repeat(path: &Path, updates: u32) -> rusqlite::Result<()> {
    let conn = rusqlite::Connection::open(path)?;
    conn.execute_batch(&format!(
        "BEGIN;
         CREATE TEMP TABLE copies AS
             WITH RECURSIVE n (copy) AS (SELECT 3 UNION ALL SELECT copy + 1 FROM n LIMIT {updates})
             SELECT copy FROM n;
         INSERT INTO updates
             SELECT copy, printf('upd_%032x', copy), created_at, boot_id, outcome, volumes_dirty, closed
             FROM copies JOIN updates ON seq = 1;
         INSERT INTO update_plans SELECT copy, saga, plan FROM copies JOIN update_plans ON update_seq = 1;
         INSERT INTO update_members
             SELECT copy, member, host, name, live FROM copies JOIN update_members ON update_seq = 1;
         INSERT INTO update_steps
             SELECT copy, seq, at, member, phase, step, payload
             FROM copies JOIN update_steps ON update_seq = 1;
         INSERT INTO events (at, kind, actor, data)
             SELECT at, kind, actor, data FROM copies JOIN events ON seq <= {ROWS_PER_UPDATE};
         COMMIT;"
    ))
}

/// The best of five: from the call to the open updates in memory.
async fn start(path: &Path) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let store = SqliteStore::open(path, OpenOptions::default())?;
        store.load_open().await?;
        best = best.min(begun.elapsed());
        store.close().await?;
    }
    Ok(best)
}
