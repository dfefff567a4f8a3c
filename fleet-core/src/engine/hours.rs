//! What holds an instance though nothing is wrong with it: a pause, a freeze, its windows.

use super::{Fleet, FleetError, UpdateRequest};
use crate::model::InstanceSettings;
use crate::plan::window::{Freeze, Policy, WeeklyCalendar, WindowError};
use crate::plan::{Held, PlannerSettings, ScheduleSpec, When, fleet_pause};
use crate::update::Refusal;

impl Fleet {
    /// Why nothing at all begins now, whoever asks: a pause, or a freeze.
    pub(super) async fn standstill(&self) -> Result<Option<Refusal>, FleetError> {
        if let Some(pause) = self.paused().await? {
            return Ok(Some(pause));
        }
        let settings = self.ports.settings.settings().await?;
        let freezes = match PlannerSettings::read(&settings) {
            Ok(settings) => settings.freezes,
            // A freeze that cannot be read must not count as none.
            Err(error) => return Ok(Some(bad_setting(&error))),
        };
        let now = self.ports.update.clock.now();
        Ok(Freeze::in_force(&freezes, now).map(|freeze| {
            Refusal::for_now(
                "frozen",
                format!("no update begins until {}: {}", freeze.until, freeze.reason),
                "wait, or end it with `fleet settings set freeze=`",
            )
        }))
    }

    /// Why nothing begins now: the pause that a person set, or the mode.
    pub(super) async fn paused(&self) -> Result<Option<Refusal>, FleetError> {
        let settings = self.ports.settings.settings().await?;
        let refusal = |why, remedy| Refusal::for_now("paused", why, remedy);
        Ok(match (&settings.pause, fleet_pause(&settings)) {
            (Some(pause), _) => Some(refusal(
                format!(
                    "the fleet is paused by {} since {}: {}",
                    pause.by, pause.since, pause.reason
                ),
                "`fleet resume` lifts it",
            )),
            (None, Some(Held::Paused { by, why })) => Some(refusal(
                format!("the fleet is paused by {by}: {why}"),
                "`fleet settings set mode=auto` lifts it",
            )),
            (None, _) => None,
        })
    }

    /// Only windows that somebody configured refuse what a person asks for: the instance's, its tenant's, the fleet's.
    pub(super) async fn outside_window(
        &self,
        settings: &InstanceSettings,
        request: &UpdateRequest,
    ) -> Result<Option<Refusal>, FleetError> {
        if request.override_window {
            return Ok(None);
        }
        let config = self.ports.configs.get(&settings.tenant).await?;
        let fleet = match PlannerSettings::read(&self.ports.settings.settings().await?) {
            Ok(fleet) => fleet,
            Err(error) => return Ok(Some(bad_setting(&error))),
        };
        let when = When {
            window: settings.window.as_deref(),
            policy: None,
            config: config.as_ref(),
            default: fleet.window.as_ref(),
        };
        let (ScheduleSpec::Windows { windows }, _) = when.for_a_person() else {
            return Ok(None);
        };
        let now = self.ports.update.clock.now();
        let calendar = match WeeklyCalendar::parse(&windows) {
            Ok(calendar) => calendar,
            // A window that cannot be read must not count as always open.
            Err(error) => {
                return Ok(Some(Refusal::for_good(
                    "bad_window",
                    error.to_string(),
                    "write it as Mon-Fri 02:00-05:00",
                )));
            }
        };
        if calendar.contains(now) {
            return Ok(None);
        }
        let opens = calendar
            .next_open(now)
            .map_or_else(|| "never".to_owned(), |at| at.to_string());
        Ok(Some(Refusal::for_now(
            "outside_window",
            format!(
                "outside of its window {}, which opens {opens}",
                windows.join(", ")
            ),
            "wait, or update now with --override-window",
        )))
    }

    /// When fleet updates an instance by itself, as text, and who said so.
    pub(super) async fn hours_of(
        &self,
        settings: &InstanceSettings,
    ) -> Result<(String, &'static str), FleetError> {
        let config = self.ports.configs.get(&settings.tenant).await?;
        let fleet = PlannerSettings::read(&self.ports.settings.settings().await?);
        let fleet = fleet.unwrap_or_default();
        let policy = settings.policy.as_deref().and_then(read_policy);
        let when = When {
            window: settings.window.as_deref(),
            policy: policy.as_ref().map(|(text, policy)| (*text, policy)),
            config: config.as_ref(),
            default: fleet.window.as_ref(),
        };
        let (spec, by) = when.for_detection();
        let text = match spec {
            ScheduleSpec::Always => "always".to_owned(),
            ScheduleSpec::Windows { windows } => windows.join(", "),
            ScheduleSpec::Hour { utc } => format!("from {utc:02}:00 UTC"),
            ScheduleSpec::Policy { policy } => policy,
        };
        Ok((text, by.label()))
    }
}

/// A policy, if it can be read; one that cannot keeps its instances out of every plan.
pub(super) fn read_policy(text: &str) -> Option<(&str, Policy)> {
    text.parse().ok().map(|policy| (text, policy))
}

fn bad_setting(error: &WindowError) -> Refusal {
    Refusal::for_good(
        "bad_setting",
        format!("a setting of the fleet cannot be read: {error}"),
        "correct it with `fleet settings set`",
    )
}
