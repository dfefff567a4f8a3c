//! Every schema that was ever released still opens, and keeps what is in it.
//!
//! `FLEET_GOLDEN=write cargo test -p fleet-sqlite golden` writes the file of the newest schema anew. Do that when the
//! schema gets a new version, and never again for a version that was released.

use std::fs;
use std::path::{Path, PathBuf};

use fleet_core::model::{FleetSettings, GlobalMode, TenantMode, UpdateConfig};
use fleet_core::ports::{
    AvailabilityStore, EventFilter, EventStore, Journal, JournalWrite, RolloutStore, SettingsStore,
    StoredRollout, UpdateConfigRepository,
};
use fleet_core::testing::conformance::fixtures::{
    at, available, deployed, digest, event, instance, new_update, quarantined, rollout, rows,
    started, tenant, update_id,
};
use fleet_core::update::{Cause, Entry, Fault, Outcome, Phase, Step};
use fleet_sqlite::{OpenOptions, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn version(path: &Path) -> u32 {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}

fn entries() -> Vec<Entry> {
    let entry = |phase| Entry {
        at: at(2),
        member: 1,
        phase,
    };
    let cause = Cause::new(Fault::Release, "exited with 1");
    vec![
        started(1, Step::Stop),
        entry(Phase::Done {
            step: Step::Stop,
            output: serde_json::json!({ "exit_code": 0 }),
        }),
        entry(Phase::Failed {
            step: Step::Gate,
            cause: cause.clone(),
            output: serde_json::json!({ "log": "boom" }),
        }),
        entry(Phase::Recovered {
            forward: false,
            reason: "killed".to_owned(),
            cause: Some(cause),
        }),
        entry(Phase::Resolved {
            keep_new: false,
            actor: "ann".to_owned(),
        }),
        entry(Phase::Ended {
            outcome: Outcome::RolledBack,
            reason: "unhealthy".to_owned(),
        }),
    ]
}

fn config() -> UpdateConfig {
    UpdateConfig {
        mode: TenantMode::Auto,
        preferred_hour_utc: 4,
        windows: vec!["Sun 02:00-05:00".to_owned()],
    }
}

fn settings() -> FleetSettings {
    FleetSettings {
        mode: GlobalMode::Manual,
        pause: None,
        values: [("default.strategy".to_owned(), "rolling".to_owned())].into(),
    }
}

/// One of everything that the newest schema can hold.
async fn fill(store: &SqliteStore) {
    fill_schema_1(store).await;
    let (plan, state) = rollout(1, 3);
    store.create(&plan, &state, vec![]).await.unwrap();
}

async fn fill_schema_1(store: &SqliteStore) {
    store
        .open(&new_update(1, &["a", "b"]), vec![event(1)])
        .await
        .unwrap();
    let write = JournalWrite {
        outcome: Some(Outcome::RolledBack),
        volumes_dirty: true,
        close: true,
        events: vec![event(2)],
        quarantine: vec![quarantined(1, "a")],
        deployed: vec![deployed(1, "b")],
        ..rows(0, entries())
    };
    store.append(&update_id(1), write).await.unwrap();
    store.open(&new_update(2, &["a"]), vec![]).await.unwrap();
    let write = rows(0, vec![started(3, Step::Freeze)]);
    store.append(&update_id(2), write).await.unwrap();
    store
        .upsert(&tenant("acme"), &config(), "ann", at(3))
        .await
        .unwrap();
    store.set_settings(&settings(), "ann", at(4)).await.unwrap();
    let found = available(5, "a", Some(digest(5)));
    store.found(vec![found]).await.unwrap();
}

/// What a store of this schema version held is there.
async fn check(store: &SqliteStore, version: u32) {
    check_schema_1(store, version).await;
    let rollouts = RolloutStore::list(store, 9).await.unwrap();
    if version < 2 {
        assert_eq!(rollouts, []);
    } else {
        let (plan, state) = rollout(1, 3);
        let generation = 1;
        let expected = StoredRollout {
            plan,
            state,
            generation,
        };
        let image = &expected.plan.request.target.image;
        let of_image = store.of_image(image, 9).await.unwrap();
        assert_eq!(of_image, rollouts);
        assert_eq!(rollouts, [expected]);
    }
}

async fn check_schema_1(store: &SqliteStore, version: u32) {
    let closed = Journal::load(store, &update_id(1)).await.unwrap().unwrap();
    assert_eq!(closed.plan, new_update(1, &["a", "b"]).plan);
    assert_eq!(closed.entries, entries());
    assert_eq!(closed.outcome, Some(Outcome::RolledBack));
    assert!(closed.closed && closed.volumes_dirty);
    let open = store.load_open().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].plan, new_update(2, &["a"]).plan);
    assert_eq!(open[0].entries, [started(3, Step::Freeze)]);
    let a = instance("a");
    assert_eq!(store.quarantined(&a).await.unwrap(), [quarantined(1, "a")]);
    assert_eq!(store.deployed().await.unwrap(), [deployed(1, "b")]);
    let events = store.page(0, 99, &EventFilter::default()).await.unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(events[1].event, event(2));
    assert_eq!(store.get(&tenant("acme")).await.unwrap(), Some(config()));
    assert_eq!(store.settings().await.unwrap(), settings());
    let mut available_then = available(5, "a", Some(digest(5)));
    if version < 4 {
        available_then.lag = None;
    }
    assert_eq!(store.available().await.unwrap(), [available_then]);
}

#[tokio::test]
async fn every_schema_opens_and_keeps_what_is_in_it() {
    let folder = TempDir::new().unwrap();
    let fresh = folder.path().join("fresh.db");
    let store = SqliteStore::open(&fresh, OpenOptions::default()).unwrap();
    fill(&store).await;
    let latest = version(&fresh);
    check(&store, latest).await;
    store.close().await.unwrap();
    if std::env::var("FLEET_GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(golden()).unwrap();
        fs::copy(&fresh, golden().join(format!("v{latest}.db"))).unwrap();
    }

    for old in 1..=latest {
        let kept = golden().join(format!("v{old}.db"));
        assert!(
            kept.exists(),
            "there is no file of schema {old}: see the head of this file"
        );
        let path = folder.path().join(format!("copy{old}.db"));
        fs::copy(&kept, &path).unwrap();
        assert_eq!(version(&path), old);
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        check(&store, old).await;
        assert_eq!(store.check().await.unwrap(), [""; 0]);
        store.close().await.unwrap();
        assert_eq!(version(&path), latest);

        let backup = folder.path().join(format!("copy{old}.db.v{old}.bak"));
        assert_eq!(backup.exists(), old < latest, "a backup for each migration");
        if old < latest {
            assert_eq!(version(&backup), old);
        }
    }
}
