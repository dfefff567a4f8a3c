//! `fleet tenant`: update configs.

use fleet_core::ids::TenantId;
use fleet_core::model::UpdateConfig;
use fleet_core::plan::window::WeeklyCalendar;
use fleet_core::ports::{TenantConfig, UpdateConfigRepository as _};
use serde::Serialize;

use crate::assemble::Context;
use crate::cli::TenantCommand;
use crate::exit::{Exit, OrExit as _, Outcome};
use crate::output::Table;
use crate::system::now;

/// A tenant in JSON.
#[derive(Debug, Serialize)]
struct TenantRow {
    tenant: String,
    mode: &'static str,
    preferred_hour_utc: u8,
    windows: Vec<String>,
    /// False: nobody has set it, these are the defaults.
    configured: bool,
}

impl TenantRow {
    fn new(tenant: &TenantId, config: &UpdateConfig, configured: bool) -> Self {
        Self {
            tenant: tenant.to_string(),
            mode: config.mode.label(),
            preferred_hour_utc: config.preferred_hour_utc,
            windows: config.windows.clone(),
            configured,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, command: TenantCommand) -> Outcome {
    match command {
        TenantCommand::List => {
            let (_, store) = context.read()?;
            let row = |found: &TenantConfig| TenantRow::new(&found.tenant, &found.config, true);
            let rows: Vec<_> = store.list().await?.iter().map(row).collect();
            context.out.list("tenants", &rows, || table(&rows))?;
        }
        TenantCommand::Show { tenant } => {
            let (_, store) = context.read()?;
            let found = store.get(&tenant).await?;
            show(
                context,
                &tenant,
                &found.clone().unwrap_or_default(),
                found.is_some(),
            )?;
        }
        TenantCommand::Set {
            tenant,
            mode,
            preferred_hour_utc,
            windows,
        } => {
            let writing = context.write()?;
            let mut config = writing.store.get(&tenant).await?.unwrap_or_default();
            config.mode = mode.unwrap_or(config.mode);
            config.preferred_hour_utc = preferred_hour_utc.unwrap_or(config.preferred_hour_utc);
            if !windows.is_empty() {
                config.windows = windows
                    .into_iter()
                    .filter(|window| !window.is_empty())
                    .collect();
                check_windows(&config.windows)?;
            }
            writing
                .store
                .upsert(&tenant, &config, &context.actor(), now())
                .await?;
            show(context, &tenant, &config, true)?;
        }
    }
    Ok(Exit::Done)
}

/// Refuses windows that cannot be read, before anything is stored.
pub(crate) fn check_windows(windows: &[String]) -> Outcome<()> {
    if windows.is_empty() {
        return Ok(());
    }
    WeeklyCalendar::parse(windows)
        .map(drop)
        .or_exit(Exit::Usage, "the window cannot be used")
}

fn show(
    context: &Context,
    tenant: &TenantId,
    config: &UpdateConfig,
    configured: bool,
) -> Outcome<()> {
    let row = TenantRow::new(tenant, config, configured);
    context.out.one("tenant", &row, || {
        let windows = if row.windows.is_empty() {
            "-".to_owned()
        } else {
            row.windows.join("; ")
        };
        let note = if configured {
            ""
        } else {
            " (defaults; nobody has set it)"
        };
        format!(
            "{}: {}{note}\npreferred hour: {} UTC\nwindows: {windows}",
            row.tenant, row.mode, row.preferred_hour_utc
        )
    })
}

fn table(rows: &[TenantRow]) -> Table {
    let mut table = Table::new(
        &["tenant", "mode", "hour utc", "windows"],
        "no tenant has a config",
    );
    for row in rows {
        table.row(vec![
            row.tenant.clone(),
            row.mode.to_owned(),
            row.preferred_hour_utc.to_string(),
            row.windows.join("; "),
        ]);
    }
    table
}
