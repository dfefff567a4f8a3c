//! Strategies as data: what the store keeps and what commands build.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Immediate, RollingWave, RolloutStrategy, Single, WaveSize};
use crate::model::FleetSettings;
use crate::time::parse_duration;

/// A strategy that cannot be what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct StrategyError {
    /// What would have been accepted.
    pub expected: String,
    /// What was given.
    pub found: String,
}

impl StrategyError {
    /// An error with what was expected and found.
    pub fn new(expected: impl Into<String>, found: impl ToString) -> Self {
        Self {
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// Checks `--abort-on-failures`.
///
/// # Errors
/// It is 0.
pub(super) fn abort_on(failures: u32) -> Result<NonZeroU32, StrategyError> {
    NonZeroU32::new(failures).ok_or_else(|| {
        StrategyError::new(
            "a number of failures from 1 on (1 stops at the first failure)",
            failures,
        )
    })
}

/// A strategy with its settings, as it is stored with a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "strategy")]
pub enum StrategySpec {
    /// [`RollingWave`].
    Rolling(RollingWave),
    /// [`Single`].
    Single(Single),
    /// [`Immediate`].
    Immediate(Immediate),
    /// One that the embedder registered.
    Custom {
        /// Its label in the [`StrategyRegistry`].
        name: String,
    },
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self::Rolling(RollingWave::default())
    }
}

impl StrategySpec {
    /// Its name in output.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Rolling(_) => "rolling",
            Self::Single(_) => "single",
            Self::Immediate(_) => "immediate",
            Self::Custom { name } => name,
        }
    }

    /// The built-in strategy of that name with its defaults, else a custom one.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "rolling" => Self::Rolling(RollingWave::default()),
            "single" => Self::Single(Single::default()),
            "immediate" => Self::Immediate(Immediate::default()),
            _ => Self::Custom {
                name: name.to_owned(),
            },
        }
    }

    /// The strategy of rollouts that nobody chose one for: `default.strategy`, else rolling, as
    /// [`StrategySpec::named_in`] has it.
    ///
    /// # Errors
    /// A value cannot be read or is out of range.
    pub fn of_settings(settings: &FleetSettings) -> Result<Self, StrategyError> {
        let name = settings.values.get("default.strategy");
        Self::named_in(name.map_or("rolling", String::as_str), settings)
    }

    /// The strategy of that name as the settings shape it: `default.batch_percent` and `default.pause` where it has waves,
    /// and `default.abort_on_failures`.
    ///
    /// # Errors
    /// A value cannot be read or is out of range.
    pub fn named_in(name: &str, settings: &FleetSettings) -> Result<Self, StrategyError> {
        let value = |key: &str| settings.values.get(key).map(String::as_str);
        let number = |key: &str| {
            let text = value(key).map(str::trim);
            text.map(|text| {
                let wrong = |_| StrategyError::new(format!("a number for {key}"), text);
                text.parse::<u32>().map_err(wrong)
            })
            .transpose()
        };
        let mut spec = Self::named(name);
        if let Self::Rolling(rolling) = &mut spec {
            if let Some(percent) = number("default.batch_percent")? {
                rolling.size = WaveSize::percent(percent.into())?;
            }
            if let Some(pause) = value("default.pause") {
                rolling.pause = parse_duration(pause)
                    .map_err(|_| StrategyError::new("a duration for default.pause", pause))?;
            }
        }
        match number("default.abort_on_failures")? {
            Some(failures) => spec.with_abort_on(failures),
            None => Ok(spec),
        }
    }

    /// Ends after so many failures.
    ///
    /// # Errors
    /// It is 0, or the strategy is a custom one, which has a budget of its own.
    pub fn with_abort_on(mut self, failures: u32) -> Result<Self, StrategyError> {
        let chosen = Some(abort_on(failures)?);
        match &mut self {
            Self::Rolling(rolling) => rolling.abort_on = chosen,
            Self::Single(single) => single.abort_on = chosen,
            Self::Immediate(immediate) => immediate.abort_on = chosen,
            Self::Custom { name } => {
                return Err(StrategyError::new(
                    "a built-in strategy (a custom one sets its own failure budget)",
                    name,
                ));
            }
        }
        Ok(self)
    }
}

/// The strategies that an embedder brought.
#[derive(Debug, Clone, Default)]
pub struct StrategyRegistry {
    custom: BTreeMap<String, Arc<dyn RolloutStrategy>>,
}

impl StrategyRegistry {
    /// Adds a strategy under its label; one of the same label is replaced.
    #[must_use]
    pub fn with(mut self, strategy: impl RolloutStrategy + 'static) -> Self {
        self.custom
            .insert(strategy.label().to_owned(), Arc::new(strategy));
        self
    }

    /// The strategy that a spec names.
    ///
    /// # Errors
    /// There is no custom strategy of that name.
    pub fn resolve(&self, spec: &StrategySpec) -> Result<Arc<dyn RolloutStrategy>, StrategyError> {
        Ok(match spec {
            StrategySpec::Rolling(rolling) => Arc::new(rolling.clone()),
            StrategySpec::Single(single) => Arc::new(single.clone()),
            StrategySpec::Immediate(immediate) => Arc::new(immediate.clone()),
            StrategySpec::Custom { name } => {
                Arc::clone(self.custom.get(name).ok_or_else(|| {
                    let known: Vec<&str> = self.custom.keys().map(String::as_str).collect();
                    let more = if known.is_empty() {
                        String::new()
                    } else {
                        format!(", {}", known.join(", "))
                    };
                    StrategyError::new(
                        format!("a strategy: rolling, single, immediate{more}"),
                        name,
                    )
                })?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_survive_the_store_and_resolve_to_what_they_name() {
        for name in ["rolling", "single", "immediate"] {
            let spec = StrategySpec::named(name).with_abort_on(2).unwrap();
            let stored = serde_json::to_string(&spec).unwrap();
            let read: StrategySpec = serde_json::from_str(&stored).unwrap();
            assert_eq!(read, spec);
            let strategy = StrategyRegistry::default().resolve(&read).unwrap();
            assert_eq!(
                (strategy.label(), strategy.failure_budget(100).limit.get()),
                (name, 2)
            );
        }
    }

    #[test]
    fn what_the_settings_say_of_the_default_strategy_counts() {
        let read = |values: &[(&str, &str)]| {
            let values = values.iter();
            StrategySpec::of_settings(&FleetSettings {
                values: values
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
                ..FleetSettings::default()
            })
        };
        assert_eq!(read(&[]).unwrap(), StrategySpec::default());
        let rolling = RollingWave::new(WaveSize::percent(10).unwrap())
            .with_pause(std::time::Duration::from_secs(60))
            .with_abort_on(2)
            .unwrap();
        let all = [
            ("default.batch_percent", "10"),
            ("default.pause", "1m"),
            ("default.abort_on_failures", "2"),
        ];
        assert_eq!(read(&all).unwrap(), StrategySpec::Rolling(rolling));
        let immediate = [
            ("default.strategy", "immediate"),
            ("default.batch_percent", "10"),
            ("default.abort_on_failures", "2"),
        ];
        assert_eq!(
            read(&immediate).unwrap(),
            StrategySpec::named("immediate").with_abort_on(2).unwrap()
        );
        for wrong in [
            ("default.batch_percent", "0"),
            ("default.abort_on_failures", "few"),
            ("default.pause", "soon"),
        ] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_strategy_is_an_error_that_names_the_known_ones() {
        let error = StrategyRegistry::default()
            .resolve(&StrategySpec::named("canary"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a strategy: rolling, single, immediate, found canary"
        );
    }
}
