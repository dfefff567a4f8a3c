//! The loop: the stages of a tick, each at its own time, until somebody says stop.
//!
//! | what | when |
//! |---|---|
//! | recovery | at the start, when the engine came back, and before each turn of work |
//! | detect and plan | when a channel's poll is due; a release that had to wait, when its time has come |
//! | update and record | after anything changed, and at the latest after [`TURN`] |
//!
//! Engine events and commands wake a turn sooner. None of them is needed: every turn reads the stores and looks at the
//! fleet, so that a lost hint costs half a minute. A defect that ends one turn does not end the loop.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select, try_join3};
use futures::stream::StreamExt as _;
use tokio::sync::watch;

use super::offers::{Looked, still_stands};
use super::rollout::Orchestrator;
use super::{Fleet, FleetError, Offer, Recovery, RecoveryOutcome, Tick, Waiting};
use crate::detect::{PollSchedules, Poller};
use crate::model::Channel;
use crate::plan::rollout::SupersedePolicy;
use crate::ports::{Clock, JournalError, PortErrorKind, ProgressSink, StoredUpdate};
use crate::record::{EventKind, NewEvent};
use crate::update::{SagaError, Verdict, error_chain};

/// Longest time between two turns.
pub const TURN: Duration = Duration::from_secs(30);
/// Longest time for which the channels that there are, are taken from memory.
const SURVEY_EVERY: Duration = Duration::from_secs(300);
/// Engine events are collected for so long before they wake anybody.
const COLLECT: Duration = Duration::from_secs(2);
/// Shortest and longest pause before the engine is asked again after it went away: within two seconds of its return
/// recovery has decided.
const ENGINE_PAUSE: Duration = Duration::from_millis(500);
const ENGINE_PAUSE_MAX: Duration = Duration::from_millis(1500);
const FLEET: &str = "fleet";

/// Hears each verdict of recovery before it is executed, and what came of it.
pub trait Listener: Send + Sync {
    /// Before it is executed.
    fn verdict(&self, update: &StoredUpdate, verdict: &Verdict);
    /// What came of it.
    fn recovered(&self, recovery: &Recovery);
}

/// Drives a fleet until it is told to stop.
pub struct Daemon {
    // ports
    fleet: Fleet,
    orchestrator: Arc<Orchestrator>,
    progress: Arc<dyn ProgressSink>,
    listener: Arc<dyn Listener>,
    // settings
    supersede: SupersedePolicy,
    grace: Duration,
    // state
    looks: Mutex<Looks>,
    hints: watch::Sender<()>,
    state: watch::Sender<DaemonState>,
}

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonState {
    /// What earlier processes left was dealt with.
    pub recovered: bool,
    /// The engine answers.
    pub engine: bool,
}

#[derive(Debug)]
struct Looks {
    poller: Poller,
    /// Channels that some instance follows, as last seen.
    channels: BTreeSet<Channel>,
    /// When they were seen, on the monotonic clock.
    seen_at: Option<Duration>,
    waiting: Vec<Waiting>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Daemon {
    /// A daemon over a fleet and the orchestrator of its rollouts. At the end it waits `grace` for updates whose
    /// instances are out of service.
    #[must_use]
    pub fn new(
        fleet: Fleet,
        orchestrator: Arc<Orchestrator>,
        progress: Arc<dyn ProgressSink>,
        listener: Arc<dyn Listener>,
        schedules: PollSchedules,
        supersede: SupersedePolicy,
        grace: Duration,
    ) -> Self {
        Self {
            fleet,
            orchestrator,
            progress,
            listener,
            supersede,
            grace,
            looks: Mutex::new(Looks {
                poller: Poller::new(schedules),
                channels: BTreeSet::new(),
                seen_at: None,
                waiting: Vec::new(),
            }),
            hints: watch::Sender::new(()),
            state: watch::Sender::new(DaemonState {
                recovered: false,
                engine: true,
            }),
        }
    }

    /// What is ready, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<DaemonState> {
        self.state.subscribe()
    }

    /// Ends [`Daemon::run`]: nothing begins any more, and what is under way stops at its next safe place.
    pub fn stop(&self) {
        self.fleet.stop();
        self.orchestrator.drain();
    }

    /// Runs until [`Daemon::stop`].
    ///
    /// # Errors
    /// The journal could not be read at the start, or takes no more writes until it is opened anew.
    ///
    /// # Cancel safety
    /// Dropping it is a crash: the next start recovers.
    pub async fn run(&self) -> Result<(), FleetError> {
        let clock = self.clock();
        let stopped = async {
            self.fleet.live.stopping().await;
            select(Box::pin(self.fleet.idle()), clock.sleep(self.grace)).await;
        };
        let work = async {
            self.recover_first().await?;
            self.state.send_modify(|state| state.recovered = true);
            let broken = self.working().map(|()| Err::<(), _>(journal_is_broken()));
            let all = try_join3(self.looking().map(Ok), broken, self.watching().map(Ok));
            all.await.map(drop)
        };
        match select(Box::pin(work), Box::pin(stopped)).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => Ok(()),
        }
    }

    /// The first recovery: over when an engine that answers was looked at for every open update.
    async fn recover_first(&self) -> Result<(), FleetError> {
        let mut pause = ENGINE_PAUSE;
        while let Some(why) = self.recover().await?.iter().find_map(engine_was_away) {
            self.engine_is_away(&why).await;
            self.clock().sleep(pause).await;
            pause = (pause * 2).min(ENGINE_PAUSE_MAX);
        }
        self.engine_answers().await;
        Ok(())
    }

    /// Recovery: what dead processes, or updates that stopped on the way, left.
    async fn recover(&self) -> Result<Vec<Recovery>, FleetError> {
        let told = |update: &StoredUpdate, verdict: &Verdict| {
            self.listener.verdict(update, verdict);
        };
        let recoveries = self.fleet.recover(self.progress.as_ref(), &told).await?;
        for recovery in &recoveries {
            self.listener.recovered(recovery);
        }
        Ok(recoveries)
    }

    /// Detect and plan, when it is time.
    async fn looking(&self) {
        let mut hints = self.hints.subscribe();
        loop {
            if self.may_work() {
                turn("the look for releases", self.look()).await;
            }
            let rest = self.time_to_next_look();
            // The sender lives as long as this does.
            select(self.clock().sleep(rest), Box::pin(hints.changed())).await;
        }
    }

    async fn look(&self) -> Result<(), FleetError> {
        self.see_channels().await?;
        let due = self.due();
        if !due.is_empty() {
            let look = Look::begin(self, &due);
            let is_due = |channel: &Channel| due.contains(channel);
            let looked = self.fleet.look(&self.tick(), &is_due).await;
            look.end(looked.is_ok());
            let looked = looked?;
            self.drop_waiting(|offer| {
                is_due(&offer.channel) && !still_stands(offer, &looked.findings)
            });
            self.keep_waiting(looked);
        }
        let ripe = self.ripe();
        if !ripe.is_empty() {
            let looked = self
                .fleet
                .open_what_waited(&self.tick(), ripe.clone())
                .await?;
            self.looks()
                .waiting
                .retain(|waiting| !ripe.contains(&waiting.offer));
            self.look_again(&looked.gone);
            self.keep_waiting(looked);
        }
        Ok(())
    }

    /// What waited and is not there any more: the channel is asked what is there instead.
    fn look_again(&self, gone: &[Offer]) {
        for offer in gone {
            tracing::info!(release = %offer.release, "withdrawn while it waited");
            self.looks().poller.take_back(&offer.channel);
        }
    }

    fn drop_waiting(&self, is_over: impl Fn(&Offer) -> bool) {
        self.looks().waiting.retain(|waiting| {
            let over = is_over(&waiting.offer);
            if over {
                tracing::info!(release = %waiting.offer.release, "no longer offered while it waited");
            }
            !over
        });
    }

    /// Looks which channels there are, unless that was seen a moment ago.
    async fn see_channels(&self) -> Result<(), FleetError> {
        let now = self.clock().monotonic();
        let fresh = |seen_at: Duration| now.saturating_sub(seen_at) < SURVEY_EVERY;
        if self.looks().seen_at.is_some_and(fresh) {
            return Ok(());
        }
        let survey = self.fleet.survey().await?;
        let channels = survey
            .followed()
            .map(|managed| managed.settings.channel.clone());
        let mut looks = self.looks();
        looks.channels = channels.collect();
        looks.seen_at = Some(now);
        Ok(())
    }

    fn due(&self) -> BTreeSet<Channel> {
        let looks = self.looks();
        let due = looks.poller.due(&looks.channels, self.clock().now());
        due.into_iter().cloned().collect()
    }

    /// A newer release of a reference takes the place of one that waits in its channel.
    fn keep_waiting(&self, looked: Looked) {
        let mut looks = self.looks();
        for new in looked.waiting {
            let of = |offer: &Offer| (offer.release.image.clone(), offer.channel.clone());
            let place = of(&new.offer);
            let as_before = |old: &Waiting| {
                of(&old.offer) == place
                    && old.offer.release.digest == new.offer.release.digest
                    && old.why == new.why
            };
            if !looks.waiting.iter().any(as_before) {
                tracing::info!(release = %new.offer.release, why = new.why, "no rollout is opened now");
            }
            looks.waiting.retain(|old| of(&old.offer) != place);
            looks.waiting.push(new);
        }
    }

    /// The releases that waited and whose time has come.
    fn ripe(&self) -> Vec<Offer> {
        let now = self.clock().now();
        let looks = self.looks();
        let ripe = looks
            .waiting
            .iter()
            .filter(|waiting| waiting.again_at.is_some_and(|at| at <= now));
        ripe.map(|waiting| waiting.offer.clone()).collect()
    }

    fn time_to_next_look(&self) -> Duration {
        let now = self.clock().now();
        let looks = self.looks();
        let poll = looks.poller.next_due(&looks.channels, now);
        let waits = looks.waiting.iter().filter_map(|waiting| waiting.again_at);
        let next = poll.into_iter().chain(waits).filter(|at| *at > now).min();
        // What is due and was not done, is tried again after a turn: there was a reason.
        next.map_or(TURN, |at| at.since(now).min(TURN))
    }

    /// Update and record, after anything changed and now and then. Ends when the journal takes no more writes.
    async fn working(&self) {
        let mut woken = self.orchestrator.woken();
        loop {
            if self.may_work() {
                turn("recovery", async { self.recover().await.map(drop) }).await;
                turn("work on the rollouts", async {
                    Ok(self.orchestrator.run_due().await?)
                })
                .await;
            }
            if self.fleet.ports.update.journal.is_broken() {
                return;
            }
            self.orchestrator.idle(&mut woken, TURN).await;
        }
    }

    /// Follows the engine's events, and notices when it goes away and when it is back.
    async fn watching(&self) {
        let runtime = &self.fleet.ports.update.runtime;
        let mut pause = ENGINE_PAUSE;
        loop {
            let error = match runtime.events().await {
                Ok(mut events) => {
                    self.engine_answers().await;
                    while let Some(Ok(_)) = events.next().await {
                        pause = ENGINE_PAUSE;
                        self.clock().sleep(COLLECT).await;
                        while let Some(Some(Ok(_))) = events.next().now_or_never() {}
                        self.hint();
                    }
                    runtime.info().await.err()
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                self.engine_is_away(&error_chain(&error)).await;
            }
            self.clock().sleep(pause).await;
            pause = (pause * 2).min(ENGINE_PAUSE_MAX);
        }
    }

    async fn engine_answers(&self) {
        if self.set_engine(true) {
            tracing::info!("the engine is back");
            self.record(EventKind::EngineBack, serde_json::Value::Null)
                .await;
            self.hint();
        }
    }

    async fn engine_is_away(&self, why: &str) {
        if self.set_engine(false) {
            tracing::warn!(why, "the engine is away; nothing begins until it is back");
            self.record(EventKind::EngineLost, serde_json::json!({ "reason": why }))
                .await;
        }
    }

    /// Whether that is news.
    fn set_engine(&self, answers: bool) -> bool {
        self.state.send_if_modified(|state| {
            let news = state.engine != answers;
            state.engine = answers;
            news
        })
    }

    async fn record(&self, kind: EventKind, data: serde_json::Value) {
        let event = NewEvent {
            data,
            ..NewEvent::new(self.clock().now(), kind, FLEET)
        };
        if let Err(error) = self.fleet.ports.events.record(vec![event]).await {
            tracing::warn!(
                error = error_chain(&error),
                "an event could not be recorded"
            );
        }
    }

    /// Something happened on the engine: look which channels there are, and at the rollouts.
    fn hint(&self) {
        self.looks().seen_at = None;
        self.hints.send_replace(());
        self.orchestrator.wake();
    }

    fn may_work(&self) -> bool {
        self.state.borrow().engine && !self.fleet.live.is_stopping()
    }

    fn tick(&self) -> Tick<'_> {
        Tick {
            orchestrator: &self.orchestrator,
            supersede: self.supersede,
            progress: self.progress.as_ref(),
            told: &|_, _| {},
            actor: FLEET,
        }
    }

    fn clock(&self) -> &dyn Clock {
        self.fleet.ports.update.clock.as_ref()
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at some channels, which is over when this is dropped, whatever became of it.
struct Look<'a> {
    of: &'a Daemon,
    channels: &'a BTreeSet<Channel>,
}

impl<'a> Look<'a> {
    fn begin(of: &'a Daemon, channels: &'a BTreeSet<Channel>) -> Self {
        let now = of.clock().now();
        for channel in channels {
            let [high, low, ..] = of.fleet.ports.update.entropy.bytes();
            let chance = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
            of.looks().poller.begin(channel, now, chance);
        }
        Self { of, channels }
    }

    /// A look that failed asked nothing that counts.
    fn end(self, well: bool) {
        if !well {
            let mut looks = self.of.looks();
            for channel in self.channels {
                looks.poller.take_back(channel);
            }
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut looks = self.of.looks();
        for channel in self.channels {
            looks.poller.end(channel);
        }
    }
}

/// What the daemon ends with where going on is of no use. A new process opens the journal again, and recovers what this
/// one could not finish.
fn journal_is_broken() -> FleetError {
    let message = "an earlier write failed and nothing more is written; a new start opens it again";
    FleetError::Store(JournalError::Store {
        message: message.to_owned(),
        source: None,
    })
}

/// Why a recovery came to nothing, if the engine could not be asked.
fn engine_was_away(recovery: &Recovery) -> Option<String> {
    let RecoveryOutcome::Open(error) = &recovery.outcome else {
        return None;
    };
    let away = match error {
        FleetError::Port(error) => error.kind() == PortErrorKind::Unreachable,
        FleetError::Saga(SagaError::EngineAway { .. }) => true,
        _ => false,
    };
    away.then(|| error_chain(error))
}

/// One turn of a loop. What it fails with is said and tried again; a defect does not take the loop with it.
async fn turn(what: &str, work: impl Future<Output = Result<(), FleetError>>) {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = error_chain(&error),
            "{what} failed; it is tried again"
        ),
        Err(_) => tracing::error!("{what} stopped by a defect in fleet; it is tried again"),
    }
}
