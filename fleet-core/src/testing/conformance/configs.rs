//! Tenants' configs and the fleet's settings.

use super::fixtures::{at, tenant};
use crate::model::{FleetSettings, GlobalMode, Pause, TenantMode, UpdateConfig};
use crate::ports::{EventFilter, EventStore, SettingsStore, UpdateConfigRepository};
use crate::record::{EventKind, NewEvent};

/// What every [`UpdateConfigRepository`] must do.
///
/// # Panics
/// It does not.
pub async fn configs<S: UpdateConfigRepository + EventStore>(fresh: impl AsyncFn() -> S) {
    configs_read_back_by_name(&fresh().await).await;
    a_changed_config_leaves_an_event(&fresh().await).await;
    an_hour_that_no_clock_shows_is_refused(&fresh().await).await;
}

/// What every [`SettingsStore`] must do.
///
/// # Panics
/// It does not.
pub async fn settings<S: SettingsStore + EventStore>(fresh: impl AsyncFn() -> S) {
    settings_are_replaced_whole(&fresh().await).await;
}

fn auto(hour: u8) -> UpdateConfig {
    UpdateConfig {
        mode: TenantMode::Auto,
        preferred_hour_utc: hour,
        windows: vec![
            "Mon-Fri 02:00-05:00 Europe/Berlin".to_owned(),
            "Sun 00:00-24:00".to_owned(),
        ],
    }
}

async fn last_event(store: &impl EventStore) -> NewEvent {
    let page = store.page(0, 1000, &EventFilter::default()).await.unwrap();
    page.into_iter().next_back().unwrap().event
}

async fn configs_read_back_by_name<S: UpdateConfigRepository>(store: &S) {
    assert_eq!(store.get(&tenant("acme")).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    let manual = UpdateConfig::default();
    for (name, config) in [
        ("zeta", &auto(23)),
        ("acme", &auto(0)),
        ("mid", &manual),
        ("acme", &auto(5)),
    ] {
        store
            .upsert(&tenant(name), config, "ann", at(1))
            .await
            .unwrap();
    }
    assert_eq!(store.get(&tenant("acme")).await.unwrap(), Some(auto(5)));
    assert_eq!(store.get(&tenant("mid")).await.unwrap(), Some(manual));
    let names = |list: Vec<crate::ports::TenantConfig>| -> Vec<String> {
        list.into_iter().map(|t| t.tenant.to_string()).collect()
    };
    let all = store.list().await.unwrap();
    assert_eq!(names(all), ["acme", "mid", "zeta"]);
    let automatic = store.list_auto_enabled().await.unwrap();
    assert!(automatic.iter().all(|t| t.config.mode == TenantMode::Auto));
    assert_eq!(names(automatic), ["acme", "zeta"]);
}

async fn a_changed_config_leaves_an_event<S: UpdateConfigRepository + EventStore>(store: &S) {
    for hour in [1, 2] {
        store
            .upsert(&tenant("acme"), &auto(hour), "ann", at(hour))
            .await
            .unwrap();
        let event = last_event(store).await;
        assert_eq!((event.at, event.actor.as_str()), (at(hour), "ann"));
        assert_eq!(event.kind, EventKind::ConfigChanged);
        assert_eq!(event.tenant, Some(tenant("acme")));
        assert_eq!(event.data["new"]["preferred_hour_utc"], hour);
        let old = &event.data["old"];
        match hour {
            1 => assert!(old.is_null(), "{old}"),
            _ => assert_eq!(old["preferred_hour_utc"], hour - 1),
        }
    }
}

async fn an_hour_that_no_clock_shows_is_refused<S: UpdateConfigRepository + EventStore>(store: &S) {
    let refused = store.upsert(&tenant("acme"), &auto(24), "ann", at(1)).await;
    assert!(refused.is_err(), "hour 24 was taken");
    assert_eq!(store.get(&tenant("acme")).await.unwrap(), None);
    let none = store.page(0, 9, &EventFilter::default()).await.unwrap();
    assert_eq!(none, []);
}

async fn settings_are_replaced_whole<S: SettingsStore + EventStore>(store: &S) {
    let default = FleetSettings::default();
    assert_eq!(store.settings().await.unwrap(), default);
    let paused = FleetSettings {
        mode: GlobalMode::Paused,
        pause: Some(Pause {
            by: "ann".to_owned(),
            reason: String::new(),
            since: at(2),
        }),
        values: [
            ("default.strategy".to_owned(), "rolling".to_owned()),
            ("default.window".to_owned(), String::new()),
        ]
        .into(),
    };
    let other = FleetSettings {
        mode: GlobalMode::Manual,
        pause: None,
        values: [("default.window".to_owned(), "Sun".to_owned())].into(),
    };
    let mut old = default.clone();
    for new in [paused, other, default] {
        store.set_settings(&new, "ann", at(3)).await.unwrap();
        assert_eq!(store.settings().await.unwrap(), new);
        let event = last_event(store).await;
        assert_eq!(event.kind, EventKind::ConfigChanged);
        assert_eq!((event.actor.as_str(), event.tenant), ("ann", None));
        let kept = |key: &str| serde_json::from_value::<FleetSettings>(event.data[key].clone());
        assert_eq!(kept("old").unwrap(), old);
        assert_eq!(kept("new").unwrap(), new);
        old = new;
    }
}
