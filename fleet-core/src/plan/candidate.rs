//! What the planner is given.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::order::Stickiness;
use super::strategy::{StrategyError, StrategySpec};
use super::window::{Freeze, WeeklyCalendar, WindowError};
use crate::ids::{IdError, InstanceId, InstanceName, RolloutId, TenantId};
use crate::image::{Digest, PinnedImage};
use crate::model::labels::LabelMode;
use crate::model::{Channel, FleetSettings, InstanceSettings, UpdateConfig};
use crate::time::{Timestamp, parse_duration};

/// An instance that a rollout could be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The instance.
    pub instance: InstanceId,
    /// Its tenant.
    pub tenant: TenantId,
    /// `fleet.channel`.
    pub channel: Channel,
    /// What it runs, as far as known.
    pub current: Option<Digest>,
    /// Whether it is behind the release; none: not known, the update finds out.
    pub behind: Option<bool>,
    /// `fleet.enable`.
    pub enabled: bool,
    /// The label of another updater that says no.
    pub restricted_by: Option<String>,
    /// `fleet.mode`.
    pub mode: Option<LabelMode>,
    /// `fleet.policy`, as written.
    pub policy: Option<String>,
    /// `fleet.window`, as written.
    pub window: Option<String>,
    /// `fleet.pin`.
    pub pin: Option<String>,
    /// `fleet.cohort`.
    pub cohort: Option<String>,
    /// `fleet.priority`; lower goes first.
    pub priority: i32,
    /// `fleet.min_age`.
    pub min_age: Option<Duration>,
    /// Health timeout of the instance.
    pub health_timeout: Duration,
    /// What is known of its updates.
    pub state: InstanceState,
    /// Whether it is well now. An instance that is not may be updated, and does not count as a failure.
    pub healthy: bool,
    /// The release is quarantined on it.
    pub quarantined: bool,
    /// The last update of it, to whatever release, did not succeed.
    pub failed_before: bool,
    /// It is fleet itself, or what fleet runs in: it goes last and alone.
    pub own: bool,
    /// Name of the group that must move together, if it belongs to one.
    pub group: Option<InstanceName>,
    /// How long its updates take (the 95th percentile of its last ones), if known.
    pub estimate: Option<Duration>,
}

/// What is known of an instance's updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// None is going on.
    #[default]
    Idle,
    /// One is going on.
    Updating,
    /// One ended in a way that needs a person.
    NeedsOperator,
    /// Somebody else interfered.
    Diverged,
}

impl Candidate {
    /// A candidate as its labels have it: idle, healthy, nothing known of it but that.
    #[must_use]
    pub fn new(instance: InstanceId, settings: &InstanceSettings) -> Self {
        Self {
            instance,
            tenant: settings.tenant.clone(),
            channel: settings.channel.clone(),
            current: None,
            behind: None,
            enabled: settings.enabled,
            restricted_by: settings.restricted_by.clone(),
            mode: settings.mode,
            policy: settings.policy.clone(),
            window: settings.window.clone(),
            pin: settings.pin.clone(),
            cohort: settings.cohort.clone(),
            priority: settings.priority,
            min_age: settings.min_age,
            health_timeout: settings.health.timeout,
            state: InstanceState::Idle,
            healthy: true,
            quarantined: false,
            failed_before: false,
            own: false,
            group: None,
            estimate: None,
        }
    }
}

/// Who asked for a rollout, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "asked")]
pub enum Asked {
    /// fleet found a release: automatic instances, in the tenants' hours.
    ByDetection {
        /// The channel whose poll found it: only its instances. None: those of every channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<Channel>,
    },
    /// An operator started a rollout: automatic instances, and manual ones of the tenants that are named.
    ByOperator {
        /// The tenants named; none given means all, and manual ones not.
        tenants: Vec<TenantId>,
    },
    /// A person asked for these instances: mode and preferred hour do not refuse it.
    ForInstances {
        /// The instances.
        names: Vec<InstanceName>,
    },
}

/// What a rollout shall do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RolloutId,
    /// The rollout that it repeats or undoes.
    pub parent: Option<RolloutId>,
    /// How often this was tried, from 1.
    pub attempt: u32,
    /// User name, or `fleet`.
    pub actor: String,
    /// Who asked, and for what.
    #[serde(flatten)]
    pub asked: Asked,
    /// The release.
    pub target: PinnedImage,
    /// When the release was pushed, or else first seen; none if neither is known.
    pub released_at: Option<Timestamp>,
    /// How it proceeds.
    pub strategy: StrategySpec,
    /// What bounds it.
    pub limits: Limits,
    /// Windows do not hold it (freezes and pauses do).
    pub override_window: bool,
    /// Takes a quarantined digest once more.
    pub retry_quarantined: bool,
    /// A person must approve before it begins.
    pub needs_approval: bool,
}

/// What bounds a rollout, whatever its strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Updates at the same time, at least 1.
    pub max_concurrent: u32,
    /// Share of a tenant's instances that may be down at the same time, rounded down, at least one. 1–100.
    pub tenant_percent: u8,
    /// Share of a host's instances that may be down at the same time, rounded down, at least one. 1–100.
    pub host_percent: u8,
    /// Share of a wave's instances that must get the release before the next wave opens by itself; those taken out do not
    /// count. 0: at least one instance must, whatever the wave's size.
    #[serde(default)]
    pub min_success_percent: u8,
    /// Working time after which a wave that is not over is held for a person. Waiting does not count.
    pub wave_deadline: Duration,
    /// How long a rollout waits for its approval before it is cancelled, counted from the plan; none: for as long as it
    /// takes.
    #[serde(default)]
    pub approval_expires: Option<Duration>,
}

impl Default for Limits {
    /// 5 at a time, half of a tenant, any number on a host, a day of work for a wave, an approval whenever it comes.
    fn default() -> Self {
        Self {
            max_concurrent: 5,
            tenant_percent: 50,
            host_percent: 100,
            min_success_percent: 0,
            wave_deadline: Duration::from_secs(24 * 3600),
            approval_expires: None,
        }
    }
}

impl Limits {
    /// The bounds of rollouts that nobody chose others for: the defaults, with `default.max_concurrent` and
    /// `default.approval_expires`.
    ///
    /// # Errors
    /// The one is no number from 1 on, or the other no duration.
    pub fn of_settings(settings: &FleetSettings) -> Result<Self, StrategyError> {
        let mut limits = Self::default();
        if let Some(text) = settings.values.get("default.max_concurrent") {
            let number = text.trim().parse().ok().filter(|number| *number > 0);
            limits.max_concurrent = number
                .ok_or_else(|| StrategyError::new("1 or more for default.max_concurrent", text))?;
        }
        if let Some(text) = settings.values.get("default.approval_expires") {
            let duration = parse_duration(text.trim()).map_err(|_| {
                StrategyError::new("a duration such as 48h for default.approval_expires", text)
            })?;
            limits.approval_expires = Some(duration);
        }
        Ok(limits)
    }
}

/// Settings of the fleet that the planner reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlannerSettings {
    /// `default.window`.
    pub window: Option<WeeklyCalendar>,
    /// `freeze`: stretches in which nothing starts.
    pub freezes: Vec<Freeze>,
    /// `default.cohorts`: cohorts in the order in which they go, before all others.
    pub cohorts: Vec<String>,
    /// `default.salt`: changes the order of all rollouts.
    pub salt: String,
    /// `default.stickiness`: how long the order among equals lasts.
    pub stickiness: Stickiness,
    /// `default.needs_approval`: what detection opens waits for a person.
    pub needs_approval: bool,
    /// `default.min_success`, for rollouts that ask for no share of their own; see [`Limits::min_success_percent`].
    pub min_success_percent: u8,
}

impl PlannerSettings {
    /// Reads the keys `default.window`, `freeze` (several separated by `;`), `default.cohorts` (comma separated;
    /// default: canary, early), `default.salt`, `default.stickiness`, `default.needs_approval` (true or false) and
    /// `default.min_success` (1 to 100).
    ///
    /// # Errors
    /// A value cannot be read.
    pub fn read(settings: &FleetSettings) -> Result<Self, WindowError> {
        let value = |key: &str| {
            settings
                .values
                .get(key)
                .map(String::as_str)
                .filter(|text| !text.trim().is_empty())
        };
        let list = |text: &str, separator: char| -> Vec<String> {
            text.split(separator)
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()
        };
        Ok(Self {
            window: value("default.window")
                .map(|text| WeeklyCalendar::parse(&[text]))
                .transpose()?,
            freezes: value("freeze")
                .map(|text| list(text, ';'))
                .unwrap_or_default()
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            cohorts: list(value("default.cohorts").unwrap_or("canary,early"), ','),
            salt: value("default.salt").unwrap_or_default().to_owned(),
            stickiness: value("default.stickiness")
                .map_or(Ok(Stickiness::default()), stickiness)?,
            needs_approval: value("default.needs_approval").map_or(Ok(false), flag)?,
            min_success_percent: value("default.min_success").map_or(Ok(0), percent)?,
        })
    }
}

fn stickiness(text: &str) -> Result<Stickiness, WindowError> {
    text.parse().map_err(|error: IdError| WindowError {
        expected: error.expected,
        found: error.found,
    })
}

fn flag(text: &str) -> Result<bool, WindowError> {
    text.trim().parse().map_err(|_| WindowError {
        expected: "true or false",
        found: text.to_owned(),
    })
}

fn percent(text: &str) -> Result<u8, WindowError> {
    let number = text.trim().trim_end_matches('%').trim_end().parse().ok();
    number
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| WindowError {
            expected: "a percentage from 1 to 100",
            found: text.to_owned(),
        })
}

/// Everything that a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// What shall be done.
    pub request: &'a Request,
    /// The instances that follow the target's repository, in any order.
    pub candidates: &'a [Candidate],
    /// Configs of the tenants that have one.
    pub tenants: &'a BTreeMap<TenantId, UpdateConfig>,
    /// Mode and pause of the fleet.
    pub fleet: &'a FleetSettings,
    /// What else is set for the fleet.
    pub settings: &'a PlannerSettings,
    /// Now.
    pub now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_bound_what_goes_on_at_once() {
        let mut settings = FleetSettings::default();
        assert_eq!(Limits::of_settings(&settings), Ok(Limits::default()));
        let key = "default.max_concurrent";
        settings.values.insert(key.to_owned(), "2".to_owned());
        assert_eq!(
            Limits::of_settings(&settings).map(|limits| limits.max_concurrent),
            Ok(2)
        );
        for bad in ["0", "many", "-1"] {
            settings.values.insert(key.to_owned(), bad.to_owned());
            assert!(Limits::of_settings(&settings).is_err(), "{bad}");
        }
    }

    #[test]
    fn stickiness_is_read_and_a_wrong_one_is_refused() {
        let mut settings = FleetSettings::default();
        let read = |settings: &FleetSettings| {
            PlannerSettings::read(settings).map(|settings| settings.stickiness)
        };
        assert_eq!(read(&settings), Ok(Stickiness::PerRelease));
        let key = "default.stickiness";
        settings.values.insert(key.to_owned(), "fixed".to_owned());
        assert_eq!(read(&settings), Ok(Stickiness::Fixed));
        settings.values.insert(key.to_owned(), "glue".to_owned());
        let error = read(&settings).unwrap_err();
        assert_eq!(error.expected, "per_release, per_channel or fixed");
    }
}
