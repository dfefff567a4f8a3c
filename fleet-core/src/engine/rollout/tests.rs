//! Whole rollouts over a pretended fleet: budgets, deaths at any point, failing stores, commands in between.

mod approval;
mod channels;
mod clock;
mod custom;
mod detection;
mod leaving;
mod promoting;
mod races;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::{InstanceId, InstanceName, RolloutId};
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::plan::Candidate;
use crate::plan::rollout::{Decision, Phase, SupersedePolicy, UpdateEnd};
use crate::plan::strategy::{Immediate, RollingWave, StrategyRegistry, StrategySpec, WaveSize};
use crate::ports::{Clock as _, Entropy, RolloutStore as _, StoredRollout};
use crate::record::EventKind;
use crate::testing::{
    FakeEntropy, FakeUpdater, MemoryStore, Nature, PausedClock, WriteFault, candidate,
};

struct World {
    clock: PausedClock,
    store: MemoryStore,
    fleet: FakeUpdater,
    entropy: Arc<dyn Entropy>,
}

fn image(tag: &str) -> PinnedImage {
    let image: ImageRef = format!("registry.example/app:{tag}").parse().unwrap();
    image.pinned(Digest::of(tag.as_bytes()))
}

fn instance(name: &str) -> InstanceId {
    InstanceId::local(InstanceName::new(name).unwrap())
}

fn rolling(count: u64, pause: u64, abort_on: u32) -> StrategySpec {
    let rolling =
        RollingWave::new(WaveSize::count(count).unwrap()).with_pause(Duration::from_secs(pause));
    StrategySpec::Rolling(rolling.with_abort_on(abort_on).unwrap())
}

fn request(tag: &str, strategy: StrategySpec) -> StartRequest {
    StartRequest {
        strategy,
        ..StartRequest::new("ann", image(tag))
    }
}

impl World {
    fn of(instances: usize) -> Self {
        let clock = PausedClock::new("2026-01-05T12:00:00Z".parse().unwrap());
        let fleet = FakeUpdater::new(Arc::new(clock.clone()));
        for number in 0..instances {
            fleet.add(candidate(&format!("i{number}"), &format!("t{number}")));
        }
        Self {
            clock,
            store: MemoryStore::new(),
            fleet,
            entropy: Arc::new(FakeEntropy::default()),
        }
    }

    /// A process that drives rollouts; each call is a new one over the same stores.
    fn process(&self) -> Orchestrator {
        Orchestrator::new(
            Arc::new(self.store.clone()),
            Arc::new(self.fleet.clone()),
            Arc::new(self.clock.clone()),
            Arc::clone(&self.entropy),
            StrategyRegistry::default(),
        )
    }

    async fn start(&self, request: StartRequest) -> RolloutId {
        match self.process().start(request).await.unwrap() {
            Started::Opened(plan) => plan.id(),
            other => panic!("expected a rollout, found {other:?}"),
        }
    }

    async fn phase(&self, id: &RolloutId) -> Phase {
        self.process().load(id).await.unwrap().state.phase
    }

    /// Instances whose update counted as a failure.
    fn failed(&self) -> BTreeSet<InstanceId> {
        let counted = |end: &Option<UpdateEnd>| matches!(end, Some(UpdateEnd::Unsuccessful { kind, .. }) if kind.counts());
        self.fleet
            .ends()
            .into_iter()
            .filter(|(_, end)| counted(end))
            .map(|(order, _)| order.instance)
            .collect()
    }

    fn count(&self, kind: &EventKind) -> usize {
        self.store
            .events()
            .iter()
            .filter(|event| event.event.kind == *kind)
            .count()
    }

    fn runs_everywhere(&self, tag: &str, instances: usize) -> bool {
        (0..instances).all(|number| {
            self.fleet.runs(&instance(&format!("i{number}"))) == Some(image(tag).digest)
        })
    }
}

fn paused(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn never_more_fail_than_may(
        bad in prop::collection::vec(any::<bool>(), 1..16),
        count in 1u64..9,
        abort_on in 1u32..6,
        concurrent in 1u32..9,
        deaths in prop::collection::vec(0usize..12, 0..3),
        exclude in any::<bool>(),
    ) {
        paused(async {
            let world = World::of(bad.len());
            let names = bad.iter().enumerate().filter(|(_, bad)| **bad).map(|(number, _)| format!("i{number}")).collect();
            world.fleet.release(image("2").digest, Nature::BadOn(names));
            let mut request = request("2", rolling(count, 60, abort_on));
            request.limits.max_concurrent = concurrent;
            let id = world.start(request).await;
            if exclude {
                let command = Command::Exclude { instance: instance("i0") };
                world.process().command(&id, &command, "ann").await.unwrap();
            }
            // It is killed, and what it left is recovered; each time it counts from what is in the store.
            for polls_left in deaths {
                let process = world.process();
                let cut = Cut { inner: Box::pin(process.run_due()), polls_left };
                let _ = cut.await;
                world.fleet.recover();
            }
            let process = world.process();
            loop {
                let waited = process.wait(&id).await.unwrap();
                if waited.outlook == Outlook::Over {
                    break;
                }
                // No instance of a wave succeeded: a person lets it go on.
                process.command(&id, &Command::Promote, "ann").await.unwrap();
            }
            let failures = u32::try_from(world.failed().len()).unwrap();
            assert!(failures <= abort_on, "{failures} failed, at most {abort_on} may");
            // Who is taken out is not replaced by another, and frees no room for a failure.
            let tried = &bad[usize::from(exclude)..];
            let all_bad = u32::try_from(tried.iter().filter(|bad| **bad).count()).unwrap();
            let aborted = matches!(world.phase(&id).await, Phase::Aborted { .. });
            assert_eq!(aborted, all_bad >= abort_on);
            assert_eq!(world.count(&EventKind::RolloutAborted), usize::from(aborted));
            assert!(world.fleet.in_flight_max() <= concurrent.min(abort_on) as usize);
        });
    }
}

/// Polls a future so many times, then drops it.
struct Cut<F> {
    inner: Pin<Box<F>>,
    polls_left: usize,
}

impl<F: Future> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

#[test]
fn a_process_may_die_at_any_point_and_again() {
    let mut died = 0;
    for polls in 0..12 {
        paused(async {
            let world = World::of(5);
            world
                .fleet
                .release(image("2").digest, Nature::BadOn(["i3".to_owned()].into()));
            let mut request = request("2", rolling(2, 0, 2));
            request.limits.max_concurrent = 2;
            let id = world.start(request).await;
            for _ in 0..3 {
                let process = world.process();
                let cut = Cut {
                    inner: Box::pin(process.run_due()),
                    polls_left: polls,
                };
                died += usize::from(cut.await.is_none());
                world.fleet.recover();
            }
            let waited = world.process().wait(&id).await.unwrap();
            assert_eq!(
                waited.rollout.state.phase,
                Phase::CompletedWithFailures,
                "cut after {polls} polls"
            );
            let tally = waited.rollout.state.tally();
            assert_eq!(
                (tally.committed, tally.rolled_back, tally.failures),
                (4, 1, 1),
                "cut after {polls} polls"
            );
            let attempts = world
                .fleet
                .ends()
                .iter()
                .map(|(order, _)| order.attempt)
                .max()
                .unwrap();
            assert!(attempts <= 4, "{attempts} attempts after {polls} polls");
        });
    }
    assert!(
        died > 8,
        "only {died} processes died: the cuts come too late"
    );
}

#[test]
fn a_store_may_fail_at_any_write() {
    for fault in [
        WriteFault::Fails,
        WriteFault::AnswerLost,
        WriteFault::Broken,
    ] {
        for nth in 1..30 {
            paused(async {
                let world = World::of(4);
                world
                    .fleet
                    .release(image("2").digest, Nature::BadOn(["i1".to_owned()].into()));
                let id = world.start(request("2", rolling(2, 0, 2))).await;
                world.store.inject(nth, fault);
                let mut end = world.process().wait(&id).await;
                while end.is_err() {
                    world.store.heal();
                    world.fleet.recover();
                    end = world.process().wait(&id).await;
                }
                let tally = end.unwrap().rollout.state.tally();
                assert_eq!(
                    (tally.committed, tally.failures),
                    (3, 1),
                    "{fault:?} at write {nth}"
                );
                assert_eq!(
                    world.count(&EventKind::RolloutCompleted),
                    1,
                    "{fault:?} at write {nth}"
                );
            });
        }
    }
}

#[test]
fn commands_and_passes_at_the_same_time_lose_nothing() {
    paused(async {
        let world = World::of(9);
        let id = world.start(request("2", rolling(3, 5, 3))).await;
        let process = world.process();
        let commands = async {
            for round in 0..40 {
                let command = match round % 2 {
                    0 => Command::Pause {
                        why: "busy".to_owned(),
                    },
                    _ => Command::Resume,
                };
                match process.command(&id, &command, "ann").await {
                    Ok(_) | Err(RolloutError::Illegal(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                world.clock.sleep(Duration::from_secs(7)).await;
            }
        };
        let passes = async {
            let mut woken = process.woken();
            while !world.phase(&id).await.is_terminal() {
                futures::future::try_join(process.run_due(), process.run_due())
                    .await
                    .unwrap();
                process.idle(&mut woken, Duration::from_secs(3)).await;
            }
        };
        futures::future::join(commands, passes).await;
        assert!(world.runs_everywhere("2", 9));
        assert_eq!(world.fleet.begun(), 9);
        assert_eq!(
            world.count(&EventKind::RolloutPaused),
            world.count(&EventKind::RolloutResumed)
        );
    });
}

#[test]
fn a_fleet_that_is_down_whole_may_be_repaired_and_a_bad_release_is_not_blamed_for_it() {
    for (nature, expect) in [
        (Nature::Good, (Phase::Completed, 4)),
        (Nature::Bad, (Phase::CompletedWithFailures, 0)),
    ] {
        paused(async {
            let world = World::of(4);
            for number in 0..4 {
                let name = instance(&format!("i{number}"));
                world.fleet.change(&name, |it| it.healthy = false);
            }
            world.fleet.release(image("2").digest, nature.clone());
            let strategy = StrategySpec::Immediate(Immediate::default());
            let id = world.start(request("2", strategy)).await;
            world.process().wait(&id).await.unwrap();
            let StoredRollout { state, .. } = world.process().load(&id).await.unwrap();
            let tally = state.tally();
            assert_eq!(
                (state.phase, tally.committed, tally.failures),
                (expect.0, expect.1, 0)
            );
        });
    }
}

#[test]
fn half_of_a_tenant_stays_up_and_what_is_down_does_not_block_its_own_repair() {
    paused(async {
        let world = World::of(0);
        for number in 0..6 {
            world.fleet.add(candidate(&format!("i{number}"), "acme"));
        }
        let mut request = request("2", StrategySpec::Immediate(Immediate::default()));
        request.limits.max_concurrent = 6;
        request.strategy = request.strategy.with_abort_on(6).unwrap();
        for number in 0..6 {
            world.fleet.change(&instance(&format!("i{number}")), |it| {
                it.healthy = number % 2 == 0
            });
        }
        let id = world.start(request).await;
        let process = world.process();
        let waited = process.wait(&id).await.unwrap();
        assert_eq!(waited.rollout.state.phase, Phase::Completed);
        // Three were down before: only those may begin while they are.
        let first: BTreeSet<String> = world
            .fleet
            .ends()
            .iter()
            .take(3)
            .map(|(order, _)| order.instance.to_string())
            .collect();
        assert_eq!(first, ["i1", "i3", "i5"].map(str::to_owned).into());
        assert_eq!(world.fleet.in_flight_max(), 3);
    });
}

#[test]
fn retrying_lifts_the_quarantine_of_what_failed_and_only_of_that() {
    paused(async {
        let world = World::of(6);
        let bad =
            |names: &[&str]| Nature::BadOn(names.iter().map(|&name| name.to_owned()).collect());
        world.fleet.release(image("2").digest, bad(&["i1", "i2"]));
        let id = world.start(request("2", rolling(6, 0, 3))).await;
        assert!(matches!(
            world.process().retry_failed(&id, "ann").await,
            Err(StartError::NotOver(_))
        ));
        world.process().wait(&id).await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::CompletedWithFailures);
        world.fleet.release(image("2").digest, Nature::Good);
        let Started::Opened(plan) = world.process().retry_failed(&id, "ann").await.unwrap() else {
            panic!("expected a rollout");
        };
        assert_eq!(
            (plan.total(), plan.request.attempt, plan.request.parent),
            (2, 2, Some(id))
        );
        world.process().wait(&plan.id()).await.unwrap();
        assert!(world.runs_everywhere("2", 6));
        assert!(matches!(
            world.process().retry_failed(&plan.id(), "ann").await,
            Err(StartError::NothingFailed(_))
        ));
    });
}

#[test]
fn the_same_twice_is_refused_and_another_release_takes_its_place() {
    paused(async {
        let world = World::of(4);
        let first = world.start(request("2", rolling(1, 600, 1))).await;
        let again = world
            .process()
            .start(request("2", rolling(1, 600, 1)))
            .await;
        assert!(matches!(again, Err(StartError::AlreadyRunning(id)) if id == first));
        let second = world.start(request("3", rolling(4, 0, 3))).await;
        world.process().wait(&second).await.unwrap();
        assert_eq!(world.phase(&first).await, Phase::Superseded { by: second });
        assert!(world.runs_everywhere("3", 4));
    });
}

#[test]
fn a_storm_of_releases_lets_one_finish_and_ends_with_the_newest() {
    paused(async {
        let world = World::of(6);
        let process = world.process();
        let policy = SupersedePolicy {
            quiet_period: Duration::ZERO,
            ..SupersedePolicy::default()
        };
        let mut opened = 0;
        for push in 0..20 {
            let release = request(&format!("v{push}"), rolling(2, 60, 2));
            let mut target = release.target.clone();
            target.image = image("latest").image;
            let release = StartRequest { target, ..release };
            let seen = world.clock.now();
            if let Detected::Started(Started::Opened(_)) =
                process.detected(release, None, seen, policy).await.unwrap()
            {
                opened += 1;
            }
            let _ = futures::future::select(
                Box::pin(process.run_due()),
                world.clock.sleep(Duration::from_secs(20)),
            )
            .await;
            world.fleet.recover();
        }
        let finished = world.store.list(100).await.unwrap();
        let finished = finished
            .iter()
            .filter(|stored| stored.state.wave > 0 || stored.state.replaced_in_a_row >= 3)
            .count();
        assert!(
            finished > 0,
            "every one of {opened} rollouts was replaced in its first wave"
        );
        assert!(opened < 20, "the guard never held one back");
    });
}

#[test]
fn a_release_that_comes_back_is_not_rolled_out_by_itself() {
    paused(async {
        let world = World::of(2);
        let process = world.process();
        let policy = SupersedePolicy {
            quiet_period: Duration::ZERO,
            ..SupersedePolicy::default()
        };
        let detect = async |content: &str| {
            let mut release = request("latest", rolling(2, 0, 2));
            release.target.digest = Digest::of(content.as_bytes());
            let detected = process
                .detected(release, None, world.clock.now(), policy)
                .await
                .unwrap();
            process.run_due().await.unwrap();
            world.clock.sleep(Duration::from_secs(1)).await;
            detected
        };
        assert!(matches!(
            detect("a").await,
            Detected::Started(Started::Opened(_))
        ));
        assert!(matches!(
            detect("a").await,
            Detected::Decided(Decision::Same)
        ));
        assert!(matches!(
            detect("b").await,
            Detected::Started(Started::Opened(_))
        ));
        assert!(matches!(
            detect("a").await,
            Detected::Decided(Decision::MovedBack)
        ));
        // An instance that came later gets what is stable.
        world.fleet.add(candidate("late", "t9"));
        let Detected::Started(Started::Opened(plan)) = detect("b").await else {
            panic!("expected a rollout for the one that came late");
        };
        assert_eq!(plan.total(), 1);
        assert_eq!(world.fleet.runs(&instance("late")), Some(Digest::of(b"b")));
    });
}

#[test]
fn outcomes_of_updates_mean_what_the_design_says() {
    use crate::plan::rollout::Ending;
    use crate::plan::strategy::FailureKind as Kind;
    use crate::update::{Fault, Outcome};
    let now = crate::time::Timestamp::UNIX_EPOCH;
    let check = |outcome, fault, expect: Option<(Ending, Kind)>| match update_end(
        outcome, fault, "why", now,
    ) {
        UpdateEnd::Unsuccessful { how, kind, .. } => {
            assert_eq!(Some((how, kind)), expect, "{outcome} {fault:?}")
        }
        _ => assert_eq!(None, expect, "{outcome} {fault:?}"),
    };
    check(Outcome::Committed, None, None);
    check(
        Outcome::RolledBack,
        Some(Fault::Release),
        Some((Ending::RolledBack, Kind::Release)),
    );
    check(
        Outcome::RolledBack,
        Some(Fault::Infrastructure),
        Some((Ending::RolledBack, Kind::Infrastructure)),
    );
    check(
        Outcome::NeedsOperator,
        Some(Fault::Infrastructure),
        Some((Ending::NeedsOperator, Kind::NeedsPerson)),
    );
    check(
        Outcome::Diverged,
        Some(Fault::Foreign),
        Some((Ending::NeedsOperator, Kind::NeedsPerson)),
    );
    check(
        Outcome::Failed,
        Some(Fault::Infrastructure),
        Some((Ending::Failed, Kind::Infrastructure)),
    );
    check(Outcome::Failed, Some(Fault::NotNow), None);
    check(Outcome::Refused, Some(Fault::Refusal), None);
    assert!(matches!(
        update_end(Outcome::Refused, Some(Fault::NotNow), "", now),
        UpdateEnd::Deferred { .. }
    ));
    assert!(matches!(
        update_end(Outcome::Refused, None, "", now),
        UpdateEnd::Refused { .. }
    ));
}
