//! Tenants' update configs and the settings of the fleet. Every change leaves an event with the old and the new.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fleet_core::ids::TenantId;
use fleet_core::model::{FleetSettings, GlobalMode, Pause, TenantMode, UpdateConfig};
use fleet_core::ports::{JournalError, SettingsStore, TenantConfig, UpdateConfigRepository};
use fleet_core::record::NewEvent;
use fleet_core::time::Timestamp;
use rusqlite::{Row, Transaction};

use crate::events;
use crate::journal::collect;
use crate::rows::{self, stamp};
use crate::store::{Failure, SqliteStore};

#[async_trait]
impl UpdateConfigRepository for SqliteStore {
    async fn get(&self, tenant: &TenantId) -> Result<Option<UpdateConfig>, JournalError> {
        let tenant = tenant.clone();
        self.read("read a tenant's config", move |tx| get(tx, &tenant))
            .await
    }

    async fn upsert(
        &self,
        tenant: &TenantId,
        config: &UpdateConfig,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (tenant, config, actor) = (tenant.clone(), config.clone(), actor.to_owned());
        self.write("set a tenant's config", move |tx| {
            let old = get(tx, &tenant)?;
            upsert(tx, &tenant, &config)?;
            let changed = NewEvent::config_changed(now, actor, Some(tenant), &old, &config);
            events::insert(tx, &[changed])
        })
        .await
    }

    async fn list_auto_enabled(&self) -> Result<Vec<TenantConfig>, JournalError> {
        self.read("list the automatic tenants", |tx| {
            collect(
                tx,
                "SELECT * FROM tenant_configs WHERE mode = ?1 ORDER BY tenant",
                [rows::tenant_mode_name(TenantMode::Auto)],
                tenant_config,
            )
        })
        .await
    }

    async fn list(&self) -> Result<Vec<TenantConfig>, JournalError> {
        self.read("list the tenants", |tx| {
            collect(
                tx,
                "SELECT * FROM tenant_configs ORDER BY tenant",
                (),
                tenant_config,
            )
        })
        .await
    }
}

#[async_trait]
impl SettingsStore for SqliteStore {
    async fn settings(&self) -> Result<FleetSettings, JournalError> {
        self.read("read the settings", settings).await
    }

    async fn set_settings(
        &self,
        settings: &FleetSettings,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (new, actor) = (settings.clone(), actor.to_owned());
        self.write("set the settings", move |tx| {
            let old = self::settings(tx)?;
            replace_settings(tx, &new)?;
            let changed = NewEvent::config_changed(now, actor, None, &old, &new);
            events::insert(tx, &[changed])
        })
        .await
    }
}

fn get(tx: &Transaction<'_>, tenant: &TenantId) -> Result<Option<UpdateConfig>, Failure> {
    let sql = "SELECT * FROM tenant_configs WHERE tenant = ?1";
    let found = collect(tx, sql, [tenant.as_str()], tenant_config)?;
    Ok(found.into_iter().next().map(|found| found.config))
}

fn upsert(tx: &Transaction<'_>, tenant: &TenantId, config: &UpdateConfig) -> Result<(), Failure> {
    if config.preferred_hour_utc > 23 {
        return Err(Failure::Unfit(format!(
            "expected an hour from 0 to 23, found {}",
            config.preferred_hour_utc
        )));
    }
    let windows = serde_json::to_string(&config.windows).map_err(Failure::unwritable)?;
    tx.prepare_cached(
        "INSERT INTO tenant_configs (tenant, mode, preferred_hour_utc, windows) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET mode = excluded.mode, windows = excluded.windows,
                                   preferred_hour_utc = excluded.preferred_hour_utc",
    )?
    .execute((
        tenant.as_str(),
        rows::tenant_mode_name(config.mode),
        config.preferred_hour_utc,
        windows,
    ))?;
    Ok(())
}

fn tenant_config(row: &Row<'_>) -> Result<TenantConfig, Failure> {
    let mode: String = row.get("mode")?;
    let windows: String = row.get("windows")?;
    Ok(TenantConfig {
        tenant: rows::parsed(row, "tenant")?,
        config: UpdateConfig {
            mode: rows::tenant_mode_of(&mode)
                .ok_or_else(|| Failure::row("mode", format!("expected a mode, found {mode:?}")))?,
            preferred_hour_utc: row.get("preferred_hour_utc")?,
            windows: serde_json::from_str(&windows)
                .map_err(|error| Failure::row("windows", error))?,
        },
    })
}

fn settings(tx: &Transaction<'_>) -> Result<FleetSettings, Failure> {
    let sql = "SELECT * FROM fleet_settings";
    let (mode, pause) = collect(tx, sql, (), mode_and_pause)?
        .pop()
        .unwrap_or_default();
    let values = collect(tx, "SELECT key, value FROM setting_values", (), |row| {
        Ok((row.get("key")?, row.get("value")?))
    })?;
    Ok(FleetSettings {
        mode,
        pause,
        values: values.into_iter().collect::<BTreeMap<String, String>>(),
    })
}

fn mode_and_pause(row: &Row<'_>) -> Result<(GlobalMode, Option<Pause>), Failure> {
    let mode: String = row.get("mode")?;
    let mode = rows::global_mode_of(&mode)
        .ok_or_else(|| Failure::row("mode", format!("expected a mode, found {mode:?}")))?;
    let by: Option<String> = row.get("pause_by")?;
    let pause = by
        .map(|by| {
            Ok::<_, Failure>(Pause {
                by,
                reason: row.get("pause_reason")?,
                since: rows::parsed(row, "pause_since")?,
            })
        })
        .transpose()?;
    Ok((mode, pause))
}

fn replace_settings(tx: &Transaction<'_>, new: &FleetSettings) -> Result<(), Failure> {
    let pause = new.pause.as_ref();
    tx.prepare_cached(
        "INSERT OR REPLACE INTO fleet_settings (only, mode, pause_by, pause_reason, pause_since)
         VALUES (1, ?1, ?2, ?3, ?4)",
    )?
    .execute((
        rows::global_mode_name(new.mode),
        pause.map(|pause| &pause.by),
        pause.map(|pause| &pause.reason),
        pause.map(|pause| stamp(pause.since)),
    ))?;
    tx.execute("DELETE FROM setting_values", ())?;
    let mut insert =
        tx.prepare_cached("INSERT INTO setting_values (key, value) VALUES (?1, ?2)")?;
    for (key, value) in &new.values {
        insert.execute((key, value))?;
    }
    Ok(())
}
