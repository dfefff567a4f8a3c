//! When an instance may begin: label, tenant, fleet, whoever speaks first.
//!
//! Two kinds of words say when. A window is configured and holds everybody. An hour, a tenant's preferred one or that of
//! `fleet.policy`, is for what fleet finds by itself; a person who asks means now. Of either kind the nearer word wins:
//! the fleet's `default.window` comes before an hour that nobody chose, and after one that somebody did.

use super::rollout_plan::ScheduleSpec;
use super::window::{Policy, WeeklyCalendar};
use crate::model::UpdateConfig;

/// Everything that says when updates of one instance may begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When<'a> {
    /// `fleet.window`.
    pub(crate) window: Option<&'a str>,
    /// `fleet.policy`: as written, and as read.
    pub(crate) policy: Option<(&'a str, &'a Policy)>,
    /// The config of its tenant, if there is one; then the policy does not count.
    pub(crate) config: Option<&'a UpdateConfig>,
    /// `default.window`.
    pub(crate) default: Option<&'a WeeklyCalendar>,
}

/// Who said when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaidBy {
    /// A label of the instance.
    Label,
    /// The config of its tenant.
    Tenant,
    /// The settings of the fleet.
    Config,
    /// Nobody.
    Nobody,
}

impl SaidBy {
    /// Its name in output.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Tenant => "tenant",
            Self::Config => "config",
            Self::Nobody => "default",
        }
    }
}

impl When<'_> {
    /// For what a person asks for: windows only.
    pub(crate) fn for_a_person(&self) -> (ScheduleSpec, SaidBy) {
        self.own_window()
            .or_else(|| self.default_window())
            .unwrap_or((ScheduleSpec::Always, SaidBy::Nobody))
    }

    /// For what fleet finds by itself.
    pub(crate) fn for_detection(&self) -> (ScheduleSpec, SaidBy) {
        self.own_window()
            .or_else(|| self.chosen_hour())
            .or_else(|| self.default_window())
            .unwrap_or(match self.config {
                Some(config) => (hour(config), SaidBy::Nobody),
                None => (ScheduleSpec::Always, SaidBy::Nobody),
            })
    }

    fn own_window(&self) -> Option<(ScheduleSpec, SaidBy)> {
        if let Some(window) = self.window {
            let windows = vec![window.to_owned()];
            return Some((ScheduleSpec::Windows { windows }, SaidBy::Label));
        }
        let config = self.config.filter(|config| !config.windows.is_empty())?;
        let windows = config.windows.clone();
        Some((ScheduleSpec::Windows { windows }, SaidBy::Tenant))
    }

    /// An hour that somebody chose. A config always has one: the default is nobody's choice.
    fn chosen_hour(&self) -> Option<(ScheduleSpec, SaidBy)> {
        match (self.config, self.policy) {
            (Some(config), _) => {
                let default = UpdateConfig::default().preferred_hour_utc;
                (config.preferred_hour_utc != default).then(|| (hour(config), SaidBy::Tenant))
            }
            (None, Some((text, Policy::Nightly | Policy::Cron(_)))) => {
                let policy = text.to_owned();
                Some((ScheduleSpec::Policy { policy }, SaidBy::Label))
            }
            (None, Some((_, Policy::OnPush | Policy::Manual)) | None) => None,
        }
    }

    fn default_window(&self) -> Option<(ScheduleSpec, SaidBy)> {
        let windows = vec![self.default?.to_string()];
        Some((ScheduleSpec::Windows { windows }, SaidBy::Config))
    }
}

fn hour(config: &UpdateConfig) -> ScheduleSpec {
    ScheduleSpec::Hour {
        utc: config.preferred_hour_utc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Said {
        window: &'static str,
        policy: &'static str,
        config: Option<(u8, &'static str)>,
        default: &'static str,
    }

    const NOTHING: Said = Said {
        window: "",
        policy: "",
        config: None,
        default: "",
    };

    #[track_caller]
    fn check(said: &Said, person: &str, detection: &str) {
        let text = |text: &'static str| (!text.is_empty()).then_some(text);
        let policy = text(said.policy).map(|text| (text, text.parse::<Policy>().unwrap()));
        let config = said.config.map(|(hour, window)| UpdateConfig {
            preferred_hour_utc: hour,
            windows: text(window).into_iter().map(str::to_owned).collect(),
            ..UpdateConfig::default()
        });
        let default = text(said.default).map(|text| WeeklyCalendar::parse(&[text]).unwrap());
        let when = When {
            window: text(said.window),
            policy: policy.as_ref().map(|(text, policy)| (*text, policy)),
            config: config.as_ref(),
            default: default.as_ref(),
        };
        let shown = |(spec, by): (ScheduleSpec, SaidBy)| {
            format!("{} by {}", spec.schedule().unwrap(), by.label())
        };
        assert_eq!(shown(when.for_a_person()), person, "a person");
        assert_eq!(shown(when.for_detection()), detection, "detection");
    }

    const SAT: &str = "Sat 01:00-02:00";

    #[test]
    fn the_nearest_window_holds_everybody() {
        let said = Said {
            window: "Mon 02:00-05:00",
            policy: "nightly",
            config: Some((4, "Tue 02:00-05:00")),
            default: SAT,
        };
        check(
            &said,
            "Mon 02:00-05:00 by label",
            "Mon 02:00-05:00 by label",
        );
        let said = Said { window: "", ..said };
        check(
            &said,
            "Tue 02:00-05:00 by tenant",
            "Tue 02:00-05:00 by tenant",
        );
        let said = Said {
            default: SAT,
            ..NOTHING
        };
        check(
            &said,
            "Sat 01:00-02:00 by config",
            "Sat 01:00-02:00 by config",
        );
        check(&NOTHING, "always by default", "always by default");
    }

    #[test]
    fn an_hour_that_somebody_chose_beats_the_fleets_window_for_what_fleet_finds() {
        let with = |policy, config| Said {
            policy,
            config,
            default: SAT,
            ..NOTHING
        };
        let fleets = "Sat 01:00-02:00 by config";
        check(&with("", Some((4, ""))), fleets, "04:00-05:00 by tenant");
        check(&with("nightly", None), fleets, "03:00-04:00 by label");
        check(
            &with("cron:30 4 * * *", None),
            fleets,
            "cron:30 4 * * * by label",
        );
        // These name no hour, and the default hour is nobody's choice.
        check(&with("on-push", None), fleets, fleets);
        check(&with("manual", None), fleets, fleets);
        check(&with("nightly", Some((3, ""))), fleets, fleets);
    }

    #[test]
    fn without_any_window_the_hours_are_for_what_fleet_finds() {
        let with = |policy, config| Said {
            policy,
            config,
            ..NOTHING
        };
        let always = "always by default";
        check(
            &with("nightly", Some((3, ""))),
            always,
            "03:00-04:00 by default",
        );
        check(&with("nightly", None), always, "03:00-04:00 by label");
        check(&with("on-push", None), always, always);
    }
}
