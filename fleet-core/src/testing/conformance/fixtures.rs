//! Boring values with one number to tell them apart.

use crate::ids::{
    ContainerId, ImageId, InstanceId, InstanceName, RolloutId, SnapshotId, TenantId, UpdateId,
};
use crate::image::{Digest, ImageRef};
use crate::model::{HealthSpec, Release, SnapshotChoice};
use crate::plan::rollout::RolloutState;
use crate::plan::strategy::{FailureBudget, StrategySpec, WaveGate};
use crate::plan::{
    Asked, Limits, PlannedInstance, PlannedWave, Request, RolloutKind, RolloutPlan, ScheduleSpec,
    Stickiness,
};
use crate::ports::{Availability, Deployed, JournalWrite, Lag, NewUpdate, Quarantined};
use crate::record::{EventKind, NewEvent};
use crate::time::Timestamp;
use crate::update::{Entry, MemberPlan, Phase, Step, UpdatePlan};

/// A second of the year 2026.
#[must_use]
pub fn at(second: u8) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + i64::from(second) * 1000)
}

/// An update's id.
#[must_use]
pub fn update_id(n: u8) -> UpdateId {
    UpdateId::new(at(n), [n; 10])
}

/// An instance on the local host.
///
/// # Panics
/// The name is not one of a container.
#[must_use]
pub fn instance(name: &str) -> InstanceId {
    InstanceId::local(InstanceName::new(name).expect("a container's name"))
}

/// A tenant.
///
/// # Panics
/// The name is not one of a tenant.
#[must_use]
pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant's name")
}

/// A digest.
#[must_use]
pub fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

/// A reference with a tag.
///
/// # Panics
/// Never: the reference is a fixed one.
#[must_use]
pub fn image() -> ImageRef {
    "registry.example/team/app:1".parse().expect("a reference")
}

/// A plan that updates these instances, on the local host, to one release.
///
/// # Panics
/// A name is not one of a container.
#[must_use]
pub fn plan(n: u8, names: &[&str]) -> UpdatePlan {
    UpdatePlan {
        saga: UpdatePlan::SAGA,
        id: update_id(n),
        actor: "tester".to_owned(),
        rollout: Some(RolloutId::new(at(n), [n; 10])),
        members: names.iter().map(|name| member(n, name)).collect(),
        keep_snapshots: 3,
        snapshot_max_age: None,
        shared_guard: None,
    }
}

fn member(n: u8, name: &str) -> MemberPlan {
    MemberPlan {
        instance: instance(name),
        tenant: tenant("acme"),
        container: ContainerId::new(format!("{n:064x}")).expect("64 digits"),
        target: Some(Release {
            image: image().pinned(digest(n)),
            platform_digest: digest(n),
            config_digest: None,
            local: None,
            pushed_at: Some(at(n)),
            size_bytes: 1 << 20,
            annotations: [("org.opencontainers.image.version".to_owned(), n.to_string())].into(),
        }),
        image: image().to_string(),
        health: HealthSpec::default(),
        stop_grace: Some(std::time::Duration::from_millis(1500)),
        snapshot: SnapshotChoice::All,
        snapshot_id: SnapshotId::new(at(n), [n; 10]),
        pre_hook: Some(vec!["/bin/flush".to_owned(), "--all".to_owned()]),
        post_hook: None,
        before: None,
        discard_writable_layer: false,
    }
}

/// A new update of these instances.
///
/// # Panics
/// A name is not one of a container.
#[must_use]
pub fn new_update(n: u8, names: &[&str]) -> NewUpdate {
    NewUpdate {
        plan: plan(n, names),
        at: at(n),
        boot_id: "11111111-2222-3333-4444-555555555555".to_owned(),
    }
}

/// A row that says that a step began.
#[must_use]
pub fn started(n: u8, step: Step) -> Entry {
    Entry {
        at: at(n),
        member: 0,
        phase: Phase::Started {
            step,
            input: serde_json::json!({ "n": n }),
        },
    }
}

/// A write of these rows onto a journal that has `expected_rows`.
#[must_use]
pub fn rows(expected_rows: u32, entries: Vec<Entry>) -> JournalWrite {
    JournalWrite {
        entries,
        expected_rows,
        ..JournalWrite::default()
    }
}

/// An event without relations.
#[must_use]
pub fn event(n: u8) -> NewEvent {
    NewEvent {
        data: serde_json::json!({ "n": n }),
        ..NewEvent::new(at(n), EventKind::UpdateStep, "fleet")
    }
}

/// A quarantined digest.
#[must_use]
pub fn quarantined(n: u8, name: &str) -> Quarantined {
    Quarantined {
        instance: instance(name),
        digest: digest(n),
        reason: format!("reason {n}"),
        at: at(n),
    }
}

/// A deployed digest.
///
/// # Panics
/// The name is not one of a container.
#[must_use]
pub fn deployed(n: u8, name: &str) -> Deployed {
    Deployed {
        instance: instance(name),
        image: image(),
        digest: digest(n),
        image_id: ImageId::new(format!("sha256:{n:064x}")).expect("64 digits"),
        at: at(n),
    }
}

/// A finding: this digest (none: the registry could not say), first and last seen at second `n`, and behind since.
#[must_use]
pub fn available(n: u8, name: &str, digest: Option<Digest>) -> Availability {
    Availability {
        instance: instance(name),
        image: image(),
        lag: Some(Lag {
            runs: ImageId::new(format!("sha256:{n:064x}")).expect("64 digits"),
            since: at(n),
            told: n.is_multiple_of(2),
        }),
        behind: digest.as_ref().map(|_| true),
        note: digest.is_none().then(|| "registry away".to_owned()),
        digest,
        first_seen: at(n),
        checked_at: at(n),
    }
}

/// A rollout's id.
#[must_use]
pub fn rollout_id(n: u8) -> RolloutId {
    RolloutId::new(at(n), [n; 10])
}

/// A rollout over so many instances, in two waves, and its first state.
///
/// # Panics
/// Never: the names are fixed ones.
#[must_use]
pub fn rollout(n: u8, total: u32) -> (RolloutPlan, RolloutState) {
    let member = |place: u32| PlannedInstance {
        instance: instance(&format!("i{place}")),
        tenant: 0,
        from: place.is_multiple_of(2).then_some(0),
        to: 1,
        schedule: 0,
        channel: 0,
        estimate_secs: 60,
        health_timeout_ms: 120_000,
        cohort: 0,
        priority: -1,
        failed_before: false,
        unhealthy_before: place == 1,
        own: false,
        reference: None,
        with: Vec::new(),
    };
    let plan = RolloutPlan {
        schema: RolloutPlan::SCHEMA,
        kind: RolloutKind::Forward,
        request: Request {
            id: rollout_id(n),
            parent: None,
            attempt: 1,
            actor: "ann".to_owned(),
            asked: Asked::ByOperator {
                tenants: vec![tenant("acme")],
            },
            target: image().pinned(digest(n)),
            released_at: Some(at(n)),
            strategy: StrategySpec::default(),
            limits: Limits::default(),
            override_window: false,
            retry_quarantined: false,
            needs_approval: false,
        },
        planned_at: at(n),
        budget: FailureBudget::new(None, total),
        stickiness: Stickiness::default(),
        tenants: vec![tenant("acme")],
        digests: vec![digest(0), digest(n)],
        schedules: vec![ScheduleSpec::Windows {
            windows: vec!["Sun 02:00-05:00".to_owned()],
        }],
        channels: Vec::new(),
        references: Vec::new(),
        members: (0..total).map(member).collect(),
        waves: vec![
            PlannedWave {
                end: 1,
                gate: WaveGate::Open,
            },
            PlannedWave {
                end: total,
                gate: WaveGate::Pause {
                    duration: std::time::Duration::from_secs(300),
                },
            },
        ],
        held: Vec::new(),
    };
    let state = RolloutState::new(&plan);
    (plan, state)
}
