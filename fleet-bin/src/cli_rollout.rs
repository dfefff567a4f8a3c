//! Arguments of `plan`, `rollout …` and `run`.

use clap::{Args, Subcommand, ValueEnum};
use fleet_core::ids::{InstanceName, RolloutId, TenantId};
use fleet_core::image::ImageRef;
use fleet_core::model::FleetSettings;
use fleet_core::plan::Limits;
use fleet_core::plan::strategy::{RollingWave, StrategyError, StrategySpec, WaveSize};
use serde::{Deserialize, Serialize};

use crate::call::{Span, written};

/// `rollout …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Start a rollout over the automatic instances of a repository
    Start(StartArgs),
    /// Show rollouts, the newest first
    List,
    /// Show one
    Show {
        /// The rollout.
        id: RolloutId,
        /// Follow it until it is over, whoever drives it.
        #[arg(long)]
        watch: bool,
    },
    /// Start nothing more of it until it is resumed
    Pause {
        /// The rollout.
        id: RolloutId,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lift what `rollout pause` set
    Resume {
        /// The rollout.
        id: RolloutId,
    },
    /// Go on past a gate, a pause between waves, or a deadline
    Promote {
        /// The rollout.
        id: RolloutId,
    },
    /// Stop it; what is in flight ends by itself
    Abort {
        /// The rollout.
        id: RolloutId,
        /// Bring what was committed back to what ran before.
        #[arg(long)]
        rollback: bool,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Try again what failed, as a new rollout
    RetryFailed {
        /// The rollout.
        id: RolloutId,
    },
    /// Let it begin
    Approve {
        /// The rollout.
        id: RolloutId,
    },
    /// Do not let it begin
    Deny {
        /// The rollout.
        id: RolloutId,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take an instance out of it
    Exclude {
        /// The rollout.
        id: RolloutId,
        /// The instance.
        instance: InstanceName,
    },
}

/// Arguments of `rollout start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The release, `repository[:tag][@sha256:…]`.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: ImageRef,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Let it begin only when a person approves it: `fleet rollout approve`.
    #[arg(long)]
    pub(crate) needs_approval: bool,
    /// Cancel it when nobody has approved it after so long; default: the setting default.approval_expires, else never.
    #[arg(long, value_name = "DURATION", requires = "needs_approval")]
    pub(crate) approval_expires: Option<Span>,
    /// Wait for its end; without a daemon this is implied.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Arguments of `plan`, and what is asked of the route.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlanArgs {
    /// The release; without it, whatever the last check found.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<ImageRef>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) how: HowArgs,
}

/// How a rollout proceeds.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HowArgs {
    /// The strategy; default: the setting default.strategy, else rolling.
    #[arg(long, value_enum)]
    pub(crate) strategy: Option<StrategyName>,
    /// Size of a wave, as a share of all instances of the rollout, rounded up.
    #[arg(long, value_name = "P", conflicts_with = "batch_count")]
    #[serde(deserialize_with = "written::maybe")]
    pub(crate) batch_percent: Option<u64>,
    /// Size of a wave.
    #[arg(long, value_name = "K")]
    #[serde(deserialize_with = "written::maybe")]
    pub(crate) batch_count: Option<u64>,
    /// Time between two waves.
    #[arg(long, value_name = "DURATION")]
    pub(crate) pause: Option<Span>,
    /// Updates at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(deserialize_with = "written::maybe")]
    pub(crate) max_concurrent: Option<u32>,
    /// Failures after which it stops. Never more than so many fail.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(deserialize_with = "written::maybe")]
    pub(crate) abort_on_failures: Option<u32>,
    /// Only this tenant, also if it is manual; repeat it for several.
    #[arg(long = "tenant", value_name = "TENANT")]
    #[serde(alias = "tenant", deserialize_with = "written::list")]
    pub(crate) tenants: Vec<TenantId>,
    /// Do not mind windows.
    #[arg(long)]
    #[serde(deserialize_with = "written::flag")]
    pub(crate) override_window: bool,
}

/// Strategies by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StrategyName {
    /// Waves of a share or a count.
    Rolling,
    /// One instance.
    Single,
    /// All at once, as far as the limits allow.
    Immediate,
}

impl StrategyName {
    fn label(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Single => "single",
            Self::Immediate => "immediate",
        }
    }
}

impl HowArgs {
    /// The strategy that was asked for; what was not asked for is as the settings have it.
    ///
    /// # Errors
    /// A size or a limit is out of range, or does not go with the strategy.
    pub(crate) fn strategy(&self, settings: &FleetSettings) -> Result<StrategySpec, StrategyError> {
        let has_waves =
            self.batch_percent.is_some() || self.batch_count.is_some() || self.pause.is_some();
        let mut spec = match self.strategy {
            None if has_waves => StrategySpec::named_in("rolling", settings)?,
            None => StrategySpec::of_settings(settings)?,
            Some(name) => StrategySpec::named_in(name.label(), settings)?,
        };
        if let StrategySpec::Rolling(rolling) = &mut spec {
            self.shape(rolling)?;
        } else if has_waves {
            return Err(StrategyError::new(
                "--strategy rolling with a batch size or a pause",
                spec.label(),
            ));
        }
        match self.abort_on_failures {
            Some(failures) => spec.with_abort_on(failures),
            None => Ok(spec),
        }
    }

    fn shape(&self, rolling: &mut RollingWave) -> Result<(), StrategyError> {
        if let Some(percent) = self.batch_percent {
            rolling.size = WaveSize::percent(percent)?;
        }
        if let Some(count) = self.batch_count {
            rolling.size = WaveSize::count(count)?;
        }
        if let Some(pause) = self.pause {
            rolling.pause = pause.0;
        }
        Ok(())
    }

    /// What bounds the rollout; what is not asked for is as by default.
    pub(crate) fn limits(&self, default: Limits) -> Limits {
        Limits {
            max_concurrent: self.max_concurrent.unwrap_or(default.max_concurrent),
            ..default
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// One whole cycle, then exit.
    #[arg(long, required = true)]
    pub(crate) once: bool,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(values: &[(&str, &str)]) -> FleetSettings {
        let values = values.iter();
        FleetSettings {
            values: values
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..FleetSettings::default()
        }
    }

    #[track_caller]
    fn check(how: HowArgs, values: &[(&str, &str)], expect: StrategySpec) {
        assert_eq!(how.strategy(&settings(values)), Ok(expect), "{how:?}");
    }

    fn waves(percent: u64, pause: u64) -> RollingWave {
        RollingWave::new(WaveSize::percent(percent).unwrap()).with_pause(Duration::from_secs(pause))
    }

    #[test]
    fn a_batch_size_means_rolling() {
        let immediate = [("default.strategy", "immediate")];
        let half = HowArgs {
            batch_percent: Some(50),
            ..HowArgs::default()
        };
        check(half, &immediate, StrategySpec::Rolling(waves(50, 300)));
        check(
            HowArgs::default(),
            &immediate,
            StrategySpec::named("immediate"),
        );
    }

    #[test]
    fn what_is_not_asked_for_is_as_the_settings_have_it() {
        let careful = [
            ("default.batch_percent", "5"),
            ("default.pause", "20m"),
            ("default.abort_on_failures", "1"),
        ];
        let rolling = |waves: RollingWave, failures| {
            StrategySpec::Rolling(waves.with_abort_on(failures).unwrap())
        };
        let default = HowArgs::default;
        let pause = Some(Span(Duration::from_secs(60)));
        let paused = HowArgs { pause, ..default() };
        check(paused, &careful, rolling(waves(5, 60), 1));
        let sized = HowArgs {
            batch_percent: Some(50),
            abort_on_failures: Some(2),
            ..default()
        };
        check(sized, &careful, rolling(waves(50, 1200), 2));
        for (strategy, expect) in [
            (StrategyName::Rolling, rolling(waves(5, 1200), 1)),
            (
                StrategyName::Single,
                StrategySpec::named("single").with_abort_on(1).unwrap(),
            ),
            (
                StrategyName::Immediate,
                StrategySpec::named("immediate").with_abort_on(1).unwrap(),
            ),
        ] {
            let strategy = Some(strategy);
            let named = HowArgs {
                strategy,
                ..default()
            };
            check(named, &careful, expect);
        }
    }

    #[test]
    fn sizes_out_of_range_and_in_the_wrong_place_are_refused() {
        for (percent, strategy) in [
            (0, None),
            (101, None),
            (50, Some(StrategyName::Single)),
            (50, Some(StrategyName::Immediate)),
        ] {
            let how = HowArgs {
                strategy,
                batch_percent: Some(percent),
                ..HowArgs::default()
            };
            let read = how.strategy(&FleetSettings::default());
            assert!(read.is_err(), "{how:?}");
        }
    }
}
