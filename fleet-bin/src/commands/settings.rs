//! `fleet settings`: settings of the whole fleet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fleet_core::engine::max_lag;
use fleet_core::model::{FleetSettings, GlobalMode};
use fleet_core::plan::PlannerSettings;
use fleet_core::ports::SettingsStore as _;
use fleet_core::time::parse_duration;
use serde::{Deserialize, Serialize};

use super::tenant::check_windows;
use crate::answer::Answer;
use crate::assemble::Context;
use crate::call::{Call, Desk, Route};
use crate::cli::SettingsCommand;
use crate::config::strict::nearest;
use crate::exit::{Exit, Failure, Outcome};
use crate::system::now;

/// Keys beside `mode`, with what each takes.
const KEYS: &[(&str, &str)] = &[
    ("default.strategy", "rolling, single or immediate"),
    ("default.batch_percent", "1 to 100"),
    ("default.pause", "a duration such as 5m"),
    ("default.max_concurrent", "1 or more"),
    ("default.abort_on_failures", "1 or more"),
    ("default.window", "a window such as Mon-Fri 02:00-05:00 UTC"),
    ("default.min_success", "1 to 100"),
    (
        "default.cohorts",
        "cohorts in their order, separated by commas",
    ),
    ("default.salt", "any text"),
    ("default.needs_approval", "true or false"),
    ("default.approval_expires", "a duration such as 48h"),
    ("default.max_lag", "a duration such as 14d, or off"),
    ("default.stickiness", "per_release, per_channel or fixed"),
    (
        "freeze",
        "stretches such as 2026-12-20T00:00:00Z..2027-01-02T00:00:00Z holidays, separated by ;",
    ),
];

/// Shows them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {}

/// Sets some; an empty value takes a default back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Set {
    values: BTreeMap<String, String>,
}

impl Call for Show {
    const ROUTE: Route = Route::get("/api/v1/settings");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        answer(&desk.store.settings().await?)
    }
}

impl Call for Set {
    const ROUTE: Route = Route::put("/api/v1/settings");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        let mut settings = desk.store.settings().await?;
        for (key, value) in &self.values {
            set(&mut settings, key, value)?;
        }
        desk.store
            .set_settings(&settings, &desk.actor, now())
            .await?;
        desk.changed();
        answer(&settings)
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, command: SettingsCommand) -> Outcome {
    match command {
        SettingsCommand::Show => {
            let settings = context.read().await?.1.settings().await?;
            context.out.answer(answer(&settings)?)
        }
        SettingsCommand::Set { setting } => {
            let values = BTreeMap::from([setting]);
            context.carry_out(Set { values }).await
        }
    }
}

fn answer(settings: &FleetSettings) -> Outcome<Answer> {
    Answer::one("settings", settings, text(settings))
}

/// Sets one key; an empty value takes a default back.
fn set(settings: &mut FleetSettings, key: &str, value: &str) -> Outcome<()> {
    let wrong = |expected: &str| {
        let message = format!("{key}: expected {expected}, found {value:?}");
        Err(Failure::new(Exit::Usage, message))
    };
    if key == "mode" {
        settings.mode = match value {
            "auto" => GlobalMode::Auto,
            "manual" => GlobalMode::Manual,
            "paused" => GlobalMode::Paused,
            _ => return wrong("auto, manual or paused"),
        };
        return Ok(());
    }
    let Some((_, expected)) = KEYS.iter().find(|(known, _)| *known == key) else {
        let known = KEYS.iter().map(|(known, _)| *known).chain(["mode"]);
        let hint =
            nearest(key, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Failure::new(
            Exit::Usage,
            format!("unknown setting {key:?}{hint}"),
        ));
    };
    if value.is_empty() {
        settings.values.remove(key);
        return Ok(());
    }
    let number = |max: u32| {
        value
            .parse::<u32>()
            .is_ok_and(|number| (1..=max).contains(&number))
    };
    let tried = || {
        let mut tried = settings.clone();
        insert(&mut tried, key, value);
        tried
    };
    let fits = match key {
        "default.strategy" => matches!(value, "rolling" | "single" | "immediate"),
        "default.batch_percent" => number(100),
        "default.max_concurrent" | "default.abort_on_failures" => number(u32::MAX),
        "default.pause" | "default.approval_expires" => parse_duration(value).is_ok(),
        "default.cohorts" | "default.salt" => true,
        "default.max_lag" => max_lag(&tried()).is_ok(),
        "default.min_success" | "default.stickiness" | "default.needs_approval" | "freeze" => {
            PlannerSettings::read(&tried()).is_ok()
        }
        _ => return check_windows(&[value.to_owned()]).map(|()| insert(settings, key, value)),
    };
    if !fits {
        return wrong(expected);
    }
    insert(settings, key, value);
    Ok(())
}

fn insert(settings: &mut FleetSettings, key: &str, value: &str) {
    settings.values.insert(key.to_owned(), value.to_owned());
}

fn text(settings: &FleetSettings) -> String {
    let mode = match settings.mode {
        GlobalMode::Auto => "auto",
        GlobalMode::Manual => "manual",
        GlobalMode::Paused => "paused",
    };
    let mut text = format!("mode = {mode}");
    // Writing into a String cannot fail.
    if let Some(pause) = &settings.pause {
        let _ = write!(
            text,
            "\npaused by {} since {}: {}",
            pause.by, pause.since, pause.reason
        );
    }
    for (key, value) in &settings.values {
        let _ = write!(text, "\n{key} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, value: &str, problem: Option<&str>) {
        let result =
            set(&mut FleetSettings::default(), key, value).map_err(|failure| failure.chain());
        match problem {
            None => assert_eq!(result, Ok(())),
            Some(says) => assert!(result.unwrap_err().contains(says), "{key}"),
        }
    }

    #[test]
    fn values_are_checked_before_they_are_stored() {
        check("mode", "manual", None);
        check("mode", "sometimes", Some("expected auto, manual or paused"));
        check("default.strategy", "rolling", None);
        check(
            "default.strategy",
            "waves",
            Some("expected rolling, single or immediate"),
        );
        check("default.batch_percent", "0", Some("expected 1 to 100"));
        check("default.batch_percent", "100", None);
        check("default.pause", "5m", None);
        check("default.pause", "soon", Some("expected a duration"));
        check("default.window", "Mon-Fri 02:00-05:00 Europe/Berlin", None);
        check(
            "default.window",
            "when the moon is full",
            Some("the window cannot be used"),
        );
        check("default.min_success", "90", None);
        check("default.min_success", "101", Some("expected 1 to 100"));
        check("default.max_lag", "30d", None);
        check("default.max_lag", "off", None);
        for bad in ["0s", "never"] {
            check("default.max_lag", bad, Some("such as 14d, or off"));
        }
        check("default.needs_approval", "true", None);
        check(
            "default.needs_approval",
            "maybe",
            Some("expected true or false"),
        );
        check("default.stickiness", "per_channel", None);
        check(
            "default.stickiness",
            "always",
            Some("expected per_release, per_channel or fixed"),
        );
        check(
            "freeze",
            "2026-12-20T00:00:00Z..2027-01-02T00:00:00Z holidays",
            None,
        );
        check("freeze", "christmas", Some("expected stretches such as"));
        check(
            "default.stragety",
            "rolling",
            Some("did you mean default.strategy?"),
        );
    }

    #[test]
    fn an_empty_value_takes_it_back() {
        let mut settings = FleetSettings::default();
        set(&mut settings, "default.pause", "5m").unwrap();
        set(&mut settings, "default.pause", "").unwrap();
        assert_eq!(settings, FleetSettings::default());
    }
}
