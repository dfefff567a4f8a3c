//! How an embedder tests code of its own against the ports: with mocks that answer as told and check that they were
//! asked.

use fleet_core::ids::TenantId;
use fleet_core::model::{TenantMode, UpdateConfig};
use fleet_core::ports::{JournalError, UpdateConfigRepository};
use fleet_core::testing::MockUpdateConfigRepository;
use fleet_core::time::Timestamp;
use mockall::predicate::{always, eq};

/// The embedder's own code: a tenant that cancels its contract is not updated any more.
async fn contract_ended(
    configs: &dyn UpdateConfigRepository,
    tenant: &TenantId,
) -> Result<bool, JournalError> {
    let Some(config) = configs.get(tenant).await? else {
        return Ok(false);
    };
    let manual = UpdateConfig {
        mode: TenantMode::Manual,
        ..config
    };
    configs
        .upsert(tenant, &manual, "billing", Timestamp::UNIX_EPOCH)
        .await?;
    Ok(true)
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

#[tokio::test]
async fn a_tenant_whose_contract_ended_becomes_manual() {
    let mut configs = MockUpdateConfigRepository::new();
    let auto = UpdateConfig {
        mode: TenantMode::Auto,
        preferred_hour_utc: 5,
        windows: Vec::new(),
    };
    let manual = UpdateConfig {
        mode: TenantMode::Manual,
        ..auto.clone()
    };
    configs
        .expect_get()
        .with(eq(acme()))
        .once()
        .return_once(move |_| Ok(Some(auto)));
    configs
        .expect_upsert()
        .with(eq(acme()), eq(manual), eq("billing"), always())
        .once()
        .returning(|_, _, _, _| Ok(()));
    assert!(contract_ended(&configs, &acme()).await.unwrap());
}

#[tokio::test]
async fn a_tenant_without_a_config_is_left_alone() {
    let mut configs = MockUpdateConfigRepository::new();
    configs.expect_get().once().returning(|_| Ok(None));
    configs.expect_upsert().never();
    assert!(!contract_ended(&configs, &acme()).await.unwrap());
}
