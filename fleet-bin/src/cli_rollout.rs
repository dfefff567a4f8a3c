//! Arguments of `plan`, `rollout …` and `run`.

use clap::{Args, Subcommand, ValueEnum};
use fleet_core::ids::{InstanceName, RolloutId, TenantId};
use fleet_core::image::ImageRef;
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

impl HowArgs {
    /// The strategy that was asked for; `default` where none was named.
    ///
    /// # Errors
    /// A size or a limit is out of range, or does not go with the strategy.
    pub(crate) fn strategy(&self, default: StrategySpec) -> Result<StrategySpec, StrategyError> {
        let mut spec = match self.strategy {
            None if self.batch_percent.is_some()
                || self.batch_count.is_some()
                || self.pause.is_some() =>
            {
                StrategySpec::named("rolling")
            }
            None => default,
            Some(StrategyName::Rolling) => StrategySpec::named("rolling"),
            Some(StrategyName::Single) => StrategySpec::named("single"),
            Some(StrategyName::Immediate) => StrategySpec::named("immediate"),
        };
        if let StrategySpec::Rolling(rolling) = &mut spec {
            self.shape(rolling)?;
        } else if self.batch_percent.is_some() || self.batch_count.is_some() || self.pause.is_some()
        {
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
    use super::*;

    fn how(percent: Option<u64>, strategy: Option<StrategyName>) -> HowArgs {
        HowArgs {
            strategy,
            batch_percent: percent,
            batch_count: None,
            pause: None,
            max_concurrent: None,
            abort_on_failures: Some(2),
            tenants: Vec::new(),
            override_window: false,
        }
    }

    #[test]
    fn a_batch_size_means_rolling() {
        let spec = how(Some(50), None)
            .strategy(StrategySpec::named("immediate"))
            .unwrap();
        assert_eq!(spec.label(), "rolling");
        let spec = how(None, None)
            .strategy(StrategySpec::named("immediate"))
            .unwrap();
        assert_eq!(spec.label(), "immediate");
    }

    #[test]
    fn sizes_out_of_range_and_in_the_wrong_place_are_refused() {
        for percent in [0, 101] {
            assert!(
                how(Some(percent), None)
                    .strategy(StrategySpec::default())
                    .is_err(),
                "{percent}"
            );
        }
        assert!(
            how(Some(50), Some(StrategyName::Single))
                .strategy(StrategySpec::default())
                .is_err()
        );
    }
}
