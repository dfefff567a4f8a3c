//! `fleet tenant`: update configs.

use fleet_core::ids::TenantId;
use fleet_core::model::{TenantMode, UpdateConfig};
use fleet_core::plan::window::WeeklyCalendar;
use fleet_core::ports::{TenantConfig, UpdateConfigRepository as _};
use fleet_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Shown};
use crate::assemble::Context;
use crate::call::{Call, Desk, Route};
use crate::cli::TenantCommand;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
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

/// All tenants that have a config.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {}

/// One tenant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {
    tenant: TenantId,
}

/// Sets one; what is not named stays as it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    tenant: TenantId,
    #[serde(default)]
    mode: Option<TenantMode>,
    #[serde(default)]
    preferred_hour_utc: Option<u8>,
    #[serde(default)]
    windows: Option<Vec<String>>,
}

impl Call for List {
    const ROUTE: Route = Route::get("/api/v1/tenants");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        list(&desk.store).await
    }
}

impl Call for Show {
    const ROUTE: Route = Route::get("/api/v1/tenants/{tenant}/config");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        show(&desk.store, &self.tenant).await
    }
}

impl Call for Set {
    const ROUTE: Route = Route::put("/api/v1/tenants/{tenant}/config");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        let mut config = desk.store.get(&self.tenant).await?.unwrap_or_default();
        config.mode = self.mode.unwrap_or(config.mode);
        config.preferred_hour_utc = match self.preferred_hour_utc {
            Some(hour @ 0..=23) => hour,
            Some(hour) => {
                let message = format!("preferred_hour_utc: expected 0 to 23, found {hour}");
                return Err(Failure::new(Exit::Usage, message));
            }
            None => config.preferred_hour_utc,
        };
        if let Some(windows) = self.windows {
            config.windows = windows
                .into_iter()
                .filter(|window| !window.is_empty())
                .collect();
            check_windows(&config.windows)?;
        }
        desk.store
            .upsert(&self.tenant, &config, &desk.actor, now())
            .await?;
        desk.changed();
        answer(&self.tenant, &config, true)
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, command: TenantCommand) -> Outcome {
    match command {
        TenantCommand::List => context.out.answer(list(&context.read().await?.1).await?),
        TenantCommand::Show { tenant } => {
            let answer = show(&context.read().await?.1, &tenant).await?;
            context.out.answer(answer)
        }
        TenantCommand::Set {
            tenant,
            mode,
            preferred_hour_utc,
            windows,
        } => {
            let set = Set {
                tenant,
                mode,
                preferred_hour_utc,
                windows: (!windows.is_empty()).then_some(windows),
            };
            context.carry_out(set).await
        }
    }
}

async fn list(store: &SqliteStore) -> Outcome<Answer> {
    let row = |found: &TenantConfig| TenantRow::new(&found.tenant, &found.config, true);
    let rows: Vec<_> = store.list().await?.iter().map(row).collect();
    Answer::list("tenants", &rows, Shown::Table(table(&rows)))
}

async fn show(store: &SqliteStore, tenant: &TenantId) -> Outcome<Answer> {
    let found = store.get(tenant).await?;
    let configured = found.is_some();
    answer(tenant, &found.unwrap_or_default(), configured)
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

fn answer(tenant: &TenantId, config: &UpdateConfig, configured: bool) -> Outcome<Answer> {
    let row = TenantRow::new(tenant, config, configured);
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
    let calendar = WeeklyCalendar::parse(&config.windows).ok();
    let warning = calendar
        .and_then(|calendar| calendar.skipped_warning(now()))
        .map_or_else(String::new, |warning| format!("\nwarning: it {warning}"));
    let text = format!(
        "{}: {}{note}\npreferred hour: {} UTC\nwindows: {windows}{warning}",
        row.tenant, row.mode, row.preferred_hour_utc
    );
    Answer::one("tenant", &row, text)
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
