//! A strategy of one's own: each wave twice as large as the one before, and no further once a tenth has failed.
//!
//! `cargo run --example custom_strategy` rolls two releases out over a pretended fleet: one that works, and one that does
//! not work on three of forty instances.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::engine::rollout::{Orchestrator, RolloutView, StartRequest, Started};
use fleet_core::image::{Digest, ImageRef};
use fleet_core::plan::PlannedInstance;
use fleet_core::plan::strategy::{
    Batch, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy, StrategyRegistry,
    StrategySpec, WaveGate,
};
use fleet_core::testing::{FakeEntropy, FakeUpdater, MemoryStore, Nature, PausedClock, candidate};

/// 1, 2, 4, 8 … with a minute in between.
#[derive(Debug)]
struct Doubling;

impl RolloutStrategy for Doubling {
    fn label(&self) -> &'static str {
        "doubling"
    }

    fn next_batch(&self, _remaining: &[PlannedInstance], so_far: &Progress) -> Batch {
        // The planner asks with no failures; before each wave it is asked again, with what happened.
        if so_far.failed * 10 > so_far.committed {
            return Batch::Stop {
                why: format!(
                    "{} of {} failed",
                    so_far.failed,
                    so_far.failed + so_far.committed
                ),
            };
        }
        let size = NonZeroU32::MIN
            .saturating_mul(NonZeroU32::new(1 << so_far.wave.min(20)).unwrap_or(NonZeroU32::MIN));
        let gate = match so_far.wave {
            0 => WaveGate::Open,
            _ => WaveGate::Pause {
                duration: Duration::from_secs(60),
            },
        };
        Batch::Take { size, gate }
    }

    fn failure_budget(&self, total: u32) -> FailureBudget {
        // However it goes, a quarter at most may fail.
        FailureBudget::new(NonZeroU32::new(total / 4), total)
    }

    fn on_failure(&self, _failure: &Failure<'_>) -> OnFailure {
        OnFailure::Skip
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let clock = PausedClock::new("2026-01-05T12:00:00Z".parse()?);
    let fleet = FakeUpdater::new(Arc::new(clock.clone()));
    for number in 0..40 {
        fleet.add(candidate(
            &format!("app-{number}"),
            &format!("tenant-{number}"),
        ));
    }
    let orchestrator = Orchestrator::new(
        Arc::new(MemoryStore::new()),
        Arc::new(fleet.clone()),
        Arc::new(clock),
        Arc::new(FakeEntropy::default()),
        StrategyRegistry::default().with(Doubling),
    );
    let broken = ["app-1", "app-2", "app-3"].map(str::to_owned);
    for (tag, nature) in [("2", Nature::Good), ("3", Nature::BadOn(broken.into()))] {
        let image: ImageRef = format!("registry.example/app:{tag}").parse()?;
        let target = image.pinned(Digest::of(tag.as_bytes()));
        fleet.release(target.digest.clone(), nature);
        let request = StartRequest {
            strategy: StrategySpec::named("doubling"),
            ..StartRequest::new("ann", target)
        };
        let Started::Opened(plan) = orchestrator.start(request).await? else {
            anyhow::bail!("nothing to do");
        };
        let waited = orchestrator.wait(&plan.id()).await?;
        println!("{}", RolloutView::new(&waited.rollout));
    }
    Ok(())
}
