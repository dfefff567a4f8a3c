//! The journal: what is written is read back as it was, with what was written beside it.

use super::fixtures::{
    at, deployed, digest, event, instance, new_update, plan, quarantined, rows, started, update_id,
};
use crate::ports::{EventFilter, EventStore, Journal, JournalWrite};
use crate::update::{Cause, Entry, Fault, Outcome, Phase, Step};

pub(super) async fn all<S: Journal + EventStore>(fresh: impl AsyncFn() -> S) {
    plans_read_back_as_written(&fresh().await).await;
    rows_read_back_in_order(&fresh().await).await;
    every_step_reads_back(&fresh().await).await;
    events_come_with_their_rows(&fresh().await).await;
    quarantine_is_kept_replaced_and_lifted(&fresh().await).await;
    deployed_is_the_last_per_instance(&fresh().await).await;
}

async fn plans_read_back_as_written(store: &impl Journal) {
    let update = new_update(1, &["a", "b"]);
    store.open(&update, vec![]).await.unwrap();
    let kept = store.load(&update_id(1)).await.unwrap().unwrap();
    assert_eq!(kept.plan, plan(1, &["a", "b"]));
    assert_eq!((kept.created_at, kept.boot_id), (update.at, update.boot_id));
    assert_eq!((kept.entries, kept.outcome), (vec![], None));
    assert!(!kept.closed && !kept.volumes_dirty);
}

fn entry(member: usize, phase: Phase) -> Entry {
    Entry {
        // Nanoseconds survive.
        at: at(3).saturating_add(std::time::Duration::from_nanos(1)),
        member,
        phase,
    }
}

async fn rows_read_back_in_order(store: &impl Journal) {
    let id = update_id(1);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let cause = Cause::new(Fault::Release, "exited with 1 \u{2014} \"bad\"\n");
    let first = vec![
        started(9, Step::Admit),
        entry(
            0,
            Phase::Done {
                step: Step::Admit,
                output: serde_json::Value::Null,
            },
        ),
        started(1, Step::Freeze),
    ];
    let second = vec![
        entry(
            2,
            Phase::Failed {
                step: Step::Gate,
                cause: cause.clone(),
                output: serde_json::json!({ "exit_code": 1 }),
            },
        ),
        entry(
            0,
            Phase::Recovered {
                forward: false,
                reason: "killed in stop".to_owned(),
                cause: Some(cause),
            },
        ),
        entry(
            0,
            Phase::Recovered {
                forward: true,
                reason: "committed".to_owned(),
                cause: None,
            },
        ),
        entry(
            0,
            Phase::Ended {
                outcome: Outcome::Diverged,
                reason: String::new(),
            },
        ),
        entry(
            0,
            Phase::Resolved {
                keep_new: true,
                actor: "ann".to_owned(),
            },
        ),
    ];
    store.append(&id, rows(0, first.clone())).await.unwrap();
    store.append(&id, rows(3, second.clone())).await.unwrap();
    let kept = store.load(&id).await.unwrap().unwrap();
    assert_eq!(kept.entries, [first, second].concat());
    assert_eq!(
        store.load_open().await.unwrap(),
        std::slice::from_ref(&kept)
    );
    assert_eq!(store.history(&instance("a"), 1).await.unwrap(), [kept]);
}

async fn every_step_reads_back(store: &impl Journal) {
    let id = update_id(1);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let all: Vec<Entry> = Step::ALL
        .iter()
        .map(|&step| {
            let output = serde_json::json!({ "text": "line\nline", "list": [1, null, {}] });
            entry(1, Phase::Done { step, output })
        })
        .collect();
    store.append(&id, rows(0, all.clone())).await.unwrap();
    assert_eq!(store.load(&id).await.unwrap().unwrap().entries, all);
}

async fn events_come_with_their_rows<S: Journal + EventStore>(store: &S) {
    let id = update_id(1);
    store
        .open(&new_update(1, &["a"]), vec![event(1), event(2)])
        .await
        .unwrap();
    let write = JournalWrite {
        events: vec![event(3)],
        ..rows(0, vec![started(1, Step::Admit)])
    };
    store.append(&id, write).await.unwrap();
    store.record(vec![event(4)]).await.unwrap();
    let page = store.page(0, 9, &EventFilter::default()).await.unwrap();
    assert!(page.is_sorted_by(|a, b| a.sequence < b.sequence));
    let kept: Vec<_> = page.into_iter().map(|event| event.event).collect();
    assert_eq!(kept, [1, 2, 3, 4].map(event));
}

async fn quarantine_is_kept_replaced_and_lifted(store: &impl Journal) {
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let write = JournalWrite {
        quarantine: vec![
            quarantined(2, "a"),
            quarantined(1, "a"),
            quarantined(3, "b"),
        ],
        ..JournalWrite::default()
    };
    store.append(&update_id(1), write).await.unwrap();
    let of_a = store.quarantined(&instance("a")).await.unwrap();
    assert_eq!(of_a, [quarantined(1, "a"), quarantined(2, "a")]);

    let mut again = quarantined(1, "a");
    again.reason = "failed again".to_owned();
    again.at = at(9);
    let write = JournalWrite {
        quarantine: vec![again.clone()],
        ..JournalWrite::default()
    };
    store.append(&update_id(1), write).await.unwrap();
    let of_a = store.quarantined(&instance("a")).await.unwrap();
    assert_eq!(of_a, [quarantined(2, "a"), again.clone()]);

    for _ in 0..2 {
        // Lifting what is not there is fine.
        store
            .lift_quarantine(&instance("a"), &digest(2))
            .await
            .unwrap();
    }
    assert_eq!(store.quarantined(&instance("a")).await.unwrap(), [again]);
    assert_eq!(store.quarantined(&instance("b")).await.unwrap().len(), 1);
}

async fn deployed_is_the_last_per_instance(store: &impl Journal) {
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    for rows in [
        vec![deployed(1, "b"), deployed(2, "a")],
        vec![deployed(3, "b")],
    ] {
        let write = JournalWrite {
            deployed: rows,
            ..JournalWrite::default()
        };
        store.append(&update_id(1), write).await.unwrap();
    }
    let now = store.deployed().await.unwrap();
    assert_eq!(now, [deployed(2, "a"), deployed(3, "b")]);
}
